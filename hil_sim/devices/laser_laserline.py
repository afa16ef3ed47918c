"""Diode laser of the Laserline LDF kind behind a gateway (device-protocols.md, section 10).

The registers are fictitious; the rules are the maker's: an e-stop cuts the coolant pump and
must stay open 30 s, light not used for the beam time-out ends 'ready', a door test is due after
power-up, coolant below 19 degC is a fault.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from hil_sim.devices.modbus import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Block, ModbusError, ModbusTcp

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

_REGISTERS = Struct(
    ">HHHhhHHH"
)  # state, faults, power, temperature, coolant, request, light, spare
_REQUEST, _LASER_ON = 5, 6

READY, PROGRAM_READY, THRESHOLD, EMISSION = 1 << 0, 1 << 1, 1 << 2, 1 << 3
INTERLOCK_OK, EXTERNAL, GATE_MODE, STARTING = 1 << 4, 1 << 5, 1 << 6, 1 << 7
COOLANT, SUPPLY, DOOR_TEST, BEAM_TIMEOUT = 1 << 1, 1 << 2, 1 << 3, 1 << 4
UNEXPECTED, BACK_REFLECTION = 1 << 6, 1 << 7
ASK_READY, ASK_EXTERNAL, ASK_RESET = 1, 2, 4

ESTOP_WAIT_US = 30_000_000
START_UP_US = 2_000_000
LEAST_COOLANT_DEG_C = 19.0
SUPERVISION_US = 10_000


class LaserLaserline(ModbusTcp):
    """Fault hooks besides those of the wire: `door_tested` (False: a test is due), `n_unready`.

    ``beam_timeout_us``: longest time with the laser on and no light. ``n_unready`` counts how
    often 'ready' was left: each costs life of the diodes.
    """

    channel = "laser"
    functions = frozenset((3, 6, 16))

    def __init__(self, sim: Scheduler, world: World, beam_timeout_us: int = 600_000_000) -> None:
        super().__init__(sim, world)
        self.beam_timeout_us = beam_timeout_us
        self.door_tested = True
        self.n_unready = 0
        self._block = Block(0, 8)
        self.blocks = {1: (self._block,)}
        self._request = 0
        self._laser_on = False
        self._started = False
        self._count = 0
        self._latched = 0
        self._opened_us: int | None = None
        self._light_us = 0
        sim.every(SUPERVISION_US, self.supervise)

    @property
    def source_ready(self) -> bool:
        return bool(self._request & ASK_READY) and not self.faults()

    def faults(self) -> int:
        """Bits of the fault register; latches what has to be reset."""
        world = self.world
        if world.coolant_deg_c < LEAST_COOLANT_DEG_C:
            self._latched |= COOLANT
        if world.back_reflection:
            self._latched |= BACK_REFLECTION
        bits = self._latched
        if not world.supply_relay_on:
            bits |= SUPPLY
        if not self.door_tested:
            bits |= DOOR_TEST
        return bits

    def supervise(self) -> None:
        """The source's own protection, on its own clock."""
        world, now_us = self.world, self.sim.now_us
        if not world.chain_closed:
            if self._opened_us is None:
                self._opened_us = now_us
            self._light_off()
        elif self._opened_us is not None:
            if now_us - self._opened_us < ESTOP_WAIT_US:
                self._latched |= COOLANT  # closed too early: the pump has not run out
            self._opened_us = None
        if not self._laser_on or (world.gate_on and world.emission_w > 0.0):
            self._light_us = now_us
        elif now_us - self._light_us >= self.beam_timeout_us:
            self._latched |= BEAM_TIMEOUT
        if world.emission_w > 0.0 and not self._laser_on:
            self._latched |= UNEXPECTED
        if self.faults():
            self._light_off()
            if self._request & ASK_READY:
                self._request &= ~ASK_READY
                self.n_unready += 1

    def refresh(self, unit: int) -> None:
        world = self.world
        lit = world.emission_w > 0.0
        state = 0
        for on, bit in (
            (self.source_ready, READY),
            (self._started, PROGRAM_READY),
            (lit and world.power_command_w >= world.threshold_power_w, THRESHOLD),
            (lit, EMISSION),
            (world.chain_closed, INTERLOCK_OK),
            (bool(self._request & ASK_EXTERNAL), EXTERNAL | GATE_MODE),
            (self._laser_on and not self._started, STARTING),
        ):
            if on:
                state |= bit
        _REGISTERS.pack_into(
            self._block.data,
            0,
            state,
            self.faults(),
            min(65535, max(0, round(world.laser_power_measured_w))),
            round(10.0 * world.laser_temp_deg_c),
            round(10.0 * world.coolant_deg_c),
            self._request,
            int(self._laser_on),
            0,
        )

    def write_registers(self, unit: int, address: int, values: tuple[int, ...]) -> None:
        if address < _REQUEST or address + len(values) - 1 > _LASER_ON:
            raise ModbusError(ILLEGAL_ADDRESS)
        for register, value in enumerate(values, address):
            if value > (7 if register == _REQUEST else 1):
                raise ModbusError(ILLEGAL_VALUE)
            if register == _REQUEST:
                self._ask(value)
            elif value:
                self._light_on()
            else:
                self._light_off()

    def _ask(self, request: int) -> None:
        if request & ASK_RESET and not self._request & ASK_RESET:
            self._latched = 0
            self.faults()  # what still stands comes back
        if self._request & ASK_READY and not request & ASK_READY:
            self.n_unready += 1
        self._request = request
        self._tell_world()

    def _light_on(self) -> None:
        if self._laser_on or not self.source_ready or not self.world.chain_closed:
            return  # the register reads back 0: refused
        self._laser_on = True
        self._count += 1
        self._light_us = self.sim.now_us
        count = self._count
        self.sim.at(self.sim.now_us + START_UP_US, lambda: self._start_up_over(count))

    def _start_up_over(self, count: int) -> None:
        if self._laser_on and count == self._count:
            self._started = True
            self._tell_world()

    def _light_off(self) -> None:
        self._laser_on = self._started = False
        self._tell_world()

    def _tell_world(self) -> None:
        self.world.laser_enabled = self._started and bool(self._request & ASK_EXTERNAL)

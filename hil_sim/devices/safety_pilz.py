"""Pilz PNOZmulti safety PLC, Modbus/TCP (docs/reference/device-protocols.md, section 8).

The bits are the project of this simulated cell. The chain itself is hardware and lives in
`World`; this device shows it and passes on the two requests.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from hil_sim.devices.modbus import ILLEGAL_ADDRESS, Block, ModbusError, ModbusTcp

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

_WORD = Struct(">H")
_N_INPUT_WORDS = 8  # virtual inputs i0 to i127

ESTOP_OK = 1 << 0
DOOR_CLOSED = 1 << 1
CHAIN_CLOSED = 1 << 2
RESET_NEEDED = 1 << 3
SUPPLY_RELAY_ON = 1 << 4

DROP_SUPPLY = 1 << 0
RESET = 1 << 1

PLC_ERROR = 1 << 0
WATCHDOG = 1 << 5


class SafetyPilz(ModbusTcp):
    """Virtual outputs as input registers 512 to 519, virtual inputs 0 to 7, state at 2048.

    Fault hooks besides those of the wire: `plc_error`, `watchdog_tripped`.
    """

    channel = "safety"
    functions = frozenset((3, 4, 6, 16))

    def __init__(self, sim: Scheduler, world: World) -> None:
        super().__init__(sim, world)
        self.plc_error = False
        self.watchdog_tripped = False
        self._outputs = Block(512, 8)
        self._state = Block(2048, 2)
        self._inputs = Block(0, _N_INPUT_WORDS)
        self.blocks = {1: (self._outputs, self._state, self._inputs)}

    def read_registers(self, unit: int, function: int, address: int, count: int) -> bytes:
        if function == 3 and address >= _N_INPUT_WORDS:
            raise ModbusError(ILLEGAL_ADDRESS)  # outputs exist as input registers only
        return super().read_registers(unit, function, address, count)

    def refresh(self, unit: int) -> None:
        world = self.world
        word = 0
        if world.estop_ok:
            word |= ESTOP_OK
        if world.door_closed:
            word |= DOOR_CLOSED
        if world.chain_closed:
            word |= CHAIN_CLOSED
        if world.reset_latched:
            word |= RESET_NEEDED
        if world.supply_relay_on:
            word |= SUPPLY_RELAY_ON
        _WORD.pack_into(self._outputs.data, 0, word)
        state = (PLC_ERROR if self.plc_error else 0) | (WATCHDOG if self.watchdog_tripped else 0)
        _WORD.pack_into(self._state.data, 0, state)

    def write_registers(self, unit: int, address: int, values: tuple[int, ...]) -> None:
        if address + len(values) > _N_INPUT_WORDS:
            raise ModbusError(ILLEGAL_ADDRESS)
        (before,) = _WORD.unpack_from(self._inputs.data, 0)
        for register, value in enumerate(values, address):
            _WORD.pack_into(self._inputs.data, 2 * register, value)
        (now,) = _WORD.unpack_from(self._inputs.data, 0)
        if now & DROP_SUPPLY:
            self.world.supply_relay_on = False
        elif now & RESET and not before & RESET:
            self.world.reset_safety()

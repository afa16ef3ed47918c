"""SMC HRS thermo chiller, Modbus RTU (docs/reference/device-protocols.md, section 4)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from hil_sim.devices.modbus import (
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    Block,
    ModbusError,
    ModbusRtu,
)

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

# 0000h to 000Fh
_REGISTERS = Struct(">hHHHHHHHHHHhHHHH")
_SET_TEMPERATURE = 0x000B
_RUN = 0x000C

RUNNING = 1 << 0
STOP_ALARM = 1 << 1
GO_ON_ALARM = 1 << 2
SERIAL_MODE = 1 << 5
READY = 1 << 9

PUMP_ABNORMAL = 1 << 6
PRESSURE_DROP = 1 << 8
FLOW_LOST = PUMP_ABNORMAL | PRESSURE_DROP
TANK_LOW = 1 << 0
_STOPPING = FLOW_LOST | TANK_LOW  # alarms that end operation; with others the chiller goes on

LEAST_PRESSURE_MPA = 0.10  # running below it is a lost flow: the HRS watches pressure
START_UP_US = 3_000_000  # the pump builds pressure; no judgement before
READY_WITHIN_K = 0.5
_RESISTIVITY = 10  # 1.0 MOhm cm


class ChillerSmc(ModbusRtu):
    """Temperature, pressure, run state and alarms; set temperature and run can be written.

    `world.chiller_alarm_bits` are alarms caused by faults, alarm 1 + alarm 2 << 16 +
    alarm 3 << 32. A lost flow is found by the chiller itself; it stops and stays stopped until
    it is told to stop and run again with the cause gone.
    """

    channel = "chiller"
    functions = frozenset((3, 6, 16))

    def __init__(self, sim: Scheduler, world: World) -> None:
        super().__init__(sim, world)
        self._block = Block(0x0000, 16)
        self.blocks = {1: (self._block,)}
        self._run_set = bool(world.chiller_running)
        self._started_us = sim.now_us
        self._own_alarms = 0

    def refresh(self, unit: int) -> None:
        world = self.world
        if (
            world.chiller_running
            and world.chiller_pressure_mpa < LEAST_PRESSURE_MPA
            and self.sim.now_us - self._started_us >= START_UP_US
        ):
            self._own_alarms = FLOW_LOST
        alarms = self._own_alarms | int(world.chiller_alarm_bits)
        stopping = alarms & _STOPPING
        if stopping:
            world.chiller_running = False
        status = SERIAL_MODE
        if world.chiller_running:
            status |= RUNNING
            if abs(world.coolant_deg_c - world.chiller_setpoint_deg_c) <= READY_WITHIN_K:
                status |= READY
        if stopping:
            status |= STOP_ALARM
        if alarms & ~_STOPPING:
            status |= GO_ON_ALARM
        _REGISTERS.pack_into(
            self._block.data,
            0,
            round(10.0 * world.coolant_deg_c),
            0,
            round(100.0 * world.chiller_pressure_mpa),
            _RESISTIVITY,
            status,
            alarms & 0xFFFF,
            alarms >> 16 & 0xFFFF,
            alarms >> 32 & 0xFFFF,
            0,
            0,
            0,
            round(10.0 * world.chiller_setpoint_deg_c),
            self._run_set,
            0,
            0,
            0,
        )

    def write_registers(self, unit: int, address: int, values: tuple[int, ...]) -> None:
        if address < _SET_TEMPERATURE or address + len(values) - 1 > _RUN:
            raise ModbusError(ILLEGAL_ADDRESS)
        pairs = list(enumerate(values, address))
        for register, value in pairs:
            least, most = (50, 400) if register == _SET_TEMPERATURE else (0, 1)
            if not least <= value <= most:
                raise ModbusError(ILLEGAL_VALUE)
        for register, value in pairs:
            if register == _SET_TEMPERATURE:
                self.world.chiller_setpoint_deg_c = value / 10.0
            else:
                self._set_run(bool(value))

    def _set_run(self, run: bool) -> None:
        world = self.world
        if run and not self._run_set:
            if not world.chiller_flow_fault:
                self._own_alarms = 0
            if not (self._own_alarms | int(world.chiller_alarm_bits)) & _STOPPING:
                world.chiller_running = True
                self._started_us = self.sim.now_us
        elif not run:
            world.chiller_running = False
        self._run_set = run

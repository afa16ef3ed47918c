"""S&A CWFL two-circuit chiller, Modbus RTU (docs/reference/device-protocols.md, section 12).

Nothing can be written: run and set temperature are the panel's.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from hil_sim.devices.modbus import Block, ModbusRtu

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

_SENSORS = Struct(">hhhhHHHHHH")  # 0100h to 0109h
_STATE = Struct(">HH")  # 0800h, 0801h
LOW_PUMP, COMPRESSOR, FAN, HIGH_PUMP, ALARM = 1 << 0, 1 << 1, 1 << 2, 1 << 7, 1 << 10
WATER_LEVEL = 1 << 0
ROOM_DEG_C, OPTICS_ABOVE_K, EXHAUST_DEG_C = 21.0, 5.0, 62.0
LEAST_FLOW_L_MIN = 1.0


class ChillerSanda(ModbusRtu):
    """Fault hook besides those of the wire: `water_low`."""

    channel = "chiller"
    functions = frozenset((3, 6))

    def __init__(self, sim: Scheduler, world: World) -> None:
        super().__init__(sim, world)
        self.water_low = False
        self._sensors = Block(0x0100, 10)
        self._state = Block(0x0800, 2)
        self.blocks = {1: (self._sensors, self._state)}

    def refresh(self, unit: int) -> None:
        world = self.world
        running = bool(world.chiller_running)
        flow = round(10.0 * world.chiller_flow_l_min)
        optics_deg_c = world.coolant_deg_c + OPTICS_ABOVE_K
        _SENSORS.pack_into(
            self._sensors.data,
            0,
            round(10.0 * ROOM_DEG_C),
            round(10.0 * world.coolant_deg_c),
            round(10.0 * optics_deg_c),
            round(10.0 * EXHAUST_DEG_C),
            flow,
            flow // 4,
            5,
            120,
            48,
            21,
        )
        relays = LOW_PUMP | HIGH_PUMP | COMPRESSOR | FAN if running else 0
        lost = running and world.chiller_flow_l_min < LEAST_FLOW_L_MIN
        if lost or self.water_low or world.chiller_alarm_bits:
            relays |= ALARM
        _STATE.pack_into(self._state.data, 0, relays, WATER_LEVEL if self.water_low else 0)

"""S&A (Teyu) CWFL two-circuit chiller, Modbus RTU 9600 8N1.

Source: S&A CWFL-3000/4000/6000 manual (registers 0100h to 0109h) and CWFL-8000 manual (0800h,
0801h); docs/reference/device-protocols.md section 12. Set temperature and run are the panel's:
the manuals' pages at hand give no register for them.
"""

import math

from firmware_bridge.errors import DeviceError
from firmware_bridge.modbus_device import ModbusDevice
from firmware_bridge.registers import Block, Reading
from firmware_bridge.roles import Chiller

LEAST_FLOW_L_MIN = 0.5  # less is a standing circuit; the chiller's own limit is higher
ALARM, WATER_LEVEL = 1 << 10, 1 << 16


class SandaCwfl(ModbusDevice, role=Chiller):
    """Low circuit: source; high circuit: optics. ``coolant_deg_c`` is the source's."""

    framing = "rtu"
    blocks = (Block(0x0100, 6), Block(0x0800, 2, after=0))

    room_deg_c = Reading(0x0100, "i16", scale=0.1, bounds=(-25.0, 100.0))
    coolant_deg_c = Reading(0x0101, "i16", scale=0.1, bounds=(-25.0, 100.0))
    optics_deg_c = Reading(0x0102, "i16", scale=0.1, bounds=(-25.0, 100.0))
    flow_l_min = Reading(0x0104, scale=0.1, bounds=(0.0, 200.0))
    running = Reading(0x0800, bit=0)
    relay_bits = Reading(0x0800)
    input_bits = Reading(0x0801)

    pressure_mpa = math.nan  # it has no such sensor
    setpoint_deg_c = math.nan  # until the cell has said what stands on the panel

    @property
    def alarm_bits(self) -> int:
        """Alarm relay (bit 10) and water level (bit 16)."""
        return self.relay_bits & ALARM | (self.input_bits << 16 & WATER_LEVEL)

    @property
    def flow_ok(self) -> bool:
        """The pump runs, water flows, no alarm."""
        return self.running and self.flow_l_min >= LEAST_FLOW_L_MIN and not self.alarm_bits

    async def set_setpoint(self, deg_c: float) -> None:
        """Keep what the panel must stand at; nothing is written."""
        self.setpoint_deg_c = deg_c

    async def set_run(self, run: bool) -> None:
        """The panel's: asked for the state it is in, else refused."""
        if run != self.running:
            raise DeviceError(f"{self.name}: pump {'on' if run else 'off'} is set on the panel")

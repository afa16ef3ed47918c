"""Calex PyroUSB infrared thermometer, Modbus RTU 9600 8N1, unit 1.

Source: Calex PyroUSB operator's guide, chapter Modbus over serial line (addresses 00h to 18h,
temperatures in 0.1 degC, status bits active high);
docs/reference/device-protocols.md section 14.
"""

import math

from firmware_bridge.device import KEEP
from firmware_bridge.modbus_device import ModbusDevice
from firmware_bridge.registers import Block, Reading, Setting
from firmware_bridge.roles import Pyrometer


class PyroUsb(ModbusDevice, role=Pyrometer):
    """One-colour thermometer: the filtered temperature, with its emissivity."""

    framing = "rtu"
    blocks = (Block(0x0012, 4, before=1, after=0), Block(0x0018, 1, after=0, every=50))

    filtered_deg_c = Reading(0x0012, "i16", scale=0.1, bounds=(-100.0, 3276.7))
    sensor_deg_c = Reading(0x0014, "i16", scale=0.1, bounds=(-100.0, 300.0))
    error = Reading(0x0015, bit=0)
    sensor_cold = Reading(0x0015, bit=1)
    sensor_hot = Reading(0x0015, bit=2)
    below = Reading(0x0015, bit=3)
    saturated = Reading(0x0015, bit=4)
    # 18h is not kept in non-volatile memory: it may be written often
    emissivity_pct = Setting(0x0018, scale=0.01, limits=(10.0, 100.0), safe=KEEP)

    @property
    def ok(self) -> bool:
        """It measures, be it that the target is below range."""
        return not (self.error or self.sensor_cold or self.sensor_hot or self.saturated)

    @property
    def temp_deg_c(self) -> float:
        """Filtered temperature; NaN below range, over range and while not measuring."""
        return self.filtered_deg_c if self.ok and not self.below else math.nan

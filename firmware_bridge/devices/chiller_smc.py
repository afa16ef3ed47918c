"""SMC HRS thermo chiller, Modbus RTU.

Source: SMC HRX-OM-M091, chapter 4 (register map, flags);
docs/reference/device-protocols.md section 4.
"""

from firmware_bridge.device import KEEP
from firmware_bridge.modbus_device import ModbusDevice
from firmware_bridge.registers import Block, Reading, Setting
from firmware_bridge.roles import Chiller


class SmcHrs(ModbusDevice, role=Chiller):
    """Coolant for the laser source. It must be set to degC and MPa, and to SERIAL mode."""

    framing = "rtu"
    blocks = (Block(0x0000, 13),)

    coolant_deg_c = Reading(0x0000, "i16", scale=0.1, bounds=(-20.0, 110.0))
    pressure_mpa = Reading(0x0002, scale=0.01, bounds=(0.0, 3.0))
    alarm1_bits = Reading(0x0005)
    alarm2_bits = Reading(0x0006)
    alarm3_bits = Reading(0x0007)
    setpoint_deg_c = Setting(0x000B, scale=0.1, limits=(5.0, 40.0), safe=KEEP)
    run = Setting(0x000C, limits=(0, 1), safe=1)  # coolant outlives the beam
    running = Reading(0x0004, bit=0)
    pressure_is_psi = Reading(0x0004, bit=4, must=False)
    temp_is_fahrenheit = Reading(0x0004, bit=10, must=False)

    @property
    def alarm_bits(self) -> int:
        """Alarm flags 1, 2, 3, sixteen bits each."""
        return self.alarm1_bits | self.alarm2_bits << 16 | self.alarm3_bits << 32

    @property
    def flow_ok(self) -> bool:
        """Running, and no alarm of tank level, pump or pressure drop (no flow register)."""
        return self.running and not self.alarm1_bits & 0x0141

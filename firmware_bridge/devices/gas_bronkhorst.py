"""Bronkhorst flow controllers for carrier and shield gas, Modbus RTU or TCP.

Source: Bronkhorst 9.17.035 (Modbus interface), section 4.4.6: PDU address = register - 1;
docs/reference/device-protocols.md section 13. Unit of fMeasure: as the device is set, L/min.
"""

from firmware_bridge.device import KEEP
from firmware_bridge.modbus_device import ModbusDevice
from firmware_bridge.registers import Block, Reading, Setting
from firmware_bridge.roles import GasFlow

CARRIER, SHIELD = 1, 2  # unit ids
FULL = 1.0 / 320.0  # measure and setpoint: 32000 is 100 %


def _floats(unit: int, address: int, every: int = 1) -> Block:
    return Block(address, 2, unit=unit, after=0, every=every)


def _share(unit: int) -> Block:
    return Block(0x0020, 1, unit=unit)  # spare word: the setpoint behind it


class Bronkhorst(ModbusDevice, role=GasFlow):
    """Two controllers on one line: unit 1 carrier, unit 2 shield. Values as floats."""

    blocks = (
        *(_share(CARRIER), _floats(CARRIER, 0xA100), _floats(CARRIER, 0xA118, every=10)),
        *(_share(SHIELD), _floats(SHIELD, 0xA100), _floats(SHIELD, 0xA118, every=10)),
    )
    carrier_l_min = Reading(0xA100, "f32", bounds=(-5.0, 250.0), unit=CARRIER)
    shield_l_min = Reading(0xA100, "f32", bounds=(-5.0, 250.0), unit=SHIELD)
    carrier_pct = Reading(0x0020, scale=FULL, bounds=(0.0, 205.0), unit=CARRIER)
    shield_pct = Reading(0x0020, scale=FULL, bounds=(0.0, 205.0), unit=SHIELD)
    carrier_set_l_min = Setting(0xA118, "f32", limits=(0.0, 200.0), safe=KEEP, unit=CARRIER)
    shield_set_l_min = Setting(0xA118, "f32", limits=(0.0, 200.0), safe=KEEP, unit=SHIELD)

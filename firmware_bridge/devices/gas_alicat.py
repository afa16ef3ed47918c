"""Alicat mass flow controllers for carrier and shield gas, Modbus TCP or RTU.

Source: Alicat DOC-MANUAL-MPL (Standard Devices), chapter Modbus RTU: register numbers there
count from 1, the addresses here from 0; docs/reference/device-protocols.md section 6.
"""

from firmware_bridge.device import KEEP
from firmware_bridge.modbus_device import ModbusDevice
from firmware_bridge.registers import Block, Reading, Setting
from firmware_bridge.roles import GasFlow

CARRIER, SHIELD = 1, 2  # unit ids
FLOW = (-1.0, 250.0)
# Shield gas stays on for the hot part; carrier gas clears the line and keeps the nozzle free.


def _set(unit: int) -> Setting:
    return Setting(0x03F1, "f32", limits=(0.0, 200.0), safe=KEEP, unit=unit)


def _block(unit: int, address: int, words: int, before: int, every: int = 1) -> Block:
    return Block(address, words, unit=unit, before=before, after=0, every=every)


class Alicat(ModbusDevice, role=GasFlow):
    """Two controllers on one line: unit 1 carrier, unit 2 shield."""

    blocks = (
        _block(CARRIER, 0x04B0, 10, 1),
        _block(SHIELD, 0x04B0, 10, 1),
        _block(CARRIER, 0x03F1, 2, 0, every=10),
        _block(SHIELD, 0x03F1, 2, 0, every=10),
    )
    carrier_l_min = Reading(0x04B8, "f32", bounds=FLOW, unit=CARRIER)
    shield_l_min = Reading(0x04B8, "f32", bounds=FLOW, unit=SHIELD)
    carrier_set_l_min = _set(CARRIER)
    shield_set_l_min = _set(SHIELD)
    carrier_overflow = Reading(0x04B1, bit=4, must=False, unit=CARRIER)
    shield_overflow = Reading(0x04B1, bit=4, must=False, unit=SHIELD)
    carrier_adc_error = Reading(0x04B1, bit=9, must=False, unit=CARRIER)
    shield_adc_error = Reading(0x04B1, bit=9, must=False, unit=SHIELD)
    carrier_aborted = Reading(0x04B1, bit=13, must=False, unit=CARRIER)
    shield_aborted = Reading(0x04B1, bit=13, must=False, unit=SHIELD)

"""Raycus: status words spelt out from the tables of its user guides."""

import pytest

from firmware_bridge.devices.laser_ipg import IpgLaser
from firmware_bridge.devices.laser_raycus import RaycusLaser
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

IDLE = r"""
> STA\r
< STA:2560\r
> ROP\r
< ROP:Off\r
> RCT\r
< RCT:25.6\r
"""  # 2560: bits 9 ready and 11 supply on; no blank after the colon, as the guide prints it


async def once(device, port):
    await device.poll()
    return device.reading


def read(status, output="Off", make=RaycusLaser):
    script = IDLE.replace("2560", str(status)).replace("Off", output)
    return talk(make, script, once, text=True)


def test_supply_on_is_bit_11_set():
    reading = read(2560)
    assert reading.ready
    assert reading.faults == ()
    assert reading.fault_bits == 0


def test_the_same_word_is_a_fault_on_an_ipg():
    assert read(2560, make=IpgLaser).faults == ("SUPPLY_OFF",)


def test_supply_off_is_bit_11_clear():
    reading = read(512)
    assert not reading.ready
    assert reading.faults == ("SUPPLY_OFF",)
    assert reading.fault_bits == 1 << 11


def test_emitting_under_external_control():
    reading = read(39444, "412.5")  # bits 2, 4, 9, 11, 12, 15
    assert (reading.enabled, reading.emission_on, reading.starting) == (True, True, False)
    assert (reading.external_control, reading.gate_mode) == (True, True)
    assert reading.power_measured_w == 412.5
    assert not reading.unexpected_emission


def test_the_guide_s_example_is_enabled_and_modulated():
    reading = read(4100)  # STA:4100 = 1004h in the guide
    assert (reading.enabled, reading.gate_mode) == (True, True)


def test_light_without_enable_is_unexpected():
    assert read(35328).unexpected_emission  # bits 9, 11, 15
    assert read(2560, "300").unexpected_emission


def test_pulse_mode_is_no_interlock_and_not_ready():
    reading = read(3584)  # bits 9, 10, 11
    assert reading.interlock_ok
    assert reading.faults == ("PULSE_MODE",)


def test_interlock_is_bit_30():
    reading = read(1073744384)
    assert not reading.interlock_ok
    assert not reading.ready


def test_command_err_is_told_in_the_maker_s_words():
    script = r"""
    > EEC\r
    < EEC\r
    > EMOD\r
    < Command Err!\r
    """
    with pytest.raises(DeviceError, match="EMOD got Command Err!"):
        talk(RaycusLaser, script, lambda d, p: d.emission_enable(), text=True)


def test_safe_is_emission_off():
    talk(RaycusLaser, "> EMOFF\\r\n< EMOFF\\r", lambda d, p: d.make_safe(), text=True)

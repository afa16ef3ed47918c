"""Calex PyroUSB: bytes typed after the address list of its operator's guide."""

import math

import pytest

from firmware_bridge.devices.pyrometer_calex import PyroUsb
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

GOOD = """
> 01 03 00 12 00 04 E4 0C
< 01 03 08 47 4D 47 50 01 36 00 00 63 8C       # 1825.3 filtered, 1825.6 unfiltered, head 31.0
"""
EMISSIVITY = """
> 01 03 00 18 00 01 04 0D
< 01 03 02 25 1C A3 1D                         # 0.9500
"""


async def once(device, port):
    await device.poll()
    return device.reading


def test_filtered_temperature_and_emissivity():
    async def body(device, port):
        await device.poll()
        assert device.emissivity_pct == 95.0
        return device.reading

    reading = talk(PyroUsb, GOOD + EMISSIVITY, body)
    assert (reading.temp_deg_c, reading.ok, reading.saturated) == (1825.3, True, False)


def test_second_round_begins_one_word_before_and_shows_over_range():
    script = (
        GOOD
        + EMISSIVITY
        + """
    > 01 03 00 11 00 05 D5 CC
    < 01 03 0A 47 50 47 4D 47 50 01 36 00 10 9C 2C
    """
    )

    async def body(device, port):
        await device.poll()
        await device.poll()
        return device.reading

    reading = talk(PyroUsb, script, body)
    assert reading.saturated
    assert not reading.ok
    assert math.isnan(reading.temp_deg_c)


def test_object_too_cold_is_below_range_and_measures():
    script = """
    > 01 03 00 12 00 04 E4 0C
    < 01 03 08 11 94 11 94 01 36 00 08 52 76
    """
    reading = talk(PyroUsb, script + EMISSIVITY, once)
    assert reading.ok
    assert math.isnan(reading.temp_deg_c)


def test_measurement_error_gives_no_number():
    script = """
    > 01 03 00 12 00 04 E4 0C
    < 01 03 08 47 4D 47 50 01 36 00 01 A2 4C
    """
    reading = talk(PyroUsb, script + EMISSIVITY, once)
    assert not reading.ok
    assert math.isnan(reading.temp_deg_c)


def test_emissivity_goes_to_the_register_that_may_be_written_often():
    script = """
    > 01 06 00 18 23 28 10 E3                  # 0.9000
    < 01 06 00 18 23 28 10 E3
    > 01 03 00 18 00 01 04 0D
    < 01 03 02 23 28 A1 6A
    """
    talk(PyroUsb, script, lambda d, p: d.put("emissivity_pct", 90.0))


def test_impossible_emissivity_never_reaches_the_wire():
    with pytest.raises(DeviceError, match="emissivity_pct 9 is outside 10 to 100"):
        talk(PyroUsb, "", lambda d, p: d.put("emissivity_pct", 9.0))

"""Ophir power meter: lines as its manual's examples have them."""

import asyncio
import math

import pytest

from firmware_bridge.devices.meter_ophir import OphirMeter
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

UNIT = r"""
> $SI\r\n
< * W\r\n
"""


async def once(device, port):
    await device.poll()
    return device.reading


def read(reply):
    return talk(OphirMeter, f"{UNIT}\n> $SP\\r\\n\n< {reply}\\r\\n", once, text=True)


def test_power_in_watts():
    reading = read("*1.300E-5")
    assert reading.power_w == 1.3e-5
    assert (reading.valid, reading.overrange) == (True, False)
    assert read("*4.125E2").power_w == 412.5


def test_over_range_is_no_number():
    reading = read("*OVER")
    assert math.isnan(reading.power_w)
    assert (reading.valid, reading.overrange) == (False, True)


@pytest.mark.parametrize("unit", ["* J", "* dBm"])
def test_another_unit_is_refused_at_connect(unit):
    with pytest.raises(DeviceError, match=r"the unit is .*, not W"):
        talk(OphirMeter, UNIT.replace("* W", unit), once, text=True)


@pytest.mark.parametrize("reply", ["?UC SP", "*1.3.0", "*", "1.3E2", "*9.9E9", "*nan", "*1E400"])
def test_anything_but_a_power_is_refused(reply):
    with pytest.raises(DeviceError, match=r"got|outside"):
        read(reply)


def test_line_feed_that_comes_by_itself_is_no_stray_byte():
    script = (
        UNIT
        + r"""
    > $SP\r\n
    <0.001 *1.300E-5\r
    <0.004 \n
    > $SP\r\n
    < *1.400E-5\r\n
    """
    )

    async def body(device, port):
        await device.poll()
        await asyncio.sleep(0.01)
        await device.poll()
        assert device.line.n_refused == 0
        return device.reading

    assert talk(OphirMeter, script, body, text=True).power_w == 1.4e-5


def test_after_silence_the_instrument_is_asked_who_it_is():
    script = (
        UNIT
        + r"""
    > $SP\r\n
    > $II\r\n
    < * VEGA 113217 VEGA\r\n
    > $SP\r\n
    < *1.300E-5\r\n
    """
    )

    async def body(device, port):
        with pytest.raises(DeviceError, match="no answer"):
            await device.poll()
        await device.poll()
        return device.reading

    assert talk(OphirMeter, script, body, text=True).power_w == 1.3e-5

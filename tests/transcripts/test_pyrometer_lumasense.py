"""LumaSense ISR 12-LO, UPP: lines after its manual, chapter Data format UPP."""

import asyncio
import math

import pytest

from firmware_bridge.devices.pyrometer_lumasense import LumaSenseUpp
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

RANGE = "> 00mb\\r\n< 025808FC\\r\n"
PROBE = "> 00ve\\r\n< 630126\\r\n"


def converse(script, body):
    return talk(LumaSenseUpp, RANGE + script, body, text=True)


async def once(device, port):
    await device.poll()
    return device.reading


def test_both_forms_give_the_ratio_temperature():
    async def body(device, port):
        await device.poll()
        assert device.reading.temp_deg_c == 1825.3
        await device.poll()
        assert device.reading.temp_deg_c == 1790.1
        await device.poll()
        return device.reading

    script = "> 00ms\\r\n< 18253\\r\n> 00ek\\r\n< 1650017901\\r\n> 00ms\\r\n< 17900\\r"
    reading = converse(script, body)
    assert reading.temp_deg_c == 1790.0
    assert reading.ok is True
    assert reading.saturated is False


@pytest.mark.parametrize(
    ("answer", "ok", "saturated"),
    [
        ("00000", True, False),
        ("05999", True, False),  # under the start of the range
        ("-0170", True, False),
        ("88880", False, True),
        ("77770", False, False),
        ("80000", False, False),
        ("75550", False, False),
        ("74440", False, False),
    ],
)
def test_codes_are_never_temperatures(answer, ok, saturated):
    reading = converse(f"> 00ms\\r\n< {answer}\\r", once)
    assert math.isnan(reading.temp_deg_c)
    assert reading.ok is ok
    assert reading.saturated is saturated


@pytest.mark.parametrize(("answer", "deg_c"), [("06000", 600.0), ("23000", 2300.0)])
def test_ends_of_the_range_are_temperatures(answer, deg_c):
    assert converse(f"> 00ms\\r\n< {answer}\\r", once).temp_deg_c == deg_c


def test_above_the_range_is_refused():
    with pytest.raises(DeviceError, match=r"temp_deg_c 2300\.1 is above 2300"):
        converse("> 00ms\\r\n< 23001\\r", once)


@pytest.mark.parametrize("answer", ["08FC0258", "02580258", "0258FFFF"])
def test_senseless_range_is_refused_at_connect(answer):
    with pytest.raises(DeviceError, match="makes no sense"):
        talk(LumaSenseUpp, f"> 00mb\\r\n< {answer}\\r", once, text=True)


@pytest.mark.parametrize(
    "answer",
    [
        "# nothing",
        r"< no\r",
        r"< ok\r",
        r"< 1825318253\r",  # the previous poll's, of the other form
        r"< 630126\r",  # the probe's
        r"< 1825\r",
        r"< 1825",
        r"< 18253\r18253\r",
        r"< 1-253\r",
        r"<  8253\r",
        "< \xb18253\\r",
    ],
)
def test_anything_but_the_reply_is_refused_and_recovered_from(answer):
    script = f"> 00ms\\r\n{answer}\n{PROBE}> 00ms\\r\n< 18253\\r"

    async def body(device, port):
        with pytest.raises(DeviceError):
            await device.poll()
        assert device.reading is None
        await device.poll()
        assert device.reading.temp_deg_c == 1825.3

    converse(script, body)


def test_device_that_lags_one_reply_behind_is_refused():
    async def body(device, port):
        await device.poll()
        with pytest.raises(DeviceError, match="not its reply"):
            await device.poll()

    converse("> 00ms\\r\n< 18253\\r\n> 00ek\\r\n< 18253\\r", body)


def test_late_reply_falls_into_the_silence():
    script = f"> 00ms\\r\n<0.35 20000\\r\n{PROBE}> 00ms\\r\n< 18253\\r"

    async def body(device, port):
        with pytest.raises(DeviceError, match="no answer to 00ms in 100 ms"):
            await device.poll()
        await device.poll()
        assert device.reading.temp_deg_c == 1825.3
        assert port.written[2][0] - port.written[1][0] >= 0.65 - 1e-6

    converse(script, body)


def test_make_safe_has_nothing_to_do():
    async def body(device, port):
        await device.make_safe()
        await asyncio.sleep(0.1)
        assert len(port.written) == 1

    converse("", body)

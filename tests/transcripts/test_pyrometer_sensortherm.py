"""Sensortherm Metis: lines after its manual, chapter 11 Interface Commands."""

import math

import pytest

from firmware_bridge.devices.pyrometer_sensortherm import SensorthermMetis
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

RANGE = "> 00mb\\r\n< 177059D8\\r\n"  # 600.0 to 2300.0 degC
PROBE = "> 00ve\\r\n< 380620\\r\n"


async def once(device, port):
    await device.poll()
    return device.reading


def test_both_forms_give_the_temperature():
    async def body(device, port):
        seen = []
        for _ in range(3):
            await device.poll()
            seen.append(device.reading.temp_deg_c)
        assert device.reading.ok is True
        return seen

    script = RANGE + "> 00mw0\\r\n< 474D\\r\n> 00ms\\r\n< 17901\\r\n> 00mw0\\r\n< 45ec\\r"
    assert talk(SensorthermMetis, script, body, text=True) == [1825.3, 1790.1, 1790.0]


@pytest.mark.parametrize(
    ("answer", "temp_deg_c", "ok", "saturated"),
    [
        ("1770", 600.0, True, False),
        ("176F", math.nan, True, False),
        ("0000", math.nan, True, False),
        ("59D8", 2300.0, True, False),
        ("F000", math.nan, False, True),
    ],
)
def test_range_and_overflow(answer, temp_deg_c, ok, saturated):
    reading = talk(SensorthermMetis, RANGE + f"> 00mw0\\r\n< {answer}\\r", once, text=True)
    assert reading.temp_deg_c == pytest.approx(temp_deg_c, nan_ok=True)
    assert (reading.ok, reading.saturated) == (ok, saturated)


def test_overflow_in_the_old_form():
    async def body(device, port):
        await device.poll()
        await device.poll()
        return device.reading

    script = RANGE + "> 00mw0\\r\n< F000\\r\n> 00ms\\r\n< 88880\\r"
    reading = talk(SensorthermMetis, script, body, text=True)
    assert (reading.ok, reading.saturated) == (False, True)


def test_above_the_range_is_refused():
    with pytest.raises(DeviceError, match=r"temp_deg_c 2300\.1 is above 2300"):
        talk(SensorthermMetis, RANGE + "> 00mw0\\r\n< 59D9\\r", once, text=True)


@pytest.mark.parametrize("answer", ["59D81770", "17701770", "1770FFFF"])
def test_senseless_range_is_refused_at_connect(answer):
    with pytest.raises(DeviceError, match="makes no sense"):
        talk(SensorthermMetis, f"> 00mb\\r\n< {answer}\\r", once, text=True)


@pytest.mark.parametrize(
    "answer",
    ["# nothing", r"< no\r", r"< ok\r", r"< 18253\r", r"< 380620\r", r"< 474\r", r"< 474G\r"],
)
def test_anything_but_the_reply_is_refused_and_recovered_from(answer):
    script = RANGE + f"> 00mw0\\r\n{answer}\n{PROBE}> 00mw0\\r\n< 474D\\r"

    async def body(device, port):
        with pytest.raises(DeviceError):
            await device.poll()
        assert device.reading is None
        await device.poll()
        assert device.reading.temp_deg_c == 1825.3

    talk(SensorthermMetis, script, body, text=True)

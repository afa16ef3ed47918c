"""E+H OXY5500, Modbus TCP: low word first as in BA02195C (20.56 is 7A E1 41 A4)."""

import asyncio

import pytest

from firmware_bridge.devices.oxygen_eh import Oxy5500
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

UNIT = """
> 00 01 00 00 00 06 01 03 08 29 00 02
< 00 01 00 00 00 07 01 03 04 00 20 00 00
"""
ASK_8 = "> 00 02 00 00 00 06 01 03 13 2D 00 08"
TAIL = "00 00 41 C0 50 00 44 7D"  # 24.0 degC, 1013.25 mbar
GOOD_8 = f"< 00 02 00 00 00 13 01 03 10 00 00 41 48 {TAIL} 00 00 00 00"


async def once(device, port):
    await device.poll()
    return device.reading


def test_connect_checks_the_unit_and_polls_alternate():
    script = f"""{UNIT}{ASK_8}
    {GOOD_8}
    > 00 03 00 00 00 06 01 03 13 2D 00 0A
    < 00 03 00 00 00 17 01 03 14 00 00 41 48 {TAIL} 00 00 00 00 00 00 00 00
    """

    async def twice(device, port):
        await device.poll()
        await device.poll()
        return device.reading

    reading = talk(Oxy5500, script, twice)
    assert reading.oxygen_ppm == 12.5
    assert reading.valid is True


def test_the_makers_own_example_value():
    script = f"{UNIT}{ASK_8}\n{GOOD_8.replace('00 00 41 48', '7A E1 41 A4')}"
    assert talk(Oxy5500, script, once).oxygen_ppm == pytest.approx(20.56, abs=1e-6)


def test_error_flags_make_it_invalid():
    script = f"{UNIT}{ASK_8}\n{GOOD_8[:-11]}00 02 00 00"
    reading = talk(Oxy5500, script, once)
    assert reading.valid is False
    assert reading.oxygen_ppm == 12.5


def test_another_oxygen_unit_is_refused_at_connect():
    with pytest.raises(DeviceError, match="oxygen unit is 16, not 32"):
        talk(Oxy5500, UNIT.replace("00 20 00 00", "00 10 00 00"), once)


def test_nan_is_refused():
    script = f"{UNIT}{ASK_8}\n{GOOD_8.replace('00 00 41 48', '00 00 7F C0')}"
    with pytest.raises(DeviceError, match="oxygen_ppm nan"):
        talk(Oxy5500, script, once)


@pytest.mark.parametrize(
    "answer",
    [
        "# nothing",
        GOOD_8.replace("< 00 02", "< 00 01"),
        GOOD_8.replace("13 01 03", "13 07 03"),
        GOOD_8.replace("13 01 03", "13 01 04"),
        "< 00 02 00 00 00 07 01 03 04 00 00 41 48",
        GOOD_8[:-6],
        "< 00 02 00 00 00 03 01 83 06",
        "< 00 02 00 00 00 03 01 84 02",  # a refusal of another function
    ],
)
def test_anything_but_the_reply_is_refused_and_recovered_from(answer):
    script = f"""{UNIT}{ASK_8}
    {answer}
    > 00 03 00 00 00 06 01 03 13 2D 00 01
    < 00 03 00 00 00 05 01 03 02 00 00
    > 00 04 00 00 00 06 01 03 13 2D 00 0A
    < 00 04 00 00 00 17 01 03 14 00 00 41 48 {TAIL} 00 00 00 00 00 00 00 00
    """

    async def body(device, port):
        with pytest.raises(DeviceError):
            await device.poll()
        assert device.reading is None
        await asyncio.sleep(0.1)
        await device.poll()
        assert device.reading.oxygen_ppm == 12.5

    talk(Oxy5500, script, body)


def test_make_safe_has_nothing_to_do():
    talk(Oxy5500, UNIT, lambda d, p: d.make_safe())

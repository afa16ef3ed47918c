"""Keyence LK-G: lines in the value formats of its manual, page 5-6."""

import math

import pytest

from firmware_bridge.devices.height_keyence import KeyenceLkG
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

PROBE = "> M2\\r\n< M2,XXXXXXXX\\r\n"


async def once(device, port):
    await device.poll()
    return device.reading


@pytest.mark.parametrize(
    ("answer", "height_mm"),
    [("+01.2345", 1.2345), ("-00.0120", -0.012), ("+1234.56", None), ("-00001.2", -1.2)],
)
def test_value_formats_of_the_manual(answer, height_mm):
    script = f"> M1\\r\n< M1,{answer}\\r\n"
    if height_mm is None:
        with pytest.raises(DeviceError, match=r"'\+1234\.56' is no value up to 500"):
            talk(KeyenceLkG, script, once, text=True)
        return
    reading = talk(KeyenceLkG, script, once, text=True)
    assert (reading.height_mm, reading.valid) == (height_mm, True)


@pytest.mark.parametrize("answer", ["+FFFFFFF", "-FFFFFFF", "XXXXXXXX"])
def test_codes_are_never_heights(answer):
    reading = talk(KeyenceLkG, f"> M1\\r\n< M1,{answer}\\r\n", once, text=True)
    assert math.isnan(reading.height_mm)
    assert reading.valid is False


def test_both_forms_in_turn_give_out1():
    async def body(device, port):
        seen = []
        for _ in range(3):
            await device.poll()
            seen.append(device.reading.height_mm)
        return seen

    script = (
        "> M1\\r\n< M1,+00.5000\\r\n> M0\\r\n< M0,+00.6000,XXXXXXXX\\r\n> M1\\r\n< M1,-00.7000\\r\n"
    )
    assert talk(KeyenceLkG, script, body, text=True) == [0.5, 0.6, -0.7]


@pytest.mark.parametrize(
    "answer",
    [
        "# nothing",
        r"< ER,M1,01\r",
        r"< M0,+00.5000,XXXXXXXX\r",  # the previous poll's, of the other form
        r"< M2,XXXXXXXX\r",  # the probe's
        r"< M1,+00.500\r",
        r"< M1,+0..5000\r",
        r"< M1,+00.50001\r",
        r"< M1,+00.5000\rM1,+00.5000\r",
        r"< M1,+0F.5000\r",
    ],
)
def test_anything_but_the_reply_is_refused_and_recovered_from(answer):
    script = f"> M1\\r\n{answer}\n{PROBE}> M1\\r\n< M1,+00.2500\\r"

    async def body(device, port):
        with pytest.raises(DeviceError):
            await device.poll()
        assert device.reading is None
        await device.poll()
        assert device.reading.height_mm == 0.25

    talk(KeyenceLkG, script, body, text=True)

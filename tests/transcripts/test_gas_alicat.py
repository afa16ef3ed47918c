"""Alicat carrier (unit 1) and shield (unit 2), Modbus TCP; floats after IEEE 754 by hand."""

import asyncio

import pytest

from firmware_bridge.devices.gas_alicat import Alicat
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

BODY_1 = "00 00 00 00 41 6B 33 33 41 B4 00 00 40 F3 33 33 40 F0 00 00"  # 7.5 L/min
BODY_2 = "00 00 01 00 41 6B 33 33 41 B4 00 00 41 A0 CC CD 41 A0 00 00"  # 20, loop in hold
FIRST = f"""
> 00 01 00 00 00 06 01 03 04 B0 00 0A
< 00 01 00 00 00 17 01 03 14 {BODY_1}
> 00 02 00 00 00 06 02 03 04 B0 00 0A
< 00 02 00 00 00 17 02 03 14 {BODY_2}
> 00 03 00 00 00 06 01 03 03 F1 00 02
< 00 03 00 00 00 07 01 03 04 40 F0 00 00
> 00 04 00 00 00 06 02 03 03 F1 00 02
< 00 04 00 00 00 07 02 03 04 41 A0 00 00
"""
SECOND = f"""
> 00 05 00 00 00 06 01 03 04 AF 00 0B
< 00 05 00 00 00 19 01 03 16 00 04 {BODY_1}
> 00 06 00 00 00 06 02 03 04 AF 00 0B
< 00 06 00 00 00 19 02 03 16 00 04 {BODY_2}
"""


def test_first_poll_reads_flows_and_set_points_second_the_flows():
    async def body(device, port):
        await device.poll()
        first = device.reading
        await device.poll()
        second = device.reading
        assert second.at_us > first.at_us
        for reading in (first, second):
            assert (reading.carrier_l_min, reading.shield_l_min) == (7.5, 20.0)
            assert (reading.carrier_set_l_min, reading.shield_set_l_min) == (7.5, 20.0)

    talk(Alicat, FIRST + SECOND, body)


def test_set_points_go_to_their_units_and_are_read_back():
    script = """
    > 00 01 00 00 00 0B 01 10 03 F1 00 02 04 40 F0 00 00
    < 00 01 00 00 00 06 01 10 03 F1 00 02
    > 00 02 00 00 00 06 01 03 03 F1 00 02
    < 00 02 00 00 00 07 01 03 04 40 F0 00 00
    > 00 03 00 00 00 0B 02 10 03 F1 00 02 04 41 A0 00 00
    < 00 03 00 00 00 06 02 10 03 F1 00 02
    > 00 04 00 00 00 06 02 03 03 F1 00 02
    < 00 04 00 00 00 07 02 03 04 41 A0 00 00
    """

    async def body(device, port):
        await device.set_carrier(7.5)
        await device.set_shield(20.0)

    talk(Alicat, script, body)


def test_make_safe_leaves_the_gas_on():
    async def body(device, port):
        await device.make_safe()
        assert port.written == []

    talk(Alicat, "", body)


def test_set_point_outside_limits_never_reaches_the_wire():
    with pytest.raises(DeviceError, match="shield_set_l_min 201 is outside 0 to 200"):
        talk(Alicat, "", lambda d, p: d.set_shield(201.0))


def test_write_acknowledged_for_other_registers_is_refused():
    script = """
    > 00 01 00 00 00 0B 01 10 03 F1 00 02 04 40 F0 00 00
    < 00 01 00 00 00 06 01 10 03 F2 00 02
    """
    with pytest.raises(DeviceError, match="not the reply"):
        talk(Alicat, script, lambda d, p: d.set_carrier(7.5))


@pytest.mark.parametrize(
    ("body_1", "says"),
    [
        (BODY_1.replace("00 00 00 00 41", "00 00 00 10 41"), "carrier_overflow"),
        (BODY_1.replace("00 00 00 00 41", "00 00 02 00 41"), "carrier_adc_error"),
        (BODY_1.replace("40 F0 00 00", "7F C0 00 00"), "carrier_l_min nan is outside"),
        (BODY_1.replace("40 F0 00 00", "7F 80 00 00"), "carrier_l_min inf is outside"),
        (BODY_1.replace("40 F0 00 00", "44 F0 00 00"), "carrier_l_min 1920 is outside"),
    ],
)
def test_doubtful_flow_is_refused_by_name(body_1, says):
    async def body(device, port):
        with pytest.raises(DeviceError, match=says):
            await device.poll()
        assert device.reading is None

    talk(Alicat, FIRST.replace(BODY_1, body_1), body)


@pytest.mark.parametrize(
    "answer",
    [
        "# nothing",
        f"< 00 01 00 00 00 17 02 03 14 {BODY_2}",  # the shield's
        f"< 00 00 00 00 00 17 01 03 14 {BODY_1}",  # an older transaction
        "< 00 01 00 00 00 07 01 03 04 40 F0 00 00",  # 2 of 10 registers
        f"< 00 01 00 00 00 17 01 04 14 {BODY_1}",
        f"< 00 01 00 00 00 17 01 03 14 {BODY_1[:-6]}",
        "< 00 01 00 00 00 03 01 83 02",
    ],
)
def test_one_bad_reply_drops_the_whole_round(answer):
    script = f"""
    > 00 01 00 00 00 06 01 03 04 B0 00 0A
    {answer}
    > 00 02 00 00 00 06 01 03 04 B0 00 01
    < 00 02 00 00 00 05 01 03 02 00 00
    > 00 03 00 00 00 06 01 03 04 AF 00 0B
    < 00 03 00 00 00 19 01 03 16 00 04 {BODY_1}
    > 00 04 00 00 00 06 02 03 04 B0 00 0A
    < 00 04 00 00 00 17 02 03 14 {BODY_2}
    > 00 05 00 00 00 06 01 03 03 F1 00 02
    < 00 05 00 00 00 07 01 03 04 40 F0 00 00
    > 00 06 00 00 00 06 02 03 03 F1 00 02
    < 00 06 00 00 00 07 02 03 04 41 A0 00 00
    """

    async def body(device, port):
        with pytest.raises(DeviceError):
            await device.poll()
        assert device.reading is None
        await asyncio.sleep(0.1)
        await device.poll()
        assert device.reading.carrier_l_min == 7.5

    talk(Alicat, script, body)

"""Pilz PNOZmulti, Modbus/TCP: virtual outputs are input registers (function 04)."""

import asyncio

import pytest

from firmware_bridge.devices.safety_pilz import PilzPnozMulti
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

FIRST = """
> 00 01 00 00 00 06 01 04 02 00 00 02
< 00 01 00 00 00 07 01 04 04 00 17 00 00
> 00 02 00 00 00 06 01 04 08 00 00 01
< 00 02 00 00 00 05 01 04 02 00 00
"""
SECOND = """
> 00 03 00 00 00 06 01 04 02 00 00 03
< 00 03 00 00 00 09 01 04 06 00 17 00 00 00 00
"""


async def once(device, port):
    await device.poll()
    return device.reading


def test_all_good():
    async def twice(device, port):
        await device.poll()
        await device.poll()
        return device.reading

    reading = talk(PilzPnozMulti, FIRST + SECOND, twice)
    assert reading.estop_ok is True
    assert reading.door_closed is True
    assert reading.interlock_ok is True
    assert reading.supply_relay_on is True
    assert reading.watchdog_ok is True
    assert reading.reset_needed is False


@pytest.mark.parametrize(
    ("word", "false_fields", "reset_needed"),
    [
        ("00 16", {"estop_ok"}, False),
        ("00 15", {"door_closed"}, False),
        ("00 13", {"interlock_ok"}, False),
        ("00 07", {"supply_relay_on"}, False),
        ("00 1F", set(), True),
    ],
)
def test_each_bit_is_its_own_field(word, false_fields, reset_needed):
    reading = talk(PilzPnozMulti, FIRST.replace("04 04 00 17", f"04 04 {word}"), once)
    fields = ("estop_ok", "door_closed", "interlock_ok", "supply_relay_on", "watchdog_ok")
    assert {f for f in fields if not getattr(reading, f)} == false_fields
    assert reading.reset_needed is reset_needed


@pytest.mark.parametrize("word", ["00 01", "00 20"])
def test_plc_error_or_watchdog_is_not_ok(word):
    script = FIRST.replace("05 01 04 02 00 00", f"05 01 04 02 {word}")
    assert talk(PilzPnozMulti, script, once).watchdog_ok is False


def test_state_of_the_plc_is_read_every_fifth_poll():
    script = FIRST
    for tid, (length, n, size, tail) in enumerate(
        [("09", "03", "06", " 00 00"), ("07", "02", "04", "")] * 2, start=3
    ):
        script += f"""
        > 00 {tid:02X} 00 00 00 06 01 04 02 00 00 {n}
        < 00 {tid:02X} 00 00 00 {length} 01 04 {size} 00 17 00 00{tail}
        """
    script += """
    > 00 07 00 00 00 06 01 04 02 00 00 03
    < 00 07 00 00 00 09 01 04 06 00 17 00 00 00 00
    > 00 08 00 00 00 06 01 04 08 00 00 02
    < 00 08 00 00 00 07 01 04 04 00 20 00 00
    """

    async def six(device, port):
        for _ in range(6):
            await device.poll()
        return device.reading

    assert talk(PilzPnozMulti, script, six).watchdog_ok is False


def test_drop_supply_is_written_and_read_back():
    script = """
    > 00 01 00 00 00 06 01 06 00 00 00 01
    < 00 01 00 00 00 06 01 06 00 00 00 01
    > 00 02 00 00 00 06 01 03 00 00 00 01
    < 00 02 00 00 00 05 01 03 02 00 01
    """
    talk(PilzPnozMulti, script, lambda d, p: d.drop_supply())


def test_drop_supply_goes_out_across_a_poll_that_waits():
    script = """
    > 00 01 00 00 00 06 01 04 02 00 00 02       # no answer to this one
    > 00 02 00 00 00 06 01 06 00 00 00 01       # at once
    <0.003 00 02 00 00 00 06 01 06 00 00 00 01
    > 00 03 00 00 00 06 01 04 02 00 00 01       # silence, probe
    < 00 03 00 00 00 05 01 04 02 00 17
    > 00 04 00 00 00 06 01 06 00 00 00 01       # and confirmed in good order
    < 00 04 00 00 00 06 01 06 00 00 00 01
    > 00 05 00 00 00 06 01 03 00 00 00 01
    < 00 05 00 00 00 05 01 03 02 00 01
    """

    async def body(device, port):
        poll = asyncio.ensure_future(device.poll())
        await asyncio.sleep(0.01)
        start = asyncio.get_running_loop().time()
        await device.drop_supply()
        assert port.written[1][0] == start
        with pytest.raises(DeviceError, match="interrupted"):
            await poll

    talk(PilzPnozMulti, script, body)


def test_reset_is_one_edge():
    script = ""
    for i, value in enumerate(("00", "02", "00")):
        script += f"""
        > 00 {2 * i + 1:02X} 00 00 00 06 01 06 00 00 00 {value}
        < 00 {2 * i + 1:02X} 00 00 00 06 01 06 00 00 00 {value}
        > 00 {2 * i + 2:02X} 00 00 00 06 01 03 00 00 00 01
        < 00 {2 * i + 2:02X} 00 00 00 05 01 03 02 00 {value}
        """
    talk(PilzPnozMulti, script, lambda d, p: d.request_reset())


def test_make_safe_asks_nothing_of_the_plc():
    talk(PilzPnozMulti, "", lambda d, p: d.make_safe())


@pytest.mark.parametrize(
    "answer",
    [
        "# nothing",
        "< 00 00 00 00 00 07 01 04 04 00 17 00 00",
        "< 00 01 00 00 00 07 02 04 04 00 17 00 00",
        "< 00 01 00 00 00 07 01 03 04 00 17 00 00",  # holding instead of input registers
        "< 00 01 00 00 00 05 01 04 02 00 17",  # one register of two
        "< 00 01 00 00 00 07 01 04 04 00 17",
        "< 00 01 00 00 00 03 01 84 01",
    ],
)
def test_anything_but_the_reply_is_refused_and_recovered_from(answer):
    script = f"""
    > 00 01 00 00 00 06 01 04 02 00 00 02
    {answer}
    > 00 02 00 00 00 06 01 04 02 00 00 01
    < 00 02 00 00 00 05 01 04 02 00 17
    > 00 03 00 00 00 06 01 04 02 00 00 03
    < 00 03 00 00 00 09 01 04 06 00 17 00 00 00 00
    > 00 04 00 00 00 06 01 04 08 00 00 01
    < 00 04 00 00 00 05 01 04 02 00 00
    """

    async def body(device, port):
        with pytest.raises(DeviceError):
            await device.poll()
        assert device.reading is None
        await device.poll()
        assert device.reading.interlock_ok

    talk(PilzPnozMulti, script, body)

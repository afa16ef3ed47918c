"""SMC HRS on the wire: bytes after HRX-OM-M091 and the Modbus serial line guide."""

import asyncio

import pytest

from firmware_bridge.devices.chiller_smc import SmcHrs
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

ASK_13 = "> 01 03 00 00 00 0D 84 0F"
GOOD_13 = (
    "< 01 03 1A 00 DC 00 00 00 22 00 0A 02 21 00 00 00 00 00 00 00 00 00 00 00 00 00 DC 00 01 F7 86"
)
ASK_14 = "> 01 03 00 00 00 0E C4 0E"
GOOD_14 = (
    "< 01 03 1C 00 DC 00 00 00 22 00 0A 02 21 00 00 00 00 00 00 00 00 00 00 00 00 00 DC 00 01"
    " 00 00 47 96"
)
PROBE_1 = "> 01 03 00 00 00 01 84 0A"
PROBE_GOOD = "< 01 03 02 00 DC B9 DD"


async def once(device, port):
    await device.poll()
    return device.reading


async def refused_then_good(device, port):
    """The first poll is refused; 0.1 s later, after silence and probe, the next is good."""
    with pytest.raises(DeviceError) as caught:
        await device.poll()
    assert device.reading is None
    await asyncio.sleep(0.1)
    await device.poll()
    assert device.reading.coolant_deg_c == 22.0
    return str(caught.value)


def test_poll_reads_temperature_pressure_and_flags():
    reading = talk(SmcHrs, f"{ASK_13}\n{GOOD_13}", once)
    assert (reading.coolant_deg_c, reading.pressure_mpa, reading.setpoint_deg_c) == (22.0, 0.34, 22)
    assert reading.running is True
    assert reading.flow_ok is True
    assert reading.alarm_bits == 0
    assert reading.at_us == 100_000_000


def test_length_alternates_from_poll_to_poll():
    async def thrice(device, port):
        for _ in range(3):
            await device.poll()

    talk(SmcHrs, "\n".join([ASK_13, GOOD_13, ASK_14, GOOD_14, ASK_13, GOOD_13]), thrice)


def test_lost_flow_shows_as_alarm_without_flow():
    script = f"""{ASK_13}
    < 01 03 1A 01 0B 00 00 00 03 00 0A 00 22 01 40 00 00 00 00 00 00 00 00 00 00 00 DC 00 01 EF E6
    """
    reading = talk(SmcHrs, script, once)
    assert reading.coolant_deg_c == 26.7
    assert reading.flow_ok is False
    assert reading.running is False
    assert reading.alarm_bits == 0x0140


def test_frost_reads_below_zero():
    script = f"""{ASK_13}
    < 01 03 1A FF F6 00 00 00 22 00 0A 02 21 00 00 00 00 00 00 00 00 00 00 00 00 00 DC 00 01 39 16
    """
    assert talk(SmcHrs, script, once).coolant_deg_c == -1.0


def test_set_point_is_written_and_read_back():
    script = """
    > 01 06 00 0B 00 E1 38 40
    < 01 06 00 0B 00 E1 38 40
    > 01 03 00 0B 00 01 F5 C8
    < 01 03 02 00 E1 78 0C
    """
    talk(SmcHrs, script, lambda d, p: d.set_setpoint(22.5))


def test_set_point_that_did_not_stick_is_an_error():
    script = """
    > 01 06 00 0B 00 E1 38 40
    < 01 06 00 0B 00 E1 38 40
    > 01 03 00 0B 00 01 F5 C8
    < 01 03 02 00 DC B9 DD
    """
    with pytest.raises(DeviceError, match="reads back"):
        talk(SmcHrs, script, lambda d, p: d.set_setpoint(22.5))


@pytest.mark.parametrize("deg_c", [4.9, 40.1, float("nan"), float("inf")])
def test_set_point_outside_limits_never_reaches_the_wire(deg_c):
    with pytest.raises(DeviceError, match="outside 5 to 40"):
        talk(SmcHrs, "", lambda d, p: d.set_setpoint(deg_c))


def test_make_safe_keeps_the_coolant_running():
    script = """
    > 01 06 00 0C 00 01 88 09
    < 01 06 00 0C 00 01 88 09
    > 01 03 00 0C 00 01 44 09
    < 01 03 02 00 01 79 84
    """
    talk(SmcHrs, script, lambda d, p: d.make_safe())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("# nothing", "no answer to the read of 13 registers at 0 in 150 ms"),
        ("< 01 83 02 C0 F1", "no such register"),
        ("< 01 83 06 C1 32", "busy"),
        (GOOD_13[:-6], "no answer"),  # truncated by the checksum
        (GOOD_13[:-2] + "87", "wrong checksum"),
        (GOOD_13.replace("02 21", "02 20"), "wrong checksum"),  # one bit flipped
        ("< 02" + GOOD_13[4:], "not the reply"),  # another device's
        ("< 01 04" + GOOD_13[7:], "not the reply"),
        (GOOD_14, "not the reply"),  # the previous poll's
        ("< 01 03 08 00 DC 00 00 00 22 00 0A A8 17", "not the reply"),  # 4 registers of 13
        (GOOD_13 + " 00", "1 bytes too many"),
        ("< 00 FF 55 AA", "not the reply"),
    ],
)
def test_anything_but_the_reply_is_refused_and_recovered_from(answer, says):
    script = f"{ASK_13}\n{answer}\n{PROBE_1}\n{PROBE_GOOD}\n{ASK_14}\n{GOOD_14}"
    assert says in talk(SmcHrs, script, refused_then_good)


def test_wrong_function_code_with_right_checksum_is_refused():
    # function 04 with its own valid CRC
    answer = (
        "< 01 04 1A 00 DC 00 00 00 22 00 0A 02 21 00 00 00 00 00 00 00 00 00 00 00 00 00 DC 00 01"
        " FB C6"
    )
    script = f"{ASK_13}\n{answer}\n{PROBE_1}\n{PROBE_GOOD}\n{ASK_14}\n{GOOD_14}"
    assert "not the reply" in talk(SmcHrs, script, refused_then_good)


def test_late_reply_falls_into_the_silence():
    script = f"{ASK_13}\n<0.30 {GOOD_13[2:]}\n{PROBE_1}\n{PROBE_GOOD}\n{ASK_14}\n{GOOD_14}"

    async def body(device, port):
        says = await refused_then_good(device, port)
        # the late bytes came at 0.30 s: nothing was sent before 0.60 s
        assert port.written[1][0] - port.written[0][0] >= 0.30 + 0.3 - 1e-6
        return says

    assert "no answer" in talk(SmcHrs, script, body)


def test_reply_later_than_the_silence_meets_the_probe_and_is_refused():
    script = f"""
    {ASK_13}
    <0.451 {GOOD_13[2:]}
    {PROBE_1}
    > 01 03 00 00 00 02 C4 0B
    < 01 03 04 00 DC 00 00 3B C9
    {ASK_14}
    {GOOD_14}
    """

    async def body(device, port):
        with pytest.raises(DeviceError, match="no answer"):
            await device.poll()
        with pytest.raises(DeviceError, match="not the reply"):
            await device.poll()  # silence, probe, and into it the late reply
        await device.poll()
        assert device.reading.coolant_deg_c == 22.0

    talk(SmcHrs, script, body)


def test_bytes_out_of_nowhere_are_an_error():
    script = f"{ASK_13}\n{GOOD_13}\n<0.05 FF FF\n{PROBE_1}\n{PROBE_GOOD}\n{ASK_14}\n{GOOD_14}"

    async def body(device, port):
        await device.poll()
        await asyncio.sleep(0.1)
        await device.poll()
        assert device.guard.n_refused == 1
        assert port.written[1][0] - port.written[0][0] >= 0.35 - 1e-6

    talk(SmcHrs, script, body)


def test_value_out_of_bounds_brings_silence_and_probe():
    answer = (  # -30.0 degC
        "< 01 03 1A FE D4 00 00 00 22 00 0A 02 21 00 00 00 00 00 00 00 00 00 00 00 00 00 DC 00 01"
        " C1 31"
    )
    script = f"{ASK_13}\n{answer}\n{PROBE_1}\n{PROBE_GOOD}\n{ASK_14}\n{GOOD_14}"
    says = talk(SmcHrs, script, refused_then_good)
    assert says == "chiller_smc: coolant_deg_c -30 is outside -20 to 110"


def test_fahrenheit_is_refused():
    answer = (
        "< 01 03 1A 00 DC 00 00 00 22 00 0A 06 21 00 00 00 00 00 00 00 00 00 00 00 00 00 DC 00 01"
        " B6 B7"
    )
    with pytest.raises(DeviceError, match="temp_is_fahrenheit"):
        talk(SmcHrs, f"{ASK_13}\n{answer}", once)

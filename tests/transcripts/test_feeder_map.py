"""Powder feeder by the fictitious map, Modbus TCP: bytes typed after the protocol page."""

import asyncio

import pytest

from firmware_bridge.devices.feeder_map import FeederMap
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import ScriptPort, run, talk

ZEROS = " 00 00" * 12
ASK_21 = "> 00 01 00 00 00 06 01 03 00 00 00 15"
GOOD_21 = (
    f"< 00 01 00 00 00 2D 01 03 2A 01 2C 00 00 00 01 00 01{ZEROS} 01 2B 00 00 00 04 13 7C 13 88"
)
ASK_22 = "> 00 02 00 00 00 06 01 03 00 00 00 16"
GOOD_22 = (
    f"< 00 02 00 00 00 2F 01 03 2C 01 2C 00 00 00 01 00 01{ZEROS} 01 2B 00 00 00 04 13 7C 13 88"
    " 00 00"
)


async def once(device, port):
    await device.poll()
    return device.reading


def test_poll_gives_flow_by_calibration():
    async def twice(device, port):
        await device.poll()
        first = device.reading
        await device.poll()
        assert device.reading.flow_measured_g_min == first.flow_measured_g_min
        return first

    reading = talk(FeederMap, "\n".join([ASK_21, GOOD_21, ASK_22, GOOD_22]), twice)
    assert reading.flow_measured_g_min == pytest.approx((5.98, 0.0))
    assert reading.speed_measured_rpm == (2.99, 0.0)
    assert reading.flow_set_g_min == (6.0, 0.0)
    assert reading.mass_left_g == (4988.0, 5000.0)
    assert reading.diverter_to_nozzle is True
    assert reading.ready is True
    assert reading.stalled is False


def test_stalled_hopper_is_named():
    answer = (
        f"< 00 01 00 00 00 2D 01 03 2A 01 2C 00 64 00 03 00 01{ZEROS} 01 2B 00 00 00 06 13 7C 13 88"
    )
    reading = talk(FeederMap, f"{ASK_21}\n{answer}", once)
    assert reading.stalled is True
    assert reading.stalled_hoppers == (False, True)
    assert reading.flow_set_g_min == pytest.approx((6.0, 1.8))


def test_flow_sets_speed_then_run_bit_and_reads_both_back():
    script = """
    > 00 01 00 00 00 06 01 06 00 00 01 2C       # 6 g/min at 2 g/min per rpm: 3.00 rpm
    < 00 01 00 00 00 06 01 06 00 00 01 2C
    > 00 02 00 00 00 06 01 03 00 00 00 01
    < 00 02 00 00 00 05 01 03 02 01 2C
    > 00 03 00 00 00 06 01 06 00 02 00 01
    < 00 03 00 00 00 06 01 06 00 02 00 01
    > 00 04 00 00 00 06 01 03 00 02 00 01
    < 00 04 00 00 00 05 01 03 02 00 01
    > 00 05 00 00 00 06 01 06 00 01 00 C8       # 3.6 g/min at 1.8: 2.00 rpm
    < 00 05 00 00 00 06 01 06 00 01 00 C8
    > 00 06 00 00 00 06 01 03 00 01 00 01
    < 00 06 00 00 00 05 01 03 02 00 C8
    > 00 07 00 00 00 06 01 06 00 02 00 03       # both hoppers run
    < 00 07 00 00 00 06 01 06 00 02 00 03
    > 00 08 00 00 00 06 01 03 00 02 00 01
    < 00 08 00 00 00 05 01 03 02 00 03
    """

    async def body(device, port):
        await device.set_flow(0, 6.0)
        await device.set_flow(1, 3.6)

    talk(FeederMap, script, body)


def test_diverter_writes_one_and_zero():
    script = """
    > 00 01 00 00 00 06 01 06 00 03 00 01
    < 00 01 00 00 00 06 01 06 00 03 00 01
    > 00 02 00 00 00 06 01 03 00 03 00 01
    < 00 02 00 00 00 05 01 03 02 00 01
    > 00 03 00 00 00 06 01 06 00 03 00 00
    < 00 03 00 00 00 06 01 06 00 03 00 00
    > 00 04 00 00 00 06 01 03 00 03 00 01
    < 00 04 00 00 00 05 01 03 02 00 00
    """

    async def body(device, port):
        await device.set_diverter(True)
        await device.set_diverter(False)

    talk(FeederMap, script, body)


def test_make_safe_diverts_first_and_a_refused_step_skips_none():
    script = """
    > 00 01 00 00 00 06 01 06 00 03 00 00       # powder to waste
    < 00 01 00 00 00 03 01 86 04                # the diverter is stuck
    > 00 02 00 00 00 06 01 06 00 02 00 00       # stop both hoppers, at once
    > 00 03 00 00 00 06 01 03 00 00 00 01       # then silence, probe, and in good order
    < 00 03 00 00 00 05 01 03 02 01 2C
    > 00 04 00 00 00 06 01 06 00 02 00 00
    < 00 04 00 00 00 06 01 06 00 02 00 00
    > 00 05 00 00 00 06 01 03 00 02 00 01
    < 00 05 00 00 00 05 01 03 02 00 00
    > 00 06 00 00 00 06 01 06 00 00 00 00
    < 00 06 00 00 00 06 01 06 00 00 00 00
    > 00 07 00 00 00 06 01 03 00 00 00 01
    < 00 07 00 00 00 05 01 03 02 00 00
    > 00 08 00 00 00 06 01 06 00 01 00 00
    < 00 08 00 00 00 06 01 06 00 01 00 00
    > 00 09 00 00 00 06 01 03 00 01 00 01
    < 00 09 00 00 00 05 01 03 02 00 00
    """

    async def body(device, port):
        start = asyncio.get_running_loop().time()
        with pytest.raises(DeviceError, match=r"not made safe: diverter_to_nozzle: .*device fail"):
            await device.make_safe()
        assert port.written[1][0] - start < 0.01  # the stop did not wait for the silence

    talk(FeederMap, script, body)


@pytest.mark.parametrize(
    ("hopper", "g_min"), [(0, 20.1), (1, 18.1), (0, -0.1), (2, 1.0), (-1, 1.0), (0, float("nan"))]
)
def test_flow_out_of_limits_never_reaches_the_wire(hopper, g_min):
    with pytest.raises(DeviceError, match=r"outside|is not 0 to 1"):
        talk(FeederMap, "", lambda d, p: d.set_flow(hopper, g_min))


@pytest.mark.parametrize(
    "answer",
    [
        "# nothing",
        GOOD_21.replace("< 00 01", "< 00 00"),  # a late reply carries an older transaction
        GOOD_21.replace("2D 01 03", "2D 02 03"),  # another unit
        GOOD_21.replace("2D 01 03", "2D 01 04"),  # another function
        GOOD_21.replace("00 00 00 2D", "00 01 00 2D"),  # another protocol
        "< 00 01 00 00 00 07 01 03 04 01 2C 00 00",  # 2 of 21 registers
        GOOD_21.replace("00 2D 01 03 2A", "00 2D 01 03 28"),  # says 20 registers
        GOOD_21[:-6],  # truncated
        GOOD_21 + " 00",
        "< 00 01 00 00 00 03 01 83 04",
        f"{GOOD_21}\n{GOOD_21}",  # twice
    ],
)
def test_anything_but_the_reply_is_refused_and_recovered_from(answer):
    good = GOOD_22.replace("< 00 02", "< 00 03")
    script = f"""{ASK_21}
    {answer}
    > 00 02 00 00 00 06 01 03 00 00 00 01
    < 00 02 00 00 00 05 01 03 02 01 2C
    {ASK_22.replace("> 00 02", "> 00 03")}
    {good}
    """

    async def body(device, port):
        if "\n" not in answer:
            with pytest.raises(DeviceError):
                await device.poll()
            assert device.reading is None
        else:  # the reply itself is good; what follows it is not
            await device.poll()
        await asyncio.sleep(0.1)
        await device.poll()
        assert device.reading.mass_left_g == (4988.0, 5000.0)

    talk(FeederMap, script, body)


def test_value_out_of_bounds_is_refused_by_name():
    answer = GOOD_21.replace("01 2B", "30 39")  # 123.45 rpm
    with pytest.raises(DeviceError, match=r"hopper1_speed_rpm 123\.45 is outside 0 to 12"):
        talk(FeederMap, f"{ASK_21}\n{answer}", once)


def test_lost_connection_is_reopened_with_back_off():
    async def body():
        # transactions count anew on the new connection; the length goes on alternating
        again = f"{ASK_22}\n{GOOD_22}".replace(" 00 02 00 00 00", " 00 01 00 00 00")
        port = ScriptPort(f"{ASK_21}\n!0.001\n{again}")
        device = FeederMap(port)
        await device.connect()
        with pytest.raises(DeviceError, match="connection lost"):
            await device.poll()
        port.refuse = 1
        with pytest.raises(DeviceError, match=r"not connected, next try in 0\.25 s"):
            await device.poll()
        await asyncio.sleep(0.26)
        with pytest.raises(DeviceError, match="no answer"):
            await device.poll()
        await asyncio.sleep(0.2)
        with pytest.raises(DeviceError, match="next try"):
            await device.poll()
        await asyncio.sleep(0.06)
        await device.poll()
        assert device.reading.ready
        assert port.n_opened == 2
        device.close()
        port.finish()

    run(body())


def test_make_safe_withdraws_the_rest_of_a_flow_command():
    """Speed is set, make_safe comes between: the run bit must never be written."""
    script = """
    > 00 01 00 00 00 06 01 06 00 00 01 2C
    > 00 02 00 00 00 06 01 06 00 03 00 00       # across it: powder to waste
    > 00 03 00 00 00 06 01 03 00 00 00 01
    < 00 03 00 00 00 05 01 03 02 01 2C
    """
    steps = [(3, 0), (2, 0), (0, 0), (1, 0)]  # register, value: diverter, run, speeds
    for i, (register, value) in enumerate(steps):
        script += f"""
        > 00 {2 * i + 4:02X} 00 00 00 06 01 06 00 {register:02X} 00 {value:02X}
        < 00 {2 * i + 4:02X} 00 00 00 06 01 06 00 {register:02X} 00 {value:02X}
        > 00 {2 * i + 5:02X} 00 00 00 06 01 03 00 {register:02X} 00 01
        < 00 {2 * i + 5:02X} 00 00 00 05 01 03 02 00 {value:02X}
        """

    async def body(device, port):
        flow = asyncio.ensure_future(device.set_flow(0, 6.0))
        other = asyncio.ensure_future(device.set_flow(1, 3.6))
        await asyncio.sleep(0.01)
        await device.make_safe()
        with pytest.raises(DeviceError, match="interrupted by an urgent write at 3"):
            await flow
        with pytest.raises(DeviceError, match="withdrawn"):
            await other

    talk(FeederMap, script, body)


def test_both_hoppers_at_once_keep_both_run_bits():
    script = ""
    tid = 0
    for register, value in ((0, "01 2C"), (2, "00 01"), (1, "00 C8"), (2, "00 03")):
        tid += 2
        script += f"""
        > 00 {tid - 1:02X} 00 00 00 06 01 06 00 {register:02X} {value}
        < 00 {tid - 1:02X} 00 00 00 06 01 06 00 {register:02X} {value}
        > 00 {tid:02X} 00 00 00 06 01 03 00 {register:02X} 00 01
        < 00 {tid:02X} 00 00 00 05 01 03 02 {value}
        """

    async def body(device, port):
        await asyncio.gather(device.set_flow(0, 6.0), device.set_flow(1, 3.6))

    talk(FeederMap, script, body)

"""IPG YLR/YLS, ASCII: lines after the YLR-200-SM-CS manual as other public code quotes them."""

import asyncio

import pytest

from firmware_bridge.devices.laser_ipg import IpgLaser
from firmware_bridge.errors import DeviceError
from tests.transcripts.wire_script import talk

IDLE = r"""
> STA\r
< STA: 2097152\r
> ROP\r
< ROP: Off\r
> RCT\r
< RCT: 25.6\r
"""
PROBE = r"""
> RFV\r
< RFV: 1.0.0\r
"""


def converse(script, body):
    return talk(IpgLaser, script, body, text=True)


async def once(device, port):
    await device.poll()
    return device.reading


def test_idle_and_healthy():
    reading = converse(IDLE, once)
    assert reading.ready is True
    assert reading.enabled is False
    assert reading.emission_on is False
    assert reading.interlock_ok is True
    assert reading.faults == ()
    assert (reading.power_measured_w, reading.temp_deg_c) == (0.0, 25.6)


def test_emitting():
    reading = converse(IDLE.replace("2097152", "2117652").replace("Off", "412.5"), once)
    assert reading.enabled is True
    assert reading.emission_on is True
    assert reading.external_control is True
    assert reading.gate_mode is True
    assert reading.power_measured_w == 412.5


def test_low_power_is_emission_without_a_figure():
    reading = converse(IDLE.replace("Off", "Low"), once)
    assert reading.emission_on is True
    assert reading.power_measured_w == 0.0


def test_start_up_is_not_yet_enabled():
    reading = converse(IDLE.replace("2097152", "2150416"), once)
    assert reading.starting is True
    assert reading.enabled is False


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        (1, "OVERTEMPERATURE"),
        (3, "BACK_REFLECTION"),
        (6, "MODULE_DISCONNECTED"),
        (7, "MODULE_FAILED"),
        (10, "INTERLOCK"),
        (11, "SUPPLY_OFF"),
        (17, "UNEXPECTED_EMISSION"),
        (29, "MODULE_DISABLED"),
        (30, "COLLIMATOR_DISCONNECTED"),
    ],
)
def test_each_fault_has_its_name_and_ends_ready(bit, name):
    reading = converse(IDLE.replace("2097152", str(2097152 + 2**bit)), once)
    assert reading.faults == (name,)
    assert reading.fault_bits == 2**bit
    assert reading.ready is False
    assert reading.interlock_ok is (bit != 10)
    assert reading.back_reflection is (bit == 3)
    assert reading.unexpected_emission is (bit == 17)


def test_key_switch_not_in_remote_is_not_ready():
    assert converse(IDLE.replace("2097152", "0"), once).ready is False


def test_temperature_is_asked_each_twentieth_poll():
    pair = "\n".join(IDLE.splitlines()[:5])

    async def body(device, port):
        for _ in range(21):
            await device.poll()

    converse(IDLE + (pair + "\n") * 19 + IDLE, body)


def test_enable_takes_external_power_and_gate_then_emission():
    script = r"""
    > EEC\r
    < EEC\r
    > EMOD\r
    < EMOD\r
    > EMON\r
    < EMON\r
    """
    converse(script, lambda d, p: d.emission_enable())


def test_refusal_carries_the_sources_words():
    script = r"""
    > EEC\r
    < EEC\r
    > EMOD\r
    < EMOD\r
    > EMON\r
    < ERR: Interlock open\r
    """
    with pytest.raises(DeviceError, match="EMON got ERR: Interlock open"):
        converse(script, lambda d, p: d.emission_enable())


def test_reset_never_enables():
    converse("> RERR\\r\n< RERR\\r", lambda d, p: d.reset_errors())


@pytest.mark.parametrize("how", ["emission_disable", "make_safe"])
def test_emission_ends_at_once(how):
    converse("> EMOFF\\r\n< EMOFF\\r", lambda d, p: getattr(d, how)())


def test_emission_off_goes_out_across_a_poll_that_waits():
    script = rf"""
    > STA\r
    > EMOFF\r
    <0.001 EMOFF\r
    {PROBE}
    > EMOFF\r
    < EMOFF\r
    """

    async def body(device, port):
        poll = asyncio.ensure_future(device.poll())
        await asyncio.sleep(0.02)
        start = asyncio.get_running_loop().time()
        await device.make_safe()
        assert port.written[1] == (start, b"EMOFF\r")
        with pytest.raises(DeviceError, match="interrupted by EMOFF"):
            await poll

    converse(script, body)


def test_emission_off_does_not_wait_for_the_silence_after_an_error():
    script = rf"""
    > STA\r
    > EMOFF\r
    < EMOFF\r
    {PROBE}
    > EMOFF\r
    < EMOFF\r
    """

    async def body(device, port):
        with pytest.raises(DeviceError, match="no answer to STA in 100 ms"):
            await device.poll()
        start = asyncio.get_running_loop().time()
        await device.emission_disable()
        assert port.written[1][0] == start

    converse(script, body)


@pytest.mark.parametrize(
    "answer",
    [
        "# nothing",
        r"< ERR: Command not recognized\r",
        r"< ROP: 412.5\r",  # the previous command's
        r"< STA:\r",
        r"< STA: 12a4\r",
        r"< STA: -1\r",
        r"< STA: 4294967296\r",  # 33 bits
        r"< STA: 99999999999\r",
        r"< XSTA: 1\r",
        r"< STA: 2097152\rSTA: 2097152\r",
        r"< STA: 209715",  # truncated
        "< STA: \xb2097152\\r",  # a flipped high bit
        "< " + "A" * 200,  # no end
    ],
)
def test_anything_but_the_reply_is_refused_and_recovered_from(answer):
    script = f"> STA\\r\n{answer}\n{PROBE}\n{IDLE}"

    async def body(device, port):
        with pytest.raises(DeviceError):
            await device.poll()
        assert device.reading is None
        await asyncio.sleep(0.05)
        await device.poll()
        assert device.reading.ready
        quiet = next(t for t, data in port.written if data == b"RFV\r") - port.written[0][0]
        assert quiet >= (0.4 if answer.startswith("#") else 0.3) - 1e-6

    converse(script, body)


def test_impossible_power_is_refused():
    with pytest.raises(DeviceError, match="not its reply"):
        converse("> STA\\r\n< STA: 2097152\\r\n> ROP\\r\n< ROP: 1e9\\r", once)


def test_late_reply_meets_the_probe_and_is_refused():
    script = r"""
    > STA\r
    <0.401 STA: 2117652\r
    > RFV\r
    > RFV\r
    < RFV: 1.0.0\r
    """

    async def body(device, port):
        with pytest.raises(DeviceError, match="no answer"):
            await device.poll()
        with pytest.raises(DeviceError, match="RFV got not its reply: 'STA: 2117652'"):
            await device.poll()
        await device.poll()
        assert device.reading.enabled is False  # the late word was never taken

    converse(script + IDLE, body)


def test_unasked_line_is_an_error():
    script = IDLE + "<0.1 STA: 2117652\\r\n" + PROBE + "\n".join(IDLE.splitlines()[:5])

    async def body(device, port):
        await device.poll()
        await asyncio.sleep(0.2)
        await device.poll()
        assert device.line.n_refused == 1
        assert device.reading.enabled is False

    converse(script, body)


def test_reply_in_pieces_is_one_reply():
    script = IDLE.replace("< STA: 2097152\\r", "<0.001 STA: 20\n<0.002 97152\n<0.003 \\r")
    assert converse(script, once).ready is True


def test_four_silent_polls_give_the_wire_up():
    async def body(device, port):
        for _ in range(4):
            with pytest.raises(DeviceError, match="no answer"):
                await device.poll()
        assert not device.connected
        with pytest.raises(DeviceError, match="not connected, next try"):
            await device.poll()

    converse("> STA\\r\n> RFV\\r\n> RFV\\r\n> RFV\\r", body)


def test_emission_off_withdraws_the_rest_of_enabling():
    script = rf"""
    > EEC\r
    < EEC\r
    > EMOD\r
    > EMOFF\r
    <0.001 EMOFF\r
    {PROBE}
    > EMOFF\r
    < EMOFF\r
    """

    async def body(device, port):
        enable = asyncio.ensure_future(device.emission_enable())
        await asyncio.sleep(0.01)
        await device.make_safe()
        with pytest.raises(DeviceError, match="interrupted by EMOFF"):
            await enable

    converse(script, body)


def test_emission_on_that_waits_for_the_silence_is_withdrawn_by_emission_off():
    script = rf"""
    > STA\r
    > EMOFF\r
    < EMOFF\r
    {PROBE}
    > EMOFF\r
    < EMOFF\r
    """

    async def body(device, port):
        with pytest.raises(DeviceError, match="no answer"):
            await device.poll()
        enable = asyncio.ensure_future(device.emission_enable())
        await asyncio.sleep(0.1)
        await device.make_safe()
        with pytest.raises(DeviceError, match="EEC withdrawn: overtaken"):
            await enable

    converse(script, body)

"""Laserline behind a gateway: bytes typed after section 10 of the protocol page."""

import asyncio
from importlib import resources

import pytest

from firmware_bridge import registry
from firmware_bridge.devices.laser_laserline import LaserlineLdf
from firmware_bridge.errors import DeviceError, MapError
from firmware_bridge.transport import TcpPort
from tests.transcripts.wire_script import talk

ASK = ("00 06 01 03 00 00 00 07", "00 06 01 03 00 00 00 08")
# state, faults, W, 0.1 degC, coolant 0.1 degC, request, light
READY = "00 31 00 00 00 00 00 FA 00 DC 00 03 00 00"
OPEN = "00 21 00 00 00 00 00 FA 00 DC 00 03 00 00"
LIT = "00 7F 00 00 01 9C 00 FA 00 DC 00 03 00 01"
COLD = "00 31 00 00 00 00 00 FA 00 BD 00 03 00 00"


def poll(tid, words):
    """The exchange of one poll; odd and even ones differ by the spare word."""
    spare = tid % 2 == 0
    head, tail = ("00 13 01 03 10", "00 00") if spare else ("00 11 01 03 0E", "")
    return f"""
    > 00 {tid:02X} 00 00 {ASK[spare]}
    < 00 {tid:02X} 00 00 {head} {words} {tail}
    """


def write(tid, register, value):
    return f"""
    > 00 {tid:02X} 00 00 00 06 01 06 00 {register:02X} 00 {value:02X}
    < 00 {tid:02X} 00 00 00 06 01 06 00 {register:02X} 00 {value:02X}
    > 00 {tid + 1:02X} 00 00 00 06 01 03 00 {register:02X} 00 01
    < 00 {tid + 1:02X} 00 00 00 05 01 03 02 00 {value:02X}
    """


async def once(device, port):
    await device.poll()
    return device.reading


def test_ready_source():
    reading = talk(LaserlineLdf, poll(1, READY), once)
    assert (reading.ready, reading.enabled, reading.emission_on) == (True, False, False)
    assert reading.external_control
    assert (reading.temp_deg_c, reading.faults) == (25.0, ())


def test_light_with_its_threshold():
    async def body(device, port):
        await device.poll()
        assert device.threshold_reached is True
        return device.reading

    reading = talk(LaserlineLdf, poll(1, LIT), body)
    assert (reading.enabled, reading.emission_on, reading.gate_mode) == (True, True, True)
    assert reading.power_measured_w == 412.0


def test_faults_have_names():
    words = READY.replace("00 31 00 00", "00 30 00 12")
    reading = talk(LaserlineLdf, poll(1, words), once)
    assert reading.faults == ("COOLANT", "BEAM_TIMEOUT")
    assert not reading.ready


def test_enabling_asks_ready_and_control_then_light():
    async def body(device, port):
        await device.poll()
        await device.emission_enable()

    talk(LaserlineLdf, poll(1, READY) + write(2, 5, 3) + write(4, 6, 1), body)


def test_ending_light_leaves_ready_as_it_is():
    """Leaving 'ready' shortens the life of the diodes: only the light register is written."""
    talk(LaserlineLdf, write(1, 6, 0), lambda d, p: d.make_safe())
    talk(LaserlineLdf, write(1, 6, 0), lambda d, p: d.emission_disable())


def test_after_an_e_stop_thirty_seconds_pass_before_light():
    async def body(device, port):
        await device.poll()
        assert not device.reading.interlock_ok
        with pytest.raises(DeviceError, match="interlock open"):
            await device.emission_enable()
        await asyncio.sleep(10.0)
        await device.poll()
        assert not device.reading.ready  # the source says so already
        with pytest.raises(DeviceError, match=r"20\.0 s of 30 s left after the e-stop"):
            await device.emission_enable()
        await asyncio.sleep(20.1)
        await device.poll()
        assert device.reading.ready
        await device.emission_enable()

    script = poll(1, OPEN) + poll(2, READY) + poll(3, READY) + write(4, 5, 3) + write(6, 6, 1)
    talk(LaserlineLdf, script, body)


def test_cold_coolant_asks_for_no_light():
    async def body(device, port):
        await device.poll()
        assert not device.reading.ready
        with pytest.raises(DeviceError, match=r"coolant 18\.9 degC below 19 degC"):
            await device.emission_enable()

    talk(LaserlineLdf, poll(1, COLD), body)


def test_reset_is_an_edge_that_keeps_ready():
    script = write(1, 5, 3) + write(3, 5, 7) + write(5, 5, 3)
    talk(LaserlineLdf, script, lambda d, p: d.reset_errors())


def test_a_map_without_the_wait_is_refused(tmp_path):
    text = (resources.files("configs") / "maps/laser_ldf_fictitious.toml").read_text("utf-8")
    path = tmp_path / "m.toml"
    path.write_text(text.replace("estop_wait_s", "estop_wait"), encoding="utf-8")
    with pytest.raises(MapError, match=r"calibration\.estop_wait_s must be one number"):
        registry.make("laser_laserline", TcpPort("x", "127.0.0.1", 1), map=path)

"""A camera on the line and ring of docs/reference/frame-ring.md; the ring's bytes are typed in."""

import asyncio
import struct
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.devices.camera_ring import RingCamera
from firmware_bridge.errors import BridgeError, DeviceError
from tests.transcripts.wire_script import talk

NAME = "lmd-ring-transcript"
STOP = "> do AcquisitionStop\\r\n< AcquisitionStop\\r\n"
FEATURES = (
    STOP + "> set PixelFormat=Mono16\\r\n< PixelFormat=Mono16\\r\n"
    "> set Width=128\\r\n< Width=128\\r\n"
    "> set Height=128\\r\n< Height=128\\r\n"
    "> set ExposureTime=100.0\\r\n< ExposureTime=100\\r\n"
    "> set Gain=0.0\\r\n< Gain=0\\r\n"
    "> set AcquisitionFrameRate=100.0\\r\n< AcquisitionFrameRate=100\\r\n"
)
START = (
    FEATURES + f"> do AcquisitionStart\\r\n< AcquisitionStart={NAME}\\r\n"
    "> do RingTaken\\r\n< RingTaken\\r\n"
    "> do TimestampLatch\\r\n< TimestampLatch=5000000000\\r\n"
)
STRIDE = 64 + 128 * 128 * 2


@pytest.fixture
def ring():
    """Four slots; frame 2 is the newest: light falls by e a px, to the edge's level at 20 px."""
    y, x = np.mgrid[0:128, 0:128]
    edge = 2.81e5 * 100.0 * np.exp(-14387.77 / 0.85 / 1684.0)  # of the camera file, 1410.85 degC
    light = edge * np.exp(20.0 - np.hypot(x - 63.5, y - 63.5))
    pixels = (1_000.5 + np.minimum(light, 40_000.0)).astype("<u2")
    data = bytearray(256 + 4 * STRIDE)
    data[0:8] = b"LMDRING1"
    data[8:32] = struct.pack("<IIIIII", 256, 4, STRIDE, 128, 128, 0x01100007)
    data[32:40] = (2).to_bytes(8, "little")
    at = 256 + 2 * STRIDE
    data[at : at + 16] = bytes.fromhex("0200000000000000 0200000000000000")
    data[at + 16 : at + 24] = (4_999_000_000).to_bytes(8, "little")
    data[at + 24 : at + 40] = struct.pack("<dd", 100.0, 0.0)
    data[at + 64 : at + STRIDE] = pixels.tobytes()
    path = Path("/dev/shm") / NAME
    path.write_bytes(data)
    yield path
    path.unlink()


def test_features_are_set_in_order_and_the_newest_frame_is_measured(ring):
    async def body(device, port):
        await device.poll()
        return device.reading, device.clock

    reading, clock = talk(RingCamera, START, body, text=True)
    assert reading.frame == 2
    assert reading.ok
    # a blur of 0.8 px has moved an edge of this slope outwards by 0.8**2 / 2 px
    assert reading.width_mm == pytest.approx((40 - 0.64) * 0.05, rel=0.005)
    assert reading.area_mm2 == pytest.approx(0.25 * np.pi * 1.968**2, rel=0.01)
    # 1 ms before the latch, which was asked for not later than 2 ms before its answer came
    assert reading.at_us == pytest.approx(100e6 + 10 * 2_000 - 2_000 - 1_000, abs=2_100)
    assert clock.bound_us == pytest.approx(2_000, abs=1)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (STOP + "> set PixelFormat=Mono16\\r\n< PixelFormat=Mono8\\r\n", "PixelFormat is Mono8"),
        (STOP + "> set PixelFormat=Mono16\\r\n< ERR: set PixelFormat=Mono16\\r\n", "got ERR: set"),
        (STOP + "> set PixelFormat=Mono16\\r\n< Width=128\\r\n", "not its reply"),
        (
            FEATURES.replace("< Gain=0", "< Gain=12"),
            r"Gain is 12\.0, .* wants 0\.0",
        ),
        (
            FEATURES + "> do AcquisitionStart\\r\n< AcquisitionStart=lmd-ring-not-there\\r\n",
            "lmd-ring-not-there cannot be opened",
        ),
        (
            FEATURES + "> do AcquisitionStart\\r\n< AcquisitionStart=other\\r\n",
            "'other' is no name of a frame ring",
        ),
    ],
)
def test_what_is_not_as_asked_for_is_refused_at_connect(script, words):
    lines = script.split("< Gain=12\\r\n")
    script = lines[0] + "< Gain=12\\r\n" if len(lines) > 1 else script

    async def body(device, port):
        raise AssertionError("connected")

    with pytest.raises(BridgeError, match=words):
        talk(RingCamera, script, body, text=True)


def test_camera_that_went_silent_is_told(ring):
    async def body(device, port):
        await device.poll()
        await asyncio.sleep(0.5)
        with pytest.raises(DeviceError, match=r"no new frame for 0\.50 s, last 2"):
            await device.poll()
        assert device.reading.frame == 2

    talk(RingCamera, START, body, text=True)

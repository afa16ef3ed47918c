"""The pool extraction against rendered truth: width, length, area, temperatures, refusals."""

import dataclasses
import math

import numpy as np
import pytest
from hil_sim.devices._pool_image import PoolImage

from firmware_bridge.camera_setup import C2_UM_K, load_camera

SETUP = load_camera("ring_sim")
NOISE = np.random.Generator(np.random.PCG64(5)).standard_normal(65536).astype(np.float32)


def setup(**features):
    blur_px = features.pop("blur_px", 0.8)
    return dataclasses.replace(SETUP, features={**SETUP.features, **features}, blur_px=blur_px)


def picture(
    made, width_mm, *, tail_mm=None, angle=0.7, peak_deg_c=2340.0, x=0.3, y=-0.2, spots=(), n=1,
    offset=None,
):  # fmt: skip
    """A frame as the camera of this set-up would see that pool."""
    size = made.features["Width"]
    bits8 = made.features["PixelFormat"] == "Mono8"
    mm = made.scale_mm_px * 128 / size
    share = 255 / 65535 if bits8 else 1.0
    gain = 10 ** (made.features["Gain"] / 20)
    tail_mm = max(tail_mm or 0.0, 0.5 * width_mm)
    ahead = 0.5 * (tail_mm - 0.5 * width_mm) / mm
    out = np.zeros((size, size), np.uint8 if bits8 else np.uint16)
    PoolImage(size, size, NOISE).render(
        out,
        n,
        width_px=width_mm / mm,
        tail_px=tail_mm / mm,
        x_px=0.5 * (size - 1) + x + ahead * math.cos(angle),
        y_px=0.5 * (size - 1) + y + ahead * math.sin(angle),
        angle_rad=angle,
        peak_deg_c=peak_deg_c,
        solidus_deg_c=made.edge_deg_c,
        counts=made.counts_per_us * made.features["ExposureTime"] * gain * share,
        wien_k=C2_UM_K / made.wavelength_um,
        offset=(3.0 if bits8 else 800.0) if offset is None else offset,
        read_noise=0.3 if bits8 else 20.0,
        electrons_per_count=0.46 / share,
        sigma_px=made.blur_px,
        full=255 if bits8 else 65535,
        spots=spots,
    )
    return out, mm


CASES = {
    "as it comes": {},
    "sharp": {"blur_px": 0.0},
    "soft": {"blur_px": 1.1},
    "short exposure": {"ExposureTime": 40.0},
    "long exposure, saturated": {"ExposureTime": 900.0},
    "8 bit": {"PixelFormat": "Mono8", "ExposureTime": 900.0},
    "256 px": {"Width": 256, "Height": 256},
}


@pytest.mark.parametrize("case", CASES)
def test_width_is_within_two_per_cent_of_the_truth(case):
    made = setup(**CASES[case])
    kernel = made.kernel()
    random = np.random.Generator(np.random.PCG64(11))
    n = 0
    for width_mm in np.linspace(0.8, 4.0, 17):
        for _ in range(2):
            n += 1
            tail_mm = min(random.uniform(0.4, 2.2), 5.4 - 0.5 * width_mm)
            angle, x, y = random.uniform(0, 6.28), *random.uniform(-1, 1, 2)
            frame, mm = picture(
                made, width_mm, tail_mm=tail_mm, angle=angle, x=x, y=y, n=n,
                peak_deg_c=random.uniform(2100, 2450),
            )  # fmt: skip
            found, width_px, length_px, area_px2, *_ = kernel.measure(frame)
            assert found
            assert width_px * mm == pytest.approx(width_mm, rel=0.02), (tail_mm, angle)
            length_mm = max(tail_mm, 0.5 * width_mm) + 0.5 * width_mm
            assert length_px * mm == pytest.approx(length_mm, rel=0.02)
            assert area_px2 * mm**2 == pytest.approx(
                0.25 * math.pi * width_mm * length_mm, rel=0.05
            )


@pytest.mark.parametrize("offset", [150.0, 801.4, 6000.0])
def test_background_is_taken_off(offset):
    frame, mm = picture(SETUP, 1.6, offset=offset)
    got = SETUP.kernel().measure(frame)
    assert got[1] * mm == pytest.approx(1.6, rel=0.02)
    assert got[10] == pytest.approx(offset, abs=8.0)


def test_spatter_beside_the_pool_is_not_the_pool():
    kernel = SETUP.kernel()
    edge = SETUP.counts_at(SETUP.edge_deg_c)
    spots = [
        (20.0, 30.0, 1.2, 9 * edge),
        (100.0, 90.0, 0.7, 30 * edge),
        (64.0, 10.0, 1.5, 5 * edge),
    ]
    frame, _ = picture(SETUP, 1.6, spots=spots)
    bare, _ = picture(SETUP, 1.6)
    assert kernel.measure(frame)[1] == pytest.approx(kernel.measure(bare)[1], rel=0.002)
    assert kernel.measure(frame)[3] == pytest.approx(kernel.measure(bare)[3], rel=0.01)


def test_a_droplet_on_the_flank_does_not_widen_the_pool():
    edge = SETUP.counts_at(SETUP.edge_deg_c)
    frame, mm = picture(SETUP, 2.0, angle=0.0, tail_mm=1.8, spots=[(72.0, 43.0, 1.0, 6 * edge)])
    assert SETUP.kernel().measure(frame)[1] * mm == pytest.approx(2.0, rel=0.02)


def test_a_faint_plume_widens_it_by_less_than_two_per_cent():
    edge = SETUP.counts_at(SETUP.edge_deg_c)
    for width_mm in (0.8, 1.6, 3.0):
        frame, mm = picture(SETUP, width_mm, spots=[(63.5, 63.5, 32.0, 0.1 * edge)])
        assert SETUP.kernel().measure(frame)[1] * mm == pytest.approx(width_mm, rel=0.02)


def test_temperatures():
    frame, _ = picture(SETUP, 2.0, peak_deg_c=2300.0)
    *_, mean, peak, share = SETUP.kernel().measure(frame)[:7]
    assert mean == pytest.approx(0.5 * (2300.0 + SETUP.edge_deg_c), rel=0.01)
    assert peak == pytest.approx(2300.0, rel=0.01)
    assert share == 0.0


def test_saturated_share_and_border_and_darkness_are_told():
    made = setup(ExposureTime=900.0)
    assert made.kernel().measure(picture(made, 2.0)[0])[6] > 0.2
    assert SETUP.kernel().measure(picture(SETUP, 2.0, x=55.0)[0])[12]
    dim = setup(ExposureTime=4.0)
    assert dim.kernel().measure(picture(dim, 2.0)[0])[13]
    assert not SETUP.kernel().measure(picture(SETUP, 2.0)[0])[13]


def test_no_pool_is_found_in_darkness_noise_or_a_hot_pixel():
    frame = np.full((128, 128), 800, np.uint16)
    kernel = SETUP.kernel()
    assert not kernel.measure(frame)[0]
    frame[60, 60] = 65535
    assert not kernel.measure(frame)[0]
    noise = np.random.Generator(np.random.PCG64(3)).integers(0, 65536, (128, 128))
    kernel.measure(noise.astype(np.uint16))  # anything, but it comes back
    assert kernel.measure(np.full((128, 128), 65535, np.uint16))[0] is False


@pytest.mark.parametrize("seed", range(30))
def test_any_frame_comes_back(seed):
    """Random blocks and checks: numbers are finite, nothing hangs, nothing reads beyond."""
    random = np.random.Generator(np.random.PCG64(seed))
    kernel = SETUP.kernel()
    frame = (random.integers(0, 2, (128, 128)) * random.integers(0, 65536)).astype(np.uint16)
    for _ in range(4):
        y, x, h, w = random.integers(0, 128, 4)
        frame[y : y + h, x : x + w] = random.integers(0, 65536)
    got = kernel.measure(frame)
    assert all(math.isfinite(v) for v in got)
    assert got[1] >= 0.0
    assert got[2] >= 0.0


def test_wrong_frames_are_refused():
    with pytest.raises(ValueError, match="64 x 128 px, not 128 x 128"):
        SETUP.kernel().measure(np.zeros((128, 64), np.uint16))

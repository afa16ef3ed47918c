"""Fits find values that were put into made-up readings, and say when they cannot."""

import math

import numpy as np
import pytest

from controller.commissioning import fits
from controller.commissioning.kinds import KINDS
from controller.errors import CommissioningError

SEEDS = range(25)


def test_every_kind_has_its_fit():
    assert set(fits.FITS) == set(KINDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_feeder_flow_within_one_per_cent(seed):
    rng = np.random.default_rng(seed)
    k, c = rng.uniform(1.6, 2.4), rng.uniform(-0.02, 0.02)
    rows = []
    for rpm in np.repeat([1.0, 2.5, 4.0, 6.0, 8.0], 2):
        flow = k * rpm * (1 + c * rpm)
        rows.append((rpm, 60.0, flow + rng.normal(0, 0.02)))
    found, sigma = fits.feeder(rows)
    for rpm in (1.5, 5.0, 8.0):
        got = found["g_min_per_rpm"] * rpm * (1 + found["curvature_per_rpm"] * rpm)
        assert got == pytest.approx(k * rpm * (1 + c * rpm), rel=0.01)
    assert abs(found["g_min_per_rpm"] - k) < 6 * sigma["g_min_per_rpm"]


@pytest.mark.parametrize("seed", SEEDS)
def test_delay_within_five_per_cent_from_one_step(seed):
    rng = np.random.default_rng(seed)
    t0, lag, q = rng.uniform(1.5, 6.0), rng.uniform(0.2, 1.2), rng.uniform(0.08, 0.25)
    t = np.arange(0, 30, 0.1)
    u = np.maximum(t - t0, 0)
    mass = 3.0 + q * (u - lag * (1 - np.exp(-u / lag))) + rng.normal(0, 0.003, len(t))
    found, sigma = fits.delay(list(zip(t, mass, strict=True)))
    assert found["transport_delay_s"] == pytest.approx(t0, rel=0.05)
    assert found["lag_s"] == pytest.approx(lag, abs=0.25)
    assert 0 < sigma["transport_delay_s"] < 0.1


def test_delay_without_powder_is_refused():
    rng = np.random.default_rng(1)
    with pytest.raises(CommissioningError, match="no powder arriving"):
        fits.delay([(0.1 * n, 5.0 - 1e-3 * n + rng.normal(0, 1e-4)) for n in range(200)])


@pytest.mark.parametrize("seed", SEEDS)
def test_power_within_half_a_per_cent(seed):
    rng = np.random.default_rng(seed)
    truth = {
        "slope": rng.uniform(0.92, 1.03),
        "offset_w": rng.uniform(-8, 8),
        "curvature_per_w": rng.uniform(-3e-5, 3e-5),
    }
    set_w = np.repeat(np.linspace(150, 950, 6), 3)
    got = fits.power_at(truth, set_w) * (1 + rng.normal(0, 0.002, len(set_w)))
    found, _ = fits.power(list(zip(set_w, got, strict=True)))
    for p in (200.0, 500.0, 900.0):
        assert fits.power_at(found, p) == pytest.approx(fits.power_at(truth, p), rel=0.005)


def test_gate_latency_and_jitter():
    rng = np.random.default_rng(4)
    rows = [
        (s, n * 1e5, n * 1e5 + late + rng.uniform(-jit, jit))
        for s, late, jit in (("gate", 140, 20), ("power", 3100, 1500))
        for n in range(60)
    ]
    found, _ = fits.gate(rows)
    assert found["gate_latency_s"] == pytest.approx(140e-6, abs=10e-6)
    assert found["gate_jitter_s"] == pytest.approx(20e-6, abs=3e-6)
    assert found["power_latency_s"] == pytest.approx(3.1e-3, abs=5e-4)
    with pytest.raises(CommissioningError, match="before its command"):
        fits.gate([(s, 1000.0 * n, 1000.0 * n - 5) for s in ("gate", "power") for n in range(9)])


def test_axis_scale_and_backlash_have_the_right_sign():
    rows = [
        (a, x, d, x * 1.0001 - d * 0.015 + 0.3)
        for a in "xyz"
        for x in (10.0, 80.0, 150.0, 220.0)
        for d in (1, -1)
    ]
    found, _ = fits.axis(rows)
    assert found["scale_y"] == pytest.approx(1.0001, abs=1e-9)
    assert found["backlash_z_mm"] == pytest.approx(0.03, abs=1e-9)


def test_sphere_table_caustic_and_camera():
    rng = np.random.default_rng(2)
    n = rng.normal(size=(12, 3))
    ball = np.array([150.2, 149.1, 30.0]) + 12.5 * n / np.linalg.norm(n, axis=1)[:, None]
    found, _ = fits.tool_centre((ball + rng.normal(0, 0.002, ball.shape)).tolist())
    assert found["tool_x_mm"] == pytest.approx(150.2, abs=0.01)

    angles = np.arange(0, 360, 45.0)
    turn = np.radians(angles)
    rows = np.column_stack([angles, 120 + 40 * np.cos(turn), 90 + 40 * np.sin(turn)])
    found, _ = fits.rotary(rows.tolist())
    assert (found["centre_u_mm"], found["centre_v_mm"]) == pytest.approx((120, 90))

    z = np.linspace(-10, 10, 9)
    rows = np.column_stack([z, 0.8 * np.sqrt(1 + ((z - 1.7) / 6.0) ** 2)])
    found, _ = fits.focus(rows.tolist())
    assert found["waist_diameter_mm"] == pytest.approx(0.8)
    assert found["focus_z_mm"] == pytest.approx(1.7)
    z = np.linspace(4, 12, 9)
    rows = np.column_stack([z, 0.8 * np.sqrt(1 + ((z - 1.7) / 6.0) ** 2)])
    with pytest.raises(CommissioningError, match="outside of the readings"):
        fits.focus(rows.tolist())

    px = rng.uniform(0, 600, (8, 2))
    a = math.radians(3.0)
    mm = px @ np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]) * 0.011 + 2.0
    found, _ = fits.camera(np.column_stack([px, mm]).tolist())
    assert found["mm_per_px"] == pytest.approx(0.011)
    assert found["angle_deg"] == pytest.approx(3.0)


def test_two_point_fits_and_offsets():
    found, _ = fits.oxygen([(0, 4.0), (0, 4.2), (100, 101.0), (100, 101.2)])
    assert found["slope"] == pytest.approx(0.97)
    found, _ = fits.gas(
        [(g, x, 1.02 * x + 0.1) for g in ("carrier", "shield") for x in range(1, 9)]
    )
    assert found["shield_offset_l_min"] == pytest.approx(0.1)
    found, _ = fits.centring([(1.1, 2.0, 1.0, 2.2), (1.2, 2.0, 1.0, 2.1), (1.0, 2.0, 1.0, 2.3)])
    assert found["offset_x_mm"] == pytest.approx(0.1)
    found, _ = fits.standoff([(5.0, 17.0), (10.0, 22.01), (15.0, 26.99)])
    assert found["zero_mm"] == pytest.approx(12.0)
    found, _ = fits.pyrometer([(t, 1.02 * t - 30) for t in (1000.0, 1200.0, 1500.0, 1800.0)])
    assert (found["slope"], found["offset_k"]) == pytest.approx((1.02, -10.0))


def test_door_that_does_not_latch_fails():
    good = [(s, *v) for s, v in fits.DOOR_STEPS.items()]
    assert fits.door(good)[0] == {"passed": 1.0}
    for bad in range(4):
        rows = [(*r[:2], 1 - r[2], r[3]) if n == bad else r for n, r in enumerate(good)]
        with pytest.raises(CommissioningError, match="FAILED"):
            fits.door(rows)


@pytest.mark.parametrize("name", sorted(set(fits.FITS)))
def test_no_readings_and_nonsense_are_refused(name):
    n = len(KINDS[name].columns)
    same = [] if name in ("centring", "standoff") else [[(1.0,) * n] * 30]  # a plain mean may
    for rows in ([], [("x",) * n] * 30, [(math.nan,) * n] * 30, *same):
        with pytest.raises((CommissioningError, ValueError)):
            fits.FITS[name](rows)

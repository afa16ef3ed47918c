"""Kernels of rounding and friction circle against their plain-Python twin and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller import _circle, _curve
from tests.unit import circle_twin
from tests.unit.test_motion_kernel import random_path

FREE = [1e9, 1e9, 1e9]
AXIS_V, AXIS_A = [60.0, 45.0, 20.0], [2500.0, 1500.0, 400.0]


def plan(
    points, speed=50.0, accel=2000.0, tolerance=0.02, axis_v=FREE, axis_a=FREE, enough=1e12, **ends
):
    speed = np.full(len(points) - 1, speed) if np.isscalar(speed) else speed
    rounding = _curve.round_corners(points, tolerance, enough_mm=enough)
    return rounding, *_circle.plan_circle(points, speed, rounding, accel, axis_v, axis_a, **ends)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("axis_v", "axis_a"), [(FREE, FREE), (AXIS_V, AXIS_A)])
def test_kernels_agree_with_twin_on_random_paths(seed, axis_v, axis_a):
    print("seed", seed)
    points = random_path(seed, 600)
    speed = np.random.default_rng(seed + 99).uniform(1.0, 80.0, len(points) - 1)
    (radius, half, middle), w, t = plan(points, speed, axis_v=axis_v, axis_a=axis_a, enough=20.0)
    rows = [tuple(p) for p in points.tolist()]
    r, h, m = circle_twin.round_corners(rows, 0.02, 20.0)
    sharp = np.array(r) == 0.0
    assert ((radius == 0.0) == sharp).all()
    assert sharp.any()
    np.testing.assert_allclose(half, h, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(middle, m, rtol=1e-9, atol=1e-12)
    turned = (np.array(h) > 1e-6) & (np.array(r) < 1e6)
    np.testing.assert_allclose(radius[turned], np.array(r)[turned], rtol=1e-6)
    want, total = circle_twin.plan(rows, speed, 0.02, 20.0, 2000.0, axis_v, axis_a)
    np.testing.assert_allclose(w, want, rtol=1e-6, atol=1e-9)
    assert t.sum() == pytest.approx(total, rel=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_friction_circle_holds_at_both_ends_of_every_arc(seed):
    (radius, half, _), w, _ = plan(random_path(seed))
    inner = half > 0.0
    for a, b in ((w[0::3][:-1], w[1::3]), (w[3::3], w[2::3])):
        corner = slice(0, -1) if a is not w[3::3] and len(a) and a[0] == w[0] else slice(1, None)
        ok, h, r = inner[corner], half[corner], radius[corner]
        along = (b[ok] - a[ok]) / (2.0 * h[ok])
        across = np.maximum(a[ok], b[ok]) / r[ok]
        assert ok.sum() > 50
        assert np.hypot(along, across).max() <= 2000.0 * (1 + 1e-9)


def test_right_angle_by_hand():
    # tan(22.5 deg) = 0.41421: touch 0.02 / 0.41421 = 0.0482843 mm = radius; arc pi/2 r
    # v = sqrt(2000 * 0.0482843) = 9.82693 mm/s in its middle
    points = np.array([[0.0, 0, 0], [10, 0, 0], [10, 10, 0]])
    (radius, half, middle), w, _ = plan(points)
    assert radius[1] == pytest.approx(0.0482843, abs=1e-7)
    assert half[1] == pytest.approx(0.0758448 / 2, abs=1e-7)
    assert middle[0] == pytest.approx(10 - 0.0482843, abs=1e-7)
    assert np.sqrt(w[3]) == pytest.approx(9.82693, abs=1e-5)
    s = np.concatenate([[0.0], np.cumsum(half[:-1] + middle + half[1:])])
    place = _curve.places(points, radius, half, s, [s[1]])[0]
    # the arc's middle is 0.02 mm from the corner on the bisector
    np.testing.assert_allclose(place, [10 - 0.02 / np.sqrt(2), 0.02 / np.sqrt(2), 0], atol=1e-12)


def test_fine_polygon_of_a_circle_becomes_that_circle():
    angle = np.linspace(0.0, 4.0 * np.pi, 252)  # 0.1 mm chords on radius 2 mm
    points = np.stack([2 * np.cos(angle), 2 * np.sin(angle), 0 * angle], axis=1)
    (radius, half, middle), w, _ = plan(points, speed=500.0)
    np.testing.assert_allclose(radius[1:-1], 2.0 * np.cos(angle[1] / 2), rtol=1e-9)
    assert middle[1:-1].max() < 1e-12
    assert np.sqrt(w.max()) == pytest.approx(np.sqrt(2000.0 * radius[5]), rel=1e-9)
    s = np.concatenate([[0.0], np.cumsum(half[:-1] + middle + half[1:])])
    at = _curve.places(points, radius, half, s, np.linspace(0.06, s[-1] - 0.06, 5000))
    np.testing.assert_allclose(np.hypot(at[:, 0], at[:, 1]), radius[5], atol=1e-9)


def test_straight_run_in_pieces_takes_as_long_as_in_one():
    whole = plan(np.array([[0.0, 0, 0], [30, 40, 0]]))[2].sum()
    assert whole == pytest.approx(50.0 / 50.0 + 50.0 / 2000.0, rel=1e-12)  # d/v + v/a
    run = np.linspace([0.0, 0, 0], [30.0, 40, 0], 700)
    assert plan(run, enough=12.5)[2].sum() == pytest.approx(whole, rel=1e-9)


def test_arcs_of_hardly_any_turn_leave_long_moves_straight():
    points = np.array([[0.0, 0, 0], [20, 0, 0], [40, 0.001, 0], [60, 0, 0]])
    speed = np.array([80.0, 80.0, 10.0])
    free, kept = plan(points, speed), plan(points, speed, enough=32.0)
    assert free[0][2][0] == pytest.approx(10.0)
    assert kept[0][2][0] > 19.99
    np.testing.assert_allclose(kept[0][0][1:3], 32.0)
    # in half of 20 mm braking from 80 to 10 mm/s would be spread out: 0.22 s, not 0.035 s
    assert free[2].sum() > kept[2].sum() + 0.05


def test_reversal_stays_sharp_and_stops():
    (radius, half, _), w, _ = plan(np.array([[0.0, 0, 0], [10, 0, 0], [0, 0, 0], [0, 5, 0]]))
    assert radius[1] == half[1] == w[3] == 0.0
    assert radius[2] > 0.0
    assert w[6] > 0.0


@pytest.mark.parametrize("size_mm", [1e-5, 1e4])
def test_ten_nanometres_and_ten_metres(size_mm):
    rng = np.random.default_rng(3)
    step = np.column_stack([np.full(200, size_mm), rng.normal(0, 0.1 * size_mm, (200, 2))])
    (_, half, middle), w, t = plan(np.cumsum(step, axis=0))
    assert np.isfinite(w).all()
    assert np.isfinite(t).all()
    assert t.sum() >= (middle.sum() + 2 * half.sum()) / 50.0


def test_ends_keep_the_wanted_speeds_and_a_window_continues_the_whole():
    points = np.cumsum(np.tile([[3.0, 0, 0], [0, 2.0, 0]], (20, 1)), axis=0)
    whole = plan(points)
    # cut in the middle of a straight move: the window's end is a place of the whole
    i = 20
    middle = 0.5 * (points[i] + points[i + 1])
    left = np.concatenate([points[: i + 1], [middle]])
    v2 = 0.5 * (whole[1][3 * i + 1] + whole[1][3 * i + 2]) + 2000.0 * whole[0][2][i]
    v = np.sqrt(min(2500.0, v2))
    part = plan(left, end_mm_s=v)
    np.testing.assert_allclose(part[1][: 3 * i], whole[1][: 3 * i], rtol=1e-12)
    assert part[1][-1] == pytest.approx(v * v)
    rest = plan(np.concatenate([[middle], points[i + 1 :]]), start_mm_s=v)
    assert part[2].sum() + rest[2].sum() == pytest.approx(whole[2].sum(), rel=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_points_are_refused_by_index(bad):
    points = random_path(0)
    points[77, 1] = bad
    with pytest.raises(ValueError, match=r"points_mm .* at index 77"):
        plan(points)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_limits_of_zero_nan_and_infinity_are_refused_by_name(bad):
    points = random_path(0, 20)
    speed = np.full(20, 50.0)
    speed[7] = bad
    with pytest.raises(ValueError, match=r"speed_mm_s .* at index 7: must be finite and above 0"):
        plan(points, speed)
    for name, value in (
        ("accel", bad), ("axis_v", [1.0, bad, 1.0]), ("axis_a", [bad, 1.0, 1.0])
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must be finite and above 0"):
            plan(points, **{name: value})
    with pytest.raises(ValueError, match="path_tolerance_mm"):
        _curve.round_corners(points, bad)
    if bad != 0.0:
        with pytest.raises(ValueError, match="end speeds"):
            plan(points, start_mm_s=bad)


def test_arrays_of_wrong_shape_are_refused():
    points = random_path(0, 20)
    rounding = _curve.round_corners(points, 0.02)
    with pytest.raises(ValueError, match=r"speed_mm_s has shape \(19,\)"):
        _circle.plan_circle(points, np.ones(19), rounding, 2000.0, FREE, FREE)
    with pytest.raises(ValueError, match="half_mm"):
        _circle.plan_circle(
            points, np.ones(20), (rounding[0], rounding[1][1:], rounding[2]), 2000.0, FREE, FREE
        )
    with pytest.raises(ValueError, match="points_mm has shape"):
        _curve.round_corners(points[:, :2], 0.02)
    with pytest.raises(ValueError, match="fixed has 3 rows"):
        _curve.round_corners(points, 0.02, np.zeros(3))
    with pytest.raises(ValueError, match="not sorted"):
        _curve.places(points, rounding[0], rounding[1], np.arange(21.0), [2.0, 1.0])


moves = st.lists(
    st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1), st.floats(-8, 4)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(moves=moves, speed=st.floats(1e-3, 1e3), accel=st.floats(1.0, 1e5))
def test_any_path_is_finite_and_within_its_limits(moves, speed, accel):
    step = np.array([np.array(m[:3]) * 10.0 ** m[3] for m in moves])
    step = step[np.linalg.norm(step, axis=1) > 1e-9]
    if len(step) == 0:
        return
    points = np.concatenate([np.zeros((1, 3)), np.cumsum(step, axis=0)])
    if (np.linalg.norm(np.diff(points, axis=0), axis=1) < 1e-9).any():
        return  # swallowed by rounding beside a long move
    (radius, half, middle), w, t = plan(points, speed=speed, accel=accel)
    assert np.isfinite(t).all()
    assert (w >= 0.0).all()
    assert w.max() <= speed**2 * (1 + 1e-12)
    assert w[0] == w[-1] == 0.0
    assert (half >= 0.0).all()
    assert (middle >= 0.0).all()
    # what an arc takes of its moves is half at most, and the corner stays within tolerance
    turned = (half > 0.0) & (radius < 1e50)
    x = half[turned] / radius[turned]
    assert (radius[turned] * 2 * np.sin(x / 2) ** 2 / np.cos(x)).max(initial=0.0) <= 0.02 * (
        1 + 1e-9
    )
    speeds = np.sqrt(w)
    assert t.sum() >= (2 * half.sum() + middle.sum()) / max(speed, speeds.max()) * (1 - 1e-12)


def test_places_beside_the_ends_do_not_read_beyond_the_points():
    """A length that rounding put past the end continues the last move, whatever lies behind."""
    around = np.full((7, 3), np.nan)
    around[2:5] = [[0.0, 0, 0], [10, 0, 0], [10, 5, 0]]
    points = around[2:5]
    radius, half, middle = _curve.round_corners(points, 0.02)
    length = np.cumsum([0.0, middle[0] + half[1], half[1] + middle[1]])
    end = length[2]
    s = np.array([-1e-3, np.nextafter(0.0, -1.0), np.nextafter(end, 20.0), end + 1e-3])
    found = _curve.places(points, radius, half, length, s)
    expected = [[-1e-3, 0, 0], [0, 0, 0], [10, 5, 0], [10, 5.001, 0]]
    assert np.abs(found - expected).max() < 1e-9

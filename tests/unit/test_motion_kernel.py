"""Planner kernel against its plain-Python twin and against first principles."""

import numpy as np
import pytest

from controller import _motion
from tests.unit import klipper_twin

FREE = [1e9, 1e9, 1e9]


def random_path(seed, n=200):
    """Walk in space with short and long moves, sharp and gentle corners, reversals, straights."""
    rng = np.random.default_rng(seed)
    step = rng.normal(size=(n, 3)) * 10.0 ** rng.uniform(-3, 1.3, (n, 1))
    straight = rng.random(n) < 0.3
    back = rng.random(n) < 0.05
    for i in range(1, n):
        if straight[i]:
            step[i] = step[i - 1] * rng.uniform(0.2, 3.0)
        elif back[i]:
            step[i] = -step[i - 1]
    return np.concatenate([np.zeros((1, 3)), np.cumsum(step, axis=0)])


def plan(points, speed=50.0, accel=2000.0, deviation=0.01, axis_v=FREE, axis_a=FREE, **ends):
    speed = np.full(len(points) - 1, speed) if np.isscalar(speed) else speed
    return _motion.plan_trapezoid(points, speed, accel, deviation, axis_v, axis_a, **ends)


@pytest.mark.parametrize("seed", range(12))
def test_kernel_agrees_with_twin_on_random_paths(seed):
    print("seed", seed)
    points = random_path(seed)
    speed = np.random.default_rng(seed + 99).uniform(1.0, 80.0, len(points) - 1)
    axis_v, axis_a = [60.0, 45.0, 20.0], [2500.0, 1500.0, 400.0]
    length, v, peak, accel, duration = plan(points, speed, axis_v=axis_v, axis_a=axis_a)
    moves, total = klipper_twin.plan(
        [tuple(p) for p in points], list(speed), 2000.0, 0.01, axis_v, axis_a
    )
    # at a reversal the half angle is rounding noise of 1e-8, its speed below 1e-3 mm/s: a stop
    np.testing.assert_allclose(length, [m.distance for m in moves], rtol=1e-12)
    np.testing.assert_allclose(accel, [m.accel for m in moves], rtol=1e-9)
    np.testing.assert_allclose(v[:-1], [m.start_v for m in moves], rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(peak, [m.peak_v for m in moves], rtol=1e-6)
    assert duration.sum() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_plan_keeps_every_limit_on_each_move(seed):
    points = random_path(seed)
    axis_v, axis_a = np.array([60.0, 45.0, 20.0]), np.array([2500.0, 1500.0, 400.0])
    length, v, peak, accel, _ = plan(points, axis_v=axis_v, axis_a=axis_a)
    unit = np.abs(np.diff(points, axis=0)) / length[:, None]
    assert v[0] == 0.0
    assert v[-1] == 0.0
    assert (peak <= 50.0 * (1 + 1e-12)).all()
    assert (unit * peak[:, None] <= axis_v * (1 + 1e-12)).all()
    assert (unit * accel[:, None] <= axis_a * (1 + 1e-12)).all()
    assert (accel <= 2000.0 * (1 + 1e-12)).all()
    needed = np.abs(np.diff(v**2)) / (2 * length)  # least acceleration between the corners
    assert (needed <= accel * (1 + 1e-9)).all()


def test_right_angle_is_taken_at_the_speed_worked_out_by_hand():
    # cos 45 / (1 - cos 45) = 2.41421; v = sqrt(2000 * 0.01 * 2.41421) = 6.94869 mm/s
    _, v, _, _, _ = plan(np.array([[0.0, 0, 0], [10, 0, 0], [10, 10, 0]]))
    assert v[1] == pytest.approx(6.94869, abs=1e-5)


def test_fine_arc_obeys_centripetal_limit_where_deviation_alone_would_not():
    angle = np.arange(2000) * 0.1 / 2.0  # 0.1 mm chords on radius 2 mm
    points = np.stack([2 * np.cos(angle), 2 * np.sin(angle), 0 * angle], axis=1)
    v = plan(points, speed=500.0)[1]
    assert v.max() ** 2 / 2.0 <= 2000.0 * 1.001
    assert v.max() ** 2 / 2.0 >= 2000.0 * 0.99


def test_straight_run_in_pieces_takes_as_long_as_in_one():
    whole = plan(np.array([[0.0, 0, 0], [30, 40, 0]]))[4].sum()
    parts = np.linspace([0.0, 0, 0], [30.0, 40, 0], 700)
    assert plan(parts)[4].sum() == pytest.approx(whole, rel=1e-9)
    assert whole == pytest.approx(50.0 / 50.0 + 50.0 / 2000.0, rel=1e-12)  # d/v + v/a


def test_reversal_stops():
    v = plan(np.array([[0.0, 0, 0], [10, 0, 0], [0, 0, 0], [10, 0, 0]]))[1]
    np.testing.assert_allclose(v, 0.0, atol=1e-3)


def test_zero_length_moves_change_nothing_and_take_no_time():
    points = random_path(3, 60)
    doubled = np.repeat(points, 3, axis=0)
    length, v, _, _, duration = plan(doubled)
    want = plan(points)
    assert duration.sum() == pytest.approx(want[4].sum(), rel=1e-12)
    assert (duration[length == 0.0] == 0.0).all()
    np.testing.assert_allclose(v[2::3], want[1])
    assert plan(np.zeros((4, 3)))[4].sum() == 0.0
    t, s, *_ = _motion.trapezoid_phases(*plan(doubled)[:4])
    assert np.isfinite(t).all()
    assert s[-1] == pytest.approx(want[0].sum())


@pytest.mark.parametrize("size_mm", [1e-5, 1e4])
def test_ten_nanometres_and_ten_metres(size_mm):
    points = random_path(1) * 0 + np.arange(201)[:, None] * np.array([size_mm, 0.0, 0.0])
    length, _, _, _, duration = plan(points)
    assert np.isfinite(duration).all()
    assert duration.sum() > length.sum() / 50.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e308])
def test_not_finite_points_are_refused_by_index(bad):
    points = random_path(0)
    points[77, 1] = bad
    with pytest.raises(ValueError, match=r"index 7[67]"):
        plan(points)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"speed": 0.0}, "speed_mm_s"),
        ({"speed": np.nan}, "speed_mm_s"),
        ({"accel": 0.0}, "accel_mm_s2"),
        ({"accel": np.inf}, "accel_mm_s2"),
        ({"deviation": 0.0}, "junction_deviation_mm"),
        ({"axis_v": [1.0, 0.0, 1.0]}, "axis_speed_mm_s"),
        ({"axis_a": [1.0, 1.0, np.nan]}, "axis_accel_mm_s2"),
        ({"start_mm_s": -1.0}, "end speeds"),
    ],
)
def test_limits_of_zero_and_nan_are_refused_by_name(change, named):
    with pytest.raises(ValueError, match=named):
        plan(random_path(0), **change)


def test_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        _motion.plan_trapezoid(np.zeros((3, 3)), np.ones(3), 1.0, 1.0, FREE, FREE)
    with pytest.raises(ValueError, match="shape"):
        _motion.plan_trapezoid(np.zeros((1, 3)), np.ones(0), 1.0, 1.0, FREE, FREE)


def test_phases_join_up_and_add_to_the_whole():
    length, v, peak, accel, duration = plan(random_path(5, 400))
    t, s, w, a, move = _motion.trapezoid_phases(length, v, peak, accel)
    dt = np.diff(t)
    assert (dt > 0).all()
    assert t[-1] == pytest.approx(duration.sum(), rel=1e-12)
    assert s[-1] == np.cumsum(length)[-1]
    np.testing.assert_allclose(w[:-1] + a * dt, w[1:], atol=1e-6)
    np.testing.assert_allclose(s[:-1] + dt * (w[:-1] + 0.5 * a * dt), s[1:], atol=1e-8)
    ends = np.flatnonzero(np.diff(move)) + 1
    np.testing.assert_array_equal(s[ends], np.cumsum(length)[move[ends - 1]])


AXES = ([60.0, 45.0, 20.0], [2500.0, 1500.0, 400.0])


@pytest.mark.parametrize("seed", range(4))
def test_junction_limits_agree_with_twin(seed):
    points = random_path(seed)
    length, accel, cruise, corner = _motion.junction_limits(
        points, np.full(len(points) - 1, 50.0), 2000.0, 0.01, *AXES
    )
    twin = klipper_twin.plan([tuple(p) for p in points], 50.0, 2000.0, 0.01, *AXES)[0]
    np.testing.assert_allclose(length, [m.distance for m in twin], rtol=1e-12)
    np.testing.assert_allclose(accel, [m.accel for m in twin], rtol=1e-9)
    np.testing.assert_allclose(cruise**2, [m.cruise_v2 for m in twin], rtol=1e-9)
    assert corner[0] == corner[-1] == 0.0
    # the twin's start limit is the corner's, unless the move before is too short to reach it
    reach = np.sqrt([m.start_limit_v2 for m in twin[1:]])
    assert (corner[1:-1] >= reach * (1 - 1e-6) - 1e-3).all()
    assert (np.abs(corner[1:-1] - reach) < 1e-3 + 1e-6 * reach).mean() > 0.2


def test_junction_limits_do_not_see_moves_of_length_zero():
    points = random_path(3, 60)
    doubled = np.repeat(points, 3, axis=0)
    want = _motion.junction_limits(points, np.full(60, 50.0), 2000.0, 0.01, FREE, FREE)
    got = _motion.junction_limits(doubled, np.full(182, 50.0), 2000.0, 0.01, FREE, FREE)
    moves = got[0] > 0
    for k in range(3):
        np.testing.assert_array_equal(got[k][moves], want[k])
    np.testing.assert_array_equal(got[3], np.repeat(want[3], 3))


@pytest.mark.parametrize("axes", [AXES, (None, None)])
def test_straight_elements_are_planned_as_points(axes):
    points = random_path(11)
    step = np.diff(points, axis=0)
    length = np.linalg.norm(step, axis=1)
    unit = step / length[:, None]
    limits = AXES if axes[0] else (FREE, FREE)
    speed = np.random.default_rng(5).uniform(1.0, 80.0, len(length))
    want = plan(points, speed=speed, axis_v=limits[0], axis_a=limits[1])
    got = _motion.plan_elements(length, unit, unit, speed, 2000.0, 0.01, *axes)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-3)


def test_smooth_arcs_are_passed_at_the_callers_cap():
    # a straight, a quarter arc of radius 2 (cap sqrt(2000 * 2) = 63.2), a straight; no corner
    length = [20.0, np.pi, 20.0]
    unit_in = [[1.0, 0, 0], [1.0, 0, 0], [0.0, 1, 0]]
    unit_out = [[1.0, 0, 0], [0.0, 1, 0], [0.0, 1, 0]]
    _, v, peak, _, _ = _motion.plan_elements(
        length, unit_in, unit_out, [100.0, 63.2, 100.0], [2000.0] * 3, 0.01
    )
    np.testing.assert_allclose(v, [0.0, 63.2, 63.2, 0.0], rtol=1e-12)
    assert peak[1] == pytest.approx(63.2)
    ends = _motion.plan_elements(
        length, unit_in, unit_out, [100.0, 63.2, 100.0], 2000.0, 0.01, start_mm_s=40, end_mm_s=30
    )[1]
    assert ends[0] == 40.0
    assert ends[-1] == 30.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"length_mm": [1.0, 0.0]}, "length_mm"),
        ({"length_mm": [1.0, np.nan]}, "length_mm"),
        ({"unit_in": [[1.0, 0, 0], [0.5, 0, 0]]}, "unit_in .* index 1"),
        ({"unit_out": [[np.nan, 0, 0], [1.0, 0, 0]]}, "unit_out .* index 0"),
        ({"speed_mm_s": [1.0, -1.0]}, "speed_mm_s"),
        ({"accel_mm_s2": 0.0}, "accel_mm_s2"),
        ({"axis_speed_mm_s": [1.0, 1, 1]}, "both or neither"),
        ({"end_mm_s": np.inf}, "end speeds"),
    ],
)
def test_bad_elements_are_refused_by_name(change, named):
    unit = [[1.0, 0, 0], [1.0, 0, 0]]
    good = {"length_mm": [1.0, 1.0], "unit_in": unit, "unit_out": unit, "speed_mm_s": [9.0, 9.0]}
    good |= {"accel_mm_s2": 100.0, "junction_deviation_mm": 0.01}
    assert len(_motion.plan_elements(**good)) == 5
    with pytest.raises(ValueError, match=named):
        _motion.plan_elements(**(good | change))

"""The friction-circle law, judged by differences of places and against other laws' times."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.paths import random_turns, wavy_spiral
from controller.errors import PlanError
from controller.planning.motion import friction_circle as law
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits
from tests.unit.planning_differences import places_of, worst
from tests.unit.test_motion_kernel import random_path

FREE = np.full(3, 1e9)
AXIS_V, AXIS_A = np.array([40.0, 30.0, 10.0]), np.array([1500.0, 1200.0, 300.0])
# 20,000 chords of the wavy spiral: toppra 0.6.10 on a cubic spline through the points,
# |a| <= 2000 as a polygon of 32 sides, |v| <= 50, two grid points a chord
TOPPRA_S = 45.756


def limits(accel=2000.0, tolerance=0.02, axis_v=FREE, axis_a=FREE):
    return MotionLimits(accel, 50e3, 0.01, tolerance, axis_v, axis_a)


def plan(points, speed=50.0, through=None, **more):
    speed = np.full(len(points) - 1, speed) if np.isscalar(speed) else speed
    return plan_profile(points, speed, limits(**more), "friction_circle", through)


@pytest.mark.parametrize(("points", "step_s"), [
    (wavy_spiral(1500), 2e-5), (wavy_spiral(1500), 3.1e-4), (random_turns(400), 2e-5),
])  # fmt: skip
def test_total_acceleration_by_differences_reaches_its_limit_and_never_passes_it(points, step_s):
    profile = plan(points)
    v, a, _, _ = worst(profile, step_s)
    assert v <= 50.0 * (1 + 1e-6)
    assert a <= 2000.0 * 1.001
    assert a >= 2000.0 * 0.99


@pytest.mark.parametrize("seed", range(6))
def test_axis_limits_hold_by_differences_on_random_paths(seed):
    points = random_path(seed, 60)
    speed = np.random.default_rng(seed).uniform(1.0, 80.0, 60)
    profile = plan(points, speed, axis_v=AXIS_V, axis_a=AXIS_A)
    v, a, axis_v, axis_a = worst(profile, profile.duration_s / 150_000)
    assert v <= speed.max() * (1 + 1e-6)
    assert a <= 2000.0 * 1.001
    assert (axis_v <= AXIS_V * 1.001).all()
    assert (axis_a <= AXIS_A * 1.001).all()
    assert (axis_a / AXIS_A).max() > 0.95  # and one of them is used


def test_each_move_keeps_its_own_speed_limit():
    points = random_path(5, 100)
    speed = np.random.default_rng(5).uniform(1.0, 80.0, 100)
    profile = plan(points, speed)
    own = speed[profile.move]
    assert (profile.v_mm_s[:-1] <= own * (1 + 1e-9)).all()
    assert (profile.v_mm_s[1:] <= own * (1 + 1e-9)).all()
    begin = profile.move_s_mm[profile.move]
    end = profile.move_s_mm[profile.move + 1]
    assert (profile.s_mm[:-1] >= begin - 1e-9).all()
    assert (profile.s_mm[1:] <= end + 1e-9).all()


@pytest.mark.slow
def test_duration_on_dense_chords_against_toppra_on_a_spline():
    profile = plan(wavy_spiral()[:20_001])
    assert 0.999 <= profile.duration_s / TOPPRA_S <= 1.005


def test_phases_join_in_time_length_and_speed():
    profile = plan(random_path(2, 200))
    dt = np.diff(profile.t_s)
    assert (dt > 0.0).all()
    v = profile.v_mm_s
    np.testing.assert_allclose(v[:-1] + profile.a_mm_s2 * dt, v[1:], atol=1e-8)
    np.testing.assert_allclose(np.diff(profile.s_mm), 0.5 * (v[1:] + v[:-1]) * dt, atol=1e-8)
    assert profile.s_mm[-1] == profile.move_s_mm[-1]
    assert v[0] == v[-1] == 0.0
    assert (profile.j_mm_s3 == 0.0).all()


def test_longest_segment_keeps_its_chord_within_a_micrometre_of_the_arc():
    angle = np.arange(300) * 0.1
    points = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    profile = plan(points)
    middle_s = 0.5 * profile.duration_s
    i = int(np.searchsorted(profile.t_s, middle_s)) - 1
    assert profile.v_mm_s[i] > 40.0
    assert profile.longest_s[i] < 0.01
    t = middle_s + profile.longest_s[i] * np.array([0.0, 0.5, 1.0])
    a, b, c = places_of(profile, t)
    off = np.linalg.norm(0.5 * (a + c) - b)
    assert 0.9e-3 <= off <= 1.02e-3


def test_zero_length_moves_change_nothing():
    points = random_path(3, 60)
    want, got = plan(points), plan(np.repeat(points, 3, axis=0))
    assert got.duration_s == pytest.approx(want.duration_s, rel=1e-12)
    np.testing.assert_allclose(got.move_s_mm[::3], want.move_s_mm)
    np.testing.assert_allclose(got.move_s_mm[2::3], want.move_s_mm)
    length = np.linalg.norm(np.diff(np.repeat(points, 3, axis=0), axis=0), axis=1)
    assert (length[got.move] > 0.0).all()


def test_window_with_end_speeds_starts_and_ends_at_them():
    points = np.array([[0.0, 0, 0], [30, 0, 0], [30, 20, 0]])
    profile = law.friction_circle(points, np.full(2, 50.0), limits(), None, 40.0, 25.0)
    assert profile.v_mm_s[0] == pytest.approx(40.0)
    assert profile.v_mm_s[-1] == pytest.approx(25.0)


def test_start_speed_that_cannot_be_braked_is_lowered():
    points = np.array([[0.0, 0, 0], [0.1, 0, 0]])
    profile = law.friction_circle(points, np.full(1, 50.0), limits(), None, 50.0, 0.0)
    assert profile.v_mm_s[0] == pytest.approx(20.0)  # sqrt(2 * 2000 * 0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -3.0])
def test_bad_limits_are_refused_by_name(bad):
    points = random_path(0, 10)
    for key, name in (("accel", "accel_mm_s2"), ("tolerance", "path_tolerance_mm")):
        with pytest.raises(PlanError, match=rf"{name}.*must be finite and above 0"):
            plan(points, **{key: bad})
    for key, name in (("axis_v", "axis_speed_mm_s"), ("axis_a", "axis_accel_mm_s2")):
        with pytest.raises(PlanError, match=rf"{name} .* at index 1: must be finite and above 0"):
            plan(points, **{key: np.array([10.0, bad, 10.0])})
    speed = np.full(10, 50.0)
    speed[4] = bad
    with pytest.raises(PlanError, match=r"speed_mm_s .* at index 4: must be finite and above 0"):
        plan(points, speed)
    if not np.isfinite(bad):
        points[6, 2] = bad
        with pytest.raises(PlanError, match=r"points_mm .* at index 6: not a finite length"):
            plan(points)


def test_path_of_no_length_and_wrong_shapes_are_refused():
    with pytest.raises(PlanError, match="no length: 3 moves, all of 0 mm"):
        plan(np.zeros((4, 3)))
    with pytest.raises(PlanError, match="speed_mm_s"):
        plan(random_path(0, 10), np.full(9, 50.0))
    with pytest.raises(PlanError, match="points_mm has shape"):
        plan(np.zeros((4, 2)))


step = st.tuples(
    st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1), st.floats(-5, 1), st.floats(1, 100)
)


@settings(max_examples=40, deadline=None)
@given(moves=st.lists(step, min_size=2, max_size=25), back=st.booleans())
def test_any_path_obeys_every_limit_by_differences(moves, back):
    d = np.array([np.array(m[:3]) * 10.0 ** m[3] for m in moves])
    if back:
        d[1::3] = -d[0::3][: len(d[1::3])]
    speed = np.array([m[4] for m in moves])
    points = np.concatenate([np.zeros((1, 3)), np.cumsum(d, axis=0)])
    if np.linalg.norm(d, axis=1).max() < 1e-4:
        return
    profile = plan(points, speed, axis_v=AXIS_V, axis_a=AXIS_A)
    step_s = max(profile.duration_s / 20_000, 2e-5)
    v, a, axis_v, axis_a = worst(profile, step_s)
    # second differences of places of 10 mm carry rounding of 4e-15 / step^2
    noise = 1e-5 / (step_s / 2e-5) ** 2 + 1e-9
    assert v <= speed.max() * 1.001
    assert a <= 2000.0 * 1.001 + noise
    assert (axis_v <= AXIS_V * 1.001).all()
    assert (axis_a <= AXIS_A * 1.001 + noise).all()


def test_limits_are_left_alone():
    own = limits()
    before = dataclasses.asdict(own)
    plan_profile(random_path(0, 20), np.full(20, 50.0), own, "friction_circle")
    for key, value in before.items():
        np.testing.assert_array_equal(value, getattr(own, key))

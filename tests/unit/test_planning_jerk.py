"""The jerk-limited law: its limits checked by code of its own, durations, hard inputs."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import paths
from controller.errors import PlanError
from controller.planning.light.power import solve_gates
from controller.planning.motion import laws
from controller.planning.motion.jerk import jerk
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.motion_path import build_path
from tests.unit.planning_cases import CELL, RECIPE, Decoded, plan, small_tracks

FREE = np.full(3, 1e9)


def limits(accel=2000.0, jerk_mm_s3=50_000.0, deviation=0.01, axis_speed=FREE, axis_accel=FREE):
    """Limits of the benchmark paths, or others."""
    return MotionLimits(accel, jerk_mm_s3, deviation, 0.05, axis_speed, axis_accel)


def line(lengths, speed=50.0):
    """Corners of a straight path along x, and its speed limits."""
    points = np.zeros((len(lengths) + 1, 3))
    points[1:, 0] = np.cumsum(lengths)
    return points, np.broadcast_to(np.asarray(speed, float), (len(lengths),)).copy()


def pieces(profile):
    """Start and end of each phase by its own polynomial: dt, s1, v1, a1."""
    dt = np.diff(profile.t_s)
    v, a, j = profile.v_mm_s[:-1], profile.a_mm_s2, profile.j_mm_s3
    return (
        dt,
        profile.s_mm[:-1] + dt * (v + dt * (a / 2 + j * dt / 6)),
        v + dt * (a + j * dt / 2),
        a + j * dt,
    )


def corner_rule(points, accel, deviation):
    """Klipper's junction rule, written here anew: speed at each inner corner, mm/s."""
    way = np.diff(points, axis=0)
    d = np.linalg.norm(way, axis=1)
    unit = way / d[:, None]
    turn = np.arctan2(
        np.linalg.norm(np.cross(unit[1:], unit[:-1]), axis=1), (unit[1:] * unit[:-1]).sum(axis=1)
    )
    cos, sin = np.cos(turn / 2), np.maximum(np.sin(turn / 2), 1e-12)
    one = accel * deviation * cos / np.maximum(2.0 * np.sin(turn / 4) ** 2, 1e-24)
    two = accel * np.minimum(d[1:], d[:-1]) * cos / (2.0 * sin)
    return np.sqrt(np.maximum(np.minimum(one, two), 0.0))


def check(profile, points, speed, lim, corner=None, start=0.0):
    """Every limit, from the float profile. Times are rounded to ``t_ulp``, so are a and v."""
    accel, jerk_limit = lim.accel_mm_s2, lim.jerk_mm_s3
    dt, s1, v1, a1 = pieces(profile)
    assert (dt > 0).all()
    t_ulp = 4e-16 * profile.duration_s
    s_ulp = 4e-16 * profile.s_mm[-1]
    fast = speed.max()
    loose_a = jerk_limit * t_ulp + 1e-9 * accel
    loose_v = accel * t_ulp + 1e-9 * fast
    # joints: length, speed and acceleration go on
    assert np.abs(s1 - profile.s_mm[1:]).max() < 8 * (s_ulp + fast * t_ulp) + 1e-11
    assert np.abs(v1 - profile.v_mm_s[1:]).max() < 4 * loose_v
    assert np.abs(a1[:-1] - profile.a_mm_s2[1:]).max(initial=0.0) < 4 * loose_a
    assert profile.a_mm_s2[0] == 0.0
    assert abs(a1[-1]) < 4 * loose_a
    assert profile.v_mm_s[0] == pytest.approx(start)
    assert profile.v_mm_s[-1] == 0.0
    # limits: jerk, acceleration at both ends (it is straight between), speed at its extremum
    assert np.abs(profile.j_mm_s3).max() <= jerk_limit
    reach = np.maximum(np.abs(profile.a_mm_s2), np.abs(a1)).max()
    assert reach <= accel + 4 * loose_a
    with np.errstate(all="ignore"):
        top = np.where(profile.j_mm_s3 != 0, -profile.a_mm_s2 / profile.j_mm_s3, 0.0)
    top = np.where((top > 0) & (top < dt), top, 0.0)
    v0, a, j = profile.v_mm_s[:-1], profile.a_mm_s2, profile.j_mm_s3
    extreme = v0 + top * (a + 0.5 * j * top)
    own = speed[profile.move]
    assert (np.maximum(np.maximum(v0, v1), extreme) <= own * (1 + 1e-7) + 4 * loose_v).all()
    assert np.minimum(np.minimum(v0, v1), extreme).min() >= -4 * loose_v
    # phases end where moves do
    length = np.linalg.norm(np.diff(points, axis=0), axis=1)
    at = np.concatenate([[0.0], np.cumsum(length)])
    np.testing.assert_allclose(profile.move_s_mm, at, rtol=1e-14)
    at = profile.move_s_mm
    assert np.isin(at, profile.s_mm).all()
    assert (profile.s_mm[:-1] >= at[profile.move]).all()
    assert (profile.s_mm[1:] <= at[profile.move + 1]).all()
    if corner is not None:
        row = np.searchsorted(profile.s_mm, at[1:-1], side="right") - 1
        # where speed is near 0 a rounding of the length is the root of it in speed
        loose = np.sqrt(4 * accel * s_ulp) + 4 * loose_v
        assert (profile.v_mm_s[row] <= corner * (1 + 1e-7) + loose).all()


def small(name):
    """A smaller version of path a, b or c."""
    return {
        "a": lambda: paths.raster(layers=1),
        "b": lambda: paths.wavy_spiral(20_000),
        "c": lambda: paths.random_turns(3000),
    }[name]()


@pytest.mark.parametrize(("name", "most"), [("a", 1.03), ("b", 1.16), ("c", 1.10)])
def test_limits_hold_and_duration_is_near_the_trapezoid(name, most):
    points = small(name)
    speed = np.full(len(points) - 1, 50.0)
    profile = laws.plan_profile(points, speed, limits(), "jerk")
    check(profile, points, speed, limits(), corner_rule(points, 2000.0, 0.01))
    trapezoid = laws.plan_profile(points, speed, limits())
    ratio = profile.duration_s / trapezoid.duration_s
    assert 1.0 < ratio <= most


def test_third_differences_of_length_stay_within_the_jerk_limit():
    points = paths.random_turns(60)
    speed = np.full(60, 50.0)
    profile = laws.plan_profile(points, speed, limits(), "jerk")
    h = 2e-4
    t = np.arange(0.0, profile.duration_s, h)
    i = np.searchsorted(profile.t_s, t, side="right") - 1
    tau = t - profile.t_s[i]
    v, a, j = profile.v_mm_s[i], profile.a_mm_s2[i], profile.j_mm_s3[i]
    s = profile.s_mm[i] + tau * (v + tau * (a / 2 + j * tau / 6))
    third = np.diff(s, 3) / h**3
    # an acceleration that jumps by da at a joint would show as da / h
    assert np.abs(third).max() <= 1.001 * 50_000.0
    assert np.abs(third).max() >= 0.99 * 50_000.0
    assert np.abs(np.diff(s, 2) / h**2).max() <= 1.001 * 2000.0


def test_longest_segment_keeps_the_bent_speed_within_its_share():
    points = paths.random_turns(200)
    profile = laws.plan_profile(points, np.full(200, 40.0), limits(), "jerk")
    bent = profile.j_mm_s3 != 0
    sag = np.abs(profile.j_mm_s3[bent]) * profile.longest_s[bent] ** 2 / 8.0
    assert sag.max() <= 0.0005 * 40.0 * (1 + 1e-12)
    assert np.isinf(profile.longest_s[~bent]).all()


def test_axis_limits_bind_along_each_move():
    points = paths.wavy_spiral(1000)
    speed = np.full(1000, 50.0)
    lim = limits(axis_speed=np.array([20.0, 50, 50]), axis_accel=np.array([2000.0, 300, 500]))
    profile = laws.plan_profile(points, speed, lim, "jerk")
    check(profile, points, speed, lim)
    unit = np.abs(np.diff(points, axis=0))
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    share = unit[profile.move]
    _, _, v1, a1 = pieces(profile)
    a = np.maximum(np.abs(profile.a_mm_s2), np.abs(a1))
    assert (a[:, None] * share <= lim.axis_accel_mm_s2 * (1 + 1e-6)).all()
    assert (v1[:, None] * share <= lim.axis_speed_mm_s * (1 + 1e-6)).all()


HARD = {
    "10 nm moves": line(np.full(300, 1e-5)),
    "10 nm and 10 m moves": line(np.tile([1e-5, 1e4], 20)),
    "collinear run": line(np.full(500, 0.05)),
    "sawtooth of speed limits": line(np.full(200, 0.3), np.tile([0.05, 50.0], 100)),
    "limits that jump a thousandfold": line(np.tile([0.01, 3.0, 0.2], 40), np.tile([50, 0.05], 60)),
    "a long slow ramp up": line(np.full(400, 0.05), np.linspace(1, 50, 400)),
    "a long slow ramp down": line(np.full(400, 0.05), np.linspace(50, 1, 400)),
    "one move": line([10.0]),
}


@pytest.mark.parametrize("jerk_mm_s3", [1.0, 50_000.0, 1e12])
@pytest.mark.parametrize("name", HARD)
def test_hard_inputs_keep_every_limit(name, jerk_mm_s3):
    points, speed = HARD[name]
    lim = limits(jerk_mm_s3=jerk_mm_s3)
    profile = laws.plan_profile(points, speed, lim, "jerk")
    check(profile, points, speed, lim, np.minimum(speed[1:], speed[:-1]))


def test_jerk_without_bound_is_the_trapezoid():
    points = paths.random_turns(500)
    speed = np.full(500, 50.0)
    free = laws.plan_profile(points, speed, limits(jerk_mm_s3=1e12), "jerk")
    trapezoid = laws.plan_profile(points, speed, limits())
    assert free.duration_s == pytest.approx(trapezoid.duration_s, rel=1e-6)


def test_small_jerk_never_reaches_cruise():
    points, speed = line([10.0])
    profile = laws.plan_profile(points, speed, limits(jerk_mm_s3=100.0), "jerk")
    # there and back: v sqrt(v / j) = 5 mm
    assert profile.v_mm_s.max() == pytest.approx((25.0 * 100.0) ** (1 / 3))


def test_reversal_stops_and_zero_moves_take_no_time():
    points = np.array([[0.0, 0, 0], [5, 0, 0], [5, 0, 0], [1, 0, 0], [1, 0, 0]])
    speed = np.full(4, 50.0)
    profile = laws.plan_profile(points, speed, limits(), "jerk")
    turn = np.flatnonzero(profile.s_mm == 5.0)
    assert len(turn) == 1
    assert profile.v_mm_s[turn[0]] < 1e-6
    assert sorted(set(profile.move.tolist())) == [0, 2]
    one = laws.plan_profile(points[[0, 1]], speed[:1], limits(), "jerk")
    two = laws.plan_profile(points[[1, 3]], speed[:1], limits(), "jerk")
    assert profile.duration_s == pytest.approx(one.duration_s + two.duration_s, rel=1e-9)


def test_start_speed_is_kept_or_refused():
    points, speed = line(np.full(20, 0.5))
    profile = jerk(points, speed, limits(), start_mm_s=30.0)
    check(profile, points, speed, limits(), start=30.0)
    with pytest.raises(ValueError, match=r"start speed 45 mm/s cannot be braked in time: 7\.93"):
        jerk(points[:2] * [0.2, 1, 1], speed[:1], limits(), start_mm_s=45.0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"jerk_mm_s3": 0.0}, "jerk_mm_s3 0.0"),
        ({"jerk_mm_s3": np.nan}, "jerk_mm_s3 nan"),
        ({"accel": 0.0}, "accel_mm_s2 0.0"),
        ({"deviation": np.inf}, "junction_deviation_mm inf"),
    ],
)
def test_limits_without_sense_are_refused_by_name(change, text):
    points, speed = line([1.0, 2.0])
    with pytest.raises(PlanError, match="the path cannot be planned: " + text):
        laws.plan_profile(points, speed, limits(**change), "jerk")


def arc_path():
    """A line, a half circle of 3 mm that it meets in its tangent, a line off by 20 degrees."""
    points = np.array([[0.0, 0, 0], [10, 0, 0], [10, 6, 0], [10, 6, 0], [1, 9.276, 0]])
    through = np.full((4, 3), np.nan)
    through[1] = [13.0, 3.0, 0.0]
    return points, through


def test_arcs_are_kept_within_their_centripetal_speed():
    points, through = arc_path()
    speed = np.full(4, 90.0)
    profile = laws.plan_profile(points, speed, limits(), "jerk", through)
    length = 10.0 + np.pi * 3.0 + np.hypot(9.0, 3.276)
    assert profile.s_mm[-1] == pytest.approx(length)
    _, s1, v1, a1 = pieces(profile)
    assert np.abs(s1 - profile.s_mm[1:]).max() < 1e-11
    assert np.abs(v1 - profile.v_mm_s[1:]).max() < 1e-9
    assert np.abs(a1[:-1] - profile.a_mm_s2[1:]).max() < 1e-6
    on = profile.move == 1
    fast = np.maximum(profile.v_mm_s[:-1], profile.v_mm_s[1:])
    assert fast[on].max() == pytest.approx(np.sqrt(2000.0 * 3.0))  # v^2 = a r
    # the longest segments' chords leave the arc by 1 um
    assert ((fast * profile.longest_s)[on] ** 2 / (8.0 * 3.0)).max() <= 1e-3 * (1 + 1e-9)
    assert set(profile.move.tolist()) == {0, 1, 3}
    middle = profile.curve.tip_at(np.array([10.0 + np.pi * 1.5]))
    np.testing.assert_allclose(middle, [[13.0, 3.0, 0.0]], atol=1e-9)


def test_jerk_without_bound_on_arcs_is_the_trapezoid():
    points, through = arc_path()
    speed = np.full(4, 90.0)
    free = laws.plan_profile(points, speed, limits(jerk_mm_s3=1e12), "jerk", through)
    trapezoid = laws.plan_profile(points, speed, limits(), "trapezoid", through)
    assert free.duration_s == pytest.approx(trapezoid.duration_s, rel=1e-6)
    with pytest.raises(PlanError, match="junction_deviation_mm 0"):
        laws.plan_profile(points, speed, limits(deviation=0.0), "jerk", through)


def test_points_that_are_not_finite_are_refused():
    points, speed = line([1.0, 2.0])
    points[1, 1] = np.nan
    with pytest.raises(PlanError, match="index 1: not a finite length"):
        laws.plan_profile(points, speed, limits(), "jerk")


@given(
    lengths=st.lists(st.floats(-5.0, 4.0), min_size=1, max_size=30),
    turns=st.lists(st.floats(-3.15, 3.15), min_size=30, max_size=30),
    speeds=st.lists(st.floats(-1.3, 2.0), min_size=30, max_size=30),
    accel=st.floats(1.0, 4.0),
    jerk_power=st.floats(1.0, 8.0),
)
@settings(max_examples=60, deadline=None)
def test_random_paths_keep_every_limit(lengths, turns, speeds, accel, jerk_power):
    n = len(lengths)
    heading = np.cumsum(turns[:n])
    way = 10.0 ** np.array(lengths)[:, None] * np.column_stack(
        [np.cos(heading), np.sin(heading), np.zeros(n)]
    )
    points = np.concatenate([np.zeros((1, 3)), np.cumsum(way, axis=0)])
    if (np.linalg.norm(np.diff(points, axis=0), axis=1) == 0).any():
        return  # a move lost in rounding; moves of no length have a test of their own
    speed = 10.0 ** np.array(speeds[:n])
    lim = limits(10.0**accel, 10.0**jerk_power)
    profile = laws.plan_profile(points, speed, lim, "jerk")
    corner = np.minimum(speed[1:], speed[:-1])
    check(profile, points, speed, lim, corner)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length_mm", "cruise"),
    [
        (lambda n: np.full(n, 1e-5), lambda n: np.full(n, 50.0)),
        (lambda n: np.full(n, 1.0), lambda n: np.full(n, 50.0)),
        (lambda n: np.full(n, 0.01), lambda n: np.tile([0.05, 50.0], n // 2)),
        (lambda n: np.full(n, 0.001), lambda n: np.linspace(1.0, 200.0, n)),
        (lambda n: np.full(n, 0.001), lambda n: np.linspace(200.0, 1.0, n)),
        (lambda n: np.full(n, 1e-4), lambda n: 1.0 + np.abs(np.arange(n) - n // 2) * 400.0 / n),
    ],
    ids=["tiny", "collinear", "sawtooth", "ramp up", "ramp down", "vee"],
)
def test_time_grows_linearly_up_to_a_million_moves(length_mm, cruise):
    took = {}
    for n in (62_500, 1_000_000):
        points, speed = line(length_mm(n), cruise(n))
        best = np.inf
        for _ in range(3):
            begin = time.process_time()
            laws.plan_profile(points, speed, limits(), "jerk")
            best = min(best, time.process_time() - begin)
        took[n] = best / n
    # quadratic growth would be 16; memory that leaves the caches and a busy machine are not
    assert took[1_000_000] < 6.0 * took[62_500] + 1e-6


def test_time_at_and_state_at_are_inverse_on_jerk_phases():
    profile = laws.plan_profile(paths.random_turns(300), np.full(300, 50.0), limits(), "jerk")
    rng = np.random.default_rng(3)
    s = np.sort(rng.uniform(0.0, profile.s_mm[-1], 5000))
    t = profile.time_at(s)
    assert (np.diff(t) >= 0).all()
    back, v, a = profile.state_at(t)
    np.testing.assert_allclose(back, s, atol=1e-11)
    # speed and acceleration are the slopes of length and speed
    h = 1e-6
    ahead, behind = profile.state_at(t + h), profile.state_at(t - h)
    inside = (t > h) & (t < profile.duration_s - h)
    np.testing.assert_allclose((ahead[0] - behind[0])[inside] / (2 * h), v[inside], atol=1e-4)
    np.testing.assert_allclose((ahead[1] - behind[1])[inside] / (2 * h), a[inside], atol=0.06)
    np.testing.assert_allclose(profile.time_at(profile.s_mm), profile.t_s, atol=1e-5)


@pytest.mark.slow
def test_whole_plan_power_follows_the_planned_speed():
    # decoded from the wire bytes at 10 us against the law at the planned speed of that instant
    made = plan(mode="jerk")
    path = build_path(small_tracks(), RECIPE, CELL, mode="jerk")
    profile = laws.plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(CELL), "jerk")
    dwell_s = made.meta["priming_dwell_s"]
    profile = profile.after_dwell(dwell_s)
    gates = solve_gates(path, profile, CELL.laser)
    wire = Decoded(made.segments.tobytes())
    late = CELL.laser.power_latency_s
    worst, bent = 0.0, 0
    for bead in (0, 3):  # a square contour, a zig-zag with sharp corners
        row = path.beads[bead]
        t = np.arange(gates.on_s[bead] + late + 1e-4, gates.off_s[bead] - late - 1e-4, 1e-5)
        i = np.searchsorted(profile.t_s, t, side="right") - 1
        tau = t - profile.t_s[i]
        v = profile.v_mm_s[i] + tau * (profile.a_mm_s2[i] + 0.5 * profile.j_mm_s3[i] * tau)
        bent += int((profile.j_mm_s3[i] != 0).sum())
        floor, full = row["floor_w"], row["power_w"]
        ideal = floor + (full - floor) * v / row["speed_mm_s"]
        if row["ramp_in_mm"] > 0 or row["ramp_out_mm"] > 0:
            s = profile.state_at(t)[0]
            share = np.minimum(
                (s - gates.s_on_mm[bead]) / max(row["ramp_in_mm"], 1e-9),
                (gates.s_off_mm[bead] - s) / max(row["ramp_out_mm"], 1e-9),
            )
            ideal = floor + (ideal - floor) * np.clip(share, 0.0, 1.0)
        sent = np.array([wire.at((x - late) * 1e6)[2] for x in t.tolist()])
        worst = max(worst, float(np.abs(sent - ideal / CELL.laser.rated_power_w).max()))
    assert bent > 1000
    print(worst, bent)
    assert worst <= 0.001


def test_full_speed_is_reached_when_the_gate_opens():
    path = build_path(small_tracks(), RECIPE, CELL, mode="jerk")
    profile = laws.plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(CELL), "jerk")
    v = profile.state_at(solve_gates(path, profile, CELL.laser).on_s)[1]
    np.testing.assert_allclose(v, path.beads["speed_mm_s"], rtol=1e-9)

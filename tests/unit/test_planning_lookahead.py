"""Streaming look-ahead: streamed = batch bit for bit, and what is committed can stop."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller import _motion
from controller._lookahead import WINDOW_MOVES
from controller.errors import PlanError
from controller.planning.motion import laws, lookahead
from controller.planning.motion.lookahead import LookAhead, joined
from controller.planning.motion.profile import MotionLimits
from tests.unit import klipper_twin
from tests.unit.test_motion_kernel import random_path

LIMITS = MotionLimits(
    2000.0, 50_000.0, 0.01, 0.01, np.array([60.0, 45.0, 20.0]), np.array([2500.0, 1500.0, 400.0])
)


def batch(points, speed, limits=LIMITS, **ends):
    """The whole path at once: (t, s, v, a, move), corners' path lengths."""
    length, v, peak, accel, _ = _motion.plan_trapezoid(
        points, speed, limits.accel_mm_s2, limits.junction_deviation_mm,
        limits.axis_speed_mm_s, limits.axis_accel_mm_s2, **ends,
    )  # fmt: skip
    return _motion.trapezoid_phases(length, v, peak, accel), length


def streamed(points, speed, sizes, limits=LIMITS, **start):
    """The same in pieces of the sizes given, the last one to the end."""
    plan = LookAhead(limits, points[0], **start)
    pieces, at = [], 0
    for size in [*sizes, len(speed)]:
        pieces.append(plan.add(points[1 + at : 1 + at + size], speed[at : at + size]))
        at += size
    pieces.append(plan.finish())
    return joined(pieces), pieces


def same_bits(got, want):
    for k in range(5):
        assert got[k].tobytes() == want[k].tobytes(), got._fields[k]


@st.composite
def paths(draw):
    """Path, speeds and pieces: sharp, gentle, straight, back, none; 10 nm to 10 m."""
    seed = draw(st.integers(0, 2**32 - 1))
    n = draw(st.integers(1, 120))
    rng = np.random.default_rng(seed)
    points = random_path(seed, n)
    kind = draw(st.sampled_from(["plain", "zero", "tiny", "long", "fine"]))
    if kind == "zero":
        points = np.repeat(points, rng.integers(1, 4, len(points)), axis=0)
    elif kind == "tiny":
        points = points * 1e-6
    elif kind == "long":
        points = points * 1e3
    elif kind == "fine":
        angle = np.cumsum(rng.normal(0.0, 0.05, n))
        points[1:] = np.cumsum(
            0.05 * np.stack([np.cos(angle), np.sin(angle), 0.1 * np.sin(3 * angle)], axis=1), axis=0
        )
    if len(points) < 2:
        points = np.concatenate([points, points + 1.0])
    speed = rng.uniform(0.5, 80.0, len(points) - 1)
    sizes = draw(st.lists(st.integers(0, 60), max_size=12))
    return points, speed, sizes


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(paths())
def test_any_division_gives_the_bits_of_the_whole(case):
    points, speed, sizes = case
    want, length = batch(points, speed)
    got, pieces = streamed(points, speed, sizes)
    same_bits(got, want)
    kept = np.flatnonzero(length > 0)
    np.testing.assert_array_equal(got.points_mm, np.concatenate([points[:1], points[kept + 1]]))
    np.testing.assert_array_equal(got.corner_s_mm, np.concatenate([[0.0], np.cumsum(length[kept])]))
    for before, after in itertools.pairwise(pieces):
        assert before.t_s[-1] == after.t_s[0]
        assert before.v_mm_s[-1] == after.v_mm_s[0]
        np.testing.assert_array_equal(before.points_mm[-1], after.points_mm[0])


def braked_at(corner, moves, known):
    """Highest speed at ``corner`` from which a stop within ``known`` moves is possible.

    From the twin's own limits of each move: nothing of the kernel is used.
    """
    v2 = 0.0
    for move in reversed(moves[corner:known]):
        v2 = min(v2 + move.delta_v2, move.start_limit_v2)
    return math.sqrt(v2)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_every_committed_end_can_stop_within_the_path_known(seed, size):
    points = random_path(seed, 150)
    speed = np.random.default_rng(seed).uniform(1.0, 80.0, 150)
    moves = klipper_twin.plan(
        [tuple(p) for p in points], list(speed), 2000.0, 0.01,
        LIMITS.axis_speed_mm_s.tolist(), LIMITS.axis_accel_mm_s2.tolist(),
    )[0]  # fmt: skip
    plan = LookAhead(LIMITS, points[0])
    committed = 0
    for at in range(0, 150, size):
        piece = plan.add(points[1 + at : 1 + at + size], speed[at : at + size])
        committed += len(piece.points_mm) - 1
        known = min(at + size, 150)
        v = float(piece.v_mm_s[-1])
        assert plan.committed[2] == v
        assert committed + plan.pending_moves == known
        assert v <= braked_at(committed, moves, known) * (1 + 1e-6) + 1e-3
    assert committed > 50


def test_straight_run_commits_all_but_the_braking_distance():
    points = np.arange(20_001)[:, None] * np.array([0.01, 0.0, 0.0])
    plan = LookAhead(LIMITS, points[0])
    piece = plan.add(points[1:], np.full(20_000, 50.0))
    # axis x allows 50 mm/s and 2000 mm/s2: 0.625 mm to stop; a queue of 63 moves at least,
    # and an eighth more where a backward pass was not worth while yet
    left_mm = 200.0 - piece.s_mm[-1]
    assert 0.625 - 1e-9 <= left_mm <= 0.625 * 9 / 8 + 0.02
    assert piece.v_mm_s[-1] == 50.0


def test_windows_of_a_layer_are_the_bits_of_the_whole():
    points = random_path(4, 3 * WINDOW_MOVES + 17)
    speed = np.full(len(points) - 1, 50.0)
    want, _ = batch(points, speed)
    plan = LookAhead(LIMITS, points[0])
    pieces = list(plan.stream(points[1:], speed))
    assert len(pieces) == 4
    same_bits(joined([*pieces, plan.finish()]), want)


def test_first_window_is_final_before_the_rest_is_looked_at():
    points = random_path(4, 2 * WINDOW_MOVES)
    points[-1] = np.nan
    stream = LookAhead(LIMITS, points[0]).stream(points[1:], np.full(2 * WINDOW_MOVES, 50.0))
    assert next(stream).size > WINDOW_MOVES // 2
    with pytest.raises(PlanError, match=f"index {2 * WINDOW_MOVES - 1}: not a finite length"):
        next(stream)


def test_queue_longer_than_the_buffers_grows_and_stays_right():
    points = np.arange(40_001)[:, None] * np.array([1e-5, 0.0, 0.0])  # 0.4 mm in moves of 10 nm
    points = np.concatenate([points, points[-1] + [[1.0, 0, 0], [2.0, 0, 0]]])
    speed = np.full(len(points) - 1, 50.0)
    plan = LookAhead(LIMITS, points[0], start_mm_s=30.0)
    pieces = [plan.add(points[1:40_001], speed[:40_000])]
    assert plan.pending_moves > 2 * WINDOW_MOVES
    pieces += [plan.add(points[40_001:], speed[40_000:]), plan.finish()]
    same_bits(joined(pieces), batch(points, speed, start_mm_s=30.0)[0])


def test_memory_does_not_grow_with_the_path():
    points = random_path(2, 30_000)
    plan = LookAhead(LIMITS, points[0])
    held = []
    for at in range(0, 30_000, 1000):
        plan.add(points[1 + at : 1001 + at], np.full(1000, 50.0))
        held.append(plan.buffer_bytes)
    assert held[0] == held[-1]
    assert held[-1] < 2e6


def test_law_at_once_is_what_the_stream_gives():
    points = random_path(6, 500)
    speed = np.full(500, 50.0)
    whole = laws.plan_profile(points, speed, LIMITS)
    got, _ = streamed(points, speed, [7] * 40)
    same_bits(got, (whole.t_s, whole.s_mm, whole.v_mm_s, whole.a_mm_s2, whole.move))
    np.testing.assert_array_equal(got.curve.move_s_mm, whole.curve.move_s_mm)


def test_motion_under_way_is_taken_over_and_brought_to_its_end():
    points = np.array([[0.0, 0, 0], [10, 0, 0], [20, 1, 0], [30, 0, 0]])
    speed = np.full(3, 40.0)
    plan = LookAhead(
        LIMITS, points[0], start_mm_s=35.0, start_t_s=2.5, start_s_mm=100.0, first_move=7
    )
    assert plan.committed == (2.5, 100.0, 35.0)
    piece = joined([plan.add(points[1:], speed), plan.finish(end_mm_s=20.0)])
    want, length = batch(points, speed, start_mm_s=35.0, end_mm_s=20.0)
    assert piece.v_mm_s[0] == 35.0
    assert piece.v_mm_s[-1] == 20.0
    np.testing.assert_allclose(piece.t_s - 2.5, want[0], atol=1e-12)
    np.testing.assert_allclose(piece.s_mm - 100.0, want[1], atol=1e-11)
    np.testing.assert_array_equal(piece.move, want[4] + 7)
    assert plan.committed[1] == pytest.approx(100.0 + length.sum())


def test_start_that_cannot_be_braked_is_refused():
    points = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.1, 5, 0]])
    plan = LookAhead(LIMITS, points[0], start_mm_s=50.0)
    # 0.1 mm before a right angle at 2.41421 * 0.01 * 1500 = 36.2: v^2 = 36.2 + 2 * 2000 * 0.1
    with pytest.raises(PlanError, match=r"start_mm_s 50: .* from 20\.88"):
        plan.add(points[1:], np.full(2, 50.0))


def test_limits_change_from_move_to_move():
    points = np.arange(7)[:, None] * np.array([10.0, 0.0, 0.0])
    speed = np.array([10.0, 40, 5, 50, 20, 50])
    piece, _ = streamed(points, speed, [1, 2, 1])
    tau = 0.5 * np.diff(piece.t_s)
    middle = piece.v_mm_s[:-1] + piece.a_mm_s2 * tau
    assert (np.maximum(piece.v_mm_s[1:], middle) <= speed[piece.move] + 1e-9).all()
    same_bits(piece, batch(points, speed)[0])


@pytest.mark.parametrize(
    ("point", "speed", "said"),
    [
        ([np.nan, 0, 0], 50.0, "index 3: not a finite length"),
        ([np.inf, 0, 0], 50.0, "index 3: not a finite length"),
        ([5.0, 0, 0], 0.0, r"speed_mm_s 0\.0 at index 3"),
        ([5.0, 0, 0], np.nan, "speed_mm_s nan at index 3"),
        ([5.0, 0, 0], np.inf, "speed_mm_s inf at index 3"),
    ],
)
def test_refused_piece_leaves_the_stream_as_it_was(point, speed, said):
    points = random_path(9, 6)
    plan = LookAhead(LIMITS, points[0])
    pieces = [plan.add(points[1:3], np.full(2, 50.0))]
    with pytest.raises(PlanError, match=said):
        plan.add(np.array([[4.0, 0, 0], point]), np.array([50.0, speed]))
    pieces += [plan.add(points[3:], np.full(4, 50.0)), plan.finish()]
    same_bits(joined(pieces), batch(points, np.full(6, 50.0))[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accel_mm_s2": 0.0}, "accel_mm_s2 0.0"),
        ({"junction_deviation_mm": np.nan}, "junction_deviation_mm nan"),
        ({"axis_speed_mm_s": np.array([1.0, 0, 1])}, "axis_speed_mm_s"),
        ({"axis_accel_mm_s2": np.array([1.0, np.inf, 1])}, "axis_accel_mm_s2"),
        ({"axis_accel_mm_s2": np.ones(2)}, "needed"),
    ],
)
def test_limits_of_zero_and_nan_are_refused_by_name(change, said):
    values = LIMITS.__dict__ | change
    with pytest.raises(PlanError, match=said):
        LookAhead(MotionLimits(**values), [0.0, 0, 0])


def test_start_and_ends_are_refused_by_name():
    for start in ({"start_mm_s": -1.0}, {"start_t_s": np.nan}):
        with pytest.raises(PlanError, match="start state"):
            LookAhead(LIMITS, [0.0, 0, 0], **start)
    with pytest.raises(PlanError, match="start_mm"):
        LookAhead(LIMITS, [0.0, np.nan, 0])
    plan = LookAhead(LIMITS, [0.0, 0, 0])
    with pytest.raises(PlanError, match="end speed"):
        plan.finish(end_mm_s=-1.0)
    with pytest.raises(PlanError, match="shape"):
        plan.add(np.zeros((2, 3)), np.ones(3))
    assert plan.add(np.zeros((4, 3)), np.ones(4)).size == 0  # moves of length zero
    assert plan.finish().size == 0
    with pytest.raises(PlanError, match="finished"):
        plan.add(np.ones((1, 3)), np.ones(1))
    with pytest.raises(PlanError, match="finished"):
        plan.finish()
    with pytest.raises(ValueError, match="no pieces"):
        lookahead.joined([])

"""Arcs kept as arcs: geometry by hand, limits by differences, and through a whole plan."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import PlanError
from controller.model import Track, TrackKind
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.arc_text import bead_moves
from controller.planning.path.arcs import Arcs, arc_pieces, move_tangents
from controller.planning.path.motion_path import Role, bead_pieces, build_path
from controller.planning.rest.resume import place_at, resume_plan
from tests.unit import planning_cases as cases
from tests.unit.planning_cases import CELL, RECIPE
from tests.unit.planning_differences import places_of, worst

NONE = [np.nan] * 3
FREE = np.full(3, 1e9)
# straight, half circle of radius 2, straight, half circle back: a racetrack
TRACK = np.array([[0.0, 0, 0], [5, 0, 0], [5, 4, 0], [0, 4, 0], [0, 0, 0]])
THROUGH = np.array([NONE, [7.0, 2, 0], NONE, [-2.0, 2, 0]])


def limits(axis_v=FREE, axis_a=FREE):
    return MotionLimits(2000.0, 50e3, 0.01, 0.02, np.asarray(axis_v), np.asarray(axis_a))


def turned(points, seed):
    """The same in another plane of space."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return points @ q.T + [3.0, -1.0, 2.0]


def test_quarter_and_three_quarters_of_a_circle_by_hand():
    r = np.sqrt(0.5)
    quarter = Arcs.of(np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([[r, r, 0]]))
    np.testing.assert_allclose(quarter.centre_mm, [[0, 0, 0]], atol=1e-15)
    np.testing.assert_allclose(quarter.radius_mm, [1.0])
    np.testing.assert_allclose(quarter.length_mm, [np.pi / 2])
    np.testing.assert_allclose(quarter.tangents()[0], [[0, 1, 0]], atol=1e-15)
    np.testing.assert_allclose(quarter.tangents()[1], [[-1, 0, 0]], atol=1e-15)
    far = Arcs.of(np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([[-r, -r, 0]]))
    np.testing.assert_allclose(far.length_mm, [1.5 * np.pi])
    np.testing.assert_allclose(far.tangents()[0], [[0, -1, 0]], atol=1e-15)
    low, high = far.extent_mm()
    np.testing.assert_allclose(low, [[-1, -1, 0]], atol=1e-15)
    np.testing.assert_allclose(high, [[1, 1, 0]], atol=1e-15)
    np.testing.assert_allclose(quarter.extent_mm()[0], [[0, 0, 0]], atol=1e-15)


point = st.tuples(st.floats(-10, 10), st.floats(-10, 10), st.floats(-10, 10))


@settings(max_examples=150, deadline=None)
@given(a=point, m=point, b=point)
def test_any_arc_goes_through_its_three_points_and_its_extent_holds_it(a, m, b):
    a, m, b = np.array(a), np.array(m), np.array(b)
    d = [np.linalg.norm(x - y) for x, y in ((a, m), (m, b), (a, b))]
    if min(d) < 1e-2 or np.linalg.norm(np.cross(m - a, b - a)) < 1e-2 * max(d) ** 2:
        return
    arcs = Arcs.of(np.array([a, b]), m[None])
    t = np.linspace(0.0, arcs.angle[0], 2001)
    at = arcs.place(np.zeros(2001, dtype=int), t)
    np.testing.assert_allclose(at[0], a, atol=1e-8)
    np.testing.assert_allclose(at[-1], b, atol=1e-8)
    step = arcs.length_mm[0] / 2000
    assert np.linalg.norm(at - m, axis=1).min() <= step
    assert np.linalg.norm(np.diff(at, axis=0), axis=1).sum() == pytest.approx(
        arcs.length_mm[0], rel=1e-5
    )
    low, high = arcs.extent_mm()
    np.testing.assert_allclose(at.min(axis=0), low[0], atol=step)
    np.testing.assert_allclose(at.max(axis=0), high[0], atol=step)
    assert (at >= low - 1e-9).all()
    assert (at <= high + 1e-9).all()


def test_middle_point_on_the_chord_is_a_straight_move():
    assert len(Arcs.of(np.array([[0.0, 0, 0], [4, 0, 0]]), np.array([[1.0, 0, 0]])).move) == 0
    assert len(Arcs.of(np.array([[0.0, 0, 0], [4, 0, 0]]), np.array([[2.0, 1e-9, 0]])).move) == 0


@pytest.mark.parametrize(("through", "text"), [
    ([9.0, 0, 0], "on the chord's line outside it"),
    ([1.0, np.inf, 0], "is not finite"),
    ([1.0, np.nan, 0], "is not finite"),
])  # fmt: skip
def test_impossible_middle_points_are_refused_by_index(through, text):
    points = np.array([[0.0, 0, 0], [0, 1, 0], [4, 1, 0]])
    rows = np.array([NONE, np.array(through) + [0, 1, 0]])
    for mode in ("friction_circle", "trapezoid"):
        with pytest.raises(PlanError, match=f"through_mm .* at index 1: {text}"):
            plan_profile(points, np.full(2, 50.0), limits(), mode, rows)


def test_closed_arc_in_one_move_and_wrong_shape_are_refused():
    points = np.array([[0.0, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="ends where it starts"):
        Arcs.of(points, np.array([[2.0, 0, 0]]))
    with pytest.raises(ValueError, match=r"through_mm has shape \(2, 3\), needed \(1, 3\)"):
        Arcs.of(points, np.zeros((2, 3)))


@pytest.mark.parametrize("mode", ["friction_circle", "trapezoid"])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_racetrack_obeys_every_limit_by_differences(mode, seed):
    points, through = TRACK, THROUGH
    axis_v, axis_a = FREE, FREE
    if seed is not None:
        points, through = turned(points, seed), turned(through, seed)
        axis_v, axis_a = np.array([40.0, 30.0, 20.0]), np.array([1500.0, 1200.0, 800.0])
    profile = plan_profile(points, np.full(4, 80.0), limits(axis_v, axis_a), mode, through)
    assert profile.move_s_mm[-1] == pytest.approx(10.0 + 4.0 * np.pi)
    v, a, v_axis, a_axis = worst(profile, 1e-5)
    assert (v_axis <= axis_v * 1.001).all()
    assert (a_axis <= axis_a * 1.001).all()
    if mode == "friction_circle":
        assert a <= 2000.0 * 1.001
    else:  # the trapezoid law bounds tangential and centripetal acceleration each
        assert a <= 2000.0 * np.sqrt(2.0) * 1.001
    t = np.linspace(0.0, profile.duration_s, 3000)
    places = places_of(profile, t)
    if seed is None:
        assert v == pytest.approx(80.0)
        on_arc = np.flatnonzero(places[:, 0] > 5.0)[1:-1]
        v_arc = np.linalg.norm(np.diff(places[on_arc], axis=0), axis=1) / (t[1] - t[0])
        assert v_arc.max() == pytest.approx(np.sqrt(2000.0 * 2.0), rel=1e-3)  # v^2 / r = a
        # distance from the racetrack, worked out by hand
        x, y = places[:, 0], places[:, 1]
        straight = np.minimum(np.abs(y), np.abs(y - 4.0))
        centre_x = np.where(x > 5.0, 5.0, 0.0)
        off = np.where((x >= 0) & (x <= 5), straight, np.abs(np.hypot(x - centre_x, y - 2) - 2))
        assert off.max() < 1e-9
    assert profile.longest_s[profile.move == 1].max() < 0.02
    if mode == "trapezoid":
        assert np.isinf(profile.longest_s[profile.move == 0]).all()


def test_arcs_cost_hardly_more_time_than_the_same_circle_in_fine_chords():
    angle = np.arange(0.0, np.pi + 1e-9, np.pi / 400)
    half = np.stack([5 + 2 * np.sin(angle), 2 - 2 * np.cos(angle), 0 * angle], axis=1)
    chords = np.concatenate([[[-8.0, 0, 0]], half, [[-8.0, 4, 0]]])
    arc = np.array([[-8.0, 0, 0], [5, 0, 0], [5, 4, 0], [-8, 4, 0]])
    through = np.array([NONE, [7.0, 2, 0], NONE])
    fine = plan_profile(chords, np.full(len(chords) - 1, 50.0), limits(), "friction_circle")
    kept = plan_profile(arc, np.full(3, 50.0), limits(), "friction_circle", through)
    assert kept.duration_s == pytest.approx(fine.duration_s, rel=2e-3)


def test_corner_that_is_no_tangent_stops_and_a_kink_of_a_rounded_file_does_not():
    points = np.array([[0.0, 0, 0], [5, 0, 0], [5, 4, 0], [9, 4, 0]])
    through = np.array([NONE, [7.0, 2, 0], NONE])
    profile = plan_profile(points, np.full(3, 50.0), limits(), "friction_circle", through)
    _, v, _ = profile.state_at(profile.time_at(profile.move_s_mm[1:3]))
    assert v[0] > 40.0  # tangent
    assert v[1] == pytest.approx(0.0, abs=1e-3)  # the arc ends towards -x, the line goes to +x
    bent = points[:3] + [[0.0, 0.004, 0], [0, 0, 0], [0, 0, 0]]  # 0.8 mrad
    profile = plan_profile(bent, np.full(2, 50.0), limits(), "friction_circle", through[:2])
    assert profile.state_at(profile.time_at(profile.move_s_mm[1:2]))[1][0] > 40.0


def test_moves_without_length_beside_arcs_keep_the_count_of_moves():
    points = np.repeat(TRACK, 2, axis=0)
    through = np.full((9, 3), np.nan)
    through[1::2] = THROUGH
    for mode in ("friction_circle", "trapezoid"):
        want = plan_profile(TRACK, np.full(4, 50.0), limits(), mode, THROUGH)
        got = plan_profile(points, np.full(9, 50.0), limits(), mode, through)
        assert got.duration_s == pytest.approx(want.duration_s, rel=1e-12)
        np.testing.assert_allclose(got.move_s_mm[1::2], want.move_s_mm)
        assert set(got.move.tolist()) == {1, 3, 5, 7}
        at = got.curve.tip_at(got.move_s_mm)
        np.testing.assert_allclose(at, points, atol=1e-9)


def test_track_with_arcs_keeps_them_with_run_up_along_the_tangent():
    z = cases.TOP_MM + 0.55
    points = np.array([[150.0, 148, z], [153, 151, z], [153, 155, z]])
    r = 3.0 * np.sqrt(0.5)
    through = np.array([[150 + r, 151 - r, z], NONE])  # quarter about (150, 151)
    path = build_path([Track(0, TrackKind.CONTOUR, points, through)], cases.RECIPE, cases.CELL)
    emit = np.flatnonzero(path.role == Role.EMIT)
    np.testing.assert_array_equal(path.through_mm[emit], through)
    assert np.isnan(path.through_mm[path.role != Role.EMIT]).all()
    start = path.points_mm[path.beads["run_up_move"][0]]
    np.testing.assert_allclose(start[1:], [148.0, z], atol=1e-9)  # from -x: the tangent there
    assert start[0] < 150.0
    plain = build_path([cases.track([(150, 148), (153, 148)])], cases.RECIPE, cases.CELL)
    assert plain.through_mm is None


def test_pieces_drop_repeats_and_are_cut_where_tangents_reverse():
    z = cases.TOP_MM
    points = np.array([[0.0, 0, z], [0, 0, z], [2, 0, z], [2, 2, z], [4, 2, z]])
    through = np.array([NONE, NONE, [3.0, 1, z], NONE])
    # the arc ends towards -x, the next line goes to +x: a reversal
    pieces = bead_pieces(Track(0, TrackKind.CONTOUR, points, through), "track 0")
    assert [len(p.points_mm) for p in pieces] == [3, 2]
    np.testing.assert_allclose(pieces[0].last, [-1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(pieces[1].first, [1, 0, 0], atol=1e-12)
    with pytest.raises(PlanError, match="track 0: through_mm of shape"):
        arc_pieces(points, through[:2], "track 0", 1e-7, -0.999)
    with pytest.raises(PlanError, match=r"track 0: through_mm .* at index 0: is not finite"):
        arc_pieces(points[1:3], np.array([[np.inf, 0, 0]]), "track 0", 1e-7, -0.999)


def test_soft_limits_look_at_the_arc_and_not_only_at_its_ends():
    high = cases.CELL.motion.axes[0].range_mm[1]
    z = cases.TOP_MM + 0.55
    # ends 12 mm inside the range; the arc's side is 8 mm outside it
    points = np.array([[high - 12.0, 140, z], [high - 12.0, 180, z]])
    through = np.array([[high + 8.0, 160, z]])
    with pytest.raises(PlanError, match=r"axis X: bead to .*, outside"):
        build_path([Track(0, TrackKind.CONTOUR, points, through)], cases.RECIPE, cases.CELL)
    build_path([Track(0, TrackKind.CONTOUR, points)], cases.RECIPE, cases.CELL)


@pytest.mark.parametrize("mode", ["friction_circle", "trapezoid"])
def test_wire_follows_the_arc_within_a_step(mode):
    z = cases.TOP_MM + 0.55
    points = np.array([[150.0, 148, z], [153, 148, z], [153, 154, z], [150, 154, z]])
    through = np.array([NONE, [156.0, 151, z], NONE])
    plan = cases.plan([Track(0, TrackKind.CONTOUR, points, through)], mode=mode)
    wire = cases.Decoded(plan.segments.tobytes())
    (on, off), = wire.gate_edges_us()  # fmt: skip
    axes = cases.CELL.motion.axes[:3]
    per_mm = np.array([a.steps_per_mm for a in axes])
    home = np.array([a.range_mm[0] for a in axes])
    at = np.array([wire.at(t)[0][:3] for t in range(on, off, 2000)]) / per_mm + home
    right = at[:, 0] > 153.0
    assert right.sum() > 50
    off_arc = np.abs(np.hypot(at[right, 0] - 153.0, at[right, 1] - 151.0) - 3.0)
    # half a step in each axis at both ends of a segment, and the chord's 1 um
    assert off_arc.max() <= 1.0 / per_mm.min() + 1e-3


def test_lengths_and_tangents_of_moves():
    length, first, last = move_tangents(TRACK, Arcs.of(TRACK, THROUGH))
    np.testing.assert_allclose(length, [5, 2 * np.pi, 5, 2 * np.pi])
    np.testing.assert_allclose(first[1], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(last[1], [-1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(first[2], last[2])


def arc_bead():
    """A line, three quarters of a circle of 5 mm about (150, 150), and a line out of it."""
    root = math.sqrt(0.5) * 5.0
    z = cases.TOP_MM + 0.55
    points = np.array([[148.0, 145, z], [150, 145, z], [145, 150, z], [145, 142, z]])
    through = np.full((3, 3), np.nan)
    through[1] = [150 + root, 150 + root, z]
    return Track(0, TrackKind.HATCH, points, through)


@pytest.mark.parametrize("law", ["trapezoid", "friction_circle", "jerk"])
def test_points_of_a_planned_bead_follow_its_arc(law):
    made = cases.plan([arc_bead(), cases.track([(140, 160), (150, 160)])], mode=law)
    row = made.tracks[0]
    points = made.path_mm[row["first_point"] : row["first_point"] + row["n_points"]]
    way = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert way.sum() == pytest.approx(2.0 + 7.5 * math.pi + 8.0, abs=0.01)
    assert row["length_mm"] == pytest.approx(way.sum(), abs=0.02)
    middle = 0.5 * (points[1:-2] + points[2:-1])[:, :2] - 150.0
    assert np.abs(np.hypot(*middle.T) - 5.0).max() < 0.0021
    last = made.path_mm[made.tracks[1]["first_point"] :]
    np.testing.assert_array_equal(last[:, :2], [[140, 160], [150, 160]])


@pytest.mark.parametrize("law", ["trapezoid", "friction_circle", "jerk"])
@pytest.mark.parametrize("laid_mm", [4.0, 14.0, 26.5, 30.0])
def test_rest_of_an_arc_bead_keeps_to_the_circle_and_its_points_begin_where_the_gate_opens(
    law, laid_mm
):
    made = cases.plan([arc_bead(), cases.track([(140, 160), (150, 160)])], mode=law)
    here = np.array([56_800, 58_400, 4_300, 0, 0, 0])
    at = place_at(made, 0, laid_mm)
    head, rest = resume_plan(made, at, here, CELL, RECIPE, remelt=False)
    wire = cases.Decoded(rest.segments.tobytes(), tuple(int(v) for v in here))
    (on_us, off_us), _ = wire.gate_edges_us()
    places = np.array([wire.at(t)[0][:2] for t in np.linspace(on_us, off_us, 400)]) / 400.0
    off = np.minimum(
        np.abs(np.hypot(*(places - 150.0).T) - 5.0),
        np.minimum(np.abs(places[:, 1] - 145.0), np.abs(places[:, 0] - 145.0)),
    )
    assert off.max() < 0.02
    row = rest.tracks[0]
    points = rest.path_mm[row["first_point"] : row["first_point"] + row["n_points"]]
    assert np.abs(points[0, :2] - places[0]).max() < 0.02
    assert np.abs(points[-1, :2] - [145, 142]).max() == 0.0
    assert head.overlap_mm >= 2.0 or row["length_mm"] == made.tracks[0]["length_mm"]
    left = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    assert left == pytest.approx(row["length_mm"], abs=0.03)
    # the arcs of the job's text are those of what is left
    (ends, through), (other, straight) = bead_moves(rest)
    np.testing.assert_array_equal(other[:, :2], [[140, 160], [150, 160]])
    assert straight is None or np.isnan(straight).all()
    arcs = Arcs.of(ends, through)
    assert len(arcs.move) == (1 if left > 8.1 else 0)
    np.testing.assert_allclose(arcs.radius_mm, 5.0, atol=1e-6)
    np.testing.assert_allclose(arcs.centre_mm[:, :2], 150.0, atol=1e-6)

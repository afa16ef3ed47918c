"""The path: run-ups, lifts, soft limits, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from controller.errors import PlanError
from controller.planning.path.motion_path import Role, build_path, run_up_mm
from tests.unit.planning_cases import CELL, RECIPE, cell_with, small_tracks, track


def test_path_starts_at_home_and_ends_lifted():
    path = build_path(small_tracks(), RECIPE, CELL)
    np.testing.assert_array_equal(path.points_mm[0], [0.0, 0.0, 0.0])
    assert path.points_mm[-1, 2] == pytest.approx(10.0 + 2 * 0.55 + 2.0)
    assert path.role[-1] == Role.TRAVEL


def test_way_from_home_is_above_the_plate():
    path = build_path(small_tracks(), RECIPE, CELL)
    above_plate = path.points_mm[1:3]
    assert (above_plate[:, 2] >= 10.0 + 2.0).all()
    np.testing.assert_array_equal(above_plate[0, :2], [0.0, 0.0])


def test_travel_within_a_layer_stays_at_its_height_and_lifts_between_layers():
    path = build_path(small_tracks(), RECIPE, CELL)
    first_layer_end = path.beads["end_move"][3] + 1
    inside = path.points_mm[path.beads["run_up_move"][0] : first_layer_end + 1, 2]
    np.testing.assert_allclose(inside, 10.55)
    between = path.points_mm[first_layer_end : path.beads["run_up_move"][4] + 1, 2]
    assert between.max() == pytest.approx(11.1 + 2.0)


def test_run_up_and_overrun_are_straight_and_long_enough_for_full_speed():
    path = build_path(small_tracks(), RECIPE, CELL)
    a = 0.8 * 2000.0
    for bead in path.beads:
        first, end = bead["first_move"], bead["end_move"]
        into = path.points_mm[first] - path.points_mm[first - 1]
        along = path.points_mm[first + 1] - path.points_mm[first]
        away = path.points_mm[end + 1] - path.points_mm[end]
        last = path.points_mm[end] - path.points_mm[end - 1]
        v = bead["speed_mm_s"]
        for extra, own in ((into, along), (away, last)):
            assert np.linalg.norm(np.cross(extra, own)) < 1e-9
            assert extra @ own > 0
            # v^2 / 2a, and 5 ms of the source: 3 ms latency and 2 ms jitter
            assert np.linalg.norm(extra) >= v * v / (2 * a) + v * 0.005


def test_run_up_grows_with_a_slow_axis():
    up = run_up_mm(np.array([0.0, 0.0, 1.0]), 10.0, CELL)
    assert up == pytest.approx(100 / (2 * 400.0) + 10.0 * 0.005 + 0.01)


def test_reversal_inside_a_track_becomes_two_beads():
    path = build_path([track([(140, 145), (150, 145), (140, 145)])], RECIPE, CELL)
    assert len(path.beads) == 2


def test_repeated_points_are_dropped_and_slow_creep_is_not():
    path = build_path([track([(140, 145), (140, 145), (141, 145), (141, 145)])], RECIPE, CELL)
    assert path.beads["end_move"][0] - path.beads["first_move"][0] == 1
    creep = np.column_stack([140 + np.arange(30) * 0.9e-7, np.full(30, 145.0)])
    path = build_path([track(creep)], RECIPE, CELL)
    assert path.points_mm[path.beads["end_move"][0], 0] == pytest.approx(creep[-1, 0], abs=1e-7)


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ([(140, 145), (np.nan, 145)], "point 1 .*not finite"),
        ([(140, 145), (np.inf, 145)], "not finite"),
        ([(140, 145), (140, 145)], "no length"),
        ([(140, 145)], "no length"),
        ([(-5, 145), (20, 145)], r"axis X: .*outside 0 to 300 mm"),
        ([(140, 145), (140, 300)], r"axis Y: overrun to 300.* outside 0 to 300 mm"),
    ],
)
def test_bad_tracks_are_refused_in_one_sentence(points, text):
    with pytest.raises(PlanError, match=text):
        build_path([track(points)], RECIPE, CELL)


def test_lift_above_the_z_axis_is_refused():
    low = cell_with(('range = ["0 mm", "250 mm"]', 'range = ["0 mm", "12 mm"]'))
    with pytest.raises(PlanError, match=r"axis Z: travel to 13\.100 mm, outside 0 to 12 mm"):
        build_path(small_tracks(), RECIPE, low)


def test_no_tracks_wrong_order_and_tool_axes_without_a_table_are_refused():
    with pytest.raises(PlanError, match="no tracks"):
        build_path([], RECIPE, CELL)
    with pytest.raises(PlanError, match="not in order"):
        build_path(list(reversed(small_tracks())), RECIPE, CELL)
    flat = small_tracks()[0]
    tilted = replace(flat, tool_axis=np.tile([0.0, 0.6, 0.8], (len(flat.points_mm), 1)))
    with pytest.raises(PlanError, match="track 0 of layer 0: a tool axis, and cell 'sim' has no"):
        build_path([tilted], RECIPE, CELL)

"""Rounded corners: tangents, tolerance and path length, by places and distances alone."""

import numpy as np
import pytest

from benchmarks.paths import wavy_spiral
from controller.planning.path.rounding import round_path
from tests.unit.planning_differences import distance_to_polyline
from tests.unit.test_motion_kernel import random_path


def sampled(curve, count=4000):
    s = np.linspace(0.0, curve.move_s_mm[-1], count)
    return s, curve.tip_at(s)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tolerance", [0.002, 0.02])
def test_no_place_leaves_the_moves_by_more_than_the_tolerance(seed, tolerance):
    points = random_path(seed, 80)
    curve = round_path(points, tolerance).curve
    _, at = sampled(curve)
    assert distance_to_polyline(at, points).max() <= tolerance
    # and no corner of the path is further from the curve
    middles = curve.tip_at(curve.move_s_mm)
    away = np.linalg.norm(middles - points, axis=1)
    assert away.max() <= tolerance * (1 + 1e-9)
    assert away.max() == pytest.approx(curve.deviation_mm, rel=1e-6)
    assert curve.deviation_mm >= 0.5 * tolerance


@pytest.mark.parametrize("seed", range(5))
def test_path_length_is_length_travelled_and_the_tangent_has_no_jump(seed):
    points = random_path(seed, 60)
    path = round_path(points, 0.02)
    curve = path.curve
    # around every end of every arc: steps of a thousandth of the arc, in units of themselves
    radius, half, _ = path.rounding
    for i in np.flatnonzero((half > 1e-5) & (radius < 1e3)):
        for end in (-half[i], half[i]):
            h = 1e-3 * half[i]
            s = curve.corner_s_mm[i] + end + h * np.arange(-2, 3)
            at = curve.tip_at(s)
            unit = np.diff(at, axis=0) / h
            # rounding of places of 10 mm, in units of the step
            noise = 1e-13 * np.abs(at).max() / h
            near = radius[i - 1 : i + 2]  # where arcs touch each other, the next one counts too
            turn = h / near[near > 0.0].min()
            assert np.abs(np.linalg.norm(unit, axis=1) - 1.0).max() < 1e-5 + noise
            assert np.linalg.norm(np.diff(unit, axis=0), axis=1).max() < 1.1 * turn + noise


def test_ends_are_the_paths_own_and_corners_are_grid_points():
    points = random_path(1, 50)
    curve = round_path(points, 0.02).curve
    at = curve.tip_at(curve.move_s_mm[[0, -1]])
    np.testing.assert_allclose(at, points[[0, -1]], atol=1e-9)
    np.testing.assert_allclose(curve.axes_at(curve.move_s_mm), curve.tip_at(curve.move_s_mm))
    assert (np.diff(curve.move_s_mm) > 0.0).all()


def test_chords_of_a_curve_give_back_its_curvature():
    points = wavy_spiral(2000)
    path = round_path(points, 0.02)
    a, b, c = points[:-2], points[1:-1], points[2:]
    # radius of the circle through three points: product of sides over four times the area
    sides = [np.linalg.norm(x - y, axis=1) for x, y in ((a, b), (b, c), (a, c))]
    area4 = 2.0 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    through = sides[0] * sides[1] * sides[2] / np.maximum(area4, 1e-12)
    bent = through < 5.0
    ratio = path.rounding[0][1:-1][bent] / through[bent]
    assert bent.sum() > 500
    assert np.abs(ratio - 1.0).max() < 0.01


def test_moves_without_length_are_passed_over():
    points = np.array([[0.0, 0, 0], [0, 0, 0], [5, 0, 0], [5, 0, 0], [5, 5, 0], [5, 5, 0]])
    path = round_path(points, 0.02)
    assert path.move.tolist() == [1, 3]
    s = path.curve.move_s_mm
    assert s[0] == s[1] == 0.0
    assert s[2] == s[3]
    assert s[4] == s[5] == s[-1]


def test_unsorted_lengths_are_refused():
    curve = round_path(random_path(0, 10), 0.02).curve
    with pytest.raises(ValueError, match="s_mm is not sorted"):
        curve.tip_at(np.array([1.0, 0.5]))

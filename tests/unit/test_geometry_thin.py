"""Mid lines of thin areas: in the middle, of the right length, with forks and rings."""

import math

import numpy as np
import pytest
import shapely
import shapely.geometry as sg

from controller.geometry import _slice, make_tracks
from controller.geometry.polygons import length, region_rings
from controller.geometry.thin import fill_polygon, mid_lines, resample, triangulate
from controller.model import TrackKind
from tests.unit.geometry_parts import lines_of, recipe, to_layers

WIDTH = 1.6


def middle(shape):
    (region,) = to_layers(shape, 1)[0].regions
    return mid_lines(region, WIDTH, region_rings(region))


@pytest.mark.parametrize("thickness", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_straight_wall_gets_its_middle_up_to_half_a_bead_before_its_ends(thickness, angle):
    shape = shapely.affinity.rotate(sg.box(0, 0, 30, thickness), angle, origin=(0, 0))
    (line,) = middle(shape)
    true = shapely.affinity.rotate(
        sg.LineString([(0.8, thickness / 2), (29.2, thickness / 2)]), angle, origin=(0, 0)
    )
    drawn = sg.LineString(line)
    assert drawn.hausdorff_distance(true) < 0.12
    assert drawn.length == pytest.approx(true.length, abs=0.2)


def test_tube_gets_one_closed_line():
    shape = sg.Point(0, 0).buffer(10, 64).difference(sg.Point(0, 0).buffer(8.6, 64))
    (line,) = middle(shape)
    assert (line[0] == line[-1]).all()
    radius = np.linalg.norm(line, axis=1)
    assert np.abs(radius - 9.3).max() < 0.05
    assert length(line) == pytest.approx(2 * math.pi * 9.3, rel=0.01)


def test_fork_of_three_walls_gets_two_lines_that_meet():
    lines = [sg.LineString(m) for m in middle(sg.box(0, 0, 30, 1.4).union(sg.box(14, 0, 15.4, 20)))]
    assert len(lines) == 2
    assert lines[0].distance(lines[1]) < 1e-9
    assert sum(m.length for m in lines) == pytest.approx(28.4 + 18.5, abs=1.0)


def test_lattice_is_covered_and_nothing_lies_far_outside():
    walls = [sg.box(0, i * 8 - 0.7, 24, i * 8 + 0.7) for i in range(4)]
    walls += [sg.box(i * 8 - 0.7, 0, i * 8 + 0.7, 24) for i in range(4)]
    shape = shapely.union_all(walls)
    tracks = make_tracks(to_layers(shape, 1), recipe(0.0, 0.0))
    assert {t.kind for t in tracks} == {TrackKind.THIN_WALL}
    beads = shapely.union_all([line.buffer(WIDTH / 2) for line in lines_of(tracks)])
    assert shape.difference(beads).area < 0.02 * shape.area
    assert beads.difference(shape.buffer(0.35)).area < 0.01 * shape.area


def test_fin_on_a_block_runs_up_to_the_block():
    shape = sg.box(0, 0, 15, 15).union(sg.box(15, 7, 30, 8.4))
    tracks = make_tracks(to_layers(shape, 1), recipe(0.0, 0.0))
    (fin,) = [t for t in tracks if t.kind == TrackKind.THIN_WALL]
    assert fin.points_mm[:, 0].max() == pytest.approx(29.2, abs=0.1)
    beads = shapely.union_all([line.buffer(WIDTH / 2) for line in lines_of(tracks)])
    assert shape.difference(beads).area < 0.006 * shape.area


def test_wedge_s_bead_stops_where_the_wall_is_half_a_bead_thick():
    shape = sg.Polygon([(0, 0), (40, 0), (0, 3)])
    tracks = make_tracks(to_layers(shape, 1), recipe(0.0, 0.0))
    tip = max(t.points_mm[:, 0].max() for t in tracks if t.kind == TrackKind.THIN_WALL)
    assert 3 * (1 - tip / 40) == pytest.approx(WIDTH / 2, abs=0.2)


def test_a_pin_thinner_than_a_bead_is_not_lost():
    tracks = make_tracks(to_layers(sg.Point(5, 5).buffer(0.7), 3), recipe(0.0, 0.0))
    assert [t.layer for t in tracks] == [0, 1, 2]
    assert {t.kind for t in tracks} == {TrackKind.THIN_WALL}


@pytest.mark.parametrize("seed", range(6))
def test_triangles_fill_the_area_once(seed):
    random = np.random.default_rng(seed)
    a = np.sort(random.uniform(0, 2 * math.pi, 30))
    r = random.uniform(6, 10, 30)
    shape = sg.Polygon(np.column_stack([r * np.cos(a), r * np.sin(a)])).buffer(0.01)
    for x, y in ((2, 0), (-2, 1), (0, -2.5)):
        shape = shape.difference(sg.Point(x, y).buffer(0.9, 4))
    (region,) = to_layers(shape, 1)[0].regions
    rings = region_rings(region)
    points = np.vstack(rings)
    faces = fill_polygon(rings)
    pieces = shapely.polygons(points[faces])
    assert shapely.area(pieces).sum() == pytest.approx(shape.area, rel=1e-9), f"seed {seed}"
    assert shapely.union_all(pieces).symmetric_difference(shape).area < 1e-6


def test_flips_end_in_a_constrained_delaunay_triangulation():
    shape = sg.box(0, 0, 12, 3).difference(sg.box(3, 1, 9, 2))
    (region,) = to_layers(shape, 1)[0].regions
    points, faces, neighbours = triangulate(region, 0.4)
    assert shapely.area(shapely.polygons(points[faces])).sum() == pytest.approx(shape.area)
    checked = 0
    for t, row in enumerate(neighbours):
        for j, u in enumerate(row):
            if u < 0:
                continue
            a, b, c = (points[faces[t, (j + k) % 3]] for k in range(3))
            k = neighbours[u].tolist().index(t)
            d = points[faces[u, (k + 2) % 3]]
            # angles opposite an inner edge add up to at most a half turn
            opposite = [
                math.acos(np.clip((p - q) @ (r - q) / np.linalg.norm(p - q)
                                  / np.linalg.norm(r - q), -1, 1))
                for p, q, r in ((a, c, b), (a, d, b))
            ]  # fmt: skip
            assert sum(opposite) <= math.pi + 1e-6
            checked += 1
    assert checked > 50


def test_resampling_keeps_corners_and_limits_steps():
    ring = np.array([[0.0, 0], [10, 0], [10, 1], [0, 1]])
    fine = resample(ring, 0.4)
    assert all(any((p == q).all() for q in fine) for p in ring)
    steps = np.linalg.norm(np.roll(fine, -1, 0) - fine, axis=1)
    assert steps.max() <= 0.4 + 1e-12


def test_simplified_lines_stay_within_their_tolerance():
    a = np.linspace(0, 2 * math.pi, 500, endpoint=False)
    ring = np.column_stack([10 * np.cos(a), 10 * np.sin(a)])
    plain = _slice.simplify_ring(ring, 0.01, True)
    assert len(plain) < 120
    assert sg.LinearRing(ring).hausdorff_distance(sg.LinearRing(plain)) <= 0.0101
    line = _slice.simplify_ring(ring, 0.01, False)
    assert (line[0] == ring[0]).all()
    assert (line[-1] == ring[-1]).all()

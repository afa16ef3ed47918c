"""Tracks: deposited volume, nothing outside, cover, order, links; shapely is the judge."""

import math
from itertools import pairwise

import numpy as np
import pytest
import shapely
import shapely.geometry as sg

from controller.geometry import (
    _raster,
    bead_area_mm2,
    coverage_notes,
    load_part,
    make_tracks,
    part_figures,
    place_part,
    slice_part,
)
from controller.geometry.beads import Strips
from controller.geometry.polygons import length, pack
from controller.model import Track, TrackKind
from tests.unit.geometry_parts import (
    ball,
    box,
    join,
    lines_of,
    part,
    recipe,
    shared_part,
    sim_cell,
    to_layers,
    to_shape,
    tube_shell,
)

WIDTH = 1.6

SHAPES = {
    "square": sg.box(0, 0, 20, 20),
    "wall of 2.2 mm": sg.box(0, 0, 40, 2.2),
    "wall of 3.1 mm, askew": shapely.affinity.rotate(sg.box(0, 0, 40, 3.1), 37),
    "wall of 4.2 mm": sg.box(0, 0, 40, 4.2),
    "disc": sg.Point(3, 4).buffer(9),
    "ring": sg.Point(0, 0).buffer(9).difference(sg.Point(0, 0).buffer(5)),
    "frame": sg.box(0, 0, 30, 20).difference(sg.box(6, 5, 22, 16)),
    "two islands": sg.box(0, 0, 8, 8).union(sg.box(12, 0, 24, 5)),
    "star": sg.Polygon(
        [
            ((14 if k % 2 else 7) * math.cos(k * math.pi / 5),
             (14 if k % 2 else 7) * math.sin(k * math.pi / 5))
            for k in range(10)
        ]
    ),
}  # fmt: skip


def deposit(tracks, with_recipe):
    return sum(length(t.points_mm) * bead_area_mm2(with_recipe, t.kind, t.layer) for t in tracks)


@pytest.mark.parametrize("contours", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_deposit_fills_the_section_within_a_percent(shape, contours):
    r = recipe(xy=0.0, z=0.0, contours=contours)
    layers = to_layers(shape, 20)
    tracks = make_tracks(layers, r)
    assert deposit(tracks, r) == pytest.approx(20 * 0.55 * shape.area, rel=0.012)


@pytest.mark.parametrize("step", [90.0, 67.0, 45.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_nothing_is_drawn_outside_and_the_section_is_covered(shape, step):
    r = recipe(xy=0.0, z=0.0, step=step)
    layers = to_layers(shape, 7)
    tracks = make_tracks(layers, r)
    inside = shape.buffer(-WIDTH / 2 + 0.01)  # 5 µm of plain lines, 2 µm of arcs
    for layer in layers:
        lines = lines_of([t for t in tracks if t.kind != TrackKind.THIN_WALL], layer.index)
        assert lines
        assert max(line.difference(inside).length for line in lines) < 1e-3
        beads = shapely.union_all(
            [line.buffer(WIDTH / 2) for line in lines_of(tracks, layer.index)]
        )
        bare = shape.difference(beads)
        # round beads leave the corners; the rest of the section is under a bead
        corners = shape.difference(shape.buffer(-WIDTH / 2).buffer(WIDTH / 2 + 0.01))
        assert bare.difference(corners.buffer(0.02)).area < 0.003 * shape.area


def test_hatch_turns_by_the_recipe_s_step_from_layer_to_layer():
    for step in (90.0, 67.0):
        tracks = make_tracks(to_layers(sg.box(0, 0, 30, 30), 5), recipe(0.0, 0.0, step=step))
        for layer in range(5):
            runs = [np.diff(t.points_mm[:, :2], axis=0) for t in tracks
                    if t.layer == layer and t.kind == TrackKind.HATCH]  # fmt: skip
            longest = max(np.vstack(runs), key=lambda d: float(np.hypot(*d)))
            angle = math.degrees(math.atan2(longest[1], longest[0])) % 180
            off = (angle - layer * step + 90) % 180 - 90
            assert abs(off) < 0.1


def test_hatch_lines_of_layers_do_not_stand_above_each_other():
    tracks = make_tracks(to_layers(sg.box(0, 0, 30, 30), 3), recipe(0.0, 0.0))
    rows = []
    for layer in (0, 2):
        hatch = [t for t in tracks if t.layer == layer and t.kind == TrackKind.HATCH]
        y = np.concatenate([t.points_mm[:, 1] for t in hatch])
        rows.append(y[0] % Strips.of(recipe(0.0, 0.0), layer).pitch_mm)
    pitch = Strips.of(recipe(0.0, 0.0), 0).pitch_mm
    gap = abs(rows[0] - rows[1]) % pitch
    assert 0.1 < gap < pitch - 0.1


def test_pitch_builds_the_layer_s_height_unless_the_recipe_contradicts_itself():
    own = Strips.of(recipe(0.0, 0.0), 1)
    assert own.pitch_mm == pytest.approx(2 / 3 * 1.6 * 0.5 / 0.55)
    r = recipe(0.0, 0.0)
    tall = r.model_copy(update={"layers": r.layers.model_copy(update={"height_mm": 0.3})})
    assert Strips.of(tall, 1).pitch_mm == pytest.approx(0.96)


def test_a_slower_track_lays_a_larger_bead():
    r = recipe(0.0, 0.0)  # thin_wall runs at 6 mm/s, the others at 10 mm/s
    assert bead_area_mm2(r, TrackKind.HATCH, 1) == pytest.approx(2 / 3 * 1.6 * 0.5)
    assert bead_area_mm2(r, TrackKind.THIN_WALL, 1) == pytest.approx(2 / 3 * 1.6 * 0.5 * 10 / 6)


def test_contours_come_first_then_thin_walls_then_hatch_in_each_island():
    shape = sg.box(0, 0, 15, 15).union(sg.box(15, 7, 30, 8.4)).union(sg.box(60, 0, 70, 10))
    tracks = make_tracks(to_layers(shape, 1), recipe(0.0, 0.0))
    kinds = [t.kind.name for t in tracks]
    first = [k for k, t in zip(kinds, tracks, strict=True) if t.points_mm[:, 0].max() < 50]
    second = [k for k, t in zip(kinds, tracks, strict=True) if t.points_mm[:, 0].min() > 50]
    order = {"CONTOUR": 0, "THIN_WALL": 1, "HATCH": 2}
    assert [order[k] for k in first] == sorted(order[k] for k in first)
    assert set(first) == set(order)
    assert set(second) == {"CONTOUR", "HATCH"}
    assert kinds in (first + second, second + first)  # islands are not mixed


def test_tracks_run_at_the_layer_s_nozzle_height_and_closed_ones_close():
    layers = to_layers(sg.box(0, 0, 12, 12), 4)
    for track in make_tracks(layers, recipe(0.0, 0.0)):
        assert track.points_mm.dtype == np.float64
        assert track.points_mm.shape[1] == 3
        assert (track.points_mm[:, 2] == layers[track.layer].z_nozzle_mm).all()
        steps = np.linalg.norm(np.diff(track.points_mm, axis=0), axis=1)
        assert (steps > 0).all()
        if track.kind == TrackKind.CONTOUR:
            assert (track.points_mm[0] == track.points_mm[-1]).all()


def test_the_seam_of_the_contour_moves_from_layer_to_layer():
    tracks = make_tracks(to_layers(sg.box(0, 0, 12, 12), 6), recipe(0.0, 0.0))
    seams = np.array([t.points_mm[0, :2] for t in tracks if t.kind == TrackKind.CONTOUR])
    assert len(seams) == 6
    assert np.linalg.norm(np.diff(seams, axis=0), axis=1).min() > 3.0


def test_neighbouring_lines_are_joined_so_that_a_square_is_a_few_tracks():
    tracks = make_tracks(to_layers(sg.box(0, 0, 20, 20), 1), recipe(0.0, 0.0))
    assert len(tracks) <= 3


def test_open_tracks_are_not_shorter_than_a_bead_and_thin_walls_than_half_of_one():
    mesh = place_part(part(ball(9.0, wave=0.3)), sim_cell())
    tracks = make_tracks(slice_part(mesh, recipe(), sim_cell()), recipe())
    assert tracks
    for t in tracks:
        least = {TrackKind.HATCH: 1.59, TrackKind.THIN_WALL: 0.79, TrackKind.CONTOUR: 0.0}
        assert length(t.points_mm) >= least[t.kind]


def test_open_shell_is_one_thin_wall_bead_a_layer():
    mesh = place_part(part(tube_shell(20, 11)), sim_cell())
    layers = slice_part(mesh, recipe(), sim_cell())
    tracks = make_tracks(layers, recipe())
    assert [t.kind for t in tracks] == [TrackKind.THIN_WALL] * 20
    assert all(t.layer == i for i, t in enumerate(tracks))
    assert all((t.points_mm[0] == t.points_mm[-1]).all() for t in tracks)
    figures = part_figures(mesh, layers, tracks, recipe())
    assert figures["deposit_volume_mm3"] == pytest.approx(figures["target_volume_mm3"], rel=1e-3)


def test_figures_are_path_length_times_bead_and_area_times_layer():
    mesh = place_part(part(box(10, 20, 4.5), volume=900.0), sim_cell())
    layers = slice_part(mesh, recipe(), sim_cell())
    figures = part_figures(mesh, layers, make_tracks(layers, recipe()), recipe())
    assert set(figures) == {"volume_mm3", "target_volume_mm3", "deposit_volume_mm3"}
    assert figures["volume_mm3"] == 900.0
    assert figures["target_volume_mm3"] == pytest.approx(5.5 * (200 + 60 + math.pi), rel=2e-4)
    assert figures["deposit_volume_mm3"] == pytest.approx(figures["target_volume_mm3"], rel=0.01)
    one = [Track(0, TrackKind.HATCH, np.array([[0, 0, 0], [3.0, 4.0, 0]]))]
    assert part_figures(mesh, [], one, recipe())["deposit_volume_mm3"] == (
        pytest.approx(5 * 2 / 3 * 1.6 * 0.5)
    )


def test_the_same_layers_give_the_same_bytes():
    layers = to_layers(SHAPES["star"], 4)
    a, b = (make_tracks(layers, recipe(0.0, 0.0)) for _ in range(2))
    assert [t.points_mm.tobytes() for t in a] == [t.points_mm.tobytes() for t in b]


# ---- kernels


def rings_of(shape):
    return [np.array(g.coords)[:-1] for g in (shape.exterior, *shape.interiors)]


@pytest.mark.parametrize("seed", range(5))
def test_scanlines_equal_shapely_intersections(seed):
    random = np.random.default_rng(seed)
    a = np.sort(random.uniform(0, 2 * math.pi, 40))
    r = random.uniform(4, 10, 40)
    shape = sg.Polygon(np.column_stack([r * np.cos(a), r * np.sin(a)]))
    shape = shape.difference(sg.Point(0, 0).buffer(2.0))
    points, start = pack(rings_of(shape))
    pitch, phase = 0.7, float(random.uniform())
    line, x0, x1 = _raster.scanlines(points, start, pitch, phase)
    assert len(line) > 10
    total = 0.0
    for k in range(-20, 21):
        y = (k + phase) * pitch
        total += shape.intersection(sg.LineString([(-99, y), (99, y)])).length
    assert (x1 - x0).sum() == pytest.approx(total, rel=1e-9), f"seed {seed}"
    assert (np.diff(line) >= 0).all()


def test_scanline_through_a_vertex_counts_it_once():
    points, start = pack([np.array([[0.0, 0], [2, 1], [0, 2], [-2, 1]])])
    line, x0, x1 = _raster.scanlines(points, start, 1.0, 0.0)
    assert line.tolist() == [1] or line.tolist() == [1, 2]
    assert (x0[0], x1[0]) == (-2, 2)


@pytest.mark.parametrize("seed", range(5))
def test_joined_tracks_are_as_long_as_their_chords(seed):
    random = np.random.default_rng(seed)
    n = 30
    x0 = np.cumsum(random.uniform(-0.5, 0.5, n))
    x1 = x0 + random.uniform(4.0, 9.0, n)
    line = np.arange(n, dtype=np.int32)
    nxt = _raster.link_chords(line, x0, x1)
    assert (nxt[:-1] == np.arange(1, n)).all()
    points, start = _raster.zigzag(line, x0, x1, nxt, 1.0, 0.3, 2.5)
    total = sum(length(points[a:b]) for a, b in pairwise(start))
    assert total == pytest.approx((x1 - x0).sum(), rel=1e-12), f"seed {seed}"
    assert len(start) - 1 < n / 2


def test_short_chords_become_one_line_down_their_middle_of_the_same_summed_length():
    n = 12
    x0 = np.zeros(n)
    x1 = np.linspace(0.9, 0.2, n)
    line = np.arange(n, dtype=np.int32)
    points, start = _raster.zigzag(line, x0, x1, _raster.link_chords(line, x0, x1), 1.0, 0.0, 2.5)
    assert start.tolist() == [0, len(points)]
    assert length(points) == pytest.approx(x1.sum(), rel=1e-9)
    assert points[0] == pytest.approx([0.45, 0.0])  # from the wide end


def test_chords_at_a_fork_are_not_linked():
    # one chord below two: a hole begins
    line = np.array([0, 1, 1, 2], np.int32)
    x0 = np.array([0.0, 0.0, 6.0, 0.0])
    x1 = np.array([9.0, 4.0, 9.0, 9.0])
    assert _raster.link_chords(line, x0, x1).tolist() == [-1, -1, -1, -1]


# ---- shared parts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "units", "share"),
    [
        ("nasa_blade_m.stl", "m", 0.002),
        ("nist_am_artifact_v3b.stl", None, 0.002),
        ("robpath_flange.stl", None, 0.002),
        ("spiral_lattice_cone.stl", None, 0.005),
        ("extra_surface.stl", None, 0.002),
    ],
)
def test_shared_parts_get_their_volume(name, units, share):
    r, cell = recipe(), sim_cell()
    mesh = place_part(load_part(shared_part(name), units=units), cell, bead_width_mm=WIDTH)
    layers = slice_part(mesh, r, cell)
    tracks = make_tracks(layers, r)
    figures = part_figures(mesh, layers, tracks, r)
    assert figures["deposit_volume_mm3"] == pytest.approx(figures["target_volume_mm3"], rel=share)
    assert coverage_notes(layers, tracks, r) == ()
    for layer in layers[:: max(1, len(layers) // 6)]:
        inside = to_shape(layer).buffer(-WIDTH / 2 + 0.02)
        drawn = [t for t in tracks if t.kind != TrackKind.THIN_WALL]
        for line in lines_of(drawn, layer.index):
            assert line.difference(inside).length < 0.01


def test_metres_part_without_units_is_refused_with_a_hint():
    mesh = load_part(shared_part("nasa_blade_m.stl"))
    with pytest.raises(Exception, match="give --units inch or --units m"):
        place_part(mesh, sim_cell(), bead_width_mm=WIDTH)


@pytest.mark.slow
def test_shared_vase_is_a_wall_of_one_bead():
    mesh = load_part(shared_part("vase_open_thin.stl"), scale=0.3)
    layers = slice_part(place_part(mesh, sim_cell()), recipe(), sim_cell())
    tracks = make_tracks(layers, recipe())
    assert {t.kind for t in tracks} == {TrackKind.THIN_WALL}
    assert len(tracks) == len(layers)


def test_overlapping_solids_are_drawn_once():
    both = join(box(10, 10, 5.5), box(10, 10, 5.5, (5.0, 0.0, 0.0)))
    one = box(15, 10, 5.5)
    lengths = []
    for mesh in (both, one):
        layers = slice_part(place_part(part(mesh), sim_cell()), recipe(0.0, 0.0), sim_cell())
        lengths.append(sum(length(t.points_mm) for t in make_tracks(layers, recipe(0.0, 0.0))))
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-3)

"""Sections and layers: exact areas, planes through vertices, gaps, shells, allowance."""

import dataclasses
import math

import manifold3d
import numpy as np
import pytest

from controller.errors import GeometryError
from controller.geometry import _mesh, _slice, load_part, place_part, section_planes, slice_part
from controller.geometry.polygons import rings_area
from controller.geometry.repair import repair, topology
from controller.geometry.slicing import layer_heights, sliced_volume
from tests.unit.geometry_parts import (
    ball,
    box,
    join,
    part,
    recipe,
    shared_part,
    sim_cell,
    to_shape,
    tube_shell,
)


def oracle(mesh):
    made = manifold3d.Manifold(manifold3d.Mesh64(mesh.vertices_mm, mesh.faces.astype(np.uint64)))
    assert made.status() == manifold3d.Error.NoError
    return made


def compare(mesh, count=60):
    """Largest relative difference of a section's area from manifold3d's (below 1 mm²: mm²)."""
    low, high = mesh.bounds_mm[:, 2]
    z = np.linspace(low, high, count + 2)[1:-1] + 1.234e-5
    areas = np.array([rings_area(s.rings) for s in section_planes(mesh, z)])
    made = oracle(mesh)
    expected = np.array([made.slice(h).area() for h in z])
    assert (expected > 0).sum() > count // 2
    return float((np.abs(areas - expected) / np.maximum(expected, 1.0)).max())


@pytest.mark.parametrize("seed", range(4))
def test_section_areas_equal_manifold3d(seed):
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    vertices, faces = ball(20.0, 30, 40, wave=0.3)
    mesh = part((vertices @ turn.T, faces if np.linalg.det(turn) > 0 else faces[:, ::-1].copy()))
    assert compare(mesh) < 1e-6, f"seed {seed}"


@pytest.mark.parametrize(
    "name", ["nist_am_artifact_v3b.stl", "robpath_flange.stl", "spiral_lattice_cone.stl"]
)
def test_section_areas_of_shared_parts_equal_manifold3d(name):
    assert compare(load_part(shared_part(name))) < 1e-6


def test_a_plane_through_vertices_gives_neither_gap_nor_double_line():
    """A rising vertex counts as above: the section is the one just above the plane."""
    stairs = join(box(10, 10, 5), box(6, 6, 5, (2.0, 2.0, 5.0)))
    mesh = part(stairs)
    z = np.array([0.0, 2.5, 5.0, 7.5, 10.0])
    sections = section_planes(mesh, z)
    # at 0 no vertex is below, at 5 the lower box still reaches up to the plane
    assert [round(rings_area(s.rings), 6) for s in sections] == [0, 100, 100, 36, 36]
    assert all(not s.chains for s in sections)
    levels = ball(9.0, 18, 24)
    heights = np.unique(levels[0][:, 2])
    for section in section_planes(part(levels), heights[1:-1]):
        assert len(section.rings) == 1
        assert not section.chains


def test_overlapping_and_nested_solids_count_once_and_a_cavity_stays_empty():
    inner = box(4, 4, 4, (3.0, 3.0, 3.0))
    z = np.array([5.0])
    assert rings_area(section_planes(part(join(box(10, 10, 10), inner)), z)[0].rings) == (
        pytest.approx(100)
    )
    shifted = box(10, 10, 10, (5.0, 0.0, 0.0))
    assert rings_area(section_planes(part(join(box(10, 10, 10), shifted)), z)[0].rings) == (
        pytest.approx(150)
    )
    cavity = (inner[0], inner[1][:, ::-1].copy())
    assert rings_area(section_planes(part(join(box(10, 10, 10), cavity)), z)[0].rings) == (
        pytest.approx(84)
    )


def test_small_gaps_are_closed_with_a_note_and_the_area_is_kept():
    vertices, faces = ball(20.0, 60, 80)
    keep = np.ones(len(faces), bool)
    keep[np.random.default_rng(1).choice(len(faces), 40, replace=False)] = False
    mesh = part((vertices, faces[keep].copy()))
    z = np.linspace(-18, 18, 30)
    whole = section_planes(part((vertices, faces)), z)
    torn = section_planes(mesh, z, gap_mm=2.5)
    assert any("gaps in the section closed" in n for s in torn for n in s.notes)
    assert all(not s.chains for s in torn)
    for a, b in zip(whole, torn, strict=True):
        assert rings_area(b.rings) == pytest.approx(rings_area(a.rings), rel=0.02)


def test_open_shell_gives_chains_of_the_right_length():
    sections = section_planes(part(tube_shell(20, 30)), np.array([3.0, 17.0]))
    for section in sections:
        assert section.rings == []
        (chain,) = section.chains
        assert (chain[0] == chain[-1]).all()
        run = np.linalg.norm(np.diff(chain, axis=0), axis=1).sum()
        assert run == pytest.approx(2 * math.pi * 20, rel=2e-3)


def test_open_sheet_gives_one_open_chain_from_end_to_end():
    vertices, faces = tube_shell(20, 30, n=48)
    half = (vertices[faces].mean(1)[:, 1]) > 0
    (section,) = section_planes(part((vertices, faces[half].copy())), np.array([10.2]))
    (chain,) = section.chains
    assert np.linalg.norm(chain[0] - chain[-1]) == pytest.approx(40, rel=0.01)


def test_no_kernel_twin_disagrees():
    """The kernel against a plain double loop over triangles: same segments, same order rule."""
    random = np.random.default_rng(11)
    vertices, faces = ball(5.0, 8, 9, wave=0.2)
    vertices = vertices + random.normal(scale=0.02, size=vertices.shape)
    edges, ends, _, _ = _mesh.build_edges(faces, len(vertices))
    z = np.array([-3.1, 0.02, 2.7])
    points, start, plane, closed, _ = _slice.slice_planes(vertices, faces, edges, len(ends), z)
    assert closed.all()
    for k, height in enumerate(z):
        twice = 0.0
        for a, b, c in faces:
            cut = []
            for p, q in ((a, b), (b, c), (c, a)):
                down = vertices[p, 2] >= height > vertices[q, 2]
                up = vertices[p, 2] < height <= vertices[q, 2]
                if down or up:
                    t = (height - vertices[p, 2]) / (vertices[q, 2] - vertices[p, 2])
                    cut.append((up, vertices[p] + t * (vertices[q] - vertices[p])))
            if cut:
                (_, first), (_, last) = sorted(cut, key=lambda c: c[0])
                twice += first[0] * last[1] - first[1] * last[0]
        rings = [points[start[i] : start[i + 1]] for i in np.flatnonzero(plane == k)]
        assert rings_area(rings) == pytest.approx(twice / 2, rel=1e-9)
        assert twice > 0


def test_edges_are_numbered_once_and_counted_both_ways():
    vertices, faces = box(1, 1, 1)
    edges, ends, forward, backward = _mesh.build_edges(faces, len(vertices))
    assert len(ends) == 18
    assert (forward == 1).all()
    assert (backward == 1).all()
    for f, row in zip(faces, edges, strict=True):
        for j in range(3):
            assert sorted((f[j], f[(j + 1) % 3])) == ends[row[j]].tolist()
    assert topology(*join(box(1, 1, 1), box(1, 1, 1, (3.0, 0.0, 0.0)))).n_bodies == 2


def test_weld_agrees_with_numpy_unique():
    random = np.random.default_rng(3)
    for size in (3, 999, 30_000):
        corners = random.integers(-9, 9, (size, 3)).astype(np.float32)
        vertices, ids = _mesh.weld(corners)
        assert len(vertices) == len(np.unique(corners, axis=0))
        assert np.array_equal(vertices[ids], corners)
        alone = random.normal(size=(size, 3))  # nothing is shared
        vertices, ids = _mesh.weld(alone)
        assert np.array_equal(vertices[ids], alone)
        assert np.array_equal(ids, np.arange(size))


# ---- layers


def placed(mesh):
    return place_part(part(mesh), sim_cell())


def test_layers_are_cut_at_half_their_height_and_reach_the_part_s_top():
    assert layer_heights(1.65, 0.55) == pytest.approx([0.275, 0.825, 1.375])
    # a rest of a layer is cut at half of what there is
    assert layer_heights(1.75, 0.55)[-1] == pytest.approx((1.65 + 1.75) / 2)
    assert len(layer_heights(1.65 + 0.01, 0.55)) == 3  # a sliver is not built
    with pytest.raises(GeometryError, match="at most 20000"):
        layer_heights(1e6, 0.55)


def test_slices_without_allowance_are_the_sections():
    layers = slice_part(placed(box(10, 20, 5.5)), recipe(xy=0.0, z=0.0), sim_cell())
    assert len(layers) == 10
    assert [s.index for s in layers] == list(range(10))
    assert layers[0].z_cut_mm == pytest.approx(10.275)
    assert [layers[0].z_nozzle_mm, layers[9].z_nozzle_mm] == pytest.approx([10.55, 15.5])
    assert sliced_volume(layers, 0.55) == pytest.approx(1100.0, rel=1e-9)


def test_allowance_grows_sections_by_a_rounded_offset_and_adds_it_on_top():
    layers = slice_part(placed(box(10, 20, 4.5)), recipe(xy=1.0, z=1.0), sim_cell())
    assert len(layers) == 10  # 4.5 + 1 mm
    for layer in layers:
        assert to_shape(layer).area == pytest.approx(200 + 60 * 1.0 + math.pi, rel=2e-4)


def test_faces_that_look_up_get_the_allowance_wherever_they_lie():
    stairs = join(box(20, 20, 2.2), box(6, 6, 8.0, (2.0, 2.0, 0.0)))
    layers = slice_part(placed(stairs), recipe(xy=0.0, z=1.1), sim_cell())
    areas = [round(to_shape(s).area) for s in layers]
    assert areas[:6] == [400] * 6  # 2.2 + 1.1 mm
    assert set(areas[6:]) == {36}
    assert len(areas) == math.ceil(9.1 / 0.55)


def test_shell_gets_neither_allowance_nor_regions():
    layers = slice_part(placed(tube_shell(20, 5.5)), recipe(), sim_cell())
    assert len(layers) == 10
    assert all(not s.regions and len(s.open_chains_mm) == 1 for s in layers)


def test_allowance_that_leaves_the_substrate_is_refused():
    with pytest.raises(GeometryError, match=r"reaches X 49\.\d+ mm, the substrate .* 50 mm"):
        slice_part(placed(box(199, 5, 5)), recipe(), sim_cell())


def test_last_layer_above_the_axis_is_refused():
    cell = sim_cell()
    mesh = place_part(part(box(5, 5, 239.9)), cell)
    with pytest.raises(GeometryError, match="limit of axis Z"):
        slice_part(mesh, recipe(), cell)


def test_unplaced_part_is_refused():
    with pytest.raises(GeometryError, match="place it first"):
        slice_part(part(box(5, 5, 5)), recipe(), sim_cell())


def test_damage_is_noted_by_layer():
    vertices, faces = ball(20.0, 60, 80)
    keep = np.ones(len(faces), bool)
    keep[np.random.default_rng(1).choice(len(faces), 40, replace=False)] = False
    layers = slice_part(placed((vertices, faces[keep].copy())), recipe(), sim_cell())
    noted = [s for s in layers if s.notes]
    assert noted
    assert all(n.startswith(f"Layer {s.index + 1}: ") for s in noted for n in s.notes)


def test_the_same_part_gives_the_same_bytes_and_a_turned_mesh_the_same_volume():
    mesh = placed(ball(12.0, 20, 30, wave=0.3))
    a = slice_part(mesh, recipe(), sim_cell())
    b = slice_part(mesh, recipe(), sim_cell())
    for s, t in zip(a, b, strict=True):
        for r, q in zip(s.regions, t.regions, strict=True):
            assert r.outer_mm.tobytes() == q.outer_mm.tobytes()
    c, s = math.cos(0.7), math.sin(0.7)
    turned = mesh.vertices_mm - [150, 150, 0]
    turned = turned @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + [150, 150, 0]
    other = slice_part(
        dataclasses.replace(mesh, vertices_mm=np.ascontiguousarray(turned)), recipe(), sim_cell()
    )
    assert sliced_volume(other, 0.55) == pytest.approx(sliced_volume(a, 0.55), rel=1e-4)


def test_repair_leaves_a_sound_mesh_alone():
    vertices, faces = ball(5.0)
    out_vertices, out_faces, top, notes = repair(vertices, faces)
    assert notes == []
    assert top.is_closed
    assert out_vertices is vertices
    assert np.array_equal(out_faces, faces)

"""load_part: formats, units, repair with a note, and each bad input by name."""

import numpy as np
import pytest

from controller.errors import GeometryError
from controller.geometry import load_part
from controller.geometry.stl import write_stl
from tests.unit.geometry_parts import ball, box, join, shared_part, stl_bytes, stl_text, tube_shell


def save(tmp_path, data, name="part.stl"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_binary_and_ascii_give_the_same_mesh(tmp_path):
    mesh = ball(7.0, 9, 12)
    a = load_part(save(tmp_path, stl_bytes(mesh), "a.stl"))
    b = load_part(save(tmp_path, stl_text((mesh[0].astype(np.float32), mesh[1])), "b.stl"))
    assert len(a.vertices_mm) == len(mesh[0])
    assert np.array_equal(a.faces, b.faces)
    assert np.allclose(a.vertices_mm, b.vertices_mm, atol=1e-6)
    assert a.notes == b.notes == ()
    assert a.units == "mm"


def test_binary_file_that_begins_with_solid_is_read_as_binary(tmp_path):
    data = stl_bytes(box(1, 2, 3), b"solid facet by a careless exporter")
    assert load_part(save(tmp_path, data)).volume_mm3 == pytest.approx(6.0)


def test_own_writer_is_read_back_bit_for_bit(tmp_path):
    vertices, faces = box(1.5, 2.5, 3.25)
    back = load_part(save(tmp_path, write_stl(vertices, faces, "box")))
    corners = np.sort(back.vertices_mm[back.faces].reshape(-1, 9), 0)
    assert np.array_equal(corners, np.sort(vertices[faces].reshape(-1, 9), 0))


@pytest.mark.parametrize(("units", "factor"), [(None, 1), ("mm", 1), ("inch", 25.4), ("m", 1000)])
def test_units_scale_a_mesh_without_unit(tmp_path, units, factor):
    part = load_part(save(tmp_path, stl_bytes(box(1, 2, 4))), units=units, scale=0.5)
    assert np.ptp(part.vertices_mm, axis=0) == pytest.approx(np.array([1, 2, 4]) * factor / 2)
    assert part.volume_mm3 == pytest.approx((factor / 2) ** 3 * 8)
    assert part.units == (units or "mm")


def test_rotation_is_about_fixed_x_then_y_then_z(tmp_path):
    path = save(tmp_path, stl_bytes(box(1, 2, 4)))
    assert np.ptp(load_part(path, rotate=(90, 0, 0)).vertices_mm, axis=0).tolist() == [1, 4, 2]
    assert np.ptp(load_part(path, rotate=(90, 0, 90)).vertices_mm, axis=0).tolist() == [4, 1, 2]
    # x to -z by +90 about y
    turned = load_part(path, rotate=(0, 90, 0)).vertices_mm
    assert turned.min(0).tolist() == [0, 0, -1]
    tilted = load_part(path, rotate=(17, 23, 31))
    assert tilted.volume_mm3 == pytest.approx(8.0, rel=1e-12)


def repaired(tmp_path, mesh, note):
    part = load_part(save(tmp_path, stl_bytes(mesh)))
    assert any(note in n for n in part.notes), part.notes
    return part


def test_degenerate_and_doubled_triangles_go_with_a_note(tmp_path):
    vertices, faces = box(2, 2, 2)
    bad = np.vstack([faces, [[0, 1, 1]], faces[3:5]]).astype(np.int32)
    part = repaired(tmp_path, (vertices, bad), "1 degenerate triangles removed")
    assert any("2 doubled triangles removed" in n for n in part.notes)
    assert len(part.faces) == 12
    assert part.volume_mm3 == pytest.approx(8.0)


def test_a_face_and_its_back_cancel(tmp_path):
    one = box(2, 2, 2)
    mirrored = one[0] * [-1, 1, 1] + [4, 0, 0], one[1][:, ::-1]
    part = repaired(tmp_path, join(one, mirrored), "4 triangles that lay back to back removed")
    assert part.volume_mm3 == pytest.approx(16.0)
    assert len(part.faces) == 20


def test_flipped_triangles_are_turned(tmp_path):
    vertices, faces = ball(5.0, 10, 12)
    true = load_part(save(tmp_path, stl_bytes((vertices, faces)), "true.stl")).volume_mm3
    faces[7:20] = faces[7:20, ::-1]
    part = repaired(tmp_path, (vertices, faces), "13 triangles that faced the wrong way turned")
    assert part.volume_mm3 == pytest.approx(true, rel=1e-9)


def test_inside_out_mesh_is_turned(tmp_path):
    vertices, faces = box(2, 2, 2)
    part = repaired(tmp_path, (vertices, faces[:, ::-1]), "inside out")
    assert part.volume_mm3 == pytest.approx(8.0)


def test_inside_out_body_beside_a_sound_one_is_turned_but_a_cavity_is_kept(tmp_path):
    big, small = box(10, 10, 10), box(2, 2, 2, (20.0, 0.0, 0.0))
    part = repaired(tmp_path, join(big, (small[0], small[1][:, ::-1])), "1 bodies")
    assert part.volume_mm3 == pytest.approx(1008.0)
    cavity = box(2, 2, 2, (4.0, 4.0, 4.0))
    hollow = load_part(save(tmp_path, stl_bytes(join(big, (cavity[0], cavity[1][:, ::-1])))))
    assert hollow.volume_mm3 == pytest.approx(992.0)
    assert hollow.notes == ()


def test_missing_triangles_are_filled(tmp_path):
    vertices, faces = ball(5.0)
    true = load_part(save(tmp_path, stl_bytes((vertices, faces)), "true.stl")).volume_mm3
    keep = np.ones(len(faces), bool)
    keep[[100, 101, 400]] = False
    part = repaired(tmp_path, (vertices, faces[keep]), "2 small holes filled")
    assert part.volume_mm3 == pytest.approx(true, rel=1e-3)


def test_vertices_a_hair_apart_are_joined(tmp_path):
    vertices, faces = ball(5.0, 10, 12)
    corners = vertices[faces].reshape(-1, 3)
    noise = np.random.default_rng(4).uniform(-4e-6, 4e-6, corners.shape)
    loose = (corners + noise, np.arange(len(corners), dtype=np.int32).reshape(-1, 3))
    part = load_part(save(tmp_path, stl_bytes(loose)))
    true = load_part(save(tmp_path, stl_bytes((vertices, faces)), "true.stl")).volume_mm3
    assert any("joined" in n for n in part.notes)
    assert part.volume_mm3 == pytest.approx(true, rel=1e-4)


def test_stray_surface_on_a_closed_body_is_removed(tmp_path):
    vertices, faces = box(10, 10, 10)
    vertices = np.vstack([vertices, [[5.0, 5.0, 5.0]]])
    part = repaired(tmp_path, (vertices, np.vstack([faces, [[0, 1, 8]]])), "stray")
    assert part.volume_mm3 == pytest.approx(1000.0)


def test_open_shell_is_kept_and_has_no_volume(tmp_path):
    part = repaired(tmp_path, tube_shell(20, 30), "1 open shells are built one bead wide")
    assert part.volume_mm3 == 0.0


def bad_header():
    return stl_bytes(box(1, 1, 1))[:300]


NAN_BOX = box(1, 1, 1)
NAN_BOX[0][3, 1] = np.nan


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.stl", b"", "the file is empty"),
        ("a.stl", b"junk", "neither a binary STL"),
        ("a.stl", stl_bytes((np.zeros((3, 3)), np.empty((0, 3), int))), "no triangles"),
        ("a.stl", bad_header(), "promises 12 triangles (684 bytes), the file has 300 bytes"),
        ("a.stl", "solid a\nendsolid a\n", "no triangles"),
        ("a.stl", stl_text(box(1, 1, 1)).replace("vertex 1 1 1", "vertex 1 one 1"), "not finite"),
        ("a.stl", "solid a\nfacet normal 0 0 1\nvertex 0 0 0\nvertex 1 0 0\n", "cut off"),
        ("a.stl", stl_bytes(NAN_BOX), "corners are not finite numbers"),
        ("a.stl", stl_bytes((np.ones((3, 3)), np.array([[0, 1, 2]]))), "all its points are one"),
        (
            "a.stl",
            stl_bytes((np.eye(3), np.array([[0, 1, 2], [0, 2, 1]]))),
            "nothing is left",
        ),
        ("a.stl", stl_bytes(box(2e5, 1, 1)), "check --units"),
        ("a.3mf", b"PK no zip", "not a 3MF file"),
        ("a.obj", b"v 1 2 nonsense\nf 1 1 1\n", "a.obj"),
        ("a.gcode", b"G1 X1", "a part file ends in one of .stl"),
    ],
)
def test_bad_file_is_refused_in_one_sentence(tmp_path, name, data, says):
    with pytest.raises(GeometryError) as caught:
        load_part(save(tmp_path, data, name))
    message = str(caught.value)
    assert says in message
    assert name in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(GeometryError, match=r"nowhere\.stl: no such file"):
        load_part(tmp_path / "nowhere.stl")
    (tmp_path / "folder.stl").mkdir()
    with pytest.raises(GeometryError, match=r"folder\.stl: is a folder"):
        load_part(tmp_path / "folder.stl")
    with pytest.raises(GeometryError):
        load_part("a\0b.stl")


def test_bad_arguments_are_named(tmp_path):
    path = save(tmp_path, stl_bytes(box(1, 1, 1)))
    for arguments, says in (
        ({"units": "ft"}, "--units 'ft'"),
        ({"scale": 0.0}, "--scale 0"),
        ({"scale": float("nan")}, "--scale nan"),
        ({"rotate": (0, 0, float("inf"))}, "--rotate"),
    ):
        with pytest.raises(GeometryError, match=says):
            load_part(path, **arguments)


def test_other_mesh_formats_come_through_trimesh(tmp_path):
    vertices, faces = box(1, 2, 3)
    text = "".join(f"v {x} {y} {z}\n" for x, y, z in vertices)
    text += "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in faces)
    assert load_part(save(tmp_path, text, "a.obj")).volume_mm3 == pytest.approx(6.0)


def test_shared_broken_part_gets_its_known_volume():
    part = load_part(shared_part("extra_surface.stl"))
    assert part.volume_mm3 == pytest.approx(10_200, rel=0.005)  # stated beside the file
    assert any("stray" in n for n in part.notes)


def test_shared_blade_in_metres():
    part = load_part(shared_part("nasa_blade_m.stl"), units="m")
    assert np.ptp(part.vertices_mm, axis=0) == pytest.approx([55.66, 40.60, 20.0], abs=0.01)
    assert any("degenerate" in n for n in part.notes)

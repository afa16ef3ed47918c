"""Meshes and cases for the geometry tests, made by plain numpy."""

import functools
import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import shapely.geometry as sg

from controller.config import Cell, load_cell
from controller.model import LayerSlice, PartMesh, Region, Track
from controller.recipes import Recipe, load_recipe

CUBE_FACES = np.array(
    [[0, 2, 1], [0, 3, 2], [4, 5, 6], [4, 6, 7], [0, 1, 5], [0, 5, 4],
     [1, 2, 6], [1, 6, 5], [2, 3, 7], [2, 7, 6], [3, 0, 4], [3, 4, 7]], np.int32
)  # fmt: skip


def shared_part(name: str) -> Path:
    """A file of the shared parts folder; skips, by name, where it is absent."""
    root = Path(os.environ.get("LMD_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    path = root / "parts" / name
    if not path.is_file():
        pytest.skip(f"shared part {name} is not here")
    return path


def box(x: float, y: float, z: float, at: tuple = (0.0, 0.0, 0.0)) -> tuple:
    """A closed box of 12 triangles."""
    corners = np.array(
        [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]],
        float,
    )
    return corners * [x, y, z] + np.array(at), CUBE_FACES.copy()


def join(*meshes: tuple) -> tuple:
    """Several meshes in one."""
    vertices, faces, at = [], [], 0
    for v, f in meshes:
        vertices.append(v)
        faces.append(f + at)
        at += len(v)
    return np.vstack(vertices), np.vstack(faces).astype(np.int32)


def ball(radius: float, rings: int = 24, around: int = 36, wave: float = 0.0) -> tuple:
    """A closed, possibly wavy ball."""
    vertices = [[0.0, 0.0, -radius]]
    for i in range(1, rings):
        a = math.pi * i / rings
        for j in range(around):
            b = 2 * math.pi * j / around
            r = radius * (1 + wave * math.sin(3 * b) * math.sin(a) ** 2)
            vertices.append([r * math.sin(a) * math.cos(b), r * math.sin(a) * math.sin(b),
                             -radius * math.cos(a)])  # fmt: skip
    vertices.append([0.0, 0.0, radius])
    faces = []
    for j in range(around):
        k = (j + 1) % around
        faces.append([0, 1 + k, 1 + j])
        for i in range(rings - 2):
            a, b = 1 + i * around, 1 + (i + 1) * around
            faces += [[a + j, a + k, b + k], [a + j, b + k, b + j]]
        top = 1 + (rings - 2) * around
        faces.append([top + j, top + k, len(vertices) - 1])
    return np.array(vertices), np.array(faces, np.int32)


def tube_shell(radius: float, height: float, n: int = 48, levels: int = 8) -> tuple:
    """An open tube without thickness, seen from outside."""
    a = np.arange(n) * 2 * math.pi / n
    ring = np.column_stack([radius * np.cos(a), radius * np.sin(a)])
    vertices = np.vstack([
        np.column_stack([ring, np.full(n, height * k / levels)]) for k in range(levels + 1)
    ])  # fmt: skip
    i = np.arange(n)
    j = (i + 1) % n
    faces = []
    for k in range(levels):
        a0, b0 = k * n, (k + 1) * n
        faces.append(np.column_stack([a0 + i, a0 + j, b0 + j]))
        faces.append(np.column_stack([a0 + i, b0 + j, b0 + i]))
    return vertices, np.vstack(faces).astype(np.int32)


def stl_bytes(mesh: tuple, header: bytes = b"test") -> bytes:
    """A binary STL, packed by struct (not by the project's writer)."""
    vertices, faces = mesh
    out = [header.ljust(80, b" "), struct.pack("<I", len(faces))]
    for face in faces:
        corners = [float(x) for v in face for x in vertices[v]]
        out.append(struct.pack("<12fH", 0.0, 0.0, 0.0, *corners, 0))
    return b"".join(out)


def stl_text(mesh: tuple) -> str:
    """An ASCII STL."""
    vertices, faces = mesh
    lines = ["solid test"]
    for face in faces:
        lines += [" facet normal 0 0 0", "  outer loop"]
        lines += [f"   vertex {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices[face]]
        lines += ["  endloop", " endfacet"]
    return "\n".join([*lines, "endsolid test", ""])


def part(mesh: tuple, volume: float = 1.0) -> PartMesh:
    """A mesh as a part, as it is."""
    vertices, faces = mesh
    return PartMesh("test", np.ascontiguousarray(vertices, float), faces, "test.stl", "", "mm",
                    volume)  # fmt: skip


@functools.cache
def sim_cell() -> Cell:
    return load_cell("sim")[0]


@functools.cache
def recipe(xy: float = 1.0, z: float = 1.0, contours: int = 1, step: float = 90.0) -> Recipe:
    """316l_general with another allowance, number of contours and hatch step."""
    base, _ = load_recipe("316l_general")
    allowance = base.near_net_shape.model_copy(update={"allowance_xy_mm": xy, "allowance_z_mm": z})
    layers = base.layers.model_copy(update={"contours": contours, "hatch_angle_step_deg": step})
    return base.model_copy(update={"near_net_shape": allowance, "layers": layers})


def to_shape(layer: LayerSlice) -> sg.base.BaseGeometry:
    """A layer's regions in shapely."""
    return sg.MultiPolygon([(r.outer_mm, list(r.holes_mm)) for r in layer.regions]).buffer(0)


def to_layers(shape: sg.base.BaseGeometry, count: int, height: float = 0.55) -> list[LayerSlice]:
    """The same section in every layer."""
    regions = []
    for polygon in getattr(shape, "geoms", [shape]):
        p = sg.polygon.orient(polygon)
        regions.append(
            Region(
                np.array(p.exterior.coords)[:-1],
                tuple(np.array(h.coords)[:-1] for h in p.interiors),
            )
        )
    return [
        LayerSlice(i, height * (i + 0.5), height * (i + 1), tuple(regions)) for i in range(count)
    ]


def lines_of(tracks: list[Track], layer: int | None = None) -> list[sg.LineString]:
    """Tracks in shapely."""
    return [sg.LineString(t.points_mm[:, :2]) for t in tracks if layer is None or t.layer == layer]

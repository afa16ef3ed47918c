"""Makes the example parts: blade, ring, rib, each as STL, 3MF and STEP, in mm.

    python examples/make_parts.py [--out DIR]

The same call gives the same bytes. STL and 3MF need nothing but the project; STEP needs the
extra ``step`` and is left out, with a word, where that is missing. Sizes are such that each
part takes five to eight minutes of machine time with recipe 316l_general.

blade : an aerofoil on a platform, NACA 4412, twisted by 30 degrees, tapered
ring  : a bore with a flange at its foot
rib   : a bracket, two plates at a right angle, stiffened by a web
"""

import argparse
import contextlib
import ctypes
import io
import math
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from controller.geometry.repair import signed_volume
from controller.geometry.stl import write_stl
from controller.geometry.thin import fill_polygon

Mesh = tuple[np.ndarray, np.ndarray]

# blade, mm: with a layer of 0.55 mm and 1 mm allowance on top it is whole layers tall
BLADE_HEIGHT = 23.75
PLATFORM = (18.0, 7.0, 1.65)
CHORD_ROOT, CHORD_TIP = 16.0, 12.0
TWIST_DEG = 30.0
CAMBER, CAMBER_AT, THICKNESS = 0.04, 0.4, 0.12  # NACA 4412
# ring, mm
RING_HEIGHT, RING_BORE, RING_TUBE, RING_FLANGE, FLANGE_HEIGHT = 11.65, 4.0, 5.4, 8.0, 1.65
# rib, mm
RIB_LENGTH, RIB_WIDTH, RIB_HEIGHT, RIB_PLATE, RIB_WEB = 18.0, 9.0, 14.85, 1.65, 1.6
WEB_LENGTH, WEB_HEIGHT = 13.0, 12.1


def naca_section(n: int) -> np.ndarray:
    """(2 n - 1, 2) outline of the aerofoil of chord 1, counter-clockwise from the upper
    trailing edge; the trailing edge has its finite thickness (NACA report 460)."""
    x = 0.5 * (1.0 - np.cos(np.linspace(0.0, math.pi, n)))
    half = (
        5.0
        * THICKNESS
        * (0.2969 * np.sqrt(x) - 0.1260 * x - 0.3516 * x**2 + 0.2843 * x**3 - 0.1015 * x**4)
    )
    front = x < CAMBER_AT
    mean = np.where(
        front,
        CAMBER / CAMBER_AT**2 * (2 * CAMBER_AT * x - x**2),
        CAMBER / (1 - CAMBER_AT) ** 2 * (1 - 2 * CAMBER_AT + 2 * CAMBER_AT * x - x**2),
    )
    slope = np.where(
        front,
        2 * CAMBER / CAMBER_AT**2 * (CAMBER_AT - x),
        2 * CAMBER / (1 - CAMBER_AT) ** 2 * (CAMBER_AT - x),
    )
    c, s = 1.0 / np.sqrt(1 + slope**2), slope / np.sqrt(1 + slope**2)
    upper = np.column_stack([x - half * s, mean + half * c])
    lower = np.column_stack([x + half * s, mean - half * c])
    return np.vstack([upper[::-1], lower[1:]])


def blade_section(share: float, n: int = 60) -> np.ndarray:
    """Outline (m, 2) in mm at a share of the aerofoil's height, about its middle of twist."""
    outline = naca_section(n) - np.array([0.45, 0.035])
    chord = CHORD_ROOT + (CHORD_TIP - CHORD_ROOT) * share
    angle = math.radians(TWIST_DEG) * share
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.asarray(outline * chord @ turn)


def _at(outline: np.ndarray, z: float) -> np.ndarray:
    return np.column_stack([outline, np.full(len(outline), z)])


def _wall(low: int, high: int, n: int) -> np.ndarray:
    """Triangles between two counter-clockwise rings of n vertices, seen from outside."""
    i = np.arange(n)
    j = (i + 1) % n
    return np.vstack(
        [np.column_stack([low + i, low + j, high + j]),
         np.column_stack([low + i, high + j, high + i])]
    )  # fmt: skip


def make_blade() -> Mesh:
    """One closed body: the platform's top is cut out where the aerofoil stands."""
    length, width, foot = PLATFORM
    box = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [length / 2, width / 2]
    n_levels = 45
    outlines = [blade_section(k / n_levels) for k in range(n_levels + 1)]
    n = len(outlines[0])
    z = np.linspace(foot, BLADE_HEIGHT, n_levels + 1)
    vertices = [_at(box, 0.0), _at(box, foot)]
    vertices += [_at(o, h) for o, h in zip(outlines, z, strict=True)]
    faces = [np.array([[0, 2, 1], [0, 3, 2]]), _wall(0, 4, 4)]
    # the platform's top: the box with the root's outline as a hole, which runs backwards
    hole = np.arange(n)[::-1]
    ids = np.concatenate([np.arange(4), 8 + hole])
    faces.append(ids[fill_polygon([box, outlines[0][hole]])] + np.int64(0))
    faces[-1] = np.where(faces[-1] < 4, faces[-1] + 4, faces[-1])
    faces += [_wall(8 + k * n, 8 + (k + 1) * n, n) for k in range(n_levels)]
    faces.append(8 + n_levels * n + fill_polygon([outlines[-1]]))
    return np.vstack(vertices), np.vstack(faces).astype(np.int32)


def make_ring(n: int = 180) -> Mesh:
    """A revolved profile; corners of the polygon lie such that its area is the circle's."""
    profile = ring_profile()
    a = np.arange(n) * (2 * math.pi / n)
    grow = math.sqrt((2 * math.pi / n) / math.sin(2 * math.pi / n))
    circle = np.column_stack([np.cos(a), np.sin(a)]) * grow
    vertices = np.vstack([_at(circle * r, z) for r, z in profile])
    k = len(profile)
    faces = [_wall(i * n, ((i + 1) % k) * n, n) for i in range(k)]
    return vertices, np.vstack(faces).astype(np.int32)


def ring_profile() -> np.ndarray:
    """(6, 2): radius and height, so that the walls between neighbours look outwards."""
    return np.array([
        [RING_BORE, 0.0], [RING_FLANGE, 0.0], [RING_FLANGE, FLANGE_HEIGHT],
        [RING_TUBE, FLANGE_HEIGHT], [RING_TUBE, RING_HEIGHT], [RING_BORE, RING_HEIGHT],
    ])  # fmt: skip


def make_rib() -> Mesh:
    """An L profile along y, with the web's triangle in its middle slab."""
    ell = np.array([
        [0.0, 0.0], [RIB_LENGTH, 0.0], [RIB_LENGTH, RIB_PLATE], [WEB_LENGTH, RIB_PLATE],
        [RIB_PLATE, RIB_PLATE], [RIB_PLATE, WEB_HEIGHT], [RIB_PLATE, RIB_HEIGHT],
        [0.0, RIB_HEIGHT],
    ])  # fmt: skip
    n = len(ell)
    ys = [-RIB_WIDTH / 2, -RIB_WEB / 2, RIB_WEB / 2, RIB_WIDTH / 2]
    vertices = np.vstack([np.column_stack([ell[:, 0], np.full(n, y), ell[:, 1]]) for y in ys])
    cap = fill_polygon([ell])  # counter-clockwise in x-z looks towards -y
    faces = [cap, (cap + 3 * n)[:, ::-1]]
    outer = [(i, (i + 1) % n) for i in range(n)]
    web = [e for e in outer if e not in ((3, 4), (4, 5))] + [(3, 5)]
    for slab in range(3):
        low, high = slab * n, (slab + 1) * n
        for i, j in web if slab == 1 else outer:
            faces.append(np.array([[low + i, high + j, low + j], [low + i, high + i, high + j]]))
    faces.append(np.array([[n + 3, n + 5, n + 4], [2 * n + 3, 2 * n + 4, 2 * n + 5]]))
    return vertices, np.vstack(faces).astype(np.int32)


def write_3mf(mesh: Mesh, name: str) -> bytes:
    """A 3MF package (core specification 1.3) with fixed dates, in mm."""
    vertices, faces = mesh
    rows = [f'<vertex x="{x:.6f}" y="{y:.6f}" z="{z:.6f}"/>' for x, y, z in vertices.tolist()]
    triangles = [f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in faces.tolist()]
    model = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<model unit="millimeter" xml:lang="en-US" '
        'xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">\n<resources>'
        f'<object id="1" type="model" name="{name}"><mesh><vertices>\n'
        + "\n".join(rows)
        + "\n</vertices><triangles>\n"
        + "\n".join(triangles)
        + '\n</triangles></mesh></object></resources>\n<build><item objectid="1"/></build>'
        "</model>\n"
    )
    types = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="model" '
        'ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>\n'
    )
    relations = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
        'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>\n'
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        for path, text in (
            ("[Content_Types].xml", types),
            ("_rels/.rels", relations),
            ("3D/3dmodel.model", model),
        ):
            info = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # the same on every system
            info.external_attr = 0o644 << 16
            package.writestr(info, text, compresslevel=9)
    return out.getvalue()


def step_shape(name: str) -> Any:
    """The part as an exact OCCT solid. Raises ImportError without the extra ``step``."""
    from OCP.BRepAlgoAPI import BRepAlgoAPI_Fuse
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeFace
    from OCP.BRepOffsetAPI import BRepOffsetAPI_ThruSections
    from OCP.BRepPrimAPI import (
        BRepPrimAPI_MakeBox,
        BRepPrimAPI_MakePrism,
        BRepPrimAPI_MakeRevol,
    )
    from OCP.gp import gp_Ax1, gp_Dir, gp_Pnt, gp_Vec

    if name == "blade":
        length, width, foot = PLATFORM
        corner = gp_Pnt(-length / 2, -width / 2, 0.0)
        box = BRepPrimAPI_MakeBox(corner, length, width, foot).Shape()
        loft = BRepOffsetAPI_ThruSections(True, False, 1e-6)
        levels = 9
        # begins inside the platform, so that the two share a volume and not a mere face
        bottom = foot / 2
        for k in range(levels + 1):
            z = bottom + (BLADE_HEIGHT - bottom) * k / levels
            share = (z - foot) / (BLADE_HEIGHT - foot)
            loft.AddWire(_spline_wire(blade_section(share, 30), z))
        return BRepAlgoAPI_Fuse(box, loft.Shape()).Shape()
    if name == "ring":
        wire = _polygon_wire([(r, 0.0, z) for r, z in ring_profile().tolist()])
        face = BRepBuilderAPI_MakeFace(wire).Face()
        axis = gp_Ax1(gp_Pnt(0, 0, 0), gp_Dir(0, 0, 1))
        return BRepPrimAPI_MakeRevol(face, axis).Shape()
    plate = [(0.0, 0.0), (RIB_LENGTH, 0.0), (RIB_LENGTH, RIB_PLATE), (RIB_PLATE, RIB_PLATE),
             (RIB_PLATE, RIB_HEIGHT), (0.0, RIB_HEIGHT)]  # fmt: skip
    web = [(0.0, 0.0), (WEB_LENGTH, 0.0), (WEB_LENGTH, RIB_PLATE), (RIB_PLATE, WEB_HEIGHT),
           (0.0, WEB_HEIGHT)]  # fmt: skip
    parts = []
    for outline, width in ((plate, RIB_WIDTH), (web, RIB_WEB)):
        wire = _polygon_wire([(x, -width / 2, z) for x, z in outline])
        face = BRepBuilderAPI_MakeFace(wire).Face()
        parts.append(BRepPrimAPI_MakePrism(face, gp_Vec(0, width, 0)).Shape())
    return BRepAlgoAPI_Fuse(parts[0], parts[1]).Shape()


def _polygon_wire(points: list[tuple[float, float, float]]) -> Any:
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakePolygon
    from OCP.gp import gp_Pnt

    polygon = BRepBuilderAPI_MakePolygon()
    for p in points:
        polygon.Add(gp_Pnt(*p))
    polygon.Close()
    return polygon.Wire()


def _spline_wire(outline: np.ndarray, z: float) -> Any:
    """The aerofoil as one spline and the trailing edge as a line."""
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeEdge, BRepBuilderAPI_MakeWire
    from OCP.collections import HArray1_gp_Pnt
    from OCP.GeomAPI import GeomAPI_Interpolate
    from OCP.gp import gp_Pnt

    points = [gp_Pnt(float(x), float(y), z) for x, y in outline]
    array = HArray1_gp_Pnt(1, len(points))
    for i, p in enumerate(points):
        array.SetValue(i + 1, p)
    curve = GeomAPI_Interpolate(array, False, 1e-7)
    curve.Perform()
    wire = BRepBuilderAPI_MakeWire(
        BRepBuilderAPI_MakeEdge(curve.Curve()).Edge(),
        BRepBuilderAPI_MakeEdge(points[-1], points[0]).Edge(),
    )
    return wire.Wire()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Let nothing through on descriptors 1 and 2: OCCT writes there past ``sys.stdout``.

    What failed is told by exceptions, which come out of the block as ever.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(fd) for fd in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for fd in (1, 2):
            os.dup2(nowhere, fd)
        yield
    finally:
        # what still lies in C buffers must not come out after the descriptors are back
        ctypes.CDLL(None).fflush(None)
        for fd, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, fd)
            os.close(copy)
        os.close(nowhere)


def write_step(shape: Any, name: str, path: Path) -> None:
    """A STEP file (AP214) in mm, with the part's name and a fixed date in its header."""
    from OCP.APIHeaderSection import APIHeaderSection_MakeHeader
    from OCP.IFSelect import IFSelect_RetDone
    from OCP.Interface import Interface_Static
    from OCP.Message import Message, Message_PrinterOStream
    from OCP.STEPCAFControl import STEPCAFControl_Writer
    from OCP.STEPControl import STEPControl_AsIs
    from OCP.TCollection import TCollection_ExtendedString, TCollection_HAsciiString
    from OCP.TDataStd import TDataStd_Name
    from OCP.TDocStd import TDocStd_Document
    from OCP.XCAFDoc import XCAFDoc_DocumentTool

    Message.DefaultMessenger_s().RemovePrinters(Message_PrinterOStream.get_type_descriptor_s())
    document = TDocStd_Document(TCollection_ExtendedString("lmd"))
    label = XCAFDoc_DocumentTool.ShapeTool_s(document.Main()).AddShape(shape, False)
    TDataStd_Name.Set_s(label, TCollection_ExtendedString(name))
    writer = STEPCAFControl_Writer()
    Interface_Static.SetCVal_s("write.step.unit", "MM")
    if not writer.Transfer(document, STEPControl_AsIs):
        raise SystemExit(f"{name}.step: OCCT could not translate the part")
    header = APIHeaderSection_MakeHeader(writer.ChangeWriter().Model())
    header.SetName(TCollection_HAsciiString(f"{name}.step"))
    header.SetTimeStamp(TCollection_HAsciiString("2020-01-01T00:00:00"))
    if writer.Write(str(path)) != IFSelect_RetDone:
        raise SystemExit(f"{name}.step: could not be written")


MAKERS = {"blade": make_blade, "ring": make_ring, "rib": make_rib}


def write_parts(folder: Path) -> list[Path]:
    """All parts in all formats that can be written here; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, maker in MAKERS.items():
        mesh = maker()
        for suffix, data in (
            ("stl", write_stl(mesh[0], mesh[1], f"LMD example part: {name}, mm")),
            ("3mf", write_3mf(mesh, name)),
        ):
            target = folder / f"{name}.{suffix}"
            temporary = folder / f".{name}.{suffix}.part"
            temporary.write_bytes(data)
            os.replace(temporary, target)
            written.append(target)
        temporary = folder / f".{name}.part.step"
        try:
            with silence():
                write_step(step_shape(name), name, temporary)
        except ImportError:
            print(f"{name}.step left out: the extra 'step' is not installed", file=sys.stderr)
            continue
        target = folder / f"{name}.step"
        os.replace(temporary, target)
        written.append(target)
    return written


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Makes the example parts.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    folder = parser.parse_args().out
    for path in write_parts(folder):
        print(f"{shown(path)}  {path.stat().st_size} bytes")
    describe()


def shown(path: Path) -> str:
    """A file's path from here, its name alone where it lies elsewhere."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return path.name


def describe() -> None:
    """Print what each part takes with the default recipe: layers and emission path."""
    from controller.config import load_cell
    from controller.geometry import make_tracks, part_figures, place_part, slice_part
    from controller.geometry.polygons import length
    from controller.model import PartMesh
    from controller.recipes import load_recipe

    cell, _ = load_cell("sim")
    recipe, _ = load_recipe("316l_general")
    for name, maker in MAKERS.items():
        vertices, faces = maker()
        mesh = PartMesh(name, vertices, faces, name, "", "mm", signed_volume(vertices, faces))
        placed = place_part(mesh, cell)
        layers = slice_part(placed, recipe, cell)
        tracks = make_tracks(layers, recipe)
        figures = part_figures(placed, layers, tracks, recipe)
        path_mm = sum(length(t.points_mm) for t in tracks)
        seconds = sum(
            length(t.points_mm) / recipe.settings_for(t.kind, t.layer).speed_mm_s for t in tracks
        )
        x, y, z = np.ptp(vertices, axis=0)
        print(
            f"{name}: {x:.1f} x {y:.1f} x {z:.2f} mm, {figures['volume_mm3']:.0f} mm³, "
            f"{len(layers)} layers, {len(tracks)} tracks, {path_mm / 1000:.2f} m of emission path "
            f"({seconds:.0f} s), deposit {figures['deposit_volume_mm3']:.0f} of "
            f"{figures['target_volume_mm3']:.0f} mm³"
        )


if __name__ == "__main__":
    main()

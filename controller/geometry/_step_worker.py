"""Reads one STEP file in a process of its own: OCP may need much memory, or never end.

``python -m controller.geometry._step_worker IN OUT MEMORY_BYTES CPU_S LINEAR_MM ANGULAR_RAD``
writes OUT (npz: vertices, faces, names, volume_mm3) or prints one JSON line {"error": ...}
and ends with code 2. Run by ``step.read_step``.
"""

import contextlib
import json
import os
import resource
import sys
from typing import Any

import numpy as np


def main() -> int:
    """Entry point."""
    source, target, memory, cpu_s, linear_mm, angular = sys.argv[1:7]
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.flush()
    answer = os.dup(1)
    os.dup2(2, 1)  # OCCT prints its own tables on stdout
    try:
        read(source, target, float(linear_mm), float(angular))
    except MemoryError:
        return _fail(answer, f"needs more than {int(memory) // 2**20} MiB of memory")
    except ImportError as exc:
        return _fail(answer, f"missing: {exc}")
    except Refused as exc:
        return _fail(answer, str(exc))
    except Exception as exc:  # a Standard_Failure of OCCT, whatever its class
        return _fail(answer, f"{type(exc).__name__}: {' '.join(str(exc).split())[:160]}")
    return 0


class Refused(Exception):
    """The file holds nothing that can be built; the message is a clause."""


def _fail(answer: int, message: str) -> int:
    os.write(answer, json.dumps({"error": message}).encode() + b"\n")
    return 2


def read(source: str, target: str, linear_mm: float, angular: float) -> None:
    """STEP -> npz. Raises Refused; other exceptions come from OCCT."""
    from OCP.BRepGProp import BRepGProp
    from OCP.BRepMesh import BRepMesh_IncrementalMesh
    from OCP.collections import Sequence_TDF_Label
    from OCP.GProp import GProp_GProps
    from OCP.IFSelect import IFSelect_RetDone
    from OCP.STEPCAFControl import STEPCAFControl_Reader
    from OCP.TCollection import TCollection_ExtendedString
    from OCP.TDocStd import TDocStd_Document
    from OCP.XCAFDoc import XCAFDoc_DocumentTool

    document = TDocStd_Document(TCollection_ExtendedString("lmd"))
    reader = STEPCAFControl_Reader()
    reader.SetNameMode(True)
    if reader.ReadFile(source) != IFSelect_RetDone:
        raise Refused("not a readable STEP file")
    if not reader.Transfer(document):
        raise Refused("nothing in it can be translated to a shape")
    tool = XCAFDoc_DocumentTool.ShapeTool_s(document.Main())
    labels = Sequence_TDF_Label()
    tool.GetFreeShapes(labels)
    solids: list[tuple[str, Any]] = []
    for i in range(1, labels.Length() + 1):
        _walk(tool, labels.Value(i), None, "", solids)
    if not solids:
        raise Refused("it holds no solid (surfaces or wires only)")
    vertices: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    names: list[str] = []
    volume = 0.0
    at = 0
    for name, solid in solids:
        properties = GProp_GProps()
        # with a wanted error: the plain call is 9 % off on a twisted spline surface
        BRepGProp.VolumeProperties_s(solid, properties, 1e-5)
        volume += abs(properties.Mass())
        BRepMesh_IncrementalMesh(solid, _chord_mm(solid, linear_mm), False, angular, False)
        points, triangles = _triangles(solid)
        if len(triangles) == 0:
            continue
        vertices.append(points)
        faces.append(triangles + at)
        at += len(points)
        names.append(name or f"solid {len(names) + 1}")
    if not faces:
        raise Refused("its solids could not be meshed")
    with open(target, "wb") as out:
        np.savez(
            out,
            vertices=np.vstack(vertices),
            faces=np.vstack(faces).astype(np.int32),
            names=np.array(names),
            volume_mm3=volume,
        )


def _chord_mm(solid: Any, most_mm: float) -> float:
    """Chord error: small parts need a finer mesh for the same error of volume."""
    from OCP.Bnd import Bnd_Box
    from OCP.BRepBndLib import BRepBndLib

    box = Bnd_Box()
    BRepBndLib.Add_s(solid, box)
    diagonal = float(np.sqrt(box.SquareExtent()))
    return min(max(1e-4 * diagonal, 0.001), most_mm)


def _walk(tool: Any, label: Any, placed: Any, name: str, out: list[tuple[str, Any]]) -> None:
    """Solids below a label with the nearest name above them, in their place."""
    from OCP.collections import Sequence_TDF_Label
    from OCP.TDF import TDF_Label
    from OCP.TopLoc import TopLoc_Location

    placed = placed if placed is not None else TopLoc_Location()
    own = _name(label)
    if tool.IsAssembly_s(label):
        parts = Sequence_TDF_Label()
        tool.GetComponents_s(label, parts)
        for i in range(1, parts.Length() + 1):
            part = parts.Value(i)
            referred = TDF_Label()
            where = placed.Multiplied(tool.GetLocation_s(part))
            if tool.GetReferredShape_s(part, referred):
                _walk(tool, referred, where, own or name, out)
            else:
                _solids(tool.GetShape_s(part), placed, _name(part) or own or name, out)
        return
    _solids(tool.GetShape_s(label), placed, own or name, out)


def _name(label: Any) -> str:
    from OCP.TDataStd import TDataStd_Name

    attribute = TDataStd_Name()
    if label.FindAttribute(TDataStd_Name.GetID_s(), attribute):
        return str(attribute.Get().ToExtString())
    return ""


def _solids(shape: Any, placed: Any, name: str, out: list[tuple[str, Any]]) -> None:
    from OCP.TopAbs import TopAbs_SOLID
    from OCP.TopExp import TopExp_Explorer
    from OCP.TopoDS import TopoDS

    explorer = TopExp_Explorer(shape.Moved(placed), TopAbs_SOLID)
    while explorer.More():
        out.append((name, TopoDS.Solid(explorer.Current())))
        explorer.Next()


def _triangles(solid: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mesh of one solid, welded: the nodes of an edge are equal on both its faces."""
    from OCP.BRep import BRep_Tool
    from OCP.TopAbs import TopAbs_FACE, TopAbs_REVERSED
    from OCP.TopExp import TopExp_Explorer
    from OCP.TopLoc import TopLoc_Location
    from OCP.TopoDS import TopoDS

    points: list[tuple[float, float, float]] = []
    triangles: list[tuple[int, int, int]] = []
    explorer = TopExp_Explorer(solid, TopAbs_FACE)
    while explorer.More():
        face = TopoDS.Face(explorer.Current())
        where = TopLoc_Location()
        mesh = BRep_Tool.Triangulation_s(face, where)
        explorer.Next()
        if mesh is None:
            continue
        base = len(points) - 1
        move = where.Transformation()
        for i in range(1, mesh.NbNodes() + 1):
            p = mesh.Node(i).Transformed(move)
            points.append((p.X(), p.Y(), p.Z()))
        turned = face.Orientation() == TopAbs_REVERSED
        for i in range(1, mesh.NbTriangles() + 1):
            a, b, c = mesh.Triangle(i).Get()
            b, c = (c, b) if turned else (b, c)
            triangles.append((base + a, base + b, base + c))
    return (
        np.array(points, np.float64).reshape(-1, 3),
        np.array(triangles, np.int64).reshape(-1, 3),
    )


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())

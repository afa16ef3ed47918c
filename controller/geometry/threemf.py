"""3MF files by lib3mf, strict: units, build items, components and their transforms."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from controller.errors import GeometryError
from controller.geometry.stl import MAX_TRIANGLES

MAX_UNPACKED_BYTES = 2_000_000_000
MAX_DEPTH = 32
# lib3mf's ModelUnit in its order (3MF core specification 1.3, section 3.4: unit)
_UNITS_MM = {0: 0.001, 1: 1.0, 2: 10.0, 3: 25.4, 4: 304.8, 5: 1000.0}
_UNIT_NAMES = {0: "micron", 1: "mm", 2: "cm", 3: "inch", 4: "foot", 5: "m"}


def read_3mf(
    path: Path, data: bytes
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], str, list[str]]:
    """Vertices in mm, faces, names of the objects built, unit, notes.

    Raises GeometryError: not a 3MF, refused by strict reading, nothing to build.
    """
    _check_zip(path, data)
    import lib3mf

    wrapper = lib3mf.Wrapper() if hasattr(lib3mf, "Wrapper") else lib3mf.get_wrapper()
    try:
        model = wrapper.CreateModel()
        reader = model.QueryReader("3mf")
        reader.SetStrictModeActive(True)
        reader.ReadFromFile(str(path))
        unit = int(model.GetUnit())
        vertices: list[np.ndarray] = []
        faces: list[np.ndarray] = []
        names: list[str] = []
        notes: list[str] = []
        items = model.GetBuildItems()
        while items.MoveNext():
            item = items.GetCurrent()
            _collect(
                path,
                item.GetObjectResource(),
                _matrix(item.GetObjectTransform()),
                (vertices, faces, names, notes),
                0,
            )
    except lib3mf.ELib3MFException as exc:
        raise GeometryError(
            f"{path}: not a valid 3MF file ({_clause(exc)}); export the part again"
        ) from None
    if not faces:
        raise GeometryError(f"{path}: its build holds no mesh; add the part to the build plate")
    if unit not in _UNITS_MM:
        raise GeometryError(f"{path}: unit {unit} is not known")
    points = np.vstack(vertices)
    if not np.isfinite(points).all():
        raise GeometryError(f"{path}: coordinates are not finite numbers; repair the mesh")
    return (
        np.ascontiguousarray(points * _UNITS_MM[unit]),
        np.ascontiguousarray(np.vstack(faces), dtype=np.int32),
        tuple(names),
        _UNIT_NAMES[unit],
        notes,
    )


def _clause(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200]


def _check_zip(path: Path, data: bytes) -> None:
    """A packed file is judged before it is unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            total = sum(info.file_size for info in packed.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as exc:
        raise GeometryError(f"{path}: not a 3MF file ({exc}); export the part again") from None
    if total > MAX_UNPACKED_BYTES:
        raise GeometryError(
            f"{path}: unpacks to {total} bytes, at most {MAX_UNPACKED_BYTES} are read"
        )


def _matrix(transform: Any) -> np.ndarray:
    """(4, 3): a row vector (x, y, z, 1) times this is the placed point, as 3MF has it."""
    return np.array([list(row) for row in transform.Fields], np.float64)


def _collect(
    path: Path,
    obj: Any,
    placed: np.ndarray,
    out: tuple[list[np.ndarray], list[np.ndarray], list[str], list[str]],
    depth: int,
) -> None:
    if depth > MAX_DEPTH:
        raise GeometryError(f"{path}: components nested deeper than {MAX_DEPTH}")
    vertices, faces, names, notes = out
    if obj.IsComponentsObject():
        for i in range(obj.GetComponentCount()):
            component = obj.GetComponent(i)
            inner = _matrix(component.GetTransform()) if component.HasTransform() else None
            both = placed if inner is None else _chain(inner, placed)
            _collect(path, component.GetObjectResource(), both, out, depth + 1)
        return
    if not obj.IsMeshObject():
        notes.append(f"Object {obj.GetName()!r} is no mesh and was left out.")
        return
    if obj.IsManifoldAndOriented() is False:
        notes.append(f"Object {obj.GetName()!r} is not a closed, oriented mesh.")
    if obj.GetTriangleCount() + sum(map(len, faces)) > MAX_TRIANGLES:
        raise GeometryError(f"{path}: more than {MAX_TRIANGLES} triangles; export it coarser")
    points = _array(obj.GetVertices(), np.float32).astype(np.float64)
    triangles = _array(obj.GetTriangleIndices(), np.uint32).astype(np.int64)
    if len(triangles) == 0:
        return
    if int(triangles.max()) >= len(points):
        raise GeometryError(f"{path}: a triangle names a vertex that is not there")
    if np.linalg.det(placed[:3]) < 0:  # a mirror turns the faces inside out
        triangles = triangles[:, ::-1]
    faces.append(triangles + sum(map(len, vertices)))
    vertices.append(points @ placed[:3] + placed[3])
    names.append(obj.GetName() or f"object {len(names) + 1}")


def _array(items: list[Any], dtype: Any) -> np.ndarray:
    """(n, 3) from lib3mf's list of packed ctypes structures."""
    if not items:
        return np.empty((0, 3), dtype)
    return np.frombuffer((type(items[0]) * len(items))(*items), dtype).reshape(-1, 3)


def _chain(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """First ``inner``, then ``outer``."""
    return np.vstack([inner[:3] @ outer[:3], inner[3] @ outer[:3] + outer[3]])

"""STL files, binary and ASCII: own reader, one pass, welded by exact coordinates."""

import struct
from pathlib import Path

import numpy as np

from controller.errors import GeometryError
from controller.geometry import _mesh

MAX_TRIANGLES = 20_000_000
_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def read_stl(path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Vertices (n, 3) float64 and faces (m, 3) int32 in the file's numbers, and notes.

    Binary is known by its length (84 + 50 n), for many binary files begin with ``solid`` too.
    Raises GeometryError for an empty, cut-off or unreadable file and for NaN.
    """
    if not data:
        raise GeometryError(f"{path}: the file is empty; export the part again")
    notes: list[str] = []
    count = struct.unpack_from("<I", data, 80)[0] if len(data) >= 84 else None
    is_binary = count is not None and len(data) == 84 + 50 * count
    if not is_binary and _looks_ascii(data):
        corners = _mesh.parse_ascii_stl(np.frombuffer(data + b"\0", np.uint8))
        if len(corners) % 3 and np.isfinite(corners).all():
            raise GeometryError(
                f"{path}: {len(corners)} vertices are not whole triangles, the file was cut off; "
                "export the part again"
            )
    elif count is None:
        raise GeometryError(
            f"{path}: {len(data)} bytes are neither a binary STL (at least 84) nor an ASCII one; "
            "export the part again"
        )
    else:
        if len(data) < 84 + 50 * count:
            raise GeometryError(
                f"{path}: the header promises {count} triangles ({84 + 50 * count} bytes), the "
                f"file has {len(data)} bytes; it was cut off or is no STL, export it again"
            )
        if len(data) > 84 + 50 * count:
            notes.append(f"{len(data) - 84 - 50 * count} bytes after the last triangle ignored.")
        _check_count(path, count)
        records = np.frombuffer(data, _RECORD, count, 84)
        corners = np.ascontiguousarray(records["corners"]).reshape(-1, 3)
    _check_count(path, len(corners) // 3)
    if len(corners) == 0:
        raise GeometryError(f"{path}: no triangles in it; export the part again")
    bad = int((~np.isfinite(corners).all(1)).sum())
    if bad:
        raise GeometryError(
            f"{path}: {bad} of {len(corners)} corners are not finite numbers; repair the mesh"
        )
    vertices, ids = _mesh.weld(corners)
    return vertices, ids.reshape(-1, 3), notes


def _check_count(path: Path, count: int) -> None:
    if count > MAX_TRIANGLES:
        raise GeometryError(
            f"{path}: {count} triangles, at most {MAX_TRIANGLES} are read; export it coarser"
        )


def _looks_ascii(data: bytes) -> bool:
    head = data[:2048].lstrip().lower()
    return head.startswith(b"solid") and (b"facet" in head or b"endsolid" in data[-512:].lower())


def write_stl(vertices_mm: np.ndarray, faces: np.ndarray, title: str) -> bytes:
    """A binary STL. The same mesh gives the same bytes."""
    if title.lower().startswith("solid"):
        raise ValueError("a binary STL's title must not begin with 'solid'")
    corners = vertices_mm[faces].astype("<f4")
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    records = np.zeros(len(faces), _RECORD)
    records["normal"] = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    records["corners"] = corners
    header = title.encode("ascii")[:80].ljust(80, b" ")
    return header + struct.pack("<I", len(faces)) + records.tobytes()

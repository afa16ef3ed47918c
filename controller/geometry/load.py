"""One door for part files: suffix, units, caps, repair, scale and rotation."""

import hashlib
import math
import struct
from pathlib import Path

import numpy as np

from controller.errors import GeometryError
from controller.geometry.repair import repair, shell_faces, signed_volume
from controller.geometry.stl import read_stl
from controller.model import PartMesh

UNIT_MM = {"mm": 1.0, "inch": 25.4, "m": 1000.0}
MAX_BYTES = {".stl": 2_000_000_000, ".3mf": 300_000_000, ".step": 300_000_000}
SUFFIXES = ".stl, .3mf, .step, .stp, .obj, .ply, .off"
LARGEST_MM = 100_000.0  # beyond this a unit was mistaken, whatever the cell


def load_part(
    path: str | Path,
    *,
    units: str | None = None,
    scale: float = 1.0,
    rotate: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> PartMesh:
    """Read a part file into a repaired mesh in mm.

    Parameters
    ----------
    path : STL, OBJ, PLY, OFF (no unit of their own), 3MF or STEP
    units : "mm" | "inch" | "m" or None; what the numbers of a mesh without unit mean
            (None: mm). Refused for 3MF and STEP, which carry their own.
    scale : > 0, applied to the part in mm
    rotate : degrees about the fixed X, then Y, then Z axis
    Raises GeometryError: one sentence with the file and what to do.
    """
    path = Path(path)
    if units is not None and units not in UNIT_MM:
        raise GeometryError(f"--units {units!r} is not one of mm, inch, m")
    if not (math.isfinite(scale) and 0 < scale <= 1e6):
        raise GeometryError(f"--scale {scale:g} is not above 0 and at most 1e6")
    if len(rotate) != 3 or not all(math.isfinite(a) for a in rotate):
        raise GeometryError(f"--rotate {rotate} is not three angles in degrees")
    suffix = path.suffix.lower()
    suffix = ".step" if suffix == ".stp" else suffix
    _check_file(path, suffix)
    if units is not None and suffix in (".3mf", ".step"):
        raise GeometryError(
            f"{path}: a {suffix[1:].upper()} file carries its own unit; leave out --units {units}"
        )
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise GeometryError(f"{path}: cannot be read ({exc.strerror})") from None
    sha256 = hashlib.sha256(data).hexdigest()
    solids: tuple[str, ...] = ()
    exact_mm3: float | None = None
    if suffix == ".stl":
        vertices, faces, notes = read_stl(path, data)
    elif suffix == ".3mf":
        from controller.geometry.threemf import read_3mf

        vertices, faces, solids, units, notes = read_3mf(path, data)
    elif suffix == ".step":
        from controller.geometry.step import read_step

        vertices, faces, solids, exact_mm3, notes = read_step(path, sha256)
        units = "mm"
    else:
        vertices, faces, notes = _read_other(path, suffix)
    factor = (UNIT_MM[units or "mm"] if suffix not in (".3mf", ".step") else 1.0) * scale
    vertices = (vertices * factor) @ _rotation(rotate).T
    _check_size(path, vertices, units or "mm")
    vertices, faces, top, repairs = repair(np.ascontiguousarray(vertices), faces)
    if len(faces) == 0:
        raise GeometryError(f"{path}: nothing is left after its degenerate triangles are removed")
    shell = shell_faces(vertices, faces, top)
    volume = signed_volume(vertices, faces[~shell]) if not shell.all() else 0.0
    extents = np.ptp(vertices, axis=0)
    if top.is_closed and not abs(volume) > 1e-9 * float(np.prod(np.maximum(extents, 1e-6))):
        raise GeometryError(
            f"{path}: the mesh encloses no volume ({volume:.3g} mm³); export a solid"
        )
    if shell.any():
        repairs.append(
            f"{len(np.unique(top.body[shell]))} open shells are built one bead wide, along the "
            "surface; close them to have them filled."
        )
    if not top.is_closed and not shell.all():
        n_open = int((top.forward != top.backward).sum())
        repairs.append(f"The surface is open at {n_open} edges; its volume is an estimate.")
    if exact_mm3 is not None:
        exact_mm3 *= scale**3
        share = abs(volume - exact_mm3) / exact_mm3 if exact_mm3 > 0 else 0.0
        notes.append(f"Exact volume {exact_mm3:.6g} mm³, the mesh differs by {100 * share:.3g} %.")
    return PartMesh(
        name=path.stem,
        vertices_mm=np.ascontiguousarray(vertices),
        faces=np.ascontiguousarray(faces, dtype=np.int32),
        source_name=path.name,
        source_sha256=sha256,
        units=units or "mm",
        volume_mm3=volume if exact_mm3 is None or exact_mm3 <= 0 else exact_mm3,
        solids=solids,
        notes=(*notes, *repairs),
    )


def _check_file(path: Path, suffix: str) -> None:
    try:
        if path.is_dir():
            raise GeometryError(f"{path}: is a folder, give a part file ({SUFFIXES})")
        if not path.exists():
            raise GeometryError(f"{path}: no such file")
        if suffix not in (".stl", ".3mf", ".step", ".obj", ".ply", ".off"):
            raise GeometryError(f"{path}: a part file ends in one of {SUFFIXES}")
        if not path.is_file():
            raise GeometryError(f"{path}: is not a regular file")
        size = path.stat().st_size
    except (OSError, ValueError) as exc:
        raise GeometryError(f"{str(path)!r}: cannot be read ({exc})") from None
    cap = MAX_BYTES.get(suffix, MAX_BYTES[".3mf"])
    if size > cap:
        raise GeometryError(
            f"{path}: {size} bytes, at most {cap} are read of a {suffix} file; export it coarser"
        )
    if size == 0:
        raise GeometryError(f"{path}: the file is empty; export the part again")


def _check_size(path: Path, vertices: np.ndarray, units: str) -> None:
    if len(vertices) == 0:
        raise GeometryError(f"{path}: no triangles in it; export the part again")
    if not np.isfinite(vertices).all():
        raise GeometryError(f"{path}: coordinates are not finite numbers; repair the mesh")
    largest = float(np.ptp(vertices, axis=0).max())
    if largest > LARGEST_MM or float(np.abs(vertices).max()) > 1e3 * LARGEST_MM:
        raise GeometryError(
            f"{path}: {largest:.4g} mm large when its numbers are {units}; "
            "check --units and --scale"
        )
    if largest <= 0:
        raise GeometryError(f"{path}: all its points are one; export the part again")


def _rotation(rotate_deg: tuple[float, float, float]) -> np.ndarray:
    """(3, 3) matrix: about fixed X, then Y, then Z. Quarter turns are exact."""
    turn = np.eye(3)
    for axis, angle in enumerate(rotate_deg):
        quarter, rest = divmod(angle, 90.0)
        if rest == 0.0:
            c, s = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(quarter) % 4]
        else:
            c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[i, i], step[i, j], step[j, i], step[j, j] = c, -s, s, c
        turn = step @ turn
    return turn


def _read_other(path: Path, suffix: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """OBJ, PLY and OFF through trimesh, welded by our own rule."""
    import trimesh

    from controller.geometry import _mesh

    try:
        mesh = trimesh.load_mesh(path, file_type=suffix[1:], process=False)
        corners = np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces)].reshape(-1, 3)
    except (ValueError, IndexError, KeyError, AttributeError, TypeError, struct.error) as exc:
        raise GeometryError(f"{path}: not a readable {suffix[1:].upper()} file ({exc})") from None
    if len(corners) == 0:
        raise GeometryError(f"{path}: no triangles in it; export the part again")
    if not np.isfinite(corners).all():
        raise GeometryError(f"{path}: coordinates are not finite numbers; repair the mesh")
    vertices, ids = _mesh.weld(np.ascontiguousarray(corners))
    return vertices, ids.reshape(-1, 3), []

"""STEP files by OCP in a process of its own, with time and memory limits and a cache.

A mesh is kept in ``$XDG_CACHE_HOME/lmd/step`` (else ``~/.cache/lmd/step``) by the file's
hash and the meshing tolerance: reading costs seconds, the cache milliseconds.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from controller.errors import GeometryError

LINEAR_MM = 0.02  # greatest chord error; 1e-4 of a solid's diagonal where that is less
ANGULAR_RAD = 0.1
MEMORY_BYTES = 8 * 2**30  # address space; OCP alone maps most of 1 GiB
CPU_S = 300
WALL_S = 600
_FORMAT = 2  # of the cached file; raise it when its content changes


def read_step(
    path: Path, sha256: str
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], float, list[str]]:
    """Vertices in mm, faces, names of the solids, exact volume mm³, notes.

    Raises GeometryError: OCP not installed, unreadable, no solid, over time or memory.
    """
    from controller.geometry import _mesh

    key = f"{sha256}-{_FORMAT}-{LINEAR_MM:g}-{ANGULAR_RAD:g}.npz"
    cached = _cache_folder() / key
    content = _load(cached)
    if content is None:
        with tempfile.TemporaryDirectory(prefix="lmd-step-") as folder:
            made = Path(folder) / "mesh.npz"
            _run_worker(path, made)
            content = _load(made)
            if content is None:
                raise GeometryError(f"{path}: reading the STEP file gave no mesh")
            _keep(made, cached)
    vertices, faces, names, volume = content
    welded, ids = _mesh.weld(vertices)
    return welded, np.ascontiguousarray(ids[faces]), names, volume, []


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "lmd" / "step"


def _load(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], float] | None:
    """The mesh in a file; None when there is none, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as data:
            vertices = np.ascontiguousarray(data["vertices"], np.float64)
            faces = np.ascontiguousarray(data["faces"], np.int32)
            names = tuple(str(n) for n in data["names"])
            volume = float(data["volume_mm3"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    fits = faces.ndim == 2 and faces.shape[1] == 3 and vertices.shape[1:] == (3,)
    if not fits or len(faces) == 0 or faces.min() < 0 or faces.max() >= len(vertices):
        return None
    return vertices, faces, names, volume


def _keep(made: Path, cached: Path) -> None:
    """Into the cache, whole or not at all; a cache that cannot be written is no error."""
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=cached.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(made.read_bytes())
            os.replace(temporary, cached)
        except OSError:
            os.unlink(temporary)


def _run_worker(path: Path, target: Path) -> None:
    command = [sys.executable, "-m", "controller.geometry._step_worker", str(path.resolve())]
    command += [str(target), str(MEMORY_BYTES), str(CPU_S), str(LINEAR_MM), str(ANGULAR_RAD)]
    root = Path(__file__).resolve().parents[2]
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(root), *filter(None, [environment.get("PYTHONPATH", "")])]
    )
    environment.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=WALL_S, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise GeometryError(
            f"{path}: reading took longer than {WALL_S} s; simplify the STEP file or export STL"
        ) from None
    if done.returncode == 0:
        return
    reason = ""
    with contextlib.suppress(ValueError, IndexError, KeyError, TypeError):
        reason = str(json.loads(done.stdout.splitlines()[-1])["error"])
    if reason.startswith("missing: "):
        raise GeometryError(
            f"{path}: STEP needs the extra 'step' ({reason[9:]}); "
            "install it with: make setup, or export the part as STL or 3MF"
        )
    if not reason:
        reason = (
            f"reading ended with signal {-done.returncode} (limits: {CPU_S} s of processor, "
            f"{MEMORY_BYTES // 2**30} GiB)"
            if done.returncode < 0
            else f"reading ended with code {done.returncode}"
        )
    raise GeometryError(f"{path}: {reason}; export the part again as STEP, 3MF or STL")

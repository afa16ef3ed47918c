"""Builds on the whole simulated cell for tests: small parts, processes, a client."""

import contextlib
import functools
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from controller import launch
from controller.api.client import Client
from controller.build import Wish, build_part, make_ready, running_cell
from controller.config import find_file, load_cell
from controller.model import BuildPlan
from controller.planning import write_job
from controller.session import prepare_plan

ROOT = Path(__file__).resolve().parents[2]


def write_box(path: Path, size_mm: tuple[float, float, float]) -> Path:
    """A box as binary STL, written here by hand."""
    x, y, z = size_mm
    corner = np.array([[i & 1, (i >> 1) & 1, i >> 2] for i in range(8)]) * [x, y, z]
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    body = b""
    for a, b, c, d in quads:
        for tri in ((a, b, c), (a, c, d)):
            body += struct.pack("<12fH", 0, 0, 0, *corner[list(tri)].ravel(), 0)
    path.write_bytes(b"box".ljust(80) + struct.pack("<I", 12) + body)
    return path


def build(part: Path, out: Path, **wish: Any) -> dict[str, Any]:
    """The main job in this process's name; what ``lmd run --json`` prints."""
    return build_part(Wish(part=part, out=out, **wish))


@functools.lru_cache(maxsize=4)
def _planned(part: Path, cell: str) -> BuildPlan:
    """A plan is the same each time; builds of one part need it once."""
    return prepare_plan(part, cell=cell)


@contextlib.contextmanager
def started_build(
    part: Path, folder: Path, *, time_mode: str, cell: str = "sim"
) -> Iterator[dict[str, Any]]:
    """A build that has just been started on a cell of its own processes.

    Yields server, simulator ready line, client, record folder and run folder; ends every
    process by its id.
    """
    cell_path = find_file("cells", cell)
    model, _ = load_cell(cell)
    run_dir = launch.short_run_dir()
    plan = _planned(part, cell)
    job = run_dir / "job.lmdjob"
    write_job(plan, job)
    record = folder / "record"
    record.mkdir(parents=True)
    with running_cell(
        cell_path, model, run_dir, time_mode=time_mode, trace_dir=record, seed=3
    ) as server:
        told = json.loads((run_dir / "server.json").read_text())
        simulator = json.loads((run_dir / "simulator.json").read_text())
        with Client(run_dir, role="engineer", name="test") as client:
            make_ready(client)
            client.call("load_job", path=str(job))
            client.call("start", record_dir=str(record), mode="development")
            yield {
                "client": client,
                "server": server,
                "told": told,
                "simulator": simulator,
                "record": record,
                "plan": plan,
            }


def example(name: str) -> Path:
    """An example part; made by ``make setup``."""
    path = ROOT / "examples" / name
    if not path.exists():
        raise FileNotFoundError(f"{path.name} is missing: python examples/make_parts.py")
    return path

"""Where a machine with its own planner went, against the path it was given.

Its blocks are not the plan's segments, so nothing can be compared to the step. What can: each
place at which light was on must lie on the planned path, and each planned place of a bead must
have been lit. Both are said in mm, with what they were compared from.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from controller.config import Cell
from controller.model import BuildPlan
from controller.planning.path.kinematics import tip_of_steps
from controller.planning.rest.parts import Part
from controller.planning.rest.resume import ends_steps
from controller.record.reader import Record, Trace
from firmware_bridge.segments import FLAG_GATE, FLAG_PARAM

ROW_S = 0.01  # between two rows of a trace
CUBE_MM = 0.5
PIECE_MM = 0.3
# a bead that was left out must not be hidden by the one above it, a fraction of a mm away
HEIGHT_COUNTS = np.array([1.0, 1.0, 10.0])


def lit_places(record: Record, trace: Trace | None, cell: Cell) -> tuple[np.ndarray, str]:
    """Places with the gate open, (n, 3) mm in plan coordinates, and where they are from."""
    if trace is not None and len(trace.rows("plant")):
        rows = trace.rows("plant")
        rows = rows[rows["gate"] != 0]
        motion = cell.motion
        zero = np.array(motion.work_offset_mm) - np.array(motion.tool_offset_mm)
        return np.stack([rows["x_mm"], rows["y_mm"], rows["z_mm"]], axis=1) - zero, "trace"
    rows = record.telemetry
    rows = rows[rows["gate"] > 0.5]
    places = np.stack([rows[k].astype(np.float64) for k in ("x_mm", "y_mm", "z_mm")], axis=1)
    return places[np.isfinite(places).all(axis=1)], "telemetry"


def time_and_layers(plant: np.ndarray, plan: BuildPlan, cell: Cell) -> dict[str, Any]:
    """``duration_s`` and ``layers`` from the trace's rows; None where nothing moved or shone."""
    figures: dict[str, Any] = {"duration_s": None, "layers": None}
    place = np.stack([plant["x_mm"], plant["y_mm"], plant["z_mm"]], axis=1)
    moved = np.append(False, (np.diff(place, axis=0) != 0.0).any(axis=1)) & (plant["armed"] != 0)
    if moved.any():
        first, last = np.flatnonzero(moved)[[0, -1]]
        figures["duration_s"] = float(plant["t_us"][last] - plant["t_us"][first]) * 1e-6 + ROW_S
    lit = plant["gate"] != 0
    if lit.any():
        motion = cell.motion
        heights = plant["z_mm"][lit] - (motion.work_offset_mm[2] - motion.tool_offset_mm[2])
        wanted = plan.layers["z_mm"]
        near = np.abs(heights[:, None] - wanted[None, :]) <= _same_height(wanted)
        figures["layers"] = int(near.any(axis=0).sum())
    return figures


def _same_height(layers_mm: np.ndarray) -> float:
    """Places of one layer differ by no more in height, mm."""
    return 0.25 * float(np.diff(layers_mm).min()) if len(layers_mm) > 1 else 0.1


def check_path(
    record: Record, trace: Trace | None, parts: Sequence[Part], cell: Cell
) -> dict[str, Any]:
    """Executed places against the planned path.

    Keys: ``source`` (trace or telemetry), ``places`` compared (one each 10 ms of light),
    ``off_path_mm`` (the farthest from the planned path), ``unlit_mm`` (the planned bead's place
    that is farthest from any executed one, height counted tenfold; for a whole build only),
    ``tolerance_mm`` (of the path, from the cell) and ``within``. The two lengths are None
    without a place.
    """
    places, source = lit_places(record, trace, cell)
    tip = tip_of_steps(cell)
    starts, ends, lit = [], [], []
    for part in parts:
        steps = ends_steps(part.plan)
        moves = (part.plan.segments["flags"] & FLAG_PARAM) == 0
        mm = np.array([tip(row) for row in steps.tolist()])
        starts.append(mm[:-1][moves])
        ends.append(mm[1:][moves])
        lit.append((part.plan.segments["flags"][moves] & FLAG_GATE) != 0)
    a, b, on = np.concatenate(starts), np.concatenate(ends), np.concatenate(lit)
    step_mm = max(1.0 / axis.steps_per_mm for axis in cell.motion.axes)
    tolerance = cell.motion.path_tolerance_mm + step_mm
    told: dict[str, Any] = {
        "source": source,
        "places": len(places),
        "off_path_mm": None,
        "unlit_mm": None,
        "tolerance_mm": tolerance,
        "within": None,
    }
    if not len(places) or not on.any():
        return told
    off = _farthest(places, a, b)
    told["off_path_mm"] = off
    told["within"] = bool(off <= tolerance)
    if record.state == "COMPLETE":
        # executed places of one bead follow each other: light goes on from one to the next
        near = np.linalg.norm(np.diff(places, axis=0), axis=1) < 1.0
        told["unlit_mm"] = _farthest(
            b[on] * HEIGHT_COUNTS,
            places[:-1][near] * HEIGHT_COUNTS,
            places[1:][near] * HEIGHT_COUNTS,
        )
    return told


def _farthest(places: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Greatest distance of places from the nearest of straight pieces a to b, mm.

    Pieces are cut short and sorted into cubes: a place looks into its own cube and those around.
    One that finds nothing so near is measured from all pieces.
    """
    n = np.maximum(np.ceil(np.linalg.norm(b - a, axis=1) / PIECE_MM), 1.0).astype(np.int64)
    piece = np.repeat(np.arange(len(a)), n)
    share = np.arange(len(piece)) - np.repeat(np.cumsum(n) - n, n)
    way = (b - a)[piece] / n[piece][:, None]
    begin = a[piece] + share[:, None] * way
    corner = np.floor(np.minimum(begin.min(axis=0), places.min(axis=0)) / CUBE_MM) - 1.0
    size = np.floor(np.maximum(begin.max(axis=0), places.max(axis=0)) / CUBE_MM) - corner + 3.0
    weight = np.array([size[1] * size[2], size[2], 1.0]).astype(np.int64)

    def cube(p: np.ndarray) -> np.ndarray:
        return np.asarray((np.floor(p / CUBE_MM) - corner).astype(np.int64) @ weight)

    own = cube(begin + 0.5 * way)
    order = np.argsort(own, kind="stable")
    own, begin, way = own[order], begin[order], way[order]
    around = np.array([[i, j, -1] for i in (-1, 0, 1) for j in (-1, 0, 1)]) @ weight
    where = cube(places)
    rows = np.argsort(where, kind="stable")
    cubes, first = np.unique(where[rows], return_index=True)
    worst = 0.0
    for key, some in zip(cubes, np.split(rows, first[1:]), strict=True):
        low = np.searchsorted(own, key + around)  # three cubes in a row of Z lie side by side
        high = np.searchsorted(own, key + around + 3)
        index = np.concatenate([np.arange(i, j) for i, j in zip(low, high, strict=True)])
        gap = _gaps(places[some], begin[index], way[index]) if len(index) else None
        if gap is None or gap.max() > CUBE_MM - 0.5 * PIECE_MM:
            far = some if gap is None else some[gap > CUBE_MM - 0.5 * PIECE_MM]
            worst = max(worst, *(float(_gaps(places[[i]], begin, way)[0]) for i in far))
            gap = None if gap is None else gap[gap <= CUBE_MM - 0.5 * PIECE_MM]
        if gap is not None and len(gap):
            worst = max(worst, float(gap.max()))
    return worst


def _gaps(p: np.ndarray, begin: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Distance of each place from the nearest piece, mm."""
    square = np.maximum((way * way).sum(axis=1), 1e-18)
    to = p[:, None, :] - begin[None, :, :]
    share = np.clip((to * way[None, :, :]).sum(axis=2) / square, 0.0, 1.0)
    gap = to - share[:, :, None] * way[None, :, :]
    return np.asarray(np.sqrt((gap * gap).sum(axis=2).min(axis=1)))

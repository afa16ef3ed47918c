"""Which moves of a job's beads are arcs: middle points, kept as text in its meta data.

``path_mm`` follows an arc by points on it (``figures.path_points``); the text says which points
belong to one arc. Text, because jobs without arcs are the rule and their bytes must not change.
"""

import base64
import binascii
import math
from typing import Any

import numpy as np

from controller.errors import PlanError
from controller.model import BuildPlan
from controller.planning.path.arcs import Arcs
from controller.planning.path.motion_path import MovePath

KEY = "arcs"
COLUMNS = 5  # index into path_mm of the arc's first and last point; x, y, z of its middle


def arc_meta(path: MovePath, n_between: np.ndarray) -> dict[str, Any]:
    """The entry for the meta data; no arcs: no entry.

    ``n_between`` (n,) int64: points of ``path_mm`` between the ends of each of the path's moves.
    """
    if path.through_mm is None:
        return {}
    rows, first_point = [], 0
    for a, b in zip(path.beads["first_move"].tolist(), path.beads["end_move"].tolist(),
                    strict=True):  # fmt: skip
        own = path.through_mm[a:b]
        place = first_point + np.concatenate([[0], np.cumsum(n_between[a:b] + 1)])
        at = np.flatnonzero(~np.isnan(own).all(axis=1))
        rows.append(np.column_stack([place[at], place[at + 1], own[at]]))
        first_point = int(place[-1]) + 1
    return _entry(np.concatenate(rows))


def _entry(rows: np.ndarray) -> dict[str, Any]:
    flat = rows.astype("<f8")
    return {KEY: base64.b64encode(flat.tobytes()).decode("ascii")} if len(flat) else {}


def _rows(plan: BuildPlan) -> np.ndarray:
    """(k, 5) rows; PlanError when the text is none of ``arc_meta``."""
    text = plan.meta.get(KEY)
    if text is None:
        return np.zeros((0, COLUMNS))
    try:
        rows = np.frombuffer(base64.b64decode(text, validate=True), "<f8").reshape(-1, COLUMNS)
        ends = rows[:, :2]
        if not (np.isfinite(rows).all() and (ends == np.floor(ends)).all()):
            raise ValueError("a row is no pair of indices and a point")
        within = (ends[:, 0] >= 0) & (ends[:, 0] < ends[:, 1]) & (ends[:, 1] < len(plan.path_mm))
        if not within.all():
            raise ValueError(f"row {int(np.argmin(within))} is outside of the path")
    except (TypeError, ValueError, binascii.Error) as exc:
        raise PlanError(f"the job's arcs cannot be read: {exc}") from None
    return rows


def bead_moves(plan: BuildPlan) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Ends of each track's moves, (n + 1, 3) mm, and middles of its arcs, (n, 3); NaN: straight.

    Without arcs in the whole plan the middles are None. Raises PlanError as the text is read.
    """
    rows = _rows(plan)
    found: list[tuple[np.ndarray, np.ndarray | None]] = []
    for track in plan.tracks:
        first = int(track["first_point"])
        points = plan.path_mm[first : first + int(track["n_points"])]
        if not len(rows):
            found.append((points, None))
            continue
        own = rows[(rows[:, 0] >= first) & (rows[:, 1] < first + len(points))]
        keep = np.ones(len(points), dtype=bool)
        through = np.full((len(points), 3), np.nan)  # of the move that leads to a point
        for a, b, *middle in own.tolist():
            keep[int(a) - first + 1 : int(b) - first] = False
            through[int(b) - first] = middle
        found.append((points[keep], through[keep][1:]))
    return found


def cut_arcs(plan: BuildPlan, first_kept: int, path_mm: np.ndarray) -> dict[str, Any]:
    """The entry of a rest of the plan, whose points from ``first_kept`` on end ``path_mm``.

    Its first point is a new one. An arc that is cut there keeps what is left of it: the point,
    on a chord until now, is moved onto the circle (in place). With no other point left on it the
    arc is straight.
    """
    rows = _rows(plan)
    rows = rows[rows[:, 1] >= first_kept].copy()
    cut = rows[:, 0] < first_kept
    for row in rows[cut]:
        ends = plan.path_mm[row[:2].astype(np.int64)]
        circle = Arcs.of(ends, row[None, 2:])
        out, along = circle.out[0], circle.along[0]
        begun = _angle(path_mm[0] - circle.centre_mm[0], out, along)
        path_mm[0] = circle.place(np.zeros(1, np.int64), np.array([begun]))[0]
        middle = 0.5 * (begun + float(circle.angle[0]))
        rows[cut, 2:] = circle.place(np.zeros(1, np.int64), np.array([middle]))
    rows[:, :2] += len(path_mm) - len(plan.path_mm)
    rows[cut, 0] = 0.0
    return _entry(rows[~cut | (rows[:, 1] >= 2)])


def _angle(way: np.ndarray, out: np.ndarray, along: np.ndarray) -> float:
    """Angle of a way from an arc's centre, from its start, rad in 0 to 2 pi."""
    return math.atan2(float(way @ along), float(way @ out)) % (2.0 * math.pi)

"""Which moves of a job's beads are arcs: middle points, kept as text in its meta data.

``path_mm`` holds the ends of moves only. Text, because jobs without arcs are the rule and
their bytes must not change.
"""

import base64
import binascii
from typing import Any

import numpy as np

from controller.errors import PlanError
from controller.model import BuildPlan
from controller.planning.path.motion_path import MovePath

KEY = "arcs"


def arc_meta(path: MovePath) -> dict[str, Any]:
    """The entry for the meta data: rows of index into ``path_mm``, x, y, z; none: no entry."""
    if path.through_mm is None:
        return {}
    rows, first_point = [], 0
    for a, b in zip(path.beads["first_move"].tolist(), path.beads["end_move"].tolist(),
                    strict=True):  # fmt: skip
        own = path.through_mm[a:b]
        at = np.flatnonzero(~np.isnan(own).all(axis=1))
        rows.append(np.column_stack([first_point + at + 1, own[at]]))
        first_point += b - a + 1
    flat = np.concatenate(rows).astype("<f8")
    return {KEY: base64.b64encode(flat.tobytes()).decode("ascii")} if len(flat) else {}


def arc_middles(plan: BuildPlan) -> np.ndarray | None:
    """(n, 3) middle of the arc that leads to each point of ``path_mm``; NaN: straight.

    None: all moves are straight. Raises PlanError when the text is none of ``arc_meta``.
    """
    text = plan.meta.get(KEY)
    if text is None:
        return None
    middles = np.full((len(plan.path_mm), 3), np.nan)
    try:
        rows = np.frombuffer(base64.b64decode(text, validate=True), "<f8").reshape(-1, 4)
        middles[rows[:, 0].astype(np.int64)] = rows[:, 1:]
    except (TypeError, ValueError, IndexError, binascii.Error) as exc:
        raise PlanError(f"the job's arcs cannot be read: {exc}") from None
    return middles

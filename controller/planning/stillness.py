"""How long no axis steps with the gate open: the motion controller cuts emission at 50 ms.

Worked out from the segments themselves. Steps of a segment's busiest axis are taken in the
middle between two positions, other axes only make it shorter: an upper bound, to a step.
"""

from dataclasses import dataclass

import numpy as np

from controller.config import Cell
from controller.errors import PlanError
from firmware_bridge.segments import FLAG_DWELL, FLAG_GATE, FLAG_PARAM, RATIO_ONE, TICK_S, ticks_of

FIRMWARE_STILL_S = 0.050  # docs/protocol.md section 7, STILL
NEAR_STILL_S = 0.040  # told as a warning from here on


@dataclass(frozen=True)
class Still:
    """The longest time without a step while light is commanded."""

    seconds: float
    segment: int  # in which it ends; -1: there is none


def longest_still(segments: np.ndarray) -> Still:
    """Over all segments with the gate open that are no dwell."""
    rows = np.flatnonzero((segments["flags"] & FLAG_PARAM) == 0)
    own = segments[rows]
    lit = (own["flags"] & (FLAG_GATE | FLAG_DWELL)) == FLAG_GATE
    if not lit.any():
        return Still(0.0, -1)
    t = ticks_of(own).astype(np.float64) * TICK_S
    begin = np.cumsum(t) - t
    n = np.abs(own["steps"].astype(np.int64)).max(axis=1)
    moving = np.flatnonzero(lit & (n > 0))
    first, last, inner = _steps(n[moving], own["start_ratio"][moving] / RATIO_ONE)
    # what happens in order: light on, steps, light off
    edge = np.diff(np.concatenate([[False], lit, [False]]).astype(np.int8))
    ons, offs = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
    ends = np.append(begin, begin[-1] + t[-1])
    at = np.concatenate([ends[ons], begin[moving] + first * t[moving],
                         begin[moving] + last * t[moving], ends[offs]])  # fmt: skip
    where = np.concatenate([ons, moving, moving, offs - 1])
    rank = np.repeat([0, 1, 2, 3], [len(ons), len(moving), len(moving), len(offs)])
    # within a segment: its own order; light off is of the segment before it
    order = np.lexsort((rank, where))
    at, where, rank = at[order], where[order], rank[order]
    gap = np.append(0.0, np.diff(at))
    gap[(rank == 0) | (rank == 2)] = 0.0  # dark before; within a segment: below
    inside = np.zeros(len(own))
    inside[moving] = inner * t[moving]
    worst = int(np.argmax(gap))
    deepest = int(np.argmax(inside))
    if inside[deepest] > gap[worst]:
        return Still(float(inside[deepest]), int(rows[deepest]))
    return Still(float(gap[worst]), int(rows[where[worst]]))


def _steps(n: np.ndarray, ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last step and the longest time between two, as shares of the segment."""

    def when(place: np.ndarray) -> np.ndarray:
        """ratio x + (1 - ratio) x^2 = place / n"""
        share = place / n
        root = np.sqrt(np.maximum(ratio * ratio + 4.0 * (1.0 - ratio) * share, 0.0))
        return np.asarray(np.clip(2.0 * share / np.maximum(ratio + root, 1e-12), 0.0, 1.0))

    first, last = when(np.full(len(n), 0.5)), when(n - 0.5)
    second, before = when(np.minimum(1.5, n - 0.5)), when(np.maximum(n - 1.5, 0.5))
    return first, last, np.maximum(second - first, last - before)


def check_still(still: Still, segment_bead: int, cell: Cell, least_override: float) -> list[str]:
    """Warnings; raises PlanError where the motion controller would cut the emission.

    ``least_override``: of the speed, that an operator may set: it makes standing longer.
    """
    coarsest = min(cell.motion.machine_axes[:3], key=lambda a: a.steps_per_unit)
    place = (
        f"bead {segment_bead}: no axis steps for {still.seconds * 1e3:.1f} ms with the gate open"
    )
    why = (
        f"the motion controller cuts emission at {FIRMWARE_STILL_S * 1e3:g} ms (STILL); speed or "
        f"corners are too slow for motion.axes {coarsest.name} steps "
        f"{coarsest.steps_per_unit:g} 1/mm of cell {cell.name!r}"
    )
    if still.seconds >= FIRMWARE_STILL_S:
        raise PlanError(f"{place}, {why}")
    longest_s = still.seconds / least_override
    if longest_s > NEAR_STILL_S:
        slow = f" ({longest_s * 1e3:.1f} ms at an override of {least_override:g})"
        return [f"{place}{slow if least_override < 1.0 else ''}: near {why}"]
    return []

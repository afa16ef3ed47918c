"""Trapezoid look-ahead of whole layers against Klipper's algorithm in Python, and toppra.

Three rivals by Klipper's rule, named in the table: its algorithm as published, retold in
Python (tests/unit/klipper_queue.py, what the goal speaks of); the same rule stripped to its
arithmetic (tests/unit/klipper_twin.py, the tests' oracle, harder to beat); and Klipper's own
classes when LMD_KLIPPER names a checkout.
"""

from typing import Any

import numpy as np

from benchmarks import klipper_original, paths, rivals
from benchmarks.measure import interleaved, row
from controller import _motion
from tests.unit import klipper_queue, klipper_twin

AREA = "planner"
MOVES_GOAL, RATIO_GOAL, TWIN_GOAL = 20e6, 200.0, 150e3
TOPPRA_MOVES = 20_000
PUBLISHED = "Klipper's published algorithm in Python"
LEAN = "Klipper's rule, lean Python"
ITS_OWN = "Klipper (its own classes)"


def _plan(points: np.ndarray) -> Any:
    speed = np.full(len(points) - 1, paths.SPEED_MM_S)
    return _motion.plan_trapezoid(
        points, speed, paths.ACCEL_MM_S2, paths.DEVIATION_MM, paths.FREE, paths.FREE
    )


def _on(name: str, points: np.ndarray, goal: float | None) -> list[dict[str, Any]]:
    """One path: our moves/s, each rival's, ratios and durations."""
    n = len(points) - 1
    corners = [tuple(p) for p in points.tolist()]
    limits = (paths.SPEED_MM_S, paths.ACCEL_MM_S2, paths.DEVIATION_MM)
    works = {
        "ours": lambda: _plan(points),
        PUBLISHED: lambda: klipper_queue.plan(corners, *limits, keep=False),
        LEAN: lambda: klipper_twin.plan(corners, *limits),
    }
    rate = {key: n / took for key, took in interleaved(works, rounds=3).items()}
    duration_s = float(_plan(points)[4].sum())
    theirs_s = klipper_queue.plan(corners, *limits, keep=False)[1]
    rows = [
        row(
            AREA, f"trapezoid, path {name}", rate["ours"], "moves/s", goal, rival=PUBLISHED,
            ratio=rate["ours"] / rate[PUBLISHED],
            note=f"{n} moves at once: geometry, junctions, both passes, times",
        ),
        row(
            AREA, f"trapezoid / {PUBLISHED}, path {name}", rate["ours"] / rate[PUBLISHED], "x",
            None if goal is None else RATIO_GOAL, rival=PUBLISHED,
            ratio=rate["ours"] / rate[PUBLISHED],
            note="objects, machine check, lazy look-ahead each 0.15 s, trapezoid entries",
        ),
        row(
            AREA, f"{PUBLISHED}, path {name}", rate[PUBLISHED], "moves/s",
            None if goal is None else TWIN_GOAL, note="fair: as fast as Klipper's own classes",
        ),
        row(
            AREA, f"{LEAN}, path {name}", rate[LEAN], "moves/s", rival=LEAN,
            ratio=rate["ours"] / rate[LEAN], note="not what Klipper does: the tests' oracle",
        ),
        row(
            AREA, f"duration against Klipper's rule, path {name}",
            abs(duration_s / theirs_s - 1.0), "1", 1e-6, at_most=True, rival=PUBLISHED,
            ratio=duration_s / theirs_s, note=f"{duration_s:.3f} s",
        ),
    ]  # fmt: skip
    own, why = klipper_original.run_apart(name)
    rows.append(
        row(
            AREA, f"{ITS_OWN}, path {name}", own and own["moves_s"], "moves/s", rival=ITS_OWN,
            ratio=rate["ours"] / own["moves_s"] if own else None,
            note=why or f"duration {own['duration_s']:.3f} s" if own else why,
        )
    )  # fmt: skip
    return rows


def _toppra() -> list[dict[str, Any]]:
    points = paths.wavy_spiral()[: TOPPRA_MOVES + 1]
    done = rivals.toppra_on(points)
    seconds = interleaved({"ours": lambda: _plan(points)})["ours"]
    duration_s = float(_plan(points)[4].sum())
    if done is None:
        return [row(AREA, "toppra, path b", None, "moves/s", rival="toppra", note="not installed")]
    note = (
        f"{TOPPRA_MOVES} moves; ours {duration_s:.3f} s, toppra {done['duration_s']:.3f} s: "
        "Klipper's rule never adds tangential to centripetal acceleration"
    )
    return [
        row(
            AREA, f"toppra, path b of {TOPPRA_MOVES}", TOPPRA_MOVES / done["work_s"], "moves/s",
            rival="toppra", ratio=done["work_s"] / seconds, note=note,
        )
    ]  # fmt: skip


def run() -> list[dict[str, Any]]:
    """All rows; every rival figure is of this same run."""
    rows = []
    for name, goal in (("b", MOVES_GOAL), ("c", MOVES_GOAL), ("a", None)):
        rows += _on(name, paths.PATHS[name](), goal)
    return rows + _toppra()

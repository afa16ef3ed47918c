"""Planner speed: trapezoid look-ahead against Klipper's rule in plain Python, same run.

    python benchmarks/bench_planner.py

Paths b and c are the wavy spiral in 0.1 mm chords and the random turns that the project's
planner figures are stated for; limits 50 mm/s, 2000 mm/s2, junction deviation 0.01 mm.
``run()`` returns rows {area, figure, value, unit, goal, met, rival, ratio, note}.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from controller import _motion
from tests.unit import klipper_twin

SPEED_MM_S, ACCEL_MM_S2, DEVIATION_MM = 50.0, 2000.0, 0.01
FREE = [1e9, 1e9, 1e9]  # no limit of an axis of its own
MOVES_GOAL, RATIO_GOAL = 20e6, 200.0
# durations that Klipper's own planner gave on these two paths, s (cruise ratio 0)
KLIPPER_S = {"b": 437.32, "c": 4242.25}


def wavy_spiral(moves: int = 200_000, chord_mm: float = 0.1) -> np.ndarray:
    """(b) Outward spiral, pitch 1.5 mm, with a ripple of 0.5 mm every 3.5 mm; (n + 1, 3) mm."""
    first_mm, pitch_mm, ripple_mm, wave_mm = 5.0, 1.5, 0.5, 3.5
    turns = np.sqrt(moves * chord_mm / (np.pi * pitch_mm)) + 2.0
    angle = np.linspace(0.0, 2.0 * np.pi * turns, int(turns * 40_000))
    along_mm = first_mm * angle + pitch_mm * angle * angle / (4.0 * np.pi)
    radius_mm = first_mm + pitch_mm * angle / (2.0 * np.pi)
    radius_mm += ripple_mm * np.cos(2.0 * np.pi * along_mm / wave_mm)
    x, y = radius_mm * np.cos(angle), radius_mm * np.sin(angle)
    s = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    at = np.arange(moves + 1) * chord_mm
    return np.stack([np.interp(at, s, x), np.interp(at, s, y), np.zeros(moves + 1)], axis=1)


def random_turns(moves: int = 200_000, seed: int = 7) -> np.ndarray:
    """(c) Random walk: lengths 0.05 to 2 mm, turns of 12 degrees (one sigma); (n + 1, 3) mm."""
    rng = np.random.default_rng(seed)
    length_mm = rng.uniform(0.05, 2.0, moves)
    heading = np.cumsum(np.radians(rng.normal(0.0, 12.0, moves)))
    points = np.zeros((moves + 1, 3))
    points[1:, 0] = np.cumsum(length_mm * np.cos(heading))
    points[1:, 1] = np.cumsum(length_mm * np.sin(heading))
    return points


def _seconds(*works: Callable[[], Any], rounds: int, repeats: int = 5) -> list[float]:
    """Median wall time of each call, taken in turns so that noise hits all alike."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for own, work in zip(times, works, strict=True):
            for _ in range(repeats if work is works[0] else 1):
                start = time.perf_counter()
                work()
                own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def _row(
    figure: str, value: float, unit: str, goal: float | None, rival: str | None = None,
    ratio: float | None = None, note: str = "", *, at_most: bool = False,
) -> dict[str, Any]:  # fmt: skip
    met = None if goal is None else bool(value <= goal if at_most else value >= goal)
    return {
        "area": "planner", "figure": figure, "value": value, "unit": unit, "goal": goal,
        "met": met, "rival": rival, "ratio": ratio, "note": note,
    }  # fmt: skip


def run() -> list[dict[str, Any]]:
    """Measure; every rival figure is of this same run."""
    rows: list[dict[str, Any]] = []
    for name, points in (("b", wavy_spiral()), ("c", random_turns())):
        n = len(points) - 1
        speed = np.full(n, SPEED_MM_S)

        def kernel(points: np.ndarray = points, speed: np.ndarray = speed) -> Any:
            return _motion.plan_trapezoid(points, speed, ACCEL_MM_S2, DEVIATION_MM, FREE, FREE)

        corners = [tuple(p) for p in points.tolist()]

        def twin(corners: list[tuple[float, ...]] = corners) -> Any:
            return klipper_twin.plan(corners, SPEED_MM_S, ACCEL_MM_S2, DEVIATION_MM)

        kernel()
        ours, theirs = (n / t for t in _seconds(kernel, twin, rounds=5))
        duration = kernel()[4]
        twin_s = twin()[1]
        rows.append(
            _row(
                f"trapezoid, path {name}",
                ours,
                "moves/s",
                MOVES_GOAL,
                note="geometry, junctions, both passes, times; whole layer",
            )
        )
        rows.append(
            _row(
                f"plain-Python twin, path {name}",
                theirs,
                "moves/s",
                150e3,
                note="the rival's own speed, so that the ratio is fair",
            )
        )
        rows.append(
            _row(
                f"trapezoid / twin, path {name}",
                ours / theirs,
                "x",
                RATIO_GOAL,
                "Klipper's rule in Python",
                ours / theirs,
                "the twin is lean: Klipper's own classes were measured at 164 to 172 k moves/s",
            )
        )
        rows.append(
            _row(
                f"duration against twin, path {name}",
                abs(float(duration.sum()) / twin_s - 1.0),
                "1",
                1e-6,
                "Klipper's rule in Python",
                float(duration.sum()) / twin_s,
                f"{duration.sum():.2f} s; Klipper itself {KLIPPER_S[name]:.2f} s",
                at_most=True,
            )
        )
    return rows


def main() -> None:
    """Print the table."""
    print(f"{'figure':36} {'value':>14} {'unit':8} {'goal':>10} met  note")
    for row in run():
        goal = "" if row["goal"] is None else f"{row['goal']:.3g}"
        met = {True: "yes", False: "NO", None: "-"}[row["met"]]
        print(
            f"{row['figure']:36} {row['value']:14.4g} {row['unit']:8} {goal:>10} {met:4} "
            f"{row['note']}"
        )


if __name__ == "__main__":
    main()

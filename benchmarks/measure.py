"""Timing and rows for the benchmarks."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def interleaved(works: dict[str, Callable[[], Any]], rounds: int = 5) -> dict[str, float]:
    """Median wall time of each call in seconds, taken in turns so that noise hits all alike.

    Calls under 50 ms are repeated within a round, so that all are timed for about as long.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    repeats: dict[str, int] = {}
    for name, work in works.items():
        begin = time.perf_counter()
        work()  # warms caches and allocator, and is not counted
        took = max(time.perf_counter() - begin, 1e-7)
        repeats[name] = max(1, min(200, round(0.05 / took)))
    for _ in range(rounds):
        for name, work in works.items():
            for _ in range(repeats[name]):
                begin = time.perf_counter()
                work()
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(own) for name, own in times.items()}


def row(
    area: str, figure: str, value: float | None, unit: str, goal: float | None = None, *,
    at_most: bool = False, rival: str = "", ratio: float | None = None, note: str = "",
) -> dict[str, Any]:  # fmt: skip
    """One line of the table. ``met`` is None without a goal or without a value."""
    met = None
    if goal is not None and value is not None:
        met = bool(value <= goal if at_most else value >= goal)
    return {
        "area": area, "figure": figure, "value": value, "unit": unit, "goal": goal, "met": met,
        "rival": rival, "ratio": ratio, "note": note,
    }  # fmt: skip

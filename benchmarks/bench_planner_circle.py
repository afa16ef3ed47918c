"""Friction-circle look-ahead on rounded corners: speed, memory, duration against toppra, limits.

Rounding, both passes and durations are counted. Accelerations and distances are taken by
differences of places, by code that shares nothing with the planner.
"""

import time
import tracemalloc
from functools import partial
from typing import Any

import numpy as np

from benchmarks import paths, rivals
from benchmarks.measure import interleaved, row
from controller import _circle, _curve, _motion
from controller.planning.motion.friction_circle import EASY_TURN
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits
from tests.unit.planning_differences import distance_to_polyline, places_of, worst

AREA = "planner"
MOVES_GOAL, TOLERANCE_MM = 10e6, 0.02
TOPPRA_MOVES = 20_000
# this very spline by toppra 0.6.10, for the ratio where toppra is not installed
TOPPRA_B_S = 45.756
NEAR_AXES = [0.75 * paths.ACCEL_MM_S2, 0.75 * paths.ACCEL_MM_S2, 0.2 * paths.ACCEL_MM_S2]


def _plan(points: np.ndarray, axis_accel: list[float] = paths.FREE) -> Any:
    speed = np.full(len(points) - 1, paths.SPEED_MM_S)
    enough = EASY_TURN * paths.SPEED_MM_S**2 / paths.ACCEL_MM_S2
    rounding = _curve.round_corners(points, TOLERANCE_MM, None, enough)
    return rounding, _circle.plan_circle(
        points, speed, rounding, paths.ACCEL_MM_S2, paths.FREE, axis_accel
    )


def _trapezoid(points: np.ndarray) -> Any:
    speed = np.full(len(points) - 1, paths.SPEED_MM_S)
    return _motion.plan_trapezoid(
        points, speed, paths.ACCEL_MM_S2, paths.DEVIATION_MM, paths.FREE, paths.FREE
    )


def _speeds() -> list[dict[str, Any]]:
    rows = []
    for name, points in (("b", paths.wavy_spiral()), ("c", paths.random_turns())):
        n = len(points) - 1
        took = interleaved({
            "free": partial(_plan, points),
            "axes": partial(_plan, points, NEAR_AXES),
            "trapezoid": partial(_trapezoid, points),
        })  # fmt: skip
        rows.append(row(
            AREA, f"friction circle, path {name}", n / took["free"], "moves/s", MOVES_GOAL,
            rival="our trapezoid law", ratio=took["trapezoid"] / took["free"],
            note="rounding, both passes, durations; whole layer",
        ))  # fmt: skip
        rows.append(row(
            AREA, f"friction circle with axis limits, path {name}", n / took["axes"], "moves/s",
            note="X, Y 75 %, Z 20 % of the total: every arc is checked against all three",
        ))  # fmt: skip
    return rows


def _growth() -> list[dict[str, Any]]:
    few, many = (paths.random_turns(n) for n in (100_000, 2_000_000))
    took = interleaved({"few": lambda: _plan(few), "many": lambda: _plan(many)}, rounds=3)
    tracemalloc.start()
    begin = tracemalloc.get_traced_memory()[0]
    kept = _plan(few)
    peak = tracemalloc.get_traced_memory()[1] - begin
    tracemalloc.stop()
    del kept
    speed_bytes = 8  # of the speed limits, an input
    return [
        row(AREA, "friction circle, ns/move at 2 M moves over 0.1 M",
            took["many"] / took["few"] / 20.0, "x", 1.2, at_most=True, note="path c"),
        row(AREA, "friction circle, memory", peak / (len(few) - 1) - speed_bytes, "B/move", 64,
            at_most=True, note="greatest during rounding and planning, beside points and speeds"),
    ]  # fmt: skip


def _truth() -> list[dict[str, Any]]:
    points = paths.wavy_spiral()[: TOPPRA_MOVES + 1]
    limits = MotionLimits(
        paths.ACCEL_MM_S2, paths.JERK_MM_S3, paths.DEVIATION_MM, TOLERANCE_MM,
        np.array(paths.FREE), np.array(paths.FREE),
    )  # fmt: skip
    speed = np.full(TOPPRA_MOVES, paths.SPEED_MM_S)
    begin = time.perf_counter()
    profile = plan_profile(points, speed, limits, "friction_circle")
    took = time.perf_counter() - begin
    rival = rivals.toppra_on(points)
    ratio = profile.duration_s / (rival["duration_s"] if rival else TOPPRA_B_S)
    line = row(
        AREA, f"friction circle, duration of {TOPPRA_MOVES} moves of b over toppra's", ratio, "x",
        rival="toppra 0.6.10", ratio=ratio,
        note=f"goal 0.999 to 1.005; {profile.duration_s:.3f} s",
    )  # fmt: skip
    line["goal"] = 1.005
    line["met"] = bool(0.999 <= ratio <= 1.005) if rival else None
    lines = [line]
    if rival:
        lines.append(row(
            AREA, "friction circle profile, time over toppra's", rival["work_s"] / took, "x",
            rival="toppra 0.6.10", ratio=rival["work_s"] / took,
            note="whole profile with curve and phases against its solver",
        ))  # fmt: skip
    _, accel, _, _ = worst(profile, 2e-5)
    lines.append(row(
        AREA, "friction circle, worst |a| over the limit", accel / paths.ACCEL_MM_S2, "1", 1.001,
        at_most=True, note=f"second differences each 20 us, {profile.duration_s:.1f} s of path b",
    ))  # fmt: skip
    some = points[:2001]
    end_s = float(profile.time_at(profile.move_s_mm[2000])[0])
    at = places_of(profile, np.linspace(0.0, end_s, 4000))
    lines.append(row(
        AREA, "friction circle, greatest distance from the path",
        float(distance_to_polyline(at, some).max()) * 1e3, "um", TOLERANCE_MM * 1e3,
        at_most=True, note="2,000 moves of b, tolerance 20 um",
    ))  # fmt: skip
    return lines


def run() -> list[dict[str, Any]]:
    """Measure; every rival figure is of this same run."""
    return [*_speeds(), *_growth(), *_truth()]


if __name__ == "__main__":
    for line in run():
        print(f"{line['figure']:58} {line['value']:12.5g} {line['unit']:8} {line['met']}")

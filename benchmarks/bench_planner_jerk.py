"""Jerk-limited time law: speed, durations against the trapezoid, worst jerk; ruckig as rival.

ruckig's free version plans from state to state only: its time per stretch is set against ours,
with acceleration 0 at both ends, where both find the same duration.
"""

from typing import Any

import numpy as np

from benchmarks import paths
from benchmarks.measure import interleaved, row
from controller import _jerk, _motion

AREA = "planner"
MOVES_GOAL = 2e6
RATIO_GOALS = {"a": 1.03, "b": 1.16, "c": 1.10}
JERK_GOAL = 1.001
STRETCHES = 2000


def _plan(points: np.ndarray, nominal: np.ndarray) -> Any:
    caps = _motion.junction_limits(
        points, nominal, paths.ACCEL_MM_S2, paths.DEVIATION_MM, paths.FREE, paths.FREE
    )
    return _jerk.jerk_phases(*caps, nominal, paths.JERK_MM_S3)


def worst_jerk(phases: Any, step_s: float = 1e-4, window: int = 200_000) -> float:
    """Greatest |second difference of the speed| / step^2, over the limit.

    The speed is read off the float profile on a grid of its own, so a jump of the acceleration
    at a joint would show as well.
    """
    t, _, v, a, j = phases[:5]
    worst = 0.0
    for first in range(0, int(t[-1] / step_s), window):
        at = np.arange(first, min(first + window + 2, int(t[-1] / step_s))) * step_s
        if len(at) < 3:
            break
        i = np.searchsorted(t, at, side="right") - 1
        tau = at - t[i]
        speed = v[i] + tau * (a[i] + 0.5 * j[i] * tau)
        worst = max(worst, float(np.abs(np.diff(speed, 2)).max()))
    return worst / step_s**2 / paths.JERK_MM_S3


def worst_accel(phases: Any) -> float:
    """Greatest acceleration at any phase's start or end, over the limit."""
    t, _, _, a, j = phases[:5]
    return float(max(np.abs(a).max(), np.abs(a + j * np.diff(t)).max())) / paths.ACCEL_MM_S2


def _ours_and_ruckig() -> list[dict[str, Any]]:
    """Stretches from speed to speed, one at a time."""
    figure, rival = "jerk, a stretch from state to state", "ruckig 1 axis, from Python"
    try:
        from ruckig import InputParameter, Result, Ruckig, Trajectory
    except ImportError:
        return [row(AREA, figure, None, "ns", rival=rival, note="ruckig is not installed")]
    rng = np.random.default_rng(11)
    low, high = rng.uniform(5.0, 40.0, (2, STRETCHES))
    way = rng.uniform(2.0, 10.0, STRETCHES)
    # stretches one after the other: the corner between two has the speed of the second's start
    length, corner = way, np.concatenate([low, high[-1:]])
    one = np.full(STRETCHES, paths.SPEED_MM_S)
    accel = np.full(STRETCHES, paths.ACCEL_MM_S2)
    inputs = []
    for k in range(STRETCHES):
        wanted = InputParameter(1)
        wanted.current_velocity, wanted.target_velocity = [corner[k]], [corner[k + 1]]
        wanted.current_position, wanted.target_position = [0.0], [way[k]]
        wanted.max_velocity, wanted.max_acceleration = [paths.SPEED_MM_S], [paths.ACCEL_MM_S2]
        wanted.max_jerk = [paths.JERK_MM_S3]
        inputs.append(wanted)
    engine, found = Ruckig(1), Trajectory(1)

    def theirs() -> float:
        total = 0.0
        for wanted in inputs:
            if engine.calculate(wanted, found) not in (Result.Working, Result.Finished):
                return float("nan")
            total += found.duration
        return total

    def ours() -> float:
        phases = _jerk.jerk_phases(
            length, accel, one, corner, one, paths.JERK_MM_S3, 0.0005, corner[0], corner[-1]
        )
        return float(phases[0][-1])

    took = interleaved({"ours": ours, "theirs": theirs})
    mine, other = (took[k] / STRETCHES * 1e9 for k in ("ours", "theirs"))
    return [
        row(AREA, figure, mine, "ns", rival=rival, ratio=other / mine,
            note=f"{STRETCHES} stretches in one call of ours; ruckig {other:.0f} ns each"),
        row(AREA, "jerk, duration / ruckig's", ours() / theirs(), "x", 1.0 + 1e-9, at_most=True,
            rival=rival, note="same stretches, acceleration 0 at their ends"),
    ]  # fmt: skip


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    rows = []
    worst, steepest = 0.0, 0.0
    for name, make in paths.PATHS.items():
        points = make()
        n = len(points) - 1
        nominal = np.full(n, paths.SPEED_MM_S)

        def trapezoid(points: np.ndarray = points, nominal: np.ndarray = nominal) -> Any:
            return _motion.plan_trapezoid(
                points, nominal, paths.ACCEL_MM_S2, paths.DEVIATION_MM, paths.FREE, paths.FREE
            )

        def ours(points: np.ndarray = points, nominal: np.ndarray = nominal) -> Any:
            return _plan(points, nominal)

        phases = ours()
        duration_s = float(phases[0][-1])
        least_s = float(trapezoid()[4].sum())
        worst = max(worst, worst_jerk(phases))
        steepest = max(steepest, worst_accel(phases))
        if name != "a":
            took = interleaved({"ours": ours, "trapezoid": trapezoid})
            rows.append(
                row(AREA, f"jerk, path {name}", n / took["ours"], "moves/s", MOVES_GOAL,
                    rival="our trapezoid", ratio=took["trapezoid"] / took["ours"],
                    note=f"{n} moves: geometry, both passes, {len(phases[3])} phases written")
            )  # fmt: skip
        rows.append(
            row(AREA, f"jerk, duration / trapezoid, path {name}", duration_s / least_s, "x",
                RATIO_GOALS[name], at_most=True, note=f"{duration_s:.2f} s, {least_s:.2f} s")
        )  # fmt: skip
    rows.append(
        row(AREA, "jerk, worst / limit, paths a b c", worst, "x", JERK_GOAL, at_most=True,
            note="second differences of the speed, every 0.1 ms, joints included")
    )  # fmt: skip
    rows.append(
        row(AREA, "jerk, acceleration / limit, paths a b c", steepest, "x", JERK_GOAL,
            at_most=True, note="at both ends of every phase; it is straight between")
    )  # fmt: skip
    return rows + _ours_and_ruckig()


if __name__ == "__main__":
    for line in run():
        print(line)

"""Moves that are made while a build waits: lift, way over, run-up, standing still.

They run in the space of the machine's axes, straight from step to step, so they serve every
kinematics and every time law. Speed follows a line (or, for a jerk-limited plan, an S of short
lines); segments carry exactly that.
"""

import math
from dataclasses import dataclass

import numpy as np

from controller.config import Cell
from firmware_bridge.segments import (
    FLAG_DWELL,
    MAX_STEPS,
    RATIO_ONE,
    SEGMENT,
    TICK_S,
)

LONGEST_S = 0.020
LONGEST_DWELL_S = 0.100
PARTS = 12  # lines that an S is made of, for each of its three phases


@dataclass(frozen=True)
class AxisLimits:
    """What the axes may do, in axis units; speeds and accelerations are the planned shares."""

    steps_per_unit: np.ndarray  # (n,)
    speed: np.ndarray  # (n,)
    accel: np.ndarray  # (n,)
    total_accel_mm_s2: float  # of X, Y, Z together
    travel_mm_s: float
    jerk_mm_s3: float  # infinite: the plan's time law does not limit it
    low: np.ndarray  # (n,) steps
    high: np.ndarray

    @classmethod
    def of_cell(cls, cell: Cell, time_law: str) -> "AxisLimits":
        """Limits of a cell for a plan of a time law."""
        motion = cell.motion
        axes = motion.axes
        per_unit = np.array([a.steps_per_mm for a in axes])
        origin = np.array([a.range_mm[0] for a in axes])
        return cls(
            steps_per_unit=per_unit,
            speed=np.array([a.speed_mm_s for a in axes]) * motion.speed_share,
            accel=np.array([a.accel_mm_s2 for a in axes]) * motion.plan_share,
            total_accel_mm_s2=motion.total_accel_mm_s2 * motion.plan_share,
            travel_mm_s=motion.travel_speed_mm_s,
            jerk_mm_s3=motion.jerk_mm_s3 if time_law == "jerk" else math.inf,
            low=np.round((np.array([a.range_mm[0] for a in axes]) - origin) * per_unit),
            high=np.round((np.array([a.range_mm[1] for a in axes]) - origin) * per_unit),
        )

    def rates(self, way: np.ndarray) -> tuple[float, float, float]:
        """Greatest speed, acceleration and jerk along ``way`` (axis units), as shares of it."""
        size = np.maximum(np.abs(way), 1e-12)
        xyz = max(float(np.linalg.norm(way[:3])), 1e-12)
        fast = min(float((self.speed / size).min()), self.travel_mm_s / xyz)
        push = min(float((self.accel / size).min()), self.total_accel_mm_s2 / xyz)
        return fast, push, self.jerk_mm_s3 / float(np.linalg.norm(way))


def ramp(peak: float, accel: float, jerk: float) -> tuple[np.ndarray, np.ndarray]:
    """Instants and speeds of a start from rest to ``peak``: a line, or an S of short lines."""
    if math.isinf(jerk):
        return np.array([0.0, peak / accel]), np.array([0.0, peak])
    lift_s = min(accel / jerk, math.sqrt(peak / jerk))  # jerk phases; between them a line
    top = jerk * lift_s
    flat_s = max(peak / top - lift_s, 0.0)
    x = np.arange(1, PARTS + 1) / PARTS
    first_t, first_v = lift_s * x, 0.5 * jerk * (lift_s * x) ** 2
    last_t = lift_s + flat_s + lift_s * x
    last_v = peak - 0.5 * jerk * (lift_s * (1.0 - x)) ** 2
    t = np.concatenate([[0.0], first_t, [lift_s + flat_s], last_t])
    v = np.concatenate([[0.0], first_v, [first_v[-1] + top * flat_s], last_v])
    keep = np.append(True, np.diff(t) > 1e-9)
    return t[keep], v[keep]


def _covered(t: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Way at the instants, speed being straight between them."""
    return np.concatenate([[0.0], np.cumsum(0.5 * (v[1:] + v[:-1]) * np.diff(t))])


def _there_and_rest(fast: float, push: float, jerk: float) -> tuple[np.ndarray, np.ndarray]:
    """Instants and speeds from rest to rest over a way of 1."""
    peak = fast
    t, v = ramp(peak, push, jerk)
    if 2.0 * _covered(t, v)[-1] > 1.0:
        low, high = 0.0, fast
        for _ in range(80):
            peak = 0.5 * (low + high)
            over = 2.0 * _covered(*ramp(peak, push, jerk))[-1] > 1.0
            low, high = (low, peak) if over else (peak, high)
        t, v = ramp(peak, push, jerk)
    left_s = max((1.0 - 2.0 * float(_covered(t, v)[-1])) / peak, 0.0)
    back_t = t[-1] + left_s + (t[-1] - t[::-1])
    both_t, both_v = np.concatenate([t, back_t]), np.concatenate([v, v[::-1]])
    keep = np.append(True, np.diff(both_t) > 1e-9)
    return both_t[keep], both_v[keep]


def _subdivided(t: np.ndarray, v: np.ndarray, longest_s: float) -> tuple[np.ndarray, np.ndarray]:
    parts = np.maximum(np.ceil(np.diff(t) / longest_s - 1e-9), 1).astype(np.int64)
    fine = np.concatenate(
        [a + (b - a) * np.arange(n) / n for a, b, n in zip(t[:-1], t[1:], parts, strict=True)]
        + [t[-1:]]
    )
    return fine, np.interp(fine, t, v)


def rows_of(
    start: np.ndarray,
    end: np.ndarray,
    t_s: np.ndarray,
    v: np.ndarray,
    limits: AxisLimits,
    *,
    power: int,
    end_speed: float = 1.0,
) -> np.ndarray:
    """SEGMENT rows from ``start`` to ``end`` (steps), speed straight between the instants.

    ``v`` may have any unit: the way is scaled so that it ends on ``end``. ``end_speed`` is the
    share of the nominal speed that the greatest ``v`` stands for.
    """
    n = len(limits.steps_per_unit)
    way = (end - start)[:n]
    rate = float(np.abs(way).max()) * float(v.max()) / float(_covered(t_s, v)[-1])
    t, w = _subdivided(t_s, v, min(LONGEST_S, 0.9 * MAX_STEPS / max(rate, 1e-9)))
    s = _covered(t, w)
    steps = np.rint(start[:n] + (s / s[-1])[:, None] * way).astype(np.int64)
    steps[-1] = end[:n]
    tick = np.rint(t / TICK_S).astype(np.int64)
    keep = np.append(True, np.diff(tick) > 0)
    tick, steps, w, s = tick[keep], steps[keep], w[keep], s[keep]
    rows = np.zeros(len(tick) - 1, SEGMENT)
    rows["steps"][:, :n] = np.diff(steps, axis=0)
    # a linear speed ramp: start / mean, whatever the rounding of the ends
    mean = np.maximum(0.5 * (w[1:] + w[:-1]), 1e-300)
    rows["start_ratio"] = np.minimum(np.rint(w[:-1] / mean * RATIO_ONE), 2 * RATIO_ONE - 1)
    rows["end_power"] = power
    share = w[1:] / float(w.max()) * end_speed
    rows["end_speed"] = np.minimum(np.rint(share * RATIO_ONE), 65535)
    set_ticks(rows, np.diff(tick))
    return rows


def set_ticks(rows: np.ndarray, ticks: np.ndarray | int) -> None:
    """Durations of SEGMENT rows, in place."""
    rows["ticks_lo"] = np.asarray(ticks) & 0xFFFF
    rows["ticks_hi"] = np.asarray(ticks) >> 16


def straight(start: np.ndarray, end: np.ndarray, limits: AxisLimits, *, power: int) -> np.ndarray:
    """Rows from rest to rest; none when start and end are one place. (6,) steps each."""
    n = len(limits.steps_per_unit)
    way = (end - start)[:n] / limits.steps_per_unit
    if not way.any():
        return np.zeros(0, SEGMENT)
    return rows_of(start, end, *_there_and_rest(*limits.rates(way)), limits, power=power)


def run_up(
    end: np.ndarray,
    velocity: np.ndarray,
    ahead_s: float,
    limits: AxisLimits,
    *,
    power: int,
    end_speed: float,
) -> tuple[np.ndarray, np.ndarray]:
    """From rest to ``velocity`` (n,) axis units/s, reached ``ahead_s`` before ``end``.

    Returns where it begins, (6,) steps, and its rows.
    """
    n = len(limits.steps_per_unit)
    _, push, jerk = limits.rates(velocity)
    t, v = ramp(1.0, push, jerk)
    t, v = np.append(t, t[-1] + ahead_s), np.append(v, 1.0)
    way = velocity * float(_covered(t, v)[-1]) * limits.steps_per_unit
    start = np.array(end, dtype=np.int64)
    start[:n] = np.rint(end[:n] - way)
    return start, rows_of(start, end, t, v, limits, power=power, end_speed=end_speed)


def run_out(
    start: np.ndarray, velocity: np.ndarray, ahead_s: float, limits: AxisLimits, *, power: int
) -> tuple[np.ndarray, np.ndarray]:
    """From ``velocity`` to rest, full speed kept for ``ahead_s``; where it ends, and its rows."""
    n = len(limits.steps_per_unit)
    _, push, jerk = limits.rates(velocity)
    t, v = ramp(1.0, push, jerk)
    t, v = np.append(0.0, ahead_s + t[-1] - t[::-1]), np.append(1.0, v[::-1])
    way = velocity * float(_covered(t, v)[-1]) * limits.steps_per_unit
    end = np.array(start, dtype=np.int64)
    end[:n] = np.rint(start[:n] + way)
    return end, rows_of(start, end, t, v, limits, power=power)


def standing(seconds: float) -> np.ndarray:
    """Rows of standing still, 100 ms each."""
    ticks = math.ceil(seconds / TICK_S - 1e-6)
    if ticks <= 0:
        return np.zeros(0, SEGMENT)
    n = math.ceil(ticks * TICK_S / LONGEST_DWELL_S - 1e-9)
    ends = np.rint(np.arange(n + 1) * (ticks / n)).astype(np.int64)
    rows = np.zeros(n, SEGMENT)
    rows["start_ratio"], rows["flags"] = RATIO_ONE, FLAG_DWELL
    set_ticks(rows, np.diff(ends))
    return rows

"""The time law along a path: when the nozzle is where, and how fast.

One interface for every law: ``plan_profile(path, speeds, limits, mode)`` returns phases of
constant acceleration. ``MODES`` names the laws there are; a new law is a function in it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from controller import _motion
from controller.config import Cell
from controller.errors import PlanError
from controller.planning.motion_path import axis_limits


@dataclass(frozen=True)
class MotionLimits:
    """What a plan may ask of the motion system."""

    accel_mm_s2: float  # planned share of the total acceleration
    jerk_mm_s3: float
    junction_deviation_mm: float
    path_tolerance_mm: float
    axis_speed_mm_s: np.ndarray  # (3,)
    axis_accel_mm_s2: np.ndarray  # (3,) planned share

    @classmethod
    def of_cell(cls, cell: Cell) -> "MotionLimits":
        """Limits of a cell, accelerations lowered to ``plan_share``."""
        speed, accel = axis_limits(cell)
        motion = cell.motion
        return cls(
            accel_mm_s2=motion.total_accel_mm_s2 * motion.plan_share,
            jerk_mm_s3=motion.jerk_mm_s3,
            junction_deviation_mm=motion.junction_deviation_mm,
            path_tolerance_mm=motion.path_tolerance_mm,
            axis_speed_mm_s=speed,
            axis_accel_mm_s2=accel,
        )


@dataclass(frozen=True)
class Profile:
    """Phases of constant acceleration, one after the other.

    Phase i lasts from ``t_s[i]`` to ``t_s[i + 1]``; speed in it is
    ``v_mm_s[i] + a_mm_s2[i] * (t - t_s[i])``. ``move`` is -1 in a dwell.
    """

    mode: str
    t_s: np.ndarray  # (m + 1,) float64
    s_mm: np.ndarray  # (m + 1,) float64: length along the path
    v_mm_s: np.ndarray  # (m + 1,) float64
    a_mm_s2: np.ndarray  # (m,) float64
    move: np.ndarray  # (m,) int32
    move_s_mm: np.ndarray  # (n + 1,) float64: path length at each corner

    @property
    def duration_s(self) -> float:
        """From the start of the first phase to rest."""
        return float(self.t_s[-1])

    def time_at(self, s_mm: np.ndarray | float) -> np.ndarray:
        """Instants, s, at which lengths along the path are reached."""
        s = np.atleast_1d(np.asarray(s_mm, dtype=np.float64))
        i = np.clip(np.searchsorted(self.s_mm, s, side="right") - 1, 0, len(self.a_mm_s2) - 1)
        way = np.clip(s - self.s_mm[i], 0.0, self.s_mm[i + 1] - self.s_mm[i])
        v, a = self.v_mm_s[i], self.a_mm_s2[i]
        root = v + np.sqrt(np.maximum(v * v + 2.0 * a * way, 0.0))
        # 2 d / (v + sqrt(v^2 + 2 a d)) has no cancellation for either sign of a
        tau = np.divide(2.0 * way, root, out=np.zeros_like(way), where=root > 0.0)
        return np.minimum(self.t_s[i] + tau, self.t_s[i + 1])

    def state_at(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Length mm, speed mm/s and acceleration mm/s2 at instants (held outside)."""
        t = np.clip(np.asarray(t_s, dtype=np.float64), self.t_s[0], self.t_s[-1])
        i = np.clip(np.searchsorted(self.t_s, t, side="right") - 1, 0, len(self.a_mm_s2) - 1)
        tau = t - self.t_s[i]
        v, a = self.v_mm_s[i], self.a_mm_s2[i]
        s = np.minimum(self.s_mm[i] + tau * (v + 0.5 * a * tau), self.s_mm[i + 1])
        return s, np.maximum(v + a * tau, 0.0), a

    def hard_kinks(self) -> np.ndarray:
        """(m + 1,) bool: kinks that must be a segment's end: start, end, ends of dwells."""
        hard = np.zeros(len(self.t_s), dtype=bool)
        hard[[0, -1]] = True
        dwell = self.move < 0
        hard[:-1] |= dwell
        hard[1:] |= dwell
        return hard

    def after_dwell(self, dwell_s: float) -> "Profile":
        """The same motion after standing still for a while at its start."""
        if dwell_s <= 0.0:
            return self
        return replace(
            self,
            t_s=np.concatenate([[0.0], self.t_s + dwell_s]),
            s_mm=np.concatenate([[0.0], self.s_mm]),
            v_mm_s=np.concatenate([[0.0], self.v_mm_s]),
            a_mm_s2=np.concatenate([[0.0], self.a_mm_s2]),
            move=np.concatenate([np.array([-1], dtype=np.int32), self.move]),
        )


def _trapezoid(
    points_mm: np.ndarray, speed_mm_s: np.ndarray, limits: MotionLimits
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    length, v, peak, accel, _ = _motion.plan_trapezoid(
        points_mm,
        speed_mm_s,
        limits.accel_mm_s2,
        limits.junction_deviation_mm,
        limits.axis_speed_mm_s,
        limits.axis_accel_mm_s2,
    )
    return length, _motion.trapezoid_phases(length, v, peak, accel)


Law = Callable[[np.ndarray, np.ndarray, MotionLimits], tuple[np.ndarray, tuple[np.ndarray, ...]]]
# each law: (points, speed limits, motion limits) -> lengths of moves, and phases
# (t_s, s_mm, v_mm_s, a_mm_s2, move) that start and end at rest
MODES: dict[str, Law] = {"trapezoid": _trapezoid}


def plan_profile(
    points_mm: np.ndarray, speed_mm_s: np.ndarray, limits: MotionLimits, mode: str = "trapezoid"
) -> Profile:
    """Plan a polyline from rest to rest.

    Parameters
    ----------
    points_mm : (n + 1, 3) float64, mm
    speed_mm_s : (n,) float64, mm/s      speed limit of each move
    mode : a key of MODES

    Raises PlanError for NaN, infinity, limits of zero and unknown modes.
    """
    law = MODES.get(mode)
    if law is None:
        raise PlanError(f"time law {mode!r} is not one of: {', '.join(MODES)}")
    try:
        length, (t, s, v, a, move) = law(points_mm, speed_mm_s, limits)
    except ValueError as exc:
        raise PlanError(f"the path cannot be planned: {exc}") from None
    if len(a) == 0:
        raise PlanError(f"the path has no length: {len(length)} moves, all of 0 mm")
    return Profile(
        mode=mode,
        t_s=t,
        s_mm=s,
        v_mm_s=v,
        a_mm_s2=a,
        move=move,
        move_s_mm=np.concatenate([[0.0], np.cumsum(length)]),
    )

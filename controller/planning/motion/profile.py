"""The motion along a curve: when the nozzle is where, and how fast.

A profile is what every time law (``laws.py``) returns: phases of constant jerk.
"""

from dataclasses import dataclass, replace

import numpy as np

from controller import _jerk
from controller.config import Cell
from controller.planning.path.curve import Curve
from controller.planning.path.motion_path import axis_limits


@dataclass(frozen=True)
class MotionLimits:
    """What a plan may ask of the motion system."""

    accel_mm_s2: float  # planned share of the total acceleration
    jerk_mm_s3: float
    junction_deviation_mm: float
    path_tolerance_mm: float
    axis_speed_mm_s: np.ndarray  # (3,) planned share
    axis_accel_mm_s2: np.ndarray  # (3,) planned share

    @classmethod
    def of_cell(cls, cell: Cell) -> "MotionLimits":
        """Limits of a cell, lowered to what ``plan_share`` leaves to a plan."""
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
    """Phases of constant jerk, one after the other, along a curve.

    Phase i lasts from ``t_s[i]`` to ``t_s[i + 1]``; with tau = t - t_s[i] the speed in it is
    ``v + a tau + j tau^2 / 2``. Laws without jerk have ``j_mm_s3`` of zeros. ``move`` is -1 in
    a dwell.
    """

    mode: str
    curve: Curve
    t_s: np.ndarray  # (m + 1,) float64
    s_mm: np.ndarray  # (m + 1,) float64: length along the curve
    v_mm_s: np.ndarray  # (m + 1,) float64
    a_mm_s2: np.ndarray  # (m,) float64, at the phase's start
    j_mm_s3: np.ndarray  # (m,) float64
    move: np.ndarray  # (m,) int32: move of the path
    # (m,) float64: longest segment that keeps a bent path or a bent speed within tolerance
    longest_s: np.ndarray

    @property
    def move_s_mm(self) -> np.ndarray:
        """(n + 1,) path length at each corner."""
        return self.curve.move_s_mm

    @property
    def duration_s(self) -> float:
        """From the start of the first phase to rest."""
        return float(self.t_s[-1])

    def time_at(self, s_mm: np.ndarray | float) -> np.ndarray:
        """Instants, s, at which lengths along the path are reached."""
        s = np.atleast_1d(np.asarray(s_mm, dtype=np.float64))
        i = np.clip(np.searchsorted(self.s_mm, s, side="right") - 1, 0, len(self.a_mm_s2) - 1)
        way = np.clip(s - self.s_mm[i], 0.0, self.s_mm[i + 1] - self.s_mm[i])
        v, a, j = self.v_mm_s[i], self.a_mm_s2[i], self.j_mm_s3[i]
        root = v + np.sqrt(np.maximum(v * v + 2.0 * a * way, 0.0))
        # 2 d / (v + sqrt(v^2 + 2 a d)) has no cancellation for either sign of a
        tau = np.divide(2.0 * way, root, out=np.zeros_like(way), where=root > 0.0)
        last = self.t_s[i + 1] - self.t_s[i]
        bent = np.flatnonzero(j)
        if len(bent):
            tau[bent] = _jerk.times_within(way[bent], v[bent], a[bent], j[bent], last[bent])
        return self.t_s[i] + np.minimum(tau, last)

    def state_at(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Length mm, speed mm/s and acceleration mm/s2 at instants (held outside)."""
        t = np.clip(np.asarray(t_s, dtype=np.float64), self.t_s[0], self.t_s[-1])
        i = np.clip(np.searchsorted(self.t_s, t, side="right") - 1, 0, len(self.a_mm_s2) - 1)
        tau = t - self.t_s[i]
        v, a, j = self.v_mm_s[i], self.a_mm_s2[i], self.j_mm_s3[i]
        s = self.s_mm[i] + tau * (v + tau * (0.5 * a + j * tau / 6.0))
        return (
            np.minimum(s, self.s_mm[i + 1]),
            np.maximum(v + tau * (a + 0.5 * j * tau), 0.0),
            a + j * tau,
        )

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
            j_mm_s3=np.concatenate([[0.0], self.j_mm_s3]),
            longest_s=np.concatenate([[np.inf], self.longest_s]),
            move=np.concatenate([np.array([-1], dtype=np.int32), self.move]),
        )

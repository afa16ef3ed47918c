"""Trapezoids along a path of straight moves and arcs: sharp corners, arcs kept as arcs."""

from dataclasses import dataclass

import numpy as np

from controller import _motion
from controller.planning.motion.friction_circle import SAGITTA_MM
from controller.planning.motion.profile import MotionLimits, Profile
from controller.planning.path.arcs import Arcs, move_tangents
from controller.planning.path.rounding import STRAIGHT_MM, RoundedCurve, moves_with_length


def sharp_curve(
    points_mm: np.ndarray, arcs: Arcs, length_mm: np.ndarray, keep: np.ndarray
) -> RoundedCurve:
    """The path as it is: nothing rounded. ``keep`` (n,): moves that have a length."""
    s = np.concatenate([[0.0], np.cumsum(np.where(keep, length_mm, 0.0))])
    rows = np.append(np.flatnonzero(keep), len(keep))
    radius, half = np.full(len(rows), STRAIGHT_MM), np.zeros(len(rows))
    return RoundedCurve(points_mm, s, points_mm[rows], s[rows], radius, half, arcs)


@dataclass(frozen=True)
class ArcMoves:
    """Straight moves and arcs with their limits; those of no length left out."""

    curve: RoundedCurve
    move: np.ndarray  # (m,) int: which moves of the path these are
    length_mm: np.ndarray  # (m,)
    unit_in: np.ndarray  # (m, 3) tangents at start and end
    unit_out: np.ndarray
    speed_mm_s: np.ndarray  # (m,)
    accel_mm_s2: np.ndarray  # (m,)
    radius_mm: np.ndarray  # (m,): STRAIGHT_MM where straight

    def longest_s(self, at: np.ndarray, v_mm_s: np.ndarray) -> np.ndarray:
        """Longest segment of each phase that keeps the arc's sagitta; ``at``: its row here."""
        fast = np.maximum(np.maximum(v_mm_s[1:], v_mm_s[:-1]), 1e-30)
        bend = self.radius_mm[at]
        return np.where(bend < 1e9, np.sqrt(8.0 * SAGITTA_MM * bend) / fast, np.inf)


def arc_moves(
    points_mm: np.ndarray, speed_mm_s: np.ndarray, limits: MotionLimits, through_mm: np.ndarray
) -> ArcMoves:
    """The moves with v^2 <= a r on arcs, and the limits of the axes. Raises ValueError.

    On an arc an axis sees acceleration along and across the path at once: both together are
    sqrt(2) times the acceleration at most, so axis limits are taken over that and the share of
    the arc's plane that the axis has. Raises ValueError.
    """
    arcs = Arcs.of(points_mm, through_mm)
    keep = moves_with_length(points_mm, arcs)
    length, first, last = move_tangents(points_mm, arcs)
    speed = np.array(speed_mm_s, dtype=np.float64)
    if speed.shape != (len(keep),):
        raise ValueError(f"speed_mm_s has shape {speed.shape}, needed ({len(keep)},)")
    share = np.sqrt(np.maximum(1.0 - arcs.normal**2, 1e-30))
    accel = np.full(len(speed), limits.accel_mm_s2)
    across = np.maximum(np.abs(first), 1e-30)
    accel = np.minimum(accel, (limits.axis_accel_mm_s2 / across).min(axis=1))
    fastest = (limits.axis_speed_mm_s / across).min(axis=1)
    on_axes = (limits.axis_accel_mm_s2 / (np.sqrt(2.0) * share)).min(axis=1, initial=np.inf)
    accel[arcs.move] = np.minimum(limits.accel_mm_s2, on_axes)
    fastest[arcs.move] = np.minimum(
        (limits.axis_speed_mm_s / share).min(axis=1, initial=np.inf),
        np.sqrt(accel[arcs.move] * arcs.radius_mm),
    )
    # not np.minimum on NaN or 0: the kernel refuses those by name
    speed = np.where(speed > fastest, fastest, speed)
    radius = np.full(len(speed), STRAIGHT_MM)
    radius[arcs.move] = arcs.radius_mm
    move = np.flatnonzero(keep)
    if len(move) == 0:
        raise ValueError(f"the path has no length: {len(keep)} moves, all of 0 mm")
    return ArcMoves(
        curve=sharp_curve(points_mm, arcs, length, keep),
        move=move,
        length_mm=length[move],
        unit_in=first[move],
        unit_out=last[move],
        speed_mm_s=speed[move],
        accel_mm_s2=accel[move],
        radius_mm=radius[move],
    )


def trapezoid_on_arcs(
    points_mm: np.ndarray, speed_mm_s: np.ndarray, limits: MotionLimits, through_mm: np.ndarray
) -> Profile:
    """Klipper's rule with tangents at the corners, and v^2 <= a r on arcs. Raises ValueError."""
    moves = arc_moves(points_mm, speed_mm_s, limits, through_mm)
    own, v, peak, accel, _ = _motion.plan_elements(
        moves.length_mm, moves.unit_in, moves.unit_out, moves.speed_mm_s, moves.accel_mm_s2,
        limits.junction_deviation_mm,
    )  # fmt: skip
    t, s, w, a, at = _motion.trapezoid_phases(own, v, peak, accel)
    return Profile(
        mode="trapezoid",
        curve=moves.curve,
        t_s=t,
        s_mm=s,
        v_mm_s=w,
        a_mm_s2=a,
        j_mm_s3=np.zeros(len(a)),
        move=moves.move[at].astype(np.int32),
        longest_s=moves.longest_s(at, w),
    )

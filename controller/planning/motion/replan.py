"""A path that is already being travelled, planned anew from the speed it has.

Every time law plans from rest. So the path gets a straight piece before it, along its first
direction, limited to the speed that is there and long enough to reach it: what the law makes
of the rest begins at exactly that speed, unaccelerated, and by the law's own rules. The piece
is cut off again.
"""

import math
from dataclasses import dataclass

import numpy as np

from controller.errors import PlanError
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits, Profile

SAME_SHARE = 1e-6  # the speed at the seam may be less than asked for by this


@dataclass(frozen=True)
class Replanned:
    """A profile of which everything from ``t_s``, ``s_mm`` on is the answer."""

    profile: Profile
    t_s: float
    s_mm: float
    v_mm_s: float  # there


def first_direction(points_mm: np.ndarray, through_mm: np.ndarray | None) -> np.ndarray:
    """Unit vector (3,) in which a path leaves its first point; of an arc its tangent there.

    Inversion about the first point makes a line of the arc's circle, parallel to the tangent.
    """
    chord = points_mm[1] - points_mm[0]
    if through_mm is not None and np.isfinite(through_mm[0]).all():
        middle = through_mm[0] - points_mm[0]
        chord = middle / float(middle @ middle) - chord / float(chord @ chord)
    size = float(np.linalg.norm(chord))
    if not size > 0.0:
        raise PlanError("the path cannot be replanned: its first move has no length")
    return chord / size


def _with_brakes(
    points: np.ndarray,
    speed: np.ndarray,
    through: np.ndarray | None,
    v_mm_s: float,
    accel_mm_s2: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Speed limits raised where a start above them is still being slowed down.

    A straight first move is cut where that is done, so that its rest keeps its own limit.
    """
    if v_mm_s <= speed[0]:
        return points, speed, through
    length = np.linalg.norm(np.diff(points, axis=0), axis=1)
    brake_mm = (v_mm_s**2 - float(speed[0]) ** 2) / (2.0 * accel_mm_s2)
    straight = through is None or not np.isfinite(through[0]).all()
    if straight and brake_mm < length[0]:
        cut = points[0] + brake_mm / length[0] * (points[1] - points[0])
        points = np.insert(points, 1, cut, axis=0)
        speed = np.insert(speed, 0, v_mm_s)
        if through is not None:
            through = np.insert(through, 0, np.nan, axis=0)
        return points, speed, through
    before = np.concatenate([[0.0], np.cumsum(length)[:-1]])
    left = np.sqrt(np.maximum(v_mm_s**2 - 2.0 * accel_mm_s2 * before, 0.0))
    return points, np.maximum(speed, left), through


def replan(
    points_mm: np.ndarray,
    speed_mm_s: np.ndarray,
    v_mm_s: float,
    limits: MotionLimits,
    mode: str = "trapezoid",
    through_mm: np.ndarray | None = None,
    *,
    speed_scale: float = 1.0,
) -> Replanned:
    """Plan a path from a speed (unaccelerated, at its first point) to rest.

    Parameters
    ----------
    points_mm, speed_mm_s, limits, mode, through_mm : as of ``laws.plan_profile``
    v_mm_s : >= 0, the speed at the first point: the end speed of what was sent before
    speed_scale : > 0, of every speed limit: an override for all that follows

    A start above the scaled limit is met: the law slows down behind it.
    Raises PlanError where the path cannot be entered at this speed.
    """
    if not (math.isfinite(v_mm_s) and v_mm_s >= 0.0 and math.isfinite(speed_scale)):
        raise PlanError(f"replan from {v_mm_s:g} mm/s at scale {speed_scale:g}: not numbers >= 0")
    points = np.asarray(points_mm, dtype=np.float64)
    speed = np.asarray(speed_mm_s, dtype=np.float64) * speed_scale
    if v_mm_s == 0.0:
        return Replanned(plan_profile(points, speed, limits, mode, through_mm), 0.0, 0.0, 0.0)
    along = first_direction(points, through_mm)
    share = np.maximum(np.abs(along), 1e-30)
    accel = min(limits.accel_mm_s2, float((limits.axis_accel_mm_s2 / share).min()))
    lasts_s = v_mm_s / accel + (accel / limits.jerk_mm_s3 if limits.jerk_mm_s3 > 0.0 else 0.0)
    lead_mm = v_mm_s * (lasts_s + 2.0 * math.sqrt(v_mm_s / max(limits.jerk_mm_s3, 1e-9)))
    points, speed, through_mm = _with_brakes(points, speed, through_mm, v_mm_s, 0.5 * accel)
    ahead = np.concatenate([(points[0] - along * lead_mm)[None], points])
    arcs = None
    if through_mm is not None:
        arcs = np.concatenate([np.full((1, 3), np.nan), through_mm])
    profile = plan_profile(ahead, np.concatenate([[v_mm_s], speed]), limits, mode, arcs)
    s_mm = float(profile.move_s_mm[1])
    t_s = float(profile.time_at(s_mm)[0])
    v = float(profile.state_at(np.array([t_s]))[1][0])
    if v < v_mm_s * (1.0 - SAME_SHARE):
        raise PlanError(
            f"the path cannot be entered at {v_mm_s:g} mm/s, at most at {v:.4f} mm/s: what was "
            "sent before ends too fast for it"
        )
    return Replanned(profile, t_s, s_mm, v)

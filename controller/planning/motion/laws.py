"""Time laws: how fast a path is travelled, under which limits.

One interface for all: ``plan_profile(points, speeds, limits, mode)``. ``MODES`` names the laws
there are; a new law is a function in it.

trapezoid        constant acceleration, junction speeds by Klipper's published rule
friction_circle  corners rounded within the path tolerance, total acceleration within its limit
jerk             the trapezoid's corner speeds, and the path's jerk limited at every instant
"""

from collections.abc import Callable

import numpy as np

from controller import _motion
from controller.errors import PlanError
from controller.planning.motion.arc_law import trapezoid_on_arcs
from controller.planning.motion.friction_circle import friction_circle
from controller.planning.motion.jerk import jerk
from controller.planning.motion.profile import MotionLimits, Profile
from controller.planning.path.curve import Polyline

# (points (n + 1, 3), speed limits (n,), limits, arcs' middles (n, 3) or None) -> profile
Law = Callable[[np.ndarray, np.ndarray, MotionLimits, np.ndarray | None], Profile]


def trapezoid(
    points_mm: np.ndarray,
    speed_mm_s: np.ndarray,
    limits: MotionLimits,
    through_mm: np.ndarray | None = None,
) -> Profile:
    """Trapezoids between sharp corners (Klipper's junction rule)."""
    if through_mm is not None:
        return trapezoid_on_arcs(points_mm, speed_mm_s, limits, through_mm)
    length, v, peak, accel, _ = _motion.plan_trapezoid(
        points_mm,
        speed_mm_s,
        limits.accel_mm_s2,
        limits.junction_deviation_mm,
        limits.axis_speed_mm_s,
        limits.axis_accel_mm_s2,
    )
    t, s, w, a, move = _motion.trapezoid_phases(length, v, peak, accel)
    return Profile(
        mode="trapezoid",
        curve=Polyline.of(points_mm, length),
        t_s=t,
        s_mm=s,
        v_mm_s=w,
        a_mm_s2=a,
        j_mm_s3=np.zeros(len(a)),
        move=move,
        longest_s=np.full(len(a), np.inf),
    )


MODES: dict[str, Law] = {"trapezoid": trapezoid, "friction_circle": friction_circle, "jerk": jerk}


def plan_profile(
    points_mm: np.ndarray,
    speed_mm_s: np.ndarray,
    limits: MotionLimits,
    mode: str = "trapezoid",
    through_mm: np.ndarray | None = None,
) -> Profile:
    """Plan a path from rest to rest.

    Parameters
    ----------
    points_mm : (n + 1, 3) float64, mm
    speed_mm_s : (n,) float64, mm/s      speed limit of each move
    mode : a key of MODES
    through_mm : (n, 3) float64, mm      middle of the arc that a move is; NaN: straight

    Raises PlanError for NaN, infinity, limits of zero and unknown modes.
    """
    law = MODES.get(mode)
    if law is None:
        raise PlanError(f"time law {mode!r} is not one of: {', '.join(MODES)}")
    points = np.asarray(points_mm, dtype=np.float64)
    if through_mm is not None and np.isnan(through_mm).all():
        through_mm = None
    try:
        profile = law(points, np.asarray(speed_mm_s, dtype=np.float64), limits, through_mm)
    except ValueError as exc:
        raise PlanError(f"the path cannot be planned: {exc}") from None
    if len(profile.a_mm_s2) == 0:
        raise PlanError(f"the path has no length: {len(points) - 1} moves, all of 0 mm")
    return profile

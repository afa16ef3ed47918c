"""Time law "jerk": S-curves along the path between sharp corners of Klipper's junction rule.

The path's jerk is limited at every instant, its acceleration within the limit of the move, its
speed within each move's and each corner's limit. At a corner the velocity of single axes still
jumps, as under the trapezoid law: the rule allows it. The mathematics: ``_jerk.pyx``.
"""

import numpy as np

from controller import _jerk, _motion
from controller.planning.curve import Polyline
from controller.planning.profile import MotionLimits, Profile

# a segment's straight speed ramp may leave the bent one by this share of the nominal speed
BEND = 0.0005


def jerk(
    points_mm: np.ndarray,
    speed_mm_s: np.ndarray,
    limits: MotionLimits,
    through_mm: np.ndarray | None = None,
    *,
    start_mm_s: float = 0.0,
) -> Profile:
    """Jerk-limited motion along a path, to rest.

    Parameters
    ----------
    points_mm : (n + 1, 3) float64, mm; speed_mm_s : (n,) float64, mm/s
    through_mm : must be None: arcs are refused
    start_mm_s : float, >= 0        speed at the start, acceleration 0 there (plans made anew)

    Raises ValueError for NaN, infinity, limits of zero, arcs, and for a start speed that no
    braking within the limits can bring to the path's own.
    """
    if through_mm is not None:
        raise ValueError("arcs are not planned with limited jerk: take chords, or another law")
    length, accel, cruise, corner = _motion.junction_limits(
        points_mm,
        speed_mm_s,
        limits.accel_mm_s2,
        limits.junction_deviation_mm,
        limits.axis_speed_mm_s,
        limits.axis_accel_mm_s2,
    )
    t, s, v, a, j, move, longest = _jerk.jerk_phases(
        length, accel, cruise, corner, speed_mm_s, limits.jerk_mm_s3, BEND, start_mm_s
    )
    if v[0] < start_mm_s * (1.0 - 1e-9):
        raise ValueError(
            f"start speed {start_mm_s:g} mm/s cannot be braked in time: {v[0]:g} mm/s can, with "
            f"acceleration 0 at the start and jerk {limits.jerk_mm_s3:g} mm/s3"
        )
    return Profile(
        mode="jerk",
        curve=Polyline.of(points_mm, length),
        t_s=t,
        s_mm=s,
        v_mm_s=v,
        a_mm_s2=a,
        j_mm_s3=j,
        move=move,
        longest_s=longest,
    )

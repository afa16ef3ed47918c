"""Time law "jerk": S-curves along the path between sharp corners of Klipper's junction rule.

The path's jerk is limited at every instant, its acceleration within the limit of the move, its
speed within each move's and each corner's limit. At a corner the velocity of single axes still
jumps, as under the trapezoid law: the rule allows it. Arcs are kept, with v^2 <= a r on them.
The mathematics: ``_jerk.pyx``.
"""

import numpy as np

from controller import _jerk, _motion
from controller.planning.motion.arc_law import ArcMoves, arc_moves
from controller.planning.motion.profile import MotionLimits, Profile
from controller.planning.path.curve import Curve, Polyline

# a segment's straight speed ramp may leave the bent one by this share of the nominal speed
BEND = 0.0005


def corner_speed_mm_s(moves: ArcMoves, deviation_mm: float) -> np.ndarray:
    """(m + 1,) Klipper's junction rule between the tangents of moves; 0 at both ends.

    v^2 <= a jd C / (1 - C) and v^2 <= a d C / (2 S), C and S of half the corner's angle.
    """
    if not 0.0 < deviation_mm < np.inf:
        raise ValueError(f"junction_deviation_mm {deviation_mm}: must be finite and above 0")
    cosine = np.einsum("ij,ij->i", moves.unit_out[:-1], moves.unit_in[1:])
    half_cos = np.sqrt(np.maximum(0.5 * (1.0 + cosine), 0.0))
    half_sin = np.maximum(np.sqrt(np.maximum(0.5 * (1.0 - cosine), 0.0)), 1e-30)
    accel, reach = moves.accel_mm_s2, moves.accel_mm_s2 * moves.length_mm
    leaves = np.minimum(accel[1:], accel[:-1]) * deviation_mm / np.maximum(1.0 - half_cos, 1e-30)
    touches = np.minimum(reach[1:], reach[:-1]) / (2.0 * half_sin)
    return np.concatenate([[0.0], np.sqrt(half_cos * np.minimum(leaves, touches)), [0.0]])


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
    through_mm : (n, 3) float64, mm, or None        middle of the arc that a move is; NaN: straight
    start_mm_s : float, >= 0        speed at the start, acceleration 0 there (plans made anew)

    Raises ValueError for NaN, infinity, limits of zero, and for a start speed that no braking
    within the limits can bring to the path's own.
    """
    nominal = np.asarray(speed_mm_s, dtype=np.float64)
    arcs: ArcMoves | None = None
    curve: Curve | None = None
    if through_mm is not None:
        arcs = arc_moves(points_mm, nominal, limits, through_mm)
        curve, nominal = arcs.curve, nominal[arcs.move]
        length, accel, cruise = arcs.length_mm, arcs.accel_mm_s2, arcs.speed_mm_s
        corner = corner_speed_mm_s(arcs, limits.junction_deviation_mm)
    else:
        length, accel, cruise, corner = _motion.junction_limits(
            points_mm,
            nominal,
            limits.accel_mm_s2,
            limits.junction_deviation_mm,
            limits.axis_speed_mm_s,
            limits.axis_accel_mm_s2,
        )
    t, s, v, a, j, move, longest = _jerk.jerk_phases(
        length, accel, cruise, corner, nominal, limits.jerk_mm_s3, BEND, start_mm_s
    )
    if v[0] < start_mm_s * (1.0 - 1e-9):
        raise ValueError(
            f"start speed {start_mm_s:g} mm/s cannot be braked in time: {v[0]:g} mm/s can, with "
            f"acceleration 0 at the start and jerk {limits.jerk_mm_s3:g} mm/s3"
        )
    if arcs is not None:
        longest = np.minimum(longest, arcs.longest_s(move, v))
        move = arcs.move[move].astype(np.int32)
    return Profile(
        mode="jerk",
        curve=curve or Polyline.of(points_mm, length),
        t_s=t,
        s_mm=s,
        v_mm_s=v,
        a_mm_s2=a,
        j_mm_s3=j,
        move=move,
        longest_s=longest,
    )

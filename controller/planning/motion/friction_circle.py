"""Time law "friction_circle": rounded corners, total acceleration within its limit everywhere.

Tangential and centripetal acceleration together stay within ``accel_mm_s2``; the axes' own
limits hold too. See ``controller/_circle.pyx`` for the mathematics.
"""

import numpy as np

from controller import _circle
from controller.planning.motion.profile import MotionLimits, Profile
from controller.planning.path.rounding import RoundedPath, round_path

# a segment is a straight piece of path: how far its middle may lie off an arc, under one step
SAGITTA_MM = 1e-3
# no arc needs to be so wide that turning at full speed takes less than this share of the limit:
# 10 was the fastest of 1 to 300 on random turns, within 1e-6 of the fastest on the wavy spiral
EASY_TURN = 10.0


def friction_circle(
    points_mm: np.ndarray,
    speed_mm_s: np.ndarray,
    limits: MotionLimits,
    through_mm: np.ndarray | None = None,
    start_mm_s: float = 0.0,
    end_mm_s: float = 0.0,
) -> Profile:
    """The fastest plan that the grid of pieces allows; parameters as of ``plan_profile``.

    ``start_mm_s``, ``end_mm_s``: wanted speeds at both ends, for windows of a longer path; a
    start speed that cannot be braked is lowered, the caller compares ``v_mm_s[0]``.
    """
    n = len(points_mm) - 1
    if points_mm.ndim != 2 or points_mm.shape[1] != 3 or n < 1 or speed_mm_s.shape != (n,):
        raise ValueError(
            f"points_mm has shape {points_mm.shape}, speed_mm_s {speed_mm_s.shape}: needed "
            "(n + 1, 3) and (n,), n >= 1"
        )
    bad = np.flatnonzero(~((speed_mm_s > 0.0) & np.isfinite(speed_mm_s)))
    if len(bad):
        raise ValueError(
            f"speed_mm_s {speed_mm_s[bad[0]]} at index {bad[0]}: must be finite and above 0"
        )
    if not 0.0 < limits.accel_mm_s2 < np.inf:
        raise ValueError(f"accel_mm_s2 {limits.accel_mm_s2}: must be finite and above 0")
    enough_mm = EASY_TURN * float(speed_mm_s.max()) ** 2 / limits.accel_mm_s2
    path = round_path(points_mm, limits.path_tolerance_mm, through_mm, enough_mm)
    speed, pull = _piece_limits(path, speed_mm_s, limits)
    args = (
        path.curve.corner_mm, speed, path.rounding, limits.accel_mm_s2, limits.axis_speed_mm_s,
        limits.axis_accel_mm_s2,
    )  # fmt: skip
    squared, _ = _circle.plan_circle(
        *args, start_mm_s, end_mm_s, bend_mm=path.bend_mm, pull_mm_s2=pull
    )
    t, s, v, a, piece, longest = _circle.circle_phases(
        *args, squared, SAGITTA_MM, bend_mm=path.bend_mm, pull_mm_s2=pull
    )
    return Profile(
        mode="friction_circle",
        curve=path.curve,
        t_s=t,
        s_mm=s,
        v_mm_s=v,
        a_mm_s2=a,
        j_mm_s3=np.zeros(len(a)),
        move=path.move[piece].astype(np.int32),
        longest_s=longest,
    )


def _piece_limits(
    path: RoundedPath, speed_mm_s: np.ndarray, limits: MotionLimits
) -> tuple[np.ndarray, np.ndarray | None]:
    """Speed limit of each piece, and acceleration limit of arc pieces from the axes.

    An axis sees the share sqrt(1 - b^2) of what happens in a plane whose normal has the
    component b along it.
    """
    speed = speed_mm_s[path.move]
    if path.normal is None:
        return speed, None
    share = np.sqrt(np.maximum(1.0 - path.normal**2, 1e-30))
    pull = np.minimum((limits.axis_accel_mm_s2 / share).min(axis=1), limits.accel_mm_s2)
    arc = path.normal.any(axis=1)
    slow = np.minimum(speed, (limits.axis_speed_mm_s / share).min(axis=1))
    return np.where(arc, slow, speed), np.where(arc, pull, limits.accel_mm_s2)

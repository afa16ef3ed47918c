"""The time law of paths with rotary axes: each axis within its own limits."""

import numpy as np

from controller import _joint_law
from controller.config import Cell
from controller.errors import PlanError
from controller.planning.motion.profile import Profile
from controller.planning.path.joint_curve import JointCurve
from firmware_bridge.segments import MAX_STEPS

STILL_MM_S = 1e-6
STEPS_SHARE = 0.5  # between the ends of an interval a slope may be greater


def plan_joint_profile(curve: JointCurve, speed_mm_s: np.ndarray, cell: Cell, mode: str) -> Profile:
    """Plan a path in the machine's axes from rest to rest, with stops where the curve says.

    ``speed_mm_s`` (n,): limit of each move. Whatever ``mode`` is, accelerations are limited
    axis by axis and X, Y, Z together; limited jerk is refused, for its law knows no axes.
    """
    if mode == "jerk":
        raise PlanError(
            "motion.time_law 'jerk' with rotary motion in the path: limited jerk is not planned "
            "for rotary axes, take 'trapezoid' or 'friction_circle'"
        )
    axes, share = cell.motion.machine_axes, cell.motion.plan_share
    total = cell.motion.total_accel_mm_s2 * share
    try:
        v = _joint_law.joint_law(
            curve.s_mm,
            curve.axes,
            curve.slope_start,
            curve.slope_end,
            np.asarray(speed_mm_s, dtype=np.float64)[curve.move],
            curve.rest,
            [a.speed * cell.motion.speed_share for a in axes],
            [a.accel * share for a in axes],
            total,
            total,
        )
    except ValueError as exc:
        raise PlanError(f"the path cannot be planned: {exc}") from None
    stuck = (v[1:] < STILL_MM_S) & (v[:-1] < STILL_MM_S)
    if stuck.any():
        bad = int(np.argmax(stuck))
        raise PlanError(
            f"the path stands still at {curve.s_mm[bad]:.4f} mm (move {int(curve.move[bad])}): an "
            "axis would have to turn without any way at the melt pool"
        )
    h = np.diff(curve.s_mm)
    duration = 2.0 * h / (v[1:] + v[:-1])
    accel = (v[1:] - v[:-1]) * (v[1:] + v[:-1]) / (2.0 * h)
    # straight in the axes, and within what a segment's step counters hold
    rate = np.maximum(np.abs(curve.slope_start), np.abs(curve.slope_end))
    rate = (rate * [a.steps_per_unit for a in axes]).max(axis=1)
    way = np.minimum(curve.longest_mm(), STEPS_SHARE * MAX_STEPS / np.maximum(rate, 1e-9))
    longest = way / np.maximum(v[1:], v[:-1])
    # a cruise is one phase, however many cubics it runs over
    same = (v[2:] == v[1:-1]) & (v[1:-1] == v[:-2]) & (curve.move[1:] == curve.move[:-1])
    first = np.flatnonzero(np.concatenate([[True], ~same]))
    t = np.concatenate([[0.0], np.cumsum(duration)])
    kink = np.concatenate([first, [len(h)]])
    return Profile(
        mode=mode,
        curve=curve,
        t_s=t[kink],
        s_mm=curve.s_mm[kink],
        v_mm_s=v[kink],
        a_mm_s2=np.where(v[1:] == v[:-1], 0.0, accel)[first],
        j_mm_s3=np.zeros(len(first)),
        move=curve.move[first],
        longest_s=np.minimum.reduceat(longest, first),
    )

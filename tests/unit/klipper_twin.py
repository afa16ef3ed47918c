"""Plain-Python look-ahead by Klipper's published rule: the planner's oracle.

Written from the description in Klipper's docs/Kinematics.md (junction deviation, the arc
that touches both moves within half their length, look-ahead flushed when no later move can
change it). Moves are objects in a queue, as there; the kernel is array code: the two share
nothing but the rule. Stripped to its arithmetic: ``klipper_queue`` is the algorithm in full.
"""

import math


class Move:
    """A straight move and what look-ahead knows of it."""

    __slots__ = (
        "accel", "centre_v2", "cruise_v2", "delta_v2", "distance", "end_v", "jd_v2", "peak_v",
        "start_limit_v2", "start_v", "ux", "uy", "uz",
    )  # fmt: skip

    def __init__(self, start, end, speed, accel, deviation, axis_speed=None, axis_accel=None):
        dx = end[0] - start[0]
        dy = end[1] - start[1]
        dz = end[2] - start[2]
        distance = math.sqrt(dx * dx + dy * dy + dz * dz)
        self.distance = distance
        self.ux = dx / distance
        self.uy = dy / distance
        self.uz = dz / distance
        if axis_speed is not None:
            for u, limit_v, limit_a in zip(
                (self.ux, self.uy, self.uz), axis_speed, axis_accel, strict=True
            ):
                if u != 0.0:
                    speed = min(speed, limit_v / abs(u))
                    accel = min(accel, limit_a / abs(u))
        self.accel = accel
        self.cruise_v2 = speed * speed
        self.delta_v2 = 2.0 * distance * accel
        self.jd_v2 = deviation * accel
        self.start_limit_v2 = 0.0

    def join(self, before):
        """Limit of the speed at the corner between ``before`` and this move."""
        cosine = self.ux * before.ux + self.uy * before.uy + self.uz * before.uz
        limit = self.cruise_v2
        if before.cruise_v2 < limit:
            limit = before.cruise_v2
        half_cos = math.sqrt(max(0.5 * (1.0 + cosine), 0.0))
        half_sin = math.sqrt(max(0.5 * (1.0 - cosine), 0.0))
        if half_cos < 1.0 and half_sin > 0.0:
            radius = half_cos / (1.0 - half_cos)
            quarter = 0.25 * half_cos / half_sin
            limit = min(
                limit,
                radius * self.jd_v2,
                radius * before.jd_v2,
                self.delta_v2 * quarter,
                before.delta_v2 * quarter,
            )
        reach = before.start_limit_v2 + before.delta_v2
        self.start_limit_v2 = limit if limit < reach else reach


def _finish(queue, end_v2):
    """Backward pass over a queue, then the trapezoids; returns the duration."""
    total = 0.0
    next_v2 = end_v2
    for move in reversed(queue):
        start_v2 = next_v2 + move.delta_v2
        if move.start_limit_v2 < start_v2:
            start_v2 = move.start_limit_v2
        peak_v2 = (start_v2 + next_v2 + move.delta_v2) * 0.5
        if move.cruise_v2 < peak_v2:
            peak_v2 = move.cruise_v2
        start_v = move.start_v = math.sqrt(start_v2)
        peak_v = move.peak_v = math.sqrt(peak_v2)
        end_v = move.end_v = math.sqrt(next_v2)
        half = 0.5 / move.accel
        cruise = move.distance - (peak_v2 + peak_v2 - start_v2 - next_v2) * half
        total += (2.0 * peak_v - start_v - end_v) / move.accel + cruise / peak_v
        next_v2 = start_v2
    return total


def plan(points, speed, accel, deviation, axis_speed=None, axis_accel=None):
    """Plan a polyline (list of 3-tuples) that starts and ends at rest.

    ``speed`` is a number or one number a move. Returns (moves, duration_s).
    """
    speeds = speed if hasattr(speed, "__len__") else [speed] * (len(points) - 1)
    moves = []
    before = None
    start = points[0]
    for end, limit in zip(points[1:], speeds, strict=True):
        move = Move(start, end, limit, accel, deviation, axis_speed, axis_accel)
        if before is not None:
            move.join(before)
        moves.append(move)
        before = move
        start = end
    return moves, _finish(moves, 0.0)

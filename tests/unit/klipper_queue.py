"""Klipper's planner as it is published, in plain Python: the rival of the benchmarks.

The whole way of a move there, retold from docs/Code_Overview.md and docs/Kinematics.md: an
object a move with its four axes, the machine's check of its range and of the slower z axis,
the look-ahead queue that is settled each 0.15 s of motion as far as nothing later can change
it (smoothed look-ahead included), and the entry of each trapezoid in the queue that steps are
made from. ``klipper_twin`` is the same rule stripped to its arithmetic, the oracle of tests;
it is two to three times as fast and so the harder rival, but not what Klipper does.
"""

import math
from dataclasses import dataclass, field

SETTLE_EACH_S = 0.150


@dataclass
class Machine:
    """Limits, and what comes out: entries of the trapezoid queue."""

    top_mm_s: float
    accel_mm_s2: float
    deviation_mm: float
    z_top_mm_s: float = 1e9
    z_accel_mm_s2: float = 1e9
    cruise_ratio: float = 0.0  # share of each way that smoothed look-ahead keeps free of peaks
    range_mm: tuple = ((-1e6, 1e6),) * 3
    trapezoids: list = field(default_factory=list)

    def __post_init__(self):
        self.smooth_accel_mm_s2 = self.accel_mm_s2 * (1.0 - self.cruise_ratio)

    def check(self, move):
        """Refuse an end out of range; lower what the z axis cannot follow."""
        x, y, z, _ = move.end_mm
        (x_low, x_high), (y_low, y_high), (z_low, z_high) = self.range_mm
        if x < x_low or x > x_high or y < y_low or y > y_high or z < z_low or z > z_high:
            raise ValueError(f"move ends at {x}, {y}, {z} mm, outside {self.range_mm}")
        z = move.way_mm[2]
        if z:
            share = move.length_mm / abs(z)
            move.lower(self.z_top_mm_s * share, self.z_accel_mm_s2 * share)


class QueuedMove:
    """A straight move, its limits as squared speeds, and its trapezoid once settled."""

    __slots__ = (
        "accel_mm_s2", "cruise2", "cruise_mm_s", "cruise_s", "deviation_mm", "direction", "down_s",
        "end_mm", "end_mm_s", "gain2", "least_s", "leave2", "length_mm", "on_end", "smooth_gain2",
        "smooth_start2", "start2", "start_mm", "start_mm_s", "up_s", "way_mm",
    )  # fmt: skip

    def __init__(self, machine, start_mm, end_mm, speed_mm_s):
        self.start_mm = tuple(start_mm)
        self.end_mm = tuple(end_mm)
        self.way_mm = way = [b - a for a, b in zip(start_mm, end_mm)]  # noqa: B905
        self.length_mm = length = math.sqrt(way[0] * way[0] + way[1] * way[1] + way[2] * way[2])
        inverse = 1.0 / length if length else 0.0
        self.direction = [d * inverse for d in way]
        speed = min(speed_mm_s, machine.top_mm_s)
        self.accel_mm_s2 = machine.accel_mm_s2
        self.deviation_mm = machine.deviation_mm
        self.least_s = length / speed
        self.cruise2 = speed**2
        self.gain2 = 2.0 * length * self.accel_mm_s2
        self.smooth_gain2 = 2.0 * length * machine.smooth_accel_mm_s2
        self.start2 = self.smooth_start2 = 0.0
        self.leave2 = math.inf
        self.on_end = []

    def lower(self, speed_mm_s, accel_mm_s2):
        """Keep below a speed and an acceleration."""
        if speed_mm_s**2 < self.cruise2:
            self.cruise2 = speed_mm_s**2
            self.least_s = self.length_mm / speed_mm_s
        self.accel_mm_s2 = min(self.accel_mm_s2, accel_mm_s2)
        self.gain2 = 2.0 * self.length_mm * self.accel_mm_s2
        self.smooth_gain2 = min(self.smooth_gain2, self.gain2)

    def join(self, before):
        """Highest speed at the corner after ``before``."""
        u, w = self.direction, before.direction
        highest = min(self.cruise2, before.cruise2, before.leave2, before.start2 + before.gain2)
        straight = u[0] * w[0] + u[1] * w[1] + u[2] * w[2]
        cos_half = math.sqrt(max(0.5 * (1.0 + straight), 0.0))
        sin_half = math.sqrt(max(0.5 * (1.0 - straight), 0.0))
        if cos_half < 1.0 and sin_half > 0.0:
            radius = cos_half / (1.0 - cos_half)
            quarter = 0.25 * cos_half / sin_half
            highest = min(
                highest,
                radius * self.deviation_mm * self.accel_mm_s2,
                radius * before.deviation_mm * before.accel_mm_s2,
                quarter * self.gain2,
                quarter * before.gain2,
            )
        self.start2 = highest
        self.smooth_start2 = min(self.start2, before.smooth_start2 + before.smooth_gain2)

    def settle(self, start2, cruise2, end2):
        """Speeds and times of the three parts."""
        per = 0.5 / self.accel_mm_s2
        up_mm = (cruise2 - start2) * per
        down_mm = (cruise2 - end2) * per
        self.start_mm_s = start = math.sqrt(start2)
        self.cruise_mm_s = cruise = math.sqrt(cruise2)
        self.end_mm_s = end = math.sqrt(end2)
        self.up_s = up_mm / (0.5 * (start + cruise))
        self.cruise_s = (self.length_mm - up_mm - down_mm) / cruise
        self.down_s = down_mm / (0.5 * (end + cruise))


class LookAheadQueue:
    """Moves that later ones may still slow down."""

    def __init__(self):
        self.moves = []
        self.to_go_s = SETTLE_EACH_S

    def add(self, move):
        """Queue a move; True when it is time to settle."""
        self.moves.append(move)
        if len(self.moves) > 1:
            move.join(self.moves[-2])
        self.to_go_s -= move.least_s
        return self.to_go_s <= 0.0

    def settle(self, *, lazy):
        """Take out the moves whose trapezoids are final; all of them unless ``lazy``."""
        self.to_go_s = SETTLE_EACH_S
        moves = self.moves
        count, searching = len(moves), lazy
        rows = [None] * count
        end2 = smooth_end2 = peak2 = 0.0
        waiting = 0  # moves that cannot gain speed: they cruise as the one before them allows
        # backward, as if the path ended in a standstill after the last move
        for i in reversed(range(count)):
            move = moves[i]
            reach2 = end2 + move.gain2
            start2 = min(move.start2, reach2)
            smooth_reach2 = smooth_end2 + move.smooth_gain2
            smooth_start2 = min(move.smooth_start2, smooth_reach2)
            cruise2 = None
            waiting += 1
            if smooth_start2 < smooth_reach2:
                if waiting > 1 or smooth_start2 + move.smooth_gain2 > smooth_end2:
                    if searching and peak2:  # a full peak follows: nothing later reaches here
                        count = i + waiting
                        searching = False
                    peak2 = 0.5 * (smooth_start2 + smooth_reach2)
                cruise2 = min(0.5 * (start2 + reach2), move.cruise2, peak2)
                waiting = 0
            rows[i] = (move, start2, cruise2, end2)
            end2, smooth_end2 = start2, smooth_start2
        if searching:
            return []
        before2 = 0.0
        for move, start2, cruise2, end2 in rows[:count]:
            if cruise2 is None:
                cruise2 = min(before2, start2)
            move.settle(min(start2, cruise2), cruise2, min(end2, cruise2))
            before2 = cruise2
        del moves[:count]
        return [row[0] for row in rows[:count]]


class ToolHead:
    """Takes positions, gives trapezoids; ``print_s`` is the end of what is settled."""

    def __init__(self, machine, start_mm):
        self.machine = machine
        self.at_mm = [*start_mm, 0.0]
        self.queue = LookAheadQueue()
        self.print_s = 0.0

    def move(self, to_mm, speed_mm_s):
        """A straight move to a position of four axes, the fourth the extruder's."""
        move = QueuedMove(self.machine, self.at_mm, to_mm, speed_mm_s)
        if not move.length_mm:
            return
        self.machine.check(move)
        self.at_mm[:] = move.end_mm
        if self.queue.add(move):
            self._hand_over(lazy=True)

    def finish(self):
        """Settle the rest, down to a standstill."""
        self._hand_over(lazy=False)

    def _hand_over(self, *, lazy):
        now = self.print_s
        append = self.machine.trapezoids.append
        for move in self.queue.settle(lazy=lazy):
            append(
                (
                    now, move.up_s, move.cruise_s, move.down_s,
                    move.start_mm[0], move.start_mm[1], move.start_mm[2],
                    move.direction[0], move.direction[1], move.direction[2],
                    move.start_mm_s, move.cruise_mm_s, move.accel_mm_s2,
                )
            )  # fmt: skip
            now += move.up_s + move.cruise_s + move.down_s
            for call in move.on_end:
                call(now)
        self.print_s = now


def plan(points, speed, accel, deviation, cruise_ratio=0.0, keep=True):
    """Plan a polyline (list of 3-tuples) from rest to rest; (trapezoids, duration_s).

    ``keep=False`` drops each trapezoid as soon as it is made, as a consumer would.
    """
    machine = Machine(speed, accel, deviation, cruise_ratio=cruise_ratio)
    head = ToolHead(machine, points[0])
    for k, (x, y, z) in enumerate(points[1:]):
        head.move([x, y, z, 0.0], speed)
        if not keep and k & 1023 == 0:
            machine.trapezoids.clear()
    head.finish()
    return machine.trapezoids, head.print_s

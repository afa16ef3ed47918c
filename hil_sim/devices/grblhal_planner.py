"""Planner and step preparation of an emulated grblHAL controller.

Written from grblHAL's documents: blocks joined by junction deviation, a look-ahead over the
whole buffer, a trapezoid per block, and pieces of 10 ms at constant step rate that are prepared
up to nine ahead. Units: mm, s; ``left_mm`` is counted to a block's end.
"""

from __future__ import annotations

import math
from collections import deque

PIECE_S = 0.01
PIECES = 9  # prepared, the one under way included
LEAST_FEED_MM_S = 1.0 / 60.0
_EPS = 1e-9

Triple = tuple[float, float, float]


class Block:
    """One straight move."""

    __slots__ = (
        "accel", "dark", "delta", "dynamic", "end_steps", "entry_sqr", "feed", "flat_out",
        "junction_sqr", "left_mm", "line", "most_entry_sqr", "most_speed", "no_override",
        "s_value", "start_steps", "total_mm", "unit",
    )  # fmt: skip

    def __init__(self) -> None:
        self.start_steps: Triple = (0.0, 0.0, 0.0)
        self.end_steps: Triple = (0.0, 0.0, 0.0)
        self.delta: Triple = (0.0, 0.0, 0.0)  # steps
        self.unit: Triple = (0.0, 0.0, 0.0)
        self.total_mm = self.left_mm = 0.0
        self.accel = self.most_speed = self.feed = 0.0
        self.entry_sqr = self.most_entry_sqr = self.junction_sqr = 0.0
        self.s_value = 0.0
        self.dynamic = False  # M4: power follows speed
        self.dark = False  # G0: no power whatever S says
        self.no_override = False
        self.flat_out = False  # runs into a switch: no slowing down at its end
        self.line = 0


class Piece:
    """Up to 10 ms of steps at constant rate."""

    __slots__ = ("block", "duration_us", "end_steps", "last", "power", "speed", "start_steps")

    def __init__(
        self, block: Block, duration_us: int, start: Triple, end: Triple, power: float,
        speed: float, last: bool,
    ) -> None:  # fmt: skip
        self.block = block
        self.duration_us = duration_us
        self.start_steps, self.end_steps = start, end
        self.power = power  # S that goes out while it runs
        self.speed = speed
        self.last = last  # ends its block


class Planner:
    """Blocks in their order, and the pieces made of them."""

    def __init__(
        self, steps_per_mm: Triple, speed_mm_s: Triple, accel_mm_s2: Triple,
        junction_mm: float, size: int,
    ) -> None:  # fmt: skip
        self.steps_per_mm, self.speed, self.accel = steps_per_mm, speed_mm_s, accel_mm_s2
        self.junction_mm = junction_mm
        self.size = size
        self.feed_override = 1.0
        self.pieces: deque[Piece] = deque()
        self.clear((0, 0, 0))

    def clear(self, steps: tuple[int, int, int]) -> None:
        """Nothing planned; the next block begins at ``steps``."""
        self.blocks: deque[Block] = deque()
        self.pieces.clear()
        self.end_steps: tuple[float, float, float] = steps
        self._planned = 0  # blocks before this one are as good as they can be
        self._unit: Triple = (0.0, 0.0, 0.0)
        self._nominal = 0.0
        self._speed = 0.0  # of the block at the front, where preparation is
        self._begun = False
        self.holding = False  # prepare a stop along the path

    @property
    def free(self) -> int:
        """Blocks that fit."""
        return self.size - len(self.blocks)

    # --- look-ahead ----------------------------------------------------------------------

    def nominal(self, b: Block) -> float:
        """Speed of a block, mm/s, with the feed override."""
        speed = b.feed
        if not b.dark and not b.no_override:
            speed = min(speed, b.most_speed) * self.feed_override
        return max(min(speed, b.most_speed), LEAST_FEED_MM_S)

    def line(
        self, target_steps: tuple[int, int, int], feed_mm_s: float, s_value: float = 0.0,
        *, rapid: bool = False, dynamic: bool = False, number: int = 0, no_override: bool = False,
        flat_out: bool = False,
    ) -> bool:  # fmt: skip
        """Add a block; False when it has no length. ``rapid``: as fast as the axes go."""
        start = self.end_steps
        delta = tuple(t - s for t, s in zip(target_steps, start, strict=True))
        way = [d / k for d, k in zip(delta, self.steps_per_mm, strict=True)]
        length = math.sqrt(way[0] * way[0] + way[1] * way[1] + way[2] * way[2])
        if length == 0.0:
            return False
        b = Block()
        ux, uy, uz = way[0] / length, way[1] / length, way[2] / length
        b.start_steps, b.end_steps = start, target_steps
        b.delta = (delta[0], delta[1], delta[2])
        b.unit = (ux, uy, uz)
        b.total_mm = b.left_mm = length
        b.accel = _limit(b.unit, self.accel)
        b.most_speed = _limit(b.unit, self.speed)
        b.feed = b.most_speed if rapid else feed_mm_s
        b.s_value, b.dynamic, b.dark = s_value, dynamic, rapid
        b.no_override, b.flat_out, b.line = no_override, flat_out, number
        if not self.blocks:
            b.junction_sqr = 0.0
            self._planned = 0
        else:
            px, py, pz = self._unit
            cos = -(px * ux + py * uy + pz * uz)
            if cos > 0.999999:
                b.junction_sqr = 0.0
            elif cos < -0.999999:
                b.junction_sqr = math.inf
            else:
                jx, jy, jz = ux - px, uy - py, uz - pz
                norm = math.sqrt(jx * jx + jy * jy + jz * jz)
                accel = _limit((jx / norm, jy / norm, jz / norm), self.accel)
                half = math.sqrt(0.5 * (1.0 - cos))
                b.junction_sqr = accel * self.junction_mm * half / (1.0 - half)
        nominal = self.nominal(b)
        b.most_entry_sqr = min(nominal * nominal, self._nominal * self._nominal, b.junction_sqr)
        self._nominal, self._unit, self.end_steps = nominal, b.unit, target_steps
        self.blocks.append(b)
        self._recalculate()
        return True

    def _recalculate(self) -> None:
        """Backwards from a stop at the last block's end, then forwards."""
        blocks = self.blocks
        n = len(blocks)
        k = n - 1
        if k <= self._planned:
            return
        if self._planned == 0 and self._begun:
            blocks[0].entry_sqr = self._speed * self._speed  # what is left of it begins so fast
        rest = [blocks[i] for i in range(self._planned, n)]
        last = rest[-1]
        last.entry_sqr = min(last.most_entry_sqr, 2.0 * last.accel * last.left_mm)
        for i in range(len(rest) - 2, 0, -1):
            b = rest[i]
            if b.entry_sqr != b.most_entry_sqr:
                b.entry_sqr = min(b.most_entry_sqr,
                                  rest[i + 1].entry_sqr + 2.0 * b.accel * b.left_mm)  # fmt: skip
        planned = self._planned
        for i in range(1, len(rest)):
            a, b = rest[i - 1], rest[i]
            if a.entry_sqr < b.entry_sqr:
                reached = a.entry_sqr + 2.0 * a.accel * a.left_mm
                if reached < b.entry_sqr:
                    b.entry_sqr = reached
                    planned = self._planned + i
            if b.entry_sqr == b.most_entry_sqr:
                planned = self._planned + i
        self._planned = planned

    def replan(self) -> None:
        """After a change of override, or a stop: everything is planned again from here."""
        if not self.blocks:
            return
        nominal = math.inf
        for b in self.blocks:
            own = self.nominal(b)
            b.most_entry_sqr = min(own * own, nominal * nominal, b.junction_sqr)
            nominal = own
        self._nominal = nominal
        self.blocks[0].entry_sqr = self._speed * self._speed
        self._planned = 0
        self._recalculate()

    # --- preparation ---------------------------------------------------------------------

    def prepare(self) -> None:
        """Fill the pieces."""
        while len(self.pieces) < PIECES and self.blocks:
            b = self.blocks[0]
            if not self._begun:
                self._begun = True
                if not self.holding:
                    self._speed = math.sqrt(b.entry_sqr)
            if self.holding and self._speed <= 0.0:
                return
            self._piece(b)
            if b.left_mm <= 0.0:
                self.blocks.popleft()
                self._planned = max(0, self._planned - 1)
                self._begun = False

    def _piece(self, b: Block) -> None:
        nominal = self.nominal(b)
        if b.flat_out:
            leave = nominal
        else:
            leave = math.sqrt(self.blocks[1].entry_sqr) if len(self.blocks) > 1 else 0.0
        v, left, a = self._speed, b.left_mm, b.accel
        start = b.left_mm
        t = 0.0
        while t < PIECE_S - _EPS and left > 0.0:
            rest = PIECE_S - t
            if self.holding:
                if v <= 0.0:
                    break
                way = v * v / (2.0 * a)
                dt = min(rest, v / a)
                if way > left:
                    end = math.sqrt(max(0.0, v * v - 2.0 * a * left))
                    dt = min(rest, 2.0 * left / (v + end))
                step, v_end = dt * (v - 0.5 * a * dt), max(0.0, v - a * dt)
            else:
                slow = (v * v - leave * leave) / (2.0 * a)
                if v > nominal + _EPS and left > slow:
                    dt = min(rest, (v - nominal) / a)
                    step, v_end = dt * (v - 0.5 * a * dt), v - a * dt
                elif left > slow + _EPS and v < nominal - _EPS:
                    peak = min(nominal, math.sqrt(0.5 * (2.0 * a * left + v * v + leave * leave)))
                    dt = min(rest, max(_EPS, (peak - v) / a))
                    step, v_end = dt * (v + 0.5 * a * dt), min(peak, v + a * dt)
                elif left > slow + _EPS:
                    dt = min(rest, (left - slow) / v)
                    step, v_end = v * dt, v
                else:
                    v = max(v, _EPS)
                    dt = min(rest, 2.0 * left / (v + leave)) if leave < v else left / v
                    v_end = max(leave, v - a * dt) if leave < v else v
                    step = 0.5 * (v + v_end) * dt
            t += dt
            left -= step
            v = v_end
            if left < 1e-7:
                left = 0.0
        self._speed = v
        last = left <= 0.0
        b.left_mm = left
        start_at, end_at = _place(b, start), b.end_steps if last else _place(b, left)
        power = 0.0 if b.dark else b.s_value
        if b.dynamic and not b.dark:
            power *= v / b.feed
        self.pieces.append(
            Piece(b, max(1, round(t * 1e6)), start_at, end_at, power, v, last)
        )  # fmt: skip

    def stopped(self) -> None:
        """A hold has come to rest: the block under way goes on from standstill."""
        self.holding = False
        self._speed = 0.0
        if self.blocks:
            self.blocks[0].entry_sqr = 0.0
            self._begun = True
            self.replan()
            self._speed = 0.0


def _limit(unit: Triple, most: Triple) -> float:
    """The greatest value along a direction that no axis exceeds."""
    least = math.inf
    for u, m in zip(unit, most, strict=True):
        if u != 0.0:
            least = min(least, abs(m / u))
    return least


def _place(b: Block, left_mm: float) -> Triple:
    """Steps where ``left_mm`` of a block are left; whole ones, rounded up as far as is left."""
    share = left_mm / b.total_mm
    (x, y, z), (dx, dy, dz) = b.end_steps, b.delta
    return float(round(x - dx * share)), float(round(y - dy * share)), float(round(z - dz * share))

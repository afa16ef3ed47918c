"""Where a rest meets the plan again, and where its gate opens.

These are two places. A straight run-up can meet the plan only where it runs straight and at a
constant speed, at a segment's start. From there the plan's own segments are followed in the
dark, and the gate opens where the recipe's overlap begins, inside a segment if need be (cut.py).
"""

import math
from dataclasses import dataclass

import numpy as np

from controller.config import Laser
from controller.model import BuildPlan
from controller.planning.rest.approach import AxisLimits
from controller.planning.rest.cut import cut_tick
from controller.planning.rest.head import MEETS, Place
from firmware_bridge.segments import FLAG_PARAM, RATIO_ONE, TICK_S, ticks_of

FASTER_MM = 0.1  # this much earlier the gate may open, where the wished place is slow
FULL_SPEED = 0.999  # of nominal: not slow
SEARCH_MM = 20.0  # how far before the light's beginning an unaccelerated place is looked for
MOST = 50  # places that are tried
SAME_SPEED = 24  # start ratios within this of 1 are a constant speed (1/32768)
LOOK_STEPS, LOOK_ROWS = 200, 64  # over which the direction at a place is averaged
ROUGH_STEPS = 20  # fewer do not tell a direction
BEND_STEPS, BEND_SHARE = 1.5, 0.05  # further aside than rounding puts it: a bend


@dataclass(frozen=True)
class Way:
    """Arc length and speed along a bead, and along the dark stretch that leads into it.

    Both from the speeds that the segments carry, so that no rounding to steps is in them.
    """

    begin: int  # the plan's segment that it begins with
    first: int  # the bead's first one
    s_mm: np.ndarray  # (k + 1,) at segment ends, 0 where the bead begins
    v_mm_s: np.ndarray  # (k + 1,)
    ticks: np.ndarray  # (k,)

    @property
    def end(self) -> int:
        """One past its last segment."""
        return self.begin + len(self.ticks)

    def at(self, place: Place) -> tuple[float, float]:
        """Arc length, mm, and speed, mm/s, at a place on it."""
        i = place.segment - self.begin
        if i >= len(self.ticks):
            return float(self.s_mm[-1]), float(self.v_mm_s[-1])
        into_s = min(max(place.tick_us, 0), int(self.ticks[i])) * TICK_S
        t_s = max(float(self.ticks[i]) * TICK_S, TICK_S)
        v = float(self.v_mm_s[i])
        gain = (float(self.v_mm_s[i + 1]) - v) * into_s / t_s
        return float(self.s_mm[i]) + into_s * (v + 0.5 * gain), v + gain

    def find(self, length_mm: float) -> tuple[int, float]:
        """The segment that is at an arc length, and the time into it, us."""
        s, v = self.s_mm, self.v_mm_s
        if length_mm >= s[-1]:
            return self.end, 0.0
        i = max(int(np.searchsorted(s, length_mm, side="right")) - 1, 0)
        way, t_s = max(length_mm - float(s[i]), 0.0), float(self.ticks[i]) * TICK_S
        a = float(v[i + 1] - v[i]) / t_s
        root = float(v[i]) + math.sqrt(max(float(v[i]) ** 2 + 2.0 * a * way, 0.0))
        into_us = 2.0 * way / root / TICK_S if root > 0.0 else 0.0
        return self.begin + i, min(into_us, float(self.ticks[i]))


@dataclass(frozen=True)
class Join:
    """The run-up meets the plan at the start of ``meets``; the gate opens at ``opens``."""

    meets: int
    opens: Place


def way_of(plan: BuildPlan, track: int) -> Way:
    """The way of a track; of a rest's first bead from where its run-up met the plan before."""
    row = plan.tracks[track]
    first, end = int(row["first_segment"]), int(row["end_segment"])
    after = int(plan.tracks["end_segment"][track - 1]) if track > 0 else 0
    known = [int(m) for m in plan.meta.get(MEETS, ()) if after <= int(m) <= first]
    begin = max(known, default=first)
    own = plan.segments[begin:end]
    before = begin - 1
    while before > 0 and plan.segments["flags"][before] & FLAG_PARAM:
        before -= 1
    speed = np.empty(end - begin + 1)
    speed[0] = plan.segments["end_speed"][before] if before >= 0 else 0
    speed[1:] = own["end_speed"]
    speed *= float(row["speed_mm_s"]) / RATIO_ONE
    ticks = ticks_of(own)
    s = np.concatenate([[0.0], np.cumsum(0.5 * (speed[1:] + speed[:-1]) * ticks * TICK_S)])
    return Way(begin, first, s - s[first - begin], speed, ticks)


def place_at(plan: BuildPlan, track: int, length_mm: float) -> Place:
    """The place on a track at an arc length from its beginning."""
    way = way_of(plan, track)
    segment, into_us = way.find(length_mm)
    return Place(segment, round(into_us))


def opens_at(plan: BuildPlan, way: Way, dark_mm: float, wish_mm: float, laser: Laser) -> Place:
    """Where the gate opens so that ``wish_mm`` is laid twice; the bead's beginning at the least.

    Where it would open in a slow place (a corner) a faster one is taken, ``FASTER_MM`` earlier
    at most.
    """
    late_s = laser.gate_latency_s + laser.gate_jitter_s  # light at the latest
    lit = way.s_mm + way.v_mm_s * late_s
    first = way.first - way.begin
    if lit[first] > dark_mm - wish_mm:
        return Place(way.first, 0)
    before = dark_mm - wish_mm
    # light comes late by a way that hardly changes over itself: one step settles it
    segment, into_us = way.find(before)
    speed = way.at(Place(segment, int(into_us)))[1]
    segment, into_us = way.find(max(before - speed * late_s, 0.0))
    found = Place(segment, cut_tick(plan.segments[segment], into_us))
    nominal = float(way.v_mm_s.max())
    if way.at(found)[1] < FULL_SPEED * nominal:
        near = np.flatnonzero((lit <= before) & (lit >= before - FASTER_MM))
        near = near[(near >= first) & (near < len(way.ticks))]
        if len(near):
            best = near[::-1][int(np.argmax(way.v_mm_s[near[::-1]]))]
            if way.v_mm_s[best] > way.at(found)[1]:
                found = Place(way.begin + int(best), 0)
    return max(found, Place(way.first, 0), key=lambda p: (p.segment, p.tick_us))


def joins(plan: BuildPlan, way: Way, opens: Place, limits: AxisLimits) -> list[Join]:
    """Places to meet the plan before the gate opens, the nearest one first."""
    even = steady(plan, way, limits)
    even[opens.segment - way.begin + 1 :] = False
    even &= way.s_mm[:-1] >= way.at(opens)[0] - SEARCH_MM
    found = [way.begin + int(i) for i in np.flatnonzero(even)[::-1][:MOST]]
    if way.begin not in found:
        found.append(way.begin)  # the plan's own run-up is straight
    return [Join(i, opens) for i in found]


def steady(plan: BuildPlan, way: Way, limits: AxisLimits) -> np.ndarray:
    """Segments at whose start a straight run-up can meet the plan, (k,) bool.

    A constant speed begins there, or (where jerk is not limited) the greatest one is reached.
    Never where steps do not tell a direction: in a rounded corner.
    """
    v = way.v_mm_s
    own = plan.segments[way.begin : way.end]
    ratio = own["start_ratio"].astype(np.int64)
    clear = np.abs(own["steps"].astype(np.int64)).max(axis=1) >= ROUGH_STEPS
    even = (np.abs(ratio - RATIO_ONE) <= SAME_SPEED) & clear & (v[:-1] > 0.0)
    if math.isinf(limits.jerk_mm_s3):
        before = np.append(v[0], v[:-2])
        even |= clear & (v[:-1] >= before) & (v[:-1] >= v[1:]) & (v[:-1] > 0.0)
    else:  # acceleration has to be none on both sides
        even &= np.append(True, np.abs(ratio[:-1] - RATIO_ONE) <= SAME_SPEED)
    return even


def last_before(plan: BuildPlan, way: Way, length_mm: float, limits: AxisLimits) -> int:
    """Last segment, at or before an arc length, where the plan can be left straight."""
    found = np.flatnonzero(steady(plan, way, limits) & (way.s_mm[:-1] <= length_mm))
    return way.begin + (int(found[-1]) if len(found) else 0)


def velocity_at(plan: BuildPlan, segment: int, end: int, limits: AxisLimits) -> np.ndarray:
    """Velocity of the axes at the start of a segment, axis units/s, rounding averaged out.

    A segment may be so short that it has few steps or none: those that follow in the same
    direction, up to ``end``, tell it. Way per length at the melt pool, times the speed there.
    """
    n = len(limits.steps_per_unit)
    speed = begin = _speed_before(plan.segments, segment)
    steps, way = np.zeros(n), 0.0  # steps; end_speed words x ticks
    rows = plan.segments[segment : min(segment + LOOK_ROWS, end)]
    for row, ticks in zip(rows, ticks_of(rows).tolist(), strict=True):
        own = row["steps"][:n].astype(np.float64)
        size = float(np.linalg.norm(steps))
        bends = False
        if np.abs(steps).max() >= ROUGH_STEPS:
            along = float(own @ steps) / size
            aside = math.sqrt(max(float(own @ own) - along * along, 0.0))
            bends = along < 0.0 or aside > BEND_STEPS + BEND_SHARE * along
        if bends or np.abs(steps).max() >= LOOK_STEPS:
            break
        steps += own
        way += 0.5 * (speed + float(row["end_speed"])) * ticks
        speed = float(row["end_speed"])
    if way <= 0.0:
        return np.zeros(n)
    return steps / limits.steps_per_unit / (way * TICK_S) * begin


def _speed_before(segments: np.ndarray, segment: int) -> float:
    """Speed at a segment's start, ``end_speed`` words: as the one before it says, if there is."""
    for row in segments[max(segment - 8, 0) : segment][::-1]:
        if not row["flags"] & FLAG_PARAM:
            return float(row["end_speed"])
    own = segments[segment]
    ratio = float(own["start_ratio"]) / RATIO_ONE
    return float(own["end_speed"]) * ratio / max(2.0 - ratio, 1e-9)

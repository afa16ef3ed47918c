"""The rest of an interrupted build: back to where the light went out, with run-up and overlap.

The rest begins where the axes stand: lift, way over, a straight run-up that reaches the plan's
own speed and direction at one of its segment ends (the join), ``overlap`` before the place
where the gate closed. From the join on the plan's own segments follow, byte for byte (but for
the power of the new bead's ramp-in), so every time law, kinematics and power law that the plan
was made with holds for the rest too.

Powder and gas are timed anew from what the timeline says: what a feeder was told a transport
delay before the join is told the powder's whole way before it.
"""

import math

import numpy as np

from controller.config import Cell
from controller.errors import PlanError
from controller.model import BuildPlan, TrackKind
from controller.planning.rest import approach
from controller.planning.rest.approach import AxisLimits
from controller.planning.rest.assemble import assemble
from controller.planning.rest.head import Head, Place, ends_steps
from controller.planning.rest.powder import Powder, needs_s
from controller.recipes import Recipe
from firmware_bridge.segments import (
    FLAG_END,
    FLAG_GATE,
    FLAG_PARAM,
    FLAG_TRACK_START,
    RATIO_ONE,
    SEGMENT,
    TICK_S,
    ticks_of,
)

SPARE_S = 0.002  # full speed before the gate opens, beyond the source's latencies
SEARCH_MM = 20.0  # how far before the overlap an unaccelerated place is looked for
SAME_SPEED = 24  # start ratios within this of 1 are a constant speed (1/32768)
LOOK_STEPS, LOOK_ROWS = 200, 64  # over which the direction at the join is averaged
ROUGH_STEPS = 20  # fewer do not tell a direction
BEND_STEPS, BEND_SHARE = 1.5, 0.05  # further aside than rounding puts it: a bend


def place_at(plan: BuildPlan, track: int, length_mm: float) -> Place:
    """The place on a track at an arc length from its beginning."""
    first, end = (int(plan.tracks[track][k]) for k in ("first_segment", "end_segment"))
    s, v, ticks = _along(plan, track)
    if length_mm >= s[-1]:
        return Place(end, 0)
    i = max(int(np.searchsorted(s, length_mm, side="right")) - 1, 0)
    way, t_s = max(length_mm - s[i], 0.0), float(ticks[i]) * TICK_S
    a = (v[i + 1] - v[i]) / t_s
    root = v[i] + math.sqrt(max(v[i] ** 2 + 2.0 * a * way, 0.0))
    into_s = 2.0 * way / root if root > 0.0 else 0.0
    return Place(first + i, min(round(into_s / TICK_S), int(ticks[i])))


def resume_plan(
    plan: BuildPlan,
    at: Place,
    here_steps: np.ndarray,
    cell: Cell,
    recipe: Recipe,
    *,
    overlap_mm: float | None = None,
    powder: Powder | None = None,
    remelt: bool | None = None,
) -> tuple[Head, BuildPlan]:
    """The rest of a plan from where its light went out last.

    Parameters
    ----------
    at : where the gate closed last (or how far the plan was executed, with the gate shut)
    here_steps : (6,) int64, where the axes stand: the rest's ``start_steps``
    overlap_mm, remelt : of recipe.restart unless given
    powder : what flows now; None: nothing does, so it is primed anew

    Raises PlanError when no bead is left, or the axes' range leaves no room for a run-up.
    """
    if plan.segments["steps"][:, 3:].any():
        raise PlanError("the plan moves rotary axes; going on is planned for X, Y and Z only")
    restart = recipe.restart
    wish_mm = restart.overlap_mm if overlap_mm is None else overlap_mm
    track, dark_mm = _where(plan, at)
    limits = AxisLimits.of_cell(cell, str(plan.meta.get("time_law", "trapezoid")))
    ends = ends_steps(plan)
    here = np.asarray(here_steps, dtype=np.int64)
    clear = _clear_steps(plan, ends, track, here, cell)
    why = ""
    for join in _joins(plan, track, dark_mm, wish_mm, cell, limits):
        velocity = _velocity(plan, join, limits)
        if not velocity.any():
            continue
        again = (restart.remelt_pass if remelt is None else remelt) and dark_mm is not None
        try:
            head = _head(plan, ends, track, join, dark_mm, velocity, here, clear, cell, limits,
                         powder, bool(again), recipe)  # fmt: skip
        except PlanError as exc:
            why = str(exc)
            continue
        return head, assemble(plan, head, cell, recipe, powder)
    raise PlanError(why or f"track {track}: no place on it can be reached at its speed")


def _where(plan: BuildPlan, at: Place) -> tuple[int, float | None]:
    """The track to go on with, and how much of it is laid in mm; None: begin it anew."""
    tracks = plan.tracks
    track = int(np.searchsorted(tracks["end_segment"], at.segment, side="right"))
    while track < len(tracks):
        first = int(tracks["first_segment"][track])
        if at.segment < first:
            return track, None
        s, v, ticks = _along(plan, track)
        i = at.segment - first
        into_s = min(max(at.tick_us, 0), int(ticks[i])) * TICK_S
        t_s = max(float(ticks[i]) * TICK_S, TICK_S)
        laid = s[i] + into_s * (v[i] + 0.5 * (v[i + 1] - v[i]) * into_s / t_s)
        if s[-1] - laid > 1e-3:
            return track, float(laid) if laid > 0.0 else None
        track += 1  # its last micrometre is laid
    raise PlanError("no bead is left to lay: the build was executed but for its last way")


def _along(plan: BuildPlan, track: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A track's arc length and speed at its segment ends (k + 1), and ticks (k,).

    Both from the speeds that the segments carry, so that no rounding to steps is in them.
    """
    row = plan.tracks[track]
    first, end = int(row["first_segment"]), int(row["end_segment"])
    own = plan.segments[first:end]
    before = first - 1
    while before > 0 and plan.segments["flags"][before] & FLAG_PARAM:
        before -= 1
    speed = np.empty(end - first + 1)
    speed[0] = plan.segments["end_speed"][before] if before >= 0 else 0
    speed[1:] = own["end_speed"]
    speed *= float(row["speed_mm_s"]) / RATIO_ONE
    ticks = ticks_of(own)
    way = 0.5 * (speed[1:] + speed[:-1]) * ticks * TICK_S
    return np.concatenate([[0.0], np.cumsum(way)]), speed, ticks


def _steady(plan: BuildPlan, track: int, limits: AxisLimits) -> tuple[np.ndarray, np.ndarray]:
    """Segments of a track at whose start a straight run-up can meet the plan, (k,) bool each.

    First: full speed and not accelerating. Second: a constant speed below it, or (where jerk
    is not limited) one that has just been reached. Never where steps do not tell a direction:
    in a rounded corner.
    """
    first, end = (int(plan.tracks[track][k]) for k in ("first_segment", "end_segment"))
    _, v, _ = _along(plan, track)
    own = plan.segments[first:end]
    ratio = own["start_ratio"].astype(np.int64)
    clear = np.abs(own["steps"].astype(np.int64)).max(axis=1) >= ROUGH_STEPS
    even = (np.abs(ratio - RATIO_ONE) <= SAME_SPEED) & clear & (v[:-1] > 0.0)
    if math.isinf(limits.jerk_mm_s3):
        before = np.append(v[0], v[:-2])
        even |= clear & (v[:-1] >= before) & (v[:-1] >= v[1:]) & (v[:-1] > 0.0)
    else:  # acceleration has to be none on both sides
        even &= np.append(True, np.abs(ratio[:-1] - RATIO_ONE) <= SAME_SPEED)
    return even & (v[:-1] >= 0.999 * float(plan.tracks["speed_mm_s"][track])), even


def _joins(
    plan: BuildPlan,
    track: int,
    dark_mm: float | None,
    wish_mm: float,
    cell: Cell,
    limits: AxisLimits,
) -> list[int]:
    """Segments of a track to go on with, the best one first, its beginning last."""
    first = int(plan.tracks["first_segment"][track])
    if dark_mm is None:
        return [first]
    s, v, _ = _along(plan, track)
    laser = cell.laser
    lit = s[:-1] + v[:-1] * (laser.gate_latency_s + laser.gate_jitter_s)  # light at the latest
    may = lit <= dark_mm - wish_mm
    near = may & (lit >= dark_mm - wish_mm - SEARCH_MM)
    full, even = _steady(plan, track, limits)
    found: dict[int, None] = {}
    for group in (full & near, even & near, full & may, even & may):
        for i in np.flatnonzero(group)[::-1][:50]:
            if i > 0:
                found[int(i)] = None
    return [first + i for i in found] + [first]


def _velocity(plan: BuildPlan, join: int, limits: AxisLimits) -> np.ndarray:
    """Velocity of the axes at the start of a segment, axis units/s, rounding averaged out.

    A segment may be so short that it has few steps or none: those that follow in the same
    direction tell it. Way per length at the melt pool, times the speed there.
    """
    n = len(limits.steps_per_unit)
    segments = plan.segments
    speed = _speed_before(segments, join)
    begin = speed
    steps, way = np.zeros(n), 0.0  # steps; end_speed words x ticks
    for row, ticks in zip(
        segments[join : join + LOOK_ROWS],
        ticks_of(segments[join : join + LOOK_ROWS]).tolist(),
        strict=True,
    ):
        own = row["steps"][:n].astype(np.float64)
        size = float(np.linalg.norm(steps))
        bends = False
        if np.abs(steps).max() >= ROUGH_STEPS:
            along = float(own @ steps) / size
            aside = math.sqrt(max(float(own @ own) - along * along, 0.0))
            bends = along < 0.0 or aside > BEND_STEPS + BEND_SHARE * along
        if not row["flags"] & FLAG_GATE or bends or np.abs(steps).max() >= LOOK_STEPS:
            break
        steps += own
        way += 0.5 * (speed + float(row["end_speed"])) * ticks
        speed = float(row["end_speed"])
    if way <= 0.0:
        return np.zeros(n)
    return steps / limits.steps_per_unit / (way * TICK_S) * begin


def _speed_before(segments: np.ndarray, join: int) -> float:
    """Speed at a segment's start, ``end_speed`` words: as the one before it says, if there is."""
    for row in segments[max(join - 8, 0) : join][::-1]:
        if not row["flags"] & FLAG_PARAM:
            return float(row["end_speed"])
    own = segments[join]
    ratio = float(own["start_ratio"]) / RATIO_ONE
    return float(own["end_speed"]) * ratio / max(2.0 - ratio, 1e-9)


def _clear_steps(
    plan: BuildPlan, ends: np.ndarray, track: int, here: np.ndarray, cell: Cell
) -> int:
    """Height, in steps of Z, that clears all that is laid: lifted above the layer at work."""
    axis = cell.motion.axes[2]
    first, end = (int(plan.tracks[track][k]) for k in ("first_segment", "end_segment"))
    top = int(ends[first : end + 1, 2].max())
    if track > 0:  # the tracks before are lower or as high
        before = plan.tracks[track - 1]
        top = max(top, int(ends[int(before["first_segment"]), 2]))
    top = max(top, round((cell.substrate.top_mm - axis.range_mm[0]) * axis.steps_per_mm))
    lift = math.ceil(cell.motion.travel_lift_mm * axis.steps_per_mm)
    return min(max(top, int(here[2])) + lift, _high(cell))


def _high(cell: Cell) -> int:
    axis = cell.motion.axes[2]
    return round((axis.range_mm[1] - axis.range_mm[0]) * axis.steps_per_mm)


def _head(
    plan: BuildPlan,
    ends: np.ndarray,
    track: int,
    join: int,
    dark_mm: float | None,
    velocity: np.ndarray,
    here: np.ndarray,
    clear: int,
    cell: Cell,
    limits: AxisLimits,
    powder: Powder | None,
    remelt: bool,
    recipe: Recipe,
) -> Head:
    """Everything before the plan's own segments."""
    laser = cell.laser
    ahead_s = SPARE_S + max(
        laser.gate_latency_s + laser.gate_jitter_s, laser.power_latency_s + laser.power_jitter_s
    )
    segments = plan.segments
    motion = np.flatnonzero((segments["flags"][:join] & FLAG_PARAM) == 0)
    before = segments[motion[-1]] if len(motion) else None
    end_speed = float(before["end_speed"]) / RATIO_ONE if before is not None else 1.0
    params = np.flatnonzero(segments["flags"][:join] & FLAG_PARAM)
    param = segments[params[-1:]]
    floor = int(param["end_power"][0]) if len(param) else 0
    own = _ramped(plan, track, join, dark_mm, floor, cell, recipe)
    first_power = floor if len(own) else (int(before["end_power"]) if before is not None else 0)
    if not len(own):
        own = segments[join : join + 1].copy()
        own["flags"] |= FLAG_TRACK_START

    def approached(start: np.ndarray, wait_s: float, power: int) -> list[np.ndarray]:
        """Lift, wait, over, down, run-up: all that is dark."""
        begin, rush = approach.run_up(
            ends[join], velocity, ahead_s, limits, power=power, end_speed=end_speed
        )
        up, over = start.copy(), begin.copy()
        up[2] = over[2] = max(clear, int(begin[2]), int(start[2]))
        for point in (begin, up, over):
            _check_range(point, limits, cell, track)
        lift = approach.straight(start, up, limits, power=0)
        way = approach.straight(up, over, limits, power=0)
        down = approach.straight(over, begin, limits, power=power)
        moving_s = _duration_s([lift, way, down, rush])
        return [lift, approach.standing(max(wait_s - moving_s, 0.0)), way, down, rush]

    parts: list[np.ndarray] = [param] if len(param) else []
    again: tuple[int, int] | None = None
    start = here
    if remelt and dark_mm is not None:
        last = _last_before(plan, track, dark_mm, limits)
        end_velocity = _velocity(plan, last, limits)
        if last > join and end_velocity.any():
            power = int(before["end_power"]) if before is not None else 0
            parts += approached(start, 0.0, power)
            strip = segments[join:last].copy()
            strip["flags"][0] |= FLAG_TRACK_START
            place = sum(len(p) for p in parts)
            again = (place, place + len(strip))
            start, out = approach.run_out(ends[last], end_velocity, ahead_s, limits, power=0)
            _check_range(start, limits, cell, track)
            parts += [strip, out]
    done_s = _duration_s(parts)
    wait_s = needs_s(plan, join, cell, powder) - done_s
    parts += approached(start, wait_s, first_power)
    opens = sum(len(p) for p in parts)
    parts.append(own)
    rows = np.concatenate(parts)
    rows["flags"][:opens] &= 0xFF ^ FLAG_END
    overlap = 0.0
    if dark_mm is not None:
        s, v, _ = _along(plan, track)
        i = join - int(plan.tracks["first_segment"][track])
        late_s = laser.gate_latency_s + laser.gate_jitter_s
        overlap = max(float(dark_mm - s[i] - v[i] * late_s), 0.0)
    return Head(rows, join, join + len(own), track, opens, here, overlap, again)


def _ramped(
    plan: BuildPlan,
    track: int,
    join: int,
    dark_mm: float | None,
    floor: int,
    cell: Cell,
    recipe: Recipe,
) -> np.ndarray:
    """Segments of the recipe's ramp-in, begun anew at the join; none when nothing is changed."""
    first, end = (int(plan.tracks[track][k]) for k in ("first_segment", "end_segment"))
    row = plan.tracks[track]
    ramp_mm = recipe.settings_for(TrackKind(int(row["kind"])), int(row["layer"])).ramp_in_mm
    if dark_mm is None or join == first or ramp_mm <= 0.0:
        return np.zeros(0, SEGMENT)
    s, v, _ = _along(plan, track)
    lit = s[join - first] + v[join - first] * cell.laser.gate_latency_s
    into = s[join - first + 1 :] + v[join - first + 1 :] * cell.laser.power_latency_s - lit
    n = min(int(np.searchsorted(into, ramp_mm)) + 1, end - join)
    # to the end of a segment: power is straight within each
    share = np.clip(into / max(float(into[n - 1]), ramp_mm), 0.0, 1.0)
    rows = plan.segments[join : join + n].copy()
    full = rows["end_power"].astype(np.float64)
    rows["end_power"] = np.rint(floor + np.maximum(full - floor, 0.0) * share[:n])
    rows["flags"][0] |= FLAG_TRACK_START
    return rows


def _last_before(plan: BuildPlan, track: int, length_mm: float, limits: AxisLimits) -> int:
    """Last segment of a track, at or before an arc length, where it can be left straight."""
    s, _, _ = _along(plan, track)
    full, even = _steady(plan, track, limits)
    found = np.flatnonzero((full | even) & (s[:-1] <= length_mm))
    return int(plan.tracks["first_segment"][track]) + (int(found[-1]) if len(found) else 0)


def _check_range(point: np.ndarray, limits: AxisLimits, cell: Cell, track: int) -> None:
    n = len(limits.low)
    outside = (point[:n] < limits.low) | (point[:n] > limits.high)
    if outside.any():
        k = int(np.argmax(outside))
        axis = cell.motion.axes[k]
        value = axis.range_mm[0] + float(point[k]) / axis.steps_per_mm
        raise PlanError(
            f"track {track}: its run-up would move axis {axis.name} to {value:.3f} mm, outside "
            f"{axis.range_mm[0]:g} to {axis.range_mm[1]:g} mm"
        )


def _duration_s(parts: list[np.ndarray]) -> float:
    return float(sum(int(ticks_of(p).sum()) for p in parts)) * TICK_S


__all__ = ["Head", "Place", "Powder", "assemble", "ends_steps", "place_at", "resume_plan"]

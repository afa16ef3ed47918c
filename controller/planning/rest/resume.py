"""The rest of an interrupted build: back to where the light went out, with run-up and overlap.

The rest begins where the axes stand: lift, way over, a straight run-up that reaches the plan's
own speed and direction at one of its segment ends; from there the plan's own way in the dark up
to ``overlap`` before the place where the gate closed, where the gate opens, inside a segment if
need be (the join). What follows are the plan's own segments, byte for byte (but for the power
of the new bead's ramp-in), so every time law, kinematics and power law that the plan was made
with holds for the rest too.

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
from controller.planning.rest.cut import cut
from controller.planning.rest.head import Head, Place, ends_steps
from controller.planning.rest.join import (
    Join,
    Way,
    joins,
    last_before,
    opens_at,
    place_at,
    velocity_at,
    way_of,
)
from controller.planning.rest.powder import Powder, join_s, needs_s
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

SPARE_S = 0.002  # full speed before the plan is met, beyond the source's latencies


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
    way = way_of(plan, track)
    opens = Place(way.first, 0)
    if dark_mm is not None:
        opens = opens_at(plan, way, dark_mm, wish_mm, cell.laser)
    again = (restart.remelt_pass if remelt is None else remelt) and dark_mm is not None
    for join in joins(plan, way, opens, limits):
        velocity = velocity_at(plan, join.meets, way.end, limits)
        if not velocity.any():
            continue
        try:
            head = _head(plan, ends, track, way, join, dark_mm, velocity, here, clear, cell,
                         limits, powder, bool(again), recipe)  # fmt: skip
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
        way = way_of(plan, track)
        laid = way.at(at)[0]
        if way.s_mm[-1] - laid > 1e-3:
            return track, laid if laid > 0.0 else None
        track += 1  # its last micrometre is laid
    raise PlanError("no bead is left to lay: the build was executed but for its last way")


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
    way: Way,
    join: Join,
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
    segments, meets, opens = plan.segments, join.meets, join.opens
    motion = np.flatnonzero((segments["flags"][:meets] & FLAG_PARAM) == 0)
    before = segments[motion[-1]] if len(motion) else None
    end_speed = float(before["end_speed"]) / RATIO_ONE if before is not None else 1.0
    met_power = int(before["end_power"]) if before is not None else 0
    params = np.flatnonzero(segments["flags"][:meets] & FLAG_PARAM)
    param = segments[params[-1:]]
    floor = int(param["end_power"][0]) if len(param) else 0
    dark, lit = _split(plan, join)
    own = _ramped(plan, track, way, opens, lit, dark_mm, floor, cell, recipe)
    ramps = len(own) > 0
    if not ramps:
        own = lit
    own["flags"][0] |= FLAG_TRACK_START
    parts: list[np.ndarray] = [param] if len(param) else []
    met: list[int] = []

    def approach_from(start: np.ndarray, least_s: float, power: int, dark: np.ndarray) -> None:
        """Lift, wait, over, down, run-up, and the plan's own way in the dark to the light."""
        begin, rush = approach.run_up(
            ends[meets], velocity, ahead_s, limits, power=power, end_speed=end_speed
        )
        up, over = start.copy(), begin.copy()
        up[2] = over[2] = max(clear, int(begin[2]), int(start[2]))
        for point in (begin, up, over):
            _check_range(point, limits, cell, track)
        lift = approach.straight(start, up, limits, power=0)
        across = approach.straight(up, over, limits, power=0)
        down = approach.straight(over, begin, limits, power=power)
        wait_s = least_s - _duration_s([*parts, lift, across, down, rush, dark])
        parts.extend([lift, approach.standing(max(wait_s, 0.0)), across, down, rush, dark])
        met.append(sum(len(p) for p in parts[:-1]))

    again: tuple[int, int] | None = None
    start = here
    if remelt and dark_mm is not None:
        last = last_before(plan, way, dark_mm, limits)
        end_velocity = velocity_at(plan, last, way.end, limits)
        if last > opens.segment and end_velocity.any():
            approach_from(start, 0.0, met_power, dark)
            strip = np.concatenate([lit, segments[opens.segment + 1 : last]])
            strip["flags"][0] |= FLAG_TRACK_START
            place = sum(len(p) for p in parts)
            again = (place, place + len(strip))
            start, out = approach.run_out(ends[last], end_velocity, ahead_s, limits, power=0)
            _check_range(start, limits, cell, track)
            parts += [strip, out]
    opens_s = join_s(plan, opens.segment, opens.tick_us)
    first_power, in_dark = met_power, dark
    if ramps:
        first_power, in_dark = floor, dark.copy()
        in_dark["end_power"] = floor
    approach_from(start, needs_s(plan, opens_s, cell, powder), first_power, in_dark)
    n_before = sum(len(p) for p in parts)
    parts.append(own)
    rows = np.concatenate(parts)
    rows["flags"][:n_before] &= 0xFF ^ FLAG_END
    overlap = 0.0
    if dark_mm is not None:
        s_mm, v_mm_s = way.at(opens)
        overlap = max(dark_mm - s_mm - v_mm_s * (laser.gate_latency_s + laser.gate_jitter_s), 0.0)
    return Head(
        segments=rows,
        join=opens.segment,
        follow=opens.segment + len(own),
        track=track,
        opens=n_before,
        start_steps=here,
        overlap_mm=overlap,
        remelt=again,
        into_us=opens.tick_us,
        meets=tuple(met),
    )


def _split(plan: BuildPlan, join: Join) -> tuple[np.ndarray, np.ndarray]:
    """The plan's segments from where it is met to where the gate opens, made dark; and the one
    with the light, or what is left of it."""
    segments, place = plan.segments, join.opens
    dark, lit = segments[join.meets : place.segment], segments[place.segment : place.segment + 1]
    if place.tick_us > 0:
        moves = np.flatnonzero((segments["flags"][: place.segment] & FLAG_PARAM) == 0)
        before = segments[moves[-1]]
        power, speed = int(before["end_power"]), float(before["end_speed"])
        pieces = cut(lit[0], place.tick_us, power, speed)
        dark, lit = np.concatenate([dark, pieces[:1]]), pieces[1:]
    dark, lit = dark.copy(), lit.copy()
    dark["flags"] &= 0xFF ^ (FLAG_GATE | FLAG_TRACK_START)
    return dark, lit


def _ramped(
    plan: BuildPlan,
    track: int,
    way: Way,
    opens: Place,
    lit: np.ndarray,
    dark_mm: float | None,
    floor: int,
    cell: Cell,
    recipe: Recipe,
) -> np.ndarray:
    """Segments of the recipe's ramp-in, begun anew where the gate opens (the first one is
    ``lit``); none when nothing is changed."""
    row = plan.tracks[track]
    ramp_mm = recipe.settings_for(TrackKind(int(row["kind"])), int(row["layer"])).ramp_in_mm
    if dark_mm is None or opens == Place(way.first, 0) or ramp_mm <= 0.0:
        return np.zeros(0, SEGMENT)
    s, v = way.at(opens)
    light_mm = s + v * cell.laser.gate_latency_s
    i = opens.segment - way.begin
    into = way.s_mm[i + 1 :] + way.v_mm_s[i + 1 :] * cell.laser.power_latency_s - light_mm
    n = min(int(np.searchsorted(into, ramp_mm)) + 1, way.end - opens.segment)
    # to the end of a segment: power is straight within each
    share = np.clip(into / max(float(into[n - 1]), ramp_mm), 0.0, 1.0)
    rows = np.concatenate([lit, plan.segments[opens.segment + 1 : opens.segment + n]])
    full = rows["end_power"].astype(np.float64)
    rows["end_power"] = np.rint(floor + np.maximum(full - floor, 0.0) * share[:n])
    return rows


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

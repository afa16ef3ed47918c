"""Builds that were held and gone on with, or ended early: which plans, and how far.

A build's parts are its plan and a rest for each time that it was gone on with; segment numbers
count on from part to part (controller.planning.rest.parts).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from controller.config import Cell
from controller.errors import RecordError
from controller.model import BuildPlan
from controller.planning.rest.figures import segment_energy
from controller.planning.rest.head import Place, ends_steps
from controller.planning.rest.parts import OVERRIDE, REST, Part, parts_of
from controller.recipes import Recipe
from controller.record.reader import Record
from firmware_bridge.segments import FLAG_GATE, FLAG_PARAM, TICK_S, ticks_of

GATE_EDGE = 1  # code of the motion controller's log


def parts_of_record(
    record: Record, plan: BuildPlan, cell: Cell | None, recipe: Recipe | None
) -> list[Part]:
    """The parts of a recorded build. Raises RecordError when a rest cannot be made again."""
    events = [e.data for e in record.of_kind(REST, OVERRIDE)]
    if not any("what" not in e or "from_s" in e for e in events):
        return [Part(plan)]
    if cell is None or recipe is None:
        raise RecordError(
            f"{record.folder}: the build was gone on with, but the job's cell or recipe cannot "
            "be read by this version"
        )
    return parts_of(plan, events, cell, recipe)


def wanted_ends(parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Positions at all segment ends, (n, 6) steps, and which of them are of motion, (n,) bool."""
    ends = np.concatenate([ends_steps(p.plan)[1:] for p in parts])
    moves = np.concatenate([(p.plan.segments["flags"] & FLAG_PARAM) == 0 for p in parts])
    return ends, moves


def expected_moves(parts: Sequence[Part], executed: np.ndarray) -> int:
    """How many segments of motion a build through to its end has: of a part that was held, those
    up to the last one executed in it. ``executed``: numbers of the segments that ended."""
    count = 0
    for part, last in zip(parts, [*([False] * (len(parts) - 1)), True], strict=True):
        moves = (part.plan.segments["flags"] & FLAG_PARAM) == 0
        if not last:
            own = executed[(executed >= part.base) & (executed < part.end)]
            moves = moves[: int(own.max()) - part.base + 1] if len(own) else moves[:0]
        count += int(moves.sum())
    return count


def layers_done(parts: Sequence[Part], executed: np.ndarray) -> int:
    """Layers of which a track was executed to its end."""
    done: list[np.ndarray] = []
    for part in parts:
        own = executed[(executed >= part.base) & (executed < part.end)]
        if len(own):
            tracks = part.plan.tracks
            done.append(tracks["layer"][tracks["end_segment"] - 1 <= int(own.max()) - part.base])
    return len(np.unique(np.concatenate(done))) if done else 0


def planned_to(part: Part, place: Place | None, rated_power_w: float) -> dict[str, float]:
    """Duration, emission and energy of a part up to a place; None: to its end."""
    segments = part.plan.segments
    ticks = ticks_of(segments).astype(np.float64)
    gate = (segments["flags"] & FLAG_GATE) != 0
    energy = segment_energy(segments, rated_power_w)
    share = np.ones(len(segments))
    if place is not None:
        share[max(place.segment, 0) :] = 0.0
        if 0 <= place.segment < len(segments) and ticks[place.segment] > 0.0:
            share[place.segment] = min(place.tick_us / ticks[place.segment], 1.0)
    return {
        "duration_s": float((ticks * share).sum()) * TICK_S,
        "emission_s": float((ticks * share)[gate].sum()) * TICK_S,
        "energy_j": float((energy * share).sum()),
    }


def planned_of_parts(
    plan: BuildPlan, parts: Sequence[Part], record: Record, rated_power_w: float
) -> dict[str, Any]:
    """What was to be executed: each part up to where the light went out, the last one whole."""
    places: list[Place | None] = []
    for part, event in zip(parts, record.of_kind(REST), strict=False):
        told = event.data["place"]
        places.append(Place(int(told["segment"]) - part.base, int(told["tick_us"])))
    places.append(None)
    sums = [planned_to(p, at, rated_power_w) for p, at in zip(parts, places, strict=True)]
    total: dict[str, Any] = {k: sum(s[k] for s in sums) for k in sums[0]}
    # powder flows on through a hold: the plan does not tell how long
    return {**total, "powder_g": None, "deposited_g": None, "layers": plan.figures.get("layers")}


def executed_place(record: Record, parts: Sequence[Part]) -> tuple[Part, Place]:
    """Where the light of a recorded build went out last: the part, and the place in it.

    From the last row with the gate open, so at most one row early; from the motion
    controller's own log where that says that the bead was ended.
    """
    rows = record.telemetry
    lit = np.flatnonzero(rows["gate"] > 0.5)
    if len(lit) == 0:
        return parts[0], Place(-1, 0)
    row = rows[lit[-1]]
    number = int(row["segment"])
    part = next((p for p in reversed(parts) if p.base <= number), parts[0])
    own = min(number - part.base, len(part.plan.segments) - 1)
    starts_s = float(ticks_of(part.plan.segments[:own]).sum()) * TICK_S
    # float32 of the plan time: an error is taken to the early side
    plan_s = float(row["plan_time_s"]) - abs(float(row["plan_time_s"])) * 2.0**-23
    into_us = round((plan_s - part.shift_s - starts_s) / TICK_S)
    place = Place(own, max(0, min(into_us, int(ticks_of(part.plan.segments[own : own + 1])[0]))))
    for event in record.of_kind("link"):
        args = event.data.get("args") or [1, -1]
        if event.data.get("code") == GATE_EDGE and not args[0] and event.t_us >= int(row["t_us"]):
            shut = int(args[1]) - part.base
            ends = part.plan.tracks["end_segment"]
            track = int(np.searchsorted(ends, place.segment, side="right"))
            if track < len(ends) and shut >= int(ends[track]):
                return part, Place(int(ends[track]), 0)
    return part, place

"""What a build executed when it was gone on with: its plan, and a rest for each time.

Segments keep their numbers through a build: those of a rest are counted on from where the plan
before it ends, so a number in a record or a trace means one segment. A rest is told to the
record by an event of kind "rest"; ``parts_of`` makes the parts from such events.
"""

import base64
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from controller.config import Cell
from controller.errors import PlanError, RecordError
from controller.model import BuildPlan
from controller.planning.powder.live import rescale_timeline
from controller.planning.rest.assemble import assemble
from controller.planning.rest.head import Head, Place
from controller.planning.rest.powder import Powder, join_s
from controller.recipes import Recipe
from firmware_bridge.segments import SEGMENT

REST = "rest"  # kind of the event
OVERRIDE = "override"


@dataclass(frozen=True)
class Part:
    """A plan or a rest of it, with the place of its segments in the build."""

    plan: BuildPlan
    base: int = 0  # number of its first segment in the build
    shift_s: float = 0.0  # plan time of the build minus the part's own
    first_track: int = 0  # the build's number of its first track

    @property
    def end(self) -> int:
        """One past its last segment's number."""
        return self.base + len(self.plan.segments)


def next_part(part: Part, head: Head, rest: BuildPlan) -> Part:
    """The part that follows ``part`` as its rest."""
    opens_s = join_s(rest, head.opens)
    return Part(
        plan=rest,
        base=part.end,
        shift_s=part.shift_s + join_s(part.plan, head.join, head.into_us) - opens_s,
        first_track=part.first_track + head.track - (0 if head.remelt is None else 1),
    )


def rest_event(part: Part, head: Head, at: Place, powder: Powder | None) -> dict[str, Any]:
    """What the record keeps of a rest of ``part``; enough to make it again."""
    return {
        **head.as_dict(),
        "base": part.end,
        "place": {"segment": part.base + at.segment, "tick_us": at.tick_us},
        "powder": None
        if powder is None
        else {"flow_g_min": list(powder.flow_g_min), "since_s": powder.since_s},
        "segments": base64.b64encode(zlib.compress(head.segments.tobytes(), 9)).decode(),
    }


def parts_of(
    plan: BuildPlan, events: Iterable[Mapping[str, Any]], cell: Cell, recipe: Recipe
) -> list[Part]:
    """The parts of a build from the data of its "rest" and "override" events, in order.

    An override of the powder changes the timeline of what is under way. Raises RecordError
    when an event does not fit the plan.
    """
    parts = [Part(plan)]
    for data in events:
        part = parts[-1]
        if "what" in data:
            parts[-1] = _overridden(part, data, cell)
            continue
        try:
            raw = zlib.decompress(base64.b64decode(data["segments"], validate=True))
            head = Head.from_dict(dict(data), np.frombuffer(raw, SEGMENT).copy())
            told = data["powder"]
            powder = None if told is None else Powder(tuple(told["flow_g_min"]), told["since_s"])
            if int(data["base"]) != part.end or not 0 < head.follow <= len(part.plan.segments):
                raise ValueError(f"its first segment is {data['base']}, expected {part.end}")
            rest = assemble(part.plan, head, cell, recipe, powder)
        except (KeyError, ValueError, TypeError, IndexError, zlib.error) as exc:
            raise RecordError(f"a rest of the plan cannot be read: {exc}") from None
        parts.append(next_part(part, head, rest))
    return parts


def _overridden(part: Part, data: Mapping[str, Any], cell: Cell) -> Part:
    """A part whose powder was overridden on the way; other overrides change no plan."""
    if data.get("what") != "powder" or "from_s" not in data:
        return part
    try:
        factor = float(data["new"]) / float(data["old"])
        changed = rescale_timeline(part.plan.timeline, float(data["from_s"]), factor, cell.powder)
    except (KeyError, ValueError, TypeError, ZeroDivisionError, PlanError) as exc:
        raise RecordError(f"an override of the powder cannot be read: {exc}") from None
    return replace(part, plan=replace(part.plan, timeline=changed.timeline))

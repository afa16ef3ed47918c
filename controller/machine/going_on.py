"""Going on after a hold: where the light went out, and the rest of the build from there.

``Progress`` follows the motion controller: the newest status, and the gate's last edge from
its event log, give the place to the microsecond of plan time. ``Progress.rest`` plans the way
back with run-up and overlap; ``Progress.take`` gives it to the motion controller.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from controller.errors import PlanError
from controller.machine.monitor import PlanCursor
from controller.model import BuildPlan
from controller.planning.rest.allowed import against_number, against_stop
from controller.planning.rest.parts import REST, Part, next_part, rest_event
from controller.planning.rest.powder import Powder
from controller.planning.rest.resume import Head, Place, resume_plan
from firmware_bridge.link_types import EventCode
from firmware_bridge.segments import ticks_of

if TYPE_CHECKING:
    from controller.machine.executor import Executor


@dataclass(frozen=True)
class Rest:
    """A rest that is planned but not yet under way."""

    head: Head
    plan: BuildPlan
    at: Place
    powder: Powder | None


class Progress:
    """How far the build under way was executed, and with which plans."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.told = ""  # how the build was gone on with last
        self.restarts = 0  # beads begun in their middle, those of builds resumed by this one too
        self._seen: tuple[int, int, int, float] | None = None  # segment, us into it, clock, scale
        # the light's end: newest status before it, and the event's segment and clock
        self._dark: tuple[tuple[int, int, int, float] | None, int, int] | None = None
        self._lit: tuple[int, int] | None = None  # newest status with the gate open
        self._lit_us = -1  # the loop's time of it

    def begin(self, plan: BuildPlan) -> None:
        """A build begins."""
        self.parts, self.told = [Part(plan)], "goes on along the plan"
        self._seen = self._dark = self._lit = None
        self._lit_us = -1
        resumes = plan.meta.get("resumes")
        self.restarts = int(resumes.get("restarts", 0)) if isinstance(resumes, dict) else 0

    @property
    def part(self) -> Part:
        """The plan, or rest of it, that is being executed."""
        return self.parts[-1]

    def status(self, m: Any) -> None:
        """A new status of the motion controller."""
        self._seen = (m.segment, m.segment_tick_us, m.device_us, m.scale)
        if m.gate_on:
            self._lit = (m.segment, m.segment_tick_us)
            self._lit_us = m.received_us

    def event(self, event: Any) -> None:
        """An entry of its event log; it comes before the status that knows of it."""
        if event.code == EventCode.GATE and not event.arg:
            self._dark = (self._seen, event.segment, event.device_us)

    def place(self) -> Place:
        """Where the light went out last in the present part; (-1, 0): not lit in it.

        Events are not repeated when they are lost: then it is the newest status that saw light.
        """
        base = self.part.base
        told = self._place_of_edge()
        if self._lit is None or self._lit[0] < base:
            return told
        seen = Place(self._lit[0] - base, self._lit[1])
        return max(told, seen, key=lambda p: (p.segment, p.tick_us))

    def _place_of_edge(self) -> Place:
        part = self.part
        if self._dark is None or self._dark[1] < part.base:
            return Place(-1, 0)
        seen, segment, device_us = self._dark
        ticks = ticks_of(part.plan.segments)
        own = segment - part.base
        if own >= len(ticks):
            return Place(len(ticks), 0)
        if seen is None or seen[0] < part.base:
            return Place(own, 0)  # nearer is not known
        before = min(seen[0] - part.base, own)
        gone_us = seen[1] + (device_us - seen[2]) * seen[3]
        left_us = gone_us - float(ticks[before:own].sum())
        return Place(own, int(min(max(left_us, 0.0), float(ticks[own]))))

    def rest(self, ex: "Executor") -> Rest | None:
        """The rest of the build from where it is held; None: no bead is left.

        Raises PlanError when it cannot be gone on with, or the recipe's ``restart`` forbids it.
        """
        out, job = ex.outputs, ex.job
        assert job is not None
        restart = job.recipe.restart
        dark_s = (ex.loop_us() - self._lit_us) * 1e-6 if self._lit_us >= 0 else 0.0
        self._refuse(against_stop(restart, dark_s))
        part, at = self.part, self.place()
        if at.segment >= int(part.plan.tracks["end_segment"].max(initial=0)):
            return None
        if not ex.link.abilities.resume_in_bead and not getattr(ex.link, "in_bead", True):
            return None  # between beads the machine's own program simply goes on
        hoppers = out.hopper_set_g_min
        powder = None
        if any(hoppers):  # else the rest's timeline brings it back
            powder = Powder(hoppers, (ex.loop_us() - out.powder_set_us) * 1e-6)
        here = np.array(ex.motion.position_steps, dtype=np.int64)
        head, plan = resume_plan(part.plan, at, here, ex.cell, job.recipe, powder=powder)
        if head.overlap_mm > 0.0:  # held between beads: nothing is begun in its middle
            self._refuse(against_number(restart, self.restarts + 1))
        ex.loader.prepare_rest(part.plan, head, plan)
        return Rest(head, plan, at, powder)

    @staticmethod
    def _refuse(reason: str) -> None:
        if reason:
            raise PlanError(reason)

    def take(self, ex: "Executor", rest: Rest, cause: str) -> None:
        """Give the rest to the motion controller, which empties its queue and begins it."""
        event = rest_event(self.part, rest.head, rest.at, rest.powder)
        part = next_part(self.part, rest.head, rest.plan)
        self.parts.append(part)
        self.restarts += rest.head.overlap_mm > 0.0
        laid = f"{rest.head.overlap_mm:.2f} mm before the light's end"
        again = ", with a remelt pass" if rest.head.remelt is not None else ""
        where = laid if rest.head.overlap_mm > 0.0 else "at a bead's beginning"
        self.told = f"goes on {where}{again}; held by: {cause}"
        ex.emit(REST, {"cause": cause, **event})
        before = ex.cursor
        ex.cursor = PlanCursor(rest.plan, part.base, round(part.shift_s * 1e6), part.first_track)
        if before is not None:
            ex.cursor.layer = before.layer
        ex.link.start(ex.loader.load(self.parts))


def why_not(exc: PlanError) -> str:
    """The reason against going on, for the operator."""
    return f"unhold refused: {exc}; the build can be stopped, and begun again where it stands"

"""What is to be executed, given to the motion link: segments, or a program made of them.

Segments of a rest count on from those of the plan before it (controller.planning.rest.parts);
a link that plays programs gets only the rest's own program, and is told from which segment on
it counts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from controller.config import Cell
from controller.errors import PlanError
from controller.export import Program, program_of
from controller.machine.rest_program import rest_program
from controller.model import BuildPlan
from controller.planning.light.law_table import KEY, points_of
from controller.planning.rest.parts import Part
from controller.planning.rest.resume import Head
from firmware_bridge.link_types import ProgramLine


class PlanLoader:
    """Gives plans and rests to whichever link the cell has."""

    def __init__(self, cell: Cell, link: Any) -> None:
        self._cell = cell
        self._link = link
        self.exact = bool(link.abilities.exact_position)
        self._plan: BuildPlan | None = None
        self._program: Program | None = None  # of that plan
        self._rest: tuple[BuildPlan, Program] | None = None

    def prepare(self, plan: BuildPlan) -> None:
        """A job is loaded: its program is made. Raises PlanError, ConfigError."""
        self._plan = self._program = self._rest = None
        if not self.exact:
            self._program = self._program_of(plan)
            self._plan = plan

    def prepare_rest(self, before: BuildPlan, head: Head, rest: BuildPlan) -> None:
        """A rest is planned: its program is made. Raises PlanError when there cannot be one."""
        if self.exact:
            return
        if not self._link.abilities.resume_in_bead:
            raise PlanError(
                "the machine's control goes on along its own program only: a bead that was broken "
                "off cannot be begun again with run-up and overlap over this link"
            )
        program = self._program if before is self._plan else None
        if self._rest is not None and before is self._rest[0]:
            program = self._rest[1]
        if program is None:
            raise PlanError("the program that was held is not known any more")
        self._rest = (rest, rest_program(program, before, head, rest, self._cell))

    def load(self, parts: Sequence[Part]) -> int:
        """Give the newest part to the link; the segment to start from. Raises BridgeError."""
        part, link = parts[-1], self._link
        if self.exact:
            link.load(np.concatenate([p.plan.segments for p in parts]))
            return part.base
        program = self._program if part.plan is self._plan else None
        if self._rest is not None and part.plan is self._rest[0]:
            program = self._rest[1]
        if program is None:
            raise PlanError("no program was made of this plan")
        if self._cell.motion.link == "grblhal":
            lines = program_lines(program, part.base)
            link.load_program(lines, np.concatenate([p.plan.segments for p in parts]))
        else:
            powers = part.plan.tracks["power_set_w"].tolist()
            link.load_program(program, part.plan.segments, powers, part.base)
        return part.base

    async def set_laws(self, plan: BuildPlan) -> None:
        """Give a plan's power laws to the motion controller. Raises BridgeError."""
        if not self._link.abilities.power_law:
            return  # a program says its power by itself
        for number, exponent in enumerate(plan.meta.get(KEY, ()), start=1):
            await self._link.power_law(number, points_of(float(exponent)))

    def _program_of(self, plan: BuildPlan) -> Program:
        motion = self._cell.motion
        if motion.link == "grblhal":
            return program_of(plan, "grblhal", comments=False, s_max=motion.s_max or 1000.0)
        return program_of(plan, str(motion.dialect))


def program_lines(program: Program, base: int) -> list[ProgramLine]:
    """A program's lines as a link takes them; segments count from ``base``."""
    rows = zip(
        program.lines,
        program.segment_of_line.tolist(),
        program.track_of_line.tolist(),
        program.gate_of_line.tolist(),
        strict=True,
    )
    return [ProgramLine(text, base + segment, track, gate) for text, segment, track, gate in rows]

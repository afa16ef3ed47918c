"""What the dialects have in common: the walk over the blocks, header facts, warnings."""

import textwrap
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from controller.errors import PlanError
from controller.export.blocks import CHORD_MM, RAMP_STEPS, Block, Source, blocks_of
from controller.export.program import Lines, Note, Program, ascii_words, legal_name
from controller.model import PowderChannel, TrackKind
from controller.planning.light.gate import off_latency_s
from controller.planning.path.motion_path import Role

_TEMPLATES = Environment(
    loader=PackageLoader("controller.export", "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
    keep_trailing_newline=False,
)


@dataclass(frozen=True)
class Wish:
    """How a program is wanted."""

    comments: bool = True
    handshake: bool = False  # a call at each layer's start that returns when it may be built
    powder: bool = True  # commanded by the program, where the dialect can
    s_max: float = 1000.0  # grblHAL's $30


class Dialect:
    """One control's words. A subclass sets the facts and writes what has to be written."""

    name: ClassVar[str]
    title: ClassVar[str]
    suffix: ClassVar[str]
    decimals: ClassVar[int]  # of coordinates, mm
    longest_line: ClassVar[int]
    longest_name: ClassVar[int]
    ramps: ClassVar[bool]  # power is stepped along ramps
    powder: ClassVar[bool]  # powder and gas are commanded by the program
    arcs_3d: ClassVar[bool] = False
    line_end: ClassVar[str] = "\n"
    first_lift: ClassVar[bool] = True  # the lift from where the machine stands is written

    def __init__(self, source: Source, wish: Wish) -> None:
        self.source, self.wish = source, wish
        self.cell, self.plan = source.cell, source.plan
        self.with_powder = self.powder and wish.powder
        self.lines = Lines(self.name, self.longest_line)
        self.program_name = self.legal_name()
        self.at: np.ndarray | None = None  # where the last block ended
        self._state: dict[str, Any] = {}

    # what a dialect writes

    def comment(self, text: str) -> str:
        """A comment line."""
        raise NotImplementedError

    def move(self, block: Block, before: Block | None) -> None:
        """A move, with the changes of gate and power that are due at its start."""
        raise NotImplementedError

    def dwell(self, block: Block) -> None:
        """Commands at once, then standing still."""
        raise NotImplementedError

    def layer_call(self, layer: int) -> None:
        """The handshake at a layer's start."""
        raise NotImplementedError

    def own_notes(self) -> list[Note]:
        """Warnings that only this dialect has."""
        return []

    def facts(self) -> dict[str, Any]:
        """What the templates need beside the common facts."""
        return {}

    def legal_name(self) -> str:
        """The program's name, legal in the dialect."""
        return legal_name(str(self.plan.part.get("name", "part")), self.longest_name)

    # the walk

    def program(self) -> Program:
        """The whole program. Raises PlanError for what the dialect cannot hold."""
        notes = (*self._common_notes(), *self.own_notes())
        blocks = blocks_of(self.source, ramps=self.ramps, powder=self.with_powder)
        self._template("head", notes, blocks)
        before: Block | None = None
        layer, track = -1, -1
        for block in blocks:
            self.lines.at(block.segment, block.track, block.layer)
            if block.layer != layer:
                layer = block.layer
                self.remark(f"LAYER {layer}")
                if self.wish.handshake:
                    self.layer_call(layer)
            if block.track != track:
                track = block.track
                kind = TrackKind(int(self.plan.tracks["kind"][track])).name
                self.remark(f"TRACK {track} {kind} LAYER {layer}")
            if block.dwell_s > 0.0 or block.speed_mm_s == 0.0:
                self.dwell(block)
                continue
            if before is None and not self.first_lift and self._is_lift(block):
                continue
            self.move(block, before)
            before, self.at = block, block.end_mm
        last = blocks[-1]
        self.lines.at(len(self.plan.segments), last.track, last.layer)
        self._template("foot", notes, blocks)
        return self.lines.program(self.program_name, notes, self.suffix, self.line_end)

    def remark(self, text: str) -> None:
        """A mark, where marks are wanted."""
        if self.wish.comments:
            self.lines.add(self.comment(text))

    def _is_lift(self, block: Block) -> bool:
        start = self.source.path.points_mm[0]
        return block.role == Role.TRAVEL and bool((block.end_mm[:2] == start[:2]).all())

    def chords(self, block: Block) -> list[np.ndarray]:
        """End points of straight pieces that stand for an arc, each within CHORD_MM of it."""
        arc, start = block.arc, self.at
        assert arc is not None
        assert start is not None
        out = start - arc.centre_mm
        radius = float(np.linalg.norm(out))
        along = np.cross(arc.normal, out)
        end = block.end_mm - arc.centre_mm
        angle = float(np.arctan2(end @ along, end @ out)) % (2.0 * np.pi)
        step = 2.0 * np.arccos(max(1.0 - CHORD_MM / radius, 0.0))
        n = max(1, int(np.ceil(angle / step)))
        t = angle * np.arange(1, n) / n
        inner = arc.centre_mm + np.outer(np.cos(t), out) + np.outer(np.sin(t), along)
        return [*inner, block.end_mm]

    def _template(self, which: str, notes: tuple[Note, ...], blocks: list[Block]) -> None:
        template = _TEMPLATES.get_template(f"{self.name}_{which}.j2")
        speeds = sorted({b.speed_mm_s for b in blocks if b.speed_mm_s > 0.0})
        text = template.render(
            **self._header(notes),
            name=self.program_name,
            comments=self.wish.comments,
            handshake=self.wish.handshake,
            speeds=speeds,
            rated_w=self.cell.laser.rated_power_w,
            tolerance_mm=self.cell.motion.path_tolerance_mm,
            greatest_flow_g_min=self.cell.powder.greatest_flow_g_min,
            greatest_gas_l_min=self.cell.gas.greatest_flow_l_min,
            **self.facts(),
        )
        for line in text.splitlines():
            self.lines.add(line.rstrip())

    def _header(self, notes: tuple[Note, ...]) -> dict[str, Any]:
        plan, motion = self.plan, self.cell.motion
        offset = np.array(motion.work_offset_mm) - np.array(motion.tool_offset_mm)
        told = [
            f"{self.title} PROGRAM BY LMD {plan.meta.get('version', '')}",
            f"PART {plan.part.get('name', '')}",
            f"RECIPE {self.source.recipe.name}",
            f"CELL {self.cell.name}",
            f"JOB {plan.figures.get('hash', '')}",
            f"{plan.figures['layers']} LAYERS {plan.figures['tracks']} TRACKS "
            f"{plan.figures['duration_s']:.1f} S",
            "MM AND MM/MIN, ZERO IS THE ZERO OF THE PLAN"
            if self.decimals_feed
            else "MM AND MM/S, ZERO IS THE ZERO OF THE PLAN",
            "MACHINE POSITION IS PROGRAM PLUS OFFSET "
            + " ".join(f"{x:.3f}" for x in offset)
            + " MM",
        ]
        width = min(self.longest_line, 100) - 8
        head = [self.comment(ascii_words(line)[:width]) for line in told]
        for note in notes:
            head += [self.comment(line) for line in _wrapped(f"NOT CARRIED, {note.name}: "
                                                             f"{note.text}", width)]  # fmt: skip
        return {"head": head if self.wish.comments else []}

    decimals_feed: ClassVar[bool] = True  # feeds are mm/min

    def _common_notes(self) -> list[Note]:
        beads, laser = self.source.path.beads, self.cell.laser
        notes = [
            Note(
                "gate_guard",
                "nothing here shuts the gate when this controller dies or the program is "
                "stopped; the gate output needs a watchdog and the hardware interlock outside "
                "of the program",
            )
        ]
        ahead_ms = 1e3 * max(laser.gate_latency_s, off_latency_s(laser), laser.power_latency_s)
        if ahead_ms > 0.0:
            notes.append(
                Note(
                    "latency",
                    f"source latencies, up to {ahead_ms:g} ms, are taken off as way at the "
                    "planned speed; at another speed edges lie wrong by latency times the "
                    "difference",
                )
            )
        ramp_mm = float(max(beads["ramp_in_mm"].max(), beads["ramp_out_mm"].max()))
        if ramp_mm > 0.0:
            notes.append(
                Note(
                    "ramps",
                    f"power ramps of up to {ramp_mm:g} mm are made of up to "
                    f"{RAMP_STEPS} steps each",
                )
                if self.ramps
                else Note(
                    "ramps",
                    f"power ramps of up to {ramp_mm:g} mm are left out: power is "
                    "constant along a bead, a bead gets up to "
                    f"{100.0 * self._energy_excess():.0f} % more energy than planned",
                )
            )
        if self.with_powder and len(self.plan.timeline):
            notes.append(
                Note(
                    "powder_timing",
                    "powder and gas are commanded where the planned times fall, "
                    f"{self.cell.powder.transport_delay_s:g} s of transport ahead; that is right "
                    "only while the machine keeps the planned times",
                )
            )
        if not self.with_powder:
            notes.append(Note("powder", "powder and gas are not commanded by the program"))
        return notes

    def _energy_excess(self) -> float:
        """Greatest share by which full power all along a bead is above its planned energy."""
        tracks, beads = self.plan.tracks, self.source.path.beads
        full_w = np.minimum(beads["power_w"], beads["energy_cap_j_mm"] * beads["speed_mm_s"])
        flat_j = full_w * tracks["length_mm"] / tracks["speed_mm_s"]
        return float((flat_j / np.maximum(tracks["energy_j"], 1e-9)).max() - 1.0)

    def law_note(self) -> Note:
        """Power does not follow speed."""
        return Note(
            "power_law",
            "power does not follow speed: where the machine is slower than planned, at corners "
            "and under an override, energy per length rises",
        )


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(ascii_words(text), width)


def channel_index(channel: PowderChannel) -> int:
    """Analog output of a powder channel: 1 and 2 hoppers, 3 carrier, 4 shield."""
    if channel == PowderChannel.DIVERTER:
        raise PlanError("the diverter is a digital output")
    return int(channel) + 1

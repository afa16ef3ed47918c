"""The rest of a program for a grblHAL controller: a way back made of lines, then the old lines.

A rest's head is planned as segments (controller.planning.rest.resume): lift, wait, way over,
run-up, and the bead's first piece anew. Here its corners become lines; the line of the old
program in which the head ends is said again with all its words, and what follows it stays.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from controller.config import Cell
from controller.errors import PlanError
from controller.export import Program
from controller.model import BuildPlan
from controller.planning.path.kinematics import tip_of_steps
from controller.planning.rest.resume import Head, ends_steps
from firmware_bridge.segments import FLAG_GATE, FLAG_PARAM, POWER_FULL, TICK_S, ticks_of

STRAIGHT_STEPS = 1.5  # rounding to steps puts no corner into a straight way
SAME_MM = 0.004  # nearer than this a line is at its end
LEAST_WAIT_S = 0.001

_WORD = re.compile(r"([A-Z])([-+]?[0-9]*\.?[0-9]+)")


@dataclass(frozen=True)
class Modal:
    """What is in force before a line."""

    at: tuple[float, float, float]
    motion: str
    feed: str
    power: str


def rest_program(
    program: Program, plan: BuildPlan, head: Head, rest: BuildPlan, cell: Cell
) -> Program:
    """The program of a rest of ``plan``.

    Parameters
    ----------
    program : of ``plan``, in the dialect grblhal
    head, rest : what resume_plan made of the plan
    Raises PlanError when the program has no line to go on with.
    """
    first = _first_move(program)
    k = int(np.searchsorted(program.segment_of_line, head.follow, side="right")) - 1
    last_move = max(i for i in range(first, len(program.lines)) if _moves(program.lines[i]))
    k = max(k, first)
    lines, segments, gates, ends_mm = _head_lines(rest, head, cell)
    before = _modal(program, k)
    target = _target(before, program.lines[k])
    while k < last_move and (
        not _moves(program.lines[k]) or np.linalg.norm(np.subtract(target, ends_mm)) < SAME_MM
    ):
        k += 1
        before = _modal(program, k)
        target = _target(before, program.lines[k])
    if not _moves(program.lines[k]):
        raise PlanError("the program has no move left to go on with")
    lines.append(_said_again(program.lines[k], before, target, ends_mm))
    n = len(head.segments)
    segments.append(n)
    gates.append(bool(program.gate_of_line[k]))
    moved = n - head.follow
    track_back = head.track - (0 if head.remelt is None else 1)
    head_tracks = [-1 if not lit else 0 for lit in gates[:-1]]
    own = slice(k + 1, None)
    lead = program.lines[:first]
    layer = int(program.layer_of_line[k])
    tracks = [*head_tracks, int(program.track_of_line[k]) - track_back]
    later = np.maximum(program.segment_of_line[own] + moved, n)
    return replace(
        program,
        lines=(*lead, *lines, *program.lines[own]),
        segment_of_line=np.concatenate([np.zeros(first, np.int64), segments, later]),
        track_of_line=np.concatenate(
            [np.full(first, -1), tracks, program.track_of_line[own] - track_back]
        ).astype(np.int64),
        layer_of_line=np.concatenate(
            [np.full(first + len(lines), layer), program.layer_of_line[own]]
        ).astype(np.int64),
        gate_of_line=np.concatenate([np.zeros(first, bool), gates, program.gate_of_line[own]]),
    )


def _words(line: str) -> list[tuple[str, str]]:
    return _WORD.findall(line)


def _moves(line: str) -> bool:
    return any(letter in "XYZ" for letter, _ in _words(line))


def _first_move(program: Program) -> int:
    for i, line in enumerate(program.lines):
        if _moves(line) or line.startswith("G4"):
            return i
    raise PlanError("the program moves nothing")


def _modal(program: Program, line: int) -> Modal:
    """What is in force when a line begins."""
    at = {"X": 0.0, "Y": 0.0, "Z": 0.0}
    motion, feed, power = "G0", "", "S0"
    for text in program.lines[:line]:
        for letter, value in _words(text):
            if letter in at:
                at[letter] = float(value)
            elif letter == "F":
                feed = f"F{value}"
            elif letter == "S":
                power = f"S{value}"
            elif letter == "G" and value in ("0", "1", "2", "3"):
                motion = f"G{value}"
    return Modal((at["X"], at["Y"], at["Z"]), motion, feed, power)


def _target(before: Modal, line: str) -> tuple[float, float, float]:
    words = dict(_words(line))
    x, y, z = (float(words.get(k, v)) for k, v in zip("XYZ", before.at, strict=True))
    return x, y, z


def _said_again(
    line: str,
    before: Modal,
    target: tuple[float, float, float],
    from_mm: tuple[float, float, float],
) -> str:
    """A line with every word that is in force, begun from another place on its way."""
    words = {k: v for k, v in _words(line) if k != "G"}
    motion = next((f"G{v}" for k, v in _words(line) if k == "G" and v in "0123"), before.motion)
    text = [motion, *(f"{k}{v:.3f}" for k, v in zip("XYZ", target, strict=True))]
    if motion in ("G2", "G3"):  # the centre is told as seen from the line's beginning
        for letter, axis in (("I", 0), ("J", 1)):
            centre = before.at[axis] + float(words.get(letter, 0.0))
            text.append(f"{letter}{centre - round(from_mm[axis], 3):.3f}")
    if motion != "G0":
        text.append(f"F{words['F']}" if "F" in words else before.feed)
        text.append(f"S{words['S']}" if "S" in words else before.power)
    return " ".join(t for t in text if t)


def _head_lines(
    rest: BuildPlan, head: Head, cell: Cell
) -> tuple[list[str], list[int], list[bool], tuple[float, float, float]]:
    """Lines of the head, the segment and gate of each, and where it ends."""
    rows = rest.segments[: len(head.segments)]
    ends = ends_steps(rest)[: len(rows) + 1, :3].astype(np.float64)
    ticks = ticks_of(rows).astype(np.float64)
    still = (ends[1:] == ends[:-1]).all(axis=1)
    lit = (rows["flags"] & FLAG_GATE) != 0
    param = (rows["flags"] & FLAG_PARAM) != 0
    per_mm = np.array([a.steps_per_mm for a in cell.motion.axes])
    tip = tip_of_steps(cell)
    rest_steps = [0] * len(cell.motion.rotary)

    def place(i: int) -> tuple[float, float, float]:
        return tip([*(int(v) for v in ends[i]), *rest_steps])

    s_full = cell.motion.s_max or 1000.0
    lines: list[str] = []
    segments: list[int] = []
    gates: list[bool] = []
    i = 0
    while i < len(rows):
        j = i + 1
        if param[i]:
            i = j
            continue
        while j < len(rows) and not param[j] and still[j] == still[i] and lit[j] == lit[i]:
            j += 1
        if still[i]:
            wait_s = float(ticks[i:j].sum()) * TICK_S
            if wait_s >= LEAST_WAIT_S:
                lines.append(f"G4 P{wait_s:.3f}")
                segments.append(i)
                gates.append(False)
            i = j
            continue
        for a, b in _straights(ends, i, j):
            way_mm = np.linalg.norm(np.diff(ends[a : b + 1], axis=0) / per_mm, axis=1)
            time_s = np.maximum(ticks[a:b] * TICK_S, 1e-9)
            # light is on at one speed; a way in the dark begins and ends at rest
            speed = way_mm.sum() / time_s.sum() if lit[a] else (way_mm / time_s).max()
            feed = float(speed) * 60.0
            share = float(rows["end_power"][a:b].max()) / POWER_FULL if lit[a] else 0.0
            x, y, z = place(b)
            lines.append(f"G1 X{x:.3f} Y{y:.3f} Z{z:.3f} F{feed:.1f} S{share * s_full:.1f}")
            segments.append(a)
            gates.append(bool(lit[a]))
        i = j
    return lines, segments, gates, place(len(rows))


def _straights(ends: np.ndarray, first: int, last: int) -> list[tuple[int, int]]:
    """Straight stretches of the way from position ``first`` to ``last``: (from, to) pairs."""
    stack, found = [(first, last)], []
    while stack:
        a, b = stack.pop()
        if b - a > 1:
            chord = ends[b] - ends[a]
            length = float(np.linalg.norm(chord))
            out = ends[a + 1 : b] - ends[a]
            if length > 0.0:
                along = np.clip(out @ chord / length**2, 0.0, 1.0)
                out = out - along[:, None] * chord
            off = np.linalg.norm(out, axis=1)
            worst = int(np.argmax(off))
            if off[worst] > STRAIGHT_STEPS:
                corner = a + 1 + worst
                stack += [(corner, b), (a, corner)]
                continue
        found.append((a, b))
    return found

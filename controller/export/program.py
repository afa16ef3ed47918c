"""A program for another control: its lines, and what of the plan each stands for."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controller.errors import PlanError, RecordError


@dataclass(frozen=True)
class Note:
    """A warning by name: what of the plan the program cannot carry."""

    name: str
    text: str  # one sentence


@dataclass(frozen=True)
class Program:
    """Lines without their ends, ASCII, and for each line its place in the plan.

    ``segment_of_line``: the plan's segment that begins (or is under way) when the line does;
    never falls, and is ``len(plan.segments)`` after the last move. ``track_of_line``: the track
    being laid or approached, -1 before the first. ``layer_of_line``: that track's layer, or -1.
    """

    dialect: str
    name: str  # as the program says it: legal in the dialect
    lines: tuple[str, ...]
    segment_of_line: np.ndarray  # (n,) int64
    track_of_line: np.ndarray  # (n,) int64
    layer_of_line: np.ndarray  # (n,) int64
    gate_of_line: np.ndarray  # (n,) bool: the gate is open while the line moves
    notes: tuple[Note, ...]
    suffix: str  # usual ending of the file's name
    line_end: str = "\n"

    @property
    def text(self) -> str:
        """The file's content."""
        return self.line_end.join((*self.lines, ""))


class Lines:
    """Collects lines with their places; refuses what the control would not take."""

    def __init__(self, dialect: str, longest: int) -> None:
        self._dialect, self._longest = dialect, longest
        self.text: list[str] = []
        self.segment: list[int] = []
        self.track: list[int] = []
        self.layer: list[int] = []
        self.gate: list[bool] = []
        self._place = (0, -1, -1)

    def at(self, segment: int, track: int, layer: int) -> None:
        """Where in the plan the lines that follow are."""
        self._place = (segment, track, layer)

    def add(self, line: str, *, gate: bool = False) -> None:
        """One line. Raises PlanError when it is too long or holds what is not printable ASCII."""
        if len(line) > self._longest:
            raise PlanError(
                f"{self._dialect}: line {len(self.text) + 1} has {len(line)} characters, at most "
                f"{self._longest} fit: {line[:40]!r}..."
            )
        if not (line.isascii() and (line.isprintable() or not line)):
            raise PlanError(f"{self._dialect}: line {len(self.text) + 1} is not ASCII: {line!r}")
        self.text.append(line)
        segment, track, layer = self._place
        self.segment.append(segment)
        self.track.append(track)
        self.layer.append(layer)
        self.gate.append(gate)

    def program(self, name: str, notes: tuple[Note, ...], suffix: str, line_end: str) -> Program:
        """All lines."""
        return Program(
            dialect=self._dialect,
            name=name,
            lines=tuple(self.text),
            segment_of_line=np.array(self.segment, dtype=np.int64),
            track_of_line=np.array(self.track, dtype=np.int64),
            layer_of_line=np.array(self.layer, dtype=np.int64),
            gate_of_line=np.array(self.gate, dtype=bool),
            notes=notes,
            suffix=suffix,
            line_end=line_end,
        )


def fixed(value: float, decimals: int) -> str:
    """A number with fixed decimals, no exponent and no negative zero."""
    text = f"{value:.{decimals}f}"
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]
    return text


def ascii_words(text: str) -> str:
    """Printable ASCII without brackets, for comments; anything else becomes an underscore."""
    return re.sub(r"[^A-Za-z0-9 .,:;+=/_%-]", "_", text)


def legal_name(part: str, longest: int) -> str:
    """A name of letters, digits and underscores that begins with two letters, upper case."""
    name = re.sub(r"[^A-Z0-9_]", "_", part.upper())
    if len(name) < 2 or not name[:2].isalpha():
        name = "LMD_" + name
    return name[:longest]


def write_program(program: Program, path: Path | str) -> None:
    """Write the file whole or not at all. Raises RecordError when it cannot be written."""
    target = Path(path)
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as out:
            out.write(program.text.encode("ascii"))
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
    except OSError as exc:
        part.unlink(missing_ok=True)
        raise RecordError(f"{target}: cannot be written ({exc.strerror})") from None

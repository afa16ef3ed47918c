"""G-code of an emulated grblHAL controller: the words that a deposition program uses.

Written from the G-code reference of grblHAL's documents. A line is read whole, then judged, then
becomes a list of actions for the controller to carry out in order.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

_WORD = re.compile(r"([A-Z])([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))")
_COMMENT = re.compile(r"\([^)]*\)|;.*")
INCH_MM = 25.4
ARC_TOLERANCE_MM = 0.002  # $12
GREATEST_LINE_NUMBER = 10_000_000

Triple = tuple[float, float, float]


class GcodeError(Exception):
    """``error:N``."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(slots=True)
class Modal:
    """What stays from line to line. Offsets survive a reset, the rest does not."""

    motion: int = 0  # 0 to 3; 80: none
    plane: int = 17
    inch: bool = False
    relative: bool = False
    spindle: int = 5  # 3, 4 or 5
    s_value: float = 0.0
    feed_mm_min: float = 0.0
    offset: int = 0  # 0: G54


@dataclass(slots=True)
class Action:
    """One thing to do: kinds are ``move spindle speed dwell pause end probe jog``."""

    kind: str
    target_mm: Triple = (0.0, 0.0, 0.0)  # machine position
    points_mm: list[Triple] = field(default_factory=list)  # of an arc
    feed_mm_s: float = 0.0
    rapid: bool = False
    value: float = 0.0


class Parser:
    """Modal state and work offsets; ``position_mm`` is the machine position programmed last."""

    def __init__(self) -> None:
        self.offsets_mm: list[list[float]] = [[0.0, 0.0, 0.0] for _ in range(6)]
        self.position_mm: Triple = (0.0, 0.0, 0.0)
        self.line = 0
        self.reset()

    def reset(self) -> None:
        """Power-up or soft reset."""
        self.modal = Modal()
        self.line = 0

    def words(self, text: str) -> list[tuple[str, float]]:
        """Letters and values of a line. Raises GcodeError."""
        text = _COMMENT.sub("", text).replace(" ", "").upper()
        found, at = [], 0
        for match in _WORD.finditer(text):
            if match.start() != at:
                break
            found.append((match[1], float(match[2])))
            at = match.end()
        if at != len(text):
            raise GcodeError(1 if not text[at].isalpha() else 2)
        return found

    def parse(self, text: str, *, jog: bool = False) -> list[Action]:
        """What a line asks for. Raises GcodeError, and then nothing has changed."""
        m = self.modal
        new = Modal(m.motion, m.plane, m.inch, m.relative, m.spindle, m.s_value, m.feed_mm_min,
                    m.offset)  # fmt: skip
        axes: list[float | None] = [None, None, None]
        values: dict[str, float] = {}
        groups: dict[str, str] = {}
        command = ""  # what takes the axis words if no motion does
        machine = False
        ends = pause = False

        def group(name: str, word: str) -> None:
            if name in groups:
                raise GcodeError(21)
            groups[name] = word

        for letter, value in self.words(text):
            if letter == "G":
                code = round(value * 10)
                if code in (0, 10, 20, 30):
                    group("motion", "G")
                    new.motion = code // 10
                elif code in (382, 383):
                    group("motion", "G")
                    command = "probe" if code == 382 else "probe quiet"
                elif code == 800:
                    group("motion", "G")
                    new.motion = 80
                elif code in (40, 100):
                    group("command", "G")
                    command = "dwell" if code == 40 else "offsets"
                elif code in (170,):
                    group("plane", "G")
                elif code in (200, 210):
                    group("units", "G")
                    new.inch = code == 200
                elif code == 530:
                    group("machine", "G")
                    machine = True
                elif 540 <= code <= 590 and code % 10 == 0:
                    group("offset", "G")
                    new.offset = code // 10 - 54
                elif code in (900, 910):
                    group("distance", "G")
                    new.relative = code == 910
                elif code in (940, 610, 400, 490, 911):
                    pass
                else:
                    raise GcodeError(20)
            elif letter == "M":
                if value in (3.0, 4.0, 5.0):
                    group("spindle", "M")
                    new.spindle = int(value)
                elif value in (2.0, 30.0):
                    group("stop", "M")
                    ends = True
                elif value in (0.0, 1.0):
                    group("stop", "M")
                    pause = True
                elif value in (7.0, 8.0, 9.0):
                    pass
                else:
                    raise GcodeError(20)
            elif letter in "XYZ":
                if axes[ord(letter) - 88] is not None:
                    raise GcodeError(25)
                axes[ord(letter) - 88] = value
            elif letter in "FSNPLIJKR":
                if letter in values:
                    raise GcodeError(25)
                values[letter] = value
            else:
                raise GcodeError(20)

        number = values.pop("N", 0.0)
        if number < 0 or number > GREATEST_LINE_NUMBER:
            raise GcodeError(27)
        scale = INCH_MM if new.inch else 1.0
        if "F" in values:
            new.feed_mm_min = values.pop("F") * scale
        if "S" in values:
            new.s_value = values.pop("S")
            if new.s_value < 0:
                raise GcodeError(4)
        moved = any(v is not None for v in axes)
        actions: list[Action] = []
        target = self.position_mm
        if command == "offsets":
            self._set_offset(values, axes, scale)
            moved = False
        elif moved:
            target = self._target(new, axes, scale, machine)
        if new.spindle != m.spindle:
            actions.append(Action("spindle", value=float(new.spindle)))
        elif new.s_value != m.s_value and not moved:
            actions.append(Action("speed", value=new.s_value))
        if command == "dwell":
            if "P" not in values:
                raise GcodeError(28)
            actions.append(Action("dwell", value=values.pop("P")))
        if jog:
            if not moved or "motion" in groups:
                raise GcodeError(16)
            if new.feed_mm_min <= 0.0:
                raise GcodeError(22)
            return [Action("jog", target_mm=target, feed_mm_s=new.feed_mm_min / 60.0)]
        if moved:
            actions.append(self._move(new, command, target, values, scale, machine))
        elif groups.get("motion") and command.startswith("probe"):
            raise GcodeError(26)
        if any(k in values for k in "IJKRPL") and command != "offsets":
            raise GcodeError(36)
        if pause:
            actions.append(Action("pause"))
        if ends:
            actions.append(Action("end"))
        self.modal, self.line = new, int(number)
        if moved:
            self.position_mm = target
        return actions

    def _target(self, new: Modal, axes: list[float | None], scale: float, machine: bool) -> Triple:
        out = []
        offset = self.offsets_mm[new.offset]
        for k in range(3):
            word = axes[k]
            if word is None:
                out.append(self.position_mm[k])
            elif machine:
                out.append(word * scale)
            elif new.relative:
                out.append(self.position_mm[k] + word * scale)
            else:
                out.append(word * scale + offset[k])
        return out[0], out[1], out[2]

    def _set_offset(self, values: dict[str, float], axes: list[float | None], scale: float) -> None:
        """G10 L2: an offset as given, G10 L20: so that the present place gets the given value."""
        kind, p = values.pop("L", -1.0), values.pop("P", -1.0)
        if kind not in (2.0, 20.0):
            raise GcodeError(20 if kind >= 0 else 28)
        if not 0.0 <= p <= 6.0:
            raise GcodeError(29)
        if all(v is None for v in axes):
            raise GcodeError(26)
        which = self.modal.offset if p == 0.0 else int(p) - 1
        for k in range(3):
            word = axes[k]
            if word is not None:
                at = self.position_mm[k] if kind == 20.0 else 0.0
                self.offsets_mm[which][k] = at - word * scale if kind == 20.0 else word * scale

    def _move(
        self, new: Modal, command: str, target: Triple, values: dict[str, float], scale: float,
        machine: bool,
    ) -> Action:  # fmt: skip
        if command.startswith("probe"):
            if new.feed_mm_min <= 0.0:
                raise GcodeError(22)
            quiet = float(command.endswith("quiet"))
            return Action("probe", target_mm=target, feed_mm_s=new.feed_mm_min / 60.0, value=quiet)
        if new.motion == 80:
            raise GcodeError(31)
        if machine and new.motion > 1:
            raise GcodeError(30)
        if new.motion == 0:
            return Action("move", target_mm=target, rapid=True)
        if new.feed_mm_min <= 0.0:
            raise GcodeError(22)
        feed = new.feed_mm_min / 60.0
        if new.motion == 1:
            return Action("move", target_mm=target, feed_mm_s=feed)
        points = self._arc(target, values, scale, clockwise=new.motion == 2)
        return Action("move", target_mm=target, points_mm=points, feed_mm_s=feed)

    def _arc(
        self, target: Triple, values: dict[str, float], scale: float, *, clockwise: bool
    ) -> list[Triple]:
        """Chords of an arc in the XY plane, each within the arc tolerance; the last is target."""
        x0, y0, z0 = self.position_mm
        if "R" in values:
            centre_x, centre_y = self._by_radius(values.pop("R") * scale, target, clockwise)
        elif "I" in values or "J" in values:
            centre_x = x0 + values.pop("I", 0.0) * scale
            centre_y = y0 + values.pop("J", 0.0) * scale
            radius = math.hypot(x0 - centre_x, y0 - centre_y)
            off = abs(math.hypot(target[0] - centre_x, target[1] - centre_y) - radius)
            if off > 0.005 and (off > 0.5 or off > 0.001 * radius):
                raise GcodeError(33)
        else:
            raise GcodeError(35)
        radius = math.hypot(x0 - centre_x, y0 - centre_y)
        begin = math.atan2(y0 - centre_y, x0 - centre_x)
        angle = math.atan2(target[1] - centre_y, target[0] - centre_x) - begin
        if clockwise:
            angle -= 2 * math.pi * math.ceil((angle + 5e-7) / (2 * math.pi))
        else:
            angle -= 2 * math.pi * math.floor((angle - 5e-7) / (2 * math.pi))
        tolerance = min(ARC_TOLERANCE_MM, radius)
        chord = 2.0 * math.sqrt(max(1e-12, tolerance * (2.0 * radius - tolerance)))
        n = max(1, int(abs(angle) * radius / chord))
        out: list[Triple] = []
        for i in range(1, n):
            turn = begin + angle * i / n
            out.append((centre_x + radius * math.cos(turn), centre_y + radius * math.sin(turn),
                        z0 + (target[2] - z0) * i / n))  # fmt: skip
        return [*out, target]

    def _by_radius(self, radius: float, target: Triple, clockwise: bool) -> tuple[float, float]:
        dx, dy = target[0] - self.position_mm[0], target[1] - self.position_mm[1]
        chord = math.hypot(dx, dy)
        square = 4.0 * radius * radius - chord * chord
        if chord == 0.0 or square < 0.0:
            raise GcodeError(34 if chord else 33)
        h = -math.sqrt(square) / chord
        if not clockwise:
            h = -h
        if radius < 0.0:
            h = -h
        return (self.position_mm[0] + 0.5 * (dx - dy * h), self.position_mm[1]
                + 0.5 * (dy + dx * h))  # fmt: skip

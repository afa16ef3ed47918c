"""The exported program as the simulated CNC reads it, and the motion it makes of it.

G-code of LinuxCNC's kind: G0 to G3 (arcs in XY, centre by I J), G4, M62 to M65, M67, M68,
``o<lmd_layer> call [n]``, M2. What it does not know is refused, as a control does. Motion:
straight and circular blocks, feed limited by axes, corners by junction deviation, trapezoids
forward and back over the whole program; written from LinuxCNC's G-code reference, of its own.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

MOVE, DWELL, LAYER, END = range(4)
JUNCTION_MM = 0.01
FASTEST_RAPID_MM_S = 1e9
MOST_LINES = 2_000_000
LEAST_MM = 1e-7
GATE_OUTPUT, POWER_OUTPUT = 0, 0
_WORD = re.compile(r"([A-Z])([-+]?(?:\d+\.?\d*|\.\d+))")
_LAYER = re.compile(r"O<LMD_LAYER>CALL\[(\d+)\]$")
_COMMENT = re.compile(r"\([^()]*\)|;.*")
# words that set what is so in any case, or that this machine has no use for
_ACCEPTED = {
    "G17", "G21", "G40", "G49", "G54", "G61", "G64", "G80", "G90", "G91.1", "G94",
}  # fmt: skip


class ProgramError(Exception):
    """A line that the control does not take: one clause with its number."""


@dataclass(slots=True)
class Item:
    """One thing to do. Speeds are nominal; ``v_in`` and ``v_out`` come from the look-ahead."""

    kind: int
    line: int  # from 1
    gate: bool
    power_w: float
    layer: int = 0  # LAYER: its number from 0
    duration_s: float = 0.0
    start: tuple[float, ...] = ()
    end: tuple[float, ...] = ()
    centre: tuple[float, float] | None = None
    angle: float = 0.0  # of an arc, counter-clockwise positive
    length_mm: float = 0.0
    feed_mm_s: float = 0.0
    accel: float = 0.0
    v_in: float = 0.0
    v_out: float = 0.0
    v_top: float = 0.0
    t_up: float = 0.0
    t_flat: float = 0.0
    heading: tuple[float, ...] = field(default=())
    heading_end: tuple[float, ...] = field(default=())

    def place(self, t_s: float) -> tuple[float, ...]:
        """Where the axes are so long after the item began."""
        if self.kind != MOVE:
            return self.end
        return self.at(self.way(t_s))

    def way(self, t_s: float) -> float:
        """Distance done, mm."""
        if t_s >= self.duration_s:
            return self.length_mm
        if t_s < self.t_up:
            return (self.v_in + 0.5 * self.accel * t_s) * t_s
        up = 0.5 * (self.v_in + self.v_top) * self.t_up
        t_s -= self.t_up
        if t_s < self.t_flat:
            return up + self.v_top * t_s
        up += self.v_top * self.t_flat
        t_s -= self.t_flat
        return min(up + (self.v_top - 0.5 * self.accel * t_s) * t_s, self.length_mm)

    def speed(self, t_s: float) -> float:
        """Nominal speed so long after the item began, mm/s."""
        if self.kind != MOVE:
            return 0.0
        if t_s < self.t_up:
            return self.v_in + self.accel * t_s
        down_s = t_s - self.t_up - self.t_flat
        return self.v_top if down_s <= 0.0 else max(0.0, self.v_top - self.accel * down_s)

    def at(self, way_mm: float) -> tuple[float, ...]:
        """The point on the path."""
        share = way_mm / self.length_mm
        if share >= 1.0:
            return self.end
        if self.centre is None:
            return tuple([a + share * (b - a) for a, b in zip(self.start, self.end, strict=True)])
        cx, cy = self.centre
        dx, dy = self.start[0] - cx, self.start[1] - cy
        c, s = math.cos(share * self.angle), math.sin(share * self.angle)
        rest = [a + share * (b - a) for a, b in zip(self.start[2:], self.end[2:], strict=True)]
        return (cx + c * dx - s * dy, cy + s * dx + c * dy, *rest)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the control knows of its axes: names, speeds, accelerations."""

    names: tuple[str, ...]
    speed: tuple[float, ...]
    accel: tuple[float, ...]
    path_accel: float


def read_program(data: bytes, machine: Machine, start: tuple[float, ...]) -> list[Item]:
    """All items of a program, the last one END, motion planned. Raises ProgramError."""
    loader = Loader(data, machine, start)
    while not loader.step(MOST_LINES):
        pass
    return loader.items


class Loader:
    """Reads a program a few lines at a time, as a control does beside its other work."""

    def __init__(self, data: bytes, machine: Machine, start: tuple[float, ...]) -> None:
        try:
            self._lines = data.decode("ascii").splitlines()
        except UnicodeDecodeError:
            raise ProgramError("the program is not ASCII") from None
        if len(self._lines) > MOST_LINES:
            raise ProgramError(
                f"the program has {len(self._lines)} lines, at most {MOST_LINES} fit"
            )
        self.data, self.start = data, start
        self._machine = machine
        self._reader = _Reader(machine, start)
        self._next = 0

    @property
    def items(self) -> list[Item]:
        """What was read."""
        return self._reader.items

    def step(self, n: int) -> bool:
        """Read ``n`` lines more; True when the program is whole. Raises ProgramError."""
        reader = self._reader
        for number in range(self._next + 1, min(self._next + n, len(self._lines)) + 1):
            reader.line(number, self._lines[number - 1])
            if reader.ended:
                _look_ahead(reader.items, self._machine)
                return True
        self._next += n
        if self._next >= len(self._lines):
            raise ProgramError("the program has no M2")
        return False


class _Reader:
    """Modal state from line to line."""

    def __init__(self, machine: Machine, start: tuple[float, ...]) -> None:
        self.items: list[Item] = []
        self.ended = False
        self._machine = machine
        self._at = list(start)
        self._motion = -1
        self._feed_mm_s = 0.0
        self._gate, self._power_w = False, 0.0
        self._next: dict[str, float] = {}  # outputs that change with the next move

    def line(self, number: int, text: str) -> None:
        text = _COMMENT.sub("", text).replace(" ", "").replace("\t", "").upper()
        if not text or text == "%":
            return
        layer = _LAYER.fullmatch(text)
        if layer is not None:
            self.items.append(self._item(LAYER, number, layer=int(layer.group(1))))
            return
        words: list[tuple[str, float]] = []
        end = 0
        for found in _WORD.finditer(text):
            if found.start() != end:
                break
            words.append((found.group(1), float(found.group(2))))
            end = found.end()
        if end != len(text):
            raise ProgramError(f"line {number}: {text[:40]!r} is not understood")
        self._words(number, words)

    def _item(self, kind: int, number: int, **more: object) -> Item:
        here = tuple(self._at)
        return Item(kind, number, self._gate, self._power_w, start=here, end=here, **more)  # type: ignore[arg-type]

    def _words(self, number: int, words: list[tuple[str, float]]) -> None:
        values: dict[str, float] = {}
        dwell = False
        output = 0
        for letter, value in words:
            code = f"{letter}{value:g}"
            if letter == "G":
                if value in (0.0, 1.0, 2.0, 3.0):
                    self._motion = int(value)
                elif value == 4.0:
                    dwell = True
                elif code not in _ACCEPTED:
                    raise ProgramError(f"line {number}: {code} is not known")
            elif letter == "M":
                if value in (2.0, 30.0):
                    self.items.append(self._item(END, number))
                    self.ended = True
                elif value in (62.0, 63.0, 64.0, 65.0, 67.0, 68.0):
                    output = int(value)
                else:
                    raise ProgramError(f"line {number}: {code} is not known")
            elif letter == "F":
                self._feed_mm_s = value / 60.0
            elif letter != "N":
                values[letter] = value
        if output:
            self._output(number, output, values)
        elif dwell:
            self.items.append(self._item(DWELL, number, duration_s=values.get("P", 0.0)))
        elif any(name in values for name in self._machine.names):
            self._move(number, values)

    def _output(self, number: int, code: int, values: dict[str, float]) -> None:
        """Outputs: 62, 63, 67 with the next move; 64, 65, 68 at once, which is a stop."""
        if code in (67, 68):
            if values.get("E") != POWER_OUTPUT:
                return  # powder and gas are not wired on this machine
            if code == 67:
                self._next["power"] = values["Q"]
            else:
                self._power_w = values["Q"]
        else:
            if values.get("P") != GATE_OUTPUT:
                return
            if code in (62, 63):
                self._next["gate"] = float(code == 62)
            else:
                self._gate = code == 64
        if code in (64, 65, 68):
            self.items.append(self._item(DWELL, number))

    def _move(self, number: int, values: dict[str, float]) -> None:
        if self._motion < 0:
            raise ProgramError(f"line {number}: coordinates without G0, G1, G2 or G3")
        if self._motion and self._feed_mm_s <= 0.0:
            raise ProgramError(f"line {number}: no feed")
        start = tuple(self._at)
        for k, name in enumerate(self._machine.names):
            if name in values:
                self._at[k] = values[name]
        end = tuple(self._at)
        self._gate = bool(self._next.pop("gate", self._gate))
        self._power_w = self._next.pop("power", self._power_w)
        item = Item(MOVE, number, self._gate, self._power_w, start=start, end=end)
        rapid = self._motion == 0
        item.feed_mm_s = FASTEST_RAPID_MM_S if rapid else self._feed_mm_s
        if self._motion in (2, 3):
            _bend(item, number, values, clockwise=self._motion == 2)
        else:
            way = [b - a for a, b in zip(start, end, strict=True)]
            item.length_mm = math.sqrt(sum(w * w for w in way))
            if item.length_mm < LEAST_MM:
                if self._gate != (self.items[-1].gate if self.items else False):
                    self.items.append(self._item(DWELL, number))
                return
            item.heading = item.heading_end = tuple([w / item.length_mm for w in way])
        self.items.append(item)


def _bend(item: Item, number: int, values: dict[str, float], *, clockwise: bool) -> None:
    """Make an arc of a move: centre from its start by I and J."""
    (x, y), (to_x, to_y) = item.start[:2], item.end[:2]
    cx, cy = x + values.get("I", 0.0), y + values.get("J", 0.0)
    radius = math.hypot(x - cx, y - cy)
    if radius < LEAST_MM or abs(math.hypot(to_x - cx, to_y - cy) - radius) > 0.01:
        raise ProgramError(f"line {number}: start and end are not on one circle")
    a, b = math.atan2(y - cy, x - cx), math.atan2(to_y - cy, to_x - cx)
    angle = (b - a) % (2.0 * math.pi) or 2.0 * math.pi
    if clockwise:
        angle = angle - 2.0 * math.pi or -2.0 * math.pi
    item.centre, item.angle = (cx, cy), angle
    rest = [q - p for p, q in zip(item.start[2:], item.end[2:], strict=True)]
    flat = abs(angle) * radius
    item.length_mm = math.sqrt(flat * flat + sum(r * r for r in rest))
    side = math.copysign(flat / item.length_mm, angle)
    up = [r / item.length_mm for r in rest]
    item.heading = (-math.sin(a) * side, math.cos(a) * side, *up)
    item.heading_end = (-math.sin(b) * side, math.cos(b) * side, *up)


def _look_ahead(items: list[Item], machine: Machine) -> None:
    """Entry and exit speeds of all moves, then their times."""
    before: Item | None = None
    for item in items:
        if item.kind != MOVE:
            before = None
            continue
        u = [abs(h) for h in item.heading]
        if item.centre is not None:
            u[0] = u[1] = 1.0  # somewhere on it
        item.accel = min(
            machine.path_accel, *(a / c for a, c in zip(machine.accel, u, strict=True) if c > 1e-9)
        )
        speeds = (v / c for v, c in zip(machine.speed, u, strict=True) if c > 1e-9)
        item.feed_mm_s = min(item.feed_mm_s, *speeds, FASTEST_RAPID_MM_S)
        if item.centre is not None:
            radius = math.hypot(item.start[0] - item.centre[0], item.start[1] - item.centre[1])
            item.feed_mm_s = min(item.feed_mm_s, math.sqrt(0.7 * item.accel * radius))
        if before is not None:
            item.v_in = _corner(before, item)
            top = math.sqrt(before.v_in**2 + 2.0 * before.accel * before.length_mm)
            item.v_in = min(item.v_in, top)
        before = item
    after = 0.0
    for item in reversed(items):
        if item.kind != MOVE:
            after = 0.0
            continue
        item.v_out = after
        item.v_in = min(item.v_in, math.sqrt(after**2 + 2.0 * item.accel * item.length_mm))
        after = item.v_in
    for item in items:
        if item.kind == MOVE:
            _trapezoid(item)


def _corner(a: Item, b: Item) -> float:
    """Speed at a corner: the circle that touches both legs within the junction deviation."""
    least = min(a.feed_mm_s, b.feed_mm_s)
    cosine = sum(p * q for p, q in zip(a.heading_end, b.heading, strict=True))
    half = math.sqrt(max(0.0, 0.5 * (1.0 + cosine)))
    if half > 0.999999:
        return least
    accel = min(a.accel, b.accel)
    return min(least, math.sqrt(accel * JUNCTION_MM * half / (1.0 - half)))


def _trapezoid(item: Item) -> None:
    a, length = item.accel, item.length_mm
    top = math.sqrt(max(0.0, a * length + 0.5 * (item.v_in**2 + item.v_out**2)))
    item.v_top = min(item.feed_mm_s, max(top, item.v_in, item.v_out))
    item.t_up = max(0.0, (item.v_top - item.v_in) / a)
    t_down = max(0.0, (item.v_top - item.v_out) / a)
    up = 0.5 * (item.v_in + item.v_top) * item.t_up
    down = 0.5 * (item.v_top + item.v_out) * t_down
    item.t_flat = max(0.0, length - up - down) / item.v_top
    item.duration_s = item.t_up + item.t_flat + t_down


def straight(
    start: tuple[float, ...], end: tuple[float, ...], speed: float, machine: Machine
) -> list[Item]:
    """One move as a program of its own: the way to the reference point."""
    way = [b - a for a, b in zip(start, end, strict=True)]
    length = math.sqrt(sum(w * w for w in way))
    items = []
    if length >= LEAST_MM:
        heading = tuple([w / length for w in way])
        items.append(
            Item(MOVE, 0, False, 0.0, start=start, end=end, length_mm=length, feed_mm_s=speed,
                 heading=heading, heading_end=heading)
        )  # fmt: skip
    items.append(Item(END, 0, False, 0.0, start=end, end=end))
    _look_ahead(items, machine)
    return items

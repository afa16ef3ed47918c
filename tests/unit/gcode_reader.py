"""A small reader of exported G-code, written from the controls' documents for tests alone.

It knows only what is needed to say what a machine would do: where it goes, how fast, with which
gate and power. A word that it does not know is an error, and so is an output change that waits
for a move which never comes.
"""

import math
import re
from dataclasses import dataclass, field

WORD = re.compile(r"([A-Z])\s*([+-]?(?:\d+\.?\d*|\.\d+))")


@dataclass
class Move:
    """One move as a machine would make it."""

    line: int  # index of the program's line
    start: tuple
    end: tuple
    centre: tuple | None  # of an arc in XY, or of any arc in space
    turn: int  # +1 counter-clockwise, -1 clockwise, 0 straight
    speed_mm_s: float | None  # None: rapid
    gate: bool
    power_w: float
    via: tuple | None = None  # a point on the arc (robots)

    @property
    def length_mm(self):
        if not self.turn:
            return math.dist(self.start, self.end)
        a = math.atan2(self.start[1] - self.centre[1], self.start[0] - self.centre[0])
        b = math.atan2(self.end[1] - self.centre[1], self.end[0] - self.centre[0])
        angle = (self.turn * (b - a)) % (2 * math.pi)
        return math.hypot(angle * math.dist(self.start[:2], self.centre[:2]),
                          self.end[2] - self.start[2])  # fmt: skip


@dataclass
class Ran:
    """What a program does."""

    moves: list = field(default_factory=list)
    dwells: list = field(default_factory=list)  # (line, s)
    outputs: list = field(default_factory=list)  # (line, name, value) of powder and gas
    calls: list = field(default_factory=list)  # (line, layer)
    remarks: list = field(default_factory=list)  # (line, text)
    modal: set = field(default_factory=set)
    gate: bool = False  # at the end
    ended: bool = False


class Reader:
    """Modal state and the words that all families share."""

    comment = re.compile(r"\(([^()]*)\)")

    def __init__(self, rated_w=1000.0):
        self.ran = Ran()
        self.at = [None, None, None]
        self.motion = None
        self.feed_mm_min = None
        self.gate = False
        self.power_w = 0.0
        self.waiting = []  # output changes for the next move
        self.rated_w = rated_w

    def read(self, lines):
        for number, raw in enumerate(lines):
            assert raw.isascii()
            assert "E-" not in raw
            assert not self.ran.ended or raw in ("%", ""), f"line {number} after the end"
            text = raw
            for said in self.comment.findall(raw):
                self.ran.remarks.append((number, said.strip()))
            text = self.comment.sub("", text).strip()
            text = re.sub(r"^N\d+\s*", "", text)
            if text:
                self.block(number, text)
        assert not self.waiting, f"outputs wait for a move that never comes: {self.waiting}"
        self.ran.gate = self.gate
        return self.ran

    def words(self, number, text):
        rest = WORD.sub("", text).strip()
        assert not rest, f"line {number}: {rest!r} is not understood in {text!r}"
        return [(k, float(v)) for k, v in WORD.findall(text)]

    def block(self, number, text):
        words = self.words(number, text)
        place = {k: v for k, v in words if k in "XYZIJ"}
        for key, value in words:
            if key == "G":
                if value in (0, 1, 2, 3):
                    self.motion = int(value)
                elif value == 4:
                    self.stand(number, dict(words))
                    return
                else:
                    assert value in (17, 21, 40, 49, 54, 64, 80, 90, 91.1, 94), text
                    self.ran.modal.add(value)
                    if value == 64:
                        return
            elif key == "F":
                self.feed_mm_min = value
            elif key not in "XYZIJ":
                self.other(number, key, value, dict(words))
        if place:
            self.go(number, place)

    def stand(self, number, words):
        self.ran.dwells.append((number, words["P"]))

    def other(self, number, key, value, words):
        raise AssertionError(f"line {number}: word {key}{value:g}")

    def set_output(self, number, name, value):
        if name == "gate":
            self.gate = bool(value)
        elif name == "power":
            self.power_w = value
        else:
            self.ran.outputs.append((number, name, value))

    def go(self, number, place):
        for name, value in self.waiting:
            self.set_output(number, name, value)
        self.waiting = []
        end = [place.get(k, old) for k, old in zip("XYZ", self.at, strict=True)]
        if None not in self.at:
            centre, turn = None, 0
            if self.motion in (2, 3):
                turn = 1 if self.motion == 3 else -1
                centre = (self.at[0] + place["I"], self.at[1] + place["J"])
                radii = math.dist(self.at[:2], centre), math.dist(end[:2], centre)
                assert abs(radii[0] - radii[1]) < 2e-3, f"line {number}: radii {radii}"
            else:
                assert self.motion in (0, 1)
                assert not {"I", "J"} & set(place)
            assert self.motion == 0 or self.feed_mm_min > 0.0
            gate, power = self.light()
            self.ran.moves.append(
                Move(number, tuple(self.at), tuple(end), centre, turn,
                     None if self.motion == 0 else self.feed_mm_min / 60.0, gate, power)
            )  # fmt: skip
        else:
            assert not self.light()[0]
        self.at = end

    def light(self):
        return self.gate, self.power_w


class LinuxCncReader(Reader):
    """M62, M63, M67 wait for the next move; M64, M65, M68 do not."""

    names = ("power", "hopper1", "hopper2", "carrier", "shield")

    def block(self, number, text):
        call = re.fullmatch(r"o<lmd_layer> call \[(\d+)\]", text)
        if call:
            assert not self.gate
            self.ran.calls.append((number, int(call[1])))
            return
        if text == "M2":
            self.ran.ended = True
            return
        words = self.words(number, text)
        if words[0][0] == "M":
            code, args = int(words[0][1]), dict(words[1:])
            if code in (62, 63, 64, 65):
                change = (("gate", "diverter")[int(args["P"])], float(code in (62, 64)))
            else:
                assert code in (67, 68), text
                change = (self.names[int(args["E"])], args["Q"])
            if code in (62, 63, 67):
                self.waiting.append(change)
            else:
                self.set_output(number, *change)
            return
        super().block(number, text)


class GrblReader(Reader):
    """Laser mode: light is M4, a G1, G2 or G3, and S above 0; full S is full power."""

    def __init__(self, rated_w=1000.0, s_max=1000.0):
        super().__init__(rated_w)
        self.s, self.s_max, self.m4 = 0.0, s_max, False

    def other(self, number, key, value, words):
        if key == "S":
            assert 0.0 <= value <= self.s_max
            self.s = value
        elif key == "M":
            if value == 4:
                self.m4 = True
            elif value == 5:
                self.m4 = False
            elif value == 0:
                self.ran.calls.append((number, len(self.ran.calls)))
            else:
                assert value == 2
                self.ran.ended = True
        else:
            super().other(number, key, value, words)

    def light(self):
        on = self.m4 and self.motion != 0 and self.s > 0.0
        return on, self.s / self.s_max * self.rated_w if on else 0.0


class SiemensReader(Reader):
    """DO acts with the next block; a plain assignment acts at once."""

    comment = re.compile(r";(.*)")
    analog = ("power", "hopper1", "hopper2", "carrier", "shield")

    def read(self, lines):
        assert re.fullmatch(r"%_N_[A-Z][A-Z0-9_]{1,23}_MPF", lines[0])
        return super().read(["", *lines[1:]])

    def block(self, number, text):
        if text.startswith(("EXTERN ", "G641 ")):
            self.ran.modal.add(text)
            return
        call = re.fullmatch(r"LMD_LAYER\((\d+)\)", text)
        if call:
            assert not self.gate
            self.ran.calls.append((number, int(call[1])))
        elif text == "M30":
            self.ran.ended = True
        elif text.startswith("DO "):
            assert not self.waiting
            self.waiting = [self.change(number, one) for one in text[3:].split(" ")]
        elif text.startswith("$"):
            self.set_output(number, *self.change(number, text))
        elif text.startswith("G710"):
            self.ran.modal |= {float(w[1:]) for w in text.split(" ")}
        else:
            super().block(number, text)

    def stand(self, number, words):
        self.ran.dwells.append((number, words["F"]))

    def change(self, number, text):
        found = re.fullmatch(r"\$A_OUT(A?)\[(\d)\]=(\d+(?:\.\d+)?)", text)
        assert found, f"line {number}: {text}"
        n = int(found[2]) - 1
        return self.analog[n] if found[1] else ("gate", "diverter")[n], float(found[3])


class FanucReader(Reader):
    """S in W, M210 and M211 with the move of their block."""

    names = ("hopper1", "hopper2", "carrier", "shield", "diverter")

    def block(self, number, text):
        if re.fullmatch(r"O\d{4}", text) or text == "%":
            assert number <= 1 or self.ran.ended
            return
        macro = re.fullmatch(r"G65 P(901[01]) A(\d+)\.(?: B(\d+\.\d+))?", text)
        if macro:
            if macro[1] == "9010":
                assert not self.gate
                self.ran.calls.append((number, int(macro[2])))
            else:
                self.set_output(number, self.names[int(macro[2]) - 1], float(macro[3]))
            return
        assert all("." in v for k, v in WORD.findall(text) if k in "XYZIJF")
        super().block(number, text)

    def stand(self, number, words):
        self.ran.dwells.append((number, words["X"]))

    def other(self, number, key, value, words):
        if key == "S":
            assert value == int(value)
            self.power_w = value
        elif key == "M":
            if value == 30:
                self.ran.ended = True
            else:
                assert value in (210, 211)
                self.gate = value == 210
        else:
            super().other(number, key, value, words)

"""G-code: what its dialects have in common."""

from typing import ClassVar

from controller.export.base import Dialect
from controller.export.blocks import Block
from controller.export.program import fixed

FLAT = 1.0 - 1e-9  # an arc whose plane is that near to XY is a G17 arc


class GCode(Dialect):
    """Modal words: a coordinate, a feed or a G word is written when it changes."""

    feed_decimals: ClassVar[int] = 1
    rapid_travel: ClassVar[bool] = False  # G0 for travel: the laser is off in it

    def comment(self, text: str) -> str:
        """In brackets."""
        return f"({text})"

    def line(self, words: str, *, gate: bool = False) -> None:
        """One block of the program."""
        self.lines.add(words, gate=gate)

    def motion(self, block: Block, more: tuple[str, ...] = ()) -> None:
        """The move's own block, or blocks, with ``more`` words in the first."""
        if block.arc is not None and not self._is_flat(block):
            for k, place in enumerate(self.chords(block)):
                self._straight(block, place, more if k == 0 else ())
                self.at = place
            return
        if block.arc is None:
            self._straight(block, block.end_mm, more)
            return
        assert self.at is not None
        code = "G3" if block.arc.normal[2] > 0.0 else "G2"
        words = [f"{k}{fixed(v, self.decimals)}"
                 for k, v in zip("XY", block.end_mm, strict=False)]  # fmt: skip
        # the centre as seen from where the rounded start is
        start = [round(float(v), self.decimals) for v in self.at[:2]]
        words += [f"{k}{fixed(float(c) - s, self.decimals)}"
                  for k, c, s in zip("IJ", block.arc.centre_mm, start, strict=False)]  # fmt: skip
        for key, end in zip("XY", block.end_mm, strict=False):
            self._state[key] = fixed(end, self.decimals)
        self.line(self._joined(code, words, block, more), gate=block.gate)

    def _is_flat(self, block: Block) -> bool:
        assert block.arc is not None
        assert self.at is not None
        same_z = fixed(self.at[2], self.decimals) == fixed(block.end_mm[2], self.decimals)
        return abs(float(block.arc.normal[2])) >= FLAT and same_z

    def _straight(self, block: Block, place: object, more: tuple[str, ...]) -> None:
        words = []
        for key, value in zip("XYZ", place, strict=True):  # type: ignore[call-overload]
            text = fixed(float(value), self.decimals)
            lift = self.at is None and key != "Z" and self._is_lift(block)
            if self._state.get(key) != text and not lift:
                self._state[key] = text
                words.append(key + text)
        if not words:  # shorter than the last decimal
            words = ["X" + self._state["X"]]
        rapid = self.rapid_travel and block.role == 0
        self.line(self._joined("G0" if rapid else "G1", words, block, more), gate=block.gate)

    def _joined(self, code: str, words: list[str], block: Block, more: tuple[str, ...]) -> str:
        head = [code] if self._state.get("G") != code else []
        self._state["G"] = code
        feed = []
        if code != "G0":
            text = "F" + fixed(block.speed_mm_s * 60.0, self.feed_decimals)
            if self._state.get("F") != text:
                self._state["F"] = text
                feed = [text]
        return " ".join([*head, *words, *feed, *more])

    def changed(self, key: str, value: str) -> bool:
        """Whether a value is new; it is kept."""
        new = self._state.get(key) != value
        self._state[key] = value
        return new

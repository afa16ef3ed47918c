"""A program on its way through a grblHAL controller: where it is, from line number and position.

The line number that the controller reports is that of the block whose steps are being prepared,
up to 0.1 s ahead of the axes; the position is that of the steps. So the line is sought from the
one seen last up to the reported one, by where the axes are.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Sequence

from firmware_bridge.errors import DeviceError, ProtocolError
from firmware_bridge.grbl_protocol import GREATEST_LINE_NUMBER, LONGEST_LINE
from firmware_bridge.link_types import ProgramLine

NEAR_MM = 0.02  # of a line: position is told in 0.001 mm, arcs are taken as chords of their ends
BACK_MM = 0.005  # a way back on a line that is none

_WORD = re.compile(r"([A-Z])([-+]?[0-9]*\.?[0-9]+)")
_COMMENT = re.compile(r"\([^)]*\)|;.*")
Place = tuple[float, float, float]


class GrblProgram:
    """Lines, their ways, and the plan's times.

    Parameters
    ----------
    lines : the program; positions in plan coordinates, mm, absolute
    ends_us : (n + 1,) plan time before each of the plan's segments and after the last
    """

    def __init__(self, lines: Sequence[ProgramLine], ends_us: Sequence[int]) -> None:
        if len(lines) > GREATEST_LINE_NUMBER:
            raise ProtocolError(
                f"{len(lines)} lines, the controller counts to {GREATEST_LINE_NUMBER}"
            )
        self.text: list[str] = []
        self._ends_us = list(ends_us)
        last = len(self._ends_us) - 1
        self.start_us = [self._ends_us[min(max(0, line.segment), last)] for line in lines]
        self.start_us.append(self._ends_us[-1])
        self.gate = [line.gate for line in lines]
        self.tracks: list[int] = []  # tracks begun up to and with each line
        self.emits = False  # some line may bring light
        self._target: list[Place | None] = []  # None: the line moves nothing
        self._begin: list[Place | None] = []
        self.s_value: list[float] = []
        self.feed_mm_min: list[float] = []
        self._read(lines)
        self.seek(0)

    def _read(self, lines: Sequence[ProgramLine]) -> None:
        """Targets, power words and tracks of all lines."""
        at: list[float] | None = None
        place: list[float] = [0.0, 0.0, 0.0]
        known = [False, False, False]
        s_value = feed = 0.0
        motion, laser, begun, track = 0, False, 0, -1
        for number, line in enumerate(lines):
            text = _COMMENT.sub("", line.text).replace(" ", "").upper()
            if len(text) + 9 > LONGEST_LINE:
                raise ProtocolError(
                    f"program line {number + 1}: {len(text)} characters are too many"
                )
            moved = own = False
            for letter, value in _WORD.findall(text):
                if letter in "XYZ":
                    axis = ord(letter) - 88
                    place[axis] = float(value)
                    known[axis] = moved = True
                elif letter == "G":
                    code = float(value)
                    if code <= 3.0:
                        motion = int(code)
                    own = own or code in (4.0, 10.0, 53.0, 28.0, 30.0, 92.0)
                elif letter == "S":
                    s_value = float(value)
                elif letter == "F":
                    feed = float(value)
                elif letter == "M" and value in ("3", "4", "03", "04"):
                    laser = True
                elif letter == "M" and value in ("5", "05", "2", "02", "30"):
                    laser = False
            if laser and (s_value > 0.0 or line.gate):
                self.emits = True
            if line.gate and line.track != track:
                begun, track = begun + 1, line.track
            self.text.append(text)
            self.tracks.append(begun)
            self.s_value.append(s_value if laser and motion else 0.0)
            self.feed_mm_min.append(feed)
            if moved and not own:
                end = (place[0], place[1], place[2]) if all(known) else None
                self._begin.append(None if at is None else (at[0], at[1], at[2]))
                self._target.append(end)
                at = place.copy() if all(known) else None
            else:
                self._begin.append(None)
                self._target.append(None)

    def __len__(self) -> int:
        return len(self.text)

    def seek(self, line: int) -> None:
        """Nothing of the program has been executed before ``line``."""
        self.at = line
        self._share = 0.0
        self._still_us = -1
        self.plan_us = self.start_us[line]

    def guard(self, watchdog: bool) -> None:
        """Raises DeviceError where light would have no watchdog."""
        if self.emits and not watchdog:
            raise DeviceError(
                "no emission over this link: the cell has no outside watchdog on the gate "
                "(motion.gate_watchdog), and the controller plays its buffered blocks with light "
                "when the host dies"
            )

    def follow(self, line: int, place: Place, now_us: int) -> None:
        """A report: ``line`` is being prepared (index, not number), the axes are at ``place``."""
        end = len(self.text) - 1
        line = min(line, end)
        if line < self.at:
            line = self.at
        k = self.at
        best, best_far, best_share = k, math.inf, self._share
        while k <= line:
            target, begin = self._target[k], self._begin[k]
            if target is None or begin is None:
                if (
                    k == line
                    and best_far > NEAR_MM
                    and target is None
                    and self._stands_at(k, place)
                ):
                    best, best_share = k, 0.0  # standing on purpose: the line before it is done
                k += 1
                continue
            far, share = _along(begin, target, place)
            if k == self.at and share < self._share - BACK_MM / max(_length(begin, target), 1e-9):
                far += NEAR_MM  # never backwards: it is the next line that leads back here
            if far <= NEAR_MM and (share < 1.0 or k == line):
                best, best_far, best_share = k, far, share
                break
            if far < best_far:
                best, best_far, best_share = k, far, share
            k += 1
        if best == self.at and best_share >= 1.0 and line > best and self._target[line] is None:
            best, best_share = line, 0.0
        if best != self.at:
            self.at, self._still_us = best, -1
        self._share = best_share
        begin_us, end_us = self.start_us[self.at], self.start_us[self.at + 1]
        if self._target[self.at] is None:
            if self._still_us < 0:
                self._still_us = now_us
            self.plan_us = min(begin_us + now_us - self._still_us, end_us)
        else:
            self.plan_us = begin_us + round((end_us - begin_us) * min(1.0, self._share))

    def _stands_at(self, line: int, place: Place) -> bool:
        """The axes stand where the last move before ``line`` ends."""
        for k in range(line - 1, max(-1, line - 9), -1):
            target = self._target[k]
            if target is not None:
                return math.dist(target, place) <= NEAR_MM
        return True

    def done(self) -> None:
        """Everything was executed."""
        self.at = max(0, len(self.text) - 1)
        self._share = 1.0
        self.plan_us = self.start_us[-1]

    def segment_now(self) -> tuple[int, int]:
        """The plan's segment and the microseconds into it."""
        ends = self._ends_us
        if len(ends) < 2:
            return -1, 0
        segment = min(max(0, bisect_right(ends, self.plan_us) - 1), len(ends) - 2)
        return segment, self.plan_us - ends[segment]


def _length(a: Place, b: Place) -> float:
    return math.dist(a, b)


def _along(a: Place, b: Place, p: Place) -> tuple[float, float]:
    """Distance of p from the way a to b, and the share of the way there."""
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = p[0] - a[0], p[1] - a[1], p[2] - a[2]
    square = ux * ux + uy * uy + uz * uz
    if square <= 0.0:
        return math.sqrt(vx * vx + vy * vy + vz * vz), 1.0
    t = (ux * vx + uy * vy + uz * vz) / square
    t = 0.0 if t < 0.0 else 1.0 if t > 1.0 else t
    dx, dy, dz = vx - t * ux, vy - t * uy, vz - t * uz
    return math.sqrt(dx * dx + dy * dy + dz * dz), t

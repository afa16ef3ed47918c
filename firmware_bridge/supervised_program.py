"""Where in the plan a control is that runs a program: from its line to segment and track."""

import zlib
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np


def program_id(data: bytes) -> int:
    """The number by which both sides know a program: CRC-32 of its bytes, never 0."""
    return zlib.crc32(data) or 1


class ProgramPlace:
    """Follows the line number; within a line, time since it began counts.

    Parameters
    ----------
    segment_of_line, track_of_line : of a program; segments and tracks count from 0
    ends_us : (n + 1,) planned time before each of its plan's segments and after the last
    first : what that plan's segment 0 is called in the build
    """

    def __init__(
        self,
        segment_of_line: Sequence[int] | np.ndarray = (),
        track_of_line: Sequence[int] | np.ndarray = (),
        ends_us: Sequence[int] | np.ndarray = (0,),
        first: int = 0,
    ) -> None:
        self._ends_us = [int(t) for t in ends_us]
        self._n = n = len(self._ends_us) - 1
        self.first = first
        self._segment = [min(max(0, int(s)), n) for s in segment_of_line]
        self._track = [int(t) for t in track_of_line]
        # where each line ends: the next line that stands for a later segment
        self._after = [n] * len(self._segment)
        for k in range(len(self._segment) - 2, -1, -1):
            later = self._segment[k + 1] > self._segment[k]
            self._after[k] = self._segment[k + 1] if later else self._after[k + 1]
        self.rewind()

    def rewind(self) -> None:
        """Before the beginning."""
        self.segment, self.tick_us = self.first - 1, 0
        self.track = self._track[0] if self._track else -1
        self.at_end = False
        self._line = 0
        self._plan_us = 0.0
        self._until_us = 0

    def follow(self, line: int, moved_us: float, *, finished: bool) -> None:
        """The control's present line (from 1; 0: none yet) and scaled time since last told."""
        ends, n = self._ends_us, self._n
        if n == 0:
            return
        self.at_end = finished
        if finished:
            self.segment, self.tick_us = self.first + n - 1, ends[n] - ends[n - 1]
            return
        if not 1 <= line <= len(self._segment):
            return
        if line != self._line:
            self._line = line
            self.track = self._track[line - 1]
            # never back: lines are seen in steps, and time within the last was a guess
            self._plan_us = max(self._plan_us, float(ends[self._segment[line - 1]]))
            self._until_us = ends[self._after[line - 1]]
        elif self._plan_us < self._until_us:
            self._plan_us = min(self._plan_us + moved_us, float(self._until_us))
        own = min(bisect_right(ends, self._plan_us) - 1, n - 1)
        self.segment = self.first + own
        self.tick_us = int(self._plan_us) - ends[own]

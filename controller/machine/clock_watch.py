"""A jump of the wall clock is an event of the record; nothing here ever waits by that clock."""

from collections.abc import Callable, Mapping
from typing import Any

JUMP_S = 0.5  # what time services slew stays below it from one look to the next
LOOK_TICKS = 100


class ClockWatch:
    """Compares the date with monotonic time once a second."""

    def __init__(
        self,
        date_s: Callable[[], float],
        mono_s: Callable[[], float],
        tell: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._date_s, self._mono_s, self._tell = date_s, mono_s, tell
        self._offset_s = date_s() - mono_s()
        self._n = 0

    def tick(self) -> None:
        """Called each control tick."""
        self._n += 1
        if self._n % LOOK_TICKS:
            return
        offset_s = self._date_s() - self._mono_s()
        jump_s = offset_s - self._offset_s
        self._offset_s = offset_s
        if abs(jump_s) >= JUMP_S:
            self._tell("clock_jump", {"seconds": round(jump_s, 3)})

"""What an emulated grblHAL controller does to the world: steps, gate and power, as rows.

The layout is that of our firmware's native interface (hil_sim/firmware.py), so plant and trace
read it alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hil_sim.firmware import ROW, SAMPLE

if TYPE_CHECKING:
    from hil_sim.devices.grblhal import GrblHal
    from hil_sim.devices.grblhal_planner import Piece

GATE, SEGMENT_END, ARMED, STATE, FAULT, TRACK_START, BEAT, FAULT_RESET, HOLD = range(1, 10)
POWER_FULL = 65535
MOST_SAMPLES = 4096
MOST_ROWS = 2000
MS = 1000


class Output:
    """Rows and samples that the plant has not taken yet."""

    def __init__(self, n_axes: int) -> None:
        self._rows: list[tuple] = []
        self._samples = np.zeros(MOST_SAMPLES, SAMPLE)
        s = self._samples
        self._t, self._pos, self._power = s["t_us"], s["pos"], s["power"]
        self._gate_col, self._armed, self._state = s["gate"], s["armed"], s["state"]
        self._fault, self._line, self._age = s["fault"], s["segment"], s["beat_age_us"]
        self._n = 0
        self.gate = False
        self.power = 0

    def room(self, now_us: int, until_us: int) -> int:
        """How far samples fit."""
        free = MOST_SAMPLES - self._n
        return min(until_us, now_us - now_us % MS + free * MS)

    @property
    def full(self) -> bool:
        """The plant must take what there is before it goes on."""
        return self._n >= MOST_SAMPLES - 1 or len(self._rows) >= MOST_ROWS

    def row(self, c: GrblHal, kind: int, arg: int) -> None:
        """Something happened now."""
        x, y, z = c.true_steps
        line = max(0, c.parser.line - 1)
        self._rows.append((c.now_us, kind, arg, line, self.power, (x, y, z, 0, 0, 0)))

    def set(self, c: GrblHal, gate: bool, power: float) -> None:
        """Enable output and PWM (share of full scale) from now on."""
        self.power = round(power * POWER_FULL)
        if gate != self.gate:
            self.gate = gate
            self.row(c, GATE, int(gate))

    def stand(self, c: GrblHal, from_us: int, to_us: int) -> None:
        """Samples of whole ms in (from, to] while nothing moves."""
        span = self._span(c, from_us, to_us)
        if span is not None:
            self._pos[span, :3] = c.true_steps

    def move(self, c: GrblHal, from_us: int, to_us: int, piece: Piece, start_us: int) -> None:
        """Samples of whole ms in (from, to] within a piece that began at ``start_us``."""
        span = self._span(c, from_us, to_us)
        if span is None:
            return
        share = (self._t[span].astype(np.float64) - start_us) / piece.duration_us
        pos, lost = self._pos, c.lost_steps
        for k in range(3):
            a, b = piece.start_steps[k], piece.end_steps[k]
            pos[span, k] = int(a) + lost[k] if a == b else np.rint(a + (b - a) * share) + lost[k]
        self._line[span] = max(0, piece.block.line - 1)

    def _span(self, c: GrblHal, from_us: int, to_us: int) -> slice | None:
        first = from_us // MS + 1
        count = to_us // MS - first + 1
        if count <= 0:
            return None
        a, b = self._n, self._n + count
        self._n = b
        span = slice(a, b)
        t = np.arange(first * MS, (first + count) * MS, MS, dtype=np.uint64)
        self._t[span] = t
        self._power[span] = self.power
        self._gate_col[span] = self.gate
        self._armed[span] = c.spindle_on
        self._state[span] = c.state
        self._fault[span] = c.alarm if c.alarm != 11 else 0
        self._line[span] = max(0, c.parser.line - 1)
        self._age[span] = t - np.uint64(c.last_byte_us)
        return span

    def take_rows(self) -> np.ndarray:
        """(n,) ROW."""
        rows = np.array(self._rows, ROW)
        self._rows.clear()
        return rows

    def take_samples(self) -> np.ndarray:
        """(n,) SAMPLE."""
        samples = self._samples[: self._n].copy()
        self._n = 0
        return samples

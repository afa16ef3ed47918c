"""What an emulated grblHAL controller does to the world: steps, gate and power, as rows.

The layout is that of our firmware's native interface (hil_sim/firmware.py), so plant and trace
read it alike.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from hil_sim.firmware import ROW, SAMPLE

if TYPE_CHECKING:
    from hil_sim.devices.grblhal_board import Board
    from hil_sim.devices.grblhal_planner import Piece

GATE, SEGMENT_END, ARMED, STATE, FAULT, TRACK_START, BEAT, FAULT_RESET, HOLD = range(1, 10)
POWER_FULL = 65535
MOST_SAMPLES = 4096
MOST_ROWS = 2000
MS = 1000
_PACK = struct.Struct("<Q6iHBBHHII").pack


class Output:
    """Rows and samples that the plant has not taken yet."""

    def __init__(self) -> None:
        self._rows: list[tuple] = []
        self._samples: list[bytes] = []
        self.gate = False
        self.power = 0

    def room(self, now_us: int, until_us: int) -> int:
        """How far samples fit."""
        free = MOST_SAMPLES - len(self._samples)
        return min(until_us, now_us - now_us % MS + free * MS)

    @property
    def full(self) -> bool:
        """The plant must take what there is before it goes on."""
        return len(self._samples) >= MOST_SAMPLES - 1 or len(self._rows) >= MOST_ROWS

    def row(self, c: Board, kind: int, arg: int) -> None:
        """Something happened now."""
        x, y, z = c.true_steps
        line = max(0, c.parser.line - 1)
        self._rows.append((c.now_us, kind, arg, line, self.power, (x, y, z, 0, 0, 0)))

    def set(self, c: Board, gate: bool, power: float) -> None:
        """Enable output and PWM (share of full scale) from now on."""
        self.power = round(power * POWER_FULL)
        if gate != self.gate:
            self.gate = gate
            self.row(c, GATE, int(gate))

    def stand(self, c: Board, from_us: int, to_us: int) -> None:
        """Samples of whole ms in (from, to] while nothing moves."""
        x, y, z = c.true_steps
        line, heard_us = max(0, c.parser.line - 1), c.last_byte_us
        fault = c.alarm if c.alarm != 11 else 0
        for t in range((from_us // MS + 1) * MS, to_us + 1, MS):
            self._samples.append(
                _PACK(
                    t,
                    x,
                    y,
                    z,
                    0,
                    0,
                    0,
                    self.power,
                    self.gate,
                    c.spindle_on,
                    c.state,
                    fault,
                    line,
                    t - heard_us,
                )
            )

    def move(self, c: Board, from_us: int, to_us: int, piece: Piece, start_us: int) -> None:
        """Samples of whole ms in (from, to] within a piece that began at ``start_us``."""
        first = (from_us // MS + 1) * MS
        if first > to_us:
            return
        (ax, ay, az), (bx, by, bz), (lx, ly, lz) = piece.start_steps, piece.end_steps, c.lost_steps
        inverse = 1.0 / piece.duration_us
        dx, dy, dz = (bx - ax) * inverse, (by - ay) * inverse, (bz - az) * inverse
        power, gate, armed, state = self.power, self.gate, c.spindle_on, c.state
        line, heard_us = max(0, piece.block.line - 1), c.last_byte_us
        put = self._samples.append
        for t in range(first, to_us + 1, MS):
            s = t - start_us
            put(
                _PACK(
                    t,
                    round(ax + dx * s) + lx,
                    round(ay + dy * s) + ly,
                    round(az + dz * s) + lz,
                    0,
                    0,
                    0,
                    power,
                    gate,
                    armed,
                    state,
                    0,
                    line,
                    t - heard_us,
                )
            )

    def take_rows(self) -> np.ndarray:
        """(n,) ROW."""
        rows = np.array(self._rows, ROW)
        self._rows.clear()
        return rows

    def take_samples(self) -> np.ndarray:
        """(n,) SAMPLE."""
        samples = np.frombuffer(b"".join(self._samples), SAMPLE)
        self._samples.clear()
        return samples

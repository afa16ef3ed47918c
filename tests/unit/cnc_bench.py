"""The simulated CNC by itself: words written and read as bytes that are made here."""

import struct
import zlib

import numpy as np

from hil_sim.cellfile import load
from hil_sim.devices.cnc import Cnc
from tests.hil.whole_cell import ROOT

PERMIT, GO, HOLD, HOLD_NOW, ABORT, RESET = 1, 2, 4, 8, 16, 32
READY_BITS = 64 | 128
REFERENCE = 256
NOT_READY, READY, RUNNING, HOLDING, HELD, WAITING, FINISHED, FAULT, REFERENCING = range(9)
CELL = ROOT / "configs" / "cells" / "sim_supervised.toml"
GATE_ROW, END_ROW = 1, 2

# two beads of 10 mm at 10 mm/s in two layers
PROGRAM = b"""(two layers)
G21 G90 G94
M65 P0
M68 E0 Q0.0
o<lmd_layer> call [0]
G1 X10 Y10 Z5 F3600.0
M67 E0 Q500.0
X12 F600.0
M62 P0
X22
M63 P0
X24
o<lmd_layer> call [1]
G1 Z6 F3600.0
X26
M67 E0 Q300.0
X24 F600.0
M62 P0
X14
M63 P0
X12
M2
"""
BEAD_1, BEAD_2 = 10, 19  # lines of the beads
NAMES = (
    "version", "heartbeat", "echo", "state", "bits", "alarm", "line", "layer", "timeout", "program",
    "override", "axes", "clock_ms", "power_w", "x", "y", "z", "a", "b", "c",
)  # fmt: skip


class CncBench:
    """One control; ``bits`` and the other words are written every 20 ms with a new heartbeat."""

    def __init__(self) -> None:
        self.cnc = Cnc(load(CELL))
        self.cnc.set_input(0, True)
        self.bits, self.release, self.program = 0, 0, 0
        self.power_w, self.override, self.share = 1000.0, 1000, 1000
        self.beats = True
        self.count = 0
        self.rows: list[np.ndarray] = []
        self.samples: list[np.ndarray] = []

    def ask(self, unit: int, pdu: bytes) -> bytes:
        """One request and its answer's PDU; 1 to 6 ms pass."""
        self.cnc.rx(struct.pack(">HHHB", 9, 0, len(pdu) + 1, unit) + pdu)
        self.cnc.run(self.cnc.now_us + 10_000)
        answer = self.cnc.tx()
        assert answer[:4] == b"\0\x09\0\0"
        return answer[7:]

    def write(self) -> None:
        if self.beats:
            self.count += 1
        words = struct.pack(
            ">HHHHIfHH", 1, self.count, self.bits, self.release, self.program, self.power_w,
            self.override, self.share,
        )  # fmt: skip
        assert self.ask(1, struct.pack(">BHHB", 16, 0, 10, 20) + words) == bytes((16, 0, 0, 0, 10))

    def read(self) -> dict:
        answer = self.ask(1, struct.pack(">BHH", 3, 100, 30))
        assert answer[:2] == bytes((3, 60))
        values = struct.unpack(">6HIHHIHHIf6f", answer[2:])
        return dict(zip(NAMES, values, strict=True))

    def store(self, data: bytes = PROGRAM) -> None:
        padded = data + b"\n" * (len(data) % 2)
        for at in range(0, len(padded), 100):
            piece = padded[at : at + 100]
            head = struct.pack(">BBBHHH", 21, 7 + len(piece), 6, 1, at // 2, len(piece) // 2)
            assert self.ask(2, head + piece) == head + piece
        head = struct.pack(">BBBHHH", 21, 11, 6, 0xFFFF, 0, 2) + struct.pack(">I", len(data))
        assert self.ask(2, head) == head
        self.program = zlib.crc32(data)

    def keep(self) -> None:
        self.rows.append(self.cnc.rows())
        self.samples.append(self.cnc.samples())

    def run(self, ms: int, until=None) -> bool:
        """Time with a write every 20 ms; with ``until``: whether it became true."""
        end_us = self.cnc.now_us + 1000 * ms
        while self.cnc.now_us < end_us:
            if self.beats:
                self.write()
            due_us = self.cnc.now_us // 20_000 * 20_000 + 20_000
            while self.cnc.now_us < due_us:
                self.cnc.run(due_us)
                self.cnc.tx()
            self.keep()
            if until is not None and until():
                return True
        return until is None

    def until(self, state: int, ms: int = 20_000) -> None:
        assert self.run(ms, lambda: self.cnc.state == state), (
            f"state {self.cnc.state}, not {state} after {ms} ms"
        )

    def ready(self, program: bytes = PROGRAM) -> None:
        """Referenced, program stored, permitted."""
        self.run(40)
        self.bits = REFERENCE
        self.run(40)
        self.run(5_000, lambda: self.read()["bits"] & 2)
        self.store(program)
        self.bits = READY_BITS
        self.run(40)
        self.bits |= PERMIT
        self.run(40)
        assert self.read()["bits"] & 8, "not permitted"

    def go(self) -> None:
        self.bits |= GO
        self.run(20)

    def gates(self) -> list[tuple[int, int]]:
        """(t_us, on) of every edge of the gate output so far."""
        rows = np.concatenate(self.rows)
        gate = rows[rows["kind"] == GATE_ROW]
        return [(int(r["t_us"]), int(r["arg"])) for r in gate]

    def path(self) -> np.ndarray:
        """All samples so far."""
        return np.concatenate(self.samples)

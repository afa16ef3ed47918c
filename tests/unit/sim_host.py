"""A plain host for tests of the virtual cell: speaks docs/protocol.md on null wires.

Homes, beats every 20 ms, arms, sends segments that were made by hand. Built on
``protocol_reader``, so nothing here comes from the bridge.
"""

import struct
import zlib
from pathlib import Path

from hil_sim.cellfile import config_blob
from hil_sim.null import NullCell
from tests.unit.protocol_reader import Reader, frame, segment

ROOT = Path(__file__).resolve().parents[2]
CELL = ROOT / "configs" / "cells" / "sim.toml"
STEPS_PER_MM = 400
BEAT_US = 20_000
GATE, TRACK_START, END = 1, 4, 16


def near_cell(folder: Path, **changes: str) -> Path:
    """The simulated cell with its plate near home, so that a build takes a few seconds.

    ``changes``: lines of the file to replace, by their key.
    """
    changes = {
        "center": 'center = ["30 mm", "30 mm"]',
        "size": 'size = ["40 mm", "40 mm"]',
        "top": 'top = "2 mm"',
        **changes,
    }
    lines = []
    for line in CELL.read_text().splitlines():
        key = line.split("=")[0].strip()
        lines.append(changes.pop(key) if "=" in line and key in changes else line)
    assert not changes
    path = folder / "near.toml"
    path.write_text("\n".join(lines))
    return path


def ramp(axis: int, mm: float, speed: float, power: int = 0) -> list[bytes]:
    """From rest to rest along one axis: up and down at 400 mm/s2 (or less), cruise between."""
    sign = 1 if mm > 0 else -1
    steps = round(abs(mm) * STEPS_PER_MM)
    t_s = speed / 400.0
    side = round(speed * t_s / 2 * STEPS_PER_MM)
    if 2 * side >= steps:
        side = steps // 2
        t_s = 2 * side / STEPS_PER_MM / speed
    out = []

    def part(n: int, seconds: float, ratio: float, end_power: int) -> None:
        row = [0, 0, 0]
        row[axis] = sign * n
        out.append(segment(row, round(seconds * 1e6), ratio, end_power))

    part(side, t_s, 0.0, 0)
    left = steps - 2 * side
    while left > 0:
        n = min(left, 16000)
        part(n, n / STEPS_PER_MM / speed, 1.0, power)
        left -= n
    part(side, t_s, 65535 / 32768, 0)
    return out


def track(mm: float, speed: float = 10.0, power: int = 39322, piece_mm: float = 0.5) -> list[bytes]:
    """Along X with run-up and overrun: the gate is open over ``mm`` at constant speed.

    ``power``: 1/65535 of full scale; reached 0.5 mm before the gate opens.
    """
    t_s = speed / 400.0
    side = round(speed * t_s / 2 * STEPS_PER_MM)
    out = [segment([side], round(t_s * 1e6), 0.0, 0)]
    ticks = round(piece_mm / speed * 1e6)
    n = round(piece_mm * STEPS_PER_MM)
    out.append(segment([n], ticks, 1.0, power))
    for k in range(round(mm / piece_mm)):
        out.append(segment([n], ticks, 1.0, power, flags=GATE | (TRACK_START if k == 0 else 0)))
    out.append(segment([n], ticks, 1.0, power))
    out.append(segment([side], round(t_s * 1e6), 65535 / 32768, 0))
    return out


def ended(segments: list[bytes]) -> list[bytes]:
    """The same with END on the last one."""
    last = bytearray(segments[-1])
    last[21] |= END
    return segments[:-1] + [bytes(last)]


class SimHost:
    """Drives one NullCell; ``status`` is the last STATUS, ``frames`` all that came."""

    def __init__(self, cell: NullCell) -> None:
        self.cell = cell
        self.world = cell.cell.world
        self.now_us = 0
        self.status: dict = {}
        self.refused: list[str] = []
        self.beating = True
        self._reader = Reader()
        self._out = b""
        self._next_beat_us = 0
        self._beat = 0
        self._session = 1
        self._hash = zlib.crc32(config_blob(cell.cell.cell))
        cell.opened(0)
        self._out = frame("HELLO", 0, struct.pack("<H", 1))
        self.ack: dict = {}
        self.go(self.now_us + 5000)
        self._sequence = self.nonce

    def send(self, name: str, payload: bytes = b"") -> None:
        """A sequenced frame."""
        self._out += frame(name, self._sequence, payload)
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF

    def go(self, until_us: int) -> None:
        """Let the time pass, beating."""
        while self.now_us < until_us:
            if self.beating and self.now_us >= self._next_beat_us and self.ack:
                self._beat += 1
                self._out += frame(
                    "BEAT", 0, struct.pack("<III", self.nonce, self._session, self._beat)
                )
                self._next_beat_us = self.now_us + BEAT_US
            writes = [(0, self._out)] if self._out else []
            self._out = b""
            target = min(until_us, self._next_beat_us) if self.beating and self.ack else until_us
            self.now_us, deliveries = self.cell.wait(target, writes)
            for channel, data in deliveries:
                if channel == 0 and data is not None:
                    self._take(data)

    def go_until(self, state: str, limit_s: float = 60.0) -> None:
        """Until the device says it is in this state."""
        limit_us = self.now_us + round(limit_s * 1e6)
        while self.status.get("state") != state:
            assert self.now_us < limit_us, (state, self.status, self.refused)
            self.go(self.now_us + 10_000)

    def home(self) -> None:
        self.send("HOME", struct.pack("<I", 0))
        self.go_until("HOMING")
        self.go_until("IDLE")
        assert self.status["flags"] & 8, self.status

    def arm(self) -> None:
        self._session += 1
        self.send("ARM", struct.pack("<IIII", self.nonce, self._session, self._hash, 0))
        self._beat = 0
        self.go(self.now_us + 20_000)
        assert self.status["flags"] & 1, (self.status, self.refused)

    def play(self, segments: list[bytes], first: int = 0) -> None:
        """Queue all segments (no more than the device takes)."""
        for at in range(0, len(segments), 20):
            part = segments[at : at + 20]
            self.send("SEGMENTS", struct.pack("<I", first + at) + b"".join(part))

    def _take(self, data: bytes) -> None:
        for got in self._reader.feed(data):
            if got.name == "HELLO_ACK":
                self.ack = got.values
                self.nonce = got.values["nonce"]
            elif got.name == "STATUS":
                self.status = got.values
            elif got.name == "NAK":
                self.refused.append(got.values["why"])


def begin(folder: Path, scenario: Path | None = None, seed: int = 1, **changes: str) -> SimHost:
    """A cell with its host: homed, laser enabled, powder and gas on, nozzle over the plate."""
    cell = NullCell(near_cell(folder, **changes), scenario, seed, folder)
    host = SimHost(cell)
    world = host.world
    world.laser_enabled = True
    world.hopper_set_g_min[0] = 6.3
    world.diverter_to_nozzle = True
    world.carrier_set_l_min, world.shield_set_l_min = 6.0, 18.0
    host.home()
    host.arm()
    return host


TO_PLATE = [*ramp(0, 20.0, 60.0), *ramp(1, 30.0, 60.0), *ramp(2, 2.55, 20.0)]

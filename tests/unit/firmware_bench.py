"""A host for firmware tests, on the test-only protocol reader: no code of the bridge."""

import struct
import zlib

import numpy as np

from hil_sim.firmware import NativeFirmware
from tests.unit.protocol_reader import Frame, Reader, config, frame, segment

NONCE = 0x1234ABCD
AXES = [
    (400000, 48000, 800000, 0, 120000),
    (400000, 48000, 800000, 0, 120000),
    (400000, 16000, 200000, 0, 100000),
]
GATE, DWELL, TRACK, PARAM, END = 1, 2, 4, 8, 16


class Host:
    """Speaks to one firmware; keeps all frames, rows and samples."""

    def __init__(self, blob: bytes | None = None, nonce: int = NONCE) -> None:
        self.config = config(AXES) if blob is None else blob
        self.nonce = nonce
        self.fw = NativeFirmware(self.config, nonce)
        self.fw.set_input(0, True)
        self.reader = Reader()
        self.frames: list[Frame] = []
        self.seq = nonce
        self.urgent = 0
        self.session = 1
        self.counter = 0
        self.index = 0
        self.beating = True
        self.next_beat_us = 0
        self._rows: list[np.ndarray] = []
        self._samples: list[np.ndarray] = []

    @property
    def now_us(self) -> int:
        return self.fw.now_us

    def drain(self) -> None:
        self.frames += self.reader.feed(self.fw.tx())
        self._rows.append(self.fw.rows())
        self._samples.append(self.fw.samples())

    def raw(self, data: bytes) -> list[Frame]:
        """Send bytes now; the frames that answer at this instant."""
        self.drain()
        n = len(self.frames)
        self.fw.rx(data)
        self.drain()
        return self.frames[n:]

    def command(self, name: str, payload: bytes = b"") -> str:
        """A sequenced frame; "" or the reason of its refusal."""
        got = self.raw(frame(name, self.seq, payload))
        naks = [f.values for f in got if f.name == "NAK"]
        if naks and naks[0]["reason"] < 16:
            return naks[0]["why"]
        self.seq += 1
        assert [f.values["next_seq"] for f in got if f.name == "ACK"] == [self.seq]
        return naks[0]["why"] if naks else ""

    def urgently(self, name: str) -> None:
        self.urgent += 1
        acks = [f for f in self.raw(frame(name, self.urgent)) if f.name == "ACK"]
        assert acks[-1].values["urgent"] == self.urgent

    def again(self, name: str) -> str:
        """UNHOLD, RESET, HOME: quotes the urgent number."""
        return self.command(name, struct.pack("<I", self.urgent))

    def beat(self) -> None:
        self.counter += 1
        self.raw(frame("BEAT", 0, struct.pack("<III", self.nonce, self.session, self.counter)))

    def arm(self) -> str:
        self.session += 1
        self.counter = 0
        crc = zlib.crc32(self.config)
        return self.command("ARM", struct.pack("<IIII", self.nonce, self.session, crc, self.urgent))

    def flush(self, first: int = 0) -> str:
        self.index = first
        return self.command("FLUSH", struct.pack("<II", first, self.urgent))

    def send(self, segments: list[bytes]) -> str:
        """Segments in frames of 20; stops at a refusal."""
        for i in range(0, len(segments), 20):
            part = segments[i : i + 20]
            why = self.command("SEGMENTS", struct.pack("<I", self.index) + b"".join(part))
            if why:
                return why
            self.index += len(part)
        return ""

    def run(self, until_us: int) -> None:
        """To an instant, beating each 20 ms."""
        while self.fw.now_us < until_us:
            goal = until_us
            if self.beating:
                if self.fw.now_us >= self.next_beat_us:
                    self.beat()
                    self.next_beat_us = self.fw.now_us + 20000
                goal = min(until_us, self.next_beat_us)
            while self.fw.run(goal) < goal:
                self.drain()
            self.drain()

    def run_for(self, us: int) -> None:
        self.run(self.fw.now_us + us)

    def home(self) -> None:
        self.beat()
        assert self.again("HOME") == ""
        for _ in range(60):
            self.run_for(500_000)
            if self.status["state"] == "IDLE":
                break
        assert self.status["flags"] & 8

    def ready(self) -> "Host":
        """Homed, flushed, armed."""
        self.home()
        assert self.flush() == ""
        assert self.arm() == ""
        return self

    @property
    def status(self) -> dict:
        return next(f.values for f in reversed(self.frames) if f.name == "STATUS")

    @property
    def rows(self) -> np.ndarray:
        self.drain()
        return np.concatenate(self._rows)

    @property
    def samples(self) -> np.ndarray:
        self.drain()
        return np.concatenate(self._samples)

    def at(self, kind: int, arg: int | None = None) -> list[int]:
        """Instants of trace rows of one kind."""
        rows = self.rows
        pick = rows["kind"] == kind
        if arg is not None:
            pick &= rows["arg"] == arg
        return [int(t) for t in rows["t_us"][pick]]

    def faults(self) -> list[int]:
        rows = self.rows
        return [int(a) for a in rows["arg"][rows["kind"] == 5]]


def line(n: int, steps, ticks: int = 10000, power: int = 30000, flags: int = GATE) -> list[bytes]:
    """n equal segments at constant speed."""
    return [segment(steps, ticks, power=power, flags=flags) for _ in range(n)]

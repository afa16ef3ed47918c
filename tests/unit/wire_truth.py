"""What a machine does when it plays wire bytes, and what it should have done. Numpy and zlib
only: written from docs/protocol.md and from the mathematics, nothing of the planner's code.
"""

import zlib

import numpy as np

# docs/protocol.md, section 5.1
ROW = np.dtype(
    [
        ("d", "<i2", (6,)),
        ("ratio", "<u2"),
        ("power", "<u2"),
        ("speed", "<u2"),
        ("low", "<u2"),
        ("high", "u1"),
        ("flags", "u1"),
    ]
)
assert ROW.itemsize == 22
GATE, DWELL, TRACK, PARAM, END = 1, 2, 4, 8, 16


def unframe(data: bytes, first_index: int, first_sequence: int) -> bytes:
    """Rows of SEGMENTS frames, sync, type, lengths, numbers, indices and checksums checked."""
    at, rows, n_rows = 0, [], 0
    number = first_sequence
    while at < len(data):
        assert data[at] == 0xA5, at
        assert data[at + 1] == 0x02, at
        length = int.from_bytes(data[at + 2 : at + 4], "little")
        assert length % 22 == 4, at
        assert 26 <= length <= 444, at
        assert int.from_bytes(data[at + 4 : at + 8], "little") == number % 2**32, at
        index = int.from_bytes(data[at + 8 : at + 12], "little")
        assert index == (first_index + n_rows) % 2**32, at
        end = at + 8 + length
        assert zlib.crc32(data[at:end]) == int.from_bytes(data[end : end + 4], "little"), at
        rows.append(data[at + 12 : end])
        n_rows += (length - 4) // 22
        at, number = end + 4, number + 1
    return b"".join(rows)


class Wire:
    """Segments as they are played, from rows of 22 bytes."""

    def __init__(self, rows: bytes, start_steps=(0, 0, 0, 0, 0, 0)) -> None:
        every = np.frombuffer(rows, ROW)
        moving = (every["flags"] & PARAM) == 0
        ticks = every["low"].astype(np.int64) + 65536 * every["high"].astype(np.int64)
        assert not ticks[~moving].any()
        self.row = every[moving]
        self.ticks = ticks[moving]
        self.flags = self.row["flags"]
        self.end_us = np.cumsum(self.ticks)
        self.begin_us = self.end_us - self.ticks
        self.d = self.row["d"].astype(np.int64)
        self.after = np.cumsum(self.d, axis=0) + np.asarray(start_steps)
        self.before = self.after - self.d
        self.ratio = self.row["ratio"] / 32768.0
        self.power_after = self.row["power"] / 65535.0
        self.power_before = np.concatenate([[0.0], self.power_after[:-1]])

    def at(self, t_us: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Position (k, 6) steps, rate (k, 6) steps/s, power share (k,), flags (k,)."""
        t_us = np.asarray(t_us, dtype=np.float64)
        i = np.clip(np.searchsorted(self.begin_us, t_us, side="right") - 1, 0, len(self.row) - 1)
        x = (t_us - self.begin_us[i]) / self.ticks[i]
        r = self.ratio[i]
        part = r * x + (1.0 - r) * x * x
        rate = (r + 2.0 * (1.0 - r) * x) / (self.ticks[i] * 1e-6)
        power = self.power_before[i] + (self.power_after[i] - self.power_before[i]) * x
        where = self.before[i] + self.d[i] * part[:, None]
        return where, self.d[i] * rate[:, None], power, self.flags[i]

    def gate_edges_us(self) -> tuple[np.ndarray, np.ndarray]:
        """Instants at which the gate opens and shuts."""
        on = np.concatenate([[0], self.flags & GATE, [0]]).astype(np.int8)
        turn = np.diff(on)
        begin = np.concatenate([self.begin_us, self.end_us[-1:]])
        return begin[turn == 1], begin[turn == -1]


class Motion:
    """A profile's columns, evaluated anew."""

    def __init__(self, t_s, s_mm, v_mm_s, a_mm_s2, j_mm_s3, move) -> None:
        self.t, self.s, self.v = (np.asarray(x, dtype=float) for x in (t_s, s_mm, v_mm_s))
        self.a, self.j = np.asarray(a_mm_s2, dtype=float), np.asarray(j_mm_s3, dtype=float)
        self.move = np.asarray(move)

    def at(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Length and speed at instants."""
        i = np.clip(np.searchsorted(self.t, t_s, side="right") - 1, 0, len(self.a) - 1)
        tau = np.clip(t_s - self.t[i], 0.0, None)
        v = self.v[i] + self.a[i] * tau + self.j[i] * tau**2 / 2
        return self.s[i] + self.v[i] * tau + self.a[i] * tau**2 / 2 + self.j[i] * tau**3 / 6, v

    def when(self, s_mm: np.ndarray) -> np.ndarray:
        """Instants at which lengths are reached, by halving; motion phases only."""
        s_mm = np.asarray(s_mm, dtype=float)
        # the phase whose ends enclose the length; then its own time is halved
        i = np.clip(np.searchsorted(self.s, s_mm, side="left") - 1, 0, len(self.a) - 1)
        low, high = np.zeros(len(s_mm)), self.t[i + 1] - self.t[i]
        for _ in range(60):
            tau = 0.5 * (low + high)
            there = self.s[i] + tau * (self.v[i] + tau * (self.a[i] / 2 + tau * self.j[i] / 6))
            less = there < s_mm
            low, high = np.where(less, tau, low), np.where(less, high, tau)
        return self.t[i] + 0.5 * (low + high)


def ideal_power_w(s, v, s_on, s_off, power, floor, speed, ramp_in, ramp_out):
    """The linear law with ramps over distance, as the design words it."""
    share = np.ones_like(s)
    if ramp_in > 0:
        share = np.minimum(share, (s - s_on) / ramp_in)
    if ramp_out > 0:
        share = np.minimum(share, (s_off - s) / ramp_out)
    law = floor + (power - floor) * v / speed
    return floor + (law - floor) * np.clip(share, 0.0, 1.0)


def bead_truth(wire: Wire, motion: Motion, bead: dict, laser: dict, step_s: float = 10e-6) -> dict:
    """One bead at ``step_s``: worst power error (W), worst energy error per 0.1 mm (share) and
    the executed speed's worst and rms difference from the planned (mm/s).

    bead: s_on, s_off, power, floor, speed, ramp_in, ramp_out (mm, W, mm/s).
    laser: rated_w, latency_s (power), steps_per_mm.
    """
    on, off = motion.when(np.array([bead["s_on"], bead["s_off"]]))
    t = on + step_s * (np.arange(int((off - on) / step_s)) + 0.5)
    s, v = motion.at(t)
    want = ideal_power_w(
        s, v, bead["s_on"], bead["s_off"], bead["power"], bead["floor"], bead["speed"],
        bead["ramp_in"], bead["ramp_out"],
    )  # fmt: skip
    got = wire.at((t - laser["latency_s"]) * 1e6)[2] * laser["rated_w"]
    _, rate, _, _ = wire.at(t * 1e6)
    speed = np.linalg.norm(rate[:, :3] / laser["steps_per_mm"], axis=1)
    piece = ((s - bead["s_on"]) / 0.1).astype(np.int64)
    whole = piece < int((bead["s_off"] - bead["s_on"]) / 0.1 + 1e-9)
    energy = np.bincount(piece[whole], got[whole])
    ideal = np.bincount(piece[whole], want[whole])
    some = ideal > 0
    error = np.abs(energy[some] / ideal[some] - 1.0)
    return {
        "samples": len(t),
        "power_w": float(np.abs(got - want).max()),
        "energy": float(error.max()) if len(error) else 0.0,
        "pieces": int(some.sum()),
        "speed_max": float(np.abs(speed - v).max()),
        "speed_rms": float(np.sqrt(np.mean((speed - v) ** 2))),
    }


def quantum_mm_s(wire: Wire, motion: Motion, axes_at, steps_per_mm: float) -> dict:
    """How the executed speed differs from the planned while moving: in all, and with every
    position taken exactly instead of to the whole step; rms over time, in mm/s."""
    s, v = motion.at(np.concatenate([wire.begin_us, wire.end_us[-1:]]) * 1e-6)
    where = axes_at(s)
    chord = np.linalg.norm(np.diff(where, axis=0), axis=1)
    taken = np.linalg.norm(wire.d[:, :3], axis=1) / steps_per_mm
    seconds = wire.ticks * 1e-6
    pick = (v[:-1] > 0) & (v[1:] > 0) & (seconds > 1e-4)
    middle = np.diff(s) / seconds
    weight = seconds[pick]
    return {
        "all_rms": float(
            np.sqrt(np.average((taken / seconds - middle)[pick] ** 2, weights=weight))
        ),
        "exact_rms": float(
            np.sqrt(np.average((chord / seconds - middle)[pick] ** 2, weights=weight))
        ),
        "segments": int(pick.sum()),
    }

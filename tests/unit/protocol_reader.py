"""Protocol v1 read from docs/protocol.md alone: what the tests believe, and nothing of ours.

Slow and plain on purpose: an encoder and a decoder written twice catch a mistake that one
written once hides.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

HOST_NAMES = {
    0x01: "HELLO", 0x02: "SEGMENTS", 0x03: "BEAT", 0x04: "ARM", 0x05: "DISARM", 0x06: "HOLD",
    0x07: "HOLD_NOW", 0x08: "UNHOLD", 0x09: "ABORT", 0x0A: "RESET", 0x0B: "OVERRIDE",
    0x0C: "TRIM", 0x0D: "HOME", 0x0E: "FLUSH", 0x0F: "JOG", 0x10: "PROBE", 0x11: "LAW",
}  # fmt: skip
DEVICE_NAMES = {0x81: "HELLO_ACK", 0x82: "ACK", 0x83: "NAK", 0x84: "STATUS", 0x85: "EVENT"}
NAMES = HOST_NAMES | DEVICE_NAMES
NAMES_BACK = {name: code for code, name in NAMES.items()}
LENGTHS = {
    "HELLO": 2, "BEAT": 12, "ARM": 16, "DISARM": 0, "HOLD": 0, "HOLD_NOW": 0, "UNHOLD": 4,
    "ABORT": 0, "RESET": 4, "OVERRIDE": 2, "TRIM": 2, "HOME": 4, "FLUSH": 8,
    "JOG": 40, "PROBE": 16, "LAW": 104, "HELLO_ACK": 43, "ACK": 14, "NAK": 14, "STATUS": 92,
}  # fmt: skip
REASONS = {
    1: "SEQUENCE", 2: "FULL", 16: "STATE", 17: "NONCE", 18: "SESSION", 19: "CONFIG",
    20: "NOT_HOMED", 21: "INTERLOCK", 22: "FAULT", 23: "NO_BEAT", 24: "STALE",
    25: "BAD_SEGMENT", 26: "INDEX", 27: "RANGE", 28: "BUSY", 29: "NOT_ARMED", 30: "TRAVEL",
    31: "LOW", 32: "INPUT",
}  # fmt: skip
STATES = ["IDLE", "HOMING", "RUN", "HOLDING", "HELD", "FAULT", "JOG", "PROBE"]
FAULTS = [
    "", "BEAT_LOST", "INTERLOCK", "UNDERRUN", "MAX_ON_TIME", "STILL", "HOST_ABORT", "HOMING",
    "LIMIT", "FOLLOWING", "LOST_STEPS",
]  # fmt: skip


def length_allowed(name: str, length: int) -> bool:
    if name == "SEGMENTS":
        return 1 <= (length - 4) / 22 <= 20 and (length - 4) % 22 == 0
    if name == "EVENT":
        return 1 <= length / 18 <= 16 and length % 18 == 0
    return LENGTHS[name] == length


@dataclass
class Frame:
    name: str
    number: int
    payload: bytes
    values: dict[str, Any] = field(default_factory=dict)


def frame(name: str, number: int, payload: bytes = b"") -> bytes:
    body = bytes([0xA5, NAMES_BACK[name]]) + struct.pack("<HI", len(payload), number) + payload
    return body + struct.pack("<I", zlib.crc32(body))


def segment(steps=(), ticks=10000, ratio=1.0, power=0, speed=32768, flags=0) -> bytes:
    padded = (list(steps) + [0] * 6)[:6]
    return struct.pack(
        "<6hHHHHBB", *padded, round(ratio * 32768), power, speed, ticks & 0xFFFF, ticks >> 16, flags
    )


def config(
    axes,
    heartbeat_ms=100,
    plan_share=26214,
    max_on_ms=600000,
    homing=20000,
    accel=2000000,
    flags=0,
    limits=0,
) -> bytes:
    """axes: (milli-steps/mm, step/s, step/s2, min, max[, encoder, lost]) each."""
    head = (2, len(axes), flags, heartbeat_ms, plan_share, max_on_ms, homing, accel, limits, 0)
    blob = struct.pack("<HBBHHIIIHH", *head)
    rows = [(list(axis) + [0, 0])[:7] for axis in axes]
    return blob + b"".join(struct.pack("<IIIiiiHH", *row, 0) for row in rows)


def fields(name: str, p: bytes) -> dict[str, Any]:
    """Payload as named values."""
    if name == "SEGMENTS":
        rows = [struct.unpack_from("<6hHHHHBB", p, 4 + 22 * i) for i in range((len(p) - 4) // 22)]
        return {
            "first": struct.unpack_from("<I", p)[0],
            "segments": [
                {
                    "steps": r[:6], "ratio": r[6], "power": r[7], "speed": r[8],
                    "ticks": r[9] + 65536 * r[10], "flags": r[11],
                }
                for r in rows
            ],
        }  # fmt: skip
    if name == "LAW":
        points = [struct.unpack_from("<HI", p, 2 + 6 * i) for i in range(17)]
        return {"number": p[0], "points": points[: p[1]], "spare": points[p[1] :]}
    if name == "EVENT":
        rows = [struct.unpack_from("<QHii", p, 18 * i) for i in range(len(p) // 18)]
        return {
            "events": [dict(zip(("t_us", "code", "arg", "segment"), r, strict=True)) for r in rows]
        }
    layout = {
        "HELLO": ("<H", "protocol"),
        "BEAT": ("<III", "nonce session counter"),
        "ARM": ("<IIII", "nonce session config urgent"),
        "UNHOLD": ("<I", "urgent"),
        "RESET": ("<I", "urgent"),
        "OVERRIDE": ("<H", "scale"),
        "TRIM": ("<H", "factor"),
        "HOME": ("<I", "urgent"),
        "FLUSH": ("<II", "first urgent"),
        "JOG": ("<IIII6i", "nonce session counter urgent v0 v1 v2 v3 v4 v5"),
        "PROBE": ("<IB3xiI", "urgent axis target speed"),
        "HELLO_ACK": (
            "<HHIIIIIIIBQH",
            "protocol queue version nonce config next_seq next_segment session urgent axes "
            "device_us window",
        ),
        "ACK": ("<IIHI", "next_seq next_segment free urgent"),
        "NAK": ("<BBIII", "reason type number next_seq next_segment"),
        "STATUS": (
            "<QBBHiIHH6iHHIIIIIBBBxi6h",
            "device_us state flags fault segment tick scale power p0 p1 p2 p3 p4 p5 "
            "queued free tracks beat_age next_seq next_segment inputs probe probe_axis law "
            "probe_pos e0 e1 e2 e3 e4 e5",
        ),
    }.get(name)
    if layout is None:
        return {}
    values = dict(zip(layout[1].split(), struct.unpack(layout[0], p), strict=True))
    if name == "NAK":
        values["why"] = REASONS[values["reason"]]
    if name == "STATUS":
        values["pos"] = [values.pop(f"p{i}") for i in range(6)]
        values["lost"] = [values.pop(f"e{i}") for i in range(6)]
        values["state"] = STATES[values["state"]]
        values["fault"] = FAULTS[values["fault"]]
    return values


class Reader:
    """The decoder of section 1."""

    def __init__(self) -> None:
        self._buf = b""
        self.dropped = 0

    def feed(self, data: bytes) -> list[Frame]:
        self._buf += data
        found = []
        while self._buf:
            taken = self._one()
            if taken is None:
                break
            if isinstance(taken, Frame):
                found.append(taken)
        return found

    def _one(self) -> Frame | int | None:
        buf = self._buf
        if buf[0] != 0xA5:
            return self._drop()
        if len(buf) < 8:
            return None
        length, number = struct.unpack_from("<HI", buf, 2)
        name = NAMES.get(buf[1])
        if name is None or not length_allowed(name, length):
            return self._drop()
        if len(buf) < 12 + length:
            return None
        if zlib.crc32(buf[: 8 + length]) != struct.unpack_from("<I", buf, 8 + length)[0]:
            return self._drop()
        self._buf = buf[12 + length :]
        payload = buf[8 : 8 + length]
        return Frame(name, number, payload, fields(name, payload))

    def _drop(self) -> int:
        self._buf = self._buf[1:]
        self.dropped += 1
        return 1

"""Frames of the segment protocol, version 1: encoder and resyncing decoder.

Byte for byte: docs/protocol.md. Nothing here knows time or wires.
"""

import struct
import zlib
from enum import IntEnum

PROTOCOL = 1
SYNC = 0xA5
OVERHEAD = 12
MAX_PAYLOAD = 512
SEGMENT_BYTES = 22
MAX_SEGMENTS = 20  # a frame
EVENT_BYTES = 18
MAX_EVENTS = 16

_HEADER = struct.Struct("<BBHI")
_CRC = struct.Struct("<I")

HELLO_ACK = struct.Struct("<HHIIIIIIIBQH")
ACK = struct.Struct("<IIHI")
NAK = struct.Struct("<BBIII")
STATUS = struct.Struct("<QBBHiIHH6iHHIIIIIBBBBi6h")
EVENT = struct.Struct("<QHii")
LAW_POINTS = 17
LAW_BYTES = 2 + 6 * LAW_POINTS


class T(IntEnum):
    """Frame types."""

    HELLO = 0x01
    SEGMENTS = 0x02
    BEAT = 0x03
    ARM = 0x04
    DISARM = 0x05
    HOLD = 0x06
    HOLD_NOW = 0x07
    UNHOLD = 0x08
    ABORT = 0x09
    RESET = 0x0A
    OVERRIDE = 0x0B
    TRIM = 0x0C
    HOME = 0x0D
    FLUSH = 0x0E
    JOG = 0x0F
    PROBE = 0x10
    LAW = 0x11
    HELLO_ACK = 0x81
    ACK = 0x82
    NAK = 0x83
    STATUS = 0x84
    EVENT = 0x85


class Refusal(IntEnum):
    """Reasons of NAK. Below 16: send again; from 16 on: refused for good."""

    SEQUENCE = 1
    FULL = 2
    STATE = 16
    NONCE = 17
    SESSION = 18
    CONFIG = 19
    NOT_HOMED = 20
    INTERLOCK = 21
    FAULT = 22
    NO_BEAT = 23
    STALE = 24
    BAD_SEGMENT = 25
    INDEX = 26
    RANGE = 27
    BUSY = 28
    NOT_ARMED = 29
    TRAVEL = 30
    LOW = 31
    INPUT = 32


REFUSAL_TEXT = {
    Refusal.STATE: "not possible in this state",
    Refusal.NONCE: "the controller was restarted since the handshake",
    Refusal.SESSION: "session number was used before",
    Refusal.CONFIG: "configuration of host and controller differ",
    Refusal.NOT_HOMED: "axes are not homed",
    Refusal.INTERLOCK: "hardware interlock is open",
    Refusal.FAULT: "a fault is latched, reset it first",
    Refusal.NO_BEAT: "no heartbeat",
    Refusal.STALE: "overtaken by a stop",
    Refusal.BAD_SEGMENT: "a segment is not valid or too fast for an axis",
    Refusal.INDEX: "segment index is not the one due",
    Refusal.RANGE: "a value is outside what the configuration or the acceleration margin allows",
    Refusal.BUSY: "an axis still moves",
    Refusal.NOT_ARMED: "not armed",
    Refusal.TRAVEL: "a segment leaves the travel range",
    Refusal.LOW: "too few segments queued",
    Refusal.INPUT: "a limit switch, the probe or a following-error input is closed",
}

# lengths that a type may have
_LENGTHS: dict[int, frozenset[int]] = {
    T.HELLO: frozenset((2,)),
    T.SEGMENTS: frozenset(4 + SEGMENT_BYTES * n for n in range(1, MAX_SEGMENTS + 1)),
    T.BEAT: frozenset((12,)),
    T.ARM: frozenset((16,)),
    T.DISARM: frozenset((0,)),
    T.HOLD: frozenset((0,)),
    T.HOLD_NOW: frozenset((0,)),
    T.UNHOLD: frozenset((4,)),
    T.ABORT: frozenset((0,)),
    T.RESET: frozenset((4,)),
    T.OVERRIDE: frozenset((2,)),
    T.TRIM: frozenset((2,)),
    T.HOME: frozenset((4,)),
    T.FLUSH: frozenset((8,)),
    T.JOG: frozenset((40,)),
    T.PROBE: frozenset((16,)),
    T.LAW: frozenset((LAW_BYTES,)),
    T.HELLO_ACK: frozenset((HELLO_ACK.size,)),
    T.ACK: frozenset((ACK.size,)),
    T.NAK: frozenset((NAK.size,)),
    T.STATUS: frozenset((STATUS.size,)),
    T.EVENT: frozenset(EVENT_BYTES * n for n in range(1, MAX_EVENTS + 1)),
}


def encode(kind: int, number: int, payload: bytes = b"") -> bytes:
    """One frame; ``number`` u32. Raises ValueError when the payload is too long."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"payload of {len(payload)} bytes above {MAX_PAYLOAD}")
    body = _HEADER.pack(SYNC, kind, len(payload), number) + payload
    return body + _CRC.pack(zlib.crc32(body))


class Decoder:
    """Finds frames in bytes that may be anything; never raises.

    ``feed`` returns (type, number, payload) of each whole frame, in order.
    ``bad_bytes`` counts the bytes that were no frame.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.bad_bytes = 0

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Take bytes as they come from the wire."""
        buf = self._rest + data if self._rest else data
        size = len(buf)
        at = 0
        frames: list[tuple[int, int, bytes]] = []
        while at < size:
            if buf[at] != SYNC:
                found = buf.find(b"\xa5", at)
                if found < 0:
                    found = size
                self.bad_bytes += found - at
                at = found
                continue
            if size - at < _HEADER.size:
                break
            _, kind, length, number = _HEADER.unpack_from(buf, at)
            lengths = _LENGTHS.get(kind)
            if lengths is not None and length in lengths:
                end = at + 8 + length
                if end + 4 > size:
                    break
                if zlib.crc32(memoryview(buf)[at:end]) == _CRC.unpack_from(buf, end)[0]:
                    frames.append((kind, number, buf[at + 8 : end]))
                    at = end + 4
                    continue
            self.bad_bytes += 1
            at += 1
        self._rest = buf[at:]
        return frames

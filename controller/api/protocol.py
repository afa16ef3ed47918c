"""Frames of the cell server's API; both sides use this module and nothing else of ours.

A frame is a u32 length of the payload (little endian), a kind byte, and the payload. The
server speaks first: CHALLENGE {"nonce"}. The client answers HELLO with its role, link and a
``proof`` that it knows the role's token: the token is never on the wire, and a recorded HELLO
counts for nothing on another connection. The link is one of two:

- the *command* link carries JSON-RPC: REQUEST {"id", "method", "params", "deadline_s"} and
  RESPONSE {"id", "result"} or {"id", "error": {"name", "message", "reasons"}};
- the *stream* link carries, server to client only, SNAPSHOT (JSON, whole), DELTA (JSON, the
  sections that changed), TELEMETRY (packed rows) and EVENT (JSON).

So a STOP never queues behind data. ``deadline_s`` is the machine's monotonic clock: a
command that is read later is refused, not carried out late.
"""

import hashlib
import hmac
import json
import struct
from enum import IntEnum
from typing import Any

from controller.errors import ApiError

HEAD = struct.Struct("<IB")
MAX_FRAME = 1 << 20  # bytes of payload
MAX_BACKLOG = 1 << 20  # bytes that a stream client may leave unread
VERSION = 1


class Kind(IntEnum):
    """What a frame holds."""

    HELLO = 1
    CHALLENGE = 4
    REQUEST = 2
    RESPONSE = 3
    SNAPSHOT = 16
    DELTA = 17
    TELEMETRY = 18
    EVENT = 19


KINDS = frozenset(int(k) for k in Kind)
TOPICS = ("snapshot", "telemetry", "event")
ROLES = ("observer", "operator", "engineer", "tester", "service")
# role -> whose commands it may give: a tester breaks simulated cells, and changes no approval
MAY: dict[str, tuple[str, ...]] = {
    "observer": ("observer",),
    "operator": ("observer", "operator"),
    "engineer": ("observer", "operator", "engineer"),
    "tester": ("observer", "operator", "tester"),
    "service": ("observer", "operator", "engineer", "service"),
}


class CallError(ApiError):
    """The server refused a call; ``name`` is for programs, the text for people."""

    def __init__(self, name: str, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.reasons = reasons


def proof(token: str, nonce: str, link: str) -> str:
    """Proof of a token on one connection: HMAC-SHA256 of its nonce and the link, in hex."""
    return hmac.new(token.encode(), f"{nonce} {link}".encode(), hashlib.sha256).hexdigest()


def encode(kind: Kind, payload: bytes) -> bytes:
    """One frame."""
    return HEAD.pack(len(payload), kind) + payload


def encode_json(kind: Kind, value: Any) -> bytes:
    """One frame of JSON. NaN must not occur in ``value``: it is not JSON."""
    return encode(kind, json.dumps(value, separators=(",", ":"), allow_nan=False).encode())


def decode_json(payload: bytes) -> dict[str, Any]:
    """A JSON object. Raises CallError BAD_JSON."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as exc:
        raise CallError("BAD_JSON", f"payload is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise CallError("BAD_JSON", f"payload is a JSON {type(value).__name__}, not an object")
    return value


class Decoder:
    """Splits a byte stream into frames."""

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._max_frame = max_frame

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Frames that are complete now, as (kind, payload).

        Raises CallError FRAME_TOO_LARGE or BAD_FRAME; the stream cannot be read on then.
        """
        buffer = self._buffer
        buffer += data
        frames: list[tuple[int, bytes]] = []
        at = 0
        while len(buffer) - at >= HEAD.size:
            length, kind = HEAD.unpack_from(buffer, at)
            if kind not in KINDS:
                raise CallError("BAD_FRAME", f"frame kind {kind} is not known")
            if length > self._max_frame:
                raise CallError(
                    "FRAME_TOO_LARGE", f"frame of {length} bytes, at most {self._max_frame}"
                )
            end = at + HEAD.size + length
            if len(buffer) < end:
                break
            frames.append((kind, bytes(buffer[at + HEAD.size : end])))
            at = end
        del buffer[:at]
        return frames

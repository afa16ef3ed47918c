"""Seeds of the fuzzer: the examples of docs/protocol.md, and sessions of well-made frames.

python firmware_bridge/firmware/fuzz/make_corpus.py OUT_FOLDER
"""

import re
import struct
import sys
from pathlib import Path

PROTOCOL = Path(__file__).parents[3] / "docs" / "protocol.md"
FRAME, TIME, INPUT, USUAL, BY_HAND = range(128, 133)


def examples() -> dict[str, bytes]:
    """Every block of hex bytes in the document, by the heading before it."""
    text = PROTOCOL.read_text(encoding="utf-8")
    found = {}
    for title, block in re.findall(r"^(\w+)[^\n]*:\n```\n([0-9a-f\s]+?)```", text, re.M):
        found[title] = bytes.fromhex(block)
    if len(found) < 15:
        raise SystemExit(f"{PROTOCOL}: only {len(found)} byte examples found")
    return found


def raw(data: bytes) -> bytes:
    """Bytes of a line, in pieces that the target takes."""
    parts = [data[i : i + 120] for i in range(0, len(data), 120)]
    return b"".join(bytes([len(p)]) + p for p in parts)


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A frame that the target completes."""
    return bytes([FRAME, kind]) + struct.pack("<H", len(payload)) + payload


def wait(us: int) -> bytes:
    """Time that passes."""
    return bytes([TIME]) + struct.pack("<H", us // 8)


def segment(steps: int, ticks: int, power: int, flags: int) -> bytes:
    """One segment along X and Y."""
    return struct.pack("<6hHHHHBB", steps, steps, 0, 0, 0, 0, 32768, power, 32768, ticks, 0, flags)


def sessions() -> dict[str, bytes]:
    """Whole sessions: each way of moving, each way of stopping."""
    ready = bytes([USUAL]) * 8 + frame(0x0E, bytes(8)) + bytes([USUAL]) * 2
    track = [segment(40, 10000, 30000, 5), *[segment(40, 10000, 30000, 1)] * 10]
    back = [segment(-40, 10000, 0, 0)] * 7 + [segment(0, 60000, 0, 2), segment(-40, 10000, 0, 16)]
    param = struct.pack("<6hHHHHBB", 0, 0, 0, 0, 0, 0, 0, 6000, 16384, 0, 0, 8)
    job = frame(0x02, bytes(4) + b"".join(track) + param)
    job += frame(0x02, bytes(4) + b"".join(back))
    soon = bytes([USUAL])  # while the first track is under way
    beats = (bytes([USUAL]) + wait(20000)) * 4
    law = bytes([1, 2]) + struct.pack("<HIHI", 16384, 1 << 23, 32768, 1 << 24)
    speeds = struct.pack("<6i", 4000, -4000, 500, 0, 0, 0)
    return {
        "job": ready + job + beats * 4,
        "hold_now": ready + job + soon + frame(0x07) + beats + frame(0x08, bytes(4)) + beats,
        "hold": ready + job + soon + frame(0x06) + beats + frame(0x08, bytes(4)) + beats,
        "override": ready
        + job
        + soon
        + frame(0x0B, b"\x00\x60")
        + beats
        + frame(0x0B, b"\x00\x88")
        + frame(0x0B, b"\x00\x01")
        + beats,
        "trim": ready + job + soon + frame(0x0C, b"\x66\x86") + beats,
        "law": ready + frame(0x11, law.ljust(104, b"\0")) + job + beats,
        "abort": ready + job + beats + frame(0x09) + beats + frame(0x0A, bytes(4)) + beats,
        "interlock": ready + job + beats + bytes([INPUT, 0]) + beats + bytes([INPUT, 0x80]),
        "limit": ready + job + beats + bytes([INPUT, 0x80 | 13]) + beats + frame(0x0A, bytes(4)),
        "beats_lost": ready + job + wait(200000) + frame(0x0A, bytes(4)),
        "jog": ready + frame(0x05) + (frame(0x0F, bytes(16) + speeds) + wait(20000)) * 8,
        "probe": ready
        + frame(0x05)
        + frame(0x10, bytes(8) + struct.pack("<iI", 2000, 800))
        + beats
        + bytes([INPUT, 0x80 | 19])
        + beats,
        "by_hand": ready + job + beats + bytes([BY_HAND, 0, 255]) + beats,
        "disarm": ready + job + soon + frame(0x05) + beats + frame(0x04, bytes(16)) + beats,
        "home_ended": bytes([USUAL]) + frame(0x0D, bytes(4)) + wait(5000) + frame(0x07) + beats,
        "underrun": ready + frame(0x02, bytes(4) + b"".join(track)) * 12 + beats * 8,
    }


def main() -> None:
    """Command line."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for title, data in examples().items():
        (out / f"example_{title}").write_bytes(raw(data))
        if data[0] == 0xA5 and data[1] < 0x80:
            made = bytes([USUAL]) * 8 + frame(data[1], data[8:-4]) + wait(50000)
            (out / f"made_{title}").write_bytes(made)
    for title, data in sessions().items():
        (out / f"session_{title}").write_bytes(data)


if __name__ == "__main__":
    main()

"""docs/protocol.md byte by byte, and the firmware under bytes that it should not get."""

import random
import re
import struct
import zlib
from pathlib import Path

import pytest

from tests.unit.firmware_bench import END, NONCE, Host, line
from tests.unit.protocol_reader import NAMES, Reader, frame

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
CONFIG_HASH = 0xAF1A1C3E


def examples() -> dict[str, bytes]:
    """Section 10: name -> literal bytes."""
    text = DOCUMENT.read_text(encoding="utf-8").split("## 10 Examples")[1]
    found = re.findall(r"^([A-Z_a-z]+)[^\n`]*(?:\n[^\n`]+)*:?\n```\n([0-9a-f \n]+)```", text, re.M)
    return {name: bytes.fromhex(hexes) for name, hexes in found}


EXAMPLES = examples()


def answers(host: Host, data: bytes) -> list[str]:
    return [f.name + " " + str(f.values.get("why", "")) for f in host.raw(data)]


def test_the_document_shows_every_frame():
    assert set(EXAMPLES) >= set(NAMES.values())


def test_examples_read_as_the_document_says():
    read = {}
    for name, data in EXAMPLES.items():
        if name in NAMES.values():
            (got,) = Reader().feed(data)
            assert got.name == name
            read[name] = got.values
    assert read["SEGMENTS"]["first"] == 7
    assert read["SEGMENTS"]["segments"][1] == {
        "steps": (40, -20, 0, 0, 0, 0), "ratio": 32768, "power": 26214, "speed": 32768,
        "ticks": 10000, "flags": 5,
    }  # fmt: skip
    assert read["ARM"] == {"nonce": NONCE, "session": 3, "config": CONFIG_HASH, "urgent": 2}
    assert read["STATUS"]["state"] == "RUN"
    assert read["STATUS"]["pos"] == [60010, 59995, 4000, 0, 0, 0]
    assert read["NAK"]["why"] == "CONFIG"


def test_hello_of_the_document_gets_the_answer_of_the_document():
    host = Host()
    assert zlib.crc32(host.config) == CONFIG_HASH
    host.drain()
    host.fw.rx(EXAMPLES["HELLO"])
    assert host.fw.tx() == EXAMPLES["HELLO_ACK"]


def test_ack_of_the_document():
    # the second frame after power-up; nothing is taken: one repeat of an old number
    host = Host()
    host.raw(EXAMPLES["HELLO"])
    host.fw.rx(frame("HOLD", NONCE - 1))
    want = struct.pack("<IIHI", NONCE, 0, 2048, 0)
    assert host.fw.tx() == frame_device(0x82, 2, want)


def frame_device(kind: int, number: int, payload: bytes) -> bytes:
    body = struct.pack("<BBHI", 0xA5, kind, len(payload), number) + payload
    return body + struct.pack("<I", zlib.crc32(body))


def test_arm_needs_nonce_session_hash_and_urgent_number():
    host = Host()
    host.home()

    def arm(nonce=NONCE, session=5, crc=CONFIG_HASH, urgent=0) -> str:
        return host.command("ARM", struct.pack("<IIII", nonce, session, crc, urgent))

    assert arm(nonce=NONCE + 1) == "NONCE"
    assert arm(session=0) == "SESSION"
    assert arm(crc=CONFIG_HASH ^ 1) == "CONFIG"
    assert arm(urgent=1) == "STALE"
    assert arm() == ""
    host.urgently("DISARM")
    assert arm(urgent=1) == "SESSION"  # the same session number does not arm twice
    assert arm(session=6, urgent=1) == ""


def test_a_recorded_arming_does_not_arm_again_nor_after_a_restart():
    host = Host()
    host.home()
    recorded = frame("ARM", host.seq, struct.pack("<IIII", NONCE, 9, CONFIG_HASH, 0))
    assert answers(host, recorded) == ["ACK "]
    host.seq += 1
    host.urgently("DISARM")
    assert answers(host, recorded) == ["ACK "]  # old: acknowledged, without effect
    assert host.at(3, 1) == host.at(3, 1)[:1]
    again = Host(nonce=NONCE + 77)
    again.home()
    again.raw(recorded)
    assert again.at(3) == []


def test_a_gap_is_reported_once_and_repeats_are_without_effect():
    host = Host().ready()
    first = frame("SEGMENTS", host.seq, struct.pack("<I", 0) + line(1, (4, 0, 0), flags=0)[0])
    second = frame("SEGMENTS", host.seq + 1, struct.pack("<I", 1) + line(1, (4, 0, 0), flags=0)[0])
    third = frame("SEGMENTS", host.seq + 2, struct.pack("<I", 2) + line(1, (4, 0, 0), flags=0)[0])
    assert answers(host, second + third) == ["NAK SEQUENCE"]
    assert answers(host, third) == []
    assert answers(host, first + second) == ["ACK "]
    assert answers(host, first + first) == ["ACK "]
    host.run_for(20_000)
    assert host.status["next_segment"] == 2
    assert host.status["queued"] == 2


def test_a_full_queue_takes_nothing_and_the_index_must_fit():
    host = Host()
    host.home()
    host.flush(5)
    host.index = 4
    assert host.send(line(1, (4, 0, 0))) == "INDEX"
    host.index = 5
    assert host.send(line(2040, (4, 0, 0), flags=0)) == ""
    assert host.send(line(20, (-4, 0, 0), flags=0)) == "FULL"
    assert host.send(line(8, (4, 0, 0), flags=0)) == ""
    host.run_for(20_000)
    assert (host.status["queued"], host.status["free"]) == (2048, 0)


def test_a_damaged_length_does_not_hold_up_the_next_frame():
    host = Host().ready()
    good = frame("SEGMENTS", host.seq, struct.pack("<I", 0) + line(1, (4, 0, 0), flags=0)[0])
    for bit in range(16):
        bad = bytearray(good)
        bad[2 + bit // 8] ^= 1 << (bit % 8)
        beat = frame("BEAT", 0, struct.pack("<III", NONCE, host.session, host.counter + 1))
        before = len(host.at(7))
        host.raw(bytes(bad) + beat)
        host.counter += 1
        assert len(host.at(7)) == before + 1


def test_a_torn_frame_is_dropped_after_10_ms_of_silence():
    host = Host().ready()
    torn = frame("SEGMENTS", host.seq, struct.pack("<I", 0) + b"".join(line(20, (4, 0, 0))))
    host.beating = False
    host.raw(torn[:-1])
    host.run_for(10_001)
    before = len(host.at(7))
    host.beat()
    assert len(host.at(7)) == before + 1


def test_status_comes_on_whole_10_ms_and_frames_are_numbered():
    host = Host().ready()
    host.run_for(200_000)
    times = [f.values["device_us"] for f in host.frames if f.name == "STATUS"]
    assert times == list(range(10_000, times[-1] + 1, 10_000))
    assert [f.number for f in host.frames] == list(range(1, len(host.frames) + 1))


def mutate(rng: random.Random, data: bytes, old: list[bytes]) -> bytes:
    kind = rng.randrange(7)
    if kind == 0:  # bit flips
        out = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 3, 8])):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        return bytes(out)
    if kind == 1:  # cut
        a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        return data[:a] + data[b:]
    if kind == 2:  # duplicate
        return data + data
    if kind == 3:  # replay
        return rng.choice(old)
    if kind == 4:  # a burst of rubbish
        return rng.randbytes(rng.randrange(1, 40))
    if kind == 5:  # out of order
        return rng.choice(old) + data[: rng.randrange(len(data))] + rng.choice(old)
    a = rng.randrange(len(data))  # a byte slipped in
    return data[:a] + rng.randbytes(1) + data[a:]


def campaign(n: int, seed: int) -> int:
    """n mutated frames among good ones; how many segments came out wrong or were lost.

    The queue is filled while the device is disarmed, then played: each segment that it
    executes must end where the one that was sent under this index does.
    """
    rng = random.Random(seed)
    host = Host()
    host.home()
    host.flush()
    sent: list[tuple[int, ...]] = []
    at = [0, 0, 0]
    # recorded earlier: a jog, a probe, a law, a homing
    old = [
        frame("JOG", 0, struct.pack("<IIII6i", NONCE, 1, 1, 0, 9000, 0, 0, 0, 0, 0)),
        frame("PROBE", NONCE, struct.pack("<IB3xiI", 0, 0, 5000, 1000)),
        frame("LAW", NONCE + 1, bytes([1, 2, 0, 64, 0, 0, 64, 0]) + bytes(96)),
        frame("HOME", NONCE, struct.pack("<I", 0)),
    ]
    done = 0

    def give(part: list[bytes], troubled: bool) -> None:
        nonlocal done
        good = frame(
            "SEGMENTS", host.seq, struct.pack("<I", len(sent) - len(part)) + b"".join(part)
        )
        # one too early: not due even if the good one is taken on the way
        ahead = struct.pack("<I", len(sent)) + line(1, (3, 3, 3), 1000, flags=0)[0]
        early = frame("SEGMENTS", host.seq + 2, ahead)
        old.append(good)
        for _ in range(rng.randrange(6) if troubled else 0):
            host.raw(
                mutate(rng, rng.choice([good, early, *old[-20:]]), [early, *old[:4], *old[-200:]])
            )
            done += 1
        host.run_for(10_001)  # silence: a torn beginning is dropped
        host.raw(good)
        host.seq += 1

    while done < n:
        for _ in range(300):
            part = []
            for _ in range(rng.randrange(1, 6)):
                step = [rng.randint(-3, 3) for _ in range(3)]
                step = [abs(d) if p + d < 0 else d for d, p in zip(step, at, strict=True)]
                at = [p + d for p, d in zip(at, step, strict=True)]
                sent.append(tuple(at))
                part.append(line(1, step, 1000, flags=0)[0])
            give(part, troubled=True)
        sent.append(tuple(at))
        give(line(1, (0, 0, 0), 1000, flags=END), troubled=False)
        assert host.arm() == ""
        host.run_for(2_000_000)
        host.urgently("DISARM")
    ends = host.rows[host.rows["kind"] == 2]
    executed = [(int(r["segment"]), tuple(int(v) for v in r["pos"][:3])) for r in ends]
    return sum(a != b for a, b in zip(executed, enumerate(sent), strict=False)) + abs(
        len(executed) - len(sent)
    )


@pytest.mark.slow
def test_mutated_frames_execute_no_wrong_segment():
    assert campaign(20_000, seed=1) == 0


@pytest.mark.slow
def test_a_hundred_thousand_mutated_frames_are_taken_for_nothing_else():
    """Decoder only, for numbers: the firmware must take exactly what the reader takes."""
    rng = random.Random(7)
    host = Host()
    host.home()
    host.flush()
    good = [
        frame("SEGMENTS", host.seq + i, struct.pack("<I", i) + line(1, (1, 0, 0), flags=0)[0])
        for i in range(50)
    ]
    tried = 0
    while tried < 100_000:
        # the frame that is due must not be there whole, nor made whole by its neighbours
        bad = [mutate(rng, good[0], good[1:]) for _ in range(20)]
        bad = [b for b in bad if good[0] not in b]
        if good[0] in b"".join(bad):
            continue
        tried += len(bad)
        host.fw.rx(b"".join(bad))
        host.fw.run(host.fw.now_us + 10_001)
        host.drain()
    host.run_for(20_000)
    assert host.status["next_segment"] == 0
    assert host.status["next_seq"] == host.seq
    host.raw(good[0])
    host.run_for(20_000)
    assert host.status["next_segment"] == 1

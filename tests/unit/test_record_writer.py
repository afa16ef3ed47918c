"""The recorder: format, seals, content hash, room on the disk, cost."""

import hashlib
import os
import stat
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader

from controller.errors import RecordError
from controller.record import keys, seal, writer
from controller.record import schema as s
from controller.record.reader import read_record
from controller.record.writer import RecordWriter, check_room, plain_json
from tests.unit.record_samples import HEADER, KEY, OTHER_KEY, make_plan, write_job, write_record

ROW = [float(k) + 0.5 for k in range(s.N_FIELDS)]


def make(folder: Path, **kw: object) -> RecordWriter:
    return RecordWriter(folder, KEY, HEADER, expected_s=10.0, **kw)  # type: ignore[arg-type]


def fill(w: RecordWriter, seconds: float = 2.5) -> None:
    for k in range(int(seconds * 100)):
        w.telemetry(k * 10_000, s.PACKER.pack(k * 10_000, *ROW))


def test_row_bytes_are_cdr_of_the_stored_definition() -> None:
    # int64 1, then float32 0.5: by hand from IEEE 754, little endian, no padding
    packed = s.PACKER.pack(1, *([0.5] * s.N_FIELDS))
    assert packed[:12] == bytes.fromhex("01000000000000000000003f")
    assert len(packed) == 8 + 4 * s.N_FIELDS
    text = s.message_definition().decode()
    assert text.startswith("int64 t_us")
    assert "float32 x_mm" in text
    assert s.dtype_of_definition(text) == s.TELEMETRY_ROW


def test_every_telemetry_field_carries_its_unit() -> None:
    suffix = {
        "mm": "_mm", "mm/s": "_mm_s", "W": "_w", "s": "_s", "g/min": "_g_min", "g": "_g",
        "L/min": "_l_min", "ppm": "_ppm", "°C": "_deg_c", "MPa": "_mpa", "ms": "_ms",
    }  # fmt: skip
    for name, unit, _ in s.TELEMETRY:
        if unit in suffix:
            assert name.endswith(suffix[unit]), name


def test_another_mcap_reader_reads_the_rows(tmp_path: Path) -> None:
    w = make(tmp_path / "r")
    fill(w)
    w.event(2_500_000, "state", {"old": "STARTING", "new": "EXECUTE", "cause": "ready"})
    w.close(2_500_000, "COMPLETE", {})
    with (tmp_path / "r" / "record.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        rows = [m for _, c, m in reader.iter_messages(topics=["/telemetry"])]
        events = [m.data for _, c, m in reader.iter_messages(topics=["/event"])]
    assert len(rows) == 250
    assert rows[7].log_time == 70_000_000  # simulated ns, no wall time
    assert rows[7].data[:4] == b"\x00\x01\x00\x00"
    assert struct.unpack_from("<qf", rows[7].data, 4) == (70_000, 0.5)
    assert events[0] == (
        b'{"data":{"cause":"ready","new":"EXECUTE","old":"STARTING"},"kind":"state","t_us":2500000}'
    )
    assert events[-1] == b'{"data":{"state":"COMPLETE"},"kind":"record_end","t_us":2500000}'


def test_chunks_end_each_100_ms_and_seals_each_second(tmp_path: Path) -> None:
    w = make(tmp_path / "r")
    fill(w, 3.2)
    w.close(3_190_000, "COMPLETE", {})
    data = (tmp_path / "r" / "record.mcap").read_bytes()
    seals = seal.find_seals(data, KEY.public_key())
    assert all(f.genuine for f in seals)
    assert [f.seal.t_us for f in seals] == [0, 1_000_000, 2_000_000, 3_000_000, 3_190_000]
    for f in seals:
        assert hashlib.sha256(data[: f.seal.length]).hexdigest() == f.seal.sha256
        block = data[f.seal.block_start : f.seal.length]
        assert hashlib.sha256(block).hexdigest() == f.seal.block_sha256
    with (tmp_path / "r" / "record.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    chunks = [c for c in summary.chunk_indexes if c.message_end_time > c.message_start_time]
    assert max(c.message_end_time - c.message_start_time for c in chunks) <= 100_000_000


def test_seal_signature_covers_every_value_of_the_seal() -> None:
    one = seal.Seal(3, 5, 100, 50, 7, 2, "a" * 64, "b" * 64, "c" * 64)
    text = seal.encode_seal(one, KEY)
    found = seal.find_seals(text, KEY.public_key())
    assert found[0].seal == one
    assert found[0].genuine
    assert not seal.find_seals(text, OTHER_KEY.public_key())[0].genuine
    for at in range(len(text)):
        changed = bytearray(text)
        changed[at] ^= 1
        assert not any(f.genuine for f in seal.find_seals(bytes(changed), KEY.public_key())), at


def test_final_seal_signature_covers_every_byte() -> None:
    data = seal.encode_final({"state": "COMPLETE", "rows": 3}, KEY)
    assert seal.decode_final(data, KEY.public_key()) == ({"state": "COMPLETE", "rows": 3}, True)
    for at in range(len(data)):
        for changed in (
            data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at] + data[at + 1 :]
        ):  # fmt: skip
            assert not seal.decode_final(changed, KEY.public_key())[1], at


def test_content_hash_ignores_wall_time_path_key_and_header(tmp_path: Path) -> None:
    plan = make_plan(2)
    job = write_job(tmp_path / "a.lmdjob", plan)
    one = write_record(tmp_path / "one", plan)
    other_header = {**HEADER, "started_wall": "1999-01-01T00:00:00Z", "operator": "someone else"}
    two = write_record(tmp_path / "deep" / "two", plan, key=OTHER_KEY, header=other_header, job=job)
    assert one["content_hash"] == two["content_hash"]
    assert one["sha256"] != two["sha256"]


def test_content_hash_is_the_stated_function_of_topic_time_and_payload(tmp_path: Path) -> None:
    w = make(tmp_path / "r")
    packed = s.PACKER.pack(10_000, *ROW)
    w.event(0, "log", {"text": "é"})
    w.telemetry(10_000, packed)
    result = w.close(20_000, "STOPPED", {"wall": 12.5})
    expected = hashlib.sha256()
    for topic, t_us, payload in (
        (b"/event", 0, '{"data":{"text":"é"},"kind":"log","t_us":0}'.encode()),
        (b"/telemetry", 10_000, b"\x00\x01\x00\x00" + packed),
        (b"/event", 20_000, b'{"data":{"state":"STOPPED"},"kind":"record_end","t_us":20000}'),
    ):
        expected.update(topic + b"\0" + struct.pack("<qI", t_us, len(payload)) + payload)
    assert result["content_hash"] == expected.hexdigest()
    assert read_record(tmp_path / "r").content_hash == expected.hexdigest()


@pytest.mark.parametrize("change", ["value", "time", "event", "order"])
def test_content_hash_sees_any_change_of_content(tmp_path: Path, change: str) -> None:
    def build(folder: Path, change: str) -> str:
        w = make(folder)
        fill(w, 0.5)
        values = list(ROW)
        if change == "value":
            values[3] += 0.01
        t_us = 510_001 if change == "time" else 510_000
        steps = [
            lambda: w.telemetry(t_us, s.PACKER.pack(510_000, *values)),
            lambda: w.event(510_000, "log", {"text": "b" if change == "event" else "a"}),
        ]
        for step in reversed(steps) if change == "order" else steps:
            step()
        return str(w.close(600_000, "COMPLETE", {})["content_hash"])

    assert build(tmp_path / "a", change) != build(tmp_path / "b", "none")


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    plan = make_plan(2)
    for name in ("a", "b"):
        write_record(tmp_path / name, plan)
    assert (tmp_path / "a/record.mcap").read_bytes() == (tmp_path / "b/record.mcap").read_bytes()


def test_sync_is_asked_at_seals_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, synced = [], []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(fd))

    def due() -> bool:
        asked.append(True)
        return len(asked) % 2 == 0

    w = make(tmp_path / "r", sync_due=due)
    fill(w, 4.05)
    assert len(asked) == 5  # header, seconds 1 to 4
    assert len(synced) == 2


def test_ticks_alone_seal_what_was_recorded(tmp_path: Path) -> None:
    w = make(tmp_path / "r")
    w.event(5_000, "log", {"text": "x"})
    w.tick(2_000_000)
    assert w.sealed_until_us == 2_000_000
    assert b'"text":"x"' in (tmp_path / "r/record.mcap").read_bytes()


def test_odd_event_values_never_stop_a_build() -> None:
    class Odd:
        pass

    given = {"a": float("nan"), "b": np.float32(1.5), "c": np.arange(2), "d": (1, Odd()),
             3: "\udc80", "e": True}  # fmt: skip
    assert plain_json(given) == {
        "a": None, "b": 1.5, "c": [0, 1], "d": [1, "<Odd>"], "3": "\udc80", "e": True
    }  # fmt: skip
    assert writer.dump(plain_json(given)).decode()  # valid UTF-8 in spite of the lone surrogate


def test_close_twice_answers_the_same_and_rows_are_refused_after(tmp_path: Path) -> None:
    w = make(tmp_path / "r")
    fill(w, 0.2)
    assert w.close(200_000, "COMPLETE", {}) == w.close(300_000, "ABORTED", {})
    with pytest.raises(RecordError, match="closed"):
        w.telemetry(1, b"")
    with pytest.raises(RecordError, match="closed"):
        w.event(1, "log", {})


def test_reserved_room_is_given_back_at_close(tmp_path: Path) -> None:
    w = RecordWriter(tmp_path / "r", KEY, HEADER, expected_s=300.0)
    path = tmp_path / "r/record.mcap"
    fill(w, 1.2)
    before = path.stat()
    assert before.st_size < 100_000
    w.close(1_200_000, "COMPLETE", {})
    after = path.stat()
    assert after.st_blocks * 512 < 200_000
    if before.st_blocks * 512 < 300 * writer.RECORD_BYTES_PER_S:
        pytest.skip("this file system reserves nothing")


def test_no_room_is_told_with_folder_free_and_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    small = os.statvfs_result((4096, 4096, real[2], 100, 100, *real[5:10]))
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    with pytest.raises(RecordError, match=r"out: 0 MB free, 54 MB needed for a record of 600 s"):
        RecordWriter(tmp_path / "out", KEY, HEADER, expected_s=600.0)
    assert not (tmp_path / "out").exists()
    assert check_room.__doc__


@pytest.mark.parametrize("where", ["job", "taken", "file"])
def test_a_failed_start_leaves_nothing_behind(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "r"
    job = None
    if where == "job":
        job = tmp_path / "bad.lmdjob"
        job.write_bytes(b"no zip")
    elif where == "taken":
        make(folder).close(0, "COMPLETE", {})
        before = {p.name: p.read_bytes() for p in folder.iterdir()}
    else:
        (tmp_path / "f").write_text("")
        folder = tmp_path / "f" / "r"
    with pytest.raises(RecordError):
        make(folder, job=job)
    if where == "taken":
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    else:
        assert not folder.exists()


def test_missing_job_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such job file"):
        make(tmp_path / "r", job=tmp_path / "none.lmdjob")


def test_full_disk_raises_once_and_keeps_what_was_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = make(tmp_path / "r")
    fill(w, 2.05)
    real = os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RecordError, match="No space left on device"):
        w.tick(2_100_000)
    with pytest.raises(RecordError, match="sealed until 2 s"):
        w.telemetry(2_110_000, s.PACKER.pack(2_110_000, *ROW))
    with pytest.raises(RecordError):
        w.close(2_200_000, "COMPLETE", {})
    monkeypatch.setattr(os, "write", real)
    record = read_record(tmp_path / "r")
    assert record.state == "INTERRUPTED"
    assert len(record.telemetry) == 201


@pytest.mark.slow
def test_a_telemetry_row_costs_under_30_us(tmp_path: Path) -> None:
    best = 1e9
    for k in range(3):  # the least of three: other work on the machine only adds
        w = make(tmp_path / f"r{k}", sync_due=lambda: False)
        n = 5000
        start = time.process_time()
        for i in range(n):
            w.telemetry(i * 10_000, s.PACKER.pack(i * 10_000, *ROW))
        best = min(best, (time.process_time() - start) / n)
        w.close(n * 10_000, "COMPLETE", {})
    assert best < 30e-6, f"{best * 1e6:.1f} us a row"


# --- keys ----------------------------------------------------------------------------------


def test_key_is_made_once_with_mode_600_in_the_configuration_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    old = os.umask(0)
    try:
        first = keys.load_or_make_key()
    finally:
        os.umask(old)
    path = tmp_path / "conf/lmd/signing.key"
    assert keys.key_path() == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    again = keys.load_or_make_key()
    assert keys.key_id(first.public_key()) == keys.key_id(again.public_key())
    with pytest.raises(RecordError, match="already there"):
        keys.make_key()


def test_key_readable_by_others_is_refused(tmp_path: Path) -> None:
    path = keys.make_key(tmp_path / "k")
    path.chmod(0o644)
    with pytest.raises(RecordError, match=r"mode 644.*chmod 600"):
        keys.load_key(path)


@pytest.mark.parametrize("text", [b"", b"-----BEGIN PRIVATE KEY-----\nxx\n"])
def test_broken_key_is_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "k"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(RecordError, match="k: not an unencrypted PEM"):
        keys.load_key(path)
    with pytest.raises(RecordError, match="cannot be read"):
        keys.load_key(tmp_path / "none")

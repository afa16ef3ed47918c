"""The job file: same bytes, whole round trip, every flipped byte found and named."""

import contextlib
import hashlib
import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest

from controller.errors import RecordError, VerifyError
from controller.planning import job_hash, read_job, write_job
from controller.planning.job import job_bytes
from tests.unit.planning_cases import CELL_TEXT, plan, track

ARRAYS = ("segments", "start_steps", "tracks", "layers", "timeline", "path_mm")


@pytest.fixture(scope="module")
def small():
    return plan([track([(140, 145), (141, 145)])])


@pytest.fixture(scope="module")
def blob(small):
    return job_bytes(small)


def read(tmp_path, data):
    path = tmp_path / "a.lmdjob"
    path.write_bytes(data)
    return read_job(path)


def test_round_trip_gives_the_same_plan(tmp_path, small):
    path = tmp_path / "a.lmdjob"
    write_job(small, path)
    again = read_job(path)
    for name in ARRAYS:
        mine, theirs = getattr(small, name), getattr(again, name)
        assert mine.dtype == theirs.dtype
        assert mine.tobytes() == theirs.tobytes()
        assert mine.shape == theirs.shape
    assert again.figures == small.figures
    assert again.part == small.part
    assert again.warnings == small.warnings
    assert again.meta == small.meta
    assert again.cell_toml == CELL_TEXT
    assert job_hash(again) == job_hash(small) == small.figures["hash"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.lmdjob"]


def test_same_input_same_bytes(blob):
    assert job_bytes(plan([track([(140, 145), (141, 145)])])) == blob


def test_other_readers_open_it(blob, small):
    with zipfile.ZipFile(io.BytesIO(blob)) as box:
        assert box.testzip() is None
        assert all(i.compress_type == zipfile.ZIP_STORED for i in box.infolist())
        assert {i.date_time for i in box.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        segments = np.load(io.BytesIO(box.read("segments.npy")), allow_pickle=False)
        assert segments.tobytes() == small.segments.tobytes()
        manifest = json.loads(box.read("manifest.json"))
        for name, digest in manifest["members"].items():
            assert hashlib.sha256(box.read(name)).hexdigest() == digest


def test_hash_covers_every_part(small):
    from dataclasses import replace

    seen = {job_hash(small)}
    segments = small.segments.copy()
    segments["end_power"][5] ^= 1
    path = small.path_mm.copy()
    path[0, 0] = np.nextafter(path[0, 0], 1e9)
    for change in (
        {"segments": segments}, {"path_mm": path}, {"cell_toml": small.cell_toml + "\n"},
        {"figures": {**small.figures, "energy_j": 1.0}}, {"warnings": ("x",)},
        {"part": {**small.part, "name": "q"}}, {"meta": {}},
        {"start_steps": small.start_steps + 1}, {"timeline": small.timeline[1:]},
    ):  # fmt: skip
        seen.add(job_hash(replace(small, **change)))
    assert len(seen) == 10


def owners(blob):
    """Which member each byte belongs to, found with the standard library's zip reader."""
    names = [""] * len(blob)
    with zipfile.ZipFile(io.BytesIO(blob)) as box:
        infos = box.infolist()
        central = box.start_dir
    starts = [i.header_offset for i in infos] + [central]
    for info, begin, end in zip(infos, starts[:-1], starts[1:], strict=True):
        names[begin:end] = [info.filename] * (end - begin)
    at = central
    for info in infos:
        size = 46 + len(info.filename)
        names[at : at + size] = [info.filename] * size
        at += size
    names[at:] = ["zip"] * (len(blob) - at)
    return names


@pytest.mark.slow
def test_any_flipped_byte_is_found_and_its_member_named(tmp_path, blob):
    names = owners(blob)
    for at in range(len(blob)):
        bad = bytearray(blob)
        bad[at] ^= 1 << (at % 8)
        with pytest.raises(VerifyError) as caught:
            read(tmp_path, bytes(bad))
        assert names[at] in str(caught.value), at


@pytest.mark.parametrize("cut", [0, 5, 21, 22, 500, -1, -23])
def test_cut_file_is_refused(tmp_path, blob, cut):
    with pytest.raises(VerifyError, match=r"job|zip"):
        read(tmp_path, blob[:cut])


def test_added_bytes_are_refused(tmp_path, blob):
    for data in (blob + b"\0", b"\0" + blob, blob + blob):
        with pytest.raises(VerifyError):
            read(tmp_path, data)


def rezip(blob, change=lambda name, data: [(name, data)], method=zipfile.ZIP_STORED):
    """The job's members written anew by the standard library."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(blob)) as box, zipfile.ZipFile(out, "w", method) as new:
        for info in box.infolist():
            for name, data in change(info.filename, box.read(info)):
                entry = zipfile.ZipInfo(name)
                entry.compress_type = method
                new.writestr(entry, data)
    return out.getvalue()


@pytest.mark.parametrize("name", ["../evil.sh", "/etc/passwd", "extra.npy", "manifest.json"])
def test_unknown_double_and_travelling_members_are_refused(tmp_path, blob, name):
    def change(member, data):
        return [(member, data)] + ([(name, b"x")] if member == "material.toml" else [])

    with pytest.warns() if name == "manifest.json" else contextlib.nullcontext():
        data = rezip(blob, change)
    with pytest.raises(VerifyError, match="members of a job"):
        read(tmp_path, data)


def test_compressed_members_are_refused_unread(tmp_path, blob):
    def bomb(name, data):
        return [(name, b"\0" * 50_000_000 if name == "segments.npy" else data)]

    with pytest.raises(VerifyError):
        read(tmp_path, rezip(blob, bomb, zipfile.ZIP_DEFLATED))


def forge(blob, change):
    """A job changed by ``change(members, manifest)``, every zip checksum made to fit."""
    from controller.planning import job as writer

    with zipfile.ZipFile(io.BytesIO(blob)) as box:
        members = {i.filename: box.read(i) for i in box.infolist()}
    manifest = json.loads(members["manifest.json"])
    change(members, manifest, writer)
    members["manifest.json"] = writer._json_bytes(manifest)
    parts, central, offset = [], [], 0
    for key, value in members.items():
        crc = zlib.crc32(value)
        head = writer._local_header(key, crc, len(value))
        central.append(writer._central_entry(key, crc, len(value), offset))
        parts += [head, value]
        offset += len(head) + len(value)
    tail = b"".join(central)
    n = len(central)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, n, n, len(tail), offset, 0)
    return b"".join([*parts, tail, end])


def test_changed_figure_with_fitting_zip_checksums_is_refused(tmp_path, blob):
    def change(members, manifest, writer):
        manifest["figures"]["energy_j"] += 1.0

    with pytest.raises(VerifyError, match=r"manifest\.json is damaged: its hash"):
        read(tmp_path, forge(blob, change))


def test_changed_array_with_fitting_zip_checksums_is_refused(tmp_path, blob):
    def change(members, manifest, writer):
        members["segments.npy"] = members["segments.npy"][:-1] + b"\x7f"

    with pytest.raises(VerifyError, match=r"segments\.npy is damaged: its sha256"):
        read(tmp_path, forge(blob, change))


def test_job_of_another_version_is_told(tmp_path, blob):
    def change(members, manifest, writer):
        manifest["version"] = 2
        manifest["hash"] = writer._hash_of(manifest)

    with pytest.raises(VerifyError, match="version 2, this program reads 'lmdjob' version 1"):
        read(tmp_path, forge(blob, change))


def test_forged_arrays_of_other_type_or_huge_shape_are_refused(tmp_path, blob):
    def npy(array, **more):
        out = io.BytesIO()
        np.save(out, array, **more)
        return out.getvalue()

    huge = b"\x93NUMPY\x01\x00\x76\x00" + (
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999,), }".ljust(117) + b"\n"
    )
    for data in (
        npy(np.array([{}], dtype=object), allow_pickle=True), npy(np.zeros(6)), huge,
        npy(np.zeros((2, 6), "<i8")), npy(np.zeros(5, "<i8")), b"", b"\x93NUMPY",
    ):  # fmt: skip

        def change(members, manifest, writer, data=data):
            members["start_steps.npy"] = data
            manifest["members"]["start_steps.npy"] = hashlib.sha256(data).hexdigest()
            manifest["hash"] = writer._hash_of(manifest)

        with pytest.raises(VerifyError, match=r"start_steps\.npy"):
            read(tmp_path, forge(blob, change))


def test_missing_file_and_unwritable_folder_are_told(tmp_path, small):
    with pytest.raises(RecordError, match="cannot be read"):
        read_job(tmp_path / "none.lmdjob")
    with pytest.raises(RecordError, match="cannot be written"):
        write_job(small, tmp_path / "no" / "folder.lmdjob")

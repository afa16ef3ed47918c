"""Damage to a record: found, and told where."""

import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.errors import RecordError, VerifyError
from controller.record.reader import read_record
from controller.record.seal import find_seals
from controller.record.verify import verify_record
from tests.unit.record_samples import KEY, OTHER_KEY, make_plan, write_job, write_record

SEED = 20261124
FILES = ("record.mcap", "job.lmdjob", "record.seal", "signing_key.pub")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("verify")
    plan = make_plan(2)
    write_record(base / "r", plan, job=write_job(base / "j.lmdjob", plan), n_rows=1250)
    return base / "r"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "r")
    return tmp_path / "r"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record whose writer went without a word."""
    base = tmp_path_factory.mktemp("killed")
    plan = make_plan(2)
    write_record(base / "r", plan, job=write_job(base / "j.lmdjob", plan), n_rows=1250,
                 close=False)  # fmt: skip
    return base / "r"


class Flip:
    """One byte of a file changed, and put back."""

    def __init__(self, path: Path, at: int, mask: int) -> None:
        self._path, self._at, self._mask = path, at, mask

    def __enter__(self) -> None:
        self._change()

    def __exit__(self, *_: object) -> None:
        self._change()

    def _change(self) -> None:
        fd = os.open(self._path, os.O_RDWR)
        byte = os.pread(fd, 1, self._at)[0]
        os.pwrite(fd, bytes([byte ^ self._mask]), self._at)
        os.close(fd)


def ranges(problems: list[str], file: str) -> Iterator[tuple[int, int]]:
    for problem in problems:
        match = re.match(rf"{re.escape(file)}, bytes (\d+) to (\d+)", problem)
        if match:
            yield int(match.group(1)), int(match.group(2))


def positions(data: bytes, n_random: int) -> list[int]:
    """Every kind of byte: start, structure, each seal's text, footer, and at random."""
    rng = random.Random(SEED)
    chosen = set(range(60)) | set(range(60, 4000, 61))
    for found in find_seals(data, None)[:4]:
        chosen |= set(range(found.start - 60, found.end + 2, 23))
    chosen |= set(range(len(data) - 200, len(data), 3))
    chosen |= {rng.randrange(len(data)) for _ in range(n_random)}
    return sorted(p for p in chosen if 0 <= p < len(data))


def test_whole_record_is_sealed(whole: Path) -> None:
    v = verify_record(whole)
    assert (v.ok, v.complete, v.problems, v.notes) == (True, True, [], [])
    assert v.rows == 1250
    assert v.sealed_until_s == pytest.approx(12.49)
    assert v.state == "COMPLETE"
    assert v.content_hash == read_record(whole).content_hash
    assert v.verdict.startswith("sealed: 1250 rows")
    v.require()


@pytest.mark.slow
def test_any_flipped_byte_of_the_record_is_found_and_located(copy: Path) -> None:
    path = copy / "record.mcap"
    data = path.read_bytes()
    seals = find_seals(data, KEY.public_key())
    tried = positions(data, 250)
    assert len(tried) > 500
    rng = random.Random(SEED)
    for at in tried:
        with Flip(path, at, 1 << rng.randrange(8)):
            v = verify_record(copy)
        assert not v.ok, f"byte {at} (seed {SEED})"
        found = list(ranges(v.problems, "record.mcap"))
        assert found, (at, v.problems)
        assert all(a <= at < b for a, b in found), (at, v.problems)
        # two seconds at most: that of the byte, and the next when the byte is a seal's
        inside = [f for f in seals if found[0][0] <= f.seal.length < found[-1][1]]
        assert len(inside) <= 3, (at, v.problems)
        assert v.sealed_until_s <= next(
            (f.seal.t_us for f in seals if f.seal.length > at), seals[-1].seal.t_us
        ) * 1e-6  # fmt: skip
    assert verify_record(copy).ok


def test_damaged_second_is_named(copy: Path) -> None:
    path = copy / "record.mcap"
    seals = find_seals(path.read_bytes(), KEY.public_key())
    fifth = next(f for f in seals if f.seal.t_us == 5_000_000)
    with Flip(path, fifth.seal.length - 700, 4):
        v = verify_record(copy)
    assert len(v.problems) == 1
    assert v.problems[0].endswith("damaged between 4 s to 5 s")
    assert v.sealed_until_s == 4.0
    assert v.rows == 401


def test_damage_in_two_places_is_told_twice(copy: Path) -> None:
    path = copy / "record.mcap"
    seals = find_seals(path.read_bytes(), KEY.public_key())
    at = [next(f for f in seals if f.seal.t_us == t).seal.length - 700 for t in (3e6, 9e6)]
    with Flip(path, at[0], 1), Flip(path, at[1], 1):
        v = verify_record(copy)
    assert [p.rsplit("between ")[1] for p in v.problems] == ["2 s to 3 s", "8 s to 9 s"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES[1:])
def test_any_flipped_byte_of_the_other_files_is_found(copy: Path, name: str) -> None:
    path = copy / name
    size = path.stat().st_size
    rng = random.Random(SEED)
    tried = range(size) if size < 400 else sorted(rng.sample(range(size), 300))
    for at in tried:
        with Flip(path, at, 1 << rng.randrange(8)):
            v = verify_record(copy)
        assert not v.ok, f"byte {at} (seed {SEED})"
        found = list(ranges(v.problems, name))
        assert any(a <= at < b for a, b in found), (at, v.problems)
        assert not list(ranges(v.problems, "record.mcap")) or name == "record.seal"


def test_damaged_job_is_told_by_member(copy: Path) -> None:
    path = copy / "job.lmdjob"
    data = path.read_bytes()
    with Flip(path, data.index(b"[track.default]"), 1):
        assert "member recipe.toml is damaged" in verify_record(copy).problems[0]
    with Flip(path, len(data) - 2, 1):
        assert "member (directory) is damaged" in verify_record(copy).problems[0]
    path.write_bytes(data[:-10])
    assert "is cut off" in verify_record(copy).problems[0]
    path.write_bytes(data + b"x")
    assert "added after" in verify_record(copy).problems[0]
    path.unlink()
    assert verify_record(copy).problems == ["job.lmdjob: missing"]


@pytest.mark.slow
def test_a_cut_tail_is_unsealed_after_the_last_seal(copy: Path) -> None:
    path = copy / "record.mcap"
    data = path.read_bytes()
    seals = find_seals(data, KEY.public_key())
    rng = random.Random(SEED)
    for n in [
        len(data) - 1,
        len(data) - 30,
        *(rng.randrange(seals[0].end, len(data)) for _ in range(60)),
    ]:
        path.write_bytes(data[:n])
        v = verify_record(copy)
        last = [f for f in seals if f.end <= n][-1]
        assert not v.ok
        assert f"bytes {n} to {len(data)}: cut off, unsealed after " in v.problems[0]
        assert f"unsealed after {last.seal.t_us * 1e-6:g} s" in v.problems[0]
        assert v.sealed_until_s == pytest.approx(last.seal.t_us * 1e-6)
        assert len(read_record(copy).telemetry) >= last.seal.rows


def test_bytes_added_at_the_end_are_found(copy: Path) -> None:
    path = copy / "record.mcap"
    n = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"more")
    assert verify_record(copy).problems == [
        f"record.mcap, bytes {n} to {n + 4}: added after the end of the record"
    ]


@pytest.mark.slow
def test_killed_record_verifies_to_its_last_seal_wherever_it_ends(
    killed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    shutil.copytree(killed, folder)
    path = folder / "record.mcap"
    data = path.read_bytes()
    seals = find_seals(data, KEY.public_key())
    rng = random.Random(SEED)
    for n in [len(data), *(rng.randrange(seals[0].end, len(data)) for _ in range(60))]:
        # a power cut may leave a tail of zeros where room was reserved
        path.write_bytes(data[:n] + bytes(rng.choice((0, 5000))))
        v = verify_record(folder)
        last = [f for f in seals if f.end <= n][-1]
        assert v.ok, v.problems
        assert not v.complete
        assert v.state == "INTERRUPTED"
        assert v.rows == last.seal.rows
        assert f"unsealed after {last.seal.t_us * 1e-6:g} s" in v.notes[0]
        record = read_record(folder)
        assert record.state == "INTERRUPTED"
        rows = record.telemetry
        assert len(rows) >= last.seal.rows
        # no invented rows: each is one that was written, in order
        assert (rows["t_us"] == [k * 10_000 for k in range(len(rows))]).all()


def test_flip_in_the_sealed_part_of_a_killed_record_is_found(killed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(killed, folder)
    with Flip(folder / "record.mcap", 60_000, 1):
        assert not verify_record(folder).ok


def test_final_seal_taken_away_is_found(copy: Path) -> None:
    (copy / "record.seal").unlink()
    v = verify_record(copy)
    assert not v.ok
    assert "missing, though the record was closed" in v.problems[0]


def test_record_sealed_again_with_another_key_is_told_by_a_trusted_key(tmp_path: Path) -> None:
    write_record(tmp_path / "r", make_plan(1), key=OTHER_KEY, n_rows=200)
    assert verify_record(tmp_path / "r").ok
    v = verify_record(tmp_path / "r", trusted=KEY.public_key())
    assert not v.ok
    assert "not with the trusted" in v.problems[0]


def test_block_of_another_record_of_the_same_key_does_not_pass(tmp_path: Path) -> None:
    """Seconds and seals swapped between two records of equal shape break the prefix hash."""
    plan = make_plan(1)
    write_record(tmp_path / "a", plan, n_rows=600)
    write_record(tmp_path / "b", plan, n_rows=600, header={"operator": "M. Wober"})
    a = (tmp_path / "a/record.mcap").read_bytes()
    b_path = tmp_path / "b/record.mcap"
    b = b_path.read_bytes()
    sa = find_seals(a, KEY.public_key())
    sb = find_seals(b, KEY.public_key())
    assert sa[3].seal.t_us == sb[3].seal.t_us == 3_000_000
    shift = sb[3].seal.length - sa[3].seal.length
    if shift == 0:
        pytest.fail("the two records were meant to differ in length or content")
    first = a[sa[2].seal.length : sa[4].seal.length]
    b_path.write_bytes(b[: sb[2].seal.length] + first + b[sb[4].seal.length :])
    assert not verify_record(tmp_path / "b").ok


def test_missing_public_key_is_told(copy: Path) -> None:
    (copy / "signing_key.pub").unlink()
    v = verify_record(copy)
    assert v.problems == ["signing_key.pub: missing"]
    with pytest.raises(VerifyError, match=r"signing_key\.pub: missing"):
        v.require()


def test_no_record_is_an_error_not_a_verdict(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not a record folder"):
        verify_record(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\x89MCAP0\r\n", b"hello"])
def test_hopeless_files_have_no_seal(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "record.mcap").write_bytes(data)
    v = verify_record(tmp_path)
    assert not v.ok
    assert "no seal in it holds" in v.problems[0]

"""Writes record.mcap: a message a row, chunks of 100 ms, a signed seal each second.

Nothing is read back: the hashes run over the bytes as they leave. ``content_hash`` covers
topic, machine time and payload of telemetry and events and nothing else, so that the same
seed gives the same hash on any machine, at any path, with any key.
"""

import ctypes
import hashlib
import json
import math
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mcap.writer import CompressionType, Writer

from controller import __version__
from controller.errors import RecordError
from controller.record import schema as s
from controller.record.keys import PUBLIC_KEY_FILE, key_id, public_pem, public_raw
from controller.record.seal import (
    JOB_FILE,
    RECORD_FILE,
    SEAL_FILE,
    Seal,
    encode_final,
    encode_seal,
    job_map,
)

CHUNK_US = 100_000
SEAL_US = 1_000_000
FORMAT = 1

# Room: 239 bytes a row measured with chunk and index, 1.1 kB a seal, plus events
RECORD_BYTES_PER_S = 30_000
# what else lands in the folder: the simulator's trace and the reports
OTHER_BYTES_PER_S = 40_000
OTHER_BYTES = 12_000_000

_CONTENT = struct.Struct("<qI")
_FALLOC_KEEP_SIZE = 1


class _HashedFile:
    """A file open for appending that hashes what passes; what mcap's Writer needs of one."""

    def __init__(self, path: Path, reserve_bytes: int) -> None:
        self.path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self.length = 0
        self.all = hashlib.sha256()
        self.block = hashlib.sha256()
        self.block_start = 0
        self._pending: list[bytes] = []
        _reserve(self.fd, reserve_bytes)

    def write(self, data: bytes) -> int:
        self._pending.append(data)
        self.length += len(data)
        return len(data)

    def tell(self) -> int:
        return self.length

    def flush(self) -> None:
        """Hash and hand to the kernel all that was written. Raises RecordError (disk full)."""
        if not self._pending:
            return
        data = b"".join(self._pending)
        self._pending.clear()
        self.all.update(data)
        self.block.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except OSError as exc:
            raise RecordError(f"{self.path}: cannot be written ({exc.strerror})") from None

    def sync(self) -> None:
        try:
            os.fdatasync(self.fd)
        except OSError as exc:
            raise RecordError(f"{self.path}: cannot be synced ({exc.strerror})") from None

    def end_block(self) -> str:
        """sha256 of the bytes since the last call; begins the next block."""
        digest = self.block.hexdigest()
        self.block = hashlib.sha256()
        self.block_start = self.length
        return digest

    def close(self) -> None:
        if self.fd >= 0:
            os.ftruncate(self.fd, self.length)  # gives back what was reserved and not used
            os.fsync(self.fd)
            os.close(self.fd)
            self.fd = -1

    def abandon(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class RecordWriter:
    """The record of one build, written by the process that calls it (schema.Recorder)."""

    def __init__(
        self,
        folder: Path,
        key: Ed25519PrivateKey,
        header: Mapping[str, Any],
        *,
        job: Path | None = None,
        expected_s: float = 600.0,
        sync_due: s.SyncDue = lambda: True,
    ) -> None:
        self.folder = Path(folder)
        self.sealed_until_us = 0
        self._key = key
        self._sync_due = sync_due
        self._content = hashlib.sha256()
        self._rows = self._events = self._seals = 0
        self._t_us = 0
        self._next_chunk_us = self._next_seal_us = 0
        self._result: dict[str, Any] | None = None
        self._failed: str | None = None
        self._sealed_length = 0
        if job is not None and not job.is_file():
            raise RecordError(f"{job}: no such job file")
        job_bytes = job.stat().st_size if job is not None else 0
        check_room(self.folder, expected_s, job_bytes)
        made_folder = not self.folder.exists()
        made: list[Path] = []
        self._file: _HashedFile | None = None
        try:
            self._start(header, job, expected_s, made)
        except BaseException as exc:
            if self._file is not None:
                self._file.abandon()
            for path in made:
                path.unlink(missing_ok=True)
            if made_folder and self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()
            if isinstance(exc, OSError):
                raise RecordError(f"{self.folder}: cannot be written ({exc.strerror})") from None
            raise

    def _start(
        self, header: Mapping[str, Any], job: Path | None, expected_s: float, made: list[Path]
    ) -> None:
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in (RECORD_FILE, SEAL_FILE):
            if (folder / name).exists():
                raise RecordError(f"{folder / name}: a record is already there")
        self._job: dict[str, Any] | None = None
        if job is not None:
            target = folder / JOB_FILE
            if not (target.exists() and target.samefile(job)):
                made += [target.with_suffix(".part"), target]
                shutil.copyfile(job, made[-2])
                os.replace(made[-2], target)
            self._job = job_map(target)
        made.append(folder / PUBLIC_KEY_FILE)
        write_whole(folder / PUBLIC_KEY_FILE, public_pem(self._key.public_key()))
        made.append(folder / RECORD_FILE)
        reserve = int(RECORD_BYTES_PER_S * expected_s)
        self._file = _HashedFile(folder / RECORD_FILE, reserve)
        # no chunk ends by size, only by time; stored, so that damage stays where it is
        self._mcap = Writer(
            self._file,  # type: ignore[arg-type]
            chunk_size=1 << 62,
            compression=CompressionType.NONE,
        )
        self._mcap.start(profile="ros2", library=f"lmd-controller {__version__}")
        anything = self._mcap.register_schema("lmd.json", "jsonschema", b'{"type":"object"}')
        telemetry = self._mcap.register_schema(s.TELEMETRY_TYPE, "ros2msg", s.message_definition())
        header_channel = self._mcap.register_channel(s.TOPIC_HEADER, "json", anything)
        self._telemetry_channel = self._mcap.register_channel(s.TOPIC_TELEMETRY, "cdr", telemetry)
        self._event_channel = self._mcap.register_channel(s.TOPIC_EVENT, "json", anything)
        self._seal_channel = self._mcap.register_channel(s.TOPIC_SEAL, "json", anything)
        self._telemetry_prefix = s.TOPIC_TELEMETRY.encode() + b"\0"
        self._event_prefix = s.TOPIC_EVENT.encode() + b"\0"
        content = {
            "format": FORMAT,
            "public_key": public_raw(self._key.public_key()).hex(),
            "key_id": key_id(self._key.public_key()),
            "job": self._job,
            "header": plain_json(dict(header)),
        }
        self._mcap.add_message(header_channel, 0, dump(content), 0)
        self._seal(0)

    def telemetry(self, t_us: int, packed: bytes) -> None:
        """One row, as packed by ``schema.PACKER``."""
        if self._failed or self._result:
            self._refuse()
        payload = s.CDR_HEADER + packed
        t_ns = t_us * 1000
        self._content.update(self._telemetry_prefix + _CONTENT.pack(t_us, len(payload)) + payload)
        self._mcap.add_message(self._telemetry_channel, t_ns, payload, t_ns, self._rows)
        self._rows += 1
        self._t_us = t_us
        if t_us >= self._next_chunk_us:
            self.tick(t_us)

    def event(self, t_us: int, kind: str, data: Mapping[str, Any]) -> None:
        """One event; values that JSON does not know are written as null or by their type."""
        if self._failed or self._result:
            self._refuse()
        payload = dump({"t_us": t_us, "kind": kind, "data": plain_json(dict(data))})
        t_ns = t_us * 1000
        self._content.update(self._event_prefix + _CONTENT.pack(t_us, len(payload)) + payload)
        self._mcap.add_message(self._event_channel, t_ns, payload, t_ns, self._events)
        self._events += 1
        self._t_us = max(self._t_us, t_us)

    def tick(self, t_us: int) -> None:
        """End the chunk each 100 ms and seal each second of machine time."""
        if t_us < self._next_chunk_us or self._result:
            return
        if self._failed:
            self._refuse()
        self._next_chunk_us = (t_us // CHUNK_US + 1) * CHUNK_US
        try:
            if t_us >= self._next_seal_us:
                self._seal(t_us)
            else:
                self._mcap.flush()
        except RecordError as exc:
            self._fail(exc)
            raise

    def _fail(self, exc: RecordError) -> None:
        self._failed = str(exc)
        if self._file is not None:
            self._file.abandon()

    def _seal(self, t_us: int) -> None:
        """End the chunk, sign what is there, append the seal."""
        file = self._file
        if file is None:
            raise RecordError(f"{self.folder}: record is not open")
        self._mcap.flush()
        seal = Seal(
            seal=self._seals,
            t_us=t_us,
            block_start=file.block_start,
            length=file.length,
            rows=self._rows,
            events=self._events,
            block_sha256=file.end_block(),
            sha256=file.all.hexdigest(),
            content_hash=self._content.hexdigest(),
        )
        t_ns = t_us * 1000
        payload = encode_seal(seal, self._key)
        self._mcap.add_message(self._seal_channel, t_ns, payload, t_ns, self._seals)
        self._mcap.flush()
        self._seals += 1
        self._sealed_length = seal.length
        self._next_seal_us = (t_us // SEAL_US + 1) * SEAL_US
        if self._sync_due():
            file.sync()
        self.sealed_until_us = t_us

    def close(self, t_us: int, state: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """End event, last seal, footer, record.seal; see ``schema.Recorder.close``."""
        if self._result:
            return self._result
        if self._failed:
            self._refuse()
        file = self._file
        if file is None:
            raise RecordError(f"{self.folder}: record is not open")
        t_us = max(t_us, self._t_us)
        try:
            self.event(t_us, "record_end", {"state": state})
            self._seal(t_us)
            self._mcap.finish()
            file.flush()
            file.close()
            result = {
                "format": FORMAT,
                "state": state,
                "t_us": t_us,
                "rows": self._rows,
                "events": self._events,
                "seals": self._seals,
                "length": file.length,
                "sha256": file.all.hexdigest(),
                "content_hash": self._content.hexdigest(),
                "job": self._job,
                "public_key": public_raw(self._key.public_key()).hex(),
                "key_id": key_id(self._key.public_key()),
                "data": plain_json(dict(data)),
            }
            write_whole(self.folder / SEAL_FILE, encode_final(result, self._key))
        except OSError as exc:
            error = RecordError(f"{self.folder}: record cannot be closed ({exc.strerror})")
            self._fail(error)
            raise error from None
        except RecordError as exc:
            self._fail(exc)
            raise
        self._result = {**result, "folder": str(self.folder)}
        return self._result

    def _refuse(self) -> None:
        if self._result:
            raise RecordError(f"{self.folder}: the record is closed")
        raise RecordError(f"{self._failed}; the record is sealed until "
                          f"{self.sealed_until_us * 1e-6:g} s")  # fmt: skip


def check_room(folder: Path, expected_s: float, job_bytes: int = 0) -> int:
    """Bytes a build of ``expected_s`` needs in ``folder``; RecordError if they are not there."""
    folder = Path(folder)
    needed = int((RECORD_BYTES_PER_S + OTHER_BYTES_PER_S) * expected_s) + OTHER_BYTES + job_bytes
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise RecordError(f"{folder}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RecordError(f"{folder}: {there} may not be written")
    disk = os.statvfs(there)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise RecordError(
            f"{folder}: {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB needed for a record"
            + (f" of {expected_s:.0f} s" if expected_s > 0.0 else "")
        )
    return needed


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file under a temporary name, sync it, rename it."""
    part = path.with_name(path.name + ".part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def dump(content: Mapping[str, Any]) -> bytes:
    """JSON as it stands in the record: compact, keys sorted, no NaN."""
    return json.dumps(
        content, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False
    ).encode("utf-8", "backslashreplace")  # a lone surrogate becomes a JSON escape


def plain_json(value: Any) -> Any:
    """The value in terms JSON knows: an odd value in an event must never stop a build."""
    if isinstance(value, str):  # also a StrEnum
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):  # also an IntEnum
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(v) for v in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain_json(value.tolist())
    return f"<{type(value).__name__}>"  # not repr: it may hold an address


def _reserve(fd: int, n_bytes: int) -> None:
    """Ask the file system for room without changing the file's length, where it can."""
    if n_bytes <= 0:
        return
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        fallocate = libc.fallocate
    except (OSError, AttributeError):
        return  # the free room was checked; not every system can hold it for us
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if fallocate(fd, _FALLOC_KEEP_SIZE, 0, n_bytes) != 0:
        code = ctypes.get_errno()
        if code in (28, 122):  # ENOSPC, EDQUOT; others: the file system cannot reserve
            raise OSError(code, os.strerror(code))

"""Reads what the recorder and the simulator wrote, whole or torn.

``read_record`` gives a build's telemetry, events and header; ``read_trace`` the
simulator's truth, whose file describes its own row types.
"""

import hashlib
import json
import mmap
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from controller.errors import RecordError
from controller.record import schema as s
from controller.record.seal import JOB_FILE, RECORD_FILE, SEAL_FILE, decode_final
from controller.record.walk import Walk, walk_mcap

TRACE_FILE = "trace.mcap"
_CONTENT = struct.Struct("<qI")


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a build."""

    t_us: int
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Record:
    """One build as recorded."""

    folder: Path
    header: dict[str, Any]  # as handed to the writer (schema.HEADER_KEYS)
    telemetry: np.ndarray  # (n,) t_us i8 and float32 fields, as the record's own schema says
    events: list[Event]
    state: str  # "COMPLETE"...; "INTERRUPTED" when the recorder never closed the file
    complete: bool  # the recorder closed the file
    content_hash: str  # recomputed from the messages
    final: dict[str, Any] | None  # content of record.seal, its signature not checked here
    problems: list[str] = field(default_factory=list)  # what could not be read

    @property
    def job_path(self) -> Path | None:
        """The job in the record folder."""
        path = self.folder / JOB_FILE
        return path if path.is_file() else None

    @property
    def trace_path(self) -> Path | None:
        """The simulator's trace, on a simulated cell."""
        path = self.folder / TRACE_FILE
        return path if path.is_file() else None

    def of_kind(self, *kinds: str) -> list[Event]:
        """Events of these kinds in the order of the record."""
        return [e for e in self.events if e.kind in kinds]


@dataclass(frozen=True)
class Trace:
    """The simulator's truth."""

    header: dict[str, Any]  # seed, cell, steps_per_mm, dtypes
    arrays: dict[str, np.ndarray]  # topic -> rows
    events: list[dict[str, Any]]  # /trace/event
    end: dict[str, Any] | None  # totals; None: the simulator did not end the file
    problems: list[str] = field(default_factory=list)

    def rows(self, name: str) -> np.ndarray:
        """Rows of ``/trace/<name>``. Raises RecordError when the trace has no such topic."""
        topic = f"/trace/{name}"
        if topic not in self.arrays:
            raise RecordError(f"trace has no {topic}; it has {', '.join(sorted(self.arrays))}")
        return self.arrays[topic]


def open_mcap(path: Path) -> memoryview:
    """The file's bytes, mapped. Raises RecordError when it cannot be read."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as exc:
        raise RecordError(f"{path}: cannot be read ({exc.strerror})") from None


def content_hash_of(walk: Walk, rows: int | None = None, events: int | None = None) -> str:
    """The content hash over the first ``rows`` rows and ``events`` events, None: over all."""
    digest = hashlib.sha256()
    ids = {
        **dict.fromkeys(sorted(walk.ids(s.TOPIC_TELEMETRY)), (s.TOPIC_TELEMETRY, 0)),
        **dict.fromkeys(sorted(walk.ids(s.TOPIC_EVENT)), (s.TOPIC_EVENT, 1)),
    }
    left = [rows if rows is not None else 1 << 62, events if events is not None else 1 << 62]
    for channel, t_ns, payload, _ in walk.messages:
        entry = ids.get(channel)
        if entry is None:
            continue
        topic, kind = entry
        if left[kind] == 0:
            continue
        left[kind] -= 1
        digest.update(topic.encode() + b"\0" + _CONTENT.pack(t_ns // 1000, len(payload)))
        digest.update(payload)
    return digest.hexdigest()


def read_record(folder: Path) -> Record:
    """Read a record folder, also one whose recorder was killed.

    Raises RecordError when there is no record or nothing of it can be understood.
    """
    folder = Path(folder)
    path = folder / RECORD_FILE
    if not path.is_file():
        raise RecordError(f"{folder}: no {RECORD_FILE} there, not a record folder")
    walk = walk_mcap(open_mcap(path), str(path))
    problems = [f"{RECORD_FILE}: {p}" for p in walk.problems]
    dtype = s.TELEMETRY_ROW
    for channel in walk.channels.values():
        if channel.topic == s.TOPIC_TELEMETRY:
            dtype = _dtype_of(channel.schema_text, path)
    payloads = [p[4:] for _, p in walk.of_topic(s.TOPIC_TELEMETRY)]
    good = [p for p in payloads if len(p) == dtype.itemsize]
    if len(good) != len(payloads):
        problems.append(f"{RECORD_FILE}: {len(payloads) - len(good)} rows of a wrong length")
    telemetry = np.frombuffer(b"".join(good), dtype)
    events = []
    for _, payload in walk.of_topic(s.TOPIC_EVENT):
        content = _json(payload)
        if isinstance(content, dict) and "t_us" in content and "kind" in content:
            events.append(Event(int(content["t_us"]), content["kind"], content.get("data") or {}))
        else:
            problems.append(f"{RECORD_FILE}: an event cannot be read")
    headers = walk.of_topic(s.TOPIC_HEADER)
    content = _json(headers[0][1]) if headers else None
    header = content.get("header", {}) if isinstance(content, dict) else {}
    if not headers:
        problems.append(f"{RECORD_FILE}: no header")
    end = [e for e in events if e.kind == "record_end"]
    final = None
    if (folder / SEAL_FILE).is_file():
        final = decode_final((folder / SEAL_FILE).read_bytes(), None)[0]
    return Record(
        folder=folder,
        header=header,
        telemetry=telemetry,
        events=events,
        state=str(end[-1].data.get("state", "")) if end else "INTERRUPTED",
        complete=bool(end) and final is not None,
        content_hash=content_hash_of(walk),
        final=final,
        problems=problems,
    )


def read_trace(path: Path) -> Trace:
    """Read a simulator's trace by the row types its header states.

    Raises RecordError when there is no trace, no header, or a row type that numpy refuses.
    """
    path = Path(path)
    walk = walk_mcap(open_mcap(path), str(path))
    headers = walk.of_topic("/trace/header")
    header = _json(headers[0][1]) if headers else None
    if not isinstance(header, dict) or not isinstance(header.get("dtypes"), dict):
        raise RecordError(f"{path}: no /trace/header with dtypes")
    problems = list(walk.problems)
    arrays = {}
    for topic, descr in sorted(header["dtypes"].items()):
        dtype = _dtype_of_descr(descr, topic, path)
        data = b"".join(p for _, p in walk.of_topic(topic))
        whole = len(data) - len(data) % dtype.itemsize
        if whole != len(data):
            problems.append(f"{topic}: {len(data) - whole} bytes over")
        arrays[topic] = np.frombuffer(data[:whole], dtype)
    events = [e for _, p in walk.of_topic("/trace/event") if isinstance(e := _json(p), dict)]
    ends = walk.of_topic("/trace/end")
    end = _json(ends[-1][1]) if ends else None
    return Trace(header, arrays, events, end if isinstance(end, dict) else None, problems)


def _json(payload: memoryview | bytes) -> Any:
    try:
        return json.loads(bytes(payload))
    except (ValueError, UnicodeDecodeError, RecursionError):
        return None


def _dtype_of(text: str, path: Path) -> np.dtype:
    try:
        return s.dtype_of_definition(text)
    except ValueError as exc:
        raise RecordError(f"{path}: {exc}") from None


def _dtype_of_descr(descr: Any, topic: str, path: Path) -> np.dtype:
    """A dtype from its JSON form, where tuples have become lists."""
    try:
        fields: list[Any] = []
        for item in descr if isinstance(descr, list) else _raise(descr):
            name, kind, *shape = item
            fields.append((name, kind, *(_shape(x) for x in shape)))
        dtype = np.dtype(fields)
    except (TypeError, ValueError) as exc:
        raise RecordError(f"{path}: row type of {topic} cannot be read ({exc})") from None
    if dtype.hasobject or dtype.itemsize == 0:
        raise RecordError(f"{path}: row type of {topic} holds no plain data")
    return dtype


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, Iterable) else (int(value),)


def _raise(descr: Any) -> list[Any]:
    raise TypeError(f"{descr!r} is no list of fields")

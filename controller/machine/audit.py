"""The audit trail: one line a command, who, role, when, result; append only, hash-chained.

A line is JSON with ``prev``, the sha256 of the line before it: a line that is changed, taken
out or put in breaks every line behind it. The chain starts with the cell's name. What it
cannot show by itself is lines cut off, or changed, at its very end: the record's events hold the
hash of the line of each command (event ``audit``).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.errors import RecordError

LONGEST_LINE = 4096  # bytes; arguments beyond are cut, and said to be
MAX_TEXT = 500


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _first(cell: str) -> str:
    return _digest(f"audit of {cell}".encode())


class Audit:
    """One cell's audit file. Raises RecordError when it cannot be written or does not hold."""

    def __init__(self, path: Path, cell: str) -> None:
        self.path = path
        self.cell = cell
        self.head = _first(cell)
        self.n = 0
        if path.exists():
            self.n, self.head, _ = verify(path, cell)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as exc:
            raise RecordError(f"{path}: audit trail cannot be opened ({exc.strerror})") from None

    def add(
        self, when: str, t_us: int, who: str, role: str, command: str,
        args: Mapping[str, Any], result: str,
    ) -> str:  # fmt: skip
        """Append a line; its hash. ``when`` is wall time, ``t_us`` machine time."""
        text = json.dumps(args, default=str, sort_keys=True)
        if len(text) > MAX_TEXT:
            text = text[:MAX_TEXT] + " (cut)"
        value = {
            "n": self.n + 1, "when": when, "t_us": t_us, "who": who[:128], "role": role,
            "command": command, "args": text, "result": result[:MAX_TEXT], "prev": self.head,
        }  # fmt: skip
        line = json.dumps(value, separators=(",", ":")).encode()
        try:
            end = os.fstat(self._fd).st_size
            if os.write(self._fd, line + b"\n") <= len(line):
                os.ftruncate(self._fd, end)  # a torn line would break all that follow
                raise RecordError(f"{self.path}: no room for a line")
        except OSError as exc:
            raise RecordError(f"{self.path}: {exc.strerror}") from None
        self.n += 1
        self.head = _digest(line)
        return self.head

    def close(self) -> None:
        """Sync and close."""
        os.fsync(self._fd)
        os.close(self._fd)


def open_audit(path: Path, cell: str) -> Audit:
    """The trail of a cell; one that does not hold is set aside and a new one says so."""
    try:
        return Audit(path, cell)
    except RecordError as exc:
        if not path.exists():
            raise
        n = 1
        while (aside := path.with_name(f"{path.name}.broken-{n}")).exists():
            n += 1
        path.rename(aside)
        audit = Audit(path, cell)
        audit.add("", 0, "server", "server", "audit", {"aside": aside.name}, str(exc))
        return audit


def verify(path: Path, cell: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Lines, hash of the last, and the lines. Raises RecordError naming the line that breaks."""
    head = _first(cell)
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as exc:
        raise RecordError(f"{path}: audit trail cannot be read ({exc.strerror})") from None
    if lines.pop() != b"":
        raise RecordError(f"{path}: line {len(lines) + 1} is torn")
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
            holds = value["prev"] == head and value["n"] == number
        except (ValueError, KeyError, TypeError):
            holds = False
        if not holds:
            raise RecordError(f"{path}: line {number} does not follow from the one before it")
        rows.append(value)
        head = _digest(line)
    return len(rows), head, rows

"""Events and the record: one place through which everything that is kept must pass."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controller.errors import RecordError
from controller.record.schema import Recorder

EventListener = Callable[[int, str, Mapping[str, Any]], None]
# folder, header entries, job file, expected length in s -> recorder
OpenRecord = Callable[[Path, dict[str, Any], Path, float], Recorder]


class Journal:
    """Sends events to the record, where one is open, and to listeners.

    A record that can no longer be written is given up once: ``failed`` is told, the build
    decides what follows.
    """

    def __init__(self, now_us: Callable[[], int], failed: Callable[[str], None]) -> None:
        self._now_us = now_us
        self._failed = failed
        self.record: Recorder | None = None
        self.folder: Path | None = None
        self.result: dict[str, Any] | None = None
        self._rows = 0
        self.listeners: list[EventListener] = []
        self.row_listeners: list[Callable[[int, bytes], None]] = []

    @property
    def wants_rows(self) -> bool:
        """Whether anybody takes telemetry rows now."""
        return self.record is not None or bool(self.row_listeners)

    def open(self, record: Recorder, folder: Path) -> None:
        """A build begins to be recorded."""
        self.record, self.folder, self.result = record, folder, None

    def forget(self) -> None:
        """A build begins that is not recorded."""
        self.record = self.folder = self.result = None

    def emit(self, kind: str, data: Mapping[str, Any]) -> None:
        """Keep an event and tell it."""
        t_us = self._now_us()
        if self.record is not None:
            try:
                self.record.event(t_us, kind, data)
            except RecordError as exc:
                self._give_up(exc)
        for listener in self.listeners:
            listener(t_us, kind, data)

    def row(self, t_us: int, packed: bytes) -> None:
        """Keep a telemetry row and tell it."""
        if self.record is not None:
            try:
                self.record.telemetry(t_us, packed)
                self._rows += 1
                if self._rows % 10 == 0:
                    self.record.tick(t_us)
            except RecordError as exc:
                self._give_up(exc)
        for listener in self.row_listeners:
            listener(t_us, packed)

    def close(self, state: str, data: Mapping[str, Any]) -> None:
        """Seal the record: the build ended in ``state``."""
        record, self.record = self.record, None
        if record is None:
            return
        try:
            self.result = record.close(self._now_us(), state, data)
        except RecordError as exc:
            self.result = {"error": str(exc)}
            self._failed(str(exc))

    def _give_up(self, exc: RecordError) -> None:
        self.record = None
        self.result = {"error": str(exc)}
        self._failed(str(exc))

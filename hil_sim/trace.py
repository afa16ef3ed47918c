"""The simulator's own truth on disk: ``trace.mcap``.

Topics hold packed little-endian rows, many a message; the first message says their layout, so
that a reader needs this file only. A trace grows under another name and gets its own when it
is whole: what is called ``trace.mcap`` has its end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType, IndexType, Writer

FILE_NAME = "trace.mcap"
CHUNK_BYTES = 256 * 1024

SEGMENT_END_ROW = np.dtype([("t_us", "<i8"), ("segment", "<i4"), ("pos", "<i4", (6,))])
GATE_ROW = np.dtype([("t_us", "<i8"), ("on", "u1")])
PLANT_ROW = np.dtype(
    [
        ("t_us", "<i8"),
        ("x_mm", "<f8"),
        ("y_mm", "<f8"),
        ("z_mm", "<f8"),
        ("power_command_w", "<f8"),
        ("emission_w", "<f8"),  # mean over the 10 ms
        ("energy_j", "<f8"),  # since power-up, at the workpiece; so are the four below
        ("emission_s", "<f8"),
        ("fed_g", "<f8"),  # through the nozzle
        ("wasted_g", "<f8"),
        ("deposited_g", "<f8"),
        ("armed", "u1"),
        ("gate", "u1"),
        ("state", "<u2"),
        ("fault", "<u2"),
        ("beat_age_us", "<i4"),
        ("interlock", "u1"),
        ("estop_ok", "u1"),
        ("door_closed", "u1"),
        ("oxygen_ppm", "<f4"),
        ("coolant_deg_c", "<f4"),
        ("pool_temp_deg_c", "<f4"),
    ]
)
ROW_TOPICS = {
    "/trace/plant": PLANT_ROW,
    "/trace/segment_ends": SEGMENT_END_ROW,
    "/trace/gate": GATE_ROW,
}


class Trace:
    """Writes one trace. Times are simulated; nothing in the file depends on the wall clock."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        """Opens ``folder/trace.mcap.part``. Raises OSError when that cannot be written."""
        self.path = folder / FILE_NAME
        folder.mkdir(parents=True, exist_ok=True)
        self._part = folder / (FILE_NAME + ".part")
        self._file = self._part.open("wb")
        self._writer = Writer(
            self._file,
            chunk_size=CHUNK_BYTES,
            compression=CompressionType.NONE,
            index_types=IndexType.CHUNK,
        )
        self._writer.start("", "hil_sim")
        self._channels: dict[str, int] = {}
        self._sequence = 0
        for topic in ("/trace/header", "/trace/event", "/trace/end"):
            self._channels[topic] = self._writer.register_channel(topic, "json", 0)
        for topic in ROW_TOPICS:
            self._channels[topic] = self._writer.register_channel(topic, "octet", 0)
        dtypes = {topic: _descr(dtype) for topic, dtype in ROW_TOPICS.items()}
        self.json("/trace/header", 0, {**header, "dtypes": dtypes})

    def rows(self, topic: str, t_us: int, data: bytes) -> None:
        """Add packed rows of a topic; empty data adds nothing."""
        if data:
            self._add(topic, t_us, data)

    def json(self, topic: str, t_us: int, message: dict[str, Any]) -> None:
        """Add a JSON message; keys keep their order."""
        self._add(topic, t_us, json.dumps(message, separators=(",", ":")).encode())

    def event(self, t_us: int, kind: str, **fields: Any) -> None:
        """Something that happened at an instant."""
        self.json("/trace/event", t_us, {"t_us": t_us, "kind": kind, **fields})

    def close(self, t_us: int, totals: dict[str, Any]) -> None:
        """Write the totals and give the file its name."""
        self.json("/trace/end", t_us, totals)
        self._writer.finish()
        self._file.close()
        self._part.rename(self.path)

    def _add(self, topic: str, t_us: int, data: bytes) -> None:
        self._sequence += 1
        self._writer.add_message(
            self._channels[topic], t_us * 1000, data, t_us * 1000, self._sequence
        )


class NoTrace:
    """Takes the place of a trace nobody asked for."""

    path: Path | None = None

    def rows(self, topic: str, t_us: int, data: bytes) -> None:
        """Nothing is kept."""

    def event(self, t_us: int, kind: str, **fields: Any) -> None:
        """Nothing is kept."""

    def close(self, t_us: int, totals: dict[str, Any]) -> None:
        """Nothing is kept."""


AnyTrace = Trace | NoTrace


def _descr(dtype: np.dtype) -> list[list[Any]]:
    """numpy's description as JSON carries it; ``tuple(row)`` for each row gives it back."""
    return [list(field) for field in dtype.descr]

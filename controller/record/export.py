"""``lmd record export``: a record as tables that other programs read."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from controller.errors import RecordError
from controller.record.reader import Record


def export_csv(record: Record, out: Path) -> list[Path]:
    """Write telemetry.csv and events.csv into ``out``; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    telemetry, names = record.telemetry, record.telemetry.dtype.names or ()
    paths = [out / "telemetry.csv", out / "events.csv"]
    with _Replacing(paths[0]) as file:
        csv.writer(file, lineterminator="\n").writerow(names)
        np.savetxt(
            file,
            np.column_stack([telemetry[n].astype(np.float64) for n in names])
            if len(telemetry)
            else np.empty((0, len(names))),
            fmt=",".join(["%d"] + ["%.9g"] * (len(names) - 1)),
        )
    with _Replacing(paths[1]) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["t_us", "kind", "data"])
        rows.writerows(
            [e.t_us, e.kind, json.dumps(e.data, sort_keys=True, ensure_ascii=False)]
            for e in record.events
        )
    return paths


def export_parquet(record: Record, out: Path) -> list[Path]:
    """Write telemetry.parquet and events.parquet. Raises RecordError without pyarrow."""
    try:
        import pyarrow as pa  # type: ignore[import-not-found,import-untyped,unused-ignore]
        import pyarrow.parquet as pq  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise RecordError("Parquet needs pyarrow: pip install pyarrow; or export as csv") from None
    out.mkdir(parents=True, exist_ok=True)
    names = record.telemetry.dtype.names or ()
    paths = [out / "telemetry.parquet", out / "events.parquet"]
    tables = [
        pa.table({n: np.ascontiguousarray(record.telemetry[n]) for n in names}),
        pa.table(
            {
                "t_us": [e.t_us for e in record.events],
                "kind": [e.kind for e in record.events],
                "data": [json.dumps(e.data, sort_keys=True) for e in record.events],
            }
        ),
    ]
    for path, table in zip(paths, tables, strict=True):
        part = path.with_name(path.name + ".part")
        pq.write_table(table, part, compression="zstd")
        part.replace(path)
    return paths


class _Replacing:
    """A text file that takes its name only once it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")

    def __enter__(self) -> Any:
        self._file = self._part.open("w", encoding="utf-8", newline="")
        return self._file

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)

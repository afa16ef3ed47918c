"""The whole cell: how much faster than real time, and what a record costs.

Builds the example blade on the simulated cell, all devices polled at their own rates, on
real wires (two processes, ptys and TCP) and on null wires. The rival is real time itself:
a machine that cannot simulate faster cannot be tested over night.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from controller.build import Wish, build_part
from controller.record import schema
from controller.record.keys import load_or_make_key
from controller.record.reader import read_record
from controller.record.verify import verify_record
from controller.record.writer import RecordWriter

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
GOALS = {"virtual": (20.0, 40.0), "null": (50.0, 100.0)}
NAMES = {"virtual": "wires (2 processes, ptys, TCP)", "null": "null wires (1 process)"}


def _row(figure: str, value: float, unit: str, goal: float | None, **other: Any) -> dict[str, Any]:
    met = None if goal is None else bool(other.pop("met", value >= goal))
    return {
        "area": "cell",
        "figure": figure,
        "value": value,
        "unit": unit,
        "goal": goal,
        "met": met,
        "rival": other.get("rival", ""),
        "ratio": other.get("ratio"),
        "note": other.get("note", ""),
    }


def _time_ratios(folder: Path) -> tuple[list[dict[str, Any]], Path]:
    part = ROOT / "examples" / "blade.stl"
    rows, hashes = [], set()
    record = folder
    for mode, (goal, reach) in GOALS.items():
        ratios = []
        for _ in range(ROUNDS):
            result = build_part(Wish(part=part, out=folder, time_mode=mode))
            if result["state"] != "COMPLETE":
                raise RuntimeError(f"the blade ended as {result['state']} on {mode} wires")
            ratios.append(float(result["time_ratio"]))
            hashes.add(result["content_hash"])
            record = Path(result["record"])
        share = result["truth"]["emission_s"] / result["executed"]["duration_s"]
        value = statistics.median(ratios)
        rows.append(
            _row(
                f"virtual time on {NAMES[mode]}",
                value,
                "simulated s/s",
                goal,
                rival="real time",
                ratio=value,
                note=f"median of {ROUNDS}, {min(ratios):.1f} to {max(ratios):.1f}; "
                f"reach for {reach:g}; {share:.0%} of EXECUTE is emission",
            )
        )
    rows.append(
        _row(
            "different content hashes over all runs",
            float(len(hashes)),
            "1",
            1.0,
            met=len(hashes) == 1,
            note=f"{2 * ROUNDS} builds of one seed, wires and null wires",
        )
    )
    return rows, record


def _record_costs(folder: Path, built: Path) -> list[dict[str, Any]]:
    n = 20_000
    values = [0.5] * (len(schema.TELEMETRY))
    writer = RecordWriter(folder / "rows", load_or_make_key(), {}, sync_due=lambda: False)
    packed = [schema.PACKER.pack(k * 10_000, *values) for k in range(n)]
    begin = time.process_time()
    for k, row in enumerate(packed):
        writer.telemetry(k * 10_000, row)
        writer.tick(k * 10_000)
    per_row_us = (time.process_time() - begin) / n * 1e6
    writer.close(n * 10_000, "COMPLETE", {})

    size = sum(p.stat().st_size for p in built.iterdir())
    probe = folder / "probe"
    data = os.urandom(1 << 20) * 32
    begin = time.perf_counter()
    fd = os.open(probe, os.O_WRONLY | os.O_CREAT)
    os.write(fd, data)
    os.fdatasync(fd)
    os.close(fd)
    disk_mb_s = 32 / (time.perf_counter() - begin)

    begin = time.perf_counter()
    found = verify_record(built)
    verify_s = time.perf_counter() - begin
    seconds = len(read_record(built).telemetry) / 100.0
    return [
        _row("telemetry row, chunk and seal included", per_row_us, "us CPU", 30.0,
             met=per_row_us <= 30.0, note="100 rows a second: x 100 us of each second"),
        _row("record and trace on disk", size / 1e6 / seconds * 3600, "MB/h", None,
             rival="this disk", ratio=size / 1e6 / seconds / disk_mb_s,
             note=f"disk writes {disk_mb_s:.0f} MB/s with fdatasync"),
        _row("verify a record", seconds / verify_s, "recorded s/s", None,
             note=f"{found.rows} rows, {found.seals} seals, ok: {found.ok}"),
    ]  # fmt: skip


def run() -> list[dict[str, Any]]:
    """All rows of this area."""
    with tempfile.TemporaryDirectory(prefix="lmd-bench-") as name:
        folder = Path(name)
        rows, record = _time_ratios(folder)
        return rows + _record_costs(folder, record)

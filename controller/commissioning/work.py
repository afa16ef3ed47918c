"""One calibration from beginning to end: readings, fit, tolerance, signed file."""

import csv
import getpass
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller import launch
from controller.api.client import Client
from controller.commissioning.desk import Desk
from controller.commissioning.fits import FITS
from controller.commissioning.kinds import Kind, items
from controller.commissioning.routines import ROUTINES
from controller.commissioning.store import DAY_S, Calibration, Store, now_s
from controller.config import Cell
from controller.errors import CommissioningError, ConfigError

MAX_ROWS = 20_000
MAX_BYTES = 4_000_000
Rows = list[tuple[Any, ...]]


def one_item(row: Kind, cell: Cell, given: str | None) -> str:
    """Which hopper or axis is meant. Raises ConfigError when it must be said, or is not there."""
    if not row.fitted(cell):
        raise ConfigError(f"calibration {row.name}: cell {cell.name!r} has nothing to calibrate")
    there = items(row, cell)
    if given is None:
        if len(there) > 1:
            raise ConfigError(f"calibration {row.name}: give --item, one of {', '.join(there)}")
        return there[0]
    if given not in there:
        raise ConfigError(f"--item {given}: must be one of {', '.join(there)}")
    return given


def who(given: str | None) -> str:
    """Whose name stands in the file."""
    return (given or getpass.getuser()).strip()[:64] or "unknown"


def read_readings(path: Path, row: Kind) -> Rows:
    """Rows of a CSV file whose first line names the kind's columns. Raises ConfigError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes")
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except FileNotFoundError:
        raise ConfigError(f"--readings {path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"--readings {path}: cannot be read ({exc})") from None
    lines = [[c.strip() for c in line] for line in lines if any(c.strip() for c in line)]
    if not lines or tuple(lines[0]) != row.columns:
        raise ConfigError(f"{path}: the first line must be {','.join(row.columns)}")
    if len(lines) > MAX_ROWS:
        raise ConfigError(f"{path}: {len(lines)} rows, at most {MAX_ROWS} are read")
    rows: Rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(row.columns):
            raise ConfigError(f"{path}: row {number} has {len(line)} of {len(row.columns)} columns")
        rows.append(tuple(_number_or_word(c) for c in line))
    return rows


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text[:32]


def take_readings(
    row: Kind,
    item: str,
    cell_path: Path,
    cell: Cell,
    *,
    run_dir: Path,
    seed: int = 1,
    hidden: int | None = None,
    tell: Callable[[float, str], None] = lambda share, text: None,
) -> Rows:
    """Drive the cell through its server: the one that runs, or one started for a simulated cell.

    Raises ConfigError when a real cell has no server running, or no bench of instruments.
    """
    text = cell_path.read_text(encoding="utf-8")
    running = (run_dir / "server.json").exists() and (run_dir / "tokens.json").exists()
    if running:
        return _on_server(row, item, cell, text, run_dir, tell)
    if not cell.simulated:
        raise ConfigError(
            f"no server of cell {cell.name!r} runs here; start one: lmd serve --cell {cell.name}, "
            f"or give what your instruments read: --readings FILE"
        )
    own = launch.short_run_dir()
    try:
        server = launch.Server(cell_path, time_mode="null", run_dir=own, seed=seed, hidden=hidden)
        try:
            return _on_server(row, item, cell, text, own, tell)
        finally:
            server.stop()
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _on_server(row: Kind, item: str, cell: Cell, text: str, run_dir: Path, tell: Any) -> Rows:
    with Client(run_dir, role="service", name="lmd calibrate", timeout_s=60.0) as client:
        desk = Desk(client, cell, text, run_dir, tell)
        if row.name != "door":
            desk.ready()
        return ROUTINES[row.name](desk, item)


def conclude(
    row: Kind, item: str, rows: Rows, cell: Cell, store: Store, by: str, notes: str = ""
) -> Calibration:
    """Fit, judge and keep. Raises CommissioningError; then nothing is written."""
    try:
        values, sigma = FITS[row.name](rows)
    except (ValueError, IndexError, TypeError) as exc:
        raise CommissioningError(f"calibration {row.name}: readings do not fit ({exc})") from None
    at_s = now_s()
    found = Calibration(
        kind=row.name,
        cell=cell.name,
        item=item,
        done_s=at_s,
        due_s=at_s + row.valid_days * DAY_S,
        by=by,
        values=values,
        uncertainty=sigma,
        readings=tuple(rows[:2000]),
        notes=notes,
        simulated=cell.simulated,
    )
    path = store.add(found)
    return next(c for c in reversed(store.results()) if c.path == path)


def cell_changes(found: Calibration) -> dict[str, str]:
    """Keys of the cell file that a result would set, as text with units; empty for most kinds."""
    v = found.values
    if found.kind == "delay":
        hopper = int(found.item.removeprefix("hopper")) - 1
        return {
            f"powder.hoppers[{hopper}].transport_delay": f"{v['transport_delay_s']:.3f} s",
            f"powder.hoppers[{hopper}].lag": f"{v['lag_s']:.3f} s",
        }
    if found.kind == "gate":
        return {
            f"laser.{name}": f"{v[f'{name}_s'] * 1e3:.4f} ms"
            for name in ("gate_latency", "gate_jitter", "power_latency", "power_jitter")
        }
    if found.kind == "focus":
        return {"laser.spot_diameter": f"{v['waist_diameter_mm']:.3f} mm at the waist"}
    if found.kind == "tool_centre":
        tool = ", ".join(f'"{v[f"tool_{a}_mm"]:.3f} mm"' for a in "xyz")
        return {"motion.tool_offset": f"[{tool}]"}
    if found.kind == "feeder":
        return {"the map's calibration.g_min_per_rpm": f"{v['g_min_per_rpm']:.4f}"}
    return {}

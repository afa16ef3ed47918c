"""``make bench``: runs every ``benchmarks/bench_*.py`` and prints one table.

Each module has ``run() -> list[dict]`` with the keys area, figure, value, unit, goal, met,
rival, ratio, note; the list is also written to ``benchmarks/latest.json``. A rival that is
not installed gives ``met: null``.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
KEYS = ("area", "figure", "value", "unit", "goal", "met", "rival", "ratio", "note")


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    table = Table(title="Benchmarks")
    for key in KEYS:
        table.add_column(key, justify="right" if key in ("value", "ratio") else "left")
    for row in rows:
        cells = []
        for key in KEYS:
            value = row.get(key)
            if isinstance(value, float):
                cells.append(f"{value:.4g}")
            elif key == "met":
                cells.append({True: "yes", False: "NO", None: "-"}[value])
            else:
                cells.append("" if value is None else str(value))
        table.add_row(*cells)
    Console(width=200 if not sys.stdout.isatty() else None).print(table)


def _planner_first(path: Path) -> tuple[bool, str]:
    return not path.stem.startswith("bench_planner"), path.stem


def main() -> int:
    """Run the benchmarks named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("area", nargs="*", help="names of bench_<area>.py; default all")
    wanted = parser.parse_args().area
    rows: list[dict[str, Any]] = []
    for path in sorted(HERE.glob("bench_*.py"), key=_planner_first):
        area = path.stem.removeprefix("bench_")
        if wanted and area not in wanted:
            continue
        begin = time.perf_counter()
        made = importlib.import_module(f"benchmarks.{path.stem}").run()
        print(f"bench: {area}, {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        for row in made:
            missing = [k for k in KEYS if k not in row]
            if missing:
                raise ValueError(f"{path.name}: a row lacks {missing}")
            rows.append(row)
    show(rows)
    if not wanted:
        (HERE / "latest.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

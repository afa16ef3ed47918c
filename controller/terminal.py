"""How the command line speaks: tables and progress for people, one JSON object for programs."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

Tell = Callable[[float, str], None]


def plain(value: Any) -> Any:
    """JSON-ready: NaN and infinity become null, numpy numbers and paths plain values."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    print(json.dumps(plain(value), indent=1, ensure_ascii=False))


@contextlib.contextmanager
def progress(enabled: bool) -> Iterator[Tell]:
    """A progress bar on standard error, if that is a terminal and wanted."""
    if not enabled or not sys.stderr.isatty():
        yield lambda share, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def tell(share: float, text: str) -> None:
            bar.update(task, description=text, completed=share)

        yield tell


def number(value: Any, digits: int = 4) -> str:
    """A figure for people; a dash for what is not known."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.{digits}g}" if abs(value) < 1e4 else f"{value:.0f}"
    return str(value)


def print_table(title: str, head: list[str], rows: list[list[Any]]) -> None:
    """A table on standard output; the first column to the left, numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for k, name in enumerate(head):
        table.add_column(name, justify="left" if k == 0 else "right")
    for row in rows:
        table.add_row(*[number(cell) for cell in row])
    width = None if sys.stdout.isatty() else 100
    Console(width=width, highlight=False).print(table)


FIGURES = (
    ("duration_s", "duration, s"),
    ("emission_s", "emission, s"),
    ("energy_j", "energy, J"),
    ("powder_g", "powder, g"),
    ("deposited_g", "deposited, g"),
    ("layers", "layers"),
)


def print_build(result: dict[str, Any]) -> None:
    """How a build went: figures side by side, then where things are."""
    truth = result["truth"] or {}
    rows = [
        [name, result["planned"].get(key), result["executed"].get(key), truth.get(key)]
        for key, name in FIGURES
    ]
    print_table(f"{result['state']}", ["", "planned", "executed", "simulated truth"], rows)
    for label, value in (
        ("record", result["record"]),
        ("report", result["report"]["pdf"]),
        ("", result["report"]["html"]),
        ("position error", f"{number(result['position_error_steps'])} steps"),
        ("time ratio", f"{number(result['time_ratio'], 3)} simulated s per s"),
        ("content hash", result["content_hash"]),
        ("sealed", result["sealed"]),
    ):
        print(f"{label:<15} {number(value)}")
    for alarm in result["alarms"]:
        print(f"alarm           {alarm.get('name')}: {alarm.get('detail') or alarm.get('text')}")

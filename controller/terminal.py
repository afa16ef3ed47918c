"""How the command line speaks: tables and progress for people, one JSON object for programs."""

import contextlib
import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

Tell = Callable[[float, str], None]
WIDTH = 100  # columns where standard output is no terminal
NARROWEST = 24  # columns that a text in a table's last column is wrapped to at the least


def plain(value: Any) -> Any:
    """JSON-ready: NaN and infinity become null, numpy numbers and paths plain values."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


class Said:
    """Whether this command's JSON object is out: there is one, whatever happens after it."""

    json = False


def print_json(value: dict[str, Any], *, one_line: bool = False) -> None:
    """The command's one JSON object on standard output."""
    indent = None if one_line else 1
    print(json.dumps(plain(value), indent=indent, ensure_ascii=False), flush=True)
    Said.json = True


@contextlib.contextmanager
def progress(enabled: bool) -> Iterator[Tell]:
    """A progress bar on standard error, if that is a terminal and wanted."""
    if not enabled or not sys.stderr.isatty():
        yield lambda share, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<30}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def tell(share: float, text: str) -> None:
            bar.update(task, description=text, completed=share)

        yield tell


def number(value: Any, decimals: int | None = None) -> str:
    """A figure for people; a dash for what is not known."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if decimals is None and 1e4 <= abs(value) < 1e9:
            decimals = 0
        return f"{value:.{decimals}f}" if decimals is not None else f"{value:.4g}"
    return str(value)


def percent(value: float | None) -> str:
    """A deviation with its sign: +0.02 %."""
    return "-" if value is None else f"{round(value, 2) + 0.0:+.2f} %"  # + 0.0: never -0.00


PAINT = {"good": "32", "odd": "33", "bad": "31", "faint": "2"}
_ESCAPE = re.compile("\x1b\\[[0-9;]*m")


def paint(text: str, how: str) -> str:
    """Text in colour (good, odd, bad, faint) on a terminal; plain elsewhere, and by NO_COLOR."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{PAINT[how]}m{text}\x1b[0m"


def print_table(title: str, head: list[str], rows: list[list[str]], *, text_last: bool) -> None:
    """A table on standard output: first column to the left, the others to the right.

    With ``text_last`` the last column is text: to the left, wrapped into the width.
    """
    columns = len(head)
    widths = [max(len(_ESCAPE.sub("", row[k])) for row in [head, *rows]) for k in range(columns)]
    if text_last:
        wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
        left_over = wide - sum(widths[:-1]) - 2 * (columns - 1)
        widths[-1] = min(widths[-1], max(NARROWEST, left_over))
    left = [k == 0 or (text_last and k == columns - 1) for k in range(columns)]

    def line(cells: list[str]) -> str:
        placed = [_placed(c, w, to_left)
                  for c, w, to_left in zip(cells, widths, left, strict=True)]  # fmt: skip
        return "  ".join(placed).rstrip()

    print(title)
    print(line(head))
    print("  ".join("-" * width for width in widths))
    for row in rows:
        last = _wrapped(row[-1], widths[-1]) if text_last else [row[-1]]
        print(line([*row[:-1], last[0]]))
        for more in last[1:]:
            print(line([""] * (columns - 1) + [more]))


def _placed(cell: str, width: int, to_left: bool) -> str:
    """A cell filled up to a width that counts no colour."""
    fill = " " * max(0, width - len(_ESCAPE.sub("", cell)))
    return cell + fill if to_left else fill + cell


def _wrapped(cell: str, width: int) -> list[str]:
    """A cell on several lines, each in the colour of the whole."""
    plain_text = _ESCAPE.sub("", cell)
    lines = textwrap.wrap(plain_text, width) or [""]
    if plain_text == cell:
        return lines
    before, after = _ESCAPE.findall(cell)[0], _ESCAPE.findall(cell)[-1]
    return [before + line + after for line in lines]


# key, name, unit, decimals
FIGURES = (
    ("duration_s", "duration", "s", 1),
    ("emission_s", "emission", "s", 1),
    ("energy_j", "energy", "kJ", 3),
    ("powder_g", "powder fed", "g", 2),
    ("deposited_g", "deposited", "g", 2),
    ("layers", "layers", "", 0),
)


def print_figures(title: str, found: dict[str, Any]) -> None:
    """Planned, executed and true figures side by side, with deviations from the plan."""
    deviations = found["deviations_pct"]
    truth = found["truth"]

    def cell(figures: dict[str, Any], key: str, unit: str, decimals: int) -> str:
        value = figures.get(key)
        return number(value / 1e3 if unit == "kJ" and value is not None else value, decimals)

    head = ["", "planned", "executed", "deviation"]
    if truth is not None:
        head += ["simulated truth", "deviation"]
    rows = []
    for key, name, unit, decimals in FIGURES:
        row = [f"{name}, {unit}" if unit else name]
        row += [cell(found[who], key, unit, decimals) for who in ("planned", "executed")]
        row.append(percent((deviations["executed"] or {}).get(key)))
        if truth is not None:
            row.append(cell(truth, key, unit, decimals))
            row.append(percent((deviations["truth"] or {}).get(key)))
        rows.append(row)
    print_table(title, head, rows, text_last=False)


def print_pairs(pairs: list[tuple[str, str]]) -> None:
    """Name and text, one a line; lines without a name belong to the one above."""
    width = max(len(name) for name, _ in pairs)
    for name, text in pairs:
        print(f"{name:<{width}}  {text}".rstrip())


def position(found: dict[str, Any]) -> str:
    """The position error, and over how many segments or places it was seen."""
    error, compared, expected = (found[key] for key in POSITION)
    path = found.get("path_check")
    if path is not None and path["off_path_mm"] is not None:
        return (
            f"{path['off_path_mm']:.4f} mm off the path at the most, over {path['places']} places "
            f"({path['source']}); the machine plans by itself, so nothing is compared to the step"
        )
    if error is None:
        return "- (nothing was executed, or there is no simulator's trace)"
    step = "step" if error == 1 else "steps"
    return f"{error} {step} at the most, over {compared} of {expected} segment ends"


def print_build(result: dict[str, Any]) -> None:
    """How a build went: figures side by side, then where things are."""
    title = f"{result['part']} on cell {result['cell']}: {result['state']}"
    print_figures(title, result)
    print()
    ratio = result["time_ratio"]
    pairs = [
        ("position error", position(result)),
        ("speed", "-" if ratio is None else f"{ratio:.1f} x real time while depositing"),
        ("alarms", "none" if not result["alarms"] else alarm_line(result["alarms"][0])),
        *[("", alarm_line(alarm)) for alarm in result["alarms"][1:]],
        *[("warnings" if n == 0 else "", text) for n, text in enumerate(result["warnings"])],
        ("record", f"{result['record']} ({'sealed' if result['sealed'] else 'DAMAGED'})"),
        *[("", problem) for problem in result["problems"]],
        ("content hash", result["content_hash"] or "-"),
        ("report", result["report"]["pdf"]),
        ("", result["report"]["html"]),
    ]
    print_pairs(pairs)


# key, name, unit, decimals
PLAN_FIGURES = (
    ("layers", "layers", "", 0),
    ("tracks", "tracks", "", 0),
    ("moves", "moves", "", 0),
    ("length_mm.emission", "length, deposited", "mm", 1),
    ("length_mm.travel", "length, travelled", "mm", 1),
    ("duration_s", "duration", "s", 1),
    ("emission_s", "emission", "s", 1),
    ("longest_emission_s", "longest unbroken emission", "s", 2),
    ("energy_j", "energy", "kJ", 3),
    ("powder_g", "powder fed", "g", 2),
    ("deposited_g", "deposited", "g", 2),
    ("volume_mm3", "volume of the part", "mm3", 1),
    ("target_volume_mm3", "volume with allowance", "mm3", 1),
    ("deposit_volume_mm3", "volume deposited", "mm3", 1),
    ("max_power_error_w", "power error at the beam, at most", "W", 3),
    ("beam_position_error_mm", "position error of the beam", "mm", 4),
    ("cost.total_usd", "cost", "USD", 2),
)


def print_plan(
    part: dict[str, Any], figures: dict[str, Any], warnings: tuple[str, ...], job: Any
) -> None:
    """What a plan holds."""
    rows = []
    for key, name, unit, decimals in PLAN_FIGURES:
        value: Any = figures
        for word in key.split("."):
            value = value.get(word) if isinstance(value, dict) else None
        value = value / 1e3 if unit == "kJ" and value is not None else value
        rows.append([name, number(value, decimals), unit])
    size = " x ".join(number(float(v), 2) for v in part["extents_mm"])
    print_table(f"{part['name']}, {size} mm", ["", "planned", "unit"], rows, text_last=True)
    print()
    if isinstance(figures.get("quality"), dict):
        print_quality(figures["quality"])
        print()
    notes = [*part.get("notes", ()), *warnings]
    pairs = [("notes" if n == 0 else "", text) for n, text in enumerate(notes)]
    print_pairs([*pairs, ("hash", str(figures["hash"])), ("job", str(job))])


# name of a margin's unit by the end of its key; the first that fits
_MARGIN_UNITS = (
    ("_mm_s3", "mm/s3"), ("_mm_s2", "mm/s2"), ("_mm_s", "mm/s"), ("_deg_s2", "deg/s2"),
    ("_deg_s", "deg/s"), ("_w_s", "W/s"), ("_w", "W"), ("_g_min", "g/min"), ("_s", "s"),
)  # fmt: skip


def print_quality(quality: dict[str, Any]) -> None:
    """How true a plan is, and how near to its limits."""
    error, slow, beam = quality["power_error"], quality["reduced_speed"], quality["beam"]
    rows = [
        ["power error, worst", number(error["worst_w"], 3), "W"],
        ["", number(error["worst_pct"], 4), "% of full power"],
        ["power error, rms", number(error["rms_w"], 3), "W"],
    ]
    for kind, e in quality["energy"].items():
        if isinstance(e, dict):
            span = f"{e['least_j_mm']:.1f} / {e['mean_j_mm']:.1f} / {e['greatest_j_mm']:.1f}"
            rows.append([f"energy, {kind.replace('_', ' ')}", span, "J/mm least/mean/greatest"])
    for below in (95, 50):
        share = number(slow[f"below_{below}_pct"], 2)
        seconds = number(slow[f"below_{below}_s"], 2)
        rows.append([f"below {below} % of speed", seconds, f"s, {share} % of emission"])
    for key, name in (
        ("gate_on_mm", "left by jitter at gate on"),
        ("gate_off_mm", "left by jitter at gate off"),
        ("power_latency_mm", "left by the power's jitter"),
        ("sum_mm", "all that is left, with a half step"),
    ):
        rows.append([name, number(beam[key], 4), "mm"])
    for key, name in (
        ("power_latency_pct", "left by the power's jitter"),
        ("resolution_pct", "left by the source's resolution"),
        ("sum_pct", "all that is left, with the plan's error"),
    ):
        rows.append([name, number(beam[key], 3), "% of full power"])
    print_table("plan quality", ["", "planned", "unit"], rows, text_last=True)
    print()
    rows = []
    for key, m in quality["margins"].items():
        if m["limit"] is None or m["value"] is None:
            continue
        suffix, unit = next(((s, u) for s, u in _MARGIN_UNITS if key.endswith(s)), ("", ""))
        name = key.removesuffix(suffix).replace("_", " ")
        margin = number(round(m["margin_pct"], 1) + 0.0, 1)  # + 0.0: never -0.0
        rows.append([name, number(float(m["value"])), number(float(m["limit"])), margin, unit])
    print_table("limits", ["", "greatest", "limit", "margin, %", "unit"], rows, text_last=True)


POSITION = ("position_error_steps", "segments_executed", "segments_planned")


def alarm_line(alarm: dict[str, Any]) -> str:
    """One alarm: when, what, why."""
    text = alarm.get("text") or alarm.get("detail") or ""
    return f"{number(alarm.get('t_s'), 2)} s {alarm.get('severity')} {alarm.get('name')}: {text}"


_UNITS = (
    ("_deg_c", "°C"), ("_l_min", "L/min"), ("_g_min", "g/min"), ("_mpa", "MPa"), ("_rpm", "rpm"),
    ("_ppm", "ppm"), ("_w", "W"), ("_g", "g"), ("_s", "s"),
)  # fmt: skip


def reading_line(reading: dict[str, Any] | None) -> str:
    """A device's values with their units; the names carry them."""
    told = []
    for key, value in (reading or {}).items():
        if key == "at_us":
            continue
        suffix, unit = next(((s, u) for s, u in _UNITS if key.endswith(s)), ("", ""))
        name = key.removesuffix(suffix).replace("_", " ")
        many = list(value) if isinstance(value, list | tuple) else [value]
        shown = " / ".join(number(one) for one in many) or "none"
        told.append(f"{name} {shown}" if shown == "-" or not unit else f"{name} {shown} {unit}")
    return ", ".join(told) or "-"

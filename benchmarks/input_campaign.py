"""A million mutated cells, materials, recipes, maps and scenarios: refused in a sentence or right.

python -m benchmarks.input_campaign [--files 1000000]

Every file of ``configs/`` is changed at one to four places: numbers (sign, size, not finite),
units, types, keys, lines, bytes, depth. What reads it must answer with its own error or with
values that ``CELL_LIMITS`` permits; that table is written from ``docs/reference/files.md``,
not from the models. Any other exception, and any file that takes longer than a second, is a
fault. Files are read as text: the way from disk is the same for all of them.
"""

import argparse
import math
import random
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from controller.config import Cell, Material, configs_dir, load_cell, parse_model
from controller.errors import LmdError
from controller.recipes import check_recipe, parse_recipe
from firmware_bridge.errors import BridgeError
from firmware_bridge.register_map import parse_map
from hil_sim import cellfile, faults

FILES = 1_000_000
LONGEST_S = 1.0
ODD_NUMBERS = (
    "0", "-1", "1e308", "-1e308", "1e999", "nan", "inf", "-inf", "1e-320", "0.0000001", "99999999",
    "9**9**9", "0x10", "1_000", "01", "", "+", "1.", "true", "NaN", "\u0663",
)  # fmt: skip
UNITS = (
    "W",
    "kW",
    "mm",
    "m",
    "mm/s",
    "s",
    "ms",
    "degC",
    "K",
    "g/min",
    "L/min",
    "ppm",
    "Hz",
    "x",
    "",
)
VALUES = (
    "true", "[]", "{}", '""', "[[[[[[[[]]]]]]]]", "1979-05-27", '"\\u0000"', "-0", "1e5", "{a={}}",
    '"' + "A" * 5000 + '"', "[" * 200 + "]" * 200, '["1 mm"]', "inf", "nan", "'../../etc/passwd'",
)  # fmt: skip
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?")
UNIT = re.compile(r'(?<=\d )[A-Za-z/0-9]+(?=")')


def _number(dice: random.Random, text: str) -> str:
    found = list(NUMBER.finditer(text))
    if not found:
        return text
    at = dice.choice(found)
    if dice.random() < 0.5:
        new = dice.choice(ODD_NUMBERS)
    else:
        new = f"{float(at[0]) * dice.choice((-1, 10, 0.1, 1000, 1e-3, 1e6, 1.5)):g}"
    return text[: at.start()] + new + text[at.end() :]


def _unit(dice: random.Random, text: str) -> str:
    found = list(UNIT.finditer(text))
    if not found:
        return text
    at = dice.choice(found)
    return text[: at.start()] + dice.choice(UNITS) + text[at.end() :]


def _value(dice: random.Random, text: str) -> str:
    lines = text.split("\n")
    held = [n for n, line in enumerate(lines) if "=" in line]
    if held:
        n = dice.choice(held)
        lines[n] = lines[n].split("=", 1)[0] + "= " + dice.choice(VALUES)
    return "\n".join(lines)


def _key(dice: random.Random, text: str) -> str:
    lines = text.split("\n")
    n = dice.randrange(len(lines))
    lines[n] = dice.choice(("x", "x.y", '"\u00e9"', "__class__", "")) + lines[n]
    return "\n".join(lines)


def _line(dice: random.Random, text: str) -> str:
    lines = text.split("\n")
    n, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    what = dice.randrange(3)
    if what == 0:
        del lines[n]
    elif what == 1:
        lines.insert(other, lines[n])
    else:
        lines[n], lines[other] = lines[other], lines[n]
    return "\n".join(lines)


def _byte(dice: random.Random, text: str) -> str:
    at = dice.randrange(len(text))
    new = dice.choice(("\x00", '"', "[", "]", "=", "\n", "\u202e", "\ufeff", "{", "#", "\\", "9"))
    return text[:at] + new + text[at + dice.randrange(3) :]


MUTATIONS = (_number, _number, _number, _unit, _value, _key, _line, _byte)


def mutated(dice: random.Random, text: str) -> str:
    """The text changed at one to four places."""
    for _ in range(dice.choice((1, 1, 1, 2, 3, 4))):
        text = dice.choice(MUTATIONS)(dice, text) or "\n"
    return text


# --- what must never be accepted ---------------------------------------------------------

# path of attributes in what was read -> least and most that docs/reference/files.md permits;
# a bound is permitted itself only where the page says so (inclusive: True)
OPEN, CLOSED = False, True
CELL_LIMITS: tuple[tuple[str, float, bool, float], ...] = (
    ("motion.plan_share", 0.0, OPEN, 1.0),
    ("motion.heartbeat_timeout_s", 0.0, OPEN, 0.1),
    ("motion.total_accel_mm_s2", 0.0, OPEN, math.inf),
    ("motion.travel_lift_mm", 0.0, CLOSED, math.inf),
    ("laser.rated_power_w", 0.0, OPEN, math.inf),
    ("laser.threshold_power_w", 0.0, CLOSED, math.inf),
    ("laser.resolution_bits", 4.0, CLOSED, 16.0),
    ("laser.longest_emission_s", 0.0, OPEN, math.inf),
    ("powder.transport_delay_s", 0.0, CLOSED, math.inf),
    ("powder.greatest_flow_g_min", 0.0, OPEN, math.inf),
    ("laser.poll_hz", 0.0, OPEN, 1000.0),
    ("chiller.max_age_s", 0.0, OPEN, math.inf),
)


def _at(value: Any, path: str) -> float:
    for name in path.split("."):
        value = getattr(value, name)
    return float(value)


def _numbers_of(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _numbers_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers_of(item)
    elif isinstance(value, int | float):
        yield float(value)


def cell_fault(cell: Cell) -> str:
    """What an accepted cell has that it must not; empty for none."""
    for path, least, closed, most in CELL_LIMITS:
        value = _at(cell, path)
        if not (least <= value if closed else least < value) or value > most:
            return f"{path} {value:g} accepted"
    if not all(math.isfinite(v) for v in _numbers_of(cell.model_dump())):
        return "a number that is not finite accepted"
    if any(a.range_mm[0] >= a.range_mm[1] or a.speed_mm_s <= 0.0 for a in cell.motion.axes):
        return "an axis without range or speed accepted"
    if cell.laser.threshold_power_w >= cell.laser.rated_power_w:
        return "laser.threshold_power not below laser.rated_power accepted"
    return ""


def recipe_fault(recipe: Any, cell: Cell) -> str:
    """What a recipe has that this cell cannot do and yet was not refused; empty for none."""
    for name, s in recipe.all_settings().items():
        if not 0.0 < s.power_w <= cell.laser.rated_power_w:
            return f"{name}: power {s.power_w:g} W accepted"
        if not 0.0 < s.speed_mm_s <= min(a.speed_mm_s for a in cell.motion.axes[:2]):
            return f"{name}: speed {s.speed_mm_s:g} mm/s accepted"
        if not 0.0 <= s.powder_g_min <= cell.powder.greatest_flow_g_min:
            return f"{name}: powder {s.powder_g_min:g} g/min accepted"
        if not cell.laser.threshold_power_w <= s.power_floor_w <= s.power_w:
            return f"{name}: power_floor {s.power_floor_w:g} W accepted"
    if not all(math.isfinite(v) for v in _numbers_of(recipe.model_dump())):
        return "a number that is not finite accepted"
    least, most = recipe.window.override
    if not 0.0 < least <= 1.0 <= most:
        return f"an override from {least:g} to {most:g} accepted"
    return ""


def readers() -> dict[str, Callable[[str], str]]:
    """Folder of ``configs/`` -> reads a text; returns what was wrongly accepted, or raises."""
    sim, _ = load_cell("sim")

    def cell(text: str) -> str:
        return cell_fault(parse_model(Cell, text, "cell.toml"))

    def simulated(text: str) -> str:
        cellfile.from_tables(tomllib.loads(text), "cell.toml")
        return ""

    def recipe(text: str) -> str:
        read = parse_recipe(text, "recipe.toml")
        check_recipe(read, sim, "recipe.toml", strict=False)
        return recipe_fault(read, sim)

    def material(text: str) -> str:
        read = parse_model(Material, text, "material.toml")
        finite = all(math.isfinite(v) for v in _numbers_of(read.model_dump()))
        return "" if finite else "a number that is not finite accepted"

    def register_map(text: str) -> str:
        parse_map(text, "map.toml", None)
        return ""

    def scenario(text: str) -> str:
        for fault in faults.from_tables(tomllib.loads(text), "scenario.toml").faults:
            if fault.at_us < 0 or (fault.length_us is not None and fault.length_us <= 0):
                return "a fault before the start or without length accepted"
        return ""

    return {
        "cells": cell,
        "cells of the simulator": simulated,
        "materials": material,
        "recipes": recipe,
        "maps": register_map,
        "scenarios": scenario,
    }


OWN_ERRORS = (LmdError, BridgeError, cellfile.CellFileError, tomllib.TOMLDecodeError)


def attack(n: int, seed: int = 1) -> tuple[int, int, float, list[str]]:
    """``n`` mutated files: how many accepted, refused, the longest time (s), the faults."""
    dice = random.Random(seed)
    kinds = [
        (name, read, [p.read_text(encoding="utf-8") for p in _files(name)])
        for name, read in readers().items()
    ]
    accepted = refused = 0
    longest_s, found = 0.0, []
    for _ in range(n):
        name, read, texts = dice.choice(kinds)
        text = mutated(dice, dice.choice(texts))
        start_s = perf_counter()
        try:
            wrong = read(text)
        except OWN_ERRORS:
            refused += 1
            wrong = ""
        except Exception as exc:
            wrong = f"{type(exc).__name__}: {exc}"[:200]
        else:
            accepted += 1
        took_s = perf_counter() - start_s
        longest_s = max(longest_s, took_s)
        if wrong:
            found.append(f"{name}: {wrong}")
    return accepted, refused, longest_s, found


def _files(name: str) -> list[Path]:
    return sorted((configs_dir() / name.split()[0]).glob("*.toml"))


def campaign(share: float) -> list[dict[str, Any]]:
    """Rows in the form of the benchmarks."""
    n = max(1, round(share * FILES))
    accepted, refused, longest_s, found = attack(n)
    said = f"{accepted} accepted, {refused} refused; longest {longest_s * 1e3:.0f} ms"
    row = {"area": "soak", "unit": "1", "goal": 0, "rival": "", "ratio": None}
    return [
        {
            **row,
            "figure": f"crashes and wrong acceptances of {n} mutated files",
            "value": len(found),
            "met": not found,
            "note": "; ".join([said, *sorted(set(found))[:3]]),
        },
        {
            **row,
            "figure": "longest time to read a mutated file",
            "value": longest_s,
            "unit": "s",
            "goal": LONGEST_S,
            "met": longest_s <= LONGEST_S,
            "note": "",
        },
    ]


def main() -> int:
    """Run it and print its rows."""
    from benchmarks.__main__ import show

    parser = argparse.ArgumentParser(prog="input_campaign")
    parser.add_argument("--files", type=int, default=FILES)
    rows = campaign(parser.parse_args().files / FILES)
    show(rows)
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""``lmd check``: is this cell, material, recipe, scenario or job file in order?"""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from controller.config import Cell, Material, load_cell, load_model, read_toml
from controller.errors import ConfigError, LmdError, RecipeError
from controller.export import DIALECTS
from controller.launch import check_devices
from controller.machine.cell import make_link
from controller.machine.preflight import link_limits
from controller.planning.job import job_hash, read_job
from controller.recipes import Recipe, check_recipe, load_recipe
from controller.words import refuse_gcode
from firmware_bridge.camera_setup import load_camera
from firmware_bridge.errors import BridgeError
from firmware_bridge.register_map import load_map
from firmware_bridge.transport import NullPort

# a key that only files of this kind have at top level
_MARKS = (
    ("motion", "cell"),
    ("track", "recipe"),
    ("density", "material"),
    ("fault", "scenario"),
    ("blocks", "map"),
    ("radiance", "camera"),
)


def check_file(path: Path, cell_name: str = "sim") -> dict[str, Any]:
    """What a file is, and what it says in short. Raises LmdError saying what is wrong."""
    refuse_gcode(path)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, give files")
    if not path.exists():
        raise ConfigError(f"{path}: no such file")
    if path.suffix == ".lmdjob":
        plan = read_job(path)
        return {"kind": "job", "hash": job_hash(plan), "warnings": list(plan.warnings)}
    if path.suffix != ".toml":
        raise ConfigError(f"{path}: neither a .toml file nor a .lmdjob")
    kind = _kind_of(path)
    if kind == "cell":
        cell, _ = load_model(Cell, path)
        return {"kind": kind, "name": cell.name, "warnings": _check_cell(cell, path)}
    if kind == "material":
        material, _ = load_model(Material, path)
        return {"kind": kind, "name": material.name, "warnings": []}
    if kind == "recipe":
        recipe, _ = load_model(Recipe, path, RecipeError)
        cell, _ = load_cell(cell_name)
        warnings = check_recipe(recipe, cell, path, strict=False)
        return {"kind": kind, "name": recipe.name, "warnings": warnings}
    if kind == "map":
        role = str(read_toml(path)[0].get("role", ""))
        try:
            return {"kind": kind, "name": load_map(path, role).title, "warnings": []}
        except BridgeError as exc:
            raise ConfigError(str(exc)) from None
    if kind == "camera":
        try:
            load_camera(path)
        except BridgeError as exc:
            raise ConfigError(str(exc)) from None
        return {"kind": kind, "name": path.stem, "warnings": []}
    if kind == "scenario":
        return {"kind": kind, "name": check_scenario(path), "warnings": []}
    raise ConfigError(
        f"{path}: has none of the tables that tell a cell (motion), a recipe (track), "
        "a material (density), a scenario (fault), a register map (blocks) or a camera (radiance)"
    )


def _kind_of(path: Path) -> str:
    data, _ = read_toml(path)
    for mark, kind in _MARKS:
        if mark in data:
            return kind
    if set(data) <= {"name", "title"} and "name" in data:
        return "scenario"  # one in which nothing breaks
    return ""


def _check_cell(cell: Cell, path: Path) -> list[str]:
    """What a cell names must be there: drivers, register maps, its default recipe."""
    check_devices(cell, path)
    try:
        recipe, _ = load_recipe(cell.default_recipe)
        found = check_recipe(recipe, cell, f"recipe {cell.default_recipe}", strict=False)
        return found + link_warnings(cell, path)
    except LmdError as exc:
        raise ConfigError(f"{path}: default_recipe: {exc}") from None


def link_warnings(cell: Cell, path: Path) -> list[str]:
    """What the cell's motion link cannot give. Raises ConfigError for a map or dialect."""
    motion = cell.motion
    if motion.dialect is not None and motion.dialect not in DIALECTS:
        raise ConfigError(
            f"{path}: motion.dialect: {motion.dialect!r} is not known; there are: "
            f"{', '.join(DIALECTS)}"
        )
    try:
        link = make_link(cell, NullPort("motion", 0))
    except BridgeError as exc:
        raise ConfigError(f"{path}: motion: {exc}") from None
    warnings = [str(b) for b in link_limits(cell, link)]
    if not link.abilities.dead_man and not motion.gate_watchdog:
        warnings.append(
            f"GATE_WATCHDOG: no emission over link {motion.link!r} without motion.gate_watchdog"
        )
    return warnings


def check_scenario(path: Path) -> str:
    """A scenario's name, as the simulator reads it: the host shares no code with it."""
    done = subprocess.run(
        [sys.executable, "-m", "hil_sim", "--check-scenario", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        raise ConfigError(words[-1].removeprefix("error: ") if words else f"{path}: refused")
    return str(tomllib.loads(path.read_text(encoding="utf-8"))["name"])


def check_files(paths: list[Path], cell_name: str) -> tuple[list[dict[str, Any]], list[LmdError]]:
    """Every file's finding, and the mistakes of those that are not in order."""
    found: list[dict[str, Any]] = []
    mistakes: list[LmdError] = []
    for path in paths:
        try:
            found.append({"file": str(path), "ok": True, **check_file(path, cell_name)})
        except LmdError as exc:
            found.append({"file": str(path), "ok": False, "error": str(exc)})
            mistakes.append(exc)
    return found, mistakes

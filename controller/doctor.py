"""``lmd doctor``: what is installed, what is missing, and the command that mends it."""

import ctypes.util
import importlib
import importlib.util
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from controller.config import configs_dir, load_cell, load_material
from controller.errors import LmdError
from controller.recipes import check_recipe, load_recipe
from controller.record.keys import key_path

NEEDED_FREE_MB = 500


@dataclass(frozen=True)
class Check:
    """One finding: ``ok`` False means that something does not work without the fix."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    required: bool = True


def _module(name: str, what: str, fix: str, *, required: bool = True) -> Check:
    try:
        importlib.import_module(name)
    except ImportError as exc:
        return Check(what, False, str(exc), fix, required)
    return Check(what, True, "loads", "", required)


def _distribution(name: str, fix: str, *, required: bool = True) -> Check:
    try:
        return Check(name, True, version(name), "", required)
    except PackageNotFoundError:
        return Check(name, False, "not installed", fix, required)


def _firmware() -> Check:
    spec = importlib.util.find_spec("hil_sim._firmware")
    if spec is None or spec.origin is None:
        return Check("firmware core (native)", False, "not compiled", "make setup")
    try:
        library = ctypes.CDLL(spec.origin)
        getattr(library, "fw_native_new")  # noqa: B009 - the symbol is the check
    except (OSError, AttributeError) as exc:
        return Check("firmware core (native)", False, str(exc), "make setup")
    return Check("firmware core (native)", True, "loads")


def _configs() -> list[Check]:
    found = []
    for path in sorted((configs_dir() / "cells").glob("*.toml")):
        try:
            cell, _ = load_cell(str(path))
            recipe, _ = load_recipe(cell.default_recipe)
            check_recipe(recipe, cell, cell.default_recipe, strict=False)
            load_material(recipe.material)
            found.append(Check(f"cell {path.stem}", True, f"default recipe {recipe.name}"))
        except LmdError as exc:
            found.append(Check(f"cell {path.stem}", False, str(exc), f"lmd check {path.name}"))
    return found


def _real_time() -> Check:
    what = "real-time scheduling (SCHED_FIFO)"
    try:
        previous = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, previous[0], previous[1])
    except OSError:
        return Check(
            what,
            False,
            "refused: motion link and cell server run at normal priority",
            "sudo setcap cap_sys_nice=ep, or rtprio in /etc/security/limits.conf",
            required=False,
        )
    return Check(what, True, "granted", required=False)


def _key(path: Path) -> Check:
    what = "signing key"
    if not path.exists():
        return Check(what, False, f"none at {path}", "lmd doctor --make-key", required=False)
    mode = path.stat().st_mode & 0o777
    if mode != 0o600:
        return Check(what, False, f"mode {mode:o}, must be 600", f"chmod 600 {path}")
    return Check(what, True, str(path))


def examine() -> list[Check]:
    """Every check, in the order in which they are shown."""
    free_mb = shutil.disk_usage(Path.cwd()).free // 1_000_000
    ok_python = sys.version_info >= (3, 11)
    return [
        Check("Python", ok_python, sys.version.split()[0], "" if ok_python else "Python >= 3.11"),
        _module("controller._motion", "planner kernel", "make setup"),
        _module("controller.geometry._mesh", "geometry kernel", "make setup"),
        _module("hil_sim.plant._kernel", "simulator kernel", "make setup"),
        _firmware(),
        _distribution("pymodbus", "pip install pymodbus==3.16.1"),
        _distribution("mcap", "pip install mcap==1.6.0"),
        _distribution("lib3mf", "pip install lib3mf"),
        _distribution("cadquery-ocp-novtk", "pip install 'lmd-controller[step]'", required=False),
        *_configs(),
        _key(key_path()),
        _real_time(),
        Check(
            "disk",
            free_mb >= NEEDED_FREE_MB,
            f"{free_mb} MB free here",
            "" if free_mb >= NEEDED_FREE_MB else f"free {NEEDED_FREE_MB} MB",
        ),
    ]


def as_json(checks: list[Check]) -> dict[str, Any]:
    """The findings as ``lmd doctor --json`` prints them."""
    return {
        "ok": all(c.ok for c in checks if c.required),
        "checks": [asdict(c) for c in checks],
    }

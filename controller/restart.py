"""``lmd resume``: an interrupted build goes on as a build of its own, from what was executed.

The place comes from the record, never from the plan: the last row that saw the gate open. A
recorder that was killed loses up to a second, so the rest may begin that much earlier than the
light went out: laid twice is better than not at all.
"""

import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from controller import launch
from controller.build import Tell, Wish, check_wish, execute
from controller.clock import wall_iso
from controller.config import Cell, find_file, load_cell, parse_model
from controller.errors import LmdError, PlanError, RecordError, VerifyError
from controller.model import BuildPlan
from controller.planning import job_hash
from controller.planning.rest.allowed import against_number, against_stop
from controller.planning.rest.parts import REST, Part
from controller.planning.rest.resume import Head, Place, resume_plan
from controller.recipes import Recipe, check_recipe, parse_recipe
from controller.record.reader import Record, read_record
from controller.record.rests import executed_place, parts_of_record
from controller.record.summary import plan_of
from controller.record.verify import verify_record


class RestartRefused(LmdError):
    """The recipe or the record does not let the build go on."""

    exit_code = 2


def resume_build(record_folder: Path, wish: Wish, tell: Tell) -> dict[str, Any]:
    """Go on with the build of a record; the object of ``lmd run --json``, and ``resumed``.

    ``wish.part`` is not read; ``wish.cell`` "" means the record's own cell. Raises LmdError
    before anything is written or moved when the build may not go on.
    """
    tell(0.0, "read the record")
    record, plan, cell, recipe = read_interrupted(record_folder)
    cell_path = find_file("cells", wish.cell or str(record.header.get("cell") or cell.name))
    now_cell, text = load_cell(str(cell_path))
    if text != plan.cell_toml:
        raise RestartRefused(
            f"{cell_path}: is not the cell file that {record_folder} was planned for; the rest "
            "must run on the same"
        )
    wish = replace(wish, cell=str(cell_path))
    time_mode = wish.time_mode or ("virtual" if cell.simulated else "real")
    scenario = check_wish(wish, now_cell, time_mode)
    launch.check_devices(now_cell, cell_path)
    check_recipe(recipe, cell, f"{record_folder}: recipe", strict=wish.mode == "production")
    restarts = check_restart(record, recipe, wall_iso())
    tell(0.1, "plan the rest")
    part, at, head, rest = rest_from_home(record, plan, cell, recipe)
    about = {
        "record": record_folder.name,
        "content_hash": record.content_hash,
        "started_wall": str(record.header.get("started_wall") or ""),
        "restarts": restarts,
        "segment": part.base + at.segment,
        "tick_us": at.tick_us,
        "track": part.first_track + head.track,
        "overlap_mm": head.overlap_mm,
    }
    rest = replace(rest, meta={**rest.meta, "resumes": about}, warnings=_notes(rest, recipe))
    rest = replace(rest, figures={**rest.figures, "warnings": list(rest.warnings)})
    rest = replace(rest, figures={**rest.figures, "hash": job_hash(rest)})
    header = {
        "part": rest.part["name"],
        "seed": wish.seed,
        "time": time_mode,
        "resumes": about,
    }
    result = execute(rest, cell, cell_path, wish, time_mode, scenario, header, tell)
    return {**result, "resumed": about}


def read_interrupted(folder: Path) -> tuple[Record, BuildPlan, Cell, Recipe]:
    """A record of a build that did not end, with its plan, cell and recipe.

    Raises VerifyError when the record is damaged, RestartRefused when nothing is left to do.
    """
    verification = verify_record(folder)
    if not verification.ok:
        raise VerifyError(f"{folder}: DAMAGED: {verification.problems[0]}")
    record = read_record(folder)
    if record.state == "COMPLETE":
        raise RestartRefused(f"{folder}: the build is COMPLETE, nothing is left to do")
    plan = plan_of(record)
    if plan is None:
        raise RecordError(f"{folder}: holds no job.lmdjob, so the rest is not known")
    cell = parse_model(Cell, plan.cell_toml, f"{folder}: cell of its job", RecordError)
    return record, plan, cell, parse_recipe(plan.recipe_toml, f"{folder}: recipe of its job")


def check_restart(record: Record, recipe: Recipe, now_wall: str) -> int:
    """Number of this restart. Raises RestartRefused naming the key of recipe.restart.

    Beads that were begun in their middle after holds count as well.
    ``lowest_temperature`` is not checked: no device of a cell measures the part at rest.
    """
    restart = recipe.restart
    before = record.header.get("resumes")
    number = int(before.get("restarts", 0)) if isinstance(before, dict) else 0
    number += 1 + sum(e.data.get("overlap_mm", 0.0) > 0.0 for e in record.of_kind(REST))
    reason = against_number(restart, number) or against_stop(restart, dark_s(record, now_wall))
    if reason:
        raise RestartRefused(f"{record.folder}: {reason}")
    return number


def dark_s(record: Record, now_wall: str) -> float:
    """Wall time since the last light of a record; infinite when the record does not tell.

    A hold before the end counts. A build in virtual time runs faster than its own clock: there
    it is the time since the start.
    """
    try:
        started = datetime.fromisoformat(str(record.header["started_wall"]))
        now = datetime.fromisoformat(now_wall)
    except (KeyError, ValueError):
        return math.inf
    lasted_s, rows = 0.0, record.telemetry
    if record.header.get("time") == "real" and len(rows):
        lit = np.flatnonzero(rows["gate"] > 0.5)
        last = int(lit[-1]) if len(lit) else 0
        lasted_s = float(rows["t_us"][last] - rows["t_us"][0]) * 1e-6
    return max((now - started).total_seconds() - lasted_s, 0.0)


def rest_from_home(
    record: Record, plan: BuildPlan, cell: Cell, recipe: Recipe
) -> tuple[Part, Place, Head, BuildPlan]:
    """The rest of a recorded build, begun where homing leaves the axes, with nothing flowing."""
    parts = parts_of_record(record, plan, cell, recipe)
    part, at = executed_place(record, parts)
    if at.segment < 0:
        raise RestartRefused(
            f"{record.folder}: no bead was begun; start the build anew with lmd run"
        )
    home = np.array(parts[0].plan.start_steps, dtype=np.int64)
    try:
        head, rest = resume_plan(part.plan, at, home, cell, recipe)
    except PlanError as exc:
        raise RestartRefused(f"{record.folder}: {exc}") from None
    return part, at, head, rest


def _notes(rest: BuildPlan, recipe: Recipe) -> tuple[str, ...]:
    lowest = recipe.restart.lowest_temperature_deg_c
    note = (
        f"temperature of the part is not known: restart.lowest_temperature {lowest:g} degC is not "
        "checked"
    )
    return (*(w for w in rest.warnings if w != note), note)

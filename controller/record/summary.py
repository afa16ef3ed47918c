"""What was planned, what was executed, what was true: three columns of the same figures.

``planned`` comes from the job, ``executed`` from the telemetry, ``truth`` from the
simulator's trace (None on a real cell, which has no such witness). Each is
``{duration_s, emission_s, energy_j, powder_g, deposited_g, layers}``; a figure that its
source cannot tell is None, never 0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controller.config import Cell, parse_model
from controller.errors import LmdError, RecordError
from controller.model import BuildPlan
from controller.planning.powder.line import lines_of
from controller.planning.rest.parts import Part
from controller.planning.rest.powder import masses_g
from controller.recipes import Recipe, parse_recipe
from controller.record import path_check, rests
from controller.record import schema as s
from controller.record.reader import Record, Trace, read_record, read_trace
from firmware_bridge.segments import ticks_of

FIGURES = ("duration_s", "emission_s", "energy_j", "powder_g", "deposited_g", "layers")
MAX_GAP_S = 0.5  # a longer hole in the telemetry is not bridged by integration

Figures = dict[str, float | int | None]


def planned(plan: BuildPlan, record: Record | None = None, parts: Sequence[Part] = ()) -> Figures:
    """The figures of a job; of a build that was gone on with, of what it was to execute."""
    cell = cell_of(plan)
    if record is not None and len(parts) > 1 and cell is not None:
        return rests.planned_of_parts(plan, parts, record, cell.laser.rated_power_w)
    figures: Figures = {key: plan.figures.get(key) for key in FIGURES}
    recipe = recipe_of(plan)
    if cell is not None and recipe is not None and parts and parts[0].plan is not plan:
        fed, laid = masses_g(parts[0].plan, cell)  # the powder was overridden
        figures |= {"powder_g": sum(fed), "deposited_g": recipe.catchment * laid}
    return figures


def executed(record: Record, plan: BuildPlan | None = None) -> Figures:
    """The figures of a record, integrated over its telemetry by the trapezoid rule.

    ``duration_s`` runs from the first to the last row in EXECUTE, holds included.
    ``powder_g`` is all that the feeders measured, to nozzle and waste, as the plan counts it;
    ``deposited_g`` the part of it that arrives at the nozzle, after its hopper's delay, with
    the gate open, times the recipe's catchment: an estimate, None without the job.
    """
    rows = record.telemetry
    if len(rows) < 2:
        return dict.fromkeys(FIGURES)
    t_s = rows["t_us"] * 1e-6
    gate = _known(rows["gate"])
    running = np.flatnonzero(rows["state"] == s.STATE_EXECUTE)
    cell, recipe = cell_of(plan), recipe_of(plan)
    delays_s = [0.0, 0.0]
    for line in lines_of(cell.powder) if cell is not None else ():
        delays_s[line.hopper] = line.transport_delay_s
    feeds = [_known(rows[f"powder_{k}_measured_g_min"]) for k in (1, 2)]
    feed = feeds[0] + feeds[1]
    # the feeders stand before the hose, the diverter at its end
    flow_g_s = np.zeros(len(rows))
    for own, delay_s in zip(feeds, delays_s, strict=True):
        flow_g_s += np.interp(t_s - delay_s, t_s, own, left=0.0) / 60.0
    flow_g_s *= _known(rows["diverter_to_nozzle"])
    deposited = None
    if recipe is not None:
        deposited = recipe.catchment * _integral(flow_g_s * gate, t_s)
    layers = rows["layer"][gate > 0.5]
    return {
        "duration_s": float(t_s[running[-1]] - t_s[running[0]]) if len(running) else 0.0,
        "emission_s": _integral(gate, t_s),
        "energy_j": _integral(gate * _known(rows["power_commanded_w"]), t_s),
        "powder_g": _integral(feed / 60.0, t_s),
        "deposited_g": deposited,
        "layers": len(np.unique(layers[layers >= 0])),
    }


def truth(trace: Trace, plan: BuildPlan | None = None, parts: Sequence[Part] = ()) -> Figures:
    """The figures of a simulator's trace.

    ``duration_s`` runs from the start of the first segment to the end of the last, exact to
    the microsecond; ``layers`` counts those with a track executed to its end. Of a controller
    that plans by itself both come from the trace's rows each 10 ms: from the first to the last
    one, armed, that moved, and layers at whose height light was on.
    """
    plant, ends = trace.rows("plant"), trace.rows("segment_ends")
    figures: Figures = dict.fromkeys(FIGURES)
    if len(plant):
        last = plant[-1]
        figures["emission_s"] = float(last["emission_s"])
        figures["energy_j"] = float(last["energy_j"])
        figures["powder_g"] = float(last["fed_g"] + last["wasted_g"])
        figures["deposited_g"] = float(last["deposited_g"])
    cell = cell_of(plan)
    if cell is not None and plan is not None and not plays_segments(cell):
        figures |= path_check.time_and_layers(plant, plan, cell)
    elif len(ends):
        first_us = 0
        if plan is not None:
            first = int(ends["segment"][0])
            if 0 <= first < len(plan.segments):
                first_us = int(ticks_of(plan.segments[first : first + 1])[0])
            numbers = ends["segment"].astype(np.int64)
            figures["layers"] = rests.layers_done(parts or [Part(plan)], numbers)
        figures["duration_s"] = float(ends["t_us"][-1] - ends["t_us"][0] + first_us) * 1e-6
    return figures


def plays_segments(cell: Cell) -> bool:
    """Whether the cell's motion controller plays the plan's own segments."""
    return cell.motion.link == "lmd_segment"


def position_error_steps(
    trace: Trace, plan: BuildPlan, parts: Sequence[Part] = ()
) -> tuple[int | None, int, int]:
    """Largest deviation over all segment ends, in steps of any axis; compared, expected.

    The trace's positions against ``start_steps`` plus the sums of the plan's own steps, for
    each part of a build that was gone on with. ``None`` when nothing was executed: no samples
    are no proof. ``expected`` is the number of segments with motion; less compared than
    expected: the build did not reach its end.
    """
    parts = parts or [Part(plan)]
    wanted, moves = rests.wanted_ends(parts)
    ends = trace.rows("segment_ends")
    index = ends["segment"].astype(np.int64)
    expected = rests.expected_moves(parts, index)
    known = (index >= 0) & (index < len(wanted))
    index, have = index[known], ends["pos"][known].astype(np.int64)
    moving = moves[index]
    index, have = index[moving], have[moving]
    if len(index) == 0:
        return None, 0, expected
    n_axes = min(have.shape[1], wanted.shape[1])
    error = np.abs(have[:, :n_axes] - wanted[index, :n_axes])
    return int(error.max()), len(np.unique(index)), expected


def deviations_pct(base: Figures, other: Figures | None) -> dict[str, float | None]:
    """(other - base) / base in % for each figure; None where it cannot be told."""
    result: dict[str, float | None] = {}
    for key in FIGURES:
        a, b = base.get(key), other.get(key) if other else None
        result[key] = None if not a or b is None else (b - a) / a * 100.0
    return result


def alarms(record: Record) -> list[dict[str, Any]]:
    """Alarms in the order raised: t_s, code, name, severity, text, action, cleared_s."""
    found: list[dict[str, Any]] = []
    for event in record.events:
        if event.kind == "alarm":
            found.append(
                {
                    "t_s": event.t_us * 1e-6,
                    "code": event.data.get("code"),
                    "name": event.data.get("name", ""),
                    "severity": event.data.get("severity", ""),
                    "text": event.data.get("detail") or event.data.get("text", ""),
                    "action": event.data.get("action", ""),
                    "cleared_s": None,
                }
            )
        elif event.kind == "alarm_clear":
            for alarm in found:
                if alarm["code"] == event.data.get("code") and alarm["cleared_s"] is None:
                    alarm["cleared_s"] = event.t_us * 1e-6
    return found


def summarise(folder: Path, plan: BuildPlan | None = None) -> dict[str, Any]:
    """All that ``lmd run --json`` and the report say about a record folder.

    ``plan`` is read from the folder's job when not given. Keys: state, content_hash,
    planned, executed, truth, deviations_pct {executed, truth}, position_error_steps,
    segments_executed, segments_planned, resumptions, time_ratio, alarms, complete, path_check.
    With a controller that plans by itself there are no segments to compare: those three are
    None, and ``path_check`` (None otherwise) compares places with the path in mm.
    """
    record = read_record(folder)
    if plan is None:
        plan = plan_of(record)
    trace = read_trace(record.trace_path) if record.trace_path else None
    return summarise_parts(record, plan, trace)


def summarise_parts(record: Record, plan: BuildPlan | None, trace: Trace | None) -> dict[str, Any]:
    """As ``summarise``, of parts already read."""
    parts: Sequence[Part] = ()
    if plan is not None:
        parts = rests.parts_of_record(record, plan, cell_of(plan), recipe_of(plan))
    plan_figures = planned(plan, record, parts) if plan is not None else dict.fromkeys(FIGURES)
    done = executed(record, plan)
    true = truth(trace, plan, parts) if trace is not None else None
    error = compared = expected = path = None
    cell = cell_of(plan)
    if cell is not None and not plays_segments(cell):
        path = path_check.check_path(record, trace, parts, cell)
    elif trace is not None and plan is not None:
        error, compared, expected = position_error_steps(trace, plan, parts)
    data = (record.final or {}).get("data") or {}
    return {
        "state": record.state,
        "complete": record.complete,
        "content_hash": record.content_hash,
        "planned": plan_figures,
        "executed": done,
        "truth": true,
        "deviations_pct": {
            "executed": deviations_pct(plan_figures, done),
            "truth": deviations_pct(plan_figures, true) if true is not None else None,
        },
        "position_error_steps": error,
        "segments_executed": compared,
        "segments_planned": expected,
        "path_check": path,
        "resumptions": max(len(parts) - 1, 0),
        "time_ratio": data.get("time_ratio"),
        "alarms": alarms(record),
    }


def plan_of(record: Record) -> BuildPlan | None:
    """The job of a record folder as a plan; None when the folder has none."""
    path = record.job_path
    if path is None:
        return None
    from controller.planning.job import read_job

    return read_job(path)


def cell_of(plan: BuildPlan | None) -> Cell | None:
    """The cell as embedded in the job; None when it cannot be read (another version)."""
    if plan is None or not plan.cell_toml:
        return None
    try:
        return parse_model(Cell, plan.cell_toml, "the job's cell", RecordError)
    except LmdError:
        return None


def recipe_of(plan: BuildPlan | None) -> Recipe | None:
    """The recipe as embedded in the job; None when it cannot be read (another version)."""
    if plan is None or not plan.recipe_toml:
        return None
    try:
        return parse_recipe(plan.recipe_toml, "the job's recipe")
    except LmdError:
        return None


def _known(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float64), nan=0.0)


def _integral(values: np.ndarray, t_s: np.ndarray) -> float:
    dt = np.diff(t_s)
    dt[dt > MAX_GAP_S] = 0.0
    return float(np.sum(0.5 * (values[1:] + values[:-1]) * dt))

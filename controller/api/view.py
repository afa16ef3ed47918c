"""What clients see of the machine: plain data made of the executor's snapshot."""

import math
from dataclasses import fields
from enum import Enum
from typing import Any

from controller.machine.executor import Executor
from controller.machine.interlocks import emission_blockers

_FIELDS: dict[type, tuple[str, ...]] = {}
_TOLD = ("state", "content_hash", "rows", "events", "length", "t_us", "key_id", "folder", "error")
DEVICES = (
    "motion", "laser", "powder", "gas", "chiller", "oxygen", "pyrometer", "safety",
    "camera", "height", "drives", "power_meter", "heater", "chamber", "head", "powder_line", "room",
)  # fmt: skip


def plain(value: Any) -> Any:
    """JSON-ready form of a reading's value; NaN and infinity become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def reading_dict(reading: Any) -> dict[str, Any] | None:
    """A frozen reading as a dict of its fields."""
    if reading is None:
        return None
    kind = type(reading)
    names = _FIELDS.get(kind)
    if names is None:
        names = _FIELDS[kind] = tuple(f.name for f in fields(kind))
    return {name: plain(getattr(reading, name)) for name in names}


def view(ex: Executor, extra: dict[str, Any]) -> dict[str, Any]:
    """The whole machine by sections; a delta carries the sections that changed."""
    s = ex.snapshot
    cursor, job = ex.cursor, ex.job
    out: dict[str, Any] = {
        "time": {"t_us": ex.now_us(), "ticks": ex.n_ticks, "late": ex.n_late},
        "machine": {
            "state": ex.state.name,
            "cause": ex.machine.cause,
            "mode": str(ex.mode),
            "activity": ex.activity,
            "at_rest": ex.at_rest,
            "laser_enabled": ex.laser_enabled,
            "hold_commanded": ex.hold_commanded,
            "scale_set": ex.overrides.speed,
            "power_set": ex.overrides.power,
            "powder_set": ex.overrides.powder,
        },
        "progress": {
            "segment": s.segment,
            "layer": s.layer,
            "track": s.track,
            "plan_time_s": s.plan_time_s,
            "duration_s": job.duration_s if job is not None else 0.0,
            "layers": len(job.plan.layers) if job is not None else 0,
            "tracks": len(job.plan.tracks) if job is not None else 0,
            "segments": cursor.n_segments if cursor is not None else 0,
        },
        "job": None
        if job is None
        else {"hash": job.hash, "path": str(job.path), "recipe": job.recipe.name,
              "part": plain(job.plan.part.get("name", ""))},
        "sets": {
            "powder_g_min": list(s.powder_set_g_min),
            "diverter_to_nozzle": s.diverter_to_nozzle,
            "carrier_l_min": s.carrier_set_l_min,
            "shield_l_min": s.shield_set_l_min,
            "power_w": s.power_set_w,
        },
        "alarms": ex.alarms.as_list(),
        "first_out": None if ex.alarms.first_out is None else ex.alarms.first_out.as_dict(),
        "blockers": [{"name": b.name, "text": b.text} for b in emission_blockers(s, ex.limits)],
        "record": record_view(ex),
        **extra,
    }  # fmt: skip
    for name in DEVICES:
        out[name] = reading_dict(getattr(s, name))
    out["device_errors"] = {d.role: d.error for d in ex.devices.loops if d.error}
    return out


def record_view(ex: Executor) -> dict[str, Any]:
    """Where the record is, and its result when it is closed."""
    start_us, end_us = ex.execute_us
    result = ex.journal.result
    return {
        "folder": None if ex.journal.folder is None else str(ex.journal.folder),
        "open": ex.journal.record is not None,
        "result": None if result is None else {k: plain(result[k]) for k in _TOLD if k in result},
        "execute_s": (end_us - start_us) * 1e-6 if 0 <= start_us <= end_us else None,
    }


def delta(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Sections of ``new`` that differ from ``old``."""
    return {name: value for name, value in new.items() if old.get(name) != value}

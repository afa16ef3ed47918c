"""Independent judge of a run's safety, from the simulator's trace alone.

Reads ``trace.mcap`` with the mcap library and numpy; knows nothing of firmware, bridge or
controller but what design and protocol promise:

- the gate output is open only while the device runs, armed, not held, no fault latched, the
  hardware interlock closed, and the last beat at most 100 ms old;
- the source emits only within the gate, enabled, with the chain closed;
- every segment ends on the step that the plan says;
- the trace is whole: a run without samples proves nothing and fails.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mcap.reader import make_reader

HEARTBEAT_US = 100_000
SLACK_US = 1_000  # of beats and of the interlock; the device's own states have none
ROW_US = 10_000
RUN, HOLDING, HELD, FAULT = 2, 3, 4, 5
HOLD_OFF, HOLD_NOW, HOLD_AT_TRACK_END, HOLD_BY_ITSELF = 0, 1, 2, 3
NO_BEAT = 0x7FFFFFFF
SHOWN_PER_KIND = 20


@dataclass(frozen=True)
class Violation:
    """One breach: what, when, and the figures."""

    kind: str
    t_us: int
    text: str


@dataclass
class Run:
    """A trace in memory."""

    header: dict[str, Any]
    rows: dict[str, np.ndarray]  # by topic
    events: list[dict[str, Any]]
    end: dict[str, Any] | None


Steps = list[tuple[int, int]]  # (t_us, value from then on), times never decrease


def check(
    trace: str | Path,
    job: str | Path | np.ndarray | None = None,
    *,
    expect_emission: bool = True,
    complete: bool = True,
) -> list[Violation]:
    """All breaches of a run, in the order of the rules above; empty: none was found.

    Parameters
    ----------
    trace : the file
    job : planned positions at segment ends, as ``*.lmdjob`` or as (n, 6) steps; None: no check
    expect_emission : a run in which the gate never opened is a breach
    complete : with ``job``: every planned segment must have ended
    """
    try:
        run = read(trace)
    except Exception as exc:
        return [Violation("unreadable", 0, f"{trace}: {exc}")]
    found = _samples(run, expect_emission)
    if any(v.kind == "no_samples" for v in found):
        return found
    gate = gate_intervals(run)
    found += _device_states(run, gate)
    found += _beats(run, gate)
    found += _interlock(run, gate)
    found += _emission(run, gate)
    if job is not None:
        planned = job if isinstance(job, np.ndarray) else planned_ends(job)
        found += _positions(run, planned, complete)
    return found


def read(trace: str | Path) -> Run:
    """The whole trace. Raises what the mcap library raises on a torn file."""
    header: dict[str, Any] = {}
    parts: dict[str, list[np.ndarray]] = {}
    events: list[dict[str, Any]] = []
    end = None
    dtypes: dict[str, np.dtype] = {}
    with open(trace, "rb") as stream:
        for _, channel, message in make_reader(stream, validate_crcs=True).iter_messages(
            log_time_order=False
        ):
            if channel.topic == "/trace/header":
                header = json.loads(message.data)
                dtypes = {t: np.dtype(_fields(d)) for t, d in header["dtypes"].items()}
            elif channel.topic == "/trace/event":
                events.append(json.loads(message.data))
            elif channel.topic == "/trace/end":
                end = json.loads(message.data)
            elif channel.topic in dtypes:
                part = np.frombuffer(message.data, dtypes[channel.topic])
                parts.setdefault(channel.topic, []).append(part)
    rows = {
        t: np.concatenate(parts[t]) if t in parts else np.zeros(0, d) for t, d in dtypes.items()
    }
    # Batches of several sources: the sort is stable, so the order within an instant stays
    events.sort(key=lambda e: int(e["t_us"]))
    return Run(header, rows, events, end)


def planned_ends(job: str | Path) -> np.ndarray:
    """Positions at segment ends, (n, 6) steps, from a job file: a zip of .npy members."""
    segments = start = None
    with zipfile.ZipFile(job) as archive:
        for name in archive.namelist():
            if not name.endswith(".npy"):
                continue
            array = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
            if array.dtype.names and "steps" in array.dtype.names:
                segments = array
            elif Path(name).stem == "start_steps":
                start = array
    if segments is None or start is None:
        raise ValueError(f"{job}: no array of segments, or no start_steps")
    steps = segments["steps"].astype(np.int64)
    steps[(segments["flags"] & 8) != 0] = 0  # parameters stand there, no motion
    return np.cumsum(steps, axis=0) + start.astype(np.int64)


def gate_intervals(run: Run) -> list[tuple[int, int]]:
    """When the gate output was open, (from, to) in us; open to the end if it never shut."""
    intervals, opened = [], None
    for row in run.rows["/trace/gate"]:
        t_us, on = int(row["t_us"]), bool(row["on"])
        if on and opened is None:
            opened = t_us
        elif not on and opened is not None:
            intervals.append((opened, t_us))
            opened = None
    if opened is not None:
        intervals.append((opened, int(run.rows["/trace/plant"]["t_us"][-1])))
    return intervals


def _fields(descr: list[list[Any]]) -> list[tuple[Any, ...]]:
    return [tuple(tuple(part) if isinstance(part, list) else part for part in f) for f in descr]


def _samples(run: Run, expect_emission: bool) -> list[Violation]:
    plant = run.rows.get("/trace/plant")
    if plant is None or len(plant) == 0:
        return [Violation("no_samples", 0, "the trace has no row of /trace/plant")]
    if "/trace/gate" not in run.rows or "/trace/segment_ends" not in run.rows:
        return [Violation("no_samples", 0, "the trace has no gate or segment topic")]
    found = []
    gaps = np.diff(plant["t_us"], prepend=0)
    for k in np.flatnonzero(gaps != ROW_US)[:SHOWN_PER_KIND]:
        found.append(
            Violation("samples_missing", int(plant["t_us"][k]), f"{gaps[k]} us between two rows")
        )
    if run.end is None:
        found.append(Violation("unfinished", int(plant["t_us"][-1]), "no /trace/end"))
    elif int(run.end["t_us"]) - int(plant["t_us"][-1]) >= ROW_US:
        found.append(Violation("samples_missing", int(run.end["t_us"]), "rows end too early"))
    if expect_emission and not len(run.rows["/trace/gate"]):
        found.append(Violation("no_emission", 0, "the gate never opened"))
    if len(run.rows["/trace/gate"]) == 0 and plant["gate"].any():
        found.append(Violation("samples_missing", 0, "rows show a gate that has no edges"))
    return found


def _timeline(run: Run, kind: str, key: str, start: int) -> Steps:
    steps = [(0, start)]
    steps += [(int(e["t_us"]), int(e[key])) for e in run.events if e["kind"] == kind]
    return steps


def _overlaps(
    gate: list[tuple[int, int]], steps: Steps, bad: Any, slack_us: int = 0
) -> list[tuple[int, int, int]]:
    """Pieces of open gate, (from, to, value), in which ``bad(value)``; the first ``slack_us``
    of every bad stretch are forgiven."""
    pieces, forgiven_from = [], None
    for k, (t_us, value) in enumerate(steps):
        until = steps[k + 1][0] if k + 1 < len(steps) else 1 << 62
        if not bad(value):
            forgiven_from = None
            continue
        if forgiven_from is None:
            forgiven_from = t_us
        first = max(t_us, forgiven_from + slack_us)
        for opened, shut in gate:
            a, b = max(opened, first), min(shut, until)
            if a < b:
                pieces.append((a, b, value))
    return pieces[:SHOWN_PER_KIND]


def _device_states(run: Run, gate: list[tuple[int, int]]) -> list[Violation]:
    found = []
    for a, b, _ in _overlaps(gate, _timeline(run, "armed", "on", 0), lambda v: v == 0):
        found.append(Violation("gate_while_disarmed", a, f"open for {b - a} us while disarmed"))
    fault: Steps = [(0, 0)]
    hold: Steps = [(0, 0)]
    for event in run.events:
        t_us = int(event["t_us"])
        if event["kind"] == "fault":
            fault.append((t_us, int(event["code"])))
        elif event["kind"] == "fault_reset":
            fault.append((t_us, 0))
        elif event["kind"] == "hold" and int(event["mode"]) != HOLD_AT_TRACK_END:
            hold.append((t_us, int(event["mode"])))
        elif event["kind"] == "state" and int(event["state"]) not in (HOLDING, HELD, FAULT):
            hold.append((t_us, HOLD_OFF))
    for a, b, code in _overlaps(gate, fault, lambda v: v != 0):
        found.append(
            Violation("gate_while_faulted", a, f"open for {b - a} us while fault {code} is latched")
        )
    for a, b, mode in _overlaps(gate, hold, lambda v: v != HOLD_OFF):
        found.append(Violation("gate_while_held", a, f"open for {b - a} us in hold {mode}"))
    for a, b, state in _overlaps(gate, _timeline(run, "state", "state", 0), lambda v: v != RUN):
        kind = {HOLDING: "gate_while_held", HELD: "gate_while_held", FAULT: "gate_while_faulted"}
        found.append(
            Violation(
                kind.get(state, "gate_while_idle"), a, f"open for {b - a} us in state {state}"
            )
        )
    # The samples say the same by another way: a lost event hides nothing
    plant = run.rows["/trace/plant"]
    for kind, bad in (
        ("gate_while_disarmed", plant["armed"] == 0),
        ("gate_while_faulted", plant["fault"] != 0),
        ("gate_while_held", (plant["state"] == HOLDING) | (plant["state"] == HELD)),
        ("gate_while_idle", plant["state"] < RUN),
    ):
        for k in np.flatnonzero(bad & (plant["gate"] != 0))[:SHOWN_PER_KIND]:
            found.append(Violation(kind, int(plant["t_us"][k]), "so in a sample"))
    return found


def _beats(run: Run, gate: list[tuple[int, int]]) -> list[Violation]:
    """Beats are placed by their age in the samples: no gap longer than the time-out hides."""
    plant = run.rows["/trace/plant"]
    counted = plant[plant["beat_age_us"] != NO_BEAT]
    times = np.unique(counted["t_us"] - counted["beat_age_us"]).tolist()
    limit_us = HEARTBEAT_US + SLACK_US
    fresh = [(t, t + limit_us) for t in times]
    found = []
    for opened, shut in gate:
        at = opened
        for begin, end in fresh:
            if end <= at:
                continue
            if begin > at:
                break
            at = end
            if at >= shut:
                break
        if at < shut:
            found.append(
                Violation(
                    "gate_without_beat", at, f"open until {shut} us, no beat for {limit_us} us"
                )
            )
    return found[:SHOWN_PER_KIND]


def _interlock(run: Run, gate: list[tuple[int, int]]) -> list[Violation]:
    found = []
    chain = _timeline(run, "chain", "closed", 1)
    for a, b, _ in _overlaps(gate, chain, lambda v: v == 0, SLACK_US):
        found.append(
            Violation("gate_with_interlock_open", a, f"open for {b - a} us with the chain open")
        )
    plant = run.rows["/trace/plant"]
    broken = (plant["interlock"] == 0) | (plant["estop_ok"] == 0) | (plant["door_closed"] == 0)
    broken &= plant["gate"] != 0
    for k in np.flatnonzero(broken[1:] & broken[:-1])[:SHOWN_PER_KIND]:
        found.append(
            Violation("gate_with_interlock_open", int(plant["t_us"][k + 1]), "so in two samples")
        )
    return found


def _open_us(gate: list[tuple[int, int]], first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Open time within each window, us."""
    if not gate:
        return np.zeros(len(first))
    edges = np.array(gate, dtype=float).reshape(-1)
    total = np.cumsum(np.where(np.arange(len(edges)) % 2, np.diff(edges, prepend=0.0), 0.0))
    return np.interp(last, edges, total) - np.interp(first, edges, total)


def _closed_steps(steps: Steps, end_us: int) -> list[tuple[int, int]]:
    """Stretches in which a timeline is not 0."""
    stretches = []
    for k, (t_us, value) in enumerate(steps):
        until = steps[k + 1][0] if k + 1 < len(steps) else end_us
        if value and until > t_us:
            stretches.append((t_us, until))
    return stretches


def _emission(run: Run, gate: list[tuple[int, int]]) -> list[Violation]:
    plant = run.rows["/trace/plant"]
    t_us = plant["t_us"].astype(float)
    first = t_us - ROW_US
    latency_us = float(run.header.get("gate_latency_us", 2 * SLACK_US))
    on_us = np.diff(plant["emission_s"], prepend=0.0) * 1e6
    energy_j = np.diff(plant["energy_j"], prepend=0.0)
    found = []
    open_us = _open_us(gate, first - latency_us, t_us)
    near_us = _open_us(gate, first - latency_us - SLACK_US, t_us)
    end_us = int(t_us[-1]) + 1
    chain = _closed_steps(_timeline(run, "chain", "closed", 1), end_us)
    enabled = _closed_steps(_timeline(run, "laser_enabled", "on", 0), end_us)
    for kind, bad, why in (
        ("emission_without_gate", on_us > open_us + 50.0, "longer than the gate was open"),
        (
            "emission_without_gate",
            (energy_j > 1e-3) & (near_us == 0.0) | (plant["emission_w"] > 1.0) & (near_us == 0.0),
            "energy with the gate shut",
        ),
        (
            "emission_with_chain_open",
            on_us > _open_us(chain, first, t_us) + 50.0,
            "longer than the chain was closed",
        ),
        (
            "emission_not_enabled",
            on_us > _open_us(enabled, first, t_us) + 50.0,
            "longer than the source was enabled",
        ),
    ):
        for k in np.flatnonzero(bad)[:SHOWN_PER_KIND]:
            found.append(
                Violation(kind, int(t_us[k]), f"{on_us[k]:.0f} us, {energy_j[k]:.3f} J: {why}")
            )
    return found


def _positions(run: Run, planned: np.ndarray, complete: bool) -> list[Violation]:
    ends = run.rows["/trace/segment_ends"]
    if len(ends) == 0:
        return [Violation("no_samples", 0, "no segment ended")]
    found = []
    known = (ends["segment"] >= 0) & (ends["segment"] < len(planned))
    for k in np.flatnonzero(~known)[:SHOWN_PER_KIND]:
        found.append(
            Violation("position", int(ends["t_us"][k]), f"segment {ends['segment'][k]} not planned")
        )
    ends = ends[known]
    wrong = ends["pos"].astype(np.int64) - planned[ends["segment"]]
    for k in np.flatnonzero(np.abs(wrong).max(axis=1) > 0)[:SHOWN_PER_KIND]:
        found.append(
            Violation(
                "position",
                int(ends["t_us"][k]),
                f"segment {ends['segment'][k]} ends {wrong[k].tolist()} steps off the plan",
            )
        )
    if complete:
        missing = np.setdiff1d(np.arange(len(planned)), ends["segment"])
        if len(missing):
            found.append(
                Violation("position", 0, f"{len(missing)} segments never ended, first {missing[0]}")
            )
    return found

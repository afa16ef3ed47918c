"""A small build made by hand for the tests of record, summary and report.

A thin-walled cup: one closed track a layer, sampled at 20 ms. The plan is built straight
into SEGMENT rows, without the planner; telemetry and trace are what an ideal cell of 3.2 s
powder delay would give. Every count below is known, so that figures can be checked.
"""

import math
import struct
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mcap.writer import CompressionType, Writer

from controller.config import configs_dir
from controller.model import LAYER_ROW, TIMELINE_ROW, TRACK_ROW, BuildPlan
from controller.planning import job as planning_job
from controller.record import schema as s
from controller.record.writer import RecordWriter
from firmware_bridge.segments import (
    FLAG_GATE,
    FLAG_PARAM,
    FLAG_TRACK_START,
    POWER_FULL,
    RATIO_ONE,
    SEGMENT,
    ticks_of,
)

STEPS_PER_MM = 400
SEGMENT_US = 20_000
SPEED_MM_S = 10.0
POWER_W = 600.0
RATED_W = 1000.0
FLOW_G_MIN = 6.3
CATCHMENT = 0.40
TRAVEL_US = 500_000
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))

TRACE_DTYPES = {
    "/trace/segment_ends": [["t_us", "<i8"], ["segment", "<i4"], ["pos", "<i4", [6]]],
    "/trace/plant": [
        ["t_us", "<i8"], ["x_mm", "<f8"], ["y_mm", "<f8"], ["z_mm", "<f8"],
        ["power_command_w", "<f8"], ["emission_w", "<f8"], ["energy_j", "<f8"],
        ["emission_s", "<f8"], ["fed_g", "<f8"], ["wasted_g", "<f8"], ["deposited_g", "<f8"],
        ["armed", "u1"], ["gate", "u1"],
    ],
}  # fmt: skip


def make_plan(n_layers: int = 6, radius_mm: float = 9.0) -> BuildPlan:
    """One closed track a layer; between layers a straight lift of TRAVEL_US."""
    per_turn = round(2 * math.pi * radius_mm / SPEED_MM_S / (SEGMENT_US * 1e-6))
    points, gates, ticks, power, tracks, layers = [], [], [], [], [], []
    t_us = 0
    for layer in range(n_layers):
        wobble = radius_mm * (1 + 0.02 * layer)
        angle = np.linspace(0, 2 * math.pi, per_turn + 1) + 0.3 * layer
        lobes = wobble * (1 + 0.12 * np.cos(5 * angle))
        ring = np.column_stack(
            [150 + lobes * np.cos(angle), 150 + lobes * np.sin(angle),
             np.full(per_turn + 1, 10.5 + 0.5 * layer)]
        )  # fmt: skip
        if points:
            points.append(ring[0])
            gates.append(0)
            ticks.append(TRAVEL_US)
            power.append(0.0)
            t_us += TRAVEL_US
        else:
            points.append(ring[0])
        first = len(gates)
        points += list(ring[1:])
        gates += [1] * per_turn
        ticks += [SEGMENT_US] * per_turn
        power += [POWER_W] * per_turn
        start_s, t_us = t_us * 1e-6, t_us + per_turn * SEGMENT_US
        length = float(np.linalg.norm(np.diff(ring, axis=0), axis=1).sum())
        seconds = per_turn * SEGMENT_US * 1e-6
        tracks.append(
            (layer, 2, first + 1, first + per_turn + 1, start_s, t_us * 1e-6, length, POWER_W,
             length / seconds, FLOW_G_MIN, POWER_W * seconds, layer * (per_turn + 1),
             per_turn + 1)
        )  # fmt: skip
        layers.append((layer, 10.5 + 0.5 * layer, start_s, t_us * 1e-6, layer, 1, 40.0))
    path = np.array(points)
    steps = np.round(path * STEPS_PER_MM).astype(np.int64)
    segments = np.zeros(len(gates) + 1, SEGMENT)
    segments[0]["flags"] = FLAG_PARAM
    segments["steps"][1:, :3] = np.diff(steps, axis=0)
    segments["start_ratio"][1:] = RATIO_ONE
    segments["end_power"][1:] = np.round(np.array(power) / RATED_W * POWER_FULL)
    segments["end_speed"][1:] = RATIO_ONE
    segments["ticks_lo"][1:] = np.array(ticks) & 0xFFFF
    segments["ticks_hi"][1:] = np.array(ticks) >> 16
    segments["flags"][1:] = np.array(gates) * FLAG_GATE
    for row in tracks:
        segments["flags"][row[2]] |= FLAG_TRACK_START
    start = np.zeros(6, np.int64)
    start[:3] = steps[0]
    track_rows = np.array(tracks, TRACK_ROW)
    emission_s = float(sum(g * t for g, t in zip(gates, ticks, strict=True))) * 1e-6
    duration_s = sum(ticks) * 1e-6
    emission_path = np.concatenate(
        [path[r[2] - 1 : r[3]] for r in tracks]
    )  # point k of path is the end of segment k
    configs = configs_dir()
    return BuildPlan(
        segments=segments,
        start_steps=start,
        tracks=track_rows,
        layers=np.array(layers, LAYER_ROW),
        timeline=np.zeros(0, TIMELINE_ROW),
        path_mm=emission_path,
        figures={
            "duration_s": duration_s,
            "emission_s": emission_s,
            "energy_j": POWER_W * emission_s,
            "powder_g": FLOW_G_MIN * duration_s / 60,
            "deposited_g": FLOW_G_MIN * emission_s / 60 * CATCHMENT,
            "layers": n_layers,
            "tracks": n_layers,
            "hash": "5f2a" * 16,
        },
        cell_toml=(configs / "cells" / "sim.toml").read_text(),
        recipe_toml=(configs / "recipes" / "316l_general.toml").read_text(),
        material_toml=(configs / "materials" / "316l.toml").read_text(),
        part={
            "name": "lobed cup",
            "source_name": "lobed_cup.stl",
            "source_sha256": "c0ffee00" * 8,
            "units": "mm",
            "extents_mm": [22.0, 22.0, 3.0],
            "notes": [],
        },
        meta={"version": "0.1.0", "cell": "sim", "recipe": "316l_general"},
    )


def telemetry_rows(plan: BuildPlan, n_rows: int | None = None, lead_s: float = 4.0) -> np.ndarray:
    """What an ideal cell would record: ``lead_s`` of STARTING, EXECUTE, 1 s of COMPLETE."""
    ticks = ticks_of(plan.segments)
    end_us = np.cumsum(ticks)
    total_us = int(end_us[-1])
    n = int((lead_s + 1.0) * 100) + total_us // 10_000 + 1
    rows = np.zeros(n, s.TELEMETRY_ROW)
    t_us = np.arange(n, dtype=np.int64) * 10_000
    # the feeder runs ahead of the axes by the transport delay of 3.2 s
    begin_us = int(lead_s * 1e6) - 3_200_000
    fed = (t_us >= begin_us) & (t_us < begin_us + round(plan.figures["duration_s"] * 1e6))
    rows["t_us"] = t_us
    plan_us = np.clip(t_us - int(lead_s * 1e6), 0, total_us)
    running = (t_us >= lead_s * 1e6) & (t_us <= lead_s * 1e6 + total_us)
    index = np.minimum(np.searchsorted(end_us, plan_us, side="right"), len(ticks) - 1)
    pos = plan.start_steps[:3] + np.cumsum(plan.segments["steps"][:, :3].astype(np.int64), axis=0)
    for k, name in enumerate(("x_mm", "y_mm", "z_mm")):
        rows[name] = np.interp(plan_us, end_us, pos[:, k] / STEPS_PER_MM)
    gate = running & ((plan.segments["flags"][index] & FLAG_GATE) != 0)
    power = plan.segments["end_power"][index] / POWER_FULL * RATED_W * gate
    wave = np.sin(t_us * 3e-6)
    track = np.clip(np.searchsorted(plan.tracks["first_segment"], index, "right") - 1, 0, None)
    values = {
        "speed_mm_s": np.where(
            gate, plan.tracks["speed_mm_s"][track] + 0.2 * wave, np.where(running, 30.0, 0.0)
        ),
        "power_set_w": np.where(running, POWER_W, 0.0),
        "power_commanded_w": power,
        "power_measured_w": power * (1 + 0.004 * wave),
        "gate": gate,
        "emission": gate,
        "armed": running,
        "interlock_ok": 1,
        "segment": np.where(running, index, -1),
        "plan_time_s": plan_us * 1e-6,
        "layer": np.where(running, plan.tracks["layer"][track], -1),
        "track": np.where(running, track, -1),
        "scale": 1,
        "trim": 1,
        "powder_1_set_g_min": FLOW_G_MIN,
        "powder_1_measured_g_min": fed * FLOW_G_MIN * (1 + 0.01 * np.sin(t_us * 9e-6)),
        "powder_1_left_g": 5000 - FLOW_G_MIN * t_us * 1e-6 / 60,
        "powder_2_left_g": 5000,
        "diverter_to_nozzle": running,
        "carrier_set_l_min": 6,
        "carrier_measured_l_min": 6 + 0.05 * wave,
        "shield_set_l_min": 18,
        "shield_measured_l_min": 18 - 0.1 * wave,
        "oxygen_ppm": 180 - 40 * (1 - np.exp(-t_us * 1e-7)),
        "coolant_deg_c": 22 + 0.3 * (1 - np.exp(-t_us * 5e-8)),
        "chiller_pressure_mpa": 0.3,
        "laser_temp_deg_c": 27,
        "pool_temp_deg_c": np.where(gate, 1720 + 25 * wave, np.nan),
        "beat_age_ms": 12,
        "link_age_ms": 4,
        "queued": 60,
        "state": np.where(t_us < lead_s * 1e6, 3, np.where(running, 6, 17)),
        "link_state": running * 2,
    }
    for name, value in values.items():
        rows[name] = value
    return rows[:n_rows]


HEADER = {
    "started_wall": "2026-11-24T14:05:09Z",
    "operator": "M. Weber",
    "cell": "sim",
    "cell_title": "Simulated 3-axis LMD cell",
    "simulated": True,
    "mode": "development",
    "recipe": "316l_general",
    "software": {"controller": "0.1.0", "firmware": "1.0", "protocol": "1", "python": "3.11"},
    "devices": {
        "laser": {"driver": "laser_ipg", "model": "YLR-1000 (simulated)", "serial": "S-17"},
        "oxygen": {"driver": "oxygen_eh", "model": "OXY5500", "calibrated": "2026-10-02"},
    },
    "materials": [
        {"hopper": 1, "powder": "316L", "lot": "SIM-001", "mass_g": 5000},
        {"hopper": 2, "powder": "IN625", "lot": "SIM-002", "mass_g": 5000},
    ],
    "seed": 7,
    "time": "virtual",
}


def write_job(path: Path, plan: BuildPlan) -> Path:
    """The job as the planner's room writes it."""
    planning_job.write_job(plan, path)
    return path


def events_of(plan: BuildPlan, lead_s: float = 4.0) -> list[tuple[int, str, dict]]:
    """State changes, a layer event each, an override, an alarm with its end."""
    lead_us = int(lead_s * 1e6)
    total_us = int(ticks_of(plan.segments).sum())
    found = [
        (0, "state", {"old": "IDLE", "new": "STARTING", "cause": "start by M. Weber"}),
        (lead_us, "state", {"old": "STARTING", "new": "EXECUTE", "cause": "ready"}),
        (lead_us + total_us // 3, "override",
         {"what": "speed", "old": 1.0, "new": 0.95, "who": "M. Weber"}),
        (lead_us + total_us // 2, "alarm",
         {"code": 302, "name": "SHIELD_LOW", "severity": "HOLD",
          "text": "Shield gas is below 80 % of set for 1 s.",
          "action": "Check bottle, valve and hose of the shield gas, then resume."}),
        (lead_us + total_us // 2 + 2_000_000, "alarm_clear", {"code": 302, "name": "SHIELD_LOW"}),
        (lead_us + total_us, "state",
         {"old": "COMPLETING", "new": "COMPLETE", "cause": "all tracks done"}),
    ]  # fmt: skip
    found += [
        (lead_us + int(row["start_s"] * 1e6), "layer", {"layer": int(row["layer"])})
        for row in plan.tracks
    ]
    return sorted(found, key=lambda e: e[0])


def write_record(
    folder: Path,
    plan: BuildPlan,
    *,
    key: Ed25519PrivateKey = KEY,
    header: dict | None = None,
    job: Path | None = None,
    n_rows: int | None = None,
    close: bool = True,
    state: str = "COMPLETE",
) -> dict:
    """Write a whole record; returns what ``close`` returned, {} when left open."""
    writer = RecordWriter(
        folder, key, HEADER if header is None else header, job=job, expected_s=60.0,
        sync_due=lambda: False,
    )  # fmt: skip
    events = events_of(plan)
    rows = telemetry_rows(plan, n_rows)
    for row in rows:
        t_us = int(row["t_us"])
        while events and events[0][0] <= t_us:
            writer.event(*events.pop(0))
        writer.telemetry(t_us, row.tobytes())
    if not close:
        return {}
    return writer.close(int(rows["t_us"][-1]), state, {"time_ratio": 31.4})


def write_trace(path: Path, plan: BuildPlan, lead_us: int = 4_000_000) -> Path:
    """The truth of the same ideal build."""
    ticks = ticks_of(plan.segments)
    with path.open("wb") as file:
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start()
        schema = writer.register_schema("octet", "", b"")
        channels = {
            topic: writer.register_channel(topic, "octet", schema)
            for topic in ("/trace/header", *TRACE_DTYPES, "/trace/event", "/trace/end")
        }

        def put(topic: str, t_us: int, data: bytes) -> None:
            writer.add_message(channels[topic], t_us * 1000, data, t_us * 1000)

        import json

        put("/trace/header", 0, json.dumps(
            {"seed": 7, "cell": "sim", "steps_per_mm": [400, 400, 400], "dtypes": TRACE_DTYPES}
        ).encode())  # fmt: skip
        pos = plan.start_steps + np.cumsum(plan.segments["steps"].astype(np.int64), axis=0)
        end_us = lead_us + np.cumsum(ticks)
        for k in range(len(ticks)):
            put("/trace/segment_ends", int(end_us[k]),
                struct.pack("<qi6i", int(end_us[k]), k, *(int(p) for p in pos[k])))  # fmt: skip
        figures = plan.figures
        n = int(end_us[-1]) // 10_000 + 1
        for k in range(n):
            share = min(1.0, max(0.0, (k * 10_000 - lead_us) / (int(end_us[-1]) - lead_us)))
            put("/trace/plant", k * 10_000, struct.pack(
                "<q10d2B", k * 10_000, 0, 0, 0, 0, 0, figures["energy_j"] * share * 1.001,
                figures["emission_s"] * share, figures["powder_g"] * share * 0.998, 0,
                figures["deposited_g"] * share * 0.99, 1, 1))  # fmt: skip
        put("/trace/event", lead_us, b'{"t_us": 1000000, "kind": "arm"}')
        put("/trace/end", int(end_us[-1]), b'{"segments": 1}')
        writer.finish()
    return path

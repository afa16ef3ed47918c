"""The bench of the loaded cell: what it makes of stream, trace and /proc."""

import os

import numpy as np
import pytest

from benchmarks import devices_load
from benchmarks.devices_load import Console, Meter
from controller.api.protocol import Kind
from hil_sim.trace import PLANT_ROW, Trace


def _console():
    return Console("IDLE", {"laser": [], "pyrometer": []})


def test_gaps_are_told_apart_by_what_the_cell_did():
    console = _console()
    for t_us, state in ((0, ""), (10_000, ""), (500_000, "EXECUTE"), (510_000, ""), (535_000, "")):
        if state:
            console.take(Kind.EVENT, {"kind": "state", "data": {"new": state}})
        console.take(Kind.TELEMETRY, t_us.to_bytes(8, "little") + b"\0" * 8)
    # the tick after a change of state belongs to the new one
    assert devices_load._gaps_ms(console) == (490.0, 10.0, 5)
    with pytest.raises(RuntimeError, match="nothing was measured"):
        devices_load._gaps_ms(_console())


def test_a_reading_that_stays_ages_in_every_view():
    console = _console()
    console.take(
        Kind.SNAPSHOT,
        {"time": {"t_us": 1000}, "laser": {"at_us": 71_000}, "pyrometer": {"at_us": 66_000}},
    )
    console.take(Kind.DELTA, {"time": {"t_us": 101_000}, "pyrometer": {"at_us": 169_000}})
    ages = console.ages_ms()
    assert ages["laser"].tolist() == [0.0, 100.0]
    assert ages["pyrometer"].tolist() == [5.0, 2.0]


def test_a_raised_alarm_counts_and_an_awaited_state_ends_the_wait():
    console = _console()
    console.asked_for = "STARTING"
    console.take(Kind.EVENT, {"kind": "alarm", "data": {"name": "TICK_LATE", "detail": "60 ms"}})
    assert (console.alarms, console.asked_for) == (["TICK_LATE 60 ms"], "STARTING")
    console.take(Kind.EVENT, {"kind": "state", "data": {"new": "STARTING"}})
    assert console.asked_for == ""


def test_beats_and_faults_are_those_of_the_trace(tmp_path):
    trace = Trace(tmp_path, {})
    beats_us = [0, 20_000, 40_000, 115_000, 135_000]
    plant = np.zeros(16, PLANT_ROW)
    plant["t_us"] = np.arange(16) * 10_000
    plant["beat_age_us"] = [t - max(b for b in beats_us if b <= t) for t in plant["t_us"]]
    plant["armed"][:8] = 1
    plant["fault"][13:] = 1
    trace.rows("/trace/plant", 0, plant.tobytes())
    trace.close(160_000, {})
    path = tmp_path / "trace.mcap"
    assert devices_load._beats(path, 0, 160_000) == (20.0, 75.0, ["BEAT_LOST"])
    assert devices_load._beats(path, 0, 120_000) == (20.0, 20.0, [])


TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")  # CPU times come in these


def test_cpu_of_a_process_is_what_it_used():
    meter = Meter((os.getpid(),))
    meter.sample("idle")
    begin_s = sum(os.times()[:2])
    while sum(os.times()[:2]) < begin_s + 0.2:
        sum(range(1000))
    meter.sample("build")
    used_s = sum(meter.used_s.values())
    assert 0.15 < used_s < 0.6
    assert meter.took_s["build"] >= 0.2 - TICK_S


def test_rows_meet_their_goals_or_not():
    told = {
        "devices": 16, "seconds": 60.0, "build_s": 20.0, "load_average": [1.0, 1.0, 1.0],
        "cpu_by_process_pct": dict.fromkeys(("server", "link", "recorder", "simulator"), 1.0),
        "cpu_pct": 61.0, "cpu_build_pct": 62.0, "cpu_idle_pct": 60.0, "faults": ["BEAT_LOST"],
        "beat_gap_armed_ms": 101.0, "beat_gap_ms": 102.0, "tick_gap_build_ms": 20.0,
        "tick_gap_rest_ms": 20.0, "ticks": 6000, "polls_s": 352.0, "old_pct": 3.0,
        "old_worst": "gas", "alarms": ["TICK_LATE"], "judge": [], "builds": 1,
    }  # fmt: skip
    assert [r["met"] for r in devices_load.rows(told)] == [False, False, False, None, False, False]
    told |= {"cpu_pct": 59.0, "faults": [], "beat_gap_armed_ms": 40.0, "old_pct": 0.1, "alarms": []}
    assert [r["met"] for r in devices_load.rows(told)] == [True, True, True, None, True, True]

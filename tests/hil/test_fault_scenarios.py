"""Faults on the whole cell: the right end, in time, judged from the simulator's trace."""

from pathlib import Path

import pytest

from controller.record.reader import read_record
from controller.record.verify import verify_record
from tests.hil import oracle
from tests.hil.whole_cell import build, example

pytestmark = [pytest.mark.hil, pytest.mark.slow]

# scenario -> state at the end, alarm that must be first, greatest time from onset to gate off
# (fault table of the design's reference; the hardware chain cuts e-stop and door by itself)
CASES = [
    ("estop", "ABORTED", {"ESTOP", "CHAIN_OPEN", "FIRMWARE_FAULT"}, 0.002),
    ("door", "ABORTED", {"DOOR_OPEN", "CHAIN_OPEN", "FIRMWARE_FAULT"}, 0.002),
    ("chiller_flow", "STOPPED", {"CHILLER_FLOW", "CHILLER_ALARM"}, 0.5),
    ("link_loss", "ABORTED", {"LINK_LOST"}, 0.105),
    ("feeder_stall", "STOPPED", {"POWDER_STALLED", "POWDER_STARVED"}, 1.0),
]


@pytest.mark.parametrize(("scenario", "state", "alarms", "limit_s"), CASES)
def test_fault_ends_the_build_safely_and_in_time(scenario, state, alarms, limit_s, tmp_path):
    result = build(example("blade.stl"), tmp_path, time_mode="null", scenario=scenario, seed=5)
    record = Path(result["record"])
    assert result["state"] == state
    names = [a["name"] for a in result["alarms"]]
    assert names, "a fault without an alarm"
    assert set(names[:2]) & alarms, names

    run = oracle.read(record / "trace.mcap")
    onset_us = next(e["t_us"] for e in run.events if e["kind"] == "fault_injected")
    gate = next(rows for topic, rows in run.rows.items() if topic.endswith("gate"))
    assert len(gate) > 0
    before = gate[gate["t_us"] <= onset_us]
    after = gate[gate["t_us"] > onset_us]
    if before[-1]["on"]:
        first_off = int(after[after["on"] == 0]["t_us"][0])
        assert first_off - onset_us <= limit_s * 1e6
    late = after[after["t_us"] > onset_us + limit_s * 1e6]
    assert not late["on"].any(), "the gate opened again"

    assert oracle.check(record / "trace.mcap", record / "job.lmdjob", complete=False) == []
    found = verify_record(record)
    assert found.ok, found.problems
    events = read_record(record).events
    assert any(e.kind == "alarm" for e in events)


def test_closing_the_door_again_starts_nothing(tmp_path):
    """The door scenario closes the door after 8 s; a reset never restarts."""
    result = build(example("rib.stl"), tmp_path, time_mode="null", scenario="door", seed=6)
    run = oracle.read(Path(result["record"]) / "trace.mcap")
    onset_us = next(e["t_us"] for e in run.events if e["kind"] == "fault_injected")
    gate = next(rows for topic, rows in run.rows.items() if topic.endswith("gate"))
    assert not gate[gate["t_us"] > onset_us]["on"].any()

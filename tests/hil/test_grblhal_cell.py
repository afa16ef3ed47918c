"""The whole cell on a grblHAL controller: builds, faults and holds, judged from the trace."""

import signal
from pathlib import Path

import pytest

from controller.record.verify import verify_record
from tests.hil import oracle
from tests.hil.dead_man import signalled
from tests.hil.whole_cell import build, example, write_box

pytestmark = [pytest.mark.hil, pytest.mark.slow]


def _judge(result):
    """What holds although the controller plans by itself."""
    planned, executed, truth = result["planned"], result["executed"], result["truth"]
    assert result["state"] == "COMPLETE"
    assert result["alarms"] == []
    assert truth["energy_j"] == pytest.approx(planned["energy_j"], rel=0.01)
    assert truth["emission_s"] == pytest.approx(planned["emission_s"], rel=0.01)
    assert executed["energy_j"] == pytest.approx(planned["energy_j"], rel=0.02)
    assert executed["layers"] == planned["layers"]
    assert executed["duration_s"] == pytest.approx(
        planned["duration_s"], rel=0.1
    )  # G0 is as fast as the axes are
    found = verify_record(Path(result["record"]))
    assert found.ok, found.problems
    assert found.complete


def test_the_blade_builds(tmp_path):
    _judge(build(example("blade.stl"), tmp_path, time_mode="null", cell="sim_grblhal"))


def test_same_seed_same_record_on_ptys_and_null_wires(tmp_path):
    box = write_box(tmp_path / "box.stl", (8.0, 5.0, 1.5))
    results = [
        build(box, tmp_path / mode, time_mode=mode, cell="sim_grblhal", seed=7)
        for mode in ("virtual", "null")
    ]
    for result in results:
        _judge(result)
    assert results[0]["content_hash"] == results[1]["content_hash"]
    assert results[0]["truth"] == results[1]["truth"]


@pytest.mark.parametrize(
    ("scenario", "state", "alarms", "limit_s"),
    [
        ("estop", "ABORTED", {"ESTOP", "CHAIN_OPEN"}, 0.15),
        ("door", "ABORTED", {"DOOR_OPEN", "CHAIN_OPEN"}, 0.15),
        ("link_loss", "ABORTED", {"LINK_LOST"}, 0.105),
        ("feeder_stall", "STOPPED", {"POWDER_STALLED", "POWDER_STARVED"}, 1.2),
    ],
)
def test_a_fault_ends_the_build_and_the_light(scenario, state, alarms, limit_s, tmp_path):
    result = build(
        example("blade.stl"),
        tmp_path,
        time_mode="null",
        cell="sim_grblhal",
        scenario=scenario,
        seed=5,
    )
    assert result["state"] == state
    names = [a["name"] for a in result["alarms"]]
    assert set(names[:2]) & alarms, names
    run = oracle.read(Path(result["record"]) / "trace.mcap")
    onset_us = next(e["t_us"] for e in run.events if e["kind"] == "fault_injected")
    plant = run.rows["/trace/plant"]
    late = plant[plant["t_us"] > onset_us + limit_s * 1e6]
    assert len(late) > 0
    assert not late["emission_w"].any(), "light after the fault"
    assert not late["gate"].any(), "the gate stayed open, or opened again"


# The watchdog's relay falls 100 ms after the last byte on the host's line. Nothing goes out from
# a dead link at once; over a stopped server the link goes on until its token is 60 ms old, and
# when the server died the link's last byte is a hold.
RELAY_LIMIT_MS = {"link": 105.0, "server": 165.0}


@pytest.mark.realtime
@pytest.mark.parametrize(("victim", "how"), [("link", signal.SIGKILL), ("server", signal.SIGSTOP)])
def test_the_watchdog_shuts_the_gate_after_a_signal(victim, how, tmp_path):
    record, took_ms = signalled("sim_grblhal", victim, how, tmp_path)
    limit_ms = RELAY_LIMIT_MS[victim]
    assert took_ms <= limit_ms, f"gate shut {took_ms:.1f} ms after the signal"
    found = verify_record(record)
    assert found.ok, found.problems

"""The dead-man in real time: link or server killed or stopped, the gate shuts by itself."""

import os
import signal
import time

import pytest

from controller.record.verify import verify_record
from tests.hil import oracle
from tests.hil.whole_cell import example, started_build

pytestmark = [pytest.mark.hil, pytest.mark.slow, pytest.mark.realtime]

# who gets the signal -> greatest time from the signal to the gate's falling edge
LIMIT_MS = {"link": 105.0, "server": 165.0}


def _wait_for_emission(client):
    """Until the gate has been open for a moment, well inside a bead."""
    end = time.monotonic() + 30.0
    seen = 0
    while time.monotonic() < end:
        status = client.call("status", timeout_s=5.0)
        seen = seen + 1 if status["motion"] and status["motion"]["gate_on"] else 0
        if seen >= 3:
            return
        time.sleep(0.02)
    raise AssertionError("no emission within 30 s")


def _wait_for(path):
    end = time.monotonic() + 10.0
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize("victim", ["link", "server"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_gate_shuts_after_the_signal(victim, how, tmp_path):
    with started_build(example("blade.stl"), tmp_path, time_mode="real") as cell:
        _wait_for_emission(cell["client"])
        pid = cell["told"]["link_pid"] if victim == "link" else cell["server"].pid
        sent_us = time.monotonic_ns() // 1000
        os.kill(pid, how)
        time.sleep(0.6)
        if how == signal.SIGSTOP:
            os.kill(pid, signal.SIGKILL)
        start_us = cell["simulator"]["start_us"]
    run = oracle.read(cell["record"] / "trace.mcap")
    gate = next(rows for topic, rows in run.rows.items() if topic.endswith("gate"))
    signal_us = sent_us - start_us
    before = gate[gate["t_us"] <= signal_us]
    after = gate[gate["t_us"] > signal_us]
    assert len(before), "no emission before the signal: proves nothing"
    assert before[-1]["on"], "the signal came with the gate shut: proves nothing"
    shut_us = int(after[after["on"] == 0]["t_us"][0])
    took_ms = (shut_us - signal_us) / 1e3
    assert took_ms <= LIMIT_MS[victim], f"gate shut {took_ms:.1f} ms after the signal"
    reopened = after[(after["t_us"] > signal_us + LIMIT_MS[victim] * 1e3) & (after["on"] == 1)]
    assert not len(reopened), "the gate opened again"
    violations = oracle.check(
        cell["record"] / "trace.mcap", cell["record"] / "job.lmdjob", complete=False
    )
    assert violations == []
    _wait_for(cell["record"] / "record.seal")  # the recorder closes it when its server is gone
    found = verify_record(cell["record"])
    assert found.ok, found.problems
    assert found.rows > 100

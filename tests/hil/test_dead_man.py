"""The dead-man in real time: link or server killed or stopped, the gate shuts by itself."""

import signal
import time

import pytest

from controller.record.verify import verify_record
from tests.hil import oracle
from tests.hil.dead_man import TRIES, emitting, gate_fell_ms, send

pytestmark = [pytest.mark.hil, pytest.mark.slow, pytest.mark.realtime]

# who gets the signal -> greatest time from the signal to the gate's falling edge
LIMIT_MS = {"link": 105.0, "server": 165.0}


def _wait_for(path):
    end = time.monotonic() + 10.0
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.02)


def _signalled(cell_name, victim, how, folder):
    """The record of a build whose link or server got the signal in a bead, and the time it took."""
    for attempt in range(TRIES):
        with emitting(folder / f"try{attempt}", cell_name) as cell:
            signal_us = send(cell, victim, how)
        took_ms = gate_fell_ms(cell["record"], signal_us)
        if took_ms is not None:
            return cell["record"], took_ms
    raise AssertionError("each signal came with the gate shut: proves nothing")


@pytest.mark.parametrize("victim", ["link", "server"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_gate_shuts_after_the_signal(victim, how, tmp_path):
    record, took_ms = _signalled("sim", victim, how, tmp_path)
    assert took_ms <= LIMIT_MS[victim], f"gate shut {took_ms:.1f} ms after the signal"
    violations = oracle.check(record / "trace.mcap", record / "job.lmdjob", complete=False)
    assert violations == []
    _wait_for(record / "record.seal")  # the recorder closes it when its server is gone
    found = verify_record(record)
    assert found.ok, found.problems
    assert found.rows > 100

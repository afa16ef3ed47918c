"""The dead-man in real time: link or server killed or stopped, the gate shuts by itself."""

import signal

import pytest

from controller.record.verify import verify_record
from tests.hil import oracle
from tests.hil.dead_man import signalled

pytestmark = [pytest.mark.hil, pytest.mark.slow, pytest.mark.realtime]

# who gets the signal -> greatest time from the signal to the gate's falling edge
LIMIT_MS = {"link": 105.0, "server": 165.0}


@pytest.mark.parametrize("victim", ["link", "server"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_gate_shuts_after_the_signal(victim, how, tmp_path):
    record, took_ms = signalled("sim", victim, how, tmp_path)
    assert took_ms <= LIMIT_MS[victim], f"gate shut {took_ms:.1f} ms after the signal"
    violations = oracle.check(record / "trace.mcap", record / "job.lmdjob", complete=False)
    assert violations == []
    found = verify_record(record)
    assert found.ok, found.problems
    assert found.rows > 100

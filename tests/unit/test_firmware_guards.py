"""What the firmware does by itself when the host, the cell or the plan fails."""

import struct

import numpy as np
import pytest

from tests.unit.firmware_bench import AXES, END, GATE, Host, line
from tests.unit.protocol_reader import config, frame, segment

BEAT_LOST, INTERLOCK, UNDERRUN, MAX_ON_TIME, STILL, HOST_ABORT = range(1, 7)


def running(seconds: float = 1.0) -> Host:
    host = Host().ready()
    host.send(line(round(seconds * 100), (100, 0, 0)))
    host.send(line(1, (4, 0, 0), flags=END))
    host.run_for(100_700)
    assert host.status["flags"] & 3 == 3
    return host


def test_beats_lost_shut_the_gate_after_exactly_100_ms():
    host = running()
    last = host.at(7)[-1]
    host.beating = False
    host.run_for(400_000)
    assert host.at(1, 0) == [last + 100_000]
    assert host.at(5, BEAT_LOST) == [last + 100_000]
    assert host.at(3, 0) == [last + 100_000]
    # decelerates within the limit (2000 mm/s2 = 0.8 steps/ms2), does not jump
    s = host.samples
    v = np.diff(s["pos"][s["t_us"] > last][:, 0].astype(int))
    assert v[0] == 10
    assert v[-1] == 0
    assert np.abs(np.diff(v)).max() <= 2
    assert host.status["state"] == "FAULT"
    assert host.status["queued"] == 0
    # beats that come back change nothing
    host.beating = True
    host.next_beat_us = host.now_us
    host.run_for(200_000)
    assert host.status["fault"] == "BEAT_LOST"
    assert len(host.at(1, 1)) == 1


def test_a_beat_one_microsecond_before_the_end_counts_and_one_at_the_end_does_not():
    for late_us, faults in ((-1, []), (0, [BEAT_LOST])):
        host = running()
        host.beating = False
        host.beat()
        host.run_for(100_000 + late_us)
        host.beat()
        host.run_for(5000)
        assert host.faults() == faults


def test_replayed_beats_do_not_keep_the_gate_open():
    host = running()
    host.beat()
    t = host.now_us
    old = frame("BEAT", 0, struct.pack("<III", host.nonce, host.session, host.counter))
    other = frame("BEAT", 0, struct.pack("<III", host.nonce + 1, host.session, 10**6))
    host.beating = False
    for _ in range(15):
        host.raw(old + other)
        host.run_for(10_000)
    assert host.at(5, BEAT_LOST) == [t + 100_000]


def test_interlock_lost_shuts_the_gate_at_once_and_needs_a_reset():
    host = running()
    host.fw.set_input(0, False)
    t = host.now_us
    assert host.at(1, 0) == [t]
    assert host.at(5, INTERLOCK) == [t]
    host.run_for(100_000)
    assert host.again("RESET") == "INTERLOCK"
    host.fw.set_input(0, True)
    host.run_for(100_000)
    assert host.status["fault"] == "INTERLOCK"
    assert host.arm() == "FAULT"
    assert host.again("RESET") == ""
    host.run_for(200_000)
    assert host.status["state"] == "IDLE"
    assert host.status["flags"] & 3 == 0  # neither armed nor gate: a reset restarts nothing
    assert len(host.at(1, 1)) == 1


def test_interlock_open_while_disarmed_is_no_fault_but_forbids_arming():
    host = Host()
    host.home()
    host.flush()
    host.fw.set_input(0, False)
    host.run_for(20_000)
    assert host.faults() == []
    assert host.arm() == "INTERLOCK"


def test_reset_is_refused_while_an_axis_moves():
    host = running()
    host.urgently("ABORT")
    assert host.again("RESET") == "BUSY"
    host.run_for(100_000)
    assert host.again("RESET") == ""


def test_abort_shuts_the_gate_at_once_latches_and_disarms():
    host = running()
    host.urgently("ABORT")
    t = host.now_us
    assert host.at(1, 0) == [t]
    assert host.at(5, HOST_ABORT) == [t]
    assert host.at(3, 0) == [t]
    # the latched fault is told at once, not with the next status
    event = [f for f in host.frames if f.name == "EVENT"][-1]
    assert {"t_us": t, "code": 5, "arg": HOST_ABORT, "segment": 10} in event.values["events"]


def test_disarm_shuts_the_gate_at_once():
    host = running()
    host.urgently("DISARM")
    assert host.at(1, 0) == [host.now_us]
    host.run_for(100_000)
    assert host.status["state"] == "HELD"
    assert host.again("UNHOLD") == "NOT_ARMED"


def test_longest_emission_is_cut_to_the_microsecond():
    host = Host(config(AXES, max_on_ms=250))
    host.ready()
    start = host.now_us
    host.send(line(80, (100, 0, 0)) + line(1, (4, 0, 0), flags=END))
    host.run_for(500_000)
    assert host.at(1, 0) == [start + 250_000]
    assert host.faults() == [MAX_ON_TIME]


def test_emission_on_a_still_axis_is_cut():
    host = Host().ready()
    start = host.now_us
    # zero steps for 10 ms are rounding, for 50 ms they are not
    host.send(line(20, (0, 0, 0), flags=GATE) + line(1, (4, 0, 0), flags=END))
    host.run_for(300_000)
    assert host.faults() == [STILL]
    assert host.at(1, 0)[0] - start <= 51_000


def test_a_queue_that_runs_dry_is_an_underrun():
    host = Host().ready()
    # many slots used: half the queue full counts as fed, so it runs to the very end
    host.send(line(1024, (0, 0, 1), 60, flags=0)[:1024])
    start = host.at(4, 2)[-1]
    host.run_for(300_000)
    held = host.status
    assert (held["state"], held["fault"]) in (("HELD", ""), ("FAULT", "UNDERRUN"))
    assert start
    # 500 us long pieces at top speed: no stop is possible in what is left
    host = Host().ready()
    host.send(line(1023, (24, 0, 0), 500, flags=GATE))
    host.send(line(1, (24, 0, 0), 500, flags=GATE))
    host.run_for(700_000)
    assert host.faults() == []  # 341 ms are enough


def test_underrun_faults_when_the_stop_was_not_possible():
    host = Host(config([(20000, 48000, 4_000_000, 0, 1200000)] + AXES[1:2], accel=600_000)).ready()
    # total acceleration 0.6 mm/s2 takes far longer than the axes' own stop need
    host.send(line(60, (200, 0, 0), 10000, flags=GATE))
    host.run_for(900_000)
    assert host.faults() == [UNDERRUN]
    assert host.status["state"] == "FAULT"


def test_no_gate_without_arming():
    host = Host()
    host.home()
    host.flush()
    host.send(line(50, (40, 0, 0)))
    host.run_for(500_000)
    assert host.at(1, 1) == []
    assert host.status["pos"][0] == 0


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (segment((40,), 0), "BAD_SEGMENT"),
        (segment((40,), 10000, flags=0x20), "BAD_SEGMENT"),
        (segment((40,), 10000, flags=2), "BAD_SEGMENT"),
        (segment((0, 0, 0, 1), 10000), "BAD_SEGMENT"),
        (segment((), 60000, flags=GATE), "BAD_SEGMENT"),
        (segment((), 5, flags=8), "BAD_SEGMENT"),
        (segment((495,), 10000), "BAD_SEGMENT"),  # 49400 steps/s of 48000
        (segment((300,), 10000, ratio=1.9), "BAD_SEGMENT"),  # 56810 at the start
        (segment((-5,), 10000), "TRAVEL"),
        (segment((480,), 10000), ""),
    ],
)
def test_segments_that_may_not_be_are_refused_whole(bad, why):
    host = Host().ready()
    assert host.send([segment((4,), 10000), bad]) == why
    host.run_for(20_000)
    assert host.status["next_segment"] == (0 if why else 2)


def test_unhomed_segments_and_arming_are_refused():
    host = Host()
    host.beat()
    host.flush()
    assert host.send(line(1, (4, 0, 0))) == "NOT_HOMED"
    assert host.arm() == "NOT_HOMED"

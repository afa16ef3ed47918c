"""Limit switches, following error, encoders: latched, stopped in order, position honest."""

import struct
import zlib

import numpy as np
import pytest

from hil_sim.firmware import (
    INPUT_FOLLOWING,
    INPUT_LIMIT_HIGH,
    INPUT_LIMIT_LOW,
    NativeFirmware,
)
from tests.unit.firmware_bench import AXES, END, GATE, Host, line
from tests.unit.protocol_reader import config, frame
from tests.unit.test_firmware_jog import hold_stick

LIMIT, FOLLOWING, LOST_STEPS = 8, 9, 10
LIMITS = config(AXES, limits=0x0707)
FOLLOW = config(AXES, flags=1)


def encoders(ratio: int = 65536, lost: int = 20) -> bytes:
    return config([(*axis, ratio, lost) for axis in AXES])


def running(blob: bytes) -> Host:
    host = Host(blob).ready()
    host.send(line(100, (100, 0, 40), flags=GATE) + line(1, (4, 0, 0), flags=END))
    return host


def smooth(host: Host, since_us: int) -> None:
    s = host.samples
    v = np.diff(s["pos"][s["t_us"] >= since_us][:, 0].astype(int))
    assert v[-1] == 0
    assert np.abs(np.diff(v)).max() <= 2


def test_a_limit_switch_latches_a_fault_and_stops_within_the_acceleration():
    host = running(LIMITS)
    host.fw.set_sensor(INPUT_LIMIT_HIGH + 0, 0, 5000, 1)
    start = host.now_us
    host.run_for(900_000)
    assert host.faults() == [LIMIT]
    (t,) = host.at(5, LIMIT)
    assert start + 500_000 <= t <= start + 501_000  # 10 steps a ms: noticed on the ms
    assert host.at(1, 0) == [t]
    smooth(host, t)
    assert host.status["state"] == "FAULT"
    assert host.status["flags"] & 9 == 0  # disarmed, and not homed: the count may be wrong
    assert host.status["inputs"] & 1 << 13
    # it can be cleared on the switch, and the axis can be jogged away but not on
    assert host.again("RESET") == ""
    assert host.arm() == "NOT_HOMED"
    there = host.status["pos"][0]
    hold_stick(host, 200, 5000)
    assert host.status["pos"][0] == there
    hold_stick(host, 600, -5000)
    host.run_for(200_000)
    assert host.status["pos"][0] < 5000
    assert host.status["inputs"] & 1 << 13 == 0
    host.home()
    assert host.faults() == [LIMIT]


def test_a_limit_switch_seen_by_the_board_faults_at_its_edge():
    host = running(LIMITS)
    host.run_for(100_333)
    host.fw.set_input(INPUT_LIMIT_HIGH + 2, True)
    assert host.at(5, LIMIT) == [host.now_us]


def test_a_limit_switch_behind_the_axis_or_not_in_use_is_no_fault():
    host = running(LIMITS)
    host.run_for(100_000)
    host.fw.set_input(INPUT_LIMIT_LOW + 0, True)  # X goes up
    host.fw.set_input(INPUT_LIMIT_HIGH + 1, True)  # Y stands still
    host.run_for(100_000)
    assert host.faults() == []
    host = running(config(AXES))
    host.run_for(100_000)
    host.fw.set_input(INPUT_LIMIT_HIGH + 0, True)
    host.run_for(100_000)
    assert host.faults() == []
    assert host.status["inputs"] & 1 << 13 == 0


def test_arming_on_a_closed_limit_switch_is_refused():
    host = Host(LIMITS)
    host.home()
    host.flush()
    host.fw.set_input(INPUT_LIMIT_LOW + 1, True)
    assert host.arm() == "INPUT"
    host.fw.set_input(INPUT_LIMIT_LOW + 1, False)
    assert host.arm() == ""


def test_home_and_low_limit_may_be_one_switch():
    host = Host(LIMITS)
    for k in range(3):
        host.fw.set_sensor(INPUT_LIMIT_LOW + k, k, 0, -1)
    host.home()
    assert host.faults() == []


def test_homing_that_meets_a_limit_before_its_switch_faults():
    host = Host(LIMITS)
    host.fw.set_sensor(INPUT_LIMIT_LOW + 0, 0, 500, -1)
    host.beat()
    assert host.again("HOME") == ""
    host.run_for(2_000_000)
    assert host.faults() == [LIMIT]
    assert host.status["state"] == "FAULT"
    assert host.again("RESET") == ""


def test_a_jog_into_a_limit_faults():
    host = Host(LIMITS)
    host.fw.place(0, 3000)
    host.fw.set_sensor(INPUT_LIMIT_LOW + 0, 0, 1000, -1)
    with pytest.raises(AssertionError):  # the next repeat is refused with FAULT
        hold_stick(host, 1000, -8000)
    host.run_for(200_000)
    assert host.faults() == [LIMIT]
    smooth(host, host.at(5, LIMIT)[0])


def test_following_error_latches_a_fault_moving_or_not_and_needs_its_cause_gone():
    for wait in (100_123, 10_000_000):
        host = running(FOLLOW)
        host.run_for(wait)
        if wait > 10**6:
            host.urgently("DISARM")
        host.fw.set_input(INPUT_FOLLOWING, True)
        t = host.now_us
        assert host.at(5, FOLLOWING) == [t]
        host.run_for(100_000)
        smooth(host, t)
        assert host.status["flags"] & 11 == 0  # disarmed, gate off, not homed
        assert host.again("RESET") == "INPUT"
        host.fw.set_input(INPUT_FOLLOWING, False)
        assert host.again("RESET") == ""
        assert host.arm() == "NOT_HOMED"


def test_following_error_is_ignored_where_it_is_not_in_use():
    host = running(config(AXES))
    host.fw.set_input(INPUT_FOLLOWING, True)
    host.run_for(100_000)
    assert host.faults() == []


@pytest.mark.parametrize("ratio", [65536, -65536, 163840, 6554])
def test_encoders_that_agree_are_no_fault_and_slips_within_the_bound_are_told(ratio):
    host = running(encoders(ratio))
    host.run_for(500_300)
    assert all(abs(lost) <= 11 for lost in host.status["lost"])  # 10 steps: one count at 6554
    truth = host.samples["pos"][-1][0]
    slip = 5 if ratio == 6554 else 15
    host.fw.place(0, int(truth) - slip)  # and the 3 steps since the last whole ms
    host.run_for(10_700)
    if ratio == 65536:
        assert 15 <= host.status["lost"][0] <= 19
    host.run_for(800_000)
    assert host.faults() == []


def test_lost_steps_latch_a_fault_and_the_difference_stays_on_view():
    host = running(encoders())
    host.run_for(500_300)
    truth = int(host.samples["pos"][-1][0])
    host.fw.place(0, truth - 60)
    t = host.now_us
    host.run_for(200_000)
    assert host.faults() == [LOST_STEPS]
    assert host.at(5, LOST_STEPS)[0] - t <= 1000
    assert host.at(1, 0) == host.at(5, LOST_STEPS)
    smooth(host, t)
    assert 57 <= host.status["lost"][0] <= 73
    assert host.status["flags"] & 9 == 0
    # the comparison begins anew, and homing finds the truth
    assert host.again("RESET") == ""
    host.run_for(50_000)
    assert host.status["lost"][0] == 0
    host.home()
    assert host.status["pos"][:3] == [0, 0, 0]
    assert host.faults() == [LOST_STEPS]


def test_an_axis_pushed_at_rest_is_seen():
    host = Host(encoders())
    host.home()
    host.fw.place(1, 100)
    host.run_for(20_000)
    assert host.faults() == [LOST_STEPS]


@pytest.mark.parametrize(
    "blob",
    [
        config(AXES)[:-1],
        config(AXES, flags=4),
        config(AXES, limits=0x0008),  # no fourth axis
        config([(*axis, 65536, 0) for axis in AXES]),  # encoder without a bound
        config([(*axis, 0, 5) for axis in AXES]),  # bound without encoder
        config([(*axis, 1 << 25, 5) for axis in AXES]),
        config([(400000, 50_000_001, 800_000_000, 0, 1000)]),
        b"\x01" + config(AXES)[1:],
        config(AXES)[:22] + b"\x01" + config(AXES)[23:],
    ],
)
def test_configurations_that_cannot_be_are_refused(blob):
    with pytest.raises(ValueError, match="refuses the configuration"):
        NativeFirmware(blob, 1)


def test_the_configuration_tells_hosts_apart_that_do_not_use_the_same_inputs():
    host = Host(LIMITS)
    host.home()
    other = zlib.crc32(config(AXES))
    payload = struct.pack("<IIII", host.nonce, 5, other, 0)
    (nak,) = [f for f in host.raw(frame("ARM", host.seq, payload)) if f.name == "NAK"]
    assert nak.values["why"] == "CONFIG"

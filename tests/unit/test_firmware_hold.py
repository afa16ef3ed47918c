"""Time scaling: hold, resume and override keep the axes' limits; power follows."""

import math
import random
import struct

import numpy as np
import pytest

from tests.unit.firmware_bench import DWELL, END, GATE, TRACK, Host, line
from tests.unit.protocol_reader import config, segment

STEPS_MM = 100_000  # fine, so that differences of positions show the acceleration
ACCEL = 2000.0
FINE = config(
    [(STEPS_MM * 1000, 12_000_000, 200_000_000, -30_000_000, 30_000_000)] * 3, accel=2_000_000
)


def fast_path(speed_mm_s: float, dt_s: float = 0.00025) -> list[bytes]:
    """Ramp, line, circle at the planned limit, line, ramp down: planned within 0.8 * ACCEL."""
    plan_a = 0.8 * ACCEL
    ramp_s = speed_mm_s / plan_a
    radius = speed_mm_s**2 / plan_a
    turn_s = 2 * math.pi * radius / speed_mm_s
    v, heading, x, y, done = 0.0, 0.3, 0.0, 0.0, [0, 0]
    out = []
    total = 2 * ramp_s + 2 * 0.05 + 4 * turn_s
    n = round(total / dt_s)
    for i in range(n):
        t = i * dt_s
        v1 = min(speed_mm_s, plan_a * (t + dt_s), plan_a * (total - t - dt_s))
        v1 = max(v1, 0.0)
        turning = ramp_s + 0.05 <= t < ramp_s + 0.05 + 4 * turn_s
        mean = (v + v1) / 2
        if turning:
            heading += mean * dt_s / radius
        x += mean * dt_s * math.cos(heading)
        y += mean * dt_s * math.sin(heading)
        goal = [round(x * STEPS_MM), round(y * STEPS_MM)]
        steps = [goal[0] - done[0], goal[1] - done[1]]
        done = goal
        ratio = min(1.99, v / mean) if mean > 0 else 0.0
        flags = GATE if mean > 0 and any(steps) else 0
        out.append(
            segment(steps, 250, ratio, power=40000, flags=flags | (END if i == n - 1 else 0))
        )
        v = v1
    return out


def worst_accel(host: Host, since_us: int) -> float:
    """Greatest acceleration of X, Y from second differences over 2 ms, mm/s2."""
    s = host.samples
    p = s["pos"][s["t_us"] >= since_us][:, :2] / STEPS_MM
    h = 0.002
    a = (p[4:] - 2 * p[2:-2] + p[:-4]) / h**2
    assert len(a) > 50
    return float(np.hypot(a[:, 0], a[:, 1]).max())


def feed(host: Host, plan: list[bytes], until_us: int) -> list[bytes]:
    """Run and keep the queue fed; returns what is left."""
    while host.now_us < until_us:
        credit = host.status["next_segment"] + host.status["free"] - host.index
        room = credit // 20 * 20
        assert host.send(plan[:room]) == ""
        plan = plan[room:]
        host.run(min(until_us, host.now_us + 20_000))
    return plan


@pytest.mark.parametrize("seed", range(12))
def test_hold_now_and_resume_keep_the_acceleration_limit(seed):
    rng = random.Random(seed)
    speed = rng.uniform(20, 60)
    host = Host(FINE).ready()
    plan = fast_path(speed)
    host.run_for(10_000)
    begin = host.now_us
    assert host.send(plan[:2000]) == ""
    plan = feed(host, plan[2000:], begin + rng.randrange(30_000, 200_000))
    t = host.now_us
    gate_was_on = host.samples["gate"][-1]
    host.urgently("HOLD_NOW")
    if gate_was_on:
        assert host.at(1, 0)[-1] == t
    plan = feed(host, plan, t + 100_000)
    held = next(h for h in host.at(4, 4) if h > t)
    assert held - t <= min(50_000, 50_000 * speed / 60 + 500)
    assert host.samples["power"][-1] == 0
    plan = feed(host, plan, t + 150_000)
    still = host.samples["pos"][host.samples["t_us"] >= held]
    assert (still == still[0]).all()
    assert host.again("UNHOLD") == ""
    feed(host, plan, begin + 1_700_000)
    assert host.status["state"] == "IDLE"
    assert host.faults() == []
    assert worst_accel(host, begin) <= 1.02 * ACCEL + 5  # 5: half steps over 2 ms


@pytest.mark.slow
def test_hold_now_at_60_mm_s_stands_still_within_50_ms():
    rng = random.Random(60)
    took = []
    for _ in range(20):
        host = Host(FINE).ready()
        plan = fast_path(60.0)
        host.run_for(10_000)
        moment = host.now_us + rng.randrange(40_000, 200_000)
        assert host.send(plan[:2000]) == ""
        plan = feed(host, plan[2000:], moment)
        host.urgently("HOLD_NOW")
        feed(host, plan, moment + 60_000)
        took.append(next(h for h in host.at(4, 4) if h > moment) - moment)
        # it ends where the scale is 0, not on the next whole ms
    assert max(took) <= 50_000
    assert max(took) > 40_000
    assert any(t % 1000 for t in took)


def test_gate_reopens_only_when_the_scale_is_back():
    host = Host().ready()
    host.send(line(150, (100, 0, 0), flags=GATE) + line(1, (4, 0, 0), flags=END))
    host.run_for(205_300)
    host.urgently("HOLD_NOW")
    t_hold = host.now_us
    host.run_for(100_000)
    assert host.status["state"] == "HELD"
    assert host.again("UNHOLD") == ""
    t_unhold = host.now_us
    host.run_for(100_000)
    assert host.at(1, 0)[0] == t_hold
    reopened = host.at(1, 1)[1]
    assert reopened > t_unhold + 5000
    s = host.samples
    step_ms = np.diff(s["pos"][:, 0])[s["t_us"][1:] > reopened][:20]
    assert (step_ms == 10).all()  # full speed from there on


def test_hold_waits_for_the_end_of_the_track():
    host = Host().ready()
    start = host.now_us
    track = line(1, (40, 0, 0), flags=GATE | TRACK) + line(19, (40, 0, 0), flags=GATE)
    travel = line(20, (-40, 0, 0), flags=0)
    host.send((track + travel) * 2 + line(1, (0, 4, 0), flags=END))
    host.run_for(50_000)
    assert host.command("HOLD") == ""
    host.run_for(10_000)
    assert host.status["flags"] & 16
    assert host.status["state"] == "RUN"
    host.run_for(300_000)
    assert host.at(1, 0) == [start + 200_000]
    assert host.at(4, 3) == [start + 200_000]
    assert host.status["state"] == "HELD"
    assert host.again("UNHOLD") == ""
    host.run_for(900_000)
    assert host.status["state"] == "IDLE"
    assert len(host.at(1, 1)) == 2


def test_hold_with_the_gate_shut_acts_at_once():
    host = Host().ready()
    host.send(line(50, (40, 0, 0), flags=0) + line(1, (40, 0, 0), flags=END))
    host.run_for(50_000)
    host.command("HOLD")
    assert host.at(4, 3) == [host.now_us]


def test_hold_now_at_rest_keeps_the_next_job_from_starting():
    host = Host().ready()
    host.urgently("HOLD_NOW")
    assert host.send(line(3, (40, 0, 0), flags=END)) == ""
    host.run_for(100_000)
    assert host.status["state"] == "HELD"
    assert host.status["pos"][0] == 0
    assert host.again("UNHOLD") == ""
    host.run_for(100_000)
    assert host.status["pos"][0] == 120


def test_a_lost_unhold_sent_again_does_not_undo_a_later_stop():
    host = Host().ready()
    host.send(line(60, (40, 0, 0)) + line(1, (40, 0, 0), flags=END))
    host.urgently("HOLD_NOW")
    quoted = struct.pack("<I", host.urgent)  # UNHOLD made now, lost on the wire ...
    host.run_for(100_000)
    host.urgently("HOLD_NOW")  # ... a second stop overtakes it ...
    assert host.command("UNHOLD", quoted) == "STALE"  # ... and it is sent again
    host.run_for(50_000)
    assert host.status["state"] == "HELD"


def test_override_scales_speed_and_is_refused_beyond_the_margin():
    host = Host().ready()
    host.send(line(90, (80, 0, 0)) + line(1, (80, 0, 0), flags=END))
    host.run_for(50_000)
    assert host.command("OVERRIDE", struct.pack("<H", 16384)) == ""
    host.run_for(100_000)
    assert host.status["scale"] == 16384
    assert set(np.diff(host.samples["pos"][-20:, 0])) == {4}  # 8 a ms planned
    assert host.command("OVERRIDE", struct.pack("<H", 37000)) == "RANGE"  # 1/sqrt(0.8) = 1.118
    assert host.command("OVERRIDE", struct.pack("<H", 36000)) == ""
    host.run_for(100_000)
    assert host.status["scale"] == 36000
    assert host.at(1, 0) == []  # the gate stayed open


def test_override_that_an_axis_cannot_follow_is_refused():
    host = Host().ready()
    host.send(line(90, (450, 0, 0)) + line(1, (450, 0, 0), flags=END))  # 45000 of 48000 steps/s
    assert host.command("OVERRIDE", struct.pack("<H", 36000)) == "RANGE"


def test_queue_that_runs_low_holds_by_itself_and_continues_when_fed():
    host = Host().ready()
    host.send(line(40, (40, 0, 0)))
    start = host.now_us
    host.run_for(600_000)
    # stop need is 170 ms: noticed on the first ms at which less than that is left
    assert host.at(9, 3) == [start + 231_000]
    assert host.at(1, 0) == [start + 231_000]
    assert host.status["state"] == "HELD"
    assert host.faults() == []
    assert host.status["queued"] > 0
    assert host.again("UNHOLD") == "LOW"
    host.send(line(40, (40, 0, 0)) + line(1, (40, 0, 0), flags=END))
    assert host.again("UNHOLD") == ""
    host.run_for(800_000)
    assert host.status["pos"][0] == 81 * 40
    assert host.faults() == []


def test_power_under_scale_is_linear_and_zero_when_held():
    host = Host().ready()
    host.send(line(1, (200, 0, 0)) + line(59, (200, 0, 0)) + line(1, (4, 0, 0), flags=END))
    host.run_for(200_000)
    host.urgently("HOLD_NOW")
    host.run_for(100_000)
    s = host.samples
    v = np.diff(s["pos"][:, 0].astype(int))
    run = slice(-100, -1)
    # floor 0 here: power / full power is the scale, as the speed is
    assert s["power"][-1] == 0
    speed = v[run] / 20.0
    power = s["power"][1:][run] / 30000.0
    assert np.abs(speed - power).max() < 0.1  # whole steps, and the mean over a ms
    assert (np.diff(power) <= 0).all()


def test_a_planned_dwell_is_no_standstill():
    host = Host().ready()
    host.send([segment((), 200_000, power=1000, flags=GATE | DWELL)])
    host.send(line(1, (4, 0, 0), flags=END))
    host.run_for(300_000)
    assert host.faults() == []
    assert host.status["pos"][0] == 4

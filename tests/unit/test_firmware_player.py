"""The segment player against exact arithmetic in Python: steps, instants, power, gate."""

import random
from fractions import Fraction

import numpy as np
import pytest

from tests.unit.firmware_bench import AXES, DWELL, END, GATE, PARAM, TRACK, Host, line
from tests.unit.protocol_reader import config, segment


def where(d: int, ratio: float, x: Fraction) -> Fraction:
    """Steps made after the part x of a segment's time."""
    r = Fraction(round(ratio * 32768), 32768)
    return d * (r * x + (1 - r) * x * x)


def random_segments(rng: random.Random, n: int) -> list[dict]:
    out = []
    pos = [0, 0, 0]
    for _ in range(n):
        ticks = rng.choice([37, 200, 1000, 1999, 2500, 10000, 33333])
        ratio = rng.uniform(0, 1.999)
        most = [int(speed * ticks / 1e6 / 2) for speed in (48000, 48000, 16000)]
        steps = [rng.randint(-m, m) for m in most]
        steps = [abs(s) if p + s < 0 else s for s, p in zip(steps, pos, strict=True)]
        pos = [p + s for p, s in zip(pos, steps, strict=True)]
        out.append({"steps": steps, "ticks": ticks, "ratio": ratio, "power": rng.randint(0, 65535)})
    return out


@pytest.mark.parametrize("seed", range(4))
def test_steps_instants_and_power_are_exact(seed):
    rng = random.Random(seed)
    plan = random_segments(rng, 300)
    host = Host().ready()
    start = host.now_us
    assert host.send([segment(flags=END if i == 299 else 0, **p) for i, p in enumerate(plan)]) == ""
    host.run_for(sum(p["ticks"] for p in plan) + 5000)

    rows = host.rows
    ends = rows[rows["kind"] == 2]
    assert len(ends) == 300
    t = start + np.cumsum([p["ticks"] for p in plan])
    assert ends["t_us"].tolist() == t.tolist()
    sums = np.cumsum([p["steps"] for p in plan], axis=0)
    assert ends["pos"][:, :3].tolist() == sums.tolist()
    assert ends["segment"].tolist() == list(range(300))

    checked = 0
    for s in host.samples:
        now = int(s["t_us"])
        i = int(np.searchsorted(t, now, side="right"))
        if now <= start or i >= 300:
            continue
        t0 = int(t[i - 1]) if i else start
        x = Fraction(now - t0, plan[i]["ticks"])
        before = sums[i - 1] if i else (0, 0, 0)
        for k in range(3):
            exact = before[k] + where(plan[i]["steps"][k], plan[i]["ratio"], x)
            assert abs(int(s["pos"][k]) - exact) <= Fraction(51, 100)
        p0 = plan[i - 1]["power"] if i else 0
        assert abs(int(s["power"]) - (p0 + (plan[i]["power"] - p0) * x)) <= 1
        checked += 1
    assert checked > 500


def test_gate_follows_the_plan_to_the_microsecond():
    host = Host().ready()
    start = host.now_us
    plan = line(1, (40, 0, 0), 12345, flags=0) + line(3, (40, 0, 0), 7777, flags=GATE | TRACK)
    plan += line(1, (40, 0, 0), 5001, flags=0) + [segment((), 3333, power=5, flags=GATE | DWELL)]
    plan += line(1, (-40, 0, 0), 5000, flags=END)
    assert host.send(plan) == ""
    host.run_for(100_000)
    on = start + 12345
    off = on + 3 * 7777
    assert host.at(1, 1) == [on, off + 5001]
    assert host.at(1, 0) == [off, off + 5001 + 3333]
    assert host.at(6) == [on, on + 7777, on + 2 * 7777]
    assert host.status["state"] == "IDLE"
    assert host.status["segment"] == 6


def test_nothing_moves_before_arming_and_a_second_job_starts_by_itself():
    host = Host()
    host.home()
    host.flush(100)
    assert host.send(line(3, (40, 0, 0), flags=END)) == ""
    host.run_for(200_000)
    assert host.status["state"] == "IDLE"
    assert host.status["segment"] == 99
    assert host.arm() == ""
    host.run_for(100_000)
    assert host.status["segment"] == 102
    assert host.send(line(2, (40, 0, 0), flags=END)) == ""
    host.run_for(100_000)
    assert host.status["pos"][0] == 200


def test_starts_with_twice_the_stop_need_queued():
    # greatest speed / acceleration is 80 ms (Z): need 2.1 * 80 + 2 = 170 ms, start 340 ms
    host = Host().ready()
    assert host.send(line(33, (40, 0, 0))) == ""
    host.run_for(50_000)
    assert host.status["state"] == "IDLE"
    assert host.send(line(1, (40, 0, 0))) == ""
    assert host.at(4, 2) == [host.now_us]


def test_param_record_sets_floor_and_takes_no_time():
    host = Host().ready()
    start = host.now_us
    plan = [segment((), 0, power=6554, speed=16384, flags=PARAM)] + line(50, (40, 0, 0))
    assert host.send(plan + line(1, (40, 0, 0), flags=END)) == ""
    host.run_for(100_000)
    ends = host.rows[host.rows["kind"] == 2]
    assert (int(ends["t_us"][0]), int(ends["segment"][0])) == (start, 0)
    assert host.command("OVERRIDE", b"\x00\x50") == ""  # 0.625
    host.run_for(60_000)
    assert host.status["scale"] == 20480
    # 6554 + (30000 - 6554) * 0.625
    assert abs(host.status["power"] - 21208) <= 2
    assert host.command("OVERRIDE", b"\xff\x3f") == ""  # 0.49997, below the least
    assert host.at(9, 1) == [host.now_us]


def test_trim_scales_power_and_dies_after_100_ms():
    host = Host().ready()
    assert host.send(line(99, (40, 0, 0)) + line(1, (40, 0, 0), flags=END)) == ""
    host.run_for(50_000)
    assert host.command("TRIM", b"\x66\x86") == ""  # 1.05
    t = host.now_us
    host.run_for(150_000)
    power = {int(s["t_us"]): int(s["power"]) for s in host.samples}
    assert power[t] == 30000
    assert power[t + 1000] == 31499  # 30000 * 34406 / 32768, cut
    assert power[t + 99000] == 31499
    assert power[t + 100000] == 30000


def test_state_does_not_depend_on_how_often_it_is_run():
    outcomes = []
    for slice_us in (50, 730, 10**6):
        host = Host().ready()
        rng = random.Random(5)
        plan = random_segments(rng, 120)
        host.send([segment(flags=END if i == 119 else GATE, **p) for i, p in enumerate(plan)])
        start = host.now_us
        for t in (61_234, 203_000, 600_000):
            while host.now_us < start + t:
                host.run(min(start + t, host.now_us + slice_us))
            if t == 61_234:
                host.urgently("HOLD_NOW")
            elif t == 203_000:
                host.again("UNHOLD")
        rows = host.rows
        outcomes.append(rows[rows["kind"] != 7].tobytes() + host.samples["pos"].tobytes())
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_homing_finds_true_zero_from_both_sides_and_needs_beats():
    host = Host()
    for axis, steps in enumerate((2000, -37, 0)):
        host.fw.place(axis, steps)
    assert host.again("HOME") == "NO_BEAT"
    host.home()
    assert host.status["pos"][:3] == [0, 0, 0]
    # the firmware counts from zero now, so coming back to true zero must find the switch there
    host.flush()
    host.arm()
    host.send(line(30, (40, 40, 40), flags=0) + line(1, (-400, 0, 0), flags=END))
    host.run_for(400_000)
    assert host.status["pos"][:3] == [800, 1200, 1200]
    host.urgently("DISARM")
    host.home()
    assert host.at(5) == []

    lost = Host()
    lost.fw.place(0, 10**6)
    lost.beat()
    t = lost.now_us
    assert lost.again("HOME") == ""
    lost.beating = False
    lost.run_for(300_000)
    assert lost.at(5, 1) == [t + 100_000]
    assert lost.status["state"] == "FAULT"
    assert lost.status["flags"] & 8 == 0


def test_homing_gives_up_after_more_than_the_travel():
    host = Host(config([(400000, 48000, 800000, 0, 4000)] + AXES[1:]))
    host.fw.place(0, 10**6)
    host.beat()
    assert host.again("HOME") == ""
    host.run_for(2_000_000)
    assert host.faults() == [7]

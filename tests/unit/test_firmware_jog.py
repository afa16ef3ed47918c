"""Jog with its dead-man, and probing: limits of speed, travel and acceleration, refusals."""

import math
import struct

import numpy as np
import pytest

from hil_sim.firmware import INPUT_PROBE, PROBE_MISSED, PROBED
from tests.unit.firmware_bench import AXES, NONCE, Host, line
from tests.unit.protocol_reader import config, frame

WITH_PROBE = config(AXES, flags=2)
JOG, PROBE, IDLE, HELD = 6, 7, 0, 4
FOUND, MISSED, ENDED = 2, 3, 4


def jog(host: Host, *speeds: int, urgent: int | None = None) -> str:
    """One JOG now; "" or the reason of its refusal."""
    host.counter += 1
    urgent = host.urgent if urgent is None else urgent
    padded = (list(speeds) + [0] * 6)[:6]
    payload = struct.pack("<IIII6i", NONCE, host.session, host.counter, urgent, *padded)
    return "".join(f.values["why"] for f in host.raw(frame("JOG", 0, payload)) if f.name == "NAK")


def hold_stick(host: Host, ms: int, *speeds: int) -> None:
    """JOG each 40 ms, as a console repeats it."""
    end = host.now_us + ms * 1000
    while host.now_us < end:
        assert jog(host, *speeds) == ""
        host.run_for(min(40_000, end - host.now_us))


def probe(host: Host, axis: int, target: int, speed: int) -> str:
    return host.command("PROBE", struct.pack("<IB3xiI", host.urgent, axis, target, speed))


def homed(blob: bytes | None = None) -> Host:
    host = Host(blob)
    host.home()
    host.flush()
    return host


def velocity(host: Host, since_us: int, axis: int) -> np.ndarray:
    """Steps of each ms from an instant on."""
    s = host.samples
    return np.diff(s["pos"][s["t_us"] >= since_us][:, axis].astype(int))


def test_jog_goes_while_it_is_repeated_and_stops_by_itself_100_ms_after_the_last():
    host = homed()
    start = host.now_us
    hold_stick(host, 400, 20_000, 0, 4000)
    assert host.status["state"] == "JOG"
    assert host.status["power"] == 0
    last = start + 360_000  # the last repeat
    host.run_for(300_000)
    v = velocity(host, start, 0)
    assert v.max() == 20
    assert set(v[60 : 360 + 95]) == {20}
    assert v[-100:].any() == 0
    # decelerates from the dead-man on, on the whole ms
    falling = start + 1000 * int(np.flatnonzero(v == 20)[-1])
    assert last + 98_000 <= falling <= last + 101_000
    assert host.at(4, IDLE)[-1] > falling
    assert host.status["state"] == "IDLE"
    assert host.at(1, 1) == []
    assert host.faults() == []
    # each axis keeps its share of the total acceleration: 0.577 * 2000 mm/s2, 0.46 steps/ms2
    assert np.abs(np.diff(v)).max() <= 2  # and the rounding to whole steps
    ramp = v[: int(np.argmax(v == 20))].sum()
    assert ramp == pytest.approx(20_000**2 / (2 * 0.577 * 800_000), rel=0.1)


def test_a_jog_of_speed_nothing_ends_it_at_once():
    host = homed()
    hold_stick(host, 200, 10_000)
    t = host.now_us
    assert jog(host, 0) == ""
    host.run_for(60_000)
    assert host.at(4, IDLE)[-1] - t < 25_000


def test_replayed_jogs_move_nothing():
    host = homed()
    payload = struct.pack("<IIII6i", NONCE, host.session, host.counter + 1, 0, 9000, *[0] * 5)
    recorded = frame("JOG", 0, payload)
    host.raw(recorded)
    host.counter += 1
    host.run_for(300_000)
    there = host.status["pos"][0]
    assert there > 0
    for _ in range(10):
        host.raw(recorded)
        host.run_for(40_000)
    assert host.status["pos"][0] == there


def test_jog_counts_as_a_beat():
    host = homed()
    host.beating = False
    host.run_for(500_000)
    hold_stick(host, 200, 1000)
    assert host.status["beat_age"] <= 50_000


def test_jog_stops_within_the_travel_range_at_both_ends():
    host = homed()
    start = host.now_us
    hold_stick(host, 2000, -48_000, 48_000, -16_000)
    pos = host.status["pos"][:3]
    assert pos[0] == 0
    assert pos[2] == 0
    assert host.status["state"] == "JOG"
    hold_stick(host, 3000, -48_000, 48_000, 0)
    assert host.status["pos"][:2] == [0, 120_000]
    assert host.samples["pos"][:, 1].max() == 120_000
    v = velocity(host, start, 1)
    assert v.max() == 48
    assert np.abs(np.diff(v)).max() <= 2  # slows before the end, does not jump
    host.run_for(300_000)
    assert host.status["state"] == "IDLE"
    assert host.faults() == []


def test_jog_does_not_depend_on_how_often_it_is_run():
    tracks = []
    for part_us in (50, 1850, 20_000, 10**6):
        host = homed()
        start = host.now_us
        for speeds in ((31_234, -777, 900), (-20_001, 3, 0)):
            assert jog(host, *speeds) == ""
            end = host.now_us + 61_300
            while host.now_us < end:
                host.run(min(end, host.now_us + part_us))
        host.run_for(200_000)
        s = host.samples
        tracks.append(s["pos"][s["t_us"] > start][:250].tobytes())
    assert tracks[1:] == tracks[:-1]


def test_jog_is_refused_where_it_could_surprise():
    host = homed()
    assert jog(host, 48_001) == "RANGE"
    host.run_for(100_000)
    assert jog(host, 0, 0, 0, 1) == "RANGE"  # no such axis
    host.run_for(100_000)
    assert jog(host, 100, urgent=host.urgent + 1) == "STALE"
    host.run_for(20_000)
    assert jog(host, 100, urgent=host.urgent + 1) == ""  # told once ...
    host.run_for(100_000)
    assert jog(host, 100, urgent=host.urgent + 1) == "STALE"  # ... and every 100 ms
    assert host.arm() == ""
    host.run_for(100_000)
    assert jog(host, 100) == "STATE"
    host.urgently("DISARM")
    assert host.send(line(3, (4, 0, 0))) == ""
    host.run_for(100_000)
    assert jog(host, 100) == "STATE"  # queued
    host.flush()
    host.urgently("ABORT")
    host.run_for(100_000)
    assert jog(host, 100) == "FAULT"
    host.run_for(20_000)
    assert host.status["pos"][0] == 0


def test_hold_now_ends_a_jog_and_it_does_not_come_back_with_the_next_repeat():
    host = homed()
    hold_stick(host, 200, 20_000)
    host.urgently("HOLD_NOW")
    t = host.now_us
    assert jog(host, 20_000, urgent=host.urgent - 1) == "STALE"
    host.run_for(100_000)
    assert host.at(4, HELD)[-1] - t < 50_000
    assert jog(host, 20_000) == "STATE"
    assert host.again("UNHOLD") == ""
    hold_stick(host, 100, 20_000)
    assert host.status["state"] == "JOG"


def test_disarm_ends_a_jog_in_idle():
    host = homed()
    hold_stick(host, 200, 20_000)
    host.urgently("DISARM")
    host.run_for(100_000)
    assert host.status["state"] == "IDLE"


def test_jog_without_homing_keeps_to_the_homing_speed():
    host = Host()
    host.fw.place(0, 50_000)
    hold_stick(host, 300, -48_000)
    v = velocity(host, 0, 0)
    assert v.min() == -8  # 20 mm/s at 400 steps/mm
    assert host.status["flags"] & 8 == 0


def test_segments_and_homing_after_a_jog_start_from_where_the_axes_are():
    host = homed()
    hold_stick(host, 200, 10_000)
    host.run_for(300_000)
    there = host.status["pos"][0]
    host.flush()
    host.arm()
    host.send(line(20, (40, 0, 0), flags=0) + line(1, (40, 0, 0), flags=16))
    host.run_for(400_000)
    assert host.status["pos"][0] == there + 21 * 40
    host.urgently("DISARM")
    host.home()
    assert host.status["pos"][0] == 0


def test_probe_keeps_the_position_of_the_edge_to_the_step():
    host = homed(WITH_PROBE)
    host.fw.set_sensor(INPUT_PROBE, 2, 3456, 1)
    start = host.now_us
    assert probe(host, 2, 20_000, 4000) == ""
    host.run_for(2_000_000)
    assert host.status["probe"] == FOUND
    assert (host.status["probe_axis"], host.status["probe_pos"]) == (2, 3456)
    rows = host.rows
    assert rows["arg"][rows["kind"] == PROBED].tolist() == [3456]
    # stops within the acceleration: 4000^2 / (2 * 200000) = 40 steps
    assert 3456 + 38 <= host.status["pos"][2] <= 3456 + 46
    assert host.status["state"] == "IDLE"
    assert np.abs(np.diff(velocity(host, start, 2))).max() <= 2
    events = [e for f in host.frames if f.name == "EVENT" for e in f.values["events"]]
    assert [e["arg"] for e in events if e["code"] == 14] == [3456]
    # the other way; the input is open there again
    assert probe(host, 2, 0, 1000) == "INPUT"
    hold_stick(host, 1000, 0, 0, -3000)
    host.run_for(200_000)
    host.fw.set_sensor(INPUT_PROBE, 2, 123, -1)
    assert probe(host, 2, 0, 777) == ""
    host.run_for(3_000_000)
    assert host.status["probe_pos"] == 123


def test_an_edge_that_the_board_reports_is_kept_at_its_instant():
    host = homed(WITH_PROBE)
    assert probe(host, 0, 100_000, 20_000) == ""
    host.run_for(150_777)
    host.fw.set_input(INPUT_PROBE, True)
    host.drain()
    at = host.at(PROBED)
    assert at == [host.now_us]
    row = host.rows[host.rows["kind"] == PROBED][0]
    s = host.samples
    before = int(s["pos"][-1][0])
    assert before <= row["arg"] <= before + 20
    assert row["arg"] == row["pos"][0]


def test_a_probe_that_finds_nothing_says_so_and_stands_at_its_target():
    host = homed(WITH_PROBE)
    assert probe(host, 0, 5000, 10_000) == ""
    host.run_for(1_500_000)
    assert host.status["probe"] == MISSED
    assert host.status["pos"][0] == 5000
    assert host.status["state"] == "IDLE"
    rows = host.rows
    assert rows["arg"][rows["kind"] == PROBE_MISSED].tolist() == [5000]
    assert host.faults() == []
    assert host.samples["pos"][:, 0].max() == 5000


def test_probe_is_refused_where_it_is_not_configured_or_not_possible():
    host = homed()
    assert probe(host, 0, 5000, 1000) == "RANGE"  # no probe input configured
    host = Host(WITH_PROBE)
    host.beat()
    assert probe(host, 0, 5000, 1000) == "NOT_HOMED"
    host = homed(WITH_PROBE)
    assert probe(host, 3, 5000, 1000) == "RANGE"
    assert probe(host, 0, 120_001, 1000) == "RANGE"
    assert probe(host, 0, -1, 1000) == "RANGE"
    assert probe(host, 0, 5000, 0) == "RANGE"
    assert probe(host, 0, 5000, 48_001) == "RANGE"
    assert host.command("PROBE", struct.pack("<IB3xiI", 9, 0, 5000, 1000)) == "STALE"
    host.beating = False
    host.run_for(100_000)
    assert probe(host, 0, 5000, 1000) == "NO_BEAT"
    host.beating = True
    host.next_beat_us = 0
    host.run_for(1000)
    host.fw.set_input(INPUT_PROBE, True)
    assert probe(host, 0, 5000, 1000) == "INPUT"
    host.arm()
    assert probe(host, 0, 5000, 1000) == "STATE"
    assert host.status["probe"] == 0


@pytest.mark.parametrize("how", ["beat", "HOLD_NOW", "DISARM", "ABORT"])
def test_a_probe_is_ended_by_what_ends_motion(how):
    host = homed(WITH_PROBE)
    assert probe(host, 0, 100_000, 20_000) == ""
    host.run_for(200_000)
    t = host.now_us
    if how == "beat":
        host.beating = False
    else:
        host.urgently(how)
    host.run_for(300_000)
    want = {"beat": ("FAULT", "BEAT_LOST"), "HOLD_NOW": ("HELD", ""), "DISARM": ("IDLE", "")}
    assert (host.status["state"], host.status["fault"]) == want.get(how, ("FAULT", "HOST_ABORT"))
    assert host.status["probe"] == ENDED
    v = velocity(host, t, 0)
    assert v[-1] == 0
    assert np.abs(np.diff(v)).max() <= 2
    assert host.status["flags"] & 8  # the position is still known


def test_jogged_axes_together_keep_the_total_acceleration():
    host = homed()
    start = host.now_us
    hold_stick(host, 60, 48_000, 48_000, 16_000)
    s = host.samples
    p = s["pos"][s["t_us"] >= start][:55, :3] / 400.0
    a = math.sqrt(sum((2 * p[50][k] / 0.05**2) ** 2 for k in range(3)))
    assert 1400 < a <= 2000

"""A stream cut at any frame: the controller stops by itself, gate shut first, within limits."""

from functools import cache

import numpy as np
import pytest

from controller.planning.light.power import plan_power, solve_gates
from controller.planning.motion.laws import MODES, plan_profile
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.motion_path import build_path
from controller.planning.segments import make_segments
from controller.planning.stream import frame_segments
from tests.unit.firmware_bench import Host
from tests.unit.planning_cases import cell_with, recipe_with, track
from tests.unit.protocol_reader import config

FRAME = 16 + 20 * 22
STEPS_MM = 10_000  # fine, so that differences of positions show the acceleration
CELL = cell_with(('steps = "400 1/mm"', f'steps = "{STEPS_MM} 1/mm"'))
FAST = recipe_with(('speed = "10 mm/s"', 'speed = "50 mm/s"'))
# the same cell, as the document's section 8 has it: milli-steps/mm, step/s, step/s2, range
BLOB = config(
    [(STEPS_MM * 1000, 120 * STEPS_MM, 2000 * STEPS_MM, 0, 300 * STEPS_MM)] * 2
    + [(STEPS_MM * 1000, 40 * STEPS_MM, 500 * STEPS_MM, 0, 250 * STEPS_MM)]
)
TOTAL_MM_S2, AXIS_MM_S2 = 2000.0, np.array([2000.0, 2000.0, 500.0])
H_S = 0.004
# four positions rounded to half a step each over h^2
QUANTUM_MM_S2 = 2.0 / STEPS_MM / H_S**2
RUN, HELD, IDLE = 2, 4, 0


@cache
def build(mode):
    """Segments of a short build near the home corner: hatch lines and sharp corners at 50 mm/s."""
    rng = np.random.default_rng(5)
    turns = np.cumsum(rng.uniform(-1.5, 1.5, 40))
    crooked = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), axis=0)
    crooked += [14.0, 20.0] - crooked.min(axis=0)
    tracks = [track([(8, 9), (30, 9)]), track([(30, 11), (8, 11.4)]), track(crooked)]
    path = build_path(tracks, FAST, CELL, mode)
    profile = plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(CELL), mode)
    gates = solve_gates(path, profile, CELL.laser)
    power = plan_power(path, profile, gates, CELL.laser)
    return make_segments(path, profile, gates, power, FAST, CELL).segments


def play(mode, prefix_frames):
    """Feed whole frames only, then nothing; the host when all is at rest."""
    host = Host(BLOB).ready()
    data = frame_segments(build(mode), 0, host.seq).tobytes()
    frames = [data[i : i + FRAME] for i in range(0, len(data), FRAME)][:prefix_frames]
    begin = host.now_us
    sent = 0
    while sent < len(frames):
        status = host.status
        credit = status["next_segment"] + status["free"]
        while sent < len(frames) and (sent + 1) * 20 <= credit:
            got = host.raw(frames[sent])
            assert not [f for f in got if f.name == "NAK"]
            sent += 1
        host.run_for(10_000)
    host.run_for(1_000_000)
    while host.status["state"] in ("RUN", "HOLDING"):
        host.run_for(500_000)
    host.run_for(300_000)
    return host, begin


def check_stopped(host, begin, mode):
    """At rest with the gate shut, no fault, shut before it slowed down, limits kept."""
    assert host.faults() == []
    assert host.status["state"] in ("HELD", "IDLE")
    assert host.status["flags"] & 2 == 0
    assert host.status["power"] == 0
    rows, samples = host.rows, host.samples
    rows, samples = rows[rows["t_us"] >= begin], samples[samples["t_us"] >= begin]
    edges = rows[rows["kind"] == 1]
    if len(edges):
        assert edges["arg"].tolist() == [1, 0] * (len(edges) // 2)
    where = samples["pos"][:, :3] / STEPS_MM
    h = round(H_S * 1e3)
    way = where[h:] - where[:-h]
    bend = (way[h:] - way[:-h]) / H_S**2
    if mode == "friction_circle":  # corners are rounded: no instant is left out
        keep = np.ones(len(bend), dtype=bool)
    else:
        # at a sharp corner the direction jumps, as its rule allows: judge straight stretches
        before, after = way[:-h], way[h:]
        size = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        keep = np.linalg.norm(np.cross(before, after), axis=1) <= 0.01 * size + 1e-6
    assert keep.sum() > 0.5 * len(bend)
    assert (np.abs(bend[keep]).max(axis=0) <= AXIS_MM_S2 * 1.001 + QUANTUM_MM_S2).all()
    assert np.linalg.norm(bend[keep], axis=1).max() <= TOTAL_MM_S2 * 1.001 + 2 * QUANTUM_MM_S2
    return edges, where, samples


def whole_frames(mode):
    return len(build(mode)) // 20


@pytest.mark.parametrize("mode", list(MODES))
def test_plan_is_long_enough_to_be_cut(mode):
    assert whole_frames(mode) >= 12
    assert build(mode)["flags"][-1] & 16


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("part", range(4))
def test_any_prefix_of_frames_stops_by_itself_with_the_gate_shut(part, mode):
    started, held = 0, 0
    for n in range(1 + part, whole_frames(mode) + 1, 4):
        host, begin = play(mode, n)
        edges, where, samples = check_stopped(host, begin, mode)
        rows = host.rows
        hold = rows[(rows["kind"] == 9) & (rows["arg"] == 3)]
        ran = len(host.at(4, RUN)) > 0
        started += ran
        if not ran:
            assert len(edges) == 0
            assert (where == where[0]).all()
            continue
        # by itself, once; what the gate still had open shut at that very instant
        assert len(hold) == 1
        held += 1
        at = int(hold["t_us"][0])
        if len(edges):
            assert edges["t_us"].max() <= at
        assert host.status["state"] == "HELD"
        assert host.status["segment"] < 20 * n
        # at rest: nothing moves any more
        still = where[samples["t_us"] >= samples["t_us"][-1] - 200_000]
        assert (still == still[0]).all()
    assert started > 0
    assert held == started


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(MODES))
def test_whole_stream_ends_idle_and_where_it_was_planned(mode):
    host, begin = play(mode, whole_frames(mode) + 1)
    edges, where, _ = check_stopped(host, begin, mode)
    assert host.status["state"] == "IDLE"
    assert len(edges) == 6
    assert host.status["segment"] == len(build(mode)) - 1
    planned = build(mode)["steps"].astype(np.int64).sum(axis=0)
    np.testing.assert_array_equal(np.rint(where[-1] * STEPS_MM).astype(np.int64), planned[:3])


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(MODES))
def test_hold_by_itself_comes_with_the_gate_open(mode):
    """The case that matters is among the prefixes: cut in the middle of a bead."""
    found = 0
    for n in range(1, whole_frames(mode) + 1):
        host, begin = play(mode, n)
        rows = host.rows
        rows = rows[rows["t_us"] >= begin]
        hold = rows[(rows["kind"] == 9) & (rows["arg"] == 3)]
        off = rows[(rows["kind"] == 1) & (rows["arg"] == 0)]
        if len(hold) and int(hold["t_us"][0]) in off["t_us"].tolist():
            found += 1
            if found == 2:
                break
    assert found == 2

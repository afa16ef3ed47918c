"""Wire bytes at 10 us against the law of the planned speed at the same instant."""

import math

import numpy as np
import pytest

from benchmarks.paths import random_turns, wavy_spiral
from controller.model import TrackKind
from controller.planning.light.power import plan_power, solve_gates
from controller.planning.motion.laws import MODES, plan_profile
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.motion_path import build_path
from controller.planning.segments import make_segments
from controller.planning.stream import frame_segments
from tests.unit.planning_cases import CELL, RECIPE, recipe_with, track
from tests.unit.wire_truth import Motion, Wire, bead_truth, quantum_mm_s, unframe

# share of full power that the wire may differ from the law
POWER_GOAL = {"trapezoid": 0.0005, "friction_circle": 0.0005, "jerk": 0.001}
ENERGY_GOAL = 0.002
FAST = recipe_with(('speed = "10 mm/s"', 'speed = "50 mm/s"'))


def zigzag():
    """Corners inside ramps and outside, a curve, and a short bead."""
    turn = np.linspace(0, math.pi, 30)
    return [
        track([(140, 145), (140.4, 145), (140.6, 145.5), (143, 145.2), (143.2, 146), (144, 146)]),
        track(np.column_stack([150 + np.cos(turn), 150 + np.sin(turn)]), 0, TrackKind.THIN_WALL),
        track([(150, 148), (151, 148)]),
    ]


def piece_of(points, n):
    """The first moves of a benchmark path as one bead in the middle of the table."""
    xy = points[: n + 1, :2]
    return [track(xy - 0.5 * (xy.min(axis=0) + xy.max(axis=0)) + 150.0)]


CASES = {
    "zigzag at 10 mm/s": (zigzag(), RECIPE),
    "spiral b at 50 mm/s": (piece_of(wavy_spiral(2000), 1000), FAST),
    "turns c at 50 mm/s": (piece_of(random_turns(400), 100), FAST),
}


def made(name, mode):
    """Wire bytes of a case, and the float plan that they stand for."""
    tracks, recipe = CASES[name]
    path = build_path(tracks, recipe, CELL, mode)
    profile = plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(CELL), mode)
    gates = solve_gates(path, profile, CELL.laser)
    power = plan_power(path, profile, gates, CELL.laser)
    segments = make_segments(path, profile, gates, power, recipe, CELL).segments
    wire = Wire(unframe(frame_segments(segments, 0, 9).tobytes(), 0, 9))
    p = profile
    return wire, Motion(p.t_s, p.s_mm, p.v_mm_s, p.a_mm_s2, p.j_mm_s3, p.move), path, profile


def beads_of(path, profile):
    """Ends and settings of each bead; ends from the path's own lengths."""
    for row in path.beads:
        yield {
            "s_on": float(profile.move_s_mm[row["first_move"]]),
            "s_off": float(profile.move_s_mm[row["end_move"]]),
            "power": 600.0, "floor": 150.0, "speed": float(row["speed_mm_s"]),
            "ramp_in": 0.8, "ramp_out": 0.8,
        }  # fmt: skip


LASER = {"rated_w": 1000.0, "latency_s": 0.003, "steps_per_mm": 400.0}


def test_the_judge_sees_an_error_of_power():
    wire, motion, path, profile = made("zigzag at 10 mm/s", "trapezoid")
    bead = next(beads_of(path, profile))
    good = bead_truth(wire, motion, bead, LASER)
    assert bead_truth(wire, motion, bead | {"power": 602.0}, LASER)["power_w"] > 1.0
    assert bead_truth(wire, motion, bead | {"floor": 151.0}, LASER)["energy"] > good["energy"]
    late = bead_truth(wire, motion, bead, LASER | {"latency_s": 0.0032})
    assert late["power_w"] > 2 * good["power_w"]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("mode", list(MODES))
def test_wire_power_and_energy_follow_the_law_at_10_us(mode, name):
    wire, motion, path, profile = made(name, mode)
    samples = 0
    for bead in beads_of(path, profile):
        truth = bead_truth(wire, motion, bead, LASER)
        samples += truth["samples"]
        assert truth["power_w"] <= POWER_GOAL[mode] * 1000.0
        assert truth["pieces"] >= 9
        assert truth["energy"] <= ENERGY_GOAL
    assert samples > 20_000


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("mode", list(MODES))
def test_every_gate_edge_is_within_a_tick_of_the_solved_instant(mode, name):
    wire, motion, path, profile = made(name, mode)
    on, off = wire.gate_edges_us()
    beads = list(beads_of(path, profile))
    assert len(on) == len(off) == len(beads)
    for i, bead in enumerate(beads):
        solved = motion.when(np.array([bead["s_on"], bead["s_off"]])) * 1e6 - 100.0
        assert abs(on[i] - solved[0]) <= 1.0
        assert abs(off[i] - solved[1]) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("mode", list(MODES))
def test_executed_speed_differs_from_the_planned_by_the_step_quantum_only(mode, name):
    """A segment's ends are whole steps: its mean speed is off by up to a step over its time.
    With the same positions taken exactly nothing of that is left."""
    wire, motion, _, profile = made(name, mode)
    got = quantum_mm_s(wire, motion, lambda s: profile.curve.axes_at(s)[:, :3], 400.0)
    print(mode, name, got)
    assert got["segments"] > 30
    # corners rounded away by merged cuts and bent chords: far below the quantum
    assert got["exact_rms"] <= 0.1 * got["all_rms"]
    # and the ramp inside a segment is the planned one: at its ends the planned speeds
    pick = (wire.flags & 2) == 0
    r, T = wire.ratio[pick], wire.ticks[pick] * 1e-6
    s0, v0 = motion.at(wire.begin_us[pick] * 1e-6)
    s1, v1 = motion.at(wire.end_us[pick] * 1e-6)
    mean = (s1 - s0) / T
    long = (T > 1e-4) & (v0 > 0.5) & (v1 > 0.5)
    error = np.maximum(np.abs(r * mean - v0), np.abs((2 - r) * mean - v1))[long]
    nominal = np.maximum(v0, v1)[long].max()
    assert error.max() <= (0.0005 + 2 / 32768) * max(nominal, 6.0) + 0.5e-6 * 2e3

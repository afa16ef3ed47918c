"""Gate edges: offsets, latencies, windows, pauses, unbroken emission."""

import math

import numpy as np
import pytest

from controller.errors import PlanError
from controller.model import TrackKind
from controller.planning.light.gate import check_light, solve_gates
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.motion_path import build_path
from tests.unit.planning_cases import (
    CELL,
    RECIPE,
    Decoded,
    cell_with,
    plan,
    recipe_with,
    small_tracks,
    track,
)

LINE = [(140, 145), (150, 145)]


def planned(tracks, recipe=RECIPE, cell=CELL, mode=None):
    path = build_path(tracks, recipe, cell, mode)
    profile = plan_profile(
        path.points_mm, path.speed_mm_s, MotionLimits.of_cell(cell), mode or cell.motion.time_law
    )
    return path, profile, solve_gates(path, profile, cell.laser)


def offsets(on, off):
    return recipe_with(
        ('power_law = "linear"',
         f'power_law = "linear"\ngate_on_offset = "{on} mm"\ngate_off_offset = "{off} mm"')
    )  # fmt: skip


def x_of(decoded, t_us):
    return decoded.at(t_us)[0][0] / 400.0


def test_light_begins_and_ends_where_the_offsets_say_on_the_executed_path():
    for on, off in ((0.4, -0.3), (-0.25, 0.5), (0.0, 0.0)):
        made = plan([track(LINE)], recipe=offsets(on, off))
        decoded = Decoded(made.segments.tobytes())
        ((begin, end),) = decoded.gate_edges_us()
        # 0.1 ms of latency at 10 mm/s; half a step is 1.25 um
        assert x_of(decoded, begin + 100) == pytest.approx(140.0 + on, abs=0.0015)
        assert x_of(decoded, end + 100) == pytest.approx(150.0 + off, abs=0.0015)
        assert made.figures["length_mm"]["emission"] == pytest.approx(10.0 + off - on)
        assert made.tracks["length_mm"][0] == pytest.approx(10.0 + off - on)


def test_offsets_beyond_the_bead_still_find_full_speed_at_both_edges():
    for mode in ("trapezoid",):
        path, profile, gates = planned([track(LINE)], recipe=offsets(-2, 2), mode=mode)
        for t in (gates.on_command_s[0], gates.on_s[0], gates.off_s[0]):
            assert profile.state_at(np.array([t]))[1][0] == pytest.approx(10.0, rel=1e-9)
        assert path.beads["gate_on_offset_mm"][0] == -2.0


def test_ramps_start_and_end_with_the_light_not_with_the_bead():
    made = plan([track(LINE)], recipe=offsets(1, -1))
    decoded = Decoded(made.segments.tobytes())
    ((begin, end),) = decoded.gate_edges_us()
    # power answers 3 ms after the wire, the gate 0.1 ms
    at = [decoded.at(begin + 100 - 3000)[2], decoded.at(end + 100 - 3000)[2]]
    assert at == pytest.approx([0.15, 0.15], abs=2e-4)
    assert made.figures["energy_j"] == pytest.approx(8.0 * 60.0 - 36.0, rel=1e-4)


def test_off_latency_is_its_own():
    cell = cell_with(('gate_jitter = "0.02 ms"',
                      'gate_jitter = "0.02 ms"\ngate_off_latency = "2 ms"'))  # fmt: skip
    _, _, gates = planned([track(LINE)], cell=cell)
    assert gates.on_s[0] - gates.on_command_s[0] == pytest.approx(1e-4)
    assert gates.off_s[0] - gates.off_command_s[0] == pytest.approx(2e-3)
    assert gates.off_s[0] - gates.on_s[0] == pytest.approx(1.0)  # light itself is unchanged


def test_window_shorter_than_the_reaction_of_the_source_is_refused():
    slow = cell_with(('gate_latency = "0.1 ms"', 'gate_latency = "30 ms"'))
    # 0.2 mm at 10 mm/s: 20 ms, the source answers after 30
    with pytest.raises(
        PlanError,
        match=r"bead 0 \(hatch, layer 0\): the gate would be open for 20\.000 ms, the source needs "
        r"30\.020 ms to follow \(laser\.gate_latency.*cell 'sim', recipe '316l_general'",
    ):
        plan([track([(140, 145), (140.2, 145)])], cell=slow)
    late_off = cell_with(('gate_jitter = "0.02 ms"',
                          'gate_jitter = "0.02 ms"\ngate_off_latency = "25 ms"'))  # fmt: skip
    with pytest.raises(PlanError, match=r"open for -4\.900 ms"):
        plan([track([(140, 145), (140.2, 145)])], cell=late_off)


def test_offsets_that_leave_no_bead_are_refused_by_name():
    with pytest.raises(
        PlanError,
        match=r"bead 0 \(hatch, layer 0\): gate_on_offset 6 mm and gate_off_offset -5 mm leave -1 "
        r"mm of 10 mm, must leave more than 0 mm \(cell 'sim', recipe '316l_general'\)",
    ):
        plan([track(LINE)], recipe=offsets(6, -5))


def test_pause_without_light_is_held_against_the_beam_timeout_and_names_the_travel():
    far = [track([(20, 20), (25, 20)]), track([(280, 280), (285, 280)])]

    def cell(limit):
        return cell_with(('spot_diameter', f'beam_timeout = "{limit}"\nspot_diameter'))  # fmt: skip

    path, _, gates = planned(far)
    pause = gates.on_s[1] - gates.off_s[0]
    assert 5.0 < pause < 8.0
    assert check_light(path, gates, cell("30 s"), 0.7) == []
    first = cell_with(("spot_diameter", 'beam_timeout = "5 s"\nspot_diameter'),
                      ('range = ["0 mm", "300 mm"]', 'range = ["19 mm", "300 mm"]'),
                      ('range = ["0 mm", "250 mm"]', 'range = ["10 mm", "250 mm"]'))  # fmt: skip
    path, _, gates = planned(far, cell=first)
    with pytest.raises(
        PlanError,
        match=r"travel from \(25\.00, 20\.00, 10\.55\) mm to bead 1 \(hatch, layer 0\) at "
        r"\(280\.00, 280\.00, 10\.55\) mm: \d\.\d\d s without light, above 5 s "
        r"\(laser\.beam_timeout of cell 'sim'\)",
    ):
        check_light(path, gates, first, 0.7)
    with pytest.raises(PlanError, match="way from home to bead 0"):
        plan([track(LINE)], cell=cell("2 s"))


def test_unbroken_emission_at_the_limit_is_refused_and_below_it_is_planned():
    bead = [track([(140, 145), (152, 145)])]  # 1.2 s

    def limit(text):
        return cell_with(('longest_emission = "600 s"', f'longest_emission = "{text}"'))

    with pytest.raises(
        PlanError,
        match=r"bead 0 \(hatch, layer 0\): 1\.2 s of unbroken emission, not below 1\.2 s "
        r"\(laser\.longest_emission of cell 'sim'\)",
    ):
        plan(bead, cell=limit("1.2 s"))
    near = plan(bead, cell=limit("1.25 s"))
    # the recipe lets an operator go down to 0.7: that would be too long
    assert any("speed override of 0.960" in note for note in near.warnings)
    assert not any("override" in note for note in plan(bead).warnings)


def test_light_that_goes_off_late_does_not_hide_a_long_command():
    cell = cell_with(('gate_latency = "0.1 ms"',
                      'gate_latency = "50 ms"\ngate_off_latency = "0 ms"'),
                     ('longest_emission = "600 s"', 'longest_emission = "1.02 s"'))  # fmt: skip
    with pytest.raises(PlanError, match=r"unbroken emission, not below 1\.02 s"):
        plan([track(LINE)], cell=cell)  # 1 s of light, 1.05 s of command


@pytest.mark.slow
def test_long_spiral_is_refused_by_a_source_of_500_s_and_planned_for_one_of_600_s():
    # 20 m of wavy spiral at 50 mm/s (the planner's benchmark path b), 0.4 mm chords
    turns = math.sqrt(20_000 / (math.pi * 1.5)) + 2
    angle = np.linspace(0, 2 * math.pi * turns, 400_000)
    base = 5 * angle + 1.5 * angle**2 / (4 * math.pi)
    radius = 5 + 1.5 * angle / (2 * math.pi) + 0.5 * np.cos(2 * math.pi * base / 3.5)
    xy = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    s = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
    at = np.arange(0.0, 20_000.0, 0.4)
    xy = np.column_stack([np.interp(at, s, xy[:, 0]), np.interp(at, s, xy[:, 1])]) + 150.0
    fast = recipe_with(('speed = ["6 mm/s", "16 mm/s"]', 'speed = ["6 mm/s", "60 mm/s"]'),
                       ('speed = "10 mm/s"', 'speed = "50 mm/s"'))  # fmt: skip

    def cell(text):
        return cell_with(('longest_emission = "600 s"', f'longest_emission = "{text}"'))

    made = plan([track(xy)], recipe=fast, cell=cell("600 s"))
    seconds = made.figures["longest_emission_s"]
    assert 540.0 < seconds < 550.0
    margins = made.figures["quality"]["margins"]
    assert margins["source_emission_s"]["value"] == pytest.approx(seconds)
    with pytest.raises(PlanError, match=r"5\d\d\.\d s of unbroken emission, not below 500 s"):
        plan([track(xy)], recipe=fast, cell=cell("500 s"))


def test_no_gate_is_open_at_rest_in_many_random_plans():
    rng = np.random.default_rng(20261124)
    for _ in range(60):
        tracks = []
        for _ in range(int(rng.integers(1, 5))):
            n = int(rng.integers(2, 9))
            points = rng.uniform(130, 170, (n, 2)).round(int(rng.integers(0, 4)))
            if np.ptp(points, axis=0).max() == 0.0:
                points[-1] += 1.0
            kind = TrackKind(int(rng.integers(0, 3)))
            tracks.append(track(points, 0, kind))
        path, profile, gates = planned(tracks)
        for on, off in zip(gates.on_command_s, gates.off_command_s, strict=True):
            inside = (profile.t_s >= on) & (profile.t_s <= off)
            assert (profile.v_mm_s[inside] > 0.0).all()
        assert (gates.on_command_s[1:] > gates.off_command_s[:-1]).all()
        assert len(gates.on_s) == len(path.beads)


def test_gates_of_the_small_build_alternate_and_hold_their_reaction():
    _, _, gates = planned(small_tracks())
    edges = np.column_stack([gates.on_command_s, gates.off_command_s]).ravel()
    assert (np.diff(edges) > 1.2e-4).all()

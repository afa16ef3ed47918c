"""The plan quality report: judged by the segments, in plain numbers."""

import json
import math
from bisect import bisect_right

import numpy as np
import pytest

from controller import _judge
from controller.config import load_cell
from controller.model import Track, TrackKind
from controller.planning import plan_build, quality
from controller.planning.light.power import solve_gates
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.motion_path import build_path
from tests.unit.planning_cases import (
    CELL,
    MATERIAL,
    RECIPE,
    TEXTS,
    Decoded,
    cell_with,
    layer_slice,
    part,
    plan,
    recipe_with,
    small_tracks,
    track,
)

LINE = [(140, 145), (150, 145)]
CORNER = [(140, 145), (145, 145), (141, 146)]


def again(made, tracks, recipe=RECIPE, cell=CELL):
    """The float plan behind a finished one."""
    path = build_path(tracks, recipe, cell)
    profile = plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(cell))
    profile = profile.after_dwell(made.meta["priming_dwell_s"])
    return path, profile, solve_gates(path, profile, cell.laser)


def test_report_is_plain_json_with_every_part():
    found = plan().figures["quality"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {"power_error", "energy", "reduced_speed", "margins", "beam"}
    assert set(found["energy"]) == {"window_mm", "all", "contour", "hatch", "thin_wall"}
    assert set(found["margins"]) == {
        "path_accel_mm_s2", "total_accel_mm_s2", "path_jerk_mm_s3", "corner_step_mm_s",
        "x_speed_mm_s", "x_accel_mm_s2", "y_speed_mm_s", "y_accel_mm_s2", "z_speed_mm_s",
        "z_accel_mm_s2", "laser_power_w", "power_slew_w_s", "power_slew_override",
        "source_emission_s", "firmware_still_s",
        "firmware_emission_s", "beam_pause_s", "powder_flow_g_min",
    }  # fmt: skip


def test_energy_of_a_straight_bead_is_60_j_mm_between_ramps():
    energy = plan([track(LINE)]).figures["quality"]["energy"]
    # 600 W at 10 mm/s; the first 0.1 mm of a ramp over 0.8 mm from 150 W: 150 + 450 / 16 W
    assert energy["all"]["greatest_j_mm"] == pytest.approx(60.0, rel=1e-5)
    assert energy["all"]["least_j_mm"] == pytest.approx(17.8125, rel=1e-3)
    assert energy["all"]["mean_j_mm"] == pytest.approx(56.4, rel=1e-5)
    assert energy["hatch"] == energy["all"]
    assert energy["window_mm"] == 0.1


def test_kinds_are_told_apart():
    energy = plan().figures["quality"]["energy"]
    assert energy["thin_wall"]["greatest_j_mm"] > 90.0  # 600 W at 6 mm/s
    assert energy["hatch"]["greatest_j_mm"] == pytest.approx(60.0, rel=1e-3)


def test_time_at_reduced_speed_is_the_decoded_one():
    tracks = [track(CORNER)]
    made = plan(tracks)
    found = made.figures["quality"]["reduced_speed"]
    _, profile, gates = again(made, tracks)
    t = np.arange(gates.on_s[0], gates.off_s[0], 1e-5)
    v = profile.state_at(t)[1]
    emission_s = gates.off_s[0] - gates.on_s[0]
    for below in (95, 50):
        seconds = float((v < below / 100.0 * 10.0).sum()) * 1e-5
        assert seconds > 0.0
        assert found[f"below_{below}_s"] == pytest.approx(seconds, abs=1e-4)
        assert found[f"below_{below}_pct"] == pytest.approx(100 * seconds / emission_s, abs=0.02)
    straight = plan([track(LINE)]).figures["quality"]["reduced_speed"]
    assert straight["below_95_s"] == straight["below_50_s"] == 0.0


def twin(made, path, profile, gates, cell):
    """The judge in plain Python on the wire's bytes: worst and rms error, sampled at 20 us."""
    decoded = Decoded(made.segments.tobytes())
    worst, square, n = 0.0, 0.0, 0
    t_s = profile.t_s.tolist()
    for bead in range(len(gates.on_s)):
        row = {k: float(path.beads[k][bead]) for k in path.beads.dtype.names}
        for t in np.arange(gates.on_s[bead], gates.off_s[bead], 2e-5).tolist():
            i = min(max(bisect_right(t_s, t) - 1, 0), len(profile.a_mm_s2) - 1)
            tau = t - t_s[i]
            v0, a, j = (float(x[i]) for x in (profile.v_mm_s, profile.a_mm_s2, profile.j_mm_s3))
            s = float(profile.s_mm[i]) + v0 * tau + a * tau**2 / 2 + j * tau**3 / 6
            v = v0 + a * tau + j * tau**2 / 2
            share = min(1.0, (s - gates.s_on_mm[bead]) / row["ramp_in_mm"],
                        (gates.s_off_mm[bead] - s) / row["ramp_out_mm"])  # fmt: skip
            g = (v / row["speed_mm_s"]) ** row["power_exponent"]
            want = row["floor_w"] + (row["power_w"] - row["floor_w"]) * g * max(share, 0.0)
            want = min(want, row["energy_cap_j_mm"] * v)
            out = decoded.at((t - cell.laser.power_latency_s) * 1e6)[2] * 1000.0
            worst, square, n = max(worst, abs(out - want)), square + (out - want) ** 2, n + 1
    return worst, math.sqrt(square / n)


@pytest.mark.slow
@pytest.mark.parametrize(
    "law",
    [
        'power_law = "linear"',
        'power_law = "power"\npower_exponent = 0.5',
        'power_law = "power"\npower_exponent = 2.0\nenergy_cap = "61 J/mm"',
    ],
)
def test_kernel_and_plain_twin_agree_on_random_tracks(law):
    seed = 4711
    rng = np.random.default_rng(seed)
    recipe = recipe_with(('power_law = "linear"', law))
    for _ in range(3):
        tracks = [
            track(rng.uniform(140, 145, (4, 2)), 0, TrackKind.HATCH),
            track(rng.uniform(140, 145, (3, 2)), 0, TrackKind.THIN_WALL),
        ]
        made = plan(tracks, recipe=recipe)
        error = made.figures["quality"]["power_error"]
        worst, rms = twin(made, *again(made, tracks, recipe), CELL)
        # samples 20 us apart may miss a peak of a few us; a count of the wire is 0.015 W
        assert error["worst_w"] == pytest.approx(worst, abs=0.06), f"seed {seed}"
        assert error["rms_w"] == pytest.approx(rms, abs=0.004), f"seed {seed}"
        assert 0.0 < error["worst_w"] <= 0.5


def test_damage_to_one_segment_is_found_wherever_it_is():
    tracks = small_tracks()
    made = plan(tracks)
    path, profile, gates = again(made, tracks)
    for track_row in (made.tracks[0], made.tracks[5]):
        broken = made.segments.copy()
        broken["end_power"][(track_row["first_segment"] + track_row["end_segment"]) // 2] -= 2000
        curve = quality.CommandCurve(broken, 1000.0)
        judged = quality.judge_beads(curve, path, profile, gates, CELL.laser)
        assert judged[:, 0].max() > 15.0  # of 30.5 W
        bead = int(np.argmax(judged[:, 0]))
        assert gates.on_s[bead] <= judged[bead, 1] <= gates.off_s[bead]
        assert made.tracks["first_segment"][bead] == track_row["first_segment"]


def test_margins_of_a_straight_move_are_those_of_the_cell():
    # planned 0.8 x 2000 mm/s2, travel aslant at 60 mm/s
    margins = plan([track(LINE)]).figures["quality"]["margins"]
    for key in ("path_accel_mm_s2", "total_accel_mm_s2"):
        assert margins[key]["value"] == pytest.approx(1600.0, rel=1e-4)
        assert margins[key]["limit"] == 1600.0
    travel = math.hypot(margins["x_speed_mm_s"]["value"], margins["y_speed_mm_s"]["value"])
    assert travel == pytest.approx(60.0, rel=1e-6)
    assert margins["z_speed_mm_s"]["value"] == pytest.approx(35.7771, rel=1e-5)
    assert margins["z_speed_mm_s"]["margin_pct"] == pytest.approx(0.0, abs=1e-3)
    assert margins["z_accel_mm_s2"]["margin_pct"] == pytest.approx(0.0, abs=0.01)
    assert margins["laser_power_w"]["margin_pct"] == pytest.approx(40.0)
    assert margins["source_emission_s"]["value"] == pytest.approx(1.0)
    assert margins["source_emission_s"]["margin_pct"] == pytest.approx(100 * 599 / 600)
    assert margins["power_slew_w_s"]["limit"] is None
    assert margins["path_jerk_mm_s3"]["value"] is None  # the trapezoid does not limit it
    # 450 W over 80 ms
    assert margins["power_slew_w_s"]["value"] == pytest.approx(5625.0, rel=0.02)
    assert 6.3 <= margins["powder_flow_g_min"]["value"] <= 20.0


def test_sharp_corners_show_as_a_step_of_speed():
    margins = plan([track([(140, 145), (145, 145), (145, 150)])]).figures["quality"]["margins"]
    assert margins["corner_step_mm_s"]["value"] > 1.0
    assert margins["total_accel_mm_s2"]["value"] <= 1600.0 * 1.001


def test_slew_and_pause_are_held_against_the_cell():
    cell = cell_with(("spot_diameter",
                      'power_slew = "7500 W/s"\nbeam_timeout = "60 s"\nspot_diameter'))  # fmt: skip
    margins = plan([track(LINE)], cell=cell).figures["quality"]["margins"]
    assert margins["power_slew_w_s"]["margin_pct"] == pytest.approx(25.0, abs=1.5)
    # 7500 W/s leave a plan of 5625 W/s a speed of sqrt(7500 / 5625)
    assert margins["power_slew_override"]["limit"] == pytest.approx(1.1547, rel=0.01)
    assert margins["power_slew_override"]["value"] == pytest.approx(1.1180, rel=1e-4)
    assert margins["beam_pause_s"]["limit"] == 60.0
    assert 0.0 < margins["beam_pause_s"]["value"] < 60.0


def test_what_the_source_leaves_at_the_beam_is_worked_out_by_hand():
    beam = plan([track(LINE)]).figures["quality"]["beam"]
    assert beam["gate_on_mm"] == pytest.approx(10 * (20e-6 + 0.5e-6))
    assert beam["power_latency_mm"] == pytest.approx(10 * (2e-3 + 0.5e-6))
    assert beam["step_mm"] == pytest.approx(0.5 / 400)
    assert beam["resolution_pct"] == pytest.approx(50 / 4095)
    # 5625 W/s x 2 ms of 1000 W
    assert beam["power_latency_pct"] == pytest.approx(1.125, rel=1e-3)
    assert beam["sum_mm"] == pytest.approx(beam["power_latency_mm"] + 0.5 / 400)
    assert beam["sum_pct"] == pytest.approx(
        beam["power_latency_pct"] + beam["resolution_pct"] + beam["plan_pct"]
    )


def test_long_builds_have_longer_windows_but_the_same_mean():
    tracks = [track(LINE)]
    made = plan(tracks)
    path, profile, gates = again(made, tracks)
    curve = quality.CommandCurve(made.segments, 1000.0)
    mean = quality.energy_per_mm(curve, path, profile, gates, CELL.laser)["all"]["mean_j_mm"]
    old = quality.MOST_WINDOWS
    try:
        quality.MOST_WINDOWS = 10
        coarse = quality.energy_per_mm(curve, path, profile, gates, CELL.laser)
    finally:
        quality.MOST_WINDOWS = old
    assert coarse["window_mm"] == pytest.approx(1.0)
    assert coarse["all"]["mean_j_mm"] == pytest.approx(mean)


def test_judge_refuses_what_does_not_fit():
    one, two = np.zeros(1), np.array([0.0, 1.0])
    bead = np.ones((1, 9))
    good = [two, two, two, two, two, one, one, one, np.ones(1), bead]
    _judge.judge_power(*good, 0.0, 1000.0)
    for place, bad, message in (
        (1, one, "as many"),
        (5, two, "one kink more"),
        (8, two, "differ in rows"),
        (9, np.ones((1, 8)), "9 columns"),
        (7, np.array([math.nan]), "finite"),
        (0, np.array([1.0, 0.0]), "not sorted"),
    ):
        wrong = list(good)
        wrong[place] = bad
        with pytest.raises(ValueError, match=message):
            _judge.judge_power(*wrong, 0.0, 1000.0)
    with pytest.raises(ValueError, match="longest_s 0"):
        _judge.judge_power(*good, 0.0, 1000.0, 0.0)


FAST = (('speed = ["6 mm/s", "16 mm/s"]', 'speed = ["6 mm/s", "60 mm/s"]'),
        ('speed = "10 mm/s"', 'speed = "50 mm/s"'))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["trapezoid", "friction_circle", "jerk"])
@pytest.mark.parametrize("law", ["linear", "power"])
def test_power_and_energy_are_true_in_every_time_law_and_power_law(mode, law):
    exponent = "\npower_exponent = 0.6" if law == "power" else ""
    recipe = recipe_with(*FAST, ('power_law = "linear"', f'power_law = "{law}"{exponent}'))
    turn = np.linspace(0, np.pi, 60)
    bow = np.column_stack([150 + 3 * np.cos(turn), 145 + 3 * np.sin(turn)])
    tracks = [track(CORNER), track(bow), track([(150, 140), (152, 141), (153, 140)])]
    made = plan(tracks, recipe=recipe, mode=mode)
    error = made.figures["quality"]["power_error"]
    assert 0.0 < error["worst_pct"] <= (0.1 if mode == "jerk" else 0.05)
    assert error["worst_w"] == made.figures["max_power_error_w"]
    path = build_path(tracks, recipe, CELL, mode)
    profile = plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(CELL), mode)
    profile = profile.after_dwell(made.meta["priming_dwell_s"])
    gates = solve_gates(path, profile, CELL.laser)
    wire = np.cumsum(made.segments["ticks_lo"].astype(np.int64)
                     + (made.segments["ticks_hi"].astype(np.int64) << 16)) * 1e-6  # fmt: skip
    moving = (made.segments["flags"] & 8) == 0
    for bead in range(len(tracks)):
        row = path.beads[bead]
        t = np.arange(gates.on_s[bead], gates.off_s[bead], 5e-6)
        s, v, _ = profile.state_at(t)
        share = np.minimum((s - gates.s_on_mm[bead]) / 0.8, (gates.s_off_mm[bead] - s) / 0.8)
        g = (v / row["speed_mm_s"]) ** row["power_exponent"]
        ideal = 150 + 450 * g * np.clip(share, 0.0, 1.0)
        out = np.interp(t - 0.003, wire[moving], made.segments["end_power"][moving] / 65.535)
        window = ((s - s[0]) / 0.1).astype(int)
        wanted, given = np.bincount(window, ideal), np.bincount(window, out)
        np.testing.assert_allclose(given[:-1], wanted[:-1], rtol=2e-3)


@pytest.mark.parametrize("mode", ["trapezoid", "friction_circle", "jerk"])
def test_run_up_gives_full_speed_at_gate_on_in_every_time_law(mode):
    recipe = recipe_with(*FAST)
    lines = []
    for k in range(8):  # lines at many angles, so that travel meets the run-up at many corners
        c, s = math.cos(0.8 * k), math.sin(0.8 * k)
        x, y = 150 + 14 * math.cos(2.1 * k), 150 + 14 * math.sin(2.1 * k)
        lines.append(track([(x, y), (x + 8 * c, y + 8 * s)]))
    made = plan(lines, recipe=recipe, mode=mode)
    assert not any("below full speed" in note for note in made.warnings)
    assert made.figures["quality"]["reduced_speed"]["below_95_s"] == 0.0


def test_rotary_axes_have_margins_of_their_own():
    cell, text = load_cell("sim_ac")
    turn = np.linspace(0.0, 2.0 * np.pi, 120)
    center, tilt = cell.substrate.center_mm, math.radians(15)
    top = np.full(len(turn), cell.substrate.top_mm + 0.55)
    ring = np.column_stack([center[0] + 12 * np.cos(turn), center[1] + 12 * np.sin(turn), top])
    leaning = np.column_stack([math.sin(tilt) * np.cos(turn), math.sin(tilt) * np.sin(turn),
                               np.full(len(turn), math.cos(tilt))])  # fmt: skip
    bead = Track(0, TrackKind.CONTOUR, ring, None, leaning)
    made = plan_build([bead], [layer_slice(0)], part(), RECIPE, cell, MATERIAL,
                      {**TEXTS, "cell": text}, mode="trapezoid")  # fmt: skip
    found = made.figures["quality"]
    # once round in 2 pi 12 mm / 10 mm/s: 360 deg / 7.54 s
    assert found["margins"]["c_speed_deg_s"]["value"] == pytest.approx(47.75, rel=1e-3)
    assert found["margins"]["a_speed_deg_s"]["margin_pct"] > 0.0
    for key, margin in found["margins"].items():
        assert margin["margin_pct"] is None or margin["margin_pct"] > -0.1, key
    assert found["power_error"]["worst_pct"] <= 0.05

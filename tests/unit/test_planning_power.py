"""Power and gate on the profile: law, ramps, latency, threshold."""

from bisect import bisect_right
from dataclasses import replace

import numpy as np
import pytest

from controller.errors import PlanError
from controller.model import TrackKind
from controller.planning.light.power import plan_power, solve_gates
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.motion_path import build_path
from tests.unit.planning_cases import (
    CELL,
    RECIPE,
    cell_with,
    plan,
    recipe_with,
    small_tracks,
    track,
)


def planned(tracks, recipe=RECIPE, cell=CELL):
    path = build_path(tracks, recipe, cell)
    profile = plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(cell))
    gates = solve_gates(path, profile, cell.laser)
    return path, profile, gates, plan_power(path, profile, gates, cell.laser)


def test_straight_bead_ramps_from_floor_to_set_over_the_ramps():
    _, profile, gates, curve = planned([track([(140, 145), (150, 145)])])
    at = gates.s_on_mm[0] + np.array([0.0, 0.4, 0.8, 5.0, 9.2, 9.6, 10.0])
    power = np.interp(profile.time_at(at), curve.t_s, curve.power_w)
    np.testing.assert_allclose(power, [150, 375, 600, 600, 600, 375, 150], atol=1e-6)


def test_bead_shorter_than_both_ramps_peaks_where_they_meet():
    _, profile, gates, curve = planned([track([(140, 145), (141, 145)])])
    power = np.interp(profile.time_at(gates.s_on_mm + 0.5), curve.t_s, curve.power_w)
    assert power[0] == pytest.approx(150 + 450 * 0.5 / 0.8)
    assert curve.power_w.max() == pytest.approx(power[0])


def test_corner_lowers_power_with_speed():
    corner = [(140, 145), (145, 145), (141, 146)]
    _, profile, gates, curve = planned([track(corner)])
    t = profile.time_at(gates.s_on_mm + 5.0)
    v = profile.state_at(t)[1][0]
    assert 0.0 < v < 5.0
    assert np.interp(t, curve.t_s, curve.power_w)[0] == pytest.approx(150 + 450 * v / 10, abs=0.1)


def test_command_is_the_wanted_curve_sent_earlier_by_the_latency():
    _, _, gates, curve = planned([track([(140, 145), (150, 145)])])
    t = np.linspace(gates.on_s[0], gates.off_s[0], 333)
    np.testing.assert_array_equal(
        curve.command_w(t - 0.003), np.interp(t - 0.003 + 0.003, curve.t_s, curve.power_w)
    )
    assert curve.command_w(gates.on_s[0] + 0.08 - 0.003) == pytest.approx(600.0, abs=0.1)


def test_gate_is_commanded_at_full_speed_and_earlier_by_its_latency():
    _, profile, gates, _ = planned(small_tracks())
    np.testing.assert_allclose(gates.on_s - gates.on_command_s, 1e-4, atol=1e-9)
    np.testing.assert_allclose(gates.off_s - gates.off_command_s, 1e-4, atol=1e-9)
    _, speed, _ = profile.state_at(gates.on_command_s)
    assert (speed >= 6.0 * (1 - 1e-9)).all()  # thin walls run at 6 mm/s, the rest at 10
    assert (profile.state_at(gates.off_command_s)[1] > 0).all()


def test_slow_source_gets_a_longer_run_up():
    slow = cell_with(('gate_latency = "0.1 ms"', 'gate_latency = "22 ms"'))
    _, profile, gates, _ = planned(small_tracks(), cell=slow)
    assert (profile.state_at(gates.on_command_s)[1] >= 6.0 * (1 - 1e-9)).all()


def test_no_ramps_means_law_at_once_and_power_waits_before_the_gate():
    flat = recipe_with(('ramp_in = "0.8 mm"', 'ramp_in = "0 mm"'),
                       ('ramp_out = "0.8 mm"', 'ramp_out = "0 mm"'))  # fmt: skip
    _, _, gates, curve = planned([track([(140, 145), (150, 145)])], recipe=flat)
    t = np.linspace(gates.on_s[0], gates.off_s[0], 100)
    np.testing.assert_allclose(np.interp(t, curve.t_s, curve.power_w), 600.0)


def test_floor_is_held_only_in_motion():
    _, profile, _, curve = planned(small_tracks())
    assert curve.power_w[0] == 0.0
    assert curve.power_w[-1] == 0.0
    # the command, 3 ms ahead of the curve, is 0 when the axes come to rest
    assert curve.t_s[-1] == pytest.approx(profile.duration_s + 0.003)
    assert curve.command_w(np.array([0.0, profile.duration_s])) == pytest.approx([0.0, 0.0])


def test_power_below_threshold_and_above_rating_is_refused():
    with pytest.raises(PlanError, match=r"below laser.threshold_power 40 W"):
        planned(
            [track([(140, 145), (150, 145)])],
            recipe=recipe_with(('power_floor = "150 W"', 'power_floor = "10 W"')),
        )
    with pytest.raises(PlanError, match=r"600 W above laser.rated_power 500 W"):
        planned(small_tracks(), cell=cell_with(('rated_power = "1000 W"', 'rated_power = "500 W"')))


# --- laws other than the linear one, caps, slew ------------------------------------------------


def corner_tracks():
    """Corners inside ramps and outside, and a bead of another kind."""
    line = [(140, 145), (140.4, 145), (140.6, 145.5), (143, 145.2), (143.2, 146), (144, 146)]
    return [track(line), track([(150, 145), (152, 146), (153, 145)], 0, TrackKind.THIN_WALL)]


def by_hand(path, profile, gates, bead, t):
    """The law in plain Python: motion from the phases, power from the bead's row."""
    i = min(max(bisect_right(profile.t_s.tolist(), t) - 1, 0), len(profile.a_mm_s2) - 1)
    tau = t - float(profile.t_s[i])
    v0, a, j = float(profile.v_mm_s[i]), float(profile.a_mm_s2[i]), float(profile.j_mm_s3[i])
    s = float(profile.s_mm[i]) + v0 * tau + a * tau**2 / 2 + j * tau**3 / 6
    v = v0 + a * tau + j * tau**2 / 2
    row = path.beads[bead]
    share = 1.0
    if row["ramp_in_mm"] > 0:
        share = min(share, (s - float(gates.s_on_mm[bead])) / float(row["ramp_in_mm"]))
    if row["ramp_out_mm"] > 0:
        share = min(share, (float(gates.s_off_mm[bead]) - s) / float(row["ramp_out_mm"]))
    floor = float(row["floor_w"])
    g = (v / float(row["speed_mm_s"])) ** float(row["power_exponent"])
    power = floor + (float(row["power_w"]) - floor) * g * max(share, 0.0)
    return min(power, float(row["energy_cap_j_mm"]) * v)


def worst_error_w(path, profile, gates, curve, n=4000):
    worst = 0.0
    for bead in range(len(path.beads)):
        t = np.linspace(gates.on_s[bead], gates.off_s[bead], n)
        power = np.interp(t, curve.t_s, curve.power_w)
        wanted = [by_hand(path, profile, gates, bead, x) for x in t.tolist()]
        worst = max(worst, float(np.abs(power - wanted).max()))
    return worst


LAWS = [
    'power_law = "linear"',
    'power_law = "power"\npower_exponent = 0.5',
    'power_law = "power"\npower_exponent = 2.5',
    'power_law = "linear"\nenergy_cap = "58 J/mm"',
    'power_law = "power"\npower_exponent = 0.3\nenergy_cap = "62 J/mm"',
]


@pytest.mark.parametrize("law", LAWS)
def test_straight_pieces_stay_within_a_hundredth_percent_of_full_power_in_every_law(law):
    recipe = recipe_with(('power_law = "linear"', law), ('power_floor = "150 W"',
                                                        'power_floor = "60 W"'))  # fmt: skip
    found = planned(corner_tracks(), recipe=recipe)
    assert 0.0 < worst_error_w(*found) <= 0.1 + 1e-6  # of 1000 W


def test_bending_speed_is_followed_where_jerk_is_not_zero():
    path, profile, _, _ = planned(corner_tracks())
    # the same way with the speed of each phase bent by a jerk that takes its length back
    dt = np.diff(profile.t_s)
    speeding = (np.abs(profile.a_mm_s2) > 0) & (dt > 1e-4)
    j = np.where(speeding, 1.2 * np.abs(profile.a_mm_s2) / np.maximum(dt, 1e-9), 0.0)
    # v(dt) keeps: a' = a - j dt / 2; the length changes by - j dt^3 / 12
    a = profile.a_mm_s2 - 0.5 * j * dt
    way = dt * (profile.v_mm_s[:-1] + dt * (0.5 * a + j * dt / 6.0))
    s = np.concatenate([[0.0], np.cumsum(way)])
    assert (np.diff(s) >= 0).all()
    move_s = np.interp(profile.move_s_mm, profile.s_mm, s)
    curve = replace(profile.curve, move_s_mm=move_s)
    bent = replace(profile, a_mm_s2=a, j_mm_s3=j, s_mm=s, curve=curve)
    gates = solve_gates(path, bent, CELL.laser)
    power = plan_power(path, bent, gates, CELL.laser)
    assert 0.0 < worst_error_w(path, bent, gates, power) <= 0.1 + 1e-6


def test_each_kind_of_track_has_its_own_law():
    recipe = recipe_with(("[track.thin_wall]\n",
                          '[track.thin_wall]\npower_law = "power"\npower_exponent = 2.0\n'
                          '[track.first_layer]\npower = "700 W"\n'))  # fmt: skip
    sharp = [(150, 145), (152, 145), (150.2, 145.4)]
    tracks = [track(sharp), track(sharp, 0, TrackKind.THIN_WALL)]
    path, profile, gates, curve = planned(tracks, recipe=recipe)
    assert path.beads["power_exponent"].tolist() == [1.0, 2.0]
    assert path.beads["power_w"].tolist() == [700.0, 700.0]
    t = profile.time_at(gates.s_on_mm[1:] + 2.0)
    v = float(profile.state_at(t)[1][0])
    assert v < 3.0
    wanted = 150 + 550 * (v / 6.0) ** 2
    assert np.interp(t, curve.t_s, curve.power_w)[0] == pytest.approx(wanted, abs=0.1)


def test_exponent_belongs_to_the_power_law_only():
    recipe = recipe_with(('power_law = "linear"', 'power_law = "linear"\npower_exponent = 3.0'))
    path, *_ = planned(corner_tracks(), recipe=recipe)
    assert path.beads["power_exponent"].tolist() == [1.0, 1.0]


def test_energy_cap_bounds_power_over_speed_everywhere():
    recipe = recipe_with(('power_law = "linear"', 'power_law = "linear"\nenergy_cap = "62 J/mm"'))
    _, profile, gates, curve = planned(corner_tracks(), recipe=recipe)
    for on, off in zip(gates.on_s, gates.off_s, strict=True):
        t = np.linspace(on, off, 3000)
        v = profile.state_at(t)[1]
        assert (np.interp(t, curve.t_s, curve.power_w) <= 62.0 * v + 0.1).all()
    assert curve.capped_beads.tolist() == [True, True]  # 600 W at 6 mm/s is 100 J/mm


def test_cap_that_would_put_the_beam_out_is_refused():
    recipe = recipe_with(('power_law = "linear"', 'power_law = "linear"\nenergy_cap = "20 J/mm"'))
    with pytest.raises(
        PlanError,
        match=r"bead 0 \(hatch, layer 0\): power \d+\.\d W at \d+\.\d+ s \(energy_cap 20 J/mm at "
        r"\d\.\d+ mm/s\) below laser\.threshold_power 40 W",
    ):
        planned([track([(140, 145), (145, 145), (141, 146)])], recipe=recipe)


def slow_source(slew):
    return cell_with(("spot_diameter", f'power_slew = "{slew} W/s"\nspot_diameter'))


def slopes(curve):
    dt = np.diff(curve.t_s)
    return np.abs(np.diff(curve.power_w))[dt > 1e-12] / dt[dt > 1e-12]


def test_command_never_changes_faster_than_the_source_can():
    for slew in (500, 2000, 7000, 50_000):
        _, _, _, curve = planned(corner_tracks(), cell=slow_source(slew))
        assert slopes(curve).max() <= slew * (1 + 1e-9)


def test_change_starts_with_the_gate_shut_so_that_the_bead_is_not_touched():
    # ramps of 0.8 mm at 10 mm/s rise 450 W in 80 ms: 5625 W/s, within 6000
    two = recipe_with(("[track.thin_wall]\n", '[track.thin_wall]\npower_floor = "500 W"\n'))
    lines = [track([(140, 145), (150, 145)]), track([(150, 146), (140, 146)], 0,
                                                    TrackKind.THIN_WALL)]  # fmt: skip
    _, _, gates, curve = planned(lines, recipe=two, cell=slow_source(6000))
    assert curve.slew_error_w == 0.0
    at = np.interp(gates.on_s, curve.t_s, curve.power_w)
    assert at.tolist() == pytest.approx([150.0, 500.0], abs=1e-6)
    assert slopes(curve).max() <= 6000.0


def test_slew_that_the_law_exceeds_gives_the_nearest_curve_and_its_error():
    # 450 W over 80 ms are 5625 W/s; at 5000 W/s a ramp falls short by (450 - 400) / 2 = 25 W
    _, _, gates, curve = planned([track([(140, 145), (150, 145)])], cell=slow_source(5000))
    assert curve.slew_error_w == pytest.approx(25.0, abs=0.01)
    assert curve.slew_bead == 0
    at = np.interp([gates.on_s[0], gates.on_s[0] + 0.08], curve.t_s, curve.power_w)
    assert at.tolist() == pytest.approx([175.0, 575.0], abs=0.01)


def test_no_curve_of_that_slope_could_be_nearer():
    """Where f(t) and f(u) differ by more than R |t - u|, any curve misses one by half of it."""
    path, profile, gates, curve = planned([track([(140, 145), (142, 145), (141, 146)])],
                                          cell=slow_source(4000))  # fmt: skip
    t = np.linspace(gates.on_s[0], gates.off_s[0], 1500)
    f = np.array([by_hand(path, profile, gates, 0, x) for x in t.tolist()])
    excess = np.abs(f[:, None] - f[None, :]) - 4000.0 * np.abs(t[:, None] - t[None, :])
    bound_w = 0.5 * float(excess.max())
    assert bound_w > 10.0
    assert curve.slew_error_w == pytest.approx(bound_w, rel=0.01)
    error = np.abs(np.interp(t, curve.t_s, curve.power_w) - f)
    assert error.max() == pytest.approx(bound_w, rel=0.01)


def test_slew_with_an_energy_cap_stays_below_the_cap():
    recipe = recipe_with(('power_law = "linear"', 'power_law = "linear"\nenergy_cap = "62 J/mm"'))
    _, profile, gates, curve = planned(corner_tracks(), recipe=recipe, cell=slow_source(4000))
    for on, off in zip(gates.on_s, gates.off_s, strict=True):
        t = np.linspace(on, off, 3000)
        v = profile.state_at(t)[1]
        assert (np.interp(t, curve.t_s, curve.power_w) <= 62.0 * v + 0.1).all()
    assert slopes(curve).max() <= 4000 * (1 + 1e-9)


def test_source_too_slow_to_be_above_its_threshold_at_the_start_is_refused():
    recipe = recipe_with(('power_law = "linear"', 'power_law = "linear"\nenergy_cap = "62 J/mm"'))
    with pytest.raises(PlanError, match=r"laser\.power_slew 5 W/s is too slow"):
        planned([track([(140, 145), (150, 145)])], recipe=recipe, cell=slow_source(5))


def test_floor_at_the_threshold_is_never_rounded_below_it():
    made = plan(
        [track([(140, 145), (150, 145), (141, 146)])],
        recipe=recipe_with(('power_floor = "150 W"', 'power_floor = "40 W"')),
    )
    row = made.tracks[0]
    inside = made.segments[row["first_segment"] : row["end_segment"]]
    assert inside["end_power"].min() / 65535.0 * 1000.0 >= 40.0


def test_power_waits_for_the_gate_as_long_as_the_jitter():
    two = recipe_with(("[track.thin_wall]\n", '[track.thin_wall]\npower_floor = "200 W"\n'))
    lines = [track([(140, 145), (150, 145)]), track([(150, 146), (140, 146)], 0,
                                                    TrackKind.THIN_WALL)]  # fmt: skip
    _, _, gates, curve = planned(lines, recipe=two)
    before = np.interp(gates.on_s[1] - 0.002, curve.t_s, curve.power_w)
    after = np.interp(gates.off_s[0] + 0.002, curve.t_s, curve.power_w)
    assert [after, before] == pytest.approx([150.0, 200.0], abs=1e-9)

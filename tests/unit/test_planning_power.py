"""Power and gate on the profile: law, ramps, latency, threshold."""

import numpy as np
import pytest

from controller.errors import PlanError
from controller.planning.laws import plan_profile
from controller.planning.motion_path import build_path
from controller.planning.power import plan_power, solve_gates
from controller.planning.profile import MotionLimits
from tests.unit.planning_cases import CELL, RECIPE, cell_with, recipe_with, small_tracks, track


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

"""The time law behind its interface."""

import numpy as np
import pytest

from controller.errors import PlanError
from controller.planning.motion.laws import MODES, plan_profile
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.motion_path import build_path
from tests.unit.planning_cases import CELL, RECIPE, small_tracks

LIMITS = MotionLimits.of_cell(CELL)


def made():
    path = build_path(small_tracks(), RECIPE, CELL)
    return path, plan_profile(path.points_mm, path.speed_mm_s, LIMITS)


def test_limits_are_the_planned_share():
    assert LIMITS.accel_mm_s2 == pytest.approx(1600.0)
    np.testing.assert_allclose(LIMITS.axis_accel_mm_s2, [1600.0, 1600.0, 400.0])
    np.testing.assert_allclose(LIMITS.axis_speed_mm_s, np.sqrt(0.8) * np.array([120.0, 120, 40]))


@pytest.mark.parametrize("mode", list(MODES))
def test_profile_keeps_acceleration_and_speed_of_every_axis(mode):
    path, profile = made()
    unit = np.abs(np.diff(path.points_mm, axis=0))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    # speed differenced at 20 us, independently of the stored accelerations
    t = np.arange(0.0, profile.duration_s, 20e-6)
    s, v, _ = profile.state_at(t)
    assert np.abs(np.diff(v)).max() / 20e-6 <= 1600.0 * 1.001
    per_axis = unit[profile.move] * np.abs(profile.a_mm_s2)[:, None]
    assert (per_axis <= LIMITS.axis_accel_mm_s2 * (1 + 1e-9)).all()
    fastest = np.maximum(profile.v_mm_s[1:], profile.v_mm_s[:-1])
    assert (unit[profile.move] * fastest[:, None] <= LIMITS.axis_speed_mm_s * (1 + 1e-9)).all()
    assert (fastest <= path.speed_mm_s[profile.move] * (1 + 1e-9)).all()
    assert (np.diff(s) >= 0).all()


def test_time_at_is_the_inverse_of_state_at():
    _, profile = made()
    s = np.linspace(0.0, profile.s_mm[-1], 5000)
    back, _, _ = profile.state_at(profile.time_at(s))
    np.testing.assert_allclose(back, s, atol=1e-7)


def test_dwell_shifts_the_motion_and_stands_still():
    _, profile = made()
    late = profile.after_dwell(2.5)
    assert late.duration_s == pytest.approx(profile.duration_s + 2.5)
    s, v, a = late.state_at(np.array([0.0, 1.0, 2.4]))
    assert not s.any()
    assert not v.any()
    assert not a.any()
    assert late.time_at(0.0)[0] == pytest.approx(2.5)
    np.testing.assert_allclose(late.time_at(5.0), profile.time_at(5.0) + 2.5)
    assert late.hard_kinks()[:2].all()


def test_unknown_law_and_bad_numbers_are_refused():
    with pytest.raises(PlanError, match="'warp'"):
        plan_profile(np.eye(3), np.ones(2), LIMITS, "warp")
    with pytest.raises(PlanError, match="index 1"):
        plan_profile(np.array([[0.0, 0, 0], [np.nan, 0, 0]]), np.ones(1), LIMITS)
    with pytest.raises(PlanError, match="no length"):
        plan_profile(np.zeros((3, 3)), np.ones(2), LIMITS)

"""Replanning from a speed: judged by differences of the float profile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import PlanError
from controller.planning.motion.profile import MotionLimits
from controller.planning.motion.replan import first_direction, replan
from tests.unit.planning_cases import CELL

LAWS = ("trapezoid", "friction_circle", "jerk")
LIMITS = MotionLimits.of_cell(CELL)


def wavy(n=200, seed=3):
    """A path in X and Y that turns gently, 0.5 mm a move."""
    turn = np.cumsum(np.random.default_rng(seed).uniform(-0.1, 0.1, n))
    step = 0.5 * np.column_stack([np.cos(turn), np.sin(turn), np.zeros(n)])
    return np.concatenate([np.zeros((1, 3)), np.cumsum(step, axis=0)]) + 100.0


@pytest.mark.parametrize("law", LAWS)
@settings(max_examples=25, deadline=None)
@given(v=st.floats(0.1, 10.0), scale=st.floats(1.0, 1.3))
def test_begins_at_the_speed_that_is_there_and_ends_at_rest(law, v, scale):
    points = wavy()
    made = replan(points, np.full(200, 10.0), v, LIMITS, law, speed_scale=scale)
    assert made.v_mm_s == pytest.approx(v, rel=1e-6)
    t = np.arange(made.t_s, made.profile.duration_s, 1e-3)
    s, speed, _ = made.profile.state_at(t)
    assert s[0] == pytest.approx(made.s_mm, abs=1e-6)
    assert made.profile.s_mm[-1] - made.s_mm == pytest.approx(100.0, rel=1e-3)
    assert speed.max() <= max(10.0 * scale, v) * (1.0 + 1e-9)
    assert made.profile.state_at(np.array([made.profile.duration_s]))[1][0] == pytest.approx(
        0.0, abs=1e-6
    )
    # acceleration along the path from differences of s, this law's own limit
    a = np.diff(s, 2) / 1e-6
    assert np.abs(a).max() <= LIMITS.accel_mm_s2 * 1.01 + 1.0


@pytest.mark.parametrize("law", LAWS)
def test_from_rest_is_the_plain_plan(law):
    points = wavy(50)
    made = replan(points, np.full(50, 10.0), 0.0, LIMITS, law)
    assert made.t_s == made.s_mm == 0.0


def test_above_the_new_limit_it_slows_down_behind_the_seam():
    made = replan(wavy(), np.full(200, 10.0), 10.0, LIMITS, "trapezoid", speed_scale=0.5)
    later = made.profile.state_at(np.array([made.t_s + 1.0]))[1][0]
    assert made.v_mm_s <= 10.0
    assert later == pytest.approx(5.0)


def test_a_corner_that_is_too_near_is_told():
    points = np.array([[100.0, 100, 20], [100.01, 100, 20], [100.0, 100.0, 20]])
    with pytest.raises(PlanError, match="cannot be entered at 50 mm/s"):
        replan(points, np.full(2, 50.0), 50.0, LIMITS)


def test_tangent_of_an_arc():
    points = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    along = first_direction(points, np.array([[0.0, 1.0, 0.0]]))
    assert along == pytest.approx([0.0, 1.0, 0.0])


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_no_speed_is_refused(bad):
    with pytest.raises(PlanError, match="replan from"):
        replan(wavy(10), np.full(10, 10.0), bad, LIMITS)

"""Powder override and holds: the changed timeline through an independent line."""

import numpy as np
import pytest

from controller.errors import PlanError
from controller.model import PowderChannel
from controller.planning.powder import live as live
from tests.unit.planning_cases import CELL, cell_with, recipe_with
from tests.unit.powder_bench import Case, command_at, simulate
from tests.unit.test_planning_powder import THREE_FLOWS, hatched_tracks

POWDER = CELL.powder


@pytest.fixture(scope="module")
def made():
    return Case.of(hatched_tracks(), recipe_with(THREE_FLOWS), CELL)


@pytest.mark.parametrize("factor", [0.7, 1.15])
@pytest.mark.parametrize("from_s", [12.0, 16.4, 30.0])
def test_override_scales_the_flow_from_delay_and_lag_later_and_nothing_before(made, factor, from_s):
    end_s = made.profile.duration_s + 10.0
    changed = live.rescale_timeline(made.fed.timeline, from_s, factor, POWDER)
    t, old = simulate(made.fed.timeline, 0, end_s)
    _, new = simulate(changed.timeline, 0, end_s)
    assert changed.begins_s == pytest.approx(from_s + 3.2)
    assert changed.done_s <= from_s + 3.2 + 1.5
    before, after = t < changed.begins_s - 0.01, t > changed.done_s
    assert before.any()
    assert after.any()
    np.testing.assert_array_equal(new[before], old[before])
    assert np.abs(new[after] - factor * old[after]).max() < 0.05
    rows = changed.timeline
    assert (np.diff(rows["t_s"]) >= 0.0).all()
    early = rows["t_s"] < from_s
    np.testing.assert_array_equal(rows[early], made.fed.timeline[made.fed.timeline["t_s"] < from_s])


def test_override_leaves_gas_and_diverter(made):
    changed = live.rescale_timeline(made.fed.timeline, 15.0, 1.2, POWDER)
    for channel in (PowderChannel.CARRIER, PowderChannel.SHIELD, PowderChannel.DIVERTER):
        one = made.fed.timeline[made.fed.timeline["channel"] == channel]
        np.testing.assert_array_equal(changed.timeline[changed.timeline["channel"] == channel], one)


def test_override_and_its_inverse_give_the_flow_back(made):
    there = live.rescale_timeline(made.fed.timeline, 14.0, 0.8, POWDER)
    back = live.rescale_timeline(there.timeline, 25.0, 1.25, POWDER)
    t, old = simulate(made.fed.timeline, 0, made.profile.duration_s)
    _, new = simulate(back.timeline, 0, made.profile.duration_s)
    late = t > back.done_s
    assert np.abs(new[late] - old[late]).max() < 0.05


def test_override_beyond_the_feeder_is_told_and_stays_within(made):
    cell = cell_with(('greatest_flow = "20 g/min"', 'greatest_flow = "10 g/min"'))
    changed = live.rescale_timeline(made.fed.timeline, 15.0, 1.3, cell.powder)
    (note,) = changed.warnings
    assert "hopper 1" in note
    assert "above 10 g/min (powder.greatest_flow)" in note
    late = changed.timeline[changed.timeline["t_s"] > 15.0]
    assert late[late["channel"] == 0]["value"].max() <= 10.0
    assert not live.rescale_timeline(made.fed.timeline, 15.0, 0.9, POWDER).warnings


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_override_that_is_no_number_above_zero_is_refused(made, factor):
    with pytest.raises(PlanError, match="not a number above 0"):
        live.rescale_timeline(made.fed.timeline, 15.0, factor, POWDER)


@pytest.mark.parametrize("at_s", [9.0, 14.6, 18.9, 25.6])
def test_after_a_hold_the_nozzle_has_the_flow_that_the_plan_had(made, at_s):
    """Also where changes are in the pipe: between the command and the nozzle."""
    pause_s = 20.0
    held = live.shift_timeline(made.fed.timeline, at_s, pause_s, POWDER)
    end_s = made.profile.duration_s
    t, old = simulate(made.fed.timeline, 0, end_s)
    late, new = simulate(held.timeline, 0, end_s + pause_s)
    assert held.motion_s == at_s + pause_s
    before = late < at_s
    np.testing.assert_array_equal(new[before], np.interp(late[before], t, old))
    after = late >= held.motion_s
    wanted = np.interp(late[after] - pause_s, t, old)
    assert wanted.max() > 6.0
    assert np.abs(new[after] - wanted).max() < 0.08
    # a timeline that only waits feeds what came after the change too early
    naive = made.fed.timeline.copy()
    naive["t_s"][naive["t_s"] >= at_s] += pause_s
    _, wrong = simulate(naive, 0, end_s + pause_s)
    if at_s in (9.0, 18.9, 25.6):
        assert np.abs(wrong[after] - wanted).max() > 1.0


def test_powder_of_a_hold_goes_to_waste_and_comes_back_before_motion(made):
    held = live.shift_timeline(made.fed.timeline, 16.0, 10.0, POWDER)
    t = np.arange(0.0, 40.0, 0.01)
    nozzle = command_at(held.timeline, PowderChannel.DIVERTER, t)
    assert nozzle[(t > 10.0) & (t < 16.0)].all()
    assert not nozzle[(t > 16.01) & (t < 25.49)].any()
    assert nozzle[t > 25.51].all()


def test_a_hold_shorter_than_powders_way_is_refused_by_its_length(made):
    least_s = live.least_pause_s(made.fed.timeline, 16.0, POWDER)
    assert 3.2 < least_s < 6.5
    live.shift_timeline(made.fed.timeline, 16.0, least_s, POWDER)
    with pytest.raises(PlanError, match=rf"hold of 2.00 s at 16.00 s below {least_s:.2f} s"):
        live.shift_timeline(made.fed.timeline, 16.0, 2.0, POWDER)


def test_held_flow_is_what_the_lag_has_reached_not_the_lead(made):
    rows = made.fed.timeline[made.fed.timeline["channel"] == 0]
    peak = rows[int(np.argmax(rows["value"]))]
    at_s = float(peak["t_s"]) + 0.05
    assert live.command_g_min(made.fed.timeline, at_s, POWDER)[0] == peak["value"] > 11.0
    (flow, other) = live.held_flow_g_min(made.fed.timeline, at_s, POWDER)
    assert other == 0.0
    t, nozzle = simulate(made.fed.timeline, 0, at_s + 3.3)
    assert flow == pytest.approx(np.interp(at_s + 3.2, t, nozzle), abs=0.05)
    steady = live.held_flow_g_min(made.fed.timeline, 12.0, POWDER)
    assert steady == live.command_g_min(made.fed.timeline, 12.0, POWDER)
    assert live.held_flow_g_min(made.fed.timeline, 0.5, POWDER) == (0.0, 0.0)

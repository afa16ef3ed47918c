"""Powder, gas and diverter on the process timeline; the transport is simulated here anew."""

import numpy as np
import pytest

from controller.model import PowderChannel, TrackKind
from controller.planning.powder import NozzleFlow
from tests.unit.planning_cases import CELL, cell_with, plan, recipe_with, small_tracks


def simulate(timeline, channel, duration_s, delay_s=3.2, lag_s=0.6, dt=1e-3):
    """Flow at the nozzle by Euler steps: delay, then first-order lag."""
    rows = [(t, v) for t, c, v in timeline.tolist() if c == channel]
    t = np.arange(0.0, duration_s, dt)
    command = np.zeros(len(t))
    for at, value in rows:
        command[t >= at] = value
    shift = round(delay_s / dt)
    late = np.concatenate([np.zeros(shift), command])[: len(t)]
    flow = np.zeros(len(t))
    for i in range(1, len(t)):
        flow[i] = flow[i - 1] + (late[i - 1] - flow[i - 1]) * dt / lag_s
    return t, flow


def test_flow_at_the_nozzle_has_settled_before_the_first_emission():
    made = plan()
    t, flow = simulate(made.timeline, PowderChannel.HOPPER_1, made.figures["duration_s"])
    first, last = made.tracks["start_s"][0], made.tracks["end_s"][-1]
    assert (flow[(t >= first) & (t <= last)] >= 0.98 * 6.3).all()
    assert flow[t < first - 6.0].max(initial=0.0) == 0.0  # nor much earlier than needed


def test_order_is_gas_then_powder_then_diverter_then_emission():
    made = plan()
    when = {}
    for t, channel, value in made.timeline.tolist():
        if value > 0:
            when.setdefault(channel, t)
    gas, shield = when[PowderChannel.CARRIER], when[PowderChannel.SHIELD]
    powder, nozzle = when[PowderChannel.HOPPER_1], when[PowderChannel.DIVERTER]
    assert max(gas, shield) + 1.0 <= powder < nozzle < made.tracks["start_s"][0]


def test_timeline_is_sorted_and_never_negative():
    t = plan().timeline["t_s"]
    assert (np.diff(t) >= 0).all()
    assert t[0] >= 0.0
    assert t[-1] <= plan().figures["duration_s"]


def test_feeder_stops_the_delay_before_the_last_emission_ends():
    made = plan()
    stop = made.timeline[made.timeline["channel"] == PowderChannel.HOPPER_1][-1]
    assert stop["value"] == 0.0
    assert stop["t_s"] == pytest.approx(made.tracks["end_s"][-1] - 3.2, abs=2e-4)


def test_change_between_kinds_is_sent_the_delay_earlier():
    two = recipe_with(("[track.thin_wall]\n", '[track.thin_wall]\npowder = "9 g/min"\n'))
    made = plan(recipe=two)
    rows = made.timeline[made.timeline["channel"] == PowderChannel.HOPPER_1]
    assert rows["value"].tolist() == [6.3, 9.0, 6.3, 9.0, 0.0]
    wall = made.tracks[made.tracks["kind"] == TrackKind.THIN_WALL]
    wanted = rows["t_s"][1] + 3.2
    before = made.tracks["end_s"][2]
    assert before <= wanted <= wall["start_s"][0] + 2e-4


def test_standing_dwell_fills_what_the_way_from_home_lacks():
    made = plan()
    assert made.meta["priming_dwell_s"] > 1.0
    instant = cell_with(('transport_delay = "3.2 s"', 'transport_delay = "0 s"'),
                        ('lag = "0.6 s"', 'lag = "0 s"'))  # fmt: skip
    assert plan(cell=instant).meta["priming_dwell_s"] == 0.0


def test_powder_figures_agree_with_the_simulated_transport():
    made = plan()
    t, flow = simulate(made.timeline, PowderChannel.HOPPER_1, made.figures["duration_s"])
    assert made.figures["powder_g"] == pytest.approx(flow.sum() * 1e-3 / 60.0, rel=2e-3)
    lit = np.zeros(len(t), bool)
    for row in made.tracks:
        lit |= (t >= row["start_s"]) & (t < row["end_s"])
    laid = 0.4 * flow[lit].sum() * 1e-3 / 60.0
    assert made.figures["deposited_g"] == pytest.approx(laid, rel=5e-3)


def test_other_hopper_is_used_for_its_material_and_the_rest_stay_off():
    made = plan(recipe=recipe_with(('material = "316L"', 'material = "IN625"')))
    one = made.timeline[made.timeline["channel"] == PowderChannel.HOPPER_1]
    two = made.timeline[made.timeline["channel"] == PowderChannel.HOPPER_2]
    assert not one["value"].any()
    assert two["value"].max() == 6.3


def test_flow_model_without_lag_is_a_step():
    cell = cell_with(('lag = "0.6 s"', 'lag = "0 s"'))
    flow = NozzleFlow.of(np.array([0.0, 10.0]), np.array([6.0, 0.0]), cell.powder)
    rate, mass = flow.at(np.array([3.19, 3.3, 13.3, 20.0]))
    np.testing.assert_allclose(rate, [0, 6, 0, 0], atol=1e-12)
    np.testing.assert_allclose(mass, [0, 0.01, 1.0, 1.0], atol=1e-9)
    assert CELL.powder.lag_s == 0.6


def test_tracks_of_one_flow_give_one_start_and_one_stop():
    rows = plan(small_tracks()).timeline
    assert len(rows[rows["channel"] == PowderChannel.HOPPER_1]) == 2

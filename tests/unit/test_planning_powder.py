"""Powder, gas and diverter on the process timeline; the transport is simulated here anew."""

from itertools import pairwise

import numpy as np
import pytest

from controller.errors import ConfigError, PlanError, RecipeError
from controller.model import PowderChannel, TrackKind
from controller.planning.powder import NozzleFlow
from controller.planning.powder.line import Line, invert, ramp_s, thinned
from controller.recipes import check_recipe
from tests.unit.planning_cases import CELL, cell_with, plan, recipe_with, small_tracks, track
from tests.unit.powder_bench import Case, command_at, simulate

# contours get more, thin walls less than hatch
THREE_FLOWS = (
    "[track.thin_wall]\n",
    '[track.contour]\npowder = "9 g/min"\n\n[track.thin_wall]\npowder = "4.5 g/min"\n',
)
LINE = Line(hopper=0, transport_delay_s=3.2, lag_s=0.6, least_g_min=0.0, greatest_g_min=20.0)


def hatched_tracks(layers=3):
    """Squares of 12 mm: a contour, eight hatch lines to and fro, a thin wall beside."""
    tracks = []
    for layer in range(layers):
        square = [(140, 140), (152, 140), (152, 152), (140, 152), (140, 140)]
        tracks.append(track(square, layer, TrackKind.CONTOUR))
        for i in range(8):
            line = [(141, 141.5 + 1.25 * i), (151, 141.5 + 1.25 * i)]
            tracks.append(track(line[:: (-1) ** i], layer))
        tracks.append(track([(156, 141), (156, 151)], layer, TrackKind.THIN_WALL))
    return tracks


# --- the plan -------------------------------------------------------------------------------


def test_flow_at_the_nozzle_has_settled_before_the_first_emission():
    made = plan()
    t, flow = simulate(made.timeline, PowderChannel.HOPPER_1, made.figures["duration_s"])
    first, last = made.tracks["start_s"][0], made.tracks["end_s"][-1]
    lit = (t >= first) & (t <= last)
    assert lit.any()
    assert np.abs(flow[lit] / 6.3 - 1.0).max() < 0.005
    assert flow[t < first - 2.0].max(initial=0.0) == 0.0  # nor much earlier than needed


def test_flow_is_there_and_stays_when_the_delay_is_ten_percent_off():
    made = plan()
    first, last = made.tracks["start_s"][0], made.tracks["end_s"][-1]
    for delay_s in (0.9 * 3.2, 1.1 * 3.2):
        t, flow = simulate(made.timeline, 0, made.figures["duration_s"], delay_s=delay_s)
        lit = (t >= first) & (t <= last)
        assert np.abs(flow[lit] / 6.3 - 1.0).max() < 0.01, delay_s


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
    made = plan(hatched_tracks(), recipe=recipe_with(THREE_FLOWS))
    t = made.timeline["t_s"]
    assert (np.diff(t) >= 0).all()
    assert t[0] >= 0.0
    assert t[-1] <= made.figures["duration_s"]
    assert (made.timeline["value"] >= 0.0).all()


def test_feeder_stops_so_that_even_a_short_line_feeds_to_the_last_emission():
    made = plan()
    stop = made.timeline[made.timeline["channel"] == PowderChannel.HOPPER_1][-1]
    assert stop["value"] == 0.0
    wanted = min(made.tracks["end_s"][-1] + 0.32, made.figures["duration_s"] + 3.2)
    assert stop["t_s"] == pytest.approx(wanted - 3.2, abs=2e-4)


def test_change_between_beads_has_its_middle_in_the_middle_of_the_gap():
    made = Case.of(hatched_tracks(), recipe_with(THREE_FLOWS), CELL)
    t, flow = simulate(made.fed.timeline, 0, made.profile.duration_s)
    for b, (one, other) in ((0, (9.0, 6.3)), (8, (6.3, 4.5)), (9, (4.5, 9.0))):
        middle = 0.5 * (made.gates.off_s[b] + made.gates.on_s[b + 1])
        there = np.interp(middle, t, flow)
        assert there == pytest.approx(0.5 * (one + other), abs=0.1 * abs(one - other)), b


def test_commands_are_no_closer_than_the_grid_and_within_the_feeder():
    cell = cell_with(('greatest_flow = "20 g/min"', 'greatest_flow = "9.5 g/min"\n'
                      'least_flow = "1.5 g/min"'))  # fmt: skip
    made = plan(hatched_tracks(), recipe=recipe_with(THREE_FLOWS), cell=cell)
    rows = made.timeline[made.timeline["channel"] == PowderChannel.HOPPER_1]
    assert len(rows) > 10
    assert np.diff(rows["t_s"]).min() > 0.09
    value = rows["value"]
    assert value.max() <= 9.5
    assert ((value == 0.0) | (value >= 1.5)).all()
    t, flow = simulate(made.timeline, 0, made.figures["duration_s"])
    contour = made.tracks[made.tracks["kind"] == TrackKind.CONTOUR][1]
    assert np.interp(contour["end_s"] - 1.0, t, flow) == pytest.approx(9.0, rel=0.02)


def test_standing_dwell_fills_what_the_way_from_home_lacks():
    made = plan()
    assert made.meta["priming_dwell_s"] > 1.0
    instant = cell_with(('transport_delay = "3.2 s"', 'transport_delay = "0 s"'),
                        ('lag = "0.6 s"', 'lag = "0 s"'))  # fmt: skip
    assert plan(cell=instant).meta["priming_dwell_s"] == 0.0


def test_a_hopper_of_its_own_delay_is_led_by_that():
    own = 'lot = "SIM-001", mass = "5 kg"'
    cell = cell_with((own, own + ', transport_delay = "5 s", lag = "1 s"'))
    made = plan(cell=cell)
    t, flow = simulate(made.timeline, 0, made.figures["duration_s"], delay_s=5.0, lag_s=1.0)
    first = made.tracks["start_s"][0]
    assert np.interp(first, t, flow) == pytest.approx(6.3, rel=0.005)
    assert np.interp(first - 3.0, t, flow) == 0.0


def test_powder_figures_count_all_that_leaves_the_hoppers():
    made = plan(hatched_tracks(), recipe=recipe_with(THREE_FLOWS))
    # long after the end: the line is empty then
    t, flow = simulate(made.timeline, PowderChannel.HOPPER_1, made.figures["duration_s"] + 20.0)
    left_g = flow.sum() * 1e-3 / 60.0
    assert made.figures["powder_g"] == pytest.approx(left_g, rel=1e-3)
    assert made.figures["powder_g_by_hopper"] == [made.figures["powder_g"], 0.0]
    lit = np.zeros(len(t), bool)
    for row in made.tracks:
        lit |= (t >= row["start_s"]) & (t < row["end_s"])
    laid = 0.4 * flow[lit].sum() * 1e-3 / 60.0
    assert made.figures["deposited_g"] == pytest.approx(laid, rel=5e-3)


def test_other_hopper_is_used_for_its_material_and_the_rest_stay_off():
    made = plan(recipe=recipe_with(('material = "316L"', 'material = "IN625"')))
    one = made.timeline[made.timeline["channel"] == PowderChannel.HOPPER_1]
    two = made.timeline[made.timeline["channel"] == PowderChannel.HOPPER_2]
    assert len(one) == 1
    assert not one["value"].any()
    assert 6.3 in two["value"]


def test_tracks_of_one_flow_give_one_start_and_one_stop():
    rows = plan(small_tracks()).timeline
    own = rows[rows["channel"] == PowderChannel.HOPPER_1]
    settled = np.flatnonzero(own["value"] == 6.3)
    assert len(settled) == 1
    assert own["value"][-1] == 0.0
    assert settled[0] == len(own) - 2
    assert own["t_s"][settled[0]] - own["t_s"][own["value"] > 0][0] < 1.0  # the lead


def test_feeder_rests_and_the_powder_goes_to_waste_in_a_long_gap():
    far = [track([(140, 140), (150, 140)]), track([(20, 20), (20, 30)], layer=1)]
    slow = cell_with(('travel_speed = "60 mm/s"', 'travel_speed = "10 mm/s"'))
    made = plan(far, cell=slow)
    off, on = made.tracks["end_s"][0], made.tracks["start_s"][1]
    assert on - off > 10.0
    t, flow = simulate(made.timeline, 0, made.figures["duration_s"])
    assert np.interp(0.5 * (off + on), t, flow) < 0.02
    assert np.interp(on, t, flow) == pytest.approx(6.3, rel=0.005)
    nozzle = command_at(made.timeline, PowderChannel.DIVERTER, t)
    assert not nozzle[(t > off + 0.01) & (t < on - 0.51)].any()
    assert nozzle[(t > on - 0.49) & (t < on + 0.5)].all()


def test_powder_follows_the_speed_where_the_recipe_asks():
    law = ('powder = "6.3 g/min"', 'powder = "6.3 g/min"\npowder_law = "speed"')
    # an axis too slow for the bead: the second half goes along Y at 5 of 10 mm/s,
    # which is sqrt(plan_share) of what the axis can
    slow = cell_with(('name = "Y"\nsteps = "400 1/mm"\nrange = ["0 mm", "300 mm"]\n'
                      'speed = "120 mm/s"', 'name = "Y"\nsteps = "400 1/mm"\n'
                      'range = ["0 mm", "300 mm"]\nspeed = "5.59017 mm/s"'))  # fmt: skip
    tracks = [track([(130, 140), (170, 140), (170, 160)])]
    made, flat = (Case.of(tracks, recipe_with(*c), slow) for c in ((law,), ()))
    ours, _ = made.error(made.fed.timeline)
    constant, _ = flat.error(flat.fed.timeline)
    assert constant > 0.4  # twice the powder on every mm of the slow half
    assert ours < 0.12
    t, flow = simulate(made.fed.timeline, 0, made.profile.duration_s)
    assert np.interp(made.gates.off_s[0] - 1.5, t, flow) == pytest.approx(3.15, rel=0.01)


def test_every_bead_without_powder_is_followed_by_its_due():
    remelt = recipe_with(("[track.thin_wall]\n", '[track.thin_wall]\npowder = "0 g/min"\n'))
    made = Case.of(hatched_tracks(), remelt, CELL)
    t, flow = simulate(made.fed.timeline, 0, made.profile.duration_s)
    wall = np.flatnonzero(made.path.beads["powder_g_min"] == 0.0)[0]
    on, off = made.gates.on_s[wall], made.gates.off_s[wall]
    # nothing pulls powder back: it ends as the lag lets it, from the gap's middle at the latest
    assert np.interp(0.5 * (on + off), t, flow) < 0.12 * 6.3
    assert np.interp(off - 0.6, t, flow) < 0.1 * 6.3
    assert np.interp(made.gates.on_s[wall + 1] + 1.0, t, flow) == pytest.approx(6.3, rel=0.02)


def test_changed_carrier_gas_is_told_with_what_it_does_to_the_delay():
    two = recipe_with(("[track.thin_wall]\n", '[track.thin_wall]\ncarrier_gas = "8 L/min"\n'))
    (note,) = [n for n in plan(recipe=two).warnings if "carrier_gas" in n]
    assert "6 and 8 L/min" in note
    assert "3.2 s" in note
    assert "33 %" in note
    assert not [n for n in plan().warnings if "carrier_gas" in n]


# --- powder per mm --------------------------------------------------------------------------


@pytest.mark.parametrize("delay_share", [0.9, 1.1])
def test_powder_per_mm_errs_a_fifth_of_uncompensated_with_the_delay_ten_percent_off(delay_share):
    """rms over windows of 1 mm; also when the start, the rival's worst part, is left out."""
    made = Case.of(hatched_tracks(), recipe_with(THREE_FLOWS), CELL)
    for skip_s in (0.0, 8.0):
        ours, worst = made.error(made.fed.timeline, delay_share, skip_s=skip_s)
        theirs, _ = made.error(made.uncompensated(), delay_share, skip_s=skip_s)
        assert theirs > 0.15
        assert ours <= 0.2 * theirs, (skip_s, ours, theirs)
        assert worst < 0.5


def test_lag_off_by_a_third_still_errs_a_fifth():
    made = Case.of(hatched_tracks(), recipe_with(THREE_FLOWS), CELL)
    for lag_share in (0.67, 1.33):
        ours, _ = made.error(made.fed.timeline, 1.0, lag_share)
        theirs, _ = made.error(made.uncompensated(), 1.0, lag_share)
        assert ours <= 0.2 * theirs


# --- the line and its inverse ---------------------------------------------------------------


def test_inverse_brings_a_ramp_to_the_nozzle():
    t = np.array([5.0, 6.0, 10.0, 10.5, 14.0])
    wanted = np.array([0.0, 6.0, 6.0, 9.0, 9.0])
    at, command = invert(LINE, t, wanted)
    rows = np.zeros(len(at), dtype=[("t_s", "f8"), ("channel", "i4"), ("value", "f8")])
    rows["t_s"], rows["value"] = at, command
    when, flow = simulate(rows, 0, 14.0, dt=1e-4)
    seen = np.interp(when, t, wanted, left=0.0)
    assert np.abs(flow - seen).max() < 0.1
    np.testing.assert_allclose(np.interp(t, when, flow), wanted, atol=0.01)


def test_inverse_makes_up_for_what_a_limit_cuts_off():
    at, command = invert(LINE, np.array([5.0, 5.1, 20.0]), np.array([0.0, 15.0, 15.0]))
    assert command.max() == 20.0
    flow = NozzleFlow.of(at, command, LINE)
    assert flow.at(np.array([7.0]))[0][0] == pytest.approx(15.0, abs=0.05)
    assert NozzleFlow.of([1.8], [15.0], LINE).at(np.array([7.0]))[0][0] < 14.6  # no lead


def test_inverse_of_a_line_without_lag_is_the_shifted_flow():
    still = Line(0, 2.0, 0.0, 0.0, 20.0)
    at, command = invert(still, np.array([5.0, 5.0, 8.0, 8.0]), np.array([0.0, 6.0, 6.0, 0.0]))
    assert at.tolist() == [3.0, 6.0]
    assert command.tolist() == [6.0, 0.0]


def test_ramp_is_stretched_to_the_feeders_limits():
    assert ramp_s(LINE, 0.0, 6.0) == 0.6
    assert ramp_s(LINE, 0.0, 15.0) == pytest.approx(0.6 * 15 / 5)
    assert ramp_s(LINE, 0.0, 20.0) == pytest.approx(4 * 0.6)
    assert ramp_s(LINE, 9.0, 4.0) == pytest.approx(0.6 * 5 / 4)  # no command is negative
    assert ramp_s(LINE, 9.0, 1.0) == pytest.approx(4 * 0.6)


@pytest.mark.parametrize("seed", range(5))
def test_thinned_flow_stays_within_its_tolerance(seed):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.choice([0.0, 0.1, 1.0], 400, p=[0.05, 0.8, 0.15]))
    flow = np.cumsum(rng.normal(0.0, 0.1, 400)).round(2)
    kept = thinned(t, flow, 0.2)
    assert kept[0] == 0
    assert kept[-1] == 399
    assert len(kept) < 300
    steps = np.flatnonzero(np.diff(t) == 0.0)
    assert set(steps) | set(steps + 1) <= set(kept)
    for a, b in pairwise(kept):
        inside = np.arange(a, b + 1)
        if t[b] > t[a]:
            line = flow[a] + (flow[b] - flow[a]) * (t[inside] - t[a]) / (t[b] - t[a])
            assert np.abs(line - flow[inside]).max() <= 0.2 + 1e-9


def test_flow_model_without_lag_is_a_step():
    cell = cell_with(('lag = "0.6 s"', 'lag = "0 s"'))
    flow = NozzleFlow.of(np.array([0.0, 10.0]), np.array([6.0, 0.0]), cell.powder)
    rate, mass = flow.at(np.array([3.19, 3.3, 13.3, 20.0]))
    np.testing.assert_allclose(rate, [0, 6, 0, 0], atol=1e-12)
    np.testing.assert_allclose(mass, [0, 0.01, 1.0, 1.0], atol=1e-9)


def test_flow_model_agrees_with_euler_steps():
    made = Case.of(hatched_tracks(), recipe_with(THREE_FLOWS), CELL)
    t, flow = simulate(made.fed.timeline, 0, made.profile.duration_s, dt=1e-4)
    rate, mass = made.fed.flows[0].at(t)
    assert np.abs(rate - flow).max() < 0.02
    assert mass[-1] == pytest.approx(flow.sum() * 1e-4 / 60.0, rel=1e-4)


# --- refusals -------------------------------------------------------------------------------


def test_flow_below_the_feeders_least_is_refused_by_recipe_check_and_plan():
    cell = cell_with(('greatest_flow = "20 g/min"', 'greatest_flow = "20 g/min"\n'
                      'least_flow = "5 g/min"'))  # fmt: skip
    thin = recipe_with(("[track.thin_wall]\n", '[track.thin_wall]\npowder = "4.5 g/min"\n'))
    with pytest.raises(RecipeError, match=r"r.toml \[track, thin_wall.*: powder 4.5 g/min below "
                       r"5 g/min \(powder.least_flow of cell 'sim'\)"):  # fmt: skip
        check_recipe(thin, cell, "r.toml", strict=False)
    with pytest.raises(PlanError, match=r"bead \d+ \(thin_wall\): powder 4.5 g/min below 5 g/min "
                       r"\(powder.least_flow"):  # fmt: skip
        plan(recipe=thin, cell=cell)


def test_flow_above_the_feeders_greatest_is_refused():
    with pytest.raises(PlanError, match=r"powder 6.3 g/min above 6 g/min \(powder.greatest_flow"):
        plan(cell=cell_with(('greatest_flow = "20 g/min"', 'greatest_flow = "6 g/min"')))


def test_least_flow_not_below_the_greatest_is_refused():
    with pytest.raises(ConfigError, match="least_flow 20 g/min is not below greatest_flow 20"):
        cell_with(('greatest_flow = "20 g/min"', 'greatest_flow = "20 g/min"\n'
                   'least_flow = "20 g/min"'))  # fmt: skip


def test_unknown_powder_law_is_refused():
    with pytest.raises(RecipeError, match=r"track\.default\.powder_law"):
        recipe_with(('powder = "6.3 g/min"', 'powder = "6.3 g/min"\npowder_law = "fast"'))

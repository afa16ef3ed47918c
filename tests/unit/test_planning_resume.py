"""The rest of an interrupted build, judged by decoding its segments apart from the planner."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import PlanError
from controller.model import PowderChannel
from controller.planning.rest.parts import Part, next_part, parts_of, rest_event
from controller.planning.rest.powder import Powder
from controller.planning.rest.resume import Place, place_at, resume_plan
from firmware_bridge.segments import SEGMENT
from tests.unit.planning_cases import CELL, RECIPE, Decoded, plan, recipe_with, track

LAWS = ("trapezoid", "friction_circle", "jerk")
STEPS_MM = 400.0
ACCEL_MM_S2 = (2000.0 * 0.8, 2000.0 * 0.8, 500.0 * 0.8)  # the sim cell's axes, planned share
LATE_S = 0.12e-3  # gate latency and jitter of the sim cell
HERE = np.array([56_800, 58_400, 4_300, 0, 0, 0])  # some place near the part
OVERLAP_MM = 2.0


@cache
def built(law):
    """Short beads, a long bend, a corner and a long straight bead, in two layers."""
    angle = np.linspace(0.0, math.pi, 60)
    bend = np.column_stack([150 + 4 * np.cos(angle), 150 + 4 * np.sin(angle)])
    tracks = []
    for layer in (0, 1):
        tracks.append(track([(140, 145), (143, 145), (143, 148), (140, 148), (140, 145)], layer))
        tracks.append(track(bend, layer))
        tracks.append(track([(140, 160), (160, 160)], layer))
        tracks.append(track([(150, 146), (150.8, 146)], layer))
    return plan(tracks, mode=law)


@cache
def decoded(law):
    return Decoded(built(law).segments.tobytes())


def starts_us(p):
    ticks = p.segments["ticks_lo"].astype(int) + (p.segments["ticks_hi"].astype(int) << 16)
    return np.concatenate([[0], np.cumsum(ticks)])


def speed(d, from_us, for_us):
    """Mean speed over a short time, mm/s."""
    a, b = (np.array(d.at(t)[0][:3]) for t in (from_us, from_us + for_us))
    return float(np.linalg.norm(b - a)) / STEPS_MM / (for_us * 1e-6)


def walk(d, from_us, to_us, step_us=2000):
    """Arc length between two instants, mm, from positions."""
    n = max(int((to_us - from_us) / step_us), 2)
    p = np.array([d.at(t)[0][:3] for t in np.linspace(from_us, to_us, n)]) / STEPS_MM
    return float(np.linalg.norm(np.diff(p, axis=0), axis=1).sum())


def next_lit(p, row):
    return row + int(np.argmax((p.segments["flags"][row:] & 1) != 0))


def check_cut(whole, head, dark, rest):
    """The way in the dark is the plan's own, and a cut segment is whole again with its rest."""
    cut = 1 if head.into_us else 0
    own = whole.segments[head.join - len(dark) + cut : head.join]
    for row, planned in zip(dark, own, strict=len(dark) == len(own)):
        assert row[2] == tuple(planned["steps"])
        assert row[0] == int(planned["ticks_lo"]) + (int(planned["ticks_hi"]) << 16)
        assert row[3] == planned["start_ratio"] / 32768.0
        assert row[7] == planned["end_speed"]
    if cut:
        one, two = dark[-1], rest.segments[head.opens]
        planned = whole.segments[head.join]
        assert tuple(np.array(one[2]) + two["steps"]) == tuple(planned["steps"])
        ticks = int(planned["ticks_lo"]) + (int(planned["ticks_hi"]) << 16)
        assert one[0] + int(two["ticks_lo"]) + (int(two["ticks_hi"]) << 16) == ticks
        assert one[0] == head.into_us
        assert two["end_speed"] == planned["end_speed"]


def check(law, at, head, rest, wish_mm):
    """All that a rest must hold; ``at`` is where the light went out."""
    old, d = decoded(law), Decoded(rest.segments.tobytes(), tuple(int(v) for v in HERE))
    whole = built(law)
    tail = len(whole.segments) - head.follow
    assert tail > 0
    assert rest.segments[len(rest.segments) - tail :].tobytes() == (
        whole.segments[head.follow :].tobytes()
    )
    assert d.end_steps == old.end_steps
    # axis speeds never jump by more than rounding, accelerations stay inside the planned share;
    # judged over what was made, up to the plan's own segments
    motion = np.flatnonzero((rest.segments["flags"] & 8) == 0)
    strip = range(*head.remelt) if head.remelt is not None else range(0)
    dark = {i for m in head.meets for i in range(m, next_lit(rest, m))}
    made = [k for k, i in enumerate(motion) if i < head.opens and i not in strip and i not in dark]
    for k in made:
        ticks, _, steps, ratio, *_ = d.rows[k]
        t_s = ticks * 1e-6
        for axis in range(3):
            v = steps[axis] / t_s / STEPS_MM
            accel = v * (2.0 - 2.0 * ratio) / t_s
            quantum = 2.0 / STEPS_MM / t_s**2
            assert abs(accel) <= 1.02 * ACCEL_MM_S2[axis] + quantum
    plans = np.searchsorted(motion, sorted(dark))
    check_cut(whole, head, [d.rows[int(k)] for k in plans if motion[k] >= head.meets[-1]], rest)
    for k in made:
        after = d.rows[k + 1]
        ticks, _, steps, ratio, *_ = d.rows[k]
        for axis in range(3):
            end = steps[axis] * (2.0 - ratio) / ticks
            begin = after[2][axis] * after[3] / after[0]
            quantum = 2.5 * (1.0 / ticks + 1.0 / after[0])
            assert abs(end - begin) <= quantum + 0.01 * abs(end)
    edges = d.gate_edges_us()
    assert len(edges) == len(rest.tracks)
    for on, off in edges:
        assert off > on
    # the plan is met at its own speed, and the light comes on at it
    on_us = edges[0 if head.remelt is None else 1][0]
    join_us = starts_us(whole)[head.join] + head.into_us
    planned = speed(old, join_us, 6000)
    assert speed(d, on_us, 6000) == pytest.approx(planned, abs=0.4)
    met_us = starts_us(rest)[head.meets[-1]]
    met = speed(old, join_us - (on_us - met_us), 6000)
    assert speed(d, met_us - 5000, 5000) == pytest.approx(met, rel=0.03, abs=0.6)
    # the gate stands open nowhere at rest
    for on, off in edges:
        assert speed(d, on, 10_000) > 0.5
        assert speed(d, off - 10_000, 10_000) > 0.5
    # light again the overlap before where it went out, or from the bead's beginning
    dark_us = starts_us(whole)[max(at.segment, 0)] + at.tick_us
    first = int(whole.tracks["first_segment"][head.track])
    if (head.join, head.into_us) != (first, 0):
        laid = walk(old, join_us, dark_us, 200) - LATE_S * planned
        assert laid == pytest.approx(wish_mm, abs=0.2)
        assert laid >= wish_mm - 0.03
        assert laid == pytest.approx(head.overlap_mm, abs=0.05)
    # where the rest's bead opens is where the plan is at that instant
    assert np.allclose(d.at(on_us)[0][:3], old.at(join_us)[0][:3], atol=1.01)
    return d, on_us


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("with_remelt", [False, True])
def test_a_long_bead_goes_on_with_overlap_at_full_speed(law, with_remelt):
    whole = built(law)
    at = place_at(whole, 2, 11.3)
    head, rest = resume_plan(whole, at, HERE, CELL, RECIPE, remelt=with_remelt)
    assert (head.remelt is not None) == with_remelt
    d, on_us = check(law, at, head, rest, OVERLAP_MM)
    assert head.join > whole.tracks["first_segment"][2]
    assert 2.0 <= head.overlap_mm < 2.01
    assert speed(d, on_us, 50_000) == pytest.approx(10.0, rel=0.01)
    assert rest.figures["layers"] == 2
    assert rest.tracks["length_mm"][1 if with_remelt else 0] == pytest.approx(
        20.0 - 11.3 + head.overlap_mm, abs=0.05
    )


@settings(max_examples=60, deadline=None)
@given(
    law=st.sampled_from(LAWS),
    share=st.floats(0.0, 1.0),
    number=st.integers(0, 7),
    overlap=st.floats(0.0, 6.0),
    again=st.booleans(),
)
def test_goes_on_at_any_arc_length(law, share, number, overlap, again):
    whole = built(law)
    at = place_at(whole, number, share * float(whole.tracks["length_mm"][number]))
    if number == 7 and share > 0.998:
        return  # nothing is left: another test
    head, rest = resume_plan(whole, at, HERE, CELL, RECIPE, overlap_mm=overlap, remelt=again)
    check(law, at, head, rest, overlap)


@settings(max_examples=40, deadline=None)
@given(law=st.sampled_from(LAWS), share=st.floats(0.0, 0.999))
def test_goes_on_from_any_executed_instant(law, share):
    """Travel, run-up, overrun, dwell: with the gate shut the next bead begins anew."""
    whole = built(law)
    ends = starts_us(whole)
    now = share * float(ends[int(whole.tracks["end_segment"][-1]) - 1])
    segment = int(np.searchsorted(ends, now, side="right")) - 1
    at = Place(segment, int(now - ends[segment]))
    head, rest = resume_plan(whole, at, HERE, CELL, RECIPE)
    if whole.segments["flags"][segment] & 1:
        check(law, at, head, rest, OVERLAP_MM)
    else:
        assert head.join == whole.tracks["first_segment"][head.track]
        assert head.join > segment
        assert head.overlap_mm == 0.0
        assert head.remelt is None
        assert head.into_us == 0
        check(law, Place(head.join, 0), head, rest, OVERLAP_MM)


def test_not_begun_means_from_the_first_bead():
    head, rest = resume_plan(built("trapezoid"), Place(-1, 0), HERE, CELL, RECIPE)
    assert head.track == 0
    assert len(rest.tracks) == 8


def test_nothing_left_is_told():
    whole = built("trapezoid")
    at = Place(int(whole.tracks["end_segment"][-1]), 0)
    with pytest.raises(PlanError, match="no bead is left"):
        resume_plan(whole, at, HERE, CELL, RECIPE)


def test_the_nozzle_lifts_before_it_moves_sideways():
    whole = built("trapezoid")
    _, rest = resume_plan(whole, place_at(whole, 5, 3.0), HERE, CELL, RECIPE)
    d = Decoded(rest.segments.tobytes(), tuple(int(v) for v in HERE))
    sideways = next(r for r in d.rows if r[2][0] or r[2][1])
    # 2 mm above the layer at work, which is the second: 10 + 2 x 0.55 mm
    assert sideways[1][2] / STEPS_MM >= 11.1 + 2.0 - 0.01


def test_power_ramps_in_anew_over_the_recipe_s_length():
    whole = built("trapezoid")
    at = place_at(whole, 2, 11.3)
    _, rest = resume_plan(whole, at, HERE, CELL, RECIPE, remelt=False)
    d = Decoded(rest.segments.tobytes(), tuple(int(v) for v in HERE))
    ((on_us, _), *_) = d.gate_edges_us()
    # floor 150 W of 1 kW at the light's beginning, 600 W after 0.8 mm at 10 mm/s or up to a
    # segment (0.2 mm) later; 3 ms latency
    light_us = on_us + 100
    powers = [d.at(light_us + mm * 1e5 - 3000)[2] * 1000.0 for mm in (0.0, 0.4, 0.8, 1.0, 2.0)]
    assert powers[0] == pytest.approx(150.0, abs=12.0)
    assert 150.0 + 450.0 * 0.4 / 1.0 - 2.0 <= powers[1] <= 375.0 + 2.0
    assert 150.0 + 450.0 * 0.8 / 1.0 - 2.0 <= powers[2] <= 602.0
    assert powers[3:] == pytest.approx([600.0, 600.0], abs=0.1)


def test_no_ramp_leaves_every_segment_of_the_bead_as_planned():
    flat = recipe_with(('ramp_in = "0.8 mm"', 'ramp_in = "0 mm"'))
    whole = built("trapezoid")
    head, _ = resume_plan(whole, place_at(whole, 2, 11.3), HERE, CELL, flat, remelt=False)
    assert head.follow == head.join + 1
    assert head.into_us > 0
    lit, before = head.segments[-1], whole.segments[head.join]
    assert lit["end_power"] == before["end_power"]
    assert head.segments["end_power"][head.meets[0] :].tolist() == [before["end_power"]] * (
        len(head.segments) - head.meets[0]
    )
    assert lit["flags"] == before["flags"] | 4  # a track starts here now


# --- powder ------------------------------------------------------------------------------


def nozzle_flow(timeline, channel, at_s, delay_s=3.2, lag_s=0.6):
    """Flow at the nozzle, worked out here: steps through a delay and a first-order lag."""
    flow, last, value = 0.0, -1e9, 0.0
    for row in timeline[timeline["channel"] == int(channel)]:
        t = float(row["t_s"]) + delay_s
        if t > at_s:
            break
        flow = value + (flow - value) * math.exp(-(t - last) / lag_s)
        last, value = t, float(row["value"])
    return value + (flow - value) * math.exp(-(at_s - last) / lag_s)


@pytest.mark.parametrize("powder", [None, Powder((6.3, 0.0), 30.0)])
def test_powder_is_at_the_nozzle_before_the_gate_opens_and_as_planned_after(powder):
    whole = built("trapezoid")
    at = place_at(whole, 2, 11.3)
    head, rest = resume_plan(whole, at, HERE, CELL, RECIPE, powder=powder, remelt=False)
    opens_s = float(starts_us(rest)[head.opens]) * 1e-6
    join_s = float(starts_us(whole)[head.join] + head.into_us) * 1e-6
    timeline = rest.timeline
    if powder is not None:  # what flowed before has been there for long
        row = np.array([(-30.0, 0, 6.3)], timeline.dtype)
        timeline = np.concatenate([row, timeline])
    for later_s in (0.0, 0.5, 2.0, 5.0):
        now = nozzle_flow(timeline, PowderChannel.HOPPER_1, opens_s + later_s)
        then = nozzle_flow(whole.timeline, PowderChannel.HOPPER_1, join_s + later_s)
        assert now == pytest.approx(then, rel=0.015, abs=0.01)
    turned = rest.timeline[(rest.timeline["channel"] == 4) & (rest.timeline["value"] == 1.0)]
    assert turned["t_s"][0] == pytest.approx(opens_s - 0.5, abs=1e-3)
    assert (np.diff(rest.timeline["t_s"]) >= 0.0).all()
    assert rest.timeline["t_s"][0] >= 0.0
    if powder is None:
        assert opens_s >= 3.2 + 4.6 * 0.6 + 1.0
    else:
        assert opens_s < 3.0  # it flows already: no waiting


def test_rest_before_the_end_has_its_powder_off_as_the_plan_had():
    whole = built("trapezoid")
    head, rest = resume_plan(whole, place_at(whole, 7, 0.5), HERE, CELL, RECIPE)
    shift = float(starts_us(rest)[head.opens] - starts_us(whole)[head.join] - head.into_us) * 1e-6
    own, old = (t[t["channel"] == 0] for t in (rest.timeline, whole.timeline))
    assert own["value"][-1] == 0.0
    assert own["t_s"][-1] == pytest.approx(old["t_s"][-1] + shift, abs=1e-3)


@pytest.mark.parametrize("powder", [None, Powder((6.3, 0.0), 30.0)])
def test_rest_counts_all_that_its_commands_take_out_of_the_hoppers(powder):
    """As the plan does; what lies at the nozzle while the light is on is the deposit's."""
    whole = built("trapezoid")
    assert whole.figures["powder_g"] == pytest.approx(commanded_g(whole), rel=1e-7)
    _, rest = resume_plan(whole, place_at(whole, 2, 11.3), HERE, CELL, RECIPE, powder=powder)
    assert rest.figures["powder_g"] == pytest.approx(commanded_g(rest), rel=1e-7)
    assert rest.figures["powder_g_by_hopper"] == [pytest.approx(commanded_g(rest), rel=1e-7), 0.0]
    timeline = rest.timeline
    if powder is not None:
        row = np.array([(-30.0, 0, 6.3)], timeline.dtype)
        timeline = np.concatenate([row, timeline])
    laid = 0.0
    for track_ in rest.tracks[rest.tracks["powder_g_min"] > 0.0]:
        t = np.linspace(track_["start_s"], track_["end_s"], 101)
        flow = [nozzle_flow(timeline, PowderChannel.HOPPER_1, at) for at in t]
        laid += float(np.trapezoid(flow, t)) / 60.0
    assert rest.figures["deposited_g"] == pytest.approx(RECIPE.catchment * laid, rel=2e-3)


def commanded_g(made):
    """Powder that a plan's commands take out of hopper 1 until its end."""
    end_s = float(starts_us(made)[-1]) * 1e-6
    own = made.timeline[made.timeline["channel"] == 0]
    times = [*np.minimum(own["t_s"], end_s).tolist(), end_s]
    return sum(v * (b - a) for v, a, b in zip(own["value"], times, times[1:], strict=False)) / 60.0


# --- again, and in the record --------------------------------------------------------------


def test_a_rest_can_be_gone_on_with_again_and_again():
    part, here = Part(built("trapezoid")), HERE
    events = []
    for track_, mm in ((2, 11.3), (0, 4.0), (2, 1.0)):
        at = place_at(part.plan, track_, mm)
        head, rest = resume_plan(part.plan, at, here, CELL, RECIPE, remelt=False)
        events.append(rest_event(part, head, at, None))
        part = next_part(part, head, rest)
        d = Decoded(rest.segments.tobytes(), tuple(int(v) for v in here))
        assert d.end_steps == decoded("trapezoid").end_steps
    again = parts_of(built("trapezoid"), events, CELL, RECIPE)
    assert again[-1].plan.segments.tobytes() == part.plan.segments.tobytes()
    assert again[-1].base == part.base == sum(len(p.plan.segments) for p in again[:-1])
    assert again[-1].plan.tracks.tobytes() == part.plan.tracks.tobytes()
    assert part.first_track == 2 + 0 + 2


def test_interrupted_on_the_way_back_the_same_bead_begins_again():
    whole = built("trapezoid")
    head, rest = resume_plan(whole, place_at(whole, 2, 11.3), HERE, CELL, RECIPE, remelt=False)
    again, _ = resume_plan(rest, Place(-1, 0), HERE, CELL, RECIPE, remelt=False)
    assert again.join == head.opens
    assert again.track == 0


def test_a_run_up_out_of_the_axes_range_goes_back_to_a_place_that_has_room():
    """The bead turns at the edge: only its beginning can be run up to."""
    whole = plan([track([(140, 140), (0.5, 140), (0.5, 120)])])
    corner_mm = 139.5
    head, rest = resume_plan(
        whole, place_at(whole, 0, corner_mm + 10.0), HERE, CELL, RECIPE, remelt=False
    )
    d = Decoded(rest.segments.tobytes(), tuple(int(v) for v in HERE))
    low = min(min(row[1][0] for row in d.rows), d.end_steps[0])
    assert low >= 0
    assert head.overlap_mm >= 2.0


def test_same_input_gives_the_same_rest():
    whole = built("jerk")
    one, two = (
        resume_plan(whole, place_at(whole, 1, 5.0), HERE, CELL, RECIPE)[1] for _ in range(2)
    )
    assert one.segments.dtype == SEGMENT
    assert one.segments.tobytes() == two.segments.tobytes()
    assert one.timeline.tobytes() == two.timeline.tobytes()


# --- the overlap, over many places ----------------------------------------------------------


def fast(law):
    """A way with corners at 24 mm/s, where they are long."""
    return plan(
        [track([(140, 145), (152, 145), (152, 157), (150, 157.3), (140, 145)])],
        recipe=recipe_with(('speed = "10 mm/s"', 'speed = "24 mm/s"')),
        mode=law,
    )


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_the_double_bead_is_the_recipe_s_overlap_at_every_place(law):
    """800 places for each time law, seldom-met ones too: corners, ramps, rests of rests."""
    rng = np.random.default_rng(23)
    worst = 0.0
    plans = [built(law), fast(law)]
    old = [Decoded(p.segments.tobytes()) for p in plans]
    for n in range(800):
        which = int(rng.integers(2))
        whole, d = plans[which], old[which]
        number = int(rng.integers(len(whole.tracks)))
        first, end = (int(whole.tracks[k][number]) for k in ("first_segment", "end_segment"))
        t = starts_us(whole)
        dark_us = int(rng.integers(t[first] + 1, t[end]))
        k = int(np.searchsorted(t, dark_us, side="right")) - 1
        at = Place(k, dark_us - int(t[k]))
        wish_mm = float(rng.choice([0.0, 0.5, 1.0, 2.0, 2.0, 2.0]))
        if number == len(whole.tracks) - 1 and t[end] - dark_us < 1000:
            continue  # nothing is left: another test
        head, rest = resume_plan(whole, at, HERE, CELL, RECIPE, overlap_mm=wish_mm)
        if head.track != number:
            continue  # its last micrometre is laid
        opens_us = int(t[head.join]) + head.into_us
        laid = walk(d, opens_us, dark_us, 100) if dark_us > opens_us else 0.0
        if (head.join, head.into_us) == (first, 0):
            assert laid <= wish_mm + 0.2
            continue
        worst = max(worst, abs(laid - wish_mm))
        assert laid == pytest.approx(wish_mm, abs=0.2), (n, number, dark_us)
        made = Decoded(rest.segments.tobytes(), tuple(int(v) for v in HERE))
        on_us = made.gate_edges_us()[0 if head.remelt is None else 1][0]
        assert np.allclose(made.at(on_us)[0], d.at(opens_us)[0], atol=1.01)
        assert made.end_steps == d.end_steps
    assert 0.0 < worst < 0.2

"""Thousands of random plans from the time law to the wire; the soak run makes a million."""

import numpy as np
import pytest

from controller.planning.light.power import plan_power, solve_gates
from controller.planning.path.motion_path import MovePath, Role
from controller.planning.segments import make_segments
from tests.unit.planning_cases import RECIPE
from tests.unit.random_plans import Tally, campaign, judge, profile_of, random_batch
from tests.unit.wire_truth import GATE, PARAM, ROW


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "plans"), [("trapezoid", 3000), ("jerk", 1000)])
def test_random_plans_never_open_the_gate_at_standstill_and_steps_are_exact(mode, plans):
    tally = campaign(plans, 7, (mode,))
    print(tally)
    assert tally.problems == []
    assert tally.refused <= 0.01 * tally.plans
    assert tally.beads > 2 * plans
    assert tally.edge_us <= 0.5 + 1e-3  # half a tick: rounding, nothing else
    assert 0.0 < tally.slowest_mm_s < 0.5  # corners nearly at rest are among them


@pytest.mark.slow
def test_random_plans_on_rounded_corners():
    tally = campaign(300, 8, ("friction_circle",))
    print(tally)
    assert tally.problems == []
    # where a law stops at a corner the planner refuses the bead by name; it never lights it
    assert tally.refused < 0.2 * tally.plans


def small(mode="trapezoid"):
    """A batch, its profile and its wire rows (a copy that may be spoilt)."""
    batch = random_batch(np.random.default_rng(3), 20, mode)
    profile = profile_of(batch)
    role = np.full(len(batch.speed), Role.EMIT, dtype=np.uint8)
    path = MovePath(batch.points, batch.speed, role, batch.beads)
    gates = solve_gates(path, profile, batch.cell.laser)
    power = plan_power(path, profile, gates, batch.cell.laser)
    segments = make_segments(path, profile, gates, power, RECIPE, batch.cell).segments
    return batch, profile, np.frombuffer(segments.tobytes(), ROW).copy()


def verdict(batch, profile, rows):
    tally = Tally()
    judge(batch, profile, rows.tobytes(), tally)
    return tally.problems


# some random plans of friction_circle are refused; the campaign halves such batches
@pytest.mark.parametrize("mode", ["trapezoid", "jerk"])
def test_the_judge_passes_what_is_right(mode):
    assert verdict(*small(mode)) == []


def test_the_judge_sees_each_kind_of_fault():
    batch, profile, rows = small()
    lit = np.flatnonzero((rows["flags"] & GATE) != 0)
    dark = np.flatnonzero((rows["flags"] & (GATE | PARAM)) == 0)
    dwells = np.flatnonzero((rows["flags"] & 2) != 0)

    def spoilt(change):
        own = rows.copy()
        change(own)
        return " ".join(verdict(batch, profile, own))

    def step(own):
        own["d"][lit[5], 0] += 1

    def later(own):
        own["low"][lit[0] - 1] += 2
        own["low"][lit[0]] -= 2

    def lights_a_dwell(own):
        own["flags"][dwells[1]] |= GATE

    def lights_the_start(own):
        own["flags"][dark[dark > dwells[0]][0]] |= GATE

    def dark_bead(own):
        own["flags"][lit] &= ~np.uint8(GATE)

    def weak(own):
        own["power"][lit[3]] = 2000

    def endless(own):
        own["flags"][-1] = 0

    def stray(own):
        own["flags"][4] |= 32

    def fourth_axis(own):
        own["d"][lit[1], 3] = 1

    for change, word in (
        (step, "position at a segment's end"), (later, "gate edge"), (lights_a_dwell, "gate"),
        (lights_the_start, "gate"), (dark_bead, "gates"), (weak, "light below"),
        (endless, "no END"), (stray, "unknown flag"), (fourth_axis, "not there"),
    ):  # fmt: skip
        assert word in spoilt(change), change.__name__

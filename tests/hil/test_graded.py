"""A part of two alloys mixed in the jet, on the whole simulated cell: what each hopper gave."""

import pytest

from controller.planning import write_job
from controller.recipes import load_recipe
from controller.record.reader import read_record
from controller.session import prepare_plan
from tests.hil import oracle
from tests.hil.fault_cell import Job, play
from tests.hil.whole_cell import write_box
from tests.unit.sim_host import near_cell

pytestmark = [pytest.mark.hil, pytest.mark.slow]

# the gradient of the recipe that comes with the program, on a part of seven layers
SHORTER = (('at = "2 mm"', 'at = "0.6 mm"'), ('at = "10 mm"', 'at = "3.2 mm"'))


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The plan, what left each hopper, and the outcome."""
    folder = tmp_path_factory.mktemp("graded")
    _, text = load_recipe("316l_in625_graded")
    for old, new in SHORTER:
        assert old in text
        text = text.replace(old, new)
    recipe = folder / "graded.toml"
    recipe.write_text(text)
    part = write_box(folder / "box.stl", (8.0, 4.0, 2.8))
    cell = near_cell(folder)
    plan = prepare_plan(part, str(recipe), str(cell))
    job = folder / "job.lmdjob"
    write_job(plan, job)
    seen = {}

    async def script(s):
        seen["before"] = list(s.world.hopper_mass_g)
        await s.start()
        seen["state"] = await s.end()
        seen["after"] = list(s.world.hopper_mass_g)

    outcome = play(folder, job=Job(cell, job, plan), script=script)
    left = [a - b for a, b in zip(seen["before"], seen["after"], strict=True)]
    return plan, left, outcome, seen["state"]


def test_graded_build_completes_without_an_alarm(graded):
    plan, _, outcome, state = graded
    assert state == "COMPLETE"
    assert outcome.alarms == []
    assert len(plan.layers) >= 6
    assert plan.warnings == ()


def test_each_hopper_gives_its_plan_within_one_percent(graded):
    plan, left, _, _ = graded
    planned = plan.figures["powder_g_by_hopper"]
    assert min(planned) > 1.0
    for hopper, (truth, wanted) in enumerate(zip(left, planned, strict=True)):
        assert truth == pytest.approx(wanted, rel=0.01), f"hopper {hopper + 1}"
    assert sum(left) == pytest.approx(plan.figures["powder_g"], rel=0.01)


def test_nothing_in_the_trace_breaks_a_rule(graded):
    _, _, outcome, _ = graded
    assert oracle.check(outcome.folder / "trace.mcap", outcome.folder / "job.lmdjob") == []


def test_telemetry_holds_both_flows_and_their_total_stays(graded):
    _, _, outcome, _ = graded
    rows = read_record(outcome.folder).telemetry
    lit = rows["gate"] > 0.5
    assert lit.sum() > 1000
    total = rows["powder_1_measured_g_min"] + rows["powder_2_measured_g_min"]
    last = rows["t_us"][lit][-1] - 3_600_000  # what is fed later is not for a bead
    inner = lit & (rows["t_us"] < last)
    assert abs(total[inner].mean() / 6.3 - 1.0) < 0.02
    first_g = rows["powder_1_set_g_min"][inner]
    assert first_g[0] > 6.0
    assert first_g[-1] < 0.5
    assert (rows["powder_2_set_g_min"] > 5.0).any()

"""Blends: hopper by hopper, along height and along the path, and what a feeder cannot give."""

import numpy as np
import pytest

from controller.config import load_material
from controller.errors import PlanError, RecipeError
from controller.model import PowderChannel
from controller.planning.powder.composition import Mixture, feedable
from controller.recipes import check_recipe
from tests.unit.planning_cases import CELL, cell_with, plan, recipe_with, track
from tests.unit.powder_bench import Case, command_at, simulate

MATERIALS = {name: load_material(name)[0] for name in ("316L", "IN625")}


def graded(along, *points):
    """The general recipe with a composition: (place in mm, share of IN625)."""
    rows = ", ".join(
        f'{{ at = "{at} mm", share = {{ "316L" = {1 - x}, "IN625" = {x} }} }}' for at, x in points
    )
    text = f'[composition]\nalong = "{along}"\npoints = [{rows}]\n\n[layers]\n'
    return recipe_with(("[layers]\n", text))


def wall(layers):
    """Lines of 30 mm on top of each other, to and fro."""
    ends = [(135.0, 150.0), (165.0, 150.0)]
    return [track(ends[:: (-1) ** n], layer=n) for n in range(layers)]


ALONG_Z = graded("z", (1, 0.0), (4, 1.0))
ALONG_PATH = graded("path", (20, 0.0), (130, 0.9))
OWN_LINE = cell_with(
    ('lot = "SIM-002", mass = "5 kg"',
     'lot = "SIM-002", mass = "5 kg", transport_delay = "4.4 s", lag = "0.9 s"'),
)  # fmt: skip


@pytest.mark.parametrize("cell", [CELL, OWN_LINE], ids=["one line", "own line"])
def test_shares_arrive_at_the_nozzle_at_their_height(cell):
    made = Case.of(wall(10), ALONG_Z, cell)
    delay, lag = (3.2, 0.6) if cell is CELL else (4.4, 0.9)
    end = made.profile.duration_s
    t, steel = simulate(made.fed.timeline, PowderChannel.HOPPER_1, end)
    _, nickel = simulate(made.fed.timeline, PowderChannel.HOPPER_2, end, delay, lag)
    middle = 0.5 * (made.gates.on_s + made.gates.off_s)
    height = 0.55 * np.arange(1, 11)
    share = np.interp(height, [1.0, 4.0], [0.0, 1.0])
    np.testing.assert_allclose(np.interp(middle, t, steel), 6.3 * (1 - share), atol=0.05)
    np.testing.assert_allclose(np.interp(middle, t, nickel), 6.3 * share, atol=0.05)
    lit = (t > made.gates.on_s[0]) & (t < made.gates.off_s[-1])
    assert np.abs((steel + nickel)[lit] / 6.3 - 1.0).max() < 0.05  # the total stays


@pytest.mark.parametrize("cell", [CELL, OWN_LINE], ids=["one line", "own line"])
def test_shares_arrive_at_the_nozzle_at_their_length_of_path(cell):
    made = Case.of(wall(5), ALONG_PATH, cell)
    windows = made.windows()
    laid = made.laid_g_mm(made.fed.timeline, windows)
    wanted = made.wanted_g_mm(windows)
    per_mm = 6.3 / 60 / 10
    inner = windows[:, 1] - windows[:, 0] < 1.2
    assert np.abs(laid - wanted)[inner].max() < 0.02 * per_mm
    emitted = np.cumsum(windows[:, 1] - windows[:, 0])
    assert (laid[emitted < 19, 1] < 0.02 * per_mm).all()
    assert laid[-1, 1] == pytest.approx(0.9 * per_mm, rel=0.02)


@pytest.mark.parametrize("recipe", [ALONG_Z, ALONG_PATH], ids=["z", "path"])
@pytest.mark.parametrize("delay_share", [0.9, 1.1])
def test_blend_errs_a_fifth_of_uncompensated_with_the_delay_ten_percent_off(recipe, delay_share):
    made = Case.of(wall(10), recipe, CELL)
    for skip_s in (0.0, 8.0):
        ours, _ = made.error(made.fed.timeline, delay_share, skip_s=skip_s)
        theirs, _ = made.error(made.uncompensated(), delay_share, skip_s=skip_s)
        assert theirs > 0.05
        assert ours <= 0.2 * theirs


def test_figures_of_a_blend_are_sums_over_its_powders():
    made = plan(wall(10), recipe=ALONG_Z, materials=MATERIALS)
    f = made.figures
    steel, nickel = f["powder_g_by_hopper"]
    assert steel > 0.4
    assert nickel > 0.4
    assert f["powder_g"] == pytest.approx(steel + nickel)
    assert f["cost"]["powder_usd"] == pytest.approx(steel * 0.060 + nickel * 0.090)
    # each powder's volume by its own density: between those of the pure ones
    assert f["deposited_g"] / 7910e-6 < f["deposit_volume_mm3"] < f["deposited_g"] / 7570e-6
    _, flow = simulate(made.timeline, 1, f["duration_s"] + 20.0)
    assert nickel == pytest.approx(flow.sum() * 1e-3 / 60.0, rel=2e-3)


def test_composition_of_one_powder_is_the_recipe_without_one():
    alone = recipe_with(("[layers]\n", '[composition]\nalong = "z"\npoints = '
                         '[{ at = "0 mm", share = { "316L" = 1.0 } }]\n\n[layers]\n'))  # fmt: skip
    one, other = plan(wall(3), recipe=alone), plan(wall(3))
    assert one.timeline.tolist() == other.timeline.tolist()


def test_each_hopper_starts_when_its_share_does():
    made = Case.of(wall(10), ALONG_Z, CELL)
    rows = made.fed.timeline
    t = np.arange(0.0, made.profile.duration_s, 0.01)
    nickel = command_at(rows, PowderChannel.HOPPER_2, t)
    started = t[np.argmax(nickel > 0.0)]
    assert started == pytest.approx(made.gates.on_s[1] - 3.2, abs=1.0)  # 1.1 mm: the second layer
    assert made.fed.timeline["value"].min() == 0.0
    steel = rows[rows["channel"] == PowderChannel.HOPPER_1]
    assert steel[-1]["value"] == 0.0
    assert steel[-1]["t_s"] < made.gates.on_s[-2]  # nothing of it is wanted on top


# --- what the feeder cannot give ------------------------------------------------------------


def test_flow_below_the_least_becomes_nothing_or_the_least_and_the_total_stays():
    total = np.full(6, 6.0)
    share = np.array([0.0, 0.05, 0.1, 0.2, 0.5, 0.97])
    flows, off = feedable(total, np.stack([share, 1 - share], axis=1), 1.0)
    np.testing.assert_allclose(flows[:, 0], [0.0, 0.0, 1.0, 1.2, 3.0, 6.0])
    np.testing.assert_allclose(flows.sum(axis=1), 6.0)
    np.testing.assert_allclose(off, [0, 0.05, 1 / 6 - 0.1, 0, 0, 0.03])


def test_a_total_below_two_least_flows_comes_from_one_hopper():
    flows, _ = feedable(np.array([1.5, 1.5]), np.array([[0.6, 0.4], [0.3, 0.7]]), 1.0)
    assert flows.tolist() == [[1.5, 0.0], [0.0, 1.5]]


def test_rounding_to_the_least_flow_is_told():
    cell = cell_with(('greatest_flow = "20 g/min"', 'greatest_flow = "20 g/min"\n'
                      'least_flow = "1.2 g/min"'))  # fmt: skip
    made = plan(wall(10), recipe=ALONG_Z, cell=cell, materials=MATERIALS)
    (note,) = [w for w in made.warnings if "composition" in w]
    assert "of 10 beads want a flow below powder.least_flow 1.2 g/min" in note
    hoppers = made.timeline[made.timeline["channel"] <= 1]["value"]
    assert ((hoppers == 0.0) | (hoppers >= 1.2)).all()
    assert not [w for w in plan(wall(10), recipe=ALONG_Z, materials=MATERIALS).warnings
                if "composition" in w]  # fmt: skip


# --- refusals -------------------------------------------------------------------------------

BLEND = (
    "[layers]\n",
    '[composition]\nalong = "z"\npoints = [{ at = "0 mm", share = { "316L" = 1.0 } }, '
    '{ at = "5 mm", share = { "IN625" = 1.0 } }]\n\n[layers]\n',
)


def test_powder_of_a_blend_that_is_in_no_hopper_is_refused_by_file_place_and_hoppers():
    other = recipe_with((BLEND[0], BLEND[1].replace("IN625", "Ti-6Al-4V")))
    words = (
        r"r\.toml \[composition\]: 'Ti-6Al-4V' \(share 1 at 5 mm\) is in no hopper of cell 'sim' "
        r"\(hoppers hold 316L, IN625\)"
    )
    with pytest.raises(RecipeError, match=words):
        check_recipe(other, CELL, "r.toml", strict=False)
    with pytest.raises(PlanError, match=r"'Ti-6Al-4V' is in no hopper of cell 'sim' \(hoppers"):
        Mixture.of(other, CELL)


def test_blend_without_the_recipes_material_is_refused():
    with pytest.raises(RecipeError, match="takes IN625, but not the recipe's material '316L'"):
        recipe_with((BLEND[0], BLEND[1].replace('"316L"', '"IN625"')))


def test_powder_without_a_material_file_is_refused():
    with pytest.raises(PlanError, match="composition 'IN625' has no material file among 316L"):
        plan(wall(2), recipe=recipe_with(BLEND))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"IN625" = 1.0', '"IN625" = 0.7', "add up to 0.7, not 1"),
        ('"IN625" = 1.0', '"IN625" = 1.5, "316L" = -0.5', "each must be 0 to 1"),
        ('at = "5 mm"', 'at = "0 mm"', "at 0 mm does not lie above 0 mm"),
        ('along = "z"', 'along = "x"', "composition.along"),
        ('at = "5 mm"', "at = 5", "has no unit"),
    ],
)
def test_mistakes_in_a_composition_are_named(old, new, words):
    assert old in BLEND[1]
    with pytest.raises(RecipeError, match=words):
        recipe_with((BLEND[0], BLEND[1].replace(old, new)))


def test_hopper_with_too_little_for_its_share_is_refused():
    poor = cell_with(('lot = "SIM-002", mass = "5 kg"', 'lot = "SIM-002", mass = "0.5 g"'))
    with pytest.raises(PlanError, match=r"above 0\.5 g of IN625 in hopper 2 \(powder\.hoppers"):
        plan(wall(10), recipe=ALONG_Z, cell=poor, materials=MATERIALS)

"""Overrides that the machine could not follow: refused with the reason."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from controller.errors import StateError
from controller.machine.overrides import Overrides
from controller.machine.states import State
from controller.planning.rest.parts import Part
from firmware_bridge.link_types import SEGMENT_LINK
from tests.unit.planning_cases import CELL, RECIPE, cell_with, plan, recipe_with, track

LINE = [track([(140, 145), (150, 145)])]


def executing(cell, made, peak_w=600.0, abilities=SEGMENT_LINK):
    """An executor as far as overrides look at it."""
    asked = []
    ex = SimpleNamespace(
        state=State.EXECUTE, cell=cell, emit=lambda kind, data: None, asked=asked, link_ready=True,
        job=SimpleNamespace(recipe=RECIPE, peak_power_w=peak_w),
        progress=SimpleNamespace(part=Part(made)),
        link=SimpleNamespace(override=lambda s: asked.append(s), trim=lambda k: asked.append(k),
                             abilities=abilities),
        overrides=Overrides(),
    )  # fmt: skip
    return ex


def slewing(limit):
    """A cell whose source follows ``limit`` W/s; the plan's ramps take 5625 W/s."""
    return cell_with(("spot_diameter", f'power_slew = "{limit} W/s"\nspot_diameter'))


def test_speed_that_steepens_power_beyond_the_source_is_refused():
    cell = slewing(6500)
    ex = executing(cell, plan(LINE, cell=cell))
    ex.overrides.set(ex, "test", "speed", 1.07)  # 5625 x 1.07^2 = 6440 W/s
    with pytest.raises(StateError, match=r"W/s, above 6500 W/s \(laser\.power_slew of cell 'sim'"):
        ex.overrides.set(ex, "test", "speed", 1.08)
    assert ex.asked == [1.07]
    assert ex.overrides.speed == 1.07


def test_power_and_speed_together_count():
    cell = slewing(6500)
    ex = executing(cell, plan(LINE, cell=cell))
    ex.overrides.set(ex, "test", "power", 1.1)  # 6190 W/s
    with pytest.raises(StateError, match="power_slew"):
        ex.overrides.set(ex, "test", "speed", 1.07)
    with pytest.raises(StateError, match="power_slew"):
        ex.overrides.set(ex, "test", "power", 1.17)


def test_a_plan_that_was_bent_to_the_source_s_limit_cannot_be_sped_up_but_slowed_down():
    cell = slewing(4000)
    ex = executing(cell, plan(LINE, cell=cell))
    ex.overrides.set(ex, "test", "speed", 0.9)
    with pytest.raises(StateError, match="power_slew"):
        ex.overrides.set(ex, "test", "speed", 1.01)
    ex.overrides.set(ex, "test", "speed", 1.0)


def test_a_plan_made_with_no_room_on_an_axis_is_refused_by_its_name():
    """Planned for a faster Z, say by another version: its lifts take 98 % of what Z can."""
    fast = cell_with(('speed = "40 mm/s"', 'speed = "44 mm/s"'))
    ex = executing(CELL, plan(LINE, cell=fast))
    with pytest.raises(StateError, match="axis Z at 98 % of its speed 40 mm/s"):
        ex.overrides.set(ex, "test", "speed", 1.1)
    ex = executing(CELL, plan(LINE))
    ex.overrides.set(ex, "test", "speed", 1.118)
    assert ex.asked == [1.118]


def curved(exponent, more=""):
    """A plan of one bead with a power law."""
    law = f'power_law = "power"\npower_exponent = {exponent}{more}'
    return plan(LINE, recipe=recipe_with(('power_law = "linear"', law)))


def test_a_power_law_is_overridden_where_the_motion_controller_has_its_table():
    ex = executing(CELL, curved(0.5))
    ex.overrides.set(ex, "test", "speed", 0.8)
    assert ex.asked == [0.8]


def test_a_power_law_is_not_overridden_where_power_scales_linearly():
    ex = executing(CELL, curved(0.5), abilities=replace(SEGMENT_LINK, power_law=False))
    with pytest.raises(StateError, match="power_law is 'power', and the motion controller scales"):
        ex.overrides.set(ex, "test", "speed", 0.8)
    assert ex.asked == []


def test_a_plan_without_its_law_s_table_is_not_overridden():
    made = curved(0.5)
    meta = {k: v for k, v in made.meta.items() if k != "power_exponents"}
    ex = executing(CELL, replace(made, meta=meta))
    with pytest.raises(StateError, match="carries no table of it"):
        ex.overrides.set(ex, "test", "speed", 0.8)


@pytest.mark.parametrize(
    ("exponent", "scale", "said"), [(0.5, 1.1, "above it the law"), (2.0, 0.8, "exponent is above")]
)
def test_a_capped_law_is_overridden_only_where_the_cap_tells_the_power(exponent, scale, said):
    ex = executing(CELL, curved(exponent, '\nenergy_cap = "58 J/mm"'))
    with pytest.raises(StateError, match=said):
        ex.overrides.set(ex, "test", "speed", scale)
    ok = executing(CELL, curved(0.5, '\nenergy_cap = "58 J/mm"'))
    ok.overrides.set(ok, "test", "speed", 0.8)
    assert ok.asked == [0.8]

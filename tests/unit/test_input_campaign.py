"""Mutated files, a share of the campaign of ``make soak``, and whether its judge sees anything."""

import random
from types import SimpleNamespace

import pytest

from benchmarks import input_campaign as campaign
from controller.config import load_cell
from controller.recipes import load_recipe


def test_mutated_files_are_refused_in_a_sentence_or_right():
    accepted, refused, longest_s, found = campaign.attack(1500, seed=5)
    assert found == []
    assert longest_s < campaign.LONGEST_S
    assert accepted > 100
    assert refused > 500


def test_mutations_change_the_text():
    dice = random.Random(1)
    _, text = load_cell("sim")
    changed = sum(campaign.mutated(dice, text) != text for _ in range(200))
    assert changed > 190


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("motion", "heartbeat_timeout_s", 0.2),
        ("motion", "plan_share", 1.5),
        ("laser", "rated_power_w", float("inf")),
        ("laser", "threshold_power_w", 2000.0),
        ("powder", "transport_delay_s", -1.0),
    ],
)
def test_the_judge_sees_a_cell_out_of_limits(section, key, value):
    cell, _ = load_cell("sim")
    assert campaign.cell_fault(cell) == ""
    part = getattr(cell, section).model_copy(update={key: value})
    assert campaign.cell_fault(cell.model_copy(update={section: part}))


@pytest.mark.parametrize(("key", "value"), [("power_w", 5000.0), ("speed_mm_s", 0.0)])
def test_the_judge_sees_a_recipe_out_of_limits(key, value):
    cell, _ = load_cell("sim")
    recipe, _ = load_recipe("316l_general")
    assert campaign.recipe_fault(recipe, cell) == ""
    settings = {
        name: s.model_copy(update={key: value}) if hasattr(s, "model_copy") else s
        for name, s in recipe.all_settings().items()
    }
    wrong = SimpleNamespace(all_settings=lambda: settings, model_dump=recipe.model_dump)
    assert campaign.recipe_fault(wrong, cell)


def test_a_reader_that_crashes_is_found(monkeypatch):
    def broken(text):
        raise KeyError("power")

    monkeypatch.setattr(campaign, "readers", lambda: {"materials": broken})
    _, _, _, found = campaign.attack(3)
    assert found == ["materials: KeyError: 'power'"] * 3

"""Every recipe that comes with the program: reads, fits the simulated cell, plans."""

from pathlib import Path

import pytest

from controller.config import configs_dir, load_cell, load_material
from controller.recipes import check_recipe, load_recipe
from tests.unit.planning_cases import plan, small_tracks

FILES = sorted((configs_dir() / "recipes").glob("*.toml"))


def test_there_are_recipes_to_check():
    assert {"316l_general", "316l_in625_graded"} <= {p.stem for p in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_recipe_plans_a_small_build_within_its_own_window(path: Path):
    recipe, text = load_recipe(str(path))
    cell, _ = load_cell("sim")
    assert recipe.name == path.stem
    assert check_recipe(recipe, cell, path.name, strict=True) == []
    assert "#" in text.splitlines()[0], "the first line says where the values are from"
    materials = {name: load_material(name)[0] for name in recipe.powders}
    assert [m.name for m in materials.values()] == list(recipe.powders)
    made = plan(small_tracks(), recipe=recipe, materials=materials)
    assert made.figures["powder_g"] > 0.0

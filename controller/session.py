"""From a part file to a job: the one way from CAD to plan, for command line and server alike."""

from collections.abc import Callable
from pathlib import Path

from controller import geometry, planning
from controller.config import load_cell, load_material
from controller.model import BuildPlan
from controller.recipes import check_recipe, load_recipe

# share done (0 to 1), what is being done
Progress = Callable[[float, str], None]
STEPS = ("read the part", "place the part", "slice", "lay tracks", "plan motion, laser and powder")


def _silent(share: float, text: str) -> None:
    """Nobody watches."""


def prepare_plan(
    part_path: str | Path,
    recipe: str | None = None,
    cell: str = "sim",
    *,
    units: str | None = None,
    scale: float = 1.0,
    rotate: tuple[float, float, float] = (0.0, 0.0, 0.0),
    strict: bool = False,
    law: str | None = None,
    progress: Progress = _silent,
) -> BuildPlan:
    """Read, place, slice and plan a part.

    Parameters
    ----------
    recipe, cell : names or paths; recipe None: the cell's default
    units : "mm" | "inch" | "m", for files whose numbers carry none
    scale, rotate : of the part; rotate in degrees about X, Y, Z in this order
    law : time law of the motion; None: the cell's
    strict : production mode: a value outside of the recipe's window is an error
    progress : told before each step, and at the end with 1.0

    Raises LmdError of the step that refuses, in one sentence.
    """
    cell_model, cell_text = load_cell(cell)
    recipe_model, recipe_text = load_recipe(recipe or cell_model.default_recipe)
    origin = recipe or cell_model.default_recipe
    warnings = check_recipe(recipe_model, cell_model, f"recipe {origin}", strict=strict)
    material, material_text = load_material(recipe_model.material)
    texts = {"cell": cell_text, "recipe": recipe_text, "material": material_text}
    blended = {name: load_material(name)[0] for name in recipe_model.powders[1:]}

    def step(number: int) -> None:
        progress(number / len(STEPS), STEPS[number])

    step(0)
    mesh = geometry.load_part(part_path, units=units, scale=scale, rotate=rotate)
    step(1)
    # machining allowance and half a bead stand out on each side
    margin_mm = recipe_model.near_net_shape.allowance_xy_mm + recipe_model.bead.width_mm / 2
    mesh = geometry.place_part(
        mesh, cell_model, bead_width_mm=recipe_model.bead.width_mm, margin_mm=margin_mm
    )
    step(2)
    layers = geometry.slice_part(mesh, recipe_model, cell_model)
    step(3)
    tracks = geometry.make_tracks(layers, recipe_model)
    notes = [f"layer {s.index}: {note}" for s in layers for note in s.notes]
    notes += geometry.coverage_notes(layers, tracks, recipe_model)
    step(4)
    plan = planning.plan_build(
        tracks,
        layers,
        mesh,
        recipe_model,
        cell_model,
        material,
        texts,
        mode=law,
        warnings=[*warnings, *notes],
        materials=blended,
    )
    progress(1.0, "planned")
    return plan

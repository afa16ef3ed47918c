"""Tracks to a whole plan: motion, power, powder, segments, figures and checks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from controller import __version__
from controller.config import Cell, Material
from controller.errors import PlanError
from controller.geometry import part_figures
from controller.model import BuildPlan, LayerSlice, PartMesh, Track
from controller.planning import figures as told
from controller.planning import powder, quality, stillness
from controller.planning.job import job_hash
from controller.planning.light.gate import check_light, solve_gates
from controller.planning.light.law_table import KEY, exponents_of
from controller.planning.light.power import plan_power
from controller.planning.motion.joint_law import plan_joint_profile
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.arc_text import arc_meta
from controller.planning.path.motion_path import MovePath, build_path
from controller.planning.powder import composition
from controller.planning.segments import make_segments
from controller.recipes import Recipe
from firmware_bridge.segments import N_AXES, TICK_S


@contextmanager
def _named(cell: Cell, recipe: Recipe) -> Iterator[None]:
    """Say of which files the keys in a refusal are."""
    try:
        yield
    except PlanError as exc:
        raise PlanError(f"{exc} (cell {cell.name!r}, recipe {recipe.name!r})") from None


def _power_law(path: MovePath) -> str:
    """ "linear" where scaling power with speed is exact under any override, else why not."""
    if (path.beads["power_exponent"] != 1.0).any():
        return "power"
    return "energy_cap" if np.isfinite(path.beads["energy_cap_j_mm"]).any() else "linear"


def plan_build(
    tracks: Sequence[Track],
    layers: Sequence[LayerSlice],
    part: PartMesh,
    recipe: Recipe,
    cell: Cell,
    material: Material,
    texts: Mapping[str, str],
    *,
    mode: str | None = None,
    warnings: Sequence[str] = (),
    materials: Mapping[str, Material] | None = None,
) -> BuildPlan:
    """Plan a build from its tracks, in the order given.

    Parameters
    ----------
    tracks : layer by layer; layers : the slices the tracks came from
    texts : the files' text as used, keys "cell", "recipe", "material"
    mode : time law (laws.MODES), None: the cell's
    warnings : found before (recipe window), carried on
    materials : by name, of the other powders that the recipe blends

    Raises PlanError, in one sentence with value, limit and unit, when a limit of the cell
    would be broken: soft limits, longest emission, powder in the hopper, threshold.
    """
    mode = mode or cell.motion.time_law
    limits = MotionLimits.of_cell(cell)
    blended = composition.materials_of(recipe, material, materials)
    path = build_path(tracks, recipe, cell, mode)
    if path.joints is not None:
        profile = plan_joint_profile(path.joints, path.speed_mm_s, cell, mode)
    else:
        profile = plan_profile(path.points_mm, path.speed_mm_s, limits, mode, path.through_mm)
    with _named(cell, recipe):
        gates = solve_gates(path, profile, cell.laser)
    dwell_s = powder.priming_dwell_s(
        float(gates.on_s[0]), cell.powder, float(path.beads["powder_g_min"][0])
    )
    if dwell_s > 0.0:
        profile = profile.after_dwell(np.ceil(dwell_s * 1e3) * 1e-3)
        gates = solve_gates(path, profile, cell.laser)
    light_notes = check_light(path, gates, cell, recipe.window.override[0])
    with _named(cell, recipe):
        curve = plan_power(path, profile, gates, cell.laser)
    made = make_segments(path, profile, gates, curve, recipe, cell)
    still = stillness.longest_still(made.segments)
    bead = int(np.searchsorted(made.end_segment, still.segment, side="right"))
    still_notes = stillness.check_still(still, bead, cell, recipe.window.override[0])
    duration_s = made.duration_ticks * TICK_S
    fed = powder.plan_powder(path, profile, gates, recipe, cell, duration_s)

    output = quality.CommandCurve(made.segments, cell.laser.rated_power_w)
    energy_j = quality.bead_energy_j(output, gates, cell.laser)
    layer_rows = told.layer_rows(path, profile, layers)
    figures = told.main_figures(path, profile, gates, len(layer_rows), energy_j, duration_s)
    figures["part"] = _part(part)
    figures["volume_mm3"] = float(part.volume_mm3)
    volumes = part_figures(part, list(layers), list(tracks), recipe)
    figures["target_volume_mm3"] = volumes["target_volume_mm3"]
    figures["powder_g"] = sum(fed.fed_g)
    figures["powder_g_by_hopper"] = list(fed.fed_g)
    deposited = recipe.catchment * fed.laid_g.sum(axis=0)
    figures["deposited_g"] = float(deposited.sum())
    figures["deposit_volume_mm3"] = composition.deposit_volume_mm3(fed.mixture, deposited, blended)
    figures["quality"] = quality.plan_quality(
        output, path, profile, gates, fed.timeline, limits, cell
    )
    figures["max_power_error_w"] = figures["quality"]["power_error"]["worst_w"]
    coarsest = min(a.steps_per_mm for a in cell.motion.axes[:3])
    figures["beam_position_error_mm"] = quality.beam_position_error_mm(path, cell.laser, coarsest)
    hoppers = [blended[n] if n else None for n in fed.mixture.powders]
    figures["cost"] = told.cost(figures, cell, hoppers)
    own_notes = told.notes(path, profile, gates, curve, figures, cell)
    notes = (*warnings, *fed.warnings, *light_notes, *still_notes, *own_notes)
    figures["warnings"] = list(notes)
    plan = BuildPlan(
        segments=made.segments,
        start_steps=np.zeros(N_AXES, dtype=np.int64),
        tracks=told.track_rows(path, gates, made, energy_j),
        layers=layer_rows,
        timeline=fed.timeline,
        path_mm=told.path_points(path, profile),
        figures=figures,
        cell_toml=texts["cell"],
        recipe_toml=texts["recipe"],
        material_toml=texts["material"],
        part=_part(part),
        warnings=notes,
        meta={
            "version": __version__,
            "cell": cell.name,
            "recipe": recipe.name,
            "material": material.name,
            "time_law": profile.mode,
            # other than "linear": an override of the speed needs a motion controller that takes
            # the law's table (law_table.py), any other scales power linearly
            "power_law": _power_law(path),
            **({KEY: list(exponents)} if (exponents := exponents_of(path.beads)) else {}),
            "priming_dwell_s": float(profile.t_s[int(np.argmax(profile.move >= 0))]),
            "power_resolution_w": quality.power_resolution_w(cell.laser),
            **arc_meta(path, told.points_between(path)),
        },
    )
    figures["hash"] = job_hash(plan)
    return plan


def _part(part: PartMesh) -> dict[str, Any]:
    low, high = part.bounds_mm
    return {
        "name": part.name,
        "source_name": part.source_name,
        "source_sha256": part.source_sha256,
        "units": part.units,
        "extents_mm": [float(x) for x in high - low],
        "notes": list(part.notes),
    }

"""Tracks to a whole plan: motion, power, powder, segments, figures and checks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controller import __version__
from controller.config import Cell, Material
from controller.errors import PlanError
from controller.geometry import part_figures
from controller.geometry.polygons import region_area
from controller.model import LAYER_ROW, TRACK_ROW, BuildPlan, LayerSlice, PartMesh, Track
from controller.planning import composition, powder, quality
from controller.planning.job import job_hash
from controller.planning.laws import plan_profile
from controller.planning.motion_path import MovePath, build_path
from controller.planning.power import Gates, plan_power, solve_gates
from controller.planning.profile import MotionLimits, Profile
from controller.planning.segments import SegmentSet, make_segments, role_lengths_mm
from controller.recipes import Recipe
from firmware_bridge.segments import N_AXES, TICK_S

# the firmware's limit is configured in unsigned 32 bit milliseconds (docs/protocol.md, 8)
FIRMWARE_LONGEST_EMISSION_S = 0xFFFFFFFF * 1e-3
# deposit below this share of the target volume: the part will not clean up
LEAST_FILL = 0.95
MOST_FILL = 1.5


def plan_build(
    tracks: Sequence[Track],
    layers: Sequence[LayerSlice],
    part: PartMesh,
    recipe: Recipe,
    cell: Cell,
    material: Material,
    texts: Mapping[str, str],
    *,
    mode: str = "trapezoid",
    warnings: Sequence[str] = (),
    materials: Mapping[str, Material] | None = None,
) -> BuildPlan:
    """Plan a build from its tracks, in the order given.

    Parameters
    ----------
    tracks : layer by layer; layers : the slices the tracks came from
    texts : the files' text as used, keys "cell", "recipe", "material"
    mode : time law (profile.MODES); warnings : found before (recipe window), carried on
    materials : by name, of the other powders that the recipe blends

    Raises PlanError, in one sentence with value, limit and unit, when a limit of the cell
    would be broken: soft limits, longest emission, powder in the hopper, threshold.
    """
    blended = composition.materials_of(recipe, material, materials)
    path = build_path(tracks, recipe, cell)
    profile = plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(cell), mode)
    gates = solve_gates(path, profile, cell.laser)
    dwell_s = powder.priming_dwell_s(
        float(gates.on_s[0]), cell.powder, float(path.beads["powder_g_min"][0])
    )
    if dwell_s > 0.0:
        profile = profile.after_dwell(np.ceil(dwell_s * 1e3) * 1e-3)
        gates = solve_gates(path, profile, cell.laser)
    curve = plan_power(path, profile, gates, cell.laser)
    made = make_segments(path, profile, gates, curve, recipe, cell)
    duration_s = made.duration_ticks * TICK_S
    fed = powder.plan_powder(path, profile, gates, recipe, cell, duration_s)

    output = quality.CommandCurve(made.segments, cell.laser.rated_power_w)
    energy_j = quality.bead_energy_j(output, gates, cell.laser)
    rows = _track_rows(path, profile, gates, made, energy_j)
    layer_rows = _layer_rows(path, profile, layers)
    figures = _figures(path, profile, gates, len(layer_rows), energy_j, duration_s)
    figures["part"] = _part(part)
    figures["volume_mm3"] = float(part.volume_mm3)
    volumes = part_figures(part, list(layers), list(tracks), recipe)
    figures["target_volume_mm3"] = volumes["target_volume_mm3"]
    figures["powder_g"] = sum(fed.fed_g)
    figures["powder_g_by_hopper"] = list(fed.fed_g)
    deposited = recipe.catchment * fed.laid_g.sum(axis=0)
    figures["deposited_g"] = float(deposited.sum())
    figures["deposit_volume_mm3"] = composition.deposit_volume_mm3(fed.mixture, deposited, blended)
    figures["max_power_error_w"] = quality.max_power_error_w(
        output, path, profile, gates, cell.laser
    )
    coarsest = min(a.steps_per_mm for a in cell.motion.axes[:3])
    figures["beam_position_error_mm"] = quality.beam_position_error_mm(path, cell.laser, coarsest)
    figures["cost"] = _cost(figures, cell, [blended[n] if n else None for n in fed.mixture.powders])
    _check(figures, gates, cell)
    notes = (*warnings, *fed.warnings, *_warnings(path, profile, gates, figures, cell))
    figures["warnings"] = list(notes)
    plan = BuildPlan(
        segments=made.segments,
        start_steps=np.zeros(N_AXES, dtype=np.int64),
        tracks=rows,
        layers=layer_rows,
        timeline=fed.timeline,
        path_mm=_path_points(path),
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
            "priming_dwell_s": float(profile.t_s[int(np.argmax(profile.move >= 0))]),
            "power_resolution_w": quality.power_resolution_w(cell.laser),
        },
    )
    figures["hash"] = job_hash(plan)
    return plan


def _path_points(path: MovePath) -> np.ndarray:
    """Corners of all beads, bead after bead, (n, 3) mm."""
    spans = zip(path.beads["first_move"], path.beads["end_move"], strict=True)
    return np.concatenate([path.points_mm[a : b + 1] for a, b in spans])


def _track_rows(
    path: MovePath, profile: Profile, gates: Gates, made: SegmentSet, energy_j: np.ndarray
) -> np.ndarray:
    beads = path.beads
    rows = np.zeros(len(beads), dtype=TRACK_ROW)
    n_points = beads["end_move"] - beads["first_move"] + 1
    rows["layer"], rows["kind"] = beads["layer"], beads["kind"]
    rows["first_segment"], rows["end_segment"] = made.first_segment, made.end_segment
    rows["start_s"], rows["end_s"] = made.on_tick * TICK_S, made.off_tick * TICK_S
    rows["length_mm"] = gates.s_off_mm - gates.s_on_mm
    rows["power_set_w"], rows["speed_mm_s"] = beads["power_w"], beads["speed_mm_s"]
    rows["powder_g_min"], rows["energy_j"] = beads["powder_g_min"], energy_j
    rows["first_point"] = np.cumsum(n_points) - n_points
    rows["n_points"] = n_points
    return rows


def _layer_rows(path: MovePath, profile: Profile, layers: Sequence[LayerSlice]) -> np.ndarray:
    """A layer lasts from the end of the one before to the end of its last overrun."""
    number = path.beads["layer"]
    rows = np.zeros(len(layers), dtype=LAYER_ROW)
    known = {layer.index for layer in layers}
    strange = [int(i) for i in np.unique(number) if int(i) not in known]
    if strange:
        raise PlanError(f"tracks of layer {strange[0]} have no slice; there are {len(layers)}")
    now = 0.0
    for row, layer in zip(rows, layers, strict=True):
        first = int(np.searchsorted(number, layer.index, side="left"))
        end = int(np.searchsorted(number, layer.index, side="right"))
        row["layer"], row["z_mm"] = layer.index, layer.z_nozzle_mm
        row["first_track"], row["n_tracks"] = first, end - first
        row["area_mm2"] = sum(region_area(r) for r in layer.regions)
        row["start_s"] = now
        if end > first:
            after = path.beads["end_move"][end - 1] + 1  # the overrun ends there
            now = float(profile.time_at(profile.move_s_mm[after])[0])
        row["end_s"] = now
    return rows


def _figures(
    path: MovePath,
    profile: Profile,
    gates: Gates,
    n_layers: int,
    energy_j: np.ndarray,
    duration_s: float,
) -> dict[str, Any]:
    emission_mm, travel_mm = role_lengths_mm(path, profile)
    on_s = gates.off_s - gates.on_s
    return {
        "layers": n_layers,
        "tracks": len(path.beads),
        "moves": len(path.speed_mm_s),
        "length_mm": {"emission": emission_mm, "travel": travel_mm},
        "duration_s": duration_s,
        "emission_s": float(on_s.sum()),
        "longest_emission_s": float(on_s.max()),
        "energy_j": float(energy_j.sum()),
    }


def _cost(
    figures: Mapping[str, Any], cell: Cell, materials: Sequence[Material | None]
) -> dict[str, float]:
    """``materials``: by hopper."""
    hours = figures["duration_s"] / 3600.0
    powder_usd = sum(
        g * 1e-3 * material.price.value_usd_kg
        for g, material in zip(figures["powder_g_by_hopper"], materials, strict=True)
        if material is not None
    )
    machine_usd = hours * cell.cost.machine_usd_h
    gas_usd = hours * cell.cost.gas_usd_h
    return {
        "powder_usd": powder_usd,
        "machine_usd": machine_usd,
        "gas_usd": gas_usd,
        "total_usd": powder_usd + machine_usd + gas_usd,
    }


def _check(figures: Mapping[str, Any], gates: Gates, cell: Cell) -> None:
    longest = figures["longest_emission_s"]
    bead = int(np.argmax(gates.off_s - gates.on_s))
    for limit, name in (
        (cell.laser.longest_emission_s, f"laser.longest_emission of cell {cell.name!r}"),
        (FIRMWARE_LONGEST_EMISSION_S, "the firmware's counter"),
    ):
        if longest >= limit:  # the firmware shuts the gate exactly at its limit
            raise PlanError(
                f"bead {bead}: {longest:.1f} s of unbroken emission, not below {limit:g} s ({name})"
            )


def _warnings(
    path: MovePath, profile: Profile, gates: Gates, figures: Mapping[str, Any], cell: Cell
) -> list[str]:
    notes = []
    opening = profile.state_at(gates.on_s)[1]
    slow = opening < path.beads["speed_mm_s"] * (1.0 - 1e-6)
    if slow.any():
        bad = int(np.argmax(slow))
        notes.append(
            f"{int(slow.sum())} of {len(slow)} beads open below full speed (bead {bad} at "
            f"{opening[bad]:.2f} of {path.beads['speed_mm_s'][bad]:g} mm/s): their first corner "
            "is too near or an axis is too slow; power follows speed"
        )
    target, deposit = figures["target_volume_mm3"], figures["deposit_volume_mm3"]
    if target > 0 and not LEAST_FILL <= deposit / target <= MOST_FILL:
        notes.append(
            f"deposit_volume {deposit:.0f} mm3 is {100 * deposit / target:.0f} % of the target "
            f"{target:.0f} mm3 (looked for: {100 * LEAST_FILL:.0f} to {100 * MOST_FILL:.0f} %)"
        )
    step_w = quality.power_resolution_w(cell.laser)
    if step_w > 0.01 * float(path.beads["power_w"].min()):
        notes.append(
            f"laser.resolution_bits {cell.laser.resolution_bits}: the source rounds power by up "
            f"to {step_w:.1f} W"
        )
    return notes


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

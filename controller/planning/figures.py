"""What a plan tells of itself: rows of tracks and layers, figures, cost, notes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controller.config import Cell, Material
from controller.errors import PlanError
from controller.geometry.polygons import region_area
from controller.model import LAYER_ROW, TRACK_ROW, LayerSlice
from controller.planning import quality
from controller.planning.light.gate import Gates, bead_name
from controller.planning.light.power import PowerCurve
from controller.planning.motion.profile import Profile
from controller.planning.path.arcs import Arcs
from controller.planning.path.motion_path import MovePath
from controller.planning.segments import SegmentSet
from firmware_bridge.segments import TICK_S

# deposit below this share of the target volume: the part will not clean up
LEAST_FILL = 0.95
MOST_FILL = 1.5
ARC_SAG_MM = 2e-3  # chords of path_mm leave an arc by no more


def points_between(path: MovePath) -> np.ndarray:
    """Points that an arc needs between its ends to be followed within ARC_SAG_MM, (n,) int64."""
    between = np.zeros(len(path.speed_mm_s), dtype=np.int64)
    if path.through_mm is not None:
        arcs = Arcs.of(path.points_mm, path.through_mm)
        step = 2.0 * np.arccos(np.maximum(1.0 - ARC_SAG_MM / arcs.radius_mm, 0.0))
        between[arcs.move] = np.ceil(arcs.angle / step).astype(np.int64) - 1
    return between


def path_points(path: MovePath, profile: Profile) -> np.ndarray:
    """Corners of all beads, bead after bead, and points on their arcs, (n, 3) mm."""
    between = points_between(path)
    s = profile.move_s_mm
    out = []
    for a, b in zip(path.beads["first_move"].tolist(), path.beads["end_move"].tolist(),
                    strict=True):  # fmt: skip
        begin = a
        for move in (a + np.flatnonzero(between[a:b])).tolist():
            share = np.arange(1, between[move] + 1) / (between[move] + 1)
            out.append(path.points_mm[begin : move + 1])
            out.append(profile.curve.tip_at(s[move] + share * (s[move + 1] - s[move])))
            begin = move + 1
        out.append(path.points_mm[begin : b + 1])
    return np.concatenate(out)


def track_rows(path: MovePath, gates: Gates, made: SegmentSet, energy_j: np.ndarray) -> np.ndarray:
    """TRACK_ROW of each bead; ``energy_j`` (k,)."""
    beads = path.beads
    rows = np.zeros(len(beads), dtype=TRACK_ROW)
    more = np.concatenate([[0], np.cumsum(points_between(path))])
    n_points = beads["end_move"] - beads["first_move"] + 1
    n_points = n_points + more[beads["end_move"]] - more[beads["first_move"]]
    rows["layer"], rows["kind"] = beads["layer"], beads["kind"]
    rows["first_segment"], rows["end_segment"] = made.first_segment, made.end_segment
    rows["start_s"], rows["end_s"] = made.on_tick * TICK_S, made.off_tick * TICK_S
    rows["length_mm"] = gates.s_off_mm - gates.s_on_mm
    rows["power_set_w"], rows["speed_mm_s"] = beads["power_w"], beads["speed_mm_s"]
    rows["powder_g_min"], rows["energy_j"] = beads["powder_g_min"], energy_j
    rows["first_point"] = np.cumsum(n_points) - n_points
    rows["n_points"] = n_points
    return rows


def layer_rows(path: MovePath, profile: Profile, layers: Sequence[LayerSlice]) -> np.ndarray:
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


def main_figures(
    path: MovePath,
    profile: Profile,
    gates: Gates,
    n_layers: int,
    energy_j: np.ndarray,
    duration_s: float,
) -> dict[str, Any]:
    """Counts, lengths, times and energy."""
    emission_mm = float((gates.s_off_mm - gates.s_on_mm).sum())
    whole_mm = float(profile.move_s_mm[-1] - profile.move_s_mm[0])
    on_s = gates.off_s - gates.on_s
    return {
        "layers": n_layers,
        "tracks": len(path.beads),
        "moves": len(path.speed_mm_s),
        "length_mm": {"emission": emission_mm, "travel": whole_mm - emission_mm},
        "duration_s": duration_s,
        "emission_s": float(on_s.sum()),
        "longest_emission_s": float(on_s.max()),
        "energy_j": float(energy_j.sum()),
    }


def cost(
    figures: Mapping[str, Any], cell: Cell, materials: Sequence[Material | None]
) -> dict[str, float]:
    """Estimate in USD; ``materials`` by hopper, None for an empty one."""
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


def notes(
    path: MovePath,
    profile: Profile,
    gates: Gates,
    power: PowerCurve,
    figures: Mapping[str, Any],
    cell: Cell,
) -> list[str]:
    """Sentences on what a plan does otherwise than its recipe asks."""
    beads = path.beads
    found = []
    opening = profile.state_at(gates.on_s)[1]
    slow = opening < beads["speed_mm_s"] * (1.0 - 1e-6)
    if slow.any():
        bad = int(np.argmax(slow))
        found.append(
            f"{int(slow.sum())} of {len(slow)} beads open below full speed (bead {bad} at "
            f"{opening[bad]:.2f} of {beads['speed_mm_s'][bad]:g} mm/s): their first corner "
            "is too near or an axis is too slow; power follows speed"
        )
    if power.capped_beads is not None and power.capped_beads.any():
        capped = power.capped_beads
        bad = int(np.argmax(capped))
        found.append(
            f"energy_cap lowers the power of {int(capped.sum())} of {len(capped)} beads (first "
            f"{bead_name(path, bad)}: {beads['energy_cap_j_mm'][bad]:g} J/mm against "
            f"{beads['power_w'][bad] / beads['speed_mm_s'][bad]:g} J/mm at full speed and power)"
        )
    if power.slew_bead >= 0:
        found.append(
            f"laser.power_slew {cell.laser.power_slew_w_s:g} W/s of cell {cell.name!r} is slower "
            f"than the power law asks: the command misses it by up to {power.slew_error_w:.1f} W, "
            f"most in {bead_name(path, power.slew_bead)}"
        )
    target, deposit = figures["target_volume_mm3"], figures["deposit_volume_mm3"]
    if target > 0 and not LEAST_FILL <= deposit / target <= MOST_FILL:
        found.append(
            f"deposit_volume {deposit:.0f} mm3 is {100 * deposit / target:.0f} % of the target "
            f"{target:.0f} mm3 (looked for: {100 * LEAST_FILL:.0f} to {100 * MOST_FILL:.0f} %)"
        )
    step_w = quality.power_resolution_w(cell.laser)
    if step_w > 0.01 * float(beads["power_w"].min()):
        found.append(
            f"laser.resolution_bits {cell.laser.resolution_bits}: the source rounds power by up "
            f"to {step_w:.1f} W"
        )
    return found

"""Figures of a rest of a plan: energy, lengths, times, powder; from segments and timeline."""

from typing import Any

import numpy as np

from controller.config import Cell
from controller.model import BuildPlan
from controller.planning.rest.powder import Powder, masses_g
from controller.recipes import Recipe
from firmware_bridge.segments import (
    FLAG_GATE,
    FLAG_PARAM,
    POWER_FULL,
    RATIO_ONE,
    TICK_S,
    ticks_of,
)


def segment_energy(segments: np.ndarray, rated_power_w: float) -> np.ndarray:
    """Energy of each segment as commanded with the gate open, (n,) J."""
    moves = (segments["flags"] & FLAG_PARAM) == 0
    power = segments["end_power"][moves].astype(np.float64) * (rated_power_w / POWER_FULL)
    mean = 0.5 * (power + np.concatenate([[0.0], power[:-1]]))
    out = np.zeros(len(segments))
    gate = (segments["flags"][moves] & FLAG_GATE) != 0
    out[moves] = np.where(gate, mean * ticks_of(segments)[moves] * TICK_S, 0.0)
    return out


def bead_length_mm(plan: BuildPlan, track: int, join: int, into_us: int = 0) -> float:
    """Length of a track before a place in one of its segments, in the proportion of its speeds."""
    row = plan.tracks[track]
    first, end = int(row["first_segment"]), int(row["end_segment"])
    speed = plan.segments["end_speed"][max(first - 1, 0) : end].astype(np.float64)
    speed = speed if first > 0 else np.concatenate([[0.0], speed])
    if first > 0 and plan.segments["flags"][first - 1] & FLAG_PARAM:
        speed[0] = speed[1] if len(speed) > 1 else RATIO_ONE
    ticks = ticks_of(plan.segments[first:end])
    way = 0.5 * (speed[1:] + speed[:-1]) * ticks
    total = float(way.sum())
    if total <= 0.0:
        return 0.0
    k = join - first
    before = float(way[:k].sum())
    if into_us:
        before += into_us * (speed[k] + 0.5 * (speed[k + 1] - speed[k]) * into_us / ticks[k])
    return float(before / total * float(row["length_mm"]))


def rest_figures(
    plan: BuildPlan, rest: BuildPlan, recipe: Recipe, cell: Cell, powder: Powder | None
) -> dict[str, Any]:
    """The keys of ``lmd plan --json`` for the rest; what the part is stays the part's."""
    figures = {k: v for k, v in plan.figures.items() if k != "hash"}
    ticks = ticks_of(rest.segments)
    gate = (rest.segments["flags"] & FLAG_GATE) != 0
    per_mm = np.array([a.steps_per_mm for a in cell.motion.axes[:3]])
    move = (rest.segments["flags"] & FLAG_PARAM) == 0
    way = np.linalg.norm(rest.segments["steps"][:, :3] / per_mm, axis=1) * move
    by_hopper, laid = masses_g(rest, cell, powder)
    fed = sum(by_hopper)
    figures.update(
        layers=len(rest.layers),
        tracks=len(rest.tracks),
        moves=int(np.count_nonzero(move)),
        length_mm={
            "emission": float(rest.tracks["length_mm"].sum()),
            "travel": float(way[~gate].sum()),
        },
        duration_s=float(ticks.sum()) * TICK_S,
        emission_s=float(ticks[gate].sum()) * TICK_S,
        longest_emission_s=float((rest.tracks["end_s"] - rest.tracks["start_s"]).max()),
        energy_j=float(rest.tracks["energy_j"].sum()),
        powder_g=fed,
        powder_g_by_hopper=list(by_hopper),
        deposited_g=recipe.catchment * laid,
    )
    before_g = float(plan.figures.get("powder_g") or 0.0)
    cost, before_s = plan.figures.get("cost"), float(plan.figures.get("duration_s") or 0.0)
    if cost and before_s > 0.0 and before_g > 0.0:
        share = {"powder_usd": fed / before_g}
        times = figures["duration_s"] / before_s
        own = {k: v * share.get(k, times) for k, v in cost.items() if k != "total_usd"}
        figures["cost"] = {**own, "total_usd": sum(own.values())}
    if "deposit_volume_mm3" in figures and plan.figures.get("deposited_g"):
        share = figures["deposited_g"] / plan.figures["deposited_g"]
        figures["deposit_volume_mm3"] = plan.figures["deposit_volume_mm3"] * share
    return figures

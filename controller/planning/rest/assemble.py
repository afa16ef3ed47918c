"""A rest as a plan of its own: its head and the plan's own segments, with rows and figures."""

from dataclasses import replace

import numpy as np

from controller.config import Cell
from controller.model import LAYER_ROW, TRACK_ROW, BuildPlan
from controller.planning.path.arc_text import KEY as ARCS_KEY
from controller.planning.path.arc_text import cut_arcs
from controller.planning.rest.figures import bead_length_mm, rest_figures, segment_energy
from controller.planning.rest.head import MEETS, Head
from controller.planning.rest.powder import Powder, join_s, rest_timeline
from controller.recipes import Recipe
from firmware_bridge.segments import RATIO_ONE, TICK_S, ticks_of


def assemble(
    plan: BuildPlan, head: Head, cell: Cell, recipe: Recipe, powder: Powder | None = None
) -> BuildPlan:
    """The rest as a plan of its own: indices from 0, tracks, layers, timeline and figures."""
    segments = np.concatenate([head.segments, plan.segments[head.follow :]])
    moved = head.opens - head.join  # the plan's index + moved = the rest's
    opens_s = float(ticks_of(segments[: head.opens]).sum()) * TICK_S
    joins_s = join_s(plan, head.join, head.into_us)
    shift_s = opens_s - joins_s
    rows = plan.tracks[head.track :].copy()
    rows["first_segment"] += moved
    rows["end_segment"] += moved
    rows["start_s"] += shift_s
    rows["end_s"] += shift_s
    rows["first_segment"][0], rows["start_s"][0] = head.opens, opens_s
    laid_mm = bead_length_mm(plan, head.track, head.join, head.into_us)
    cut = min(laid_mm / max(float(rows["length_mm"][0]), 1e-12), 1.0)
    rows["length_mm"][0] -= laid_mm
    before = segment_energy(plan.segments, cell.laser.rated_power_w)
    row = plan.tracks[head.track]
    whole_j = float(before[int(row["first_segment"]) : int(row["end_segment"])].sum())
    energy = segment_energy(segments, cell.laser.rated_power_w)
    left_j = float(energy[head.opens : int(rows["end_segment"][0])].sum())
    rows["energy_j"][0] *= left_j / whole_j if whole_j > 0.0 else 1.0
    path, rows, kept = _path(plan, rows, row, cut)
    meta = {k: v for k, v in plan.meta.items() if k != ARCS_KEY}
    if head.remelt is not None:
        rows = np.concatenate([_remelt_row(rows[0], segments, head.remelt, energy), rows])
    rest = replace(
        plan,
        segments=segments,
        start_steps=np.array(head.start_steps, dtype=np.int64),
        tracks=rows,
        layers=_layers(plan, head, shift_s, 0 if head.remelt is None else 1),
        timeline=rest_timeline(plan, joins_s, opens_s, cell, powder),
        path_mm=path,
        meta={**meta, **cut_arcs(plan, kept, path), MEETS: list(head.meets)},
    )
    return replace(rest, figures=rest_figures(plan, rest, recipe, cell, powder))


def _path(
    plan: BuildPlan, rows: np.ndarray, whole: np.ndarray, cut: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Points of the beads that are left, the first one's from the join on; rows that know them;
    the first of the plan's points that is kept."""
    first, n = int(whole["first_point"]), int(whole["n_points"])
    own = plan.path_mm[first : first + n]
    if n >= 2 and cut > 0.0:
        s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(own, axis=0), axis=1))])
        at = cut * s[-1]
        start = np.array([[np.interp(at, s, own[:, k]) for k in range(3)]])
        own = np.concatenate([start, own[s > at + 1e-9]])
        if len(own) < 2:
            own = np.concatenate([start, plan.path_mm[first + n - 1 : first + n]])
    rows["n_points"][0] = len(own)
    rows["first_point"] = np.cumsum(rows["n_points"]) - rows["n_points"]
    path = np.concatenate([own, plan.path_mm[first + n :]])
    begun = 1 if cut > 0.0 and n >= 2 else 0  # the first point is a new one
    return path, rows, len(plan.path_mm) - len(path) + begun


def _remelt_row(
    row: np.ndarray, segments: np.ndarray, where: tuple[int, int], energy: np.ndarray
) -> np.ndarray:
    """The pass without powder as a track of its own; it shares the first track's points."""
    out = np.array([row], dtype=TRACK_ROW)
    first, end = where
    ticks = ticks_of(segments)
    out["first_segment"], out["end_segment"] = first, end
    out["start_s"] = float(ticks[:first].sum()) * TICK_S
    out["end_s"] = float(ticks[:end].sum()) * TICK_S
    out["powder_g_min"] = 0.0
    out["energy_j"] = float(energy[first:end].sum())
    speed = segments["end_speed"][first:end].astype(np.float64) / RATIO_ONE
    out["length_mm"] = float((speed * ticks[first:end]).sum()) * TICK_S * float(row["speed_mm_s"])
    out["n_points"] = 0
    return out


def _layers(plan: BuildPlan, head: Head, shift_s: float, more: int) -> np.ndarray:
    """Layers from the one that is gone on with."""
    layer = int(plan.tracks["layer"][head.track])
    rows = plan.layers[plan.layers["layer"] >= layer].copy().astype(LAYER_ROW)
    rows["start_s"] += shift_s
    rows["end_s"] += shift_s
    rows["first_track"] += more - head.track
    if len(rows):
        rows["start_s"][0] = 0.0
        gone = max(0, more - int(rows["first_track"][0]))
        rows["first_track"][0] = 0
        rows["n_tracks"][0] += more - gone if gone else more
    return rows

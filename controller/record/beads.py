"""The beads of a plan and of a record: straight pieces with what was set or measured there."""

from dataclasses import dataclass

import numpy as np

from controller.config import Cell
from controller.model import BuildPlan
from controller.planning.path.kinematics import Kinematics, home_axes
from controller.record.charts import settled_emission
from controller.record.reader import Record
from controller.record.summary import cell_of, recipe_of
from firmware_bridge.segments import FLAG_GATE, FLAG_PARAM, POWER_FULL, ticks_of

MAX_BEADS = 40_000
_DEFAULT_WIDTH_MM = 1.0


@dataclass(frozen=True)
class Beads:
    """Straight pieces of bead with their values; n pieces."""

    start_mm: np.ndarray  # (n, 3)
    end_mm: np.ndarray  # (n, 3)
    layer: np.ndarray  # (n,) int
    values: dict[str, np.ndarray]  # name -> (n,) float
    width_mm: float
    travel_mm: np.ndarray  # (m, 2, 3) moves with the gate shut
    travel_layer: np.ndarray  # (m,) int

    def __len__(self) -> int:
        return len(self.start_mm)

    def only(self, keep: np.ndarray) -> "Beads":
        """The pieces where ``keep`` is true, with all travel."""
        return Beads(
            self.start_mm[keep],
            self.end_mm[keep],
            self.layer[keep],
            {k: v[keep] for k, v in self.values.items()},
            self.width_mm,
            self.travel_mm,
            self.travel_layer,
        )


def beads_of_plan(plan: BuildPlan, max_beads: int = MAX_BEADS, layer: int | None = None) -> Beads:
    """The beads that the segments of a plan draw, of one layer or all.

    Neighbours are joined to about ``max_beads``, never over a bend.

    Power and speed are those of the wire (ramps and corners included), not the track's set
    values. Places are those of the melt pool in plan coordinates, whatever axes moved.
    """
    cell = cell_of(plan)
    recipe = recipe_of(plan)
    width = recipe.bead.width_mm if recipe is not None else _DEFAULT_WIDTH_MM
    if cell is None or len(plan.segments) == 0:
        beads = _beads_of_path(plan, width)
        return beads if layer is None else beads.only(beads.layer == layer)
    return _beads_of_segments(plan, cell, width, max_beads, layer)


def melt_pool_mm(plan: BuildPlan, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Place of the melt pool at segment ends, (n + 1, 3) mm in plan coordinates, and whether
    each segment moves an axis, (n,) bool."""
    axes = cell.motion.machine_axes
    steps = plan.segments["steps"][:, : len(axes)].astype(np.int64)
    steps[(plan.segments["flags"] & FLAG_PARAM) != 0] = 0
    ends = np.vstack([np.zeros((1, len(axes)), np.int64), np.cumsum(steps, axis=0)])
    per_unit = np.array([a.steps_per_unit for a in axes])
    places = home_axes(cell) + (ends + plan.start_steps[: len(axes)]) / per_unit
    return Kinematics.of_cell(cell).forward(places)[0], np.asarray(steps.any(axis=1))


def _beads_of_segments(
    plan: BuildPlan, cell: Cell, width: float, max_beads: int, only_layer: int | None
) -> Beads:
    segments = plan.segments
    flags = segments["flags"]
    corner_mm, moving = melt_pool_mm(plan, cell)
    ticks = ticks_of(segments)
    time_s = np.concatenate([[0], np.cumsum(ticks)]) * 1e-6
    power_w = segments["end_power"] / POWER_FULL * cell.laser.rated_power_w
    track = np.searchsorted(plan.tracks["first_segment"], np.arange(len(segments)), "right") - 1
    gate = (flags & FLAG_GATE) != 0
    layer_of = plan.tracks["layer"] if len(plan.tracks) else np.zeros(1, np.int64)
    if only_layer is not None:
        moving &= layer_of[np.clip(track, 0, None)] == only_layer
    step = max(1, -(-int((gate & moving).sum()) // max_beads))
    way_mm = np.diff(corner_mm, axis=0)
    start, end = _join(gate & moving, track, step, _bends(way_mm) if step > 1 else None)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(way_mm, axis=1))])
    energy = np.concatenate([[0], np.cumsum(power_w * ticks * 1e-6)])
    seconds = np.maximum(time_s[end] - time_s[start], 1e-9)
    idle_start, idle_end = _join(~gate & moving, track, 1)
    layer = layer_of[np.clip(track[start], 0, None)].astype(np.int64)
    return Beads(
        start_mm=corner_mm[start],
        end_mm=corner_mm[end],
        layer=layer,
        values={
            "power": (energy[end] - energy[start]) / seconds,
            "speed": (length[end] - length[start]) / seconds,
            "energy": (energy[end] - energy[start]) / np.maximum(length[end] - length[start], 1e-9),
            "time": time_s[start],
            "layer": layer.astype(np.float64),
        },
        width_mm=width,
        travel_mm=np.stack([corner_mm[idle_start], corner_mm[idle_end]], axis=1),
        travel_layer=layer_of[np.clip(track[idle_start], 0, None)].astype(np.int64),
    )


def _join(
    wanted: np.ndarray, track: np.ndarray, step: int, corner: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Corner indices (start, end) of runs of ``wanted`` segments of one track, ``step`` each.

    No piece reaches over a segment marked in ``corner``: bends stay where they are.
    """
    index = np.flatnonzero(wanted)
    if len(index) == 0:
        return index, index
    new_run = np.append(True, (np.diff(index) > 1) | (np.diff(track[index]) != 0))
    if corner is not None:
        new_run |= corner[index]
    first = np.flatnonzero(new_run)
    place = np.arange(len(index)) - first[np.cumsum(new_run) - 1]
    begins = np.flatnonzero(place % step == 0)
    return index[begins], index[np.append(begins[1:], len(index)) - 1] + 1


def _bends(way_mm: np.ndarray) -> np.ndarray:
    """(n,) bool: the direction changes by more than 25 degrees before this segment."""
    size = np.maximum(np.linalg.norm(way_mm, axis=1), 1e-12)
    along = way_mm / size[:, None]
    turn = np.einsum("ij,ij->i", along[1:], along[:-1])
    return np.append(True, turn < 0.906)


def _beads_of_path(plan: BuildPlan, width: float) -> Beads:
    tracks = plan.tracks
    points = plan.path_mm
    starts = np.concatenate(
        [np.arange(r["first_point"], r["first_point"] + r["n_points"] - 1) for r in tracks]
        or [np.zeros(0, np.int64)]
    ).astype(np.int64)
    owner = np.repeat(np.arange(len(tracks)), np.maximum(tracks["n_points"] - 1, 0))
    layer = tracks["layer"][owner].astype(np.int64)
    return Beads(
        start_mm=points[starts],
        end_mm=points[starts + 1],
        layer=layer,
        values={
            "power": tracks["power_set_w"][owner],
            "speed": tracks["speed_mm_s"][owner],
            "energy": (tracks["energy_j"] / np.maximum(tracks["length_mm"], 1e-9))[owner],
            "time": tracks["start_s"][owner],
            "layer": layer.astype(np.float64),
        },
        width_mm=width,
        travel_mm=np.zeros((0, 2, 3)),
        travel_layer=np.zeros(0, np.int64),
    )


def beads_of_record(record: Record, width_mm: float, max_beads: int = MAX_BEADS) -> Beads:
    """What the telemetry saw deposited: positions with the gate open.

    Values: ``power`` (measured; NaN while the source's own reading still rises), ``pool``
    (melt-pool temperature) and ``layer``.
    """
    rows = record.telemetry
    on = rows["gate"] > 0.5
    pair = on[:-1] & on[1:] if len(rows) else np.zeros(0, bool)
    if len(rows):
        pair &= np.diff(rows["t_us"]) < 100_000
    start, end = _join(pair, rows["track"][:-1].astype(np.int64) if len(rows) else pair, 1)
    step = max(1, -(-len(start) // max_beads))
    if step > 1:
        start, end = _join(pair, rows["track"][:-1].astype(np.int64), step)
    xyz = np.column_stack([rows[f"{k}_mm"] for k in "xyz"]).astype(np.float64)
    layer = np.nan_to_num(rows["layer"][start], nan=-1).astype(np.int64)
    return Beads(
        start_mm=xyz[start],
        end_mm=xyz[end],
        layer=layer,
        values={
            "power": np.where(settled_emission(rows), rows["power_measured_w"], np.nan)[start],
            "pool": rows["pool_temp_deg_c"][start].astype(np.float64),
            "layer": layer.astype(np.float64),
        },
        width_mm=width_mm,
        travel_mm=np.zeros((0, 2, 3)),
        travel_layer=np.zeros(0, np.int64),
    )

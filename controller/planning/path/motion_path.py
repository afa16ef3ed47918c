"""Tracks to one path: run-up, emission, overrun, travel and lifts, move by move.

The path starts where homing leaves the axes (linear ones at the least end of their range,
rotary ones at 0) and ends lifted above the part. Positions are plan coordinates in mm: machine
position = work offset + plan - tool offset.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np

from controller.config import Cell
from controller.errors import PlanError
from controller.model import Track, TrackKind
from controller.planning.path.arcs import Arcs, BeadPiece, arc_pieces
from controller.planning.path.joint_curve import JointCurve, join
from controller.planning.path.joint_path import (
    TravelBuilder,
    has_rotary_motion,
    make_run,
    track_rows,
)
from controller.planning.path.kinematics import Kinematics, home_axes
from controller.recipes import Recipe, TrackSettings

# a corner this sharp (177.4 degrees or more) is a reversal: speed would touch zero with the
# gate open, so the bead is planned as two
REVERSAL_COS = -0.999
RUN_UP_SPARE_MM = 0.01
SOFT_LIMIT_SLACK = 1e-9  # offsets add rounding to a place that is exactly at a limit
LEAST_MOVE_MM = 1e-7  # corners nearer than this are one point; a step is 2500 times longer


class Role(IntEnum):
    """What a move is for."""

    TRAVEL = 0
    RUN_UP = 1
    EMIT = 2
    OVERRUN = 3


# one row a bead: an unbroken emission along the path
BEAD_ROW = np.dtype(
    [
        ("layer", "<i4"),
        ("kind", "<i4"),
        ("run_up_move", "<i8"),  # first move of the run-up
        ("first_move", "<i8"),  # first move with the gate open
        ("end_move", "<i8"),  # one past the last move with the gate open
        ("power_w", "<f8"),
        ("floor_w", "<f8"),
        ("speed_mm_s", "<f8"),
        ("power_exponent", "<f8"),  # g(r) = r ** exponent; 1: the linear law
        ("energy_cap_j_mm", "<f8"),  # infinite: none
        ("gate_on_offset_mm", "<f8"),  # light's edges from the bead's ends, forward positive
        ("gate_off_offset_mm", "<f8"),
        ("ramp_in_mm", "<f8"),
        ("ramp_out_mm", "<f8"),
        ("powder_g_min", "<f8"),
        ("carrier_l_min", "<f8"),
        ("shield_l_min", "<f8"),
    ]
)


@dataclass(frozen=True)
class MovePath:
    """A polyline with a speed limit and a purpose for each move."""

    points_mm: np.ndarray  # (n + 1, 3) float64
    speed_mm_s: np.ndarray  # (n,) float64: limit, and nominal speed for the power law
    role: np.ndarray  # (n,) uint8, Role
    beads: np.ndarray  # (k,) BEAD_ROW
    joints: JointCurve | None = None  # the path in the axes, where rotary axes move in it
    through_mm: np.ndarray | None = None  # (n, 3): middle of the arc a move is; NaN: straight


def axis_limits(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Planned speed and acceleration of X, Y, Z: mm/s and mm/s2, (3,) each.

    The shares that leave room for hold and override by time scaling.
    """
    axes = cell.motion.axes[:3]
    speed = np.array([a.speed_mm_s for a in axes]) * cell.motion.speed_share
    accel = np.array([a.accel_mm_s2 for a in axes]) * cell.motion.plan_share
    return speed, accel


# a jerk-limited change v0 -> v takes (v0 + v) sqrt((v - v0) / j) mm: longest not from rest but
# from v0 = v / 3, the speed that a corner before the run-up may have: 4/3 sqrt(2/3)
JERK_WORST_START = 1.0887


def _ahead_s(cell: Cell) -> float:
    """Time ahead of light at which the source's inputs may have to be at their values."""
    laser = cell.laser
    return max(
        max(laser.gate_latency_s, laser.gate_off_latency_s or 0.0) + laser.gate_jitter_s,
        laser.power_latency_s + laser.power_jitter_s,
    )


def run_up_mm(
    direction: np.ndarray, speed_mm_s: float, cell: Cell, mode: str | None = None
) -> float:
    """Length of the straight way before a bead on which full speed is reached.

    v^2 / 2a along ``direction`` (unit vector), or the way that limited jerk takes (``mode``, by
    default the cell's time law), and the way covered while the source's latencies and jitters
    pass, so that power and gate are commanded at full speed already.
    """
    axis_speed, axis_accel = axis_limits(cell)
    share = np.maximum(np.abs(direction), 1e-30)
    v = min(speed_mm_s, float((axis_speed / share).min()))
    a = min(
        cell.motion.total_accel_mm_s2 * cell.motion.plan_share, float((axis_accel / share).min())
    )
    ahead_s = _ahead_s(cell)
    way = v * v / (2.0 * a)
    if (mode or cell.motion.time_law) == "jerk":
        j = cell.motion.jerk_mm_s3
        way = v * math.sqrt(v / j) if v * j <= a * a else 0.5 * v * (v / a + a / j)
        way *= JERK_WORST_START
    elif (mode or cell.motion.time_law) == "friction_circle":
        # the arc at the run-up's start takes up to 2.4 tolerances of it (right angle) in which
        # speed gains less than on the straight
        way += 2.5 * cell.motion.path_tolerance_mm
    return way + v * ahead_s + RUN_UP_SPARE_MM


def distinct_points(points_mm: np.ndarray, where: str) -> np.ndarray:
    """A track's points without repeats. Raises PlanError for NaN and for no length."""
    points = np.asarray(points_mm, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise PlanError(f"{where}: points of shape {points.shape}, needed (n, 3) in mm")
    if not np.isfinite(points).all():
        bad = int(np.argmax(~np.isfinite(points).all(axis=1)))
        raise PlanError(f"{where}: point {bad} is {points[bad].tolist()} mm, not finite")
    # kept points only are compared, so that many tiny steps cannot add up to a lost bead
    gaps = np.abs(np.diff(points, axis=0)).max(axis=1, initial=0.0)
    if len(points) > 1 and (gaps <= LEAST_MOVE_MM).any():
        kept = [points[0]]
        for point in points[1:]:
            if np.abs(point - kept[-1]).max() > LEAST_MOVE_MM:
                kept.append(point)
        points = np.array(kept)
    if len(points) < 2:
        raise PlanError(f"{where}: the bead has no length (all points within {LEAST_MOVE_MM} mm)")
    return points


def split_at_reversals(points: np.ndarray) -> list[np.ndarray]:
    """Pieces of a polyline between its reversals."""
    if len(points) < 3:
        return [points]
    unit = np.diff(points, axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = np.einsum("ij,ij->i", unit[1:], unit[:-1])
    cuts = [0, *(int(i) + 1 for i in np.flatnonzero(cosine < REVERSAL_COS)), len(points) - 1]
    return [points[a : b + 1] for a, b in pairwise(cuts)]


def bead_pieces(track: Track, where: str) -> list[BeadPiece]:
    """A track without repeats, cut at its reversals. Raises PlanError."""
    points, through = track.points_mm, track.through_mm
    if through is not None and not np.isnan(through).all():
        distinct_points(points, where)  # refuses what is not finite
        return arc_pieces(points, through, where, LEAST_MOVE_MM, REVERSAL_COS)
    pieces = []
    for piece in split_at_reversals(distinct_points(points, where)):
        first, last = piece[1] - piece[0], piece[-1] - piece[-2]
        first, last = first / np.linalg.norm(first), last / np.linalg.norm(last)
        pieces.append(BeadPiece(piece, None, first, last))
    return pieces


class _Builder:
    """Appends moves; knows where the nozzle is."""

    def __init__(self, start_mm: np.ndarray) -> None:
        self.chunks: list[np.ndarray] = [start_mm.reshape(1, 3)]
        self.speeds: list[np.ndarray] = []
        self.roles: list[np.ndarray] = []
        self.throughs: list[tuple[int, np.ndarray]] = []  # first move, rows; only of arcs
        self.at_mm = start_mm
        self.n_moves = 0

    def line(self, points: np.ndarray, speed_mm_s: float, role: Role) -> None:
        """Moves to each of ``points`` (n, 3) in turn."""
        n = len(points)
        self.chunks.append(points)
        self.speeds.append(np.full(n, speed_mm_s))
        self.roles.append(np.full(n, role, dtype=np.uint8))
        self.at_mm = points[-1]
        self.n_moves += n

    def through_mm(self) -> np.ndarray | None:
        """(n, 3), None without arcs."""
        if not self.throughs:
            return None
        rows = np.full((self.n_moves, 3), np.nan)
        for first, through in self.throughs:
            rows[first : first + len(through)] = through
        return rows

    def travel(self, points: Sequence[np.ndarray], speed_mm_s: float) -> None:
        """Gate-off moves; those of no length are left out."""
        for point in points:
            if np.abs(point - self.at_mm).max() > LEAST_MOVE_MM:
                self.line(np.asarray(point, dtype=np.float64).reshape(1, 3), speed_mm_s,
                          Role.TRAVEL)  # fmt: skip


class _Settings:
    """A recipe's settings by kind of track, looked up once each."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._known: dict[tuple[TrackKind, bool], TrackSettings] = {}

    def of(self, track: Track, layer: int, where: str) -> TrackSettings:
        """For one track that comes after ``layer``. Raises PlanError when it comes too late."""
        if track.layer < layer:
            raise PlanError(f"{where}: comes after layer {layer}; tracks are not in order")
        key = (TrackKind(track.kind), track.layer == 0)
        if key not in self._known:
            self._known[key] = self._recipe.settings_for(key[0], track.layer)
        return self._known[key]


def _bead_row(
    track: Track, own: TrackSettings, run_up_move: int, first_move: int, end_move: int
) -> tuple:
    """One BEAD_ROW."""
    return (
        track.layer, int(track.kind), run_up_move, first_move, end_move, own.power_w,
        own.power_floor_w, own.speed_mm_s,
        own.power_exponent if own.power_law == "power" else 1.0, own.energy_cap_j_mm,
        own.gate_on_offset_mm, own.gate_off_offset_mm, own.ramp_in_mm, own.ramp_out_mm,
        own.powder_g_min, own.carrier_l_min, own.shield_l_min,
    )  # fmt: skip


def build_path(
    tracks: Sequence[Track], recipe: Recipe, cell: Cell, mode: str | None = None
) -> MovePath:
    """The whole build's path, for a time law (default: the cell's).

    Raises PlanError naming track, axis, value and limit.

    Between tracks of one layer the nozzle travels at the layer's height; between layers, on
    the way from home and at the end it goes ``travel_lift`` above the higher layer.
    """
    if not tracks:
        raise PlanError("no tracks: nothing to deposit")
    if has_rotary_motion(tracks, cell):
        return _build_joint_path(tracks, recipe, cell)
    tilted = next((n for n, t in enumerate(tracks) if t.tool_axis is not None), None)
    if tilted is not None:
        raise PlanError(
            f"track {tilted} of layer {tracks[tilted].layer}: a tool axis, and cell "
            f"{cell.name!r} has no rotary axis (motion.kinematics {cell.motion.kinematics!r})"
        )
    home = home_axes(cell)[:3]
    travel_mm_s, lift_mm = cell.motion.travel_speed_mm_s, cell.motion.travel_lift_mm
    settings = _Settings(recipe)
    build = _Builder(home)
    beads: list[tuple] = []
    layer = tracks[0].layer
    clear_mm = max(cell.substrate.top_mm, float(home[2]))  # nothing solid is above this
    for number, track in enumerate(tracks):
        where = f"track {number} of layer {track.layer}"
        own = settings.of(track, layer, where)
        pieces = bead_pieces(track, where)
        top_mm = max(float(p.top_mm) for p in pieces)
        for bead in pieces:
            piece, first, last = bead.points_mm, bead.first, bead.last
            # light before the bead's start, or after its end, needs the run-up to be longer
            before_mm = max(0.0, -own.gate_on_offset_mm)
            after_mm = max(0.0, own.gate_off_offset_mm)
            start = piece[0] - first * (run_up_mm(first, own.speed_mm_s, cell, mode) + before_mm)
            end = piece[-1] + last * (run_up_mm(last, own.speed_mm_s, cell, mode) + after_mm)
            if not beads or track.layer != layer:
                above = max(clear_mm, top_mm, start[2]) + lift_mm
                up, over = build.at_mm.copy(), start.copy()
                up[2] = over[2] = max(above, float(up[2]))
                build.travel([up, over, start], travel_mm_s)
            else:
                build.travel([start], travel_mm_s)
            run_up_move = build.n_moves
            build.line(piece[:1], own.speed_mm_s, Role.RUN_UP)
            first_move = build.n_moves
            if bead.through_mm is not None:
                build.throughs.append((first_move, bead.through_mm))
            build.line(piece[1:], own.speed_mm_s, Role.EMIT)
            end_move = build.n_moves
            build.line(end.reshape(1, 3), own.speed_mm_s, Role.OVERRUN)
            beads.append(_bead_row(track, own, run_up_move, first_move, end_move))
            layer = track.layer
        clear_mm = max(clear_mm, top_mm)
    lifted = build.at_mm.copy()
    lifted[2] = max(float(lifted[2]), clear_mm) + lift_mm
    build.travel([lifted], travel_mm_s)
    path = MovePath(
        points_mm=np.concatenate(build.chunks),
        speed_mm_s=np.concatenate(build.speeds),
        role=np.concatenate(build.roles),
        beads=np.array(beads, dtype=BEAD_ROW),
        through_mm=build.through_mm(),
    )
    check_soft_limits(path, cell)
    return path


def _build_joint_path(tracks: Sequence[Track], recipe: Recipe, cell: Cell) -> MovePath:
    """As ``build_path``, with the table turning: see ``joint_path``."""
    kin = Kinematics.of_cell(cell)
    build = TravelBuilder(cell, kin, home_axes(cell))
    settings = _Settings(recipe)
    travel_mm_s = cell.motion.travel_speed_mm_s
    speeds: list[np.ndarray] = []
    roles: list[np.ndarray] = []
    beads: list[tuple] = []
    layer = tracks[0].layer

    def note(count: int, speed_mm_s: float, role: Role) -> None:
        speeds.append(np.full(count, speed_mm_s))
        roles.append(np.full(count, role, dtype=np.uint8))

    for number, track in enumerate(tracks):
        where = f"track {number} of layer {track.layer}"
        own = settings.of(track, layer, where)
        points, tool = track_rows(track, where)
        cuts = np.cumsum([0, *(len(p) - 1 for p in split_at_reversals(points))])
        ahead_mm = own.speed_mm_s * _ahead_s(cell) + RUN_UP_SPARE_MM
        for a, b in pairwise(cuts.tolist()):
            run = make_run(
                points[a : b + 1], tool[a : b + 1], own.speed_mm_s,
                ahead_mm + max(0.0, -own.gate_on_offset_mm),
                ahead_mm + max(0.0, own.gate_off_offset_mm),
                np.radians(build.at[3:]), cell, kin, where, turning=track.tool_axis is not None,
            )  # fmt: skip
            start = run.axes[0]
            # straight to the next bead only where nothing can be in between: same layer, same
            # place of the table
            still = np.abs(start[3:] - build.at[3:]).max() < 1e-9
            direct = bool(beads) and track.layer == layer and still
            note(build.to(start) if direct else build.over(start), travel_mm_s, Role.TRAVEL)
            first = build.n_moves
            build.add(run)
            note(1, own.speed_mm_s, Role.RUN_UP)
            note(b - a, own.speed_mm_s, Role.EMIT)
            note(1, own.speed_mm_s, Role.OVERRUN)
            beads.append(_bead_row(track, own, first, first + 1, build.n_moves - 1))
            layer = track.layer
        build.grow(points)
    note(build.lift(), travel_mm_s, Role.TRAVEL)
    curve = join(build.pieces, kin)
    path = MovePath(
        points_mm=curve.points_mm,
        speed_mm_s=np.concatenate(speeds),
        role=np.concatenate(roles),
        beads=np.array(beads, dtype=BEAD_ROW),
        joints=curve,
    )
    check_soft_limits(path, cell)
    return path


def check_soft_limits(path: MovePath, cell: Cell) -> None:
    """Every place inside the range of every axis; PlanError names axis, value, unit and move."""
    names = {Role.TRAVEL: "travel", Role.RUN_UP: "run-up", Role.EMIT: "bead",
             Role.OVERRUN: "overrun"}  # fmt: skip
    motion = cell.motion
    rows, move = path.points_mm, np.maximum(np.arange(len(path.points_mm)) - 1, 0)
    if path.joints is not None:
        rows, move = path.joints.axes, np.concatenate([path.joints.move[:1], path.joints.move])
    if path.through_mm is not None:  # an arc reaches further than its ends
        arcs = Arcs.of(path.points_mm, path.through_mm)
        rows = np.concatenate([rows, *arcs.extent_mm()])
        move = np.concatenate([move, arcs.move, arcs.move])
    offset = np.zeros(rows.shape[1])
    offset[:3] = np.array(motion.work_offset_mm) - np.array(motion.tool_offset_mm)
    for column, axis in enumerate(motion.machine_axes[: rows.shape[1]]):
        values = rows[:, column] + offset[column]
        low, high = axis.least - SOFT_LIMIT_SLACK, axis.most + SOFT_LIMIT_SLACK
        outside = (values < low) | (values > high)
        if outside.any():
            worst = int(np.argmax(np.where(outside, np.maximum(low - values, values - high), 0)))
            role = names[Role(int(path.role[move[worst]]))]
            table = "motion.axes" if axis.unit == "mm" else "motion.rotary"
            raise PlanError(
                f"axis {axis.name}: {role} to {values[worst]:.3f} {axis.unit}, outside "
                f"{axis.least:g} to {axis.most:g} {axis.unit} ({table} {axis.name} range of cell "
                f"{cell.name!r})"
            )

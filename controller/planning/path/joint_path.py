"""Tracks with tool axes to one path in the machine's axes.

As ``motion_path.build_path``, with the table: a bead with its run-up and overrun is one run
without a stop, in which place and tool axis follow the track exactly; between runs the axes
stand, lift, turn and go over straight in the axes, at ``travel_speed`` (rotary axes: a turn
counts as the way that takes as long).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from controller.config import Cell
from controller.errors import PlanError
from controller.model import Track
from controller.planning.path.joint_curve import Bounds, Piece, grid_mm, sample, straight
from controller.planning.path.kinematics import Kinematics
from controller.planning.path.table_angles import TableAngles, choose_angles
from controller.planning.path.tool_path import CORNER_MM, ToolPath, great_circles, unit_rows

Floats = np.ndarray

LEAST_MOVE_MM = 1e-7
ARC_SAG_MM = 5e-4  # an arc is followed by chords that leave it by less
MOST_RUN_UP_MM = 20.0
MOST_LEAD_RAD = math.radians(5.0)  # the tool axis turns on by no more in run-up and overrun
PROBE_MM = 0.01
TURN_STEPS = 12  # places of a turning table at which clearance is looked at


def has_rotary_motion(tracks: Sequence[Track], cell: Cell) -> bool:
    """True when a track of a rotary cell says where its tool axis points."""
    return bool(cell.motion.rotary) and any(t.tool_axis is not None for t in tracks)


def track_rows(track: Track, where: str) -> tuple[Floats, Floats]:
    """Distinct points and their tool axes, arcs as chords; (n, 3) each."""
    points = np.asarray(track.points_mm, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise PlanError(f"{where}: points must be (n, 3), finite, in mm")
    if track.tool_axis is None:
        tool = np.tile([0.0, 0.0, 1.0], (len(points), 1))
    else:
        tool = unit_rows(track.tool_axis, where)
    if len(tool) != len(points):
        raise PlanError(f"{where}: {len(tool)} tool axes for {len(points)} points")
    if track.through_mm is not None:
        points, tool = _flatten(points, tool, np.asarray(track.through_mm), where)
    keep = [0]
    for i in range(1, len(points)):
        if np.abs(points[i] - points[keep[-1]]).max() > LEAST_MOVE_MM:
            keep.append(i)
        elif np.abs(tool[i] - tool[keep[-1]]).max() > 1e-6:
            raise PlanError(
                f"{where}: the tool axis turns at point {i} without any way; the melt pool "
                "cannot stand still"
            )
    if len(keep) < 2:
        raise PlanError(f"{where}: the bead has no length")
    return points[keep], tool[keep]


def _flatten(points: Floats, tool: Floats, through: Floats, where: str) -> tuple[Floats, Floats]:
    """Arcs (a middle point each; NaN: straight) as chords, tool axes turned evenly along."""
    angle, along = great_circles(tool, where)
    out, axes = [points[:1]], [tool[:1]]
    for i, middle in enumerate(through):
        n = 1
        if np.isfinite(middle).all():
            a, b = points[i] - middle, points[i + 1] - middle
            normal = np.cross(a, b)
            size2 = float(normal @ normal)
            if size2 > 1e-18:
                spread = float(a @ a) * b - float(b @ b) * a
                centre = middle + np.cross(spread, normal) / (2.0 * size2)
                start = points[i] - centre
                radius = float(np.linalg.norm(start))
                e1 = start / radius
                # from start to end by way of the middle: the arc's angle in (0, 2 pi)
                e2 = np.cross(-normal / math.sqrt(size2), e1)
                end = points[i + 1] - centre
                sweep = math.atan2(float(end @ e2), float(end @ e1)) % (2.0 * math.pi)
                n = max(1, math.ceil(sweep / (2.0 * math.acos(1.0 - min(ARC_SAG_MM / radius, 1)))))
                x = sweep * np.arange(1, n + 1)[:, None] / n
                chords = centre + radius * (np.cos(x) * e1 + np.sin(x) * e2)
                chords[-1] = points[i + 1]
                out.append(chords)
        if len(out) < i + 2:
            out.append(points[i + 1 : i + 2])
        share = (angle[i] * np.arange(1, n + 1) / n)[:, None]
        axes.append(tool[i] * np.cos(share) + along[i] * np.sin(share))
    return np.concatenate(out), np.concatenate(axes)


def _lead(tool: Floats, length_mm: Floats, way_mm: float, where: str) -> tuple[Floats, Floats]:
    """Tool axes before the first and after the last point, turning on at the moves' rates."""
    angle, along = great_circles(tool[[0, 1, -1, -2]], where)
    ends = []
    for k, base in ((0, tool[0]), (2, tool[-1])):
        move_mm = length_mm[0] if k == 0 else length_mm[-1]
        x = min(float(angle[k] / move_mm) * way_mm, MOST_LEAD_RAD)
        ends.append(base * math.cos(x) - along[k] * math.sin(x))
    return ends[0], ends[1]


def _exact(
    kin: Kinematics, path: ToolPath, angles: TableAngles
) -> Callable[[Floats], tuple[Floats, Floats, Floats, Floats]]:
    def exact(s: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        tip, dtip, tool, dtool = path.pose_at(s)
        turned, rate = angles.at(s, tip, dtip, tool, dtool)
        axes, slope = kin.place(tip, dtip, turned, rate)
        return tip, tool, axes, slope

    return exact


def lead_mm(slope: Floats, bend: Floats, speed_mm_s: float, cell: Cell) -> float:
    """Way to full speed: v^2 / 2a, with a what the axes have left beside their bend."""
    axes, share = cell.motion.machine_axes, cell.motion.plan_share
    v_most = np.array([a.speed for a in axes]) * cell.motion.speed_share
    v_most /= np.maximum(np.abs(slope), 1e-12)
    v = min(speed_mm_s, float(v_most.min()))
    left = np.array([a.accel for a in axes]) * share - np.abs(bend) * v * v
    a = float((np.maximum(left, 0.0) / np.maximum(np.abs(slope), 1e-12)).min())
    a = min(a, cell.motion.total_accel_mm_s2 * share)
    return MOST_RUN_UP_MM if a * MOST_RUN_UP_MM < 0.5 * v * v else 0.5 * v * v / a


def make_run(
    points: Floats,
    tool: Floats,
    speed_mm_s: float,
    before_mm: float,
    after_mm: float,
    now_rad: Floats,
    cell: Cell,
    kin: Kinematics,
    where: str,
    *,
    turning: bool,
) -> Piece:
    """A bead with its run-up and overrun, in the axes.

    ``before_mm``, ``after_mm``: that run-up and overrun need beside the way to full speed.
    """
    tolerance = min(CORNER_MM, cell.motion.path_tolerance_mm)
    bare = ToolPath.of(points, tool, where, tolerance)
    exact = _exact(kin, bare, choose_angles(kin, bare, now_rad, where, turning=turning))
    probe = min(PROBE_MM, bare.length_mm / 8.0)
    ends = np.array([0.0, probe, bare.length_mm - probe, bare.length_mm])
    _, _, _, slope = exact(ends)
    leads = []
    for i, more in ((0, before_mm), (2, after_mm)):
        bend = (slope[i + 1] - slope[i]) / probe
        fastest = np.abs(slope[i : i + 2]).max(axis=0)
        leads.append(1.05 * lead_mm(fastest, bend, speed_mm_s, cell) + more)
    first = (points[1] - points[0]) / bare.move_mm[0]
    last = (points[-1] - points[-2]) / bare.move_mm[-1]
    tool_first, tool_last = _lead(tool, bare.move_mm, leads[0], where)
    path = ToolPath.of(
        np.concatenate([
            [points[0] - first * leads[0]], points, [points[-1] + last * leads[1]]
        ]),
        np.concatenate([[tool_first], tool, [tool_last]]),
        where,
        tolerance,
    )  # fmt: skip
    angles = choose_angles(kin, path, now_rad, where, turning=turning)
    breaks = angles.breaks_mm()
    nodes = np.concatenate([
        path.start_mm, path.corner_s_mm, grid_mm(path.length_mm), angles.node_s,
        breaks[(breaks > 0.0) & (breaks < path.length_mm)],
    ])  # fmt: skip
    axes_of = cell.motion.machine_axes
    bounds = Bounds(
        np.array([a.speed for a in axes_of]) * cell.motion.speed_share,
        np.array([a.accel for a in axes_of]) * cell.motion.plan_share,
        speed_mm_s,
    )
    s, axes, slope = sample(kin, _exact(kin, path, angles), nodes, bounds, where)
    move = np.searchsorted(path.corner_s_mm, 0.5 * (s[1:] + s[:-1]), side="right") - 1
    return Piece(s, axes, slope, move.astype(np.int32), path.corner_s_mm, path.points_mm)


class TravelBuilder:
    """Pieces in a row; knows where the axes stand and what is in the way."""

    def __init__(self, cell: Cell, kin: Kinematics, home: Floats) -> None:
        self.kin, self.at = kin, home
        self.pieces: list[Piece] = []
        self.n_moves = 0
        self._travel_mm_s = cell.motion.travel_speed_mm_s
        self._lift_mm = cell.motion.travel_lift_mm
        turns = np.array([a.speed for a in cell.motion.machine_axes[3:]])
        self._mm_per_deg = self._travel_mm_s / (turns * cell.motion.speed_share)
        centre, size = np.array(cell.substrate.center_mm), np.array(cell.substrate.size_mm)
        top = cell.substrate.top_mm
        corners = [centre + size * [x, y] / 2 for x in (-1, 1) for y in (-1, 1)]
        self._solid = np.array([[*c, top] for c in corners])

    def grow(self, points: Floats) -> None:
        """Something solid was added: its box, in the part's frame."""
        low, high = points.min(0), points.max(0)
        pick = np.array([[i & 1, (i >> 1) & 1, i >> 2] for i in range(8)], dtype=bool)
        self._solid = np.concatenate([self._solid, np.where(pick, high, low)])
        if len(self._solid) > 200:  # one box instead of many
            solid, self._solid = self._solid[4:], self._solid[:4]
            self.grow(solid)

    def to(self, axes: Floats) -> int:
        """Straight in the axes; the number of moves made (0 or 1)."""
        way = axes - self.at
        length = math.sqrt(float((way[:3] ** 2).sum() + ((way[3:] * self._mm_per_deg) ** 2).sum()))
        if length <= LEAST_MOVE_MM:
            return 0
        self.add(straight(self.at, axes, length, self.kin))
        return 1

    def over(self, axes: Floats) -> int:
        """Lift, turn and go over above everything solid, come down; moves made."""
        clear = self._clear_mm(self.at[3:], axes[3:]) + self._lift_mm
        up, there = self.at.copy(), axes.copy()
        up[2] = there[2] = max(clear, float(self.at[2]), float(axes[2]))
        return self.to(up) + self.to(there) + self.to(axes)

    def lift(self) -> int:
        """At the end: above everything solid as it stands."""
        up = self.at.copy()
        up[2] = max(self._clear_mm(up[3:], up[3:]), float(up[2])) + self._lift_mm
        return self.to(up)

    def add(self, piece: Piece) -> None:
        """Append a piece that begins where the axes stand."""
        self.pieces.append(piece)
        self.n_moves += len(piece.corner_s_mm) - 1
        self.at = piece.axes[-1].copy()

    def _clear_mm(self, from_deg: Floats, to_deg: Floats) -> float:
        """Greatest height of what is solid while the tables turn."""
        share = np.linspace(0.0, 1.0, TURN_STEPS + 1)[:, None]
        turns = np.radians(from_deg + (to_deg - from_deg) * share)
        n = len(self._solid)
        tips = np.tile(self._solid, (len(turns), 1))
        angles = np.repeat(turns, n, axis=0)
        zero = np.zeros_like(tips)
        placed, _ = self.kin.place(tips, zero, angles, np.zeros_like(angles))
        return float(placed[:, 2].max())

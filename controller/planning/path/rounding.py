"""Rounded corners: a path of straight moves and arcs as a curve without kinks.

At the corner of two straight moves an arc touches both within half of their lengths, and
leaves the corner by the path tolerance at most. On a curve in short chords the arcs touch each
other in the chords' middles, and their curvature is the curve's own: turn over chord length.
Reversals stay sharp, and so do corners between a line and an arc that do not meet in tangents.
"""

from dataclasses import dataclass

import numpy as np

from controller import _curve
from controller.planning.path.arcs import Arcs, move_tangents

STRAIGHT_MM = 1e60  # the kernels' radius of a straight piece
LEAST_MOVE_MM = 1e-9  # shorter moves are none
PIECE_RAD = 0.05  # an arc is planned in pieces that turn by this much at most
# tangents of arcs from files of 1 um differ by this: no stop, taken as a corner that is rounded
KINK_RAD = 2e-3


@dataclass(frozen=True)
class RoundedCurve:
    """Straight moves with arcs at their corners, and moves that are arcs.

    ``corner_mm`` are the corners that the arcs belong to: those of the path without moves of
    no length, and the ends of the pieces that arc moves were planned in.
    """

    points_mm: np.ndarray  # (n + 1, 3)
    move_s_mm: np.ndarray  # (n + 1,)
    corner_mm: np.ndarray  # (m + 1, 3)
    corner_s_mm: np.ndarray  # (m + 1,)
    radius_mm: np.ndarray  # (m + 1,): 0: sharp
    half_mm: np.ndarray  # (m + 1,): half of the arc's length
    arcs: Arcs  # ``move`` counts the moves of ``points_mm``

    def tip_at(self, s_mm: np.ndarray) -> np.ndarray:
        """Places at sorted path lengths, (k, 3) mm."""
        s = np.atleast_1d(np.asarray(s_mm, dtype=np.float64))
        out = _curve.places(self.corner_mm, self.radius_mm, self.half_mm, self.corner_s_mm, s)
        if len(self.arcs.move):
            start = self.move_s_mm[self.arcs.move]
            end = self.move_s_mm[self.arcs.move + 1]
            which = np.searchsorted(start, s, side="right") - 1
            on = np.flatnonzero((which >= 0) & (s <= end[which]))
            which = which[on]
            angle = (s[on] - start[which]) / self.arcs.radius_mm[which]
            # sums of lengths carry rounding: never past the end
            out[on] = self.arcs.place(which, np.minimum(angle, self.arcs.angle[which]))
        return out

    def axes_at(self, s_mm: np.ndarray) -> np.ndarray:
        """As ``tip_at``: three linear axes."""
        return self.tip_at(s_mm)

    @property
    def deviation_mm(self) -> float:
        """Greatest distance of a corner of the path from the curve."""
        turned = self.half_mm > 0.0
        half, radius = self.half_mm[turned], self.radius_mm[turned]
        x = half / radius  # half of the turn
        return float((radius * 2.0 * np.sin(0.5 * x) ** 2 / np.cos(x)).max(initial=0.0))


@dataclass(frozen=True)
class RoundedPath:
    """What the friction-circle kernel plans on."""

    curve: RoundedCurve
    move: np.ndarray  # (m,) move of the path that each piece belongs to
    rounding: tuple[np.ndarray, np.ndarray, np.ndarray]  # radius, half (m + 1,), middle (m,)
    bend_mm: np.ndarray | None  # (m,) radius of arc pieces; None: there are none
    normal: np.ndarray | None  # (m, 3) normal of an arc piece's plane, zeros for straight ones


def moves_with_length(points_mm: np.ndarray, arcs: Arcs) -> np.ndarray:
    """(n,) bool. Raises ValueError for points that are not finite."""
    finite = np.isfinite(points_mm).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise ValueError(f"points_mm {points_mm[bad].tolist()} at index {bad}: not a finite length")
    keep = (np.diff(points_mm, axis=0) ** 2).sum(axis=1) > LEAST_MOVE_MM**2
    keep[arcs.move] = True
    return keep


def round_path(
    points_mm: np.ndarray,
    tolerance_mm: float,
    through_mm: np.ndarray | None = None,
    enough_mm: float = 1e12,
) -> RoundedPath:
    """Round the corners of a path; parameters as of ``laws.plan_profile``.

    No rounding arc gets a radius above ``enough_mm``. Raises ValueError for NaN, infinity, and
    for a path without length.
    """
    points = np.ascontiguousarray(points_mm, dtype=np.float64)
    arcs = Arcs.of(points, through_mm)
    keep = moves_with_length(points, arcs)
    move = np.flatnonzero(keep)
    if len(move) == 0:
        raise ValueError(f"the path has no length: {len(points) - 1} moves, all of 0 mm")
    if len(move) == len(keep) and not len(arcs.move):
        rounding = _curve.round_corners(points, tolerance_mm, None, enough_mm)
        s = _corner_s(rounding)
        curve = RoundedCurve(points, s, points, s, rounding[0], rounding[1], arcs)
        return RoundedPath(curve, move, rounding, None, None)
    corner = np.concatenate([points[move], points[-1:]])
    if not len(arcs.move):
        rounding = _curve.round_corners(corner, tolerance_mm, None, enough_mm)
        bend = normal = None
    else:
        corner, move, rounding, bend, normal = _with_arcs(
            points, corner, move, arcs, tolerance_mm, enough_mm
        )
    s = _corner_s(rounding)
    # a move's start: that of its first piece; without length, the end of what came before
    at = np.searchsorted(move, np.arange(len(keep) + 1))
    curve = RoundedCurve(points, s[at], corner, s, rounding[0], rounding[1], arcs)
    return RoundedPath(curve, move, rounding, bend, normal)


def _corner_s(rounding: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Path length in the middle of each corner's arc; summed as the kernel sums."""
    _, half, middle = rounding
    s = np.zeros(len(half))
    np.cumsum(half[:-1] + middle + half[1:], out=s[1:])
    return s


def _with_arcs(
    points: np.ndarray, corner: np.ndarray, move: np.ndarray, arcs: Arcs, tolerance_mm: float,
    enough_mm: float,
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray,
           np.ndarray]:  # fmt: skip
    """Arc moves cut into pieces, with corners that need no rounding between them."""
    is_arc = np.full(len(points) - 1, -1)
    is_arc[arcs.move] = np.arange(len(arcs.move))
    which = is_arc[move]  # arc of each kept move, -1: straight
    on_arc = which >= 0
    count = np.ones(len(move), dtype=np.int64)
    # two at least, so that an arc between two stops can be travelled
    count[on_arc] = np.maximum(np.ceil(arcs.angle / PIECE_RAD), 2).astype(np.int64)
    first = np.cumsum(count) - count  # first piece of each kept move
    owner = np.repeat(np.arange(len(move)), count)
    part = np.arange(len(owner)) - first[owner]
    places = corner[owner]
    inner = np.flatnonzero(part > 0)
    arc = which[owner[inner]]
    places[inner] = arcs.place(arc, arcs.angle[arc] * part[inner] / count[owner[inner]])
    places = np.concatenate([places, corner[-1:]])

    piece_arc = on_arc[owner]
    fixed = np.zeros(len(places), dtype=np.uint8)
    fixed[:-1] |= piece_arc
    fixed[1:] |= piece_arc
    radius, half, middle = _curve.round_corners(places, tolerance_mm, fixed, enough_mm)
    arc = which[owner[piece_arc]]
    middle[piece_arc] = arcs.length_mm[arc] / count[owner[piece_arc]]
    bend = np.full(len(owner), STRAIGHT_MM)
    bend[piece_arc] = arcs.radius_mm[arc]
    normal = np.zeros((len(owner), 3))
    normal[piece_arc] = arcs.normal[arc]

    # joints of moves of which one is an arc: what turn is left between the tangents
    length, t_in, t_out = move_tangents(points, arcs)
    joint = np.flatnonzero(on_arc[1:] | on_arc[:-1]) + 1
    before, after = move[joint - 1], move[joint]
    away = np.linalg.norm(t_in[after] - t_out[before], axis=1)
    turn = 2.0 * np.arcsin(np.minimum(0.5 * away, 1.0))
    touch = np.minimum(
        0.5 * np.minimum(length[before], length[after]),
        tolerance_mm / np.tan(np.maximum(0.25 * turn, 1e-12)),
    )
    bent = touch / np.tan(np.maximum(0.5 * turn, 1e-12))
    radius[first[joint]] = np.where(turn <= KINK_RAD, bent, 0.0)
    return places, move[owner], (radius, half, middle), bend, normal

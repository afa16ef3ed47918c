"""Arcs kept as arcs: a move through a middle point is part of a circle in space."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from controller.errors import PlanError

# an arc that leaves its chord by less is straight: a thousandth of a motor step
LEAST_SAGITTA_MM = 1e-6


@dataclass(frozen=True)
class Arcs:
    """Circular moves of a path, k of them, in the path's order.

    The place at angle t in 0 to ``angle`` is centre + radius (out cos t + along sin t).
    """

    move: np.ndarray  # (k,) int64: which move
    centre_mm: np.ndarray  # (k, 3)
    radius_mm: np.ndarray  # (k,)
    out: np.ndarray  # (k, 3) unit, from the centre to the start
    along: np.ndarray  # (k, 3) unit, tangent at the start
    angle: np.ndarray  # (k,) rad, above 0, below 2 pi

    @classmethod
    def of(cls, points_mm: np.ndarray, through_mm: np.ndarray | None) -> "Arcs":
        """Circles through start, middle point and end of each move that has one.

        ``points_mm`` (n + 1, 3), ``through_mm`` (n, 3) with rows of NaN for straight moves, or
        None. Middle points on the chord make a straight move. Raises ValueError, with the
        move's index, for a middle point that is not finite, start and end in one place, and a
        middle point on the chord's line but outside it.
        """
        n = len(points_mm) - 1
        rows = np.full((n, 3), np.nan) if through_mm is None else np.asarray(through_mm, float)
        if rows.shape != (n, 3):
            raise ValueError(f"through_mm has shape {rows.shape}, needed ({n}, 3)")
        move = np.flatnonzero(~np.isnan(rows).all(axis=1))
        start, end = points_mm[move], points_mm[move + 1]
        a, b = rows[move] - start, end - start
        _refuse(move, ~np.isfinite(rows[move]).all(axis=1), rows, "is not finite")
        chord = np.linalg.norm(b, axis=1)
        _refuse(move, chord == 0.0, rows, "on a move that ends where it starts: no plane")
        normal = np.cross(a, b)
        twice = np.linalg.norm(normal, axis=1)
        share = np.einsum("ij,ij->i", a, b) / chord**2
        flat = (twice <= LEAST_SAGITTA_MM * chord) | (twice <= 1e-12 * chord**2)
        _refuse(
            move, flat & ((share < 0.0) | (share > 1.0)), rows, "on the chord's line outside it"
        )
        keep = ~flat
        move, a, b, start, end = move[keep], a[keep], b[keep], start[keep], end[keep]
        normal, twice = normal[keep], twice[keep, None]
        a2, b2 = (a * a).sum(axis=1, keepdims=True), (b * b).sum(axis=1, keepdims=True)
        to_centre = np.cross(a2 * b - b2 * a, normal) / (2.0 * twice**2)
        radius = np.linalg.norm(to_centre, axis=1)
        out = -to_centre / np.maximum(radius, 1e-30)[:, None]
        along = np.cross(normal / twice, out)
        centre = start + to_centre
        angle = np.arctan2(
            np.einsum("ij,ij->i", end - centre, along), np.einsum("ij,ij->i", end - centre, out)
        )
        return cls(move, centre, radius, out, along, np.where(angle <= 0, angle + 2 * np.pi, angle))

    @property
    def length_mm(self) -> np.ndarray:
        """(k,) mm"""
        return self.radius_mm * self.angle

    @property
    def normal(self) -> np.ndarray:
        """(k, 3) unit, of the circles' planes."""
        return np.cross(self.out, self.along)

    def place(self, which: np.ndarray, angle: np.ndarray) -> np.ndarray:
        """Places (m, 3) mm on arcs ``which`` (m,) at angles from their starts."""
        cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
        turned = self.out[which] * cosine + self.along[which] * sine
        return self.centre_mm[which] + self.radius_mm[which][:, None] * turned

    def tangents(self) -> tuple[np.ndarray, np.ndarray]:
        """Unit tangents at the starts and at the ends, (k, 3) each."""
        cosine, sine = np.cos(self.angle)[:, None], np.sin(self.angle)[:, None]
        return self.along, self.along * cosine - self.out * sine

    def extent_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest coordinates reached inside the arcs, (k, 3) mm each."""
        every = np.arange(len(self.move))
        ends = np.stack([self.place(every, 0.0 * self.angle), self.place(every, self.angle)])
        low, high = ends.min(axis=0), ends.max(axis=0)
        reach = self.radius_mm[:, None] * np.hypot(self.out, self.along)
        for sign, bound in ((1.0, high), (-1.0, low)):
            top = np.arctan2(sign * self.along, sign * self.out) % (2.0 * np.pi)
            inside = top < self.angle[:, None]
            bound[inside] = (self.centre_mm + sign * reach)[inside]
        return low, high


def _refuse(move: np.ndarray, bad: np.ndarray, rows: np.ndarray, why: str) -> None:
    if bad.any():
        i = int(move[np.argmax(bad)])
        raise ValueError(f"through_mm {rows[i].tolist()} at index {i}: {why}")


def move_tangents(points_mm: np.ndarray, arcs: Arcs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Length (n,) mm and unit tangents (n, 3) at start and end of each move; zeros without
    length."""
    chord = np.diff(points_mm, axis=0)
    length = np.linalg.norm(chord, axis=1)
    first = chord / np.where(length > 0.0, length, 1.0)[:, None]
    last = first.copy()
    first[arcs.move], last[arcs.move] = arcs.tangents()
    length[arcs.move] = arcs.length_mm
    return length, first, last


@dataclass(frozen=True)
class BeadPiece:
    """Part of a bead between two reversals, without moves of no length."""

    points_mm: np.ndarray  # (m + 1, 3)
    through_mm: np.ndarray | None  # (m, 3)
    first: np.ndarray  # (3,) unit tangent at its start
    last: np.ndarray  # (3,) and at its end

    @property
    def top_mm(self) -> float:
        """Greatest z of the piece."""
        top = float(self.points_mm[:, 2].max())
        if self.through_mm is None:
            return top
        return float(Arcs.of(self.points_mm, self.through_mm).extent_mm()[1][:, 2].max(initial=top))


def arc_pieces(
    points_mm: np.ndarray,
    through_mm: np.ndarray,
    where: str,
    least_mm: float,
    reversal_cos: float,
) -> list[BeadPiece]:
    """A track with arcs, cut at its reversals.

    Straight moves whose ends are nearer than ``least_mm`` in every axis are left out; a corner
    is a reversal when the cosine between its tangents is below ``reversal_cos``. Raises
    PlanError that begins with ``where``.
    """
    points = np.asarray(points_mm, dtype=np.float64)
    through = np.asarray(through_mm, dtype=np.float64)
    if through.shape != (len(points) - 1, 3):
        raise PlanError(
            f"{where}: through_mm of shape {through.shape}, needed ({len(points) - 1}, 3) in mm"
        )
    kept = [0]
    for i in range(1, len(points)):
        far = np.abs(points[i] - points[kept[-1]]).max() > least_mm
        if far or not np.isnan(through[i - 1]).all():
            kept.append(i)
    if len(kept) < 2:
        raise PlanError(f"{where}: the bead has no length (all points within {least_mm} mm)")
    points, through = points[kept], through[np.array(kept[1:]) - 1]
    try:
        arcs = Arcs.of(points, through)
    except ValueError as exc:
        raise PlanError(f"{where}: {exc}") from None
    _, first, last = move_tangents(points, arcs)
    cosine = np.einsum("ij,ij->i", first[1:], last[:-1])
    cuts = [0, *(int(i) + 1 for i in np.flatnonzero(cosine < reversal_cos)), len(points) - 1]
    return [
        BeadPiece(points[a : b + 1], through[a:b], first[a], last[b - 1]) for a, b in pairwise(cuts)
    ]

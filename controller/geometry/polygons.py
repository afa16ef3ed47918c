"""Plane polygons: union, offset, difference by pyclipr (Clipper2), and who holds which hole.

A ring is (n, 2) float64 in mm without a repeated last point; outer rings run
counter-clockwise, holes clockwise. Clipper works on integers: SCALE makes them nanometres,
so that rounding changes no section by more than 1e-6 of its area.
"""

import numpy as np
import pyclipr

from controller.model import Region

SCALE = 1e6
ARC_MM = 0.002  # chord error of rounded corners

Rings = list[np.ndarray]


def ring_area(ring: np.ndarray) -> float:
    """Signed area, mm²: positive counter-clockwise."""
    x = ring[1:, 0] - ring[0, 0]  # about the first point, which then adds nothing
    y = ring[1:, 1] - ring[0, 1]
    return float(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:])) * 0.5


def rings_area(rings: Rings) -> float:
    """Signed area of a set of rings, mm²."""
    return sum(ring_area(r) for r in rings)


def length(points: np.ndarray, *, closed: bool = False) -> float:
    """Length of a polyline (n, 2 or 3), mm."""
    if len(points) < 2:
        return 0.0
    total = float(np.sqrt((np.diff(points, axis=0) ** 2).sum(1)).sum())
    return total + (float(np.linalg.norm(points[0] - points[-1])) if closed else 0.0)


def union(rings: Rings) -> Rings:
    """Where the rings wind at least once counter-clockwise.

    Overlapping solids become one, a stray inner surface adds nothing, a cavity stays one; a
    fold where a surface cuts itself winds the other way and adds nothing either. (``repair``
    has turned every body outside out, so for sound parts this is the non-zero union.)
    """
    usable = [r for r in rings if len(r) >= 3]
    if not usable:
        return []
    clipper = pyclipr.Clipper()
    clipper.scaleFactor = SCALE
    clipper.addPaths(usable, pyclipr.Subject, False)
    return _tidy(clipper.execute(pyclipr.Union, pyclipr.FillRule.Positive))


def difference(rings: Rings, minus: Rings) -> Rings:
    """Area of ``rings`` outside of ``minus``."""
    if not rings or not minus:
        return list(rings)
    clipper = pyclipr.Clipper()
    clipper.scaleFactor = SCALE
    clipper.addPaths(rings, pyclipr.Subject, False)
    clipper.addPaths(minus, pyclipr.Clip, False)
    return _tidy(clipper.execute(pyclipr.Difference, pyclipr.FillRule.NonZero))


def offset(rings: Rings, delta_mm: float) -> Rings:
    """Grow (delta > 0) or shrink by a distance, corners rounded: every new point is exactly
    ``delta`` away from the old boundary."""
    if not rings:
        return []
    if delta_mm == 0:
        return list(rings)
    worker = pyclipr.ClipperOffset()
    worker.scaleFactor = SCALE
    worker.arcTolerance = ARC_MM * SCALE
    worker.addPaths(rings, pyclipr.JoinType.Round, pyclipr.EndType.Polygon)
    return _tidy(worker.execute(delta_mm))


def _tidy(paths: list[np.ndarray]) -> Rings:
    """Without slivers, each ring turned to begin at its least point, rings sorted: the
    library's own order is no contract and the same part must give the same bytes."""
    out = []
    for path in paths:
        if len(path) < 3:
            continue
        ring = np.asarray(path, np.float64)[:, :2]
        if abs(ring_area(ring)) < 1e-6:
            continue
        least = np.flatnonzero(ring[:, 0] == ring[:, 0].min())
        first = int(least[ring[least, 1].argmin()])
        out.append(np.ascontiguousarray(np.concatenate([ring[first:], ring[:first]])))
    out.sort(key=lambda r: (r[0, 0], r[0, 1], len(r)))
    return out


def contains(ring: np.ndarray, point: np.ndarray) -> bool:
    """Point inside a ring (even-odd; a point on the border may go either way)."""
    x, y = ring[:, 0], ring[:, 1]
    x2, y2 = np.roll(x, -1), np.roll(y, -1)
    crosses = (y > point[1]) != (y2 > point[1])
    if not crosses.any():
        return False
    at = x[crosses] + (point[1] - y[crosses]) / (y2[crosses] - y[crosses]) * (
        x2[crosses] - x[crosses]
    )
    return bool(np.count_nonzero(at > point[0]) % 2)


def to_regions(rings: Rings) -> tuple[Region, ...]:
    """Outer rings with the holes that lie in them, in the order of the outer rings.

    ``rings`` come from a union: they do not cross, so a hole belongs to the smallest outer
    ring around one of its points.
    """
    areas = [ring_area(r) for r in rings]
    outers = [i for i, a in enumerate(areas) if a > 0]
    if len(outers) == 1:
        holes = tuple(r for r, a in zip(rings, areas, strict=True) if a < 0)
        return (Region(rings[outers[0]], holes),)
    held: dict[int, list[np.ndarray]] = {i: [] for i in outers}
    boxes = {i: (rings[i].min(0), rings[i].max(0)) for i in outers}
    for ring, area in zip(rings, areas, strict=True):
        if area >= 0:
            continue
        middle = (ring[0] + ring[1]) * 0.5  # a corner may touch the outer ring
        around = [
            i
            for i in outers
            if (boxes[i][0] <= middle).all()
            and (middle <= boxes[i][1]).all()
            and areas[i] >= -area
            and contains(rings[i], middle)
        ]
        if around:
            held[min(around, key=lambda i: areas[i])].append(ring)
    return tuple(Region(rings[i], tuple(held[i])) for i in outers)


def region_rings(region: Region) -> Rings:
    """Outer ring and holes as one list."""
    return [region.outer_mm, *region.holes_mm]


def region_area(region: Region) -> float:
    """Area of a region, mm²."""
    return rings_area(region_rings(region))


def pack(rings: Rings) -> tuple[np.ndarray, np.ndarray]:
    """Rings as one (n, 2) array and (r + 1,) int64 starts, for the kernels."""
    start = np.zeros(len(rings) + 1, np.int64)
    if rings:
        start[1:] = np.cumsum([len(r) for r in rings])
        return np.ascontiguousarray(np.vstack(rings)), start
    return np.empty((0, 2)), start

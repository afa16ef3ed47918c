"""Mid lines of thin areas: where two contours do not fit, one bead runs down the middle.

The mid line is the chordal axis (Prasad 1997): the area is triangulated (constrained
Delaunay, own kernels), the middles of the inner edges are its points, triangles with three
inner edges are its forks. It needs only the triangulation's topology, so it neither breaks
on noise nor leaves the area. Spurs into corners (shorter than the wall is thick) are cut.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from controller.geometry import _slice, _triangulate
from controller.geometry.polygons import Rings, contains, length, region_rings
from controller.model import Region

_STEP_SHARE = 0.2  # boundary points at most this share of a bead apart
_FAR = 1e9


@dataclass
class _Branch:
    nodes: list[int]  # from fork or end to fork or end
    length_mm: float


def mid_lines(area: Region, width_mm: float, whole: Rings) -> list[np.ndarray]:
    """Polylines (n, 2) down the middle of a thin area.

    width_mm : of the bead; free ends stop half of it before the wall's end
    whole : rings of the section that the area is part of: an end at the border to a thicker
            part runs on to that border
    A closed line repeats its first point.
    """
    points, triangles, neighbours = triangulate(area, _STEP_SHARE * width_mm)
    if len(triangles) == 0:
        return []
    place, half, links = _axis_graph(points, triangles, neighbours)
    _prune(half, links)
    lines = _paths(place, links)
    rings = region_rings(area)
    out = []
    for nodes in lines:
        closed = nodes[0] == nodes[-1]
        ends = [len(links[nodes[0]]) == 1, len(links[nodes[-1]]) == 1]
        if not closed:
            nodes, ends = _cut_tips(nodes, ends, half, width_mm / 4)
        line = place[nodes]
        if len(line) < 2:
            continue
        if not closed:
            line = _fit_ends(line, ends, width_mm, rings, whole)
        if len(line) >= 2:
            out.append(line)
    return out


def _cut_tips(
    nodes: list[int], ends: list[bool], half: np.ndarray, least_mm: float
) -> tuple[list[int], list[bool]]:
    """Cut free ends back to where the wall is half a bead thick, so that a wedge's bead does
    not run out over its tip. A wall that is thinner all along keeps its length."""
    wide = np.flatnonzero(half[nodes] >= least_mm)
    if len(wide) == 0:
        return nodes, ends
    first = int(wide[0]) if ends[0] else 0
    last = int(wide[-1]) if ends[1] else len(nodes) - 1
    return nodes[first : last + 1], [ends[0] and first == 0, ends[1] and last == len(nodes) - 1]


def resample(ring: np.ndarray, step_mm: float) -> np.ndarray:
    """A ring with points added so that none is farther than ``step_mm`` from the next."""
    after = np.roll(ring, -1, 0)
    run = np.sqrt(((after - ring) ** 2).sum(1))
    parts = np.maximum(1, np.ceil(run / step_mm).astype(np.int64))
    index = np.repeat(np.arange(len(ring)), parts)
    offset = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    share = (offset / parts[index])[:, None]
    return np.asarray(ring[index] * (1 - share) + after[index] * share)


def triangulate(area: Region, step_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Constrained Delaunay triangles of a region.

    Returns points (n, 2), triangles (t, 3) int32, neighbours (t, 3) int32 (< 0: the border).
    """
    rings = [
        resample(_slice.simplify_ring(np.ascontiguousarray(r), 0.01, True), step_mm)
        for r in region_rings(area)
    ]
    rings = [r for r in rings if len(r) >= 3]
    points = np.ascontiguousarray(np.vstack(rings))
    fixed: list[np.ndarray] = []
    at = 0
    for ring in rings:
        own = np.arange(at, at + len(ring), dtype=np.int32)
        fixed.append(np.column_stack([own, np.roll(own, -1)]))
        at += len(ring)
    triangles = fill_polygon(rings)
    neighbours = _triangulate.flip_to_delaunay(
        points, triangles, np.ascontiguousarray(np.vstack(fixed), np.int32)
    )
    return points, triangles, neighbours


def fill_polygon(rings: Rings) -> np.ndarray:
    """Triangles (t, 3) int32 of an outer ring (counter-clockwise) with holes (clockwise).

    Ids count through the rings' points in turn.
    """
    points = np.ascontiguousarray(np.vstack(rings), np.float64)
    start = np.cumsum([0, *map(len, rings)])
    ids = [np.arange(a, b, dtype=np.int32) for a, b in pairwise(start.tolist())]
    polygon = ids[0]
    for hole in sorted(ids[1:], key=lambda h: -float(points[h, 0].max())):
        polygon = _bridge(points, polygon, hole)
    return np.asarray(_triangulate.ear_clip(points, np.ascontiguousarray(polygon, np.int32)))


def _bridge(points: np.ndarray, polygon: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Join a hole to the polygon around it by a slit to the nearest corner that it sees.

    From the hole's rightmost point: holes are taken from the right, so nothing that is not
    yet joined can lie in between when the polygon's corner is not left of it.
    """
    k = int(points[hole, 0].argmax())
    origin = points[hole[k]]
    corners = points[polygon]
    right = corners[:, 0] >= origin[0]
    distance = np.where(right, ((corners - origin) ** 2).sum(1), _FAR)
    a, b = corners, np.roll(corners, -1, 0)
    chosen = int(distance.argmin())
    for candidate in np.argsort(distance, kind="stable")[:200].tolist():
        if _sees(origin, corners[candidate], a, b) and _opens_to(corners, candidate, origin):
            chosen = candidate
            break
    turned = np.concatenate([hole[k:], hole[: k + 1]])
    return np.concatenate([polygon[: chosen + 1], turned, polygon[chosen:]])


def _sees(p: np.ndarray, q: np.ndarray, a: np.ndarray, b: np.ndarray) -> bool:
    """No edge a-b properly crosses p-q."""

    def side(u: np.ndarray, v: np.ndarray, w: np.ndarray) -> np.ndarray:
        return (v[..., 0] - u[..., 0]) * (w[..., 1] - u[..., 1]) - (v[..., 1] - u[..., 1]) * (
            w[..., 0] - u[..., 0]
        )

    pa, pb = side(p, q, a), side(p, q, b)
    ap, aq = side(a, b, p), side(a, b, q)
    touches = ((a == q).all(1)) | ((b == q).all(1))
    return not bool(((pa * pb <= 0) & (ap * aq <= 0) & ~touches).any())


def _opens_to(corners: np.ndarray, i: int, p: np.ndarray) -> bool:
    """Point p lies in the polygon's corner i (matters where slits repeat a corner)."""
    q = corners[i]
    before, after = corners[i - 1], corners[(i + 1) % len(corners)]

    def cross(u: np.ndarray, v: np.ndarray) -> float:
        return float(u[0] * v[1] - u[1] * v[0])

    left_of_in = cross(q - before, p - before) >= 0
    left_of_out = cross(after - q, p - q) >= 0
    convex = cross(q - before, after - q) >= 0
    return (left_of_in and left_of_out) if convex else (left_of_in or left_of_out)


def _axis_graph(
    points: np.ndarray, triangles: np.ndarray, neighbours: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[int, dict[int, float]]]:
    """Places (n, 2), half widths (n,) and links {node: {node: mm}} of the chordal axis."""
    node_of: dict[tuple[int, int], int] = {}
    place: list[np.ndarray] = []
    half: list[float] = []
    links: dict[int, dict[int, float]] = {}

    def add(at: np.ndarray, r: float) -> int:
        place.append(at)
        half.append(r)
        links[len(place) - 1] = {}
        return len(place) - 1

    def join(u: int, v: int) -> None:
        run = math.dist(place[u], place[v])
        links[u][v] = run
        links[v][u] = run

    for t in range(len(triangles)):
        inner: list[int] = []
        for j in range(3):
            if neighbours[t, j] < 0:
                continue
            a, b = int(triangles[t, j]), int(triangles[t, (j + 1) % 3])
            key = (a, b) if a < b else (b, a)
            if key not in node_of:
                node_of[key] = add(
                    (points[a] + points[b]) / 2, float(math.dist(points[a], points[b])) / 2
                )
            inner.append(node_of[key])
        if len(inner) == 2:
            join(inner[0], inner[1])
        elif len(inner) == 3:
            fork = add(points[triangles[t]].mean(0), max(half[i] for i in inner))
            for i in inner:
                join(fork, i)
    return np.array(place).reshape(-1, 2), np.array(half), links


def _branches(links: dict[int, dict[int, float]]) -> list[_Branch]:
    """Runs between nodes that are no mere points of a line; closed runs last."""
    special = [n for n in sorted(links) if len(links[n]) not in (0, 2)]
    seen: set[tuple[int, int]] = set()
    out: list[_Branch] = []
    for origin in special + sorted(n for n in links if len(links[n]) == 2):
        for first in sorted(links[origin]):
            if (origin, first) in seen:
                continue
            nodes = [origin, first]
            seen.update([(origin, first), (first, origin)])
            total = links[origin][first]
            while len(links[nodes[-1]]) == 2 and nodes[-1] != origin:
                a, b = sorted(links[nodes[-1]])
                step = b if a == nodes[-2] else a
                if (nodes[-1], step) in seen:
                    break
                total += links[nodes[-1]][step]
                seen.update([(nodes[-1], step), (step, nodes[-1])])
                nodes.append(step)
            out.append(_Branch(nodes, total))
    return out


def _prune(half: np.ndarray, links: dict[int, dict[int, float]]) -> None:
    """Cut spurs: end branches no longer than the wall is half thick
    (a corner's bisector is 1.41 half thicknesses long)."""
    while True:
        spurs: dict[int, list[tuple[float, list[int]]]] = {}
        for branch in _branches(links):
            ends = (branch.nodes[0], branch.nodes[-1])
            degrees = [len(links[e]) for e in ends]
            if 1 not in degrees or max(degrees) < 3:
                continue
            fork = ends[0] if degrees[0] > 1 else ends[1]
            if branch.length_mm <= 1.6 * half[fork]:
                spurs.setdefault(fork, []).append((branch.length_mm, branch.nodes))
        if not spurs:
            return
        for fork, found in spurs.items():
            # both corners of a square end go at once: one left alone would look like the wall
            cut = sorted(found)[:-1] if len(found) == len(links[fork]) else found
            for _, nodes in cut:
                for u, v in pairwise(nodes):
                    links[u].pop(v, None)
                    links[v].pop(u, None)


def _paths(place: np.ndarray, links: dict[int, dict[int, float]]) -> list[list[int]]:
    """Join branches across forks, straightest pairs first: few long beads."""
    branches = _branches(links)
    ends: dict[int, list[tuple[int, int]]] = {}
    for i, branch in enumerate(branches):
        if branch.nodes[0] == branch.nodes[-1]:
            continue
        ends.setdefault(branch.nodes[0], []).append((i, 0))
        ends.setdefault(branch.nodes[-1], []).append((i, -1))
    partner: dict[tuple[int, int], tuple[int, int]] = {}
    for node in sorted(ends):
        free = ends[node]
        pairs = []
        for p in range(len(free)):
            for q in range(p + 1, len(free)):
                if free[p][0] != free[q][0]:
                    u = _heading(place, branches[free[p][0]].nodes, free[p][1])
                    v = _heading(place, branches[free[q][0]].nodes, free[q][1])
                    pairs.append((float(u @ v), free[p], free[q]))
        for bend, p_end, q_end in sorted(pairs):
            if bend < -0.3 and p_end not in partner and q_end not in partner:
                partner[p_end], partner[q_end] = q_end, p_end
    used = [False] * len(branches)
    out: list[list[int]] = []
    for loop in (False, True):
        for i, branch in enumerate(branches):
            for side in (0, -1):
                if used[i] or (not loop and (i, side) in partner):
                    continue
                used[i] = True
                path = list(branch.nodes if side == 0 else branch.nodes[::-1])
                tail = (i, -1 if side == 0 else 0)
                while tail in partner and not used[partner[tail][0]]:
                    j, entry = partner[tail]
                    used[j] = True
                    more = branches[j].nodes if entry == 0 else branches[j].nodes[::-1]
                    path += more[1:]
                    tail = (j, -1 if entry == 0 else 0)
                out.append(path)
    return out


def _heading(place: np.ndarray, nodes: list[int], side: int) -> np.ndarray:
    """Unit vector out of a branch's end, over a few points."""
    run = nodes if side == 0 else nodes[::-1]
    step = place[run[min(4, len(run) - 1)]] - place[run[0]]
    norm = float(np.linalg.norm(step))
    return step / norm if norm > 0 else step


def _fit_ends(
    line: np.ndarray, ends: list[bool], width_mm: float, rings: Rings, whole: Rings
) -> np.ndarray:
    """Let free ends stop half a bead before the wall's end, others at the thicker part."""
    for side in (0, 1):
        if not ends[side]:
            continue
        if side:
            line = line[::-1]
        back = line[min(3, len(line) - 1)]
        heading = line[0] - back
        norm = float(np.linalg.norm(heading))
        if norm > 0:
            heading = heading / norm
            reach = _ray(line[0], heading, rings)
            beyond = line[0] + heading * (reach + 0.05)
            inside = sum(contains(r, beyond) for r in whole) % 2 == 1
            stop = reach if inside else reach - width_mm / 2
            if stop >= 0:
                line = np.vstack([line[0] + heading * stop, line])
            else:
                line = _shorten(line, -stop)
        if side:
            line = line[::-1]
        if len(line) < 2:
            break
    return line


def _ray(p: np.ndarray, d: np.ndarray, rings: Rings) -> float:
    """Distance from p along unit vector d to the nearest ring."""
    nearest = _FAR
    for ring in rings:
        a = ring - p
        b = np.roll(ring, -1, 0) - p
        ca = d[0] * a[:, 1] - d[1] * a[:, 0]
        cb = d[0] * b[:, 1] - d[1] * b[:, 0]
        hit = (ca > 0) != (cb > 0)
        if not hit.any():
            continue
        share = ca[hit] / (ca[hit] - cb[hit])
        along = (a[hit] + share[:, None] * (b[hit] - a[hit])) @ d
        along = along[along > 1e-9]
        if len(along):
            nearest = min(nearest, float(along.min()))
    return nearest if nearest < _FAR else 0.0


def _shorten(line: np.ndarray, cut_mm: float) -> np.ndarray:
    """Without the first ``cut_mm`` of a line; empty when it is shorter."""
    if length(line) <= cut_mm:
        return line[:0]
    run = np.sqrt((np.diff(line, axis=0) ** 2).sum(1))
    total = np.cumsum(run)
    k = int(np.searchsorted(total, cut_mm, side="right"))
    before = total[k - 1] if k else 0.0
    share = (cut_mm - before) / run[k]
    return np.vstack([line[k] + (line[k + 1] - line[k]) * share, line[k + 1 :]])

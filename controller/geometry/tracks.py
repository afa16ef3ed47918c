"""From layers to tracks: contours, hatch and thin walls that deposit the section's volume.

The rule that everything here follows: a bead of section A in a layer of height h fills a
strip A / h of the layer, whatever its width looks like (``beads``). So

* the outermost contour runs half a bead inside the section (nothing sticks out) but *counts*
  for the first strip of it; inner contours run in the middle of their strips;
* the hatch fills what the contours' strips leave, so its outer lines overlap the contour;
* hatch lines lie on one grid per direction, moved from layer to layer by the golden ratio, so
  that the joints between beads never stand above each other. What an island of a layer gets
  too much or too little is carried to the island above it, which moves its grid and the edge
  of its hatch against it: a wall 2.3 lines thick gets 2, 2, 3, 2, 2, 3 ... lines;
* neighbouring lines are joined without changing their summed length (``_raster.zigzag``);
* an area too thin for two contours gets one THIN_WALL bead down its middle (``thin``).
"""

import math
from dataclasses import dataclass, field

import numpy as np

from controller.geometry import _raster, _slice
from controller.geometry.beads import Strips, bead_area_mm2
from controller.geometry.polygons import (
    Rings,
    difference,
    length,
    offset,
    pack,
    region_area,
    region_rings,
    rings_area,
    to_regions,
)
from controller.geometry.thin import mid_lines
from controller.model import LayerSlice, PartMesh, Region, Track, TrackKind
from controller.recipes import Recipe

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
PLAIN_MM = 0.005  # points of a track nearer than this to a straight line are left out
LINK_PITCHES = 2.3  # ends of neighbouring hatch lines farther apart are not joined


@dataclass
class _Island:
    """Tracks of one region, plane, in groups that are drawn one after the other."""

    middle: np.ndarray = field(default_factory=lambda: np.zeros(2))
    area_mm2: float = 0.0
    contours: list[np.ndarray] = field(default_factory=list)  # closed: first point repeated
    thin: list[np.ndarray] = field(default_factory=list)
    hatch: list[np.ndarray] = field(default_factory=list)
    carry_mm2: float = 0.0  # area that this and the layers below were given too little


def shortest_track_mm(recipe: Recipe, kind: TrackKind) -> float:
    """Open tracks shorter than this are not drawn.

    A hatch line shorter than a bead is a dot in the reach of the contour; what it would have
    laid is carried to the next layer. A thin wall is all there is: half a bead.
    """
    return recipe.bead.width_mm * (1.0 if kind == TrackKind.HATCH else 0.5)


def make_tracks(layers: list[LayerSlice], recipe: Recipe) -> list[Track]:
    """Tracks of all layers in the order in which they are built.

    In a layer the islands follow each other by the nearest end; in an island contours come
    first, then thin walls, then hatch. Points are (n, 3) with z = ``z_nozzle_mm``; a closed
    track repeats its first point, and its seam moves from layer to layer.
    """
    hang = _middle(layers)
    tracks: list[Track] = []
    here: np.ndarray | None = None
    below: list[_Island] = []
    for layer in layers:
        strips = Strips.of(recipe, layer.index)
        angle = math.fmod(layer.index * recipe.layers.hatch_angle_step_deg, 180.0)
        phase = math.fmod(layer.index * GOLDEN, 1.0)
        islands = [
            _fill(r, strips, recipe, _Grid(angle, phase, hang), below) for r in layer.regions
        ]
        below = list(islands)
        shells = _Island()
        for chain in layer.open_chains_mm:
            line = _plain_line(chain)
            if length(line) >= shortest_track_mm(recipe, TrackKind.THIN_WALL):
                shells.thin.append(line)
        if shells.thin:
            islands.append(shells)
        for kind, line in _in_order(islands, here, phase):
            here = line[-1]
            points = np.empty((len(line), 3))
            points[:, :2] = line
            points[:, 2] = layer.z_nozzle_mm
            tracks.append(Track(layer.index, kind, points))
    return tracks


def _middle(layers: list[LayerSlice]) -> np.ndarray:
    """Where the hatch grid is hung up: it moves and turns with the part."""
    rings = [r.outer_mm for s in layers for r in s.regions]
    if not rings:
        return np.zeros(2)
    low = np.min([r.min(0) for r in rings], axis=0)
    high = np.max([r.max(0) for r in rings], axis=0)
    return np.asarray((low + high) / 2)


@dataclass(frozen=True)
class _Grid:
    """Where hatch lines lie: direction, share of a pitch, a point the grid hangs on."""

    angle_deg: float
    phase: float
    hang: np.ndarray  # (2,)


def _carried(region: Region, area_mm2: float, below: list[_Island]) -> float:
    """What the island under this one was given too little, mm²: the one with the nearest
    middle, if that lies in this region's box. A narrower island takes its share only."""
    if not below:
        return 0.0
    low, high = region.outer_mm.min(0), region.outer_mm.max(0)
    middle = (low + high) / 2
    nearest = min(below, key=lambda i: float(((i.middle - middle) ** 2).sum()))
    inside = bool(((nearest.middle >= low) & (nearest.middle <= high)).all())
    return nearest.carry_mm2 * min(1.0, area_mm2 / nearest.area_mm2) if inside else 0.0


def _fill(
    region: Region, strips: Strips, recipe: Recipe, grid: _Grid, below: list[_Island]
) -> _Island:
    rings = region_rings(region)
    area = rings_area(rings)
    island = _Island((region.outer_mm.min(0) + region.outer_mm.max(0)) / 2, area)
    shortest = shortest_track_mm(recipe, TrackKind.THIN_WALL)
    half = strips.thin_below_mm / 2
    core = offset(rings, -half)  # where the middle of a disc as wide as the limit can be
    core = _without_knots(core, area, half, strips)
    thick = offset(core, half)
    if area - rings_area(thick) > strips.thin_mm * shortest:
        for piece in _thin_areas(rings, thick, strips, shortest):
            for line in mid_lines(piece, strips.width_mm, rings):
                line = _plain_line(line)
                if length(line) >= shortest:
                    island.thin.append(line)
    if not core and not island.thin:
        island.thin += _dot(region, strips)
    need = area + _carried(region, area, below) - strips.thin_mm * sum(map(length, island.thin))
    if core:
        fill = _contours(core, half, strips, recipe.layers.contours, island)
        need -= strips.contour_mm * sum(map(length, island.contours))
        fill = _fit_edge(fill, need, strips)
        shortest = shortest_track_mm(recipe, TrackKind.HATCH)
        need -= _best_hatch(island, fill, need, 0.01 * area, strips, grid, shortest)
    # one line of an island is the most that can be owed without being a fault of its shape
    island.carry_mm2 = min(max(need, -0.2 * area), 0.2 * area)
    return island


def _without_knots(core: Rings, area: float, half: float, strips: Strips) -> Rings:
    """Where thin walls meet a disc just fits that fits nowhere else: the walls' beads fill
    such a knot, a ring of contour in it would be too much."""
    pieces = to_regions(core)
    kept: Rings = []
    for piece in pieces:
        disc = offset(region_rings(piece), half)
        run = length(piece.outer_mm, closed=True) + math.tau * (half - strips.width_mm / 2)
        if run >= 2.0 * strips.width_mm or area < 2.0 * rings_area(disc):
            kept += region_rings(piece)
    return kept


def _contours(core: Rings, half: float, strips: Strips, n_contours: int, island: _Island) -> Rings:
    """Draw the contours; returns what is left for the hatch.

    ``core`` is the section shrunk by ``half``, where at least one contour fits.
    """
    width = strips.width_mm
    if n_contours == 0:
        return offset(core, half - width / 2)
    rest: Rings = []  # between contours that do not fit: left to the hatch
    fill, depth = core, half  # depth of ``fill`` below the section's edge
    for i in range(n_contours):
        run = width / 2
        if i > 0:
            # what contour i - 1 leaves; a part of it thinner than 1.5 strips takes one line
            limit = 0.75 * strips.contour_mm
            core = offset(fill, -limit)
            depth += limit
            rest += difference(fill, offset(core, limit))
            run = max(width / 2, (i + 0.5) * strips.contour_mm)
        island.contours += [_closed(_plain(r, True)) for r in offset(core, depth - run)]
        end = max((i + 1) * strips.contour_mm, width / 2)
        fill = offset(core, depth - end)
        depth = end
    return fill + rest


def _fit_edge(fill: Rings, need_mm2: float, strips: Strips) -> Rings:
    """Move the hatch's edge so that the hatch has the area that is still to be filled.

    The outermost contour is drawn deeper than the middle of its strip and is shorter there:
    about 2 pi (w - strip) / 2 an outline, some per cent of a blade's section.
    """
    edge = sum(length(r, closed=True) for r in fill)
    if edge == 0.0:
        return fill
    move = (need_mm2 - rings_area(fill)) / edge
    most = max(strips.contour_mm - strips.width_mm / 2, 0.0)  # not nearer to the section's edge
    move = min(max(move, -0.25 * strips.hatch_mm), most)
    return offset(fill, move) if abs(move) > 0.002 else fill


def _best_hatch(
    island: _Island,
    fill: Rings,
    need_mm2: float,
    tolerance_mm2: float,
    strips: Strips,
    grid: _Grid,
    shortest: float,
) -> float:
    """Give the island the hatch that fills ``need_mm2`` best; returns the area it fills."""
    best: list[np.ndarray] = []
    filled = 0.0
    for move in (0.0, 0.5, 0.25, 0.75):
        moved = _Grid(grid.angle_deg, math.fmod(grid.phase + move, 1.0), grid.hang)
        lines = _hatch(fill, strips, moved, shortest)
        got = strips.hatch_mm * sum(map(length, lines))
        if move == 0.0 or abs(need_mm2 - got) < abs(need_mm2 - filled):
            best, filled = lines, got
        if abs(need_mm2 - filled) <= tolerance_mm2:
            break
    island.hatch = best
    return filled


def _thin_areas(rings: Rings, thick: Rings, strips: Strips, shortest: float) -> list[Region]:
    """Parts of a section where a disc of the limit's size does not fit, corners left out."""
    seam = 0.02  # cuts the hair-thin rims that opening leaves along straight walls
    pieces = offset(offset(difference(rings, thick), -seam), seam)
    areas = []
    for piece in to_regions(pieces):
        size = region_area(piece)
        # a corner is as long as the disc's radius at most and narrows to nothing
        if size > strips.thin_mm * shortest:
            areas.append(piece)
    return areas


def _dot(region: Region, strips: Strips) -> list[np.ndarray]:
    """A short line for an island too small for anything else: along its longer side."""
    points = region.outer_mm
    middle = points.mean(0)
    _, _, axes = np.linalg.svd(points - middle, full_matrices=False)
    run = region_area(region) / strips.thin_mm
    if run < strips.width_mm / 8:
        return []
    return [np.array([middle - axes[0] * run / 2, middle + axes[0] * run / 2])]


def _hatch(rings: Rings, strips: Strips, grid: _Grid, shortest: float) -> list[np.ndarray]:
    if not rings:
        return []
    turn = _turn(grid.angle_deg)
    points, start = pack(rings)
    turned = np.ascontiguousarray((points - grid.hang) @ turn)  # by -angle: lines lie along x
    line, x0, x1 = _raster.scanlines(turned, start, strips.pitch_mm, grid.phase)
    if len(line) == 0:
        return []
    nxt = _raster.link_chords(line, x0, x1)
    drawn, begin = _raster.zigzag(
        line, x0, x1, nxt, strips.pitch_mm, grid.phase, LINK_PITCHES * strips.pitch_mm
    )
    back = drawn @ turn.T + grid.hang
    out = []
    for a, b in zip(begin[:-1].tolist(), begin[1:].tolist(), strict=True):
        track = back[a:b]
        if b - a >= 2 and length(track) >= shortest:
            out.append(_plain_line(track))
    return out


def _turn(angle_deg: float) -> np.ndarray:
    """(2, 2): row vectors times this are turned by -angle. Quarter turns are exact."""
    quarter, rest = divmod(angle_deg, 90.0)
    if rest == 0.0:
        c, s = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(quarter) % 4]
    else:
        c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return np.array([[c, -s], [s, c]])


def _plain(line: np.ndarray, closed: bool) -> np.ndarray:
    """Without points that a straight line replaces within PLAIN_MM."""
    return np.asarray(_slice.simplify_ring(np.ascontiguousarray(line), PLAIN_MM, closed))


def _plain_line(line: np.ndarray) -> np.ndarray:
    """A line, or a closed one that repeats its first point, simplified."""
    if len(line) > 3 and bool((line[0] == line[-1]).all()):
        return _closed(_plain(line[:-1], True))
    return _plain(line, False)


def _closed(ring: np.ndarray) -> np.ndarray:
    return np.vstack([ring, ring[:1]])


def _in_order(
    islands: list[_Island], here: np.ndarray | None, phase: float
) -> list[tuple[TrackKind, np.ndarray]]:
    """Islands by the nearest end, groups in an island in turn, tracks by the nearest end."""
    left = [i for i in islands if i.contours or i.thin or i.hatch]
    out: list[tuple[TrackKind, np.ndarray]] = []
    while left:
        chosen = 0
        if here is not None and len(left) > 1:
            chosen = int(np.argmin([_nearness(i, here) for i in left]))
        island = left.pop(chosen)
        for kind, group in (
            (TrackKind.CONTOUR, island.contours),
            (TrackKind.THIN_WALL, island.thin),
            (TrackKind.HATCH, island.hatch),
        ):
            for line in _chain(group, here, phase):
                out.append((kind, line))
                here = line[-1]
    return out


def _nearness(island: _Island, here: np.ndarray) -> float:
    first = island.contours or island.thin or island.hatch
    return min(float(((t[[0, -1]] - here) ** 2).sum(1).min()) for t in first)


def _chain(group: list[np.ndarray], here: np.ndarray | None, phase: float) -> list[np.ndarray]:
    """Tracks by the nearest end, open ones turned where their far end is nearer."""
    tracks = [_move_seam(t, phase) if bool((t[0] == t[-1]).all()) else t for t in group]
    if not tracks:
        return []
    ends = np.array([[t[0], t[-1]] for t in tracks])
    free = np.ones(len(tracks), bool)
    out: list[np.ndarray] = []
    at = ends[0, 0] if here is None else here
    for _ in range(len(tracks)):
        gap = ((ends - at) ** 2).sum(2)
        gap[~free] = np.inf
        i, side = divmod(int(gap.argmin()), 2)
        free[i] = False
        track = tracks[i][::-1] if side else tracks[i]
        out.append(track)
        at = track[-1]
    return out


def _move_seam(ring: np.ndarray, share: float) -> np.ndarray:
    """A closed track that begins at a share of its length: seams must not pile up."""
    run = np.sqrt((np.diff(ring, axis=0) ** 2).sum(1))
    total = np.concatenate([[0.0], np.cumsum(run)])
    want = share * total[-1]
    k = int(np.searchsorted(total, want, side="right")) - 1
    k = min(max(k, 0), len(run) - 1)
    if want - total[k] < 0.05:
        start = ring[k]
        body = np.vstack([ring[k + 1 : -1], ring[: k + 1]]) if k else ring[1:]
    else:
        start = ring[k] + (ring[k + 1] - ring[k]) * (want - total[k]) / run[k]
        body = np.vstack([ring[k + 1 : -1], ring[: k + 1], start[None]])
    return np.vstack([start[None], body])


def part_figures(
    mesh: PartMesh, layers: list[LayerSlice], tracks: list[Track], recipe: Recipe
) -> dict[str, float]:
    """Volumes, mm³: of the part as imported, of the layers to fill, and of the beads laid.

    An open shell's target is one bead along its lines: it has no volume of its own.
    """
    height = recipe.layers.height_mm
    beads: dict[tuple[TrackKind, bool], float] = {}

    def bead(kind: TrackKind, layer: int) -> float:
        key = (kind, layer == 0)
        if key not in beads:
            beads[key] = bead_area_mm2(recipe, kind, layer)
        return beads[key]

    target = sum(height * region_area(r) for s in layers for r in s.regions)
    target += sum(
        length(c) * bead(TrackKind.THIN_WALL, s.index) for s in layers for c in s.open_chains_mm
    )
    deposit = sum(length(t.points_mm) * bead(t.kind, t.layer) for t in tracks)
    return {
        "volume_mm3": float(mesh.volume_mm3),
        "target_volume_mm3": float(target),
        "deposit_volume_mm3": float(deposit),
    }

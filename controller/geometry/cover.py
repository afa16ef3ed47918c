"""What the beads leave bare: every layer is painted on a fine grid and looked at.

A grid, not polygons: a layer of metres of bead is painted in milliseconds, and a spot too
small for it is smaller than anything a melt pool leaves.
"""

import math

import numpy as np

from controller.geometry import _raster
from controller.geometry.polygons import pack, region_rings
from controller.model import LayerSlice, Track
from controller.recipes import Recipe

_CELLS_A_BEAD = 12
_MOST_CELLS = 4_000_000


def uncovered_spots(
    layer: LayerSlice, tracks: list[Track], width_mm: float
) -> list[tuple[float, float, float]]:
    """Bare spots of one layer: (area mm², x, y of a point in it), largest first.

    A corner that no round bead can fill is no spot: bare means farther than half a bead plus
    a tenth from every path.
    """
    rings = [ring for region in layer.regions for ring in region_rings(region)]
    if not rings:
        return []
    low = np.min([r.min(0) for r in rings], axis=0)
    high = np.max([r.max(0) for r in rings], axis=0)
    extent = high - low
    cell = max(width_mm / _CELLS_A_BEAD, math.sqrt(float(extent[0] * extent[1]) / _MOST_CELLS))
    nx, ny = (math.ceil(e / cell) + 1 for e in extent)
    points, start = pack([np.ascontiguousarray(t.points_mm[:, :2]) for t in tracks])
    radius = np.full(len(tracks), 0.6 * width_mm)
    painted = _raster.cover_grid(points, start, radius, low[0], low[1], cell, nx, ny)
    ring_points, ring_start = pack(rings)
    moved = np.ascontiguousarray(ring_points - low)
    row, x0, x1 = _raster.scanlines(moved, ring_start, cell, 0.5)
    bare = np.zeros((ny, nx), bool)
    first = np.clip(np.ceil(x0 / cell - 0.5).astype(np.int64), 0, nx)
    last = np.clip(np.floor(x1 / cell - 0.5).astype(np.int64) + 1, 0, nx)
    for k, a, b in zip(row.tolist(), first.tolist(), last.tolist(), strict=True):
        if 0 <= k < ny and b > a:
            bare[k, a:b] |= painted[k, a:b] == 0
    return [
        (n * cell * cell, float(low[0] + (i + 0.5) * cell), float(low[1] + (j + 0.5) * cell))
        for n, i, j in _spots(bare)
    ]


def _spots(bare: np.ndarray) -> list[tuple[int, int, int]]:
    """Connected areas (cells, column, row of one cell), largest first."""
    cells = set(zip(*(a.tolist() for a in np.nonzero(bare)), strict=True))
    order = sorted(cells)
    out = []
    for origin in order:
        if origin not in cells:
            continue
        cells.discard(origin)
        stack, count = [origin], 0
        while stack:
            j, i = stack.pop()
            count += 1
            for step in ((j + 1, i), (j - 1, i), (j, i + 1), (j, i - 1)):
                if step in cells:
                    cells.discard(step)
                    stack.append(step)
        out.append((count, origin[1], origin[0]))
    return sorted(out, key=lambda s: (-s[0], s[1], s[2]))


def coverage_notes(
    layers: list[LayerSlice], tracks: list[Track], recipe: Recipe
) -> tuple[str, ...]:
    """One sentence for each layer that has bare spots larger than a tenth of a bead squared."""
    width = recipe.bead.width_mm
    by_layer: dict[int, list[Track]] = {}
    for track in tracks:
        by_layer.setdefault(track.layer, []).append(track)
    notes = []
    for layer in layers:
        spots = uncovered_spots(layer, by_layer.get(layer.index, []), width)
        spots = [s for s in spots if s[0] > 0.1 * width * width]
        if spots:
            area, x, y = spots[0]
            notes.append(
                f"Layer {layer.index + 1}: {sum(s[0] for s in spots):.2f} mm² in {len(spots)} "
                f"spots are not covered by a bead, the largest {area:.2f} mm² at "
                f"X {x:.2f} Y {y:.2f} mm."
            )
    return tuple(notes)

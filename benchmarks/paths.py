"""The three paths that the project's planner figures are stated for, and their limits.

(a) zig-zag infill of a square, ten layers; (b) a wavy spiral in chords of 0.1 mm; (c) random
turns. Each function returns corners (n + 1, 3) float64 in mm, the same on every call.
"""

from collections.abc import Callable

import numpy as np

SPEED_MM_S, ACCEL_MM_S2, JERK_MM_S3, DEVIATION_MM = 50.0, 2000.0, 50_000.0, 0.01
FREE = [1e9, 1e9, 1e9]  # no limit of an axis of its own


def raster(
    side_mm: float = 100.0, hatch_mm: float = 0.5, layers: int = 10, layer_mm: float = 0.35
) -> np.ndarray:
    """(a) Lines there and back, turned by 90 degrees from layer to layer; 4,019 moves."""
    lines = round(side_mm / hatch_mm) + 1
    across = np.repeat(np.arange(lines) * hatch_mm, 2)
    # ends of line k: from 0 to the far side when k is even, back when it is odd
    along = np.where((np.arange(2 * lines) + 1) // 2 % 2 == 1, side_mm, 0.0)
    rows = []
    for layer in range(layers):
        xy = (along, across) if layer % 2 == 0 else (across, along)
        rows.append(np.column_stack([*xy, np.full(2 * lines, layer * layer_mm)]))
    return np.concatenate(rows)


def wavy_spiral(moves: int = 200_000, chord_mm: float = 0.1) -> np.ndarray:
    """(b) Outward spiral, pitch 1.5 mm, with a ripple of 0.5 mm every 3.5 mm."""
    first_mm, pitch_mm, ripple_mm, wave_mm = 5.0, 1.5, 0.5, 3.5
    turns = np.sqrt(moves * chord_mm / (np.pi * pitch_mm)) + 2.0
    angle = np.linspace(0.0, 2.0 * np.pi * turns, int(turns * 40_000))
    along_mm = first_mm * angle + pitch_mm * angle * angle / (4.0 * np.pi)
    radius_mm = first_mm + pitch_mm * angle / (2.0 * np.pi)
    radius_mm += ripple_mm * np.cos(2.0 * np.pi * along_mm / wave_mm)
    x, y = radius_mm * np.cos(angle), radius_mm * np.sin(angle)
    s = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    at = np.arange(moves + 1) * chord_mm
    return np.stack([np.interp(at, s, x), np.interp(at, s, y), np.zeros(moves + 1)], axis=1)


def random_turns(moves: int = 200_000, seed: int = 7) -> np.ndarray:
    """(c) Random walk: lengths 0.05 to 2 mm, turns of 12 degrees (one sigma)."""
    rng = np.random.default_rng(seed)
    length_mm = rng.uniform(0.05, 2.0, moves)
    heading = np.cumsum(np.radians(rng.normal(0.0, 12.0, moves)))
    points = np.zeros((moves + 1, 3))
    points[1:, 0] = np.cumsum(length_mm * np.cos(heading))
    points[1:, 1] = np.cumsum(length_mm * np.sin(heading))
    return points


def long_spiral(moves: int) -> np.ndarray:
    """Path (b) over and over in layers of 0.35 mm, for paths of 10^7 moves."""
    whole = wavy_spiral()
    layer = whole[1:]
    points = np.empty((moves + 1, 3))
    points[0] = whole[0]
    for k, at in enumerate(range(1, moves + 1, len(layer))):
        part = points[at : at + len(layer)]
        part[:] = (layer if k % 2 == 0 else layer[::-1])[: len(part)]
        part[:, 2] = 0.35 * k
    return points


PATHS: dict[str, Callable[[], np.ndarray]] = {
    "a": raster,
    "b": wavy_spiral,
    "c": random_turns,
}

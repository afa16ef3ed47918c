"""Small builds for planner tests, and a decoder of segments written apart from the planner."""

import struct
from bisect import bisect_right

import numpy as np

from controller.config import Cell, load_cell, load_material, parse_model
from controller.model import LayerSlice, PartMesh, Region, Track, TrackKind
from controller.planning import plan_build
from controller.recipes import load_recipe, parse_recipe

CELL, CELL_TEXT = load_cell("sim")
RECIPE, RECIPE_TEXT = load_recipe("316l_general")
MATERIAL, MATERIAL_TEXT = load_material("316L")
TEXTS = {"cell": CELL_TEXT, "recipe": RECIPE_TEXT, "material": MATERIAL_TEXT}
TOP_MM = 10.0


def cell_with(*changes):
    """The simulated cell with pieces of its text replaced."""
    text = CELL_TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_model(Cell, text, "test cell")


def recipe_with(*changes):
    """The general recipe with pieces of its text replaced."""
    text = RECIPE_TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_recipe(text, "test recipe")


def track(points, layer=0, kind=TrackKind.HATCH):
    """A track from (x, y) pairs at the height of its layer."""
    xy = np.asarray(points, dtype=float)
    z = np.full(len(xy), TOP_MM + 0.55 * (layer + 1))
    return Track(layer, kind, np.column_stack([xy, z]))


def layer_slice(index):
    """A slice of 20 x 10 mm."""
    ring = np.array([[140.0, 145], [160, 145], [160, 155], [140, 155]])
    z = TOP_MM + 0.55 * (index + 1)
    return LayerSlice(index, z - 0.275, z, (Region(ring),))


def part():
    """A part of known volume."""
    corners = np.array([[140.0, 145, 10], [160, 155, 11], [140, 155, 11]])
    return PartMesh("p", corners, np.array([[0, 1, 2]], np.int32), "p.stl", "0" * 64, "mm", 100.0)


def small_tracks():
    """Two layers: hatch lines, a square contour, a short zig-zag with sharp corners."""
    tracks = []
    for layer in (0, 1):
        square = [(140, 145), (143, 145), (143, 148), (140, 148), (140, 145)]
        tracks.append(track(square, layer, TrackKind.CONTOUR))
        tracks.append(track([(140.5, 146), (142.5, 146)], layer))
        tracks.append(track([(142.5, 147), (140.5, 147.03)], layer))
        tracks.append(
            track(
                [(150, 150), (151, 150.2), (150.2, 150.4), (151, 151)], layer, TrackKind.THIN_WALL
            )
        )
    return tracks


def plan(tracks=None, recipe=RECIPE, cell=CELL, **more):
    """Plan tracks; by default the small build."""
    tracks = small_tracks() if tracks is None else tracks
    layers = [layer_slice(i) for i in range(max(t.layer for t in tracks) + 1)]
    return plan_build(tracks, layers, part(), recipe, cell, MATERIAL, TEXTS, **more)


class Decoded:
    """Segments as a machine executes them; from the bytes, in plain Python."""

    def __init__(self, data: bytes, start_steps=(0, 0, 0, 0, 0, 0)) -> None:
        self.begin_us, self.rows, self.params = [], [], []
        now, power, position = 0, 0, list(start_steps)
        for at in range(0, len(data), 22):
            fields = struct.unpack_from("<6hHHHHBB", data, at)
            steps, (ratio, end_power, end_speed, low, high, flags) = fields[:6], fields[6:]
            ticks = low | high << 16
            if flags & 0x08:
                assert ticks == 0
                assert not any(steps[3:])  # before them: law and cap
                self.params.append((now, end_power, end_speed))
                continue
            assert ticks > 0
            self.begin_us.append(now)
            self.rows.append(
                (ticks, tuple(position), steps, ratio / 32768.0, power, end_power, flags, end_speed)
            )
            position = [p + d for p, d in zip(position, steps, strict=True)]
            now, power = now + ticks, end_power
        self.end_us, self.end_steps = now, tuple(position)

    def at(self, t_us: float):
        """Position in steps, speeds in steps/s, power share, flags at an instant."""
        i = max(bisect_right(self.begin_us, t_us) - 1, 0)
        ticks, position, steps, ratio, power, end_power, flags, _ = self.rows[i]
        tau = (t_us - self.begin_us[i]) / ticks
        share = ratio * tau + (1.0 - ratio) * tau * tau
        rate = (ratio + 2.0 * (1.0 - ratio) * tau) / (ticks * 1e-6)
        return (
            [p + share * d for p, d in zip(position, steps, strict=True)],
            [rate * d for d in steps],
            (power + (end_power - power) * tau) / 65535.0,
            flags,
        )

    def gate_edges_us(self):
        """[(on, off), ...] of the gate flag."""
        edges, on = [], None
        for begin, row in zip(self.begin_us, self.rows, strict=True):
            if row[6] & 1 and on is None:
                on = begin
            elif not row[6] & 1 and on is not None:
                edges.append((on, begin))
                on = None
        return edges

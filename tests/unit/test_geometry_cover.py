"""Bare spots are found and named."""

import numpy as np
import pytest
import shapely
import shapely.geometry as sg

from controller.geometry import _raster, coverage_notes
from controller.geometry.cover import uncovered_spots
from controller.model import Track, TrackKind
from tests.unit.geometry_parts import recipe, to_layers


def test_a_missing_line_is_named_with_its_place():
    layers = to_layers(sg.box(0, 0, 20, 9.6), 2)
    rows = [0.8, 1.77, 2.74, 6.62, 7.59, 8.8]
    full = [0.8, 1.77, 2.74, 3.71, 4.68, 5.65, 6.62, 7.59, 8.8]
    tracks = [
        Track(layer, TrackKind.HATCH, np.array([[0.8, y, 1], [19.2, y, 1]]))
        for layer, ys in ((0, full), (1, rows))
        for y in ys
    ]
    (note,) = coverage_notes(layers, tracks, recipe(0.0, 0.0))
    assert note.startswith("Layer 2: ")
    beads = shapely.union_all([sg.LineString([(0.8, y), (19.2, y)]).buffer(0.96) for y in rows])
    bare = sg.box(0, 0, 20, 9.6).difference(beads).area
    area, _, y = uncovered_spots(layers[1], tracks[len(full) :], 1.6)[0]
    assert area == pytest.approx(bare, rel=0.05)
    assert 3.2 < y < 6.2  # a point of the spot, which widens between the lines' round ends


def test_an_empty_layer_is_bare_all_over():
    (layer,) = to_layers(sg.box(0, 0, 10, 10), 1)
    ((area, _, _),) = uncovered_spots(layer, [], 1.6)
    assert area == pytest.approx(100, rel=0.03)


def test_grid_agrees_with_shapely():
    random = np.random.default_rng(8)
    path = random.uniform(2, 18, (7, 2))
    grid = _raster.cover_grid(path, np.array([0, 7]), np.array([0.9]), 0.0, 0.0, 0.1, 200, 200)
    assert grid.sum() * 0.01 == pytest.approx(sg.LineString(path).buffer(0.9, 32).area, rel=0.01)

"""place_part: where the part ends up, and each reason not to build it."""

import re

import numpy as np
import pytest

from controller.errors import GeometryError
from controller.geometry import place_part
from tests.unit.geometry_parts import ball, box, part, sim_cell


def test_part_stands_in_the_middle_of_the_plate():
    mesh = place_part(part(box(10, 20, 30, (-500.0, 7.0, 99.0))), sim_cell())
    assert mesh.bounds_mm.tolist() == [[145, 140, 10], [155, 160, 40]]
    assert place_part(part(ball(5.0)), sim_cell()).vertices_mm[:, 2].min() == 10.0


def test_the_given_mesh_is_not_changed():
    mesh = part(box(1, 2, 3))
    before = mesh.vertices_mm.copy()
    place_part(mesh, sim_cell())
    assert np.array_equal(mesh.vertices_mm, before)


@pytest.mark.parametrize(
    ("mesh", "arguments", "says"),
    [
        (box(201, 5, 5), {}, "201 mm along X do not fit the substrate of cell 'sim', 200 mm"),
        (box(5, 300, 5), {}, "300 mm along Y"),
        (box(199, 5, 5), {"margin_mm": 1.0}, "199 mm along X and 1 mm margin on each side"),
        (box(5, 5, 241), {}, "axis Z would have to reach 251 mm, its limit in cell 'sim' is 250"),
        (box(5, 5, 239.5), {"margin_mm": 1.0}, "axis Z would have to reach 250.5 mm"),
        (box(0.5, 1.5, 1.0), {"bead_width_mm": 1.6}, "smaller than one bead (1.6 mm)"),
        (box(0.5, 1.5, 1.0), {"bead_width_mm": 1.6}, "give --units inch or --units m"),
        (box(1, 1, 1), {"margin_mm": float("nan")}, "margin nan"),
    ],
)
def test_what_does_not_fit_is_refused_with_axis_length_and_limit(mesh, arguments, says):
    with pytest.raises(GeometryError, match=re.escape(says)) as caught:
        place_part(part(mesh), sim_cell(), **arguments)
    assert "\n" not in str(caught.value)

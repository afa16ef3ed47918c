"""The simulator's own rotary axes: its reader, its configuration, where its melt pool is."""

import struct
from pathlib import Path

import numpy as np
import pytest

from controller.config import load_cell
from controller.machine.cell import link_settings
from hil_sim.cellfile import CellFileError, config_blob, load
from hil_sim.clock import Scheduler
from hil_sim.plant.plant import Plant
from hil_sim.plant.world import World
from hil_sim.trace import NoTrace
from tests.unit.rotary_cases import part_frame

CELLS = Path(__file__).resolve().parents[2] / "configs" / "cells"
SAMPLE = np.dtype(
    [("t_us", "<u8"), ("pos", "<i4", 6), ("power", "<u2"), ("gate", "u1"), ("armed", "u1"),
     ("state", "<u2"), ("fault", "<u2"), ("segment", "<u4"), ("beat_age_us", "<u4")]
)  # fmt: skip


def changed(folder: Path, name: str, old: str, new: str) -> Path:
    text = (CELLS / f"{name}.toml").read_text()
    assert old in text
    path = folder / "cell.toml"
    path.write_text(text.replace(old, new, 1))
    return path


def axis_fields(blob, number):
    """Scale, speed, acceleration, least and greatest position of an axis."""
    head, row = {1: (20, 20), 2: (24, 28)}[blob[0]]  # by the configuration's version
    return struct.unpack_from("<IIIii", blob, head + number * row)


class Still:
    """A firmware that stands at one position."""

    def __init__(self, position):
        self.position = position

    def rows(self):
        return np.zeros(0, dtype=np.dtype(("V", 48)))

    def samples(self):
        out = np.zeros(1, SAMPLE)
        out["pos"][0, : len(self.position)] = self.position
        return out


def melt_pool(cell, position):
    """Where the plant says the melt pool is, after one step of 10 ms."""
    sim, world = Scheduler(), World(cell)
    Plant(sim, world, cell, Still(position), NoTrace(), 1)
    sim.run(10_000)
    return np.array([world.x_mm, world.y_mm, world.z_mm])


def test_configuration_of_five_axes_is_the_same_on_both_sides():
    blob = config_blob(load(CELLS / "sim_ac.toml"))
    assert blob == link_settings(load_cell("sim_ac")[0]).config_blob()
    assert blob[2] == 5
    # axis 3 is A: 1000 steps/deg, 60 deg/s, 400 deg/s2, -110 to 110 deg from its zero mark
    assert axis_fields(blob, 3) == (
        1_000_000, 60_000, 400_000, -110_000, 110_000,
    )  # fmt: skip
    # axis 2 is Z: steps count from its switch at the least end
    assert axis_fields(blob, 2)[3:] == (0, 350_000)


def test_range_that_does_not_begin_at_zero_counts_steps_from_its_least_end(tmp_path):
    path = changed(tmp_path, "sim", 'range = ["0 mm", "250 mm"]', 'range = ["-50 mm", "200 mm"]')
    blob = config_blob(load(path))
    assert blob == link_settings(load_cell(str(path))[0]).config_blob()
    assert axis_fields(blob, 2)[3:] == (0, 100_000)
    assert melt_pool(load(path), [0, 0, 400])[2] == pytest.approx(-49.0)


def test_by_hand_a_quarter_turn_of_c_takes_the_nozzle_to_the_other_axis():
    cell = load(CELLS / "sim_turntable.toml")
    # nozzle 20 mm along X from the centre (150, 150), C at +90 deg: the part's -Y side is there
    np.testing.assert_allclose(
        melt_pool(cell, [170_000, 150_000, 20_000, 90_000]), [150.0, 130.0, 20.0], atol=1e-9
    )


def test_by_hand_a_tilt_of_a_by_ninety_degrees():
    cell = load(CELLS / "sim_ac.toml")
    # A through (y, z) = (150, 100): turned back by 90 deg, what is 10 mm above the axis is at +y
    np.testing.assert_allclose(
        melt_pool(cell, [120_000, 150_000, 110_000, 90_000, 0]), [120.0, 160.0, 100.0], atol=1e-9
    )


@pytest.mark.parametrize("name", ["sim_ac", "sim_turntable"])
@pytest.mark.parametrize("offsets", [False, True])
def test_melt_pool_is_where_matrices_say(name, offsets, tmp_path):
    path = CELLS / f"{name}.toml"
    if offsets:
        path = changed(tmp_path, name, 'travel_lift = "2 mm"', 'travel_lift = "2 mm"\n'
                       'work_offset = ["4 mm", "-3 mm", "2 mm"]\n'
                       'tool_offset = ["1 mm", "2 mm", "-30 mm"]')  # fmt: skip
    host, _ = load_cell(str(path))
    cell = load(path)
    rng = np.random.default_rng(3)
    axes = host.motion.machine_axes
    for _ in range(10):
        at = np.array([rng.uniform(a.least, a.most) for a in axes])
        steps = np.rint((at - [a.home for a in axes]) * [a.steps_per_unit for a in axes])
        exact = steps / [a.steps_per_unit for a in axes] + [a.home for a in axes]
        expected = part_frame(host, [exact])[0][0]
        np.testing.assert_allclose(melt_pool(cell, steps.astype(int).tolist()), expected, atol=1e-8)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "A"', 'name = "W"', "motion.rotary.0.name"),
        ('range = ["-110 deg", "110 deg"]', 'range = ["10 deg", "110 deg"]', "hold 0 deg"),
        ('steps = "1000 1/deg"', 'steps = "1000 1/mm"', "motion.rotary.0.steps"),
        ('centre = ["150 mm", "150 mm", "100 mm"]', 'centre = ["150 mm"]', "three lengths"),
        ('speed = "60 deg/s"', 'speed = "0 deg/s"', "not above 0"),
    ],
)
def test_complaint_about_a_rotary_axis_names_its_key(old, new, named, tmp_path):
    path = changed(tmp_path, "sim_ac", old, new)
    with pytest.raises(CellFileError, match=named):
        load(path)

"""Which link a cell gets, and what checking the cell says of it."""

import pytest

from controller.check import check_file, link_warnings
from controller.config import Cell, configs_dir, load_cell, parse_model
from controller.errors import ConfigError
from controller.machine.cell import make_link, plan_zero_mm
from firmware_bridge.grbl_link import GrblLink
from firmware_bridge.motion_link import MotionLink
from firmware_bridge.motion_link_process import MotionLinkProcess
from firmware_bridge.supervised_link import SupervisedLink
from firmware_bridge.transport import NullPort

PORT = NullPort("motion", 0)
CELLS = configs_dir() / "cells"


@pytest.mark.parametrize(
    ("name", "own_process", "kind"),
    [
        ("sim", False, MotionLink),
        ("sim", True, MotionLinkProcess),
        ("sim_grblhal", True, GrblLink),
        ("sim_supervised", True, SupervisedLink),
    ],
)
def test_a_cell_gets_the_link_that_it_names(name, own_process, kind):
    cell, _ = load_cell(name)
    assert type(make_link(cell, PORT, own_process=own_process)) is kind


def test_zero_of_the_plan_is_told_from_the_axes_home():
    text = (CELLS / "sim.toml").read_text()
    text = text.replace('range = ["0 mm", "250 mm"]', 'range = ["-20 mm", "250 mm"]').replace(
        "[[motion.axes]]",
        'work_offset = ["7 mm", "0 mm", "1 mm"]\ntool_offset = ["2 mm", "0 mm", "0 mm"]\n\n'
        "[[motion.axes]]",
        1,
    )
    cell = parse_model(Cell, text, "cell.toml")
    assert plan_zero_mm(cell) == pytest.approx((5.0, 0.0, 21.0))


def test_checking_a_cell_tells_what_its_link_lacks():
    assert check_file(CELLS / "sim.toml")["warnings"] == []
    told = check_file(CELLS / "sim_grblhal.toml")["warnings"]
    assert any(text.startswith("NO_DEAD_MAN: grblhal: ") for text in told)
    assert not any(text.startswith("GATE_WATCHDOG") for text in told)
    told = check_file(CELLS / "sim_supervised.toml")["warnings"]
    assert any("supervised: " in text for text in told)


def test_checking_warns_of_a_missing_watchdog_and_refuses_what_is_not_there(tmp_path):
    text = (CELLS / "sim_grblhal.toml").read_text()
    bare = "\n".join(k for k in text.splitlines() if not k.startswith("gate_watchdog"))
    cell = parse_model(Cell, bare, "cell.toml")
    assert any(t.startswith("GATE_WATCHDOG") for t in link_warnings(cell, tmp_path))
    text = (CELLS / "sim_supervised.toml").read_text()
    for old, new, words in (
        ('dialect = "linuxcnc"', 'dialect = "klingon"', "there are: .*linuxcnc"),
        ('map = "handshake_generic"', 'map = "handshake_none"', "handshake_none"),
    ):
        assert old in text
        cell = parse_model(Cell, text.replace(old, new), "cell.toml")
        with pytest.raises(ConfigError, match=words):
            link_warnings(cell, tmp_path / "cell.toml")

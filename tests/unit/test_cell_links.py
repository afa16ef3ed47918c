"""Which link a cell gets, and what checking the cell says of it."""

import marshal
from types import SimpleNamespace

import numpy as np
import pytest

from controller.check import check_file, link_warnings
from controller.config import Cell, configs_dir, load_cell, parse_model
from controller.errors import ConfigError
from controller.machine.cell import make_link, plan_zero_mm
from firmware_bridge.errors import ProtocolError
from firmware_bridge.grbl_link import GrblLink
from firmware_bridge.link_process import LinkProcess, packed, unpacked
from firmware_bridge.link_types import ProgramLine
from firmware_bridge.motion_link import MotionLink
from firmware_bridge.supervised_link import SupervisedLink
from firmware_bridge.transport import NullPort
from tests.unit.link_bench import job

PORT = NullPort("motion", 0)
CELLS = configs_dir() / "cells"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sim", MotionLink), ("sim_grblhal", GrblLink), ("sim_supervised", SupervisedLink)],
)
def test_a_cell_gets_the_link_that_it_names_in_real_time_as_a_process(name, kind):
    cell, _ = load_cell(name)
    assert type(make_link(cell, PORT)) is kind
    own = make_link(cell, PORT, own_process=True)
    assert type(own) is LinkProcess
    assert own.abilities == kind.abilities
    assert own.lacks == kind.lacks


def test_what_is_loaded_comes_out_of_the_process_as_it_went_in():
    lines = [ProgramLine("G1X1F60S5", 3, 1, True), ProgramLine("M5", 4)]
    segments = job(7)
    program = SimpleNamespace(text="G0", segment_of_line=np.array([0, 2]), track_of_line=[-1, 0])
    data = marshal.dumps(packed((lines, segments, program, [1.5, 2.0], 9)))
    told_lines, told, place, powers, first = unpacked(marshal.loads(data))
    assert told_lines == lines
    assert (told == segments).all()
    assert told.dtype == segments.dtype
    assert (place.text, place.segment_of_line, place.track_of_line) == ("G0", [0, 2], [-1, 0])
    assert (powers, first) == ([1.5, 2.0], 9)
    with pytest.raises(ProtocolError, match="wanted the 22 byte SEGMENT"):
        packed(np.zeros(3))


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

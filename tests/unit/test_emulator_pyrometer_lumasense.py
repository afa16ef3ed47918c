"""Pyrometer emulator: bytes of docs/reference/device-protocols.md, section 3."""

from __future__ import annotations

import math

import pytest

from hil_sim.clock import Scheduler
from hil_sim.devices.pyrometer_lumasense import PyrometerLumasense
from tests.unit.emulator_bench import Line, make_world


@pytest.fixture
def world():
    return make_world()


@pytest.fixture
def line(world):
    sim = Scheduler()
    return Line(PyrometerLumasense(sim, world, 600.0, 2300.0), sim)


def test_range_and_version(line):
    assert line.ask(b"00mb\r") == b"025808FC\r"
    assert line.ask(b"00ve\r") == b"630126\r"


@pytest.mark.parametrize(
    ("temp_deg_c", "digits"),
    [
        (1825.3, b"18253"),
        (600.0, b"06000"),
        (599.9, b"00000"),
        (21.0, b"00000"),
        (math.nan, b"00000"),
        (2300.0, b"23000"),
        (2300.1, b"88880"),
    ],
)
def test_temperature(line, world, temp_deg_c, digits):
    world.pool_temp_deg_c = temp_deg_c
    assert line.ask(b"00ms\r") == digits + b"\r"
    assert line.ask(b"00ek\r") == digits + digits + b"\r"


def test_split_and_joined_commands(line, world):
    world.pool_temp_deg_c = 1825.3
    assert line.ask(b"00") == b""
    assert line.ask(b"ms\r00ek\r") == b"18253\r1825318253\r"


@pytest.mark.parametrize("wrong", [b"01ms\r", b"ms\r", b"\r", b"00\r", b"0 ms\r"])
def test_other_address_or_syntax_error_is_met_with_silence(line, wrong):
    assert line.ask(wrong) == b""
    assert line.ask(b"00ve\r") == b"630126\r"


def test_unknown_command_is_refused(line):
    assert line.ask(b"00xx\r") == b"no\r"


def test_forced_code_and_frozen_value(line, world):
    line.emulator.forced = b"77770"
    assert line.ask(b"00ms\r") == b"77770\r"
    line.emulator.forced = None
    world.pool_temp_deg_c = 1500.0
    line.ask(b"00ms\r")
    line.emulator.forced = line.emulator.last
    world.pool_temp_deg_c = 1600.0
    assert line.ask(b"00ms\r") == b"15000\r"


def test_answer_comes_within_five_milliseconds(line):
    line.ask(b"00ms\r")
    assert [t_us for t_us, _ in line.heard] == [5_000]

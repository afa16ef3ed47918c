"""Emulators of the height sensor and of the Metis: bytes of docs/reference/device-protocols.md."""

from __future__ import annotations

import pytest

from hil_sim.clock import Scheduler
from hil_sim.devices.height_keyence import HeightKeyence
from hil_sim.devices.pyrometer_sensortherm import OVER_RANGE, PyrometerSensortherm
from tests.unit.emulator_bench import Line, make_world


@pytest.fixture
def world():
    return make_world()


@pytest.fixture
def height(world):
    sim = Scheduler()
    return Line(HeightKeyence(sim, world), sim)


@pytest.fixture
def metis(world):
    sim = Scheduler()
    return Line(PyrometerSensortherm(sim, world, 600.0, 2300.0), sim)


@pytest.mark.parametrize(
    ("surface_mm", "z_mm", "value"),
    [
        (10.0, 10.55, b"-00.5500"),
        (12.25, 10.0, b"+02.2500"),
        (10.0, 10.0, b"+00.0000"),
        (40.0, 10.0, b"+FFFFFFF"),
        (10.0, 40.0, b"-FFFFFFF"),
    ],
)
def test_height_is_the_surface_against_the_nozzle(height, world, surface_mm, z_mm, value):
    world.height_mm, world.z_mm = surface_mm, z_mm
    assert height.ask(b"M1\r") == b"M1," + value + b"\r"
    assert height.ask(b"m0\r") == b"M0," + value + b",XXXXXXXX\r"


def test_height_faults_and_refusals(height, world):
    world.height_mm, world.z_mm = 10.0, 10.5
    height.emulator.blind = True
    assert height.ask(b"M1\r") == b"M1,XXXXXXXX\r"
    height.emulator.blind = False
    height.emulator.shift_mm = 0.25
    assert height.ask(b"M1\r") == b"M1,-00.2500\r"
    height.emulator.held_mm = 0.125
    assert height.ask(b"M1\r") == b"M1,+00.1250\r"
    assert height.ask(b"ZZ,1\r") == b"ER,ZZ,00\r"
    assert height.ask(b"\xff\r").startswith(b"ER,")


@pytest.mark.parametrize(
    ("temp_deg_c", "hexa", "decimal"),
    [
        (1825.3, b"474D", b"18253"),
        (600.0, b"1770", b"06000"),
        (21.0, b"176F", b"05999"),
        (2300.0, b"59D8", b"23000"),
        (2300.1, b"F000", b"88880"),
    ],
)
def test_metis_temperature(metis, world, temp_deg_c, hexa, decimal):
    world.pool_temp_deg_c = temp_deg_c
    assert metis.ask(b"00mw0\r") == hexa + b"\r"
    assert metis.ask(b"00ms\r") == decimal + b"\r"


def test_metis_range_and_refusals(metis, world):
    assert metis.ask(b"00mb\r") == b"177059D8\r"
    assert metis.ask(b"01mb\r") == b""
    assert metis.ask(b"00xx\r") == b"no\r"
    metis.emulator.forced = OVER_RANGE
    assert metis.ask(b"00mw0\r") == b"F000\r"

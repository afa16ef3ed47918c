"""IPG laser emulator: bytes of docs/reference/device-protocols.md, section 2."""

from __future__ import annotations

import pytest

from hil_sim.clock import Scheduler
from hil_sim.devices.laser_ipg import LaserIpg
from tests.unit.emulator_bench import Line, make_world


@pytest.fixture
def sim():
    return Scheduler()


@pytest.fixture
def world():
    return make_world()


@pytest.fixture
def line(sim, world):
    return Line(LaserIpg(sim, world), sim)


def enable(line, wait_us=3_100_000):
    assert line.ask(b"EEC\r") == b"EEC\r"
    assert line.ask(b"EMOD\r") == b"EMOD\r"
    assert line.ask(b"EMON\r") == b"EMON\r"
    line.sim.run(line.sim.now_us + wait_us)


def test_idle_answers(line, world):
    world.laser_temp_deg_c = 25.6
    assert line.ask(b"STA\r") == b"STA: 2097152\r"
    assert line.ask(b"ROP\r") == b"ROP: Off\r"
    assert line.ask(b"RCT\r") == b"RCT: 25.6\r"
    assert line.ask(b"RFV\r") == b"RFV: 1.0.0\r"


def test_lower_case_and_pieces_and_two_in_one_read(line):
    assert line.ask(b"st") == b""
    assert line.ask(b"a\rrop\r") == b"STA: 2097152\rROP: Off\r"


def test_unknown_command(line):
    assert line.ask(b"XYZ\r") == b"ERR: Command not recognized\r"
    assert line.ask(b"\r") == b"ERR: Command not recognized\r"


def test_line_without_end_is_dropped(line):
    assert line.ask(b"A" * 200) == b""
    assert line.ask(b"STA\r") == b"STA: 2097152\r"


def test_enabling_takes_the_start_up_time(line, world, sim):
    assert line.ask(b"EEC\r") == b"EEC\r"
    assert line.ask(b"EMOD\r") == b"EMOD\r"
    asked_us = sim.now_us
    assert line.ask(b"EMON\r") == b"EMON\r"
    assert line.ask(b"STA\r") == b"STA: 2150416\r"
    sim.run(asked_us + 2_999_999)
    assert not world.laser_enabled
    sim.run(asked_us + 3_000_000)
    assert world.laser_enabled
    assert line.ask(b"STA\r") == b"STA: 2117652\r"
    assert line.ask(b"EMON\r") == b"EMON\r"  # again: nothing starts over
    assert world.laser_enabled
    assert line.ask(b"EMOFF\r") == b"EMOFF\r"
    assert not world.laser_enabled
    assert line.ask(b"STA\r") == b"STA: 2101264\r"  # bits 4, 12, 21


def test_start_up_of_a_withdrawn_emon_enables_nothing(line, world, sim):
    enable(line, wait_us=1_000_000)
    line.ask(b"EMOFF\r")
    line.ask(b"EMON\r")
    sim.run(sim.now_us + 2_500_000)  # past 3 s of the first, not of the second
    assert not world.laser_enabled
    sim.run(sim.now_us + 600_000)
    assert world.laser_enabled


def test_no_light_without_external_control(line, world, sim):
    line.ask(b"EMON\r")
    sim.run(sim.now_us + 3_100_000)
    assert not world.laser_enabled
    line.ask(b"EEC\r")
    assert not world.laser_enabled
    line.ask(b"EMOD\r")
    assert world.laser_enabled
    line.ask(b"DMOD\r")
    assert not world.laser_enabled


def test_measured_output(line, world):
    enable(line)
    world.laser_power_measured_w = 412.5
    assert line.ask(b"ROP\r") == b"ROP: 412.5\r"
    world.laser_power_measured_w = 4.0  # under the meter's range, 1 % of 1 kW
    assert line.ask(b"ROP\r") == b"ROP: Low\r"
    world.laser_power_measured_w = 0.0
    assert line.ask(b"ROP\r") == b"ROP: Off\r"


def test_open_interlock_refuses_and_ends_emission(line, world, sim):
    enable(line)
    world.door_closed = False
    sim.run(sim.now_us + 10_000)
    assert not world.laser_enabled  # without anybody having asked
    assert line.ask(b"EMON\r") == b"ERR: Interlock open\r"
    # bits 4, 10, 11, 12, 21: the chain takes the supply relay with it
    assert line.ask(b"STA\r") == b"STA: 2104336\r"
    world.door_closed = True
    assert line.ask(b"EMON\r") == b"ERR: Interlock open\r"  # until the safety PLC is reset
    world.reset_safety()
    sim.run(sim.now_us + 4_000_000)
    assert not world.laser_enabled  # nothing comes back by itself
    assert line.ask(b"STA\r") == b"STA: 2101264\r"


def test_interlock_alone_is_the_published_status(line, world):
    world.chain_closed = False
    assert line.ask(b"EMON\r") == b"ERR: Interlock open\r"
    assert line.ask(b"STA\r") == b"STA: 2098176\r"


def test_back_reflection_latches_until_reset_with_the_cause_gone(line, world, sim):
    enable(line)
    world.back_reflection = True
    sim.run(sim.now_us + 20_000)
    assert not world.laser_enabled
    assert line.ask(b"RERR\r") == b"RERR\r"
    assert line.ask(b"EMON\r") == b"ERR: High back-reflection\r"
    world.back_reflection = False
    assert line.ask(b"EMON\r") == b"ERR: High back-reflection\r"
    line.ask(b"DEC\r")
    line.ask(b"DMOD\r")
    assert line.ask(b"STA\r") == b"STA: 2097160\r"
    line.ask(b"RERR\r")
    assert line.ask(b"STA\r") == b"STA: 2097152\r"
    assert line.ask(b"EMON\r") == b"EMON\r"


def test_short_back_reflection_between_two_polls_is_seen(line, world, sim):
    world.back_reflection = True
    sim.run(sim.now_us + 10_000)
    world.back_reflection = False
    sim.run(sim.now_us + 40_000)
    assert line.ask(b"STA\r") == b"STA: 2097160\r"


def test_module_fault_is_not_latched(line, world):
    world.laser_fault_bits = 1 << 7
    assert line.ask(b"STA\r") == b"STA: 2097280\r"
    assert line.ask(b"EMON\r") == b"ERR: Module failed\r"
    world.laser_fault_bits = 0
    assert line.ask(b"STA\r") == b"STA: 2097152\r"


def test_light_without_command_sets_unexpected_emission(line, world, sim):
    world.emission_w = 300.0
    world.laser_power_measured_w = 300.0
    sim.run(sim.now_us + 50_000)
    assert line.ask(b"STA\r") == b"STA: 2228224\r"  # bits 17, 21
    assert line.ask(b"ROP\r") == b"ROP: 300.0\r"
    world.emission_w = 0.0
    line.ask(b"RERR\r")
    assert line.ask(b"STA\r") == b"STA: 2097152\r"


def test_commanded_light_is_not_unexpected(line, world, sim):
    enable(line)
    world.gate_on, world.emission_w = True, 300.0
    sim.run(sim.now_us + 500_000)
    assert line.ask(b"STA\r") == b"STA: 2117652\r"


def test_key_switch_and_forced_refusal(line):
    line.emulator.key_remote = False
    assert line.ask(b"STA\r") == b"STA: 0\r"
    assert line.ask(b"EMON\r") == b"ERR: Key switch not in remote\r"
    line.emulator.key_remote = True
    line.emulator.refuse_emission = True
    assert line.ask(b"EMON\r") == b"ERR: Emission refused\r"


def test_aiming_beam(line):
    assert line.ask(b"ABN\r") == b"ABN\r"
    assert line.ask(b"STA\r") == b"STA: 2097408\r"
    assert line.ask(b"ABF\r") == b"ABF\r"
    assert line.ask(b"STA\r") == b"STA: 2097152\r"


def test_mute_source_still_obeys(line, world):
    enable(line)
    line.emulator.mute = True
    assert line.ask(b"EMOFF\r") == b""
    assert not world.laser_enabled

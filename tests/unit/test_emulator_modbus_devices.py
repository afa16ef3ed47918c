"""Modbus device emulators: bytes of docs/reference/device-protocols.md, sections 4 to 8."""

from __future__ import annotations

import pytest

from hil_sim.clock import Scheduler
from hil_sim.devices.chiller_smc import ChillerSmc
from hil_sim.devices.feeder_map import FeederMap
from hil_sim.devices.gas_alicat import GasAlicat
from hil_sim.devices.oxygen_eh import OxygenEh
from hil_sim.devices.safety_pilz import SafetyPilz
from tests.unit.emulator_bench import Line, make_world

X = bytes.fromhex


@pytest.fixture
def sim():
    return Scheduler()


@pytest.fixture
def world():
    return make_world()


# Chiller


@pytest.fixture
def chiller(sim, world):
    world.chiller_pressure_mpa = 0.34
    world.chiller_flow_l_min = 8.0
    return Line(ChillerSmc(sim, world), sim)


CHILLER_13 = X("01 03 00 00 00 0D 84 0F")
CHILLER_GOOD = X(
    "01 03 1A 00 DC 00 00 00 22 00 0A 02 21 00 00 00 00 00 00 00 00 00 00 00 00 00 DC 00 01 F7 86"
)


def lose_flow(world):
    world.chiller_flow_fault = True
    world.chiller_pressure_mpa = 0.03
    world.coolant_deg_c = 26.7


def test_chiller_both_lengths(chiller):
    assert chiller.ask(CHILLER_13) == CHILLER_GOOD
    assert chiller.ask(X("01 03 00 00 00 0E C4 0E")) == X(
        "01 03 1C 00 DC 00 00 00 22 00 0A 02 21 00 00 00 00 00 00 00 00 00 00 00 00"
        " 00 DC 00 01 00 00 47 96"
    )


def test_chiller_lost_flow_stops_it_with_an_alarm(chiller, world, sim):
    sim.run(5_000_000)
    lose_flow(world)
    assert chiller.ask(CHILLER_13) == X(
        "01 03 1A 01 0B 00 00 00 03 00 0A 00 22 01 40 00 00 00 00 00 00 00 00 00 00"
        " 00 DC 00 01 EF E6"
    )
    assert not world.chiller_running


def test_chiller_alarm_outlasts_its_cause_until_stop_and_run(chiller, world, sim):
    sim.run(5_000_000)
    lose_flow(world)
    chiller.ask(CHILLER_13)
    stop, run = X("01 06 00 0C 00 00 49 C9"), X("01 06 00 0C 00 01 88 09")
    assert chiller.ask(stop) + chiller.ask(run) == stop + run
    assert not world.chiller_running  # the cause stands
    world.chiller_flow_fault = False
    assert chiller.ask(run) == run
    assert not world.chiller_running  # no stop before it
    chiller.ask(stop)
    chiller.ask(run)
    assert world.chiller_running
    world.chiller_pressure_mpa, world.coolant_deg_c = 0.34, 22.0
    assert chiller.ask(CHILLER_13) == CHILLER_GOOD


def test_chiller_pump_gets_time_to_build_pressure(chiller, world, sim):
    sim.run(5_000_000)
    chiller.ask(X("01 06 00 0C 00 00 49 C9"))
    assert not world.chiller_running
    world.chiller_pressure_mpa = 0.03
    assert chiller.ask(X("01 03 00 04 00 02 85 CA")) == X("01 03 04 00 20 00 00 FB F9")
    chiller.ask(X("01 06 00 0C 00 01 88 09"))
    chiller.ask(CHILLER_13)
    assert world.chiller_running
    sim.run(sim.now_us + 3_000_000)
    chiller.ask(CHILLER_13)
    assert not world.chiller_running


def test_chiller_set_temperature_is_written_and_read_back(chiller, world):
    frame = X("01 06 00 0B 00 E1 38 40")
    assert chiller.ask(frame) == frame
    assert world.chiller_setpoint_deg_c == 22.5
    assert chiller.ask(X("01 03 00 0B 00 01 F5 C8")) == X("01 03 02 00 E1 78 0C")
    assert chiller.ask(X("01 03 00 0C 00 01 44 09")) == X("01 03 02 00 01 79 84")


def test_chiller_refuses_what_it_has_not(chiller, world):
    assert chiller.ask(X("01 03 00 05 00 0C 55 CE")) == X("01 83 02 C0 F1")  # past 000Fh
    assert chiller.ask(X("01 06 00 0B 01 F4 F8 1F")) == X("01 86 03 02 61")  # 50.0 degC
    assert world.chiller_setpoint_deg_c == 22.0


def test_chiller_other_alarm_does_not_stop_it(chiller, world):
    world.chiller_alarm_bits = 1 << 28  # alarm 2 bit 12: fan maintenance
    # status 0225h, alarm 1 none, alarm 2 1000h
    assert chiller.ask(X("01 03 00 04 00 03 44 0A"))[3:9] == X("02 25 00 00 10 00")
    assert world.chiller_running


# Feeder


@pytest.fixture
def feeder(sim, world):
    return Line(FeederMap(sim, world), sim)


def tcp(transaction, pdu, unit=1):
    return transaction.to_bytes(2, "big") + X("0000 0006") + bytes((unit,)) + X(pdu)


def test_feeder_both_lengths(feeder, world):
    for pdu in ("06 0000 012C", "06 0002 0001", "06 0003 0001"):
        assert feeder.ask(tcp(9, pdu)) == tcp(9, pdu)
    world.hopper_flow_g_min[0] = 5.98
    world.hopper_mass_g[0] = 4988.3
    assert feeder.ask(X("00 01 00 00 00 06 01 03 00 00 00 15")) == X(
        "00 01 00 00 00 2D 01 03 2A 01 2C 00 00 00 01 00 01"
        + 12 * "00 00"
        + "01 2B 00 00 00 04 13 7C 13 88"
    )
    assert feeder.ask(X("00 02 00 00 00 06 01 03 00 00 00 16")) == X(
        "00 02 00 00 00 2F 01 03 2C 01 2C 00 00 00 01 00 01"
        + 12 * "00 00"
        + "01 2B 00 00 00 04 13 7C 13 88 00 00"
    )


def test_feeder_sets_flow_only_while_running(feeder, world):
    assert feeder.ask(X("00 03 00 00 00 06 01 06 00 00 01 2C")) == X(
        "00 03 00 00 00 06 01 06 00 00 01 2C"
    )
    assert world.hopper_set_g_min == [0.0, 0.0]
    feeder.ask(tcp(4, "06 0002 0003"))
    feeder.ask(tcp(5, "06 0001 00C8"))
    assert world.hopper_set_g_min == [pytest.approx(6.0), pytest.approx(3.6)]
    assert feeder.ask(X("00 04 00 00 00 06 01 03 00 00 00 01")) == X(
        "00 04 00 00 00 05 01 03 02 01 2C"
    )
    feeder.ask(tcp(6, "06 0002 0002"))
    assert world.hopper_set_g_min == [0.0, pytest.approx(3.6)]


def test_feeder_diverter(feeder, world):
    feeder.ask(tcp(1, "06 0003 0001"))
    assert world.diverter_to_nozzle
    feeder.ask(tcp(2, "06 0003 0000"))
    assert not world.diverter_to_nozzle


def test_feeder_stalled_hopper_stands_still(feeder, world):
    world.hopper_flow_g_min[:] = [6.0, 1.8]
    world.hopper_stalled[0] = True
    assert feeder.ask(tcp(1, "03 0010 0003"))[9:] == X("0000 0064 0005")


def test_feeder_empty_hopper_turns_without_giving(feeder, world):
    feeder.ask(tcp(1, "06 0000 012C"))
    feeder.ask(tcp(2, "06 0002 0001"))
    world.hopper_mass_g[0] = 0.0
    assert feeder.ask(tcp(3, "03 0010 0004"))[9:] == X("012C 0000 0004 0000")


@pytest.mark.parametrize(
    ("pdu", "answer"),
    [
        ("06 0000 03E9", "86 03"),  # 10.01 rpm
        ("06 0002 0004", "86 03"),  # hopper 3
        ("06 0003 0002", "86 03"),
        ("06 0010 0001", "86 02"),  # a measured speed
        ("03 0016 0001", "83 02"),
        ("04 0000 0001", "84 01"),
    ],
)
def test_feeder_refusals(feeder, world, pdu, answer):
    assert feeder.ask(tcp(7, pdu)) == X("0007 0000 0003 01") + X(answer)
    assert world.hopper_set_g_min == [0.0, 0.0]


# Gas


@pytest.fixture
def gas(sim, world):
    return Line(GasAlicat(sim, world), sim)


def test_gas_both_lengths(gas, world):
    world.carrier_l_min = 7.5
    reply = gas.ask(X("00 01 00 00 00 06 01 03 04 B0 00 0A"))
    # 7.5 L/min standard are 7.435 L/min at 14.7 psi and 22.5 degC: 40EDEC3Fh
    assert reply == X(
        "00 01 00 00 00 17 01 03 14 00 00 00 00 41 6B 33 33 41 B4 00 00 40 ED EC 3F 40 F0 00 00"
    )
    assert gas.ask(X("00 02 00 00 00 06 01 03 04 AF 00 0B")) == X(
        "00 02 00 00 00 19 01 03 16 00 04 00 00 00 00 41 6B 33 33 41 B4 00 00"
        " 40 ED EC 3F 40 F0 00 00"
    )


def test_gas_setpoint_is_written_and_read_back(gas, world):
    assert gas.ask(X("00 03 00 00 00 0B 01 10 03 F1 00 02 04 40 F0 00 00")) == X(
        "00 03 00 00 00 06 01 10 03 F1 00 02"
    )
    assert (world.carrier_set_l_min, world.shield_set_l_min) == (7.5, 0.0)
    assert gas.ask(X("00 04 00 00 00 06 01 03 03 F1 00 02")) == X(
        "00 04 00 00 00 07 01 03 04 40 F0 00 00"
    )


def test_gas_units_are_apart(gas, world):
    gas.ask(X("00 03 00 00 00 0B 02 10 03 F1 00 02 04 41 A0 00 00"))
    assert (world.carrier_set_l_min, world.shield_set_l_min) == (0.0, 20.0)
    world.shield_l_min = 20.0
    gas.emulator.status_flags[2] = 256
    reply = gas.ask(X("00 05 00 00 00 06 02 03 04 B0 00 0A"))
    assert reply[:13] == X("00 05 00 00 00 17 02 03 14 00 00 01 00")
    assert reply[-4:] == X("41 A0 00 00")


@pytest.mark.parametrize(
    ("setpoint", "code"),
    [("41F0 0001", "03"), ("BF80 0000", "03"), ("7FC0 0000", "03"), ("7F80 0000", "03")],
)
def test_gas_refuses_impossible_setpoints(gas, world, setpoint, code):
    world.carrier_set_l_min = 5.0
    request = X("00 03 00 00 00 0B 01 10 03 F1 00 02 04") + X(setpoint)
    assert gas.ask(request) == X("00 03 00 00 00 03 01 90") + X(code)
    assert world.carrier_set_l_min == 5.0


def test_gas_has_no_function_6(gas):
    assert gas.ask(tcp(1, "06 03F1 40F0")) == X("0001 0000 0003 01 86 01")


# Oxygen


@pytest.fixture
def oxygen(sim, world):
    return Line(OxygenEh(sim, world), sim)


def test_oxygen_low_word_first(oxygen, world):
    world.oxygen_ppm = 12.5
    assert oxygen.ask(X("00 01 00 00 00 06 01 03 08 29 00 02")) == X(
        "00 01 00 00 00 07 01 03 04 00 20 00 00"
    )
    assert oxygen.ask(X("00 02 00 00 00 06 01 03 13 2D 00 08")) == X(
        "00 02 00 00 00 13 01 03 10 00 00 41 48 00 00 41 C0 50 00 44 7D 00 00 00 00"
    )
    assert oxygen.ask(X("00 03 00 00 00 06 01 03 13 2D 00 0A")) == X(
        "00 03 00 00 00 17 01 03 14 00 00 41 48 00 00 41 C0 50 00 44 7D 00 00 00 00 00 00 00 00"
    )
    world.oxygen_ppm = 20.56  # the maker's example: 41A47AE1h
    assert oxygen.ask(tcp(4, "04 132D 0002"))[9:] == X("7A E1 41 A4")


def test_oxygen_error_flags(oxygen, world):
    world.oxygen_ppm = 12.5
    oxygen.emulator.error_flags = 2
    assert oxygen.ask(X("00 04 00 00 00 06 01 03 13 2D 00 08")) == X(
        "00 04 00 00 00 13 01 03 10 00 00 41 48 00 00 41 C0 50 00 44 7D 00 02 00 00"
    )


def test_oxygen_takes_no_writes(oxygen):
    assert oxygen.ask(X("0001 0000 000B 01 10 0829 0002 04 0000 0001")) == X(
        "0001 0000 0003 01 90 02"
    )


# Safety PLC


@pytest.fixture
def safety(sim, world):
    return Line(SafetyPilz(sim, world), sim)


def chain_word(safety):
    reply = safety.ask(X("00 01 00 00 00 06 01 04 02 00 00 02"))
    assert reply[:9] == X("00 01 00 00 00 07 01 04 04")
    assert reply[11:] == X("00 00")
    return reply[9:11]


def test_safety_published_reads(safety):
    assert safety.ask(X("00 01 00 00 00 06 01 04 02 00 00 02")) == X(
        "00 01 00 00 00 07 01 04 04 00 17 00 00"
    )
    assert safety.ask(X("00 02 00 00 00 06 01 04 08 00 00 01")) == X(
        "00 02 00 00 00 05 01 04 02 00 00"
    )
    assert safety.ask(X("00 03 00 00 00 06 01 04 02 00 00 03")) == X(
        "00 03 00 00 00 09 01 04 06 00 17 00 00 00 00"
    )


def test_safety_drops_the_supply_and_latches_it(safety, world):
    drop = X("00 04 00 00 00 06 01 06 00 00 00 01")
    assert safety.ask(drop) == drop
    assert not world.supply_relay_on
    assert not world.chain_closed
    assert safety.ask(X("00 05 00 00 00 06 01 03 00 00 00 01")) == X(
        "00 05 00 00 00 05 01 03 02 00 01"
    )
    assert chain_word(safety) == X("00 0B")
    safety.ask(tcp(1, "06 0000 0000"))
    assert not world.supply_relay_on  # taking the request back closes nothing


def test_safety_door_and_estop(safety, world):
    world.door_closed = False
    assert chain_word(safety) == X("00 09")  # e-stop good, reset needed
    world.door_closed = True
    assert chain_word(safety) == X("00 0B")
    world.estop_ok = False
    assert chain_word(safety) == X("00 0A")


def test_safety_reset_needs_an_edge_and_good_inputs(safety, world):
    world.door_closed = False
    safety.ask(tcp(1, "06 0000 0002"))
    assert not world.chain_closed  # the door is open
    world.door_closed = True
    safety.ask(tcp(2, "06 0000 0002"))
    assert not world.chain_closed  # still 1: no edge
    safety.ask(tcp(3, "06 0000 0000"))
    safety.ask(tcp(4, "06 0000 0002"))
    assert world.chain_closed
    assert chain_word(safety) == X("00 17")


def test_safety_reset_does_nothing_while_the_drop_is_asked(safety, world):
    safety.ask(tcp(1, "06 0000 0001"))
    safety.ask(tcp(2, "06 0000 0003"))
    assert not world.supply_relay_on
    safety.ask(tcp(3, "06 0000 0000"))
    safety.ask(tcp(4, "06 0000 0002"))
    assert world.supply_relay_on


def test_safety_outputs_are_input_registers_only(safety):
    assert safety.ask(tcp(1, "03 0200 0001")) == X("0001 0000 0003 01 83 02")
    assert safety.ask(tcp(1, "06 0200 0001")) == X("0001 0000 0003 01 86 02")


def test_safety_plc_state(safety):
    safety.emulator.plc_error = True
    safety.emulator.watchdog_tripped = True
    assert safety.ask(tcp(1, "04 0800 0002"))[9:] == X("00 21 00 00")

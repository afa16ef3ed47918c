"""Drivers and emulators of named makers, written apart from one page, meet in virtual time."""

from __future__ import annotations

import asyncio
import math

import pytest

from firmware_bridge.devices.gas_alicat import Alicat
from firmware_bridge.errors import DeviceError
from hil_sim.clock import Scheduler
from hil_sim.devices.chiller_sanda import ChillerSanda
from hil_sim.devices.feeder_map import FeederMap
from hil_sim.devices.gas_alicat import GasAlicat
from hil_sim.devices.gas_bronkhorst import GasBronkhorst
from hil_sim.devices.laser_ipg import LaserIpg
from hil_sim.devices.laser_laserline import LaserLaserline
from hil_sim.devices.laser_raycus import LaserRaycus
from hil_sim.devices.meter_ophir import MeterOphir
from hil_sim.devices.pyrometer_calex import PyrometerCalex
from tests.unit.emulator_bench import Line, make_world
from tests.unit.maker_bench import meet, on_serial

X = bytes.fromhex


def line(kind):
    sim, world = Scheduler(), make_world()
    return Line(kind(sim, world), sim), world


# ----- bytes of the page


def test_raycus_bytes():
    laser, world = line(LaserRaycus)
    assert laser.ask(b"STA\r") == b"STA: 2560\r"
    assert laser.ask(b"XYZ\r") == b"Command Err!\r"
    for word in (b"EEC\r", b"EMOD\r", b"EMON\r"):
        assert laser.ask(word) == word
    assert laser.ask(b"STA\r") == b"STA: 6672\r"  # bits 4, 9, 11, 12: start-up has no bit
    laser.sim.run(4_000_000)
    world.emission_w, world.gate_on = 300.0, True
    assert laser.ask(b"STA\r") == b"STA: 39444\r"
    world.emission_w, world.gate_on = 0.0, False
    world.door_closed = False
    laser.sim.run(laser.sim.now_us + 20_000)
    assert laser.ask(b"STA\r") == b"STA: %d\r" % (1 << 30 | 1 << 12 | 1 << 4)
    assert laser.ask(b"EMON\r") == b"Command Err!\r"


def test_laserline_bytes():
    laser, world = line(LaserLaserline)
    world.laser_temp_deg_c, world.coolant_deg_c = 25.0, 22.0
    ask = X("00 02 00 00 00 06 01 06 00 05 00 03")
    assert laser.ask(ask) == ask
    assert laser.ask(X("00 01 00 00 00 06 01 03 00 00 00 07")) == X(
        "00 01 00 00 00 11 01 03 0E 00 71 00 00 00 00 00 FA 00 DC 00 03 00 00"
    )
    assert laser.ask(X("00 03 00 00 00 06 01 06 00 06 00 02")) == X("00 03 00 00 00 03 01 86 03")


def test_sanda_bytes():
    chiller, world = line(ChillerSanda)
    world.coolant_deg_c, world.chiller_flow_l_min = 22.0, 8.0
    assert chiller.ask(X("01 03 01 00 00 06 C4 34")) == X(
        "01 03 0C 00 D2 00 DC 01 0E 02 6C 00 50 00 14 47 37"
    )
    assert chiller.ask(X("01 03 08 00 00 02 C6 6B")) == X("01 03 04 00 87 00 00 4A 1A")
    chiller.emulator.water_low = True
    assert chiller.ask(X("01 03 08 00 00 02 C6 6B")) == X("01 03 04 04 87 00 01 8A EA")


def test_bronkhorst_bytes():
    gas, world = line(GasBronkhorst)
    world.carrier_l_min = 7.5
    write = X("00 01 00 00 00 0B 01 10 A1 18 00 02 04 40 F0 00 00")
    assert gas.ask(write) == X("00 01 00 00 00 06 01 10 A1 18 00 02")
    assert world.carrier_set_l_min == 7.5
    assert gas.ask(X("00 07 00 00 00 06 01 03 00 20 00 02")) == X(
        "00 07 00 00 00 07 01 03 04 1F 40 1F 40"
    )
    assert gas.ask(X("00 08 00 00 00 06 01 06 00 21 0F A0"))[7:] == X("06 00 21 0F A0")
    assert world.carrier_set_l_min == 3.75
    assert gas.ask(X("00 09 00 00 00 06 01 06 00 21 7D 01"))[7:] == X("86 03")


def test_calex_bytes():
    pyrometer, world = line(PyrometerCalex)
    world.pool_temp_deg_c = 1825.3
    assert pyrometer.ask(X("01 03 00 18 00 01 04 0D")) == X("01 03 02 25 1C A3 1D")
    reply = pyrometer.ask(X("01 03 00 12 00 04 E4 0C"))
    assert reply[:11] == X("01 03 08 47 4D 47 4D 01 36 00 00")
    assert pyrometer.ask(X("01 06 00 18 23 28 10 E3")) == X("01 06 00 18 23 28 10 E3")


def test_ophir_bytes():
    meter, world = line(MeterOphir)
    world.emission_w = 412.5
    assert meter.ask(b"$SP\r\n") == b"*4.125E+02\r\n"
    assert meter.ask(b"$SI\r\n") == b"* W\r\n"
    assert meter.ask(b"$XX\r\n") == b"?UC XX\r\n"
    world.emission_w = 6000.0
    assert meter.ask(b"$SP\r\n") == b"*OVER\r\n"


# ----- driver and emulator together


def test_raycus_is_enabled_read_and_cut():
    async def scenario(laser, emulator, world):
        await laser.poll()
        assert laser.reading.ready
        await laser.emission_enable()
        await asyncio.sleep(3.1)
        world.emission_w, world.gate_on, world.laser_power_measured_w = 412.5, True, 412.5
        await laser.poll()
        assert (laser.reading.enabled, laser.reading.emission_on) == (True, True)
        assert laser.reading.power_measured_w == 412.5
        world.back_reflection = True
        await asyncio.sleep(0.03)
        await laser.poll()
        assert laser.reading.back_reflection
        assert not world.laser_enabled
        emulator.pulse_mode = True
        await laser.poll()
        assert "PULSE_MODE" in laser.reading.faults

    meet("laser_raycus", LaserRaycus, scenario)


@pytest.mark.parametrize("kind", [LaserLaserline, on_serial(LaserLaserline)])
def test_laserline_waits_after_an_e_stop_and_keeps_ready(kind):
    options = {"framing": "rtu"} if kind is not LaserLaserline else {}

    async def scenario(laser, emulator, world):
        loop = asyncio.get_running_loop()
        await laser.put("request_bits", 3)
        await laser.poll()
        assert laser.reading.ready
        await laser.emission_enable()
        await asyncio.sleep(2.1)
        await laser.poll()
        assert laser.reading.enabled
        assert world.laser_enabled
        await laser.emission_disable()
        await laser.poll()
        assert laser.reading.ready  # still: it costs diodes to leave it
        assert emulator.n_unready == 0
        world.estop_ok = False
        began_s = loop.time()
        await laser.poll()
        await asyncio.sleep(31.0)
        world.estop_ok = True
        world.reset_safety()
        await laser.poll()
        await laser.reset_errors()
        await laser.emission_enable()
        assert loop.time() - began_s >= 30.0
        assert emulator.faults() == 0

    meet("laser_laserline", kind, scenario, **options)


def test_laserline_closed_too_early_is_a_fault_of_the_source():
    async def scenario(laser, emulator, world):
        await laser.put("request_bits", 3)
        world.estop_ok = False
        await laser.poll()
        await asyncio.sleep(5.0)
        world.estop_ok = True
        world.reset_safety()
        await asyncio.sleep(0.1)
        await laser.poll()
        assert laser.reading.faults[0] == "COOLANT"
        with pytest.raises(DeviceError, match=r"s of 30 s left after the e-stop"):
            await laser.emission_enable()

    meet("laser_laserline", LaserLaserline, scenario)


def test_laserline_beam_time_out_ends_ready():
    async def scenario(laser, emulator, world):
        emulator.beam_timeout_us = 5_000_000
        await laser.put("request_bits", 3)
        await laser.poll()
        await laser.emission_enable()
        await asyncio.sleep(5.2)
        await laser.poll()
        assert laser.reading.faults == ("BEAM_TIMEOUT",)
        assert not laser.reading.ready
        assert emulator.n_unready == 1

    meet("laser_laserline", LaserLaserline, scenario)


def test_laserline_that_refuses_reads_back_otherwise():
    async def scenario(laser, emulator, world):
        emulator.door_tested = False
        await laser.poll()
        with pytest.raises(DeviceError, match="reads back"):
            await laser.emission_enable()

    meet("laser_laserline", LaserLaserline, scenario)


def test_sanda():
    async def scenario(chiller, emulator, world):
        world.coolant_deg_c, world.chiller_flow_l_min = 23.4, 8.0
        for _ in range(2):
            await chiller.poll()
            assert chiller.reading.coolant_deg_c == 23.4
            assert chiller.reading.flow_ok
        world.chiller_flow_l_min = 0.3
        await chiller.poll()
        assert not chiller.reading.flow_ok
        assert chiller.reading.alarm_bits == 1 << 10

    meet("chiller_sanda", ChillerSanda, scenario)


@pytest.mark.parametrize("kind", [GasBronkhorst, on_serial(GasBronkhorst)])
def test_bronkhorst(kind):
    options = {"framing": "rtu"} if kind is not GasBronkhorst else {}

    async def scenario(gas, emulator, world):
        await gas.set_carrier(7.5)
        await gas.set_shield(20.0)
        assert (world.carrier_set_l_min, world.shield_set_l_min) == (7.5, 20.0)
        world.carrier_l_min, world.shield_l_min = 7.25, 19.5
        for _ in range(2):
            await gas.poll()
            assert (gas.reading.carrier_l_min, gas.reading.shield_l_min) == (7.25, 19.5)
            assert gas.shield_pct == pytest.approx(65.0, abs=0.01)

    meet("gas_bronkhorst", kind, scenario, **options)


@pytest.mark.parametrize("kind", [GasAlicat, on_serial(GasAlicat)], ids=["tcp", "rtu"])
def test_alicat_over_both_framings(kind):
    options = {"framing": "rtu"} if kind is not GasAlicat else {}

    async def scenario(gas, emulator, world):
        await gas.set_carrier(7.5)
        assert world.carrier_set_l_min == 7.5
        world.carrier_l_min, world.shield_l_min = 7.25, 19.5
        for _ in range(2):
            await gas.poll()
            assert (gas.reading.carrier_l_min, gas.reading.shield_l_min) == (7.25, 19.5)

    meet("gas_alicat", kind, scenario, **options)


def test_alicat_addresses_are_the_manual_s_register_numbers_less_one():
    """Setpoint 1010 to 1011, status 1201 to 1202, mass flow 1209 to 1210; floats of two words."""
    assert [Alicat.carrier_set_l_min.address + 1, Alicat.carrier_set_l_min.words] == [1010, 2]
    assert Alicat.carrier_overflow.address + 1 == 1202  # low word of the status
    assert [Alicat.shield_l_min.address + 1, Alicat.shield_l_min.words] == [1209, 2]


def test_calex():
    async def scenario(pyrometer, emulator, world):
        for temp_deg_c, want, ok in (
            (1825.3, 1825.3, True),
            (300.0, None, True),
            (2100.0, None, False),
        ):
            world.pool_temp_deg_c = temp_deg_c
            for _ in range(2):
                await pyrometer.poll()
                reading = pyrometer.reading
                assert reading.ok is ok
                assert (
                    math.isnan(reading.temp_deg_c) if want is None else reading.temp_deg_c == want
                )
        await pyrometer.put("emissivity_pct", 88.0)

    meet("pyrometer_calex", PyrometerCalex, scenario)


def test_ophir():
    async def scenario(meter, emulator, world):
        world.emission_w = 412.5
        await meter.poll()
        assert meter.reading.power_w == 412.5
        world.emission_w = 6000.0
        await meter.poll()
        assert meter.reading.overrange

    meet("meter_ophir", MeterOphir, scenario)


@pytest.mark.parametrize("kind", [FeederMap, on_serial(FeederMap)], ids=["tcp", "rtu"])
def test_feeder_by_map_over_tcp_and_rtu(kind):
    options = {"framing": "rtu"} if kind is not FeederMap else {}

    async def scenario(powder, emulator, world):
        await powder.set_flow(0, 6.0)
        await powder.set_diverter(True)
        assert world.hopper_set_g_min[0] == pytest.approx(6.0)
        assert world.diverter_to_nozzle
        world.hopper_flow_g_min[:] = [5.98, 0.0]
        for _ in range(2):
            await powder.poll()
            assert powder.reading.flow_measured_g_min[0] == pytest.approx(5.98)
        await powder.make_safe()
        assert not world.diverter_to_nozzle
        assert world.hopper_set_g_min == [0.0, 0.0]

    meet("feeder_map", kind, scenario, **options)


PAIRS = [
    ("laser_ipg", LaserIpg, {}),
    ("laser_raycus", LaserRaycus, {}),
    ("laser_laserline", LaserLaserline, {}),
    ("chiller_sanda", ChillerSanda, {}),
    ("gas_bronkhorst", GasBronkhorst, {}),
    ("pyrometer_calex", PyrometerCalex, {}),
    ("meter_ophir", MeterOphir, {}),
    ("feeder_map", on_serial(FeederMap), {"framing": "rtu"}),
    ("gas_alicat", on_serial(GasAlicat), {"framing": "rtu"}),
]


@pytest.mark.parametrize(("driver", "kind", "options"), PAIRS, ids=[p[0] for p in PAIRS])
@pytest.mark.parametrize(
    ("hook", "value"), [("mute", True), ("garble", 3), ("truncate", 2), ("delay_us", 200_000)]
)
def test_driver_recovers_from_wire_fault(driver, kind, options, hook, value):
    async def scenario(device, emulator, world):
        loop = asyncio.get_running_loop()
        world.pool_temp_deg_c, world.chiller_flow_l_min = 1500.0, 8.0
        await device.poll()
        whole = getattr(emulator, hook)
        setattr(emulator, hook, value)
        failed = 0
        for _ in range(5):
            try:
                await device.poll()
            except DeviceError:
                failed += 1
            await asyncio.sleep(0.05)
        assert failed > 0, "the fault did nothing"
        setattr(emulator, hook, whole)
        until_s = loop.time() + 2.0
        before = device.reading
        while device.reading is before and loop.time() < until_s:
            try:
                await device.poll()
            except DeviceError:
                await asyncio.sleep(0.05)
        assert device.reading is not before

    meet(driver, kind, scenario, **options)

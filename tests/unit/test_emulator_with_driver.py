"""Drivers and emulators, written apart from one page, meet on null wires in virtual time.

What the world is must be what the driver reads; what the driver sets must be what the world
becomes; and after every fault of the wire the driver reads right values again.
"""

from __future__ import annotations

import asyncio
import math

import pytest

from controller.clock import NullTime, VirtualLoop
from firmware_bridge import registry
from firmware_bridge.errors import DeviceError
from firmware_bridge.transport import NullPort
from hil_sim import cellfile
from hil_sim.clock import Scheduler
from hil_sim.devices import build_emulators
from hil_sim.plant.world import World
from hil_sim.wires import make_ends
from tests.unit.emulator_bench import CELL_FILE

DRIVERS = {
    "laser": "laser_ipg",
    "pyrometer": "pyrometer_lumasense",
    "chiller": "chiller_smc",
    "powder": "feeder_map",
    "gas": "gas_alicat",
    "oxygen": "oxygen_eh",
    "safety": "safety_pilz",
}
CHANNEL = {role: n for n, role in enumerate(DRIVERS, 1)}


class DevicesOnly:
    """A cell without motion and physics, as the null clock wants a simulator."""

    def __init__(self) -> None:
        cell = cellfile.load(CELL_FILE)
        self.sim = Scheduler()
        self.world = World(cell)
        self.world.chiller_pressure_mpa = 0.3
        self.emulators = build_emulators(self.sim, self.world, cell)
        self.ends = make_ends(self.sim, null=True)
        for channel, emulator in self.emulators.items():
            end = self.ends[channel]
            emulator.send = end.send
            end.on_data = emulator.receive
            end.on_opened = emulator.opened
            end.on_closed = emulator.closed

    def opened(self, channel):
        self.ends[channel].opened()

    def closed(self, channel):
        self.ends[channel].closed()

    def wait(self, target_us, writes):
        for channel, data in writes:
            self.ends[channel].receive(data)
        if not self.sim.emitted:
            self.sim.run(target_us)
        self.sim.emitted = False
        deliveries = []
        for channel in sorted(self.ends):
            data = self.ends[channel].drain()
            if data:
                deliveries.append((channel, data))
        return self.sim.now_us, deliveries

    def finish(self):
        pass


@pytest.fixture
def cell():
    return DevicesOnly()


@pytest.fixture
def run(cell):
    """Run one role's scenario: a coroutine function of (driver, emulator)."""
    loop = VirtualLoop(NullTime(cell))

    def go(role, scenario):
        async def with_driver():
            options = {"map": "feeder_fictitious"} if role == "powder" else {}
            driver = registry.make(DRIVERS[role], NullPort(role, CHANNEL[role]), role, **options)
            await driver.connect()
            try:
                return await scenario(driver, cell.emulators[CHANNEL[role]])
            finally:
                driver.close()

        return loop.run_until_complete(with_driver())

    yield go
    loop.close()


def test_laser_is_enabled_read_and_cut(cell, run):
    world = cell.world

    async def scenario(laser, emulator):
        world.laser_temp_deg_c = 25.6
        await laser.poll()
        assert laser.reading.ready
        assert laser.reading.temp_deg_c == 25.6
        await laser.emission_enable()
        await asyncio.sleep(1.0)
        await laser.poll()
        assert (laser.reading.starting, laser.reading.enabled) == (True, False)
        await asyncio.sleep(2.1)
        world.laser_power_measured_w, world.emission_w, world.gate_on = 412.5, 412.5, True
        await laser.poll()
        assert (laser.reading.starting, laser.reading.enabled) == (False, True)
        assert laser.reading.emission_on
        assert laser.reading.power_measured_w == 412.5
        assert world.laser_enabled
        world.back_reflection = True
        await asyncio.sleep(0.02)
        await laser.poll()
        assert laser.reading.back_reflection
        assert not laser.reading.ready
        assert not world.laser_enabled
        world.back_reflection, world.emission_w, world.laser_power_measured_w = False, 0.0, 0.0
        await laser.reset_errors()
        world.estop_ok = False
        await laser.poll()
        assert not laser.reading.interlock_ok
        with pytest.raises(DeviceError, match="Interlock open"):
            await laser.emission_enable()

    run("laser", scenario)


def test_pyrometer(cell, run):
    async def scenario(pyrometer, emulator):
        for temp_deg_c, want, ok in (
            (1825.3, 1825.3, True),
            (300.0, None, True),
            (2400.0, None, False),
        ):
            cell.world.pool_temp_deg_c = temp_deg_c
            for _ in range(2):  # both commands
                await pyrometer.poll()
                reading = pyrometer.reading
                assert reading.ok is ok
                assert (
                    math.isnan(reading.temp_deg_c) if want is None else reading.temp_deg_c == want
                )

    run("pyrometer", scenario)


def test_chiller(cell, run):
    world = cell.world

    async def scenario(chiller, emulator):
        world.coolant_deg_c = 23.4
        await chiller.set_setpoint(23.0)
        await chiller.poll()
        await chiller.poll()
        reading = chiller.reading
        assert (reading.coolant_deg_c, reading.pressure_mpa, reading.setpoint_deg_c) == (
            23.4,
            0.3,
            23.0,
        )
        assert reading.flow_ok
        assert world.chiller_setpoint_deg_c == 23.0
        await asyncio.sleep(3.0)
        world.chiller_flow_fault, world.chiller_pressure_mpa = True, 0.0
        await chiller.poll()
        assert not chiller.reading.flow_ok
        assert chiller.reading.alarm_bits == 0x0140
        world.chiller_flow_fault = False
        await chiller.set_run(False)
        await chiller.set_run(True)
        assert world.chiller_running

    run("chiller", scenario)


def test_powder(cell, run):
    world = cell.world

    async def scenario(powder, emulator):
        await powder.set_flow(0, 6.0)
        await powder.set_flow(1, 3.6)
        await powder.set_diverter(True)
        assert world.hopper_set_g_min == [pytest.approx(6.0), pytest.approx(3.6)]
        assert world.diverter_to_nozzle
        world.hopper_flow_g_min[:] = [5.98, 3.6]
        world.hopper_mass_g[:] = [4988.0, 120.0]
        world.hopper_stalled[1] = True
        for _ in range(2):
            await powder.poll()
            reading = powder.reading
            assert reading.flow_measured_g_min == (pytest.approx(5.98), 0.0)
            assert reading.mass_left_g == (4988.0, 120.0)
            assert reading.stalled_hoppers == (False, True)
        await powder.set_flow(1, 0.0)
        assert world.hopper_set_g_min == [pytest.approx(6.0), 0.0]

    run("powder", scenario)


def test_gas(cell, run):
    world = cell.world

    async def scenario(gas, emulator):
        await gas.set_carrier(7.5)
        await gas.set_shield(20.0)
        assert (world.carrier_set_l_min, world.shield_set_l_min) == (7.5, 20.0)
        world.carrier_l_min, world.shield_l_min = 7.25, 19.5
        for _ in range(2):
            await gas.poll()
            assert (gas.reading.carrier_l_min, gas.reading.shield_l_min) == (7.25, 19.5)

    run("gas", scenario)


def test_oxygen(cell, run):
    async def scenario(oxygen, emulator):
        cell.world.oxygen_ppm = 12.5
        for _ in range(2):
            await oxygen.poll()
            assert (oxygen.reading.oxygen_ppm, oxygen.reading.valid) == (12.5, True)
        emulator.error_flags = 2
        await oxygen.poll()
        assert not oxygen.reading.valid

    run("oxygen", scenario)


def test_safety(cell, run):
    world = cell.world

    async def scenario(safety, emulator):
        await safety.poll()
        reading = safety.reading
        assert (reading.estop_ok, reading.door_closed, reading.interlock_ok) == (True, True, True)
        assert (reading.reset_needed, reading.supply_relay_on) == (False, True)
        await safety.drop_supply()
        assert not world.supply_relay_on
        world.door_closed = False
        await safety.poll()
        reading = safety.reading
        assert (reading.estop_ok, reading.door_closed, reading.interlock_ok) == (True, False, False)
        assert (reading.reset_needed, reading.supply_relay_on) == (True, False)
        world.door_closed = True
        await safety.request_reset()
        assert world.chain_closed
        emulator.watchdog_tripped = True
        for _ in range(5):  # the PLC's own state is read every 5th poll
            await safety.poll()
        assert not safety.reading.watchdog_ok

    run("safety", scenario)


@pytest.mark.parametrize("role", DRIVERS)
@pytest.mark.parametrize(
    ("hook", "value"), [("mute", True), ("garble", 3), ("truncate", 1), ("delay_us", 200_000)]
)
def test_driver_recovers_from_wire_fault(run, role, hook, value):
    async def scenario(driver, emulator):
        loop = asyncio.get_running_loop()
        await driver.poll()
        whole = getattr(emulator, hook)
        setattr(emulator, hook, value)
        failed = 0
        for _ in range(5):
            try:
                await driver.poll()
            except DeviceError:
                failed += 1
            await asyncio.sleep(0.05)
        assert failed > 0, "the fault did nothing"
        setattr(emulator, hook, whole)
        until_s = loop.time() + 2.0
        before = driver.reading
        while driver.reading is before and loop.time() < until_s:
            try:
                await driver.poll()
            except DeviceError:
                await asyncio.sleep(0.05)
        assert driver.reading is not before

    run(role, scenario)

"""Guards of the sequences that no other test would miss (found by benchmarks/mutants.py)."""

import asyncio

from controller.machine import sequences
from controller.machine.states import State, UnitMode
from firmware_bridge.errors import DeviceError
from tests.unit.test_executor import bench, order


@bench
async def test_gas_that_does_not_reach_its_flow_ends_the_start_before_the_laser_is_enabled(b):
    async def weak(l_min):
        """Too little to begin with, enough for SHIELD_LOW to be silent."""
        b.truth("gas", shield_l_min=0.85 * l_min, shield_set_l_min=l_min)

    b.drivers["gas"].set_shield = weak
    await b.ready()
    b.ex.start("test", None, UnitMode.DEVELOPMENT)
    await b.until_state("STOPPED")
    assert b.alarms()[0] == "START_FAILED"
    assert "gas does not reach" in b.ex.alarms.standing["START_FAILED"].detail
    for never in ("laser enable", "arm", "start"):
        assert b.said(never) == []


@bench
async def test_power_laws_that_are_not_taken_end_the_start_before_arming(b):
    async def refused(plan):
        raise DeviceError("laws refused")

    b.ex.loader.set_laws = refused
    await b.ready()
    b.ex.start("test", None, UnitMode.DEVELOPMENT)
    await b.until_state("STOPPED")
    assert "laws refused" in b.ex.alarms.standing["START_FAILED"].detail
    assert b.said("arm") == b.said("start") == []


@bench
async def test_abort_switches_the_source_and_the_powder_off_too(b):
    await b.executing()
    b.log.clear()
    b.ex.abort("test", "test")
    await b.until_state("ABORTED")
    order(b, "abort", "laser disable")
    assert b.said("powder diverter False")
    assert b.said("powder flow 0 0")


@bench
async def test_going_on_without_a_bead_left_brings_powder_back_before_the_axes_move(b):
    await b.executing()
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    await asyncio.sleep(0.1)
    b.log.clear()
    b.ex.outputs.diverter_planned = True
    b.ex.machine.to(State.UNHOLDING, "test")
    await sequences.unhold(b.ex, None, "test")
    order(b, "powder diverter True", "unhold")


@bench
async def test_going_on_leaves_the_powder_at_waste_where_the_plan_has_it_there(b):
    await b.executing()
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    await asyncio.sleep(0.1)
    b.log.clear()
    b.ex.outputs.diverter_planned = False
    b.ex.machine.to(State.UNHOLDING, "test")
    await sequences.unhold(b.ex, None, "test")
    assert b.said("powder diverter True") == []

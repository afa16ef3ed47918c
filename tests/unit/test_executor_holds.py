"""The supervisor around holds and stops: gas and powder, refusals, what can be gone on from."""

import asyncio
from dataclasses import replace

import pytest

from controller.errors import StateError
from controller.model import PowderChannel
from firmware_bridge.link_types import EventCode, LinkEvent
from tests.unit.test_executor import bench, order


@bench
async def test_shield_gas_flows_on_for_30_s_after_a_stop_and_the_record_is_closed_before(
    b, tmp_path
):
    await b.executing(folder=tmp_path)
    b.ex.stop("test", "test")
    stopped_us = b.ex.now_us()
    await b.until_state("STOPPED")
    assert b.records[0].closed is not None
    assert 2_000_000 <= b.said("gas carrier 0")[-1] - stopped_us <= 2_200_000
    assert not b.ex.at_rest
    assert b.said("gas shield 0") == []
    while not b.ex.at_rest:
        await asyncio.sleep(0.01)
    assert 29_990_000 <= b.said("gas shield 0")[0] - stopped_us <= 30_050_000


@bench
async def test_reset_shortens_the_gas_after_a_stop(b):
    await b.executing()
    b.ex.stop("test", "test")
    await b.until_state("STOPPED")
    b.ex.reset("test")
    await b.until_state("IDLE")
    assert len(b.said("gas shield 0")) == 1
    await asyncio.sleep(40.0)
    assert len(b.said("gas shield 0")) == 1


@bench
async def test_server_end_turns_the_gas_off(b):
    await b.executing()
    b.ex.stop("test", "test")
    await b.until_state("STOPPED")
    await b.ex.end()
    assert b.said("gas shield 0")


@bench
async def test_hold_now_diverts_powder_at_once_and_the_timeline_does_not_bring_it_back(b):
    b.link.track_ends_us = 10_000_000
    await b.executing(after_s=0.0)
    while b.ex.state.name != "EXECUTE" or b.ex.cursor.plan_us < 50_000:
        await asyncio.sleep(0.01)
    b.ex.hold("test", now=False)  # the timeline opens the diverter at 0.1 s, the hold waits
    await asyncio.sleep(0.2)
    assert b.said("powder diverter True")
    b.ex.hold("test", now=True)
    t = b.said("hold now")[0]
    await b.until_state("HELD")
    assert b.said("powder diverter False")[-1] - t <= 10_000
    b.ex.outputs.apply(PowderChannel.DIVERTER, 1.0)
    await asyncio.sleep(0.1)
    assert not b.ex.outputs.diverter_to_nozzle
    b.ex.unhold("test")
    await b.until_state("COMPLETE")
    # from the rest's timeline, before its bead
    assert b.said("powder diverter True")[-1] > b.said("start at 10")[0]


@bench
async def test_long_hold_rests_gas_and_powder_and_resume_brings_them_back_first(b):
    await b.executing(after_s=0.2)
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    held_us = b.ex.now_us()
    await asyncio.sleep(31.0)
    assert 29_990_000 <= b.said("gas shield 0")[0] - held_us <= 30_050_000
    assert b.said("powder flow 0 0")[-1] - held_us >= 29_990_000
    assert b.said("gas carrier 0") == []  # it keeps the nozzle free
    b.ex.unhold("test")
    going_us = b.ex.now_us()
    await b.until_state("COMPLETE")
    order(b, "gas shield 0", "gas shield 18", "start at 10", "powder diverter True")
    await b.until_state("COMPLETE")
    assert b.said("powder flow 0 6")[-1] > going_us
    # a feeder that rested needs 3.2 s to the nozzle and five of its lags
    assert b.said("powder diverter True")[-1] - going_us >= 5_900_000
    assert b.alarms() == []


@bench
async def test_hold_by_an_alarm_ends_emission_at_the_source(b):
    await b.executing(after_s=0.1)
    b.truth("powder", stalled=True)
    await b.until_state("HELD")
    await asyncio.sleep(0.05)
    order(b, "hold at track end", "laser disable")
    b.truth("powder", stalled=False)
    await asyncio.sleep(0.3)
    b.ex.unhold("test")
    await b.until_state("EXECUTE")
    order(b, "laser disable", "laser enable", "start at 10")


@bench
async def test_refused_segment_stops_the_build_with_the_reason(b):
    await b.executing()
    b.link.refusal = "null:motion: SEGMENTS refused: a segment is faster than an axis"
    t = b.ex.now_us()
    await b.until_state("STOPPING")
    assert b.ex.now_us() - t <= 20_000
    assert b.alarms() == ["MOTION_REFUSED"]
    assert "faster than an axis" in b.ex.alarms.standing["MOTION_REFUSED"].detail


@bench
async def test_refused_override_does_not_stop_a_build(b):
    await b.executing(after_s=0.1)
    b.link.refusal = "null:motion: OVERRIDE refused: out of range"
    await b.until_state("COMPLETE")
    assert b.alarms() == []


@bench
async def test_axes_that_rest_in_a_build_stop_it_after_half_a_second(b):
    await b.executing(after_s=0.1)
    b.link._state = 0  # nothing is streamed any more
    t = b.ex.now_us()
    await b.until_state("STOPPING")
    assert 490_000 <= b.ex.now_us() - t <= 540_000
    assert b.alarms() == ["MOTION_STALLED"]


@bench
async def test_pyrometer_that_shows_the_same_for_2_s_of_emission_holds(b):
    await b.executing(n_tracks=1, track_s=20.0)
    b.drivers["pyrometer"].frozen = True
    t = b.ex.now_us()
    await b.until_state("HOLDING")
    assert 1_950_000 <= b.ex.now_us() - t <= 2_100_000
    assert b.alarms() == ["PYROMETER_LOST"]


@bench
async def test_hold_at_the_very_end_of_the_plan_can_still_complete(b):
    """The axes come to rest with nothing left: going on finds the plan executed."""
    await b.executing(after_s=0.1)
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    b.link._plan_us, b.link._state, b.link.finished = sum(b.link._ticks), 0, True
    # the gate shut behind the last bead: segment 9 is the last one's way out
    b.ex.progress.event(LinkEvent(b.ex.motion.device_us, EventCode.GATE, 0, 9))
    b.link.deaf_to_unhold = True
    b.ex.unhold("test")
    await b.until_state("COMPLETE")
    assert b.alarms() == []


def _allow(b, **restart):
    """Another ``recipe.restart`` for the job under way."""
    recipe = b.ex.job.recipe
    changed = recipe.restart.model_copy(update=restart)
    b.ex.job = replace(b.ex.job, recipe=recipe.model_copy(update={"restart": changed}))


@bench
async def test_hold_longer_than_the_recipe_s_longest_stop_is_not_gone_on_with(b):
    await b.executing(after_s=0.1)
    _allow(b, longest_stop_s=5.0)
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    await asyncio.sleep(5.2)
    with pytest.raises(StateError, match=r"no light for 0\.1 min.*restart\.longest_stop is 0\.08"):
        b.ex.unhold("test")
    assert b.ex.state.name == "HELD"
    _allow(b, longest_stop_s=6.0)
    b.ex.unhold("test")
    await b.until_state("COMPLETE")


@bench
async def test_a_bead_is_begun_in_its_middle_no_more_often_than_the_recipe_s_most_restarts(b):
    await b.executing(after_s=0.1)
    _allow(b, most_restarts=1)
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    b.ex.unhold("test")
    while not b.link.status.gate_on:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    with pytest.raises(StateError, match=r"restart 2 of this build.*restart\.most_restarts is 1"):
        b.ex.unhold("test")
    assert b.ex.state.name == "HELD"


@bench
async def test_restarts_of_the_records_before_count_too(b):
    await b.ready()
    plan = replace(b.ex.job.plan, meta={"resumes": {"restarts": 3}})
    b.ex.load(replace(b.ex.job, plan=plan))
    b.ex.start("test", None, b.ex.mode)
    await b.until_state("EXECUTE")
    await asyncio.sleep(0.1)
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    with pytest.raises(StateError, match="restart 4 of this build"):
        b.ex.unhold("test")


@bench
async def test_a_hold_between_beads_is_no_restart(b):
    await b.executing(after_s=0.1)
    _allow(b, most_restarts=0)
    while b.link.status.gate_on:
        await asyncio.sleep(0.01)
    b.ex.progress.event(LinkEvent(b.ex.motion.device_us, EventCode.GATE, 0, 1))
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    b.ex.unhold("test")
    await b.until_state("COMPLETE")

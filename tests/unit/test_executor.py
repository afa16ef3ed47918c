"""The supervisor on a fake cell and simulated time: orders of start, hold, stop and abort."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from controller.errors import PreflightError, RecordError, StateError
from controller.machine.states import UnitMode
from controller.record.schema import TELEMETRY_ROW
from tests.unit.machine_fakes import Bench, make_test_job, run_virtual


def bench(test):
    """Run a coroutine test on a fresh bench in simulated time."""

    def run(tmp_path):
        async def main():
            b = Bench()
            try:
                await test(b, tmp_path) if test.__code__.co_argcount > 1 else await test(b)
            finally:
                await b.end()

        run_virtual(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def order(b: Bench, *what: str) -> None:
    """Assert that these commands came, in this order, whatever came between them."""
    left = iter(text for _, text in b.log)
    for wanted in what:
        assert wanted in left, f"{wanted!r} not in its place; log: {b.log}"


# --- going -------------------------------------------------------------------------------


@bench
async def test_build_runs_to_complete_and_seals_the_record(b, tmp_path):
    await b.ready()
    b.ex.start("anna", tmp_path, UnitMode.DEVELOPMENT)
    await b.until_state("COMPLETE")
    assert b.states[-4:] == ["STARTING", "EXECUTE", "COMPLETING", "COMPLETE"]
    (record,) = b.records
    assert record.closed[1] == "COMPLETE"
    assert record.folder == tmp_path
    assert record.job == Path("bar.lmdjob")
    assert record.events[0][1:] == (
        "command", {"what": "start", "who": "anna", "args": {"job": "f" * 64}},
    )  # fmt: skip
    assert [d["layer"] for _, kind, d in record.events if kind == "layer"] == [0, 1, 2]
    assert b.alarms() == []


@bench
async def test_start_enables_the_laser_before_arming_and_arms_before_motion(b):
    await b.executing()
    order(b, "load", "powder diverter False", "gas carrier 6", "laser enable", "arm", "start")


@bench
async def test_nothing_moves_and_no_powder_flows_before_execute(b):
    b.drivers["laser"].enable_s = 2.0
    await b.ready()
    b.ex.start("test", None, UnitMode.DEVELOPMENT)
    await asyncio.sleep(1.5)
    assert b.ex.state.name == "STARTING"
    assert b.said("start") == []
    assert b.said("powder flow 0 6") == []


@bench
async def test_complete_switches_laser_powder_and_gas_off_in_that_order(b):
    await b.executing()
    await b.until_state("COMPLETE")
    order(b, "laser disable", "powder flow 0 0", "gas carrier 0", "gas shield 0")
    # gas flows on for 2 s after the powder has ended
    assert b.said("gas carrier 0")[-1] - b.said("laser disable")[-1] >= 2_000_000
    assert b.said("disarm")
    assert not b.link.armed


@bench
async def test_timeline_commands_follow_plan_time(b):
    await b.executing(after_s=0.0)
    start = b.said("start")[0]
    await b.until_state("COMPLETE")
    assert 0 <= b.said("powder flow 0 6")[0] - start <= 30_000
    assert 100_000 <= b.said("powder diverter True")[0] - start <= 130_000
    assert 1_900_000 <= b.said("powder flow 0 0")[1] - start <= 1_930_000


@bench
async def test_timeline_waits_while_held(b):
    """Powder commands are due at plan times, so a hold moves them."""
    await b.executing(after_s=0.5)
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    await asyncio.sleep(10.0)
    b.ex.unhold("test")
    await b.until_state("COMPLETE")
    on_again = b.said("powder flow 0 6")[-1]
    assert on_again - b.said("start")[0] >= 10_500_000
    flow_off = next(t for t in b.said("powder flow 0 0") if t > on_again)
    # the plan feeds for 1.9 s, 0.4 s of it before the bead that is laid again
    assert 1_480_000 <= flow_off - on_again <= 1_920_000


@bench
async def test_laser_that_refuses_stops_the_start_without_motion(b):
    b.drivers["laser"].fails["enable"] = "ERR: interlock"
    await b.ready()
    b.ex.start("test", None, UnitMode.DEVELOPMENT)
    await b.until_state("STOPPED")
    assert "LASER_REFUSED" in b.alarms()
    assert b.said("start") == []
    assert b.said("arm") == []
    assert b.said("powder flow 0 6") == []


@bench
async def test_laser_that_never_enables_is_given_4_s(b):
    b.drivers["laser"].enable_s = 100.0
    await b.ready()
    b.ex.start("test", None, UnitMode.DEVELOPMENT)
    await b.until_state("STOPPING")
    waited = b.ex.now_us() - b.said("laser enable")[0]
    assert 3_900_000 <= waited <= 4_100_000


@bench
async def test_refused_arm_stops_the_start(b):
    b.link.refuse_arm = "ARM refused: interlock input open"
    await b.ready()
    b.ex.start("test", None, UnitMode.DEVELOPMENT)
    await b.until_state("STOPPED")
    assert b.alarms()[0] == "START_FAILED"
    assert "interlock input open" in b.ex.alarms.standing["START_FAILED"].detail
    order(b, "arm", "laser disable")
    assert b.said("start") == []


@bench
async def test_start_is_refused_with_named_reasons_and_leaves_no_record(b, tmp_path):
    await b.ready()
    b.truth("safety", door_closed=False)
    b.truth("chiller", flow_ok=False)
    await asyncio.sleep(0.3)
    with pytest.raises(PreflightError) as refused:
        b.ex.start("test", tmp_path / "r", UnitMode.DEVELOPMENT)
    names = [r.split(":")[0] for r in refused.value.reasons]
    assert names == ["DOOR_OPEN", "CHILLER_FLOW"]
    assert b.records == []
    assert not (tmp_path / "r").exists()
    assert b.ex.state.name == "IDLE"


@bench
async def test_second_build_does_not_begin_where_the_first_ended(b):
    """Status still tells of the old segment until the queue was emptied."""
    await b.executing()
    await b.until_state("COMPLETE")
    b.ex.reset("test")
    await b.until_state("IDLE")
    b.ex.home("test")
    await asyncio.sleep(1.5)
    old = b.ex.motion
    b.ex.start("test", None, UnitMode.DEVELOPMENT)
    await b.until_state("EXECUTE")
    # the segment of the first build's end, once more
    b.link.status = replace(old, received_us=b.link.status.received_us)
    await asyncio.sleep(0.02)
    assert b.ex.cursor.track <= 0
    await b.until_state("COMPLETE")


# --- hold --------------------------------------------------------------------------------


@bench
async def test_hold_waits_for_the_end_of_the_track(b):
    await b.executing(after_s=0.1)
    b.ex.hold("test", now=False)
    assert b.ex.state.name == "HOLDING"
    await b.until_state("HELD")
    assert b.said("hold at track end")
    assert b.said("hold now") == []
    assert b.link._plan_us == 400_000


@bench
async def test_held_diverts_powder_and_unhold_brings_it_back(b):
    await b.executing(after_s=0.2)
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    await asyncio.sleep(0.1)
    assert b.log[-1][1] == "powder diverter False"
    b.ex.unhold("test")
    await b.until_state("COMPLETE")
    order(b, "hold now", "powder diverter False", "start at 10", "powder diverter True")


@bench
async def test_hold_alarm_becomes_hold_now_after_its_longest_wait(b):
    b.link.track_ends_us = 1_500_000
    await b.executing(after_s=0.05, n_tracks=1, track_s=8.0)
    b.truth("powder", stalled=True)
    await b.until_state("HOLDING")
    t = b.said("hold at track end")[0]
    await b.until_state("HELD")
    assert 800_000 <= b.said("hold now")[0] - t <= 820_000


@bench
async def test_unhold_is_refused_while_the_cause_stands(b):
    await b.executing(after_s=0.1)
    b.truth("powder", stalled=True)
    await b.until_state("HELD")
    with pytest.raises(StateError, match="POWDER_STALLED"):
        b.ex.unhold("test")
    b.truth("powder", stalled=False)
    await asyncio.sleep(0.3)
    b.ex.unhold("test")
    await b.until_state("COMPLETE")
    assert b.ex.alarms.standing == {}  # going on acknowledges what has gone


@bench
async def test_resume_that_does_not_move_holds_again(b):
    b.link.deaf_to_unhold = True
    await b.executing(after_s=0.1)
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    b.ex.unhold("test")
    await b.until_state("HOLDING", "HELD")
    assert "RESUME_FAILED" in b.alarms()


@bench
async def test_laser_off_holds_now_and_unhold_enables_again(b):
    await b.executing(after_s=0.1)
    b.ex.laser_off("test")
    await b.until_state("HELD")
    order(b, "hold now", "laser disable")
    b.ex.unhold("test")
    await b.until_state("EXECUTE")
    order(b, "laser disable", "laser enable", "start at 10")


# --- stop and abort ----------------------------------------------------------------------


@bench
async def test_stop_shuts_the_gate_first_and_ends_the_record(b, tmp_path):
    await b.executing(folder=tmp_path)
    b.ex.stop("test", "test")
    assert b.log[-1][1] == "hold now"  # in the very call, before any other device
    await b.until_state("STOPPED")
    order(b, "hold now", "laser disable", "gas carrier 0")
    order(b, "hold now", "disarm")
    assert "powder diverter False" in [w for _, w in b.log]
    assert b.records[0].closed[1] == "STOPPED"


@bench
async def test_abort_latches_first_and_needs_clear_and_reset(b, tmp_path):
    await b.executing(folder=tmp_path)
    b.ex.abort("test", "test")
    assert b.log[-1][1] == "abort"
    await b.until_state("ABORTED")
    assert b.records[0].closed[1] == "ABORTED"
    with pytest.raises(StateError):
        b.ex.reset("test")
    with pytest.raises(StateError):
        b.ex.start("test", None, UnitMode.DEVELOPMENT)
    b.ex.clear("test")
    await b.until_state("STOPPED")
    assert b.said("reset")
    b.ex.reset("test")
    await b.until_state("IDLE")
    await asyncio.sleep(1.0)
    assert len(b.said("start")) == 1  # reset never restarts


@bench
async def test_failing_shutdown_step_does_not_skip_the_next(b):
    await b.executing()
    b.drivers["laser"].fails["disable"] = "ERR: busy"
    b.drivers["powder"].hangs["diverter False"] = None
    b.ex.stop("test", "test")
    await b.until_state("STOPPED")
    order(b, "laser disable", "gas carrier 0")
    assert "powder flow 0 0" in [w for _, w in b.log] or b.said("powder diverter False")
    assert b.said("disarm")
    assert b.alarms().count("SHUTDOWN_STEP") == 1
    # a laser that does not go off loses its supply
    assert b.said("safety drop supply")


@bench
async def test_laser_goes_off_behind_an_enable_call_that_was_on_its_way(b):
    b.drivers["laser"].enable_s = 0.5
    await b.ready()
    b.ex.start("test", None, UnitMode.DEVELOPMENT)
    while not b.said("laser enable"):
        await asyncio.sleep(0.01)
    b.ex.stop("test", "test")
    await b.until_state("STOPPED")
    assert len(b.said("laser disable")) == 2
    assert b.drivers["laser"].truth.enabled is False


@bench
async def test_silent_motion_controller_aborts_within_105_ms(b):
    await b.executing()
    last = b.link.status.received_us
    b.link.silent = True
    await b.until_state("ABORTING")
    assert b.ex.snapshot.now_us - last <= 111_000  # 100 ms and the tick
    assert b.alarms() == ["LINK_LOST"]


@bench
async def test_firmware_fault_is_followed_by_abort(b):
    await b.executing()
    b.link.fault, b.link._state = 1, 5
    await b.until_state("ABORTED")
    assert b.ex.alarms.first_out.detail == "BEAT_LOST"
    b.ex.clear("test")
    await b.until_state("STOPPED")


@bench
async def test_estop_aborts_and_clear_waits_for_its_release(b):
    await b.executing()
    b.truth("safety", estop_ok=False, interlock_ok=False)
    await b.until_state("ABORTED")
    assert b.ex.alarms.first_out.alarm.name == "ESTOP"
    with pytest.raises(StateError, match="ESTOP"):
        b.ex.clear("test")
    b.truth("safety", estop_ok=True, reset_needed=True)
    await asyncio.sleep(0.2)
    b.ex.clear("test")
    await b.until_state("STOPPED")
    assert b.said("safety request reset")


@bench
async def test_uncommanded_emission_drops_the_supply_at_once(b):
    await b.ready()
    b.truth("laser", power_measured_w=500.0)
    t = b.ex.now_us()
    await b.until_state("ABORTING")
    await asyncio.sleep(0.01)  # the tick of this very instant has only given the command
    dropped = b.said("safety drop supply")[0]
    assert dropped - t <= 100_000
    assert b.alarms()[0] == "EMISSION_UNCOMMANDED"


# --- other -------------------------------------------------------------------------------


@bench
async def test_token_is_given_each_tick_in_every_state(b):
    await b.ready()
    n = b.link.n_tokens
    await asyncio.sleep(1.0)
    assert b.link.n_tokens - n == 100


@bench
async def test_slow_device_delays_neither_ticks_nor_others(b):
    async def never():
        await asyncio.sleep(5.0)

    b.drivers["powder"].poll = never
    await b.ready()
    age = b.ex.snapshot.now_us - b.ex.readings.laser.at_us
    assert age <= 60_000
    assert b.ex.devices.by_role["powder"].n_missed > 5


@bench
async def test_device_error_is_told_once_and_its_recovery_too(b):
    await b.ready()
    b.drivers["gas"].dead = True
    await asyncio.sleep(1.0)
    b.drivers["gas"].dead = False
    await asyncio.sleep(0.5)
    assert b.device_texts == [("gas", "gas: no answer"), ("gas", "answers again")]


@bench
async def test_home_is_refused_twice_and_failure_is_an_alarm(b):
    await b.ready()
    b.link.home_fails = "HOMING fault: switch of Z did not close"
    b.ex.home("test")
    assert b.ex.at_rest is False
    with pytest.raises(StateError, match="HOMING"):
        b.ex.home("test")
    with pytest.raises(StateError, match="HOMING"):
        b.ex.start("test", None, UnitMode.DEVELOPMENT)
    await b.until_state("STOPPED")
    assert "HOMING_FAILED" in b.alarms()
    assert b.ex.activity == ""


@bench
async def test_full_disk_holds_the_build(b, tmp_path):
    await b.executing(folder=tmp_path)
    b.records[0].fails = RecordError("record.mcap: no space left")
    await b.until_state("HELD")
    assert b.alarms() == ["RECORD_FAILED"]
    assert b.ex.journal.result == {"error": "record.mcap: no space left"}


@bench
async def test_override_outside_of_the_window(b):
    await b.executing()
    with pytest.raises(StateError, match=r"1\.5 above 1\.2"):
        b.ex.override("test", 1.5)
    with pytest.raises(StateError):
        b.ex.override("test", math.nan)
    b.ex.override("test", 0.9)
    assert b.said("override 0.9")
    b.ex.override("test", 0.0)
    assert b.ex.state.name == "HOLDING"
    assert b.said("hold now")
    assert b.said("override 0.0") == []


@bench
async def test_supervisor_error_aborts(b):
    await b.executing()

    def broken():
        raise ZeroDivisionError("test")

    b.ex.on_tick.append(broken)
    await b.until_state("ABORTING")
    b.ex.on_tick.clear()
    assert "ZeroDivisionError" in b.ex.alarms.standing["SUPERVISOR_ERROR"].detail
    await b.until_state("ABORTED")


@bench
async def test_telemetry_rows_are_100_a_second_in_the_schema_s_order(b, tmp_path):
    await b.executing(after_s=1.0, folder=tmp_path)
    rows = b.records[0].rows
    table = np.frombuffer(b"".join(packed for _, packed in rows), TELEMETRY_ROW)
    assert np.all(np.diff(table["t_us"]) == 10_000)
    last = table[-1]
    assert last["state"] == 6
    assert last["power_set_w"] == 600.0
    assert last["carrier_set_l_min"] == 6.0
    assert last["carrier_measured_l_min"] == 6.0
    assert last["powder_1_set_g_min"] == 6.0
    assert last["powder_1_left_g"] == 5000.0
    assert last["coolant_deg_c"] == 22.0
    assert last["pool_temp_deg_c"] == pytest.approx(1500.0, abs=0.2)
    assert last["diverter_to_nozzle"] == 1.0
    assert last["beat_age_ms"] == 5.0
    assert last["x_mm"] > 0.0
    gate = table["gate"] == 1.0
    assert gate.any()
    assert np.all(table["power_commanded_w"][gate] == 600.0)
    assert np.all(table["power_commanded_w"][~gate] == 0.0)


@bench
async def test_server_end_aborts_a_build_and_closes_its_record(b, tmp_path):
    await b.executing(folder=tmp_path)
    await b.ex.end()
    assert b.records[0].closed[1] == "ABORTED"
    assert not b.link.is_open


@bench
async def test_job_cannot_be_changed_during_a_build(b):
    await b.executing()
    with pytest.raises(StateError, match="EXECUTE"):
        b.ex.load(make_test_job())

"""Unit modes, sequences beside a build, test emissions, and their commands with roles."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from controller.api.commands import Commands
from controller.api.protocol import MAY, ROLES, CallError
from controller.api.server import Caller
from controller.errors import PreflightError, StateError
from controller.machine import care
from controller.machine.audit import Audit, verify
from controller.machine.extras import Extras
from controller.machine.snapshot import Blocker
from controller.machine.states import UnitMode
from controller.model import PowderChannel
from firmware_bridge.segments import FLAG_GATE
from tests.unit.machine_fakes import Bench, make_test_job, run_virtual
from tests.unit.test_interlocks_fitted import GOOD as FITTED

PRODUCTION, DEVELOPMENT = UnitMode.PRODUCTION, UnitMode.DEVELOPMENT
MAINTENANCE = UnitMode.MAINTENANCE


class Fitted:
    """A device of an optional role on the bench: takes its one command, shows what it is told."""

    def __init__(self, bench, role):
        self.role, self.bench = role, bench
        self.truth = FITTED[role]
        self.reading = replace(self.truth, at_us=bench.ex.loop_us())
        bench.ex.on_tick.append(self.poll)

    def poll(self):
        now_us = self.bench.ex.loop_us()
        self.reading = replace(self.truth, at_us=now_us)

    async def set_purge(self, on):
        self.bench.log.append((self.bench.ex.loop_us(), f"purge {on}"))
        self.truth = replace(self.truth, purging=on)


def fit(bench, role):
    """Give the bench's cell one more device."""
    ex, device = bench.ex, Fitted(bench, role)
    loop = SimpleNamespace(driver=device, commands=asyncio.Lock(), role=role)
    ex.devices.by_role[role] = loop
    ex.readings.extras = Extras({role: device})
    ages = {**ex.limits.age_us, role: 1_000_000}
    ex.limits = replace(ex.limits, age_us=ages)
    return device


def on_bench(test):
    """A coroutine test on a booted fake cell."""

    def run():
        async def main():
            bench = Bench()
            await bench.ready()
            try:
                await test(bench)
            finally:
                await bench.end()

        run_virtual(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def begin(bench, name, work):
    bench.ex.modes.run(name, "operator anna", {}, work)


async def over(bench, limit_s=100.0):
    """Until no activity is under way; what it told."""
    end_s = asyncio.get_running_loop().time() + limit_s
    while bench.ex.activity:
        assert asyncio.get_running_loop().time() < end_s
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return list(bench.ex.modes.last.values())[-1]


# --- modes -------------------------------------------------------------------------------


@on_bench
async def test_production_refuses_what_differs_and_development_reports_it(bench):
    ex = bench.ex
    approved = replace(ex.job, recipe=ex.job.recipe.model_copy(update={"approved": True}))
    ex.load(approved)
    ex.modes.deviations = lambda: (Blocker("SOFTWARE_NOT_APPROVED", "the software is 2"),)
    with pytest.raises(PreflightError) as error:
        ex.start("test", None, PRODUCTION)
    assert [r.split(":")[0] for r in error.value.reasons] == ["SOFTWARE_NOT_APPROVED"]
    assert ex.modes.header() == {"deviations": ["SOFTWARE_NOT_APPROVED: the software is 2"]}
    ex.start("test", None, DEVELOPMENT)
    await bench.until_state("EXECUTE")


@on_bench
async def test_a_start_may_be_stricter_than_the_mode_never_milder(bench):
    ex = bench.ex
    ex.modes.set(PRODUCTION, "engineer max")
    with pytest.raises(PreflightError, match="set_mode first"):
        ex.start("test", None, DEVELOPMENT)
    ex.modes.set(MAINTENANCE, "service eva")
    with pytest.raises(PreflightError, match="set_mode first"):
        ex.start("test", None, DEVELOPMENT)
    with pytest.raises(PreflightError, match="emission_test"):
        ex.start("test", None, MAINTENANCE)
    assert ("mode", {"old": "production", "new": "maintenance", "who": "service eva"}) in [
        (kind, data) for _, kind, data in bench.events
    ]


@on_bench
async def test_mode_changes_at_rest_only(bench):
    bench.ex.start("test", None, DEVELOPMENT)
    await bench.until_state("EXECUTE")
    with pytest.raises(StateError, match="only at rest"):
        bench.ex.modes.set(MAINTENANCE, "service eva")


# --- sequences ---------------------------------------------------------------------------


@on_bench
async def test_purge_waits_for_purity_that_lasts_and_leaves_the_valve_open(bench):
    fit(bench, "chamber")
    begin(bench, "purge", care.purge(bench.ex, 100.0, -30.0, 2.0, 60.0))
    await asyncio.sleep(5.0)
    assert bench.ex.activity == "PURGE"
    bench.truth("oxygen", oxygen_ppm=50.0)
    await asyncio.sleep(1.5)
    bench.truth("oxygen", oxygen_ppm=150.0)  # not for 2 s in one go
    await asyncio.sleep(1.0)
    bench.truth("oxygen", oxygen_ppm=50.0)
    await asyncio.sleep(1.5)
    assert bench.ex.activity == "PURGE"
    assert await over(bench) == "50 ppm oxygen, valve open"
    assert [t for _, t in bench.log if t.startswith("purge")] == ["purge True"]


@pytest.mark.parametrize("way", ["late", "stopped", "wet", "not valid"])
def test_purge_that_does_not_succeed_closes_the_valve(way):
    async def main():
        bench = Bench()
        await bench.ready()
        chamber = fit(bench, "chamber")
        bench.truth("oxygen", oxygen_ppm=500.0 if way in ("late", "stopped") else 1.0)
        if way == "wet":
            chamber.truth = replace(chamber.truth, dew_point_deg_c=-10.0)
        if way == "not valid":
            bench.truth("oxygen", valid=False)
        begin(bench, "purge", care.purge(bench.ex, 100.0, -30.0, 1.0, 10.0))
        await asyncio.sleep(2.0)
        if way == "stopped":
            bench.ex.stop("test", "test")
            await bench.until_state("STOPPED")
        said = await over(bench)
        assert said == ("broken off" if way == "stopped" else
                        "100 ppm oxygen and a dew point of -30 degC not within 10 s")  # fmt: skip
        assert ("SEQUENCE_FAILED" in bench.alarms()) is (way != "stopped")
        assert [t for _, t in bench.log if t.startswith("purge")] == ["purge True", "purge False"]
        await bench.end()

    run_virtual(main)


@on_bench
async def test_purge_means_something_only_with_a_chamber_and_a_limit(bench):
    with pytest.raises(StateError, match=r"no \[chamber\]"):
        care.check_purge(bench.ex, 100.0)
    fit(bench, "chamber")
    with pytest.raises(StateError, match="no oxygen limit"):
        care.check_purge(bench.ex, None)
    assert care.check_purge(bench.ex, 40.0) == 40.0


@on_bench
async def test_gas_flows_for_its_time_and_goes_off(bench):
    begin(bench, "gas_sequence", care.gas(bench.ex, 5.0, 12.0, 3.0))
    assert await over(bench) == "5 and 12 L/min for 3 s"
    on, off = bench.said("gas shield 12")[0], bench.said("gas shield 0")[-1]
    assert 3.0e6 <= off - on <= 3.5e6
    assert bench.ex.outputs.carrier_set_l_min == 0.0


@on_bench
async def test_warm_up_enables_without_arming_and_switches_off(bench):
    begin(bench, "warm_up", care.warm_up(bench.ex, 4.0))
    assert (await over(bench)).startswith("source enabled for 4 s")
    assert bench.said("arm") == []
    assert bench.said("laser disable")[-1] - bench.said("laser enable")[0] >= 4_000_000
    assert not bench.drivers["laser"].truth.enabled


@on_bench
async def test_warm_up_ends_when_the_coolant_does(bench):
    begin(bench, "warm_up", care.warm_up(bench.ex, 30.0))
    await asyncio.sleep(2.0)
    bench.truth("chiller", flow_ok=False)
    assert (await over(bench)).startswith("warm-up ended: CHILLER_FLOW")
    assert not bench.drivers["laser"].truth.enabled
    assert "SEQUENCE_FAILED" in bench.alarms()


@on_bench
async def test_warm_up_enables_nothing_while_something_speaks_against_it(bench):
    bench.truth("safety", door_closed=False)
    await asyncio.sleep(0.3)
    begin(bench, "warm_up", care.warm_up(bench.ex, 4.0))
    assert (await over(bench)).startswith("warm-up ended: DOOR_OPEN")
    assert bench.said("laser enable") == []


@on_bench
async def test_an_enable_on_its_way_when_warm_up_ends_is_switched_off_behind_it(bench):
    laser, enable = bench.drivers["laser"], bench.drivers["laser"].emission_enable

    async def late():
        await asyncio.sleep(1.0)
        await enable()

    laser.emission_enable = late
    begin(bench, "warm_up", care.warm_up(bench.ex, 4.0))
    await asyncio.sleep(0.3)
    bench.ex.modes._ex._cancel_sequence()
    await asyncio.sleep(2.0)
    assert bench.said("laser enable")
    assert bench.said("laser disable")[-1] >= bench.said("laser enable")[0]
    assert not laser.truth.enabled


@on_bench
async def test_no_sequence_begins_while_an_alarm_stands_that_would_end_it(bench):
    bench.ex.raise_alarm("WINDOW_HOT", "70 degC")
    bench.ex.alarms.shelve("WINDOW_HOT", "operator anna", "seen", 60.0, bench.ex.now_us())
    with pytest.raises(StateError, match="WINDOW_HOT still present"):
        begin(bench, "gas_sequence", care.gas(bench.ex, 5.0, 5.0, 1.0))
    assert bench.ex.activity == ""
    begin(bench, "cool_down", care.cool_down(bench.ex, 1.0, 10.0, chiller_off=False))
    assert (await over(bench)).startswith("1 s of gas and coolant")


@on_bench
async def test_no_device_is_told_anything_by_hand_beside_a_sequence(bench):
    call = commands_of(bench).methods()["device_call"][1]
    service = Caller("service", "eva")
    asked = {"device": "powder", "call": "set_diverter", "args": [True]}
    begin(bench, "gas_sequence", care.gas(bench.ex, 5.0, 5.0, 3.0))
    with pytest.raises(CallError, match="GAS_SEQUENCE goes on"):
        await call(service, asked)
    assert bench.said("powder diverter True") == []
    await over(bench)
    await call(service, asked)
    assert bench.said("powder diverter True")


@on_bench
async def test_the_chain_is_not_reset_by_hand_before_the_source_forgot_its_light(bench):
    call = commands_of(bench).methods()["device_call"][1]
    bench.truth("laser", unexpected_emission=True)
    await bench.until_state("ABORTED")
    reset = {"device": "safety", "call": "request_reset", "args": []}
    with pytest.raises(CallError, match="EMISSION_UNCOMMANDED stands"):
        await call(Caller("service", "eva"), reset)
    warm = {"device": "chiller", "call": "set_setpoint", "args": [0.0]}
    with pytest.raises(CallError, match="in ABORTED"):
        await call(Caller("service", "eva"), warm)


@on_bench
async def test_powder_is_steady_to_waste_before_it_is_said_so(bench):
    begin(bench, "powder_stabilise", care.stabilise_powder(bench.ex, 0, 6.0, 2.0, 30.0))
    assert (await over(bench)).startswith("hopper 1: 6.00 g/min steady")
    assert bench.said("powder diverter False")
    assert not bench.said("powder diverter True")
    assert bench.said("powder flow 0 0")[-1] > bench.said("powder flow 0 6")[0]
    assert bench.ex.outputs.hopper_set_g_min == (0.0, 0.0)


@on_bench
async def test_powder_that_never_gets_steady_is_said_and_ends(bench):
    async def deaf(hopper, g_min):
        bench.log.append((0, f"flow {g_min:g}"))

    bench.drivers["powder"].set_flow = deaf
    begin(bench, "powder_stabilise", care.stabilise_powder(bench.ex, 0, 6.0, 1.0, 5.0))
    assert await over(bench) == "6 g/min of hopper 1 steady not within 5 s"
    assert [t for _, t in bench.log if t.startswith("flow")] == ["flow 6", "flow 0"]


@on_bench
async def test_cool_down_lets_gas_and_coolant_go_on_and_then_as_asked(bench):
    begin(bench, "cool_down", care.cool_down(bench.ex, 5.0, 10.0, chiller_off=True))
    assert await over(bench) == "5 s of gas and coolant, coolant off"
    assert bench.said("chiller run False")[0] - bench.said("gas shield 10")[0] >= 5_000_000


@on_bench
async def test_one_sequence_at_a_time_and_none_beside_a_build(bench):
    begin(bench, "gas_sequence", care.gas(bench.ex, 5.0, 5.0, 3.0))
    with pytest.raises(StateError, match="GAS_SEQUENCE is under way"):
        begin(bench, "warm_up", care.warm_up(bench.ex, 1.0))
    with pytest.raises(StateError, match="under way"):
        bench.ex.start("test", None, DEVELOPMENT)
    await over(bench)
    bench.ex.start("test", None, DEVELOPMENT)
    await bench.until_state("EXECUTE")
    with pytest.raises(StateError, match="only possible in state IDLE"):
        begin(bench, "warm_up", care.warm_up(bench.ex, 1.0))


# --- long hold ---------------------------------------------------------------------------


@pytest.mark.parametrize("ready", [False, True])
def test_a_source_kept_ready_stays_enabled_in_a_hold_by_an_alarm(ready):
    async def main():
        bench = Bench()
        laser = bench.ex.cell.laser.model_copy(update={"keep_ready_in_hold": ready})
        bench.ex.cell = bench.ex.cell.model_copy(update={"laser": laser})
        await bench.executing()
        bench.truth("powder", stalled=True)
        await bench.until_state("HELD")
        await asyncio.sleep(0.5)
        assert bench.drivers["laser"].truth.enabled is ready
        assert not bench.link.status.gate_on
        await bench.end()

    run_virtual(main)


# --- test emission -----------------------------------------------------------------------


def standing_light(purpose="emission test"):
    """A job that feeds nothing and shines at standstill."""
    job = make_test_job(n_tracks=1, track_s=2.0)
    plan = job.plan
    plan.meta["purpose"] = purpose
    plan.segments["steps"] = 0
    plan.timeline["value"][plan.timeline["channel"] <= int(PowderChannel.HOPPER_2)] = 0.0
    return replace(job, powder_g=(0.0, 0.0))


@on_bench
async def test_a_job_that_tests_or_measures_feeds_no_powder_and_shines_at_standstill(bench):
    ex = bench.ex

    def against():
        return [b.text.partition("job for ")[2] for b in ex.blockers(None) if b.name == "PURPOSE"]

    assert against() == []  # a build may do both
    for purpose in ("emission test", "calibration:power", "calibration"):
        ex.load(standing_light(purpose))
        assert against() == []
        fed = standing_light(purpose)
        ex.load(replace(fed, powder_g=(0.0, 1.0)))
        assert against() == [f"{purpose!r} feeds no powder, this one does"]
        fed.plan.timeline["value"][2] = 6.0  # whatever its figures say
        ex.load(fed)
        assert against() == [f"{purpose!r} feeds no powder, this one does"]
        moved = standing_light(purpose)
        moved.plan.segments["steps"][0, 1] = -4
        ex.load(moved)
        assert against() == [f"{purpose!r} has light at standstill only"]
        with pytest.raises(PreflightError, match="at standstill only"):
            ex.start("test", None, DEVELOPMENT)


@on_bench
async def test_a_test_emission_lasts_long_enough_for_its_meter(bench):
    job = standing_light()
    bench.ex.load(job)
    assert [b for b in bench.ex.blockers(None) if b.name == "PURPOSE"] == []
    lit = np.flatnonzero(job.plan.segments["flags"] & FLAG_GATE)
    job.plan.segments["ticks_lo"][lit[0]], job.plan.segments["ticks_hi"][lit[0]] = 500, 0
    (found,) = [b for b in bench.ex.blockers(None) if b.name == "PURPOSE"]
    assert "0.6 s at least" in found.text


@pytest.mark.parametrize(
    ("meter", "alarm"),
    [
        ({"power_w": 600.0}, ""),
        ({"power_w": 400.0}, "TEST_GUARD"),
        ({"power_w": 800.0}, "TEST_GUARD"),
        ({"power_w": 600.0, "valid": False}, "TEST_GUARD"),
        ({"power_w": 600.0, "overrange": True}, "TEST_GUARD"),
    ],
)
def test_a_test_emission_stops_when_the_meter_does_not_show_it(meter, alarm):
    async def main():
        bench = Bench()
        await bench.ready()
        fit(bench, "power_meter").truth = replace(FITTED["power_meter"], **meter)
        bench.ex.load(standing_light())
        bench.ex.limits = replace(
            bench.ex.limits, age_us={**bench.ex.limits.age_us, "power_meter": 1_000_000}
        )
        bench.ex.modes.set(MAINTENANCE, "service eva")
        commands = Commands(bench.ex, None, {}, {"simulated": True}).methods()
        bench.ex.on_rest.clear()
        call = commands["emission_test"][1]
        with pytest.raises(CallError, match=r"is not the job's 600 W"):
            await call(Caller("service", "eva"), {"power_w": 500.0})
        await call(Caller("service", "eva"), {"power_w": 600.0})
        await bench.until_state("EXECUTE")
        with pytest.raises(StateError):  # asked again: refused, and the guard stays
            await call(Caller("service", "eva"), {"power_w": 600.0})
        assert bench.ex.modes.test_power_w == 600.0
        await bench.until_state("COMPLETE", "STOPPED")
        assert ("TEST_GUARD" in bench.alarms()) is bool(alarm)
        assert bench.ex.state.name == ("STOPPED" if alarm else "COMPLETE")
        await asyncio.sleep(0.1)
        assert bench.ex.modes.test_power_w == 0.0
        await bench.end()

    run_virtual(main)


# --- commands ----------------------------------------------------------------------------


def commands_of(bench, **about):
    commands = Commands(bench.ex, None, {}, {"simulated": True, **about})
    bench.ex.on_rest.clear()
    return commands


def test_roles_are_known_and_each_command_states_one():
    assert set(MAY) == set(ROLES)
    assert all(role in MAY[role] and "observer" in MAY[role] for role in ROLES)

    async def main():
        bench = Bench()
        table = commands_of(bench).methods()
        assert {role for role, _ in table.values()} <= set(ROLES)
        least = {name: role for name, (role, _) in table.items()}
        assert least["inject"] == "tester"
        assert least["emission_test"] == "service"
        assert least["set_mode"] == least["approve"] == "engineer"
        assert least["stop"] == "observer"
        for role in ROLES:  # a tester breaks things, an engineer approves them, not both
            assert not {"tester", "engineer"} <= set(MAY[role])

    run_virtual(main)


def test_every_command_leaves_a_line_with_who_role_and_result(tmp_path):
    async def main():
        bench = Bench()
        await bench.ready()
        commands = commands_of(bench)
        commands.audit = Audit(tmp_path / "audit.log", "sim")
        table = commands.methods()
        anna = Caller("operator", "anna")
        await table["why_not"][1](anna, {})
        shelf = {"name": "CAMERA_LOST", "why": "repair", "seconds": 60}
        await table["alarm_shelve"][1](anna, shelf)
        with pytest.raises(StateError):
            await table["unhold"][1](anna, {})
        commands.audit.close()
        told = [d for _, kind, d in bench.events if kind == "audit"]
        assert [d["command"] for d in told] == ["alarm_shelve", "unhold"]
        await bench.end()

    run_virtual(main)
    _, _, rows = verify(tmp_path / "audit.log", "sim")
    assert [(r["who"], r["role"], r["command"], r["result"][:10]) for r in rows] == [
        ("anna", "operator", "alarm_shelve", "ok"),
        ("anna", "operator", "unhold", "StateError"),
    ]


@on_bench
async def test_injection_goes_to_simulated_cells_only(bench):
    asked = []

    def tell(request):
        asked.append(request)
        return {"ok": True, "t_us": 5}

    fault = {"device": "chiller", "layer": "physics", "kind": "flow_lost", "length": "2 s"}
    tess = Caller("tester", "tess")
    real = commands_of(bench, simulated=False)
    real.supervision.tell = tell
    with pytest.raises(CallError, match="simulated cells only"):
        await real.methods()["inject"][1](tess, fault)
    assert asked == []
    sim = commands_of(bench)
    sim.supervision.tell = tell
    assert await sim.methods()["inject"][1](tess, fault) == {"ok": True, "t_us": 5}
    assert asked == [{**fault, "command": "inject"}]
    assert ("inject", "tester tess") in [(k, d.get("who")) for _, k, d in bench.events]
    sim.supervision.tell = lambda request: {"ok": False, "error": "kind: unknown"}
    with pytest.raises(CallError, match="kind: unknown"):
        await sim.methods()["inject"][1](tess, fault)


@on_bench
async def test_maintenance_is_entered_and_left_by_service(bench):
    table = commands_of(bench).methods()
    engineer, service = Caller("engineer", "max"), Caller("service", "eva")
    with pytest.raises(CallError, match="role service"):
        await table["set_mode"][1](engineer, {"mode": "maintenance"})
    await table["set_mode"][1](service, {"mode": "maintenance"})
    with pytest.raises(CallError, match="role service"):
        await table["set_mode"][1](engineer, {"mode": "development"})
    await table["set_mode"][1](service, {"mode": "development"})
    await table["set_mode"][1](engineer, {"mode": "production"})
    with pytest.raises(CallError, match="must be one of"):
        await table["set_mode"][1](engineer, {"mode": "party"})


@on_bench
async def test_why_not_names_the_link_nearest_to_the_hardware(bench):
    call = commands_of(bench).methods()["why_not"][1]
    await asyncio.sleep(0.3)
    told = await call(Caller("observer", ""), {})
    assert (told["may_fire"], told["first"]) == (True, None)
    bench.truth("safety", door_closed=False)
    await asyncio.sleep(0.3)
    told = await call(Caller("observer", ""), {})
    assert (told["may_fire"], told["first"]) == (False, "safety")
    assert len(told["chain"]) == 17


def test_reference_page_names_every_command_with_its_least_role():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text("utf-8")
    told = {}
    for names, role in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (\w+) \|", page, re.MULTILINE):
        told.update(dict.fromkeys(re.findall(r"\w+", names), role))

    async def main():
        table = commands_of(Bench()).methods()
        assert told == {name: role for name, (role, _) in table.items()}

    run_virtual(main)

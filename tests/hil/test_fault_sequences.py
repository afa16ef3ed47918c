"""Faults that need more than an onset in a bead: before the start, in other states, in series."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from controller.errors import PreflightError, RecordError, StateError
from controller.record.summary import summarise
from tests.hil import oracle
from tests.hil.fault_cell import Session, play, scenario, small_job

pytestmark = [pytest.mark.hil, pytest.mark.slow]

TITANIUM = "Ti-6Al-4V"
INERT_PPM = 'device="oxygen"\nlayer="physics"\nkind="level"\noxygen="8 ppm"'
HELD_STATE = 4


def clean(out, **how):
    """The oracle's judgement against the plan."""
    return oracle.check(out.folder / "trace.mcap", small_job().job, **how)


# --- before and at the start -------------------------------------------------------------


def test_a_laser_that_refuses_stops_the_start_within_4_s_without_motion_or_powder(tmp_path):
    out = play(tmp_path, faults_of=scenario("laser_refuses"))
    times = {name: t for t, name in out.states}
    assert times["STOPPING"] - times["STARTING"] <= 4_000_000
    assert "EXECUTE" not in times
    assert out.names() == ["LASER_REFUSED"]
    after = out.plant[out.plant["t_us"] >= times["STARTING"]]
    for axis in ("x_mm", "y_mm", "z_mm"):
        assert np.ptp(after[axis]) == 0.0
    assert after["fed_g"][-1] == after["wasted_g"][-1] == 0.0
    assert clean(out, complete=False, expect_emission=False)[0].kind == "no_samples"  # no segment


def test_a_laser_that_takes_too_long_is_given_4_s(tmp_path, monkeypatch):
    monkeypatch.setattr("hil_sim.devices.laser_ipg.START_UP_US", 60_000_000)
    out = play(tmp_path)
    times = {name: t for t, name in out.states}
    assert 3_900_000 <= times["STOPPING"] - times["STARTING"] <= 4_700_000
    assert out.names() == ["LASER_REFUSED"]
    assert not len(out.gate)


def test_a_hopper_with_too_little_is_refused_before_the_start(tmp_path):
    async def script(s: Session):
        s.inject('device="powder"\nlayer="physics"\nkind="empty"\nleft="1 g"')
        await s.pass_s(0.3)
        with pytest.raises(PreflightError, match="POWDER_MASS"):
            await s.start()
        assert s.ex.state.name == "IDLE"

    play(tmp_path, script=script)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('device="powder"\nlayer="protocol"\nkind="not_ready"', "POWDER_NOT_READY"),
        ('device="chiller"\nlayer="physics"\nkind="warm"\nkelvin=6', "COOLANT"),
        ('device="chiller"\nlayer="wire"\nkind="cut"', "CHILLER_SILENT"),
        ('device="safety"\nlayer="protocol"\nkind="plc_error"', "SAFETY_WATCHDOG"),
        ('device="laser"\nlayer="physics"\nkind="key"', "LASER_NOT_READY"),
        ('device="pyrometer"\nlayer="wire"\nkind="cut"', "PYROMETER_SILENT"),
    ],
)
def test_a_start_is_refused_while_the_fault_stands_and_possible_after_it(text, reason, tmp_path):
    async def script(s: Session):
        fault = s.inject(text)
        await s.pass_s(1.5)
        with pytest.raises(PreflightError, match=reason):
            await s.start()
        s.act(fault, False)
        await s.pass_s(60.0 if reason == "COOLANT" else 8.0)
        await s.start()
        await s.until("EXECUTE", limit_s=10.0)

    play(tmp_path, script=script)


# --- emission without a command ----------------------------------------------------------

STRAY = 'device="laser"\nlayer="physics"\nkind="stray_light"\npower="300 W"'


async def _idle(s: Session):
    await s.pass_s(0.5)


async def _starting(s: Session):
    await s.start()
    await s.pass_s(2.0)
    assert s.ex.state.name == "STARTING"


async def _held(s: Session):
    await s.emitting(2.0)
    await s.call("hold", now=True)
    await s.until("HELD")
    await s.pass_s(0.3)


async def _stopped(s: Session):
    await s.emitting(2.0)
    await s.call("stop")
    await s.until("STOPPED")


@pytest.mark.parametrize("where", [_idle, _starting, _held, _stopped])
def test_supply_is_dropped_within_100_ms_of_light_without_a_command(where, tmp_path):
    for n, offset_ms in enumerate((0, 9, 18, 27, 36, 45)):

        async def script(s: Session, offset_ms=offset_ms):
            await where(s)
            await s.pass_s(offset_ms / 1e3)
            s.inject(STRAY)
            await s.pass_s(0.3)
            assert not s.world.supply_relay_on
            assert s.world.emission_w == 0.0
            await s.until("ABORTED")
            assert s.ex.alarms.first_out.alarm.name == "EMISSION_UNCOMMANDED"

        out = play(tmp_path / str(n), script=script)
        dropped = out.first("chain", out.onset_us, closed=0)
        assert dropped - out.onset_us <= 100_000
        # the trace knows of the light: the judge finds it, then, and nothing else
        found = oracle.check(out.folder / "trace.mcap", expect_emission=False)
        kinds = {v.kind for v in found}
        assert kinds <= {"emission_without_gate", "emission_not_enabled"}
        assert "emission_without_gate" in kinds
        for v in found:
            assert out.onset_us <= v.t_us <= out.onset_us + 120_000


def test_clearing_gives_the_supply_back_only_to_a_source_that_has_gone_dark(tmp_path):
    """Mended, the cell starts again; not mended, the light comes back with the supply."""

    async def script(s: Session):
        fault = s.inject(STRAY)
        await s.until("ABORTED")
        await s.pass_s(0.5)
        await s.call("clear")
        lit = None
        for _ in range(600):
            await s.pass_s(0.001)
            if lit is None and s.world.emission_w > 0.0:
                lit = s.ex.now_us()
            if lit is not None and not s.world.supply_relay_on:
                break
        assert s.ex.now_us() - lit <= 100_000
        await s.until("ABORTED")
        s.act(fault, False)
        await s.pass_s(0.5)
        await s.call("clear")
        await s.until("STOPPED")
        await s.call("reset")
        await s.until("IDLE")
        await s.start()
        await s.until("EXECUTE", limit_s=10.0)

    play(tmp_path, script=script)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ('device="laser"\nlayer="physics"\nkind="back_reflection"', "ABORTED"),
        ('device="chiller"\nlayer="physics"\nkind="flow"', "STOPPED"),
        ('device="pyrometer"\nlayer="protocol"\nkind="no_signal"', "HELD"),
        ('device="motion"\nlayer="wire"\nkind="cut"', "ABORTED"),
    ],
)
def test_when_the_cause_is_gone_the_cell_s_own_commands_lead_back(text, end, tmp_path):
    """What latches in a device or lies in the past must not bar the next start for ever."""

    async def script(s: Session):
        await s.emitting(0.5)
        fault = s.inject(text)
        await s.until(end)
        await s.pass_s(1.0)
        s.act(fault, False)
        await s.pass_s(1.0)
        if end == "HELD":
            await s.call("unhold")
            await s.until("EXECUTE", limit_s=10.0)
            await s.pass_s(3.0)
            assert s.ex.state.name == "EXECUTE"
            return
        if end == "ABORTED":
            await s.call("clear")
            await s.until("STOPPED")
        await s.call("reset")
        await s.until("IDLE")
        await s.call("home")
        await s.pass_s(0.5)
        assert s.ex.blockers(None) == ()

    play(tmp_path, script=script)


def test_a_stop_while_the_motion_cable_is_cut_leaves_no_link_without_beats(tmp_path):
    """The unconfirmed stop ends the beats; the next reset lets them go on."""

    async def script(s: Session):
        fault = s.inject('device="motion"\nlayer="wire"\nkind="cut"')
        await s.call("stop")
        await s.pass_s(0.05)
        s.act(fault, False)
        await s.until("STOPPED")
        await s.call("reset")
        await s.until("IDLE")
        await s.call("home")
        assert s.ex.blockers(None) == ()

    play(tmp_path, script=script)


# --- oxygen, for an alloy that has a limit -----------------------------------------------


async def inert(s: Session):
    """A chamber that has been purged."""
    s.inject(INERT_PPM)
    await s.pass_s(1.5)
    s.out.alarms.clear()


def leak(ppm: float):
    return replace(
        scenario("oxygen_leak"),
        faults=(
            replace(
                scenario("oxygen_leak").faults[0], at_us=500_000, options={"oxygen": float(ppm)}
            ),
        ),
    )


def _leak_onset(out) -> int:
    return next(
        int(e["t_us"])
        for e in out.run.events
        if e["kind"] == "fault_injected" and e["fault"] != "level"
    )


def _crossing(out, ppm: float) -> int:
    rows = out.plant[(out.plant["t_us"] > _leak_onset(out)) & (out.plant["oxygen_ppm"] > ppm)]
    return int(rows["t_us"][0])


def test_alloy_with_a_limit_is_not_started_in_air(tmp_path):
    async def script(s: Session):
        with pytest.raises(PreflightError, match="OXYGEN_HIGH"):
            await s.start()

    play(tmp_path, job=small_job(TITANIUM), script=script)


def test_oxygen_over_the_limit_for_3_s_holds(tmp_path):
    """Between the limit and twice the limit."""
    out = play(tmp_path, job=small_job(TITANIUM), before=inert, faults_of=leak(28.0))
    crossed = _crossing(out, 20.0)
    assert out.names()[0] == "OXYGEN_HIGH"
    assert 2_900_000 <= out.alarms[0][0] - crossed <= 3_200_000
    assert out.dark_us(crossed) - crossed <= 4_000_000
    assert "HELD" in [name for _, name in out.states]
    job = small_job(TITANIUM).job
    assert oracle.check(tmp_path / "trace.mcap", job, complete=False) == []


def test_oxygen_over_twice_the_limit_stops_within_1_s(tmp_path):
    out = play(tmp_path, job=small_job(TITANIUM), before=inert, faults_of=leak(5000.0))
    crossed = _crossing(out, 40.0)
    assert out.names()[0] == "OXYGEN_TOO_HIGH"
    assert out.dark_us(crossed) - crossed <= 1_000_000
    assert "HELD" not in [name for _, name in out.states]


@pytest.mark.parametrize(
    ("layer", "kind", "limit_s"), [("protocol", "error", 1.0), ("wire", "cut", 1.2)]
)
def test_oxygen_that_is_not_known_stops(layer, kind, limit_s, tmp_path):
    fault = replace(scenario("oxygen_error").faults[0], layer=layer, kind=kind, at_us=700_000)
    one = replace(scenario("oxygen_error"), faults=(fault,))
    out = play(tmp_path, job=small_job(TITANIUM), before=inert, faults_of=one)
    onset = _leak_onset(out)
    assert out.names()[0] == "OXYGEN_SILENT"
    assert out.dark_us(onset) - onset <= limit_s * 1e6


def test_oxygen_does_not_matter_to_an_open_air_alloy(tmp_path):
    out = play(tmp_path, faults_of=scenario("oxygen_error"))
    assert out.states[-1][1] == "COMPLETE"
    assert out.alarms == []


# --- motion link -------------------------------------------------------------------------


@pytest.mark.parametrize("delay_us", [2_000, 11_000, 30_000])
def test_a_late_motion_cable_executes_no_wrong_segment(delay_us, tmp_path):
    late = scenario("motion_late", at_us=500_000, options={"delay": delay_us * 1e-6})
    out = play(tmp_path, faults_of=late)
    assert out.states[-1][1] == "COMPLETE", out.alarms
    assert clean(out) == []


def test_a_motion_cable_that_is_late_beyond_the_beat_aborts_without_a_wrong_segment(tmp_path):
    late = scenario("motion_late", at_us=500_000, options={"delay": 0.2})
    out = play(tmp_path, faults_of=late)
    assert out.states[-1][1] == "ABORTED"
    assert out.dark_us(out.onset_us) - out.onset_us <= 105_000
    assert clean(out, complete=False) == []


def test_bursts_of_damaged_motion_frames_execute_no_wrong_segment(tmp_path):
    """One bit of each piece for 30 ms, ten times: repaired each time, the build completes."""
    one = scenario("motion_garbled", length_us=30_000, options={"bits": 1.0})
    many = replace(
        one,
        faults=tuple(
            replace(one.faults[0], at_us=k * 1_370_000 + 400_000, options={"bits": 1.0 + k % 4})
            for k in range(10)
        ),
    )
    out = play(tmp_path, faults_of=many)
    assert out.states[-1][1] == "COMPLETE", out.alarms
    assert clean(out) == []


def test_a_refused_segment_stops_the_build_with_the_reason(tmp_path):
    """A plan that the firmware does not take: one segment faster than its axis."""

    async def script(s: Session):
        segments = s.ex.job.plan.segments.copy()
        segments["steps"][len(segments) // 2, 0] = 32_000
        s.ex.job = replace(s.ex.job, plan=replace(s.ex.job.plan, segments=segments))
        await s.start()
        await s.until("STOPPED")
        alarm = s.ex.alarms.standing["MOTION_REFUSED"]
        assert "SEGMENTS refused" in alarm.detail

    out = play(tmp_path, script=script)
    assert out.names()[0] == "MOTION_REFUSED"
    assert oracle.check(tmp_path / "trace.mcap", expect_emission=False) == []


def test_a_link_that_streams_no_more_ends_in_a_hold_with_its_alarm(tmp_path):
    """The queue runs low: the firmware holds by itself, the host tells it."""

    async def script(s: Session):
        await s.emitting(2.0)
        s.ex.link._pump = lambda: None
        await s.until("HELD", limit_s=5.0)

    out = play(tmp_path, script=script)
    assert out.names()[0] == "SELF_HOLD"
    assert clean(out, complete=False) == []


def test_a_link_that_never_streams_stops_the_build(tmp_path):
    async def script(s: Session):
        s.ex.link._pump = lambda: None
        await s.start()
        await s.until("EXECUTE")
        await s.until("STOPPING", limit_s=1.0)

    assert play(tmp_path, script=script).names() == ["MOTION_STALLED"]


# --- coming back -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["estop", "door"])
def test_release_and_reset_never_resume(kind, tmp_path):
    async def script(s: Session):
        await s.emitting(2.0)
        fault = s.inject(f'device="safety"\nlayer="physics"\nkind="{kind}"')
        await s.until("ABORTED")
        with pytest.raises(StateError):
            await s.call("clear")
        s.act(fault, False)
        await s.pass_s(3.0)
        assert s.ex.state.name == "ABORTED"
        assert not s.world.chain_closed  # closing a door starts nothing
        await s.call("clear")
        await s.until("STOPPED")
        assert s.world.chain_closed
        await s.pass_s(3.0)
        await s.call("reset")
        await s.until("IDLE")
        await s.pass_s(3.0)
        s.out.states.append((s.ex.now_us(), "END"))

    out = play(tmp_path, script=script)
    onset = out.onset_us
    assert not out.gate[out.gate["t_us"] > onset]["on"].any()
    still = out.plant[out.plant["t_us"] > onset + 1_000_000]
    for axis in ("x_mm", "y_mm", "z_mm"):
        assert np.ptp(still[axis]) == 0.0
    assert clean(out, complete=False) == []


def test_shield_gas_flows_30_s_over_the_hot_part_after_a_stop(tmp_path):
    async def script(s: Session):
        await s.emitting(2.0)
        await s.call("stop")
        begin = asyncio.get_running_loop().time()
        await s.until("STOPPED")
        assert s.ex.journal.record is None  # sealed before
        await s.pass_s(1.0)
        assert s.world.carrier_l_min < 0.1
        await s.pass_s(begin + 29.5 - asyncio.get_running_loop().time())
        assert s.world.shield_l_min > 17.0
        assert not s.ex.at_rest
        await s.pass_s(2.5)
        assert s.world.shield_l_min < 0.1
        assert s.ex.at_rest

    out = play(tmp_path, script=script)
    assert clean(out, complete=False) == []


def test_a_hold_of_a_minute_goes_on_with_gas_and_powder_back(tmp_path):
    async def script(s: Session):
        await s.emitting(2.0)
        await s.call("hold", now=True)
        await s.until("HELD")
        await s.pass_s(60.0)
        assert s.world.shield_l_min < 0.1
        assert s.world.carrier_l_min > 5.0
        assert s.world.hopper_flow_g_min[0] == 0.0
        await s.call("unhold")
        await s.until("EXECUTE")
        assert s.world.shield_l_min > 16.0
        while not s.world.gate_on:  # the remelt pass, then the bead with powder
            await s.pass_s(0.01)
        while s.world.gate_on:
            await s.pass_s(0.01)
        while not s.world.gate_on:
            await s.pass_s(0.01)
        assert s.world.nozzle_flow_g_min > 0.95 * 6.3
        await s.until("COMPLETE")

    out = play(tmp_path, script=script)
    assert out.alarms == []
    # the rest's segments are not the plan's: every end of both is judged by the record's parts
    assert oracle.check(out.folder / "trace.mcap") == []
    told = summarise(out.folder)
    assert told["position_error_steps"] == 0
    assert told["segments_executed"] == told["segments_planned"]


def test_a_record_that_cannot_be_written_holds_within_1_s(tmp_path):
    async def script(s: Session):
        await s.emitting(0.3)

        def full(t_us, packed):
            raise RecordError("record.mcap: no space left")

        s.ex.journal.record.telemetry = full
        s.out.injected_us = s.ex.now_us()
        await s.until("HELD")
        await s.pass_s(0.2)

    out = play(tmp_path, script=script)
    assert out.names() == ["RECORD_FAILED"]
    assert out.dark_us(out.injected_us) - out.injected_us <= 1_000_000


def test_short_disturbances_of_every_device_wire_do_not_trip_a_build(tmp_path):
    """200 ms each: the guards drain and go on, every value stays within its age."""
    base = scenario("gas_cut").faults[0]
    devices = ("laser", "pyrometer", "chiller", "powder", "gas", "oxygen", "safety")
    kinds = (("garble", {"bits": 2.0}), ("truncate", {"bytes": 1.0}), ("cut", {}))
    many = [
        replace(
            base,
            device=device,
            kind=kind,
            options=options,
            length_us=200_000,
            at_us=300_000 + 1_150_000 * (len(devices) * j + i),
        )
        for j, (kind, options) in enumerate(kinds)
        for i, device in enumerate(devices)
    ]
    out = play(tmp_path, faults_of=replace(scenario("gas_cut"), faults=tuple(many)))
    assert out.alarms == []
    assert out.states[-1][1] == "COMPLETE"
    assert clean(out) == []

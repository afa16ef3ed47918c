"""Every rule of the fault table on hand-made snapshots: raised in time, cleared, neutral."""

from dataclasses import replace

import pytest

from controller.machine.alarms import BY_NAME
from controller.machine.interlocks import (
    OPTIONAL,
    RULES,
    Limits,
    Timers,
    emission_blockers,
    watch,
)
from controller.machine.snapshot import MachineSnapshot
from controller.machine.states import State, UnitMode
from tests.unit.machine_fakes import CELL, GOOD, status

LIMITS = Limits.of(CELL, "316L")
TITANIUM = Limits.of(CELL, "Ti-6Al-4V")
NOW = 10_000_000
IDLE, RUN, HELD = 0, 2, 4


def snap(now_us: int = NOW, *, state: State = State.EXECUTE, **change) -> MachineSnapshot:
    """A healthy machine in EXECUTE; ``laser={...}`` changes fields of that reading."""
    devices = {}
    for role, reading in GOOD.items():
        own = change.pop(role, {})
        devices[role] = None if own is None else replace(reading, **{"at_us": now_us, **own})
    motion = change.pop("motion", {})
    base = {
        "now_us": now_us, "state": state, "mode": UnitMode.DEVELOPMENT, "link_up": True,
        "online": True,
        "motion": None
        if motion is None
        else status(**{"received_us": now_us, "state": RUN, "armed": True, **motion}),
        "laser_enabled": True,
        **devices,
    }  # fmt: skip
    base["laser"] = devices["laser"] and replace(
        devices["laser"], enabled=change.pop("enabled", True)
    )
    return MachineSnapshot(**{**base, **change})


def run(bad, *, limits=LIMITS, seconds=3.2, good=None):
    """Play a bad condition at 100 Hz; seconds until each alarm, in order of raising."""
    timers, at = Timers(), {}
    watch(snap() if good is None else good(NOW), limits, timers)
    for tick in range(1, round(seconds * 100) + 1):
        now = NOW + tick * 10_000
        raised, _ = watch(bad(now), limits, timers)
        for name, detail in raised:
            at[name] = ((tick - 1) / 100, detail)
    return at


# alarm, what the snapshot shows, time to the alarm in s, limits
CASES = [
    ("LINK_LOST", {"motion": None}, 0.0, LIMITS),
    ("LINK_LOST", {"link_up": False}, 0.0, LIMITS),
    ("FIRMWARE_FAULT", {"motion": {"fault": 3}}, 0.0, LIMITS),
    ("SELF_HOLD", {"motion": {"state": HELD}}, 0.0, LIMITS),
    ("HOMING_LOST", {"motion": {"homed": False}}, 0.0, LIMITS),
    ("ESTOP", {"safety": {"estop_ok": False}}, 0.0, LIMITS),
    ("DOOR_OPEN", {"safety": {"door_closed": False}}, 0.0, LIMITS),
    ("CHAIN_OPEN", {"safety": {"interlock_ok": False}}, 0.0, LIMITS),
    ("CHAIN_OPEN", {"motion": {"interlock_ok": False}}, 0.0, LIMITS),
    ("SAFETY_SILENT", {"safety": None}, 0.0, LIMITS),
    ("SAFETY_WATCHDOG", {"safety": {"watchdog_ok": False}}, 0.0, LIMITS),
    ("EMISSION_UNCOMMANDED", {"laser": {"unexpected_emission": True}}, 0.0, LIMITS),
    ("BACK_REFLECTION", {"laser": {"back_reflection": True}}, 0.0, LIMITS),
    ("LASER_SILENT", {"laser": None}, 0.0, LIMITS),
    ("LASER_FAULT", {"laser": {"fault_bits": 2, "faults": ("OVERTEMPERATURE",)}}, 0.0, LIMITS),
    ("LASER_NOT_READY", {"enabled": False}, 0.1, LIMITS),
    ("LASER_POWER_LOW", {"power_short": True}, 0.7, LIMITS),
    ("CHILLER_SILENT", {"chiller": None}, 0.0, LIMITS),
    ("CHILLER_FLOW", {"chiller": {"flow_ok": False}}, 0.3, LIMITS),
    ("CHILLER_ALARM", {"chiller": {"alarm_bits": 4}}, 0.0, LIMITS),
    ("COOLANT_WARM", {"chiller": {"coolant_deg_c": 24.5}}, 0.3, LIMITS),
    ("COOLANT_HOT", {"chiller": {"coolant_deg_c": 27.5}}, 0.3, LIMITS),
    ("COOLANT_COLD", {"chiller": {"coolant_deg_c": 18.0}}, 0.9, LIMITS),
    ("POWDER_SILENT", {"powder": None}, 0.0, LIMITS),
    ("POWDER_STALLED", {"powder": {"stalled": True}}, 0.0, LIMITS),
    ("POWDER_NOT_READY", {"powder": {"ready": False}}, 0.0, LIMITS),
    ("MOTION_REFUSED", {"refusal": "motion: SEGMENTS refused: range"}, 0.0, LIMITS),
    ("MOTION_STALLED", {"motion": {"state": IDLE}}, 0.5, LIMITS),
    ("POWDER_LOW", {"powder": {"mass_left_g": (20.0, 0.0)}, "powder_needed_g": (21.0, 0.0)}, 0.0,
     LIMITS),
    ("POWDER_STARVED", {"powder_set_g_min": (10.0, 0.0),
                        "powder": {"flow_measured_g_min": (7.9, 0.0)}}, 0.3, LIMITS),
    ("CARRIER_LOW", {"carrier_set_l_min": 6.0, "gas": {"carrier_l_min": 4.7}}, 0.3, LIMITS),
    ("SHIELD_LOW", {"shield_set_l_min": 18.0, "gas": {"shield_l_min": 14.0}}, 0.3, LIMITS),
    ("GAS_SILENT", {"gas": None}, 0.0, LIMITS),
    ("OXYGEN_HIGH", {"oxygen": {"oxygen_ppm": 21.0}}, 3.0, TITANIUM),
    ("OXYGEN_TOO_HIGH", {"oxygen": {"oxygen_ppm": 41.0}}, 0.0, TITANIUM),
    ("OXYGEN_SILENT", {"oxygen": {"valid": False}}, 0.0, TITANIUM),
    ("OXYGEN_SILENT", {"oxygen": None}, 0.0, TITANIUM),
    ("PYROMETER_LOST", {"unseen_emission_s": 2.01}, 0.0, LIMITS),
]  # fmt: skip


def healthy(limits):
    """A good snapshot for these limits."""
    if limits.oxygen_limit_ppm is None:
        return snap
    return lambda now, **change: snap(now, **{"oxygen": {"oxygen_ppm": 10.0}, **change})


@pytest.mark.parametrize(("name", "change", "limit_s", "limits"), CASES)
def test_rule_raises_in_its_time(name, change, limit_s, limits):
    base = healthy(limits)
    at = run(lambda now: base(now, **change), limits=limits, good=base)
    assert name in at, f"raised: {list(at)}"
    after_s = at[name][0]
    assert after_s == pytest.approx(limit_s, abs=1e-6)


# Fault table of the requirements: alarm -> longest time in s from onset to reaction. What it
# calls a fault only after a while (oxygen 3 s, pyrometer 2 s) has that while added. Device
# links have the age limit of the cell file and what a hold at once needs (age + 0.2 s).
TABLE_S = {
    "LINK_LOST": 0.105, "BACK_REFLECTION": 0.1, "EMISSION_UNCOMMANDED": 0.1,
    "ESTOP": 0.1, "DOOR_OPEN": 0.1, "CHAIN_OPEN": 0.1,
    "CHILLER_FLOW": 0.5, "CHILLER_ALARM": 0.5, "COOLANT_WARM": 1.0, "COOLANT_HOT": 0.5,
    "COOLANT_COLD": 5.0, "POWDER_STALLED": 1.0, "POWDER_LOW": 1.0, "POWDER_STARVED": 1.0,
    "POWDER_NOT_READY": 1.0, "CARRIER_LOW": 0.5, "SHIELD_LOW": 1.0,
    "OXYGEN_HIGH": 3.0 + 1.0, "OXYGEN_TOO_HIGH": 1.0, "LASER_POWER_LOW": 1.0,
    "PYROMETER_LOST": 2.0 + 0.2, "MOTION_REFUSED": 1.0, "MOTION_STALLED": 1.0, "SELF_HOLD": 1.0,
    "FIRMWARE_FAULT": 0.1, "HOMING_LOST": 0.1, "SAFETY_WATCHDOG": 0.5, "LASER_FAULT": 0.5,
    "LASER_NOT_READY": 0.5,
    **{f"{r.upper()}_SILENT": getattr(CELL, r).max_age_s + 0.2
       for r in ("laser", "chiller", "gas", "oxygen", "powder", "safety")},
}  # fmt: skip
BUILT_IN_S = {"LINK_LOST": 0.1, "PYROMETER_LOST": 2.0, "LASER_POWER_LOW": 0.1}
TICK_S, EXCHANGE_S = 0.01, 0.02


@pytest.mark.parametrize(
    "rule", [r for r in RULES if r.reads not in OPTIONAL], ids=lambda r: r.alarm
)
def test_poll_delay_and_wait_for_the_track_together_stay_within_the_fault_table(rule):
    name, role = rule.alarm, rule.reads
    if name.endswith("_SILENT"):
        seen_s = getattr(CELL, role).max_age_s  # a fresh reading stood at the onset, at best
    elif role:
        seen_s = 1.0 / getattr(CELL, role).poll_hz + EXCHANGE_S
    else:
        seen_s = 0.0 if name == "LINK_LOST" else TICK_S
    own_s = BUILT_IN_S.get(name, 0.0)
    total_s = seen_s + own_s + rule.delay_us * 1e-6 + BY_NAME[name].max_hold_s
    total_s += 0.0 if name == "LINK_LOST" else TICK_S
    assert total_s <= TABLE_S[name] + 1e-9
    assert rule.within_s <= TABLE_S[name] + 1e-9 or name.endswith("_SILENT")


@pytest.mark.parametrize(("name", "change", "limit_s", "limits"), CASES)
def test_rule_clears_when_the_cause_is_gone(name, change, limit_s, limits):
    base, timers = healthy(limits), Timers()
    watch(base(NOW), limits, timers)
    for tick in range(1, 400):
        watch(base(NOW + tick * 10_000, **change), limits, timers)
    _, cleared = watch(base(NOW + 4_000_000), limits, timers)
    if name == "LASER_POWER_LOW":  # None is no evidence; a good reading is
        _, cleared = watch(base(NOW + 4_010_000, power_short=False), limits, timers)
    if name == "EMISSION_UNCOMMANDED":
        m = {"received_us": NOW + 4_100_000}
        _, cleared = watch(base(NOW + 4_080_000, motion=m), limits, timers)
    assert name in cleared


def test_every_rule_has_a_case():
    assert {c[0] for c in CASES} == {r.alarm for r in RULES if r.reads not in OPTIONAL}


def test_a_healthy_machine_raises_nothing():
    assert run(snap) == {}


@pytest.mark.parametrize("limits", [LIMITS, TITANIUM])
def test_every_case_but_the_oxygen_ones_needs_its_fault(limits):
    assert run(healthy(limits), limits=limits, good=healthy(limits)) == {}


def test_interruption_starts_the_time_again():
    timers = Timers()
    watch(snap(), LIMITS, timers)
    for tick in range(1, 500):
        flow = tick % 30 == 0  # good for one tick in 300 ms: never bad for 0.4 s
        s = snap(NOW + tick * 10_000, chiller={"flow_ok": flow})
        assert watch(s, LIMITS, timers) == ([], [])


def test_no_evidence_keeps_the_time_that_was_counted():
    """Short tracks: 0.2 s of evidence each, travel between proves nothing."""
    timers, raised_at = Timers(), None
    for tick in range(1, 400):
        short = True if tick % 40 < 20 else None
        raised, _ = watch(snap(NOW + tick * 10_000, power_short=short), LIMITS, timers)
        if raised:
            raised_at = tick
            break
    assert raised_at is not None
    assert 125 <= raised_at <= 180  # 0.7 s of evidence at half the time


@pytest.mark.parametrize("role", GOOD)
def test_a_reading_is_stale_past_its_age_and_not_before(role):
    base = healthy(TITANIUM)
    age_us = TITANIUM.age_us[role]
    for extra, expected in ((0, False), (10_000, True)):
        s = base(NOW, **{role: {"at_us": NOW - age_us - extra, **(
            {"oxygen_ppm": 10.0} if role == "oxygen" else {})}})  # fmt: skip
        names = [b.name for b in emission_blockers(s, TITANIUM)]
        assert (f"{role.upper()}_SILENT" in names) is expected


def test_a_stale_reading_raises_silence_and_nothing_else():
    """Old values prove nothing about flow or temperature."""
    old = {"at_us": NOW - 5_000_000, "flow_ok": False, "coolant_deg_c": 90.0}
    assert list(run(lambda now: snap(now, chiller=old))) == ["CHILLER_SILENT"]


def test_an_abort_of_our_own_is_no_fault_of_the_firmware():
    for state in (State.ABORTING, State.ABORTED, State.CLEARING):
        assert run(lambda now, s=state: snap(now, state=s, motion={"fault": 6})) == {}
    assert "FIRMWARE_FAULT" in run(lambda now: snap(now, motion={"fault": 6}))


def test_a_fault_that_clearing_finds_behind_a_lost_wire_is_no_new_cause():
    assert run(lambda now: snap(now, state=State.CLEARING, motion={"fault": 1})) == {}
    told = run(lambda now: snap(now, state=State.STOPPED, motion={"fault": 1}))
    assert "FIRMWARE_FAULT" in told


def test_link_is_lost_after_100_ms():
    timers = Timers()
    assert watch(snap(motion={"received_us": NOW - 100_000}), LIMITS, timers)[0] == []
    late = snap(NOW + 10_000, motion={"received_us": NOW - 100_000})
    assert watch(late, LIMITS, timers)[0] == [("LINK_LOST", "")]


def test_oxygen_is_skipped_for_open_air_alloys():
    assert LIMITS.oxygen_limit_ppm is None
    assert run(lambda now: snap(now, oxygen=None)) == {}
    assert "OXYGEN_SILENT" not in [b.name for b in emission_blockers(snap(oxygen=None), LIMITS)]


def test_an_alloy_without_a_limit_cannot_be_built():
    limits = Limits.of(CELL, "Unobtainium")
    names = [b.name for b in emission_blockers(snap(oxygen={"oxygen_ppm": 1.0}), limits)]
    assert names == ["OXYGEN_HIGH"]


def test_gas_is_not_judged_while_it_settles():
    low = {"carrier_set_l_min": 6.0, "gas": {"carrier_l_min": 0.5}}
    at = run(lambda now: snap(now, gas_set_us=NOW, **low))
    assert 1.9 <= at["CARRIER_LOW"][0] <= 2.5


def test_process_rules_sleep_when_nothing_is_built():
    for change in (
        {"chiller": {"flow_ok": False}},
        {"gas": None},
        {"safety": {"door_closed": False}},
    ):
        assert run(lambda now, c=change: snap(now, state=State.IDLE, **c)) == {}
    assert "ESTOP" in run(lambda now: snap(now, state=State.IDLE, safety={"estop_ok": False}))


def test_an_alarm_of_a_build_stays_present_while_its_cause_stands():
    timers = Timers()
    for tick in range(60):
        watch(snap(NOW + tick * 10_000, chiller={"flow_ok": False}), LIMITS, timers)
    later = NOW + 700_000
    still = snap(later, state=State.STOPPED, chiller={"flow_ok": False})
    assert watch(still, LIMITS, timers) == ([], [])
    gone = snap(later + 10_000, state=State.STOPPED)
    assert watch(gone, LIMITS, timers) == ([], ["CHILLER_FLOW"])


def test_nothing_is_judged_before_start_up_is_done():
    assert run(lambda now: snap(now, online=False, motion=None, safety=None)) == {}


def test_emission_without_command_is_seen_from_power_when_the_gate_is_long_shut():
    def lit(now, watts, shut_us):
        return snap(
            now,
            laser={"power_measured_w": watts, "at_us": now - 30_000},
            gate_open_us=now - 30_000 - shut_us,
        )

    at = run(lambda now: lit(now, 50.0, 200_000))
    assert at["EMISSION_UNCOMMANDED"] == (0.0, "measured 50 W, gate shut")
    assert "EMISSION_UNCOMMANDED" in run(lambda now: lit(now, 250.0, 50_000))
    # the meter's lag behind a gate that has just shut
    assert run(lambda now: lit(now, 100.0, 50_000)) == {}
    assert run(lambda now: lit(now, 600.0, 20_000)) == {}


def test_power_is_not_judged_before_a_status_tells_of_the_gate_then():
    s = snap(laser={"power_measured_w": 600.0, "at_us": NOW - 5_000}, motion={"received_us": NOW})
    assert watch(s, LIMITS, Timers())[0] == []


BLOCKERS = [
    ("MOTION_SILENT", {"motion": None}), ("MOTION_SILENT", {"link_up": False}),
    ("MOTION_FAULT", {"motion": {"fault": 2}}), ("NOT_HOMED", {"motion": {"homed": False}}),
    ("INTERLOCK_INPUT", {"motion": {"interlock_ok": False}}),
    ("ESTOP", {"safety": {"estop_ok": False}}), ("DOOR_OPEN", {"safety": {"door_closed": False}}),
    ("CHAIN_OPEN", {"safety": {"interlock_ok": False}}),
    ("CHAIN_RESET", {"safety": {"reset_needed": True}}),
    ("SAFETY_WATCHDOG", {"safety": {"watchdog_ok": False}}),
    ("SUPPLY_RELAY", {"safety": {"supply_relay_on": False}}),
    ("LASER_FAULT", {"laser": {"fault_bits": 8}}), ("LASER_NOT_READY", {"laser": {"ready": False}}),
    ("CHILLER_FLOW", {"chiller": {"flow_ok": False}}),
    ("COOLANT", {"chiller": {"coolant_deg_c": 30.0}}),
    ("COOLANT", {"chiller": {"coolant_deg_c": float("nan")}}),
    ("POWDER_STALLED", {"powder": {"stalled": True}}),
    ("POWDER_NOT_READY", {"powder": {"ready": False}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), BLOCKERS)
def test_blocker_is_named(name, change):
    found = emission_blockers(snap(state=State.IDLE, **change), LIMITS)
    assert [b.name for b in found] == [name]
    assert len(found[0].text) > 8


def test_a_healthy_machine_has_no_blocker():
    assert emission_blockers(snap(state=State.IDLE), LIMITS) == ()


def test_first_of_a_cascade_is_the_worst():
    s = snap(safety={"estop_ok": False, "door_closed": False, "interlock_ok": False},
             chiller={"alarm_bits": 1})  # fmt: skip
    raised, _ = watch(s, LIMITS, Timers())
    names = [name for name, _ in raised]
    assert names[0] == "ESTOP"
    assert names[-1] == "CHILLER_ALARM"
    assert all(n in BY_NAME for n in names)


def test_powder_that_changes_all_the_time_is_judged_by_the_least_of_late():
    """A blend changes its flows each 0.1 s: the time since the last change proves nothing."""

    def ramp(now, flow, least):
        return snap(now, powder_set_us=now - 50_000, powder_set_g_min=(6.0, 4.0),
                    powder_least_g_min=least, powder={"flow_measured_g_min": flow})  # fmt: skip

    starved = run(lambda now: ramp(now, (6.0, 0.0), (5.5, 3.5)))
    assert starved["POWDER_STARVED"][0] == pytest.approx(0.3, abs=0.02)
    assert "POWDER_STARVED" not in run(lambda now: ramp(now, (6.0, 2.9), (5.5, 3.5)))
    # just started: nothing is proven yet
    assert "POWDER_STARVED" not in run(lambda now: ramp(now, (6.0, 0.0), (5.5, 0.0)))


def test_oxygen_limit_of_a_blend_is_that_of_its_strictest_powder():
    assert Limits.of(CELL, "316L", "IN625").oxygen_limit_ppm is None
    assert Limits.of(CELL, "316L", "Ti-6Al-4V").oxygen_limit_ppm == 20.0

"""Rules of devices that only some cells have: raised in time, cleared, asleep where not fitted."""

import math
from dataclasses import replace

import pytest

from controller.machine.alarms import BY_NAME
from controller.machine.interlocks import (
    OPTIONAL,
    RULES,
    Timers,
    emission_blockers,
    rules_for,
    watch,
)
from controller.machine.states import State
from controller.model import Severity
from firmware_bridge import roles
from tests.unit.test_interlocks import LIMITS, NOW, TITANIUM
from tests.unit.test_interlocks import snap as plain_snap

AGES = dict.fromkeys(OPTIONAL, 1000000)
FULL = replace(LIMITS, age_us={**LIMITS.age_us, **AGES})
SHIELDED = replace(TITANIUM, age_us={**TITANIUM.age_us, **AGES})
GOOD = {
    "camera": roles.CameraReading(0, 1, 1.2, 1.1, 1700.0, False, True),
    "height": roles.HeightReading(0, 0.0, True),
    "drives": roles.DrivesReading(0, True, (0.01, -0.02, 0.0), 0, False),
    "power_meter": roles.PowerMeterReading(0, 0.0, True, False),
    "heater": roles.HeaterReading(0, 200.0, 200.0, True, False),
    "chamber": roles.ChamberReading(0, 60.0, -40.0, 30.0, False, True),
    "head": roles.HeadReading(0, 30.0, 2.0, True, False),
    "powder_line": roles.PowderLineReading(0, (20.0, 21.0, 19.5, 20.0), (5000.0, 5000.0)),
    "room": roles.RoomReading(0, 20.9, True, (600.0, 500.0), False, 100.0),
}  # fmt: skip


def snap(now_us=NOW, **change):
    """A healthy machine with everything fitted."""
    own = {}
    for role, reading in GOOD.items():
        wanted = change.pop(role, {})
        own[role] = None if wanted is None else replace(reading, **{"at_us": now_us, **wanted})
    oxygen = {"oxygen_ppm": 10.0, **change.pop("oxygen", {})}
    base = {"carrier_set_l_min": 6.0, "gas": {"carrier_l_min": 6.0}, "oxygen": oxygen, **change}
    return replace(plain_snap(now_us, **base), **own)


def run(bad, limits=FULL, seconds=5.5, rules=RULES):
    """Play a bad condition at 100 Hz; seconds until each alarm, and its detail."""
    timers, at = Timers(), {}
    watch(snap(), limits, timers, rules)
    for tick in range(1, round(seconds * 100) + 1):
        raised, _ = watch(bad(NOW + tick * 10_000), limits, timers, rules)
        for name, detail in raised:
            at[name] = ((tick - 1) / 100, detail)
    return at


# alarm, what the snapshot shows, time to the alarm in s, limits, severity by the fault table
ABORT, STOP, HOLD, NOTE = Severity.ABORT, Severity.STOP, Severity.HOLD, Severity.NOTE
CASES = [
    ("FOLLOWING_ERROR", {"drives": {"following_error_mm": (0.0, -0.51, 0.0)}}, 0.0, FULL, ABORT),
    ("FOLLOWING_ERROR", {"drives": {"following_error_mm": (float("nan"),) * 3}}, 0.0, FULL, ABORT),
    ("DRIVE_FAULT", {"drives": {"fault": True, "fault_bits": 5}}, 0.0, FULL, ABORT),
    ("DRIVES_SILENT", {"drives": None}, 0.0, FULL, STOP),
    ("HEAD_COLLISION", {"head": {"collision": True}}, 0.0, FULL, ABORT),
    ("WINDOW_HOT", {"head": {"window_deg_c": 60.5}}, 0.1, FULL, STOP),
    ("WINDOW_DIRTY", {"head": {"scatter_pct": 20.5}}, 0.1, FULL, STOP),
    ("HEAD_COOLING", {"head": {"cooling_ok": False}}, 0.1, FULL, STOP),
    ("HEAD_SILENT", {"head": None}, 0.0, FULL, STOP),
    ("COOLANT_DEW", {"chamber": {"dew_point_deg_c": 20.5}}, 1.0, FULL, HOLD),
    ("POWDER_BACK_PRESSURE", {"powder_line": {"pressure_kpa": (81.0,) * 4}}, 0.5, FULL, HOLD),
    ("POWDER_STREAM_CLOGGED", {"powder_line": {"pressure_kpa": (20.0, 20.0, 35.0, 20.0)}}, 2.0,
     FULL, HOLD),
    ("POWDER_STREAM_CLOGGED", {"powder_line": {"pressure_kpa": (20.0, 20.0, 20.0, 4.0)}}, 2.0,
     FULL, HOLD),
    ("POWDER_LINE_SILENT", {"powder_line": None}, 0.0, FULL, HOLD),
    ("POWDER_LOW", {"powder_line": {"mass_left_g": (20.0, 0.0)}, "powder_needed_g": (21.0, 0.0)},
     0.0, FULL, HOLD),
    ("CHAMBER_UNLOCKED", {"chamber": {"door_locked": False}}, 0.1, FULL, STOP),
    ("CHAMBER_PRESSURE", {"chamber": {"pressure_pa": 5.0}}, 1.0, SHIELDED, HOLD),
    ("CHAMBER_SILENT", {"chamber": None}, 0.0, FULL, HOLD),
    ("HEATER_FAULT", {"heater": {"fault": True}}, 0.0, FULL, HOLD),
    ("HEATER_OFF_SET", {"heater": {"temp_deg_c": 179.0}}, 2.0, FULL, HOLD),
    ("HEATER_SILENT", {"heater": None}, 0.0, FULL, HOLD),
    ("ROOM_OXYGEN", {"room": {"oxygen_pct": 19.4}}, 0.3, FULL, STOP),
    ("EXTRACTION_OFF", {"room": {"extraction_ok": False}}, 0.3, FULL, HOLD),
    ("SUPPLY_PRESSURE", {"room": {"supply_pressure_kpa": (600.0, 250.0)}}, 0.3, FULL, HOLD),
    ("UPS_ON_BATTERY", {"room": {"ups_on_battery": True}}, 0.3, FULL, HOLD),
    ("ROOM_SILENT", {"room": None}, 0.0, FULL, HOLD),
    ("CAMERA_LOST", {"camera": {"ok": False}}, 2.0, FULL, NOTE),
    ("CAMERA_SILENT", {"camera": None}, 0.0, FULL, NOTE),
    ("HEIGHT_SILENT", {"height": None}, 0.0, FULL, NOTE),
    ("POWER_METER_OVER", {"power_meter": {"overrange": True}}, 0.0, FULL, NOTE),
]  # fmt: skip
# Fault table: longest time in s from onset to reaction; silences: the age limit and 0.2 s more.
TABLE_S = {
    "FOLLOWING_ERROR": 0.2, "DRIVE_FAULT": 0.2, "HEAD_COLLISION": 0.5, "WINDOW_HOT": 0.5,
    "WINDOW_DIRTY": 0.5, "HEAD_COOLING": 0.5, "COOLANT_DEW": 5.0, "POWDER_BACK_PRESSURE": 5.0,
    "POWDER_STREAM_CLOGGED": 5.0, "CHAMBER_UNLOCKED": 1.0, "CHAMBER_PRESSURE": 5.0,
    "HEATER_FAULT": 2.0, "HEATER_OFF_SET": 5.0, "ROOM_OXYGEN": 1.0, "EXTRACTION_OFF": 1.0,
    "SUPPLY_PRESSURE": 1.0, "UPS_ON_BATTERY": 1.0, "CAMERA_LOST": 5.0, "POWER_METER_OVER": 2.0,
}  # fmt: skip
POLL_S = {"drives": 0.05, "head": 0.1, "room": 0.2, "chamber": 0.5, "powder_line": 0.2,
          "heater": 0.5, "camera": 0.1, "height": 0.1, "power_meter": 0.2}  # fmt: skip


@pytest.mark.parametrize(("name", "change", "limit_s", "limits", "severity"), CASES)
def test_fitted_rule_raises_in_its_time_and_with_its_severity(
    name, change, limit_s, limits, severity
):
    at = run(lambda now: snap(now, **change), limits)
    assert name in at, f"raised: {list(at)}"
    assert at[name][0] == pytest.approx(limit_s, abs=1e-6)
    assert BY_NAME[name].severity is severity


@pytest.mark.parametrize(("name", "change", "limit_s", "limits", "severity"), CASES)
def test_fitted_rule_clears_when_the_cause_is_gone(name, change, limit_s, limits, severity):
    timers = Timers()
    for tick in range(400):
        watch(snap(NOW + tick * 10_000, **change), limits, timers)
    _, cleared = watch(snap(NOW + 4_000_000), limits, timers)
    assert name in cleared


def test_every_fitted_rule_has_a_case_and_a_time():
    own = {r.alarm for r in RULES if r.reads in OPTIONAL}
    assert own <= {c[0] for c in CASES}
    assert len(own) > 20
    timed = {n for n in own if not n.endswith("_SILENT")}
    assert timed == set(TABLE_S)


@pytest.mark.parametrize("rule", [r for r in RULES if r.alarm in TABLE_S], ids=lambda r: r.alarm)
def test_fitted_poll_delay_and_wait_together_stay_within_the_table(rule):
    total_s = POLL_S[rule.reads] + 0.02 + 0.01 + rule.delay_us * 1e-6
    total_s += BY_NAME[rule.alarm].max_hold_s
    assert total_s <= TABLE_S[rule.alarm]
    assert rule.within_s == TABLE_S[rule.alarm] or rule.alarm == "HEAD_COLLISION"


@pytest.mark.parametrize("limits", [FULL, SHIELDED])
def test_a_healthy_cell_with_everything_fitted_raises_and_blocks_nothing(limits):
    assert run(snap, limits) == {}
    assert emission_blockers(snap(state=State.IDLE), limits) == ()


def test_a_cell_that_lacks_the_device_has_no_rule_for_it():
    lacking = dict.fromkeys(OPTIONAL)
    assert run(lambda now: snap(now, **lacking), LIMITS) == {}
    assert not [r for r in rules_for(LIMITS) if r.reads in OPTIONAL]
    assert list(rules_for(FULL)) == list(RULES)
    assert emission_blockers(snap(state=State.IDLE, **lacking), LIMITS) == ()


def test_chamber_pressure_is_of_no_matter_in_open_air():
    assert "CHAMBER_PRESSURE" not in run(lambda now: snap(now, chamber={"pressure_pa": 0.0}))


def test_a_supply_that_the_cell_measures_only_one_of_is_judged_alone():
    low = run(lambda now: snap(now, room={"supply_pressure_kpa": (350.0,)}))
    assert low["SUPPLY_PRESSURE"][1] == "compressed air 350 kPa, least 400 kPa"


def test_streams_are_not_compared_without_carrier_gas():
    def still(now):
        uneven = {"pressure_kpa": (20.0, 20.0, 60.0, 20.0)}
        return snap(now, carrier_set_l_min=0.0, gas={"carrier_l_min": 0.0}, powder_line=uneven)

    assert run(still) == {}


def test_the_clogged_stream_is_named():
    at = run(lambda now: snap(now, powder_line={"pressure_kpa": (20.0, 20.0, 35.0, 20.0)}))
    assert at["POWDER_STREAM_CLOGGED"][1].startswith("stream 3: ")


@pytest.mark.parametrize(
    ("name", "bad", "between", "good"),
    [
        ("WINDOW_HOT", {"head": {"window_deg_c": 61.0}}, {"head": {"window_deg_c": 57.0}},
         {"head": {"window_deg_c": 54.0}}),
        ("ROOM_OXYGEN", {"room": {"oxygen_pct": 19.0}}, {"room": {"oxygen_pct": 19.7}},
         {"room": {"oxygen_pct": 20.2}}),
        ("COOLANT_DEW", {"chamber": {"dew_point_deg_c": 23.0}},
         {"chamber": {"dew_point_deg_c": 19.5}}, {"chamber": {"dew_point_deg_c": 18.5}}),
    ],
)  # fmt: skip
def test_a_limit_is_left_by_more_than_it_was_reached_by(name, bad, between, good):
    timers = Timers()
    for tick in range(150):
        watch(snap(NOW + tick * 10_000, **bad), FULL, timers)
    assert watch(snap(NOW + 1_510_000, **between), FULL, timers)[1] == []
    assert watch(snap(NOW + 1_520_000, **good), FULL, timers)[1] == [name]


def test_room_oxygen_warns_people_although_nothing_is_built():
    low = {"room": {"oxygen_pct": 18.0}}
    assert "ROOM_OXYGEN" in run(lambda now: snap(now, state=State.IDLE, **low))


BLOCKERS = [
    ("DRIVES_SILENT", {"drives": None}), ("DRIVES_NOT_READY", {"drives": {"ready": False}}),
    ("DRIVE_FAULT", {"drives": {"fault": True}}),
    ("FOLLOWING_ERROR", {"drives": {"following_error_mm": (0.6, 0.0, 0.0)}}),
    ("HEAD_COLLISION", {"head": {"collision": True}}),
    ("HEAD_COOLING", {"head": {"cooling_ok": False}}),
    ("WINDOW_HOT", {"head": {"window_deg_c": float("nan")}}),
    ("WINDOW_DIRTY", {"head": {"scatter_pct": 30.0}}), ("HEAD_SILENT", {"head": None}),
    ("COOLANT_DEW", {"chamber": {"dew_point_deg_c": 25.0}}),
    ("CHAMBER_UNLOCKED", {"chamber": {"door_locked": False}}),
    ("CHAMBER_SILENT", {"chamber": None}), ("HEATER_SILENT", {"heater": None}),
    ("HEATER_FAULT", {"heater": {"fault": True}}),
    ("HEATER_OFF_SET", {"heater": {"temp_deg_c": 20.0}}),
    ("POWDER_BACK_PRESSURE", {"powder_line": {"pressure_kpa": (90.0, 1.0)}}),
    ("POWDER_LINE_SILENT", {"powder_line": None}),
    ("ROOM_OXYGEN", {"room": {"oxygen_pct": 19.0}}),
    ("EXTRACTION_OFF", {"room": {"extraction_ok": False}}),
    ("SUPPLY_PRESSURE", {"room": {"supply_pressure_kpa": (100.0, 500.0)}}),
    ("UPS_ON_BATTERY", {"room": {"ups_on_battery": True}}),
    ("UPS_CHARGE", {"room": {"ups_charge_pct": 20.0}}), ("ROOM_SILENT", {"room": None}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), BLOCKERS)
def test_fitted_blocker_is_named(name, change):
    found = emission_blockers(snap(state=State.IDLE, **change), FULL)
    assert [b.name for b in found] == [name]
    assert len(found[0].text) > 8


def test_stale_values_clear_no_alarm_at_rest():
    timers = Timers()
    watch(snap(), FULL, timers)
    hit = {"head": {"collision": True}}
    raised, _ = watch(snap(NOW + 10_000, **hit), FULL, timers)
    assert "HEAD_COLLISION" in [name for name, _ in raised]
    rest = {"state": State.ABORTED}
    # the cable went with the head: what was seen last is true until something else is seen
    gone = {"head": {"collision": True, "at_us": NOW}}
    assert watch(snap(NOW + 9_000_000, **rest, **gone), FULL, timers)[1] == []
    assert watch(snap(NOW + 9_010_000, **rest, **hit), FULL, timers)[1] == []
    assert "HEAD_COLLISION" in watch(snap(NOW + 9_020_000, **rest), FULL, timers)[1]


def test_dew_is_not_gone_by_values_that_are_old():
    (rule,) = [r for r in RULES if r.alarm == "COOLANT_DEW"]
    assert rule.clear(snap(), FULL) is True
    assert rule.clear(snap(chiller={"at_us": NOW - 9_000_000}), FULL) is None
    assert rule.clear(snap(chamber={"at_us": NOW - 9_000_000}), FULL) is None


@pytest.mark.parametrize(
    ("alarm", "change"),
    [
        ("EMISSION_UNCOMMANDED", {"laser": {"power_measured_w": math.nan, "at_us": NOW - 50_000},
                                  "gate_open_us": NOW - 5_000_000}),
        ("COOLANT_HOT", {"chiller": {"coolant_deg_c": math.nan}}),
        ("COOLANT_WARM", {"chiller": {"coolant_deg_c": math.nan}}),
        ("COOLANT_COLD", {"chiller": {"coolant_deg_c": math.nan}}),
        ("CARRIER_LOW", {"gas": {"carrier_l_min": math.nan}}),
        ("SHIELD_LOW", {"gas": {"shield_l_min": math.nan}}),
        ("POWDER_STARVED", {"powder": {"flow_measured_g_min": (math.nan, 0.0)},
                            "powder_set_g_min": (6.0, 0.0)}),
        ("OXYGEN_HIGH", {"oxygen": {"oxygen_ppm": math.nan}}),
        ("OXYGEN_TOO_HIGH", {"oxygen": {"oxygen_ppm": math.nan}}),
    ],
)  # fmt: skip
def test_a_value_that_is_no_number_is_a_bad_one(alarm, change):
    (rule,) = [r for r in RULES if r.alarm == alarm]
    assert rule.test(snap(), SHIELDED) is not True
    assert rule.test(snap(**change), SHIELDED) is True

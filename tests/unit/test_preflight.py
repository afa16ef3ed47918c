"""Preflight: each reason against START by its name."""

from dataclasses import replace

import pytest

from controller.machine.interlocks import Limits
from controller.machine.job import make_job, text_hash
from controller.machine.preflight import free_bytes, link_limits, preflight
from controller.machine.states import State, UnitMode
from controller.recipes import load_recipe
from firmware_bridge.link_types import SEGMENT_LINK
from tests.unit.machine_fakes import CELL, CELL_TEXT, make_plan, make_test_job
from tests.unit.test_interlocks import snap

DEVELOPMENT, PRODUCTION = UnitMode.DEVELOPMENT, UnitMode.PRODUCTION
JOB = make_test_job()


def reasons(*, job=JOB, mode=DEVELOPMENT, snapshot=None, **options):
    found = preflight(
        snapshot or snap(state=State.IDLE),
        Limits.of(CELL, "316L"),
        options.pop("cell", CELL),
        text_hash(CELL_TEXT),
        job,
        mode,
        options.pop("abilities", SEGMENT_LINK),
        **{"link_ready": True, "free_bytes": 10**10, **options},
    )
    assert all(b.text for b in found)
    return [b.name for b in found]


def test_a_ready_cell_may_start():
    assert reasons() == []


def test_no_job():
    assert reasons(job=None) == ["NO_JOB"]


def test_configuration_hash_of_the_firmware():
    assert reasons(link_ready=False) == ["MOTION_CONFIG"]


NO_DEAD_MAN = replace(SEGMENT_LINK, dead_man=False, exact_position=False)


def test_a_link_without_dead_man_needs_a_watchdog_on_the_gate():
    assert reasons(abilities=NO_DEAD_MAN) == ["GATE_WATCHDOG"]
    motion = CELL.motion.model_copy(update={"gate_watchdog": True})
    watched = CELL.model_copy(update={"motion": motion})
    assert reasons(abilities=NO_DEAD_MAN, cell=watched) == []


def test_what_a_link_lacks_is_told_by_name_and_is_no_reason_against_a_start():
    class Half:
        lacks = {"no_trim": "power cannot be trimmed"}

    (told,) = link_limits(CELL, Half())
    assert (told.name, told.text) == ("NO_TRIM", "lmd_segment: power cannot be trimmed")


def test_a_program_may_start_a_rounding_away_from_the_plan_but_no_more():
    start = tuple(int(v) for v in JOB.plan.start_steps)
    steps = CELL.motion.axes[0].steps_per_mm
    for off_steps, wanted in ((round(0.01 * steps), []), (round(0.02 * steps), ["NOT_AT_START"])):
        place = (start[0] + off_steps, *start[1:])
        s = snap(state=State.IDLE)
        s = replace(s, motion=replace(s.motion, position_steps=place))
        ok = replace(SEGMENT_LINK, exact_position=False)
        assert reasons(snapshot=s, abilities=ok) == wanted
        assert reasons(snapshot=s) == ["NOT_AT_START"]


def test_job_of_another_cell_file():
    assert reasons(job=replace(JOB, cell_hash="0" * 64)) == ["OTHER_CELL"]


def test_unapproved_recipe_is_for_development_only():
    assert "RECIPE_NOT_APPROVED" in reasons(mode=PRODUCTION)
    approved = replace(JOB, recipe=JOB.recipe.model_copy(update={"approved": True}))
    assert reasons(job=approved, mode=PRODUCTION) == []


def test_maintenance_mode_builds_nothing():
    assert reasons(mode=UnitMode.MAINTENANCE) == ["MODE"]


def test_recipe_for_another_powder():
    other = replace(JOB, recipe=JOB.recipe.model_copy(update={"material": "IN718"}))
    assert set(reasons(job=other)) == {"RECIPE", "POWDER_MATERIAL"}


def test_hopper_that_the_plan_feeds_holds_another_alloy():
    assert reasons(job=replace(JOB, powder_g=(0.0, 5.0))) == ["POWDER_MATERIAL"]


def test_hoppers_of_a_blend_may_hold_any_powder_of_it():
    graded, _ = load_recipe("316l_in625_graded")
    assert reasons(job=replace(JOB, recipe=graded, powder_g=(3.0, 5.0))) == []


def test_powder_mass_is_enough_for_the_plan():
    assert JOB.powder_g[0] == pytest.approx(6.0 * 1.9 / 60.0)  # 6 g/min for 1.9 s
    low = snap(state=State.IDLE, powder={"mass_left_g": (99.0, 5000.0)})
    assert reasons(job=replace(JOB, powder_g=(99.5, 0.0)), snapshot=low) == ["POWDER_MASS"]
    assert reasons(job=replace(JOB, powder_g=(98.0, 0.0)), snapshot=low) == []


def test_plan_within_axis_limits():
    plan = make_plan()
    plan.segments["steps"][-1] = (-32767, 0, 1, 0, 0, 0)
    job = make_job(JOB.path, plan, "0" * 64, CELL)
    assert job.low[0] == pytest.approx((4900 - 32767) / 400)
    assert reasons(job=job) == ["AXIS_RANGE"]


def test_plan_above_the_laser_s_rating():
    assert JOB.peak_power_w == pytest.approx(600.0, abs=0.1)
    assert reasons(job=replace(JOB, peak_power_w=1001.0)) == ["POWER"]


def test_axes_stand_where_the_plan_begins():
    away = snap(state=State.IDLE, motion={"position_steps": (1, 0, 0, 0, 0, 0)})
    assert reasons(snapshot=away) == ["NOT_AT_START"]


def test_room_for_the_record():
    assert reasons(free_bytes=1_000_000) == ["NO_ROOM"]
    assert reasons(free_bytes=None) == []


def test_present_alarm():
    assert reasons(present_alarms=("TICK_LATE",)) == ["ALARM"]


def test_blockers_of_emission_are_among_the_reasons():
    closed = snap(state=State.IDLE, safety={"door_closed": False}, gas=None)
    assert reasons(snapshot=closed) == ["DOOR_OPEN", "GAS_SILENT"]


def test_room_is_asked_of_the_nearest_folder_that_exists(tmp_path):
    assert free_bytes(tmp_path / "a" / "b" / "c") > 0

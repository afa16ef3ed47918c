"""Preflight: each reason against START by its name."""

from dataclasses import replace

import pytest

from controller.machine.interlocks import Limits
from controller.machine.job import make_job, text_hash
from controller.machine.preflight import free_bytes, preflight
from controller.machine.states import State, UnitMode
from controller.recipes import load_recipe
from tests.unit.machine_fakes import CELL, CELL_TEXT, make_plan, make_test_job
from tests.unit.test_interlocks import snap

DEVELOPMENT, PRODUCTION = UnitMode.DEVELOPMENT, UnitMode.PRODUCTION
JOB = make_test_job()


def reasons(*, job=JOB, mode=DEVELOPMENT, snapshot=None, **options):
    found = preflight(
        snapshot or snap(state=State.IDLE),
        Limits.of(CELL, "316L"),
        CELL,
        text_hash(CELL_TEXT),
        job,
        mode,
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

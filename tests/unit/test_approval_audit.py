"""Approved set, audit trail and the why-not chain: what differs, what was changed, what blocks."""

import json
import os
from dataclasses import replace

import pytest

from controller.errors import ConfigError, RecordError
from controller.machine import approval
from controller.machine.approval import Present, approve, deviations, read, standing
from controller.machine.audit import Audit, verify
from controller.machine.interlocks import CHAIN
from controller.machine.snapshot import Blocker
from controller.machine.states import State, UnitMode
from controller.machine.why import Holds, first_cause, why_not
from tests.unit.test_interlocks import LIMITS, snap
from tests.unit.test_interlocks_fitted import FULL
from tests.unit.test_interlocks_fitted import snap as full_snap

NOW = Present("c" * 64, "1.0", "fw 2.1", {"316l": "a" * 64}, {"power": "d" * 64})


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return approval.approval_path("sim")


def test_what_was_approved_has_no_deviation_after_a_round_trip(place):
    approve("anna", "2026-01-01T00:00:00Z", NOW, place)
    assert read(place).present == NOW
    assert standing(place, NOW) == ()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"cell": "e" * 64}, "CELL_NOT_APPROVED"),
        ({"software": "1.1"}, "SOFTWARE_NOT_APPROVED"),
        ({"firmware": "fw 2.2"}, "FIRMWARE_NOT_APPROVED"),
        ({"recipes": {"316l": "b" * 64}}, "RECIPE_OUT_OF_SET"),
        ({"recipes": {"other": "a" * 64}}, "RECIPE_OUT_OF_SET"),
        ({"calibrations": {"power": "f" * 64}}, "CALIBRATION_OUT_OF_SET"),
        ({"calibrations": {"delay": "d" * 64}}, "CALIBRATION_OUT_OF_SET"),
    ],
)
def test_each_part_that_differs_is_a_deviation_by_name(place, change, name):
    approve("anna", "2026-01-01T00:00:00Z", NOW, place)
    assert [b.name for b in standing(place, replace(NOW, **change))] == [name]


def test_nothing_approved_is_a_deviation(place):
    assert [b.name for b in standing(place, NOW)] == ["NOTHING_APPROVED"]
    assert [b.name for b in deviations(None, NOW)] == ["NOTHING_APPROVED"]


def test_recipes_are_approved_one_after_the_other_but_the_rest_is_of_today(place):
    approve("anna", "2026-01-01T00:00:00Z", NOW, place)
    later = replace(NOW, recipes={"in625": "b" * 64}, software="1.1")
    approve("max", "2026-01-02T00:00:00Z", later, place)
    both = {"316l": "a" * 64, "in625": "b" * 64}
    assert standing(place, replace(later, recipes=both)) == ()


def test_a_set_changed_by_hand_is_no_approval(place):
    approve("anna", "2026-01-01T00:00:00Z", NOW, place)
    value = json.loads(place.read_text())
    value["software"] = "6.6"
    place.write_text(json.dumps(value))
    with pytest.raises(ConfigError, match="signature does not hold"):
        read(place)
    assert [b.name for b in standing(place, NOW)] == ["APPROVAL_BROKEN"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"signature": 3}', '{"signature": "zz"}'])
def test_a_file_that_is_no_set_is_refused_by_name(place, text):
    place.parent.mkdir(parents=True)
    place.write_text(text)
    with pytest.raises(ConfigError, match=str(place)):
        read(place)


def test_somebody_has_to_approve(place):
    with pytest.raises(ConfigError, match="named"):
        approve(" ", "2026-01-01T00:00:00Z", NOW, place)


# --- audit -------------------------------------------------------------------------------


def filled(path, n=5):
    audit = Audit(path, "sim")
    for k in range(n):
        audit.add("2026-01-01T00:00:00Z", k, "anna", "operator", "start", {"k": k}, "ok")
    audit.close()


def test_audit_goes_on_where_it_ended(tmp_path):
    path = tmp_path / "audit.log"
    filled(path, 3)
    filled(path, 2)
    n, _, rows = verify(path, "sim")
    assert n == 5
    assert rows[4]["who"] == "anna"
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "harm",
    [
        lambda rows: [*rows[:2], *rows[3:]],
        lambda rows: [*rows[:2], rows[2].replace(b"anna", b"anne"), *rows[3:]],
        lambda rows: [rows[1], rows[0], *rows[2:]],
        lambda rows: [*rows[:2], rows[1], *rows[2:]],
        lambda rows: [*rows[:4], b"x" + rows[4]],
    ],
)
def test_a_line_changed_taken_out_or_put_in_is_found(tmp_path, harm):
    path = tmp_path / "audit.log"
    filled(path)
    rows = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(harm(rows)) + b"\n")
    with pytest.raises(RecordError, match="does not follow"):
        verify(path, "sim")
    with pytest.raises(RecordError):
        Audit(path, "sim")


def test_a_line_that_was_written_in_part_leaves_the_trail_whole(tmp_path, monkeypatch):
    path, write = tmp_path / "audit.log", os.write
    filled(path, 2)
    audit = Audit(path, "sim")
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
        with pytest.raises(RecordError, match="no room"):
            audit.add("2026-01-01T00:00:00Z", 9, "anna", "operator", "stop", {}, "ok")
    audit.add("2026-01-01T00:00:00Z", 9, "anna", "operator", "abort", {}, "ok")
    audit.close()
    _, _, rows = verify(path, "sim")
    assert [r["command"] for r in rows] == ["start", "start", "abort"]


def test_another_cell_s_trail_and_a_torn_line_are_refused(tmp_path):
    path = tmp_path / "audit.log"
    filled(path)
    with pytest.raises(RecordError, match="line 1"):
        verify(path, "other")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RecordError, match="torn"):
        verify(path, "sim")


# --- why not -----------------------------------------------------------------------------


def chain(s, lim=LIMITS, alarms=(), plan=()):
    return {r.name: r for r in why_not(s, lim, alarms, plan)}


def test_all_links_hold_on_a_healthy_cell_and_lacking_ones_are_not_fitted():
    rungs = chain(snap(state=State.IDLE))
    assert {r.holds for r in rungs.values()} == {Holds.OK, Holds.NOT_FITTED}
    assert rungs["room"].holds is Holds.NOT_FITTED
    assert first_cause(rungs.values()) is None
    full = chain(full_snap(state=State.IDLE), FULL)
    assert {r.holds for r in full.values()} == {Holds.OK}


def test_hardware_comes_first_and_the_plan_last():
    names = list(chain(snap(state=State.IDLE)))
    assert names[0] == "safety"
    assert names[-1] == "plan"
    assert names[:-3] == [link.name for link in CHAIN]


def test_the_first_cause_is_the_one_nearest_to_the_hardware():
    s = snap(state=State.IDLE, safety={"door_closed": False}, chiller={"flow_ok": False})
    rungs = chain(s, plan=(Blocker("NO_JOB", "no job is loaded"),))
    assert first_cause(rungs.values()).name == "safety"
    assert [b.name for b in rungs["coolant"].reasons] == ["CHILLER_FLOW"]
    assert [b.name for b in rungs["plan"].reasons] == ["NO_JOB"]


def test_stale_values_are_unknown_not_wrong():
    rungs = chain(snap(state=State.IDLE, laser=None))
    assert rungs["laser"].holds is Holds.UNKNOWN
    assert [b.name for b in rungs["laser"].reasons] == ["LASER_SILENT"]


def test_state_mode_alarms_and_what_the_chain_has_told_is_not_told_twice():
    s = replace(snap(state=State.STOPPED, motion={"homed": False}), mode=UnitMode.MAINTENANCE)
    rungs = chain(s, alarms=("ESTOP",), plan=(Blocker("NOT_HOMED", "x"), Blocker("ALARM", "y")))
    assert [b.name for b in rungs["machine"].reasons] == ["STATE", "MODE"]
    assert [b.name for b in rungs["alarms"].reasons] == ["ESTOP"]
    assert rungs["plan"].holds is Holds.OK
    assert rungs["motion"].as_dict()["reasons"] == [
        {"name": "NOT_HOMED", "text": "the axes are not homed"}
    ]

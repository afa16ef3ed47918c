"""Alarms after ISA-18.2: states, shelves that end, reactions that stay, floods that are counted."""

import pytest

from controller.errors import StateError
from controller.machine.alarms import (
    FLOOD,
    FLOOD_US,
    SUPPRESSED_BY,
    TABLE,
    AlarmManager,
    AlarmState,
)
from controller.model import Severity
from tests.unit.machine_fakes import Bench, run_virtual

MIN_US = 60_000_000


@pytest.fixture
def told():
    return []


@pytest.fixture
def manager(told):
    return AlarmManager(
        lambda kind, a, who: told.append((kind, a.alarm.name)),
        lambda kind, data: told.append((kind, data)),
    )


def test_states_of_one_alarm_through_its_life(manager):
    name = "POWDER_STALLED"
    seen = [manager.state_of(name)]
    manager.raise_(name, 1)
    seen.append(manager.state_of(name))
    manager.clear(name)
    seen.append(manager.state_of(name))
    manager.raise_(name, 2)
    manager.acknowledge("anna")
    seen.append(manager.state_of(name))
    manager.clear(name)
    seen.append(manager.state_of(name))
    assert seen == [
        AlarmState.NORMAL, AlarmState.UNACKNOWLEDGED, AlarmState.RETURNED,
        AlarmState.ACKNOWLEDGED, AlarmState.NORMAL,
    ]  # fmt: skip


def test_a_shelf_ends_by_itself_and_both_are_told(manager, told):
    manager.shelve("CAMERA_LOST", "anna", "camera in repair", 60.0, 0)
    manager.tick(MIN_US - 1)
    assert manager.state_of("CAMERA_LOST") is AlarmState.SHELVED
    manager.tick(MIN_US)
    assert manager.state_of("CAMERA_LOST") is AlarmState.NORMAL
    (kind, data), (end, ended) = told
    assert (kind, end) == ("alarm_shelved", "alarm_unshelved")
    assert data["reaction"] == "stays"
    assert ended == {"name": "CAMERA_LOST", "who": "time"}


def test_a_shelved_alarm_is_present_and_first_out_all_the_same(manager):
    manager.shelve("CHILLER_FLOW", "anna", "sensor loose", 600.0, 0)
    assert manager.raise_("CHILLER_FLOW", 5) is not None
    assert manager.first_out.alarm.name == "CHILLER_FLOW"
    assert [a.alarm.name for a in manager.present(Severity.STOP)] == ["CHILLER_FLOW"]
    assert manager.state_of("CHILLER_FLOW") is AlarmState.SHELVED
    assert manager.told == 0


@pytest.mark.parametrize("way", ["shelve", "out_of_service"])
def test_a_silenced_alarm_still_stops_the_build(way):
    async def main():
        bench = Bench()
        await bench.executing()
        alarms = bench.ex.alarms
        if way == "shelve":
            alarms.shelve("CHILLER_FLOW", "anna", "sensor loose", 600.0, bench.ex.now_us())
        else:
            alarms.out_of_service("CHILLER_FLOW", "anna", "sensor loose", bench.ex.now_us())
        bench.truth("chiller", flow_ok=False)
        await bench.until_state("STOPPED", limit_s=10.0)
        assert bench.ex.alarms.first_out.alarm.name == "CHILLER_FLOW"
        kinds = [kind for _, kind, _ in bench.events]
        assert "alarm_shelved" in kinds or "alarm_out_of_service" in kinds
        assert "CHILLER_FLOW" in bench.alarms()
        await bench.end()

    run_virtual(main)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 8 * 3600 + 1, float("nan"), float("inf")])
def test_a_shelf_has_a_time_limit(manager, seconds):
    with pytest.raises(StateError, match=r"at most 28800 s"):
        manager.shelve("CAMERA_LOST", "anna", "camera in repair", seconds, 0)


def test_a_silence_needs_a_reason_and_a_known_name(manager):
    with pytest.raises(StateError, match="reason"):
        manager.shelve("CAMERA_LOST", "anna", " ", 60.0, 0)
    with pytest.raises(StateError, match="not known"):
        manager.out_of_service("NO_SUCH", "anna", "in repair", 0)
    with pytest.raises(StateError, match="neither"):
        manager.put_back("CAMERA_LOST", "anna", 0)


def test_out_of_service_lasts_until_it_is_put_back_and_is_not_shelved_over(manager):
    manager.out_of_service("CAMERA_LOST", "max", "sent away", 0)
    manager.tick(100 * FLOOD_US)
    assert manager.state_of("CAMERA_LOST") is AlarmState.OUT_OF_SERVICE
    with pytest.raises(StateError, match="out of service"):
        manager.shelve("CAMERA_LOST", "anna", "in repair", 60.0, 0)
    manager.put_back("CAMERA_LOST", "max", 9)
    assert manager.state_of("CAMERA_LOST") is AlarmState.NORMAL


def test_what_its_cause_makes_plain_is_suppressed_by_design_and_logged(manager, told):
    manager.raise_("DOOR_OPEN", 1)
    standing = manager.raise_("CHAIN_OPEN", 2)
    assert manager.state_of("CHAIN_OPEN") is AlarmState.SUPPRESSED
    assert standing.as_event(whole=True, who="")["suppressed_by"] == "DOOR_OPEN"
    assert ("alarm", "CHAIN_OPEN") in told
    assert manager.told == 1
    assert len(manager.present()) == 2


def test_what_outlasts_the_cause_that_made_it_plain_is_told_again(manager):
    manager.raise_("ESTOP", 1)
    manager.raise_("DOOR_OPEN", 2)
    manager.raise_("CHAIN_OPEN", 3)
    manager.clear("ESTOP", 4)
    assert manager.state_of("CHAIN_OPEN") is AlarmState.SUPPRESSED  # the door is open still
    manager.clear("DOOR_OPEN", 5)
    assert manager.state_of("CHAIN_OPEN") is AlarmState.UNACKNOWLEDGED
    assert {a["name"]: a["suppressed_by"] for a in manager.as_list()}["CHAIN_OPEN"] == ""


def test_a_flood_is_more_than_ten_alarms_in_ten_minutes(manager, told):
    own = [a.name for a in TABLE if a.severity is Severity.STOP and a.name not in SUPPRESSED_BY]
    names = own[: FLOOD + 1]
    for n, name in enumerate(names[:FLOOD]):
        manager.raise_(name, n)
    assert not manager.flood
    manager.raise_(names[FLOOD], FLOOD)
    assert manager.flood
    assert ("alarm_flood", {"flood": True, "alarms": 11}) in told
    manager.tick(FLOOD_US)  # the first is ten minutes old
    assert not manager.flood
    assert manager.most_told == 11


def test_history_keeps_what_was_done_in_order(manager):
    manager.raise_("ESTOP", 1, "button 3")
    manager.clear("ESTOP", 2)
    manager.acknowledge("anna", None, 3)
    assert list(manager.history) == [
        (1, "alarm", "ESTOP", "button 3"), (2, "alarm_clear", "ESTOP", ""),
        (3, "alarm_ack", "ESTOP", "anna"),
    ]  # fmt: skip

"""AlarmManager: first-out, latching, acknowledgement."""

import pytest

from controller.machine.alarms import BY_NAME, AlarmManager
from controller.model import Severity


@pytest.fixture
def told():
    return []


@pytest.fixture
def manager(told):
    return AlarmManager(lambda kind, a, who: told.append((kind, a.alarm.name, who)))


def test_alarm_stands_until_gone_and_acknowledged(manager, told):
    assert manager.raise_("POWDER_STALLED", 10, "hopper 1") is not None
    manager.clear("POWDER_STALLED")
    assert list(manager.standing) == ["POWDER_STALLED"]  # latched
    manager.acknowledge("anna")
    assert manager.standing == {}
    assert told == [
        ("alarm", "POWDER_STALLED", ""),
        ("alarm_clear", "POWDER_STALLED", ""),
        ("alarm_ack", "POWDER_STALLED", "anna"),
    ]


def test_acknowledged_first_stands_until_gone(manager):
    manager.raise_("ESTOP", 10)
    assert manager.acknowledge("anna") == 1
    assert manager.acknowledge("anna") == 0
    assert [a.alarm.name for a in manager.present()] == ["ESTOP"]
    manager.clear("ESTOP")
    assert manager.standing == {}


def test_a_present_alarm_is_not_raised_again(manager, told):
    assert manager.raise_("ESTOP", 10) is not None
    assert manager.raise_("ESTOP", 20) is None
    assert len(told) == 1


def test_a_latched_alarm_that_comes_back_acts_again(manager):
    manager.raise_("SHIELD_LOW", 10)
    manager.acknowledge("anna")
    manager.raise_("POWDER_STALLED", 10)
    manager.clear("POWDER_STALLED")
    again = manager.raise_("POWDER_STALLED", 30, "again")
    assert again is not None
    assert (again.count, again.acknowledged, again.detail) == (2, False, "again")


def test_first_out_is_the_cause_of_the_cascade(manager):
    manager.raise_("TICK_LATE", 5)  # a NOTE is never the cause
    manager.raise_("DOOR_OPEN", 10)
    manager.raise_("CHAIN_OPEN", 10)
    manager.raise_("FIRMWARE_FAULT", 12)
    assert manager.first_out.alarm.name == "DOOR_OPEN"
    for name in ("DOOR_OPEN", "CHAIN_OPEN", "FIRMWARE_FAULT"):
        manager.clear(name)
    manager.acknowledge("anna")
    assert manager.first_out.alarm.name == "DOOR_OPEN"  # kept until somebody resets
    manager.reset_first_out()
    manager.raise_("ESTOP", 90)
    assert manager.first_out.alarm.name == "ESTOP"


def test_a_cause_that_is_read_after_its_effect_becomes_the_first_out(manager):
    """The motion controller sees the open chain 50 ms before the PLC tells of the door."""
    manager.raise_("CHAIN_OPEN", 1_000_000)
    manager.raise_("FIRMWARE_FAULT", 1_000_000)
    manager.raise_("DOOR_OPEN", 1_050_000)
    assert manager.first_out.alarm.name == "DOOR_OPEN"
    manager.reset_first_out()
    manager.clear("DOOR_OPEN")
    manager.raise_("LINK_LOST", 2_000_000)
    manager.raise_("DOOR_OPEN", 2_050_000)
    assert manager.first_out.alarm.name == "LINK_LOST"
    manager.reset_first_out()
    manager.clear("CHAIN_OPEN")
    manager.clear("ESTOP")
    manager.raise_("CHAIN_OPEN", 3_000_000)
    manager.raise_("ESTOP", 4_000_000)  # too late to be what opened the chain
    assert manager.first_out.alarm.name == "CHAIN_OPEN"


def test_present_filters_by_severity(manager):
    for name in ("TICK_LATE", "SHIELD_LOW", "LASER_SILENT", "ESTOP"):
        manager.raise_(name, 1)
    assert [a.alarm.name for a in manager.present(Severity.STOP)] == ["LASER_SILENT", "ESTOP"]
    assert len(manager.present(Severity.NOTE)) == 4


def test_as_list_is_plain_data(manager):
    manager.raise_("ESTOP", 7, "button 3")
    (row,) = manager.as_list()
    assert row["code"] == 601
    assert row["severity"] == "ABORT"
    assert row["detail"] == "button 3"
    assert row["present"] is True


def test_unknown_name_is_an_error_of_ours():
    with pytest.raises(KeyError):
        BY_NAME["NO_SUCH"]

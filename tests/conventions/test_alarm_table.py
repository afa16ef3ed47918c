"""Every alarm row: unique, explained, actionable, and in step with the rules and the table."""

import re
from pathlib import Path

import pytest

from controller.machine.alarm_reasons import CONSEQUENCES, page
from controller.machine.alarms import BY_CODE, BY_NAME, SUPPRESSED_BY, TABLE
from controller.machine.interlocks import RULES
from controller.model import Severity

# the fault table: alarm -> severity by its letter, and seconds from onset to reaction
FAULT_TABLE = {
    "LINK_LOST": (Severity.ABORT, 0.105),
    "LASER_SILENT": (Severity.STOP, 0.0),
    "CHILLER_SILENT": (Severity.STOP, 0.0),
    "GAS_SILENT": (Severity.STOP, 0.0),
    "POWDER_SILENT": (Severity.HOLD, 1.0),
    "EMISSION_UNCOMMANDED": (Severity.ABORT, 0.1),
    "BACK_REFLECTION": (Severity.ABORT, 0.1),
    "CHILLER_FLOW": (Severity.STOP, 0.5),
    "COOLANT_WARM": (Severity.HOLD, 1.0),
    "COOLANT_HOT": (Severity.STOP, 0.5),
    "POWDER_STALLED": (Severity.HOLD, 1.0),
    "CARRIER_LOW": (Severity.STOP, 0.5),
    "SHIELD_LOW": (Severity.HOLD, 1.0),
    "OXYGEN_TOO_HIGH": (Severity.STOP, 1.0),
    "OXYGEN_SILENT": (Severity.STOP, 1.0),
    "DOOR_OPEN": (Severity.ABORT, 0.1),
    "ESTOP": (Severity.ABORT, 0.1),
    "LASER_POWER_LOW": (Severity.STOP, 1.0),
    "PYROMETER_LOST": (Severity.HOLD, 2.0),
    "RECORD_FAILED": (Severity.HOLD, 1.0),
}


def test_codes_and_names_are_unique():
    assert len(BY_CODE) == len(TABLE)
    assert len(BY_NAME) == len(TABLE)
    assert [a.code for a in TABLE] == sorted(a.code for a in TABLE)


@pytest.mark.parametrize("alarm", TABLE, ids=lambda a: a.name)
def test_row_is_whole(alarm):
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", alarm.name)
    assert 100 <= alarm.code <= 999
    for sentence in (alarm.text, alarm.action):
        assert len(sentence) > 20
        assert sentence[0].isupper()
        assert sentence.endswith(".")
    # a figure in the text carries its unit
    for number in re.findall(r"\d+(?:\.\d+)?(\s*\S+)", alarm.text):
        assert re.match(r"\s*(ms|s|K|%|W|g|L/min|ppm)\b|\s*%", number), alarm.text


@pytest.mark.parametrize("alarm", TABLE, ids=lambda a: a.name)
def test_only_hold_waits_for_the_end_of_a_track(alarm):
    assert (alarm.max_hold_s > 0.0) == (alarm.severity is Severity.HOLD)


@pytest.mark.parametrize("name", FAULT_TABLE)
def test_fault_table_is_followed(name):
    severity, limit_s = FAULT_TABLE[name]
    alarm = BY_NAME[name]
    assert alarm.severity is severity
    rules = {r.alarm: r for r in RULES}
    if name in rules and limit_s > 0.0:
        assert rules[name].delay_us * 1e-6 <= limit_s
    if severity is Severity.HOLD:
        assert alarm.max_hold_s <= limit_s


def test_every_rule_has_a_row_and_only_one():
    names = [r.alarm for r in RULES]
    assert len(set(names)) == len(names)
    assert set(names) <= set(BY_NAME)


def test_rules_stand_worst_first():
    rank = list(Severity)[::-1]
    order = [rank.index(BY_NAME[r.alarm].severity) for r in RULES]
    assert order == sorted(order)


def test_every_alarm_has_a_consequence_and_no_other_has():
    assert set(CONSEQUENCES) == set(BY_NAME)
    assert all(len(text) > 6 for text in CONSEQUENCES.values())


def test_reference_page_is_what_the_tables_say():
    """``python -m controller.machine.alarm_reasons`` writes it anew."""
    path = Path(__file__).parents[2] / "docs" / "reference" / "alarms.md"
    assert path.read_text(encoding="utf-8") == page()


def test_suppressed_alarms_and_their_causes_are_alarms_and_causes_are_no_milder():
    rank = list(Severity)
    for name, causes in SUPPRESSED_BY.items():
        for cause in causes:
            assert rank.index(BY_NAME[cause].severity) >= rank.index(BY_NAME[name].severity)

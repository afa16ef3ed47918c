"""Calibration files: signed, dated, voided; START is refused by name without them."""

import dataclasses

import pytest

from controller.commissioning.kinds import KINDS, MAINTENANCE, needed
from controller.commissioning.store import (
    DAY_S,
    Calibration,
    Store,
    blockers,
    header_entry,
    warnings,
)
from controller.config import load_cell
from controller.errors import CommissioningError, ConfigError
from controller.machine.states import UnitMode

NOW_S = 1_800_000_000.0
DEV, PROD = UnitMode.DEVELOPMENT, UnitMode.PRODUCTION


@pytest.fixture
def cell():
    return load_cell("sim")[0]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Store(tmp_path / "cal")


def made(kind, item="cell", at_s=NOW_S, **other):
    row = KINDS[kind]
    values = {
        "kind": kind, "cell": "sim", "item": item, "done_s": at_s, "by": 'Zoë "Z"\n',
        "due_s": at_s + row.valid_days * DAY_S, "simulated": True,
        "values": {v.name: 1.0 for v in row.values},
        "uncertainty": {v.name: 0.0 for v in row.values},
        "readings": ((1.0, "gate"),),
    }  # fmt: skip
    return Calibration(**{**values, **other})


def names(found):
    return [b.name for b in found]


def fill(store, cell, at_s=NOW_S):
    for row, item in needed(cell):
        store.add(made(row.name, item, at_s))


def test_new_cell_is_refused_in_production_by_every_name(cell, store):
    found = blockers(cell, store, NOW_S, PROD)
    assert {f"CALIBRATION_{row.name.upper()}" for row, _ in needed(cell)} == set(names(found))
    assert any("lmd calibrate feeder --cell sim --item hopper2" in b.text for b in found)


def test_simulated_cell_in_development_is_warned_not_refused(cell, store):
    assert blockers(cell, store, NOW_S, DEV) == ()
    assert names(warnings(cell, store, NOW_S, DEV)) == names(blockers(cell, store, NOW_S, PROD))
    assert warnings(cell, store, NOW_S, PROD) == ()


def test_real_cell_is_refused_in_development_too(cell, store):
    real = cell.model_copy(update={"simulated": False})
    assert "CALIBRATION_POWER" in names(blockers(real, store, NOW_S, DEV))
    # what measures power must shine; the door must hold even then
    assert set(names(blockers(real, store, NOW_S, DEV, "calibration:power"))) == {
        "CALIBRATION_DOOR"
    }
    assert "CALIBRATION_POWER" in names(blockers(real, store, NOW_S, PROD, "calibration:power"))
    # nor does a test emission in maintenance shine behind a door that nobody tested
    testing = UnitMode.MAINTENANCE
    assert set(names(blockers(real, store, NOW_S, testing))) == {"CALIBRATION_DOOR"}
    assert blockers(cell, store, NOW_S, testing) == ()
    fill(store, cell)
    assert "simulated cell" in blockers(real, store, NOW_S, PROD)[0].text


def test_all_done_permits_and_due_date_ends_it(cell, store):
    fill(store, cell)
    assert blockers(cell, store, NOW_S + 60, PROD) == ()
    assert blockers(cell, store, NOW_S + 29 * DAY_S, PROD) == ()
    late = blockers(cell, store, NOW_S + 31 * DAY_S, PROD)
    assert set(names(late)) == {
        f"CALIBRATION_{k.upper()}" for k in ("feeder", "delay", "centring", "standoff")
    }
    assert "was due" in late[0].text
    store.add(made("standoff", at_s=NOW_S + 30 * DAY_S))
    assert "CALIBRATION_STANDOFF" not in names(blockers(cell, store, NOW_S + 31 * DAY_S, PROD))


@pytest.mark.parametrize("what", sorted(MAINTENANCE))
def test_maintenance_voids_exactly_what_it_touches(cell, store, what):
    fill(store, cell)
    store.note(what, "sim", NOW_S + 10, "Ann")
    touched = {k.name for k in KINDS.values() if what in k.voided_by and k.fitted(cell)}
    found = blockers(cell, store, NOW_S + 20, PROD)
    assert {n.removeprefix("CALIBRATION_").lower() for n in names(found)} == touched
    fill(store, cell, NOW_S + 30)
    assert blockers(cell, store, NOW_S + 40, PROD) == ()


def test_maintenance_that_nobody_knows_is_refused(store):
    with pytest.raises(ConfigError, match="none of nozzle"):
        store.note("nozle", "sim", NOW_S, "Ann")


def test_readings_values_and_odd_names_come_back(store):
    path = store.add(made("power"))
    back = store.last("power", "cell")
    assert back == dataclasses.replace(made("power"), key=back.key, path=path)


def test_edited_unsigned_and_foreign_files_do_not_count(cell, store):
    path = store.add(made("power"))
    text = path.read_bytes()
    for wrong in (
        text.replace(b"values.slope = 1.0", b"values.slope = 1.1"),
        text.replace(b"due_s = ", b"due_s = 9"),
        text[: text.rindex(b"signature")],
        text + b"x = 1\n",
        b"",
    ):
        path.write_bytes(wrong)
        assert store.last("power", "cell") is None
        assert path.name in store.bad[0]
        assert "CALIBRATION_POWER" in names(blockers(cell, store, NOW_S, PROD))
    path.write_bytes(text)
    assert store.last("power", "cell") is not None
    assert Store(store.folder, trusted=()).last("power", "cell") is None


def test_uncertain_and_missing_values_are_not_stored(store):
    bad = made("delay", "hopper1")
    with pytest.raises(CommissioningError, match="above the tolerance"):
        store.add(dataclasses.replace(bad, uncertainty={"transport_delay_s": 0.5, "lag_s": 0.0}))
    with pytest.raises(CommissioningError, match="lag_s is missing"):
        store.add(dataclasses.replace(bad, values={"transport_delay_s": 3.0}))
    nan = {"transport_delay_s": float("nan"), "lag_s": 1.0}
    with pytest.raises(CommissioningError, match="no finite number"):
        store.add(dataclasses.replace(bad, values=nan))


def test_two_results_of_one_second_are_both_kept(store):
    assert store.add(made("power")) != store.add(made("power"))
    assert len(store.results()) == 2


def test_header_lists_every_needed_kind(cell, store):
    store.add(made("power"))
    entries = {(e["kind"], e["item"]): e for e in header_entry(cell, store, NOW_S)}
    assert len(entries) == len(needed(cell))
    power = entries["power", "cell"]
    assert power["problem"] == ""
    assert power["values"]["slope"] == 1.0
    assert len(power["sha256"]) == 64
    assert "never done" in entries["gas", "cell"]["problem"]

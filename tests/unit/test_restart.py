"""What ``lmd resume`` lets go on: number of restarts and time without light, from the record."""

from pathlib import Path

import numpy as np
import pytest

from controller.record.reader import Event, Record
from controller.restart import RestartRefused, check_restart
from tests.unit.planning_cases import RECIPE

START = "2026-11-24T10:00:00+00:00"
ROW = np.dtype([("t_us", "<i8"), ("gate", "<f4")])


def record(*, time="real", restarts=None, rests=(), lit_until_s=60.0, lasts_s=120.0):
    """A build of two minutes whose light was on for the first."""
    rows = np.zeros(int(lasts_s), ROW)
    rows["t_us"] = 5_000_000 + np.arange(len(rows)) * 1_000_000
    rows["gate"] = np.arange(len(rows)) <= lit_until_s
    header = {"started_wall": START, "time": time}
    if restarts is not None:
        header["resumes"] = {"restarts": restarts}
    events = [Event(0, "rest", {"overlap_mm": mm}) for mm in rests]
    return Record(Path("r"), header, rows, events, "STOPPED", True, "", None)


def test_restarts_are_counted_over_the_chain_of_records_and_the_holds_in_them():
    soon = "2026-11-24T10:03:00+00:00"
    assert RECIPE.restart.most_restarts == 3
    assert check_restart(record(), RECIPE, soon) == 1
    assert check_restart(record(restarts=2), RECIPE, soon) == 3
    # held between two beads: none was begun in its middle
    assert check_restart(record(restarts=1, rests=(2.1, 0.0)), RECIPE, soon) == 3
    for one in (
        record(restarts=3),
        record(rests=(2.0, 2.2, 2.1)),
        record(restarts=2, rests=(2.0,)),
    ):
        with pytest.raises(RestartRefused, match=r"restart 4 of this build.*most_restarts is 3"):
            check_restart(one, RECIPE, soon)


def test_time_without_light_counts_from_the_last_light_not_from_the_record_s_end():
    # light until 10:01:00; longest_stop is 20 min
    assert check_restart(record(), RECIPE, "2026-11-24T10:20:59+00:00") == 1
    with pytest.raises(RestartRefused, match=r"no light for 20\.1 min.*longest_stop is 20 min"):
        check_restart(record(), RECIPE, "2026-11-24T10:21:03+00:00")


def test_simulated_time_counts_from_the_start():
    late = "2026-11-24T10:20:30+00:00"
    assert check_restart(record(), RECIPE, late) == 1
    with pytest.raises(RestartRefused, match="longest_stop"):
        check_restart(record(time="virtual"), RECIPE, late)


def test_a_record_that_does_not_tell_when_it_began_is_refused():
    one = record()
    del one.header["started_wall"]
    with pytest.raises(RestartRefused, match="longest_stop"):
        check_restart(one, RECIPE, START)

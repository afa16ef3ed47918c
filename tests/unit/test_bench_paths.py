"""The benchmarks' paths, their rows, and the rival that the table's ratio is stated against."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from benchmarks import measure, paths
from benchmarks.__main__ import HERE, KEYS, _planner_first
from tests.unit import klipper_queue, klipper_twin
from tests.unit.test_motion_kernel import random_path

ROOT = Path(__file__).resolve().parents[2]
# beside the project where its issues were written: the paths that its goals were measured on
STATED = ROOT.parent / "shared" / "bench" / "paths.py"


@pytest.mark.slow
def test_paths_have_the_sizes_that_the_goals_are_stated_for():
    moves = {name: len(make()) - 1 for name, make in paths.PATHS.items()}
    assert moves == {"a": 4019, "b": 200_000, "c": 200_000}
    length = {
        name: np.linalg.norm(np.diff(make(), axis=0), axis=1) for name, make in paths.PATHS.items()
    }
    # ten layers of 201 lines of 100 mm and 200 links of 0.5; between them nine ways from corner
    # to corner, sqrt(2 * 100^2 + 0.35^2) = 141.42180
    assert length["a"].sum() == pytest.approx(202_000.0 + 9 * 141.42180, abs=0.001)
    assert length["a"].max() == pytest.approx(141.42180, abs=1e-4)
    assert length["b"].max() <= 0.1 + 1e-9  # chords of a curve: not longer than its arcs
    assert length["c"].min() >= 0.05
    assert length["c"].max() <= 2.0
    for name, make in paths.PATHS.items():
        assert make().tobytes() == make().tobytes(), name
        assert make().shape[1] == 3


@pytest.mark.skipif(not STATED.exists(), reason="the issue's own generator is not beside us")
@pytest.mark.slow
def test_paths_are_the_ones_of_the_issue():
    spec = importlib.util.spec_from_file_location("stated_paths", STATED)
    stated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stated)
    for name, make in paths.PATHS.items():
        np.testing.assert_array_equal(make(), stated.PATHS[name]()[0])


@pytest.mark.slow
def test_long_path_has_no_moves_of_length_zero():
    points = paths.long_spiral(450_000)
    length = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert len(length) == 450_000
    assert length.min() > 0.05
    assert length.max() == pytest.approx(0.35)


@pytest.mark.parametrize("seed", range(6))
def test_published_algorithm_gives_the_trapezoids_of_the_oracle(seed):
    points = [tuple(p) for p in random_path(seed, 300)]
    made, duration_s = klipper_queue.plan(points, 50.0, 2000.0, 0.01)
    moves, want_s = klipper_twin.plan(points, 50.0, 2000.0, 0.01)
    assert duration_s == pytest.approx(want_s, rel=1e-6)  # rounding noise at reversals
    assert len(made) == len(moves) == 300
    for row, move in zip(made, moves, strict=True):
        # start and cruise speed, acceleration of an entry
        assert row[10] == pytest.approx(move.start_v, rel=1e-6, abs=1e-3)
        assert row[11] == pytest.approx(move.peak_v, rel=1e-6, abs=1e-3)
        assert row[12] == 2000.0
    ends = [row[0] + row[1] + row[2] + row[3] for row in made]
    np.testing.assert_allclose(ends[:-1], [row[0] for row in made[1:]], rtol=1e-12)


def test_smoothed_look_ahead_only_makes_it_slower():
    points = [tuple(p) for p in random_path(2, 300)]
    plain = klipper_queue.plan(points, 50.0, 2000.0, 0.01)[1]
    smoothed = klipper_queue.plan(points, 50.0, 2000.0, 0.01, cruise_ratio=0.5)[1]
    assert plain * 1.001 < smoothed < plain * 1.5


def test_rival_checks_its_machine_as_it_goes():
    machine = klipper_queue.Machine(50.0, 2000.0, 0.01, 5.0, 100.0, range_mm=((0, 9),) * 3)
    head = klipper_queue.ToolHead(machine, (0.0, 0.0, 0.0))
    head.move([0.0, 0.0, 9.0, 0.0], 50.0)
    with pytest.raises(ValueError, match="outside"):
        head.move([0.0, 9.5, 9.0, 0.0], 50.0)
    head.finish()
    # z alone: 5 mm/s at 100 mm/s2; 9 / 5 + 5 / 100
    assert head.print_s == pytest.approx(1.85)


def test_row_is_met_by_its_goal_and_null_without_a_value():
    assert measure.row("p", "f", 3.0, "x", 2.0)["met"] is True
    assert measure.row("p", "f", 3.0, "x", 2.0, at_most=True)["met"] is False
    assert measure.row("p", "f", None, "x", 2.0)["met"] is None
    assert measure.row("p", "f", 3.0, "x")["met"] is None
    assert set(measure.row("p", "f", 3.0, "x")) == set(KEYS)


def test_interleaved_times_every_work():
    calls = []
    took = measure.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert set(took) == {"a", "b"}
    assert calls.count("a") > 2


def test_planner_is_measured_first():
    order = sorted(HERE.glob("bench_*.py"), key=_planner_first)
    names = [path.stem for path in order]
    assert names[0] == "bench_planner"
    assert names[-1] == "bench_cell"

"""Places against the path: distances worked out by hand, and a build of a machine of its own."""

import dataclasses
import math

import numpy as np
import pytest

from controller.record import path_check as pc
from controller.record import summary as sm
from controller.record.content import path_sentence
from controller.record.reader import read_record
from tests.unit.record_samples import make_plan, write_job, write_record

ROWS = np.dtype(
    [("t_us", "<i8"), ("x_mm", "<f8"), ("y_mm", "<f8"), ("z_mm", "<f8"), ("armed", "u1"),
     ("gate", "u1")]
)  # fmt: skip


def test_the_farthest_place_is_found_wherever_it_is():
    a = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    b = np.array([[10.0, 0.0, 0.0], [10.0, 10.0, 0.0]])
    on = np.array([[x, 0.0, 0.0] for x in np.linspace(0.0, 10.0, 101)])
    assert pc._farthest(on, a, b) == pytest.approx(0.0, abs=1e-12)
    near = np.append(on, [[5.0, 0.03, 0.04]], axis=0)
    assert pc._farthest(near, a, b) == pytest.approx(0.05)
    beyond_the_end = np.append(on, [[13.0, 14.0, 0.0]], axis=0)
    assert pc._farthest(beyond_the_end, a, b) == pytest.approx(5.0)
    far_from_all = np.append(on, [[-30.0, 0.0, 40.0]], axis=0)
    assert pc._farthest(far_from_all, a, b) == pytest.approx(50.0)


def test_random_places_agree_with_the_plain_way():
    rng = np.random.default_rng(5)
    a, b = rng.uniform(-3, 3, (40, 3)), rng.uniform(-3, 3, (40, 3))
    for spread in (0.1, 1.0, 4.0):
        share = rng.uniform(0, 1, (60, 1))
        places = a[:1] + share * (b[:1] - a[:1]) + rng.normal(0, spread, (60, 3))
        least = []
        for p in places:
            t = np.clip(((p - a) * (b - a)).sum(1) / ((b - a) ** 2).sum(1), 0, 1)
            least.append(np.linalg.norm(p - a - t[:, None] * (b - a), axis=1).min())
        assert pc._farthest(places, a, b) == pytest.approx(max(least), rel=1e-9)


@pytest.fixture(scope="module")
def plan():
    made = make_plan()
    assert '"lmd_segment"' in made.cell_toml
    text = made.cell_toml.replace('"lmd_segment"', '"grblhal"\ngate_watchdog = true')
    return dataclasses.replace(made, cell_toml=text)


@pytest.fixture
def folder(tmp_path, plan):
    write_record(tmp_path / "r", plan, job=write_job(tmp_path / "j.lmdjob", plan))
    return tmp_path / "r"


def test_a_record_of_such_a_machine_tells_mm_and_no_steps(folder):
    summary = sm.summarise(folder)
    told = summary["path_check"]
    assert summary["position_error_steps"] is summary["segments_executed"] is None
    assert told["source"] == "telemetry"
    assert told["places"] > 1000
    assert told["off_path_mm"] < 0.005  # one step of rounding, float32
    assert told["unlit_mm"] < 0.11  # 10 mm/s, a row each 10 ms
    assert told["within"] is True
    sentence = path_sentence(told)
    assert "not compared to the step" in sentence
    assert f"{told['places']} places" in sentence


def test_a_place_beside_the_path_is_seen(folder, plan):
    record = read_record(folder)
    rows = record.telemetry.copy()
    lit = np.flatnonzero(rows["gate"] > 0.5)
    rows["x_mm"][lit[700]] += 0.3
    rows["y_mm"][lit[700]] += 0.4
    parts = [sm.Part(plan)]
    told = pc.check_path(dataclasses.replace(record, telemetry=rows), None, parts, sm.cell_of(plan))
    assert 0.15 < told["off_path_mm"] < 0.51
    assert told["within"] is False


def test_a_bead_that_was_left_out_is_seen(folder, plan):
    record = read_record(folder)
    rows = record.telemetry
    lit = np.flatnonzero(rows["gate"] > 0.5)
    kept = np.delete(rows, lit[300:400])  # 10 mm of a circle of 9 mm radius
    parts = [sm.Part(plan)]
    whole = dataclasses.replace(record, telemetry=kept, state="COMPLETE")
    told = pc.check_path(whole, None, parts, sm.cell_of(plan))
    assert told["within"] is True
    assert 1.0 < told["unlit_mm"] < 5.1
    ended = dataclasses.replace(whole, state="STOPPED")
    assert pc.check_path(ended, None, parts, sm.cell_of(plan))["unlit_mm"] is None


def test_no_light_is_no_proof(folder, plan):
    record = read_record(folder)
    rows = record.telemetry.copy()
    rows["gate"] = 0.0
    dark = dataclasses.replace(record, telemetry=rows)
    told = pc.check_path(dark, None, [sm.Part(plan)], sm.cell_of(plan))
    assert told["off_path_mm"] is told["within"] is None
    assert "cannot be compared" in path_sentence(told)


def test_time_and_layers_come_from_rows_that_moved_and_shone(plan):
    cell = sm.cell_of(plan)
    rows = np.zeros(400, ROWS)
    rows["t_us"] = 10_000 * np.arange(400)
    rows["armed"][100:] = 1
    x = np.zeros(400)
    x[20:40] = np.arange(20)  # homing: not armed
    x[40:] = 19.0
    x[150:250] += np.arange(100)
    x[250:] = x[249]
    rows["x_mm"] = x
    zero = cell.motion.work_offset_mm[2] - cell.motion.tool_offset_mm[2]
    rows["z_mm"] = zero + float(plan.layers["z_mm"][2])
    rows["gate"][160:170] = 1
    told = pc.time_and_layers(rows, plan, cell)
    assert told["duration_s"] == pytest.approx(0.99)
    assert told["layers"] == 1
    rows["gate"] = 0
    rows["armed"] = 0
    assert pc.time_and_layers(rows, plan, cell) == {"duration_s": None, "layers": None}
    assert math.isclose(pc._same_height(np.array([1.0, 1.4, 1.9])), 0.1)

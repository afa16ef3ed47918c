"""Reading records and traces, and the figures drawn from them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from mcap.writer import Writer

from controller.errors import RecordError
from controller.record import summary as sm
from controller.record.export import export_csv, export_parquet
from controller.record.reader import read_record, read_trace
from firmware_bridge.segments import FLAG_PARAM
from tests.unit.record_samples import (
    CATCHMENT,
    FLOW_G_MIN,
    HEADER,
    POWER_W,
    TRACE_DTYPES,
    make_plan,
    telemetry_rows,
    write_job,
    write_record,
    write_trace,
)


@pytest.fixture(scope="module")
def plan():
    return make_plan(3)


@pytest.fixture(scope="module")
def folder(plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("summary")
    write_record(base / "r", plan, job=write_job(base / "j.lmdjob", plan))
    write_trace(base / "r" / "trace.mcap", plan)
    return base / "r"


def test_record_reads_back_as_written(folder: Path, plan) -> None:
    record = read_record(folder)
    assert record.telemetry.tobytes() == telemetry_rows(plan).tobytes()
    assert record.header == HEADER
    assert record.state == "COMPLETE"
    assert record.complete
    assert record.problems == []
    assert [e.data["layer"] for e in record.of_kind("layer")] == [0, 1, 2]
    assert record.final is not None
    assert record.final["data"] == {"time_ratio": 31.4}


def test_figures_of_an_ideal_build_agree_in_all_three_columns(folder: Path, plan) -> None:
    summary = sm.summarise(folder)
    planned = summary["planned"]
    # by hand: 3 tracks of 283 segments of 20 ms, two travels of 0.5 s
    assert planned["emission_s"] == pytest.approx(3 * 283 * 0.02)
    assert planned["duration_s"] == pytest.approx(3 * 283 * 0.02 + 1.0)
    assert planned["energy_j"] == pytest.approx(POWER_W * 16.98)
    for column, limit_pct in (("executed", 0.2), ("truth", 1.01)):
        for key, value in summary["deviations_pct"][column].items():
            assert abs(value) < limit_pct, (column, key, value)
    assert summary["truth"]["duration_s"] == pytest.approx(planned["duration_s"], abs=1e-9)
    assert summary["deviations_pct"]["truth"]["energy_j"] == pytest.approx(0.1)
    assert summary["deviations_pct"]["truth"]["powder_g"] == pytest.approx(-0.2)
    assert summary["position_error_steps"] == 0
    assert summary["segments_executed"] == summary["segments_planned"] == 3 * 283 + 2
    assert summary["time_ratio"] == 31.4
    assert summary["alarms"][0]["code"] == 302
    assert summary["alarms"][0]["cleared_s"] == pytest.approx(summary["alarms"][0]["t_s"] + 2)
    json.dumps(summary, allow_nan=False)


def test_executed_powder_counts_at_the_feeder_and_deposits_after_the_delay(
    folder: Path, plan
) -> None:
    record = read_record(folder)
    rows = record.telemetry.copy()
    rows["powder_1_measured_g_min"] = np.where(rows["state"] == 6, FLOW_G_MIN, 0)
    done = sm.executed(dataclasses.replace(record, telemetry=rows), plan)
    assert done["powder_g"] == pytest.approx(plan.figures["powder_g"], rel=5e-3)
    # the feeder begins when the axes begin: the first 3.2 s of the first bead see no powder
    emission_s = plan.figures["emission_s"]
    wanted = CATCHMENT * FLOW_G_MIN / 60 * (emission_s - 3.2)
    assert done["deposited_g"] == pytest.approx(wanted, rel=5e-3)


def test_executed_deposit_waits_for_each_hopper_s_own_delay(folder: Path, plan) -> None:
    record = read_record(folder)
    rows = record.telemetry.copy()
    for k in (1, 2):
        rows[f"powder_{k}_measured_g_min"] = np.where(rows["state"] == 6, 0.5 * FLOW_G_MIN, 0)
    second = '{ powder = "IN625", lot'
    assert second in plan.cell_toml
    own = plan.cell_toml.replace(second, '{ powder = "IN625", transport_delay = "5.2 s", lot')
    done = sm.executed(
        dataclasses.replace(record, telemetry=rows), dataclasses.replace(plan, cell_toml=own)
    )
    # 3.2 s of half the flow and 5.2 s of the other half are missing at the nozzle
    wanted = CATCHMENT * FLOW_G_MIN / 60 * (plan.figures["emission_s"] - 0.5 * (3.2 + 5.2))
    assert done["deposited_g"] == pytest.approx(wanted, rel=5e-3)


def test_executed_ignores_unknown_values_and_holes(folder: Path, plan) -> None:
    record = read_record(folder)
    rows = record.telemetry.copy()
    rows["powder_2_measured_g_min"] = np.nan
    rows = np.delete(rows, slice(600, 1000))  # 4 s missing, all of it within a track
    done = sm.executed(dataclasses.replace(record, telemetry=rows), plan)
    whole = sm.executed(record, plan)
    lost = whole["emission_s"] - done["emission_s"]
    assert 3.4 < lost < 4.1


def test_real_cell_has_no_truth(tmp_path: Path, plan) -> None:
    write_record(tmp_path / "r", plan, job=write_job(tmp_path / "j.lmdjob", plan))
    summary = sm.summarise(tmp_path / "r")
    assert summary["truth"] is None
    assert summary["position_error_steps"] is None


def test_record_without_job_still_gives_what_it_knows(tmp_path: Path, plan) -> None:
    write_record(tmp_path / "r", plan)
    summary = sm.summarise(tmp_path / "r")
    assert summary["planned"]["energy_j"] is None
    assert summary["executed"]["energy_j"] > 0
    assert summary["executed"]["deposited_g"] is None


def test_empty_record_gives_no_figures(tmp_path: Path, plan) -> None:
    write_record(tmp_path / "r", plan, n_rows=1, close=False)
    assert sm.executed(read_record(tmp_path / "r"), plan)["energy_j"] is None


@pytest.mark.parametrize("axis", [0, 2, 5])
def test_one_step_off_at_one_segment_is_seen(folder: Path, plan, axis: int) -> None:
    trace = read_trace(folder / "trace.mcap")
    ends = trace.arrays["/trace/segment_ends"].copy()
    ends["pos"][400, axis] -= 1
    trace.arrays["/trace/segment_ends"] = ends
    assert sm.position_error_steps(trace, plan)[0] == 1


def test_param_records_are_no_motion(folder: Path, plan) -> None:
    segments = plan.segments.copy()
    assert segments["flags"][0] & FLAG_PARAM
    segments["steps"][0] = 77  # whatever stands there, it does not move anything
    changed = dataclasses.replace(plan, segments=segments)
    trace = read_trace(folder / "trace.mcap")
    assert sm.position_error_steps(trace, changed)[0] == 0


def test_no_segment_ends_is_no_proof(folder: Path, plan) -> None:
    trace = read_trace(folder / "trace.mcap")
    trace.arrays["/trace/segment_ends"] = trace.arrays["/trace/segment_ends"][:0]
    assert sm.position_error_steps(trace, plan) == (None, 0, 3 * 283 + 2)


def test_truth_counts_layers_executed_to_their_end(folder: Path, plan) -> None:
    trace = read_trace(folder / "trace.mcap")
    trace.arrays["/trace/segment_ends"] = trace.arrays["/trace/segment_ends"][:600]
    assert sm.truth(trace, plan)["layers"] == 2


# --- trace ---------------------------------------------------------------------------------


def test_trace_reads_by_its_own_row_types(folder: Path, plan) -> None:
    trace = read_trace(folder / "trace.mcap")
    assert trace.header["seed"] == 7
    ends = trace.rows("segment_ends")
    assert ends.dtype["pos"].shape == (6,)
    assert len(ends) == len(plan.segments)
    assert trace.events == [{"t_us": 1000000, "kind": "arm"}]
    assert trace.end == {"segments": 1}
    with pytest.raises(RecordError, match="no /trace/heat"):
        trace.rows("heat")


def test_torn_trace_gives_what_is_whole(folder: Path, tmp_path: Path) -> None:
    data = (folder / "trace.mcap").read_bytes()
    # mcap's writer keeps one chunk for a trace this small: no chunk, no rows, no invention
    path = tmp_path / "t.mcap"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(RecordError, match="no /trace/header"):
        read_trace(path)
    path.write_bytes(data[:-20])
    assert len(read_trace(path).rows("plant")) > 0


@pytest.mark.parametrize(
    ("descr", "said"),
    [
        ([["t_us", "O"]], "no plain data"),
        ("i8", "is no list of fields"),
        ([["t_us", "what"]], "cannot be read"),
        ([], "no plain data"),
    ],
)
def test_bad_row_types_are_refused(tmp_path: Path, descr: object, said: str) -> None:
    path = tmp_path / "t.mcap"
    with path.open("wb") as file:
        w = Writer(file)
        w.start()
        channel = w.register_channel("/trace/header", "json", 0)
        header = {"dtypes": {**TRACE_DTYPES, "/trace/plant": descr}}
        w.add_message(channel, 0, json.dumps(header).encode(), 0)
        w.finish()
    with pytest.raises(RecordError, match=said):
        read_trace(path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x89MCAP0\r\n"])
def test_what_is_no_trace_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.mcap").write_bytes(data)
    with pytest.raises(RecordError, match=r"t\.mcap"):
        read_trace(tmp_path / "t.mcap")
    with pytest.raises(RecordError, match="cannot be read"):
        read_trace(tmp_path / "none.mcap")


# --- export --------------------------------------------------------------------------------


def test_csv_holds_every_row_with_its_units_in_the_head(folder: Path, tmp_path: Path) -> None:
    record = read_record(folder)
    telemetry, events = export_csv(record, tmp_path / "out")
    lines = telemetry.read_text().splitlines()
    assert lines[0].startswith("t_us,x_mm,y_mm,z_mm,speed_mm_s,power_set_w")
    assert len(lines) == len(record.telemetry) + 1
    assert lines[1].split(",")[0] == "0"
    row = lines[501].split(",")
    assert row[0] == "5000000"
    assert float(row[1]) == pytest.approx(float(record.telemetry["x_mm"][500]), rel=1e-8)
    assert events.read_text().splitlines()[0] == "t_us,kind,data"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["events.csv", "telemetry.csv"]


def test_parquet_without_pyarrow_says_what_to_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RecordError, match="pip install pyarrow"):
        export_parquet(read_record(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parquet_holds_the_same_rows(folder: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    record = read_record(folder)
    telemetry, _ = export_parquet(record, tmp_path / "out")
    table = pq.read_table(telemetry)
    assert (table["t_us"].to_numpy() == record.telemetry["t_us"]).all()

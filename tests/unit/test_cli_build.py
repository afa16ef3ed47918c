"""``lmd run`` and what it leaves: figures, record, exit codes, and no process of its own."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.unit.cli_bench import (
    TALL_MM,
    built,
    call,
    descendants,
    ended,
    files_below,
    lmd,
    part,
    spawn,
    until,
    wait_gone,
)

pytestmark = pytest.mark.slow

FIGURES = ["duration_s", "emission_s", "energy_j", "powder_g", "deposited_g", "layers"]


@pytest.fixture(scope="module")
def whole():
    """A build that ended COMPLETE: its folder, and the object of --json."""
    folder, done = built()
    return folder, done.json


@pytest.fixture
def record(whole, tmp_path):
    """A copy of that build's record, to be damaged."""
    return Path(shutil.copytree(whole[1]["record"], tmp_path / "record"))


# --- a build that goes well ----------------------------------------------------------------


def test_run_tells_what_the_design_promises(whole):
    _, told = whole
    assert told["state"] == "COMPLETE"
    for who in ("planned", "executed", "truth"):
        assert list(told[who]) == FIGURES
        assert all(told[who][key] > 0 for key in FIGURES), told[who]
    assert told["position_error_steps"] == 0
    assert told["segments_executed"] == told["segments_planned"] > 100
    assert told["time_ratio"] > 1.0
    assert len(told["content_hash"]) == 64
    assert told["alarms"] == []
    assert told["sealed"] is True
    assert told["truth"]["energy_j"] == pytest.approx(told["planned"]["energy_j"], rel=0.005)
    assert told["truth"]["powder_g"] == pytest.approx(told["planned"]["powder_g"], rel=0.01)
    assert set(told["report"]) == {"pdf", "html"}
    for path in told["report"].values():
        assert Path(path).stat().st_size > 10_000


def test_run_leaves_a_record_and_nothing_else(whole):
    folder, told = whole
    assert {p.name for p in Path(told["record"]).iterdir()} == {
        "job.lmdjob", "record.mcap", "record.seal", "signing_key.pub", "trace.mcap",
        "report.html", "report.pdf",
    }  # fmt: skip
    assert {p.name for p in folder.iterdir()} == {"box.stl", "records"}


def test_the_same_seed_gives_the_same_content_and_people_get_a_table(whole, tmp_path):
    folder, told = whole
    done = call("run", folder / "box.stl", "--time", "virtual", "--out", "again", cwd=tmp_path)
    assert done.code == 0
    assert done.err == ""
    lines = done.out.splitlines()
    assert lines[0] == "box on cell sim: COMPLETE"
    assert max(len(line) for line in lines) <= 100
    table = [line for line in lines[1:] if line][:8]
    assert len({len(line) for line in table}) == 1, "columns do not stand below each other"
    assert "planned  executed  deviation  simulated truth  deviation" in table[0]
    assert [line.split("  ")[0] for line in table[2:]] == [
        "duration, s", "emission, s", "energy, kJ", "powder fed, g", "deposited, g", "layers",
    ]  # fmt: skip
    assert f"content hash    {told['content_hash']}" in lines
    assert "(sealed)" in done.out
    assert "0 steps at the most" in done.out


def test_info_and_verify_agree_with_the_build(whole, capsys):
    _, told = whole
    info = lmd(capsys, "record", "info", told["record"], "--json").json
    for key in ("state", "content_hash", "planned", "executed", "truth", "position_error_steps"):
        assert info[key] == told[key]
    verified = lmd(capsys, "record", "verify", told["record"], "--json")
    assert verified.code == 0
    assert verified.json["complete"] is True
    people = lmd(capsys, "record", "verify", Path(told["record"]).parent)  # the newest inside
    assert people.code == 0
    assert "sealed: " in people.out
    people = lmd(capsys, "record", "info", told["record"])
    assert "COMPLETE" in people.out
    assert told["content_hash"] in people.out


def test_report_is_written_again(record, capsys):
    for name in ("report.pdf", "report.html"):
        (record / name).unlink()
    done = lmd(capsys, "record", "report", record, "--json")
    assert done.code == 0
    for path in done.json.values():
        assert Path(path).stat().st_size > 10_000


def test_export_writes_tables(record, tmp_path, capsys):
    done = lmd(capsys, "record", "export", record, "-o", tmp_path / "tables", "--json")
    assert done.code == 0
    assert all(Path(path).stat().st_size > 0 for path in done.json["files"])
    assert any(path.endswith(".csv") for path in done.json["files"])


@pytest.mark.parametrize("name", ["record.mcap", "job.lmdjob"])
def test_one_changed_byte_fails_verification_and_says_where(record, name, capsys):
    path = record / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    people = lmd(capsys, "record", "verify", record)
    assert people.code == 4
    assert people.err.count("\n") == 1
    assert "DAMAGED" in people.err
    machine = lmd(capsys, "record", "verify", record, "--json")
    assert machine.code == 4
    assert machine.json["ok"] is False
    assert machine.json["problems"][0] in people.err


# --- plan, show ----------------------------------------------------------------------------

PLAN_KEYS = {
    "part", "layers", "tracks", "moves", "length_mm", "duration_s", "emission_s",
    "longest_emission_s", "energy_j", "powder_g", "deposited_g", "volume_mm3",
    "target_volume_mm3", "deposit_volume_mm3", "max_power_error_w", "beam_position_error_mm",
    "cost", "warnings", "hash",
}  # fmt: skip


def test_plan_tells_what_the_design_promises(whole, tmp_path, capsys):
    folder, told = whole
    done = lmd(capsys, "plan", folder / "box.stl", "-o", tmp_path / "a.lmdjob", "--json")
    assert done.code == 0
    found = done.json
    assert set(found) >= PLAN_KEYS
    assert set(found["length_mm"]) == {"emission", "travel"}
    assert found["part"]["name"] == "box"
    assert found["volume_mm3"] == pytest.approx(6.0 * 5.0 * 0.9)
    for key in FIGURES:
        assert found[key] == told["planned"][key]
    assert found["quality"]["power_error"]["worst_w"] == found["max_power_error_w"]
    people = lmd(capsys, "plan", folder / "box.stl", "-o", tmp_path / "b.lmdjob")
    assert "plan quality" in people.out
    assert "power error, worst" in people.out
    assert "margin, %" in people.out
    assert people.out.splitlines()[0] == "box, 6.00 x 5.00 x 0.90 mm"
    assert found["hash"] in people.out
    assert (tmp_path / "a.lmdjob").read_bytes() == (tmp_path / "b.lmdjob").read_bytes()


def test_the_time_law_of_a_plan_can_be_chosen(whole, tmp_path, capsys):
    folder, told = whole
    done = lmd(
        capsys, "plan", folder / "box.stl", "-o", tmp_path / "j.lmdjob", "--law", "jerk", "--json"
    )
    assert done.code == 0
    assert done.json["duration_s"] > told["planned"]["duration_s"]
    assert done.json["quality"]["margins"]["path_jerk_mm_s3"]["value"] > 0.0


def test_a_picture_of_a_job(whole, tmp_path, capsys):
    job = Path(whole[1]["record"]) / "job.lmdjob"
    for more in (
        [],
        ["--colour", "speed", "--layer", "3"],
        ["--colour", "energy"],
        ["--quality"],
        ["--quality", "--track", "2"],
    ):
        done = lmd(capsys, "show", job, "-o", tmp_path / "a.png", *more, "--json")
        assert done.code == 0
        assert Path(done.json["picture"]).read_bytes().startswith(b"\x89PNG")


# --- builds that end otherwise -------------------------------------------------------------


def test_an_open_door_ends_aborted_with_exit_code_3(tmp_path):
    part(tmp_path, TALL_MM)
    words = ["box.stl", "--time", "null", "--scenario", "door", "--json"]
    done = call("run", *words, cwd=tmp_path)
    assert done.code == 3
    told = done.json
    assert told["state"] == "ABORTED"
    assert told["sealed"] is True
    assert "DOOR_OPEN" in [alarm["name"] for alarm in told["alarms"]]
    assert told["executed"]["duration_s"] < told["planned"]["duration_s"]
    assert done.err.startswith("error: the build ended ABORTED: ")
    assert done.err.count("\n") == 1
    assert call("record", "verify", told["record"], cwd=tmp_path).code == 0


def test_production_refuses_what_is_not_approved_by_name(tmp_path):
    part(tmp_path)
    done = call("run", "box.stl", "--time", "null", "--mode", "maintenance", cwd=tmp_path)
    assert done.code == 3
    assert done.err.startswith("error: start refused: ")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "records").exists()


def _started(folder: Path, *words):
    """A long build in the middle of which something happens; its processes, its record."""
    part(folder, TALL_MM)
    process = spawn("run", "box.stl", *words, cwd=folder)

    def recording():
        assert process.poll() is None, process.communicate()
        found = list(folder.glob("records/*/record.mcap"))
        return bool(found) and found[0].stat().st_size > 120_000

    until(recording, "no record was begun")
    (path,) = folder.glob("records/*/record.mcap")
    return process, descendants(process.pid), path.parent


@pytest.mark.parametrize(
    ("mode", "number"),
    [("virtual", signal.SIGINT), ("null", signal.SIGTERM)],
)
def test_an_interrupt_stops_the_build_in_order(tmp_path, mode, number):
    process, children, record = _started(tmp_path, "--time", mode, "--json")
    assert len(children) == (2 if mode == "virtual" else 1)
    done = ended(process, number)
    assert done.code == 130
    assert done.json["state"] == "STOPPED"
    assert done.json["exit_code"] == 130
    assert tmp_path / done.json["record"] == record
    assert done.err.startswith("error: interrupted: ")
    assert done.err.count("\n") == 1
    wait_gone(children)
    verified = call("record", "verify", record, "--json").json
    assert verified["ok"]
    assert verified["complete"]
    assert verified["state"] == "STOPPED"


@pytest.mark.parametrize("victim", ["controller serve", "hil_sim"])
def test_a_process_that_is_killed_is_named_and_the_record_verifies_up_to_its_seal(tmp_path, victim):
    process, children, record = _started(tmp_path, "--time", "virtual", "--json")
    (pid,) = [pid for pid, words in children.items() if f"-m {victim}" in words]
    os.kill(pid, signal.SIGKILL)
    done = ended(process)
    assert done.code == 3
    assert done.json["state"] == "INTERRUPTED"
    what = "cell server" if victim == "controller serve" else "simulator"
    assert done.err.startswith(f"error: the {what} was killed (SIGKILL)")
    assert done.err.count("\n") == 1
    wait_gone(children)
    verified = call("record", "verify", record, "--json")
    assert verified.code == 0
    assert verified.json["rows"] > 100


def test_nothing_outlives_a_caller_that_was_killed(tmp_path):
    process, children, record = _started(tmp_path, "--time", "virtual")
    ended(process, signal.SIGKILL)
    wait_gone(children)
    assert call("record", "verify", record).code == 0


def test_an_interrupt_before_the_build_leaves_nothing(tmp_path):
    part(tmp_path, TALL_MM)
    process = spawn("run", "box.stl", "--json", cwd=tmp_path)
    until(lambda: descendants(process.pid) or process.poll() is not None, "no process started")
    children = descendants(process.pid)
    done = ended(process, signal.SIGINT)
    assert done.code == 130
    assert done.json == {"error": "interrupted", "exit_code": 130}
    assert done.err == "error: interrupted\n"
    wait_gone(children)
    assert files_below(tmp_path) == {"box.stl"}

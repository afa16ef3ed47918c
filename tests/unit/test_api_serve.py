"""The cell server whole, on null wires: boot, home, build, sealed record, reproducible."""

import threading
from pathlib import Path

import numpy as np
import pytest
import trimesh

from controller import session
from controller.api.client import Client
from controller.api.serve import ServeSettings, serve
from controller.config import load_cell
from controller.errors import ApiError
from controller.machine.cell import link_settings
from controller.model import BuildPlan
from controller.planning import write_job
from hil_sim.null import NullCell
from tests.unit.sim_host import near_cell


def build(folder: Path, cell: Path, job: Path, name: str) -> dict:
    """Serve the cell on null wires to a client in a thread; what the client saw."""
    ready, said = threading.Event(), {}

    def talk() -> None:
        ready.wait(60.0)
        with Client(folder / "run", role="engineer", name="test") as c:
            try:
                said["loaded"] = c.call("load_job", path=str(job))
                said["homed"] = c.call("home")["homed"]
                said["start"] = c.call("start", record_dir=str(folder / name))["t_us"]
                said["ended"] = c.call("wait_state", states=["COMPLETE"])
                said["result"] = c.call("result")
            finally:
                c.call("shutdown")

    thread = threading.Thread(target=talk)
    thread.start()
    serve(
        ServeSettings(
            cell=str(cell),
            run_dir=folder / "run",
            time_mode="null",
            simulator=NullCell(cell, None, 1, None),
            on_ready=lambda _: ready.set(),
        )
    )
    thread.join(60.0)
    return said


@pytest.fixture
def small_job(tmp_path: Path) -> tuple[Path, Path, BuildPlan]:
    """A cell with a near plate, and the job of a bar of two layers."""
    cell = near_cell(tmp_path)
    part = tmp_path / "bar.stl"
    trimesh.creation.box((4.0, 2.0, 0.5)).export(part)
    told: list[tuple[float, str]] = []
    plan = session.prepare_plan(part, None, str(cell), progress=lambda *step: told.append(step))
    assert [share for share, _ in told] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    job = tmp_path / "bar.lmdjob"
    write_job(plan, job)
    return cell, job, plan


@pytest.mark.slow
def test_two_builds_on_null_wires_are_complete_and_equal(tmp_path, monkeypatch, small_job):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    cell, job, plan = small_job
    first, second = (build(tmp_path, cell, job, name) for name in ("a", "b"))
    assert first["ended"]["state"] == "COMPLETE", first["result"]
    assert first["result"]["alarms"] == []
    assert first["homed"] is True
    record = first["result"]["record"]
    assert record["execute_s"] == pytest.approx(plan.figures["duration_s"], abs=0.1)
    assert record["result"]["rows"] > 100 * plan.figures["duration_s"]
    assert (tmp_path / "a" / "record.mcap").exists()
    assert (tmp_path / "a" / "job.lmdjob").read_bytes() == job.read_bytes()
    # powder, gas and home at the same simulated instants: the same record
    assert first["start"] == second["start"]
    assert record["result"]["content_hash"] == second["result"]["record"]["result"]["content_hash"]
    # the server leaves nothing behind but who commanded what
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["audit.log"]
    with pytest.raises(ApiError):
        Client(tmp_path / "run")


def test_session_gives_the_same_plan_twice(tmp_path, small_job):
    cell, _, plan = small_job
    again = session.prepare_plan(tmp_path / "bar.stl", None, str(cell))
    assert again.figures["hash"] == plan.figures["hash"]
    assert np.array_equal(again.segments, plan.segments)


def test_link_settings_are_the_cell_s():
    """Against the configuration and hash printed in docs/protocol.md, section 10."""
    settings = link_settings(load_cell("sim")[0])
    assert settings.config_blob()[:24].hex(" ") == (
        "02 00 03 00 64 00 66 66 c0 27 09 00 20 4e 00 00 80 84 1e 00 00 00 00 00"
    )
    assert settings.config_hash() == 0xAF1A1C3E

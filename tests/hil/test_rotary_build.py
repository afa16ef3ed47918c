"""Builds with rotary axes on the whole simulated cell: to the step, and where the bead lies."""

import numpy as np
import pytest

from controller import launch
from controller.api.client import Client
from controller.build import follow, make_ready, running_cell
from controller.config import find_file, load_cell
from controller.errors import StateError
from controller.planning import write_job
from controller.record.summary import summarise
from controller.record.verify import verify_record
from tests.hil import oracle
from tests.hil.fault_cell import Job, play
from tests.unit import rotary_cases as rotary

pytestmark = [pytest.mark.hil, pytest.mark.slow]

BUILDS = {
    "ring": (
        "sim_turntable", rotary.TURNTABLE, rotary.TURNTABLE_TEXT,
        [rotary.ring(0), rotary.ring(1)],
    ),
    "leaning_wall": (
        "sim_ac", rotary.AC, rotary.AC_TEXT,
        [rotary.wall(n=300, z=80.55), rotary.wall(n=300, radius=20.3, z=81.1, layer=1)],
    ),
    "past_the_pole": ("sim_ac", rotary.AC, rotary.AC_TEXT, [rotary.arch(off_deg=1.0)]),
}  # fmt: skip


def build(tracks, name, cell, text, tmp_path):
    """Plan, build on null wires; plan, record folder, summary."""
    plan = rotary.plan(tracks, cell, text)
    run_dir = launch.short_run_dir()
    job, record = run_dir / "job.lmdjob", tmp_path / "record"
    write_job(plan, job)
    record.mkdir()
    cell_file = find_file("cells", name)
    with (
        running_cell(cell_file, cell, run_dir, time_mode="null", trace_dir=record, seed=5),
        Client(run_dir, role="engineer", name="test") as client,
    ):
        make_ready(client)
        client.call("load_job", path=str(job))
        client.call("start", record_dir=str(record), mode="development")
        result = follow(client, lambda share: None)
        client.call("shutdown")
    assert result["record"]["result"]["state"] == "COMPLETE"
    return plan, record, summarise(record, plan)


@pytest.mark.parametrize("what", list(BUILDS))
def test_build_is_exact_to_the_step_and_the_bead_lies_in_the_parts_frame(what, tmp_path):
    name, cell, text, tracks = BUILDS[what]
    plan, record, summary = build(tracks, name, cell, text, tmp_path)
    assert summary["alarms"] == []
    assert summary["position_error_steps"] == 0
    assert summary["segments_executed"] == summary["segments_planned"] > 100
    assert verify_record(record).ok
    assert oracle.check(record / "trace.mcap", record / "job.lmdjob") == []
    run = oracle.read(record / "trace.mcap")
    plant = run.rows["/trace/plant"]
    # the simulator's own way to the part's frame: rows wholly within emission
    lit = np.diff(plant["emission_s"], prepend=0.0) > 0.0099
    assert lit.sum() > 100
    bead = np.column_stack([plant[k][lit] for k in ("x_mm", "y_mm", "z_mm")])
    lines = np.min([rotary.off_line_mm(bead, t.points_mm) for t in tracks], axis=0)
    assert lines.max() < 0.005
    assert len(plan.tracks) == len(tracks)
    # the test's own, from the firmware's steps, meets the simulator's
    ends = run.rows["/trace/segment_ends"]
    axes = cell.motion.machine_axes
    at = ends["pos"][:, : len(axes)] / [a.steps_per_unit for a in axes] + [a.home for a in axes]
    tip, _ = rotary.part_frame(cell, at)
    rows = np.searchsorted(plant["t_us"], ends["t_us"])
    same = (rows < len(plant)) & (plant["t_us"][np.minimum(rows, len(plant) - 1)] == ends["t_us"])
    for k, column in enumerate(("x_mm", "y_mm", "z_mm")):
        np.testing.assert_allclose(plant[column][rows[same]], tip[same, k], atol=1e-9)


def test_steps_of_a_turned_table_elsewhere_are_seen_as_a_bead_elsewhere(tmp_path):
    """What the test above watches can fail: a simulator with another centre finds another bead."""
    _, cell, text, tracks = BUILDS["leaning_wall"]
    moved = text.replace('centre = ["150 mm", "150 mm", "100 mm"]',
                         'centre = ["150 mm", "150 mm", "99.9 mm"]')  # fmt: skip
    assert moved != text
    path = tmp_path / "cell.toml"
    path.write_text(moved)
    other, _ = load_cell(str(path))
    plan = rotary.plan(tracks[:1], cell, text)
    row = plan.tracks[0]
    t_us = np.linspace(row["start_s"] * 1e6 + 5000, row["end_s"] * 1e6 - 5000, 50)
    tip, _ = rotary.part_frame(other, rotary.decoded_axes(plan, cell, t_us))
    assert rotary.off_line_mm(tip, tracks[0].points_mm).max() > 0.01


def test_hold_on_a_turning_table_is_not_gone_on_with_by_name_and_a_stop_ends_it(tmp_path):
    """The way back is planned for X, Y and Z only: it would leave the table behind."""
    plan = rotary.plan([rotary.ring(0)], rotary.TURNTABLE, rotary.TURNTABLE_TEXT)
    cell_file = find_file("cells", "sim_turntable")
    job = Job(cell_file, tmp_path / "job.lmdjob", plan)
    write_job(plan, job.job)

    async def script(s):
        await s.emitting(1.0)
        await s.call("hold", now=True)
        await s.until("HELD")
        with pytest.raises(StateError, match=r"unhold refused: the plan moves rotary axes"):
            await s.call("unhold")
        assert s.ex.state.name == "HELD"
        await s.call("stop")
        await s.until("STOPPED")

    out = play(tmp_path / "record", job=job, script=script)
    held = next(t for t, state in out.states if state == "HOLDING")
    assert out.dark_us(held) <= held + 20_000
    assert out.alarms == []
    summary = summarise(out.folder)
    assert summary["state"] == "STOPPED"
    assert summary["position_error_steps"] == 0
    assert oracle.check(out.folder / "trace.mcap") == []

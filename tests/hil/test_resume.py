"""Hold and go on, stop and resume, overrides: the whole cell, judged from the trace alone.

What was laid is taken from the trace: positions at segment ends and the gate's edges. Nothing
here asks the planner where a bead is but for the one thing to compare with: the plan's own
positions while its gate is open.
"""

import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from controller.build import Wish
from controller.config import load_cell
from controller.errors import LmdError, StateError
from controller.planning import read_job
from controller.recipes import parse_recipe
from controller.record.reader import read_record
from controller.record.rests import parts_of_record
from controller.record.summary import summarise
from controller.record.verify import verify_record
from controller.restart import resume_build
from tests.hil import oracle
from tests.hil.fault_cell import Session, play, small_job

pytestmark = [pytest.mark.hil, pytest.mark.slow]

STEPS_MM = 400.0
NEAR_MM = 0.02  # two straight pieces between rounded positions
OVERLAP_MM = 2.0


def lit_pieces(run, end_us=None):
    """Straight pieces laid with the gate open: (n, 2, 3) mm, in order, and their ends' times."""
    ends, plant = run.rows["/trace/segment_ends"], run.rows["/trace/plant"]
    # a segment that a hold cut has no end: the samples each 10 ms show where the axes were
    t = np.concatenate([ends["t_us"], plant["t_us"]]).astype(np.int64)
    seen = np.column_stack([plant["x_mm"], plant["y_mm"], plant["z_mm"]])
    at = np.concatenate([ends["pos"][:, :3] / STEPS_MM, seen])
    t, first = np.unique(t, return_index=True)
    at = at[first]
    gate = run.rows["/trace/gate"]
    pieces, times = [], []
    for k in range(0, len(gate) - 1, 2):
        assert gate["on"][k] == 1
        on, off = int(gate["t_us"][k]), int(gate["t_us"][k + 1])
        inside = np.unique(np.concatenate([[on], t[(t > on) & (t < off)], [off]]))
        p = np.column_stack([np.interp(inside, t, at[:, a]) for a in range(3)])
        pieces.append(np.stack([p[:-1], p[1:]], axis=1))
        times.append(inside[1:])
    return np.concatenate(pieces), np.concatenate(times)


def planned_pieces(job: Path):
    """The plan's straight pieces with the gate open, from its bytes."""
    ends = oracle.planned_ends(job)[:, :3] / STEPS_MM
    gate = (read_job(job).segments["flags"] & 1) != 0
    start = np.concatenate([np.zeros((1, 3)), ends[:-1]])
    return np.stack([start, ends], axis=1)[gate]


def uncovered_mm(wanted, laid):
    """Length of ``wanted`` pieces with no ``laid`` piece at the same place, sampled at 20 um."""
    missing = 0.0
    a, b = laid[:, 0], laid[:, 1]
    way = b - a
    size2 = np.maximum((way**2).sum(1), 1e-18)
    for p, q in wanted:
        length = float(np.linalg.norm(q - p))
        n = max(int(length / 0.02), 1)
        points = p + (np.arange(n) + 0.5)[:, None] / n * (q - p)
        close = (np.abs(a[:, 2] - p[2]) < 0.05) & (
            np.minimum(np.abs(a - p).max(1), np.abs(b - p).max(1)) < np.sqrt(size2) + length + 1
        )
        aa, ww, ss = a[close], way[close], size2[close]
        if not len(aa):
            missing += length
            continue
        share = np.clip(((points[:, None] - aa) * ww).sum(2) / ss, 0.0, 1.0)
        far = np.linalg.norm(points[:, None] - (aa + share[:, :, None] * ww), axis=2).min(1)
        missing += length * float((far > NEAR_MM).mean())
    return missing


def no_light_at_rest(run):
    """In each 10 ms sample with light at both ends the axes have moved."""
    plant = run.rows["/trace/plant"]
    lit = (plant["gate"][1:] != 0) & (plant["gate"][:-1] != 0)
    way = np.linalg.norm([np.diff(plant[k]) for k in ("x_mm", "y_mm", "z_mm")], axis=0)
    assert lit.any()
    assert (way[lit] > 0.005).all()


def speeds_after_opening(run, after_s=0.02):
    """Mean speed in the first 20 ms of each opening of the gate, mm/s."""
    pieces, times = lit_pieces(run)
    found = []
    for opened in run.rows["/trace/gate"]["t_us"][::2]:
        own = (times > int(opened)) & (times <= int(opened) + after_s * 1e6 + 1)
        if own.any():
            lasted = (int(times[own][-1]) - int(opened)) * 1e-6
            found.append(
                float(np.linalg.norm(pieces[own][:, 1] - pieces[own][:, 0], axis=1).sum()) / lasted
            )
    return np.array(found)


def nozzle_g_min(plant, from_us, to_us):
    """Mean flow through the nozzle, from the mass that went through it."""
    fed = np.interp([from_us, to_us], plant["t_us"], plant["fed_g"])
    return float(fed[1] - fed[0]) / (to_us - from_us) * 60e6


def judged(out, *, complete=True):
    """Record, trace and summary of a build that was held and gone on with."""
    assert oracle.check(out.folder / "trace.mcap") == []
    verification = verify_record(out.folder)
    assert verification.ok, verification.problems
    told = summarise(out.folder)
    assert told["position_error_steps"] == 0
    if complete:
        assert told["state"] == "COMPLETE"
        assert told["segments_executed"] == told["segments_planned"]
    no_light_at_rest(out.run)
    return told


# --- hold and go on ------------------------------------------------------------------------


def hold_after(*times_s, now=True, wait_s=0.5):
    async def script(s: Session):
        await s.emitting(times_s[0])
        for k, more_s in enumerate(times_s):
            if k:
                await s.pass_s(more_s)
            await s.call("hold", now=now)
            await s.until("HELD")
            await s.pass_s(wait_s)
            await s.call("unhold")
            await s.until("EXECUTE")
        return await s.end()

    return script


@pytest.mark.parametrize("after_s", [0.15, 1.5, 2.6])
def test_hold_in_a_bead_goes_on_with_overlap_and_leaves_no_gap(after_s, tmp_path):
    out = play(tmp_path, script=hold_after(after_s))
    assert out.states[-1][1] == "COMPLETE"
    assert out.alarms == []
    told = judged(out)
    assert told["resumptions"] == 1
    assert told["truth"]["energy_j"] == pytest.approx(told["planned"]["energy_j"], rel=0.005)
    assert told["truth"]["emission_s"] == pytest.approx(told["planned"]["emission_s"], rel=0.002)
    pieces, _ = lit_pieces(out.run)
    assert uncovered_mm(planned_pieces(small_job().job), pieces) < 0.03
    # full speed in the first 20 ms of light, each time
    assert (speeds_after_opening(out.run) > 9.4).all()


def test_overlap_is_the_recipe_s_at_least(tmp_path):
    out = play(tmp_path, script=hold_after(1.5))
    pieces, times = lit_pieces(out.run)
    held = next(t for t, state in out.states if state == "HOLDING")
    before, after = pieces[times <= held + 20_000], pieces[times > held + 20_000]
    dark = before[-1, 1]
    # the light's second coming: how far back along what was laid
    again = after[0, 0]
    laid_mm, total = 0.0, None
    for p, q in before[::-1]:
        way = q - p
        share = np.clip((again - p) @ way / max(way @ way, 1e-18), 0.0, 1.0)
        if np.linalg.norm(again - (p + share * way)) < NEAR_MM:
            total = laid_mm + float(np.linalg.norm(q - (p + share * way)))
            break
        laid_mm += float(np.linalg.norm(way))
    assert total is not None, (again, dark)
    assert total == pytest.approx(OVERLAP_MM, abs=0.2)


def test_hold_at_the_track_s_end_goes_on_with_the_next_bead(tmp_path):
    out = play(tmp_path, script=hold_after(1.0, now=False))
    told = judged(out)
    pieces, _ = lit_pieces(out.run)
    assert uncovered_mm(planned_pieces(small_job().job), pieces) < 0.03
    # nothing was laid twice
    assert told["truth"]["emission_s"] == pytest.approx(
        small_job().plan.figures["emission_s"], rel=0.001
    )


def test_held_three_times_even_on_the_way_back(tmp_path):
    out = play(tmp_path, script=hold_after(1.5, 0.2, 3.0))
    told = judged(out)
    assert told["resumptions"] == 3
    pieces, _ = lit_pieces(out.run)
    assert uncovered_mm(planned_pieces(small_job().job), pieces) < 0.03


def test_record_says_where_and_why_it_went_on(tmp_path):
    play(tmp_path, script=hold_after(1.5))
    (event,) = read_record(tmp_path).of_kind("resume")
    assert "mm before the light's end" in event.data["cause"]
    assert "hold by" in event.data["cause"]
    (rest,) = read_record(tmp_path).of_kind("rest")
    assert rest.data["overlap_mm"] >= OVERLAP_MM
    assert rest.data["place"]["segment"] > 0


def test_powder_reaches_the_bead_that_is_gone_on_with(tmp_path):
    """After 32 s the feeders rest: going on waits for powder before the gate opens."""
    out = play(tmp_path, script=hold_after(1.5, wait_s=32.0))
    assert out.alarms == []
    judged(out)
    going = next(t for t, state in out.states if state == "UNHOLDING")
    gate = out.gate[out.gate["t_us"] > going]
    remelts, lays = (int(t) for t in gate["t_us"][gate["on"] == 1][:2])
    assert nozzle_g_min(out.plant, remelts, remelts + 150_000) < 0.05 * 6.3  # powder to waste
    assert nozzle_g_min(out.plant, lays, lays + 500_000) > 0.95 * 6.3


def test_unhold_is_refused_while_the_coolant_is_warm(tmp_path):
    async def script(s: Session):
        await s.emitting(1.0)
        await s.call("hold", now=True)
        await s.until("HELD")
        s.inject('device="chiller"\nlayer="physics"\nkind="warm"\nkelvin=3')
        await s.pass_s(1.0)
        with pytest.raises(StateError, match="COOLANT"):
            await s.call("unhold")
        assert s.ex.state.name == "HELD"

    play(tmp_path, script=script)


def test_a_door_opened_in_a_hold_ends_the_build_which_only_a_restart_goes_on_with(tmp_path):
    async def script(s: Session):
        await s.emitting(1.5)
        await s.call("hold", now=True)
        await s.until("HELD")
        await s.pass_s(1.0)
        door = s.inject('device="safety"\nlayer="physics"\nkind="door"')
        await s.until("ABORTED")
        for command, said in (("unhold", "ABORTED"), ("clear", "DOOR_OPEN|CHAIN_OPEN")):
            with pytest.raises(StateError, match=said):
                await s.call(command)
        s.act(door, False)
        await s.pass_s(1.0)
        with pytest.raises(StateError, match="ABORTED"):
            await s.call("unhold")

    first = play(tmp_path / "one", script=script)
    assert "DOOR_OPEN" in first.names()
    # no light from the hold on
    held = next(t for t, state in first.states if state == "HOLDING")
    assert first.dark_us(held) <= held + 20_000
    assert resumed(tmp_path / "one", tmp_path / "out")["state"] == "COMPLETE"


# --- stop, and lmd resume --------------------------------------------------------------------


def stopped_build(folder, after_s=1.5):
    async def script(s: Session):
        await s.emitting(after_s)
        await s.call("stop")
        await s.until("STOPPED")

    return play(folder, script=script)


def resumed(folder, out):
    wish = Wish(part=folder, cell=str(small_job().cell), out=out, time_mode="null")
    return resume_build(folder, wish, lambda share, text: None)


@pytest.mark.parametrize("after_s", [0.05, 1.5, 3.2])
def test_stopped_build_is_resumed_without_a_gap_over_both_traces(after_s, tmp_path):
    first = stopped_build(tmp_path / "one", after_s)
    result = resumed(tmp_path / "one", tmp_path / "out")
    assert result["state"] == "COMPLETE"
    assert result["sealed"]
    assert result["alarms"] == []
    assert result["position_error_steps"] == 0
    assert result["segments_executed"] == result["segments_planned"]
    assert result["truth"]["energy_j"] == pytest.approx(result["planned"]["energy_j"], rel=0.005)
    assert result["truth"]["powder_g"] == pytest.approx(result["planned"]["powder_g"], rel=0.04)
    record = Path(result["record"])
    assert oracle.check(record / "trace.mcap", record / "job.lmdjob") == []
    second = oracle.read(record / "trace.mcap")
    no_light_at_rest(second)
    before, _ = lit_pieces(first.run)
    after, _ = lit_pieces(second)
    wanted = planned_pieces(small_job().job)
    assert uncovered_mm(wanted, np.concatenate([before, after])) < 0.03
    assert uncovered_mm(wanted, after) > 0.3 or after_s < 0.1  # it did not begin anew
    header = read_record(record).header["resumes"]
    assert header["record"] == "one"
    assert header["content_hash"] == read_record(tmp_path / "one").content_hash


def test_record_torn_by_a_kill_can_be_resumed(tmp_path):
    """The recorder's last second is gone: the rest begins earlier, not later."""
    first = stopped_build(tmp_path / "one", 3.2)
    record = tmp_path / "one" / "record.mcap"
    torn = tmp_path / "torn"
    shutil.copytree(tmp_path / "one", torn)
    (torn / "record.seal").unlink()
    with (torn / "record.mcap").open("r+b") as file:
        file.truncate(int(record.stat().st_size * 0.75))
    if not verify_record(torn).ok:
        pytest.fail("a torn record must verify to its last seal")
    assert read_record(torn).state == "INTERRUPTED"
    result = resumed(torn, tmp_path / "out")
    assert result["state"] == "COMPLETE"
    before, _ = lit_pieces(first.run)
    after, _ = lit_pieces(oracle.read(Path(result["record"]) / "trace.mcap"))
    wanted = planned_pieces(small_job().job)
    assert uncovered_mm(wanted, np.concatenate([before, after])) < 0.03


def test_resume_refuses_what_is_complete(tmp_path):
    play(tmp_path / "whole")
    with pytest.raises(LmdError, match="COMPLETE"):
        resumed(tmp_path / "whole", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_resume_counts_holds_in_a_bead_as_restarts_and_refuses_too_many(tmp_path):
    async def script(s: Session):
        async def held_in_a_bead():
            lit = 0
            while lit < 35:  # longer than the remelt pass
                await s.pass_s(0.01)
                lit = lit + 1 if s.world.gate_on else 0
            await s.call("hold", now=True)
            await s.until("HELD")

        await s.start()
        for _ in range(3):
            await held_in_a_bead()
            await s.call("unhold")
            await s.until("EXECUTE")
        await held_in_a_bead()
        with pytest.raises(StateError, match=r"restart 4 of this build.*most_restarts is 3"):
            await s.call("unhold")
        await s.call("stop")
        await s.until("STOPPED")

    play(tmp_path / "one", script=script)
    with pytest.raises(LmdError, match=r"restart 4 of this build.*most_restarts is 3"):
        resumed(tmp_path / "one", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_resume_refuses_a_build_that_was_dark_for_too_long(tmp_path):
    stopped_build(tmp_path / "one")
    with (
        mock.patch("controller.restart.wall_iso", return_value="2099-01-01T00:00:00+00:00"),
        pytest.raises(LmdError, match=r"no light for .* min.*longest_stop is 20 min"),
    ):
        resumed(tmp_path / "one", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- overrides -------------------------------------------------------------------------------


def with_override(value, what="speed"):
    async def script(s: Session):
        await s.emitting(1.0)
        await s.call("override", scale=value, what=what)
        return await s.end()

    return script


@pytest.mark.parametrize("scale", [0.8, 1.1, 1.118])
def test_speed_override_scales_time_and_keeps_every_step(scale, tmp_path):
    job = small_job()
    out = play(tmp_path, job=job, script=with_override(scale))
    assert out.alarms == []
    told = judged(out)
    pieces, _ = lit_pieces(out.run)
    assert uncovered_mm(planned_pieces(job.job), pieces) < 0.03
    after_s = job.plan.figures["emission_s"] - 1.0
    share = (told["truth"]["emission_s"] - 1.0) / after_s
    assert share == pytest.approx(1.0 / scale, rel=0.02)
    # linear law: floor + (set - floor) v / F, so energy goes as a quarter of the time
    energy = told["truth"]["energy_j"] / job.plan.figures["energy_j"]
    assert energy == pytest.approx(0.75 + 0.25 / scale, rel=0.03)


def test_hold_under_an_override_goes_on_under_it(tmp_path):
    job = small_job()

    async def script(s: Session):
        await s.emitting(0.5)
        await s.call("override", scale=1.1)
        await s.pass_s(1.0)
        await s.call("hold", now=True)
        await s.until("HELD")
        await s.call("unhold")
        return await s.end()

    out = play(tmp_path, job=job, script=script)
    judged(out)
    pieces, _ = lit_pieces(out.run)
    assert uncovered_mm(planned_pieces(job.job), pieces) < 0.03
    assert (speeds_after_opening(out.run)[1:] > 10.3).all()


def test_power_override_lasts_and_scales_energy(tmp_path):
    out = play(tmp_path, script=with_override(1.1, "power"))
    assert out.alarms == []
    told = judged(out)
    whole = small_job().plan.figures["energy_j"]
    assert 1.08 <= told["truth"]["energy_j"] / whole <= 1.1


def test_powder_override_changes_the_flow_at_the_nozzle(tmp_path):
    out = play(tmp_path, script=with_override(0.8, "powder"))
    assert out.alarms == []
    told = judged(out)
    shut = int(out.gate["t_us"][-1])
    assert nozzle_g_min(out.plant, shut - 2_000_000, shut) == pytest.approx(0.8 * 6.3, rel=0.03)
    # planned is what was to be executed, with the override
    assert told["planned"]["powder_g"] < 0.93 * small_job().plan.figures["powder_g"]
    assert abs(told["deviations_pct"]["truth"]["powder_g"]) < 2.0


def test_rest_after_a_powder_override_is_made_again_from_the_record_with_its_powder(tmp_path):
    live = {}

    async def script(s: Session):
        await s.emitting(1.0)
        await s.call("override", scale=0.8, what="powder")
        await s.pass_s(5.0)
        await s.call("hold", now=True)
        await s.until("HELD")
        await s.call("unhold")
        await s.until("EXECUTE")
        await s.call("override", scale=0.9, what="powder")
        live["parts"] = list(s.ex.progress.parts)
        return await s.end()

    out = play(tmp_path, script=script)
    judged(out)
    job = small_job()
    cell, _ = load_cell(str(job.cell))
    recipe = parse_recipe(job.plan.recipe_toml, "test")
    again = parts_of_record(read_record(out.folder), job.plan, cell, recipe)
    assert [len(p.plan.timeline) for p in again] == [len(p.plan.timeline) for p in live["parts"]]
    for ours, theirs in zip(again, live["parts"], strict=True):
        for column in ("t_s", "channel", "value"):
            np.testing.assert_allclose(
                ours.plan.timeline[column], theirs.plan.timeline[column], atol=2e-6
            )
    fed = again[1].plan.timeline
    fed = fed[(fed["channel"] == 0) & (fed["value"] > 0.0)]["value"]
    assert fed[-1] == pytest.approx(0.9 * 6.3, rel=0.01)


@pytest.mark.parametrize(
    ("what", "value", "said"),
    [
        ("speed", 1.12, "above 1.118, what motion.plan_share 0.8"),
        ("speed", 1.3, "window"),
        ("power", 0.5, "window"),
        ("powder", 1.3, "window"),
    ],
)
def test_override_that_cannot_be_is_refused_by_name(what, value, said, tmp_path):
    async def script(s: Session):
        await s.emitting(0.5)
        with pytest.raises(StateError, match=said):
            await s.call("override", scale=value, what=what)
        assert s.ex.state.name == "EXECUTE"

    play(tmp_path, script=script)

"""The same part over three links: what was laid is the same, and what differs is said.

Own firmware that plays segments, a grblHAL controller, and a CNC that runs an exported program;
judged from the simulator's trace.
"""

import functools
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest

from controller.errors import PreflightError, StateError
from controller.planning import write_job
from controller.record.content import make_content
from controller.record.reader import read_record
from controller.record.summary import summarise
from controller.record.verify import verify_record
from controller.session import prepare_plan
from tests.hil import oracle
from tests.hil.fault_cell import Job, Session, play
from tests.hil.test_resume import lit_pieces
from tests.hil.whole_cell import ROOT, build, example, write_box

pytestmark = [pytest.mark.hil, pytest.mark.slow]

CELLS = {"lmd_segment": "sim", "grblhal": "sim_grblhal", "supervised": "sim_supervised"}
# A grblHAL controller knows no arming: nothing in its trace says when emission was permitted. In
# a hold its light goes down with the speed (HOLD_AFTER_BUFFER); how long is judged below.
NOT_OF = {"grblhal": {"gate_while_disarmed", "gate_while_held"}}
OVERLAP_MM = 2.0
ROW_MM = 0.1  # 10 mm/s, a row of the trace each 10 ms


def breaches(link, trace):
    """What the oracle finds, but for what such a machine has not."""
    found = oracle.check(trace)
    return [v for v in found if v.kind not in NOT_OF.get(link, set())]


@pytest.fixture(scope="module")
def blades(tmp_path_factory):
    """The example blade, built over each link."""
    folder = tmp_path_factory.mktemp("blades")
    return {
        link: build(example("blade.stl"), folder / link, time_mode="null", cell=cell)
        for link, cell in CELLS.items()
    }


@pytest.mark.parametrize("link", CELLS)
def test_the_blade_is_complete_and_clean(link, blades):
    result = blades[link]
    assert result["state"] == "COMPLETE"
    assert result["alarms"] == []
    record = Path(result["record"])
    assert breaches(link, record / "trace.mcap") == []
    found = verify_record(record)
    assert found.ok, found.problems
    assert found.complete


# share by which truth over a link may differ from that over the plan's own segments
BOUNDS = {"deposited_g": 0.01, "energy_j": 0.005, "emission_s": 0.005, "powder_g": 0.03}


@pytest.mark.parametrize("figure", BOUNDS)
@pytest.mark.parametrize("link", ["grblhal", "supervised"])
def test_what_was_laid_is_the_same_over_every_link(link, figure, blades):
    exact = blades["lmd_segment"]["truth"][figure]
    assert exact > 1.0
    assert blades[link]["truth"][figure] == pytest.approx(exact, rel=BOUNDS[figure])


@pytest.mark.parametrize("link", ["grblhal", "supervised"])
def test_the_path_is_compared_in_mm_and_no_step_is_claimed(link, blades):
    result = blades[link]
    assert result["position_error_steps"] is None
    told = result["path_check"]
    assert told["source"] == "trace"
    assert told["places"] > 20_000
    assert told["within"]
    assert told["off_path_mm"] < 0.01
    assert told["unlit_mm"] < 2 * ROW_MM
    assert result["truth"]["layers"] == result["planned"]["layers"]
    assert blades["lmd_segment"]["path_check"] is None
    assert blades["lmd_segment"]["position_error_steps"] == 0


@pytest.mark.parametrize("link", CELLS)
def test_what_a_link_cannot_give_stands_in_record_report_and_result(link, blades):
    result = blades[link]
    record = read_record(Path(result["record"]))
    told = record.header["link"]
    assert told["kind"] == link
    logged = [e.data["text"] for e in record.of_kind("log") if e.data["level"] == "warning"]
    groups = dict(make_content(Path(result["record"])).groups)
    if link == "lmd_segment":
        assert told["lacks"] == {}
        assert "What the motion link cannot give" not in groups
        return
    assert len(told["lacks"]) >= 3
    for name, text in told["lacks"].items():
        assert f"{name}: {text}" in logged
        assert f"{name}: {text}" in result["warnings"]
    assert len(groups["What the motion link cannot give"]) == len(told["lacks"])
    if link == "grblhal":
        assert {"NO_DEAD_MAN", "LINEAR_POWER", "GATE_AT_BLOCK_ENDS"} <= set(told["lacks"])


# --- a small box near home ---------------------------------------------------------------


@functools.cache
def near_job(link: str, watchdog: bool = True) -> Job:
    """A box of 8 x 4 x 1 mm near home, for the cell of a link."""
    folder = Path(tempfile.mkdtemp(prefix="lmd-links-"))
    text = (ROOT / "configs" / "cells" / f"{CELLS[link]}.toml").read_text()
    changes = {"center": '["30 mm", "30 mm"]', "size": '["40 mm", "40 mm"]', "top": '"2 mm"'}
    for key, value in changes.items():
        text, n = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert n == 1, key
    if not watchdog:
        text, n = re.subn(r"(?m)^gate_watchdog = .*$", "", text)
        assert n == 1
    cell = folder / "near.toml"
    cell.write_text(text)
    plan = prepare_plan(write_box(folder / "box.stl", (8.0, 4.0, 1.0)), None, str(cell))
    write_job(plan, folder / "job.lmdjob")
    return Job(cell, folder / "job.lmdjob", plan)


def test_without_a_watchdog_on_the_gate_a_start_over_grblhal_is_refused_by_name(tmp_path):
    async def script(s: Session):
        told = await s.call("preflight")
        assert [b["name"] for b in told["blockers"]] == ["GATE_WATCHDOG"]
        assert "NO_DEAD_MAN" in [w["name"] for w in told["warnings"]]
        with pytest.raises(PreflightError, match="GATE_WATCHDOG: no emission over link 'grblhal'"):
            await s.start()
        assert s.ex.state.name == "IDLE"
        await s.pass_s(0.1)

    out = play(tmp_path, job=near_job("grblhal", watchdog=False), script=script)
    assert not len(out.gate)
    assert not (tmp_path / "record.mcap").exists()


def laid_twice_mm(out):
    """How far before the light's end in the first hold it came on again, along the bead."""
    pieces, times = lit_pieces(out.run)
    again_us = next(t for t, state in out.states if state == "UNHOLDING")
    before, again = pieces[times <= again_us], pieces[times > again_us][0, 0]
    laid_mm = 0.0
    for p, q in before[::-1]:
        way = q - p
        share = np.clip((again - p) @ way / max(way @ way, 1e-18), 0.0, 1.0)
        if np.linalg.norm(again - (p + share * way)) < 0.02:
            return laid_mm + float(np.linalg.norm(q - (p + share * way)))
        laid_mm += float(np.linalg.norm(way))
    raise AssertionError(f"the light came on at {again}, where nothing had been laid")


@pytest.mark.parametrize("after_s", [0.4, 1.7, 3.3])
def test_the_double_bead_after_a_hold_is_the_recipe_s_overlap(after_s, tmp_path):
    async def script(s: Session):
        await s.emitting(after_s)
        await s.call("hold", now=True)
        await s.until("HELD")
        await s.call("unhold")
        await s.until("EXECUTE")
        await s.pass_s(4.0)
        await s.call("stop")
        await s.until("STOPPED")

    out = play(tmp_path, job=near_job("lmd_segment"), script=script)
    assert laid_twice_mm(out) == pytest.approx(OVERLAP_MM, abs=0.2)


@pytest.mark.parametrize("after_s", [0.4, 1.7, 3.3])
def test_a_hold_in_a_bead_over_grblhal_goes_on_with_overlap_and_no_gap(after_s, tmp_path):
    async def script(s: Session):
        await s.emitting(after_s)
        await s.call("hold", now=True)
        await s.until("HELD")
        await s.pass_s(0.5)
        await s.call("unhold")
        await s.until("EXECUTE")
        return await s.end()

    job = near_job("grblhal")
    out = play(tmp_path, job=job, script=script)
    assert out.states[-1][1] == "COMPLETE"
    assert out.alarms == []
    assert breaches("grblhal", tmp_path / "trace.mcap") == []
    told = summarise(tmp_path)
    assert told["resumptions"] == 1
    assert told["path_check"]["within"]
    assert told["path_check"]["unlit_mm"] < 2 * ROW_MM, "a gap"
    # a report is up to 20 ms old: 0.2 mm at 10 mm/s
    assert laid_twice_mm(out) == pytest.approx(OVERLAP_MM, abs=0.2)


@pytest.mark.parametrize("link", CELLS)
def test_a_hold_at_the_track_s_end_lays_nothing_twice(link, tmp_path):
    async def script(s: Session):
        await s.emitting(1.0)
        await s.call("hold")
        await s.until("HELD")
        assert not s.world.gate_on
        await s.pass_s(0.5)
        await s.call("unhold")
        return await s.end()

    job = near_job(link)
    out = play(tmp_path, job=job, script=script)
    assert out.states[-1][1] == "COMPLETE"
    assert breaches(link, tmp_path / "trace.mcap") == []
    told = summarise(tmp_path)
    planned_s = job.plan.figures["emission_s"]
    assert told["truth"]["emission_s"] == pytest.approx(planned_s, rel=0.01)
    if link != "lmd_segment":
        assert told["path_check"]["unlit_mm"] < 2 * ROW_MM


def test_a_bead_broken_off_over_a_supervised_link_is_not_gone_on_with(tmp_path):
    async def script(s: Session):
        await s.emitting(1.7)
        await s.call("hold", now=True)
        await s.until("HELD")
        with pytest.raises(StateError, match="along its own program only"):
            await s.call("unhold")
        assert s.ex.state.name == "HELD"
        await s.call("stop")
        await s.until("STOPPED")

    out = play(tmp_path, job=near_job("supervised"), script=script)
    assert breaches("supervised", tmp_path / "trace.mcap") == []
    held = next(t for t, state in out.states if state == "HELD")
    assert not any(t > held for t in out.gate["t_us"][out.gate["on"] == 1])


@pytest.mark.parametrize("link", CELLS)
def test_hold_now_shuts_the_light_at_random_moments(link, tmp_path):
    """Seldom-met moments, too: between beads, in corners, in a ramp."""
    rng = np.random.default_rng(17)
    job = near_job(link)
    for k in range(4):
        after_s = float(rng.uniform(0.02, 6.0))
        asked = []

        async def script(s: Session, after_s=after_s, asked=asked):
            await s.emitting(after_s)
            asked.append(s.ex.now_us())
            await s.call("hold", now=True)
            await s.until("HELD")
            await s.pass_s(0.3)
            assert not s.world.gate_on
            await s.call("stop")
            await s.until("STOPPED")

        out = play(tmp_path / str(k), job=job, script=script)
        assert breaches(link, tmp_path / str(k) / "trace.mcap") == []
        dark_ms = (out.dark_us(asked[0]) - asked[0]) / 1e3
        # a frame's way and 1 ms; grblHAL plays 0.1 s of prepared steps; a cycle of 20 ms
        limit_ms = {"lmd_segment": 2.0, "grblhal": 150.0, "supervised": 45.0}[link]
        assert dark_ms <= limit_ms, f"light for {dark_ms:.1f} ms after HOLD_NOW at {after_s:.2f} s"


@pytest.mark.parametrize("link", CELLS)
def test_unplugged_and_plugged_in_again_the_position_is_right_or_said_to_be_unknown(link, tmp_path):
    told = {}

    async def script(s: Session):
        await s.emitting(1.7)
        told["at_us"] = s.ex.now_us()
        fault = s.inject('device = "motion"\nlayer = "wire"\nkind = "unplug"')
        await s.until("ABORTED")
        await s.pass_s(0.5)
        told["latched"] = [a.alarm.name for a in s.ex.alarms.present()]
        s.act(fault, False)
        await s.pass_s(0.5)
        assert s.ex.state.name == "ABORTED", "it came back by itself"
        await s.call("clear")
        await s.until("STOPPED", limit_s=20.0)
        await s.call("reset")
        await s.until("IDLE")
        m = s.ex.motion
        told["homed"], told["armed"], told["gate"] = m.homed, m.armed, m.gate_on
        told["at_mm"] = s.ex.monitor.position_mm
        told["blockers"] = [b["name"] for b in (await s.call("preflight"))["blockers"]]
        await s.pass_s(0.1)

    out = play(tmp_path, job=near_job(link), script=script)
    assert "LINK_LOST" in told["latched"]
    limit_us = {"supervised": 250_000}.get(link, 101_000 + 20_000)
    assert out.dark_us(told["at_us"]) - told["at_us"] <= limit_us
    assert breaches(link, tmp_path / "trace.mcap") == []
    assert not told["armed"]
    assert not told["gate"]
    if not told["homed"]:
        assert "NOT_HOMED" in told["blockers"]
        return
    true_mm = [float(out.plant[k][-1]) for k in ("x_mm", "y_mm", "z_mm")]
    assert told["at_mm"] == pytest.approx(true_mm, abs=0.0026)
    assert "NOT_AT_START" in told["blockers"]

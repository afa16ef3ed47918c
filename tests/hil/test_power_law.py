"""A power law that is no straight line, under an override of the speed: the whole cell.

The plan's PARAM records name the law, the executor sets its table, the motion controller keeps
power on it; judged from the simulator's trace alone: speed and power of each 10 ms.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest

from controller.planning import write_job
from controller.session import prepare_plan
from tests.hil import oracle
from tests.hil.fault_cell import Job, Session, near_cell, play
from tests.hil.whole_cell import ROOT, write_box

pytestmark = [pytest.mark.hil, pytest.mark.slow]

FULL_W = 1000.0
FLOOR_W = 150.0
AWAY_US = 150_000  # of the gate's edges: ramps of power and the source's own lag are over
ROWS = 6  # of 10 ms, on each side, over which the speed is averaged
ROUGH_MM_S = 0.26  # a step of one axis in a row
LAWS = {
    "root": ('power_law = "power"\npower_exponent = 0.5', 0.5),
    "square": ('power_law = "power"\npower_exponent = 2.0', 2.0),
}


@functools.cache
def job_of(text: str) -> Job:
    """The small box near home with another power law."""
    folder = Path(tempfile.mkdtemp(prefix="lmd-laws-"))
    recipe = (ROOT / "configs" / "recipes" / "316l_general.toml").read_text()
    assert 'power_law = "linear"' in recipe
    own = folder / "law.toml"
    own.write_text(recipe.replace('power_law = "linear"', text))
    cell = near_cell(folder)
    part = write_box(folder / "box.stl", (8.0, 4.0, 1.0))
    plan = prepare_plan(part, str(own), str(cell))
    write_job(plan, folder / "job.lmdjob")
    return Job(cell, folder / "job.lmdjob", plan)


def law_errors(out, job, exponent, from_us):
    """Power less the law at the speed that was run, W: each 10 ms of steady light."""
    plant, gate = out.plant, out.gate
    t = plant["t_us"].astype(np.int64)
    at = np.column_stack([plant[k] for k in ("x_mm", "y_mm", "z_mm")])
    speed = np.linalg.norm(np.diff(at, axis=0), axis=1) / (np.diff(t) * 1e-6)
    on, off = (gate["t_us"][gate["on"] == k].astype(np.int64) for k in (1, 0))
    assert len(on) == len(off) == len(job.plan.tracks)
    errors = []
    for row, opened, shut in zip(job.plan.tracks, on, off, strict=True):
        own = np.flatnonzero((t > max(opened, from_us) + AWAY_US) & (t < shut - AWAY_US))
        own = own[(own >= ROWS) & (own + ROWS <= len(speed))]
        near = speed[own[:, None] + np.arange(-ROWS, ROWS)]
        mean = near.mean(axis=1)
        across = np.linalg.norm(at[own + ROWS] - at[own - ROWS], axis=1)
        # straight (rows are chords of a round corner, shorter than the way), and no slow place;
        # whole steps and us make each row uncertain, their mean is not
        steady = np.abs(near - mean[:, None]).max(axis=1) < ROUGH_MM_S
        steady &= across > 0.9999 * mean * 2 * ROWS * 0.01
        own, r = own[steady], mean[steady] / float(row["speed_mm_s"])
        want = FLOOR_W + (float(row["power_set_w"]) - FLOOR_W) * r**exponent
        power = np.median(plant["emission_w"][own[:, None] + np.arange(-ROWS, ROWS)], axis=1)
        errors.append(power - want)  # a slight corner is shorter than half of the rows
    return np.concatenate(errors)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("scale", [0.8, 1.1])
def test_power_follows_the_law_under_an_override(law, scale, tmp_path):
    text, exponent = LAWS[law]
    job = job_of(text)
    begun = []

    async def script(s: Session):
        await s.emitting(0.5)
        await s.call("override", scale=scale, what="speed")
        begun.append(s.ex.now_us())
        return await s.end()

    out = play(tmp_path, job=job, script=script)
    assert out.states[-1][1] == "COMPLETE"
    assert out.alarms == []
    assert oracle.check(tmp_path / "trace.mcap") == []
    errors = law_errors(out, job, exponent, begun[0])
    assert len(errors) > 300
    assert np.abs(errors).max() <= 0.005 * FULL_W
    # a linear scaling of 450 W would be far off: the test can tell
    linear = 0.45 * abs(scale**exponent - scale) * FULL_W
    assert linear > 0.005 * FULL_W


def test_a_hold_under_the_override_goes_on_under_the_law(tmp_path):
    """The rest says the law again; power over the last bead is on it."""
    text, exponent = LAWS["root"]

    async def script(s: Session):
        await s.emitting(0.5)
        await s.call("override", scale=0.8, what="speed")
        await s.pass_s(1.0)
        await s.call("hold", now=True)
        await s.until("HELD")
        await s.call("unhold")
        await s.until("EXECUTE")
        return await s.end()

    out = play(tmp_path, job=job_of(text), script=script)
    assert out.states[-1][1] == "COMPLETE"
    assert out.alarms == []
    assert oracle.check(tmp_path / "trace.mcap") == []
    t = out.plant["t_us"]
    opened, shut = (int(v) for v in out.gate["t_us"][-2:])
    inside = (t > opened + AWAY_US) & (t < shut - AWAY_US)
    assert inside.sum() > 10
    power = float(np.median(out.plant["emission_w"][inside]))
    assert power == pytest.approx(FLOOR_W + 450.0 * 0.8**exponent, abs=0.005 * FULL_W)

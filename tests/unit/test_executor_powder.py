"""The supervisor and the feeders: what they are told while the plan stands still."""

import asyncio
from dataclasses import replace

import numpy as np

from controller.model import TIMELINE_ROW, PowderChannel
from tests.unit.test_executor import bench


def led(job, *rows):
    """The job with other commands for its first hopper."""
    plan = job.plan
    others = plan.timeline[plan.timeline["channel"] != PowderChannel.HOPPER_1]
    own = np.array([(t, PowderChannel.HOPPER_1, v) for t, v in rows], dtype=TIMELINE_ROW)
    timeline = np.concatenate([others, own])
    timeline = timeline[np.argsort(timeline["t_s"], kind="stable")]
    return replace(job, plan=replace(plan, timeline=timeline))


async def held_at(b, at_s, *rows):
    """Hold when the plan is there; what the first hopper is set to afterwards."""
    await b.ready()
    b.ex.load(led(b.ex.job, *rows))
    b.ex.start("test", None, b.ex.mode)
    while b.ex.state.name != "EXECUTE" or b.ex.cursor.plan_us < at_s * 1e6:
        await asyncio.sleep(0.01)
    b.ex.hold("test", now=True)
    await b.until_state("HELD")
    await asyncio.sleep(0.1)
    return b.ex.outputs.hopper_set_g_min[0]


@bench
async def test_a_hold_in_the_middle_of_a_lead_does_not_keep_the_lead(b):
    flow = await held_at(b, 0.7, (0.0, 6.0), (0.5, 18.0), (0.9, 9.0), (1.9, 0.0))
    assert 7.0 < flow < 9.0  # 18 is for 0.4 s; 0.2 s of it have brought a lag of 0.6 s so far


@bench
async def test_a_hold_at_a_steady_command_leaves_it(b):
    assert await held_at(b, 0.7, (0.0, 6.0), (1.9, 0.0)) == 6.0

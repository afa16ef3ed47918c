"""Powder of a build: commands ahead of time, blends, and what a change on the way makes of them.

Powder leaves the nozzle ``transport_delay`` after the feeder's command and follows it with a
first-order lag. ``powder_line`` is that model and its inverse, ``composition`` the blends,
``powder_timeline`` the plan of a whole build, ``powder_live`` overrides and holds of a build
under way. This module is what the planner takes from them.
"""

import numpy as np

from controller.config import Powder
from controller.planning.powder.line import NozzleFlow, lines_of
from controller.planning.powder.timeline import (
    GAS_LEAD_S,
    PowderPlan,
    plan_powder,
    priming_lead_s,
)

__all__ = ["NozzleFlow", "PowderPlan", "nozzle_flow", "plan_powder", "priming_dwell_s"]


def priming_dwell_s(first_on_s: float, powder: Powder, flow_g_min: float = 0.0) -> float:
    """Standing time at the job's start so that the first bead finds powder.

    ``flow_g_min``: of the first bead. Whichever hopper it comes from has time enough.
    """
    lead_s = max(priming_lead_s(line, flow_g_min) for line in lines_of(powder))
    return max(0.0, GAS_LEAD_S + lead_s - first_on_s)


def nozzle_flow(timeline: np.ndarray, hopper: int, powder: Powder) -> NozzleFlow:
    """Flow that a timeline makes at the end of a hopper's line."""
    line = lines_of(powder)[hopper]
    own = timeline[timeline["channel"] == int(line.channel)]
    return NozzleFlow.of(own["t_s"], own["value"], line)

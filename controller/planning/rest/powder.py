"""Powder and gas of a rest of a plan: the plan's timeline moved, and what its start needs.

The flow at the nozzle is linear in the commands and forgets its past, so the rest's flow equals
the plan's from the join on when it starts from the same flow and hears the same commands at
the same distance. So each feeder is first set to the flow that the plan has at the join, early
enough to arrive and settle; a transport delay before the join it gets the command that the
plan had then, and from there on the plan's own commands, moved.
"""

import math
from dataclasses import dataclass

import numpy as np

from controller.config import Cell
from controller.model import TIMELINE_ROW, BuildPlan, PowderChannel
from controller.planning.powder.line import Line, NozzleFlow, lines_of
from firmware_bridge.segments import TICK_S, ticks_of

GAS_LEAD_S = 1.0  # carrier and shield gas before powder
DIVERTER_LEAD_S = 0.5  # powder turned to the nozzle before the first bead
SETTLED_LAGS = math.log(100.0)  # 99 % of a step after this many lags
SAME_SHARE = 0.03  # a feeder that gives the wanted flow within this is left as it is


@dataclass(frozen=True)
class Powder:
    """What the feeders do while the build waits: flows set, and for how long."""

    flow_g_min: tuple[float, ...]
    since_s: float


def join_s(plan: BuildPlan, join: int, into_us: int = 0) -> float:
    """Plan time at a place in a segment."""
    return float(ticks_of(plan.segments[:join]).sum() + into_us) * TICK_S


def value_at(plan: BuildPlan, channel: PowderChannel, t_s: float) -> float:
    """What the timeline has a channel set to at a plan time; 0 before its first command."""
    rows = plan.timeline[plan.timeline["channel"] == int(channel)]
    i = int(np.searchsorted(rows["t_s"], t_s + 1e-9, side="right")) - 1
    return float(rows["value"][i]) if i >= 0 else 0.0


def _lead_s(line: Line) -> float:
    """From a feeder's command to a settled flow."""
    return line.transport_delay_s + SETTLED_LAGS * line.lag_s


def _wanted(plan: BuildPlan, at_s: float, line: Line) -> tuple[float, float]:
    """Flow at the nozzle at a plan time, and the command that acts there then; g/min."""
    rows = plan.timeline[plan.timeline["channel"] == int(line.channel)]
    command = value_at(plan, line.channel, at_s - line.transport_delay_s)
    if not len(rows):
        return 0.0, command
    flow = float(NozzleFlow.of(rows["t_s"], rows["value"], line).at(np.array([at_s]))[0][0])
    if abs(flow - command) <= SAME_SHARE * max(command, 1e-9):
        flow = command
    return line.allowed(flow), command


def _flows(plan: BuildPlan, at_s: float, line: Line, powder: Powder | None) -> bool:
    """Whether a feeder gives already what the join needs."""
    if powder is None or line.hopper >= len(powder.flow_g_min):
        return False
    flow, _ = _wanted(plan, at_s, line)
    return abs(powder.flow_g_min[line.hopper] - flow) <= SAME_SHARE * flow


def needs_s(plan: BuildPlan, at_s: float, cell: Cell, powder: Powder | None) -> float:
    """Least time from the rest's start to its first bead, which opens at ``at_s`` of the plan."""
    needs = [DIVERTER_LEAD_S + 0.1]
    for line in lines_of(cell.powder):
        flow, command = _wanted(plan, at_s, line)
        if not _flows(plan, at_s, line, powder):
            needs.append(_lead_s(line) + GAS_LEAD_S)
        elif powder is not None and flow > 0.0:
            needs.append(_lead_s(line) - powder.since_s)
        rows = plan.timeline[plan.timeline["channel"] == int(line.channel)]
        under_way = rows["t_s"] > at_s - line.transport_delay_s + 1e-9
        if (under_way & (rows["t_s"] <= at_s)).any() or flow != command:
            needs.append(line.transport_delay_s + 0.05)
    return max(needs)


def rest_timeline(
    plan: BuildPlan, at_s: float, opens_s: float, cell: Cell, powder: Powder | None
) -> np.ndarray:
    """TIMELINE_ROW of the rest whose first bead opens at ``opens_s`` of its own time, which is
    ``at_s`` of the plan."""
    move_s = opens_s - at_s
    rows: list[tuple[float, int, float]] = [(0.0, int(PowderChannel.DIVERTER), 0.0)]
    after = {int(PowderChannel.DIVERTER): at_s}
    for channel in (PowderChannel.CARRIER, PowderChannel.SHIELD):
        rows.append((0.0, int(channel), value_at(plan, channel, at_s)))
        after[int(channel)] = at_s
    for line in lines_of(cell.powder):
        number = int(line.channel)
        flow, command = _wanted(plan, at_s, line)
        flows = _flows(plan, at_s, line, powder)
        if not flows and flow > 0.0:
            rows.append((0.0, number, 0.0))
        early_s = 0.0 if flows or flow == 0.0 else max(opens_s - _lead_s(line), 0.0)
        rows.append((early_s, number, flow))
        if flow != command:
            rows.append((max(opens_s - line.transport_delay_s, 0.0), number, command))
        after[number] = at_s - line.transport_delay_s
    rows.append((opens_s - DIVERTER_LEAD_S, int(PowderChannel.DIVERTER), 1.0))
    for row in plan.timeline:
        t_s, number = float(row["t_s"]), int(row["channel"])
        if t_s > after.get(number, at_s) + 1e-9:
            rows.append((max(t_s + move_s, 0.0), number, float(row["value"])))
    made = np.array([(round(t, 6), c, x) for t, c, x in rows], dtype=TIMELINE_ROW)
    return made[np.lexsort((np.arange(len(made)), made["t_s"]))]


def masses_g(
    plan: BuildPlan, cell: Cell, powder: Powder | None = None
) -> tuple[tuple[float, ...], float]:
    """What the commands take out of each hopper, and what passes the nozzle while beads are
    laid, g. ``powder``: what flowed before the plan's start, and is in the pipe then."""
    end_s = float(ticks_of(plan.segments).sum()) * TICK_S
    laid = plan.tracks[plan.tracks["powder_g_min"] > 0.0]
    fed: list[float] = []
    during = 0.0
    for line in lines_of(cell.powder):
        rows = plan.timeline[plan.timeline["channel"] == int(line.channel)]
        t, u = rows["t_s"], rows["value"]
        fed.append(float((u * np.diff(np.append(np.minimum(t, end_s), end_s))).sum()) / 60.0)
        if powder is not None and line.hopper < len(powder.flow_g_min):
            t = np.concatenate([[-powder.since_s], t])
            u = np.concatenate([[powder.flow_g_min[line.hopper]], u])
        if len(t):
            flow = NozzleFlow.of(t, u, line)
            during += float((flow.at(laid["end_s"])[1] - flow.at(laid["start_s"])[1]).sum())
    return tuple(fed), during

"""Powder of a build under way: what an override and a hold make of the rest of the timeline.

Pure functions of a timeline; its times are the plan's. What the feeders were told in the last
``transport_delay`` is still in the pipe: it cannot be called back, it can only be followed by
something else.
"""

from dataclasses import dataclass

import numpy as np

from controller.config import Powder
from controller.errors import PlanError
from controller.model import TIMELINE_ROW, PowderChannel
from controller.planning.powder.line import GRID_S, Line, NozzleFlow, invert, lines_of, ramp_s
from controller.planning.powder.timeline import DIVERTER_LEAD_S, SETTLE_LAGS

_HOPPERS = (int(PowderChannel.HOPPER_1), int(PowderChannel.HOPPER_2))


@dataclass(frozen=True)
class Rescaled:
    """A timeline with another amount of powder from some instant on."""

    timeline: np.ndarray  # TIMELINE_ROW, whole; rows before ``from_s`` are the same
    begins_s: float  # plan time at which the first change is at the nozzle
    done_s: float  # plan time from which the new amount is there
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Held:
    """A timeline with a hold in it: after ``at_s`` its times are later by ``pause_s``."""

    timeline: np.ndarray  # TIMELINE_ROW, whole; rows before ``at_s`` are the same
    motion_s: float  # when motion goes on: at_s + pause_s


def _own(timeline: np.ndarray, line: Line) -> np.ndarray:
    return timeline[timeline["channel"] == int(line.channel)]


def _command_at(own: np.ndarray, t_s: float) -> float:
    i = int(np.searchsorted(own["t_s"], t_s, side="right")) - 1
    return float(own["value"][i]) if i >= 0 else 0.0


def _sorted(rows: list[tuple[float, int, float]]) -> np.ndarray:
    made = np.array([(round(t, 6), c, x) for t, c, x in rows], dtype=TIMELINE_ROW)
    return made[np.lexsort((np.arange(len(made)), made["channel"], made["t_s"]))]


def held_flow_g_min(timeline: np.ndarray, at_s: float, powder: Powder) -> tuple[float, ...]:
    """What to set each hopper to when the plan stands still at ``at_s``, g/min.

    A command of the moment may lead a change (more than is wanted, for tenths of a second): held
    on, it would fill the pipe with that. Such a one is replaced by the flow that the lag has
    reached; a command that the plan means for longer than the lag stays.
    """
    flows = []
    for line in lines_of(powder):
        own = _own(timeline, line)
        i = int(np.searchsorted(own["t_s"], at_s, side="right"))
        command = _command_at(own, at_s)
        if 0 < i < len(own) and own["t_s"][i] - own["t_s"][i - 1] <= line.lag_s:
            flow = NozzleFlow.of(own["t_s"], own["value"], line)
            at_nozzle = np.array([at_s + line.transport_delay_s])
            command = line.allowed(float(flow.at(at_nozzle)[0][0]))
        flows.append(command)
    return tuple(flows)


def command_g_min(timeline: np.ndarray, at_s: float, powder: Powder) -> tuple[float, ...]:
    """The timeline's own command of each hopper at a plan time, g/min."""
    return tuple(_command_at(_own(timeline, line), at_s) for line in lines_of(powder))


def rescale_timeline(
    timeline: np.ndarray, from_s: float, factor: float, powder: Powder
) -> Rescaled:
    """More or less powder from a plan time on.

    Parameters
    ----------
    timeline : as planned, or as changed before
    from_s : s, plan time of the first command that may differ
    factor : > 0, of what the timeline brings to the nozzle now

    All hoppers change together at the nozzle, each earlier by its own delay, so a blend keeps
    its shares; the change is as quick as feeder and lag allow. Gas and diverter stay.
    Raises PlanError for a factor that is no positive number.
    """
    if not (np.isfinite(factor) and factor > 0.0 and np.isfinite(from_s)):
        raise PlanError(f"powder override {factor:g} at {from_s:g} s: not a number above 0")
    lines = lines_of(powder)
    active = [line for line in lines if _own(timeline, line)["value"].any()]
    if not active:
        return Rescaled(timeline, from_s, from_s, ())
    begins_s = from_s + max(line.transport_delay_s for line in active)
    flows = {}
    width_s = GRID_S
    for line in active:
        own = _own(timeline, line)
        flows[line.hopper] = flow = NozzleFlow.of(own["t_s"], own["value"], line)
        there = float(flow.at(np.array([begins_s]))[0][0])
        width_s = max(width_s, ramp_s(line, there, min(there * factor, line.greatest_g_min)))
    rows = [(float(t), int(c), float(v)) for t, c, v in timeline.tolist() if int(c) not in _HOPPERS]
    notes = []
    for line in lines:
        own = _own(timeline, line)
        number = int(line.channel)
        if line.hopper not in flows:
            rows += [(float(t), number, float(v)) for t, _, v in own.tolist()]
            continue
        change_s = begins_s - line.transport_delay_s
        end_s = change_s + width_s
        rows += [(t, number, v) for t, _, v in own[own["t_s"] < change_s].tolist()]
        between = own["t_s"][(own["t_s"] > change_s) & (own["t_s"] < end_s)]
        nodes = np.linspace(begins_s, begins_s + width_s, round(width_s / GRID_S) + 1)
        nodes = np.union1d(nodes, between + line.transport_delay_s)
        flow = flows[line.hopper]
        now = flow.at(nodes)[0]
        share = 1.0 + (factor - 1.0) * (nodes - begins_s) / width_s
        t, u = invert(
            line,
            nodes,
            np.minimum(now * share, line.greatest_g_min),
            flow_before_g_min=float(now[0]),
            command_before_g_min=_command_at(own, change_s - 1e-9),
        )
        rows += [(a, number, v) for a, v in zip(t.tolist(), u.tolist(), strict=True) if a < end_s]
        later = own[own["t_s"] > end_s]
        asked = [_command_at(own, end_s) * factor, *(later["value"] * factor).tolist()]
        times = [end_s, *later["t_s"].tolist()]
        rows += [(a, number, line.allowed(v)) for a, v in zip(times, asked, strict=True)]
        for limit, word, key in (
            (line.greatest_g_min, "above", "greatest_flow"),
            (line.least_g_min, "below", "least_flow"),
        ):
            beyond = [v for v in asked if (v > limit if word == "above" else 0.0 < v < limit)]
            if beyond:
                worst = max(beyond) if word == "above" else min(beyond)
                notes.append(
                    f"powder override {factor:g}: hopper {line.hopper + 1} would be told "
                    f"{worst:.2f} g/min, {word} {limit:g} g/min (powder.{key}); it stays within"
                )
    return Rescaled(_sorted(rows), begins_s, begins_s + width_s, tuple(notes))


def least_pause_s(timeline: np.ndarray, at_s: float, powder: Powder) -> float:
    """Shortest hold at a plan time after which the right flow is at the nozzle again, s."""
    needed = [DIVERTER_LEAD_S]
    for line in lines_of(powder):
        own = _own(timeline, line)
        if own["value"].any():
            flow = NozzleFlow.of(own["t_s"], own["value"], line)
            there, then = flow.at(np.array([at_s, at_s + line.transport_delay_s]))[0]
            ramp = ramp_s(line, float(then), float(there))
            needed.append(line.transport_delay_s + SETTLE_LAGS * line.lag_s + ramp)
    return max(needed)


def shift_timeline(timeline: np.ndarray, at_s: float, pause_s: float, powder: Powder) -> Held:
    """A hold of ``pause_s`` at plan time ``at_s``, with the powder's lead told again.

    When motion stops, the commands of the last ``transport_delay`` are in the pipe and go to
    waste. In the hold each hopper goes to the flow that the nozzle is to have when motion goes
    on; then, while motion still waits, it hears the commands of plan time ``at_s - delay`` to
    ``at_s`` once more, and the rest follows as planned. Diverter: to waste at ``at_s``, back
    before motion goes on.
    Raises PlanError if the hold is shorter than ``least_pause_s``.
    """
    least_s = least_pause_s(timeline, at_s, powder)
    if not pause_s >= least_s - 1e-9:
        raise PlanError(
            f"hold of {pause_s:.2f} s at {at_s:.2f} s below {least_s:.2f} s: the powder's way "
            "to the nozzle takes that long"
        )
    rows: list[tuple[float, int, float]] = []
    motion_s = at_s + pause_s
    diverter = int(PowderChannel.DIVERTER)
    to_nozzle = 0.0
    for t, c, v in timeline.tolist():
        if c in _HOPPERS:
            continue
        rows.append((t if t < at_s else t + pause_s, c, v))
        if c == diverter and t <= at_s:
            to_nozzle = v
    rows.append((at_s, diverter, 0.0))
    if to_nozzle:
        rows.append((motion_s - DIVERTER_LEAD_S, diverter, 1.0))
    for line in lines_of(powder):
        own, number = _own(timeline, line), int(line.channel)
        if not own["value"].any():
            rows += [(t if t < at_s else t + pause_s, number, v) for t, _, v in own.tolist()]
            continue
        rows += [(t, number, v) for t, _, v in own[own["t_s"] < at_s].tolist()]
        flow = NozzleFlow.of(own["t_s"], own["value"], line)
        delay_s = line.transport_delay_s
        there, then = (float(x) for x in flow.at(np.array([at_s, at_s + delay_s]))[0])
        again_s = motion_s - delay_s  # the pipe's inlet hears plan time at_s - delay
        ramp = max(ramp_s(line, then, there), GRID_S)
        t, u = invert(
            line,
            np.array([at_s + delay_s, at_s + delay_s + ramp, again_s + delay_s]),
            np.array([then, there, there]),
            flow_before_g_min=then,
            command_before_g_min=_command_at(own, at_s - 1e-9),
        )
        rows += [(a, number, v) for a, v in zip(t.tolist(), u.tolist(), strict=True) if a < again_s]
        rows.append((again_s, number, _command_at(own, at_s - delay_s)))
        later = own[own["t_s"] > at_s - delay_s]
        rows += [(t + pause_s, number, v) for t, _, v in later.tolist()]
    return Held(_sorted(rows), motion_s)

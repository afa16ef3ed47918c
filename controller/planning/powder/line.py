"""One powder line: from a hopper's command to the flow at the nozzle, and back.

Model (delay and first-order lag, as Tang and Landers identified for blown powder): flow at
the nozzle f follows the command u by

    lag * f'(t) = u(t - delay) - f(t)

so a wanted flow r needs u(t) = r(t + delay) + lag * r'(t + delay). The feeder takes constant
commands only, so ``invert`` solves for the command of each stretch that brings f from where it
is to where r ends, exactly, and carries f on: what a limit cuts off is made up by the next.
"""

import math
from dataclasses import dataclass

import numpy as np

from controller.config import Powder
from controller.model import PowderChannel

GRID_S = 0.1  # shortest stretch of one command; the timeline is executed each 10 ms
STEP_SHARE = 0.005  # of the greatest wanted flow: a ramp is cut no finer than this
LEAST_STEP_SHARE = 0.0005  # of the feeder's greatest flow: what one count of a drive amounts to
SETTLED_SHARE = 0.002  # of the feeder's greatest flow: nearer than this the flow has arrived
DRIVE_SHARE = 0.005  # of the greatest flow: below it a drive turns by single counts
SLOWEST_RAMP_LAGS = 4.0  # a ramp is stretched no longer to stay within the feeder's limits


@dataclass(frozen=True)
class Line:
    """A hopper with its way to the nozzle."""

    hopper: int  # 0 or 1
    transport_delay_s: float
    lag_s: float
    least_g_min: float
    greatest_g_min: float

    @property
    def channel(self) -> PowderChannel:
        """The timeline's channel of this hopper."""
        return PowderChannel.HOPPER_1 if self.hopper == 0 else PowderChannel.HOPPER_2

    def allowed(self, flow_g_min: float) -> float:
        """The nearest command that the feeder can give: 0, or least to greatest flow."""
        least = max(self.least_g_min, DRIVE_SHARE * self.greatest_g_min)
        if flow_g_min < least:
            return least if flow_g_min > 0.5 * least else 0.0
        return min(flow_g_min, self.greatest_g_min)


def lines_of(powder: Powder) -> tuple[Line, ...]:
    """The lines of a cell's feeder; a hopper's own delay and lag go before the feeder's."""
    return tuple(
        Line(
            hopper=number,
            transport_delay_s=(
                powder.transport_delay_s if h.transport_delay_s is None else h.transport_delay_s
            ),
            lag_s=powder.lag_s if h.lag_s is None else h.lag_s,
            least_g_min=powder.least_flow_g_min,
            greatest_g_min=powder.greatest_flow_g_min,
        )
        for number, h in enumerate(powder.hoppers)
    )


@dataclass(frozen=True)
class NozzleFlow:
    """Flow at the end of the transport line for a list of feeder commands."""

    t_s: np.ndarray  # instants at which a command begins to act there, increasing
    set_g_min: np.ndarray  # the command from then on
    flow_g_min: np.ndarray  # flow at those instants
    mass_g: np.ndarray  # through the end until those instants
    lag_s: float

    @classmethod
    def of(cls, t_s: np.ndarray, set_g_min: np.ndarray, line: Line | Powder) -> "NozzleFlow":
        """From feeder commands (sorted), starting from no flow."""
        at = np.concatenate([[-1e12], np.asarray(t_s) + line.transport_delay_s])
        wanted = np.concatenate([[0.0], np.asarray(set_g_min, dtype=np.float64)])
        flows, masses = [0.0], [0.0]
        flow = mass = 0.0
        times, sets, lag_s = at.tolist(), wanted.tolist(), line.lag_s
        for i in range(1, len(times)):
            flow, mass = _settle(times[i] - times[i - 1], sets[i - 1], flow, mass, lag_s)
            flows.append(flow)
            masses.append(mass)
        return cls(at, wanted, np.array(flows), np.array(masses), lag_s)

    def at(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flow in g/min, and mass in g since the start, at instants."""
        t = np.asarray(t_s, dtype=np.float64)
        i = np.searchsorted(self.t_s, t, side="right") - 1
        tau, wanted, flow = t - self.t_s[i], self.set_g_min[i], self.flow_g_min[i]
        if self.lag_s > 0.0:
            decay = np.exp(-tau / self.lag_s)
        else:
            decay = np.where(tau > 0.0, 0.0, 1.0)
        mass = self.mass_g[i] + (wanted * tau + (flow - wanted) * self.lag_s * (1 - decay)) / 60.0
        return wanted + (flow - wanted) * decay, mass


def _settle(
    tau_s: float, wanted: float, flow: float, mass: float, lag_s: float
) -> tuple[float, float]:
    """First-order step response from (flow, mass), g/min and g, after ``tau_s``."""
    if lag_s <= 0.0:
        return (wanted if tau_s > 0.0 else flow), mass + wanted * tau_s / 60.0
    decay = math.exp(-tau_s / lag_s)
    lag_g = (flow - wanted) * lag_s * (1.0 - decay)
    return wanted + (flow - wanted) * decay, mass + (wanted * tau_s + lag_g) / 60.0


def ramp_s(line: Line, from_g_min: float, to_g_min: float) -> float:
    """Least duration of a straight change at the nozzle within the feeder's limits, s.

    u = r + lag * r' must stay inside of them at the change's end. One lag is short enough for
    any change and asks for at most twice the step; towards a limit itself the flow only
    creeps, so the change is not stretched beyond SLOWEST_RAMP_LAGS.
    """
    lag_s, change = line.lag_s, to_g_min - from_g_min
    if lag_s <= 0.0 or change == 0.0:
        return 0.0
    low = line.least_g_min if to_g_min > 0.0 else 0.0
    room = line.greatest_g_min - to_g_min if change > 0.0 else to_g_min - low
    need_s = lag_s * abs(change) / room if room > 0.0 else math.inf
    return min(max(need_s, lag_s), SLOWEST_RAMP_LAGS * lag_s)


def invert(
    line: Line,
    t_s: np.ndarray,
    flow_g_min: np.ndarray,
    *,
    flow_before_g_min: float = 0.0,
    command_before_g_min: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Commands that make a wanted flow at the nozzle.

    Parameters
    ----------
    t_s : (n,) float64, s, never falling   nodes of the wanted flow, at the nozzle
    flow_g_min : (n,) float64, g/min       straight between nodes, the last value held
    flow_before_g_min, command_before_g_min : at the nozzle at the first node, and what acts
        there until then

    Returns instants (already earlier by the delay) and commands, g/min, without repeats.
    """
    times, flows = np.asarray(t_s).tolist(), np.asarray(flow_g_min).tolist()
    delay_s, lag_s = line.transport_delay_s, line.lag_s
    step = max(STEP_SHARE * max(flows, default=0.0), LEAST_STEP_SHARE * line.greatest_g_min)
    near = SETTLED_SHARE * line.greatest_g_min
    out_t: list[float] = []
    out_u: list[float] = []
    flow, last = flow_before_g_min, command_before_g_min

    def give(at_s: float, command: float) -> None:
        nonlocal last
        if command != last:
            out_t.append(at_s - delay_s)
            out_u.append(command)
            last = command

    n = len(times)
    for i in range(n):
        at_s, end = times[i], flows[min(i + 1, n - 1)]
        rest_s = times[i + 1] - at_s if i + 1 < n else math.inf
        start = flows[i]
        if rest_s <= 0.0:  # a step
            continue
        if end != start:
            parts = min(math.ceil(rest_s / GRID_S), max(1, math.ceil(abs(end - start) / step)))
            h = rest_s / parts
            decay = math.exp(-h / lag_s) if lag_s > 0.0 else 0.0
            for k in range(parts):
                goal = start + (end - start) * (k + 1) / parts
                if lag_s <= 0.0:  # a stair has its middle on the line
                    goal = start + (end - start) * (k + 0.5) / parts
                command = line.allowed((goal - flow * decay) / (1.0 - decay))
                give(at_s + k * h, command)
                flow = command + (flow - command) * decay
            continue
        # constant: lead until it has arrived, then the value itself
        gone_s = 0.0
        while abs(flow - start) > near and lag_s > 0.0 and gone_s + GRID_S < rest_s:
            decay = math.exp(-GRID_S / lag_s)
            command = line.allowed((start - flow * decay) / (1.0 - decay))
            give(at_s + gone_s, command)
            flow = command + (flow - command) * decay
            gone_s += GRID_S
        command = line.allowed(start)
        give(at_s + gone_s, command)
        decay = math.exp(-(rest_s - gone_s) / lag_s) if lag_s > 0.0 else 0.0
        flow = command + (flow - command) * decay
    return np.array(out_t), np.array(out_u)


def thinned(t_s: np.ndarray, flow: np.ndarray, tolerance: float) -> np.ndarray:
    """Indices of the nodes that a straight-pieced flow needs to stay within ``tolerance``.

    A piece is drawn on while some straight line from its start passes all that it leaves out.
    """
    n = len(t_s)
    if n <= 2:
        return np.arange(n)
    t, f = np.asarray(t_s).tolist(), np.asarray(flow).tolist()
    kept, start = [0], 0
    low, high = -math.inf, math.inf
    for i in range(1, n):
        if t[i] <= t[i - 1]:  # a step: both its ends stay
            if start != i - 1:
                kept.append(i - 1)
            start = i
            kept.append(start)
            low, high = -math.inf, math.inf
            continue
        dt = t[i] - t[start]
        if not low <= (f[i] - f[start]) / dt <= high:
            start = i - 1
            kept.append(start)
            low, high = -math.inf, math.inf
            dt = t[i] - t[start]
        low = max(low, (f[i] - tolerance - f[start]) / dt)
        high = min(high, (f[i] + tolerance - f[start]) / dt)
    if kept[-1] != n - 1:
        kept.append(n - 1)
    return np.array(kept)

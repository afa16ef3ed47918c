"""Process timeline: powder, carrier gas, shield gas and diverter, commanded ahead of time.

Powder leaves the nozzle ``transport_delay`` after the feeder's command and follows it with a
first-order lag. So flow runs constant through a bead, a change is sent the delay before it
is wanted at the nozzle (and in the gap before the bead where there is one, so that the lag
settles with the gate closed), and the feeder starts so early that the first bead finds its
flow; if the way from home is too short for that, the job starts with a dwell.
"""

import math
from dataclasses import dataclass

import numpy as np

from controller.config import Cell, Powder
from controller.errors import PlanError
from controller.model import TIMELINE_ROW, PowderChannel
from controller.planning.motion_path import BEAD_ROW
from controller.planning.power import Gates

SETTLED_LAGS = math.log(100.0)  # 99 % of a step after this many lags
GAS_LEAD_S = 1.0  # carrier and shield gas before powder
DIVERTER_LEAD_S = 0.5  # powder turned to the nozzle before the first bead


@dataclass(frozen=True)
class NozzleFlow:
    """Flow at the end of the transport line for a list of feeder commands."""

    t_s: np.ndarray  # instants at which a command begins to act there, increasing
    set_g_min: np.ndarray  # the command from then on
    flow_g_min: np.ndarray  # flow at those instants
    mass_g: np.ndarray  # through the end until those instants
    lag_s: float

    @classmethod
    def of(cls, t_s: np.ndarray, set_g_min: np.ndarray, powder: Powder) -> "NozzleFlow":
        """From feeder commands (sorted), starting from no flow."""
        at = np.concatenate([[-1e12], np.asarray(t_s) + powder.transport_delay_s])
        wanted = np.concatenate([[0.0], np.asarray(set_g_min)])
        flow, mass = np.zeros(len(at)), np.zeros(len(at))
        for i in range(1, len(at)):
            flow[i], mass[i] = _settle(
                at[i] - at[i - 1], wanted[i - 1], flow[i - 1], mass[i - 1], powder.lag_s
            )
        return cls(at, wanted, flow, mass, powder.lag_s)

    def at(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flow in g/min, and mass in g since the start, at instants."""
        t = np.asarray(t_s, dtype=np.float64)
        i = np.searchsorted(self.t_s, t, side="right") - 1
        return _settle(t - self.t_s[i], self.set_g_min[i], self.flow_g_min[i], self.mass_g[i],
                       self.lag_s)  # fmt: skip


def _settle(tau, wanted, flow, mass, lag_s):  # type: ignore[no-untyped-def]
    """First-order step response from (flow, mass), g/min and g, after ``tau`` s."""
    decay = np.exp(-tau / lag_s) if lag_s > 0 else np.where(np.asarray(tau) > 0, 0.0, 1.0)
    lag_g = (flow - wanted) * lag_s * (1.0 - decay)
    return wanted + (flow - wanted) * decay, mass + (wanted * tau + lag_g) / 60.0


def priming_lead_s(powder: Powder) -> float:
    """How long before the first bead the feeder starts."""
    return powder.transport_delay_s + SETTLED_LAGS * powder.lag_s


def priming_dwell_s(first_on_s: float, powder: Powder) -> float:
    """Standing time at the job's start so that the first bead finds powder."""
    return max(0.0, GAS_LEAD_S + priming_lead_s(powder) - first_on_s)


def plan_timeline(
    beads: np.ndarray, gates: Gates, hopper: int, cell: Cell, duration_s: float
) -> np.ndarray:
    """TIMELINE_ROW commands, sorted by time, none before 0.

    Parameters
    ----------
    beads : (k,) BEAD_ROW; gates : edges on the final plan time (after the priming dwell)
    hopper : 0 or 1, the one that holds the recipe's material

    Raises PlanError if a command would fall before the job starts.
    """
    if beads.dtype != BEAD_ROW or len(beads) == 0:
        raise PlanError("no beads: nothing to feed powder for")
    rows: list[tuple[float, int, float]] = []
    powder = cell.powder
    channel = PowderChannel.HOPPER_1 if hopper == 0 else PowderChannel.HOPPER_2
    settled_s = SETTLED_LAGS * powder.lag_s
    first_on, last_off = float(gates.on_s[0]), float(gates.off_s[-1])
    for number in range(len(powder.hoppers)):
        if number != hopper:
            rows.append((0.0, int(PowderChannel.HOPPER_1) + number, 0.0))
    rows.append((0.0, int(PowderChannel.DIVERTER), 0.0))
    rows.append((0.0, int(PowderChannel.CARRIER), float(beads["carrier_l_min"][0])))
    rows.append((0.0, int(PowderChannel.SHIELD), float(beads["shield_l_min"][0])))
    rows.append((first_on - priming_lead_s(powder), int(channel), float(beads["powder_g_min"][0])))
    rows.append((first_on - DIVERTER_LEAD_S, int(PowderChannel.DIVERTER), 1.0))
    # changes from bead to bead: wanted once the bead before is done, at the latest at gate on
    for key, number, delay_s, settle_s in (
        ("powder_g_min", int(channel), powder.transport_delay_s, settled_s),
        ("carrier_l_min", int(PowderChannel.CARRIER), 0.0, GAS_LEAD_S),
        ("shield_l_min", int(PowderChannel.SHIELD), 0.0, GAS_LEAD_S),
    ):
        values = beads[key]
        for i in np.flatnonzero(values[1:] != values[:-1]) + 1:
            wanted_s = max(float(gates.off_s[i - 1]), float(gates.on_s[i]) - settle_s)
            rows.append((wanted_s - delay_s, number, float(values[i])))
    rows.append((last_off - powder.transport_delay_s, int(channel), 0.0))
    rows.append((min(last_off, duration_s), int(PowderChannel.DIVERTER), 0.0))
    timeline = np.array([(round(t, 6), c, x) for t, c, x in rows], dtype=TIMELINE_ROW)
    timeline = timeline[np.lexsort((timeline["channel"], timeline["t_s"]))]
    if timeline["t_s"][0] < 0.0:
        raise PlanError(
            f"a command of {PowderChannel(int(timeline['channel'][0])).name} would be needed "
            f"{-timeline['t_s'][0]:.3f} s before the job starts"
        )
    return timeline


def nozzle_flow(timeline: np.ndarray, hopper: int, powder: Powder) -> NozzleFlow:
    """Flow that a timeline makes at the end of the transport line."""
    channel = PowderChannel.HOPPER_1 if hopper == 0 else PowderChannel.HOPPER_2
    own = timeline[timeline["channel"] == int(channel)]
    return NozzleFlow.of(own["t_s"], own["value"], powder)

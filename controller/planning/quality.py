"""What the finished segments say: the plan judged by what goes on the wire.

Everything here reads the SEGMENT array back and compares it with the float profile; nothing
is taken from the power curve that made it.
"""

import numpy as np

from controller.config import Laser
from controller.planning.motion_path import MovePath
from controller.planning.power import Gates, wanted_w
from controller.planning.profile import Profile
from firmware_bridge.segments import FLAG_PARAM, POWER_FULL, TICK_S, ticks_of

SAMPLE_S = 1e-3
CHUNK = 1_000_000  # samples at once, so that long builds do not fill the memory


class CommandCurve:
    """The power output that segments make: a straight ramp to each segment's end value."""

    def __init__(self, segments: np.ndarray, rated_power_w: float) -> None:
        moving = segments[(segments["flags"] & FLAG_PARAM) == 0]
        ticks = np.concatenate([[0], np.cumsum(ticks_of(moving))])
        self.t_s = ticks * TICK_S
        self.power_w = np.concatenate([[0], moving["end_power"]]) * (rated_power_w / POWER_FULL)
        area = 0.5 * (self.power_w[1:] + self.power_w[:-1]) * np.diff(self.t_s)
        self.energy_j = np.concatenate([[0.0], np.cumsum(area)])

    def at(self, t_s: np.ndarray) -> np.ndarray:
        """Power output at plan times, W."""
        return np.interp(t_s, self.t_s, self.power_w)

    def energy_until(self, t_s: np.ndarray) -> np.ndarray:
        """Integral of the output from the job's start to plan times, J."""
        t = np.clip(t_s, 0.0, self.t_s[-1])
        i = np.clip(np.searchsorted(self.t_s, t, side="right") - 1, 0, len(self.t_s) - 2)
        return self.energy_j[i] + 0.5 * (self.power_w[i] + self.at(t)) * (t - self.t_s[i])


def bead_energy_j(curve: CommandCurve, gates: Gates, laser: Laser) -> np.ndarray:
    """Energy of each bead at the workpiece, (k,) J: output delayed by the source's latency."""
    late = laser.power_latency_s
    return curve.energy_until(gates.off_s - late) - curve.energy_until(gates.on_s - late)


def max_power_error_w(
    curve: CommandCurve, path: MovePath, profile: Profile, gates: Gates, laser: Laser
) -> float:
    """Greatest |output - law(v)| while light is on, sampled each 1 ms and at both edges, W."""
    count = np.maximum(np.ceil((gates.off_s - gates.on_s) / SAMPLE_S).astype(np.int64), 1)
    worst, first = 0.0, 0
    while first < len(count):
        # as many beads as fit into one chunk; one long bead is a chunk of its own
        fit = int(np.searchsorted(np.cumsum(count[first:]), CHUNK, side="right"))
        last = first + max(fit, 1)
        n = count[first:last] + 1
        bead = np.repeat(np.arange(first, last), n)
        step = np.arange(len(bead)) - np.repeat(np.cumsum(n) - n, n)
        t = np.minimum(gates.on_s[bead] + step * SAMPLE_S, gates.off_s[bead])
        error = curve.at(t - laser.power_latency_s) - wanted_w(path, profile, gates, laser, bead, t)
        worst = max(worst, float(np.abs(error).max()))
        first = last
    return worst


def beam_position_error_mm(path: MovePath, laser: Laser, steps_per_mm: float) -> float:
    """What jitter and resolution leave at the beam along the bead, mm, at the fastest bead:
    speed x (the greater jitter of gate and power, and half a tick), and half a step."""
    speed = float(path.beads["speed_mm_s"].max())
    jitter_s = max(laser.gate_jitter_s, laser.power_jitter_s)
    return speed * (jitter_s + 0.5 * TICK_S) + 0.5 / steps_per_mm


def power_resolution_w(laser: Laser) -> float:
    """Half a count of the source's own input, W: the wire is finer (16 bit)."""
    counts = 2 ** min(laser.resolution_bits, 16) - 1
    return float(0.5 * laser.rated_power_w / counts)

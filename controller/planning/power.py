"""Laser power and gate on the motion profile.

Power at the workpiece while a bead is laid, at path length s and speed v:

    law   = Pmin + (Pset - Pmin) g(v / F)
    share = min(1, (s - s_on) / ramp_in, (s_off - s) / ramp_out)
    P     = clamp(Pmin + (law - Pmin) share, 0, Plaser)

The source answers ``power_latency`` after the wire, so the command is the same curve sent
that much earlier; gate edges are solved on the profile and sent ``gate_latency`` earlier.
With the gate closed the command already goes to the value of the next gate-on: light
follows gate and power, so nothing leaves the source, and jitter of the power finds a flat.
"""

from dataclasses import dataclass

import numpy as np

from controller.config import Laser
from controller.errors import PlanError
from controller.planning.motion_path import MovePath
from controller.planning.profile import Profile

# error allowed between the law and straight pieces in a ramp at changing speed, of full power
RAMP_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Gates:
    """When and where each bead's light is on; (k,) float64 each."""

    s_on_mm: np.ndarray
    s_off_mm: np.ndarray
    on_s: np.ndarray  # light at the workpiece
    off_s: np.ndarray
    on_command_s: np.ndarray  # gate output of the motion controller
    off_command_s: np.ndarray


@dataclass(frozen=True)
class PowerCurve:
    """Wanted power at the workpiece: straight between nodes, every kink is a node."""

    t_s: np.ndarray
    power_w: np.ndarray
    latency_s: float

    def command_w(self, t_s: np.ndarray) -> np.ndarray:
        """What the motion controller's power output is to say at plan times."""
        return np.interp(np.asarray(t_s) + self.latency_s, self.t_s, self.power_w)


def solve_gates(path: MovePath, profile: Profile, laser: Laser) -> Gates:
    """Gate edges from the beads' ends on the profile. Raises PlanError if one is impossible."""
    beads = path.beads
    s_on, s_off = profile.move_s_mm[beads["first_move"]], profile.move_s_mm[beads["end_move"]]
    on, off = profile.time_at(s_on), profile.time_at(s_off)
    gates = Gates(s_on, s_off, on, off, on - laser.gate_latency_s, off - laser.gate_latency_s)
    before = np.concatenate([[0.0], gates.off_command_s[:-1]])
    early = gates.on_command_s <= before
    if early.any():
        bad = int(np.argmax(early))
        raise PlanError(
            f"bead {bad}: gate on at {gates.on_command_s[bad]:.6f} s would come before "
            f"{before[bad]:.6f} s (laser.gate_latency {laser.gate_latency_s:g} s)"
        )
    still = profile.state_at(gates.on_command_s)[1] <= 0.0
    if still.any():
        bad = int(np.argmax(still))
        raise PlanError(
            f"bead {bad}: the gate would open at {gates.on_command_s[bad]:.6f} s with the axes "
            "standing (0 mm/s)"
        )
    return gates


def law_w(
    path: MovePath, gates: Gates, laser: Laser, bead: np.ndarray, s_mm: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """The power law at path lengths and speeds of the given beads, W."""
    rows = path.beads[bead]
    g = (v / rows["speed_mm_s"]) ** rows["power_exponent"]
    full = (rows["power_w"] - rows["floor_w"]) * g
    into = np.maximum(s_mm - gates.s_on_mm[bead], 0.0)
    left = np.maximum(gates.s_off_mm[bead] - s_mm, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share_in = np.where(rows["ramp_in_mm"] > 0, into / rows["ramp_in_mm"], 1.0)
        share_out = np.where(rows["ramp_out_mm"] > 0, left / rows["ramp_out_mm"], 1.0)
    share = np.minimum(np.minimum(share_in, share_out), 1.0)
    return np.clip(rows["floor_w"] + full * share, 0.0, laser.rated_power_w)


def wanted_w(
    path: MovePath, profile: Profile, gates: Gates, laser: Laser, bead: np.ndarray, t_s: np.ndarray
) -> np.ndarray:
    """The law at instants, from the profile itself (not from the curve's nodes), W."""
    s, v, _ = profile.state_at(t_s)
    return law_w(path, gates, laser, bead, s, v)


def _ramp_nodes(path: MovePath, gates: Gates) -> tuple[np.ndarray, np.ndarray]:
    """Path lengths, and their beads, where the ramps' share has a kink."""
    beads = path.beads
    number = np.arange(len(beads))
    a, b = beads["ramp_in_mm"], beads["ramp_out_mm"]
    length = gates.s_off_mm - gates.s_on_mm
    meet = gates.s_on_mm + length * np.divide(a, a + b, out=np.zeros_like(a), where=a + b > 0)
    found = [
        (gates.s_on_mm, length > 0),
        (gates.s_off_mm, length > 0),
        (gates.s_on_mm + a, (a > 0) & (a < length)),
        (gates.s_off_mm - b, (b > 0) & (b < length)),
        (meet, (a > 0) & (b > 0) & (a + b >= length)),
    ]
    s = np.concatenate([values[use] for values, use in found])
    bead = np.concatenate([number[use] for _, use in found])
    return s, bead


def plan_power(path: MovePath, profile: Profile, gates: Gates, laser: Laser) -> PowerCurve:
    """Nodes of the wanted power over the whole job.

    In a bead: every kink of speed and ramp; where speed changes inside a ramp the law bends
    (P'' = 3 v a (Pset - Pmin) / (F L)), so nodes are added until straight pieces err by less
    than RAMP_TOLERANCE. Outside: straight to the next bead's first value, 0 at both ends.
    Raises PlanError if a bead would be below the source's threshold or above its rating.
    """
    beads = path.beads
    over = beads["power_w"] > laser.rated_power_w
    if over.any():
        bad = int(np.argmax(over))
        raise PlanError(
            f"bead {bad}: power {beads['power_w'][bad]:g} W above laser.rated_power "
            f"{laser.rated_power_w:g} W"
        )
    s_node, bead_node = _ramp_nodes(path, gates)
    t_node = profile.time_at(s_node)
    # kinks of the profile inside beads
    inside = np.searchsorted(gates.on_s, profile.t_s, side="right") - 1
    kink = (inside >= 0) & (profile.t_s < gates.off_s[np.maximum(inside, 0)])
    kink[0] = kink[-1] = False
    kink[1:-1] &= profile.a_mm_s2[1:] != profile.a_mm_s2[:-1]
    t = np.concatenate([t_node, profile.t_s[kink]])
    bead = np.concatenate([bead_node, inside[kink]])
    s = np.concatenate([s_node, profile.s_mm[kink]])
    order = np.lexsort((t, bead))
    t, bead, s = t[order], bead[order], s[order]
    # bent stretches
    same = bead[1:] == bead[:-1]
    dt = np.diff(t)
    s_mid, v_mid, a_mid = profile.state_at(t[:-1] + 0.5 * dt)
    row = beads[bead[:-1]]
    v_most = v_mid + 0.5 * np.abs(a_mid) * dt
    slope = np.zeros(len(dt))  # share per mm
    for key, near in (
        ("ramp_in_mm", s_mid - gates.s_on_mm[bead[:-1]]),
        ("ramp_out_mm", gates.s_off_mm[bead[:-1]] - s_mid),
    ):
        length = row[key]
        slope += np.where(near < length, 1.0 / np.maximum(length, 1e-9), 0.0)
    bend = 3.0 * v_most * np.abs(a_mid) * (row["power_w"] - row["floor_w"])
    bend *= slope / row["speed_mm_s"]
    allowed = RAMP_TOLERANCE * laser.rated_power_w
    parts = np.where(same, np.ceil(dt * np.sqrt(bend / (8.0 * allowed))), 1.0)
    parts = np.clip(parts, 1, 10_000).astype(np.int64)
    more = np.repeat(np.arange(len(dt)), parts - 1)
    step = np.arange(len(more)) - np.repeat(np.cumsum(parts - 1) - (parts - 1), parts - 1) + 1
    t_more = t[more] + dt[more] * step / parts[more]
    power = law_w(path, gates, laser, bead, s, profile.state_at(t)[1])
    power_more = wanted_w(path, profile, gates, laser, bead[more], t_more)
    t_all, power_all = np.concatenate([t, t_more]), np.concatenate([power, power_more])
    bead_all = np.concatenate([bead, bead[more]])
    low = power_all < laser.threshold_power_w * (1.0 - 1e-9)
    if low.any():
        bad = int(np.argmax(low))
        raise PlanError(
            f"bead {int(bead_all[bad])}: power {power_all[bad]:.1f} W at {t_all[bad]:.4f} s below "
            f"laser.threshold_power {laser.threshold_power_w:g} W: the beam would go out"
        )
    order = np.lexsort((t_all, bead_all))
    start_s = profile.t_s[int(np.argmax(profile.move >= 0))]  # the floor holds only in motion
    return PowerCurve(
        t_s=np.concatenate([[start_s], t_all[order], [profile.duration_s]]),
        power_w=np.concatenate([[0.0], power_all[order], [0.0]]),
        latency_s=laser.power_latency_s,
    )

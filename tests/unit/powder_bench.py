"""A powder line of its own, and powder per mm of bead, to judge timelines by.

Shares nothing with the planner's model: Euler steps of 1 ms through a delay and a lag.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from controller.planning.light.power import solve_gates
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.motion_path import build_path
from controller.planning.powder import plan_powder, priming_dwell_s

DT_S = 1e-3
WINDOW_MM = 1.0


def command_at(timeline, channel, t_s):
    """What a timeline commands on a channel at sorted instants."""
    rows = [(t, v) for t, c, v in timeline.tolist() if c == channel]
    command = np.zeros(len(t_s))
    for at, value in rows:
        command[np.searchsorted(t_s, at) :] = value
    return command


def simulate(timeline, channel, duration_s, delay_s=3.2, lag_s=0.6, dt=DT_S):
    """Instants and flow at the nozzle, g/min: delay, then first-order lag."""
    t = np.arange(0.0, duration_s, dt)
    command = command_at(timeline, channel, t)
    late = np.concatenate([np.zeros(round(delay_s / dt)), command])[: len(t)]
    if lag_s <= 0.0:
        return t, late
    flow, out = 0.0, []
    share = dt / lag_s
    for value in late.tolist():
        out.append(flow)
        flow += (value - flow) * share
    return t, np.array(out)


@dataclass
class Case:
    """A build planned so far as powder needs it."""

    path: object
    profile: object
    gates: object
    recipe: object
    cell: object
    fed: object

    @classmethod
    def of(cls, tracks, recipe, cell):
        path = build_path(tracks, recipe, cell)
        profile = plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(cell))
        gates = solve_gates(path, profile, cell.laser)
        flow = float(path.beads["powder_g_min"][0])
        profile = profile.after_dwell(priming_dwell_s(float(gates.on_s[0]), cell.powder, flow))
        gates = solve_gates(path, profile, cell.laser)
        fed = plan_powder(path, profile, gates, recipe, cell, profile.duration_s)
        return cls(path, profile, gates, recipe, cell, fed)

    def windows(self):
        """(start mm, end mm, bead) of stretches of 1 mm of emission, the last of a bead longer."""
        rows = []
        for b, (on, off) in enumerate(
            zip(self.gates.s_on_mm.tolist(), self.gates.s_off_mm.tolist(), strict=True)
        ):
            edges = np.linspace(on, off, max(1, int((off - on) / WINDOW_MM)) + 1)
            rows += [(a, e, b) for a, e in pairwise(edges)]
        return np.array(rows)

    def shares(self, bead, s_mm):
        """Shares wanted at a path length, straight from the recipe's points; (hoppers,)."""
        held = [h.powder for h in self.cell.powder.hoppers]
        made = self.recipe.composition
        if made is None:
            return np.array([float(name == self.recipe.material) for name in held])
        if made.along == "z":
            at = self.path.points_mm[self.path.beads["first_move"][bead], 2]
            at -= self.cell.substrate.top_mm
        else:
            length = self.gates.s_off_mm - self.gates.s_on_mm
            at = length[:bead].sum() + s_mm - self.gates.s_on_mm[bead]
        places = [p.at_mm for p in made.points]
        return np.array([np.interp(at, places, [p.share.get(n, 0.0) for p in made.points])
                         for n in held])  # fmt: skip

    def wanted_g_mm(self, windows):
        """(n, hoppers): each bead's flow over its nominal speed, split by the recipe's shares."""
        bead = windows[:, 2].astype(int)
        beads = self.path.beads
        rate = beads["powder_g_min"][bead] / 60.0 / beads["speed_mm_s"][bead]
        middle = 0.5 * (windows[:, 0] + windows[:, 1])
        shares = np.array([self.shares(b, s) for b, s in zip(bead, middle, strict=True)])
        return rate[:, None] * shares

    def laid_g_mm(self, timeline, windows, delay_share=1.0, lag_share=1.0):
        """(n, hoppers): what a true line brings to each window with that timeline."""
        on = self.profile.time_at(windows[:, 0])
        off = self.profile.time_at(windows[:, 1])
        laid = []
        powder = self.cell.powder
        for n, hopper in enumerate(powder.hoppers):
            delay = hopper.transport_delay_s if hopper.transport_delay_s is not None else (
                powder.transport_delay_s)  # fmt: skip
            lag = powder.lag_s if hopper.lag_s is None else hopper.lag_s
            t, flow = simulate(timeline, n, self.profile.duration_s + 1.0,
                               delay * delay_share, lag * lag_share)  # fmt: skip
            mass = np.concatenate([[0.0], np.cumsum(flow)]) * DT_S / 60.0
            t = np.append(t, t[-1] + DT_S)
            laid.append(np.interp(off, t, mass) - np.interp(on, t, mass))
        return np.stack(laid, axis=1) / (windows[:, 1] - windows[:, 0])[:, None]

    def uncompensated(self):
        """The rival's timeline: every flow commanded at the instant at which it is wanted."""
        rows = []
        last = [0.0] * len(self.cell.powder.hoppers)
        along_path = self.recipe.composition is not None and self.recipe.composition.along == "path"
        for b, (on, off) in enumerate(
            zip(self.gates.on_s.tolist(), self.gates.off_s.tolist(), strict=True)
        ):
            times = np.arange(on, off, 0.1) if along_path else [on]
            for t in times:
                s = self.profile.state_at(np.array([t]))[0][0]
                for n, share in enumerate(self.shares(b, s)):
                    value = float(self.path.beads["powder_g_min"][b] * share)
                    if value != last[n]:
                        rows.append((t, n, value))
                        last[n] = value
        rows += [(float(self.gates.off_s[-1]), n, 0.0) for n in range(len(last))]
        return np.array(rows, dtype=self.fed.timeline.dtype)

    def error(self, timeline, delay_share=1.0, lag_share=1.0, skip_s=0.0):
        """(rms, worst) of g/mm over windows of 1 mm, in shares of the mean wanted g/mm.

        rms over windows weighed by length, of all hoppers' errors together; ``skip_s`` leaves
        out windows that begin so soon after the first light.
        """
        windows = self.windows()
        off = self.laid_g_mm(timeline, windows, delay_share, lag_share) - self.wanted_g_mm(windows)
        mean = self.wanted_g_mm(windows).sum(axis=1).mean()
        use = self.profile.time_at(windows[:, 0]) >= self.gates.on_s[0] + skip_s
        length = (windows[:, 1] - windows[:, 0])[use]
        off = np.sqrt((off[use] ** 2).sum(axis=1)) / mean
        return float(np.sqrt((off**2 * length).sum() / length.sum())), float(off.max())

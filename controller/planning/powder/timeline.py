"""Wanted powder flow over the build, and the timeline that makes it.

Wanted at the nozzle: each bead's flow while its light is on (constant, or following the speed
where the recipe says so), split over the hoppers by the composition. In the gaps between beads
nothing is wanted, so that is where flow changes. The delay of a real line is known to some
percent only, so a change is also no sharper than that: a straight change over w, its middle in
the middle of the gap, errs least (rms, at the worst delay within +-s) for

    no gap      w = sqrt(12) s
    gap 2 h     w = 4 (s - h)         for h of s / 3 to s

and costs nothing for h > s. For the same reason the first flow is there s early and the last
stays s longer.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from controller.config import Cell
from controller.errors import PlanError
from controller.model import TIMELINE_ROW, PowderChannel, TrackKind
from controller.planning.light.power import Gates
from controller.planning.motion.profile import Profile
from controller.planning.path.motion_path import MovePath
from controller.planning.powder.composition import Mixture, feedable
from controller.planning.powder.line import (
    GRID_S,
    STEP_SHARE,
    Line,
    NozzleFlow,
    invert,
    lines_of,
    ramp_s,
    thinned,
)
from controller.recipes import Recipe

DELAY_SPREAD = 0.10  # share by which a line's true delay may differ from the measured one
SETTLE_LAGS = 1.0  # the first flow stands so long before it counts: the lag is not exact either
GAS_LEAD_S = 1.0  # carrier and shield gas before powder
DIVERTER_LEAD_S = 0.5  # powder turned to the nozzle before the first bead
LEAST_PAUSE_S = 2.0  # a gap longer than stopping and starting by this: the feeder rests
MOST_MASS_ERROR = 0.05  # of a bead's powder, before it is told
MOST_SHARE_ERROR = 0.01  # of a mixture
WIDTHS_OF_SPREAD = ([0.0, 1.0 / 3.0, 1.0], [12.0**0.5, 8.0 / 3.0, 0.0])  # h / s, w / s


@dataclass(frozen=True)
class Wanted:
    """Flow wanted at the nozzle: straight between nodes of one bead."""

    t_s: np.ndarray  # (n,) float64, two or more nodes a bead
    flow_g_min: np.ndarray  # (n, hoppers) float64
    bead: np.ndarray  # (n,) int64
    warnings: tuple[str, ...]

    def bead_g(self, n_beads: int) -> np.ndarray:
        """Powder of each bead, g."""
        total = self.flow_g_min.sum(axis=1)
        same = self.bead[1:] == self.bead[:-1]
        piece = 0.5 * (total[1:] + total[:-1]) * np.diff(self.t_s) / 60.0
        return np.bincount(self.bead[1:][same], piece[same], minlength=n_beads)


@dataclass(frozen=True)
class PowderPlan:
    """The process timeline and what it makes."""

    timeline: np.ndarray  # TIMELINE_ROW
    mixture: Mixture
    wanted: Wanted
    flows: tuple[NozzleFlow, ...]  # by hopper
    fed_g: tuple[float, ...]  # out of each hopper: to the nozzle, past it and to waste
    laid_g: np.ndarray  # (beads, hoppers): through the nozzle with the light on
    warnings: tuple[str, ...]


def priming_lead_s(line: Line, flow_g_min: float) -> float:
    """How long before the first bead a feeder starts."""
    spread_s = DELAY_SPREAD * line.transport_delay_s
    settle_s = SETTLE_LAGS * line.lag_s
    return line.transport_delay_s + spread_s + settle_s + ramp_s(line, 0.0, flow_g_min)


def wanted_flow(
    path: MovePath, profile: Profile, gates: Gates, recipe: Recipe, cell: Cell, mixture: Mixture
) -> Wanted:
    """What every bead wants. Raises PlanError for a flow that the feeder cannot give."""
    beads = path.beads
    total = beads["powder_g_min"].astype(np.float64)
    _check_flows(beads, cell)
    follows = _follows_speed(beads, recipe)
    low_mm, high_mm = _heights_mm(path, cell) if mixture.along == "z" else (None, None)
    sampled = follows.copy()
    if mixture.along == "path":
        sampled[:] = True
    elif low_mm is not None and high_mm is not None:
        sampled |= high_mm - low_mm > 1e-6
    place = np.zeros(len(beads)) if low_mm is None else low_mm
    plain = np.flatnonzero(~sampled)
    t = [np.stack([gates.on_s[plain], gates.off_s[plain]], axis=1).ravel()]
    bead = [np.repeat(plain, 2)]
    asked = [np.repeat(total[plain], 2)]
    shares = [np.repeat(mixture.shares_at(place[plain]), 2, axis=0)]
    before_mm = np.concatenate([[0.0], np.cumsum(gates.s_off_mm - gates.s_on_mm)[:-1]])
    for b in np.flatnonzero(sampled).tolist():
        own_t = _sample_times(profile, gates, mixture, b, before_mm[b])
        s = profile.state_at(own_t)[0]
        flow = np.full(len(own_t), total[b])
        if follows[b]:
            flow *= _slow_speed(profile, gates, b, own_t, cell) / beads["speed_mm_s"][b]
            flow = np.minimum(flow, cell.powder.greatest_flow_g_min)
            # the disc does not go below its least flow for a corner
            flow = np.maximum(flow, min(cell.powder.least_flow_g_min, total[b]))
        if mixture.along == "path":
            at_mm = before_mm[b] + s - gates.s_on_mm[b]
        elif mixture.along == "z":
            at_mm = profile.curve.tip_at(s)[:, 2] - cell.substrate.top_mm
        else:
            at_mm = np.zeros(len(s))
        t.append(own_t)
        bead.append(np.full(len(own_t), b))
        asked.append(flow)
        shares.append(mixture.shares_at(at_mm))
    t_all, bead_all = np.concatenate(t), np.concatenate(bead)
    order = np.lexsort((t_all, bead_all))
    flows, off = feedable(
        np.concatenate(asked)[order], np.concatenate(shares)[order], cell.powder.least_flow_g_min
    )
    notes = []
    if off.max(initial=0.0) > MOST_SHARE_ERROR:
        number = len(np.unique(bead_all[order][off > MOST_SHARE_ERROR]))
        notes.append(
            f"composition: {number} of {len(beads)} beads want a flow below powder.least_flow "
            f"{cell.powder.least_flow_g_min:g} g/min of one hopper; it is rounded to 0 or that, "
            f"shares differ by up to {off.max():.3f}"
        )
    return Wanted(t_all[order], flows, bead_all[order], tuple(notes))


def _check_flows(beads: np.ndarray, cell: Cell) -> None:
    least, greatest = cell.powder.least_flow_g_min, cell.powder.greatest_flow_g_min
    flow = beads["powder_g_min"]
    for bad, limit, word, key in (
        (flow > greatest, greatest, "above", "greatest_flow"),
        ((flow > 0.0) & (flow < least), least, "below", "least_flow"),
    ):
        if bad.any():
            b = int(np.argmax(bad))
            raise PlanError(
                f"bead {b} ({TrackKind(int(beads['kind'][b])).name.lower()}): powder "
                f"{flow[b]:g} g/min {word} {limit:g} g/min (powder.{key} of cell {cell.name!r})"
            )


def _follows_speed(beads: np.ndarray, recipe: Recipe) -> np.ndarray:
    """(k,) bool: beads whose powder keeps to the speed."""
    found = np.zeros(len(beads), dtype=bool)
    for kind in TrackKind:
        for first in (True, False):
            if recipe.settings_for(kind, 0 if first else 1).powder_law == "speed":
                found |= (beads["kind"] == int(kind)) & ((beads["layer"] == 0) == first)
    return found


def _heights_mm(path: MovePath, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest height of each bead above the substrate."""
    z = np.append(path.points_mm[:, 2], 0.0) - cell.substrate.top_mm
    ends = np.stack([path.beads["first_move"], path.beads["end_move"] + 1], axis=1).ravel()
    return np.minimum.reduceat(z, ends)[::2], np.maximum.reduceat(z, ends)[::2]


def _sample_times(
    profile: Profile, gates: Gates, mixture: Mixture, b: int, before_mm: float
) -> np.ndarray:
    """Instants of a bead at which its flow is looked at: the grid, and where shares bend."""
    on, off = float(gates.on_s[b]), float(gates.off_s[b])
    t = np.linspace(on, off, max(1, int(np.ceil((off - on) / GRID_S))) + 1)
    if mixture.along == "path":
        s = gates.s_on_mm[b] + mixture.kinks_mm() - before_mm
        s = s[(s > gates.s_on_mm[b]) & (s < gates.s_off_mm[b])]
        t = np.unique(np.concatenate([t, profile.time_at(s)])) if len(s) else t
    return t


def _slow_speed(profile: Profile, gates: Gates, b: int, t_s: np.ndarray, cell: Cell) -> np.ndarray:
    """Speed of a bead, averaged over what the feeder and the unknown part of its delay blur."""
    powder = cell.powder
    half_s = 0.5 * max(GRID_S, powder.lag_s, 2.0 * DELAY_SPREAD * powder.transport_delay_s)
    start = np.maximum(t_s - half_s, gates.on_s[b])
    end = np.minimum(t_s + half_s, gates.off_s[b])
    s = profile.state_at(np.concatenate([start, end]))[0]
    way = s[len(t_s) :] - s[: len(t_s)]
    return way / np.maximum(end - start, 1e-9)


def plan_powder(
    path: MovePath,
    profile: Profile,
    gates: Gates,
    recipe: Recipe,
    cell: Cell,
    duration_s: float,
) -> PowderPlan:
    """The whole process timeline. ``profile`` and ``gates``: after the priming dwell.

    Raises PlanError if a command would fall before the job starts, or for a flow, a powder or
    a mass that the cell does not have.
    """
    if len(path.beads) == 0:
        raise PlanError("no beads: nothing to feed powder for")
    mixture = Mixture.of(recipe, cell)
    wanted = wanted_flow(path, profile, gates, recipe, cell, mixture)
    lines = lines_of(cell.powder)
    cuts = _pauses(gates, lines, wanted)
    rows: list[tuple[float, int, float]] = []
    flows, fed = [], []
    for line in lines:
        t, u = line_commands(line, wanted, gates, cuts, duration_s)
        rows.extend((a, int(line.channel), v) for a, v in zip(t.tolist(), u.tolist(), strict=True))
        if len(t) == 0 or t[0] > 0.0:
            rows.append((0.0, int(line.channel), 0.0))
        flows.append(NozzleFlow.of(t, u, line))
        fed.append(float((u * np.diff(np.append(t, duration_s))).sum() / 60.0))
    rows += _gas_rows(path.beads, gates)
    rows += _diverter_rows(gates, cuts, duration_s)
    timeline = np.array([(round(t, 6), c, x) for t, c, x in rows], dtype=TIMELINE_ROW)
    timeline = timeline[np.lexsort((timeline["channel"], timeline["t_s"]))]
    if timeline["t_s"][0] < 0.0:
        raise PlanError(
            f"a command of {PowderChannel(int(timeline['channel'][0])).name} would be needed "
            f"{-timeline['t_s'][0]:.3f} s before the job starts"
        )
    for line, need in zip(lines, fed, strict=True):
        held = cell.powder.hoppers[line.hopper]
        if need > held.mass_g:
            raise PlanError(
                f"powder {need:.1f} g needed, above {held.mass_g:g} g of {held.powder} in hopper "
                f"{line.hopper + 1} (powder.hoppers mass of cell {cell.name!r})"
            )
    edges = np.concatenate([gates.on_s, gates.off_s])
    k = len(gates.on_s)
    mass = np.stack([f.at(edges)[1] for f in flows], axis=1)
    laid = mass[k:] - mass[:k]
    notes = [*wanted.warnings, *_mass_notes(laid.sum(axis=1), wanted), *_carrier_notes(path, cell)]
    return PowderPlan(timeline, mixture, wanted, tuple(flows), tuple(fed), laid, tuple(notes))


def _pauses(gates: Gates, lines: tuple[Line, ...], wanted: Wanted) -> list[int]:
    """Beads before which the feeder rests, 0 included and the number of beads at the end."""
    most = wanted.flow_g_min.max(axis=0)
    pause_s = LEAST_PAUSE_S + max(
        priming_lead_s(line, float(flow)) + DELAY_SPREAD * line.transport_delay_s
        for line, flow in zip(lines, most, strict=True)
    )
    gap = gates.on_s[1:] - gates.off_s[:-1]
    return [0, *(int(i) + 1 for i in np.flatnonzero(gap > pause_s)), len(gates.on_s)]


def line_commands(
    line: Line, wanted: Wanted, gates: Gates, cuts: list[int], duration_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """One hopper's commands: instants s (already early) and g/min."""
    flow = wanted.flow_g_min[:, line.hopper]
    if not flow.any():
        return np.zeros(0), np.zeros(0)
    spread_s = DELAY_SPREAD * line.transport_delay_s
    settle_s = SETTLE_LAGS * line.lag_s
    nodes_t, nodes_r = [], []
    for first, end in pairwise(cuts):
        a, b = np.searchsorted(wanted.bead, [first, end])
        t, r = _with_ramps(line, wanted.t_s[a:b], flow[a:b], wanted.bead[a:b])
        stand_s = t[0] - spread_s - settle_s
        # the feeder's own last words fit into the plan: light ends before the nozzle lifts
        stop_s = min(t[-1] + spread_s, duration_s + line.transport_delay_s)
        nodes_t.append(np.concatenate(
            [[stand_s - ramp_s(line, 0.0, float(r[0])), stand_s], t, [stop_s, stop_s]]
        ))  # fmt: skip
        nodes_r.append(np.concatenate([[0.0, r[0]], r, [r[-1], 0.0]]))
    t, r = np.concatenate(nodes_t), np.concatenate(nodes_r)
    keep = np.ones(len(r), dtype=bool)
    keep[1:-1] = (r[1:-1] != r[:-2]) | (r[1:-1] != r[2:])
    t, r = t[keep], r[keep]
    kept = thinned(t, r, 0.5 * STEP_SHARE * float(r.max()))
    return invert(line, t[kept], r[kept])


def _with_ramps(
    line: Line, t_s: np.ndarray, flow: np.ndarray, bead: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes with every step between beads made a straight change around its gap's middle."""
    after = np.flatnonzero((bead[1:] != bead[:-1]) & (flow[1:] != flow[:-1])) + 1
    if len(after) == 0:
        return t_s, flow
    start, end = t_s[after - 1], t_s[after]
    middle, half_gap = 0.5 * (start + end), 0.5 * (end - start)
    spread_s = DELAY_SPREAD * line.transport_delay_s
    if spread_s > 0.0:
        width = spread_s * np.interp(half_gap / spread_s, *WIDTHS_OF_SPREAD)
    else:
        width = np.zeros(len(after))
    able = np.array([ramp_s(line, float(flow[i - 1]), float(flow[i])) for i in after])
    free = 2.0 * np.maximum(half_gap - spread_s, 0.0)
    # what the gap gives for nothing may be used up; else as sharp as feeder and spread ask
    width = np.maximum.reduce([width, np.minimum(able, np.maximum(free, 0.5 * able)), free * 0.5])
    room_before = np.diff(middle, prepend=2.0 * t_s[0] - middle[0]) * 0.5
    room_after = np.diff(middle, append=2.0 * t_s[-1] - middle[-1]) * 0.5
    half = np.minimum(np.minimum(0.5 * width, room_before), room_after)
    a, b = middle - half, middle + half
    r_a, r_b = np.interp(a, t_s, flow), np.interp(b, t_s, flow)
    # inside of its own gap a change starts from the bead before and ends at the one after
    r_a = np.where(a > start, flow[after - 1], r_a)
    r_b = np.where(b < end, flow[after], r_b)
    which = np.searchsorted(a, t_s, side="right") - 1
    outside = (which < 0) | (t_s >= b[np.maximum(which, 0)])
    t = np.concatenate([t_s[outside], a, b])
    r = np.concatenate([flow[outside], r_a, r_b])
    # at one instant: the end of a bead, then a change's start; its end, then a bead's start
    rank = np.concatenate([np.full(outside.sum(), 1), np.full(len(a), 2), np.full(len(b), 0)])
    order = np.lexsort((rank, t))
    return t[order], r[order]


def _gas_rows(beads: np.ndarray, gates: Gates) -> list[tuple[float, int, float]]:
    """Set values of the gases: from the start, and in the gap before a bead that differs."""
    rows = []
    for key, channel in (
        ("carrier_l_min", PowderChannel.CARRIER),
        ("shield_l_min", PowderChannel.SHIELD),
    ):
        values = beads[key]
        rows.append((0.0, int(channel), float(values[0])))
        for i in np.flatnonzero(values[1:] != values[:-1]) + 1:
            wanted_s = max(float(gates.off_s[i - 1]), float(gates.on_s[i]) - GAS_LEAD_S)
            rows.append((wanted_s, int(channel), float(values[i])))
    return rows


def _diverter_rows(
    gates: Gates, cuts: list[int], duration_s: float
) -> list[tuple[float, int, float]]:
    """Powder to the nozzle while the feeder works for it, else to waste."""
    rows = [(0.0, int(PowderChannel.DIVERTER), 0.0)]
    for first, end in pairwise(cuts):
        on, off = float(gates.on_s[first]), float(gates.off_s[end - 1])
        rows.append((on - DIVERTER_LEAD_S, int(PowderChannel.DIVERTER), 1.0))
        rows.append((min(off, duration_s), int(PowderChannel.DIVERTER), 0.0))
    return rows


def _mass_notes(laid_g: np.ndarray, wanted: Wanted) -> list[str]:
    """Beads that get another mass than they want: shorter than a change of flow takes."""
    asked = wanted.bead_g(len(laid_g))
    share = np.abs(laid_g - asked) / np.maximum(asked, 1e-12)
    share[asked <= 0.0] = 0.0
    bad = share > MOST_MASS_ERROR
    if not bad.any():
        return []
    worst = int(np.argmax(share))
    return [
        f"{int(bad.sum())} of {len(laid_g)} beads get more than {100 * MOST_MASS_ERROR:g} % more "
        f"or less powder than wanted (bead {worst}: {laid_g[worst]:.3f} of {asked[worst]:.3f} g): "
        "flow changes there faster than the feeder's lag allows"
    ]


def _carrier_notes(path: MovePath, cell: Cell) -> list[str]:
    """A change of carrier gas changes the transport delay, by how much only a measurement says."""
    values = np.unique(path.beads["carrier_l_min"])
    if len(values) < 2:
        return []
    delay_s = cell.powder.transport_delay_s
    longer = 100.0 * (values[-1] / values[0] - 1.0) if values[0] > 0.0 else float("inf")
    return [
        f"carrier_gas changes between {values[0]:g} and {values[-1]:g} L/min: "
        f"powder.transport_delay {delay_s:g} s is planned for all of it, but the "
        f"hose's part of it goes with the inverse of the gas flow (up to {longer:.0f} % longer)"
    ]

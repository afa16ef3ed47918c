"""A job's plan as straight and circular blocks: what every dialect writes in its own words.

The job holds the beads and the executed segments. Run-ups, travel and lifts are built again
from the beads with the embedded recipe and cell, and the result is held against the job: a
path that is not the one that was planned is refused.

Blocks end at the path's corners, where the gate is commanded (latency already taken off, as in
the plan), where a powder or gas command is due, and, where a dialect can step power, along the
ramps. Power is that of the recipe's law at the nominal speed.
"""

from dataclasses import dataclass, field

import numpy as np

from controller.config import Cell, parse_model
from controller.errors import PlanError
from controller.model import BuildPlan, PowderChannel, Track, TrackKind
from controller.planning.light.gate import Gates, solve_gates
from controller.planning.light.power import law_w
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits, Profile
from controller.planning.path.arc_text import bead_moves
from controller.planning.path.arcs import Arcs
from controller.planning.path.motion_path import MovePath, Role, build_path
from controller.recipes import Recipe, parse_recipe
from firmware_bridge.segments import TICK_S, ticks_of

SNAP_MM = 2e-4  # a cut so near to a corner is at the corner
SNAP_S = 1e-3  # and one within a servo cycle's way, which a control could not place better
SAME_S = 2e-6  # instants of the rebuilt plan may differ by a tick and rounding
RAMP_STEPS = 8  # that a ramp is stepped in at the most
LEAST_STEP_MM, LEAST_STEP_S = 0.05, 0.005  # a shorter block would slow a control down
CHORD_MM = 5e-4  # greatest way off an arc that has to be written as chords


@dataclass(frozen=True)
class Source:
    """A job, read for export."""

    plan: BuildPlan
    cell: Cell
    recipe: Recipe
    path: MovePath
    profile: Profile
    gates: Gates


@dataclass(frozen=True, slots=True)
class Arc:
    """A block that is part of a circle."""

    centre_mm: np.ndarray  # (3,)
    middle_mm: np.ndarray  # (3,) on the arc, half way
    normal: np.ndarray  # (3,) unit; turning is counter-clockwise seen against it


@dataclass(frozen=True, slots=True)
class Command:
    """Something for powder or gas, due when the block begins."""

    channel: PowderChannel
    value: float


@dataclass(frozen=True, slots=True)
class Block:
    """A move, or standing still, with what is commanded at its start."""

    role: Role
    end_mm: np.ndarray  # (3,) plan coordinates
    arc: Arc | None
    speed_mm_s: float
    gate: bool
    power_w: float  # commanded while the gate is open, and ahead of it from the run-up on
    dwell_s: float  # above 0: no move
    segment: int
    track: int
    layer: int
    commands: tuple[Command, ...] = field(default=())


def source_of(plan: BuildPlan, dialect: str) -> Source:
    """Rebuild a job's path. Raises PlanError when it cannot be, or is not the planned one."""
    cell = parse_model(Cell, plan.cell_toml, "the job's cell.toml")
    recipe = parse_recipe(plan.recipe_toml, "the job's recipe.toml")
    if plan.segments["steps"][:, 3:].any():
        rotary = ", ".join(a.name for a in cell.motion.rotary)
        raise PlanError(
            f"dialect {dialect!r} carries X, Y and Z only; this job also moves the rotary axes "
            f"{rotary} of cell {cell.name!r}"
        )
    mode = str(plan.meta.get("time_law", cell.motion.time_law))
    try:
        path = build_path(_tracks(plan), recipe, cell, mode)
        limits = MotionLimits.of_cell(cell)
        profile = plan_profile(path.points_mm, path.speed_mm_s, limits, mode, path.through_mm)
        profile = profile.after_dwell(float(plan.meta.get("priming_dwell_s", 0.0)))
        gates = solve_gates(path, profile, cell.laser)
    except (PlanError, ValueError) as exc:
        raise PlanError(f"the job's path cannot be made again: {exc}") from None
    _check_same(plan, path, gates)
    over = path.beads["power_w"] > cell.laser.rated_power_w
    if over.any():
        bad = int(np.argmax(over))
        raise PlanError(
            f"track {bad}: {path.beads['power_w'][bad]:g} W, above {cell.laser.rated_power_w:g} W "
            f"(laser.rated_power of cell {cell.name!r})"
        )
    return Source(plan, cell, recipe, path, profile, gates)


def _tracks(plan: BuildPlan) -> list[Track]:
    return [
        Track(int(row["layer"]), TrackKind(int(row["kind"])), points, through)
        for row, (points, through) in zip(plan.tracks, bead_moves(plan), strict=True)
    ]


def _check_same(plan: BuildPlan, path: MovePath, gates: Gates) -> None:
    """The rebuilt beads and gate commands against the job's."""
    same = len(path.beads) == len(plan.tracks)
    bad = 0
    if same:
        off = np.abs(gates.on_command_s - plan.tracks["start_s"]) > SAME_S
        off |= np.abs(gates.off_command_s - plan.tracks["end_s"]) > SAME_S
        for key, own in (("power_set_w", "power_w"), ("speed_mm_s", "speed_mm_s")):
            off |= plan.tracks[key] != path.beads[own]
        same, bad = not off.any(), int(np.argmax(off))
    if not same:
        made = plan.meta.get("version", "unknown")
        raise PlanError(
            f"the job's path cannot be made again: track {bad} comes out otherwise than it was "
            f"planned (by version {made}); plan the part again"
        )


def _ramp_cuts(source: Source) -> np.ndarray:
    """Path lengths, in terms of the command, where power steps along ramps."""
    beads, gates = source.path.beads, source.gates
    cuts: list[np.ndarray] = []
    for b in range(len(beads)):
        speed = float(beads["speed_mm_s"][b])
        s_on, s_off = float(gates.s_on_mm[b]), float(gates.s_off_mm[b])
        ramp_in, ramp_out = float(beads["ramp_in_mm"][b]), float(beads["ramp_out_mm"][b])
        shrink = min(1.0, (s_off - s_on) / max(ramp_in + ramp_out, 1e-12))
        least = max(LEAST_STEP_MM, LEAST_STEP_S * speed)
        own = []
        for start, length in ((s_on, ramp_in * shrink), (s_off - ramp_out * shrink,
                                                         ramp_out * shrink)):  # fmt: skip
            steps = max(1, min(RAMP_STEPS, int(length / least + 1e-9)))
            if length > 0.0:
                own.append(start + length * np.arange(steps + 1) / steps)
        if own:
            cuts.append(np.concatenate(own) - speed * source.cell.laser.power_latency_s)
    return np.concatenate(cuts) if cuts else np.zeros(0)


def _cuts(source: Source, gate_s: np.ndarray, due_s: np.ndarray, ramp_s: np.ndarray) -> np.ndarray:
    """Sorted path lengths where blocks begin and end.

    Corners stay. A gate edge, a powder command or a step of a ramp that is nearer to one that
    is there already than a control resolves goes with it: no blocks too short to be executed.
    """
    corner, speed = source.profile.move_s_mm, source.path.speed_mm_s
    kept = corner
    for more, least_mm, least_s in (
        (gate_s, SNAP_MM, SNAP_S),
        (due_s, SNAP_MM, SNAP_S),
        (ramp_s, 0.5 * LEAST_STEP_MM, 0.5 * LEAST_STEP_S),
    ):
        more = np.unique(more[(more > corner[0]) & (more < corner[-1])])
        own = np.clip(np.searchsorted(corner, more, side="right") - 1, 0, len(speed) - 1)
        least = np.maximum(least_mm, least_s * speed[own])
        at = np.searchsorted(kept, more)
        near = np.minimum(more - kept[at - 1], kept[np.minimum(at, len(kept) - 1)] - more)
        more, least = more[near > least], least[near > least]
        if len(more):
            more = more[np.append(True, np.diff(more) > least[1:])]
        kept = np.sort(np.concatenate([kept, more]))
    return kept


def _snapped(cuts: np.ndarray, s_mm: np.ndarray) -> np.ndarray:
    """Index of the nearest cut."""
    at = np.clip(np.searchsorted(cuts, s_mm), 1, len(cuts) - 1)
    return np.where(s_mm - cuts[at - 1] <= cuts[at] - s_mm, at - 1, at)


def blocks_of(source: Source, *, ramps: bool, powder: bool) -> list[Block]:
    """The whole plan; ``ramps``: power is stepped along them, ``powder``: with its commands."""
    path, profile, gates, plan = source.path, source.profile, source.gates, source.plan
    beads = path.beads
    on_s = profile.state_at(gates.on_command_s)[0]
    off_s = profile.state_at(gates.off_command_s)[0]
    gate_s = np.concatenate([on_s, off_s])
    dwell_s = float(plan.meta.get("priming_dwell_s", 0.0))
    line = plan.timeline if powder else plan.timeline[:0]
    moving = line[line["t_s"] > dwell_s]
    due_s = profile.state_at(moving["t_s"])[0]
    cuts = _cuts(source, gate_s, due_s, _ramp_cuts(source) if ramps else np.zeros(0))

    middle = 0.5 * (cuts[1:] + cuts[:-1])
    move = np.searchsorted(profile.move_s_mm, middle, side="right") - 1
    bead = np.minimum(np.searchsorted(beads["end_move"], move, side="left"), len(beads) - 1)
    first, last = _snapped(cuts, on_s), _snapped(cuts, off_s)
    edges = np.zeros(len(cuts), dtype=np.int64)
    np.add.at(edges, first, 1)
    np.add.at(edges, last, -1)
    gate = np.cumsum(edges)[:-1] > 0
    power = _powers(source, middle, bead, first, gate, ramps)
    points, arcs = _places(source, cuts, move)
    segment = _segments_at(plan, profile.time_at(cuts[:-1]))
    by_block: dict[int, list[Command]] = {}
    for at, row in zip(_snapped(cuts, due_s), moving, strict=True):
        by_block.setdefault(int(at), []).append(_command(row))
    blocks = _dwells(source, line[line["t_s"] <= dwell_s], dwell_s, points[0])
    for i in range(len(middle)):
        m, b = int(move[i]), int(bead[i])
        blocks.append(
            Block(
                role=Role(int(path.role[m])),
                end_mm=points[i + 1],
                arc=arcs.get(i),
                speed_mm_s=float(path.speed_mm_s[m]),
                gate=bool(gate[i]),
                power_w=float(power[i]),
                dwell_s=0.0,
                segment=int(segment[i]),
                track=b,
                layer=int(beads["layer"][b]),
                commands=tuple(by_block.get(i, ())),
            )
        )
    late = by_block.get(len(middle))
    if late:  # due when everything stands: after the last move
        blocks.append(_still(source, points[-1], 0.0, len(plan.segments), len(beads) - 1, late))
    return blocks


def _command(row: np.void) -> Command:
    return Command(PowderChannel(int(row["channel"])), float(row["value"]))


def _still(
    source: Source, at_mm: np.ndarray, dwell_s: float, segment: int, track: int,
    commands: list[Command],
) -> Block:  # fmt: skip
    layer = int(source.path.beads["layer"][max(track, 0)])
    return Block(Role.TRAVEL, at_mm, None, 0.0, False, 0.0, dwell_s, segment, track, layer,
                 tuple(commands))  # fmt: skip


def _dwells(source: Source, line: np.ndarray, dwell_s: float, at_mm: np.ndarray) -> list[Block]:
    """Standing still at the start while powder is primed, cut where commands are due."""
    times = np.unique(np.append(line["t_s"], 0.0))
    ends = np.append(times[1:], max(dwell_s, float(times[-1])))
    segment = _segments_at(source.plan, times)
    blocks = []
    for k, (a, b) in enumerate(zip(times, ends, strict=True)):
        due = [_command(row) for row in line[line["t_s"] == a]]
        if due or b > a:
            blocks.append(_still(source, at_mm, float(b - a), int(segment[k]), -1, due))
    return blocks


def _segments_at(plan: BuildPlan, t_s: np.ndarray) -> np.ndarray:
    """Index of the segment under way at plan times."""
    ticks = ticks_of(plan.segments)
    begin = np.cumsum(ticks) - ticks
    tick = np.rint(np.asarray(t_s) / TICK_S).astype(np.int64)
    return np.maximum(np.searchsorted(begin, tick, side="right") - 1, 0)


def _powers(
    source: Source, middle: np.ndarray, bead: np.ndarray, first: np.ndarray, gate: np.ndarray,
    ramps: bool,
) -> np.ndarray:  # fmt: skip
    """Commanded power of each block: the law at nominal speed, ``power_latency`` ahead."""
    path, laser = source.path, source.cell.laser
    speed = path.beads["speed_mm_s"][bead]
    if ramps:
        at = np.where(gate, middle, middle[first[bead]]) + speed * laser.power_latency_s
        return np.asarray(law_w(path, source.gates, laser, bead, at, speed))
    whole = np.minimum(path.beads["power_w"], path.beads["energy_cap_j_mm"]
                       * path.beads["speed_mm_s"])  # fmt: skip
    return np.asarray(np.minimum(whole, laser.rated_power_w)[bead])


def _places(
    source: Source, cuts: np.ndarray, move: np.ndarray
) -> tuple[np.ndarray, dict[int, Arc]]:
    """Where blocks begin and end, (n + 1, 3), and the arcs among them."""
    path, corner_s = source.path, source.profile.move_s_mm
    own = np.append(move, move[-1])
    length = np.maximum(corner_s[own + 1] - corner_s[own], 1e-300)
    share = np.clip((cuts - corner_s[own]) / length, 0.0, 1.0)[:, None]
    a, b = path.points_mm[own], path.points_mm[own + 1]
    points = np.where(share >= 1.0, b, a + share * (b - a))
    found: dict[int, Arc] = {}
    if path.through_mm is None:
        return points, found
    arcs = Arcs.of(path.points_mm, path.through_mm)
    normal = arcs.normal
    row_of = {int(m): k for k, m in enumerate(arcs.move)}
    for i in range(len(move)):
        k = row_of.get(int(move[i]))
        if k is None:
            continue
        m = int(move[i])
        lo, hi = (float((c - corner_s[m]) / (corner_s[m + 1] - corner_s[m]))
                  for c in (cuts[i], cuts[i + 1]))  # fmt: skip
        angle = np.array([max(lo, 0.0), 0.5 * (lo + hi)]) * float(arcs.angle[k])
        place = arcs.place(np.array([k, k]), angle)
        if lo > 1e-12:
            points[i] = place[0]
        found[i] = Arc(arcs.centre_mm[k], place[1], normal[k])
    return points, found

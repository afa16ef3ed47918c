"""Profile, gates and power to the wire's segments, exact to the step and to the tick.

Positions at segment ends are round(position x steps/mm), instants are rounded to ticks of
1 us; both are rounded from the running value, so neither drifts. Segments end at every kink
of motion, power and gate, and after 20 ms at the latest (100 ms standing still).
"""

from dataclasses import dataclass

import numpy as np

from controller import _emit
from controller.config import Cell
from controller.errors import PlanError
from controller.planning.motion_path import MovePath, Role
from controller.planning.power import Gates, PowerCurve
from controller.planning.profile import Profile
from controller.recipes import Recipe
from firmware_bridge.segments import (
    FLAG_DWELL,
    FLAG_END,
    FLAG_GATE,
    FLAG_PARAM,
    FLAG_TRACK_START,
    MAX_STEPS,
    MAX_TICKS,
    POWER_FULL,
    RATIO_ONE,
    SEGMENT,
)

LONGEST_SEGMENT_S = 0.020
LONGEST_DWELL_S = 0.100


@dataclass(frozen=True)
class SegmentSet:
    """The wire's array and where the beads are in it."""

    segments: np.ndarray  # (n,) SEGMENT
    first_segment: np.ndarray  # (k,) int64: first one of each bead with the gate open
    end_segment: np.ndarray  # (k,) int64: one past the last one with the gate open
    on_tick: np.ndarray  # (k,) int64: commanded gate edges, us of plan time
    off_tick: np.ndarray
    duration_ticks: int


def _longest_s(profile: Profile, steps_per_mm: np.ndarray) -> float:
    """20 ms, or less where an axis would make more steps than a segment holds."""
    rate = float(profile.v_mm_s.max()) * float(steps_per_mm.max())
    return min(LONGEST_SEGMENT_S, 0.9 * MAX_STEPS / max(rate, 1e-9))


def make_segments(
    path: MovePath, profile: Profile, gates: Gates, power: PowerCurve, recipe: Recipe, cell: Cell
) -> SegmentSet:
    """Cut the profile and write SEGMENT rows; PARAM rows where the power floor changes.

    Raises PlanError when a value does not fit its field or a bead is shorter than a tick.
    """
    axes = cell.motion.axes[:3]
    steps_per_mm = np.array([a.steps_per_mm for a in axes])
    origin_mm = np.array([a.range_mm[0] for a in axes])
    node_s = power.t_s - power.latency_s
    node_s = node_s[(node_s > 0.0) & (node_s < profile.duration_s)]
    extra = np.concatenate([node_s, gates.on_command_s, gates.off_command_s])
    hard = np.zeros(len(extra), dtype=np.uint8)
    hard[len(node_s) :] = 1
    order = np.argsort(extra, kind="stable")
    try:
        cut = _emit.merge_cuts(
            profile.t_s, profile.hard_kinks().astype(np.uint8), extra[order], hard[order]
        )
        t, s, v = _emit.subdivide(
            cut, profile.t_s, profile.s_mm, profile.v_mm_s, profile.a_mm_s2,
            _longest_s(profile, steps_per_mm), LONGEST_DWELL_S,
        )  # fmt: skip
        steps, move = _emit.place(path.points_mm, profile.move_s_mm, s, steps_per_mm, origin_mm)
        tick = np.rint(t * 1e6).astype(np.int64)
        on_tick = np.rint(gates.on_command_s * 1e6).astype(np.int64)
        off_tick = np.rint(gates.off_command_s * 1e6).astype(np.int64)
        if (off_tick <= on_tick).any():
            bad = int(np.argmax(off_tick <= on_tick))
            raise PlanError(f"bead {bad}: shorter than one tick of 1 us")
        first = np.searchsorted(tick, on_tick)
        end = np.searchsorted(tick, off_tick)
        flags = np.zeros(len(t) - 1, dtype=np.uint8)
        edges = np.zeros(len(t), dtype=np.int64)
        edges[first] += 1
        edges[end] -= 1
        flags[np.cumsum(edges)[:-1] > 0] |= FLAG_GATE
        flags[first] |= FLAG_TRACK_START
        at = np.searchsorted(profile.t_s, 0.5 * (t[1:] + t[:-1]), side="right") - 1
        flags[profile.move[np.clip(at, 0, len(profile.move) - 1)] < 0] |= FLAG_DWELL
        flags[-1] |= FLAG_END
        share = power.command_w(t) / cell.laser.rated_power_w
        power_u16 = np.rint(np.clip(share, 0.0, 1.0) * POWER_FULL).astype(np.uint16)
        out = np.zeros(len(flags), dtype=SEGMENT)
        _emit.pack_segments(
            t, s, v, steps, power_u16, path.speed_mm_s[move[1:]], flags,
            out.view(np.uint8).reshape(-1, SEGMENT.itemsize), MAX_STEPS, MAX_TICKS,
        )  # fmt: skip
    except ValueError as exc:
        raise PlanError(f"segments cannot be made: {exc}") from None
    where, param = _param_rows(path, end, recipe, cell)
    segments = np.insert(out, where, param)
    return SegmentSet(
        segments=segments,
        first_segment=first + np.searchsorted(where, first, side="right"),
        end_segment=end + np.searchsorted(where, end - 1, side="right"),
        on_tick=on_tick,
        off_tick=off_tick,
        duration_ticks=int(tick[-1] - tick[0]),
    )


def _param_rows(
    path: MovePath, end: np.ndarray, recipe: Recipe, cell: Cell
) -> tuple[np.ndarray, np.ndarray]:
    """PARAM records and the segments they go before: at the start, and after the gate has
    closed on the last bead of the old floor."""
    floor = path.beads["floor_w"]
    changed = np.flatnonzero(floor[1:] != floor[:-1]) + 1
    bead = np.concatenate([[0], changed])
    where = np.concatenate([[0], end[changed - 1]]).astype(np.int64)
    rows = np.zeros(len(bead), dtype=SEGMENT)
    share = np.clip(floor[bead] / cell.laser.rated_power_w, 0.0, 1.0)
    rows["start_ratio"] = RATIO_ONE
    rows["end_power"] = np.rint(share * POWER_FULL)
    rows["end_speed"] = round(min(max(recipe.window.override[0], 0.0), 1.9999) * RATIO_ONE)
    rows["flags"] = FLAG_PARAM
    return where, rows


def role_lengths_mm(path: MovePath, profile: Profile) -> tuple[float, float]:
    """Length with the gate open, and all the rest."""
    length = np.diff(profile.move_s_mm)
    emission = float(length[path.role == Role.EMIT].sum())
    return emission, float(length.sum()) - emission

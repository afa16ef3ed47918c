"""Profile, gates and power to the wire's segments, exact to the step and to the tick.

Positions at segment ends are round(position x steps/mm), instants are rounded to ticks of
1 us; both are rounded from the running value, so neither drifts. Segments end at every kink
of motion, power and gate, and after 20 ms at the latest (100 ms standing still), sooner where
a path or a speed ramp is bent. The work is done window by window (stream.py), so a plan made
at once and one that is streamed have the same bytes.
"""

from dataclasses import dataclass

import numpy as np

from controller.config import Cell
from controller.errors import PlanError
from controller.planning.light.law_table import exponents_of, param_words, write_words
from controller.planning.light.power import Gates, PowerCurve
from controller.planning.motion.profile import Profile
from controller.planning.path.kinematics import home_axes
from controller.planning.path.motion_path import MovePath
from controller.planning.stream import (
    WINDOW_PHASES,
    Scale,
    SegmentStream,
    Window,
    joined_rows,
    split,
)
from controller.recipes import Recipe
from firmware_bridge.segments import FLAG_PARAM, POWER_FULL, RATIO_ONE, SEGMENT


@dataclass(frozen=True)
class SegmentSet:
    """The wire's array and where the beads are in it."""

    segments: np.ndarray  # (n,) SEGMENT
    first_segment: np.ndarray  # (k,) int64: first one of each bead with the gate open
    end_segment: np.ndarray  # (k,) int64: one past the last one with the gate open
    on_tick: np.ndarray  # (k,) int64: commanded gate edges, us of plan time
    off_tick: np.ndarray
    duration_ticks: int


def scale_of(cell: Cell, *, rotary: bool) -> Scale:
    """Steps of the cell's axes: X, Y, Z in mm, then the rotary ones in degrees if they move.

    Position 0 of the firmware is where homing leaves each axis, here in plan coordinates.
    """
    axes = cell.motion.machine_axes if rotary else cell.motion.machine_axes[:3]
    return Scale(
        steps_per_unit=np.array([a.steps_per_unit for a in axes]),
        origin=home_axes(cell)[: len(axes)],
    )


def window_of(
    path: MovePath, profile: Profile, gates: Gates, power: PowerCurve, recipe: Recipe, cell: Cell
) -> Window:
    """The whole plan as one window."""
    on, off = gates.on_command_s, gates.off_command_s
    edge = np.concatenate([on, off])
    kind = np.zeros(len(edge), dtype=np.uint8)
    kind[: len(on)] = 1
    # at one instant the gate that shuts comes before the one that opens
    order = np.lexsort((kind, edge))
    param_s, param_rows = _param_rows(path, profile, off, recipe, cell)
    return Window(
        curve=profile.curve,
        t_s=profile.t_s,
        s_mm=profile.s_mm,
        v_mm_s=profile.v_mm_s,
        a_mm_s2=profile.a_mm_s2,
        j_mm_s3=profile.j_mm_s3,
        move=profile.move,
        longest_s=profile.longest_s,
        nominal_mm_s=path.speed_mm_s[profile.move],
        node_s=power.t_s - power.latency_s,
        node_share=power.power_w / cell.laser.rated_power_w,
        edge_s=edge[order],
        edge_on=kind[order],
        param_s=param_s,
        param_rows=param_rows,
        known_s=profile.duration_s,
    )


def make_segments(
    path: MovePath, profile: Profile, gates: Gates, power: PowerCurve, recipe: Recipe, cell: Cell
) -> SegmentSet:
    """Cut the profile and write SEGMENT rows; PARAM rows where the power floor changes.

    Raises PlanError when a value does not fit its field or a bead is shorter than a tick.
    """
    on_tick = np.rint(gates.on_command_s * 1e6).astype(np.int64)
    off_tick = np.rint(gates.off_command_s * 1e6).astype(np.int64)
    if (off_tick <= on_tick).any():
        bad = int(np.argmax(off_tick <= on_tick))
        raise PlanError(f"bead {bad}: shorter than one tick of 1 us")
    stream = SegmentStream(scale_of(cell, rotary=path.joints is not None))
    whole = window_of(path, profile, gates, power, recipe, cell)
    ends = range(WINDOW_PHASES, len(profile.a_mm_s2), WINDOW_PHASES)
    made = [stream.push(window) for window in split(whole, ends)]
    made.append(stream.finish())
    return SegmentSet(
        segments=joined_rows([m.segments for m in made]),
        first_segment=np.concatenate([m.first_segment for m in made]),
        end_segment=np.concatenate([m.end_segment for m in made]),
        on_tick=on_tick,
        off_tick=off_tick,
        duration_ticks=stream.last_tick - stream.first_tick,
    )


def _param_rows(
    path: MovePath, profile: Profile, off_s: np.ndarray, recipe: Recipe, cell: Cell
) -> tuple[np.ndarray, np.ndarray]:
    """PARAM records and the instants that they go before: the start, and where the gate closes
    on the last bead of the old floor, law or cap."""
    floor = path.beads["floor_w"]
    exponents = exponents_of(path.beads)
    law, cap = param_words(path.beads, exponents, cell.laser.rated_power_w)
    same = (floor[1:] == floor[:-1]) & (law[1:] == law[:-1]) & (cap[1:] == cap[:-1])
    changed = np.flatnonzero(~same) + 1
    bead = np.concatenate([[0], changed])
    when = np.concatenate([profile.t_s[:1], off_s[changed - 1]])
    rows = np.zeros(len(bead), dtype=SEGMENT)
    share = np.clip(floor[bead] / cell.laser.rated_power_w, 0.0, 1.0)
    rows["start_ratio"] = RATIO_ONE
    rows["end_power"] = np.rint(share * POWER_FULL)
    rows["end_speed"] = round(min(max(recipe.window.override[0], 0.0), 1.9999) * RATIO_ONE)
    rows["flags"] = FLAG_PARAM
    write_words(rows, law[bead], cap[bead])
    return when, rows

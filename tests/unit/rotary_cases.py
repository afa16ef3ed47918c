"""Tracks with tool axes for tests, and a way from axes to the part written apart: matrices."""

from itertools import pairwise

import numpy as np

from controller.config import load_cell
from controller.model import Track, TrackKind
from controller.planning import plan_build
from tests.unit import planning_cases as cases

AC, AC_TEXT = load_cell("sim_ac")
TURNTABLE, TURNTABLE_TEXT = load_cell("sim_turntable")


def wall(n=72, radius=20.0, tilt_deg=30.0, z=80.55, layer=0, centre=(150.0, 150.0), turns=1.0):
    """A round wall that leans outwards: the tool axis leans with it."""
    th = np.linspace(0, 2 * np.pi * turns, n + 1)
    t = np.radians(tilt_deg)
    points = np.column_stack(
        [centre[0] + radius * np.cos(th), centre[1] + radius * np.sin(th), np.full(n + 1, z)]
    )
    tool = np.column_stack(
        [np.sin(t) * np.cos(th), np.sin(t) * np.sin(th), np.full(n + 1, np.cos(t))]
    )
    return Track(layer, TrackKind.CONTOUR, points, tool_axis=tool)


def arch(n=40, off_deg=0.0, length=40.0, tilt_deg=40.0, y=150.0, z=80.55):
    """A straight bead along X whose tool axis swings past the pole, ``off_deg`` beside it."""
    x = np.linspace(-1, 1, n + 1)
    a, b = np.radians(tilt_deg) * x, np.radians(off_deg)
    points = np.column_stack([150 + length / 2 * x, np.full(n + 1, y), np.full(n + 1, z)])
    tool = np.column_stack(
        [np.sin(a) * np.cos(b), np.full(n + 1, np.sin(b)), np.cos(a) * np.cos(b)]
    )
    return Track(0, TrackKind.HATCH, points, tool_axis=tool)


def ring(layer=0, n=200, radius=20.0, centre=(150.0, 150.0), top=10.0):
    """A ring with the tool upright: the turntable turns."""
    return wall(n, radius, 0.0, top + 0.55 * (layer + 1), layer, centre)


def bent(seed, n=12, cell_centre=(150.0, 150.0), z=82.0):
    """A random bead with a random walk of the tool axis, through and near the pole."""
    rng = np.random.default_rng(seed)
    heading = rng.normal(0, 0.5, n).cumsum()
    step = rng.uniform(0.3, 4.0, n)
    way = np.column_stack([np.cos(heading), np.sin(heading), rng.normal(0, 0.05, n)])
    points = np.concatenate([[[0, 0, 0]], (way * step[:, None]).cumsum(0)])
    points += [*cell_centre, z] - points.mean(0)
    lean = np.radians(rng.normal(0, 4.0, (n + 1, 2)).cumsum(0))
    lean -= lean.mean(0) * rng.choice([0.0, 1.0])
    tool = np.column_stack([lean, np.ones(n + 1)])
    return Track(0, TrackKind.HATCH, points, tool_axis=tool / np.linalg.norm(tool, axis=1)[:, None])


def _matrix(name, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return {
        "A": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "B": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "C": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[name]


def part_frame(cell, axes):
    """Tip (n, 3) and tool axis (n, 3) by 4 x 4 matrices, one row after the other."""
    tips, tools = [], []
    for row in np.asarray(axes, dtype=float):
        table = np.eye(4)
        for axis, angle in zip(cell.motion.rotary, row[3:], strict=True):
            there, turned, back = np.eye(4), np.eye(4), np.eye(4)
            there[:3, 3], back[:3, 3] = axis.centre_mm, -np.array(axis.centre_mm)
            turned[:3, :3] = _matrix(axis.name, angle)
            table = table @ there @ turned @ back
        machine = row[:3] + np.array(cell.motion.tool_offset_mm)
        inverse = np.linalg.inv(table)
        tips.append((inverse @ [*machine, 1.0])[:3] - np.array(cell.motion.work_offset_mm))
        tools.append(inverse[:3, :3] @ [0.0, 0.0, 1.0])
    return np.array(tips), np.array(tools)


def off_line_mm(places, line):
    """Distance of places (n, 3) from a polyline (k, 3)."""
    best = np.full(len(places), np.inf)
    for a, b in pairwise(line):
        d = b - a
        f = np.clip((places - a) @ d / (d @ d), 0.0, 1.0)
        best = np.minimum(best, np.linalg.norm(places - a - f[:, None] * d, axis=1))
    return best


def plan(tracks, cell, text, **more):
    """A whole plan of tracks on a cell."""
    layers = [cases.layer_slice(i) for i in range(max(t.layer for t in tracks) + 1)]
    texts = {**cases.TEXTS, "cell": text}
    return plan_build(
        tracks, layers, cases.part(), cases.RECIPE, cell, cases.MATERIAL, texts, **more
    )


def decoded_axes(built, cell, t_us):
    """Machine positions (n, K) at instants, from the segments' bytes."""
    rows = cases.Decoded(built.segments.tobytes())
    steps = [a.steps_per_mm for a in cell.motion.axes]
    steps += [r.steps_per_deg for r in cell.motion.rotary]
    home = [a.range_mm[0] for a in cell.motion.axes] + [0.0] * len(cell.motion.rotary)
    at = np.array([rows.at(t)[0][: len(steps)] for t in t_us])
    return at / steps + home

"""Plans to export, and what a program must do, taken from the job alone."""

import base64
import itertools
import math
from dataclasses import dataclass

import numpy as np

from controller.config import Cell, parse_model
from controller.export import program_of
from controller.model import Track, TrackKind
from controller.planning import plan_build
from controller.recipes import parse_recipe
from firmware_bridge.segments import FLAG_GATE, FLAG_PARAM
from tests.unit import planning_cases as cases
from tests.unit.gcode_reader import FanucReader, GrblReader, LinuxCncReader, SiemensReader
from tests.unit.robot_readers import read_krl, read_rapid

READERS = {
    "linuxcnc": lambda lines: LinuxCncReader().read(lines),
    "grblhal": lambda lines: GrblReader().read(lines),
    "siemens840d": lambda lines: SiemensReader().read(lines),
    "fanuc": lambda lines: FanucReader().read(lines),
    "abb": read_rapid,
    "kuka": read_krl,
}
STEPPED = ("linuxcnc", "grblhal", "siemens840d")  # power is stepped along ramps
DECIMAL_MM = {"linuxcnc": 1e-4, "siemens840d": 1e-4}  # else 1e-3
POWER_W = {"fanuc": 0.5, "kuka": 0.006}  # rounding of power, else 0.06


def planned(tracks=None, *, cell=(), recipe=(), **more):
    """A plan whose embedded texts are those that it was planned with."""
    texts = dict(cases.TEXTS)
    for name, changes in (("cell", cell), ("recipe", recipe)):
        for old, new in changes:
            assert old in texts[name]
            texts[name] = texts[name].replace(old, new)
    tracks = cases.small_tracks() if tracks is None else tracks
    layers = [cases.layer_slice(i) for i in range(max(t.layer for t in tracks) + 1)]
    return plan_build(
        tracks, layers, cases.part(), parse_recipe(texts["recipe"], "test"),
        parse_model(Cell, texts["cell"], "test"), cases.MATERIAL, texts, **more,
    )  # fmt: skip


def arc_tracks():
    """A rounded bead in XY with two arcs of either sense, and one arc that climbs."""
    z, r = 10.55, 4.0 * math.sqrt(0.5)
    none = [math.nan] * 3
    flat = np.array([[140.0, 146, z], [146, 146, z], [150, 150, z], [150, 152, z], [154, 156, z],
                     [158, 156, z]])  # fmt: skip
    through = np.array([none, [146 + r, 150 - r, z], none, [154 - r, 152 + r, z], none])
    tilted = np.array([[140.0, 150, z + 1], [143, 150, z + 1], [145, 152, z + 1.5],
                       [145, 154, z + 1.5]])  # fmt: skip
    over = np.array([none, [144.4, 150.7, z + 1.4], none])
    return [Track(0, TrackKind.CONTOUR, flat, through), Track(1, TrackKind.HATCH, tilted, over)]


def random_tracks(seed, n=12):
    """Beads of any direction, from two points to many, in three layers."""
    rng = np.random.default_rng(seed)
    tracks = []
    for layer, _ in itertools.product(range(3), range(n // 3)):
        count = int(rng.integers(2, 9))
        turn = np.cumsum(rng.uniform(-1.0, 1.0, count))
        way = rng.uniform(0.6, 3.0, count)[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
        points = np.cumsum(np.vstack([rng.uniform(143, 157, 2), way]), axis=0)
        tracks.append(cases.track(points, layer, TrackKind(int(rng.integers(3)))))
    return tracks


@dataclass(frozen=True)
class Wanted:
    """A bead as the job has it."""

    points_mm: np.ndarray
    on_mm: np.ndarray  # where the executed segments open and shut the gate
    off_mm: np.ndarray
    row: np.void


def wanted(plan):
    """Beads of a job: points from path_mm, gate places from the segments' own steps."""
    cell = parse_model(Cell, plan.cell_toml, "test")
    steps = plan.segments["steps"][:, :3].astype(np.int64)
    steps[(plan.segments["flags"] & FLAG_PARAM) != 0] = 0
    ends = np.vstack([[0, 0, 0], np.cumsum(steps, axis=0)])
    per_mm = np.array([a.steps_per_mm for a in cell.motion.axes])
    offset = np.array(cell.motion.work_offset_mm) - np.array(cell.motion.tool_offset_mm)
    places = ends / per_mm + [a.range_mm[0] for a in cell.motion.axes] - offset
    found = []
    corner = np.ones(len(plan.path_mm), dtype=bool)  # else a point on an arc
    for a, b, *_ in np.frombuffer(base64.b64decode(plan.meta.get("arcs", ""))).reshape(-1, 5):
        corner[int(a) + 1 : int(b)] = False
    for row in plan.tracks:
        a, n = int(row["first_point"]), int(row["n_points"])
        first, end = int(row["first_segment"]), int(row["end_segment"])
        own = plan.segments["flags"][first:end]
        assert ((own & (FLAG_GATE | FLAG_PARAM)) != 0).all()
        found.append(
            Wanted(plan.path_mm[a : a + n][corner[a : a + n]], places[first], places[end], row)
        )
    return found


def run(plan, dialect, **more):
    """The program, and what a machine would do with it."""
    program = program_of(plan, dialect, **more)
    return program, READERS[dialect](program.lines)


def lit_runs(moves):
    """Unbroken runs of moves with light."""
    return [list(g) for lit, g in itertools.groupby(moves, key=lambda m: m.gate) if lit]

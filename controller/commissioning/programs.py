"""Small jobs that the cell runs while readings are taken: light on the spot, moves of one axis.

They are plans like any other: preflight, interlocks, motion controller and record treat them
so. Powder is never fed. ``purpose`` in the plan's meta data says what they are for.
"""

import math
from collections.abc import Sequence

import numpy as np

from controller import __version__
from controller.config import Cell, load_material
from controller.errors import CommissioningError
from controller.model import LAYER_ROW, TIMELINE_ROW, TRACK_ROW, BuildPlan, PowderChannel
from controller.recipes import load_recipe
from firmware_bridge.segments import (
    FLAG_DWELL,
    FLAG_END,
    FLAG_GATE,
    FLAG_PARAM,
    FLAG_TRACK_START,
    MAX_STEPS,
    POWER_FULL,
    RATIO_ONE,
    SEGMENT,
)

PIECE_S = 0.25  # of a dwell: the queue's segments stay short, so that a hold acts soon
SHIELD_L_MIN = 10.0
CARRIER_L_MIN = 5.0
FLOOR_SHARE = 0.1


class Program:
    """Segments in the making, from where the axes stand."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._rows: list[tuple[list[int], float, float, int, int]] = []
        self._tracks: list[tuple[int, int, float, float]] = []
        self._axes = cell.motion.machine_axes
        self.us = 0
        self._add([0] * 6, 0, 1.0, 0, FLAG_PARAM)

    def _add(self, steps: list[int], us: int, ratio: float, power: int, flags: int) -> None:
        self._rows.append((steps, ratio, power, us, flags))
        self.us += us

    def dwell(self, seconds: float, power_w: float = 0.0, *, light: bool = False) -> None:
        """Stand still; with ``light`` the gate is open at a power (W)."""
        rated = self._cell.laser.rated_power_w
        if not 0.0 <= power_w <= rated:
            raise CommissioningError(f"power {power_w:g} W is not 0 to {rated:g} W")
        if light and seconds > self._cell.laser.longest_emission_s:
            raise CommissioningError(
                f"{seconds:g} s of light are above longest_emission "
                f"{self._cell.laser.longest_emission_s:g} s"
            )
        code = round(power_w / rated * POWER_FULL)
        first, start_us = len(self._rows), self.us
        pieces = max(1, math.ceil(seconds / PIECE_S))
        for n in range(pieces):
            us = round(seconds * 1e6 * (n + 1) / pieces) - (self.us - start_us)
            flags = FLAG_DWELL | (FLAG_GATE if light else 0)
            self._add([0] * 6, us, 1.0, code, flags | (FLAG_TRACK_START * (light and n == 0)))
        if light:
            self._tracks.append((first, start_us, seconds, power_w))

    def move(self, axis: int, distance: float, speed: float) -> None:
        """Move one axis by a distance (mm or degrees), ramped at a quarter of its limit."""
        info = self._axes[axis]
        speed = min(speed, info.speed * 0.9, math.sqrt(abs(distance) * info.accel * 0.25))
        ramp_s = speed / (info.accel * 0.25)
        cruise = abs(distance) - speed * ramp_s
        pieces = max(1, math.ceil(cruise * info.steps_per_unit / (0.9 * MAX_STEPS)))
        way = [(speed * ramp_s / 2, ramp_s, 0.0)]
        way += [(cruise / pieces, cruise / pieces / speed, 1.0)] * pieces
        way.append((speed * ramp_s / 2, ramp_s, 2.0 - 2.0**-14))
        done = reached = 0.0
        for length, seconds, ratio in way:
            reached += math.copysign(length, distance)
            steps = [0] * 6
            steps[axis] = round(reached * info.steps_per_unit) - round(done * info.steps_per_unit)
            done = reached
            self._add(steps, max(1, round(seconds * 1e6)), ratio, 0, 0)

    def plan(self, start_steps: Sequence[int], purpose: str, cell_text: str) -> BuildPlan:
        """The plan of it, for axes that stand at ``start_steps`` (six)."""
        recipe, recipe_text = load_recipe(self._cell.default_recipe)
        _, material_text = load_material(recipe.material)
        rows = self._rows
        segments = np.zeros(len(rows), SEGMENT)
        for k, (steps, ratio, power, us, flags) in enumerate(rows):
            segments[k] = (
                steps, min(65535, round(ratio * RATIO_ONE)), power, RATIO_ONE,
                us & 0xFFFF, us >> 16, flags,
            )  # fmt: skip
        # the first record: power floor and least override
        rated = self._cell.laser.rated_power_w
        segments["end_power"][0] = round(
            min(FLOOR_SHARE, self._cell.laser.threshold_power_w / rated) * POWER_FULL
        )
        segments["end_speed"][0] = RATIO_ONE // 2
        segments["start_ratio"][0] = 0
        segments["flags"][-1] |= FLAG_END
        tracks = np.zeros(len(self._tracks), TRACK_ROW)
        starts = np.cumsum([0, *(r[3] for r in rows)])
        for k, (first, start_us, seconds, power_w) in enumerate(self._tracks):
            end = int(np.searchsorted(starts, start_us + round(seconds * 1e6)))
            tracks[k]["first_segment"], tracks[k]["end_segment"] = first, end
            tracks[k]["start_s"], tracks[k]["end_s"] = start_us * 1e-6, start_us * 1e-6 + seconds
            tracks[k]["power_set_w"], tracks[k]["energy_j"] = power_w, power_w * seconds
        layers = np.zeros(1, LAYER_ROW)
        layers[0]["end_s"], layers[0]["n_tracks"] = self.us * 1e-6, len(tracks)
        most = self._cell.gas.greatest_flow_l_min
        timeline = np.array(
            [
                (0.0, int(PowderChannel.CARRIER), min(CARRIER_L_MIN, most)),
                (0.0, int(PowderChannel.SHIELD), min(SHIELD_L_MIN, most)),
            ],
            TIMELINE_ROW,
        )
        emission_s = sum(t[2] for t in self._tracks)
        figures = {"duration_s": self.us * 1e-6, "emission_s": emission_s, "powder_g": 0.0}
        return BuildPlan(
            segments=segments,
            start_steps=np.array(start_steps, np.int64),
            tracks=tracks,
            layers=layers,
            timeline=timeline,
            path_mm=np.zeros((0, 3)),
            figures=figures,
            cell_toml=cell_text,
            recipe_toml=recipe_text,
            material_toml=material_text,
            part={"name": purpose, "source_name": purpose, "source_sha256": "", "notes": []},
            meta={"version": __version__, "cell": self._cell.name, "purpose": purpose},
        )


def light(cell: Cell, powers_w: Sequence[float], on_s: float, off_s: float) -> Program:
    """Light at each power in turn, for ``on_s`` seconds, with ``off_s`` between."""
    program = Program(cell)
    for power_w in powers_w:
        program.dwell(off_s, power_w)  # the power stands before the gate opens
        program.dwell(on_s, power_w, light=True)
    program.dwell(off_s)
    return program


def back_and_forth(
    cell: Cell, axis: int, places: Sequence[float], here: float, over: float, rest_s: float
) -> tuple[Program, list[tuple[float, int, float]]]:
    """Reach each place from below and from above, and rest there.

    Returns the program and, for each rest, (place, direction, middle of the rest in plan s).
    """
    program, at = Program(cell), here
    rests: list[tuple[float, int, float]] = []
    for place in places:
        for direction in (1, -1):
            before = place - direction * over
            for target in (before, place):
                if abs(target - at) > 1e-9:
                    program.move(axis, target - at, 30.0)
                    at = target
            program.dwell(rest_s)
            rests.append((place, direction, program.us * 1e-6 - rest_s / 2))
    program.move(axis, here - at, 30.0)
    return program, rests

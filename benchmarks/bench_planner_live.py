"""Replanning of a window of 512 moves from the speed that is there, for each time law."""

import functools
from typing import Any

import numpy as np

from benchmarks import paths
from benchmarks.measure import interleaved, row
from controller.config import load_cell
from controller.planning.motion.laws import MODES
from controller.planning.motion.profile import MotionLimits
from controller.planning.motion.replan import replan

AREA = "planner"
GOAL_MS = 1.0
MOVES = 512


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    limits = MotionLimits.of_cell(load_cell("sim")[0])
    points = np.ascontiguousarray(paths.wavy_spiral()[: MOVES + 1])
    speed = np.full(MOVES, 10.0)
    works = {
        law: functools.partial(replan, points, speed, 8.0, limits, law, speed_scale=1.15)
        for law in MODES
    }
    return [
        row(AREA, f"replan of {MOVES} moves from 8 mm/s, {law}", took * 1e3, "ms", GOAL_MS,
            at_most=True)
        for law, took in interleaved(works).items()
    ]  # fmt: skip

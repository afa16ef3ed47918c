"""Planner, laser power: nodes of every power law, and the judge that reads the segments back.

    python -m benchmarks planner_power

Path b (200,000 chords of 0.1 mm at 50 mm/s) as one bead on the simulated cell's laser, with the
time law trapezoid; error: output of the segments against the law at the planned speed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import paths
from benchmarks.measure import interleaved, row
from controller.planning import quality
from controller.planning.light.power import plan_power, solve_gates
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.motion_path import build_path
from controller.planning.segments import make_segments
from tests.unit.planning_cases import CELL, cell_with, recipe_with, track

AREA = "planner"
ERROR_GOAL_PCT = 0.05
FAST = (
    ('speed = ["6 mm/s", "16 mm/s"]', 'speed = ["6 mm/s", "60 mm/s"]'),
    ('speed = "10 mm/s"', 'speed = "50 mm/s"'),
)
LAWS = {
    "linear": 'power_law = "linear"',
    "v^0.6": 'power_law = "power"\npower_exponent = 0.6',
    "linear, capped": 'power_law = "linear"\nenergy_cap = "12.5 J/mm"',
}


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    xy = paths.wavy_spiral()[:, :2]
    tracks = [track(xy - xy.mean(axis=0) + 150.0)]
    slow_source = cell_with(("spot_diameter", 'power_slew = "20000 W/s"\nspot_diameter'))
    rows = []
    for name, law in LAWS.items():
        recipe = recipe_with(*FAST, ('power_law = "linear"', law))
        path = build_path(tracks, recipe, CELL)
        limits = MotionLimits.of_cell(CELL)
        profile = plan_profile(path.points_mm, path.speed_mm_s, limits).after_dwell(3.0)
        gates = solve_gates(path, profile, CELL.laser)
        power = plan_power(path, profile, gates, CELL.laser)
        made = make_segments(path, profile, gates, power, recipe, CELL)
        output = quality.CommandCurve(made.segments, CELL.laser.rated_power_w)
        judged = quality.judge_beads(output, path, profile, gates, CELL.laser)
        works: dict[str, Callable[[], Any]] = {
            "power": partial(plan_power, path, profile, gates, CELL.laser),
            "judge": partial(quality.judge_beads, output, path, profile, gates, CELL.laser),
        }
        took = interleaved(works, rounds=3)
        n = len(made.segments)
        rows += [
            row(
                AREA, f"power error, law {name}, path b", 0.1 * float(judged[0, 0]),
                "% of full power", ERROR_GOAL_PCT, at_most=True,
                note=f"{n} segments, {len(power.t_s)} nodes of power",
            ),
            row(
                AREA, f"power nodes, law {name}, path b", (len(xy) - 1) / took["power"], "moves/s",
                note="kinks, ramps and bends",
            ),
            row(
                AREA, f"power judged, law {name}, path b", n / took["judge"], "segments/s",
                note="each segment's ends and middle, each kink, each millisecond",
            ),
        ]  # fmt: skip
        if name == "linear":
            slewed = plan_power(path, profile, gates, slow_source.laser)
            dt = np.diff(slewed.t_s)
            slope = np.abs(np.diff(slewed.power_w))[dt > 1e-12] / dt[dt > 1e-12]
            rows.append(
                row(
                    AREA, "power slew / limit of 20 kW/s, path b", float(slope.max()) / 20_000.0,
                    "x", 1.0, at_most=True,
                    note=f"costs up to {slewed.slew_error_w:.0f} W, the least that any curve can",
                )
            )  # fmt: skip
    return rows

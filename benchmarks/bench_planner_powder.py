"""Powder per mm of bead, with the transport delay known to +-10 %: planned ahead against not.

    python benchmarks/bench_planner_powder.py

The line is simulated apart from the planner (tests/unit/powder_bench.py): true delay 0.9 and
1.1 times the planned one. Error: mass laid in each window of 1 mm of emission against flow
over speed of the recipe, in shares of the mean; rms over windows weighed by length, the
errors of several hoppers added as squares. Rival: every flow commanded at the instant at
which it is wanted. ``run()`` returns rows as ``bench_planner`` does.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from controller import geometry
from controller.recipes import Recipe
from tests.unit.planning_cases import CELL, RECIPE, recipe_with
from tests.unit.powder_bench import Case

ROOT = Path(__file__).resolve().parent.parent
RIVAL = "uncompensated: command at the instant it is wanted"
GOAL = 0.2  # of the rival's error
DELAYS = (0.9, 1.1)
START_S = 8.0  # left out in the second figure: the rival has no powder there at all

TWO_FLOWS = recipe_with((
    "[track.thin_wall]\n",
    '[track.contour]\npowder = "9 g/min"\n\n[track.thin_wall]\npowder = "4.5 g/min"\n',
))  # fmt: skip


def graded(along: str, first: str, last: str) -> Recipe:
    """The general recipe, from 316L to IN625 between two places."""
    text = (
        f'[composition]\nalong = "{along}"\npoints = ['
        f'{{ at = "{first}", share = {{ "316L" = 1.0 }} }}, '
        f'{{ at = "{last}", share = {{ "IN625" = 1.0 }} }}]\n\n[layers]\n'
    )
    return recipe_with(("[layers]\n", text))


def tracks_of(name: str, recipe: Recipe, layers: int) -> list[Any]:
    """The first layers of an example part."""
    mesh = geometry.load_part(ROOT / "examples" / name)
    mesh = geometry.place_part(mesh, CELL, bead_width_mm=1.6, margin_mm=1.8)
    made = geometry.make_tracks(geometry.slice_part(mesh, recipe, CELL), recipe)
    return [track for track in made if track.layer < layers]


def cases() -> list[tuple[str, Case, tuple[float, ...]]]:
    """Name, build, and which parts of it count from (0: with the start)."""
    return [
        ("blade, one flow", Case.of(tracks_of("blade.stl", RECIPE, 6), RECIPE, CELL), (0.0,)),
        ("blade, contour 9 and hatch 6.3 g/min",
         Case.of(tracks_of("blade.stl", TWO_FLOWS, 6), TWO_FLOWS, CELL), (0.0, START_S)),
        ("rib, contour 9 and hatch 6.3 g/min",
         Case.of(tracks_of("rib.stl", TWO_FLOWS, 8), TWO_FLOWS, CELL), (0.0, START_S)),
        ("blade, two powders graded along the path",
         Case.of(tracks_of("blade.stl", RECIPE, 6), graded("path", "100 mm", "400 mm"), CELL),
         (0.0, START_S)),
        ("rib, two powders graded along z",
         Case.of(tracks_of("rib.stl", RECIPE, 8), graded("z", "0.6 mm", "3 mm"), CELL),
         (0.0, START_S)),
    ]  # fmt: skip


def run() -> list[dict[str, Any]]:
    """Measure; the rival runs through the same line on the same build."""
    rows = []
    for name, case, starts in cases():
        for skip_s in starts:
            ours = [case.error(case.fed.timeline, d, skip_s=skip_s) for d in DELAYS]
            theirs = [case.error(case.uncompensated(), d, skip_s=skip_s) for d in DELAYS]
            exact, _ = case.error(case.fed.timeline, 1.0, skip_s=skip_s)
            ratio = max(a[0] / b[0] for a, b in zip(ours, theirs, strict=True))
            rows.append({
                "area": "planner",
                "figure": f"powder per mm, {name}" + (", start left out" if skip_s else ""),
                "value": 100.0 * max(a[0] for a in ours), "unit": "% rms",
                "goal": 100.0 * GOAL * min(b[0] for b in theirs), "met": ratio <= GOAL,
                "rival": RIVAL, "ratio": ratio,
                "note": f"ratio of errors, at most {GOAL:g}; rival {100 * theirs[0][0]:.1f} and "
                        f"{100 * theirs[1][0]:.1f} %; "
                        f"worst mm {100 * max(a[1] for a in ours):.0f} % "
                        f"(rival {100 * max(b[1] for b in theirs):.0f} %); "
                        f"delay exact: {100 * exact:.2f} %",
            })  # fmt: skip
    return rows


if __name__ == "__main__":
    for row in run():
        print(f"{row['figure']}: {row['value']:.2f} {row['unit']}, ratio {row['ratio']:.3f}")
        print(f"    {row['note']}")

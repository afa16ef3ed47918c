"""Time without a step while the gate is open, against segments sampled apart from the planner."""

import numpy as np
import pytest

from controller.errors import PlanError
from controller.planning.stillness import longest_still
from firmware_bridge.segments import SEGMENT
from tests.unit.planning_cases import Decoded, cell_with, plan, recipe_with, track

SLOW = recipe_with(('speed = "10 mm/s"', 'speed = "1 mm/s"'))


def rows(*made):
    """Segments of (milliseconds, steps of X, flags)."""
    out = np.zeros(len(made), SEGMENT)
    for row, (ms, steps, flags) in zip(out, made, strict=True):
        row["ticks_lo"], row["ticks_hi"] = ms * 1000 & 0xFFFF, ms * 1000 >> 16
        row["steps"][0], row["flags"], row["start_ratio"] = steps, flags, 32768
    return out


@pytest.mark.parametrize(
    ("made", "ms", "segment"),
    [
        # 10 steps in 100 ms: one each 10 ms
        ([(100, 10, 1)], 10.0, 0),
        # 5 ms to the gate's end, 30 ms without a step, 5 ms to the first
        ([(50, 5, 1), (30, 0, 1), (50, -5, 1)], 40.0, 2),
        # with the gate shut, or asked for, standing still is no fault
        ([(50, 5, 1), (90, 0, 0), (50, 5, 1)], 10.0, 0),
        ([(50, 5, 1), (90, 0, 3), (50, 5, 1)], 10.0, 0),
        # opened where nothing moves yet
        ([(20, 0, 0), (25, 0, 1), (10, 2, 1), (33, 0, 1)], 35.5, 3),
        ([(90, 0, 0)], 0.0, -1),
    ],
)
def test_longest_time_without_a_step_by_hand(made, ms, segment):
    still = longest_still(rows(*made))
    assert still.seconds == pytest.approx(ms * 1e-3)
    assert still.segment == segment


@pytest.mark.parametrize("law", ["trapezoid", "friction_circle", "jerk"])
def test_a_plan_s_is_what_sampled_positions_show(law):
    coarse = cell_with(('steps = "400 1/mm"', 'steps = "100 1/mm"'))
    tracks = [track([(140, 145), (144, 145), (144, 148), (140.5, 145.2), (143, 149.03)])]
    made = plan(tracks, recipe=SLOW, cell=coarse, mode=law)
    bound_s = longest_still(made.segments).seconds
    wire = Decoded(made.segments.tobytes())
    ((on_us, off_us),) = wire.gate_edges_us()
    t = np.arange(on_us, off_us, 200.0)
    places = np.rint([wire.at(at)[0][:2] for at in t])
    stepped = np.flatnonzero(np.append(True, (np.diff(places, axis=0) != 0).any(axis=1)))
    seen_s = float(np.diff(np.append(stepped, len(t))).max()) * 200e-6
    assert seen_s - 1e-3 <= bound_s
    assert bound_s <= 1.6 * seen_s + 1e-3
    margins = made.figures["quality"]["margins"]["firmware_still_s"]
    assert margins["value"] == bound_s
    assert margins["limit"] == 0.05


def test_too_slow_for_the_steps_is_refused_and_nearly_so_told_by_name():
    line = [track([(140, 145), (150, 145)])]

    def cell(steps):
        return cell_with(('steps = "400 1/mm"', f'steps = "{steps} 1/mm"'))

    with pytest.raises(PlanError, match=r"bead 0: no axis steps for [56]\d\.\d ms.*STILL.*X steps"):
        plan(line, recipe=SLOW, cell=cell(19))
    made = plan(line, recipe=SLOW, cell=cell(30))
    (note,) = [n for n in made.warnings if "STILL" in n]
    # one step each 33 ms, more where a segment's end is rounded; longer when slowed down
    ms = longest_still(made.segments).seconds * 1e3
    assert 33.0 < ms < 41.0
    assert f"{ms:.1f} ms with the gate open" in note
    assert f"({ms / 0.7:.1f} ms at an override of 0.7)" in note
    assert not any("STILL" in n for n in plan(line, recipe=SLOW, cell=cell(60)).warnings)

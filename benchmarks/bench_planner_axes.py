"""Five axes: speed at the melt pool, path and axis limits through, at and near the pole.

Judged by matrices and by differences of positions that share nothing with the planner
(tests/unit/rotary_cases.py, test_planning_kinematics.py).
"""

from typing import Any

import numpy as np

from benchmarks.measure import interleaved, row
from controller.planning.motion.joint_law import plan_joint_profile
from controller.planning.path.motion_path import build_path
from tests.unit import rotary_cases as rotary
from tests.unit import test_planning_kinematics as judge
from tests.unit.planning_cases import RECIPE

AREA = "planner"
CASES = {
    "wall leaning 30 deg": [rotary.wall(n=300)],
    "through the pole": [rotary.arch()],
    "0.1 deg beside the pole": [rotary.arch(off_deg=0.1)],
    "1 deg beside the pole": [rotary.arch(off_deg=1.0)],
}
RANDOM = 30


def _speed_off_pct(path: Any, profile: Any) -> float:
    """Greatest deviation of the melt pool's speed from the profile's, %; where no axis limits
    it the profile's is the commanded one."""
    t = np.linspace(*profile.time_at(judge.bead_mm(path, 0, 2)), 4001)[5:-5]
    s, v, _ = profile.state_at(t)
    way = 1e-5
    ahead = rotary.part_frame(rotary.AC, path.joints.axes_at(s + way))[0]
    behind = rotary.part_frame(rotary.AC, path.joints.axes_at(s - way))[0]
    rate = np.linalg.norm(ahead - behind, axis=1) / (2 * way)
    commanded = float(path.beads["speed_mm_s"][0])
    free = v > 0.9999 * commanded
    off = np.abs(rate * v / np.where(free, commanded, v) - 1.0)
    return 100.0 * float(off.max())


def _path_um(tracks: list[Any]) -> float:
    """Greatest distance of the melt pool from its track, decoded from the segments' bytes, um."""
    built = rotary.plan(tracks, rotary.AC, rotary.AC_TEXT)
    at, late = built.tracks[0], rotary.AC.laser.gate_latency_s * 1e6
    t = np.linspace(at["start_s"] * 1e6 + late, at["end_s"] * 1e6 + late, 2000)
    tip, _ = rotary.part_frame(rotary.AC, rotary.decoded_axes(built, rotary.AC, t))
    return 1e3 * float(rotary.off_line_mm(tip, tracks[0].points_mm).max())


def run() -> list[dict[str, Any]]:
    """Measure."""
    lines = []
    speed, um, ratio = 0.0, 0.0, 0.0
    for name, tracks in CASES.items():
        path, profile = judge.planned(tracks, rotary.AC)
        off, far = _speed_off_pct(path, profile), _path_um(tracks)
        worst = max(judge.worst_ratios(path, profile, rotary.AC))
        speed, um, ratio = max(speed, off), max(um, far), max(ratio, worst)
        t = profile.time_at(judge.bead_mm(path, 0, 2))
        lowest = float(profile.v_mm_s[(profile.t_s >= t[0]) & (profile.t_s <= t[1])].min())
        lines.append(row(
            AREA, f"5 axes, {name}: lowest speed over commanded",
            lowest / float(path.beads["speed_mm_s"][0]), "1",
            note=f"axes' limits make it; speed off {off:.4f} %, path {far:.2f} um",
        ))  # fmt: skip
    for seed in range(RANDOM):
        track = rotary.bent(seed)
        path, profile = judge.planned([track], rotary.AC)
        speed = max(speed, _speed_off_pct(path, profile))
        ratio = max(ratio, *judge.worst_ratios(path, profile, rotary.AC))
    first = [
        row(AREA, "5 axes, speed at the melt pool off", speed, "%", 0.1, at_most=True,
            note=f"named cases and {RANDOM} random tool axes through and near the pole"),
        row(AREA, "5 axes, melt pool off its path", um, "um", 5.0, at_most=True,
            note="decoded from the wire's bytes, steps and corners included"),
        row(AREA, "5 axes, worst axis over its limit", ratio, "1", 1.001, at_most=True,
            note="speed and acceleration of each axis, X Y Z together; differences"),
    ]  # fmt: skip
    long = [rotary.wall(n=20_000, radius=40.0, turns=15.0, z=90.0)]
    path = build_path(long, RECIPE, rotary.AC)
    works = {
        "path": lambda: build_path(long, RECIPE, rotary.AC),
        "law": lambda: plan_joint_profile(path.joints, path.speed_mm_s, rotary.AC, "trapezoid"),
    }
    took = interleaved(works, rounds=2)
    intervals = len(path.joints.move)
    return [
        *first, *lines,
        row(AREA, "5 axes, time law alone", intervals / took["law"], "intervals/s",
            note=f"{intervals} intervals, 5 axes, profile included"),
        row(AREA, "5 axes, moves to path in the axes", 20_000 / took["path"], "moves/s",
            note=f"{intervals} samples"),
    ]  # fmt: skip


if __name__ == "__main__":
    for line in run():
        print(f"{line['figure']:58} {line['value']:12.5g} {line['unit']:12} {line['met']}"
              f"  {line['note']}")  # fmt: skip

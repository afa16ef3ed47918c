"""A great many small random plans, made by the planner's own parts and judged by wire_truth.

A plan is a path from rest to rest with one to four beads and everything about it random:
corners, lengths from 10 nm to 6 mm, speeds, run-ups that are long enough or not, ramps, floors,
gate offsets. Plans of a batch share the cell (limits, steps, latencies), follow each other with
or without a planned dwell between, and go through time law, gates, power, segments and frames
as one. A batch that the planner refuses is halved until the refused plan stands alone.
"""

from dataclasses import dataclass, field

import numpy as np

from controller.errors import PlanError
from controller.planning.light.power import plan_power, solve_gates
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits, Profile
from controller.planning.path.curve import Polyline
from controller.planning.path.motion_path import BEAD_ROW, MovePath, Role
from controller.planning.segments import make_segments
from controller.planning.stream import frame_segments
from tests.unit.planning_cases import CELL, RECIPE
from tests.unit.wire_truth import DWELL, END, GATE, PARAM, ROW, TRACK, Motion, Wire, unframe

BATCH = 500
STILL_US = 50_000  # docs/protocol.md, 5.2 and 7
FULL = 65535


@dataclass
class Tally:
    """What a campaign did and found."""

    plans: int = 0
    refused: int = 0
    beads: int = 0
    segments: int = 0
    problems: list[str] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)  # examples of refusals
    edge_us: float = 0.0  # worst gate edge against the solved instant
    steps: float = 0.0  # worst position at a segment's end against the exact one
    still_us: float = 0.0  # longest without a step while the gate is open
    slowest_mm_s: float = 1e9  # least planned speed with the gate open


class Joined:
    """Curves of plans one after the other, by the whole's path length."""

    def __init__(self, curves, starts_mm, polyline) -> None:
        self.curves, self.starts = curves, np.asarray(starts_mm)
        self.points_mm = polyline.points_mm
        self.move_s_mm = np.concatenate(
            [[0.0]] + [c.move_s_mm[1:] + s for c, s in zip(self.curves, self.starts, strict=True)]
        )

    def tip_at(self, s_mm):
        return self.axes_at(s_mm)

    def axes_at(self, s_mm):
        which = np.searchsorted(self.starts, s_mm, side="right") - 1
        out = np.empty((len(s_mm), 3))
        cut = np.searchsorted(which, np.arange(len(self.starts) + 1))
        for i, curve in enumerate(self.curves):
            if cut[i] < cut[i + 1]:
                out[cut[i] : cut[i + 1]] = curve.axes_at(s_mm[cut[i] : cut[i + 1]] - self.starts[i])
        return out


@dataclass
class Batch:
    """Random plans: corners of all, one row of ``first`` a plan."""

    points: np.ndarray
    speed: np.ndarray
    beads: np.ndarray
    first: np.ndarray  # (plans + 1,) first move of each plan
    dwell_s: np.ndarray  # (plans,) before each
    cell: object
    limits: MotionLimits
    mode: str

    def part(self, a: int, b: int) -> "Batch":
        """Plans a to b as a batch of their own."""
        low, high = self.first[a], self.first[b]
        own = (self.beads["first_move"] >= low) & (self.beads["first_move"] < high)
        beads = self.beads[own].copy()
        for name in ("run_up_move", "first_move", "end_move"):
            beads[name] -= low
        return Batch(
            self.points[low : high + 1], self.speed[low:high], beads, self.first[a : b + 1] - low,
            self.dwell_s[a:b], self.cell, self.limits, self.mode,
        )  # fmt: skip


def random_cell(rng):
    """The simulated cell with other axes and another source."""
    axes = [
        axis.model_copy(
            update={
                "steps_per_mm": float(rng.choice([80.0, 400.0, 1234.5, 5000.0])),
                "speed_mm_s": float(rng.uniform(30.0, 150.0)),
                "accel_mm_s2": float(rng.uniform(300.0, 4000.0)),
                "range_mm": [float(rng.uniform(-50.0, 0.0)), 300.0],
            }
        )
        for axis in CELL.motion.axes
    ]
    motion = CELL.motion.model_copy(
        update={
            "axes": axes,
            "total_accel_mm_s2": float(rng.uniform(300.0, 4000.0)),
            "junction_deviation_mm": float(10.0 ** rng.uniform(-3, -1)),
        }
    )
    gate = float(rng.choice([0.0, 1e-4, rng.uniform(0.0, 2e-3)]))
    off_gate = float(gate * rng.uniform(0.5, 1.5))
    laser = CELL.laser.model_copy(
        update={
            "power_latency_s": float(rng.choice([0.0, 1e-4, 3e-3, rng.uniform(0.0, 0.01)])),
            "gate_latency_s": gate,
            "gate_off_latency_s": off_gate if rng.random() < 0.5 else None,
            "gate_jitter_s": 2e-5,
        }
    )  # fmt: skip
    return CELL.model_copy(update={"motion": motion, "laser": laser})


def random_batch(rng, plans: int, mode: str) -> Batch:
    """Beads as blocks of (run-up start, corners, overrun end)."""
    cell = random_cell(rng)
    limits = MotionLimits.of_cell(cell)
    laser = cell.laser
    per_plan = rng.integers(1, 5, plans)
    k = int(per_plan.sum())
    moves = rng.integers(1, 8, k)
    speed = rng.uniform(2.0, 70.0, k)
    n = int(moves.sum())
    bead_of = np.repeat(np.arange(k), moves)
    head = np.cumsum(moves) - moves  # first move of each bead among the emitting ones
    # lengths and turns; some moves of no length or of 10 nm, none that reverses
    length = 10.0 ** rng.uniform(-2.3, 0.8, n)
    odd = rng.random(n)
    length[odd < 0.02] = 0.0
    length[(odd > 0.97)] = 1e-5
    wait = laser.gate_latency_s + (laser.gate_off_latency_s or 0.0) + laser.gate_jitter_s
    length[head] = np.maximum(length[head], 1.5 * wait * speed + 0.01)
    turn = rng.normal(0.0, 0.5, n)
    sharp = rng.random(n) < 0.3
    turn[sharp] = rng.uniform(-3.09, 3.09, int(sharp.sum()))  # 177 degrees
    turn[length == 0.0] = 0.0
    turn = np.clip(turn, -3.09, 3.09)
    turn[head] = rng.uniform(-np.pi, np.pi, k)
    heading = np.cumsum(turn)
    heading -= np.repeat(np.concatenate([[0.0], heading])[head], moves)
    rise = np.where(rng.random(k) < 0.2, rng.uniform(-0.5, 0.5, k), 0.0)[bead_of]
    unit = np.stack([np.cos(heading), np.sin(heading), rise], axis=1)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    step = unit * length[:, None]
    # near each other: long travels tell nothing that short ones do not
    start = rng.uniform(100.0, 108.0, (k, 3))
    far = rng.random(k) < 0.02
    start[far] = rng.uniform(20.0, 280.0, (int(far.sum()), 3))
    run = np.cumsum(step, axis=0)
    run -= np.repeat(np.concatenate([np.zeros((1, 3)), run])[head], moves, axis=0)
    corner = np.repeat(start, moves, axis=0) + run
    tail = head + moves - 1
    # run-ups: long enough for full speed, or too short for it but not for the source
    a = limits.accel_mm_s2
    reach = speed**2 / (2 * a) + speed * (wait + 3e-3)
    least = 0.75 * a * (1.3 * wait) ** 2 + 0.02
    ahead = np.where(rng.random(k) < 0.3, least + rng.uniform(0, 1, k) * reach, least + 2 * reach)
    first_unit, last_unit = unit[head], unit[tail]
    before, after = start - first_unit * ahead[:, None], corner[tail] + last_unit * ahead[:, None]
    # blocks: run-up start, first corner, corners, overrun end
    size = moves + 3
    at = 1 + np.cumsum(size) - size
    points = np.empty((1 + int(size.sum()), 3))
    points[0] = rng.uniform(100.0, 108.0, 3)
    points[at], points[at + 1], points[at + size - 1] = before, start, after
    points[np.repeat(at + 2 - head, moves) + np.arange(n)] = corner
    limit = np.repeat(speed, size)
    limit[at - 1] = rng.uniform(10.0, 100.0, k)
    beads = np.zeros(k, BEAD_ROW)
    beads["run_up_move"], beads["first_move"], beads["end_move"] = at, at + 1, at + 1 + moves
    beads["power_w"] = rng.uniform(200.0, 1000.0, k)
    beads["floor_w"] = np.minimum(rng.uniform(50.0, 400.0, k), beads["power_w"])
    same = rng.random(k) < 0.5  # floors that stay
    beads["floor_w"][same] = 120.0
    beads["speed_mm_s"] = speed
    beads["power_exponent"] = np.where(rng.random(k) < 0.3, rng.uniform(0.5, 2.0, k), 1.0)
    beads["energy_cap_j_mm"] = np.inf
    for name in ("ramp_in_mm", "ramp_out_mm"):
        beads[name] = np.where(rng.random(k) < 0.5, rng.uniform(0.0, 2.0, k), 0.0)
    some = rng.random(k) < 0.3
    beads["gate_on_offset_mm"] = np.where(some, rng.uniform(-0.3, 0.2, k), 0.0) * np.minimum(
        ahead, length[head]
    )
    beads["gate_off_offset_mm"] = np.where(some, rng.uniform(-0.2, 0.3, k), 0.0) * np.minimum(
        ahead, length[head]
    )
    last = np.cumsum(per_plan) - 1
    first = np.concatenate([[0], (at + size - 1)[last]])
    dwell_s = np.where(rng.random(plans) < 0.6, rng.uniform(1e-3, 0.3, plans), 0.0)
    return Batch(points, limit, beads, first, dwell_s, cell, limits, mode)


def profile_of(batch: Batch) -> Profile:
    """Each plan from rest to rest by the law; then one after the other, dwells between."""
    t, s, v = [np.zeros(1)], [np.zeros(1)], [np.zeros(1)]
    a, j, move, longest, curves, starts = [], [], [], [], [], []
    now = way = 0.0
    for i in range(len(batch.first) - 1):
        low, high = batch.first[i], batch.first[i + 1]
        p = plan_profile(
            batch.points[low : high + 1], batch.speed[low:high], batch.limits, batch.mode
        )
        if batch.dwell_s[i] > 0.0:
            now += batch.dwell_s[i]
            t.append(np.array([now]))
            s.append(np.array([way]))
            v.append(np.zeros(1))
            a.append(np.zeros(1))
            j.append(np.zeros(1))
            move.append(np.full(1, -1, dtype=np.int32))
            longest.append(np.full(1, np.inf))
        t.append(p.t_s[1:] + now)
        s.append(p.s_mm[1:] + way)
        v.append(p.v_mm_s[1:])
        a.append(p.a_mm_s2)
        j.append(p.j_mm_s3)
        move.append((p.move + low).astype(np.int32))
        longest.append(p.longest_s)
        curves.append(p.curve)
        starts.append(way)
        now, way = float(t[-1][-1]), float(s[-1][-1])
    gaps = np.linalg.norm(np.diff(batch.points, axis=0), axis=1)
    polyline = Polyline.of(batch.points, gaps)
    if all(type(c) is Polyline for c in curves):
        # path lengths as the plans' own, so that corners and phases agree to the last bit
        joined = [np.zeros(1)]
        joined += [c.move_s_mm[1:] + w for c, w in zip(curves, starts, strict=True)]
        curve = Polyline(batch.points, np.concatenate(joined))
    else:
        curve = Joined(curves, starts, polyline)
    columns = [np.concatenate(x) for x in (t, s, v, a, j, move, longest)]
    return Profile(batch.mode, curve, *columns)


def run_batch(batch: Batch, tally: Tally) -> None:
    """Plan and judge; halves what is refused."""
    plans = len(batch.first) - 1
    try:
        profile = profile_of(batch)
        path = MovePath(
            points_mm=batch.points,
            speed_mm_s=batch.speed,
            role=np.full(len(batch.speed), Role.EMIT, dtype=np.uint8),
            beads=batch.beads,
        )
        gates = solve_gates(path, profile, batch.cell.laser)
        power = plan_power(path, profile, gates, batch.cell.laser)
        made = make_segments(path, profile, gates, power, RECIPE, batch.cell)
    except PlanError as exc:
        if plans == 1:
            tally.plans += 1
            tally.refused += 1
            tally.why[str(exc).split("(")[0]] = str(exc)
            return
        run_batch(batch.part(0, plans // 2), tally)
        run_batch(batch.part(plans // 2, plans), tally)
        return
    tally.plans += plans
    tally.beads += len(batch.beads)
    tally.segments += len(made.segments)
    data = frame_segments(made.segments, 5, 0xFFFFFFF0).tobytes()
    judge(batch, profile, unframe(data, 5, 0xFFFFFFF0), tally)


def judge(batch: Batch, profile: Profile, data: bytes, tally: Tally) -> None:
    """The wire's rows against the float profile; nothing of the planner is called."""
    rows = np.frombuffer(data, ROW)
    motion = Motion(profile.t_s, profile.s_mm, profile.v_mm_s, profile.a_mm_s2, profile.j_mm_s3,
                    profile.move)  # fmt: skip
    axes = batch.cell.motion.axes
    per_mm = np.array([a.steps_per_mm for a in axes])
    origin = np.array([a.range_mm[0] for a in axes])
    # plan_share of the simulated cell: an override by 1 / sqrt of it is always possible
    most = np.sqrt(0.8) * np.array([a.steps_per_mm * a.speed_mm_s for a in axes])
    start = np.rint((batch.points[0] - origin) * per_mm).astype(np.int64)
    wire = Wire(data, [*start, 0, 0, 0])

    def wrong(what: str, bad: np.ndarray) -> None:
        if bad.any():
            tally.problems.append(
                f"{batch.mode}: {what} ({int(bad.sum())}, at {int(np.argmax(bad))})"
            )

    # fields, docs/protocol.md 5.1 and 5.2
    flags = rows["flags"]
    param = (flags & PARAM) != 0
    wrong("unknown flag", flags >= 2 * END)
    # a law's number from 1 where the plan has at most three exponents but 1; here is no cap
    exponents = np.unique(batch.beads["power_exponent"])
    n_laws = int((exponents != 1.0).sum())
    law, rest = rows["d"][:, 0], rows["d"][:, 1:].any(axis=1)
    foreign = (law < 0) | (law > (n_laws if n_laws <= 3 else 0)) | rest
    wrong("parameter row with anything else", param & ((flags != PARAM) | foreign))
    wrong("END inside", flags[:-1] & END != 0)
    wrong("no END", flags[-1:] & END == 0)
    wrong("no time", wire.ticks < 1)
    gate, dwell = (wire.flags & GATE) != 0, (wire.flags & DWELL) != 0
    moved = wire.d.any(axis=1)
    wrong("dwell with steps or with gate", dwell & (moved | gate))
    wrong("gate without steps above 50 ms", gate & ~moved & (wire.ticks > STILL_US))
    wrong("longer than 20 ms", ~dwell & (wire.ticks > 20_001))
    wrong("steps on axes that are not there", wire.d[:, 3:].any(axis=1))
    rate = (np.abs(wire.d[:, :3]) - 1) * np.maximum(wire.ratio, 2 - wire.ratio)[:, None]
    wrong("axis too fast", (rate / (wire.ticks * 1e-6)[:, None] > 1.02 * most).any(axis=1))
    # steps: every end is the rounded position, every plan ends on its corner
    s, v_end = motion.at(wire.end_us * 1e-6)
    s = np.maximum.accumulate(np.minimum(s, profile.s_mm[-1]))  # last bits near rest
    exact = (profile.curve.axes_at(s) - origin) * per_mm
    off = np.abs(wire.after[:, :3] - exact)
    wrong("position at a segment's end", (off > 0.5 + 1e-7 * per_mm).any(axis=1))
    tally.steps = max(tally.steps, float(off.max()))
    way = profile.curve.move_s_mm
    ends_us = np.rint(profile.t_s[np.searchsorted(profile.s_mm, way[batch.first[1:]])] * 1e6)
    at = np.minimum(np.searchsorted(wire.end_us, ends_us), len(wire.end_us) - 1)
    corner = np.rint((batch.points[batch.first[1:]] - origin) * per_mm)
    ended = (wire.end_us[at] == ends_us) & (wire.after[at, :3] == corner).all(axis=1)
    wrong("plan's end", ~ended)
    # gate: edges at the solved instants, never at rest, never without motion
    laser, beads = batch.cell.laser, batch.beads
    on = motion.when(way[beads["first_move"]] + beads["gate_on_offset_mm"]) - laser.gate_latency_s
    late = laser.gate_latency_s if laser.gate_off_latency_s is None else laser.gate_off_latency_s
    shut = motion.when(way[beads["end_move"]] + beads["gate_off_offset_mm"]) - late
    on_us, off_us = wire.gate_edges_us()
    if len(on_us) != len(beads):
        tally.problems.append(f"{batch.mode}: {len(on_us)} gates, {len(beads)} beads")
        return
    edge = np.maximum(np.abs(on_us - on * 1e6), np.abs(off_us - shut * 1e6))
    wrong("gate edge", edge > 1.0)
    tally.edge_us = max(tally.edge_us, float(edge.max()))
    wrong("track starts", (wire.begin_us[(wire.flags & TRACK) != 0] != on_us))
    v_begin = motion.at(wire.begin_us * 1e-6)[1]
    wrong("gate open at standstill", gate & ((v_begin <= 0.0) | (v_end <= 0.0)))
    bead = np.searchsorted(on_us, profile.t_s * 1e6) - 1
    inside = (bead >= 0) & (profile.t_s * 1e6 < off_us[np.maximum(bead, 0)])
    wrong("kink at standstill with the gate open", inside & (profile.v_mm_s <= 0.0))
    slow = np.concatenate([v_begin[gate], profile.v_mm_s[inside]])
    tally.slowest_mm_s = min(tally.slowest_mm_s, float(slow.min()))
    # time since the last segment with a step, gate open all along: from its end to this one's
    stepped = np.where(moved | ~gate, wire.end_us, 0)
    still = wire.end_us - np.maximum.accumulate(stepped)
    wrong("gate open for 50 ms without a step", still >= STILL_US)
    tally.still_us = max(tally.still_us, float(still[gate].max()))
    first = np.searchsorted(wire.begin_us, on_us)
    last = np.minimum(np.searchsorted(wire.end_us, off_us), len(wire.end_us) - 1)
    length = np.linalg.norm(wire.after[last] - wire.before[first], axis=1)
    a, b = (profile.curve.axes_at(motion.at(t)[0]) for t in (on, shut))
    chord = np.linalg.norm((b - a) * per_mm, axis=1)
    wrong("bead without motion", (chord > 3.0) & (length == 0.0))
    # what leaves the source: commands arrive later, gate and power each by its own latency
    least = np.floor(laser.threshold_power_w / laser.rated_power_w * FULL)
    lit_s = wire.end_us * 1e-6 + laser.power_latency_s
    bead = np.searchsorted(on + laser.gate_latency_s, lit_s - 2e-6) - 1
    lit = (bead >= 0) & (lit_s < (shut + late)[np.maximum(bead, 0)] - 2e-6)
    wrong("light below the source's threshold", lit & (wire.power_after * FULL < least - 0.5))
    still_us = float(np.sum(wire.ticks[dwell]))
    if abs(still_us - batch.dwell_s.sum() * 1e6) > 1.0 + len(batch.dwell_s):
        tally.problems.append(
            f"{batch.mode}: dwells of {still_us} us, planned {batch.dwell_s.sum()}"
        )


MODES_OF_TWENTY = ("trapezoid",) * 16 + ("jerk",) * 3 + ("friction_circle",)


def campaign(
    plans: int, seed: int, modes=MODES_OF_TWENTY, batch: int = BATCH, number: int = 0
) -> Tally:
    """So many random plans from batch ``number`` on; stops at the first with a problem."""
    tally = Tally()
    while tally.plans < plans and not tally.problems:
        rng = np.random.default_rng([seed, number])
        mode = modes[number % len(modes)]
        run_batch(random_batch(rng, min(batch, plans - tally.plans), mode), tally)
        if tally.problems:
            tally.problems.append(f"seed {seed}, batch {number}")
        number += 1
    return tally

"""Plan quality: the plan judged by what goes on the wire, and by what the source makes of it.

Everything about power here reads the SEGMENT array back and compares it with the float
profile; nothing is taken from the power curve that made it. Limits of the motion are looked at
through differences of positions along the curve, not through the numbers that the time law
worked with.
"""

from typing import Any

import numpy as np

from controller import _judge
from controller.config import Cell, Laser
from controller.model import PowderChannel, TrackKind
from controller.planning.light.gate import (
    FIRMWARE_LONGEST_EMISSION_S,
    Gates,
    longest_dark_s,
    longest_emission_s,
)
from controller.planning.motion.profile import MotionLimits, Profile
from controller.planning.path.motion_path import MovePath
from controller.planning.stillness import FIRMWARE_STILL_S, longest_still
from firmware_bridge.segments import FLAG_PARAM, POWER_FULL, TICK_S, ticks_of

WINDOW_MM = 0.1  # energy per length is taken over so much of a bead
MOST_WINDOWS = 1_000_000  # a longer build has longer windows
MOST_PHASES = 60_000  # looked at for limits of the axes, evenly spread; path values: all
STENCIL_S = 1e-4  # step of the differences; positions resolve it a million times finer
SHORTEST_PHASE_S = 3e-4  # shorter ones: the differences would show the positions' rounding


class CommandCurve:
    """The power output that segments make: a straight ramp to each segment's end value."""

    def __init__(self, segments: np.ndarray, rated_power_w: float) -> None:
        self.segments = segments
        moving = segments[(segments["flags"] & FLAG_PARAM) == 0]
        ticks = np.concatenate([[0], np.cumsum(ticks_of(moving))])
        self.t_s = ticks * TICK_S
        self.power_w = np.concatenate([[0], moving["end_power"]]) * (rated_power_w / POWER_FULL)
        area = 0.5 * (self.power_w[1:] + self.power_w[:-1]) * np.diff(self.t_s)
        self.energy_j = np.concatenate([[0.0], np.cumsum(area)])

    def at(self, t_s: np.ndarray) -> np.ndarray:
        """Power output at plan times, W."""
        return np.interp(t_s, self.t_s, self.power_w)

    def energy_until(self, t_s: np.ndarray) -> np.ndarray:
        """Integral of the output from the job's start to plan times, J."""
        t = np.clip(t_s, 0.0, self.t_s[-1])
        i = np.clip(np.searchsorted(self.t_s, t, side="right") - 1, 0, len(self.t_s) - 2)
        return self.energy_j[i] + 0.5 * (self.power_w[i] + self.at(t)) * (t - self.t_s[i])

    def greatest_slew_w_s(self, count_w: float) -> float:
        """Steepest change, W/s, less what the rounding to the wire's count may add."""
        dt = np.diff(self.t_s)
        rise = np.maximum(np.abs(np.diff(self.power_w)) - count_w, 0.0)
        return float(np.divide(rise, dt, out=np.zeros_like(dt), where=dt > 0).max(initial=0.0))


def bead_energy_j(curve: CommandCurve, gates: Gates, laser: Laser) -> np.ndarray:
    """Energy of each bead at the workpiece, (k,) J: output delayed by the source's latency."""
    late = laser.power_latency_s
    return curve.energy_until(gates.off_s - late) - curve.energy_until(gates.on_s - late)


def judge_beads(
    curve: CommandCurve, path: MovePath, profile: Profile, gates: Gates, laser: Laser
) -> np.ndarray:
    """(k, 7) by bead, columns ``_judge.COLUMNS``: error of the output against the law at the
    profile's speed, at each segment's ends and middle, each kink, and each millisecond."""
    beads = path.beads
    columns = ("floor_w", "power_w", "speed_mm_s", "power_exponent", "energy_cap_j_mm",
               "ramp_in_mm", "ramp_out_mm")  # fmt: skip
    rows = np.column_stack([gates.s_on_mm, gates.s_off_mm, *(beads[c] for c in columns)])
    return _judge.judge_power(
        curve.t_s, curve.power_w, profile.t_s, profile.s_mm, profile.v_mm_s, profile.a_mm_s2,
        profile.j_mm_s3, gates.on_s, gates.off_s, rows, laser.power_latency_s,
        laser.rated_power_w,
    )  # fmt: skip


def max_power_error_w(
    curve: CommandCurve, path: MovePath, profile: Profile, gates: Gates, laser: Laser
) -> float:
    """Greatest |output - law(v)| while light is on, W."""
    return float(judge_beads(curve, path, profile, gates, laser)[:, 0].max())


def beam_position_error_mm(path: MovePath, laser: Laser, steps_per_mm: float) -> float:
    """What jitter and resolution leave at the beam along the bead, mm, at the fastest bead:
    speed x (the greater jitter of gate and power, and half a tick), and half a step."""
    speed = float(path.beads["speed_mm_s"].max())
    jitter_s = max(laser.gate_jitter_s, laser.power_jitter_s)
    return speed * (jitter_s + 0.5 * TICK_S) + 0.5 / steps_per_mm


def power_resolution_w(laser: Laser) -> float:
    """Half a count of the source's own input, W: the wire is finer (16 bit)."""
    counts = 2 ** min(laser.resolution_bits, 16) - 1
    return float(0.5 * laser.rated_power_w / counts)


def energy_per_mm(
    curve: CommandCurve, path: MovePath, profile: Profile, gates: Gates, laser: Laser
) -> dict[str, Any]:
    """Least, mean and greatest energy per length by kind of track, over windows of 0.1 mm.

    A bead is divided into whole windows; a rest shorter than one goes with the last.
    """
    length = gates.s_off_mm - gates.s_on_mm
    window = max(WINDOW_MM, float(length.sum()) / MOST_WINDOWS)
    n = np.maximum(np.floor(length / window + 1e-9), 1).astype(np.int64)
    bead = np.repeat(np.arange(len(n)), n)
    k = np.arange(len(bead)) - np.repeat(np.cumsum(n) - n, n)
    begin = gates.s_on_mm[bead] + k * window
    last = k == n[bead] - 1
    end = np.where(last, gates.s_off_mm[bead], begin + window)
    late = laser.power_latency_s
    joule = curve.energy_until(profile.time_at(end) - late) - curve.energy_until(
        profile.time_at(begin) - late
    )
    way = end - begin
    kind = path.beads["kind"][bead]
    out: dict[str, Any] = {"window_mm": window}
    for name, chosen in [("all", np.ones(len(kind), dtype=bool))] + [
        (k.name.lower(), kind == int(k)) for k in TrackKind
    ]:
        if chosen.any():
            each = joule[chosen] / way[chosen]
            out[name] = {
                "least_j_mm": float(each.min()),
                "mean_j_mm": float(joule[chosen].sum() / way[chosen].sum()),
                "greatest_j_mm": float(each.max()),
            }
    return out


def _margin(value: float | None, limit: float | None) -> dict[str, float | None]:
    if value is None or limit is None or limit <= 0.0:
        return {"value": value, "limit": limit, "margin_pct": None}
    return {"value": value, "limit": limit, "margin_pct": 100.0 * (limit - value) / limit}


def _differences(profile: Profile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Speeds and accelerations of the axes by differences of positions inside phases.

    Returns |v| (q, n_axes), |a| (q, n_axes) and the step of |v| over sharp corners, (c,) mm/s.
    """
    span = np.diff(profile.t_s)
    usable = np.flatnonzero((span >= SHORTEST_PHASE_S) & (profile.move >= 0))
    stride = max(1, -(-len(usable) // MOST_PHASES))
    i = usable[(np.arange(len(usable)) // 2) % stride == 0]  # neighbours in pairs
    if len(i) == 0:
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)
    h = np.minimum(span[i] / 6.0, STENCIL_S)
    middle = 0.5 * span[i]
    tau = np.stack(
        [0.0 * h, h, 2 * h, middle - h, middle, middle + h, span[i] - 2 * h, span[i] - h, span[i]],
        axis=1,
    )
    v, a, j = (x[i][:, None] for x in (profile.v_mm_s[:-1], profile.a_mm_s2, profile.j_mm_s3))
    s = profile.s_mm[i][:, None] + tau * (v + tau * (0.5 * a + j * tau / 6.0))
    s = np.maximum.accumulate(s.ravel())  # rounding must not unsort it
    p = np.asarray(profile.curve.axes_at(s)).reshape(len(i), 3, 3, -1)  # phase, place, stencil
    step = h[:, None, None]
    speed = np.abs(p[:, :, 2] - p[:, :, 0]) / (2.0 * step)
    accel = np.abs(p[:, :, 2] - 2.0 * p[:, :, 1] + p[:, :, 0]) / step**2
    into = (-3 * p[:, 0, 0] + 4 * p[:, 0, 1] - p[:, 0, 2])[:, :3] / (2 * h[:, None])
    out = (3 * p[:, 2, 2] - 4 * p[:, 2, 1] + p[:, 2, 0])[:, :3] / (2 * h[:, None])
    next_to = np.flatnonzero(np.diff(i) == 1)
    corner = np.linalg.norm(into[next_to + 1] - out[next_to], axis=1)
    axes = p.shape[-1]
    return speed.reshape(-1, axes), accel.reshape(-1, axes), corner


def motion_margins(profile: Profile, limits: MotionLimits, cell: Cell) -> dict[str, Any]:
    """Greatest values of the motion against the plan's limits: plan_share of the axes'
    accelerations, its square root of their speeds."""
    speed, accel, corner = _differences(profile)
    dt = np.diff(profile.t_s)
    ends = np.concatenate([profile.a_mm_s2, profile.a_mm_s2 + profile.j_mm_s3 * dt])
    total = np.linalg.norm(accel[:, :3], axis=1).max(initial=0.0)
    jerk = float(np.abs(profile.j_mm_s3).max()) if profile.mode == "jerk" else None
    found: dict[str, Any] = {
        "path_accel_mm_s2": _margin(float(np.abs(ends).max()), limits.accel_mm_s2),
        "total_accel_mm_s2": _margin(float(total), limits.accel_mm_s2),
        "path_jerk_mm_s3": _margin(jerk, limits.jerk_mm_s3 if jerk is not None else None),
        "corner_step_mm_s": _margin(float(corner.max(initial=0.0)), None),
    }
    share = cell.motion.plan_share
    # a path on which no rotary axis moves has X, Y, Z alone
    for k, axis in enumerate(cell.motion.machine_axes[: speed.shape[1]]):
        name = f"{axis.name.lower()}_"
        greatest = float(speed[:, k].max(initial=0.0)), float(accel[:, k].max(initial=0.0))
        found[f"{name}speed_{axis.unit}_s"] = _margin(
            greatest[0], axis.speed * cell.motion.speed_share
        )
        found[f"{name}accel_{axis.unit}_s2"] = _margin(greatest[1], axis.accel * share)
    return found


def slew_override(slew_w_s: float, laser: Laser) -> float | None:
    """Greatest override of the speed that a plan's steepest power leaves; None: no limit."""
    if laser.power_slew_w_s is None or slew_w_s <= 0.0:
        return None
    return float(np.sqrt(laser.power_slew_w_s / slew_w_s))


def process_margins(
    curve: CommandCurve, gates: Gates, timeline: np.ndarray, cell: Cell, segments: np.ndarray
) -> dict[str, Any]:
    """Greatest values of laser and powder against source, firmware and feeder."""
    laser = cell.laser
    powder = timeline["value"][timeline["channel"] <= PowderChannel.HOPPER_2]
    longest = longest_emission_s(gates)
    still_s = longest_still(segments).seconds
    slew_w_s = curve.greatest_slew_w_s(laser.rated_power_w / POWER_FULL)
    return {
        "laser_power_w": _margin(float(curve.power_w.max()), laser.rated_power_w),
        "power_slew_w_s": _margin(slew_w_s, laser.power_slew_w_s),
        # an override s of the speed makes power s^2 times as steep
        "power_slew_override": _margin(
            1.0 / cell.motion.speed_share, slew_override(slew_w_s, laser)
        ),
        "source_emission_s": _margin(longest, laser.longest_emission_s),
        "firmware_still_s": _margin(still_s, FIRMWARE_STILL_S),
        "firmware_emission_s": _margin(longest, FIRMWARE_LONGEST_EMISSION_S),
        "beam_pause_s": _margin(longest_dark_s(gates), laser.beam_timeout_s),
        "powder_flow_g_min": _margin(
            float(powder.max(initial=0.0)), cell.powder.greatest_flow_g_min
        ),
    }


def beam_figures(path: MovePath, judged: np.ndarray, cell: Cell) -> dict[str, float]:
    """What jitter and resolution of the source leave at the beam: mm along the bead, and % of
    full power; each alone, then together as they would add up at the worst."""
    laser = cell.laser
    speed = float(path.beads["speed_mm_s"].max())
    tick_mm = speed * 0.5 * TICK_S
    step_mm = 0.5 / min(a.steps_per_mm for a in cell.motion.axes[:3])
    full = 100.0 / laser.rated_power_w
    found = {
        "gate_on_mm": speed * laser.gate_jitter_s + tick_mm,
        "gate_off_mm": speed * laser.gate_jitter_s + tick_mm,
        "power_latency_mm": speed * laser.power_jitter_s + tick_mm,
        "step_mm": step_mm,
        "power_latency_pct": float(judged[:, 6].max()) * laser.power_jitter_s * full,
        "resolution_pct": power_resolution_w(laser) * full,
        "wire_pct": 50.0 / POWER_FULL,
        "plan_pct": float(judged[:, 0].max()) * full,
    }
    found["sum_mm"] = max(found["gate_on_mm"], found["gate_off_mm"],
                          found["power_latency_mm"]) + step_mm  # fmt: skip
    found["sum_pct"] = found["power_latency_pct"] + found["resolution_pct"] + found["plan_pct"]
    return found


def plan_quality(
    curve: CommandCurve,
    path: MovePath,
    profile: Profile,
    gates: Gates,
    timeline: np.ndarray,
    limits: MotionLimits,
    cell: Cell,
) -> dict[str, Any]:
    """The report: plain numbers with units in their names, ready for JSON."""
    laser = cell.laser
    judged = judge_beads(curve, path, profile, gates, laser)
    emission_s = float(judged[:, 3].sum())
    worst = int(np.argmax(judged[:, 0]))
    worst_w = float(judged[worst, 0])
    rms_w = float(np.sqrt(judged[:, 2].sum() / emission_s))
    full = 100.0 / laser.rated_power_w
    below95, below50 = float(judged[:, 4].sum()), float(judged[:, 5].sum())
    return {
        "power_error": {
            "worst_w": worst_w,
            "worst_pct": worst_w * full,
            "worst_bead": worst,
            "worst_s": float(judged[worst, 1]),
            "rms_w": rms_w,
            "rms_pct": rms_w * full,
        },
        "energy": energy_per_mm(curve, path, profile, gates, laser),
        "reduced_speed": {
            "below_95_s": below95,
            "below_95_pct": 100.0 * below95 / emission_s,
            "below_50_s": below50,
            "below_50_pct": 100.0 * below50 / emission_s,
        },
        "margins": {
            **motion_margins(profile, limits, cell),
            **process_margins(curve, gates, timeline, cell, curve.segments),
        },
        "beam": beam_figures(path, judged, cell),
    }

"""Laser power on the motion profile.

Power at the workpiece while a bead is laid, at path length s and speed v:

    law   = Pmin + (Pset - Pmin) g(v / F),  g(r) = r ** exponent (1: the linear law)
    share = min(1, (s - s_on) / ramp_in, (s_off - s) / ramp_out)
    P     = min(Pmin + (law - Pmin) share, energy_cap v, Plaser)

The source answers ``power_latency`` after the wire, so the command is the same curve sent
that much earlier. With the gate shut the command already goes to the value of the next
gate-on and waits there: light follows gate and power, so nothing leaves the source, and
jitter of the power finds a flat.

A source with a slew limit R cannot follow every such curve. With the gate shut the command is
free, so changes start early enough there; what is left inside beads is answered by the curve
of slope R that is nearest everywhere: the mean of the least such curve above the wanted one
and of the greatest below it. No curve of that slope has a smaller worst error: where wanted
values f(t), f(u) differ by more than R |t - u|, any curve misses one of them by half of the
excess, and the mean misses none by more.
"""

from dataclasses import dataclass

import numpy as np

from controller.config import Laser
from controller.errors import PlanError
from controller.planning.light.gate import Gates, bead_name, off_latency_s, solve_gates
from controller.planning.motion.profile import Profile
from controller.planning.path.motion_path import MovePath
from firmware_bridge.segments import POWER_FULL

__all__ = ["Gates", "PowerCurve", "law_w", "plan_power", "solve_gates", "wanted_w"]

# error allowed between the law and straight pieces: of full power, and of the bead's floor
# (so that the energy of short stretches holds at low power too, as far as 16 bit resolve it)
TOLERANCE = 1e-4
FLOOR_TOLERANCE = 1e-3
LEAST_TOLERANCE = 2e-5
SHORTEST_PIECE_S = 4e-6  # two cuts of the 1 us grid cannot be nearer
MOST_PARTS = 64
ROUNDS = 24
NO_LIMIT_W_S = 1e30  # of a source without a slew limit; times any time it stays finite


@dataclass(frozen=True)
class PowerCurve:
    """Wanted power at the workpiece: straight between nodes, every kink is a node."""

    t_s: np.ndarray
    power_w: np.ndarray
    latency_s: float
    slew_error_w: float = 0.0  # greatest difference from the law that the slew limit costs
    slew_bead: int = -1  # where; -1: none
    capped_beads: np.ndarray | None = None  # (k,) bool: energy_cap took effect

    def command_w(self, t_s: np.ndarray) -> np.ndarray:
        """What the motion controller's power output is to say at plan times."""
        return np.interp(np.asarray(t_s) + self.latency_s, self.t_s, self.power_w)


def law_w(
    path: MovePath,
    gates: Gates,
    laser: Laser,
    bead: np.ndarray,
    s_mm: np.ndarray,
    v: np.ndarray,
    *,
    capped: bool = True,
) -> np.ndarray:
    """The power law at path lengths and speeds of the given beads, W."""
    beads = path.beads
    floor = beads["floor_w"][bead]
    g = v / beads["speed_mm_s"][bead]
    if (beads["power_exponent"] != 1.0).any():
        g = g ** beads["power_exponent"][bead]
    into = np.maximum(s_mm - gates.s_on_mm[bead], 0.0)
    left = np.maximum(gates.s_off_mm[bead] - s_mm, 0.0)
    ramp_in, ramp_out = beads["ramp_in_mm"][bead], beads["ramp_out_mm"][bead]
    share_in = np.divide(into, ramp_in, out=np.ones_like(into), where=ramp_in > 0)
    share_out = np.divide(left, ramp_out, out=np.ones_like(left), where=ramp_out > 0)
    share = np.minimum(np.minimum(share_in, share_out), 1.0)
    power = floor + (beads["power_w"][bead] - floor) * g * share
    if capped and np.isfinite(beads["energy_cap_j_mm"]).any():
        power = np.minimum(power, beads["energy_cap_j_mm"][bead] * v)
    return np.clip(power, 0.0, laser.rated_power_w)


def wanted_w(
    path: MovePath, profile: Profile, gates: Gates, laser: Laser, bead: np.ndarray, t_s: np.ndarray
) -> np.ndarray:
    """The law at instants, from the profile itself (not from the curve's nodes), W."""
    s, v, _ = profile.state_at(t_s)
    return law_w(path, gates, laser, bead, s, v)


def _ramp_nodes(path: MovePath, gates: Gates) -> tuple[np.ndarray, np.ndarray]:
    """Path lengths, and their beads, where the ramps' share has a kink."""
    beads = path.beads
    number = np.arange(len(beads))
    a, b = beads["ramp_in_mm"], beads["ramp_out_mm"]
    length = gates.s_off_mm - gates.s_on_mm
    meet = gates.s_on_mm + length * np.divide(a, a + b, out=np.zeros_like(a), where=a + b > 0)
    found = [
        (gates.s_on_mm, length > 0),
        (gates.s_off_mm, length > 0),
        (gates.s_on_mm + a, (a > 0) & (a < length)),
        (gates.s_off_mm - b, (b > 0) & (b < length)),
        (meet, (a > 0) & (b > 0) & (a + b >= length)),
    ]
    s = np.concatenate([values[use] for values, use in found])
    bead = np.concatenate([number[use] for _, use in found])
    return s, bead


def _kinks(profile: Profile, gates: Gates) -> tuple[np.ndarray, np.ndarray]:
    """Kinks of the profile inside beads where the speed bends: their numbers, their beads."""
    inside = np.searchsorted(gates.on_s, profile.t_s, side="right") - 1
    kink = (inside >= 0) & (profile.t_s < gates.off_s[np.maximum(inside, 0)])
    kink[0] = kink[-1] = False
    dt = np.diff(profile.t_s)
    ends = profile.a_mm_s2 + profile.j_mm_s3 * dt
    kink[1:-1] &= (profile.a_mm_s2[1:] != ends[:-1]) | (profile.j_mm_s3[1:] != profile.j_mm_s3[:-1])
    return np.flatnonzero(kink), inside[kink]


def _bent(
    path: MovePath, profile: Profile, gates: Gates, t: np.ndarray, bead: np.ndarray
) -> np.ndarray:
    """(n - 1,) bool: pieces between neighbouring nodes in which the law is no straight line."""
    middle = 0.5 * (t[1:] + t[:-1])
    s, _, _ = profile.state_at(middle)
    i = np.clip(np.searchsorted(profile.t_s, middle, side="right") - 1, 0, len(profile.a_mm_s2) - 1)
    changing = (profile.a_mm_s2[i] != 0.0) | (profile.j_mm_s3[i] != 0.0)
    beads, own = path.beads, bead[:-1]
    ramp = (s - gates.s_on_mm[own] < beads["ramp_in_mm"][own]) | (
        gates.s_off_mm[own] - s < beads["ramp_out_mm"][own]
    )
    curved = ramp | (beads["power_exponent"][own] != 1.0)
    curved |= np.isfinite(beads["energy_cap_j_mm"][own]) | (profile.j_mm_s3[i] != 0.0)
    # a cap may cut a ramp at constant speed
    changing |= ramp & np.isfinite(beads["energy_cap_j_mm"][own])
    return (bead[1:] == own) & curved & changing


def _refine(
    path: MovePath,
    profile: Profile,
    gates: Gates,
    laser: Laser,
    nodes: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """More nodes (t, power, bead) where straight pieces miss the law by more than allowed.

    Each piece is tried at its quarters; a straight chord's error falls with the square of the
    length, which tells the number of parts. Parts are tried again, so that kinks are met too.
    """
    t, power, bead = nodes
    first = np.flatnonzero(_bent(path, profile, gates, t, bead))
    t0, t1, p0, p1, own = t[first], t[first + 1], power[first], power[first + 1], bead[first]
    floor = path.beads["floor_w"]
    allowed_w = np.minimum(
        TOLERANCE * laser.rated_power_w,
        np.maximum(FLOOR_TOLERANCE * floor, LEAST_TOLERANCE * laser.rated_power_w),
    )
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for _ in range(ROUNDS):
        if len(t0) == 0:
            break
        error = np.zeros(len(t0))
        for share in (0.25, 0.5, 0.75):
            wanted = wanted_w(path, profile, gates, laser, own, t0 + share * (t1 - t0))
            error = np.maximum(error, np.abs(wanted - (p0 + share * (p1 - p0))))
        bad = (error > allowed_w[own]) & (t1 - t0 >= SHORTEST_PIECE_S)
        t0, t1, p0, p1, own, error = (x[bad] for x in (t0, t1, p0, p1, own, error))
        parts = np.clip(np.ceil(np.sqrt(1.1 * error / allowed_w[own])), 2, MOST_PARTS)
        parts = np.minimum(parts, np.maximum((t1 - t0) / (0.5 * SHORTEST_PIECE_S), 2.0))
        n = parts.astype(np.int64)
        piece = np.repeat(np.arange(len(n)), n)
        k = np.arange(len(piece)) - np.repeat(np.cumsum(n) - n, n)
        begin = t0[piece] + (t1 - t0)[piece] * k / n[piece]
        values = np.where(
            k == 0, p0[piece], wanted_w(path, profile, gates, laser, own[piece], begin)
        )
        new = k > 0
        found.append((begin[new], values[new], own[piece][new]))
        last = k == n[piece] - 1
        t_end = np.where(last, t1[piece], np.append(begin[1:], 0.0))
        p_end = np.where(last, p1[piece], np.append(values[1:], 0.0))
        t0, t1, p0, p1, own = begin, t_end, values, p_end, own[piece]
    if not found:
        return t[:0], power[:0], bead[:0]
    joined = [np.concatenate(column) for column in zip(*found, strict=True)]
    return joined[0], joined[1], joined[2]


def plan_power(path: MovePath, profile: Profile, gates: Gates, laser: Laser) -> PowerCurve:
    """Nodes of the wanted power over the whole job.

    In a bead: every kink of speed and ramp, and so many more that straight pieces err by less
    than TOLERANCE. Outside: to the next bead's first value, 0 where the axes rest.
    Raises PlanError if a bead would be below the source's threshold or above its rating.
    """
    beads = path.beads
    over = beads["power_w"] > laser.rated_power_w
    if over.any():
        i = int(np.argmax(over))
        raise PlanError(
            f"{bead_name(path, i)}: power {beads['power_w'][i]:g} W above laser.rated_power "
            f"{laser.rated_power_w:g} W"
        )
    s_node, bead_node = _ramp_nodes(path, gates)
    kink, kink_bead = _kinks(profile, gates)
    t = np.concatenate([profile.time_at(s_node), profile.t_s[kink]])
    bead = np.concatenate([bead_node, kink_bead])
    s = np.concatenate([s_node, profile.s_mm[kink]])
    order = np.lexsort((t, bead))
    t, bead, s = t[order], bead[order], s[order]
    power = law_w(path, gates, laser, bead, s, profile.state_at(t)[1])
    more = _refine(path, profile, gates, laser, (t, power, bead))
    if len(more[0]):
        t, power, bead = (
            np.concatenate([a, b]) for a, b in zip((t, power, bead), more, strict=True)
        )
        order = np.lexsort((t, bead))
        t, power, bead = t[order], power[order], bead[order]
    _check_threshold(path, profile, gates, laser, t, power, bead)
    capped = _capped(path, profile, gates, laser, t, power, bead)
    # a count of the wire rounded down must not put the beam out either
    least_w = np.ceil(laser.threshold_power_w * POWER_FULL / laser.rated_power_w - 1e-9)
    power = np.maximum(power, least_w * laser.rated_power_w / POWER_FULL)
    return _between(path, profile, laser, t, power, bead, capped)


def _check_threshold(
    path: MovePath,
    profile: Profile,
    gates: Gates,
    laser: Laser,
    t: np.ndarray,
    power: np.ndarray,
    bead: np.ndarray,
) -> None:
    low = power < laser.threshold_power_w * (1.0 - 1e-9)
    if not low.any():
        return
    i = int(np.argmax(low))
    own = bead[i : i + 1]
    s, v, _ = profile.state_at(t[i : i + 1])
    free_w = float(law_w(path, gates, laser, own, s, v, capped=False)[0])
    why = "power_floor"
    if free_w > power[i] + 1e-9:
        cap = path.beads["energy_cap_j_mm"][own[0]]
        why = f"energy_cap {cap:g} J/mm at {v[0]:.3f} mm/s"
    raise PlanError(
        f"{bead_name(path, int(own[0]))}: power {power[i]:.1f} W at {t[i]:.4f} s ({why}) below "
        f"laser.threshold_power {laser.threshold_power_w:g} W: the beam would go out"
    )


def _capped(
    path: MovePath,
    profile: Profile,
    gates: Gates,
    laser: Laser,
    t: np.ndarray,
    power: np.ndarray,
    bead: np.ndarray,
) -> np.ndarray:
    """(k,) bool: beads whose law the energy cap lowers somewhere."""
    found = np.zeros(len(path.beads), dtype=bool)
    if np.isfinite(path.beads["energy_cap_j_mm"]).any():
        s, v, _ = profile.state_at(t)
        free = law_w(path, gates, laser, bead, s, v, capped=False)
        found[bead[power < free * (1.0 - 1e-6)]] = True
    return found


def _between(
    path: MovePath,
    profile: Profile,
    laser: Laser,
    t: np.ndarray,
    power: np.ndarray,
    bead: np.ndarray,
    capped: np.ndarray,
) -> PowerCurve:
    """Join the beads' nodes: rests at 0 W, and ways between that the source can follow."""
    late = laser.power_latency_s
    # rests as rows of nodes of their own: start, end, and dwells on the way
    moving = profile.move >= 0
    begin, last = int(np.argmax(moving)), len(moving) - 1 - int(np.argmax(moving[::-1]))
    dwell = np.flatnonzero(~moving[begin : last + 1]) + begin
    rest_t = [profile.t_s[[begin]], profile.t_s[dwell], profile.t_s[dwell + 1]]
    rest_t.append(profile.t_s[[last + 1]])
    rest_i = [np.zeros(1, int), 1 + dwell, 1 + dwell, np.full(1, 2 + len(moving))]
    all_t = np.concatenate([t, *[x + late for x in rest_t]])
    all_p = np.concatenate([power, np.zeros(2 + 2 * len(dwell))])
    # rows of one item (bead, or rest, numbered below 0) belong together, all else is free
    item = np.concatenate([bead, -1 - np.concatenate(rest_i)])
    order = np.argsort(all_t, kind="stable")
    all_t, all_p, item = all_t[order], all_p[order], item[order]
    limit = NO_LIMIT_W_S if laser.power_slew_w_s is None else laser.power_slew_w_s * (1.0 - 1e-6)
    error_w, worst = 0.0, -1
    limited = laser.power_slew_w_s is not None  # else nodes that coincide would look too steep
    if limited and (np.abs(np.diff(all_p)) > limit * np.diff(all_t) * (1 + 1e-9) + 1e-9).any():
        wanted_p = all_p
        lower = bool(np.isfinite(path.beads["energy_cap_j_mm"]).any())
        all_t, all_p, item, error = _slewed(all_t, wanted_p, item, limit, lower)
        i = int(np.argmax(error))
        if error[i] > 1e-6 * laser.rated_power_w:
            error_w, worst = float(error[i]), int(item[i])
        _check_slewed(path, laser, all_t, all_p, item)
    gap = item[1:] != item[:-1]
    dt, change = np.diff(all_t), np.abs(np.diff(all_p))
    # wait at both ends of a gap for the source's jitter, and as long as the gate's command is
    # open there, as far as there is time
    spare = np.maximum(0.5 * (dt - change / limit), 0.0)
    jitter_s = laser.power_jitter_s + laser.gate_jitter_s
    after_s = jitter_s + max(0.0, late - off_latency_s(laser))
    before_s = jitter_s + max(0.0, laser.gate_latency_s - late)
    most_s = np.minimum(dt / 3.0, spare)
    at = np.flatnonzero(gap & (change > 0.0) & (most_s > 0.0))
    t_more = np.concatenate(
        [
            all_t[at] + np.minimum(after_s, most_s[at]),
            all_t[at + 1] - np.minimum(before_s, most_s[at]),
        ]
    )
    p_more = np.concatenate([all_p[at], all_p[at + 1]])
    place = np.concatenate([at + 1, at + 1])
    return PowerCurve(
        t_s=np.insert(all_t, place, t_more),
        power_w=np.insert(all_p, place, p_more),
        latency_s=late,
        slew_error_w=error_w,
        slew_bead=worst,
        capped_beads=capped,
    )


def _slewed(
    t: np.ndarray, p: np.ndarray, item: np.ndarray, limit_w_s: float, lower: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The curve of limited slope nearest to the beads' nodes; with ``lower``, the greatest one
    below them (an energy cap holds).

    Its envelopes are the outermost of the cones from all nodes: running greatest values of
    p + R t from the left and of p - R t from the right, and least ones in the same way.
    Returns t, p, item with a node at each new kink, and the error at each node.
    """
    way = limit_w_s * t
    up_left = np.maximum.accumulate(p + way)
    up_right = np.maximum.accumulate((p - way)[::-1])[::-1]
    low_left = np.minimum.accumulate(p - way)
    low_right = np.minimum.accumulate((p + way)[::-1])[::-1]

    def nearest(upper: np.ndarray, under: np.ndarray) -> np.ndarray:
        return under if lower else 0.5 * (upper + under)

    values = nearest(
        np.maximum(up_left - way, up_right + way), np.minimum(low_left + way, low_right - way)
    )
    # between nodes of one bead: where two cones cross, and where a cone meets the straight piece
    i = np.flatnonzero(item[1:] == item[:-1])
    dt = t[i + 1] - t[i]
    slope = np.divide(p[i + 1] - p[i], dt, out=np.zeros(len(i)), where=dt > 0)
    cones = ((up_left[i], -1.0), (up_right[i + 1], 1.0), (low_left[i], 1.0),
             (low_right[i + 1], -1.0))  # fmt: skip
    crossings = [
        (up_left[i] - up_right[i + 1]) / (2.0 * limit_w_s),
        (low_right[i + 1] - low_left[i]) / (2.0 * limit_w_s),
    ]
    for level, sign in cones:
        rate = slope - sign * limit_w_s
        crossings.append(
            np.divide(level - p[i] + slope * t[i], rate,
                      out=np.full(len(i), -1.0), where=np.abs(rate) > 1e-9)
        )  # fmt: skip
    when = np.concatenate(crossings)
    piece = np.tile(np.arange(len(i)), len(crossings))
    use = (when > t[i][piece] + 1e-9) & (when < t[i + 1][piece] - 1e-9)
    when, piece = when[use], piece[use]
    straight = p[i][piece] + slope[piece] * (when - t[i][piece])
    levels = [level[piece] + sign * limit_w_s * when for level, sign in cones]
    more = nearest(
        np.maximum(np.maximum(levels[0], levels[1]), straight),
        np.minimum(np.minimum(levels[2], levels[3]), straight),
    )
    order = np.lexsort((np.concatenate([np.arange(len(t)), i[piece] + 0.5]),
                        np.concatenate([t, when])))  # fmt: skip
    joined_item = np.concatenate([item, item[i][piece]])[order]
    error = np.concatenate([np.abs(values - p), np.abs(more - straight)])[order]
    return (
        np.concatenate([t, when])[order],
        np.concatenate([values, more])[order],
        joined_item,
        np.where(joined_item >= 0, error, 0.0),
    )


def _check_slewed(
    path: MovePath, laser: Laser, t: np.ndarray, p: np.ndarray, item: np.ndarray
) -> None:
    low = (item >= 0) & (p < laser.threshold_power_w * (1.0 - 1e-9))
    if low.any():
        k = int(np.argmax(low))
        raise PlanError(
            f"{bead_name(path, int(item[k]))}: power {p[k]:.1f} W at {t[k]:.4f} s below "
            f"laser.threshold_power {laser.threshold_power_w:g} W: laser.power_slew "
            f"{laser.power_slew_w_s:g} W/s is too slow for it"
        )

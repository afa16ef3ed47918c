"""Which way the tables turn along a run: branches, turns and the pole.

A tool axis leaves a table-table machine two answers and as many whole turns of C as its range
holds; within a run they are chosen once, so that C and tilt turn least and stay in range, and
they change only where the tool axis passes the pole (within POLE_RAD of the C axis, where C is
free): there C is held or turned ahead smoothly to where the way out needs it.
"""

import math
from dataclasses import dataclass

import numpy as np

from controller.errors import PlanError
from controller.planning.path.kinematics import POLE_RAD, Kinematics, Table
from controller.planning.path.tool_path import ToolPath

Floats = np.ndarray
TAU = 2.0 * math.pi
COARSE_RAD = math.radians(40.0)  # between nodes C must turn by less, so that it can be counted
ROUNDS = 60
MOST_AT_POLE_RAD = math.radians(180.5)  # more would be unwinding, with the laser on
SLACK_RAD = 1e-9
FADE_RAD = math.radians(5.0)  # that C goes on where it is free before or after a run's tilt


def _wrap(angle: Floats) -> Floats:
    return angle - TAU * np.round(angle / TAU)


@dataclass(frozen=True)
class TableAngles:
    """Angles along one run; made by ``choose_angles``."""

    kin: Kinematics
    node_s: Floats  # (k,) sorted path lengths; also where samples must be
    node_c: Floats  # (k,) rad: last table's angle there, counted on over whole turns
    edge_s: Floats  # (2 K,) begin and end of each stretch away from the pole
    edge_c: Floats  # (2 K,) rad
    edge_dc: Floats  # (2 K,) rad/mm
    sign: Floats  # (K,) of the tilt
    held: Floats  # (r,) rad: angles of a run that turns nothing

    def at(
        self, s: Floats, tip: Floats, dtip: Floats, tool: Floats, dtool: Floats
    ) -> tuple[Floats, Floats]:
        """Angles (n, r) rad and their derivatives by path length."""
        n = len(s)
        if not self.kin.tilts:
            if len(self.edge_s) == 0:
                return np.tile(self.held, (n, 1)), np.zeros((n, 1))
            raw, rate = self.kin.own_angle(tip, dtip, tool, dtool)
            near = np.interp(s, self.node_s, self.node_c)
            offset = self.sign[0]  # of a ring: where its zero lies
            return (near + _wrap(raw + offset - near))[:, None], rate[:, None]
        c, dc = np.full(n, self.held[1]), np.zeros(n)
        if len(self.edge_s):
            c, dc = self._turn(s, tool, dtool)
        a, da = self.kin.tilt(tool, dtool, c, dc)
        return np.stack([a, c], 1), np.stack([da, dc], 1)

    def _turn(self, s: Floats, tool: Floats, dtool: Floats) -> tuple[Floats, Floats]:
        place = np.searchsorted(self.edge_s, s, side="right")
        outer = place % 2 == 1
        k = np.clip(place // 2, 0, len(self.sign) - 1)
        near = np.interp(s, self.node_s, self.node_c)
        raw = self.kin.azimuth(tool) + np.where(self.sign[k] < 0, math.pi, 0.0)
        r2 = np.maximum(tool[:, 0] ** 2 + tool[:, 1] ** 2, 1e-30)
        c = near + _wrap(raw - near)
        dc = (dtool[:, 0] * tool[:, 1] - tool[:, 0] * dtool[:, 1]) / r2
        inner = ~outer
        if inner.any():
            c[inner], dc[inner] = self._at_pole(s[inner], place[inner])
        return c, dc

    def _at_pole(self, s: Floats, place: Floats) -> tuple[Floats, Floats]:
        """A cubic between the ways in and out; before the first and after the last way C is
        held, but for a short stretch in which its rate fades."""
        last = len(self.edge_s) - 1
        i, j = np.clip(place - 1, 0, last), np.clip(place, 0, last)
        c0, c1 = self.edge_c[i], self.edge_c[j]
        span = self.edge_s[j] - self.edge_s[i]
        h = np.where(span > 0.0, span, 1.0)
        x = (s - self.edge_s[i]) / h
        m0, m1 = self.edge_dc[i] * h, self.edge_dc[j] * h
        two, three = 3.0 * (c1 - c0) - 2.0 * m0 - m1, 2.0 * (c0 - c1) + m0 + m1
        c = c0 + x * (m0 + x * (two + x * three))
        dc = (m0 + x * (2.0 * two + 3.0 * x * three)) / h
        end = span <= 0.0
        fade = self.fade_mm(i)
        way = np.clip(s - self.edge_s[i], -fade, fade)
        rest = 1.0 - np.abs(way) / fade
        c = np.where(end, c0 + self.edge_dc[i] * way * 0.5 * (1.0 + rest), c)
        return c, np.where(end, self.edge_dc[i] * rest, dc)

    def fade_mm(self, edge: Floats) -> Floats:
        """Length in which C comes to rest beyond the outermost edges: FADE_RAD at most."""
        return np.minimum(2.0 * FADE_RAD / np.maximum(np.abs(self.edge_dc[edge]), 1e-9), 1e6)

    def breaks_mm(self) -> Floats:
        """Path lengths at which the angles' second derivative may jump."""
        if not self.kin.tilts or len(self.edge_s) == 0:
            return np.zeros(0)
        ends = np.array([0, len(self.edge_s) - 1])
        fade = self.fade_mm(ends) * np.array([-1.0, 1.0])
        return np.concatenate([self.edge_s, self.edge_s[ends] + fade])


def choose_angles(
    kin: Kinematics, path: ToolPath, now_rad: Floats, where: str, *, turning: bool = True
) -> TableAngles:
    """The tables' way along a run that they reach from ``now_rad`` (r,).

    ``turning`` False: C of a turntable stays where it is (a track without a tool axis).
    Raises PlanError naming axis, angle and range.
    """
    none = np.zeros(0)
    hold = TableAngles(kin, none, none, none, none, none, none, np.array(now_rad))
    if not kin.tilts:
        if kin.tables[0].name == "C" and not turning:
            return hold
        return _one_table(kin, path, now_rad, where)
    node_s, polar, azimuth, free = _nodes(kin, path)
    stretches = _stretches(free)
    if not stretches:
        return hold
    return _two_tables(kin, path, now_rad, where, node_s, polar, azimuth, stretches)


def _one_table(kin: Kinematics, path: ToolPath, now_rad: Floats, where: str) -> TableAngles:
    table = kin.tables[0]
    s = np.unique(np.concatenate([path.start_mm, 0.5 * (path.start_mm[1:] + path.start_mm[:-1])]))
    for _ in range(ROUNDS):
        pose = path.pose_at(s)
        kin.check_reach(pose[0], pose[2], where)
        raw, _ = kin.own_angle(*pose)
        wide = np.abs(_wrap(np.diff(raw))) > COARSE_RAD
        if not wide.any():
            break
        s = np.sort(np.concatenate([s, 0.5 * (s[1:] + s[:-1])[wide]]))
    angle = raw[0] + np.concatenate([[0.0], np.cumsum(_wrap(np.diff(raw)))])
    least, most = float(angle.min()), float(angle.max())
    # a shaft's zero is given, a ring's is where it stands now
    base = float(now_rad[0]) - angle[0] if table.name == "C" else 0.0
    first = math.ceil((table.least_rad - SLACK_RAD - base - least) / TAU)
    last = math.floor((table.most_rad + SLACK_RAD - base - most) / TAU)
    if first > last:
        if table.name != "C" or most - least > table.most_rad - table.least_rad:
            raise _too_far(table.name, least + base, most + base, table.least_rad, table.most_rad,
                           where)  # fmt: skip
        base, first, last = table.least_rad - least, 0, 0
    turns = min(range(first, last + 1), key=lambda m: abs(angle[0] + base + TAU * m - now_rad[0]))
    offset = base + TAU * turns
    edges = np.array([0.0, path.length_mm])
    return TableAngles(
        kin, s, angle + offset, edges, edges, edges, np.array([offset]), np.array(now_rad)
    )


def _too_far(
    name: str, low: float, high: float, least: float, most: float, where: str
) -> PlanError:
    return PlanError(
        f"{where}: axis {name} would turn from {math.degrees(low):.2f} to {math.degrees(high):.2f} "
        f"deg, outside {math.degrees(least):g} to {math.degrees(most):g} deg; it cannot be unwound "
        "inside a bead"
    )


def _nodes(kin: Kinematics, path: ToolPath) -> tuple[Floats, Floats, Floats, Floats]:
    """Path lengths so near to one another that C can be counted, tilt, azimuth, at the pole."""
    middle = 0.5 * (path.start_mm[1:] + path.start_mm[:-1])
    s = np.unique(np.concatenate([path.start_mm, middle, path.nearest_to_pole_mm()]))
    for _ in range(ROUNDS):
        _, _, tool, _ = path.pose_at(s)
        polar = np.arctan2(np.hypot(tool[:, 0], tool[:, 1]), tool[:, 2])
        azimuth = kin.azimuth(tool)
        free = polar < POLE_RAD
        out = ~free
        wide = (np.abs(_wrap(np.diff(azimuth))) > COARSE_RAD) & out[1:] & out[:-1]
        # a stretch at the pole begins where the tool axis comes within 1.05 of the limit
        rough = (free[1:] != free[:-1]) & (np.maximum(polar[1:], polar[:-1]) > 1.05 * POLE_RAD)
        split = (wide | rough) & (np.diff(s) > 1e-7)
        if not split.any():
            break
        s = np.sort(np.concatenate([s, 0.5 * (s[1:] + s[:-1])[split]]))
    return s, polar, azimuth, free


def _stretches(free: Floats) -> list[tuple[int, int]]:
    """Runs of nodes (first, last) away from the pole, of two nodes or more."""
    edge = np.flatnonzero(np.diff(np.concatenate([[True], free, [True]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in zip(edge[0::2], edge[1::2], strict=True) if b - a > 1]


def _two_tables(
    kin: Kinematics,
    path: ToolPath,
    now_rad: Floats,
    where: str,
    node_s: Floats,
    polar: Floats,
    azimuth: Floats,
    stretches: list[tuple[int, int]],
) -> TableAngles:
    """The cheapest chain of (tilt's sign, turns of C), stretch by stretch (Viterbi)."""
    tilt_table, turn_table = kin.tables
    counted = [
        azimuth[a] + np.concatenate([[0.0], np.cumsum(_wrap(np.diff(azimuth[a : b + 1])))])
        for a, b in stretches
    ]
    best: list[dict[tuple[int, int], tuple[float, tuple[int, int] | None]]] = []
    for k, (a, b) in enumerate(stretches):
        options = _options(tilt_table, turn_table, polar[a : b + 1], counted[k])
        if not options:
            raise _no_option(tilt_table, turn_table, polar[a : b + 1], counted[k], where)
        row: dict[tuple[int, int], tuple[float, tuple[int, int] | None]] = {}
        for option in options:
            start = counted[k][0] + _shift(option)
            if k == 0:
                tilt = option[0] * polar[a]
                cost = abs(start - now_rad[1]) + abs(tilt - now_rad[0])
                row[option] = (cost, None)
                continue
            ways = []
            for before, (cost, _) in best[-1].items():
                turned = abs(start - (counted[k - 1][-1] + _shift(before)))
                if turned <= MOST_AT_POLE_RAD:
                    ways.append((cost + turned, before))
            if ways:
                row[option] = min(ways)
        if not row:
            ends = [counted[k - 1][-1] + _shift(o) for o in best[-1]]
            begins = [counted[k][0] + _shift(o) for o in options]
            least = min(abs(x - y) for x in ends for y in begins)
            raise PlanError(
                f"{where}: axis {turn_table.name} would have to turn by {math.degrees(least):.1f} "
                "deg at the pole of the tool axis; it cannot be unwound inside a bead"
            )
        best.append(row)
    chain = [min(best[-1], key=lambda o: (best[-1][o][0], o))]
    for row in reversed(best[1:]):
        came_from = row[chain[-1]][1]
        if came_from is not None:
            chain.append(came_from)
    chain.reverse()
    shifted = [c + _shift(o) for c, o in zip(counted, chain, strict=True)]
    edges = np.array([i for stretch in stretches for i in stretch])
    _, _, tool, dtool = path.pose_at(node_s[edges])
    r2 = tool[:, 0] ** 2 + tool[:, 1] ** 2
    rate = (dtool[:, 0] * tool[:, 1] - tool[:, 0] * dtool[:, 1]) / r2
    return TableAngles(
        kin,
        np.concatenate([node_s[a : b + 1] for a, b in stretches]),
        np.concatenate(shifted),
        node_s[edges],
        np.array([x for row in shifted for x in (row[0], row[-1])]),
        rate,
        np.array([o[0] for o in chain], dtype=np.float64),
        np.array(now_rad),
    )


def _shift(option: tuple[int, int]) -> float:
    sign, turns = option
    return TAU * turns + (math.pi if sign < 0 else 0.0)


def _options(
    tilt_table: Table, turn_table: Table, polar: Floats, counted: Floats
) -> list[tuple[int, int]]:
    """(sign, turns) that keep both tables in range over a stretch."""
    found = []
    for sign in (1, -1):
        low, high = sorted((sign * float(polar.min()), sign * float(polar.max())))
        if low < tilt_table.least_rad - SLACK_RAD or high > tilt_table.most_rad + SLACK_RAD:
            continue
        base = _shift((sign, 0))
        first = math.ceil((turn_table.least_rad - SLACK_RAD - base - counted.min()) / TAU)
        last = math.floor((turn_table.most_rad + SLACK_RAD - base - counted.max()) / TAU)
        found += [(sign, turns) for turns in range(first, last + 1)]
    return found


def _no_option(
    tilt_table: Table, turn_table: Table, polar: Floats, counted: Floats, where: str
) -> PlanError:
    most = float(polar.max())
    if most > max(-tilt_table.least_rad, tilt_table.most_rad) + SLACK_RAD:
        return PlanError(
            f"{where}: axis {tilt_table.name} would have to tilt by {math.degrees(most):.2f} deg, "
            f"outside {math.degrees(tilt_table.least_rad):g} to "
            f"{math.degrees(tilt_table.most_rad):g} deg"
        )
    return _too_far(turn_table.name, float(counted.min()), float(counted.max()),
                    turn_table.least_rad, turn_table.most_rad, where)  # fmt: skip

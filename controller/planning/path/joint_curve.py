"""The path in the machine's axes: cubics between samples, by path length at the melt pool.

Samples are exact with exact derivatives; between two of them every axis is the cubic that fits
both ends. They stand so near to one another that the melt pool leaves its path by less than
SAMPLE_MM and runs along it true to SPEED_SHARE.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controller.errors import PlanError
from controller.planning.path.kinematics import Kinematics

Floats = np.ndarray

SAMPLE_MM = 3e-4
SAMPLE_RAD = 1e-4
SPEED_SHARE = 1e-4
CHORD_MM = 1e-3  # a segment's straight way in the axes leaves the path by less
LEAST_STEP_MM = 2e-5
PROBE_MM = 1e-6  # differences: C may turn by thousands of degrees a mm near the pole
EVEN_SHARE = 0.2
LEAST_EVEN_MM = 2e-3
ROUNDS = 40
FIRST_STEP_MM = 0.004  # grid of the time law: fine where the speed leaves 0 ...
GROWTH = 1.3
WIDEST_STEP_MM = 0.25  # ... and nowhere wider

# path lengths (k,) -> tip, tool axis (k, 3), axes and their derivatives (k, K)
Exact = Callable[[Floats], tuple[Floats, Floats, Floats, Floats]]


@dataclass(frozen=True)
class JointCurve:
    """See the module; implements ``curve.Curve``. m intervals, K axes (mm and degrees)."""

    kin: Kinematics
    points_mm: Floats  # (n + 1, 3) part's frame
    move_s_mm: Floats  # (n + 1,)
    s_mm: Floats  # (m + 1,)
    axes: Floats  # (m + 1, K) plan coordinates
    slope_start: Floats  # (m, K) by path length, at the start of each interval
    slope_end: Floats  # (m, K)
    move: Floats  # (m,) int32
    rest: Floats  # (m + 1,) bool: the machine stands still there

    def axes_at(self, s_mm: Floats) -> Floats:
        """(k, K) mm and degrees, plan coordinates."""
        return self.rates_at(s_mm)[0]

    def rates_at(self, s_mm: Floats) -> tuple[Floats, Floats]:
        """Axes and their derivatives by path length, (k, K)."""
        s = np.asarray(s_mm, dtype=np.float64)
        i = np.clip(np.searchsorted(self.s_mm, s, side="right") - 1, 0, len(self.move) - 1)
        h = (self.s_mm[i + 1] - self.s_mm[i])[:, None]
        x = np.clip((s - self.s_mm[i])[:, None] / h, 0.0, 1.0)
        a, b = self.axes[i], self.axes[i + 1]
        m0, m1 = self.slope_start[i] * h, self.slope_end[i] * h
        two, three = 3.0 * (b - a) - 2.0 * m0 - m1, 2.0 * (a - b) + m0 + m1
        at = np.where(x < 1.0, a + x * (m0 + x * (two + x * three)), b)
        return at, (m0 + x * (2.0 * two + 3.0 * x * three)) / h

    def tip_at(self, s_mm: Floats) -> Floats:
        """(k, 3) mm: the melt pool in the part's frame."""
        return self.kin.forward(self.axes_at(s_mm))[0]

    def longest_mm(self) -> Floats:
        """(m,) mm: way of a straight segment in the axes that keeps within CHORD_MM."""
        middle = 0.5 * (self.s_mm[1:] + self.s_mm[:-1])
        chord, _ = self.kin.forward(0.5 * (self.axes[1:] + self.axes[:-1]))
        off = np.linalg.norm(chord - self.tip_at(middle), axis=1)
        h = np.diff(self.s_mm)
        return np.asarray(h * np.sqrt(CHORD_MM / np.maximum(off, 1e-12)))


@dataclass(frozen=True)
class Piece:
    """A stretch of the path between two standstills; m intervals."""

    s_mm: Floats  # (m + 1,) from 0
    axes: Floats  # (m + 1, K)
    slope: Floats  # (m + 1, K)
    move: Floats  # (m,) int32, from 0
    corner_s_mm: Floats  # (n + 1,)
    tips_mm: Floats  # (n + 1, 3)


def grid_mm(length_mm: float) -> Floats:
    """Path lengths from 0 to ``length_mm``: narrow at both ends, where speed leaves 0."""
    half, steps, at = 0.5 * length_mm, [0.0], 0.0
    step = min(FIRST_STEP_MM, length_mm / 8.0)
    widest = max(WIDEST_STEP_MM, step)
    while at + step < half and step < widest:
        at += step
        steps.append(at)
        step *= GROWTH
    first = np.array(steps)
    n = max(int(np.ceil((length_mm - 2.0 * at) / widest)), 1)
    middle = np.linspace(at, length_mm - at, n + 1)[1:-1]
    return np.concatenate([first, middle, length_mm - first[::-1]])


@dataclass(frozen=True)
class Bounds:
    """Limits that the time law will hold; samples are so dense that it can use them."""

    speed: Floats  # (K,)
    accel: Floats  # (K,)
    path_mm_s: float

    def uneven(self, q0: Floats, q1: Floats, m0: Floats, m1: Floats, h: Floats) -> Floats:
        """(n,) bool: intervals in which an axis' acceleration at full speed changes by much.

        The law holds its bounds over whole intervals, so it would lose time there.
        """
        middle = 3.0 * (q1 - q0) / h - m0 - m1
        r0, r1 = 2.0 * (middle - m0) / h, 2.0 * (m1 - middle) / h
        fast = np.maximum(np.maximum(np.abs(m0), np.abs(m1)), 1e-12)
        bend = np.maximum(np.maximum(np.abs(r0), np.abs(r1)), 1e-12)
        w = np.minimum((self.speed / fast).min(axis=1) ** 2, (self.accel / bend).min(axis=1))
        w = np.minimum(w, self.path_mm_s**2)
        return np.asarray((np.abs(r1 - r0) * w[:, None] > EVEN_SHARE * self.accel).any(axis=1))


def _off_path(
    kin: Kinematics, q0: Floats, q1: Floats, m0: Floats, m1: Floats, h: Floats, x: float
) -> tuple[Floats, Floats]:
    """Axes of the cubics at a share of their length, and the melt pool's way per path length."""
    d0, d1 = m0 * h, m1 * h
    two, three = 3.0 * (q1 - q0) - 2.0 * d0 - d1, 2.0 * (q0 - q1) + d0 + d1
    fit = q0 + x * (d0 + x * (two + x * three))
    slope = (d0 + x * (2.0 * two + 3.0 * x * three)) / h
    ahead, _ = kin.forward(fit + PROBE_MM * slope)
    behind, _ = kin.forward(fit - PROBE_MM * slope)
    return fit, np.linalg.norm(ahead - behind, axis=1) / (2.0 * PROBE_MM)


def sample(
    kin: Kinematics, exact: Exact, s_mm: Floats, bounds: Bounds, where: str
) -> tuple[Floats, Floats, Floats]:
    """Path lengths, axes and slopes so dense that cubics between them keep the path.

    ``s_mm``: to begin with. Raises PlanError where a path cannot be followed.
    """
    s = np.unique(s_mm)
    s = s[np.concatenate([[True], np.diff(s) > LEAST_STEP_MM])]
    s[-1] = s_mm.max()
    _, _, q, dq = exact(s)
    fresh = np.ones(len(s) - 1, dtype=bool)  # intervals not yet looked at
    for _ in range(ROUNDS):
        i = np.flatnonzero(fresh)
        if len(i) == 0:
            return s, q, dq
        h = (s[i + 1] - s[i])[:, None]
        mid = 0.5 * (s[i] + s[i + 1])
        tip, _, exact_q, exact_dq = exact(mid)
        rows = (q[i], q[i + 1], dq[i], dq[i + 1], h)
        fit, _ = _off_path(kin, *rows, 0.5)
        tip_fit, tool_fit = kin.forward(fit)
        _, tool_want = kin.forward(exact_q)  # at the pole the tool axis itself may be off
        # a cubic errs most in its slope at 0.21 and 0.79 of its length
        speed = np.stack([_off_path(kin, *rows, x)[1] for x in (0.21, 0.79)])
        bad = (
            (np.linalg.norm(tip_fit - tip, axis=1) > SAMPLE_MM)
            | (np.linalg.norm(tool_fit - tool_want, axis=1) > SAMPLE_RAD)
            | (np.abs(speed - 1.0).max(axis=0) > SPEED_SHARE)
        )
        narrow = bad & (h[:, 0] < 2.0 * LEAST_STEP_MM)
        if narrow.any():
            at = tip[int(np.argmax(narrow))]
            raise PlanError(
                f"{where}: the axes jump near {np.round(at, 4).tolist()} mm; the path cannot be "
                "followed there"
            )
        bad |= bounds.uneven(*rows) & (h[:, 0] > LEAST_EVEN_MM)
        order = np.argsort(np.concatenate([s, mid[bad]]), kind="stable")
        # both halves of a split interval are looked at next
        begin = np.concatenate([np.zeros(len(s), bool), np.ones(int(bad.sum()), bool)])
        begin[i[bad]] = True
        s = np.concatenate([s, mid[bad]])[order]
        q = np.concatenate([q, exact_q[bad]])[order]
        dq = np.concatenate([dq, exact_dq[bad]])[order]
        fresh = begin[order][:-1]
    raise PlanError(f"{where}: the path in the axes needs samples nearer than {LEAST_STEP_MM} mm")


def straight(axes_from: Floats, axes_to: Floats, length_mm: float, kin: Kinematics) -> Piece:
    """Travel straight in the axes, from rest to rest; its length is the caller's measure."""
    s = grid_mm(length_mm)
    way = (axes_to - axes_from)[None, :]
    axes = axes_from + way * (s / length_mm)[:, None]
    axes[-1] = axes_to
    ends, _ = kin.forward(np.stack([axes_from, axes_to]))
    return Piece(
        s, axes, np.repeat(way / length_mm, len(s), axis=0),
        np.zeros(len(s) - 1, dtype=np.int32), np.array([0.0, length_mm]), ends,
    )  # fmt: skip


def join(pieces: list[Piece], kin: Kinematics) -> JointCurve:
    """Pieces one after another, at rest where they meet."""
    s_parts, corner_parts, base, moves = [np.zeros(1)], [np.zeros(1)], 0.0, 0
    move, rest = [], [np.array([True])]
    for piece in pieces:
        s_parts.append(base + piece.s_mm[1:])
        corner_parts.append(base + piece.corner_s_mm[1:])
        move.append(piece.move + np.int32(moves))
        ends = np.zeros(len(piece.s_mm) - 1, dtype=bool)
        ends[-1] = True
        rest.append(ends)
        base += float(piece.s_mm[-1])
        moves += len(piece.corner_s_mm) - 1
    return JointCurve(
        kin=kin,
        points_mm=np.concatenate([pieces[0].tips_mm[:1], *(p.tips_mm[1:] for p in pieces)]),
        move_s_mm=np.concatenate(corner_parts),
        s_mm=np.concatenate(s_parts),
        axes=np.concatenate([pieces[0].axes[:1], *(p.axes[1:] for p in pieces)]),
        slope_start=np.concatenate([p.slope[:-1] for p in pieces]),
        slope_end=np.concatenate([p.slope[1:] for p in pieces]),
        move=np.concatenate(move).astype(np.int32),
        rest=np.concatenate(rest),
    )

"""What the tool is to do, in the part's frame: places and tool axes along a bead, rounded.

Moves are straight and turn the tool axis at a constant rate on a great circle. At a corner both
are blended, so that speed along the path never jumps: the place by a parabola that touches both
moves (it leaves the corner by d sin(phi/2) / 2 when it begins d before it), the tool axis by a
cubic with the rates of both moves at its ends. Known by path length at the melt pool, exactly:
the length of a parabola is a closed form.
"""

import math
from dataclasses import dataclass

import numpy as np

from controller.errors import PlanError

Floats = np.ndarray

CORNER_MM = 0.0025  # greatest way off a corner; 5 um are allowed with everything else
CORNER_RAD = math.radians(0.05)  # as much for the tool axis
LEAST_LINE_MM = 1e-6
HALF_TURN_RAD = math.radians(179.9)


def _cross(a: Floats, b: Floats) -> Floats:
    return np.stack(
        [
            a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
            a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
            a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        ],
        -1,
    )


def unit_rows(vectors: Floats, where: str) -> Floats:
    """Tool axes as exact unit vectors. Raises PlanError for what is none."""
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise PlanError(f"{where}: tool axes of shape {rows.shape}, needed (n, 3)")
    size = np.linalg.norm(rows, axis=1)
    bad = ~(np.abs(size - 1.0) < 1e-3)
    if bad.any():
        i = int(np.argmax(bad))
        raise PlanError(f"{where}: tool axis {rows[i].tolist()} at point {i} is no unit vector")
    return np.asarray(rows / size[:, None])


def great_circles(tool: Floats, where: str) -> tuple[Floats, Floats]:
    """Angles (n,) and unit tangents at the start (n, 3) of the turns between tool axes."""
    a, b = tool[:-1], tool[1:]
    dot = (a * b).sum(1)
    angle = np.arctan2(np.linalg.norm(_cross(a, b), axis=1), dot)
    if angle.max(initial=0.0) > HALF_TURN_RAD:
        bad = int(np.argmax(angle))
        raise PlanError(
            f"{where}: the tool axis turns by {math.degrees(angle[bad]):.2f} deg in the move after "
            f"point {bad}; which way is not said"
        )
    along = b - dot[:, None] * a
    size = np.linalg.norm(along, axis=1)
    along /= np.maximum(size, 1e-300)[:, None]
    along[size < 1e-14] = 0.0
    return np.where(size < 1e-14, 0.0, angle), along


def _parabola_mm(w: Floats, d: Floats, cos: Floats, sin: Floats) -> Floats:
    """Length from the middle of a parabola to w in [-1, 1]; d cos the rest of its shape."""
    root = np.sqrt(cos * cos + sin * sin * w * w)
    # C^2 / (2 S) asinh(S w / C); for S -> 0 that is C w / 2
    ratio = sin * w / cos
    bend = np.where(
        np.abs(ratio) < 1e-4, 1.0 - ratio * ratio / 6.0, np.arcsinh(ratio) / np.where(
            ratio == 0.0, 1.0, ratio)
    )  # fmt: skip
    return d * 0.5 * w * (root + cos * bend)


@dataclass(frozen=True)
class ToolPath:
    """Elements, line and blend in turn; rows of ``start_mm`` are sorted path lengths."""

    points_mm: Floats  # (n + 1, 3)
    tool: Floats  # (n + 1, 3) unit
    corner_s_mm: Floats  # (n + 1,)
    start_mm: Floats  # (m + 1,) path length where each element begins, and the end
    corner: Floats  # (m,) int64: corner that an element blends, or move of a line
    is_blend: Floats  # (m,) bool
    move_mm: Floats  # (n,) lengths of the moves before rounding
    along: Floats  # (n, 3) unit directions
    rate: Floats  # (n,) rad/mm
    turn_along: Floats  # (n, 3)
    reach_mm: Floats  # (n + 1,) d: way before and after a corner that is rounded
    cos: Floats  # (n + 1,) of half the turn at each corner
    sin: Floats

    @classmethod
    def of(
        cls, points_mm: Floats, tool: Floats, where: str, tolerance_mm: float = CORNER_MM
    ) -> "ToolPath":
        """From distinct points (n + 1, 3) and unit tool axes (n + 1, 3)."""
        points = np.asarray(points_mm, dtype=np.float64)
        step = np.diff(points, axis=0)
        length = np.linalg.norm(step, axis=1)
        if not length.min(initial=1.0) > 0.0:
            raise PlanError(f"{where}: a move of no length")
        along = step / length[:, None]
        angle, turning = great_circles(tool, where)
        rate = angle / length
        n = len(length)
        reach = np.zeros(n + 1)
        cos, sin = np.ones(n + 1), np.zeros(n + 1)
        if n > 1:
            sin[1:-1] = 0.5 * np.linalg.norm(along[1:] - along[:-1], axis=1)
            cos[1:-1] = 0.5 * np.linalg.norm(along[1:] + along[:-1], axis=1)
            # rates before and after, as vectors at the corner's tool axis
            end = turning[:-1] * np.cos(angle[:-1])[:, None] - tool[:-2] * np.sin(
                angle[:-1])[:, None]  # fmt: skip
            jump = np.linalg.norm(turning[1:] * rate[1:, None] - end * rate[:-1, None], axis=1)
            d = 0.5 * np.minimum(length[1:], length[:-1])
            d = np.minimum(d, 2.0 * tolerance_mm / np.maximum(sin[1:-1], 1e-12))
            d = np.minimum(d, 4.0 * CORNER_RAD / np.maximum(jump, 1e-12))
            d[(sin[1:-1] < 1e-9) & (jump < 1e-12)] = 0.0
            reach[1:-1] = d
        line = length - reach[:-1] - reach[1:]
        line[line < LEAST_LINE_MM] = 0.0
        blend = 2.0 * _parabola_mm(np.ones(n + 1), reach, cos, sin)
        sizes = np.empty(2 * n - 1 if n else 0)
        sizes[0::2], sizes[1::2] = line, blend[1:-1]
        start = np.concatenate([[0.0], np.cumsum(sizes)])
        kind = np.arange(2 * n - 1) % 2 == 1
        which = (np.arange(2 * n - 1) + 1) // 2
        corner_s = np.concatenate([[0.0], start[1:-1:2] + 0.5 * blend[1:-1], start[-1:]])
        keep = sizes > 0.0
        return cls(
            points, tool, corner_s, np.concatenate([start[:-1][keep], start[-1:]]), which[keep],
            kind[keep], length, along, rate, turning, reach, cos, sin,
        )  # fmt: skip

    @property
    def length_mm(self) -> float:
        """Path length at the melt pool."""
        return float(self.start_mm[-1])

    def pose_at(self, s_mm: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Place, its derivative, tool axis, its derivative by path length; (k, 3) each."""
        s = np.asarray(s_mm, dtype=np.float64)
        e = np.clip(np.searchsorted(self.start_mm, s, side="right") - 1, 0, len(self.corner) - 1)
        x = np.clip(s - self.start_mm[e], 0.0, self.start_mm[e + 1] - self.start_mm[e])
        bent = self.is_blend[e]
        which = self.corner[e]
        tip, dtip = np.empty((len(s), 3)), np.empty((len(s), 3))
        tool, dtool = np.empty((len(s), 3)), np.empty((len(s), 3))
        flat = ~bent
        if flat.any():
            i = which[flat]
            tip[flat], tool[flat], dtool[flat] = self._on_move(i, self.reach_mm[i] + x[flat])
            dtip[flat] = self.along[i]
        if bent.any():
            half = 0.5 * (self.start_mm[e + 1] - self.start_mm[e])[bent]
            rows = self._on_corner(which[bent], x[bent] - half)
            tip[bent], dtip[bent], tool[bent], dtool[bent] = rows
        return tip, dtip, tool, dtool

    def _on_move(self, i: Floats, way: Floats) -> tuple[Floats, Floats, Floats]:
        """Place, tool axis and its rate ``way`` mm after corner i on move i."""
        turned = (self.rate[i] * way)[:, None]
        cos, sin = np.cos(turned), np.sin(turned)
        a, t = self.tool[i], self.turn_along[i]
        return (
            self.points_mm[i] + way[:, None] * self.along[i],
            a * cos + t * sin,
            self.rate[i][:, None] * (t * cos - a * sin),
        )

    def _on_corner(self, i: Floats, s: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Pose at path length ``s`` (signed) from the middle of the blend at corner i."""
        d, cos, sin = self.reach_mm[i], self.cos[i], self.sin[i]
        whole = _parabola_mm(np.ones_like(d), d, cos, sin)
        w = s / whole
        for _ in range(30):  # Newton: the slope d sqrt(C^2 + S^2 w^2) is never 0
            slope = d * np.sqrt(cos * cos + sin * sin * w * w)
            step = (_parabola_mm(w, d, cos, sin) - s) / slope
            w = np.clip(w - step, -1.0, 1.0)
            if np.abs(step).max(initial=0.0) < 1e-15:
                break
        t = 0.5 * (1.0 + w)[:, None]
        dt = (0.5 / (d * np.sqrt(cos * cos + sin * sin * w * w)))[:, None]  # dt / ds
        before, after = self.along[i - 1] * d[:, None], self.along[i] * d[:, None]
        tip = self.points_mm[i] - before * (1.0 - t) ** 2 + after * t * t
        dtip = 2.0 * (before * (1.0 - t) + after * t) * dt
        _, a, da = self._on_move(i - 1, self.move_mm[i - 1] - d)
        _, b, db = self._on_move(i, d)
        c1 = a + da * (2.0 / 3.0) * d[:, None]  # the parameter runs 2 d per unit at both ends
        c2 = b - db * (2.0 / 3.0) * d[:, None]
        r = 1.0 - t
        raw = a * r**3 + 3.0 * c1 * r * r * t + 3.0 * c2 * r * t * t + b * t**3
        draw = 3.0 * ((c1 - a) * r * r + 2.0 * (c2 - c1) * r * t + (b - c2) * t * t) * dt
        size = np.linalg.norm(raw, axis=1)[:, None]
        tool = raw / size
        dtool = (draw - tool * (tool * draw).sum(1)[:, None]) / size
        return tip, dtip, tool, dtool

    def nearest_to_pole_mm(self) -> Floats:
        """Path lengths within lines at which the tool axis comes nearest to +Z."""
        lines = np.flatnonzero(~self.is_blend)
        i = self.corner[lines]
        turned = np.arctan2(self.turn_along[i, 2], self.tool[i, 2])
        with np.errstate(divide="ignore", invalid="ignore"):
            way = np.where(self.rate[i] > 0.0, turned / self.rate[i], -1.0) - self.reach_mm[i]
        size = self.start_mm[lines + 1] - self.start_mm[lines]
        inside = (way > 0.0) & (way < size)
        return np.asarray(self.start_mm[lines][inside] + way[inside])

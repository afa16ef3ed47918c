"""Where the axes must stand: linear axes move the nozzle, rotary axes turn the table.

The part's frame is the plan's coordinates with every rotary axis at 0. A part's point p goes
with the table to T_1(q_1) T_2(q_2) p, T_k a turn about axis k (listed base to work) through its
centre; there the nozzle must be, pointing straight down. So the tool axis u (from the part to
the nozzle, part's frame) obeys R_1(q_1) R_2(q_2) u = +Z. Angles are radians here and degrees on
the axes; positive turns are right-handed.

Two tables (A or B under C): u = (sin a e(c), cos a) with a unit vector e(c) that C turns; both
(a, c) and (-a, c + 180 deg) serve every u, and at the pole u = Z every c does. One turntable: A
or B follow u in their plane; C cannot tilt, it turns so that the nozzle stays at one side of
its axis.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from controller.config import Cell
from controller.errors import PlanError

Floats = np.ndarray

# tool axes nearer to the C axis than this leave C free: a passing tool axis is off by less, and
POLE_RAD = math.radians(0.2)
# a shaft's or ring's tool axis may lean out of the plane that its table can reach by this
REACH_RAD = math.radians(0.05)
LEAST_RADIUS_MM = 0.05  # nearer to the centre a turntable has no side to keep the nozzle at
_PLANE = {"A": (1, 2), "B": (2, 0), "C": (0, 1)}  # positive turns take the first to the second


def turn(name: str, angle_rad: Floats, vectors: Floats) -> Floats:
    """Vectors (..., 3) turned about X, Y, Z (axis A, B, C)."""
    i, j = _PLANE[name]
    out = np.array(vectors, dtype=np.float64)
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    out[..., i] = vectors[..., i] * cos - vectors[..., j] * sin
    out[..., j] = vectors[..., i] * sin + vectors[..., j] * cos
    return out


def _quarter(name: str, vectors: Floats) -> Floats:
    """Derivative of a turn by its angle, at vectors that are turned already."""
    i, j = _PLANE[name]
    out = np.zeros_like(vectors)
    out[..., i], out[..., j] = -vectors[..., j], vectors[..., i]
    return out


@dataclass(frozen=True)
class Table:
    """One rotary axis; its centre in plan coordinates (machine minus work offset)."""

    name: str
    centre_mm: Floats  # (3,)
    least_rad: float
    most_rad: float


@dataclass(frozen=True)
class Kinematics:
    """A cell's way from part to axes. ``tables`` base to work, none for plain XYZ."""

    name: str
    tables: tuple[Table, ...]

    @classmethod
    def of_cell(cls, cell: Cell) -> "Kinematics":
        """From the cell file; centres moved into plan coordinates."""
        motion = cell.motion
        offset = np.array(motion.work_offset_mm)
        return cls(
            motion.kinematics,
            tuple(
                Table(
                    a.name,
                    np.array(a.centre_mm) - offset,
                    math.radians(a.range_deg[0]),
                    math.radians(a.range_deg[1]),
                )
                for a in motion.rotary
            ),
        )

    @property
    def tilts(self) -> bool:
        """Two tables: any tool axis within their ranges."""
        return len(self.tables) == 2

    def forward(self, axes: Floats) -> tuple[Floats, Floats]:
        """Tip (n, 3) mm and tool axis (n, 3), part's frame, at axes (n, 3 + r) mm and degrees."""
        q = np.asarray(axes, dtype=np.float64)
        tip = q[..., :3].copy()
        tool = np.zeros_like(tip)
        tool[..., 2] = 1.0
        for k, table in enumerate(self.tables):  # what the base has turned is turned back first
            angle = -np.radians(q[..., 3 + k])
            tip = turn(table.name, angle, tip - table.centre_mm) + table.centre_mm
            tool = turn(table.name, angle, tool)
        return tip, tool

    def place(
        self, tip_mm: Floats, dtip: Floats, angles: Floats, dangles: Floats
    ) -> tuple[Floats, Floats]:
        """Axes and their derivatives, (n, 3 + r) mm and degrees.

        ``tip_mm`` (n, 3) part's frame, ``angles`` (n, r) radians, and both by path length.
        """
        x, dx = np.array(tip_mm), np.array(dtip)
        for k in reversed(range(len(self.tables))):
            table = self.tables[k]
            arm = turn(table.name, angles[:, k], x - table.centre_mm)
            dx = turn(table.name, angles[:, k], dx)
            dx += dangles[:, k, None] * _quarter(table.name, arm)
            x = arm + table.centre_mm
        return (
            np.concatenate([x, np.degrees(angles)], axis=1),
            np.concatenate([dx, np.degrees(dangles)], axis=1),
        )

    # ---- two tables ----------------------------------------------------------------------

    def lean(self, c: Floats) -> tuple[Floats, Floats]:
        """e(c) and its derivative, (n, 2): where a positive tilt leans the tool axis."""
        cos, sin = np.cos(c), np.sin(c)
        if self.tables[0].name == "A":
            return np.stack([sin, cos], -1), np.stack([cos, -sin], -1)
        return np.stack([-cos, sin], -1), np.stack([sin, cos], -1)

    def azimuth(self, tool: Floats) -> Floats:
        """c for a positive tilt, radians in (-pi, pi]; 0 at the pole."""
        if self.tables[0].name == "A":
            return np.arctan2(tool[..., 0], tool[..., 1])
        return np.arctan2(tool[..., 1], -tool[..., 0])

    def tilt(self, tool: Floats, dtool: Floats, c: Floats, dc: Floats) -> tuple[Floats, Floats]:
        """The tilt that comes nearest to ``tool`` at a given c, and its derivative.

        Exact where c is the tool axis' own (or opposite to it); smooth through the pole.
        """
        e, de = self.lean(c)
        h = (tool[:, :2] * e).sum(1)
        dh = (dtool[:, :2] * e).sum(1) + dc * (tool[:, :2] * de).sum(1)
        z, dz = tool[:, 2], dtool[:, 2]
        return np.arctan2(h, z), (dh * z - h * dz) / np.maximum(h * h + z * z, 1e-30)

    # ---- one table -----------------------------------------------------------------------

    def own_angle(
        self, tip: Floats, dtip: Floats, tool: Floats, dtool: Floats
    ) -> tuple[Floats, Floats]:
        """The turntable's angle in (-pi, pi] up to a constant (C), and its derivative."""
        table = self.tables[0]
        if table.name == "C":
            arm = tip[:, :2] - table.centre_mm[:2]
            r2 = np.maximum((arm * arm).sum(1), 1e-30)
            rate = (arm[:, 0] * dtip[:, 1] - arm[:, 1] * dtip[:, 0]) / r2
            return -np.arctan2(arm[:, 1], arm[:, 0]), -rate
        x, dx = (tool[:, 1], dtool[:, 1]) if table.name == "A" else (-tool[:, 0], -dtool[:, 0])
        z, dz = tool[:, 2], dtool[:, 2]
        return np.arctan2(x, z), (dx * z - x * dz) / np.maximum(x * x + z * z, 1e-30)

    def check_reach(self, tip: Floats, tool: Floats, where: str) -> None:
        """PlanError where a single turntable cannot bring a tool axis upright."""
        if self.tilts or not self.tables:
            return
        name = self.tables[0].name
        if name == "C":
            off = np.arctan2(np.hypot(tool[:, 0], tool[:, 1]), tool[:, 2])
            what = "along Z"
            radius = np.hypot(*(tip[:, :2] - self.tables[0].centre_mm[:2]).T)
            if radius.min() < LEAST_RADIUS_MM:
                raise PlanError(
                    f"{where}: comes within {radius.min():.3f} mm of axis C, below "
                    f"{LEAST_RADIUS_MM:g} mm; without a tool axis the linear axes draw it"
                )
        else:
            column = 0 if name == "A" else 1
            off = np.abs(np.arcsin(np.clip(tool[:, column], -1.0, 1.0)))
            what = f"across axis {name}"
        if off.max() > REACH_RAD:
            bad = int(np.argmax(off))
            raise PlanError(
                f"{where}: tool axis {np.round(tool[bad], 4).tolist()} leans "
                f"{math.degrees(off[bad]):.3f} deg, a turntable with axis {name} needs it {what} "
                f"within {math.degrees(REACH_RAD):g} deg"
            )


def home_axes(cell: Cell) -> Floats:
    """(K,) plan coordinates of every axis where homing leaves it: step 0. mm and degrees."""
    motion = cell.motion
    home = np.array([a.home for a in motion.machine_axes])
    home[:3] += np.array(motion.tool_offset_mm) - np.array(motion.work_offset_mm)
    return home


def tip_of_steps(cell: Cell) -> Callable[[Sequence[int]], tuple[float, float, float]]:
    """A function from positions in steps to the melt pool in the part's frame, mm.

    Plain numbers, for it is called with every status of the motion controller.
    """
    kin = Kinematics.of_cell(cell)
    home = home_axes(cell).tolist()
    per_step = [1.0 / a.steps_per_unit for a in cell.motion.machine_axes]
    tables = [
        (3 + k, *_PLANE[t.name], t.centre_mm.tolist(), -math.radians(per_step[3 + k]))
        for k, t in enumerate(kin.tables)
    ]
    cos, sin = math.cos, math.sin

    def tip(steps: Sequence[int]) -> tuple[float, float, float]:
        p = [home[k] + steps[k] * per_step[k] for k in range(3)]
        for column, i, j, centre, rad_per_step in tables:
            if steps[column]:
                angle = steps[column] * rad_per_step
                c, s = cos(angle), sin(angle)
                a, b = p[i] - centre[i], p[j] - centre[j]
                p[i], p[j] = centre[i] + a * c - b * s, centre[j] + a * s + b * c
        return p[0], p[1], p[2]

    return tip

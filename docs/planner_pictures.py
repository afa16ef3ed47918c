"""Pictures of docs/planner.md, made from the planner's own results.

    python docs/planner_pictures.py [--out DIR]

Called by ``docs/make_pictures.py`` too. Nothing is drawn by hand: each curve is a profile, a
plan or a simulated powder line made here and now.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controller.config import load_cell
from controller.model import Track, TrackKind
from controller.planning.light.gate import solve_gates
from controller.planning.light.power import plan_power
from controller.planning.motion.joint_law import plan_joint_profile
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits, Profile
from controller.planning.path.motion_path import build_path
from controller.planning.path.rounding import round_path
from controller.planning.powder.line import Line, NozzleFlow, invert
from controller.recipes import load_recipe

ROOT = Path(__file__).resolve().parents[1]
INK, MUTED, FAINT = "#1d2733", "#5c6875", "#d5dae0"
COLOURS = {"trapezoid": "#8a94a0", "friction_circle": "#1f5fa8", "jerk": "#b0562c"}
NAMES = {"trapezoid": "trapezoid", "friction_circle": "friction circle", "jerk": "jerk"}
DPI = 110
# limits of the figures that the planner is measured with
LIMITS = MotionLimits(
    accel_mm_s2=2000.0,
    jerk_mm_s3=50_000.0,
    junction_deviation_mm=0.01,
    path_tolerance_mm=0.02,
    axis_speed_mm_s=np.full(3, 1e9),
    axis_accel_mm_s2=np.full(3, 1e9),
)
SPEED_MM_S = 50.0


def _axes(figure: Figure, place: int, title: str, x: str, y: str) -> Axes:
    ax = figure.add_subplot(place)
    ax.set_title(title, loc="left", color=INK, fontsize=11, weight="bold")
    ax.set_xlabel(x, color=MUTED)
    ax.set_ylabel(y, color=MUTED)
    ax.tick_params(colors=MUTED, labelsize=9)
    for name, side in ax.spines.items():
        side.set_visible(name in ("left", "bottom"))
        side.set_color(FAINT)
    ax.grid(color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def wavy(moves: int = 120, chord_mm: float = 0.1) -> np.ndarray:
    """A ripple of 0.5 mm each 3.5 mm in chords of 0.1 mm, then a corner; (n + 1, 3) mm."""
    x = np.linspace(0.0, moves * chord_mm, 4000)
    y = 0.5 * np.cos(2.0 * np.pi * x / 3.5)
    s = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    at = np.arange(0.0, s[-1], chord_mm)
    points = np.stack([np.interp(at, s, x), np.interp(at, s, y), np.zeros(len(at))], axis=1)
    corner = points[-1] + np.array([[4.0, 0.0, 0.0], [4.0, 5.0, 0.0]])
    return np.concatenate([points, corner])


def states(profile: Profile, step_s: float = 1e-4) -> tuple[np.ndarray, ...]:
    """Instants, path lengths, speeds and accelerations along the path."""
    t = np.arange(0.0, profile.duration_s, step_s)
    return (t, *profile.state_at(t))


def total_accel(profile: Profile, step_s: float = 2e-4) -> tuple[np.ndarray, np.ndarray]:
    """Path lengths and |acceleration| by second differences of places."""
    t = np.arange(0.0, profile.duration_s, step_s)
    s = profile.state_at(t)[0]
    place = profile.curve.tip_at(s)
    accel = (place[2:] - 2.0 * place[1:-1] + place[:-2]) / step_s**2
    return s[1:-1], np.linalg.norm(accel, axis=1)


def laws_picture() -> Figure:
    """Speed and total acceleration of the three laws over one path."""
    figure = Figure(figsize=(11.0, 7.4), dpi=DPI, facecolor="white")
    points = wavy()
    path = _axes(figure, 311, "The path: ripples in chords of 0.1 mm, then a corner", "", "y, mm")
    path.plot(points[:, 0], points[:, 1], color=INK, linewidth=1.2)
    path.set_aspect("equal")
    speed = _axes(figure, 312, "Speed", "", "mm/s")
    accel = _axes(figure, 313, "Total acceleration (differences of places, 0.2 ms)",
                  "path length, mm", "mm/s²")  # fmt: skip
    for mode in COLOURS:
        profile = plan_profile(points, np.full(len(points) - 1, SPEED_MM_S), LIMITS, mode)
        _, s, v, _ = states(profile)
        name = f"{NAMES[mode]}, {profile.duration_s:.3f} s"
        speed.plot(s, v, color=COLOURS[mode], linewidth=1.4, label=name)
        if mode != "jerk":
            accel.plot(*total_accel(profile), color=COLOURS[mode], linewidth=1.0)
    accel.axhline(LIMITS.accel_mm_s2, color=INK, linewidth=0.8, linestyle=(0, (5, 4)))
    accel.set_ylim(0.0, 4200.0)
    accel.text(0.2, LIMITS.accel_mm_s2 + 90.0, "limit", color=INK, fontsize=9)
    speed.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower center", ncols=3)
    figure.tight_layout()
    return figure


def rounding_picture() -> Figure:
    """A corner and what the tolerance leaves of it."""
    figure = Figure(figsize=(11.0, 4.2), dpi=DPI, facecolor="white")
    points = np.array([[0.0, 0, 0], [0.4, 0, 0], [0.4, 0.4, 0]])
    ax = _axes(figure, 121, "A corner rounded within 0.02 and 0.05 mm", "x, mm", "y, mm")
    ax.plot(points[:, 0], points[:, 1], color=FAINT, linewidth=5.0, solid_joinstyle="miter")
    for tolerance, colour in ((0.02, COLOURS["friction_circle"]), (0.05, COLOURS["jerk"])):
        curve = round_path(points, tolerance).curve
        place = curve.tip_at(np.linspace(0.0, curve.move_s_mm[-1], 600))
        ax.plot(place[:, 0], place[:, 1], color=colour, linewidth=1.4,
                label=f"path_tolerance {tolerance:g} mm")  # fmt: skip
    ax.set_xlim(0.2, 0.45)
    ax.set_ylim(-0.05, 0.2)
    ax.set_aspect("equal")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")
    ax = _axes(figure, 122, "Chords of a curve: arcs through their middles", "x, mm", "y, mm")
    angle = np.linspace(0.2, 1.5, 4)
    chords = np.stack([np.cos(angle), np.sin(angle), np.zeros(4)], axis=1)
    fine = np.linspace(0.2, 1.5, 400)
    ax.plot(np.cos(fine), np.sin(fine), color=MUTED, linewidth=0.9, label="the curve meant")
    ax.plot(chords[:, 0], chords[:, 1], "o-", color=FAINT, linewidth=3.0, markersize=5,
            label="its chords")  # fmt: skip
    curve = round_path(chords, 0.2).curve
    place = curve.tip_at(np.linspace(0.0, curve.move_s_mm[-1], 800))
    ax.plot(place[:, 0], place[:, 1], color=COLOURS["friction_circle"], linewidth=1.3,
            label="what is travelled")  # fmt: skip
    ax.set_aspect("equal")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    figure.tight_layout()
    return figure


def jerk_picture() -> Figure:
    """Speed, acceleration and jerk over time on a few moves."""
    figure = Figure(figsize=(11.0, 5.6), dpi=DPI, facecolor="white")
    points = np.array([[0.0, 0, 0], [3, 0, 0], [4.2, 0.25, 0], [5.0, 0.8, 0], [9, 3.4, 0]])
    speed = _axes(figure, 311, "Speed", "", "mm/s")
    accel = _axes(figure, 312, "Acceleration along the path", "", "mm/s²")
    jerk = _axes(figure, 313, "Jerk along the path", "time, s", "1000 mm/s³")
    for mode in ("trapezoid", "jerk"):
        profile = plan_profile(points, np.full(4, SPEED_MM_S), LIMITS, mode)
        t, _, v, a = states(profile, 2e-5)
        speed.plot(t, v, color=COLOURS[mode], linewidth=1.4, label=NAMES[mode])
        accel.plot(t, a, color=COLOURS[mode], linewidth=1.2)
        if mode == "jerk":
            jerk.stairs(profile.j_mm_s3 * 1e-3, profile.t_s, baseline=None,
                        color=COLOURS[mode], linewidth=1.2)  # fmt: skip
    speed.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=2)
    figure.tight_layout()
    return figure


def power_picture() -> Figure:
    """One bead with a corner: speed, power at the workpiece, gate, over time."""
    cell, _ = load_cell("sim")
    recipe, _ = load_recipe("316l_general")
    xy = np.array([[140.0, 150.0], [146.0, 150.0], [146.0, 153.0]])
    bead = Track(0, TrackKind.HATCH, np.column_stack([xy, np.full(3, 10.55)]))
    path = build_path([bead], recipe, cell)
    profile = plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(cell))
    gates = solve_gates(path, profile, cell.laser)
    curve = plan_power(path, profile, gates, cell.laser)
    on, off = float(gates.on_s[0]), float(gates.off_s[0])
    corner = float(profile.time_at(profile.move_s_mm[path.beads["first_move"][0] + 1])[0])
    figure = Figure(figsize=(11.0, 5.0), dpi=DPI, facecolor="white")
    spans = ((on - 0.03, on + 0.14), (corner - 0.03, corner + 0.03), (off - 0.12, off + 0.03))
    titles = (
        "Gate opens at full speed",
        "A corner: power follows speed",
        "Gate shuts at full speed",
    )
    for column, (span, title) in enumerate(zip(spans, titles, strict=True)):
        t = np.linspace(*span, 3000)
        v = profile.state_at(t)[1]
        upper = _axes(figure, 231 + column, title, "", "mm/s" if column == 0 else "")
        upper.plot((t - on) * 1e3, v, color=INK, linewidth=1.4)
        upper.set_ylim(0.0, 1.25 * path.beads["speed_mm_s"][0])
        lower = _axes(figure, 234 + column, "", "ms after light on", "W" if column == 0 else "")
        light = np.where((t >= on) & (t < off), np.interp(t, curve.t_s, curve.power_w), 0.0)
        command = curve.command_w(t)
        lower.plot((t - on) * 1e3, command, color=COLOURS["trapezoid"], linewidth=1.2,
                   label="command, 3 ms ahead")  # fmt: skip
        lower.plot((t - on) * 1e3, light, color=COLOURS["jerk"], linewidth=1.5,
                   label="light at the workpiece")  # fmt: skip
        lower.set_ylim(-20.0, 700.0)
        if column == 0:
            lower.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right")
    figure.tight_layout()
    return figure


def powder_picture() -> Figure:
    """A change of flow at the nozzle: wanted, commanded ahead, and what is without that."""
    line = Line(0, 3.2, 0.6, 0.0, 20.0)
    t_s = np.array([6.0, 6.6, 14.0, 14.6])
    flow = np.array([4.0, 9.0, 9.0, 5.0])
    sent_s, sent = invert(line, t_s, flow, flow_before_g_min=4.0, command_before_g_min=4.0)
    wanted_t = np.concatenate([[0.0], t_s, [22.0]])
    wanted = np.concatenate([[4.0], flow, [5.0]])
    t = np.linspace(0.0, 22.0, 4000)
    before_s, before = np.array([-30.0]), np.array([4.0])
    ours = NozzleFlow.of(np.concatenate([before_s, sent_s]), np.concatenate([before, sent]), line)
    plain = NozzleFlow.of(np.array([-30.0, 6.3, 14.3]), np.array([4.0, 9.0, 5.0]), line)
    figure = Figure(figsize=(11.0, 4.0), dpi=DPI, facecolor="white")
    ax = _axes(figure, 111, "Powder at the nozzle: delay 3.2 s, lag 0.6 s", "time, s", "g/min")
    ax.plot(wanted_t, wanted, color=FAINT, linewidth=6.0, label="wanted at the nozzle")
    ax.step(np.concatenate([[0.0], sent_s, [22.0]]), np.concatenate([[4.0], sent, sent[-1:]]),
            where="post", color=COLOURS["trapezoid"], linewidth=1.0,
            label="commands, ahead of time")  # fmt: skip
    ax.plot(t, ours.at(t)[0], color=COLOURS["friction_circle"], linewidth=1.5,
            label="flow that they make")  # fmt: skip
    ax.plot(t, plain.at(t)[0], color=COLOURS["jerk"], linewidth=1.2, linestyle=(0, (5, 3)),
            label="commanded when wanted")  # fmt: skip
    ax.set_ylim(0.0, 15.0)
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=2, loc="upper right")
    figure.tight_layout()
    return figure


def axes_picture() -> Figure:
    """A bead whose tool axis swings past the pole: angles, and speed at the melt pool."""
    cell, _ = load_cell("sim_ac")
    recipe, _ = load_recipe("316l_general")
    figure = Figure(figsize=(11.0, 5.6), dpi=DPI, facecolor="white")
    tilt = _axes(figure, 311, "Tilt A", "", "degrees")
    turn = _axes(figure, 312, "Turn C", "", "degrees")
    speed = _axes(figure, 313, "Speed at the melt pool", "place along the bead, mm", "mm/s")
    for off_deg, colour in zip((0.0, 1.0, 5.0), COLOURS.values(), strict=True):
        lean, beside = np.radians(40.0) * np.linspace(-1, 1, 41), np.radians(off_deg)
        place = np.column_stack([150 + np.linspace(-20, 20, 41), np.full(41, 150.0),
                                 np.full(41, 80.55)])  # fmt: skip
        tool = np.column_stack([np.sin(lean) * np.cos(beside), np.full(41, np.sin(beside)),
                                np.cos(lean) * np.cos(beside)])  # fmt: skip
        path = build_path([Track(0, TrackKind.HATCH, place, tool_axis=tool)], recipe, cell)
        assert path.joints is not None
        profile = plan_joint_profile(path.joints, path.speed_mm_s, cell, "friction_circle")
        bead = path.beads[0]
        first = profile.move_s_mm[bead["first_move"]]
        s = np.linspace(first, profile.move_s_mm[bead["end_move"]], 4000)
        at = profile.curve.axes_at(s)
        name = "through the pole" if off_deg == 0 else f"{off_deg:g}° beside it"
        tilt.plot(s - first - 20.0, at[:, 3], color=colour, linewidth=1.3)
        turn.plot(s - first - 20.0, at[:, 4], color=colour, linewidth=1.3)
        v = profile.state_at(profile.time_at(s))[1]
        speed.plot(s - first - 20.0, v, color=colour, linewidth=1.3, label=name)
    speed.set_ylim(0.0, 11.0)
    speed.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    figure.tight_layout()
    return figure


PICTURES = {
    "planner_axes": axes_picture,
    "planner_laws": laws_picture,
    "planner_rounding": rounding_picture,
    "planner_jerk": jerk_picture,
    "planner_power": power_picture,
    "planner_powder": powder_picture,
}


def make(out: Path) -> list[Path]:
    """All pictures; their paths."""
    made = []
    for name, draw in PICTURES.items():
        path = out / f"{name}.png"
        draw().savefig(path, metadata={"Software": None})
        made.append(path)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the pictures of docs/planner.md.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for made_path in make(folder):
        print(made_path.name)

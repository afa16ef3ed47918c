"""Pictures of a plan and of what was executed: tracks drawn as beads of their true width.

The view is an orthographic projection with the beads sorted from low to high, each drawn
as a line as wide as the bead and shaded by its direction: a deposit looks like a deposit,
and 40,000 beads take well under a second (matplotlib's own 3-D axes: several).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controller.errors import RecordError
from controller.model import BuildPlan
from controller.record.beads import Beads, beads_of_plan
from controller.record.summary import cell_of

COLOUR_BY = ("power", "speed", "energy", "time", "layer")
INK, MUTED, FAINT = "#1d2733", "#5c6875", "#c9d0d8"
_LABEL = {
    "power": "laser power, W",
    "speed": "speed, mm/s",
    "energy": "energy per length, J/mm",
    "time": "plan time, s",
    "layer": "layer",
}
_MAP = {"power": "heat", "speed": "viridis", "energy": "heat", "time": "plasma", "layer": "viridis"}
_HEAT = (0.04, 0.80)  # part of the inferno map: full power is a glowing orange, not pale yellow


def colour_map(name: str) -> Any:
    """A colour map by name: "heat", or any of matplotlib's."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if name != "heat":
        return colormaps[name]
    return LinearSegmentedColormap.from_list("heat", colormaps["inferno"](np.linspace(*_HEAT, 64)))


def limits_of(values: np.ndarray, at_least: float = 0.0) -> tuple[float, float]:
    """A colour range that shows what varies: 1st to 99th percentile, never empty."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(known, [1, 99]))
    span = max(at_least, 0.02 * max(abs(low), abs(high)), 1e-9)
    if high - low < span:
        low, high = (low + high - span) / 2, (low + high + span) / 2
    return low, high


def draw_view(
    ax: Any,
    beads: Beads,
    values: np.ndarray,
    cmap: str,
    limits: tuple[float, float],
    *,
    view_deg: tuple[float, float] = (-58.0, 32.0),
    plate_mm: tuple[Sequence[float], Sequence[float], float] | None = None,
    unknown: str = "#b8bfc8",
) -> Any:
    """Draw beads in an orthographic view on ``ax``; returns a mappable for a colour bar.

    ``view_deg``: azimuth and elevation of the eye. ``plate_mm``: centre, size and top of the
    substrate; only the part near the beads is drawn.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize
    from matplotlib.patches import Polygon

    ax.set_axis_off()
    ax.set_aspect("equal", adjustable="box", anchor="C")
    mappable = ScalarMappable(Normalize(*limits), colour_map(cmap))
    if len(beads) == 0:
        ax.text(0.5, 0.5, "no deposit", ha="center", va="center", color=MUTED,
                transform=ax.transAxes)  # fmt: skip
        return mappable
    project, depth = _camera(view_deg)
    ends = np.concatenate([beads.start_mm, beads.end_mm])
    low, high = ends.min(0), ends.max(0)
    pad = beads.width_mm
    ground = [ends]
    if plate_mm is not None:
        corners = _plate_corners(plate_mm, low, high)
        ground.append(corners)
        ax.add_patch(
            Polygon(project(corners), closed=True, fc="#e6e9ed", ec="#aab3bd", lw=0.7, zorder=0)
        )
    shown = project(np.concatenate(ground))
    box_low, box_high = shown.min(0) - pad, shown.max(0) + pad
    ax.set_xlim(box_low[0], box_high[0])
    ax.set_ylim(box_low[1], box_high[1])

    # Seen from above, a sight line meets the higher bead first: by height, then from far to
    # near, no bead is drawn over one that hides it, however long the beads are.
    middle = (beads.start_mm + beads.end_mm) / 2
    order = np.lexsort((depth(middle), np.round(middle[:, 2], 3)))
    colours = mappable.to_rgba(np.nan_to_num(values, nan=limits[0]))
    colours[~np.isfinite(values)] = _rgba(unknown)
    colours[:, :3] *= _shade(beads)[:, None]
    lines = np.stack([project(beads.start_mm), project(beads.end_mm)], axis=1)[order]
    ax.figure.canvas.draw_idle()
    size = ax.get_position()
    width_in = size.width * ax.figure.get_figwidth()
    height_in = size.height * ax.figure.get_figheight()
    span = box_high - box_low
    points_per_mm = 72 * min(width_in / span[0], height_in / span[1])
    ax.add_collection(
        LineCollection(
            list(lines),
            colors=colours[order],
            linewidths=max(0.5, beads.width_mm * points_per_mm * 0.92),
            capstyle="round",
            zorder=2,
            rasterized=True,
        )
    )
    _scale_bar(ax, box_low, box_high)
    _triad(ax, project, box_low, box_high)
    return mappable


def _camera(view_deg: tuple[float, float]) -> tuple[Any, Any]:
    """Projection to the screen and depth (larger is nearer) of (n, 3) points."""
    azimuth, elevation = np.radians(view_deg)
    towards = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    up = np.cross(towards, right)
    plane = np.stack([right, up], axis=1)
    return (lambda points: points @ plane), (lambda points: points @ towards)


def _shade(beads: Beads) -> np.ndarray:
    """Brightness by direction (light from the upper left) and a hint of every other layer."""
    along = beads.end_mm - beads.start_mm
    length = np.maximum(np.linalg.norm(along, axis=1), 1e-9)
    angle = np.abs((along[:, 0] * 0.5 + along[:, 1] * 0.85) / length)
    return (1.0 - 0.30 * angle) * np.where(beads.layer % 2 == 0, 1.0, 0.90)


def _plate_corners(plate: Any, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    center, size, top = plate
    margin = 0.06 * float(max(high[0] - low[0], high[1] - low[1])) + 2.0
    x0 = max(center[0] - size[0] / 2, low[0] - margin)
    x1 = min(center[0] + size[0] / 2, high[0] + margin)
    y0 = max(center[1] - size[1] / 2, low[1] - margin)
    y1 = min(center[1] + size[1] / 2, high[1] + margin)
    return np.array([[x0, y0, top], [x1, y0, top], [x1, y1, top], [x0, y1, top]])


def _scale_bar(ax: Any, low: np.ndarray, high: np.ndarray) -> None:
    span = high[0] - low[0]
    length = _round_length(span * 0.22)
    x = high[0] - length - 0.02 * span
    y = low[1] + 0.015 * (high[1] - low[1])
    ax.plot([x, x + length], [y, y], color=INK, lw=1.6, solid_capstyle="butt", zorder=5)
    ax.annotate(f"{length:g} mm", (x + length / 2, y), xytext=(0, 3), ha="center", va="bottom",
                textcoords="offset points", fontsize=7, color=INK, zorder=5)  # fmt: skip


def _triad(ax: Any, project: Any, low: np.ndarray, high: np.ndarray) -> None:
    size = 0.07 * float(max(high - low))
    flat = project(np.eye(3) * size)
    origin = low + np.array([0.05, 0.035]) * (high - low) + np.array([size * 0.6, size * 0.2])
    for name, tip in zip("XYZ", flat, strict=True):
        ax.annotate("", origin + tip, origin, zorder=5,
                    arrowprops={"arrowstyle": "-|>", "color": MUTED, "lw": 0.9,
                                "mutation_scale": 6, "shrinkA": 0, "shrinkB": 0})  # fmt: skip
        ax.text(*(origin + tip * 1.3), name, fontsize=6.5, color=MUTED, ha="center", va="center",
                zorder=5)  # fmt: skip


def _round_length(wanted: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above ``wanted``."""
    power = 10.0 ** np.floor(np.log10(max(wanted, 1e-6)))
    return float(next(m * power for m in (5.0, 2.0, 1.0) if m * power <= wanted * 1.0001))


def _rgba(colour: str) -> tuple[float, float, float, float]:
    from matplotlib.colors import to_rgba

    return to_rgba(colour)


def plate_of(plan: BuildPlan) -> tuple[Sequence[float], Sequence[float], float] | None:
    """Centre, size and top of the substrate, from the job's cell."""
    cell = cell_of(plan)
    if cell is None:
        return None
    return cell.substrate.center_mm, cell.substrate.size_mm, cell.substrate.top_mm


def show_job(
    plan: BuildPlan, png_path: Path, colour_by: str = "power", layer: int | None = None
) -> Path:
    """Draw a job into a PNG: the whole part in 3-D, or one layer seen from above.

    Raises RecordError for an unknown ``colour_by``, a layer the job does not have, or a path
    that cannot be written.
    """
    if colour_by not in COLOUR_BY:
        raise RecordError(f"colour {colour_by!r} is not one of {', '.join(COLOUR_BY)}")
    png_path = Path(png_path)
    if png_path.suffix.lower() != ".png":
        raise RecordError(f"{png_path}: pictures are PNG, the name must end in .png")
    if layer is not None:
        present = sorted(np.unique(plan.tracks["layer"]).tolist())
        if layer not in present:
            raise RecordError(
                f"layer {layer} is not in the job, it has layers {present[0]} to {present[-1]}"
                if present
                else f"layer {layer} is not in the job, it deposits nothing"
            )
    beads = beads_of_plan(plan, layer=layer)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 6.4), dpi=150, facecolor="white")
    values = beads.values[colour_by]
    limits = limits_of(values)
    if layer is None:
        ax = figure.add_axes((0.02, 0.03, 0.84, 0.87))
        mappable = draw_view(ax, beads, values, _MAP[colour_by], limits, plate_mm=plate_of(plan))
    else:
        ax = figure.add_axes((0.09, 0.09, 0.75, 0.80))
        mappable = _draw_layer(ax, beads, values, _MAP[colour_by], limits, layer)
    bar = figure.colorbar(mappable, cax=figure.add_axes((0.885, 0.16, 0.018, 0.62)))
    bar.set_label(_LABEL[colour_by], color=INK, fontsize=9)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]
    if colour_by == "layer":
        from matplotlib.ticker import MaxNLocator

        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    name = plan.part.get("name") or "job"
    title = f"{name}" if layer is None else f"{name}, layer {layer}"
    figure.text(0.03, 0.955, title, fontsize=14, weight="bold", color=INK, va="center")
    figure.text(0.03, 0.918, _caption(plan, beads, layer), fontsize=8.5, color=MUTED, va="center")
    part = png_path.with_name(png_path.name + ".part")
    try:
        figure.savefig(part, format="png", metadata={"Software": "lmd-controller"})
        os.replace(part, png_path)
    except OSError as exc:
        part.unlink(missing_ok=True)
        raise RecordError(f"{png_path}: cannot be written ({exc.strerror})") from None
    return png_path


def _draw_layer(
    ax: Any, beads: Beads, values: np.ndarray, cmap: str, limits: tuple[float, float], layer: int
) -> Any:
    """One layer from above, in machine coordinates, with travel and the tracks' starts."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    mappable = ScalarMappable(Normalize(*limits), colour_map(cmap))
    ends = np.concatenate([beads.start_mm, beads.end_mm])[:, :2]
    pad = beads.width_mm * 0.5 + 0.06 * float(np.ptp(ends, axis=0).max())
    low, high = ends.min(0) - pad, ends.max(0) + pad
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    ax.set_aspect("equal", adjustable="box")
    size = ax.get_position()
    span = high - low
    points_per_mm = 72 * min(
        size.width * ax.figure.get_figwidth() / span[0],
        size.height * ax.figure.get_figheight() / span[1],
    )
    lines = np.stack([beads.start_mm[:, :2], beads.end_mm[:, :2]], axis=1)
    colours = mappable.to_rgba(values)
    wide = beads.width_mm * points_per_mm
    ax.add_collection(LineCollection(list(lines), colors="#dfe3e8", linewidths=wide,
                                     capstyle="round", zorder=1))  # fmt: skip
    ax.add_collection(LineCollection(list(lines), colors=colours, linewidths=wide * 0.55,
                                     capstyle="round", zorder=2))  # fmt: skip
    here = beads.travel_mm[beads.travel_layer == layer][:, :, :2]
    ax.add_collection(LineCollection(list(here), colors="#7b8794", linewidths=0.8,
                                     linestyles=(0, (4, 3)), zorder=3))  # fmt: skip
    begins = np.flatnonzero(
        np.append(True, np.linalg.norm(lines[1:, 0] - lines[:-1, 1], axis=1) > 1e-3)
    )
    ax.plot(*lines[begins, 0].T, ls="none", marker="o", ms=4.5, mfc="white", mec=INK, mew=1.0,
            zorder=4, label="track start")  # fmt: skip
    ax.plot([], [], color="#7b8794", lw=0.8, ls=(0, (4, 3)), label="travel, gate shut")
    ax.legend(loc="upper right", fontsize=7.5, frameon=True, edgecolor=FAINT)
    ax.set_xlabel("X, mm", color=INK, fontsize=9)
    ax.set_ylabel("Y, mm", color=INK, fontsize=9)
    ax.tick_params(labelsize=8, colors=INK)
    ax.grid(color=FAINT, lw=0.5)
    ax.set_axisbelow(True)
    for side in ax.spines.values():
        side.set_color(FAINT)
    return mappable


def _caption(plan: BuildPlan, beads: Beads, layer: int | None) -> str:
    figures = plan.figures
    size = "–"
    if len(beads):
        ends = np.concatenate([beads.start_mm, beads.end_mm])
        size = " × ".join(
            f"{v:.1f}" for v in np.ptp(ends, axis=0) + beads.width_mm * np.array([1, 1, 0])
        )
    words = [f"deposit {size} mm"] if layer is None else [f"z {beads.end_mm[0, 2]:.2f} mm"]
    if layer is None:
        layers = _count(int(figures.get("layers", len(plan.layers))), "layer")
        words.append(f"{layers}, {_count(len(plan.tracks), 'track')}")
        if figures.get("duration_s"):
            words.append(f"{figures['duration_s'] / 60:.1f} min")
        if figures.get("energy_j"):
            words.append(f"{figures['energy_j'] / 1000:.1f} kJ")
    else:
        words.append(_count(int((plan.tracks["layer"] == layer).sum()), "track"))
    if plan.meta.get("recipe"):
        words.append(f"recipe {plan.meta['recipe']}")
    return "   ·   ".join(words)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"

"""Strip charts of a record: what was set against what was measured, over machine time.

Laser, speed and melt pool are drawn while the beam is on and settled, else the comb of
tracks and travels would hide what matters; each column of the chart shows the mean and the
range of its rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.model import BuildPlan
from controller.record.reader import Record

INK, MUTED, FAINT = "#1d2733", "#5c6875", "#d5dae0"
SET, MEASURED, SECOND = "#8a94a0", "#1f5fa8", "#b0562c"
MARK_COLOUR = {"bad": "#a1201a", "odd": "#9a6a00"}
COLUMNS = 900
SETTLED_US = 150_000  # the source's own power reading follows the beam by up to that


@dataclass(frozen=True, slots=True)
class Mark:
    """An event on the time axis; its tag stands in the list beside the chart."""

    tag: str  # "A1": alarm, "O2": override, "H1": hold or resume, "X1": stop or abort
    t_s: float
    level: str  # "bad", "odd" or "neutral", as in the list


@dataclass(frozen=True)
class Columns:
    """A channel reduced to one value a chart column; NaN where there was nothing."""

    t_s: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def reduce_columns(
    t_s: np.ndarray, values: np.ndarray, wanted: np.ndarray, n_columns: int = COLUMNS
) -> Columns:
    """Mean, least and greatest value in each of ``n_columns`` equal spans of time.

    t_s : (n,) float64, s, increasing; values : (n,); wanted : (n,) bool, rows to look at
    """
    if len(t_s) == 0:
        empty = np.zeros(0)
        return Columns(empty, empty, empty, empty)
    n_columns = min(n_columns, max(1, len(t_s)))
    edges = np.linspace(t_s[0], t_s[-1], n_columns + 1)
    center = (edges[1:] + edges[:-1]) / 2
    mean, low, high = (np.full(n_columns, np.nan) for _ in range(3))
    keep = np.flatnonzero(wanted & np.isfinite(values))
    if len(keep):
        column = np.clip(np.searchsorted(edges, t_s[keep], "right") - 1, 0, n_columns - 1)
        first = np.flatnonzero(np.append(True, np.diff(column) > 0))
        used = column[first]
        data = values[keep].astype(np.float64)
        mean[used] = np.add.reduceat(data, first) / np.diff(np.append(first, len(data)))
        low[used] = np.minimum.reduceat(data, first)
        high[used] = np.maximum.reduceat(data, first)
    return Columns(center, mean, low, high)


def settled_emission(rows: np.ndarray) -> np.ndarray:
    """(n,) bool: the gate has been open for SETTLED_US and is open."""
    on = rows["gate"] > 0.5
    if not len(on):
        return on
    t_us = rows["t_us"]
    opened = np.flatnonzero(on & ~np.append(False, on[:-1]))
    if not len(opened):
        return on
    last = np.searchsorted(opened, np.arange(len(on)), "right") - 1
    since_us = t_us - t_us[opened[np.clip(last, 0, None)]]
    return on & (last >= 0) & (since_us >= SETTLED_US)


def draw_strips(
    axes: list[Any], record: Record, marks: list[Mark], plan: BuildPlan | None = None
) -> None:
    """Draw the five strips (power, speed, powder, oxygen and coolant, melt pool) on ``axes``."""
    rows = record.telemetry
    t_s = rows["t_us"] * 1e-6
    minutes = len(t_s) > 0 and float(t_s[-1] - t_s[0]) > 900
    t = t_s / 60 if minutes else t_s
    beam = settled_emission(rows)
    every = np.ones(len(rows), bool)
    power, speed, powder, gas, pool = axes

    _line(power, reduce_columns(t, rows["power_set_w"], beam), SET, "set", lw=2.2)
    _line(power, reduce_columns(t, rows["power_measured_w"], beam), MEASURED, "measured")
    _title(power, "Laser power, W", "beam on")
    if plan is not None and len(plan.tracks):
        track = np.nan_to_num(rows["track"], nan=-1).astype(np.int64)
        known = (track >= 0) & (track < len(plan.tracks))
        nominal = plan.tracks["speed_mm_s"][np.where(known, track, 0)] * rows["scale"]
        _line(speed, reduce_columns(t, nominal, beam & known), SET, "set × override", lw=2.2)
    _line(speed, reduce_columns(t, rows["speed_mm_s"], beam), MEASURED, "executed")
    _title(speed, "Speed, mm/s", "beam on")

    used = [k for k in (1, 2) if np.nanmax(_some(rows[f"powder_{k}_set_g_min"])) > 0] or [1]
    for k, colour in zip(used, (MEASURED, SECOND), strict=False):
        tag = f" {k}" if len(used) > 1 else ""
        _line(powder, reduce_columns(t, rows[f"powder_{k}_set_g_min"], every), SET,
              f"set{tag}", lw=2.2)  # fmt: skip
        _line(powder, reduce_columns(t, rows[f"powder_{k}_measured_g_min"], every), colour,
              f"measured{tag}")  # fmt: skip
    _title(powder, "Powder, g/min", "at the feeder")

    oxygen, unit, least = rows["oxygen_ppm"], "ppm", 5.0
    if np.max(_some(oxygen)) > 20_000:  # open air
        oxygen, unit, least = oxygen / 1e4, "vol. %", 1.0
    _line(gas, reduce_columns(t, oxygen, every), MEASURED, "oxygen")
    _title(gas, f"Oxygen, {unit}")
    right = gas.twinx()
    _line(right, reduce_columns(t, rows["coolant_deg_c"], every), SECOND, "coolant (right)")
    right.set_ylabel("Coolant, °C", fontsize=6.5, color=SECOND, labelpad=3)
    _line(pool, reduce_columns(t, rows["pool_temp_deg_c"], beam), MEASURED, "pyrometer")
    _title(pool, "Melt pool, °C", "beam on")

    _limits(power, 0.05, 20.0)
    _limits(speed, 0.10, 1.0)
    _limits(powder, 0.10, 0.5, floor=0.0)
    _limits(gas, 0.10, least)
    _limits(right, 0.10, 1.0)
    _limits(pool, 0.10, 20.0)
    for ax in (*axes, right):
        _dress(ax)
    right.grid(False)
    for ax in axes:
        if len(t) > 1:
            ax.set_xlim(t[0], t[-1])
        _layers(ax, rows, t)
        extra = right if ax is gas else None
        _legend(ax, extra)
        _marks(ax, marks, 60.0 if minutes else 1.0, tags=ax is axes[0])
    for ax in axes[:-1]:
        ax.tick_params(labelbottom=False)
    axes[-1].set_xlabel(
        "machine time, min" if minutes else "machine time, s", fontsize=7.5, color=INK
    )


def _some(values: np.ndarray) -> np.ndarray:
    known = values[np.isfinite(values)]
    return known if len(known) else np.zeros(1)


def _line(ax: Any, columns: Columns, colour: str, label: str, lw: float = 1.0) -> None:
    wide = columns.high - columns.low > 0
    if lw <= 1.0 and wide.any():
        ax.fill_between(columns.t_s, columns.low, columns.high, color=colour, alpha=0.22, lw=0)
    if not np.isfinite(columns.mean).any():
        ax.plot([], [], color=colour, lw=lw, label=f"{label}: no data")
        return
    ax.plot(columns.t_s, columns.mean, color=colour, lw=lw, label=label,
            solid_joinstyle="round")  # fmt: skip


def _limits(ax: Any, share: float, least: float, floor: float | None = None) -> None:
    """Room above and below what was drawn; a flat line is not blown up into noise."""
    values = np.concatenate(
        [np.asarray(line.get_ydata(), dtype=np.float64) for line in ax.get_lines()] or [np.zeros(1)]
    )
    for band in ax.collections:
        values = np.append(values, band.get_datalim(ax.transData).get_points()[:, 1])
    values = values[np.isfinite(values)]
    if not len(values):
        ax.set_ylim(0, 1)
        ax.set_yticks([])
        return
    low, high = float(values.min()), float(values.max())
    span = max(high - low, least, share * max(abs(low), abs(high)))
    middle = (low + high) / 2
    low, high = middle - 0.62 * span, middle + 0.72 * span
    ax.set_ylim(low if floor is None else max(low, floor - 0.04 * span), high)


def _title(ax: Any, text: str, note: str = "") -> None:
    ax.text(0.006, 0.93, text, transform=ax.transAxes, fontsize=7.5, weight="bold", color=INK,
            va="top", ha="left", zorder=6, bbox=_PATCH)  # fmt: skip
    if note:
        ax.text(0.006, 0.74, note, transform=ax.transAxes, fontsize=6.3, color=MUTED, va="top",
                ha="left", zorder=6, bbox=_PATCH)  # fmt: skip


_PATCH = {"boxstyle": "square,pad=0.12", "fc": "white", "ec": "none", "alpha": 0.82}


def _dress(ax: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.grid(color=FAINT, lw=0.5)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=6.5, colors=INK, length=2.5, width=0.5, pad=2)
    if ax.get_yticks().size:
        ax.yaxis.set_major_locator(MaxNLocator(4, prune=None))
    for name, side in ax.spines.items():
        side.set_color("#aab3bd")
        side.set_linewidth(0.6)
        side.set_visible(name in ("left", "bottom", "right"))


def _legend(ax: Any, extra: Any) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if extra is not None:
        more = extra.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    legend = (extra or ax).legend(
        handles, labels, loc="upper right", ncols=4, fontsize=6.5, frameon=True, framealpha=0.85,
        edgecolor="none", borderpad=0.2, handlelength=1.6, columnspacing=1.2, labelcolor=INK,
        borderaxespad=0.3,
    )  # fmt: skip
    legend.set_zorder(6)


def _layers(ax: Any, rows: np.ndarray, t: np.ndarray) -> None:
    """Shade every other layer, so that a time can be told as a height."""
    layer = np.nan_to_num(rows["layer"], nan=-1)
    change = np.flatnonzero(np.diff(layer) != 0) + 1
    starts = np.append(0, change)
    if not len(layer) or len(starts) > 600:
        return
    stops = np.append(change, len(layer) - 1)
    for a, b in zip(starts, stops, strict=True):
        if layer[a] >= 0 and int(layer[a]) % 2 == 1:
            ax.axvspan(t[a], t[b], color="#eef1f4", lw=0, zorder=0)


def _marks(ax: Any, marks: list[Mark], unit_s: float, tags: bool) -> None:
    low, high = ax.get_xlim()
    row_end = [-np.inf, -np.inf]
    for mark in marks:
        x = mark.t_s / unit_s
        if not low <= x <= high:
            continue
        colour = MARK_COLOUR.get(mark.level, MUTED)
        ax.axvline(x, color=colour, lw=0.8 if len(marks) < 20 else 0.5, ls=(0, (3, 2)), zorder=4)
        if not tags:
            continue
        # tags that would overlap go a row higher; with all rows taken the line stands alone
        row = next((r for r in range(2) if x >= row_end[r]), None)
        if row is not None:
            row_end[row] = x + 0.028 * (high - low)
            ax.annotate(mark.tag, (x, 1.0), xycoords=("data", "axes fraction"),
                        xytext=(0, 2 + 8 * row), textcoords="offset points", fontsize=6,
                        color=colour, ha="center", va="bottom", weight="bold",
                        annotation_clip=False)  # fmt: skip

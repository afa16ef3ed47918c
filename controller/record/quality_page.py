"""One page on how well a plan is made: a track against time, histograms, margins.

Speed, power and gate are read from the job's segments, as the machine will execute them; power
and gate are shown as light at the workpiece, later than the command by the source's latencies.
The margins are those of the plan's quality report.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controller.errors import RecordError
from controller.model import BuildPlan, TrackKind
from controller.record.pictures import FAINT, INK, MUTED
from controller.record.summary import cell_of
from firmware_bridge.segments import FLAG_GATE, FLAG_PARAM, POWER_FULL, RATIO_ONE, ticks_of

SPEED, POWER, GATE = "#2a6f97", "#c8553d", "#e9c46a"
ASIDE = 0.08  # of the track's time shown before and after it
LEAST_ASIDE_S = 0.02
SHORTEST_SHOWN_S = 1e-3
MOST_DRAWN = 200_000  # segments of one track that are drawn


@dataclass(frozen=True)
class _Run:
    """Segments without PARAM rows, as values at their ends; power when it is light."""

    t_s: np.ndarray  # (n + 1,)
    speed_mm_s: np.ndarray  # (n, 2) at start and end of each
    power_w: np.ndarray  # (n + 1,)
    mean_w: np.ndarray  # (n,)
    light_s: np.ndarray  # (n + 1,) when power_w has arrived at the workpiece
    edges_s: np.ndarray  # (k, 2) light on and off of each track
    gate: np.ndarray  # (n,) bool
    track: np.ndarray  # (n,) int64: the track that is open, or was last (-1: none yet)


def _run_of(plan: BuildPlan) -> _Run:
    cell = cell_of(plan)
    if cell is None:
        raise RecordError("the job's cell cannot be read, so its steps have no length")
    keep = (plan.segments["flags"] & FLAG_PARAM) == 0
    rows = plan.segments[keep]
    number = np.flatnonzero(keep)
    dt = ticks_of(rows) * 1e-6
    t = np.concatenate([[0.0], np.cumsum(dt)])
    power = np.concatenate([[0], rows["end_power"]]) / POWER_FULL * cell.laser.rated_power_w
    gate = (rows["flags"] & FLAG_GATE) != 0
    track = np.searchsorted(plan.tracks["first_segment"], number, side="right") - 1
    per_mm = np.array([a.steps_per_mm for a in cell.motion.axes[:3]])
    way = np.linalg.norm(rows["steps"][:, :3] / per_mm, axis=1)
    mean = np.divide(way, dt, out=np.zeros_like(way), where=dt > 0)
    ratio = rows["start_ratio"] / RATIO_ONE
    speed = np.column_stack([mean * ratio, mean * (2.0 - ratio)])
    # with light the share of the nominal speed is exact, where whole steps of a short one are not
    nominal = plan.tracks["speed_mm_s"][np.maximum(track, 0)]
    share = rows["end_speed"] / RATIO_ONE * nominal
    before = np.concatenate([[0.0], share[:-1]])
    inside = gate & np.concatenate([[False], gate[:-1]])
    speed[gate, 1] = share[gate]
    speed[inside, 0] = before[inside]
    first = gate & ~inside
    speed[first, 0] = speed[first, 1]
    # a short segment without light may hold no whole step: it goes on as the one before ended
    blind = ~gate & (dt < SHORTEST_SHOWN_S)
    last = np.maximum.accumulate(np.where(blind, 0, np.arange(len(dt))))
    speed[blind] = speed[last[blind], 1:]
    laser = cell.laser
    light = t + laser.power_latency_s
    off_s = laser.gate_latency_s if laser.gate_off_latency_s is None else laser.gate_off_latency_s
    edges = np.column_stack(
        [plan.tracks["start_s"] + laser.gate_latency_s, plan.tracks["end_s"] + off_s]
    )
    mean_w = np.interp(0.5 * (t[1:] + t[:-1]), light, power)
    return _Run(t, speed, power, mean_w, light, edges, gate, track.astype(np.int64))


def _chosen(plan: BuildPlan, track: int | None) -> int:
    """The track to show: as wished, else the one of the worst power error."""
    n = len(plan.tracks)
    if n == 0:
        raise RecordError("the job has no tracks")
    if track is not None:
        if not 0 <= track < n:
            raise RecordError(f"track {track} is not in the job, it has tracks 0 to {n - 1}")
        return track
    error = plan.figures.get("quality", {}).get("power_error", {})
    worst = error.get("worst_bead")
    if isinstance(worst, int) and 0 <= worst < n:
        return worst
    return int(np.argmax(plan.tracks["length_mm"]))


def _draw_track(axes: Any, plan: BuildPlan, run: _Run, track: int) -> None:
    row = plan.tracks[track]
    on_s, off_s = (float(x) for x in run.edges_s[track])
    aside = max(LEAST_ASIDE_S, ASIDE * (off_s - on_s))
    low, high = on_s - aside, off_s + aside
    first = max(int(np.searchsorted(run.t_s, low)) - 1, 0)
    last = min(int(np.searchsorted(run.t_s, high)) + 1, len(run.gate))
    if last - first > MOST_DRAWN:
        last = first + MOST_DRAWN
    part = slice(first, last)
    t = run.t_s[first : last + 1]
    ends = np.column_stack([t[:-1], t[1:]]).ravel()
    speed_ax, power_ax, gate_ax = axes
    speed_ax.plot(ends, run.speed_mm_s[part].ravel(), color=SPEED, lw=1.1)
    speed_ax.axhline(float(row["speed_mm_s"]), color=MUTED, lw=0.7, ls=(0, (4, 3)))
    speed_ax.set_ylabel("speed\nmm/s", color=INK, fontsize=8)
    power_ax.plot(run.light_s[first : last + 1], run.power_w[first : last + 1], color=POWER, lw=1.1)
    power_ax.axhline(float(row["power_set_w"]), color=MUTED, lw=0.7, ls=(0, (4, 3)))
    power_ax.set_ylabel("power\nW", color=INK, fontsize=8)
    for begin, end in run.edges_s[(run.edges_s[:, 1] > low) & (run.edges_s[:, 0] < high)]:
        gate_ax.fill_between([begin, end], [1.0, 1.0], color=GATE, lw=0)
    gate_ax.set_ylim(0.0, 1.2)
    gate_ax.set_yticks([0, 1], ["off", "on"])
    gate_ax.set_ylabel("light", color=INK, fontsize=8)
    gate_ax.set_xlabel("plan time, s (light at the workpiece: commands go out earlier)",
                       color=INK, fontsize=8)  # fmt: skip
    for ax in axes:
        ax.set_xlim(max(low, 0.0), min(high, float(t[-1])))
    for ax in axes[:2]:
        ax.set_ylim(bottom=0.0)
        ax.tick_params(labelbottom=False)


def _histogram(ax: Any, values: np.ndarray, weights: np.ndarray, name: str, colour: str) -> None:
    total = float(weights.sum())
    if total > 0:
        share = 100.0 * weights / total
        low, high = float(values.min()), float(values.max())
        span = max(high - low, 0.02 * max(abs(high), 1e-9))
        ax.hist(values, bins=40, range=(low - 0.02 * span, high + 0.02 * span), weights=share,
                color=colour)  # fmt: skip
        ax.set_yscale("symlog", linthresh=1.0)
        ax.set_ylim(bottom=0.0)
        ax.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    ax.set_xlabel(name, color=INK, fontsize=8)


def _draw_margins(ax: Any, margins: dict[str, Any]) -> None:
    known = [(k, m["margin_pct"]) for k, m in margins.items() if m.get("margin_pct") is not None]
    known.sort(key=lambda item: item[1])
    names = [k for k, _ in known]
    values = np.round([v for _, v in known], 2) + 0.0  # + 0.0: never -0.00
    colours = [POWER if v < 0.0 else (GATE if v < 5.0 else SPEED) for v in values]
    place = np.arange(len(names))[::-1]
    ax.barh(place, np.maximum(values, 0.6), color=colours, height=0.66)
    for y, value in zip(place, values, strict=True):
        ax.text(max(value, 0.6) + 1.0, y, f"{value:.1f}", va="center", fontsize=6.5, color=INK)
    ax.set_yticks(place, names)
    ax.set_xlim(0.0, 112.0)
    ax.set_xlabel("margin to the limit, %", color=INK, fontsize=8)


def quality_figure(plan: BuildPlan, track: int | None = None) -> Any:
    """The page as a matplotlib figure. Raises RecordError for a track that is not there."""
    chosen = _chosen(plan, track)
    run = _run_of(plan)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 9.2), dpi=130, facecolor="white")
    top = figure.add_gridspec(3, 1, left=0.09, right=0.97, top=0.885, bottom=0.545,
                              height_ratios=(3, 3, 1), hspace=0.12)  # fmt: skip
    low = figure.add_gridspec(3, 2, left=0.09, right=0.97, top=0.47, bottom=0.055,
                              hspace=0.62, wspace=0.52)  # fmt: skip
    axes = [figure.add_subplot(top[k, 0]) for k in range(3)]
    _draw_track(axes, plan, run, chosen)
    gate = run.gate
    dt = np.diff(run.t_s)
    speed = run.speed_mm_s.mean(axis=1)
    power = run.mean_w
    nominal = plan.tracks["speed_mm_s"][np.maximum(run.track, 0)]
    way = speed * dt
    lit = gate & (way > 0.0)
    small = [figure.add_subplot(low[k, 0]) for k in range(3)]
    _histogram(small[0], 100.0 * speed[lit] / nominal[lit], dt[lit], "speed, % of nominal", SPEED)
    _histogram(small[1], power[lit], dt[lit], "power, W", POWER)
    _histogram(small[2], power[lit] * dt[lit] / way[lit], way[lit],
               "power over speed, J/mm", MUTED)  # fmt: skip
    for ax, by in zip(small, ("time", "time", "length"), strict=True):
        ax.set_ylabel(f"% of {by}", color=INK, fontsize=8)
    bars = figure.add_subplot(low[:, 1])
    quality = plan.figures.get("quality", {})
    _draw_margins(bars, quality.get("margins", {}))
    for ax in [*axes, *small, bars]:
        ax.tick_params(labelsize=7, colors=INK)
        ax.grid(color=FAINT, lw=0.4)
        ax.set_axisbelow(True)
        for side in ax.spines.values():
            side.set_color(FAINT)
    bars.grid(axis="y", visible=False)
    row = plan.tracks[chosen]
    kind = TrackKind(int(row["kind"])).name.lower().replace("_", " ")
    figure.text(0.03, 0.965, f"{plan.part.get('name') or 'job'}: plan quality", fontsize=14,
                weight="bold", color=INK, va="center")  # fmt: skip
    words = [f"track {chosen} ({kind}, layer {int(row['layer'])}, {row['length_mm']:.1f} mm)"]
    error = quality.get("power_error")
    if error:
        words.append(f"power error {error['worst_w']:.3f} W ({error['worst_pct']:.4f} %)")
        words.append(f"left at the beam {quality['beam']['sum_mm']:.3f} mm, "
                     f"{quality['beam']['sum_pct']:.1f} %")  # fmt: skip
    if plan.meta.get("time_law"):
        words.append(str(plan.meta["time_law"]).replace("_", " "))
    figure.text(0.03, 0.932, "   ·   ".join(words), fontsize=8.5, color=MUTED, va="center")
    return figure


def show_quality(plan: BuildPlan, png_path: Path, track: int | None = None) -> Path:
    """Write the page as a PNG.

    Raises RecordError for a track that the job does not have or a path that cannot be written.
    """
    png_path = Path(png_path)
    if png_path.suffix.lower() != ".png":
        raise RecordError(f"{png_path}: pictures are PNG, the name must end in .png")
    figure = quality_figure(plan, track)
    part = png_path.with_name(png_path.name + ".part")
    try:
        figure.savefig(part, format="png", metadata={"Software": "lmd-controller"})
        os.replace(part, png_path)
    except OSError as exc:
        part.unlink(missing_ok=True)
        raise RecordError(f"{png_path}: cannot be written ({exc.strerror})") from None
    return png_path

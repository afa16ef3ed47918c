"""The report of a build: two pages of PDF and one self-contained HTML file.

matplotlib draws both (no Qt in the controller) and is imported only when a report is made.
Nothing here reads a clock: the same record gives the same report.
"""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from controller.errors import RecordError
from controller.model import BuildPlan
from controller.record.beads import beads_of_plan, beads_of_record
from controller.record.charts import INK, MUTED, draw_strips
from controller.record.content import BAD, GOOD, NEUTRAL, ODD, Content, make_content
from controller.record.pictures import (
    draw_view,
    limits_of,
    plate_of,
)
from controller.record.verify import Verification

HTML_FILE, PDF_FILE = "report.html", "report.pdf"
PAGE_IN = (8.27, 11.69)  # A4
REPORT_BEADS = 25_000
LOG_ROWS = 21
MEASURE_DPI = 720  # hinting at 72 dpi makes small letters seem narrower than they print
# IEC 60073: green normal, yellow abnormal, red danger; each with a second cue, a sign
BADGE = {
    GOOD: ("#e3f1e6", "#1d6b35", "✓"),
    ODD: ("#fdf1cf", "#7a5200", "▲"),
    BAD: ("#fbe3e1", "#a1201a", "✕"),
    NEUTRAL: ("#eef1f4", "#44505d", ""),
}
SIMULATED = ("#e7e3f3", "#4a3386", "SIMULATED CELL")
CJK_FONTS = ("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans CJK SC", "Droid Sans Fallback")


@dataclass(frozen=True)
class ReportPaths:
    """Where a report was written."""

    html: Path
    pdf: Path


def write_report(
    folder: Path,
    *,
    plan: BuildPlan | None = None,
    verification: Verification | None = None,
) -> ReportPaths:
    """Write report.pdf and report.html into a record folder.

    ``plan`` and ``verification`` are read and made when not given. Raises RecordError when
    there is no record or the folder cannot be written; neither file is left half-written.
    """
    folder = Path(folder)
    content = make_content(folder, plan, verification)
    paths = ReportPaths(folder / HTML_FILE, folder / PDF_FILE)
    with _style() as letters:
        content_pdf = _pdf(content, letters)
        content_html = _html(content, letters).encode()
    for path, data in ((paths.pdf, content_pdf), (paths.html, content_html)):
        part = path.with_name(path.name + ".part")
        try:
            part.write_bytes(data)
            os.replace(part, path)
        except OSError as exc:
            raise RecordError(f"{path}: cannot be written ({exc.strerror})") from None
    return paths


class Letters:
    """Knows which characters the fonts at hand can draw, and how wide a text is."""

    def __init__(self, families: list[str]) -> None:
        from matplotlib.backends.backend_agg import RendererAgg
        from matplotlib.font_manager import FontProperties, findfont, get_font

        self._known: set[int] = set()  # for membership only
        for family in families:
            self._known.update(get_font(findfont(family)).get_charmap())
        self._renderer = RendererAgg(10, 10, MEASURE_DPI)
        self._font = FontProperties

    def clean(self, text: str) -> str:
        """The text on one line, with a visible mark for what no font here can draw."""
        return "".join(c if ord(c) in self._known else "□" for c in " ".join(str(text).split()))

    def width_in(
        self, text: str, size_pt: float, weight: str = "normal", mono: bool = False
    ) -> float:
        font = self._font(size=size_pt, weight=weight)
        if mono:
            font = self._font(family="DejaVu Sans Mono", size=size_pt, weight=weight)
        return self._renderer.get_text_width_height_descent(text, font, False)[0] / MEASURE_DPI

    def fit(self, text: str, width_in: float, size_pt: float, **font: Any) -> str:
        """The text, shortened with an ellipsis to ``width_in``."""
        text = self.clean(text)
        if self.width_in(text, size_pt, **font) <= width_in:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self.width_in(text[:middle] + "…", size_pt, **font) <= width_in:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip() + "…"


@contextmanager
def _style() -> Iterator[Letters]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.font_manager import fontManager

    have = {f.name for f in fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in CJK_FONTS if name in have)]
    settings: Any = {
        "font.family": families,
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "lmd",
        "text.parse_math": False,  # a $ in a file name is a $
        "axes.unicode_minus": True,
        "path.simplify": True,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph .* missing from")
        yield Letters(families)


# --- PDF -----------------------------------------------------------------------------------


class _Page:
    """A page with a frame; positions in inches from the upper left corner."""

    def __init__(self, content: Content, letters: Letters, number: int) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=PAGE_IN, facecolor="white")
        self.letters = letters
        self._frame(content, number)

    def text(self, x: float, y: float, text: str, size: float = 8.0, **kw: Any) -> None:
        """One line with its base line at y; ``width`` shortens it to fit."""
        width, mono = kw.pop("width", None), kw.pop("mono", False)
        weight = kw.get("weight", "normal")
        if width is not None:
            text = self.letters.fit(text, width, size, weight=weight, mono=mono)
        else:
            text = self.letters.clean(text)
        if mono:
            kw["family"] = ["DejaVu Sans Mono", "DejaVu Sans"]
        kw.setdefault("color", INK)
        kw.setdefault("va", "baseline")
        self.figure.text(x / PAGE_IN[0], 1 - y / PAGE_IN[1], text, fontsize=size, **kw)

    def line(self, x0: float, x1: float, y: float, color: str = "#c9d0d8", lw: float = 0.6) -> None:
        from matplotlib.lines import Line2D

        self.figure.add_artist(
            Line2D([x0 / PAGE_IN[0], x1 / PAGE_IN[0]], [1 - y / PAGE_IN[1]] * 2, color=color, lw=lw)
        )

    def box(self, x: float, y: float, w: float, h: float, fill: str, edge: str = "none") -> None:
        from matplotlib.patches import Rectangle

        self.figure.add_artist(
            Rectangle(
                (x / PAGE_IN[0], 1 - (y + h) / PAGE_IN[1]),
                w / PAGE_IN[0],
                h / PAGE_IN[1],
                fc=fill,
                ec=edge,
                lw=0.8,
                zorder=-1,
            )
        )

    def axes(self, x: float, y: float, w: float, h: float) -> Any:
        return self.figure.add_axes(
            (x / PAGE_IN[0], 1 - (y + h) / PAGE_IN[1], w / PAGE_IN[0], h / PAGE_IN[1])
        )

    def badge(self, right: float, y: float, text: str, fill: str, ink: str) -> float:
        """A badge whose right edge is at ``right``; returns its left edge."""
        width = self.letters.width_in(text, 8.0, "bold") + 0.22
        self.box(right - width, y, width, 0.24, fill, ink)
        self.text(right - width / 2, y + 0.162, text, 8.0, weight="bold", color=ink, ha="center")
        return right - width

    def heading(self, x: float, y: float, text: str, width: float) -> None:
        self.text(x, y, text, 9.0, weight="bold")
        self.line(x, x + width, y + 0.055, "#8a94a0", 0.8)

    def _frame(self, content: Content, number: int) -> None:
        left, right = 0.55, PAGE_IN[0] - 0.55
        x = right
        for word, level in (content.state, content.seal):
            fill, ink, sign = BADGE[level]
            x = self.badge(x, 0.42, f"{sign} {word}".strip(), fill, ink) - 0.10
        if content.simulated:
            x = self.badge(x, 0.42, SIMULATED[2], SIMULATED[0], SIMULATED[1]) - 0.10
        room = x - left - 0.1
        needed = self.letters.width_in(self.letters.clean(content.title), 16, "bold")
        size = max(10.5, min(16.0, 16 * room / max(needed, 0.1)))
        self.text(left, 0.62, content.title, size, weight="bold", width=room)
        self.text(left, 0.84, f"Build record   ·   {content.subtitle}", 8.5, color=MUTED,
                  width=right - left)  # fmt: skip
        self.line(left, right, 0.93, INK, 1.0)
        bottom = PAGE_IN[1] - 0.42
        self.line(left, right, bottom - 0.14, "#c9d0d8", 0.6)
        self.text(left, bottom, f"content {content.content_hash}", 6.3, color=MUTED, mono=True)
        end = f"key {content.verification.key_id or '–'}   ·   page {number} of 2"
        if content.simulated:
            end = f"simulated, no real part   ·   {end}"
        self.text(right, bottom, end, 6.8, color=MUTED, ha="right")


def _pdf(content: Content, letters: Letters) -> bytes:
    from matplotlib.backends.backend_pdf import PdfPages

    out = io.BytesIO()
    info = {
        "Title": f"Build record: {content.title}",
        "Subject": f"content hash {content.content_hash}",
        "Creator": "lmd-controller",
        "Producer": None,
        "CreationDate": None,
    }
    with PdfPages(out, metadata=info) as pages:
        for page in (_first_page(content, letters), _second_page(content, letters)):
            pages.savefig(page.figure, dpi=220)
    return out.getvalue()


def _first_page(content: Content, letters: Letters) -> _Page:
    page = _Page(content, letters, 1)
    left, right = 0.55, PAGE_IN[0] - 0.55
    half = (right - left - 0.25) / 2
    _pictures(page.figure, content, [page.axes(left, 1.28, half, 2.42),
                                     page.axes(left + half + 0.25, 1.28, half, 2.42)],
              [page.axes(left + 0.6, 3.80, half - 1.2, 0.09),
               page.axes(left + half + 0.85, 3.80, half - 1.2, 0.09)])  # fmt: skip
    page.text(left, 1.20, "As planned, by layer", 9, weight="bold")
    page.text(left + half + 0.25, 1.20, "As executed, by measured laser power", 9, weight="bold")
    y = _figure_table(page, content, left, right, 4.46)
    for note in content.figure_notes[:4]:
        page.text(left, y, note, 7.3, color=MUTED, width=right - left)
        y += 0.145
    _group_columns(page, content, left, right, y + 0.16)
    return page


def _pictures(figure: Any, content: Content, axes: list[Any], bars: list[Any]) -> None:
    """The part as planned and as executed, the same view and size."""
    from matplotlib.ticker import MaxNLocator

    plan = content.plan
    width = 1.0
    plate = None
    if plan is not None:
        planned = beads_of_plan(plan, REPORT_BEADS)
        width, plate = planned.width_mm, plate_of(plan)
        limits = (0.0, max(1.0, float(planned.layer.max()))) if len(planned) else (0.0, 1.0)
        mappable = draw_view(axes[0], planned, planned.values["layer"], "viridis", limits,
                             plate_mm=plate)  # fmt: skip
        _bar(figure, mappable, bars[0], "layer")
        bars[0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    else:
        _nothing(axes[0], bars[0], "no job in the record folder")
    done = beads_of_record(content.record, width, REPORT_BEADS)
    if len(done):
        values = done.values["power"]
        mappable = draw_view(axes[1], done, values, "heat", _power_range(values),
                             plate_mm=plate)  # fmt: skip
        _bar(figure, mappable, bars[1], "measured power, W (grey: first 0.15 s of a track)")
        bars[1].xaxis.set_major_locator(MaxNLocator(5))
    else:
        _nothing(axes[1], bars[1], "nothing was deposited")


def _power_range(values: np.ndarray) -> tuple[float, float]:
    # a third of the level at least: noise of a percent must not look like a fault
    level = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    low, high = limits_of(values, at_least=level / 3)
    return max(0.0, low), high


def _bar(figure: Any, mappable: Any, cax: Any, label: str) -> None:
    bar = figure.colorbar(mappable, cax=cax, orientation="horizontal")
    bar.outline.set_visible(False)
    cax.tick_params(labelsize=6.5, colors=INK, length=2, width=0.5, pad=1.5)
    cax.set_xlabel(label, fontsize=7, color=INK, labelpad=1.5)


def _nothing(ax: Any, bar: Any, text: str) -> None:
    for a in (ax, bar):
        a.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, color=MUTED,
            transform=ax.transAxes)  # fmt: skip


def _figure_table(page: _Page, content: Content, left: float, right: float, y: float) -> float:
    page.heading(left, y, "Planned, executed" + (", true" if content.has_truth else ""),
                 right - left)  # fmt: skip
    edges = [left + 2.55, left + 3.55, left + 4.65, left + 5.45, left + 6.40, right - 0.03]
    heads = ["Planned", "Executed", "deviation", "Truth", "deviation"]
    if not content.has_truth:
        heads, edges = heads[:3], [left + 2.9, left + 4.2, left + 5.6, left + 6.9]
    y += 0.24
    for head, x in zip(heads, edges[1:], strict=True):
        page.text(x, y, head, 7.3, color=MUTED, ha="right")
    y += 0.055
    for k, row in enumerate(content.figures):
        y += 0.19
        if k % 2 == 0:
            page.box(left, y - 0.135, right - left, 0.19, "#f4f6f8")
        page.text(left + 0.05, y, row.label + (f", {row.unit}" if row.unit else ""), 8)
        cells = [(row.planned, False), (row.executed, False), (row.executed_pct, row.executed_flag),
                 (row.truth, False), (row.truth_pct, row.truth_flag)]  # fmt: skip
        for (text, flag), x in zip(cells, edges[1:], strict=False):
            weight = "bold" if flag else "normal"
            ink = BADGE[ODD][1] if flag else INK
            page.text(x, y, f"▲ {text}" if flag else text, 8, ha="right", weight=weight, color=ink)
    return y + 0.21


def _group_columns(page: _Page, content: Content, left: float, right: float, top: float) -> None:
    """Key and value groups in two columns, hashes over the whole width at the bottom."""
    groups = [g for g in content.groups if not g[0].startswith("Hashes")]
    hashes = [g for g in content.groups if g[0].startswith("Hashes")]
    bottom = PAGE_IN[1] - 0.72
    for title, rows in hashes:
        height = 0.24 + 0.15 * len(rows) + 0.17 * min(3, len(content.seal_lines))
        y = bottom - height
        page.heading(left, y, title, right - left)
        y += 0.06
        for key, value in rows:
            y += 0.15
            page.text(left + 0.05, y, key, 7.3, color=MUTED)
            page.text(left + 1.05, y, value, 6.6, mono=True, width=right - left - 1.1)
        _, ink, sign = BADGE[content.seal[1]]
        for k, line in enumerate(content.seal_lines[:3]):
            y += 0.17
            text = f"{sign} {line}" if k == 0 else line
            page.text(left + 0.05, y, text, 7.6, color=ink, width=right - left - 0.1,
                      weight="bold" if k == 0 else "normal")  # fmt: skip
        bottom -= height + 0.28
    width = (right - left - 0.35) / 2
    at = [top, top]
    for title, rows in groups:
        k = 0 if at[0] <= at[1] else 1  # the shorter column takes the next group
        x = left + k * (width + 0.35)
        if at[k] + 0.40 > bottom:
            page.text(left, bottom + 0.02, f"{title} and what follows: in the HTML report", 7,
                      color=MUTED)  # fmt: skip
            break
        page.heading(x, at[k], title, width)
        at[k] += 0.06
        for n, (key, value) in enumerate(rows):
            at[k] += 0.155
            if at[k] + 0.155 > bottom and n + 1 < len(rows):
                page.text(x + 0.05, at[k], f"… {len(rows) - n} more in the HTML report", 7,
                          color=MUTED)  # fmt: skip
                break
            page.text(x + 0.05, at[k], key, 7.3, color=MUTED, width=0.95)
            page.text(x + 1.05, at[k], value, 7.5, width=width - 1.05)
        at[k] += 0.26


def _second_page(content: Content, letters: Letters) -> _Page:
    page = _Page(content, letters, 2)
    left, right = 0.55, PAGE_IN[0] - 0.55
    page.text(left, 1.18, "Process", 9, weight="bold")
    page.text(left + 0.62, 1.18, "line: mean, band: range of each column; shading: every other "
              "layer", 7, color=MUTED)  # fmt: skip
    # the list takes what it needs, the charts take the rest
    n_lines = min(max(len(content.log), 1), LOG_ROWS) + (len(content.log) > LOG_ROWS)
    list_top = PAGE_IN[1] - 0.84 - 0.152 * n_lines
    pitch = (list_top - 0.62 - 1.52) / 5
    axes = [
        page.axes(left + 0.32, 1.52 + k * pitch, right - left - 0.74, pitch - 0.10)
        for k in range(5)
    ]
    draw_strips(axes, content.record, content.marks, content.plan)
    _log_table(page, content, left, right, list_top)
    return page


def _log_table(page: _Page, content: Content, left: float, right: float, y: float) -> None:
    n = content.n_alarms
    title = "Alarms, overrides, commands" + (f" ({n} alarm{'s' if n != 1 else ''})")
    page.heading(left, y, title, right - left)
    rows = content.log
    shown = rows
    if len(rows) > LOG_ROWS:
        # what was abnormal first, then in order of time
        keep = sorted(range(len(rows)), key=lambda k: (rows[k].level == NEUTRAL, k))[: LOG_ROWS - 1]
        shown = [rows[k] for k in sorted(keep)]
    y += 0.05
    if not rows:
        page.text(left + 0.05, y + 0.16, "none", 7.5, color=MUTED)
    for row in shown:
        y += 0.152
        _, ink, sign = BADGE[row.level]
        if row.tag:
            page.text(left + 0.05, y, row.tag, 7.2, weight="bold", color=ink)
        page.text(left + 1.02, y, f"{row.t_s:.2f} s", 7.2, ha="right")
        page.text(left + 1.15, y, row.kind, 7.2, color=MUTED)
        colour = INK if row.level == NEUTRAL else ink
        page.text(left + 1.95, y, f"{sign} {row.text}".strip(), 7.2, color=colour,
                  width=right - left - 1.98)  # fmt: skip
    if len(shown) < len(rows):
        page.text(left + 0.05, y + 0.16, f"and {len(rows) - len(shown)} more, all in the HTML "
                  "report", 7, color=MUTED)  # fmt: skip


# --- HTML ----------------------------------------------------------------------------------


def _html(content: Content, letters: Letters) -> str:
    import jinja2

    template = resources.files("controller.record").joinpath("report.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(
        c=content,
        badge=BADGE,
        simulated=SIMULATED,
        pictures=jinja2.utils.markupsafe.Markup(_pictures_svg(content)),
        charts=jinja2.utils.markupsafe.Markup(_charts_svg(content)),
    )


def _pictures_svg(content: Content) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 3.5), facecolor="none")
    axes = [figure.add_axes((k * 0.5 + 0.005, 0.17, 0.49, 0.75)) for k in range(2)]
    bars = [figure.add_axes((k * 0.5 + 0.10, 0.10, 0.30, 0.022)) for k in range(2)]
    _pictures(figure, content, axes, bars)
    for k, title in enumerate(("As planned, by layer", "As executed, by measured laser power")):
        figure.text(k * 0.5 + 0.005, 0.96, title, fontsize=9, weight="bold", color=INK)
    return _svg(figure, "The part as planned and as executed", 160)


def _charts_svg(content: Content) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 7.0), facecolor="none")
    axes = [figure.add_axes((0.055, 0.06 + (4 - k) * 0.181, 0.885, 0.163)) for k in range(5)]
    draw_strips(axes, content.record, content.marks, content.plan)
    return _svg(figure, "Strip charts of the process", 110)


def _svg(figure: Any, label: str, dpi: int) -> str:
    """Inline SVG without XML head, scaling with the page."""
    out = io.StringIO()
    figure.savefig(out, format="svg", dpi=dpi, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)

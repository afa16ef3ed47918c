"""Makes every picture that README and docs show, from plans and builds made here and now.

    python docs/make_pictures.py [--out DIR]

The blade and the rib are built on the simulated cell (null wires), the rib once more with the
door opened. What differs from one run to the next is kept out, so that the same code gives
the same pictures: builds are signed with a key that is made for the pictures, and the wall
time is left out of the report pages.
"""

import argparse
import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import planner_pictures
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from controller.build import Wish, build_part
from controller.planning.job import read_job
from controller.record import report
from controller.record.beads import beads_of_plan
from controller.record.charts import FAINT, INK, MEASURED, MUTED, SET, settled_emission
from controller.record.content import make_content
from controller.record.pictures import draw_view, limits_of, plate_of, show_job
from controller.record.quality_page import show_quality
from controller.record.reader import read_record

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 400_000
PAPER = "#eef1f4"
WINDOW_S = (4.0, 46.0)  # machine time of the strips: powder first, then light


def main(arguments: list[str] | None = None) -> int:
    """Make all pictures; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    out: Path = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lmd-pictures-") as name, picture_key(Path(name)):
        records = Path(name) / "records"
        blade = build("blade", records)
        rib = build("rib", records)
        door = build("rib", records, scenario="door")
        job = read_job(rib / "job.lmdjob")
        made = [
            save(readme_picture(blade), out / "readme.png"),
            shrink(show_job(job, out / "plan.png")),
            shrink(show_job(job, out / "layer.png", "time", layer=3)),
            shrink(show_quality(job, out / "quality.png")),
            *(shrink(path) for path in planner_pictures.make(out)),
            save(sheets(rib, (1, 2)), out / "report.png"),
            save(sheets(door, (2,)), out / "fault.png"),
        ]
    for path in made:
        size = path.stat().st_size
        print(f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}: "
              f"{size // 1000} kB")  # fmt: skip
        if size > MOST_BYTES:
            print(f"error: {path} has {size} bytes, at most {MOST_BYTES} may be", file=sys.stderr)
            return 1
    return 0


def build(part: str, out: Path, scenario: str | None = None) -> Path:
    """The record folder of an example built on null wires."""
    wish = Wish(ROOT / "examples" / f"{part}.stl", out=out, time_mode="null", scenario=scenario)
    return Path(build_part(wish)["record"])


@contextmanager
def picture_key(folder: Path) -> Iterator[None]:
    """Sign with a key that anybody can make: pictures prove nothing, and stay the same."""
    seed = hashlib.sha256(b"pictures of the LMD controller's documentation").digest()
    pem = Ed25519PrivateKey.from_private_bytes(seed).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path = folder / "lmd" / "signing.key"
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(pem)
    before = os.environ.get("XDG_CONFIG_HOME")
    os.environ["XDG_CONFIG_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CONFIG_HOME"]
        else:
            os.environ["XDG_CONFIG_HOME"] = before


def pages(folder: Path, numbers: tuple[int, ...], dpi: int) -> list[np.ndarray]:
    """Pages of a record's report as images, drawn by the report's own functions."""
    content = make_content(folder, None, None)
    words = [w for w in content.subtitle.split("   ·   ") if not w.startswith("20")]
    groups = [
        (title, [(k, v) for k, v in rows if k not in ("Started", "Record file")])
        for title, rows in content.groups
    ]
    content = replace(content, subtitle="   ·   ".join(words), groups=groups)
    make = {1: report._first_page, 2: report._second_page}
    images = []
    with report._style() as letters:
        for number in numbers:
            data = io.BytesIO()
            make[number](content, letters).figure.savefig(data, format="png", dpi=dpi)
            images.append(np.asarray(Image.open(data).convert("RGB")))
    return images


def sheets(folder: Path, numbers: tuple[int, ...], dpi: int = 92) -> Figure:
    """Report pages side by side, as sheets of paper."""
    images = pages(folder, numbers, dpi)
    high, wide = images[0].shape[:2]
    gap = 24
    size = (len(images) * (wide + gap) + gap, high + 2 * gap)
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100, facecolor=PAPER)
    for n, image in enumerate(images):
        place = ((gap + n * (wide + gap)) / size[0], gap / size[1], wide / size[0], high / size[1])
        lay_sheet(figure, place, image)
    return figure


def lay_sheet(figure: Figure, place: tuple[float, float, float, float], image: np.ndarray) -> None:
    """A page with a soft edge; ``place`` in shares of the figure: left, bottom, width, height."""
    x, y, w, h = place
    shift = 0.004
    shadow = (x + shift * figure.get_figheight() / figure.get_figwidth(), y - shift)
    figure.add_artist(Rectangle(shadow, w, h, fc="#c3cad2", lw=0, zorder=-1))
    ax = figure.add_axes(place)
    ax.imshow(image, aspect="auto", interpolation="antialiased")
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_color(FAINT)
        side.set_linewidth(0.8)


def readme_picture(folder: Path) -> Figure:
    """One wide picture: the plan, a piece of the build, the report."""
    figure = Figure(figsize=(18.0, 8.0), dpi=104, facecolor=PAPER)
    _card(figure, 0.012, 0.345)
    _card(figure, 0.367, 0.300)
    _heading(figure, 0.028, "Plan", "power follows speed; beads drawn as wide as they are")
    _heading(figure, 0.383, "Build", "first layers on the simulated cell: powder leads, then light")
    _plan_view(figure, folder)
    _strips(figure, folder)
    with_page = 0.96 * 8.0 / report.PAGE_IN[1] * report.PAGE_IN[0] / 18.0
    image = pages(folder, (1,), 130)[0]
    lay_sheet(figure, (0.679, 0.02, with_page, 0.96), image)
    return figure


def _card(figure: Figure, x: float, width: float) -> None:
    figure.add_artist(Rectangle((x, 0.02), width, 0.96, fc="white", ec=FAINT, lw=1.0, zorder=-2))


def _heading(figure: Figure, x: float, title: str, text: str) -> None:
    figure.text(x, 0.927, title, fontsize=19, weight="bold", color=INK, va="center")
    figure.text(x, 0.886, text, fontsize=10.5, color=MUTED, va="center")


def _plan_view(figure: Figure, folder: Path) -> None:
    plan = read_job(folder / "job.lmdjob")
    beads = beads_of_plan(plan)
    values = beads.values["power"]
    ax = figure.add_axes((0.022, 0.155, 0.325, 0.70))
    mappable = draw_view(ax, beads, values, "heat", limits_of(values), plate_mm=plate_of(plan))
    bar = figure.colorbar(
        mappable, cax=figure.add_axes((0.085, 0.105, 0.20, 0.018)), orientation="horizontal"
    )
    bar.set_label("laser power, W", color=INK, fontsize=10)
    bar.ax.tick_params(labelsize=9, colors=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _strips(figure: Figure, folder: Path) -> None:
    """Powder, power, speed and melt pool over the first layers."""
    rows = read_record(folder).telemetry
    t_s = rows["t_us"] * 1e-6
    rows = rows[(t_s >= WINDOW_S[0]) & (t_s <= WINDOW_S[1])]
    t_s = rows["t_us"] * 1e-6
    beam = settled_emission(rows)
    gate = rows["gate"] > 0.5
    wanted = [
        ("Powder, g/min", "powder_1_measured_g_min", "powder_1_set_g_min", (0, 8)),
        ("Laser power, W", "power_measured_w", "power_commanded_w", (0, 700)),
        ("Speed, mm/s", "speed_mm_s", None, None),
        ("Melt pool, °C", "pool_temp_deg_c", None, None),
    ]
    bottom, height, gap = 0.085, 0.148, 0.046
    for n, (title, measured, commanded, limits) in enumerate(wanted):
        ax = figure.add_axes((0.398, bottom + (3 - n) * (height + gap), 0.256, height))
        if commanded is not None:
            ax.plot(t_s, rows[commanded], color=SET, lw=2.2, alpha=0.75)
        known = beam if measured == "pool_temp_deg_c" else np.ones(len(rows), bool)
        ax.plot(t_s, np.where(known, rows[measured], np.nan), color=MEASURED, lw=1.1)
        _shut(ax, t_s, gate)
        ax.set_xlim(*WINDOW_S)
        if limits is not None:
            ax.set_ylim(*limits)
        ax.text(0.0, 1.03, title, transform=ax.transAxes, fontsize=10.5, weight="bold",
                color=INK, va="bottom")  # fmt: skip
        _dress(ax, last=n == 3)


def _shut(ax: Any, t_s: np.ndarray, gate: np.ndarray) -> None:
    """Shade where the gate is shut."""
    edges = np.flatnonzero(np.diff(gate.astype(np.int8)))
    bounds = np.concatenate([[0], edges + 1, [len(gate) - 1]])
    for a, b in pairwise(bounds.tolist()):
        if not gate[a]:
            ax.axvspan(t_s[a], t_s[b], color="#e9ecf0", lw=0, zorder=0)


def _dress(ax: Any, last: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.grid(color=FAINT, lw=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8.5, colors=INK, length=3, width=0.6, labelbottom=last)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    for name, side in ax.spines.items():
        side.set_color("#aab3bd")
        side.set_linewidth(0.7)
        side.set_visible(name in ("left", "bottom"))
    if last:
        ax.set_xlabel(
            "machine time, s   (grey line: commanded, shaded: gate shut)", fontsize=9.5, color=INK
        )


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG."""
    figure.savefig(path, format="png", metadata={"Software": None})
    return shrink(path)


def shrink(path: Path) -> Path:
    """Rewrite a PNG as small as it gets without loss; with 256 colours if it is too large."""
    image = Image.open(path).convert("RGB")
    part = path.with_name(path.name + ".part")
    image.save(part, format="png", optimize=True)
    if part.stat().st_size > MOST_BYTES:
        image.quantize(256, dither=Image.Dither.NONE).save(part, format="png", optimize=True)
    os.replace(part, path)
    return path


if __name__ == "__main__":
    sys.exit(main())

"""Melt-pool camera: what a frame costs, how true the width is.

The rival does the same first steps with scipy.ndimage: threshold, label, sums and moments of
the largest patch, width from area and moments (no subpixel edge, no blur taken back). Both
see the same frames, rendered by the simulator's camera at 128 x 128 px, 16 bit. Times are CPU
time, taken in turns: what else the machine does is not the kernel's.
"""

import math
import statistics
import time
from typing import Any

import numpy as np
from hil_sim.devices._pool_image import PoolImage

from benchmarks.measure import row
from firmware_bridge.camera_setup import C2_UM_K, load_camera

RATE_HZ = 1000
N_FRAMES = 200
ROUNDS = 5


def frames(seed: int = 1, n: int = N_FRAMES) -> tuple[list[Any], np.ndarray]:
    """Frames of pools 0.8 to 4 mm wide in all directions, and their true widths in mm."""
    setup = load_camera("ring_sim")
    random = np.random.Generator(np.random.PCG64(seed))
    image = PoolImage(128, 128, random.standard_normal(65536).astype(np.float32))
    widths = np.linspace(0.8, 4.0, n)
    out = []
    for k, width_mm in enumerate(widths):
        pixels = np.zeros((128, 128), np.uint16)
        tail_mm = max(0.5 * width_mm, min(random.uniform(0.5, 2.2), 5.4 - 0.5 * width_mm))
        angle = random.uniform(0.0, 2.0 * math.pi)
        x_px, y_px = 63.5 + random.uniform(-0.5, 0.5, 2)
        ahead = 0.5 * (tail_mm - 0.5 * width_mm) / setup.scale_mm_px
        image.render(
            pixels, k + 1, width_px=width_mm / setup.scale_mm_px,
            tail_px=tail_mm / setup.scale_mm_px, x_px=x_px + ahead * math.cos(angle),
            y_px=y_px + ahead * math.sin(angle), angle_rad=angle,
            peak_deg_c=random.uniform(2100.0, 2450.0), solidus_deg_c=setup.edge_deg_c,
            counts=setup.counts_per_us * setup.features["ExposureTime"],
            wien_k=C2_UM_K / setup.wavelength_um, offset=800.0, read_noise=20.0,
            electrons_per_count=0.46, sigma_px=setup.blur_px, full=65535,
        )  # fmt: skip
        out.append(pixels)
    return out, widths


def rival(pixels: Any, level: float) -> float:
    """Width in px by scipy.ndimage: minor axis of the ellipse with the patch's moments."""
    from scipy import ndimage

    base = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]))
    above = pixels > base + level
    labels, n = ndimage.label(above)
    if n == 0:
        return 0.0
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    y, x = np.nonzero(labels == sizes.argmax())
    spread = np.cov(x, y)
    return float(4.0 * math.sqrt(np.linalg.eigvalsh(spread)[0]))


def run() -> list[dict[str, Any]]:
    """All rows of this area."""
    setup = load_camera("ring_sim")
    kernel = setup.kernel()
    pictures, widths = frames()
    level = setup.counts_at(setup.edge_deg_c)
    works: dict[str, Any] = {"ours": lambda: [kernel.measure(p) for p in pictures]}
    try:
        rival(pictures[0], level)
        works["rival"] = lambda: [rival(p, level) for p in pictures]
    except ImportError:
        pass
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            begin = time.process_time()
            work()
            times[name].append((time.process_time() - begin) / N_FRAMES * 1e6)
    each_us = {name: statistics.median(own) for name, own in times.items()}
    measured = np.array([kernel.measure(p)[1] for p in pictures]) * setup.scale_mm_px
    errors = np.abs(measured / widths - 1.0) * 100.0
    rows = [
        row("camera", "one frame measured", each_us["ours"], "us CPU", 200.0, at_most=True,
            rival="scipy.ndimage, no subpixel edge",
            ratio=each_us["rival"] / each_us["ours"] if "rival" in each_us else None,
            note=f"128 x 128 px, 16 bit; median of {ROUNDS} times {N_FRAMES} frames"),
        row("camera", f"share of one core at {RATE_HZ} Hz", each_us["ours"] * RATE_HZ * 1e-4, "%",
            20.0, at_most=True),
        row("camera", "width error, largest", float(errors.max()), "%", 2.0, at_most=True,
            note=f"{N_FRAMES} frames, 0.8 to 4 mm, all directions; mean {errors.mean():.2f} %"),
    ]  # fmt: skip
    if "rival" in each_us:
        theirs = np.array([rival(p, level) for p in pictures]) * setup.scale_mm_px
        off = float(np.abs(theirs / widths - 1.0).max() * 100.0)
        rows.append(row("camera", "width error of the rival, largest", off, "%"))
    return rows

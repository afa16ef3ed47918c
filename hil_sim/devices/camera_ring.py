"""Simulated melt-pool camera, coaxial with the beam (docs/reference/frame-ring.md).

Features by name over a line, frames by a ring in shared memory. It renders only while a host
has started it, one frame a period. Numbers marked (guess) are nobody's data sheet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hil_sim.devices._pool_image import PoolImage
from hil_sim.devices.base import LineEmulator
from hil_sim.frame_ring import PIXEL_FORMATS, RingWriter

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

SOLIDUS_DEG_C = 1410.85  # 316L: 1684 K, configs/materials/316l.toml
C2_UM_K = 14387.77
WAVELENGTH_UM = 0.85
COUNTS_PER_US = 2.81e5  # 16 bit, 0 dB, at infinite temperature (guess)
MM_PER_PX = 0.05
BLUR_PX = 0.8  # (guess)
OFFSET = {"Mono8": 3.0, "Mono16": 800.0}  # black level (guess)
READ_NOISE = {"Mono8": 0.3, "Mono16": 20.0}  # counts (guess)
ELECTRONS_PER_COUNT = 0.46  # full well of 30,000 at 16 bit (guess)
# trailing half axis: Rosenthal's isotherm behind a point source, P A / (2 pi k (Ts - T0)), which
# does not depend on speed. Absorptivity 0.35 and 30 W/(m K) near melting (guess).
TAIL_MM_PER_W = 0.35 / (2.0 * math.pi * 0.030 * (SOLIDUS_DEG_C - 21.0))
CLOCK_ERROR_PPM = 12.0  # of the camera's quartz (guess)
CLOCK_START_NS = 7_340_000_000_000

# name: least, most, value at power-up
FEATURES: dict[str, tuple[float, float, float]] = {
    "Width": (64, 512, 128),
    "Height": (64, 512, 128),
    "ExposureTime": (1.0, 100_000.0, 100.0),
    "Gain": (0.0, 48.0, 0.0),
    "AcquisitionFrameRate": (1.0, 1000.0, 100.0),
}
WHOLE = {"Width", "Height"}


class CameraRing(LineEmulator):
    """Renders ``world``'s melt pool.

    Fault hooks besides those of the wire: ``stopped`` (no new frames), ``torn`` (frames are left
    half written), ``covered`` (no light), ``hot`` (so many times the light), ``plume`` (glow
    over the pool, of the light at its edge), ``spatter`` (droplets a frame), ``shift_px``.
    """

    channel = "camera"

    def __init__(self, sim: Scheduler, world: World) -> None:
        super().__init__(sim, world)
        self.features = {name: start for name, (_, _, start) in FEATURES.items()}
        self.pixel_format = "Mono16"
        self.stopped = self.torn = self.covered = False
        self.hot = 1.0
        self.plume = 0.0
        self.spatter = 0
        self.shift_px = (0.3, -0.2)  # beam against the frame's middle, as mounted
        self.number = 0
        self.ring: RingWriter | None = None
        self._run = 0
        self._image: PoolImage | None = None
        self._random = np.random.Generator(np.random.PCG64(850))
        self._noise = self._random.standard_normal(65536).astype(np.float32)
        self._angle_rad = 0.0
        self._place = (world.x_mm, world.y_mm)
        self._do: dict[str, Callable[[], str]] = {
            "AcquisitionStart": self._start,
            "AcquisitionStop": self._stop,
            "RingTaken": self._taken,
            "TimestampLatch": lambda: f"={self.clock_ns()}",
        }

    def clock_ns(self) -> int:
        """The camera's own clock."""
        return CLOCK_START_NS + round(self.sim.now_us * (1e3 + CLOCK_ERROR_PPM * 1e-3))

    def closed(self) -> None:
        super().closed()
        self._stop()

    def on_line(self, line: bytes) -> bytes:
        try:
            verb, _, rest = line.decode("ascii").partition(" ")
        except UnicodeDecodeError:
            return b"ERR: no text\r"
        if verb == "do" and rest in self._do:
            return f"{rest}{self._do[rest]()}\r".encode("ascii")
        name, _, value = rest.partition("=")
        if verb == "get" and not value:
            known = {**self.features, "PixelFormat": self.pixel_format, "DeviceVersion": "sim-1"}
            if name in known:
                return f"{name}={_text(name, known[name])}\r".encode("ascii")
        if verb == "set" and self._set(name, value):
            known = {**self.features, "PixelFormat": self.pixel_format}
            return f"{name}={_text(name, known[name])}\r".encode("ascii")
        return f"ERR: {line[:60].decode('ascii')}\r".encode("ascii")

    def _set(self, name: str, value: str) -> bool:
        """A camera takes the nearest value that it can do; none while it acquires size."""
        if name == "PixelFormat" and value in PIXEL_FORMATS and self.ring is None:
            self.pixel_format = value
            return True
        if name not in FEATURES or (name in WHOLE and self.ring is not None):
            return False
        try:
            number = float(value)
        except ValueError:
            return False
        if not math.isfinite(number):
            return False
        least, most, _ = FEATURES[name]
        self.features[name] = min(max(number, least), most)
        return True

    def _start(self) -> str:
        self._stop()
        width, height = int(self.features["Width"]), int(self.features["Height"])
        self.ring = RingWriter(width, height, self.pixel_format)
        self._image = PoolImage(width, height, self._noise)
        self.number = 0
        self._run += 1
        self._next(self._run)
        return f"={self.ring.name}"

    def _taken(self) -> str:
        if self.ring is not None:
            self.ring.unlink()
        return ""

    def _stop(self) -> str:
        self._run += 1
        if self.ring is not None:
            self.ring.close()
            self.ring = None
        return ""

    def _next(self, run: int) -> None:
        period_us = max(
            round(1e6 / self.features["AcquisitionFrameRate"]), round(self.features["ExposureTime"])
        )
        self.sim.at(self.sim.now_us + period_us, lambda: self._frame(run))

    def _frame(self, run: int) -> None:
        if run != self._run or self.ring is None:
            return
        if not self.stopped:
            self.number += 1
            self.ring.write(
                self.number,
                self.clock_ns(),
                self.features["ExposureTime"],
                self.features["Gain"],
                self._draw,
                torn=self.torn,
            )
        self._next(run)

    def _draw(self, pixels: Any) -> None:
        assert self._image is not None
        world = self.world
        dx, dy = world.x_mm - self._place[0], world.y_mm - self._place[1]
        if dx * dx + dy * dy > 1e-6:
            self._angle_rad, self._place = math.atan2(dy, dx), (world.x_mm, world.y_mm)
        width_mm = world.bead_width_mm
        peak_deg_c = 2.0 * world.pool_temp_deg_c - SOLIDUS_DEG_C  # a parabola's mean is halfway
        if width_mm <= 0.0 or peak_deg_c <= SOLIDUS_DEG_C:
            width_mm, peak_deg_c = 0.0, min(world.pool_temp_deg_c, SOLIDUS_DEG_C - 150.0)
        share = 1.0 if self.pixel_format == "Mono16" else 255.0 / 65535.0
        counts = (
            COUNTS_PER_US
            * self.features["ExposureTime"]
            * 10.0 ** (self.features["Gain"] / 20.0)
            * share
            * (0.0 if self.covered else self.hot)
        )
        height, width = pixels.shape
        x_px = 0.5 * (width - 1) + self.shift_px[0]
        y_px = 0.5 * (height - 1) + self.shift_px[1]
        self._image.render(
            pixels,
            self.number,
            width_px=width_mm / MM_PER_PX,
            tail_px=world.emission_w * TAIL_MM_PER_W / MM_PER_PX,
            x_px=x_px,
            y_px=y_px,
            angle_rad=self._angle_rad,
            peak_deg_c=peak_deg_c,
            solidus_deg_c=SOLIDUS_DEG_C,
            counts=counts,
            wien_k=C2_UM_K / WAVELENGTH_UM,
            offset=OFFSET[self.pixel_format],
            read_noise=READ_NOISE[self.pixel_format],
            electrons_per_count=ELECTRONS_PER_COUNT / share,
            sigma_px=BLUR_PX,
            full=65535 if self.pixel_format == "Mono16" else 255,
            spots=self._spots(x_px, y_px, width, width_mm / MM_PER_PX, counts),
        )

    def _spots(
        self, x: float, y: float, size: int, pool_px: float, counts: float
    ) -> list[tuple[float, float, float, float]]:
        """Plume over the pool, droplets beside it: (x, y, sigma, counts)."""
        if pool_px <= 0.0 or not (self.plume or self.spatter):
            return []
        edge = counts * math.exp(-C2_UM_K / WAVELENGTH_UM / (SOLIDUS_DEG_C + 273.15))
        spots = [(x, y, 0.25 * size, self.plume * edge)] if self.plume else []
        for _ in range(self.spatter):
            angle, away = self._random.uniform(0.0, 2.0 * math.pi), self._random.uniform(1.3, 3.0)
            reach = min(0.5 * pool_px * away + 4.0, 0.47 * size)
            spots.append((
                x + reach * math.cos(angle),
                y + reach * math.sin(angle),
                float(self._random.uniform(0.6, 1.5)),
                edge * float(self._random.uniform(1.0, 10.0)),
            ))  # fmt: skip
        return spots


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if name in WHOLE else f"{value:g}"

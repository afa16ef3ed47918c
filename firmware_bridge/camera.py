"""What all melt-pool cameras share: frames in, the pool's measures out.

A back end delivers frames with numbers and time stamps; here each is measured by the kernel
and the newest becomes the role's reading. Every frame since the last poll is measured: at
1 kHz a poll at 100 Hz sees ten, and ``history`` keeps the last thousand.
"""

import asyncio
import math
from collections import deque
from typing import Any, ClassVar, NamedTuple

from firmware_bridge.camera_setup import CameraSetup, load_camera
from firmware_bridge.device import Device
from firmware_bridge.errors import DeviceError, MapError
from firmware_bridge.roles import CameraReading
from firmware_bridge.transport import Port

HISTORY = 1000
LONGEST_GAP_S = 0.25  # without a new frame, beyond five periods: the camera is said to be dead
LATCH_EVERY_S = 1.0
DRIFT_PPM = 200.0  # a camera's quartz against ours, at the worst


class PoolFrame(NamedTuple):
    """One frame's measures; NaN where nothing is seen. ``x_mm``, ``y_mm``: from its middle."""

    at_us: int
    frame: int
    width_mm: float
    length_mm: float
    area_mm2: float
    mean_deg_c: float
    peak_deg_c: float
    saturated_share: float
    x_mm: float
    y_mm: float
    ok: bool
    why_not: str


class DeviceClock:
    """The camera's clock on ours, by latches: bounds that each question and answer give.

    A latch was taken between the question and its answer. The lower bound is used, so a frame
    may look older than it is, by ``bound_us`` at the most, and never younger.
    """

    def __init__(self) -> None:
        self.low_us = self.high_us = 0.0
        self._at_us: float | None = None

    @property
    def bound_us(self) -> float:
        """Width of the bounds at the last latch, us."""
        return self.high_us - self.low_us

    def latch(self, device_ns: int, sent_us: float, heard_us: float) -> None:
        """Take a latch: device time, and our times of question and answer."""
        low, high = sent_us - device_ns * 1e-3, heard_us - device_ns * 1e-3
        if self._at_us is not None:
            drift = DRIFT_PPM * 1e-6 * (heard_us - self._at_us)
            both = max(low, self.low_us - drift), min(high, self.high_us + drift)
            if both[0] <= both[1]:  # else the camera's clock was set anew
                low, high = both
        self.low_us, self.high_us, self._at_us = low, high, heard_us

    def to_us(self, device_ns: int) -> int:
        """Our time of an instant of the camera's clock, us."""
        return math.floor(device_ns * 1e-3 + self.low_us)


class PoolCamera(Device):
    """Base of the camera drivers.

    ``map``: camera file, name in ``configs/cameras`` or path. Raises MapError.
    """

    queries: ClassVar[tuple[Any, ...]] = ()
    actions: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, port: Port, name: str | None = None, *, map: str = "ring_sim", **options: Any
    ) -> None:
        super().__init__(port, name, **options)
        self.setup: CameraSetup = load_camera(map)
        self._kernel = self.setup.kernel()
        self.clock = DeviceClock()
        self.history: deque[PoolFrame] = deque(maxlen=HISTORY)
        self._last = 0
        self._fresh_at_s = 0.0
        self._gap_s = LONGEST_GAP_S + 5.0 / self.setup.features["AcquisitionFrameRate"]

    # what a back end fills in
    async def start(self) -> None:
        """Set the features, read them back, start the acquisition."""
        raise NotImplementedError

    async def latch(self) -> None:
        """Give ``clock`` a latch."""
        raise NotImplementedError

    def frames(self, last: int) -> list[tuple[int, int, tuple[Any, ...]]]:
        """Frames after number ``last``: (number, device time in ns, the kernel's measures)."""
        raise NotImplementedError

    def feature_check(self, name: str, got: Any) -> None:
        """Refuse a camera that holds another value than the set-up's. Raises DeviceError."""
        want = self.setup.features[name]
        same = got == want if isinstance(want, str) else abs(got - want) <= 0.02 * abs(want)
        if not same:
            raise DeviceError(f"{self.name}: {name} is {got}, {self.setup.origin} wants {want}")

    # what the cell calls
    async def _open(self) -> None:
        await self.start()
        self.clock = DeviceClock()
        await self.latch()
        loop = asyncio.get_running_loop()
        self._last, self._fresh_at_s = 0, loop.time()
        self._latch_at_s = loop.time() + LATCH_EVERY_S

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._latch_at_s:
            await self.latch()
            self._latch_at_s = loop.time() + LATCH_EVERY_S
        now_us = round(loop.time() * 1e6)
        for number, device_ns, measures in self.frames(self._last):
            self._last = number
            self.history.append(self._judge(number, device_ns, now_us, measures))
            self._fresh_at_s = loop.time()
        age_s = loop.time() - self._fresh_at_s
        if age_s > self._gap_s:
            raise DeviceError(f"{self.name}: no new frame for {age_s:.2f} s, last {self._last}")
        if self._last == 0:
            return
        fields = tuple(CameraReading.__dataclass_fields__)[1:]
        self.reading = CameraReading(self.newest.at_us, *[getattr(self, f) for f in fields])

    # fields of the reading: the newest frame's
    newest = property(lambda self: self.history[-1])
    frame = property(lambda self: self.newest.frame)
    width_mm = property(lambda self: self.newest.width_mm)
    area_mm2 = property(lambda self: self.newest.area_mm2)
    temp_deg_c = property(lambda self: self.newest.mean_deg_c)
    saturated = property(lambda self: self.newest.saturated_share > self.setup.saturated_share)
    ok = property(lambda self: self.newest.ok)

    async def _safe_steps(self) -> list[str]:
        return []  # a camera has no output

    def measure(self, pixels: Any) -> tuple[Any, ...]:
        """The kernel's measures of a frame ((height, width) uint8 or uint16)."""
        measures: tuple[Any, ...] = self._kernel.measure(pixels)
        return measures

    def _judge(self, number: int, device_ns: int, now_us: int, got: tuple[Any, ...]) -> PoolFrame:
        """The kernel's pixels in mm and degC; what the camera cannot know is NaN."""
        found, width, length, area, mean, peak, share, x, y, *_, edge, dark = got
        at_us = min(self.clock.to_us(device_ns), now_us)
        mm = self.setup.scale_mm_px
        nan = math.nan
        if dark:
            why = "the pool's edge is lost in the noise"
        elif edge:
            why = "the pool reaches the frame's border"
        else:
            why = ""
        if why:
            return PoolFrame(at_us, number, nan, nan, nan, nan, nan, share, nan, nan, False, why)
        if not found:
            return PoolFrame(at_us, number, 0.0, 0.0, 0.0, nan, nan, 0.0, nan, nan, True, "")
        if share > self.setup.saturated_share:
            mean = peak = nan
        features = self.setup.features
        return PoolFrame(
            at_us,
            number,
            width * mm,
            length * mm,
            area * mm * mm,
            mean,
            peak,
            share,
            (x - 0.5 * (features["Width"] - 1)) * mm,
            (y - 0.5 * (features["Height"] - 1)) * mm,
            True,
            "",
        )


__all__ = ["DeviceClock", "MapError", "PoolCamera", "PoolFrame"]

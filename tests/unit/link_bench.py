"""A motion link against the native firmware: in-memory wire, simulated loop time."""

import asyncio
import selectors
from collections.abc import Callable

import numpy as np

from firmware_bridge.link_types import AxisSettings, LinkSettings
from firmware_bridge.motion_link import MotionLink
from firmware_bridge.segments import SEGMENT
from firmware_bridge.transport import Port, Wire
from hil_sim.firmware import NativeFirmware
from tests.unit.firmware_bench import AXES
from tests.unit.protocol_reader import config

SETTINGS = LinkSettings(
    axes=(
        AxisSettings(400, 120, 2000, 0, 300),
        AxisSettings(400, 120, 2000, 0, 300),
        AxisSettings(400, 40, 500, 0, 250),
    ),
    total_accel_mm_s2=2000,
    plan_share=0.8,
    longest_emission_s=600,
)


class MemoryWire(Wire):
    """Hands bytes to the firmware at once; what it answers comes at the same instant.

    ``spoil`` may change or drop (b"") what the host writes, ``spoil_back`` what comes back.
    """

    def __init__(self, bench: "Bench") -> None:
        super().__init__("motion")
        self.bench = bench

    def write(self, data: bytes) -> None:
        self.bench.written.append((self.bench.fw.now_us, data))
        data = self.bench.spoil(data)
        if data and self.bench.connected:
            self.bench.fw.rx(data)
            self.bench.collect()

    def close(self) -> None:
        self.is_open = False


class MemoryPort(Port):
    def __init__(self, bench: "Bench") -> None:
        super().__init__("motion")
        self.bench = bench

    def __str__(self) -> str:
        return "memory"

    async def open(self) -> Wire:
        self.bench.wire = MemoryWire(self.bench)
        return self.bench.wire


class _Selector(selectors.SelectSelector):
    bench: "Bench"

    def select(self, timeout: float | None = None) -> list:
        if timeout is None or timeout > 0:
            wait_us = 10**6 if timeout is None else max(1, round(timeout * 1e6))
            self.bench.pass_time(self.bench.fw.now_us + wait_us)
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, bench: "Bench") -> None:
        selector = _Selector()
        selector.bench = bench
        self.bench = bench
        super().__init__(selector)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self.bench.fw.now_us * 1e-6


class Bench:
    """Firmware, wire and loop; ``run(coroutine)`` plays it out in simulated time."""

    def __init__(self, settings: LinkSettings = SETTINGS, blob: bytes | None = None) -> None:
        self.fw = NativeFirmware(config(AXES) if blob is None else blob, 0x1234ABCD)
        self.fw.set_input(0, True)
        self.wire: MemoryWire | None = None
        self.connected = True
        self.written: list[tuple[int, bytes]] = []
        self.spoil: Callable[[bytes], bytes] = lambda data: data
        self.spoil_back: Callable[[bytes], bytes] = lambda data: data
        self._rows: list[np.ndarray] = []
        self.loop = _Loop(self)
        self.link = MotionLink(MemoryPort(self), settings)
        self.supervised = True

    def collect(self) -> None:
        data = self.spoil_back(self.fw.tx())
        self._rows.append(self.fw.rows())
        self.fw.samples()
        if data and self.wire is not None:
            self.loop.call_soon(self.wire.deliver, data)

    def pass_time(self, until_us: int) -> None:
        self.fw.run(until_us)
        self.collect()

    @property
    def rows(self) -> np.ndarray:
        return np.concatenate(self._rows)

    def at(self, kind: int, arg: int | None = None) -> list[int]:
        rows = self.rows
        pick = rows["kind"] == kind
        if arg is not None:
            pick &= rows["arg"] == arg
        return [int(t) for t in rows["t_us"][pick]]

    async def supervise(self) -> None:
        """Tokens each 10 ms, as the control tick gives them."""
        while self.supervised:
            self.link.token()
            await asyncio.sleep(0.01)

    def run(self, coroutine) -> None:
        async def main() -> None:
            await self.link.connect()
            keeper = asyncio.ensure_future(self.supervise())
            try:
                await asyncio.wait_for(coroutine, 120)
            finally:
                keeper.cancel()
                self.link.close()

        try:
            self.loop.run_until_complete(main())
        finally:
            coroutine.close()  # where connecting failed it never began
            self.loop.close()

    async def ready(self, segments: np.ndarray) -> None:
        await asyncio.sleep(0.02)
        await self.link.home()
        self.link.load(segments)
        await self.link.arm()


def job(n: int, steps=(40, 20, 0), ticks: int = 10000, back_after: int = 200) -> np.ndarray:
    """n segments to and fro, gate on, END at the last."""
    out = np.zeros(n, SEGMENT)
    sign = np.where(np.arange(n) // back_after % 2 == 0, 1, -1)
    out["steps"][:, : len(steps)] = sign[:, None] * np.array(steps)
    out["start_ratio"] = 32768
    out["end_power"] = 30000
    out["end_speed"] = 32768
    out["ticks_lo"] = ticks
    out["flags"] = 1
    out["flags"][-1] |= 16
    return out

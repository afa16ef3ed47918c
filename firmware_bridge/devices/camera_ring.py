"""Melt-pool camera whose frames come through a ring in shared memory, features by a line.

Source: ours, docs/reference/frame-ring.md; feature names and units from the GenICam Standard
Features Naming Convention; docs/reference/device-protocols.md. The simulated camera serves
it, and so can a small program around any maker's library, in a process of its own.
"""

import asyncio
import re
from typing import Any

from firmware_bridge.ascii_device import AsciiLine
from firmware_bridge.camera import PoolCamera
from firmware_bridge.errors import DeviceError
from firmware_bridge.frame_ring import FrameRing
from firmware_bridge.roles import MeltPoolCamera
from firmware_bridge.transport import Port

PROBE = ("get DeviceVersion", "DeviceVersion=.+")


class RingCamera(PoolCamera, role=MeltPoolCamera):
    """Features are set at connect and read back; frames are measured in place."""

    def __init__(self, port: Port, name: str | None = None, **options: Any) -> None:
        super().__init__(port, name, **options)
        self.line = AsciiLine(port, self.name, PROBE, self._lost_wire)
        self.ring: FrameRing | None = None

    async def ask(self, command: str, pattern: str) -> str:
        """One command; group 1 of its whole reply. Raises DeviceError."""
        found = await self.line.ask(command.encode("ascii") + b"\r", re.compile(pattern).fullmatch)
        return str(found[1])

    async def start(self) -> None:
        """Set the features, read them back, start, take the ring."""
        await self.line.open()
        # a serial line does not tell the camera that its last host is gone
        await self.ask("do AcquisitionStop", "(AcquisitionStop)")
        for name, value in self.setup.features.items():
            said = await self.ask(f"set {name}={value}", f"{name}=([-+.0-9A-Za-z]+)")
            self.feature_check(name, said if isinstance(value, str) else _number(name, said))
        ring = await self.ask("do AcquisitionStart", "AcquisitionStart=([0-9a-z-]+)")
        self.ring = FrameRing(ring)
        await self.ask("do RingTaken", "(RingTaken)")
        size = (self.setup.features["Width"], self.setup.features["Height"])
        if (self.ring.width, self.ring.height) != size:
            raise DeviceError(f"{self.name}: frames of {self.ring.width} x {self.ring.height} px")

    async def latch(self) -> None:
        """Ask for the camera's time."""
        loop = asyncio.get_running_loop()
        sent_us = loop.time() * 1e6
        device_ns = int(await self.ask("do TimestampLatch", r"TimestampLatch=(\d{1,18})"))
        self.clock.latch(device_ns, sent_us, loop.time() * 1e6)

    def frames(self, last: int) -> list[tuple[int, int, tuple[Any, ...]]]:
        """Frames after ``last``, measured where they lie."""
        if self.ring is None:
            raise DeviceError(f"{self.name}: not connected")
        return [(h.number, h.at_ns, m) for h, m in self.ring.since(last, self.measure)]

    def close(self) -> None:
        super().close()
        self.line.close()
        if self.ring is not None:
            self.ring.close()
            self.ring = None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DeviceError(f"{name}: {text!r} is no number") from None

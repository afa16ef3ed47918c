"""Melt-pool camera behind a maker's GenTL producer (GigE Vision, USB3 Vision), by harvesters.

Source: harvesters' documentation (github.com/genicam/harvesters, README and tutorial), GenICam
Standard Features Naming Convention; docs/reference/device-protocols.md. The package is not
installed with the program; without it the driver refuses by name. Not run on a camera yet.
The port is not used: ``producer`` is the path of the .cti file, ``serial`` names the camera.
"""

import asyncio
import importlib
from typing import Any

from firmware_bridge.camera import PoolCamera
from firmware_bridge.errors import DeviceError
from firmware_bridge.roles import MeltPoolCamera
from firmware_bridge.transport import Port

BUFFERS = 64


class GenicamCamera(PoolCamera, role=MeltPoolCamera):
    """Frames are taken from the producer's buffers at each poll, never waited for."""

    def __init__(
        self,
        port: Port,
        name: str | None = None,
        *,
        producer: str = "",
        serial: str = "",
        **kw: Any,
    ) -> None:
        super().__init__(port, name, **kw)
        self.producer, self.serial = producer, serial
        self._harvester: Any = None
        self._camera: Any = None

    async def start(self) -> None:
        """Open the camera, set the features, read them back, start."""
        try:
            core = importlib.import_module("harvesters.core")
        except ImportError:
            raise DeviceError(
                f"{self.name}: the Python package 'harvesters' is not installed; driver "
                f"'camera_genicam' needs it and a maker's GenTL producer (.cti)"
            ) from None
        if not self.producer:
            raise DeviceError(f"{self.name}: no producer (.cti file) is named")
        try:
            self._harvester = core.Harvester()
            self._harvester.add_file(self.producer)
            self._harvester.update()
            wanted = {"serial_number": self.serial} if self.serial else 0
            self._camera = self._harvester.create(wanted)
            self._camera.num_buffers = BUFFERS
            nodes = self._camera.remote_device.node_map
            for feature, value in self.setup.features.items():
                getattr(nodes, feature).value = value
                self.feature_check(feature, getattr(nodes, feature).value)
            self._camera.start()
        except DeviceError:
            raise
        except Exception as exc:  # producers raise errors of their own
            raise DeviceError(f"{self.name}: {type(exc).__name__}: {exc}") from None

    async def latch(self) -> None:
        """Latch the camera's clock."""
        loop, nodes = asyncio.get_running_loop(), self._camera.remote_device.node_map
        sent_us = loop.time() * 1e6
        nodes.TimestampLatch.execute()
        heard_us = loop.time() * 1e6
        self.clock.latch(int(nodes.TimestampLatchValue.value), sent_us, heard_us)

    def frames(self, last: int) -> list[tuple[int, int, tuple[Any, ...]]]:
        """What lies in the producer's buffers, measured in place, buffers given back."""
        taken = []
        for _ in range(BUFFERS):
            buffer = self._camera.try_fetch(timeout=0)
            if buffer is None:
                break
            try:
                part = buffer.payload.components[0]
                pixels = part.data.reshape(part.height, part.width)
                last += 1
                taken.append((last, int(buffer.timestamp_ns), self.measure(pixels)))
            finally:
                buffer.queue()
        return taken

    def close(self) -> None:
        super().close()
        for part, end in ((self._camera, "destroy"), (self._harvester, "reset")):
            if part is not None:
                getattr(part, end)()
        self._camera = self._harvester = None

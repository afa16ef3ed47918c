"""Powder feeder by register map file, Modbus TCP or RTU.

Source: the map file names its own; no maker publishes a map, the one that comes with the
program is fictitious (configs/maps/feeder_fictitious.toml);
docs/reference/device-protocols.md section 5.
"""

import asyncio
from typing import Any

from firmware_bridge.errors import DeviceError
from firmware_bridge.feed_curve import curves
from firmware_bridge.modbus_device import MapDevice
from firmware_bridge.registers import Setting
from firmware_bridge.roles import PowderFeeder
from firmware_bridge.transport import Port


class FeederMap(MapDevice, role=PowderFeeder):
    """Disc feeder, one speed a hopper; flow by the map's calibration curve."""

    default_map = "feeder_fictitious"
    needs_bits = ("ready",)
    needs_settings = ("run_bits", "diverter_to_nozzle")

    def __init__(self, port: Port, name: str | None = None, **options: Any) -> None:
        super().__init__(port, name, **options)
        self.curves = curves(self.map)
        self.n_hoppers = len(self.curves)
        self._one_flow = asyncio.Lock()
        for h in range(1, self.n_hoppers + 1):
            self.map.need(f"hopper{h}_speed_set_rpm", Setting)
            self.map.need(f"hopper{h}_speed_rpm")
            self.map.need(f"hopper{h}_mass_g")
            self.map.need_bit(f"hopper{h}_stalled")

    def _each(self, what: str) -> tuple[Any, ...]:
        return tuple([self._values[f"hopper{h}_{what}"] for h in range(1, self.n_hoppers + 1)])

    def _flow(self, speeds_rpm: tuple[float, ...]) -> tuple[float, ...]:
        return tuple([c.flow_g_min(s) for s, c in zip(speeds_rpm, self.curves, strict=True)])

    speed_measured_rpm = property(lambda self: self._each("speed_rpm"))
    flow_measured_g_min = property(lambda self: self._flow(self._each("speed_rpm")))
    mass_left_g = property(lambda self: tuple([float(g) for g in self._each("mass_g")]))
    stalled_hoppers = property(lambda self: self._each("stalled"))
    stalled = property(lambda self: any(self._each("stalled")))
    diverter_to_nozzle = property(lambda self: self._values["diverter_to_nozzle"] == 1)

    @property
    def flow_set_g_min(self) -> tuple[float, ...]:
        """Set flow of each hopper, g/min; 0 while its run bit is off."""
        run = self._values["run_bits"]
        speeds = self._each("speed_set_rpm")
        return self._flow(tuple([s if run >> i & 1 else 0.0 for i, s in enumerate(speeds)]))

    async def set_flow(self, hopper: int, g_min: float) -> None:
        """Flow of one hopper (0 is the first), g/min; 0 stops it. Raises DeviceError."""
        if not 0 <= hopper < self.n_hoppers:
            raise DeviceError(f"{self.name}: hopper {hopper} is not 0 to {self.n_hoppers - 1}")
        speed_rpm = self.curves[hopper].speed_rpm(g_min)
        since = self.n_urgent
        async with self._one_flow:  # the hoppers share the run word
            await self.put(f"hopper{hopper + 1}_speed_set_rpm", speed_rpm, since=since)
            run = int(self._values.get("run_bits", 0)) & ~(1 << hopper)
            if g_min > 0.0:
                run |= 1 << hopper
            await self.put("run_bits", run, since=since)
            self._values["run_bits"] = run  # the next call must see it before a poll does

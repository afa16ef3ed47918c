"""Keyence LK-G displacement sensor on the head (docs/reference/device-protocols.md)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hil_sim.devices.base import LineEmulator

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

RANGE_MM = 15.0  # an LK-G85 sees 15 mm to each side
NO_VALUE = b"XXXXXXXX"


class HeightKeyence(LineEmulator):
    """Surface under the tool against the nozzle's point, + is higher.

    Fault hooks besides those of the wire: ``blind`` (no light comes back, as from a mirror or
    behind a spatter), ``shift_mm`` (the sensor was knocked), ``held_mm`` (a frozen value).
    """

    channel = "height"

    def __init__(self, sim: Scheduler, world: World, zero_mm: float = 0.0) -> None:
        super().__init__(sim, world)
        self.zero_mm = zero_mm  # what the sensor shows with the surface at the nozzle's point
        self.blind = False
        self.shift_mm = 0.0
        self.held_mm: float | None = None

    def on_line(self, line: bytes) -> bytes:
        command = line.upper()  # the maker takes both cases
        if command == b"M1":
            return b"M1," + self._value() + b"\r"
        if command == b"M2":
            return b"M2," + NO_VALUE + b"\r"  # OUT2 is not used
        if command == b"M0":
            return b"M0," + self._value() + b"," + NO_VALUE + b"\r"
        head = command.split(b",")[0][:2].decode("ascii", "replace").encode("ascii", "replace")
        return b"ER," + head + b",00\r"

    def _value(self) -> bytes:
        world = self.world
        height_mm = world.height_mm - world.z_mm + self.zero_mm + self.shift_mm
        if self.held_mm is not None:
            height_mm = self.held_mm
        if self.blind or math.isnan(height_mm):
            return NO_VALUE
        if abs(height_mm) > RANGE_MM:
            return b"+FFFFFFF" if height_mm > 0.0 else b"-FFFFFFF"
        return b"%+08.4f" % height_mm

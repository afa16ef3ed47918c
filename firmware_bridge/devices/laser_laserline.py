"""Laserline LDF diode laser behind a Modbus gateway, by register map file, RTU or TCP.

Source: Laserline LDF 5000-40 manual (2009) for states and waits; the registers are the
gateway's project (configs/maps/laser_ldf_fictitious.toml is fictitious);
docs/reference/device-protocols.md section 10.
"""

import asyncio
import math
from typing import Any

from firmware_bridge.errors import DeviceError
from firmware_bridge.role_map import RoleMap
from firmware_bridge.roles import LaserSource
from firmware_bridge.transport import Port


class LaserlineLdf(RoleMap, role=LaserSource):
    """Power by the analog input, light by the gate; ends light without leaving 'ready'."""

    default_map = "laser_ldf_fictitious"
    needs_bits = ("ready", "threshold_reached")

    def __init__(self, port: Port, name: str | None = None, **options: Any) -> None:
        super().__init__(port, name, **options)
        self.estop_wait_s = self.map.number("estop_wait_s")
        self.least_deg_c = self.map.number("coolant_least_deg_c")
        self._was_open, self._opened_at_s = False, -math.inf

    def refusal(self) -> str:
        """Why no light may be asked for now; empty when it may."""
        now_s = asyncio.get_running_loop().time()
        was_open, self._was_open = self._was_open, not self.value("interlock_ok")
        if self._was_open:
            self._opened_at_s = self._opened_at_s if was_open else now_s
            return "interlock open"
        wait_s = self._opened_at_s + self.estop_wait_s - now_s
        if wait_s > 0.0:
            return f"{wait_s:.1f} s of {self.estop_wait_s:g} s left after the e-stop"
        coolant_deg_c = self.value("coolant_deg_c")
        if coolant_deg_c < self.least_deg_c:
            return f"coolant {coolant_deg_c:g} degC below {self.least_deg_c:g} degC"
        return ""

    @property
    def ready(self) -> bool:
        """The source says ready, and neither wait nor coolant forbids light."""
        return not self.refusal() and bool(self.value("ready"))

    async def emission_enable(self) -> None:
        """Ready, external control, light on. Raises DeviceError that says why not."""
        if text := self.refusal():
            raise DeviceError(f"{self.name}: no emission: {text}")
        await self.carry_out("emission_enable")

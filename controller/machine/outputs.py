"""What the host commands the process devices to do: set values and who failed to take them."""

import asyncio
from collections.abc import Callable
from typing import Any

from controller.machine.cell import CellDevices
from controller.model import PowderChannel

Failed = Callable[[str, str], None]  # role, text


class Outputs:
    """Set values of powder and gas as commanded; a command never waits for its device."""

    def __init__(self, devices: CellDevices, failed: Failed) -> None:
        self._devices = devices
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        now_us = self._now_us()
        self.hopper_set_g_min: tuple[float, float] = (0.0, 0.0)
        self.powder_set_us = now_us
        self.carrier_set_l_min = 0.0
        self.shield_set_l_min = 0.0
        self.gas_set_us = now_us
        self.diverter_to_nozzle = False  # as commanded now
        self.diverter_planned = False  # as the timeline wants it, kept through a hold

    def _now_us(self) -> int:
        return round(self._loop.time() * 1e6)

    def submit(
        self, role: str, call: Callable[[Any], Any], *, urgent: bool = False
    ) -> "asyncio.Task[None]":
        """Give a driver a command; a failure is told, never raised."""
        return self._devices.submit(
            role, call, lambda text: self._failed(role, text), urgent=urgent
        )

    def apply(self, channel: PowderChannel, value: float) -> None:
        """One row of the process timeline."""
        if channel is PowderChannel.DIVERTER:
            self.diverter_planned = value >= 0.5
            self.divert(to_nozzle=self.diverter_planned)
        elif channel is PowderChannel.CARRIER:
            self.note_gas(value, self.shield_set_l_min)
            self.submit("gas", lambda d: d.set_carrier(value))
        elif channel is PowderChannel.SHIELD:
            self.note_gas(self.carrier_set_l_min, value)
            self.submit("gas", lambda d: d.set_shield(value))
        else:
            hopper = int(channel)
            first, second = self.hopper_set_g_min
            self.note_powder((value, second) if hopper == 0 else (first, value))
            self.submit("powder", lambda d: d.set_flow(hopper, value))

    def divert(self, *, to_nozzle: bool) -> None:
        """Powder to the nozzle or to waste."""
        self.diverter_to_nozzle = to_nozzle
        self.submit("powder", lambda d: d.set_diverter(to_nozzle))

    def note_gas(self, carrier_l_min: float, shield_l_min: float) -> None:
        """Gas set values: the interlocks compare the measured flows with them."""
        if (carrier_l_min, shield_l_min) != (self.carrier_set_l_min, self.shield_set_l_min):
            self.carrier_set_l_min, self.shield_set_l_min = carrier_l_min, shield_l_min
            self.gas_set_us = self._now_us()

    def note_powder(self, hoppers: tuple[float, float]) -> None:
        """Powder set values, likewise."""
        if hoppers != self.hopper_set_g_min:
            self.hopper_set_g_min = hoppers
            self.powder_set_us = self._now_us()

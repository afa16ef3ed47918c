"""What the host commands the process devices to do: set values and who failed to take them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from controller.machine.cell import CellDevices
from controller.machine.monitor import PlanCursor
from controller.model import PowderChannel

Failed = Callable[[str, str], None]  # role, text
SHIELD_AFTER_S = 30.0  # fault table P: shield gas over the hot part after a hold or a stop


class Outputs:
    """Set values of powder and gas as commanded; a command never waits for its device."""

    def __init__(self, devices: CellDevices, failed: Failed) -> None:
        self._devices = devices
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        now_us = self._now_us()
        self.hopper_set_g_min: tuple[float, float] = (0.0, 0.0)
        self.powder_set_us = now_us
        self._powder_before: deque[tuple[int, tuple[float, float]]] = deque()  # until when
        self.carrier_set_l_min = 0.0
        self.shield_set_l_min = 0.0
        self.gas_set_us = now_us
        self.diverter_to_nozzle = False  # as commanded now
        self.diverter_planned = False  # as the timeline wants it, kept through a hold
        self.wasting = False  # held: powder to waste whatever the timeline wants
        self.shield_until_us = -1  # then the gas over the hot part ends; -1: no such end
        self.rested: tuple[tuple[float, float], float] | None = None  # hoppers, shield before

    def _now_us(self) -> int:
        return round(self._loop.time() * 1e6)

    def submit(
        self, role: str, call: Callable[[Any], Any], *, urgent: bool = False
    ) -> "asyncio.Task[None]":
        """Give a driver a command; a failure is told, never raised."""
        return self._devices.submit(
            role, call, lambda text: self._failed(role, text), urgent=urgent
        )

    def follow(self, cursor: PlanCursor) -> None:
        """Send what the process timeline has due at the cursor's plan time."""
        i, due = cursor.next_command, cursor.command_us
        while i < len(due) and due[i] <= cursor.plan_us:
            self.apply(PowderChannel(cursor.command_channel[i]), cursor.command_value[i])
            i += 1
        cursor.next_command = i

    def apply(self, channel: PowderChannel, value: float) -> None:
        """One row of the process timeline."""
        if channel is PowderChannel.DIVERTER:
            self.diverter_planned = value >= 0.5
            if not self.wasting:
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

    def to_waste(self) -> None:
        """A hold: powder to waste at once, until ``wasting`` is taken back."""
        if not self.wasting:
            self.wasting = True
            self.divert(to_nozzle=False)

    def keep(self, hoppers_g_min: tuple[float, ...]) -> None:
        """Flows for as long as the plan stands still; the timeline knows nothing of them."""
        for hopper, flow in enumerate(hoppers_g_min):
            if flow != self.hopper_set_g_min[hopper]:
                self.apply(PowderChannel(hopper), flow)

    def keep_shield(self) -> None:
        """Shield gas, where it flows, flows on for its time from now, or from the hold before."""
        if self.shield_until_us < 0 and self.shield_set_l_min > 0.0:
            self.shield_until_us = self._now_us() + round(SHIELD_AFTER_S * 1e6)

    def shield_over(self, *, held: bool) -> None:
        """The time is over: shield gas off; in a hold the hoppers rest as well.

        Carrier gas flows through a hold: it keeps the nozzle free. ``rested`` is what going
        on has to bring back.
        """
        self.shield_until_us = -1
        if held and self.rested is None:  # else going on was broken off
            self.rested = (self.hopper_set_g_min, self.shield_set_l_min)
        if held:
            for hopper, flow in enumerate(self.hopper_set_g_min):
                if flow > 0.0:
                    self.apply(PowderChannel(hopper), 0.0)
        self.note_gas(self.carrier_set_l_min if held else 0.0, 0.0)
        self.submit("gas", lambda d: d.set_shield(0.0))

    def note_gas(self, carrier_l_min: float, shield_l_min: float) -> None:
        """Gas set values: the interlocks compare the measured flows with them."""
        if (carrier_l_min, shield_l_min) != (self.carrier_set_l_min, self.shield_set_l_min):
            self.carrier_set_l_min, self.shield_set_l_min = carrier_l_min, shield_l_min
            self.gas_set_us = self._now_us()

    def note_powder(self, hoppers: tuple[float, float]) -> None:
        """Powder set values, likewise."""
        if hoppers != self.hopper_set_g_min:
            now_us = self._now_us()
            self._powder_before.append((now_us, self.hopper_set_g_min))
            self.hopper_set_g_min = hoppers
            self.powder_set_us = now_us

    def powder_least_g_min(self, since_us: int) -> tuple[float, float]:
        """The least that each hopper was told at any time since ``since_us``.

        Flows may change ten times a second (blends, changes led ahead): a feeder that gives
        less than this is starved, whatever it is told now.
        """
        before = self._powder_before
        while before and before[0][0] <= since_us:
            before.popleft()
        first, second = self.hopper_set_g_min
        for _, (one, two) in before:
            first = one if one < first else first
            second = two if two < second else second
        return first, second

"""Sensortherm Metis M3/H3 pyrometer, ASCII, 8E1.

Source: METIS M3/H3 operation manual, chapter 11 Interface Commands (mw, mb, ms, ve; values in
hex, 1/10 degree) and 7.2 data packets (F000h: overflow); docs/reference/device-protocols.md.
"""

import math
import re

from firmware_bridge.ascii_device import AsciiDevice, Query
from firmware_bridge.errors import DeviceError
from firmware_bridge.roles import Pyrometer

OVERFLOW = {"F000", "88880"}  # in the form of mw, of ms (the latter unverified)


class SensorthermMetis(AsciiDevice, role=Pyrometer):
    """Two-colour temperature, by `mw0` and by `ms` in turn so that a stale reply shows."""

    probe = ("00ve", r"\d{6}")
    text = Query(("00mw0", "([0-9A-Fa-f]{4})"), ("00ms", r"(\d{5})"))

    low_deg_c, high_deg_c = 0.0, 3300.0  # the device's range, read at connect

    async def check(self) -> None:
        """Read the temperature range."""
        match = await self._line().ask(b"00mb\r", re.compile("[0-9A-Fa-f]{8}").fullmatch)
        low, high = int(match[0][:4], 16) / 10, int(match[0][4:], 16) / 10
        if not low < high <= 4000.0:
            raise DeviceError(f"{self.name}: range {low:g} to {high:g} degC makes no sense")
        self.low_deg_c, self.high_deg_c = low, high

    @property
    def temp_deg_c(self) -> float:
        """Two-colour temperature; NaN below and over range."""
        text = self.text
        if self.saturated:
            return math.nan
        temp = int(text, 16) / 10 if len(text) == 4 else int(text) / 10
        if temp > self.high_deg_c:
            raise DeviceError(f"{self.name}: temp_deg_c {temp:g} is above {self.high_deg_c:g}")
        return temp if temp >= self.low_deg_c else math.nan

    @property
    def ok(self) -> bool:
        """The pyrometer measures, be it that the target is below range."""
        return not self.saturated

    @property
    def saturated(self) -> bool:
        """The target is hotter than the range."""
        return self.text.upper() in OVERFLOW

"""Ophir power meter (Vega, Nova II, Juno, StarLite ...), ASCII over serial (9600 8N1).

Source: Ophir user commands as in pymeasure's OphirBase and its tests, which quote the
manual; docs/reference/device-protocols.md section 15.
"""

import math
import re

from firmware_bridge.ascii_device import AsciiDevice, Query
from firmware_bridge.errors import DeviceError
from firmware_bridge.roles import PowerMeter

NUMBER = r"[-+]?\d{1,6}(?:\.\d{1,6})?(?:E[-+]?\d{1,2})?"
GREATEST_W = 120_000.0


class OphirMeter(AsciiDevice, role=PowerMeter):
    """Power of a thermal head in watts; another unit is refused at connect."""

    probe = ("$II", r"\* ?\w+ \d+ \S+")
    after_cr = b"\n"
    text = Query(("$SP", rf"\* ?(OVER|{NUMBER})"))

    overrange = property(lambda self: self.text == "OVER")
    valid = property(lambda self: self.text != "OVER")

    async def check(self) -> None:
        """The unit must be W."""
        match = await self._line().ask(b"$SI\r", re.compile(r"\* ?(\S+)").fullmatch)
        if match[1] != "W":
            raise DeviceError(f"{self.name}: the unit is {match[1]}, not W")

    @property
    def power_w(self) -> float:
        """NaN over range."""
        if self.text == "OVER":
            return math.nan
        power_w = float(self.text)
        if not abs(power_w) <= GREATEST_W:
            raise DeviceError(f"{self.name}: power_w {power_w:g} is outside +-{GREATEST_W:g}")
        return power_w

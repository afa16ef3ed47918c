"""LumaSense/IMPAC ISR 12-LO two-colour pyrometer, UPP ASCII, 19200 8E1.

Source: ISR 12-LO / IGAR 12-LO operation manual, chapter Data format UPP; Series 600 manual
for codes 75550 and 74440; docs/reference/device-protocols.md section 3.
"""

import math
import re

from firmware_bridge.ascii_device import AsciiDevice, Query
from firmware_bridge.errors import DeviceError
from firmware_bridge.roles import Pyrometer

SATURATED = "88880"
NO_SIGNAL = "00000"  # unverified: below the switch-off limit
NOT_MEASURING = ("77770", "80000", "75550", "74440")  # warming up, light on, head hot, cold
TEMP = r"([-\d]\d{4})"


class LumaSenseUpp(AsciiDevice, role=Pyrometer):
    """Ratio temperature, asked for in two forms in turn so that a stale reply shows."""

    probe = ("00ve", r"\d{6}")
    text = Query(("00ms", TEMP), ("00ek", r"[-\d]\d{4}" + TEMP))

    low_deg_c, high_deg_c = 0.0, 3500.0  # the device's basic range, read at connect

    async def check(self) -> None:
        """Read the basic range."""
        match = await self._line().ask(b"00mb\r", re.compile("[0-9A-F]{8}").fullmatch)
        low, high = int(match[0][:4], 16), int(match[0][4:], 16)
        if not low < high <= 4000:
            raise DeviceError(f"{self.name}: basic range {low} to {high} degC makes no sense")
        self.low_deg_c, self.high_deg_c = float(low), float(high)

    @property
    def temp_deg_c(self) -> float:
        """Ratio temperature; NaN below range, over range, and while not measuring."""
        text = self.text
        if text in (NO_SIGNAL, SATURATED, *NOT_MEASURING):
            return math.nan
        temp = int(text) / 10
        if temp > self.high_deg_c:
            raise DeviceError(f"{self.name}: temp_deg_c {temp:g} is above {self.high_deg_c:g}")
        return temp if temp >= self.low_deg_c else math.nan

    @property
    def ok(self) -> bool:
        """The pyrometer measures, be it that the target is below range."""
        return self.text != SATURATED and self.text not in NOT_MEASURING

    @property
    def saturated(self) -> bool:
        """The target is hotter than the range."""
        return bool(self.text == SATURATED)

"""Keyence LK-G point displacement sensor, RS-232C ASCII: height of the work.

Source: Keyence LK-G Series user's manual, chapter 5 RS-232C (command and value formats, error
codes); the meaning of M0 and M2 from the LS-7000 manual of the same family;
docs/reference/device-protocols.md.
"""

import math
import re

from firmware_bridge.ascii_device import AsciiDevice, Query
from firmware_bridge.errors import DeviceError
from firmware_bridge.roles import HeightSensor

VALUE = r"([-+][0-9.]{7}|[-+]F{7}|X{8})"
NUMBER = re.compile(r"[-+]\d+(\.\d+)?").fullmatch
LIMIT_MM = 500.0  # the family's longest measuring range, half


class KeyenceLkG(AsciiDevice, role=HeightSensor):
    """OUT1 in mm, asked for alone and with OUT2 in turn so that a stale reply shows."""

    probe = ("M2", "M2," + VALUE)
    text = Query(("M1", "M1," + VALUE), ("M0", f"M0,{VALUE},{VALUE}"))

    @property
    def valid(self) -> bool:
        """A surface is seen within the range."""
        return not math.isnan(self.height_mm)

    @property
    def height_mm(self) -> float:
        """OUT1; NaN out of range (FFFFFFF) and while there is no value (XXXXXXXX)."""
        text = self.text
        if "F" in text or "X" in text:
            return math.nan
        if NUMBER(text) is None or abs(float(text)) > LIMIT_MM:
            raise DeviceError(f"{self.name}: height_mm {text!r} is no value up to {LIMIT_MM:g}")
        return float(text)

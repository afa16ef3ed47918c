"""Quantities as text with a unit, read by one closed table.

A file says ``power = "600 W"``; the program sees ``power_w: float``. A bare number where
a unit belongs is refused, and so is any unit that is not in the table: user text never
reaches an expression parser.
"""

import math
import re
from typing import Annotated

from pydantic import BeforeValidator

# unit -> (dimension, factor, offset): value_in_base = value * factor + offset
_TABLE: dict[str, tuple[str, float, float]] = {
    # length, base mm
    "mm": ("length", 1.0, 0.0),
    "um": ("length", 1e-3, 0.0),
    "µm": ("length", 1e-3, 0.0),
    "cm": ("length", 10.0, 0.0),
    "m": ("length", 1000.0, 0.0),
    "inch": ("length", 25.4, 0.0),
    # speed, base mm/s
    "mm/s": ("speed", 1.0, 0.0),
    "mm/min": ("speed", 1.0 / 60.0, 0.0),
    "m/min": ("speed", 1000.0 / 60.0, 0.0),
    "m/s": ("speed", 1000.0, 0.0),
    # acceleration, base mm/s2
    "mm/s2": ("acceleration", 1.0, 0.0),
    "m/s2": ("acceleration", 1000.0, 0.0),
    # jerk, base mm/s3
    "mm/s3": ("jerk", 1.0, 0.0),
    "m/s3": ("jerk", 1000.0, 0.0),
    # steps per length
    "1/mm": ("per_length", 1.0, 0.0),
    # angle, base degree
    "deg": ("angle", 1.0, 0.0),
    "deg/s": ("angular_speed", 1.0, 0.0),
    "rpm": ("angular_speed", 6.0, 0.0),
    "deg/s2": ("angular_acceleration", 1.0, 0.0),
    "1/deg": ("per_angle", 1.0, 0.0),
    # energy along a bead, base J/mm
    "J/mm": ("line_energy", 1.0, 0.0),
    "kJ/m": ("line_energy", 1.0, 0.0),
    # power, base W
    "W": ("power", 1.0, 0.0),
    "kW": ("power", 1000.0, 0.0),
    "W/s": ("power_rate", 1.0, 0.0),
    # time, base s
    "us": ("time", 1e-6, 0.0),
    "µs": ("time", 1e-6, 0.0),
    "ms": ("time", 1e-3, 0.0),
    "s": ("time", 1.0, 0.0),
    "min": ("time", 60.0, 0.0),
    "h": ("time", 3600.0, 0.0),
    # powder, base g/min
    "g/min": ("mass_rate", 1.0, 0.0),
    "g/s": ("mass_rate", 60.0, 0.0),
    "kg/h": ("mass_rate", 1000.0 / 60.0, 0.0),
    # mass, base g
    "g": ("mass", 1.0, 0.0),
    "kg": ("mass", 1000.0, 0.0),
    # gas, base L/min
    "L/min": ("gas_flow", 1.0, 0.0),
    # temperature, base degree Celsius
    "degC": ("temperature", 1.0, 0.0),
    "K": ("temperature", 1.0, -273.15),
    # content, base ppm
    "ppm": ("fraction", 1.0, 0.0),
    "%": ("fraction", 1e4, 0.0),
    # material
    "kg/m3": ("density", 1.0, 0.0),
    "J/kg/K": ("specific_heat", 1.0, 0.0),
    "W/m/K": ("conductivity", 1.0, 0.0),
    "J/kg": ("latent_heat", 1.0, 0.0),
    "kJ/kg": ("latent_heat", 1000.0, 0.0),
    # frequency
    "Hz": ("frequency", 1.0, 0.0),
    "kHz": ("frequency", 1000.0, 0.0),
    # money
    "USD/kg": ("price", 1.0, 0.0),
    "USD/h": ("cost_rate", 1.0, 0.0),
    # pressure
    "MPa": ("pressure", 1.0, 0.0),
    "bar": ("pressure", 0.1, 0.0),
    "kPa": ("pressure", 1e-3, 0.0),
    "Pa": ("pressure", 1e-6, 0.0),
}

BASE_UNIT = {
    "length": "mm",
    "speed": "mm/s",
    "acceleration": "mm/s2",
    "jerk": "mm/s3",
    "per_length": "1/mm",
    "angle": "deg",
    "angular_speed": "deg/s",
    "angular_acceleration": "deg/s2",
    "per_angle": "1/deg",
    "line_energy": "J/mm",
    "power": "W",
    "power_rate": "W/s",
    "time": "s",
    "mass_rate": "g/min",
    "mass": "g",
    "gas_flow": "L/min",
    "temperature": "degC",
    "fraction": "ppm",
    "density": "kg/m3",
    "specific_heat": "J/kg/K",
    "conductivity": "W/m/K",
    "latent_heat": "J/kg",
    "frequency": "Hz",
    "price": "USD/kg",
    "cost_rate": "USD/h",
    "pressure": "MPa",
}

_QUANTITY = re.compile(r"^\s*([+-]?\d{1,15}(?:\.\d{1,15})?(?:[eE][+-]?\d{1,2})?)\s*(\S{1,12})\s*$")


GREATEST = 1e12  # base units; nothing that is built or waited for is more


def parse_quantity(text: object, dimension: str) -> float:
    """Read ``"600 W"`` as 600.0 in the dimension's base unit.

    Raises ValueError (one clause, no file name: the caller adds file and key) when the
    text is a bare number, has an unknown unit or one of another dimension, is not finite
    or beyond ``GREATEST``.
    """
    wanted = ", ".join(u for u, (d, _, _) in _TABLE.items() if d == dimension)
    if isinstance(text, bool) or not isinstance(text, str):
        raise ValueError(f"{text!r} has no unit, write it as text with one of: {wanted}")
    if len(text) > 64:
        raise ValueError(f"quantity of {len(text)} characters, at most 64 are read")
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number followed by a unit, one of: {wanted}")
    number, unit = match.groups()
    entry = _TABLE.get(unit)
    if entry is None or entry[0] != dimension:
        raise ValueError(f"unit {unit!r} in {text!r} is not one of: {wanted}")
    value = float(number) * entry[1] + entry[2]
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite quantity")
    if abs(value) > GREATEST:
        raise ValueError(f"{text!r} is beyond {GREATEST:g} {BASE_UNIT[dimension]}")
    return value


def format_quantity(value: float, dimension: str) -> str:
    """Write a value in base units the way a file holds it: ``600 W``."""
    return f"{value:.10g} {BASE_UNIT[dimension]}"


def _reader(dimension: str, per_base: float = 1.0) -> BeforeValidator:
    """``per_base``: of the attribute's unit, in one base unit of the dimension."""
    if per_base == 1.0:
        return BeforeValidator(lambda text: parse_quantity(text, dimension))
    # rounded, so that "20 kPa" is 20.0 and not the next number to it
    return BeforeValidator(lambda text: round(parse_quantity(text, dimension) * per_base, 9))


Mm = Annotated[float, _reader("length")]
MmPerS = Annotated[float, _reader("speed")]
MmPerS2 = Annotated[float, _reader("acceleration")]
MmPerS3 = Annotated[float, _reader("jerk")]
PerMm = Annotated[float, _reader("per_length")]
Deg = Annotated[float, _reader("angle")]
DegPerS = Annotated[float, _reader("angular_speed")]
DegPerS2 = Annotated[float, _reader("angular_acceleration")]
PerDeg = Annotated[float, _reader("per_angle")]
JPerMm = Annotated[float, _reader("line_energy")]
Watt = Annotated[float, _reader("power")]
WattPerS = Annotated[float, _reader("power_rate")]
Second = Annotated[float, _reader("time")]
GramPerMin = Annotated[float, _reader("mass_rate")]
Gram = Annotated[float, _reader("mass")]
LitrePerMin = Annotated[float, _reader("gas_flow")]
DegC = Annotated[float, _reader("temperature")]
Ppm = Annotated[float, _reader("fraction")]
KgPerM3 = Annotated[float, _reader("density")]
JPerKgK = Annotated[float, _reader("specific_heat")]
WPerMK = Annotated[float, _reader("conductivity")]
JPerKg = Annotated[float, _reader("latent_heat")]
Hz = Annotated[float, _reader("frequency")]
UsdPerKg = Annotated[float, _reader("price")]
UsdPerH = Annotated[float, _reader("cost_rate")]
MPa = Annotated[float, _reader("pressure")]
KPa = Annotated[float, _reader("pressure", 1e3)]
Pa = Annotated[float, _reader("pressure", 1e6)]
Percent = Annotated[float, _reader("fraction", 1e-4)]

"""Between which values a reading is in order, as the cell file says; for tables and tests.

The machine's own judgement is in the interlocks: this only says at a glance what is odd.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from controller.config import Cell

Limits = tuple[float, float]
# (section, value) -> least and greatest by the cell file
LIMITS: dict[tuple[str, str], Callable[[Cell], Limits]] = {
    ("laser", "power_measured_w"): lambda c: (0.0, 1.05 * c.laser.rated_power_w),
    ("powder", "flow_measured_g_min"): lambda c: (0.0, 1.05 * c.powder.greatest_flow_g_min),
    ("gas", "carrier_l_min"): lambda c: (0.0, c.gas.greatest_flow_l_min),
    ("gas", "shield_l_min"): lambda c: (0.0, c.gas.greatest_flow_l_min),
    ("chiller", "coolant_deg_c"): lambda c: (c.limits.coolant_deg_c[0], c.limits.coolant_deg_c[1]),
    ("oxygen", "oxygen_ppm"): lambda c: (0.0, 1e6),
}
# (section, value) -> what it must be
WANTED: dict[tuple[str, str], bool] = {
    ("laser", "unexpected_emission"): False,
    ("laser", "back_reflection"): False,
    ("powder", "stalled"): False,
    ("chiller", "flow_ok"): True,
    ("oxygen", "valid"): True,
    ("safety", "estop_ok"): True,
    ("safety", "door_closed"): True,
    ("safety", "interlock_ok"): True,
    ("safety", "watchdog_ok"): True,
    ("safety", "reset_needed"): False,
}


def odd(cell: Cell, section: str, reading: Mapping[str, Any]) -> list[str]:
    """What of a reading is out of its limits, each as a clause with value and limit."""
    found = []
    for (role, name), limits in LIMITS.items():
        if role != section or name not in reading:
            continue
        least, most = limits(cell)
        values = reading[name] if isinstance(reading[name], list | tuple) else [reading[name]]
        for value in values:
            if value is None or not math.isfinite(value) or not least <= value <= most:
                found.append(f"{name} {value} is not {least:g} to {most:g}")
    for (role, name), wanted in WANTED.items():
        if role == section and name in reading and reading[name] is not wanted:
            found.append(f"{name} is {str(reading[name]).lower()}")
    return found


def summary(cell: Cell, rounds: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each device over all rounds of reading: how often it answered, what was odd at the end."""
    found = []
    for column in zip(*rounds, strict=True):
        last = column[-1]
        answered = [d for d in column if d["answers"]]
        errors = sorted({d["error"] for d in column if d["error"]})
        problems = odd(cell, last["role"], answered[-1]["reading"]) if answered else []
        found.append(
            {
                "role": last["role"],
                "driver": last["driver"],
                "asked": len(column),
                "answered": len(answered),
                "errors": errors,
                "odd": problems,
                "passed": len(answered) == len(column) and not problems,
            }
        )
    return found

"""Settings of a grblHAL controller against the cell: every difference by name, value, limit.

The link never writes settings: whoever commissions the machine does, and this says what.
"""

from dataclasses import dataclass

from firmware_bridge.errors import ProtocolError
from firmware_bridge.link_types import LinkSettings

SCALE_TOLERANCE = 1e-6  # relative, of steps/mm
# bits of $10 that the link reads: machine position, buffers, line, feed and S, pins, overrides,
# alarm numbers, and reports while homing
REPORT_BITS = 1 | 2 | 4 | 8 | 16 | 64 | 1024 | 4096
HOMING_ENABLED, HOMING_ORIGIN = 1, 8  # bits of $22
LASER_OFF_IN_HOLD = 1  # bit of $63
ENABLE_BY_POWER = 2  # bit of $9


@dataclass(frozen=True, slots=True)
class GrblSettings:
    """What the cell says beyond LinkSettings.

    ``origin_mm``: where the plan's origin is, from the axes' home, mm. ``full_scale_s``: the S
    word of full laser power. ``gate_watchdog``: an outside watchdog shuts the gate output when
    the host's line falls silent.
    """

    gate_watchdog: bool = False
    full_scale_s: float = 1000.0
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    poll_s: float = 0.02


def home_mpos_mm(values: dict[int, str], n_axes: int) -> tuple[float, ...]:
    """Machine position that the controller tells when an axis stands at its home, mm.

    Home is where homing leaves the axis: the pull-off away from its switch.
    """
    whole = int(values.get(22, "0"))
    if whole & HOMING_ORIGIN:
        return (0.0,) * n_axes
    toward_least = int(values.get(23, "0"))
    pull_off = float(values.get(27, "0"))
    return tuple(
        pull_off - float(values[130 + n]) if toward_least >> n & 1 else -pull_off
        for n in range(n_axes)
    )


def differences(values: dict[int, str], link: LinkSettings, own: GrblSettings) -> list[str]:
    """What the controller's settings lack for this cell; empty when all fits.

    Raises ProtocolError when a setting that is compared is missing or no number.
    """
    found: list[str] = []
    hard = bool(int(_value(values, 21)))
    pull_off = _value(values, 27)
    _must(found, values, 32, 1, "laser mode: S follows the speed, and G0 is dark")
    _must_be(found, values, 30, own.full_scale_s, "S of full power, the cell's")
    _must_be(found, values, 31, 0.0, "least S: the power law begins at 0")
    _bits(found, values, 9, 1 | ENABLE_BY_POWER, "the enable output, our gate, follows the power")
    _bits(found, values, 63, LASER_OFF_IN_HOLD, "a hold puts the laser off")
    _bits(found, values, 10, REPORT_BITS, "what status reports must tell")
    _must(found, values, 13, 0, "reports in mm")
    _must(found, values, 20, 1, "soft limits")
    _bits(found, values, 21, 1, "hard limits")
    _bits(found, values, 22, HOMING_ENABLED, "homing")
    toward_least = int(_value(values, 23))
    for n, (name, axis) in enumerate(zip("XYZABC", link.axes, strict=False)):
        if not toward_least >> n & 1:
            found.append(
                f"$23={toward_least}: axis {name} homes to its greatest end, the cell counts "
                f"from the least (bit {n} wanted)"
            )
        steps = _value(values, 100 + n)
        if abs(steps - axis.steps_per_mm) > SCALE_TOLERANCE * axis.steps_per_mm:
            found.append(
                f"${100 + n}={steps:g} steps/mm of {name}: the cell has {axis.steps_per_mm:g}"
            )
        _at_most(
            found, 110 + n, _value(values, 110 + n), axis.speed_mm_s * 60.0, "mm/min",
            f"greatest speed of {name}",
        )  # fmt: skip
        _at_most(
            found, 120 + n, _value(values, 120 + n), axis.accel_mm_s2, "mm/s2",
            f"acceleration of {name}",
        )  # fmt: skip
        travel = _value(values, 130 + n)
        room = travel - (pull_off if hard else 0.0)
        need = axis.max_mm - axis.min_mm
        if room < need - 1e-3:
            found.append(
                f"${130 + n}={travel:g} mm travel of {name}: {need:g} mm are needed, with the "
                f"pull-off of {pull_off:g} mm beside them"
            )
        elif room > need + pull_off + 1e-3:
            found.append(
                f"${130 + n}={travel:g} mm travel of {name}: soft limits beyond the axis, whose "
                f"range is {need:g} mm"
            )
    return found


def _value(values: dict[int, str], number: int) -> float:
    try:
        return float(values[number])
    except (KeyError, ValueError):
        raise ProtocolError(
            f"setting ${number} is {values.get(number, 'missing')!r}, a number is wanted"
        ) from None


def _must(found: list[str], values: dict[int, str], number: int, wanted: int, why: str) -> None:
    value = int(_value(values, number))
    if value != wanted:
        found.append(f"${number}={value}: {wanted} is wanted ({why})")


def _must_be(
    found: list[str], values: dict[int, str], number: int, wanted: float, why: str
) -> None:
    value = _value(values, number)
    if abs(value - wanted) > 1e-3:
        found.append(f"${number}={value:g}: {wanted:g} is wanted ({why})")


def _bits(found: list[str], values: dict[int, str], number: int, wanted: int, why: str) -> None:
    value = int(_value(values, number))
    if value & wanted != wanted:
        found.append(f"${number}={value}: the bits of {wanted} are wanted ({why})")


def _at_most(found: list[str], number: int, value: float, most: float, unit: str, why: str) -> None:
    if value > most * (1.0 + 1e-6):
        found.append(f"${number}={value:g} {unit} is above the cell's {most:g} {unit} ({why})")

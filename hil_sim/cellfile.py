"""The cell file as the simulator reads it.

A second reader on purpose: it shares nothing with the controller's, so a quantity misread by
one of the two shows as a difference in the build instead of being agreed upon. It reads the
keys the virtual cell is made of and lets the others be; judging the file whole is
``lmd check``'s work.
"""

from __future__ import annotations

import math
import struct
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 1_000_000
ZERO = (0.0, 0.0, 0.0)

# One unit per line: what the simulator counts in, per unit of the file.
_UNITS: dict[str, dict[str, float]] = {
    "length_mm": {"mm": 1.0, "um": 1e-3, "µm": 1e-3, "cm": 10.0, "m": 1e3, "inch": 25.4},
    "speed_mm_s": {"mm/s": 1.0, "mm/min": 1 / 60, "m/min": 1e3 / 60, "m/s": 1e3},
    "accel_mm_s2": {"mm/s2": 1.0, "m/s2": 1e3},
    "steps_per_mm": {"1/mm": 1.0},
    "angle_deg": {"deg": 1.0},
    "speed_deg_s": {"deg/s": 1.0},
    "accel_deg_s2": {"deg/s2": 1.0},
    "steps_per_deg": {"1/deg": 1.0},
    "power_w": {"W": 1.0, "kW": 1e3},
    "time_s": {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0},
    "flow_g_min": {"g/min": 1.0, "g/s": 60.0, "kg/h": 1e3 / 60},
    "mass_g": {"g": 1.0, "kg": 1e3},
    "gas_l_min": {"L/min": 1.0},
    "temp_deg_c": {"degC": 1.0, "K": 1.0},
    "ppm": {"ppm": 1.0, "%": 1e4},
}


class CellFileError(Exception):
    """The cell file cannot be used: one sentence that names file, key and value."""


_GREATEST = 1e12  # of the first unit in a row of the table


def quantity(text: Any, kind: str) -> float:
    """Read ``"400 W"`` as 400.0, by the table above.

    Raises ValueError, one clause without file or key, for a bare number, an unknown unit or
    anything that is not a finite number.
    """
    units = _UNITS[kind]
    if not isinstance(text, str):
        raise ValueError(f"{text!r} has no unit, one of {', '.join(units)} is wanted")
    stripped = text.strip()
    number = stripped[: len(stripped) - len(stripped.lstrip("+-.0123456789eE"))]
    unit = stripped[len(number) :].strip()
    if unit not in units:
        raise ValueError(f"{text[:64]!r} is not a number followed by one of {', '.join(units)}")
    if not number or len(number) > 32:
        raise ValueError(f"{text[:64]!r} does not begin with a number")
    try:
        value = float(number) * units[unit]
    except ValueError:
        raise ValueError(f"{text[:64]!r} does not begin with a number") from None
    if unit == "K":
        value -= 273.15
    if not math.isfinite(value):
        raise ValueError(f"{text[:64]!r} is not finite")
    if abs(value) > _GREATEST:
        raise ValueError(f"{text[:64]!r} is beyond {_GREATEST:g} {next(iter(units))}")
    return value


@dataclass(frozen=True, slots=True)
class AxisFile:
    """One axis: its name, its scale, how far, how fast, how hard."""

    name: str
    steps_per_mm: float
    least_mm: float
    most_mm: float
    speed_mm_s: float
    accel_mm_s2: float
    encoder_per_mm: float = 0.0  # counts; 0: no encoder
    lost_steps: int = 0  # with one: how many steps may be lost


@dataclass(frozen=True, slots=True)
class RotaryFile:
    """One rotary axis of the table: A turns about X, B about Y, C about Z."""

    name: str
    centre_mm: tuple[float, float, float]  # on the axis; machine coordinates, all axes at 0
    steps_per_deg: float
    least_deg: float
    most_deg: float
    speed_deg_s: float
    accel_deg_s2: float


@dataclass(frozen=True, slots=True)
class HopperFile:
    """One hopper and what is in it."""

    powder: str
    mass_g: float


# sections of the devices, in the order of their channels
SECTIONS = ("laser", "pyrometer", "chiller", "powder", "gas", "oxygen", "safety")
OPTIONAL_SECTIONS = (
    "camera", "height", "drives", "power_meter", "heater", "chamber", "head", "powder_line", "room",
)  # fmt: skip
MOST_STREAMS = 8


@dataclass(frozen=True, slots=True)
class CellFile:
    """What the virtual cell is made of."""

    path: str
    name: str
    axes: tuple[AxisFile, ...]
    rotary: tuple[RotaryFile, ...]  # from the machine's base to the work
    work_offset_mm: tuple[float, float, float]
    tool_offset_mm: tuple[float, float, float]
    total_accel_mm_s2: float
    limit_switches: frozenset[str]  # "X-" at the low end of X, "X+" at the high end ...
    following_error_input: bool
    probe_input: bool
    plan_share: float
    heartbeat_timeout_us: int
    link: str  # what drives the axes: our firmware, grblHAL or a CNC
    gate_watchdog: bool  # an outside watchdog cuts the gate when the host's line is silent
    rated_power_w: float
    threshold_power_w: float
    resolution_bits: int
    power_latency_us: int
    power_jitter_us: int
    gate_latency_us: int
    gate_jitter_us: int
    longest_emission_us: int
    spot_mm: float
    transport_delay_s: float
    powder_lag_s: float
    greatest_flow_g_min: float
    hoppers: tuple[HopperFile, ...]
    coolant_setpoint_deg_c: float
    greatest_gas_l_min: float
    pyrometer_least_deg_c: float
    pyrometer_most_deg_c: float
    substrate_center_mm: tuple[float, float]
    substrate_size_mm: tuple[float, float]
    substrate_top_mm: float
    devices: dict[str, str]  # driver by section, in the order of the channels
    streams: int  # of powder, at the nozzle
    heater_setpoint_deg_c: float
    inert_chamber: bool  # a loaded alloy has an oxygen limit, so the chamber is purged

    @property
    def steps_per_mm(self) -> list[float]:
        """Six factors, per degree for rotary axes, 0 for axes the cell does not have."""
        steps = [a.steps_per_mm for a in self.axes] + [r.steps_per_deg for r in self.rotary]
        return steps + [0.0] * (6 - len(steps))

    @property
    def n_axes(self) -> int:
        """Linear and rotary ones."""
        return len(self.axes) + len(self.rotary)


class _Table:
    """A TOML table that knows its place, so that every complaint names file and key."""

    def __init__(self, data: Any, origin: str, place: str) -> None:
        self.origin, self.place = origin, place
        if not isinstance(data, dict):
            raise CellFileError(f"{origin}: {place or 'file'}: is not a table")
        self.data: dict[str, Any] = data

    def fail(self, key: str, why: str) -> CellFileError:
        where = f"{self.place}.{key}" if self.place else key
        return CellFileError(f"{self.origin}: {where}: {why}")

    def raw(self, key: str) -> Any:
        if key not in self.data:
            raise self.fail(key, "is missing")
        return self.data[key]

    def table(self, key: str) -> _Table:
        place = f"{self.place}.{key}" if self.place else key
        return _Table(self.raw(key), self.origin, place)

    def tables(self, key: str, least: int, most: int) -> list[_Table]:
        rows = self.raw(key)
        if not isinstance(rows, list) or not least <= len(rows) <= most:
            raise self.fail(key, f"is not a list of {least} to {most} tables")
        place = f"{self.place}.{key}" if self.place else key
        return [_Table(row, self.origin, f"{place}.{n}") for n, row in enumerate(rows)]

    def text(self, key: str) -> str:
        value = self.raw(key)
        if not isinstance(value, str):
            raise self.fail(key, f"{value!r} is not text")
        return value

    def whole(self, key: str, least: int, most: int) -> int:
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.fail(key, f"{value!r} is not a whole number from {least} to {most}")
        return value

    def share(self, key: str) -> float:
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise self.fail(key, f"{value!r} is not a number above 0 and up to 1")
        return float(value)

    def number(self, key: str, kind: str, *, least: float | None = 0.0) -> float:
        try:
            value = quantity(self.raw(key), kind)
        except ValueError as exc:
            raise self.fail(key, str(exc)) from None
        if least is not None and value < least:
            raise self.fail(key, f"{self.raw(key)!r} is below {least:g}")
        return value

    def positive(self, key: str, kind: str) -> float:
        value = self.number(key, kind)
        if value <= 0.0:
            raise self.fail(key, f"{self.raw(key)!r} is not above 0")
        return value

    def micros(self, key: str) -> int:
        return round(self.number(key, "time_s") * 1e6)

    def pair(self, key: str, kind: str) -> tuple[float, float]:
        value = self.raw(key)
        if not isinstance(value, list) or len(value) != 2:
            raise self.fail(key, f"{value!r} is not a pair of quantities")
        try:
            return quantity(value[0], kind), quantity(value[1], kind)
        except ValueError as exc:
            raise self.fail(key, str(exc)) from None

    def triple(self, key: str) -> tuple[float, float, float]:
        value = self.raw(key)
        if not isinstance(value, list) or len(value) != 3:
            raise self.fail(key, f"{value!r} is not three lengths")
        try:
            x, y, z = (quantity(v, "length_mm") for v in value)
        except ValueError as exc:
            raise self.fail(key, str(exc)) from None
        return x, y, z


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables. Raises CellFileError naming the file."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CellFileError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CellFileError(f"{path}: no such file") from None
    except tomllib.TOMLDecodeError as exc:
        raise CellFileError(f"{path}: not valid TOML: {exc}") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise CellFileError(f"{path}: cannot be read ({exc})") from None


def load(path: str | Path) -> CellFile:
    """Read the cell file. Raises CellFileError, one sentence with file, key and value."""
    origin = str(path)
    return from_tables(read_toml(Path(path)), origin)


def from_tables(data: dict[str, Any], origin: str) -> CellFile:
    """A CellFile from parsed TOML; ``origin`` is the file's name for complaints."""
    top = _Table(data, origin, "")
    motion = top.table("motion")
    laser = top.table("laser")
    powder = top.table("powder")
    substrate = top.table("substrate")
    hoppers = tuple(
        HopperFile(h.text("powder"), h.number("mass", "mass_g"))
        for h in powder.tables("hoppers", 1, 2)
    )
    pyrometer = top.table("pyrometer").pair("range", "temp_deg_c")
    size = substrate.pair("size", "length_mm")
    if min(size) <= 0.0:
        raise substrate.fail("size", f"{size} mm is not above 0")
    return CellFile(
        path=origin,
        name=top.text("name"),
        axes=_axes(motion),
        rotary=_rotary(motion),
        work_offset_mm=motion.triple("work_offset") if "work_offset" in motion.data else ZERO,
        tool_offset_mm=motion.triple("tool_offset") if "tool_offset" in motion.data else ZERO,
        total_accel_mm_s2=motion.positive("total_acceleration", "accel_mm_s2"),
        limit_switches=_limit_switches(motion),
        following_error_input=_yes(motion, "following_error_input"),
        probe_input=_yes(motion, "probe_input"),
        plan_share=motion.share("plan_share"),
        heartbeat_timeout_us=motion.micros("heartbeat_timeout"),
        link=motion.text("link") if "link" in motion.data else "lmd_segment",
        gate_watchdog=_yes(motion, "gate_watchdog"),
        rated_power_w=laser.positive("rated_power", "power_w"),
        threshold_power_w=laser.number("threshold_power", "power_w"),
        resolution_bits=laser.whole("resolution_bits", 4, 16),
        power_latency_us=laser.micros("power_latency"),
        power_jitter_us=laser.micros("power_jitter"),
        gate_latency_us=laser.micros("gate_latency"),
        gate_jitter_us=laser.micros("gate_jitter"),
        longest_emission_us=laser.micros("longest_emission"),
        spot_mm=laser.positive("spot_diameter", "length_mm"),
        transport_delay_s=powder.number("transport_delay", "time_s"),
        powder_lag_s=powder.number("lag", "time_s"),
        greatest_flow_g_min=powder.positive("greatest_flow", "flow_g_min"),
        hoppers=hoppers,
        coolant_setpoint_deg_c=top.table("chiller").number("setpoint", "temp_deg_c", least=None),
        greatest_gas_l_min=top.table("gas").positive("greatest_flow", "gas_l_min"),
        pyrometer_least_deg_c=pyrometer[0],
        pyrometer_most_deg_c=pyrometer[1],
        substrate_center_mm=substrate.pair("center", "length_mm"),
        substrate_size_mm=size,
        substrate_top_mm=substrate.number("top", "length_mm", least=None),
        devices=_devices(top),
        streams=(
            top.table("powder_line").whole("streams", 1, MOST_STREAMS)
            if "powder_line" in top.data
            else 0
        ),
        heater_setpoint_deg_c=(
            top.table("heater").number("setpoint", "temp_deg_c", least=None)
            if "heater" in top.data
            else math.nan
        ),
        inert_chamber=_inert(top, hoppers),
    )


def _devices(top: _Table) -> dict[str, str]:
    found = {name: top.table(name).text("driver") for name in SECTIONS}
    for name in OPTIONAL_SECTIONS:
        if name in top.data:
            found[name] = top.table(name).text("driver")
    return found


def _axes(motion: _Table) -> tuple[AxisFile, ...]:
    axes = []
    for row in motion.tables("axes", 3, 3):
        least_mm, most_mm = row.pair("range", "length_mm")
        if least_mm >= most_mm:
            raise row.fail("range", f"{least_mm:g} mm to {most_mm:g} mm is empty")
        axes.append(
            AxisFile(
                row.text("name"),
                row.positive("steps", "steps_per_mm"),
                least_mm,
                most_mm,
                row.positive("speed", "speed_mm_s"),
                row.positive("acceleration", "accel_mm_s2"),
                row.positive("encoder", "steps_per_mm") if "encoder" in row.data else 0.0,
                row.whole("lost_steps", 1, 65535) if "encoder" in row.data else 0,
            )
        )
    names = [a.name for a in axes]
    if names[:3] != ["X", "Y", "Z"]:
        raise motion.fail("axes", f"begin with {', '.join(names[:3])} and not with X, Y, Z")
    return tuple(axes)


def _yes(motion: _Table, key: str) -> bool:
    value = motion.data.get(key, False)
    if not isinstance(value, bool):
        raise motion.fail(key, f"{value!r} is neither true nor false")
    return value


def _limit_switches(motion: _Table) -> frozenset[str]:
    names = motion.data.get("limit_switches", [])
    known = [*(a.name for a in _axes(motion)), *(a.name for a in _rotary(motion))]
    ends = {n + end for n in known for end in "-+"}
    if not isinstance(names, list) or any(n not in ends for n in names):
        raise motion.fail("limit_switches", f'{names!r} are not ends of axes such as "X-", "X+"')
    return frozenset(names)


def _rotary(motion: _Table) -> tuple[RotaryFile, ...]:
    if "rotary" not in motion.data:
        return ()
    axes = []
    for row in motion.tables("rotary", 0, 3):
        name = row.text("name")
        if name not in ("A", "B", "C"):
            raise row.fail("name", f"{name!r} is not one of A, B, C")
        least_deg, most_deg = row.pair("range", "angle_deg")
        if not least_deg <= 0.0 <= most_deg or least_deg == most_deg:
            raise row.fail("range", f"{least_deg:g} deg to {most_deg:g} deg does not hold 0 deg")
        axes.append(
            RotaryFile(
                name,
                row.triple("centre"),
                row.positive("steps", "steps_per_deg"),
                least_deg,
                most_deg,
                row.positive("speed", "speed_deg_s"),
                row.positive("acceleration", "accel_deg_s2"),
            )
        )
    return tuple(axes)


def _inert(top: _Table, hoppers: tuple[HopperFile, ...]) -> bool:
    """True where a loaded alloy may not be built in open air."""
    if "limits" not in top.data or "oxygen" not in top.table("limits").data:
        return False
    oxygen = top.table("limits").table("oxygen")
    limited = oxygen.data.get("alloys", {})
    if not isinstance(limited, dict):
        raise oxygen.fail("alloys", "is not a table")
    return any(h.powder in limited for h in hoppers)


HOMING_UM_S = 20_000  # where the cell says nothing (docs/protocol.md, 8)
_HEAD = struct.Struct("<HBBHHIIIHH")
_AXIS = struct.Struct("<IIIiiiHH")


def config_blob(cell: CellFile) -> bytes:
    """The firmware's configuration, byte by byte as docs/protocol.md section 8 states it.

    Raises CellFileError where a value does not fit its field.
    """
    try:
        blob = _HEAD.pack(
            2,
            cell.n_axes,
            (1 if cell.following_error_input else 0) + (2 if cell.probe_input else 0),
            _near(cell.heartbeat_timeout_us / 1e3),
            _near(cell.plan_share * 32768),
            _near(cell.longest_emission_us / 1e3),
            HOMING_UM_S,
            _near(cell.total_accel_mm_s2 * 1e3),
            _limit_bits(cell),
            0,
        )
        for axis in cell.axes:
            blob += _AXIS.pack(
                _near(axis.steps_per_mm * 1e3),
                _near(axis.speed_mm_s * axis.steps_per_mm),
                _near(axis.accel_mm_s2 * axis.steps_per_mm),
                0,  # steps are counted from the home switch, at the least end
                _near((axis.most_mm - axis.least_mm) * axis.steps_per_mm),
                _near(axis.encoder_per_mm / axis.steps_per_mm * 65536),
                axis.lost_steps,
                0,
            )
        for turn in cell.rotary:  # a rotary axis' switch is its zero mark
            blob += _AXIS.pack(
                _near(turn.steps_per_deg * 1e3),
                _near(turn.speed_deg_s * turn.steps_per_deg),
                _near(turn.accel_deg_s2 * turn.steps_per_deg),
                _near(turn.least_deg * turn.steps_per_deg),
                _near(turn.most_deg * turn.steps_per_deg),
                0,
                0,
                0,
            )
    except struct.error as exc:
        raise CellFileError(
            f"{cell.path}: motion: a value does not fit the firmware's configuration ({exc})"
        ) from None
    return blob


def _limit_bits(cell: CellFile) -> int:
    """One bit a switch: the low ends from bit 0 on, the high ends from bit 8 on."""
    bits = 0
    names = [a.name for a in cell.axes] + [r.name for r in cell.rotary]
    for number, name in enumerate(names):
        bits += (2**number if name + "-" in cell.limit_switches else 0) + (
            2 ** (8 + number) if name + "+" in cell.limit_switches else 0
        )
    return bits


def _near(value: float) -> int:
    """The nearest integer, halves up, as the protocol rounds."""
    return math.floor(value + 0.5)

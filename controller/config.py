"""Cell and material files: TOML, strict, quantities with units.

``load_cell("sim")`` or ``load_cell("path/to/cell.toml")``. Every mistake in a file is
reported at once, with file, line and key. File keys carry no unit (their text does);
attributes carry it: ``rated_power = "1 kW"`` is ``cell.laser.rated_power_w``.
"""

import math
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from controller import units as u
from controller.config_devices import (
    Camera,
    Chamber,
    Chiller,
    Drives,
    Gas,
    Head,
    Heater,
    Height,
    Hopper,
    Laser,
    Oxygen,
    Powder,
    PowderLine,
    PowerMeter,
    Pyrometer,
    RoomSupply,
    Safety,
    Strict,
)
from controller.errors import ConfigError, LmdError

__all__ = [
    "Cell", "ConfigError", "Hopper", "Laser", "Material", "Motion", "Powder", "Strict",
    "configs_dir", "find_file", "load_cell", "load_material", "load_model", "parse_model",
    "read_toml",
]  # fmt: skip

MAX_FILE_BYTES = 1_000_000


class Axis(Strict):
    """One motion axis."""

    name: str
    steps_per_mm: u.PerMm = Field(alias="steps", gt=0)
    range_mm: list[u.Mm] = Field(alias="range", min_length=2, max_length=2)
    speed_mm_s: u.MmPerS = Field(alias="speed", gt=0)
    accel_mm_s2: u.MmPerS2 = Field(alias="acceleration", gt=0)
    # an encoder that the motion controller compares with its steps, and what it may miss
    encoder_per_mm: u.PerMm | None = Field(default=None, alias="encoder", gt=0)
    lost_steps: int | None = Field(default=None, ge=1, le=65535)

    @model_validator(mode="after")
    def _encoder_has_a_bound(self) -> "Axis":
        if (self.encoder_per_mm is None) != (self.lost_steps is None):
            raise ValueError(f"axis {self.name}: encoder and lost_steps belong together")
        return self


class RotaryAxis(Strict):
    """A rotary axis of the table: A turns about X, B about Y, C about Z.

    Listed from the machine's base to the work. ``centre`` is a point on the axis, in machine
    coordinates, with every rotary axis at 0.
    """

    name: Literal["A", "B", "C"]
    centre_mm: list[u.Mm] = Field(alias="centre", min_length=3, max_length=3)
    steps_per_deg: u.PerDeg = Field(alias="steps", gt=0)
    range_deg: list[u.Deg] = Field(alias="range", min_length=2, max_length=2)
    speed_deg_s: u.DegPerS = Field(alias="speed", gt=0)
    accel_deg_s2: u.DegPerS2 = Field(alias="acceleration", gt=0)

    @model_validator(mode="after")
    def _range_holds_zero(self) -> "RotaryAxis":
        if not self.range_deg[0] <= 0.0 <= self.range_deg[1] or (
            self.range_deg[0] == self.range_deg[1]
        ):
            raise ValueError(f"axis {self.name}: range {self.range_deg} deg must hold 0 deg")
        return self


@dataclass(frozen=True)
class MachineAxis:
    """An axis of either kind, in its own unit: mm, or degrees where it turns.

    Steps are counted from ``home``: the least end of a linear axis, 0 degrees of a rotary one.
    """

    name: str
    unit: str  # "mm" | "deg"
    steps_per_unit: float
    home: float
    least: float
    most: float
    speed: float
    accel: float


# kinematics -> names that the rotary axes may have, in order
ROTARY_AXES: dict[str, tuple[tuple[str, ...], ...]] = {
    "xyz": ((),),
    "xyz_ac_table": (("A", "C"),),
    "xyz_bc_table": (("B", "C"),),
    "xyz_turntable": (("A",), ("B",), ("C",)),
}


# keys of motion that only some links have
LINK_KEYS: dict[str, tuple[str, ...]] = {
    "gate_watchdog": ("grblhal",),
    "s_max": ("grblhal",),
    "map": ("supervised",),
    "dialect": ("supervised",),
}


class Motion(Strict):
    """The motion system and what the planner may ask of it."""

    link: Literal["lmd_segment", "grblhal", "supervised"] = "lmd_segment"
    port: str
    # grblhal: an outside watchdog on the gate output; without it there is no emission
    gate_watchdog: bool = False
    # grblhal: the controller's $30, the S word of rated power
    s_max: float | None = Field(default=None, gt=0, le=1e6)
    # supervised: where the handshake's words stand, and what programs the control runs
    map: str | None = None
    dialect: str | None = None
    kinematics: Literal["xyz", "xyz_ac_table", "xyz_bc_table", "xyz_turntable"] = "xyz"
    time_law: Literal["trapezoid", "friction_circle", "jerk"] = "trapezoid"
    total_accel_mm_s2: u.MmPerS2 = Field(alias="total_acceleration", gt=0)
    plan_share: float = Field(gt=0, le=1)
    jerk_mm_s3: u.MmPerS3 = Field(alias="jerk", gt=0)
    junction_deviation_mm: u.Mm = Field(alias="junction_deviation", gt=0)
    path_tolerance_mm: u.Mm = Field(alias="path_tolerance", gt=0)
    travel_speed_mm_s: u.MmPerS = Field(alias="travel_speed", gt=0)
    travel_lift_mm: u.Mm = Field(alias="travel_lift", ge=0)
    heartbeat_timeout_s: u.Second = Field(alias="heartbeat_timeout", gt=0, le=0.1)
    # machine position = work offset + position in the plan - tool offset
    work_offset_mm: list[u.Mm] = Field(
        default=[0.0, 0.0, 0.0], alias="work_offset", min_length=3, max_length=3
    )
    tool_offset_mm: list[u.Mm] = Field(
        default=[0.0, 0.0, 0.0], alias="tool_offset", min_length=3, max_length=3
    )
    axes: list[Axis] = Field(min_length=3, max_length=3)
    rotary: list[RotaryAxis] = Field(default_factory=list, max_length=3)
    # inputs of the motion controller that are wired: ends of axes such as "X-", "X+"
    limit_switches: list[str] = Field(default_factory=list, max_length=12)
    following_error_input: bool = False
    probe_input: bool = False

    @property
    def speed_share(self) -> float:
        """Share of the axes' speeds that a plan uses: sqrt(plan_share).

        An override by s asks for s times the speed and s^2 times the acceleration, so one up to
        1 / sqrt(plan_share) keeps the axes inside both limits.
        """
        return math.sqrt(self.plan_share)

    @property
    def machine_axes(self) -> tuple[MachineAxis, ...]:
        """All axes in the order of the wire: X, Y, Z, then the rotary ones, base to work."""
        linear = (
            MachineAxis(
                a.name, "mm", a.steps_per_mm, a.range_mm[0], a.range_mm[0], a.range_mm[1],
                a.speed_mm_s, a.accel_mm_s2,
            )
            for a in self.axes
        )  # fmt: skip
        rotary = (
            MachineAxis(
                a.name,
                "deg",
                a.steps_per_deg,
                0.0,
                a.range_deg[0],
                a.range_deg[1],
                a.speed_deg_s,
                a.accel_deg_s2,
            )
            for a in self.rotary
        )
        return (*linear, *rotary)

    @model_validator(mode="after")
    def _xyz_first(self) -> "Motion":
        names = [a.name for a in self.axes]
        if names[:3] != ["X", "Y", "Z"]:
            raise ValueError(f"axes are {names}, the first three must be X, Y, Z")
        for axis in self.axes:
            if axis.range_mm[0] >= axis.range_mm[1]:
                raise ValueError(f"axis {axis.name}: range {axis.range_mm} mm is empty")
        self._link_has_its_keys()
        names = [*(a.name for a in self.axes), *(a.name for a in self.rotary)]
        ends = {f"{name}{end}" for name in names for end in "-+"}
        for name in self.limit_switches:
            if name not in ends:
                raise ValueError(
                    f"limit_switches {name!r} is no end of an axis, one of: "
                    f"{', '.join(sorted(ends))}"
                )
        rotary = tuple(a.name for a in self.rotary)
        if rotary not in ROTARY_AXES[self.kinematics]:
            wanted = " or ".join(", ".join(n) or "none" for n in ROTARY_AXES[self.kinematics])
            raise ValueError(
                f"kinematics {self.kinematics!r} needs motion.rotary axes {wanted} "
                f"(base to work), not {', '.join(rotary) or 'none'}"
            )
        return self

    def _link_has_its_keys(self) -> None:
        """What a link needs is there; what it does not use is refused, not ignored."""
        for key, links in LINK_KEYS.items():
            if self.link not in links and key in self.model_fields_set:
                raise ValueError(f"{key} means nothing to link {self.link!r}, only to {links[0]!r}")
        if self.link == "supervised" and not (self.map and self.dialect):
            raise ValueError(
                "link 'supervised' needs map (where the handshake's words stand) and dialect "
                "(of the program that the control runs)"
            )
        if self.link == "grblhal" and self.rotary:
            raise ValueError("link 'grblhal' drives X, Y and Z only, not motion.rotary axes")


class Substrate(Strict):
    """The plate that the part is built on, in machine coordinates."""

    material: str
    center_mm: list[u.Mm] = Field(alias="center", min_length=2, max_length=2)
    top_mm: u.Mm = Field(alias="top")
    size_mm: list[u.Mm] = Field(alias="size", min_length=2, max_length=2)


class OxygenLimits(Strict):
    """Greatest chamber oxygen by alloy; the alloys that may be built in open air."""

    alloys: dict[str, u.Ppm] = Field(default_factory=dict)
    open_air: list[str] = Field(default_factory=list)


class Limits(Strict):
    """Limits of the cell that no recipe may widen."""

    oxygen: OxygenLimits
    coolant_deg_c: list[u.DegC] = Field(alias="coolant", min_length=2, max_length=2)


class Cost(Strict):
    """What an hour of the cell costs; for estimates only."""

    machine_usd_h: u.UsdPerH = Field(alias="machine", ge=0)
    gas_usd_h: u.UsdPerH = Field(alias="gas", ge=0)


class Cell(Strict):
    """One cell: its motion, its devices, its limits."""

    name: str
    title: str
    default_recipe: str
    simulated: bool = False
    motion: Motion
    laser: Laser
    powder: Powder
    chiller: Chiller
    gas: Gas
    oxygen: Oxygen
    pyrometer: Pyrometer
    safety: Safety
    camera: Camera | None = None
    height: Height | None = None
    drives: Drives | None = None
    power_meter: PowerMeter | None = None
    heater: Heater | None = None
    chamber: Chamber | None = None
    head: Head | None = None
    powder_line: PowderLine | None = None
    room: RoomSupply | None = None
    substrate: Substrate
    limits: Limits
    cost: Cost

    @model_validator(mode="after")
    def _laser_makes_sense(self) -> "Cell":
        if self.laser.threshold_power_w >= self.laser.rated_power_w:
            raise ValueError(
                f"laser.threshold_power {self.laser.threshold_power_w:g} W is not below "
                f"rated_power {self.laser.rated_power_w:g} W"
            )
        return self


class Sourced(Strict):
    """A material figure and where it is from."""

    source: str


class Density(Sourced):
    value_kg_m3: u.KgPerM3 = Field(alias="value", gt=0)


class SpecificHeat(Sourced):
    value_j_kg_k: u.JPerKgK = Field(alias="value", gt=0)


class Conductivity(Sourced):
    value_w_m_k: u.WPerMK = Field(alias="value", gt=0)


class Temperature(Sourced):
    value_deg_c: u.DegC = Field(alias="value")


class LatentHeat(Sourced):
    value_j_kg: u.JPerKg = Field(alias="value", gt=0)


class Absorptivity(Sourced):
    value: float = Field(gt=0, le=1)


class Price(Sourced):
    value_usd_kg: u.UsdPerKg = Field(alias="value", ge=0)


class Material(Strict):
    """An alloy; every value with its source, or marked a guess."""

    name: str
    density: Density
    specific_heat: SpecificHeat
    thermal_conductivity: Conductivity
    solidus: Temperature
    liquidus: Temperature
    latent_heat: LatentHeat
    absorptivity: Absorptivity
    price: Price

    @property
    def density_g_mm3(self) -> float:
        """Density in g/mm3."""
        return self.density.value_kg_m3 * 1e-6


ModelT = TypeVar("ModelT", bound=Strict)


def configs_dir() -> Path:
    """The folder of the files that come with the program."""
    return Path(str(resources.files("configs")))


def find_file(kind: str, name_or_path: str, error: type[LmdError] = ConfigError) -> Path:
    """Path of a configuration file given by name or by path.

    ``kind`` is a folder of ``configs/``: cells, materials, recipes, scenarios, maps.
    """
    given = Path(name_or_path)
    if given.suffix == ".toml" or "/" in name_or_path:
        if not given.is_file():
            raise error(f"{given}: no such file")
        return given
    found = configs_dir() / kind / f"{name_or_path}.toml"
    if not found.is_file():
        have = ", ".join(sorted(p.stem for p in found.parent.glob("*.toml")))
        raise error(f"{kind[:-1]} {name_or_path!r} is not known; there are: {have}")
    return found


def read_toml(path: Path, error: type[LmdError] = ConfigError) -> tuple[dict[str, Any], str]:
    """A TOML file as data and as text. Raises ``error`` naming file and line."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise error(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text), text
    except (OSError, UnicodeDecodeError) as exc:
        raise error(f"{path}: cannot be read ({exc})") from None
    except tomllib.TOMLDecodeError as exc:
        raise error(f"{path}: not valid TOML: {exc}") from None


def parse_model(
    model: type[ModelT], text: str, origin: str, error: type[LmdError] = ConfigError
) -> ModelT:
    """Validate TOML text; all mistakes in one message with file, line and key."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise error(f"{origin}: not valid TOML: {exc}") from None
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        raise error("; ".join(_explain(e, text, origin) for e in exc.errors())) from None


def load_model(
    model: type[ModelT], path: Path, error: type[LmdError] = ConfigError
) -> tuple[ModelT, str]:
    """Read and validate a file; returns the model and the file's text."""
    _, text = read_toml(path, error)
    return parse_model(model, text, str(path), error), text


def load_cell(name_or_path: str) -> tuple[Cell, str]:
    """A cell by name or path, and the file's text."""
    return load_model(Cell, find_file("cells", name_or_path))


def load_material(name_or_path: str) -> tuple[Material, str]:
    """A material by its name, file name or path, and the file's text."""
    if "/" not in name_or_path and not name_or_path.endswith(".toml"):
        name_or_path = re.sub(r"[^a-z0-9]", "", name_or_path.lower())
    return load_model(Material, find_file("materials", name_or_path))


def _explain(item: Any, text: str, origin: str) -> str:
    """One pydantic error as a clause: file:line: key: what is wrong."""
    path = [str(p) for p in item["loc"]]
    key = ".".join(path) or "file"
    line = _line_of(path, text)
    message = str(item["msg"]).removeprefix("Value error, ")
    kind = item["type"]
    if kind == "extra_forbidden":
        message = "unknown key"
    elif kind == "missing":
        message = "is missing"
    elif kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        message = f"value {item['input']!r}: {message[:1].lower()}{message[1:]}"
    where = f"{origin}:{line}" if line else origin
    return f"{where}: {key}: {message}"


def _line_of(path: list[str], text: str) -> int | None:
    """Line number of a key, by following tables from the outside in; None if not found."""
    lines = text.splitlines()
    start, found = 0, None
    array_at = 0
    for part in path:
        if part.isdigit():
            array_at = int(part)
            continue
        header = re.compile(rf"^\s*\[\[?\s*([\w\.\-\"' ]*\.)?\"?{re.escape(part)}\"?\s*\]\]?")
        assign = re.compile(rf"(^|[{{,]\s*)\s*\"?{re.escape(part)}\"?\s*=")
        for number in range(start, len(lines)):
            if header.match(lines[number]) or assign.search(lines[number]):
                if array_at and lines[number].lstrip().startswith("[["):
                    array_at -= 1
                    continue
                start, found = number, number + 1
                break
        else:
            return found
    return found

"""The kinds of calibration, as a table: what each finds, how well, for how long.

A kind is due again after ``valid_days``, or at once when maintenance touched what it
measured (``voided_by``). Validity and tolerance are this project's defaults, not a maker's:
a maintenance plan may ask for shorter times.
"""

from collections.abc import Callable
from dataclasses import dataclass

from controller.config import Cell
from controller.errors import ConfigError

# what a person did to the cell -> in words
MAINTENANCE: dict[str, str] = {
    "nozzle": "nozzle changed, cleaned or hit",
    "window": "protective window changed or cleaned",
    "fibre": "fibre or collimator unplugged or changed",
    "hopper_disc": "metering disc or scraper of a hopper changed",
    "powder_lot": "another powder or lot filled in",
    "hose": "powder hose or splitter changed",
    "axis_drive": "motor, screw, belt, scale or drive of an axis changed",
    "rotary_axis": "table or rotary axis taken off or moved",
    "laser_module": "module or control of the laser source repaired",
    "gas_controller": "mass flow controller changed",
    "oxygen_sensor": "oxygen cell or analyser changed",
    "camera": "camera or its optics moved or changed",
    "pyrometer": "pyrometer or its optics moved or changed",
    "power_up": "cell switched off and on",
}


def _always(cell: Cell) -> bool:
    return True


def _rotary(cell: Cell) -> bool:
    return bool(cell.motion.rotary)


def _gate_measurable(cell: Cell) -> bool:
    """A control that runs whole programs shuts its own gate: nothing of ours to measure."""
    return cell.motion.link != "supervised"


def _has(section: str) -> Callable[[Cell], bool]:
    def has(cell: Cell) -> bool:
        return getattr(cell, section, None) is not None

    return has


@dataclass(frozen=True)
class Value:
    """One value that a kind finds, with the unit that its name carries as well.

    ``tolerance``: how uncertain it may be (one standard deviation), absolute, or a share of the
    value where ``relative``. What is less certain is refused, not stored.
    """

    name: str
    unit: str
    tolerance: float
    relative: bool = False


@dataclass(frozen=True)
class Kind:
    """One row of the table. ``columns``: the readings it is worked out from, one row each."""

    name: str
    title: str
    values: tuple[Value, ...]
    valid_days: float
    voided_by: tuple[str, ...]
    columns: tuple[str, ...]
    fitted: Callable[[Cell], bool] = _always
    needs_beam: bool = False


def _share(name: str, unit: str, tolerance: float) -> Value:
    return Value(name, unit, tolerance, relative=True)


_OFFSETS = ("offset_x_mm", "offset_y_mm")

_ROWS = (
    Kind(
        "feeder", "powder flow against disc speed",
        (_share("g_min_per_rpm", "g/min per rpm", 0.005),
         Value("curvature_per_rpm", "1/rpm", 0.01)),
        30.0, ("hopper_disc", "powder_lot"), ("rpm", "seconds", "mass_g"),
    ),
    Kind(
        "delay", "powder transport delay and lag",
        (_share("transport_delay_s", "s", 0.02), _share("lag_s", "s", 0.2)),
        30.0, ("hose", "nozzle", "powder_lot", "hopper_disc"), ("t_s", "mass_g"),
    ),
    Kind(
        "power", "laser power at the work against set power",
        (_share("slope", "W per W", 0.003), Value("offset_w", "W", 5.0),
         Value("curvature_per_w", "1/W", 1e-4)),
        90.0, ("window", "fibre", "laser_module"), ("set_w", "measured_w"), needs_beam=True,
    ),
    Kind(
        "gate", "latency and jitter of gate and power",
        (Value("gate_latency_s", "s", 1e-4), Value("gate_jitter_s", "s", 1e-4),
         Value("power_latency_s", "s", 1e-3), Value("power_jitter_s", "s", 1e-3)),
        365.0, ("laser_module",), ("signal", "command_us", "light_us"), _gate_measurable,
        needs_beam=True,
    ),
    Kind(
        "axis", "scale and backlash of the linear axes",
        (Value("scale_x", "mm per mm", 2e-5), Value("scale_y", "mm per mm", 2e-5),
         Value("scale_z", "mm per mm", 2e-5), Value("backlash_x_mm", "mm", 0.005),
         Value("backlash_y_mm", "mm", 0.005), Value("backlash_z_mm", "mm", 0.005)),
        180.0, ("axis_drive",), ("axis", "commanded_mm", "direction", "measured_mm"),
    ),
    Kind(
        "centring", "laser spot to powder jet",
        tuple(Value(n, "mm", 0.02) for n in _OFFSETS),
        30.0, ("nozzle", "window", "fibre"), ("spot_x_mm", "spot_y_mm", "jet_x_mm", "jet_y_mm"),
    ),
    Kind(
        "tool_centre", "nozzle tip to machine zero, from a probed sphere",
        tuple(Value(f"tool_{a}_mm", "mm", 0.02) for a in "xyz"),
        90.0, ("nozzle", "axis_drive"), ("x_mm", "y_mm", "z_mm"),
    ),
    Kind(
        "rotary", "centre of the table's axis, from one point turned with it",
        (Value("centre_u_mm", "mm", 0.02), Value("centre_v_mm", "mm", 0.02)),
        180.0, ("rotary_axis", "axis_drive"), ("angle_deg", "u_mm", "v_mm"), _rotary,
    ),
    Kind(
        "standoff", "height of the nozzle over a gauge block",
        (Value("zero_mm", "mm", 0.02),),
        30.0, ("nozzle",), ("block_mm", "touch_z_mm"),
    ),
    Kind(
        "focus", "beam caustic: waist and where it lies",
        (_share("waist_diameter_mm", "mm", 0.02), Value("focus_z_mm", "mm", 0.1),
         _share("rayleigh_mm", "mm", 0.1)),
        180.0, ("fibre", "window"), ("z_mm", "diameter_mm"),
    ),
    Kind(
        "gas", "mass flow of carrier and shield gas",
        (_share("carrier_slope", "L/min per L/min", 0.01),
         Value("carrier_offset_l_min", "L/min", 0.05),
         _share("shield_slope", "L/min per L/min", 0.01),
         Value("shield_offset_l_min", "L/min", 0.05)),
        365.0, ("gas_controller",), ("gas", "set_l_min", "measured_l_min"),
    ),
    Kind(
        "oxygen", "oxygen analyser at zero gas and span gas",
        (_share("slope", "ppm per ppm", 0.01), Value("offset_ppm", "ppm", 5.0)),
        90.0, ("oxygen_sensor",), ("reference_ppm", "reading_ppm"),
    ),
    Kind(
        "camera", "size of a pixel at the melt pool",
        (_share("mm_per_px", "mm per pixel", 0.005), Value("angle_deg", "deg", 0.5)),
        180.0, ("camera", "nozzle"), ("x_px", "y_px", "x_mm", "y_mm"), _has("camera"),
    ),
    Kind(
        "pyrometer", "pyrometer against a reference temperature",
        (_share("slope", "K per K", 0.005), Value("offset_k", "K", 3.0)),
        180.0, ("pyrometer", "window"), ("reference_deg_c", "reading_deg_c"),
    ),
    Kind(
        "door", "door circuit: the chain opens with the door and stays open until reset",
        (Value("passed", "yes", 0.0),),
        365.0, ("power_up",), ("step", "door_closed", "interlock_ok", "reset_needed"),
    ),
)  # fmt: skip

KINDS: dict[str, Kind] = {row.name: row for row in _ROWS}


def kind(name: str) -> Kind:
    """A row of the table. Raises ConfigError that says what there is."""
    try:
        return KINDS[name]
    except KeyError:
        raise ConfigError(f"calibration {name!r} is none of {', '.join(KINDS)}") from None


def items(row: Kind, cell: Cell) -> tuple[str, ...]:
    """What a kind measures one by one: each hopper, each rotary axis, else ``cell``."""
    if row.name in ("feeder", "delay"):
        return tuple(f"hopper{n + 1}" for n in range(len(cell.powder.hoppers)))
    if row.name == "rotary":
        return tuple(a.name for a in cell.motion.rotary)
    return ("cell",)


def needed(cell: Cell) -> tuple[tuple[Kind, str], ...]:
    """Every calibration that this cell must have, as (kind, item)."""
    return tuple(
        (row, item) for row in KINDS.values() if row.fitted(cell) for item in items(row, cell)
    )

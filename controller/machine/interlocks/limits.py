"""What the rules compare with, and whether a reading may be believed at all."""

from dataclasses import dataclass, field
from typing import Any

from controller.config import Cell
from controller.machine.snapshot import MachineSnapshot

LINK_AGE_US = 100_000  # a status frame comes every 10 ms
ROLES = ("laser", "powder", "gas", "chiller", "oxygen", "pyrometer", "safety")
OPTIONAL = (
    "camera", "height", "drives", "power_meter", "heater", "chamber", "head", "powder_line", "room",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fitted:
    """Limits of devices that only some cells have; a cell file may give its own.

    People's air: below 19.5 % oxygen is deficient (OSHA 29 CFR 1910.134 and 1910.146). The
    others are defaults for a head and a line that nobody has measured yet.
    """

    following_error_mm: float = 0.5
    window_deg_c: float = 60.0
    scatter_pct: float = 20.0
    back_pressure_kpa: float = 80.0
    uneven_share: float = 0.5  # a stream's pressure from that of the others
    room_oxygen_pct: float = 19.5
    supply_kpa: tuple[float, ...] = (400.0, 300.0)  # compressed air, argon
    ups_charge_pct: float = 50.0  # to start with
    heater_band_k: float = 20.0
    dew_margin_k: float = 2.0  # coolant above the dew point
    chamber_pa: float = 20.0  # above the room's: air stays outside

    @classmethod
    def of(cls, cell: Cell) -> "Fitted":
        """Limits that the cell file's sections give, else the defaults."""

        def own(section: str, key: str, default: Any) -> Any:
            value = getattr(getattr(cell, section, None), key, None)
            return default if value is None else value

        d = cls()
        return cls(
            following_error_mm=own("drives", "following_error_mm", d.following_error_mm),
            window_deg_c=own("head", "greatest_window_deg_c", d.window_deg_c),
            scatter_pct=own("head", "greatest_scatter_pct", d.scatter_pct),
            back_pressure_kpa=own("powder_line", "greatest_pressure_kpa", d.back_pressure_kpa),
            uneven_share=own("powder_line", "uneven_share", d.uneven_share),
            room_oxygen_pct=own("room", "least_oxygen_pct", d.room_oxygen_pct),
            supply_kpa=tuple(own("room", "least_supply_kpa", d.supply_kpa)),
            ups_charge_pct=own("room", "least_charge_pct", d.ups_charge_pct),
            heater_band_k=own("heater", "band_k", d.heater_band_k),
            dew_margin_k=own("chamber", "dew_margin_k", d.dew_margin_k),
            chamber_pa=own("chamber", "least_pressure_pa", d.chamber_pa),
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What the rules compare with; from the cell file and the loaded job's recipe."""

    age_us: dict[str, int]  # greatest age by role; a role that the cell lacks is not in it
    coolant_set_deg_c: float
    coolant_low_deg_c: float
    coolant_high_deg_c: float
    laser_threshold_w: float
    laser_rated_w: float
    powder_settle_us: int
    oxygen_limit_ppm: float | None = None  # None: the alloy may be built in open air
    fitted: Fitted = field(default_factory=Fitted)

    @classmethod
    def of(cls, cell: Cell, *materials: str) -> "Limits":
        """Limits of a cell, and of the alloys where a job is loaded: the strictest holds.

        An alloy that is neither named for open air nor given a limit gets the limit 0:
        it cannot be built before the cell file says at how much oxygen.
        """
        oxygen = cell.limits.oxygen
        limited = [oxygen.alloys.get(m, 0.0) for m in materials if m not in oxygen.open_air]
        limit = min(limited, default=None)
        roles = (*ROLES, *(r for r in OPTIONAL if getattr(cell, r, None) is not None))
        return cls(
            age_us={role: round(getattr(cell, role).max_age_s * 1e6) for role in roles},
            coolant_set_deg_c=cell.chiller.setpoint_deg_c,
            coolant_low_deg_c=cell.limits.coolant_deg_c[0],
            coolant_high_deg_c=cell.limits.coolant_deg_c[1],
            laser_threshold_w=cell.laser.threshold_power_w,
            laser_rated_w=cell.laser.rated_power_w,
            powder_settle_us=round(3e6 * cell.powder.lag_s) + 1_000_000,
            oxygen_limit_ppm=limit,
            fitted=Fitted.of(cell),
        )


def stale(s: MachineSnapshot, lim: Limits, role: str) -> bool:
    """A reading that never came or is older than its greatest age."""
    reading = getattr(s, role)
    return reading is None or s.now_us - reading.at_us > lim.age_us[role]


def link_stale(s: MachineSnapshot) -> bool:
    """No connection, or no status of the motion controller within the greatest age."""
    return not s.link_up or s.motion is None or s.now_us - s.motion.received_us > LINK_AGE_US

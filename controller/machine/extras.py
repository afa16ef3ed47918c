"""What the devices that a cell may have besides put into the telemetry row.

Made once per reading, never per tick. The columns stand at the end of
``controller.record.schema.TELEMETRY``, in the order of ``COLUMNS`` here.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from firmware_bridge.roles import (
    CameraReading,
    ChamberReading,
    DrivesReading,
    HeadReading,
    HeaterReading,
    HeightReading,
    PowderLineReading,
    PowerMeterReading,
    RoomReading,
)

NAN = math.nan
STREAMS, SCALES, SUPPLIES = 4, 2, 2
FRAME_MODULO = 1 << 24  # a float32 counts so far without a gap


def _padded(values: tuple[float, ...], n: int) -> tuple[float, ...]:
    """``n`` values: the first ones, NaN for those that are not there."""
    return (*values[:n], *(NAN,) * (n - len(values)))


def _camera(r: CameraReading) -> tuple[float, ...]:
    frame = r.frame % FRAME_MODULO
    return (frame, r.width_mm, r.area_mm2, r.temp_deg_c) if r.ok else (frame, NAN, NAN, NAN)


def _height(r: HeightReading) -> tuple[float, ...]:
    return (r.height_mm if r.valid else NAN,)


def _drives(r: DrivesReading) -> tuple[float, ...]:
    worst_mm = max((abs(e) for e in r.following_error_mm), default=NAN)
    return worst_mm, r.ready, r.fault_bits


def _power_meter(r: PowerMeterReading) -> tuple[float, ...]:
    return (r.power_w if r.valid and not r.overrange else NAN,)


def _heater(r: HeaterReading) -> tuple[float, ...]:
    return r.temp_deg_c, r.setpoint_deg_c, r.heating


def _chamber(r: ChamberReading) -> tuple[float, ...]:
    return r.pressure_pa, r.dew_point_deg_c, r.moisture_ppm, r.purging, r.door_locked


def _head(r: HeadReading) -> tuple[float, ...]:
    return r.window_deg_c, r.scatter_pct, r.cooling_ok, r.collision


def _powder_line(r: PowderLineReading) -> tuple[float, ...]:
    return (*_padded(r.pressure_kpa, STREAMS), *_padded(r.mass_left_g, SCALES))


def _room(r: RoomReading) -> tuple[float, ...]:
    supply = _padded(r.supply_pressure_kpa, SUPPLIES)
    return (r.oxygen_pct, r.extraction_ok, *supply, r.ups_on_battery, r.ups_charge_pct)


# role: number of columns, and what a reading puts there
COLUMNS: dict[str, tuple[int, Callable[[Any], tuple[float, ...]]]] = {
    "camera": (4, _camera),
    "height": (1, _height),
    "drives": (3, _drives),
    "power_meter": (1, _power_meter),
    "heater": (3, _heater),
    "chamber": (5, _chamber),
    "head": (4, _head),
    "powder_line": (STREAMS + SCALES, _powder_line),
    "room": (4 + SUPPLIES, _room),
}
N_COLUMNS = sum(n for n, _ in COLUMNS.values())


class Extras:
    """Newest readings of these devices (``by_role``), and their part of the row."""

    def __init__(self, drivers: Mapping[str, Any]) -> None:
        self._drivers = [(role, drivers[role]) for role in COLUMNS if role in drivers]
        self.by_role: dict[str, Any] = {role: None for role, _ in self._drivers}
        self._parts = {role: (NAN,) * n for role, (n, _) in COLUMNS.items()}
        self.row: tuple[float, ...] = (NAN,) * N_COLUMNS

    def update(self) -> None:
        """Look at every driver; the row is made anew where a reading is new."""
        changed = False
        by_role = self.by_role
        for role, driver in self._drivers:
            new = driver.reading
            if new is not by_role[role]:
                by_role[role] = new
                self._parts[role] = COLUMNS[role][1](new)
                changed = True
        if changed:
            self.row = tuple([v for part in self._parts.values() for v in part])

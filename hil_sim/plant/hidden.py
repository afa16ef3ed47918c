"""What a cell's file does not know: how this cell truly is, drawn from a seed of its own.

A real cell never equals its file. With hidden truths the simulated one does not either, and
what commissioning finds can be compared with what was hidden. Without them (None) every truth
is the cell file's. All spreads are guesses at a cell that was set up with ordinary care.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile

LARGEST_RPM = 10.0


@dataclass(frozen=True)
class Hidden:
    """The truths of one cell. Scales have no unit; the rest as the names say."""

    transport_delay_s: float
    lag_s: float
    feeder_scale: tuple[float, float] = (1.0, 1.0)  # of g/min per rpm at 0 rpm, each hopper
    feeder_curvature_per_rpm: tuple[float, float] = (0.0, 0.0)
    laser_slope: float = 1.0
    laser_offset_w: float = 0.0
    laser_curvature_per_w: float = 0.0
    gate_latency_us: int = 0
    power_latency_us: int = 0
    axis_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    backlash_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    jet_offset_mm: tuple[float, float] = (0.0, 0.0)
    tool_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    table_mm: tuple[float, float] = (0.0, 0.0)
    standoff_zero_mm: float = 0.0
    waist_mm: float = 1.0
    focus_z_mm: float = 0.0
    rayleigh_mm: float = 8.0
    gas_scale: tuple[float, float] = (1.0, 1.0)
    gas_offset_l_min: tuple[float, float] = (0.0, 0.0)
    oxygen_slope: float = 1.0
    oxygen_offset_ppm: float = 0.0
    mm_per_px: float = 0.01
    camera_deg: float = 0.0
    pyrometer_slope: float = 1.0
    pyrometer_offset_k: float = 0.0
    file: dict[str, Any] = field(default_factory=dict, compare=False)  # of the cell file

    def light_share(self, set_w: float) -> float:
        """Light over the source's linear answer at a commanded power (W)."""
        if set_w <= 0.0:
            return 1.0
        curve = self.laser_slope * (1.0 + self.laser_curvature_per_w * set_w)
        return max(0.0, curve + self.laser_offset_w / set_w)

    def flow_share(self, hopper: int, rpm: float) -> float:
        """Flow over that of the calibration in the cell's map, at a disc speed."""
        return self.feeder_scale[hopper] * (1.0 + self.feeder_curvature_per_rpm[hopper] * rpm)

    def applied(self, cell: CellFile) -> CellFile:
        """The cell file with what the plant truly has."""
        return replace(
            cell,
            transport_delay_s=self.transport_delay_s,
            powder_lag_s=self.lag_s,
            gate_latency_us=self.gate_latency_us,
            power_latency_us=self.power_latency_us,
        )


def as_told(cell: CellFile) -> Hidden:
    """A cell that is just what its file says."""
    return Hidden(
        cell.transport_delay_s,
        cell.powder_lag_s,
        gate_latency_us=cell.gate_latency_us,
        power_latency_us=cell.power_latency_us,
        waist_mm=cell.spot_mm,
    )


def drawn(cell: CellFile, seed: int) -> Hidden:
    """A cell that differs from its file, the same for the same seed."""
    r = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0x1D])))

    def many(least: float, most: float, n: int) -> Any:
        return tuple(float(v) for v in r.uniform(least, most, n))

    def one(least: float, most: float) -> float:
        return float(r.uniform(least, most))

    # the plant's delay line has slots of 10 ms
    delay_s = round(cell.transport_delay_s * one(0.7, 1.4), 2)
    return Hidden(
        transport_delay_s=delay_s,
        lag_s=cell.powder_lag_s * one(0.6, 1.6),
        feeder_scale=many(0.88, 1.12, 2),
        feeder_curvature_per_rpm=many(-0.012, 0.012, 2),
        laser_slope=one(0.955, 1.02),
        laser_offset_w=one(-4.0, 4.0),
        laser_curvature_per_w=one(-2e-5, 2e-5),
        gate_latency_us=round(cell.gate_latency_us * one(0.6, 1.8)),
        power_latency_us=round(cell.power_latency_us * one(0.7, 1.3)),
        axis_scale=tuple(1.0 + v for v in many(-2e-4, 2e-4, 3)),  # type: ignore[arg-type]
        backlash_mm=many(0.002, 0.03, 3),
        jet_offset_mm=many(-0.3, 0.3, 2),
        tool_mm=many(-0.5, 0.5, 3),
        table_mm=many(-0.5, 0.5, 2),
        standoff_zero_mm=one(-1.0, 1.0),
        waist_mm=cell.spot_mm * one(0.7, 0.95),
        focus_z_mm=one(-3.0, 3.0),
        rayleigh_mm=one(5.0, 12.0),
        gas_scale=many(0.95, 1.05, 2),
        gas_offset_l_min=many(-0.1, 0.1, 2),
        oxygen_slope=one(0.94, 1.06),
        oxygen_offset_ppm=one(-4.0, 4.0),
        mm_per_px=one(0.008, 0.014),
        camera_deg=one(-5.0, 5.0),
        pyrometer_slope=one(0.97, 1.03),
        pyrometer_offset_k=one(-15.0, 15.0),
    )

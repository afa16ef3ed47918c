"""What surrounds the melt pool, where a cell has instruments for it.

Window of the head, powder streams, chamber, plate heater, servo drives, room and supplies:
slow truths, stepped ten times a second. They are there only where the cell file has the
section, so that a cell without one is the same as ever. Numbers are guesses at a common cell
but where a source stands.

Whoever sets a truth from outside (a fault) holds it there; setting it to its usual value
(``USUAL``) gives it back to the physics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from hil_sim.plant.world import AMBIENT_DEG_C

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

STEP_US = 100_000
STEP_S = STEP_US * 1e-6

WINDOW_K_PER_KW = 6.0  # a clean window's rise
WINDOW_K_PER_KW_PCT = 1.3  # more for each percent that it scatters
WINDOW_TAU_S, WINDOW_TAU_DRY_S = 20.0, 60.0  # with and without cooling
UNCOOLED = 3.0  # times the rise without cooling
DIRT_PCT_S = 0.002  # scatter that a second of emission adds

STREAM_KPA = 8.0  # back-pressure at 6 L/min, by flow to the 1.75th (turbulent pipe, Blasius)
STREAM_PER_G_MIN = 0.02  # share more for each g/min of powder
CLOGGED_KPA = 95.0  # where the feeder's relief valve opens
STREAM_TAU_S = 0.5

PURGE_L_MIN = 50.0
PURGED_PA, PA_PER_L_MIN = 300.0, 5.0
PURGED_DEW_DEG_C, ROOM_DEW_DEG_C = -20.0, 9.5
CHAMBER_TAU_S, DEW_TAU_S = 2.0, 120.0

PLATE_J_K, HEATER_W, PLATE_LOSS_W_K = 1600.0, 2000.0, 3.0  # 200 x 200 x 10 mm of steel
HEATER_BAND_K = 5.0  # proportional band of its controller

SERVO_LAG_S = 0.002  # following error over speed

AIR_PCT = 20.9
ROOM_L, EXTRACTED_L_MIN, DRAUGHT_L_MIN = 60_000.0, 20_000.0, 500.0
UPS_MINUTES, UPS_CHARGE_H = 20.0, 4.0

# what ends a fault: physics goes on from there
USUAL: dict[str, float] = {
    "window_deg_c": 25.0,
    "scatter_pct": 2.0,
    "dew_point_deg_c": PURGED_DEW_DEG_C,
    "chamber_pressure_pa": PURGED_PA,
    "room_oxygen_pct": AIR_PCT,
    "stream_pressure_kpa": 0.0,
    "following_error_mm": 0.0,
}


def moisture_ppm(dew_point_deg_c: float) -> float:
    """Water by volume at one atmosphere (Magnus over ice, WMO-No. 8: 6.112 hPa, 22.46, 272.62)."""
    t = min(dew_point_deg_c, 60.0)
    return 6.112 * math.exp(22.46 * t / (272.62 + t)) / 1013.25 * 1e6


class Surroundings:
    """Steps the truths of the sections that a cell has."""

    def __init__(self, sim: Scheduler, world: World, cell: CellFile) -> None:
        self._world = world
        self._wrote: dict[str, float | list[float]] = {}
        self._energy_j = 0.0
        self._place = (world.x_mm, world.y_mm, world.z_mm)
        self._steps: list[Callable[[], None]] = []
        for section, (begin, step) in _SECTIONS.items():
            if section in cell.devices:
                begin(self, world, cell)
                self._steps.append(step.__get__(self))
        if self._steps:
            sim.every(STEP_US, self.step)

    def step(self) -> None:
        """A tenth of a second."""
        for step in self._steps:
            step()

    def _goes(self, name: str, goal: float, tau_s: float) -> None:
        """A truth goes to where physics wants it, but where it is held from outside."""
        now: float = getattr(self._world, name)
        if name in self._wrote and now not in (self._wrote[name], USUAL.get(name)):
            return
        now += (goal - now) * (1.0 - math.exp(-STEP_S / tau_s))
        setattr(self._world, name, now)
        self._wrote[name] = now

    def _goes_each(self, name: str, goals: list[float], tau_s: float) -> None:
        values: list[float] = getattr(self._world, name)
        wrote = self._wrote.get(name)
        if not isinstance(wrote, list):
            wrote = self._wrote[name] = list(values)
        for k, goal in enumerate(goals):
            if values[k] in (wrote[k], USUAL[name]):
                share = 1.0 - math.exp(-STEP_S / tau_s) if tau_s else 1.0
                values[k] += (goal - values[k]) * share
                wrote[k] = values[k]

    # --- head ----------------------------------------------------------------------------

    def _head_begin(self, world: World, cell: CellFile) -> None:
        world.window_deg_c = world.coolant_deg_c
        world.scatter_pct = 2.0
        world.head_cooling_ok = True
        world.collision = False

    def _head(self) -> None:
        world = self._world
        energy_j, self._energy_j = self._energy_j, world.energy_j
        mean_w = (world.energy_j - energy_j) / STEP_S
        if mean_w > 0.0:
            world.scatter_pct = min(100.0, world.scatter_pct + DIRT_PCT_S * STEP_S)
        rise_k = mean_w * 1e-3 * (WINDOW_K_PER_KW + WINDOW_K_PER_KW_PCT * world.scatter_pct)
        cooled = world.head_cooling_ok
        goal = world.coolant_deg_c + rise_k * (1.0 if cooled else UNCOOLED)
        self._goes("window_deg_c", goal, WINDOW_TAU_S if cooled else WINDOW_TAU_DRY_S)

    # --- powder line ---------------------------------------------------------------------

    def _line_begin(self, world: World, cell: CellFile) -> None:
        world.stream_pressure_kpa = [0.0] * cell.streams
        world.clogged = [False] * cell.streams

    def _line(self) -> None:
        world = self._world
        open_ = world.clogged.count(False)
        n = len(world.clogged)
        each_l_min = world.carrier_l_min * n / open_ if open_ else 0.0
        powder = 1.0 + STREAM_PER_G_MIN * sum(world.hopper_flow_g_min)
        free_kpa = min(CLOGGED_KPA, STREAM_KPA * (each_l_min / 6.0) ** 1.75 * powder)
        shut_kpa = CLOGGED_KPA if world.carrier_l_min > 0.1 else 0.0
        goals = [shut_kpa if shut else free_kpa for shut in world.clogged]
        self._goes_each("stream_pressure_kpa", goals, STREAM_TAU_S)

    # --- chamber -------------------------------------------------------------------------

    def _chamber_begin(self, world: World, cell: CellFile) -> None:
        world.purge_on = True  # it was purged before the build, as in a real shift
        world.chamber_pressure_pa = PURGED_PA
        world.dew_point_deg_c = PURGED_DEW_DEG_C

    def _chamber(self) -> None:
        world = self._world
        shut, purge = world.door_closed, world.purge_on
        gas_l_min = world.carrier_l_min + world.shield_l_min
        closed_pa = PURGED_PA if purge else PA_PER_L_MIN * gas_l_min
        self._goes("chamber_pressure_pa", closed_pa if shut else 0.0, CHAMBER_TAU_S)
        dry = shut and purge
        self._goes("dew_point_deg_c", PURGED_DEW_DEG_C if dry else ROOM_DEW_DEG_C, DEW_TAU_S)

    # --- heater --------------------------------------------------------------------------

    def _heater_begin(self, world: World, cell: CellFile) -> None:
        world.heater_set_deg_c = world.heater_deg_c = cell.heater_setpoint_deg_c
        world.heater_on = True  # warmed up before the build
        world.heater_fault = False

    def _heater(self) -> None:
        world = self._world
        lacks_k = world.heater_set_deg_c - world.heater_deg_c
        power_w = PLATE_LOSS_W_K * (world.heater_set_deg_c - AMBIENT_DEG_C)
        power_w += HEATER_W * lacks_k / HEATER_BAND_K
        if not world.heater_on or world.heater_fault:
            power_w = 0.0
        power_w = min(HEATER_W, max(0.0, power_w))
        loss_w = PLATE_LOSS_W_K * (world.heater_deg_c - AMBIENT_DEG_C)
        world.heater_deg_c += (power_w - loss_w) / PLATE_J_K * STEP_S

    # --- drives --------------------------------------------------------------------------

    def _drives_begin(self, world: World, cell: CellFile) -> None:
        world.following_error_mm = [0.0] * cell.n_axes
        world.drive_fault_bits = 0

    def _drives(self) -> None:
        world = self._world
        before, self._place = self._place, (world.x_mm, world.y_mm, world.z_mm)
        goals = [(b - a) / STEP_S * SERVO_LAG_S for a, b in zip(before, self._place, strict=True)]
        goals += [0.0] * (len(world.following_error_mm) - 3)
        self._goes_each("following_error_mm", goals, 0.0)

    # --- room ----------------------------------------------------------------------------

    def _room_begin(self, world: World, cell: CellFile) -> None:
        world.room_oxygen_pct = AIR_PCT
        world.extraction_ok = True
        world.supply_air_kpa = 600.0
        world.supply_argon_kpa = 800.0
        world.ups_on_battery = False
        world.ups_charge_pct = 100.0

    def _room(self) -> None:
        world = self._world
        argon_l_min = world.carrier_l_min + world.shield_l_min
        if getattr(world, "purge_on", False):
            argon_l_min += PURGE_L_MIN
        air_l_min = EXTRACTED_L_MIN if world.extraction_ok else DRAUGHT_L_MIN
        goal = AIR_PCT * max(0.0, 1.0 - argon_l_min / air_l_min)
        self._goes("room_oxygen_pct", goal, ROOM_L / air_l_min * 60.0)
        per_s = -1.0 / UPS_MINUTES / 60.0 if world.ups_on_battery else 1.0 / UPS_CHARGE_H / 3600.0
        world.ups_charge_pct = min(100.0, max(0.0, world.ups_charge_pct + 100.0 * per_s * STEP_S))


_Begin = Callable[[Surroundings, "World", "CellFile"], None]
# section of the cell file: truths at power-up, and their step
_SECTIONS: dict[str, tuple[_Begin, Callable[[Surroundings], None]]] = {
    "head": (Surroundings._head_begin, Surroundings._head),
    "powder_line": (Surroundings._line_begin, Surroundings._line),
    "chamber": (Surroundings._chamber_begin, Surroundings._chamber),
    "heater": (Surroundings._heater_begin, Surroundings._heater),
    "drives": (Surroundings._drives_begin, Surroundings._drives),
    "room": (Surroundings._room_begin, Surroundings._room),
}

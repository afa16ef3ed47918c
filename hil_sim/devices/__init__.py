"""Emulators of the cell's devices, written from the makers' documents, never from the drivers.

What goes over each wire stands in docs/reference/device-protocols.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hil_sim.devices.base import Emulator
from hil_sim.devices.chiller_smc import ChillerSmc
from hil_sim.devices.feeder_map import FeederMap
from hil_sim.devices.gas_alicat import GasAlicat
from hil_sim.devices.laser_ipg import LaserIpg
from hil_sim.devices.oxygen_eh import OxygenEh
from hil_sim.devices.pyrometer_lumasense import PyrometerLumasense
from hil_sim.devices.safety_pilz import SafetyPilz

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

__all__ = ["Emulator", "build_emulators"]


def build_emulators(sim: Scheduler, world: World, cell: CellFile) -> dict[int, Emulator]:
    """The emulator of every channel but motion (0), by channel number.

    The caller joins each to its wire: `emulator.send = end.send`, and `end.on_data`,
    `on_opened`, `on_closed` to `emulator.receive`, `opened`, `closed`.
    """
    return {
        1: LaserIpg(sim, world),
        2: PyrometerLumasense(sim, world, cell.pyrometer_least_deg_c, cell.pyrometer_most_deg_c),
        3: ChillerSmc(sim, world),
        4: FeederMap(sim, world),
        5: GasAlicat(sim, world, cell.greatest_gas_l_min),
        6: OxygenEh(sim, world),
        7: SafetyPilz(sim, world),
    }

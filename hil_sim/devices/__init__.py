"""Emulators of the cell's devices, written from the makers' documents, never from the drivers.

What goes over each wire stands in docs/reference/device-protocols.md. The cell file's section
names the driver; ``EMULATORS`` says what stands at the other end of its wire.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from hil_sim.cellfile import OPTIONAL_SECTIONS, SECTIONS, CellFileError
from hil_sim.devices.base import Emulator
from hil_sim.wires import CHANNELS, PtyEnd, TcpEnd, WireEnd

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

__all__ = ["EMULATORS", "Emulator", "build_emulators", "channels_of"]

WIRES: dict[str, type[WireEnd]] = {"tcp": TcpEnd, "pty": PtyEnd}

# driver: module of this folder and class, its wire (tcp, or pty for a serial line). The class
# is made by ``Emulator.fitted``, which one that needs more than simulator and world overrides.
EMULATORS: dict[str, tuple[str, str]] = {
    "laser_ipg": ("laser_ipg.LaserIpg", "tcp"),
    "pyrometer_lumasense": ("pyrometer_lumasense.PyrometerLumasense", "pty"),
    "chiller_smc": ("chiller_smc.ChillerSmc", "pty"),
    "feeder_map": ("feeder_map.FeederMap", "tcp"),
    "gas_alicat": ("gas_alicat.GasAlicat", "tcp"),
    "oxygen_eh": ("oxygen_eh.OxygenEh", "tcp"),
    "safety_pilz": ("safety_pilz.SafetyPilz", "tcp"),
    "laser_raycus": ("laser_raycus.LaserRaycus", "pty"),
    "laser_laserline": ("laser_laserline.LaserLaserline", "tcp"),
    "chiller_sanda": ("chiller_sanda.ChillerSanda", "pty"),
    "gas_bronkhorst": ("gas_bronkhorst.GasBronkhorst", "tcp"),
    "pyrometer_calex": ("pyrometer_calex.PyrometerCalex", "pty"),
    "meter_ophir": ("meter_ophir.MeterOphir", "pty"),
    "pyrometer_sensortherm": ("pyrometer_sensortherm.PyrometerSensortherm", "pty"),
    "camera_ring": ("camera_ring.CameraRing", "pty"),
    "height_keyence": ("height_keyence.HeightKeyence", "pty"),
    "modbus_map": ("modbus_box.ModbusBox", "tcp"),
}


def channels_of(cell: CellFile) -> list[tuple[int, str, type[WireEnd]]]:
    """Number, name and kind of every wire that a cell has; a name's number is always the same.

    Raises CellFileError for a driver that has no emulator.
    """
    motion = CHANNELS[0]
    found = [motion]
    for number, name in enumerate((*SECTIONS, *OPTIONAL_SECTIONS), start=1):
        driver = cell.devices.get(name)
        if driver is None:
            continue
        if driver not in EMULATORS:
            raise CellFileError(
                f"{cell.path}: {name}.driver: {driver!r} cannot be simulated, "
                f"one of {', '.join(sorted(EMULATORS))} is wanted"
            )
        found.append((number, name, WIRES[EMULATORS[driver][1]]))
    return found


def build_emulators(sim: Scheduler, world: World, cell: CellFile) -> dict[int, Emulator]:
    """The emulator of every channel but motion (0), by channel number.

    The caller joins each to its wire: `emulator.send = end.send`, and `end.on_data`,
    `on_opened`, `on_closed` to `emulator.receive`, `opened`, `closed`.
    Raises CellFileError where a section cannot have that driver.
    """
    made = {}
    for number, name, _ in channels_of(cell)[1:]:
        module, _, kind = EMULATORS[cell.devices[name]][0].rpartition(".")
        cls = getattr(importlib.import_module(f"hil_sim.devices.{module}"), kind)
        made[number] = cls.fitted(sim, world, cell, name)
    return made

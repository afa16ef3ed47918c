"""Endress+Hauser OXY5500 oxygen analyser (docs/reference/device-protocols.md, section 7)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from hil_sim.devices.modbus import Block, ModbusTcp

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

_BLOCK = 4909  # oxygen, temperature, pressure, error flags, one reserved: two words each
_WORDS = Struct(">10H")
_FOUR = Struct(">fffI")
_HALVES = Struct(">8H")

_UNIT_REGISTER = 2089
_PPM = 32

_TEMP_DEG_C = 24.0
_PRESSURE_MBAR = 1013.25


class OxygenEh(ModbusTcp):
    """Oxygen of the chamber in ppm. Values of two words go out low word first.

    Fault hook besides those of the wire: `error_flags` (2 is "no sensor or signal too low").
    """

    channel = "oxygen"
    functions = frozenset((3, 4, 16))

    def __init__(self, sim: Scheduler, world: World) -> None:
        super().__init__(sim, world)
        self.error_flags = 0
        self._block = Block(_BLOCK, 10)
        unit_block = Block(_UNIT_REGISTER, 2)
        unit_block.data[:] = _PPM.to_bytes(2, "big") + b"\0\0"
        self.blocks = {1: (self._block, unit_block)}

    def refresh(self, unit: int) -> None:
        big = _FOUR.pack(self.world.oxygen_ppm, _TEMP_DEG_C, _PRESSURE_MBAR, self.error_flags)
        a, b, c, d, e, f, g, h = _HALVES.unpack(big)
        _WORDS.pack_into(self._block.data, 0, b, a, d, c, f, e, h, g, 0, 0)

"""A Modbus/TCP input and output box: what a PLC shows of devices that have no line of their own.

FICTITIOUS: the registers are this simulated cell's. One table a section of the cell file;
the maps in configs/maps/*_sim.toml were written beside it by hand, so that either side's
mistake shows. All holding registers of 0 to 31, unit 1; those without a row read 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Self

from hil_sim.cellfile import CellFileError
from hil_sim.devices.modbus import (
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    Block,
    ModbusError,
    ModbusTcp,
)
from hil_sim.plant.surroundings import moisture_ppm

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

N_REGISTERS = 32
_WORD, _SHORT, _LONG, _FLOAT = Struct(">H"), Struct(">h"), Struct(">I"), Struct(">f")
_SEEN_DEG_C = 700.0  # a pool cooler than this is not seen by a camera
_FRAME_US = 10_000
_POOL_LENGTH = 1.3  # over its width (guess)

Look = Callable[["ModbusBox", Any], Any]


@dataclass(frozen=True)
class Row:
    """Registers that show a truth: raw value = truth / step, within the code's range."""

    address: int
    code: Struct
    step: float
    look: Look

    def show(self, data: bytearray, box: ModbusBox) -> None:
        truth = self.look(box, box.world)
        if self.code is _FLOAT:
            _FLOAT.pack_into(data, 2 * self.address, truth)
            return
        raw = round(truth / self.step) if math.isfinite(truth) else 0
        least, most = {_SHORT: (-32768, 32767), _WORD: (0, 65535)}.get(self.code, (0, 2**32 - 1))
        self.code.pack_into(data, 2 * self.address, min(most, max(least, raw)))


@dataclass(frozen=True)
class Bits:
    """A word of flags, bit 0 first."""

    address: int
    looks: tuple[Look, ...]

    def show(self, data: bytearray, box: ModbusBox) -> None:
        word = 0
        for bit, look in enumerate(self.looks):
            if look(box, box.world):
                word |= 1 << bit
        _WORD.pack_into(data, 2 * self.address, word)


@dataclass(frozen=True)
class Output:
    """A register that can be written: least and greatest raw value, and what it does."""

    address: int
    least: int
    most: int
    look: Look
    act: Callable[[Any, int], None]

    def show(self, data: bytearray, box: ModbusBox) -> None:
        _WORD.pack_into(data, 2 * self.address, int(self.look(box, box.world)))


def _set(name: str, step: float | None = None) -> Callable[[Any, int], None]:
    return lambda world, raw: setattr(world, name, bool(raw) if step is None else raw * step)


def _item(name: str, k: int) -> Look:
    def look(box: ModbusBox, world: Any) -> float:
        values = getattr(world, name)
        return float(values[k]) if k < len(values) else 0.0

    return look


def _pool(width: float) -> float:
    """Area of an ellipse, mm2."""
    return math.pi / 4.0 * width * width * _POOL_LENGTH


def _width(box: ModbusBox, world: Any) -> float:
    return float(world.bead_width_mm) if world.pool_temp_deg_c > _SEEN_DEG_C else 0.0


TABLES: dict[str, tuple[Row | Bits | Output, ...]] = {
    "camera": (
        Row(0, _LONG, 1.0, lambda box, w: box.sim.now_us // _FRAME_US),
        Row(2, _WORD, 0.001, _width),
        Row(3, _FLOAT, 1.0, lambda box, w: _pool(_width(box, w))),
        Row(5, _WORD, 0.1, lambda box, w: w.pool_temp_deg_c),
        Bits(6, (lambda box, w: w.pool_temp_deg_c > 2400.0, lambda box, w: not box.blind)),
    ),
    "height": (
        Row(0, _FLOAT, 1.0, lambda box, w: w.height_mm),
        Bits(2, (lambda box, w: not box.blind,)),
    ),
    "drives": (
        *(Row(2 * k, _FLOAT, 1.0, _item("following_error_mm", k)) for k in range(6)),
        Row(12, _WORD, 1.0, lambda box, w: w.drive_fault_bits),
        Bits(13, (lambda box, w: not w.drive_fault_bits, lambda box, w: w.drive_fault_bits)),
    ),
    "power_meter": (
        Row(0, _FLOAT, 1.0, lambda box, w: w.emission_w),
        Bits(2, (lambda box, w: not box.blind, lambda box, w: w.emission_w > 2 * w.rated_power_w)),
    ),
    "heater": (
        Row(0, _SHORT, 0.1, lambda box, w: w.heater_deg_c),
        Bits(1, (lambda box, w: w.heater_on, lambda box, w: w.heater_fault)),
        Output(
            8, 0, 8000, lambda box, w: round(10 * w.heater_set_deg_c), _set("heater_set_deg_c", 0.1)
        ),
        Output(9, 0, 1, lambda box, w: w.heater_on, _set("heater_on")),
    ),
    "chamber": (
        Row(0, _SHORT, 1.0, lambda box, w: w.chamber_pressure_pa),
        Row(1, _SHORT, 0.1, lambda box, w: w.dew_point_deg_c),
        Row(2, _FLOAT, 1.0, lambda box, w: moisture_ppm(w.dew_point_deg_c)),
        Bits(4, (lambda box, w: w.purge_on, lambda box, w: w.door_closed)),
        Output(8, 0, 1, lambda box, w: w.purge_on, _set("purge_on")),
    ),
    "head": (
        Row(0, _SHORT, 0.1, lambda box, w: w.window_deg_c),
        Row(1, _WORD, 0.1, lambda box, w: w.scatter_pct),
        Bits(2, (lambda box, w: w.head_cooling_ok, lambda box, w: w.collision)),
    ),
    "powder_line": (
        *(Row(k, _WORD, 0.01, _item("stream_pressure_kpa", k)) for k in range(8)),
        *(Row(8 + 2 * k, _LONG, 0.1, _item("hopper_mass_g", k)) for k in range(2)),
    ),
    "room": (
        Row(0, _WORD, 0.01, lambda box, w: w.room_oxygen_pct),
        Row(1, _WORD, 1.0, lambda box, w: w.supply_air_kpa),
        Row(2, _WORD, 1.0, lambda box, w: w.supply_argon_kpa),
        Row(3, _WORD, 0.1, lambda box, w: w.ups_charge_pct),
        Bits(4, (lambda box, w: w.extraction_ok, lambda box, w: w.ups_on_battery)),
    ),
}


class ModbusBox(ModbusTcp):
    """The registers of one section.

    Fault hooks besides those of the wire: `blind`, a sensor that says itself that it does not
    see; `frozen`, registers that no longer follow.
    """

    functions = frozenset((3, 6, 16))
    blind: bool
    frozen: bool

    def __init__(self, sim: Scheduler, world: World, section: str) -> None:
        self.channel = section
        super().__init__(sim, world)
        self.blind = False
        self.frozen = False
        self._table = TABLES[section]
        self._outputs = {row.address: row for row in self._table if isinstance(row, Output)}
        self._block = Block(0, N_REGISTERS)
        self.blocks = {1: (self._block,)}

    @classmethod
    def fitted(cls, sim: Scheduler, world: World, cell: CellFile, section: str) -> Self:
        """Raises CellFileError for a section that no table is of."""
        if section not in TABLES:
            raise CellFileError(
                f"{cell.path}: {section}.driver: modbus_map can be simulated for "
                f"{', '.join(TABLES)} only"
            )
        return cls(sim, world, section)

    def refresh(self, unit: int) -> None:
        if self.frozen:
            return
        for row in self._table:
            row.show(self._block.data, self)

    def write_registers(self, unit: int, address: int, values: tuple[int, ...]) -> None:
        rows = [(self._outputs.get(address + k), value) for k, value in enumerate(values)]
        for row, value in rows:
            if row is None:
                raise ModbusError(ILLEGAL_ADDRESS)
            if not row.least <= value <= row.most:
                raise ModbusError(ILLEGAL_VALUE)
        for row, value in rows:
            assert row is not None
            row.act(self.world, value)

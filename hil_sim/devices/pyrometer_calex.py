"""Calex PyroUSB thermometer, Modbus RTU (docs/reference/device-protocols.md, section 14)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Self

from hil_sim.devices.modbus import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Block, ModbusError, ModbusRtu

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

_REGISTERS = Struct(">hhhhhHHHH")  # 10h to 18h
ERROR, SENSOR_COLD, SENSOR_HOT, OBJECT_LOW, OBJECT_HIGH = 1, 2, 4, 8, 16
_EMISSIVITY = 0x18


class PyrometerCalex(ModbusRtu):
    """Fault hooks besides those of the wire: `status` (bits added), `sensor_deg_c`."""

    channel = "pyrometer"
    functions = frozenset((3, 4, 6, 16))

    def __init__(
        self,
        sim: Scheduler,
        world: World,
        least_deg_c: float = 450.0,
        most_deg_c: float = 2000.0,
    ) -> None:
        super().__init__(sim, world)
        self.least_deg_c, self.most_deg_c = least_deg_c, most_deg_c
        self.status = 0
        self.sensor_deg_c = 31.0
        self._emissivity = 9500
        self._peak, self._valley = -2000, 30000
        self._block = Block(0x10, 9)
        self.blocks = {1: (self._block,)}

    @classmethod
    def fitted(cls, sim: Scheduler, world: World, cell: CellFile, section: str) -> Self:
        return cls(sim, world, cell.pyrometer_least_deg_c, cell.pyrometer_most_deg_c)

    def refresh(self, unit: int) -> None:
        temp_deg_c = self.world.pool_temp_deg_c
        status = self.status
        if not temp_deg_c >= self.least_deg_c:  # NaN too
            status |= OBJECT_LOW
            temp_deg_c = self.least_deg_c
        elif temp_deg_c > self.most_deg_c:
            status |= OBJECT_HIGH
            temp_deg_c = self.most_deg_c
        tenths = round(10.0 * temp_deg_c)
        self._peak, self._valley = max(self._peak, tenths), min(self._valley, tenths)
        _REGISTERS.pack_into(
            self._block.data,
            0,
            self._valley,
            self._peak,
            tenths,
            tenths,
            round(10.0 * self.sensor_deg_c),
            status,
            0,
            210,
            self._emissivity,
        )

    def write_registers(self, unit: int, address: int, values: tuple[int, ...]) -> None:
        if address != _EMISSIVITY or len(values) != 1:
            raise ModbusError(ILLEGAL_ADDRESS)
        if not 1000 <= values[0] <= 10000:
            raise ModbusError(ILLEGAL_VALUE)
        self._emissivity = values[0]

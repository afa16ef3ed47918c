"""Two Alicat mass flow controllers on one line (docs/reference/device-protocols.md, section 6)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Self

from hil_sim.devices.modbus import (
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    Block,
    ModbusError,
    ModbusTcp,
)

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

CARRIER = 1
SHIELD = 2

_SETPOINT = 0x03F1  # register 1010; on the wire addresses are one less
_READINGS = Struct(">HIffff")  # gas number, status, pressure, temperature, volumetric, mass flow
_FLOAT = Struct(">f")

_ARGON = 4
_PRESSURE_PSIA = 14.7
_GAS_DEG_C = 22.5
# From standard conditions (25 degC, 14.696 psia) to those of the gas.
_VOLUMETRIC = (273.15 + _GAS_DEG_C) / 298.15 * 14.696 / _PRESSURE_PSIA


class GasAlicat(ModbusTcp):
    """Unit 1 carries the powder, unit 2 shields the pool. Flows in L/min.

    Fault hook besides those of the wire: `status_flags[unit]`, the 32 status bits (256 is
    "control loop in hold").
    """

    channel = "gas"
    functions = frozenset((3, 4, 16))

    def __init__(self, sim: Scheduler, world: World, greatest_l_min: float = 30.0) -> None:
        super().__init__(sim, world)
        self.greatest_l_min = greatest_l_min
        self.status_flags = {CARRIER: 0, SHIELD: 0}
        self.blocks = {unit: (Block(0x04AF, 11), Block(_SETPOINT, 2)) for unit in (CARRIER, SHIELD)}

    @classmethod
    def fitted(cls, sim: Scheduler, world: World, cell: CellFile, section: str) -> Self:
        return cls(sim, world, cell.greatest_gas_l_min)

    def refresh(self, unit: int) -> None:
        world = self.world
        if unit == CARRIER:
            flow_l_min, set_l_min = world.carrier_l_min, world.carrier_set_l_min
        else:
            flow_l_min, set_l_min = world.shield_l_min, world.shield_set_l_min
        readings, setpoint = self.blocks[unit]
        _READINGS.pack_into(
            readings.data,
            0,
            _ARGON,
            self.status_flags[unit],
            _PRESSURE_PSIA,
            _GAS_DEG_C,
            flow_l_min * _VOLUMETRIC,
            flow_l_min,
        )
        _FLOAT.pack_into(setpoint.data, 0, set_l_min)

    def write_registers(self, unit: int, address: int, values: tuple[int, ...]) -> None:
        if address != _SETPOINT or len(values) != 2:
            raise ModbusError(ILLEGAL_ADDRESS)
        (set_l_min,) = _FLOAT.unpack(values[0].to_bytes(2, "big") + values[1].to_bytes(2, "big"))
        if not 0.0 <= set_l_min <= self.greatest_l_min:  # refuses NaN too
            raise ModbusError(ILLEGAL_VALUE)
        if unit == CARRIER:
            self.world.carrier_set_l_min = set_l_min
        else:
            self.world.shield_set_l_min = set_l_min

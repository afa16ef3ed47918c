"""Two Bronkhorst flow controllers on one line (docs/reference/device-protocols.md, section 13)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Self

from hil_sim.devices.modbus import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Block, ModbusError, ModbusTcp

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

CARRIER, SHIELD = 1, 2
FULL = 32_000  # 100 % of the capacity
_SHARE = 0x0020  # measure; the setpoint follows
_FSETPOINT = 0xA118
_WORDS = Struct(">HH")
_FLOAT = Struct(">f")


class GasBronkhorst(ModbusTcp):
    """Unit 1 carries the powder, unit 2 shields the pool. Flows in L/min."""

    channel = "gas"
    functions = frozenset((3, 4, 6, 16))

    def __init__(self, sim: Scheduler, world: World, greatest_l_min: float = 30.0) -> None:
        super().__init__(sim, world)
        self.greatest_l_min = greatest_l_min
        self.blocks = {
            unit: (Block(_SHARE, 2), Block(0xA100, 2), Block(_FSETPOINT, 2))
            for unit in (CARRIER, SHIELD)
        }

    @classmethod
    def fitted(cls, sim: Scheduler, world: World, cell: CellFile, section: str) -> Self:
        return cls(sim, world, cell.greatest_gas_l_min)

    def refresh(self, unit: int) -> None:
        world = self.world
        if unit == CARRIER:
            flow_l_min, set_l_min = world.carrier_l_min, world.carrier_set_l_min
        else:
            flow_l_min, set_l_min = world.shield_l_min, world.shield_set_l_min
        share, measured, setpoint = self.blocks[unit]
        counts = [round(FULL * v / self.greatest_l_min) for v in (flow_l_min, set_l_min)]
        _WORDS.pack_into(share.data, 0, *[min(41_942, max(0, c)) for c in counts])
        _FLOAT.pack_into(measured.data, 0, flow_l_min)
        _FLOAT.pack_into(setpoint.data, 0, set_l_min)

    def write_registers(self, unit: int, address: int, values: tuple[int, ...]) -> None:
        if address == _SHARE + 1 and len(values) == 1:
            if values[0] > FULL:
                raise ModbusError(ILLEGAL_VALUE)
            set_l_min = values[0] / FULL * self.greatest_l_min
        elif address == _FSETPOINT and len(values) == 2:
            (set_l_min,) = _FLOAT.unpack(_WORDS.pack(*values))
            if not 0.0 <= set_l_min <= self.greatest_l_min:  # refuses NaN too
                raise ModbusError(ILLEGAL_VALUE)
        else:
            raise ModbusError(ILLEGAL_ADDRESS)
        if unit == CARRIER:
            self.world.carrier_set_l_min = set_l_min
        else:
            self.world.shield_set_l_min = set_l_min

"""Powder feeder behind the fictitious register map (docs/reference/device-protocols.md, section 5).

No maker publishes a map: this device exists in the simulated cell only.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from hil_sim.devices.modbus import (
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    Block,
    ModbusError,
    ModbusTcp,
)

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.hidden import Hidden
    from hil_sim.plant.world import World

_REGISTERS = Struct(">HHHH24xHHHHHH")  # 0 to 3, 4 to 15 reserved, 16 to 21
_GREATEST = (1000, 1000, 3, 1)  # of the four registers that can be written

HOPPER_1_STALLED = 1 << 0
HOPPER_2_STALLED = 1 << 1
READY = 1 << 2

G_PER_REV = (2.00, 1.80)  # g/min per rpm, hopper 1 and 2


class FeederMap(ModbusTcp):
    """Two hoppers with metering discs, a diverter, a scale each.

    Fault hook besides those of the wire: `not_ready`.
    """

    channel = "powder"
    functions = frozenset((3, 6, 16))

    def __init__(self, sim: Scheduler, world: World) -> None:
        super().__init__(sim, world)
        self._block = Block(0, 22)
        self.blocks = {1: (self._block,)}
        self._set = [0, 0, 0, int(world.diverter_to_nozzle)]
        self.not_ready = False
        self.hidden: Hidden | None = None  # how much the discs truly give; None: as calibrated

    def _g_per_rev(self, hopper: int) -> float:
        """What a hopper's disc truly gives at its set speed, g/min per rpm."""
        share = 1.0
        if self.hidden is not None:
            share = self.hidden.flow_share(hopper, self._set[hopper] / 100.0)
        return G_PER_REV[hopper] * share

    def refresh(self, unit: int) -> None:
        world = self.world
        status = 0 if self.not_ready else READY
        if world.hopper_stalled[0]:
            status |= HOPPER_1_STALLED
        if world.hopper_stalled[1]:
            status |= HOPPER_2_STALLED
        mass_g = world.hopper_mass_g
        _REGISTERS.pack_into(
            self._block.data,
            0,
            *self._set,
            self._actual_speed(0),
            self._actual_speed(1),
            status,
            min(65535, max(0, round(mass_g[0]))),
            min(65535, max(0, round(mass_g[1]))),
            0,
        )

    def _actual_speed(self, hopper: int) -> int:
        """Disc speed, 0.01 rpm: what the outlet flow amounts to, by the calibration."""
        world = self.world
        if world.hopper_stalled[hopper]:
            return 0
        if world.hopper_mass_g[hopper] <= 0.0:  # an empty hopper's disc turns all the same
            return self._set[hopper] if self._set[2] >> hopper & 1 else 0
        speed = round(100.0 * world.hopper_flow_g_min[hopper] / self._g_per_rev(hopper))
        return min(65535, max(0, speed))

    def write_registers(self, unit: int, address: int, values: tuple[int, ...]) -> None:
        if address + len(values) > len(_GREATEST):
            raise ModbusError(ILLEGAL_ADDRESS)
        for register, value in enumerate(values, address):
            if value > _GREATEST[register]:
                raise ModbusError(ILLEGAL_VALUE)
        self._set[address : address + len(values)] = values
        world = self.world
        for hopper in (0, 1):
            running = self._set[2] >> hopper & 1
            flow_g_min = self._set[hopper] / 100.0 * self._g_per_rev(hopper) if running else 0.0
            world.hopper_set_g_min[hopper] = flow_g_min
        world.diverter_to_nozzle = self._set[3] == 1

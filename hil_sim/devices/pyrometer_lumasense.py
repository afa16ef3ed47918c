"""LumaSense ISR 12-LO two-colour pyrometer, UPP (docs/reference/device-protocols.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hil_sim.devices.base import LineEmulator

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

ADDRESS = b"00"
BELOW_RANGE = b"00000"
OVER_RANGE = b"88880"


class PyrometerLumasense(LineEmulator):
    """Ratio temperature of the melt pool in 0.1 degC; one-colour temperature the same.

    Fault hook besides those of the wire: `forced`, five bytes that stand in place of every
    temperature (a code of the page such as b"77770", or `last` for a frozen value).
    """

    channel = "pyrometer"

    def __init__(
        self,
        sim: Scheduler,
        world: World,
        least_deg_c: float = 600.0,
        most_deg_c: float = 2300.0,
    ) -> None:
        super().__init__(sim, world)
        self.least_deg_c = least_deg_c
        self.most_deg_c = most_deg_c
        self.forced: bytes | None = None
        self.last = BELOW_RANGE

    @classmethod
    def fitted(cls, sim: Scheduler, world: World, cell: CellFile, section: str) -> Self:
        return cls(sim, world, cell.pyrometer_least_deg_c, cell.pyrometer_most_deg_c)

    def on_line(self, line: bytes) -> bytes:
        if len(line) < 4 or line[:2] != ADDRESS:
            return b""  # another's address, or a syntax error: the maker keeps silent
        command = line[2:]
        if command == b"ms":
            return self._temperature() + b"\r"
        if command == b"ek":
            return 2 * self._temperature() + b"\r"
        if command == b"mb":
            return b"%04X%04X\r" % (round(self.least_deg_c), round(self.most_deg_c))
        if command == b"ve":
            return b"630126\r"
        return b"no\r"

    def _temperature(self) -> bytes:
        if self.forced is not None:
            return self.forced
        temp_deg_c = self.world.pool_temp_deg_c
        if temp_deg_c > self.most_deg_c:
            self.last = OVER_RANGE
        elif temp_deg_c >= self.least_deg_c:
            self.last = b"%05d" % round(10.0 * temp_deg_c)
        else:  # NaN too: no signal
            self.last = BELOW_RANGE
        return self.last

"""Sensortherm Metis two-colour pyrometer (docs/reference/device-protocols.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hil_sim.devices.base import LineEmulator

if TYPE_CHECKING:
    from typing import Self

    from hil_sim.cellfile import CellFile
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

ADDRESS = b"00"
OVER_RANGE = -1


class PyrometerSensortherm(LineEmulator):
    """Melt pool temperature in tenths of a degree, hexadecimal and, by the old command, decimal.

    Fault hook besides those of the wire: ``forced``, tenths that stand in place of every
    temperature (`OVER_RANGE`, or `last` for a frozen value).
    """

    channel = "pyrometer"

    def __init__(
        self, sim: Scheduler, world: World, least_deg_c: float = 600.0, most_deg_c: float = 2300.0
    ) -> None:
        super().__init__(sim, world)
        self.least_deg_c = least_deg_c
        self.most_deg_c = most_deg_c
        self.forced: int | None = None
        self.last = 0

    @classmethod
    def fitted(cls, sim: Scheduler, world: World, cell: CellFile, section: str) -> Self:
        return cls(sim, world, cell.pyrometer_least_deg_c, cell.pyrometer_most_deg_c)

    def on_line(self, line: bytes) -> bytes:
        if line[:2] != ADDRESS:
            return b""  # another's address
        command = line[2:]
        if command in (b"mw0", b"mw1", b"mw2"):
            tenths = self._tenths()
            return (b"F000" if tenths == OVER_RANGE else b"%04X" % tenths) + b"\r"
        if command == b"ms":
            tenths = self._tenths()
            return (b"88880" if tenths == OVER_RANGE else b"%05d" % tenths) + b"\r"
        if command == b"mb":
            return b"%04X%04X\r" % (round(10 * self.least_deg_c), round(10 * self.most_deg_c))
        if command == b"ve":
            return b"380620\r"
        return b"no\r"

    def _tenths(self) -> int:
        if self.forced is not None:
            return self.forced
        temp_deg_c = self.world.pool_temp_deg_c
        if temp_deg_c > self.most_deg_c:
            self.last = OVER_RANGE
        elif temp_deg_c >= self.least_deg_c:
            self.last = round(10.0 * temp_deg_c)
        else:  # NaN too: the device shows the start of its range and no less
            self.last = round(10.0 * self.least_deg_c) - 1
        return self.last

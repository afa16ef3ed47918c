"""Ophir power meter, ASCII (docs/reference/device-protocols.md, section 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hil_sim.devices.base import LineEmulator

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World


class MeterOphir(LineEmulator):
    """A thermal head under the nozzle. Fault hooks besides the wire's: `unit`, `greatest_w`."""

    channel = "power_meter"

    def __init__(self, sim: Scheduler, world: World, greatest_w: float = 5000.0) -> None:
        super().__init__(sim, world)
        self.greatest_w = greatest_w
        self.unit = b"W"

    def on_line(self, line: bytes) -> bytes:
        command = line.strip(b" \n").upper()
        replies = {
            b"$II": b"* VEGA 113217 VEGA",
            b"$HI": b"* TH 12345 FL1100A 00000001",
            b"$SI": b"* " + self.unit,
        }
        if command == b"$SP":
            power_w = self.world.emission_w
            reply = b"*OVER" if power_w > self.greatest_w else b"*%.3E" % power_w
        elif command in replies:
            reply = replies[command]
        else:
            reply = b"?UC " + command.lstrip(b"$")
        return reply + b"\r\n"

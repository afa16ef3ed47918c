"""A world without a plant and the host's end of a wire, to test one emulator alone."""

from __future__ import annotations

from pathlib import Path

from hil_sim import cellfile
from hil_sim.clock import Scheduler
from hil_sim.devices.base import Emulator
from hil_sim.plant.world import World

CELL_FILE = Path(__file__).parents[2] / "configs/cells/sim.toml"


def make_world() -> World:
    """The truth of the default cell at power-up, without a plant that would change it."""
    return World(cellfile.load(CELL_FILE))


class Line:
    """The host's end of one emulator's wire: what was sent, and when it arrived."""

    def __init__(self, emulator: Emulator, sim: Scheduler) -> None:
        self.emulator = emulator
        self.sim = sim
        self.heard: list[tuple[int, bytes]] = []
        emulator.send = lambda data: self.heard.append((sim.now_us, data))
        emulator.opened()

    def ask(self, data: bytes, wait_us: int = 10_000) -> bytes:
        """Write `data`, let `wait_us` pass, return all that came back in that time."""
        first = len(self.heard)
        self.emulator.receive(data)
        self.sim.run(self.sim.now_us + wait_us)
        return b"".join(data for _, data in self.heard[first:])

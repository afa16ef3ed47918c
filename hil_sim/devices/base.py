"""What every device emulator shares: answering on the grid, and faults of the wire.

An emulator is a pure state machine on simulated time. Bytes come in by `receive` at the
scheduler's present instant; answers leave by `send`, which the wire sets, at a later instant.
It reads and writes the physical truth (`hil_sim/plant/world.py`) and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile
    from hil_sim.clock import Scheduler


class Emulator:
    """One device on one channel.

    The fault hooks are plain attributes which `hil_sim/faults.py` sets; booleans work as counts:

    - `mute`: the device hears and acts, but its answers are lost;
    - `garble`: so many bits of every answer are flipped, at places drawn from a fixed seed;
    - `delay_us`: answers come so much later (the order of answers stays);
    - `truncate`: so many bytes are missing at the end of every answer.
    """

    channel: str = ""

    @classmethod
    def fitted(cls, sim: Scheduler, world: Any, cell: CellFile, section: str) -> Self:
        """The device of a section of the cell file; more than a world is taken from there."""
        return cls(sim, world)

    def __init__(self, sim: Scheduler, world: Any) -> None:
        self.sim = sim
        self.world = world
        self.send: Callable[[bytes], None] = _nowhere
        self.mute: bool = False
        self.garble: int = 0
        self.delay_us: int = 0
        self.truncate: int = 0
        self._fault_random = random.Random(f"wire faults of {self.channel}")
        self._connection = 0
        self._last_due_us = 0

    def opened(self) -> None:
        """A host has connected: whatever the last one left half-sent is forgotten."""
        self._connection += 1

    def closed(self) -> None:
        """The host is gone: answers still on their way reach nobody."""
        self._connection += 1

    def receive(self, data: bytes) -> None:
        raise NotImplementedError

    def answer(self, data: bytes) -> None:
        """Send `data` at the next answer instant, through the faults of the wire."""
        if self.mute or not data:
            return
        if self.garble or self.truncate:
            data = self._damaged(data)
            if not data:
                return
        due_us = self.sim.grid(self.sim.now_us) + self.delay_us
        if due_us < self._last_due_us:
            due_us = self._last_due_us  # a shortened delay must not let answers overtake
        self._last_due_us = due_us
        connection = self._connection
        self.sim.at(due_us, lambda: self._emit(connection, data))

    def _emit(self, connection: int, data: bytes) -> None:
        if connection == self._connection:
            self.send(data)

    def _damaged(self, data: bytes) -> bytes:
        damaged = bytearray(data[: max(0, len(data) - int(self.truncate))])
        if damaged:
            for place in self._fault_random.sample(
                range(8 * len(damaged)), min(int(self.garble), 8 * len(damaged))
            ):
                damaged[place >> 3] ^= 1 << (place & 7)
        return bytes(damaged)


class LineEmulator(Emulator):
    """A device that speaks ASCII lines ended by CR."""

    longest_line = 128  # a device's input buffer; what is longer is dropped whole

    def __init__(self, sim: Scheduler, world: Any) -> None:
        super().__init__(sim, world)
        self._line = b""

    def opened(self) -> None:
        super().opened()
        self._line = b""

    def receive(self, data: bytes) -> None:
        data = self._line + data
        if data.endswith(b"\r"):
            lines = data[:-1].split(b"\r")
            self._line = b""
        else:
            *lines, self._line = data.split(b"\r")
            if len(self._line) > self.longest_line:
                self._line = b""
        replies = b"".join([self.on_line(line) for line in lines])
        if replies:
            self.answer(replies)

    def on_line(self, line: bytes) -> bytes:
        """The bytes that answer one line (without its CR); empty for silence."""
        raise NotImplementedError


def _nowhere(data: bytes) -> None:
    """Where answers go before a wire is attached."""

"""The virtual cell as an object in the host's own process: no sockets, no descriptors.

Speaks as the time server does on its socket, with bytes handed over as they are. Order of
delivery and of events is the same, so a build has the same record on null wires as on real
ones. The host takes it by name; neither side imports the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hil_sim import cellfile, faults
from hil_sim.cell import SimCell
from hil_sim.cellfile import CellFileError

__all__ = ["CellFileError", "NullCell"]


class NullCell:
    """A cell on null wires.

    Parameters
    ----------
    cell_path : the cell file
    scenario : path of a scenario file, or None for a run in which nothing breaks
    seed : of everything that varies
    out : folder for ``trace.mcap``, or None
    hidden : seed of truths that differ from the cell file, or None
    Raises CellFileError (its ScenarioError included) and OSError.
    """

    def __init__(
        self,
        cell_path: str | Path,
        scenario: str | Path | None = None,
        seed: int = 1,
        out: str | Path | None = None,
        hidden: int | None = None,
    ) -> None:
        self.cell = SimCell(
            cellfile.load(cell_path),
            faults.NOMINAL if scenario is None else faults.load(scenario),
            seed,
            None if out is None else Path(out),
            null=True,
            hidden=hidden,
        )
        self.channels = {number: end.name for number, end in self.cell.ends.items()}
        self._sim = self.cell.sim
        self._ends = self.cell.ends
        self._filled = next(iter(self._ends.values())).filled
        self._heard = False

    def opened(self, channel: int) -> None:
        """The host opened a channel."""
        self._heard = True
        self._ends[channel].opened()

    def closed(self, channel: int) -> None:
        """The host closed a channel."""
        self._heard = True
        self._ends[channel].closed()

    def wait(
        self, target_us: int, writes: list[tuple[int, bytes]]
    ) -> tuple[int, list[tuple[int, bytes | None]]]:
        """Take the host's bytes, run to the next instant that concerns it.

        Parameters
        ----------
        target_us : the host's next deadline, us
        writes : (channel, bytes), in the order of channels
        Returns (present time in us, deliveries in the order of channels); bytes None: that
        connection broke.
        """
        sim = self._sim
        for channel, data in writes:
            end = self._ends[channel]
            if end.is_open:
                end.receive(data)
        if (writes or self._heard) and sim.stepper is not None:
            sim.stepper.run(sim.now_us)  # answers that leave at this very instant
            self._heard = False
        deliveries: list[tuple[int, bytes | None]] = []
        while not deliveries:
            if not sim.emitted:
                sim.run(target_us)
            sim.emitted = False
            filled = self._filled
            if len(filled) > 1:
                filled.sort()
            for channel in filled:
                end = self._ends[channel]
                data = end.drain()
                if data:
                    deliveries.append((end.channel, data))
                if end.take_lost():
                    deliveries.append((end.channel, None))
            filled.clear()
            if target_us <= sim.now_us:
                break
        return sim.now_us, deliveries

    def tell(self, request: dict[str, Any]) -> dict[str, Any]:
        """A request of the control channel at the present instant (``faults.told``)."""
        return faults.told(self.cell, request)

    def finish(self) -> None:
        """The run ends at this instant: the trace is closed."""
        self.cell.close()

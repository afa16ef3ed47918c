"""The virtual cell: wires, firmware, devices, physics, faults and trace on one clock."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hil_sim import faults
from hil_sim.cellfile import CellFile, config_blob
from hil_sim.clock import Scheduler
from hil_sim.devices import build_emulators, channels_of
from hil_sim.devices.bench import Bench
from hil_sim.plant.hidden import as_told, drawn
from hil_sim.plant.plant import Plant, generator
from hil_sim.plant.surroundings import Surroundings
from hil_sim.plant.world import World
from hil_sim.trace import AnyTrace, NoTrace, Trace
from hil_sim.wires import NullEnd, TcpEnd, make_ends

MOTION = 0
FEEDER = 4
BENCH = 60  # above every device's number
INTERLOCK_INPUT = 0
LEAST_OFFSET, MOST_OFFSET = 2.0, 8.0  # mm or degrees of the axes from their home switches


class Firmware(Protocol):
    """The motion controller's firmware on simulated time (hil_sim/firmware.py)."""

    def rx(self, data: bytes) -> None: ...
    def run(self, until_us: int) -> int: ...
    def tx(self) -> bytes: ...
    def rows(self) -> np.ndarray: ...
    def samples(self) -> np.ndarray: ...
    def set_input(self, number: int, value: bool) -> None: ...
    def place(self, axis: int, steps: int) -> None: ...


class MotionBoard:
    """The firmware between its wire and the scheduler.

    Fault hook: ``garble``, so many bits of every piece of bytes are flipped, both ways.
    """

    def __init__(self, firmware: Firmware, end: Any) -> None:
        self.firmware = firmware
        self.garble = 0
        self.plant: Plant | None = None
        self._end = end
        self._reached_us = -1
        self._random = random.Random("wire faults of motion")
        end.on_data = self.receive

    def receive(self, data: bytes) -> None:
        """Bytes of the host, at the present instant."""
        self._reached_us = -1
        self.firmware.rx(self._damaged(data) if self.garble else data)

    def set_interlock(self, closed: bool) -> None:
        """The hardware chain's contact at the interlock input."""
        self._reached_us = -1
        self.firmware.set_input(INTERLOCK_INPUT, closed)

    def run(self, until_us: int) -> int:
        """Run to ``until_us`` or to the instant that sends bytes; the time reached."""
        if until_us == self._reached_us:
            return until_us
        while True:
            reached = self.firmware.run(until_us)
            data = self.firmware.tx()
            if data:
                self._end.send(self._damaged(data) if self.garble else data)
                break
            if reached >= until_us:
                break
            if self.plant is not None:  # its row buffers are nearly full
                self.plant.catch_up(reached)
        self._reached_us = reached
        return reached

    def _damaged(self, data: bytes) -> bytes:
        out = bytearray(data)
        places = min(self.garble, 8 * len(out))
        for place in self._random.sample(range(8 * len(out)), places):
            out[place >> 3] ^= 1 << (place & 7)
        return bytes(out)


class SimCell:
    """One virtual cell. ``ends`` are its wires by channel number, ``sim`` its clock.

    ``hidden``: seed of truths that differ from the cell file (hil_sim/plant/hidden.py); None:
    the file is the truth. ``out``: folder for ``trace.mcap``, or None. ``tcp_motion``: the
    motion wire is a TCP one, as real time wants it: bytes of a pseudo terminal pass through the
    kernel's workqueue, which a busy computer delays by up to 0.4 s (measured), whatever the
    priority of the two ends.
    Raises CellFileError and OSError.
    """

    def __init__(
        self,
        cell: CellFile,
        scenario: faults.Scenario = faults.NOMINAL,
        seed: int = 1,
        out: Path | None = None,
        *,
        null: bool = False,
        firmware: Firmware | None = None,
        hidden: int | None = None,
        tcp_motion: bool = False,
    ) -> None:
        self.cell = cell
        self.hidden = as_told(cell) if hidden is None else drawn(cell, hidden)
        self.scenario = scenario
        self.seed = seed
        self.sim = Scheduler()
        self.world = World(cell)
        if firmware is None:
            firmware = _controller(cell, seed)
        self.trace: AnyTrace = NoTrace() if out is None else Trace(out, self._header())
        channels = [(n, name, TcpEnd if tcp_motion and n == MOTION else kind)
                    for n, name, kind in channels_of(cell)]  # fmt: skip
        self.ends: dict[int, Any] = make_ends(self.sim, null=null, channels=channels)
        self.motion = MotionBoard(firmware, self.ends[MOTION])
        truth = self.hidden.applied(cell)
        self.plant = Plant(self.sim, self.world, truth, firmware, self.trace, seed)
        self.motion.plant = self.plant
        self.surroundings = Surroundings(self.sim, self.world, cell)
        self.sim.stepper = self.motion
        self.emulators = build_emulators(self.sim, self.world, cell)
        for channel, emulator in self.emulators.items():
            end = self.ends[channel]
            emulator.send = end.send
            end.on_data = emulator.receive
            end.on_opened = emulator.opened
            end.on_closed = emulator.closed
        self._bench(seed)
        self.world.on_chain = self._chain_changed
        self.world.on_laser_enabled = self.plant.laser_enabled
        self.motion.set_interlock(self.world.chain_closed)
        offsets = generator(seed, "axes")
        for number in range(cell.n_axes):
            offset = offsets.uniform(LEAST_OFFSET, MOST_OFFSET)
            firmware.place(number, round(offset * cell.steps_per_mm[number]))
        self._finished = False
        faults.install(scenario, self)

    def _bench(self, seed: int) -> None:
        """The instruments of commissioning, on a wire of their own."""
        self.bench = bench = Bench(self.sim, self.world, self.hidden, seed)
        self.plant.hidden = self.hidden
        self.plant.on_edge = bench.edge
        self.emulators[FEEDER].hidden = self.hidden  # type: ignore[attr-defined]
        other = self.ends[MOTION]
        kind = NullEnd if isinstance(other, NullEnd) else TcpEnd
        end = self.ends[BENCH] = kind(self.sim, BENCH, "bench")
        if isinstance(end, NullEnd):
            end.filled = other.filled
        bench.send = end.send
        end.on_data, end.on_opened, end.on_closed = bench.receive, bench.opened, bench.closed

    def end(self, name: str) -> Any:
        """The wire of a channel, by name."""
        return self.ends[self._channel(name)]

    def device(self, name: str) -> Any:
        """What is behind a wire, by channel name: an emulator, or the motion board."""
        channel = self._channel(name)
        return self.motion if channel == MOTION else self.emulators[channel]

    def _channel(self, name: str) -> int:
        """Raises KeyError where the cell has no such wire."""
        for number, end in self.ends.items():
            if end.name == name:
                return number
        raise KeyError(name)

    def finish(self) -> None:
        """End the run at the present instant: the trace gets its totals and its name."""
        if self._finished:
            return
        self._finished = True
        now_us = self.sim.now_us
        self.plant.catch_up(now_us)
        self.plant.flush(now_us)
        self.trace.close(now_us, {"t_us": now_us, **self.plant.totals()})

    def close(self) -> None:
        """Finish, and give the wires back."""
        self.finish()
        for end in self.ends.values():
            end.close()

    def _chain_changed(self, closed: bool) -> None:
        self.plant.chain_changed(closed)
        self.motion.set_interlock(closed)

    def _header(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "cell": self.cell.name,
            "scenario": self.scenario.name,
            "steps_per_mm": self.cell.steps_per_mm[: self.cell.n_axes],
            "rated_power_w": self.cell.rated_power_w,
            "gate_latency_us": self.cell.gate_latency_us + self.cell.gate_jitter_us,
            "heartbeat_timeout_us": self.cell.heartbeat_timeout_us,
        }


def _controller(cell: CellFile, seed: int) -> Firmware:
    """What drives the axes in this cell."""
    if cell.link == "grblhal":
        from hil_sim.devices.grblhal import GrblHal

        return GrblHal(cell)
    if cell.link == "supervised":
        from hil_sim.devices.cnc import Cnc

        return Cnc(cell)
    return _native_firmware(cell, seed)


def _native_firmware(cell: CellFile, seed: int) -> Firmware:
    from hil_sim.firmware import NativeFirmware  # the compiled library, only where it is run

    nonce = int(generator(seed, "boot").integers(1, 1 << 32))
    return NativeFirmware(config_blob(cell), nonce)

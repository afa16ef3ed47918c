"""Drives the kernel: every 10 ms a step of physics, every 100 ms a batch into the trace."""

from __future__ import annotations

import zlib
from typing import Any, Protocol

import numpy as np

from hil_sim.cellfile import CellFile
from hil_sim.clock import Scheduler
from hil_sim.plant._kernel import Kernel
from hil_sim.plant.hidden import Hidden
from hil_sim.plant.world import World
from hil_sim.trace import AnyTrace

TICK_US = 10_000
TICKS_PER_BATCH = 10
HEIGHT_CELL_MM = 0.25
MOST_HEIGHT_CELLS = 4_000_000
G_PER_REV = (2.00, 1.80)  # of the fictitious feeder; only the surge depends on it here

# Density of the deposit at room temperature, g/mm3: 316L ppak10/additive-manufacturing, IN718
# and Ti-6Al-4V MeltpoolNet, IN625 the usual data sheet figure. Others: a guess.
DENSITY_G_MM3 = {"316L": 7.91e-3, "IN625": 8.44e-3, "IN718": 8.19e-3, "Ti-6Al-4V": 4.47e-3}
DENSITY_GUESS_G_MM3 = 7.8e-3

# Rows of the firmware: kinds (native interface of the firmware)
GATE, SEGMENT_END, ARMED, STATE, FAULT, TRACK_START, BEAT, FAULT_RESET, HOLD = range(1, 10)
EVENT_NAMES = {
    ARMED: ("armed", "on"),
    STATE: ("state", "state"),
    FAULT: ("fault", "code"),
    FAULT_RESET: ("fault_reset", "code"),
    HOLD: ("hold", "mode"),
}
_EVENT_KINDS = sum(1 << kind for kind in EVENT_NAMES)


class FirmwareLog(Protocol):
    """What the plant takes from the firmware: drained with every call, 48 bytes an entry."""

    def rows(self) -> np.ndarray: ...

    def samples(self) -> np.ndarray: ...


def generator(seed: int, subsystem: str) -> np.random.Generator:
    """The random numbers of one subsystem: others drawing more or less do not shift them."""
    entropy = [seed, zlib.crc32(subsystem.encode())]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


class Plant:
    """Physics of one cell, fed by the firmware's own steps, gate edges and power."""

    def __init__(
        self,
        sim: Scheduler,
        world: World,
        cell: CellFile,
        firmware: FirmwareLog,
        trace: AnyTrace,
        seed: int,
    ) -> None:
        self.sim = sim
        self.world = world
        self.firmware = firmware
        self.trace = trace
        self.first_emission_us: int | None = None  # first gate edge
        self.on_first_emission: list[Any] = []  # callables, given the instant in us
        self.hidden: Hidden | None = None  # set by the cell: how the source answers
        # told of an edge at an output and of the light that follows it (us): gate or power
        self.on_edge: Any = None
        self._permitted = False
        self._source = (1.0, 0.0)  # share of the commanded power, light with the gate shut
        self._in_batch = 0
        self.origin_mm, self.height_cell_mm, self.heights_mm = _height_map(cell)
        densities = [DENSITY_G_MM3.get(h.powder, DENSITY_GUESS_G_MM3) for h in cell.hoppers] + [
            DENSITY_GUESS_G_MM3
        ]
        self.kernel = Kernel(
            rated_w=cell.rated_power_w,
            threshold_w=cell.threshold_power_w,
            resolution_bits=cell.resolution_bits,
            power_latency_us=cell.power_latency_us,
            power_jitter_us=cell.power_jitter_us,
            gate_latency_us=cell.gate_latency_us,
            gate_jitter_us=cell.gate_jitter_us,
            delay_s=cell.transport_delay_s,
            lag_s=cell.powder_lag_s,
            density_g_mm3=densities,
            g_per_rev=G_PER_REV,
            steps_per_mm=cell.steps_per_mm,
            # where the nozzle's tip is at step 0 of the linear axes, machine coordinates
            home_mm=[a.least_mm + t for a, t in zip(cell.axes, cell.tool_offset_mm, strict=True)],
            work_offset_mm=cell.work_offset_mm,
            turns=[("ABC".index(r.name), *r.centre_mm) for r in cell.rotary],
            inert=cell.inert_chamber,
            top_mm=cell.substrate_top_mm,
            origin_mm=self.origin_mm,
            cell_mm=self.height_cell_mm,
            heights_mm=self.heights_mm,
            laser_random=generator(seed, "laser"),
            powder_random=generator(seed, "powder"),
            pool_random=generator(seed, "pool"),
        )
        sim.every(TICK_US, self.tick)

    def catch_up(self, now_us: int) -> None:
        """Integrate the beam up to this instant, before something about it changes."""
        rows = self.firmware.rows()
        kinds = self.kernel.beam(now_us, rows, self.firmware.samples(), self._permitted)
        if kinds & 1 << GATE and self.on_edge is not None:
            t_us = int(rows["t_us"][rows["kind"] == GATE][-1])
            self.on_edge("gate", t_us, self.kernel.last_edge_us)
            self.on_edge("power", t_us, t_us + self.kernel.power_latency_now_us)
        if kinds & (_EVENT_KINDS | 1 << GATE):
            self._tell(rows, kinds)
        self._refresh()

    def tick(self) -> None:
        """One step of 10 ms at the scheduler's present instant."""
        now_us = self.sim.now_us
        self.catch_up(now_us)
        self.kernel.tick(self.world, self.world.chain_closed)
        self._in_batch += 1
        if self._in_batch == TICKS_PER_BATCH:
            self.flush(now_us)

    def chain_changed(self, closed: bool) -> None:
        """The safety chain opened or closed: the beam follows in the same instant."""
        now_us = self.sim.now_us
        self.catch_up(now_us)
        if not closed:
            self.world.emission_w = 0.0
        self.trace.event(now_us, "chain", closed=int(closed))

    def laser_enabled(self, on: bool) -> None:
        """The source was told to permit emission, or not to."""
        now_us = self.sim.now_us
        self.catch_up(now_us)
        if not on:
            self.world.emission_w = 0.0
        self.trace.event(now_us, "laser_enabled", on=int(on))

    def flush(self, now_us: int) -> None:
        """Hand the rows since the last batch to the trace."""
        self._in_batch = 0
        kernel = self.kernel
        self.trace.rows("/trace/plant", now_us, kernel.take_plant_rows())
        self.trace.rows("/trace/segment_ends", now_us, kernel.take_segment_ends())
        self.trace.rows("/trace/gate", now_us, kernel.take_gate_rows())

    def totals(self) -> dict[str, float]:
        """Sums since power-up, for the trace's end."""
        world = self.world
        return {
            "energy_j": world.energy_j,
            "emission_s": world.emission_s,
            "fed_g": world.fed_g,
            "wasted_g": world.wasted_g,
            "deposited_g": world.deposited_g,
            "hose_g": self.kernel.hose_g,
            "highest_mm": float(self.heights_mm.max()),
            "deposit_mm3": float(self.heights_mm.sum() * self.height_cell_mm**2),
        }

    def _refresh(self) -> None:
        world = self.world
        self._permitted = world.laser_enabled and world.chain_closed and world.supply_relay_on
        stray_w = world.stray_w if world.supply_relay_on else 0.0
        share = world.source_share
        if self.hidden is not None:
            share *= self.hidden.light_share(world.power_command_w)
        if (share, stray_w) != self._source:
            self._source = (share, stray_w)
            self.kernel.break_source(*self._source)

    def _tell(self, rows: np.ndarray, kinds: int) -> None:
        """Rare rows become events of the trace; the first gate edge starts fault clocks."""
        if self.first_emission_us is None and kinds & 1 << GATE:
            for row in rows:
                if row["kind"] == GATE and row["arg"]:
                    self.first_emission_us = int(row["t_us"])
                    for call in self.on_first_emission:
                        call(self.first_emission_us)
                    break
        if kinds & _EVENT_KINDS:
            for row in rows:
                name = EVENT_NAMES.get(int(row["kind"]))
                if name is not None:
                    self.trace.event(
                        int(row["t_us"]),
                        name[0],
                        **{name[1]: int(row["arg"])},
                        segment=int(np.int32(row["segment"])),
                    )


def _height_map(cell: CellFile) -> tuple[tuple[float, float], float, np.ndarray]:
    """Lower left corner (mm), edge of a cell (mm) and heights (ny, nx) above the substrate."""
    width_mm, depth_mm = cell.substrate_size_mm
    edge_mm = HEIGHT_CELL_MM
    while width_mm * depth_mm / edge_mm**2 > MOST_HEIGHT_CELLS:
        edge_mm *= 2.0
    shape = (max(1, round(depth_mm / edge_mm)), max(1, round(width_mm / edge_mm)))
    x_mm, y_mm = cell.substrate_center_mm
    return (x_mm - width_mm / 2, y_mm - depth_mm / 2), edge_mm, np.zeros(shape)

"""The bench of instruments that commissioning brings to a cell (fictitious, made up here).

A data logger with a balance under the nozzle, a power meter, a two-channel edge recorder, a
laser interferometer on each axis, a flow standard, reference gases, a black body; and a person
who lays gauges, reads them, flushes the analyser with the gases and opens the door. No maker
sells it: each instrument of a real bench comes with its own software, whose readings
``lmd calibrate --readings FILE`` takes.

Lines end with CR. ``LOG name from`` answers up to 40 samples from a running number on,
``TIME`` its clock, ``COUNT name`` how many samples there are, ``MEASURE name`` the rows that a
person writes down, ``FLOW carrier|shield`` the flow standard, ``DOOR 0|1`` opens or closes the
door.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hil_sim.devices.base import LineEmulator

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.hidden import Hidden
    from hil_sim.plant.world import World

SAMPLE_US = 100_000
BALANCE_NOISE_G = 0.003
POWER_NOISE = 0.002  # share of the reading
INTERFEROMETER_MM = 0.0005
MOST_ROWS = 40
KEPT = 50_000


class Bench(LineEmulator):
    """One channel, all instruments. Times are microseconds of the logger's own clock."""

    channel = "bench"

    def __init__(self, sim: Scheduler, world: World, hidden: Hidden, seed: int) -> None:
        super().__init__(sim, world)
        self.hidden = hidden
        self._random = np.random.Generator(np.random.PCG64([seed, 0xBE]))
        self._logs: dict[str, list[str]] = {k: [] for k in ("balance", "power", "edges", "place")}
        self._direction = [0, 0, 0]
        self._before = (world.x_mm, world.y_mm, world.z_mm)
        sim.every(SAMPLE_US, self.sample)

    # --- what runs by itself -------------------------------------------------------------

    def _noise(self, sigma: float) -> float:
        return float(self._random.normal(0.0, sigma))

    def _keep(self, log: str, *values: float) -> None:
        rows = self._logs[log]
        if len(rows) < KEPT:
            rows.append(",".join([str(self.sim.now_us), *(f"{v:.6g}" for v in values)]))

    def sample(self) -> None:
        """Ten times a second: balance, power meter and interferometer."""
        world = self.world
        self._keep("balance", round(world.fed_g + self._noise(BALANCE_NOISE_G), 3))
        self._keep("power", world.emission_w * (1.0 + self._noise(POWER_NOISE)))
        here = (world.x_mm, world.y_mm, world.z_mm)
        for k in range(3):
            step = here[k] - self._before[k]
            if abs(step) > 1e-6:
                self._direction[k] = 1 if step > 0 else -1
        self._before = here
        self._keep(
            "place",
            *(
                here[k] * self.hidden.axis_scale[k]
                - self._direction[k] * self.hidden.backlash_mm[k] / 2
                + self._noise(INTERFEROMETER_MM)
                for k in range(3)
            ),
        )

    def edge(self, signal: str, command_us: float, light_us: float) -> None:
        """The edge recorder saw an output change and the light follow."""
        rows = self._logs["edges"]
        if len(rows) < KEPT:
            rows.append(f"{signal},{command_us:.1f},{light_us:.1f}")

    # --- lines ---------------------------------------------------------------------------

    def on_line(self, line: bytes) -> bytes:
        words = line.decode("ascii", "replace").split()
        name = words[0].upper() if words else ""
        try:
            if name == "ID?":
                return b"LMD BENCH SIM 1\r"
            if name == "LOG":
                rows = self._logs[words[1]][int(words[2]) :][:MOST_ROWS]
                return f"LOG {len(rows)} {';'.join(rows)}\r".encode()
            if name == "TIME":
                return f"TIME {self.sim.now_us}\r".encode()
            if name == "COUNT":
                return f"COUNT {len(self._logs[words[1]])}\r".encode()
            if name == "MEASURE":
                rows = [",".join(f"{v:.6g}" for v in row) for row in _MEASURES[words[1]](self)]
                return f"MEASURE {len(rows)} {';'.join(rows)}\r".encode()
            if name == "FLOW":
                return f"FLOW {self._flow(words[1]):.5g}\r".encode()
            if name == "DOOR":
                self.world.door_closed = words[1] == "1"
                return b"DOOR DONE\r"
        except (KeyError, IndexError, ValueError):
            pass
        return b"ERR not understood\r"

    def _flow(self, which: str) -> float:
        k = {"carrier": 0, "shield": 1}[which]
        told = self.world.carrier_l_min if k == 0 else self.world.shield_l_min
        true = told * self.hidden.gas_scale[k] + self.hidden.gas_offset_l_min[k]
        return max(0.0, true) * (1.0 + self._noise(0.001))

    # --- what a person reads -------------------------------------------------------------

    def _centring(self) -> list[tuple[float, ...]]:
        x, y = self.hidden.jet_offset_mm
        rows: list[tuple[float, ...]] = []
        for n in range(9):
            mark = (20.0 + 5 * n + self._noise(0.005), 40.0 + self._noise(0.005))
            jet = (20.0 + 5 * n - x + self._noise(0.02), 40.0 - y + self._noise(0.02))
            rows.append((*mark, *jet))
        return rows

    def _sphere(self) -> list[tuple[float, ...]]:
        rows = []
        for n in range(13):
            up = math.radians(15 + 25 * (n % 3))
            round_ = math.radians(360 / 13 * n)
            way = (math.cos(up) * math.cos(round_), math.cos(up) * math.sin(round_), math.sin(up))
            rows.append(
                tuple(
                    t + 12.5 * w + self._noise(0.003)
                    for t, w in zip(self.hidden.tool_mm, way, strict=True)
                )
            )
        return rows

    def _table(self) -> list[tuple[float, ...]]:
        u, v = self.hidden.table_mm
        return [
            (
                a,
                u + 60 * math.cos(math.radians(a)) + self._noise(0.004),
                v + 60 * math.sin(math.radians(a)) + self._noise(0.004),
            )
            for a in range(0, 360, 30)
        ]

    def _blocks(self) -> list[tuple[float, ...]]:
        zero = self.hidden.standoff_zero_mm
        return [(h, zero + h + self._noise(0.004)) for h in (5.0, 10.0, 15.0, 20.0, 25.0)]

    def _caustic(self) -> list[tuple[float, ...]]:
        h = self.hidden
        return [
            (
                z,
                h.waist_mm
                * math.hypot(1.0, (z - h.focus_z_mm) / h.rayleigh_mm)
                * (1 + self._noise(0.004)),
            )
            for z in range(-20, 21, 2)
        ]

    def _target(self) -> list[tuple[float, ...]]:
        turn = math.radians(self.hidden.camera_deg)
        c, s = math.cos(turn), math.sin(turn)
        rows: list[tuple[float, ...]] = []
        for x in (60.0, 320.0, 580.0):
            for y in (60.0, 240.0, 420.0):
                px, py = x + self._noise(0.3), y + self._noise(0.3)
                k = self.hidden.mm_per_px
                rows.append((px, py, k * (c * x - s * y), k * (s * x + c * y)))
        return rows

    def _black_body(self) -> list[tuple[float, ...]]:
        h = self.hidden
        return [
            (t, 1000 + h.pyrometer_offset_k + h.pyrometer_slope * (t - 1000) + self._noise(1.5))
            for t in (900.0, 1100.0, 1300.0, 1500.0, 1700.0, 1900.0, 2100.0)
        ]

    def _oxygen(self) -> list[tuple[float, ...]]:
        h = self.hidden
        return [
            (ppm, h.oxygen_offset_ppm + h.oxygen_slope * ppm + self._noise(0.3))
            for ppm in (0.0, 0.0, 0.0, 100.0, 100.0, 100.0)
        ]


_MEASURES: dict[str, Callable[[Bench], list[Any]]] = {
    "centring": Bench._centring,
    "tool_centre": Bench._sphere,
    "rotary": Bench._table,
    "standoff": Bench._blocks,
    "focus": Bench._caustic,
    "camera": Bench._target,
    "pyrometer": Bench._black_body,
    "oxygen": Bench._oxygen,
}

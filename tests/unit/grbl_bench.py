"""A grblHAL link and the emulated controller on null wires, in simulated time."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np

from controller.clock import NullTime, VirtualLoop
from firmware_bridge.grbl_link import GrblLink
from firmware_bridge.grbl_settings import GrblSettings
from firmware_bridge.link_types import AxisSettings, LinkSettings, ProgramLine
from firmware_bridge.segments import SEGMENT
from firmware_bridge.transport import NullPort
from hil_sim.null import NullCell

CELL = Path(__file__).resolve().parents[2] / "configs" / "cells" / "sim_grblhal.toml"
SETTINGS = LinkSettings(
    axes=(
        AxisSettings(400.0, 120.0, 2000.0, 0.0, 300.0),
        AxisSettings(400.0, 120.0, 2000.0, 0.0, 300.0),
        AxisSettings(400.0, 40.0, 500.0, 0.0, 250.0),
    ),
    total_accel_mm_s2=2000.0,
    plan_share=0.8,
    longest_emission_s=600.0,
)
HEAD = ("G21 G90 G17 G94 G54", "M5", "M4 S0")
GATE = 1


def program(moves: list[tuple[str, bool]]) -> tuple[list[ProgramLine], np.ndarray]:
    """Head, moves (text, gate) and foot; each move stands for one segment of 0.1 s."""
    lines = [ProgramLine(text, 0) for text in HEAD]
    track = -1
    lit = False
    for n, (text, gate) in enumerate(moves):
        track += gate and not lit
        lit = gate
        lines.append(ProgramLine(text, n, max(track, 0), gate))
    lines += [ProgramLine(text, len(moves), max(track, 0)) for text in ("M5", "M2")]
    segments = np.zeros(len(moves), SEGMENT)
    segments["ticks_lo"] = 100_000 & 0xFFFF
    segments["ticks_hi"] = 100_000 >> 16
    return lines, segments


def bead(y_mm: float = 20.0, s: int = 500) -> list[tuple[str, bool]]:
    """Travel, run-up, 20 mm of bead at 10 mm/s, overrun."""
    return [
        (f"G0 X10 Y{y_mm:g} Z12", False),
        ("G1 X11 F600 S0", False),
        (f"X21 S{s}", True),
        ("X31", True),
        ("X32 S0", False),
    ]


class Bench:
    """``link`` talks to ``controller``; ``cell`` is the whole simulated cell around it."""

    def __init__(self, own: GrblSettings | None = None, cell_file: Path = CELL) -> None:
        self.null = NullCell(cell_file, seed=5)
        self.cell = self.null.cell
        self.controller: Any = self.cell.motion.firmware
        self.link = GrblLink(
            NullPort("motion", 0), SETTINGS, own or GrblSettings(gate_watchdog=True)
        )
        self.events: list[Any] = []
        self.gate: list[tuple[int, int]] = []  # us, on
        self.power: list[tuple[int, int]] = []  # us, 1/65535
        self.place: list[tuple[int, float, float]] = []
        self.cell.world.laser_enabled = True
        take_rows, take_samples = self.controller.rows, self.controller.samples

        def rows() -> np.ndarray:
            got = take_rows()
            self.gate += [(int(r["t_us"]), int(r["arg"])) for r in got if r["kind"] == GATE]
            return got

        def samples() -> np.ndarray:
            got = take_samples()
            self.power += zip(got["t_us"].tolist(), got["power"].tolist(), strict=True)
            xy = (got["pos"][:, :2] / 400.0).tolist()
            self.place += [(t, x, y) for t, (x, y) in zip(got["t_us"].tolist(), xy, strict=True)]
            return got

        self.controller.rows, self.controller.samples = rows, samples

    def run(self, body: Coroutine[Any, Any, Any]) -> Any:
        """Run on virtual time, with a sign of life each 10 ms."""
        loop = VirtualLoop(NullTime(self.null))
        asyncio.set_event_loop(loop)
        self.alive = True

        async def beat() -> None:
            while True:
                if self.alive and self.link.status is not None:
                    self.link.token()
                await asyncio.sleep(0.01)

        async def whole() -> Any:
            self.link.on_event = self.events.append
            beats = loop.create_task(beat())
            try:
                return await asyncio.wait_for(body, 300.0)
            finally:
                assert not beats.done(), beats.exception()
                beats.cancel()
                self.link.close()

        try:
            return loop.run_until_complete(whole())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def ready(self) -> None:
        """Connected, homed, armed."""
        await self.link.connect()
        await self.link.home()
        await self.link.arm()

    async def build(self, moves: list[tuple[str, bool]]) -> None:
        """A program from start to end."""
        self.link.load_program(*program(moves))
        self.link.start()
        await self.until(lambda: self.link.finished)

    async def until(self, test: Any, limit_s: float = 60.0) -> None:
        """Wait until it is so."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        while not test():
            assert loop.time() < end_s, self.link.status
            await asyncio.sleep(0.005)

"""A whole cell in this process on null wires: what the server puts together, without its socket.

Firmware, emulators, physics and trace are the simulator's; drivers, motion link, supervisor,
record and API commands the host's. A script drives it as a client would; ``Outcome`` holds
what the host says of itself, ``Outcome.run`` the simulator's trace.
"""

import asyncio
import functools
import re
import shutil
import tempfile
import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from controller import config
from controller.api.commands import Commands
from controller.api.serve import (
    Recorders,
    ServeSettings,
    boot,
    load_job,
    null_channels,
)
from controller.api.server import Caller
from controller.clock import Clock, NullTime, VirtualLoop
from controller.config import load_cell
from controller.machine.cell import CellDevices, make_link, ports_of
from controller.machine.executor import Executor
from controller.planning import write_job
from controller.session import prepare_plan
from hil_sim import faults
from hil_sim.null import NullCell
from tests.hil import oracle
from tests.hil.whole_cell import write_box
from tests.unit.sim_host import ROOT, near_cell

SCENARIOS = ROOT / "configs" / "scenarios"
ME = Caller("engineer", "test")


@dataclass
class Outcome:
    """What was seen of one run; times in us of the machine, which are the trace's."""

    folder: Path
    states: list[tuple[int, str]] = field(default_factory=list)
    alarms: list[tuple[int, str]] = field(default_factory=list)
    injected_us: int = -1

    @functools.cached_property
    def run(self) -> oracle.Run:
        return oracle.read(self.folder / "trace.mcap")

    @property
    def gate(self) -> np.ndarray:
        return self.run.rows["/trace/gate"]

    @property
    def plant(self) -> np.ndarray:
        return self.run.rows["/trace/plant"]

    @property
    def onset_us(self) -> int:
        """When the scenario's fault came; told by the trace."""
        return next(int(e["t_us"]) for e in self.run.events if e["kind"] == "fault_injected")

    def names(self) -> list[str]:
        return [name for _, name in self.alarms]

    def first(self, kind: str, from_us: int, **fields: Any) -> int | None:
        """Instant of the first event of a kind in the trace, from an instant on."""
        for event in self.run.events:
            told = event["kind"] == kind and int(event["t_us"]) >= from_us
            if told and all(event.get(k) == v for k, v in fields.items()):
                return int(event["t_us"])
        return None

    def dark_us(self, from_us: int) -> int:
        """When the gate shut for good from an instant on; the instant itself if it was shut."""
        after = self.gate[self.gate["t_us"] >= from_us]
        before = self.gate[self.gate["t_us"] < from_us]
        if not len(after):
            assert not len(before) or not before[-1]["on"], "the gate never shut"
            return from_us
        assert not after[-1]["on"], "the gate never shut"
        return int(after[-1]["t_us"])


class Session:
    """What a script has in hand while the cell runs."""

    def __init__(self, null: NullCell, ex: Executor, commands: Commands, out: Outcome) -> None:
        self.null, self.ex, self.commands, self.out = null, ex, commands, out
        self._methods = commands.methods()
        self.world = null.cell.world

    async def call(self, name: str, **params: Any) -> Any:
        """One command of the API."""
        return await self._methods[name][1](ME, params)

    async def until(self, *states: str, limit_s: float = 60.0) -> str:
        """Let time run until the machine is in one of these states."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        while self.ex.state.name not in states:
            if loop.time() > end_s:
                raise AssertionError(f"{self.ex.state.name} for {limit_s:g} s, not {states}")
            await asyncio.sleep(0.01)
        return self.ex.state.name

    async def emitting(self, seconds: float) -> None:
        """Start, and be some time behind the first emission."""
        await self.start()
        for _ in range(3000):
            if self.world.gate_on:
                await self.pass_s(seconds)
                return
            await asyncio.sleep(0.01)
        raise AssertionError("no emission within 30 s")

    async def pass_s(self, seconds: float) -> None:
        """Let time run."""
        await asyncio.sleep(seconds)

    def inject(self, text: str, on: bool = True) -> faults.Fault:
        """A fault at this instant, as the text of a table; the trace is told."""
        scenario = faults.from_tables(
            tomllib.loads(f'name = "x"\n[[fault]]\nat = "0 s"\n{text}'), "test"
        )
        (fault,) = scenario.faults
        self.act(fault, on)
        return fault

    def act(self, fault: faults.Fault, on: bool) -> None:
        cell = self.null.cell
        kind = "fault_injected" if on else "fault_cleared"
        cell.trace.event(cell.sim.now_us, kind, device=fault.device, fault=fault.kind)
        faults.KINDS[fault.device, fault.layer][fault.kind].act(cell, fault, on)
        if on and self.out.injected_us < 0:
            self.out.injected_us = self.ex.now_us()

    async def ready(self, job: Path | None) -> None:
        """IDLE, homed, a job loaded."""
        if self.ex.state.name != "IDLE":
            await self.call("reset")
            await self.until("IDLE")
        if job is not None:
            await self.call("load_job", path=str(job))
        await self.call("home")

    async def start(self, record: bool = True) -> None:
        await self.call("start", record_dir=str(self.out.folder) if record else None)

    async def end(self) -> str:
        """Wait for the end; a build that holds is stopped after a second, as ``lmd run`` does."""
        state = await self.until("HELD", "STOPPED", "ABORTED", "COMPLETE", limit_s=120.0)
        if state == "HELD":
            await self.pass_s(1.0)
            await self.call("stop")
            state = await self.until("STOPPED")
        return state


class _RunningLoop(VirtualLoop):
    """Time never stands still: a script waits in it, no client outside of it."""

    def freeze(self) -> None:
        """Nothing."""


Script = Callable[[Session], Awaitable[Any]]


@dataclass(frozen=True)
class Job:
    """A planned part with the cell it is for."""

    cell: Path
    job: Path
    plan: Any


@functools.cache
def small_job(material: str = "316L") -> Job:
    """A box of 8 x 4 x 1 mm on a plate near home; about 33 s, 4 layers. Made once."""
    folder = Path(tempfile.mkdtemp(prefix="lmd-faults-"))
    part = write_box(folder / "box.stl", (8.0, 4.0, 1.0))
    if material == "316L":
        cell = near_cell(folder)
        plan = prepare_plan(part, None, str(cell))
    else:
        cell = own_configs(folder / "configs", material)
        with mock.patch.object(config, "configs_dir", return_value=folder / "configs"):
            plan = prepare_plan(part, None, str(cell))
    job = folder / "job.lmdjob"
    write_job(plan, job)
    return Job(cell, job, plan)


def own_configs(folder: Path, material: str) -> Path:
    """A configuration folder for another alloy, out of the files of 316L; the cell's path.

    Figures of the alloy stay those of 316L: nothing here depends on them.
    """
    shutil.copytree(ROOT / "configs", folder)
    key = re.sub(r"[^a-z0-9]", "", material.lower())
    for path, new in (
        ("materials/316l.toml", f"materials/{key}.toml"),
        ("recipes/316l_general.toml", "recipes/316l_general.toml"),
    ):
        text = (folder / path).read_text().replace('"316L"', f'"{material}"')
        (folder / new).write_text(text)
    cell = near_cell(folder)
    cell.write_text(cell.read_text().replace('powder = "316L"', f'powder = "{material}"'))
    return cell


def scenario(name: str, **change: Any) -> faults.Scenario:
    """A scenario file, its one fault perhaps changed."""
    found = faults.load(SCENARIOS / f"{name}.toml")
    return replace(found, faults=tuple(replace(f, **change) for f in found.faults))


async def plain_build(s: Session) -> str:
    """Home, start, wait for the end."""
    await s.start()
    return await s.end()


def play(
    folder: Path,
    *,
    job: Job | None = None,
    faults_of: faults.Scenario | None = None,
    script: Script = plain_build,
    seed: int = 1,
    before: Script | None = None,
) -> Outcome:
    """Run a script on a fresh cell; the outcome when it has ended."""
    made = small_job() if job is None else job
    null = NullCell(made.cell, None, seed, folder)
    if faults_of is not None:
        faults.install(faults_of, null.cell)
    out = Outcome(folder)
    loop = _RunningLoop(NullTime(null))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        try:
            runner.run(_main(null, made, out, loop, script, before))
        finally:
            loop.finish()
    return out


async def _main(
    null: NullCell, made: Job, out: Outcome, loop: VirtualLoop, script: Script, before: Any
) -> None:
    cell, text = load_cell(str(made.cell))
    ports = ports_of(cell, null_channels())
    settings = ServeSettings(str(made.cell), out.folder, time_mode="null")
    executors: list[Executor] = []
    devices = CellDevices.of(
        cell,
        ports,
        lambda role, said: [ex.emit("device", {"device": role, "text": said}) for ex in executors],
    )
    link = make_link(cell, ports["motion"])
    recorders = Recorders(settings, True)
    ex = Executor(cell, text, link, devices, Clock(loop), open_record=recorders.open)
    executors.append(ex)

    def told(t_us: int, kind: str, data: Any) -> None:
        if kind == "state":
            out.states.append((t_us, data["new"]))
        elif kind == "alarm":
            out.alarms.append((t_us, data["name"]))

    ex.journal.listeners.append(told)
    commands = Commands(ex, lambda path: load_job(path, cell), {}, {})
    session = Session(null, ex, commands, out)
    try:
        await boot(ex, commands, home=False)
        if before is not None:
            await before(session)
        await session.ready(made.job)
        await script(session)
    finally:
        loop.release()
        await ex.end()

"""Many faults in one run of one cell: break, look, mend, recover, go on.

The cell is a process of its own on real ptys and TCP ports, or an object on null wires; the host
side is what the server puts together. Faults go through the simulator's control channel.
"""

import asyncio
import functools
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from controller.api.commands import Commands
from controller.api.protocol import CallError
from controller.api.serve import Recorders, ServeSettings, boot, load_job, null_channels
from controller.api.server import Caller
from controller.clock import Clock, NullTime, VirtualLoop, WireTime
from controller.config import load_cell
from controller.errors import LmdError
from controller.machine.cell import CellDevices, make_link, ports_of
from controller.machine.executor import Executor
from controller.planning import write_job
from controller.session import prepare_plan
from firmware_bridge.errors import BridgeError
from hil_sim.null import NullCell
from tests.hil.fault_cell import Job
from tests.hil.whole_cell import write_box
from tests.unit.sim_host import CELL, ROOT, near_cell

ME = Caller("engineer", "test")
PHASES = ("start-up", "first layer", "bead", "travel", "hold", "ending")
ENDED = ("HELD", "STOPPED", "ABORTED", "COMPLETE", "IDLE")
REFUSALS = (CallError, LmdError, BridgeError)
RECOVERY_S = 90.0
LONGEST_S = 12.0  # a fault stands at most so long
OFTEN_S = 0.01


@dataclass(frozen=True)
class Row:
    """A fault of the campaign with what the record must tell: one of ``first`` came first."""

    device: str
    layer: str
    kind: str
    first: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()
    least_s: float = 0.7  # the fault stands at least so long
    ends: tuple[str, ...] = ()  # states that the host may end in, in a bead; (): goes on
    phases: tuple[str, ...] = PHASES
    start_up_s: float = 0.9  # latest onset in the start-up

    @property
    def key(self) -> str:
        told = "".join(f" {k}={v}" for k, v in self.options)
        return f"{self.device} {self.layer} {self.kind}{told}"

    def ask(self, command: str, **change: Any) -> dict[str, Any]:
        return {
            "command": command,
            "device": self.device,
            "layer": self.layer,
            "kind": self.kind,
            "options": {**dict(self.options), **change},
        }


G, S, P = ("ABORTED",), ("STOPPED",), ("HELD",)
_CHAIN = ("CHAIN_OPEN", "FIRMWARE_FAULT")
_LINES = (
    ("wire", "cut", ()), ("wire", "unplug", ()), ("wire", "garble", (("bits", 3),)),
    ("wire", "truncate", (("bytes", 1),)), ("wire", "delay", (("delay", "5 s"),)),
    ("protocol", "silent", ()),
)  # fmt: skip


# A line without a check sum (ASCII, Modbus TCP) passes some garbled values as right ones, within
# their bounds: then what the value says may be told first, and the reaction is that alarm's.
_UNCHECKED = {
    "safety": ("ESTOP", "DOOR_OPEN", "CHAIN_OPEN", "SAFETY_WATCHDOG"),
    "powder": ("POWDER_STALLED", "POWDER_NOT_READY", "POWDER_LOW", "POWDER_STARVED"),
    "gas": ("CARRIER_LOW", "SHIELD_LOW"),
    "laser": ("LASER_FAULT", "LASER_NOT_READY", "LASER_POWER_LOW", "BACK_REFLECTION",
              "EMISSION_UNCOMMANDED"),
}  # fmt: skip
# The start sequence commands the devices, and meets the silence before their values are stale.
_AT_START = {"laser": ("LASER_REFUSED",)}
# At the end of a build a source that does not confirm "off" loses its supply: the chain opens.
_AT_END = {"laser": ("CHAIN_OPEN", "FIRMWARE_FAULT")}


def _lines(device: str, alarm: str, ends: tuple[str, ...]) -> list[Row]:
    rows = []
    for layer, kind, options in _LINES:
        odd = _UNCHECKED.get(device, ()) if kind in ("garble", "truncate") else ()
        also = ("HELD", "STOPPED", "ABORTED") if odd else ()
        rows.append(Row(device, layer, kind, (alarm, *odd), options, 1.4, (*ends, *also)))
    return rows


ROWS: tuple[Row, ...] = (
    Row("safety", "physics", "estop", ("ESTOP", *_CHAIN), ends=G),
    Row("safety", "physics", "door", ("DOOR_OPEN", *_CHAIN), ends=G),
    Row("motion", "wire", "cut", ("LINK_LOST",), ends=G),
    Row("motion", "wire", "unplug", ("LINK_LOST",), ends=G),
    Row("motion", "wire", "garble", ("LINK_LOST", "FIRMWARE_FAULT"), (("bits", 3),), ends=G),
    Row("motion", "wire", "delay", (), (("delay", "30 ms"),)),
    Row("motion", "wire", "lose", (), (("every", 9),)),
    Row("motion", "wire", "repeat", (), (("every", 5),)),
    Row("motion", "wire", "swap", (), (("every", 9),)),
    Row("laser", "physics", "back_reflection", ("BACK_REFLECTION",), ends=G),
    Row("laser", "physics", "stray_light", ("EMISSION_UNCOMMANDED",), ends=G,
        phases=("hold", "ending")),
    Row("laser", "physics", "fault", ("LASER_FAULT",), ends=S),
    Row("laser", "physics", "key", ("LASER_FAULT", "LASER_NOT_READY", "LASER_REFUSED"), ends=S),
    Row("laser", "physics", "weak", ("LASER_POWER_LOW",), ends=S, least_s=2.0),
    Row("laser", "protocol", "refuse", ("LASER_REFUSED",), phases=("start-up",), start_up_s=0.0),
    *_lines("laser", "LASER_SILENT", ("STOPPED", "ABORTED")),
    *_lines("chiller", "CHILLER_SILENT", S),
    *_lines("gas", "GAS_SILENT", S),
    *_lines("safety", "SAFETY_SILENT", S),
    *_lines("powder", "POWDER_SILENT", P),
    *_lines("pyrometer", "PYROMETER_LOST", P),
    *[Row("pyrometer", "protocol", k, ("PYROMETER_LOST",), ends=P, least_s=2.5)
      for k in ("no_signal", "saturated", "not_measuring", "frozen")],
    Row("chiller", "physics", "flow", ("CHILLER_FLOW", "CHILLER_ALARM"), ends=S),
    Row("chiller", "physics", "alarm", ("CHILLER_ALARM", "CHILLER_FLOW"), (("bit", 20),), ends=S),
    Row("chiller", "physics", "warm", ("COOLANT_WARM",), (("kelvin", 3.5),), 1.2, P),
    Row("chiller", "physics", "warm", ("COOLANT_HOT",), (("kelvin", 8.0),), ends=S),
    Row("powder", "physics", "stall", ("POWDER_STALLED", "POWDER_STARVED"), ends=P, least_s=1.2),
    Row("powder", "physics", "empty", ("POWDER_LOW",), (("left", "0 g"),), 1.2, P,
        ("first layer",)),
    Row("powder", "protocol", "not_ready", ("POWDER_NOT_READY",), ends=P, least_s=1.2),
    Row("gas", "physics", "carrier_supply", ("CARRIER_LOW",), ends=S, least_s=3.0),
    Row("gas", "physics", "shield_supply", ("SHIELD_LOW",), ends=P, least_s=3.0),
    Row("gas", "protocol", "flag", ("GAS_SILENT",), (("unit", 2), ("bit", 13)), 1.4, S),
    Row("safety", "protocol", "plc_error", ("SAFETY_WATCHDOG",), ends=S),
    Row("safety", "protocol", "watchdog", ("SAFETY_WATCHDOG",), ends=S),
    Row("head", "physics", "collision", ("HEAD_COLLISION",), ends=G),
    Row("head", "physics", "cooling", ("HEAD_COOLING",), ends=S),
    Row("head", "physics", "window_hot", ("WINDOW_HOT",), ends=S),
    Row("head", "physics", "window_dirty", ("WINDOW_DIRTY",), ends=S),
    Row("powder_line", "physics", "clogged", ("POWDER_STREAM_CLOGGED", "POWDER_BACK_PRESSURE"),
        ends=P, least_s=3.0),
    Row("room", "physics", "oxygen_low", ("ROOM_OXYGEN",), ends=S, least_s=1.2),
    Row("room", "physics", "extraction", ("EXTRACTION_OFF",), ends=P, least_s=1.2),
    Row("room", "physics", "air_low", ("SUPPLY_PRESSURE",), ends=P, least_s=1.2),
    Row("room", "physics", "argon_low", ("SUPPLY_PRESSURE",), ends=P, least_s=1.2),
    Row("room", "physics", "ups_on_battery", ("UPS_ON_BATTERY",), ends=P, least_s=1.2),
    Row("drives", "physics", "following_error", ("FOLLOWING_ERROR",), ends=G),
    Row("chamber", "physics", "dew_point", ("COOLANT_DEW",), ends=P, least_s=3.0),
)  # fmt: skip


@dataclass
class Tried:
    """One fault of a run, as the host tells of it."""

    row: Row
    phase: str
    onset_us: int
    cleared_us: int
    state: str  # at the fault's end
    first_out: str
    wrong: str = ""
    record: Path | None = None


FULL = ROOT / "configs" / "cells" / "sim_full.toml"


@functools.cache
def quick_job(full: bool = False) -> Job:
    """A small box, two layers; its powder needs no time. ``full``: a cell with every device."""
    folder = Path(tempfile.mkdtemp(prefix="lmd-campaign-"))
    with mock.patch("tests.unit.sim_host.CELL", FULL if full else CELL):
        cell = _near(folder)
    plan = prepare_plan(write_box(folder / "box.stl", (6.0, 3.0, 0.6)), None, str(cell))
    write_job(plan, folder / "job.lmdjob")
    return Job(cell, folder / "job.lmdjob", plan)


def _near(folder: Path) -> Path:
    return near_cell(
        folder,
        transport_delay='transport_delay = "0.1 s"',
        lag='lag = "0.05 s"',
        center='center = ["15 mm", "12 mm"]',
        size='size = ["28 mm", "22 mm"]',
    )


class Cell:
    """What a campaign has in hand while the cell runs."""

    def __init__(
        self, ex: Executor, commands: Commands, tell: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        self.ex, self._methods, self._tell = ex, commands.methods(), tell

    async def call(self, name: str, **params: Any) -> Any:
        return await self._methods[name][1](ME, params)

    def tell(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self._tell(request)
        if not answer["ok"]:
            raise AssertionError(answer["error"])
        return answer

    async def until(self, test: Callable[[], bool], limit_s: float) -> bool:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        while not test():
            if loop.time() > end_s:
                return False
            await asyncio.sleep(OFTEN_S)
        return True

    @property
    def state(self) -> str:
        return self.ex.state.name

    @property
    def lit(self) -> bool:
        return self.ex.motion is not None and bool(self.ex.motion.gate_on)

    # --- one fault -----------------------------------------------------------------------

    async def reach(
        self, phase: str, rng: random.Random, record: Path | None, start_up_s: float
    ) -> None:
        """From IDLE to a random instant of the phase. Raises AssertionError."""
        ex = self.ex
        await self.call("start", record_dir=None if record is None else str(record))
        if phase == "start-up":
            await asyncio.sleep(rng.uniform(0.0, start_up_s))
            return
        assert await self.until(lambda: self.lit, 40.0), f"{phase}: no emission, {self.state}"
        if phase == "first layer":
            await asyncio.sleep(rng.uniform(0.0, 0.4))
        elif phase == "bead":
            there = lambda: self.lit and ex.cursor is not None and ex.cursor.layer >= 1
            assert await self.until(there, 60.0), f"{phase}: {self.state}"
            await asyncio.sleep(rng.uniform(0.0, 0.1))
        elif phase == "travel":
            for _ in range(rng.randint(1, 3)):
                await self.until(lambda: self.lit, 5.0)
                assert await self.until(lambda: not self.lit, 60.0), f"{phase}: {self.state}"
            await asyncio.sleep(rng.uniform(0.0, 0.05))
        elif phase == "hold":
            await asyncio.sleep(rng.uniform(0.0, 0.4))
            await self.call("hold", now=rng.random() < 0.5)
            assert await self.until(lambda: self.state == "HELD", 20.0), f"{phase}: {self.state}"
            await asyncio.sleep(rng.uniform(0.0, 0.5))
        elif rng.random() < 0.5:
            await self.call("stop")
            await asyncio.sleep(rng.uniform(0.0, 0.3))
        else:
            gone = lambda: self.state != "EXECUTE"
            assert await self.until(gone, 120.0), f"{phase}: {self.state}"
            await asyncio.sleep(rng.uniform(0.0, 0.3))

    async def fault(self, row: Row, phase: str, rng: random.Random, record: Path | None) -> Tried:
        """One fault from IDLE back to IDLE."""
        await self.reach(phase, rng, record, row.start_up_s)
        ex = self.ex
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        before = set(ex.alarms.standing)
        onset = int(self.tell(row.ask("inject"))["t_us"])
        if phase == "hold":
            await asyncio.sleep(row.least_s)
            if self.state == "HELD":  # nobody goes on while it stands, or it is held again
                try:
                    await self.call("unhold")
                except REFUSALS:
                    pass
                else:
                    await self.until(lambda: self.state == "EXECUTE", 3.0)
        await self.until(lambda: self.state in ENDED, LONGEST_S if row.ends else 0.8)
        left_s = row.least_s - (loop.time() - begin_s)
        if left_s > 0.0:
            await asyncio.sleep(left_s)
        await self.until(lambda: self.state not in ("STOPPING", "ABORTING", "HOLDING"), 5.0)
        if row.ends:
            await asyncio.sleep(rng.uniform(0.2, 0.5))
        first = ex.alarms.first_out
        tried = Tried(
            row, phase, onset, ex.now_us(), self.state, "" if first is None else first.alarm.name,
            record=record,
        )  # fmt: skip
        tried.wrong = self._wrong(tried, set(ex.alarms.standing) - before)
        tried.cleared_us = int(self.tell(row.ask("clear"))["t_us"])
        if row.kind == "warm":  # water of the setpoint comes back
            kelvin = float(dict(row.options)["kelvin"])
            self.tell(row.ask("inject", kelvin=-kelvin))
        await self.recover(f"{row.key}, {phase}")
        return tried

    def _wrong(self, t: Tried, new: set[str]) -> str:
        """What the host's own story lacks."""
        row = t.row
        if "SUPERVISOR_ERROR" in new:
            return f"supervisor error: {self.ex.alarms.standing['SUPERVISOR_ERROR'].detail}"
        if not row.ends:
            if row.first and t.first_out not in row.first:
                return f"first-out {t.first_out!r}, not {row.first}"
            if not row.first and t.first_out not in ("", *_LINK_ALARMS.get(row.kind, ())):
                return f"alarm {t.first_out} for what the build must bear"
            return ""
        if t.state in ("EXECUTE", "STARTING", "UNHOLDING"):
            return f"{t.state} while the fault stands"
        if t.phase in ("first layer", "bead", "travel") and t.state not in row.ends:
            gone = t.state == "COMPLETE" and t.phase != "first layer"
            return "" if gone else f"{t.state}, not {' or '.join(row.ends)}"
        first = row.first
        if t.phase == "start-up":
            first = (*first, "COMMAND_FAILED", "START_FAILED", *_AT_START.get(row.device, ()))
        elif row.layer != "physics":
            if t.phase == "ending":
                first = (*first, *_AT_END.get(row.device, ()))
            # a command of the plan may meet the silence first
            first = (*first, "COMMAND_FAILED")
        if t.first_out and t.first_out not in first:
            return f"first-out {t.first_out}, not {' or '.join(row.first)}"
        if t.phase in ("first layer", "bead", "travel") and not t.first_out:
            return "no alarm"
        return ""

    async def recover(self, why: str) -> None:
        """By the cell's own commands to IDLE, homed, nothing against a start."""
        ex = self.ex
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        while True:
            state = self.state
            reasons = ex.blockers(None) if state == "IDLE" and not ex.activity else ()
            if state == "IDLE" and not ex.activity and not reasons:
                ex.alarms.reset_first_out()
                return
            if loop.time() - begin_s > RECOVERY_S:
                raise AssertionError(f"{why}: not back: {state}, {[str(b) for b in reasons]}")
            name = _WAY.get(state)
            if state == "IDLE" and not ex.activity:
                names = {b.name for b in reasons}
                name = None
                if names <= {"NOT_HOMED", "NOT_AT_START"}:
                    name = "home"
                elif loop.time() - begin_s > 5.0:
                    name = "abort" if names & _CHAIN_NAMES else "stop"
                    if name == "stop" and loop.time() - begin_s < 8.0:
                        name = None
            if name is not None:
                with suppress(REFUSALS):
                    await self.call(name)
            await asyncio.sleep(0.1)


# Frames that go missing faster than they are sent again end in the dead-man, which is right too.
_LINK_ALARMS = dict.fromkeys(("swap", "lose"), ("LINK_LOST", "FIRMWARE_FAULT", "SELF_HOLD"))
_CHAIN_NAMES = {"CHAIN_OPEN", "CHAIN_RESET", "SUPPLY_RELAY"}
_WAY = {
    "STOPPED": "reset", "COMPLETE": "reset", "ABORTED": "clear", "HELD": "stop",
    "EXECUTE": "stop", "HOLDING": "stop", "UNHOLDING": "stop", "STARTING": "stop",
}  # fmt: skip


class _Loop(VirtualLoop):
    """Time never stands still: a script waits in it, no client outside of it."""

    def freeze(self) -> None:
        """Nothing."""


@contextmanager
def _time(made: Job, seed: int, folder: Path, wires: bool) -> Iterator[tuple[Any, Any]]:
    """(time source, channels) of a cell on real wires or on null ones."""
    if not wires:
        yield NullTime(NullCell(made.cell, None, seed, folder)), null_channels()
        return
    command = [sys.executable, "-m", "hil_sim", "--cell", str(made.cell), "--seed", str(seed)]
    process = subprocess.Popen(
        [*command, "--out", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield WireTime(ready["time_socket"]), ready["channels"]
        process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def fitted_rows(made: Job) -> list[Row]:
    """Rows whose device this cell has."""
    kinds = NullCell(made.cell).tell({"command": "kinds"})["kinds"]
    there = {(k["device"], k["layer"], k["kind"]) for k in kinds}
    return [row for row in ROWS if (row.device, row.layer, row.kind) in there]


def run_cell(
    folder: Path, todo: list[tuple[Row, str]], seed: int, *, wires: bool = False,
    full: bool = False, records: int = 10, told: Callable[[Tried], None] = lambda tried: None,
) -> list[Tried]:  # fmt: skip
    """The faults of ``todo`` in turn on one cell; every ``records``-th with a record."""
    made = quick_job(full)
    done: list[Tried] = []
    with (
        mock.patch("hil_sim.devices.laser_ipg.START_UP_US", 200_000),
        mock.patch("controller.machine.sequences.AFTERFLOW_S", 0.3),
        _time(made, seed, folder, wires) as (source, channels),
    ):
        loop = _Loop(source)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            try:
                runner.run(
                    _main(made, folder, loop, source, channels, todo, seed, records, done, told)
                )
            finally:
                loop.finish()
    return done


async def _main(
    made: Job, folder: Path, loop: Any, source: Any, channels: Any, todo: list[tuple[Row, str]],
    seed: int, records: int, done: list[Tried], told: Callable[[Tried], None],
) -> None:  # fmt: skip
    cell, text = load_cell(str(made.cell))
    ports = ports_of(cell, channels)
    settings = ServeSettings(str(made.cell), folder, time_mode="null")
    devices = CellDevices.of(cell, ports, lambda role, said: None)
    link = make_link(cell, ports["motion"])
    ex = Executor(
        cell, text, link, devices, Clock(loop), open_record=Recorders(settings, True).open
    )
    commands = Commands(ex, lambda path: load_job(path, cell), {}, {})
    bench = Cell(ex, commands, source.tell)
    rng = random.Random(seed)
    try:
        await boot(ex, commands, home=False)
        await bench.call("load_job", path=str(made.job))
        await bench.recover("boot")
        for n, (row, phase) in enumerate(todo):
            record = folder / f"record{n}" if records and n % records == 0 else None
            tried = await bench.fault(row, phase, rng, record)
            done.append(replace(tried))
            told(tried)
    finally:
        loop.release()
        await ex.end()

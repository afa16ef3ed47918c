"""The cell server put together: devices, motion link, supervisor, record, API.

``serve`` runs until a client says ``shutdown``, SIGTERM or SIGINT comes, or, in virtual
time, the simulator is gone. Three settings of time, one code path: ``real``, ``virtual``
(a simulator process grants time) and ``null`` (a simulator object does).
"""

import asyncio
import contextlib
import gc
import json
import os
import platform
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller import __version__
from controller.api.commands import Commands
from controller.api.protocol import VERSION
from controller.api.server import ApiServer, write_private
from controller.clock import (
    Clock,
    NullTime,
    RealLoop,
    VirtualLoop,
    WireTime,
    date_s,
    wall_iso,
    wall_s,
)
from controller.commissioning.boots import BootWatch
from controller.commissioning.store import Store, blockers, header_entry, now_s
from controller.config import Cell, find_file, load_cell
from controller.errors import ConfigError
from controller.machine import approval
from controller.machine.audit import open_audit
from controller.machine.cell import CHANNELS, CellDevices, fitted, make_link, ports_of
from controller.machine.clock_watch import ClockWatch
from controller.machine.executor import Executor
from controller.machine.job import Job, make_job, text_hash
from controller.machine.states import UnitMode
from controller.planning import read_job
from controller.record.keys import key_path, load_key, make_key
from controller.record.recorder_process import RecorderProcess, Spare
from controller.record.schema import PACKER, TELEMETRY, Recorder
from controller.record.writer import RecordWriter
from firmware_bridge.bench import Bench
from firmware_bridge.errors import BridgeError
from firmware_bridge.transport import NullPort, TcpPort

CONNECT_TRIES = 3
TELL_S = 0.2  # of a call to the simulator: the control tick waits for it
BENCH_CHANNEL = 60
RR_PRIORITY, NICE = 10, -10  # the motion link has SCHED_FIFO 50, a simulator 40


@dataclass(frozen=True)
class ServeSettings:
    """What a cell server is started with."""

    cell: str  # name or path of the cell file
    run_dir: Path  # run/<cell>: socket, tokens, server.json
    time_mode: str = "real"  # real | virtual | null
    channels: list[Mapping[str, Any]] | None = None  # the simulator's channel table
    time_socket: str | None = None  # virtual: the simulator's time server
    simulator: Any = None  # null: the simulator object
    home: bool = False  # home at boot
    mode: UnitMode = UnitMode.DEVELOPMENT
    header: Mapping[str, Any] = field(default_factory=dict)  # seed, scenario, operator
    on_ready: Callable[[dict[str, Any]], None] | None = None  # told what server.json holds
    while_input_open: bool = False  # end when standard input closes: the caller is gone


def serve(settings: ServeSettings) -> None:
    """Run a cell server to its end. Raises ConfigError, BridgeError when it cannot begin."""
    cell, text = load_cell(settings.cell)
    loop = make_loop(settings)
    # what is loaded by now stays: the collector need not look at it a hundred times a second
    gc.collect()
    gc.freeze()
    scheduling = "virtual time" if loop.virtual else take_priority()
    gc.set_threshold(20_000, 20, 100)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        try:
            runner.run(_serve(settings, cell, text, loop, scheduling))
        finally:
            loop.finish()


def make_loop(settings: ServeSettings) -> RealLoop | VirtualLoop:
    """The event loop of a time mode. Raises ConfigError."""
    if settings.time_mode == "real":
        return RealLoop()
    if settings.time_mode == "virtual":
        if not settings.time_socket:
            raise ConfigError("virtual time needs the simulator's time socket")
        try:
            return VirtualLoop(WireTime(settings.time_socket))
        except OSError as exc:
            raise ConfigError(
                f"{settings.time_socket}: no time server answers ({exc.strerror})"
            ) from None
    if settings.time_mode == "null":
        if settings.simulator is None:
            raise ConfigError("null wires need a simulator in this process")
        return VirtualLoop(NullTime(settings.simulator))
    raise ConfigError(f"time mode {settings.time_mode!r} is none of real, virtual, null")


def take_priority() -> str:
    """Real-time priority below the motion link's, that of the control tick; what was granted.

    Niceness alone does not do: where sessions are scheduled as groups (autogroup) it counts
    within its own only, and the ticks of a busy computer came 40 to 120 ms late. Children begin
    without it.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(RR_PRIORITY))
    except (OSError, AttributeError) as exc:
        return f"nice {os.getpriority(os.PRIO_PROCESS, 0)} (SCHED_RR refused: {exc})"
    return f"SCHED_RR {RR_PRIORITY}"


async def _serve(
    settings: ServeSettings,
    cell: Cell,
    text: str,
    loop: RealLoop | VirtualLoop,
    scheduling: str,
) -> None:
    ports = ports_of(cell, null_channels() if settings.time_mode == "null" else settings.channels)
    link = make_link(cell, ports["motion"], own_process=settings.time_mode == "real")
    executors: list[Executor] = []

    def tell(role: str, said: str) -> None:
        for ex in executors:
            ex.emit("device", {"device": role, "text": said})

    devices = CellDevices.of(cell, ports, tell)
    recorders = Recorders(settings, loop.virtual)
    ex = Executor(
        cell, text, link, devices, Clock(loop), open_record=recorders.open, mode=settings.mode
    )
    executors.append(ex)
    store = Store.of(cell)
    ex.calibrations = lambda mode, purpose: blockers(cell, store, now_s(), mode, purpose)
    about = {
        "cell": cell.name,
        "title": cell.title,
        "cell_file": str(find_file("cells", settings.cell).absolute()),
        "simulated": cell.simulated,
        "time": settings.time_mode,
        "version": __version__,
        "protocol": VERSION,
        "pid": os.getpid(),
        "scheduling": scheduling,
        "telemetry": {
            "fields": [name for name, _, _ in TELEMETRY],
            "units": [unit for _, unit, _ in TELEMETRY],
            "format": PACKER.format,
        },
    }
    header = {**header_of(cell, settings.time_mode), **settings.header}
    commands = Commands(ex, lambda path: load_job(path, cell), header, about)
    commands.device_commands.bench = bench_of(settings)
    commands.calibrations = store
    supervise(commands, settings, cell, loop)
    api = ApiServer(settings.run_dir, commands.methods(), lambda: about, commands.view)
    commands.attach(api)

    with (
        _signals(loop, commands.over),
        _simulator_gone(loop, commands.over),
        _input_watched(settings.while_input_open, loop, commands.over),
    ):
        try:
            if not loop.virtual:
                await _listen(settings, api, about)  # a console may watch the boot
            await boot(ex, commands, home=settings.home)
            header["software"]["firmware"] = getattr(ex.identity, "firmware", "")
            commands.set_header(header)
            about["link_pid"] = getattr(link, "pid", None)  # None: the link lives in this process
            if loop.virtual:
                await _listen(settings, api, about)
            else:
                write_private(settings.run_dir / "server.json", _server_json(settings, about))
            if settings.on_ready is not None:
                settings.on_ready(_server_json(settings, about))
            await commands.over.wait()
        finally:
            loop.release()
            await ex.end()
            recorders.close()
            if commands.audit is not None:
                commands.audit.close()
            await api.close()


async def boot(ex: Executor, commands: Commands, *, home: bool) -> None:
    """Connect, reset, home where asked, and come to rest. Raises BridgeError."""
    ex.begin()
    for attempt in range(CONNECT_TRIES):
        try:
            await ex.connect()
            break
        except BridgeError:
            if attempt + 1 == CONNECT_TRIES:
                raise
            await asyncio.sleep(0.5)
    ex.reset("boot")
    commands.booting = False
    await commands.rest()
    if home and ex.state.name == "IDLE":
        commands.release()
        ex.home("boot")
        await commands.rest()


async def _listen(settings: ServeSettings, api: ApiServer, about: Mapping[str, Any]) -> None:
    await api.listen()
    write_private(settings.run_dir / "server.json", _server_json(settings, about))


def _server_json(settings: ServeSettings, about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "link_pid": about.get("link_pid"),
        "socket": str((settings.run_dir / "api.sock").absolute()),
        "cell": about["cell"],
        "time": settings.time_mode,
        "ports": [dict(c) for c in settings.channels or []],
    }


def bench_of(settings: ServeSettings) -> Bench | None:
    """The bench of instruments that comes with a simulated cell; None elsewhere."""
    if settings.time_mode == "null":
        return Bench(NullPort("bench", BENCH_CHANNEL))
    for entry in settings.channels or []:
        if entry["name"] == "bench":
            port = TcpPort("bench", entry["host"], int(entry["port"]), int(entry["id"]))
            return Bench(port)
    return None


def supervise(commands: Commands, settings: ServeSettings, cell: Cell, loop: Any) -> None:
    """Audit trail, approved set, power-ups, and the simulator's control channel."""
    ex, store = commands.ex, Store.of(cell)
    if not cell.simulated:
        boots, others = BootWatch(lambda: ex.identity, store, cell, now_s, ex.emit), ex.calibrations
        ex.on_tick.append(boots.tick)
        ex.calibrations = lambda mode, purpose: boots.blockers() + others(mode, purpose)
    if not loop.virtual:
        ex.on_tick.append(ClockWatch(date_s, wall_s, ex.emit).tick)
    commands.audit = open_audit(settings.run_dir / "audit.log", cell.name)

    def calibrations() -> dict[str, str]:
        rows = header_entry(cell, store, now_s())
        for row in rows:
            row.pop("problem", None)  # that one is overdue says preflight
        return {
            f"{row.get('kind', '')} {row.get('item', '')}".strip(): text_hash(
                json.dumps(row, sort_keys=True, default=str)
            )
            for row in rows
            if len(row) > 2
        }

    def present() -> approval.Present:
        job = ex.job
        recipes = {} if job is None else {job.recipe.name: text_hash(job.plan.recipe_toml)}
        firmware = getattr(ex.identity, "firmware", "")
        return approval.Present(ex.cell_hash, __version__, str(firmware), recipes, calibrations())

    def approve(who: str) -> approval.Approved:
        path = approval.approval_path(cell.name)
        return approval.approve(who, wall_iso(), present(), path)

    ex.modes.deviations = lambda: approval.standing(approval.approval_path(cell.name), present())
    commands.supervision.approve = approve
    if loop.virtual:
        commands.supervision.tell = loop.wire_meter.tell
    elif (settings.run_dir / "simulator.json").exists():
        commands.supervision.tell = control_channel(settings.run_dir / "simulator.json")


def control_channel(table: Path) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """The simulator's control socket by its ready line; None where it has none."""
    try:
        path = json.loads(table.read_text(encoding="utf-8")).get("control_socket")
    except (OSError, ValueError, AttributeError):
        return None
    if not path:
        return None

    def tell(request: dict[str, Any]) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.settimeout(TELL_S)
                sock.connect(str(path))
                sock.send(json.dumps(request).encode())
                answer: dict[str, Any] = json.loads(sock.recv(65536))
        except (OSError, ValueError) as exc:
            return {"ok": False, "error": f"the simulator's control socket: {exc}"}
        return answer

    return tell


def null_channels() -> list[Mapping[str, Any]]:
    """The channel table of a simulator in this process."""
    return [{"id": n, "name": name, "kind": "null"} for name, n in CHANNELS.items()]


def load_job(path: Path, cell: Cell) -> Job:
    """Read and verify a job file. Raises RecordError, VerifyError, RecipeError."""
    plan = read_job(path)
    return make_job(path, plan, str(plan.figures["hash"]), cell)


def header_of(cell: Cell, time_mode: str) -> dict[str, Any]:
    """What a record says of the cell; sealed, but outside of its content hash."""
    return {
        "cell": cell.name,
        "cell_title": cell.title,
        "simulated": cell.simulated,
        "time": time_mode,
        "software": {"host": __version__, "python": platform.python_version()},
        "devices": {role: {"driver": getattr(cell, role).driver} for role in fitted(cell)},
        "materials": [
            {"hopper": n + 1, "powder": h.powder, "lot": h.lot, "mass_g": h.mass_g}
            for n, h in enumerate(cell.powder.hoppers)
        ],
    }


class Recorders:
    """Opens the record of each build: in this process in virtual time, else in its own."""

    def __init__(self, settings: ServeSettings, virtual: bool) -> None:
        self._settings = settings
        self._virtual = virtual
        self._synced_s = 0.0
        self._spare = None if virtual else Spare()

    def open(self, folder: Path, header: dict[str, Any], job: Path, expected_s: float) -> Recorder:
        """Raises RecordError when the folder cannot be written or has no room."""
        key = key_path()
        if not key.exists():
            make_key(key)
        header = {"started_wall": wall_iso(), **header}
        if not self._virtual:
            spare, self._spare = self._spare, None
            try:
                return RecorderProcess(
                    folder, key, header, job=job, expected_s=expected_s, spare=spare
                )
            finally:
                self._spare = Spare()  # for the next build
        return RecordWriter(
            folder, load_key(key), header, job=job, expected_s=expected_s, sync_due=self._sync_due
        )

    def close(self) -> None:
        """End the process that waits for a record."""
        if self._spare is not None:
            self._spare.close()

    def _sync_due(self) -> bool:
        """Once a second of wall time: simulated seconds pass faster than a disk syncs."""
        now_s = wall_s()
        if now_s - self._synced_s < 1.0:
            return False
        self._synced_s = now_s
        return True


@contextlib.contextmanager
def _signals(loop: Any, over: asyncio.Event) -> Any:
    """SIGTERM and SIGINT end the server in order."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    installed = []
    for number in numbers:
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread
            loop.add_signal_handler(number, over.set)
            installed.append(number)
    try:
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _input_watched(wanted: bool, loop: Any, over: asyncio.Event) -> Any:
    """Standard input closes when the caller dies, however it dies: then end in order."""
    if not wanted:
        yield
        return

    def readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            over.set()

    loop.add_reader(0, readable)
    try:
        yield
    finally:
        loop.remove_reader(0)


@contextlib.contextmanager
def _simulator_gone(loop: Any, over: asyncio.Event) -> Any:
    """In virtual time no more time passes without the simulator: end the server."""
    if not loop.virtual:
        yield
        return
    before = loop.source_gone

    def gone() -> None:
        before()
        loop.call_soon(over.set)

    loop.source_gone = gone
    try:
        yield
    finally:
        loop.source_gone = before

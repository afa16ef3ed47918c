"""The commands of the API, and how they let simulated time run.

In virtual time the machine stands still between commands: a command arrives at a frozen
simulated instant, so that a run is reproducible. Whatever a command sets going releases
time; it freezes again when the machine is at rest. In real time both do nothing.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controller.api.device_commands import DeviceCommands
from controller.api.protocol import CallError
from controller.api.server import ApiServer, Caller, Method
from controller.api.supervision_commands import SupervisionCommands
from controller.api.view import plain, record_view, view
from controller.clock import wall_iso, wall_s
from controller.commissioning.store import Store, header_entry, now_s
from controller.commissioning.store import warnings as overdue
from controller.errors import RecordError
from controller.machine.audit import Audit
from controller.machine.executor import Executor
from controller.machine.job import Job, text_hash
from controller.machine.preflight import link_limits
from controller.machine.states import State, UnitMode

VIEW_TICKS = 10  # a snapshot or delta every 100 ms of machine time
LONGEST_ADVANCE_S = 3600.0
AFTER_LOAD_S = 0.15
# what changes nothing leaves no line
UNAUDITED = frozenset(
    {"hello", "status", "wait_state", "result", "preflight", "why_not", "alarm_history",
     "device_read"}
)  # fmt: skip
# what a record says of the cell and of how it was started: no client's word
OWN_HEADER = frozenset(
    {"mode", "link", "deviations", "audit", "calibrations", "cell", "simulated",
     "software", "devices", "materials", "recipe", "recipe_sha256", "plan_hash", "started_wall"}
)  # fmt: skip
SETTLE_US = 300_000  # of machine time that a command to a device at rest is given

ReadJob = Callable[[Path], Job]


class Commands:
    """The methods of the API on one executor."""

    def __init__(
        self, ex: Executor, read_job: ReadJob, header: Mapping[str, Any], about: Mapping[str, Any]
    ) -> None:
        self.ex = ex
        self.over = asyncio.Event()
        self.audit: Audit | None = None  # set by the server
        simulated = bool(about.get("simulated"))
        self.supervision = SupervisionCommands(ex, self._let_run, simulated=simulated)
        self.device_commands = DeviceCommands(ex, self._let_run)
        self.calibrations: Store | None = None  # of this cell; set by the server
        self._read_job = read_job
        self._header = dict(header)
        self._about = dict(about)
        self._loop: Any = asyncio.get_running_loop()
        self._waiters: list[asyncio.Future[None]] = []
        self._keep_until_us = -1  # machine time up to which time must run
        self._execute_wall_s = [-1.0, -1.0]
        self.api: ApiServer | None = None
        self.booting = True  # time runs although the machine is at rest
        self._resting = False
        ex.on_tick.append(self._tick)
        ex.on_rest.append(self._rest)
        ex.journal.listeners.append(self._event)

    def attach(self, api: ApiServer) -> None:
        """The server to push snapshots, events and telemetry to."""
        self.api = api
        api.on_subscribers = self._subscribers
        api.on_refused = self.note

    def set_header(self, header: Mapping[str, Any]) -> None:
        """Header entries of the records to come."""
        self._header = dict(header)

    def _subscribers(self, telemetry: bool) -> None:
        """Rows are packed for the stream only while somebody reads them."""
        assert self.api is not None
        listeners, row = self.ex.journal.row_listeners, self.api.push_row
        if telemetry and row not in listeners:
            listeners.append(row)
        elif not telemetry and row in listeners:
            listeners.remove(row)

    # --- time ----------------------------------------------------------------------------

    def _rest(self) -> None:
        """Called each tick at rest: let waiters go, and time stand still."""
        if self.booting or self._keep_until_us > self.ex.now_us():
            return
        self._keep_until_us = -1
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._loop.freeze()
        if self.api is not None and not self._resting:
            self.api.push_view()
        self._resting = True

    def _let_run(self, at_least_us: int = 0) -> None:
        """Time runs until the machine is at rest, and at least so long."""
        if at_least_us:
            self._keep_until_us = max(self._keep_until_us, self.ex.now_us() + at_least_us)
        self._resting = False
        self._loop.release()

    def release(self) -> None:
        """Let time run until the machine is at rest."""
        self._let_run()

    async def rest(self) -> None:
        """Wait until the machine is at rest (checked once a control tick)."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _tick(self) -> None:
        """Called each control tick: the stream's snapshots."""
        if self.api is not None and self.ex.n_ticks % VIEW_TICKS == 0:
            self.api.push_view()

    def _event(self, t_us: int, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "state":
            if data["new"] == State.EXECUTE.name and self._execute_wall_s[0] < 0.0:
                self._execute_wall_s[0] = wall_s()
            elif data["old"] == State.EXECUTE.name:
                self._execute_wall_s[1] = wall_s()
        if self.api is not None:
            self.api.push_event({"t_us": t_us, "kind": kind, "data": plain(dict(data))})

    def time_ratio(self) -> float | None:
        """Machine time over wall time during EXECUTE; None before a build has ended."""
        start_us, end_us = self.ex.execute_us
        wall = self._execute_wall_s[1] - self._execute_wall_s[0]
        if start_us < 0 or end_us <= start_us or wall <= 0.0 or self._execute_wall_s[0] < 0.0:
            return None
        return (end_us - start_us) * 1e-6 / wall

    # --- what clients see ----------------------------------------------------------------

    def view(self) -> dict[str, Any]:
        """The whole machine by sections."""
        return view(self.ex, {"server": self._about})

    def state(self) -> dict[str, Any]:
        """The short form that most commands answer."""
        ex = self.ex
        return {
            "state": ex.state.name,
            "cause": ex.machine.cause,
            "at_rest": ex.at_rest,
            "t_us": ex.now_us(),
        }

    def methods(self) -> dict[str, tuple[str, Method]]:
        """Name -> (least role, method). Anybody may stop; only an operator may start.

        Each that changes something leaves a line in the audit trail.
        """
        table = self._table()
        return {n: (r, m if n in UNAUDITED else self._audited(n, m)) for n, (r, m) in table.items()}

    def _audited(self, name: str, method: Method) -> Method:
        async def run(caller: Caller, params: dict[str, Any]) -> Any:
            result = "ok"
            try:
                return await method(caller, params)
            except Exception as exc:
                result = f"{getattr(exc, 'name', type(exc).__name__)}: {exc}"
                raise
            finally:
                self.note(name, caller, params, result)

        return run

    def note(self, name: str, caller: Caller, params: Mapping[str, Any], result: str) -> None:
        """A command with its result: into the record's events and the audit trail."""
        who, role = caller.name, caller.role
        self.ex.emit("audit", {"command": name, "who": who, "role": role, "result": result[:200]})
        if self.audit is not None:
            try:
                self.audit.add(wall_iso(), self.ex.now_us(), who, role, name, params, result)
            except RecordError as exc:
                self.ex.emit("log", {"level": "error", "text": f"audit trail: {exc}"})

    def _table(self) -> dict[str, tuple[str, Method]]:
        return {
            "hello": ("observer", self._hello),
            "status": ("observer", self._status),
            "wait_state": ("observer", self._wait_state),
            "result": ("observer", self._result),
            "stop": ("observer", self._stop),
            "abort": ("observer", self._abort),
            "laser_off": ("observer", self._laser_off),
            "hold": ("observer", self._hold),
            "load_job": ("operator", self._load_job),
            "preflight": ("operator", self._preflight),
            "start": ("operator", self._start),
            "unhold": ("operator", self._unhold),
            "reset": ("operator", self._reset),
            "clear": ("operator", self._clear),
            "home": ("operator", self._home),
            "override": ("operator", self._override),
            "acknowledge": ("operator", self._acknowledge),
            "advance": ("operator", self._advance),
            "shutdown": ("engineer", self._shutdown),
            **self.supervision.methods(),
            **self.device_commands.methods(),
        }

    async def _hello(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params)
        return {"role": caller.role, **self._about}

    async def _status(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params)
        return self.view()

    async def _wait_state(self, caller: Caller, params: dict[str, Any]) -> Any:
        """Wait for one of ``states``, or until the machine is at rest in another."""
        _only(params, "states")
        states = params.get("states") or []
        names = [s.name for s in State]
        if not isinstance(states, list) or any(s not in names for s in states):
            raise CallError("BAD_PARAMS", f"states must be a list of {', '.join(names)}")
        while self.ex.state.name not in states and not self.ex.at_rest:
            changed = self._loop.create_future()

            def told(t_us: int, kind: str, data: Any, changed: Any = changed) -> None:
                if kind == "state" and not changed.done():
                    changed.set_result(None)

            self.ex.journal.listeners.append(told)
            self._waiters.append(changed)
            try:
                await changed
            finally:
                self.ex.journal.listeners.remove(told)
        return {**self.state(), "reached": self.ex.state.name in states}

    async def _result(self, caller: Caller, params: dict[str, Any]) -> Any:
        """How the last build ended."""
        _only(params)
        return {
            **self.state(),
            "record": record_view(self.ex),
            "time_ratio": self.time_ratio(),
            "alarms": self.ex.alarms.as_list(),
            "first_out": None
            if self.ex.alarms.first_out is None
            else self.ex.alarms.first_out.as_dict(),
        }

    # --- commands ------------------------------------------------------------------------

    async def _load_job(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params, "path")
        self.ex.load(self._read_job(Path(_text(params, "path"))))
        assert self.ex.job is not None
        if not self._loop.virtual:
            # reading and exporting took their time in one go: what is known of the machine is
            # old for a moment, and a start right behind would be refused for that
            await asyncio.sleep(AFTER_LOAD_S)
        if self.api is not None:
            self.api.push_view()
        return plain(self.ex.job.as_dict())

    async def _preflight(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params, "record_dir", "mode")
        blockers = self.ex.blockers(_folder(params), _mode(params, self.ex.mode))
        warnings = link_limits(self.ex.cell, self.ex.link)
        if self.calibrations is not None:
            mode = _mode(params, self.ex.mode)
            warnings += overdue(self.ex.cell, self.calibrations, now_s(), mode)
        return {
            "blockers": [{"name": b.name, "text": b.text} for b in blockers],
            "warnings": [{"name": b.name, "text": b.text} for b in warnings],
        }

    async def _start(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params, "record_dir", "mode", "header")
        extra = params.get("header") or {}
        if not isinstance(extra, dict):
            raise CallError("BAD_PARAMS", "header must be an object")
        for key in OWN_HEADER & extra.keys():
            raise CallError("BAD_PARAMS", f"header: {key} is the server's own to say")
        folder, mode = _folder(params), _mode(params, self.ex.mode)
        self._execute_wall_s = [-1.0, -1.0]
        # nothing is made on disk before preflight has spoken
        header = {**self._header, **_job_header(self.ex.job), **extra}
        if self.audit is not None:  # the trail's end by now: what is cut off it later is seen
            header["audit"] = {"lines": self.audit.n, "head": self.audit.head}
        if self.calibrations is not None:
            header["calibrations"] = header_entry(self.ex.cell, self.calibrations, now_s())
        self.ex.start(str(caller), folder, mode, header)
        self._let_run()
        return self.state()

    async def _hold(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params, "now")
        self.ex.hold(str(caller), now=bool(params.get("now", False)))
        self._let_run()
        return self.state()

    async def _unhold(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params)
        self.ex.unhold(str(caller))
        self._let_run()
        return self.state()

    async def _stop(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params)
        self.ex.stop(f"stop by {caller}", str(caller))
        self._let_run()
        return self.state()

    async def _abort(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params)
        self.ex.abort(f"abort by {caller}", str(caller))
        self._let_run()
        return self.state()

    async def _clear(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params)
        self.ex.clear(str(caller))
        self._let_run()
        return self.state()

    async def _reset(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params)
        self.ex.reset(str(caller))
        self._let_run()
        return self.state()

    async def _home(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params)
        self.ex.home(str(caller))
        self._let_run()
        await self.rest()
        motion = self.ex.motion
        return {**self.state(), "homed": motion is not None and bool(motion.homed)}

    async def _laser_off(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params)
        self.ex.laser_off(str(caller))
        self._let_run(SETTLE_US)
        return self.state()

    async def _override(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params, "scale", "what")
        scale, what = params.get("scale"), params.get("what", "speed")
        if what not in ("speed", "power", "powder"):
            raise CallError("BAD_PARAMS", "what must be one of speed, power, powder")
        if isinstance(scale, bool) or not isinstance(scale, int | float):
            raise CallError("BAD_PARAMS", "scale must be a number")
        self.ex.override(str(caller), float(scale), what)
        return {**self.state(), "scale": getattr(self.ex.overrides, what)}

    async def _acknowledge(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params, "names")
        names = params.get("names")
        if names is not None and not (
            isinstance(names, list) and all(isinstance(n, str) for n in names)
        ):
            raise CallError("BAD_PARAMS", "names must be a list of alarm names")
        n = self.ex.acknowledge(str(caller), names)
        if self.api is not None:
            self.api.push_view()
        return {"acknowledged": n}

    async def _advance(self, caller: Caller, params: dict[str, Any]) -> Any:
        """Let machine time pass at rest: virtual time stands still otherwise."""
        _only(params, "seconds")
        seconds = params.get("seconds")
        if (
            isinstance(seconds, bool)
            or not isinstance(seconds, int | float)
            or not 0.0 < seconds <= LONGEST_ADVANCE_S
            or not math.isfinite(seconds)
        ):
            raise CallError("BAD_PARAMS", f"seconds must be above 0, at most {LONGEST_ADVANCE_S:g}")
        self._let_run(round(seconds * 1e6))
        await self.rest()
        return self.state()

    async def _shutdown(self, caller: Caller, params: dict[str, Any]) -> Any:
        _only(params)
        self._loop.call_soon(self.over.set)
        return self.state()


def _job_header(job: Job | None) -> dict[str, Any]:
    """What a record's header says of the job."""
    if job is None:
        return {}
    return {
        "recipe": job.recipe.name,
        "recipe_sha256": text_hash(job.plan.recipe_toml),
        "part": plain(job.plan.part),
        "plan_hash": job.hash,
    }


def _only(params: dict[str, Any], *known: str) -> None:
    """Raise CallError BAD_PARAMS for a parameter that the method does not know."""
    for name in params:
        if name not in known:
            takes = ", ".join(known) or "none"
            raise CallError("BAD_PARAMS", f"parameter {name[:64]!r} is not known; taken: {takes}")


def _text(params: dict[str, Any], key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise CallError("BAD_PARAMS", f"{key} must be text")
    return value


def _folder(params: dict[str, Any]) -> Path | None:
    return None if params.get("record_dir") is None else Path(_text(params, "record_dir"))


def _mode(params: dict[str, Any], default: UnitMode) -> UnitMode:
    if params.get("mode") is None:
        return default
    try:
        return UnitMode(_text(params, "mode"))
    except ValueError:
        raise CallError("BAD_PARAMS", f"mode must be one of {', '.join(UnitMode)}") from None

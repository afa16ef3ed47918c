"""The supervisor: 100 control ticks a second from status to interlocks to record.

One tick: sign of life to the link, wake the devices that are due, follow the plan, send
what the process timeline says, freeze a snapshot, apply the interlocks, act on alarms,
write a telemetry row. What takes time (start, stop, home...) runs as a sequence beside it
(``sequences.py``); a tick never waits.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from controller.clock import Clock
from controller.config import Cell
from controller.errors import LmdError, PlanError, PreflightError, StateError
from controller.machine import sequences
from controller.machine.alarms import ActiveAlarm, AlarmManager
from controller.machine.cell import CellDevices
from controller.machine.going_on import Progress, why_not
from controller.machine.interlocks import (
    RULES,
    Limits,
    Timers,
    emission_blockers,
    link_stale,
    rules_for,
    watch,
)
from controller.machine.job import Job, text_hash
from controller.machine.journal import Journal, OpenRecord
from controller.machine.modes import Modes
from controller.machine.monitor import Monitor, PlanCursor
from controller.machine.outputs import Outputs
from controller.machine.overrides import Overrides
from controller.machine.preflight import free_bytes, link_limits, preflight
from controller.machine.programs import PlanLoader
from controller.machine.snapshot import Blocker
from controller.machine.states import (
    ACTING,
    ALLOWED,
    BUILDING,
    BUSY,
    State,
    StateMachine,
    UnitMode,
    require,
)
from controller.machine.telemetry import Readings, make_snapshot, pack_row
from controller.model import Severity
from controller.planning.path.kinematics import tip_of_steps
from controller.planning.powder.live import held_flow_g_min
from firmware_bridge.errors import BridgeError
from firmware_bridge.link_types import Link, LinkState

_STANDING = {rule.alarm for rule in RULES}  # alarms with a cause that can be seen to go

_ON_PATH = BUILDING - {State.STARTING}

TICK_S = 0.01
LATE_MS = 50.0
ALARM_TICKS = 100  # shelves and flood are looked at once a second
LATE_TICKS = 4  # at rest, until a link that asks and waits has heard again


class Executor:
    """One cell's supervisor. Commands raise StateError, PreflightError or PlanError."""

    def __init__(
        self,
        cell: Cell,
        cell_text: str,
        link: Link,
        devices: CellDevices,
        clock: Clock,
        *,
        open_record: OpenRecord | None = None,
        mode: UnitMode = UnitMode.DEVELOPMENT,
    ) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()
        # the loop's time and the record's differ by where zero is (real time only)
        self._zero_us = self.loop_us() - clock.now_us()
        self._open_record = open_record

        self.cell = cell
        self.cell_hash = text_hash(cell_text)
        self.link = link
        self.loader = PlanLoader(cell, link)
        self.devices = devices
        self.mode = mode
        self.limits = Limits.of(cell)
        self._rules = rules_for(self.limits)
        self.monitor = Monitor(cell.laser.rated_power_w, tip_of_steps(cell))
        self.readings = Readings(devices, self.monitor)
        self.outputs = Outputs(devices, self._command_failed)
        self.journal = Journal(self.now_us, lambda text: self.raise_alarm("RECORD_FAILED", text))
        self.machine = StateMachine(self._state_changed)
        self.alarms = AlarmManager(self._alarm_changed, self.emit)

        self.job: Job | None = None
        self.cursor: PlanCursor | None = None
        self.motion: Any = None  # newest MotionStatus
        self.identity: Any = None
        # calibrations against a start in a mode, for a job of a purpose: set by the server
        self.calibrations: Callable[[UnitMode, str], tuple[Blocker, ...]] = lambda mode, what: ()
        self.online = False  # start-up done: a silent device is a fault from here on
        self.link_ready = False
        self.activity = ""  # what a sequence does without a state of its own: HOMING
        self.laser_enabled = False  # confirmed by the source, not switched off since
        self.enabling: asyncio.Future[Any] | None = None  # an enable call on its way
        self.hold_commanded = False
        self.progress = Progress()
        self.overrides = Overrides()
        self.execute_us = [-1, -1]  # machine time of the first EXECUTE and of its end
        self.on_tick: list[Callable[[], None]] = []
        self.on_rest: list[Callable[[], None]] = []  # each tick at which nothing goes on
        self.modes = Modes(self)
        self.n_ticks = self.n_late = 0
        self._settled_n = 0

        self._n = 0
        self._handle: asyncio.Handle | None = None
        self._timers = Timers()
        self._sequence: asyncio.Task[None] | None = None
        self._hold_limit_us = -1
        self._hold_by_alarm = False
        self._held_for = ""
        self._before: int | None = None  # segment that status told before this build's first
        self.needed_g: tuple[float, float] = (0.0, 0.0)
        self.snapshot = make_snapshot(self, self.loop_us())

    # --- time ----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The present PackML state."""
        return self.machine.state

    @property
    def at_rest(self) -> bool:
        """Nothing happens before the next command; in a hold, not before gas and powder rest."""
        state = self.machine.state
        if state in BUSY or self.activity:
            return False
        if self.devices.busy:
            return False
        return self.outputs.shield_until_us < 0 or state is State.HELD

    def now_us(self) -> int:
        """Machine time: what stands in the record."""
        return round(self._loop.time() * 1e6) - self._zero_us

    def begin(self) -> None:
        """Start ticking; devices connect and are polled from here on."""
        self.devices.start()
        self._handle = self._loop.call_soon(self._tick)

    async def connect(self) -> None:
        """Shake hands with the motion controller. Raises BridgeError."""
        self.link.on_event = self._link_event
        self.link.on_lost = self._link_lost
        self.identity = await self.link.connect()
        self.link_ready = True

    async def end(self) -> None:
        """Stop ticking and close every wire; a build under way is aborted first."""
        if self.state in BUILDING:
            self.abort("server shut down", "server")
        if self.machine.state in ACTING and self._sequence is not None:
            await asyncio.gather(self._sequence, return_exceptions=True)
        if self.outputs.shield_until_us >= 0:
            await sequences.shield_off(self)
        if self._handle is not None:
            self._handle.cancel()
        if self._sequence is not None:
            self._sequence.cancel()
            await asyncio.gather(self._sequence, return_exceptions=True)
        await self.devices.stop()
        self.link.close()

    def _tick(self) -> None:
        loop = self._loop
        now_s = loop.time()
        n = self._n
        next_s = self._start_s + (n + 1) * TICK_S
        if now_s >= next_s:  # late: leave out what was missed, keep the grid
            n = int((now_s - self._start_s) / TICK_S)
            next_s = self._start_s + (n + 1) * TICK_S
        late_ms = (n - self._n) * TICK_S * 1e3
        self._n = n + 1
        self._handle = loop.call_at(next_s, self._tick)
        self.n_ticks += 1
        try:
            if late_ms > LATE_MS:
                self.n_late += 1
                # opening a record takes its time; nothing moves before EXECUTE
                if self.machine.state in _ON_PATH or self.activity:
                    self.raise_alarm("TICK_LATE", f"{late_ms:.0f} ms")
                    self.alarms.clear("TICK_LATE")
            late = late_ms > LATE_MS
            if late:
                self._settled_n = n + LATE_TICKS
            settled = n >= self._settled_n or self.machine.state in _ON_PATH
            self._control(round(now_s * 1e6), n, judge=settled and not late)
        except Exception as exc:
            # whatever it is, the machine must not go on without a supervisor
            self.raise_alarm("SUPERVISOR_ERROR", f"{type(exc).__name__}: {exc}")

    def _control(self, now_us: int, n: int, *, judge: bool) -> None:
        """One tick. After a late one nothing is judged: what came meanwhile is still unread."""
        link = self.link
        if self.link_ready:
            link.token()
        self.devices.tick(n)
        m = link.status
        if m is not self.motion and m is not None:
            self.motion = m
            self.monitor.status(m)
            self.progress.status(m)
            if self.cursor is not None and self.machine.state in _ON_PATH:
                self._follow(m, self.cursor)
        if self.readings.update() and self.cursor is not None:
            self.needed_g = self.cursor.needed_g()
        snap = self.snapshot = make_snapshot(self, now_us)
        if judge:
            raised, cleared = watch(snap, self.limits, self._timers, self._rules)
            for name in cleared:
                self.alarms.clear(name, self.now_us())
            for name, detail in raised:
                self.raise_alarm(name, detail)
        if self.machine.state in BUSY:
            self._advance(now_us, m)
        if self.machine.state in _ON_PATH:
            self.overrides.tick(self)
        if 0 <= self.outputs.shield_until_us <= now_us:
            self.outputs.shield_over(held=self.machine.state is State.HELD)
        if n % ALARM_TICKS == 0:
            self.alarms.tick(self.now_us())
        if self.journal.wants_rows:
            t_us = now_us - self._zero_us
            self.journal.row(t_us, pack_row(t_us, self, now_us))
        for listener in self.on_tick:
            listener()
        if self.on_rest and self.at_rest:
            for listener in self.on_rest:
                listener()

    def _follow(self, m: Any, cursor: PlanCursor) -> None:
        """Plan time by executed segment; send the timeline's commands that are due."""
        if self._before is not None:
            if m.segment == self._before:
                return  # still told of the build before this one
            self._before = None
        if cursor.follow(m.segment, m.segment_tick_us):
            self.emit("layer", {"layer": cursor.layer})
        self.outputs.follow(cursor)

    def _advance(self, now_us: int, m: Any) -> None:
        """Leave acting states whose end the motion controller reports."""
        state = self.machine.state
        if state is State.EXECUTE:
            if self.link.finished:
                self.machine.to(State.COMPLETING, "plan executed")
                self._run(sequences.complete(self))
        elif state is State.HOLDING:
            if 0 <= self._hold_limit_us <= now_us:
                self._hold_limit_us = -1
                self._to_link(lambda: self.link.hold(now=True))
                self.outputs.to_waste()
            if m is None or m.state not in (LinkState.HOLDING, LinkState.HELD):
                return
            self.outputs.to_waste()
            if m.state == LinkState.HELD:
                self._hold_limit_us = -1
                self.outputs.keep_shield()
                if self._hold_by_alarm and not self.cell.laser.keep_ready_in_hold:
                    self._source_off()
                self._held_for = self.machine.cause
                self._keep_pipe()
                self.machine.to(State.HELD, "axes stand, gate shut")
                self.emit("hold", {"cause": self._held_for, "segment": m.segment})
        elif state is State.UNHOLDING:
            if m is None or not (m.state == LinkState.RUN or self.link.finished):
                return
            if self._sequence is None or self._sequence.done():
                self.machine.to(State.EXECUTE, "axes move again")
                self.emit("resume", {"cause": self.progress.told, "segment": m.segment})

    def _keep_pipe(self) -> None:
        """Held: no hopper stays at what was to lead a change of its flow for a moment."""
        if self.cursor is not None:
            part = self.progress.part
            at_s = self.cursor.plan_us * 1e-6 - part.shift_s
            self.outputs.keep(held_flow_g_min(part.plan.timeline, at_s, self.cell.powder))

    # --- commands ------------------------------------------------------------------------

    def load(self, job: Job) -> None:
        """Take a job for the next START; only while no build is on its way."""
        if self.state in BUILDING:
            raise StateError(f"a job cannot be loaded in state {self.state.name}")
        self.loader.prepare(job.plan)
        self.job = job
        self.cursor = PlanCursor(job.plan)
        self.limits = Limits.of(self.cell, *job.recipe.powders)

    def blockers(
        self, record_folder: Path | None, mode: UnitMode | None = None
    ) -> tuple[Blocker, ...]:
        """Preflight: every reason against a start now."""
        asked = mode or self.mode
        purpose = "" if self.job is None else str(self.job.plan.meta.get("purpose", ""))
        found = preflight(
            self.snapshot,
            self.limits,
            self.cell,
            self.cell_hash,
            self.job,
            asked,
            self.link.abilities,
            link_ready=self.link_ready and not link_stale(self.snapshot),
            free_bytes=None if record_folder is None else free_bytes(record_folder),
            present_alarms=tuple(a.alarm.name for a in self.alarms.present()),
        )
        return found + self.calibrations(asked, purpose) + self.modes.blockers(asked)

    def start(
        self,
        who: str,
        record_folder: Path | None,
        mode: UnitMode,
        header: Mapping[str, Any] | None = None,
    ) -> None:
        """Preflight, open the record, begin. Raises PreflightError, RecordError, StateError."""
        require("start", self.state)
        self._not_busy("start")
        self.modes.check(mode)
        blockers = self.blockers(record_folder, mode)
        if blockers:
            raise PreflightError(tuple(str(b) for b in blockers))
        job = self.job
        assert job is not None  # preflight names it otherwise
        self.mode = mode
        self.journal.forget()
        limits = link_limits(self.cell, self.link)
        if record_folder is not None and self._open_record is not None:
            link = {"kind": self.cell.motion.link, "lacks": {b.name: b.text for b in limits}}
            entries = {
                "mode": str(mode), "link": link, **self.modes.header(), **(header or {}),
            }  # fmt: skip
            record = self._open_record(record_folder, entries, job.path, job.duration_s)
            self.journal.open(record, record_folder)
        self.alarms.reset_first_out()
        self.cursor = PlanCursor(job.plan)
        self._before = self.motion.segment if self.motion.segment >= 0 else None
        self.monitor.restart()
        self.execute_us = [-1, -1]
        self.overrides.begin()
        self.progress.begin(job.plan)
        self.emit("command", {"what": "start", "who": who, "args": {"job": job.hash}})
        for limit in limits:
            self.emit("log", {"level": "warning", "text": str(limit)})
        self.machine.to(State.STARTING, f"start by {who}")
        self._run(sequences.start(self, job))

    def hold(self, who: str, *, now: bool) -> None:
        """Hold at the end of the track, or now."""
        require("hold", self.state)
        self.emit("command", {"what": "hold", "who": who, "args": {"now": now}})
        self._hold(f"hold by {who}", now=now, limit_s=math.inf)

    def unhold(self, who: str) -> None:
        """Go on from HELD. Acknowledges what has gone; refused while a cause stands."""
        require("unhold", self.state)
        self._not_busy("unhold")
        reasons = [a.alarm.name for a in self.alarms.present() if a.alarm.name in _STANDING]
        reasons += [str(b) for b in emission_blockers(self.snapshot, self.limits)]
        if reasons:
            raise StateError(f"unhold refused: {', '.join(reasons)} still present")
        cause = self._held_for
        try:
            rest = self.progress.rest(self)
        except PlanError as exc:
            raise StateError(why_not(exc)) from None
        self.emit("command", {"what": "unhold", "who": who, "args": {}})
        sequences.forget(self, who)
        self.machine.to(State.UNHOLDING, f"unhold by {who}")
        self._run(sequences.unhold(self, rest, cause))

    def stop(self, cause: str, who: str) -> None:
        """Gate shut, laser off, powder to waste; the build ends. Never refused for long."""
        require("stop", self.state)
        self.emit("command", {"what": "stop", "who": who, "args": {"cause": cause}})
        self._stop(cause)

    def abort(self, cause: str, who: str) -> None:
        """Latched stop: the motion controller's fault is set; needs clear and reset."""
        require("abort", self.state)
        self.emit("command", {"what": "abort", "who": who, "args": {"cause": cause}})
        self._abort(cause)

    def clear(self, who: str) -> None:
        """ABORTED to STOPPED, when every cause is gone. The reset edge; never restarts."""
        require("clear", self.state)
        reasons = sequences.clear_blockers(self)
        if reasons:
            raise StateError(f"clear refused: {', '.join(reasons)} still present")
        self.emit("command", {"what": "clear", "who": who, "args": {}})
        self.machine.to(State.CLEARING, f"clear by {who}")
        self._run(sequences.clear(self, who))

    def reset(self, who: str) -> None:
        """STOPPED or COMPLETE to IDLE."""
        require("reset", self.state)
        self.emit("command", {"what": "reset", "who": who, "args": {}})
        self.machine.to(State.RESETTING, f"reset by {who}")
        self._run(sequences.reset(self, who))

    def home(self, who: str) -> None:
        """Find the axes' reference."""
        require("home", self.state)
        self._not_busy("home")
        if link_stale(self.snapshot):
            raise StateError("home refused: the motion controller sends no status")
        self.emit("command", {"what": "home", "who": who, "args": {}})
        self.activity = "HOMING"
        self._run(sequences.home(self))

    def laser_off(self, who: str) -> None:
        """Laser source off now; a build that needs it is held at once."""
        self.emit("command", {"what": "laser_off", "who": who, "args": {}})
        if self.state in (State.EXECUTE, State.UNHOLDING, State.HOLDING):
            self._hold(f"laser off by {who}", now=True)
        self._source_off()

    def _source_off(self) -> None:
        self.laser_enabled = False
        self.outputs.submit("laser", lambda d: d.emission_disable(), urgent=True)

    def override(self, who: str, value: float, what: str = "speed") -> None:
        """Factor of "speed" (below the recipe's window: HOLD_NOW), "power" or "powder"."""
        self.overrides.set(self, who, what, value)

    def hold_for(self, cause: str) -> None:
        """Hold at once for a cause that is no alarm."""
        self._hold(cause, now=True)

    def acknowledge(self, who: str, names: list[str] | None = None) -> int:
        """Acknowledge alarms; returns how many."""
        return self.alarms.acknowledge(who, names, self.now_us())

    def _not_busy(self, command: str) -> None:
        if self.activity:
            raise StateError(f"{command} refused: {self.activity} is under way")

    # --- acting on alarms ----------------------------------------------------------------

    def raise_alarm(self, name: str, detail: str = "") -> None:
        """Raise an alarm and do what its severity says."""
        standing = self.alarms.raise_(name, self.now_us(), detail)
        if standing is None:
            return
        alarm = standing.alarm
        state = self.machine.state
        cause = f"{alarm.name}: {detail}" if detail else alarm.name
        if name == "EMISSION_UNCOMMANDED":  # faster than any sequence
            self.outputs.submit("safety", lambda d: d.drop_supply(), urgent=True)
        if alarm.severity is Severity.ABORT:
            if state not in (State.ABORTING, State.ABORTED):
                self._abort(cause)
        elif alarm.severity is Severity.STOP:
            if state in BUILDING or self.activity:
                self._stop(cause)
        elif alarm.severity in (Severity.HOLD, Severity.HOLD_NOW):
            now = alarm.severity is Severity.HOLD_NOW
            if state in (State.EXECUTE, State.HOLDING, State.UNHOLDING):
                self._hold(cause, now=now, limit_s=alarm.max_hold_s)
                self._hold_by_alarm = True
            elif state is State.STARTING:
                self._stop(cause)  # nothing to hold yet: the start ends here

    def _hold(self, cause: str, *, now: bool, limit_s: float = 0.0) -> None:
        self.hold_commanded = True
        self._to_link(lambda: self.link.hold(now=now))
        if now:
            self.outputs.to_waste()
        limit_us = -1 if now or math.isinf(limit_s) else self.loop_us() + round(limit_s * 1e6)
        state = self.machine.state
        if state is State.HOLDING:
            if limit_us >= 0 and (self._hold_limit_us < 0 or limit_us < self._hold_limit_us):
                self._hold_limit_us = limit_us
            return
        self._hold_limit_us = limit_us
        if state is State.UNHOLDING:
            self._cancel_sequence()
            self.machine.to(State.EXECUTE, "hold while going on")
        self._hold_by_alarm = False
        self.machine.to(State.HOLDING, cause)

    def _stop(self, cause: str) -> None:
        if State.STOPPING not in ALLOWED[self.machine.state]:
            return
        building = self.state in BUILDING
        self.hold_commanded = True
        self._to_link(lambda: self.link.hold(now=True))
        self.machine.to(State.STOPPING, cause)
        self._run(sequences.stop(self, building))

    def _abort(self, cause: str) -> None:
        self._to_link(self.link.abort)
        self.hold_commanded = False
        self.machine.to(State.ABORTING, cause)
        self._run(sequences.abort(self))

    def _to_link(self, call: Callable[[], None]) -> None:
        """A stop for the motion controller; with its wire gone, its own dead-man stops it."""
        if not self.link_ready:
            return
        try:
            call()
        except BridgeError as exc:
            self.emit("log", {"level": "error", "text": f"motion link: {type(exc).__name__}"})

    def abort_again(self, cause: str) -> None:
        """Clearing did not succeed: back to ABORTED by the same way."""
        self._abort(cause)

    def run_sequence(self, sequence: Coroutine[Any, Any, None]) -> None:
        """Let a sequence run that is no transition of the state."""
        self._run(sequence)

    def _run(self, sequence: Coroutine[Any, Any, None]) -> None:
        """Let a sequence run; the one before ends here, its device calls run out."""
        self._cancel_sequence()
        self._hold_limit_us = -1
        self._sequence = self._loop.create_task(self._guarded(sequence), name="sequence")

    def _cancel_sequence(self) -> None:
        if self._sequence is not None and not self._sequence.done():
            self._sequence.cancel()
            self.activity = ""

    async def _guarded(self, sequence: Coroutine[Any, Any, None]) -> None:
        try:
            await sequence
        except (BridgeError, LmdError) as exc:
            self.raise_alarm("START_FAILED", str(exc))
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            self.raise_alarm("SUPERVISOR_ERROR", f"{type(exc).__name__}: {exc}")

    def _command_failed(self, role: str, text: str) -> None:
        if self.machine.state in BUILDING:
            self.raise_alarm("COMMAND_FAILED", text)
        else:
            self.emit("device", {"device": role, "text": text})

    # --- telling -------------------------------------------------------------------------

    def emit(self, kind: str, data: Mapping[str, Any]) -> None:
        """An event: into the record and to whoever listens."""
        self.journal.emit(kind, data)

    def close_record(self) -> None:
        """The build has ended in the present state: seal the record."""
        start_us, end_us = self.execute_us
        data = {
            "alarms": self.alarms.total,
            "execute_s": (end_us - start_us) * 1e-6 if start_us >= 0 else 0.0,
        }
        self.journal.close(self.machine.state.name, data)

    def _state_changed(self, old: State, new: State, cause: str) -> None:
        if new is State.EXECUTE and self.execute_us[0] < 0:
            self.execute_us[0] = self.now_us()
        if new in (State.COMPLETING, State.STOPPING, State.ABORTING) and self.execute_us[1] < 0:
            self.execute_us[1] = self.now_us()
        self.emit("state", {"old": old.name, "new": new.name, "cause": cause})

    def _alarm_changed(self, kind: str, standing: ActiveAlarm, who: str) -> None:
        self.emit(kind, standing.as_event(whole=kind == "alarm", who=who))

    def _link_event(self, event: Any) -> None:
        self.progress.event(event)
        args = [event.arg, event.segment]
        self.emit("link", {"code": int(event.code), "args": args, "device_us": event.device_us})

    def _link_lost(self, reason: str) -> None:
        self.link_ready = False  # the next tick raises LINK_LOST
        self.emit("log", {"level": "error", "text": "the motion link's connection is lost"})

    def loop_us(self) -> int:
        """The loop's time: that of set values and device readings."""
        return round(self._loop.time() * 1e6)

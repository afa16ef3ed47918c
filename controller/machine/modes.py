"""Unit modes and what goes on beside a build: what may run now, and who may change that.

Production runs only the approved set; development reports what differs from it in the record;
maintenance builds nothing but test emissions. The mode is changed at rest by command; START may
be stricter than it, never milder.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import numpy as np

from controller.errors import LmdError, PreflightError, StateError
from controller.machine.approval import as_header
from controller.machine.interlocks import stale
from controller.machine.snapshot import Blocker
from controller.machine.states import State, UnitMode
from controller.model import PowderChannel, Severity
from firmware_bridge.errors import BridgeError
from firmware_bridge.segments import FLAG_GATE, FLAG_PARAM, ticks_of

if TYPE_CHECKING:
    from controller.machine.executor import Executor

_AT_REST = (State.IDLE, State.STOPPED, State.COMPLETE, State.ABORTED)
TEST_PURPOSE = "emission test"  # meta entry of a plan
MEASURING = "calibration"  # the same, before a colon and the kind
_FEEDS = (int(PowderChannel.HOPPER_1), int(PowderChannel.HOPPER_2))
_AFTER_ALARMS = ("cool_down",)  # what a hot head wants, whatever else stands
GUARD_SETTLE_US = 300_000  # a power meter's way to a new reading
LEAST_LIT_US = 2 * GUARD_SETTLE_US  # of each light of a test
GUARD_SHARE = 0.2  # of the commanded power


def _beyond_purpose(job: Any) -> tuple[Blocker, ...]:
    """What a job that only tests or measures must not do: it is let off some of a build's rules."""
    purpose = "" if job is None else str(job.plan.meta.get("purpose", ""))
    if purpose != TEST_PURPOSE and purpose.partition(":")[0] != MEASURING:
        return ()
    found = []
    timeline, segments = job.plan.timeline, job.plan.segments
    fed = np.isin(timeline["channel"], _FEEDS) & (timeline["value"] > 0.0)
    if any(job.powder_g) or fed.any():
        found.append(Blocker("PURPOSE", f"a job for {purpose!r} feeds no powder, this one does"))
    lit = segments["steps"][segments["flags"] & FLAG_GATE != 0]
    if lit.any():
        found.append(Blocker("PURPOSE", f"a job for {purpose!r} has light at standstill only"))
    if purpose == TEST_PURPOSE and _shortest_us(segments) < LEAST_LIT_US:
        text = f"each light lasts {LEAST_LIT_US * 1e-6:g} s at least: the meter sees no shorter one"
        found.append(Blocker("PURPOSE", text))
    return tuple(found)


def _shortest_us(segments: np.ndarray) -> float:
    """How long the gate is open, the shortest time; inf where it never is."""
    moves = segments[segments["flags"] & FLAG_PARAM == 0]
    lit = moves["flags"] & FLAG_GATE != 0
    at_us = np.concatenate([[0], np.cumsum(ticks_of(moves))])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lit, [False]]).astype(np.int8)))
    return float(np.diff(at_us[edges])[::2].min()) if len(edges) else math.inf


class Modes:
    """The mode's rules on one executor, its activities and the guard of a test emission."""

    def __init__(self, ex: "Executor") -> None:
        self._ex = ex
        # what differs from the approved set, for a job: set by the server
        self.deviations: Callable[[], tuple[Blocker, ...]] = tuple
        self.test_power_w = 0.0  # of the test emission under way; 0: none
        self._lit_us = -1
        self.last: dict[str, str] = {}  # what the last sequence of each name told
        ex.on_tick.append(self._guard)

    # --- modes ---------------------------------------------------------------------------

    def set(self, mode: UnitMode, who: str) -> None:
        """Change the mode. Raises StateError where something goes on."""
        ex = self._ex
        if ex.state not in _AT_REST or ex.activity:
            raise StateError(f"set_mode is not possible in state {ex.state.name}, only at rest")
        old, ex.mode = ex.mode, mode
        ex.emit("mode", {"old": str(old), "new": str(mode), "who": who})

    def check(self, mode: UnitMode) -> None:
        """Whether START may run in ``mode``. Raises PreflightError."""
        own = self._ex.mode
        if own is UnitMode.DEVELOPMENT and mode is UnitMode.PRODUCTION:
            return
        if mode is not own:
            raise PreflightError(
                (f"MODE: start in {mode} mode, the cell is in {own} mode: set_mode first",)
            )

    def blockers(self, mode: UnitMode) -> tuple[Blocker, ...]:
        """Reasons of the mode against a start, and of what the job says that it is for."""
        found = _beyond_purpose(self._ex.job)
        if mode is UnitMode.MAINTENANCE and self.test_power_w <= 0.0:
            guard = "emission_test starts test emissions, under its guard"
            return (*found, Blocker("TEST_GUARD", guard))
        return found + (self.deviations() if mode is UnitMode.PRODUCTION else ())

    def header(self) -> dict[str, Any]:
        """What a record's header says of deviations from the approved set."""
        found = self.deviations()
        return {"deviations": as_header(found)} if found else {}

    @staticmethod
    def is_test(job: Any) -> bool:
        """Whether a job is a test emission: what maintenance mode may run."""
        return str(job.plan.meta.get("purpose", "")) == TEST_PURPOSE

    # --- activities ----------------------------------------------------------------------

    def run(
        self, name: str, who: str, args: dict[str, Any], work: Coroutine[Any, Any, str]
    ) -> None:
        """Let a sequence run at rest as an activity. Raises StateError."""
        ex = self._ex
        if ex.state is not State.IDLE or ex.activity:
            work.close()
            busy = f", {ex.activity} is under way" if ex.activity else ""
            raise StateError(f"{name} is only possible in state IDLE, not {ex.state.name}{busy}")
        # one that is present already would not be raised again, and so would not end it
        standing = [a.alarm.name for a in ex.alarms.present(Severity.STOP)]
        if standing and name not in _AFTER_ALARMS:
            work.close()
            raise StateError(f"{name} refused: {', '.join(standing)} still present")
        ex.emit("command", {"what": name, "who": who, "args": args})
        ex.activity = name.upper()
        self.last.pop(name, None)
        ex.run_sequence(self._end(name, work))

    async def _end(self, name: str, work: Coroutine[Any, Any, str]) -> None:
        ex, result = self._ex, "ended"
        try:
            result = await work
        except (BridgeError, LmdError) as exc:
            result = str(exc)
            ex.raise_alarm("SEQUENCE_FAILED", f"{name}: {result}")
        except asyncio.CancelledError:
            result = "broken off"
            raise
        finally:
            self.last[name] = result
            ex.emit("sequence", {"what": name, "result": result})
        ex.activity = ""

    # --- test emission -------------------------------------------------------------------

    def _guard(self) -> None:
        """A test emission: the meter must show what was commanded, and show it at all."""
        ex = self._ex
        if self.test_power_w <= 0.0:
            return
        if ex.state in _AT_REST:
            self.test_power_w, self._lit_us = 0.0, -1
            return
        if ex.motion is None or not ex.motion.gate_on:
            self._lit_us = -1
            return
        now_us = ex.snapshot.now_us
        if self._lit_us < 0:
            self._lit_us = now_us
        if now_us - self._lit_us < GUARD_SETTLE_US:
            return
        why = self._meter_says()
        if why:
            ex.raise_alarm("TEST_GUARD", why)

    def _meter_says(self) -> str:
        s, meter = self._ex.snapshot, self._ex.snapshot.power_meter
        if stale(s, self._ex.limits, "power_meter") or not meter.valid:
            return "the power meter has no valid value"
        if meter.overrange:
            return "the power meter is over its range"
        if meter.at_us - self._lit_us < GUARD_SETTLE_US // 2:
            return ""  # read before the light stood
        if not abs(meter.power_w - self.test_power_w) <= GUARD_SHARE * self.test_power_w:
            return f"the meter shows {meter.power_w:.0f} W of {self.test_power_w:.0f} W"
        return ""

"""The motion link to a stock grblHAL controller (facts: docs/reference/grblhal.md).

The controller plans by itself: it is given a program's lines instead of segments, a second or
two ahead of where the axes are, and reports line and position when asked. What it cannot give
is in ``abilities``.

grblHAL has no dead-man. Two things stand in for it: nothing is sent, and so nothing is polled,
once ``token()`` is older than 60 ms (an outside watchdog on the gate then sees a silent line),
and without such a watchdog no line that brings light is sent at all.
"""

import asyncio
import math
from collections.abc import Sequence

import numpy as np

from firmware_bridge import grbl_protocol as gp
from firmware_bridge.errors import DeviceError, ProtocolError, TransportError
from firmware_bridge.grbl_core import AHEAD_US, ANSWER_S, STOP_S, GrblCore
from firmware_bridge.grbl_program import GrblProgram
from firmware_bridge.link_base import PROBE_S
from firmware_bridge.link_types import Abilities, EventCode, FaultCode, ProgramLine
from firmware_bridge.segments import SEGMENT, ticks_of

ORIGIN_TOLERANCE_MM = 0.0015  # positions are told in 0.001 mm
JOG_LIFE_US = 100_000  # that axes go on without another call
LEAST_JOG_S = 0.01
AXES = "XYZABC"

ABILITIES = Abilities(
    dead_man=False,
    power_law=False,
    gate_timing=False,
    exact_position=False,
    gate_first=False,
    hold_at_track_end=False,
    trim=False,
    device_time=False,
    jog=True,
    probe=True,
)
# name -> sentence, for preflight and record
LACKS = {
    "no_dead_man": "the controller plays its buffered blocks, with light, after the host died: "
    f"{AHEAD_US / 1e6:g} s of motion, and the line that reaches beyond it to its end; only the "
    "outside watchdog on the gate ends the light before",
    "linear_power": "power is S v/F (M4): no floor, no other exponent, renewed each 10 ms",
    "gate_at_block_ends": "the gate changes at block ends: source latencies are taken off as way "
    "at planned speed, not in time",
    "hold_after_buffer": "a hold acts after up to 0.1 s of prepared steps, and the light goes "
    "down with the speed instead of before it",
    "own_time_law": "the controller plans its own speeds: powder and gas follow the reported "
    "position, the plan's times are estimates",
    "no_trim": "power cannot be trimmed while it moves",
    "no_device_time": "the controller has no clock: events carry the time at which they came",
}


WHY_NOT = {"trim": "no_trim", "power_law": "linear_power"}


class GrblLink(GrblCore):
    """A grblHAL controller at the end of a wire; the same methods as MotionLink.

    ``status`` is made from the newest report, None before the first. ``failure`` says why the
    link is of no use any more.
    """

    abilities = ABILITIES
    lacks = LACKS
    why_not = WHY_NOT

    # --- commands ----------------------------------------------------------------------

    async def home(self, timeout_s: float = 180.0) -> None:
        """``$H``: home all axes. Raises DeviceError when refused, alarmed or not done in time."""
        await self._still("home")
        self._homing = True
        try:
            await self._stream.ask("$H", timeout_s)
        except DeviceError:
            if self._alarm not in (0, 11):
                raise DeviceError(
                    f"{self._port}: homing failed: {gp.alarm_text(self._alarm)}"
                ) from None
            raise
        finally:
            self._homing = False
        self._maker.homed = True
        self._fault = FaultCode.NONE
        self._write(gp.STATUS_ALL)
        self._tell(EventCode.HOMED, 0)

    async def arm(self) -> None:
        """Set the program's zero and modes, check them. Raises DeviceError with the reason.

        A hold that silence brought (either side was busy) is taken away and it is tried once
        more: nothing is queued then, so nothing moves.
        """
        try:
            await self._arm()
        except DeviceError:
            if not self._self_held or not self._alive:
                raise
            await self._arm()

    async def _arm(self) -> None:
        await self._still("arm")
        if self._fault or not self._maker.homed:
            what = FaultCode(self._fault).name if self._fault else "not homed"
            raise DeviceError(f"{self._port}: ARM refused: {what}")
        zero = [h + o for h, o in zip(self._maker.home_mpos_mm, self._own.origin_mm, strict=False)]
        words = "".join(f"{a}{v:.4f}" for a, v in zip("XYZ", zero, strict=False))
        await self._stream.ask("M5", ANSWER_S)
        await self._stream.ask("G21G90G94G17G54", ANSWER_S)
        await self._stream.ask(f"G10L2P1{words}", ANSWER_S)
        for line in await self._stream.ask("$#", ANSWER_S):
            if line.startswith("[G54:"):
                told = [float(v) for v in line[5:-1].split(",")[:3]]
                if all(abs(t - z) < ORIGIN_TOLERANCE_MM for t, z in zip(told, zero, strict=False)):
                    break
                raise DeviceError(f"{self._port}: ARM refused: {line} is not the zero {words}")
        else:
            raise DeviceError(f"{self._port}: ARM refused: the controller tells no [G54:...]")
        self._armed = True
        self._tell(EventCode.ARMED, 1)

    async def disarm(self) -> None:
        """Hold, then drop what is buffered at standstill: the light is off, the place is kept."""
        self._streaming = False
        self._armed = False
        await self._empty()
        self._tell(EventCode.ARMED, 0)

    async def reset(self) -> None:
        """Reset edge: drops what is buffered, unlocks; never arms, homes or starts.

        Position that was lost stays lost: ``status.homed`` is False until ``home()``.
        """
        if self.report.state in ("Alarm", "Hold", "Door", "Run", "Jog") or self._stream.n_lines:
            await self._empty()
        if self.report.state == "Alarm" and self._alarm != 11:
            await self._stream.ask("$X", ANSWER_S)
            await self._until(lambda: self.report.state != "Alarm", ANSWER_S)
        self._alarm = 0
        self._token_us = self._now_us()
        if self._fault:
            self._fault = FaultCode.NONE
            self._tell(EventCode.FAULT_RESET, 0)
        if self.status is not None:
            self._make_status()

    def jog(self, speeds_mm_s: Sequence[float]) -> None:
        """As MotionLink.jog: call it each 40 ms; without calls the axes stop by themselves.

        The controller jogs by ways, so it is given those of the next 100 ms. Other speeds end
        the jog first, and the next call goes on once the axes stand. A way that would end
        beyond the travel is refused whole, as ``refusal`` says.
        """
        speeds = self._checked_speeds(speeds_mm_s)
        if not self._alive:
            return
        now = self._now_us()
        if self.report.state == "Jog" or self._jog_until_us > now:
            if speeds != self._jog_speeds:
                self._jog_speeds, self._jog_until_us = [], 0
                self._write(gp.JOG_CANCEL)
                return
        elif self.report.state != "Idle" or self._stream.n_lines:
            self.refusal = f"{self._port}: JOG refused: state {self.report.state}"
            return
        if not any(speeds):
            return
        begin_us = max(now, self._jog_until_us)
        share_s = (now + JOG_LIFE_US - begin_us) * 1e-6
        ways = "".join(
            f"{letter}{v * share_s:.3f}" for letter, v in zip(AXES, speeds, strict=False) if v
        )
        line = f"$J=G91G21{ways}F{math.hypot(*speeds) * 60.0:.1f}"
        if share_s < LEAST_JOG_S or not self._stream.room(line):
            return
        self._jog_speeds, self._jog_until_us = speeds, now + JOG_LIFE_US
        self._write(self._stream.put(line))

    async def probe(
        self, axis: int, target_mm: float, speed_mm_s: float, timeout_s: float = PROBE_S
    ) -> float:
        """As MotionLink.probe, by G38.3: a miss is no alarm."""
        self._check_axis(axis)
        await self._still("probe")
        older = self.status
        await self._until(lambda: self.status is not older, ANSWER_S)  # where it is now
        if self._alarm or not self._maker.homed:
            why = gp.alarm_text(self._alarm) if self._alarm else "not homed"
            raise DeviceError(f"{self._port}: PROBE refused: {why}")
        home_mm = self._maker.home_mpos_mm[axis]
        way_mm = target_mm - (self.report.machine_mm[axis] - home_mm)
        line = f"G91G38.3{AXES[axis]}{way_mm:.3f}F{abs(speed_mm_s) * 60.0:.1f}"
        assert self._loop is not None
        ended = self._probe_stop = self._loop.create_future()
        asked = asyncio.ensure_future(self._stream.ask(line, timeout_s))
        try:
            await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done() or self.report.state == "Hold":
                await self._empty()  # of what a hold broke off nothing may go on
                raise self._probe_ended(axis)
            told = asked.result()
        except DeviceError:
            if self._fault == FaultCode.HOST_ABORT:
                raise self._probe_ended(axis) from None
            if asked.done() and self.report.state == "Run":
                await self._empty()
                raise self._probe_late(timeout_s) from None
            raise
        finally:
            self._probe_stop = None
            asked.cancel()
        if self._alarm:
            raise DeviceError(f"{self._port}: PROBE refused: {gp.alarm_text(self._alarm)}")
        await self._stream.ask("G90", ANSWER_S)
        found = next((p for p in map(gp.read_probe, told) if p is not None), None)
        if found is None:
            raise DeviceError(f"{self._port}: the controller told no probe result")
        place_mm, touched = found
        if not touched:
            raise self._not_touched(axis, target_mm)
        return place_mm[axis] - home_mm

    async def _still(self, what: str) -> None:
        if self._stream.n_lines:
            raise DeviceError(f"{self._port}: {what} refused: a program is under way")
        if self._self_held and self._alive and self.report.state in ("Idle", "Hold"):
            await self._empty()  # a hold of our own: the report may be older than it
        if not await self._until(lambda: self.report.state in ("Idle", "Alarm"), STOP_S):
            raise DeviceError(f"{self._port}: {what} refused: state {self.report.state}")

    def hold(self, *, now: bool) -> None:
        """Feed hold: at once, or as soon as the axes are seen beyond the track's end."""
        self._hold_pending = not now
        if now:
            self._self_held = False
            self._hold_now()

    def unhold(self) -> None:
        """Cycle start: light and motion go on where they stopped, power growing with speed."""
        self._hold_pending = self._self_held = False
        self._write(gp.CYCLE_START)

    def abort(self) -> None:
        """Soft reset at once: light off, steps end dead, position lost where axes moved."""
        self._streaming = self._armed = False
        self._set_fault(FaultCode.HOST_ABORT)
        self._write(gp.SOFT_RESET)

    def override(self, scale: float) -> None:
        """Feed override in whole percent, 10 to 200; below that a hold at once."""
        wanted = round(scale * 100.0)
        if wanted < gp.LEAST_FEED_PERCENT:
            self.hold(now=True)
            return
        left = min(wanted, gp.GREATEST_FEED_PERCENT) - 100
        tens, ones = divmod(abs(left), 10)
        coarse, fine = (
            (gp.FEED_PLUS_10, gp.FEED_PLUS_1) if left > 0 else (gp.FEED_MINUS_10, gp.FEED_MINUS_1)
        )
        self._write(gp.FEED_100 + coarse * tens + fine * ones)

    def trim(self, factor: float) -> None:
        """Only 1 can be given; any other factor is refused and stays in ``refusal``."""
        if factor != 1.0:
            self.refusal = f"{self._cannot('trim')}: factor {factor:g}"

    # --- the program -------------------------------------------------------------------

    def load(self, segments: np.ndarray) -> None:
        """Segments mean nothing to this controller. Raises ProtocolError."""
        raise ProtocolError(f"{self._port}: grblHAL takes a program, not {len(segments)} segments")

    def load_program(self, lines: Sequence[ProgramLine], segments: np.ndarray) -> None:
        """The job's lines, and the plan's segments for their times.

        Raises DeviceError when it brings light and the cell has no gate watchdog.
        """
        if segments.dtype != SEGMENT or segments.ndim != 1:
            raise ProtocolError(f"segments are {segments.dtype}, wanted the 22 byte SEGMENT")
        ends = np.concatenate([[0], np.cumsum(ticks_of(segments))]).tolist()
        program = GrblProgram(lines, ends)
        program.guard(self._own.gate_watchdog)
        self.program = program
        self.refusal = ""
        self._streaming = False
        self._next = 0

    def start(self, first: int = 0) -> None:
        """Stream the program from its first line on; ``first`` is the segment it stands for."""
        program = self.program
        if program is None or not self._armed:
            raise ProtocolError(f"{self._port}: START refused: not armed, or no program")
        program.guard(self._own.gate_watchdog)
        self._next = 0
        program.seek(0)
        self.refusal = ""
        self._hold_pending = self._after_all = False
        if self.report.state == "Idle" and not self._stream.n_lines:
            self._streaming = True
            self._pump()
            return
        assert self._loop is not None
        self._streaming = False
        self._starting = self._loop.create_task(self._start_anew(), name="grblHAL start")

    async def _start_anew(self) -> None:
        """From a hold: what is queued is dropped first."""
        try:
            await self._empty()
            if self.report.state == "Alarm":
                raise DeviceError(f"{self._port}: {gp.alarm_text(self._alarm)}")
        except (DeviceError, TransportError) as exc:
            self.refusal = f"{self._port}: FLUSH refused: {exc}"
            return
        finally:
            self._starting = None
        self._armed = self._streaming = True
        self._pump()

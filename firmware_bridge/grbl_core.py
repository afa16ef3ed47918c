"""A grblHAL controller at the end of a wire: connection, sign of life, answers, status.

What is asked of it is in grbl_link.py.
"""

import asyncio
import zlib
from collections.abc import Callable

from firmware_bridge import grbl_protocol as gp
from firmware_bridge.errors import DeviceError, ProtocolError, TransportError
from firmware_bridge.grbl_program import GrblProgram
from firmware_bridge.grbl_settings import GrblSettings, differences, home_mpos_mm
from firmware_bridge.grbl_status import StatusMaker
from firmware_bridge.grbl_stream import LineReader, Stream
from firmware_bridge.link_base import TOKEN_LIFE_US, LinkBase
from firmware_bridge.link_types import (
    EventCode,
    FaultCode,
    LinkEvent,
    LinkIdentity,
    LinkSettings,
    LinkState,
    LinkStats,
)
from firmware_bridge.transport import Port, Wire

AHEAD_US = 1_500_000  # of plan time that is given to the controller; longer lines go whole
HANDSHAKE_S = 0.3
ANSWER_S = 1.0
STOP_S = 2.0  # from hold to standstill: 0.1 s of prepared steps, then the axes' deceleration


class GrblCore(LinkBase):
    """Connection and state of one controller."""

    def __init__(self, port: Port, settings: LinkSettings, own: GrblSettings | None = None) -> None:
        super().__init__(port, settings)
        self._own = own or GrblSettings()
        self.build = gp.BuildInfo()
        self.values: dict[int, str] = {}  # settings as told
        self.report = gp.Report()
        self.program: GrblProgram | None = None
        self._wire: Wire | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._forget()

    def _forget(self) -> None:
        """Everything that belongs to one connection."""
        self._reader = LineReader()
        self._stream = Stream(self._write, str(self._port))
        self._maker = StatusMaker(self._settings, self._own.full_scale_s)
        self._token_us = -1  # -1: nobody has given a sign of life yet
        self._silent = False
        self._self_held = False  # by silence, and no reset or cycle start since
        self._armed = False
        self._fault = FaultCode.NONE
        self._streaming = False
        self._starting: asyncio.Task[None] | None = None
        self._next = 0
        self._hold_pending = False
        self._homing = False
        self._jog_speeds: list[float] = []
        self._jog_until_us = 0  # that the ways given so far last
        self._probe_stop: asyncio.Future[None] | None = None  # done: a probe is to be left
        self._banner: asyncio.Future[None] | None = None
        self._alarm = 0
        self._asked_us = -1
        self._after_all = False  # a report came after the last answer

    # --- connection -------------------------------------------------------------------

    async def connect(self) -> LinkIdentity:
        """Open the port, identify the controller, compare its settings with the cell.

        A controller found moving is held and its queue is dropped first. Raises TransportError
        (no port, no answer) or ProtocolError (no grblHAL, settings that do not fit the cell).
        """
        self.close()
        self._forget()
        self.stats = LinkStats()
        self.report = gp.Report()
        self.status, self.failure, self.refusal = None, "", ""
        self._loop = asyncio.get_running_loop()
        self._wire = await self._port.open()
        self._wire.set_receiver(self._received, self._wire_lost)
        try:
            await self._first_report()
            if self.report.state in ("Run", "Jog", "Hold", "Door"):
                await self._empty()
            self.build = gp.read_build_info(await self._stream.ask("$I", ANSWER_S))
            self._stream.rx_bytes = self.build.rx_bytes
            await self._read_settings()
        except BaseException:
            self.close()
            raise
        whole = "".join(f"${n}={v}\n" for n, v in sorted(self.values.items()))
        self.identity = LinkIdentity(
            protocol=1,
            firmware=f"{self.build.firmware} {self.build.version}".strip(),
            boot_nonce=0,
            config_hash=zlib.crc32(whole.encode("ascii")),
            queue_size=self.build.blocks,
            n_axes=len(self._settings.axes),
        )
        self._write(gp.STATUS_ALL)
        self._tick()
        return self.identity

    async def _first_report(self) -> None:
        assert self._loop is not None
        for _ in range(5):
            self._write(gp.STATUS_ALL)
            if await self._until(lambda: bool(self.report.state), HANDSHAKE_S):
                return
        raise TransportError(f"{self._port}: no grblHAL controller answers a status request")

    async def _read_settings(self) -> None:
        if self.build.firmware != "grblHAL":
            raise ProtocolError(f"{self._port}: firmware is {self.build.firmware!r}, not grblHAL")
        n = len(self._settings.axes)
        if len(self.build.axes) < n or self.build.axes[:n] != "XYZABC"[:n]:
            raise ProtocolError(
                f"{self._port}: controller has axes {self.build.axes}, the cell {'XYZABC'[:n]}"
            )
        told = [gp.read_setting(line) for line in await self._stream.ask("$$", 2 * ANSWER_S)]
        self.values = dict(pair for pair in told if pair is not None)
        found = differences(self.values, self._settings, self._own)
        if found:
            raise ProtocolError(f"{self._port}: settings do not fit the cell: {'; '.join(found)}")
        self._maker.home_mpos_mm = home_mpos_mm(self.values, n)

    def close(self) -> None:
        """Fall silent and give the port back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._streaming = self._armed = False
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        self._stream.forget(TransportError("the motion link was closed"))
        if self._banner is not None and not self._banner.done():
            self._banner.set_exception(TransportError("the motion link was closed"))

    def _write(self, data: bytes) -> None:
        if self._wire is None or not self._wire.is_open:
            raise TransportError(self.failure or f"{self._port}: not connected")
        self.stats.frames_sent += 1
        self._wire.write(data)

    async def _until(self, test: Callable[[], bool], limit_s: float) -> bool:
        """Wait for reports to say so; asks for them where the poll does not yet."""
        assert self._loop is not None
        end_s = self._loop.time() + limit_s
        while not test():
            if self._wire is None:
                raise TransportError(self.failure or f"{self._port}: not connected")
            if self._loop.time() >= end_s:
                return False
            if self._timer is None and self.report.state:
                self._write(gp.STATUS)
            await asyncio.sleep(self._own.poll_s)
        return True

    # --- sign of life ------------------------------------------------------------------

    def token(self) -> None:
        """The supervisor is alive; lines and polls go out for 60 ms more."""
        super().token()
        self._silent = False

    def stop_beating(self) -> None:
        """A hold, then nothing goes out any more: the outside watchdog shuts the gate."""
        self._token_us = 0
        if not self._silent and self._wire is not None and self._wire.is_open:
            self._fall_silent()

    def _fall_silent(self) -> None:
        """The hold is the last byte: the outside watchdog counts from here on."""
        self._silent = self._self_held = True
        self._hold_now()

    def _hold_now(self) -> None:
        """Feed hold; a jog ends, a probe is left."""
        if self.report.state == "Jog" or self._jog_until_us > self._now_us():
            self._jog_until_us = 0
            self._write(gp.JOG_CANCEL)
        self._write(gp.FEED_HOLD)
        if self._probe_stop is not None and not self._probe_stop.done():
            self._probe_stop.set_result(None)

    @property
    def _alive(self) -> bool:
        return self._token_us < 0 or self._now_us() - self._token_us < TOKEN_LIFE_US

    def _tick(self) -> None:
        """Each poll period, on whole multiples so that it shares instants with the control tick."""
        if self._wire is None or self._loop is None or not self._wire.is_open:
            return
        now = self._now_us()
        if self._alive:
            self.stats.beats += 1
            self._asked_us = now
            self._write(gp.STATUS)
        elif not self._silent:
            self._fall_silent()
        period = round(self._own.poll_s * 1e6)
        due = (now // period + 1) * period
        if not self._silent and self._token_us >= 0:
            # the hold is the last byte: the outside watchdog counts from the token's very end
            due = min(due, max(self._token_us + TOKEN_LIFE_US, now + 1))
        self._timer = self._loop.call_at(due * 1e-6, self._tick)

    async def _empty(self) -> None:
        """Stand still, then a soft reset: no alarm, position kept, nothing queued, spindle off.

        A reset at standstill keeps the position; one in motion does not.
        """
        assert self._loop is not None
        if self.report.state == "Jog":
            self._write(gp.JOG_CANCEL)
            await self._until(lambda: self.report.state != "Jog", STOP_S)
        elif self.report.state not in ("Alarm", "Door") and not self._stands():
            # also when idle: a line that waits in the buffer may begin to move at any moment
            self._write(gp.FEED_HOLD)
            await self._until(self._stands, STOP_S)
        banner = self._banner = self._loop.create_future()
        self._write(gp.SOFT_RESET)
        try:
            await asyncio.wait_for(banner, ANSWER_S)
        except TimeoutError:
            raise DeviceError(f"{self._port}: no answer to a reset in {ANSWER_S} s") from None
        finally:
            self._banner = None
        self._write(gp.STATUS_ALL)
        self.report.state = ""
        await self._until(lambda: bool(self.report.state), ANSWER_S)

    def _stands(self) -> bool:
        """At rest in a hold, from where nothing begins to move by itself."""
        r = self.report
        if r.state == "Hold":
            return r.substate == 0  # 1: still slowing down
        return r.state == "Alarm" or (r.state == "Door" and r.substate in (0, 1))

    @property
    def finished(self) -> bool:
        """All lines were answered, and a report after that told an idle, empty controller."""
        program = self.program
        return (
            self._streaming
            and program is not None
            and self._next >= len(program)
            and not self._stream.n_lines
            and self._after_all
        )

    def _pump(self) -> None:
        """Send what the receive buffer holds and the time ahead permits."""
        program = self.program
        if not self._streaming or program is None or not self._alive:
            return
        stream, text, start_us = self._stream, program.text, program.start_us
        goal_us = program.plan_us + AHEAD_US
        out = []
        n = self._next
        while n < len(text) and (start_us[n] <= goal_us or stream.n_lines < 2):
            line = f"N{n + 1}{text[n]}"
            if not stream.room(line):
                break
            out.append(stream.put(line, n))
            n += 1
        self._next = n
        if out:
            self._after_all = False
            self._write(b"".join(out))

    # --- receiving ---------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        for line in self._reader.feed(data):
            self.stats.frames_received += 1
            first = line[0]
            if first == "o" and line == "ok":
                self._answered(0)
            elif first == "<":
                self._got_report(line)
            elif line.startswith("error:"):
                self._answered(int(line[6:]) if line[6:].isdecimal() else 255)
            elif line.startswith("ALARM:"):
                self._got_alarm(int(line[6:]) if line[6:].isdecimal() else 255)
            elif gp.is_banner(line):
                self._got_banner()
            else:
                self._stream.told(line)
            if self._wire is None:
                return
        self.stats.bad_bytes = self._reader.bad_bytes
        self._pump()

    def _answered(self, error: int) -> None:
        item = self._stream.answered(error)
        if item is None or not error:
            return
        self.stats.refused += 1
        if item.text.startswith("$J="):
            self._jog_until_us = 0
            self.refusal = f"{self._port}: JOG refused: {item.text!r}: {gp.error_text(error)}"
            self._tell(EventCode.REFUSED, error)
        if item.line >= 0 and self._streaming:  # those behind it get the same error
            self._streaming = False
            self.refusal = (
                f"{self._port}: SEGMENTS refused: program line {item.line + 1} {item.text!r}: "
                f"{gp.error_text(error)}"
            )
            self._write(gp.FEED_HOLD)
            self._tell(EventCode.REFUSED, error)

    def _got_alarm(self, number: int) -> None:
        self._alarm = number
        if number == 11:  # homing is required: no fault, a state
            self._maker.homed = False
            return
        if number in gp.POSITION_LOST:
            self._maker.homed = False
            self._tell(EventCode.LOST, number)
        self._streaming = self._armed = False
        if self._fault != FaultCode.HOST_ABORT:
            self._set_fault(gp.ALARM_FAULTS.get(number, FaultCode.LIMIT))

    def _got_banner(self) -> None:
        """The controller starts anew: nothing that was sent before it will be answered."""
        self._self_held = False
        wanted = self._banner is not None or self._homing or self._fault == FaultCode.HOST_ABORT
        self._stream.forget(DeviceError(f"{self._port}: the controller was reset"))
        self._streaming = self._armed = False
        if self._banner is not None:
            if not self._banner.done():
                self._banner.set_result(None)
        elif not wanted and self.status is not None:
            # power was gone, somebody pressed reset, or the controller restarted by itself
            self._maker.homed = False
            self._tell(EventCode.LOST, 0)
            self._fail(f"{self._port}: the motion controller was restarted, position unknown")

    def _got_report(self, line: str) -> None:
        try:
            gp.read_report(line, self.report)
        except ProtocolError:
            self.stats.bad_bytes += len(line)
            return
        if self.report.homed >= 0:
            self._maker.homed = bool(self.report.homed)
            self.report.homed = -1
        if self._timer is not None:
            self.stats.rtt_us = self._now_us() - self._asked_us
            self.stats.rtt_max_us = max(self.stats.rtt_max_us, self.stats.rtt_us)
            self._make_status()

    def _make_status(self) -> None:
        """The status that the report means, and the events between it and the one before."""
        r, program, stream = self.report, self.program, self._stream
        now = self._now_us()
        waiting = self._streaming and program is not None
        if waiting and program is not None:
            idle = r.state == "Idle" and r.blocks_free in (-1, self.build.blocks)
            if idle and not stream.n_lines and self._next >= len(program):
                self._after_all = True
                program.done()
            elif r.machine_mm and r.state != "Home":
                zero = self._maker.home_mpos_mm
                origin = self._own.origin_mm
                x, y, z = (r.machine_mm[k] - zero[k] - origin[k] for k in range(3))
                program.follow(r.line - 1 if r.line else program.at, (x, y, z), now)
        old = self.status
        new = self.status = self._maker.status(
            r, now, program if waiting else None, self._armed, self._fault, self._alarm,
            self._streaming and not self._after_all,
            self._hold_pending,
            self.build.blocks - max(0, r.blocks_free) + stream.n_lines,
        )  # fmt: skip
        if self.on_status is not None:
            self.on_status(new)
        if old is not None:
            for code, arg in self._maker.changes(old, new):
                self._tell(code, arg)
            if new.state == LinkState.RUN and r.state == "Idle" and r.line and stream.n_lines == 0:
                self.stats.underruns += self._next < (len(program) if program else 0)
        if self._hold_pending and not new.gate_on:
            self._hold_pending = False
            if r.state == "Run":
                self._write(gp.FEED_HOLD)
        self._pump()

    def _set_fault(self, code: FaultCode) -> None:
        if self._fault != code:
            self._fault = code
            self._tell(EventCode.FAULT, int(code))

    def _tell(self, code: EventCode, arg: int) -> None:
        if self.on_event is not None:
            segment = -1 if self.status is None else self.status.segment
            self.on_event(LinkEvent(self._now_us(), int(code), arg, segment))

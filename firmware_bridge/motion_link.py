"""The motion link to the reference firmware: commands, status, events (docs/protocol.md).

One object in an asyncio loop; it knows the loop's time only, so virtual time needs nothing
special. As a process of its own: link_process.py. Handshake and beats: motion_link_session.py;
streaming: motion_link_stream.py.
"""

import asyncio
import struct
from collections.abc import Mapping, Sequence

from firmware_bridge import framing
from firmware_bridge.errors import DeviceError, ProtocolError, TransportError
from firmware_bridge.framing import T, encode
from firmware_bridge.link_base import PROBE_S
from firmware_bridge.link_types import (
    N_AXES,
    SEGMENT_LINK,
    AxisSettings,
    EventCode,
    FaultCode,
    LinkEvent,
    LinkIdentity,
    LinkState,
    MotionStatus,
    ProbeOutcome,
)
from firmware_bridge.motion_link_session import BEAT_US
from firmware_bridge.motion_link_stream import StreamingLink


class MotionLink(StreamingLink):
    """A motion controller at the end of a wire.

    ``status`` is the newest status frame, None before the first. ``failure`` says why the link
    is of no use any more, "" while it is. Refusals of awaited commands raise DeviceError; those
    of others come as events (EventCode.REFUSED) and stay in ``refusal``.
    """

    abilities = SEGMENT_LINK
    lacks: Mapping[str, str] = {}

    def _forget(self) -> None:
        super()._forget()
        self._homing: asyncio.Future[None] | None = None
        self._probing: asyncio.Future[tuple[int, int]] | None = None

    async def connect(self) -> LinkIdentity:
        """Open the port and shake hands; the status is None until the first one comes.

        Raises TransportError (no port, no answer) or ProtocolError (other protocol version,
        other configuration, other number of axes).
        """
        self.status = None
        self._stop_streaming()  # what the controller still has queued is not ours any more
        return await super().connect()

    def _fail_waiting(self, reason: str) -> None:
        super()._fail_waiting(reason)
        for future in (self._homing, self._probing):
            if future is not None and not future.done():
                future.set_exception(TransportError(reason))
        self._homing = self._probing = None

    # --- commands ----------------------------------------------------------------------

    async def home(self, timeout_s: float = 180.0) -> None:
        """Home all axes. Raises DeviceError when refused, faulted or not done in time."""
        assert self._loop is not None
        self._stop_streaming()
        await self._command(T.FLUSH, struct.pack("<I", 0) + self._go())
        await self._with_beats(T.HOME, self._go())
        done = self._homing = self._loop.create_future()
        try:
            await asyncio.wait_for(done, timeout_s)
        except TimeoutError:
            raise DeviceError(f"{self._port}: homing took longer than {timeout_s:g} s") from None
        finally:
            self._homing = None

    async def arm(self) -> None:
        """Arm. Raises DeviceError with the device's reason when it refuses."""
        self._session += 1
        self._counter = 0
        payload = struct.pack("<III", self._nonce, self._session, self._config_hash)
        await self._command(T.ARM, payload + self._go())

    async def disarm(self) -> None:
        """Gate off at once, decelerate, disarmed. Raises DeviceError without an answer."""
        await self._urgently(T.DISARM)

    async def reset(self) -> None:
        """Reset edge: clears a latched fault, never arms or starts. Beats may go out again."""
        await self._command(T.RESET, self._go())
        self._beating = True

    def hold(self, *, now: bool) -> None:
        """Stop along the path: at once with the gate shut first, or at the track's end."""
        if now:
            self._send_urgent(T.HOLD_NOW)
        else:
            self._sequenced(T.HOLD)

    def unhold(self) -> None:
        """Take a hold back; the gate follows when the time scale is back."""
        self._sequenced(T.UNHOLD, self._go())

    def abort(self) -> None:
        """Gate off, decelerate, fault latched."""
        self._send_urgent(T.ABORT)

    def override(self, scale: float) -> None:
        """Time scale; 0 or below the recipe's window is a hold at once."""
        self._sequenced(T.OVERRIDE, struct.pack("<H", _q15(scale)))

    def trim(self, factor: float) -> None:
        """Power factor; forgotten by the controller after 100 ms."""
        self._sequenced(T.TRIM, struct.pack("<H", _q15(factor)))

    async def power_law(self, number: int, points: Sequence[tuple[float, float]]) -> None:
        """Set power law 1, 2 or 3: 2 to 17 points (speed / nominal, g), both rising.

        Between them log g runs straight over log r, so ``r ** k`` needs two points and is exact
        everywhere. PARAM records name the law by its number. The controller's queue must be
        empty. Raises ProtocolError, DeviceError.
        """
        rows = [(_q15(r), round(g * 2**24)) for r, g in points]
        if not 2 <= len(rows) <= framing.LAW_POINTS or any(g > 0xFFFFFFFF for _, g in rows):
            raise ProtocolError(f"power law {number}: {len(rows)} points, or g above 255")
        rows += [(0, 0)] * (framing.LAW_POINTS - len(rows))
        head = struct.pack("<BB", number, len(points))
        await self._command(T.LAW, head + b"".join(struct.pack("<HI", *row) for row in rows))

    # --- jog and probe -----------------------------------------------------------------

    def jog(self, speeds_mm_s: Sequence[float]) -> None:
        """Axes go at these speeds (degree/s where they turn); dead-man.

        To be called again at least each 100 ms, best each 40 ms, while the operator wants it;
        otherwise the controller decelerates by itself. All 0 ends it at once. It counts as a
        beat, so nothing is sent without the supervisor's token. Axes not given stand still. A
        refusal comes as an event and stays in ``refusal``.
        """
        speeds = self._checked_speeds(speeds_mm_s)
        if self._may_beat(self._now_us()):
            steps = [_step_s(a, v) for a, v in zip(self._settings.axes, speeds, strict=True)]
            steps += [0] * (N_AXES - len(steps))
            payload = self._beat_payload() + self._go() + struct.pack("<6i", *steps)
            self._write(encode(T.JOG, 0, payload))

    async def probe(
        self, axis: int, target_mm: float, speed_mm_s: float, timeout_s: float = PROBE_S
    ) -> float:
        """Go towards ``target_mm`` (from the home switch) until the probe input closes.

        Returns the axis' position at the edge, mm from its home switch. Raises DeviceError: the
        input never closed, refused, ended by a stop or a fault, not done in time.
        """
        assert self._loop is not None
        self._check_axis(axis)
        own = self._settings.axes[axis]
        target = round(target_mm * own.steps_per_mm)
        payload = self._go() + struct.pack("<B3xiI", axis, target, abs(_step_s(own, speed_mm_s)))
        await self._with_beats(T.PROBE, payload)
        done = self._probing = self._loop.create_future()
        try:
            outcome, steps = await asyncio.wait_for(done, timeout_s)
        except TimeoutError:
            self._send_urgent(T.HOLD_NOW)
            raise self._probe_late(timeout_s) from None
        finally:
            self._probing = None
        if outcome == ProbeOutcome.MISSED:
            raise self._not_touched(axis, target_mm)
        if outcome != ProbeOutcome.FOUND:
            raise self._probe_ended(axis)
        return steps / own.steps_per_mm

    # --- receiving ---------------------------------------------------------------------

    def _beat_told_since(self, at_us: int) -> bool:
        status = self.status
        return (
            status is not None and status.received_us > at_us and status.beat_age_us <= 2 * BEAT_US
        )

    def _got_status(self, payload: bytes) -> None:
        now = self._now_us()
        previous = self.status
        v = framing.STATUS.unpack(payload)
        if previous is not None and v[0] < previous.device_us:
            self._fail(f"{self._port}: the motion controller was restarted")
            return
        status = read_status(v, now)
        self._bounds.came(now, v[0])
        self._acknowledged(v[18], v[19], v[15])
        self.status = status
        self._status_counts = self._flushed
        if self.on_status is not None:
            self.on_status(status)
        self._settle(status)
        self._watch_queue(status)
        self._resend_if_late(now)
        self._pump()

    def _settle(self, status: MotionStatus) -> None:
        """Homing and probing are over when the status says so."""
        homing, probing = self._homing, self._probing
        if homing is not None and not homing.done():
            if status.homed and status.state == LinkState.IDLE:
                homing.set_result(None)
            elif status.fault:
                name = FaultCode(status.fault).name
                homing.set_exception(DeviceError(f"{self._port}: homing failed, fault {name}"))
        if probing is not None and not probing.done():
            over = status.probe not in (ProbeOutcome.NONE, ProbeOutcome.UNDER_WAY)
            if over and status.state != LinkState.PROBE:
                probing.set_result((status.probe, status.probe_steps))

    def _got_events(self, payload: bytes) -> None:
        for device_us, code, arg, segment in framing.EVENT.iter_unpack(payload):
            if (code == EventCode.HOLD and arg == 3) or (
                code == EventCode.FAULT and arg == FaultCode.UNDERRUN
            ):
                self.stats.underruns += 1
            if self.on_event is not None:
                self.on_event(LinkEvent(device_us, code, arg, segment))


def read_status(v: tuple[int, ...], received_us: int) -> MotionStatus:
    """A status payload, unpacked by framing.STATUS."""
    flags = v[2]
    return MotionStatus(
        v[0],
        v[1],
        bool(flags & 1),
        bool(flags & 2),
        bool(flags & 4),
        bool(flags & 8),
        v[3],
        v[4],
        v[5],
        v[6] / 32768.0,
        v[7] / 65535.0,
        v[8:14],
        v[14],
        v[17],
        v[16],
        received_us,
        bool(flags & 16),
        v[20],
        v[21],
        v[22],
        v[25],
        v[23],
        v[26:32],
    )


def _q15(value: float) -> int:
    """1/32768, limited to what 16 bits hold."""
    return min(65535, max(0, int(value * 32768 + 0.5)))


def _step_s(axis: AxisSettings, speed_mm_s: float) -> int:
    """Speed in step/s, no more than the axis' greatest as the configuration has it."""
    most = int(axis.speed_mm_s * axis.steps_per_mm + 0.5)
    return max(-most, min(most, round(speed_mm_s * axis.steps_per_mm)))

"""The motion link: handshake, heartbeat, streaming with credit, resending (docs/protocol.md).

One object in an asyncio loop; it knows the loop's time only, so virtual time needs nothing
special. ``python -m firmware_bridge.motion_link --fd N`` is the same as a process of its own
(see motion_link_process.py).

The dead-man: a beat goes out each 20 ms only while ``token()`` was called less than 60 ms ago;
the controller shuts the gate when beats stop. An unanswered stop stops the beats as well.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from firmware_bridge import framing
from firmware_bridge.errors import DeviceError, ProtocolError, TransportError
from firmware_bridge.framing import MAX_SEGMENTS, SEGMENT_BYTES, Decoder, Refusal, T, encode
from firmware_bridge.link_types import (
    SEGMENT_LINK,
    EventCode,
    FaultCode,
    LinkEvent,
    LinkIdentity,
    LinkSettings,
    LinkState,
    LinkStats,
    MotionStatus,
)
from firmware_bridge.segments import SEGMENT, ticks_of
from firmware_bridge.transport import Port, Wire

BEAT_US = 20_000
TOKEN_LIFE_US = 60_000
RESEND_US = 20_000
URGENT_REPEAT_S = 0.004
URGENT_LIMIT_US = 10_000
DEPTH_US = 1_000_000  # refill below this much queued time ...
REFILL_US = 1_250_000  # ... up to this
WINDOW = 8  # frames under way: a fill must not overrun the receiver's buffer
HANDSHAKE_S = 0.2
ANSWER_S = 1.0
OFFSET_BLOCK = 500  # status frames over which the clock offset's least is taken

_U32 = 0xFFFFFFFF
# an urgent frame that supersedes one still unanswered must not be weaker than it
_SEVERITY = {T.HOLD_NOW: 0, T.DISARM: 1, T.ABORT: 2}


def _before(a: int, b: int) -> bool:
    """Sequence number a comes before b, modulo 2^32."""
    return 0 < ((b - a) & _U32) < 0x80000000


class MotionLink:
    """A motion controller at the end of a wire.

    ``status`` is the newest status frame, None before the first. ``failure`` says why the link
    is of no use any more, "" while it is. Refusals of awaited commands raise DeviceError; those
    of others come as events (EventCode.REFUSED) and stay in ``refusal``.
    """

    abilities = SEGMENT_LINK
    lacks: Mapping[str, str] = {}

    def __init__(self, port: Port, settings: LinkSettings) -> None:
        self._port = port
        self._settings = settings
        self._config_hash = settings.config_hash()
        self.identity: LinkIdentity | None = None
        self.status: MotionStatus | None = None
        self.stats = LinkStats()
        self.failure = ""
        self.refusal = ""
        self.on_event: Callable[[LinkEvent], None] | None = None
        self.on_lost: Callable[[str], None] | None = None
        self.on_status: Callable[[bytes, int], None] | None = None  # raw payload, received_us
        self._wire: Wire | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._decoder = Decoder()
        self._timer: asyncio.TimerHandle | None = None
        self._urgent_timer: asyncio.TimerHandle | None = None
        self._forget()
        self._segments = memoryview(b"")
        self._ends_us = np.zeros(1, np.int64)  # planned time before segment i, (n+1,)
        self._n = 0
        self._stop_streaming()

    def _forget(self) -> None:
        """Everything that belongs to one connection."""
        self._nonce = 0
        self._seq = 0
        self._urgent = 0
        self._session = 0
        self._counter = 0
        self._beating = False
        self._token_us = -TOKEN_LIFE_US
        self._unacked: deque[list] = deque()  # [seq, frame, sent_us]
        self._first_sent: deque[tuple[int, int]] = deque()  # (seq, us) for the round trip
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._urgent_pending: tuple[int, T, int] | None = None  # number, type, first sent us
        self._urgent_waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._hello: asyncio.Future[bytes] | None = None
        self._homing: asyncio.Future[None] | None = None
        self._credit = 0  # index that may not be sent yet
        self._frames_seen = 0
        self._offset_n = 0
        self._offset_least = [0, 0]

    def _stop_streaming(self) -> None:
        self._next = 0
        self._first = 0
        self._flush_seq: int | None = None
        self._flushed = False
        self._status_counts = False

    # --- connection -------------------------------------------------------------------

    async def connect(self) -> LinkIdentity:
        """Open the port and shake hands.

        Raises TransportError (no port, no answer) or ProtocolError (other protocol version,
        other configuration, other number of axes).
        """
        self.close()
        self._forget()
        self._decoder = Decoder()
        self.stats = LinkStats()
        self.status, self.failure, self.refusal = None, "", ""
        self._loop = asyncio.get_running_loop()
        self._wire = await self._port.open()
        self._wire.set_receiver(self._received, self._wire_lost)
        try:
            values = await self._shake_hands()
            self._check_identity(values)
        except BaseException:
            self.close()
            raise
        self._beating = True
        self._tick()
        assert self.identity is not None
        return self.identity

    async def _shake_hands(self) -> tuple[int, ...]:
        assert self._loop is not None
        for _ in range(5):
            self._hello = self._loop.create_future()
            self._write(encode(T.HELLO, 0, struct.pack("<H", framing.PROTOCOL)))
            try:
                return framing.HELLO_ACK.unpack(await asyncio.wait_for(self._hello, HANDSHAKE_S))
            except TimeoutError:
                continue
        raise TransportError(f"{self._port}: no motion controller answers the handshake")

    def _check_identity(self, values: tuple[int, ...]) -> None:
        protocol, queue, version, nonce, config, seq, index, session, urgent, axes, _, _ = values
        if protocol != framing.PROTOCOL:
            raise ProtocolError(
                f"{self._port}: controller speaks protocol {protocol}, host {framing.PROTOCOL}"
            )
        if axes != len(self._settings.axes) or config != self._config_hash:
            raise ProtocolError(
                f"{self._port}: configuration hash {config:08x} of the controller ({axes} axes) "
                f"is not the cell's {self._config_hash:08x} ({len(self._settings.axes)} axes)"
            )
        self.identity = LinkIdentity(
            protocol=protocol,
            firmware=f"{version >> 16}.{version >> 8 & 255}.{version & 255}",
            boot_nonce=nonce,
            config_hash=config,
            queue_size=queue,
            n_axes=axes,
        )
        self._nonce, self._seq, self._urgent = nonce, seq, urgent
        self._session = session + 1
        self._credit = index

    def close(self) -> None:
        """Stop beating, give the port back. The controller shuts the gate by itself."""
        self._beating = False
        for timer in (self._timer, self._urgent_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._urgent_timer = None
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._fail_waiting("the motion link was closed")

    def _wire_lost(self, cause: Exception | None) -> None:
        self._fail(f"{self._port}: connection lost" + (f" ({cause})" if cause else ""))

    def _fail(self, reason: str) -> None:
        if self.failure:
            return
        self.failure = reason
        self.close()
        if self.on_lost is not None:
            self.on_lost(reason)

    def _fail_waiting(self, reason: str) -> None:
        waiting: list[asyncio.Future] = [*self._waiting.values()]
        waiting += [f for _, f in self._urgent_waiting]
        waiting += [f for f in (self._homing, self._hello) if f is not None]
        self._waiting.clear()
        self._urgent_waiting.clear()
        self._homing = self._hello = None
        for future in waiting:
            if not future.done():
                future.set_exception(TransportError(reason))

    def _now_us(self) -> int:
        assert self._loop is not None
        return round(self._loop.time() * 1e6)

    def _write(self, data: bytes) -> None:
        if self._wire is None or not self._wire.is_open:
            raise TransportError(self.failure or f"{self._port}: not connected")
        self.stats.frames_sent += 1
        self._wire.write(data)

    # --- beat and time-outs ------------------------------------------------------------

    def token(self) -> None:
        """The supervisor is alive; beats go out for 60 ms more."""
        self._token_us = self._now_us()

    def stop_beating(self) -> None:
        """No beat any more: the controller shuts the gate at its time-out."""
        self._beating = False

    def _tick(self) -> None:
        """Each 20 ms, on whole multiples so that it shares instants with the control tick."""
        if self._wire is None or self._loop is None or not self._wire.is_open:
            return
        now = self._now_us()
        if self._beating and now - self._token_us < TOKEN_LIFE_US:
            self._counter += 1
            self.stats.beats += 1
            payload = struct.pack("<III", self._nonce, self._session, self._counter)
            self._write(encode(T.BEAT, 0, payload))
        self._resend_if_late(now)
        due = (now // BEAT_US + 1) * BEAT_US
        self._timer = self._loop.call_at(due * 1e-6, self._tick)

    def _resend_if_late(self, now: int) -> None:
        if self._unacked and now - self._unacked[0][2] >= RESEND_US:
            self._resend(now)

    def _resend(self, now: int) -> None:
        for item in self._unacked:
            item[2] = now
            self.stats.resends += 1
            self._write(item[1])

    # --- sending -----------------------------------------------------------------------

    def _sequenced(self, kind: T, payload: bytes = b"") -> int:
        seq = self._seq
        frame = encode(kind, seq, payload)
        self._write(frame)
        self._seq = (seq + 1) & _U32
        now = self._now_us()
        self._unacked.append([seq, frame, now])
        self._first_sent.append((seq, now))
        return seq

    async def _command(self, kind: T, payload: bytes = b"") -> None:
        """Send and await the answer. Raises DeviceError with the device's reason."""
        assert self._loop is not None
        future = self._loop.create_future()
        seq = self._sequenced(kind, payload)
        self._waiting[seq] = future
        try:
            await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            self._waiting.pop(seq, None)
            raise DeviceError(f"{self._port}: no answer to {kind.name} in {ANSWER_S} s") from None

    def _go(self) -> bytes:
        """What lets something go again quotes the last stop."""
        return struct.pack("<I", self._urgent)

    def _send_urgent(self, kind: T) -> int:
        now = self._now_us()
        first = now
        if self._urgent_pending is not None:
            _, pending, first = self._urgent_pending
            kind = max(kind, pending, key=_SEVERITY.__getitem__)
        self._urgent = (self._urgent + 1) & _U32
        self._urgent_pending = (self._urgent, kind, first)
        self._write(encode(kind, self._urgent))
        self._plan_urgent()
        return self._urgent

    def _plan_urgent(self) -> None:
        assert self._loop is not None
        if self._urgent_timer is not None:
            self._urgent_timer.cancel()
        self._urgent_timer = self._loop.call_later(URGENT_REPEAT_S, self._urgent_late)

    def _urgent_late(self) -> None:
        self._urgent_timer = None
        if self._urgent_pending is None or self._wire is None or not self._wire.is_open:
            return
        number, kind, first = self._urgent_pending
        if self._now_us() - first >= URGENT_LIMIT_US:
            self._beating = False  # nobody confirms the stop: let the dead-man do it
        self._write(encode(kind, number))
        self._plan_urgent()

    # --- commands ----------------------------------------------------------------------

    async def home(self, timeout_s: float = 180.0) -> None:
        """Home all axes. Raises DeviceError when refused, faulted or not done in time."""
        assert self._loop is not None
        self._stop_streaming()
        await self._command(T.FLUSH, struct.pack("<I", 0) + self._go())
        await self._command(T.HOME, self._go())
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
        assert self._loop is not None
        future = self._loop.create_future()
        self._urgent_waiting.append((self._send_urgent(T.DISARM), future))
        try:
            await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            raise DeviceError(f"{self._port}: no answer to DISARM in {ANSWER_S} s") from None

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

    # --- streaming ---------------------------------------------------------------------

    def load(self, segments: np.ndarray) -> None:
        """The job's segments, (n,) SEGMENT; not copied, so leave them alone."""
        if segments.dtype != SEGMENT or segments.ndim != 1:
            raise ProtocolError(f"segments are {segments.dtype}, wanted the 22 byte SEGMENT")
        segments = np.ascontiguousarray(segments)
        self._stop_streaming()
        self.refusal = ""  # of a plan that is gone
        self._n = len(segments)
        self._segments = memoryview(segments.view(np.uint8).data)
        self._ends_us = np.concatenate([[0], np.cumsum(ticks_of(segments))])

    def start(self, first: int = 0) -> None:
        """Empty the controller's queue and stream from segment ``first`` on."""
        if not 0 <= first <= self._n:
            raise ProtocolError(f"first segment {first} is not in 0..{self._n}")
        self._stop_streaming()
        self._first = self._next = first
        self.refusal = ""
        self._flush_seq = self._sequenced(T.FLUSH, struct.pack("<I", first) + self._go())

    @property
    def finished(self) -> bool:
        """All segments were streamed and executed."""
        status = self.status
        return (
            self._status_counts
            and self._next == self._n
            and status is not None
            and status.segment == self._n - 1
            and status.queued == 0
        )

    def _pump(self) -> None:
        """Keep about a second queued, within credit and window."""
        if not self._flushed or self._next >= self._n or len(self._unacked) >= WINDOW:
            return
        played = self._first
        tick = 0
        status = self.status
        if self._status_counts and status is not None and self._first <= status.segment < self._n:
            played, tick = status.segment, status.segment_tick_us
        now_us = int(self._ends_us[played]) + tick
        if int(self._ends_us[self._next]) - now_us >= DEPTH_US:
            return
        goal_us = now_us + REFILL_US
        while self._next < self._n and len(self._unacked) < WINDOW:
            count = min(MAX_SEGMENTS, self._n - self._next, self._credit - self._next)
            if count <= 0 or int(self._ends_us[self._next]) >= goal_us:
                return
            at = self._next * SEGMENT_BYTES
            data = self._segments[at : at + count * SEGMENT_BYTES]
            self._sequenced(T.SEGMENTS, struct.pack("<I", self._next) + data)
            self._next += count

    # --- receiving ---------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        frames = self._decoder.feed(data)
        stats = self.stats
        stats.bad_bytes = self._decoder.bad_bytes
        for kind, number, payload in frames:
            stats.frames_received += 1
            if self._frames_seen and number > self._frames_seen + 1:
                stats.frames_lost += number - self._frames_seen - 1
            self._frames_seen = number
            if kind == T.STATUS:
                self._got_status(payload)
            elif kind == T.ACK:
                next_seq, next_index, free, urgent = framing.ACK.unpack(payload)
                self._got_urgent_ack(urgent)
                self._acknowledged(next_seq, next_index, free)
            elif kind == T.NAK:
                self._got_nak(payload)
            elif kind == T.EVENT:
                self._got_events(payload)
            elif kind == T.HELLO_ACK and self._hello is not None and not self._hello.done():
                self._hello.set_result(payload)
            if self._wire is None:
                return

    def _acknowledged(self, next_seq: int, next_index: int, free: int) -> None:
        unacked = self._unacked
        if unacked and _before(unacked[0][0], next_seq):
            now = self._now_us()
            while unacked and _before(unacked[0][0], next_seq):
                seq = unacked.popleft()[0]
                future = self._waiting.pop(seq, None) if self._waiting else None
                if future is not None and not future.done():
                    future.set_result(None)
                if seq == self._flush_seq:
                    self._flush_seq = None
                    self._flushed = True
                    self._status_counts = False  # what it says of segments is past
            while self._first_sent and _before(self._first_sent[0][0], next_seq):
                self.stats.rtt_us = now - self._first_sent.popleft()[1]
            self.stats.rtt_max_us = max(self.stats.rtt_max_us, self.stats.rtt_us)
        self._credit = next_index + free
        self._pump()

    def _got_urgent_ack(self, urgent: int) -> None:
        pending = self._urgent_pending
        if pending is not None and not _before(urgent, pending[0]):
            self._urgent_pending = None
            if self._urgent_timer is not None:
                self._urgent_timer.cancel()
                self._urgent_timer = None
            for _, future in self._urgent_waiting:
                if not future.done():
                    future.set_result(None)
            self._urgent_waiting.clear()

    def _got_nak(self, payload: bytes) -> None:
        reason, kind, number, next_seq, _ = framing.NAK.unpack(payload)
        self.stats.naks += 1
        if reason in (Refusal.SEQUENCE, Refusal.FULL):
            while self._unacked and _before(self._unacked[0][0], next_seq):
                self._unacked.popleft()
            if reason == Refusal.SEQUENCE:
                self._resend(self._now_us())
            return  # FULL: again after the time-out
        self.stats.refused += 1
        try:
            text = framing.REFUSAL_TEXT[Refusal(reason)]
            name = T(kind).name
        except (ValueError, KeyError):
            text, name = f"reason {reason}", f"frame {kind:#x}"
        message = f"{self._port}: {name} refused: {text}"
        self.refusal = message
        if number == self._flush_seq or kind == T.SEGMENTS:
            self._stop_streaming()
        future = self._waiting.pop(number, None)
        if future is not None and not future.done():
            future.set_exception(DeviceError(message))

    def _got_status(self, payload: bytes) -> None:
        now = self._now_us()
        previous = self.status
        v = framing.STATUS.unpack(payload)
        device_us, flags = v[0], v[2]
        if previous is not None and device_us < previous.device_us:
            self._fail(f"{self._port}: the motion controller was restarted")
            return
        status = read_status(v, now)
        self._track_offset(now - device_us)
        self._acknowledged(v[18], v[19], v[15])
        self.status = status
        self._status_counts = self._flushed
        if self.on_status is not None:
            self.on_status(payload, now)
        if self._homing is not None and not self._homing.done():
            if flags & 8 and v[1] == LinkState.IDLE:
                self._homing.set_result(None)
            elif v[3]:
                self._homing.set_exception(
                    DeviceError(f"{self._port}: homing failed, fault {FaultCode(v[3]).name}")
                )
        self._resend_if_late(now)
        self._pump()

    def _track_offset(self, offset_us: int) -> None:
        least = self._offset_least
        if self._offset_n % OFFSET_BLOCK == 0:
            least[0] = least[1] if self._offset_n else offset_us
            least[1] = offset_us
        elif offset_us < least[1]:
            least[1] = offset_us
        self._offset_n += 1
        self.stats.clock_offset_us = min(least)

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


if __name__ == "__main__":
    from firmware_bridge.motion_link_process import child_main

    child_main()

"""One session with a motion controller: handshake, beat, numbered frames, urgent ones, clock.

What ``MotionLink`` stands on; knows nothing of segments. The dead-man: a beat goes out each
20 ms only while ``token()`` was called less than 60 ms ago; the controller shuts the gate when
beats stop. An unanswered stop stops the beats as well.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Sequence

from firmware_bridge import framing
from firmware_bridge.errors import DeviceError, ProtocolError, TransportError
from firmware_bridge.framing import Decoder, Refusal, T, encode
from firmware_bridge.link_base import TOKEN_LIFE_US, LinkBase
from firmware_bridge.link_types import LinkIdentity, LinkSettings, LinkStats, rtt_class
from firmware_bridge.motion_link_clock import OffsetBounds
from firmware_bridge.transport import Port, Wire

BEAT_US = 20_000
CLOCK_TICKS = 50  # beat ticks from one HELLO to the next: 1 s
RESEND_US = 20_000
URGENT_REPEAT_S = 0.004
URGENT_LIMIT_US = 10_000
HANDSHAKE_S = 0.2
ANSWER_S = 1.0
BEATS_S = 1.0  # that a command which needs a beat waits for beats to flow again

_U32 = 0xFFFFFFFF
# an urgent frame that supersedes one still unanswered must not be weaker than it
_SEVERITY = {T.HOLD_NOW: 0, T.DISARM: 1, T.ABORT: 2}


class _NoBeat(DeviceError):
    """Refused because no beat came for a while."""


def _before(a: int, b: int) -> bool:
    """Sequence number a comes before b, modulo 2^32."""
    return 0 < ((b - a) & _U32) < 0x80000000


class LinkSession(LinkBase):
    """Handshake, beats and the two kinds of frames that must arrive.

    ``restarted`` says of the last ``connect``: None the first of this object, False the device
    has run on since, True it was restarted and where the axes are is not known.
    """

    def __init__(self, port: Port, settings: LinkSettings) -> None:
        super().__init__(port, settings)
        self._config_hash = settings.config_hash()
        self.restarted: bool | None = None
        self._wire: Wire | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._urgent_timer: asyncio.TimerHandle | None = None
        self._forget()

    def _forget(self) -> None:
        """Everything that belongs to one connection."""
        self._decoder = Decoder()
        self._nonce = 0
        self._seq = 0
        self._urgent = 0
        self._session = 0
        self._counter = 0
        self._beating = False
        self._token_us = -TOKEN_LIFE_US
        self._unacked: deque[list] = deque()  # [seq, frame, sent_us]
        self._unacked_bytes = 0
        self._window = 0  # bytes that may be under way
        self._first_sent: deque[tuple[int, int]] = deque()  # (seq, us) for the round trip
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._urgent_pending: tuple[int, T, int] | None = None  # number, type, first sent us
        self._urgent_waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._hello: asyncio.Future[bytes] | None = None
        self._hello_sent: deque[int] = deque()  # us, of those not answered
        self._bounds = OffsetBounds()
        self._ticks = 0
        self._frames_seen = 0

    # what the classes above add

    def _got_status(self, payload: bytes) -> None:
        raise NotImplementedError

    def _got_events(self, payload: bytes) -> None:
        raise NotImplementedError

    def _beat_told_since(self, at_us: int) -> bool:
        """A status that came after ``at_us`` tells of a fresh beat."""
        raise NotImplementedError

    def _credited(self, next_index: int, free: int, acknowledged: Sequence[int]) -> None:
        """The device has room for ``free`` segments from ``next_index`` on."""
        raise NotImplementedError

    def _refused(self, kind: int, number: int) -> None:
        """A frame will not be done."""
        raise NotImplementedError

    # --- connection -------------------------------------------------------------------

    async def connect(self) -> LinkIdentity:
        """Open the port and shake hands.

        Raises TransportError (no port, no answer) or ProtocolError (other protocol version,
        other configuration, other number of axes).
        """
        self.close()
        self._forget()
        self.stats = LinkStats()
        self.failure = self.refusal = ""
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
            self._say_hello()
            try:
                return framing.HELLO_ACK.unpack(await asyncio.wait_for(self._hello, HANDSHAKE_S))
            except TimeoutError:
                continue
        raise TransportError(f"{self._port}: no motion controller answers the handshake")

    def _say_hello(self) -> None:
        self._hello_sent.append(self._now_us())
        self._write(encode(T.HELLO, 0, struct.pack("<H", framing.PROTOCOL)))

    def _check_identity(self, values: tuple[int, ...]) -> None:
        protocol, queue, version, nonce, config, seq, index, session, urgent, axes = values[:10]
        if protocol != framing.PROTOCOL:
            raise ProtocolError(
                f"{self._port}: controller speaks protocol {protocol}, host {framing.PROTOCOL}"
            )
        if axes != len(self._settings.axes) or config != self._config_hash:
            raise ProtocolError(
                f"{self._port}: configuration hash {config:08x} of the controller ({axes} axes) "
                f"is not the cell's {self._config_hash:08x} ({len(self._settings.axes)} axes)"
            )
        known = self.identity
        self.restarted = None if known is None else known.boot_nonce != nonce
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
        self._window = values[11]
        self._credited(index, 0, ())

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

    def _fail_waiting(self, reason: str) -> None:
        waiting: list[asyncio.Future] = [*self._waiting.values()]
        waiting += [f for _, f in self._urgent_waiting]
        waiting += [f for f in (self._hello,) if f is not None]
        self._waiting.clear()
        self._urgent_waiting.clear()
        self._hello = None
        for future in waiting:
            if not future.done():
                future.set_exception(TransportError(reason))

    def _write(self, data: bytes) -> None:
        if self._wire is None or not self._wire.is_open:
            raise TransportError(self.failure or f"{self._port}: not connected")
        self.stats.frames_sent += 1
        self._wire.write(data)

    # --- beat and time-outs ------------------------------------------------------------

    def stop_beating(self) -> None:
        """No beat any more: the controller shuts the gate at its time-out."""
        self._beating = False

    def _may_beat(self, now_us: int) -> bool:
        return self._beating and now_us - self._token_us < TOKEN_LIFE_US

    def _beat_payload(self) -> bytes:
        """Nonce, session and the next counter: of a BEAT, and at the head of a JOG."""
        self._counter += 1
        self.stats.beats += 1
        return struct.pack("<III", self._nonce, self._session, self._counter)

    def _tick(self, due_us: int = -1) -> None:
        """Each 20 ms, on whole multiples so that it shares instants with the control tick."""
        if self._wire is None or self._loop is None or not self._wire.is_open:
            return
        now = self._now_us()
        if due_us >= 0:
            self.stats.beat_late_max_us = max(self.stats.beat_late_max_us, now - due_us)
        if self._may_beat(now):
            self._write(encode(T.BEAT, 0, self._beat_payload()))
        self._ticks += 1
        if self._ticks % CLOCK_TICKS == 0:
            self._hello_sent.clear()  # one that took a second is lost
            self._bounds.turn()
            self._say_hello()
        self._resend_if_late(now)
        due = (now // BEAT_US + 1) * BEAT_US
        self._timer = self._loop.call_at(due * 1e-6, self._tick, due)

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
        self._unacked_bytes += len(frame)
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

    async def _with_beats(self, kind: T, payload: bytes) -> None:
        """A command that the device refuses while no beat is fresh.

        A short gap (either side was busy) is waited for, as long as ``BEATS_S``; then the same
        payload is sent once more: a stop that came meanwhile makes it stale. Where the token is
        old no beat goes out and the refusal stays. Raises DeviceError.
        """
        try:
            await self._command(kind, payload)
        except _NoBeat as exc:
            if not await self._beats_flow():
                raise DeviceError(str(exc)) from None
            self.stats.beat_retries += 1
            await self._command(kind, payload)

    async def _beats_flow(self) -> bool:
        """Wait until the device tells of a fresh beat; False when it does not in time."""
        assert self._loop is not None
        begin_us = self._now_us()
        while (now_us := self._now_us()) - begin_us < BEATS_S * 1e6:
            if self.failure or not self._beating:
                return False
            if self._may_beat(now_us) and self._beat_told_since(begin_us):
                return True
            await asyncio.sleep(BEAT_US * 0.5e-6)
        return False

    def _go(self) -> bytes:
        """What lets something go again quotes the last stop."""
        return struct.pack("<I", self._urgent)

    async def _urgently(self, kind: T) -> None:
        """Send an urgent frame and await its answer. Raises DeviceError without one."""
        assert self._loop is not None
        future = self._loop.create_future()
        self._urgent_waiting.append((self._send_urgent(kind), future))
        try:
            await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            raise DeviceError(f"{self._port}: no answer to {kind.name} in {ANSWER_S} s") from None

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
            elif kind == T.HELLO_ACK:
                self._got_hello(payload)
            if self._wire is None:
                return

    def _got_hello(self, payload: bytes) -> None:
        now = self._now_us()
        device_us = framing.HELLO_ACK.unpack(payload)[10]
        if self._hello_sent:  # the oldest: when an answer was lost the bound is looser, not wrong
            self._bounds.answered(self._hello_sent.popleft(), device_us)
        self._bounds.came(now, device_us)
        known = self._bounds.offset(now)
        self.stats.clock_offset_us, self.stats.clock_error_us = known or (0, -1)
        if self._hello is not None and not self._hello.done():
            self._hello.set_result(payload)

    def _drop_unacked(self) -> int:
        seq, frame, _ = self._unacked.popleft()
        self._unacked_bytes -= len(frame)
        return seq

    def _acknowledged(self, next_seq: int, next_index: int, free: int) -> None:
        unacked = self._unacked
        done: list[int] = []
        if unacked and _before(unacked[0][0], next_seq):
            now = self._now_us()
            stats = self.stats
            while unacked and _before(unacked[0][0], next_seq):
                seq = self._drop_unacked()
                done.append(seq)
                future = self._waiting.pop(seq, None) if self._waiting else None
                if future is not None and not future.done():
                    future.set_result(None)
            while self._first_sent and _before(self._first_sent[0][0], next_seq):
                stats.rtt_us = now - self._first_sent.popleft()[1]
                stats.rtt_counts[rtt_class(stats.rtt_us)] += 1
                stats.rtt_max_us = max(stats.rtt_max_us, stats.rtt_us)
        self._credited(next_index, free, done)

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
                self._drop_unacked()
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
        future = self._waiting.get(number)
        if reason == Refusal.NO_BEAT and future is not None and not future.done():
            self._waiting.pop(number)
            future.set_exception(_NoBeat(message))  # may be sent again: not told by ``refusal``
            return
        self.refusal = message
        if kind == T.JOG:
            return  # it has no number of its own
        self._refused(kind, number)
        future = self._waiting.pop(number, None)
        if future is not None and not future.done():
            future.set_exception(DeviceError(message))

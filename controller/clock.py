"""Time on the host: one code path, three settings.

Real time is the monotonic clock. Virtual time is granted by the simulator (the time
server): the loop parks in WAIT with its next deadline and the bytes it wrote, and goes on
when a GRANT brings the time and the bytes that arrive then. Null wires do the same in one
process, without sockets. Apart from this module nothing on the host reads a clock; async
code uses the running loop (``loop.time()``, ``asyncio.sleep``, ``asyncio.wait_for``).

Mechanism and figures: ``docs/decisions/0001-virtual-time.md``; message layout: ``docs/protocol.md``
(time server). The simulator's twin is ``hil_sim/clock.py``; they share no code.
"""

import array
import asyncio
import datetime
import fcntl
import json
import selectors
import socket
import struct
import termios
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

_WAIT, _GRANT, _BYE, _TELL = 1, 2, 3, 4
_LARGEST_B = 65_536  # of a message
_HEAD = struct.Struct("<BxHq")  # kind, number of channel items, time in us
_ITEM = struct.Struct("<HHQ")  # channel, flags, bytes in total on that channel so far
_OPENED, _CLOSED = 1, 2
_NEVER_US = 1 << 62
_SPIN_S = 300e-6
_SPIN_PAUSE = 400  # waits without spinning after two fruitless spins
_LOOK_S = 0.002  # wall seconds between two looks at clients' sockets while time runs
_GUARD_S = 60.0  # wall seconds without a grant: the other side hangs


class MeteredWire(Protocol):
    """What the loop needs of a wire (firmware_bridge.transport) in virtual time."""

    def deliver(self, data: bytes) -> None: ...
    def lost(self, cause: Exception | None) -> None: ...
    def flush(self) -> bool: ...
    def fileno(self) -> int: ...


class TimeSource(Protocol):
    """The other side of WAIT: a simulator process or a simulator object."""

    def wait(
        self, target_us: int, loop: "VirtualLoop"
    ) -> tuple[int, list[tuple[selectors.SelectorKey, int]]]: ...

    def finish(self) -> None: ...


class RealLoop(asyncio.SelectorEventLoop):
    """The plain loop; time runs by itself, so freeze and release do nothing."""

    virtual = False
    wire_meter = None

    def __init__(self) -> None:
        super().__init__()
        self._start_s = time.monotonic()

    def now_us(self) -> int:
        """Microseconds since the loop was made."""
        return int((time.monotonic() - self._start_s) * 1e6)

    def freeze(self) -> None:
        """Nothing: real time does not stand still."""

    def release(self) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is granted by a simulator.

    ``freeze()`` makes time stand still while the loop has nothing to do at the present
    instant: commands from clients then arrive at a fixed simulated moment, which is what
    makes a run reproducible. ``release()`` lets time go on.
    """

    virtual = True

    def __init__(self, source: "WireTime | NullTime") -> None:
        self.present_us = 0
        self._source = source
        self.wire_meter = source
        self._frozen = False
        self._over = False
        super().__init__(_VirtualSelector(self))
        self._clock_resolution = 1e-6
        source.attach(self)

    def time(self) -> float:
        """Simulated seconds."""
        return self.present_us * 1e-6

    def now_us(self) -> int:
        """Simulated microseconds."""
        return self.present_us

    def freeze(self) -> None:
        """Stand still from the moment when nothing is left to do at the present instant."""
        self._frozen = True

    def release(self) -> None:
        """Let time go on."""
        self._frozen = False

    def finish(self) -> None:
        """Tell the simulator that the run ends at this instant."""
        if not self._over:
            self._over = True
            self._source.finish()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Inline: a thread would finish at a moment that no seed fixes."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future

    def next_deadline_us(self) -> int:
        """Time of the earliest timer, rounded to the microsecond."""
        scheduled = self._scheduled  # type: ignore[attr-defined]
        if not scheduled:
            return _NEVER_US
        return max(self.present_us, round(scheduled[0].when() * 1e6))

    def park(self) -> list[tuple[selectors.SelectorKey, int]]:
        """WAIT until something is due; the events that the GRANT brought."""
        if self._over:
            return []
        self.present_us, events = self._source.wait(self.next_deadline_us(), self)
        return events

    def source_gone(self) -> None:
        """The simulator is gone: time passes by itself, so that what waits comes to its end."""
        self._over = True
        self._frozen = False


class _VirtualSelector(selectors.BaseSelector):
    """select() that waits in simulated time; sockets of clients are looked at in passing."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._real = selectors.DefaultSelector()
        self._loop = loop
        self._looked_s = 0.0
        self._clients_had_turn = False

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:
            return []  # callbacks are ready: first finish this instant
        loop = self._loop
        if loop.wire_meter.null and not loop._frozen:
            # no wire has a descriptor: only clients do, and they can wait a moment
            now_s = time.perf_counter()
            if now_s - self._looked_s < _LOOK_S and not loop._over:
                return loop.park()
            self._looked_s = now_s
        events = self._real.select(0)
        if loop._frozen or loop._over:
            if events:
                return loop.wire_meter.in_channel_order(events)
            deadline_us = loop.next_deadline_us()
            if timeout is not None and deadline_us <= loop.present_us:
                return []
            if loop._over and not loop._frozen and deadline_us < _NEVER_US:
                loop.present_us = deadline_us
                return []
            return loop.wire_meter.in_channel_order(self._real.select(None))
        if events:
            # a client that calls without pause must not keep time from passing
            bytes_left = loop.wire_meter.any_wire(events)
            if bytes_left or not self._clients_had_turn:
                self._clients_had_turn = not bytes_left
                return loop.wire_meter.in_channel_order(events)
        self._clients_had_turn = False
        return loop.park()


class _Meter:
    """Counts the bytes of every channel, so that both sides agree on what has arrived."""

    def __init__(self) -> None:
        self._loop: VirtualLoop | None = None
        self._wires: dict[int, MeteredWire] = {}
        self._changes: dict[int, int] = {}  # channel -> flags since the last WAIT

    def attach(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def opened(self, channel: int, wire: MeteredWire) -> None:
        self._wires[channel] = wire
        self._changes[channel] = self._changes.get(channel, 0) | _OPENED

    def closed(self, channel: int) -> None:
        if self._wires.pop(channel, None) is not None:
            self._changes[channel] = self._changes.get(channel, 0) | _CLOSED

    def _lose_all(self) -> None:
        assert self._loop is not None
        for channel in sorted(self._wires):
            self._loop.call_soon(
                self._wires[channel].lost, ConnectionError("the simulator is gone")
            )
        self._wires.clear()
        self._loop.source_gone()


class WireTime(_Meter):
    """Party of a simulator process: WAIT and GRANT over a Unix SOCK_SEQPACKET socket."""

    null = False

    def __init__(self, path: str) -> None:
        super().__init__()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.connect(path)
        self._written: dict[int, int] = {}
        self._dirty: set[int] = set()
        self._read: dict[int, int] = {}
        self._backlog: dict[int, MeteredWire] = {}
        self._fd_channel: dict[int, int] = {}
        self._fruitless = 0
        self._spin_pause = 0

    def opened(self, channel: int, wire: MeteredWire) -> None:
        super().opened(channel, wire)
        self._written[channel] = self._read[channel] = 0
        self._fd_channel = {w.fileno(): c for c, w in self._wires.items()}

    def closed(self, channel: int) -> None:
        super().closed(channel)
        self._backlog.pop(channel, None)
        self._fd_channel = {w.fileno(): c for c, w in self._wires.items()}

    def wrote(self, channel: int, n: int) -> None:
        """``n`` bytes of a wire went into the kernel."""
        self._written[channel] += n
        self._dirty.add(channel)

    def read(self, channel: int, n: int) -> None:
        """``n`` bytes of a wire were taken out of the kernel."""
        self._read[channel] += n

    def backlog(self, channel: int, wire: MeteredWire) -> None:
        """The kernel took no more of a wire's bytes: drain before time goes on."""
        self._backlog[channel] = wire

    def in_channel_order(
        self, events: list[tuple[selectors.SelectorKey, int]]
    ) -> list[tuple[selectors.SelectorKey, int]]:
        if len(events) > 1:
            order = self._fd_channel
            events.sort(key=lambda e: (order.get(e[0].fd, 1 << 20), e[0].fd))
        return events

    def any_wire(self, events: list[tuple[selectors.SelectorKey, int]]) -> bool:
        return any(key.fd in self._fd_channel for key, _ in events)

    def wait(
        self, target_us: int, loop: VirtualLoop
    ) -> tuple[int, list[tuple[selectors.SelectorKey, int]]]:
        if self._backlog:
            for channel in sorted(self._backlog):
                if self._backlog[channel].flush():
                    del self._backlog[channel]
            if self._backlog:
                target_us = loop.present_us  # only so that the server reads
        items = []
        if self._changes or self._dirty:
            for channel in sorted(self._changes.keys() | self._dirty):
                flags = self._changes.get(channel, 0)
                items.append(_ITEM.pack(channel, flags, self._written.get(channel, 0)))
            self._changes.clear()
            self._dirty.clear()
        try:
            self._sock.send(b"".join([_HEAD.pack(_WAIT, len(items), target_us), *items]))
            data = self._receive()
        except OSError:
            data = b""
        if len(data) < _HEAD.size:
            self._lose_all()
            return loop.present_us, []
        kind, count, now_us = _HEAD.unpack_from(data)
        if kind != _GRANT:
            raise RuntimeError(f"time server sent message kind {kind}, expected a grant")
        events = []
        for k in range(count):
            channel, flags, total = _ITEM.unpack_from(data, _HEAD.size + k * _ITEM.size)
            wire = self._wires.get(channel)
            if wire is None:
                continue
            if total > self._read[channel]:
                self._await_bytes(wire.fileno(), total - self._read[channel])
                key = loop._selector.get_key(wire.fileno())  # type: ignore[attr-defined]
                events.append((key, selectors.EVENT_READ))
            if flags & _CLOSED:
                loop.call_soon(wire.lost, None)
        return now_us, events

    def tell(self, request: dict[str, Any]) -> dict[str, Any]:
        """A request to the simulator's control channel at the present instant; its answer.

        Raises OSError when the simulator is gone.
        """
        self._sock.send(_HEAD.pack(_TELL, 0, 0) + json.dumps(request).encode())
        answer = self._receive()
        if len(answer) <= _HEAD.size:
            raise ConnectionResetError("the simulator is gone")
        told: dict[str, Any] = json.loads(answer[_HEAD.size :])
        return told

    def finish(self) -> None:
        try:
            self._sock.send(_HEAD.pack(_BYE, 0, 0))
            self._sock.settimeout(_GUARD_S)
            self._sock.recv(4096)  # the server closes its trace, then answers or closes
        except OSError:
            pass
        self._sock.close()

    def _receive(self) -> bytes:
        sock = self._sock
        if self._spin_pause:
            self._spin_pause -= 1
        else:
            until = time.perf_counter() + _SPIN_S
            while time.perf_counter() < until:
                try:
                    data = sock.recv(_LARGEST_B, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    continue
                self._fruitless = 0
                return data
            self._fruitless += 1
            if self._fruitless >= 2:
                self._fruitless = 0
                self._spin_pause = _SPIN_PAUSE
        sock.settimeout(_GUARD_S)
        try:
            return sock.recv(_LARGEST_B)
        except TimeoutError:
            raise RuntimeError(
                f"the time server granted nothing for {_GUARD_S:g} s of wall time"
            ) from None
        finally:
            sock.settimeout(None)

    def _await_bytes(self, fd: int, n: int) -> None:
        """Block until n announced bytes are in the kernel: hides the pty's latency."""
        have = array.array("i", [0])
        fcntl.ioctl(fd, termios.FIONREAD, have)
        if have[0] >= n:
            return
        until = time.perf_counter() + _GUARD_S
        spins = 0
        while True:
            fcntl.ioctl(fd, termios.FIONREAD, have)
            if have[0] >= n:
                return
            spins += 1
            if spins > 200:
                time.sleep(20e-6)
                if time.perf_counter() > until:
                    raise RuntimeError(f"{n} announced bytes did not arrive, {have[0]} did")


class NullTime(_Meter):
    """Party of a simulator object in the same process: bytes are handed over as they are."""

    null = True

    def __init__(self, simulator: Any) -> None:
        super().__init__()
        self._simulator = simulator
        self._out: dict[int, list[bytes]] = {}

    def send(self, channel: int, data: bytes) -> None:
        """Bytes that a wire writes at this instant."""
        self._out.setdefault(channel, []).append(data)

    def in_channel_order(
        self, events: list[tuple[selectors.SelectorKey, int]]
    ) -> list[tuple[selectors.SelectorKey, int]]:
        return events

    def any_wire(self, events: list[tuple[selectors.SelectorKey, int]]) -> bool:
        return False

    def wait(
        self, target_us: int, loop: VirtualLoop
    ) -> tuple[int, list[tuple[selectors.SelectorKey, int]]]:
        simulator = self._simulator
        if self._changes:
            for channel in sorted(self._changes):
                if self._changes[channel] & _CLOSED:
                    simulator.closed(channel)
                if self._changes[channel] & _OPENED:
                    simulator.opened(channel)
            self._changes.clear()
        writes = []
        if self._out:
            writes = [(c, b"".join(self._out[c])) for c in sorted(self._out)]
            self._out.clear()
        now_us, deliveries = simulator.wait(target_us, writes)
        for channel, data in deliveries:
            wire = self._wires.get(channel)
            if wire is None:
                continue
            if data is None:
                loop.call_soon(wire.lost, None)
            else:
                loop.call_soon(wire.deliver, data)
        return now_us, []

    def tell(self, request: dict[str, Any]) -> dict[str, Any]:
        """A request to the simulator's control channel at the present instant; its answer."""
        told: dict[str, Any] = self._simulator.tell(request)
        return told

    def finish(self) -> None:
        self._simulator.finish()


AnyLoop = RealLoop | VirtualLoop


class Clock:
    """What code that is not asynchronous is handed to know the time."""

    def __init__(self, loop: AnyLoop) -> None:
        self._loop = loop
        self.virtual = loop.virtual

    def now_us(self) -> int:
        """Microseconds since power-up of the run: simulated, or monotonic."""
        return self._loop.now_us()

    def wall_iso(self) -> str:
        """UTC date and time for people; never part of hashed data."""
        return wall_iso()

    def wall_s(self) -> float:
        """Monotonic wall seconds, also in virtual time: for rates and for fdatasync."""
        return time.monotonic()


def wall_iso() -> str:
    """UTC date and time, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def wall_s() -> float:
    """Monotonic wall seconds."""
    return time.monotonic()


def date_s() -> float:
    """Seconds of the date's clock, which may jump: to be compared, never waited by."""
    return time.time()


def wall_pause(seconds: float) -> None:
    """Let wall time pass: for clients that wait on a process, never in the control path."""
    time.sleep(seconds)

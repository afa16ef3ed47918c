"""Time in the simulator: an event heap in integer microseconds, and who may go on when.

The simulator is the time server. In virtual time each party (the cell server, at times
the motion link too) parks in WAIT with its next deadline and the number of bytes it has
written on each channel. While every party is parked the server reads exactly those bytes,
hands them over, runs its heap up to the earliest deadline or the first instant that sends
bytes, and GRANTs the time together with the number of bytes sent. So the same seed gives
the same run whatever the machine is busy with. In real time the heap follows the
monotonic clock.

The host's twin is ``controller/clock.py``; they share the message layout of
``docs/protocol.md`` and no code.
"""

import contextlib
import heapq
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Protocol

WAIT, GRANT, BYE, TELL = 1, 2, 3, 4
LARGEST_B = 65_536  # of a message
HEAD = struct.Struct("<BxHq")
ITEM = struct.Struct("<HHQ")
OPENED, CLOSED = 1, 2

NEVER_US = 1 << 62
GRID_US = 5000
AFTERLIFE_US = 2_000_000  # how long the cell lives on when the host is gone
SPIN_S = 300e-6
SPIN_PAUSE = 400
REAL_STEP_US = 1000


class Stepper(Protocol):
    """A part that runs by itself between events: the firmware."""

    def run(self, until_us: int) -> int:
        """Run to ``until_us``, or stop at the instant that sends bytes; the time reached."""
        ...


class Scheduler:
    """Events by time, then by the order in which they were made."""

    def __init__(self) -> None:
        self.now_us = 0
        self.emitted = False  # set by endpoints: bytes left at the present instant
        self.stepper: Stepper | None = None
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, t_us: int, fn: Callable[[], None]) -> None:
        """Call ``fn`` at ``t_us``, at once if that has passed."""
        self._count += 1
        heapq.heappush(self._heap, (max(t_us, self.now_us), self._count, fn))

    def every(self, period_us: int, fn: Callable[[], None], first_us: int | None = None) -> None:
        """Call ``fn`` each period, from ``first_us`` (default: one period from now)."""
        start = self.now_us + period_us if first_us is None else first_us

        def tick() -> None:
            fn()
            self.at(self.now_us + period_us, tick)

        self.at(start, tick)

    def grid(self, t_us: int) -> int:
        """The next multiple of 5 ms that is at least 1 ms away: where answers leave.

        Answers that share instants need fewer grants, which is most of the speed.
        """
        return -(-(t_us + 1000) // GRID_US) * GRID_US

    def run(self, limit_us: int) -> int:
        """Run events until ``limit_us`` or the end of the first instant that sent bytes."""
        heap, stepper = self._heap, self.stepper
        while True:
            target = min(heap[0][0], limit_us) if heap else limit_us
            if stepper is not None:
                reached = stepper.run(target)
                self.now_us = reached
                if reached < target:
                    if self.emitted:
                        return reached
                    continue
            self.now_us = target
            while heap and heap[0][0] <= target:
                heapq.heappop(heap)[2]()
            if stepper is not None:
                stepper.run(target)  # inputs changed by events act at this instant
            if self.emitted or target >= limit_us:
                return target


class Endpoint(Protocol):
    """The simulator's end of a wire (hil_sim.wires)."""

    channel: int

    def opened(self) -> None: ...
    def closed(self) -> None: ...
    def take(self, total: int) -> bytes: ...
    def sent_total(self) -> int: ...
    def take_lost(self) -> bool: ...
    def receive(self, data: bytes) -> None: ...


class _Party:
    """One connected party and what it waits for."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.target_us = 0
        self.parked = False
        self.channels: set[int] = set()
        self.announced: dict[int, int] = {}
        self.fruitless = 0
        self.spin_pause = 0

    def receive(self) -> bytes:
        """The party's next message; spins while that pays, then blocks."""
        sock = self.sock
        if self.spin_pause:
            self.spin_pause -= 1
        else:
            until = time.perf_counter() + SPIN_S
            while time.perf_counter() < until:
                try:
                    data = sock.recv(LARGEST_B, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    continue
                self.fruitless = 0
                return data
            self.fruitless += 1
            if self.fruitless >= 2:
                self.fruitless, self.spin_pause = 0, SPIN_PAUSE
        return sock.recv(LARGEST_B)


class TimeServer:
    """Grants virtual time to the parties over a Unix SOCK_SEQPACKET socket."""

    def __init__(
        self, scheduler: Scheduler, endpoints: dict[int, Any], path: str, parties: int = 1
    ) -> None:
        self._sim = scheduler
        self._endpoints = endpoints
        self._n_parties = parties
        self._parties: list[_Party] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen(parties)
        self.path = path
        self.stop = False

    def serve(self, wake_fd: int | None = None) -> None:
        """Serve until every party has said BYE or is gone, or ``wake_fd`` becomes readable."""
        if not self._accept(wake_fd):
            return
        try:
            while self._parties and not self.stop:
                for party in list(self._parties):
                    if not party.parked and not self._hear(party):
                        self._drop(party)
                if not self._parties:
                    return
                if not all(party.parked for party in self._parties):
                    continue  # one had something to tell and goes on working
                self._go_on()
        finally:
            for party in self._parties:
                party.sock.close()
            self._listener.close()

    def _accept(self, wake_fd: int | None) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            if wake_fd is not None:
                selector.register(wake_fd, selectors.EVENT_READ)
            while len(self._parties) < self._n_parties:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._listener not in ready:
                    return False
                sock, _ = self._listener.accept()
                self._parties.append(_Party(sock))
        return True

    def _hear(self, party: _Party) -> bool:
        """Take a party's WAIT or TELL; False when it is gone or says BYE."""
        try:
            data = party.receive()
        except OSError:
            data = b""
        if len(data) < HEAD.size:
            return False
        kind, count, target_us = HEAD.unpack_from(data)
        if kind == TELL:
            answer = self.on_tell(data[HEAD.size :])
            with contextlib.suppress(OSError):  # found gone when it is heard next
                party.sock.send(HEAD.pack(TELL, 0, self._sim.now_us) + answer)
            return True
        if kind == BYE:
            party.target_us = -1
            return False
        party.target_us = target_us
        party.parked = True
        sim = self._sim
        for k in range(count):
            channel, flags, total = ITEM.unpack_from(data, HEAD.size + k * ITEM.size)
            endpoint = self._endpoints.get(channel)
            if endpoint is None:
                continue
            if flags & CLOSED:
                endpoint.closed()
                party.channels.discard(channel)
            if flags & OPENED:
                endpoint.opened()
                party.channels.add(channel)
                party.announced[channel] = 0
            if channel in party.channels:
                chunk = endpoint.take(total)
                if chunk:
                    endpoint.receive(chunk)
        if sim.stepper is not None and count:
            sim.stepper.run(sim.now_us)  # answers that leave at this very instant
        return True

    def _go_on(self) -> None:
        """All are parked: run to the next instant that concerns somebody, and grant it."""
        sim = self._sim
        if not sim.emitted:
            sim.run(min(p.target_us for p in self._parties))
        sim.emitted = False
        now = sim.now_us
        for party in self._parties:
            items = []
            for channel in sorted(party.channels):
                endpoint = self._endpoints[channel]
                total = endpoint.sent_total()
                lost = endpoint.take_lost()
                if total != party.announced[channel] or lost:
                    party.announced[channel] = total
                    items.append(ITEM.pack(channel, CLOSED if lost else 0, total))
            if items or party.target_us <= now:
                party.parked = False
                try:
                    party.sock.send(b"".join([HEAD.pack(GRANT, len(items), now), *items]))
                except OSError:
                    continue  # found gone when it is heard next

    def _drop(self, party: _Party) -> None:
        """A party left: orderly, or killed. The cell lives on for a moment after a kill."""
        self._parties.remove(party)
        orderly = party.target_us == -1
        for channel in sorted(party.channels):
            self._endpoints[channel].closed()
        if not orderly and not self._parties and not self.stop:
            end = self._sim.now_us + AFTERLIFE_US
            while self._sim.now_us < end:
                self._sim.emitted = False
                self._sim.run(end)
        self.on_end()
        if orderly:
            with contextlib.suppress(OSError):
                party.sock.send(HEAD.pack(GRANT, 0, self._sim.now_us))
        party.sock.close()

    def interrupt(self) -> None:
        """End the run from a signal handler, also while waiting for a party's message."""
        self.stop = True
        self._sim.emitted = True  # so that running the heap comes back
        for party in self._parties:
            with contextlib.suppress(OSError):
                party.sock.shutdown(socket.SHUT_RDWR)

    def on_tell(self, request: bytes) -> bytes:
        """A request of the control channel, JSON, at the present instant; the answer, JSON."""
        return b"{}"

    def on_end(self) -> None:
        """Called before an orderly party is let go; the cell closes its trace here."""


class RealTimeServer:
    """Runs the heap by the monotonic clock and serves the wires as bytes come."""

    def __init__(self, scheduler: Scheduler, endpoints: dict[int, Any]) -> None:
        self._sim = scheduler
        self._endpoints = endpoints
        self.stop = False
        self.start_us = monotonic_us()  # of this machine's clock: comparable between processes
        self.scheduling = _real_time_priority()
        self._control: socket.socket | None = None
        self._on_tell: Callable[[bytes], bytes] = lambda asked: b"{}"

    def listen(self, path: str, on_tell: Callable[[bytes], bytes]) -> None:
        """Take requests (JSON, one a packet) on a Unix socket; only the owner reaches it."""
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.bind(path)
        os.chmod(path, 0o600)
        self._control.listen(4)
        self._control.setblocking(False)
        self._on_tell = on_tell

    def _caller(self, selector: Any, key: Any) -> None:
        sock, _ = key.fileobj.accept()
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, self._asked)

    def _asked(self, selector: Any, key: Any) -> None:
        sock = key.fileobj
        try:
            request = sock.recv(LARGEST_B)
            if request:
                sock.send(self._on_tell(request))
                return
        except OSError:
            pass
        selector.unregister(sock)
        sock.close()

    def serve(self, wake_fd: int | None = None) -> None:
        """Serve until ``stop`` is set or ``wake_fd`` becomes readable."""
        sim = self._sim
        with selectors.DefaultSelector() as selector:
            for endpoint in self._endpoints.values():
                endpoint.watch(selector)
            if wake_fd is not None:
                selector.register(wake_fd, selectors.EVENT_READ, None)
            if self._control is not None:
                selector.register(self._control, selectors.EVENT_READ, self._caller)
            while not self.stop:
                ready = selector.select(REAL_STEP_US * 1e-6)
                now = monotonic_us() - self.start_us
                while sim.now_us < now:
                    sim.emitted = False
                    sim.run(now)
                for key, _ in ready:
                    if key.data is None:
                        return
                    key.data(selector, key)
                if ready and sim.stepper is not None:
                    sim.stepper.run(sim.now_us)


def _real_time_priority() -> str:
    """A controller board is never kept waiting by other programs: ask for the same.

    Below the motion link's priority (50). Where it is refused, a stall of this process looks
    to the host like a board that stood still.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(40))
    except OSError:
        return "SCHED_OTHER (SCHED_FIFO refused)"
    return "SCHED_FIFO 40"


def monotonic_us() -> int:
    """The wall clock of real-time runs, us; comparable between processes of one machine."""
    return time.monotonic_ns() // 1000

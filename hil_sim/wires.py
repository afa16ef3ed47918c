"""The simulator's ends of the wires: pseudo terminals, TCP listeners, null wires.

Every end counts its bytes, so that in virtual time both sides agree on what has arrived.
TCP ends listen on 127.0.0.1 only.
"""

import contextlib
import os
import pty
import select
import selectors
import socket
import tty
from collections.abc import Callable, Sequence
from typing import Any

from hil_sim.clock import Scheduler

TAKE_TIMEOUT_MS = 60_000


class WireEnd:
    """What all ends share: a device behind it, counters, a line that may be cut."""

    kind = "null"

    def __init__(self, sim: Scheduler, channel: int, name: str) -> None:
        self.sim = sim
        self.channel = channel
        self.name = name
        self.is_open = False
        self.cut = False  # fault: nothing passes, in either direction
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.on_opened: Callable[[], None] = lambda: None
        self.on_closed: Callable[[], None] = lambda: None
        self._sent = 0
        self._taken = 0
        self._lost = False

    def describe(self) -> dict[str, Any]:
        """The entry of the ready line."""
        return {"id": self.channel, "name": self.name, "kind": self.kind}

    def opened(self) -> None:
        """The host opened its end."""
        self.is_open = True
        self._sent = self._taken = 0
        self._lost = False
        self.on_opened()

    def closed(self) -> None:
        """The host closed its end."""
        if self.is_open:
            self.is_open = False
            self.on_closed()

    def send(self, data: bytes) -> None:
        """A device's bytes leave at the present instant; a line nobody opened drops them."""
        if self.is_open and not self.cut and data:
            self._put(data)
            self._sent += len(data)
            self.sim.emitted = True

    def receive(self, data: bytes) -> None:
        """Bytes of the host reach the device."""
        if not self.cut:
            self.on_data(data)

    def lose(self) -> None:
        """Fault: the connection breaks (the host sees it closed)."""
        if self.is_open:
            self._lost = True
            self.sim.emitted = True
            self._break()

    def sent_total(self) -> int:
        return self._sent

    def take_lost(self) -> bool:
        lost, self._lost = self._lost, False
        return lost

    def take(self, total: int) -> bytes:
        """Exactly the bytes up to a total count; blocks until they are in the kernel."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the end holds."""

    def _put(self, data: bytes) -> None:
        raise NotImplementedError

    def _break(self) -> None:
        """Close what the host sees."""


class NullEnd(WireEnd):
    """An end in the host's own process."""

    def __init__(self, sim: Scheduler, channel: int, name: str) -> None:
        super().__init__(sim, channel, name)
        self._out: list[bytes] = []
        self.filled: list[int] = []  # shared by all ends: channels with bytes to drain

    def _put(self, data: bytes) -> None:
        if not self._out:
            self.filled.append(self.channel)
        self._out.append(data)

    def _break(self) -> None:
        self.filled.append(self.channel)

    def drain(self) -> bytes:
        """What was sent since the last call."""
        data = b"".join(self._out)
        self._out.clear()
        return data


class _FdEnd(WireEnd):
    """An end with a file descriptor."""

    def __init__(self, sim: Scheduler, channel: int, name: str) -> None:
        super().__init__(sim, channel, name)
        self._fd = -1

    def take(self, total: int) -> bytes:
        missing = total - self._taken
        chunks = []
        while missing > 0:
            try:
                chunk = os.read(self._fd, missing)
            except BlockingIOError:
                poller = select.poll()
                poller.register(self._fd, select.POLLIN)
                if not poller.poll(TAKE_TIMEOUT_MS):
                    raise RuntimeError(
                        f"{self.name}: {missing} of {total} counted bytes never came"
                    ) from None
                continue
            except OSError:
                break
            if not chunk:
                break
            chunks.append(chunk)
            missing -= len(chunk)
        data = b"".join(chunks)
        self._taken += len(data)
        return data

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                n = os.write(self._fd, view)
            except BlockingIOError:
                return  # real time only: a reader that does not read loses bytes, as on a line
            except OSError:
                return
            view = view[n:]


class PtyEnd(_FdEnd):
    """A serial line as a pseudo terminal; the host opens ``path``."""

    kind = "pty"

    def __init__(self, sim: Scheduler, channel: int, name: str) -> None:
        super().__init__(sim, channel, name)
        self._fd, self._slave = pty.openpty()  # own slave handle: the line outlives the host
        tty.setraw(self._slave)
        os.set_blocking(self._fd, False)
        self.path = os.ttyname(self._slave)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "path": self.path}

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Real time: serve bytes as they come."""
        self.is_open = True
        selector.register(self._fd, selectors.EVENT_READ, self._ready)

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._slave)

    def _ready(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        try:
            data = os.read(self._fd, 4096)
        except OSError:
            return
        self.receive(data)


class TcpEnd(_FdEnd):
    """A TCP listener on the loopback address; one connection at a time."""

    kind = "tcp"

    def __init__(self, sim: Scheduler, channel: int, name: str) -> None:
        super().__init__(sim, channel, name)
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(8)
        self.port = int(self._listener.getsockname()[1])
        self._peer: socket.socket | None = None
        self._selector: selectors.BaseSelector | None = None

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "host": "127.0.0.1", "port": self.port}

    def opened(self) -> None:
        self._listener.settimeout(TAKE_TIMEOUT_MS / 1000)
        self._accept()
        super().opened()

    def closed(self) -> None:
        super().closed()
        self._hang_up()

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Real time: accept and serve as it comes."""
        self._selector = selector
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._incoming)

    def close(self) -> None:
        self._hang_up()
        self._listener.close()

    def _accept(self) -> None:
        peer, _ = self._listener.accept()
        self._hang_up()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.setblocking(False)
        self._peer = peer
        self._fd = peer.fileno()

    def _incoming(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        try:
            self._accept()
        except OSError:
            return
        assert self._peer is not None
        selector.register(self._peer, selectors.EVENT_READ, self._ready)
        super().opened()

    def _ready(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        try:
            data = os.read(key.fd, 4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.receive(data)
        elif self._peer is not None and key.fd == self._peer.fileno():
            self.closed()

    def _hang_up(self) -> None:
        if self._peer is not None:
            if self._selector is not None:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(self._peer)
            self._peer.close()
            self._peer, self._fd = None, -1

    def _break(self) -> None:
        self.is_open = False
        self._hang_up()


# number and name of the default cell's wires (others: devices.channels_of); the order is that
# of delivery within one instant
CHANNELS: tuple[tuple[int, str, type[WireEnd]], ...] = (
    (0, "motion", PtyEnd),
    (1, "laser", TcpEnd),
    (2, "pyrometer", PtyEnd),
    (3, "chiller", PtyEnd),
    (4, "powder", TcpEnd),
    (5, "gas", TcpEnd),
    (6, "oxygen", TcpEnd),
    (7, "safety", TcpEnd),
)


def make_ends(
    sim: Scheduler,
    *,
    null: bool,
    channels: Sequence[tuple[int, str, type[WireEnd]]] = CHANNELS,
) -> dict[int, Any]:
    """All wires of a cell, by channel number."""
    ends: dict[int, Any] = {
        channel: (NullEnd if null else kind)(sim, channel, name) for channel, name, kind in channels
    }
    if null:
        filled: list[int] = []
        for end in ends.values():
            end.filled = filled
    return ends

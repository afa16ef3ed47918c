"""Byte channels: serial lines, TCP connections and null wires.

A ``Port`` says where a wire comes from and does nothing until ``open()``. A ``Wire`` is
one open channel: ``write`` never blocks, bytes arrive by a callback. Drivers and motion
links see these two only.

In virtual time the running loop carries ``wire_meter``, which counts the bytes of each
channel (see ``controller/clock.py``); in real time it is absent or None.
"""

import asyncio
import os
import socket
import termios
import tty
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from firmware_bridge.errors import TransportError

READ_SIZE = 4096
MAX_BACKLOG = 1 << 20  # bytes that wait to be written before a wire counts as dead
CONNECT_TIMEOUT_S = 2.0

_BAUD = {
    rate: getattr(termios, f"B{rate}")
    for rate in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)
}


def _ignore_data(data: bytes) -> None:
    """Bytes that arrive before anybody listens are dropped, as on a real line."""


def _ignore_lost(cause: Exception | None) -> None:
    """Nobody listens yet."""


class Wire(ABC):
    """One open byte channel."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_open = True
        self._on_data: Callable[[bytes], None] = _ignore_data
        self._on_lost: Callable[[Exception | None], None] = _ignore_lost

    def set_receiver(
        self,
        on_data: Callable[[bytes], None],
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        """Say who gets the bytes, and who is told when the other side is gone."""
        self._on_data = on_data
        self._on_lost = on_lost

    def deliver(self, data: bytes) -> None:
        """Hand arrived bytes on."""
        if self.is_open:
            self._on_data(data)

    def lost(self, cause: Exception | None) -> None:
        """The other side is gone: close, then tell."""
        if self.is_open:
            self.close()
            self._on_lost(cause)

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Queue bytes; never blocks. A closed wire raises TransportError."""

    @abstractmethod
    def close(self) -> None:
        """Give the channel back; the receiver is not told."""

    def flush(self) -> bool:
        """Push out what waits; True when nothing is left."""
        return True

    def fileno(self) -> int:
        """File descriptor, -1 where there is none."""
        return -1


class FdWire(Wire):
    """A serial line or a TCP connection."""

    def __init__(self, name: str, fd: int, channel: int | None, keep: Any = None) -> None:
        super().__init__(name)
        self._fd = fd
        self._keep = keep  # the socket object that owns fd, if any
        self._backlog = bytearray()
        self._loop = asyncio.get_running_loop()
        self._meter = getattr(self._loop, "wire_meter", None)
        self._channel = -1 if channel is None else channel
        os.set_blocking(fd, False)
        if self._meter is not None:
            self._meter.opened(self._channel, self)
        self._loop.add_reader(fd, self._readable)

    def fileno(self) -> int:
        return self._fd

    def write(self, data: bytes) -> None:
        if not self.is_open:
            raise TransportError(f"{self.name}: the connection is closed")
        if self._backlog:
            self._queue(data)
            return
        try:
            n = os.write(self._fd, data)
        except BlockingIOError:
            n = 0
        except OSError as exc:
            self._loop.call_soon(self.lost, exc)
            return
        if self._meter is not None and n:
            self._meter.wrote(self._channel, n)
        if n < len(data):
            self._queue(data[n:])

    def flush(self) -> bool:
        if not self.is_open:
            return True
        try:
            n = os.write(self._fd, self._backlog)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._loop.call_soon(self.lost, exc)
            return True
        if self._meter is not None:
            self._meter.wrote(self._channel, n)
        del self._backlog[:n]
        if self._backlog:
            return False
        if self._meter is None:
            self._loop.remove_writer(self._fd)
        return True

    def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._fd)
        if self._meter is None:
            self._loop.remove_writer(self._fd)
        else:
            self._meter.closed(self._channel)
        if self._keep is not None:
            self._keep.close()
        else:
            os.close(self._fd)

    def _queue(self, data: bytes) -> None:
        self._backlog += data
        if len(self._backlog) > MAX_BACKLOG:
            self._loop.call_soon(
                self.lost, TransportError(f"{self.name}: {MAX_BACKLOG} bytes wait unsent")
            )
        elif self._meter is not None:
            self._meter.backlog(self._channel, self)
        else:
            self._loop.add_writer(self._fd, self.flush)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError as exc:  # EIO: the line was unplugged
            self.lost(exc)
            return
        if not data:
            self.lost(None)
            return
        if self._meter is not None:
            self._meter.read(self._channel, len(data))
        self._on_data(data)


class NullWire(Wire):
    """A wire to a simulator in the same process (virtual time only)."""

    def __init__(self, name: str, channel: int) -> None:
        super().__init__(name)
        meter = getattr(asyncio.get_running_loop(), "wire_meter", None)
        if meter is None or not meter.null:
            raise TransportError(f"{name}: null wires need a loop on a null clock")
        self._channel = channel
        self._meter = meter
        self._send = meter.send
        meter.opened(channel, self)

    def write(self, data: bytes) -> None:
        if not self.is_open:
            raise TransportError(f"{self.name}: the connection is closed")
        self._send(self._channel, bytes(data))

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._meter.closed(self._channel)


class Port(ABC):
    """Where a wire comes from."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    async def open(self) -> Wire:
        """Open the wire. Raises TransportError naming the port."""

    @abstractmethod
    def __str__(self) -> str:
        """The port as a user would write it."""


class TcpPort(Port):
    """A TCP client connection."""

    def __init__(self, name: str, host: str, port: int, channel: int | None = None) -> None:
        super().__init__(name)
        self.host, self.port, self.channel = host, port, channel

    def __str__(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    async def open(self) -> Wire:
        loop = asyncio.get_running_loop()
        sock = socket.socket(
            socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_STREAM
        )
        try:
            if getattr(loop, "wire_meter", None) is not None:
                # Virtual time: the peer is on this machine and time stands still meanwhile.
                sock.settimeout(CONNECT_TIMEOUT_S)
                sock.connect((self.host, self.port))
            else:
                sock.setblocking(False)
                await asyncio.wait_for(
                    loop.sock_connect(sock, (self.host, self.port)), CONNECT_TIMEOUT_S
                )
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, TimeoutError) as exc:
            sock.close()
            reason = "no answer" if isinstance(exc, TimeoutError) else str(exc)
            raise TransportError(f"{self.name}: {self} cannot be reached: {reason}") from None
        return FdWire(self.name, sock.fileno(), self.channel, keep=sock)


def _is_pseudo_terminal(fd: int) -> bool:
    """Unix98 pty (major 136 to 143, kernel devices.txt): it carries no parity bit.

    Asked for one it refuses (EINVAL) unless something else changes in the same call.
    """
    return 136 <= os.major(os.fstat(fd).st_rdev) <= 143


class SerialPort(Port):
    """A serial line, 8 data bits, raw."""

    def __init__(
        self,
        name: str,
        path: str,
        baud: int = 115200,
        parity: str = "N",
        channel: int | None = None,
    ) -> None:
        super().__init__(name)
        if baud not in _BAUD:
            rates = ", ".join(str(r) for r in _BAUD)
            raise TransportError(f"{name}: baud {baud} is not one of {rates}")
        if parity not in "NEO" or len(parity) != 1:
            raise TransportError(f"{name}: parity {parity!r} is not N, E or O")
        self.path, self.baud, self.parity, self.channel = path, baud, parity, channel

    def __str__(self) -> str:
        return f"serial://{self.path}?baud={self.baud}&parity={self.parity}"

    async def open(self) -> Wire:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as exc:
            raise TransportError(f"{self.name}: {self.path} cannot be opened: {exc}") from None
        try:
            tty.setraw(fd, termios.TCSANOW)
            attrs = termios.tcgetattr(fd)
            cflag = attrs[2] & ~(termios.PARENB | termios.PARODD | termios.CSTOPB)
            cflag |= termios.CLOCAL | termios.CREAD
            if self.parity != "N" and not _is_pseudo_terminal(fd):
                cflag |= termios.PARENB | (termios.PARODD if self.parity == "O" else 0)
            attrs[2] = cflag
            attrs[4] = attrs[5] = _BAUD[self.baud]
            termios.tcsetattr(fd, termios.TCSANOW, attrs)
            if getattr(asyncio.get_running_loop(), "wire_meter", None) is None:
                termios.tcflush(fd, termios.TCIFLUSH)
        except (OSError, termios.error) as exc:
            os.close(fd)
            raise TransportError(f"{self.name}: {self.path} is no serial line: {exc}") from None
        return FdWire(self.name, fd, self.channel)


class NullPort(Port):
    """A channel of a simulator in the same process."""

    def __init__(self, name: str, channel: int) -> None:
        super().__init__(name)
        self.channel = channel

    def __str__(self) -> str:
        return f"null:{self.channel}"

    async def open(self) -> Wire:
        return NullWire(self.name, self.channel)


def parse_port(name: str, text: str) -> Port:
    """A port from a cell file: ``tcp://host:port`` or ``serial:///dev/x?baud=..&parity=..``.

    Raises TransportError naming what is wrong.
    """
    parts = urlsplit(text)
    try:
        if parts.scheme == "tcp":
            if parts.hostname is None or parts.port is None:
                raise TransportError(f"{name}: {text!r} needs a host and a port")
            return TcpPort(name, parts.hostname, parts.port)
        if parts.scheme == "serial":
            query = parse_qs(parts.query, strict_parsing=bool(parts.query))
            unknown = sorted(set(query) - {"baud", "parity"})
            if unknown:
                raise TransportError(f"{name}: {text!r} has unknown option {unknown[0]!r}")
            baud = int(query.get("baud", ["115200"])[0])
            return SerialPort(name, parts.path, baud, query.get("parity", ["N"])[0])
    except ValueError as exc:
        raise TransportError(f"{name}: port {text!r} cannot be read: {exc}") from None
    raise TransportError(
        f"{name}: port {text!r} is neither tcp://host:port nor serial:///path?baud=..&parity=.."
    )

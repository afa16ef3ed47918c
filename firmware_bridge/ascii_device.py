"""An ASCII device from its declarations: queries, actions, one line each way.

The same discipline as on Modbus: one request outstanding, a reply must have the whole shape
of its answer, bytes that nobody asked for are an error, and after any error nothing is taken
until 300 ms passed in silence and a probe with an answer of its own shape came back. A line
keeps order, so the probe's answer proves that no older reply is under way.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, ClassVar

from firmware_bridge.device import Device
from firmware_bridge.errors import BridgeError, DeviceError
from firmware_bridge.transport import Port, Wire

QUIET_S = 0.3
TIMEOUT_S = 0.1
LONGEST_REPLY = 128
REFUSALS = ("ERR", "Command Err", "BCMD", "?")  # a device's own words, told as they are
FAILURES_TO_CLOSE = 4  # in a row: the wire is given up and opened anew


class Query:
    """A value that the device is asked for.

    Parameters
    ----------
    forms : (command, pattern) ...     the commands are used in turn; each pattern must match
                                       the whole reply, group 1 is the value
    convert : text -> value            may raise DeviceError or ValueError
    bounds : (low, high) or None       for numbers; anything else is refused
    every : int                        asked in each n-th round
    """

    def __init__(
        self,
        *forms: tuple[str, str],
        convert: Callable[[str], Any] = str,
        bounds: tuple[float, float] | None = None,
        every: int = 1,
    ) -> None:
        self.forms = [(c.encode("ascii") + b"\r", re.compile(p).fullmatch) for c, p in forms]
        self.convert, self.bounds, self.every = convert, bounds, every
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, device: Any, owner: type | None = None) -> Any:
        return self if device is None else device.value(self.name)

    def read(self, text: str) -> Any:
        """The value in a reply's group 1. Raises DeviceError."""
        try:
            value = self.convert(text)
        except ValueError:
            raise DeviceError(f"{self.name}: {text!r} is no value") from None
        if self.bounds is not None and not self.bounds[0] <= value <= self.bounds[1]:
            low, high = self.bounds
            raise DeviceError(f"{self.name} {value:g} is outside {low:g} to {high:g}")
        return value


class Action:
    """Something the device is told. The reply is the command itself unless stated.

    ``safe``: True where ``make_safe()`` carries it out. Such an action goes out at once,
    whatever is under way. Must be stated.
    """

    def __init__(self, command: str, *, safe: bool, reply: str | None = None) -> None:
        self.command = command.encode("ascii") + b"\r"
        self.matches = re.compile(re.escape(command) if reply is None else reply).fullmatch
        self.safe = safe
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name


class AsciiLine:
    """One line with one request outstanding.

    ``probe``: command and pattern of the whole reply, unlike any other reply's.
    """

    def __init__(
        self, port: Port, name: str, probe: tuple[str, str], on_lost: Callable[[], None]
    ) -> None:
        self.port, self.name = port, name
        self.timeout_s = TIMEOUT_S
        self.after_cr = b""  # what follows the CR of a command
        self.n_requests = 0
        self.n_refused = 0
        self._probe = probe[0].encode("ascii") + b"\r"
        self._is_probe = re.compile(probe[1]).fullmatch
        self._on_lost = on_lost
        self._lock = asyncio.Lock()
        self._wire: Wire | None = None
        self._future: asyncio.Future[str] | None = None
        self._buffer = b""
        self._after_cr = False  # a reply ended so: its LF may come by itself
        self._error_at_s: float | None = None  # or of the last byte since
        self._failures = 0

    @property
    def is_open(self) -> bool:
        """True while there is a wire."""
        return self._wire is not None

    async def open(self) -> None:
        """Open the port. Raises TransportError."""
        self.close()
        wire = await self.port.open()
        wire.set_receiver(self._received, self._wire_lost)
        self._wire, self._buffer, self._after_cr = wire, b"", False
        self._error_at_s, self._failures = None, 0

    def close(self) -> None:
        """Close the wire; whoever waits for a reply gets a DeviceError."""
        wire, self._wire = self._wire, None
        self._end_wait(f"{self.name}: closed")
        if wire is not None:
            wire.close()

    async def ask(
        self,
        command: bytes,
        matches: Callable[[str], Any],
        *,
        urgent: bool = False,
        still: Callable[[], bool] | None = None,
    ) -> Any:
        """Send a command; returns what ``matches`` made of the whole reply. DeviceError else.

        ``still``: asked right before sending; False withdraws the command.

        ``urgent``: the bytes leave now, whatever is under way or waited for; the command is
        then repeated in good order to get its answer.
        """
        if urgent and (self._lock.locked() or self._error_at_s is not None):
            self._push(command)
        async with self._lock:
            if self._error_at_s is not None:
                await self._recover()
            if still is not None and not still():
                said = command[:-1].decode()
                raise DeviceError(f"{self.name}: {said} withdrawn: overtaken by an urgent command")
            return await self._exchange(command, matches)

    async def _exchange(self, command: bytes, matches: Callable[[str], Any]) -> Any:
        wire = self._wire
        if wire is None:
            raise DeviceError(f"{self.name}: not connected")
        loop = asyncio.get_running_loop()
        self.n_requests += 1
        self._buffer = b""
        future = self._future = loop.create_future()
        timer = loop.call_later(self.timeout_s, self._timed_out, future, command)
        try:
            wire.write(command + self.after_cr)
            reply = await future
        except BridgeError:
            self.doubt()
            self._count_failure()
            raise
        except BaseException:  # cancelled: its reply may still come
            self.doubt()
            raise
        finally:
            timer.cancel()
            self._future = None
        found = matches(reply)
        if found is None:
            self.n_refused += 1
            self.doubt()
            said = reply if reply.startswith(REFUSALS) else f"not its reply: {reply!r}"
            raise DeviceError(f"{self.name}: {command[:-1].decode()} got {said}")
        self._failures = 0
        return found

    def _received(self, data: bytes) -> None:
        future = self._future
        if self._after_cr and data[:1] == b"\n":  # of CR LF, apart from its CR
            data = data[1:]
        self._after_cr = False
        if not data:
            return
        if future is None or future.done():
            self.n_refused += 1
            self.doubt()
            return
        buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r")
        if end < 0:
            self._buffer = buffer
            if len(buffer) > LONGEST_REPLY:
                self._refuse(f"{self.name}: {len(buffer)} bytes without an end")
            return
        if end != len(buffer) - 1 and buffer[end + 1 :] != b"\n":
            self._refuse(f"{self.name}: {len(buffer) - end - 1} bytes too many after a reply")
            return
        self._after_cr = end == len(buffer) - 1
        try:
            future.set_result(buffer[:end].lstrip(b"\n").decode("ascii"))
        except UnicodeDecodeError:
            self._refuse(f"{self.name}: a reply is no ASCII text")

    def _refuse(self, text: str) -> None:
        self.n_refused += 1
        self._end_wait(text)
        self.doubt()

    def _timed_out(self, future: "asyncio.Future[str]", command: bytes) -> None:
        if not future.done():
            limit_ms = self.timeout_s * 1e3
            text = f"{self.name}: no answer to {command[:-1].decode()} in {limit_ms:g} ms"
            future.set_exception(DeviceError(text))

    def _end_wait(self, text: str) -> None:
        future = self._future
        if future is not None and not future.done():
            future.set_exception(DeviceError(text))

    def doubt(self) -> None:
        """Something was wrong: silence and a probe come before the next request."""
        self._error_at_s = asyncio.get_running_loop().time()

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES_TO_CLOSE and self._wire is not None:
            self.close()
            self._on_lost()

    async def _recover(self) -> None:
        """Wait for silence, then prove by the probe that no older reply is under way."""
        loop = asyncio.get_running_loop()
        while self._error_at_s is not None:
            wait_s = self._error_at_s + QUIET_S - loop.time()
            if wait_s > 1e-6:
                await asyncio.sleep(wait_s)
                continue
            self._error_at_s = None
            await self._exchange(self._probe, self._is_probe)

    def _push(self, command: bytes) -> None:
        """Send at once, across whatever is under way; counts as an error of the line."""
        self._end_wait(f"{self.name}: interrupted by {command[:-1].decode()}")
        self.doubt()
        if self._wire is not None:
            self._wire.write(command + self.after_cr)

    def _wire_lost(self, cause: Exception | None) -> None:
        self._wire = None
        self._end_wait(f"{self.name}: connection lost" + (f": {cause}" if cause else ""))
        self._on_lost()


class AsciiDevice(Device):
    """Base of the ASCII drivers. Fields of the role's reading are queries or properties."""

    probe: ClassVar[tuple[str, str]]
    after_cr: ClassVar[bytes] = b""

    def __init__(self, port: Port, name: str | None = None) -> None:
        super().__init__(port, name)
        self.line: AsciiLine | None = None
        self._round = 0
        self._values: dict[str, Any] = {}
        self._fields = tuple(self.role.reading_type.__dataclass_fields__)[1:]
        found = [v for base in reversed(type(self).__mro__) for v in vars(base).values()]
        self.queries = [v for v in found if isinstance(v, Query)]
        self.actions = {v.name: v for v in found if isinstance(v, Action)}

    @property
    def values(self) -> dict[str, Any]:
        """Every declared value of the last good poll, by name."""
        return dict(self._values)

    def value(self, name: str) -> Any:
        """One declared value of the last good poll. Raises DeviceError before the first."""
        try:
            return self._values[name]
        except KeyError:
            raise DeviceError(f"{self.name}: {name} was not read yet") from None

    async def do(self, action: Action, *, since: int | None = None) -> None:
        """Carry out an action. Raises DeviceError with the device's words.

        ``since``: ``n_urgent`` when a command of several steps began; something urgent since
        then withdraws this one. Safe actions are urgent.
        """
        line = self._line()
        if action.safe:
            self.n_urgent += 1
            await line.ask(action.command, action.matches, urgent=True)
        else:
            began = self.n_urgent if since is None else since
            await line.ask(action.command, action.matches, still=lambda: self.n_urgent == began)

    async def check(self) -> None:
        """What a driver asks once, when connected; nothing by default."""

    def close(self) -> None:
        super().close()
        if self.line is not None:
            self.line.close()

    async def _open(self) -> None:
        if self.line is None:
            self.line = AsciiLine(self.port, self.name, self.probe, self._lost_wire)
            self.line.after_cr = self.after_cr
        await self.line.open()
        self._round = 0
        await self.check()

    async def _poll(self) -> None:
        line = self._line()
        at_us = round(asyncio.get_running_loop().time() * 1e6)
        count = self._round
        fresh = dict(self._values) if count else {}
        for query in self.queries:
            if count % query.every == 0:
                forms = query.forms
                command, matches = forms[count % len(forms)]
                match = await line.ask(command, matches)
                try:
                    fresh[query.name] = query.read(match[1])
                except DeviceError as exc:
                    line.doubt()
                    raise DeviceError(f"{self.name}: {exc}") from None
        before, self._values = self._values, fresh
        try:
            self.reading = self.role.reading_type(at_us, *[getattr(self, f) for f in self._fields])
        except DeviceError:
            self._values = before
            line.doubt()
            raise
        self._round = count + 1

    async def _safe_steps(self) -> list[str]:
        failed = []
        for name, action in self.actions.items():
            if action.safe:
                try:
                    await self.do(action)
                except BridgeError as exc:
                    failed.append(f"{name}: {exc}")
        return failed

    def _line(self) -> AsciiLine:
        if self.line is None or not self.line.is_open:
            raise DeviceError(f"{self.name}: not connected")
        return self.line

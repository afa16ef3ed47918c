"""Transcripts: literal bytes both ways between a driver and a device that is a script.

A script is text. ``> ...`` is what the driver must send next, ``< ...`` what then comes back;
``<0.25 ...`` comes 0.25 s after the request, ``!`` drops the wire, ``#`` is a comment. Bytes
are hex pairs, or in ASCII scripts text with ``\\r``. Anything else sent, sent out of order,
or left over at the end fails. Nothing here builds a frame: the bytes are typed in.

Time is the loop's own and jumps from timer to timer, so nothing sleeps.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

from firmware_bridge.errors import TransportError
from firmware_bridge.transport import Port, Wire


class _Jump(selectors.SelectSelector):
    """Instead of waiting, moves the loop's time."""

    loop: "JumpLoop"

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everybody waits and nothing is due")
        self.loop.now_s += max(0.0, timeout)
        return []


class JumpLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer."""

    def __init__(self) -> None:
        selector = _Jump()
        selector.loop = self
        self.now_s = 100.0
        super().__init__(selector)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now_s


def run(body: Awaitable[Any]) -> Any:
    """Run a coroutine on a JumpLoop; exceptions in callbacks fail the test."""
    loop = JumpLoop()
    trouble: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: trouble.append(context))
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(body)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert not trouble, trouble
    return result


class ScriptWire(Wire):
    """A wire whose other end follows a script."""

    def __init__(self, name: str, port: "ScriptPort") -> None:
        super().__init__(name)
        self._port = port

    def write(self, data: bytes) -> None:
        if not self.is_open:
            raise TransportError(f"{self.name}: the connection is closed")
        self._port.sent(self, data)

    def close(self) -> None:
        self.is_open = False


class ScriptPort(Port):
    """A port to a script; ``refuse`` makes the next openings fail."""

    def __init__(self, script: str, *, text: bool = False, latency_s: float = 0.002) -> None:
        super().__init__("script")
        self.steps = parse(script, text)
        self.latency_s = latency_s
        self.refuse = 0
        self.n_opened = 0
        self.written: list[tuple[float, bytes]] = []
        self.wire: ScriptWire | None = None

    def __str__(self) -> str:
        return "script"

    async def open(self) -> Wire:
        if self.refuse:
            self.refuse -= 1
            raise TransportError("script: no answer")
        self.n_opened += 1
        self.wire = ScriptWire("script", self)
        return self.wire

    def sent(self, wire: ScriptWire, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.written.append((loop.time(), data))
        assert self.steps, f"sent after the end of the script: {data!r}"
        want = self.steps.pop(0)[2]
        assert data == want, f"sent {data.hex(' ')} {data!r}, the script says {want.hex(' ')}"
        while self.steps and self.steps[0][0] != ">":
            kind, delay_s, answer = self.steps.pop(0)
            due_s = self.latency_s if delay_s is None else delay_s
            if kind == "!":
                loop.call_later(due_s, wire.lost, None)
            else:
                loop.call_later(due_s, wire.deliver, answer)

    def finish(self) -> None:
        assert not self.steps, f"left over: {self.steps}"


def parse(script: str, text: bool) -> list[tuple[str, float | None, bytes]]:
    """The steps of a script: (kind, delay or None, bytes)."""
    steps: list[tuple[str, float | None, bytes]] = []
    for line in script.splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        head, _, rest = line.partition(" ")
        delay_s = float(head[1:]) if len(head) > 1 else None
        if text:
            data = rest.strip().replace("\\r", "\r").replace("\\n", "\n").encode("latin-1")
        else:
            data = bytes.fromhex(rest)
        assert head[0] in "<>!", f"script line {line!r}"
        steps.append((head[0], delay_s, data))
    return steps


def talk(
    make: Callable[[Port], Any],
    script: str,
    body: Callable[[Any, ScriptPort], Awaitable[Any]],
    *,
    text: bool = False,
) -> Any:
    """Connect a device to a script, run ``body(device, port)``, check for leftovers."""

    async def whole() -> Any:
        port = ScriptPort(script, text=text)
        device = make(port)
        try:
            await device.connect()
            return await body(device, port)
        finally:
            device.close()
            await asyncio.sleep(2.0)  # late replies fall on a closed wire
            port.finish()

    return run(whole())

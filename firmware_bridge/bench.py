"""The instruments that commissioning brings to a cell: a data logger that speaks lines.

The protocol belongs to the simulated bench and is fictitious (docs/reference/
device-protocols.md says so of every made-up device); a real cell's readings come as files.
"""

import asyncio
from typing import Any

from firmware_bridge.errors import DeviceError
from firmware_bridge.transport import Port, Wire

ANSWER_S = 2.0
MOST_BYTES = 65536


class Bench:
    """One line at a time, each answered by one line. Constructor does no I/O."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self._wire: Wire | None = None
        self._heard = b""
        self._answer: asyncio.Future[str] | None = None
        self._turn = asyncio.Lock()

    async def ask(self, line: str) -> str:
        """The answer to a line, without its CR. Raises DeviceError, TransportError."""
        if not line.isascii() or not line.isprintable() or not 0 < len(line) <= 64:
            raise DeviceError(f"bench: {line[:64]!r} is no line of 1 to 64 printable characters")
        async with self._turn:
            if self._wire is None or not self._wire.is_open:
                self._wire = await self.port.open()
                self._wire.set_receiver(self._data, self._lost)
            self._heard = b""
            self._answer = asyncio.get_running_loop().create_future()
            self._wire.write(line.encode() + b"\r")
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await self._answer
            except TimeoutError:
                self.close()  # a late answer must not be taken for the next one's
                raise DeviceError(f"bench: no answer to {line!r} in {ANSWER_S:g} s") from None
            finally:
                self._answer = None
        if answer.startswith("ERR"):
            raise DeviceError(f"bench: {line!r} is refused: {answer}")
        return answer

    def close(self) -> None:
        """Give the wire back."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _data(self, data: bytes) -> None:
        self._heard = (self._heard + data)[-MOST_BYTES:]
        if self._heard.endswith(b"\r"):
            self._done(self._heard[:-1].decode("ascii", "replace"))

    def _lost(self, cause: Any) -> None:
        self._wire = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(DeviceError("bench: the connection is lost"))

    def _done(self, text: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(text)

"""Lines to a grblHAL controller by character counting, and its answers in their order.

The controller answers each line once, ``ok`` or ``error:N``, when it has taken the line out of
its receive buffer and into the planner. So the bytes of unanswered lines are at most what that
buffer holds, and the n-th answer belongs to the n-th line.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from firmware_bridge.errors import DeviceError
from firmware_bridge.grbl_protocol import error_text, line_cost

LEAST_RX_BYTES = 128
LONGEST_ANSWER = 4096  # bytes without a line end: not grblHAL


class Sent:
    """One line that has no answer yet."""

    __slots__ = ("answer", "cost", "line", "lines", "text")

    def __init__(self, text: str, line: int, answer: "asyncio.Future[list[str]] | None") -> None:
        self.text = text
        self.line = line  # index in the program, -1 for a command
        self.cost = line_cost(text)
        self.answer = answer
        self.lines: list[str] = []  # what was told before the answer


class LineReader:
    """Bytes to lines; CR and LF both end one, empty ones are dropped."""

    def __init__(self) -> None:
        self._rest = b""
        self.bad_bytes = 0

    def feed(self, data: bytes) -> list[str]:
        """The lines that these bytes complete."""
        data = (self._rest + data).replace(b"\r", b"\n")
        *lines, self._rest = data.split(b"\n")
        if len(self._rest) > LONGEST_ANSWER:
            self.bad_bytes += len(self._rest)
            self._rest = b""
        found = []
        for line in lines:
            if not line:
                continue
            if not line.isascii():
                self.bad_bytes += len(line)
                continue
            found.append(line.decode("ascii"))
        return found


class Stream:
    """Unanswered lines, and room for more."""

    def __init__(self, write: Callable[[bytes], None], port: str) -> None:
        self._write = write
        self._port = port
        self.rx_bytes = LEAST_RX_BYTES
        self.sent: deque[Sent] = deque()
        self.unanswered_bytes = 0
        self.n_lines = 0  # of programs, unanswered

    def room(self, text: str) -> bool:
        """The receive buffer surely holds one more line; a ring buffer keeps one byte free."""
        return self.unanswered_bytes + line_cost(text) <= self.rx_bytes - 1

    def put(self, text: str, line: int = -1, answer: "asyncio.Future | None" = None) -> bytes:
        """Note a line as sent; the bytes to write."""
        item = Sent(text, line, answer)
        self.sent.append(item)
        self.unanswered_bytes += item.cost
        self.n_lines += line >= 0
        return text.encode("ascii") + b"\n"

    async def ask(self, text: str, timeout_s: float) -> list[str]:
        """Send a command line, wait for its answer; what was told before it.

        Raises DeviceError when refused or not answered in time, TransportError when the link
        breaks meanwhile.
        """
        answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._write(self.put(text, -1, answer))
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            raise DeviceError(f"{self._port}: no answer to {text!r} in {timeout_s:g} s") from None

    def told(self, line: str) -> None:
        """A line that is no answer: it belongs to the command at the head, if one waits."""
        if self.sent and self.sent[0].answer is not None:
            self.sent[0].lines.append(line)

    def answered(self, error: int) -> Sent | None:
        """The answer to the oldest line (0: ok); that line, or None when none was waiting."""
        if not self.sent:
            return None
        item = self.sent.popleft()
        self.unanswered_bytes -= item.cost
        self.n_lines -= item.line >= 0
        answer = item.answer
        if answer is not None and not answer.done():
            if error:
                answer.set_exception(
                    DeviceError(f"{self._port}: {item.text!r} refused: {error_text(error)}")
                )
            else:
                answer.set_result(item.lines)
        return item

    def forget(self, why: Exception) -> None:
        """The controller's buffer is gone, or the link: nobody gets an answer any more."""
        waiting = [item.answer for item in self.sent]
        self.sent.clear()
        self.unanswered_bytes = self.n_lines = 0
        for answer in waiting:
            if answer is not None and not answer.done():
                answer.set_exception(why)

"""The recorder as a process of its own, for real time: disk never delays the control loop.

``RecorderProcess`` is the caller's side with the interface of ``schema.Recorder``; it
starts ``python -m controller.record.recorder_process`` and speaks to it over a socket
pair. What the kernel does not take at once waits in a bounded buffer; a recorder that
falls further behind is an error, never a silent gap. When the caller dies, the recorder
sees the end of its pipe, writes the last seal and closes the record as INTERRUPTED.

Frames, both ways: kind u8, length u32, machine time i64 (little endian), then the body.
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controller.errors import RecordError
from controller.record.keys import load_key
from controller.record.writer import RecordWriter, dump, plain_json

_FRAME = struct.Struct("<BIq")
_START, _ROW, _EVENT, _TICK, _CLOSE = 1, 2, 3, 4, 5
_READY, _SEALED, _CLOSED, _ERROR = 17, 18, 19, 20

MAX_BEHIND_BYTES = 4 << 20  # at 100 rows a second: over three minutes
_SEND_AT = 2048  # bytes gathered before the kernel is asked, unless a tick comes
JOIN_S = 30.0
START_S = 20.0
INTERRUPTED = "INTERRUPTED"


_LEFT: list["subprocess.Popen[bytes]"] = []  # recorders that were left to end by themselves


class Spare:
    """A recorder's process that waits to be told of its record.

    Half a second passes until a new one has imported what it needs, and a control tick must not
    wait for that: readings would grow stale. One that is closed, or whose caller dies, ends.
    """

    def __init__(self) -> None:
        _LEFT[:] = [process for process in _LEFT if process.poll() is None]
        self.sock, theirs = socket.socketpair()
        for end in (self.sock, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controller.record.recorder_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C on the terminal is for the caller to handle
            )
        self.sock.setblocking(False)

    @property
    def alive(self) -> bool:
        """Whether it can still be used."""
        return self.process.poll() is None

    def leave(self) -> None:
        """Its work is done: let it end by itself. Its last 0.1 s is not worth a control tick."""
        self.sock.close()  # the end of its pipe
        _LEFT.append(self.process)

    def close(self) -> None:
        """End it, whatever it does."""
        self.sock.close()
        try:
            self.process.wait(JOIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class RecorderProcess:
    """A RecordWriter in another process (schema.Recorder).

    ``key_path`` is read by the recorder itself: the key never passes a pipe. ``spare`` is a
    process that waits already; one that is gone is made up for by a new one.
    """

    def __init__(
        self,
        folder: Path,
        key_path: Path,
        header: Mapping[str, Any],
        *,
        job: Path | None = None,
        expected_s: float = 600.0,
        spare: Spare | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.sealed_until_us = 0
        self.failure: str | None = None
        self._result: dict[str, Any] | None = None
        self._out = bytearray()
        self._in = bytearray()
        if spare is not None and not spare.alive:
            spare.close()
            spare = None
        self._own = spare or Spare()
        self._process, self._sock = self._own.process, self._own.sock
        start = {
            "folder": str(self.folder.absolute()),
            "key_path": str(Path(key_path).absolute()),
            "header": plain_json(dict(header)),
            "job": str(Path(job).absolute()) if job is not None else None,
            "expected_s": expected_s,
        }
        self._put(_START, 0, dump(start))
        try:
            self._wait_for(lambda: self._ready, START_S)
        except RecordError:
            self._reap()
            raise

    _ready = False

    @property
    def pid(self) -> int:
        """Process id of the recorder."""
        return self._process.pid

    @property
    def behind_bytes(self) -> int:
        """Bytes that the recorder has not taken yet."""
        return len(self._out)

    def telemetry(self, t_us: int, packed: bytes) -> None:
        """One row, as packed by ``schema.PACKER``."""
        self._put(_ROW, t_us, packed)

    def event(self, t_us: int, kind: str, data: Mapping[str, Any]) -> None:
        """One event."""
        self._put(_EVENT, t_us, dump({"kind": kind, "data": plain_json(dict(data))}))

    def tick(self, t_us: int) -> None:
        """Hand over what has gathered and look for answers. Raises RecordError if dead."""
        self._put(_TICK, t_us, b"")
        self._pump()
        if self.failure:
            raise RecordError(self.failure)

    def close(self, t_us: int, state: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Hand over the rest, wait for the last seal; the process ends by itself then."""
        if self._result is not None:
            return self._result
        self._put(_CLOSE, t_us, dump({"state": state, "data": plain_json(dict(data))}))
        try:
            self._wait_for(lambda: self._result is not None, JOIN_S)
        except RecordError:
            self._reap()
            raise
        self._own.leave()
        assert self._result is not None
        return self._result

    def _put(self, kind: int, t_us: int, body: bytes) -> None:
        if self._result is not None:
            raise RecordError(f"{self.folder}: the record is closed")
        if self.failure:
            raise RecordError(self.failure)
        out = self._out
        out += _FRAME.pack(kind, len(body), t_us)
        out += body
        if len(out) >= _SEND_AT:
            self._pump()
            if len(out) > MAX_BEHIND_BYTES:
                self.failure = (
                    f"{self.folder}: the recorder is {len(out) / 1e6:.0f} MB behind, limit "
                    f"{MAX_BEHIND_BYTES / 1e6:.0f} MB; the record is sealed until "
                    f"{self.sealed_until_us * 1e-6:g} s"
                )
            if self.failure:
                raise RecordError(self.failure)

    def _pump(self) -> None:
        """Send what the kernel takes, read the answers; never blocks."""
        try:
            while self._out:
                sent = self._sock.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._read()  # it may have said why before it went
            self._lost()
            return
        self._read()

    def _read(self) -> None:
        while True:
            try:
                data = self._sock.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._lost()
                break
            self._in += data
        for kind, t_us, body in _frames(self._in):
            if kind == _READY:
                self._ready = True
            elif kind == _SEALED:
                self.sealed_until_us = t_us
            elif kind == _CLOSED:
                self._result = json.loads(body)
                self.sealed_until_us = t_us
                self.failure = None
            elif kind == _ERROR:
                self.failure = body.decode()

    def _lost(self) -> None:
        if self._result is None and self.failure is None:
            self.failure = (
                f"{self.folder}: the recorder (process {self.pid}) is gone; the record is "
                f"sealed until {self.sealed_until_us * 1e-6:g} s"
            )

    def _wait_for(self, done: Callable[[], bool], limit_s: float) -> None:
        """Pump until ``done``; RecordError on failure or when ``limit_s`` of silence passes."""
        while True:
            self._pump()
            if done():
                return
            if self.failure:
                raise RecordError(self.failure)
            writers = [self._sock] if self._out else []
            ready = select.select([self._sock], writers, [], limit_s)
            if not ready[0] and not ready[1]:
                self.failure = f"{self.folder}: no answer from the recorder in {limit_s:g} s"

    def _reap(self) -> None:
        self._own.close()


def _frames(buffer: bytearray) -> list[tuple[int, int, bytes]]:
    """Take the whole frames out of ``buffer``: (kind, machine time, body)."""
    found, at, n = [], 0, len(buffer)
    while n - at >= _FRAME.size:
        kind, length, t_us = _FRAME.unpack_from(buffer, at)
        if n - at - _FRAME.size < length:
            break
        at += _FRAME.size
        found.append((kind, t_us, bytes(buffer[at : at + length])))
        at += length
    del buffer[:at]
    return found


class _Child:
    """The recorder's side: reads frames until the pipe ends."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._writer: RecordWriter | None = None
        self._t_us = 0
        self._told_us = -1

    def run(self) -> int:
        buffer = bytearray()
        try:
            while True:
                data = self._receive()
                if not data:
                    break
                buffer += data
                for kind, t_us, body in _frames(buffer):
                    self._take(kind, t_us, body)
                self._tell_seal()
            if self._writer is not None:
                # a second close answers as the first did, so an ordinary end stays as it is
                self._writer.close(self._t_us, INTERRUPTED, {"cause": "the server is gone"})
        except RecordError as exc:
            self._say(_ERROR, self._t_us, str(exc).encode())
            return 1
        return 0

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(1 << 18)
        except OSError:
            return b""

    def _take(self, kind: int, t_us: int, body: bytes) -> None:
        self._t_us = max(self._t_us, t_us)
        if kind == _START:
            start = json.loads(body)
            self._writer = RecordWriter(
                Path(start["folder"]),
                load_key(Path(start["key_path"])),
                start["header"],
                job=Path(start["job"]) if start["job"] else None,
                expected_s=start["expected_s"],
            )
            self._say(_READY, 0, b"")
            return
        writer = self._writer
        if writer is None:
            raise RecordError("the recorder was not started")
        if kind == _ROW:
            writer.telemetry(t_us, body)
        elif kind == _EVENT:
            content = json.loads(body)
            writer.event(t_us, content["kind"], content["data"])
        elif kind == _TICK:
            writer.tick(t_us)
        elif kind == _CLOSE:
            content = json.loads(body)
            result = writer.close(t_us, content["state"], content["data"])
            self._say(_CLOSED, writer.sealed_until_us, dump(result))

    def _tell_seal(self) -> None:
        writer = self._writer
        if writer is not None and writer.sealed_until_us != self._told_us:
            self._told_us = writer.sealed_until_us
            self._say(_SEALED, self._told_us, b"")

    def _say(self, kind: int, t_us: int, body: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more: the record matters
            self._sock.sendall(_FRAME.pack(kind, len(body), t_us) + body)


def main() -> int:
    """``python -m controller.record.recorder_process FD``: FD is a connected socket."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the pipe's end is the one way to stop
    os.umask(0o022)
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        sock.setblocking(True)
        return _Child(sock).run()


if __name__ == "__main__":
    sys.exit(main())

"""A motion link as a process of its own, for real time.

``LinkProcess`` has the methods of every link; the work is done by the link itself, run by
``python -m firmware_bridge.link_process --fd N`` at the other end of a socket pair. Beats, polls
and heartbeat words then do not wait for the supervisor's loop; a token's age is measured on the
child's clock from the instant at which it arrives. When the parent dies the child stops beating
at once, and closes the wire when the controller has had time to be told.

Messages, both ways: length u32 of what follows, kind u8, body.
Parent: ``C`` JSON {id, name, args, kwargs}, ``T`` token, ``L`` a piece of what ``D`` (the name of
the call, ``load`` or ``load_program``) hands over whole: arguments packed by ``packed``.
Child: ``R`` JSON {id, value | error, refusal}, ``S`` marshalled status with finished, number of
starts, refusal and extras; ``E`` JSON event, ``X`` why the link is lost, ``Q`` JSON statistics.
"""

import argparse
import asyncio
import json
import marshal
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from enum import IntEnum
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import numpy as np

from firmware_bridge import links
from firmware_bridge.errors import BridgeError, DeviceError, ProtocolError, TransportError
from firmware_bridge.link_types import (
    Abilities,
    AxisSettings,
    LinkEvent,
    LinkIdentity,
    LinkSettings,
    LinkStats,
    MotionStatus,
    ProgramLine,
)
from firmware_bridge.segments import SEGMENT
from firmware_bridge.transport import Port, parse_port

CHUNK = 1 << 16
FIFO_PRIORITY = 50
STATS_EACH = 50  # statuses
PARTING_S = 0.06  # that an orphan keeps the wire, to tell the controller: three cycles
LIMIT = 1 << 20  # longest message

_ERRORS = {cls.__name__: cls for cls in (TransportError, ProtocolError, DeviceError)}
_AWAITED = ("connect", "home", "arm", "disarm", "reset", "probe", "power_law")
_PLAIN = (
    "start", "hold", "unhold", "abort", "override", "trim", "jog", "stop_beating",
    "release_layer", "ready",
)  # fmt: skip
_GOING = ("arm", "start", "unhold")  # refused after a load that failed
_STATUS = attrgetter(*(f.name for f in fields(MotionStatus)))
_EXTRAS = ("in_bead", "layer_reached", "waits_at_layer")  # of links that have them


def packed(value: Any) -> Any:
    """What is loaded, as plain values: segments, program lines, programs, numbers."""
    if isinstance(value, np.ndarray):
        if value.dtype != SEGMENT or value.ndim != 1:
            raise ProtocolError(f"segments are {value.dtype}, wanted the 22 byte SEGMENT")
        return ("segments", np.ascontiguousarray(value).tobytes())
    if isinstance(value, ProgramLine):
        return ("line", (value.text, int(value.segment), int(value.track), bool(value.gate)))
    if hasattr(value, "segment_of_line"):
        rows = [[int(v) for v in r] for r in (value.segment_of_line, value.track_of_line)]
        return ("program", (value.text, *rows))
    if isinstance(value, list | tuple):
        return ("list", [packed(v) for v in value])
    return ("value", value)


def unpacked(pair: tuple[str, Any]) -> Any:
    """The other way round."""
    kind, body = pair
    if kind == "segments":
        return np.frombuffer(body, SEGMENT)
    if kind == "line":
        return ProgramLine(*body)
    if kind == "program":
        text, segments, tracks = body
        return SimpleNamespace(text=text, segment_of_line=segments, track_of_line=tracks)
    return [unpacked(v) for v in body] if kind == "list" else body


class Pipe:
    """Messages over one end of a socket pair, in the running loop."""

    def __init__(
        self, sock: socket.socket, on_message: Callable[[bytes, bytes], None], on_eof: Callable
    ) -> None:
        self._sock = sock
        self._on_message = on_message
        self._on_eof = on_eof
        self._in = bytearray()
        self._out = bytearray()
        self._loop = asyncio.get_running_loop()
        self.is_open = True
        sock.setblocking(False)
        self._loop.add_reader(sock, self._readable)

    def send(self, kind: bytes, body: bytes = b"") -> None:
        """Queue one message."""
        if not self.is_open:
            return
        self._out += struct.pack("<I", 1 + len(body)) + kind + body
        self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out[:CHUNK])]
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._flush)
            return
        except OSError:
            self._eof()
            return
        self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._eof()
            return
        self._in += data
        while len(self._in) >= 5:
            (size,) = struct.unpack_from("<I", self._in)
            if not 1 <= size <= LIMIT:
                self._eof()
                return
            if len(self._in) < 4 + size:
                return
            kind, body = bytes(self._in[4:5]), bytes(self._in[5 : 4 + size])
            del self._in[: 4 + size]
            self._on_message(kind, body)
            if not self.is_open:
                return

    def _eof(self) -> None:
        if self.is_open:
            self.close()
            self._on_eof()

    def close(self) -> None:
        """Give the socket back."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()


class LinkProcess:
    """A link in a child process; same methods, same status.

    ``scheduling`` says whether the child runs under SCHED_FIFO, or why not. A program that the
    link does not take comes back as ``refusal``; nothing goes until another one is loaded.

    Parameters
    ----------
    kind, options : as ``links.make`` takes them, options of plain values
    Raises as ``links.make`` does.
    """

    def __init__(
        self,
        port: Port,
        settings: LinkSettings,
        kind: str = "lmd_segment",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._port = port
        self._settings = settings
        self._kind, self._options = kind, dict(options or {})
        model = links.make(kind, port, settings, self._options)
        self.abilities: Abilities = model.abilities
        self.lacks: Mapping[str, str] = model.lacks
        self.identity: LinkIdentity | None = None
        self.restarted: bool | None = None  # as LinkSession says it
        self.status: MotionStatus | None = None
        self.stats = LinkStats()
        self.failure = ""
        self.refusal = ""
        self.scheduling = ""
        self.finished = False
        self.on_event: Callable[[LinkEvent], None] | None = None
        self.on_lost: Callable[[str], None] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Pipe | None = None
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._n_calls = 0
        self._starts = 0  # statuses from before the last load or start say nothing of it
        self._extras: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        """Process id of the child, 0 when there is none."""
        return self._child.pid if self._child is not None else 0

    async def connect(self) -> LinkIdentity:
        """Start the child and shake hands; raises as MotionLink.connect does."""
        self.close()
        self.failure = self.refusal = ""
        self.status, self.finished = None, False
        self._starts, self._extras = 0, {}
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-m",
            "firmware_bridge.link_process",
            "--fd",
            str(theirs.fileno()),
        ]
        command += ["--port", str(self._port), "--settings", json.dumps(asdict(self._settings))]
        command += ["--kind", self._kind, "--options", json.dumps(self._options)]
        try:
            self._child = subprocess.Popen(
                command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL
            )
        except OSError as exc:
            ours.close()
            raise TransportError(f"motion link process cannot be started: {exc}") from None
        finally:
            theirs.close()
        self._pipe = Pipe(ours, self._message, self._eof)
        try:
            value = await self._call("connect")
        except BaseException:
            self.close()
            raise
        self.scheduling = value.pop("scheduling")
        known, self.identity = self.identity, LinkIdentity(**value)
        self.restarted = None if known is None else known.boot_nonce != self.identity.boot_nonce
        return self.identity

    def close(self) -> None:
        """End the child; the controller shuts the gate by itself."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._child is not None:
            child, self._child = self._child, None
            child.kill()
            child.wait()
        self._fail_calls("the motion link was closed")

    def _eof(self) -> None:
        self._lost(f"{self._port}: the motion link process ended")

    def _lost(self, reason: str) -> None:
        if not self.failure:
            self.failure = reason
            self.close()
            if self.on_lost is not None:
                self.on_lost(reason)

    def _fail_calls(self, reason: str) -> None:
        calls, self._calls = list(self._calls.values()), {}
        for future in calls:
            if not future.done():
                future.set_exception(TransportError(reason))

    def _send(self, kind: bytes, body: bytes = b"") -> None:
        if self._pipe is None:
            raise TransportError(self.failure or f"{self._port}: not connected")
        self._pipe.send(kind, body)

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self._n_calls += 1
        number = self._n_calls
        future = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        self._tell(name, *args, number=number, **kwargs)
        try:
            return await future
        finally:
            self._calls.pop(number, None)

    def _tell(self, name: str, *args: Any, number: int = 0, **kwargs: Any) -> None:
        message = {"id": number, "name": name, "args": args, "kwargs": kwargs}
        self._send(b"C", json.dumps(message).encode())

    def _message(self, kind: bytes, body: bytes) -> None:
        if kind == b"S":
            status, finished, starts, refusal, self._extras = marshal.loads(body)
            self.status = MotionStatus(*status)
            if starts == self._starts:
                self.finished, self.refusal = finished, refusal
            else:
                self.finished = False
        elif kind == b"E":
            if self.on_event is not None:
                self.on_event(LinkEvent(*json.loads(body)))
        elif kind == b"R":
            answer = json.loads(body)
            if "refusal" in answer:
                self.refusal = answer["refusal"]
            future = self._calls.get(answer["id"])
            if future is not None and not future.done():
                if "error" in answer:
                    error = _ERRORS.get(answer["error"], BridgeError)
                    future.set_exception(error(answer["text"]))
                else:
                    future.set_result(answer.get("value"))
        elif kind == b"Q":
            self.stats = LinkStats(**json.loads(body))
        elif kind == b"X":
            self._lost(body.decode())

    def token(self) -> None:
        """The supervisor is alive."""
        self._send(b"T")

    def load(self, segments: np.ndarray) -> None:
        """The job's segments, (n,) SEGMENT."""
        self._load("load", segments)

    def load_program(self, *args: Any) -> None:
        """As the link's own ``load_program``."""
        self._load("load_program", *args)

    def _load(self, name: str, *args: Any) -> None:
        data = marshal.dumps(packed(args))
        self._starts += 1
        self.finished, self.refusal = False, ""
        for at in range(0, len(data), CHUNK):
            self._send(b"L", data[at : at + CHUNK])
        self._send(b"D", name.encode())

    @property
    def in_bead(self) -> bool:
        """As SupervisedLink.in_bead; True where a link does not tell."""
        return bool(self._extras.get("in_bead", True))

    @property
    def layer_reached(self) -> int:
        """As SupervisedLink.layer_reached; 0 where a link does not tell."""
        return int(self._extras.get("layer_reached", 0))

    @property
    def waits_at_layer(self) -> bool:
        """As SupervisedLink.waits_at_layer."""
        return bool(self._extras.get("waits_at_layer", False))

    def release_layer(self, layer: int) -> None:
        """As SupervisedLink.release_layer."""
        self._tell("release_layer", layer)

    def ready(self, *, powder: bool, gas: bool) -> None:
        """As SupervisedLink.ready."""
        self._tell("ready", powder=powder, gas=gas)

    async def home(self, timeout_s: float = 180.0) -> None:
        """As MotionLink.home."""
        await self._call("home", timeout_s)

    async def arm(self) -> None:
        """As MotionLink.arm."""
        await self._call("arm")

    async def disarm(self) -> None:
        """As MotionLink.disarm."""
        await self._call("disarm")

    async def reset(self) -> None:
        """As MotionLink.reset."""
        await self._call("reset")

    async def probe(
        self, axis: int, target_mm: float, speed_mm_s: float, timeout_s: float = 120.0
    ) -> float:
        """As MotionLink.probe."""
        return float(await self._call("probe", axis, target_mm, speed_mm_s, timeout_s))

    async def power_law(self, number: int, points: Sequence[tuple[float, float]]) -> None:
        """As MotionLink.power_law."""
        await self._call("power_law", number, list(points))

    def jog(self, speeds_mm_s: Sequence[float]) -> None:
        """As MotionLink.jog."""
        self._tell("jog", [float(v) for v in speeds_mm_s])

    def start(self, first: int = 0) -> None:
        """As MotionLink.start; a wrong index comes back as ``refusal``."""
        self._starts += 1
        self.finished = False
        self.refusal = ""
        self._tell("start", first)

    def hold(self, *, now: bool) -> None:
        """As MotionLink.hold."""
        self._tell("hold", now=now)

    def unhold(self) -> None:
        """As MotionLink.unhold."""
        self._tell("unhold")

    def abort(self) -> None:
        """As MotionLink.abort."""
        self._tell("abort")

    def override(self, scale: float) -> None:
        """As MotionLink.override."""
        self._tell("override", scale)

    def trim(self, factor: float) -> None:
        """As MotionLink.trim."""
        self._tell("trim", factor)

    def stop_beating(self) -> None:
        """As MotionLink.stop_beating."""
        self._tell("stop_beating")


class Child:
    """The other end: a link that does as it is told."""

    def __init__(self, sock: socket.socket, link: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self.done = self._loop.create_future()
        self._link = link
        link.on_status = self._status
        link.on_event = self._event
        link.on_lost = lambda reason: self._pipe.send(b"X", reason.encode())
        self._pipe: Pipe = Pipe(sock, self._message, self._eof)
        self._extras = [name for name in _EXTRAS if hasattr(type(link), name)]
        self._pieces = bytearray()
        self._not_loaded = ""  # why the last load failed
        self._tasks: list[asyncio.Task[None]] = []
        self._n_status = 0
        self._starts = 0
        self.scheduling = ""

    def _eof(self) -> None:
        """The parent is gone: no beat from here on, and the controller is told what it can be."""
        for task in self._tasks:  # nothing that waits may still be sent
            task.cancel()
        self._link.stop_beating()
        self._loop.call_later(PARTING_S, self._part)

    def _part(self) -> None:
        self._link.close()
        if not self.done.done():
            self.done.set_result(None)

    def _status(self, status: MotionStatus) -> None:
        link = self._link
        extras = {name: getattr(link, name) for name in self._extras}
        refusal = self._not_loaded or link.refusal
        # marshal knows plain types only, no named integers
        values = [int(v) if isinstance(v, IntEnum) else v for v in _STATUS(status)]
        told = (values, link.finished, self._starts, refusal, extras)
        self._pipe.send(b"S", marshal.dumps(told))
        self._n_status += 1
        if self._n_status % STATS_EACH == 0:
            self._pipe.send(b"Q", json.dumps(asdict(link.stats)).encode())

    def _event(self, event: LinkEvent) -> None:
        self._pipe.send(
            b"E", json.dumps([event.device_us, event.code, event.arg, event.segment]).encode()
        )
        if self._link.refusal:
            self._answer({"id": 0, "refusal": self._link.refusal})

    def _answer(self, answer: dict[str, Any]) -> None:
        self._pipe.send(b"R", json.dumps(answer).encode())

    def _message(self, kind: bytes, body: bytes) -> None:
        if kind == b"T":
            if self._link.identity is not None:
                self._link.token()
        elif kind == b"L":
            self._pieces += body
        elif kind == b"D":
            data, self._pieces = bytes(self._pieces), bytearray()
            self._starts += 1
            self._not_loaded = "the program is not taken yet"
            try:
                getattr(self._link, body.decode())(*unpacked(marshal.loads(data)))
            except BridgeError as exc:
                self._refuse(str(exc))
            else:
                self._not_loaded = ""
        elif kind == b"C":
            self._called(json.loads(body))

    def _refuse(self, text: str) -> None:
        """A load that failed: what was loaded before it must not go."""
        self._not_loaded = text
        self._answer({"id": 0, "refusal": text})

    def _called(self, call: dict[str, Any]) -> None:
        name = call["name"]
        self._starts += name == "start"
        if name in _GOING and self._not_loaded:
            error = {"error": "DeviceError", "text": self._not_loaded}
            self._answer({"id": call["id"], "refusal": self._not_loaded, **error})
        elif name in _AWAITED:
            self._tasks = [t for t in self._tasks if not t.done()]
            self._tasks.append(asyncio.ensure_future(self._await(call)))
        elif name in _PLAIN and hasattr(self._link, name):  # layers: of one link only
            try:
                getattr(self._link, name)(*call["args"], **call["kwargs"])
            except BridgeError as exc:
                self._link.refusal = str(exc)
                self._answer({"id": 0, "refusal": str(exc)})

    async def _await(self, call: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": call["id"]}
        try:
            value = await getattr(self._link, call["name"])(*call["args"])
            if call["name"] == "connect":
                answer["value"] = {**asdict(value), "scheduling": self.scheduling}
            elif value is not None:
                answer["value"] = value
        except BridgeError as exc:
            kind = next(c.__name__ for c in type(exc).__mro__ if c.__name__ in _ERRORS)
            answer |= {"error": kind, "text": str(exc)}
        self._answer(answer)


def _real_time() -> str:
    """Ask for SCHED_FIFO; what came of it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
    except (OSError, AttributeError) as exc:
        return f"SCHED_FIFO refused: {exc}"
    return f"SCHED_FIFO {FIFO_PRIORITY}"


async def _serve(fd: int, link: Any) -> None:
    child = Child(socket.socket(fileno=fd), link)
    child.scheduling = _real_time()
    await child.done


def child_main() -> None:
    """Entry of ``python -m firmware_bridge.link_process``."""
    parser = argparse.ArgumentParser(prog="python -m firmware_bridge.link_process")
    parser.add_argument("--fd", type=int, required=True, help="socket to the supervisor")
    parser.add_argument("--port", required=True, help="as in the cell file")
    parser.add_argument("--settings", required=True, help="LinkSettings as JSON")
    parser.add_argument("--kind", default="lmd_segment", help="as motion.link of the cell file")
    parser.add_argument("--options", default="{}", help="of that link, JSON")
    given = parser.parse_args()
    data = json.loads(given.settings)
    data["axes"] = tuple(AxisSettings(**axis) for axis in data["axes"])
    port, settings = parse_port("motion", given.port), LinkSettings(**data)
    link = links.make(given.kind, port, settings, json.loads(given.options))
    asyncio.run(_serve(given.fd, link))


if __name__ == "__main__":
    child_main()

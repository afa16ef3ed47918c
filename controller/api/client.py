"""Python clients of the cell server: a blocking one and one for asyncio.

Both speak plain data only and import nothing of the machine. A client has two links: calls
go over one, snapshots, events and telemetry come over the other.

    with Client(run_dir, role="operator") as cell:
        cell.call("load_job", path="blade.lmdjob")
        cell.call("start", record_dir="records/blade")
        print(cell.call("wait_state", states=["COMPLETE"]))
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from controller.api.protocol import (
    HEAD,
    MAX_FRAME,
    CallError,
    Decoder,
    Kind,
    decode_json,
    encode_json,
    proof,
)
from controller.clock import wall_s
from controller.errors import ApiError

READ_SIZE = 65536
DEADLINE_S = 5.0  # a command that the server reads later than this is not carried out


def read_token(run_dir: Path, role: str) -> str:
    """The token of a role. Raises ApiError when no server runs there."""
    path = run_dir / "tokens.json"
    try:
        tokens = json.loads(path.read_text())
    except FileNotFoundError:
        raise ApiError(f"{run_dir}: no cell server runs here") from None
    except (OSError, ValueError) as exc:
        raise ApiError(f"{path}: cannot be read ({exc})") from None
    if role not in tokens:
        raise ApiError(f"{path}: role {role!r} is none of {', '.join(tokens)}")
    return str(tokens[role])


@dataclass(frozen=True, slots=True)
class _Who:
    """What a client says of itself."""

    role: str
    token: str
    name: str


def _hello(who: _Who, nonce: str, link: str, topics: tuple[str, ...]) -> bytes:
    """The answer to the server's challenge."""
    hello: dict[str, Any] = {
        "link": link,
        "role": who.role,
        "proof": proof(who.token, nonce, link),
        "client": who.name,
    }
    if link == "stream":
        hello["topics"] = list(topics)
    return encode_json(Kind.HELLO, hello)


def _opening(path: Path, kind: int, payload: bytes, wanted: Kind) -> dict[str, Any]:
    """A frame of the opening. Raises CallError with the server's words when it refuses."""
    value = decode_json(payload)
    if kind != wanted:
        _result(value)
        raise ApiError(f"{path}: the cell server did not greet")
    return value


def _request(request_id: int, method: str, params: dict[str, Any], deadline_s: float) -> bytes:
    request = {
        "id": request_id,
        "method": method,
        "params": params,
        "deadline_s": wall_s() + deadline_s,
    }
    return encode_json(Kind.REQUEST, request)


def _result(response: dict[str, Any]) -> Any:
    """A response's result. Raises CallError with the server's words."""
    error = response.get("error")
    if error is not None:
        raise CallError(error["name"], error["message"], tuple(error.get("reasons", ())))
    return response.get("result")


def _decoded(kind: int, payload: bytes) -> tuple[Kind, Any]:
    """A stream frame: JSON as a dict, telemetry as the packed row."""
    if kind == Kind.TELEMETRY:
        return Kind.TELEMETRY, payload
    return Kind(kind), decode_json(payload)


def unpack_row(greeting: dict[str, Any], packed: bytes) -> dict[str, float]:
    """A telemetry row by field name; ``greeting`` is what the server said at HELLO."""
    told = greeting["telemetry"]
    values = struct.unpack(told["format"], packed)
    return dict(zip(["t_us", *told["fields"]], values, strict=True))


class _Link:
    """One blocking connection."""

    def __init__(
        self, path: Path, who: _Who, link: str, topics: tuple[str, ...], timeout_s: float
    ) -> None:
        self._decoder = Decoder()
        self._frames: list[tuple[int, bytes]] = []
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout_s)
        try:
            self.sock.connect(str(path))
            challenge = _opening(path, *self.receive(), Kind.CHALLENGE)
            self.sock.sendall(_hello(who, str(challenge.get("nonce")), link, topics))
            self.greeting = _opening(path, *self.receive(), Kind.HELLO)
        except OSError as exc:
            self.sock.close()
            raise ApiError(f"{path}: the cell server does not answer ({exc})") from None
        except ApiError:
            self.sock.close()
            raise

    def receive(self) -> tuple[int, bytes]:
        """The next frame. Raises ApiError when the server is gone, TimeoutError."""
        while not self._frames:
            data = self.sock.recv(READ_SIZE)
            if not data:
                raise ApiError("the cell server has closed the connection")
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    def close(self) -> None:
        self.sock.close()


class Client:
    """Blocking client. Calls raise CallError (the server refused) or ApiError (it is gone)."""

    def __init__(
        self,
        run_dir: Path | str,
        *,
        role: str = "operator",
        name: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        self._dir = Path(run_dir)
        self._timeout_s = timeout_s
        self._who = _Who(role, read_token(self._dir, role), name)
        self._command = self._open("command", ())
        self._stream: _Link | None = None
        self._next_id = 0
        self.greeting = self._command.greeting

    def _open(self, link: str, topics: tuple[str, ...]) -> _Link:
        return _Link(self._dir / "api.sock", self._who, link, topics, self._timeout_s)

    def call(
        self,
        method: str,
        *,
        deadline_s: float = DEADLINE_S,
        timeout_s: float | None = None,
        **params: Any,
    ) -> Any:
        """Call a method and wait for its answer (``timeout_s`` None: as long as it takes)."""
        self._next_id += 1
        request_id = self._next_id
        link = self._command
        try:
            link.sock.settimeout(timeout_s)
            link.sock.sendall(_request(request_id, method, params, deadline_s))
            while True:
                kind, payload = link.receive()
                response = decode_json(payload)
                if kind == Kind.RESPONSE and response.get("id") in (request_id, None):
                    return _result(response)
        except TimeoutError:
            raise ApiError(f"{method}: no answer in {timeout_s:g} s") from None
        except OSError as exc:
            raise ApiError(f"{method}: the cell server is gone ({exc})") from None

    def subscribe(self, *topics: str) -> None:
        """Open the stream link: any of snapshot, event, telemetry."""
        if self._stream is not None:
            self._stream.close()
        self._stream = self._open("stream", topics or ("snapshot", "event"))

    def receive(self, timeout_s: float | None = None) -> tuple[Kind, Any] | None:
        """The next stream frame, None after ``timeout_s`` without one."""
        if self._stream is None:
            raise ApiError("receive() before subscribe()")
        self._stream.sock.settimeout(timeout_s)
        try:
            return _decoded(*self._stream.receive())
        except TimeoutError:
            return None
        except OSError as exc:
            raise ApiError(f"the cell server is gone ({exc})") from None

    def close(self) -> None:
        """Close both links."""
        self._command.close()
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """The same for asyncio; calls may overlap, STOP never waits for another's answer."""

    def __init__(self, run_dir: Path, who: _Who) -> None:
        self._dir, self._who = run_dir, who
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next_id = 0
        self._task: asyncio.Task[None] | None = None
        self._streams: list[asyncio.StreamWriter] = []
        self.greeting: dict[str, Any] = {}

    @classmethod
    async def connect(
        cls, run_dir: Path | str, *, role: str = "operator", name: str = ""
    ) -> "AsyncClient":
        """Open the command link. Raises ApiError."""
        folder = Path(run_dir)
        client = cls(folder, _Who(role, read_token(folder, role), name))
        reader, writer, greeting = await client._open("command", ())
        client._reader, client._writer, client.greeting = reader, writer, greeting
        client._task = asyncio.get_running_loop().create_task(client._read(reader))
        return client

    async def _open(
        self, link: str, topics: tuple[str, ...]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, dict[str, Any]]:
        path = self._dir / "api.sock"
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
        except OSError as exc:
            raise ApiError(f"{path}: the cell server does not answer ({exc})") from None
        try:
            challenge = _opening(path, *await _one_frame(reader), Kind.CHALLENGE)
            writer.write(_hello(self._who, str(challenge.get("nonce")), link, topics))
            greeting = _opening(path, *await _one_frame(reader), Kind.HELLO)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            raise ApiError(f"{path}: the cell server did not greet") from None
        except ApiError:
            writer.close()
            raise
        return reader, writer, greeting

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            async for _, payload in _frames(reader):
                response = decode_json(payload)
                future = self._waiting.pop(response.get("id"), None)  # type: ignore[arg-type]
                if future is not None and not future.done():
                    future.set_result(response)
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ApiError("the cell server has closed the connection"))
            self._waiting.clear()

    async def call(self, method: str, *, deadline_s: float = DEADLINE_S, **params: Any) -> Any:
        """Call a method and wait for its answer. Raises CallError, ApiError."""
        if self._writer is None or self._task is None or self._task.done():
            raise ApiError("the cell server has closed the connection")
        self._next_id += 1
        request_id = self._next_id
        future = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        self._writer.write(_request(request_id, method, params, deadline_s))
        try:
            return _result(await future)
        finally:
            self._waiting.pop(request_id, None)

    async def stream(self, *topics: str) -> AsyncIterator[tuple[Kind, Any]]:
        """Frames of the stream link until the server closes it."""
        reader, writer, _ = await self._open("stream", topics or ("snapshot", "event"))
        self._streams.append(writer)
        async for kind, payload in _frames(reader):
            yield _decoded(kind, payload)

    async def close(self) -> None:
        """Close every link."""
        for writer in (self._writer, *self._streams):
            if writer is not None:
                writer.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def _one_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    length, kind = HEAD.unpack(await reader.readexactly(HEAD.size))
    return kind, await reader.readexactly(min(length, MAX_FRAME))


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    """Frames until the other side closes."""
    decoder = Decoder()
    while data := await reader.read(READ_SIZE):
        for frame in decoder.feed(data):
            yield frame

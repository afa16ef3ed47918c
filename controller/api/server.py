"""The cell server's socket: two links a client, commands never behind data.

Transport only; what the commands do stands in ``commands.py``. Whatever a client sends,
the server goes on: a request that cannot be served is answered with a named error, a
stream of bytes that cannot be read on is closed with one.
"""

import asyncio
import collections
import contextlib
import json
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from controller.api.protocol import (
    MAX_BACKLOG,
    MAY,
    ROLES,
    TOPICS,
    CallError,
    Decoder,
    Kind,
    decode_json,
    encode,
    encode_json,
    proof,
)
from controller.clock import wall_s
from controller.errors import ConfigError, LmdError, PreflightError, StateError
from firmware_bridge.errors import BridgeError

MAX_CONNECTIONS = 64  # two a client
MAX_UNDER_WAY = 64  # requests of one connection that are not answered yet
MAX_PENDING = 256  # requests of one connection that are not begun yet; then it is not read
PASS = 4  # requests begun in one turn of the loop: the control tick never waits for a flood
LONGEST_SOCKET_PATH = 100  # bytes; the kernel takes 107
Method = Callable[["Caller", dict[str, Any]], Awaitable[Any]]


class Caller:
    """Who calls: role and the name that a client gave itself."""

    def __init__(self, role: str, name: str) -> None:
        self.role = role
        self.name = name

    def __str__(self) -> str:
        return f"{self.role} {self.name}" if self.name else self.role


class Connection(asyncio.Protocol):
    """One link of one client."""

    def __init__(self, server: "ApiServer") -> None:
        self._server = server
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._nonce = secrets.token_hex(16)
        self._pending: collections.deque[bytes] = collections.deque()
        self._paused = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._n = 0
        self.caller: Caller | None = None
        self.link = ""
        self.topics: tuple[str, ...] = ()
        self.sent_view: dict[str, Any] | None = None  # what this client has of the snapshot

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        if not self._server.admit(self):
            why = f"the server serves {MAX_CONNECTIONS} connections at most"
            self.send(_error(None, CallError("TOO_MANY_CONNECTIONS", why)))
            self.close()
            return
        self.send(encode_json(Kind.CHALLENGE, {"nonce": self._nonce}))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        for task in self._tasks.values():
            task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            for kind, payload in self._decoder.feed(data):
                self._frame(kind, payload)
        except CallError as exc:
            self._pending.clear()
            self.send(_error(None, exc))
            self.close()

    def send(self, frame: bytes) -> None:
        """Queue a frame; a client that does not read is dropped."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(frame)
        if transport.get_write_buffer_size() > MAX_BACKLOG:
            self._server.n_dropped += 1
            transport.abort()

    def close(self) -> None:
        """Send what is queued, then close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is queued."""
        if self._transport is not None:
            self._transport.abort()

    def begin_next(self) -> bool:
        """Begin the oldest request that waits; True when more wait."""
        if self._pending:
            self._request(self._pending.popleft())
        if self._paused and not self._pending and self._transport is not None:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return bool(self._pending)

    def _frame(self, kind: int, payload: bytes) -> None:
        if self.caller is None:
            if kind != Kind.HELLO:
                raise CallError("NO_HELLO", "the first frame must be HELLO")
            self._hello(decode_json(payload))
        elif self.link == "stream" or kind != Kind.REQUEST:
            raise CallError("BAD_FRAME", f"frame kind {kind} is not expected on this link")
        else:
            self._pending.append(payload)
            if len(self._pending) >= MAX_PENDING and not self._paused:
                assert self._transport is not None
                self._paused = True
                self._transport.pause_reading()
            self._server.wait_turn(self)

    def _hello(self, hello: dict[str, Any]) -> None:
        link, name = hello.get("link"), hello.get("client", "")
        topics = hello.get("topics", ["snapshot", "event"])
        if link not in ("command", "stream") or not isinstance(name, str) or len(name) > 64:
            raise CallError("BAD_HELLO", "HELLO needs link 'command' or 'stream' and a short name")
        if not isinstance(topics, list) or any(t not in TOPICS for t in topics):
            raise CallError("BAD_HELLO", f"topics must be a list of {', '.join(TOPICS)}")
        role = self._server.role_of(hello.get("role"), hello.get("proof"), self._nonce, link)
        self.caller, self.link, self.topics = Caller(role, name), link, tuple(topics)
        self.send(encode_json(Kind.HELLO, {"role": role, **self._server.greeting()}))
        if link == "stream":
            self._server.subscribe(self)

    def _request(self, payload: bytes) -> None:
        request_id: Any = None
        try:
            request = decode_json(payload)
            request_id = request.get("id")
            if len(self._tasks) >= MAX_UNDER_WAY:
                raise CallError(
                    "TOO_MANY_REQUESTS", f"{MAX_UNDER_WAY} requests of this client are under way"
                )
            method, params = self._server.check(request, self.caller)
        except CallError as exc:
            self.send(_error(request_id, exc))
            return
        # in the order of arrival; only what waits lets others pass
        self._n += 1
        n = self._n
        coroutine = self._serve(request_id, method, params)
        task = asyncio.get_running_loop().create_task(coroutine, name="request")
        self._tasks[n] = task
        task.add_done_callback(lambda _: self._tasks.pop(n, None))

    async def _serve(self, request_id: Any, method: Method, params: dict[str, Any]) -> None:
        assert self.caller is not None
        try:
            result = await method(self.caller, params)
            frame = encode_json(Kind.RESPONSE, {"id": request_id, "result": result})
        except CallError as exc:
            frame = _error(request_id, exc)
        except PreflightError as exc:
            frame = _error(request_id, CallError("PREFLIGHT", str(exc), exc.reasons))
        except StateError as exc:
            frame = _error(request_id, CallError("STATE", str(exc)))
        except (LmdError, BridgeError) as exc:
            frame = _error(request_id, CallError(type(exc).__name__, str(exc)))
        except Exception as exc:
            frame = _error(request_id, CallError("INTERNAL", f"{type(exc).__name__}: {exc}"))
        self.send(frame)


def _error(request_id: Any, exc: CallError) -> bytes:
    if not isinstance(request_id, int | str):
        request_id = None
    error = {"name": exc.name, "message": str(exc), "reasons": list(exc.reasons)}
    return encode_json(Kind.RESPONSE, {"id": request_id, "error": error})


class ApiServer:
    """Listens on one Unix socket; checks roles and deadlines; spreads the stream."""

    def __init__(
        self,
        run_dir: Path,
        methods: dict[str, tuple[str, Method]],
        greeting: Callable[[], dict[str, Any]],
        view: Callable[[], dict[str, Any]],
    ) -> None:
        self.run_dir = run_dir
        self.socket_path = run_dir / "api.sock"
        self.connections: dict[Connection, None] = {}
        self.streams: dict[str, list[Connection]] = {topic: [] for topic in TOPICS}
        self.n_dropped = 0
        # told of a request that a client's role may not make: method, caller, params, why
        self.on_refused: Callable[[str, Caller, dict[str, Any], str], None] = lambda *_: None
        self.on_subscribers: Callable[[bool], None] = lambda telemetry: None
        self.greeting = greeting
        self._methods = methods
        self._view = view
        self._server: asyncio.AbstractServer | None = None
        self._tokens: dict[str, str] = {}  # by role
        self._turns: dict[Connection, None] = {}  # that wait to begin a request, in turns
        self._passing = False

    async def listen(self) -> None:
        """Open the socket. Raises ConfigError when another server is there."""
        path = self.socket_path
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            raise ConfigError(
                f"{path}: a socket's path may have {LONGEST_SOCKET_PATH} bytes, choose a shorter "
                "run folder"
            )
        self.run_dir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            await self._remove_left_over(path)
        self._tokens = make_tokens(self.run_dir)
        loop = asyncio.get_running_loop()
        mask = os.umask(0o177)  # nobody else on this machine gets to the socket
        try:
            self._server = await loop.create_unix_server(lambda: Connection(self), str(path))
        finally:
            os.umask(mask)

    async def _remove_left_over(self, path: Path) -> None:
        """A socket of a server that is gone is removed; of one that answers, refused."""
        try:
            _, writer = await asyncio.open_unix_connection(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
        writer.close()
        raise ConfigError(f"{path}: a cell server runs here already")

    async def close(self) -> None:
        """Stop listening, send what is queued, remove the socket and the tokens."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self.connections):
            connection.close()
        await asyncio.sleep(0)
        for name in ("api.sock", "tokens.json", "server.json"):
            (self.run_dir / name).unlink(missing_ok=True)
        self._server = None

    def admit(self, connection: Connection) -> bool:
        """Take a new connection. When all places are taken, one that never said HELLO gives way."""
        if len(self.connections) >= MAX_CONNECTIONS:
            mute = next((c for c in self.connections if c.caller is None), None)
            if mute is None:
                return False
            self.connections.pop(mute)
            mute.abort()
        self.connections[connection] = None
        return True

    def wait_turn(self, connection: Connection) -> None:
        """A connection has a request to begin: all take turns, a few in each turn of the loop."""
        self._turns[connection] = None
        if not self._passing:
            self._passing = True
            asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        for _ in range(min(PASS, len(self._turns))):
            connection = next(iter(self._turns))
            del self._turns[connection]
            if connection.begin_next():
                self._turns[connection] = None
        self._passing = bool(self._turns)
        if self._passing:
            asyncio.get_running_loop().call_soon(self._pass)

    def role_of(self, role: Any, given: Any, nonce: str, link: str) -> str:
        """The role that a HELLO proves. Raises CallError BAD_TOKEN."""
        token = self._tokens.get(role) if isinstance(role, str) else None
        if token is not None and isinstance(given, str):
            wanted = proof(token, nonce, link)
            if secrets.compare_digest(wanted.encode(), given.encode()):
                return str(role)
        raise CallError("BAD_TOKEN", "the proof of the role's token does not hold here")

    def check(
        self, request: dict[str, Any], caller: Caller | None
    ) -> tuple[Method, dict[str, Any]]:
        """A request's method and parameters. Raises CallError."""
        name, params = request.get("method"), request.get("params", {})
        if not isinstance(name, str) or not isinstance(params, dict):
            raise CallError("BAD_REQUEST", "a request needs a method (text) and params (object)")
        if not isinstance(request.get("id"), int | str):
            raise CallError("BAD_REQUEST", "a request needs an id (number or text)")
        entry = self._methods.get(name)
        if entry is None:
            raise CallError("UNKNOWN_METHOD", f"method {name[:64]!r} is not known")
        least, method = entry
        assert caller is not None
        if least not in MAY[caller.role]:
            why = f"{name} needs role {least}, this client has {caller.role}"
            self.on_refused(name, caller, params, f"WRONG_ROLE: {why}")
            raise CallError("WRONG_ROLE", why)
        deadline_s = request.get("deadline_s")
        if deadline_s is not None:
            if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float):
                raise CallError("BAD_REQUEST", "deadline_s must be a number")
            late_s = wall_s() - deadline_s
            if late_s > 0.0:
                raise CallError("DEADLINE_PASSED", f"{name} came {late_s:.3f} s after its deadline")
        return method, params

    # --- stream --------------------------------------------------------------------------

    def subscribe(self, connection: Connection) -> None:
        """Give a stream client the whole snapshot, then what changes."""
        for topic in connection.topics:
            self.streams[topic].append(connection)
        if "snapshot" in connection.topics:
            self._send_view(connection, self._view())
        self.on_subscribers(bool(self.streams["telemetry"]))

    def forget(self, connection: Connection) -> None:
        """A client is gone."""
        self.connections.pop(connection, None)
        self._turns.pop(connection, None)
        for clients in self.streams.values():
            if connection in clients:
                clients.remove(connection)
        self.on_subscribers(bool(self.streams["telemetry"]))

    def push_view(self) -> None:
        """Send the sections of the snapshot that changed."""
        if self.streams["snapshot"]:
            now = self._view()
            for connection in list(self.streams["snapshot"]):
                self._send_view(connection, now)

    def _send_view(self, connection: Connection, now: dict[str, Any]) -> None:
        sent = connection.sent_view
        connection.sent_view = now
        if sent is None:
            connection.send(encode_json(Kind.SNAPSHOT, now))
            return
        changed = {name: value for name, value in now.items() if sent.get(name) != value}
        if changed:
            connection.send(encode_json(Kind.DELTA, changed))

    def push_row(self, t_us: int, packed: bytes) -> None:
        """Send a telemetry row."""
        frame = encode(Kind.TELEMETRY, packed)
        for connection in list(self.streams["telemetry"]):
            connection.send(frame)

    def push_event(self, event: dict[str, Any]) -> None:
        """Send an event."""
        if self.streams["event"]:
            frame = encode_json(Kind.EVENT, event)
            for connection in list(self.streams["event"]):
                connection.send(frame)


def make_tokens(run_dir: Path) -> dict[str, str]:
    """New tokens, one a role, in tokens.json (mode 600); they live as long as the server."""
    tokens = {role: secrets.token_hex(16) for role in ROLES}
    write_private(run_dir / "tokens.json", tokens)
    return tokens


def write_private(path: Path, value: Any) -> None:
    """Write JSON whole or not at all, readable by its owner only."""
    part = path.with_suffix(".part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(value, file, indent=1)
    os.replace(part, path)

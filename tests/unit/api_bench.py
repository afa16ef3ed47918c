"""A fake cell behind a real API socket, on simulated time, for tests."""

import asyncio
from pathlib import Path

import pytest

from controller.api.client import AsyncClient, read_token
from controller.api.commands import Commands
from controller.api.protocol import CallError, Decoder, Kind, decode_json, encode_json, proof
from controller.api.serve import load_job
from controller.api.server import ApiServer
from controller.planning import write_job
from controller.record.schema import FIELDS, PACKER
from tests.unit.machine_fakes import CELL, Bench, make_plan, run_virtual

ABOUT = {
    "cell": "sim",
    "telemetry": {"fields": list(FIELDS), "units": [], "format": PACKER.format},
}


class Server:
    """A fake cell behind a real socket, booted and frozen."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "run"
        self.folder = folder
        self.bench = Bench()
        self.commands = Commands(self.bench.ex, lambda p: load_job(p, CELL), {}, ABOUT)
        self.api = ApiServer(
            self.run_dir, self.commands.methods(), lambda: ABOUT, self.commands.view
        )
        self.commands.attach(self.api)

    async def boot(self) -> None:
        self.bench.ex.begin()
        await self.bench.ex.connect()
        self.bench.ex.reset("boot")
        self.commands.booting = False
        await self.commands.rest()
        await self.api.listen()

    def job(self, **options) -> str:
        path = self.folder / "bar.lmdjob"
        write_job(make_plan(**options), path)
        return str(path)

    async def client(self, role: str = "operator") -> AsyncClient:
        return await AsyncClient.connect(self.run_dir, role=role, name="test")

    async def raw(self, hello: bool = True):
        reader, writer = await asyncio.open_unix_connection(str(self.run_dir / "api.sock"))
        raw = Raw(reader, writer)
        raw.nonce = (await raw.receive())["nonce"]
        if hello:
            raw.hello("operator", read_token(self.run_dir, "operator"))
        return raw

    async def close(self) -> None:
        asyncio.get_running_loop().release()
        await self.bench.end()
        await self.api.close()


class Raw:
    """A connection that sends what it likes."""

    def __init__(self, reader, writer) -> None:
        self.reader, self.writer = reader, writer
        self.decoder, self.frames = Decoder(), []
        self.nonce = ""

    def hello(self, role, token, link="command", **more):
        """Say HELLO; returns what was said, for replays."""
        said = {"link": link, "role": role, "proof": proof(token, self.nonce, link), **more}
        self.writer.write(encode_json(Kind.HELLO, said))
        return said

    async def receive(self):
        """The next frame's JSON, or None at the end of the stream."""
        while not self.frames:
            data = await self.reader.read(65536)
            if not data:
                return None
            self.frames += self.decoder.feed(data)
        return decode_json(self.frames.pop(0)[1])


def served(test):
    """Run a coroutine test against a booted server on simulated time."""

    def run(tmp_path):
        async def main():
            server = Server(tmp_path)
            await server.boot()
            try:
                await test(server)
            finally:
                await server.close()

        run_virtual(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def refused(call, name: str) -> CallError:
    with pytest.raises(CallError) as error:
        await call
    assert error.value.name == name
    return error.value

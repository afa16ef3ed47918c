"""The port's text decides: the same laser driver on a serial line and over TCP."""

import asyncio
import contextlib
import os
import pty
import tty

import pytest

from firmware_bridge import registry
from firmware_bridge.transport import SerialPort, TcpPort, parse_port
from hil_sim.clock import Scheduler
from hil_sim.devices.laser_ipg import LaserIpg
from hil_sim.devices.laser_raycus import LaserRaycus
from tests.unit.emulator_bench import Line, make_world

LASERS = {"laser_ipg": (LaserIpg, 57600), "laser_raycus": (LaserRaycus, 9600)}


@contextlib.asynccontextmanager
async def serial(line, baud):
    """A pseudo terminal with the emulator behind it; the port's text."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    loop = asyncio.get_running_loop()

    def readable():
        answer = line.ask(os.read(master, 4096))
        if answer:
            os.write(master, answer)

    loop.add_reader(master, readable)
    try:
        yield f"serial://{os.ttyname(slave)}?baud={baud}&parity=N"
    finally:
        loop.remove_reader(master)
        os.close(master)
        os.close(slave)


@contextlib.asynccontextmanager
async def tcp(line, baud):
    """A listener on this machine with the emulator behind it; the port's text."""

    async def serve(reader, writer):
        while data := await reader.read(4096):
            writer.write(line.ask(data))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("driver", LASERS)
@pytest.mark.parametrize(("wire", "kind"), [(serial, SerialPort), (tcp, TcpPort)])
def test_laser_is_read_and_enabled_over_either_port(driver, wire, kind):
    make, baud = LASERS[driver]
    sim, world = Scheduler(), make_world()
    line = Line(make(sim, world), sim)

    async def whole():
        async with wire(line, baud) as text:
            port = parse_port("laser", text)
            assert isinstance(port, kind)
            laser = registry.make(driver, port, "laser")
            await laser.connect()
            try:
                await laser.poll()
                assert laser.reading.ready
                await laser.emission_enable()
                sim.run(sim.now_us + 3_100_000)
                assert world.laser_enabled
                await laser.poll()
                assert laser.reading.enabled
                await laser.make_safe()
                assert not world.laser_enabled
            finally:
                laser.close()

    asyncio.run(whole())

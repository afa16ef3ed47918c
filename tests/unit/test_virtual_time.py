"""Virtual time on wires and on null wires: same bytes at the same simulated instants."""

import asyncio
import hashlib
import multiprocessing
import os
from pathlib import Path

import pytest

from controller.clock import NullTime, VirtualLoop, WireTime
from firmware_bridge.transport import NullPort, SerialPort, TcpPort, Wire
from hil_sim.clock import Scheduler, TimeServer
from hil_sim.wires import make_ends

END_S = 2.0


def _echo_cell(null: bool):
    """Two devices: a serial line that talks by itself and echoes, a TCP port that echoes late."""
    sim = Scheduler()
    ends = make_ends(sim, null=null)
    motion, laser = ends[0], ends[1]
    motion.on_data = lambda data: motion.send(b"ack" + data)
    laser.on_data = lambda data: sim.at(sim.grid(sim.now_us), lambda: laser.send(data[::-1]))
    count = [0]

    def status():
        count[0] += 1
        motion.send(b"status %6d\n" % count[0])

    sim.every(10_000, status)
    return sim, ends


class _NullSim:
    """The null-wire side, as hil_sim.null builds it for the whole cell."""

    def __init__(self):
        self.sim, self.ends = _echo_cell(null=True)

    def opened(self, channel):
        self.ends[channel].opened()

    def closed(self, channel):
        self.ends[channel].closed()

    def finish(self):
        pass

    def wait(self, target_us, writes):
        for channel, data in writes:
            self.ends[channel].receive(data)
        if not self.sim.emitted:
            self.sim.run(target_us)
        self.sim.emitted = False
        out = [(c, e.drain()) for c, e in self.ends.items()]
        return self.sim.now_us, [(c, d) for c, d in out if d]


def _serve(path, pipe):
    sim, ends = _echo_cell(null=False)
    server = TimeServer(sim, ends, path)
    pipe.send((ends[0].path, ends[1].port))
    server.serve()
    for end in ends.values():
        end.close()


async def _host(motion_port, laser_port, log):
    loop = asyncio.get_running_loop()
    motion: Wire = await motion_port.open()
    laser: Wire = await laser_port.open()
    answer = asyncio.Event()
    going = [True]
    motion.set_receiver(lambda d: log.append((loop.now_us(), 0, d)), lambda e: None)

    def on_laser(data):
        log.append((loop.now_us(), 1, data))
        answer.set()

    laser.set_receiver(on_laser, lambda e: None)

    async def ask():
        k = 0
        while going[0]:
            answer.clear()
            laser.write(b"ask %d" % k)
            try:
                await asyncio.wait_for(answer.wait(), 0.1)
            except TimeoutError:
                log.append((loop.now_us(), 9, b"late"))
            k += 1
            await asyncio.sleep(0.0333)

    task = asyncio.ensure_future(ask())
    n = 0
    while loop.time() < END_S:
        await asyncio.sleep(0.02)
        motion.write(b"beat %d" % n)
        log.append((loop.now_us(), 2, b""))
        n += 1
    going[0] = False
    await task
    motion.close()
    laser.close()
    loop.finish()


def _run(loop, motion_port, laser_port):
    log = []
    try:
        loop.run_until_complete(_host(motion_port, laser_port, log))
    finally:
        loop.close()
    # a serial line may cut the bytes of one instant anywhere: join them before comparing
    joined = []
    for t, channel, data in log:
        if joined and joined[-1][:2] == (t, channel) and channel == 0:
            joined[-1] = (t, channel, joined[-1][2] + data)
        else:
            joined.append((t, channel, data))
    return joined


def _run_on_wires(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    path = str(tmp_path / "time")
    process = context.Process(target=_serve, args=(path, theirs))
    process.start()
    try:
        pty_path, tcp_port = mine.recv()
        loop = VirtualLoop(WireTime(path))
        return _run(
            loop, SerialPort("m", pty_path, channel=0), TcpPort("l", "127.0.0.1", tcp_port, 1)
        )
    finally:
        process.join(10)
        assert process.exitcode == 0
        os.unlink(path)


def _run_on_null():
    return _run(VirtualLoop(NullTime(_NullSim())), NullPort("m", 0), NullPort("l", 1))


def _digest(log):
    return hashlib.sha256(repr(log).encode()).hexdigest()


def test_null_wires_and_real_wires_give_the_same_bytes_at_the_same_instants(tmp_path):
    null = _run_on_null()
    assert len([1 for t, c, d in null if c == 0]) >= 200, "status came each 10 ms"
    assert len([1 for t, c, d in null if c == 1]) >= 40, "the laser answered"
    assert not [1 for t, c, d in null if c == 9], "no answer was late"
    wires = _run_on_wires(tmp_path)
    assert wires == null


def test_same_run_twice_is_equal_on_wires(tmp_path):
    assert _digest(_run_on_wires(tmp_path)) == _digest(_run_on_wires(tmp_path))


def test_time_stands_still_while_frozen_and_goes_on_when_released():
    loop = VirtualLoop(NullTime(_NullSim()))
    seen = []

    async def main():
        await asyncio.sleep(0.5)
        loop.freeze()
        at = loop.now_us()
        reader, writer = os.pipe()
        told = asyncio.Event()
        loop.add_reader(reader, told.set)
        os.write(writer, b"x")
        await told.wait()  # a client speaks: no simulated time passes
        seen.append(loop.now_us() - at)
        loop.remove_reader(reader)
        os.close(reader)
        os.close(writer)
        loop.release()
        await asyncio.sleep(0.25)
        seen.append(loop.now_us() - at)
        loop.finish()

    loop.run_until_complete(main())
    loop.close()
    assert seen == [0, 250_000]


def test_a_dead_simulator_ends_the_run_by_losing_every_wire(tmp_path):
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    path = str(tmp_path / "time")
    process = context.Process(target=_serve, args=(path, theirs))
    process.start()
    pty_path, _ = mine.recv()
    loop = VirtualLoop(WireTime(path))

    async def main():
        wire = await SerialPort("m", pty_path, channel=0).open()
        gone = asyncio.Event()
        wire.set_receiver(lambda d: None, lambda e: gone.set())
        await asyncio.sleep(0.1)
        process.kill()
        process.join()
        await gone.wait()
        return wire.is_open

    try:
        assert loop.run_until_complete(main()) is False
    finally:
        loop.close()


def test_executor_work_runs_inline_in_virtual_time():
    loop = VirtualLoop(NullTime(_NullSim()))

    async def main():
        result = await asyncio.get_running_loop().run_in_executor(None, lambda: 7)
        with pytest.raises(ValueError, match="no"):
            await asyncio.get_running_loop().run_in_executor(None, int, "no")
        loop.finish()
        return result

    assert loop.run_until_complete(main()) == 7
    loop.close()

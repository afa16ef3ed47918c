"""The motion link as its own process, on a real pty and the wall clock."""

import asyncio
import dataclasses
import os
import signal
import time
import tty

import pytest

from firmware_bridge.errors import DeviceError, ProtocolError
from firmware_bridge.link_process import LinkProcess
from firmware_bridge.link_types import FaultCode, LinkSettings, LinkState
from firmware_bridge.transport import SerialPort
from hil_sim.firmware import INPUT_PROBE, NativeFirmware
from tests.unit.firmware_bench import AXES
from tests.unit.link_bench import SETTINGS, job
from tests.unit.protocol_reader import config

pytestmark = [pytest.mark.slow, pytest.mark.realtime]


class Device:
    """The firmware on the master side of a pty, its clock tied to the wall clock."""

    def __init__(self, blob: bytes | None = None) -> None:
        self.master, slave = os.openpty()
        tty.setraw(self.master)
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self.slave = slave
        os.set_blocking(self.master, False)
        self.fw = NativeFirmware(config(AXES) if blob is None else blob, 77)
        self.fw.set_input(0, True)
        self.rows: list = []
        self.zero = time.monotonic()

    def now_us(self) -> int:
        return int((time.monotonic() - self.zero) * 1e6)

    def catch_up(self) -> None:
        goal = self.now_us()
        while self.fw.run(goal) < goal:
            self._answer()
        self._answer()

    def _answer(self) -> None:
        data = self.fw.tx()
        self.rows += self.fw.rows().tolist()
        self.fw.samples()
        if data and self.master >= 0:
            os.write(self.master, data)

    def readable(self) -> None:
        self.catch_up()
        self.fw.rx(os.read(self.master, 4096))
        self._answer()

    async def keep(self) -> None:
        asyncio.get_running_loop().add_reader(self.master, self.readable)
        while True:
            self.catch_up()
            await asyncio.sleep(0.001)

    def at(self, kind: int, arg: int | None = None) -> list[int]:
        return [r[0] for r in self.rows if r[1] == kind and (arg is None or r[2] == arg)]

    def unplug(self) -> None:
        """The port is gone; the device runs on."""
        asyncio.get_running_loop().remove_reader(self.master)
        self.close()
        self.master = -1

    def plug(self, path) -> None:
        """A port again, under a name that stays."""
        self.master, self.slave = os.openpty()
        tty.setraw(self.master)
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        asyncio.get_running_loop().add_reader(self.master, self.readable)
        path.unlink(missing_ok=True)
        path.symlink_to(os.ttyname(self.slave))

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


def play(scene, settings=SETTINGS, blob: bytes | None = None, path: str = "") -> Device:
    """Runs ``scene(device, link, stop_tokens)`` with tokens each 10 ms until it says stop."""
    device = Device(blob)
    if path:
        os.symlink(device.path, path)

    async def main() -> None:
        link = LinkProcess(SerialPort("motion", path or device.path, 921600), settings)
        keeper = asyncio.ensure_future(device.keep())
        stopped = asyncio.Event()

        async def tokens() -> None:
            while not stopped.is_set() and not link.failure:
                link.token()
                await asyncio.sleep(0.01)

        try:
            await link.connect()
            supervisor = asyncio.ensure_future(tokens())
            await scene(device, link, stopped)
            stopped.set()
            await supervisor
        finally:
            link.close()
            keeper.cancel()
            asyncio.get_running_loop().remove_reader(device.master)

    asyncio.run(main())
    device.close()
    return device


async def running(link: LinkProcess, n: int) -> None:
    await asyncio.sleep(0.05)
    await link.home()
    link.load(job(n))
    await link.arm()
    link.start()
    while link.status is None or link.status.segment < 20:
        await asyncio.sleep(0.01)


def test_a_job_runs_through_the_child_and_reports_as_in_process():
    events = []

    async def scene(device, link, stopped) -> None:
        link.on_event = lambda event: events.append(event.code)
        with pytest.raises(DeviceError, match="ARM refused: axes are not homed"):
            await link.arm()
        await running(link, 100)
        async with asyncio.timeout(5):
            while not link.finished:
                await asyncio.sleep(0.01)
        assert link.status.segment == 99
        assert link.identity.boot_nonce == 77
        assert link.scheduling.startswith("SCHED_FIFO")
        await link.disarm()

    device = play(scene)
    assert len(device.at(2)) == 100
    assert device.at(5) == []
    assert 1 in events


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_child_killed_or_stopped_gate_off_within_105_ms(number):
    at = []

    async def scene(device, link, stopped) -> None:
        await running(link, 1000)
        pid = link.pid
        at.append(device.now_us())
        os.kill(pid, number)
        await asyncio.sleep(0.3)

    device = play(scene)
    assert 0 < device.at(1, 0)[0] - at[0] <= 105_000
    assert device.at(1, 0)[0] == device.at(7)[-1] + 100_000


def test_tokens_stop_gate_off_within_165_ms():
    at = []

    async def scene(device, link, stopped) -> None:
        await running(link, 1000)
        stopped.set()
        at.append(device.now_us())
        await asyncio.sleep(0.4)

    device = play(scene)
    assert 0 < device.at(1, 0)[0] - at[0] <= 165_000


def test_parent_gone_no_beat_any_more():
    at = []

    async def scene(device, link, stopped) -> None:
        await running(link, 1000)
        stopped.set()
        link._pipe._sock.shutdown(2)  # what the child sees when the parent dies
        at.append(device.now_us())
        await asyncio.sleep(0.3)

    device = play(scene)
    assert device.at(7)[-1] <= at[0] + 20_000
    assert 0 < device.at(1, 0)[0] - at[0] <= 120_000


def test_errors_keep_their_type_across_the_processes():
    device = Device()

    async def main() -> None:
        other = LinkSettings(
            axes=SETTINGS.axes, total_accel_mm_s2=1000, plan_share=0.8, longest_emission_s=600
        )
        link = LinkProcess(SerialPort("motion", device.path, 921600), other)
        keeper = asyncio.ensure_future(device.keep())
        try:
            with pytest.raises(ProtocolError, match="configuration hash"):
                await link.connect()
        finally:
            link.close()
            keeper.cancel()
            asyncio.get_running_loop().remove_reader(device.master)

    asyncio.run(main())
    device.close()


def test_jog_and_probe_go_through_the_child():
    found = []

    async def scene(device, link, stopped) -> None:
        await asyncio.sleep(0.05)
        await link.home()
        for _ in range(8):
            link.jog([10.0])
            await asyncio.sleep(0.04)
        await asyncio.sleep(0.3)
        assert link.status.state == LinkState.IDLE
        there = link.status.position_steps[0]
        assert 400 * 10 * 0.25 < there < 400 * 10 * 0.5
        device.fw.set_sensor(INPUT_PROBE, 0, 3000, 1)
        found.append(await link.probe(0, 20.0, 10.0))
        with pytest.raises(DeviceError, match="PROBE refused"):
            await link.probe(0, 0.0, 10.0)
        await link.power_law(1, [(0.5, 0.25), (1.0, 1.0)])

    play(scene, dataclasses.replace(SETTINGS, probe_input=True), config(AXES, flags=2))
    assert found == [7.5]


def test_unplugged_and_plugged_in_again_through_the_child(tmp_path):
    path = tmp_path / "motion"
    told = []

    async def scene(device, link, stopped) -> None:
        link.on_lost = told.append
        await running(link, 1000)
        device.unplug()
        await asyncio.sleep(0.3)
        assert device.at(5) == [device.at(7)[-1] + 100_000]
        assert link.failure
        device.plug(path)
        await link.connect()
        assert link.restarted is False
        await asyncio.sleep(0.05)
        assert link.status.fault == FaultCode.BEAT_LOST
        assert link.status.homed
        await link.reset()
        stopped.set()

    device = play(scene, path=str(path))
    assert len(told) == 1
    assert device.at(1, 1) != []

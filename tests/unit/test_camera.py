"""Camera driver, ring and simulated camera together in virtual time, and the camera file."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from controller.clock import NullTime, VirtualLoop
from firmware_bridge import registry
from firmware_bridge.camera import DeviceClock
from firmware_bridge.camera_setup import load_camera, parse_camera
from firmware_bridge.errors import DeviceError, MapError, ProtocolError
from firmware_bridge.frame_ring import FrameRing
from firmware_bridge.transport import NullPort
from hil_sim.clock import Scheduler
from hil_sim.devices.camera_ring import CameraRing
from hil_sim.frame_ring import RingWriter
from hil_sim.wires import NullEnd
from tests.unit.emulator_bench import make_world


class OneCamera:
    """A simulator with nothing but the camera, as the null clock wants it."""

    def __init__(self) -> None:
        self.sim = Scheduler()
        self.world = make_world()
        self.camera = CameraRing(self.sim, self.world)
        self.end = NullEnd(self.sim, 1, "camera")
        self.camera.send = self.end.send
        self.end.on_data = self.camera.receive
        self.end.on_opened = self.camera.opened
        self.end.on_closed = self.camera.closed

    def opened(self, channel):
        self.end.opened()

    def closed(self, channel):
        self.end.closed()

    def wait(self, target_us, writes):
        for _, data in writes:
            self.end.receive(data)
        if not self.sim.emitted:
            self.sim.run(target_us)
        self.sim.emitted = False
        data = self.end.drain()
        return self.sim.now_us, [(1, data)] if data else []

    def finish(self):
        pass


@pytest.fixture
def bench():
    return OneCamera()


@pytest.fixture
def run(bench):
    loop = VirtualLoop(NullTime(bench))

    def go(scenario, **options):
        async def whole():
            driver = registry.make("camera_ring", NullPort("camera", 1), "camera", **options)
            await driver.connect()
            try:
                return await scenario(driver)
            finally:
                driver.close()

        return loop.run_until_complete(whole())

    yield go
    loop.close()


def weld(world, width_mm=1.6, temp_deg_c=1870.0):
    world.bead_width_mm, world.pool_temp_deg_c, world.emission_w = width_mm, temp_deg_c, 600.0


def camera_file(tmp_path, **changes):
    source = Path(load_camera("ring_sim").origin).read_text(encoding="utf-8")
    for old, new in changes.values():
        assert old in source
        source = source.replace(old, new)
    path = tmp_path / "camera.toml"
    path.write_text(source, encoding="utf-8")
    return str(path)


def test_reads_the_plants_pool(bench, run):
    weld(bench.world)

    async def scenario(camera):
        await asyncio.sleep(0.1)
        await camera.poll()
        one = camera.reading
        assert one.ok
        assert not one.saturated
        assert one.width_mm == pytest.approx(1.6, rel=0.02)
        assert one.temp_deg_c == pytest.approx(1870.0, rel=0.01)
        assert one.area_mm2 == pytest.approx(0.25 * math.pi * 1.6**2, rel=0.05)
        loop = asyncio.get_running_loop()
        age_us = loop.time() * 1e6 - one.at_us
        assert 0.0 <= age_us <= 10_000.0 + camera.clock.bound_us
        weld(bench.world, 2.4)
        await asyncio.sleep(0.05)
        await camera.poll()
        assert camera.reading.width_mm == pytest.approx(2.4, rel=0.02)
        assert camera.reading.frame > one.frame
        bench.world.bead_width_mm, bench.world.pool_temp_deg_c = 0.0, 300.0
        await asyncio.sleep(0.05)
        await camera.poll()
        assert (camera.reading.width_mm, camera.reading.area_mm2) == (0.0, 0.0)
        assert math.isnan(camera.reading.temp_deg_c)
        assert camera.reading.ok

    run(scenario)


def test_at_1_khz_every_frame_is_measured_and_timed(bench, run, tmp_path):
    weld(bench.world, 1.2)
    path = camera_file(
        tmp_path, rate=("AcquisitionFrameRate = 100.0", "AcquisitionFrameRate = 1000.0")
    )

    async def scenario(camera):
        for _ in range(50):
            await asyncio.sleep(0.01)
            await camera.poll()
        frames = list(camera.history)
        numbers = [f.frame for f in frames]
        assert len(numbers) > 480
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        steps = np.diff([f.at_us for f in frames])
        assert abs(np.median(steps) - 1000) <= 1
        errors = [abs(f.width_mm / 1.2 - 1.0) for f in frames]
        assert max(errors) <= 0.02
        assert (camera.ring.n_lost, camera.ring.n_torn) == (0, 0)

    run(scenario, map=path)


def test_same_run_same_readings():
    seen = []
    for _ in range(2):
        bench = OneCamera()
        weld(bench.world)
        loop = VirtualLoop(NullTime(bench))

        async def whole():
            driver = registry.make("camera_ring", NullPort("camera", 1), "camera")
            await driver.connect()
            got = []
            for _ in range(20):
                await asyncio.sleep(0.01)
                await driver.poll()
                got.append(driver.reading)
            driver.close()
            return got

        seen.append(loop.run_until_complete(whole()))
        loop.close()
    assert seen[0] == seen[1]
    assert len({r.frame for r in seen[0] if r}) > 10


def test_faults_of_the_camera_show(bench, run):
    weld(bench.world)

    async def until(camera, seconds):
        for _ in range(round(seconds * 100)):
            await asyncio.sleep(0.01)
            await camera.poll()

    async def scenario(camera):
        await until(camera, 0.1)
        bench.camera.hot = 5.0
        await until(camera, 0.05)
        assert camera.reading.saturated
        assert math.isnan(camera.reading.temp_deg_c)
        bench.camera.hot, bench.camera.covered = 1.0, True
        await until(camera, 0.05)
        assert (camera.reading.width_mm, camera.reading.ok) == (0.0, True)  # no light, no pool
        bench.camera.covered, bench.camera.shift_px = False, (60.0, 0.0)
        await until(camera, 0.05)
        assert not camera.reading.ok
        assert camera.history[-1].why_not == "the pool reaches the frame's border"
        assert math.isnan(camera.reading.width_mm)
        bench.camera.shift_px, bench.camera.spatter = (0.0, 0.0), 4
        await until(camera, 0.2)
        assert camera.reading.width_mm == pytest.approx(1.6, rel=0.02)
        before = camera.reading
        bench.camera.torn = True
        with pytest.raises(DeviceError, match="no new frame for"):
            await until(camera, 1.0)
        assert camera.reading.frame <= before.frame + 1
        assert camera.ring.n_torn > 10
        bench.camera.torn = False
        await until(camera, 0.1)
        bench.camera.stopped = True
        with pytest.raises(DeviceError, match="no new frame for"):
            await until(camera, 1.0)
        assert asyncio.get_running_loop().time() * 1e6 - camera.reading.at_us > 250_000.0

    run(scenario)


def test_edge_lost_in_the_noise_is_no_width(bench, run, tmp_path):
    weld(bench.world)
    path = camera_file(tmp_path, dim=("ExposureTime = 100.0", "ExposureTime = 6.0"))

    async def scenario(camera):
        await asyncio.sleep(0.1)
        await camera.poll()
        assert not camera.reading.ok
        assert math.isnan(camera.reading.width_mm)
        assert camera.history[-1].why_not == "the pool's edge is lost in the noise"

    run(scenario, map=path)


def test_ring_leaves_no_name_behind_and_rendering_ends_with_the_line(bench, run):
    async def scenario(camera):
        assert not os.path.exists(f"/dev/shm/{camera.ring.name}")
        await asyncio.sleep(0.1)
        await camera.poll()

    run(scenario)
    bench.end.closed()
    number = bench.camera.number
    bench.sim.run(bench.sim.now_us + 1_000_000)
    assert bench.camera.number == number


def test_new_host_takes_over_a_camera_that_still_runs(bench, run):
    """A pty does not tell the camera that its host has gone."""
    weld(bench.world)
    bench.end.on_closed = lambda: None

    async def scenario(camera):
        await asyncio.sleep(0.1)
        await camera.poll()
        assert camera.reading.width_mm == pytest.approx(1.6, rel=0.02)

    run(scenario)
    assert bench.camera.ring is not None
    run(scenario)


def test_camera_that_cannot_do_a_feature_is_refused(bench, run, tmp_path):
    path = camera_file(
        tmp_path,
        rate=("AcquisitionFrameRate = 100.0", "AcquisitionFrameRate = 5000.0"),
    )
    with pytest.raises(DeviceError, match=r"AcquisitionFrameRate is 1000\.0, .* wants 5000\.0"):
        run(lambda camera: asyncio.sleep(0), map=path)


def test_genicam_without_harvesters_is_refused_by_name():
    driver = registry.make("camera_genicam", NullPort("camera", 1), "camera", producer="x.cti")
    with pytest.raises(DeviceError, match="'harvesters' is not installed"):
        asyncio.run(driver.start())


def test_genicam_follows_the_librarys_documented_calls(monkeypatch):
    """A stand-in for harvesters: features by attribute, try_fetch, payload, queue."""
    setup = load_camera("ring_sim")
    queued, frames = [], [np.full((128, 128), 800, np.uint16) for _ in range(3)]

    def fetch(timeout):
        assert timeout == 0
        if not frames:
            return None
        data = frames.pop(0).ravel()
        part = SimpleNamespace(data=data, width=128, height=128)
        return SimpleNamespace(
            payload=SimpleNamespace(components=[part]),
            timestamp_ns=5_000_000,
            queue=lambda: queued.append(1),
        )

    nodes = SimpleNamespace(
        **{name: SimpleNamespace(value=None) for name in setup.features},
        TimestampLatch=SimpleNamespace(execute=lambda: None),
        TimestampLatchValue=SimpleNamespace(value=4_000_000),
    )
    camera = SimpleNamespace(
        remote_device=SimpleNamespace(node_map=nodes),
        start=lambda: None,
        try_fetch=fetch,
        destroy=lambda: queued.append("destroyed"),
    )
    harvester = SimpleNamespace(
        add_file=lambda path: None,
        update=lambda: None,
        create=lambda wanted: camera,
        reset=lambda: None,
    )
    core = SimpleNamespace(Harvester=lambda: harvester)
    monkeypatch.setitem(sys.modules, "harvesters", SimpleNamespace(core=core))
    monkeypatch.setitem(sys.modules, "harvesters.core", core)
    from firmware_bridge.devices.camera_genicam import GenicamCamera

    driver = GenicamCamera(NullPort("camera", 1), "camera", producer="x.cti")

    async def whole():
        await driver.connect()
        await driver.poll()
        driver.close()

    asyncio.run(whole())
    assert nodes.ExposureTime.value == 100.0
    assert (driver.reading.frame, driver.reading.width_mm) == (3, 0.0)
    assert queued == [1, 1, 1, "destroyed"]


def test_device_clock_never_makes_a_frame_younger():
    clock = DeviceClock()
    offset_us = 123_456.0
    for k in range(50):
        sent = k * 1e6
        true_ns = round((sent + 3_000.0 - offset_us + 1e9) * 1e3)
        clock.latch(true_ns, sent, sent + 5_000.0 + 100.0 * (k % 3))
    at_us = clock.to_us(true_ns)
    assert sent <= at_us <= sent + 3_000.0
    assert clock.bound_us <= 5_200.0


# ring


def write(ring, number, value=7, **kw):
    ring.write(number, number * 1000, 100.0, 0.0, lambda p: p.fill(value), **kw)


def test_ring_hands_frames_over_and_counts_what_it_lost():
    writer = RingWriter(64, 64, "Mono8", slots=8)
    reader = FrameRing(writer.name)
    try:
        assert reader.newest == 0
        assert reader.since(0, np.max) == []
        for number in range(1, 6):
            write(writer, number, number)
        got = reader.since(2, np.max)
        assert [(h.number, h.at_ns, m) for h, m in got] == [
            (3, 3000, 3),
            (4, 4000, 4),
            (5, 5000, 5),
        ]
        for number in range(6, 31):
            write(writer, number, number)
        got = reader.since(5, np.max)
        assert [h.number for h, _ in got] == [24, 25, 26, 27, 28, 29, 30]
        assert reader.n_lost == 18
    finally:
        reader.close()
        writer.close()


def test_ring_that_is_dropped_takes_its_name_along():
    path = RingWriter(64, 64, "Mono8", slots=2).path
    assert not os.path.exists(path)


def test_frame_overwritten_while_it_is_read_is_thrown_away():
    writer = RingWriter(64, 64, "Mono16", slots=4)
    reader = FrameRing(writer.name)
    try:
        write(writer, 1)

        def slow(pixels):
            write(writer, 5)  # the same slot
            return 1

        assert reader.read(1, slow) is None
        write(writer, 6, torn=True)
        assert reader.read(6, np.max) is None
        assert reader.n_torn == 2
    finally:
        reader.close()
        writer.close()


@pytest.mark.parametrize(
    "name", ["../etc/passwd", "lmd-ring-", "other", "lmd-ring-A", "lmd-ring-x/y"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ProtocolError, match="no name of a frame ring"):
        FrameRing(name)


def test_files_that_are_no_ring_are_refused():
    name = f"lmd-ring-test-{os.getpid()}"
    path = f"/dev/shm/{name}"
    good = RingWriter(64, 64, "Mono8", slots=4)
    try:
        head = Path(good.path).read_bytes()
    finally:
        good.close()
    bad = [b"", head[:200], b"X" + head[1:], head[:-1], head[:12] + b"\xff" * 4 + head[16:]]
    bad.append(head[:28] + b"\0" * 4 + head[32:])
    try:
        for data in bad:
            Path(path).write_bytes(data)
            with pytest.raises(ProtocolError):
                FrameRing(name)
        os.unlink(path)
        whole = RingWriter(64, 64, "Mono8", slots=4)
        try:
            os.symlink(whole.path, path)
            with pytest.raises(ProtocolError, match="cannot be opened"):
                FrameRing(name)
            FrameRing(whole.name).close()
        finally:
            whole.close()
    finally:
        os.unlink(path)


# camera file


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Width = 128", "Width = 8", r"features\.Width 8 is outside 16 to 2048"),
        ("Width = 128", "Width = 128.5", r"features\.Width 128\.5 is no whole number"),
        ("Mono16\"", "Mono12\"", r"PixelFormat 'Mono12' is not one of Mono8, Mono16"),
        ("blur_px = 0.8", "blur = 0.8", r"optics\.blur is not known"),
        ("blur_px = 0.8", "", r"optics\.blur_px None is no number"),
        ("Gain = 0.0", "Gain = nan", r"features\.Gain nan is outside"),
        ("ExposureTime = 100.0", "ExposureTime = 20000.0", "longer than a frame at 100 Hz"),
        ("melt_pool_camera", "pyrometer", "role is 'pyrometer'"),
    ],
)  # fmt: skip
def test_camera_file_names_what_is_wrong(old, new, words):
    text = Path(load_camera("ring_sim").origin).read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(MapError, match=words):
        parse_camera(text.replace(old, new, 1), "c.toml")


def test_exposure_that_cannot_show_the_edge_is_refused():
    text = Path(load_camera("ring_sim").origin).read_text(encoding="utf-8")
    made = parse_camera(text.replace("edge_deg_c = 1410.85", "edge_deg_c = 600.0"), "c.toml")
    with pytest.raises(MapError, match=r"c\.toml: features\.ExposureTime 100 us: the edge"):
        made.kernel()
    with pytest.raises(MapError, match="camera 'nikon' is not known; there are: ring_sim"):
        load_camera("nikon")

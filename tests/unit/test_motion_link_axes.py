"""The motion link: jog, probe, power laws, lines lost and found, clock, statistics."""

import asyncio
import dataclasses
import random

import pytest

from firmware_bridge.errors import DeviceError, ProtocolError
from firmware_bridge.link_types import FaultCode, LinkState, ProbeOutcome, rtt_class
from firmware_bridge.motion_link_clock import OffsetBounds
from hil_sim.firmware import INPUT_PROBE, NativeFirmware
from tests.unit.firmware_bench import AXES
from tests.unit.link_bench import SETTINGS, Bench, job
from tests.unit.protocol_reader import config
from tests.unit.test_motion_link import sent, until

PROBING = dataclasses.replace(SETTINGS, probe_input=True)


def probing_bench() -> Bench:
    return Bench(PROBING, config(AXES, flags=2))


def test_settings_of_inputs_and_encoders_are_the_documents_configuration():
    x, y, z = SETTINGS.axes
    settings = dataclasses.replace(
        SETTINGS,
        axes=(
            dataclasses.replace(x, limit_low=True, encoder_per_mm=1000.0, lost_steps=20),
            dataclasses.replace(y, limit_low=True, limit_high=True),
            dataclasses.replace(z, encoder_per_mm=-400.0, lost_steps=7),
        ),
        following_error_input=True,
        probe_input=True,
    )
    axes = [(*AXES[0], 163840, 20), AXES[1], (*AXES[2], -65536, 7)]
    assert settings.config_blob() == config(axes, flags=3, limits=0x0203)


def test_jog_goes_while_it_is_called_and_ends_by_itself():
    bench = Bench()

    async def build():
        await asyncio.sleep(0.02)
        await bench.link.home()
        for _ in range(15):
            bench.link.jog([20.0, 0.0, -1.0])
            await asyncio.sleep(0.04)
            if bench.link.status.position_steps[0]:
                assert bench.link.status.state == LinkState.JOG
        await asyncio.sleep(0.3)
        assert bench.link.status.state == LinkState.IDLE

    bench.run(build())
    x, _, z = bench.link.status.position_steps[:3]
    assert 400 * 20 * 0.6 < x < 400 * 20 * 0.8
    assert z == 0  # it stood at its lower end
    assert len(sent(bench, "JOG")) == 15


def test_jog_without_a_token_sends_nothing():
    bench = Bench()

    async def build():
        await asyncio.sleep(0.02)
        bench.supervised = False
        await asyncio.sleep(0.1)
        bench.link.jog([20.0])
        with pytest.raises(ProtocolError, match="4 speeds for 3 axes"):
            bench.link.jog([0.0] * 4)

    bench.run(build())
    assert sent(bench, "JOG") == []


def test_a_refused_jog_is_told_and_fails_nothing_else():
    bench = Bench()

    async def build():
        await bench.ready(job(10))
        bench.link.jog([20.0])
        await asyncio.sleep(0.05)
        assert "JOG refused: not possible in this state" in bench.link.refusal
        bench.link.start()
        await until(lambda: bench.link.finished)

    bench.run(build())
    assert len(bench.at(2)) == 10


def test_probe_returns_the_place_of_the_edge():
    bench = probing_bench()
    found = []

    async def build():
        await asyncio.sleep(0.02)
        await bench.link.home()
        bench.fw.set_sensor(INPUT_PROBE, 2, 4321, 1)
        found.append(await bench.link.probe(2, 100.0, 10.0))
        assert bench.link.status.probe == ProbeOutcome.FOUND
        with pytest.raises(DeviceError, match="PROBE refused: a limit switch, the probe"):
            await bench.link.probe(2, 0.0, 10.0)

    bench.run(build())
    assert found == [4321 / 400]


def test_a_probe_that_finds_nothing_or_is_stopped_says_so():
    bench = probing_bench()

    async def build():
        await asyncio.sleep(0.02)
        await bench.link.home()
        with pytest.raises(DeviceError, match="axis 0 found nothing up to 5 mm"):
            await bench.link.probe(0, 5.0, 20.0)
        waiting = asyncio.ensure_future(bench.link.probe(0, 200.0, 20.0))
        await asyncio.sleep(0.3)
        bench.link.hold(now=True)
        with pytest.raises(DeviceError, match="ended by a stop or a fault"):
            await waiting
        bench.link.unhold()
        await asyncio.sleep(0.05)
        with pytest.raises(DeviceError, match=r"longer than 0\.2 s"):
            await bench.link.probe(0, 200.0, 20.0, timeout_s=0.2)
        await asyncio.sleep(0.1)
        assert bench.link.status.state == LinkState.HELD

    bench.run(build())


def test_power_law_of_a_plan_is_set_before_its_segments():
    bench = Bench()

    async def build():
        await asyncio.sleep(0.02)
        await bench.link.home()
        await bench.link.power_law(1, [(0.5, 0.25), (1.0, 1.0)])
        segments = job(300)
        segments[0]["flags"], segments[0]["ticks_lo"], segments[0]["end_speed"] = 8, 0, 0
        segments[0]["end_power"] = 0
        segments[0]["steps"] = (1, 0, 0, 0, 0, 0)
        bench.link.load(segments)
        await bench.link.arm()
        bench.link.start()
        await until(lambda: bench.link.status.segment > 30)
        bench.link.override(0.5)
        await asyncio.sleep(0.1)
        assert bench.link.status.power_law == 1
        assert bench.link.status.power_fraction == pytest.approx(30000 / 65535 / 4, abs=1e-4)
        with pytest.raises(DeviceError, match="LAW refused: not possible in this state"):
            await bench.link.power_law(2, [(0.5, 0.5), (1.0, 1.0)])
        with pytest.raises(ProtocolError, match="1 points"):
            await bench.link.power_law(2, [(0.5, 0.5)])

    bench.run(build())


def test_unplugged_and_plugged_in_again_the_fault_is_latched_and_the_position_known():
    bench = Bench()
    told = []

    async def build():
        bench.link.on_lost = told.append
        await bench.ready(job(400, back_after=400))
        bench.link.start()
        await until(lambda: bench.link.status.segment > 50)
        bench.connected = False
        last = bench.at(7)[-1]
        bench.wire.lost(None)
        await asyncio.sleep(0.4)
        assert bench.at(5, FaultCode.BEAT_LOST) == [last + 100_000]
        bench.connected = True
        await bench.link.connect()
        assert bench.link.restarted is False
        await asyncio.sleep(0.02)
        status = bench.link.status
        assert (status.state, status.fault) == (LinkState.FAULT, FaultCode.BEAT_LOST)
        assert status.homed
        assert not status.armed
        assert not status.gate_on
        assert status.position_steps[:2] == tuple(bench.rows["pos"][-1][:2].tolist())
        with pytest.raises(DeviceError, match="a fault is latched"):
            await bench.link.arm()
        await bench.link.reset()
        await bench.link.arm()
        bench.link.start(300)
        await until(lambda: bench.link.finished)

    bench.run(build())
    assert told == ["memory: connection lost"]
    assert bench.link.stats.frames_lost == 0


def test_plugged_in_again_after_a_restart_nothing_is_homed():
    bench = Bench()

    async def build():
        await bench.ready(job(400))
        bench.link.start()
        await until(lambda: bench.link.status.segment > 50)
        bench.wire.lost(None)
        now_us = bench.fw.now_us
        bench.fw = NativeFirmware(config(AXES), 0x55)
        bench.fw.set_input(0, True)
        bench.fw.run(now_us)  # the bench's loop takes its time from here
        while bench.fw.now_us < now_us:
            bench.collect()
            bench.fw.run(now_us)
        await bench.link.connect()
        assert bench.link.restarted is True
        await asyncio.sleep(0.02)
        assert not bench.link.status.homed
        with pytest.raises(DeviceError, match="axes are not homed"):
            await bench.link.arm()

    bench.run(build())


def test_clock_bound_holds_and_is_tight_on_a_quick_line():
    bench = Bench()

    async def build():
        await asyncio.sleep(5.0)

    bench.run(build())
    stats = bench.link.stats
    assert stats.clock_offset_us == 0  # one clock here
    assert 0 <= stats.clock_error_us <= 101  # 100 ppm of a second, and the resolution
    hellos = sent(bench, "HELLO")
    assert len(hellos) == 6


@pytest.mark.parametrize("seed", range(20))
def test_clock_bound_contains_the_true_offset_with_delays_and_drift(seed):
    rng = random.Random(seed)
    drift = rng.uniform(-95e-6, 95e-6)
    offset = rng.randrange(-(10**9), 10**9)
    bounds = OffsetBounds()
    checked = 0

    def device(host_us: float) -> int:
        return int(host_us * (1 + drift)) - offset

    for second in range(5):
        base = second * 1_000_000
        asked = base + rng.randrange(1000)
        at = asked + rng.randrange(5000)
        bounds.answered(asked, device(at))
        bounds.came(at + rng.randrange(5000), device(at))
        for ms in range(20, 1000, 10):
            made = base + ms * 1000
            bounds.came(made + rng.randrange(30, 9000), device(made))
            now = base + ms * 1000 + 9000
            estimate = bounds.offset(now)
            assert estimate is not None
            true = now - device(now)
            assert abs(estimate[0] - true) <= estimate[1] + 1
            checked += 1
        bounds.turn()
    assert checked > 400


def test_offset_is_unknown_while_nothing_was_answered():
    bounds = OffsetBounds()
    bounds.came(100, 50)
    assert bounds.offset(200) is None
    bounds.answered(90, 45)
    assert bounds.offset(200) == (47, 5)
    bounds.answered(500, 50)  # cannot be: the device had answered before it was asked
    assert bounds.offset(600) is None


def test_statistics_tell_of_queue_and_round_trips():
    bench = Bench()

    async def build():
        await bench.ready(job(1000))
        bench.link.start()
        await until(lambda: bench.link.finished)

    bench.run(build())
    stats = bench.link.stats
    assert 900_000 <= stats.queue_least_us <= 1_250_000
    assert sum(stats.rtt_counts) > 50
    assert stats.rtt_counts[0] == sum(stats.rtt_counts)
    assert stats.beat_late_max_us == 0


def test_round_trip_classes():
    assert [rtt_class(us) for us in (0, 63, 64, 127, 128, 10**9)] == [0, 0, 1, 1, 2, 15]


def test_a_small_window_of_the_device_is_kept():
    bench = Bench()
    under_way = []

    async def build():
        await bench.ready(job(2000, (1, 0, 0), 1000))
        bench.link._window = 1000
        bench.spoil = lambda data: data if data[1] != 2 else under_way.append(len(data)) or b""
        bench.link.start()
        await asyncio.sleep(0.015)
        assert sum(under_way) == 912  # two frames of 20 segments, then it waits
        bench.spoil = lambda data: data
        await until(lambda: bench.link.finished)

    bench.run(build())
    assert len(bench.at(2)) == 2000

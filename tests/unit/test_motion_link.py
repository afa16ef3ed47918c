"""The motion link against the real firmware core, in simulated time."""

import asyncio
import random
import struct

import numpy as np
import pytest

from firmware_bridge.errors import DeviceError, ProtocolError, TransportError
from firmware_bridge.link_types import EventCode, FaultCode, LinkState
from firmware_bridge.segments import SEGMENT
from tests.unit.firmware_bench import AXES
from tests.unit.link_bench import SETTINGS, Bench, job
from tests.unit.protocol_reader import Reader, config


def sent(bench: Bench, name: str) -> list[int]:
    """Instants at which frames of one kind were written."""
    return [t for t, data in bench.written for f in Reader().feed(data) if f.name == name]


async def until(check, step_s: float = 0.01) -> None:
    while not check():
        await asyncio.sleep(step_s)


def test_configuration_blob_is_the_documents():
    assert SETTINGS.config_blob() == config(AXES)
    assert SETTINGS.config_hash() == 0xAF1A1C3E


def test_a_job_streams_whole_with_credit_and_a_second_queued():
    bench = Bench()
    depths = []

    async def build():
        await bench.ready(job(3000))
        bench.link.start()
        while not bench.link.finished:
            await asyncio.sleep(0.01)
            if bench.link.status.state == LinkState.RUN:
                depths.append(bench.link.status.queued)

    bench.run(build())
    ends = bench.rows[bench.rows["kind"] == 2]
    assert ends["segment"].tolist() == list(range(3000))
    planned = np.cumsum(job(3000)["steps"].astype(int), axis=0)
    assert (ends["pos"] == planned).all()
    assert np.diff(ends["t_us"].astype(int)).tolist() == [10000] * 2999
    stats = bench.link.stats
    assert (stats.resends, stats.naks, stats.underruns, stats.bad_bytes) == (0, 0, 0, 0)
    # 1.0 to 1.25 s queued until the job's end comes in sight
    assert min(depths[50:-150]) >= 99
    assert max(depths) <= 146


def test_short_segments_fill_the_queue_no_further_than_credit():
    bench = Bench()
    most = []

    async def build():
        await bench.ready(job(12_000, (1, 0, 0), 200))
        bench.link.start()
        while not bench.link.finished:
            await asyncio.sleep(0.01)
            most.append(bench.link.status.queued)

    bench.run(build())
    assert bench.link.stats.naks == 0
    assert 1900 < max(most) <= 2048


def test_start_may_begin_anywhere_and_again():
    bench = Bench()

    async def build():
        await bench.ready(job(100))
        bench.link.start(60)
        await until(lambda: bench.link.finished)
        bench.link.start(90)
        assert not bench.link.finished
        await until(lambda: bench.link.finished)

    bench.run(build())
    ends = bench.rows[bench.rows["kind"] == 2]["segment"].tolist()
    assert ends == [*range(60, 100), *range(90, 100)]


def noise(rng: random.Random, spare_beats: bool):
    """15 % of writes lost or with a flipped bit, 5 % doubled."""

    def spoil(data: bytes) -> bytes:
        dice = rng.random()
        if not data or (spare_beats and data[1] == 3):
            return data
        if dice < 0.05:
            return b""
        if dice < 0.15:
            out = bytearray(data)
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
            return bytes(out)
        if dice < 0.2:
            return data + data
        return data

    return spoil


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_noisy_line_loses_no_segment(seed):
    # beats are spared: at this noise four spoiled in a row (100 ms) come in a fifth of the
    # builds, and then the dead-man is right to trip
    bench = Bench()
    rng = random.Random(seed)

    async def build():
        await bench.ready(job(800))
        bench.spoil = bench.spoil_back = noise(rng, spare_beats=True)
        bench.link.start()
        await until(lambda: bench.link.finished)
        bench.spoil = bench.spoil_back = lambda data: data

    bench.run(build())
    ends = bench.rows[bench.rows["kind"] == 2]
    assert (ends["pos"] == np.cumsum(job(800)["steps"].astype(int), axis=0)).all()
    assert bench.link.stats.resends > 0
    assert bench.link.stats.frames_lost > 0
    assert bench.at(5) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_noise_never_makes_the_controller_miss_a_good_beat(seed):
    bench = Bench()
    spoil = noise(random.Random(seed), spare_beats=False)
    good = []

    def watch(data: bytes) -> bytes:
        out = spoil(data)
        if data[1] == 3 and out.startswith(data):
            good.append(bench.fw.now_us)
        return out

    async def build():
        await bench.ready(job(800))
        bench.spoil = watch
        bench.link.start()
        await asyncio.sleep(5)

    bench.run(build())
    assert len(good) > 150
    assert set(good) <= set(bench.at(7))


def test_beats_stop_60_ms_after_the_last_token():
    bench = Bench()

    async def build():
        await bench.ready(job(1000))
        bench.link.start()
        await until(lambda: bench.link.status.segment > 50)
        bench.supervised = False
        await asyncio.sleep(0.5)

    bench.run(build())
    beats = bench.at(7)
    assert beats[-1] - beats[-2] == 20_000
    assert bench.at(5, FaultCode.BEAT_LOST) == [beats[-1] + 100_000]
    assert bench.at(1, 0) == [beats[-1] + 100_000]
    assert bench.link.status.fault == FaultCode.BEAT_LOST


def test_supervisor_silent_to_gate_off_within_165_ms():
    bench = Bench()
    last_token = []

    async def build():
        await bench.ready(job(1000))
        bench.link.start()
        await until(lambda: bench.link.status.segment > 50)
        bench.supervised = False
        await asyncio.sleep(0.0)
        last_token.append(bench.fw.now_us)
        await asyncio.sleep(0.5)

    bench.run(build())
    assert bench.at(1, 0)[0] - last_token[0] <= 165_000


def test_hold_now_is_confirmed_and_shuts_the_gate_at_once():
    bench = Bench()
    at = []

    async def build():
        await bench.ready(job(400))
        bench.link.start()
        await until(lambda: bench.link.status.segment > 50)
        at.append(bench.fw.now_us)
        bench.link.hold(now=True)
        await until(lambda: bench.link.status.state == LinkState.HELD)
        await asyncio.sleep(0.2)
        bench.link.unhold()
        await until(lambda: bench.link.finished)

    bench.run(build())
    assert bench.at(1, 0)[0] == at[0]
    assert len(sent(bench, "HOLD_NOW")) == 1
    assert bench.link.stats.refused == 0


@pytest.mark.parametrize("name", ["HOLD_NOW", "ABORT", "DISARM"])
def test_a_stop_that_nobody_confirms_ends_the_beats(name):
    bench = Bench()
    at = []

    async def build():
        await bench.ready(job(1000))
        bench.link.start()
        await until(lambda: bench.link.status.segment > 50)
        wanted = {"HOLD_NOW": 7, "ABORT": 9, "DISARM": 5}[name]
        bench.spoil = lambda data: b"" if data[1] == wanted else data
        at.append(bench.fw.now_us)
        if name == "HOLD_NOW":
            bench.link.hold(now=True)
        elif name == "ABORT":
            bench.link.abort()
        else:
            with pytest.raises(DeviceError, match="no answer to DISARM"):
                await bench.link.disarm()
        await asyncio.sleep(0.3)

    bench.run(build())
    assert sent(bench, name)[:4] == [at[0] + k for k in (0, 4000, 8000, 12000)]
    beats = [t for t in sent(bench, "BEAT") if t > at[0]]
    assert all(t <= at[0] + 10_000 for t in beats)
    assert bench.at(1, 0)[0] - at[0] <= 110_000


def test_a_weaker_stop_does_not_hide_a_lost_abort():
    bench = Bench()

    async def build():
        await bench.ready(job(1000))
        bench.link.start()
        await until(lambda: bench.link.status.segment > 50)
        bench.spoil = lambda data: b"" if data[1] == 9 else data
        bench.link.abort()
        bench.spoil = lambda data: data
        bench.link.hold(now=True)
        await asyncio.sleep(0.2)

    bench.run(build())
    assert bench.link.status.fault == FaultCode.HOST_ABORT


def test_refused_arming_tells_the_devices_reason():
    bench = Bench()

    async def build():
        with pytest.raises(DeviceError, match="ARM refused: axes are not homed"):
            await bench.link.arm()
        await asyncio.sleep(0.02)
        await bench.link.home()
        bench.fw.set_input(0, False)
        with pytest.raises(DeviceError, match="ARM refused: hardware interlock is open"):
            await bench.link.arm()
        bench.fw.set_input(0, True)
        await bench.link.arm()
        await asyncio.sleep(0.02)
        assert bench.link.status.armed
        await bench.link.disarm()
        await asyncio.sleep(0.02)
        assert not bench.link.status.armed

    bench.run(build())


def test_reset_clears_an_abort_and_starts_nothing():
    bench = Bench()
    codes = []

    async def build():
        bench.link.on_event = lambda event: codes.append(event.code)
        await bench.ready(job(400))
        bench.link.start()
        await until(lambda: bench.link.status.segment > 50)
        bench.link.abort()
        await asyncio.sleep(0.2)
        with pytest.raises(DeviceError, match="a fault is latched"):
            await bench.link.arm()
        await bench.link.reset()
        await asyncio.sleep(0.1)
        assert bench.link.status.state == LinkState.IDLE
        assert not bench.link.status.armed
        await bench.link.arm()
        bench.link.start()
        await until(lambda: bench.link.finished)

    bench.run(build())
    assert EventCode.FAULT in codes
    assert EventCode.FAULT_RESET in codes
    assert len(bench.at(1, 1)) == 2


def test_override_and_trim_reach_the_player():
    bench = Bench()

    async def build():
        await bench.ready(job(400))
        bench.link.start()
        await until(lambda: bench.link.status.segment > 30)
        bench.link.override(0.5)
        await asyncio.sleep(0.1)
        assert bench.link.status.scale == 0.5
        bench.link.trim(1.2)
        await asyncio.sleep(0.02)
        # floor 0: power runs with the scale
        assert bench.link.status.power_fraction == pytest.approx(
            30000 / 65535 * 0.5 * 1.2, abs=1e-4
        )
        bench.link.override(1.5)
        await asyncio.sleep(0.02)
        assert "OVERRIDE refused" in bench.link.refusal

    bench.run(build())


async def deaf_for(bench: Bench, gap_s: float) -> None:
    """Nothing from the host reaches the device for a while; tokens go on."""
    bench.spoil = lambda data: b""
    await asyncio.sleep(gap_s)
    bench.spoil = lambda data: data


def test_homing_after_a_gap_in_the_beats_waits_for_them():
    bench = Bench()
    told = []

    async def build():
        bench.link.on_event = told.append
        await asyncio.sleep(0.02)
        await deaf_for(bench, 0.13)
        assert bench.link.status.beat_age_us > 100_000
        at_us = bench.fw.now_us
        await bench.link.home()
        assert bench.link.status.homed
        homes = [t for t in sent(bench, "HOME") if t >= at_us]
        assert len(homes) == 2
        assert homes[1] - homes[0] <= 40_000

    bench.run(build())
    assert bench.link.stats.beat_retries == 1
    assert bench.link.refusal == ""


def test_without_tokens_homing_stays_refused():
    bench = Bench()

    async def build():
        await asyncio.sleep(0.02)
        bench.supervised = False
        await asyncio.sleep(0.3)
        at_us = bench.fw.now_us
        with pytest.raises(DeviceError, match="HOME refused: no heartbeat"):
            await bench.link.home()
        assert 900_000 <= bench.fw.now_us - at_us <= 1_100_000
        assert len(sent(bench, "HOME")) == 1
        assert not [t for t in sent(bench, "BEAT") if t > at_us - 200_000]
        assert not bench.link.status.homed

    bench.run(build())
    assert bench.link.stats.beat_retries == 0


@pytest.mark.parametrize("stop", ["hold", "abort"])
def test_a_stop_in_the_gap_is_not_undone_by_the_second_try(stop):
    bench = Bench()

    async def build():
        await asyncio.sleep(0.02)
        await deaf_for(bench, 0.13)
        homing = asyncio.ensure_future(bench.link.home())
        await asyncio.sleep(0.0)
        await until(lambda: bench.link.stats.refused == 1, 0.001)
        if stop == "hold":
            bench.link.hold(now=True)
        else:
            bench.link.abort()
        with pytest.raises(DeviceError, match="HOME refused: overtaken by a stop"):
            await homing
        assert bench.link.status.state != LinkState.HOMING

    bench.run(build())


def test_another_configuration_is_refused_at_the_handshake():
    bench = Bench(blob=config(AXES, plan_share=20000))

    async def nothing():
        pass

    with pytest.raises(ProtocolError, match=r"configuration hash .* is not the cell's af1a1c3e"):
        bench.run(nothing())


def test_a_silent_port_is_reported():
    bench = Bench()
    bench.connected = False

    async def nothing():
        pass

    with pytest.raises(TransportError, match="no motion controller answers"):
        bench.run(nothing())


def test_a_lost_wire_fails_what_waits_and_tells_why():
    bench = Bench()
    told = []

    async def build():
        bench.link.on_lost = told.append
        await asyncio.sleep(0.02)
        bench.connected = False
        waiting = asyncio.ensure_future(bench.link.arm())
        await asyncio.sleep(0.01)
        bench.wire.lost(None)
        with pytest.raises(TransportError):
            await waiting

    bench.run(build())
    assert told == ["memory: connection lost"]


def test_a_million_segments_load_without_a_copy():
    bench = Bench()
    big = np.zeros(1_000_000, SEGMENT)
    big["ticks_lo"] = 10000
    bench.link.load(big)
    assert bench.link._segments.obj.base is not None or bench.link._segments.nbytes == 22_000_000
    with pytest.raises(ProtocolError, match="wanted the 22 byte SEGMENT"):
        bench.link.load(np.zeros(3, np.int64))
    bench.loop.close()


def test_beats_are_frames_of_the_document():
    bench = Bench()

    async def build():
        await asyncio.sleep(0.1)

    bench.run(build())
    beats = [d for _, d in bench.written if d[1] == 3]
    assert [struct.unpack("<III", b[8:20]) for b in beats] == [
        (0x1234ABCD, 1, n + 1) for n in range(len(beats))
    ]
    assert len(beats) >= 4

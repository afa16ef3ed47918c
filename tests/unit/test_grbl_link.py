"""The grblHAL link against the emulated controller, in simulated time."""

import asyncio

import numpy as np
import pytest

from firmware_bridge.errors import DeviceError, ProtocolError, TransportError
from firmware_bridge.grbl_program import GrblProgram
from firmware_bridge.grbl_settings import GrblSettings
from firmware_bridge.link_types import EventCode, FaultCode, LinkState, ProgramLine
from tests.unit.grbl_bench import Bench, bead, program


def lit_us(bench):
    """Time with the gate open, us."""
    edges = [t if on else -t for t, on in bench.gate]
    return -sum(edges)


def test_two_beads_are_built_with_their_energy_and_tracks():
    bench = Bench()

    async def body():
        await bench.ready()
        await bench.build(bead() + bead(22.0))

    bench.run(body())
    status = bench.link.status
    assert status.state == LinkState.IDLE
    assert (status.segment, status.tracks_started) == (9, 2)
    assert status.position_steps[:3] == (12800, 8800, 4800)
    assert [on for _, on in bench.gate] == [1, 0, 1, 0]
    assert lit_us(bench) == pytest.approx(4_000_000, abs=2_000)
    assert bench.cell.world.energy_j == pytest.approx(2000.0, rel=0.005)
    assert bench.controller.overrun == 0
    assert bench.link.stats.underruns == 0
    codes = [e.code for e in bench.events]
    assert codes.count(EventCode.GATE) == 4
    assert codes.count(EventCode.TRACK_START) == 2


def test_the_place_in_the_plan_follows_the_axes_not_the_line_number():
    bench = Bench()
    seen = []

    async def body():
        await bench.ready()
        bench.link.load_program(*program(bead()))
        bench.link.start()
        while not bench.link.finished:
            await asyncio.sleep(0.02)
            s = bench.link.status
            if s.segment in (2, 3):  # X11 to X21, X21 to X31; a plan of 0.1 s each
                x = s.position_steps[0] / 400.0
                seen.append((s.segment * 10.0 + s.segment_tick_us * 1e-4, x))

    bench.run(body())
    plan, x = np.array(seen).T
    assert len(x) > 80
    assert np.abs((x - 11.0) - (plan - 20.0)).max() < 0.05


def test_receive_buffer_never_overruns_and_lines_go_ahead_of_time():
    """Lines of 0.5 mm: more than the planner's blocks and the receive buffer hold."""
    bench = Bench()
    moves = [("G0 X5 Y5 Z12", False), ("G1 X6 F3000 S0", False)]
    moves += [(f"G1 X{6 + 0.5 * n:.3f} Y{5 + (n % 2) * 0.01:.3f} F3000 S500", True)
              for n in range(1, 400)]  # fmt: skip
    most = []

    async def body():
        await bench.ready()
        bench.link.load_program(*program(moves))
        bench.link.start()
        while not bench.link.finished:
            most.append(bench.link._stream.unanswered_bytes)
            await asyncio.sleep(0.005)

    bench.run(body())
    assert bench.controller.overrun == 0
    assert 0 < max(most) <= 1023
    assert bench.link.refusal == ""
    assert bench.link.status.position_steps[0] == round((6 + 0.5 * 399) * 400)


def test_hold_stands_within_a_quarter_second_and_goes_on():
    bench = Bench()

    async def body():
        await bench.ready()
        bench.link.load_program(*program(bead()))
        bench.link.start()
        await bench.until(lambda: bench.link.status.segment == 3)
        loop = asyncio.get_running_loop()
        at_s = loop.time()
        bench.link.hold(now=True)
        await bench.until(lambda: bench.link.status.state == LinkState.HELD)
        took_s = loop.time() - at_s
        held = bench.link.status
        await asyncio.sleep(0.5)
        assert bench.link.status.position_steps == held.position_steps
        assert held.gate_on is False
        bench.link.unhold()
        await bench.until(lambda: bench.link.finished)
        return took_s

    assert bench.run(body()) <= 0.25
    assert [on for _, on in bench.gate] == [1, 0, 1, 0]
    assert bench.cell.world.energy_j == pytest.approx(1000.0, rel=0.01)


def test_hold_at_the_tracks_end_leaves_the_bead_whole():
    bench = Bench()

    async def body():
        await bench.ready()
        bench.link.load_program(*program(bead() + bead(22.0)))
        bench.link.start()
        await bench.until(lambda: bench.link.status.segment == 2)
        bench.link.hold(now=False)
        assert bench.link.status.hold_pending is False
        await bench.until(lambda: bench.link.status.state == LinkState.HELD)

    bench.run(body())
    assert [on for _, on in bench.gate] == [1, 0]
    assert lit_us(bench) == pytest.approx(2_000_000, abs=2_000)


def test_start_from_a_hold_drops_what_was_queued():
    bench = Bench()

    async def body():
        await bench.ready()
        bench.link.load_program(*program(bead()))
        bench.link.start()
        await bench.until(lambda: bench.link.status.segment == 2)
        bench.link.hold(now=True)
        await bench.until(lambda: bench.link.status.state == LinkState.HELD)
        bench.link.load_program(*program([("G0 X50 Y50 Z20", False)]))
        bench.link.start(0)
        await bench.until(lambda: bench.link.finished)

    bench.run(body())
    assert bench.link.status.position_steps[:3] == (20000, 20000, 8000)
    assert bench.link.status.homed is True
    assert [on for _, on in bench.gate] == [1, 0]


def test_disarm_stops_and_keeps_the_place():
    bench = Bench()

    async def body():
        await bench.ready()
        bench.link.load_program(*program(bead()))
        bench.link.start()
        await bench.until(lambda: bench.link.status.segment == 2)
        await bench.link.disarm()

    bench.run(body())
    status = bench.link.status
    assert (status.homed, status.fault, status.armed) == (True, 0, False)
    assert bench.gate[-1][1] == 0
    told = bench.controller.true_steps
    assert status.position_steps[:3] == tuple(told)


def test_abort_is_dark_at_once_and_loses_the_place_honestly():
    bench = Bench()

    async def body():
        await bench.ready()
        bench.link.load_program(*program(bead()))
        bench.link.start()
        await bench.until(lambda: bench.link.status.segment == 2)
        at_us = bench.cell.sim.now_us
        bench.link.abort()
        await asyncio.sleep(0.5)
        latched = bench.link.status
        with pytest.raises(DeviceError, match="ARM refused"):
            await bench.link.arm()
        await bench.link.reset()
        after = bench.link.status
        await bench.link.home()
        await bench.link.arm()
        return at_us, latched, after

    at_us, latched, after = bench.run(body())
    assert bench.gate[-1][1] == 0
    assert bench.gate[-1][0] - at_us <= 1_000
    assert latched.fault == FaultCode.HOST_ABORT
    assert latched.homed is False
    assert (after.fault, after.homed) == (0, False)


@pytest.mark.parametrize("dies", ["link", "supervisor"])
def test_watchdog_shuts_the_gate_when_the_line_falls_silent(dies):
    bench = Bench()

    async def body():
        await bench.ready()
        bench.link.load_program(*program(bead()))
        bench.link.start()
        await bench.until(lambda: bench.link.status.segment == 2)
        at_us = bench.cell.sim.now_us
        if dies == "link":
            bench.link._timer.cancel()  # as a stopped process: nothing more goes out
            bench.link._pump = lambda: None
        else:
            bench.alive = False
        await asyncio.sleep(1.0)
        return at_us

    at_us = bench.run(body())
    off_us, on = bench.gate[-1]
    assert on == 0
    assert off_us - at_us <= (105_000 if dies == "link" else 165_000)


@pytest.mark.parametrize("after_s", [0.02, 0.5])
def test_a_gap_in_the_tokens_before_arming_does_no_harm(after_s):
    bench = Bench()

    async def body():
        await bench.link.connect()
        await bench.link.home()
        bench.alive = False
        await bench.until(lambda: bench.link._silent)
        await asyncio.sleep(after_s)
        with pytest.raises(DeviceError):
            await bench.link.arm()  # nobody is there to take the hold away
        bench.alive = True
        await bench.until(lambda: not bench.link._silent)
        await bench.link.arm()
        await bench.build(bead())

    bench.run(body())
    assert [on for _, on in bench.gate] == [1, 0]


def test_a_gap_in_the_tokens_while_arming_is_made_good():
    bench = Bench()
    refused = []

    async def body():
        await bench.link.connect()
        await bench.link.home()
        ask = bench.link._stream.ask

        async def gap(text, timeout_s):
            if text == "M5" and not refused:
                bench.alive = False
                await bench.until(lambda: bench.link._silent)
                bench.alive = True
                refused.append(text)
            return await ask(text, timeout_s)

        bench.link._stream.ask = gap
        await bench.link.arm()
        await bench.build(bead())

    bench.run(body())
    assert refused == ["M5"]
    assert [on for _, on in bench.gate] == [1, 0]


def test_a_hold_of_somebody_else_keeps_it_from_arming():
    bench = Bench()

    async def body():
        await bench.ready()
        bench.link.hold(now=True)
        await bench.until(lambda: bench.link.report.state == "Hold")
        with pytest.raises(DeviceError, match="arm refused: state Hold"):
            await bench.link.arm()

    bench.run(body())


def test_without_the_device_light_would_go_on():
    """What the watchdog is for: the same controller plays its blocks when the host is gone."""
    bench = Bench()
    bench.controller.watchdog_us = 0

    async def body():
        await bench.ready()
        bench.link.load_program(*program(bead()))
        bench.link.start()
        await bench.until(lambda: bench.link.status.segment == 2)
        at_us = bench.cell.sim.now_us
        bench.link._timer.cancel()
        bench.link._pump = lambda: None
        await asyncio.sleep(3.0)
        return at_us

    at_us = bench.run(body())
    assert bench.gate[-1][0] - at_us > 1_000_000


def test_no_emission_without_a_watchdog_in_the_cell():
    bench = Bench(GrblSettings(gate_watchdog=False))

    async def body():
        await bench.ready()
        with pytest.raises(DeviceError, match="no emission over this link"):
            bench.link.load_program(*program(bead()))
        await bench.build([("G0 X10 Y10 Z12", False)])

    bench.run(body())
    assert bench.gate == []


def test_unplugged_and_plugged_again_finds_the_place_it_kept():
    bench = Bench()
    lost = []

    async def body():
        await bench.ready()
        bench.link.load_program(*program(bead()))
        bench.link.on_lost = lost.append
        bench.link.start()
        await bench.until(lambda: bench.link.status.segment == 2)
        bench.cell.end("motion").lose()
        await asyncio.sleep(0.5)
        assert bench.link.failure
        with pytest.raises(TransportError):
            bench.link.hold(now=True)
        await bench.link.connect()  # a controller found in its door state is emptied
        await asyncio.sleep(0.1)
        return bench.link.status

    status = bench.run(body())
    assert len(lost) == 1
    assert bench.gate[-1][1] == 0
    assert status.homed is True
    assert status.state == LinkState.IDLE
    assert status.position_steps[:3] == tuple(bench.controller.true_steps)


def test_a_controller_that_restarts_leaves_the_place_unknown():
    bench = Bench()
    lost = []

    async def body():
        await bench.ready()
        bench.link.load_program(*program(bead()))
        bench.link.on_lost = lost.append
        bench.link.start()
        await bench.until(lambda: bench.link.status.segment == 2)
        bench.controller._realtime(0x18)  # the reset button
        await asyncio.sleep(0.1)
        failure = bench.link.failure
        await bench.link.connect()
        await asyncio.sleep(0.1)
        return failure

    assert "position unknown" in bench.run(body())
    assert len(lost) == 1
    assert bench.link.status.homed is False


def test_door_holds_and_goes_on_only_when_told():
    bench = Bench()

    async def body():
        await bench.ready()
        bench.link.load_program(*program(bead()))
        bench.link.start()
        await bench.until(lambda: bench.link.status.segment == 2)
        bench.cell.world.door_closed = False
        await asyncio.sleep(0.3)
        open_ = bench.link.status
        bench.cell.world.door_closed = True
        bench.cell.world.reset_safety()
        await asyncio.sleep(0.3)
        closed = bench.link.status
        bench.link.unhold()
        await bench.until(lambda: bench.link.finished)
        return open_, closed

    open_, closed = bench.run(body())
    assert (open_.state, open_.interlock_ok, open_.gate_on) == (LinkState.HELD, False, False)
    assert closed.state == LinkState.HELD
    assert closed.position_steps == open_.position_steps


def test_feed_override_keeps_energy_per_length():
    """M4: at half the speed half the power."""
    bench = Bench()

    async def body():
        await bench.ready()
        bench.link.override(0.5)
        await bench.build(bead())

    bench.run(body())
    assert lit_us(bench) == pytest.approx(4_000_000, rel=0.01)
    assert bench.cell.world.energy_j == pytest.approx(1000.0, rel=0.01)


async def jogged(bench, speeds, calls):
    """So many calls, 40 ms apart."""
    for _ in range(calls):
        bench.link.jog(speeds)
        await asyncio.sleep(0.04)


def test_jog_goes_while_it_is_called_and_ends_by_itself():
    bench = Bench()

    async def body():
        await bench.ready()
        await jogged(bench, [20.0, 0.0, 5.0], 15)
        assert bench.link.status.state == LinkState.JOG
        await asyncio.sleep(0.3)
        assert bench.link.status.state == LinkState.IDLE
        return bench.link.status.position_steps

    x, y, z = bench.run(body())[:3]
    way_mm = 20.0 * (14 * 0.04 + 0.1)  # to the last call, and what is left of its life
    assert x == pytest.approx(way_mm * 400, abs=10)
    assert (y, z) == (0, pytest.approx(x / 4, abs=4))


def test_a_jog_of_nothing_ends_it_and_other_speeds_go_on_from_standstill():
    bench = Bench()

    async def body():
        await bench.ready()
        await jogged(bench, [100.0], 10)
        bench.link.jog([0.0])
        at = bench.link.status.position_steps[0]
        await bench.until(lambda: bench.link.status.state == LinkState.IDLE)
        there = bench.link.status.position_steps[0]
        await jogged(bench, [0.0, 20.0], 10)
        await jogged(bench, [0.0, -20.0], 10)
        await asyncio.sleep(0.3)
        return at, there, bench.link.status.position_steps

    at, there, (x, y, *_) = bench.run(body())
    # 9 prepared pieces of 10 ms, then v^2 / 2a
    assert 0 < there - at < 400 * (100 * 0.1 + 2.5)
    assert x == there
    assert abs(y) < 400 * 20 * 0.15


def test_a_jog_without_a_token_or_in_a_wrong_state_does_nothing():
    bench = Bench()

    async def body():
        await bench.ready()
        bench.alive = False
        await asyncio.sleep(0.1)
        bench.link.jog([20.0])
        await asyncio.sleep(0.1)
        assert bench.link.status.position_steps[0] == 0
        with pytest.raises(ProtocolError, match="4 speeds for 3 axes"):
            bench.link.jog([0.0] * 4)
        bench.alive = True
        await asyncio.sleep(0.1)
        bench.link.jog([20.0])
        assert "JOG refused: state Hold" in bench.link.refusal

    bench.run(body())


def test_a_jog_beyond_the_travel_is_refused():
    bench = Bench()

    async def body():
        await bench.ready()
        bench.link.jog([-20.0])
        await bench.until(lambda: "JOG refused" in bench.link.refusal)

    bench.run(body())
    assert "error:15" in bench.link.refusal
    assert bench.link.status.position_steps[0] == 0


def test_a_hold_ends_a_jog():
    bench = Bench()

    async def body():
        await bench.ready()
        await jogged(bench, [20.0], 5)
        bench.link.hold(now=True)
        at_us = bench.cell.sim.now_us
        await bench.until(lambda: bench.link.status.state != LinkState.JOG)
        return bench.cell.sim.now_us - at_us

    assert bench.run(body()) < 110_000


def test_probe_returns_the_place_of_the_surface_and_tells_a_miss():
    bench = Bench()

    async def body():
        await bench.ready()
        await bench.build([("G0 X10 Y10 Z20", False)])
        bench.controller.probe_steps = 6000
        found = await bench.link.probe(2, 10.0, 2.0)
        bench.controller.probe_steps = None
        with pytest.raises(DeviceError, match="axis 2 found nothing up to 14 mm"):
            await bench.link.probe(2, 14.0, 2.0)
        assert bench.link.status.fault == 0
        with pytest.raises(ProtocolError, match=r"axis 3 is not in 0\.\.2"):
            await bench.link.probe(3, 14.0, 2.0)
        return found

    assert bench.run(body()) == pytest.approx(15.0, abs=0.03)  # seen at a 10 ms piece's end


@pytest.mark.parametrize("how", ["hold", "abort", "silence", "late"])
def test_a_probe_is_left_by_a_stop_and_never_goes_on(how):
    bench = Bench()

    async def body():
        await bench.ready()
        late = how == "late"
        waiting = asyncio.ensure_future(bench.link.probe(0, 200.0, 5.0, 0.3 if late else 100.0))
        await asyncio.sleep(0.25)
        if how == "silence":
            bench.alive = False
        elif not late:
            bench.link.abort() if how == "abort" else bench.link.hold(now=True)
        with pytest.raises(DeviceError, match="longer than" if late else "by a stop or a fault"):
            await waiting
        bench.alive = True
        await asyncio.sleep(0.1)
        there = bench.link.status.position_steps[0]
        bench.link.unhold()
        await asyncio.sleep(0.5)
        assert bench.link.status.position_steps[0] == there

    bench.run(body())


def test_a_refused_line_stops_the_rest():
    bench = Bench()

    async def body():
        await bench.ready()
        lines, segments = program(bead() + bead(22.0))
        lines[6] = ProgramLine("G6 X5", 3, 0, True)
        bench.link.load_program(lines, segments)
        bench.link.start()
        await bench.until(lambda: bool(bench.link.refusal))
        await asyncio.sleep(0.5)
        return bench.link.status

    status = bench.run(body())
    assert "SEGMENTS refused: program line 7" in bench.link.refusal
    assert "error:20" in bench.link.refusal
    assert status.state == LinkState.HELD


def test_soft_limits_alarm_and_keep_the_place():
    bench = Bench()

    async def body():
        await bench.ready()
        bench.link.load_program(*program([("G0 X10 Y10 Z12", False), ("G0 X400", False)]))
        bench.link.start()
        await bench.until(lambda: bench.link.status.fault != 0)
        await bench.link.reset()
        return bench.link.status

    status = bench.run(body())
    assert (status.fault, status.homed) == (0, True)


def test_segments_are_refused_by_name():
    with pytest.raises(ProtocolError, match="takes a program"):
        Bench().link.load(program(bead())[1])


def test_trim_is_refused_by_name():
    link = Bench().link
    link.trim(1.0)
    assert link.refusal == ""
    link.trim(0.9)
    assert "TRIM refused (no_trim): " in link.refusal


def test_a_way_back_over_the_same_place_is_another_line():
    """Retraced lines lie on one another; progress tells them apart."""
    texts = ["M4 S0", "G0 X0 Y0 Z0", "G1 X10 F600 S500", "G1 X0", "G1 X10", "G1 X10 Y5"]
    lines = [ProgramLine(t, n, 0, n > 1) for n, t in enumerate(texts)]
    track = GrblProgram(lines, [n * 100 for n in range(7)])
    places = []
    ways = [(2, x) for x in range(11)] + [(3, 10 - x) for x in range(1, 11)]
    ways += [(4, x) for x in range(1, 10)]
    track.follow(2, (0.0, 0.0, 0.0), 0)
    for line, x in ways:
        track.follow(min(5, line + 1), (float(x), 0.0, 0.0), 0)
        places.append(track.plan_us)
    assert places == sorted(places)
    assert places[5] == 250
    assert places[15] == 350
    assert places[-1] == 490

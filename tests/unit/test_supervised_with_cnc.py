"""The supervised link with the simulated CNC, both in one virtual time."""

import asyncio

from controller.clock import NullTime, VirtualLoop
from firmware_bridge.link_types import LinkState
from firmware_bridge.supervised_link import SupervisedLink
from firmware_bridge.transport import NullPort
from hil_sim.null import NullCell
from tests.unit.cnc_bench import BEAD_1, BEAD_2, CELL, PROGRAM
from tests.unit.test_supervised_link import SETTINGS, program, segments


def with_cnc(body, tmp_path):
    """``body(link, cnc)`` with both in one virtual time; heartbeats while ``body`` runs."""
    sim = NullCell(CELL, None, 3, tmp_path)
    loop = VirtualLoop(NullTime(sim))

    async def whole():
        link = SupervisedLink(NullPort("motion", 0), SETTINGS, rated_power_w=1000.0)
        events: list = []
        link.on_event = events.append
        await link.connect()

        async def supervise():
            while True:
                link.token()
                await asyncio.sleep(0.01)

        task = asyncio.ensure_future(supervise())
        try:
            await link.home()
            n = PROGRAM.count(b"\n")
            tracks = [0] * 11 + [1] * (n - 11)
            link.load_program(
                program(PROGRAM.decode(), list(range(n)), tracks), segments(*[50] * n),
                [500.0, 300.0],
            )  # fmt: skip
            await link.arm()
            return await body(link, sim.cell.motion.firmware), events
        finally:
            task.cancel()
            link.close()

    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(whole())
    finally:
        sim.finish()


async def until(test, limit_s=20.0):
    loop = asyncio.get_running_loop()
    end_s = loop.time() + limit_s
    while not test():
        assert loop.time() < end_s, "never came"
        await asyncio.sleep(0.01)


def test_a_program_runs_to_its_end(tmp_path):
    async def body(link, cnc):
        assert not link.finished
        link.start(0)
        await until(lambda: link.finished)
        return link.status, link.layer_reached

    (status, layers), events = with_cnc(body, tmp_path)
    assert layers == 2
    assert status.segment == PROGRAM.count(b"\n") - 1
    assert [e.arg for e in events if e.code == 1] == [1, 0, 1, 0]


def test_layers_wait_for_their_release(tmp_path):
    async def body(link, cnc):
        link.auto_release = False
        link.start(0)
        await until(lambda: link.waits_at_layer)
        await asyncio.sleep(0.5)
        assert link.waits_at_layer
        assert not cnc._gate
        link.release_layer(1)
        await until(lambda: cnc._gate)
        await until(lambda: link.waits_at_layer)
        assert link.layer_reached == 2
        link.release_layer(2)
        await until(lambda: link.finished)

    with_cnc(body, tmp_path)


def test_hold_at_the_beads_end_then_on_to_the_end(tmp_path):
    async def body(link, cnc):
        link.start(0)
        await until(lambda: link.status.gate_on)
        link.hold(now=False)
        await until(lambda: link.status.state == LinkState.HELD)
        place = link.status.position_steps[0]
        await asyncio.sleep(0.3)
        link.unhold()
        await until(lambda: link.finished)
        return place

    place, events = with_cnc(body, tmp_path)
    assert 22.0 * 400 <= place <= 23.0 * 400
    assert [e.arg for e in events if e.code == 1] == [1, 0, 1, 0]


def test_hold_now_shuts_the_gate_within_two_exchanges_and_arming_again_goes_on(tmp_path):
    async def body(link, cnc):
        loop = asyncio.get_running_loop()
        link.start(0)
        await until(lambda: link.status.gate_on)
        await asyncio.sleep(0.2)
        link.hold(now=True)
        begin_s = loop.time()
        await until(lambda: not cnc._gate)
        took_s = loop.time() - begin_s
        await until(lambda: link.status.state == LinkState.HELD)
        assert not link.status.armed
        await link.arm()
        link.unhold()
        await until(lambda: link.finished)
        return took_s

    took_s, _ = with_cnc(body, tmp_path)
    assert took_s <= 0.02


def test_abort_latches_and_reset_brings_it_back_without_a_start(tmp_path):
    async def body(link, cnc):
        link.start(0)
        await until(lambda: link.status.gate_on)
        link.abort()
        await until(lambda: link.status.fault == 6)
        await until(lambda: link.status.state == LinkState.FAULT)
        await asyncio.sleep(0.3)
        await link.reset()
        await asyncio.sleep(0.2)
        assert link.status.state == LinkState.IDLE
        assert not link.status.armed
        return cnc._gate

    gate, _ = with_cnc(body, tmp_path)
    assert not gate


def test_a_control_that_stops_counting_is_noticed_behind_its_modbus_server(tmp_path):
    async def body(link, cnc):
        link.start(0)
        await until(lambda: link.status.gate_on)
        cnc.frozen = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        await until(lambda: bool(link.failure), 1.0)
        return loop.time() - began, link.failure

    (took_s, failure), _ = with_cnc(body, tmp_path)
    assert took_s <= 0.2
    assert "heartbeat" in failure


def test_lines_of_the_beads_are_those_that_the_status_tells(tmp_path):
    async def body(link, cnc):
        link.start(0)
        seen = set()
        while not link.finished:
            if link.status.gate_on:
                seen.add(link.status.segment + 1)
            await asyncio.sleep(0.01)
        return seen

    seen, _ = with_cnc(body, tmp_path)
    assert {BEAD_1, BEAD_2} <= seen
    assert seen <= {BEAD_1, BEAD_1 + 1, BEAD_2, BEAD_2 + 1}

"""Every kind of link in its own process, in real time: jog, probe and what is refused by name."""

import asyncio

import pytest

from controller import launch
from controller.config import find_file, load_cell
from controller.machine.cell import make_link, ports_of
from firmware_bridge.errors import DeviceError
from firmware_bridge.link_types import LinkState

pytestmark = [pytest.mark.hil, pytest.mark.slow, pytest.mark.realtime]


async def _alive(link):
    """The supervisor's sign of life, each 10 ms."""
    while True:
        if link.status is not None:
            link.token()
        await asyncio.sleep(0.01)


def _with_link(name, folder, body):
    """Run ``body(link)`` over the cell's link, in its own process, on a simulator of its own."""
    cell, _ = load_cell(name)
    run_dir = launch.short_run_dir()
    out = folder / "trace"
    out.mkdir()

    async def scene():
        link = make_link(cell, ports_of(cell, simulator.ready["channels"])["motion"],
                         own_process=True)  # fmt: skip
        await link.connect()
        alive = asyncio.ensure_future(_alive(link))
        try:
            return await asyncio.wait_for(body(link), 60.0)
        finally:
            alive.cancel()
            link.close()

    simulator = launch.Simulator(
        find_file("cells", name), time_mode="real", run_dir=run_dir, out=out
    )
    try:
        return asyncio.run(scene())
    finally:
        simulator.stop()


async def _until(test):
    while not test():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", ["sim", "sim_grblhal"])
def test_a_jog_through_the_process_goes_and_ends(name, tmp_path):
    async def body(link):
        await link.reset()
        await link.home()
        states = set()
        for _ in range(20):
            link.jog([20.0])
            await asyncio.sleep(0.04)
            states.add(link.status.state)
        link.jog([0.0])
        await _until(lambda: link.status.state == LinkState.IDLE)
        assert LinkState.JOG in states
        with pytest.raises(DeviceError, match=r"(?i)probe"):  # no probe is there to close
            await link.probe(0, 30.0, 50.0)
        return link.status.position_steps[0] / 400.0

    at_mm = _with_link(name, tmp_path, body)
    assert 20.0 * 0.8 * 0.5 < at_mm < 31.0


def test_what_a_link_cannot_is_refused_through_the_process(tmp_path):
    async def body(link):
        await _until(lambda: link.status is not None)
        link.jog([20.0])
        await _until(lambda: link.refusal)
        with pytest.raises(DeviceError, match=r"PROBE refused \(no_jog_no_probe\)"):
            await link.probe(0, 30.0, 10.0)
        with pytest.raises(DeviceError, match=r"POWER_LAW refused \(power_by_track\)"):
            await link.power_law(1, [(0.5, 0.5), (1.0, 1.0)])
        return link.refusal

    assert "JOG refused (no_jog_no_probe)" in _with_link("sim_supervised", tmp_path, body)

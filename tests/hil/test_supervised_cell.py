"""A cell that keeps its own CNC: builds, the permit that dies with us, layers, holds."""

import asyncio
import signal
from pathlib import Path

import pytest

from controller.planning import read_job, write_job
from controller.record.verify import verify_record
from controller.session import prepare_plan
from tests.hil import oracle
from tests.hil.dead_man import signalled
from tests.hil.fault_cell import Job, Session, play
from tests.hil.whole_cell import build, example, write_box
from tests.unit.sim_host import near_cell

pytestmark = [pytest.mark.hil, pytest.mark.slow]

CELL = "sim_supervised"
KILLED_LIMIT_MS = 200.0  # from the signal to the gate's falling edge
FROZEN_LIMIT_US = 250_000  # from their last heartbeat to the shut gate


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    """A box of 8 x 4 x 1 mm near home."""
    folder = tmp_path_factory.mktemp("supervised")
    link = 'link = "supervised"\nmap = "handshake_generic"\ndialect = "linuxcnc"'
    cell = near_cell(folder, link=link)
    plan = prepare_plan(write_box(folder / "box.stl", (8.0, 4.0, 1.0)), None, str(cell))
    path = folder / "job.lmdjob"
    write_job(plan, path)
    return Job(cell, path, plan)


def judge(result):
    """What an undisturbed build holds where the machine moves by itself."""
    planned, executed, truth = result["planned"], result["executed"], result["truth"]
    assert result["state"] == "COMPLETE"
    assert result["alarms"] == []
    assert truth["emission_s"] == pytest.approx(planned["emission_s"], rel=0.005)
    assert truth["energy_j"] == pytest.approx(planned["energy_j"], rel=0.01)
    assert truth["powder_g"] == pytest.approx(planned["powder_g"], rel=0.02)
    assert truth["deposited_g"] > 0.5 * planned["deposited_g"]
    assert executed["layers"] == planned["layers"]
    assert executed["emission_s"] == pytest.approx(planned["emission_s"], rel=0.005)
    record = Path(result["record"])
    found = verify_record(record)
    assert found.ok, found.problems
    assert oracle.check(record / "trace.mcap") == []
    return record


def test_the_blade_is_built_by_the_machines_own_control(tmp_path):
    record = judge(build(example("blade.stl"), tmp_path, cell=CELL, time_mode="null"))
    run = oracle.read(record / "trace.mcap")
    gate = run.rows["/trace/gate"]
    assert int(gate["on"].sum()) == len(read_job(record / "job.lmdjob").tracks)


def test_wires_and_null_wires_give_the_same_record(tmp_path):
    part = write_box(tmp_path / "box.stl", (8.0, 5.0, 2.0))
    runs = [
        build(part, tmp_path / mode, cell=CELL, time_mode=mode, seed=5)
        for mode in ("null", "virtual")
    ]
    for result in runs:
        judge(result)
    assert runs[0]["content_hash"] == runs[1]["content_hash"]


@pytest.mark.realtime
@pytest.mark.parametrize(
    ("victim", "how"),
    [("server", signal.SIGKILL), ("server", signal.SIGSTOP), ("link", signal.SIGSTOP)],
)
def test_the_permit_is_gone_within_200_ms_of_a_signal(victim, how, tmp_path):
    record, took_ms = signalled(CELL, victim, how, tmp_path)
    assert took_ms <= KILLED_LIMIT_MS, f"gate shut {took_ms:.1f} ms after the signal"
    found = verify_record(record)
    assert found.ok, found.problems


def test_a_control_whose_program_stands_ends_the_build(job, tmp_path):
    async def script(s: Session):
        await s.emitting(1.0)
        s.null.cell.motion.firmware.frozen = True
        s.out.injected_us = s.ex.now_us()
        return await s.until("ABORTED")

    out = play(tmp_path, job=job, script=script)
    assert "LINK_LOST" in out.names()
    assert out.dark_us(out.injected_us) - out.injected_us <= FROZEN_LIMIT_US
    assert oracle.check(tmp_path / "trace.mcap") == []


def test_an_unplugged_control_ends_the_build_and_shuts_by_itself(job, tmp_path):
    async def script(s: Session):
        await s.emitting(1.0)
        s.inject('device="motion"\nlayer="wire"\nkind="cut"')
        return await s.until("ABORTED")

    out = play(tmp_path, job=job, script=script)
    assert "LINK_LOST" in out.names()
    assert out.dark_us(out.injected_us) - out.injected_us <= 120_000
    assert oracle.check(tmp_path / "trace.mcap") == []


def test_no_bead_before_its_layer_is_released(job, tmp_path):
    async def script(s: Session):
        link = s.ex.link
        link.auto_release = False
        await s.start()
        n_layers = len(job.plan.layers)
        for layer in range(1, n_layers + 1):
            while not link.waits_at_layer:
                await asyncio.sleep(0.01)
            assert link.layer_reached == layer
            await s.pass_s(0.05)  # the light's tail
            energy_j = s.world.energy_j
            await s.pass_s(0.4)
            assert link.waits_at_layer
            assert s.world.energy_j == energy_j, f"light before layer {layer} was released"
            link.release_layer(layer)
            await s.pass_s(0.1)
        return await s.until("COMPLETE", limit_s=120.0)

    out = play(tmp_path, job=job, script=script)
    assert out.states[-1][1] == "COMPLETE"
    assert out.names() == []


def test_a_hold_at_a_beads_end_goes_on_without_a_gap(job, tmp_path):
    async def script(s: Session):
        await s.emitting(1.0)
        await s.call("hold", now=False)
        await s.until("HELD")
        assert not s.world.gate_on
        await s.pass_s(2.0)
        await s.call("unhold")
        return await s.until("COMPLETE", limit_s=120.0)

    out = play(tmp_path, job=job, script=script)
    assert out.names() == []
    gate = out.gate
    on_s = (gate["t_us"][gate["on"] == 0] - gate["t_us"][gate["on"] == 1]).sum() * 1e-6
    assert on_s == pytest.approx(float(job.plan.figures["emission_s"]), rel=0.005)


def test_the_door_shuts_the_gate_at_once(job, tmp_path):
    async def script(s: Session):
        await s.emitting(1.0)
        s.inject('device="safety"\nlayer="physics"\nkind="door"')
        return await s.until("ABORTED", "STOPPED")

    out = play(tmp_path, job=job, script=script)
    assert out.dark_us(out.injected_us) - out.injected_us <= 10_000
    assert oracle.check(tmp_path / "trace.mcap") == []

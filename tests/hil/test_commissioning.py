"""Routines find what the simulator hides, over the cell's own server; START is refused without.

Hidden truths are drawn by seed (hil_sim/plant/hidden.py) and differ from the cell file by more
than the goal, so that a routine which gave back the file's value would fail.
"""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from controller import launch
from controller.api.client import Client
from controller.api.protocol import CallError
from controller.commissioning import fits, routines, work
from controller.commissioning.desk import Desk
from controller.commissioning.kinds import KINDS, needed
from controller.commissioning.store import Store
from controller.config import find_file, load_cell
from controller.planning import write_job
from controller.session import prepare_plan
from hil_sim import cellfile
from hil_sim.plant.hidden import drawn
from tests.hil.whole_cell import write_box

CELL = find_file("cells", "sim")
# twenty are the goal, run as a campaign: LMD_COMMISSION_SEEDS=20
SEEDS = range(1, 1 + int(os.environ.get("LMD_COMMISSION_SEEDS", "1")))
MAP_G_MIN_PER_RPM = (2.00, 1.80)  # configs/maps/feeder_fictitious.toml


@contextlib.contextmanager
def desk_of(seed, hidden):
    """A simulated cell of its own processes, and a desk at it."""
    cell, text = load_cell("sim")
    run_dir = launch.short_run_dir()
    server = launch.Server(CELL, time_mode="null", run_dir=run_dir, seed=seed, hidden=hidden)
    try:
        with Client(run_dir, role="service", name="test", timeout_s=60.0) as client:
            desk = Desk(client, cell, text, run_dir)
            desk.ready()
            yield desk
    finally:
        server.stop()
        shutil.rmtree(run_dir, ignore_errors=True)


def found(desk, kind, item="cell"):
    return fits.FITS[kind](routines.ROUTINES[kind](desk, item))[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_delay_flow_and_power_are_found(seed):
    truth = drawn(cellfile.load(CELL), seed)
    hopper = seed % 2
    with desk_of(seed, seed) as desk:
        delay = found(desk, "delay", f"hopper{hopper + 1}")
        flow = found(desk, "feeder", f"hopper{hopper + 1}")
        power = found(desk, "power")
    assert delay["transport_delay_s"] == pytest.approx(truth.transport_delay_s, rel=0.05)
    for rpm in (1.5, 4.0, 7.0):
        true_g_min = MAP_G_MIN_PER_RPM[hopper] * rpm * truth.flow_share(hopper, rpm)
        got = flow["g_min_per_rpm"] * rpm * (1.0 + flow["curvature_per_rpm"] * rpm)
        assert got == pytest.approx(true_g_min, rel=0.01)
    for set_w in (200.0, 500.0, 900.0):
        assert fits.power_at(power, set_w) == pytest.approx(
            set_w * truth.light_share(set_w), rel=0.005
        )


@pytest.mark.slow
def test_hidden_truths_differ_by_more_than_the_goals():
    file = cellfile.load(CELL)
    seeds = range(1, 21)
    cells = [drawn(file, seed) for seed in seeds]
    off = [abs(c.transport_delay_s / file.transport_delay_s - 1.0) > 0.05 for c in cells]
    assert sum(off) >= 12
    flow = [c.flow_share(s % 2, 4.0) for s, c in zip(seeds, cells, strict=True)]
    assert sum(abs(f - 1.0) > 0.01 for f in flow) >= 15
    assert sum(abs(c.light_share(500.0) - 1.0) > 0.005 for c in cells) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5])
def test_everything_else_is_found_too(seed):
    t = drawn(cellfile.load(CELL), seed)
    with desk_of(seed, seed) as desk:
        gate, axis, gas = found(desk, "gate"), found(desk, "axis"), found(desk, "gas")
        hand = {k: found(desk, k) for k in routines.BY_HAND}
        door = found(desk, "door")
    assert gate["gate_latency_s"] * 1e6 == pytest.approx(t.gate_latency_us, abs=12)
    assert gate["power_latency_s"] * 1e6 == pytest.approx(t.power_latency_us, abs=1000)
    for k, a in enumerate("xyz"):
        assert axis[f"scale_{a}"] == pytest.approx(t.axis_scale[k], abs=2e-5)
        assert axis[f"backlash_{a}_mm"] == pytest.approx(t.backlash_mm[k], abs=0.002)
    assert gas["carrier_slope"] == pytest.approx(t.gas_scale[0], abs=0.01)
    assert gas["shield_offset_l_min"] == pytest.approx(t.gas_offset_l_min[1], abs=0.08)
    assert hand["centring"]["offset_x_mm"] == pytest.approx(t.jet_offset_mm[0], abs=0.04)
    assert hand["tool_centre"]["tool_z_mm"] == pytest.approx(t.tool_mm[2], abs=0.04)
    assert hand["rotary"]["centre_u_mm"] == pytest.approx(t.table_mm[0], abs=0.01)
    assert hand["standoff"]["zero_mm"] == pytest.approx(t.standoff_zero_mm, abs=0.01)
    assert hand["focus"]["waist_diameter_mm"] == pytest.approx(t.waist_mm, rel=0.01)
    assert hand["focus"]["focus_z_mm"] == pytest.approx(t.focus_z_mm, abs=0.2)
    assert hand["camera"]["mm_per_px"] == pytest.approx(t.mm_per_px, rel=0.005)
    assert hand["pyrometer"]["offset_k"] == pytest.approx(t.pyrometer_offset_k, abs=5)
    assert hand["oxygen"]["slope"] == pytest.approx(t.oxygen_slope, abs=0.02)
    assert door == {"passed": 1.0}


@pytest.fixture
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("LMD_CALIBRATIONS", str(tmp_path / "cal"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.slow
def test_production_start_is_refused_by_name_until_all_is_calibrated(tmp_path, own_store):
    plan = prepare_plan(write_box(tmp_path / "box.stl", (6.0, 4.0, 0.6)))
    with desk_of(1, None) as desk:
        job = tmp_path / "box.lmdjob"
        write_job(plan, job)
        desk.client.call("load_job", path=str(job))

        def names(mode):
            said = desk.client.call("preflight", mode=mode)
            return tuple(
                {b["name"] for b in said[k] if b["name"].startswith("CALIBRATION")}
                for k in ("blockers", "warnings")
            )

        wanted = {f"CALIBRATION_{row.name.upper()}" for row, _ in needed(desk.cell)}
        assert names("production") == (wanted, set())
        assert names("development") == (set(), wanted)
        with pytest.raises(CallError) as refused:
            desk.client.call("start", mode="production")
        assert "CALIBRATION_POWER" in str(refused.value.reasons)

        store = Store.of(desk.cell)
        for row, item in needed(desk.cell):
            rows = routines.ROUTINES[row.name](desk, item)
            work.conclude(row, item, rows, desk.cell, store, "Ann")
            desk.ready()
        desk.client.call("load_job", path=str(job))
        assert names("production")[0] == set()
        store.note("nozzle", "sim", store.results()[-1].done_s + 1, "Ann")
        assert names("production")[0] == {
            f"CALIBRATION_{k.name.upper()}" for k in KINDS.values()
            if "nozzle" in k.voided_by and k.fitted(desk.cell)
        }  # fmt: skip


@pytest.mark.slow
def test_devices_are_not_told_what_is_not_listed_or_by_those_who_may_not():
    with desk_of(1, None) as desk:
        run_dir = Path(desk.client._dir)
        with Client(run_dir, role="operator", name="op") as operator:
            with pytest.raises(CallError, match="role"):
                operator.call("device_call", device="gas", call="set_shield", args=[5.0])
            assert operator.call("device_read", device="gas")["age_s"] < 1.0
        for wrong in (
            {"device": "laser", "call": "emission_enable", "args": []},
            {"device": "powder", "call": "set_flow", "args": [0, 1e9]},
            {"device": "powder", "call": "set_flow", "args": [True, 1.0]},
            {"device": "powder", "call": "set_flow", "args": [0]},
            {"device": "powder", "call": "set_flow", "args": [7, 1.0]},
            {"device": "nothing", "call": "set_flow", "args": []},
        ):
            with pytest.raises(CallError):
                desk.client.call("device_call", **wrong)
        desk.call("gas", "set_shield", 6.0)
        desk.wait(2.0)
        assert desk.read("gas")["shield_l_min"] == pytest.approx(6.0, abs=0.1)

"""The whole virtual cell on null wires: real firmware, physics, faults, trace, oracle."""

import hashlib
import struct

import numpy as np
import pytest

from hil_sim import cellfile
from hil_sim.null import NullCell
from tests.hil.oracle import check, read
from tests.unit.sim_host import TO_PLATE, begin, ended, near_cell, track

SEGMENTS = ended(TO_PLATE + track(20.0))
STEPS = np.array([struct.unpack_from("<6h", s) for s in SEGMENTS])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """One track of 20 mm at 10 mm/s and 600 W, from power-up to its end."""
    folder = tmp_path_factory.mktemp("built")
    host = begin(folder)
    host.play(SEGMENTS)
    host.go_until("RUN")
    host.go_until("IDLE")
    host.go(host.now_us + 100_000)
    host.cell.finish()
    return host, folder / "trace.mcap"


def test_oracle_finds_nothing_in_a_plain_build(built):
    assert check(built[1], np.cumsum(STEPS, axis=0)) == []


def test_energy_of_the_track_is_planned_power_times_time(built):
    host, _ = built
    assert host.world.energy_j == pytest.approx(600.0 * 2.0, rel=1e-3)
    assert host.world.emission_s == pytest.approx(2.0, abs=1e-4)


def test_trace_s_totals_are_those_of_its_last_row(built):
    run = read(built[1])
    last = run.rows["/trace/plant"][-1]
    for name in ("energy_j", "emission_s", "fed_g", "wasted_g", "deposited_g"):
        assert run.end[name] == last[name]
    assert last["energy_j"] > 0
    assert last["fed_g"] > 0


def test_trace_says_what_happened(built):
    events = [(e["kind"], e.get("on", e.get("state"))) for e in read(built[1]).events]
    assert events == [
        ("laser_enabled", 1), ("state", 1), ("state", 0), ("armed", 1), ("state", 2), ("state", 0),
    ]  # fmt: skip


def test_trace_s_position_is_the_firmware_s_steps(built):
    host, trace = built
    last = read(trace).rows["/trace/plant"][-1]
    assert host.status["pos"][:3] == STEPS.sum(axis=0)[:3].tolist()
    shown = [last[a] for a in ("x_mm", "y_mm", "z_mm")]
    assert shown == pytest.approx([41.25, 30.0, 2.55], abs=1e-9)


def digest(folder, seed, **changes):
    folder.mkdir()
    host = begin(folder, seed=seed, **changes)
    host.play(SEGMENTS)
    host.go_until("RUN")
    host.go_until("IDLE")
    host.cell.finish()
    return hashlib.sha256((folder / "trace.mcap").read_bytes()).hexdigest()


def test_same_seed_gives_the_same_trace_bit_for_bit(tmp_path):
    first, again, other = (digest(tmp_path / n, s) for n, s in (("a", 7), ("b", 7), ("c", 8)))
    assert first == again
    assert first != other


def scenario(folder, device, layer, kind, at="500 ms", length=None, extra=""):
    path = folder / "scenario.toml"
    text = f'name = "x"\n[[fault]]\ndevice = "{device}"\nlayer = "{layer}"\nkind = "{kind}"\n'
    text += f'at = "{at}"\nfrom = "first_emission"\n{extra}\n'
    path.write_text(text + (f'length = "{length}"\n' if length else ""))
    return path


def broken(folder, *fault, **options):
    """A build with a fault 0.5 s after the gate first opened; the host and the run's trace."""
    host = begin(folder, scenario(folder, *fault, **options))
    host.play(SEGMENTS)
    host.go_until("FAULT")
    host.go(host.now_us + 1_000_000)
    return host


def shut_after(run, kind):
    """Gate edge after an event, us from the event."""
    event = next(e for e in run.events if e["kind"] == kind)
    edges = run.rows["/trace/gate"]
    return next(int(e["t_us"]) for e in edges if not e["on"]) - event["t_us"]


@pytest.mark.parametrize("kind", ["estop", "door"])
def test_hardware_chain_cuts_gate_and_light_at_once(tmp_path, kind):
    host = broken(tmp_path, "safety", "physics", kind, length="200 ms")
    assert host.status["fault"] == "INTERLOCK"
    assert host.world.reset_latched  # the contact closed again after 200 ms: nothing follows
    assert not host.world.chain_closed
    energy_j = host.world.energy_j
    assert energy_j == pytest.approx(300.0, rel=2e-3)
    host.cell.finish()
    run = read(tmp_path / "trace.mcap")
    assert 0 <= shut_after(run, "fault_injected") <= 1000
    assert check(tmp_path / "trace.mcap", np.cumsum(STEPS, axis=0), complete=False) == []


def test_cut_motion_link_shuts_the_gate_when_the_last_beat_is_too_old(tmp_path):
    host = broken_link(tmp_path)
    host.cell.finish()
    run = read(tmp_path / "trace.mcap")
    assert 80_000 <= shut_after(run, "fault_injected") <= 100_000
    fault = next(e for e in run.events if e["kind"] == "fault")
    assert fault["code"] == 1
    assert check(tmp_path / "trace.mcap", np.cumsum(STEPS, axis=0), complete=False) == []


def broken_link(folder):
    host = begin(folder, scenario(folder, "motion", "wire", "cut", length="1 s"))
    host.play(SEGMENTS)
    host.go_until("RUN")
    host.go_until("FAULT", 10.0)  # seen when the cable is back
    return host


def test_garbled_motion_link_never_executes_a_wrong_segment(tmp_path):
    host = begin(tmp_path, scenario(tmp_path, "motion", "wire", "garble", extra="bits = 2"))
    host.play(SEGMENTS)
    host.go(host.now_us + 6_000_000)
    host.cell.finish()
    assert check(tmp_path / "trace.mcap", np.cumsum(STEPS, axis=0), complete=False) == []


def test_unplugged_connection_is_told_once_and_can_be_opened_again(tmp_path):
    path = scenario(tmp_path, "gas", "wire", "unplug", at="10 ms", length="20 ms")
    path.write_text(path.read_text().replace("first_emission", "power_up"))
    cell = NullCell(near_cell(tmp_path), path)
    cell.opened(5)
    now_us, deliveries = cell.wait(15_000, [])
    assert (now_us, deliveries) == (10_000, [(5, None)])
    assert cell.wait(40_000, []) == (40_000, [])
    cell.opened(5)
    request = bytes.fromhex("000100000006010304b90002")  # carrier mass flow
    _, deliveries = cell.wait(100_000, [(5, request)])
    assert [c for c, _ in deliveries] == [5]
    cell.finish()


def test_answers_come_in_the_order_of_channels(tmp_path):
    cell = NullCell(near_cell(tmp_path))
    for channel in (7, 1, 2):
        cell.opened(channel)
    writes = [(1, b"STA\r"), (2, b"00ms\r"), (7, bytes.fromhex("000100000006010402000001"))]
    now_us, deliveries = cell.wait(1_000_000, writes)
    assert now_us == 5_000
    assert [c for c, _ in deliveries] == [1, 2, 7]
    cell.finish()


def test_host_is_woken_at_its_deadline_when_nobody_answers(tmp_path):
    cell = NullCell(near_cell(tmp_path))
    assert cell.wait(12_345, []) == (12_345, [])
    assert cell.wait(12_345, []) == (12_345, [])
    cell.finish()


def test_closed_channel_gets_nothing(tmp_path):
    cell = NullCell(near_cell(tmp_path))
    cell.opened(1)
    cell.wait(0, [(1, b"STA\r")])
    cell.closed(1)
    assert cell.wait(50_000, []) == (50_000, [])
    cell.finish()


def test_axes_start_a_few_millimetres_from_their_switches(tmp_path):
    host = begin(tmp_path)  # homing finds the switches within 2 to 8 mm at 20 mm/s
    assert 0.3e6 < host.now_us < 4e6
    host.cell.finish()


def test_finish_twice_is_as_good_as_once(tmp_path):
    cell = NullCell(near_cell(tmp_path), out=tmp_path)
    cell.wait(100_000, [])
    cell.cell.finish()
    size = (tmp_path / "trace.mcap").stat().st_size
    cell.finish()
    assert (tmp_path / "trace.mcap").stat().st_size == size


def test_bad_scenario_leaves_no_trace(tmp_path):
    (tmp_path / "bad.toml").write_text("name = 1")
    with pytest.raises(cellfile.CellFileError, match=r"bad\.toml: name"):
        NullCell(near_cell(tmp_path), tmp_path / "bad.toml", 1, tmp_path)
    assert not list(tmp_path.glob("*.mcap*"))

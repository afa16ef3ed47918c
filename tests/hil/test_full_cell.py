"""A build on the cell with a device in every role: it completes, and the record tells of each."""

import numpy as np
import pytest

from controller.config import find_file
from controller.machine.extras import COLUMNS, N_COLUMNS
from controller.record.reader import read_record
from controller.record.schema import FIELDS, STATE_EXECUTE
from hil_sim.devices import EMULATORS
from tests.hil.whole_cell import build, write_box

pytestmark = [pytest.mark.hil, pytest.mark.slow]

EXTRA = FIELDS[-N_COLUMNS:]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """What ``lmd run`` told, and the rows of EXECUTE."""
    folder = tmp_path_factory.mktemp("full")
    part = write_box(folder / "box.stl", (8.0, 8.0, 1.6))
    told = build(part, folder / "out", cell="sim_full", time_mode="null", seed=5)
    rows = read_record(told["record"]).telemetry
    return told, rows[rows["state"] == STATE_EXECUTE]


def test_it_completes_without_an_alarm(full):
    told, rows = full
    assert told["state"] == "COMPLETE"
    assert told["alarms"] == []
    assert len(rows) > 1000


def test_every_column_of_every_device_was_read(full):
    _, rows = full
    assert sum(n for n, _ in COLUMNS.values()) == len(EXTRA)
    for name in EXTRA:
        known = np.isfinite(rows[name]).mean()
        assert known > 0.99, f"{name} was known in {known:.1%} of the rows"


def test_the_readings_are_the_truths_of_this_build(full):
    told, rows = full
    gate = rows["gate"] == 1
    first, last = rows[0], rows[-1]
    # camera: counts on, and sees a pool where there is light and none in the dark
    assert last["camera_frame"] > first["camera_frame"] + len(rows) // 2
    assert 0.8 < np.median(rows["pool_width_mm"][gate]) < 3.0
    assert np.all(rows["drives_ready"] == 1)
    moving = rows["speed_mm_s"] > 5.0
    assert 0.005 < np.median(rows["following_error_mm"][moving]) < 0.5
    # light at the work is what the source gives
    assert np.median(rows["meter_power_w"][gate]) == pytest.approx(
        np.median(rows["power_measured_w"][gate]), rel=0.03
    )
    assert np.all(np.abs(rows["substrate_deg_c"] - 150.0) < 5.0)
    assert np.all(rows["chamber_pressure_pa"] > 100.0)
    assert np.all(rows["chamber_locked"] == 1)
    assert last["window_deg_c"] > first["window_deg_c"] + 0.3
    assert last["window_scatter_pct"] > 2.0
    assert np.all(rows["collision"] == 0)
    flowing = rows["carrier_measured_l_min"] > 5.5
    for n in (1, 2, 3, 4):
        assert np.median(rows[f"stream_{n}_kpa"][flowing]) > 5.0
    # what the scale lost left the feeder, less what is still in hose and waste
    lost_g = first["scale_1_g"] - last["scale_1_g"]
    assert lost_g == pytest.approx(told["planned"]["powder_g"], rel=0.15)
    assert np.all(rows["room_oxygen_pct"] > 20.0)
    assert np.all(rows["supply_argon_kpa"] == 800.0)
    assert np.all(rows["ups_on_battery"] == 0)


def test_a_cell_without_these_devices_says_nothing_about_them(tmp_path):
    part = write_box(tmp_path / "box.stl", (5.0, 5.0, 0.6))
    told = build(part, tmp_path / "out", cell="sim", time_mode="null", seed=5)
    rows = read_record(told["record"]).telemetry
    assert told["state"] == "COMPLETE"
    for name in EXTRA:
        assert np.all(np.isnan(rows[name])), name


def test_wires_of_its_own_processes_give_the_same_record(tmp_path):
    part = write_box(tmp_path / "box.stl", (5.0, 5.0, 0.6))
    one, other = (
        build(part, tmp_path / mode, cell="sim_full", time_mode=mode, seed=5)
        for mode in ("null", "virtual")
    )
    assert one["state"] == other["state"] == "COMPLETE"
    assert one["content_hash"] == other["content_hash"]


OTHERS = {
    "diode": (
        "sim_full",
        'driver = "laser_ipg"',
        'driver = "laser_laserline"\nmap = "laser_ldf_fictitious"',
    ),
    "metis": ("sim_full", '"pyrometer_lumasense"', '"pyrometer_sensortherm"'),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_drivers_take_a_role_by_one_line_of_the_cell_file(tmp_path, other):
    name, old, new = OTHERS[other]
    text = find_file("cells", name).read_text()
    assert old in text
    cell = tmp_path / "other.toml"
    cell.write_text(text.replace(old, new))
    part = write_box(tmp_path / "box.stl", (4.0, 4.0, 0.6))
    told = build(part, tmp_path / "out", cell=str(cell), time_mode="null", seed=5)
    assert (told["state"], told["alarms"]) == ("COMPLETE", [])


def test_other_makers_build_the_same_part(tmp_path):
    part = write_box(tmp_path / "box.stl", (4.0, 4.0, 0.6))
    one, other = (
        build(part, tmp_path / mode, cell="sim_makers", time_mode=mode, seed=5)
        for mode in ("null", "virtual")
    )
    assert (one["state"], one["alarms"]) == ("COMPLETE", [])
    assert one["content_hash"] == other["content_hash"]
    rows = read_record(one["record"]).telemetry
    rows = rows[rows["state"] == STATE_EXECUTE]
    lit = (rows["gate"] == 1) & np.isfinite(rows["pool_width_mm"])
    assert lit.sum() > 0.8 * (rows["gate"] == 1).sum()
    assert 0.8 < np.median(rows["pool_width_mm"][lit]) < 3.0
    assert np.isfinite(rows["height_measured_mm"]).mean() > 0.8
    assert np.nanmedian(rows["meter_power_w"][lit]) == pytest.approx(
        np.median(rows["power_measured_w"][lit]), rel=0.05
    )


def test_every_driver_that_can_be_simulated_stands_in_a_cell_that_is_built():
    """Here or in the cell files: a driver that no whole cell ever ran is not known to work."""
    used = set(EMULATORS)
    told = "".join(find_file("cells", c).read_text() for c in ("sim_full", "sim_makers"))
    told += "".join(new for _, _, new in OTHERS.values())
    assert {d for d in used if f'"{d}"' not in told} == set()

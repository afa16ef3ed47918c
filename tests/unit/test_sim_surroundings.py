"""Slow truths around the melt pool: they move as they should, and faults hold them."""

import dataclasses
import importlib
from pathlib import Path

import pytest

from hil_sim import cellfile
from hil_sim.clock import Scheduler
from hil_sim.devices import EMULATORS, build_emulators, channels_of
from hil_sim.plant.surroundings import Surroundings, moisture_ppm
from hil_sim.plant.world import World

CELLS = Path(__file__).resolve().parents[2] / "configs" / "cells"
FULL = cellfile.load(CELLS / "sim_full.toml")


class Around:
    """World and its surroundings on a clock of their own."""

    def __init__(self, cell=FULL):
        self.sim = Scheduler()
        self.world = World(cell)
        self.around = Surroundings(self.sim, self.world, cell)

    def pass_s(self, seconds, power_w=0.0):
        for _ in range(round(seconds * 10)):
            self.world.energy_j += power_w * 0.1
            self.around.step()


def test_a_cell_without_the_sections_has_none_of_it():
    plain = Around(cellfile.load(CELLS / "sim.toml"))
    assert not hasattr(plain.world, "window_deg_c")
    assert not hasattr(plain.world, "room_oxygen_pct")
    assert not plain.around._steps


def test_the_window_warms_with_light_and_more_when_dirty_or_uncooled():
    def after(dirt, cooled):
        a = Around()
        a.world.scatter_pct, a.world.head_cooling_ok = dirt, cooled
        a.pass_s(120, power_w=800.0)
        return a.world.window_deg_c

    clean, dirty, dry = after(2.0, True), after(60.0, True), after(2.0, False)
    assert 24.0 < clean < 35.0
    assert dirty > 80.0
    assert dry > clean + 8.0


def test_light_dirties_the_window_and_dark_does_not():
    a = Around()
    a.pass_s(100)
    assert a.world.scatter_pct == 2.0
    a.pass_s(1000, power_w=500.0)
    assert a.world.scatter_pct == pytest.approx(4.0, abs=0.01)


def test_streams_follow_the_carrier_gas_and_a_clogged_one_rises_alone():
    a = Around()
    a.world.carrier_l_min = 6.0
    a.pass_s(5)
    assert a.world.stream_pressure_kpa == pytest.approx([8.0] * 4, rel=0.01)
    a.world.clogged[2] = True
    a.pass_s(5)
    assert a.world.stream_pressure_kpa[2] > 90.0
    assert a.world.stream_pressure_kpa[0] == pytest.approx(8.0 * (4 / 3) ** 1.75, rel=0.01)


def test_a_fault_holds_a_truth_until_it_sets_the_usual_value():
    a = Around()
    a.world.carrier_l_min = 6.0
    a.pass_s(5)
    a.world.stream_pressure_kpa[1] = 60.0
    a.world.following_error_mm[0] = 2.0
    a.world.dew_point_deg_c = 24.0
    a.pass_s(30)
    assert a.world.stream_pressure_kpa[1] == 60.0
    assert a.world.following_error_mm[0] == 2.0
    assert a.world.dew_point_deg_c == 24.0
    a.world.stream_pressure_kpa[1] = a.world.following_error_mm[0] = 0.0
    a.pass_s(5)
    assert a.world.stream_pressure_kpa[1] == pytest.approx(8.0, rel=0.01)
    assert a.world.following_error_mm[0] == 0.0


def test_axes_lag_with_their_speed():
    a = Around()
    a.world.x_mm += 6.0  # 60 mm/s
    a.around.step()
    assert a.world.following_error_mm == pytest.approx([0.12, 0.0, 0.0])
    a.around.step()
    assert a.world.following_error_mm == pytest.approx([0.0, 0.0, 0.0])


def test_the_room_loses_its_oxygen_only_without_extraction():
    a = Around()
    a.world.shield_l_min, a.world.carrier_l_min = 18.0, 6.0
    a.pass_s(3600)
    assert a.world.room_oxygen_pct > 20.7
    a.world.extraction_ok = False
    a.pass_s(4 * 3600)
    assert a.world.room_oxygen_pct < 19.5


def test_the_emergency_supply_empties_on_battery():
    a = Around()
    a.world.ups_on_battery = True
    a.pass_s(600)
    assert a.world.ups_charge_pct == pytest.approx(50.0, abs=0.1)


def test_the_plate_holds_its_set_point_and_cools_without():
    a = Around()
    a.world.heater_set_deg_c = 200.0
    a.pass_s(600)
    assert a.world.heater_deg_c == pytest.approx(200.0, abs=1.0)
    a.world.heater_on = False
    a.pass_s(600)
    assert a.world.heater_deg_c < 100.0


def test_an_open_door_lets_the_pressure_go_and_the_moisture_in():
    a = Around()
    a.world.door_closed = False
    a.pass_s(600)
    assert abs(a.world.chamber_pressure_pa) < 1.0
    assert a.world.dew_point_deg_c > 8.0
    assert moisture_ppm(-20.0) == pytest.approx(1014, rel=0.02)  # 1.032 hPa over ice


def test_numbers_of_the_channels_do_not_depend_on_what_else_is_fitted():
    plain = channels_of(cellfile.load(CELLS / "sim.toml"))
    full = channels_of(FULL)
    assert full[:8] == plain
    assert [number for number, _, _ in full] == list(range(17))
    some = {k: v for k, v in FULL.devices.items() if k in (*cellfile.SECTIONS, "room")}
    few = channels_of(dataclasses.replace(FULL, devices=some))
    assert [(n, name) for n, name, _ in few[8:]] == [(16, "room")]


def test_a_driver_without_an_emulator_is_told(tmp_path):
    text = (CELLS / "sim_full.toml").read_text().replace("gas_alicat", "gas_of_nobody")
    path = tmp_path / "cell.toml"
    path.write_text(text)
    with pytest.raises(cellfile.CellFileError, match=r"gas\.driver: 'gas_of_nobody' cannot be"):
        channels_of(cellfile.load(path))


def test_every_emulator_of_the_table_is_there():
    for where, wire in EMULATORS.values():
        module, _, kind = where.rpartition(".")
        cls = getattr(importlib.import_module(f"hil_sim.devices.{module}"), kind)
        assert callable(cls.fitted)
        assert wire in ("tcp", "pty")


def test_boxes_show_what_is_so_and_refuse_what_is_not_theirs():
    sim, world = Scheduler(), World(FULL)
    Surroundings(sim, world, FULL)
    boxes = {e.channel: e for e in build_emulators(sim, world, FULL).values()}
    world.window_deg_c, world.scatter_pct, world.collision = -3.4, 41.5, True
    head = boxes["head"].answer_pdu(1, bytes.fromhex("0300000003"))
    assert head == bytes.fromhex("0306ffde019f0003")
    world.purge_on = True
    chamber = boxes["chamber"]
    assert chamber.answer_pdu(1, bytes.fromhex("0600080000")) == bytes.fromhex("0600080000")
    assert world.purge_on is False
    assert chamber.answer_pdu(1, bytes.fromhex("0600080002")) == bytes.fromhex("8603")
    assert boxes["room"].answer_pdu(1, bytes.fromhex("0600080001")) == bytes.fromhex("8602")
    boxes["head"].frozen = True
    world.window_deg_c = 80.0
    assert boxes["head"].answer_pdu(1, bytes.fromhex("0300000003")) == head

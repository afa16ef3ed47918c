"""Sections of devices that a cell may have besides: strict, optional, told by name."""

import pytest

from controller.config import Cell, configs_dir, load_cell, parse_model
from controller.errors import ConfigError
from controller.machine.cell import (
    BRIDGE_ROLE,
    CHANNELS,
    OPTIONAL_ROLES,
    ROLES,
    fitted,
    make_drivers,
    ports_of,
)
from firmware_bridge import roles
from firmware_bridge.errors import DeviceError
from firmware_bridge.transport import NullPort

FULL = (configs_dir() / "cells" / "sim_full.toml").read_text()


def changed(old: str, new: str) -> Cell:
    assert FULL.count(old) >= 1
    return parse_model(Cell, FULL.replace(old, new, 1), "cell.toml")


def test_the_default_cell_has_none_and_the_full_one_has_all():
    assert fitted(load_cell("sim")[0]) == ROLES
    full = load_cell("sim_full")[0]
    assert fitted(full) == (*ROLES, *OPTIONAL_ROLES)
    assert {BRIDGE_ROLE[r] for r in fitted(full)} == {r.key for r in roles.ROLES}


def test_channel_numbers_of_the_old_sections_stay():
    assert list(CHANNELS)[:8] == ["motion", *ROLES]
    assert list(CHANNELS.values()) == list(range(17))


def test_quantities_come_in_the_units_of_the_attributes():
    cell = load_cell("sim_full")[0]
    assert cell.power_meter.greatest_power_w == 2000.0
    assert cell.powder_line.greatest_pressure_kpa == 80.0
    assert cell.chamber.least_pressure_pa == 20.0
    assert cell.room.least_supply_kpa == [400.0, 300.0]
    assert (cell.room.least_oxygen_pct, cell.head.greatest_scatter_pct) == (19.5, 20.0)
    assert changed('"80 kPa"', '"0.8 bar"').powder_line.greatest_pressure_kpa == 80.0


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('widest_pool = "6 mm"', 'widest_pool = "-6 mm"', "camera.widest_pool"),
        ('greatest_error = "3 mm"', 'greatest_error = "3 K"', "height.greatest_error"),
        ('["0 mm", "250 mm"]\ngreatest', '["9 mm", "9 mm"]\ngreatest', "range 9 to 9 mm is empty"),
        ('following_error = "0.5 mm"', "following_error = 0.5", "drives.following_error"),
        ("uncertainty = 0.02", "uncertainty = 0.6", "power_meter.uncertainty"),
        ('greatest = "400 degC"', 'greatest = "100 degC"', "setpoint 150 degC is above greatest"),
        ('least_pressure = "20 Pa"', 'least_pressure = "20 mm"', "chamber.least_pressure"),
        ('greatest_scatter = "20 %"', 'greatest_scatter = "120 %"', "head.greatest_scatter"),
        ("streams = 4", "streams = 9", "powder_line.streams"),
        ("streams = 4\n", "", "powder_line.streams: is missing"),
        ('["400 kPa", "300 kPa"]', '["400 kPa"]', "room.least_supply"),
        ('least_oxygen = "19.5 %"', 'least_oxygen = "12 %"', "room.least_oxygen"),
        ("dew_margin_k = 2.0", "dew_margin = 2.0", "chamber.dew_margin: unknown key"),
    ],
)
def test_a_mistake_is_told_with_file_and_key(old, new, told):
    with pytest.raises(ConfigError, match=r"^cell\.toml:\d+: ") as caught:
        changed(old, new)
    assert told in str(caught.value)


def test_a_driver_of_another_role_is_refused_before_any_io():
    cell = changed('map = "room_sim"', 'map = "head_sim"')
    ports = {role: NullPort(role, 0) for role in CHANNELS}
    with pytest.raises(DeviceError, match="room: driver 'modbus_map' is one of a process_head"):
        make_drivers(cell, ports)


def test_a_map_that_the_driver_does_not_take_is_refused():
    cell = changed('driver = "chiller_smc"\n', 'driver = "chiller_smc"\nmap = "room_sim"\n')
    ports = {role: NullPort(role, 0) for role in CHANNELS}
    with pytest.raises(DeviceError, match=r"'chiller_smc'.*'map'"):
        make_drivers(cell, ports)


def test_every_fitted_role_gets_its_own_wire():
    cell = load_cell("sim_full")[0]
    table = [{"id": n, "name": name, "kind": "null"} for name, n in CHANNELS.items()]
    ports = ports_of(cell, table)
    assert set(ports) == set(CHANNELS)
    assert {role: port.channel for role, port in ports.items()} == CHANNELS

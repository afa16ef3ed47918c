"""Roles, their readings, and the registry of drivers."""

import dataclasses

import pytest

from firmware_bridge import registry, roles
from firmware_bridge.device import Device
from firmware_bridge.errors import DeviceError, MapError
from firmware_bridge.transport import TcpPort

NOWHERE = TcpPort("nowhere", "127.0.0.1", 1)
ROLE_OF = {
    "chiller_sanda": roles.Chiller,
    "gas_bronkhorst": roles.GasFlow,
    "laser_laserline": roles.LaserSource,
    "laser_raycus": roles.LaserSource,
    "meter_ophir": roles.PowerMeter,
    "pyrometer_calex": roles.Pyrometer,
    "chiller_smc": roles.Chiller,
    "feeder_map": roles.PowderFeeder,
    "gas_alicat": roles.GasFlow,
    "laser_ipg": roles.LaserSource,
    "oxygen_eh": roles.OxygenAnalyser,
    "pyrometer_lumasense": roles.Pyrometer,
    "safety_pilz": roles.SafetyPlc,
}


@pytest.mark.parametrize("role", roles.ROLES, ids=lambda r: r.key)
def test_reading_is_frozen_slotted_and_aged(role):
    reading = role.reading_type
    names = [f.name for f in dataclasses.fields(reading)]
    assert names[0] == "at_us"
    made = reading(*range(len(names)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.at_us = 1
    assert not hasattr(made, "__dict__")


def test_every_role_of_the_cell_has_a_driver():
    assert set(ROLE_OF.values()) >= set(roles.ROLES[:7])  # what no cell is without
    assert set(ROLE_OF) <= set(registry.names())
    for role in roles.ROLES:  # any other comes by a map, but for the feeder with its calibration
        if role is not roles.PowderFeeder:
            assert registry.driver_class("modbus_map").of_role(role.key).role is role


@pytest.mark.parametrize(("name", "role"), ROLE_OF.items())
def test_driver_is_an_instance_of_its_role(name, role):
    device = registry.make(name, NOWHERE, "x")
    assert isinstance(device, role)
    assert isinstance(device, Device)
    assert [isinstance(device, r) for r in roles.ROLES].count(True) == 1
    assert (device.name, device.reading, device.connected) == ("x", None, False)


def test_unknown_driver_says_what_there_is():
    with pytest.raises(
        DeviceError, match=r"'laser_x' is not known; there are: .*chiller_smc, feeder"
    ):
        registry.make("laser_x", NOWHERE)


def test_driver_name_cannot_reach_other_modules():
    with pytest.raises(DeviceError, match="is not known"):
        registry.driver_class("..roles")


def test_unknown_option_is_named():
    with pytest.raises(DeviceError, match=r"driver 'chiller_smc': .*'map'"):
        registry.make("chiller_smc", NOWHERE, map="x")


def test_map_for_another_role_is_refused_before_any_io():
    with pytest.raises(MapError, match="role is 'safety_plc', a map for 'powder_feeder'"):
        registry.make("feeder_map", NOWHERE, map="safety_pilz_sim")


def test_values_before_the_first_poll_are_an_error_not_a_default():
    chiller = registry.make("chiller_smc", NOWHERE)
    with pytest.raises(DeviceError, match="coolant_deg_c was not read yet"):
        _ = chiller.coolant_deg_c
    with pytest.raises(AttributeError):
        _ = chiller.coolant_temperature

"""The physical truth and its hardware safety chain."""

from pathlib import Path

import pytest

from hil_sim.cellfile import load
from hil_sim.plant.world import World

CELL = Path(__file__).resolve().parents[2] / "configs" / "cells" / "sim.toml"


class Told(World):
    __slots__ = ("told",)


@pytest.fixture
def world():
    made = Told(load(CELL))
    made.told = []
    made.on_chain = made.told.append
    return made


@pytest.mark.parametrize("contact", ["estop_ok", "door_closed"])
def test_opening_cuts_the_chain_at_once(world, contact):
    setattr(world, contact, False)
    assert world.told == [False]
    assert not world.chain_closed
    assert not world.supply_relay_on
    assert world.reset_latched


@pytest.mark.parametrize("contact", ["estop_ok", "door_closed"])
def test_closing_again_starts_nothing(world, contact):
    setattr(world, contact, False)
    setattr(world, contact, True)
    assert not world.chain_closed
    assert not world.supply_relay_on
    assert world.told == [False]


def test_reset_needs_everything_closed(world):
    world.estop_ok = False
    world.door_closed = False
    world.estop_ok = True
    assert not world.reset_safety()
    assert world.reset_latched
    world.door_closed = True
    assert world.reset_safety()
    assert world.told == [False, True]
    assert world.supply_relay_on


def test_dropping_the_relay_opens_the_chain_until_a_reset(world):
    world.supply_relay_on = False
    assert not world.chain_closed
    assert world.reset_latched
    assert world.estop_ok
    assert world.door_closed
    assert world.reset_safety()


def test_enabling_the_laser_is_told_once_a_change(world):
    changes = []
    world.on_laser_enabled = changes.append
    for on in (True, True, False, False):
        world.laser_enabled = on
    assert changes == [True, False]


def test_misspelt_attribute_is_refused():
    with pytest.raises(AttributeError):
        World(load(CELL)).estop_okay = False

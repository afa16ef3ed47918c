"""A power-up of the cell voids the door-circuit test by itself."""

import asyncio
from types import SimpleNamespace

import pytest

from controller.api.commands import Commands
from controller.api.serve import supervise
from controller.commissioning.boots import BootWatch
from controller.commissioning.store import Store, blockers
from controller.config import load_cell
from controller.errors import CommissioningError
from controller.machine.states import UnitMode
from tests.unit.machine_fakes import Bench, run_virtual
from tests.unit.test_commissioning_store import NOW_S, fill, made, names

PROD = UnitMode.PRODUCTION
CELL = load_cell("sim")[0]


class Desk:
    """A watch on a store, and handshakes with it."""

    def __init__(self, folder):
        self.store, self.told, self.at_s = Store(folder), [], NOW_S + 100.0
        self.serve()

    def serve(self):
        """A server starts."""
        self.identity = None
        self.watch = BootWatch(
            lambda: self.identity, self.store, CELL, lambda: self.at_s,
            lambda kind, data: self.told.append(data["text"]),
        )  # fmt: skip

    def shake(self, nonce):
        """A handshake; whether the door's test still counts after it."""
        self.identity = SimpleNamespace(boot_nonce=nonce)
        self.watch.tick()
        self.watch.tick()
        return not blockers(CELL, self.store, NOW_S + 200.0, PROD) + self.watch.blockers()


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    desk = Desk(tmp_path / "cal")
    fill(desk.store, CELL)
    return desk


def test_a_new_boot_voids_the_door_s_test_and_nothing_else(desk):
    desk.watch.tick()  # not connected yet
    assert desk.told == []
    assert not desk.shake(7)
    assert names(blockers(CELL, desk.store, NOW_S + 200.0, PROD)) == ["CALIBRATION_DOOR"]
    assert desk.told == [
        "power-up noted (boot 00000007 of the motion controller): the door circuit is to be tested"
    ]
    desk.store.add(made("door", at_s=NOW_S + 150.0))
    assert desk.shake(7)  # the wire came back, the controller had stayed on
    desk.serve()
    assert desk.shake(7)  # a new server, the same power-up
    assert not desk.shake(8)  # the controller booted while the server ran
    assert len(desk.told) == 2


def test_a_calendar_set_back_voids_as_well(desk):
    desk.at_s = NOW_S - 1e6
    assert not desk.shake(7)


def test_a_link_without_a_number_is_a_power_up_each_start_of_the_server(desk):
    assert not desk.shake(0)
    desk.store.add(made("door", at_s=NOW_S + 150.0))
    assert desk.shake(0)
    desk.serve()
    desk.at_s = NOW_S + 160.0
    assert not desk.shake(0)


def test_a_power_up_that_cannot_be_noted_forbids_start(desk, monkeypatch):
    def full(*args):
        raise CommissioningError("no room")

    monkeypatch.setattr(desk.store, "note", full)
    assert not desk.shake(7)
    assert names(desk.watch.blockers()) == ["CALIBRATION_DOOR"]


@pytest.mark.parametrize("simulated", [False, True])
def test_a_server_of_a_real_cell_watches(tmp_path, monkeypatch, simulated):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LMD_CALIBRATIONS", str(tmp_path / "cal"))
    cell = CELL.model_copy(update={"simulated": simulated})

    async def main():
        bench = Bench()
        commands = Commands(bench.ex, None, {}, {"simulated": simulated})
        bench.ex.on_rest.clear()
        supervise(commands, SimpleNamespace(run_dir=tmp_path), cell, SimpleNamespace(virtual=False))
        await bench.ready()
        await asyncio.sleep(0.1)
        await bench.end()

    run_virtual(main)
    noted = [m.what for m in Store.of(cell).maintenance()]
    assert noted == ([] if simulated else ["power_up"])

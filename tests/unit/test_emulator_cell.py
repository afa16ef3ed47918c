"""All emulators together: one a channel, named as the wires name them, each on null wires."""

from __future__ import annotations

import pytest

from hil_sim import cellfile
from hil_sim.clock import Scheduler
from hil_sim.devices import build_emulators
from hil_sim.plant.world import World
from hil_sim.wires import CHANNELS, make_ends
from tests.unit.emulator_bench import CELL_FILE

# One harmless question a channel and how its answer begins.
QUESTIONS = {
    "laser": (b"STA\r", b"STA: "),
    "pyrometer": (b"00mb\r", b"025808FC\r"),
    "chiller": (bytes.fromhex("01030000000D840F"), b"\x01\x03\x1a"),
    "powder": (bytes.fromhex("000100000006010300000015"), b"\x00\x01\x00\x00\x00\x2d\x01\x03"),
    "gas": (bytes.fromhex("000100000006020304B0000A"), b"\x00\x01\x00\x00\x00"),
    "oxygen": (bytes.fromhex("000100000006010308290002"), b"\x00\x01\x00\x00\x00\x07\x01\x03"),
    "safety": (bytes.fromhex("000100000006010402000002"), b"\x00\x01\x00\x00\x00\x07\x01\x04"),
}


@pytest.fixture
def joined():
    """Emulators and null ends of the default cell, wired as the cell wires them."""
    sim = Scheduler()
    cell = cellfile.load(CELL_FILE)
    emulators = build_emulators(sim, World(cell), cell)
    ends = make_ends(sim, null=True)
    for channel, emulator in emulators.items():
        end = ends[channel]
        emulator.send = end.send
        end.on_data, end.on_opened, end.on_closed = (
            emulator.receive,
            emulator.opened,
            emulator.closed,
        )
        end.opened()
    return sim, emulators, ends


def test_every_channel_but_motion_has_its_emulator():
    sim = Scheduler()
    cell = cellfile.load(CELL_FILE)
    emulators = build_emulators(sim, World(cell), cell)
    names = {channel: name for channel, name, _ in CHANNELS if name != "motion"}
    assert {channel: e.channel for channel, e in emulators.items()} == names


def test_every_device_answers_over_its_wire(joined):
    sim, emulators, ends = joined
    for channel, emulator in emulators.items():
        question, _ = QUESTIONS[emulator.channel]
        ends[channel].receive(question)
    while sim.now_us < 5_000:
        sim.run(5_000)
    for channel, emulator in emulators.items():
        assert ends[channel].drain().startswith(QUESTIONS[emulator.channel][1]), emulator.channel


def test_an_unmuted_device_is_heard_and_a_mute_one_is_not(joined):
    sim, emulators, ends = joined
    for channel, emulator in emulators.items():
        emulator.mute = True
        ends[channel].receive(QUESTIONS[emulator.channel][0])
    while sim.now_us < 20_000:
        sim.run(20_000)
    assert [ends[channel].drain() for channel in emulators] == [b""] * len(emulators)

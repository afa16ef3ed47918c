"""Scenario files: strict, and what a fault does to the cell."""

import tomllib
from pathlib import Path

import pytest

from hil_sim import faults
from hil_sim.faults import ScenarioError, from_tables, load
from tests.unit.sim_host import near_cell

SCENARIOS = Path(__file__).resolve().parents[2] / "configs" / "scenarios"


def one(text: str):
    return from_tables(tomllib.loads('name = "x"\n[[fault]]\n' + text), "x.toml")


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda p: p.stem)
def test_scenario_files_are_read_and_named_as_the_file(path):
    scenario = load(path)
    assert scenario.name == path.stem
    assert len(scenario.faults) == (0 if path.stem == "nominal" else 1)


def test_scenarios_of_the_first_faults_are_there():
    names = {p.stem for p in SCENARIOS.glob("*.toml")}
    assert {"nominal", "estop", "door", "chiller_flow", "link_loss", "feeder_stall"} <= names


def test_times_options_and_defaults():
    scenario = one(
        'device = "powder"\nlayer = "physics"\nkind = "stall"\nat = "1.5 s"\nlength = "200 ms"'
    )
    (fault,) = scenario.faults
    assert (fault.at_us, fault.length_us, fault.origin) == (1_500_000, 200_000, "first_emission")
    assert fault.options == {"hopper": 1}


GOOD = 'device = "safety"\nlayer = "physics"\nkind = "estop"\nat = "1 s"\n'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GOOD + "when = 1", "fault.0: when: unknown key"),
        (GOOD.replace('"safety"', '"saftey"'), "fault.0.device: 'saftey'"),
        (GOOD.replace('"physics"', '"process"'), "fault.0.layer: 'process'"),
        (GOOD.replace('"estop"', '"stop"'), "fault.0.kind: 'stop'"),
        (GOOD.replace('"1 s"', "1"), "fault.0.at: 1 has no unit"),
        (GOOD.replace('at = "1 s"', ""), "fault.0.at"),
        (GOOD.replace('"1 s"', '"-1 s"'), "fault.0.at: '-1 s'"),
        (GOOD + 'length = "0 s"', "fault.0.length"),
        (GOOD + 'from = "start"', "fault.0.from: 'start'"),
        (GOOD + "hopper = 1", "hopper: unknown key"),
        ('device = "powder"\nlayer = "physics"\nkind = "stall"\nat = "1 s"\nhopper = 3', "hopper"),
        ('device = "motion"\nlayer = "wire"\nkind = "delay"\nat = "1 s"', "fault.0.kind"),
    ],
)
def test_mistakes_are_told_with_file_and_key(text, named):
    with pytest.raises(ScenarioError) as caught:
        one(text)
    assert named in str(caught.value)
    assert str(caught.value).startswith("x.toml: ")


@pytest.mark.parametrize("text", ['title = "no name"', 'name = "x"\nfaults = 1', "name = 3"])
def test_top_of_the_file_is_strict_too(text):
    with pytest.raises(ScenarioError):
        from_tables(tomllib.loads(text), "x.toml")


def build(tmp_path, text):
    """A cell with one fault from power-up at 20 ms for 30 ms."""
    from hil_sim import cellfile
    from hil_sim.cell import SimCell

    scenario = one(text + 'at = "20 ms"\nlength = "30 ms"\nfrom = "power_up"\n')
    return SimCell(cellfile.load(near_cell(tmp_path)), scenario, null=True)


def run(cell, until_us):
    while cell.sim.now_us < until_us:
        cell.sim.emitted = False
        cell.sim.run(until_us)


@pytest.mark.parametrize(
    ("text", "look"),
    [
        ('device="safety"\nlayer="physics"\nkind="estop"\n', lambda c: c.world.estop_ok),
        ('device="safety"\nlayer="physics"\nkind="door"\n', lambda c: c.world.door_closed),
        ('device="chiller"\nlayer="physics"\nkind="flow"\n',
         lambda c: not c.world.chiller_flow_fault),
        ('device="powder"\nlayer="physics"\nkind="stall"\nhopper=2\n',
         lambda c: not c.world.hopper_stalled[1]),
        ('device="gas"\nlayer="physics"\nkind="carrier_supply"\n',
         lambda c: c.world.carrier_supply_ok),
        ('device="laser"\nlayer="physics"\nkind="back_reflection"\n',
         lambda c: not c.world.back_reflection),
        ('device="laser"\nlayer="process"\nkind="optics"\ntransmission=0.5\n',
         lambda c: c.world.optics_transmission == 1.0),
        ('device="oxygen"\nlayer="process"\nkind="leak"\n',
         lambda c: c.world.oxygen_leak_ppm == 0.0),
        ('device="motion"\nlayer="wire"\nkind="cut"\n', lambda c: not c.ends[0].cut),
        ('device="gas"\nlayer="wire"\nkind="unplug"\n', lambda c: not c.ends[5].cut),
        ('device="motion"\nlayer="wire"\nkind="garble"\n', lambda c: c.motion.garble == 0),
        ('device="chiller"\nlayer="wire"\nkind="garble"\nbits=5\n',
         lambda c: c.emulators[3].garble == 0),
        ('device="laser"\nlayer="wire"\nkind="delay"\n', lambda c: c.emulators[1].delay_us == 0),
        ('device="laser"\nlayer="wire"\nkind="truncate"\n',
         lambda c: c.emulators[1].truncate == 0),
        ('device="powder"\nlayer="protocol"\nkind="silent"\n', lambda c: not c.emulators[4].mute),
    ],
)  # fmt: skip
def test_fault_holds_from_its_start_for_its_length(tmp_path, text, look):
    cell = build(tmp_path, text)
    run(cell, 19_999)
    assert look(cell)
    run(cell, 20_000)
    assert not look(cell)
    run(cell, 49_999)
    assert not look(cell)
    run(cell, 50_000)
    assert look(cell)


def test_every_kind_of_fault_is_in_the_test_above_or_a_wire_kind():
    kinds = {k for (_, layer), table in faults._KINDS.items() if layer != "wire" for k in table}
    assert kinds == {
        "estop", "door", "flow", "stall", "carrier_supply", "shield_supply", "back_reflection",
        "optics", "leak", "silent",
    }  # fmt: skip

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
        ('device = "motion"\nlayer = "wire"\nkind = "truncate"\nat = "1 s"', "fault.0.kind"),
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
        ('device="powder"\nlayer="protocol"\nkind="not_ready"\n',
         lambda c: not c.emulators[4].not_ready),
        ('device="powder"\nlayer="physics"\nkind="empty"\nleft="2 g"\n',
         lambda c: c.world.hopper_mass_g[0] > 3.0),
        ('device="laser"\nlayer="physics"\nkind="weak"\nshare=0.9\n',
         lambda c: c.world.source_share == 1.0),
        ('device="laser"\nlayer="physics"\nkind="stray_light"\npower="100 W"\n',
         lambda c: c.world.stray_w == 0.0),
        ('device="laser"\nlayer="physics"\nkind="fault"\nbit=29\n',
         lambda c: c.world.laser_fault_bits == 0),
        ('device="laser"\nlayer="physics"\nkind="key"\n', lambda c: c.emulators[1].key_remote),
        ('device="laser"\nlayer="protocol"\nkind="refuse"\n',
         lambda c: not c.emulators[1].refuse_emission),
        ('device="chiller"\nlayer="physics"\nkind="alarm"\nbit=20\n',
         lambda c: c.world.chiller_alarm_bits == 0),
        ('device="pyrometer"\nlayer="protocol"\nkind="no_signal"\n',
         lambda c: c.emulators[2].forced is None),
        ('device="pyrometer"\nlayer="protocol"\nkind="saturated"\n',
         lambda c: c.emulators[2].forced != b"88880"),
        ('device="pyrometer"\nlayer="protocol"\nkind="not_measuring"\n',
         lambda c: c.emulators[2].forced != b"77770"),
        ('device="pyrometer"\nlayer="protocol"\nkind="frozen"\n',
         lambda c: c.emulators[2].forced is None),
        ('device="gas"\nlayer="protocol"\nkind="flag"\nunit=2\n',
         lambda c: c.emulators[5].status_flags[2] == 0),
        ('device="oxygen"\nlayer="protocol"\nkind="error"\n',
         lambda c: c.emulators[6].error_flags == 0),
        ('device="safety"\nlayer="protocol"\nkind="plc_error"\n',
         lambda c: not c.emulators[7].plc_error),
        ('device="safety"\nlayer="protocol"\nkind="watchdog"\n',
         lambda c: not c.emulators[7].watchdog_tripped),
        ('device="motion"\nlayer="wire"\nkind="unplug"\n', lambda c: not c.ends[0].cut),
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


def test_warm_water_and_oxygen_are_steps_that_the_cell_works_off(tmp_path):
    text = 'device="chiller"\nlayer="physics"\nkind="warm"\nkelvin=5\n'
    cell = build(tmp_path, text)
    run(cell, 19_999)
    before = cell.world.coolant_deg_c
    run(cell, 25_000)
    assert cell.world.coolant_deg_c == pytest.approx(before + 5.0, abs=0.1)
    run(cell, 60_000_000)
    assert cell.world.coolant_deg_c < before + 2.0
    cell = build(tmp_path, 'device="oxygen"\nlayer="physics"\nkind="level"\noxygen="30 ppm"\n')
    run(cell, 20_000)
    assert cell.world.oxygen_ppm < 200.0  # the plant moves it on in the same instant


def test_late_motion_line_keeps_order_and_loses_nothing(tmp_path):
    cell = build(tmp_path, 'device="motion"\nlayer="wire"\nkind="delay"\ndelay="7 ms"\n')
    heard = []
    cell.motion.firmware.rx = lambda data: heard.append((cell.sim.now_us, data))
    sent = {5_000: b"a", 25_000: b"b", 49_000: b"c", 51_000: b"d", 70_000: b"e"}
    for t_us, data in sent.items():
        cell.sim.at(t_us, lambda data=data: cell.ends[0].receive(data))
    run(cell, 100_000)
    # what is on its way when the line is whole again is not overtaken
    assert heard == [(5_000, b"a"), (32_000, b"b"), (56_000, b"c"), (56_000, b"d"), (70_000, b"e")]


def test_stray_light_ends_with_the_supply_and_is_in_the_trace_s_energy(tmp_path):
    text = 'device="laser"\nlayer="physics"\nkind="stray_light"\npower="300 W"\n'
    cell = build(tmp_path, text)
    cell.sim.at(40_000, lambda: setattr(cell.world, "supply_relay_on", False))
    run(cell, 100_000)
    assert cell.world.energy_j == pytest.approx(0.020 * 300.0, rel=0.01)
    assert cell.world.emission_w == 0.0


def test_every_kind_of_fault_is_in_the_test_above_or_a_wire_kind():
    kinds = {
        k
        for (_, layer), table in faults.KINDS.items()
        if layer != "wire"
        for k, row in table.items()
        if not row.needs  # those of roles that a cell may lack: test_sim_control.py
    }
    assert kinds == {
        "estop", "door", "flow", "stall", "carrier_supply", "shield_supply", "back_reflection",
        "optics", "leak", "silent", "not_ready", "empty", "weak", "stray_light", "fault", "key",
        "refuse", "alarm", "no_signal", "saturated", "not_measuring", "frozen", "flag", "error",
        "plc_error", "watchdog", "warm", "level",
    }  # fmt: skip

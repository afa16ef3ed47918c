"""Live injection: the simulator's control channel, and faults of what a cell may lack."""

import json
import tomllib
from types import SimpleNamespace

import pytest

from hil_sim import cellfile, faults
from hil_sim.cell import SimCell
from hil_sim.null import NullCell
from tests.unit.sim_host import near_cell

ESTOP = {"command": "inject", "device": "safety", "layer": "physics", "kind": "estop"}
# (device, kind, attribute, while broken, when whole)
FITTED = [
    ("head", "collision", "collision", True, False),
    ("head", "cooling", "head_cooling_ok", False, True),
    ("head", "window_hot", "window_deg_c", 90.0, 25.0),
    ("head", "window_dirty", "scatter_pct", 60.0, 2.0),
    ("powder_line", "clogged", "clogged", [True, False], [False, False]),
    ("room", "oxygen_low", "room_oxygen_pct", 17.5, 20.9),
    ("room", "extraction", "extraction_ok", False, True),
    ("room", "air_low", "supply_air_kpa", 200.0, 600.0),
    ("room", "argon_low", "supply_argon_kpa", 100.0, 800.0),
    ("room", "ups_on_battery", "ups_on_battery", True, False),
    ("chamber", "dew_point", "dew_point_deg_c", 24.0, -20.0),
    ("chamber", "pressure_low", "chamber_pressure_pa", 0.0, 300.0),
    ("drives", "following_error", "following_error_mm", [2.0, 0.0], [0.0, 0.0]),
]


def fault_of(device, kind):
    text = f'name="x"\n[[fault]]\nat="0 s"\ndevice="{device}"\nlayer="physics"\nkind="{kind}"'
    (fault,) = faults.from_tables(tomllib.loads(text), "x.toml").faults
    return fault


@pytest.mark.parametrize(("device", "kind", "name", "broken", "whole"), FITTED)
def test_fault_of_a_fitted_device_breaks_its_truth_and_mends_it(device, kind, name, broken, whole):
    values = {"clogged": [False, False], "following_error_mm": [0.0, 0.0]}
    world = SimpleNamespace(**{name: values.get(name, whole)})
    events = []
    cell = SimpleNamespace(
        world=world,
        sim=SimpleNamespace(now_us=5),
        trace=SimpleNamespace(event=lambda t_us, what, **f: events.append((t_us, what, f))),
        device=lambda device: None,
    )
    fault = fault_of(device, kind)
    faults.check_fitted(cell, fault)
    faults.begin(cell, fault)
    assert getattr(world, name) == broken
    faults.end(cell, fault)
    assert getattr(world, name) == whole
    assert [(t, what) for t, what, _ in events] == [(5, "fault_injected"), (5, "fault_cleared")]
    assert events[0][2]["device"] == device


def test_every_kind_of_a_role_that_may_be_missing_is_above():
    kinds = {(d, k) for (d, _), table in faults.KINDS.items() for k, r in table.items() if r.needs}
    assert kinds == {(d, k) for d, k, *_ in FITTED}


def test_a_scenario_of_a_device_that_is_not_fitted_is_refused_by_name(tmp_path):
    fault = fault_of("head", "collision")
    cell = SimpleNamespace(world=object(), device=lambda name: None)
    with pytest.raises(faults.ScenarioError, match="'head' is not fitted in this cell"):
        faults.check_fitted(cell, fault, "x")


def test_control_channel_injects_clears_and_lets_a_fault_end_by_itself(tmp_path):
    null = NullCell(near_cell(tmp_path))
    assert null.tell(ESTOP) == {"ok": True, "t_us": 0}
    assert not null.cell.world.estop_ok
    assert null.tell({**ESTOP, "command": "clear"})["ok"]
    assert null.cell.world.estop_ok
    null.tell({**ESTOP, "kind": "door", "length": "30 ms"})
    null.wait(29_000, [])
    assert not null.cell.world.door_closed
    null.wait(40_000, [])
    assert null.cell.world.door_closed
    kinds = null.tell({"command": "kinds"})["kinds"]
    assert {"device": "safety", "layer": "physics", "kind": "estop", "options": []} in kinds


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (None, "a request is a table"),
        ({"command": "explode"}, "request.command: 'explode' is unknown"),
        ({**ESTOP, "kind": "tiger"}, "request.kind: 'tiger' is unknown"),
        ({**ESTOP, "length": "5"}, "request.length"),
        ({**ESTOP, "options": {"volume": 11}}, "volume: unknown key"),
        ({**ESTOP, "options": 3}, "request.options: is not a table"),
        ({**ESTOP, "speed": 3}, "speed: unknown key"),
    ],
)
def test_a_wrong_request_is_answered_in_one_sentence_and_breaks_nothing(asked, named, tmp_path):
    cell = SimCell(cellfile.load(near_cell(tmp_path)), faults.NOMINAL, null=True)
    answer = json.loads(faults.told_json(cell, json.dumps(asked).encode()))
    assert not answer["ok"]
    assert named in answer["error"]
    assert cell.world.estop_ok


@pytest.mark.parametrize("how", ["lose", "repeat", "swap"])
def test_pieces_on_the_motion_cable_are_lost_repeated_or_swapped(how, tmp_path):
    cell = SimCell(cellfile.load(near_cell(tmp_path)), faults.NOMINAL, null=True)
    got = []
    end = cell.end("motion")
    end.on_data = got.append
    row = {"command": "inject", "device": "motion", "layer": "wire", "kind": how}
    assert faults.told(cell, {**row, "options": {"every": 2}})["ok"]
    for piece in (b"1", b"2", b"3", b"4"):
        end.on_data(piece)
    expected = {"lose": b"13", "repeat": b"122344", "swap": b"132"}
    assert b"".join(got) == expected[how]
    assert faults.told(cell, {**row, "command": "clear"})["ok"]
    end.on_data(b"5")
    assert b"".join(got).endswith(b"5" if how != "swap" else b"54")

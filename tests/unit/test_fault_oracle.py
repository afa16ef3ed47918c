"""The judge of reactions finds planted breaches, and has nothing against a right reaction."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.hil import fault_bench, fault_oracle
from tests.hil.fault_oracle import TABLE, judge
from tests.hil.oracle import Run

ONSET, CLEARED, END = 1_000_000, 5_000_000, 6_000_000


@dataclass
class Script:
    """A run with one fault and the reaction of a good cell, all of it to be spoiled."""

    kind: tuple[str, str, str] = ("safety", "physics", "door")
    gate: list[tuple[int, int]] = field(default_factory=lambda: [(500_000, 1_050_000)])
    armed: list[tuple[int, int]] = field(default_factory=lambda: [(100_000, 1), (1_050_000, 0)])
    latched: list[tuple[int, int]] = field(default_factory=list)
    enabled: list[tuple[int, int]] = field(default_factory=lambda: [(90_000, 1), (1_060_000, 0)])
    chain: list[tuple[int, int]] = field(default_factory=list)
    fed_until_us: int = 1_300_000
    options: dict = field(default_factory=dict)

    def judged(self):
        device, layer, fault = self.kind
        named = {"device": device, "layer": layer, "fault": fault, **self.options}
        events = [{"t_us": ONSET, "kind": "fault_injected", **named},
                  {"t_us": CLEARED, "kind": "fault_cleared", **named}]  # fmt: skip
        events += [{"t_us": t, "kind": "armed", "on": v} for t, v in self.armed]
        events += [{"t_us": t, "kind": "fault", "code": v} for t, v in self.latched]
        events += [{"t_us": t, "kind": "laser_enabled", "on": v} for t, v in self.enabled]
        events += [{"t_us": t, "kind": "chain", "closed": v} for t, v in self.chain]
        events.sort(key=lambda e: e["t_us"])
        t_us = np.arange(10_000, END + 1, 10_000)
        plant = np.zeros(len(t_us), [("t_us", "<i8"), ("fed_g", "<f8"), ("emission_w", "<f8")])
        plant["t_us"] = t_us
        plant["fed_g"] = 0.1e-6 * np.minimum(t_us, self.fed_until_us)
        gate = [(t, on) for a, b in self.gate for t, on in ((a, 1), (b, 0))]
        rows = {"/trace/plant": plant,
                "/trace/gate": np.array(gate, [("t_us", "<i8"), ("on", "u1")])}  # fmt: skip
        (found,) = judge(Run({}, rows, events, None))
        return found


STOP = {"kind": ("chiller", "physics", "flow"), "gate": [(500_000, 1_400_000)],
        "enabled": [(90_000, 1), (1_450_000, 0)], "fed_until_us": 1_700_000}  # fmt: skip
HOLD = {"kind": ("powder", "protocol", "not_ready"), "gate": [(500_000, 1_900_000)],
        "enabled": [(90_000, 1)], "fed_until_us": 2_200_000}  # fmt: skip
LIGHT = {"kind": ("pyrometer", "protocol", "frozen"),
         "gate": [(1_500_000, 2_500_000), (3_000_000, 4_100_000)]}  # fmt: skip


@pytest.mark.parametrize(
    ("good", "reaction_us"), [({}, 50_000), (STOP, 400_000), (HOLD, 900_000), (LIGHT, 2_100_000)]
)
def test_a_right_reaction_is_measured_and_has_nothing_wrong(good, reaction_us):
    found = Script(**good).judged()
    assert found.wrong == ""
    assert found.reaction_us == reaction_us
    assert found.lit == (good is not LIGHT)


@pytest.mark.parametrize(
    ("good", "change", "said"),
    [
        ({}, {"gate": [(500_000, 1_100_001)]}, "light 100001 us"),
        ({}, {"gate": [(500_000, 1_050_000), (3_000_000, 3_001_000)]}, "light 2001000 us"),
        ({}, {"armed": [(100_000, 1)]}, "armed without a latched fault"),
        ({}, {"armed": [(100_000, 1), (1_050_000, 0), (4_000_000, 1)]}, "armed without"),
        ({}, {"enabled": [(90_000, 1)]}, "source enabled and supplied"),
        ({}, {"fed_until_us": 4_000_000}, "powder to the nozzle"),
        (STOP, {"gate": [(500_000, 1_500_001)]}, "light 500001 us"),
        (STOP, {"enabled": [(90_000, 1)]}, "source enabled and supplied"),
        (STOP, {"enabled": [(90_000, 1), (1_450_000, 0), (4_000_000, 1)]}, "source enabled"),
        (HOLD, {"gate": [(500_000, 2_000_001)]}, "light 1000001 us"),
        (HOLD, {"fed_until_us": 4_000_000}, "powder to the nozzle"),
        (LIGHT, {"gate": [(1_500_000, 3_000_000), (3_100_000, 3_900_000)]}, "light 2300000 us"),
    ],
)
def test_planted_breach_is_found(good, change, said):
    assert said in Script(**{**good, **change}).judged().wrong


def test_a_latched_fault_is_as_good_as_disarming_and_a_dropped_supply_as_off():
    script = Script(armed=[(100_000, 1)], latched=[(1_040_000, 2)], enabled=[(90_000, 1)],
                    chain=[(1_000_000, 0)])  # fmt: skip
    assert script.judged().wrong == ""


def test_a_source_that_does_not_hear_may_lose_its_supply_a_little_later():
    kind = ("laser", "protocol", "silent")
    late = Script(kind, enabled=[(90_000, 1)], chain=[(3_600_000, 0)])
    assert late.judged().wrong == ""
    assert (
        "source enabled"
        in Script(kind, enabled=[(90_000, 1)], chain=[(3_800_000, 0)]).judged().wrong
    )


def test_frames_out_of_order_ask_for_no_reaction():
    script = Script(("motion", "wire", "delay"), [(500_000, 5_500_000)], [(100_000, 1)])
    assert script.judged().wrong == ""


def test_warm_coolant_is_judged_by_how_warm():
    kind = ("chiller", "physics", "warm")
    assert Script(kind, options={"kelvin": 3.0}).judged().need.letter == "P"
    assert Script(kind, options={"kelvin": 6.0}).judged().need.letter == "S"


def test_every_fault_of_the_campaign_is_a_row_of_the_table():
    for row in fault_bench.ROWS:
        if row.kind != "warm":
            assert (row.device, row.layer, row.kind) in TABLE, row.key
            letter = TABLE[row.device, row.layer, row.kind].letter
            assert bool(letter) == bool(row.ends), row.key
    assert fault_oracle.AGE_S == 1.0

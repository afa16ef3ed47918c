"""Every reachable place of the machine with its interlocks, and every row of them left out."""

from dataclasses import replace

import pytest

from controller.machine.interlocks import RULES
from controller.machine.interlocks.watching import CHAIN
from controller.machine.states import ALLOWED, BUILDING, COMMANDS, State
from controller.model import Severity
from tests.unit import test_interlocks, test_interlocks_fitted
from tests.unit.safety_search import MAY_EMIT, alarms_of, reactions, search, wrongs


def test_no_place_with_leave_to_emit_has_anything_wrong():
    seen, breaches = search()
    assert breaches == []
    assert {place[0] for place in seen} >= {s for s in State if "SUSPEND" not in s.name}
    assert len(seen) > 300
    assert {place[3].name for place in seen if place[3] is not None} >= {w.name for w in wrongs()}


def test_every_severity_above_note_leads_out_of_emission_and_tells_the_link_first():
    for (state, severity), (new, link) in reactions().items():
        if state not in MAY_EMIT or severity is Severity.NOTE:
            continue
        assert new not in MAY_EMIT, (state, severity)
        assert link, (state, severity)
        assert link[0].split()[0] in ("abort", "hold"), (state, severity, link)
    for (state, severity), (new, _) in reactions().items():
        if severity is Severity.ABORT:
            assert new in (State.ABORTING, State.ABORTED), state


def test_only_a_start_leads_into_a_build_and_only_going_on_back_into_it():
    """By the table alone: from every state out of a build, EXECUTE is behind STARTING."""
    for begin in set(State) - BUILDING:
        reached, todo = {begin}, [begin]
        while todo:
            for new in ALLOWED[todo.pop()] - {State.STARTING}:
                if new not in reached:
                    reached.add(new)
                    todo.append(new)
        assert not reached & BUILDING, begin
    assert COMMANDS["start"] == {State.IDLE}
    assert COMMANDS["unhold"] == {State.HELD}


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.alarm)
def test_a_rule_left_out_is_found(rule):
    rest = tuple(r for r in RULES if r is not rule)
    own = [w for w in wrongs() if w.name == rule.alarm]
    assert own
    assert any(rule.alarm in alarms_of(w, State.EXECUTE) for w in own)
    assert all(rule.alarm not in alarms_of(w, State.EXECUTE, rest) for w in own)


def named_blocks():
    """(reason, snapshot change) of the blockers' own tests."""
    own = [("CHAMBER_PRESSURE", {"chamber": {"pressure_pa": 0.0}}),
           ("OXYGEN_HIGH", {"oxygen": {"oxygen_ppm": 21.0}})]  # fmt: skip
    return (
        own + list(test_interlocks.BLOCKERS) + list(getattr(test_interlocks_fitted, "BLOCKERS", []))
    )


@pytest.mark.parametrize(
    ("link", "block"),
    [(link, b) for link in CHAIN for b in link.blocks],
    ids=lambda v: getattr(v, "name", None),
)
def test_a_blocker_left_out_is_found(link, block):
    """Without the row its own case is no longer refused by that name."""
    from controller.machine.interlocks.watching import link_blockers

    found = False
    for case in named_blocks():
        name, change = case[0], case[1]
        if name != block.name:
            continue
        for lim in (test_interlocks_fitted.FULL, test_interlocks_fitted.SHIELDED):
            s = test_interlocks_fitted.snap(state=State.IDLE, **change)
            with_it = [b.name for b in link_blockers(link, s, lim)]
            without = replace(link, blocks=tuple(b for b in link.blocks if b is not block))
            if name in with_it:
                found = True
                assert name not in [b.name for b in link_blockers(without, s, lim)]
    assert found, f"no case for blocker {block.name} of {link.name}"

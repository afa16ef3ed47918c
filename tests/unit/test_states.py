"""PackML's states: the table is checked exhaustively against the standard's list."""

import pytest

from controller.errors import StateError
from controller.machine.states import (
    ACTING,
    ALLOWED,
    BUILDING,
    BUSY,
    COMMANDS,
    State,
    StateMachine,
    UnitMode,
    require,
)
from controller.record.schema import STATES

# ISA-TR88.00.02, basic state model, written out by hand
NORMAL = {
    ("CLEARING", "STOPPED"), ("STOPPED", "RESETTING"), ("RESETTING", "IDLE"),
    ("IDLE", "STARTING"), ("STARTING", "EXECUTE"), ("EXECUTE", "COMPLETING"),
    ("COMPLETING", "COMPLETE"), ("COMPLETE", "RESETTING"), ("EXECUTE", "HOLDING"),
    ("HOLDING", "HELD"), ("HELD", "UNHOLDING"), ("UNHOLDING", "EXECUTE"),
    ("EXECUTE", "SUSPENDING"), ("SUSPENDING", "SUSPENDED"), ("SUSPENDED", "UNSUSPENDING"),
    ("UNSUSPENDING", "EXECUTE"), ("STOPPING", "STOPPED"), ("ABORTING", "ABORTED"),
    ("ABORTED", "CLEARING"),
}  # fmt: skip
STOPPABLE = {
    "STARTING", "IDLE", "SUSPENDED", "EXECUTE", "HOLDING", "HELD", "UNHOLDING", "SUSPENDING",
    "UNSUSPENDING", "RESETTING", "COMPLETING", "COMPLETE",
}  # fmt: skip


def expected(old: State, new: State) -> bool:
    if new is State.STOPPING:
        return old.name in STOPPABLE
    if new is State.ABORTING:
        return old.name not in ("ABORTING", "ABORTED")
    return (old.name, new.name) in NORMAL


@pytest.mark.parametrize("old", State)
@pytest.mark.parametrize("new", State)
def test_every_pair_is_allowed_or_refused_as_the_standard_says(old, new):
    assert (new in ALLOWED[old]) == expected(old, new)
    seen = []
    machine = StateMachine(lambda *change: seen.append(change), start=old)
    if expected(old, new):
        machine.to(new, "test")
        assert machine.state is new
        assert seen == [(old, new, "test")]
    else:
        with pytest.raises(StateError, match=f"{old.name} to {new.name}"):
            machine.to(new, "test")
        assert machine.state is old
        assert seen == []


def test_there_are_17_states_with_the_numbers_of_the_record():
    assert len(State) == 17
    assert {s.value: s.name for s in State} == {n: t for n, t in STATES.items() if n}


def test_acting_states_are_those_named_ing():
    assert {s.name for s in ACTING} == {
        "CLEARING", "STARTING", "STOPPING", "ABORTING", "HOLDING", "UNHOLDING", "SUSPENDING",
        "UNSUSPENDING", "RESETTING", "COMPLETING",
    }  # fmt: skip
    assert {State.EXECUTE} == BUSY - ACTING
    assert State.IDLE not in BUILDING
    assert State.COMPLETE not in BUILDING


def test_every_state_is_reached_and_left():
    reached = {new for news in ALLOWED.values() for new in news}
    assert reached == set(State)
    assert all(ALLOWED[s] for s in State)


def test_reset_never_restarts():
    """From ABORTED the shortest way to EXECUTE passes clear, reset and start: three commands."""
    assert ALLOWED[State.ABORTED] == {State.CLEARING}
    assert ALLOWED[State.CLEARING] == {State.STOPPED, State.ABORTING}
    assert State.STARTING not in ALLOWED[State.RESETTING]
    assert [s for s in State if State.STARTING in ALLOWED[s]] == [State.IDLE]


def test_stop_is_taken_wherever_the_standard_has_it():
    assert {s.name for s in COMMANDS["stop"]} == STOPPABLE
    assert COMMANDS["abort"] == set(State) - {State.ABORTING, State.ABORTED}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", State)
def test_commands_are_refused_outside_of_their_states(command, state):
    if state in COMMANDS[command]:
        require(command, state)
    else:
        with pytest.raises(StateError, match=f"{command} is not possible in state {state.name}"):
            require(command, state)


def test_unit_modes():
    assert [str(m) for m in UnitMode] == ["production", "development", "maintenance"]

"""Machine states: the 17 of PackML (ISA-TR88.00.02) and the transitions between them.

An acting state (its name ends in -ING) leaves by itself when its sequence is done; a
waiting state leaves by command. EXECUTE does both. The table is the whole truth: what is
not in ALLOWED raises.
"""

from collections.abc import Callable
from enum import IntEnum, StrEnum

from controller.errors import StateError


class State(IntEnum):
    """PackML states with the numbers of the OMAC PackTags."""

    CLEARING = 1
    STOPPED = 2
    STARTING = 3
    IDLE = 4
    SUSPENDED = 5
    EXECUTE = 6
    STOPPING = 7
    ABORTING = 8
    ABORTED = 9
    HOLDING = 10
    HELD = 11
    UNHOLDING = 12
    SUSPENDING = 13
    UNSUSPENDING = 14
    RESETTING = 15
    COMPLETING = 16
    COMPLETE = 17


class UnitMode(StrEnum):
    """What the cell is used for: what may deviate from the approved set."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"
    MAINTENANCE = "maintenance"


ACTING = frozenset(s for s in State if s.name.endswith("ING"))
# Leaving these never needs a command: an acting state, or the build itself.
BUSY = ACTING | {State.EXECUTE}
# A build is on its way: what the process needs is watched, and a record is open.
BUILDING = frozenset(
    {
        State.STARTING,
        State.EXECUTE,
        State.HOLDING,
        State.HELD,
        State.UNHOLDING,
        State.SUSPENDING,
        State.SUSPENDED,
        State.UNSUSPENDING,
        State.COMPLETING,
    }
)

_OWN: dict[State, set[State]] = {
    State.CLEARING: {State.STOPPED},
    State.STOPPED: {State.RESETTING},
    State.RESETTING: {State.IDLE},
    State.IDLE: {State.STARTING},
    State.STARTING: {State.EXECUTE},
    State.EXECUTE: {State.COMPLETING, State.HOLDING, State.SUSPENDING},
    State.HOLDING: {State.HELD},
    State.HELD: {State.UNHOLDING},
    State.UNHOLDING: {State.EXECUTE},
    State.SUSPENDING: {State.SUSPENDED},
    State.SUSPENDED: {State.UNSUSPENDING},
    State.UNSUSPENDING: {State.EXECUTE},
    State.COMPLETING: {State.COMPLETE},
    State.COMPLETE: {State.RESETTING},
    State.STOPPING: {State.STOPPED},
    State.ABORTING: {State.ABORTED},
    State.ABORTED: {State.CLEARING},
}
_NO_STOP = {State.STOPPED, State.STOPPING, State.CLEARING, State.ABORTING, State.ABORTED}
_NO_ABORT = {State.ABORTING, State.ABORTED}

ALLOWED: dict[State, frozenset[State]] = {
    state: frozenset(
        own
        | (set() if state in _NO_STOP else {State.STOPPING})
        | (set() if state in _NO_ABORT else {State.ABORTING})
    )
    for state, own in _OWN.items()
}

# command -> states in which it is taken; the executor checks its guards after that
COMMANDS: dict[str, frozenset[State]] = {
    "reset": frozenset({State.STOPPED, State.COMPLETE}),
    "home": frozenset({State.IDLE}),
    "start": frozenset({State.IDLE}),
    "hold": frozenset({State.EXECUTE, State.HOLDING, State.UNHOLDING}),
    "unhold": frozenset({State.HELD}),
    "stop": frozenset(s for s, to in ALLOWED.items() if State.STOPPING in to),
    "abort": frozenset(s for s, to in ALLOWED.items() if State.ABORTING in to),
    "clear": frozenset({State.ABORTED}),
}


def require(command: str, state: State) -> None:
    """Raise StateError when ``command`` is not taken in ``state``."""
    if state not in COMMANDS[command]:
        where = ", ".join(s.name for s in sorted(COMMANDS[command]))
        raise StateError(f"{command} is not possible in state {state.name}, only in {where}")


Listener = Callable[[State, State, str], None]


class StateMachine:
    """The present state; each change is told to the listener as old, new, cause."""

    def __init__(self, on_change: Listener, start: State = State.STOPPED) -> None:
        self.state = start
        self.cause = "power-up"
        self._on_change = on_change

    def to(self, new: State, cause: str) -> None:
        """Change state. Raises StateError for a transition that is not in the table."""
        old = self.state
        if new not in ALLOWED[old]:
            raise StateError(f"no transition from {old.name} to {new.name} (cause: {cause})")
        self.state = new
        self.cause = cause
        self._on_change(old, new, cause)

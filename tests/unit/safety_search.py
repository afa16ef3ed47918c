"""Exhaustive search of the machine with its interlocks, on the functions that the machine uses.

A place is (PackML state, armed, source enabled, what is wrong). Moves are the transitions of
``states.ALLOWED``, the commands of ``states.COMMANDS`` behind their guards, what can go wrong, and
the reaction to it: ``watch`` says which alarm, and an executor on a fake cell was asked once what
each severity does in each state. Invariant: no place with leave to emit has anything wrong once
the rule's time is over; leave to emit is never without arming and an enabled source.
"""

import asyncio
import functools
from collections import deque
from dataclasses import dataclass, replace

from controller.machine.alarm_table import BY_NAME, RANK, TABLE
from controller.machine.interlocks import RULES, Timers, watch
from controller.machine.interlocks.watching import CHAIN, link_blockers
from controller.machine.states import ALLOWED, BUILDING, COMMANDS, State
from controller.model import Severity
from tests.unit import test_interlocks, test_interlocks_fitted
from tests.unit.machine_fakes import Bench, run_virtual
from tests.unit.test_interlocks_fitted import FULL, SHIELDED, snap

NOW = 10_000_000
SETTLE_S = 6.0
# With these the gate may be open; everything that leads out of them shuts it.
MAY_EMIT = frozenset({State.EXECUTE, State.UNHOLDING})
LEAVES = frozenset({State.HOLDING, State.STOPPING, State.ABORTING, State.ABORTED, State.STOPPED})
# The axes rest while going on begins, which RESUME_FAILED ends after 2 s; and whoever goes on has
# looked at the melt pool: its 2 s count anew in EXECUTE.
ONLY_IN_EXECUTE = {"SELF_HOLD", "MOTION_STALLED", "PYROMETER_LOST"}


@dataclass(frozen=True)
class Wrong:
    """One interlock that is bad or stale: how a snapshot shows it, the alarm that tells of it."""

    name: str
    change: tuple[tuple[str, object], ...]
    limits: str  # "full" or "shielded"


def _freeze(change):
    return tuple(sorted((k, tuple(v.items()) if isinstance(v, dict) else v)
                        for k, v in change.items()))  # fmt: skip


def _thaw(change):
    return {k: dict(v) if isinstance(v, tuple) and v and isinstance(v[0], tuple) else v
            for k, v in change}  # fmt: skip


def _limits(kind: str):
    return SHIELDED if kind == "shielded" else FULL


@functools.cache
def wrongs() -> tuple[Wrong, ...]:
    """Everything that can be wrong, from the cases of the rules' own tests."""
    cases = [(n, c, lim.oxygen_limit_ppm) for n, c, _, lim in test_interlocks.CASES]
    cases += [(n, c, lim.oxygen_limit_ppm) for n, c, _, lim, _ in test_interlocks_fitted.CASES]
    return tuple(
        Wrong(n, _freeze(c), "full" if limit is None else "shielded") for n, c, limit in cases
    )


def _snap(wrong: Wrong, now_us: int, state: State):
    change = _thaw(wrong.change)
    lost = {role: None for role in ("oxygen",) if role in change and change[role] is None}
    for role in lost:
        del change[role]
    return replace(snap(now_us, state=state, **change), **lost)


def alarms_of(wrong: Wrong, state: State, rules=RULES) -> dict[str, float]:
    """What ``watch`` raises in this state while it stands: alarm -> seconds."""
    timers: Timers = Timers()
    lim = _limits(wrong.limits)
    watch(snap(NOW, state=state), lim, timers, rules)
    at: dict[str, float] = {}
    for tick in range(1, round(SETTLE_S * 10) + 1):
        raised, _ = watch(_snap(wrong, NOW + tick * 100_000, state), lim, timers, rules)
        for name, _ in raised:
            at[name] = tick * 0.1
    return at


def blocked(wrong: Wrong, chain=CHAIN) -> list[str]:
    """Reasons against an emission that a snapshot in IDLE shows."""
    s, lim = _snap(wrong, NOW, State.IDLE), _limits(wrong.limits)
    return [b.name for link in chain for b in link_blockers(link, s, lim)]


@functools.cache
def reactions() -> dict[tuple[State, Severity], tuple[State, tuple[str, ...]]]:
    """(state, severity) -> (state after it, what the motion link was told), by the executor."""
    found = {}
    names: dict[Severity, str] = {}
    for alarm in TABLE:
        names.setdefault(alarm.severity, alarm.name)

    def one(state: State, severity: Severity):
        async def main():
            b = Bench()
            await b.ex.connect()
            b.ex.machine.state = state
            b.log.clear()
            b.ex.raise_alarm(names[severity], "search")
            found[state, severity] = (b.ex.machine.state, tuple(what for _, what in b.log))
            await asyncio.sleep(0)  # the sequence begins
            b.ex.machine.state = State.STOPPED
            await b.end()

        run_virtual(main)

    for state in State:
        for severity in names:
            one(state, severity)
    return found


Place = tuple[State, bool, bool, Wrong | None]


def search(rules=RULES, chain=CHAIN) -> tuple[set[Place], list[str]]:
    """All reachable places, and every breach of the invariant."""
    told: dict[tuple[Wrong, State], dict[str, float]] = {}
    reason: dict[Wrong, list[str]] = {w: blocked(w, chain) for w in wrongs()}
    worst: dict[tuple[Wrong, State], Severity | None] = {}
    for wrong in wrongs():
        for state in State:
            alarms = told[wrong, state] = alarms_of(wrong, state, rules)
            severities = [BY_NAME[n].severity for n in alarms]
            worst[wrong, state] = max(severities, key=RANK.__getitem__, default=None)
    react = reactions()
    breaches: list[str] = []
    for wrong in wrongs():
        if wrong.name not in told[wrong, State.EXECUTE]:
            breaches.append(f"{wrong}: no alarm {wrong.name} in EXECUTE")
    start: Place = (State.STOPPED, False, False, None)
    seen, todo = {start}, deque([start])
    while todo:
        place = todo.popleft()
        for new in _moves(place, reason, told, worst, react, breaches):
            if new not in seen:
                seen.add(new)
                todo.append(new)
    return seen, sorted(set(breaches))


def _moves(place, reason, told, worst, react, breaches):
    state, armed, enabled, wrong = place
    if state in MAY_EMIT and not (armed and enabled) and state is State.EXECUTE:
        breaches.append(f"{place}: EXECUTE without arming or an enabled source")
    if wrong is not None:
        severity = worst[wrong, state]
        if severity is not None and severity is not Severity.NOTE:
            new, link = react[state, severity]
            if state in MAY_EMIT and (new in MAY_EMIT or not link):
                breaches.append(f"{wrong} in {state.name}: goes on, the link was told {link}")
            if new is not state:
                yield _after(new, armed, enabled, wrong)
                return  # the reaction comes before anything else
        elif (
            state in MAY_EMIT
            and BY_NAME[wrong.name].severity is not Severity.NOTE
            and (state is State.EXECUTE or wrong.name not in ONLY_IN_EXECUTE)
        ):
            breaches.append(f"{wrong} in {state.name}: nothing reacts")
        yield state, armed, enabled, None
    else:
        for new_wrong in wrongs():
            yield state, armed, enabled, new_wrong
    for new in ALLOWED[state]:
        if new in (State.STARTING, State.UNHOLDING, State.RESETTING, State.CLEARING):
            continue  # only by command
        yield _after(new, armed, enabled, wrong)
    for command, states in COMMANDS.items():
        if state not in states:
            continue
        if command in ("start", "unhold"):
            standing = wrong is not None and (reason[wrong] or told[wrong, state])
            if standing:
                continue
            yield (State.STARTING if command == "start" else State.UNHOLDING), armed, enabled, wrong
        elif command == "reset":
            yield State.RESETTING, False, False, wrong
        elif command == "clear":
            yield State.CLEARING, False, False, wrong


def _after(new: State, armed: bool, enabled: bool, wrong: Wrong | None) -> Place:
    """Arming and source as the sequences leave them."""
    if new is State.EXECUTE:
        return new, True, True, wrong
    if new not in BUILDING:
        return new, False, False, wrong
    return new, armed, enabled, wrong

"""The rows of all subjects together, and how they are applied."""

from dataclasses import dataclass, field

from controller.machine.alarm_table import BY_NAME, RANK
from controller.machine.interlocks import (
    rules_chamber,
    rules_laser,
    rules_motion,
    rules_powder,
    rules_safety,
)
from controller.machine.interlocks.limits import Limits, stale
from controller.machine.interlocks.rows import Link, Rule
from controller.machine.snapshot import Blocker, MachineSnapshot
from controller.machine.states import BUILDING, State

_SUBJECTS = (rules_safety, rules_motion, rules_laser, rules_powder, rules_chamber)


def _worst_first(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Of several alarms in one tick the worst becomes the first-out."""
    return tuple(sorted(rules, key=lambda r: -RANK[BY_NAME[r.alarm].severity]))


RULES: tuple[Rule, ...] = _worst_first(tuple(r for m in _SUBJECTS for r in m.RULES))

_LINKS = {link.name: link for m in _SUBJECTS for link in m.LINKS}
# From what no software can get round to what only the plan asks for.
CHAIN: tuple[Link, ...] = tuple(
    _LINKS[name]
    for name in (
        "safety", "room", "laser", "coolant", "head", "motion", "drives", "chamber", "heater",
        "powder", "powder_line", "gas", "pyrometer", "oxygen",
    )
)  # fmt: skip
assert len(CHAIN) == len(_LINKS)


def link_blockers(link: Link, s: MachineSnapshot, lim: Limits) -> tuple[Blocker, ...]:
    """What is not well with one link; () where the cell does not have it."""
    if not link.fitted(lim):
        return ()
    first = link.silence
    if first is not None and first.test(s, lim):
        return (Blocker(first.name, first.tell(s, lim)),)
    return tuple(Blocker(b.name, b.tell(s, lim)) for b in link.blocks if b.test(s, lim))


def emission_blockers(s: MachineSnapshot, lim: Limits) -> tuple[Blocker, ...]:
    """Every reason why the laser may not be enabled now; empty means permitted."""
    return tuple(b for link in CHAIN for b in link_blockers(link, s, lim))


@dataclass(slots=True)
class Timers:
    """What ``watch`` remembers between ticks: how long each test has been true."""

    held_us: dict[str, int] = field(default_factory=dict)
    active: dict[str, bool] = field(default_factory=dict)
    last_us: int = -1


def watch(
    s: MachineSnapshot, lim: Limits, timers: Timers, rules: tuple[Rule, ...] = RULES
) -> tuple[list[tuple[str, str]], list[str]]:
    """Apply the rules: (alarms to raise with their detail, alarms to clear).

    A reading is up to one poll period old when it is judged, and a HOLD may wait for the end
    of the track: delays are shorter than the fault table's times by both.
    """
    raised: list[tuple[str, str]] = []
    cleared: list[str] = []
    step_us = max(0, s.now_us - timers.last_us) if timers.last_us >= 0 else 0
    timers.last_us = s.now_us
    if not s.online:
        return raised, cleared
    building = s.state in BUILDING
    ending = s.state in (State.STOPPING, State.ABORTING)
    held, active = timers.held_us, timers.active
    for rule in rules:
        name = rule.alarm
        if not (building or rule.always or (ending and rule.ending)):
            held.pop(name, None)
            if name in active and not _stands(rule, s, lim) and _may_clear(rule, s, lim):
                del active[name]
                cleared.append(name)
            continue
        bad = rule.test(s, lim)
        if bad:
            if name not in active:
                # counted from the first bad snapshot, not from the one before it
                since = held[name] = held[name] + step_us if name in held else 0
                if since >= rule.delay_us:
                    active[name] = True
                    raised.append((name, rule.say(s, lim)))
        elif bad is False:
            if name in held:
                del held[name]
            if name in active and _may_clear(rule, s, lim):
                del active[name]
                cleared.append(name)
    return raised, cleared


def _stands(rule: Rule, s: MachineSnapshot, lim: Limits) -> bool:
    """Whether a cause that was seen must be taken to be there still: stale values clear none."""
    bad = rule.test(s, lim)
    return (bad is None and rule.reads in lim.age_us and stale(s, lim, rule.reads)) or bool(bad)


def _may_clear(rule: Rule, s: MachineSnapshot, lim: Limits) -> bool:
    return rule.clear is None or bool(rule.clear(s, lim))


def rules_for(lim: Limits) -> tuple[Rule, ...]:
    """The rules of what a cell has: those of devices that it lacks can never be true."""
    return tuple(r for r in RULES if not r.reads or r.reads in lim.age_us)

"""Why can it not fire: the chain from the hardware to the plan, link by link.

Each link is ok, not ok or unknown (its values are stale: nothing may be believed), or not
fitted. The order is that of who can cut the beam: hardware first, the plan last.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from controller.machine.interlocks import CHAIN, Limits, link_blockers
from controller.machine.snapshot import Blocker, MachineSnapshot
from controller.machine.states import State, UnitMode


class Holds(StrEnum):
    """What is known of a link."""

    OK = "ok"
    NOT_OK = "not ok"
    UNKNOWN = "unknown"
    NOT_FITTED = "not fitted"


@dataclass(frozen=True, slots=True)
class Rung:
    """One link as it is now, with every reason why it does not hold."""

    name: str
    title: str
    holds: Holds
    reasons: tuple[Blocker, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Plain data for clients."""
        reasons = [{"name": b.name, "text": b.text} for b in self.reasons]
        return {
            "link": self.name,
            "title": self.title,
            "holds": str(self.holds),
            "reasons": reasons,
        }


_READY = (State.IDLE, State.EXECUTE, State.STARTING, State.UNHOLDING, State.COMPLETING)


def why_not(
    snap: MachineSnapshot,
    lim: Limits,
    alarms: Iterable[str],
    plan: Iterable[Blocker],
) -> tuple[Rung, ...]:
    """The whole chain.

    ``alarms``: names of alarms whose cause stands. ``plan``: what preflight says beyond the
    chain (job, recipe, approval, calibrations); names that the chain has told are left out.
    """
    rungs: list[Rung] = []
    told: set[str] = set()
    for link in CHAIN:
        if not link.fitted(lim):
            rungs.append(Rung(link.name, link.title, Holds.NOT_FITTED))
            continue
        reasons = link_blockers(link, snap, lim)
        told.update(b.name for b in reasons)
        silent = link.silence is not None and any(b.name == link.silence.name for b in reasons)
        holds = Holds.UNKNOWN if silent else Holds.NOT_OK if reasons else Holds.OK
        rungs.append(Rung(link.name, link.title, holds, reasons))
    standing = tuple(Blocker(name, f"alarm {name} is present") for name in alarms)
    rungs.append(_rung("alarms", "alarms", standing))
    rungs.append(_rung("machine", "machine state", _state(snap)))
    rest = tuple(b for b in plan if b.name not in told and b.name not in ("ALARM", "MODE"))
    rungs.append(_rung("plan", "job, approval, calibration", rest))
    return tuple(rungs)


def _rung(name: str, title: str, reasons: tuple[Blocker, ...]) -> Rung:
    return Rung(name, title, Holds.NOT_OK if reasons else Holds.OK, reasons)


def _state(snap: MachineSnapshot) -> tuple[Blocker, ...]:
    found = []
    if snap.state not in _READY:
        found.append(Blocker("STATE", f"the machine is {snap.state.name}"))
    if snap.mode is UnitMode.MAINTENANCE:
        found.append(Blocker("MODE", "the unit mode is maintenance"))
    return tuple(found)


def first_cause(rungs: Iterable[Rung]) -> Rung | None:
    """The first link that does not hold: what to look at; None when all hold."""
    return next((r for r in rungs if r.holds in (Holds.NOT_OK, Holds.UNKNOWN)), None)

"""The two kinds of row: when an alarm is raised, and why the laser may not be enabled.

Both are data. What an alarm says, how bad it is and what to do stands in the alarm's own row
(``controller/machine/alarm_table.py``), joined by its name.
"""

from collections.abc import Callable
from dataclasses import dataclass

from controller.machine.interlocks.limits import Limits, stale
from controller.machine.snapshot import MachineSnapshot

# True: bad; False: good; None: this snapshot proves nothing
Test = Callable[[MachineSnapshot, Limits], bool | None]
Say = Callable[[MachineSnapshot, Limits], str]


def silent(s: MachineSnapshot, lim: Limits) -> str:
    """Nothing to add to the alarm's own text."""
    return ""


@dataclass(frozen=True, slots=True)
class Rule:
    """When an alarm is raised: ``test`` true for ``delay_us``.

    ``test`` returns True (bad), False (good) or None (this snapshot proves nothing: the
    time that was counted stays). Out of its states a rule raises nothing, but an alarm
    that is present stays so while its test is still true.

    ``within_s`` is the fault table's longest time from onset to reaction: reading, delay and
    wait for the end of the track together. It clears when ``test`` is False and ``clear``,
    where there is one, is true: a limit with a distance to come back by.
    """

    alarm: str
    delay_us: int
    test: Test
    within_s: float
    reads: str = ""  # role whose reading shows it; "": the motion controller or the host
    always: bool = False  # False: only while a build is on its way
    ending: bool = False  # and while it is being stopped: the cause may be read after its effect
    say: Say = silent
    clear: Test | None = None
    clears: str = "when its cause is gone"  # in words, for the operator


@dataclass(frozen=True, slots=True)
class Block:
    """A reason why the laser may not be enabled; ``text`` as a sentence or made of values."""

    name: str
    test: Test
    text: str | Say

    def tell(self, s: MachineSnapshot, lim: Limits) -> str:
        """The reason in words."""
        return self.text if isinstance(self.text, str) else self.text(s, lim)


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the chain from the hardware to the plan: what must be well for it to hold.

    ``silence`` comes first: where it is true the blocks behind it are not known.
    """

    name: str
    title: str
    silence: Block | None
    blocks: tuple[Block, ...]
    role: str = ""  # of a device that only some cells have

    def fitted(self, lim: Limits) -> bool:
        """Whether the cell has what this link speaks of."""
        return not self.role or self.role in lim.age_us


def silence(role: str, text: str, name: str = "") -> Block:
    """The block of stale values of a role."""
    return Block(name or f"{role.upper()}_SILENT", lambda s, lim: stale(s, lim, role), text)


def fresh(role: str, test: Test) -> Test:
    """``test`` on fresh values: nothing is proven by old ones, nor by a device not fitted."""

    def judged(s: MachineSnapshot, lim: Limits) -> bool | None:
        if role not in lim.age_us:
            return False
        return None if stale(s, lim, role) else test(s, lim)

    return judged


def gone(role: str) -> Test:
    """Values of a role are stale; False where the cell has no such device."""

    def judged(s: MachineSnapshot, lim: Limits) -> bool | None:
        return role in lim.age_us and stale(s, lim, role)

    return judged

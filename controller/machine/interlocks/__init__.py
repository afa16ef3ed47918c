"""Interlocks: pure functions of one MachineSnapshot, applied from rows of data.

``emission_blockers`` says why the laser may not be enabled now. ``watch`` applies the
rules of the fault table with their times and says which alarms to raise and to clear.
The hardware safety chain is the safety; these rules mirror it and act earlier.

``limits`` what is compared with; ``rows`` what a row is; ``rules_*`` the rows by subject;
``watching`` applies them. A new rule is a row there and one in ``alarm_table.py``.
"""

from controller.machine.interlocks.limits import OPTIONAL, Limits, link_stale, stale
from controller.machine.interlocks.rows import Block, Link, Rule
from controller.machine.interlocks.watching import (
    CHAIN,
    RULES,
    Timers,
    emission_blockers,
    link_blockers,
    rules_for,
    watch,
)

__all__ = [
    "CHAIN", "OPTIONAL", "RULES", "Block", "Limits", "Link", "Rule", "Timers",
    "emission_blockers", "link_blockers", "link_stale", "rules_for", "stale", "watch",
]  # fmt: skip

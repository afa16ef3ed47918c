"""Rules on the hardware safety chain, as its PLC mirrors it."""

from controller.machine.interlocks.limits import Limits, stale
from controller.machine.interlocks.rows import Block, Link, Rule, fresh, gone, silence
from controller.machine.snapshot import MachineSnapshot


def _chain(s: MachineSnapshot, lim: Limits) -> bool | None:
    motion_open = s.motion is not None and not s.motion.interlock_ok
    if stale(s, lim, "safety"):
        return motion_open or None
    return not s.safety.interlock_ok or motion_open


RULES: tuple[Rule, ...] = (
    Rule("ESTOP", 0, fresh("safety", lambda s, lim: not s.safety.estop_ok), 0.1, reads="safety",
         always=True, clears="when the button is released"),
    Rule("DOOR_OPEN", 0, fresh("safety", lambda s, lim: not s.safety.door_closed), 0.1,
         reads="safety", ending=True, clears="when the door is closed"),
    Rule("CHAIN_OPEN", 0, _chain, 0.1, reads="safety", ending=True,
         clears="when the chain is closed and was reset"),
    Rule("SAFETY_SILENT", 0, gone("safety"), 0.7, reads="safety"),
    Rule("SAFETY_WATCHDOG", 0, fresh("safety", lambda s, lim: not s.safety.watchdog_ok), 0.5,
         reads="safety"),
)  # fmt: skip

LINKS: tuple[Link, ...] = (
    Link(
        "safety", "hardware safety chain",
        silence("safety", "the safety PLC's values are stale"),
        (
            Block("ESTOP", lambda s, lim: not s.safety.estop_ok, "an emergency stop is pressed"),
            Block("DOOR_OPEN", lambda s, lim: not s.safety.door_closed, "the door is open"),
            Block("CHAIN_OPEN", lambda s, lim: not s.safety.interlock_ok,
                  "the hardware interlock chain is open"),
            Block("CHAIN_RESET", lambda s, lim: s.safety.reset_needed,
                  "the safety chain waits for its reset button"),
            Block("SAFETY_WATCHDOG", lambda s, lim: not s.safety.watchdog_ok,
                  "the safety PLC reports an error"),
            Block("SUPPLY_RELAY", lambda s, lim: not s.safety.supply_relay_on,
                  "the laser's supply relay is off"),
        ),
    ),
)  # fmt: skip

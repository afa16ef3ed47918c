"""A power-up of the cell voids the door-circuit test, whether or not a person notes it.

The motion controller draws a number at power-up and tells it in its handshake. One that was not
noted before is a power-up. A link without such a number cannot tell: then every start of the
server counts as one. Simulated cells are powered up with every start and are let off.
"""

from collections.abc import Callable, Mapping
from typing import Any

from controller.commissioning.store import Store
from controller.config import Cell
from controller.errors import CommissioningError
from controller.machine.snapshot import Blocker

BY = "server"


class BootWatch:
    """Looks at each handshake once; a power-up is noted in the store as maintenance.

    ``identity`` gives the link's newest LinkIdentity or None, ``now_s`` the calendar's time.
    """

    def __init__(
        self,
        identity: Callable[[], Any],
        store: Store,
        cell: Cell,
        now_s: Callable[[], float],
        tell: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._identity, self._store, self._cell = identity, store, cell
        self._now_s, self._tell = now_s, tell
        self._seen: Any = None
        self._problem = ""

    def tick(self) -> None:
        """Called each control tick."""
        identity = self._identity()
        if identity is None or identity is self._seen:
            return
        first, self._seen = self._seen is None, identity
        nonce = getattr(identity, "boot_nonce", 0)
        if not nonce and not first:
            return
        try:
            noted = self._note(nonce)
        except CommissioningError as exc:
            self._problem = f"the power-up could not be noted: {exc}"
            noted = self._problem
        if noted:
            self._tell("log", {"level": "warning", "text": noted})

    def _note(self, nonce: int) -> str:
        """Note a power-up that is not noted yet; what to say of it, "" for nothing."""
        notes = f"boot {nonce:08x} of the motion controller" if nonce else "start of the server"
        own = [m for m in self._store.maintenance() if m.what == "power_up" and m.by == BY]
        if nonce and own and own[-1].notes == notes:
            return ""
        # never before the test that it voids, whatever the calendar was set to
        last = self._store.last("door", "cell")
        at_s = max(self._now_s(), last.done_s if last is not None else 0.0)
        self._store.note("power_up", self._cell.name, at_s, BY, notes)
        return f"power-up noted ({notes}): the door circuit is to be tested"

    def blockers(self) -> tuple[Blocker, ...]:
        """A power-up that could not be noted forbids START all the same."""
        return (Blocker("CALIBRATION_DOOR", self._problem),) if self._problem else ()

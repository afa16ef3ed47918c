"""Raycus continuous fibre laser, ASCII (docs/reference/device-protocols.md, section 11).

The words and the enable logic are those of section 2; the status word, the refusal of an
unknown word and the missing start-up bit are Raycus's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hil_sim.devices import laser_ipg as ipg

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler
    from hil_sim.plant.world import World

ENABLED = 1 << 2
ANALOG = 1 << 4
AIMING = 1 << 8
READY = 1 << 9
PULSE_MODE = 1 << 10
SUPPLY_ON = 1 << 11
MODULATION = 1 << 12
EMITS = 1 << 15

# What the source finds wrong, as its own supervision counts it -> bit of Raycus's word
_FAULTS = (
    (ipg.OVERTEMPERATURE, 1 << 1),
    (ipg.BACK_REFLECTION, 1 << 3),
    (ipg.MODULE_DISCONNECTED, 1 << 6),
    (ipg.MODULE_FAILED, 1 << 29),
    (ipg.MODULE_DISABLED, 1 << 29),
    (ipg.COLLIMATOR_DISCONNECTED, 1 << 29),
    (ipg.INTERLOCK_OPEN, 1 << 30),
)


class LaserRaycus(ipg.LaserIpg):
    """Fault hooks as the IPG's, and `pulse_mode` (bit 10, QCW)."""

    def __init__(self, sim: Scheduler, world: World) -> None:
        super().__init__(sim, world)
        self.pulse_mode = False

    def on_line(self, line: bytes) -> bytes:
        reply = super().on_line(line)
        return b"Command Err!\r" if reply.startswith(b"ERR") else reply

    def status(self) -> int:
        """Raycus's STA word at this instant."""
        standing = self._forbidding()
        bits = 0
        for found, bit in _FAULTS:
            if standing & found:
                bits |= bit
        if not standing:
            bits |= READY
        if not standing & ipg.SUPPLY_OFF:
            bits |= SUPPLY_ON
        for on, bit in (
            (self._emon and self._started, ENABLED),
            (self._analog, ANALOG),
            (self._aiming, AIMING),
            (self.pulse_mode, PULSE_MODE),
            (self._modulation, MODULATION),
            (self.world.emission_w > 0.0, EMITS),
        ):
            if on:
                bits |= bit
        return bits

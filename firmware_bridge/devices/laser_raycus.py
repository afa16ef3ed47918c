"""Raycus continuous fibre laser source, ASCII over serial (9600 8N1) or TCP (port 10001).

Source: Raycus user guides RFL-C3000XZ to C12000XZ (ports, commands, `Command Err!`) and
RFL-C2000S-HP to C6000S-HP (STA bits 0 to 15); bits 16 to 31 from RFL-QCW150/1500;
docs/reference/device-protocols.md section 11.
"""

from firmware_bridge.mnemonic_laser import MnemonicLaser, flag
from firmware_bridge.roles import LaserSource

ENABLED, READY, SUPPLY_ON, EMITS, INTERLOCK = 2, 9, 11, 15, 30


class RaycusLaser(MnemonicLaser, role=LaserSource):
    """IPG's words, other bits: 11 is supply ON, 10 is a pulse mode and no interlock."""

    FAULTS = {
        1: "OVERTEMPERATURE",
        3: "BACK_REFLECTION",
        6: "MODULE_DISCONNECTED",
        10: "PULSE_MODE",  # the analog power law holds in continuous mode only
        SUPPLY_ON: "SUPPLY_OFF",
        19: "SUPPLY_FAILED",
        24: "LOW_TEMPERATURE",
        26: "GROUND_LEAKAGE",
        29: "CRITICAL",
        INTERLOCK: "INTERLOCK",
    }
    INVERTED = (SUPPLY_ON,)

    enabled = flag(ENABLED)
    external_control = flag(4)
    gate_mode = flag(12)
    back_reflection = flag(3)
    starting = property(lambda self: False)  # the word has no bit for the start-up
    interlock_ok = property(lambda self: not self.status_bits >> INTERLOCK & 1)

    @property
    def emission_on(self) -> bool:
        """The meter sees light, or the source says that it emits."""
        return self.output_w is not None or self.status_bits >> EMITS & 1 == 1

    @property
    def unexpected_emission(self) -> bool:
        """Light while emission is not enabled: the word has no bit for it."""
        return self.emission_on and not self.enabled

    @property
    def ready(self) -> bool:
        """No fault stands and the source says ready."""
        return not self.fault_bits and self.status_bits >> READY & 1 == 1

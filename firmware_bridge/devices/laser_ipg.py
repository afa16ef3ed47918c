"""IPG YLR/YLS fibre laser source, ASCII over TCP (port 10001) or serial (57600 8N1).

Source: commands and status bits of the IPG YLR-200-SM-CS manual as used in
rojasj84/Gocharov-Laser-Heating; docs/reference/device-protocols.md section 2. Other
families number the bits differently (Raycus bit 11 is the opposite): one decoder a model.
"""

from firmware_bridge.mnemonic_laser import MnemonicLaser, flag
from firmware_bridge.roles import LaserSource

BACK_REFLECTION, INTERLOCK, UNEXPECTED = 3, 10, 17
KEY_REMOTE = 21


class IpgLaser(MnemonicLaser, role=LaserSource):
    """The source of section 2; the port's text decides between TCP and a serial line."""

    FAULTS = {
        1: "OVERTEMPERATURE",
        BACK_REFLECTION: "BACK_REFLECTION",
        6: "MODULE_DISCONNECTED",
        7: "MODULE_FAILED",
        INTERLOCK: "INTERLOCK",
        11: "SUPPLY_OFF",
        UNEXPECTED: "UNEXPECTED_EMISSION",
        29: "MODULE_DISABLED",
        30: "COLLIMATOR_DISCONNECTED",
    }
    enabled = flag(2)
    starting = flag(15)
    external_control = flag(4)
    gate_mode = flag(12)
    back_reflection = flag(BACK_REFLECTION)
    unexpected_emission = flag(UNEXPECTED)
    interlock_ok = property(lambda self: not self.status_bits >> INTERLOCK & 1)
    emission_on = property(lambda self: self.output_w is not None)

    @property
    def ready(self) -> bool:
        """No fault stands and the key switch is in remote."""
        return not self.fault_bits and self.status_bits >> KEY_REMOTE & 1 == 1

"""IPG YLR/YLS fibre laser source, ASCII over TCP (port 10001) or serial (57600 8N1).

Source: commands and status bits of the IPG YLR-200-SM-CS manual as used in
rojasj84/Gocharov-Laser-Heating; docs/reference/device-protocols.md section 2. Other
families number the bits differently (Raycus bit 11 is the opposite): one decoder a model.
"""

from firmware_bridge.ascii_device import Action, AsciiDevice, Query
from firmware_bridge.roles import LaserSource

EMISSION, ANALOG, GATE_MODE, STARTING, KEY_REMOTE = 2, 4, 12, 15, 21
BACK_REFLECTION, INTERLOCK, UNEXPECTED = 3, 10, 17
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
FAULT_MASK = sum(1 << bit for bit in FAULTS)


def _power(text: str) -> float | None:
    """ROP: watts; 0 for Low (emission under the meter's range); None for Off."""
    return None if text == "Off" else 0.0 if text == "Low" else float(text)


def _flag(bit: int) -> property:
    return property(lambda self: self.status_bits >> bit & 1 == 1)


class IpgLaser(AsciiDevice, role=LaserSource):
    """Power by the analog input, light by the gate input: this link only enables."""

    probe = ("RFV", r"RFV: ?.+")
    status_bits = Query(("STA", r"STA: ?(\d{1,10})"), convert=int, bounds=(0, 0xFFFFFFFF))
    output_w = Query(("ROP", r"ROP: ?(Off|Low|\d{1,6}(?:\.\d{1,3})?)"), convert=_power)
    temp_deg_c = Query(
        ("RCT", r"RCT: ?(-?\d{1,3}(?:\.\d{1,2})?)"), convert=float, bounds=(-40, 150), every=20
    )
    stop = Action("EMOFF", safe=True)
    start = Action("EMON", safe=False)
    external_power = Action("EEC", safe=False)
    gate_by_input = Action("EMOD", safe=False)
    reset = Action("RERR", safe=False)

    enabled = _flag(EMISSION)
    starting = _flag(STARTING)
    external_control = _flag(ANALOG)
    gate_mode = _flag(GATE_MODE)
    back_reflection = _flag(BACK_REFLECTION)
    unexpected_emission = _flag(UNEXPECTED)
    interlock_ok = property(lambda self: not self.status_bits >> INTERLOCK & 1)
    fault_bits = property(lambda self: self.status_bits & FAULT_MASK)
    emission_on = property(lambda self: self.output_w is not None)
    power_measured_w = property(lambda self: self.output_w or 0.0)

    @property
    def faults(self) -> tuple[str, ...]:
        """Names of the faults that stand."""
        bits = self.fault_bits
        return tuple([name for bit, name in FAULTS.items() if bits >> bit & 1]) if bits else ()

    @property
    def ready(self) -> bool:
        """No fault stands and the key switch is in remote."""
        return not self.fault_bits and self.status_bits >> KEY_REMOTE & 1 == 1

    async def emission_enable(self) -> None:
        """External power, gate by input, emission; ``enabled`` follows after about 3 s."""
        since = self.n_urgent
        for action in (IpgLaser.external_power, IpgLaser.gate_by_input, IpgLaser.start):
            await self.do(action, since=since)

    async def emission_disable(self) -> None:
        """End emission at once."""
        await self.do(IpgLaser.stop)

    async def reset_errors(self) -> None:
        """Reset latched errors whose cause is gone."""
        await self.do(IpgLaser.reset)

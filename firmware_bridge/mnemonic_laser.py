"""Fibre laser sources that speak IPG's mnemonics (STA, ROP, EMON ...): what they share.

The words are the same from maker to maker, the bits of STA are not (IPG bit 11 is supply off,
Raycus bit 11 is supply on): each driver declares its own bits and what it makes of them.
"""

from typing import ClassVar

from firmware_bridge.ascii_device import Action, AsciiDevice, Query


def _power(text: str) -> float | None:
    """ROP: watts; 0 for Low (emission under the meter's range); None for Off."""
    return None if text == "Off" else 0.0 if text == "Low" else float(text)


def flag(bit: int) -> property:
    """A bit of the status word."""
    return property(lambda self: self.status_bits >> bit & 1 == 1)


class MnemonicLaser(AsciiDevice):
    """Power by the analog input, light by the gate input: this link only enables.

    ``FAULTS``: names by bit of the status word. ``INVERTED``: those of them that stand while
    the bit is 0.
    """

    FAULTS: ClassVar[dict[int, str]] = {}
    INVERTED: ClassVar[tuple[int, ...]] = ()

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

    power_measured_w = property(lambda self: self.output_w or 0.0)

    @property
    def fault_bits(self) -> int:
        """Bits of the faults that stand, 1 at each."""
        flip = sum(1 << bit for bit in self.INVERTED)
        return (self.status_bits ^ flip) & sum(1 << bit for bit in self.FAULTS)

    @property
    def faults(self) -> tuple[str, ...]:
        """Names of the faults that stand."""
        bits = self.fault_bits
        return tuple([n for bit, n in self.FAULTS.items() if bits >> bit & 1]) if bits else ()

    async def emission_enable(self) -> None:
        """External power, gate by input, emission; ``enabled`` follows after the start-up."""
        since = self.n_urgent
        for action in (self.actions[n] for n in ("external_power", "gate_by_input", "start")):
            await self.do(action, since=since)

    async def emission_disable(self) -> None:
        """End emission at once."""
        await self.do(self.actions["stop"])

    async def reset_errors(self) -> None:
        """Reset latched errors whose cause is gone."""
        await self.do(self.actions["reset"])

"""grblHAL in laser mode ($32=1): M4 once, power as S of each G1, travel by G0.

Under M4 the controller scales power by speed over feed, down to zero. A change of M3, M4 or M5
stops motion, so the gate is S above 0 in a G1 and shut by S0 and in G0. S counts from 0 to $30
at rated power. This is also what the grblHAL link streams, without comments.
"""

from controller.export.base import Note, Wish
from controller.export.blocks import Block, Source
from controller.export.gcode import GCode
from controller.export.program import fixed


class GrblHal(GCode):
    """grblHAL 1.1f."""

    name = "grblhal"
    title = "GRBLHAL"
    suffix = ".nc"
    decimals = 3
    longest_line = 80
    longest_name = 32
    ramps = True
    powder = False
    rapid_travel = True
    feed_decimals = 1

    def __init__(self, source: Source, wish: Wish) -> None:
        super().__init__(source, wish)
        self._state["S"] = "S0"  # the head says so

    def move(self, block: Block, before: Block | None) -> None:
        """S in the move's own block."""
        share = block.power_w / self.cell.laser.rated_power_w if block.gate else 0.0
        text = "S" + (fixed(share * self.wish.s_max, 1) if block.gate else "0")
        self.motion(block, (text,) if self.changed("S", text) else ())

    def dwell(self, block: Block) -> None:
        """Standing still; S is 0."""
        if block.dwell_s > 0.0:
            self.line(f"G4 P{fixed(block.dwell_s, 3)}")

    def layer_call(self, layer: int) -> None:
        """Waits for cycle start."""
        self.line("M0")

    def own_notes(self) -> list[Note]:
        """The M4 law, and buffered blocks."""
        beads = self.source.path.beads
        notes = [
            Note(
                "buffer",
                "blocks that the controller has buffered are executed, with light, "
                "after the sender died",
            )
        ]
        if (beads["floor_w"] > 0.0).any():
            notes.append(
                Note(
                    "power_floor",
                    f"under M4 power falls to 0 W with speed, the floor "
                    f"of {float(beads['floor_w'].max()):g} W is not kept",
                )
            )
        if (beads["power_exponent"] != 1.0).any():
            notes.append(Note("power_law", "under M4 power is linear in speed; the recipe asks "
                              "for another exponent"))  # fmt: skip
        return notes

    def facts(self) -> dict[str, object]:
        """S scale."""
        return {"s_max": self.wish.s_max}

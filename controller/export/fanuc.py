"""Fanuc style: gate by two M codes of the machine's builder, power as S in W.

M210 opens, M211 shuts, each in the block of the move that it goes with. Powder and gas go by
macro 9011 (A channel: 1, 2 hoppers g/min, 3 carrier, 4 shield L/min, 5 diverter; B value), a
layer's start calls macro 9010 (A layer). Codes and macros are the integrator's to provide.
"""

import hashlib

from controller.export.base import Note
from controller.export.blocks import Block, Command
from controller.export.gcode import GCode
from controller.export.program import fixed, legal_name
from controller.planning.path.motion_path import Role

MOST_LINES = 99999  # N has five digits


class Fanuc(GCode):
    """Series 0i, 30i and alike."""

    name = "fanuc"
    title = "FANUC"
    suffix = ".nc"
    decimals = 3  # least input increment IS-B
    longest_line = 80
    longest_name = 24
    ramps = False
    powder = True

    def comment(self, text: str) -> str:
        """In brackets, capitals only."""
        return f"({text.upper()})"

    def line(self, words: str, *, gate: bool = False) -> None:
        """With its number, which begins anew after 99999."""
        self.lines.add(f"N{len(self.lines.text) % MOST_LINES + 1} {words}", gate=gate)

    def legal_name(self) -> str:
        """O and four digits, from the job's hash; 8000 and above are often protected."""
        told = str(self.plan.figures.get("hash", "")) or str(self.plan.part.get("name", ""))
        return f"O{int(hashlib.sha256(told.encode()).hexdigest()[:8], 16) % 7999 + 1:04d}"

    def move(self, block: Block, before: Block | None) -> None:
        """S before the gate opens, M in the move's block."""
        for command in block.commands:
            self._command(command)
        aim = block.gate or block.role == Role.RUN_UP
        power = f"S{round(block.power_w)}"
        more = []
        if aim and self.changed("power", power):
            more.append(power)
        if block.gate != (before is not None and before.gate):
            more.append("M210" if block.gate else "M211")
        self.motion(block, tuple(more))

    def dwell(self, block: Block) -> None:
        """Macros, then standing still."""
        for command in block.commands:
            self._command(command)
        if block.dwell_s > 0.0:
            self.line(f"G4 X{fixed(block.dwell_s, 3)}")

    def _command(self, command: Command) -> None:
        self.line(f"G65 P9011 A{int(command.channel) + 1 if command.channel < 4 else 5}. "
                  f"B{fixed(command.value, 3)}")  # fmt: skip
        self._state.pop("G", None)

    def layer_call(self, layer: int) -> None:
        """Macro 9010."""
        self.line(f"G65 P9010 A{layer}.")
        self._state.pop("G", None)

    def facts(self) -> dict[str, object]:
        """The part's name beside the number."""
        return {"part": legal_name(str(self.plan.part.get("name", "part")), self.longest_name)}

    def own_notes(self) -> list[Note]:
        """M codes are no fast outputs."""
        return [
            self.law_note(),
            Note(
                "gate_timing",
                "M codes are acknowledged by the PLC: the gate lies later by its "
                "cycle, and the control may slow down at the end of the block",
            ),
        ]

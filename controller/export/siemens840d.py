"""SINUMERIK 840D style: outputs by non-modal synchronized actions, with the next block.

A line ``DO ...`` without ID holds for the block that follows and is executed in the
interpolation cycle from that block's start, without stopping the look-ahead (Programming Manual
Job planning, Motion-synchronous actions). $A_OUT[1] is the gate, [2] the diverter; $A_OUTA[1]
power in W, [2] and [3] hoppers in g/min, [4] carrier and [5] shield gas in L/min, each output
weighted so in the machine data. N is the line's number.
"""

from controller.export.base import Note, channel_index
from controller.export.blocks import Block, Command
from controller.export.gcode import GCode
from controller.export.program import fixed
from controller.model import PowderChannel
from controller.planning.path.motion_path import Role


class Siemens840D(GCode):
    """840D powerline and sl, ONE in ISO-free (Siemens) mode."""

    name = "siemens840d"
    title = "SINUMERIK 840D"
    suffix = ".mpf"
    decimals = 4
    longest_line = 242
    longest_name = 24
    ramps = True
    powder = True

    def comment(self, text: str) -> str:
        """After a semicolon."""
        return f"; {text}"

    def line(self, words: str, *, gate: bool = False) -> None:
        """With its number."""
        self.lines.add(f"N{len(self.lines.text) + 1} {words}", gate=gate)

    def move(self, block: Block, before: Block | None) -> None:
        """One DO for all that changes, then the move."""
        actions = [self._action(c) for c in block.commands]
        aim = block.gate or block.role == Role.RUN_UP
        power = fixed(block.power_w, 1)
        if aim and self.changed("power", power):
            actions.append(f"$A_OUTA[1]={power}")
        if block.gate != (before is not None and before.gate):
            actions.append(f"$A_OUT[1]={int(block.gate)}")
        if actions:
            self.line("DO " + " ".join(actions))
        self.motion(block)

    def dwell(self, block: Block) -> None:
        """Plain assignments, which stop the look-ahead; then standing still."""
        for command in block.commands:
            self.line(self._action(command))
        if block.dwell_s > 0.0:
            self.line(f"G4 F{fixed(block.dwell_s, 3)}")
            self._state.pop("F", None)

    @staticmethod
    def _action(command: Command) -> str:
        if command.channel == PowderChannel.DIVERTER:
            return f"$A_OUT[2]={int(command.value > 0.5)}"
        return f"$A_OUTA[{channel_index(command.channel) + 1}]={fixed(command.value, 3)}"

    def layer_call(self, layer: int) -> None:
        """A subprogram that the integrator has."""
        self.line(f"LMD_LAYER({layer})")

    def own_notes(self) -> list[Note]:
        """As told."""
        return [self.law_note()]

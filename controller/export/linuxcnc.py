"""LinuxCNC: gate by M62/M63, power and powder by M67, all taking effect with the next move.

Digital output 0 is the gate, 1 the diverter. Analog output 0 is power in W; 1 and 2 the hoppers
in g/min; 3 carrier and 4 shield gas in L/min. M64/M65/M68 act at once and break blending, so
they are used standing still only. (LinuxCNC's G-code reference, M62 to M68.)
"""

from controller.export.base import Note, channel_index
from controller.export.blocks import Block, Command
from controller.export.gcode import GCode
from controller.export.program import fixed
from controller.model import PowderChannel
from controller.planning.path.motion_path import Role


class LinuxCnc(GCode):
    """LinuxCNC 2.8 and later."""

    name = "linuxcnc"
    title = "LINUXCNC"
    suffix = ".ngc"
    decimals = 4
    longest_line = 255
    longest_name = 32
    ramps = True
    powder = True

    def move(self, block: Block, before: Block | None) -> None:
        """M62, M63 and M67 in lines of their own before the move that they go with."""
        for command in block.commands:
            self._command(command, moving=True)
        aim = block.gate or block.role == Role.RUN_UP
        power = fixed(block.power_w, 1)
        if aim and self.changed("power", power):
            self.line(f"M67 E0 Q{power}")
        if block.gate != (before is not None and before.gate):
            self.line("M62 P0" if block.gate else "M63 P0")
        self.motion(block)

    def dwell(self, block: Block) -> None:
        """M64, M65, M68 at once."""
        for command in block.commands:
            self._command(command, moving=False)
        if block.dwell_s > 0.0:
            self.line(f"G4 P{fixed(block.dwell_s, 3)}")

    def _command(self, command: Command, *, moving: bool) -> None:
        if command.channel == PowderChannel.DIVERTER:
            on = command.value > 0.5
            self.line(f"M{(62 if on else 63) if moving else (64 if on else 65)} P1")
        else:
            code = "M67" if moving else "M68"
            self.line(f"{code} E{channel_index(command.channel)} Q{fixed(command.value, 3)}")

    def layer_call(self, layer: int) -> None:
        """A subroutine that the integrator has."""
        self.line(f"o<lmd_layer> call [{layer}]")

    def own_notes(self) -> list[Note]:
        """As told."""
        return [self.law_note()]

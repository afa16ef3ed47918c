"""KUKA KRL: TRIGGER WHEN DISTANCE=0 switches outputs at the start of the motion that follows.

$OUT[1] is the gate, [2] the diverter; $ANOUT[1] power as a share of rated power, [2] and [3]
hoppers as shares of the greatest flow, [4] carrier and [5] shield gas likewise. BASE_DATA[1] and
TOOL_DATA[1] are the integrator's; orientation stays as it is at the start.
"""

from typing import Any

from controller.errors import PlanError
from controller.export.base import Dialect, Note, channel_index
from controller.export.blocks import Block, Command
from controller.export.program import fixed
from controller.model import PowderChannel
from controller.planning.path.motion_path import Role

MOST_TRIGGERS = 8


class Kuka(Dialect):
    """KSS 8."""

    name = "kuka"
    title = "KUKA KRL"
    suffix = ".src"
    decimals = 3
    longest_line = 140
    longest_name = 24
    ramps = False
    powder = True
    arcs_3d = True
    decimals_feed = False
    first_lift = False
    line_end = "\r\n"

    def comment(self, text: str) -> str:
        """After a semicolon."""
        return f"; {text}"

    def move(self, block: Block, before: Block | None) -> None:
        """Speed, triggers, motion."""
        speed = fixed(block.speed_mm_s * 1e-3, 6)
        if self._state.get("speed") != speed:
            self._state["speed"] = speed
            self.lines.add(f"$VEL.CP={speed}")
        actions = [self._action(c) for c in block.commands]
        aim = block.gate or block.role == Role.RUN_UP
        power = fixed(block.power_w / self.cell.laser.rated_power_w, 5)
        if aim and self._state.get("power") != power:
            self._state["power"] = power
            actions.append(f"$ANOUT[1]={power}")
        if block.gate != (before is not None and before.gate):
            actions.append(f"$OUT[1]={str(block.gate).upper()}")
        if len(actions) > MOST_TRIGGERS:
            raise PlanError(f"kuka: {len(actions)} outputs change at one place in track "
                            f"{block.track}, at most {MOST_TRIGGERS}")  # fmt: skip
        for action in actions:
            self.lines.add(f"TRIGGER WHEN DISTANCE=0 DELAY=0 DO {action}")
        way = self._place(block.end_mm)
        if block.arc is None:
            self.lines.add(f"LIN {way} C_DIS", gate=block.gate)
        else:
            self.lines.add(f"CIRC {self._place(block.arc.middle_mm)},{way} C_DIS", gate=block.gate)

    def _place(self, place: Any) -> str:
        words = (f"{k} {fixed(float(v), self.decimals)}" for k, v in zip("XYZ", place, strict=True))
        return "{" + ",".join(words) + "}"

    def _action(self, command: Command) -> str:
        if command.channel == PowderChannel.DIVERTER:
            return f"$OUT[2]={str(command.value > 0.5).upper()}"
        gas = command.channel in (PowderChannel.CARRIER, PowderChannel.SHIELD)
        full = self.cell.gas.greatest_flow_l_min if gas else self.cell.powder.greatest_flow_g_min
        return f"$ANOUT[{channel_index(command.channel) + 1}]={fixed(command.value / full, 5)}"

    def dwell(self, block: Block) -> None:
        """At once, standing."""
        for command in block.commands:
            self.lines.add(self._action(command))
        if block.dwell_s > 0.0:
            self.lines.add(f"WAIT SEC {fixed(block.dwell_s, 3)}")

    def layer_call(self, layer: int) -> None:
        """A subprogram that the integrator has; WAIT SEC 0 stops the advance run."""
        self.lines.add("WAIT SEC 0")
        self.lines.add(f"LMD_LAYER({layer})")

    def own_notes(self) -> list[Note]:
        """Orientation is not the plan's."""
        return [
            self.law_note(),
            Note(
                "orientation",
                "tool orientation is the one at the start, reach and singularities are not checked",
            ),
        ]

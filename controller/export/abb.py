"""ABB RAPID: TriggL and TriggC switch outputs at the start of a move; data in the module.

Signals: doGate, doDivert; aoPower in W, aoHopper1, aoHopper2 in g/min, aoCarrier, aoShield in
L/min, scaled so in the system parameters. Tool tLmd and work object wLmd are the integrator's:
pZero holds the tool's orientation.
"""

from typing import Any

from controller.errors import PlanError
from controller.export.base import Dialect, Note
from controller.export.blocks import Block, Command
from controller.export.program import fixed
from controller.model import PowderChannel
from controller.planning.path.motion_path import Role

ANALOG = {
    PowderChannel.HOPPER_1: "aoHopper1",
    PowderChannel.HOPPER_2: "aoHopper2",
    PowderChannel.CARRIER: "aoCarrier",
    PowderChannel.SHIELD: "aoShield",
}
MOST_TRIGGERS = 8


class Abb(Dialect):
    """RobotWare 5 to 7."""

    name = "abb"
    title = "ABB RAPID"
    suffix = ".mod"
    decimals = 3
    longest_line = 250
    longest_name = 32
    ramps = False
    powder = True
    arcs_3d = True
    decimals_feed = False
    first_lift = False

    def comment(self, text: str) -> str:
        """After an exclamation mark."""
        return f"! {text}"

    def move(self, block: Block, before: Block | None) -> None:
        """Triggers that change are set up, then the move names them."""
        triggers = []
        for command in block.commands:
            triggers.append(self._powder_trigger(command))
        aim = block.gate or block.role == Role.RUN_UP
        power = fixed(block.power_w, 1)
        if aim and self._state.get("power") != power:
            self._state["power"] = power
            self.lines.add(f"TriggIO trPower,0\\Start\\AOp:=aoPower,{power};")
            triggers.append("trPower")
        if block.gate != (before is not None and before.gate):
            triggers.append("trGateOn" if block.gate else "trGateOff")
        if len(triggers) > MOST_TRIGGERS:
            raise PlanError(f"abb: {len(triggers)} outputs change at one place in track "
                            f"{block.track}, at most {MOST_TRIGGERS}")  # fmt: skip
        told = "".join(t if k == 0 else f"\\T{k + 1}:={t}" for k, t in enumerate(triggers))
        speed = self._speeds[block.speed_mm_s]
        way = self._place(block.end_mm)
        code = "L"
        if block.arc is not None:
            way = f"{self._place(block.arc.middle_mm)},{way}"
            code = "C"
        start = f"Trigg{code} {way},{speed},{told}" if told else f"Move{code} {way},{speed}"
        self.lines.add(f"{start},zLmd,tLmd\\WObj:=wLmd;", gate=block.gate)

    def _place(self, place: Any) -> str:
        return "Offs(pZero," + ",".join(fixed(float(v), self.decimals) for v in place) + ")"

    def _powder_trigger(self, command: Command) -> str:
        if command.channel == PowderChannel.DIVERTER:
            return "trDivertOn" if command.value > 0.5 else "trDivertOff"
        signal = ANALOG[command.channel]
        self.lines.add(f"TriggIO tr{signal[2:]},0\\Start\\AOp:={signal},{fixed(command.value, 3)};")
        return f"tr{signal[2:]}"

    def dwell(self, block: Block) -> None:
        """At once, standing."""
        for command in block.commands:
            if command.channel == PowderChannel.DIVERTER:
                self.lines.add(f"SetDO doDivert,{int(command.value > 0.5)};")
            else:
                self.lines.add(f"SetAO {ANALOG[command.channel]},{fixed(command.value, 3)};")
        if block.dwell_s > 0.0:
            self.lines.add(f"WaitTime {fixed(block.dwell_s, 3)};")

    def layer_call(self, layer: int) -> None:
        """A procedure that the integrator has; the robot stands before it."""
        self.lines.add("WaitRob\\InPos;")
        self.lines.add(f"LmdLayer {layer};")

    @property
    def _speeds(self) -> dict[float, str]:
        if "speeds" not in self._state:
            speeds = sorted(set(self.source.path.speed_mm_s.tolist()))
            self._state["speeds"] = {v: f"vLmd{k + 1}" for k, v in enumerate(speeds)}
        return dict(self._state["speeds"])

    def facts(self) -> dict[str, Any]:
        """Speed data by name."""
        return {"speed_names": {name: fixed(v, 3) for v, name in self._speeds.items()}}

    def own_notes(self) -> list[Note]:
        """Orientation is not the plan's."""
        return [
            self.law_note(),
            Note(
                "orientation",
                "tool orientation is that of pZero, reach and singularities are not checked",
            ),
        ]

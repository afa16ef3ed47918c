"""What the machine knows at one instant: the guards and the console see this and no more."""

from dataclasses import dataclass
from typing import Any

from controller.machine.states import State, UnitMode


@dataclass(frozen=True, slots=True)
class MachineSnapshot:
    """One frozen look at the machine, made once per control tick.

    Device fields hold the reading of the role (``firmware_bridge.roles``) or None when
    nothing was read yet; those with a default are None where the cell has no such device too.
    ``at_us`` of a reading and ``now_us`` share the loop's time.
    """

    now_us: int
    state: State
    mode: UnitMode
    link_up: bool  # handshake done, connection stands
    online: bool  # start-up is done: every device ought to answer
    motion: Any  # MotionStatus | None
    laser: Any  # LaserReading | None
    powder: Any
    gas: Any
    chiller: Any
    oxygen: Any
    pyrometer: Any
    safety: Any

    camera: Any = None  # CameraReading | None, and so on
    height: Any = None
    drives: Any = None
    power_meter: Any = None
    heater: Any = None
    chamber: Any = None
    head: Any = None
    powder_line: Any = None
    room: Any = None

    refusal: str = ""  # of what the link sent by itself, since the last start

    # what the host commands
    hold_commanded: bool = False
    laser_enabled: bool = False  # the source confirmed EMON and nothing switched it off since
    power_set_w: float = 0.0
    powder_set_g_min: tuple[float, ...] = (0.0, 0.0)
    powder_set_us: int = 0  # when a hopper's flow was last changed
    # least that each was told for as long as a feeder needs to follow (Limits.powder_settle_us)
    powder_least_g_min: tuple[float, ...] = (0.0, 0.0)
    diverter_to_nozzle: bool = False
    carrier_set_l_min: float = 0.0
    shield_set_l_min: float = 0.0
    gas_set_us: int = 0

    # where the build is
    segment: int = -1
    layer: int = -1
    track: int = -1
    plan_time_s: float = 0.0
    powder_needed_g: tuple[float, ...] = (0.0, 0.0)  # what the rest of the plan feeds

    # what only a series of readings shows (machine/monitor.py)
    gate_open_us: int = -1_000_000  # when a status last showed the gate open
    power_short: bool | None = None  # measured below the command; None: no evidence now
    unseen_emission_s: float = 0.0  # emission since the last valid melt-pool temperature


@dataclass(frozen=True, slots=True)
class Blocker:
    """A reason why something is not permitted; the console shows the same."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"

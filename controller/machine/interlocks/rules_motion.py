"""Rules on the motion controller, its link and the axes' drives."""

from controller.machine.interlocks.limits import Limits, link_stale
from controller.machine.interlocks.rows import Block, Link, Rule, fresh, gone, silence
from controller.machine.snapshot import MachineSnapshot
from controller.machine.states import State
from firmware_bridge.link_types import FaultCode, LinkState

_HOST_ABORTS = (State.ABORTING, State.ABORTED, State.CLEARING)
_STREAMED = (State.EXECUTE, State.HOLDING, State.HELD, State.UNHOLDING)


def fault_name(code: int) -> str:
    """The firmware's fault in words."""
    try:
        return FaultCode(code).name
    except ValueError:
        return f"code {code}"


def _link_lost(s: MachineSnapshot, lim: Limits) -> bool:
    return link_stale(s)


def _firmware_fault(s: MachineSnapshot, lim: Limits) -> bool | None:
    if s.motion is None:
        return None
    if s.motion.fault == FaultCode.HOST_ABORT and s.state in _HOST_ABORTS:
        return False  # what this host asked for is no cause of anything
    if s.state is State.CLEARING:
        return None  # found after a lost wire came back: clearing resets it, or does not succeed
    return bool(s.motion.fault)


def _self_hold(s: MachineSnapshot, lim: Limits) -> bool | None:
    if s.state is not State.EXECUTE or s.motion is None:
        return False
    return s.motion.state in (LinkState.HOLDING, LinkState.HELD) and not s.hold_commanded


def _motion_refused(s: MachineSnapshot, lim: Limits) -> bool:
    """Segments or their beginning were refused: no more of the plan will ever be sent."""
    told = s.refusal
    return (
        bool(told)
        and s.state in _STREAMED
        and (": SEGMENTS refused" in told or ": FLUSH refused" in told)
    )


def _motion_stalled(s: MachineSnapshot, lim: Limits) -> bool:
    """Resting without a hold; at the end of the plan the state is COMPLETING at once."""
    return s.state is State.EXECUTE and s.motion is not None and s.motion.state == LinkState.IDLE


def _homing_lost(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if s.motion is None else not s.motion.homed


def _following(s: MachineSnapshot, lim: Limits) -> bool:
    limit = lim.fitted.following_error_mm
    return any(not abs(e) <= limit for e in s.drives.following_error_mm)


def _following_say(s: MachineSnapshot, lim: Limits) -> str:
    errors = ", ".join(f"{e:.3f}" for e in s.drives.following_error_mm)
    return f"{errors} mm, limit {lim.fitted.following_error_mm:g} mm"


RULES: tuple[Rule, ...] = (
    Rule("LINK_LOST", 0, _link_lost, 0.105, always=True),
    Rule("FIRMWARE_FAULT", 0, _firmware_fault, 0.1, always=True,
         say=lambda s, lim: fault_name(s.motion.fault)),
    # the drives' output is wired to the motion controller, which acts in 2 ms: this mirrors it
    Rule("FOLLOWING_ERROR", 0, fresh("drives", _following), 0.2, reads="drives",
         say=_following_say),
    Rule("DRIVE_FAULT", 0, fresh("drives", lambda s, lim: s.drives.fault), 0.2, reads="drives",
         say=lambda s, lim: f"fault bits {s.drives.fault_bits:#x}"),
    Rule("HOMING_LOST", 0, _homing_lost, 0.1),
    Rule("MOTION_REFUSED", 0, _motion_refused, 1.0, say=lambda s, lim: s.refusal),
    Rule("MOTION_STALLED", 500_000, _motion_stalled, 1.0),
    Rule("DRIVES_SILENT", 0, gone("drives"), 1.2, reads="drives"),
    Rule("SELF_HOLD", 0, _self_hold, 1.0),
)  # fmt: skip

LINKS: tuple[Link, ...] = (
    Link(
        "motion", "motion controller",
        Block("MOTION_SILENT", lambda s, lim: link_stale(s),
              "the motion controller sends no status"),
        (
            Block("INTERLOCK_INPUT", lambda s, lim: not s.motion.interlock_ok,
                  "the motion controller's interlock input is open"),
            Block("MOTION_FAULT", lambda s, lim: bool(s.motion.fault),
                  lambda s, lim: "the motion controller has fault "
                                 f"{fault_name(s.motion.fault)} latched"),
            Block("NOT_HOMED", lambda s, lim: not s.motion.homed, "the axes are not homed"),
        ),
    ),
    Link(
        "drives", "axis drives",
        silence("drives", "the axis drives' values are stale"),
        (
            Block("DRIVE_FAULT", lambda s, lim: s.drives.fault,
                  lambda s, lim: f"an axis drive has failed (bits {s.drives.fault_bits:#x})"),
            Block("DRIVES_NOT_READY", lambda s, lim: not s.drives.ready,
                  "the axis drives are not ready"),
            Block("FOLLOWING_ERROR", _following,
                  lambda s, lim: f"following error {_following_say(s, lim)}"),
        ),
        role="drives",
    ),
)  # fmt: skip

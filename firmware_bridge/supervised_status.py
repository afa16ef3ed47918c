"""The words of a supervised control as a motion status, and its changes as events."""

from collections.abc import Iterator, Sequence
from typing import Any

from firmware_bridge.handshake import ControlState, Told
from firmware_bridge.link_types import (
    N_AXES,
    Abilities,
    EventCode,
    LinkEvent,
    LinkState,
    MotionStatus,
)
from firmware_bridge.supervised_program import ProgramPlace

SUPERVISED = Abilities(
    dead_man=True,  # theirs: withdrawn when our heartbeat stands still
    power_law=False,
    gate_timing=False,
    exact_position=False,
    gate_first=True,
    hold_at_track_end=True,
    trim=True,
    device_time=True,
    jog=False,
    probe=False,
    resume_in_bead=False,
)

LACKS = {
    "program_of_its_own": "the machine's control runs an exported program at its own speeds: "
    "powder and gas follow the line that it reports, the plan's times are estimates",
    "power_by_track": "power is stepped by the program and limited by track from here, up to "
    "60 ms late: it does not follow speed",
    "gate_by_line": "the gate changes where the program says, as exactly as that control does: "
    "source latencies are taken off as way at planned speed, not in time",
    "position_as_told": "positions are those that the control tells each 20 ms, not compared step "
    "by step",
    "hold_by_its_program": "a hold now reaches the control up to 20 ms late and breaks a bead off; "
    "the program goes on where it stood, without run-up and overlap",
    "no_jog_no_probe": "axes are moved by hand and probed at the machine's own panel",
}

WHY_NOT = {"jog": "no_jog_no_probe", "probe": "no_jog_no_probe", "power_law": "power_by_track"}

_STATES = {
    ControlState.NOT_READY: LinkState.IDLE,
    ControlState.READY: LinkState.IDLE,
    ControlState.RUNNING: LinkState.RUN,
    ControlState.HOLDING: LinkState.HOLDING,
    ControlState.HELD: LinkState.HELD,
    ControlState.WAITING: LinkState.RUN,
    ControlState.FINISHED: LinkState.IDLE,
    ControlState.FAULT: LinkState.FAULT,
    ControlState.REFERENCING: LinkState.HOMING,
}


class StatusMaker:
    """Words to statuses, statuses to events.

    Parameters
    ----------
    axes : names of the position words
    scales : steps per mm or degree; zero : program coordinates at step 0
    """

    def __init__(self, axes: Sequence[str], scales: Sequence[float], zero: Sequence[float]) -> None:
        self._axes = tuple(zip(axes, zero, scales, strict=False))
        self._spare = (0,) * (N_AXES - len(self._axes))
        self._tracks = 0

    def status(
        self,
        now: dict[str, Any],
        place: ProgramPlace,
        scale: float,
        rated_w: float,
        behind_us: int,
        now_us: int,
    ) -> MotionStatus:
        """The status that these words mean."""
        state, told = now["state"], now["status_bits"]
        steps = [round((now[name] - zero) * per_mm) for name, zero, per_mm in self._axes]
        return MotionStatus(
            device_us=now["clock_ms"] * 1000,
            state=_STATES[state],
            armed=told & Told.PERMITTED != 0,
            gate_on=told & Told.GATE_ON != 0,
            interlock_ok=told & Told.INTERLOCK_OK != 0,
            homed=told & Told.REFERENCED != 0,
            fault=now["alarm"] if state == ControlState.FAULT else 0,
            segment=place.segment,
            segment_tick_us=place.tick_us,
            scale=scale,
            power_fraction=now["their_power_w"] / rated_w if rated_w > 0.0 else 0.0,
            position_steps=(*steps, *self._spare),
            queued=-1,
            beat_age_us=behind_us,
            tracks_started=self._tracks,
            received_us=now_us,
            hold_pending=told & Told.HOLD_PENDING != 0,
        )

    def events(
        self, before: MotionStatus | None, now: MotionStatus, track: int
    ) -> Iterator[LinkEvent]:
        """Changes between two statuses, as a device's event log would have told them."""
        if before is None:
            yield _event(now, EventCode.POWER_UP, 0)
            return
        if now.state != before.state:
            yield _event(now, EventCode.STATE, now.state)
        if now.armed != before.armed:
            yield _event(now, EventCode.ARMED, int(now.armed))
        if now.gate_on != before.gate_on:
            if now.gate_on:
                self._tracks += 1
                yield _event(now, EventCode.TRACK_START, track)
            yield _event(now, EventCode.GATE, int(now.gate_on))
        if now.fault and now.fault != before.fault:
            yield _event(now, EventCode.FAULT, now.fault)
        elif before.fault and not now.fault:
            yield _event(now, EventCode.FAULT_RESET, before.fault)
        if now.homed and not before.homed:
            yield _event(now, EventCode.HOMED, 0)


def _event(now: MotionStatus, code: EventCode, arg: int) -> LinkEvent:
    return LinkEvent(now.device_us, int(code), arg, now.segment)

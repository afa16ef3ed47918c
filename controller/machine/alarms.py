"""Alarms: one row says what happened, how bad it is and what to do about it.

The rows follow the fault table of the project's requirements: its letters G, S, P mean
ABORT, STOP, HOLD here. When a row is raised is decided in ``interlocks.py``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from controller.model import Severity

RANK = {
    Severity.NOTE: 0,
    Severity.HOLD: 1,
    Severity.HOLD_NOW: 2,
    Severity.STOP: 3,
    Severity.ABORT: 4,
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """A row of the alarm table.

    ``max_hold_s`` is for HOLD: how long the end of the track may be waited for; after that
    the hold is at once. 0 for all other severities. Together with the poll period and the
    rule's delay (interlocks.py) it stays within the fault table's time.
    """

    code: int
    name: str
    severity: Severity
    text: str
    action: str
    max_hold_s: float = 0.0


_HOLD, _HOLD_NOW = Severity.HOLD, Severity.HOLD_NOW
_STOP, _ABORT, _NOTE = Severity.STOP, Severity.ABORT, Severity.NOTE

TABLE: tuple[Alarm, ...] = (
    # 1xx motion and its link
    Alarm(101, "LINK_LOST", _ABORT, "The motion controller is silent for over 100 ms.",
          "Check cable and supply of the motion controller, then clear and home."),
    Alarm(102, "FIRMWARE_FAULT", _ABORT, "The motion controller has latched a fault.",
          "Read the fault's name in the detail, remove its cause, then clear and home."),
    Alarm(103, "SELF_HOLD", _HOLD_NOW, "The motion controller held by itself.",
          "Its queue ran low: look at the load of this computer, then resume."),
    Alarm(104, "HOMING_LOST", _ABORT, "The axes lost their reference during a build.",
          "Clear, home, and inspect the part before a restart."),
    Alarm(105, "HOMING_FAILED", _STOP, "Homing did not end well.",
          "Read the reason in the detail, check the home switches, reset and home again."),
    Alarm(106, "RESUME_FAILED", _HOLD_NOW, "The axes did not move again within 2 s.",
          "Read the link's events for the reason, then resume again or stop."),
    Alarm(107, "MOTION_REFUSED", _STOP, "The motion controller refused a part of the plan.",
          "Read the reason in the detail: plan and cell file do not fit. Plan again."),
    Alarm(108, "MOTION_STALLED", _STOP, "The axes rest in a build that is not at its end.",
          "Read the link's events for the reason, reset and start again."),
    # 2xx powder
    Alarm(201, "POWDER_STALLED", _HOLD, "A hopper's feeder reports a stall.",
          "Free the feeder disc and check the powder, then resume.", 0.8),
    Alarm(202, "POWDER_LOW", _HOLD, "A hopper holds less than the plan still needs.",
          "Refill the hopper, then resume.", 0.8),
    Alarm(203, "POWDER_SILENT", _HOLD, "The powder feeder's values are stale.",
          "Check cable and supply of the feeder, then resume.", 0.1),
    Alarm(204, "POWDER_STARVED", _HOLD,
          "Powder flow is below 80 % of set after the feeder's lag.",
          "Check hopper, feeder speed and carrier gas, then resume.", 0.5),
    Alarm(205, "POWDER_NOT_READY", _HOLD, "The powder feeder reports that it is not ready.",
          "Read the feeder's own display, remove the cause, then resume.", 0.8),
    # 3xx gas
    Alarm(301, "CARRIER_LOW", _STOP, "Carrier gas is below 80 % of set.",
          "Check bottle, valve and hose of the carrier gas, then reset."),
    Alarm(302, "SHIELD_LOW", _HOLD, "Shield gas is below 80 % of set.",
          "Check bottle, valve and hose of the shield gas, then resume.", 0.5),
    Alarm(303, "GAS_SILENT", _STOP, "The gas flow controllers' values are stale.",
          "Check cable and supply of the flow controllers, then reset."),
    # 4xx laser
    Alarm(401, "LASER_FAULT", _STOP, "The laser source reports a fault.",
          "Read the fault's name in the detail; remove its cause, then reset."),
    Alarm(402, "BACK_REFLECTION", _ABORT, "The laser source reports back-reflection.",
          "Inspect optics and part before clearing; it is never retried by itself."),
    Alarm(403, "EMISSION_UNCOMMANDED", _ABORT, "The laser emits without a command.",
          "The supply relay was dropped. Keep out; have the source serviced."),
    Alarm(404, "LASER_SILENT", _STOP, "The laser source's values are stale.",
          "Check cable and supply of the laser source, then reset."),
    Alarm(405, "LASER_POWER_LOW", _STOP,
          "Measured power is over 10 % below the command for 0.7 s.",
          "Check optics and source; measure the power before the next build."),
    Alarm(406, "LASER_REFUSED", _STOP, "The laser source did not enable within 4 s.",
          "Read the source's state in the detail, remove the cause, then reset."),
    Alarm(407, "LASER_NOT_READY", _STOP, "The laser source left its enabled state in a build.",
          "Check key switch and interlock of the source, then reset."),
    # 5xx coolant
    Alarm(501, "CHILLER_FLOW", _STOP, "The chiller reports no flow.",
          "Check pump, level and hoses of the chiller, then reset."),
    Alarm(502, "COOLANT_WARM", _HOLD, "Coolant is over 2 K above its setpoint.",
          "Let the chiller recover, then resume.", 0.5),
    Alarm(503, "COOLANT_HOT", _STOP, "Coolant is over 5 K above its setpoint.",
          "Check the chiller, wait until the coolant is at its setpoint, then reset."),
    Alarm(504, "CHILLER_SILENT", _STOP, "The chiller's values are stale.",
          "Check cable and supply of the chiller, then reset."),
    Alarm(505, "CHILLER_ALARM", _STOP, "The chiller reports an alarm of its own.",
          "Read the alarm on the chiller, remove its cause, then reset."),
    Alarm(506, "COOLANT_COLD", _HOLD, "Coolant is below the cell's limit for 1 s: dew may form.",
          "Raise the chiller's setpoint or dry the room, then resume.", 3.5),
    # 6xx safety chain, mirrored
    Alarm(601, "ESTOP", _ABORT, "An emergency stop is pressed.",
          "Make the cell safe, release the button, reset the safety chain, then clear."),
    Alarm(602, "DOOR_OPEN", _ABORT, "The cell's door is open.",
          "Close the door, reset the safety chain, then clear."),
    Alarm(603, "CHAIN_OPEN", _ABORT, "The hardware interlock chain is open.",
          "Find the open contact, reset the safety chain, then clear."),
    Alarm(604, "SAFETY_SILENT", _STOP, "The safety PLC's values are stale.",
          "Check the network to the safety PLC; the chain itself is hardwired. Then reset."),
    Alarm(605, "SAFETY_WATCHDOG", _STOP, "The safety PLC reports an error.",
          "Read the PLC's diagnosis, remove the cause, then reset."),
    # 7xx chamber and melt pool
    Alarm(701, "OXYGEN_HIGH", _HOLD, "Chamber oxygen is above the alloy's limit for 3 s.",
          "Purge the chamber until oxygen is below the limit, then resume.", 0.8),
    Alarm(702, "OXYGEN_TOO_HIGH", _STOP, "Chamber oxygen is above twice the alloy's limit.",
          "Find the leak, purge the chamber, then reset."),
    Alarm(703, "OXYGEN_SILENT", _STOP, "The oxygen analyser's values are stale or not valid.",
          "Check the analyser; without it this alloy cannot be built. Then reset."),
    Alarm(711, "PYROMETER_LOST", _HOLD, "No valid melt-pool temperature for 2 s of emission.",
          "Clean the window and check the pyrometer, then resume.", 0.1),
    # 8xx host
    Alarm(801, "RECORD_FAILED", _HOLD, "The build record cannot be written.",
          "Make room on the disk; this build's record ends here: stop the build.", 0.8),
    Alarm(802, "START_FAILED", _STOP, "A step of the start sequence failed.",
          "Read the reason in the detail, remove it, reset and start again."),
    Alarm(803, "SHUTDOWN_STEP", _NOTE, "A step of a stop sequence failed; the others ran.",
          "Check the named device by hand before anybody enters the cell."),
    Alarm(804, "COMMAND_FAILED", _HOLD, "A device did not take a command of the process plan.",
          "Check the named device, then resume.", 0.5),
    Alarm(805, "TICK_LATE", _NOTE, "The control loop ran over 50 ms late.",
          "Reduce the load of this computer."),
    Alarm(806, "SUPERVISOR_ERROR", _ABORT, "The supervisor met an error of its own.",
          "Save the log for the makers of this software, then clear."),
)  # fmt: skip

# The hardware acts before the PLC is read: an alarm that is a cause of the first-out and comes
# this soon after it takes its place.
CAUSE_WITHIN_US = 200_000
CAUSES: dict[str, tuple[str, ...]] = {
    "ESTOP": ("CHAIN_OPEN", "FIRMWARE_FAULT"),
    "DOOR_OPEN": ("CHAIN_OPEN", "FIRMWARE_FAULT"),
}

BY_NAME: dict[str, Alarm] = {a.name: a for a in TABLE}
BY_CODE: dict[int, Alarm] = {a.code: a for a in TABLE}


@dataclass(slots=True)
class ActiveAlarm:
    """An alarm that is standing: raised, and not both gone and acknowledged."""

    alarm: Alarm
    raised_us: int
    detail: str
    present: bool = True  # its cause still stands
    acknowledged: bool = False
    count: int = 1  # how often raised while it stood

    def as_dict(self) -> dict[str, object]:
        """Plain data for clients."""
        a = self.alarm
        return {
            "code": a.code,
            "name": a.name,
            "severity": str(a.severity),
            "text": a.text,
            "action": a.action,
            "detail": self.detail,
            "raised_us": self.raised_us,
            "present": self.present,
            "acknowledged": self.acknowledged,
            "count": self.count,
        }

    def as_event(self, *, whole: bool, who: str) -> dict[str, object]:
        """What an event tells of it: ``whole`` when it is raised."""
        a = self.alarm
        data: dict[str, object] = {"code": a.code, "name": a.name}
        if whole:
            data.update(severity=str(a.severity), text=a.text, action=a.action, detail=self.detail)
        if who:
            data["who"] = who
        return data


Tell = Callable[[str, ActiveAlarm, str], None]  # kind of event, alarm, who


class AlarmManager:
    """Standing alarms, the first-out, and what was seen since the last reset.

    An alarm stands until its cause is gone and it has been acknowledged, in either order.
    The first-out is the alarm that came first since none above NOTE stood: the cause of a
    cascade, kept until ``reset_first_out``.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.standing: dict[str, ActiveAlarm] = {}  # by name, in order of raising
        self.first_out: ActiveAlarm | None = None
        self.total = 0

    def raise_(self, name: str, now_us: int, detail: str = "") -> ActiveAlarm | None:
        """Raise an alarm; None when it is present already (nothing new to act on)."""
        standing = self.standing.get(name)
        if standing is not None and standing.present:
            return None
        self.total += 1
        if standing is None:
            standing = ActiveAlarm(BY_NAME[name], now_us, detail)
            self.standing[name] = standing
        else:
            standing.present = True
            standing.acknowledged = False
            standing.detail = detail
            standing.count += 1
        first = self.first_out
        if first is None:
            if standing.alarm.severity is not Severity.NOTE:
                self.first_out = standing
        elif (
            first.alarm.name in CAUSES.get(name, ()) and now_us - first.raised_us <= CAUSE_WITHIN_US
        ):
            self.first_out = standing
        self._tell("alarm", standing, "")
        return standing

    def clear(self, name: str) -> None:
        """The cause is gone; the alarm goes too when it was acknowledged."""
        standing = self.standing.get(name)
        if standing is None or not standing.present:
            return
        standing.present = False
        self._tell("alarm_clear", standing, "")
        if standing.acknowledged:
            del self.standing[name]

    def acknowledge(self, who: str, names: Iterable[str] | None = None) -> int:
        """Acknowledge some or all alarms; returns how many were."""
        chosen = list(self.standing) if names is None else [n for n in names if n in self.standing]
        done = 0
        for name in chosen:
            standing = self.standing[name]
            if standing.acknowledged:
                continue
            standing.acknowledged = True
            done += 1
            self._tell("alarm_ack", standing, who)
            if not standing.present:
                del self.standing[name]
        return done

    def reset_first_out(self) -> None:
        """A new cascade may begin: called on reset, clear and unhold."""
        self.first_out = None

    def present(self, least: Severity = Severity.HOLD) -> tuple[ActiveAlarm, ...]:
        """Alarms whose cause stands, of at least this severity."""
        rank = RANK[least]
        return tuple(
            s for s in self.standing.values() if s.present and RANK[s.alarm.severity] >= rank
        )

    def as_list(self) -> list[dict[str, object]]:
        """Standing alarms as plain data, oldest first."""
        return [s.as_dict() for s in self.standing.values()]

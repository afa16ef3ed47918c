"""The alarm table: one row says what happened, how bad it is and what to do about it.

The rows follow the fault table of the project's requirements: its letters G, S, P mean
ABORT, STOP, HOLD here. When a row is raised is decided by the rules in ``interlocks``; what
becomes of it afterwards in ``alarms.py``; why it is there at all in ``alarm_reasons.py``.
"""

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
    rule's delay (interlocks) it stays within the fault table's time.
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
    Alarm(109, "FOLLOWING_ERROR", _ABORT, "An axis does not follow its command.",
          "Find what hinders the axis, clear and home; inspect the part."),
    Alarm(110, "DRIVE_FAULT", _ABORT, "An axis drive reports a fault.",
          "Read the drive's own display, remove the cause, then clear and home."),
    Alarm(111, "DRIVES_SILENT", _STOP, "The axis drives' values are stale.",
          "Check the network to the drives, then reset."),
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
    Alarm(206, "POWDER_BACK_PRESSURE", _HOLD, "A powder stream's back-pressure is too high.",
          "Clean nozzle and hose of the stream in the detail, then resume.", 2.0),
    Alarm(207, "POWDER_STREAM_CLOGGED", _HOLD, "One powder stream differs from the others.",
          "Clean the stream named in the detail and look at the part, then resume.", 2.0),
    Alarm(208, "POWDER_LINE_SILENT", _HOLD, "The powder line's values are stale.",
          "Check cable and supply of the line's sensors, then resume.", 0.1),
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
    Alarm(507, "COOLANT_DEW", _HOLD, "Coolant is too near the dew point for 1 s: optics get wet.",
          "Raise the chiller's setpoint or dry the chamber, then resume.", 3.0),
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
    Alarm(712, "CAMERA_LOST", _NOTE, "The melt-pool camera gives no good frame for 2 s.",
          "Clean its window and check its cable; the build goes on without it."),
    Alarm(713, "CAMERA_SILENT", _NOTE, "The melt-pool camera's values are stale.",
          "Check cable and supply of the camera; the build goes on without it."),
    Alarm(714, "HEIGHT_SILENT", _NOTE, "The height sensor's values are stale.",
          "Check cable and supply of the sensor; the build goes on without it."),
    Alarm(715, "POWER_METER_OVER", _NOTE, "The power meter shows more than its range.",
          "Move the meter out of the beam and have it checked."),
    Alarm(721, "CHAMBER_UNLOCKED", _STOP, "The chamber's door is not locked.",
          "Close and lock the chamber, purge it, then reset."),
    Alarm(722, "CHAMBER_PRESSURE", _HOLD, "The chamber's pressure is too low: air comes in.",
          "Find the leak or open the purge gas, then resume.", 2.0),
    Alarm(723, "CHAMBER_SILENT", _HOLD, "The chamber's values are stale.",
          "Check cable and supply of the chamber's sensors, then resume.", 0.1),
    Alarm(731, "HEATER_FAULT", _HOLD, "The substrate heater reports a fault.",
          "Read the heater's own display, remove the cause, then resume.", 0.5),
    Alarm(732, "HEATER_OFF_SET", _HOLD, "The plate is not at its set temperature for 2 s.",
          "Check heater and sensor; wait for the temperature, then resume.", 1.0),
    Alarm(733, "HEATER_SILENT", _HOLD, "The substrate heater's values are stale.",
          "Check cable and supply of the heater, then resume.", 0.1),
    Alarm(741, "WINDOW_HOT", _STOP, "The protective window is too hot.",
          "Let it cool, change the window, then reset."),
    Alarm(742, "WINDOW_DIRTY", _STOP, "The protective window scatters too much light.",
          "Change the window and find what soiled it, then reset."),
    Alarm(743, "HEAD_COOLING", _STOP, "The process head is not cooled.",
          "Check water and hoses of the head, then reset."),
    Alarm(744, "HEAD_COLLISION", _ABORT, "The head's collision switch has opened.",
          "Free the head, check its tool centre, then clear and home."),
    Alarm(745, "HEAD_SILENT", _STOP, "The process head's values are stale.",
          "Check cable and supply of the head's sensors, then reset."),
    Alarm(751, "ROOM_OXYGEN", _STOP, "The room's oxygen is too low for people.",
          "Leave the room, air it, close the inert gas; enter with a meter only. Then reset."),
    Alarm(752, "EXTRACTION_OFF", _HOLD, "The fume extraction is off.",
          "Switch the extraction on, let the dust settle, then resume.", 0.1),
    Alarm(753, "SUPPLY_PRESSURE", _HOLD, "A supply's pressure is too low.",
          "Change the bottle or open the supply named in the detail, then resume.", 0.1),
    Alarm(754, "UPS_ON_BATTERY", _HOLD, "The emergency supply runs on its battery.",
          "Wait for the mains; end the build in order while the battery lasts.", 0.1),
    Alarm(755, "ROOM_SILENT", _HOLD, "The room's values are stale.",
          "Check the room's sensors by hand: oxygen first. Then resume.", 0.1),
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
    Alarm(807, "TEST_GUARD", _STOP, "A test emission left what it was allowed.",
          "Read the figures in the detail, check beam dump and meter, then reset."),
    Alarm(808, "SEQUENCE_FAILED", _NOTE, "A sequence beside a build did not end well.",
          "Read the reason in the detail, remove it and run the sequence again."),
)  # fmt: skip

BY_NAME: dict[str, Alarm] = {a.name: a for a in TABLE}
BY_CODE: dict[int, Alarm] = {a.code: a for a in TABLE}

# The hardware acts before the PLC is read: an alarm that is a cause of the first-out and comes
# this soon after it takes its place.
CAUSE_WITHIN_US = 200_000
CAUSES: dict[str, tuple[str, ...]] = {
    "ESTOP": ("CHAIN_OPEN", "FIRMWARE_FAULT"),
    "DOOR_OPEN": ("CHAIN_OPEN", "FIRMWARE_FAULT"),
}

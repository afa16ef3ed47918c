"""Why each alarm is there: what happens when nobody reacts. The page for alarm rationalisation.

``page()`` is ``docs/reference/alarms.md``; a test keeps the file as this module writes it, and
``python -m controller.machine.alarm_reasons`` writes it anew.
"""

import sys
from pathlib import Path

from controller.machine.alarm_table import TABLE, Alarm
from controller.machine.alarms import FLOOD, LONGEST_SHELF_S, SUPPRESSED_BY
from controller.machine.interlocks import OPTIONAL, RULES
from controller.model import Severity

REACTIONS: dict[Severity, str] = {
    Severity.NOTE: "told and recorded",
    Severity.HOLD: "hold at the track's end, powder to waste",
    Severity.HOLD_NOW: "hold at once",
    Severity.STOP: "gate shut, source off, powder off, build ended",
    Severity.ABORT: "gate shut, latched; clear and reset by a person",
}

# What follows when nothing is done, in the words of the one who has to answer for it.
CONSEQUENCES: dict[str, str] = {
    "LINK_LOST": "motion and light without a supervisor",
    "FIRMWARE_FAULT": "motion or light out of its limits",
    "SELF_HOLD": "a mark in the bead",
    "HOMING_LOST": "collision, part out of place",
    "HOMING_FAILED": "collision, part out of place",
    "RESUME_FAILED": "part cools, build lost",
    "MOTION_REFUSED": "the build never ends, part cools",
    "MOTION_STALLED": "the build never ends, part cools",
    "FOLLOWING_ERROR": "collision, or light on a standing axis",
    "DRIVE_FAULT": "an axis runs out or falls",
    "DRIVES_SILENT": "a drive's fault is seen late",
    "POWDER_STALLED": "bare melting, lack of material",
    "POWDER_LOW": "hopper runs empty in a bead",
    "POWDER_SILENT": "lack of material is not seen",
    "POWDER_STARVED": "lack of fusion, low bead",
    "POWDER_NOT_READY": "bare melting, lack of material",
    "POWDER_BACK_PRESSURE": "hose bursts or nozzle clogs",
    "POWDER_STREAM_CLOGGED": "bead leans, uneven height",
    "POWDER_LINE_SILENT": "a clog is not seen",
    "CARRIER_LOW": "powder settles, nozzle clogs and burns",
    "SHIELD_LOW": "oxidised bead, spatter on the window",
    "GAS_SILENT": "loss of gas is not seen",
    "LASER_FAULT": "source damaged",
    "BACK_REFLECTION": "fibre and source destroyed",
    "EMISSION_UNCOMMANDED": "people and machine hit by the beam",
    "LASER_SILENT": "a fault of the source is not seen",
    "LASER_POWER_LOW": "lack of fusion, part scrapped",
    "LASER_REFUSED": "powder without light",
    "LASER_NOT_READY": "powder without light",
    "CHILLER_FLOW": "source and optics overheat in seconds",
    "COOLANT_WARM": "power drifts",
    "COOLANT_HOT": "source and optics damaged",
    "CHILLER_SILENT": "loss of cooling is not seen",
    "CHILLER_ALARM": "loss of cooling follows",
    "COOLANT_COLD": "dew on optics: they burn",
    "COOLANT_DEW": "dew on optics: they burn",
    "ESTOP": "somebody is in danger",
    "DOOR_OPEN": "laser light reaches people",
    "CHAIN_OPEN": "a part of the safety chain is open",
    "SAFETY_SILENT": "the chain's state is not known here",
    "SAFETY_WATCHDOG": "the chain may not act",
    "OXYGEN_HIGH": "brittle part",
    "OXYGEN_TOO_HIGH": "brittle part, powder may burn",
    "OXYGEN_SILENT": "brittle part, not seen",
    "PYROMETER_LOST": "overheated or cold bead is not seen",
    "CAMERA_LOST": "pool width is not recorded",
    "CAMERA_SILENT": "pool width is not recorded",
    "HEIGHT_SILENT": "layer height is not recorded",
    "POWER_METER_OVER": "meter damaged, calibration wrong",
    "CHAMBER_UNLOCKED": "air in the chamber, light out of it",
    "CHAMBER_PRESSURE": "air in the chamber, brittle part",
    "CHAMBER_SILENT": "a leak is not seen",
    "HEATER_FAULT": "plate cools: cracks",
    "HEATER_OFF_SET": "cracks, or an overheated plate",
    "HEATER_SILENT": "plate's temperature is not known",
    "WINDOW_HOT": "window bursts, optics burn",
    "WINDOW_DIRTY": "window heats up and bursts",
    "HEAD_COOLING": "optics drift and burn",
    "HEAD_COLLISION": "nozzle bent, part out of place",
    "HEAD_SILENT": "a burning window is not seen",
    "ROOM_OXYGEN": "people lose consciousness",
    "EXTRACTION_OFF": "people breathe metal fume",
    "SUPPLY_PRESSURE": "gas ends in the middle of a bead",
    "UPS_ON_BATTERY": "power ends in the middle of a bead",
    "ROOM_SILENT": "lack of oxygen is not seen",
    "RECORD_FAILED": "part without proof",
    "START_FAILED": "no build",
    "SHUTDOWN_STEP": "a device may still be on",
    "COMMAND_FAILED": "process is not as planned",
    "TICK_LATE": "reactions come late",
    "SUPERVISOR_ERROR": "machine without a supervisor",
    "TEST_GUARD": "meter or dump burns, light elsewhere",
    "SEQUENCE_FAILED": "no build, or a brittle part",
}

# How soon a person must answer before the consequence is there; None: the machine has reacted.
ANSWER: dict[Severity, str] = {
    Severity.NOTE: "within the shift",
    Severity.HOLD: "before the part cools (recipe's longest_stop)",
    Severity.HOLD_NOW: "before the part cools (recipe's longest_stop)",
    Severity.STOP: "before the next start",
    Severity.ABORT: "at once, at the machine",
}


def _within(alarm: Alarm) -> tuple[str, str, str]:
    """Longest time to the reaction, the clear rule, and where it is fitted."""
    for rule in RULES:
        if rule.alarm == alarm.name:
            where = rule.reads if rule.reads in OPTIONAL else ""
            return f"{rule.within_s:g} s", rule.clears, where
    return "at once", "on reset", ""


def page() -> str:
    """The whole page, Markdown."""
    lines = [
        "# Alarms",
        "",
        "Each alarm with its reaction, what happens when nobody reacts, and what to do. Written",
        "by `controller/machine/alarm_reasons.py` from the tables that the supervisor runs on.",
        "",
        "States are those of ISA-18.2: normal, unacknowledged, acknowledged, returned to normal",
        "unacknowledged, shelved (with a reason and an end, at most "
        f"{LONGEST_SHELF_S / 3600:g} h), suppressed by",
        "design, out of service. **A shelved alarm, or one that is out of service, still reacts**:",
        "only its telling ends. Suppression and shelving are events of the record. More than",
        f"{FLOOD} alarms told in 10 minutes are a flood.",
        "",
    ]
    for number in range(1, 10):
        rows = [a for a in TABLE if a.code // 100 == number]
        if not rows:
            continue
        lines += [
            f"## {number}xx",
            "",
            "| code | alarm | what it says | severity: reaction | within | if nobody reacts "
            "| what to do | clears | answer |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for a in rows:
            within, clears, where = _within(a)
            fitted = f" (cells with `[{where}]`)" if where else ""
            lines.append(
                f"| {a.code} | `{a.name}`{fitted} | {a.text} | {a.severity}: "
                f"{REACTIONS[a.severity]} | {within} | {CONSEQUENCES[a.name]} | {a.action} | "
                f"{clears} | {ANSWER[a.severity]} |"
            )
        lines.append("")
    lines += [
        "## Suppressed by design",
        "Recorded and acted on, not told while its cause is present:",
        "",
        "| alarm | while |",
        "|---|---|",
        *(f"| `{n}` | {', '.join(f'`{c}`' for c in by)} |" for n, by in SUPPRESSED_BY.items()),
        "",
    ]
    return "\n".join(lines)


def main(path: str = "docs/reference/alarms.md") -> None:
    """Write the page."""
    Path(path).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:2])

"""Words of a grblHAL controller: real-time bytes, reports, numbered errors and alarms.

Everything here is a fact of grblHAL's documents and source, listed with byte examples in
docs/reference/grblhal.md. Nothing here keeps state.
"""

from dataclasses import dataclass

from firmware_bridge.errors import ProtocolError
from firmware_bridge.link_types import FaultCode

# Real-time bytes: taken out of the stream by the receiver at once, whatever is queued. The
# bytes above 0x7f are used throughout: "?", "!" and "~" are plain text within a "$" line.
SOFT_RESET = b"\x18"
STATUS = b"\x80"
CYCLE_START = b"\x81"
FEED_HOLD = b"\x82"
SAFETY_DOOR = b"\x84"
JOG_CANCEL = b"\x85"
STATUS_ALL = b"\x87"
FEED_100 = b"\x90"
FEED_PLUS_10 = b"\x91"
FEED_MINUS_10 = b"\x92"
FEED_PLUS_1 = b"\x93"
FEED_MINUS_1 = b"\x94"
SPINDLE_STOP = b"\x9e"  # toggles the spindle (here: the laser), and only in a feed hold

LEAST_FEED_PERCENT, GREATEST_FEED_PERCENT = 10, 200
GREATEST_LINE_NUMBER = 9_999_999
LONGEST_LINE = 256  # bytes without the line end

ERRORS = {
    1: "a word has no letter",
    2: "a number is missing or cannot be read",
    3: "unknown $ command",
    4: "negative value",
    5: "homing is switched off ($22)",
    6: "step pulse too short",
    7: "settings could not be read and were reset",
    8: "only permitted when idle",
    9: "G-code is locked: alarm or jog",
    10: "soft limits need homing",
    11: "line too long",
    12: "step rate above the controller's own limit",
    13: "safety door open",
    14: "line too long to be stored",
    15: "jog target beyond the travel",
    16: "jog command not valid",
    17: "laser mode needs a PWM output",
    18: "reset under way",
    19: "value not above 0",
    20: "G-code command not known",
    21: "two commands of one modal group",
    22: "no feed rate",
    23: "a whole number is wanted",
    24: "two commands want the axis words",
    25: "a word is repeated",
    26: "axis words are missing",
    27: "line number not valid",
    28: "a value word is missing",
    29: "work coordinates not supported",
    30: "G53 without G0 or G1",
    31: "axis words without a command",
    32: "arc without axis words in its plane",
    33: "target not valid",
    34: "arc radius not valid",
    35: "arc without offsets in its plane",
    36: "words that nothing uses",
    37: "G43.1 on the wrong axis",
    38: "tool number too high",
    39: "value out of range",
    40: "a tool change is pending",
    41: "spindle does not run",
    42: "plane not valid",
    43: "feed rate too high",
    44: "spindle speed out of range",
    45: "a limit switch is engaged",
    46: "home first",
    47: "tool not set",
    48: "value words contradict",
    49: "self test failed",
    50: "emergency stop",
    51: "motor fault",
    52: "setting out of range",
    53: "setting not available",
    54: "retract below drilling depth",
    55: "homing of squared axes not valid",
    56: "work coordinates locked",
    79: "not permitted during a critical event",
}

ALARMS = {
    1: "hard limit, position lost",
    2: "soft limit",
    3: "reset while moving, position lost",
    4: "probe not in its initial state",
    5: "probe without contact",
    6: "homing was reset",
    7: "door opened while homing",
    8: "limit switch still engaged after pull-off",
    9: "home switch not found",
    10: "emergency stop",
    11: "not homed",
    12: "a limit switch is engaged",
    13: "probe protection",
    14: "spindle not at speed",
    15: "second home switch not found",
    16: "self test failed",
    17: "motor fault",
    18: "homing set up wrongly",
    19: "Modbus error",
    20: "I/O expander fails",
    21: "settings memory fails",
    22: "buffer overflow",
}
# after these the controller's idea of its position is worth nothing
POSITION_LOST = frozenset({1, 3, 6, 7, 8, 9, 10, 11, 15, 16, 17, 18, 21})

ALARM_FAULTS = {
    3: FaultCode.HOST_ABORT,
    4: FaultCode.HOMING,
    5: FaultCode.HOMING,
    6: FaultCode.HOMING,
    7: FaultCode.HOMING,
    8: FaultCode.HOMING,
    9: FaultCode.HOMING,
    10: FaultCode.INTERLOCK,
    15: FaultCode.HOMING,
    17: FaultCode.FOLLOWING,
    18: FaultCode.HOMING,
}  # the others: LIMIT


def error_text(number: int) -> str:
    """``error:N`` for people."""
    return f"error:{number} ({ERRORS.get(number, 'meaning not known here')})"


def alarm_text(number: int) -> str:
    """``ALARM:N`` for people."""
    return f"ALARM:{number} ({ALARMS.get(number, 'meaning not known here')})"


@dataclass(slots=True)
class Report:
    """One status report; what a report leaves out keeps the value it had before."""

    state: str = ""  # Idle Run Hold Jog Home Alarm Check Door Sleep Tool
    substate: int = -1  # -1: none was told
    machine_mm: tuple[float, ...] = ()
    work_mm: tuple[float, ...] = ()  # told instead of machine_mm where $10 says so
    blocks_free: int = -1
    bytes_free: int = -1
    line: int = 0  # 0: no line number
    feed_mm_min: float = 0.0
    spindle: float = 0.0  # the programmed S of the block that is prepared, not what is put out
    pins: str = ""
    offset_mm: tuple[float, ...] = ()
    feed_percent: int = 100
    accessories: str = ""
    homed: int = -1  # -1: not told


def read_report(text: str, into: Report) -> None:
    """Read ``<...>``. Raises ProtocolError for anything that is no report."""
    if not (text.startswith("<") and text.endswith(">")):
        raise ProtocolError(f"not a status report: {text[:80]!r}")
    fields = text[1:-1].split("|")
    state, _, substate = fields[0].partition(":")
    into.pins = ""  # left out when no pin is active
    into.line = 0
    overrides = accessories = False
    try:
        into.state = state
        into.substate = int(substate) if substate else -1
        for field in fields[1:]:
            key, _, value = field.partition(":")
            if key == "MPos":
                into.machine_mm = _numbers(value)
            elif key == "FS":
                feed, spindle = value.split(",")[:2]
                into.feed_mm_min, into.spindle = float(feed), float(spindle)
            elif key == "Bf":
                blocks, free = value.split(",")
                into.blocks_free, into.bytes_free = int(blocks), int(free)
            elif key == "Ln":
                into.line = int(value)
            elif key == "Pn":
                into.pins = value
            elif key == "WPos":
                into.work_mm = _numbers(value)
            elif key == "WCO":
                into.offset_mm = _numbers(value)
            elif key == "Ov":
                into.feed_percent = int(value.split(",")[0])
                overrides = True
            elif key == "A":
                into.accessories = value
                accessories = True
            elif key == "F":
                into.feed_mm_min = float(value)
            elif key == "H":
                into.homed = int(value.split(",")[0])
    except ValueError:
        raise ProtocolError(f"status report cannot be read: {text[:120]!r}") from None
    if overrides and not accessories:
        into.accessories = ""  # told with the overrides, and left out when nothing is on
    if not into.machine_mm and into.work_mm and into.offset_mm:
        into.machine_mm = tuple(w + o for w, o in zip(into.work_mm, into.offset_mm, strict=True))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(v) for v in text.split(","))


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """What ``$I`` tells."""

    version: str = ""
    options: str = ""
    blocks: int = 0
    rx_bytes: int = 0
    axes: str = ""
    firmware: str = ""
    driver: str = ""
    legacy_bytes: bool = True  # "?", "!", "~" work outside of "$" lines and comments


def read_build_info(lines: list[str]) -> BuildInfo:
    """From the bracketed lines that ``$I`` answers. Raises ProtocolError when sizes are missing."""
    values: dict[str, str] = {}
    for line in lines:
        if line.startswith("[") and line.endswith("]"):
            key, _, value = line[1:-1].partition(":")
            values[key] = value
    option = values.get("OPT", "").split(",")
    try:
        blocks, rx_bytes = int(option[1]), int(option[2])
    except (IndexError, ValueError):
        raise ProtocolError(f"$I tells no buffer sizes: [OPT:{values.get('OPT', '')}]") from None
    axes = values.get("AXS", "").partition(":")[2] or "XYZ"
    return BuildInfo(
        version=values.get("VER", "").rstrip(":"),
        options=option[0],
        blocks=blocks,
        rx_bytes=rx_bytes,
        axes=axes,
        firmware=values.get("FIRMWARE", "Grbl"),
        driver=values.get("DRIVER", ""),
        legacy_bytes="RT-" not in values.get("NEWOPT", "").split(","),
    )


def read_setting(line: str) -> tuple[int, str] | None:
    """``$110=7200.000`` as (110, "7200.000"); None when the line is no setting."""
    if not line.startswith("$"):
        return None
    number, equals, value = line[1:].partition("=")
    if not equals or not number.isdecimal():
        return None
    return int(number), value


def read_probe(line: str) -> tuple[tuple[float, ...], bool] | None:
    """``[PRB:1.000,2.000,3.000:1]`` as machine position in mm and contact."""
    if not (line.startswith("[PRB:") and line.endswith("]")):
        return None
    place, _, contact = line[5:-1].partition(":")
    try:
        return _numbers(place), contact == "1"
    except ValueError:
        raise ProtocolError(f"probe result cannot be read: {line[:80]!r}") from None


def is_banner(line: str) -> bool:
    """The line after power-up or reset: ``Grbl 1.1f ['$' for help]`` and its kin."""
    words = line.split(" ", 2)
    return len(words) == 3 and words[0] in ("Grbl", "GrblHAL", "grblHAL") and words[1][:1].isdigit()


def line_cost(text: str) -> int:
    """Bytes that a line takes in the controller's receive buffer, its end included."""
    return len(text) + 1

"""What a build record holds: the TELEMETRY row, the events, the header.

One telemetry row is 100 Hz of machine time: an int64 time stamp in microseconds of
simulated (or monotonic) time and float32 fields, packed little endian. The same bytes are
a valid CDR body of a ROS 2 message (int64 first, then floats: no padding anywhere), so
that common viewers plot a record without our code.

A record carries its own schema text; the reader builds its dtype from there and a field
added later harms no old record. Fields are added at the end, never moved or re-used.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import numpy as np

TELEMETRY_HZ: Final = 100

# name, unit, meaning; NaN where a value is not known (never 0 for "unknown")
TELEMETRY: Final[tuple[tuple[str, str, str], ...]] = (
    ("x_mm", "mm", "executed place of the melt pool, plan coordinates"),
    ("y_mm", "mm", "executed place of the melt pool, plan coordinates"),
    ("z_mm", "mm", "executed place of the melt pool, plan coordinates"),
    ("speed_mm_s", "mm/s", "speed along the path, from executed positions"),
    ("power_set_w", "W", "power the plan sets for the track being executed"),
    ("power_commanded_w", "W", "motion controller's output now, 0 with the gate shut"),
    ("power_measured_w", "W", "what the laser source reports"),
    ("gate", "0/1", "gate output of the motion controller"),
    ("emission", "0/1", "emission bit of the laser source"),
    ("armed", "0/1", "motion controller armed"),
    ("interlock_ok", "0/1", "hardware interlock chain closed"),
    ("segment", "1", "index of the segment being executed, -1 none"),
    ("plan_time_s", "s", "plan time at the executed position"),
    ("layer", "1", "layer being built, -1 none"),
    ("track", "1", "track being executed, -1 none"),
    ("scale", "1", "time scale: 1 nominal, 0 held"),
    ("trim", "1", "power trim of the process loop: 1 none"),
    ("powder_1_set_g_min", "g/min", "hopper 1, set"),
    ("powder_1_measured_g_min", "g/min", "hopper 1, measured at the feeder"),
    ("powder_1_left_g", "g", "hopper 1, mass left"),
    ("powder_2_set_g_min", "g/min", "hopper 2, set"),
    ("powder_2_measured_g_min", "g/min", "hopper 2, measured at the feeder"),
    ("powder_2_left_g", "g", "hopper 2, mass left"),
    ("diverter_to_nozzle", "0/1", "1: powder goes to the nozzle, 0: to the waste bottle"),
    ("carrier_set_l_min", "L/min", "carrier gas, set"),
    ("carrier_measured_l_min", "L/min", "carrier gas, measured"),
    ("shield_set_l_min", "L/min", "shield gas, set"),
    ("shield_measured_l_min", "L/min", "shield gas, measured"),
    ("oxygen_ppm", "ppm", "chamber oxygen"),
    ("coolant_deg_c", "°C", "coolant at the chiller's outlet"),
    ("chiller_pressure_mpa", "MPa", "coolant pressure"),
    ("laser_temp_deg_c", "°C", "laser source"),
    ("pool_temp_deg_c", "°C", "melt pool, NaN below the pyrometer's range"),
    ("beat_age_ms", "ms", "age of the last heartbeat at the motion controller"),
    ("link_age_ms", "ms", "age of the last status frame at the host"),
    ("queued", "1", "segments in the motion controller's queue"),
    ("state", "1", "machine state, code as in STATES"),
    ("link_state", "1", "state of the motion controller"),
    ("fault", "1", "latched fault code of the motion controller, 0 none"),
    # devices that a cell may have besides; NaN without them
    ("camera_frame", "1", "melt pool camera: number of the frame, modulo 2^24"),
    ("pool_width_mm", "mm", "melt pool camera: width of the pool"),
    ("pool_area_mm2", "mm2", "melt pool camera: area of the pool"),
    ("camera_temp_deg_c", "°C", "melt pool camera: temperature of the pool"),
    ("height_measured_mm", "mm", "height sensor, NaN without a surface"),
    ("following_error_mm", "mm", "greatest of the axes, without its sign"),
    ("drives_ready", "0/1", "axis drives ready"),
    ("drives_fault_bits", "1", "axis drives: fault word"),
    ("meter_power_w", "W", "power meter, NaN while it does not measure"),
    ("substrate_deg_c", "°C", "substrate heater: plate"),
    ("substrate_set_deg_c", "°C", "substrate heater: set, read back"),
    ("substrate_heating", "0/1", "substrate heater: on"),
    ("chamber_pressure_pa", "Pa", "chamber, above the room's"),
    ("dew_point_deg_c", "°C", "chamber"),
    ("moisture_ppm", "ppm", "chamber"),
    ("purging", "0/1", "chamber: purge valve open"),
    ("chamber_locked", "0/1", "chamber: door locked"),
    ("window_deg_c", "°C", "protective window of the head"),
    ("window_scatter_pct", "%", "light scattered by the protective window"),
    ("head_cooling_ok", "0/1", "cooling of the head"),
    ("collision", "0/1", "collision switch of the head has opened"),
    ("stream_1_kpa", "kPa", "powder stream 1, back-pressure"),
    ("stream_2_kpa", "kPa", "powder stream 2, back-pressure"),
    ("stream_3_kpa", "kPa", "powder stream 3, back-pressure"),
    ("stream_4_kpa", "kPa", "powder stream 4, back-pressure"),
    ("scale_1_g", "g", "scale under hopper 1"),
    ("scale_2_g", "g", "scale under hopper 2"),
    ("room_oxygen_pct", "%", "air of the room"),
    ("extraction_ok", "0/1", "extraction runs"),
    ("supply_air_kpa", "kPa", "compressed air"),
    ("supply_argon_kpa", "kPa", "argon"),
    ("ups_on_battery", "0/1", "emergency power supply on battery"),
    ("ups_charge_pct", "%", "emergency power supply"),
)
FIELDS: Final[tuple[str, ...]] = tuple(name for name, _, _ in TELEMETRY)
UNITS: Final[dict[str, str]] = {name: unit for name, unit, _ in TELEMETRY}
INDEX: Final[dict[str, int]] = {name: i for i, name in enumerate(FIELDS)}  # in the row's floats
N_FIELDS: Final = len(FIELDS)

TELEMETRY_ROW: Final = np.dtype([("t_us", "<i8"), *((name, "<f4") for name in FIELDS)])
# pack(t_us, *floats) -> the bytes that RecordWriter.telemetry takes; floats in FIELDS order
PACKER: Final = struct.Struct(f"<q{N_FIELDS}f")
if PACKER.size != TELEMETRY_ROW.itemsize:
    raise RuntimeError("telemetry packer and dtype differ")

# PackML state numbers (ISA-TR88.00.02 as published with the OMAC PackTags)
STATES: Final[dict[int, str]] = {
    0: "UNDEFINED",
    1: "CLEARING",
    2: "STOPPED",
    3: "STARTING",
    4: "IDLE",
    5: "SUSPENDED",
    6: "EXECUTE",
    7: "STOPPING",
    8: "ABORTING",
    9: "ABORTED",
    10: "HOLDING",
    11: "HELD",
    12: "UNHOLDING",
    13: "SUSPENDING",
    14: "UNSUSPENDING",
    15: "RESETTING",
    16: "COMPLETING",
    17: "COMPLETE",
}
STATE_EXECUTE: Final = 6

TOPIC_HEADER: Final = "/record/header"
TOPIC_TELEMETRY: Final = "/telemetry"
TOPIC_EVENT: Final = "/event"
TOPIC_SEAL: Final = "/seal"

CDR_HEADER: Final = b"\x00\x01\x00\x00"  # CDR, little endian
TELEMETRY_TYPE: Final = "lmd_msgs/msg/Telemetry"

# Event kinds that summary and report read; others are kept and listed as they are.
# "data" keys (all optional but those in quotes are what the report shows):
#   state     {"old", "new", "cause"}
#   alarm     {"code", "name", "severity", "text", "action"}: raised
#   alarm_ack / alarm_clear {"code", "name", "who"}
#   override  {"what" speed|power|powder, "old", "new", "who", "from_s": plan time, of powder}
#   command   {"what", "who", "args"}: a command of an operator or client, and its answer
#   layer     {"layer"}: first track of a layer has begun
#   hold / resume {"cause", "segment"}
#   rest      a rest of the plan is executed from here on (controller.planning.rest.parts)
#   link      {"code", "args", "device_us"}: an entry of the motion controller's event log
#   device    {"device", "text"}
#   log       {"level", "text"}
#   record_end {"state"}: written by close(), always the last
EVENT_KINDS: Final = (
    "state", "alarm", "alarm_ack", "alarm_clear", "override", "command", "layer", "hold",
    "resume", "rest", "link", "device", "log", "record_end",
)  # fmt: skip

# Keys of the header message. It is sealed, but outside of the content hash, so wall time,
# serial numbers and names may stand here. All optional; the report prints what it finds.
#   started_wall   ISO 8601 text of controller.clock
#   operator, cell, cell_title, simulated (bool), mode, recipe, recipe_sha256, part (dict)
#   software       {name: version}: host, firmware, protocol, python
#   devices        {role: {"driver", "model", "serial", "firmware", "calibrated"}}
#   materials      [{"hopper", "powder", "lot", "mass_g"}]
#   seed, scenario, time ("real" | "virtual" | "null"), plan_hash, calibrations (dict)
#   link           {"kind", "lacks": {name: sentence}}: the motion link, and what it cannot give
#   deviations     [str]: what production mode would have refused
#   resumes        {"record", "content_hash", "started_wall", "restarts"}: the build it goes on with
HEADER_KEYS: Final = (
    "started_wall", "operator", "cell", "cell_title", "simulated", "mode", "recipe",
    "recipe_sha256", "part", "software", "devices", "materials", "seed", "scenario", "time",
    "plan_hash", "calibrations", "deviations", "resumes", "link",
)  # fmt: skip


def message_definition() -> bytes:
    """The ros2msg text of TELEMETRY, stored in the record."""
    lines = ["int64 t_us  # microseconds of machine time"]
    lines += [f"float32 {name}  # {unit}: {meaning}" for name, unit, meaning in TELEMETRY]
    return ("\n".join(lines) + "\n").encode()


def dtype_of_definition(text: str) -> np.dtype:
    """The row dtype of a record's own ros2msg text. Raises ValueError on an unknown type."""
    kinds = {"int64": "<i8", "float32": "<f4", "float64": "<f8", "int32": "<i4"}
    fields = []
    for line in text.splitlines():
        body = line.split("#", 1)[0].split()
        if not body:
            continue
        if len(body) != 2 or body[0] not in kinds:
            raise ValueError(f"unknown field in telemetry schema: {line!r}")
        fields.append((body[1], kinds[body[0]]))
    return np.dtype(fields)


class Recorder(Protocol):
    """What the server calls: RecordWriter in its own process, RecorderProcess over a pipe.

    ``writer.RecordWriter(folder, key, header, *, job=None, expected_s=600.0,
    sync_due=lambda: True)`` and ``recorder_process.RecorderProcess(folder, key_path, header,
    *, job=None, expected_s=600.0)`` both raise RecordError when the folder cannot be
    written or has too little room, and leave nothing behind then.
    ``job``: path of a .lmdjob that is copied into the folder as job.lmdjob and covered by
    the seals. ``expected_s``: length of the build, for the room to reserve.
    ``sync_due``: asked at each seal; True: fdatasync now (virtual time: once a wall second).
    """

    sealed_until_us: int  # machine time up to which the file is sealed

    def telemetry(self, t_us: int, packed: bytes) -> None:
        """One row: ``PACKER.pack(t_us, *floats)``. Raises RecordError (disk full, dead)."""
        ...

    def event(self, t_us: int, kind: str, data: Mapping[str, Any]) -> None:
        """One event; data must be plain JSON, simulated time only."""
        ...

    def tick(self, t_us: int) -> None:
        """Let chunks and seals end when no telemetry comes; cheap, call it at any rate."""
        ...

    def close(self, t_us: int, state: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Write end event, last seal, footer and record.seal; join the process.

        ``data`` (may hold wall times, ``time_ratio``...) goes into record.seal, outside of
        the content hash. Returns {"content_hash", "rows", "events", "length", "t_us",
        "state", "key_id", "folder"}. A second call returns the same dict.
        """
        ...


SyncDue = Callable[[], bool]

"""What a motion link tells and is told: settings, status, events, statistics."""

import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from firmware_bridge.errors import ProtocolError

N_AXES = 6
CONFIG_VERSION = 2
RTT_CLASSES = 16


class LinkState(IntEnum):
    """States of the motion controller."""

    IDLE = 0
    HOMING = 1
    RUN = 2
    HOLDING = 3  # decelerating along the path
    HELD = 4
    FAULT = 5
    JOG = 6
    PROBE = 7


class FaultCode(IntEnum):
    """Latched faults of the motion controller."""

    NONE = 0
    BEAT_LOST = 1
    INTERLOCK = 2
    UNDERRUN = 3
    MAX_ON_TIME = 4
    STILL = 5
    HOST_ABORT = 6
    HOMING = 7
    LIMIT = 8  # an axis ran into a limit switch
    FOLLOWING = 9  # a drive reports following error
    LOST_STEPS = 10  # an encoder disagrees with the steps made


class ProbeOutcome(IntEnum):
    """What became of the last probe."""

    NONE = 0
    UNDER_WAY = 1
    FOUND = 2
    MISSED = 3
    ENDED = 4  # by a stop or a fault


class EventCode(IntEnum):
    """Codes of the device's event log."""

    GATE = 1
    ARMED = 3
    STATE = 4
    FAULT = 5
    TRACK_START = 6
    FAULT_RESET = 8
    HOLD = 9  # arg 1 at once, 2 at the track's end, 0 taken back, 3 by itself (queue low)
    REFUSED = 10
    LOST = 11
    HOMED = 12
    POWER_UP = 13
    PROBED = 14  # arg: steps
    PROBE_MISSED = 15


def _round(value: float) -> int:
    """To the nearest integer, halves up: the rule of docs/protocol.md section 8."""
    return math.floor(value + 0.5)


@dataclass(frozen=True, slots=True)
class AxisSettings:
    """One axis; mm stands for degree on a rotary axis."""

    steps_per_mm: float
    speed_mm_s: float
    accel_mm_s2: float
    min_mm: float
    max_mm: float
    limit_low: bool = False  # limit switch at the low end in use
    limit_high: bool = False
    encoder_per_mm: float = 0.0  # counts, negative when it counts the other way; 0: no encoder
    lost_steps: int = 0  # with an encoder: more than this is a fault


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What host and controller must agree on before anything is armed."""

    axes: tuple[AxisSettings, ...]
    total_accel_mm_s2: float
    plan_share: float
    longest_emission_s: float
    heartbeat_timeout_s: float = 0.1
    homing_speed_mm_s: float = 20.0
    following_error_input: bool = False
    probe_input: bool = False

    def config_blob(self) -> bytes:
        """The configuration, docs/protocol.md section 8. Raises ProtocolError if none fits."""
        if not 1 <= len(self.axes) <= N_AXES:
            raise ProtocolError(f"{len(self.axes)} axes, the protocol has 1 to {N_AXES}")
        try:
            blob = struct.pack(
                "<HBBHHIIIHH",
                CONFIG_VERSION,
                len(self.axes),
                int(self.following_error_input) | int(self.probe_input) << 1,
                _round(self.heartbeat_timeout_s * 1e3),
                _round(self.plan_share * 32768),
                _round(self.longest_emission_s * 1e3),
                _round(self.homing_speed_mm_s * 1e3),
                _round(self.total_accel_mm_s2 * 1e3),
                sum(a.limit_low << k | a.limit_high << 8 + k for k, a in enumerate(self.axes)),
                0,
            )
            for a in self.axes:
                blob += struct.pack(
                    "<IIIiiiHH",
                    _round(a.steps_per_mm * 1e3),
                    _round(a.speed_mm_s * a.steps_per_mm),
                    _round(a.accel_mm_s2 * a.steps_per_mm),
                    _round(a.min_mm * a.steps_per_mm),
                    _round(a.max_mm * a.steps_per_mm),
                    _round(a.encoder_per_mm * 65536 / a.steps_per_mm),
                    a.lost_steps,
                    0,
                )
        except (struct.error, ValueError, OverflowError) as exc:
            raise ProtocolError(f"motion settings do not fit the configuration: {exc}") from None
        return blob

    def config_hash(self) -> int:
        """CRC-32 of the configuration."""
        return zlib.crc32(self.config_blob())


@dataclass(frozen=True, slots=True)
class LinkIdentity:
    """What the controller said of itself in the handshake."""

    protocol: int
    firmware: str  # major.minor.patch
    boot_nonce: int
    config_hash: int
    queue_size: int
    n_axes: int


@dataclass(frozen=True, slots=True)
class MotionStatus:
    """One status frame.

    What a controller does not tell is -1 in ``beat_age_us`` and ``queued``, NaN in ``scale`` and
    ``power_fraction``: never 0, never what was commanded.
    """

    device_us: int
    state: int  # LinkState
    armed: bool
    gate_on: bool
    interlock_ok: bool
    homed: bool
    fault: int  # FaultCode
    segment: int  # being executed or last executed; first index - 1 before any
    segment_tick_us: int  # scaled time into it
    scale: float  # time scale now
    power_fraction: float  # power output / full scale
    position_steps: tuple[int, ...]
    queued: int
    beat_age_us: int
    tracks_started: int
    received_us: int  # host loop time at which it came
    hold_pending: bool  # HOLD waits for the end of the track
    inputs: int = 0  # bit k: input k of docs/protocol.md section 4
    probe: int = 0  # ProbeOutcome
    probe_axis: int = 0
    probe_steps: int = 0  # position of that axis at the edge
    power_law: int = 0  # in force, 0 linear
    lost_steps: tuple[int, ...] = (0,) * N_AXES  # steps made less what encoders counted


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """One entry of the device's event log."""

    device_us: int
    code: int  # EventCode
    arg: int
    segment: int


def rtt_class(us: int) -> int:
    """Class of a round trip in ``LinkStats.rtt_counts``: below 64, 128, 256 ... us, the rest."""
    return min(RTT_CLASSES - 1, max(0, (us >> 6).bit_length()))


@dataclass(slots=True)
class LinkStats:
    """Counters since connect."""

    frames_sent: int = 0
    frames_received: int = 0
    frames_lost: int = 0  # device frames that never came whole
    resends: int = 0
    naks: int = 0
    refused: int = 0
    bad_bytes: int = 0
    beats: int = 0
    beat_retries: int = 0  # commands sent again after a gap in the beats
    underruns: int = 0  # the device held itself, queue low or dry
    rtt_us: int = 0
    rtt_max_us: int = 0
    rtt_counts: list[int] = field(default_factory=lambda: [0] * RTT_CLASSES)  # see rtt_class
    beat_late_max_us: int = 0  # a beat after its due instant
    queue_least_us: int = -1  # planned time queued while playing, job's end not in sight; -1 none
    clock_offset_us: int = 0  # host - device, the middle of what is possible
    clock_error_us: int = -1  # the true offset is no further away than this; -1 unknown


@dataclass(frozen=True, slots=True)
class ProgramLine:
    """One line for a controller that plans by itself, and what of the plan it stands for.

    ``text`` has neither line number nor line end: the link adds both, and finds the place in the
    plan from the number that the controller reports.
    """

    text: str
    segment: int  # the plan's first segment that this line plays; the line ends at the next one's
    track: int = -1  # -1: no bead
    gate: bool = False  # the gate is open while the line moves


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a motion link gives; what it lacks is told in preflight and record."""

    dead_man: bool  # the controller itself shuts the gate when the host falls silent
    power_law: bool  # any g(v/F) with its floor; else power is S v/F
    gate_timing: bool  # gate edges at any microsecond, latency compensated
    exact_position: bool  # the plan's own segments, to the step
    gate_first: bool  # HOLD_NOW shuts the gate before the axes slow down
    hold_at_track_end: bool
    trim: bool  # power factor with a life of 100 ms
    device_time: bool  # status and events carry the controller's clock
    jog: bool
    probe: bool
    resume_in_bead: bool = True  # held, it takes a rest of the plan with run-up and overlap


SEGMENT_LINK = Abilities(
    dead_man=True,
    power_law=True,
    gate_timing=True,
    exact_position=True,
    gate_first=True,
    hold_at_track_end=True,
    trim=True,
    device_time=True,
    jog=True,
    probe=True,
)


class Link(Protocol):
    """What the controller uses of a motion link, whichever machine is behind it.

    ``status`` is the newest one, a new object each time; ``failure`` says why the link is of no
    use any more. Awaited commands raise DeviceError with the reason, TransportError when the
    wire is gone. The others raise only TransportError; a refusal stays in ``refusal``. The gate
    may open only while ``token`` is called each 10 ms.

    What is to be executed is given by ``load(segments)`` where ``abilities.exact_position``. A
    controller that plans by itself gets a program instead (``load_program``): whole, from its
    first line on, also for the rest of a build. ``status.segment`` and ``segment_tick_us`` are
    the plan's either way.
    """

    identity: LinkIdentity | None
    status: MotionStatus | None
    stats: LinkStats
    failure: str
    refusal: str
    on_event: Callable[[LinkEvent], None] | None
    on_lost: Callable[[str], None] | None

    @property
    def abilities(self) -> Abilities:
        """What this link gives; known before it is connected."""
        ...

    @property
    def lacks(self) -> Mapping[str, str]:
        """What it cannot give: name -> one sentence, for preflight, record and report."""
        ...

    @property
    def finished(self) -> bool:
        """Everything that was loaded has been executed."""
        ...

    async def connect(self) -> LinkIdentity:
        """Open the wire, shake hands, compare settings. Raises BridgeError."""
        ...

    def close(self) -> None:
        """Give the wire back; the gate shuts."""
        ...

    def token(self) -> None:
        """The supervisor is alive."""
        ...

    async def home(self, timeout_s: float = 180.0) -> None:
        """Find the reference; afterwards ``status.homed``."""
        ...

    async def arm(self) -> None:
        """Permit the gate to open."""
        ...

    async def disarm(self) -> None:
        """Gate off at once, axes decelerate."""
        ...

    async def reset(self) -> None:
        """Clear a latched fault; never starts anything."""
        ...

    def start(self, first: int = 0) -> None:
        """Execute what was loaded, from segment ``first`` on; drops what was queued before."""
        ...

    def hold(self, *, now: bool) -> None:
        """Stop along the path, at once or (where the link can) at the track's end."""
        ...

    def unhold(self) -> None:
        """Go on along the path."""
        ...

    def abort(self) -> None:
        """Gate off, stop, latch a fault."""
        ...

    def override(self, scale: float) -> None:
        """Speed as a factor of the plan's."""
        ...

    def trim(self, factor: float) -> None:
        """Power as a factor of the plan's."""
        ...

    async def power_law(self, number: int, points: Sequence[tuple[float, float]]) -> None:
        """As MotionLink.power_law. Raises DeviceError where the link cannot."""
        ...

    def jog(self, speeds_mm_s: Sequence[float]) -> None:
        """Axes go at these speeds (degree/s where they turn) for 100 ms; all 0 ends it at once.

        To be called each 40 ms. What a link cannot stays in ``refusal``, with the name of the
        sentence in ``lacks``.
        """
        ...

    async def probe(
        self, axis: int, target_mm: float, speed_mm_s: float, timeout_s: float = 120.0
    ) -> float:
        """Go until the probe closes, ``target_mm`` at most; the place of the edge.

        Both in mm from the axis' home switch. Raises DeviceError: found nothing, refused, ended
        by a stop or a fault, not done in time.
        """
        ...

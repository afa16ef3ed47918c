"""Interlocks: pure functions of one MachineSnapshot.

``emission_blockers`` says why the laser may not be enabled now. ``watch`` applies the
rules of the fault table with their times and says which alarms to raise and to clear.
The hardware safety chain is the safety; these rules mirror it and act earlier.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from controller.config import Cell
from controller.machine.snapshot import Blocker, MachineSnapshot
from controller.machine.states import BUILDING, State
from firmware_bridge.link_types import FaultCode, LinkState

LINK_AGE_US = 100_000  # a status frame comes every 10 ms
LOW_SHARE = 0.8  # of the set flow
GAS_SETTLE_US = 2_000_000  # a flow controller's way to a new setpoint
# A laser reading shows emission without a command when the gate was shut this long before
# it, and a status that came this long after it (the power is measured meanwhile) says so too.
# The source's meter lags by tens of ms: soon after the gate only a high reading proves much.
GATE_QUIET_US = 40_000
QUIET_SHARE = 0.2  # of rated power
LONG_QUIET_US = 120_000  # then anything above the threshold does
JUDGE_AFTER_US = 20_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What the rules compare with; from the cell file and the loaded job's recipe."""

    age_us: dict[str, int]  # greatest age by role
    coolant_set_deg_c: float
    coolant_low_deg_c: float
    coolant_high_deg_c: float
    laser_threshold_w: float
    laser_rated_w: float
    powder_settle_us: int
    oxygen_limit_ppm: float | None = None  # None: the alloy may be built in open air

    @classmethod
    def of(cls, cell: Cell, *materials: str) -> "Limits":
        """Limits of a cell, and of the alloys where a job is loaded: the strictest holds.

        An alloy that is neither named for open air nor given a limit gets the limit 0:
        it cannot be built before the cell file says at how much oxygen.
        """
        oxygen = cell.limits.oxygen
        limited = [oxygen.alloys.get(m, 0.0) for m in materials if m not in oxygen.open_air]
        limit = min(limited, default=None)
        roles = ("laser", "powder", "gas", "chiller", "oxygen", "pyrometer", "safety")
        return cls(
            age_us={role: round(getattr(cell, role).max_age_s * 1e6) for role in roles},
            coolant_set_deg_c=cell.chiller.setpoint_deg_c,
            coolant_low_deg_c=cell.limits.coolant_deg_c[0],
            coolant_high_deg_c=cell.limits.coolant_deg_c[1],
            laser_threshold_w=cell.laser.threshold_power_w,
            laser_rated_w=cell.laser.rated_power_w,
            powder_settle_us=round(3e6 * cell.powder.lag_s) + 1_000_000,
            oxygen_limit_ppm=limit,
        )


def stale(s: MachineSnapshot, lim: Limits, role: str) -> bool:
    """A reading that never came or is older than its greatest age."""
    reading = getattr(s, role)
    return reading is None or s.now_us - reading.at_us > lim.age_us[role]


def link_stale(s: MachineSnapshot) -> bool:
    """No connection, or no status of the motion controller within the greatest age."""
    return not s.link_up or s.motion is None or s.now_us - s.motion.received_us > LINK_AGE_US


# --- why not -----------------------------------------------------------------------------


def emission_blockers(s: MachineSnapshot, lim: Limits) -> tuple[Blocker, ...]:
    """Every reason why the laser may not be enabled now; empty means permitted."""
    found: list[Blocker] = []

    def no(name: str, text: str) -> None:
        found.append(Blocker(name, text))

    if link_stale(s):
        no("MOTION_SILENT", "the motion controller sends no status")
    else:
        m = s.motion
        if m.fault:
            no("MOTION_FAULT", f"the motion controller has fault {_fault(m.fault)} latched")
        if not m.homed:
            no("NOT_HOMED", "the axes are not homed")
        if not m.interlock_ok:
            no("INTERLOCK_INPUT", "the motion controller's interlock input is open")
    if stale(s, lim, "safety"):
        no("SAFETY_SILENT", "the safety PLC's values are stale")
    else:
        if not s.safety.estop_ok:
            no("ESTOP", "an emergency stop is pressed")
        if not s.safety.door_closed:
            no("DOOR_OPEN", "the door is open")
        if not s.safety.interlock_ok:
            no("CHAIN_OPEN", "the hardware interlock chain is open")
        if s.safety.reset_needed:
            no("CHAIN_RESET", "the safety chain waits for its reset button")
        if not s.safety.watchdog_ok:
            no("SAFETY_WATCHDOG", "the safety PLC reports an error")
        if not s.safety.supply_relay_on:
            no("SUPPLY_RELAY", "the laser's supply relay is off")
    if stale(s, lim, "laser"):
        no("LASER_SILENT", "the laser source's values are stale")
    else:
        if s.laser.fault_bits:
            no("LASER_FAULT", f"the laser source reports {_faults(s)}")
        if not s.laser.ready:
            no("LASER_NOT_READY", "the laser source is not ready")
    if stale(s, lim, "chiller"):
        no("CHILLER_SILENT", "the chiller's values are stale")
    else:
        if not s.chiller.flow_ok:
            no("CHILLER_FLOW", "the chiller reports no flow")
        t = s.chiller.coolant_deg_c
        if not lim.coolant_low_deg_c <= t <= lim.coolant_high_deg_c:
            no(
                "COOLANT",
                f"coolant is {t:.1f} degC, permitted {lim.coolant_low_deg_c:g} to "
                f"{lim.coolant_high_deg_c:g} degC",
            )
    if stale(s, lim, "powder"):
        no("POWDER_SILENT", "the powder feeder's values are stale")
    else:
        if s.powder.stalled:
            no("POWDER_STALLED", "the powder feeder reports a stall")
        if not s.powder.ready:
            no("POWDER_NOT_READY", "the powder feeder reports that it is not ready")
    if stale(s, lim, "gas"):
        no("GAS_SILENT", "the gas flow controllers' values are stale")
    if stale(s, lim, "pyrometer"):
        no("PYROMETER_SILENT", "the pyrometer's values are stale")
    if lim.oxygen_limit_ppm is not None:
        if stale(s, lim, "oxygen") or not s.oxygen.valid:
            no("OXYGEN_SILENT", "the oxygen analyser has no valid value")
        elif s.oxygen.oxygen_ppm > lim.oxygen_limit_ppm:
            no(
                "OXYGEN_HIGH",
                f"chamber oxygen is {s.oxygen.oxygen_ppm:.0f} ppm, permitted "
                f"{lim.oxygen_limit_ppm:g} ppm",
            )
    return tuple(found)


def _fault(code: int) -> str:
    try:
        return FaultCode(code).name
    except ValueError:
        return f"code {code}"


def _faults(s: MachineSnapshot) -> str:
    return ", ".join(s.laser.faults) or f"fault bits {s.laser.fault_bits:#x}"


# --- the fault table ---------------------------------------------------------------------

_HOST_ABORTS = (State.ABORTING, State.ABORTED, State.CLEARING)
Test = Callable[[MachineSnapshot, Limits], bool | None]
Say = Callable[[MachineSnapshot, Limits], str]


def _silent(s: MachineSnapshot, lim: Limits) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Rule:
    """When an alarm is raised: ``test`` true for ``delay_us``.

    ``test`` returns True (bad), False (good) or None (this snapshot proves nothing: the
    time that was counted stays). Out of its states a rule raises nothing, but an alarm
    that is present stays so while its test is still true.
    """

    alarm: str
    delay_us: int
    test: Test
    always: bool = False  # False: only while a build is on its way
    ending: bool = False  # and while it is being stopped: the cause may be read after its effect
    say: Say = _silent


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


_STREAMED = (State.EXECUTE, State.HOLDING, State.HELD, State.UNHOLDING)


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


def _estop(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if stale(s, lim, "safety") else not s.safety.estop_ok


def _door(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if stale(s, lim, "safety") else not s.safety.door_closed


def _chain(s: MachineSnapshot, lim: Limits) -> bool | None:
    motion_open = s.motion is not None and not s.motion.interlock_ok
    if stale(s, lim, "safety"):
        return motion_open or None
    return not s.safety.interlock_ok or motion_open


def _safety_silent(s: MachineSnapshot, lim: Limits) -> bool:
    return stale(s, lim, "safety")


def _safety_watchdog(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if stale(s, lim, "safety") else not s.safety.watchdog_ok


def _emission_uncommanded(s: MachineSnapshot, lim: Limits) -> bool | None:
    if s.laser is None:
        return None
    if s.laser.unexpected_emission:
        return True
    at_us = s.laser.at_us
    if s.motion is None or s.motion.received_us - at_us < JUDGE_AFTER_US:
        return None
    quiet_us = at_us - s.gate_open_us
    if quiet_us < GATE_QUIET_US:
        return None
    long = quiet_us >= LONG_QUIET_US
    return s.laser.power_measured_w > (
        lim.laser_threshold_w if long else QUIET_SHARE * lim.laser_rated_w
    )


def _back_reflection(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if s.laser is None else s.laser.back_reflection


def _laser_silent(s: MachineSnapshot, lim: Limits) -> bool:
    return stale(s, lim, "laser")


def _laser_fault(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if s.laser is None else bool(s.laser.fault_bits)


def _laser_not_ready(s: MachineSnapshot, lim: Limits) -> bool | None:
    if not s.laser_enabled or stale(s, lim, "laser"):
        return None
    return not (s.laser.enabled and s.laser.ready)


def _power_low(s: MachineSnapshot, lim: Limits) -> bool | None:
    return s.power_short


def _chiller_silent(s: MachineSnapshot, lim: Limits) -> bool:
    return stale(s, lim, "chiller")


def _chiller_flow(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if stale(s, lim, "chiller") else not s.chiller.flow_ok


def _chiller_alarm(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if stale(s, lim, "chiller") else bool(s.chiller.alarm_bits)


def _coolant_above(kelvin: float) -> Test:
    def test(s: MachineSnapshot, lim: Limits) -> bool | None:
        if stale(s, lim, "chiller"):
            return None
        return s.chiller.coolant_deg_c > lim.coolant_set_deg_c + kelvin

    return test


def _coolant_cold(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if stale(s, lim, "chiller") else s.chiller.coolant_deg_c < lim.coolant_low_deg_c


def _powder_silent(s: MachineSnapshot, lim: Limits) -> bool:
    return stale(s, lim, "powder")


def _powder_stalled(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if stale(s, lim, "powder") else s.powder.stalled


def _powder_not_ready(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if stale(s, lim, "powder") else not s.powder.ready


def _powder_low(s: MachineSnapshot, lim: Limits) -> bool | None:
    if stale(s, lim, "powder"):
        return None
    pairs = zip(s.powder_needed_g, s.powder.mass_left_g, strict=False)
    # the scale shows whole grams
    return any(need > 0.0 and left + 0.5 < need for need, left in pairs)


def _powder_starved(s: MachineSnapshot, lim: Limits) -> bool | None:
    if stale(s, lim, "powder"):
        return None
    asked = s.powder_set_g_min
    if s.now_us - s.powder_set_us < lim.powder_settle_us:
        asked = s.powder_least_g_min
        if not any(asked):
            return None
    pairs = zip(asked, s.powder.flow_measured_g_min, strict=False)
    return any(ask > 0.0 and flow < LOW_SHARE * ask for ask, flow in pairs)


def _gas_silent(s: MachineSnapshot, lim: Limits) -> bool:
    return stale(s, lim, "gas")


def _carrier_low(s: MachineSnapshot, lim: Limits) -> bool | None:
    if stale(s, lim, "gas") or s.now_us - s.gas_set_us < GAS_SETTLE_US:
        return None
    return s.gas.carrier_l_min < LOW_SHARE * s.carrier_set_l_min


def _shield_low(s: MachineSnapshot, lim: Limits) -> bool | None:
    if stale(s, lim, "gas") or s.now_us - s.gas_set_us < GAS_SETTLE_US:
        return None
    return s.gas.shield_l_min < LOW_SHARE * s.shield_set_l_min


def _oxygen_silent(s: MachineSnapshot, lim: Limits) -> bool:
    if lim.oxygen_limit_ppm is None:
        return False
    return stale(s, lim, "oxygen") or not s.oxygen.valid


def _oxygen_above(times: float) -> Test:
    def test(s: MachineSnapshot, lim: Limits) -> bool | None:
        if lim.oxygen_limit_ppm is None:
            return False
        if stale(s, lim, "oxygen") or not s.oxygen.valid:
            return None
        return s.oxygen.oxygen_ppm > times * lim.oxygen_limit_ppm

    return test


def _pyrometer_lost(s: MachineSnapshot, lim: Limits) -> bool:
    # in a hold nothing shines that could be seen: whoever goes on has looked, and counts anew
    return s.unseen_emission_s > 2.0 and s.state in (State.EXECUTE, State.HOLDING)


def _powder_say(s: MachineSnapshot, lim: Limits) -> str:
    need = ", ".join(f"{v:.0f} g" for v in s.powder_needed_g)
    left = ", ".join(f"{v:.0f} g" for v in s.powder.mass_left_g)
    return f"the plan still needs {need}; left {left}"


def _flow_say(s: MachineSnapshot, lim: Limits) -> str:
    sets = ", ".join(f"{v:.2f}" for v in s.powder_set_g_min)
    flows = ", ".join(f"{v:.2f}" for v in s.powder.flow_measured_g_min)
    return f"set {sets} g/min, measured {flows} g/min"


def _coolant_say(s: MachineSnapshot, lim: Limits) -> str:
    return f"coolant {s.chiller.coolant_deg_c:.1f} degC, setpoint {lim.coolant_set_deg_c:g} degC"


def _oxygen_say(s: MachineSnapshot, lim: Limits) -> str:
    return f"{s.oxygen.oxygen_ppm:.0f} ppm, limit {lim.oxygen_limit_ppm or 0:g} ppm"


# Worst first: of several alarms in one tick the worst becomes the first-out.
RULES: tuple[Rule, ...] = (
    Rule("ESTOP", 0, _estop, always=True),
    Rule("DOOR_OPEN", 0, _door, ending=True),
    Rule("CHAIN_OPEN", 0, _chain, ending=True),
    Rule("LINK_LOST", 0, _link_lost, always=True),
    Rule("FIRMWARE_FAULT", 0, _firmware_fault, always=True,
         say=lambda s, lim: _fault(s.motion.fault)),
    Rule("EMISSION_UNCOMMANDED", 0, _emission_uncommanded, always=True,
         say=lambda s, lim: f"measured {s.laser.power_measured_w:.0f} W, gate shut"),
    Rule("BACK_REFLECTION", 0, _back_reflection),
    Rule("HOMING_LOST", 0, _homing_lost),
    Rule("MOTION_REFUSED", 0, _motion_refused, say=lambda s, lim: s.refusal),
    Rule("MOTION_STALLED", 500_000, _motion_stalled),
    Rule("SAFETY_SILENT", 0, _safety_silent),
    Rule("SAFETY_WATCHDOG", 0, _safety_watchdog),
    Rule("LASER_SILENT", 0, _laser_silent),
    Rule("LASER_FAULT", 0, _laser_fault, say=lambda s, lim: _faults(s)),
    Rule("LASER_NOT_READY", 100_000, _laser_not_ready),
    Rule("LASER_POWER_LOW", 700_000, _power_low,
         say=lambda s, lim: f"measured {s.laser.power_measured_w:.0f} W, "
                            f"track set {s.power_set_w:.0f} W"),
    Rule("CHILLER_SILENT", 0, _chiller_silent),
    Rule("CHILLER_FLOW", 300_000, _chiller_flow),
    Rule("CHILLER_ALARM", 0, _chiller_alarm,
         say=lambda s, lim: f"alarm bits {s.chiller.alarm_bits}"),
    Rule("COOLANT_HOT", 300_000, _coolant_above(5.0), say=_coolant_say),
    Rule("CARRIER_LOW", 300_000, _carrier_low,
         say=lambda s, lim: f"{s.gas.carrier_l_min:.2f} of {s.carrier_set_l_min:g} L/min"),
    Rule("GAS_SILENT", 0, _gas_silent),
    Rule("OXYGEN_TOO_HIGH", 0, _oxygen_above(2.0), say=_oxygen_say),
    Rule("OXYGEN_SILENT", 0, _oxygen_silent),
    Rule("SELF_HOLD", 0, _self_hold),
    Rule("COOLANT_WARM", 300_000, _coolant_above(2.0), say=_coolant_say),
    Rule("COOLANT_COLD", 900_000, _coolant_cold, say=_coolant_say),
    Rule("SHIELD_LOW", 300_000, _shield_low,
         say=lambda s, lim: f"{s.gas.shield_l_min:.2f} of {s.shield_set_l_min:g} L/min"),
    Rule("POWDER_STALLED", 0, _powder_stalled),
    Rule("POWDER_NOT_READY", 0, _powder_not_ready),
    Rule("POWDER_LOW", 0, _powder_low, say=_powder_say),
    Rule("POWDER_SILENT", 0, _powder_silent),
    Rule("POWDER_STARVED", 300_000, _powder_starved, say=_flow_say),
    Rule("OXYGEN_HIGH", 3_000_000, _oxygen_above(1.0), say=_oxygen_say),
    Rule("PYROMETER_LOST", 0, _pyrometer_lost),
)  # fmt: skip


@dataclass(slots=True)
class Timers:
    """What ``watch`` remembers between ticks: how long each test has been true."""

    held_us: dict[str, int] = field(default_factory=dict)
    active: dict[str, bool] = field(default_factory=dict)
    last_us: int = -1


def watch(
    s: MachineSnapshot, lim: Limits, timers: Timers, rules: tuple[Rule, ...] = RULES
) -> tuple[list[tuple[str, str]], list[str]]:
    """Apply the rules: (alarms to raise with their detail, alarms to clear).

    A reading is up to one poll period old when it is judged, and a HOLD may wait for the end
    of the track: delays are shorter than the fault table's times by both.
    """
    raised: list[tuple[str, str]] = []
    cleared: list[str] = []
    step_us = max(0, s.now_us - timers.last_us) if timers.last_us >= 0 else 0
    timers.last_us = s.now_us
    if not s.online:
        return raised, cleared
    building = s.state in BUILDING
    ending = s.state in (State.STOPPING, State.ABORTING)
    held, active = timers.held_us, timers.active
    for rule in rules:
        name = rule.alarm
        if not (building or rule.always or (ending and rule.ending)):
            held.pop(name, None)
            if name in active and not rule.test(s, lim):
                del active[name]
                cleared.append(name)
            continue
        bad = rule.test(s, lim)
        if bad:
            if name not in active:
                # counted from the first bad snapshot, not from the one before it
                since = held[name] = held[name] + step_us if name in held else 0
                if since >= rule.delay_us:
                    active[name] = True
                    raised.append((name, rule.say(s, lim)))
        elif bad is False:
            if name in held:
                del held[name]
            if name in active:
                del active[name]
                cleared.append(name)
    return raised, cleared

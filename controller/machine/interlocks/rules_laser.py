"""Rules on the laser source and its coolant."""

from controller.machine.interlocks.limits import Limits, stale
from controller.machine.interlocks.rows import Block, Link, Rule, Test, fresh, gone, silence
from controller.machine.snapshot import MachineSnapshot

# A laser reading shows emission without a command when the gate was shut this long before
# it, and a status that came this long after it (the power is measured meanwhile) says so too.
# The source's meter lags by tens of ms: soon after the gate only a high reading proves much.
GATE_QUIET_US = 40_000
QUIET_SHARE = 0.2  # of rated power
LONG_QUIET_US = 120_000  # then anything above the threshold does
JUDGE_AFTER_US = 20_000


def _faults(s: MachineSnapshot) -> str:
    return ", ".join(s.laser.faults) or f"fault bits {s.laser.fault_bits:#x}"


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
    dark_w = lim.laser_threshold_w if long else QUIET_SHARE * lim.laser_rated_w
    return not s.laser.power_measured_w <= dark_w


def _back_reflection(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if s.laser is None else s.laser.back_reflection


def _laser_fault(s: MachineSnapshot, lim: Limits) -> bool | None:
    return None if s.laser is None else bool(s.laser.fault_bits)


def _laser_not_ready(s: MachineSnapshot, lim: Limits) -> bool | None:
    if not s.laser_enabled or stale(s, lim, "laser"):
        return None
    return not (s.laser.enabled and s.laser.ready)


def _power_low(s: MachineSnapshot, lim: Limits) -> bool | None:
    return s.power_short


def _coolant_above(kelvin: float) -> Test:
    return fresh(
        "chiller", lambda s, lim: not s.chiller.coolant_deg_c <= lim.coolant_set_deg_c + kelvin
    )


def _dewing(s: MachineSnapshot, lim: Limits) -> bool | None:
    """Coolant near or below the dew point of the air around the optics that it cools."""
    if "chamber" not in lim.age_us:
        return False
    if stale(s, lim, "chiller") or stale(s, lim, "chamber"):
        return None
    return not s.chiller.coolant_deg_c >= s.chamber.dew_point_deg_c + lim.fitted.dew_margin_k


def _dewing_say(s: MachineSnapshot, lim: Limits) -> str:
    return (
        f"coolant is {s.chiller.coolant_deg_c:.1f} degC, dew point "
        f"{s.chamber.dew_point_deg_c:.1f} degC"
    )


def _coolant_say(s: MachineSnapshot, lim: Limits) -> str:
    return f"coolant {s.chiller.coolant_deg_c:.1f} degC, setpoint {lim.coolant_set_deg_c:g} degC"


RULES: tuple[Rule, ...] = (
    Rule("EMISSION_UNCOMMANDED", 0, _emission_uncommanded, 0.1, reads="laser", always=True,
         say=lambda s, lim: f"measured {s.laser.power_measured_w:.0f} W, gate shut",
         clears="when the source is dark"),
    Rule("BACK_REFLECTION", 0, _back_reflection, 0.1, reads="laser",
         clears="when the source's latch was reset by a person"),
    Rule("LASER_SILENT", 0, gone("laser"), 0.7, reads="laser"),
    Rule("LASER_FAULT", 0, _laser_fault, 0.5, reads="laser", say=lambda s, lim: _faults(s)),
    Rule("LASER_NOT_READY", 100_000, _laser_not_ready, 0.5, reads="laser"),
    Rule("LASER_POWER_LOW", 700_000, _power_low, 1.0, reads="laser",
         say=lambda s, lim: f"measured {s.laser.power_measured_w:.0f} W, "
                            f"track set {s.power_set_w:.0f} W",
         clears="when a measured power fits its command"),
    Rule("CHILLER_SILENT", 0, gone("chiller"), 1.2, reads="chiller"),
    Rule("CHILLER_FLOW", 300_000, fresh("chiller", lambda s, lim: not s.chiller.flow_ok), 0.5,
         reads="chiller"),
    Rule("CHILLER_ALARM", 0, fresh("chiller", lambda s, lim: bool(s.chiller.alarm_bits)), 0.5,
         reads="chiller", say=lambda s, lim: f"alarm bits {s.chiller.alarm_bits}"),
    Rule("COOLANT_HOT", 300_000, _coolant_above(5.0), 0.5, reads="chiller", say=_coolant_say),
    Rule("COOLANT_WARM", 300_000, _coolant_above(2.0), 1.0, reads="chiller", say=_coolant_say),
    Rule("COOLANT_COLD", 900_000,
         fresh("chiller", lambda s, lim: not s.chiller.coolant_deg_c >= lim.coolant_low_deg_c), 5.0,
         reads="chiller", say=_coolant_say),
    Rule("COOLANT_DEW", 1_000_000, _dewing, 5.0, reads="chamber", say=_dewing_say,
         clear=fresh("chiller", fresh("chamber", lambda s, lim: s.chiller.coolant_deg_c
                                      > s.chamber.dew_point_deg_c + lim.fitted.dew_margin_k + 1.0)),
        clears="when the coolant is 1 K above the limit"),
)  # fmt: skip


def _outside(s: MachineSnapshot, lim: Limits) -> bool:
    return not lim.coolant_low_deg_c <= s.chiller.coolant_deg_c <= lim.coolant_high_deg_c


LINKS: tuple[Link, ...] = (
    Link(
        "laser", "laser source",
        silence("laser", "the laser source's values are stale"),
        (
            Block("LASER_FAULT", lambda s, lim: bool(s.laser.fault_bits),
                  lambda s, lim: f"the laser source reports {_faults(s)}"),
            Block("LASER_NOT_READY", lambda s, lim: not s.laser.ready,
                  "the laser source is not ready"),
        ),
    ),
    Link(
        "coolant", "coolant",
        silence("chiller", "the chiller's values are stale"),
        (
            Block("CHILLER_FLOW", lambda s, lim: not s.chiller.flow_ok,
                  "the chiller reports no flow"),
            Block("COOLANT", _outside,
                  lambda s, lim: f"coolant is {s.chiller.coolant_deg_c:.1f} degC, permitted "
                                 f"{lim.coolant_low_deg_c:g} to {lim.coolant_high_deg_c:g} degC"),
            Block("COOLANT_DEW", _dewing, _dewing_say),
        ),
    ),
)  # fmt: skip

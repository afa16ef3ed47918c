"""Rules on powder, its line and the gases."""

from statistics import median

from controller.machine.interlocks.limits import Limits, stale
from controller.machine.interlocks.rows import Block, Link, Rule, fresh, gone, silence
from controller.machine.snapshot import MachineSnapshot

LOW_SHARE = 0.8  # of the set flow
GAS_SETTLE_US = 2_000_000  # a flow controller's way to a new setpoint
LEAST_JUDGED_KPA = 1.0  # below this no stream's pressure says anything of the others
SCALE_G = 0.5  # a scale shows whole grams


def _low(needed: tuple[float, ...], left: tuple[float, ...]) -> bool:
    return any(
        need > 0.0 and not have + SCALE_G >= need for need, have in zip(needed, left, strict=False)
    )


def _powder_low(s: MachineSnapshot, lim: Limits) -> bool | None:
    """By the feeder's own count, and by the scales where the cell has some."""
    scales = "powder_line" in lim.age_us and not stale(s, lim, "powder_line")
    if scales and _low(s.powder_needed_g, s.powder_line.mass_left_g):
        return True
    return None if stale(s, lim, "powder") else _low(s.powder_needed_g, s.powder.mass_left_g)


def _powder_starved(s: MachineSnapshot, lim: Limits) -> bool | None:
    if stale(s, lim, "powder"):
        return None
    asked = s.powder_set_g_min
    if s.now_us - s.powder_set_us < lim.powder_settle_us:
        asked = s.powder_least_g_min
        if not any(asked):
            return None
    pairs = zip(asked, s.powder.flow_measured_g_min, strict=False)
    return any(ask > 0.0 and not flow >= LOW_SHARE * ask for ask, flow in pairs)


def _gas_settles(s: MachineSnapshot, lim: Limits) -> bool:
    return stale(s, lim, "gas") or s.now_us - s.gas_set_us < GAS_SETTLE_US


def _carrier_low(s: MachineSnapshot, lim: Limits) -> bool | None:
    if _gas_settles(s, lim):
        return None
    return not s.gas.carrier_l_min >= LOW_SHARE * s.carrier_set_l_min


def _shield_low(s: MachineSnapshot, lim: Limits) -> bool | None:
    if _gas_settles(s, lim):
        return None
    return not s.gas.shield_l_min >= LOW_SHARE * s.shield_set_l_min


def _back_pressure(s: MachineSnapshot, lim: Limits) -> bool:
    return any(not p <= lim.fitted.back_pressure_kpa for p in s.powder_line.pressure_kpa)


def _back_pressure_low(s: MachineSnapshot, lim: Limits) -> bool | None:
    return all(p < 0.9 * lim.fitted.back_pressure_kpa for p in s.powder_line.pressure_kpa)


def _uneven(s: MachineSnapshot, lim: Limits) -> tuple[int, ...]:
    """Streams whose back-pressure leaves that of the others by more than the share."""
    p = s.powder_line.pressure_kpa
    if len(p) < 2:
        return ()
    found = []
    for n, own in enumerate(p):
        others = median(v for k, v in enumerate(p) if k != n)
        if max(own, others) >= LEAST_JUDGED_KPA and not (
            abs(own - others) <= lim.fitted.uneven_share * others
        ):
            found.append(n + 1)
    return tuple(found)


def _clogged(s: MachineSnapshot, lim: Limits) -> bool | None:
    if s.carrier_set_l_min <= 0.0 or s.now_us - s.gas_set_us < GAS_SETTLE_US:
        return None
    return bool(_uneven(s, lim))


def _stream_say(s: MachineSnapshot, lim: Limits) -> str:
    pressures = ", ".join(f"{p:.1f}" for p in s.powder_line.pressure_kpa)
    return f"back-pressures {pressures} kPa, limit {lim.fitted.back_pressure_kpa:g} kPa"


def _powder_say(s: MachineSnapshot, lim: Limits) -> str:
    need = ", ".join(f"{v:.0f} g" for v in s.powder_needed_g)
    left = ", ".join(f"{v:.0f} g" for v in s.powder.mass_left_g) if s.powder else "not known"
    if "powder_line" in lim.age_us and s.powder_line is not None:
        left += "; on the scales " + ", ".join(f"{v:.0f} g" for v in s.powder_line.mass_left_g)
    return f"the plan still needs {need}; left {left}"


def _flow_say(s: MachineSnapshot, lim: Limits) -> str:
    sets = ", ".join(f"{v:.2f}" for v in s.powder_set_g_min)
    flows = ", ".join(f"{v:.2f}" for v in s.powder.flow_measured_g_min)
    return f"set {sets} g/min, measured {flows} g/min"


RULES: tuple[Rule, ...] = (
    Rule("CARRIER_LOW", 300_000, _carrier_low, 0.5, reads="gas",
         say=lambda s, lim: f"{s.gas.carrier_l_min:.2f} of {s.carrier_set_l_min:g} L/min"),
    Rule("GAS_SILENT", 0, gone("gas"), 1.2, reads="gas"),
    Rule("SHIELD_LOW", 300_000, _shield_low, 1.0, reads="gas",
         say=lambda s, lim: f"{s.gas.shield_l_min:.2f} of {s.shield_set_l_min:g} L/min"),
    Rule("POWDER_STALLED", 0, fresh("powder", lambda s, lim: s.powder.stalled), 1.0,
         reads="powder"),
    Rule("POWDER_NOT_READY", 0, fresh("powder", lambda s, lim: not s.powder.ready), 1.0,
         reads="powder"),
    Rule("POWDER_LOW", 0, _powder_low, 1.0, reads="powder", say=_powder_say,
         clears="when the hopper holds what the plan needs"),
    Rule("POWDER_SILENT", 0, gone("powder"), 1.2, reads="powder"),
    Rule("POWDER_STARVED", 300_000, _powder_starved, 1.0, reads="powder", say=_flow_say),
    Rule("POWDER_BACK_PRESSURE", 500_000, fresh("powder_line", _back_pressure), 5.0,
         reads="powder_line", say=_stream_say, clear=fresh("powder_line", _back_pressure_low),
         clears="when every stream is below 90 % of the limit"),
    Rule("POWDER_STREAM_CLOGGED", 2_000_000, fresh("powder_line", _clogged), 5.0,
         reads="powder_line",
         say=lambda s, lim: f"stream {', '.join(str(n) for n in _uneven(s, lim))}: "
                            f"{_stream_say(s, lim)}"),
    Rule("POWDER_LINE_SILENT", 0, gone("powder_line"), 1.2, reads="powder_line"),
)  # fmt: skip

LINKS: tuple[Link, ...] = (
    Link(
        "powder", "powder feeder",
        silence("powder", "the powder feeder's values are stale"),
        (
            Block("POWDER_STALLED", lambda s, lim: s.powder.stalled,
                  "the powder feeder reports a stall"),
            Block("POWDER_NOT_READY", lambda s, lim: not s.powder.ready,
                  "the powder feeder reports that it is not ready"),
        ),
    ),
    Link(
        "powder_line", "powder line",
        silence("powder_line", "the powder line's values are stale"),
        (
            Block("POWDER_BACK_PRESSURE", _back_pressure, _stream_say),
        ),
        role="powder_line",
    ),
    Link("gas", "gas", silence("gas", "the gas flow controllers' values are stale"), ()),
)  # fmt: skip

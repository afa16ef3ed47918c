"""Rules on the melt pool, the head above it, the chamber around it and the room outside."""

from controller.machine.interlocks.limits import Limits, stale
from controller.machine.interlocks.rows import Block, Link, Rule, Test, fresh, gone, silence
from controller.machine.snapshot import MachineSnapshot
from controller.machine.states import State

SUPPLIES = ("compressed air", "argon")
WINDOW_BACK_K = 5.0
HEATED_US = 2_000_000


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
        return not s.oxygen.oxygen_ppm <= times * lim.oxygen_limit_ppm

    return test


def _pyrometer_lost(s: MachineSnapshot, lim: Limits) -> bool:
    # in a hold nothing shines that could be seen: whoever goes on has looked, and counts anew
    return s.unseen_emission_s > 2.0 and s.state in (State.EXECUTE, State.HOLDING)


def _oxygen_say(s: MachineSnapshot, lim: Limits) -> str:
    return f"{s.oxygen.oxygen_ppm:.0f} ppm, limit {lim.oxygen_limit_ppm or 0:g} ppm"


# --- head --------------------------------------------------------------------------------


def _window_hot(s: MachineSnapshot, lim: Limits) -> bool:
    return not s.head.window_deg_c <= lim.fitted.window_deg_c


def _window_say(s: MachineSnapshot, lim: Limits) -> str:
    return f"{s.head.window_deg_c:.1f} degC, limit {lim.fitted.window_deg_c:g} degC"


def _scatter(s: MachineSnapshot, lim: Limits) -> bool:
    return not s.head.scatter_pct <= lim.fitted.scatter_pct


def _scatter_say(s: MachineSnapshot, lim: Limits) -> str:
    return f"scatter {s.head.scatter_pct:.1f} %, limit {lim.fitted.scatter_pct:g} %"


# --- chamber -----------------------------------------------------------------------------


def _heater_off_set(s: MachineSnapshot, lim: Limits) -> bool:
    heater = s.heater
    return heater.heating and not (
        abs(heater.temp_deg_c - heater.setpoint_deg_c) <= lim.fitted.heater_band_k
    )


def _heater_say(s: MachineSnapshot, lim: Limits) -> str:
    return f"{s.heater.temp_deg_c:.0f} degC, setpoint {s.heater.setpoint_deg_c:.0f} degC"


def _chamber_leaks(s: MachineSnapshot, lim: Limits) -> bool:
    """Air comes in where the chamber is not above the room; of no matter in open air."""
    if lim.oxygen_limit_ppm is None:
        return False
    return not s.chamber.pressure_pa >= lim.fitted.chamber_pa


def _chamber_say(s: MachineSnapshot, lim: Limits) -> str:
    return f"{s.chamber.pressure_pa:.0f} Pa above the room, least {lim.fitted.chamber_pa:g} Pa"


# --- room --------------------------------------------------------------------------------


def _room_oxygen(s: MachineSnapshot, lim: Limits) -> bool:
    return not s.room.oxygen_pct >= lim.fitted.room_oxygen_pct


def _room_oxygen_say(s: MachineSnapshot, lim: Limits) -> str:
    return f"{s.room.oxygen_pct:.1f} % oxygen, least {lim.fitted.room_oxygen_pct:g} %"


def _supplies(s: MachineSnapshot, lim: Limits) -> list[str]:
    rows = zip(SUPPLIES, s.room.supply_pressure_kpa, lim.fitted.supply_kpa, strict=False)
    return [f"{n} {p:.0f} kPa, least {low:g} kPa" for n, p, low in rows if not p >= low]


def _supply_low(s: MachineSnapshot, lim: Limits) -> bool:
    return bool(_supplies(s, lim))


def _supply_say(s: MachineSnapshot, lim: Limits) -> str:
    return "; ".join(_supplies(s, lim))


RULES: tuple[Rule, ...] = (
    Rule("HEAD_COLLISION", 0, fresh("head", lambda s, lim: s.head.collision), 0.2, reads="head",
         clears="when the head's switch has closed"),
    Rule("ROOM_OXYGEN", 300_000, fresh("room", _room_oxygen), 1.0, reads="room",
         say=_room_oxygen_say, always=True,
         clear=fresh("room", lambda s, lim: s.room.oxygen_pct > lim.fitted.room_oxygen_pct + 0.5),
         clears="when the room's oxygen is 0.5 % above the limit"),
    Rule("WINDOW_HOT", 100_000, fresh("head", _window_hot), 0.5, reads="head", say=_window_say,
         clear=fresh("head", lambda s, lim:
                     s.head.window_deg_c < lim.fitted.window_deg_c - WINDOW_BACK_K),
         clears="when the window is 5 K below the limit"),
    Rule("WINDOW_DIRTY", 100_000, fresh("head", _scatter), 0.5, reads="head", say=_scatter_say),
    Rule("HEAD_COOLING", 100_000, fresh("head", lambda s, lim: not s.head.cooling_ok), 0.5,
         reads="head"),
    Rule("HEAD_SILENT", 0, gone("head"), 1.2, reads="head"),
    Rule("OXYGEN_TOO_HIGH", 0, _oxygen_above(2.0), 1.0, reads="oxygen", say=_oxygen_say),
    Rule("OXYGEN_SILENT", 0, _oxygen_silent, 1.2, reads="oxygen"),
    Rule("CHAMBER_UNLOCKED", 100_000, fresh("chamber", lambda s, lim: not s.chamber.door_locked),
         1.0, reads="chamber"),
    Rule("OXYGEN_HIGH", 3_000_000, _oxygen_above(1.0), 4.0, reads="oxygen", say=_oxygen_say),
    Rule("PYROMETER_LOST", 0, _pyrometer_lost, 2.2, reads="pyrometer",
         clears="when a valid temperature was seen or somebody went on"),
    Rule("CHAMBER_PRESSURE", 1_000_000, fresh("chamber", _chamber_leaks), 5.0, reads="chamber",
         say=_chamber_say),
    Rule("CHAMBER_SILENT", 0, gone("chamber"), 1.7, reads="chamber"),
    Rule("HEATER_FAULT", 0, fresh("heater", lambda s, lim: s.heater.fault), 2.0, reads="heater"),
    Rule("HEATER_OFF_SET", HEATED_US, fresh("heater", _heater_off_set), 5.0, reads="heater",
         say=_heater_say),
    Rule("HEATER_SILENT", 0, gone("heater"), 3.2, reads="heater"),
    Rule("EXTRACTION_OFF", 300_000, fresh("room", lambda s, lim: not s.room.extraction_ok), 1.0,
         reads="room"),
    Rule("SUPPLY_PRESSURE", 300_000, fresh("room", _supply_low), 1.0, reads="room",
         say=_supply_say),
    Rule("UPS_ON_BATTERY", 300_000, fresh("room", lambda s, lim: s.room.ups_on_battery), 1.0,
         reads="room", say=lambda s, lim: f"charge {s.room.ups_charge_pct:.0f} %"),
    Rule("ROOM_SILENT", 0, gone("room"), 1.2, reads="room"),
    Rule("CAMERA_LOST", 2_000_000, fresh("camera", lambda s, lim: not s.camera.ok), 5.0,
         reads="camera"),
    Rule("CAMERA_SILENT", 0, gone("camera"), 2.0, reads="camera"),
    Rule("HEIGHT_SILENT", 0, gone("height"), 2.0, reads="height"),
    Rule("POWER_METER_OVER", 0, fresh("power_meter", lambda s, lim: s.power_meter.overrange), 2.0,
         reads="power_meter"),
)  # fmt: skip


def _oxygen_doubted(s: MachineSnapshot, lim: Limits) -> bool:
    return lim.oxygen_limit_ppm is not None and (stale(s, lim, "oxygen") or not s.oxygen.valid)


LINKS: tuple[Link, ...] = (
    Link(
        "room", "room",
        silence("room", "the room's values are stale"),
        (
            Block("ROOM_OXYGEN", _room_oxygen, _room_oxygen_say),
            Block("EXTRACTION_OFF", lambda s, lim: not s.room.extraction_ok,
                  "the extraction is off"),
            Block("SUPPLY_PRESSURE", _supply_low, _supply_say),
            Block("UPS_ON_BATTERY", lambda s, lim: s.room.ups_on_battery,
                  "the emergency supply runs on its battery"),
            Block("UPS_CHARGE", lambda s, lim: not s.room.ups_charge_pct
                  >= lim.fitted.ups_charge_pct,
                  lambda s, lim: f"the emergency supply holds {s.room.ups_charge_pct:.0f} %, "
                                 f"least {lim.fitted.ups_charge_pct:g} %"),
        ),
        role="room",
    ),
    Link(
        "head", "process head",
        silence("head", "the process head's values are stale"),
        (
            Block("HEAD_COLLISION", lambda s, lim: s.head.collision,
                  "the head's collision switch is open"),
            Block("HEAD_COOLING", lambda s, lim: not s.head.cooling_ok,
                  "the head is not cooled"),
            Block("WINDOW_HOT", _window_hot,
                  lambda s, lim: f"the protective window is too hot: {_window_say(s, lim)}"),
            Block("WINDOW_DIRTY", _scatter,
                  lambda s, lim: f"the protective window is dirty: {_scatter_say(s, lim)}"),
        ),
        role="head",
    ),
    Link(
        "chamber", "chamber",
        silence("chamber", "the chamber's values are stale"),
        (
            Block("CHAMBER_UNLOCKED", lambda s, lim: not s.chamber.door_locked,
                  "the chamber's door is not locked"),
            Block("CHAMBER_PRESSURE", _chamber_leaks,
                  lambda s, lim: f"the chamber leaks: {_chamber_say(s, lim)}"),
        ),
        role="chamber",
    ),
    Link(
        "heater", "substrate heater",
        silence("heater", "the substrate heater's values are stale"),
        (
            Block("HEATER_FAULT", lambda s, lim: s.heater.fault,
                  "the substrate heater reports a fault"),
            Block("HEATER_OFF_SET", _heater_off_set,
                  lambda s, lim: f"the plate is not at its temperature: {_heater_say(s, lim)}"),
        ),
        role="heater",
    ),
    Link(
        "pyrometer", "pyrometer",
        silence("pyrometer", "the pyrometer's values are stale"), (),
    ),
    Link(
        "oxygen", "chamber oxygen",
        Block("OXYGEN_SILENT", _oxygen_doubted, "the oxygen analyser has no valid value"),
        (
            Block("OXYGEN_HIGH", lambda s, lim: lim.oxygen_limit_ppm is not None
                  and not s.oxygen.oxygen_ppm <= lim.oxygen_limit_ppm,
                  lambda s, lim: f"chamber oxygen is {s.oxygen.oxygen_ppm:.0f} ppm, permitted "
                                 f"{lim.oxygen_limit_ppm:g} ppm"),
        ),
    ),
)  # fmt: skip

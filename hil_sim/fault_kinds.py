"""What a fault does to the cell: one row a kind, by device and layer.

Acts on the attributes of the world and on the hooks of the emulators; what the cell does not
have is refused by name before the run begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hil_sim.cellfile import CellFileError
from hil_sim.wires import CHANNELS

if TYPE_CHECKING:
    from hil_sim.cell import SimCell


class ScenarioError(CellFileError):
    """A scenario file cannot be used: one sentence that names file, key and value."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``length_us`` None: it stays to the end."""

    device: str
    layer: str
    kind: str
    at_us: int
    origin: str
    length_us: int | None
    options: dict[str, Any] = field(default_factory=dict)


# What a kind may be told besides when: key -> (kind of quantity or None, default, least, most)
Option = tuple[str | None, float, float, float]


@dataclass(frozen=True, slots=True)
class Kind:
    """Sets a fault (on) and takes it back (off)."""

    act: Callable[[SimCell, Fault, bool], None]
    options: dict[str, Option] = field(default_factory=dict)
    needs: str = ""  # attribute of the world without which the cell lacks the subject


def _world(name: str, broken: Any, whole: Any) -> Callable[[SimCell, Fault, bool], None]:
    def act(cell: SimCell, fault: Fault, on: bool) -> None:
        setattr(cell.world, name, broken if on else whole)

    return act


def _stall(cell: SimCell, fault: Fault, on: bool) -> None:
    cell.world.hopper_stalled[int(fault.options["hopper"]) - 1] = on


def _empty(cell: SimCell, fault: Fault, on: bool) -> None:
    """What is left in a hopper; the end of the fault refills it."""
    hopper = int(fault.options["hopper"]) - 1
    full_g = cell.cell.hoppers[hopper].mass_g if hopper < len(cell.cell.hoppers) else 0.0
    cell.world.hopper_mass_g[hopper] = fault.options["left"] if on else full_g


# attribute of the world: (option that says how broken, value when whole)
_SHARES = {
    "optics_transmission": ("transmission", 1.0),
    "source_share": ("share", 1.0),
    "stray_w": ("power", 0.0),
    "oxygen_leak_ppm": ("oxygen", 0.0),
}


def _share(name: str) -> Callable[[SimCell, Fault, bool], None]:
    """A number of the world: an option's value while broken."""
    option, rest = _SHARES[name]

    def act(cell: SimCell, fault: Fault, on: bool) -> None:
        setattr(cell.world, name, fault.options[option] if on else rest)
        cell.plant.catch_up(cell.sim.now_us)  # the beam until now was of the other kind

    return act


def _bits(name: str) -> Callable[[SimCell, Fault, bool], None]:
    def act(cell: SimCell, fault: Fault, on: bool) -> None:
        bit = 1 << int(fault.options["bit"])
        bits = int(getattr(cell.world, name))
        setattr(cell.world, name, bits | bit if on else bits & ~bit)

    return act


def _warm(cell: SimCell, fault: Fault, on: bool) -> None:
    """Warm water comes: a step of temperature, which the chiller works off by itself."""
    if on:
        cell.world.coolant_deg_c += fault.options["kelvin"]


def _level(cell: SimCell, fault: Fault, on: bool) -> None:
    """The chamber's oxygen now; afterwards it goes its way."""
    if on:
        cell.world.oxygen_ppm = fault.options["oxygen"]


def _cut(cell: SimCell, fault: Fault, on: bool) -> None:
    cell.end(fault.device).cut = on


def _unplug(cell: SimCell, fault: Fault, on: bool) -> None:
    end = cell.end(fault.device)
    if on:
        end.lose()
    end.cut = on


def _hook(name: str, option: str | None = None, scale: float = 1) -> Callable[..., None]:
    """A fault hook of the emulators (hil_sim/devices/base.py) and of the motion board."""

    def act(cell: SimCell, fault: Fault, on: bool) -> None:
        device = cell.device(fault.device)
        if option is None:
            setattr(device, name, on)
        else:
            setattr(device, name, round(fault.options[option] * scale) if on else 0)

    return act


def _shown(code: bytes | None) -> Callable[[SimCell, Fault, bool], None]:
    """The pyrometer shows a code of its own, or (None) the last value for ever."""

    def act(cell: SimCell, fault: Fault, on: bool) -> None:
        device: Any = cell.device(fault.device)
        device.forced = (device.last if code is None else code) if on else None

    return act


def _not(name: str) -> Callable[[SimCell, Fault, bool], None]:
    """A hook that is true while all is well."""

    def act(cell: SimCell, fault: Fault, on: bool) -> None:
        setattr(cell.device(fault.device), name, not on)

    return act


def _gas_flags(cell: SimCell, fault: Fault, on: bool) -> None:
    device: Any = cell.device("gas")
    device.status_flags[int(fault.options["unit"])] = 1 << int(fault.options["bit"]) if on else 0


def _truth(name: str, option: str, rest: float) -> Callable[[SimCell, Fault, bool], None]:
    """A number of the world: an option's value while broken; ``rest`` is where none was kept."""

    def act(cell: SimCell, fault: Fault, on: bool) -> None:
        whole: dict[str, Any] = cell.__dict__.setdefault("whole", {})
        if on:
            whole.setdefault(name, getattr(cell.world, name))
            setattr(cell.world, name, fault.options[option])
        else:
            setattr(cell.world, name, whole.pop(name, rest))

    return act


def _entry(name: str, which: str, broken: str | bool, rest: Any) -> Callable[..., None]:
    """One entry of a list of the world, counted from 1 by the option ``which``."""

    def act(cell: SimCell, fault: Fault, on: bool) -> None:
        values = getattr(cell.world, name)
        at = int(fault.options[which]) - 1
        if at >= len(values):
            raise ScenarioError(
                f"{which} {at + 1} is not fitted in this cell, it has {len(values)}"
            )
        whole: dict[str, Any] = cell.__dict__.setdefault("whole", {})
        key = f"{name} {at}"
        if on:
            whole.setdefault(key, values[at])
            values[at] = fault.options[broken] if isinstance(broken, str) else broken
        else:
            values[at] = whole.pop(key, rest)

    return act


class _LateLine:
    """The cable to the motion board with a delay, both ways.

    With ``delay_us`` alone order stays and nothing is lost. ``every`` n: of n pieces of bytes
    one is lost, sent twice, or comes behind the next, as ``how`` says.
    """

    def __init__(self, cell: SimCell) -> None:
        self.delay_us = 0
        self.every = 0
        self.how = ""
        self._n = 0
        self._kept: dict[str, bytes] = {}
        self._sim = cell.sim
        end = cell.end("motion")
        self._ways = {"to": (end.on_data, [0]), "from": (end.send, [0])}
        end.on_data = lambda data: self._pass("to", data)
        end.send = lambda data: self._pass("from", data)

    def _pass(self, way: str, data: bytes) -> None:
        if data and self.every:
            self._n += 1
            if self._n % self.every == 0:
                if self.how == "lose":
                    return
                if self.how == "repeat":
                    self._carry(way, data)
                elif self.how == "swap":
                    self._kept[way] = self._kept.get(way, b"") + data
                    return
        self._carry(way, data)
        kept = self._kept.pop(way, b"")
        if kept:
            self._carry(way, kept)

    def _carry(self, way: str, data: bytes) -> None:
        forward, last_us = self._ways[way]
        now_us = self._sim.now_us
        due_us = max(now_us + self.delay_us, last_us[0])
        if due_us <= now_us:
            forward(data)
            return
        last_us[0] = due_us
        self._sim.at(due_us, lambda: forward(data))


def _line(cell: SimCell) -> _LateLine:
    board: Any = cell.motion
    line: _LateLine | None = getattr(board, "late_line", None)
    if line is None:
        line = board.late_line = _LateLine(cell)
    return line


def _late(cell: SimCell, fault: Fault, on: bool) -> None:
    _line(cell).delay_us = round(fault.options["delay"] * 1e6) if on else 0


def _frames(how: str) -> Kind:
    """Frames of the motion link that are lost, repeated or out of order."""

    def act(cell: SimCell, fault: Fault, on: bool) -> None:
        line = _line(cell)
        line.how = how
        line.every = int(fault.options["every"]) if on else 0

    return Kind(act, {"every": (None, 7, 1, 1000)})


_DELAY: dict[str, Option] = {"delay": ("time_s", 0.2, 0.0, 60.0)}
_WIRE_KINDS = {
    "cut": Kind(_cut),
    "unplug": Kind(_unplug),
    "garble": Kind(_hook("garble", "bits"), {"bits": (None, 3, 1, 1000)}),
    "truncate": Kind(_hook("truncate", "bytes"), {"bytes": (None, 1, 1, 1000)}),
    "delay": Kind(_hook("delay_us", "delay", 1e6), _DELAY),
}
KINDS: dict[tuple[str, str], dict[str, Kind]] = {
    ("safety", "physics"): {
        "estop": Kind(_world("estop_ok", False, True)),
        "door": Kind(_world("door_closed", False, True)),
    },
    ("chiller", "physics"): {
        "flow": Kind(_world("chiller_flow_fault", True, False)),
        "warm": Kind(_warm, {"kelvin": (None, 3.0, -20.0, 60.0)}),
        "alarm": Kind(_bits("chiller_alarm_bits"), {"bit": (None, 2, 0, 47)}),
    },
    ("powder", "physics"): {
        "stall": Kind(_stall, {"hopper": (None, 1, 1, 2)}),
        "empty": Kind(_empty, {"hopper": (None, 1, 1, 2), "left": ("mass_g", 1.0, 0.0, 1e5)}),
    },
    ("gas", "physics"): {
        "carrier_supply": Kind(_world("carrier_supply_ok", False, True)),
        "shield_supply": Kind(_world("shield_supply_ok", False, True)),
    },
    ("laser", "physics"): {
        "back_reflection": Kind(_world("back_reflection", True, False)),
        "weak": Kind(_share("source_share"), {"share": (None, 0.8, 0.0, 1.0)}),
        "stray_light": Kind(_share("stray_w"), {"power": ("power_w", 300.0, 0.0, 1e5)}),
        "fault": Kind(_bits("laser_fault_bits"), {"bit": (None, 1, 0, 31)}),
        "key": Kind(_not("key_remote")),
    },
    ("laser", "process"): {
        "optics": Kind(_share("optics_transmission"), {"transmission": (None, 0.7, 0.0, 1.0)}),
    },
    ("oxygen", "physics"): {"level": Kind(_level, {"oxygen": ("ppm", 8.0, 0.0, 209_500.0)})},
    ("oxygen", "process"): {
        "leak": Kind(_share("oxygen_leak_ppm"), {"oxygen": ("ppm", 100.0, 0.0, 2e5)})
    },
    ("head", "physics"): {
        "collision": Kind(_world("collision", True, False), needs="collision"),
        "cooling": Kind(_world("head_cooling_ok", False, True), needs="head_cooling_ok"),
        "window_hot": Kind(
            _truth("window_deg_c", "temp", 25.0),
            {"temp": ("temp_deg_c", 90.0, 0.0, 500.0)},
            "window_deg_c",
        ),
        "window_dirty": Kind(
            _truth("scatter_pct", "percent", 2.0), {"percent": (None, 60, 0, 100)}, "scatter_pct"
        ),
    },
    ("powder_line", "physics"): {
        "clogged": Kind(
            _entry("clogged", "stream", True, False), {"stream": (None, 1, 1, 8)}, "clogged"
        ),
    },
    ("room", "physics"): {
        "oxygen_low": Kind(
            _truth("room_oxygen_pct", "percent", 20.9),
            {"percent": (None, 17.5, 0, 25)},
            "room_oxygen_pct",
        ),
        "extraction": Kind(_world("extraction_ok", False, True), needs="extraction_ok"),
        "air_low": Kind(
            _truth("supply_air_kpa", "kpa", 600.0), {"kpa": (None, 200, 0, 2000)}, "supply_air_kpa"
        ),
        "argon_low": Kind(
            _truth("supply_argon_kpa", "kpa", 800.0),
            {"kpa": (None, 100, 0, 30000)},
            "supply_argon_kpa",
        ),
        "ups_on_battery": Kind(_world("ups_on_battery", True, False), needs="ups_on_battery"),
    },
    ("chamber", "physics"): {
        "dew_point": Kind(
            _truth("dew_point_deg_c", "temp", -20.0),
            {"temp": ("temp_deg_c", 24.0, -100.0, 60.0)},
            "dew_point_deg_c",
        ),
        "pressure_low": Kind(
            _truth("chamber_pressure_pa", "pascal", 300.0),
            {"pascal": (None, 0, -5000, 5000)},
            "chamber_pressure_pa",
        ),
    },
    ("drives", "physics"): {
        "following_error": Kind(
            _entry("following_error_mm", "axis", "error", 0.0),
            {"axis": (None, 1, 1, 6), "error": ("length_mm", 2.0, -100.0, 100.0)},
            "following_error_mm",
        ),
    },
}
# Answers of a device that are wrong or a refusal, besides silence.
_PROTOCOL_KINDS: dict[str, dict[str, Kind]] = {
    "laser": {"refuse": Kind(_hook("refuse_emission"))},
    "pyrometer": {
        "no_signal": Kind(_shown(b"00000")),
        "saturated": Kind(_shown(b"88880")),
        "not_measuring": Kind(_shown(b"77770")),
        "frozen": Kind(_shown(None)),
    },
    "powder": {"not_ready": Kind(_hook("not_ready"))},
    "gas": {"flag": Kind(_gas_flags, {"unit": (None, 1, 1, 2), "bit": (None, 13, 0, 31)})},
    "oxygen": {"error": Kind(_hook("error_flags", "flags"), {"flags": (None, 2, 0, 2**32 - 1)})},
    "safety": {
        "plc_error": Kind(_hook("plc_error")),
        "watchdog": Kind(_hook("watchdog_tripped")),
    },
}
_OPTIONAL = (
    "camera", "height", "drives", "power_meter", "heater", "chamber", "head", "powder_line", "room",
)  # fmt: skip
for _name in dict.fromkeys([*(name for _, name, _ in CHANNELS), *_OPTIONAL]):
    if _name == "motion":
        KINDS[_name, "wire"] = {k: _WIRE_KINDS[k] for k in ("cut", "unplug", "garble")}
        KINDS[_name, "wire"]["delay"] = Kind(_late, _DELAY)
        KINDS[_name, "wire"].update({how: _frames(how) for how in ("lose", "repeat", "swap")})
    else:
        KINDS[_name, "wire"] = _WIRE_KINDS
        KINDS[_name, "protocol"] = {
            "silent": Kind(_hook("mute")),
            **_PROTOCOL_KINDS.get(_name, {}),
        }


def check_fitted(cell: SimCell, fault: Fault, place: str = "") -> None:
    """Raise ScenarioError when the cell lacks what the fault breaks."""
    needs = KINDS[fault.device, fault.layer][fault.kind].needs
    lacks = needs != "" and not hasattr(cell.world, needs)
    if not lacks and (not needs or fault.layer in ("wire", "protocol")):
        try:
            cell.device(fault.device)
        except (StopIteration, KeyError):
            lacks = True
    if lacks:
        where = f"{place}: " if place else ""
        raise ScenarioError(f"{where}device: {fault.device!r} is not fitted in this cell")

"""Faults of a scenario: what breaks, in which layer, when and for how long.

A fault is (device, layer, kind, start, length). Layers: ``wire`` is the cable, ``protocol``
the device's answers, ``physics`` what is really so in the cell, ``process`` what happens at
the melt pool. Times count from power-up or from the first emission of the build.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil_sim.cellfile import CellFileError, quantity, read_toml
from hil_sim.wires import CHANNELS

if TYPE_CHECKING:
    from hil_sim.cell import SimCell

MOST_FAULTS = 10_000
LONGEST_S = 30 * 24 * 3600.0
ORIGINS = ("first_emission", "power_up")


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


@dataclass(frozen=True, slots=True)
class Scenario:
    """Named faults of one run."""

    name: str
    title: str
    faults: tuple[Fault, ...]


NOMINAL = Scenario("nominal", "Nothing breaks", ())

# What a kind may be told besides when: key -> (kind of quantity or None, default, least, most)
_Option = tuple[str | None, float, float, float]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Sets a fault (on) and takes it back (off)."""

    act: Callable[[SimCell, Fault, bool], None]
    options: dict[str, _Option] = field(default_factory=dict)


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


class _LateLine:
    """The cable to the motion board with a delay, both ways; order stays, nothing is lost."""

    def __init__(self, cell: SimCell) -> None:
        self.delay_us = 0
        self._sim = cell.sim
        end = cell.end("motion")
        self._ways = {"to": (end.on_data, [0]), "from": (end.send, [0])}
        end.on_data = lambda data: self._pass("to", data)
        end.send = lambda data: self._pass("from", data)

    def _pass(self, way: str, data: bytes) -> None:
        forward, last_us = self._ways[way]
        now_us = self._sim.now_us
        due_us = max(now_us + self.delay_us, last_us[0])
        if due_us <= now_us:
            forward(data)
            return
        last_us[0] = due_us
        self._sim.at(due_us, lambda: forward(data))


def _late(cell: SimCell, fault: Fault, on: bool) -> None:
    board: Any = cell.motion
    line = getattr(board, "late_line", None)
    if line is None:
        line = board.late_line = _LateLine(cell)
    line.delay_us = round(fault.options["delay"] * 1e6) if on else 0


_DELAY: dict[str, _Option] = {"delay": ("time_s", 0.2, 0.0, 60.0)}
_WIRE_KINDS = {
    "cut": _Kind(_cut),
    "unplug": _Kind(_unplug),
    "garble": _Kind(_hook("garble", "bits"), {"bits": (None, 3, 1, 1000)}),
    "truncate": _Kind(_hook("truncate", "bytes"), {"bytes": (None, 1, 1, 1000)}),
    "delay": _Kind(_hook("delay_us", "delay", 1e6), _DELAY),
}
_KINDS: dict[tuple[str, str], dict[str, _Kind]] = {
    ("safety", "physics"): {
        "estop": _Kind(_world("estop_ok", False, True)),
        "door": _Kind(_world("door_closed", False, True)),
    },
    ("chiller", "physics"): {
        "flow": _Kind(_world("chiller_flow_fault", True, False)),
        "warm": _Kind(_warm, {"kelvin": (None, 3.0, -20.0, 60.0)}),
        "alarm": _Kind(_bits("chiller_alarm_bits"), {"bit": (None, 2, 0, 47)}),
    },
    ("powder", "physics"): {
        "stall": _Kind(_stall, {"hopper": (None, 1, 1, 2)}),
        "empty": _Kind(_empty, {"hopper": (None, 1, 1, 2), "left": ("mass_g", 1.0, 0.0, 1e5)}),
    },
    ("gas", "physics"): {
        "carrier_supply": _Kind(_world("carrier_supply_ok", False, True)),
        "shield_supply": _Kind(_world("shield_supply_ok", False, True)),
    },
    ("laser", "physics"): {
        "back_reflection": _Kind(_world("back_reflection", True, False)),
        "weak": _Kind(_share("source_share"), {"share": (None, 0.8, 0.0, 1.0)}),
        "stray_light": _Kind(_share("stray_w"), {"power": ("power_w", 300.0, 0.0, 1e5)}),
        "fault": _Kind(_bits("laser_fault_bits"), {"bit": (None, 1, 0, 31)}),
        "key": _Kind(_not("key_remote")),
    },
    ("laser", "process"): {
        "optics": _Kind(_share("optics_transmission"), {"transmission": (None, 0.7, 0.0, 1.0)}),
    },
    ("oxygen", "physics"): {"level": _Kind(_level, {"oxygen": ("ppm", 8.0, 0.0, 209_500.0)})},
    ("oxygen", "process"): {
        "leak": _Kind(_share("oxygen_leak_ppm"), {"oxygen": ("ppm", 100.0, 0.0, 2e5)})
    },
}
# Answers of a device that are wrong or a refusal, besides silence.
_PROTOCOL_KINDS: dict[str, dict[str, _Kind]] = {
    "laser": {"refuse": _Kind(_hook("refuse_emission"))},
    "pyrometer": {
        "no_signal": _Kind(_shown(b"00000")),
        "saturated": _Kind(_shown(b"88880")),
        "not_measuring": _Kind(_shown(b"77770")),
        "frozen": _Kind(_shown(None)),
    },
    "powder": {"not_ready": _Kind(_hook("not_ready"))},
    "gas": {"flag": _Kind(_gas_flags, {"unit": (None, 1, 1, 2), "bit": (None, 13, 0, 31)})},
    "oxygen": {"error": _Kind(_hook("error_flags", "flags"), {"flags": (None, 2, 0, 2**32 - 1)})},
    "safety": {
        "plc_error": _Kind(_hook("plc_error")),
        "watchdog": _Kind(_hook("watchdog_tripped")),
    },
}
for _name in (name for _, name, _ in CHANNELS):
    if _name == "motion":
        _KINDS[_name, "wire"] = {k: _WIRE_KINDS[k] for k in ("cut", "unplug", "garble")}
        _KINDS[_name, "wire"]["delay"] = _Kind(_late, _DELAY)
    else:
        _KINDS[_name, "wire"] = _WIRE_KINDS
        _KINDS[_name, "protocol"] = {
            "silent": _Kind(_hook("mute")),
            **_PROTOCOL_KINDS.get(_name, {}),
        }


def load(path: str | Path) -> Scenario:
    """Read a scenario. Raises ScenarioError, one sentence with file, key and value."""
    try:
        data = read_toml(Path(path))
    except CellFileError as exc:
        raise ScenarioError(str(exc)) from None
    return from_tables(data, str(path))


def from_tables(data: dict[str, Any], origin: str) -> Scenario:
    """A Scenario from parsed TOML; ``origin`` is the file's name for complaints."""
    _only(data, {"name", "title", "fault"}, f"{origin}")
    name = data.get("name")
    if not isinstance(name, str) or not name:
        raise ScenarioError(f"{origin}: name: is missing or not text")
    title = data.get("title", name)
    if not isinstance(title, str):
        raise ScenarioError(f"{origin}: title: {title!r} is not text")
    rows = data.get("fault", [])
    if not isinstance(rows, list) or len(rows) > MOST_FAULTS:
        raise ScenarioError(f"{origin}: fault: is not a list of at most {MOST_FAULTS} tables")
    return Scenario(
        name, title, tuple(_fault(row, f"{origin}: fault.{n}") for n, row in enumerate(rows))
    )


def _fault(row: Any, place: str) -> Fault:
    if not isinstance(row, dict):
        raise ScenarioError(f"{place}: is not a table")
    device = _one_of(row, "device", sorted({d for d, _ in _KINDS}), place)
    layer = _one_of(row, "layer", sorted(y for d, y in _KINDS if d == device), place)
    kinds = _KINDS[device, layer]
    kind = _one_of(row, "kind", sorted(kinds), place)
    allowed = kinds[kind].options
    _only(row, {"device", "layer", "kind", "at", "from", "length", *allowed}, place)
    origin = _one_of({"from": "first_emission", **row}, "from", list(ORIGINS), place)
    options = {key: _option(row, key, spec, place) for key, spec in allowed.items()}
    length_us = None
    if "length" in row:
        length_us = _time_us(row, "length", place)
        if length_us == 0:
            raise ScenarioError(f"{place}.length: {row['length']!r} is not above 0")
    return Fault(device, layer, kind, _time_us(row, "at", place), origin, length_us, options)


def _only(row: dict[str, Any], known: set[str], place: str) -> None:
    for key in row:
        if key not in known:
            raise ScenarioError(
                f"{place}: {key}: unknown key, there are {', '.join(sorted(known))}"
            )


def _one_of(row: dict[str, Any], key: str, choices: list[str], place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or value not in choices:
        was = "is missing" if value is None else f"{value!r} is unknown"
        raise ScenarioError(f"{place}.{key}: {was}, one of {', '.join(choices)} is wanted")
    return value


def _time_us(row: dict[str, Any], key: str, place: str) -> int:
    try:
        value_s = quantity(row.get(key), "time_s")
    except ValueError as exc:
        raise ScenarioError(f"{place}.{key}: {exc}") from None
    if not 0.0 <= value_s <= LONGEST_S:
        raise ScenarioError(f"{place}.{key}: {row[key]!r} is not from 0 s to {LONGEST_S:g} s")
    return round(value_s * 1e6)


def _option(row: dict[str, Any], key: str, spec: _Option, place: str) -> float:
    unit_kind, default, least, most = spec
    if key not in row:
        return default
    value = row[key]
    try:
        if unit_kind is not None:
            value = quantity(value, unit_kind)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{value!r} is not a number")
    except ValueError as exc:
        raise ScenarioError(f"{place}.{key}: {exc}") from None
    if not least <= value <= most:
        raise ScenarioError(f"{place}.{key}: {row[key]!r} is not from {least:g} to {most:g}")
    return float(value)


def install(scenario: Scenario, cell: SimCell) -> None:
    """Put the scenario's faults on the cell's clock."""
    for fault in scenario.faults:
        if fault.origin == "power_up":
            _schedule(cell, fault, 0)
        else:
            cell.plant.on_first_emission.append(
                lambda t_us, fault=fault: _schedule(cell, fault, t_us)
            )


def _schedule(cell: SimCell, fault: Fault, origin_us: int) -> None:
    act = _KINDS[fault.device, fault.layer][fault.kind].act

    def inject() -> None:
        cell.trace.event(cell.sim.now_us, "fault_injected", **_named(fault))
        act(cell, fault, True)
        if fault.length_us is not None:
            cell.sim.at(cell.sim.now_us + fault.length_us, clear)

    def clear() -> None:
        cell.trace.event(cell.sim.now_us, "fault_cleared", **_named(fault))
        act(cell, fault, False)

    cell.sim.at(origin_us + fault.at_us, inject)


def _named(fault: Fault) -> dict[str, Any]:
    return {"device": fault.device, "layer": fault.layer, "fault": fault.kind, **fault.options}

"""Register map files: the registers of a device whose maker publishes none.

A map is TOML, read strictly: an unknown key, a wrong type, a register outside its blocks or
a safe value outside its limits is a ``MapError`` that names file and key. Names carry their
unit (``hopper1_speed_rpm``), numbers are in that unit. ``docs/reference/device-protocols.md``
describes the maps that come with the program, and what a map alone can say (section 9).
"""

import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware_bridge.device import KEEP, _Keep
from firmware_bridge.errors import MapError
from firmware_bridge.named_file import read_named
from firmware_bridge.registers import KINDS, Block, Reading, Setting, place

MAX_BYTES = 200_000
MAX_ENTRIES = 500

_TOP = {"title", "fictitious", "source", "role", "framing", "unit"}
_TABLES = {"blocks", "readings", "settings", "calibration", "constants", "commands"}
_BLOCK = {"address", "words", "unit", "function", "before", "after", "every"}
_READING = {"address", "kind", "scale", "offset", "bit", "bounds", "unit", "function"} | {
    "invert",
    "must",
}
_SETTING = {"address", "kind", "scale", "offset", "limits", "safe", "bounds", "unit"}


@dataclass(frozen=True)
class RegisterMap:
    """A map as read. ``calibration`` holds lists of numbers by name.

    ``constants``: fields of the role's reading that the device does not give.
    ``commands``: (setting, value) steps by name of the role's command.
    """

    origin: str
    title: str
    fictitious: bool
    source: str
    role: str
    framing: str
    blocks: tuple[Block, ...]
    readings: dict[str, Reading]  # settings included
    calibration: dict[str, tuple[float, ...]]
    constants: dict[str, Any] = field(default_factory=dict)
    commands: dict[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)

    def need(self, name: str, kind: type[Reading] = Reading) -> Reading:
        """An entry that a driver cannot do without. Raises MapError."""
        entry = self.readings.get(name)
        if entry is None or not isinstance(entry, kind):
            what = "settings" if kind is Setting else "readings"
            raise MapError(f"{self.origin}: {what}.{name} is missing")
        return entry

    def number(self, name: str) -> float:
        """A calibration that is one number. Raises MapError."""
        numbers = self.calibration.get(name, ())
        if len(numbers) != 1:
            raise MapError(f"{self.origin}: calibration.{name} must be one number in a list")
        return numbers[0]

    def need_bit(self, name: str) -> Reading:
        """An entry that must be one bit. Raises MapError."""
        entry = self.need(name)
        if entry.bit is None:
            raise MapError(f"{self.origin}: readings.{name} needs a bit")
        return entry


def load_map(name_or_path: str | Path, role: str | None) -> RegisterMap:
    """Read a map by name (``configs/maps/<name>.toml``) or path. Raises MapError.

    ``role``: the map must be for this role; None takes any.
    """
    text, path = read_named("map", "maps", name_or_path, MAX_BYTES)
    return parse_map(text, path, role)


def parse_map(text: str, origin: str, role: str | None) -> RegisterMap:
    """A map from its text; ``origin`` stands in the messages. Raises MapError."""
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise MapError(f"{origin}: not valid TOML: {exc}") from None
    _keys(data, origin, "", _TOP | _TABLES)
    title = _text(data, origin, "title")
    source = _text(data, origin, "source")
    fictitious = data.get("fictitious")
    if not isinstance(fictitious, bool):
        raise MapError(f"{origin}: fictitious must be true or false, not {fictitious!r}")
    if _text(data, origin, "role") != role and role is not None:
        raise MapError(f"{origin}: role is {data['role']!r}, a map for {role!r} is needed")
    framing = data.get("framing", "port")
    if framing not in ("rtu", "tcp", "port"):
        raise MapError(f"{origin}: framing {framing!r} is not rtu, tcp or port")
    unit = _int(data, origin, "", "unit", 1, 0, 247)

    blocks = tuple(_blocks(data.get("blocks"), origin, unit))
    readings: dict[str, Reading] = {}
    settings = _table(data, origin, "settings")
    plain = _table(data, origin, "readings")
    if len(settings) + len(plain) > MAX_ENTRIES:
        raise MapError(f"{origin}: more than {MAX_ENTRIES} registers")
    for name, entry in settings.items():
        readings[name] = _setting(entry, origin, f"settings.{name}", unit)
    for name, entry in plain.items():
        if name in readings:
            raise MapError(f"{origin}: readings.{name}: there is a setting of that name")
        readings[name] = _reading(entry, origin, f"readings.{name}", unit)
    try:
        place(blocks, readings)
    except ValueError as exc:
        raise MapError(f"{origin}: {exc}") from None
    _no_overlap(readings, origin)
    calibration = {
        name: tuple(_numbers(value, origin, f"calibration.{name}"))
        for name, value in _table(data, origin, "calibration").items()
    }
    return RegisterMap(
        origin,
        title,
        fictitious,
        source,
        data["role"],
        framing,
        blocks,
        readings,
        calibration,
        _constants(_table(data, origin, "constants"), origin),
        _commands(_table(data, origin, "commands"), origin, readings),
    )


def _constants(table: dict[str, Any], origin: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in table.items():
        path = f"constants.{name}"
        if isinstance(value, bool):
            made[name] = value
        elif value == []:
            made[name] = ()
        elif isinstance(value, list):
            made[name] = tuple(_numbers(value, origin, path))
        else:
            made[name] = _number(value, origin, path)
    return made


def _commands(
    table: dict[str, Any], origin: str, readings: dict[str, Reading]
) -> dict[str, tuple[tuple[str, float], ...]]:
    made = {}
    for name, given in table.items():
        key = f"commands.{name}"
        if not isinstance(given, list) or not 1 <= len(given) <= 20:
            raise MapError(f"{origin}: {key} must be 1 to 20 steps {{ set, value }}")
        steps = []
        for i, step in enumerate(given):
            if not isinstance(step, dict) or set(step) != {"set", "value"}:
                raise MapError(f"{origin}: {key}[{i}] must be {{ set = ..., value = ... }}")
            setting = readings.get(step["set"]) if isinstance(step["set"], str) else None
            if not isinstance(setting, Setting):
                raise MapError(f"{origin}: {key}[{i}].set {step['set']!r} is no setting")
            value = _number(step["value"], origin, f"{key}[{i}].value")
            low, high = setting.limits
            if not low <= value <= high:
                raise MapError(
                    f"{origin}: {key}[{i}].value {value:g} is outside {low:g} to {high:g}"
                )
            steps.append((step["set"], value))
        made[name] = tuple(steps)
    return made


def _blocks(given: Any, origin: str, unit: int) -> list[Block]:
    if not isinstance(given, list) or not 1 <= len(given) <= 50:
        raise MapError(f"{origin}: blocks must be 1 to 50 tables [[blocks]]")
    made = []
    for i, entry in enumerate(given):
        key = f"blocks[{i}]"
        if not isinstance(entry, dict):
            raise MapError(f"{origin}: {key} is no table")
        _keys(entry, origin, key, _BLOCK)
        for needed in ("address", "words"):
            if needed not in entry:
                raise MapError(f"{origin}: {key}.{needed} is missing")
        try:
            made.append(
                Block(
                    address=_int(entry, origin, key, "address", 0, 0, 65535),
                    words=_int(entry, origin, key, "words", 1, 1, 125),
                    unit=_int(entry, origin, key, "unit", unit, 0, 247),
                    function=_int(entry, origin, key, "function", 3, 3, 4),
                    before=_int(entry, origin, key, "before", 0, 0, 8),
                    after=_int(entry, origin, key, "after", 1, 0, 8),
                    every=_int(entry, origin, key, "every", 1, 1, 1000),
                )
            )
        except ValueError as exc:
            raise MapError(f"{origin}: {key}: {exc}") from None
    return made


def _reading(entry: Any, origin: str, key: str, unit: int) -> Reading:
    common = _common(entry, origin, key, unit, _READING)
    bit = _int(entry, origin, key, "bit", 0, 0, 15) if "bit" in entry else None
    bounds = _pair(entry, origin, key, "bounds") if "bounds" in entry else None
    if bit is None and bounds is None and not key.endswith("_bits"):
        raise MapError(f"{origin}: {key}.bounds is missing: every value is bounded")
    function = _int(entry, origin, key, "function", 3, 3, 4)
    for name in ("invert", "must"):
        if name in entry and not isinstance(entry[name], bool):
            raise MapError(f"{origin}: {key}.{name} must be true or false, not {entry[name]!r}")
    try:
        return Reading(
            bit=bit,
            bounds=bounds,
            function=function,
            invert=entry.get("invert", False),
            must=entry.get("must"),
            **common,
        )
    except ValueError as exc:
        raise MapError(f"{origin}: {key}: {exc}") from None


def _setting(entry: Any, origin: str, key: str, unit: int) -> Setting:
    common = _common(entry, origin, key, unit, _SETTING)
    for needed in ("limits", "safe"):
        if needed not in entry:
            raise MapError(f"{origin}: {key}.{needed} is missing: every output states it")
    safe: float | _Keep
    if entry["safe"] == "keep":
        safe = KEEP
    else:
        safe = _number(entry["safe"], origin, f"{key}.safe")
    limits = _pair(entry, origin, key, "limits")
    bounds = _pair(entry, origin, key, "bounds") if "bounds" in entry else None
    try:
        setting = Setting(limits=limits, safe=safe, bounds=bounds, **common)
        setting.name = key
        for value in limits:
            setting.encode(value)
        return setting
    except Exception as exc:  # ValueError of a declaration, DeviceError of a code
        raise MapError(f"{origin}: {key}: {exc}") from None


def _common(entry: Any, origin: str, key: str, unit: int, allowed: set[str]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise MapError(f"{origin}: {key} is no table")
    _keys(entry, origin, key, allowed)
    if "address" not in entry:
        raise MapError(f"{origin}: {key}.address is missing")
    kind = entry.get("kind", "u16")
    if kind not in KINDS:
        raise MapError(f"{origin}: {key}.kind {kind!r} is not one of {', '.join(KINDS)}")
    scale = _number(entry.get("scale", 1.0), origin, f"{key}.scale")
    if not 1e-9 <= abs(scale) <= 1e9:
        raise MapError(f"{origin}: {key}.scale {scale:g} is outside 1e-9 to 1e9")
    return {
        "address": _int(entry, origin, key, "address", 0, 0, 65535),
        "kind": kind,
        "scale": scale,
        "offset": _number(entry.get("offset", 0.0), origin, f"{key}.offset"),
        "unit": _int(entry, origin, key, "unit", unit, 0, 247),
    }


def _no_overlap(readings: dict[str, Reading], origin: str) -> None:
    """Two settings on one register would undo each other."""
    taken: dict[tuple[int, int], str] = {}
    for name, entry in readings.items():
        if isinstance(entry, Setting):
            for address in range(entry.address, entry.address + entry.words):
                other = taken.setdefault((entry.unit, address), name)
                if other != name:
                    raise MapError(
                        f"{origin}: settings.{name} and settings.{other} share register {address}"
                    )


def _keys(table: dict[str, Any], origin: str, key: str, allowed: set[str]) -> None:
    for name in table:
        if name not in allowed:
            raise MapError(f"{origin}: {key + '.' if key else ''}{name}: unknown key")


def _table(data: dict[str, Any], origin: str, key: str) -> dict[str, Any]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise MapError(f"{origin}: {key} is no table")
    return table


def _text(data: dict[str, Any], origin: str, key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value.strip():
        raise MapError(f"{origin}: {key} must be a text, not {value!r}")
    return value


def _int(
    table: dict[str, Any], origin: str, key: str, name: str, default: int, low: int, high: int
) -> int:
    value = table.get(name, default)
    path = f"{key}.{name}" if key else name
    if isinstance(value, bool) or not isinstance(value, int):
        raise MapError(f"{origin}: {path} must be a whole number, not {value!r}")
    if not low <= value <= high:
        raise MapError(f"{origin}: {path} {value} is outside {low} to {high}")
    return value


def _number(value: Any, origin: str, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MapError(f"{origin}: {path} must be a number, not {value!r}")
    if not abs(value) <= 1e12 or not math.isfinite(value):
        raise MapError(f"{origin}: {path} {value!r} is not a usable number")
    return float(value)


def _numbers(value: Any, origin: str, path: str) -> list[float]:
    if not isinstance(value, list) or not 1 <= len(value) <= 100:
        raise MapError(f"{origin}: {path} must be a list of 1 to 100 numbers")
    return [_number(v, origin, f"{path}[{i}]") for i, v in enumerate(value)]


def _pair(table: dict[str, Any], origin: str, key: str, name: str) -> tuple[float, float]:
    path = f"{key}.{name}"
    numbers = _numbers(table[name], origin, path)
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise MapError(f"{origin}: {path} must be [low, high], not {table[name]!r}")
    return numbers[0], numbers[1]

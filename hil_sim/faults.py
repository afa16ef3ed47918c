"""Faults of a scenario: what breaks, in which layer, when and for how long.

A fault is (device, layer, kind, start, length). Layers: ``wire`` is the cable, ``protocol``
the device's answers, ``physics`` what is really so in the cell, ``process`` what happens at
the melt pool. Times count from power-up or from the first emission of the build.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil_sim.cellfile import CellFileError, quantity, read_toml
from hil_sim.fault_kinds import KINDS, Fault, Option, ScenarioError, check_fitted

if TYPE_CHECKING:
    from hil_sim.cell import SimCell

MOST_FAULTS = 10_000
LONGEST_S = 30 * 24 * 3600.0
ORIGINS = ("first_emission", "power_up")


@dataclass(frozen=True, slots=True)
class Scenario:
    """Named faults of one run."""

    name: str
    title: str
    faults: tuple[Fault, ...]


NOMINAL = Scenario("nominal", "Nothing breaks", ())


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
    device = _one_of(row, "device", sorted({d for d, _ in KINDS}), place)
    layer = _one_of(row, "layer", sorted(y for d, y in KINDS if d == device), place)
    kinds = KINDS[device, layer]
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


def _option(row: dict[str, Any], key: str, spec: Option, place: str) -> float:
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
    """Put the scenario's faults on the cell's clock. Raises ScenarioError: not fitted."""
    for fault in scenario.faults:
        check_fitted(cell, fault, scenario.name)
    for fault in scenario.faults:
        if fault.origin == "power_up":
            _schedule(cell, fault, 0)
        else:
            cell.plant.on_first_emission.append(
                lambda t_us, fault=fault: _schedule(cell, fault, t_us)
            )


def _schedule(cell: SimCell, fault: Fault, origin_us: int) -> None:
    def inject() -> None:
        begin(cell, fault)
        if fault.length_us is not None:
            cell.sim.at(cell.sim.now_us + fault.length_us, lambda: end(cell, fault))

    cell.sim.at(origin_us + fault.at_us, inject)


def begin(cell: SimCell, fault: Fault) -> None:
    """The fault's onset is now; the trace is told."""
    cell.trace.event(cell.sim.now_us, "fault_injected", **_named(fault))
    KINDS[fault.device, fault.layer][fault.kind].act(cell, fault, True)


def end(cell: SimCell, fault: Fault) -> None:
    """The fault's end is now; the trace is told."""
    cell.trace.event(cell.sim.now_us, "fault_cleared", **_named(fault))
    KINDS[fault.device, fault.layer][fault.kind].act(cell, fault, False)


def _named(fault: Fault) -> dict[str, Any]:
    return {"device": fault.device, "layer": fault.layer, "fault": fault.kind, **fault.options}


def told(cell: SimCell, asked: Any) -> dict[str, Any]:
    """Carry out one request of the control channel at this instant, and answer it.

    ``{"command": "inject" | "clear", "device", "layer", "kind", "options", "length"}``;
    ``options`` and ``length`` (text with a unit) may be missing. ``{"command": "kinds"}`` lists
    what can break in this cell. Answers ``{"ok": true, "t_us": ...}`` or
    ``{"ok": false, "error": one sentence}``; never raises on what was asked.
    """
    try:
        if not isinstance(asked, dict):
            raise ScenarioError("a request is a table")
        command = _one_of(asked, "command", ["inject", "clear", "kinds"], "request")
        if command == "kinds":
            return {"ok": True, "t_us": cell.sim.now_us, "kinds": fitted_kinds(cell)}
        _only(asked, {"command", "device", "layer", "kind", "options", "length"}, "request")
        options = asked.get("options") or {}
        if not isinstance(options, dict):
            raise ScenarioError("request.options: is not a table")
        row = {key: asked[key] for key in ("device", "layer", "kind") if key in asked}
        if asked.get("length") is not None:
            row["length"] = asked["length"]
        fault = _fault({**options, **row, "at": "0 s", "from": "power_up"}, "request")
        check_fitted(cell, fault, "request")
        if command == "clear":
            end(cell, fault)
        else:
            begin(cell, fault)
            if fault.length_us is not None:
                cell.sim.at(cell.sim.now_us + fault.length_us, lambda: end(cell, fault))
    except CellFileError as exc:
        return {"ok": False, "error": str(exc)}
    return {"ok": True, "t_us": cell.sim.now_us}


def told_json(cell: SimCell, request: bytes) -> bytes:
    """The same in JSON."""
    try:
        asked = json.loads(request)
    except ValueError:
        asked = None
    return json.dumps(told(cell, asked), separators=(",", ":")).encode()


def fitted_kinds(cell: SimCell) -> list[dict[str, Any]]:
    """What can break in this cell: device, layer, kind, names of options."""
    found = []
    for (device, layer), kinds in sorted(KINDS.items()):
        for kind, row in sorted(kinds.items()):
            try:
                check_fitted(cell, Fault(device, layer, kind, 0, "power_up", None))
            except ScenarioError:
                continue
            found.append(
                {"device": device, "layer": layer, "kind": kind, "options": [*row.options]}
            )
    return found

"""Independent judge of reactions: each fault of a trace against the fault table.

Reads the simulator's trace alone (``oracle.Run``) and knows the table: for each kind of fault
its letter and its longest time. Shares nothing with the controller.

- G: no light beyond the time, and the motion controller is disarmed or has a fault latched;
- S: no light beyond the time, and soon after it the source is told "off" or has lost its supply;
- P: no light beyond the time, and soon after it no powder goes to the nozzle;
- "": the build may go on; no more is asked than of any run (``oracle.check``).

A fault is judged from its onset to its end in the trace. Where ``counts`` is "light", the time
is that of open gate since the onset: what is broken shows only while the beam is on, or while
powder is asked for, and a fault before the start does nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.hil.oracle import Run, gate_intervals

AGE_S = 1.0  # greatest age of a device's values in the cell file
POLL_S = 0.2
SOURCE_OFF_US = 250_000  # from the shut gate to a source that heard "off"
SUPPLY_OFF_US = 1_500_000  # and to the dropped supply of one that does not answer
LATCH_US = 10_000
DIVERTED_US = 700_000  # the diverter's way, and what is behind it
POWDER_G = 0.02


@dataclass(frozen=True)
class Need:
    """What the table asks: ``fault`` its row, ``deaf`` who cannot be told (laser, powder)."""

    fault: str
    letter: str
    limit_s: float
    counts: str = "time"
    deaf: str = ""


_SILENT_S = AGE_S + POLL_S
# A line without a check sum (ASCII, Modbus TCP) lets some garbled values pass: each is new for
# the age limit. What a garbled line asks is that it is found soon, not within one age.
GARBLED_S = 3.0
_LINK = Need("motion link lost", "G", 0.105)
_NONE = Need("frames lost, repeated, late or out of order", "", 0.0)
_MELT = Need("pyrometer NaN, saturated, frozen", "P", 2.0 + POLL_S, "light")

TABLE: dict[tuple[str, str, str], Need] = {
    ("safety", "physics", "estop"): Need("e-stop", "G", 0.1),
    ("safety", "physics", "door"): Need("door", "G", 0.1),
    ("safety", "protocol", "plc_error"): Need("safety PLC error", "S", 0.5),
    ("safety", "protocol", "watchdog"): Need("safety PLC error", "S", 0.5),
    ("motion", "wire", "cut"): _LINK,
    ("motion", "wire", "unplug"): _LINK,
    ("motion", "wire", "garble"): Need("motion frames garbled", "G", 0.105),
    ("motion", "wire", "delay"): _NONE,
    ("motion", "wire", "lose"): _NONE,
    ("motion", "wire", "repeat"): _NONE,
    ("motion", "wire", "swap"): _NONE,
    ("laser", "physics", "back_reflection"): Need("back-reflection", "G", 0.1),
    ("laser", "physics", "fault"): Need("laser fault", "S", 0.5),
    ("laser", "physics", "key"): Need("laser not ready", "S", 0.5),
    ("laser", "physics", "weak"): Need("power measured against set, -10 %", "S", 1.0, "light"),
    ("laser", "physics", "stray_light"): Need("emission without command", "G", 0.1),
    ("laser", "protocol", "refuse"): Need("laser refuses enable", "", 4.0),
    ("chiller", "physics", "flow"): Need("chiller flow", "S", 0.5),
    ("chiller", "physics", "alarm"): Need("chiller flow", "S", 0.5),
    ("powder", "physics", "stall"): Need("feeder stall", "P", 1.0, "light"),
    ("powder", "physics", "empty"): Need("low hopper", "P", 1.0),
    ("powder", "protocol", "not_ready"): Need("feeder not ready", "P", 1.0),
    ("gas", "physics", "carrier_supply"): Need("carrier low", "S", 0.5, "light"),
    ("gas", "physics", "shield_supply"): Need("shield low", "P", 1.0, "light"),
    ("gas", "protocol", "flag"): Need("device link lost: gas", "S", _SILENT_S),
    ("oxygen", "process", "leak"): Need("O2 over x2", "S", 1.0),
    ("oxygen", "protocol", "error"): Need("O2 stale", "S", 1.0),
    ("pyrometer", "protocol", "no_signal"): _MELT,
    ("pyrometer", "protocol", "saturated"): _MELT,
    ("pyrometer", "protocol", "not_measuring"): _MELT,
    ("pyrometer", "protocol", "frozen"): _MELT,
    ("head", "physics", "collision"): Need("collision switch", "G", 0.5),
    ("head", "physics", "cooling"): Need("head cooling lost", "S", 0.5),
    ("head", "physics", "window_hot"): Need("protective window temperature", "S", 0.5),
    ("head", "physics", "window_dirty"): Need("protective window scatter", "S", 0.5),
    ("powder_line", "physics", "clogged"): Need(
        "powder back-pressure, one stream clogged", "P", 5.0, "light"
    ),
    ("room", "physics", "oxygen_low"): Need("room O2 low", "S", 1.0),
    ("room", "physics", "extraction"): Need("extraction off", "P", 1.0),
    ("room", "physics", "air_low"): Need("supply pressure low", "P", 1.0),
    ("room", "physics", "argon_low"): Need("supply pressure low", "P", 1.0),
    ("room", "physics", "ups_on_battery"): Need("UPS on battery", "P", 1.0),
    ("drives", "physics", "following_error"): Need("following error at the drives", "G", 0.2),
    ("chamber", "physics", "dew_point"): Need("coolant below dew point", "P", 5.0),
}
_UNCHECKED = ("laser", "gas", "safety", "powder")
for _device in ("laser", "chiller", "gas", "safety"):
    for _layer, _kind in (
        ("wire", "cut"), ("wire", "unplug"), ("wire", "garble"), ("wire", "truncate"),
        ("wire", "delay"), ("protocol", "silent"),
    ):  # fmt: skip
        TABLE[_device, _layer, _kind] = Need(
            f"device link lost: {_device}",
            "S",
            _SILENT_S,
            deaf="laser" if _device == "laser" else "",
        )
        TABLE["powder", _layer, _kind] = Need(
            "device link lost: powder", "P", _SILENT_S, deaf="powder"
        )
        TABLE["pyrometer", _layer, _kind] = Need(
            "device link lost: pyrometer", "P", 2.0 + POLL_S, "light"
        )
for _device in _UNCHECKED:
    for _kind in ("garble", "truncate"):
        _old = TABLE[_device, "wire", _kind]
        TABLE[_device, "wire", _kind] = replace(
            _old, fault=f"device line garbled: {_device}", limit_s=GARBLED_S
        )


def need_of(event: dict[str, Any]) -> Need | None:
    """What the table asks for an onset in the trace; None: it is no row of the table."""
    if event["fault"] == "warm":
        kelvin = float(event["kelvin"])
        if kelvin > 5.0:
            return Need("coolant +5 K", "S", 0.5)
        return Need("coolant +2 K", "P", 1.0) if kelvin > 2.0 else None
    return TABLE.get((event["device"], event["layer"], event["fault"]))


@dataclass(frozen=True)
class Judged:
    """One fault of the trace: its reaction in us and what is wrong with it ("": nothing)."""

    need: Need
    kind: tuple[str, str, str]
    onset_us: int
    cleared_us: int
    reaction_us: int
    lit: bool  # the gate was open at the onset
    wrong: str


class _Steps:
    """A value over time, from events."""

    def __init__(self, start: int, changes: Iterable[tuple[int, int]]) -> None:
        at = [(-1, start), *changes]
        self.t_us = np.array([t for t, _ in at])
        self.values = [v for _, v in at]

    def stretches(self, first_us: int, end_us: int) -> list[tuple[int, int, int]]:
        """(from, to, value) within a window."""
        k = int(np.searchsorted(self.t_us, first_us, side="right")) - 1
        found = []
        at = first_us
        while at < end_us:
            until = int(self.t_us[k + 1]) if k + 1 < len(self.t_us) else end_us
            if until > at:
                found.append((at, min(until, end_us), self.values[k]))
            at, k = max(at, min(until, end_us)), k + 1
        return found


def _changes(run: Run, kind: str, key: str) -> list[tuple[int, int]]:
    return [(int(e["t_us"]), int(e[key])) for e in run.events if e["kind"] == kind]


class Bench:
    """A trace made ready for judging many faults."""

    def __init__(self, run: Run) -> None:
        self.run = run
        gate = gate_intervals(run)
        self.opened = np.array([a for a, _ in gate], dtype=np.int64)
        self.shut = np.array([b for _, b in gate], dtype=np.int64)
        self.armed = _Steps(0, _changes(run, "armed", "on"))
        self.enabled = _Steps(0, _changes(run, "laser_enabled", "on"))
        self.chain = _Steps(1, _changes(run, "chain", "closed"))
        faults = []
        for e in run.events:
            if e["kind"] == "fault":
                faults.append((int(e["t_us"]), int(e["code"])))
            elif e["kind"] == "fault_reset":
                faults.append((int(e["t_us"]), 0))
        self.latched = _Steps(0, faults)
        plant = run.rows["/trace/plant"]
        self.plant_us, self.fed_g = plant["t_us"], plant["fed_g"]
        self.light_w = plant["emission_w"]

    def open_in(self, first_us: int, end_us: int) -> tuple[int, int]:
        """Open gate in a window: (last instant at which it was open, total in us)."""
        k = int(np.searchsorted(self.shut, first_us, side="right"))
        last = total = 0
        while k < len(self.opened) and self.opened[k] < end_us:
            a, b = max(int(self.opened[k]), first_us), min(int(self.shut[k]), end_us)
            last, total, k = b, total + b - a, k + 1
        return last, total

    def judge(self, event: dict[str, Any], cleared_us: int) -> Judged | None:
        """One onset of the trace; None where the table has no row for it."""
        need = need_of(event)
        if need is None:
            return None
        kind = (event["device"], event["layer"], event["fault"])
        onset = int(event["t_us"])
        last, total = self.open_in(onset, cleared_us)
        lit = self.open_in(onset - 1, onset + 1)[1] > 0
        reaction = total if need.counts == "light" else max(0, last - onset)
        if event["fault"] == "stray_light":
            reaction = self._dark_after(onset, cleared_us) - onset
        limit = round(need.limit_s * 1e6)
        wrong = ""
        if need.letter and reaction > limit:
            wrong = f"light {reaction} us beyond the onset, the limit is {limit} us"
        elif need.letter and need.counts == "time":
            wrong = self._rest(need, onset, limit, max(last, onset), cleared_us)
        return Judged(need, kind, onset, cleared_us, reaction if need.letter else 0, lit, wrong)

    def _dark_after(self, onset: int, end: int) -> int:
        """When the light of a broken source was gone: its supply fell."""
        for a, _, closed in self.chain.stretches(onset, end):
            if not closed:
                return a
        return end

    def _rest(self, need: Need, onset: int, limit: int, dark: int, end: int) -> str:
        """What must stand besides darkness once the time is over, until the fault's end."""
        if need.letter == "G":
            for a, b, armed in self.armed.stretches(onset + limit + LATCH_US, end):
                if armed and any(not code for _, _, code in self.latched.stretches(a, b)):
                    return f"armed without a latched fault from {a} us"
        if need.letter in "GS":
            grace = SUPPLY_OFF_US if need.deaf == "laser" else SOURCE_OFF_US
            for a, b, on in self.enabled.stretches(onset + limit + grace, end):
                if on and any(closed for _, _, closed in self.chain.stretches(a, b)):
                    return f"source enabled and supplied from {a} us"
        if need.deaf != "powder":
            rows = slice(
                *np.searchsorted(self.plant_us, (max(dark, onset + limit) + DIVERTED_US, end))
            )
            fed = self.fed_g[rows]
            if len(fed) > 1 and fed[-1] - fed[0] > POWDER_G:
                return f"{fed[-1] - fed[0]:.2f} g of powder to the nozzle after the reaction"
        return ""


def judge(run: Run) -> list[Judged]:
    """Every fault of the trace that is a row of the table, in order of onset."""
    bench = Bench(run)
    end_us = int(bench.plant_us[-1]) if len(bench.plant_us) else 0
    found = []
    for k, event in enumerate(run.events):
        if event["kind"] != "fault_injected":
            continue
        same = [event[key] for key in ("device", "layer", "fault")]
        cleared = end_us
        for later in run.events[k + 1 :]:
            if later["kind"] == "fault_cleared" and same == [
                later[key] for key in ("device", "layer", "fault")
            ]:
                cleared = int(later["t_us"])
                break
        judged = bench.judge(event, cleared)
        if judged is not None:
            found.append(judged)
    return found

"""Texts of an emulated grblHAL controller: reports, settings, build information."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile
    from hil_sim.devices.grblhal_board import Board

HOMING_MM_MIN = 1200.0
PULL_OFF_MM = 1.0
BUSY_OFFSETS, IDLE_OFFSETS = 30, 10  # reports between two that tell the work offset
BUSY_OVERRIDES, IDLE_OVERRIDES = 20, 10
IDLE, HOMING, RUN, HOLDING, HELD, ALARM, JOG = range(7)
_NAMES = {IDLE: "Idle", HOMING: "Home", RUN: "Run", HOLDING: "Hold:1", HELD: "Hold:0", JOG: "Jog"}


def banner() -> str:
    """After power-up and reset."""
    return "\r\nGrblHAL 1.1f ['$' or '$HELP' for help]"


def settings_of(cell: CellFile) -> dict[int, str]:
    """Settings of a controller that was set up for this cell."""
    values = {
        0: "5.0", 1: "25", 2: "0", 3: "0", 4: "7", 5: "0", 6: "0", 9: "3", 10: "5631",
        11: "0.010", 12: "0.002", 13: "0", 14: "0", 15: "0", 20: "1", 21: "1", 22: "13",
        23: "7", 24: "300.0", 25: f"{HOMING_MM_MIN:.1f}", 26: "25", 27: f"{PULL_OFF_MM:.3f}",
        30: "1000.000", 31: "0.000", 32: "1", 44: "4", 45: "2", 46: "1", 61: "1", 63: "3",
    }  # fmt: skip
    for n, axis in enumerate(cell.axes):
        values[100 + n] = f"{axis.steps_per_mm:.5f}"
        values[110 + n] = f"{axis.speed_mm_s * 60.0:.3f}"
        values[120 + n] = f"{axis.accel_mm_s2:.3f}"
        values[130 + n] = f"{axis.most_mm - axis.least_mm + PULL_OFF_MM:.3f}"
    return values


def build_info(c: Board) -> list[str]:
    """The answer to ``$I``."""
    return [
        "[VER:1.1f.20260817:]",
        f"[OPT:VNMZL+,{c.planner.size},{c.rx_size},3,0]",
        "[AXS:3:XYZ]",
        "[NEWOPT:ENUMS,RT+,HOME,SED]",
        "[FIRMWARE:grblHAL]",
        "[SIGNALS:D]",
        "[NVS STORAGE:*EEPROM]",
        "[DRIVER:emulated]",
        "[DRIVER VERSION:260324]",
    ]


class Reports:
    """Status reports, with what is told only now and then."""

    def __init__(self, controller: Board) -> None:
        self.c = controller
        self._until_offset = 0
        self._until_override = 1

    def override_now(self) -> None:
        """The next report tells the overrides."""
        self._until_override = 0

    def status(self, *, whole: bool) -> str:
        """``<...>``; ``whole``: with everything that can be told."""
        c = self.c
        busy = c.state in (RUN, HOLDING, HELD, JOG, HOMING)
        if c.door >= 0:
            name = f"Door:{c.door}"
        elif c.state == ALARM:
            name = f"Alarm:{c.alarm}" if c.alarm else "Alarm"
        else:
            name = _NAMES[c.state]
        k = c.steps_per_mm
        x, y, z = c.believed()
        blocks = c.planner.blocks
        line = blocks[0].line if blocks else c.parser.line
        pieces = c.planner.pieces
        s_value = (
            pieces[-1].power if pieces and c.spindle_on else 0.0
        )  # as prepared, not as put out
        parts = [
            f"<{name}|MPos:{x / k[0]:.3f},{y / k[1]:.3f},{z / k[2]:.3f}",
            f"|Bf:{c.planner.free},{c.rx_free}",
        ]
        if line:
            parts.append(f"|Ln:{line}")
        parts.append(f"|FS:{c.speed_mm_s * 60.0:.0f},{s_value:.0f}")
        pins = "".join(a for a in "XYZ" if a in c.limit_engaged) + ("D" if c.door_open else "")
        if pins:
            parts.append(f"|Pn:{pins}")
        overrides = whole or self._until_override <= 0
        self._until_override -= 1
        if overrides:
            self._until_override = BUSY_OVERRIDES if busy else IDLE_OVERRIDES
        if whole or (self._until_offset <= 0 and not overrides):
            self._until_offset = BUSY_OFFSETS if busy else IDLE_OFFSETS
            parts.append("|WCO:" + ",".join(f"{v:.3f}" for v in self._offset()))
        self._until_offset -= 1
        if overrides:
            parts.append(f"|Ov:{c.feed_override},100,100")
            on = (
                ("C" if c.parser.modal.spindle == 4 else "S")
                if c.spindle_on and not c.held_dark
                else ""
            )
            if on or whole:
                parts.append(f"|A:{on}")
        if whole:
            parts.append(f"|H:{int(c.homed)}|FW:grblHAL")
        return "".join(parts) + ">"

    def _offset(self) -> list[float]:
        return self.c.parser.offsets_mm[self.c.parser.modal.offset]

    def parameters(self) -> list[str]:
        """The answer to ``$#``."""
        offsets = self.c.parser.offsets_mm
        return [f"[G{54 + n}:{x:.3f},{y:.3f},{z:.3f}]" for n, (x, y, z) in enumerate(offsets)]

    def modes(self) -> str:
        """The answer to ``$G``."""
        m = self.c.parser.modal
        return (
            f"[GC:G{m.motion} G{54 + m.offset} G17 G{20 if m.inch else 21} "
            f"G{91 if m.relative else 90} G94 M{m.spindle} M9 T0 F{m.feed_mm_min:.0f} "
            f"S{m.s_value:.1f}]"
        )

"""Overrides of a build under way: speed by time scale, power by trim, powder by its timeline.

All three are factors of what was planned, within the recipe's ``window.override``. None is
approximated: what the motion controller or a device cannot do exactly is refused by name.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from controller.errors import StateError
from controller.machine.states import BUILDING, State
from controller.planning.light.law_table import KEY
from controller.planning.powder.live import rescale_timeline
from controller.planning.quality import CommandCurve
from firmware_bridge.segments import FLAG_PARAM, POWER_FULL, RATIO_ONE, TICK_S, ticks_of

if TYPE_CHECKING:
    from controller.config import Cell
    from controller.machine.executor import Executor

TRIM_TICKS = 4  # the motion controller forgets a trim after 100 ms
ROUNDING = 1.02  # of an axis's greatest speed, that the motion controller lets pass
ROUNDED_SLEW = 1.001  # of the source's slew limit: the plan's own rounding to the wire
LEAD_S = 0.02  # of a new powder timeline: later than what is being sent now

_HOLDABLE = (State.EXECUTE, State.HOLDING, State.UNHOLDING)


class Overrides:
    """The three factors as set, and what keeps them so."""

    def __init__(self) -> None:
        self.speed = self.power = self.powder = 1.0
        self._tick = 0

    def begin(self) -> None:
        """A build begins as planned."""
        self.__init__()  # type: ignore[misc]

    def set(self, ex: "Executor", who: str, what: str, value: float) -> None:
        """Set one of "speed", "power", "powder". Raises StateError with the reason."""
        if ex.state not in BUILDING or ex.job is None:
            raise StateError(f"override is not possible in state {ex.state.name}")
        least, most = ex.job.recipe.window.override
        name = "override" if what == "speed" else f"{what} override"
        if not math.isfinite(value) or value > most:
            raise StateError(f"{name} {value:g} above {most:g} (window of the recipe)")
        if value < least and what != "speed":
            raise StateError(f"{name} {value:g} below {least:g} (window of the recipe)")
        reason = {"speed": _speed, "power": _power, "powder": _powder}[what](ex, value)
        if reason and (what != "speed" or value >= least):
            raise StateError(f"{name} {value:g} refused: {reason}")
        old = getattr(self, what)
        told: dict[str, Any] = {"what": what, "old": old, "new": value, "who": who}
        if what == "powder":
            told["from_s"] = self._rescale(ex, value / old)
        ex.emit("override", told)
        if what == "speed":
            if value < least:
                if ex.state in _HOLDABLE:
                    ex.hold_for(f"override {value:g} below {least:g} by {who}")
                return
            ex.link.override(value)
        elif what == "power":
            ex.link.trim(value)
        setattr(self, what, value)

    def _rescale(self, ex: "Executor", factor: float) -> float:
        """Another timeline from now on; the part's own time of its first command, s."""
        cursor, part = ex.cursor, ex.progress.part
        assert cursor is not None
        from_s = cursor.plan_us * 1e-6 - part.shift_s + LEAD_S
        changed = rescale_timeline(part.plan.timeline, from_s, factor, ex.cell.powder)
        plan = replace(part.plan, timeline=changed.timeline)
        ex.progress.parts[-1] = replace(part, plan=plan)
        cursor.retime(plan)
        for text in changed.warnings:
            ex.emit("log", {"level": "warning", "text": text})
        return from_s

    def tick(self, ex: "Executor") -> None:
        """Each control tick of a build: a trim lives on."""
        self._tick += 1
        if self.power != 1.0 and self._tick % TRIM_TICKS == 0 and ex.link_ready:
            ex.link.trim(self.power)


def _speed(ex: "Executor", value: float) -> str:
    """Why the motion controller could not follow, or "" when it can."""
    plan = ex.progress.part.plan
    law = _law(ex, value)
    if law:
        return law
    most = 1.0 / math.sqrt(ex.cell.motion.plan_share)
    if value > most:
        return (
            f"above {most:.3f}, what motion.plan_share {ex.cell.motion.plan_share:g} of cell "
            f"{ex.cell.name!r} leaves of the acceleration"
        )
    slew = _slew(ex, value, ex.overrides.power)
    if slew:
        return slew
    if value > 1.0:
        shares = _axis_shares(plan.segments, ex.cell)
        k = int(np.argmax(shares))
        if value * shares[k] > ROUNDING:
            axis = ex.cell.motion.axes[k]
            return (
                f"the plan moves axis {axis.name} at {100.0 * shares[k]:.0f} % of its speed "
                f"{axis.speed_mm_s:g} mm/s already"
            )
    return ""


def _law(ex: "Executor", value: float) -> str:
    """Why power would not follow the plan's law at this speed, or "" when it does."""
    plan = ex.progress.part.plan
    law = str(plan.meta.get("power_law", "linear"))
    if law == "linear" or value == 1.0:
        return ""
    if not ex.link.abilities.power_law:
        return (
            f"the plan's power_law is {law!r}, and the motion controller scales power with speed "
            "for a linear one only"
        )
    params = plan.segments[(plan.segments["flags"] & FLAG_PARAM) != 0]["steps"]
    exponents = [float(k) for k in plan.meta.get(KEY, ())]
    capped = bool(params[:, 1:3].any())
    if not (exponents if law == "power" else capped):
        return (
            f"the plan's power_law is {law!r}, but it carries no table of it: it is of an older "
            "version, or has more than 3 laws"
        )
    if not capped:
        return ""
    if value > 1.0:
        return "an energy cap holds in the plan, and above it the law is not known"
    if any(k > 1.0 for k in exponents):
        return "an energy cap holds in the plan, and its power law's exponent is above 1"
    return ""


def _axis_shares(segments: np.ndarray, cell: "Cell") -> np.ndarray:
    """Greatest speed of each axis in a plan, share of its limit; a step of rounding is free."""
    n = len(cell.motion.axes)
    segments = segments[(segments["flags"] & FLAG_PARAM) == 0]
    ticks = np.maximum(ticks_of(segments), 1)
    ratio = segments["start_ratio"] / RATIO_ONE
    peak = np.maximum(ratio, 2.0 - ratio) / (ticks * TICK_S)
    steps = np.maximum(np.abs(segments["steps"][:, :n].astype(np.int64)) - 1, 0)
    limit = np.array([a.speed_mm_s * a.steps_per_mm for a in cell.motion.axes])
    return np.asarray((steps * peak[:, None]).max(axis=0) / limit)


def _slew(ex: "Executor", speed: float, power: float) -> str:
    """Why the source could not follow: time by s and power by k make it s^2 k times as steep."""
    limit_w_s = ex.cell.laser.power_slew_w_s
    steeper = speed * speed * power
    if limit_w_s is None or steeper <= 1.0:
        return ""
    rated_w = ex.cell.laser.rated_power_w
    curve = CommandCurve(ex.progress.part.plan.segments, rated_w)
    own_w_s = curve.greatest_slew_w_s(rated_w / POWER_FULL)
    if own_w_s * steeper <= limit_w_s * ROUNDED_SLEW:
        return ""
    return (
        f"power would change by {own_w_s * steeper:.0f} W/s, above {limit_w_s:g} W/s "
        f"(laser.power_slew of cell {ex.cell.name!r}); the plan itself takes {own_w_s:.0f} W/s"
    )


def _power(ex: "Executor", value: float) -> str:
    """Why no track may have this factor of its power."""
    assert ex.job is not None
    tracks = ex.progress.part.plan.tracks
    low, high = ex.job.recipe.window.power_w
    own_low, own_high = float(tracks["power_set_w"].min()), float(tracks["power_set_w"].max())
    rated_w = ex.cell.laser.rated_power_w
    if ex.job.peak_power_w * value > rated_w:
        return f"{ex.job.peak_power_w * value:.0f} W above {rated_w:g} W (laser.rated_power)"
    slew = _slew(ex, ex.overrides.speed, value)
    if slew:
        return slew
    # a plan that breaks the window itself was warned of; the override must not add to it
    if own_high * value > max(high, own_high) or own_low * value < min(low, own_low):
        return (
            f"tracks of {own_low * value:.0f} to {own_high * value:.0f} W, window.power of the "
            f"recipe is {low:g} to {high:g} W"
        )
    return ""


def _powder(ex: "Executor", value: float) -> str:
    """Why no track may have this factor of its powder."""
    assert ex.job is not None
    fed = ex.progress.part.plan.tracks["powder_g_min"]
    fed = fed[fed > 0.0]
    if not len(fed):
        return "the plan feeds no powder"
    low, high = ex.job.recipe.window.powder_g_min
    own_low, own_high = float(np.min(fed)), float(np.max(fed))
    if own_high * value > max(high, own_high) or own_low * value < min(low, own_low):
        return (
            f"tracks of {own_low * value:.2f} to {own_high * value:.2f} g/min, window.powder of "
            f"the recipe is {low:g} to {high:g} g/min"
        )
    return ""

"""Sequences beside a build: purge, gas, warm-up, powder stabilisation, cool-down.

Each runs at rest as an activity (``modes.Modes.run``): stop, abort and every alarm that stops
end it, and what it has switched on goes off again. None opens the gate.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from controller.errors import StateError
from controller.machine.interlocks import emission_blockers, stale
from controller.machine.sequences import LASER_LIMIT_S, OFF_LIMIT_S, must
from firmware_bridge.errors import DeviceError

if TYPE_CHECKING:
    from controller.machine.executor import Executor

LOOK_S = 0.05
STEADY_SHARE = 0.05  # of the set flow: powder is steady within it
GAS_SHARE = 0.9
GAS_LIMIT_S = 5.0


async def _held(test: Callable[[], bool], hold_s: float, limit_s: float, what: str) -> None:
    """Wait until ``test`` has been true for ``hold_s`` in one go. Raises DeviceError."""
    loop = asyncio.get_running_loop()
    end_s, since_s = loop.time() + limit_s, -1.0
    while True:
        now_s = loop.time()
        if not test():
            since_s = -1.0
        elif since_s < 0.0:
            since_s = now_s
        if since_s >= 0.0 and now_s - since_s >= hold_s:
            return
        if now_s >= end_s:
            raise DeviceError(f"{what} not within {limit_s:g} s")
        await asyncio.sleep(LOOK_S)


def check_purge(ex: "Executor", oxygen_ppm: float | None) -> float:
    """The oxygen to reach, ppm. Raises StateError where a purge means nothing."""
    if "chamber" not in ex.devices.by_role:
        raise StateError("purge: the cell has no [chamber]")
    target = oxygen_ppm if oxygen_ppm is not None else ex.limits.oxygen_limit_ppm
    if target is None:
        raise StateError("purge: the loaded job has no oxygen limit, give oxygen_ppm")
    return target


async def purge(
    ex: "Executor", oxygen_ppm: float, dew_deg_c: float | None, hold_s: float, limit_s: float
) -> str:
    """Inert gas into the chamber until it is pure for ``hold_s``; then the valve stays open.

    A purge that fails or is ended closes the valve. Raises DeviceError.
    """

    def pure() -> bool:
        s, lim = ex.snapshot, ex.limits
        if stale(s, lim, "oxygen") or not s.oxygen.valid or not s.oxygen.oxygen_ppm <= oxygen_ppm:
            return False
        if dew_deg_c is None:
            return True
        return not stale(s, lim, "chamber") and s.chamber.dew_point_deg_c <= dew_deg_c

    reached = False
    try:
        await must(
            "purge valve",
            lambda: ex.devices.call("chamber", lambda d: d.set_purge(True)),
            OFF_LIMIT_S,
        )
        dew = "" if dew_deg_c is None else f" and a dew point of {dew_deg_c:g} degC"
        await _held(pure, hold_s, limit_s, f"{oxygen_ppm:g} ppm oxygen{dew}")
        reached = True
    finally:
        if not reached:
            ex.outputs.submit("chamber", lambda d: d.set_purge(False))
    return f"{ex.snapshot.oxygen.oxygen_ppm:.0f} ppm oxygen, valve open"


async def gas(ex: "Executor", carrier_l_min: float, shield_l_min: float, seconds: float) -> str:
    """Both gases at their flows for a time: lines are clear, leaks are heard. Then off."""
    out = ex.outputs
    try:
        await _flows(ex, carrier_l_min, shield_l_min)
        await asyncio.sleep(seconds)
    finally:
        out.note_gas(0.0, 0.0)
        out.submit("gas", lambda d: d.set_carrier(0.0))
        out.submit("gas", lambda d: d.set_shield(0.0))
    return f"{carrier_l_min:g} and {shield_l_min:g} L/min for {seconds:g} s"


async def _flows(ex: "Executor", carrier_l_min: float, shield_l_min: float) -> None:
    ex.outputs.note_gas(carrier_l_min, shield_l_min)
    for what, call in (
        ("carrier gas", lambda d: d.set_carrier(carrier_l_min)),
        ("shield gas", lambda d: d.set_shield(shield_l_min)),
    ):
        await must(what, lambda c=call: ex.devices.call("gas", c), OFF_LIMIT_S)  # type: ignore[misc]

    def flow() -> bool:
        g = ex.snapshot.gas
        return (
            not stale(ex.snapshot, ex.limits, "gas")
            and g.carrier_l_min >= GAS_SHARE * carrier_l_min
            and g.shield_l_min >= GAS_SHARE * shield_l_min
        )

    await _held(flow, 0.0, GAS_LIMIT_S, f"{carrier_l_min:g} and {shield_l_min:g} L/min of gas")


async def warm_up(ex: "Executor", seconds: float) -> str:
    """The source enabled with its gate shut, as long as nothing speaks against it; then off."""

    def look(*, starting: bool = False) -> None:
        reasons = emission_blockers(ex.snapshot, ex.limits)
        if starting:  # a source that starts up is not ready yet
            reasons = tuple(r for r in reasons if r.name != "LASER_NOT_READY")
        if reasons:
            raise DeviceError(f"warm-up ended: {reasons[0]}")
        if ex.motion is None or ex.motion.gate_on or ex.motion.armed:
            raise DeviceError("warm-up ended: the gate is not surely shut")

    look()  # before anything is enabled
    calls: list[asyncio.Future[Any]] = []

    def enable() -> Awaitable[Any]:
        calls.append(asyncio.ensure_future(ex.devices.call("laser", lambda d: d.emission_enable())))
        return calls[0]

    def off(_: Any = None) -> None:
        ex.outputs.submit("laser", lambda d: d.emission_disable(), urgent=True)

    try:
        await must("laser enabled", enable, LASER_LIMIT_S)

        def enabled() -> bool:
            look(starting=True)
            return not stale(ex.snapshot, ex.limits, "laser") and ex.snapshot.laser.enabled

        await _held(enabled, 0.0, LASER_LIMIT_S, "laser source enabled")
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        while loop.time() < end_s:
            look()
            await asyncio.sleep(LOOK_S)
        temp = ex.snapshot.laser.temp_deg_c
    finally:
        ex.laser_enabled = False
        off()
        for call in calls:  # one still on its way would enable behind that
            if not call.done():
                call.add_done_callback(off)
    return f"source enabled for {seconds:g} s, {temp:.1f} degC"


async def stabilise_powder(
    ex: "Executor", hopper: int, g_min: float, hold_s: float, limit_s: float
) -> str:
    """Powder to waste until the measured flow is steady for ``hold_s``; then off.

    Tells the flow and the time from command to steady.
    """
    loop, out = asyncio.get_running_loop(), ex.outputs
    wanted = (g_min, 0.0) if hopper == 0 else (0.0, g_min)

    def steady() -> bool:
        if stale(ex.snapshot, ex.limits, "powder"):
            return False
        flow = ex.snapshot.powder.flow_measured_g_min[hopper]
        return bool(abs(flow - g_min) <= STEADY_SHARE * g_min)

    try:
        await must(
            "powder to waste",
            lambda: ex.devices.call("powder", lambda d: d.set_diverter(False)),
            OFF_LIMIT_S,
        )
        carrier = max(out.carrier_set_l_min, 0.5 * ex.cell.gas.greatest_flow_l_min)
        await _flows(ex, carrier, 0.0)
        begun_s = loop.time()
        out.note_powder(wanted)
        await must(
            f"hopper {hopper + 1}",
            lambda: ex.devices.call("powder", lambda d: d.set_flow(hopper, g_min)),
            OFF_LIMIT_S,
        )
        await _held(steady, hold_s, limit_s, f"{g_min:g} g/min of hopper {hopper + 1} steady")
        took_s = loop.time() - begun_s - hold_s
        flow = ex.snapshot.powder.flow_measured_g_min[hopper]
    finally:
        out.note_powder((0.0, 0.0))
        out.submit("powder", lambda d: d.set_flow(hopper, 0.0))
        out.note_gas(0.0, 0.0)
        out.submit("gas", lambda d: d.set_carrier(0.0))
    return f"hopper {hopper + 1}: {flow:.2f} g/min steady after {took_s:.1f} s"


async def cool_down(
    ex: "Executor", seconds: float, shield_l_min: float, *, chiller_off: bool
) -> str:
    """Shield gas and coolant go on for a time after the end; then gas off, coolant as asked."""
    out = ex.outputs
    try:
        out.shield_until_us = -1
        await _flows(ex, 0.0, shield_l_min)
        await must(
            "coolant runs",
            lambda: ex.devices.call("chiller", lambda d: d.set_run(True)),
            OFF_LIMIT_S,
        )
        await asyncio.sleep(seconds)
    finally:
        out.note_gas(0.0, 0.0)
        out.submit("gas", lambda d: d.set_shield(0.0))
    if chiller_off:
        await must(
            "coolant off",
            lambda: ex.devices.call("chiller", lambda d: d.set_run(False)),
            OFF_LIMIT_S,
        )
    return f"{seconds:g} s of gas and coolant, coolant {'off' if chiller_off else 'goes on'}"

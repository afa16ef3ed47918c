"""What takes the machine from one state to the next: start, complete, stop, abort, reset.

A sequence waits, a control tick does not. Steps that switch something off run side by
side and each to its own time limit: one that fails does not skip another. A device call
that a sequence has begun is never cut off in the middle of its exchange.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from controller.machine.alarms import TABLE
from controller.machine.going_on import Rest
from controller.machine.interlocks import RULES, emission_blockers, stale
from controller.machine.job import Job
from controller.machine.states import State
from controller.model import Severity
from controller.planning.powder.line import lines_of
from firmware_bridge.errors import BridgeError, DeviceError
from firmware_bridge.link_types import LinkState

if TYPE_CHECKING:
    from controller.machine.executor import Executor

OFF_LIMIT_S = 1.0  # for each step that switches something off
LASER_LIMIT_S = 4.0  # from asking for emission to enabled: fault table
GAS_LIMIT_S = 5.0
GAS_SHARE = 0.9  # of the set flow, before the laser is enabled
AFTERFLOW_S = 2.0  # carrier gas clears the line; at the end of a build shield gas as well
STANDSTILL_LIMIT_S = 2.0
FRESH_LIMIT_S = 5.0
HOME_LIMIT_S = 120.0
LOOK_S = 0.01
# alarms of errors that the source keeps until it is told to forget them
LATCHED_BY_SOURCE = ("BACK_REFLECTION", "EMISSION_UNCOMMANDED")

_AT_REST = (LinkState.IDLE, LinkState.HELD, LinkState.FAULT)
_WATCHED = {rule.alarm for rule in RULES}
# alarms of something that happened once: gone when somebody resets
MOMENTARY = tuple(a.name for a in TABLE if a.name not in _WATCHED)


async def attempt(
    ex: "Executor", what: str, call: Callable[[], Awaitable[Any]], limit_s: float = OFF_LIMIT_S
) -> bool:
    """Try one step; a failure or a missing answer is an alarm, not an exception."""
    error = await _tried(call, limit_s)
    if error:
        ex.raise_alarm("SHUTDOWN_STEP", f"{what}: {error}")
        ex.emit("device", {"device": what, "text": error})
    return not error


async def must(what: str, call: Callable[[], Awaitable[Any]], limit_s: float) -> None:
    """Do one step. Raises DeviceError naming it when it fails or does not answer."""
    error = await _tried(call, limit_s)
    if error:
        raise DeviceError(f"{what}: {error}")


async def _tried(call: Callable[[], Awaitable[Any]], limit_s: float) -> str:
    """Why a call failed, "" when it did not. It runs on by itself when this task ends."""
    return await _outcome(_begun(call), limit_s)


def _begun(call: Callable[[], Awaitable[Any]]) -> "asyncio.Future[Any]":
    task = asyncio.ensure_future(call())
    task.add_done_callback(_look)
    return task


async def _outcome(task: "asyncio.Future[Any]", limit_s: float) -> str:
    done, _ = await asyncio.wait({task}, timeout=limit_s)
    if not done:
        return f"no answer in {limit_s:g} s"
    if task.cancelled():
        return "was cut off"
    exc = task.exception()
    if exc is None:
        return ""
    if isinstance(exc, BridgeError):
        return str(exc)
    return f"{type(exc).__name__}: {exc}"


def _look(task: "asyncio.Future[Any]") -> None:
    """Take note of a failure that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


async def until(test: Callable[[], bool], limit_s: float) -> bool:
    """Wait until ``test`` is true, at most ``limit_s``; whether it became true."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + limit_s
    while not test():
        if loop.time() >= end_s:
            return False
        await asyncio.sleep(LOOK_S)
    return True


# --- going -------------------------------------------------------------------------------


async def start(ex: "Executor", job: Job) -> None:
    """STARTING: gas, powder path, laser, arm; then EXECUTE. Nothing moves before all stand."""
    ex.loader.load(ex.progress.parts)
    await must("powder to waste", _to(ex, "powder", lambda d: d.set_diverter(False)), OFF_LIMIT_S)
    for hopper in range(len(ex.cell.powder.hoppers)):
        await must(f"hopper {hopper + 1} off", _flow(ex, hopper, 0.0), OFF_LIMIT_S)
    out = ex.outputs
    out.note_powder((0.0, 0.0))
    out.diverter_to_nozzle = out.diverter_planned = out.wasting = False
    out.rested, out.shield_until_us = None, -1
    carrier, shield = job.carrier_l_min, job.shield_l_min
    out.note_gas(carrier, shield)
    await must("carrier gas", _to(ex, "gas", lambda d: d.set_carrier(carrier)), OFF_LIMIT_S)
    await must("shield gas", _to(ex, "gas", lambda d: d.set_shield(shield)), OFF_LIMIT_S)
    await _gas_flows(ex, carrier, shield)
    if not await _laser_on(ex):
        return
    laws = ex.loader.set_laws
    await must("power laws", lambda: laws(job.plan), OFF_LIMIT_S)
    await ex.link.arm()
    ex.hold_commanded = False
    ex.machine.to(State.EXECUTE, "armed, laser enabled, gas flows")
    ex.link.start(0)


async def _gas_flows(ex: "Executor", carrier_l_min: float, shield_l_min: float) -> None:
    """Wait for both gases. Raises DeviceError."""
    gas = ex.devices.driver("gas")

    def flows() -> bool:
        r = gas.reading
        return (
            r is not None
            and r.carrier_l_min >= GAS_SHARE * carrier_l_min
            and r.shield_l_min >= GAS_SHARE * shield_l_min
        )

    if not await until(flows, GAS_LIMIT_S):
        raise DeviceError(
            f"gas does not reach {carrier_l_min:g} and {shield_l_min:g} L/min in {GAS_LIMIT_S} s"
        )


async def _laser_on(ex: "Executor") -> bool:
    """Enable the source; False (and LASER_REFUSED) when it is not enabled in time."""
    laser = ex.devices.driver("laser")
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    ex.enabling = _begun(_to(ex, "laser", lambda d: d.emission_enable()))
    error = await _outcome(ex.enabling, LASER_LIMIT_S)
    if not error:
        left_s = LASER_LIMIT_S - (loop.time() - begin_s)
        if await until(lambda: laser.reading is not None and laser.reading.enabled, left_s):
            ex.laser_enabled = True
            return True
        faults = ", ".join(laser.reading.faults) if laser.reading is not None else ""
        error = f"not enabled in {LASER_LIMIT_S:g} s" + (f" ({faults})" if faults else "")
    ex.raise_alarm("LASER_REFUSED", error)
    return False


def _to(
    ex: "Executor", role: str, call: Callable[[Any], Awaitable[Any]], *, urgent: bool = False
) -> Callable[[], Awaitable[Any]]:
    """A call to a device, in turn with others to it unless urgent."""
    return lambda: ex.devices.call(role, call, urgent=urgent)


def _flow(ex: "Executor", hopper: int, g_min: float) -> Callable[[], Awaitable[Any]]:
    return _to(ex, "powder", lambda d: d.set_flow(hopper, g_min))


async def unhold(ex: "Executor", rest: Rest | None, cause: str) -> None:
    """UNHOLDING: laser enabled and armed as before, then the rest of the build from its lift on.

    The rest's own timeline brings powder back to the nozzle. Without a rest (no bead is left)
    the axes go on along the plan.
    """
    out = ex.outputs
    out.shield_until_us = -1
    if out.rested is not None:
        hoppers, shield = out.rested
        await _wake(ex, hoppers if rest is None else (0.0, 0.0), shield)
        out.rested = None
    if not ex.laser_enabled and not await _laser_on(ex):
        return
    if not ex.motion.armed:
        await ex.link.arm()
    out.wasting = False
    if rest is not None:
        out.diverter_planned = False
        ex.progress.take(ex, rest, cause)
    elif out.diverter_planned:
        diverter = _to(ex, "powder", lambda d: d.set_diverter(True))
        await must("powder to nozzle", diverter, OFF_LIMIT_S)
        out.diverter_to_nozzle = True
    ex.hold_commanded = False
    if rest is None:
        ex.link.unhold()
    goes_on = await until(
        lambda: ex.link.finished or ex.motion.state == LinkState.RUN, STANDSTILL_LIMIT_S
    )
    if not goes_on:
        ex.raise_alarm("RESUME_FAILED", "the axes do not move again")


async def _wake(ex: "Executor", hoppers_g_min: tuple[float, float], shield_l_min: float) -> None:
    """After a long hold: shield gas and powder as before, and powder's way to the nozzle."""
    out, powder = ex.outputs, ex.cell.powder
    out.note_gas(out.carrier_set_l_min, shield_l_min)
    out.note_powder(hoppers_g_min)
    await must("shield gas", _to(ex, "gas", lambda d: d.set_shield(shield_l_min)), OFF_LIMIT_S)
    for hopper, g_min in enumerate(hoppers_g_min):
        if g_min > 0.0:
            await must(f"hopper {hopper + 1} on", _flow(ex, hopper, g_min), OFF_LIMIT_S)
    await _gas_flows(ex, out.carrier_set_l_min, shield_l_min)
    if any(hoppers_g_min):
        lines = lines_of(powder)
        await asyncio.sleep(max(n.transport_delay_s + 3.0 * n.lag_s for n in lines))


async def home(ex: "Executor") -> None:
    """Find the axes' reference; the state stays IDLE."""
    error = await _tried(ex.link.home, HOME_LIMIT_S)
    if not error and not await until(lambda: ex.motion is not None and ex.motion.homed, 1.0):
        error = "the motion controller does not report that it is homed"
    if error:
        ex.raise_alarm("HOMING_FAILED", error)
    ex.activity = ""


# --- ending ------------------------------------------------------------------------------


async def complete(ex: "Executor") -> None:
    """COMPLETING: laser off, disarm, powder off, gas after-flow, record sealed."""
    await _switch_off(ex, disarm=True)
    await asyncio.sleep(AFTERFLOW_S)
    await _carrier_off(ex)
    await shield_off(ex)
    ex.machine.to(State.COMPLETE, "everything is off")
    ex.close_record()


async def stop(ex: "Executor", building: bool) -> None:
    """STOPPING: the gate was shut by the hold that came before this sequence.

    Shield gas flows on beyond it (``Outputs.keep_shield``); the record ends here.
    """
    ex.outputs.keep_shield()
    await _switch_off(ex, disarm=ex.link_ready)
    if ex.link_ready:
        await _standstill(ex)
    if building:
        await asyncio.sleep(AFTERFLOW_S)
        await _carrier_off(ex)
    ex.hold_commanded = False
    ex.machine.to(State.STOPPED, "everything is off")
    ex.close_record()


async def abort(ex: "Executor") -> None:
    """ABORTING: the motion controller has its ABORT already. Gas as after a stop."""
    ex.outputs.keep_shield()
    await _switch_off(ex, disarm=False)
    await asyncio.sleep(AFTERFLOW_S)
    await _carrier_off(ex)
    ex.machine.to(State.ABORTED, "everything is off, fault latched")
    ex.close_record()


async def _switch_off(ex: "Executor", *, disarm: bool) -> None:
    """Laser, powder and arming off, side by side; a laser that stays on loses its supply."""
    ex.laser_enabled = False
    ex.outputs.diverter_to_nozzle = ex.outputs.diverter_planned = False
    steps = [
        _laser_off(ex),
        attempt(ex, "powder to waste", _to(ex, "powder", lambda d: d.set_diverter(False))),
    ]
    for hopper in range(len(ex.cell.powder.hoppers)):
        steps.append(attempt(ex, f"hopper {hopper + 1} off", _flow(ex, hopper, 0.0)))
    if disarm:
        steps.append(attempt(ex, "disarm", ex.link.disarm))
    laser_is_off, *_ = await asyncio.gather(*steps)
    ex.outputs.note_powder((0.0, 0.0))
    if not laser_is_off:
        drop = _to(ex, "safety", lambda d: d.drop_supply(), urgent=True)
        await attempt(ex, "laser supply off", drop)


async def _laser_off(ex: "Executor") -> bool:
    """EMOFF at once; and again behind an enable call that was on its way."""
    off = _to(ex, "laser", lambda d: d.emission_disable(), urgent=True)
    is_off = await attempt(ex, "laser emission off", off)
    enabling, ex.enabling = ex.enabling, None
    if enabling is not None and not enabling.done():
        await asyncio.wait({enabling}, timeout=OFF_LIMIT_S)
        is_off = await attempt(ex, "laser emission off", off) and is_off
    return is_off


async def shield_off(ex: "Executor") -> None:
    """Shield gas ends."""
    ex.outputs.shield_until_us = -1
    ex.outputs.note_gas(ex.outputs.carrier_set_l_min, 0.0)
    await attempt(ex, "shield gas off", _to(ex, "gas", lambda d: d.set_shield(0.0)))


async def _carrier_off(ex: "Executor") -> None:
    """The line is clear: carrier gas ends."""
    ex.outputs.note_gas(0.0, ex.outputs.shield_set_l_min)
    await attempt(ex, "carrier gas off", _to(ex, "gas", lambda d: d.set_carrier(0.0)))


async def _standstill(ex: "Executor") -> None:
    """Wait until the axes stand; what is still queued is dropped by the next home or start."""
    stands = await until(
        lambda: ex.motion is None or ex.motion.state in _AT_REST, STANDSTILL_LIMIT_S
    )
    if not stands:
        ex.raise_alarm("SHUTDOWN_STEP", f"axes do not stand after {STANDSTILL_LIMIT_S:g} s")


# --- coming back -------------------------------------------------------------------------


def clear_blockers(ex: "Executor") -> list[str]:
    """Alarms against clearing: those that it does not take away itself."""
    own = {"FIRMWARE_FAULT", "LINK_LOST", "SUPERVISOR_ERROR", *LATCHED_BY_SOURCE}
    chain = ex.readings.safety
    if chain is not None and chain.reset_needed:
        own.add("CHAIN_OPEN")  # it closes by the reset that clearing asks for
    present = ex.alarms.present(Severity.ABORT)
    return [a.alarm.name for a in present if a.alarm.name not in own]


async def clear(ex: "Executor", who: str) -> None:
    """CLEARING: reset edges to source, safety chain and motion controller, in this order.

    The chain gives the source its supply back, so first the source must have forgotten what
    it was taken away for: an alarm that still stands would not be raised again.
    """
    if _present(ex, LATCHED_BY_SOURCE):
        await attempt(ex, "laser errors reset", _to(ex, "laser", lambda d: d.reset_errors()))
        if not await until(lambda: not _present(ex, LATCHED_BY_SOURCE), 1.0):
            _not_cleared(ex, f"the source keeps {', '.join(_present(ex, LATCHED_BY_SOURCE))}")
            return
    safety = ex.devices.driver("safety")
    reading = safety.reading
    if reading is not None and reading.reset_needed and reading.estop_ok and reading.door_closed:
        await attempt(ex, "safety chain reset", _to(ex, "safety", lambda d: d.request_reset()))
        await until(lambda: safety.reading.interlock_ok, 1.0)
    error = await _tried(ex.link.reset, FRESH_LIMIT_S) if ex.link_ready else "not connected"
    if error:  # the wire may be back although the link is not
        error = await _tried(ex.connect, FRESH_LIMIT_S)
        error = error or await _tried(ex.link.reset, FRESH_LIMIT_S)
    if not error and not await until(lambda: ex.motion is not None and not ex.motion.fault, 1.0):
        error = "the motion controller keeps its fault"
    if error:
        _not_cleared(ex, error)
        return
    forget(ex, who)
    ex.machine.to(State.STOPPED, "causes gone, fault reset")


def _present(ex: "Executor", names: tuple[str, ...]) -> list[str]:
    return [a.alarm.name for a in ex.alarms.present() if a.alarm.name in names]


def _not_cleared(ex: "Executor", error: str) -> None:
    ex.emit("log", {"level": "error", "text": f"clear failed: {error}"})
    ex.abort_again(f"clear failed: {error}")


async def reset(ex: "Executor", who: str) -> None:
    """RESETTING: coolant runs, the source's errors are reset, nothing is queued."""
    chiller = ex.devices.driver("chiller")
    forget(ex, who)
    if ex.outputs.shield_until_us >= 0:  # somebody looks after the part from here on
        ex.outputs.shield_over(held=False)
    if ex.link_ready and ex.motion is not None and not ex.motion.fault:
        # a stop that nobody confirmed ended the beats: without a fault this only lets them go on
        await attempt(ex, "motion link reset", ex.link.reset)
    await until(lambda: not _silent(ex), FRESH_LIMIT_S)
    setpoint = ex.cell.chiller.setpoint_deg_c
    runs = []
    if chiller.reading is not None and not chiller.reading.flow_ok:
        # stopped by an alarm of its own, it wants "stop" before "run"
        runs.append(attempt(ex, "coolant stopped", _to(ex, "chiller", lambda d: d.set_run(False))))
    runs.append(attempt(ex, "coolant runs", _to(ex, "chiller", lambda d: d.set_run(True))))
    await asyncio.gather(
        attempt(ex, "laser errors reset", _to(ex, "laser", lambda d: d.reset_errors())),
        _in_turn(
            attempt(ex, "coolant setpoint", _to(ex, "chiller", lambda d: d.set_setpoint(setpoint))),
            *runs,
        ),
    )
    await until(lambda: chiller.reading is not None and chiller.reading.flow_ok, FRESH_LIMIT_S)
    ex.online = True
    silent = _silent(ex)
    reasons = [b.name for b in emission_blockers(ex.snapshot, ex.limits)]
    cause = f"reset done; not ready: {', '.join(reasons)}" if reasons else "reset done"
    if silent:
        ex.emit("log", {"level": "warning", "text": f"silent devices: {', '.join(silent)}"})
    ex.machine.to(State.IDLE, cause)


async def _in_turn(*steps: Awaitable[Any]) -> None:
    for step in steps:
        await step


def forget(ex: "Executor", who: str) -> None:
    """Acknowledge everything; alarms of a moment are gone, those of a standing cause stay."""
    for name in MOMENTARY:
        ex.alarms.clear(name)
    ex.alarms.acknowledge(who)
    ex.alarms.reset_first_out()
    ex.monitor.unseen_emission_s = 0.0


def _silent(ex: "Executor") -> list[str]:
    """Roles without a fresh reading."""
    return [d.role for d in ex.devices.loops if stale(ex.snapshot, ex.limits, d.role)]

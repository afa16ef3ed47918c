"""Commands of supervision: alarms' life, unit modes, approval, why-not, sequences, injection.

Mounted by ``commands.Commands``. Each states its least role beside it; roles are in
``protocol.MAY``. None opens the gate: a test emission is a job that goes through START with
every interlock, in maintenance mode, guarded by the cell's power meter.
"""

import math
from collections.abc import Callable, Coroutine
from typing import Any

from controller.api.protocol import CallError
from controller.machine import approval, care
from controller.machine.executor import Executor
from controller.machine.states import UnitMode
from controller.machine.why import first_cause, why_not

LONGEST_S = 4 * 3600.0
INJECT_KEYS = ("device", "layer", "kind", "options", "length")

Tell = Callable[[dict[str, Any]], dict[str, Any]]
Ask = Callable[[str], approval.Approved]


class SupervisionCommands:
    """Methods on one executor. ``let_run``: time runs at least so long (us)."""

    def __init__(self, ex: Executor, let_run: Callable[[int], None], *, simulated: bool) -> None:
        self.ex = ex
        self._let_run = let_run
        self._simulated = simulated
        self.tell: Tell | None = None  # the simulator's control channel
        self.approve: Ask | None = None  # freezes what is there: set by the server

    def methods(self) -> dict[str, tuple[str, Any]]:
        """Name -> (least role, method)."""
        return {
            "why_not": ("observer", self._why_not),
            "alarm_history": ("observer", self._history),
            "alarm_ack": ("operator", self._ack),
            "alarm_shelve": ("operator", self._shelve),
            "alarm_out_of_service": ("engineer", self._out_of_service),
            "alarm_put_back": ("operator", self._put_back),
            "set_mode": ("engineer", self._set_mode),
            "approve": ("engineer", self._approve),
            "purge": ("operator", self._purge),
            "gas_sequence": ("operator", self._gas),
            "warm_up": ("operator", self._warm_up),
            "powder_stabilise": ("operator", self._powder),
            "cool_down": ("operator", self._cool_down),
            "emission_test": ("service", self._emission_test),
            "inject": ("tester", self._inject),
        }

    # --- why not, alarms -----------------------------------------------------------------

    async def _why_not(self, caller: Any, params: dict[str, Any]) -> Any:
        """The chain from the hardware to the plan, each link with its reasons."""
        _only(params)
        ex = self.ex
        present = [a.alarm.name for a in ex.alarms.present()]
        rungs = why_not(ex.snapshot, ex.limits, present, ex.blockers(None))
        first = first_cause(rungs)
        return {
            "may_fire": first is None,
            "first": None if first is None else first.name,
            "chain": [r.as_dict() for r in rungs],
        }

    async def _history(self, caller: Any, params: dict[str, Any]) -> Any:
        _only(params)
        ex = self.ex
        rows = [
            {"t_us": t, "kind": kind, "name": name, "text": text}
            for t, kind, name, text in ex.alarms.history
        ]
        return {"history": rows, **ex.alarms.as_measures(ex.now_us())}

    async def _ack(self, caller: Any, params: dict[str, Any]) -> Any:
        _only(params, "name")
        return {"acknowledged": self.ex.acknowledge(str(caller), [_text(params, "name")])}

    async def _shelve(self, caller: Any, params: dict[str, Any]) -> Any:
        """The alarm is not told for a time; its reaction stays."""
        _only(params, "name", "why", "seconds")
        name, why = _text(params, "name"), _text(params, "why")
        seconds = _number(params, "seconds", 0.0, LONGEST_S * 10)
        self.ex.alarms.shelve(name, str(caller), why, seconds, self.ex.now_us())
        return {"name": name, "state": str(self.ex.alarms.state_of(name)), "reaction": "stays"}

    async def _out_of_service(self, caller: Any, params: dict[str, Any]) -> Any:
        _only(params, "name", "why")
        name, why = _text(params, "name"), _text(params, "why")
        self.ex.alarms.out_of_service(name, str(caller), why, self.ex.now_us())
        return {"name": name, "state": str(self.ex.alarms.state_of(name)), "reaction": "stays"}

    async def _put_back(self, caller: Any, params: dict[str, Any]) -> Any:
        _only(params, "name")
        name = _text(params, "name")
        self.ex.alarms.put_back(name, str(caller), self.ex.now_us())
        return {"name": name, "state": str(self.ex.alarms.state_of(name))}

    # --- modes ---------------------------------------------------------------------------

    async def _set_mode(self, caller: Any, params: dict[str, Any]) -> Any:
        """Maintenance is the service role's, the others the engineer's."""
        _only(params, "mode")
        try:
            mode = UnitMode(_text(params, "mode"))
        except ValueError:
            raise CallError("BAD_PARAMS", f"mode must be one of {', '.join(UnitMode)}") from None
        if UnitMode.MAINTENANCE in (mode, self.ex.mode) and caller.role != "service":
            raise CallError("WRONG_ROLE", "maintenance mode is entered and left by role service")
        self.ex.modes.set(mode, str(caller))
        return {"mode": str(mode)}

    async def _approve(self, caller: Any, params: dict[str, Any]) -> Any:
        """Freeze cell, recipe of the loaded job, software, firmware, calibrations."""
        _only(params, "who")
        if self.approve is None:
            raise CallError("STATE", "this server keeps no approved set")
        return approval.describe(self.approve(_text(params, "who")))

    # --- sequences -----------------------------------------------------------------------

    def _begin(
        self, name: str, caller: Any, params: dict[str, Any], work: Coroutine[Any, Any, str]
    ) -> dict[str, Any]:
        self.ex.modes.run(name, str(caller), params, work)
        self._let_run(0)
        return {"activity": self.ex.activity}

    async def _purge(self, caller: Any, params: dict[str, Any]) -> Any:
        _only(params, "oxygen_ppm", "dew_point_deg_c", "hold_s", "limit_s")
        asked = _optional(params, "oxygen_ppm", 0.0, 210_000.0)
        target = care.check_purge(self.ex, asked)
        dew = _optional(params, "dew_point_deg_c", -100.0, 30.0)
        hold_s = _number(params, "hold_s", 0.0, LONGEST_S, 10.0)
        limit_s = _number(params, "limit_s", 0.1, LONGEST_S, 1800.0)
        work = care.purge(self.ex, target, dew, hold_s, limit_s)
        return self._begin("purge", caller, params, work)

    async def _gas(self, caller: Any, params: dict[str, Any]) -> Any:
        _only(params, "carrier_l_min", "shield_l_min", "seconds")
        most = self.ex.cell.gas.greatest_flow_l_min
        carrier = _number(params, "carrier_l_min", 0.0, most)
        shield = _number(params, "shield_l_min", 0.0, most)
        seconds = _number(params, "seconds", 0.1, LONGEST_S, 10.0)
        return self._begin(
            "gas_sequence", caller, params, care.gas(self.ex, carrier, shield, seconds)
        )

    async def _warm_up(self, caller: Any, params: dict[str, Any]) -> Any:
        _only(params, "seconds")
        seconds = _number(params, "seconds", 0.1, LONGEST_S, 60.0)
        return self._begin("warm_up", caller, params, care.warm_up(self.ex, seconds))

    async def _powder(self, caller: Any, params: dict[str, Any]) -> Any:
        _only(params, "hopper", "g_min", "hold_s", "limit_s")
        powder = self.ex.cell.powder
        hopper = round(_number(params, "hopper", 1, len(powder.hoppers)))
        least = max(powder.least_flow_g_min, 0.01)
        g_min = _number(params, "g_min", least, powder.greatest_flow_g_min)
        hold_s = _number(params, "hold_s", 0.1, LONGEST_S, 5.0)
        limit_s = _number(params, "limit_s", 0.1, LONGEST_S, 120.0)
        work = care.stabilise_powder(self.ex, hopper - 1, g_min, hold_s, limit_s)
        return self._begin("powder_stabilise", caller, params, work)

    async def _cool_down(self, caller: Any, params: dict[str, Any]) -> Any:
        _only(params, "seconds", "shield_l_min", "chiller_off")
        seconds = _number(params, "seconds", 0.1, LONGEST_S, 60.0)
        most = self.ex.cell.gas.greatest_flow_l_min
        shield = _number(params, "shield_l_min", 0.0, most, min(10.0, most))
        off = params.get("chiller_off", False)
        if not isinstance(off, bool):
            raise CallError("BAD_PARAMS", "chiller_off must be true or false")
        work = care.cool_down(self.ex, seconds, shield, chiller_off=off)
        return self._begin("cool_down", caller, params, work)

    async def _emission_test(self, caller: Any, params: dict[str, Any]) -> Any:
        """Guard limits for the emission-test job that is loaded; START then runs it."""
        _only(params, "power_w")
        ex = self.ex
        if ex.mode is not UnitMode.MAINTENANCE:
            raise CallError("STATE", f"emission_test: the cell is in {ex.mode} mode")
        if "power_meter" not in ex.devices.by_role:
            raise CallError("STATE", "emission_test: the cell has no [power_meter]")
        if ex.job is None or not ex.modes.is_test(ex.job):
            raise CallError("STATE", "emission_test: the job loaded is no emission test")
        most = ex.cell.laser.rated_power_w
        power_w = _number(params, "power_w", ex.cell.laser.threshold_power_w, most)
        if abs(ex.job.peak_power_w - power_w) > 0.01 * power_w:
            raise CallError(
                "BAD_PARAMS",
                f"power_w {power_w:g} is not the job's {ex.job.peak_power_w:.0f} W",
            )
        before_w, ex.modes.test_power_w = ex.modes.test_power_w, power_w
        try:
            ex.start(str(caller), None, UnitMode.MAINTENANCE)
        except Exception:
            ex.modes.test_power_w = before_w  # a test under way keeps its guard
            raise
        self._let_run(0)
        return {"state": ex.state.name, "power_w": power_w}

    # --- injection -----------------------------------------------------------------------

    async def _inject(self, caller: Any, params: dict[str, Any]) -> Any:
        """A fault for the simulator: {device, layer, kind, options, length}; or ``clear`` it."""
        _only(params, *INJECT_KEYS, "clear")
        if not self._simulated or self.tell is None:
            raise CallError("NOT_SIMULATED", "faults are injected into simulated cells only")
        request = {k: params[k] for k in INJECT_KEYS if k in params}
        request["command"] = "clear" if params.get("clear") is True else "inject"
        if "device" not in request:
            request = {"command": "kinds"}
        answer = self.tell(request)
        if answer.get("ok") is not True:
            raise CallError("BAD_PARAMS", str(answer.get("error", "the simulator did not answer")))
        if request["command"] != "kinds":
            self.ex.emit("inject", {"who": str(caller), **request})
            self._let_run(0)
        return answer


def _only(params: dict[str, Any], *known: str) -> None:
    for name in params:
        if name not in known:
            takes = ", ".join(known) or "none"
            raise CallError("BAD_PARAMS", f"parameter {name[:64]!r} is not known; taken: {takes}")


def _text(params: dict[str, Any], key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str) or not value or len(value) > 200 or "\0" in value:
        raise CallError("BAD_PARAMS", f"{key} must be text of 1 to 200 characters")
    return value


def _number(
    params: dict[str, Any], key: str, least: float, most: float, default: float | None = None
) -> float:
    value = params.get(key, default)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not least <= value <= most
    ):
        raise CallError("BAD_PARAMS", f"{key} must be a number from {least:g} to {most:g}")
    return float(value)


def _optional(params: dict[str, Any], key: str, least: float, most: float) -> float | None:
    return None if params.get(key) is None else _number(params, key, least, most)

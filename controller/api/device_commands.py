"""Commands to single devices, for commissioning: what may be asked of which, by whom, when.

Nothing here makes light: emission goes through START with all its interlocks. A device may be
told something only at rest, outside of production, by the service role; every call is an event
of the record and of the audit trail.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from controller.api.protocol import CallError
from controller.machine.executor import Executor
from controller.machine.sequences import LATCHED_BY_SOURCE
from controller.machine.states import State, UnitMode
from firmware_bridge.bench import Bench
from firmware_bridge.errors import BridgeError

# what may be called: (role, method) -> types of its arguments
CALLS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("powder", "set_flow"): (int, float),
    ("powder", "set_diverter"): (bool,),
    ("gas", "set_carrier"): (float,),
    ("gas", "set_shield"): (float,),
    ("chiller", "set_setpoint"): (float,),
    ("safety", "request_reset"): (),
}
AT_REST = (State.IDLE, State.STOPPED, State.COMPLETE)
KEPT_DARK = LATCHED_BY_SOURCE  # alarms that clearing takes away before the chain is reset
SETTLE_US = 200_000


class DeviceCommands:
    """``device_read``, ``device_call``, ``bench``: mounted by ``commands.Commands``.

    ``let_run``: time runs at least so long (us); in real time it does nothing.
    """

    def __init__(
        self, ex: Executor, let_run: Callable[[int], None], bench: Bench | None = None
    ) -> None:
        self.ex = ex
        self.bench = bench
        self._let_run = let_run

    def methods(self) -> dict[str, tuple[str, Callable[[Any, dict[str, Any]], Awaitable[Any]]]]:
        """Name -> (least role, method), as ``Commands.methods``."""
        return {
            "device_read": ("observer", self._read),
            "device_call": ("service", self._call),
            "bench": ("service", self._bench),
        }

    async def _read(self, caller: Any, params: dict[str, Any]) -> Any:
        """The last reading of one device, and its age."""
        role = self._role(params, "device")
        device = self.ex.devices.by_role[role]
        reading = device.reading
        age_s = None
        if reading is not None:
            age_s = (self.ex.loop_us() - reading.at_us) * 1e-6
        return {
            "device": role,
            "error": device.error,
            "age_s": age_s,
            "reading": None if reading is None else _plain(asdict(reading)),
        }

    async def _call(self, caller: Any, params: dict[str, Any]) -> Any:
        """Tell one device something, at rest; answered when the device has taken it."""
        role = self._role(params, "device", "call", "args")
        name, args = str(params.get("call")), params.get("args", [])
        wanted = CALLS.get((role, name))
        if wanted is None:
            known = ", ".join(f"{r}.{c}" for r, c in CALLS)
            raise CallError("BAD_PARAMS", f"call {role}.{name} is none of {known}")
        if not isinstance(args, list) or len(args) != len(wanted):
            raise CallError("BAD_PARAMS", f"{role}.{name} takes {len(wanted)} args")
        args = [_argument(f"{role}.{name}", v, t) for v, t in zip(args, wanted, strict=True)]
        # an aborted cell is only told to end something, or given the reset edge
        ending = name != "set_setpoint" and not any(args[-1:])
        if self.ex.state not in AT_REST and not (self.ex.state is State.ABORTED and ending):
            raise CallError("STATE", f"devices are not told anything in {self.ex.state.name}")
        if self.ex.activity:
            raise CallError("STATE", f"devices are not told anything: {self.ex.activity} goes on")
        latched = [a.alarm.name for a in self.ex.alarms.present() if a.alarm.name in KEPT_DARK]
        if name == "request_reset" and latched:  # it would give the source its supply back
            raise CallError("STATE", f"the chain is not reset while {', '.join(latched)} stands")
        if self.ex.mode is UnitMode.PRODUCTION:
            raise CallError("MODE", "devices are not told anything by hand in production")
        self.ex.emit(
            "command",
            {"what": "device_call", "who": str(caller), "args": {role: [name, *args]}},
        )
        self._let_run(SETTLE_US)
        try:
            await self.ex.devices.call(role, lambda driver: getattr(driver, name)(*args))
        except BridgeError as exc:
            raise CallError("DEVICE", str(exc)) from None
        return {"device": role, "call": name, "args": args, "t_us": self.ex.now_us()}

    async def _bench(self, caller: Any, params: dict[str, Any]) -> Any:
        """One line to the bench of instruments, and its answer."""
        if set(params) != {"line"} or not isinstance(params["line"], str):
            raise CallError("BAD_PARAMS", "line must be text, and nothing else")
        if self.bench is None:
            raise CallError("NO_BENCH", "no bench of instruments is connected to this cell")
        if params["line"].startswith("DOOR"):
            self.ex.emit("command", {"what": "bench", "who": str(caller), "args": dict(params)})
        self._let_run(SETTLE_US)
        try:
            answer = await self.bench.ask(params["line"])
            return {"answer": answer, "t_us": self.ex.now_us()}
        except BridgeError as exc:
            raise CallError("DEVICE", str(exc)) from None

    def _role(self, params: dict[str, Any], *known: str) -> str:
        for name in params:
            if name not in known:
                raise CallError("BAD_PARAMS", f"parameter {name[:64]!r} is not known")
        role = params.get("device")
        if not isinstance(role, str) or role not in self.ex.devices.by_role:
            there = ", ".join(self.ex.devices.by_role)
            raise CallError("BAD_PARAMS", f"device must be one of {there}")
        return role


def _argument(where: str, value: Any, wanted: Any) -> Any:
    """An argument of its type; a finite number where one is wanted."""
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
        raise CallError("BAD_PARAMS", f"{where}: {value!r} is no {wanted.__name__}")
    return value


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor arrays."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value

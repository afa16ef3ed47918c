"""One driver and one emulator on a null wire in virtual time, of any make."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from controller.clock import NullTime, VirtualLoop
from firmware_bridge import registry
from firmware_bridge.transport import NullPort
from hil_sim.clock import Scheduler
from hil_sim.devices.base import Emulator
from hil_sim.devices.modbus import ModbusRtu
from hil_sim.wires import NullEnd
from tests.unit.emulator_bench import make_world

CHANNEL = 1


def on_serial(kind: type[Emulator]) -> type[Emulator]:
    """The same device behind RTU frames in place of TCP's."""
    return type(f"{kind.__name__}Rtu", (kind, ModbusRtu), {"receive": ModbusRtu.receive})


class Bench:
    """A cell of one device, as the null clock wants a simulator."""

    def __init__(self, kind: type[Emulator]) -> None:
        self.sim = Scheduler()
        self.world = make_world()
        self.emulator = kind(self.sim, self.world)
        end = self.end = NullEnd(self.sim, CHANNEL, "device")
        self.emulator.send = end.send
        end.on_data = self.emulator.receive
        end.on_opened = self.emulator.opened
        end.on_closed = self.emulator.closed

    def opened(self, channel: int) -> None:
        self.end.opened()

    def closed(self, channel: int) -> None:
        self.end.closed()

    def wait(self, target_us: int, writes: Any) -> Any:
        for _, data in writes:
            self.end.receive(data)
        if not self.sim.emitted:
            self.sim.run(target_us)
        self.sim.emitted = False
        data = self.end.drain()
        return self.sim.now_us, [(CHANNEL, data)] if data else []

    def finish(self) -> None:
        pass


def meet(
    driver: str,
    kind: type[Emulator],
    scenario: Callable[[Any, Any, Any], Awaitable[Any]],
    **options: Any,
) -> Any:
    """Connect a driver to an emulator and run ``scenario(device, emulator, world)``."""
    bench = Bench(kind)
    loop = VirtualLoop(NullTime(bench))

    async def whole() -> Any:
        device = registry.make(driver, NullPort("device", CHANNEL), "device", **options)
        await device.connect()
        try:
            return await scenario(device, bench.emulator, bench.world)
        finally:
            device.close()

    try:
        return loop.run_until_complete(whole())
    finally:
        loop.close()

"""The cell's devices: one driver per role, each polled at its own rate.

The control tick is the only clock: it wakes the devices that are due, in channel order
and with fixed phases, so that the order of requests never depends on chance. Each device
has a task of its own: a slow or dead one delays nobody else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from controller.config import Cell
from firmware_bridge import links, registry
from firmware_bridge.errors import BridgeError, DeviceError
from firmware_bridge.link_process import LinkProcess
from firmware_bridge.link_types import AxisSettings, Link, LinkSettings
from firmware_bridge.transport import NullPort, Port, SerialPort, TcpPort, parse_port

TICK_HZ = 100
# In the order of the channel numbers: the order of everything that happens at one instant.
ROLES = ("laser", "pyrometer", "chiller", "powder", "gas", "oxygen", "safety")
# Those that a cell file may have besides, likewise.
OPTIONAL_ROLES = (
    "camera", "height", "drives", "power_meter", "heater", "chamber", "head", "powder_line", "room",
)  # fmt: skip
CHANNELS = {name: n for n, name in enumerate(("motion", *ROLES, *OPTIONAL_ROLES))}
# The bridge's name of each (``firmware_bridge.roles``).
BRIDGE_ROLE = {
    "laser": "laser_source", "pyrometer": "pyrometer", "chiller": "chiller",
    "powder": "powder_feeder", "gas": "gas_flow", "oxygen": "oxygen_analyser",
    "safety": "safety_plc", "camera": "melt_pool_camera", "height": "height_sensor",
    "drives": "axis_drives", "power_meter": "power_meter", "heater": "substrate_heater",
    "chamber": "chamber", "head": "process_head", "powder_line": "powder_line", "room": "room",
}  # fmt: skip
# Tick of the first poll: devices of the same rate are spread over the ticks.
PHASE_TICKS = {
    "laser": 0, "pyrometer": 0, "chiller": 1, "powder": 3, "gas": 4, "oxygen": 6, "safety": 2,
    "camera": 0, "height": 1, "drives": 3, "power_meter": 5, "heater": 7, "chamber": 8,
    "head": 1, "powder_line": 5, "room": 9,
}  # fmt: skip
# The simulator's ptys take any rate; these are the lines' own (docs/reference).
SERIAL_SETTINGS = {
    "motion": (921600, "N"),
    "pyrometer": (19200, "E"),
    "chiller": (19200, "N"),
    "laser": (57600, "N"),
}

Tell = Callable[[str, str], None]  # role, text


def fitted(cell: Cell) -> tuple[str, ...]:
    """The roles that a cell has, in the order of the channels."""
    return (*ROLES, *(role for role in OPTIONAL_ROLES if getattr(cell, role) is not None))


def ports_of(cell: Cell, channels: list[Mapping[str, Any]] | None) -> dict[str, Port]:
    """Where each role's wire comes from, ``motion`` included.

    ``channels`` is the simulator's channel table (its ready line); None means the ports of
    the cell file. A role that the table lacks falls back to the cell file's port.
    Raises TransportError naming the role.
    """
    table = {c["name"]: c for c in channels or []}
    ports: dict[str, Port] = {}
    for role in ("motion", *fitted(cell)):
        entry = table.get(role)
        if entry is None:
            ports[role] = parse_port(role, getattr(cell, role).port)
        elif entry["kind"] == "tcp":
            ports[role] = TcpPort(role, entry["host"], int(entry["port"]), int(entry["id"]))
        elif entry["kind"] == "pty":
            baud, parity = SERIAL_SETTINGS.get(role, (115200, "N"))
            ports[role] = SerialPort(role, entry["path"], baud, parity, int(entry["id"]))
        else:
            ports[role] = NullPort(role, int(entry["id"]))
    return ports


class DeviceLoop:
    """One driver and its task: connects, then polls each time it is woken."""

    def __init__(self, role: str, driver: Any, poll_hz: float, tell: Tell) -> None:
        self.role = role
        self.driver = driver
        self.every_ticks = max(1, round(TICK_HZ / poll_hz))
        self.phase_ticks = PHASE_TICKS.get(role, 0) % self.every_ticks
        self.n_missed = 0  # polls that were due while the one before still ran
        self.error = ""
        # commands of several exchanges must not mix; polls go between their exchanges
        self.commands = asyncio.Lock()
        self._tell = tell
        self._wake: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def reading(self) -> Any:
        """The last good reading, or None."""
        return self.driver.reading

    def start(self) -> None:
        """Begin: connect, then wait to be woken."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self.role)

    def wake(self) -> None:
        """A poll is due."""
        wake = self._wake
        if wake is None:
            self.n_missed += 1
        else:
            self._wake = None
            wake.set_result(None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self.driver.connect()
        except BridgeError as exc:
            self._report(str(exc))
        while True:
            wake = self._wake = loop.create_future()
            await wake
            try:
                await self.driver.poll()
            except BridgeError as exc:  # drivers reconnect inside poll(), with back-off
                self._report(str(exc))
            else:
                if self.error:
                    self._report("")

    def _report(self, error: str) -> None:
        """Tell each change once: a dead device would fill the record otherwise.

        Port numbers and pty names change from run to run, so they stay out of events.
        """
        port = getattr(self.driver, "port", None)
        if port is not None:
            error = error.replace(str(port), "its port")
        first_words = error.split(",", 1)[0]
        if first_words != self.error.split(",", 1)[0]:
            self._tell(self.role, error or "answers again")
        self.error = error

    async def stop(self) -> None:
        """End the task and close the wire."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.driver.close()


class CellDevices:
    """All devices of a cell, by role; ``laser``, ``powder``... are the drivers."""

    def __init__(self, drivers: Mapping[str, Any], poll_hz: Mapping[str, float], tell: Tell):
        self.loops = [DeviceLoop(r, drivers[r], poll_hz[r], tell) for r in CHANNELS if r in drivers]
        self.by_role = {d.role: d for d in self.loops}
        self._calls: dict[int, asyncio.Task[None]] = {}
        # with rates that divide 100 Hz the pattern repeats each second
        self._even = all(TICK_HZ % d.every_ticks == 0 for d in self.loops)
        self._due = [self._due_at(tick) for tick in range(TICK_HZ)]

    def _due_at(self, n: int) -> list[DeviceLoop]:
        return [d for d in self.loops if n % d.every_ticks == d.phase_ticks]

    @classmethod
    def of(cls, cell: Cell, ports: Mapping[str, Port], tell: Tell) -> "CellDevices":
        """Drivers by role from the cell file. Raises DeviceError for an unknown driver."""
        drivers = make_drivers(cell, ports)
        poll_hz = {role: getattr(cell, role).poll_hz for role in drivers}
        return cls(drivers, poll_hz, tell)

    def driver(self, role: str) -> Any:
        """The driver of a role."""
        return self.by_role[role].driver

    def reading(self, role: str) -> Any:
        """The last good reading of a role, or None."""
        return self.by_role[role].driver.reading

    @property
    def busy(self) -> bool:
        """Commands that nobody waits for are under way; each has its driver's time limits."""
        return bool(self._calls)

    def start(self) -> None:
        """Start every task, in channel order."""
        for device in self.loops:
            device.start()

    def tick(self, n: int) -> None:
        """Wake the devices that are due at control tick ``n``."""
        for device in self._due[n % TICK_HZ] if self._even else self._due_at(n):
            device.wake()

    async def call(
        self, role: str, call: Callable[[Any], Awaitable[Any]], *, urgent: bool = False
    ) -> None:
        """Carry out a command: in turn with others to this device, or at once."""
        device = self.by_role[role]
        if urgent:
            await call(device.driver)
            return
        async with device.commands:
            await call(device.driver)

    def submit(
        self,
        role: str,
        call: Callable[[Any], Awaitable[Any]],
        failed: Callable[[str], None],
        *,
        urgent: bool = False,
    ) -> "asyncio.Task[None]":
        """The same without waiting; ``failed`` is told why, if it fails."""

        async def run() -> None:
            try:
                await self.call(role, call, urgent=urgent)
            except BridgeError as exc:
                failed(str(exc))

        task = asyncio.get_running_loop().create_task(run(), name=f"{role} command")
        self._calls[id(task)] = task  # the loop itself keeps weak references only
        task.add_done_callback(lambda done: self._calls.pop(id(done), None))
        return task

    async def stop(self) -> None:
        """End all tasks and close all wires."""
        for device in self.loops:
            await device.stop()


def make_drivers(cell: Cell, ports: Mapping[str, Port]) -> dict[str, Any]:
    """One driver per role, through the bridge's registry; no I/O. Raises DeviceError."""
    drivers = {}
    for role in fitted(cell):
        settings = getattr(cell, role)
        driver = registry.make(settings.driver, ports[role], role, **settings.options())
        if driver.role.key != BRIDGE_ROLE[role]:
            raise DeviceError(
                f"{role}: driver {settings.driver!r} is one of a {driver.role.key}, "
                f"a {BRIDGE_ROLE[role]} is needed"
            )
        drivers[role] = driver
    return drivers


def link_settings(cell: Cell) -> LinkSettings:
    """What the motion controller must agree on, from the cell file."""
    motion = cell.motion
    counts = [(a.encoder_per_mm or 0.0, a.lost_steps or 0) for a in motion.axes]
    counts += [(0.0, 0)] * len(motion.rotary)
    return LinkSettings(
        axes=tuple(
            AxisSettings(
                a.steps_per_unit,
                a.speed,
                a.accel,
                a.least - a.home,
                a.most - a.home,
                limit_low=f"{a.name}-" in motion.limit_switches,
                limit_high=f"{a.name}+" in motion.limit_switches,
                encoder_per_mm=encoder,
                lost_steps=lost,
            )
            for a, (encoder, lost) in zip(motion.machine_axes, counts, strict=True)
        ),
        total_accel_mm_s2=cell.motion.total_accel_mm_s2,
        plan_share=cell.motion.plan_share,
        longest_emission_s=cell.laser.longest_emission_s,
        heartbeat_timeout_s=cell.motion.heartbeat_timeout_s,
        following_error_input=motion.following_error_input,
        probe_input=motion.probe_input,
    )


def plan_zero_mm(cell: Cell) -> tuple[float, float, float]:
    """Where the plan's origin is, from the home of each linear axis, mm."""
    motion = cell.motion
    x, y, z = (
        work - tool - axis.home
        for work, tool, axis in zip(
            motion.work_offset_mm, motion.tool_offset_mm, motion.machine_axes[:3], strict=True
        )
    )
    return x, y, z


def make_link(cell: Cell, port: Port, *, own_process: bool = False) -> Link:
    """The motion link that the cell file names; no I/O.

    ``own_process``: it runs as a process of its own (real time), so that a busy server delays
    neither beat nor stop. Raises MapError for a handshake map that cannot be read.
    """
    motion = cell.motion
    options: dict[str, Any] = {}
    if motion.link == "grblhal":
        options = {
            "gate_watchdog": motion.gate_watchdog,
            "full_scale_s": motion.s_max or 1000.0,
            "origin_mm": plan_zero_mm(cell),
        }
    elif motion.link == "supervised":
        options = {
            "map_name": str(motion.map),
            "zero": [-v for v in plan_zero_mm(cell)],
            "rated_power_w": cell.laser.rated_power_w,
        }
    settings = link_settings(cell)
    if own_process:
        return LinkProcess(port, settings, motion.link, options)
    return links.make(motion.link, port, settings, options)

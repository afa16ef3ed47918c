"""What all drivers share: the connection with its back-off, poll, make_safe.

A driver class names its role and its declarations; this base turns them into the
methods of ``firmware_bridge.roles``. Constructors do no I/O.
"""

import asyncio
from typing import Any, ClassVar

from firmware_bridge.errors import BridgeError, DeviceError
from firmware_bridge.roles import Role
from firmware_bridge.transport import Port

FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 5.0


class _Keep:
    """The safe value of an output that safety leaves as it is."""

    def __repr__(self) -> str:
        return "KEEP"


KEEP = _Keep()


class Device:
    """Base of the drivers.

    Parameters: the port, and the name used in messages (the driver's by default).
    """

    role: ClassVar[type[Role]]
    driver: ClassVar[str] = ""

    def __init_subclass__(cls, role: type[Role] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if role is None:
            return
        cls.role = role
        cls.driver = cls.__module__.rpartition(".")[2]
        for name, method in vars(role).items():
            if callable(method) and not name.startswith("_") and not hasattr(cls, name):
                setattr(cls, name, method)
        role.register(cls)

    def __init__(self, port: Port, name: str | None = None) -> None:
        self.port = port
        self.name = name or self.driver
        self.reading: Any = None
        self.connected = False
        self.n_polls = 0
        self.n_errors = 0
        # Counts what must go before all else (make_safe, emission off, supply off). A command
        # that began before and still waits, or has steps left, is withdrawn: see ``since``.
        self.n_urgent = 0
        self._retry_at_s = 0.0
        self._retry_s = FIRST_RETRY_S
        self._connecting = asyncio.Lock()

    # what a protocol family (Modbus, ASCII) fills in
    async def _open(self) -> None:
        """Open the wire and speak first; raises BridgeError."""
        raise NotImplementedError

    async def _poll(self) -> None:
        """One round of reading; sets ``reading``."""
        raise NotImplementedError

    async def _safe_steps(self) -> list[str]:
        """Carry out every safe output; returns what failed, never raises BridgeError."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the wire back."""
        self.connected = False

    # what the cell calls
    async def connect(self) -> None:
        """Open the wire and check what answers; nothing to do when already connected.

        Raises DeviceError or TransportError.
        """
        async with self._connecting:
            if self.connected:
                return
            self.close()
            try:
                await self._open()
            except BridgeError:
                self.close()
                now_s = asyncio.get_running_loop().time()
                self._retry_at_s = now_s + self._retry_s
                self._retry_s = min(2.0 * self._retry_s, LONGEST_RETRY_S)
                raise
            self.connected = True
            self._retry_s = FIRST_RETRY_S

    async def poll(self) -> None:
        """Read once. A lost connection is tried again here, with back-off.

        Raises DeviceError; ``reading`` then still holds the last good values, and their
        ``at_us`` tells their age.
        """
        if not self.connected:
            wait_s = self._retry_at_s - asyncio.get_running_loop().time()
            if wait_s > 0.0:
                raise DeviceError(f"{self.name}: not connected, next try in {wait_s:.2f} s")
            try:
                await self.connect()
            except DeviceError:
                raise
            except BridgeError as exc:
                raise DeviceError(str(exc)) from exc
        try:
            await self._poll()
        except BridgeError:
            self.n_errors += 1
            raise
        self.n_polls += 1

    async def make_safe(self) -> None:
        """Bring every output to its declared safe value, as far as the device answers.

        A failing step does not skip the next; afterwards DeviceError names those that
        failed. Without a connection one attempt is made to get it.
        """
        self.n_urgent += 1
        if not self.connected:
            try:
                await self.connect()
            except BridgeError as exc:
                raise DeviceError(f"{self.name}: not made safe: {exc}") from exc
        failed = await self._safe_steps()
        if failed:
            raise DeviceError(f"{self.name}: not made safe: {'; '.join(failed)}")

    def _lost_wire(self) -> None:
        """The protocol layer saw the wire go: try again after the first back-off."""
        if self.connected:
            self.connected = False
            self._retry_at_s = asyncio.get_running_loop().time() + FIRST_RETRY_S

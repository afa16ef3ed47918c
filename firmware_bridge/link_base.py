"""What every motion link has: the newest status, failure, refusal, who is told, and its refusals.

A link that cannot jog, probe or take a power law inherits the refusal from here; it names the
sentence of ``lacks`` that says why.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from firmware_bridge.errors import DeviceError, ProtocolError
from firmware_bridge.link_types import (
    Abilities,
    LinkEvent,
    LinkIdentity,
    LinkSettings,
    LinkStats,
    MotionStatus,
)
from firmware_bridge.transport import Port

TOKEN_LIFE_US = 60_000  # that a link goes on beating after the supervisor's last sign of life
PROBE_S = 120.0


class LinkBase:
    """State that the controller reads of a link, whichever machine is behind it."""

    abilities: Abilities
    lacks: Mapping[str, str] = {}
    why_not: ClassVar[Mapping[str, str]] = {}  # refused command -> its key in ``lacks``

    def __init__(self, port: Port, settings: LinkSettings) -> None:
        self._port = port
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._token_us = -TOKEN_LIFE_US
        self.identity: LinkIdentity | None = None
        self.status: MotionStatus | None = None
        self.stats = LinkStats()
        self.failure = ""
        self.refusal = ""
        self.on_event: Callable[[LinkEvent], None] | None = None
        self.on_lost: Callable[[str], None] | None = None
        self.on_status: Callable[[MotionStatus], None] | None = None

    def close(self) -> None:
        """Give the wire back; the gate shuts."""
        raise NotImplementedError

    def token(self) -> None:
        """The supervisor is alive; signs of life go out for 60 ms more."""
        self._token_us = self._now_us()

    def _now_us(self) -> int:
        assert self._loop is not None
        return round(self._loop.time() * 1e6)

    def _wire_lost(self, cause: Exception | None) -> None:
        self._fail(f"{self._port}: connection lost" + (f" ({cause})" if cause else ""))

    def _fail(self, reason: str) -> None:
        if self.failure:
            return
        self.failure = reason
        self.close()
        if self.on_lost is not None:
            self.on_lost(reason)

    def _cannot(self, command: str) -> str:
        name = self.why_not[command]
        return f"{self._port}: {command.upper()} refused ({name}): {self.lacks[name]}"

    def jog(self, speeds_mm_s: Sequence[float]) -> None:
        """Refused: stays in ``refusal``."""
        self.refusal = self._cannot("jog")

    async def probe(
        self, axis: int, target_mm: float, speed_mm_s: float, timeout_s: float = PROBE_S
    ) -> float:
        """Refused. Raises DeviceError."""
        raise DeviceError(self._cannot("probe"))

    async def power_law(self, number: int, points: Sequence[tuple[float, float]]) -> None:
        """Refused. Raises DeviceError."""
        raise DeviceError(self._cannot("power_law"))

    def _checked_speeds(self, speeds_mm_s: Sequence[float]) -> list[float]:
        """One speed for each axis, no more than its greatest. Raises ProtocolError."""
        axes = self._settings.axes
        if len(speeds_mm_s) > len(axes):
            raise ProtocolError(f"{self._port}: {len(speeds_mm_s)} speeds for {len(axes)} axes")
        padded = [*speeds_mm_s, *[0.0] * (len(axes) - len(speeds_mm_s))]
        return [
            max(-a.speed_mm_s, min(a.speed_mm_s, float(v)))
            for a, v in zip(axes, padded, strict=True)
        ]

    def _check_axis(self, axis: int) -> None:
        if not 0 <= axis < len(self._settings.axes):
            raise ProtocolError(
                f"{self._port}: axis {axis} is not in 0..{len(self._settings.axes) - 1}"
            )

    def _not_touched(self, axis: int, target_mm: float) -> DeviceError:
        return DeviceError(
            f"{self._port}: probe of axis {axis} found nothing up to {target_mm:g} mm"
        )

    def _probe_ended(self, axis: int) -> DeviceError:
        return DeviceError(f"{self._port}: probe of axis {axis} was ended by a stop or a fault")

    def _probe_late(self, timeout_s: float) -> DeviceError:
        return DeviceError(f"{self._port}: probing took longer than {timeout_s:g} s")

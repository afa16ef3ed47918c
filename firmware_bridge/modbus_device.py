"""A Modbus device from its declarations: blocks, readings, settings."""

import asyncio
from pathlib import Path
from typing import Any, ClassVar

from firmware_bridge.device import Device, _Keep
from firmware_bridge.errors import BridgeError, DeviceError
from firmware_bridge.modbus_guard import BlockRead, ModbusGuard
from firmware_bridge.register_map import load_map
from firmware_bridge.registers import Block, Reading, Setting, declarations, place
from firmware_bridge.transport import Port, SerialPort


class ModbusDevice(Device):
    """Base of the Modbus drivers.

    ``framing``: "rtu", "tcp", or "port" (RTU on a serial port, else TCP). Fields of the
    role's reading are taken from declarations or properties of the same name.
    """

    framing: ClassVar[str] = "port"
    blocks: tuple[Block, ...] = ()

    def __init__(
        self,
        port: Port,
        name: str | None = None,
        *,
        framing: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(port, name)
        framing = framing or self.framing
        if framing not in ("rtu", "tcp", "port"):
            raise DeviceError(f"{self.name}: framing {framing!r} is not rtu, tcp or port")
        self._rtu = framing == "rtu" or (framing == "port" and isinstance(port, SerialPort))
        self._timeout_s = timeout_s
        self._values: dict[str, Any] = {}
        self._round = 0
        self._fields = tuple(self.role.reading_type.__dataclass_fields__)[1:]
        self.guard: ModbusGuard | None = None
        self._declare(self.blocks, declarations(type(self)))

    def _declare(self, blocks: tuple[Block, ...], readings: dict[str, Reading]) -> None:
        """Take the declarations; drivers with a map file call it with the map's."""
        self.blocks = blocks
        self._readings = readings
        self._plan = [
            (block.every, BlockRead(block), decoders)
            for block, decoders in zip(blocks, place(blocks, readings), strict=True)
        ]

    @property
    def settings(self) -> dict[str, Setting]:
        """The settings by name, in declared order: also the order of make_safe()."""
        return {n: r for n, r in self._readings.items() if isinstance(r, Setting)}

    @property
    def values(self) -> dict[str, Any]:
        """Every declared value of the last good poll, by name."""
        return dict(self._values)

    def value(self, name: str) -> Any:
        """One declared value of the last good poll. Raises DeviceError before the first."""
        try:
            return self._values[name]
        except KeyError:
            raise DeviceError(f"{self.name}: {name} was not read yet") from None

    def __getattr__(self, name: str) -> Any:
        """Declared values are attributes, those of a map file too."""
        if name in self.__dict__.get("_readings", ()):
            return self.value(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    async def put(
        self, name: str, value: float, *, urgent: bool = False, since: int | None = None
    ) -> None:
        """Write a setting and read it back. Raises DeviceError.

        ``urgent``: goes before everything else. ``since``: ``n_urgent`` when the command of
        several steps began; something urgent since then withdraws this one.
        """
        setting = self._readings.get(name)
        if not isinstance(setting, Setting):
            raise DeviceError(f"{self.name}: there is no setting {name!r}")
        try:
            words = setting.encode(value)
        except DeviceError as exc:
            raise DeviceError(f"{self.name}: {exc}") from None
        guard = self._guard()
        if urgent:
            self.n_urgent += 1
            await guard.write(setting.unit, setting.address, words, urgent=True)
        else:
            began = self.n_urgent if since is None else since
            await guard.write(
                setting.unit, setting.address, words, still=lambda: self.n_urgent == began
            )
        back = await guard.read_once(setting.unit, 3, setting.address, len(words))
        if back != words:
            raise DeviceError(f"{self.name}: {name} was set to {words} and reads back {back}")

    async def check(self) -> None:
        """What a driver asks once, when connected; nothing by default."""

    def close(self) -> None:
        super().close()
        if self.guard is not None:
            self.guard.close()

    async def _open(self) -> None:
        if self.guard is None:  # its lock belongs to the running loop
            self.guard = ModbusGuard(
                self.port,
                self.name,
                rtu=self._rtu,
                probe=self.blocks[0],
                on_lost=self._lost_wire,
                timeout_s=self._timeout_s,
            )
        await self.guard.open()
        self._round = 0
        await self.check()

    async def _poll(self) -> None:
        guard = self._guard()
        at_us = round(asyncio.get_running_loop().time() * 1e6)
        count = self._round
        fetched = []
        for every, block, decoders in self._plan:
            if count % every == 0:
                fetched.append((decoders, await guard.read(block)))
        values = self._values if count else {}
        fresh = dict(values)
        try:
            for decoders, registers in fetched:
                for name, decode in decoders:
                    fresh[name] = decode(registers)
        except DeviceError as exc:
            guard.doubt()
            raise DeviceError(f"{self.name}: {exc}") from None
        before, self._values = self._values, fresh
        try:
            self.reading = self.role.reading_type(at_us, *[getattr(self, f) for f in self._fields])
        except DeviceError:
            self._values = before
            guard.doubt()
            raise
        self._round = count + 1

    async def _safe_steps(self) -> list[str]:
        failed = []
        for name, setting in self.settings.items():
            if isinstance(setting.safe, _Keep):
                continue
            try:
                await self.put(name, setting.safe, urgent=True)
            except BridgeError as exc:
                failed.append(f"{name}: {exc}")
        return failed

    def _guard(self) -> ModbusGuard:
        if self.guard is None or not self.guard.is_open:
            raise DeviceError(f"{self.name}: not connected")
        return self.guard


class MapDevice(ModbusDevice):
    """Base of drivers whose registers stand in a map file.

    ``map``: name in ``configs/maps`` or path. The map must have the role's name, the
    entries that the class needs, and nothing unknown; else MapError before any I/O.
    """

    default_map: ClassVar[str]
    needs_bits: ClassVar[tuple[str, ...]] = ()
    needs_settings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, port: Port, name: str | None = None, *, map: str | Path | None = None, **options: Any
    ) -> None:
        self.map = load_map(map or self.default_map, self.role.key)
        for bit in self.needs_bits:
            self.map.need_bit(bit)
        for setting in self.needs_settings:
            self.map.need(setting, Setting)
        super().__init__(port, name, framing=options.pop("framing", self.map.framing), **options)
        self._declare(self.map.blocks, self.map.readings)

"""Handshake words of a supervised control, and who carries them (docs/handshake.md).

A map file says where each word stands; ``Handshake`` turns our values into words and theirs
into values. ``WordServer`` is what carries them: ``ModbusWords`` here, room for ADS, S7 and
OPC UA behind the same few methods.
"""

from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any, Protocol

from pymodbus.pdu.file_message import FileRecord, WriteFileRecordRequest

from firmware_bridge.errors import DeviceError, MapError
from firmware_bridge.modbus_guard import BlockRead, ModbusGuard, Request
from firmware_bridge.register_map import RegisterMap, load_map
from firmware_bridge.registers import Block, Setting, place
from firmware_bridge.transport import Port

VERSION = 1
STORE_BYTES = 236  # a Modbus PDU of 253 bytes less heads, in whole words
STORE_RECORDS = 10_000  # records (words) of one file, Modbus application protocol 6.15
STORE_END = 0xFFFF  # file number of the record that ends a program
ROLE = "handshake"

OURS = (
    "version", "heartbeat", "command_bits", "layer_release", "program_id", "power_w", "override",
    "power_share",
)  # fmt: skip
THEIRS = (
    "their_version", "their_heartbeat", "heartbeat_echo", "state", "status_bits", "alarm", "line",
    "layer_reached", "timeout_ms", "their_program_id", "their_override", "n_axes", "clock_ms",
    "their_power_w", "axis_1", "axis_2", "axis_3",
)  # fmt: skip
AXES = tuple(f"axis_{n}" for n in range(1, 7))


class Command(IntFlag):
    """Bits of our command word."""

    PERMIT = 1
    GO = 2
    HOLD = 4
    HOLD_NOW = 8
    ABORT = 16
    RESET = 32
    POWDER_READY = 64
    GAS_READY = 128
    REFERENCE = 256


class ControlState(IntEnum):
    """Their state word."""

    NOT_READY = 0
    READY = 1
    RUNNING = 2
    HOLDING = 3
    HELD = 4
    WAITING = 5
    FINISHED = 6
    FAULT = 7
    REFERENCING = 8


class Told(IntFlag):
    """Bits of their status word."""

    AUTOMATIC = 1
    REFERENCED = 2
    INTERLOCK_OK = 4
    PERMITTED = 8
    GATE_REQUESTED = 16
    GATE_ON = 32
    HOLD_PENDING = 64


class Handshake:
    """The words of one map: ours to be written, theirs as read last (``now``, by name).

    Raises MapError when the map lacks a word or leaves a gap between ours: a gap would be
    written over.
    """

    def __init__(self, map_name: str | Path) -> None:
        self.map: RegisterMap = load_map(map_name, ROLE)
        for name in OURS:
            self.map.need(name, Setting)
        for name in THEIRS:
            self.map.need(name)
        ours = [r for r in self.map.readings.values() if isinstance(r, Setting)]
        ours.sort(key=lambda s: s.address)
        self.address = ours[0].address
        at = self.address
        for setting in ours:
            if setting.address != at or setting.unit != ours[0].unit:
                raise MapError(
                    f"{self.map.origin}: settings.{setting.name} at {setting.address} leaves a "
                    f"gap, {at} of one unit comes next"
                )
            at += setting.words
        self.unit = ours[0].unit
        self.words = [0] * (at - self.address)
        self._settings = {s.name: s for s in ours}
        self._heartbeat_at = self._settings["heartbeat"].address - self.address
        self._command_at = self._settings["command_bits"].address - self.address
        theirs = {n: r for n, r in self.map.readings.items() if not isinstance(r, Setting)}
        self.blocks = self.map.blocks
        self._decoders = place(self.blocks, theirs)
        self.now: dict[str, Any] = {}
        self.axes = tuple(name for name in AXES if name in theirs)
        self.cycle_s = self._time("cycle_s", 0.02, 0.005, 0.05)
        self.silence_s = self._time("silence_s", 0.15, 0.05, 0.2)
        self.store = self._store()
        self.put("version", VERSION)
        self.put("override", 1.0)
        self.put("power_share", 1.0)

    def _time(self, key: str, default: float, least: float, most: float) -> float:
        value = self.map.calibration.get(key, (default,))[0]
        if not least <= value <= most:
            raise MapError(
                f"{self.map.origin}: calibration.{key} {value:g} is outside {least:g} to {most:g}"
            )
        return value

    def _store(self) -> tuple[int, int] | None:
        """Unit and first file number of a program store, where there is one."""
        given = self.map.calibration.get("program_store")
        if given is None:
            return None
        if len(given) != 2 or not (1 <= given[0] <= 247 and 1 <= given[1] <= 60000):
            raise MapError(
                f"{self.map.origin}: calibration.program_store {list(given)} is not a unit and a "
                "file number"
            )
        return int(given[0]), int(given[1])

    def put(self, name: str, value: float) -> None:
        """One of our words. Raises DeviceError when the value is outside its limits."""
        setting = self._settings[name]
        at = setting.address - self.address
        self.words[at : at + setting.words] = setting.encode(value)

    def beat(self, count: int, bits: int) -> None:
        """Heartbeat and command word, those of each cycle."""
        self.words[self._heartbeat_at] = count
        self.words[self._command_at] = bits

    def take(self, block: int, registers: list[int]) -> None:
        """Their words of one block. Raises DeviceError for a value out of its bounds."""
        now = self.now
        for name, decode in self._decoders[block]:
            now[name] = decode(registers)


class WordServer(Protocol):
    """Whatever carries the words: Modbus here; ADS, S7 and OPC UA fit the same way.

    ``address`` and ``Block`` are the map's numbers; what they mean is the carrier's: a Modbus
    register, a byte of a data block (S7: unit = block number), an ADS index offset.
    """

    @property
    def is_open(self) -> bool:
        """True while there is a connection."""
        ...

    async def open(self) -> None:
        """Connect. Raises TransportError."""
        ...

    def close(self) -> None:
        """Give the connection back; who waits gets a DeviceError."""
        ...

    async def read_words(self, block: Block) -> list[int]:
        """The block's words of 16 bits. Raises DeviceError."""
        ...

    async def write_words(self, unit: int, address: int, words: list[int]) -> None:
        """Write words in one piece. Raises DeviceError."""
        ...

    async def store(self, unit: int, file: int, record: int, data: bytes) -> None:
        """A piece of a program, at most ``STORE_BYTES``. Raises DeviceError when refused."""
        ...


class ModbusWords:
    """Words over Modbus TCP or RTU, behind the guard of the devices."""

    def __init__(self, port: Port, name: str, blocks: tuple[Block, ...], *, rtu: bool) -> None:
        self._guard: ModbusGuard | None = None
        self._port, self._name, self._rtu = port, name, rtu
        self._probe = blocks[0]
        self._reads: dict[Block, BlockRead] = {block: BlockRead(block) for block in blocks}

    @property
    def is_open(self) -> bool:
        """True while there is a wire."""
        return self._guard is not None and self._guard.is_open

    async def open(self) -> None:
        """Open the port. Raises TransportError."""
        self._guard = ModbusGuard(
            self._port, self._name, rtu=self._rtu, probe=self._probe, on_lost=_noted
        )
        await self._guard.open()

    def close(self) -> None:
        """Close the wire."""
        if self._guard is not None:
            self._guard.close()

    async def read_words(self, block: Block) -> list[int]:
        """Registers of a block. Raises DeviceError."""
        return await self._open_guard().read(self._reads[block])

    async def write_words(self, unit: int, address: int, words: list[int]) -> None:
        """Function 16 (6 for one). Raises DeviceError."""
        await self._open_guard().write(unit, address, words)

    async def store(self, unit: int, file: int, record: int, data: bytes) -> None:
        """Function 21, write file record: one piece of a program. Raises DeviceError."""
        if len(data) % 2:
            data += b"\n"
        pdu = WriteFileRecordRequest([FileRecord(file, record, data)], dev_id=unit)
        reply = bytes((pdu.function_code,)) + pdu.encode()  # the answer echoes the request
        request = Request(pdu, reply, len(reply), f"file record {file}/{record}")
        await self._open_guard().exchange(request)

    def _open_guard(self) -> ModbusGuard:
        if self._guard is None or not self._guard.is_open:
            raise DeviceError(f"{self._name}: not connected")
        return self._guard


def _noted() -> None:
    """The next exchange says that the wire is gone."""


async def store_program(server: WordServer, unit: int, file: int, data: bytes) -> None:
    """Hand a program over in pieces, then its length in bytes. Raises DeviceError."""
    at = 0
    while at < len(data):
        number, record = divmod(at // 2, STORE_RECORDS)
        size = min(STORE_BYTES, (STORE_RECORDS - record) * 2)
        await server.store(unit, file + number, record, data[at : at + size])
        at += size
    await server.store(unit, STORE_END, 0, len(data).to_bytes(4, "big"))

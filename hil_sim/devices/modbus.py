"""A Modbus slave of our own: RTU and TCP framing, functions 1 to 6, 15 and 16.

Written from MODBUS Application Protocol Specification V1.1b3 (function codes, limits,
exceptions) and MODBUS over Serial Line V1.02 (RTU frame, CRC-16) of modbus.org. It shares no
code with the host's client, so a mistake made once cannot hide on both sides.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, ClassVar

from hil_sim.devices.base import Emulator

if TYPE_CHECKING:
    from hil_sim.clock import Scheduler

ILLEGAL_FUNCTION = 1
ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3

_HH = Struct(">HH")
_HHB = Struct(">HHB")
_MBAP = Struct(">HHHB")

# A frame left unfinished for so long is dropped, as the 3.5 characters of silence of the
# standard would do (2 ms at 19200 baud). Longer here, because on a pty under load one frame
# may reach us in pieces some milliseconds apart.
RTU_SILENCE_US = 20_000

LONGEST_RTU_FRAME = 256


class ModbusError(Exception):
    """A request that is answered by an exception code instead of data."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Modbus exception {code}")
        self.code = code


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC = _crc_table()


def crc16(data: bytes) -> int:
    """CRC-16 of Modbus (polynomial 0xA001 reflected, start 0xFFFF); sent low byte first."""
    crc = 0xFFFF
    table = _CRC
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc


class Block:
    """Contiguous 16-bit registers as the bytes that go on the wire (big-endian)."""

    __slots__ = ("data", "end", "start")

    def __init__(self, start: int, n_registers: int) -> None:
        self.start = start
        self.end = start + n_registers
        self.data = bytearray(2 * n_registers)


class ModbusEmulator(Emulator):
    """Requests to answers; subclasses fill `blocks` and say what may be written.

    `blocks[unit]` are the readable registers. `refresh(unit)` is called before each read and
    brings them up to the world as it is at this instant.
    """

    functions: ClassVar[frozenset[int]] = frozenset((3, 4, 6, 16))

    def __init__(self, sim: Scheduler, world: Any) -> None:
        super().__init__(sim, world)
        self.blocks: dict[int, tuple[Block, ...]] = {}
        self._buffer = b""

    def opened(self) -> None:
        super().opened()
        self._buffer = b""

    # What a device overrides

    def refresh(self, unit: int) -> None:
        """Bring the register blocks of `unit` up to date."""

    def read_registers(self, unit: int, function: int, address: int, count: int) -> bytes:
        """2 x count bytes. Raises ModbusError(2) where a register of the range is missing."""
        self.refresh(unit)
        end = address + count
        for block in self.blocks[unit]:
            if block.start <= address and end <= block.end:
                first = 2 * (address - block.start)
                return bytes(block.data[first : first + 2 * count])
        raise ModbusError(ILLEGAL_ADDRESS)

    def write_registers(self, unit: int, address: int, values: tuple[int, ...]) -> None:
        """All or nothing. Raises ModbusError(2) or (3)."""
        raise ModbusError(ILLEGAL_ADDRESS)

    def read_bits(self, unit: int, function: int, address: int, count: int) -> list[bool]:
        raise ModbusError(ILLEGAL_ADDRESS)

    def write_bits(self, unit: int, address: int, values: list[bool]) -> None:
        raise ModbusError(ILLEGAL_ADDRESS)

    # Protocol data units

    def answer_pdu(self, unit: int, pdu: bytes) -> bytes:
        """The answer to one request (function code and data, without address and CRC)."""
        function = pdu[0] if pdu else 0
        try:
            if function not in self.functions:
                raise ModbusError(ILLEGAL_FUNCTION)
            if function == 3 or function == 4:
                if len(pdu) != 5:
                    raise ModbusError(ILLEGAL_VALUE)
                address, count = _HH.unpack_from(pdu, 1)
                if not 1 <= count <= 125:
                    raise ModbusError(ILLEGAL_VALUE)
                data = self.read_registers(unit, function, address, count)
                return bytes((function, len(data))) + data
            return self._answer_other(unit, function, pdu)
        except ModbusError as refused:
            return bytes((function | 0x80, refused.code))

    def _answer_other(self, unit: int, function: int, pdu: bytes) -> bytes:
        if function in (15, 16):
            return self._answer_write_many(unit, function, pdu)
        if len(pdu) != 5:
            raise ModbusError(ILLEGAL_VALUE)
        address, word = _HH.unpack_from(pdu, 1)
        if function == 6:
            self.write_registers(unit, address, (word,))
            return pdu
        if function == 5:
            if word not in (0x0000, 0xFF00):
                raise ModbusError(ILLEGAL_VALUE)
            self.write_bits(unit, address, [word == 0xFF00])
            return pdu
        # 1 and 2: bits
        if not 1 <= word <= 2000:
            raise ModbusError(ILLEGAL_VALUE)
        bits = self.read_bits(unit, function, address, word)
        packed = bytearray((word + 7) // 8)
        for place, bit in enumerate(bits):
            if bit:
                packed[place >> 3] |= 1 << (place & 7)
        return bytes((function, len(packed))) + bytes(packed)

    def _answer_write_many(self, unit: int, function: int, pdu: bytes) -> bytes:
        if len(pdu) < 6:
            raise ModbusError(ILLEGAL_VALUE)
        address, count, n_bytes = _HHB.unpack_from(pdu, 1)
        data = pdu[6:]
        if function == 16:
            if not 1 <= count <= 123 or n_bytes != 2 * count or len(data) != n_bytes:
                raise ModbusError(ILLEGAL_VALUE)
            self.write_registers(unit, address, Struct(f">{count}H").unpack(data))
        else:
            if not 1 <= count <= 1968 or n_bytes != (count + 7) // 8 or len(data) != n_bytes:
                raise ModbusError(ILLEGAL_VALUE)
            bits = [bool(data[i >> 3] >> (i & 7) & 1) for i in range(count)]
            self.write_bits(unit, address, bits)
        return pdu[:5]


class ModbusTcp(ModbusEmulator):
    """MBAP framing: any number of requests in a read, any request over several reads.

    Requests for a unit that is not here are met with silence, like on a bus.
    """

    def receive(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        replies = b""
        start, end = 0, len(buffer)
        while end - start >= 8:
            transaction, protocol, length, unit = _MBAP.unpack_from(buffer, start)
            if protocol != 0 or not 2 <= length <= 254:
                start = end  # not Modbus: there is no way to find the next frame's start
                break
            stop = start + 6 + length
            if stop > end:
                break
            if unit in self.blocks:
                pdu = self.answer_pdu(unit, buffer[start + 7 : stop])
                replies += _MBAP.pack(transaction, 0, len(pdu) + 1, unit) + pdu
            start = stop
        self._buffer = buffer[start:]
        if replies:
            self.answer(replies)


class ModbusRtu(ModbusEmulator):
    """RTU framing: the length of a request follows from its function code.

    A frame with a wrong CRC is passed over byte by byte until one fits; nothing is answered for
    it. Unit 0 is broadcast: acted upon, not answered.
    """

    def __init__(self, sim: Scheduler, world: Any) -> None:
        super().__init__(sim, world)
        self._heard_us = 0

    def receive(self, data: bytes) -> None:
        now_us = self.sim.now_us
        if self._buffer and now_us - self._heard_us > RTU_SILENCE_US:
            self._buffer = b""
        self._heard_us = now_us
        buffer = self._buffer + data if self._buffer else data
        replies = b""
        start, end = 0, len(buffer)
        unfinished = -1  # where, after a damaged frame, one may begin whose end is to come
        damaged = False
        while end - start >= 4:
            stop = start + _rtu_request_length(buffer, start, end)
            if stop <= end and crc16(buffer[start:stop]) == 0:  # over frame and CRC it is 0
                replies += self._answer_frame(buffer[start : stop - 2])
                start = stop
                damaged = False
                unfinished = -1
            elif stop > end and not damaged:
                break
            else:
                if stop > end and unfinished < 0:
                    unfinished = start
                damaged = True
                start += 1
        if unfinished >= 0:
            start = unfinished
        self._buffer = buffer[start:][-LONGEST_RTU_FRAME:]
        if replies:
            self.answer(replies)

    def _answer_frame(self, frame: bytes) -> bytes:
        unit = frame[0]
        if unit == 0:
            for each in self.blocks:
                self.answer_pdu(each, frame[1:])
            return b""
        if unit not in self.blocks:
            return b""
        reply = frame[:1] + self.answer_pdu(unit, frame[1:])
        return reply + crc16(reply).to_bytes(2, "little")


def _rtu_request_length(buffer: bytes, start: int, end: int) -> int:
    """Bytes of the request that begins at `start`, CRC included; more than there are: wait."""
    function = buffer[start + 1]
    if 1 <= function <= 6:
        return 8
    if function == 15 or function == 16:
        if end - start < 7:
            return 9
        return 9 + buffer[start + 6]
    # A function we do not know: its frame can only be all that has come. If the CRC fits, it
    # is answered by exception 1.
    return end - start

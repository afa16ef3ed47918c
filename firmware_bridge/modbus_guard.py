"""pymodbus behind a guard: a wrong value is worse than none.

Measured on pymodbus 3.16.1 (reference, devices): a late or repeated RTU reply, a reply
with fewer registers than asked, or with another function code is taken as right. A reply
carries no address and RTU no sequence, so the guard

- hands pymodbus our own transport over a ``Wire`` instead of letting it connect, and looks
  at the bytes first: unit, function, length, on TCP the transaction, not a byte more;
- checks the type and length of what pymodbus decoded;
- reads each block with n and n + spare registers in turn, so that the reply to the previous
  poll shows by its length;
- after any error takes nothing until 300 ms passed in silence, then sends a probe of yet
  another length: on a line that keeps order, its reply proves that no older one is under way.

What no guard can see: bits flipped inside a Modbus TCP reply (no checksum above TCP's own);
bounds on each value are all there is.

pymodbus: async clients only, retries 0, reconnect off; time-outs run on the loop's time.
"""

import asyncio
import logging
from collections.abc import Callable

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from firmware_bridge.errors import BridgeError, DeviceError
from firmware_bridge.registers import Block
from firmware_bridge.transport import Port, Wire

QUIET_S = 0.3
TCP_TIMEOUT_S = 0.1
RTU_TIMEOUT_S = 0.15
FAILURES_TO_CLOSE = 4  # in a row: the wire is given up and opened anew

_REASONS = {
    1: "function not supported",
    2: "no such register",
    3: "value refused",
    4: "device failure",
    6: "busy",
}

# The guard reports every error itself; pymodbus would print them once more.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


class WireTransport(asyncio.Transport):
    """What pymodbus writes to: a ``Wire`` in the shape of an asyncio transport."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._wire.write(bytes(data))

    def close(self) -> None:
        self._wire.close()

    def abort(self) -> None:
        self._wire.close()

    def is_closing(self) -> bool:
        return not self._wire.is_open


class Request:
    """One request, prepared once, and the shape its reply must have."""

    __slots__ = ("count", "head", "length", "pdu", "refusal", "text", "unit")

    def __init__(self, pdu: ModbusPDU, head: bytes, length: int, text: str) -> None:
        self.pdu = pdu
        self.unit = pdu.dev_id
        self.head = head  # of the reply PDU: function code and what follows it for certain
        self.length = length  # of the reply PDU
        self.refusal = bytes((pdu.function_code | 0x80,))
        self.count = pdu.count
        self.text = text


def read_request(unit: int, function: int, address: int, count: int) -> Request:
    """Read ``count`` registers with function 3 or 4."""
    kind = ReadHoldingRegistersRequest if function == 3 else ReadInputRegistersRequest
    pdu = kind(address=address, count=count, dev_id=unit)
    head = bytes((function, 2 * count))
    return Request(pdu, head, 2 + 2 * count, f"read of {count} registers at {address}")


def write_request(unit: int, address: int, words: list[int]) -> Request:
    """Write one register (function 6) or several (16)."""
    at = address.to_bytes(2, "big")
    text = f"write at {address}"
    if len(words) == 1:
        pdu: ModbusPDU = WriteSingleRegisterRequest(address=address, registers=words, dev_id=unit)
        return Request(pdu, b"\x06" + at + words[0].to_bytes(2, "big"), 5, text)
    pdu = WriteMultipleRegistersRequest(address=address, registers=words, dev_id=unit)
    return Request(pdu, b"\x10" + at + len(words).to_bytes(2, "big"), 5, text)


class BlockRead:
    """The two requests of a block, taken in turn."""

    __slots__ = ("before", "requests", "turn", "words")

    def __init__(self, block: Block) -> None:
        self.requests = (
            read_request(block.unit, block.function, block.address, block.words),
            read_request(
                block.unit,
                block.function,
                block.address - block.before,
                block.words + block.before + block.after,
            ),
        )
        self.before = block.before
        self.words = block.words
        self.turn = 0


class ModbusGuard:
    """One Modbus line with everything that may go wrong on it.

    Parameters
    ----------
    port : Port
    name : str                      for messages
    rtu : bool                      RTU frames, else MBAP (TCP)
    probe : Block                   registers that exist, for the probe after an error
    on_lost : callable              told when the wire is gone
    """

    def __init__(
        self,
        port: Port,
        name: str,
        *,
        rtu: bool,
        probe: Block,
        on_lost: Callable[[], None],
        timeout_s: float | None = None,
    ) -> None:
        self.port, self.name, self.rtu = port, name, rtu
        self.timeout_s = timeout_s or (RTU_TIMEOUT_S if rtu else TCP_TIMEOUT_S)
        self.n_requests = 0
        self.n_refused = 0  # replies and bytes that were not taken
        self._probe = probe
        self._n_probes = 0
        self._on_lost = on_lost
        self._lock = asyncio.Lock()
        self._client: AsyncModbusTcpClient | AsyncModbusSerialClient | None = None
        self._wire: Wire | None = None
        self._want: Request | None = None
        self._buffer = b""
        self._error_at_s: float | None = None  # or of the last byte since
        self._failures = 0

    @property
    def is_open(self) -> bool:
        """True while there is a wire."""
        return self._wire is not None

    async def open(self) -> None:
        """Open the port. Raises TransportError."""
        self.close()
        wire = await self.port.open()
        # Built here because pymodbus asks for the running loop; its own connect() is never used.
        if self.rtu:
            client: AsyncModbusTcpClient | AsyncModbusSerialClient = AsyncModbusSerialClient(
                self.name, retries=0, reconnect_delay=0, timeout=self.timeout_s
            )
        else:
            client = AsyncModbusTcpClient(
                self.name, retries=0, reconnect_delay=0, timeout=self.timeout_s
            )
        client.ctx.call_create = self._never_connect
        client.set_max_no_responses(1 << 30)  # when to give up is decided here
        wire.set_receiver(self._received, self._wire_lost)
        client.ctx.connection_made(WireTransport(wire))
        self._wire, self._client = wire, client
        self._want, self._buffer = None, b""
        self._error_at_s, self._failures = None, 0

    def close(self) -> None:
        """Close the wire; whoever waits for a reply gets a DeviceError."""
        wire, self._wire = self._wire, None
        self._end_wait(f"{self.name}: closed")
        self._client = None
        if wire is not None:
            wire.close()

    async def read(self, block: BlockRead) -> list[int]:
        """The block's registers, spare ones cut off. Raises DeviceError."""
        async with self._lock:
            if self._error_at_s is not None:
                await self._recover()
            turn = block.turn
            block.turn = 1 - turn
            reply = await self._ask(block.requests[turn])
            registers = list(reply.registers)
            if turn:
                return registers[block.before : block.before + block.words]
            return registers

    async def read_once(self, unit: int, function: int, address: int, count: int) -> list[int]:
        """Registers outside the polled blocks. Raises DeviceError."""
        async with self._lock:
            if self._error_at_s is not None:
                await self._recover()
            reply = await self._ask(read_request(unit, function, address, count))
            return list(reply.registers)

    async def exchange(self, request: Request) -> None:
        """A request of another kind, prepared by the caller. Raises DeviceError."""
        async with self._lock:
            if self._error_at_s is not None:
                await self._recover()
            await self._ask(request)

    async def write(
        self,
        unit: int,
        address: int,
        words: list[int],
        *,
        urgent: bool = False,
        still: Callable[[], bool] | None = None,
    ) -> None:
        """Write registers. Raises DeviceError.

        ``still``: asked right before sending; False withdraws the request.

        ``urgent``: the bytes leave now, whatever is under way or waited for; the request is
        then repeated in good order to get its confirmation.
        """
        request = write_request(unit, address, words)
        if urgent and (self._lock.locked() or self._error_at_s is not None):
            self._push(request)
        async with self._lock:
            if self._error_at_s is not None:
                await self._recover()
            if still is not None and not still():
                raise DeviceError(
                    f"{self.name}: {request.text} withdrawn: overtaken by an urgent one"
                )
            await self._ask(request)

    # ----- one exchange

    async def _ask(self, request: Request) -> ModbusPDU:
        client = self._client
        if client is None:
            raise DeviceError(f"{self.name}: not connected")
        self.n_requests += 1
        self._want, self._buffer = request, b""
        try:
            reply = await client.execute(False, request.pdu)
        except ModbusException:
            self.doubt()
            text = f"{self.name}: no answer to the {request.text} in {self.timeout_s * 1e3:g} ms"
            self._give_up_wire()
            raise DeviceError(text) from None
        except BridgeError:
            self.doubt()
            self._give_up_wire()
            raise
        except BaseException:  # cancelled: its reply may still come
            self.doubt()
            raise
        finally:
            self._want = None
        if reply.isError():
            self.doubt()
            code = reply.exception_code
            reason = _REASONS.get(code, "unknown reason")
            raise DeviceError(f"{self.name}: the {request.text} was refused: {reason} ({code})")
        if (
            reply.function_code != request.pdu.function_code
            or reply.dev_id != request.unit
            or (request.pdu.function_code <= 4 and len(reply.registers) != request.count)
        ):
            self.doubt()
            raise DeviceError(f"{self.name}: the reply to the {request.text} is another's")
        self._failures = 0
        return reply

    def _received(self, data: bytes) -> None:
        """Bytes from the wire, looked at before pymodbus sees them."""
        client, want = self._client, self._want
        if client is None:
            return
        if want is None:
            self.n_refused += 1
            self.doubt()
            return
        buffer = self._buffer + data if self._buffer else data
        if self.rtu:
            before, tail = bytes((want.unit,)), 2
            refused_before = before
        else:
            tid = client.ctx.request_transaction_id.to_bytes(2, "big")
            unit = bytes((want.unit,))
            before = tid + b"\0\0" + (want.length + 1).to_bytes(2, "big") + unit
            refused_before, tail = tid + b"\0\0\0\x03" + unit, 0
        head = before + want.head
        refusal = refused_before + want.refusal
        if buffer.startswith(head):
            total = len(before) + want.length + tail
        elif buffer.startswith(refusal):
            total = len(refusal) + 1 + tail
        elif head.startswith(buffer) or refusal.startswith(buffer):
            self._buffer = buffer
            return
        else:
            self._refuse(f"{self.name}: not the reply to the {want.text}: {_hex(buffer)}")
            return
        if len(buffer) < total:
            self._buffer = buffer
            return
        if len(buffer) > total:
            extra = len(buffer) - total
            self._refuse(f"{self.name}: {extra} bytes too many in reply to the {want.text}")
            return
        self._want = None
        try:
            client.ctx.data_received(buffer)
        except ModbusException as exc:
            self._refuse(f"{self.name}: reply to the {want.text} cannot be read: {exc}")
            return
        if not client.ctx.response_future.done():
            self._refuse(f"{self.name}: wrong checksum in reply to the {want.text}")

    def _refuse(self, text: str) -> None:
        """End the exchange: these bytes are nobody's answer."""
        self.n_refused += 1
        self._end_wait(text)
        self.doubt()

    def _end_wait(self, text: str) -> None:
        self._want = None
        if self._client is not None:
            future = self._client.ctx.response_future
            if not future.done():
                future.set_exception(DeviceError(text))
                future.exception()  # nobody may be waiting; that is no news

    # ----- after an error

    def doubt(self) -> None:
        """Something was wrong: silence and a probe come before the next request."""
        self._error_at_s = asyncio.get_running_loop().time()

    def _give_up_wire(self) -> None:
        """Count a failure; after several in a row close, so that the line starts afresh."""
        self._failures += 1
        if self._failures >= FAILURES_TO_CLOSE and self._wire is not None:
            self.close()
            self._on_lost()

    async def _recover(self) -> None:
        """Wait for silence, then prove by a probe that no older reply is under way."""
        loop = asyncio.get_running_loop()
        while self._error_at_s is not None:
            wait_s = self._error_at_s + QUIET_S - loop.time()
            if wait_s > 1e-6:
                await asyncio.sleep(wait_s)
                continue
            self._error_at_s = None
            block = self._probe
            count = 1 + self._n_probes % max(1, block.words - 1)
            self._n_probes += 1
            await self._ask(read_request(block.unit, block.function, block.address, count))

    def _push(self, request: Request) -> None:
        """Send at once, across whatever is under way; counts as an error of the line."""
        client = self._client
        if client is None:
            return
        self._end_wait(f"{self.name}: interrupted by an urgent {request.text}")
        self.doubt()
        request.pdu.transaction_id = client.ctx.getNextTID()
        client.ctx.send(client.ctx.framer.buildFrame(request.pdu))

    def _wire_lost(self, cause: Exception | None) -> None:
        self._wire = None
        self._end_wait(f"{self.name}: connection lost" + (f": {cause}" if cause else ""))
        self._client = None
        self._on_lost()

    async def _never_connect(self) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        raise OSError(f"{self.name}: the wire is opened by the bridge")


def _hex(data: bytes) -> str:
    text = data[:24].hex(" ")
    return text + " ..." if len(data) > 24 else text

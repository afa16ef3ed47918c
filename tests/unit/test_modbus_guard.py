"""The guard against a device that does everything wrong: nothing wrong is ever taken.

The device here builds its frames itself (own CRC); its registers hold a counter, so that any
value that is not the present one shows.
"""

import asyncio
import itertools
import random
import struct

import pytest

from firmware_bridge.errors import BridgeError, DeviceError
from firmware_bridge.modbus_guard import BlockRead, ModbusGuard, WireTransport
from firmware_bridge.registers import Block
from firmware_bridge.transport import Port, Wire
from tests.transcripts.wire_script import run

BLOCK = Block(0x10, 6)


def crc(data: bytes) -> bytes:
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


class Device(Wire):
    """Registers n, n, n, ... where n counts requests; ``fault`` says what goes wrong."""

    def __init__(self, port: "FaultPort") -> None:
        super().__init__("device")
        self.port = port

    def close(self) -> None:
        self.is_open = False

    def write(self, data: bytes) -> None:
        port, loop = self.port, asyncio.get_running_loop()
        port.written.append((loop.time(), data))
        if port.rtu:
            assert crc(data[:-2]) == data[-2:]
            head, pdu = b"", data[:-2]
        else:
            assert len(data) == 6 + struct.unpack(">H", data[4:6])[0]
            head, pdu = data[:4], data[6:]
        port.n = (port.n + 1) % 65536
        unit, function, address, count = struct.unpack(">BBHH", pdu[:6])
        if function == 6:
            good = pdu
        else:
            assert BLOCK.address <= address <= address + count <= BLOCK.address + 7
            good = bytes((unit, function, 2 * count)) + struct.pack(">H", port.n) * count
        for delay_s, answer in port.fault(port, self, head, good):
            # a line keeps order: nothing overtakes a late reply
            port.due_s = max(port.due_s, loop.time() + delay_s)
            loop.call_at(port.due_s, self.deliver, answer)
        port.before = self.frame(head, good)

    def frame(self, head: bytes, pdu: bytes) -> bytes:
        if self.port.rtu:
            return pdu + crc(pdu)
        return head + struct.pack(">H", len(pdu)) + pdu


class FaultPort(Port):
    def __init__(self, rtu: bool, fault=None) -> None:
        super().__init__("device")
        self.rtu = rtu
        self.n = 0
        self.fault = fault or honest
        self.before = b""
        self.due_s = 0.0
        self.written: list[tuple[float, bytes]] = []
        self.wire: Device | None = None

    def __str__(self) -> str:
        return "device"

    async def open(self) -> Wire:
        self.wire = Device(self)
        return self.wire


def honest(port, wire, head, good):
    return [(0.002, wire.frame(head, good))]


def guard_of(port, lost=None):
    return ModbusGuard(port, "device", rtu=port.rtu, probe=BLOCK, on_lost=lost or (lambda: None))


# Faults: each returns what comes back, and when. ``good`` is unit + PDU.


def late(port, wire, head, good):
    return [(port.dice.choice([0.16, 0.2, 0.44, 0.452, 0.5, 0.9]), wire.frame(head, good))]


def previous(port, wire, head, good):
    return [(0.002, port.before)] if port.before else []


def short(port, wire, head, good):
    """A valid frame with fewer registers."""
    if good[1] == 6:
        return honest(port, wire, head, good)
    keep = port.dice.randrange(0, good[2] // 2)
    return [(0.002, wire.frame(head, good[:2] + bytes((2 * keep,)) + good[3 : 3 + 2 * keep]))]


def wrong_function(port, wire, head, good):
    other = port.dice.choice([f for f in (1, 2, 3, 4, 5, 6, 16, 23) if f != good[1]])
    return [(0.002, wire.frame(head, good[:1] + bytes((other,)) + good[2:]))]


def wrong_unit(port, wire, head, good):
    return [(0.002, wire.frame(head, bytes((good[0] + 1,)) + good[1:]))]


def wrong_transaction(port, wire, head, good):
    if port.rtu:
        return []
    return [(0.002, wire.frame(struct.pack(">H", port.dice.randrange(65536)) + head[2:], good))]


def truncated(port, wire, head, good):
    answer = wire.frame(head, good)
    return [(0.002, answer[: port.dice.randrange(len(answer))])]


def longer(port, wire, head, good):
    return [(0.002, wire.frame(head, good) + bytes((port.dice.randrange(256),)))]


def twice(port, wire, head, good):
    answer = wire.frame(head, good)
    return [(0.002, answer), (port.dice.choice([0.002, 0.003, 0.05]), answer)]


def garbage(port, wire, head, good):
    return [(0.002, port.dice.randbytes(port.dice.randrange(1, 40)))]


def refusal(port, wire, head, good):
    code = port.dice.choice([1, 2, 3, 4, 6, 11])
    return [(0.002, wire.frame(head, bytes((good[0], good[1] | 0x80, code))))]


def flipped(port, wire, head, good):
    """Up to three bits; on TCP only in what is not payload, nothing could tell there."""
    answer = bytearray(wire.frame(head, good))
    end = len(answer) if port.rtu else 9
    for bit in port.dice.sample(range(8 * end), port.dice.randint(1, 3)):
        answer[bit // 8] ^= 1 << bit % 8
    return [(0.002, bytes(answer))]


def nothing(port, wire, head, good):
    return []


def in_pieces(port, wire, head, good):
    answer = wire.frame(head, good)
    cut = port.dice.randrange(1, len(answer))
    return [(0.002, answer[:cut]), (0.01, answer[cut:])]


FAULTS = [
    late, previous, short, wrong_function, wrong_unit, wrong_transaction, truncated, longer,
    twice, garbage, refusal, flipped, nothing, in_pieces,
]  # fmt: skip


@pytest.mark.parametrize("rtu", [True, False], ids=["rtu", "tcp"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_no_wrong_value_is_taken(rtu, fault):
    """150 requests, a third of them with the fault in random bursts: 0 wrong values."""

    async def body():
        port = FaultPort(rtu)
        port.dice = random.Random(f"{fault.__name__}{rtu}")
        guard, block = guard_of(port), BlockRead(BLOCK)
        taken = wrong = refused = 0
        burst = 0
        for _ in range(150):
            if not guard.is_open:
                await guard.open()
            if burst:
                burst -= 1
            elif port.dice.random() < 0.15:
                burst = port.dice.randint(1, 4)
            port.fault = fault if burst else honest
            try:
                registers = await guard.read(block)
            except BridgeError:
                refused += 1
            else:
                taken += 1
                wrong += registers != [port.n] * 6
            await asyncio.sleep(0.03)
        guard.close()
        return taken, wrong, refused

    taken, wrong, refused = run(body())
    assert wrong == 0
    assert taken >= 40
    if fault is in_pieces:
        assert refused == 0
    elif fault not in (twice,) and not (fault is wrong_transaction and rtu):
        assert refused > 0


@pytest.mark.slow
def test_no_wrong_value_under_all_faults_mixed():
    """20,000 guarded RTU and TCP requests under every fault in turn: 0 wrong values."""

    async def body(rtu):
        port = FaultPort(rtu)
        port.dice = random.Random(f"mixed{rtu}")
        guard, block = guard_of(port), BlockRead(BLOCK)
        taken = wrong = 0
        for _ in range(10_000):
            if not guard.is_open:
                await guard.open()
            port.fault = port.dice.choice(FAULTS) if port.dice.random() < 0.2 else honest
            try:
                registers = await guard.read(block)
            except BridgeError:
                continue
            taken += 1
            wrong += registers != [port.n] * 6
        guard.close()
        return taken, wrong

    for rtu in (True, False):
        taken, wrong = run(body(rtu))
        assert wrong == 0
        assert taken > 5_000


@pytest.mark.parametrize("rtu", [True, False], ids=["rtu", "tcp"])
def test_written_value_acknowledged_wrongly_is_an_error(rtu):
    def echoes_other(port, wire, head, good):
        return [(0.002, wire.frame(head, good[:-1] + bytes((good[-1] ^ 1,))))]

    async def body():
        port = FaultPort(rtu, echoes_other)
        guard = guard_of(port)
        await guard.open()
        with pytest.raises(DeviceError, match="not the reply to the write at 5"):
            await guard.write(1, 5, [300])
        guard.close()

    run(body())


def test_nothing_is_sent_before_300_ms_of_silence():
    def chatter(port, wire, head, good):
        return [(0.01 * i, b"\x55") for i in range(1, 60)]  # until 0.59 s

    async def body():
        port = FaultPort(True, chatter)
        guard, block = guard_of(port), BlockRead(BLOCK)
        await guard.open()
        with pytest.raises(DeviceError):
            await guard.read(block)
        port.fault = honest
        assert await guard.read(block) == [3] * 6  # request 2 was the probe
        times = [t for t, _ in port.written]
        assert times[1] - times[0] >= 0.59 + 0.3 - 1e-6
        guard.close()

    run(body())


def test_lengths_alternate_and_probes_differ():
    async def body():
        port = FaultPort(False)
        guard, block = guard_of(port), BlockRead(BLOCK)
        await guard.open()
        for _ in range(3):
            await guard.read(block)
        port.fault = nothing
        for _ in range(3):
            with pytest.raises(DeviceError):
                await guard.read(block)
        port.fault = honest
        await guard.read(block)
        guard.close()
        return [data[-1] for _, data in port.written]

    # n, n+1, n; then n+1 unanswered, probes of 1 and 2 unanswered, probe of 3, n
    assert run(body()) == [6, 7, 6, 7, 1, 2, 3, 6]


def test_cancelled_request_leaves_no_trap():
    async def body():
        port = FaultPort(True, late)
        port.dice = random.Random(1)
        guard, block = guard_of(port), BlockRead(BLOCK)
        await guard.open()
        task = asyncio.ensure_future(guard.read(block))
        await asyncio.sleep(0.01)
        task.cancel()
        port.fault = honest
        assert await guard.read(block) == [port.n] * 6
        assert len(port.written) == 3  # the cancelled one, a probe, the read
        guard.close()

    run(body())


def test_one_request_at_a_time():
    async def body():
        port = FaultPort(True)
        guard, block = guard_of(port), BlockRead(BLOCK)
        await guard.open()
        await asyncio.gather(guard.read(block), guard.write(1, 5, [7]), guard.read(block))
        times = [t for t, _ in port.written]
        assert all(b - a >= 0.002 - 1e-9 for a, b in itertools.pairwise(times))
        guard.close()

    run(body())


def test_silent_device_is_given_up_after_four():
    async def body():
        lost = []
        port = FaultPort(False, nothing)
        guard, block = guard_of(port, lambda: lost.append(1)), BlockRead(BLOCK)
        await guard.open()
        for _ in range(4):
            with pytest.raises(DeviceError, match="no answer"):
                await guard.read(block)
        assert lost == [1]
        assert not port.wire.is_open
        with pytest.raises(DeviceError, match="not connected"):
            await guard.read(block)

    run(body())


def test_lost_wire_ends_the_wait_at_once():
    async def body():
        lost = []
        port = FaultPort(False, nothing)
        guard, block = guard_of(port, lambda: lost.append(1)), BlockRead(BLOCK)
        await guard.open()
        start = asyncio.get_running_loop().time()
        asyncio.get_running_loop().call_later(0.005, lambda: port.wire.lost(OSError("unplugged")))
        with pytest.raises(DeviceError, match="connection lost: unplugged"):
            await guard.read(block)
        assert asyncio.get_running_loop().time() - start < 0.006
        assert lost == [1]

    run(body())


def test_pymodbus_never_opens_a_connection_of_its_own(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("pymodbus connects by itself")

    async def body():
        port = FaultPort(False)
        guard = guard_of(port)
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
        await guard.open()
        assert await guard._client.connect() is False
        assert isinstance(guard._client.ctx.transport, WireTransport)
        guard.close()

    run(body())

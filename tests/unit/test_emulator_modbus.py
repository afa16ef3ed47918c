"""The simulator's own Modbus slave, against published example frames.

Frames of unit 0x11 are the worked examples of simplymodbus.ca (functions 1 to 6, 15, 16).
"""

from __future__ import annotations

import pytest

from hil_sim.clock import Scheduler
from hil_sim.devices.modbus import (
    ILLEGAL_ADDRESS,
    Block,
    ModbusError,
    ModbusRtu,
    ModbusTcp,
    crc16,
)
from tests.unit.emulator_bench import Line, make_world

X = bytes.fromhex


class Registers:
    """Registers 0x006B..0x006D and 8 as in the examples, coils, and a note of every write."""

    channel = "bench"
    functions = frozenset((1, 2, 3, 4, 5, 6, 15, 16))

    def fill(self) -> None:
        block = Block(0x006B, 3)
        block.data[:] = X("AE4156524340")
        low = Block(8, 1)
        low.data[:] = X("000A")
        self.blocks = {0x11: (block, low)}
        self.written = []

    def write_registers(self, unit, address, values):
        if address > 1:
            raise ModbusError(ILLEGAL_ADDRESS)
        self.written.append((unit, address, values))

    def write_bits(self, unit, address, values):
        self.written.append((unit, address, values))

    def read_bits(self, unit, function, address, count):
        pattern = X("CD6BB20E1B")
        return [bool(pattern[i >> 3] >> (i & 7) & 1) for i in range(count)]


class RtuBench(Registers, ModbusRtu):
    pass


class TcpBench(Registers, ModbusTcp):
    pass


@pytest.fixture
def sim():
    return Scheduler()


@pytest.fixture
def rtu(sim):
    emulator = RtuBench(sim, make_world())
    emulator.fill()
    return Line(emulator, sim)


@pytest.fixture
def tcp(sim):
    emulator = TcpBench(sim, make_world())
    emulator.fill()
    return Line(emulator, sim)


def test_crc_of_published_frames():
    assert crc16(b"123456789") == 0x4B37  # the check value of CRC-16/MODBUS
    assert crc16(X("1103006B0003")) == 0x8776


@pytest.mark.parametrize(
    ("request_hex", "answer_hex"),
    [
        ("1103006B00037687", "110306AE415652434049AD"),
        ("110400080001B298", "110402000AF8F4"),
        ("1101001300250E84", "110105CD6BB20E1B45E6"),
        ("110600010003 9A9B", "1106000100039A9B"),
        ("1105 00AC FF00 4E8B", "110500ACFF004E8B"),
        ("1110 0001 0002 04 000A 0102 C6F0", "1110000100021298"),
        ("110F 0013 000A 02 CD01 BF0B", "110F0013000A2699"),
    ],
)
def test_rtu_answers_the_published_examples(rtu, request_hex, answer_hex):
    assert rtu.ask(X(request_hex)) == X(answer_hex)


def test_writes_reach_the_device(rtu):
    rtu.ask(X("1106000100039A9B"))
    rtu.ask(X("11100001000204000A0102C6F0"))
    rtu.ask(X("110500ACFF004E8B"))
    rtu.ask(X("110F0013000A02CD01BF0B"))
    assert rtu.emulator.written == [
        (0x11, 1, (3,)),
        (0x11, 1, (10, 0x0102)),
        (0x11, 0xAC, [True]),
        (0x11, 0x13, [True, False, True, True, False, False, True, True, True, False]),
    ]


def test_rtu_frame_in_single_bytes(rtu):
    heard = b"".join(rtu.ask(bytes((byte,)), wait_us=300) for byte in X("1103006B00037687"))
    assert heard + rtu.ask(b"") == X("110306AE415652434049AD")


def test_rtu_frames_in_one_read_are_all_answered(rtu):
    two = X("1103006B00037687") + X("110400080001B298")
    assert rtu.ask(two) == X("110306AE415652434049AD") + X("110402000AF8F4")


def test_rtu_wrong_crc_is_met_with_silence(rtu):
    assert rtu.ask(X("1103006B00037688")) == b""
    assert rtu.emulator.written == []
    assert rtu.ask(X("1103006B00037687"), wait_us=50_000) == X("110306AE415652434049AD")


def test_rtu_finds_the_good_frame_behind_a_damaged_one(rtu):
    # 0x10 in the damaged frame looks like a function 16 whose end is to come
    assert rtu.ask(X("1103001000107700") + X("110400080001B298")) == X("110402000AF8F4")


def test_rtu_unfinished_frame_is_forgotten_after_silence(rtu):
    rtu.ask(X("1110000100"), wait_us=30_000)
    assert rtu.ask(X("110400080001B298")) == X("110402000AF8F4")


def test_rtu_other_unit_is_met_with_silence(rtu):
    assert rtu.ask(X("1203006B000376B4")) == b""  # a good frame for unit 0x12
    assert crc16(X("1203006B000376B4")) == 0


def test_rtu_broadcast_acts_but_does_not_answer(rtu):
    frame = X("000600010003")  # CRC by another implementation
    assert rtu.ask(frame + X("99DA")) == b""
    assert rtu.emulator.written == [(0x11, 1, (3,))]


@pytest.mark.parametrize(
    ("pdu", "answer"),
    [
        ("2B0E0100", "AB01"),  # function not known
        ("0300000001", "8302"),  # no such register
        ("03006B0004", "8302"),  # runs over the block's end
        ("03006B0000", "8303"),  # no registers asked for
        ("03006B007E", "8303"),  # 126 registers
        ("0600020001", "8602"),  # not writable
        ("05000012FF00", "8503"),  # too long
        ("050000FF01", "8503"),  # neither on nor off
        ("100000000203000102", "9003"),  # byte count is not twice the registers
        ("1000000000 00", "9003"),
        ("0F0000000901FF", "8F03"),  # 9 coils in one byte
    ],
)
def test_exceptions(tcp, pdu, answer):
    pdu, answer = X(pdu), X(answer)
    request = X("00070000") + (len(pdu) + 1).to_bytes(2, "big") + X("11") + pdu
    assert tcp.ask(request) == X("00070000000311") + answer
    assert tcp.emulator.written == []


def test_tcp_answer_carries_transaction_and_unit(tcp):
    request = X("BEEF 0000 0006 11 03 006B 0003")
    assert tcp.ask(request) == X("BEEF 0000 0009 11 03 06 AE41 5652 4340")


def test_tcp_requests_split_and_joined(tcp):
    one = X("0001 0000 0006 11 03 006B 0001")
    two = X("0002 0000 0006 11 03 006C 0001")
    both = one + two
    want = X("0001 0000 0005 11 03 02 AE41") + X("0002 0000 0005 11 03 02 5652")
    for cut in range(len(both) + 1):
        assert tcp.ask(both[:cut], wait_us=0) + tcp.ask(both[cut:]) == want


def test_tcp_other_unit_is_met_with_silence(tcp):
    assert tcp.ask(X("0001 0000 0006 12 03 006B 0001")) == b""


def test_tcp_bytes_that_are_not_modbus_are_dropped(tcp):
    assert tcp.ask(b"GET / HTTP/1.1\r\n\r\n") == b""
    assert tcp.ask(X("0001 0000 0005 11 03 006B 0001")) == X("0001 0000 0003 11 83 03")


def test_new_connection_starts_with_an_empty_buffer(tcp):
    tcp.ask(X("0001 0000 00"))
    tcp.emulator.closed()
    tcp.emulator.opened()
    assert tcp.ask(X("0001 0000 0006 11 03 006B 0001")) == X("0001 0000 0005 11 03 02 AE41")


def test_answers_fall_on_the_grid(tcp, sim):
    request = X("0001 0000 0006 11 03 006B 0001")
    for asked_us, due_us in ((0, 5_000), (9_000, 10_000), (19_001, 25_000), (25_000, 30_000)):
        sim.run(asked_us)
        tcp.ask(request)
        assert tcp.heard[-1][0] == due_us


def test_answers_on_their_way_do_not_reach_the_next_host(tcp, sim):
    tcp.ask(X("0001 0000 0006 11 03 006B 0001"), wait_us=0)
    tcp.emulator.closed()
    tcp.emulator.opened()
    sim.run(20_000)
    assert tcp.heard == []


def test_mute_acts_but_does_not_answer(tcp):
    tcp.emulator.mute = True
    assert tcp.ask(X("0001 0000 0006 11 06 0001 0003")) == b""
    assert tcp.emulator.written == [(0x11, 1, (3,))]


def test_garble_flips_bits_the_same_way_each_run(sim):
    good = X("110306AE415652434049AD")
    seen = []
    for _ in range(2):
        emulator = RtuBench(sim, make_world())
        emulator.fill()
        emulator.garble = 3
        line = Line(emulator, sim)
        seen.append([line.ask(X("1103006B00037687"), wait_us=50_000) for _ in range(5)])
    assert seen[0] == seen[1]
    for answer in seen[0]:
        flipped = int.from_bytes(answer, "big") ^ int.from_bytes(good, "big")
        assert len(answer) == len(good)
        assert flipped.bit_count() == 3


def test_truncate_cuts_the_end(rtu):
    rtu.emulator.truncate = 2
    assert rtu.ask(X("1103006B00037687")) == X("110306AE4156524340")


def test_delay_keeps_the_order_of_answers(tcp, sim):
    tcp.emulator.delay_us = 300_000
    tcp.ask(X("0001 0000 0006 11 03 006B 0001"), wait_us=0)
    tcp.emulator.delay_us = 0
    tcp.ask(X("0002 0000 0006 11 03 006B 0001"), wait_us=0)
    sim.run(400_000)
    assert [(t_us, data[:2]) for t_us, data in tcp.heard] == [
        (305_000, X("0001")),
        (305_000, X("0002")),
    ]

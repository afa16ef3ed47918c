"""The handshake's words as bytes: those of docs/handshake.md, typed in."""

import asyncio

import pytest

from firmware_bridge.errors import DeviceError, TransportError
from firmware_bridge.handshake import ModbusWords, store_program
from firmware_bridge.link_types import AxisSettings, LinkSettings, LinkState
from firmware_bridge.registers import Block
from firmware_bridge.supervised_link import SupervisedLink
from hil_sim.cellfile import load
from hil_sim.devices.cnc import Cnc
from tests.hil.whole_cell import ROOT
from tests.transcripts.wire_script import run, talk

PAGE = (ROOT / "docs" / "handshake.md").read_text(encoding="utf-8")
SETTINGS = LinkSettings(
    axes=(
        AxisSettings(400, 120, 2000, 0, 300),
        AxisSettings(400, 120, 2000, 0, 300),
        AxisSettings(400, 40, 500, 0, 250),
    ),
    total_accel_mm_s2=2000,
    plan_share=0.8,
    longest_emission_s=600,
)

# docs/handshake.md, section 6
WRITE = """00 07 00 00 00 1b 01 10 00 00 00 0a 14 00 01 01 02 00 c3 00 03 ca fe 12 34
44 16 00 00 03 e8 03 e8"""
WRITTEN = "00 07 00 00 00 06 01 10 00 00 00 0a"
READ = "00 08 00 00 00 06 01 03 00 64 00 1e"
WORDS = """00 01 0a 0b 01 01 00 02 00 3f 00 00 00 00 04 d2
00 03 00 64 ca fe 12 34 03 e8 00 03 00 01 e2 40 44 16 00 00 43 16 80 00 43 12
40 00 41 4c 00 00 00 00 00 00 00 00 00 00 00 00 00 00"""
TOLD = "00 08 00 00 00 3f 01 03 3c " + WORDS
STORE = "00 09 00 00 00 16 02 15 13 06 00 01 00 00 00 06 47 32 31 20 47 39 30 0a 4d 32 0a 0a"
STORED = "00 0a 00 00 00 0e 02 15 0b 06 ff ff 00 00 00 02 00 00 00 0b"

# theirs once more with another heartbeat, 31 words
WORDS_31 = WORDS.replace("0a 0b", "0a 0c").replace("\n", " ") + " 00 00"
OURS_1 = "00 01 00 01 00 00 00 00 00 00 00 00 00 00 00 00 03 e8 03 e8"  # heartbeat 1
SCRIPT = f"""
> 00 01 00 00 00 06 01 03 00 64 00 1e
< 00 01 00 00 00 3f 01 03 3c {" ".join(WORDS.split())}
> 00 02 00 00 00 1b 01 10 00 00 00 0a 14 {OURS_1}
< 00 02 00 00 00 06 01 10 00 00 00 0a
> 00 03 00 00 00 06 01 03 00 64 00 1f
< 00 03 00 00 00 41 01 03 3e {WORDS_31}
"""


def link_on(port):
    return SupervisedLink(port, SETTINGS, rated_power_w=1000.0)


async def one_cycle(link, port):
    link.token()
    await asyncio.sleep(0.015)
    return link.status


@pytest.mark.parametrize("frame", [WRITE, WRITTEN, READ, TOLD, STORE, STORED])
def test_the_page_shows_these_bytes(frame):
    shown = " ".join(PAGE.split())
    assert " ".join(frame.split()) in shown


def test_a_cycle_writes_our_words_and_reads_theirs():
    status = talk(link_on, SCRIPT, one_cycle)
    assert status.state == LinkState.RUN
    assert status.armed
    assert status.gate_on
    assert status.homed
    assert status.interlock_ok
    assert not status.hold_pending
    assert status.device_us == 123_456_000
    assert status.power_fraction == pytest.approx(0.6)
    assert status.position_steps == (60_200, 58_500, 5_100, 0, 0, 0)
    assert status.scale == 1.0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("00 03 00 00 00 41 01 03 3e", "00 02 00 00 00 41 01 03 3e"),  # an older transaction
        ("00 03 00 00 00 41 01 03 3e", "00 03 00 00 00 41 02 03 3e"),  # another unit
        ("00 03 00 00 00 41 01 03 3e", "00 03 00 00 00 3f 01 03 3c"),  # the read before, late
        ("01 10 00 00 00 0a\n> 00 03", "01 90 02\n> 00 03"),  # refused
        ("00 02 00 3f", "00 09 00 3f"),  # a state that there is not
    ],
)
def test_what_is_not_the_answer_ends_the_link_and_nothing_more_is_sent(old, new):
    before, after = SCRIPT.split("> 00 02")
    after = "> 00 02" + after
    assert after.count(old) == 1
    script = before + after.replace(old, new)
    if "90 02" in new:
        script = script.replace("00 00 00 06 01 90 02", "00 00 00 03 01 90 02")
        script = script.split("> 00 03")[0]

    async def body(link, port):
        link.token()
        await asyncio.sleep(0.3)
        return link.failure, link.status

    failure, status = talk(link_on, script, body)
    assert failure
    assert status is None


def test_nobody_there_is_a_transport_error():
    async def never(link, port):
        raise AssertionError("connected")

    with pytest.raises(TransportError, match="no handshake words"):
        talk(link_on, "> 00 01 00 00 00 06 01 03 00 64 00 1e\n", never)


class Words(ModbusWords):
    """The carrier by itself, with the life of a device."""

    def __init__(self, port):
        super().__init__(port, "control", (Block(100, 30),), rtu=False)

    async def connect(self):
        await self.open()


def test_a_program_is_stored_in_file_records_and_its_length_ends_it():
    first, last = STORE.replace("00 09", "00 01", 1), STORED.replace("00 0a", "00 02", 1)

    async def body(words, port):
        await store_program(words, 2, 1, b"G21 G90\nM2\n")

    talk(Words, f"> {first}\n< {first}\n> {last}\n< {last}\n", body)


def test_a_refused_piece_is_an_error():
    first = STORE.replace("00 09", "00 01", 1)

    async def body(words, port):
        with pytest.raises(DeviceError, match="file record 1/0 was refused: busy"):
            await store_program(words, 2, 1, b"G21 G90\nM2\n")

    talk(Words, f"> {first}\n< 00 01 00 00 00 03 02 95 06\n", body)


def test_long_programs_go_on_in_the_next_file():
    class Store:
        def __init__(self):
            self.pieces = []

        async def store(self, unit, file, record, data):
            self.pieces.append((unit, file, record, bytes(data)))

    data = bytes(range(256)) * 90  # 23040 bytes: a file holds 20000
    store = Store()
    run(store_program(store, 2, 5, data))
    *pieces, last = store.pieces
    assert last == (2, 65535, 0, len(data).to_bytes(4, "big"))
    whole = bytearray(len(data))
    for unit, file, record, piece in pieces:
        assert unit == 2
        assert record + (len(piece) + 1) // 2 <= 10_000
        assert len(piece) <= 244  # of a Modbus PDU
        at = (file - 5) * 20_000 + 2 * record
        whole[at : at + len(piece)] = piece
    assert bytes(whole) == data
    assert {file for _, file, _, _ in pieces} == {5, 6}


# the simulated control answers the same bytes


def answer(control: Cnc, frame: str) -> str:
    control.rx(bytes.fromhex(frame))
    control.run(control.now_us + 10_000)
    return control.tx().hex(" ")


def control() -> Cnc:
    return Cnc(load(ROOT / "configs" / "cells" / "sim_supervised.toml"))


def test_the_simulated_control_takes_words_and_program():
    cnc = control()
    assert answer(cnc, WRITE) == WRITTEN
    assert answer(cnc, STORE) == STORE
    assert answer(cnc, STORED) == STORED
    told = bytes.fromhex(answer(cnc, READ))
    assert told[:9].hex(" ") == TOLD[:26]
    words = [int.from_bytes(told[9 + 2 * k : 11 + 2 * k], "big") for k in range(30)]
    assert words[0] == 1
    assert words[2] == 0x0102  # echo
    assert words[10:12] == [0x216C, 0xBFCE]  # id of the program


def test_frames_in_pieces_and_two_in_one_are_answered():
    cnc = control()
    whole = bytes.fromhex(WRITE) + bytes.fromhex(READ)
    cnc.rx(whole[:11])
    cnc.run(cnc.now_us + 10_000)
    assert cnc.tx() == b""
    cnc.rx(whole[11:])
    cnc.run(cnc.now_us + 10_000)
    assert cnc.tx().hex(" ").startswith(WRITTEN + " 00 08")

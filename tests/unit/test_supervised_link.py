"""The supervised link: against a control made of words, and against the simulated CNC."""

import asyncio
import re
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from firmware_bridge.errors import DeviceError, MapError, ProtocolError, TransportError
from firmware_bridge.handshake import Command, Handshake
from firmware_bridge.link_types import AxisSettings, Link, LinkSettings, LinkState
from firmware_bridge.segments import SEGMENT
from firmware_bridge.supervised_link import SupervisedLink
from firmware_bridge.supervised_program import ProgramPlace
from tests.hil.whole_cell import ROOT
from tests.transcripts.wire_script import ScriptPort, run

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
MAP = (ROOT / "configs" / "maps" / "handshake_generic.toml").read_text(encoding="utf-8")
ACCEPTS = int(Command.PERMIT)


def segments(*ms: int) -> np.ndarray:
    rows = np.zeros(len(ms), SEGMENT)
    rows["ticks_lo"] = [m * 1000 & 0xFFFF for m in ms]
    rows["ticks_hi"] = [m * 1000 >> 16 for m in ms]
    return rows


def program(text: str, segment_of_line, track_of_line):
    return SimpleNamespace(text=text, segment_of_line=segment_of_line, track_of_line=track_of_line)


class Control:
    """A control of words: counts, echoes, permits; the test sets the rest."""

    def __init__(self) -> None:
        self.theirs = [0] * 31
        self.theirs[0], self.theirs[4], self.theirs[9], self.theirs[13] = 1, 1 | 2 | 4, 100, 3
        self.theirs[12] = 1000
        self.ours: list[list[int]] = []
        self.at_s: list[float] = []
        self.counts = True
        self.refuses_permit = False
        self.is_open = False
        self.fails = False

    async def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    async def read_words(self, block) -> list[int]:
        await asyncio.sleep(0.002)
        if self.fails:
            raise DeviceError("no answer")
        if self.counts:
            self.theirs[1] = self.theirs[1] + 1 & 0xFFFF
            ms = round(asyncio.get_running_loop().time() * 1e3)
            self.theirs[14:16] = [ms >> 16, ms & 0xFFFF]
        return list(self.theirs[: block.words])

    async def write_words(self, unit, address, words) -> None:
        await asyncio.sleep(0.002)
        assert (unit, address, len(words)) == (1, 0, 10)
        before = self.bits
        self.ours.append(list(words))
        self.at_s.append(asyncio.get_running_loop().time())
        self.theirs[2] = words[1]
        if not self.bits & Command.PERMIT:
            self.theirs[4] &= ~8
        elif not before & Command.PERMIT and not self.refuses_permit:
            self.theirs[4] |= 8

    async def store(self, unit, file, record, data) -> None:
        await asyncio.sleep(0.002)

    @property
    def bits(self) -> int:
        return self.ours[-1][2] if self.ours else 0

    def set_program(self, number: int) -> None:
        self.theirs[10:12] = [number >> 16, number & 0xFFFF]


def play(body, **more):
    """``body(link, control)`` on a connected link whose supervisor lives."""

    async def whole():
        control = Control()
        link = SupervisedLink(ScriptPort(""), SETTINGS, words=control, rated_power_w=1000.0, **more)
        lost: list[str] = []
        link.on_lost = lost.append
        await link.connect()
        lives = SimpleNamespace(yes=True, lost=lost)
        link.lives = lives

        async def supervise():
            while True:
                if lives.yes:
                    link.token()
                await asyncio.sleep(0.01)

        task = asyncio.ensure_future(supervise())
        try:
            return await body(link, control)
        finally:
            task.cancel()
            link.close()
            await asyncio.sleep(0.5)

    return run(whole())


def loaded(link, control, text="M2\n", lines=(0,), tracks=(0,), ms=(100,)):
    link.load_program(program(text, lines, tracks), segments(*ms), [500.0, 300.0])
    control.set_program(zlib.crc32(text.encode()))


# --- heartbeat and permit


def test_the_heartbeat_counts_once_a_cycle_and_only_while_the_supervisor_lives():
    async def body(link, control):
        await asyncio.sleep(0.4)
        counts = [w[1] for w in control.ours]
        link.lives.yes = False
        await asyncio.sleep(0.1)
        n = len(control.ours)
        await asyncio.sleep(0.3)
        return counts, [w[1] for w in control.ours[n:]]

    counts, after = play(body)
    assert 20 <= len(counts) <= 21
    assert set(np.diff(counts).tolist()) == {1}
    assert len(after) == 15
    assert len(set(after)) == 1, "it beat on without a supervisor"


def test_a_supervisor_that_hangs_takes_permit_and_go_with_it():
    async def body(link, control):
        loaded(link, control)
        await link.arm()
        link.start(0)
        await asyncio.sleep(0.1)
        assert control.bits & Command.PERMIT
        assert control.bits & Command.GO
        link.lives.yes = False
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(0.2)
        fell = [t for t, w in zip(control.at_s, control.ours, strict=True) if not w[2] & 1]
        link.lives.yes = True
        await asyncio.sleep(0.2)
        return began, next(t for t in fell if t > began), control.bits

    began, fell, bits = play(body)
    assert fell - began <= 0.09
    assert not bits & (Command.PERMIT | Command.GO), "the permit came back by itself"


def test_permit_is_an_edge_low_first():
    async def body(link, control):
        loaded(link, control)
        await link.arm()
        await asyncio.sleep(0.1)
        first = len(control.ours)
        await link.arm()  # again: the bit stands already
        return [w[2] & 1 for w in control.ours[first:]], link.status.armed

    bits, armed = play(body)
    assert bits[0] == 0
    assert bits[-1] == 1
    assert armed


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda link, c: None, "no program was given"),
        (lambda link, c: (loaded(link, c), c.set_program(0xCAFE1234)), "has program cafe1234"),
        (
            lambda link, c: (loaded(link, c), c.theirs.__setitem__(4, 2 | 4)),
            "not in automatic mode",
        ),
        (
            lambda link, c: (loaded(link, c), setattr(c, "refuses_permit", True)),
            "does not accept the permit",
        ),
    ],
)
def test_arm_is_refused_with_the_reason(prepare, says):
    async def body(link, control):
        prepare(link, control)
        with pytest.raises(DeviceError, match=says):
            await link.arm()
        await asyncio.sleep(0.1)
        return control.bits

    assert not play(body) & Command.PERMIT


def test_a_hold_now_goes_out_at_once_without_the_permit():
    async def body(link, control):
        loaded(link, control)
        await link.arm()
        link.start(0)
        await asyncio.sleep(0.2)
        loop = asyncio.get_running_loop()
        begin_s = (loop.time() // 0.02 + 1) * 0.02 + 0.006  # both exchanges of a cycle are done
        await asyncio.sleep(begin_s - loop.time())
        n = len(control.ours)
        link.hold(now=True)
        await asyncio.sleep(0.003)
        return control.ours[n:]

    (words,) = play(body)
    assert words[2] & Command.HOLD_NOW
    assert not words[2] & Command.PERMIT


def test_a_hold_keeps_the_permit_and_going_on_needs_an_edge_of_go():
    async def body(link, control):
        loaded(link, control)
        await link.arm()
        link.start(0)
        await asyncio.sleep(0.1)
        link.hold(now=False)
        await asyncio.sleep(0.1)
        held = control.bits
        n = len(control.ours)
        link.unhold()
        await asyncio.sleep(0.1)
        return held, [w[2] for w in control.ours[n:]]

    held, after = play(body)
    assert held & (Command.HOLD | Command.PERMIT) == Command.HOLD | Command.PERMIT
    assert not any(bits & Command.HOLD for bits in after)
    assert not after[0] & Command.GO
    assert after[-1] & Command.GO


def test_a_trim_is_forgotten_after_100_ms():
    async def body(link, control):
        link.trim(0.9)
        await asyncio.sleep(0.05)
        soon = control.ours[-1][9]
        await asyncio.sleep(0.15)
        return soon, control.ours[-1][9]

    assert play(body) == (900, 1000)


# --- the other side


@pytest.mark.parametrize(
    ("word", "value", "says"),
    [
        (0, 2, "speaks handshake version 2, this side 1"),
        (13, 5, "tells of 5 axes, the cell has 3"),
        (9, 150, "withdraws emission 150 ms after .* 50 to 100 ms are wanted"),
        (9, 0, "withdraws emission 0 ms"),
    ],
)
def test_a_control_that_does_not_fit_is_refused(word, value, says):
    async def whole():
        control = Control()
        control.theirs[word] = value
        link = SupervisedLink(ScriptPort(""), SETTINGS, words=control)
        with pytest.raises(ProtocolError, match=says):
            await link.connect()
        return control.is_open

    assert run(whole()) is False


def test_a_control_whose_heartbeat_stands_is_lost_and_its_status_grows_old():
    async def body(link, control):
        await asyncio.sleep(0.1)
        control.counts = False
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not link.failure and loop.time() < began + 1.0:
            await asyncio.sleep(0.005)
        gone_s = loop.time() - began
        return gone_s, link.status.received_us * 1e-6 - began, link.lives.lost, control.is_open

    gone_s, newest_s, lost, is_open = play(body)
    assert 0.13 <= gone_s <= 0.19
    assert newest_s <= 0.01
    assert len(lost) == 1
    assert "heartbeat has not changed" in lost[0]
    assert not is_open


def test_an_exchange_that_fails_ends_the_link_once():
    async def body(link, control):
        control.fails = True
        await asyncio.sleep(0.2)
        n = len(control.ours)
        await asyncio.sleep(0.2)
        with pytest.raises(TransportError):
            await link.disarm()
        return link.lives.lost, len(control.ours) - n

    assert play(body) == (["no answer"], 0)


def test_a_clock_that_goes_back_is_a_restart():
    async def body(link, control):
        await asyncio.sleep(0.1)
        control.counts = False
        control.theirs[1] += 1
        control.theirs[14:16] = [0, 5]
        await asyncio.sleep(0.05)
        return link.failure

    assert "restarted" in play(body)


def test_closing_is_no_failure():
    async def body(link, control):
        await asyncio.sleep(0.05)
        link.close()
        await asyncio.sleep(0.2)
        return link.failure, link.lives.lost

    assert play(body) == ("", [])


def test_status_is_what_the_words_say():
    async def body(link, control):
        control.theirs[3:6] = [7, 1 | 2 | 32 | 64, 120]
        control.theirs[16:18] = [0x437A, 0]  # 250 W
        control.theirs[18:24] = [0x4316, 0x8000, 0x4312, 0x4000, 0x414C, 0]
        await asyncio.sleep(0.05)
        return link.status

    status = play(body, zero=(0.5, 0.0, 0.0))
    assert status.state == LinkState.FAULT
    assert status.fault == 120
    assert (status.armed, status.gate_on, status.interlock_ok, status.homed) == (
        False, True, False, True,
    )  # fmt: skip
    assert status.hold_pending
    assert status.power_fraction == pytest.approx(0.25)
    assert status.position_steps == (60000, 58500, 5100, 0, 0, 0)


# --- the program's place in the plan


def test_place_follows_lines_and_the_time_within_them():
    place = ProgramPlace([0, 0, 2, 2, 3], [-1, 0, 0, 0, 1], [0, 100, 200, 300, 400], 10)
    place.follow(1, 20.0, finished=False)
    assert (place.segment, place.tick_us, place.track) == (10, 0, -1)
    place.follow(1, 150.0, finished=False)
    assert (place.segment, place.tick_us) == (11, 50)
    place.follow(1, 500.0, finished=False)
    assert (place.segment, place.tick_us) == (12, 0)  # not beyond the line's end
    place.follow(4, 20.0, finished=False)
    assert (place.segment, place.track) == (12, 0)
    place.follow(5, 20.0, finished=False)
    assert (place.segment, place.tick_us, place.track) == (13, 0, 1)
    place.follow(5, 0.0, finished=True)
    assert (place.segment, place.tick_us, place.at_end) == (13, 100, True)


def test_place_never_goes_back_and_leaves_lines_that_are_none_alone():
    place = ProgramPlace([0, 1, 2], [0, 0, 0], [0, 100, 200, 300])
    place.follow(3, 0.0, finished=False)
    place.follow(2, 0.0, finished=False)
    assert (place.segment, place.tick_us) == (2, 0)
    place.follow(9, 50.0, finished=False)
    assert place.segment == 2


def test_power_word_is_that_of_the_track_laid_or_approached():
    async def body(link, control):
        loaded(link, control, "a\nb\nc\nM2\n", (0, 1, 2, 3), (-1, 0, 1, 1), (100, 100, 100))
        await link.arm()
        link.start(0)
        control.theirs[3] = 2
        told = []
        for line in (1, 2, 3):
            control.theirs[7] = line
            await asyncio.sleep(0.08)
            told.append(tuple(control.ours[-1][6:8]))
        return told

    f500, f300 = (0x43FA, 0), (0x4396, 0)
    assert play(body) == [f500, f500, f300]


# --- map


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[settings.override]", "[settings.other]", "settings.override is missing"),
        ("line = {", "lime = {", "readings.line is missing"),
        ("address = 9\n", "address = 10\n", "settings.power_share at 10 leaves a gap, 9 .* next"),
        ("cycle_s = [0.02]", "cycle_s = [1.0]", "calibration.cycle_s 1 is outside 0.005 to 0.05"),
        ("program_store = [2, 1]", "program_store = [2]", "program_store .* is not a unit"),
    ],
)
def test_a_map_that_cannot_serve_is_refused(old, new, says, tmp_path):
    assert MAP.count(old) == 1
    path = tmp_path / "m.toml"
    path.write_text(MAP.replace(old, new))
    with pytest.raises(MapError, match=says):
        Handshake(path)


# --- the interface of all links


def test_it_offers_what_the_controller_uses():
    names = [n for n in vars(Link) if not n.startswith("_") and callable(getattr(Link, n))]
    assert {"connect", "arm", "start", "hold"} <= set(names)
    for name in names:
        assert callable(getattr(SupervisedLink, name)), name
    given = SupervisedLink.abilities
    assert given.dead_man
    assert not given.exact_position
    assert all(re.fullmatch("[a-z_]+", n) and t for n, t in SupervisedLink.lacks.items())

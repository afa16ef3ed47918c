"""The real motion link against the firmware on an emulated Cortex-M3, over a pty."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from controller.config import load_cell
from controller.machine.cell import link_settings
from firmware_bridge.errors import DeviceError, ProtocolError, TransportError
from firmware_bridge.link_types import EventCode, FaultCode, LinkEvent, LinkSettings, LinkState
from firmware_bridge.motion_link import MotionLink
from firmware_bridge.transport import SerialPort
from tests.arm.arm_bench import NONCE, Board, build, needs_tools
from tests.unit.link_bench import job

pytestmark = [pytest.mark.arm, pytest.mark.slow, needs_tools]

Scene = Callable[["Session"], Awaitable[None]]


class StarvedError(Exception):
    """This computer gave the emulator no time for 100 ms: the dead-man fell, as it must."""


class Session:
    """One board, one link, the events that came."""

    def __init__(self, settings: LinkSettings) -> None:
        self.board = Board()
        self.link = MotionLink(SerialPort("motion", self.board.path, 921600), settings)
        self.events: list[LinkEvent] = []
        self.link.on_event = self.events.append
        self.alive = True
        self.may_lose_beats = False

    async def tokens(self) -> None:
        while self.alive and not self.link.failure:
            self.link.token()
            await asyncio.sleep(0.01)

    async def connect(self) -> None:
        """The emulator looks once a second whether its line is open: a few tries."""
        for _ in range(5):
            try:
                await self.link.connect()
                return
            except TransportError:
                continue
        raise AssertionError("no handshake")

    async def until(self, ready: Callable[[], bool], seconds: float = 20.0) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not ready():
                    assert not self.link.failure, self.link.failure
                    status = self.link.status
                    if status and status.fault == FaultCode.BEAT_LOST and not self.may_lose_beats:
                        raise StarvedError
                    await asyncio.sleep(0.005)
        except TimeoutError:
            said = f"{self.link.status} refused: {self.link.refusal!r} {self.link.stats}"
            raise AssertionError(
                f"waited {seconds} s in vain: {said} {self.events[-12:]}"
            ) from None

    async def play(self, n: int) -> None:
        """Homed, armed, n segments of 10 ms under way, the first 20 of them done."""
        await self.until(
            lambda: self.link.status is not None and self.link.status.beat_age_us < 50_000
        )
        await self.link.home()
        self.link.load(job(n, steps=(40, 20, 0)))
        await self.link.arm()
        self.link.start()
        await self.until(lambda: self.link.status.segment >= 20)

    def times(self, code: int, arg: int) -> list[int]:
        return [e.device_us for e in self.events if (e.code, e.arg) == (code, arg)]


def run(scene: Scene, settings: LinkSettings | None = None) -> Session:
    """Plays a scene on a fresh board, once more (at most twice) where the emulator starved."""
    build("qemu")
    for _ in range(2):
        try:
            return run_once(scene, settings)
        except StarvedError:
            continue
    return run_once(scene, settings)


def run_once(scene: Scene, settings: LinkSettings | None) -> Session:
    session = Session(settings or link_settings(load_cell("sim")[0]))

    async def main() -> None:
        session.board.listen()
        async with asyncio.timeout(90):
            await session.board.places()
            await session.connect()
            keeper = asyncio.ensure_future(session.tokens())
            try:
                await scene(session)
            finally:
                keeper.cancel()
                session.link.close()

    try:
        asyncio.run(main())
    finally:
        session.board.close()
    return session


def test_handshake_tells_queue_nonce_and_configuration():
    async def scene(s: Session) -> None:
        identity = s.link.identity
        assert (identity.queue_size, identity.n_axes) == (1024, 3)
        assert identity.boot_nonce == NONCE
        with pytest.raises(DeviceError, match="not homed"):
            await s.link.arm()

    run(scene)


def test_image_built_for_another_cell_is_not_used():
    async def scene(s: Session) -> None:
        raise AssertionError("it shook hands")

    other = link_settings(load_cell("sim_ac")[0])
    with pytest.raises(ProtocolError, match="configuration hash"):
        run(scene, other)


def test_segments_move_the_axes_and_the_gate_by_the_plan():
    async def scene(s: Session) -> None:
        await s.play(100)
        await s.until(lambda: s.link.finished)
        await s.until(lambda: bool(s.times(EventCode.GATE, 0)))
        places = await s.board.places()
        assert places[:3] == [4000, 2000, 0]
        assert places[6:8] == [0, 0]
        assert s.link.status.segment == 99
        assert s.link.stats.underruns == 0
        assert s.link.stats.frames_lost == 0

    s = run(scene)
    on, off = s.times(EventCode.GATE, 1), s.times(EventCode.GATE, 0)
    assert len(on) == len(off) == 1
    assert off[0] - on[0] == 1_000_000  # 100 segments of 10 ms, to the us of the device
    assert s.board.edges[-2:] == [(1, on[0]), (0, off[0])]


def test_beats_lost_shut_the_gate_100_ms_after_the_last_one():
    async def scene(s: Session) -> None:
        await s.play(600)
        s.may_lose_beats = True
        s.link.stop_beating()
        beats: list[int] = []
        while s.link.status.fault == 0:
            beats.append(s.link.status.device_us - s.link.status.beat_age_us)
            await asyncio.sleep(0.002)
        await s.until(lambda: s.link.status.state == LinkState.FAULT)
        assert s.link.status.fault == FaultCode.BEAT_LOST
        await s.board.places()
        s.last_beat = beats[-1]

    s = run(scene)
    gate, at = s.board.edges[-1]
    assert gate == 0
    # the emulator runs the firmware each ms; the firmware acts at the exact instant
    assert at == s.last_beat + 100_000
    assert s.times(EventCode.FAULT, FaultCode.BEAT_LOST) == [at]


def test_interlock_input_shuts_the_gate_and_latches():
    async def scene(s: Session) -> None:
        await s.play(600)
        s.board.set_input(0, False)
        await s.until(lambda: s.link.status.fault == FaultCode.INTERLOCK)
        await s.until(lambda: s.link.status.queued == 0)  # it has come to rest
        with pytest.raises(DeviceError, match=r"RESET refused: .*interlock"):
            await s.link.reset()
        s.board.set_input(0, True)
        await s.board.places()
        await s.link.reset()
        await s.until(lambda: s.link.status.state == LinkState.IDLE)
        assert not s.link.status.armed

    s = run(scene)
    assert s.board.edges[-1][0] == 0
    assert s.times(EventCode.FAULT, FaultCode.INTERLOCK)[0] == s.board.edges[-1][1]


def test_hold_now_stops_on_the_path_and_the_rest_is_played_after_it():
    async def scene(s: Session) -> None:
        await s.play(200)
        s.link.hold(now=True)
        await s.until(lambda: s.link.status.state == LinkState.HELD)
        places = await s.board.places()
        assert places[0] == s.link.status.position_steps[0]
        assert abs(places[0] - 2 * places[1]) <= 1  # on the line it was on
        assert places[7] == 0
        s.link.unhold()
        await s.until(lambda: s.link.finished)
        assert (await s.board.places())[:2] == [8000, 4000]

    s = run(scene)
    hold = s.times(EventCode.HOLD, 1)
    assert s.times(EventCode.GATE, 0)[0] == hold[0]
    assert [gate for gate, _ in s.board.edges[-4:]] == [1, 0, 1, 0]

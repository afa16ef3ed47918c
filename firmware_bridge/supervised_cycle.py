"""The words of a supervised control to and fro: connection, heartbeat, what they say.

``SupervisedLink`` adds the commands. One task writes and reads in turn, each cycle (20 ms) and at
once when something is urgent; whatever goes wrong in it ends the link.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from firmware_bridge.errors import BridgeError, DeviceError, ProtocolError, TransportError
from firmware_bridge.handshake import (
    VERSION,
    Command,
    ControlState,
    Handshake,
    ModbusWords,
    Told,
    WordServer,
)
from firmware_bridge.link_base import TOKEN_LIFE_US, LinkBase
from firmware_bridge.link_types import (
    LinkIdentity,
    LinkSettings,
    LinkStats,
)
from firmware_bridge.supervised_program import ProgramPlace
from firmware_bridge.supervised_status import StatusMaker
from firmware_bridge.transport import Port, SerialPort

TRIM_LIFE_US = 100_000
ANSWER_S = 1.0
EARLIEST_TIMEOUT_MS, LATEST_TIMEOUT_MS = 50, 150

_MOVING = (ControlState.RUNNING, ControlState.WAITING, ControlState.HOLDING)


class WordCycle(LinkBase):
    """A control at the end of a wire, as far as words go; parameters: ``SupervisedLink``."""

    def __init__(
        self,
        port: Port,
        settings: LinkSettings,
        *,
        map_name: str | Path = "handshake_generic",
        zero: Sequence[float] = (),
        rated_power_w: float = 0.0,
        words: WordServer | None = None,
    ) -> None:
        super().__init__(port, settings)
        self._hand = Handshake(map_name)
        rtu = self._hand.map.framing == "rtu" or (
            self._hand.map.framing == "port" and isinstance(port, SerialPort)
        )
        self._server: WordServer = words or ModbusWords(port, port.name, self._hand.blocks, rtu=rtu)
        scales = [a.steps_per_mm for a in settings.axes]
        missing = [0.0] * (len(scales) - len(zero))
        self._n_axes = len(scales)
        self.auto_release = True
        self.rated_power_w = rated_power_w
        self._track_power_w: list[float] = []
        self._maker = StatusMaker(self._hand.axes, scales, [*zero, *missing])
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._place = ProgramPlace()
        self._id = 0
        self._storing: asyncio.Task[None] | None = None
        self._forget()

    def _forget(self) -> None:
        """Everything that belongs to one connection."""
        self._bits = 0  # of the command word, as wanted
        self._edges = 0  # bits that must be seen low once before they rise
        self._count = 0
        self._cycles = 0
        self._token_us = -TOKEN_LIFE_US
        self._trim_us = -1
        self._beating = False
        self._their_beat = -1
        self._their_us = 0
        self._clock_ms = -1
        self._layer = 0
        self._went = False  # the control has run since start()
        self._tracks = 0

    # --- connection -------------------------------------------------------------------

    async def connect(self) -> LinkIdentity:
        """Open the wire, compare versions, axes and time-outs, begin the cycle.

        Raises TransportError (nobody answers) or ProtocolError (does not fit the cell).
        """
        self.close()
        self._forget()
        self._hand.now.clear()
        self.stats = LinkStats()
        self.status, self.failure, self.refusal = None, "", ""
        self._loop = asyncio.get_running_loop()
        try:
            await self._server.open()
            await self._read()
            self._check_identity()
        except DeviceError as exc:
            self.close()
            raise TransportError(f"{self._port}: no handshake words: {exc}") from None
        except BaseException:
            self.close()
            raise
        self._beating = True
        self._their_us = self._now_us()
        self._task = self._loop.create_task(self._cycle(), name="supervised link")
        self._task.add_done_callback(look_at)
        assert self.identity is not None
        return self.identity

    def _check_identity(self) -> None:
        now = self._hand.now
        if now["their_version"] != VERSION:
            raise ProtocolError(
                f"{self._port}: the control speaks handshake version {now['their_version']}, "
                f"this side {VERSION}"
            )
        if now["n_axes"] != self._n_axes:
            raise ProtocolError(
                f"{self._port}: the control tells of {now['n_axes']} axes, the cell has "
                f"{self._n_axes}"
            )
        most_ms = min(LATEST_TIMEOUT_MS, round(self._settings.heartbeat_timeout_s * 1e3))
        if not EARLIEST_TIMEOUT_MS <= now["timeout_ms"] <= most_ms:
            raise ProtocolError(
                f"{self._port}: the control withdraws emission {now['timeout_ms']} ms after the "
                f"last heartbeat, {EARLIEST_TIMEOUT_MS} to {most_ms} ms are wanted "
                "(motion.heartbeat_timeout)"
            )
        self.identity = LinkIdentity(
            protocol=now["their_version"],
            firmware=f"handshake {now['their_version']}",
            boot_nonce=0,
            config_hash=0,
            queue_size=0,
            n_axes=now["n_axes"],
        )

    def close(self) -> None:
        """End the cycle; the control withdraws emission by itself."""
        self._beating = False
        for task in (self._task, self._storing):
            if task is not None and task is not _current():
                task.cancel()
        self._task = self._storing = None
        self._server.close()

    def stop_beating(self) -> None:
        """No heartbeat any more, and the permit withdrawn with the next words, now."""
        self._beating = False
        self._urge()

    # --- the cycle --------------------------------------------------------------------

    async def _cycle(self) -> None:
        assert self._loop is not None
        loop, period_us = self._loop, round(self._hand.cycle_s * 1e6)
        try:
            while True:
                wake = self._wake = loop.create_future()
                begin_us = self._now_us()
                due_us = (begin_us // period_us + 1) * period_us
                timer = loop.call_at(due_us * 1e-6, _awake, wake)
                try:
                    await self._write()
                    await self._read()
                    self.stats.rtt_us = self._now_us() - begin_us
                    self.stats.rtt_max_us = max(self.stats.rtt_max_us, self.stats.rtt_us)
                    self._look()
                    await wake
                finally:
                    timer.cancel()
        except BridgeError as exc:
            if self._task is not None:  # else closed by ourselves
                self._fail(str(exc))
        except Exception as exc:  # whatever it is, the heartbeat must not live on half
            self._fail(f"{self._port}: {type(exc).__name__}: {exc}")

    def _urge(self) -> None:
        """The next exchange begins at once and not at the next cycle."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _write(self) -> None:
        hand, now_us = self._hand, self._now_us()
        if self._beating and now_us - self._token_us < TOKEN_LIFE_US:
            self._count = self._count + 1 & 0xFFFF
            self.stats.beats += 1
        else:
            self._bits &= ~(Command.PERMIT | Command.GO)
        if self._trim_us >= 0 and now_us - self._trim_us > TRIM_LIFE_US:
            self._trim_us = -1
            hand.put("power_share", 1.0)
        edges = self._edges
        hand.beat(self._count, self._bits & ~edges)
        self.stats.frames_sent += 1
        await self._server.write_words(hand.unit, hand.address, hand.words)
        self._edges &= ~edges  # they were seen low: high in the next cycle
        self._cycles += 1
        if edges:
            self._urge()

    async def _read(self) -> None:
        for k, block in enumerate(self._hand.blocks):
            self._hand.take(k, await self._server.read_words(block))
        self.stats.frames_received += 1

    def _raise(self, bits: int) -> None:
        """Let bits rise: seen low once, then high."""
        self._edges |= bits
        self._bits |= bits
        self._urge()

    def _drop(self, bits: int) -> None:
        self._bits &= ~bits
        self._edges &= ~bits
        self._urge()

    # --- what they say ----------------------------------------------------------------

    def _look(self) -> None:
        """Their words of this cycle become the status."""
        now, now_us = self._hand.now, self._now_us()
        beat = now["their_heartbeat"]
        if beat == self._their_beat:
            if now_us - self._their_us > self._hand.silence_s * 1e6:
                self._fail(
                    f"{self._port}: the control's heartbeat has not changed for "
                    f"{(now_us - self._their_us) / 1e3:.0f} ms"
                )
            return
        self._their_beat, self._their_us = beat, now_us
        clock_ms = now["clock_ms"]
        if clock_ms < self._clock_ms:
            self._fail(f"{self._port}: the control was restarted")
            return
        dt_us = (clock_ms - self._clock_ms) * 1000 if self._clock_ms >= 0 else 0
        self._clock_ms = clock_ms
        state = ControlState(now["state"])
        ours = now["their_program_id"] == self._id and self._id != 0
        place = self._place
        scale = now["their_override"] if state == ControlState.RUNNING else 0.0
        if state in _MOVING and self._bits & Command.GO:
            self._went = True
        if self._went and ours:
            place.follow(now["line"], dt_us * scale, finished=state == ControlState.FINISHED)
        if self._went and now["layer_reached"] > self._layer:
            self._layer = now["layer_reached"]
        if self.auto_release and self._went:
            self._hand.put("layer_release", self._layer)
        self._hand.put("power_w", self._power_w(place.track))
        before = self.status
        new = self.status = self._maker.status(
            now, place, scale, self.rated_power_w, self._behind(), now_us
        )
        if self.on_status is not None:
            self.on_status(new)
        for event in self._maker.events(before, new, place.track):
            if self.on_event is not None:
                self.on_event(event)

    def _behind(self) -> int:
        """Age of the heartbeat that they have, us, by whole cycles."""
        lag = (self._count - self._hand.now["heartbeat_echo"] & 0xFFFF) - 1
        return max(0, lag) * round(self._hand.cycle_s * 1e6)

    def _power_w(self, track: int) -> float:
        """Power of the track that is laid or approached; the first one's before it."""
        powers = self._track_power_w
        return powers[min(max(track, 0), len(powers) - 1)] if powers else self.rated_power_w

    # --- for commands -----------------------------------------------------------------

    async def _until(self, test: Callable[[], bool], limit_s: float = ANSWER_S) -> bool:
        """Look at each cycle's words; False when ``limit_s`` passed first."""
        assert self._loop is not None
        end_s = self._loop.time() + limit_s
        cycles = self._cycles
        while True:
            if self.failure or self._task is None:
                raise TransportError(self.failure or f"{self._port}: the link was closed")
            # words that were read before the command reached them prove nothing
            if self._cycles >= cycles + 2 and test():
                return True
            if self._loop.time() >= end_s:
                return False
            await asyncio.sleep(self._hand.cycle_s / 2)

    def _is(self, *states: ControlState) -> bool:
        return self._hand.now.get("state") in states

    def _told(self, bit: Told) -> bool:
        return bool(self._hand.now.get("status_bits", 0) & bit)


def _awake(wake: "asyncio.Future[None]") -> None:
    if not wake.done():
        wake.set_result(None)


def look_at(task: "asyncio.Task[None]") -> None:
    """A failure that nobody waits for is no news: ``failure`` and ``arm`` tell it."""
    if not task.cancelled():
        task.exception()


def _current() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None

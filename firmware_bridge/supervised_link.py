"""The supervised link: the machine keeps its own control, which runs an exported program.

Each cycle (20 ms) our words are written in one piece and theirs read (docs/handshake.md). The
control may emit only while our heartbeat word changes, and it changes only while the
supervisor's token is younger than 60 ms; so whatever dies on this side, the permit is gone.
Their position and program line give the place in the plan: as near as the line and the time
since it began tell, not to the step.

One object in an asyncio loop; it knows the loop's time only.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from firmware_bridge.errors import BridgeError, DeviceError, ProtocolError, TransportError
from firmware_bridge.handshake import (
    VERSION,
    Command,
    ControlState,
    Handshake,
    ModbusWords,
    Told,
    WordServer,
    store_program,
)
from firmware_bridge.link_types import (
    LinkEvent,
    LinkIdentity,
    LinkSettings,
    LinkStats,
    MotionStatus,
)
from firmware_bridge.segments import ticks_of
from firmware_bridge.supervised_program import ProgramPlace, program_id
from firmware_bridge.supervised_status import LACKS, SUPERVISED, StatusMaker
from firmware_bridge.transport import Port, SerialPort

TOKEN_LIFE_US = 60_000
TRIM_LIFE_US = 100_000
ANSWER_S = 1.0
STORE_S = 120.0
EARLIEST_TIMEOUT_MS, LATEST_TIMEOUT_MS = 50, 150

_MOVING = (ControlState.RUNNING, ControlState.WAITING, ControlState.HOLDING)


class SupervisedLink:
    """A CNC, PLC or robot at the end of a wire, which runs a program of ours.

    ``status``, ``failure``, ``refusal`` and the callbacks are those of ``MotionLink``.
    ``layer_reached``: layers whose beginning the program has come to; ``waits_at_layer``: it
    stands there. With ``auto_release`` each layer is released as soon as it is reached; else
    ``release_layer`` does.

    Parameters
    ----------
    map_name : handshake map, name in ``configs/maps`` or path
    zero : (n,) program coordinates of each axis at step 0, mm or degrees; default 0
    rated_power_w : full scale of ``status.power_fraction``, and the power word without
        powers of tracks; may be set later
    words : carrier of the words; default Modbus on the port
    Raises MapError.
    """

    abilities = SUPERVISED
    lacks = LACKS

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
        self._port = port
        self._settings = settings
        self._hand = Handshake(map_name)
        rtu = self._hand.map.framing == "rtu" or (
            self._hand.map.framing == "port" and isinstance(port, SerialPort)
        )
        self._server: WordServer = words or ModbusWords(port, port.name, self._hand.blocks, rtu=rtu)
        scales = [a.steps_per_mm for a in settings.axes]
        missing = [0.0] * (len(scales) - len(zero))
        self._n_axes = len(scales)
        self.identity: LinkIdentity | None = None
        self.status: MotionStatus | None = None
        self.stats = LinkStats()
        self.failure = ""
        self.refusal = ""
        self.on_event: Callable[[LinkEvent], None] | None = None
        self.on_lost: Callable[[str], None] | None = None
        self.on_status: Callable[[bytes, int], None] | None = None  # not used: no frames here
        self.auto_release = True
        self.rated_power_w = rated_power_w
        self._track_power_w: list[float] = []
        self._maker = StatusMaker(self._hand.axes, scales, [*zero, *missing])
        self._loop: asyncio.AbstractEventLoop | None = None
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
        self._task.add_done_callback(_look_at)
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

    def _fail(self, reason: str) -> None:
        if self.failure:
            return
        self.failure = reason
        self.close()
        if self.on_lost is not None:
            self.on_lost(reason)

    def _now_us(self) -> int:
        assert self._loop is not None
        return round(self._loop.time() * 1e6)

    def token(self) -> None:
        """The supervisor is alive; the heartbeat counts for 60 ms more."""
        self._token_us = self._now_us()

    def stop_beating(self) -> None:
        """No heartbeat any more: the control withdraws emission at its time-out."""
        self._beating = False

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

    # --- commands ---------------------------------------------------------------------

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

    async def home(self, timeout_s: float = 180.0) -> None:
        """Ask the control to reference its axes. Raises DeviceError when it does not."""
        self._raise(Command.REFERENCE)
        await self._until(lambda: self._is(ControlState.REFERENCING), 0.2)
        done = await self._until(
            lambda: not self._is(ControlState.REFERENCING) and self._told(Told.REFERENCED),
            timeout_s,
        )
        self._drop(Command.REFERENCE)
        if not done or self._is(ControlState.FAULT):
            raise DeviceError(f"{self._port}: the control's axes are not referenced")

    async def arm(self) -> None:
        """Permit emission. Raises DeviceError with the reason when it is not accepted."""
        await self._stored()
        now = self._hand.now
        if not self._id:
            raise DeviceError(f"{self._port}: no program was given to the link")
        if now["their_program_id"] != self._id:
            raise DeviceError(
                f"{self._port}: the control has program {now['their_program_id']:08x} loaded, the "
                f"job's is {self._id:08x}: load it there"
            )
        if not self._told(Told.AUTOMATIC):
            raise DeviceError(f"{self._port}: the control is not in automatic mode")
        self._drop(Command.HOLD | Command.HOLD_NOW | Command.ABORT | Command.RESET)
        self._bits |= Command.POWDER_READY | Command.GAS_READY
        self._raise(Command.PERMIT)
        if not await self._until(lambda: self._told(Told.PERMITTED)):
            self._drop(Command.PERMIT)
            raise DeviceError(
                f"{self._port}: the control does not accept the permit (state "
                f"{ControlState(now['state']).name}, alarm {now['alarm']})"
            )

    async def disarm(self) -> None:
        """Withdraw the permit; a program that runs is held. Raises DeviceError."""
        self._drop(Command.PERMIT | Command.GO | Command.POWDER_READY | Command.GAS_READY)
        if not await self._until(lambda: not self._told(Told.PERMITTED)):
            raise DeviceError(f"{self._port}: the control keeps the permit")

    async def reset(self) -> None:
        """Reset edge; clears a latched fault of the control, never permits or starts."""
        self._drop(Command.PERMIT | Command.GO | Command.HOLD | Command.HOLD_NOW | Command.ABORT)
        self._beating = True
        self._raise(Command.RESET)
        cleared = await self._until(lambda: not self._is(ControlState.FAULT))
        self._drop(Command.RESET)
        if not cleared:
            raise DeviceError(
                f"{self._port}: the control keeps its fault (alarm {self._hand.now['alarm']})"
            )

    def hold(self, *, now: bool) -> None:
        """Stop: at once with the permit withdrawn first, or at the bead's end."""
        if now:
            self._bits |= Command.HOLD_NOW
            self._drop(Command.PERMIT)
        else:
            self._bits |= Command.HOLD
            self._urge()

    def unhold(self) -> None:
        """Go on along the program where it was held; needs the permit again after a hold now."""
        self._drop(Command.HOLD | Command.HOLD_NOW)
        self._raise(Command.GO)

    def abort(self) -> None:
        """Permit withdrawn, the control's fault latched."""
        self._bits |= Command.ABORT
        self._drop(Command.PERMIT | Command.GO)

    def override(self, scale: float) -> None:
        """Feed override wanted; ``status.scale`` is what the control makes of it."""
        self._hand.put("override", scale)
        self._urge()

    def trim(self, factor: float) -> None:
        """Power factor; forgotten after 100 ms."""
        self._trim_us = self._now_us()
        self._hand.put("power_share", factor)

    def release_layer(self, layer: int) -> None:
        """Layers up to this one (from 1) may begin; for ``auto_release`` False."""
        self._hand.put("layer_release", layer)
        self._urge()

    def ready(self, *, powder: bool, gas: bool) -> None:
        """Whether powder and gas flow; a layer begins only with both."""
        for on, bit in ((powder, Command.POWDER_READY), (gas, Command.GAS_READY)):
            self._bits = self._bits | bit if on else self._bits & ~bit

    @property
    def layer_reached(self) -> int:
        """Layers whose beginning the program has come to."""
        return self._layer

    @property
    def waits_at_layer(self) -> bool:
        """The program stands before a layer that is not released."""
        return self._is(ControlState.WAITING)

    @property
    def in_bead(self) -> bool:
        """The program is where it wants the gate open: held here, a bead is broken off."""
        return self._told(Told.GATE_REQUESTED)

    # --- the program ------------------------------------------------------------------

    def load_program(
        self,
        program: Any,
        segments: np.ndarray,
        track_power_w: Sequence[float] = (),
        first: int = 0,
    ) -> None:
        """The program that the control shall run, whole; handed over where it has a store.

        Parameters
        ----------
        program : ``text`` (ASCII), ``segment_of_line`` and ``track_of_line`` (one each a line)
        segments : (n,) SEGMENT of the plan, or rest, that it stands for
        track_power_w : of each track, for the power word; none: rated power
        first : what the build calls the first of these segments
        """
        data = program.text.encode("ascii")
        self._id = program_id(data)
        ends_us = np.concatenate([[0], np.cumsum(ticks_of(segments))])
        self._place = ProgramPlace(program.segment_of_line, program.track_of_line, ends_us, first)
        self._track_power_w = [float(p) for p in track_power_w]
        self._went = False
        self._hand.put("program_id", self._id)
        self.refusal = ""
        if self._storing is not None:
            self._storing.cancel()
        self._storing = None
        if self._hand.store is not None and self._loop is not None:
            self._storing = self._loop.create_task(self._store(data), name="program store")
            self._storing.add_done_callback(_look_at)

    async def _store(self, data: bytes) -> None:
        """Hand the program over; the control knows it by its id then."""
        assert self._hand.store is not None
        await store_program(self._server, *self._hand.store, data)
        await self._until(lambda: self._hand.now["their_program_id"] == self._id)

    async def _stored(self) -> None:
        """Wait for a program on its way. Raises DeviceError."""
        if self._storing is not None:
            task, self._storing = self._storing, None
            try:
                await asyncio.wait_for(task, STORE_S)
            except TimeoutError:
                raise DeviceError(
                    f"{self._port}: the program was not stored in {STORE_S:g} s"
                ) from None

    def start(self, first: int = 0) -> None:
        """Run the loaded program from its first line, which stands for segment ``first``."""
        if first != self._place.first:
            raise ProtocolError(
                f"the program begins at segment {self._place.first}, not at {first}"
            )
        self._place.rewind()
        self._went = False
        self._layer = 0
        self._tracks = 0
        self.refusal = ""
        if self.auto_release:
            self._hand.put("layer_release", 0)
        self._hand.put("power_w", self._power_w(0))
        self._raise(Command.GO)

    @property
    def finished(self) -> bool:
        """The program ran to its end."""
        return self._went and self._is(ControlState.FINISHED) and self._place.at_end


def _awake(wake: "asyncio.Future[None]") -> None:
    if not wake.done():
        wake.set_result(None)


def _look_at(task: "asyncio.Task[None]") -> None:
    """A failure that nobody waits for is no news: ``failure`` and ``arm`` tell it."""
    if not task.cancelled():
        task.exception()


def _current() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None

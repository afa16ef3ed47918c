"""The supervised link: the machine keeps its own control, which runs an exported program.

Each cycle (20 ms) our words are written in one piece and theirs read (docs/handshake.md). The
control may emit only while our heartbeat word changes, and it changes only while the
supervisor's token is younger than 60 ms; so whatever dies on this side, the permit is gone.
Their position and program line give the place in the plan: as near as the line and the time
since it began tell, not to the step.

One object in an asyncio loop; it knows the loop's time only.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from firmware_bridge.errors import DeviceError, ProtocolError
from firmware_bridge.handshake import (
    Command,
    ControlState,
    Told,
    store_program,
)
from firmware_bridge.segments import ticks_of
from firmware_bridge.supervised_cycle import WordCycle, look_at
from firmware_bridge.supervised_program import ProgramPlace, program_id
from firmware_bridge.supervised_status import LACKS, SUPERVISED, WHY_NOT

STORE_S = 120.0
READ_S = 10.0  # that a control may take to read what was stored


class SupervisedLink(WordCycle):
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
    why_not = WHY_NOT

    # --- commands ---------------------------------------------------------------------

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
            self._storing.add_done_callback(look_at)

    async def _store(self, data: bytes) -> None:
        """Hand the program over; the control knows it by its id then."""
        assert self._hand.store is not None
        await store_program(self._server, *self._hand.store, data)
        await self._until(lambda: self._hand.now["their_program_id"] == self._id, READ_S)

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

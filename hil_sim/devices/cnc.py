"""A CNC that keeps its own control and runs a program: the simulated supervised cell.

Takes the firmware's place behind the motion wire: it speaks Modbus TCP with the words of
docs/handshake.md at the places of ``handshake_generic``, reads the program from its store
(unit 2, function 21), moves by its own look-ahead and writes what it truly did into the trace.
The rows' "segment" is the program's line, counted from ``LINE_BASE``: this control knows no
segments of anybody's plan.
"""

from __future__ import annotations

import zlib
from struct import Struct, unpack_from

import numpy as np

from hil_sim.cellfile import CellFile, CellFileError
from hil_sim.devices.cnc_program import (
    DWELL,
    END,
    LAYER,
    MOVE,
    Item,
    Loader,
    Machine,
    ProgramError,
    straight,
)  # fmt: skip
from hil_sim.devices.cnc_words import (
    ABORT,
    AUTOMATIC,
    BUSY,
    GAS_READY,
    GATE_ON,
    GATE_REQUESTED,
    GO,
    HOLD_BEAD,
    HOLD_NOW,
    INTERLOCK_OK,
    O_PROGRAM,
    PENDING,
    PERMIT,
    PERMITTED,
    POWDER_READY,
    REFERENCE,
    REFERENCED,
    RESET,
    STORE_END,
    Words,
)  # fmt: skip
from hil_sim.devices.modbus import ModbusError
from hil_sim.firmware import ARMED, FAULT, GATE, HOLD, ROW, SAMPLE, SEGMENT_END, STATE, TRACK_START

STEP_US, UNEVEN_STEP_US = 5_000, 1_000  # of motion: while the feed changes, finer
CYCLE_US = 4_000  # of the control: its heartbeat counts by it
LINES_A_CYCLE = 50  # read of a program that is being loaded
GRID_US = 5_000
HOMING_MM_S = 20.0
LINE_BASE = 1 << 28
POWER_FULL = 65535
LEAST_SCALE = 1e-3
LEAST_REACH_S = 1e-3  # no change of the feed is more sudden
LEAST_OVERRIDE, GREATEST_OVERRIDE = 0.1, 1.2

NOT_READY, READY, RUNNING, HOLDING, HELD, WAITING, FINISHED, FAULTED, REFERENCING = range(9)
NO_ALARM, BEAT_LOST, INTERLOCK_OPEN, LONG_EMISSION, HOST_ABORT, BAD_PROGRAM = 0, 1, 2, 4, 6, 20
# states as the trace tells them, those of docs/protocol.md
TRACE_STATE = {
    NOT_READY: 0, READY: 0, RUNNING: 2, HOLDING: 3, HELD: 4, WAITING: 2, FINISHED: 0, FAULTED: 5,
    REFERENCING: 1,
}  # fmt: skip

_ROW = Struct("<QIiII6i")
_SAMPLE = Struct("<Q6iHBBHHII")
_THEIRS = Struct(">6HIHHIHHIf6f")


class Cnc:
    """The control on simulated time, in the shape of ``hil_sim.cell.Firmware``.

    Fault hook: ``frozen``, its program has stopped while its Modbus server goes on answering.
    """

    def __init__(self, cell: CellFile) -> None:
        if cell.rotary:
            raise CellFileError(f"{cell.path}: motion.rotary: the simulated CNC has none")
        self.now_us = 0
        self.frozen = False
        self.words = Words(self)
        axes = cell.axes
        self._n = len(axes)
        self._scale = [a.steps_per_mm for a in axes]
        self._least = tuple(a.least_mm for a in axes)
        self._machine = Machine(
            tuple(a.name for a in axes),
            tuple(a.speed_mm_s for a in axes),
            tuple(a.accel_mm_s2 * cell.plan_share for a in axes),
            cell.total_accel_mm_s2 * cell.plan_share,
        )
        self._share = cell.plan_share
        self._rated_w = cell.rated_power_w
        self._timeout_us = cell.heartbeat_timeout_us
        self._longest_us = cell.longest_emission_us
        self._at = tuple(a.least_mm + 5.0 for a in axes)
        self._rows = bytearray()
        self._samples = bytearray()
        self._sampled_us = -1
        self._replies: list[tuple[int, bytes]] = []
        self._out = b""
        # what the host said
        self._bits = 0
        self._beat, self._beat_us = -1, -(10**9)
        self._release = 0
        self._wanted = 0
        self._limit_w, self._override, self._power_share = 0.0, 1.0, 1.0
        # the program
        self._files: dict[int, bytearray] = {}
        self._loader: Loader | None = None
        self._loads = False
        self._program_id = 0
        self._items: list[Item] = []
        self._k = 0
        self._item_s = 0.0
        self._layers = 0
        # the machine
        self.state = NOT_READY
        self._alarm = NO_ALARM
        self._referenced = False
        self._chain = False
        self._permitted = False
        self._gate = False
        self._gate_us = 0
        self._pending = False
        self._back = False  # gate kept shut until the feed is back
        self._s = 0.0  # time scale now
        self._frozen_beat = 0

    # --- the shape of a firmware -----------------------------------------------------------

    def rx(self, data: bytes) -> None:
        """Bytes of the host at the present instant."""
        self.words.receive(data)

    def tx(self) -> bytes:
        """Bytes that have left."""
        out, self._out = self._out, b""
        return out

    def rows(self) -> np.ndarray:
        """Trace rows since the last call."""
        taken, self._rows = self._rows, bytearray()
        return np.frombuffer(bytes(taken), ROW)

    def samples(self) -> np.ndarray:
        """States since the last call: each step of motion, each change of power."""
        if self._sampled_us != self.now_us:
            self._sample()
        taken, self._samples = self._samples, bytearray()
        return np.frombuffer(bytes(taken), SAMPLE)

    def set_input(self, number: int, value: bool) -> None:
        """Input 0: the hardware interlock."""
        if number == 0:
            self._chain = value
            if not value and self._permitted:
                self._fail(INTERLOCK_OPEN)

    def place(self, axis: int, steps: int) -> None:
        """True distance of an axis from its reference at power-up."""
        at = list(self._at)
        at[axis] = self._least[axis] + steps / self._scale[axis]
        self._at = tuple(at)

    def run(self, until_us: int) -> int:
        """Run to ``until_us`` or to the instant at which an answer leaves."""
        while True:
            if self._replies and self._replies[0][0] <= self.now_us:
                while self._replies and self._replies[0][0] <= self.now_us:
                    self._out += self._replies.pop(0)[1]
                return self.now_us
            if self.now_us >= until_us:
                return self.now_us
            target = until_us
            if self._replies:
                target = min(target, self._replies[0][0])
            if self._loads:
                target = min(target, self.now_us - self.now_us % CYCLE_US + CYCLE_US)
            moving = self._moves()
            if moving:
                step = STEP_US if self._even() else UNEVEN_STEP_US
                target = min(target, self.now_us - self.now_us % step + step)
            if self._permitted:
                target = min(target, max(self._beat_us + self._timeout_us, self.now_us + 1))
                if self._gate:
                    target = min(target, max(self._gate_us + self._longest_us, self.now_us + 1))
            if moving:
                self._advance(target)
            self.now_us = target
            if self._loads and target % CYCLE_US == 0:
                self._load_on()
            self._watch()
            if moving:
                self._sample()

    # --- words ---------------------------------------------------------------------------------

    def reply(self, data: bytes) -> None:
        """An answer leaves on the grid that all devices share, at least 1 ms from now."""
        self._replies.append((-(-(self.now_us + 1000) // GRID_US) * GRID_US, data))

    def told(self, data: bytearray) -> None:
        """The host has written its words."""
        if self.frozen:
            return
        version, beat, bits, release = unpack_from(">4H", data, 0)
        if version != 1:
            bits = 0
        if beat != self._beat:
            self._beat, self._beat_us = beat, self.now_us
        self._release = release
        self._wanted, self._limit_w, override, share = unpack_from(">IfHH", data, 2 * O_PROGRAM)
        self._override = min(override * 1e-3, GREATEST_OVERRIDE)
        self._power_share = share * 1e-3
        rise, self._bits = bits & ~self._bits, bits
        self._obey(bits, rise)

    def tell(self, data: bytearray) -> None:
        """The control's words as they are now."""
        if not self.frozen:
            self._frozen_beat = self.now_us // CYCLE_US & 0xFFFF
        item = self._items[self._k] if self._items else None
        running = self.state in (RUNNING, HOLDING, HELD, WAITING)
        bits = (
            AUTOMATIC * bool(self._program_id)
            | REFERENCED * self._referenced
            | INTERLOCK_OK * self._chain
            | PERMITTED * self._permitted
            | GATE_REQUESTED * bool(item is not None and running and item.gate)
            | GATE_ON * self._gate
            | PENDING * self._pending
        )
        place = (*self._at, *((0.0,) * (6 - self._n)))
        _THEIRS.pack_into(
            data, 0, 1, self._frozen_beat, self._beat & 0xFFFF, self.state, bits, self._alarm,
            item.line if item is not None else 0, self._layers, self._timeout_us // 1000,
            self._program_id, round(self._s * 1e3), self._n, self.now_us // 1000,
            self._power_w(), *place,
        )  # fmt: skip

    def stored(self, file: int, record: int, data: bytes) -> None:
        """A piece of a program; file 65535 holds its length in bytes and ends it."""
        if self.state in (RUNNING, HOLDING, WAITING, REFERENCING):
            raise ModbusError(BUSY)
        if file != STORE_END:
            held = self._files.setdefault(file, bytearray())
            end = 2 * record + len(data)
            if len(held) < end:
                held.extend(bytes(end - len(held)))
            held[2 * record : end] = data
            return
        whole = b"".join(bytes(self._files[n]) for n in sorted(self._files))
        length = int.from_bytes(data, "big")
        self._files = {}
        self._load(whole[:length])

    def _load(self, text: bytes) -> None:
        self._items, self._k, self._loader = [], 0, None
        self._program_id = 0
        if self.state != FAULTED:
            self._go(NOT_READY)
        try:
            self._loader = Loader(text, self._machine, self._at)
        except ProgramError:
            self._alarm = BAD_PROGRAM
        else:
            self._loads = True

    def _load_on(self) -> None:
        """Some lines more of the program that is being loaded."""
        assert self._loader is not None
        try:
            if not self._loader.step(LINES_A_CYCLE):
                return
        except ProgramError:
            self._alarm = BAD_PROGRAM
            self._loader = None
        else:
            self._program_id = zlib.crc32(self._loader.data) or 1
        self._loads = False
        if self.state != FAULTED:
            if self._program_id:
                self._alarm = NO_ALARM
            self._rest()

    # --- commands --------------------------------------------------------------------------

    def _obey(self, bits: int, rise: int) -> None:
        if bits & ABORT and self.state != FAULTED:
            self._fail(HOST_ABORT)
        if not bits & PERMIT and self._permitted:
            self._permit(False)
            self._hold()
        elif rise & PERMIT and self.state != FAULTED and self._referenced and self._chain:
            self._permit(True)
        if not bits & GO or bits & HOLD_NOW or self._override < LEAST_OVERRIDE:
            self._hold()
        elif bits & HOLD_BEAD and self.state in (RUNNING, WAITING) and not self._pending:
            self._row(HOLD, 2)
            if self._items[self._k].gate and self.state == RUNNING:
                self._pending = True
            else:
                self._hold()
        if rise & RESET and not bits & (PERMIT | ABORT):
            self._reset()
        if rise & REFERENCE and self.state in (NOT_READY, READY, HELD, FINISHED):
            zero = self._least
            self._items, self._k = straight(self._at, zero, HOMING_MM_S, self._machine), 0
            self._item_s, self._s = 0.0, 1.0
            self._go(REFERENCING)
        if rise & GO and not bits & (HOLD_BEAD | HOLD_NOW | ABORT) and bits & PERMIT:
            self._start()
        if self.state == WAITING:
            self._released()

    def _start(self) -> None:
        if not self._program_id or self._program_id != self._wanted:
            return
        if self.state == HELD:
            if self._items[self._k].kind == LAYER:  # held in front of it
                self._go(WAITING)
                return
            self._back = self._items[self._k].gate  # broken off in a bead
            self._go(RUNNING)
        elif self.state in (READY, FINISHED):
            assert self._loader is not None
            if self._loader.start != self._at:  # it begins from elsewhere than it was loaded for
                self._loader = Loader(self._loader.data, self._machine, self._at)
                while not self._loader.step(LINES_A_CYCLE):
                    pass
            self._items = self._loader.items
            self._k, self._item_s, self._layers = 0, 0.0, 0
            self._s, self._back = self._override, False
            self._go(RUNNING)
            self._begin(self.now_us)

    def _reset(self) -> None:
        if self.state == FAULTED and (self._alarm != INTERLOCK_OPEN or self._chain):
            if self._s > 0.0 and self._moves():
                return
            self._row(8, self._alarm)
            self._alarm = NO_ALARM
            self._rest()
        elif self.state == HELD:
            self._rest()

    def _rest(self) -> None:
        """Ready for a program from its beginning, where one is loaded."""
        self._items, self._k, self._s, self._pending = [], 0, 0.0, False
        self._go(READY if self._program_id and self._referenced else NOT_READY)

    def _hold(self) -> None:
        self._pending = False
        if self.state == RUNNING:
            self._row(HOLD, 1)
            self._go(HOLDING)
            if self._s <= LEAST_SCALE:
                self._stand()
        elif self.state == WAITING:
            self._go(HELD)

    def _stand(self) -> None:
        self._s = 0.0
        if self.state == HOLDING:
            self._go(HELD)

    def _fail(self, alarm: int) -> None:
        self._alarm = alarm
        self._pending = False
        self._row(FAULT, alarm)
        self._permit(False)
        self._go(FAULTED)

    def _permit(self, on: bool) -> None:
        if on != self._permitted:
            self._permitted = on
            self._row(ARMED, int(on))
        self._switch(self.now_us)

    def _go(self, state: int) -> None:
        if state != self.state:
            before = TRACE_STATE[self.state]
            self.state = state
            if TRACE_STATE[state] != before:
                self._row(STATE, TRACE_STATE[state])
        self._switch(self.now_us)

    def _watch(self) -> None:
        """Guards that need no word of the host."""
        if self._permitted and self.now_us - self._beat_us >= self._timeout_us:
            self._fail(BEAT_LOST)
        elif self._gate and self.now_us - self._gate_us >= self._longest_us:
            self._fail(LONG_EMISSION)

    # --- motion ----------------------------------------------------------------------------

    def _moves(self) -> bool:
        if self.state in (RUNNING, HOLDING, REFERENCING):
            return True
        return self.state == FAULTED and self._s > 0.0

    def _even(self) -> bool:
        """The time scale stays as it is: steps may be long."""
        if self.state == RUNNING:
            return self._s == self._override and not self._back
        return self.state == REFERENCING

    def _released(self) -> None:
        """A layer that is waited for may begin."""
        ready = POWDER_READY | GAS_READY
        if (
            self._items[self._k].layer < self._release
            and self._bits & ready == ready
            and self._bits & GO
            and not self._bits & (HOLD_BEAD | HOLD_NOW)
            and self._permitted
        ):
            self._s = self._override
            self._go(RUNNING)
            self._next(self.now_us)

    def _advance(self, target_us: int) -> None:
        """Along the program from now to ``target_us``, time scaled."""
        at_us = float(self.now_us)
        goal = 1.0 if self.state == REFERENCING else self._override
        if self.state in (HOLDING, FAULTED):
            goal = 0.0
        s = self._s
        item = self._items[self._k]
        reach_s = item.speed(self._item_s) * self._share / max(item.accel, 1.0)
        rate = max(1.0 - self._share * s * s, 1.0 / 64) / max(reach_s, LEAST_REACH_S)
        step = rate * (target_us - at_us) * 1e-6
        after = min(goal, s + step) if goal > s else max(goal, s - step)
        if self._back and after >= goal:
            self._back = False
        self._s = after
        self._switch(self.now_us)
        mean = 0.5 * (s + after)
        left_s = mean * (target_us - at_us) * 1e-6
        while left_s > 0.0 and self.state in (RUNNING, HOLDING, REFERENCING, FAULTED):
            item = self._items[self._k]
            rest_s = item.duration_s - self._item_s
            if left_s < rest_s:
                self._item_s += left_s
                break
            left_s -= max(rest_s, 0.0)
            at_us = target_us - left_s / mean * 1e6
            self._at = item.end
            if not self._next(round(at_us)):
                break
        if self._k < len(self._items) and self._items[self._k].kind == MOVE:
            self._at = self._items[self._k].place(self._item_s)
        if self._s <= LEAST_SCALE and goal == 0.0:
            self._stand()

    def _next(self, t_us: int) -> bool:
        """The item is done; the next begins. False where nothing moves on."""
        item = self._items[self._k]
        if item.kind == MOVE and self.state != REFERENCING:
            self._row(SEGMENT_END, 0, t_us)
        before = self._power_w()
        self._k += 1
        self._item_s = 0.0
        goes_on = self._begin(t_us)
        if self._power_w() != before:
            self._sample(t_us)
        return goes_on

    def _begin(self, t_us: int) -> bool:
        item = self._items[self._k]
        if self._pending and not item.gate:
            self._pending = False
            if self.state == RUNNING:
                self._go_at(HOLDING, t_us)
        if item.kind == END:
            return self._ended(t_us)
        if item.kind == LAYER:
            self._layers = max(self._layers, item.layer + 1)
            if self.state == RUNNING:
                self._go_at(WAITING, t_us)
                self._released()
            elif self.state == HOLDING:  # held in front of it
                self._stand()
            return self.state == RUNNING
        self._switch(t_us)
        return True

    def _ended(self, t_us: int) -> bool:
        self._k = len(self._items) - 1
        self._s = 0.0
        if self.state == REFERENCING:
            self._referenced = True
            self._row(12, 0, t_us)
            self._items, self._k = [], 0
            self._rest()
        elif self.state in (RUNNING, HOLDING):
            self._go_at(FINISHED, t_us)
        return False

    def _go_at(self, state: int, t_us: int) -> None:
        now_us, self.now_us = self.now_us, t_us
        self._go(state)
        self.now_us = now_us

    # --- outputs ---------------------------------------------------------------------------

    def _switch(self, t_us: int) -> None:
        """The gate output follows everything that it depends on."""
        on = (
            self.state == RUNNING
            and self._permitted
            and self._chain
            and not self._back
            and bool(self._items)
            and self._items[self._k].gate
            and self._items[self._k].kind in (MOVE, DWELL)
        )
        if on != self._gate:
            self._gate, self._gate_us = on, t_us
            self._row(GATE, int(on), t_us)
            if on:
                self._row(TRACK_START, 0, t_us)

    def _power_w(self) -> float:
        """The analog output: the program's, limited by the host's word, times its factor."""
        if not self._permitted or self.state != RUNNING or not self._items:
            return 0.0
        asked = min(self._items[self._k].power_w, self._limit_w) * self._power_share
        return min(max(asked, 0.0), self._rated_w)

    def _steps(self) -> list[int]:
        places = zip(self._at, self._least, self._scale, strict=True)
        return [round((p - least) * scale) for p, least, scale in places] + [0] * (6 - self._n)

    def _line(self) -> int:
        return LINE_BASE + (self._items[self._k].line if self._items else 0)

    def _code(self) -> int:
        return round(self._power_w() / self._rated_w * POWER_FULL)

    def _row(self, kind: int, arg: int, t_us: int | None = None) -> None:
        at = self.now_us if t_us is None else t_us
        self._rows += _ROW.pack(at, kind, arg, self._line(), self._code(), *self._steps())

    def _sample(self, t_us: int | None = None) -> None:
        at = self._sampled_us = self.now_us if t_us is None else t_us
        age = min(max(self.now_us - self._beat_us, 0), 0xFFFFFFFF)
        self._samples += _SAMPLE.pack(
            at, *self._steps(), self._code(), self._gate, self._permitted,
            TRACE_STATE[self.state], self._alarm, self._line(), age,
        )  # fmt: skip

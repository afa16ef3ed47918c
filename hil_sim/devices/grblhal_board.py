"""The board of an emulated grblHAL controller: its time, real-time bytes, states and outputs.

What lines do is in grblhal.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hil_sim.devices.grblhal_output import FAULT, HOLD, STATE, Output
from hil_sim.devices.grblhal_parser import Parser
from hil_sim.devices.grblhal_planner import Planner
from hil_sim.devices.grblhal_report import Reports, banner, settings_of

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile

IDLE, HOMING, RUN, HOLDING, HELD, ALARM, JOG = range(7)  # as our firmware numbers them
TX_GRID_US = 5000  # answers leave on it: USB and main loop, as the other emulators
OVERRIDES = {0x90: None, 0x91: 10, 0x92: -10, 0x93: 1, 0x94: -1}
REALTIME = frozenset({0x05, 0x18, 0x19, 0x21, 0x3F, 0x7E}) | frozenset(range(0x80, 0xA5))
Wait = Callable[[], bool]


class Board:
    """One controller on simulated time; the same methods as hil_sim/firmware.py.

    ``probe_steps``: Z at which the probe touches, None: never. ``limit_engaged``: names of axes
    whose limit switch a fault closes.
    """

    def __init__(self, cell: CellFile, blocks: int = 100, rx_bytes: int = 1024) -> None:
        self.cell = cell
        self.settings = settings_of(cell)
        self.rx_size = rx_bytes
        self.now_us = 0
        self.out = Output()
        self.parser = Parser()
        axes = cell.axes
        self.steps_per_mm = (axes[0].steps_per_mm, axes[1].steps_per_mm, axes[2].steps_per_mm)
        self.planner = Planner(
            self.steps_per_mm,
            (axes[0].speed_mm_s, axes[1].speed_mm_s, axes[2].speed_mm_s),
            (axes[0].accel_mm_s2, axes[1].accel_mm_s2, axes[2].accel_mm_s2),
            float(self.settings[11]),
            blocks,
        )
        self.reports = Reports(self)
        self.probe_steps: int | None = None
        self.limit_engaged: set[str] = set()
        self.watchdog_us = cell.heartbeat_timeout_us if cell.gate_watchdog else 0
        self.watchdog_ok = not self.watchdog_us
        self.door_open = False
        self._chain_closed = True
        self.true_steps = [0, 0, 0]  # where the axes are
        self.lost_steps = [0, 0, 0]  # truth less what the controller believes
        self.homed = False
        self.state = ALARM
        self.alarm = 11
        self.critical = False
        self.door = -1  # -1: no door state; 0 closed, 1 ajar, 2 on its way down, 4 coming back
        self.spindle_on = False
        self.held_dark = False
        self.feed_override = 100
        self.last_byte_us = 0
        self.overrun = 0  # bytes dropped
        self.speed_mm_s = 0.0
        self._rx = bytearray()
        self._tx: list[str] = []
        self._tx_due_us = -1
        self._piece_end_us = -1
        self._running = False
        self._job: Iterator[Wait] | None = None
        self._wait: Wait | None = None
        self._wake_us = -1
        self._jogging = False
        self._probing = False
        self._probed: tuple[int, int, int] | None = None
        self._pending_alarm = 0
        self._last_error = 0  # G-code is refused with it until a $ line, an empty one or a reset
        self._say(banner())
        self._say("[MSG:Homing cycle required]")

    # --- the simulator's side ---------------------------------------------------------------

    def rx(self, data: bytes) -> None:
        """Bytes that arrive at the present time."""
        self.last_byte_us = self.now_us
        if not self.watchdog_ok:
            self.watchdog_ok = True
            self._door_input()
        plain = self._rx
        for byte in data:
            if byte in REALTIME:
                self._realtime(byte)
            elif byte >= 0x80:
                continue
            elif len(plain) < self.rx_size - 1:
                plain.append(byte)
            else:
                self.overrun += 1
        self._work()

    def run(self, until_us: int) -> int:
        """Run to ``until_us``, or to the instant that sends bytes; the time reached."""
        while True:
            if self._tx and 0 <= self._tx_due_us <= self.now_us:
                return self.now_us
            t = until_us
            for due in (self._piece_end_us, self._wake_us, self._tx_due_us if self._tx else -1):
                if self.now_us <= due < t:
                    t = due
            if self.watchdog_us and self.watchdog_ok:
                t = min(t, max(self.now_us, self.last_byte_us + self.watchdog_us))
            t = self.out.room(self.now_us, t)
            if t > self.now_us:
                self._advance(t)
            if self.out.full or (t >= until_us and not self._due(t)):
                return self.now_us
            self._events()

    def _due(self, t: int) -> bool:
        return (
            (0 <= self._piece_end_us <= t)
            or (0 <= self._wake_us <= t)
            or (bool(self.watchdog_us) and self.watchdog_ok
                and t >= self.last_byte_us + self.watchdog_us)
        )  # fmt: skip

    def tx(self) -> bytes:
        """What has been sent since the last call."""
        if not self._tx or self._tx_due_us > self.now_us:
            return b""
        data = "".join(self._tx).encode("ascii")
        self._tx.clear()
        self._tx_due_us = -1
        return data

    def rows(self) -> np.ndarray:
        """Trace rows since the last call."""
        return self.out.take_rows()

    def samples(self) -> np.ndarray:
        """States at whole ms since the last call."""
        return self.out.take_samples()

    def set_input(self, number: int, value: bool) -> None:
        """Input 0, the chain's contact, is wired to the door input."""
        if number == 0:
            self._chain_closed = bool(value)
            self._door_input()

    def place(self, axis: int, steps: int) -> None:
        """True distance of an axis from its home, steps."""
        if axis < 3:
            self.lost_steps[axis] += steps - self.true_steps[axis]
            self.true_steps[axis] = steps

    # --- time -------------------------------------------------------------------------------

    def _advance(self, t_us: int) -> None:
        """Samples and position up to ``t_us``; no event lies between."""
        pieces = self.planner.pieces
        if self._running and pieces:
            piece = pieces[0]
            start_us = self._piece_end_us - piece.duration_us
            self.out.move(self, self.now_us, t_us, piece, start_us)
            share = (t_us - start_us) / piece.duration_us
            for k in range(3):
                a, b = piece.start_steps[k], piece.end_steps[k]
                self.true_steps[k] = round(a + (b - a) * share) + self.lost_steps[k]
        else:
            self.out.stand(self, self.now_us, t_us)
        self.now_us = t_us

    def _events(self) -> None:
        now = self.now_us
        if 0 <= self._piece_end_us <= now:
            self._piece_done()
        if 0 <= self._wake_us <= now:
            self._wake_us = -1
            self._work()
        if self.watchdog_us and self.watchdog_ok and now >= self.last_byte_us + self.watchdog_us:
            self.watchdog_ok = False
            self._door_input()
            self._outputs()

    def _piece_done(self) -> None:
        planner = self.planner
        piece = planner.pieces.popleft()
        for k in range(3):
            self.true_steps[k] = round(piece.end_steps[k]) + self.lost_steps[k]
        if self._probing and self._probed is None and self._touches():
            self._probed = self.believed()
            planner.holding = True
        if self.limit_engaged and int(self.settings[21]) & 1 and self.state != HOMING:
            self._raise_alarm(1)
            return
        planner.prepare()
        if planner.pieces:
            self._begin_piece(self._piece_end_us)
        else:
            self._cycle_done()
        if self._job is not None or self._rx:
            self._work()

    def _begin_piece(self, at_us: int) -> None:
        piece = self.planner.pieces[0]
        self._piece_end_us = at_us + piece.duration_us
        self.speed_mm_s = self.planner.pieces[-1].speed  # what is told runs ahead of the steps
        self._outputs()

    def _cycle_start(self) -> None:
        if self._running or self.state not in (IDLE, JOG, HOMING):
            return
        self.planner.prepare()
        if not self.planner.pieces:
            return
        self._running = True
        if self.state != HOMING:
            self._set_state(JOG if self._jogging else RUN)
        self._begin_piece(self.now_us)
        if self.door_open and self.state == RUN:
            self._door_opened()

    def _cycle_done(self) -> None:
        """No step is left: the end of all blocks, or of a hold."""
        self._running = False
        self._piece_end_us = -1
        self.speed_mm_s = 0.0
        held = self.planner.holding
        if held:
            self.planner.stopped()
        if self._pending_alarm:
            number, self._pending_alarm = self._pending_alarm, 0
            self._raise_alarm(number)
        elif self._probing or (held and self.state == JOG):
            self._flush()
            if self.state == JOG:
                self._jogging = False
                self._set_state(IDLE)
            elif self.state != HOMING:
                self._set_state(IDLE)
        elif self.door >= 0:
            self.spindle_on = False
            self.door = 1 if self.door_open else 0
            self._set_state(HELD)
        elif held and self.state == HOLDING:
            self.held_dark = bool(int(self.settings[63]) & 1)
            self._set_state(HELD)
        elif self.state in (RUN, JOG):
            self._jogging = False
            self._set_state(IDLE)
        self._outputs()

    def _flush(self) -> None:
        """Drop what is planned; the parser goes on from where the axes are."""
        at = self.believed()
        self.planner.clear(at)
        self.parser.position_mm = self._mm(at)

    # --- real-time bytes ----------------------------------------------------------------------

    def _realtime(self, byte: int) -> None:
        if byte in (0x3F, 0x80, 0x05):
            self._say(self.reports.status(whole=False))
        elif byte == 0x87:
            self._say(self.reports.status(whole=True))
        elif byte in (0x21, 0x82):
            self._hold()
        elif byte in (0x7E, 0x81):
            self._resume()
        elif byte == 0x18:
            self._reset()
        elif byte == 0x84:
            if self.door < 0 and self.state in (IDLE, RUN, HOLDING, HELD, JOG):
                self._door_opened()
        elif byte == 0x85:
            if self.state == JOG:
                self._rx.clear()
                self.planner.holding = True
        elif byte in OVERRIDES:
            step = OVERRIDES[byte]
            new = 100 if step is None else min(200, max(10, self.feed_override + step))
            if new != self.feed_override:
                self.feed_override = new
                self.planner.feed_override = new / 100.0
                self.planner.replan()
                self.reports.override_now()
        elif byte == 0x9E and self.state == HELD and self.spindle_on:
            self.held_dark = not self.held_dark
            self._outputs()

    def _hold(self) -> None:
        if self.state == RUN:
            self.planner.holding = True
            self._set_state(HOLDING)
        elif self.state == IDLE:
            self._set_state(HELD)

    def _resume(self) -> None:
        if self.state != HELD:
            return
        if self.door >= 0:
            if self.door_open:
                return
            self.spindle_on = self.parser.modal.spindle != 5
        self.door = -1
        self.held_dark = False
        self.state = IDLE
        self._cycle_start()
        if self.state == IDLE:
            self._set_state(IDLE, force=True)

    def _door_input(self) -> None:
        is_open = not (self._chain_closed and self.watchdog_ok)
        if is_open == self.door_open:
            return
        self.door_open = is_open
        if is_open and self.state in (RUN, HOLDING, JOG, HOMING):
            self._door_opened()
        elif self.door in (0, 1):
            self.door = 1 if is_open else 0

    def _door_opened(self) -> None:
        self._say("[MSG:Check Door]")
        if self.state == HOMING:
            self._raise_alarm(7)
            return
        if self._running:
            self.planner.holding = True
            self.door = 2
            self._set_state(HOLDING)
        else:
            self.spindle_on = False
            self.door = 1 if self.door_open else 0
            self._set_state(HELD)
            self._outputs()

    def _reset(self) -> None:
        moving = self._running
        homing = self.state == HOMING
        self._stop_dead()
        self.critical = False
        self.door = -1
        self._rx.clear()
        self._say(banner())
        if moving:
            self._alarm(6 if homing else 3)
            self._say("[MSG:'$H'|'$X' to unlock]")
        elif not self.homed and int(self.settings[22]) & 4:
            self.alarm = 11
            self._set_state(ALARM)
            self._say("[MSG:Homing cycle required]")
        elif self.state == ALARM and self.alarm != 11:
            self._say("[MSG:'$H'|'$X' to unlock]")
        else:
            self._set_state(IDLE)

    def _stop_dead(self) -> None:
        """Steps end at once; nothing planned, spindle off, modal words as at power-up."""
        self._running = False
        self._piece_end_us = self._wake_us = -1
        self._job = self._wait = None
        self._jogging = self._probing = self.held_dark = False
        self._pending_alarm = 0
        self.spindle_on = False
        self._last_error = 0
        self.speed_mm_s = 0.0
        self.feed_override = 100
        self.planner.feed_override = 1.0
        self.parser.reset()
        self._flush()
        self._outputs()

    def _raise_alarm(self, number: int) -> None:
        """An alarm by itself; hard and soft limits want a reset before anything else."""
        self._stop_dead()
        self.critical = number in (1, 2, 10)
        self.door = -1
        self._rx.clear()
        self._alarm(number)
        if 6 <= number <= 9:
            self._say(banner())  # a homing cycle that fails ends in a reset
        if self.critical:
            self._say("[MSG:Reset to continue]")

    def _alarm(self, number: int) -> None:
        self.alarm = number
        if number in (1, 3, 6, 7, 8, 9):
            self.homed = False
        self._say(f"ALARM:{number}")
        self.out.row(self, FAULT, number)
        self._set_state(ALARM)

    def _set_state(self, state: int, *, force: bool = False) -> None:
        if state == self.state and not force:
            return
        if state != ALARM:
            self.alarm = 0
        if state == HOLDING:
            self.out.row(self, HOLD, 1)
        self.state = state
        self.out.row(self, STATE, state)

    def _outputs(self) -> None:
        """Enable and PWM as they are from now on."""
        power = 0.0
        if self.spindle_on and not self.held_dark and self.state != ALARM:
            pieces = self.planner.pieces
            if self._running and pieces:
                power = pieces[0].power
            elif self.parser.modal.spindle == 3 and self.parser.modal.motion in (1, 2, 3):
                power = self.parser.modal.s_value  # M3: constant power, standing as well
        power = min(1.0, power / float(self.settings[30]))
        enabled = self.spindle_on and (power > 0.0 or not int(self.settings[9]) & 2)
        self.out.set(self, enabled and self.watchdog_ok, power)

    def _touches(self) -> bool:
        return self.probe_steps is not None and self.true_steps[2] <= self.probe_steps

    def _work(self) -> None:
        """Go on with the lines in the receive buffer."""
        raise NotImplementedError

    # --- places -----------------------------------------------------------------------------

    def believed(self) -> tuple[int, int, int]:
        """Steps as the controller counts them."""
        t, lost = self.true_steps, self.lost_steps
        return t[0] - lost[0], t[1] - lost[1], t[2] - lost[2]

    def _mm(self, steps: tuple[int, int, int]) -> tuple[float, float, float]:
        k = self.steps_per_mm
        return steps[0] / k[0], steps[1] / k[1], steps[2] / k[2]

    def _steps(self, mm: tuple[float, float, float]) -> tuple[int, int, int]:
        k = self.steps_per_mm
        return round(mm[0] * k[0]), round(mm[1] * k[1]), round(mm[2] * k[2])

    @property
    def rx_free(self) -> int:
        """Bytes that fit into the receive buffer."""
        return self.rx_size - 1 - len(self._rx)

    def _say(self, text: str) -> None:
        self._tx.append(text + "\r\n")
        if self._tx_due_us < 0:
            self._tx_due_us = -(-(self.now_us + 1000) // TX_GRID_US) * TX_GRID_US

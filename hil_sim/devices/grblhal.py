"""An emulated grblHAL controller in laser mode, in the place of our own firmware.

Written from grblHAL's documents (docs/reference/grblhal.md), never from the link. It speaks on
the motion channel and gives the plant what our firmware gives: rows for edges and states, and
position, power and gate at each whole millisecond. The enable output is the gate, the PWM output
the power.

Beside it stands an outside watchdog where the cell has one: a retriggerable relay on the host's
line. When no byte has come for the cell's heartbeat time-out it cuts the gate and opens the door
input, and it closes with the next byte.

Positions are steps from where homing leaves the axes; the home switches are ``$27`` beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hil_sim.devices.grblhal_output import FAULT, GATE, HOLD, STATE, Output
from hil_sim.devices.grblhal_parser import Action, GcodeError, Parser
from hil_sim.devices.grblhal_planner import Planner
from hil_sim.devices.grblhal_report import Reports, banner, build_info, settings_of

if TYPE_CHECKING:
    from hil_sim.cellfile import CellFile

IDLE, HOMING, RUN, HOLDING, HELD, ALARM, JOG = range(7)  # as our firmware numbers them
TX_GRID_US = 5000  # answers leave on it: USB and main loop, as the other emulators
ALARM_PAUSE_US = 100_000
OVERRIDES = {0x90: None, 0x91: 10, 0x92: -10, 0x93: 1, 0x94: -1}
REALTIME = frozenset({0x05, 0x18, 0x19, 0x21, 0x3F, 0x7E}) | frozenset(range(0x80, 0xA5))
LONGEST_LINE = 256
Wait = Callable[[], bool]


class GrblHal:
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

    # --- lines ------------------------------------------------------------------------------

    def _work(self) -> None:
        """Go on with the line under way, then take more, as far as nothing has to be waited for."""
        while not self.critical:
            if self._job is not None:
                if self._wait is not None and not self._wait():
                    break
                try:
                    self._wait = next(self._job)
                except StopIteration:
                    self._job = self._wait = None
                    self._say("ok")
                except GcodeError as exc:
                    self._job = self._wait = None
                    self._last_error = exc.number
                    if exc.number:
                        self._say(f"error:{exc.number}")
                continue
            line = self._line()
            if line is None:
                break
            self._wait = None
            self._job = self._execute(line)
        if self.state == IDLE and self.planner.blocks and not self._running:
            self._cycle_start()

    def _line(self) -> str | None:
        rx = self._rx
        for at, byte in enumerate(rx):
            if byte in (10, 13):
                line = bytes(rx[:at])
                del rx[: at + 1]
                return line.decode("ascii", "replace")
        return None

    def _execute(self, line: str) -> Iterator[Wait]:
        """One line; yields what has to be waited for. Raises GcodeError."""
        line = line.strip()
        if len(line) > LONGEST_LINE:
            raise GcodeError(11)
        if not line:
            self._last_error = 0
            return
        if line.startswith("$"):
            self._last_error = 0
            yield from self._system(line)
            return
        if self.state in (ALARM, JOG, HOMING):
            raise GcodeError(9)
        if self._last_error:
            raise GcodeError(self._last_error)
        for action in self.parser.parse(line):
            yield from self._act(action)

    def _act(self, action: Action) -> Iterator[Wait]:
        kind = action.kind
        if kind == "move":
            modal = self.parser.modal
            lit = self.spindle_on and not action.rapid
            for target in action.points_mm or [action.target_mm]:
                self._judge_limits(target)
                while self.planner.free <= 0:
                    self._cycle_start()
                    yield lambda: self.planner.free > 0
                self.planner.line(
                    self._steps(target), action.feed_mm_s,
                    modal.s_value if lit else 0.0, rapid=action.rapid,
                    dynamic=modal.spindle == 4, number=self.parser.line,
                )  # fmt: skip
            return
        if kind in ("spindle", "speed", "dwell", "pause", "end"):
            yield from self._synchronize()
        if kind == "spindle":
            self.spindle_on = action.value != 5.0
            self._outputs()
        elif kind == "speed":
            self._outputs()
        elif kind == "dwell":
            yield from self._pause(round(action.value * 1e6))
        elif kind == "pause":
            self._set_state(HELD)
            yield lambda: self.state != HELD
        elif kind == "end":
            self.spindle_on = False
            offset = self.parser.modal.offset
            self.parser.reset()
            self.parser.modal.offset = offset
            self._outputs()
            self._say("[MSG:Pgm End]")
        elif kind == "probe":
            yield from self._probe(action)

    def _synchronize(self) -> Iterator[Wait]:
        self._cycle_start()
        yield lambda: not self._running and not self.planner.blocks

    def _pause(self, us: int) -> Iterator[Wait]:
        end_us = self.now_us + us
        self._wake_us = end_us
        yield lambda: self.now_us >= end_us

    def _judge_limits(self, target: tuple[float, float, float]) -> None:
        if not int(self.settings[20]) or not self.homed:
            return
        for k, at in enumerate(target):
            most = float(self.settings[130 + k]) - float(self.settings[27])
            if not -1e-4 <= at <= most + 1e-4:
                if self._running:
                    self._pending_alarm = 2
                    self.planner.holding = True
                else:
                    self._raise_alarm(2)
                raise GcodeError(0)

    def _probe(self, action: Action) -> Iterator[Wait]:
        yield from self._synchronize()
        if self._touches():
            self._raise_alarm(4)
            raise GcodeError(0)
        self._judge_limits(action.target_mm)
        self.planner.line(self._steps(action.target_mm), action.feed_mm_s,
                          number=self.parser.line)  # fmt: skip
        self._probing, self._probed = True, None
        self._cycle_start()
        yield lambda: not self._running
        self._probing = False
        found = self._probed is not None
        at = self._mm(self._probed if self._probed is not None else self.believed())
        self._flush()
        if not found and not action.value:
            self._alarm(5)
        self._say(f"[PRB:{','.join(f'{v:.3f}' for v in at)}:{int(found)}]")

    def _touches(self) -> bool:
        return self.probe_steps is not None and self.true_steps[2] <= self.probe_steps

    def _system(self, line: str) -> Iterator[Wait]:
        """``$`` commands."""
        word = line.upper().replace(" ", "")
        idle = self.state == IDLE
        if word == "$H":
            if not (idle or self.state == ALARM):
                raise GcodeError(8)
            yield from self._home()
        elif word == "$X":
            if self.state == ALARM:
                self._set_state(IDLE)
                self._say("[MSG:Caution: Unlocked]")
        elif word.startswith("$J="):
            if not (idle or self.state == JOG):
                raise GcodeError(8)
            (action,) = self.parser.parse(line[3:], jog=True)
            if int(self.settings[20]) and self.homed:
                for k, at in enumerate(action.target_mm):
                    if not -1e-4 <= at <= float(self.settings[130 + k]):
                        self.parser.position_mm = self._mm(self.believed())
                        raise GcodeError(15)
            self.planner.line(self._steps(action.target_mm), action.feed_mm_s,
                              no_override=True)  # fmt: skip
            self._jogging = True
            self._cycle_start()
        elif word in ("$$", "$I", "$I+", "$#", "$G"):
            if word != "$G" and not (idle or self.state == ALARM):
                raise GcodeError(8)
            if word.startswith("$I"):
                lines = build_info(self)
            elif word == "$$":
                lines = [f"${n}={v}" for n, v in sorted(self.settings.items())]
            elif word == "$#":
                lines = self.reports.parameters()
            else:
                lines = [self.reports.modes()]
            for told in lines:
                self._say(told)
        else:
            number, equals, value = word[1:].partition("=")
            if not (equals and number.isdecimal() and int(number) in self.settings):
                raise GcodeError(3)
            if not (idle or self.state == ALARM):
                raise GcodeError(8)
            self.settings[int(number)] = value

    def _home(self) -> Iterator[Wait]:
        """Each axis to its switch, off it, to it slowly, off it; Z first."""
        self._set_state(HOMING)
        pull_off_mm = float(self.settings[27])
        seek, feed = float(self.settings[25]) / 60.0, float(self.settings[24]) / 60.0
        for axis in (2, 1, 0):
            pull_off = round(pull_off_mm * self.steps_per_mm[axis])
            for mm_s, to_switch in ((seek, True), (seek, False), (feed, True), (feed, False)):
                at = self.believed()
                goal = list(at)
                # the truth stops at the switch, whatever the controller believes
                want = -pull_off if to_switch else 0
                goal[axis] += want - self.true_steps[axis]
                self.planner.clear(at)
                self.planner.line((goal[0], goal[1], goal[2]), mm_s, rapid=False,
                                  no_override=True, flat_out=to_switch)  # fmt: skip
                self._cycle_start()
                yield lambda: not self._running
                yield from self._pause(int(self.settings[26]) * 1000)
        self.lost_steps = [0, 0, 0]
        self.homed = True
        self._flush()
        self._set_state(IDLE)

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


__all__ = ["ALARM", "GATE", "HELD", "HOLDING", "HOMING", "IDLE", "JOG", "RUN", "GrblHal"]

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

from collections.abc import Iterator

from hil_sim.devices.grblhal_board import ALARM, HELD, HOMING, IDLE, JOG, Board, Wait
from hil_sim.devices.grblhal_parser import Action, GcodeError
from hil_sim.devices.grblhal_report import build_info

LONGEST_LINE = 256


class GrblHal(Board):
    """One controller: takes lines, answers each, and does what they say."""

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
            self.parser.position_mm = action.target_mm  # the next one may follow while it moves
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

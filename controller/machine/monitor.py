"""What only a series of readings shows: where the build is, and derived signals.

``PlanCursor`` follows the plan by the executed segment; ``Monitor`` follows the gate, the
laser's power and the melt pool. Both cost a few microseconds per control tick.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from controller.model import BuildPlan, PowderChannel
from firmware_bridge.segments import ticks_of

POWER_WINDOW = 8  # status frames, 80 ms: more than the source's latency and one poll's way
POWER_SHORT = 0.10  # share of the command that measured power may lack


class PlanCursor:
    """Where in the plan the executed segment is. Moves forward only, except by ``seek``.

    A rest of a plan counts on: its segments from ``base``, its plan time from ``shift_us``, its
    tracks from ``first_track``.
    """

    def __init__(
        self, plan: BuildPlan, base: int = 0, shift_us: int = 0, first_track: int = 0
    ) -> None:
        ticks = ticks_of(plan.segments)
        self._base, self._shift_us, self._first_track = base, shift_us, first_track
        self.n_segments = base + len(ticks)
        self._start_us = shift_us + np.concatenate(([0], np.cumsum(ticks)))
        self.duration_us = int(self._start_us[-1])
        self._first_segment = plan.tracks["first_segment"].tolist()
        self._layer = plan.tracks["layer"].tolist()
        self._power_w = plan.tracks["power_set_w"].tolist()
        self.command_us: list[int] = []
        self.seek()
        self.retime(plan)

    def retime(self, plan: BuildPlan) -> None:
        """Take the plan's process timeline; what of it is due by now counts as sent."""
        timeline = plan.timeline
        command_us = self._shift_us + np.rint(timeline["t_s"] * 1e6).astype(np.int64)
        self.command_us = command_us.tolist()
        self.command_channel: list[int] = timeline["channel"].tolist()
        self.command_value: list[float] = timeline["value"].tolist()
        self._hopper_rows = [
            hopper_flow(plan, channel, self.duration_us, self._shift_us)
            for channel in (PowderChannel.HOPPER_1, PowderChannel.HOPPER_2)
        ]
        self._hopper_row = [0, 0]
        if self.segment >= 0:
            self.next_command = int(np.searchsorted(command_us, self.plan_us, side="right"))

    def seek(self) -> None:
        """Back to the beginning."""
        self.segment = -1
        self._track = self.track = -1
        self.layer = -1
        self.plan_us = self._shift_us
        self.power_set_w = 0.0
        self.next_command = 0
        self._hopper_row = [0, 0]

    def follow(self, segment: int, tick_us: int) -> bool:
        """Go on to where the motion controller is; True when a new layer has begun."""
        own = segment - self._base
        if own < 0 or segment >= self.n_segments:
            return False
        if segment != self.segment:
            self.segment = segment
            self._base_us = int(self._start_us[own])
        self.plan_us = self._base_us + tick_us
        track, first = self._track, self._first_segment
        while track + 1 < len(first) and first[track + 1] <= own:
            track += 1
        if track == self._track:
            return False
        self._track, self.track = track, track + self._first_track
        self.power_set_w = self._power_w[track]
        if self._layer[track] == self.layer:
            return False
        self.layer = self._layer[track]
        return True

    def needed_g(self) -> tuple[float, float]:
        """Powder that the rest of the plan takes out of each hopper."""
        rest = []
        for hopper, (start_us, flow, after_g) in enumerate(self._hopper_rows):
            row = self._hopper_row[hopper]
            while row + 1 < len(start_us) and start_us[row + 1] <= self.plan_us:
                row += 1
            self._hopper_row[hopper] = row
            end_us = start_us[row + 1] if row + 1 < len(start_us) else self.duration_us
            left_us = max(0, end_us - max(self.plan_us, start_us[row]))
            rest.append(after_g[row] + flow[row] * left_us / 60e6)
        return rest[0], rest[1]


def hopper_flow(
    plan: BuildPlan, channel: PowderChannel, duration_us: int, shift_us: int = 0
) -> tuple[list[int], list[float], list[float]]:
    """One hopper's flow as steps: start in us, g/min, and grams fed after the step's end."""
    rows = plan.timeline[plan.timeline["channel"] == int(channel)]
    told_us = shift_us + np.rint(rows["t_s"] * 1e6).astype(np.int64)
    start_us = [shift_us, *told_us.tolist()]
    flow = [0.0, *rows["value"].tolist()]
    ends = [*start_us[1:], max(duration_us, start_us[-1])]
    fed = [f * (b - a) / 60e6 for a, b, f in zip(start_us, ends, flow, strict=True)]
    after = np.concatenate((np.cumsum(fed[::-1])[::-1][1:], [0.0])).tolist()
    return start_us, flow, after


class Monitor:
    """Derived signals of the motion status, the laser and the pyrometer."""

    def __init__(
        self,
        rated_power_w: float,
        tip_of_steps: Callable[[Sequence[int]], tuple[float, float, float]],
    ) -> None:
        self._rated_w = rated_power_w
        self._tip_of_steps = tip_of_steps  # the melt pool in plan coordinates, mm
        self.commanded_w = 0.0
        self.position_mm = (math.nan, math.nan, math.nan)
        self.speed_mm_s = 0.0
        self.power_short: bool | None = None
        self.unseen_emission_s = 0.0
        self.gate_open_us = -1_000_000  # last time at which a status showed the gate open
        self._window: deque[float] = deque(maxlen=POWER_WINDOW)
        self._device_us = -1
        self._laser_us = -1
        self._pool_deg_c = math.nan
        self._tracks = -1

    def status(self, m: Any) -> None:
        """A new status of the motion controller."""
        x, y, z = self._tip_of_steps(m.position_steps)
        dt_us = m.device_us - self._device_us
        if self._device_us >= 0 and dt_us > 0:
            x0, y0, z0 = self.position_mm
            way = math.sqrt((x - x0) ** 2 + (y - y0) ** 2 + (z - z0) ** 2)
            self.speed_mm_s = way * 1e6 / dt_us
        self.position_mm = (x, y, z)
        if m.gate_on:
            self.commanded_w = m.power_fraction * self._rated_w
            self._window.append(self.commanded_w)
            self.gate_open_us = m.received_us
            if self._device_us >= 0 and 0 < dt_us < 1_000_000:
                self.unseen_emission_s += dt_us * 1e-6
        else:
            self.commanded_w = 0.0
            self._window.clear()
            if m.tracks_started != self._tracks:  # a track shorter than a status period
                self.gate_open_us = m.received_us
        self._tracks = m.tracks_started
        self._device_us = m.device_us

    def laser(self, reading: Any) -> None:
        """The laser's reading; judged once per new one, while the gate has been open."""
        if reading.at_us == self._laser_us:
            return
        self._laser_us = reading.at_us
        if len(self._window) < POWER_WINDOW:
            self.power_short = None
            return
        if not all(w == w for w in self._window):  # NaN: the machine does not tell its command
            self.power_short = None
            return
        # short of the least command of the window, or not short of the greatest; what lies
        # between on a ramp proves neither, and does not set back the time that was counted
        share = 1.0 - POWER_SHORT
        if reading.power_measured_w < share * min(self._window):
            self.power_short = True
        elif reading.power_measured_w >= share * max(self._window):
            self.power_short = False
        else:
            self.power_short = None

    def pyrometer(self, reading: Any) -> None:
        """The pyrometer's reading: a valid temperature ends the unseen emission.

        The same tenth of a degree again is no measurement: a melt pool is never so still.
        """
        temp = reading.temp_deg_c
        if reading.ok and temp == temp and temp != self._pool_deg_c:
            self._pool_deg_c = temp
            self.unseen_emission_s = 0.0

    def restart(self) -> None:
        """A new build begins."""
        self.unseen_emission_s = 0.0
        self.power_short = None
        self._window.clear()

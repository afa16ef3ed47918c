"""A grblHAL status report as the status of a motion link."""

from collections import deque

from firmware_bridge.grbl_program import GrblProgram
from firmware_bridge.grbl_protocol import Report
from firmware_bridge.link_types import (
    N_AXES,
    EventCode,
    FaultCode,
    LinkSettings,
    LinkState,
    MotionStatus,
)

PREPARED_US = 85_000  # that the told feed is ahead of the steps: pieces of 10 ms, 8 to 9 of them

_STATES = {
    "Idle": LinkState.IDLE,
    "Run": LinkState.RUN,
    "Hold": LinkState.HELD,
    "Jog": LinkState.JOG,
    "Home": LinkState.HOMING,
    "Door": LinkState.HELD,
    "Tool": LinkState.HELD,
    "Alarm": LinkState.FAULT,
    "Sleep": LinkState.FAULT,
    "Check": LinkState.FAULT,
}


class StatusMaker:
    """What of the status is remembered from report to report."""

    def __init__(self, settings: LinkSettings, full_scale_s: float) -> None:
        self._axes = settings.axes
        self._full_scale_s = full_scale_s
        self.home_mpos_mm: tuple[float, ...] = (0.0,) * len(settings.axes)
        self.homed = False
        self._feeds: deque[tuple[int, float]] = deque()  # us, mm/min as told

    def _feed_now(self, now_us: int, told_mm_min: float) -> float:
        """The feed of the steps that go out now, from what was told a while ago."""
        feeds = self._feeds
        feeds.append((now_us, told_mm_min))
        while len(feeds) > 1 and feeds[1][0] <= now_us - PREPARED_US:
            feeds.popleft()
        return feeds[0][1]

    def status(
        self,
        r: Report,
        now_us: int,
        program: GrblProgram | None,
        armed: bool,
        fault: FaultCode,
        alarm: int,
        running: bool,
        hold_pending: bool,
        queued: int,
    ) -> MotionStatus:
        """The status that a report means.

        ``running``: lines are under way, so an idle controller is one that dwells or waits.
        """
        state = _STATES.get(r.state, LinkState.FAULT)
        if state == LinkState.IDLE and running:
            state = LinkState.RUN
        elif (r.state == "Hold" and r.substate == 1) or (r.state == "Door" and r.substate >= 2):
            state = LinkState.HOLDING  # 1: still slowing down; door 2, 3: on its way in or out
        elif r.state == "Alarm" and alarm in (0, 11) and not fault:
            state = LinkState.IDLE  # it waits to be homed
        segment, tick_us, tracks, gate, power = -1, 0, 0, False, 0.0
        feed_now = self._feed_now(now_us, r.feed_mm_min)
        if program is not None:
            segment, tick_us = program.segment_now()
            at = program.at
            tracks = program.tracks[at] if program.tracks else 0
            s_value = program.s_value[at] if program.s_value else 0.0
            gate = r.state in ("Run", "Hold") and state != LinkState.HELD and s_value > 0.0
            if gate:
                feed = program.feed_mm_min[at]
                power = s_value * min(1.0, feed_now / feed if feed > 0.0 else 0.0)
        return MotionStatus(
            now_us,
            state,
            armed,
            gate,
            "D" not in r.pins and "E" not in r.pins and r.state != "Door",
            self.homed,
            fault,
            segment,
            tick_us,
            r.feed_percent / 100.0,
            min(1.0, power / self._full_scale_s),
            self._steps(r),
            queued,
            -1,  # it keeps no beat: nobody tells how old one is
            tracks,
            now_us,
            hold_pending,
        )

    def _steps(self, r: Report) -> tuple[int, ...]:
        """Steps from home, six of them."""
        steps = [
            round((mm - home) * axis.steps_per_mm)
            for mm, home, axis in zip(r.machine_mm, self.home_mpos_mm, self._axes, strict=False)
        ]
        return (*steps, *(0,) * (N_AXES - len(steps)))

    @staticmethod
    def changes(old: MotionStatus, new: MotionStatus) -> list[tuple[EventCode, int]]:
        """Events between two statuses, as an event log would have them."""
        found: list[tuple[EventCode, int]] = []
        if new.gate_on != old.gate_on:
            found.append((EventCode.GATE, int(new.gate_on)))
        if new.tracks_started > old.tracks_started:
            found.append((EventCode.TRACK_START, new.tracks_started))
        if new.state != old.state:
            found.append((EventCode.STATE, int(new.state)))
            if new.state == LinkState.HOLDING:
                found.append((EventCode.HOLD, 1))
            elif old.state in (LinkState.HELD, LinkState.HOLDING) and new.state == LinkState.RUN:
                found.append((EventCode.HOLD, 0))
        return found

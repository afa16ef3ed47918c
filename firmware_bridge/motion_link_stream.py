"""Streaming of segments: about a second queued, within the controller's credit and window."""

import struct
from collections.abc import Sequence

import numpy as np

from firmware_bridge.errors import ProtocolError
from firmware_bridge.framing import MAX_SEGMENTS, SEGMENT_BYTES, T
from firmware_bridge.link_types import LinkSettings, LinkState, MotionStatus
from firmware_bridge.motion_link_session import LinkSession
from firmware_bridge.segments import SEGMENT, ticks_of
from firmware_bridge.transport import Port

DEPTH_US = 1_000_000  # refill below this much queued time ...
REFILL_US = 1_250_000  # ... up to this
WINDOW = 8  # frames under way, if the device's window lets them
FRAME_BYTES = 12 + 4 + MAX_SEGMENTS * SEGMENT_BYTES


class StreamingLink(LinkSession):
    """A session that feeds the controller's queue from an array of segments."""

    def __init__(self, port: Port, settings: LinkSettings) -> None:
        super().__init__(port, settings)
        self._segments = memoryview(b"")
        self._ends_us = np.zeros(1, np.int64)  # planned time before segment i, (n+1,)
        self._n = 0
        self._stop_streaming()

    def _forget(self) -> None:
        super()._forget()
        self._credit = 0  # index that may not be sent yet

    def _stop_streaming(self) -> None:
        self._next = 0
        self._first = 0
        self._flush_seq: int | None = None
        self._flushed = False
        self._status_counts = False

    def load(self, segments: np.ndarray) -> None:
        """The job's segments, (n,) SEGMENT; not copied, so leave them alone."""
        if segments.dtype != SEGMENT or segments.ndim != 1:
            raise ProtocolError(f"segments are {segments.dtype}, wanted the 22 byte SEGMENT")
        segments = np.ascontiguousarray(segments)
        self._stop_streaming()
        self.refusal = ""  # of a plan that is gone
        self._n = len(segments)
        self._segments = memoryview(segments.view(np.uint8).data)
        self._ends_us = np.concatenate([[0], np.cumsum(ticks_of(segments))])

    def start(self, first: int = 0) -> None:
        """Empty the controller's queue and stream from segment ``first`` on."""
        if not 0 <= first <= self._n:
            raise ProtocolError(f"first segment {first} is not in 0..{self._n}")
        self._stop_streaming()
        self._first = self._next = first
        self.refusal = ""
        self._flush_seq = self._sequenced(T.FLUSH, struct.pack("<I", first) + self._go())

    @property
    def finished(self) -> bool:
        """All segments were streamed and executed."""
        status = self.status
        return (
            self._status_counts
            and self._next == self._n
            and status is not None
            and status.segment == self._n - 1
            and status.queued == 0
        )

    def _credited(self, next_index: int, free: int, acknowledged: Sequence[int]) -> None:
        if self._flush_seq is not None and self._flush_seq in acknowledged:
            self._flush_seq = None
            self._flushed = True
            self._status_counts = False  # what it says of segments is past
        self._credit = next_index + free
        self._pump()

    def _refused(self, kind: int, number: int) -> None:
        if number == self._flush_seq or kind == T.SEGMENTS:
            self._stop_streaming()

    def _room(self) -> bool:
        """A whole frame may be under way besides those that are; one always may."""
        return not self._unacked or (
            len(self._unacked) < WINDOW and self._unacked_bytes + FRAME_BYTES <= self._window
        )

    def _pump(self) -> None:
        """Keep about a second queued, within credit and window."""
        if not self._flushed or self._next >= self._n or not self._room():
            return
        played = self._first
        tick = 0
        status = self.status
        if self._status_counts and status is not None and self._first <= status.segment < self._n:
            played, tick = status.segment, status.segment_tick_us
        now_us = int(self._ends_us[played]) + tick
        if int(self._ends_us[self._next]) - now_us >= DEPTH_US:
            return
        goal_us = now_us + REFILL_US
        while self._next < self._n and self._room():
            count = min(MAX_SEGMENTS, self._n - self._next, self._credit - self._next)
            if count <= 0 or int(self._ends_us[self._next]) >= goal_us:
                return
            at = self._next * SEGMENT_BYTES
            data = self._segments[at : at + count * SEGMENT_BYTES]
            self._sequenced(T.SEGMENTS, struct.pack("<I", self._next) + data)
            self._next += count

    def _watch_queue(self, status: MotionStatus) -> None:
        """The least planned time that was queued while the job's end was not in sight."""
        playing = self._status_counts and status.state == LinkState.RUN
        if playing and self._next < self._n and self._first <= status.segment < self._n:
            left = int(self._ends_us[self._next]) - int(self._ends_us[status.segment])
            left -= status.segment_tick_us
            least = self.stats.queue_least_us
            self.stats.queue_least_us = left if least < 0 else min(least, left)

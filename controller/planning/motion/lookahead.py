"""Look-ahead for a path that arrives in pieces: what is returned can no longer change.

The rule of commitment. The backward pass (how fast may the path be at a corner, so that it
can still brake for all that follows) is run twice from the horizon, the end of what is known:
once from standstill, the slowest that anything later can ask for, and once from the highest
speed that the last move allows. Where both agree to the last bit nothing behind the horizon
can reach, since every step of the pass is monotone, rounding included. All before that corner
is final; the forward pass goes on from there. So a stream gives the very bits of the plan
made at once, however it was divided, and from every committed end the standstill pass is a
stop that lies within the path already known.

Memory is flat: only moves that something later may change are kept, one braking distance of
the path.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from controller._lookahead import WINDOW_MOVES, Stream
from controller.errors import PlanError
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.curve import Polyline


class Phases(NamedTuple):
    """A piece of a profile; row 0 of the kinks is where the piece before ended."""

    t_s: np.ndarray  # (m + 1,) float64
    s_mm: np.ndarray  # (m + 1,) float64
    v_mm_s: np.ndarray  # (m + 1,) float64
    a_mm_s2: np.ndarray  # (m,) float64
    move: np.ndarray  # (m,) int32: number of the move in the whole path
    points_mm: np.ndarray  # (k + 1, 3) float64: corners of the moves that became final
    corner_s_mm: np.ndarray  # (k + 1,) float64: path length there

    @property
    def size(self) -> int:
        """How many phases."""
        return len(self.a_mm_s2)

    @property
    def curve(self) -> Polyline:
        """The line under these phases."""
        return Polyline(self.points_mm, self.corner_s_mm)


def joined(pieces: list[Phases]) -> Phases:
    """One piece of several that follow each other.

    Their common kinks are taken from the later piece: a move too short for a phase (below
    1e-12 s) may end between the two.
    """
    if not pieces:
        raise ValueError("no pieces to join")
    last = len(pieces) - 1
    columns = [
        np.concatenate(
            [p[k] if k in (3, 4) or i == last else p[k][:-1] for i, p in enumerate(pieces)]
        )
        for k in range(len(Phases._fields))
    ]
    return Phases(*columns)


class LookAhead:
    """Streaming trapezoid planner, bit for bit ``laws.trapezoid`` of the whole path.

    Parameters
    ----------
    limits : MotionLimits
    start_mm : (3,) float64, mm       where the path begins
    start_mm_s : float                speed along the path there (0: from rest); a stream that
        starts from a motion under way cannot lower it: PlanError if it cannot be braked
    start_t_s, start_s_mm : float     instant and path length there
    first_move : int                  number of the first move

    ``add``, ``stream`` and ``finish`` raise PlanError for what they refuse; refused pieces
    leave the stream as it was.
    """

    def __init__(
        self,
        limits: MotionLimits,
        start_mm: np.ndarray,
        *,
        start_mm_s: float = 0.0,
        start_t_s: float = 0.0,
        start_s_mm: float = 0.0,
        first_move: int = 0,
    ) -> None:
        try:
            self._kernel = Stream(
                start_mm,
                limits.accel_mm_s2,
                limits.junction_deviation_mm,
                limits.axis_speed_mm_s,
                limits.axis_accel_mm_s2,
                start_mm_s,
                start_t_s,
                start_s_mm,
                first_move,
            )
        except ValueError as exc:
            raise PlanError(f"look-ahead cannot start: {exc}") from None
        self._start_mm_s = start_mm_s
        self._start_checked = start_mm_s == 0.0

    @property
    def pending_moves(self) -> int:
        """Moves that something later may still change."""
        return self._kernel.pending_moves

    @property
    def committed(self) -> tuple[float, float, float]:
        """Where the final part ends: t_s, s_mm, v_mm_s."""
        return self._kernel.committed

    @property
    def buffer_bytes(self) -> int:
        """Memory held, for measurements."""
        return self._kernel.buffer_bytes

    def stream(self, points_mm: np.ndarray, speed_mm_s: np.ndarray) -> Iterator[Phases]:
        """As ``add``, window by window: the first phases come before the rest is looked at.

        Windows with nothing final yield nothing. All moves are taken in only when the
        iterator is exhausted; a refused window leaves the ones before it in.
        """
        points = np.ascontiguousarray(points_mm, dtype=np.float64)
        speed = np.ascontiguousarray(speed_mm_s, dtype=np.float64)
        if points.ndim != 2 or points.shape != (len(speed), 3) or speed.ndim != 1:
            raise PlanError(
                f"points_mm has shape {points.shape}, needed ({len(speed)}, 3): the end of "
                "each move"
            )
        for at in range(0, len(speed), WINDOW_MOVES):
            end = at + WINDOW_MOVES
            try:
                piece = Phases(*self._kernel.take(points[at:end], speed[at:end]))
            except ValueError as exc:
                raise PlanError(f"the path cannot be planned: {exc}") from None
            if piece.size:
                self._check_start(piece)
                yield piece

    def add(self, points_mm: np.ndarray, speed_mm_s: np.ndarray) -> Phases:
        """Take moves in; the phases that no later move can change any more.

        Parameters
        ----------
        points_mm : (k, 3) float64, mm    end of each move; the first starts at the end before
        speed_mm_s : (k,) float64, mm/s   speed limit of each move
        """
        pieces = list(self.stream(points_mm, speed_mm_s))
        return joined(pieces) if pieces else Phases(*self._kernel.nothing())

    def finish(self, end_mm_s: float = 0.0) -> Phases:
        """The path ends here, at ``end_mm_s`` or less: all phases that are left."""
        try:
            piece = Phases(*self._kernel.finish(end_mm_s))
        except ValueError as exc:
            raise PlanError(f"the path cannot be finished: {exc}") from None
        if piece.size:
            self._check_start(piece)
        return piece

    def _check_start(self, piece: Phases) -> None:
        if not self._start_checked:
            got = float(piece.v_mm_s[0])
            if got < self._start_mm_s * (1.0 - 1e-9):
                raise PlanError(
                    f"start_mm_s {self._start_mm_s:g}: the path ahead can be braked for from "
                    f"{got:.6g} mm/s at most"
                )
            self._start_checked = True

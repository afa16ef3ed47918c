# distutils: extra_compile_args = -fno-math-errno -fno-trapping-math
"""Planner kernel, streaming: the trapezoid look-ahead for a path that is not yet known whole.

Imports nothing of ours but the time law's own kernel. ``Stream`` keeps only the moves that
something later may still change; what it returns is final, and is bit for bit what
``plan_trapezoid`` and ``trapezoid_phases`` make of the whole path at once.
"""

from libc.float cimport DBL_MAX
from libc.stdint cimport int32_t
from libc.string cimport memcpy, memmove, memset

from ._motion cimport (
    CARRY, WINDOW, Front, PhaseState, commit, due, geometry, phases,
)

import numpy as np

cdef enum:
    COLUMNS = 5  # rows of one buffer: length, accel, peak, v, duration

WINDOW_MOVES = WINDOW


cdef inline double least(double a, double b) noexcept nogil:
    return a if a < b else b


cdef class Stream:
    """Look-ahead over moves that come in pieces; see ``planning.lookahead`` for its use.

    Buffers hold the moves from corner ``front.done`` (or the start) to the horizon: row 0 is
    the first move that is not planned. Everything is in mm, s, mm/s, mm/s2.
    """

    cdef Front front
    cdef PhaseState phase
    cdef double carry[CARRY]
    cdef double axis_speed[3]
    cdef double axis_accel[3]
    cdef double accel, jd, start2
    cdef double[:, ::1] rows  # (COLUMNS, capacity + 1)
    cdef int32_t[::1] index  # (capacity,) number of each move in the whole path
    cdef double[:, ::1] xyz  # (capacity + 1, 3) corners; row head is the last point known
    cdef double[::1] speed  # (WINDOW,) limits of a piece that had moves of length zero
    cdef double[:, ::1] out  # (4, 3 capacity + 1) t, s, v, a of the phases at hand
    cdef int32_t[::1] out_move
    cdef double[::1] corner_s  # (capacity + 1,) path length at the corners of the moves at hand
    cdef Py_ssize_t capacity, taken
    cdef bint closed, started

    def __init__(
        self, start_mm, double accel_mm_s2, double junction_deviation_mm, axis_speed_mm_s,
        axis_accel_mm_s2, double start_mm_s=0.0, double start_t_s=0.0, double start_s_mm=0.0,
        Py_ssize_t first_move=0,
    ):
        at = np.ascontiguousarray(start_mm, dtype=np.float64)
        av = np.ascontiguousarray(axis_speed_mm_s, dtype=np.float64)
        aa = np.ascontiguousarray(axis_accel_mm_s2, dtype=np.float64)
        for name, row in (
            ("start_mm", at), ("axis_speed_mm_s", av), ("axis_accel_mm_s2", aa),
        ):
            if row.shape != (3,):
                raise ValueError(f"{name} has shape {row.shape}, needed (3,)")
            if not np.isfinite(row).all() or (name != "start_mm" and not row.min() > 0.0):
                raise ValueError(f"{name} {row.tolist()}: must be finite, limits above 0")
        for name, value in (
            ("accel_mm_s2", accel_mm_s2), ("junction_deviation_mm", junction_deviation_mm),
        ):
            if not 0.0 < value < np.inf:
                raise ValueError(f"{name} {value}: must be finite and above 0")
        if not (0.0 <= start_mm_s < np.inf and np.isfinite(start_t_s + start_s_mm)):
            raise ValueError(
                f"start state {start_mm_s} mm/s, {start_t_s} s, {start_s_mm} mm: must be finite, "
                "speed >= 0"
            )
        cdef int k
        for k in range(3):
            self.axis_speed[k], self.axis_accel[k] = av[k], aa[k]
        self.accel, self.jd = accel_mm_s2, junction_deviation_mm
        self.start2 = start_mm_s * start_mm_s
        self.front.head = self.front.seen = 0
        self.front.done = -1
        self.front.w = 0.0
        self.phase.t, self.phase.s, self.phase.v = start_t_s, start_s_mm, start_mm_s
        memset(self.carry, 0, sizeof(self.carry))
        self.taken = first_move
        self.closed = self.started = False
        self.speed = np.empty(WINDOW)
        self.capacity = 0
        self._grow(2 * WINDOW)
        for k in range(3):
            self.xyz[0, k] = at[k]

    @property
    def pending_moves(self):
        """Moves taken in that something later may still change."""
        return self.front.head

    @property
    def buffer_bytes(self):
        """Memory held, for measurements."""
        return (
            self.rows.nbytes + self.index.nbytes + self.xyz.nbytes + self.speed.nbytes
            + self.out.nbytes + self.out_move.nbytes + self.corner_s.nbytes
        )

    @property
    def committed(self):
        """Where the final part ends: t_s, s_mm, v_mm_s."""
        return self.phase.t, self.phase.s, self.phase.v

    def take(self, points_mm, speed_mm_s):
        """Take up to WINDOW_MOVES moves in; returns the phases that became final.

        points_mm (k, 3) are the ends of the moves, the first starts where the last one ended.
        Returns t_s, s_mm, v_mm_s (m + 1,), a_mm_s2 (m,), move (m,) int32, and the corners of
        the moves that became final, points (k + 1, 3) mm and s_mm (k + 1,): row 0 is where the
        part before ended. Raises ValueError and takes nothing in when a value is refused.
        """
        cdef const double[:, ::1] points = points_mm
        cdef const double[::1] speed = speed_mm_s
        cdef Py_ssize_t n = speed.shape[0], i, m, good, first
        cdef double carry[CARRY]
        if self.closed:
            raise ValueError("the path is finished, it takes no moves")
        if points.shape[0] != n or points.shape[1] != 3 or n > WINDOW:
            raise ValueError(
                f"points_mm has shape {np.shape(points_mm)}, needed ({n}, 3), at most {WINDOW}"
            )
        for i in range(n):
            if not (speed[i] > 0.0 and speed[i] <= DBL_MAX):
                raise ValueError(
                    f"speed_mm_s {speed[i]} at index {self.taken + i}: must be finite and above 0"
                )
        if n == 0:
            return self._phases()
        if self.front.head + n > self.capacity:
            self._grow(2 * (self.front.head + n))
        memcpy(carry, self.carry, sizeof(carry))
        first = self.front.head
        memcpy(&self.xyz[first + 1, 0], &points[0, 0], 24 * n)
        good = self._limits(&speed[0], n)
        for i in range(n):
            self.index[first + i] = <int32_t>(self.taken + i)
        m = n
        if good < n:
            for i in range(n):
                if not self.rows[0, first + i] <= DBL_MAX:
                    memcpy(self.carry, carry, sizeof(carry))
                    raise ValueError(
                        f"points_mm {np.asarray(points[i]).tolist()} at index "
                        f"{self.taken + i}: not a finite length"
                    )
            m = self._without_zero_moves(&speed[0], n)
            memcpy(self.carry, carry, sizeof(carry))
            self._limits(&self.speed[0], m)
        self.taken += n
        if first == 0 and self.front.done < 0 and m > 0:
            self.rows[3, 0] = least(self.start2, self.rows[2, 0])
        self.front.head += m
        if m > 0 and due(&self.front):
            return self._commit(0.0, self.rows[2, self.front.head - 1])
        return self._phases()

    def finish(self, double end_mm_s=0.0):
        """The end of the path: all phases that are left, down to ``end_mm_s``."""
        if self.closed:
            raise ValueError("the path is finished already")
        if not 0.0 <= end_mm_s < np.inf:
            raise ValueError(f"end speed {end_mm_s} mm/s: must be finite and >= 0")
        self.closed = True
        if self.front.head == 0:
            return self._phases()
        cdef double end2 = least(end_mm_s * end_mm_s, self.rows[2, self.front.head - 1])
        return self._commit(end2, end2)

    def nothing(self):
        """As ``take`` when nothing became final."""
        return self._phases()

    cdef void _grow(self, Py_ssize_t capacity) except *:
        """Room for ``capacity`` moves; a queue as long as a braking distance is needed at most."""
        rows, index = np.empty((COLUMNS, capacity + 1)), np.empty(capacity, dtype=np.int32)
        xyz = np.empty((capacity + 1, 3))
        if self.capacity > 0:
            xyz[: self.capacity + 1] = self.xyz
            rows[:, : self.capacity + 1] = self.rows
            index[: self.capacity] = self.index
        self.rows, self.index, self.xyz = rows, index, xyz
        self.corner_s = np.empty(capacity + 1)
        self.out = np.empty((4, 3 * capacity + 1))
        self.out_move = np.empty(3 * capacity, dtype=np.int32)
        self.capacity = capacity

    cdef Py_ssize_t _limits(self, const double* speed, Py_ssize_t n) noexcept:
        """Limits of n moves behind the moves there are."""
        cdef Py_ssize_t at = self.front.head
        if n == 0:
            return 0
        return geometry(
            &self.xyz[at, 0], speed, self.accel, self.jd, self.axis_speed,
            self.axis_accel, &self.rows[0, at], &self.rows[1, at], &self.rows[2, at],
            &self.rows[3, at], self.carry, n,
        )

    cdef Py_ssize_t _without_zero_moves(self, const double* speed, Py_ssize_t n) noexcept:
        """Close the gaps that moves of length zero leave in n new moves; how many are left."""
        cdef Py_ssize_t at = self.front.head, i, m = 0
        # invariant: m moves are kept of the first i
        for i in range(n):
            if self.rows[0, at + i] > 0.0:
                memmove(&self.xyz[at + m + 1, 0], &self.xyz[at + i + 1, 0], 24)
                self.speed[m] = speed[i]
                self.index[at + m] = self.index[at + i]
                m += 1
        return m

    cdef _commit(self, double end2, double cap2):
        commit(
            &self.rows[0, 0], &self.rows[1, 0], &self.rows[2, 0], &self.rows[3, 0],
            &self.rows[4, 0], &self.front, end2, cap2,
        )
        return self._phases()

    cdef _phases(self):
        """Phases of the moves before the last final corner, which leave the buffers."""
        cdef Py_ssize_t done = self.front.done, moves = 0, left, m = 0, i
        if done >= 0 and not self.started:
            self.phase.v = self.rows[3, 0]  # the speed wanted, or less if it cannot be braked
            self.started = True
        self.out[0, 0], self.out[1, 0], self.out[2, 0] = self.phase.t, self.phase.s, self.phase.v
        self.corner_s[0] = self.phase.s
        if done > 0:
            moves = done
            for i in range(done):
                self.corner_s[i + 1] = self.corner_s[i] + self.rows[0, i]
            m = phases(
                &self.rows[0, 0], &self.rows[3, 0], &self.rows[2, 0], &self.rows[1, 0],
                &self.out[0, 0], &self.out[1, 0], &self.out[2, 0], &self.out[3, 0],
                &self.out_move[0], done, &self.phase,
            )
            for i in range(m):
                self.out_move[i] = self.index[self.out_move[i]]
        out = np.asarray(self.out)
        made = (
            out[0, : m + 1].copy(), out[1, : m + 1].copy(), out[2, : m + 1].copy(),
            out[3, :m].copy(), np.asarray(self.out_move)[:m].copy(),
            np.asarray(self.xyz)[: moves + 1].copy(), np.asarray(self.corner_s)[: moves + 1].copy(),
        )
        if done > 0:
            left = self.front.head - done
            for i in range(COLUMNS):
                memmove(&self.rows[i, 0], &self.rows[i, done], 8 * (left + 1))
            memmove(&self.xyz[0, 0], &self.xyz[done, 0], 24 * (left + 1))
            if left > 0:
                memmove(&self.index[0], &self.index[done], 4 * left)
            self.front.head = left
            self.front.seen -= done
            self.front.done = 0
        return made

"""Kernel functions of the trapezoid time law, shared with the streaming planner.

All arrays are of moves (row i: move i) or corners (row i: before move i; one row more).
Speeds are squared until ``finish_moves`` has seen them.
"""

from libc.stdint cimport int32_t

cdef enum:
    WINDOW = 2048  # moves planned at a time: their rows stay in the second-level cache
    CARRY = 6  # what a corner needs to know of the move before it

cdef Py_ssize_t geometry "lmd_geometry"(
    const double* xyz,  # (n + 1, 3) mm
    const double* speed,  # (n,) mm/s
    double accel, double jd,
    const double* axis_speed, const double* axis_accel,  # (3,)
    double* length, double* a_out, double* cruise2,  # (n,) out
    double* v2,  # (n,) out: junction limit before each move
    double* carry,  # (CARRY,) in and out: the last move of the call before; zeros at first
    Py_ssize_t n,
) noexcept nogil

cdef Py_ssize_t settle "lmd_settle"(
    const double* length, const double* accel, double* v2,
    Py_ssize_t low,  # lowest corner that is not final
    Py_ssize_t seen,  # corners below were passed before, from an earlier horizon
    Py_ssize_t head,  # the horizon: corner after the last move known
    double end2, double cap2,
) noexcept nogil

cdef double finish_moves "lmd_finish_moves"(
    const double* length, const double* accel, double* peak, double* v, double* duration,
    Py_ssize_t first, Py_ssize_t last, double w,
) noexcept nogil

cdef struct Front:
    Py_ssize_t head  # moves whose limits are known; the horizon is the corner behind them
    Py_ssize_t seen  # head at the last backward pass
    Py_ssize_t done  # last final corner, -1 before there is one
    double w  # squared speed there

cdef bint due "lmd_due"(const Front* front) noexcept nogil

cdef void commit "lmd_commit"(
    const double* length, const double* accel, double* peak, double* v, double* duration,
    Front* front, double end2, double cap2,
) noexcept nogil

cdef struct PhaseState:
    double t  # s
    double s  # mm: end of the last move, exactly the running sum of lengths
    double v  # mm/s

cdef Py_ssize_t phases "lmd_phases"(
    const double* length, const double* v, const double* peak, const double* accel,
    double* t, double* s, double* w, double* a, int32_t* move, Py_ssize_t n,
    PhaseState* state,
) noexcept nogil

# distutils: extra_compile_args = -fno-math-errno -fno-trapping-math
"""Planner kernel, emission: a profile cut into segments, exact steps, wire bytes.

Imports nothing of ours. Entries (``def``) validate and allocate and raise ValueError; the
kernels (``cdef ... noexcept nogil``) do neither. Lengths mm, times s, speeds mm/s.
"""

from libc.math cimport ceil
from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t

import numpy as np

cdef double ROUND = 6755399441055744.0  # 1.5 * 2**52: x + ROUND - ROUND rounds to nearest even
cdef double TINY = 1e-30  # keeps divisions defined; far below any length or slope here


cdef packed struct Segment:
    int16_t steps[6]  # signed step deltas
    uint16_t start_ratio  # speed at start / mean speed, 1/32768
    uint16_t end_power  # 1/65535 of full scale
    uint16_t end_speed  # speed at end / nominal, 1/32768
    uint16_t ticks_lo  # duration, us
    uint8_t ticks_hi
    uint8_t flags


cdef inline double least(double a, double b) noexcept nogil:
    return a if a < b else b


cdef inline double most(double a, double b) noexcept nogil:
    return a if a > b else b


cdef inline double _ticks(double t_s) noexcept nogil:
    return (t_s * 1e6 + ROUND) - ROUND


def merge_cuts(kink_s, kink_hard, extra_s, extra_hard, int least_ticks=2):
    """Merge two sorted lists of instants into one list of cuts on the 1 us grid.

    Hard instants (gate edges, ends of dwells) always make a cut of their own tick. A soft one
    nearer than ``least_ticks`` to a neighbour gives way.
    Returns (k,) float64 s, strictly increasing once rounded to ticks.
    """
    cdef const double[::1] a = np.ascontiguousarray(kink_s, dtype=np.float64)
    cdef const double[::1] b = np.ascontiguousarray(extra_s, dtype=np.float64)
    cdef const uint8_t[::1] ha = np.ascontiguousarray(kink_hard, dtype=np.uint8)
    cdef const uint8_t[::1] hb = np.ascontiguousarray(extra_hard, dtype=np.uint8)
    cdef Py_ssize_t n = a.shape[0], m = b.shape[0], i = 0, j = 0, k = 0
    if n < 2 or ha.shape[0] != n or hb.shape[0] != m:
        raise ValueError("kink_s needs two rows or more, and one hard flag for each instant")
    if (np.diff(kink_s) < 0).any() or (np.diff(extra_s) < 0).any():
        raise ValueError("instants are not sorted")
    if m and (b[0] < a[0] or b[m - 1] > a[n - 1]):
        raise ValueError(f"extra_s {b[0]}..{b[m - 1]} s outside the profile {a[0]}..{a[n - 1]} s")
    out = np.empty(n + m)
    cdef double[::1] o = out
    cdef double t, tick, last = -1e300
    cdef uint8_t hard, last_hard = 0
    with nogil:
        # invariant: o[:k] is sorted, and its ticks differ
        while i < n or j < m:
            if j >= m or (i < n and a[i] <= b[j]):
                t = a[i]
                hard = ha[i]
                i += 1
            else:
                t = b[j]
                hard = hb[j]
                j += 1
            tick = _ticks(t)
            if tick - last >= least_ticks or (hard and last_hard and tick > last):
                o[k] = t
                k += 1
            elif hard and not last_hard:
                o[k - 1] = t
            else:
                continue
            last = tick
            last_hard = hard
    return out[:k].copy()


cdef Py_ssize_t _subdivide(
    const double* cut, Py_ssize_t n_cut,
    const double* pt, const double* ps, const double* pv, const double* pa, Py_ssize_t m,
    double longest, double dwell, double* t, double* s, double* v,
) noexcept nogil:
    """Split spans into equal parts and evaluate the profile; counts only when t is NULL."""
    cdef Py_ssize_t i, j, parts, k = 0, p = 0
    cdef double dt = 0.0, now, tau
    # invariant: phase p holds the instant last written; it never steps back
    for i in range(n_cut):
        parts = 1
        if i > 0:
            dt = cut[i] - cut[i - 1]
            while p < m - 1 and pt[p + 1] <= cut[i - 1]:
                p += 1
            tau = dwell if pv[p] == 0.0 and pa[p] == 0.0 else longest
            parts = <Py_ssize_t>ceil(dt / tau - 1e-9)
            if parts < 1:
                parts = 1
        if t == NULL:
            k += parts
            continue
        for j in range(parts):
            now = cut[i] if j == parts - 1 else cut[i - 1] + dt * (j + 1) / parts
            while p < m - 1 and pt[p + 1] < now:
                p += 1
            if now >= pt[p + 1]:
                s[k] = ps[p + 1]
                v[k] = pv[p + 1]
            else:
                tau = now - pt[p]
                s[k] = least(ps[p] + tau * (pv[p] + 0.5 * pa[p] * tau), ps[p + 1])
                v[k] = most(pv[p] + pa[p] * tau, 0.0)
            t[k] = now
            k += 1
    return k


def subdivide(
    cut_s, phase_t_s, phase_s_mm, phase_v_mm_s, phase_a_mm_s2, double longest_s,
    double longest_dwell_s,
):
    """Instants of all segment ends: cuts, and equal parts where cuts lie too far apart.

    Returns t_s, s_mm, v_mm_s, each (k,): the first row is the start of the first segment.
    """
    cdef const double[::1] c = np.ascontiguousarray(cut_s, dtype=np.float64)
    cdef const double[::1] pt = np.ascontiguousarray(phase_t_s, dtype=np.float64)
    cdef const double[::1] ps = np.ascontiguousarray(phase_s_mm, dtype=np.float64)
    cdef const double[::1] pv = np.ascontiguousarray(phase_v_mm_s, dtype=np.float64)
    cdef const double[::1] pa = np.ascontiguousarray(phase_a_mm_s2, dtype=np.float64)
    cdef Py_ssize_t n = c.shape[0], m = pa.shape[0], k
    if n < 2 or m < 1 or pt.shape[0] != m + 1 or ps.shape[0] != m + 1 or pv.shape[0] != m + 1:
        raise ValueError("cut_s needs two rows, and phases one kink more than accelerations")
    if not (longest_s > 0.0 and longest_dwell_s > 0.0):
        raise ValueError(f"longest_s {longest_s}, longest_dwell_s {longest_dwell_s}: above 0")
    k = _subdivide(&c[0], n, &pt[0], &ps[0], &pv[0], &pa[0], m, longest_s, longest_dwell_s,
                   NULL, NULL, NULL)
    t_out, s_out, v_out = np.empty(k), np.empty(k), np.empty(k)
    cdef double[::1] t = t_out, s = s_out, v = v_out
    with nogil:
        _subdivide(&c[0], n, &pt[0], &ps[0], &pv[0], &pa[0], m, longest_s, longest_dwell_s,
                   &t[0], &s[0], &v[0])
    return t_out, s_out, v_out


def place(points_mm, move_s_mm, s_mm, steps_per_mm, origin_mm):
    """Axis positions in whole steps at path lengths ``s_mm`` (sorted).

    Each is round((position - origin) * steps_per_mm) of the position itself, so no rounding
    is carried on; at a corner the position is the corner.
    Returns steps (k, 3) int64 and move (k,) int64: the move that ends at or holds each point.
    """
    cdef const double[:, ::1] xyz = np.ascontiguousarray(points_mm, dtype=np.float64)
    cdef const double[::1] ms = np.ascontiguousarray(move_s_mm, dtype=np.float64)
    cdef const double[::1] s = np.ascontiguousarray(s_mm, dtype=np.float64)
    cdef const double[::1] spm = np.ascontiguousarray(steps_per_mm, dtype=np.float64)
    cdef const double[::1] zero = np.ascontiguousarray(origin_mm, dtype=np.float64)
    cdef Py_ssize_t n = ms.shape[0] - 1, k = s.shape[0], i, m = 0, ax
    if n < 1 or xyz.shape[0] != n + 1 or xyz.shape[1] != 3:
        raise ValueError("points_mm and move_s_mm differ in rows")
    if spm.shape[0] != 3 or zero.shape[0] != 3:
        raise ValueError("steps_per_mm and origin_mm need 3 values each")
    steps_out, move_out = np.empty((k, 3), dtype=np.int64), np.empty(k, dtype=np.int64)
    cdef int64_t[:, ::1] steps = steps_out
    cdef int64_t[::1] move = move_out
    cdef double f, x
    with nogil:
        # invariant: ms[m] < s[i] <= ms[m + 1], but for the very start
        for i in range(k):
            while m < n - 1 and ms[m + 1] < s[i]:
                m += 1
            f = (s[i] - ms[m]) / most(ms[m + 1] - ms[m], TINY)
            for ax in range(3):
                x = xyz[m, ax] + f * (xyz[m + 1, ax] - xyz[m, ax])
                if s[i] >= ms[m + 1]:
                    x = xyz[m + 1, ax]
                elif s[i] <= ms[m]:
                    x = xyz[m, ax]
                steps[i, ax] = <int64_t>(((x - zero[ax]) * spm[ax] + ROUND) - ROUND)
            move[i] = m
    return steps_out, move_out


def pack_segments(
    t_s, s_mm, v_mm_s, steps, power, nominal_mm_s, flags, out, int most_steps, int most_ticks
):
    """Write SEGMENT rows (22 bytes each) between consecutive instants.

    Parameters
    ----------
    t_s, s_mm, v_mm_s : (k + 1,)   instants, path length, speed
    steps : (k + 1, 3) int64       axis positions
    power : (k + 1,) uint16        commanded power at each instant, 1/65535
    nominal_mm_s : (k,)            nominal speed of each segment, for ``end_speed``
    flags : (k,) uint8
    out : (k, 22) uint8            the array's bytes, written in place

    Raises ValueError when a step delta or a duration does not fit its field.
    """
    cdef const double[::1] t = t_s, s = s_mm, v = v_mm_s, nominal = nominal_mm_s
    cdef const int64_t[:, ::1] st = steps
    cdef const uint16_t[::1] pw = power
    cdef const uint8_t[::1] fl = flags
    cdef uint8_t[:, ::1] o = out
    cdef Py_ssize_t k = fl.shape[0], i, ax, bad = -1
    if (t.shape[0] != k + 1 or s.shape[0] != k + 1 or v.shape[0] != k + 1 or k < 1
            or st.shape[0] != k + 1 or st.shape[1] != 3 or pw.shape[0] != k + 1
            or nominal.shape[0] != k or o.shape[0] != k or o.shape[1] != 22):
        raise ValueError("rows of the segment columns differ")
    cdef Segment* row
    cdef double ratio, ds
    cdef int64_t d, ticks
    with nogil:
        # invariant: rows before i are written; ``bad`` is the last row that did not fit
        for i in range(k):
            row = <Segment*>&o[i, 0]
            ticks = <int64_t>_ticks(t[i + 1]) - <int64_t>_ticks(t[i])
            if ticks < 1 or ticks > most_ticks:
                bad = i
            for ax in range(3):
                d = st[i + 1, ax] - st[i, ax]
                if d > most_steps or d < -most_steps:
                    bad = i
                row.steps[ax] = <int16_t>(d & 0xFFFF)
                row.steps[ax + 3] = 0
            ds = s[i + 1] - s[i]
            ratio = 32768.0
            if ds > 0.0:
                ratio = least(v[i] * (t[i + 1] - t[i]) / ds * 32768.0, 65535.0)
            row.start_ratio = <uint16_t>(ratio + 0.5) if ratio < 65535.0 else 65535
            row.end_power = pw[i + 1]
            ratio = least(v[i + 1] / most(nominal[i], TINY) * 32768.0, 65535.0)
            row.end_speed = <uint16_t>(ratio + 0.5) if ratio < 65535.0 else 65535
            row.ticks_lo = <uint16_t>(ticks & 0xFFFF)
            row.ticks_hi = <uint8_t>((ticks >> 16) & 0xFF)
            row.flags = fl[i]
    if bad >= 0:
        raise ValueError(
            f"segment {bad} at {t[bad]:.6f} s does not fit: at most {most_steps} steps and "
            f"1 to {most_ticks} ticks"
        )

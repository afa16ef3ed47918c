# distutils: extra_compile_args = -fno-math-errno -fno-trapping-math
"""Planner kernel, time law along a path in the machine's axes with a limit for each axis.

Imports nothing of ours. The entry (``def``) validates and allocates and raises ValueError; the
kernels (``cdef ... noexcept nogil``) do neither. Axes in their own units, path length mm.

Between two nodes, h apart, every axis is a cubic q(s) and the squared path speed w is linear in
s: constant path acceleration a = (w1 - w0) / (2 h). An axis then accelerates by q'(s) a + q''(s)
w(s): a quadratic in s, whose three Bernstein coefficients
    b0 = p0 a + r0 w0,   b1 = p1 a + (r0 w1 + r1 w0) / 2,   b2 = p2 a + r1 w1
(p: those of q', r: those of q'') bound it over the whole interval, not at its ends only; the
same for the vector of X, Y, Z. So each interval asks |c0 w0 + c1 w1| <= A, linear in both, and
one quadratic of the same kind for the total. Backward pass: the greatest w0 from which w1 can be
chosen within what may follow; forward pass: the greatest w1 (TOPP-RA, Pham and Pham 2018, with
other constraints).
"""

from libc.math cimport fabs, sqrt
from libc.stdint cimport uint8_t

import numpy as np

cdef enum:
    MOST_AXES = 6
    ROWS = 18  # three for each axis

cdef double TINY = 1e-30


cdef struct Rules:
    int n  # linear rules |c0 w0 + c1 w1| <= limit
    double c0[ROWS]
    double c1[ROWS]
    double limit[ROWS]
    double x0[3][3]  # the vector X, Y, Z likewise, three Bernstein coefficients
    double x1[3][3]
    double total
    double along  # |w1 - w0| <= along
    double cap  # w <= cap


cdef inline double least(double a, double b) noexcept nogil:
    return a if a < b else b


cdef inline double most(double a, double b) noexcept nogil:
    return a if a > b else b


cdef void _rules(
    Rules* out, const double* q0, const double* q1, const double* m0, const double* m1,
    double h, double speed, const double* axis_speed, const double* axis_accel,
    double total, double along, int axes,
) noexcept nogil:
    """What one interval asks."""
    cdef double p[3]
    cdef double r[2]
    cdef double c0[3]
    cdef double c1[3]
    cdef double half = 0.5 / h, fast
    cdef int k, i
    out.n = 0
    out.total = total
    out.along = 2.0 * h * along
    out.cap = speed * speed
    for k in range(axes):
        p[0] = m0[k]
        p[2] = m1[k]
        p[1] = 3.0 * (q1[k] - q0[k]) / h - m0[k] - m1[k]
        r[0] = 2.0 * (p[1] - p[0]) / h
        r[1] = 2.0 * (p[2] - p[1]) / h
        fast = most(fabs(p[1]), most(fabs(p[0]), fabs(p[2])))
        if fast > 0.0:
            fast = axis_speed[k] / fast
            out.cap = least(out.cap, fast * fast)
        c0[0] = r[0] - p[0] * half
        c1[0] = p[0] * half
        c0[1] = 0.5 * r[1] - p[1] * half
        c1[1] = 0.5 * r[0] + p[1] * half
        c0[2] = -p[2] * half
        c1[2] = r[1] + p[2] * half
        for i in range(3):
            if k < 3:
                out.x0[i][k] = c0[i]
                out.x1[i][k] = c1[i]
            out.c0[out.n] = c0[i]
            out.c1[out.n] = c1[i]
            out.limit[out.n] = axis_accel[k]
            out.n += 1


cdef inline bint _reach(const Rules* rules, double w0, double* low, double* high) noexcept nogil:
    """Narrow [low, high] to the w1 that may follow w0; False: none may."""
    cdef int i
    cdef double a, b, c, d, middle, root, lo = low[0], hi = high[0]
    lo = most(lo, w0 - rules.along)
    hi = least(hi, w0 + rules.along)
    for i in range(rules.n):
        a = rules.c1[i]
        b = rules.c0[i] * w0
        if fabs(a) < TINY:
            if fabs(b) > rules.limit[i]:
                return False
            continue
        c = (rules.limit[i] - b) / a
        d = (-rules.limit[i] - b) / a
        lo = most(lo, least(c, d))
        hi = least(hi, most(c, d))
        if lo > hi:
            return False
    for i in range(3):
        a = (rules.x1[i][0] * rules.x1[i][0] + rules.x1[i][1] * rules.x1[i][1]
             + rules.x1[i][2] * rules.x1[i][2])
        b = w0 * (rules.x1[i][0] * rules.x0[i][0] + rules.x1[i][1] * rules.x0[i][1]
                  + rules.x1[i][2] * rules.x0[i][2])
        c = w0 * w0 * (rules.x0[i][0] * rules.x0[i][0] + rules.x0[i][1] * rules.x0[i][1]
                       + rules.x0[i][2] * rules.x0[i][2]) - rules.total * rules.total
        if a < TINY:
            if c > 0.0:
                return False
            continue
        d = b * b - a * c
        if d < 0.0:
            return False
        middle = -b / a
        root = sqrt(d) / a
        lo = most(lo, middle - root)
        hi = least(hi, middle + root)
        if lo > hi:
            return False
    low[0] = lo
    high[0] = hi
    return True


cdef double _greatest_start(const Rules* rules, double cap, double next_most) noexcept nogil:
    """Greatest w0 <= cap from which some w1 in [0, next_most] can follow."""
    cdef double low = 0.0, high = 0.0, good = 0.0, bad = cap, w
    cdef int i
    high = next_most
    if _reach(rules, cap, &low, &high):
        return cap
    # invariant: from ``good`` there is a way (0 may stay 0), from ``bad`` there is none; the
    # set between is an interval, for all rules are convex
    for i in range(60):
        w = 0.5 * (good + bad)
        if bad - good <= 1e-12 * cap:
            break
        low = 0.0
        high = next_most
        if _reach(rules, w, &low, &high):
            good = w
        else:
            bad = w
    return good


cdef void _law(
    const double* s, const double* q, const double* m0, const double* m1, const double* speed,
    const uint8_t* rest, const double* axis_speed, const double* axis_accel, double total,
    double along, int axes, double* w, double* cap, Py_ssize_t m,
) noexcept nogil:
    cdef Rules rules
    cdef Py_ssize_t i
    cdef double low, high
    w[m] = 0.0
    # invariant: from w[i + 1] or less the path can be gone on to its end within all limits
    for i in range(m - 1, -1, -1):
        _rules(&rules, q + i * axes, q + (i + 1) * axes, m0 + i * axes, m1 + i * axes,
               s[i + 1] - s[i], speed[i], axis_speed, axis_accel, total, along, axes)
        cap[i] = rules.cap
        w[i] = 0.0
        if not rest[i]:
            w[i] = _greatest_start(&rules, rules.cap, least(w[i + 1], rules.cap))
    w[0] = 0.0
    # invariant: w[i] can be reached, and is in the set of the pass before
    for i in range(m):
        _rules(&rules, q + i * axes, q + (i + 1) * axes, m0 + i * axes, m1 + i * axes,
               s[i + 1] - s[i], speed[i], axis_speed, axis_accel, total, along, axes)
        low = 0.0
        high = least(w[i + 1], rules.cap)
        if rest[i + 1]:
            high = 0.0
        # rounding only: from a w0 of the set there is a way
        if not _reach(&rules, w[i], &low, &high):
            high = least(w[i], high)
        w[i + 1] = high


def joint_law(
    s_mm, axes, slope_start, slope_end, speed_mm_s, rest, axis_speed, axis_accel,
    double total_accel, double path_accel,
):
    """Time-optimal squared path speeds at the nodes of a path in K axes, rest to rest.

    Parameters
    ----------
    s_mm : (m + 1,) float64, mm, increasing         path length at the nodes
    axes : (m + 1, K) float64                       positions, K from 3 to 6
    slope_start, slope_end : (m, K) float64, 1/mm   d axes / ds at both ends of each interval
    speed_mm_s : (m,) float64, > 0                  limit of the path speed
    rest : (m + 1,) bool                            nodes where the path stands still
    axis_speed, axis_accel : (K,) float64, > 0
    total_accel : float, > 0        limit of the vector of the first three axes' accelerations
    path_accel : float, > 0         limit of the path acceleration

    Returns v (m + 1,) mm/s; the acceleration is constant between nodes. Raises ValueError for
    shapes, NaN, infinity and limits of zero.
    """
    cdef const double[::1] s = np.ascontiguousarray(s_mm, dtype=np.float64)
    cdef const double[:, ::1] q = np.ascontiguousarray(axes, dtype=np.float64)
    cdef const double[:, ::1] a0 = np.ascontiguousarray(slope_start, dtype=np.float64)
    cdef const double[:, ::1] a1 = np.ascontiguousarray(slope_end, dtype=np.float64)
    cdef const double[::1] f = np.ascontiguousarray(speed_mm_s, dtype=np.float64)
    cdef const uint8_t[::1] still = np.ascontiguousarray(rest, dtype=np.uint8)
    cdef const double[::1] av = np.ascontiguousarray(axis_speed, dtype=np.float64)
    cdef const double[::1] aa = np.ascontiguousarray(axis_accel, dtype=np.float64)
    cdef Py_ssize_t m = s.shape[0] - 1
    cdef int k = <int>q.shape[1]
    if m < 1 or not 3 <= k <= MOST_AXES:
        raise ValueError(f"{m} intervals of {k} axes: needed 1 or more, of 3 to {MOST_AXES}")
    if (q.shape[0] != m + 1 or a0.shape[0] != m or a1.shape[0] != m or a0.shape[1] != k
            or a1.shape[1] != k or f.shape[0] != m or still.shape[0] != m + 1
            or av.shape[0] != k or aa.shape[0] != k):
        raise ValueError("rows or axes of the path's columns differ")
    for name, values in (
        ("speed_mm_s", f), ("axis_speed", av), ("axis_accel", aa),
        ("total_accel", [total_accel]), ("path_accel", [path_accel]),
    ):
        low, high = float(np.min(values)), float(np.max(values))
        if not (low > 0.0 and high < np.inf):
            bad = int(np.argmax(~((np.asarray(values) > 0) & np.isfinite(values))))
            raise ValueError(f"{name} {values[bad]} at index {bad}: must be finite and above 0")
    steps = np.diff(s)
    if not (steps.min() > 0.0 and np.isfinite(s).all()):
        raise ValueError(f"s_mm does not rise at index {int(np.argmax(~(steps > 0.0)))}")
    for name, rows in (("axes", axes), ("slope_start", slope_start), ("slope_end", slope_end)):
        if not np.isfinite(rows).all():
            raise ValueError(f"{name} are not finite")
    w_out, cap_out = np.empty(m + 1), np.empty(m)
    cdef double[::1] w = w_out, cap = cap_out
    with nogil:
        _law(&s[0], &q[0, 0], &a0[0, 0], &a1[0, 0], &f[0], &still[0], &av[0], &aa[0],
             total_accel, path_accel, k, &w[0], &cap[0], m)
    return np.sqrt(w_out)

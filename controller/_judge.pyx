"""Judge of a plan's power: finished segments against the law at the planned speed.

Written apart from the planner's own power curve (``planning/power.py``): it walks once over
segments and profile phases and evaluates the law by itself. Imports nothing of ours. Entries
(``def``) validate and allocate and raise ValueError; kernels do neither.
"""

from libc.math cimport fabs, pow

import numpy as np


cdef struct Phases:
    const double* t
    const double* s
    const double* v
    const double* a
    const double* j
    Py_ssize_t m
    Py_ssize_t at  # phase that holds the instant asked for last; it never steps back


cdef struct Bead:
    double s_on
    double s_off
    double floor_w
    double power_w
    double speed_mm_s
    double exponent
    double cap_j_mm
    double ramp_in_mm
    double ramp_out_mm


cdef struct Sums:
    double worst_w  # greatest |output - law|
    double worst_s  # when
    double square_w2_s  # integral of the squared error
    double time_s
    double slow95_s
    double slow50_s
    double slope_w_s  # greatest slope of the law, between neighbouring samples


cdef inline double least(double a, double b) noexcept nogil:
    return a if a < b else b


cdef inline double most(double a, double b) noexcept nogil:
    return a if a > b else b


cdef inline void _motion(Phases* p, double t, double* s, double* v) noexcept nogil:
    cdef double tau
    while p.at < p.m - 1 and p.t[p.at + 1] <= t:
        p.at += 1
    tau = least(most(t - p.t[p.at], 0.0), p.t[p.at + 1] - p.t[p.at])
    s[0] = p.s[p.at] + tau * (p.v[p.at] + tau * (0.5 * p.a[p.at] + p.j[p.at] * tau / 6.0))
    v[0] = most(p.v[p.at] + tau * (p.a[p.at] + 0.5 * p.j[p.at] * tau), 0.0)


cdef inline double _law(const Bead* b, double s, double v, double rated_w) noexcept nogil:
    cdef double g = v / b.speed_mm_s, share = 1.0, power
    if b.exponent != 1.0:
        g = pow(g, b.exponent)
    if b.ramp_in_mm > 0.0:
        share = least(share, (s - b.s_on) / b.ramp_in_mm)
    if b.ramp_out_mm > 0.0:
        share = least(share, (b.s_off - s) / b.ramp_out_mm)
    power = b.floor_w + (b.power_w - b.floor_w) * g * most(share, 0.0)
    return least(most(least(power, b.cap_j_mm * v), 0.0), rated_w)


cdef inline double _below(double v0, double v1, double limit) noexcept nogil:
    """Share of a stretch, speed going straight from v0 to v1, that is slower than ``limit``."""
    if v0 >= limit and v1 >= limit:
        return 0.0
    if v0 < limit and v1 < limit:
        return 1.0
    if v0 < limit:
        return (limit - v0) / (v1 - v0)
    return (limit - v1) / (v0 - v1)


cdef void _judge(
    const double* end_s, const double* watt, Py_ssize_t n, Py_ssize_t* first, Phases* p,
    const Bead* b, double on_s, double off_s, double late_s, double rated_w, double longest_s,
    Sums* out,
) noexcept nogil:
    """One bead: the output between segment ends (``end_s`` in light's time, W at each)."""
    cdef Py_ssize_t i = first[0], parts, k
    cdef double t0, t1, t, dt, s, v, v0, error, e0, em, law, law0, span, out_w
    cdef double slow95 = 0.95 * b.speed_mm_s * (1.0 - 1e-9), slow50 = 0.5 * b.speed_mm_s
    # invariant: segment i (end_s[i]..end_s[i + 1]) holds t0
    while i < n - 2 and end_s[i + 1] + late_s <= on_s:
        i += 1
    first[0] = i
    t0 = on_s
    _motion(p, t0, &s, &v0)
    law0 = _law(b, s, v0, rated_w)
    span = most(end_s[i + 1] - end_s[i], 1e-12)
    out_w = watt[i] + (watt[i + 1] - watt[i]) * (t0 - late_s - end_s[i]) / span
    e0 = out_w - law0
    out.worst_w, out.worst_s = fabs(e0), t0
    out.square_w2_s = out.time_s = out.slow95_s = out.slow50_s = out.slope_w_s = 0.0
    while t0 < off_s:
        # to the next end of a segment, kink of the profile, or the longest step
        while i < n - 2 and end_s[i + 1] + late_s <= t0:
            i += 1
        while p.at < p.m - 1 and p.t[p.at + 1] <= t0:
            p.at += 1
        t1 = least(off_s, t0 + longest_s)
        if end_s[i + 1] + late_s > t0:
            t1 = least(t1, end_s[i + 1] + late_s)
        if p.t[p.at + 1] > t0:
            t1 = least(t1, p.t[p.at + 1])
        dt = t1 - t0
        span = most(end_s[i + 1] - end_s[i], 1e-12)
        em = 0.0
        for k in range(1, 3):  # middle and end
            t = t1 if k == 2 else t0 + 0.5 * dt
            _motion(p, t, &s, &v)
            law = _law(b, s, v, rated_w)
            out_w = watt[i] + (watt[i + 1] - watt[i]) * (t - late_s - end_s[i]) / span
            error = out_w - law
            if fabs(error) > out.worst_w:
                out.worst_w, out.worst_s = fabs(error), t
            if k == 1:
                em = error
        out.square_w2_s += dt * (e0 * e0 + 4.0 * em * em + error * error) / 6.0
        out.slow95_s += dt * _below(v0, v, slow95)
        out.slow50_s += dt * _below(v0, v, slow50)
        if dt > 2e-6:
            out.slope_w_s = most(out.slope_w_s, fabs(law - law0) / dt)
        e0, v0, law0 = error, v, law
        out.time_s += dt
        t0 = t1


COLUMNS = ("worst_w", "worst_s", "square_w2_s", "time_s", "slow95_s", "slow50_s", "slope_w_s")


def judge_power(
    end_s, power_w, phase_t_s, phase_s_mm, phase_v_mm_s, phase_a_mm_s2, phase_j_mm_s3,
    on_s, off_s, beads, double late_s, double rated_w, double longest_s=1e-3,
):
    """Error of the output, and time at reduced speed, bead by bead.

    Parameters
    ----------
    end_s, power_w : (n,)   ends of all segments (first row: the start), output there
    phase_* : (m + 1,) t, s, v and (m,) a, j
    on_s, off_s : (k,)      light's edges, sorted
    beads : (k, 9) float64  s_on, s_off, floor, power, nominal speed, exponent, energy cap,
                            ramp in, ramp out
    late_s : the source answers so much after the output
    longest_s : samples are nowhere further apart; they lie at every segment's end and middle

    Returns (k, 7) float64, columns as COLUMNS.
    """
    cdef const double[::1] e = np.ascontiguousarray(end_s, dtype=np.float64)
    cdef const double[::1] w = np.ascontiguousarray(power_w, dtype=np.float64)
    cdef const double[::1] pt = np.ascontiguousarray(phase_t_s, dtype=np.float64)
    cdef const double[::1] ps = np.ascontiguousarray(phase_s_mm, dtype=np.float64)
    cdef const double[::1] pv = np.ascontiguousarray(phase_v_mm_s, dtype=np.float64)
    cdef const double[::1] pa = np.ascontiguousarray(phase_a_mm_s2, dtype=np.float64)
    cdef const double[::1] pj = np.ascontiguousarray(phase_j_mm_s3, dtype=np.float64)
    cdef const double[::1] on = np.ascontiguousarray(on_s, dtype=np.float64)
    cdef const double[::1] off = np.ascontiguousarray(off_s, dtype=np.float64)
    cdef const double[:, ::1] rows = np.ascontiguousarray(beads, dtype=np.float64)
    cdef Py_ssize_t n = e.shape[0], m = pa.shape[0], k = on.shape[0], i, first = 0
    if n < 2 or w.shape[0] != n:
        raise ValueError("end_s needs two rows, and power_w as many")
    if (m < 1 or pj.shape[0] != m or pt.shape[0] != m + 1 or ps.shape[0] != m + 1
            or pv.shape[0] != m + 1):
        raise ValueError("phases need one kink more than accelerations")
    if off.shape[0] != k or rows.shape[0] != k or (k > 0 and rows.shape[1] != 9):
        raise ValueError("on_s, off_s and beads differ in rows, or beads have not 9 columns")
    if not longest_s > 0.0:
        raise ValueError(f"longest_s {longest_s}: must be above 0")
    if not (np.isfinite(on_s).all() and np.isfinite(off_s).all()):
        raise ValueError("on_s and off_s must be finite")
    out = np.zeros((k, 7))
    if k == 0:
        return out
    if (np.diff(on_s) < 0).any() or (np.diff(end_s) < 0).any() or (np.diff(phase_t_s) < 0).any():
        raise ValueError("instants are not sorted")
    cdef double[:, ::1] o = out
    cdef Phases p
    cdef Bead bead
    cdef Sums sums
    p.t, p.s, p.v, p.a, p.j = &pt[0], &ps[0], &pv[0], &pa[0], &pj[0]
    p.m, p.at = m, 0
    with nogil:
        # invariant: beads before i are judged; first and p.at lie at or before bead i
        for i in range(k):
            bead.s_on, bead.s_off = rows[i, 0], rows[i, 1]
            bead.floor_w, bead.power_w, bead.speed_mm_s = rows[i, 2], rows[i, 3], rows[i, 4]
            bead.exponent, bead.cap_j_mm = rows[i, 5], rows[i, 6]
            bead.ramp_in_mm, bead.ramp_out_mm = rows[i, 7], rows[i, 8]
            _judge(&e[0], &w[0], n, &first, &p, &bead, on[i], off[i], late_s, rated_w,
                   longest_s, &sums)
            o[i, 0], o[i, 1], o[i, 2] = sums.worst_w, sums.worst_s, sums.square_w2_s
            o[i, 3], o[i, 4], o[i, 5] = sums.time_s, sums.slow95_s, sums.slow50_s
            o[i, 6] = sums.slope_w_s
    return out

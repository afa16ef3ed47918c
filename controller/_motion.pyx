# distutils: extra_compile_args = -fno-math-errno -fno-trapping-math
# gcc handles two moves at once only if square roots set no errno and compares raise no trap;
# neither flag changes a value (IEEE square root and division are exact)
"""Planner kernel, time law: look-ahead over whole layers by trapezoids, and their phases.

Imports nothing of ours. Entries (``def``) validate and allocate and raise ValueError; the
kernels (``cdef ... noexcept nogil``) do neither. Lengths mm, times s, speeds mm/s.

Junction rule (Klipper's published one, docs/Kinematics.md there): at a corner that turns by
phi, with C = cos(phi/2) and S = sin(phi/2), the speed v obeys
    v^2 <= a * jd * C / (1 - C)        an arc that leaves the corner by the deviation jd
    v^2 <= a * d * C / (2 S)           an arc that touches both moves within half their length
with the smaller a*d of the two moves. Per-axis limits act along the direction u of each move:
a <= A_i / |u_i|, v <= V_i / |u_i|.
"""

from libc.float cimport DBL_MAX
from libc.math cimport fabs, sqrt
from libc.stdint cimport int32_t
from libc.string cimport memset

import numpy as np

cdef extern from *:
    """
    /* Two builds of each loop, chosen when the module is loaded. The bits are the same: both
       use nothing but IEEE-exact operations, and setup.py forbids fused multiply-add. */
    #if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
    #define LMD_WIDE __attribute__((target_clones("avx2", "default")))
    static Py_ssize_t lmd_geometry(const double*, const double*, double, double, const double*,
        const double*, double*, double*, double*, double*, double*, Py_ssize_t) LMD_WIDE;
    static double lmd_finish_moves(const double*, const double*, double*, double*, double*,
        Py_ssize_t, Py_ssize_t, double) LMD_WIDE;
    #endif
    """

cdef enum:
    BLOCK = 512  # moves whose directions stay in the first-level cache

cdef double TINY = 1e-30  # keeps divisions defined; far below any length or slope here


cdef inline double least(double a, double b) noexcept nogil:
    return a if a < b else b


cdef inline double most(double a, double b) noexcept nogil:
    return a if a > b else b


cdef inline double corner2(
    double c, double a, double b, double ad, double bd, double va2, double vb2, double jd
) noexcept nogil:
    """Squared speed at a corner whose tangents enclose the cosine c.

    a, b: accelerations of the two moves; ad, bd: acceleration x length; va2, vb2: their caps.
    One division serves both reciprocals of the rule.
    """
    cdef double half_c = sqrt(most(0.5 * (1.0 + c), 0.0))
    cdef double half_s = most(sqrt(most(0.5 * (1.0 - c), 0.0)), TINY)
    cdef double w = most(1.0 - half_c, TINY)
    cdef double v = half_c / (half_s * w) * least(
        least(a, b) * jd * half_s, 0.5 * least(ad, bd) * w
    )
    return least(v, least(va2, vb2))


cdef Py_ssize_t geometry "lmd_geometry"(
    const double* xyz, const double* speed, double accel, double jd,
    const double* axis_speed, const double* axis_accel,
    double* length, double* a_out, double* cruise2, double* v2, double* carry, Py_ssize_t n,
) noexcept nogil:
    """Lengths, accelerations, squared cruise speeds and junction limits.

    v2[i] is the junction limit before move i; at the start of a path it is the caller's.
    Returns how many lengths are above 0 and finite.
    """
    cdef double ux[BLOCK + 1]
    cdef double uy[BLOCK + 1]
    cdef double uz[BLOCK + 1]
    cdef double ad[BLOCK + 1]
    cdef double vv[BLOCK + 1]
    cdef double aa[BLOCK + 1]
    cdef double iax = 1.0 / axis_accel[0], iay = 1.0 / axis_accel[1], iaz = 1.0 / axis_accel[2]
    cdef double ivx = 1.0 / axis_speed[0], ivy = 1.0 / axis_speed[1], ivz = 1.0 / axis_speed[2]
    cdef double inverse_a = 1.0 / accel
    cdef double x, y, z, d, inv, a, v, c, w
    cdef Py_ssize_t at = 0, i, k, m, good = 0
    # invariant: slot 0 of the scratch rows holds the last move of the block before
    ux[0], uy[0], uz[0] = carry[0], carry[1], carry[2]
    ad[0], vv[0], aa[0] = carry[3], carry[4], carry[5]
    while at < n:
        m = n - at if n - at < BLOCK else BLOCK
        for k in range(m):
            i = 3 * (at + k)
            x = xyz[i + 3] - xyz[i]
            y = xyz[i + 4] - xyz[i + 1]
            z = xyz[i + 5] - xyz[i + 2]
            d = sqrt(x * x + y * y + z * z)
            inv = 1.0 / most(d, TINY)
            x = x * inv
            y = y * inv
            z = z * inv
            # slowness of the tightest limit; one division serves two reciprocals here and below
            # (limits last: a NaN on the left gives way, so the product is never 0)
            v = most(most(fabs(x) * iax, fabs(y) * iay), most(fabs(z) * iaz, inverse_a))
            w = most(most(fabs(x) * ivx, fabs(y) * ivy), most(fabs(z) * ivz, TINY))
            inv = 1.0 / (v * w)
            a = w * inv
            v = least(speed[at + k], v * inv)
            ux[k + 1] = x
            uy[k + 1] = y
            uz[k + 1] = z
            length[at + k] = d
            good += (d > 0.0) & (d <= DBL_MAX)
            a_out[at + k] = a
            ad[k + 1] = a * d
            aa[k + 1] = a
            vv[k + 1] = v * v
            cruise2[at + k] = v * v
        for k in range(m):
            c = ux[k] * ux[k + 1] + uy[k] * uy[k + 1] + uz[k] * uz[k + 1]
            v2[at + k] = corner2(
                c, aa[k], aa[k + 1], ad[k], ad[k + 1], vv[k], vv[k + 1], jd
            )
        ux[0] = ux[m]
        uy[0] = uy[m]
        uz[0] = uz[m]
        ad[0] = ad[m]
        vv[0] = vv[m]
        aa[0] = aa[m]
        at += m
    carry[0], carry[1], carry[2] = ux[0], uy[0], uz[0]
    carry[3], carry[4], carry[5] = ad[0], vv[0], aa[0]
    return good


cdef Py_ssize_t settle "lmd_settle"(
    const double* length, const double* accel, double* v2,
    Py_ssize_t low, Py_ssize_t seen, Py_ssize_t head, double end2, double cap2,
) noexcept nogil:
    """Backward pass over corners head - 1 .. low; the last corner that is final, else low - 1.

    It runs twice at once: from ``end2``, the lowest squared speed the path may have at the
    horizon (a standstill while more may come), and from ``cap2``, the highest. Where both
    agree, bit for bit, nothing behind the horizon can reach, for rounding is monotone: final.
    v2 holds the upper one: later, tighter passes over it give what one pass would have given.
    """
    cdef Py_ssize_t i = head - 1, last = low - 1, stop
    cdef double c, low2 = end2, high2 = cap2, old
    v2[head] = cap2
    if low2 == high2:
        last = head
    # invariant: low2 <= speed^2 that the whole path will allow at corner i + 1 <= high2
    while i >= low and last < low:
        c = 2.0 * accel[i] * length[i]
        low2 = least(v2[i], low2 + c)
        high2 = least(v2[i], high2 + c)
        v2[i] = high2
        if low2 == high2:
            last = i
        i -= 1
    # invariant: from v2[i + 1] the path can be braked to the horizon within every limit
    stop = seen if seen > low else low
    while i >= stop:
        high2 = least(v2[i], high2 + 2.0 * accel[i] * length[i])
        v2[i] = high2
        i -= 1
    while i >= low:
        old = v2[i]
        high2 = least(old, high2 + 2.0 * accel[i] * length[i])
        if high2 == old:
            break  # as an earlier pass left it, and so is all before
        v2[i] = high2
        i -= 1
    return last


cdef double finish_moves "lmd_finish_moves"(
    const double* length, const double* accel, double* peak, double* v, double* duration,
    Py_ssize_t first, Py_ssize_t last, double w,
) noexcept nogil:
    """Forward pass over moves first .. last - 1, then their peak speeds and durations.

    v[first] is a speed, v[first + 1 .. last] are squared and become speeds; peak is squared
    cruise speeds and becomes speeds. ``w`` is the squared speed at ``first``, returned is the
    one at ``last``.
    """
    cdef Py_ssize_t i
    cdef double a, b2, e2, p2, b, e, p, rest, inv
    # invariant: w can be reached from the path's start within every limit before i
    for i in range(first, last):
        w = least(v[i + 1], w + 2.0 * accel[i] * length[i])
        v[i + 1] = w
    for i in range(first + 1, last + 1):
        v[i] = sqrt(v[i])
    for i in range(first, last):
        a = accel[i]
        b = v[i]
        e = v[i + 1]
        b2 = b * b
        e2 = e * e
        p2 = least(peak[i], 0.5 * (b2 + e2) + a * length[i])
        p = most(sqrt(p2), most(b, e))  # most: rounding only
        peak[i] = p
        p2 = most(p, TINY)
        inv = 1.0 / (a * p2)
        rest = most(length[i] - (p * p - 0.5 * (b2 + e2)) * (p2 * inv), 0.0)
        duration[i] = (2.0 * p - b - e) * (p2 * inv) + rest * (a * inv)
    return w


cdef bint due "lmd_due"(const Front* front) noexcept nogil:
    """Whether a backward pass is worth while: else single moves would cost a queue each."""
    return 8 * (front.head - front.seen) >= front.head - front.done


cdef void commit "lmd_commit"(
    const double* length, const double* accel, double* peak, double* v, double* duration,
    Front* front, double end2, double cap2,
) noexcept nogil:
    """Plan every move that nothing behind the horizon can change; bounds as of ``settle``."""
    cdef Py_ssize_t last = settle(
        length, accel, v, front.done + 1, front.seen, front.head, end2, cap2
    )
    front.seen = front.head
    if last <= front.done:
        return
    if front.done < 0:
        front.done = 0
        front.w = v[0]
        v[0] = sqrt(v[0])
    front.w = finish_moves(length, accel, peak, v, duration, front.done, last, front.w)
    front.done = last


def _refuse_limits(**limits):
    """Refuse limits that are not finite and above 0, by name and index."""
    for name, values in limits.items():
        row = np.atleast_1d(np.asarray(values, dtype=np.float64))
        if not (row.min() > 0.0 and row.max() < np.inf):
            bad = int(np.argmax(~((row > 0) & np.isfinite(row))))
            raise ValueError(f"{name} {row[bad]} at index {bad}: must be finite and above 0")


def _refuse_ends(double start_mm_s, double end_mm_s):
    if not (0.0 <= start_mm_s < np.inf and 0.0 <= end_mm_s < np.inf):
        raise ValueError(f"end speeds {start_mm_s}, {end_mm_s} mm/s: must be finite and >= 0")


def _refuse_lengths(points_mm, length_mm):
    """Refuse points whose distances are not finite."""
    if not length_mm.max() <= DBL_MAX:
        rows = np.asarray(points_mm, dtype=np.float64)
        broken = ~np.isfinite(rows).all(axis=1)
        bad = int(np.argmax(broken)) if broken.any() else int(np.argmax(~np.isfinite(length_mm)))
        raise ValueError(f"points_mm {rows[bad].tolist()} at index {bad}: not a finite length")


def plan_trapezoid(
    points_mm, speed_mm_s, double accel_mm_s2, double junction_deviation_mm,
    axis_speed_mm_s, axis_accel_mm_s2, double start_mm_s=0.0, double end_mm_s=0.0,
):
    """Time-optimal trapezoids along a polyline within Klipper's junction rule.

    Parameters
    ----------
    points_mm : (n + 1, 3) float64, mm        corners of the path
    speed_mm_s : (n,) float64, mm/s, > 0      speed limit of each move
    accel_mm_s2, junction_deviation_mm : float, > 0
    axis_speed_mm_s, axis_accel_mm_s2 : (3,) float64, > 0
    start_mm_s, end_mm_s : float, >= 0        wanted speeds at both ends; a start speed that
        cannot be braked is lowered, the caller compares ``v[0]``

    Returns length (n,) mm, v (n + 1,) mm/s at the corners, peak (n,) mm/s, accel (n,) mm/s2
    and duration (n,) s. Raises ValueError for shapes, NaN, infinity and limits of zero.
    """
    cdef const double[:, ::1] xyz = np.ascontiguousarray(points_mm, dtype=np.float64)
    cdef const double[::1] speed = np.ascontiguousarray(speed_mm_s, dtype=np.float64)
    cdef const double[::1] av = np.ascontiguousarray(axis_speed_mm_s, dtype=np.float64)
    cdef const double[::1] aa = np.ascontiguousarray(axis_accel_mm_s2, dtype=np.float64)
    cdef Py_ssize_t n = speed.shape[0]
    if xyz.shape[1] != 3 or xyz.shape[0] != n + 1 or n < 1:
        raise ValueError(f"points_mm has shape {np.shape(points_mm)}, needed ({n + 1}, 3), n >= 1")
    if av.shape[0] != 3 or aa.shape[0] != 3:
        raise ValueError("axis_speed_mm_s and axis_accel_mm_s2 need 3 values each")
    _refuse_limits(
        speed_mm_s=speed, axis_speed_mm_s=av, axis_accel_mm_s2=aa, accel_mm_s2=accel_mm_s2,
        junction_deviation_mm=junction_deviation_mm,
    )
    _refuse_ends(start_mm_s, end_mm_s)
    length_mm = np.empty(n)
    accel_out = np.empty(n)
    peak_mm_s = np.empty(n)
    v_mm_s = np.empty(n + 1)
    duration_s = np.empty(n)
    cdef double[::1] d = length_mm, a = accel_out, p = peak_mm_s, v = v_mm_s, t = duration_s
    cdef double carry[CARRY]
    cdef Py_ssize_t m, bad = 0
    cdef double end2 = end_mm_s * end_mm_s
    cdef Front front
    memset(carry, 0, sizeof(carry))
    front.head = front.seen = 0
    front.done = -1
    front.w = 0.0
    with nogil:
        # invariant: limits of moves before head are known, moves before corner done are planned
        while front.head < n:
            m = n - front.head if n - front.head < WINDOW else WINDOW
            bad += m - geometry(
                &xyz[front.head, 0], &speed[front.head], accel_mm_s2, junction_deviation_mm,
                &av[0], &aa[0], &d[front.head], &a[front.head], &p[front.head], &v[front.head],
                carry, m,
            )
            if front.head == 0:
                v[0] = least(start_mm_s * start_mm_s, p[0])
            front.head += m
            if bad > 0:
                continue
            if front.head == n:
                end2 = least(end2, p[n - 1])
                commit(&d[0], &a[0], &p[0], &v[0], &t[0], &front, end2, end2)
            elif due(&front):
                commit(&d[0], &a[0], &p[0], &v[0], &t[0], &front, 0.0, p[front.head - 1])
    if bad > 0:
        _refuse_lengths(points_mm, length_mm)
        return _without_zero_moves(
            np.asarray(xyz), np.asarray(speed), length_mm, accel_mm_s2, junction_deviation_mm,
            av, aa, start_mm_s, end_mm_s,
        )
    return length_mm, v_mm_s, peak_mm_s, accel_out, duration_s


def _without_zero_moves(
    xyz, speed, length_mm, accel, jd, axis_speed, axis_accel, start_mm_s, end_mm_s
):
    """Plan as if moves of length zero were not there; they take no time."""
    keep = length_mm > 0.0
    n = len(keep)
    first = np.flatnonzero(keep)
    accel_out = np.full(n, accel)
    zero = np.zeros(n)
    if len(first) == 0:
        if start_mm_s or end_mm_s:
            raise ValueError("a path of length zero cannot have an end speed above 0")
        return length_mm, np.zeros(n + 1), zero, accel_out, zero.copy()
    kept = np.concatenate([xyz[:1], xyz[first + 1]])
    _, v, peak, a, t = plan_trapezoid(
        kept, speed[keep], accel, jd, axis_speed, axis_accel, start_mm_s, end_mm_s
    )
    before = np.concatenate([[0], np.cumsum(keep)])  # kept moves before each corner
    v_all = v[before]
    peak_all, duration_all = v_all[:n].copy(), zero
    peak_all[keep], duration_all[keep], accel_out[keep] = peak, t, a
    return length_mm, v_all, peak_all, accel_out, duration_all


cdef Py_ssize_t phases "lmd_phases"(
    const double* length, const double* v, const double* peak, const double* accel,
    double* t, double* s, double* w, double* a, int32_t* move, Py_ssize_t n, PhaseState* state,
) noexcept nogil:
    """Rows of the phases of n moves, from ``state`` on; returns how many, brings it to the end."""
    cdef Py_ssize_t i, m = 0
    cdef double now = state.t, start_mm = state.s, dt, ds, acc, rest
    t[0] = now
    s[0] = start_mm
    w[0] = state.v
    # invariant: rows 0..m are final, phase m begins at (now, s[m], w[m])
    for i in range(n):
        acc = accel[i]
        dt = (peak[i] - v[i]) / acc
        rest = length[i]
        if dt > 1e-12:
            ds = 0.5 * (peak[i] + v[i]) * dt
            rest = rest - ds
            now = now + dt
            a[m] = acc
            move[m] = <int32_t>i
            m += 1
            t[m] = now
            s[m] = start_mm + ds
            w[m] = peak[i]
        dt = (peak[i] - v[i + 1]) / acc
        ds = 0.5 * (peak[i] + v[i + 1]) * dt
        rest = rest - ds
        if rest > 1e-12 * peak[i]:
            now = now + rest / peak[i]
            a[m] = 0.0
            move[m] = <int32_t>i
            m += 1
            t[m] = now
            s[m] = start_mm + length[i] - ds
            w[m] = peak[i]
        if dt > 1e-12:
            now = now + dt
            a[m] = -acc
            move[m] = <int32_t>i
            m += 1
            t[m] = now
            w[m] = v[i + 1]
        start_mm = start_mm + length[i]
        s[m] = start_mm
    state.t = now
    state.s = start_mm
    state.v = w[m]
    return m


def trapezoid_phases(length_mm, v_mm_s, peak_mm_s, accel_mm_s2):
    """Phases of constant acceleration, three a move at most; empty ones left out.

    Returns t_s (m + 1,), s_mm (m + 1,), v_mm_s (m + 1,) at the kinks, a_mm_s2 (m,) and
    move (m,) int32. ``s_mm`` at the end of a move is the running sum of lengths, exactly.
    """
    cdef const double[::1] d = np.ascontiguousarray(length_mm, dtype=np.float64)
    cdef const double[::1] v = np.ascontiguousarray(v_mm_s, dtype=np.float64)
    cdef const double[::1] p = np.ascontiguousarray(peak_mm_s, dtype=np.float64)
    cdef const double[::1] a = np.ascontiguousarray(accel_mm_s2, dtype=np.float64)
    cdef Py_ssize_t n = d.shape[0], m
    if n < 1 or v.shape[0] != n + 1 or p.shape[0] != n or a.shape[0] != n:
        raise ValueError(f"length_mm {n}, v_mm_s {v.shape[0]}, peak_mm_s {p.shape[0]} rows differ")
    t_out, s_out, v_out = np.empty(3 * n + 1), np.empty(3 * n + 1), np.empty(3 * n + 1)
    a_out, move_out = np.empty(3 * n), np.empty(3 * n, dtype=np.int32)
    cdef double[::1] t = t_out, s = s_out, w = v_out, ao = a_out
    cdef int32_t[::1] mo = move_out
    cdef PhaseState state
    state.t = state.s = 0.0
    state.v = v[0]
    with nogil:
        m = phases(&d[0], &v[0], &p[0], &a[0], &t[0], &s[0], &w[0], &ao[0], &mo[0], n, &state)
    return (
        t_out[: m + 1].copy(), s_out[: m + 1].copy(), v_out[: m + 1].copy(),
        a_out[:m].copy(), move_out[:m].copy(),
    )


def junction_limits(
    points_mm, speed_mm_s, double accel_mm_s2, double junction_deviation_mm,
    axis_speed_mm_s, axis_accel_mm_s2,
):
    """What the path itself allows, before any look-ahead; arguments as of ``plan_trapezoid``.

    Returns length (n,) mm, accel (n,) mm/s2 and cruise speed (n,) mm/s of each move within
    the limits of the axes, and the junction speed (n + 1,) mm/s at each corner, 0 at both
    ends. Corners at both ends of a move of length zero have the speed of the corner without it.
    """
    cdef const double[:, ::1] xyz = np.ascontiguousarray(points_mm, dtype=np.float64)
    cdef const double[::1] speed = np.ascontiguousarray(speed_mm_s, dtype=np.float64)
    cdef const double[::1] av = np.ascontiguousarray(axis_speed_mm_s, dtype=np.float64)
    cdef const double[::1] aa = np.ascontiguousarray(axis_accel_mm_s2, dtype=np.float64)
    cdef Py_ssize_t n = speed.shape[0]
    if xyz.shape[1] != 3 or xyz.shape[0] != n + 1 or n < 1:
        raise ValueError(f"points_mm has shape {np.shape(points_mm)}, needed ({n + 1}, 3), n >= 1")
    if av.shape[0] != 3 or aa.shape[0] != 3:
        raise ValueError("axis_speed_mm_s and axis_accel_mm_s2 need 3 values each")
    _refuse_limits(
        speed_mm_s=speed, axis_speed_mm_s=av, axis_accel_mm_s2=aa, accel_mm_s2=accel_mm_s2,
        junction_deviation_mm=junction_deviation_mm,
    )
    length_mm, accel_out, cruise, corner = np.empty(n), np.empty(n), np.empty(n), np.empty(n + 1)
    cdef double[::1] d = length_mm, a = accel_out, c = cruise, v = corner
    cdef double carry[CARRY]
    memset(carry, 0, sizeof(carry))
    with nogil:
        geometry(
            &xyz[0, 0], &speed[0], accel_mm_s2, junction_deviation_mm, &av[0], &aa[0],
            &d[0], &a[0], &c[0], &v[0], carry, n,
        )
    _refuse_lengths(points_mm, length_mm)
    if length_mm.min() == 0.0 and length_mm.max() > 0.0:
        keep = length_mm > 0.0
        first = np.flatnonzero(keep)
        _, accel_out[keep], kept, corner = junction_limits(
            np.concatenate([xyz[:1], np.asarray(xyz)[first + 1]]), np.asarray(speed)[keep],
            accel_mm_s2, junction_deviation_mm, av, aa,
        )
        cruise = np.array(speed)
        cruise[keep] = kept
        return length_mm, accel_out, cruise, corner[np.concatenate([[0], np.cumsum(keep)])]
    corner[0] = corner[n] = 0.0
    return length_mm, accel_out, np.sqrt(cruise), np.sqrt(corner)


cdef void _elements(
    const double* length, const double* tin, const double* tout, const double* speed,
    const double* accel, double jd, const double* axis_speed, const double* axis_accel,
    double* a_out, double* cruise2, double* v2, Py_ssize_t n,
) noexcept nogil:
    """As ``geometry`` for elements whose tangents are given; axis limits may be NULL."""
    cdef Py_ssize_t i, k
    cdef double a, v, u, c
    for i in range(n):
        a = accel[i]
        v = speed[i]
        if axis_speed != NULL:
            for k in range(3):
                u = most(most(fabs(tin[3 * i + k]), fabs(tout[3 * i + k])), TINY)
                v = least(v, axis_speed[k] / u)
                a = least(a, axis_accel[k] / u)
        a_out[i] = a
        cruise2[i] = v * v
        if i > 0:
            c = 0.0
            for k in range(3):
                c += tout[3 * i - 3 + k] * tin[3 * i + k]
            v2[i] = corner2(
                c, a_out[i - 1], a, a_out[i - 1] * length[i - 1], a * length[i],
                cruise2[i - 1], cruise2[i], jd,
            )


def plan_elements(
    length_mm, unit_in, unit_out, speed_mm_s, accel_mm_s2, double junction_deviation_mm,
    axis_speed_mm_s=None, axis_accel_mm_s2=None, double start_mm_s=0.0, double end_mm_s=0.0,
):
    """The look-ahead of ``plan_trapezoid`` for elements of a path given by their tangents.

    Parameters
    ----------
    length_mm : (n,) float64, mm, > 0
    unit_in, unit_out : (n, 3) float64        unit tangents at start and end of each element;
        they differ for an arc
    speed_mm_s : (n,) float64, mm/s, > 0      an arc's centripetal cap sqrt(a r) included
    accel_mm_s2 : float or (n,) float64, > 0  along the path
    axis_speed_mm_s, axis_accel_mm_s2 : (3,) float64 or None
        applied along both tangents of each element: exact for straight ones. For arcs that
        turn through an axis direction in between, leave them None and lower ``speed_mm_s``
        and ``accel_mm_s2`` yourself.

    Returns length, v (n + 1,), peak, accel, duration as ``plan_trapezoid``. Raises ValueError.
    """
    cdef const double[::1] d = np.ascontiguousarray(length_mm, dtype=np.float64)
    cdef const double[:, ::1] tin = np.ascontiguousarray(unit_in, dtype=np.float64)
    cdef const double[:, ::1] tout = np.ascontiguousarray(unit_out, dtype=np.float64)
    cdef const double[::1] speed = np.ascontiguousarray(speed_mm_s, dtype=np.float64)
    cdef Py_ssize_t n = d.shape[0]
    cdef const double[::1] accel = np.ascontiguousarray(
        np.broadcast_to(np.asarray(accel_mm_s2, dtype=np.float64), (n,))
    )
    cdef const double[::1] av, aa
    cdef const double* av_at = NULL
    cdef const double* aa_at = NULL
    if n < 1 or speed.shape[0] != n:
        raise ValueError(f"length_mm {n}, speed_mm_s {speed.shape[0]} rows: must agree, >= 1")
    for name, rows in (("unit_in", tin), ("unit_out", tout)):
        if rows.shape[0] != n or rows.shape[1] != 3:
            raise ValueError(f"{name} has shape {np.shape(rows)}, needed ({n}, 3)")
        off = np.abs(np.einsum("ij,ij->i", rows, rows) - 1.0)
        if not off.max() < 1e-6:
            bad = int(np.argmax(~(off < 1e-6)))
            raise ValueError(f"{name} {np.asarray(rows)[bad].tolist()} at index {bad}: not a unit")
    _refuse_limits(
        length_mm=d, speed_mm_s=speed, accel_mm_s2=accel,
        junction_deviation_mm=junction_deviation_mm,
    )
    _refuse_ends(start_mm_s, end_mm_s)
    if (axis_speed_mm_s is None) != (axis_accel_mm_s2 is None):
        raise ValueError("axis_speed_mm_s and axis_accel_mm_s2: give both or neither")
    if axis_speed_mm_s is not None:
        av = np.ascontiguousarray(axis_speed_mm_s, dtype=np.float64)
        aa = np.ascontiguousarray(axis_accel_mm_s2, dtype=np.float64)
        if av.shape[0] != 3 or aa.shape[0] != 3:
            raise ValueError("axis_speed_mm_s and axis_accel_mm_s2 need 3 values each")
        _refuse_limits(axis_speed_mm_s=av, axis_accel_mm_s2=aa)
        av_at, aa_at = &av[0], &aa[0]
    accel_out, peak_out, v_out = np.empty(n), np.empty(n), np.empty(n + 1)
    duration = np.empty(n)
    cdef double[::1] a = accel_out, p = peak_out, v = v_out, t = duration
    cdef double end2
    cdef Front front
    with nogil:
        _elements(
            &d[0], &tin[0, 0], &tout[0, 0], &speed[0], &accel[0], junction_deviation_mm,
            av_at, aa_at, &a[0], &p[0], &v[0], n,
        )
        v[0] = least(start_mm_s * start_mm_s, p[0])
        end2 = least(end_mm_s * end_mm_s, p[n - 1])
        front.seen = 0
        front.head = n
        front.done = -1
        commit(&d[0], &a[0], &p[0], &v[0], &t[0], &front, end2, end2)
    return np.array(d), v_out, peak_out, accel_out, duration

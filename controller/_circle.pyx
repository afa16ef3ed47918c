# distutils: extra_compile_args = -fno-math-errno -fno-trapping-math
# as in _motion.pyx: two moves at once, no value changed
"""Planner kernel, friction circle: look-ahead under the total acceleration on rounded corners.

Imports nothing of ours. Entries (``def``) validate and allocate and raise ValueError; the
kernels (``cdef ... noexcept nogil``) do neither. Lengths mm, times s, speeds mm/s.

A corner becomes an arc of radius r that touches both moves; h is half of the arc's length, so
move i is: second half of arc i, a middle piece (straight, or an arc of its own), first half of
arc i + 1. Squared speeds w stand at all ends of these pieces, ``w[3 i]`` in the middle of arc i.
Acceleration along the path is constant in a piece, a_t = (w1 - w0) / 2L, so w is linear in s and
    a_t^2 + (w / r)^2 <= a^2
is tightest at the faster end. From the slow end w0 the fastest other end w1 is the root of
    (w1 - w0)^2 + (2 L w1 / r)^2 = (2 L a)^2,
the same forwards and backwards. Axis limits: on a straight piece a <= A_k / |u_k|; on an arc the
axis sees at most a sqrt(1 - b_k^2), b the normal of the arc's plane.
"""

from libc.math cimport INFINITY, fabs, sqrt
from libc.stdint cimport int32_t

import numpy as np

cdef extern from *:
    bint unlikely(bint) noexcept nogil  # of Cython's own C

cdef enum:
    BLOCK = 256  # moves whose scratch rows stay in the first-level cache

cdef double TINY = 1e-30  # keeps divisions defined
cdef double HUGE = 1e60  # no limit; its square is still finite


cdef inline double least(double a, double b) noexcept nogil:
    return a if a < b else b


cdef inline double most(double a, double b) noexcept nogil:
    return a if a > b else b


cdef struct Path:
    const double* xyz  # 3 (n + 1): corners
    const double* speed  # n: limit of each move
    const double* radius  # n + 1: of the arc at each corner; 0: sharp, stop; HUGE: no turn
    const double* half  # n + 1: half length of that arc
    const double* middle  # n: length of each middle piece
    const double* bend  # n: radius of each middle piece (HUGE: straight); NULL: all straight
    const double* pull  # n: acceleration limit of each middle piece; NULL: none of its own
    double accel  # total
    double axis_speed[3]
    double axis_accel[3]
    bint axes  # the axes may limit
    bint slow  # and so may their speeds
    Py_ssize_t n  # moves


cdef struct Rows:
    # limits of one block: slot k is move or corner at + k
    double v2[BLOCK + 1]  # squared speed limit of a move; slot k is move at + k - 1
    double line[BLOCK]  # acceleration along a middle piece
    double top[BLOCK + 1]  # squared speed limit of an arc
    # root of the friction circle over half an arc: w1 = p w0 + sqrt(q - r w0^2)
    double p[BLOCK + 1]
    double q[BLOCK + 1]
    double r[BLOCK + 1]
    double own[BLOCK + 1]  # acceleration of a move or an arc within the axes' limits
    double px[BLOCK + 1]  # squared share of the axes in the plane of an arc, times its w
    double py[BLOCK + 1]
    double pz[BLOCK + 1]
    double ux[BLOCK + 2]  # direction of a move; slot k is move at + k - 1
    double uy[BLOCK + 2]
    double uz[BLOCK + 2]


cdef inline double _direction(
    const double* a, double* x, double* y, double* z
) noexcept nogil:
    cdef double dx = a[3] - a[0], dy = a[4] - a[1], dz = a[5] - a[2]
    cdef double d = sqrt(dx * dx + dy * dy + dz * dz)
    cdef double inv = 1.0 / most(d, TINY)
    x[0] = dx * inv
    y[0] = dy * inv
    z[0] = dz * inv
    return d


cdef void _axis_limits(
    const Path* path, Rows* row, Py_ssize_t at, Py_ssize_t m, bint arcs
) noexcept nogil:
    """Lower the block's limits to what the axes allow."""
    cdef Py_ssize_t k, first = 0 if at > 0 else 1, last = m + 2 if at + m < path.n else m + 1
    cdef double ax = 1.0 / path.axis_accel[0], vx = 1.0 / path.axis_speed[0]
    cdef double ay = 1.0 / path.axis_accel[1], vy = 1.0 / path.axis_speed[1]
    cdef double az = 1.0 / path.axis_accel[2], vz = 1.0 / path.axis_speed[2]
    cdef double ia = 1.0 / path.accel
    cdef double x, y, z, w, c, inv, a, v
    for k in range(first, last):
        _direction(&path.xyz[3 * (at + k - 1)], &row.ux[k], &row.uy[k], &row.uz[k])
    if first == 1:  # the path's ends have no corner: the same direction on both sides
        row.ux[0] = row.ux[1]
        row.uy[0] = row.uy[1]
        row.uz[0] = row.uz[1]
    if last == m + 1:
        row.ux[m + 1] = row.ux[m]
        row.uy[m + 1] = row.uy[m]
        row.uz[m + 1] = row.uz[m]
    for k in range(m + 1):
        # slowness of the tightest limit; one division serves two reciprocals
        x = fabs(row.ux[k])
        y = fabs(row.uy[k])
        z = fabs(row.uz[k])
        a = most(most(x * ax, y * ay), most(z * az, ia))
        v = most(most(x * vx, y * vy), most(z * vz, TINY))
        inv = 1.0 / (a * v)
        row.own[k] = v * inv
        v = a * inv
        row.v2[k] = least(row.v2[k], v * v)
    for k in range(m):
        row.line[k] = least(row.line[k], row.own[k + 1])
    if not arcs:
        return
    ax *= ax
    ay *= ay
    az *= az
    ia *= ia
    vx *= vx
    vy *= vy
    vz *= vz
    for k in range(m + 1):
        # the turn's normal, not of unit length: w is the turn's sine squared
        x = row.uy[k] * row.uz[k + 1] - row.uz[k] * row.uy[k + 1]
        y = row.uz[k] * row.ux[k + 1] - row.ux[k] * row.uz[k + 1]
        z = row.ux[k] * row.uy[k + 1] - row.uy[k] * row.ux[k + 1]
        x = x * x
        y = y * y
        z = z * z
        w = x + y + z
        # squared share of each axis in the plane of the arc, times w; a turn below 1e-8 has no
        # plane, only its tangent
        x = most(row.ux[k] * row.ux[k], row.ux[k + 1] * row.ux[k + 1]) if w < 1e-16 else w - x
        y = most(row.uy[k] * row.uy[k], row.uy[k + 1] * row.uy[k + 1]) if w < 1e-16 else w - y
        z = most(row.uz[k] * row.uz[k], row.uz[k + 1] * row.uz[k + 1]) if w < 1e-16 else w - z
        w = 1.0 if w < 1e-16 else w
        a = w / most(most(x * ax, y * ay), most(z * az, w * ia))
        row.q[k] = 4.0 * path.half[at + k] * path.half[at + k] * (row.p[k] * a)
        row.top[k] = sqrt(a) * path.radius[at + k]
        row.px[k] = x
        row.py[k] = y
        row.pz[k] = z
        row.own[k] = w
    if not path.slow:
        return
    for k in range(m + 1):
        # squared share of each axis in the tangent, anywhere on the arc: at most its share in
        # the plane, and at most the greater one at the arc's ends over the cosine of half a turn
        c = 0.5 + 0.5 * (
            row.ux[k] * row.ux[k + 1] + row.uy[k] * row.uy[k + 1] + row.uz[k] * row.uz[k + 1]
        )
        c = most(c, 1e-12)
        w = row.own[k]
        x = most(row.ux[k] * row.ux[k], row.ux[k + 1] * row.ux[k + 1]) * w
        y = most(row.uy[k] * row.uy[k], row.uy[k + 1] * row.uy[k + 1]) * w
        z = most(row.uz[k] * row.uz[k], row.uz[k + 1] * row.uz[k + 1]) * w
        x = least(row.px[k] * c, x) * vx
        y = least(row.py[k] * c, y) * vy
        z = least(row.pz[k] * c, z) * vz
        row.top[k] = least(row.top[k], w * c / most(most(x, y), most(z, TINY)))


cdef void _limits(
    const Path* path, Rows* row, Py_ssize_t at, Py_ssize_t m, bint arcs
) noexcept nogil:
    """Limits of moves at .. at + m - 1; with ``arcs`` also those of corners at .. at + m."""
    cdef Py_ssize_t k
    cdef double l2, r2, inv, a = path.accel
    cdef const double* radius = &path.radius[at]
    cdef const double* half = &path.half[at]
    cdef const double* speed = &path.speed[at]
    for k in range(m):
        row.v2[k + 1] = speed[k] * speed[k]
        row.line[k] = a
    row.v2[0] = path.speed[at - 1] * path.speed[at - 1] if at > 0 else row.v2[1]
    if path.pull != NULL:
        for k in range(m):
            row.line[k] = least(a, path.pull[at + k])
    for k in range(m + 1 if arcs else 0):
        l2 = 4.0 * half[k] * half[k]
        r2 = radius[k] * radius[k]
        inv = 1.0 / most(r2 + l2, TINY)
        row.p[k] = r2 * inv
        row.q[k] = r2 * inv * l2 * a * a
        row.r[k] = r2 * inv * (l2 * inv)
        row.top[k] = a * radius[k]
    if path.axes:
        _axis_limits(path, row, at, m, arcs)
    if path.bend != NULL:
        for k in range(m):
            row.v2[k + 1] = least(row.v2[k + 1], row.line[k] * path.bend[at + k])
        if at > 0:
            inv = a if path.pull == NULL else least(a, path.pull[at - 1])
            row.v2[0] = least(row.v2[0], inv * path.bend[at - 1])


cdef inline double _reach(double w, double p, double q, double r) noexcept nogil:
    return p * w + sqrt(most(q - r * w * w, 0.0))


cdef inline double _across(
    double w, const Path* path, double a, Py_ssize_t i
) noexcept nogil:
    """Greatest squared speed at the other end of a middle piece."""
    cdef double l2, r2, inv
    if path.bend == NULL or path.bend[i] >= HUGE:
        return w + 2.0 * a * path.middle[i]
    l2 = 4.0 * path.middle[i] * path.middle[i]
    r2 = path.bend[i] * path.bend[i]
    inv = 1.0 / most(r2 + l2, TINY)
    return _reach(w, r2 * inv, r2 * inv * l2 * a * a, r2 * inv * (l2 * inv))


cdef void _backward(const Path* path, double* w, Py_ssize_t n) noexcept nogil:
    """Greatest squared speeds from which the path can still be braked; w[3 n] is given."""
    cdef Rows row
    cdef Py_ssize_t at, i, k, m
    cdef double x = w[3 * n]
    at = n
    # invariant: w[3 at] is final for this pass
    while at > 0:
        m = at if at < BLOCK else BLOCK
        at -= m
        _limits(path, &row, at, m, True)
        for k in range(m - 1, -1, -1):
            i = 3 * (at + k)
            x = least(
                least(row.top[k + 1], row.v2[k + 1]),
                _reach(x, row.p[k + 1], row.q[k + 1], row.r[k + 1]),
            )
            w[i + 2] = x
            x = least(least(row.top[k], row.v2[k + 1]), _across(x, path, row.line[k], at + k))
            w[i + 1] = x
            x = least(
                least(row.top[k], least(row.v2[k], row.v2[k + 1])),
                _reach(x, row.p[k], row.q[k], row.r[k]),
            )
            w[i] = x


cdef void _forward(const Path* path, double* w, Py_ssize_t n) noexcept nogil:
    """Lower squared speeds to what can be reached from w[0]."""
    cdef Rows row
    cdef Py_ssize_t at = 0, i, k, m
    cdef double x = w[0], y
    # invariant: w[: 3 at + 1] is final
    while at < n:
        m = n - at if n - at < BLOCK else BLOCK
        _limits(path, &row, at, m, True)
        for k in range(m):
            i = 3 * (at + k)
            # mostly the speed stands: a branch that is guessed right breaks the chain of roots
            y = _reach(x, row.p[k], row.q[k], row.r[k])
            x = w[i + 1]
            if unlikely(y < x):
                x = w[i + 1] = y
            y = _across(x, path, row.line[k], at + k)
            x = w[i + 2]
            if unlikely(y < x):
                x = w[i + 2] = y
            y = _reach(x, row.p[k + 1], row.q[k + 1], row.r[k + 1])
            x = w[i + 3]
            if unlikely(y < x):
                x = w[i + 3] = y
        at += m


cdef void _times(const Path* path, const double* w, double* duration, Py_ssize_t n) noexcept nogil:
    """Duration of each move."""
    cdef Rows row
    cdef double v[3 * BLOCK + 1]
    cdef double a, b, e, p, rest
    cdef Py_ssize_t at = 0, i, k, m
    while at < n:
        m = n - at if n - at < BLOCK else BLOCK
        _limits(path, &row, at, m, False)
        for k in range(3 * m + 1):
            v[k] = sqrt(w[3 * at + k])
        for k in range(m):
            i = at + k
            b = v[3 * k + 1]
            e = v[3 * k + 2]
            if path.bend != NULL and path.bend[i] < HUGE:
                rest = 2.0 * path.middle[i] / most(b + e, TINY)
            else:
                a = row.line[k]
                p = least(row.v2[k + 1], 0.5 * (b * b + e * e) + a * path.middle[i])
                p = most(sqrt(p), most(b, e))  # most: rounding only
                rest = path.middle[i] - (p * p - 0.5 * (b * b + e * e)) / a
                rest = (2.0 * p - b - e) / a + most(rest, 0.0) / most(p, TINY)
            duration[i] = (
                rest + 2.0 * path.half[i] / most(v[3 * k] + b, TINY)
                + 2.0 * path.half[i + 1] / most(e + v[3 * k + 3], TINY)
            )
        at += m


cdef struct Out:
    # phases so far: row m of t, s, v is the end of phase m - 1
    double* t
    double* s
    double* v
    double* a
    double* longest
    int32_t* move
    double sagitta8  # 8 x how far a segment may leave its arc
    Py_ssize_t m


cdef inline void _phase(
    Out* out, double ds, double dt, double a, double end, double radius, Py_ssize_t move
) noexcept nogil:
    cdef Py_ssize_t m = out.m
    out.t[m + 1] = out.t[m] + dt
    out.s[m + 1] = out.s[m] + ds
    out.v[m + 1] = end
    out.a[m] = a
    out.move[m] = <int32_t>move
    out.longest[m] = INFINITY
    if radius < 1e9:
        out.longest[m] = sqrt(out.sagitta8 * radius) / most(most(out.v[m], end), TINY)
    out.m = m + 1


cdef inline void _arc(
    Out* out, double length, double w0, double w1, double radius, Py_ssize_t move
) noexcept nogil:
    """One phase for an arc, or for a middle piece of one acceleration."""
    cdef double dt, b, e
    if length <= 0.0:
        return
    b = sqrt(w0)
    e = sqrt(w1)
    dt = 2.0 * length / most(b + e, TINY)
    if dt > 1e-12:
        _phase(out, length, dt, (e - b) / dt, e, radius, move)


cdef void _phases(const Path* path, const double* w, Out* out, Py_ssize_t n) noexcept nogil:
    cdef Rows row
    cdef double a, b, e, p, ds, dt, start = 0.0, begin
    cdef Py_ssize_t at = 0, i, k, m
    out.t[0] = out.s[0] = 0.0
    out.v[0] = sqrt(w[0])
    # invariant: rows up to out.m are final; the last one's s is the end of the piece before
    while at < n:
        m = n - at if n - at < BLOCK else BLOCK
        _limits(path, &row, at, m, False)
        for k in range(m):
            i = at + k
            begin = start
            _arc(out, path.half[i], w[3 * i], w[3 * i + 1], path.radius[i], i)
            begin = begin + path.half[i]
            if out.m > 0:
                out.s[out.m] = begin
            if path.bend != NULL and path.bend[i] < HUGE:
                _arc(out, path.middle[i], w[3 * i + 1], w[3 * i + 2], path.bend[i], i)
            elif path.middle[i] > 0.0:
                a = row.line[k]
                b = sqrt(w[3 * i + 1])
                e = sqrt(w[3 * i + 2])
                p = least(
                    row.v2[k + 1], 0.5 * (w[3 * i + 1] + w[3 * i + 2]) + a * path.middle[i]
                )
                p = most(sqrt(p), most(b, e))
                dt = (p - b) / a
                ds = 0.5 * (p + b) * dt
                if dt > 1e-12:
                    _phase(out, ds, dt, a, p, HUGE, i)
                dt = (p - e) / a
                ds = path.middle[i] - ds - 0.5 * (p + e) * dt
                if ds > 1e-12 * p:
                    _phase(out, ds, ds / p, 0.0, p, HUGE, i)
                if dt > 1e-12:
                    _phase(out, 0.5 * (p + e) * dt, dt, -a, e, HUGE, i)
            begin = begin + path.middle[i]
            if out.m > 0:
                out.s[out.m] = begin
            _arc(out, path.half[i + 1], w[3 * i + 2], w[3 * i + 3], path.radius[i + 1], i)
            # the corner's own length, by the same sum as the caller's
            start = start + (path.half[i] + path.middle[i] + path.half[i + 1])
            if out.m > 0:
                out.s[out.m] = start
        at += m


cdef class _Inputs:
    """Checked arrays, and the pointers to them."""

    cdef const double[:, ::1] xyz
    cdef const double[::1] speed, radius, half, middle, bend, pull
    cdef Path path
    cdef Py_ssize_t n

    def __init__(
        self, points_mm, speed_mm_s, rounding, double accel_mm_s2, axis_speed_mm_s,
        axis_accel_mm_s2, bend_mm, pull_mm_s2,
    ):
        self.xyz = _points(points_mm)
        self.n = self.path.n = self.xyz.shape[0] - 1
        self.speed = _rows(speed_mm_s, self.n, "speed_mm_s")
        self.radius = _rows(rounding[0], self.n + 1, "radius_mm")
        self.half = _rows(rounding[1], self.n + 1, "half_mm")
        self.middle = _rows(rounding[2], self.n, "middle_mm")
        speed = _rows(axis_speed_mm_s, 3, "axis_speed_mm_s")
        accel = _rows(axis_accel_mm_s2, 3, "axis_accel_mm_s2")
        _refuse("speed_mm_s", self.speed)
        _refuse("axis_speed_mm_s", speed)
        _refuse("axis_accel_mm_s2", accel)
        _refuse("accel_mm_s2", [accel_mm_s2])
        self.path.accel = accel_mm_s2
        self.path.bend = self.path.pull = NULL
        if bend_mm is not None:
            self.bend = _rows(bend_mm, self.n, "bend_mm")
            self.path.bend = &self.bend[0]
        if pull_mm_s2 is not None:
            self.pull = _rows(pull_mm_s2, self.n, "pull_mm_s2")
            _refuse("pull_mm_s2", self.pull)
            self.path.pull = &self.pull[0]
        self.path.xyz = &self.xyz[0, 0]
        self.path.speed = &self.speed[0]
        self.path.radius = &self.radius[0]
        self.path.half = &self.half[0]
        self.path.middle = &self.middle[0]
        self.path.slow = bool(speed.min() < np.max(self.speed))
        self.path.axes = bool(accel.min() < accel_mm_s2 or self.path.slow)
        for k in range(3):
            self.path.axis_speed[k] = speed[k]
            self.path.axis_accel[k] = accel[k]


def _rows(values, Py_ssize_t rows, name):
    out = np.ascontiguousarray(values, dtype=np.float64)
    if out.shape != (rows,):
        raise ValueError(f"{name} has shape {np.shape(values)}, needed ({rows},)")
    return out


def _points(points_mm):
    out = np.ascontiguousarray(points_mm, dtype=np.float64)
    if out.ndim != 2 or out.shape[1] != 3 or out.shape[0] < 2:
        raise ValueError(f"points_mm has shape {np.shape(points_mm)}, needed (n + 1, 3), n >= 1")
    return out


def _refuse(name, values):
    low, high = float(np.min(values)), float(np.max(values))
    if not (low > 0.0 and high < np.inf):
        bad = int(np.argmax(~((np.asarray(values) > 0) & np.isfinite(values))))
        raise ValueError(f"{name} {values[bad]} at index {bad}: must be finite and above 0")


def plan_circle(
    points_mm, speed_mm_s, rounding, double accel_mm_s2, axis_speed_mm_s, axis_accel_mm_s2,
    double start_mm_s=0.0, double end_mm_s=0.0, bend_mm=None, pull_mm_s2=None,
):
    """Look-ahead under the total acceleration along a path with rounded corners.

    Parameters
    ----------
    points_mm : (n + 1, 3) float64, mm
    speed_mm_s : (n,) float64, mm/s, > 0
    rounding : radius (n + 1,), half (n + 1,), middle (n,), mm, as of ``round_corners``
    accel_mm_s2 : float, > 0                            total acceleration
    axis_speed_mm_s, axis_accel_mm_s2 : (3,) float64, > 0
    start_mm_s, end_mm_s : float, >= 0                  as of ``_motion.plan_trapezoid``
    bend_mm : (n,) float64 or None     radius of middle pieces that are arcs; 1e60: straight
    pull_mm_s2 : (n,) float64 or None  acceleration limit of middle pieces, beside the others

    Returns squared speeds (3 n + 1,) mm2/s2 (middle of arc i at 3 i, then start and end of the
    middle piece) and duration (n,) s. Raises ValueError.
    """
    cdef _Inputs own = _Inputs(
        points_mm, speed_mm_s, rounding, accel_mm_s2, axis_speed_mm_s, axis_accel_mm_s2,
        bend_mm, pull_mm_s2,
    )
    if not (0.0 <= start_mm_s < np.inf and 0.0 <= end_mm_s < np.inf):
        raise ValueError(f"end speeds {start_mm_s}, {end_mm_s} mm/s: must be finite and >= 0")
    squared, duration_s = np.empty(3 * own.n + 1), np.empty(own.n)
    cdef double[::1] w = squared, t = duration_s
    cdef Rows row
    with nogil:
        _limits(&own.path, &row, own.n - 1, 1, False)
        w[3 * own.n] = least(end_mm_s * end_mm_s, row.v2[1])
        _backward(&own.path, &w[0], own.n)
        w[0] = least(start_mm_s * start_mm_s, w[0])
        _forward(&own.path, &w[0], own.n)
        _times(&own.path, &w[0], &t[0], own.n)
    return squared, duration_s


def circle_phases(
    points_mm, speed_mm_s, rounding, double accel_mm_s2, axis_speed_mm_s, axis_accel_mm_s2,
    squared, double sagitta_mm, bend_mm=None, pull_mm_s2=None,
):
    """Phases of constant acceleration of a plan; arguments as of ``plan_circle``.

    ``sagitta_mm`` is how far the chord of a segment may leave an arc. Returns t_s, s_mm, v_mm_s
    (m + 1,), a_mm_s2 (m,), move (m,) int32 and longest_s (m,): the longest segment for that.
    """
    cdef _Inputs own = _Inputs(
        points_mm, speed_mm_s, rounding, accel_mm_s2, axis_speed_mm_s, axis_accel_mm_s2,
        bend_mm, pull_mm_s2,
    )
    cdef const double[::1] w = _rows(squared, 3 * own.n + 1, "squared")
    _refuse("sagitta_mm", [sagitta_mm])
    cdef Py_ssize_t most_rows = 5 * own.n, m
    t_out, s_out, v_out = np.empty(most_rows + 1), np.empty(most_rows + 1), np.empty(most_rows + 1)
    a_out, longest, move = np.empty(most_rows), np.empty(most_rows), np.empty(most_rows, np.int32)
    cdef double[::1] t = t_out, s = s_out, v = v_out, a = a_out, x = longest
    cdef int32_t[::1] mo = move
    cdef Out out
    out.t, out.s, out.v, out.a = &t[0], &s[0], &v[0], &a[0]
    out.longest, out.move = &x[0], &mo[0]
    out.sagitta8 = 8.0 * sagitta_mm
    out.m = 0
    with nogil:
        _phases(&own.path, &w[0], &out, own.n)
    m = out.m
    return (
        t_out[: m + 1].copy(), s_out[: m + 1].copy(), v_out[: m + 1].copy(), a_out[:m].copy(),
        move[:m].copy(), longest[:m].copy(),
    )

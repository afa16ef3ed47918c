# distutils: extra_compile_args = -fno-math-errno -fno-trapping-math
# as in _motion.pyx: two moves at once, no value changed
"""Planner kernel, curves: arcs at the corners of a polyline, and places along the result.

Imports nothing of ours. Entries (``def``) validate and allocate and raise ValueError; the
kernels (``cdef ... noexcept nogil``) do neither. Lengths mm.

A corner that turns by phi gets the arc of radius r that touches both moves at the distance
e = r tan(phi/2) from the corner; its middle is e tan(phi/4) away from the corner. Sine and
cosine of phi/2 are half the lengths of difference and sum of the two directions, which keeps
turns of 1e-15 as exact as right angles.
"""

from libc.math cimport sin, sqrt, tan
from libc.stdint cimport uint8_t

import numpy as np

cdef enum:
    BLOCK = 256  # moves whose scratch rows stay in the first-level cache

cdef double TINY = 1e-30  # keeps divisions defined
cdef double HUGE = 1e60  # radius of no turn; its square is still finite
# an arc of 10 nm is passed at 0.14 mm/s under 2000 mm/s2: such corners stop and stay sharp
cdef double LEAST_RADIUS = 1e-5


cdef inline double least(double a, double b) noexcept nogil:
    return a if a < b else b


cdef inline double most(double a, double b) noexcept nogil:
    return a if a > b else b


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


cdef void _round(
    const double* xyz, double tolerance, double enough, const uint8_t* fixed,
    double* radius, double* half, double* middle, Py_ssize_t n,
) noexcept nogil:
    """Arc at each inner corner; ``fixed`` corners (NULL: none) get none."""
    cdef double ux[BLOCK + 1]
    cdef double uy[BLOCK + 1]
    cdef double uz[BLOCK + 1]
    cdef double d[BLOCK + 1]
    cdef double touch[BLOCK + 1]
    cdef double x, y, z, s, c, t, e, g, r, last = 0.0
    cdef Py_ssize_t at = 0, i, k, m
    # invariant: slot 0 holds the last move of the block before; ``middle`` of that move still
    # lacks what its end corner takes
    ux[0] = uy[0] = uz[0] = d[0] = 0.0
    while at < n:
        m = n - at if n - at < BLOCK else BLOCK
        for k in range(m):
            d[k + 1] = _direction(&xyz[3 * (at + k)], &ux[k + 1], &uy[k + 1], &uz[k + 1])
        for k in range(m):
            # s, c: sine and cosine of half the turn; the difference keeps small turns exact
            x = ux[k + 1] - ux[k]
            y = uy[k + 1] - uy[k]
            z = uz[k + 1] - uz[k]
            s = most(0.5 * sqrt(x * x + y * y + z * z), TINY)
            x = ux[k + 1] + ux[k]
            y = uy[k + 1] + uy[k]
            z = uz[k + 1] + uz[k]
            c = 0.5 * sqrt(x * x + y * y + z * z)
            t = 1.0 / (1.0 + c)  # s t = tan(turn / 4): the deviation per touch length
            e = least(0.5 * least(d[k], d[k + 1]), tolerance / (s * t))
            e = least(e, enough * s / most(c, TINY))
            # a quarter turn's arc tangent over s, by two more halvings and its series
            t = t / (1.0 + sqrt(1.0 + s * t * s * t))
            t = t / (1.0 + sqrt(1.0 + s * t * s * t))
            g = s * t * s * t
            g = 1.0 + g * (-1.0 / 3 + g * (1.0 / 5 + g * (-1.0 / 7 + g * (1.0 / 9 + g * (
                -1.0 / 11 + g * (1.0 / 13 + g * (-1.0 / 15 + g * (1.0 / 17 + g * (
                    -1.0 / 19 + g * (1.0 / 21))))))))))
            r = e * c / s
            e = e if r > LEAST_RADIUS else 0.0
            radius[at + k] = r if r > LEAST_RADIUS else 0.0
            half[at + k] = e * c * (8.0 * t * g)
            touch[k] = e
        if at == 0:  # the path's ends have no corner
            touch[0] = half[0] = 0.0
            radius[0] = HUGE
        if fixed != NULL:
            for k in range(m):
                if fixed[at + k]:
                    touch[k] = half[at + k] = 0.0
                    radius[at + k] = HUGE
        for k in range(m):
            middle[at + k] = d[k + 1] - touch[k]
        if at > 0:
            middle[at - 1] = most(middle[at - 1] - touch[0], 0.0)
        for k in range(1, m):
            middle[at + k - 1] = most(middle[at + k - 1] - touch[k], 0.0)
        ux[0] = ux[m]
        uy[0] = uy[m]
        uz[0] = uz[m]
        d[0] = d[m]
        at += m
    half[n] = 0.0
    radius[n] = HUGE


cdef void _places(
    const double* xyz, const double* radius, const double* half, const double* s_move,
    const double* s, double* out, Py_ssize_t n, Py_ssize_t k,
) noexcept nogil:
    """Places at sorted lengths on a path with rounded corners, middle pieces straight."""
    cdef Py_ssize_t i = -1, at = 0, j, c, done = -1
    cdef int side, q
    cdef double d = 0.0, x, y, r, e, f, w
    cdef double u[3]
    cdef double other[3]
    cdef double in_[3]  # at the arc's end on this move: towards the arc's centre
    cdef double tip[3]  # that end
    for q in range(3):
        u[q] = in_[q] = tip[q] = 0.0
    # invariant: s[j] lies on move ``at`` or behind it
    for j in range(k):
        while at < n - 1 and s_move[at + 1] < s[j]:
            at += 1
        if at != i:
            i = at
            d = _direction(&xyz[3 * i], &u[0], &u[1], &u[2])
            done = -1
        x = s[j] - s_move[i]
        y = s_move[i + 1] - s[j]
        # only a corner with an arc has moves on both of its sides: ends of the path have none
        if (half[i] > 0.0 and x < half[i]) or (half[i + 1] > 0.0 and y < half[i + 1]):
            c = i if half[i] > 0.0 and x < half[i] else i + 1
            side = 1 if c == i else -1  # the arc lies behind / ahead of this move's middle
            r = radius[c]
            if c != done:
                done = c
                e = half[c] if half[c] < 1e-9 * r else r * tan(half[c] / r)
                _direction(&xyz[3 * (c - 1) if side == 1 else 3 * c], &other[0], &other[1],
                           &other[2])
                # the part of the turn that is square to this move
                f = u[0] * other[0] + u[1] * other[1] + u[2] * other[2]
                w = 0.0
                for q in range(3):
                    in_[q] = side * (u[q] * f - other[q])
                    tip[q] = xyz[3 * c + q] + side * e * u[q]
                    w += in_[q] * in_[q]
                w = 1.0 / most(sqrt(w), TINY)
                for q in range(3):
                    in_[q] = in_[q] * w
            y = half[c] - (x if side == 1 else y)  # along the arc from its end on this move
            w = y / r
            f = y if w < 1e-9 else r * sin(w)
            w = sin(0.5 * w)
            w = 0.5 * y * (y / r) if w < 1e-9 else 2.0 * r * w * w
            for q in range(3):
                out[3 * j + q] = tip[q] - side * u[q] * f + in_[q] * w
        else:
            # measured from the nearer corner's tangent point, so that both joints are exact
            r = radius[i]
            e = half[i] if half[i] < 1e-9 * r or half[i] == 0.0 else r * tan(half[i] / r)
            f = e + (x - half[i])
            for q in range(3):
                out[3 * j + q] = xyz[3 * i + q] + f * u[q]


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


def round_corners(points_mm, double tolerance_mm, fixed=None, double enough_mm=1e12):
    """Arcs at the corners of a polyline, tangent to both moves, within half of each move.

    Parameters
    ----------
    points_mm : (n + 1, 3) float64, mm    no two neighbours nearer than 1 nm
    tolerance_mm : float, > 0             greatest distance of a corner from its arc
    fixed : (n + 1,) uint8 or None        corners that are not to be rounded
    enough_mm : float, > 0                radius that no arc needs to exceed: long moves that
        hardly turn stay straight for the most part, and can be sped up on

    Returns radius (n + 1,) mm (0: the corner is sharp; 1e60 at both ends and where fixed), half
    the arc's length (n + 1,) mm and length of the straight rest (n,) mm. Raises ValueError.
    """
    cdef const double[:, ::1] xyz = _points(points_mm)
    cdef Py_ssize_t n = xyz.shape[0] - 1
    cdef const uint8_t[::1] flags
    cdef const uint8_t* flag = NULL
    _refuse("path_tolerance_mm", [tolerance_mm])
    _refuse("enough_mm", [enough_mm])
    if fixed is not None:
        flags = np.ascontiguousarray(fixed, dtype=np.uint8)
        if flags.shape[0] != n + 1:
            raise ValueError(f"fixed has {flags.shape[0]} rows, needed {n + 1}")
        flag = &flags[0]
    radius_mm, half_mm, middle_mm = np.empty(n + 1), np.empty(n + 1), np.empty(n)
    cdef double[::1] r = radius_mm, h = half_mm, m = middle_mm
    with nogil:
        _round(&xyz[0, 0], tolerance_mm, enough_mm, flag, &r[0], &h[0], &m[0], n)
    if not middle_mm.sum() + half_mm.sum() < np.inf:
        rows = np.asarray(xyz)
        broken = ~np.isfinite(rows).all(axis=1)
        bad = int(np.argmax(broken)) if broken.any() else int(np.argmax(~np.isfinite(middle_mm)))
        raise ValueError(f"points_mm {rows[bad].tolist()} at index {bad}: not a finite length")
    return radius_mm, half_mm, middle_mm


def places(points_mm, radius_mm, half_mm, move_s_mm, s_mm):
    """Places (k, 3) mm at sorted path lengths on a path of straight moves and rounded corners.

    ``move_s_mm`` (n + 1,): path length at the middle of each corner's arc. Lengths outside the
    path continue its first and last move. Raises ValueError for shapes and unsorted lengths.
    """
    cdef const double[:, ::1] xyz = _points(points_mm)
    cdef Py_ssize_t n = xyz.shape[0] - 1, k = np.shape(s_mm)[0]
    cdef const double[::1] radius = _rows(radius_mm, n + 1, "radius_mm")
    cdef const double[::1] half = _rows(half_mm, n + 1, "half_mm")
    cdef const double[::1] s_move = _rows(move_s_mm, n + 1, "move_s_mm")
    cdef const double[::1] s = _rows(s_mm, k, "s_mm")
    out = np.empty((k, 3))
    cdef double[:, ::1] o = out
    if k == 0:
        return out
    if not (np.diff(s) >= 0.0).all():
        raise ValueError("s_mm is not sorted")
    with nogil:
        _places(&xyz[0, 0], &radius[0], &half[0], &s_move[0], &s[0], &o[0, 0], n, k)
    return out

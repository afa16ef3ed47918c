"""Triangulation kernels: filling a polygon, and making its triangles Delaunay.

Every ``def`` validates and allocates, the loops below it do neither. Coordinates in mm,
ids int32.
"""

import numpy as np

from libc.stdint cimport int32_t


cdef inline double _cross(
    const double[:, ::1] p, int32_t a, int32_t b, int32_t c
) noexcept nogil:
    return (p[b, 0] - p[a, 0]) * (p[c, 1] - p[a, 1]) - (p[b, 1] - p[a, 1]) * (p[c, 0] - p[a, 0])


def ear_clip(const double[:, ::1] points, const int32_t[::1] polygon):
    """Triangulate a counter-clockwise polygon that may touch itself (bridged holes).

    points (n, 2) mm; polygon (k,) int32 ids, repeated ids where a bridge runs.
    Returns (k - 2, 3) int32 at most; fewer when the polygon is not simple.
    """
    cdef Py_ssize_t k = polygon.shape[0]
    prev_a = np.roll(np.arange(k, dtype=np.int32), 1)
    next_a = np.roll(np.arange(k, dtype=np.int32), -1)
    out_a = np.empty((max(k - 2, 0), 3), np.int32)
    cdef int32_t[::1] prv = prev_a
    cdef int32_t[::1] nxt = next_a
    cdef int32_t[:, ::1] out = out_a
    cdef Py_ssize_t n_out = 0, left = k, misses = 0
    cdef int32_t i = 0, j, a, b, c, q
    cdef bint ear
    cdef int relax = 0
    cdef double area
    with nogil:
        while left > 3:
            a = polygon[prv[i]]
            b = polygon[i]
            c = polygon[nxt[i]]
            area = _cross(points, a, b, c)
            ear = area > 0 or (relax > 0 and area >= 0)
            if ear and relax < 2:
                j = nxt[nxt[i]]
                while j != prv[i]:
                    q = polygon[j]
                    # only a reflex corner can lie inside an ear
                    if (q != a and q != b and q != c
                            and _cross(points, polygon[prv[j]], q, polygon[nxt[j]]) <= 0
                            and _cross(points, a, b, q) >= 0
                            and _cross(points, b, c, q) >= 0
                            and _cross(points, c, a, q) >= 0):
                        ear = False
                        break
                    j = nxt[j]
            if ear or relax == 2:
                if area != 0:
                    out[n_out, 0] = a
                    out[n_out, 1] = b
                    out[n_out, 2] = c
                    n_out += 1
                nxt[prv[i]] = nxt[i]
                prv[nxt[i]] = prv[i]
                left -= 1
                misses = 0
                relax = 0
                i = nxt[nxt[i]]
            else:
                i = nxt[i]
                misses += 1
                if misses > left:  # no proper ear left: flat ones, then whatever there is
                    misses = 0
                    relax += 1
        if left == 3:
            a = polygon[prv[i]]
            b = polygon[i]
            c = polygon[nxt[i]]
            if _cross(points, a, b, c) != 0:
                out[n_out, 0] = a
                out[n_out, 1] = b
                out[n_out, 2] = c
                n_out += 1
    return out_a[:n_out].copy()


def flip_to_delaunay(const double[:, ::1] points, int32_t[:, ::1] triangles, fixed):
    """Turn inner edges of a triangulation until it is constrained Delaunay (Lawson's flips).

    ``triangles`` (t, 3) int32 counter-clockwise, changed in place; ``fixed`` (f, 2) int32 are
    the boundary's edges. Returns neighbours (t, 3) int32: across the edge from corner j to
    j + 1, -1 outside, -2 across a fixed edge.
    """
    cdef Py_ssize_t n_tri = triangles.shape[0]
    neighbours_a = np.full((n_tri, 3), -1, np.int32)
    cdef int32_t[:, ::1] nb = neighbours_a
    cdef dict edges = {}
    cdef Py_ssize_t t, u, guard = 0
    cdef int j, k
    cdef int32_t a, b, c, d, ta, tb, tc, td
    for x, y in np.asarray(fixed).tolist():
        edges[(x, y)] = -2
        edges[(y, x)] = -2
    for t in range(n_tri):
        for j in range(3):
            a = triangles[t, j]
            b = triangles[t, (j + 1) % 3]
            other = edges.get((b, a))
            if other is None:
                edges[(a, b)] = (t, j)
            elif other == -2:
                nb[t, j] = -2
            else:
                u, k = other
                nb[t, j] = <int32_t>u
                nb[u, k] = <int32_t>t
    stack_a = np.empty(64 * n_tri + 64, np.int32)
    cdef int32_t[::1] stack = stack_a
    cdef Py_ssize_t top = 0, limit = stack_a.shape[0] - 8
    cdef Py_ssize_t most = 200 * n_tri + 1000
    for t in range(n_tri):
        stack[top] = <int32_t>t
        top += 1
    with nogil:
        while top > 0 and guard < most:
            top -= 1
            t = stack[top]
            for j in range(3):
                if nb[t, j] < 0:
                    continue
                u = nb[t, j]
                for k in range(3):
                    if nb[u, k] == t:
                        break
                a = triangles[t, j]
                b = triangles[t, (j + 1) % 3]
                c = triangles[t, (j + 2) % 3]
                d = triangles[u, (k + 2) % 3]
                if not _in_circle(points, a, b, c, d):
                    continue
                # the four corners must be convex, else the flip would fold
                if _cross(points, c, d, b) <= 0 or _cross(points, d, c, a) <= 0:
                    continue
                guard += 1
                tb = nb[t, (j + 1) % 3]  # across b-c
                tc = nb[t, (j + 2) % 3]  # across c-a
                ta = nb[u, (k + 1) % 3]  # across a-d
                td = nb[u, (k + 2) % 3]  # across d-b
                triangles[t, 0] = c
                triangles[t, 1] = a
                triangles[t, 2] = d
                nb[t, 0] = tc
                nb[t, 1] = ta
                nb[t, 2] = <int32_t>u
                triangles[u, 0] = d
                triangles[u, 1] = b
                triangles[u, 2] = c
                nb[u, 0] = td
                nb[u, 1] = tb
                nb[u, 2] = <int32_t>t
                _replace(nb, ta, <int32_t>u, <int32_t>t)
                _replace(nb, tb, <int32_t>t, <int32_t>u)
                if top < limit:
                    stack[top] = <int32_t>t
                    stack[top + 1] = <int32_t>u
                    top += 2
                break
    return neighbours_a


cdef inline void _replace(int32_t[:, ::1] nb, int32_t t, int32_t old, int32_t new) noexcept nogil:
    cdef int j
    if t < 0:
        return
    for j in range(3):
        if nb[t, j] == old:
            nb[t, j] = new
            return


cdef inline bint _in_circle(
    const double[:, ::1] p, int32_t a, int32_t b, int32_t c, int32_t d
) noexcept nogil:
    """d clearly inside the circle of a, b, c (counter-clockwise); ties are left alone."""
    cdef double ax = p[a, 0] - p[d, 0], ay = p[a, 1] - p[d, 1]
    cdef double bx = p[b, 0] - p[d, 0], by = p[b, 1] - p[d, 1]
    cdef double cx = p[c, 0] - p[d, 0], cy = p[c, 1] - p[d, 1]
    cdef double a2 = ax * ax + ay * ay, b2 = bx * bx + by * by, c2 = cx * cx + cy * cy
    cdef double det = (a2 * (bx * cy - by * cx) - b2 * (ax * cy - ay * cx)
                       + c2 * (ax * by - ay * bx))
    return det > 1e-9 * (a2 * b2 + b2 * c2 + c2 * a2)

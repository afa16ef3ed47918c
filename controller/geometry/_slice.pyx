"""Section kernels: cutting a mesh by planes, chaining the cuts, thinning out their points.

Every ``def`` validates and allocates, the loops below it do neither. Coordinates in mm,
ids int32. Sections follow edge ids, never coordinates, so two faces that share an edge
always meet in the same bits and no tolerance is needed to join them.
"""

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t


cdef inline Py_ssize_t _first_above(const double[::1] z, double value) noexcept nogil:
    """Index of the first plane > value."""
    cdef Py_ssize_t lo = 0, hi = z.shape[0], mid
    while lo < hi:
        mid = (lo + hi) >> 1
        if z[mid] > value:
            hi = mid
        else:
            lo = mid + 1
    return lo


def slice_planes(
    const double[:, ::1] vertices,
    const int32_t[:, ::1] faces,
    const int32_t[:, ::1] face_edges,
    Py_ssize_t n_edges,
    const double[::1] z_planes,
):
    """Cut a mesh by horizontal planes and chain the cuts.

    A vertex is above a plane when its z is at least the plane's: one rule for all faces, so a
    vertex or a whole face in a plane gives neither a gap nor a double line. Material lies left
    of a chain. ``z_planes`` (p,) float64 rises.

    Returns (points (n, 2) float64, chain_start (c + 1,) int64, chain_plane (c,) int32,
    chain_closed (c,) uint8, edge_of_point (n,) int32).
    """
    cdef Py_ssize_t m = faces.shape[0], n_planes = z_planes.shape[0]
    cdef Py_ssize_t i, p, s, at, first, last, n_segments
    cdef double za, zb, zc, zmin, zmax
    count_a = np.zeros(n_planes + 1, np.int64)
    cdef int64_t[::1] count = count_a
    if n_planes == 0 or m == 0:
        return (np.empty((0, 2)), np.zeros(1, np.int64), np.empty(0, np.int32),
                np.empty(0, np.uint8), np.empty(0, np.int32))
    if np.any(np.diff(np.asarray(z_planes)) <= 0):
        raise ValueError("z_planes must rise")
    with nogil:
        for i in range(m):
            za = vertices[faces[i, 0], 2]
            zb = vertices[faces[i, 1], 2]
            zc = vertices[faces[i, 2], 2]
            zmin = min(za, zb, zc)
            zmax = max(za, zb, zc)
            first = _first_above(z_planes, zmin)
            last = _first_above(z_planes, zmax)
            for p in range(first, last):
                count[p + 1] += 1
        for p in range(n_planes):
            count[p + 1] += count[p]
    n_segments = count_a[n_planes]
    seg_a = np.empty((n_segments, 2), np.int32)  # edge where it starts, edge where it ends
    fill_a = count_a[:n_planes].copy()
    cdef int32_t[:, ::1] seg = seg_a
    cdef int64_t[::1] fill = fill_a
    cdef int32_t down, up
    cdef int j
    cdef double z0, z1, z
    lower_a = np.zeros(n_edges, np.int32)
    upper_a = np.zeros(n_edges, np.int32)
    cdef int32_t[::1] lower = lower_a
    cdef int32_t[::1] upper = upper_a
    with nogil:
        for i in range(m):
            za = vertices[faces[i, 0], 2]
            zb = vertices[faces[i, 1], 2]
            zc = vertices[faces[i, 2], 2]
            zmin = min(za, zb, zc)
            zmax = max(za, zb, zc)
            first = _first_above(z_planes, zmin)
            last = _first_above(z_planes, zmax)
            if first == last:
                continue
            for j in range(3):
                # both faces of an edge store the same ends: the lower id first
                if faces[i, j] < faces[i, (j + 1) % 3]:
                    lower[face_edges[i, j]] = faces[i, j]
                    upper[face_edges[i, j]] = faces[i, (j + 1) % 3]
                else:
                    lower[face_edges[i, j]] = faces[i, (j + 1) % 3]
                    upper[face_edges[i, j]] = faces[i, j]
            for p in range(first, last):
                z = z_planes[p]
                down = -1
                up = -1
                for j in range(3):
                    z0 = vertices[faces[i, j], 2]
                    z1 = vertices[faces[i, (j + 1) % 3], 2]
                    if z0 >= z and z1 < z:
                        down = face_edges[i, j]
                    elif z0 < z and z1 >= z:
                        up = face_edges[i, j]
                at = fill[p]
                fill[p] = at + 1
                # seen from outside the face is counter-clockwise: the cut runs from the edge
                # that goes down to the one that goes up, with the material on its left
                seg[at, 0] = down
                seg[at, 1] = up
    points_a = np.empty((2 * n_segments, 2), np.float64)
    edge_a = np.empty(2 * n_segments, np.int32)
    chain_start_a = np.empty(n_segments + 1, np.int64)
    chain_plane_a = np.empty(n_segments, np.int32)
    chain_closed_a = np.empty(n_segments, np.uint8)
    head_a = np.full(n_edges, -1, np.int32)
    balance_a = np.zeros(n_edges, np.int32)
    next_a = np.full(n_segments, -1, np.int32)
    cdef double[:, ::1] points = points_a
    cdef int32_t[::1] edge_of = edge_a
    cdef int64_t[::1] chain_start = chain_start_a
    cdef int32_t[::1] chain_plane = chain_plane_a
    cdef uint8_t[::1] chain_closed = chain_closed_a
    cdef int32_t[::1] head = head_a
    cdef int32_t[::1] balance = balance_a
    cdef int32_t[::1] nxt = next_a
    cdef Py_ssize_t n_points = 0, n_chains = 0, begin, end
    cdef int32_t e, origin, cur
    cdef int pass_
    chain_start[0] = 0
    with nogil:
        for p in range(n_planes):
            begin = count[p]
            end = count[p + 1]
            if begin == end:
                continue
            z = z_planes[p]
            for s in range(end - 1, begin - 1, -1):
                e = seg[s, 0]
                nxt[s] = head[e]
                head[e] = <int32_t>s
                balance[e] += 1
                balance[seg[s, 1]] -= 1
            # pass 0: segments that nothing leads to begin the open chains; pass 1: closed ones
            for pass_ in range(2):
                for s in range(begin, end):
                    origin = seg[s, 0]
                    if pass_ == 0 and balance[origin] <= 0:
                        continue
                    if head[origin] < 0:
                        continue
                    if pass_ == 0:
                        balance[origin] -= 1
                    e = origin
                    while True:
                        # invariant: e is where the chain has got to; head[e] is unused there
                        z0 = vertices[lower[e], 2]
                        z1 = vertices[upper[e], 2]
                        za = (z - z0) / (z1 - z0)
                        points[n_points, 0] = vertices[lower[e], 0] + za * (
                            vertices[upper[e], 0] - vertices[lower[e], 0])
                        points[n_points, 1] = vertices[lower[e], 1] + za * (
                            vertices[upper[e], 1] - vertices[lower[e], 1])
                        edge_of[n_points] = e
                        n_points += 1
                        cur = head[e]
                        if cur < 0:
                            break  # a loose end
                        head[e] = nxt[cur]
                        e = seg[cur, 1]
                        if e == origin and pass_ == 1:
                            break
                    chain_closed[n_chains] = e == origin and pass_ == 1
                    chain_plane[n_chains] = <int32_t>p
                    n_chains += 1
                    chain_start[n_chains] = n_points
            for s in range(begin, end):
                head[seg[s, 0]] = -1
                balance[seg[s, 0]] = 0
                balance[seg[s, 1]] = 0
    return (points_a[:n_points].copy(), chain_start_a[:n_chains + 1].copy(),
            chain_plane_a[:n_chains].copy(), chain_closed_a[:n_chains].copy(),
            edge_a[:n_points].copy())


def simplify_ring(const double[:, ::1] ring, double tolerance, bint closed):
    """Leave out points that are nearer than ``tolerance`` to the line that replaces them.

    Douglas-Peucker; ring (n, 2) float64 mm. A closed ring keeps its first point and the one
    farthest from it. Returns the kept points.
    """
    cdef Py_ssize_t n = ring.shape[0]
    if n < 4:
        return np.asarray(ring)
    keep_a = np.zeros(n + 1, np.uint8)
    stack_a = np.empty((2 * n + 4, 2), np.int64)
    cdef uint8_t[::1] keep = keep_a
    cdef int64_t[:, ::1] stack = stack_a
    cdef Py_ssize_t top = 0, i, a, b, far = 0, last = n if closed else n - 1
    cdef double best, d, dx, dy, length2, t, px, py, qx, qy, t2 = tolerance * tolerance
    with nogil:
        keep[0] = 1
        if closed:
            best = -1.0
            for i in range(1, n):
                d = (ring[i, 0] - ring[0, 0]) ** 2 + (ring[i, 1] - ring[0, 1]) ** 2
                if d > best:
                    best = d
                    far = i
            keep[far] = 1
            stack[0, 0] = 0
            stack[0, 1] = far
            stack[1, 0] = far
            stack[1, 1] = n
            top = 2
        else:
            keep[last] = 1
            stack[0, 0] = 0
            stack[0, 1] = last
            top = 1
        while top > 0:
            top -= 1
            a = stack[top, 0]
            b = stack[top, 1]
            if b - a < 2:
                continue
            px = ring[a, 0]
            py = ring[a, 1]
            dx = ring[b % n, 0] - px
            dy = ring[b % n, 1] - py
            length2 = dx * dx + dy * dy
            best = -1.0
            for i in range(a + 1, b):
                qx = ring[i, 0] - px
                qy = ring[i, 1] - py
                t = 0.0
                if length2 > 0:
                    t = (qx * dx + qy * dy) / length2
                    t = 0.0 if t < 0 else (1.0 if t > 1 else t)
                d = (qx - t * dx) ** 2 + (qy - t * dy) ** 2
                if d > best:
                    best = d
                    far = i
            if best > t2:
                keep[far] = 1
                stack[top, 0] = a
                stack[top, 1] = far
                top += 1
                stack[top, 0] = far
                stack[top, 1] = b
                top += 1
    return np.asarray(ring)[keep_a[:n].astype(bool)]

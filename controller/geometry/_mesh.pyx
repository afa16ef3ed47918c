"""Kernels of the geometry room: weld, edges, orientation, planar sections, scanlines, cover.

Every ``def`` validates and allocates, the loops below it do neither. Coordinates in mm,
ids int32. Sections follow edge ids, never coordinates, so two faces that share an edge
always meet in the same bits and no tolerance is needed to join them.
"""

import numpy as np

cimport cython
from libc.math cimport NAN, ceil, fabs, floor, hypot
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport strtod
from libc.string cimport memcpy, strncmp

ctypedef fused real:
    float
    double


cdef inline uint64_t _bits(double x) noexcept nogil:
    cdef uint64_t b
    x = x + 0.0  # -0.0 and 0.0 are one place
    memcpy(&b, &x, 8)
    return b


@cython.overflowcheck(False)  # a hash wraps around on purpose, in a debug build too
cdef inline uint64_t _mix(uint64_t a, uint64_t b, uint64_t c) noexcept nogil:
    cdef uint64_t h = a * <uint64_t>0x9E3779B97F4A7C15 ^ (a >> 29)
    h = (h ^ b) * <uint64_t>0xBF58476D1CE4E5B9
    h = h ^ (h >> 31)
    h = (h ^ c) * <uint64_t>0x94D049BB133111EB
    return h ^ (h >> 30)


def weld(const real[:, ::1] corners):
    """Give equal corners one id.

    corners : (n, 3) float32 or float64, mm
    Returns (vertices (k, 3) float64, ids (n,) int32); ids in order of first appearance.
    """
    cdef Py_ssize_t n = corners.shape[0]
    if corners.shape[1] != 3:
        raise ValueError("corners must be (n, 3)")
    if n >= 2**31 - 1:
        raise ValueError(f"{n} corners do not fit 32-bit ids")
    cdef uint64_t size = 16
    while size < 2 * <uint64_t>n:  # load at most one half, mostly a twelfth (6 uses a vertex)
        size *= 2
    if size > 64 and n > 64:
        size //= 2
    table_a = np.full(size, -1, np.int32)
    ids_a = np.empty(n, np.int32)
    cdef int32_t[::1] table = table_a
    cdef int32_t[::1] ids = ids_a
    first_a = np.empty(n, np.int32)
    cdef int32_t[::1] first = first_a
    cdef uint64_t mask = size - 1
    cdef uint64_t at
    cdef Py_ssize_t i
    cdef int32_t k = 0, found
    cdef int32_t limit = <int32_t>(size - size // 8)
    cdef bint full = False
    with nogil:
        for i in range(n):
            at = _mix(_bits(corners[i, 0]), _bits(corners[i, 1]), _bits(corners[i, 2])) & mask
            while True:
                found = table[<Py_ssize_t>at]
                if found < 0:
                    if k >= limit:
                        full = True
                        break
                    table[<Py_ssize_t>at] = k
                    first[k] = <int32_t>i
                    ids[i] = k
                    k += 1
                    break
                if (corners[first[found], 0] == corners[i, 0]
                        and corners[first[found], 1] == corners[i, 1]
                        and corners[first[found], 2] == corners[i, 2]):
                    ids[i] = found
                    break
                at = (at + 1) & mask
            if full:
                break
    if full:  # almost nothing is shared: sort instead (rare, slower, same ids)
        values, where, inverse = np.unique(
            np.asarray(corners, np.float64) + 0.0, axis=0, return_index=True, return_inverse=True
        )
        rank = np.argsort(where, kind="stable")
        place = np.empty(len(where), np.int32)
        place[rank] = np.arange(len(where), dtype=np.int32)
        return np.ascontiguousarray(values[rank]), place[inverse.ravel()]
    return np.asarray(corners)[first_a[:k]].astype(np.float64) + 0.0, ids_a


def parse_ascii_stl(const unsigned char[::1] text):
    """Corners of an ASCII STL: every ``vertex x y z`` in order; (n, 3) float64.

    ``text`` must end with a zero byte (so that strtod cannot run past it). A vertex that is
    not three numbers comes back as NaN, which the caller refuses.
    """
    cdef Py_ssize_t n = text.shape[0]
    if n == 0 or text[n - 1] != 0:
        raise ValueError("text must end with a zero byte")
    out_a = np.empty((n // 12 + 1, 3), np.float64)
    cdef double[:, ::1] out = out_a
    cdef const char *p = <const char *>&text[0]
    cdef const char *end = p + n - 1
    cdef char *stop
    cdef Py_ssize_t k = 0
    cdef int axis
    cdef double value
    with nogil:
        while p < end:
            if (p[0] == b'v' or p[0] == b'V') and end - p > 8 and (
                strncmp(p, b"vertex", 6) == 0 or strncmp(p, b"VERTEX", 6) == 0
            ):
                p = p + 6
                for axis in range(3):
                    value = strtod(p, &stop)
                    if stop == p:
                        value = NAN
                    p = stop
                    out[k, axis] = value
                k += 1
            else:
                p = p + 1
    return out_a[:k].copy()


def build_edges(const int32_t[:, ::1] faces, Py_ssize_t n_vertices):
    """Number the edges.

    Returns (face_edges (m, 3) int32: edge from corner j to j+1; ends (e, 2) int32, lower
    vertex first; forward (e,) int32 and backward (e,) int32: how many faces use the edge
    from its lower to its higher vertex, and the other way).
    """
    cdef Py_ssize_t m = faces.shape[0]
    cdef Py_ssize_t i, j, at
    cdef int32_t a, b, lo, hi, e = 0, slot
    start_a = np.zeros(n_vertices + 1, np.int64)
    cdef int64_t[::1] start = start_a
    face_edges_a = np.empty((m, 3), np.int32)
    cdef int32_t[:, ::1] face_edges = face_edges_a
    with nogil:
        for i in range(m):
            for j in range(3):
                a = faces[i, j]
                b = faces[i, (j + 1) % 3]
                lo = a if a < b else b
                start[lo + 1] += 1
        for i in range(n_vertices):
            start[i + 1] += start[i]
    # one bucket a vertex: the edges that have it as lower end, found by walking a few entries
    bucket_hi_a = np.empty(3 * m, np.int32)
    bucket_id_a = np.empty(3 * m, np.int32)
    used_a = np.zeros(n_vertices, np.int32)
    ends_a = np.empty((3 * m, 2), np.int32)
    forward_a = np.zeros(3 * m, np.int32)
    backward_a = np.zeros(3 * m, np.int32)
    cdef int32_t[::1] bucket_hi = bucket_hi_a
    cdef int32_t[::1] bucket_id = bucket_id_a
    cdef int32_t[::1] used = used_a
    cdef int32_t[:, ::1] ends = ends_a
    cdef int32_t[::1] forward = forward_a
    cdef int32_t[::1] backward = backward_a
    with nogil:
        for i in range(m):
            for j in range(3):
                a = faces[i, j]
                b = faces[i, (j + 1) % 3]
                lo = a if a < b else b
                hi = b if a < b else a
                slot = -1
                for at in range(start[lo], start[lo] + used[lo]):
                    if bucket_hi[at] == hi:
                        slot = bucket_id[at]
                        break
                if slot < 0:
                    slot = e
                    at = start[lo] + used[lo]
                    bucket_hi[at] = hi
                    bucket_id[at] = e
                    used[lo] += 1
                    ends[e, 0] = lo
                    ends[e, 1] = hi
                    e += 1
                face_edges[i, j] = slot
                if a < b:
                    forward[slot] += 1
                else:
                    backward[slot] += 1
    return face_edges_a, ends_a[:e].copy(), forward_a[:e].copy(), backward_a[:e].copy()


def components(const int32_t[:, ::1] faces, const int32_t[:, ::1] face_edges, Py_ssize_t n_edges):
    """Label faces by body and say which must turn over for neighbours to agree.

    Faces are joined across edges that exactly two faces use; the first face of a body keeps
    its side. Returns (label (m,) int32, turn (m,) uint8, n_bodies, n_conflicts); a conflict
    is an edge whose two faces cannot agree (a Moebius strip).
    """
    cdef Py_ssize_t m = faces.shape[0]
    users_a = np.full((n_edges, 2), -1, np.int32)
    count_a = np.zeros(n_edges, np.int32)
    label_a = np.full(m, -1, np.int32)
    turn_a = np.zeros(m, np.uint8)
    stack_a = np.empty(m + 1, np.int32)
    cdef int32_t[:, ::1] users = users_a
    cdef int32_t[::1] count = count_a
    cdef int32_t[::1] label = label_a
    cdef uint8_t[::1] turn = turn_a
    cdef int32_t[::1] stack = stack_a
    cdef Py_ssize_t i, j, k, top
    cdef int32_t e, f, g, body = 0, conflicts = 0
    cdef bint same, wanted
    with nogil:
        for i in range(m):
            for j in range(3):
                e = face_edges[i, j]
                if count[e] < 2:
                    users[e, count[e]] = <int32_t>i
                count[e] += 1
        for i in range(m):
            if label[i] >= 0:
                continue
            label[i] = body
            stack[0] = <int32_t>i
            top = 1
            while top > 0:
                top -= 1
                f = stack[top]
                for j in range(3):
                    e = face_edges[f, j]
                    if count[e] != 2:
                        continue
                    g = users[e, 0] if users[e, 1] == f else users[e, 1]
                    if g == f:
                        continue
                    for k in range(3):
                        if face_edges[g, k] == e:
                            break
                    # two neighbours that agree use their edge in opposite directions
                    same = faces[f, j] == faces[g, k]
                    wanted = turn[f] ^ same
                    if label[g] < 0:
                        label[g] = body
                        turn[g] = wanted
                        stack[top] = g
                        top += 1
                    elif turn[g] != wanted and f < g:
                        conflicts += 1
            body += 1
    return label_a, turn_a, int(body), int(conflicts)


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
    fill_a = count_a[:-1].copy()
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


def scanlines(
    const double[:, ::1] points, const int64_t[::1] ring_start, double pitch, double phase
):
    """Where the lines y = (k + phase) pitch lie inside rings (even-odd).

    points (n, 2) float64 mm, ring r is points[ring_start[r]:ring_start[r + 1]], closed by
    itself. Returns (line (c,) int32: k; x_start (c,), x_end (c,) float64), sorted by k, then x.
    """
    cdef Py_ssize_t n = points.shape[0], n_rings = ring_start.shape[0] - 1
    cdef Py_ssize_t r, i, j, total = 0, n_lines
    cdef int64_t k, k0, k1, k_min, k_max
    cdef double y0, y1, lo, hi, swap
    if not pitch > 0:
        raise ValueError("pitch must be above 0")
    empty = (np.empty(0, np.int32), np.empty(0), np.empty(0))
    if n == 0:
        return empty
    ys = np.asarray(points)[:, 1]
    k_min = <int64_t>ceil(ys.min() / pitch - phase)
    k_max = <int64_t>floor(ys.max() / pitch - phase)
    n_lines = k_max - k_min + 1
    if n_lines <= 0:
        return empty
    if n_lines > 10_000_000:
        raise ValueError(f"{n_lines} scan lines")
    start_a = np.zeros(n_lines + 1, np.int64)
    cdef int64_t[::1] start = start_a
    cdef int pass_
    x_a = np.empty(0)
    fill_a = np.empty(0, np.int64)
    cdef double[::1] x = x_a
    cdef int64_t[::1] fill = fill_a
    for pass_ in range(2):
        if pass_ == 1:
            start_a[:] = np.concatenate([[0], np.cumsum(start_a[1:])])
            total = start_a[n_lines]
            x_a = np.empty(total)
            x = x_a
            fill_a = start_a[:-1].copy()
            fill = fill_a
        with nogil:
            for r in range(n_rings):
                j = ring_start[r + 1] - 1
                for i in range(ring_start[r], ring_start[r + 1]):
                    y0 = points[j, 1]
                    y1 = points[i, 1]
                    if y0 != y1:
                        lo = y0 if y0 < y1 else y1
                        hi = y1 if y0 < y1 else y0
                        # a line crosses where lo < y <= hi: every vertex counts once
                        k0 = <int64_t>floor(lo / pitch - phase) - 1
                        while (k0 + phase) * pitch <= lo:
                            k0 += 1
                        k1 = <int64_t>floor(hi / pitch - phase) + 1
                        while (k1 + phase) * pitch > hi:
                            k1 -= 1
                        for k in range(k0, k1 + 1):
                            if k < k_min or k > k_max:
                                continue
                            if pass_ == 0:
                                start[k - k_min + 1] += 1
                            else:
                                x[fill[k - k_min]] = points[j, 0] + (
                                    (k + phase) * pitch - y0) / (y1 - y0) * (
                                    points[i, 0] - points[j, 0])
                                fill[k - k_min] += 1
                    j = i
    cdef Py_ssize_t a, b, c = 0
    line_a = np.empty(total // 2, np.int32)
    out0_a = np.empty(total // 2)
    out1_a = np.empty(total // 2)
    cdef int32_t[::1] line = line_a
    cdef double[::1] out0 = out0_a
    cdef double[::1] out1 = out1_a
    with nogil:
        for k in range(n_lines):
            a = start[k]
            b = start[k + 1]
            for i in range(a + 1, b):  # few crossings a line: insertion sort
                swap = x[i]
                j = i - 1
                while j >= a and x[j] > swap:
                    x[j + 1] = x[j]
                    j -= 1
                x[j + 1] = swap
            i = a
            while i + 1 < b:
                line[c] = <int32_t>(k + k_min)
                out0[c] = x[i]
                out1[c] = x[i + 1]
                c += 1
                i += 2
    return line_a[:c], out0_a[:c], out1_a[:c]


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


def cover_grid(
    const double[:, ::1] points, const int64_t[::1] path_start, const double[::1] radius,
    double x0, double y0, double cell, Py_ssize_t nx, Py_ssize_t ny,
):
    """Which cells of a grid lie under beads: distance of the centre to a path <= its radius.

    points (n, 2) mm, path i is points[path_start[i]:path_start[i + 1]], ``radius`` (paths,) mm.
    Returns (ny, nx) uint8, cell (j, i) centred on x0 + (i + 0.5) cell, y0 + (j + 0.5) cell.
    """
    grid_a = np.zeros((ny, nx), np.uint8)
    cdef uint8_t[:, ::1] grid = grid_a
    cdef Py_ssize_t r, s, i, j, i0, i1, j0, j1
    cdef double ax, ay, bx, by, dx, dy, l2, w, w2, cx, cy, t
    with nogil:
        for r in range(path_start.shape[0] - 1):
            w = radius[r]
            w2 = w * w
            for s in range(path_start[r], path_start[r + 1] - 1):
                ax = points[s, 0]
                ay = points[s, 1]
                bx = points[s + 1, 0]
                by = points[s + 1, 1]
                dx = bx - ax
                dy = by - ay
                l2 = dx * dx + dy * dy
                j0 = max(<Py_ssize_t>floor((min(ay, by) - w - y0) / cell), 0)
                j1 = min(<Py_ssize_t>ceil((max(ay, by) + w - y0) / cell), ny)
                for j in range(j0, j1):
                    cy = y0 + (j + 0.5) * cell - ay
                    _span(&i0, &i1, ax, ay, bx, by, cy + ay, w, x0, cell, nx)
                    for i in range(i0, i1):
                        cx = x0 + (i + 0.5) * cell - ax
                        t = 0.0
                        if l2 > 0:
                            t = (cx * dx + cy * dy) / l2
                            t = 0.0 if t < 0 else (1.0 if t > 1 else t)
                        if (cx - t * dx) ** 2 + (cy - t * dy) ** 2 <= w2:
                            grid[j, i] = 1
    return grid_a


cdef inline void _span(
    Py_ssize_t *i0, Py_ssize_t *i1, double ax, double ay, double bx, double by, double y,
    double w, double x0, double cell, Py_ssize_t nx,
) noexcept nogil:
    """Columns that a capsule can reach in row y: a long slanted one must not cost its box."""
    cdef double dy = by - ay, lo, hi, t0, t1, swap
    lo = min(ax, bx)
    hi = max(ax, bx)
    if fabs(dy) > 1e-9:
        t0 = (y - w - ay) / dy
        t1 = (y + w - ay) / dy
        if t0 > t1:
            swap = t0
            t0 = t1
            t1 = swap
        t0 = 0.0 if t0 < 0 else (1.0 if t0 > 1 else t0)
        t1 = 0.0 if t1 < 0 else (1.0 if t1 > 1 else t1)
        lo = min(ax + t0 * (bx - ax), ax + t1 * (bx - ax))
        hi = max(ax + t0 * (bx - ax), ax + t1 * (bx - ax))
    i0[0] = max(<Py_ssize_t>floor((lo - w - x0) / cell), 0)
    i1[0] = min(<Py_ssize_t>ceil((hi + w - x0) / cell), nx)


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


def link_chords(const int32_t[::1] line, const double[::1] x0, const double[::1] x1):
    """Which chord of the next line carries on a chord: -1 where the area forks, joins or ends.

    Input as ``scanlines`` gives it. Returns (c,) int32: i -> j when chord i overlaps j only and
    j overlaps i only, so that a strip of linked chords has neither a hole nor a fork in it.
    """
    cdef Py_ssize_t n = line.shape[0], a = 0, b, c, i, j, first
    next_a = np.full(n, -1, np.int32)
    hits_a = np.zeros(n, np.int32)
    cdef int32_t[::1] nxt = next_a
    cdef int32_t[::1] hits = hits_a
    cdef int32_t found
    with nogil:
        while a < n:
            b = a
            while b < n and line[b] == line[a]:
                b += 1
            if b >= n:
                break
            c = b
            while c < n and line[c] == line[b]:
                c += 1
            if line[b] == line[a] + 1:
                first = b
                for i in range(a, b):
                    while first < c and x1[first] <= x0[i]:
                        first += 1
                    found = 0
                    j = first
                    while j < c and x0[j] < x1[i]:
                        found += 1
                        hits[j] += 1
                        nxt[i] = <int32_t>j
                        j += 1
                    if found != 1:
                        nxt[i] = -1
                for i in range(a, b):
                    if nxt[i] >= 0 and hits[nxt[i]] != 1:
                        nxt[i] = -1
            a = b
    return next_a


def zigzag(
    const int32_t[::1] line, const double[::1] x0, const double[::1] x1,
    const int32_t[::1] nxt, double pitch, double phase, double farthest_link,
):
    """Draw strips of chords as few, long tracks that deposit as much as the chords would.

    A link between the ends of neighbouring chords is as long as what it cuts off both of
    them, half at each, so a joined track is exactly as long as its chords together: the
    volume does not depend on where links are. Where chords are shorter than what the links
    would cut off, the track follows their middles, from the wide end, until the chords'
    summed length is used up.

    farthest_link : mm, ends farther apart are not linked
    Returns (points (n, 2) float64 in scan coordinates, track_start (t + 1,) int64).
    """
    cdef Py_ssize_t n = line.shape[0], i, j, k, m, s, lo, hi, step, n_points = 0, n_tracks = 0
    cdef double thin = 1.25 * pitch, need, run, d, cut, cx, cy, px, py, room
    points_a = np.empty((4 * n + 4, 2), np.float64)
    start_a = np.empty(2 * n + 2, np.int64)
    seen_a = np.zeros(n, np.uint8)
    chain_a = np.empty(n + 1, np.int64)
    cdef double[:, ::1] points = points_a
    cdef int64_t[::1] start = start_a
    cdef uint8_t[::1] seen = seen_a
    cdef int64_t[::1] chain = chain_a
    cdef bint right, is_thin, open_
    start[0] = 0
    with nogil:
        for i in range(n):
            if nxt[i] >= 0:
                seen[nxt[i]] = 1  # has a chord before it: not the first of a strip
        for i in range(n):
            if seen[i]:
                continue
            m = 0
            j = i
            while j >= 0:
                chain[m] = j
                m += 1
                j = nxt[j]
            lo = 0
            while lo < m:
                # invariant: chords before chain[lo] are drawn
                is_thin = x1[chain[lo]] - x0[chain[lo]] < thin
                hi = lo + 1
                while hi < m and (x1[chain[hi]] - x0[chain[hi]] < thin) == is_thin:
                    hi += 1
                need = 0.0
                run = 0.0
                if is_thin:
                    for k in range(lo, hi):
                        need += x1[chain[k]] - x0[chain[k]]
                        if k > lo:
                            run += hypot(pitch, 0.5 * (
                                x0[chain[k]] + x1[chain[k]] - x0[chain[k - 1]] - x1[chain[k - 1]]))
                if is_thin and run >= 0.9 * need:
                    step = 1  # along the middles, from the end that carries on into a wide part
                    if lo > 0:
                        s = lo
                    elif hi < m:
                        s = hi - 1
                        step = -1
                    elif (x1[chain[hi - 1]] - x0[chain[hi - 1]]
                            > x1[chain[lo]] - x0[chain[lo]]):
                        s = hi - 1
                        step = -1
                    else:
                        s = lo
                    px = 0.5 * (x0[chain[s]] + x1[chain[s]])
                    py = (line[chain[s]] + phase) * pitch
                    points[n_points, 0] = px
                    points[n_points, 1] = py
                    n_points += 1
                    k = s + step
                    while k >= lo and k < hi and need > 1e-9:
                        cx = 0.5 * (x0[chain[k]] + x1[chain[k]])
                        cy = (line[chain[k]] + phase) * pitch
                        d = hypot(cx - px, cy - py)
                        if d > need:
                            cx = px + (cx - px) * need / d
                            cy = py + (cy - py) * need / d
                            d = need
                        need -= d
                        px = cx
                        py = cy
                        points[n_points, 0] = px
                        points[n_points, 1] = py
                        n_points += 1
                        k += step
                    n_tracks += 1
                    start[n_tracks] = n_points
                else:
                    right = True
                    cut = 0.0  # taken off the present chord's beginning by the link before it
                    for k in range(lo, hi):
                        j = chain[k]
                        py = (line[j] + phase) * pitch
                        room = x1[j] - x0[j] - cut
                        open_ = False
                        d = 0.0
                        if k + 1 < hi:
                            s = chain[k + 1]
                            d = hypot(pitch, (x1[s] - x1[j]) if right else (x0[s] - x0[j]))
                            # both chords must be left something on either side of the link
                            open_ = (d <= farthest_link and room - 0.5 * d > 0.02
                                     and x1[s] - x0[s] - 0.5 * d > 0.02)
                        if not open_:
                            d = 0.0
                        points[n_points, 0] = x0[j] + cut if right else x1[j] - cut
                        points[n_points, 1] = py
                        n_points += 1
                        points[n_points, 0] = x1[j] - 0.5 * d if right else x0[j] + 0.5 * d
                        points[n_points, 1] = py
                        n_points += 1
                        cut = 0.5 * d
                        right = not right
                        if not open_:
                            n_tracks += 1
                            start[n_tracks] = n_points
                lo = hi
    return points_a[:n_points].copy(), start_a[:n_tracks + 1].copy()

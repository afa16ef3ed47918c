"""Mesh kernels: ASCII STL, welding of corners, edges, bodies and their orientation.

Every ``def`` validates and allocates, the loops below it do neither. Coordinates in mm,
ids int32.
"""

import numpy as np

cimport cython
from libc.math cimport NAN
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
            if (p[0] == b'v' or p[0] == b'V') and <Py_ssize_t>end - <Py_ssize_t>p > 8 and (
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

"""Scanline kernels: hatch lines, their joining to tracks, cells that lie under beads.

Every ``def`` validates and allocates, the loops below it do neither. Coordinates in mm,
ids int32.
"""

import numpy as np

from libc.math cimport ceil, fabs, floor, hypot
from libc.stdint cimport int32_t, int64_t, uint8_t


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
            fill_a = start_a[:n_lines].copy()
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

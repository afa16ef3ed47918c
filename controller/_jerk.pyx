# distutils: extra_compile_args = -fno-math-errno -fno-trapping-math
# neither flag changes a value (IEEE square root and division are exact)
"""Planner kernel, time law with limited jerk: S-curves between anchors, whole layers at once.

Imports nothing of ours. The entry (``def``) validates and allocates and raises ValueError; the
kernels (``cdef ... noexcept nogil``) do neither. Lengths mm, times s, speeds mm/s.

Wanted: s(t) with |s'''| <= j and |s''| <= a always, s' <= cruise speed inside every move and
s' <= corner speed at every corner. An anchor is a place of the path with a given speed and
acceleration 0; between two anchors the speed rises (+j, const, -j) to a peak, stays, and falls
(-j, const, +j). From v0 to v1 with acceleration 0 at both ends, as quickly as possible:

    time 2 sqrt(dv / j)     if dv = |v1 - v0| <= a^2 / j        (the acceleration a is not met)
    time dv / a + a / j     else;       way = time (v0 + v1) / 2 as the ramp is point-symmetric

Where the anchors are is found in two passes, each corner touched a bounded number of times:
forward, a corner is an anchor if it can be reached from the last one at its own speed, and
"soft" if not: then it only has to be passed below its limit. A soft corner in the way of the
rise lowers the rise's target; where the target is met, an anchor is set off any corner and the
rise begins anew. Backward, the same for falls with the anchors found: those out of reach turn
soft. One long ramp reaches further than two in a row, so what stays is feasible; a peak that
passes a soft corner too fast is lowered at the end.

Measured and left out, for it saved 0.02 to 0.08 % of the time and cost as much as all the rest:
anchors moved off their corners so that minima pass the corner with an acceleration.
"""

from libc.math cimport fabs, sqrt
from libc.stdint cimport int32_t
from libc.stdlib cimport free, realloc

from ._ramp cimport (
    bent_s, least, lowered, most, peak_of, ramp_mm, ramp_s, reached,
)

import numpy as np

cdef struct Anchor:
    double s  # mm along the path
    double v  # mm/s; the acceleration is 0
    int32_t corner  # its corner, or -1
    int32_t after  # first corner beyond it

cdef struct Anchors:
    Anchor* row
    Py_ssize_t count, room

cdef struct Way:
    # one stretch between two anchors
    double peak  # mm/s
    double rise_a, fall_a  # mm/s2: accelerations of the two ramps
    double rise_mm, fall_mm  # lengths of the two ramps
    double total_mm
    double total_s

cdef struct Path:
    const double* s  # (n + 1,) path length at corners
    const double* accel  # (n,)
    const double* cruise  # (n,)
    const double* corner  # (n + 1,)
    double jerk
    Py_ssize_t n

cdef double HUGE = 1e300


cdef bint push(
    Anchors* list, double s, double v, Py_ssize_t corner, Py_ssize_t after
) noexcept nogil:
    cdef Anchor* row
    cdef Py_ssize_t room
    if list.count == list.room:
        room = 2 * list.room + 1024
        row = <Anchor*>realloc(list.row, room * sizeof(Anchor))
        if row == NULL:
            return False
        list.row = row
        list.room = room
    row = list.row + list.count
    row.s = s
    row.v = v
    row.corner = <int32_t>corner
    row.after = <int32_t>after
    list.count += 1
    return True


cdef inline Py_ssize_t before(const Anchor* p) noexcept nogil:
    """Last corner that comes before an anchor."""
    return p.after - 1 if p.corner < 0 else p.corner - 1


cdef int forward(const Path* path, Anchors* out, double start, double end) noexcept nogil:
    """Anchors that rises from the left can reach. False: no memory."""
    cdef double j = path.jerk, s = 0.0, v = start, u = HUGE, a = HUGE, c, way, need, aim
    cdef Py_ssize_t k
    if not push(out, s, v, 0, 1):
        return False
    # invariant: (s, v) is the last anchor, u the greatest target of the rise from it that
    # keeps below the limits of all soft corners since; a the least acceleration since
    for k in range(1, path.n + 1):
        c = path.corner[k] if k < path.n else least(end, path.cruise[k - 1])
        a = least(a, path.accel[k - 1])
        way = path.s[k] - s
        if u < HUGE and c > v and u < c:
            need = ramp_mm(v, u, a, j)
            if need < way:
                s = s + need
                v = u
                if not push(out, s, v, -1, k):
                    return False
                u = HUGE
                a = path.accel[k - 1]
                way = path.s[k] - s
        if c > v:
            aim = least(c, u)
            if ramp_mm(v, aim, a, j) <= way:
                c = aim
            elif k == path.n:
                c = least(aim, reached(v, way, a, j))
            else:
                u = lowered(v, c, way, u, a, j)
                continue
        s = path.s[k]
        v = c
        u = a = HUGE
        if not push(out, s, v, k, k + 1):
            return False
    return True


cdef int backward(const Path* path, const Anchors* found, Anchors* out) noexcept nogil:
    """Of the anchors found, those from which falls reach the next; last one first."""
    cdef const Anchor* p = found.row + found.count - 1
    cdef double j = path.jerk, s = p.s, v = p.v, u = HUGE, a = HUGE, c, way, need
    cdef Py_ssize_t i, m
    if not push(out, s, v, p.corner, p.after):
        return False
    # invariant as in forward, seen from the right
    for i in range(found.count - 2, -1, -1):
        m = before(p)
        p = found.row + i
        while True:
            # soft corners between the two anchors, then the anchor p itself
            if m >= p.after:
                a = least(a, path.accel[m])
                c = path.corner[m]
                way = s - path.s[m]
            else:
                a = least(a, path.accel[p.after - 1])
                c = p.v
                way = s - p.s
            if u < p.v:
                # p can fall to the target, so an anchor may stand where the target is met
                need = ramp_mm(v, u, a, j)
                if need < way:
                    s = s - need
                    v = u
                    if not push(out, s, v, -1, m + 1):
                        return False
                    u = HUGE
                    a = path.accel[m] if m >= p.after else path.accel[p.after - 1]
                    way = s - path.s[m] if m >= p.after else s - p.s
            if m < p.after:
                break
            if c > v and ramp_mm(v, c, a, j) > way:
                u = lowered(v, c, way, u, a, j)
            m -= 1
        if p.v > v:
            c = least(p.v, u)
            if c < p.v or ramp_mm(v, c, a, j) > way:
                if i > 0:
                    if p.corner >= 0 and path.corner[p.corner] > v:
                        u = lowered(v, path.corner[p.corner], way, u, a, j)
                    continue
                c = least(c, reached(v, way, a, j))
        else:
            c = p.v
        s = p.s
        v = c
        u = a = HUGE
        if not push(out, s, v, p.corner, p.after):
            return False
    return True


cdef void one_sided(
    const Path* path, const Anchor* p, const Anchor* q, Way* way
) noexcept nogil:
    """One ramp alone, with the acceleration of the moves that it runs on."""
    cdef double a = HUGE, j = path.jerk
    cdef Py_ssize_t m, first = p.after - 1, last = before(q)
    way.peak = most(p.v, q.v)
    if q.v > p.v:
        for m in range(first, last + 1):
            a = least(a, path.accel[m])
            if m == last or ramp_mm(p.v, q.v, a, j) <= path.s[m + 1] - p.s:
                break
    else:
        for m in range(last, first - 1, -1):
            a = least(a, path.accel[m])
            if m == first or ramp_mm(q.v, p.v, a, j) <= q.s - path.s[m]:
                break
    way.rise_a = way.fall_a = a


cdef void between(const Path* path, const Anchor* p, const Anchor* q, Way* way) noexcept nogil:
    """The stretch from anchor p to anchor q: its peak and its two ramps."""
    cdef Py_ssize_t first = p.after - 1, last = before(q), m
    cdef double j = path.jerk, a = path.accel[first], slow = path.cruise[first], fast = slow
    cdef double low = least(p.v, q.v), high = most(p.v, q.v), total = q.s - p.s
    cdef double peak, c, x, rise, fall
    for m in range(first + 1, last + 1):
        a = least(a, path.accel[m])
        slow = least(slow, path.cruise[m])
        fast = most(fast, path.cruise[m])
    way.total_mm = total
    way.rise_a = way.fall_a = a
    if low == high and high >= fast:
        way.peak = high
        way.rise_mm = way.fall_mm = 0.0
        way.total_s = total / high
        return
    x = ramp_mm(low, high, a, j)
    if x >= total:
        peak = high
        if x > total * (1.0 + 1e-9):
            one_sided(path, p, q, way)
    else:
        peak = peak_of(low, high, total, a, j)
        if peak > slow:
            if slow == fast:
                peak = most(high, slow)
            else:
                # the limit of the move that the peak is in; corners see to the others
                x = p.s + ramp_mm(p.v, peak, a, j)
                m = first
                while m < last and path.s[m + 1] < x:
                    m += 1
                peak = most(high, least(peak, path.cruise[m]))
        rise = ramp_mm(p.v, peak, a, j)
        fall = ramp_mm(q.v, peak, a, j)
        # invariant: up to corner m no limit is passed; a lower peak is slower everywhere
        for m in range(p.after, last + 1):
            c = path.corner[m]
            if c < peak:
                x = path.s[m] - p.s
                if x < rise:
                    if c > p.v:
                        peak = most(high, lowered(p.v, c, x, peak, a, j))
                elif total - x < fall:
                    if c > q.v:
                        peak = most(high, lowered(q.v, c, total - x, peak, a, j))
                else:
                    peak = most(high, c)
                rise = ramp_mm(p.v, peak, a, j)
                fall = ramp_mm(q.v, peak, a, j)
    way.peak = peak
    way.rise_mm = ramp_mm(p.v, peak, way.rise_a, j)
    way.fall_mm = ramp_mm(q.v, peak, way.fall_a, j)
    way.total_s = ramp_s(p.v, peak, way.rise_a, j) + ramp_s(q.v, peak, way.fall_a, j)
    x = total - way.rise_mm - way.fall_mm
    if x > 0.0 and peak > 0.0:
        way.total_s += x / peak


cdef struct Pieces:
    # at most 7 pieces of constant jerk; way, v, a at their starts
    double way[8]
    double dt[8]
    double v[8]
    double a[8]
    double j[8]
    double tail[8]  # speed at the end with acceleration 0, for pieces that are measured from it
    int kind[8]  # 0 from start, 1 from end (both jerk), 2 acceleration, 3 speed
    int count


cdef inline void piece(
    Pieces* to, double way, double dt, double v, double a, double j, int kind, double tail
) noexcept nogil:
    cdef int k = to.count
    if dt > 0.0:
        to.way[k] = way
        to.dt[k] = dt
        to.v[k] = v
        to.a[k] = a
        to.j[k] = j
        to.kind[k] = kind
        to.tail[k] = tail
        to.count = k + 1


cdef void cut_up(const Path* path, double v0, double v1, const Way* way, Pieces* to) noexcept nogil:
    """The pieces of constant jerk between two anchors of speeds v0 and v1."""
    cdef double j = path.jerk, top, t, mid, dv, x = 0.0, bent, rest
    to.count = 0
    dv = way.peak - v0
    if dv > 0.0:
        top = least(way.rise_a, sqrt(dv * j))
        t = top / j
        bent = 0.5 * top * t
        mid = dv - 2.0 * bent if top == way.rise_a else 0.0
        if mid < 0.0:
            mid = 0.0
        piece(to, 0.0, t, v0, 0.0, j, 0, v0)
        x = t * (v0 + bent / 3.0)
        piece(to, x, mid / top, v0 + bent, top, 0.0, 2, 0.0)
        x = way.rise_mm - t * (way.peak - bent / 3.0)
        piece(to, x, t, way.peak - bent, top, -j, 1, way.peak)
        x = way.rise_mm
    rest = way.total_mm - way.rise_mm - way.fall_mm
    if rest > 1e-15 * way.total_mm and way.peak > 0.0:
        piece(to, x, rest / way.peak, way.peak, 0.0, 0.0, 3, 0.0)
        x += rest
    dv = way.peak - v1
    if dv > 0.0:
        top = least(way.fall_a, sqrt(dv * j))
        t = top / j
        bent = 0.5 * top * t
        mid = dv - 2.0 * bent if top == way.fall_a else 0.0
        if mid < 0.0:
            mid = 0.0
        piece(to, x, t, way.peak, 0.0, -j, 0, way.peak)
        x = x + t * (way.peak - bent / 3.0)
        piece(to, x, mid / top, way.peak - bent, -top, 0.0, 2, 0.0)
        x = way.total_mm - t * (v1 + bent / 3.0)
        piece(to, x, t, v1 + bent, -top, j, 1, v1)
    to.way[to.count] = way.total_mm


cdef double within(const Pieces* of, int k, double way) noexcept nogil:
    """Time from the start of piece k after which its way is covered."""
    cdef double v
    if of.kind[k] == 0:
        return least(of.dt[k], bent_s(of.v[k], of.j[k], way))
    if of.kind[k] == 1:
        # seen from its end: time runs back, so the jerk changes sign twice and stays
        v = of.way[k + 1] - of.way[k] - way
        return most(0.0, of.dt[k] - bent_s(of.tail[k], of.j[k], v))
    v = of.v[k]
    if of.kind[k] == 2:
        v = 0.5 * (v + sqrt(most(v * v + 2.0 * of.a[k] * way, 0.0)))
    return least(of.dt[k], way / v)


cdef Py_ssize_t write(
    const Path* path, const Anchor* p, const Anchor* q, const Way* way, const double* longest,
    double now, double* t, double* s, double* v, double* a, double* j, int32_t* move,
    double* most_s,
) noexcept nogil:
    """Phases of one stretch, split at the ends of moves; rows from 0, returns their number."""
    cdef Pieces of
    cdef Py_ssize_t m, row = 0, last = before(q)
    cdef int k = 0
    cdef double used = 0.0, at = p.s, end, tau, begun = 0.0, stop
    cut_up(path, p.v, q.v, way, &of)
    # invariant: rows below are final; the next one begins in piece k after the time used,
    # begun s after the stretch
    for m in range(p.after - 1, last + 1):
        end = path.s[m + 1] - p.s
        while k < of.count:
            if m == last or of.way[k + 1] <= end:
                tau = of.dt[k]
            elif of.way[k] < end:
                tau = most(used, within(&of, k, end - of.way[k]))
            else:
                break
            stop = begun + (tau - used)
            if now + stop > now + begun:
                t[row] = now + begun
                s[row] = at
                v[row] = of.v[k] + used * (of.a[k] + 0.5 * of.j[k] * used)
                a[row] = of.a[k] + of.j[k] * used
                j[row] = of.j[k]
                move[row] = <int32_t>m
                most_s[row] = longest[m] if of.j[k] != 0.0 else HUGE * HUGE
                row += 1
                begun = stop
                at = least(p.s + of.way[k + 1], path.s[m + 1])
            if m < last and of.way[k + 1] > end:
                used = tau
                break
            used = 0.0
            k += 1
        at = path.s[m + 1]
    t[row] = now + begun
    s[row] = q.s
    v[row] = q.v
    return row


cdef void running_sum(const double* length, double* s, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    s[0] = 0.0
    for i in range(n):
        s[i + 1] = s[i] + length[i]


def _refuse(name, values, bint zero):
    low, high = float(np.min(values)), float(np.max(values))
    if not ((low >= 0.0 if zero else low > 0.0) and high < np.inf):
        rows = np.asarray(values)
        good = (rows >= 0.0 if zero else rows > 0.0) & np.isfinite(rows)
        bad = int(np.argmax(~good))
        raise ValueError(
            f"{name} {rows[bad]} at index {bad}: must be finite and "
            f"{'not below' if zero else 'above'} 0"
        )


def jerk_phases(
    length_mm, accel_mm_s2, cruise_mm_s, corner_mm_s, nominal_mm_s, double jerk_mm_s3,
    double bend=0.0005, double start_mm_s=0.0, double end_mm_s=0.0,
):
    """Phases of constant jerk along a path, jerk and acceleration limited at every instant.

    Parameters
    ----------
    length_mm : (n,) float64, mm, >= 0         of each move
    accel_mm_s2, cruise_mm_s : (n,) float64, > 0      limits of each move
    corner_mm_s : (n + 1,) float64, mm/s, >= 0     limit at each corner; the ends' are not used
    nominal_mm_s : (n,) float64, mm/s, > 0     speed that ``bend`` is a share of
    jerk_mm_s3 : float, > 0
    bend : float, > 0       share of the nominal speed by which a straight speed ramp over
        ``longest_s`` differs from the bent one at most
    start_mm_s, end_mm_s : float, >= 0         wanted speeds at both ends, acceleration 0; one
        that cannot be braked or reached is lowered, the caller compares ``v[0]`` and ``v[-1]``

    Returns t_s, s_mm, v_mm_s (m + 1,), a_mm_s2 (at the start), j_mm_s3, move int32 and
    longest_s (m,). ``s_mm`` at the end of a move is the running sum of lengths, exactly.
    Raises ValueError for shapes, NaN, infinity and limits of zero.
    """
    cdef const double[::1] length = np.ascontiguousarray(length_mm, dtype=np.float64)
    cdef const double[::1] accel = np.ascontiguousarray(accel_mm_s2, dtype=np.float64)
    cdef const double[::1] cruise = np.ascontiguousarray(cruise_mm_s, dtype=np.float64)
    cdef const double[::1] corner = np.ascontiguousarray(corner_mm_s, dtype=np.float64)
    cdef const double[::1] nominal = np.ascontiguousarray(nominal_mm_s, dtype=np.float64)
    cdef Py_ssize_t n = length.shape[0], rows, i
    if (
        n < 1 or accel.shape[0] != n or cruise.shape[0] != n or nominal.shape[0] != n
        or corner.shape[0] != n + 1
    ):
        raise ValueError(
            f"length_mm {n}, accel_mm_s2 {accel.shape[0]}, cruise_mm_s {cruise.shape[0]}, "
            f"nominal_mm_s {nominal.shape[0]}, corner_mm_s {corner.shape[0]}: needed n >= 1 rows "
            "each, n + 1 corners"
        )
    if n > 0x7FFFFFF0:
        raise ValueError(f"{n} moves: at most 2147483632")
    _refuse("length_mm", length, True)
    _refuse("accel_mm_s2", accel, False)
    _refuse("cruise_mm_s", cruise, False)
    _refuse("corner_mm_s", corner, True)
    _refuse("nominal_mm_s", nominal, False)
    for name, value in (("jerk_mm_s3", jerk_mm_s3), ("bend", bend)):
        if not 0.0 < value < np.inf:
            raise ValueError(f"{name} {value}: must be finite and above 0")
    if not (0.0 <= start_mm_s < np.inf and 0.0 <= end_mm_s < np.inf):
        raise ValueError(f"end speeds {start_mm_s}, {end_mm_s} mm/s: must be finite and >= 0")
    if np.min(length) == 0.0:
        return _without_zero_moves(
            np.asarray(length), np.asarray(accel), np.asarray(cruise), np.asarray(corner),
            np.asarray(nominal), jerk_mm_s3, bend, start_mm_s, end_mm_s,
        )
    limit = np.array(corner)
    if n > 1:
        speeds = np.asarray(cruise)
        np.minimum(limit[1:n], np.minimum(speeds[: n - 1], speeds[1:]), out=limit[1:n])
    total_mm = np.empty(n + 1)
    longest = np.sqrt(np.asarray(nominal) * (8.0 * bend / jerk_mm_s3))
    cdef double[::1] s_at = total_mm, longest_at = longest, corner_at = limit
    cdef Anchors first, kept
    cdef Path path
    cdef bint good
    first.row = kept.row = NULL
    first.count = first.room = kept.count = kept.room = 0
    path.s = &s_at[0]
    path.accel = &accel[0]
    path.cruise = &cruise[0]
    path.corner = &corner_at[0]
    path.jerk = jerk_mm_s3
    path.n = n
    try:
        with nogil:
            running_sum(&length[0], &s_at[0], n)
            good = forward(&path, &first, least(start_mm_s, cruise[0]), end_mm_s)
            good = good and backward(&path, &first, &kept)
        if not good:
            raise MemoryError("no memory for anchors of the speed profile")
        return _phases(&path, &kept, &longest_at[0])
    finally:
        free(first.row)
        free(kept.row)


cdef _phases(const Path* path, const Anchors* kept, const double* longest):
    cdef Py_ssize_t i, m = 0, most_rows = path.n + 8 * kept.count
    t_out, s_out, v_out = np.empty(most_rows + 1), np.empty(most_rows + 1), np.empty(most_rows + 1)
    a_out, j_out, longest_out = np.empty(most_rows), np.empty(most_rows), np.empty(most_rows)
    move_out = np.empty(most_rows, dtype=np.int32)
    cdef double[::1] t = t_out, s = s_out, v = v_out, a = a_out, j = j_out, l = longest_out
    cdef int32_t[::1] mo = move_out
    cdef Way way
    with nogil:
        t[0] = 0.0
        # invariant: rows below m are final, t[m] is where the next stretch begins
        for i in range(kept.count - 1, 0, -1):
            between(path, kept.row + i, kept.row + i - 1, &way)
            m += write(
                path, kept.row + i, kept.row + i - 1, &way, longest, t[m],
                &t[m], &s[m], &v[m], &a[m], &j[m], &mo[m], &l[m],
            )
    return (
        t_out[: m + 1], s_out[: m + 1], v_out[: m + 1], a_out[:m], j_out[:m], move_out[:m],
        longest_out[:m],
    )


def _without_zero_moves(length, accel, cruise, corner, nominal, jerk, bend, start, end):
    """Plan as if moves of length zero were not there; their corners' least limit counts."""
    keep = length > 0.0
    if not keep.any():
        if start or end:
            raise ValueError("a path of length zero cannot have an end speed above 0")
        one, none = np.zeros(1), np.zeros(0)
        return one, one.copy(), one.copy(), none, none.copy(), np.zeros(0, np.int32), none.copy()
    first = np.flatnonzero(keep)
    group = np.concatenate([[0], np.cumsum(keep)])  # kept moves before each corner
    limit = np.full(len(first) + 1, np.inf)
    np.minimum.at(limit, group, corner)
    t, s, v, a, j, move, longest = jerk_phases(
        length[keep], accel[keep], cruise[keep], limit, nominal[keep], jerk, bend, start, end
    )
    return t, s, v, a, j, first[move].astype(np.int32), longest


cdef void _times_within(
    const double* way, const double* v, const double* a, const double* j, const double* last,
    double* t, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef double low, high, tau, rest, speed, new, third
    cdef int k
    for i in range(n):
        low = 0.0
        high = last[i]
        third = j[i] / 3.0
        speed = v[i] + sqrt(most(v[i] * v[i] + 2.0 * a[i] * way[i], 0.0))
        tau = least(2.0 * way[i] / speed, high) if speed > 0.0 else 0.5 * high
        # invariant: the way is covered between low and high (Newton, else halving)
        for k in range(80):
            rest = way[i] - tau * (v[i] + 0.5 * tau * (a[i] + third * tau))
            if rest > 0.0:
                low = tau
            else:
                high = tau
            speed = v[i] + tau * (a[i] + 0.5 * j[i] * tau)
            new = tau + rest / speed if speed > 0.0 else low
            if not low < new < high:
                new = 0.5 * (low + high)
            if fabs(new - tau) <= 2e-16 * new:
                break
            tau = new
        t[i] = tau


def times_within(way_mm, v_mm_s, a_mm_s2, j_mm_s3, last_s):
    """Times, s, at which ways within phases of constant jerk are covered; all (k,) float64.

    v, a: at the start of the phase; last_s: its duration, the speed in it is never below 0 and
    its whole way not below ``way_mm``. Exact to rounding of the way.
    """
    cdef const double[::1] way = np.ascontiguousarray(way_mm, dtype=np.float64)
    cdef const double[::1] v = np.ascontiguousarray(v_mm_s, dtype=np.float64)
    cdef const double[::1] a = np.ascontiguousarray(a_mm_s2, dtype=np.float64)
    cdef const double[::1] j = np.ascontiguousarray(j_mm_s3, dtype=np.float64)
    cdef const double[::1] last = np.ascontiguousarray(last_s, dtype=np.float64)
    cdef Py_ssize_t n = way.shape[0]
    if not v.shape[0] == a.shape[0] == j.shape[0] == last.shape[0] == n:
        raise ValueError(f"way_mm {n} rows, others differ")
    out = np.empty(n)
    cdef double[::1] t = out
    if n:
        with nogil:
            _times_within(&way[0], &v[0], &a[0], &j[0], &last[0], &t[0], n)
    return out

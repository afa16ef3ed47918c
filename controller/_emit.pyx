# distutils: extra_compile_args = -fno-math-errno -fno-trapping-math
"""Planner kernel, emission: a profile cut into segments, exact steps, wire bytes, frames.

Imports nothing of ours. Entries (``def``) validate and allocate and raise ValueError; the
kernels (``cdef ... noexcept nogil``) do neither. Lengths mm, times s, speeds mm/s.

Everything here is a function of the instant alone, never of what was emitted before, so a
profile given in pieces yields the same bytes as one given whole.
"""

from libc.math cimport ceil, fabs, sqrt
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

import numpy as np

# docs/protocol.md, sections 1, 3 and 5.1
cdef enum:
    GATE = 1
    DWELL = 2
    TRACK_START = 4
    END = 16
    SEGMENT_BYTES = 22
    FRAME_SEGMENTS = 20
    FRAME_HEAD = 12  # sync, type, length, number; index of the first segment
    FRAME_CRC = 4
    MOST_AXES = 6

cdef double ROUND = 6755399441055744.0  # 1.5 * 2**52: x + ROUND - ROUND rounds to nearest even
cdef double TINY = 1e-30  # keeps divisions defined; far below any length or slope here
cdef double NEVER = 1e300


cdef packed struct Segment:
    int16_t steps[6]  # signed step deltas
    uint16_t start_ratio  # speed at start / mean speed, 1/32768
    uint16_t end_power  # 1/65535 of full scale
    uint16_t end_speed  # speed at end / nominal, 1/32768
    uint16_t ticks_lo  # duration, us
    uint8_t ticks_hi
    uint8_t flags


cdef inline double least(double a, double b) noexcept nogil:
    return a if a < b else b


cdef inline double most(double a, double b) noexcept nogil:
    return a if a > b else b


cdef inline double _ticks(double t_s) noexcept nogil:
    return (t_s * 1e6 + ROUND) - ROUND


# --- cuts ---------------------------------------------------------------------------------


def merge_cuts(
    double[::1] cut_s, uint8_t[::1] cut_flags, Py_ssize_t k, bint last_hard,
    const double[::1] kink_s, const int32_t[::1] move, Py_ssize_t kink,
    const double[::1] node_s, Py_ssize_t node,
    const double[::1] edge_s, const uint8_t[::1] edge_on, Py_ssize_t edge,
    double until_s, bint first, bint final, int least_ticks=2,
):
    """Merge kinks of motion, of power and gate edges into cuts on the 1 us grid.

    Hard instants (gate edges, both ends of the job, ends of dwells) always make a cut of their
    own tick. A soft one nearer than ``least_ticks`` to a neighbour gives way. At one instant
    kinks come before nodes before edges.

    Parameters
    ----------
    cut_s, cut_flags : room for all          the first ``k`` are there already; the last of
        them may still move, by a hard instant in its tick
    kink_s : (m + 1,), move : (m,)           the profile's phases; move -1 is a dwell
    node_s : (p,), edge_s : (q,), edge_on    sorted; kink, node, edge: the first not yet taken
    until_s : instants before it are taken   (all when ``final``)
    first : the first kink is the job's

    Returns (k, last_hard, kink, node, edge). ``cut_flags`` says for each cut whether the gate
    is open after it and whether a track starts there.
    """
    cdef Py_ssize_t n = kink_s.shape[0], p = node_s.shape[0], q = edge_s.shape[0]
    if n < 2 or move.shape[0] != n - 1 or edge_on.shape[0] != q:
        raise ValueError("phases need one kink more than moves, and edges a direction each")
    if cut_s.shape[0] < k + (n - kink) + (p - node) + (q - edge):
        raise ValueError("no room for the cuts")
    if cut_flags.shape[0] < cut_s.shape[0]:
        raise ValueError("cut_s and cut_flags differ in rows")
    cdef double t, tick, last = _ticks(cut_s[k - 1]) if k > 0 else -NEVER
    cdef double tk, tn, te
    cdef uint8_t gate = cut_flags[k - 1] & GATE if k > 0 else 0
    cdef int which
    cdef bint hard
    with nogil:
        # invariant: cut_s[:k] is sorted and its ticks differ; all instants before t are in
        while kink < n:
            tk = kink_s[kink]
            tn = node_s[node] if node < p else NEVER
            te = edge_s[edge] if edge < q else NEVER
            if tk <= tn and tk <= te:
                t = tk
                which = 0
            elif tn <= te:
                t = tn
                which = 1
            else:
                t = te
                which = 2
            if t >= until_s and not final:
                break
            hard = which == 2
            if which == 0:
                hard = (
                    (kink == 0 and first) or (kink == n - 1 and final)
                    or (kink > 0 and move[kink - 1] < 0) or (kink < n - 1 and move[kink] < 0)
                )
                kink += 1
            elif which == 1:
                node += 1
                if kink == 0:  # power before the motion is held, it cuts nothing
                    continue
            tick = _ticks(t)
            if tick - last >= least_ticks or (hard and last_hard and tick > last):
                cut_s[k] = t
                cut_flags[k] = gate
                k += 1
                last = tick
                last_hard = hard
            elif hard and not last_hard:
                cut_s[k - 1] = t
                last = tick
                last_hard = hard
            if which == 2:
                gate = GATE if edge_on[edge] else 0
                cut_flags[k - 1] = (cut_flags[k - 1] & TRACK_START) | gate
                if gate:
                    cut_flags[k - 1] |= TRACK_START
                edge += 1
    return k, last_hard, kink, node, edge


def count_parts(
    const double[::1] cut_s, const double[::1] t_s, const double[::1] v_mm_s,
    const double[::1] j_mm_s3, const int32_t[::1] move, const double[::1] longest_s,
    const double[::1] nominal_mm_s, double longest, double longest_dwell, double most_mm,
    double bend,
):
    """Into how many equal parts each span between cuts is divided.

    A part lasts at most ``longest`` (``longest_dwell`` standing still), what its phase allows,
    the time for ``most_mm`` (the step counter's range), and under jerk so little that a speed
    ramp straight from its start to its end errs by ``bend`` of nominal: with the same way in
    the same time that error is j T^2 / 12.
    Returns parts and phase, (k - 1,) int64: phase is the one that holds the span's middle.
    """
    cdef Py_ssize_t n = cut_s.shape[0] - 1, m = move.shape[0], i, p = 0
    if (n < 0 or m < 1 or t_s.shape[0] != m + 1 or v_mm_s.shape[0] != m + 1
            or j_mm_s3.shape[0] != m or longest_s.shape[0] != m or nominal_mm_s.shape[0] != m):
        raise ValueError("rows of the phases differ")
    parts_out, phase_out = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    cdef int64_t[::1] parts = parts_out, phase = phase_out
    cdef double dt, middle, tau, j, v
    with nogil:
        # invariant: phase p is not after the middle of span i
        for i in range(n):
            dt = cut_s[i + 1] - cut_s[i]
            middle = cut_s[i] + 0.5 * dt
            while p < m - 1 and t_s[p + 1] <= middle:
                p += 1
            phase[i] = p
            if move[p] < 0:
                tau = longest_dwell
            else:
                tau = least(longest, longest_s[p])
                v = most(v_mm_s[p], v_mm_s[p + 1])
                j = fabs(j_mm_s3[p])
                if j > 0.0:
                    v = v + 0.125 * j * (t_s[p + 1] - t_s[p]) * (t_s[p + 1] - t_s[p])
                    tau = least(tau, sqrt(12.0 * bend * nominal_mm_s[p] / j))
                if tau * v > most_mm:
                    tau = most_mm / v
            # 1e-9: a span that is a whole number of parts must not get one more by rounding
            parts[i] = <int64_t>ceil(dt / tau - 1e-9) if dt > tau else 1
    return parts_out, phase_out


def evaluate(
    const double[::1] cut_s, const uint8_t[::1] cut_flags, const int64_t[::1] parts,
    const int64_t[::1] phase, const double[::1] t_s, const double[::1] s_mm,
    const double[::1] v_mm_s, const double[::1] a_mm_s2, const double[::1] j_mm_s3,
    const int32_t[::1] move, const double[::1] nominal_mm_s, Py_ssize_t total,
):
    """Time, length and speed at all segment ends, straight from the phase that holds them.

    Everything is taken at the tick, not at the instant that was rounded to it: so a segment's
    way and its duration agree, and no short one asks for more speed than planned. A corner is
    met within half a tick's way (0.03 um at 60 mm/s), a kink at rest exactly.

    Returns t, s, v (total + 1,) float64, the first row being the start of the first segment,
    and nominal (total,) float64 and flags (total,) uint8 of the segments.
    """
    cdef Py_ssize_t n = parts.shape[0], m = move.shape[0], i, j, k = 0, p = 0
    if cut_s.shape[0] != n + 1 or phase.shape[0] != n or cut_flags.shape[0] < n:
        raise ValueError("parts and cuts differ in rows")
    if (t_s.shape[0] != m + 1 or s_mm.shape[0] != m + 1 or v_mm_s.shape[0] != m + 1
            or a_mm_s2.shape[0] != m or j_mm_s3.shape[0] != m or nominal_mm_s.shape[0] != m):
        raise ValueError("rows of the phases differ")
    if n and (np.min(parts) < 1 or np.sum(parts) != total):
        raise ValueError(f"{np.sum(parts)} parts of 1 or more, {total} expected")
    t_out, s_out, v_out = np.empty(total + 1), np.empty(total + 1), np.empty(total + 1)
    nominal_out, flags_out = np.empty(total), np.empty(total, dtype=np.uint8)
    cdef double[::1] t = t_out, s = s_out, v = v_out, nominal = nominal_out
    cdef uint8_t[::1] flags = flags_out
    cdef double dt = 0.0, now, tau, tick_s
    cdef uint8_t flag = 0
    cdef int64_t count
    with nogil:
        # invariant: t_s[p] < instant last written <= t_s[p + 1], but for the very first
        for i in range(-1, n):
            count = 1 if i < 0 else parts[i]
            if i >= 0:
                dt = cut_s[i + 1] - cut_s[i]
                flag = cut_flags[i]
                if move[phase[i]] < 0:
                    flag = flag | DWELL
            for j in range(count):
                if i >= 0:
                    flags[k - 1] = flag
                    flag = flag & ~TRACK_START
                    nominal[k - 1] = nominal_mm_s[phase[i]]
                now = cut_s[i + 1] if j == count - 1 else cut_s[i] + dt * (j + 1) / count
                while p < m - 1 and t_s[p + 1] < now:
                    p += 1
                tick_s = _ticks(now) * 1e-6
                t[k] = tick_s
                if now == t_s[p + 1] and v_mm_s[p + 1] == 0.0:
                    s[k] = s_mm[p + 1]
                    v[k] = 0.0
                elif now == t_s[p] and v_mm_s[p] == 0.0:
                    s[k] = s_mm[p]
                    v[k] = 0.0
                else:
                    # up to half a tick outside the phase: off by 2e-10 mm where a jumps by 2000
                    tau = tick_s - t_s[p]
                    s[k] = s_mm[p] + tau * (v_mm_s[p] + tau * (0.5 * a_mm_s2[p]
                                                               + j_mm_s3[p] * tau * (1.0 / 6.0)))
                    v[k] = most(v_mm_s[p] + tau * (a_mm_s2[p] + 0.5 * j_mm_s3[p] * tau), 0.0)
                k += 1
    return t_out, s_out, v_out, nominal_out, flags_out


# --- steps --------------------------------------------------------------------------------


def place(
    const double[:, ::1] points_mm, const double[::1] move_s_mm, const double[::1] s_mm,
    const double[::1] steps_per_mm, const double[::1] origin_mm, int64_t[:, ::1] steps,
):
    """Axis positions on a polyline in whole steps at path lengths ``s_mm`` (sorted).

    Each is round((position - origin) * steps_per_mm) of the position itself, so no rounding
    is carried on; at a corner the position is the corner. Written to ``steps`` (k, 3).
    """
    cdef Py_ssize_t n = move_s_mm.shape[0] - 1, k = s_mm.shape[0], i, m = 0, ax, high, middle
    if n < 1 or points_mm.shape[0] != n + 1 or points_mm.shape[1] != 3:
        raise ValueError("points_mm and move_s_mm differ in rows")
    if steps_per_mm.shape[0] != 3 or origin_mm.shape[0] != 3:
        raise ValueError("steps_per_mm and origin_mm need 3 values each")
    if steps.shape[0] != k or steps.shape[1] != 3:
        raise ValueError("steps has not (k, 3) rows")
    if k == 0:
        return
    cdef double f, x, from_mm = 0.0, to_mm = 0.0, inverse = 0.0
    cdef Py_ssize_t held = -1
    with nogil:
        high = n - 1
        # invariant: the first move that does not end before s_mm[0] lies in m..high
        while m < high:
            middle = (m + high) // 2
            if move_s_mm[middle + 1] < s_mm[0]:
                m = middle + 1
            else:
                high = middle
        # invariant: move_s_mm[m] < s_mm[i] <= move_s_mm[m + 1], but for the very start
        for i in range(k):
            while m < n - 1 and move_s_mm[m + 1] < s_mm[i]:
                m += 1
            while m > 0 and move_s_mm[m] >= s_mm[i]:  # near rest, by the last bits
                m -= 1
            if m != held:
                held = m
                from_mm = move_s_mm[m]
                to_mm = move_s_mm[m + 1]
                inverse = 1.0 / most(to_mm - from_mm, TINY)
            f = (s_mm[i] - from_mm) * inverse
            if s_mm[i] >= to_mm:
                for ax in range(3):
                    x = (points_mm[m + 1, ax] - origin_mm[ax]) * steps_per_mm[ax]
                    steps[i, ax] = <int64_t>((x + ROUND) - ROUND)
            else:
                f = most(f, 0.0)
                for ax in range(3):
                    x = points_mm[m, ax] + f * (points_mm[m + 1, ax] - points_mm[m, ax])
                    x = (x - origin_mm[ax]) * steps_per_mm[ax]
                    steps[i, ax] = <int64_t>((x + ROUND) - ROUND)


# --- wire bytes ---------------------------------------------------------------------------


def pack_segments(
    const double[::1] t_s, const double[::1] s_mm, const double[::1] v_mm_s,
    const int64_t[:, ::1] steps, const double[::1] nominal_mm_s, const uint8_t[::1] flags,
    const double[::1] node_s, const double[::1] node_share,
    const int64_t[::1] param_tick, const uint8_t[:, ::1] param_rows,
    uint8_t[:, ::1] out, int64_t[::1] begin_tick, int most_steps, int most_ticks,
):
    """Write SEGMENT rows (22 bytes each) between consecutive instants.

    Parameters
    ----------
    t_s, s_mm, v_mm_s : (k + 1,)            instants, path length, speed
    steps : (k + 1, a) int64                positions of a <= 6 axes
    nominal_mm_s : (k,)                     nominal speed of each segment, for ``end_speed``
    flags : (k,) uint8
    node_s, node_share : (p,), p >= 1       power: straight between nodes, 1 = full scale;
        held outside; of two nodes at one instant the later counts from there on
    param_tick, param_rows : (q,), (q, 22)  ready rows, each before the segment that begins then
    out : (k + q', 22) uint8, begin_tick : (k + q',) int64    written in place

    Returns (rows written, param rows used). Raises ValueError when a step delta or a duration
    does not fit its field.
    """
    cdef Py_ssize_t k = flags.shape[0], a = steps.shape[1], n = node_s.shape[0]
    cdef Py_ssize_t q = param_tick.shape[0], room = out.shape[0], i, ax, bad = -1
    cdef Py_ssize_t p = 0, param = 0, r = 0
    if (t_s.shape[0] != k + 1 or s_mm.shape[0] != k + 1 or v_mm_s.shape[0] != k + 1 or k < 1
            or steps.shape[0] != k + 1 or nominal_mm_s.shape[0] != k
            or node_share.shape[0] != n or n < 1 or param_rows.shape[0] != q):
        raise ValueError("rows of the segment columns differ")
    if a < 1 or a > MOST_AXES or out.shape[1] != SEGMENT_BYTES or begin_tick.shape[0] != room:
        raise ValueError(f"{a} axes, rows of {out.shape[1]} bytes: needed 1 to 6, and 22")
    if q and param_rows.shape[1] != SEGMENT_BYTES:
        raise ValueError("param_rows are not 22 bytes")
    cdef Segment* row
    cdef double value, ds, slope = 0.0, inverse = 0.0, nominal = -1.0
    cdef int64_t d, tick, ticks, now = <int64_t>_ticks(t_s[0])
    cdef Py_ssize_t sloped = -1
    with nogil:
        # invariant: rows before r are written; ``bad`` is the last segment that did not fit
        for i in range(k):
            tick = <int64_t>_ticks(t_s[i + 1])
            while param < q and param_tick[param] <= now and r < room:
                memcpy(&out[r, 0], &param_rows[param, 0], SEGMENT_BYTES)
                begin_tick[r] = now
                param += 1
                r += 1
            if r >= room:
                break
            row = <Segment*>&out[r, 0]
            ticks = tick - now
            if ticks < 1 or ticks > most_ticks:
                bad = i
            for ax in range(a):
                d = steps[i + 1, ax] - steps[i, ax]
                if d > most_steps or d < -most_steps:
                    bad = i
                row.steps[ax] = <int16_t>(<uint16_t>(d & 0xFFFF))
            for ax in range(a, MOST_AXES):
                row.steps[ax] = 0
            # same way in the same time, slope of the ends: exact without jerk, and with it the
            # error is the same at both ends
            ds = s_mm[i + 1] - s_mm[i]
            value = 32768.0
            if ds > 0.0:
                value -= 16384.0 * (v_mm_s[i + 1] - v_mm_s[i]) * (t_s[i + 1] - t_s[i]) / ds
            row.start_ratio = <uint16_t>(least(most(value, 0.0), 65535.0) + 0.5)
            while p < n - 1 and node_s[p + 1] <= t_s[i + 1]:
                p += 1
            value = node_share[p]
            if p < n - 1 and t_s[i + 1] > node_s[p]:
                if p != sloped:
                    sloped = p
                    slope = (node_share[p + 1] - value) / (node_s[p + 1] - node_s[p])
                value += slope * (t_s[i + 1] - node_s[p])
            row.end_power = <uint16_t>(65535.0 * least(most(value, 0.0), 1.0) + 0.5)
            if nominal_mm_s[i] != nominal:
                nominal = nominal_mm_s[i]
                inverse = 32768.0 / most(nominal, TINY)
            row.end_speed = <uint16_t>(least(v_mm_s[i + 1] * inverse, 65535.0) + 0.5)
            row.ticks_lo = <uint16_t>(ticks & 0xFFFF)
            row.ticks_hi = <uint8_t>((ticks >> 16) & 0xFF)
            row.flags = flags[i]
            begin_tick[r] = now
            now = tick
            r += 1
    if bad >= 0:
        raise ValueError(
            f"segment {bad} at {t_s[bad]:.6f} s does not fit: at most {most_steps} steps and "
            f"1 to {most_ticks} ticks"
        )
    if r >= room and i < k - 1:
        raise ValueError(f"no room for {k} segments and {param} parameter rows in {room}")
    return r, param


# --- frames -------------------------------------------------------------------------------

cdef uint32_t crc_table[16][256]


cdef void _make_tables() noexcept nogil:
    """CRC-32 of IEEE 802.3, reflected: table k advances a byte over k more zero bytes."""
    cdef uint32_t c
    cdef int i, k
    for i in range(256):
        c = <uint32_t>i
        for k in range(8):
            c = (c >> 1) ^ (<uint32_t>0xEDB88320 if c & 1 else 0)
        crc_table[0][i] = c
    for i in range(256):
        for k in range(1, 16):
            c = crc_table[k - 1][i]
            crc_table[k][i] = (c >> 8) ^ crc_table[0][c & 0xFF]


_make_tables()


cdef uint32_t _crc32(const uint8_t* data, Py_ssize_t n) noexcept nogil:
    """Sixteen bytes a turn (Kounavis and Berry's slicing); words are little endian."""
    cdef uint32_t c = 0xFFFFFFFF
    cdef uint32_t w[4]
    cdef Py_ssize_t i
    # invariant: c is the register after the bytes before ``data``
    while n >= 16:
        memcpy(w, data, 16)
        w[0] ^= c
        c = (
            crc_table[15][w[0] & 0xFF] ^ crc_table[14][(w[0] >> 8) & 0xFF]
            ^ crc_table[13][(w[0] >> 16) & 0xFF] ^ crc_table[12][w[0] >> 24]
            ^ crc_table[11][w[1] & 0xFF] ^ crc_table[10][(w[1] >> 8) & 0xFF]
            ^ crc_table[9][(w[1] >> 16) & 0xFF] ^ crc_table[8][w[1] >> 24]
            ^ crc_table[7][w[2] & 0xFF] ^ crc_table[6][(w[2] >> 8) & 0xFF]
            ^ crc_table[5][(w[2] >> 16) & 0xFF] ^ crc_table[4][w[2] >> 24]
            ^ crc_table[3][w[3] & 0xFF] ^ crc_table[2][(w[3] >> 8) & 0xFF]
            ^ crc_table[1][(w[3] >> 16) & 0xFF] ^ crc_table[0][w[3] >> 24]
        )
        data += 16
        n -= 16
    for i in range(n):
        c = (c >> 8) ^ crc_table[0][(c ^ data[i]) & 0xFF]
    return c ^ <uint32_t>0xFFFFFFFF


cdef inline void _put32(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value & 0xFF)
    at[1] = <uint8_t>((value >> 8) & 0xFF)
    at[2] = <uint8_t>((value >> 16) & 0xFF)
    at[3] = <uint8_t>(value >> 24)


def frame_segments(const uint8_t[:, ::1] rows, first_index, first_sequence):
    """SEGMENTS frames of 20 rows each, one after the other (the last may be shorter).

    Parameters
    ----------
    rows : (n, 22) uint8            SEGMENT rows as bytes, n >= 0
    first_index, first_sequence     of the first row and of the first frame, both modulo 2^32

    Returns (bytes,) uint8 array.
    """
    cdef Py_ssize_t n = rows.shape[0], frames, f, at = 0, size
    # 64 bits and a mask: numbers go on from 0 after 2^32 - 1
    cdef uint64_t index = first_index & 0xFFFFFFFF
    cdef uint64_t sequence = first_sequence & 0xFFFFFFFF
    cdef int count, length
    if rows.shape[1] != SEGMENT_BYTES:
        raise ValueError(f"rows of {rows.shape[1]} bytes, needed {SEGMENT_BYTES}")
    frames = (n + FRAME_SEGMENTS - 1) // FRAME_SEGMENTS
    size = frames * (FRAME_HEAD + FRAME_CRC) + n * SEGMENT_BYTES
    out = np.empty(size, dtype=np.uint8)
    if n == 0:
        return out
    cdef uint8_t[::1] view = out
    cdef uint8_t* o = &view[0]
    cdef const uint8_t* data = &rows[0, 0]
    with nogil:
        # invariant: o[:at] holds f whole frames
        for f in range(frames):
            count = FRAME_SEGMENTS
            if f == frames - 1:
                count = <int>(n - f * FRAME_SEGMENTS)
            length = 4 + SEGMENT_BYTES * count
            o[at] = 0xA5
            o[at + 1] = 0x02
            o[at + 2] = <uint8_t>(length & 0xFF)
            o[at + 3] = <uint8_t>(length >> 8)
            _put32(o + at + 4, <uint32_t>((sequence + <uint64_t>f) & <uint64_t>0xFFFFFFFF))
            _put32(
                o + at + 8, <uint32_t>((index + <uint64_t>(f * FRAME_SEGMENTS)) & <uint64_t>0xFFFFFFFF)
            )
            memcpy(
                o + at + FRAME_HEAD, data + f * FRAME_SEGMENTS * SEGMENT_BYTES,
                count * SEGMENT_BYTES,
            )
            at += 8 + length
            _put32(o + at, _crc32(o + at - 8 - length, 8 + length))
            at += FRAME_CRC
    return out

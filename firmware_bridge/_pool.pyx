"""Melt pool in a camera frame: width, length, area, temperatures. C, one frame at a time.

Nothing is assumed of the picture but that the pool is the largest bright patch, longer than
wide or round, and that its edge is an isotherm: the level of the solidus in counts.

1. Background and its noise: median and upper sixth of the frame's border.
2. Runs of pixels above the level, joined row by row (union-find); the largest patch is the
   pool, the others are spatter. Its second moments give the axis of travel.
3. Chords across the axis, walked outwards from it to the first crossing; between pixels the
   logarithm of the signal is interpolated, since radiance is nearly exponential there. The
   width is the top of a parabola through the squares of the longest chords; chords that stand
   out over a few pixels only (spatter touching the pool) are left out. The same along the axis
   gives the length.
4. Blur widens an exponential edge by slope * sigma^2 / 2 on each side, whatever the level; the
   slope of the logarithm is measured at the crossings, sigma is the lens' calibration.
"""

from libc.math cimport atan2, cos, fabs, log, pi, sin, sqrt
from libc.stdint cimport int32_t, uint8_t, uint16_t

import numpy as np

ctypedef fused pixel:
    uint8_t
    uint16_t

cdef enum:
    MOST_RUNS = 8192
    MOST_BORDER = 4096
    MOST_CHORDS = 256
    COARSE = 10                     # looks to each side of the centre
    FINE = 40                       # chords at the most

cdef double LEAST_SIGNAL = 0.25     # counts; stands for all that is not above the background
cdef double NOISE_MARGIN = 4.0      # the level must stand so many sigmas above the background

cdef struct Run:
    int row, first, last            # last is included
    int parent                      # root of its patch, by union-find

cdef struct Chords:
    int n
    double step
    double length[MOST_CHORDS]
    double slope[MOST_CHORDS]       # of ln(signal) at both ends, mean, 1/px, falling counts up
    double bend[MOST_CHORDS]        # how much steeper it gets per px outwards, 1/px2


cdef class PoolKernel:
    """Measures frames of one size and one calibration.

    Parameters
    ----------
    width, height : int, px           of the frames, 16 to 2048
    ln_signal : (n,) float32          ln of counts above background, by counts (index 0 unused)
    temp_deg_c : (n,) float32         temperature by counts above background, degC
    level : float                     counts above background at the pool's edge, > 0
    saturation : int                  counts at and above which a pixel is full
    sigma_px : float                  blur of the optics, standard deviation
    least_px : int                    a smaller patch is no pool

    n is the number of values a pixel can have. Raises ValueError.
    """

    cdef int width, height, saturation, least_px
    cdef double level, sigma_px
    cdef const float[::1] ln_signal
    cdef const float[::1] temp_deg_c
    cdef Run[::1] runs
    cdef int32_t[::1] border
    cdef int32_t[::1] sizes             # pixels of a patch, by its root
    cdef int n_runs, base
    cdef double noise, background
    # of the chosen patch
    cdef long n_px
    cdef double cx, cy, axis
    cdef double sxx, syy, sxy           # second moments, px2

    def __init__(self, width, height, *, ln_signal, temp_deg_c, level, saturation, sigma_px,
                 least_px):
        if not 16 <= width <= 2048 or not 16 <= height <= 2048:
            raise ValueError(f"a frame of {width} x {height} px is not 16 to 2048 px wide and high")
        if len(ln_signal) != len(temp_deg_c) or len(ln_signal) < 256:
            raise ValueError(f"tables of {len(ln_signal)} and {len(temp_deg_c)} values")
        if not 0.0 < level < len(ln_signal) or not sigma_px >= 0.0:
            raise ValueError(f"level {level} counts or blur {sigma_px} px makes no sense")
        self.width, self.height = width, height
        self.saturation, self.least_px = saturation, least_px
        self.level, self.sigma_px = level, sigma_px
        self.ln_signal = np.ascontiguousarray(ln_signal, np.float32)
        self.temp_deg_c = np.ascontiguousarray(temp_deg_c, np.float32)
        self.runs = np.zeros(MOST_RUNS, [("row", "i4"), ("first", "i4"), ("last", "i4"),
                                         ("parent", "i4")])
        self.border = np.zeros(MOST_BORDER, np.int32)
        self.sizes = np.zeros(MOST_RUNS, np.int32)

    def measure(self, const pixel[:, ::1] frame):
        """Measure one frame, (height, width) uint8 or uint16.

        Returns (found, width_px, length_px, area_px2, mean_deg_c, peak_deg_c,
        saturated_share, x_px, y_px, angle_rad, background, noise, touches_border,
        level_in_noise). Without a pool the numbers of it are 0.
        """
        cdef Chords across, along
        cdef int root, touches = 0
        cdef double width = 0.0, length = 0.0, slope = 0.0, bend = 0.0, blur, area
        cdef double mean = 0.0, peak = 0.0, share = 0.0
        if frame.shape[0] != self.height or frame.shape[1] != self.width:
            raise ValueError(
                f"a frame of {frame.shape[1]} x {frame.shape[0]} px, "
                f"not {self.width} x {self.height}"
            )
        self.measure_background(frame)
        cdef bint dark = self.level < NOISE_MARGIN * self.noise
        root = self.find_patch(frame)
        if root < 0:
            return (False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
                    self.background, self.noise, False, dark)
        self.temperatures(frame, root, &mean, &peak, &share, &touches)
        self.chords(frame, self.axis, &across)
        self.chords(frame, self.axis + 0.5 * pi, &along)
        # second differences are noisy: one bend for all edges of the frame
        bend = 0.5 * (mean_bend(&across) + mean_bend(&along))
        width = top(&across, &slope)
        blur = self.widening(slope, bend)
        width = max(width - 2.0 * blur, 0.0)
        length = top(&along, &slope)
        length = max(length - 2.0 * self.widening(slope, bend), 0.0)
        # Ramanujan's first: perimeter of the ellipse with these axes, times the blur's edge
        area = self.n_px - blur * 0.5 * pi * (
            3.0 * (width + length) - sqrt((3.0 * width + length) * (width + 3.0 * length))
        )
        return (True, width, length, area, mean, peak, share, self.cx, self.cy, self.axis,
                self.background, self.noise, bool(touches), dark)

    cdef void measure_background(self, const pixel[:, ::1] frame) noexcept:
        """Median of the border, and half the spread of its middle 68 % as sigma."""
        cdef int n = 0, i, around = 2 * (self.width + self.height)
        cdef int every = 1 + around // 512
        for i in range(0, self.width, every):
            self.border[n] = frame[0, i]
            self.border[n + 1] = frame[self.height - 1, i]
            n += 2
        for i in range(0, self.height, every):
            self.border[n] = frame[i, 0]
            self.border[n + 1] = frame[i, self.width - 1]
            n += 2
        cdef double low, high
        # the steps of a coarse converter hide noise below one count: half a step at the least
        self.background = select(self.border, n, n // 2)
        high = select(self.border, n, (84 * n) // 100)
        low = select(self.border, n, (16 * n) // 100)
        self.noise = max(0.5 * (high - low), 0.3)
        # counts left and right of the median tell it more finely than a whole count
        cdef int below = 0, equal = 0
        for i in range(n):
            below += self.border[i] < self.background
            equal += self.border[i] == self.background
        self.base = <int>self.background
        if equal:
            self.background += (0.5 * n - below) / equal - 0.5

    cdef int find_patch(self, const pixel[:, ::1] frame) noexcept:
        """Label the runs above the level; the root of the largest patch, or -1."""
        cdef int y, x, first, row_begin, before = 0, before_end = 0, i, k, best = -1
        cdef int most = 0
        cdef int level = <int>(self.background + self.level)
        cdef const pixel *row
        cdef double n, m, sx, sy, sxx, syy, sxy, total
        self.n_runs = 0
        for y in range(self.height):
            row = &frame[y, 0]
            row_begin = self.n_runs
            k = 0
            for x in range(self.width):
                k |= row[x] > level
            if k:
                x = 0
                while x < self.width and self.n_runs < MOST_RUNS:
                    if row[x] > level:
                        first = x
                        while x < self.width and row[x] > level:
                            x += 1
                        i = self.n_runs
                        self.runs[i].row, self.runs[i].first = y, first
                        self.runs[i].last, self.runs[i].parent = x - 1, i
                        self.n_runs += 1
                        # runs of the row above that touch it, corners included
                        while before < before_end and self.runs[before].last < first - 1:
                            before += 1
                        k = before
                        while k < before_end and self.runs[k].first <= x:
                            self.join(k, i)
                            k += 1
                    else:
                        x += 1
            before, before_end = row_begin, self.n_runs
        if self.n_runs == 0:
            return -1
        for i in range(self.n_runs):
            self.sizes[i] = 0
        for i in range(self.n_runs):
            k = self.root(i)
            self.runs[i].parent = k
            self.sizes[k] += self.runs[i].last - self.runs[i].first + 1
            if self.sizes[k] > most:
                most, best = self.sizes[k], k
        if most < self.least_px:
            return -1
        total = sx = sy = sxx = syy = sxy = 0.0
        for i in range(self.n_runs):
            if self.runs[i].parent == best:
                n = self.runs[i].last - self.runs[i].first + 1
                m = 0.5 * (self.runs[i].last + self.runs[i].first)
                y = self.runs[i].row
                total += n
                sx += n * m
                sy += n * y
                sxx += n * (m * m + (n * n - 1.0) / 12.0)
                syy += n * y * y
                sxy += n * m * y
        self.n_px = most
        self.cx, self.cy = sx / total, sy / total
        self.sxx = sxx / total - self.cx * self.cx
        self.syy = syy / total - self.cy * self.cy
        self.sxy = sxy / total - self.cx * self.cy
        self.axis = 0.5 * atan2(2.0 * self.sxy, self.sxx - self.syy)
        return best

    cdef int root(self, int i) noexcept:
        while self.runs[i].parent != i:
            self.runs[i].parent = self.runs[self.runs[i].parent].parent
            i = self.runs[i].parent
        return i

    cdef void join(self, int a, int b) noexcept:
        a, b = self.root(a), self.root(b)
        if a < b:
            self.runs[b].parent = a
        elif b < a:
            self.runs[a].parent = b

    cdef void temperatures(
        self, const pixel[:, ::1] frame, int root, double *mean, double *peak, double *share,
        int *touches
    ) noexcept:
        """Mean and peak temperature of the patch, its share of full pixels, its place."""
        cdef int i, x, y, value, full = 0, brightest = -1, bx = 0, by = 0, k, n, most
        cdef int around[9]
        cdef double total = 0.0
        most = <int>self.temp_deg_c.shape[0] - 1
        touches[0] = 0
        for i in range(self.n_runs):
            if self.runs[i].parent != root:
                continue
            y = self.runs[i].row
            if y == 0 or y == self.height - 1 or self.runs[i].first == 0 \
                    or self.runs[i].last == self.width - 1:
                touches[0] = 1
            for x in range(self.runs[i].first, self.runs[i].last + 1):
                value = frame[y, x]
                full += value >= self.saturation
                if value > brightest:
                    brightest, bx, by = value, x, y
                total += self.temp_deg_c[min(max(value - self.base, 0), most)]
        mean[0] = total / self.n_px
        share[0] = <double>full / self.n_px
        n = 0
        for y in range(max(by - 1, 0), min(by + 2, self.height)):
            for x in range(max(bx - 1, 0), min(bx + 2, self.width)):
                k = n
                while k > 0 and around[k - 1] > frame[y, x]:
                    around[k] = around[k - 1]
                    k -= 1
                around[k] = frame[y, x]
                n += 1
        # the median of its neighbourhood: a single hot pixel is no temperature
        peak[0] = self.temp_deg_c[min(max(around[n // 2] - self.base, 0), most)]

    cdef double ln_at(self, const pixel[:, ::1] frame, double x, double y) noexcept:
        """ln of the signal between four pixels. The caller keeps to the frame."""
        cdef int i = <int>x, k = <int>y
        cdef double u = x - i, v = y - k
        return (
            (1.0 - v) * ((1.0 - u) * self.ln(frame[k, i]) + u * self.ln(frame[k, i + 1]))
            + v * ((1.0 - u) * self.ln(frame[k + 1, i]) + u * self.ln(frame[k + 1, i + 1]))
        )

    cdef double ln(self, int value) noexcept:
        cdef double signal = value - self.background
        if signal >= 32.0:  # there the fraction of the background makes < 1.6 %, first order
            return self.ln_signal[value - self.base] - (self.background - self.base) / signal
        return log(max(signal, LEAST_SIGNAL))

    cdef void chords(self, const pixel[:, ::1] frame, double axis, Chords *out) noexcept:
        """Chords across ``axis`` around the longest, at steps along it.

        A coarse look by whole pixels over the patch's length says where and how long they are.
        """
        cdef double ex = cos(axis), ey = sin(axis), level = log(self.level)
        cdef double x, y, s, length, slope, bend, one, other, at = 0.0, longest = 0.0
        # an ellipse reaches two standard deviations from its centre
        cdef double reach = 2.3 * sqrt(max(
            self.sxx * ex * ex + 2.0 * self.sxy * ex * ey + self.syy * ey * ey, 0.25
        ))
        cdef double first, last = 0.0
        cdef int i
        for i in range(-COARSE, COARSE + 1):
            s = reach * i / COARSE
            x, y = self.cx + s * ex, self.cy + s * ey
            length = self.look(frame, x, y, -ey, ex) + self.look(frame, x, y, ey, -ex)
            if length > longest:
                longest, at = length, s
        # the long ones of an ellipse lie within a third of its half axis; a coarse step beside
        first = at - (0.4 + 1.0 / COARSE) * reach
        last = at + (0.4 + 1.0 / COARSE) * reach
        out.step = max((last - first) / FINE, 0.25)
        out.n = min(<int>((last - first) / out.step) + 1, MOST_CHORDS)
        for i in range(out.n):
            s = first + i * out.step
            x, y = self.cx + s * ex, self.cy + s * ey
            slope = bend = 0.0
            one = self.walk(frame, x, y, -ey, ex, level, 0.35 * longest - 3.0, &slope, &bend)
            other = self.walk(frame, x, y, ey, -ex, level, 0.35 * longest - 3.0, &slope, &bend)
            out.length[i] = one + other if one >= 0.0 and other >= 0.0 else 0.0
            out.slope[i], out.bend[i] = 0.5 * slope, 0.5 * bend

    cdef double widening(self, double slope, double bend) noexcept:
        """How far the edge seems outside its true place, px.

        ln(signal) near the edge is -slope * x - bend * x2 / 2; a Gauss of sigma makes of it
        slope2 * sigma2 / 2 / (1 + bend * sigma2) - ln(1 + bend * sigma2) / 2 more. Straight
        lines between samples, in both directions of the grid and along the chord, lie lower
        than the bent curve: by bend / 12 each, on average.
        """
        cdef double s2 = self.sigma_px * self.sigma_px, more
        if slope <= 0.0:
            return 0.0
        if self.sigma_px > 0.0:  # steeper than this no picture of that blur can be
            slope = min(slope, 3.0 / self.sigma_px)
        bend = min(max(bend, 0.0), 0.5 * slope)
        more = 1.0 + bend * s2
        return (0.5 * slope * slope * s2 / more - 0.5 * log(more) - bend / 4.0) / slope

    cdef double look(
        self, const pixel[:, ::1] frame, double x, double y, double dx, double dy
    ) noexcept:
        """Distance to the first two pixels under the level, by whole pixels."""
        cdef int level = <int>(self.background + self.level), under = 0
        cdef double distance = 0.0
        x, y = x + 0.5, y + 0.5
        while 0.0 <= x < self.width and 0.0 <= y < self.height:
            under = under + 1 if frame[<int>y, <int>x] <= level else 0
            if under == 2:
                return max(distance - 1.0, 0.0)
            x, y, distance = x + dx, y + dy, distance + 1.0
        return distance

    cdef double walk(
        self, const pixel[:, ::1] frame, double x, double y, double dx, double dy, double level,
        double start, double *slope, double *bend
    ) noexcept:
        """Distance to the first crossing that two samples confirm, px; -1 when there is none.

        ``start``: so far it is known to be bright; where it is not, the walk begins at 0.
        """
        cdef double before, last, here, beyond, distance
        cdef double most_x = self.width - 1.001, most_y = self.height - 1.001
        cdef double px, py
        for distance in (max(start, 0.0), 0.0):
            px, py = x + distance * dx, y + distance * dy
            if px < 0.0 or py < 0.0 or px > most_x or py > most_y:
                continue
            last = self.ln_at(frame, px, py)
            if last >= level:
                break
        else:
            return -1.0
        px, py = px + dx, py + dy
        if px < 0.0 or py < 0.0 or px > most_x or py > most_y:
            return -1.0
        here = self.ln_at(frame, px, py)
        before = 2.0 * last - here
        while True:
            px, py = px + dx, py + dy
            if px < 0.0 or py < 0.0 or px > most_x or py > most_y:
                return -1.0
            beyond = self.ln_at(frame, px, py)
            if here < level and beyond < level:
                slope[0] += last - here
                bend[0] += 0.5 * ((here - beyond) - (before - last))
                return distance + (last - level) / (last - here)
            if here >= level:
                before, last, here, distance = last, here, beyond, distance + 1.0
            else:  # one dark sample within the pool is passed over
                before, last, distance = here, beyond, distance + 2.0
                px, py = px + dx, py + dy
                if px < 0.0 or py < 0.0 or px > most_x or py > most_y:
                    return -1.0
                here = self.ln_at(frame, px, py)


cdef double mean_bend(const Chords *chords) noexcept:
    cdef double total = 0.0
    cdef int i, n = 0
    for i in range(chords.n):
        if chords.length[i] > 0.0:
            total += chords.bend[i]
            n += 1
    return total / n if n else 0.0


cdef double top(Chords *chords, double *slope) noexcept:
    """Length of the longest chord by a parabola through the squares of the long ones."""
    cdef double opened[MOST_CHORDS]
    cdef double low[MOST_CHORDS]
    cdef int n = chords.n, i, k, first, last, used, around, at = 0, turn
    cdef double longest = 0.0, s, z, w, edge, spread
    cdef double m[5]
    cdef double r[3]
    cdef double a, b, c, d, value = 0.0
    slope[0] = 0.0
    for i in range(n):
        longest = max(longest, chords.length[i])
    if longest <= 0.0:
        return 0.0
    # opening: what stands out over less than 5 px, or a third of the chord, is not the pool
    around = max(1, <int>(0.5 * min(5.0, 0.3 * longest) / chords.step))
    for i in range(n):
        low[i] = chords.length[i]
        for k in range(max(i - around, 0), min(i + around + 1, n)):
            low[i] = min(low[i], chords.length[k])
    longest = 0.0
    for i in range(n):
        opened[i] = low[i]
        for k in range(max(i - around, 0), min(i + around + 1, n)):
            opened[i] = max(opened[i], low[k])
        if opened[i] > longest:
            longest, at = opened[i], i
    # the stretch of long chords around the longest
    first = last = at
    while first > 0 and opened[first - 1] >= 0.94 * longest:
        first -= 1
    while last < n - 1 and opened[last + 1] >= 0.94 * longest:
        last += 1
    edge = 0.03 * longest + 0.7
    for turn in range(2):
        for k in range(5):
            m[k] = 0.0
        for k in range(3):
            r[k] = 0.0
        used = 0
        slope[0] = 0.0
        for i in range(first, last + 1):
            if chords.length[i] > opened[i] + edge or chords.length[i] <= 0.0:
                continue
            s = (i - 0.5 * (first + last)) / (0.5 * (last - first) + 1.0)
            z = chords.length[i] * chords.length[i]
            if turn and fabs(sqrt(z) - sqrt(max(a + b * s + c * s * s, 0.0))) > spread:
                continue
            w = 1.0
            for k in range(5):
                m[k] += w
                if k < 3:
                    r[k] += w * z
                w *= s
            slope[0] += chords.slope[i]
            used += 1
        if used == 0:
            return longest
        slope[0] /= used
        d = (m[0] * (m[2] * m[4] - m[3] * m[3]) - m[1] * (m[1] * m[4] - m[3] * m[2])
             + m[2] * (m[1] * m[3] - m[2] * m[2]))
        if used < 5 or fabs(d) < 1e-9:
            return sqrt(r[0] / m[0])
        a = (r[0] * (m[2] * m[4] - m[3] * m[3]) - m[1] * (r[1] * m[4] - m[3] * r[2])
             + m[2] * (r[1] * m[3] - m[2] * r[2])) / d
        b = (m[0] * (r[1] * m[4] - r[2] * m[3]) - r[0] * (m[1] * m[4] - m[3] * m[2])
             + m[2] * (m[1] * r[2] - m[2] * r[1])) / d
        c = (m[0] * (m[2] * r[2] - m[3] * r[1]) - m[1] * (m[1] * r[2] - m[2] * r[1])
             + r[0] * (m[1] * m[3] - m[2] * m[2])) / d
        spread = 0.02 * longest + 0.5
    if c < 0.0 and fabs(b) < -2.0 * c:
        value = a - 0.25 * b * b / c
    else:
        value = max(a + b + c, a - b + c, a)
    return sqrt(value) if value > 0.0 else 0.0


cdef double select(int32_t[::1] values, int n, int k) noexcept:
    """The k-th smallest of the first n values; sorts them in part (Hoare)."""
    cdef int low = 0, high = n - 1, i, j
    cdef int32_t pivot, held
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                held = values[i]
                values[i], values[j] = values[j], held
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]

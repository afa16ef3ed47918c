"""Speed ramps of limited jerk and acceleration, by formula or by safe roots; all inline.

A ramp goes from a speed to a higher one with acceleration 0 at both ends: jerk j, constant
acceleration a if it is met, jerk -j. Lengths mm, times s, speeds mm/s.
"""

from libc.math cimport cbrt, fabs, sqrt

cdef enum:
    MOST_STEPS = 60  # of any iteration here; 3 to 8 are usual


cdef inline double least(double a, double b) noexcept nogil:
    return a if a < b else b


cdef inline double most(double a, double b) noexcept nogil:
    return a if a > b else b


cdef inline double ramp_s(double low, double high, double a, double j) noexcept nogil:
    """Least time from one speed to a higher one, acceleration 0 at both ends."""
    cdef double dv = high - low
    if dv <= 0.0:
        return 0.0
    if dv * j <= a * a:
        return 2.0 * sqrt(dv / j)
    return dv / a + a / j


cdef inline double ramp_mm(double low, double high, double a, double j) noexcept nogil:
    """Way of the same."""
    return 0.5 * (low + high) * ramp_s(low, high, a, j)


cdef inline double passes_mm(double low, double high, double c, double a, double j) noexcept nogil:
    """Way at which the ramp from low to high has the speed c between them."""
    cdef double top = least(a, sqrt((high - low) * j))  # greatest acceleration of the ramp
    cdef double part = top * top / (2.0 * j)  # speed gained by each of the two bent pieces
    cdef double t = top / j
    if c - low <= part:
        t = sqrt(2.0 * (c - low) / j)
        return t * (low + j * t * t / 6.0)
    if high - c <= part:
        t = sqrt(2.0 * (high - c) / j)
        return ramp_mm(low, high, a, j) - t * (high - j * t * t / 6.0)
    return t * (low + j * t * t / 6.0) + (c * c - (low + part) * (low + part)) / (2.0 * top)


cdef inline double target_past(
    double low, double c, double way, double high, double a, double j
) noexcept nogil:
    """Greatest target in c..high whose ramp from low is not above c at the given way.

    ``high`` itself is known to be too much. The way at which c is met falls as targets rise.
    """
    cdef double x0 = c, x1 = high, f0 = ramp_mm(low, c, a, j) - way, f1, x, f
    cdef int side = 0, i
    if f0 <= 0.0:
        return c
    f1 = passes_mm(low, high, c, a, j) - way
    if f1 >= 0.0:
        return high
    # invariant: x0 is allowed, x1 is not (false position, the stale end's weight halved)
    for i in range(MOST_STEPS):
        if x1 - x0 <= 1e-13 * x1:
            break
        x = x0 + (x1 - x0) * f0 / (f0 - f1)
        if i & 7 == 7 or not x0 < x < x1:
            x = 0.5 * (x0 + x1)
            if x <= x0 or x >= x1:
                break
        f = passes_mm(low, x, c, a, j) - way
        if f >= 0.0:
            x0 = x
            f0 = f
            if side == 1:
                f1 *= 0.5
            side = 1
            if f <= 1e-13 * way:
                break
        else:
            x1 = x
            f1 = f
            if side == -1:
                f0 *= 0.5
            side = -1
    return x0


cdef inline double free_target(double low, double c, double a, double j) noexcept nogil:
    """A target so high that the ramp passes c as steeply as any does."""
    return low + 1.001 * most(2.0 * (c - low), (c - low) + a * a / j)


cdef inline double lowered(
    double low, double c, double way, double target, double a, double j
) noexcept nogil:
    """The target of a ramp after it has met a corner of limit c > low after ``way``."""
    cdef double high
    if c >= target:
        return target
    high = least(target, free_target(low, c, a, j))
    # a corner passed on its limit is not beyond it
    if passes_mm(low, high, c, a, j) >= way * (1.0 - 1e-12):
        return target
    return target_past(low, c, way, high, a, j)


cdef inline double reached(double low, double way, double a, double j) noexcept nogil:
    """Greatest speed with acceleration 0 that a rise from low reaches within a way."""
    cdef double x, y, f, step, dv
    cdef int i
    # jerk alone: j x^3 + 2 low x = way with dv = j x^2; convex, so Newton from above
    x = cbrt(way / j)
    if low > 0.0:
        x = least(x, way / (2.0 * low))
    for i in range(MOST_STEPS):
        f = x * (2.0 * low + j * x * x) - way
        step = f / (2.0 * low + 3.0 * j * x * x + 1e-300)
        x -= step
        if step <= 1e-15 * x:
            break
    if j * x <= a:
        dv = j * x * x
    else:
        # (2 low + dv) (dv / a + a / j) = 2 way
        y = 2.0 * low + a * a / j
        f = 2.0 * a * way - 2.0 * low * a * a / j
        dv = 2.0 * f / (y + sqrt(y * y + 4.0 * f))
        dv = most(dv, a * a / j)
    dv = most(dv, 0.0)
    # never more than the way allows
    for i in range(4):
        if ramp_mm(low, low + dv, a, j) <= way:
            break
        dv *= 1.0 - 4e-16 * (1 << (4 * i))
    return low + dv


cdef inline double peak_of(double low, double high, double way, double a, double j) noexcept nogil:
    """Peak speed of a rise from one end and a fall to the other that fill the way together.

    With high + j x^2 for the peak both ramps are convex in x: Newton from above converges.
    """
    cdef double gap = (high - low) / j, x, y, f, g, dv, limit = a / j, step
    cdef double need = ramp_mm(low, high, a, j)
    cdef int i
    x = 1e300
    if high > 0.0:
        x = (way - need) / (2.0 * high)
    if not j * x * x < high:
        x = least(x, cbrt(way / (2.0 * j)))
    for i in range(MOST_STEPS):
        y = sqrt(x * x + gap)
        if x <= limit:
            f = x * (2.0 * high + j * x * x)
            g = 2.0 * high + 3.0 * j * x * x
        else:
            dv = j * x * x
            f = 0.5 * (2.0 * high + dv) * (dv / a + limit)
            g = (dv / a + limit + (2.0 * high + dv) / a) * j * x
        if y <= limit:
            f += y * (2.0 * low + j * y * y)
            g += (2.0 * low + 3.0 * j * y * y) * (x / y if y > 0.0 else 1.0)
        else:
            dv = j * y * y
            f += 0.5 * (2.0 * low + dv) * (dv / a + limit)
            g += (dv / a + limit + (2.0 * low + dv) / a) * j * x
        step = (f - way) / (g + 1e-300)
        x -= step
        if step <= 1e-11 * x:  # quadratic: the next step would be below rounding
            break
    return high + j * x * x if x > 0.0 else high


cdef inline double bent_s(double v, double j, double way) noexcept nogil:
    """Time to cover a way from speed v, acceleration 0, under constant jerk of either sign."""
    cdef double t, step
    cdef int i
    if way <= 0.0:
        return 0.0
    if j > 0.0:
        # convex: Newton from above
        t = 1e300 if v <= 0.0 else way / v
        if not j * t * t < v:
            t = least(t, cbrt(6.0 * way / j))
    else:
        t = way / v  # concave: Newton from below
    for i in range(MOST_STEPS):
        step = (t * (v + j * t * t / 6.0) - way) / (v + 0.5 * j * t * t)
        t -= step
        if fabs(step) <= 1e-11 * t:
            break
    return t

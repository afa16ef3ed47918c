"""What light and powder leave behind: pool temperature, bead, height map.

Numbers marked (guess) are nobody's data sheet and nobody's measurement.
"""

from libc.math cimport exp, floor, pow, sqrt

from ._source cimport Noise

# the working point: power, speed and layer height of recipe 316l_general
cdef double POWER_NOMINAL_W = 600.0
cdef double SPEED_NOMINAL_MM_S = 10.0
cdef double GAP_NOMINAL_MM = 0.55       # nozzle point above what the bead is laid on
cdef double BEAD_NOMINAL_MM = 1.6       # width of the bead there (guess)
cdef double WIDTH_BY_POWER = 0.37       # exponents of a 2^4 plan of single beads, 800-1700 W
cdef double WIDTH_BY_SPEED = -0.15
cdef double LEAST_MELT_W = 80.0         # below: no pool, nothing sticks (guess)
cdef double JET_MM = 1.5830             # jet radius there: catchment 0.40 at 1.6 mm (guess)
cdef double FOCUS_BELOW_MM = 1.5        # focus below the point: heights settle (guess)
cdef double FOCUS_LENGTH_MM = 4.0       # (guess)
cdef double POOL_RISE_K = 1850.0        # at nominal power and speed, by sqrt of power (guess)
cdef double POOL_BY_SPEED = -0.1        # (guess)
cdef double POOL_TAU_S = 0.06           # 30 to 120 ms by pool size (guess)
cdef double POOL_NOISE = 0.01           # (guess)


cdef class Bead:
    """Melt pool and height map.

    ``heights_mm`` (ny, nx) float64 above the substrate, written in place; ``origin_mm`` its
    lower left corner; ``density_g_mm3`` (2) of the deposit, by hopper; ``random`` a generator.
    """

    def __init__(self, *, top_mm, origin_mm, cell_mm, heights_mm, density_g_mm3, random):
        cdef int i
        self.heights = heights_mm
        self.top_mm, self.cell_mm = top_mm, cell_mm
        self.x0_mm, self.y0_mm = origin_mm[0], origin_mm[1]
        self.height_mm = top_mm
        for i in range(2):
            self.density[i] = density_g_mm3[i]
        self.noise = Noise(random)

    cdef int lay(self, const Step *step) except -1:
        """Mass balance: what the pool catches of the jet grows the height map.

        Width follows measured beads; catchment is a Gaussian jet over the
        pool. The jet's focus lies below the working point: too high a surface catches less.
        """
        cdef double power_w, gap, jet, catchment, mass_g, density, rate_g_s
        cdef double f0 = step.on_from, f1 = step.on_to
        cdef double ahead = 0.0
        cdef int n, i
        if step.distance_mm > 0.0:
            ahead = 0.5 * self.width_mm / step.distance_mm
        self.height_mm = self.height_at(
            step.x_mm + step.dx_mm * ahead, step.y_mm + step.dy_mm * ahead
        )
        if step.on_s <= 0.0:
            self.width_mm = 0.0
            return 0
        power_w = step.asked_j / step.on_s  # without the source's tail, which may outlast it
        if power_w < LEAST_MELT_W:
            self.width_mm = 0.0
            return 0
        self.width_mm = BEAD_NOMINAL_MM * pow(power_w / POWER_NOMINAL_W, WIDTH_BY_POWER) * pow(
            max(step.speed_mm_s, 1.0) / SPEED_NOMINAL_MM_S, WIDTH_BY_SPEED
        )
        rate_g_s = step.fed_g_min / 60.0
        if rate_g_s <= 0.0:
            return 0
        gap = step.z_mm - self.height_mm - GAP_NOMINAL_MM - FOCUS_BELOW_MM
        jet = JET_MM * sqrt(
            (1.0 + gap * gap / (FOCUS_LENGTH_MM * FOCUS_LENGTH_MM))
            / (1.0 + FOCUS_BELOW_MM * FOCUS_BELOW_MM / (FOCUS_LENGTH_MM * FOCUS_LENGTH_MM))
        )
        catchment = 1.0 - exp(-0.5 * self.width_mm * self.width_mm / (jet * jet))
        mass_g = catchment * rate_g_s * step.on_s
        self.deposited_g += mass_g
        density = 1.0 / (
            step.share_1 / self.density[0] + (1.0 - step.share_1) / self.density[1]
        )
        n = 1 + min(<int>(step.distance_mm * (f1 - f0) / self.cell_mm), 1000)
        for i in range(n):
            gap = f0 + (f1 - f0) * (i + 0.5) / n - 1.0
            self.stamp(
                step.x_mm + step.dx_mm * gap, step.y_mm + step.dy_mm * gap, mass_g / density / n
            )
        return 0

    cdef double height_at(self, double x, double y) noexcept:
        cdef Py_ssize_t i = <Py_ssize_t>floor((x - self.x0_mm) / self.cell_mm)
        cdef Py_ssize_t k = <Py_ssize_t>floor((y - self.y0_mm) / self.cell_mm)
        if i < 0 or k < 0 or i >= self.heights.shape[1] or k >= self.heights.shape[0]:
            return self.top_mm
        return self.top_mm + self.heights[k, i]

    cdef void stamp(self, double x, double y, double volume_mm3) noexcept:
        """Spread a volume over the pool's disc.

        Weights sqrt(1 - d2/r2): swept along a line they leave a parabola, the section of a
        bead. Cells off the substrate lose their share, as the powder does.
        """
        cdef double r = max(0.5 * self.width_mm, self.cell_mm), inv = 1.0 / self.cell_mm
        cdef double u = (x - self.x0_mm) * inv - 0.5, v = (y - self.y0_mm) * inv - 0.5
        cdef double reach = r * inv, reach2 = reach * reach, total = 0.0, d2, dv2
        cdef Py_ssize_t nx = self.heights.shape[1], ny = self.heights.shape[0]
        cdef Py_ssize_t i, k
        cdef Py_ssize_t i0 = <Py_ssize_t>floor(u - reach), i1 = <Py_ssize_t>floor(u + reach) + 2
        cdef Py_ssize_t k0 = <Py_ssize_t>floor(v - reach), k1 = <Py_ssize_t>floor(v + reach) + 2
        for k in range(k0, k1):
            dv2 = (k - v) * (k - v)
            for i in range(i0, i1):
                d2 = reach2 - (i - u) * (i - u) - dv2
                if d2 > 0.0:
                    total += sqrt(d2)
        if total <= 0.0:
            return
        total = volume_mm3 * inv * inv / total
        for k in range(max(k0, 0), min(k1, ny)):
            dv2 = (k - v) * (k - v)
            for i in range(max(i0, 0), min(i1, nx)):
                d2 = reach2 - (i - u) * (i - u) - dv2
                if d2 > 0.0:
                    self.heights[k, i] += total * sqrt(d2)

    cdef double pool_rise(self, double power_w, double speed_mm_s, double dt_s) except? -1.0:
        """K above the room, as it shows: first order to a static map of power and speed."""
        cdef double rise = 0.0
        if power_w > 0.0:
            rise = POOL_RISE_K * sqrt(power_w / POWER_NOMINAL_W) * pow(
                max(speed_mm_s, 1.0) / SPEED_NOMINAL_MM_S, POOL_BY_SPEED
            )
        self.pool_rise_k += (rise - self.pool_rise_k) * (1.0 - exp(-dt_s / POOL_TAU_S))
        return self.pool_rise_k * (1.0 + POOL_NOISE * self.noise.normal())

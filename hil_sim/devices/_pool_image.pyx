"""The picture of a melt pool as a camera above it sees it, in C.

Temperature: within the pool a parabola from its peak to the solidus at the edge (half a disc
ahead of the beam, half an ellipse behind it); outside it falls with the 1.5th power of the
distance (guess; conduction in a thick plate: between the 1st power of a point source at rest
and the steeper fall ahead of a moving one). Radiance of one narrow band by Wien's law. Then
plume and spatter, the blur of the optics, offset, photon and read noise, the converter.
"""

from libc.math cimport cos, exp, pow, sin, sqrt
from libc.stdint cimport int64_t, uint8_t, uint16_t

import numpy as np

cdef double KELVIN = 273.15
cdef double AMBIENT_DEG_C = 21.0

cdef enum:
    TABLE = 2048                 # signal by squared distance, to MOST_RHO2
    NOISE = 65536

cdef double MOST_RHO2 = 32.0


cdef class PoolImage:
    """Renders frames of one size.

    ``noise``: (65536,) float32 of the standard normal distribution; frames begin in it at
    places of their own, so the same frame number gives the same noise.
    """

    cdef int width, height
    cdef float[:, ::1] light
    cdef float[:, ::1] soft
    cdef const float[::1] noise
    cdef float table[TABLE + 2]

    def __init__(self, int width, int height, noise):
        self.width, self.height = width, height
        self.light = np.zeros((height, width), np.float32)
        self.soft = np.zeros((height, width), np.float32)
        self.noise = noise

    def render(
        self, out, int64_t number, *, double width_px, double tail_px, double x_px, double y_px,
        double angle_rad, double peak_deg_c, double solidus_deg_c, double counts, double wien_k,
        double offset, double read_noise, double electrons_per_count, double sigma_px,
        int full, spots=(),
    ):
        """Fill ``out`` ((height, width) uint8 or uint16).

        ``counts``: at infinite temperature (exposure, gain and optics within); ``wien_k``: c2
        over wavelength; ``tail_px``: half axis behind the beam; ``spots``: (x, y, sigma,
        counts) of plume and spatter. ``width_px`` 0: no pool, a glow of ``peak_deg_c``.
        """
        cdef int i
        cdef double rho2, rho, temp, half = 0.5 * width_px
        cdef bint pool = width_px > 0.0
        if not pool:
            half = tail_px = 8.0
        for i in range(TABLE + 2):
            rho2 = i * MOST_RHO2 / TABLE
            if not pool:
                temp = AMBIENT_DEG_C + (peak_deg_c - AMBIENT_DEG_C) / (1.0 + rho2)
            elif rho2 <= 1.0:
                temp = solidus_deg_c + (peak_deg_c - solidus_deg_c) * (1.0 - rho2)
            else:
                rho = sqrt(rho2)
                temp = AMBIENT_DEG_C + (solidus_deg_c - AMBIENT_DEG_C) * pow(rho, -1.5)
            self.table[i] = counts * exp(-wien_k / (temp + KELVIN))
        self.fill(x_px, y_px, cos(angle_rad), sin(angle_rad), half, max(tail_px, half))
        for x, y, sigma, bright in spots:
            self.spot(x, y, sigma, bright)
        if sigma_px > 0.0:
            self.blur(sigma_px)
        if out.dtype == np.uint8:
            self.convert8(out, number, offset, read_noise, 1.0 / electrons_per_count, full)
        else:
            self.convert16(out, number, offset, read_noise, 1.0 / electrons_per_count, full)

    cdef void fill(
        self, double x0, double y0, double c, double s, double half, double tail
    ) noexcept nogil:
        cdef int x, y, i
        cdef double u, v, at, per = TABLE / MOST_RHO2
        for y in range(self.height):
            for x in range(self.width):
                u = (x - x0) * c + (y - y0) * s
                v = (y - y0) * c - (x - x0) * s
                u = u / half if u > 0.0 else u / tail
                v = v / half
                at = (u * u + v * v) * per
                if at >= TABLE:
                    self.light[y, x] = self.table[TABLE]
                else:
                    i = <int>at
                    self.light[y, x] = self.table[i] + <float>(at - i) * (
                        self.table[i + 1] - self.table[i]
                    )

    cdef void spot(self, double x0, double y0, double sigma, double bright) noexcept:
        cdef int x, y
        cdef double reach = 4.0 * sigma, k = -0.5 / (sigma * sigma)
        for y in range(max(0, <int>(y0 - reach)), min(self.height, <int>(y0 + reach) + 1)):
            for x in range(max(0, <int>(x0 - reach)), min(self.width, <int>(x0 + reach) + 1)):
                self.light[y, x] += <float>(
                    bright * exp(k * ((x - x0) * (x - x0) + (y - y0) * (y - y0)))
                )

    cdef void blur(self, double sigma) noexcept:
        """Gauss, rows then columns; beyond the border the border's light goes on."""
        cdef float w[17]
        cdef float total = 0.0, z
        cdef int reach = min(8, <int>(3.5 * sigma) + 1), x, y, k
        for k in range(-reach, reach + 1):
            w[k + reach] = exp(-0.5 * k * k / (sigma * sigma))
            total += w[k + reach]
        for k in range(2 * reach + 1):
            w[k] /= total
        for y in range(self.height):
            for x in range(self.width):
                z = 0.0
                if reach <= x < self.width - reach:
                    for k in range(-reach, reach + 1):
                        z += w[k + reach] * self.light[y, x + k]
                else:
                    for k in range(-reach, reach + 1):
                        z += w[k + reach] * self.light[y, min(max(x + k, 0), self.width - 1)]
                self.soft[y, x] = z
        for y in range(self.height):
            for x in range(self.width):
                self.light[y, x] = 0.0
            for k in range(-reach, reach + 1):
                for x in range(self.width):
                    self.light[y, x] += w[k + reach] * self.soft[
                        min(max(y + k, 0), self.height - 1), x
                    ]

    cdef void convert8(
        self, uint8_t[:, ::1] out, int64_t number, double offset, double read_noise,
        double photon, int full
    ) noexcept:
        cdef int x, y
        cdef long at = (number * 40503) % NOISE
        cdef float z
        for y in range(self.height):
            for x in range(self.width):
                z = self.light[y, x]
                z += offset + self.noise[at] * sqrt(read_noise * read_noise + photon * z)
                at = (at + 1) % NOISE
                out[y, x] = 0 if z < 0 else (full if z > full else <uint8_t>(z + 0.5))

    cdef void convert16(
        self, uint16_t[:, ::1] out, int64_t number, double offset, double read_noise,
        double photon, int full
    ) noexcept:
        cdef int x, y
        cdef long at = (number * 40503) % NOISE
        cdef float z
        for y in range(self.height):
            for x in range(self.width):
                z = self.light[y, x]
                z += offset + self.noise[at] * sqrt(read_noise * read_noise + photon * z)
                at = (at + 1) % NOISE
                out[y, x] = 0 if z < 0 else (full if z > full else <uint16_t>(z + 0.5))

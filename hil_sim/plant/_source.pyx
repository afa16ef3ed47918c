"""The laser source: output from gate edges and the commanded power, exact to the microsecond.

Numbers marked (guess) are nobody's data sheet and nobody's measurement.
"""

from libc.math cimport exp, floor
from libc.stdint cimport int64_t

import numpy as np

from ._rows cimport POWER_FULL

cdef double SOURCE_TAU_US = 50.0   # fibre source, below 0.1 ms (guess)
cdef double WANDER_KEEP = 0.99     # latency per 10 ms: a time of 1 s (guess), unit variance
cdef double WANDER_ADD = 0.14106735979665885


cdef class Noise:
    """Standard normal numbers of one subsystem, drawn from its generator in blocks."""

    def __init__(self, generator, Py_ssize_t size=2048):
        self.generator = generator
        self.block = np.zeros(size)
        self.used = size

    cdef double normal(self):
        if self.used == self.block.shape[0]:
            self.block = self.generator.standard_normal(self.block.shape[0])
            self.used = 0
        self.used += 1
        return self.block[self.used - 1]

    def draw(self):
        """One number, for tests."""
        return self.normal()


cdef class Source:
    """State of the source. Settings as ``_kernel.Kernel`` takes them; ``random`` a generator."""

    def __init__(
        self, *, rated_w, threshold_w, resolution_bits, power_latency_us, power_jitter_us,
        gate_latency_us, gate_jitter_us, random,
    ):
        self.rated_w, self.threshold_w = rated_w, threshold_w
        self.code_most = (1 << <int>resolution_bits) - 1
        self.power_latency_us, self.power_jitter_us = power_latency_us, power_jitter_us
        self.gate_latency_us, self.gate_jitter_us = gate_latency_us, gate_jitter_us
        self.share = 1.0
        self.noise = Noise(random)
        self.latency_state = self.noise.normal()
        self.wander_latency(0.0, 1.0)
        self.h_t[0], self.h_p[0] = -1, 0.0
        self.h_count, self.h_read = 1, 0

    cdef void begin_step(self) noexcept:
        """The sums of a step were taken: begin the next one."""
        self.wander_latency(WANDER_KEEP, WANDER_ADD)
        self.step_energy_j = self.step_asked_j = self.step_on_s = 0.0
        self.step_on_first_us = -1

    cdef int queue_edge(self, int64_t t_us, bint on) except -1:
        cdef double jitter = clip(self.noise.normal() * 0.5, -1.0, 1.0)
        cdef int64_t at = t_us + self.gate_latency_us + <int64_t>floor(
            jitter * self.gate_jitter_us + 0.5
        )
        if self.e_count - self.e_read >= EDGES:
            raise RuntimeError(f"more than {EDGES} gate edges within the source's latency")
        # edges never overtake one another, and none acts before it was made
        at = max(at, t_us)
        if self.e_count:
            at = max(at, self.e_t[(self.e_count - 1) % EDGES])
        self.e_t[self.e_count % EDGES], self.e_on[self.e_count % EDGES] = at, on
        self.e_count += 1
        return 0

    cdef void queue_power(self, int64_t t_us, double code) noexcept:
        cdef double share = floor(code / POWER_FULL * self.code_most + 0.5) / self.code_most
        cdef int64_t last = self.h_count - 1
        if self.h_t[last % HISTORY] == t_us and self.h_p[last % HISTORY] == share:
            return
        self.h_t[self.h_count % HISTORY], self.h_p[self.h_count % HISTORY] = t_us, share
        self.h_count += 1
        if self.h_read < self.h_count - HISTORY + 1:
            self.h_read = self.h_count - HISTORY + 1

    cdef void integrate(self, int64_t now_us, bint permitted) noexcept:
        """From break point to break point: gate edges, and corners of the power polyline.

        Invariant: h_t[h_read] <= t - latency; the power is linear from there to h_read + 1.
        """
        cdef int64_t t = self.t_us, b, last = self.h_count - 1, k
        cdef double from_w, to_w, span
        while t < now_us:
            while self.e_read < self.e_count and self.e_t[self.e_read % EDGES] <= t:
                self.gate_in_source = self.e_on[self.e_read % EDGES]
                self.e_read += 1
            b = now_us
            if self.e_read < self.e_count:
                b = min(b, self.e_t[self.e_read % EDGES])
            if not (self.gate_in_source and permitted):
                self.shine(t, b, self.stray_w, self.stray_w)
                t = b
                continue
            # latency wanders, so the place on the polyline may step back a little
            k = self.h_read
            while k > 0 and k > self.h_count - HISTORY + 1 and (
                self.h_t[k % HISTORY] > t - self.latency_us
            ):
                k -= 1
            while k < last and self.h_t[(k + 1) % HISTORY] <= t - self.latency_us:
                k += 1
            self.h_read = k
            from_w = to_w = self.h_p[k % HISTORY] * self.rated_w
            if k < last:
                b = min(b, self.h_t[(k + 1) % HISTORY] + self.latency_us)
                span = <double>(self.h_t[(k + 1) % HISTORY] - self.h_t[k % HISTORY])
                to_w = self.h_p[(k + 1) % HISTORY] * self.rated_w
                span = (to_w - from_w) / span if span > 0.0 else 0.0
                to_w = from_w + span * <double>(b - self.latency_us - self.h_t[k % HISTORY])
                from_w += span * <double>(t - self.latency_us - self.h_t[k % HISTORY])
            self.shine(t, b, from_w * self.share, to_w * self.share)
            t = b
        self.t_us = max(self.t_us, now_us)

    cdef void shine(self, int64_t a_us, int64_t b_us, double from_w, double to_w) noexcept:
        """Output of the source over one piece: a first-order answer to a linear ramp, exact."""
        cdef double span = <double>(b_us - a_us), slope, offset, decay, joule
        if 0.5 * (from_w + to_w) < self.threshold_w:
            from_w = to_w = 0.0
        self.shining = from_w > 0.0 or to_w > 0.0
        if to_w == 0.0 and from_w == 0.0 and self.light_w == 0.0:
            return
        slope = (to_w - from_w) / span
        offset = self.light_w - from_w + slope * SOURCE_TAU_US
        decay = exp(-span / SOURCE_TAU_US)
        joule = 1e-6 * (
            span * (from_w + slope * (0.5 * span - SOURCE_TAU_US))
            + offset * SOURCE_TAU_US * (1.0 - decay)
        )
        self.light_w = to_w - slope * SOURCE_TAU_US + offset * decay
        if to_w == 0.0 and self.light_w < 1e-3:
            self.light_w = 0.0
        self.step_energy_j += joule
        if self.shining:
            self.step_on_s += span * 1e-6
            self.step_asked_j += 0.5e-6 * span * (from_w + to_w)
            if self.step_on_first_us < 0:
                self.step_on_first_us = a_us
            self.step_on_last_us = b_us

    cdef void wander_latency(self, double keep, double add) noexcept:
        """Slow drift of the power input's latency within its band."""
        self.latency_state = self.latency_state * keep + add * self.noise.normal()
        self.latency_us = self.power_latency_us + <int64_t>floor(
            clip(0.5 * self.latency_state, -1.0, 1.0) * self.power_jitter_us + 0.5
        )

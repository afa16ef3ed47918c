# The laser source as _kernel.pyx sees it; what it does stands in _source.pyx.

from libc.stdint cimport int64_t, uint8_t

cdef enum:
    HISTORY = 4096  # break points of the commanded power: over 2 s at 1 ms
    EDGES = 1024    # gate edges on their way through the source


cdef inline double clip(double value, double least, double most) noexcept nogil:
    return least if value < least else most if value > most else value


cdef class Noise:
    cdef object generator
    cdef double[::1] block
    cdef Py_ssize_t used

    cdef double normal(self)


cdef class Source:
    cdef Noise noise
    cdef double rated_w, threshold_w, code_most
    cdef int64_t power_latency_us, power_jitter_us, gate_latency_us, gate_jitter_us
    cdef double share                  # of the commanded power that the source gives: 1 when whole
    cdef double stray_w                # light of a broken source with the gate shut
    cdef int64_t latency_us            # of the power input, now
    cdef double latency_state          # slow wander of it, standard normal
    cdef int64_t h_t[HISTORY]          # commanded power: a polyline, times never decrease
    cdef double h_p[HISTORY]
    cdef int64_t h_count, h_read       # entries ever written; entry being read
    cdef int64_t e_t[EDGES]            # gate edges by the instant they act
    cdef uint8_t e_on[EDGES]
    cdef int64_t e_count, e_read
    cdef bint gate_in_source           # gate as the source sees it
    cdef double light_w                # output of the source, now
    cdef bint shining                  # the source is asked for light, now
    cdef int64_t t_us                  # integrated up to here
    # since the last step of 10 ms
    cdef double step_energy_j, step_asked_j, step_on_s
    cdef int64_t step_on_first_us, step_on_last_us

    cdef int queue_edge(self, int64_t t_us, bint on) except -1
    cdef void queue_power(self, int64_t t_us, double code) noexcept
    cdef void integrate(self, int64_t now_us, bint permitted) noexcept
    cdef void shine(self, int64_t a_us, int64_t b_us, double from_w, double to_w) noexcept
    cdef void wander_latency(self, double keep, double add) noexcept
    cdef void begin_step(self) noexcept

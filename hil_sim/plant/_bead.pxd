# The bead as _kernel.pyx sees it; what it does stands in _bead.pyx.

from ._source cimport Noise

cdef struct Step:          # 10 ms as the bead sees them
    double x_mm            # at the end
    double y_mm
    double z_mm
    double dx_mm           # gone since the beginning
    double dy_mm
    double distance_mm
    double speed_mm_s
    double asked_j         # light at the work, the source's tail left out
    double on_s            # with light asked for, from share on_from to share on_to of the step
    double on_from
    double on_to
    double fed_g_min       # powder through the nozzle
    double share_1         # of hopper 1 in it


cdef class Bead:
    cdef Noise noise
    cdef double[:, ::1] heights
    cdef double top_mm, x0_mm, y0_mm, cell_mm
    cdef double density[2]
    cdef double width_mm, height_mm  # of the pool; of the surface ahead of it
    cdef double deposited_g
    cdef double pool_rise_k

    cdef int lay(self, const Step *step) except -1
    cdef double height_at(self, double x, double y) noexcept
    cdef void stamp(self, double x, double y, double volume_mm3) noexcept
    cdef double pool_rise(self, double power_w, double speed_mm_s, double dt_s) except? -1.0

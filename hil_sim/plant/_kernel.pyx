"""The physics of the virtual cell that runs every 10 ms, in C.

Two parts with two clocks. `beam` integrates the laser's output from the firmware's own gate
edges and 1 ms samples, exact to the microsecond, and may be called at any instant: a safety
chain that opens in the middle of a step cuts the beam there. `tick` closes a 10 ms step:
powder, bead, pool, coolant, gases, and the row of the trace.

Imports nothing of ours. Rows and samples have the layout of the firmware's native interface
(48 bytes each, little endian).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport exp, fabs, floor, pow, sin, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

import numpy as np

DEF HISTORY = 4096       # break points of the commanded power: over 2 s at 1 ms
DEF EDGES = 1024         # gate edges on their way through the source
DEF TICK_US = 10000
DEF POWER_FULL = 65535.0
DEF SOURCE_TAU_US = 50.0     # fibre source: below 0.1 ms
DEF MOTOR_TAU_S = 0.05       # feeder motor
DEF SLOW_SHARE = 0.02        # of the powder trickles out of the hose late
DEF SLOW_TAU_S = 3.0
DEF SURGE = 0.01             # amplitude of the once-per-revolution surge
DEF POWER_NOMINAL_W = 600.0  # where the bead is BEAD_NOMINAL_MM wide
DEF SPEED_NOMINAL_MM_S = 10.0
DEF BEAD_NOMINAL_MM = 1.6
DEF LEAST_MELT_W = 80.0      # below: no pool, nothing sticks
DEF JET_MM = 1.5830          # jet radius at the working distance: catchment 0.40 at 1.6 mm
DEF FOCUS_BELOW_MM = 1.5     # the jet's focus below the working point: heights settle
DEF FOCUS_LENGTH_MM = 4.0
DEF GAP_NOMINAL_MM = 0.55    # nozzle point above the surface that the bead is laid on
DEF POOL_RISE_K = 1850.0     # of the pool's surface at nominal power and speed
DEF POOL_TAU_S = 0.06
DEF POOL_NOISE = 0.01
DEF AMBIENT_DEG_C = 21.0
DEF LASER_LOSS = 1.857       # heat per watt of light: 35 % efficiency
DEF STANDBY_W = 100.0
DEF LASER_HEAT_J_K = 8000.0
DEF WATER_HEAT_J_K = 42000.0
DEF EXCHANGE_W_K = 600.0     # source to water at full flow
DEF WATER_LOSS_W_K = 10.0    # water to room
DEF COOLING_MOST_W = 4000.0
DEF COOLING_P_W_K = 4000.0
DEF COOLING_I_W_KS = 100.0
DEF FLOW_NOMINAL_L_MIN = 8.0
DEF FLOW_TAU_S = 0.3
DEF PRESSURE_NOMINAL_MPA = 0.30
DEF GAS_TAU_S = 0.15
DEF DIVERTER_S = 0.1         # from stop to stop
DEF OXYGEN_TAU_S = 20.0      # chamber volume over purge flow
DEF OXYGEN_FLOOR_PPM = 6.0
DEF OPEN_AIR_PPM = 209500.0
DEF MEASURE_TAU_S = 0.02
DEF MEASURE_NOISE = 0.005

cdef enum:
    ROW_GATE = 1
    ROW_SEGMENT_END = 2

cdef packed struct Row:
    uint64_t t_us
    uint32_t kind
    int32_t arg
    uint32_t segment
    uint32_t power
    int32_t pos[6]

cdef packed struct Sample:
    uint64_t t_us
    int32_t pos[6]
    uint16_t power
    uint8_t gate
    uint8_t armed
    uint16_t state
    uint16_t fault
    uint32_t segment
    uint32_t beat_age_us

# Rows of the trace, in the order of PLANT_ROW, SEGMENT_END_ROW and GATE_ROW (hil_sim/trace.py)
cdef packed struct PlantRow:
    int64_t t_us
    double x_mm
    double y_mm
    double z_mm
    double power_command_w
    double emission_w
    double energy_j
    double emission_s
    double fed_g
    double wasted_g
    double deposited_g
    uint8_t armed
    uint8_t gate
    uint16_t state
    uint16_t fault
    int32_t beat_age_us
    uint8_t interlock
    uint8_t estop_ok
    uint8_t door_closed
    float oxygen_ppm
    float coolant_deg_c
    float pool_temp_deg_c

cdef packed struct SegmentEndRow:
    int64_t t_us
    int32_t segment
    int32_t pos[6]

cdef packed struct GateRow:
    int64_t t_us
    uint8_t on


cdef class Noise:
    """Standard normal numbers of one subsystem, drawn from its generator in blocks."""

    cdef object generator
    cdef double[::1] block
    cdef Py_ssize_t used

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


cdef class Buffer:
    """Bytes that grow until they are taken."""

    cdef char *data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity

    def __dealloc__(self):
        free(self.data)

    cdef int put(self, const void *item, Py_ssize_t n) except -1:
        cdef char *grown
        if self.size + n > self.capacity:
            grown = <char *>realloc(self.data, 2 * self.capacity + n + 4096)
            if grown == NULL:
                raise MemoryError
            self.data = grown
            self.capacity = 2 * self.capacity + n + 4096
        memcpy(self.data + self.size, item, n)
        self.size += n
        return 0

    cdef bytes take(self):
        cdef bytes out = PyBytes_FromStringAndSize(self.data, self.size) if self.size else b""
        self.size = 0
        return out


cdef inline double clip(double value, double least, double most) noexcept nogil:
    return least if value < least else most if value > most else value


cdef class Kernel:
    """State and step of the physics.

    Settings (keyword arguments, plain numbers): ``rated_w, threshold_w, resolution_bits,
    power_latency_us, power_jitter_us, gate_latency_us, gate_jitter_us, delay_s, lag_s,
    density_g_mm3 (2), g_per_rev (2), steps_per_mm (6), inert, top_mm, origin_mm (2), cell_mm``,
    the height map ``heights_mm`` ((ny, nx) float64, written in place) and the generators
    ``laser_random, powder_random, pool_random``.
    """

    # source
    cdef double rated_w, threshold_w, code_most
    cdef int64_t power_latency_us, power_jitter_us, gate_latency_us, gate_jitter_us
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
    cdef int64_t t_us                  # beam integrated up to here
    cdef double energy_j, emission_s
    # since the last tick
    cdef double tick_energy_j, tick_asked_j, tick_on_s
    cdef int64_t tick_on_first_us, tick_on_last_us
    cdef int64_t tick_t_us
    cdef double x_mm, y_mm, z_mm       # at the last tick
    cdef Sample last
    cdef double measured_w
    # powder
    cdef double[::1] line_g_min        # delay line, flow leaving the hoppers, 10 ms a slot
    cdef double[::1] line_share        # share of hopper 1 in it
    cdef Py_ssize_t line_at
    cdef double motor[2]
    cdef double phase[2]
    cdef double g_per_rev[2]
    cdef double density[2]
    cdef double lag_s, fast_g_min, slow_g_min, diverter, share_1
    cdef double fed_g, wasted_g, deposited_g
    # bead
    cdef double[:, ::1] heights
    cdef double top_mm, x0_mm, y0_mm, cell_mm
    cdef double width_mm, height_mm
    # rest
    cdef double mm_per_step[6]
    cdef bint inert
    cdef double pool_rise_k, cooling_i_w
    cdef Noise laser_noise, pool_noise
    cdef Buffer plant_rows, end_rows, gate_rows

    def __init__(
        self, *, rated_w, threshold_w, resolution_bits, power_latency_us, power_jitter_us,
        gate_latency_us, gate_jitter_us, delay_s, lag_s, density_g_mm3, g_per_rev, steps_per_mm,
        inert, top_mm, origin_mm, cell_mm, heights_mm, laser_random, powder_random, pool_random,
    ):
        cdef int i
        self.rated_w, self.threshold_w = rated_w, threshold_w
        self.code_most = (1 << <int>resolution_bits) - 1
        self.power_latency_us, self.power_jitter_us = power_latency_us, power_jitter_us
        self.gate_latency_us, self.gate_jitter_us = gate_latency_us, gate_jitter_us
        self.laser_noise, self.pool_noise = Noise(laser_random), Noise(pool_random)
        self.latency_state = self.laser_noise.normal()
        self.wander_latency(0.0, 1.0)
        self.h_t[0], self.h_p[0] = -1, 0.0
        self.h_count, self.h_read = 1, 0
        slots = max(1, int(round((delay_s - MOTOR_TAU_S) * 1e6 / TICK_US)))
        self.line_g_min = np.zeros(slots)
        self.line_share = np.ones(slots)
        self.share_1 = 1.0
        self.lag_s = lag_s
        for i in range(2):
            self.density[i], self.g_per_rev[i] = density_g_mm3[i], g_per_rev[i]
            self.phase[i] = powder_random.uniform(0.0, 6.283185307179586)
        for i in range(6):
            self.mm_per_step[i] = 1.0 / steps_per_mm[i] if steps_per_mm[i] else 0.0
        self.inert = inert
        self.heights = heights_mm
        self.top_mm, self.cell_mm = top_mm, cell_mm
        self.x0_mm, self.y0_mm = origin_mm[0], origin_mm[1]
        self.height_mm = top_mm
        self.plant_rows, self.end_rows, self.gate_rows = Buffer(), Buffer(), Buffer()
        memset(&self.last, 0, sizeof(Sample))

    # ---- beam: any instant ------------------------------------------------------------

    def beam(self, int64_t now_us, rows, samples, bint permitted):
        """Integrate the beam up to ``now_us``.

        ``rows``, ``samples``: what the firmware has written since the last call, any
        contiguous buffers of whole 48 byte entries. ``permitted``: supply on, chain closed and
        emission enabled since the last call. Returns the kinds of rows seen, a bit per kind.
        """
        cdef Py_buffer r, s
        cdef uint32_t kinds = 0
        PyObject_GetBuffer(rows, &r, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(samples, &s, PyBUF_SIMPLE)
            try:
                if r.len % sizeof(Row) or s.len % sizeof(Sample):
                    raise ValueError(
                        f"firmware rows of {r.len} and samples of {s.len} bytes, not whole entries"
                    )
                kinds = self.take_in(
                    <const Row *>r.buf, r.len // <Py_ssize_t>sizeof(Row),
                    <const Sample *>s.buf, s.len // <Py_ssize_t>sizeof(Sample),
                )
            finally:
                PyBuffer_Release(&s)
        finally:
            PyBuffer_Release(&r)
        self.integrate(now_us, permitted)
        return kinds

    cdef uint32_t take_in(
        self, const Row *rows, Py_ssize_t n_rows, const Sample *samples, Py_ssize_t n_samples
    ) except? 0xFFFFFFFF:
        """Queue gate edges and power break points in the order of time."""
        cdef Py_ssize_t i = 0, k = 0
        cdef uint32_t kinds = 0
        cdef SegmentEndRow end
        cdef GateRow gate
        while i < n_rows or k < n_samples:
            if k == n_samples or (i < n_rows and rows[i].t_us <= samples[k].t_us):
                kinds |= <uint32_t>1 << (rows[i].kind & 31)
                if rows[i].kind == ROW_GATE:
                    gate.t_us, gate.on = <int64_t>rows[i].t_us, rows[i].arg != 0
                    self.gate_rows.put(&gate, sizeof(GateRow))
                    self.queue_edge(gate.t_us, gate.on)
                elif rows[i].kind == ROW_SEGMENT_END:
                    end.t_us, end.segment = <int64_t>rows[i].t_us, <int32_t>rows[i].segment
                    memcpy(&end.pos[0], &rows[i].pos[0], sizeof(end.pos))
                    self.end_rows.put(&end, sizeof(SegmentEndRow))
                    self.queue_power(<int64_t>rows[i].t_us, rows[i].power)
                i += 1
            else:
                self.queue_power(<int64_t>samples[k].t_us, samples[k].power)
                k += 1
        if n_samples:
            self.last = samples[n_samples - 1]
        return kinds

    cdef int queue_edge(self, int64_t t_us, bint on) except -1:
        cdef double jitter = clip(self.laser_noise.normal() * 0.5, -1.0, 1.0)
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
                self.shine(t, b, 0.0, 0.0)
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
            self.shine(t, b, from_w, to_w)
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
        self.tick_energy_j += joule
        if self.shining:
            self.tick_on_s += span * 1e-6
            self.tick_asked_j += 0.5e-6 * span * (from_w + to_w)
            if self.tick_on_first_us < 0:
                self.tick_on_first_us = a_us
            self.tick_on_last_us = b_us

    cdef void wander_latency(self, double keep, double add) noexcept:
        """Slow drift of the power input's latency within its band."""
        self.latency_state = self.latency_state * keep + add * self.laser_noise.normal()
        self.latency_us = self.power_latency_us + <int64_t>floor(
            clip(0.5 * self.latency_state, -1.0, 1.0) * self.power_jitter_us + 0.5
        )

    # ---- tick: every 10 ms -------------------------------------------------------------

    def tick(self, world, bint interlock):
        """Close the step that `beam` has just integrated: 10 ms of all that is slower."""
        cdef double dt = (self.t_us - self.tick_t_us) * 1e-6
        cdef double x, y, z, dx, dy, distance, transmission, work_j
        cdef PlantRow row
        if dt <= 0.0:
            return
        x = self.last.pos[0] * self.mm_per_step[0]
        y = self.last.pos[1] * self.mm_per_step[1]
        z = self.last.pos[2] * self.mm_per_step[2]
        dx, dy = x - self.x_mm, y - self.y_mm
        distance = sqrt(dx * dx + dy * dy)
        transmission = world.optics_transmission
        work_j = self.tick_energy_j * transmission
        self.energy_j += work_j
        self.emission_s += self.tick_on_s
        self.powder(world, dt)
        self.bead(self.tick_asked_j * transmission, distance / dt, dx, dy, distance, x, y, z, dt)
        self.pool(world, work_j / dt, distance / dt, dt)
        self.cooling(world, dt)
        self.gases(world, dt)
        self.measured_w += (self.tick_energy_j / dt - self.measured_w) * (
            1.0 - exp(-dt / MEASURE_TAU_S)
        )
        if self.measured_w < 1e-3:
            self.measured_w = 0.0

        row.t_us, row.x_mm, row.y_mm, row.z_mm = self.t_us, x, y, z
        row.power_command_w = self.last.power / POWER_FULL * self.rated_w
        row.emission_w, row.energy_j, row.emission_s = work_j / dt, self.energy_j, self.emission_s
        row.fed_g, row.wasted_g, row.deposited_g = self.fed_g, self.wasted_g, self.deposited_g
        row.armed, row.gate = self.last.armed, self.last.gate
        row.state, row.fault = self.last.state, self.last.fault
        row.beat_age_us = <int32_t>min(self.last.beat_age_us, <uint32_t>0x7FFFFFFF)
        row.interlock = interlock
        row.estop_ok, row.door_closed = world.estop_ok, world.door_closed
        row.oxygen_ppm, row.coolant_deg_c = world.oxygen_ppm, world.coolant_deg_c
        row.pool_temp_deg_c = world.pool_temp_deg_c
        self.plant_rows.put(&row, sizeof(PlantRow))

        world.x_mm, world.y_mm, world.z_mm = x, y, z
        world.power_command_w = row.power_command_w
        # devices see neither the tail of the light after the gate nor the gate before its light
        world.gate_on = self.gate_in_source
        world.emission_w = self.light_w * transmission if self.shining else 0.0
        world.energy_j, world.emission_s = self.energy_j, self.emission_s
        world.fed_g, world.wasted_g = self.fed_g, self.wasted_g
        world.deposited_g = self.deposited_g
        world.height_mm, world.bead_width_mm = self.height_mm, self.width_mm
        world.laser_power_measured_w = self.measured_w * (
            1.0 + MEASURE_NOISE * self.laser_noise.normal()
        )
        self.x_mm, self.y_mm, self.z_mm = x, y, z
        self.wander_latency(0.99, 0.14106735979665885)  # 1 s, unit variance
        self.tick_energy_j = self.tick_asked_j = self.tick_on_s = 0.0
        self.tick_on_first_us = -1
        self.tick_t_us = self.t_us

    cdef int powder(self, object world, double dt) except -1:
        """Hoppers, hose and diverter; mass is conserved from hopper to nozzle or waste."""
        cdef list sets = world.hopper_set_g_min, flows = world.hopper_flow_g_min
        cdef list masses = world.hopper_mass_g, stalled = world.hopper_stalled
        cdef double total = 0.0, first = 0.0, flow, mass, at_head, step, nozzle
        cdef int i
        for i in range(2):
            flow = 0.0 if stalled[i] else <double>sets[i]
            if flow == 0.0 and self.motor[i] < 1e-6:
                if self.motor[i] != 0.0:
                    self.motor[i] = 0.0
                    flows[i] = 0.0
                continue
            if stalled[i]:
                self.motor[i] = 0.0
            self.motor[i] += (flow - self.motor[i]) * (1.0 - exp(-dt / MOTOR_TAU_S))
            self.phase[i] += 6.283185307179586 * self.motor[i] / self.g_per_rev[i] / 60.0 * dt
            flow = self.motor[i] * (1.0 + SURGE * sin(self.phase[i]))
            mass = masses[i]
            flow = min(flow, mass / dt * 60.0)
            masses[i] = mass - flow / 60.0 * dt
            flows[i] = flow
            total += flow
            if i == 0:
                first = flow
        at_head = self.line_g_min[self.line_at]
        if at_head > 0.0:
            self.share_1 = self.line_share[self.line_at]
        self.line_g_min[self.line_at] = total
        self.line_share[self.line_at] = first / total if total > 0.0 else self.share_1
        self.line_at += 1
        if self.line_at == self.line_g_min.shape[0]:
            self.line_at = 0
        flow = at_head * (1.0 - SLOW_SHARE) - self.fast_g_min
        self.fast_g_min += flow * (1.0 - exp(-dt / self.lag_s)) if self.lag_s > 0.0 else flow
        self.slow_g_min += (at_head * SLOW_SHARE - self.slow_g_min) * (1.0 - exp(-dt / SLOW_TAU_S))
        total = self.fast_g_min + self.slow_g_min
        if total < 1e-9:
            total = self.fast_g_min = self.slow_g_min = 0.0
        step = dt / DIVERTER_S
        self.diverter = clip(
            self.diverter + (step if world.diverter_to_nozzle else -step), 0.0, 1.0
        )
        nozzle = total * self.diverter
        self.fed_g += nozzle / 60.0 * dt
        self.wasted_g += (total - nozzle) / 60.0 * dt
        world.nozzle_flow_g_min = nozzle
        return 0

    cdef int bead(
        self, double asked_j, double speed_mm_s, double dx, double dy, double distance,
        double x, double y, double z, double dt,
    ) except -1:
        """Mass balance: what the pool catches of the jet grows the height map.

        Width follows measured beads (P^0.37 v^-0.15); catchment is a Gaussian jet over the
        pool. The jet's focus lies below the working point: too high a surface catches less.
        """
        cdef double power_w, gap, jet, catchment, mass_g, density, f0, f1, rate_g_s
        cdef double ahead = 0.5 * self.width_mm / distance if distance > 0.0 else 0.0
        cdef int n, i
        self.height_mm = self.height_at(x + dx * ahead, y + dy * ahead)
        if self.tick_on_s <= 0.0:
            self.width_mm = 0.0
            return 0
        power_w = asked_j / self.tick_on_s  # without the source's tail, which may outlast it
        if power_w < LEAST_MELT_W:
            self.width_mm = 0.0
            return 0
        self.width_mm = BEAD_NOMINAL_MM * pow(power_w / POWER_NOMINAL_W, 0.37) * pow(
            max(speed_mm_s, 1.0) / SPEED_NOMINAL_MM_S, -0.15
        )
        rate_g_s = (self.fed_rate()) / 60.0
        if rate_g_s <= 0.0:
            return 0
        gap = z - self.height_mm - GAP_NOMINAL_MM - FOCUS_BELOW_MM
        jet = JET_MM * sqrt(
            (1.0 + gap * gap / (FOCUS_LENGTH_MM * FOCUS_LENGTH_MM))
            / (1.0 + FOCUS_BELOW_MM * FOCUS_BELOW_MM / (FOCUS_LENGTH_MM * FOCUS_LENGTH_MM))
        )
        catchment = 1.0 - exp(-0.5 * self.width_mm * self.width_mm / (jet * jet))
        mass_g = catchment * rate_g_s * self.tick_on_s
        self.deposited_g += mass_g
        density = 1.0 / (
            self.share_1 / self.density[0] + (1.0 - self.share_1) / self.density[1]
        )
        f0 = (self.tick_on_first_us - self.tick_t_us) * 1e-6 / dt
        f1 = (self.tick_on_last_us - self.tick_t_us) * 1e-6 / dt
        n = 1 + min(<int>(distance * (f1 - f0) / self.cell_mm), 1000)
        for i in range(n):
            gap = f0 + (f1 - f0) * (i + 0.5) / n - 1.0
            self.stamp(x + dx * gap, y + dy * gap, mass_g / density / n)
        return 0

    cdef double fed_rate(self) noexcept:
        """Powder through the nozzle, g/min."""
        return (self.fast_g_min + self.slow_g_min) * self.diverter

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

    cdef int pool(self, object world, double power_w, double speed_mm_s, double dt) except -1:
        """Surface temperature: first order to a static map of power and speed."""
        cdef double rise = 0.0, shown
        if power_w > 0.0:
            rise = POOL_RISE_K * sqrt(power_w / POWER_NOMINAL_W) * pow(
                max(speed_mm_s, 1.0) / SPEED_NOMINAL_MM_S, -0.1
            )
        self.pool_rise_k += (rise - self.pool_rise_k) * (1.0 - exp(-dt / POOL_TAU_S))
        shown = self.pool_rise_k * (1.0 + POOL_NOISE * self.pool_noise.normal())
        world.pool_temp_deg_c = AMBIENT_DEG_C + shown
        return 0

    cdef int cooling(self, object world, double dt) except -1:
        """Source and water as two heat capacities; the chiller is a PI controller."""
        cdef double water = world.coolant_deg_c, source = world.laser_temp_deg_c
        cdef double flow = world.chiller_flow_l_min, error, cooling_w = 0.0, exchange_w
        cdef bint running = world.chiller_running
        cdef double target = FLOW_NOMINAL_L_MIN if (
            running and not world.chiller_flow_fault
        ) else 0.0
        flow += (target - flow) * (1.0 - exp(-dt / FLOW_TAU_S))
        if flow < 1e-3:
            flow = 0.0
        if running:
            error = water - <double>world.chiller_setpoint_deg_c
            self.cooling_i_w = clip(
                self.cooling_i_w + COOLING_I_W_KS * error * dt, 0.0, COOLING_MOST_W
            )
            cooling_w = clip(COOLING_P_W_K * error + self.cooling_i_w, 0.0, COOLING_MOST_W)
        exchange_w = EXCHANGE_W_K * flow / FLOW_NOMINAL_L_MIN * (source - water)
        source += (
            LASER_LOSS * self.tick_energy_j + (STANDBY_W - exchange_w) * dt
        ) / LASER_HEAT_J_K
        water += (
            exchange_w - cooling_w - WATER_LOSS_W_K * (water - AMBIENT_DEG_C)
        ) * dt / WATER_HEAT_J_K
        world.coolant_deg_c, world.laser_temp_deg_c = water, source
        world.chiller_flow_l_min = flow
        flow /= FLOW_NOMINAL_L_MIN
        world.chiller_pressure_mpa = PRESSURE_NOMINAL_MPA * flow * flow
        return 0

    cdef int gases(self, object world, double dt) except -1:
        """Gas flows follow their set values; the air of the cell, or a purged chamber."""
        cdef double follow = 1.0 - exp(-dt / GAS_TAU_S), flow, goal, oxygen
        goal = world.carrier_set_l_min if world.carrier_supply_ok else 0.0
        flow = world.carrier_l_min
        if flow != goal:
            flow += (goal - flow) * follow
            world.carrier_l_min = goal if fabs(flow - goal) < 1e-4 else flow
        goal = world.shield_set_l_min if world.shield_supply_ok else 0.0
        flow = world.shield_l_min
        if flow != goal:
            flow += (goal - flow) * follow
            world.shield_l_min = goal if fabs(flow - goal) < 1e-4 else flow
        goal = world.oxygen_leak_ppm
        goal += OXYGEN_FLOOR_PPM if self.inert else OPEN_AIR_PPM
        oxygen = world.oxygen_ppm
        if oxygen != goal:
            world.oxygen_ppm = oxygen + (goal - oxygen) * (1.0 - exp(-dt / OXYGEN_TAU_S))
        return 0

    # ---- out ---------------------------------------------------------------------------

    def take_plant_rows(self):
        """Packed rows of the trace's /trace/plant since the last call."""
        return self.plant_rows.take()

    def take_segment_ends(self):
        """Packed rows of /trace/segment_ends since the last call."""
        return self.end_rows.take()

    def take_gate_rows(self):
        """Packed rows of /trace/gate since the last call."""
        return self.gate_rows.take()

    @property
    def time_us(self):
        """Up to where the beam is integrated."""
        return self.t_us

    @property
    def power_latency_now_us(self):
        """The wandering latency of the power input, for tests."""
        return self.latency_us

    @property
    def hose_g(self):
        """Powder on its way from the hoppers to the diverter, for the mass balance."""
        cdef double held = self.fast_g_min * self.lag_s + self.slow_g_min * SLOW_TAU_S
        cdef Py_ssize_t i
        for i in range(self.line_g_min.shape[0]):
            held += self.line_g_min[i] * TICK_US * 1e-6
        return held / 60.0

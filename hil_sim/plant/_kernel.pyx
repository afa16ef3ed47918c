"""The physics of the virtual cell that runs every 10 ms, in C.

Two parts with two clocks. `beam` integrates the laser's output from the firmware's own gate
edges and 1 ms samples, exact to the microsecond, and may be called at any instant: a safety
chain that opens in the middle of a step cuts the beam there. `tick` closes a 10 ms step:
powder, bead, pool, coolant, gases, and the row of the trace. The source itself is in
_source.pyx, bead and pool in _bead.pyx, the layout of all rows in _rows.pxd.

Numbers marked (guess) are nobody's data sheet and nobody's measurement.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport cos, exp, fabs, sin, sqrt
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

import numpy as np

from ._bead cimport Bead, Step
from ._rows cimport (
    POWER_FULL, ROW_GATE, ROW_SEGMENT_END, GateRow, PlantRow, Row, Sample, SegmentEndRow,
)
from ._source cimport EDGES, Source, clip

cdef double TURN = 6.283185307179586
# powder
cdef double MOTOR_TAU_S = 0.05              # feeder motor (guess)
cdef double SLOW_SHARE = 0.02               # trickles out of the hose late (guess)
cdef double SLOW_TAU_S = 3.0                # (guess)
cdef double SURGE = 0.01                    # amplitude, once per revolution (guess)
cdef double DIVERTER_S = 0.1                # from stop to stop; published: below 0.2 s (guess)
# source and water as two heat capacities
cdef double AMBIENT_DEG_C = 21.0            # (guess)
cdef double LASER_LOSS = 1.857              # heat per watt of light: 35 % efficiency (guess)
cdef double STANDBY_W = 100.0               # (guess)
cdef double LASER_HEAT_J_K = 8000.0         # (guess)
cdef double WATER_HEAT_J_K = 42000.0        # 10 L of water (guess)
cdef double EXCHANGE_W_K = 600.0            # source to water at full flow (guess)
cdef double WATER_LOSS_W_K = 10.0           # water to room (guess)
cdef double COOLING_MOST_W = 4000.0         # (guess)
cdef double COOLING_P_W_K = 4000.0          # (guess)
cdef double COOLING_I_W_KS = 100.0          # (guess)
cdef double FLOW_NOMINAL_L_MIN = 8.0        # (guess)
cdef double FLOW_TAU_S = 0.3                # (guess)
cdef double PRESSURE_NOMINAL_MPA = 0.30     # (guess)
# gases
cdef double GAS_TAU_S = 0.15                # flow controller (guess)
cdef double OXYGEN_TAU_S = 20.0             # chamber volume over purge flow (guess)
cdef double OXYGEN_FLOOR_PPM = 6.0          # purged; published chambers: below 10 (guess)
cdef double OPEN_AIR_PPM = 209500.0         # dry air: 20.95 % by volume
# the source's own power meter
cdef double MEASURE_TAU_S = 0.02            # (guess)
cdef double MEASURE_NOISE = 0.005           # (guess)

cdef enum:
    TICK_US = 10000


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


cdef class Kernel:
    """State and step of the physics.

    Settings (keyword arguments, plain numbers): ``rated_w, threshold_w, resolution_bits,
    power_latency_us, power_jitter_us, gate_latency_us, gate_jitter_us, delay_s, lag_s,
    density_g_mm3 (2), g_per_rev (2), steps_per_mm (6), home_mm (3), work_offset_mm (3), turns
    (rows of axis 0 to 2 and centre, base to work), inert, top_mm, origin_mm (2), cell_mm``,
    the height map ``heights_mm`` ((ny, nx) float64, written in place) and the generators
    ``laser_random, powder_random, pool_random``.
    """

    cdef Source source
    cdef Bead melt
    cdef Sample last
    # at the last tick
    cdef int64_t tick_t_us
    cdef double x_mm, y_mm, z_mm
    cdef double energy_j, emission_s, measured_w
    # powder
    cdef double[::1] line_g_min        # delay line, flow leaving the hoppers, 10 ms a slot
    cdef double[::1] line_share        # share of hopper 1 in it
    cdef Py_ssize_t line_at
    cdef double motor[2]
    cdef double phase[2]
    cdef double g_per_rev[2]
    cdef double lag_s, fast_g_min, slow_g_min, diverter, share_1
    cdef double fed_g, wasted_g
    # rest
    cdef double mm_per_step[6]         # degrees for rotary axes
    cdef double home_mm[3]
    cdef double work_offset_mm[3]
    cdef int n_turns
    cdef int turn_axis[3]
    cdef double turn_centre[3][3]
    cdef bint inert
    cdef double cooling_i_w
    cdef Buffer plant_rows, end_rows, gate_rows

    def __init__(
        self, *, rated_w, threshold_w, resolution_bits, power_latency_us, power_jitter_us,
        gate_latency_us, gate_jitter_us, delay_s, lag_s, density_g_mm3, g_per_rev, steps_per_mm,
        home_mm, work_offset_mm, turns, inert, top_mm, origin_mm, cell_mm, heights_mm, laser_random, powder_random, pool_random,
    ):
        cdef int i, k
        self.source = Source(
            rated_w=rated_w, threshold_w=threshold_w, resolution_bits=resolution_bits,
            power_latency_us=power_latency_us, power_jitter_us=power_jitter_us,
            gate_latency_us=gate_latency_us, gate_jitter_us=gate_jitter_us, random=laser_random,
        )
        self.melt = Bead(
            top_mm=top_mm, origin_mm=origin_mm, cell_mm=cell_mm, heights_mm=heights_mm,
            density_g_mm3=density_g_mm3, random=pool_random,
        )
        slots = max(1, int(round((delay_s - MOTOR_TAU_S) * 1e6 / TICK_US)))
        self.line_g_min = np.zeros(slots)
        self.line_share = np.ones(slots)
        self.share_1 = 1.0
        self.lag_s = lag_s
        for i in range(2):
            self.g_per_rev[i] = g_per_rev[i]
            self.phase[i] = powder_random.uniform(0.0, TURN)
        for i in range(6):
            self.mm_per_step[i] = 1.0 / steps_per_mm[i] if steps_per_mm[i] else 0.0
        for i in range(3):
            self.home_mm[i], self.work_offset_mm[i] = home_mm[i], work_offset_mm[i]
        self.n_turns = len(turns)
        for i in range(self.n_turns):
            axis, *centre = turns[i]
            self.turn_axis[i] = axis
            for k in range(3):
                self.turn_centre[i][k] = centre[k]
        self.inert = inert
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
        self.source.integrate(now_us, permitted)
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
                    self.source.queue_edge(gate.t_us, gate.on)
                elif rows[i].kind == ROW_SEGMENT_END:
                    end.t_us, end.segment = <int64_t>rows[i].t_us, <int32_t>rows[i].segment
                    memcpy(&end.pos[0], &rows[i].pos[0], sizeof(end.pos))
                    self.end_rows.put(&end, sizeof(SegmentEndRow))
                    self.source.queue_power(<int64_t>rows[i].t_us, rows[i].power)
                i += 1
            else:
                self.source.queue_power(<int64_t>samples[k].t_us, samples[k].power)
                k += 1
        if n_samples:
            self.last = samples[n_samples - 1]
        return kinds

    cdef void melt_pool(self, double *p) noexcept:
        """Where the nozzle points, in coordinates that turn with the table.

        The tables are turned back from base to work, each about its own centre as it stands
        with those before it at 0.
        """
        cdef int i, a, b
        cdef double angle, c, s, u, v
        for i in range(3):
            p[i] = self.home_mm[i] + self.last.pos[i] * self.mm_per_step[i]
        for i in range(self.n_turns):
            a, b = (self.turn_axis[i] + 1) % 3, (self.turn_axis[i] + 2) % 3
            angle = self.last.pos[3 + i] * self.mm_per_step[3 + i] * TURN / 360.0
            c, s = cos(angle), sin(angle)
            u, v = p[a] - self.turn_centre[i][a], p[b] - self.turn_centre[i][b]
            p[a] = self.turn_centre[i][a] + c * u + s * v
            p[b] = self.turn_centre[i][b] - s * u + c * v
        for i in range(3):
            p[i] -= self.work_offset_mm[i]

    # ---- tick: every 10 ms -------------------------------------------------------------

    def tick(self, world, bint interlock):
        """Close the step that `beam` has just integrated: 10 ms of all that is slower."""
        cdef Source source = self.source
        cdef Bead melt = self.melt
        cdef double dt = (source.t_us - self.tick_t_us) * 1e-6
        cdef double x, y, z, transmission, work_j
        cdef double place[3]
        cdef Step step
        cdef PlantRow row
        if dt <= 0.0:
            return
        self.melt_pool(place)
        x, y, z = place[0], place[1], place[2]
        transmission = world.optics_transmission
        work_j = source.step_energy_j * transmission
        self.energy_j += work_j
        self.emission_s += source.step_on_s
        self.powder(world, dt)

        step.x_mm, step.y_mm, step.z_mm = x, y, z
        step.dx_mm, step.dy_mm = x - self.x_mm, y - self.y_mm
        step.distance_mm = sqrt(step.dx_mm * step.dx_mm + step.dy_mm * step.dy_mm)
        step.speed_mm_s = sqrt(
            step.distance_mm * step.distance_mm + (z - self.z_mm) * (z - self.z_mm)
        ) / dt
        step.asked_j, step.on_s = source.step_asked_j * transmission, source.step_on_s
        step.on_from = (source.step_on_first_us - self.tick_t_us) * 1e-6 / dt
        step.on_to = (source.step_on_last_us - self.tick_t_us) * 1e-6 / dt
        step.fed_g_min = (self.fast_g_min + self.slow_g_min) * self.diverter
        step.share_1 = self.share_1
        melt.lay(&step)
        world.pool_temp_deg_c = AMBIENT_DEG_C + melt.pool_rise(work_j / dt, step.speed_mm_s, dt)
        self.cooling(world, dt)
        self.gases(world, dt)
        self.measured_w += (source.step_energy_j / dt - self.measured_w) * (
            1.0 - exp(-dt / MEASURE_TAU_S)
        )
        if self.measured_w < 1e-3:
            self.measured_w = 0.0

        row.t_us, row.x_mm, row.y_mm, row.z_mm = source.t_us, x, y, z
        row.power_command_w = <double>self.last.power / POWER_FULL * source.rated_w
        row.emission_w, row.energy_j, row.emission_s = work_j / dt, self.energy_j, self.emission_s
        row.fed_g, row.wasted_g, row.deposited_g = self.fed_g, self.wasted_g, melt.deposited_g
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
        world.gate_on = source.gate_in_source
        world.emission_w = source.light_w * transmission if source.shining else 0.0
        world.energy_j, world.emission_s = self.energy_j, self.emission_s
        world.fed_g, world.wasted_g = self.fed_g, self.wasted_g
        world.deposited_g = melt.deposited_g
        world.height_mm, world.bead_width_mm = melt.height_mm, melt.width_mm
        world.laser_power_measured_w = self.measured_w * (
            1.0 + MEASURE_NOISE * source.noise.normal()
        )
        self.x_mm, self.y_mm, self.z_mm = x, y, z
        source.begin_step()
        self.tick_t_us = source.t_us

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
            self.phase[i] += TURN * self.motor[i] / self.g_per_rev[i] / 60.0 * dt
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
            LASER_LOSS * self.source.step_energy_j + (STANDBY_W - exchange_w) * dt
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

    def break_source(self, double share, double stray_w):
        """From here on: share of the commanded power, light with the gate shut (W)."""
        self.source.share, self.source.stray_w = share, stray_w

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
        return self.source.t_us

    @property
    def power_latency_now_us(self):
        """The wandering latency of the power input, for tests."""
        return self.source.latency_us

    @property
    def last_edge_us(self):
        """When the newest gate edge acts on the light, us; for an edge recorder."""
        return self.source.e_t[(self.source.e_count - 1) % EDGES] if self.source.e_count else -1

    @property
    def hose_g(self):
        """Powder on its way from the hoppers to the diverter, for the mass balance."""
        cdef double held = self.fast_g_min * self.lag_s + self.slow_g_min * SLOW_TAU_S
        cdef Py_ssize_t i
        for i in range(self.line_g_min.shape[0]):
            held += self.line_g_min[i] * TICK_US * 1e-6
        return held / 60.0

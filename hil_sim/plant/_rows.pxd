# Rows that go in and out of the physics as bytes, little endian.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# ---- in: the firmware's native interface, 48 bytes each ----------------------------------

cdef enum:
    POWER_FULL = 65535
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

# ---- out: PLANT_ROW, SEGMENT_END_ROW and GATE_ROW of hil_sim/trace.py --------------------

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

"""Wire types of the segment protocol, version 1 (specification: docs/protocol.md).

One segment is 22 bytes, little endian. The planner writes arrays of SEGMENT, the job
file stores them, the motion link frames them; nothing converts on the way.
"""

import numpy as np

N_AXES = 6

# 22 bytes, packed, little endian
SEGMENT = np.dtype(
    [
        ("steps", "<i2", (N_AXES,)),  # signed step deltas of this segment
        ("start_ratio", "<u2"),  # speed at start / mean speed, 1/32768 (0 .. 2)
        ("end_power", "<u2"),  # power at the end, 1/65535 of the source's full scale
        ("end_speed", "<u2"),  # speed at the end / nominal speed of the track, 1/32768
        ("ticks_lo", "<u2"),  # duration in ticks of 1 us, low 16 of 24 bits
        ("ticks_hi", "u1"),
        ("flags", "u1"),
    ]
)
assert SEGMENT.itemsize == 22

FLAG_GATE = 0x01  # emission wanted during the whole segment
FLAG_DWELL = 0x02  # standing still on purpose: motion guard off, all step deltas 0
FLAG_TRACK_START = 0x04  # first segment of a track; the device counts these
FLAG_PARAM = 0x08  # not motion: ticks 0; end_power = power floor, end_speed = least override
FLAG_END = 0x10  # last segment of the job: an empty queue after it is no underrun

TICK_S = 1e-6
MAX_TICKS = 0xFFFFFF
RATIO_ONE = 32768
POWER_FULL = 65535
MAX_STEPS = 32767


def ticks_of(segments: np.ndarray) -> np.ndarray:
    """Durations of SEGMENT rows, (n,) int64, ticks of 1 us."""
    return segments["ticks_lo"].astype(np.int64) | (segments["ticks_hi"].astype(np.int64) << 16)

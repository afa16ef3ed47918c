from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Phases = tuple[Floats, Floats, Floats, Floats, Floats, np.ndarray, Floats]

def jerk_phases(
    length_mm: Any,
    accel_mm_s2: Any,
    cruise_mm_s: Any,
    corner_mm_s: Any,
    nominal_mm_s: Any,
    jerk_mm_s3: float,
    bend: float = ...,
    start_mm_s: float = ...,
    end_mm_s: float = ...,
) -> Phases: ...
def times_within(way_mm: Any, v_mm_s: Any, a_mm_s2: Any, j_mm_s3: Any, last_s: Any) -> Floats: ...

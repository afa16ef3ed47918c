from typing import Any

import numpy as np

def joint_law(
    s_mm: Any,
    axes: Any,
    slope_start: Any,
    slope_end: Any,
    speed_mm_s: Any,
    rest: Any,
    axis_speed: Any,
    axis_accel: Any,
    total_accel: float,
    path_accel: float,
) -> np.ndarray[Any, np.dtype[np.float64]]: ...

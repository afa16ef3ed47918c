from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Rounding = tuple[Floats, Floats, Floats]

def plan_circle(
    points_mm: Any,
    speed_mm_s: Any,
    rounding: Rounding,
    accel_mm_s2: float,
    axis_speed_mm_s: Any,
    axis_accel_mm_s2: Any,
    start_mm_s: float = ...,
    end_mm_s: float = ...,
    bend_mm: Any = ...,
    pull_mm_s2: Any = ...,
) -> tuple[Floats, Floats]: ...
def circle_phases(
    points_mm: Any,
    speed_mm_s: Any,
    rounding: Rounding,
    accel_mm_s2: float,
    axis_speed_mm_s: Any,
    axis_accel_mm_s2: Any,
    squared: Any,
    sagitta_mm: float,
    bend_mm: Any = ...,
    pull_mm_s2: Any = ...,
) -> tuple[Floats, Floats, Floats, Floats, np.ndarray, Floats]: ...

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]

def plan_trapezoid(
    points_mm: Any,
    speed_mm_s: Any,
    accel_mm_s2: float,
    junction_deviation_mm: float,
    axis_speed_mm_s: Any,
    axis_accel_mm_s2: Any,
    start_mm_s: float = ...,
    end_mm_s: float = ...,
) -> tuple[Floats, Floats, Floats, Floats, Floats]: ...
def trapezoid_phases(
    length_mm: Any, v_mm_s: Any, peak_mm_s: Any, accel_mm_s2: Any
) -> tuple[Floats, Floats, Floats, Floats, np.ndarray]: ...
def junction_limits(
    points_mm: Any,
    speed_mm_s: Any,
    accel_mm_s2: float,
    junction_deviation_mm: float,
    axis_speed_mm_s: Any,
    axis_accel_mm_s2: Any,
) -> tuple[Floats, Floats, Floats, Floats]: ...
def plan_elements(
    length_mm: Any,
    unit_in: Any,
    unit_out: Any,
    speed_mm_s: Any,
    accel_mm_s2: Any,
    junction_deviation_mm: float,
    axis_speed_mm_s: Any = ...,
    axis_accel_mm_s2: Any = ...,
    start_mm_s: float = ...,
    end_mm_s: float = ...,
) -> tuple[Floats, Floats, Floats, Floats, Floats]: ...

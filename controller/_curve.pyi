from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]

def round_corners(
    points_mm: Any, tolerance_mm: float, fixed: Any = ..., enough_mm: float = ...
) -> tuple[Floats, Floats, Floats]: ...
def places(points_mm: Any, radius_mm: Any, half_mm: Any, move_s_mm: Any, s_mm: Any) -> Floats: ...

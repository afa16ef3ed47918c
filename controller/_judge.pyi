from typing import Any

import numpy as np

COLUMNS: tuple[str, ...]

def judge_power(
    end_s: Any,
    power_w: Any,
    phase_t_s: Any,
    phase_s_mm: Any,
    phase_v_mm_s: Any,
    phase_a_mm_s2: Any,
    phase_j_mm_s3: Any,
    on_s: Any,
    off_s: Any,
    beads: Any,
    late_s: float,
    rated_w: float,
    longest_s: float = ...,
) -> np.ndarray[Any, np.dtype[np.float64]]: ...

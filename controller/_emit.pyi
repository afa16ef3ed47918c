from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]

def merge_cuts(
    kink_s: Any, kink_hard: Any, extra_s: Any, extra_hard: Any, least_ticks: int = ...
) -> Floats: ...
def subdivide(
    cut_s: Any,
    phase_t_s: Any,
    phase_s_mm: Any,
    phase_v_mm_s: Any,
    phase_a_mm_s2: Any,
    longest_s: float,
    longest_dwell_s: float,
) -> tuple[Floats, Floats, Floats]: ...
def place(
    points_mm: Any, move_s_mm: Any, s_mm: Any, steps_per_mm: Any, origin_mm: Any
) -> tuple[np.ndarray, np.ndarray]: ...
def pack_segments(
    t_s: Any,
    s_mm: Any,
    v_mm_s: Any,
    steps: Any,
    power: Any,
    nominal_mm_s: Any,
    flags: Any,
    out: Any,
    most_steps: int,
    most_ticks: int,
) -> None: ...

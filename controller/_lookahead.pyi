from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Rows = tuple[Floats, Floats, Floats, Floats, np.ndarray, Floats, Floats]

WINDOW_MOVES: int

class Stream:
    def __init__(
        self,
        start_mm: Any,
        accel_mm_s2: float,
        junction_deviation_mm: float,
        axis_speed_mm_s: Any,
        axis_accel_mm_s2: Any,
        start_mm_s: float = ...,
        start_t_s: float = ...,
        start_s_mm: float = ...,
        first_move: int = ...,
    ) -> None: ...
    @property
    def pending_moves(self) -> int: ...
    @property
    def buffer_bytes(self) -> int: ...
    @property
    def committed(self) -> tuple[float, float, float]: ...
    def take(self, points_mm: Any, speed_mm_s: Any) -> Rows: ...
    def finish(self, end_mm_s: float = ...) -> Rows: ...
    def nothing(self) -> Rows: ...

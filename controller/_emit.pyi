from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Whole = np.ndarray[Any, np.dtype[np.int64]]

def merge_cuts(
    cut_s: Any,
    cut_flags: Any,
    k: int,
    last_hard: bool,
    kink_s: Any,
    move: Any,
    kink: int,
    node_s: Any,
    node: int,
    edge_s: Any,
    edge_on: Any,
    edge: int,
    until_s: float,
    first: bool,
    final: bool,
    least_ticks: int = ...,
) -> tuple[int, bool, int, int, int]: ...
def count_parts(
    cut_s: Any,
    t_s: Any,
    v_mm_s: Any,
    j_mm_s3: Any,
    move: Any,
    longest_s: Any,
    nominal_mm_s: Any,
    longest: float,
    longest_dwell: float,
    most_mm: float,
    bend: float,
) -> tuple[Whole, Whole]: ...
def evaluate(
    cut_s: Any,
    cut_flags: Any,
    parts: Any,
    phase: Any,
    t_s: Any,
    s_mm: Any,
    v_mm_s: Any,
    a_mm_s2: Any,
    j_mm_s3: Any,
    move: Any,
    nominal_mm_s: Any,
    total: int,
) -> tuple[Floats, Floats, Floats, Floats, Bytes]: ...
def place(
    points_mm: Any, move_s_mm: Any, s_mm: Any, steps_per_mm: Any, origin_mm: Any, steps: Any
) -> None: ...
def pack_segments(
    t_s: Any,
    s_mm: Any,
    v_mm_s: Any,
    steps: Any,
    nominal_mm_s: Any,
    flags: Any,
    node_s: Any,
    node_share: Any,
    param_tick: Any,
    param_rows: Any,
    out: Any,
    begin_tick: Any,
    most_steps: int,
    most_ticks: int,
) -> tuple[int, int]: ...
def frame_segments(rows: Any, first_index: int, first_sequence: int) -> Bytes: ...

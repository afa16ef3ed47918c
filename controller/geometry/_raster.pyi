"""Types of the kernels; what they do stands in _raster.pyx."""

import numpy as np

_A = np.ndarray

def scanlines(points: _A, ring_start: _A, pitch: float, phase: float) -> tuple[_A, _A, _A]: ...
def link_chords(line: _A, x0: _A, x1: _A) -> _A: ...
def zigzag(
    line: _A,
    x0: _A,
    x1: _A,
    nxt: _A,
    pitch: float,
    phase: float,
    farthest_link: float,
) -> tuple[_A, _A]: ...
def cover_grid(
    points: _A,
    path_start: _A,
    radius: _A,
    x0: float,
    y0: float,
    cell: float,
    nx: int,
    ny: int,
) -> _A: ...

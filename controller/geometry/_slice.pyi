"""Types of the kernels; what they do stands in _slice.pyx."""

import numpy as np

_A = np.ndarray

def slice_planes(
    vertices: _A, faces: _A, face_edges: _A, n_edges: int, z_planes: _A
) -> tuple[_A, _A, _A, _A, _A]: ...
def simplify_ring(ring: _A, tolerance: float, closed: bool) -> _A: ...

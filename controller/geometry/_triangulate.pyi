"""Types of the kernels; what they do stands in _triangulate.pyx."""

import numpy as np

_A = np.ndarray

def ear_clip(points: _A, polygon: _A) -> _A: ...
def flip_to_delaunay(points: _A, triangles: _A, fixed: _A) -> _A: ...

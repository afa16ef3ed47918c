"""The line that the nozzle draws: what a time law runs along and segments are placed on.

A curve is known by path length s: ``move_s_mm`` holds s at the corners of the path it was
made from, ``axes_at`` the positions of the machine's axes. The polyline itself is the plainest
curve; rounded corners, arcs and rotary axes are others.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Curve(Protocol):
    """What every curve offers."""

    @property
    def points_mm(self) -> np.ndarray:
        """(n + 1, 3) float64: corners of the path the curve was made from."""

    @property
    def move_s_mm(self) -> np.ndarray:
        """(n + 1,) float64, mm: path length at each corner (at a rounded one, its middle)."""

    def tip_at(self, s_mm: np.ndarray) -> np.ndarray:
        """(k, 3) float64, mm: the melt pool's place in the part's frame; ``s_mm`` sorted."""

    def axes_at(self, s_mm: np.ndarray) -> np.ndarray:
        """(k, n_axes) float64, mm and degrees, plan coordinates; ``s_mm`` sorted."""


@dataclass(frozen=True)
class Polyline:
    """Straight moves with sharp corners."""

    points_mm: np.ndarray  # (n + 1, 3) float64
    move_s_mm: np.ndarray  # (n + 1,) float64

    @classmethod
    def of(cls, points_mm: np.ndarray, length_mm: np.ndarray) -> "Polyline":
        """From corners and the lengths of the moves between them."""
        return cls(points_mm, np.concatenate([[0.0], np.cumsum(length_mm)]))

    def tip_at(self, s_mm: np.ndarray) -> np.ndarray:
        """Places at path lengths, (k, 3) mm."""
        s = np.asarray(s_mm, dtype=np.float64)
        return np.stack(
            [np.interp(s, self.move_s_mm, self.points_mm[:, k]) for k in range(3)], axis=-1
        )

    def axes_at(self, s_mm: np.ndarray) -> np.ndarray:
        """As ``tip_at``: three linear axes."""
        return self.tip_at(s_mm)

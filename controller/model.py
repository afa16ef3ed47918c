"""The plain data that flows from CAD file to wire: parts, layers, tracks, the plan.

``PartMesh -> LayerSlice -> Track -> BuildPlan``. Every arrow is one function:
``geometry.load_part``, ``geometry.slice_part``, ``geometry.make_tracks``,
``planning.plan_build``. Lengths in mm, in the cell's coordinates once placed.
"""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np


class TrackKind(IntEnum):
    """What a track is for; the recipe may set each kind apart."""

    CONTOUR = 0
    HATCH = 1
    THIN_WALL = 2


class PowderChannel(IntEnum):
    """What a row of the process timeline commands."""

    HOPPER_1 = 0  # g/min
    HOPPER_2 = 1  # g/min
    CARRIER = 2  # L/min
    SHIELD = 3  # L/min
    DIVERTER = 4  # 1: powder goes to the nozzle, 0: to the waste bottle


class Severity(StrEnum):
    """How an alarm acts (design: Who guarantees what)."""

    NOTE = "NOTE"
    HOLD = "HOLD"
    HOLD_NOW = "HOLD_NOW"
    STOP = "STOP"
    ABORT = "ABORT"


@dataclass(frozen=True)
class PartMesh:
    """A triangle mesh as imported, closed or repaired, in mm."""

    name: str
    vertices_mm: np.ndarray  # (n, 3) float64
    faces: np.ndarray  # (m, 3) int32, counter-clockwise seen from outside
    source_name: str  # file name without folders
    source_sha256: str
    units: str  # "mm" | "inch" | "m": what the file's numbers were taken for
    volume_mm3: float  # as imported
    solids: tuple[str, ...] = ()  # names of the solids of a STEP or 3MF file
    notes: tuple[str, ...] = ()  # what was repaired, each a sentence

    @property
    def bounds_mm(self) -> np.ndarray:
        """(2, 3) float64: least and greatest corner."""
        return np.array([self.vertices_mm.min(0), self.vertices_mm.max(0)])


@dataclass(frozen=True)
class Region:
    """One filled area of a layer: an outer ring, counter-clockwise, and its holes, clockwise.

    Rings are (n, 2) float64 in mm, without a repeated last point.
    """

    outer_mm: np.ndarray
    holes_mm: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class LayerSlice:
    """The part's section that one layer builds."""

    index: int
    z_cut_mm: float  # height of the cutting plane in the part
    z_nozzle_mm: float  # height of the deposit's top: where the tracks of this layer run
    regions: tuple[Region, ...]
    open_chains_mm: tuple[np.ndarray, ...] = ()  # (n, 2) each: open shells, one bead
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Track:
    """One unbroken bead: what the laser draws without closing the gate.

    A move is straight, or an arc when it has a point to go through on its way. Without a tool
    axis the nozzle points straight down (-Z).
    """

    layer: int
    kind: TrackKind
    points_mm: np.ndarray  # (n, 3) float64, n >= 2; a closed track repeats its first point
    # (n - 1, 3) float64: middle of the arc that each move is; a row of NaN: straight
    through_mm: np.ndarray | None = None
    # (n, 3) float64, unit vectors in the part's frame from the part to the nozzle (rotary cells)
    tool_axis: np.ndarray | None = None


TRACK_ROW = np.dtype(
    [
        ("layer", "<i4"),
        ("kind", "<i4"),
        ("first_segment", "<i8"),  # of the track's emission, index into BuildPlan.segments
        ("end_segment", "<i8"),  # one past the track's last segment with the gate open
        ("start_s", "<f8"),  # plan time of gate on (commanded)
        ("end_s", "<f8"),  # plan time of gate off (commanded)
        ("length_mm", "<f8"),
        ("power_set_w", "<f8"),
        ("speed_mm_s", "<f8"),
        ("powder_g_min", "<f8"),
        ("energy_j", "<f8"),
        ("first_point", "<i8"),  # index into BuildPlan.path_mm
        ("n_points", "<i8"),
    ]
)

TIMELINE_ROW = np.dtype(
    [
        ("t_s", "<f8"),  # plan time at which the command is sent (already advanced)
        ("channel", "<i4"),  # PowderChannel
        ("value", "<f8"),
    ]
)

LAYER_ROW = np.dtype(
    [
        ("layer", "<i4"),
        ("z_mm", "<f8"),
        ("start_s", "<f8"),
        ("end_s", "<f8"),
        ("first_track", "<i8"),
        ("n_tracks", "<i8"),
        ("area_mm2", "<f8"),
    ]
)


@dataclass(frozen=True)
class BuildPlan:
    """A whole build: what the job file holds.

    ``segments`` is the wire's SEGMENT array (firmware_bridge.segments); its steps start at
    ``start_steps``. ``figures`` has the keys of ``lmd plan --json`` (design: The lmd command).
    """

    segments: np.ndarray  # (n,) SEGMENT
    start_steps: np.ndarray  # (6,) int64: axis position before the first segment
    tracks: np.ndarray  # (n,) TRACK_ROW
    layers: np.ndarray  # (n,) LAYER_ROW
    timeline: np.ndarray  # (n,) TIMELINE_ROW, sorted by t_s
    path_mm: np.ndarray  # (n, 3) float64: the emission path, track after track
    figures: dict[str, Any]
    cell_toml: str  # the cell file's text, as used
    recipe_toml: str
    material_toml: str
    part: dict[str, Any]  # name, source_name, source_sha256, units, extents_mm, notes
    warnings: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)  # version, cell, recipe names

"""From a part file to tracks: ``load_part -> place_part -> slice_part -> make_tracks``.

Each step is one function on plain data (``controller.model``). Libraries for 3MF, STEP and
other meshes are imported when a file needs them.
"""

from controller.geometry.beads import bead_area_mm2
from controller.geometry.cover import coverage_notes
from controller.geometry.load import load_part
from controller.geometry.place import place_part
from controller.geometry.slicing import grow_sections, section_planes, slice_part
from controller.geometry.tracks import make_tracks, part_figures

__all__ = [
    "bead_area_mm2",
    "coverage_notes",
    "grow_sections",
    "load_part",
    "make_tracks",
    "part_figures",
    "place_part",
    "section_planes",
    "slice_part",
]

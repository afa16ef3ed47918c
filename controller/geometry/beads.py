"""What a track of each kind lays down, and the strip of a layer that it fills.

The bead of the recipe belongs to [track.default]; a kind with another speed or powder flow
lays a bead of another section, in proportion to powder per mm of path (mass balance). Beads
overlap, so what counts for volume is not the width but the *strip*: bead section divided by
layer height, the width of layer that one bead can fill.
"""

from dataclasses import dataclass

from controller.model import TrackKind
from controller.recipes import Recipe


def bead_area_mm2(recipe: Recipe, kind: TrackKind, layer: int) -> float:
    """Section of the bead that a track of ``kind`` lays, mm²."""
    own = recipe.settings_for(kind, layer)
    default = recipe.track["default"]
    assert default.powder_g_min is not None  # the recipe's validator sees to it
    assert default.speed_mm_s is not None
    if default.powder_g_min == 0:  # remelting only: geometry still needs a width
        return recipe.bead.area_mm2 * default.speed_mm_s / own.speed_mm_s
    share = (own.powder_g_min / own.speed_mm_s) / (default.powder_g_min / default.speed_mm_s)
    return recipe.bead.area_mm2 * share


@dataclass(frozen=True)
class Strips:
    """Widths for one layer, mm."""

    width_mm: float  # of the bead: what must stay inside the section
    contour_mm: float  # strips
    hatch_mm: float
    thin_mm: float
    pitch_mm: float  # between hatch lines
    thin_below_mm: float  # a wall thinner than this gets one bead instead of two contours

    @classmethod
    def of(cls, recipe: Recipe, layer: int) -> "Strips":
        """The widths that a recipe gives for a layer (the first may have its own settings)."""
        width = recipe.bead.width_mm
        height = recipe.layers.height_mm
        contour, hatch, thin = (
            bead_area_mm2(recipe, kind, layer) / height
            for kind in (TrackKind.CONTOUR, TrackKind.HATCH, TrackKind.THIN_WALL)
        )
        # The overlap fixes the pitch; where bead and layer height agree to 15 % the pitch that
        # builds exactly the layer's height is taken, or the deposit would drift from the plan.
        pitch = recipe.bead.pitch_mm
        if abs(hatch / pitch - 1.0) <= 0.15:
            pitch = hatch
        # One bead or two: the nearer of the two strips, but two contours need a bead's width
        # of wall, and beyond one and a half beads one bead is never enough.
        below = min(max((thin + 2.0 * contour) / 2.0, width), 1.5 * width)
        if recipe.layers.contours == 0:
            below = width
        return cls(width, contour, hatch, thin, pitch, below)

"""The part on its plate: centred, lying on it, and inside what the machine can reach."""

from dataclasses import replace

import numpy as np

from controller.config import Cell
from controller.errors import GeometryError
from controller.model import PartMesh


def place_part(
    mesh: PartMesh, cell: Cell, *, bead_width_mm: float | None = None, margin_mm: float = 0.0
) -> PartMesh:
    """Move a part to the middle of the cell's substrate, its lowest point on the plate's top.

    Parameters
    ----------
    bead_width_mm : refuses a part that is smaller than one bead in its largest direction
    margin_mm : >= 0, room kept on every side for allowance and run-up
    Raises GeometryError naming axis, length and limit in mm.
    """
    if not margin_mm >= 0:
        raise GeometryError(f"margin {margin_mm:g} mm is below 0")
    low, high = mesh.bounds_mm
    size = high - low
    if bead_width_mm is not None and float(size.max()) < bead_width_mm:
        raise GeometryError(
            f"{mesh.source_name}: the part is {size[0]:.3g} x {size[1]:.3g} x {size[2]:.3g} mm, "
            f"smaller than one bead ({bead_width_mm:g} mm); its numbers were taken for "
            f"{mesh.units}, give --units inch or --units m (or --scale)"
        )
    plate = cell.substrate
    for i, letter in enumerate("XY"):
        if size[i] + 2 * margin_mm > plate.size_mm[i]:
            raise GeometryError(
                f"{mesh.source_name}: {size[i]:.4g} mm along {letter}"
                + (f" and {margin_mm:g} mm margin on each side" if margin_mm else "")
                + f" do not fit the substrate of cell {cell.name!r}, {plate.size_mm[i]:g} mm; "
                "give --scale, --rotate or --units"
            )
    target = np.array([plate.center_mm[0], plate.center_mm[1], plate.top_mm])
    shift = target - np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    placed = mesh.vertices_mm + shift
    placed[:, 2] = np.maximum(placed[:, 2], plate.top_mm)  # no rounding below the plate
    low, high = low + shift, high + shift
    motion = cell.motion
    for i, axis in enumerate(motion.axes[:3]):
        # the axes' ranges are the machine's; the part is placed in plan coordinates
        offset_mm = motion.tool_offset_mm[i] - motion.work_offset_mm[i]
        least, most = axis.range_mm[0] + offset_mm, axis.range_mm[1] + offset_mm
        below = low[i] - (margin_mm if i < 2 else 0.0)
        above = high[i] + margin_mm
        if below < least or above > most:
            reached, limit = (below, least) if below < least else (above, most)
            raise GeometryError(
                f"{mesh.source_name}: axis {axis.name} would have to reach {reached:.4g} mm, its "
                f"limit in cell {cell.name!r} is {limit:g} mm; give --scale, --rotate or --units"
            )
    return replace(mesh, vertices_mm=np.ascontiguousarray(placed))

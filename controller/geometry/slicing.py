"""From mesh to layers: planar sections, gaps closed, union, machining allowance.

One sweep cuts the whole mesh (``_slice.slice_planes``): cuts are chained by edge ids, so a
section is closed when the mesh is, without a tolerance. Where the mesh has damage the chains
stay open; near ends are joined here, layer by layer, with a note. Bodies that are open
shells (``repair.shell_faces``) become open chains, one bead wide.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from controller.config import Cell
from controller.errors import GeometryError
from controller.geometry import _slice
from controller.geometry.polygons import Rings, offset, rings_area, to_regions, union
from controller.geometry.repair import shell_faces, topology
from controller.model import LayerSlice, PartMesh
from controller.recipes import Recipe

MAX_LAYERS = 20_000
PLAIN_MM = 0.002
SLIVER_LAYER = 0.02  # a last layer thinner than this share of a layer is not built


@dataclass
class Section:
    """One plane's cut."""

    rings: Rings = field(default_factory=list)  # after union
    chains: list[np.ndarray] = field(default_factory=list)  # open shells, (n, 2)
    notes: list[str] = field(default_factory=list)


def section_planes(mesh: PartMesh, z_mm: np.ndarray, *, gap_mm: float = 0.5) -> list[Section]:
    """Cut a mesh at rising heights.

    z_mm : (p,) float64, mm, rising
    gap_mm : loose ends of a damaged solid's section up to this far apart are joined;
             a chain is also closed when its ends are nearer than a tenth of its length
    """
    z = np.ascontiguousarray(z_mm, np.float64)
    sections = [Section() for _ in range(len(z))]
    top = topology(mesh.vertices_mm, mesh.faces)
    shell = shell_faces(mesh.vertices_mm, mesh.faces, top)
    for is_shell in (False, True):
        chosen = shell if is_shell else ~shell
        if not chosen.any():
            continue
        whole = bool(chosen.all())
        points, start, plane, closed, _ = _slice.slice_planes(
            mesh.vertices_mm,
            mesh.faces if whole else np.ascontiguousarray(mesh.faces[chosen]),
            top.face_edges if whole else np.ascontiguousarray(top.face_edges[chosen]),
            len(top.forward),
            z,
        )
        closed_rings: list[list[np.ndarray]] = [[] for _ in z]
        loose: list[list[np.ndarray]] = [[] for _ in z]
        for c in range(len(plane)):
            chain = points[start[c] : start[c + 1]]
            if not is_shell and closed[c]:
                closed_rings[plane[c]].append(chain)
            elif closed[c]:
                loose[plane[c]].append(np.vstack([chain, chain[:1]]))
            else:
                loose[plane[c]].append(chain)
        for section, rings, chains in zip(sections, closed_rings, loose, strict=True):
            if is_shell:
                section.chains += [c for c in (_distinct(c) for c in chains) if len(c) >= 2]
                continue
            if chains:
                rings = rings + _join(chains, gap_mm, section)
            section.rings = union(rings)
    return sections


def _distinct(chain: np.ndarray) -> np.ndarray:
    """Without points that repeat the one before."""
    if len(chain) < 2:
        return chain
    keep = np.ones(len(chain), bool)
    keep[1:] = (np.abs(np.diff(chain, axis=0)) > 1e-9).any(1)
    return chain[keep]


def _join(chains: list[np.ndarray], gap_mm: float, section: Section) -> Rings:
    """Close loose chains of a damaged solid: nearest end to start first.

    What stays open goes to ``section.chains``, with a note each way.
    """
    open_ones = [c for c in (_distinct(c) for c in chains) if len(c) >= 2]
    rings: Rings = []
    joined, widest = 0, 0.0
    while open_ones:
        tails = np.array([c[-1] for c in open_ones])
        heads = np.array([c[0] for c in open_ones])
        gap = np.sqrt(((tails[:, None, :] - heads[None, :, :]) ** 2).sum(2))
        i, j = (int(k) for k in np.unravel_index(int(gap.argmin()), gap.shape))
        if gap[i, j] > gap_mm:
            break
        joined, widest = joined + 1, max(widest, float(gap[i, j]))
        if i == j:
            rings.append(open_ones.pop(i))
        else:
            both = _distinct(np.vstack([open_ones[i], open_ones[j]]))
            open_ones = [c for k, c in enumerate(open_ones) if k not in (i, j)] + [both]
    for chain in open_ones:
        wide = float(np.linalg.norm(chain[0] - chain[-1]))
        run = float(np.sqrt((np.diff(chain, axis=0) ** 2).sum(1)).sum())
        if len(chain) >= 3 and wide <= 0.1 * run:
            rings.append(chain)
            joined, widest = joined + 1, max(widest, wide)
        else:
            section.chains.append(chain)
            section.notes.append(
                f"an open line of {run:.3g} mm with ends {wide:.3g} mm apart is built as one bead"
            )
    if joined:
        section.notes.append(f"{joined} gaps in the section closed, the widest {widest:.3g} mm")
    return rings


def grow_sections(sections: list[Rings], xy_mm: float) -> Rings:
    """Union of sections, grown by the machining allowance in the plane.

    A section that is grown loses its points closer than PLAIN_MM to a straight line first:
    a finely meshed part would spend most of its time there.
    """
    if len(sections) == 1 and xy_mm == 0:
        return sections[0]
    plain = [[_slice.simplify_ring(r, PLAIN_MM, True) for r in s] for s in sections]
    rings = plain[0] if len(plain) == 1 else union([r for s in plain for r in s])
    return offset(rings, xy_mm)


def layer_heights(height_mm: float, layer_mm: float) -> np.ndarray:
    """Heights above the plate at which layers of a deposit ``height_mm`` tall are cut.

    Layers are cut at half their height; the last is cut at half of what the part has there.
    """
    count = max(1, math.ceil(height_mm / layer_mm - SLIVER_LAYER))
    if count > MAX_LAYERS:
        raise GeometryError(
            f"{height_mm:.4g} mm in layers of {layer_mm:g} mm are {count} layers, at most "
            f"{MAX_LAYERS}; check --units and [layers] height"
        )
    low = np.arange(count) * layer_mm
    return np.asarray((low + np.minimum(low + layer_mm, max(height_mm, low[-1] + 1e-6))) / 2)


def slice_part(mesh: PartMesh, recipe: Recipe, cell: Cell) -> list[LayerSlice]:
    """The layers of a placed part, allowance included.

    A layer holds the part's section at its height, the sections up to ``allowance_z`` below
    it (so every face that looks up gets the allowance), and is grown by ``allowance_xy``.
    Open shells get none: they are one bead wide whatever the recipe.

    Raises GeometryError when no layer has anything to build or a grown layer leaves the
    substrate.
    """
    layer = recipe.layers.height_mm
    xy = recipe.near_net_shape.allowance_xy_mm
    above = recipe.near_net_shape.allowance_z_mm
    base = cell.substrate.top_mm
    part_height = float(mesh.vertices_mm[:, 2].max()) - base
    if part_height <= 0:
        raise GeometryError(f"{mesh.source_name}: the part lies below the plate; place it first")
    has_solid = not shell_faces(
        mesh.vertices_mm, mesh.faces, topology(mesh.vertices_mm, mesh.faces)
    ).all()
    if not has_solid:
        above = 0.0
    cuts = np.round(layer_heights(part_height + above, layer), 6)
    windows = [_window(float(z), above, layer, part_height) for z in cuts]
    planes = np.unique(np.concatenate([np.concatenate(windows), cuts[cuts < part_height]]))
    sections = section_planes(mesh, planes + base, gap_mm=recipe.bead.width_mm / 2)
    at = {float(z): s for z, s in zip(planes, sections, strict=True)}
    out: list[LayerSlice] = []
    for index, (z, window) in enumerate(zip(cuts, windows, strict=True)):
        own = at.get(float(z), Section())
        rings = grow_sections([at[float(w)].rings for w in window], xy)
        out.append(
            LayerSlice(
                index=index,
                z_cut_mm=base + float(z),
                z_nozzle_mm=base + (index + 1) * layer,
                regions=to_regions(rings),
                open_chains_mm=tuple(own.chains),
                notes=tuple(f"Layer {index + 1}: {n}." for n in own.notes),
            )
        )
    _check_layers(mesh, out, cell)
    return out


def _window(z: float, above: float, layer: float, part_height: float) -> np.ndarray:
    """Heights whose sections a layer at ``z`` must cover: z down to z - ``above``."""
    steps = max(1, math.ceil(above / layer)) if above > 0 else 0
    heights = [z - above * k / steps for k in range(steps + 1)] if steps else [z]
    inside = [min(max(h, 0.0), part_height) for h in heights if h < part_height]
    if not inside:
        inside = [part_height]
    # the outermost faces lie in planes of their own: just inside of them
    edge = min(1e-5, 1e-3 * part_height)
    return np.unique(np.round(np.clip(inside, edge, part_height - edge), 6))


def _check_layers(mesh: PartMesh, layers: list[LayerSlice], cell: Cell) -> None:
    if not any(s.regions or s.open_chains_mm for s in layers):
        raise GeometryError(
            f"{mesh.source_name}: no layer has anything to build; check the mesh and --units"
        )
    low = np.array([np.inf, np.inf])
    high = -low
    for s in layers:
        for points in [r.outer_mm for r in s.regions] + list(s.open_chains_mm):
            low = np.minimum(low, points.min(0))
            high = np.maximum(high, points.max(0))
    plate = cell.substrate
    for i, axis in enumerate("XY"):
        least = plate.center_mm[i] - plate.size_mm[i] / 2
        most = plate.center_mm[i] + plate.size_mm[i] / 2
        if low[i] < least - 1e-6 or high[i] > most + 1e-6:
            reached, limit = (low[i], least) if low[i] < least else (high[i], most)
            raise GeometryError(
                f"{mesh.source_name}: with its machining allowance the part reaches "
                f"{axis} {reached:.4g} mm, the substrate of cell {cell.name!r} ends at "
                f"{limit:g} mm; give --scale or --rotate"
            )
    motion = cell.motion  # the axis' range is the machine's, the layers lie in plan coordinates
    z_most = motion.axes[2].range_mm[1] + motion.tool_offset_mm[2] - motion.work_offset_mm[2]
    if layers[-1].z_nozzle_mm > z_most:
        raise GeometryError(
            f"{mesh.source_name}: its last layer lies at Z {layers[-1].z_nozzle_mm:.4g} mm, the "
            f"limit of axis Z in cell {cell.name!r} is {z_most:g} mm; give --scale or --rotate"
        )


def sliced_volume(layers: list[LayerSlice], layer_mm: float) -> float:
    """Volume of the layers' regions, mm³."""
    return layer_mm * sum(rings_area([r.outer_mm, *r.holes_mm]) for s in layers for r in s.regions)

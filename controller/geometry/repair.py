"""What can be repaired in a mesh is repaired with a note; the rest is refused or kept open.

Order: doubled and degenerate triangles out, near vertices joined where that closes edges,
faces turned until neighbours agree, the whole turned outside out, small holes filled. Wide
openings stay: ``slicing`` builds such a body as a shell, one bead wide. Solids that overlap
or hold stray inner surfaces are not touched here: the non-zero union of every section takes
care of them (reference: pymeshfix lost whole bodies and must not run by itself).
"""

from dataclasses import dataclass

import numpy as np

from controller.geometry import _mesh

HOLE_SHARE = 0.01  # a hole up to this share of its body's surface is filled
WELD_SHARE = 1e-5  # vertices nearer than this share of the diagonal are one


@dataclass(frozen=True)
class Topology:
    """Edges and bodies of a mesh; see ``_mesh.build_edges`` and ``_mesh.components``."""

    face_edges: np.ndarray  # (m, 3) int32
    edge_ends: np.ndarray  # (e, 2) int32
    forward: np.ndarray  # (e,) int32
    backward: np.ndarray  # (e,) int32
    body: np.ndarray  # (m,) int32
    turn: np.ndarray  # (m,) uint8
    n_bodies: int
    n_conflicts: int

    @property
    def is_closed(self) -> bool:
        """Every edge is used as often one way as the other: the surface has no border."""
        return bool((self.forward == self.backward).all())


def topology(vertices: np.ndarray, faces: np.ndarray) -> Topology:
    """Edges and bodies of a mesh."""
    face_edges, ends, forward, backward = _mesh.build_edges(faces, len(vertices))
    body, turn, n_bodies, n_conflicts = _mesh.components(faces, face_edges, len(ends))
    return Topology(face_edges, ends, forward, backward, body, turn, n_bodies, n_conflicts)


def signed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume enclosed, mm³; negative when the faces look inwards."""
    return float(_six_volumes(vertices, faces).sum() / 6.0)


def _six_volumes(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    # about the middle of the part: far from the origin the sum would lose digits
    v = vertices - vertices.mean(0)
    a, b, c = v[faces[:, 0]], v[faces[:, 1]], v[faces[:, 2]]
    return np.asarray(np.einsum("ij,ij->i", a, np.cross(b, c)))


def _area_vectors(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, j]] for j in range(3))
    return np.asarray(np.cross(b - a, c - a) * 0.5)


def repair(
    vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Topology, list[str]]:
    """Returns (vertices, faces, topology, notes); lengths in mm, all notes are sentences."""
    notes: list[str] = []
    faces = _drop_bad(vertices, faces, notes)
    if len(faces) == 0:
        return vertices, faces, topology(vertices, faces), notes
    top = topology(vertices, faces)
    if not top.is_closed:
        vertices, faces, top = _join_near(vertices, faces, top, notes)
    if not top.is_closed and top.turn.any():
        faces, top = _turn(vertices, faces, top, notes)
    if signed_volume(vertices, faces) < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
        top = topology(vertices, faces)
        notes.append("The mesh was inside out and was turned.")
    faces, top = _turn_bodies(vertices, faces, top, notes)
    if not top.is_closed:
        faces, top = _drop_stray(vertices, faces, top, notes)
    if not top.is_closed:
        vertices, faces, top = _fill_holes(vertices, faces, top, notes)
    return vertices, faces, top, notes


def _drop_bad(vertices: np.ndarray, faces: np.ndarray, notes: list[str]) -> np.ndarray:
    """Without triangles that are a line, doubled, or cancelled by their own back."""
    flat = (
        (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])
    )
    if flat.any():
        notes.append(f"{int(flat.sum())} degenerate triangles removed.")
        faces = faces[~flat]
    if len(faces) == 0:
        return faces
    # rolled so that the least id leads: equal rows are the same triangle, same side
    least = faces.argmin(1)
    rolled = np.take_along_axis(faces, (least[:, None] + np.arange(3)) % 3, 1)
    ordered = np.sort(faces, 1).astype(np.int64)
    n = len(vertices) + 1
    hashed = (ordered[:, 0] * np.int64(0x9E3779B1) ^ ordered[:, 1]) * np.int64(n) + ordered[:, 2]
    order = np.argsort(hashed, kind="stable")
    twin = hashed[order][1:] == hashed[order][:-1]
    if not twin.any():
        return np.ascontiguousarray(faces)
    groups: dict[tuple[int, int, int], list[int]] = {}
    touched = np.zeros(len(faces), bool)
    touched[order[1:][twin]] = True
    touched[order[:-1][twin]] = True
    for i in np.flatnonzero(touched).tolist():
        groups.setdefault(tuple(ordered[i].tolist()), []).append(i)
    drop: list[int] = []
    doubled = cancelled = 0
    for same in groups.values():
        if len(same) < 2:
            continue
        up = [i for i in same if rolled[i, 1] < rolled[i, 2]]
        down = [i for i in same if rolled[i, 1] > rolled[i, 2]]
        if up and down:  # a face and its back: nothing between them
            pairs = min(len(up), len(down))
            drop += up[:pairs] + down[:pairs]
            cancelled += 2 * pairs
            up, down = up[pairs:], down[pairs:]
        drop += up[1:] + down[1:]
        doubled += len(up[1:]) + len(down[1:])
    if doubled:
        notes.append(f"{doubled} doubled triangles removed.")
    if cancelled:
        notes.append(f"{cancelled} triangles that lay back to back removed.")
    keep = np.ones(len(faces), bool)
    keep[drop] = False
    return np.ascontiguousarray(faces[keep])


def _open_edges(top: Topology) -> int:
    return int((top.forward != top.backward).sum())


def _join_near(
    vertices: np.ndarray, faces: np.ndarray, top: Topology, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, Topology]:
    """Weld by rounding where that leaves fewer open edges."""
    diagonal = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    tolerance = WELD_SHARE * diagonal
    if tolerance <= 0:
        return vertices, faces, top
    rounded = np.ascontiguousarray(np.round(vertices / tolerance))
    near, ids = _mesh.weld(rounded)
    if len(near) == len(vertices):
        return vertices, faces, top
    first = np.full(len(near), -1, np.int64)
    first[ids[::-1]] = np.arange(len(vertices))[::-1]
    quiet: list[str] = []
    joined = _drop_bad(vertices[first], np.ascontiguousarray(ids[faces]), quiet)
    if len(joined) == 0:
        return vertices, faces, top
    new = topology(vertices[first], joined)
    before, after = _open_edges(top), _open_edges(new)
    if after >= before:
        return vertices, faces, top
    notes.append(
        f"{len(vertices) - len(near)} vertices within {tolerance:.2g} mm of another joined "
        f"(open edges {before} to {after})."
    )
    return vertices[first], joined, new


def _turn(
    vertices: np.ndarray, faces: np.ndarray, top: Topology, notes: list[str]
) -> tuple[np.ndarray, Topology]:
    """Turn faces until neighbours agree, then each such body outside out."""
    turn = top.turn.astype(bool)
    volumes = np.where(turn, -1.0, 1.0) * _six_volumes(vertices, faces)
    mixed = np.zeros(top.n_bodies, bool)
    mixed[top.body[turn]] = True
    body_volume = np.bincount(top.body, volumes, top.n_bodies)
    inside_out = mixed & (body_volume < 0)
    turn ^= inside_out[top.body]
    turned = faces.copy()
    turned[turn] = turned[turn][:, ::-1]
    notes.append(f"{int(turn.sum())} triangles that faced the wrong way turned.")
    return turned, topology(vertices, turned)


def _turn_bodies(
    vertices: np.ndarray, faces: np.ndarray, top: Topology, notes: list[str]
) -> tuple[np.ndarray, Topology]:
    """Turn a body that is inside out and not a cavity (inside the box of another body)."""
    if top.n_bodies < 2:
        return faces, top
    volume = np.bincount(top.body, _six_volumes(vertices, faces), top.n_bodies)
    if not (volume < 0).any():
        return faces, top
    order = np.argsort(top.body, kind="stable")
    first = np.searchsorted(top.body[order], np.arange(top.n_bodies))
    corners = vertices[faces[order]]
    low = np.minimum.reduceat(corners.min(1), first)
    high = np.maximum.reduceat(corners.max(1), first)
    turn = np.zeros(top.n_bodies, bool)
    sound = volume > 0
    for body in np.flatnonzero(volume < 0).tolist():
        around = sound & (low <= low[body]).all(1) & (high >= high[body]).all(1)
        turn[body] = not around.any()
    if not turn.any():
        return faces, top
    faces = faces.copy()
    which = turn[top.body]
    faces[which] = faces[which][:, ::-1]
    notes.append(f"{int(turn.sum())} bodies that were inside out turned.")
    return faces, topology(vertices, faces)


def border_loops(faces: np.ndarray, top: Topology) -> list[np.ndarray]:
    """Closed loops of vertex ids along open edges, in the direction a filling face would run."""
    surplus = top.forward - top.backward
    nexts: dict[int, list[int]] = {}
    for e in np.flatnonzero(surplus).tolist():
        lo, hi = (int(v) for v in top.edge_ends[e])
        start, end = (hi, lo) if surplus[e] > 0 else (lo, hi)
        for _ in range(abs(int(surplus[e]))):
            nexts.setdefault(start, []).append(end)
    loops: list[np.ndarray] = []
    for origin in sorted(nexts):
        while nexts[origin]:
            loop = [origin]
            at = nexts[origin].pop(0)
            while at != origin:
                loop.append(at)
                if not nexts.get(at):
                    break
                at = nexts[at].pop(0)
            if at == origin and len(loop) >= 3:
                loops.append(np.array(loop, np.int64))
    return loops


def loop_area(vertices: np.ndarray, loop: np.ndarray) -> float:
    """Area that a loop spans, mm²."""
    p = vertices[loop] - vertices[loop].mean(0)
    return float(np.linalg.norm(np.cross(p, np.roll(p, -1, 0)).sum(0)) * 0.5)


def body_surfaces(vertices: np.ndarray, faces: np.ndarray, top: Topology) -> np.ndarray:
    """(n_bodies,) surface of each body, mm²."""
    area = np.linalg.norm(_area_vectors(vertices, faces), axis=1)
    return np.bincount(top.body, area, top.n_bodies)


def _drop_stray(
    vertices: np.ndarray, faces: np.ndarray, top: Topology, notes: list[str]
) -> tuple[np.ndarray, Topology]:
    """Without open surfaces that hang on a closed body: they bound nothing."""
    if top.n_bodies < 2:
        return faces, top
    ids = top.body[:, None] * np.int64(len(top.forward)) + top.face_edges
    step = np.array([1, 1, 1])
    sign = np.where(faces < np.roll(faces, -1, 1), step, -step)
    keys, inverse = np.unique(ids.ravel(), return_inverse=True)
    unbalanced = np.bincount(inverse.ravel(), sign.ravel()) != 0
    is_open = np.zeros(top.n_bodies, bool)
    is_open[keys[unbalanced] // len(top.forward)] = True
    if not is_open.any() or is_open.all():
        return faces, top
    on_closed = np.zeros(len(vertices), bool)
    on_closed[faces[~is_open[top.body]].ravel()] = True
    stray = np.zeros(top.n_bodies, bool)
    for body in np.flatnonzero(is_open).tolist():
        stray[body] = on_closed[faces[top.body == body].ravel()].any()
    gone = stray[top.body]
    if not gone.any():
        return faces, top
    notes.append(
        f"{int(stray.sum())} stray open surfaces ({int(gone.sum())} triangles) on a closed body "
        "removed."
    )
    faces = np.ascontiguousarray(faces[~gone])
    return faces, topology(vertices, faces)


def _fill_holes(
    vertices: np.ndarray, faces: np.ndarray, top: Topology, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, Topology]:
    surface = body_surfaces(vertices, faces, top)
    body_of_vertex = np.zeros(len(vertices), np.int32)
    body_of_vertex[faces.ravel()] = np.repeat(top.body, 3)
    new_vertices: list[np.ndarray] = []
    new_faces: list[np.ndarray] = []
    filled, largest = 0, 0.0
    for loop in border_loops(faces, top):
        area = loop_area(vertices, loop)
        if len(loop) > 3 and area > HOLE_SHARE * surface[body_of_vertex[loop[0]]]:
            continue
        filled, largest = filled + 1, max(largest, area)
        if len(loop) == 3:
            new_faces.append(loop[None, :])
            continue
        middle = len(vertices) + len(new_vertices)
        new_vertices.append(vertices[loop].mean(0))
        new_faces.append(np.column_stack([loop, np.roll(loop, -1), np.full(len(loop), middle)]))
    if not filled:
        return vertices, faces, top
    notes.append(f"{filled} small holes filled, the largest {largest:.3g} mm².")
    if new_vertices:
        vertices = np.vstack([vertices, new_vertices])
    faces = np.ascontiguousarray(np.vstack([faces, *new_faces]).astype(np.int32))
    return vertices, faces, topology(vertices, faces)


def shell_faces(vertices: np.ndarray, faces: np.ndarray, top: Topology) -> np.ndarray:
    """(m,) bool: faces of bodies that are open shells, to be built one bead wide.

    A body is a shell when the openings that could not be filled span more than a twentieth
    of its surface: a vase without a lid, a bent sheet. A body with smaller openings is a
    solid with damage, its sections are closed at the gaps.
    """
    shell = np.zeros(top.n_bodies, bool)
    if top.is_closed:
        return shell[top.body]
    surface = body_surfaces(vertices, faces, top)
    body_of_vertex = np.zeros(len(vertices), np.int32)
    body_of_vertex[faces.ravel()] = np.repeat(top.body, 3)
    opening = np.zeros(top.n_bodies)
    for loop in border_loops(faces, top):
        opening[body_of_vertex[loop[0]]] += loop_area(vertices, loop)
    shell = opening > 0.05 * surface
    return shell[top.body]

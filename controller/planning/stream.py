"""A profile that comes in windows, to segments: what was sent never depends on what follows.

A window is a chunk of phases with the curve under them, and the power nodes and gate edges of
the same time. ``push`` gives the segments that are settled; two cuts are held back, because the
last may still be moved a microsecond by a gate edge. Everything is rounded from the running
value and looked up by the instant alone, so any division into windows gives the same bytes, and
memory holds one window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from controller import _emit
from controller.errors import PlanError
from controller.planning.path.curve import Curve, Polyline
from firmware_bridge.segments import FLAG_END, MAX_STEPS, MAX_TICKS, N_AXES, SEGMENT

LONGEST_SEGMENT_S = 0.020
LONGEST_DWELL_S = 0.100
# a ramp of speed straight between its ends may err by this share of nominal under jerk
BEND = 0.0005
# of the step counter's range: chords are shorter than the path, rounding adds a step
RANGE_SHARE = 0.9
WINDOW_PHASES = 1 << 15  # of a plan made at once: 2 MB of columns; twice as many gain 3 %

FRAME_ROWS = 20  # segments of a frame

_SIZE = SEGMENT.itemsize
_NONE_ROWS = np.zeros(0, dtype=SEGMENT)


@dataclass(frozen=True)
class Scale:
    """Steps of each axis: round((position - origin) x steps per unit), mm or degrees."""

    steps_per_unit: np.ndarray  # (n_axes,) float64
    origin: np.ndarray  # (n_axes,) float64
    linear: int = 3  # the first ones, which share the path's speed

    def __post_init__(self) -> None:
        n = len(self.steps_per_unit)
        if not self.linear <= n <= N_AXES or len(self.origin) != n or self.linear < 1:
            raise PlanError(f"{n} axes with {len(self.origin)} origins, needed 1 to {N_AXES}")


@dataclass(frozen=True)
class Window:
    """Phases one after the other, and what power and gate do meanwhile. Times are plan times;
    those of nodes and edges are of the commands (the source's latencies taken off).

    ``known_s`` promises that every gate edge, power node and parameter row before it, and the
    first node at or after it, is in this window or came before.
    """

    curve: Curve  # covers the phases, by path length of the whole plan
    t_s: np.ndarray  # (m + 1,) float64; the first is the last of the window before
    s_mm: np.ndarray  # (m + 1,) float64
    v_mm_s: np.ndarray  # (m + 1,) float64
    a_mm_s2: np.ndarray  # (m,) float64, at the phase's start
    j_mm_s3: np.ndarray  # (m,) float64
    move: np.ndarray  # (m,) int32, -1: dwell
    longest_s: np.ndarray  # (m,) float64
    nominal_mm_s: np.ndarray  # (m,) float64: nominal speed of the phase's move
    node_s: np.ndarray  # (p,) float64, sorted
    node_share: np.ndarray  # (p,) float64, of full power
    edge_s: np.ndarray  # (q,) float64, sorted
    edge_on: np.ndarray  # (q,) uint8, 1: the gate opens
    param_s: np.ndarray  # (r,) float64, sorted: a gate edge, or the start
    param_rows: np.ndarray  # (r,) SEGMENT with FLAG_PARAM
    known_s: float


@dataclass(frozen=True)
class Emitted:
    """Settled segments, and the beads whose edges are among them."""

    segments: np.ndarray  # (n,) SEGMENT
    first_index: int  # of segments[0] in the job
    first_segment: np.ndarray  # (k,) int64: of each gate that opened, its first segment
    end_segment: np.ndarray  # (k',) int64: of each that shut, one past its last


def split(window: Window, ends: Sequence[int] | np.ndarray) -> Iterator[Window]:
    """A window cut into windows that end after phase ``ends`` (the last one is added)."""
    m = len(window.a_mm_s2)
    node = edge = param = first = 0
    for end in [*(int(e) for e in ends), m]:
        if not first < end <= m:
            continue
        last = end == m
        until = window.known_s if last else min(float(window.t_s[end]), window.known_s)
        n, e, p = len(window.node_s), len(window.edge_s), len(window.param_s)
        if not last:
            n = min(n, int(np.searchsorted(window.node_s, until)) + 1)
            e = int(np.searchsorted(window.edge_s, until))
            p = int(np.searchsorted(window.param_s, until))
        yield Window(
            curve=window.curve,
            t_s=window.t_s[first : end + 1],
            s_mm=window.s_mm[first : end + 1],
            v_mm_s=window.v_mm_s[first : end + 1],
            a_mm_s2=window.a_mm_s2[first:end],
            j_mm_s3=window.j_mm_s3[first:end],
            move=window.move[first:end],
            longest_s=window.longest_s[first:end],
            nominal_mm_s=window.nominal_mm_s[first:end],
            node_s=window.node_s[node:n],
            node_share=window.node_share[node:n],
            edge_s=window.edge_s[edge:e],
            edge_on=window.edge_on[edge:e],
            param_s=window.param_s[param:p],
            param_rows=window.param_rows[param:p],
            known_s=until,
        )
        first, node, edge, param = end, n, e, p


def _ticks(t_s: np.ndarray | float) -> np.ndarray:
    return np.rint(np.asarray(t_s) * 1e6).astype(np.int64)


class SegmentStream:
    """Windows in, SEGMENT rows out.

    ``push`` and ``finish`` raise PlanError when a value does not fit its field, a bead is
    shorter than a tick or windows do not join.
    """

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._phases: tuple[np.ndarray, ...] | None = None  # t, s, v, a, j, move, longest, nominal
        self._curves: list[tuple[float, Curve]] = []  # (covers until, curve)
        self._nodes = (np.zeros(0), np.zeros(0))
        self._edges = (np.zeros(0), np.zeros(0, dtype=np.uint8))
        self._params = (np.zeros(0, dtype=np.int64), _NONE_ROWS)
        self._at = [0, 0, 0]  # kink, node, edge: the first not yet merged
        self._cut_s = np.zeros(0)  # at most two: the last settled and the last of all
        self._cut_flags = np.zeros(0, dtype=np.uint8)
        self._last_hard = False
        self._on, self._off = np.zeros(0, np.int64), np.zeros(0, np.int64)  # ticks, not yet met
        self._last_on = -1
        self._finished = False
        self._start_s = 0.0
        self.n_segments = 0
        self.first_tick = 0
        self.last_tick = 0  # of the newest settled segment's end

    @property
    def held_phases(self) -> int:
        """Phases kept for the next window."""
        return 0 if self._phases is None else len(self._phases[3])

    def push(self, window: Window) -> Emitted:
        """Take a window, give what it settles."""
        if self._finished:
            raise PlanError("the stream is finished: it takes no window any more")
        self._take(window)
        # a tick before what is known: settled ends are evaluated at their ticks
        return self._emit(min(window.known_s, float(window.t_s[-1])) - 1e-6, final=False)

    def finish(self) -> Emitted:
        """The rest, to the last phase's end; the last segment says END."""
        if self._finished or self._phases is None:
            raise PlanError("no window was pushed, or the stream is finished already")
        self._finished = True
        last_s = float(self._phases[0][-1])
        if len(self._edges[0]) and self._edges[0][-1] > last_s:
            raise PlanError(
                f"gate edge at {self._edges[0][-1]:.6f} s, after the motion's end {last_s:.6f} s"
            )
        return self._emit(last_s, final=True)

    def _take(self, w: Window) -> None:
        new = (w.t_s, w.s_mm, w.v_mm_s, w.a_mm_s2, w.j_mm_s3,
               np.asarray(w.move, dtype=np.int32), w.longest_s, w.nominal_mm_s)  # fmt: skip
        if self._phases is None:
            self._start_s = float(w.t_s[0])
            self._phases = tuple(np.ascontiguousarray(x) for x in new)
            self.first_tick = self.last_tick = int(_ticks(self._start_s))
        else:
            old = self._phases
            if w.t_s[0] != old[0][-1] or w.s_mm[0] != old[1][-1]:
                raise PlanError(
                    f"window begins at {w.t_s[0]:.9f} s, {w.s_mm[0]:.6f} mm; the one before ends "
                    f"at {old[0][-1]:.9f} s, {old[1][-1]:.6f} mm"
                )
            self._phases = tuple(
                np.concatenate([a, b[1:] if i < 3 else b])
                for i, (a, b) in enumerate(zip(old, new, strict=True))
            )
        if len(w.edge_s) and w.edge_s[0] < self._start_s:
            raise PlanError(
                f"gate edge at {w.edge_s[0]:.6f} s, before the start {self._start_s:g} s"
            )
        if self._curves and self._curves[-1][1] is w.curve:
            self._curves.pop()
        self._curves.append((float(w.t_s[-1]), w.curve))
        self._nodes = _joined(self._nodes, (w.node_s, w.node_share))
        self._edges = _joined(self._edges, (w.edge_s, w.edge_on))
        self._params = _joined(self._params, (_ticks(w.param_s), w.param_rows))
        self._note_edges(_ticks(w.edge_s), w.edge_on != 0)

    def _note_edges(self, tick: np.ndarray, on: np.ndarray) -> None:
        if len(tick) == 0:
            return
        before = np.concatenate([[self._last_on], tick[:-1]])
        was_on = np.concatenate([[self._last_on >= 0], on[:-1]])
        short = ~on & was_on & (tick <= before)
        if short.any():
            at_s = tick[int(np.argmax(short))] * 1e-6
            raise PlanError(f"bead that ends at {at_s:.6f} s: shorter than one tick of 1 us")
        self._last_on = int(tick[-1]) if on[-1] else -1
        self._on = np.concatenate([self._on, tick[on]])
        self._off = np.concatenate([self._off, tick[~on]])

    def _emit(self, until_s: float, *, final: bool) -> Emitted:
        assert self._phases is not None
        try:
            rows, begin = self._rows(until_s, final=final)
        except ValueError as exc:
            raise PlanError(f"segments cannot be made: {exc}") from None
        base = self.n_segments
        self.n_segments += len(rows)
        if final:
            rows[-1:]["flags"] |= FLAG_END
        # an edge is met when the segment that begins at it is there
        n_on = len(self._on) if final else int(np.searchsorted(self._on, self.last_tick))
        n_off = len(self._off) if final else int(np.searchsorted(self._off, self.last_tick))
        first = base + np.searchsorted(begin, self._on[:n_on], side="right") - 1
        end = base + np.searchsorted(begin, self._off[:n_off], side="left")
        self._on, self._off = self._on[n_on:], self._off[n_off:]
        return Emitted(rows, base, first, end)

    def _rows(self, until_s: float, *, final: bool) -> tuple[np.ndarray, np.ndarray]:
        assert self._phases is not None
        t, s, v, a, j, move, longest, nominal = self._phases
        node_s, node_share = self._nodes
        edge_s, edge_on = self._edges
        kink, node, edge = self._at
        held = len(self._cut_s)
        room = held + (len(t) - kink) + (len(node_s) - node) + (len(edge_s) - edge)
        cut_s, cut_flags = np.empty(room), np.zeros(room, dtype=np.uint8)
        cut_s[:held], cut_flags[:held] = self._cut_s, self._cut_flags
        k, self._last_hard, kink, node, edge = _emit.merge_cuts(
            cut_s, cut_flags, held, self._last_hard, t, move, kink, node_s, node,
            edge_s, edge_on, edge, until_s, True, final,
        )  # fmt: skip
        n = k if final else k - 1  # settled cuts
        self._at = [kink, node, edge]
        self._cut_s, self._cut_flags = cut_s[max(n - 1, 0) : k], cut_flags[max(n - 1, 0) : k]
        if n < 2:
            return _NONE_ROWS.copy(), np.zeros(0, dtype=np.int64)
        scale = self._scale
        parts, phase = _emit.count_parts(
            cut_s[:n], t, v, j, move, longest, nominal, LONGEST_SEGMENT_S, LONGEST_DWELL_S,
            RANGE_SHARE * MAX_STEPS / float(scale.steps_per_unit[: scale.linear].max()), BEND,
        )  # fmt: skip
        total = int(parts.sum())
        ends = _emit.evaluate(
            cut_s[:n], cut_flags, parts, phase, t, s, v, a, j, move, nominal, total
        )
        steps = self._steps(ends[0], ends[1])
        param_tick, param_rows = self._params
        rows = np.empty(total + len(param_tick), dtype=SEGMENT)
        begin = np.empty(len(rows), dtype=np.int64)
        used, params = _emit.pack_segments(
            *ends[:3], steps, ends[3], ends[4],
            node_s if len(node_s) else np.zeros(1), node_share if len(node_s) else np.zeros(1),
            param_tick, param_rows.view(np.uint8).reshape(-1, _SIZE),
            rows.view(np.uint8).reshape(-1, _SIZE), begin, MAX_STEPS, MAX_TICKS,
        )  # fmt: skip
        self._params = (param_tick[params:], param_rows[params:])
        settled_s = float(cut_s[n - 1])
        self.last_tick = int(_ticks(settled_s))
        self._forget(settled_s)
        return rows[:used], begin[:used]

    def _steps(self, t_s: np.ndarray, s_mm: np.ndarray) -> np.ndarray:
        """Axis positions at instants, each from the curve that covers it, (k, n_axes) int64."""
        scale = self._scale
        steps = np.empty((len(t_s), len(scale.steps_per_unit)), dtype=np.int64)
        first = 0
        for i, (covers_s, curve) in enumerate(self._curves):
            end = int(np.searchsorted(t_s, covers_s, side="right"))
            if self._finished and i == len(self._curves) - 1:
                end = len(t_s)  # the last tick may lie after the last phase
            if end <= first:
                continue
            if type(curve) is Polyline and steps.shape[1] == 3:
                _emit.place(
                    curve.points_mm, curve.move_s_mm, s_mm[first:end],
                    scale.steps_per_unit, scale.origin, steps[first:end],
                )  # fmt: skip
            else:
                # near rest two lengths may be out of order by their last bit
                axes = curve.axes_at(np.maximum.accumulate(s_mm[first:end]))
                if axes.shape != (end - first, steps.shape[1]):
                    raise ValueError(f"the curve gives {axes.shape[1:]} axes, not {steps.shape[1]}")
                if not np.isfinite(axes).all():
                    raise ValueError("the curve gives a position that is not finite")
                steps[first:end] = np.rint((axes - scale.origin) * scale.steps_per_unit)
            first = end
        if first < len(t_s):
            raise ValueError(f"no curve covers {t_s[first]:.6f} s")
        return steps

    def _forget(self, settled_s: float) -> None:
        """Drop what lies before the settled cut; copies, so that windows can be freed."""
        assert self._phases is not None
        kink, node, edge = self._at
        # its tick may lie half a microsecond before
        p = max(int(np.searchsorted(self._phases[0], settled_s - 1e-6)) - 1, 0)
        p = min(p, len(self._phases[3]) - 1)
        self._phases = tuple(x[p:].copy() for x in self._phases)
        n = max(int(np.searchsorted(self._nodes[0], settled_s - 1e-6, side="right")) - 1, 0)
        self._nodes = (self._nodes[0][n:].copy(), self._nodes[1][n:].copy())
        self._edges = (self._edges[0][edge:].copy(), self._edges[1][edge:].copy())
        self._at = [kink - p, node - n, 0]
        self._cut_s, self._cut_flags = self._cut_s.copy(), self._cut_flags.copy()
        self._curves = [c for c in self._curves if c[0] >= settled_s - 1e-6]


def _joined(
    old: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    if len(new[0]) == 0:
        return old
    if len(old[0]) == 0:
        return np.ascontiguousarray(new[0]), np.ascontiguousarray(new[1])
    return np.concatenate([old[0], new[0]]), np.concatenate([old[1], new[1]])


class FrameStream:
    """SEGMENT rows in, whole SEGMENTS frames of 20 out (docs/protocol.md, 1 and 3).

    The bytes are those that the motion link sends for the same rows from the same sequence
    number, if nothing else is sent between.
    """

    def __init__(self, first_index: int = 0, first_sequence: int = 0) -> None:
        self._rest = _NONE_ROWS
        self._index, self._sequence = first_index, first_sequence

    def push(self, segments: np.ndarray) -> np.ndarray:
        """Bytes of the frames that are full, (n,) uint8."""
        missing = -len(self._rest) % FRAME_ROWS
        if len(segments) < missing:
            self._rest = joined_rows([self._rest, segments])
            return np.zeros(0, dtype=np.uint8)
        whole = missing + (len(segments) - missing) // FRAME_ROWS * FRAME_ROWS
        head = self._frames(joined_rows([self._rest, segments[:missing]]))
        self._rest = segments[whole:].copy()
        data = self._frames(segments[missing:whole])
        return np.concatenate([head, data]) if len(head) else data

    def finish(self) -> np.ndarray:
        """The last frame, if rows are left."""
        rest, self._rest = self._rest, _NONE_ROWS
        return self._frames(rest)

    def _frames(self, rows: np.ndarray) -> np.ndarray:
        data = frame_segments(rows, self._index, self._sequence)
        self._index += len(rows)
        self._sequence += -(-len(rows) // FRAME_ROWS)
        return data


def joined_rows(parts: Sequence[np.ndarray]) -> np.ndarray:
    """SEGMENT arrays one after the other; as bytes, because numpy joins records field by field."""
    flat = [np.ascontiguousarray(p).view(np.uint8) for p in parts]
    return np.concatenate(flat).view(SEGMENT)


def frame_segments(segments: np.ndarray, first_index: int, first_sequence: int) -> np.ndarray:
    """SEGMENTS frames of 20 rows each, the last maybe shorter; (bytes,) uint8.

    ``segments`` (n,) SEGMENT; index of the first row and sequence number of the first frame,
    both modulo 2^32.
    """
    if segments.dtype != SEGMENT or segments.ndim != 1:
        raise PlanError(f"segments are {segments.dtype}, needed rows of {_SIZE} bytes")
    rows = np.ascontiguousarray(segments).view(np.uint8).reshape(-1, _SIZE)
    return _emit.frame_segments(rows, first_index, first_sequence)

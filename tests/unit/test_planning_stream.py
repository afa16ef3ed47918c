"""Windows of a profile to segments: any division gives the bytes of the whole."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from controller import _motion
from controller.errors import PlanError
from controller.planning.path.curve import Polyline
from controller.planning.stream import (
    FrameStream,
    Scale,
    SegmentStream,
    Window,
    frame_segments,
    split,
)
from firmware_bridge.segments import SEGMENT
from tests.unit.protocol_reader import Reader

SCALE = Scale(np.array([400.0, 400.0, 160.0]), np.array([-5.0, 0.0, 2.0]))


class Helix:
    """A curve that is no polyline, with two rotary axes: 5 columns."""

    points_mm = np.zeros((1, 3))
    move_s_mm = np.zeros(1)

    def tip_at(self, s_mm):
        return self.axes_at(s_mm)[:, :3]

    def axes_at(self, s_mm):
        u = s_mm / 5.0
        return np.stack([4 * np.cos(u), 4 * np.sin(u), 0.6 * s_mm, 10 * np.sin(u), 57.3 * u], 1)


def whole_window(seed, n_moves=60, jerky=False):
    """A path with dwells, gates that open and shut anywhere, power nodes and parameter rows."""
    rng = np.random.default_rng(seed)
    step = rng.normal(size=(n_moves, 3)) * 10.0 ** rng.uniform(-3.5, 0.7, (n_moves, 1))
    points = np.concatenate([np.zeros((1, 3)), np.cumsum(step, axis=0)])
    speed = rng.uniform(5.0, 60.0, n_moves)
    free = [1e9] * 3
    length, v, peak, accel, _ = _motion.plan_trapezoid(points, speed, 2000.0, 0.01, free, free)
    t, s, w, a, move = _motion.trapezoid_phases(length, v, peak, accel)
    m = len(a)
    j = np.zeros(m)
    at = np.concatenate([[0.0], np.cumsum(length)])
    if jerky:  # speeds that jump at kinks: the bytes must not depend on windows for all that
        j = rng.uniform(0.0, 2e4, m) * (rng.random(m) < 0.5)
        dt = np.diff(t)
        longer = np.concatenate([[0.0], np.cumsum(dt * (w[:-1] + dt * (a / 2 + j * dt / 6)))])
        at, s = np.interp(at, s, longer), longer
    dwell = rng.random(m) < 0.05
    dwell &= (w[1:] == 0) & (w[:-1] == 0)
    move = np.where(dwell, -1, move).astype(np.int32)
    edge = np.sort(rng.uniform(t[0], t[-1], 2 * int(rng.integers(0, 8))))
    if len(edge) > 3:  # edges close to kinks and to each other, a few microseconds and less
        edge[1] = t[m // 2] + rng.uniform(-3e-6, 3e-6)
        edge = np.sort(edge)
        edge[2] = edge[1] + 2.2e-6
        edge = np.sort(edge)
    keep = np.diff(np.rint(edge * 1e6).reshape(-1, 2), axis=1)[:, 0] > 0
    edge = edge.reshape(-1, 2)[keep].ravel()
    node = np.sort(np.concatenate([rng.uniform(-0.01, t[-1], 30), t[1:-1:3] - 1e-6, t[-1:]]))
    params = np.zeros(1 + len(edge) // 2, SEGMENT)
    params["flags"] = 8
    params["end_power"] = np.arange(len(params))
    return Window(
        curve=Polyline(points, at),
        t_s=t, s_mm=s, v_mm_s=w, a_mm_s2=a, j_mm_s3=j, move=move,
        longest_s=np.where(rng.random(m) < 0.3, 10.0 ** rng.uniform(-3.5, -2, m), np.inf),
        nominal_mm_s=speed[np.maximum(move, 0)],
        node_s=node, node_share=rng.uniform(0, 1, len(node)),
        edge_s=edge, edge_on=(np.arange(len(edge)) % 2 == 0).astype(np.uint8),
        param_s=np.concatenate([t[:1], edge[1::2]]), param_rows=params,
        known_s=float(t[-1]),
    )  # fmt: skip


def emitted(windows, scale=SCALE):
    """All segments, and the beads' rows."""
    stream = SegmentStream(scale)
    out = [stream.push(w) for w in windows]
    out.append(stream.finish())
    index = 0
    for part in out:
        assert part.first_index == index
        index += len(part.segments)
    assert stream.n_segments == index
    return (
        b"".join(part.segments.tobytes() for part in out),
        np.concatenate([part.first_segment for part in out]).tolist(),
        np.concatenate([part.end_segment for part in out]).tolist(),
    )


def own_curve(w):
    """The window with only the piece of the polyline that its phases need."""
    points, at = w.curve.points_mm, w.curve.move_s_mm
    first = max(int(np.searchsorted(at, w.s_mm[0], side="right")) - 1, 0)
    end = max(int(np.searchsorted(at, w.s_mm[-1])), first + 1)
    first = min(first, len(at) - 2)
    return replace(w, curve=Polyline(points[first : end + 1].copy(), at[first : end + 1].copy()))


def late(windows, lag_s):
    """The same windows, but what power and gate do is known only so much later."""
    windows = list(windows)
    columns = ("node_s", "node_share", "edge_s", "edge_on", "param_s", "param_rows")
    held = {name: np.concatenate([getattr(w, name) for w in windows]) for name in columns}
    out = []
    for w in windows:
        until = float(w.t_s[-1]) - lag_s
        n = int(np.searchsorted(held["node_s"], until)) + 1
        e = int(np.searchsorted(held["edge_s"], until))
        p = int(np.searchsorted(held["param_s"], until))
        take = {"node_s": n, "node_share": n, "edge_s": e, "edge_on": e, "param_s": p,
                "param_rows": p}  # fmt: skip
        if w is windows[-1]:
            take = {name: len(held[name]) for name in columns}
            until = w.known_s
        out.append(replace(w, known_s=until, **{name: held[name][:k] for name, k in take.items()}))
        held = {name: held[name][k:] for name, k in take.items()}
    return out


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10_000),
    ends=st.lists(st.integers(1, 150), max_size=40),
    lag_s=st.sampled_from([0.0, 1e-6, 0.003, 0.4]),
    jerky=st.booleans(),
)
@example(seed=1453, ends=[1, 3, 16, 27], lag_s=0.4, jerky=True)  # nodes before the start
def test_any_division_into_windows_gives_the_bytes_of_the_whole(seed, ends, lag_s, jerky):
    whole = whole_window(seed, jerky=jerky)
    want = emitted([whole])
    windows = split(whole, sorted(set(ends)))
    assert emitted(late(windows, lag_s)) == want
    every = range(1, len(whole.a_mm_s2))  # a window each phase, with its own piece of curve
    assert emitted(own_curve(w) for w in split(whole, every)) == want


@pytest.mark.parametrize("seed", range(5))
def test_curve_with_rotary_axes_gives_the_same_bytes_in_windows(seed):
    whole = replace(whole_window(seed), curve=Helix())
    scale = Scale(np.array([400.0, 400.0, 160.0, 50.0, 100.0]), np.array([0.0, 0, 0, -20.0, 0.0]))
    want, first, end = emitted([whole], scale)
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(1, len(whole.a_mm_s2), 20))
    assert emitted(split(whole, ends), scale) == (want, first, end)
    rows = np.frombuffer(want, SEGMENT)
    moved = rows["steps"].astype(np.int64).sum(axis=0)
    a, b = Helix().axes_at(np.array([0.0, whole.s_mm[-1]]))
    exact = [np.rint((x - scale.origin) * scale.steps_per_unit) for x in (a, b)]
    assert moved[:5].tolist() == (exact[1] - exact[0]).tolist()
    assert moved[5] == 0


def test_beads_are_found_where_the_gate_flag_changes():
    for seed in range(20):
        data, first, end = emitted(split(whole_window(seed), range(7, 500, 7)))
        flags = np.frombuffer(data, SEGMENT)["flags"]
        opened = []
        inside = np.concatenate([[0], (flags & 1).astype(int), [0]])
        for a, b in zip(first, end, strict=True):
            assert flags[a] & 4
            assert (flags[a:b][(flags[a:b] & 8) == 0] & 1).all()
            opened.append((a, b))
        assert int(((flags & 4) != 0).sum()) == len(opened)
        # a gate that shuts and opens within a tick stays open: one run, two tracks
        assert int((np.diff(inside) == 1).sum()) >= 1 or not opened


def test_frames_do_not_depend_on_how_rows_came():
    data = np.frombuffer(emitted([whole_window(3)])[0], SEGMENT)
    want = frame_segments(data, 11, 77).tobytes()
    rng = np.random.default_rng(0)
    for _ in range(20):
        frames = FrameStream(11, 77)
        at, got = 0, b""
        while at < len(data):
            n = int(rng.integers(0, 45))
            got += frames.push(data[at : at + n]).tobytes()
            at += n
        got += frames.finish().tobytes()
        assert got == want
    read = Reader().feed(want)
    assert b"".join(f.payload[4:] for f in read) == data.tobytes()
    assert {len(f.payload) for f in read[:-1]} == {4 + 20 * 22}


def endless(n_windows, moves=2000):
    """Windows of a zigzag that goes on, each made anew; the gate opens and shuts in each."""
    t0, s0, x0 = 0.0, 0.0, 0.0
    rng = np.random.default_rng(1)
    for _ in range(n_windows):
        length = rng.uniform(0.05, 0.2, moves)
        points = np.zeros((moves + 1, 3))
        points[1:, 0] = np.cumsum(length) * np.where(x0 > 50, -1, 1)
        points[:, 0] += x0
        at = s0 + np.concatenate([[0.0], np.cumsum(length)])
        t = t0 + (at - s0) / 25.0
        zero = np.zeros(moves)
        edge = np.array([t[3] + 1e-4, t[-9]])
        yield Window(
            curve=Polyline(points, at), t_s=t, s_mm=at, v_mm_s=np.full(moves + 1, 25.0),
            a_mm_s2=zero, j_mm_s3=zero, move=np.arange(moves, dtype=np.int32),
            longest_s=np.full(moves, np.inf), nominal_mm_s=np.full(moves, 25.0),
            node_s=t[1:], node_share=np.full(moves, 0.5), edge_s=edge,
            edge_on=np.array([1, 0], np.uint8), param_s=np.zeros(0),
            param_rows=np.zeros(0, SEGMENT), known_s=float(t[-1]),
        )  # fmt: skip
        t0, s0, x0 = float(t[-1]), float(at[-1]), float(points[-1, 0])


@pytest.mark.slow
def test_memory_is_one_window_however_long_the_stream():
    def peak(n_windows):
        stream, frames = SegmentStream(SCALE), FrameStream()
        tracemalloc.start()
        for window in endless(n_windows):
            frames.push(stream.push(window).segments)
            assert stream.held_phases <= 4
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert stream.n_segments > 1990 * n_windows
        return most

    peak(2)
    # 200 windows held would be 20 MB; 0.3 MB are Python's own ups and downs
    assert peak(200) <= peak(8) + 300_000


def test_short_segments_on_fine_steps_ask_for_no_more_speed_than_planned():
    """Gate edges a few microseconds apart at 150 mm/s and 5000 steps/mm: 0.75 steps a tick. The
    controller refuses (|d| - 1) / T above 1.02 times the axis' greatest speed (protocol, 5.2)."""
    rng = np.random.default_rng(0)
    edge = 1e-3 + np.cumsum(rng.uniform(2.6e-6, 9e-6, 4000))
    t = np.array([0.0, 0.5, 1.0])
    zero = np.zeros(2)
    whole = Window(
        curve=Polyline(np.array([[0.0, 0, 0], [75.0, 0, 0], [150.0, 0, 0]]), 150.0 * t),
        t_s=t, s_mm=150.0 * t, v_mm_s=np.full(3, 150.0), a_mm_s2=zero, j_mm_s3=zero,
        move=np.arange(2, dtype=np.int32), longest_s=np.full(2, np.inf),
        nominal_mm_s=np.full(2, 150.0), node_s=t, node_share=np.full(3, 0.5), edge_s=edge,
        edge_on=(np.arange(4000) % 2 == 0).astype(np.uint8), param_s=np.zeros(0),
        param_rows=np.zeros(0, SEGMENT), known_s=1.0,
    )  # fmt: skip
    rows = np.frombuffer(emitted([whole], Scale(np.full(3, 5000.0), np.zeros(3)))[0], SEGMENT)
    ticks = rows["ticks_lo"].astype(int) + 65536 * rows["ticks_hi"].astype(int)
    assert (ticks < 10).sum() > 3000
    ratio = rows["start_ratio"] / 32768.0
    rate = (np.abs(rows["steps"][:, 0].astype(int)) - 1) * np.maximum(ratio, 2 - ratio) / ticks
    assert rate.max() <= 1.001 * 0.75
    assert rows["steps"][:, 0].astype(int).sum() == 750_000


def test_windows_that_do_not_join_are_refused():
    whole = whole_window(0)
    first, second = split(whole, [10])
    stream = SegmentStream(SCALE)
    stream.push(first)
    with pytest.raises(PlanError, match=r"window begins at .* ends at"):
        stream.push(replace(second, t_s=second.t_s + 1e-3))


def test_bead_shorter_than_a_tick_is_refused_across_windows():
    whole = replace(whole_window(0), param_s=np.zeros(0), param_rows=np.zeros(0, SEGMENT))
    middle = float(np.rint(whole.t_s[20] * 1e6) * 1e-6)
    edge = np.array([middle - 1e-7, middle + 1e-7])
    whole = replace(whole, edge_s=edge, edge_on=np.array([1, 0], np.uint8))
    for ends in ([], [20], range(1, 100)):
        with pytest.raises(PlanError, match="shorter than one tick"):
            emitted(split(whole, ends))


def test_edges_outside_the_motion_are_refused():
    whole = whole_window(0)
    on = np.array([1], np.uint8)
    for t, match in ((-1e-3, "before the start"), (whole.t_s[-1] + 1e-3, "after the motion's end")):
        with pytest.raises(PlanError, match=match):
            emitted([replace(whole, edge_s=np.array([t]), edge_on=on)])


def test_stream_that_is_finished_takes_nothing():
    whole = whole_window(0)
    stream = SegmentStream(SCALE)
    with pytest.raises(PlanError, match="no window"):
        stream.finish()
    stream.push(whole)
    stream.finish()
    with pytest.raises(PlanError, match="finished"):
        stream.push(whole)


def test_curve_with_other_axes_than_the_scale_is_refused():
    with pytest.raises(PlanError, match="5"):
        emitted([replace(whole_window(0), curve=Helix())])
    with pytest.raises(PlanError, match="7 axes"):
        Scale(np.ones(7), np.zeros(7))
    with pytest.raises(PlanError, match="22 bytes"):
        frame_segments(np.zeros(3), 0, 0)

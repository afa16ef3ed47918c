"""Emission kernel against plain-Python twins and against bytes worked out by hand."""

import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller import _emit
from tests.unit import protocol_reader

GATE, DWELL, TRACK = 1, 2, 4
# docs/protocol.md, section 10: index 7, a PARAM record, then 10 ms of X +40, Y -20
DOCUMENT_FRAME = bytes.fromhex(
    "a5 02 30 00 ce ab 34 12 07 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
    "00 80 9a 19 00 40 00 00 00 08 28 00 ec ff 00 00 00 00 00 00 00 00 00 80"
    "66 66 00 80 10 27 00 05 36 9a 5d 70"
)


# --- cuts ---------------------------------------------------------------------------------


def merge(kinks, move, nodes, edges, on, until=math.inf, final=True):
    """The kernel's merge of whole lists: cuts and their flags."""
    room = len(kinks) + len(nodes) + len(edges)
    cut, flags = np.empty(room), np.zeros(room, np.uint8)
    k, *_ = _emit.merge_cuts(
        cut, flags, 0, False, np.asarray(kinks, float), np.asarray(move, np.int32), 0,
        np.asarray(nodes, float), 0, np.asarray(edges, float), np.asarray(on, np.uint8), 0,
        until, True, final,
    )  # fmt: skip
    return cut[:k].tolist(), flags[:k].tolist()


def merge_twin(kinks, move, nodes, edges, on):
    """Events in order of time; kinks, then nodes, then edges at one instant."""
    m = len(move)
    events = []
    for i, t in enumerate(kinks):
        hard = i in (0, m) or move[max(i - 1, 0)] < 0 or move[min(i, m - 1)] < 0
        events.append((t, 0, hard, None))
    events += [(t, 1, False, None) for t in nodes if kinks[0] <= t <= kinks[-1]]
    events += [(t, 2, True, bool(o)) for t, o in zip(edges, on, strict=True)]
    events.sort(key=lambda e: e[:2])
    cuts = []  # [t, hard, flags]
    gate = 0
    for t, _, hard, opens in events:
        tick = round(t * 1e6)
        if not cuts or tick - round(cuts[-1][0] * 1e6) >= (
            1 if hard and cuts[-1][1] and tick > round(cuts[-1][0] * 1e6) else 2
        ):
            cuts.append([t, hard, gate])
        elif hard and not cuts[-1][1]:
            cuts[-1][:2] = [t, True]
        if opens is not None:
            gate = int(opens)
            cuts[-1][2] = (cuts[-1][2] & TRACK) | (GATE | TRACK if opens else 0)
    return [c[0] for c in cuts], [c[2] for c in cuts]


times = st.floats(0.0, 0.01)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(times, min_size=1, max_size=30),
    st.lists(st.booleans(), min_size=40, max_size=40),
    st.lists(times, max_size=15),
    st.lists(st.one_of(times, st.integers(0, 60).map(lambda i: i * 0.4e-6)), max_size=10),
)
def test_merge_agrees_with_twin_and_keeps_every_hard_instant(kinks, dwell, nodes, edges):
    kinks = [0.0, *sorted(kinks), 0.0101]
    move = [-1 if d else i for i, d in zip(range(len(kinks) - 1), dwell, strict=False)]
    edges = sorted(edges)
    on = [i % 2 == 0 for i in range(len(edges))]
    nodes = sorted(n for n in nodes if n > 0.0)
    cut, flags = merge(kinks, move, nodes, edges, on)
    assert (cut, flags) == merge_twin(kinks, move, nodes, edges, on)
    ticks = np.rint(np.array(cut) * 1e6)
    assert (np.diff(ticks) >= 1).all()
    assert np.isin(np.rint(np.array([*edges, kinks[0], kinks[-1]]) * 1e6), ticks).all()


def test_edge_a_tick_after_a_kink_takes_its_place():
    kinks = [0.0, 0.001, 0.002]
    cut, flags = merge(kinks, [0, 1], [], [0.001001, 0.0015], [1, 0])
    assert cut == [0.0, 0.001001, 0.0015, 0.002]
    assert flags == [0, GATE | TRACK, 0, 0]


def test_merge_stops_before_the_instant_up_to_which_all_is_known():
    cut, flags = merge([0.0, 0.001, 0.002, 0.003], [0, 1, 2], [0.0005], [0.002], [1], 0.002, False)
    assert cut == [0.0, 0.0005, 0.001]
    assert flags == [0, 0, 0]


def test_merge_refuses_columns_that_differ():
    with pytest.raises(ValueError, match="kink"):
        merge([0.0, 1.0], [0, 1], [], [], [])
    with pytest.raises(ValueError, match="room"):
        _emit.merge_cuts(
            np.empty(1), np.zeros(1, np.uint8), 0, False, np.array([0.0, 1.0]),
            np.zeros(1, np.int32), 0, np.zeros(0), 0, np.zeros(0), np.zeros(0, np.uint8), 0,
            1.0, True, True,
        )  # fmt: skip


# --- parts and evaluation -----------------------------------------------------------------


def random_phases(rng, m=40):
    """Phases of constant jerk that join up; some stand still."""
    t, s, v, a, j = [0.0], [0.0], [0.0], [], []
    move = []
    for i in range(m):
        dt = 10.0 ** rng.uniform(-5, -1)
        if rng.random() < 0.15 and v[-1] < 1e-9:
            a0, j0, number = 0.0, 0.0, -1
        else:
            a0, j0, number = rng.uniform(0, 300), rng.choice([0.0, rng.uniform(-3e3, 3e3)]), i
            if v[-1] + a0 * dt + j0 * dt * dt / 2 < 0 or a0 + j0 * dt < 0:
                j0 = 0.0
        v0 = v[-1]
        t.append(t[-1] + dt)
        s.append(s[-1] + v0 * dt + a0 * dt * dt / 2 + j0 * dt**3 / 6)
        v.append(v0 + a0 * dt + j0 * dt * dt / 2)
        a.append(a0)
        j.append(j0)
        move.append(number)
    columns = [np.array(x, float) for x in (t, s, v, a, j)]
    return (*columns, np.array(move, np.int32))


@pytest.mark.parametrize("seed", range(8))
def test_parts_keep_every_bound_and_no_more_than_needed(seed):
    rng = np.random.default_rng(seed)
    t, _, v, _, j, move = random_phases(rng)
    longest = 10.0 ** rng.uniform(-4, 0, len(move))
    nominal = rng.uniform(1.0, 60.0, len(move))
    cut = np.unique(np.round(np.concatenate([t, rng.uniform(0, t[-1], 30)]), 6))
    cut = cut[(cut >= t[0]) & (cut <= t[-1])]
    parts, phase = _emit.count_parts(
        cut, t, v, j, move, longest, nominal, 0.02, 0.1, 3.0, 0.0005
    )  # fmt: skip
    for i in range(len(cut) - 1):
        middle = 0.5 * (cut[i] + cut[i + 1])
        p = int(phase[i])
        assert t[p] <= middle <= t[p + 1]
        if move[p] < 0:
            bound = 0.1
        else:
            fastest = max(v[p], v[p + 1]) + abs(j[p]) * (t[p + 1] - t[p]) ** 2 / 8
            bound = min(0.02, longest[p], 3.0 / max(fastest, 1e-9))
            if j[p]:
                bound = min(bound, math.sqrt(12 * 0.0005 * nominal[p] / abs(j[p])))
        span = cut[i + 1] - cut[i]
        assert span / parts[i] <= bound * (1 + 1e-8)
        assert parts[i] == 1 or span / (parts[i] - 1) > bound * (1 - 1e-8)


@pytest.mark.parametrize("seed", range(8))
def test_ends_are_evaluated_on_the_cubic_itself(seed):
    rng = np.random.default_rng(seed + 50)
    t, s, v, a, j, move = random_phases(rng)
    nominal = rng.uniform(1.0, 60.0, len(move))
    cut = np.sort(np.concatenate([t, rng.uniform(0, t[-1], 30)]))
    flags = rng.integers(0, 2, len(cut)).astype(np.uint8) * (GATE | TRACK)
    free = np.full(len(move), np.inf)
    parts, phase = _emit.count_parts(cut, t, v, j, move, free, nominal, 0.005, 0.1, 1e9, 0.0005)
    total = int(parts.sum())
    at, way, speed, nom, fl = _emit.evaluate(
        cut, flags, parts, phase, t, s, v, a, j, move, nominal, total
    )
    assert len(at) == total + 1
    k = 0
    for i in range(len(cut) - 1):
        for part in range(int(parts[i])):
            want = cut[i] + (cut[i + 1] - cut[i]) * (part + 1) / parts[i]
            k += 1
            assert at[k] == round(want * 1e6) * 1e-6
            p = min(max(int(np.searchsorted(t, want)) - 1, 0), len(move) - 1)
            tau = at[k] - t[p]
            where = s[p] + tau * v[p] + tau**2 * a[p] / 2 + tau**3 * j[p] / 6
            assert way[k] == pytest.approx(where, abs=1e-9)
            assert speed[k] == pytest.approx(
                max(v[p] + tau * a[p] + tau**2 * j[p] / 2, 0), abs=1e-3
            )
            flag = int(flags[i]) if part == 0 else int(flags[i]) & ~TRACK
            assert fl[k - 1] == flag | (DWELL if move[phase[i]] < 0 else 0)
            assert nom[k - 1] == nominal[phase[i]]
    assert abs(way[-1] - s[-1]) <= 0.5e-6 * v[-1]
    with pytest.raises(ValueError, match="expected"):
        _emit.evaluate(cut, flags, parts, phase, t, s, v, a, j, move, nominal, total + 1)


# --- steps --------------------------------------------------------------------------------


def random_corners(seed, n=50):
    rng = np.random.default_rng(seed)
    step = rng.normal(size=(n, 3)) * 10.0 ** rng.uniform(-3, 1.3, (n, 1))
    points = np.concatenate([np.zeros((1, 3)), np.cumsum(step, axis=0)])
    length = np.linalg.norm(step, axis=1)
    return points, np.concatenate([[0.0], np.cumsum(length)])


def placed(points, corner, s, per_mm, origin):
    steps = np.empty((len(s), 3), np.int64)
    _emit.place(points, corner, s, np.array(per_mm), np.array(origin), steps)
    return steps


@pytest.mark.parametrize("seed", range(4))
def test_positions_are_rounded_each_on_its_own(seed):
    points, corner = random_corners(seed)
    s = np.sort(np.concatenate([corner, np.random.default_rng(0).uniform(0, corner[-1], 500)]))
    steps = placed(points, corner, s, [400.0, 160.0, 80.0], [-5.0, 0.0, 3.0])
    for i, value in enumerate(s):
        k = min(max(int(np.searchsorted(corner, value)) - 1, 0), len(corner) - 2)
        f = (value - corner[k]) / (corner[k + 1] - corner[k])
        want = points[k] + f * (points[k + 1] - points[k])
        exact = (want - [-5.0, 0.0, 3.0]) * [400.0, 160.0, 80.0]
        assert np.abs(steps[i] - exact).max() <= 0.5 + 1e-6
    at_corner = np.searchsorted(s, corner)
    want = np.rint((points - [-5.0, 0.0, 3.0]) * [400.0, 160.0, 80.0])
    np.testing.assert_array_equal(steps[at_corner], want)
    # from any place on the same
    for start in (1, 17, 300, len(s) - 1):
        np.testing.assert_array_equal(
            placed(points, corner, s[start:], [400.0, 160.0, 80.0], [-5.0, 0.0, 3.0]), steps[start:]
        )


def test_place_refuses_other_axes_and_shapes():
    points, corner = random_corners(0)
    with pytest.raises(ValueError, match="3 values"):
        placed(points, corner, corner, [1.0, 1.0], [0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="differ"):
        placed(points[1:], corner, corner, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0])


# --- wire bytes ---------------------------------------------------------------------------


def packed(t, s, v, steps, nominal, flags, nodes=((0.0,), (0.0,)), params=((), ())):
    out = np.zeros((len(flags) + len(params[0]), 22), np.uint8)
    begin = np.zeros(len(out), np.int64)
    rows = np.frombuffer(b"".join(params[1]), np.uint8).reshape(-1, 22)
    used, n_params = _emit.pack_segments(
        np.asarray(t, float), np.asarray(s, float), np.asarray(v, float),
        np.asarray(steps, np.int64), np.asarray(nominal, float), np.asarray(flags, np.uint8),
        np.asarray(nodes[0], float), np.asarray(nodes[1], float),
        np.asarray(params[0], np.int64), rows, out, begin, 32767, 0xFFFFFF,
    )  # fmt: skip
    return out[:used].tobytes(), begin[:used].tolist(), n_params


@pytest.mark.parametrize("axes", [3, 5, 6])
def test_bytes_agree_with_struct_on_random_rows(axes):
    rng = np.random.default_rng(axes)
    k = 300
    t = np.concatenate([[0.5], 0.5 + np.cumsum(rng.uniform(1e-5, 0.3, k))])
    s, v = np.cumsum(rng.uniform(0, 1, k + 1)), rng.uniform(0, 50, k + 1)
    steps = np.cumsum(rng.integers(-3000, 3000, (k + 1, axes)), axis=0)
    nominal, flags = rng.uniform(30, 60, k), rng.integers(0, 8, k)
    nodes = np.sort(rng.uniform(0.0, t[-1] + 1, 40)), rng.uniform(-0.1, 1.1, 40)
    data, begin, _ = packed(t, s, v, steps, nominal, flags, nodes)
    tick = [round(x * 1e6) for x in t]
    assert begin == tick[:-1]
    for i in range(k):
        got = struct.unpack_from("<6hHHHHBB", data, 22 * i)
        d = (steps[i + 1] - steps[i]).tolist() + [0] * (6 - axes)
        assert list(got[:6]) == d
        mean = (s[i + 1] - s[i]) / (t[i + 1] - t[i])
        ratio = 1.0 - (v[i + 1] - v[i]) / (2.0 * mean)
        assert abs(got[6] - min(max(ratio * 32768, 0), 65535)) <= 0.51
        share = min(max(float(np.interp(t[i + 1], *nodes)), 0.0), 1.0)
        assert abs(got[7] - share * 65535) <= 0.51
        assert abs(got[8] - min(v[i + 1] / nominal[i] * 32768, 65535)) <= 0.51
        assert got[9] + 65536 * got[10] == tick[i + 1] - tick[i]
        assert got[11] == flags[i]


def test_ratio_is_exact_for_a_ramp_and_even_at_both_ends_under_jerk():
    def ratio(v0, a, j, T):
        s = v0 * T + a * T * T / 2 + j * T**3 / 6
        v1 = v0 + a * T + j * T * T / 2
        data, *_ = packed([0, T], [0, s], [v0, v1], [[0, 0, 0], [9, 0, 0]], [50.0], [0])
        return struct.unpack_from("<H", data, 12)[0] / 32768, s / T, v1

    r, mean, _ = ratio(10.0, 1500.0, 0.0, 0.01)
    assert r * mean == pytest.approx(10.0, abs=mean / 65536)
    r, mean, v1 = ratio(10.0, 500.0, 40_000.0, 0.002)
    at_start, at_end = r * mean - 10.0, (2.0 - r) * mean - v1
    assert at_start == pytest.approx(-40_000.0 * 0.002**2 / 12, abs=mean / 32768)
    assert at_end == pytest.approx(-40_000.0 * 0.002**2 / 12, abs=mean / 32768)
    assert ratio(0.0, 0.0, 1000.0, 0.01)[0] == 0.0  # from rest: below 0 does not exist


def test_of_two_nodes_at_one_instant_the_later_counts_from_there():
    data, *_ = packed(
        [0.0, 0.1, 0.2, 0.3], [0, 1, 2, 3], [9.0] * 4, np.zeros((4, 3)), [9.0] * 3, [0] * 3,
        nodes=((0.0, 0.1, 0.1, 0.3), (0.0, 0.25, 0.5, 1.0)),
    )  # fmt: skip
    powers = [struct.unpack_from("<H", data, 22 * i + 14)[0] for i in range(3)]
    assert powers == [round(65535 * x) for x in (0.5, 0.75, 1.0)]


def test_parameter_rows_go_before_the_segment_that_begins_at_their_tick():
    rows = [bytes([i]) * 22 for i in (1, 2, 3)]
    data, begin, used = packed(
        [0.0, 0.01, 0.02], [0, 1, 2], [9.0] * 3, np.zeros((3, 3)), [9.0] * 2, [0, 0],
        params=((0, 10_000, 20_000), rows),
    )  # fmt: skip
    assert used == 2  # the third waits for the segment that begins at 20 ms
    assert begin == [0, 0, 10_000, 10_000]
    assert data[:22] == rows[0]
    assert data[44:66] == rows[1]


def test_segment_that_does_not_fit_is_refused():
    steps, zero = np.array([[0, 0, 0], [40000, 0, 0]]), [0.0, 0.0]
    with pytest.raises(ValueError, match="32767 steps"):
        packed([0.0, 1.0], zero, zero, steps, [1.0], [0])
    with pytest.raises(ValueError, match="ticks"):
        packed([0.0, 17.0], zero, zero, steps * 0, [1.0], [0])
    with pytest.raises(ValueError, match="ticks"):
        packed([0.0, 1e-7], zero, zero, steps * 0, [1.0], [0])
    with pytest.raises(ValueError, match="axes"):
        packed([0.0, 1.0], zero, zero, np.zeros((2, 7)), [1.0], [0])


# --- frames -------------------------------------------------------------------------------


def test_frame_of_the_document():
    rows = np.frombuffer(DOCUMENT_FRAME[12:-4], np.uint8).reshape(-1, 22)
    assert _emit.frame_segments(rows, 7, 0x1234ABCE).tobytes() == DOCUMENT_FRAME


@pytest.mark.parametrize("n", [0, 1, 2, 19, 20, 21, 40, 59, 1000])
def test_frames_are_read_by_the_documents_decoder(n):
    rng = np.random.default_rng(n)
    rows = rng.integers(0, 256, (n, 22)).astype(np.uint8)
    first_index, first_sequence = 0xFFFFFFF0, 0xFFFFFFFE  # both wrap
    data = _emit.frame_segments(rows, first_index, first_sequence).tobytes()
    reader = protocol_reader.Reader()
    frames = reader.feed(data)
    assert reader.dropped == 0
    assert len(frames) == math.ceil(n / 20)
    assert b"".join(f.payload[4:] for f in frames) == rows.tobytes()
    for i, f in enumerate(frames):
        assert f.name == "SEGMENTS"
        assert f.number == (first_sequence + i) % 2**32
        assert struct.unpack_from("<I", f.payload)[0] == (first_index + 20 * i) % 2**32


def test_checksum_is_that_of_zlib_for_every_frame_length():
    rng = np.random.default_rng(1)
    for n in range(1, 21):
        data = _emit.frame_segments(rng.integers(0, 256, (n, 22)).astype(np.uint8), 5, 9).tobytes()
        assert len(data) == 16 + 22 * n
        assert struct.unpack_from("<I", data, len(data) - 4)[0] == zlib.crc32(data[:-4])


def test_frames_of_other_rows_are_refused():
    with pytest.raises(ValueError, match="needed 22"):
        _emit.frame_segments(np.zeros((3, 21), np.uint8), 0, 0)

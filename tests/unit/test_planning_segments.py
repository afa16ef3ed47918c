"""Finished segments, read from their bytes by a decoder of the test's own."""

import math
from bisect import bisect_right

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.model import TrackKind
from controller.planning.light.power import solve_gates
from controller.planning.motion.laws import plan_profile
from controller.planning.motion.profile import MotionLimits
from controller.planning.path.motion_path import build_path
from controller.planning.powder import priming_dwell_s
from tests.unit.planning_cases import (
    CELL,
    RECIPE,
    Decoded,
    cell_with,
    plan,
    recipe_with,
    small_tracks,
    track,
)


def float_plan(tracks, made):
    """The float profile and gates that the segments stand for."""
    path = build_path(tracks, RECIPE, CELL)
    profile = plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(CELL))
    profile = profile.after_dwell(made.meta["priming_dwell_s"])
    return path, profile, solve_gates(path, profile, CELL.laser)


class Law:
    """The profile and the power law in plain Python."""

    def __init__(self, path, profile, gates):
        self.t, self.v = profile.t_s.tolist(), profile.v_mm_s.tolist()
        self.s, self.a = profile.s_mm.tolist(), profile.a_mm_s2.tolist()
        self.beads, self.gates = path.beads, gates

    def motion(self, t):
        i = min(max(bisect_right(self.t, t) - 1, 0), len(self.a) - 1)
        tau = t - self.t[i]
        return self.s[i] + self.v[i] * tau + self.a[i] * tau * tau / 2, self.v[i] + self.a[i] * tau

    def power_w(self, t, bead):
        s, v = self.motion(t)
        row = self.beads[bead]
        law = 150.0 + (600.0 - 150.0) * v / float(row["speed_mm_s"])
        share = min(1.0, (s - self.gates.s_on_mm[bead]) / 0.8,
                    (self.gates.s_off_mm[bead] - s) / 0.8)  # fmt: skip
        return 150.0 + (law - 150.0) * share


def zigzag():
    """Corners inside ramps and outside, a curve, and a short bead."""
    turn = np.linspace(0, math.pi, 30)
    return [
        track([(140, 145), (140.4, 145), (140.6, 145.5), (143, 145.2), (143.2, 146), (144, 146)]),
        track(np.column_stack([150 + np.cos(turn), 150 + np.sin(turn)]), 0, TrackKind.THIN_WALL),
        track([(150, 148), (151, 148)]),
    ]


def test_steps_at_every_segment_end_are_the_rounded_position():
    tracks = small_tracks()
    made = plan(tracks)
    path, profile, _ = float_plan(tracks, made)
    moving = made.segments[(made.segments["flags"] & 8) == 0]
    ticks = moving["ticks_lo"].astype(int) + (moving["ticks_hi"].astype(int) << 16)
    end_s = np.cumsum(ticks) * 1e-6
    steps = np.cumsum(moving["steps"].astype(np.int64), axis=0)
    s, _, _ = profile.state_at(end_s)
    k = np.clip(np.searchsorted(profile.move_s_mm, s) - 1, 0, len(path.speed_mm_s) - 1)
    f = (s - profile.move_s_mm[k]) / np.diff(profile.move_s_mm)[k]
    where = path.points_mm[k] + f[:, None] * np.diff(path.points_mm, axis=0)[k]
    assert np.abs(steps[:, :3] - where * 400.0).max() <= 0.5 + 1e-6
    assert not steps[:, 3:].any()


def test_every_corner_is_hit_to_the_step():
    tracks = small_tracks()
    made = plan(tracks)
    path = build_path(tracks, RECIPE, CELL)
    reached = np.cumsum(made.segments["steps"].astype(int), axis=0)[:, :3]
    for corner in path.points_mm * 400.0:
        # taken at the nearest tick: at 60 mm/s 0.012 steps from it
        assert np.abs(reached - corner).max(axis=1).min() <= 0.5 + 0.02
    total = made.segments["steps"].astype(int).sum(axis=0)
    np.testing.assert_array_equal(total[:3], np.rint(path.points_mm[-1] * 400.0))


def test_duration_does_not_drift_from_the_profile():
    made = plan()
    decoded = Decoded(made.segments.tobytes())
    _, profile, _ = float_plan(small_tracks(), made)
    assert abs(decoded.end_us - profile.duration_s * 1e6) <= 0.5
    assert made.figures["duration_s"] == decoded.end_us * 1e-6


@pytest.mark.slow
def test_decoded_power_follows_the_law_of_the_planned_speed_at_10_us():
    tracks = zigzag()
    made = plan(tracks)
    law = Law(*float_plan(tracks, made))
    decoded = Decoded(made.segments.tobytes())
    worst = 0.0
    for bead in range(len(tracks)):
        t, end = law.gates.on_s[bead], law.gates.off_s[bead]
        mark, joule, wanted_j = law.gates.s_on_mm[bead], 0.0, 0.0
        while t < end:
            _, _, share, _ = decoded.at((t - 0.003) * 1e6)  # the source answers 3 ms later
            want = law.power_w(t, bead)
            worst = max(worst, abs(share * 1000.0 - want))
            joule, wanted_j = joule + share * 1e-2, wanted_j + want * 1e-5
            if law.motion(t)[0] >= mark + 0.1:
                assert joule == pytest.approx(wanted_j, rel=2e-3)
                mark, joule, wanted_j = mark + 0.1, 0.0, 0.0
            t += 10e-6
    assert 0.0 < worst <= 0.0005 * 1000.0  # 0.05 % of full power
    assert made.figures["max_power_error_w"] <= worst + 1e-6


@pytest.mark.slow
def test_decoded_motion_follows_the_profile_at_10_us():
    tracks = zigzag()
    made = plan(tracks)
    path, profile, gates = float_plan(tracks, made)
    decoded = Decoded(made.segments.tobytes())
    t = np.arange(gates.on_s[0], gates.off_s[0], 10e-6)
    s, v, _ = profile.state_at(t)
    k = np.clip(np.searchsorted(profile.move_s_mm, s) - 1, 0, len(path.speed_mm_s) - 1)
    unit = np.diff(path.points_mm, axis=0)[k] / np.diff(profile.move_s_mm)[k][:, None]
    want = (path.points_mm[k] + (s - profile.move_s_mm[k])[:, None] * unit) * 400.0
    got = [decoded.at(x * 1e6) for x in t]
    error = np.array([p[:3] for p, _, _, _ in got]) - want
    assert np.abs(error).max() <= 1.0  # steps: half a step at each end of a segment
    speed = np.linalg.norm([r[:3] for _, r, _, _ in got], axis=1) / 400.0
    assert np.abs(np.mean(speed - v)) < 0.01


def test_gate_edges_are_within_a_tick_of_the_solved_instants():
    tracks = small_tracks()
    made = plan(tracks)
    path, profile, gates = float_plan(tracks, made)
    edges = np.array(Decoded(made.segments.tobytes()).gate_edges_us())
    assert edges.shape == (len(gates.on_s), 2)
    law = Law(path, profile, gates)

    def solved_us(s_mm):
        """Instant at which the path length is reached, by halving; 100 us of source latency."""
        low, high = 0.0, profile.duration_s
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if law.motion(middle)[0] < s_mm else (low, middle)
        return low * 1e6 - 100.0

    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path.points_mm, axis=0),
                                                             axis=1))])  # fmt: skip
    for (on, off), bead in zip(edges, path.beads, strict=True):
        assert abs(on - solved_us(length[bead["first_move"]])) <= 1.0
        assert abs(off - solved_us(length[bead["end_move"]])) <= 1.0
    np.testing.assert_allclose(made.tracks["start_s"] * 1e6, edges[:, 0], atol=1e-3)
    np.testing.assert_allclose(made.tracks["end_s"] * 1e6, edges[:, 1], atol=1e-3)


def test_kink_of_power_one_tick_from_a_gate_edge_does_not_move_the_edge():
    near = cell_with(('power_latency = "3 ms"', 'power_latency = "0.101 ms"'))
    made = plan(cell=near)
    path = build_path(small_tracks(), RECIPE, near)
    profile = plan_profile(path.points_mm, path.speed_mm_s, MotionLimits.of_cell(near))
    gates = solve_gates(path, profile.after_dwell(made.meta["priming_dwell_s"]), near.laser)
    edges = np.array(Decoded(made.segments.tobytes()).gate_edges_us())
    np.testing.assert_array_equal(edges[:, 0], np.rint(gates.on_command_s * 1e6))
    np.testing.assert_array_equal(edges[:, 1], np.rint(gates.off_command_s * 1e6))


def test_flags_mark_starts_dwell_and_end():
    made = plan()
    flags = made.segments["flags"]
    assert (np.flatnonzero(flags & 0x04) == made.tracks["first_segment"]).all()
    assert np.flatnonzero(flags & 0x10).tolist() == [len(flags) - 1]
    for row in made.tracks:
        inside = flags[row["first_segment"] : row["end_segment"]]
        assert (inside & 0x01).all()
        assert not flags[row["first_segment"] - 1] & 0x01
        assert not flags[row["end_segment"]] & 0x01
    dwell = made.segments[(flags & 0x02) != 0]
    assert len(dwell) > 0
    assert not dwell["steps"].any()
    assert not (dwell["flags"] & 0x01).any()
    ticks = dwell["ticks_lo"].astype(int) + (dwell["ticks_hi"].astype(int) << 16)
    assert ticks.max() <= 100_000
    assert ticks.sum() * 1e-6 == pytest.approx(made.meta["priming_dwell_s"], abs=2e-6)
    assert priming_dwell_s(1e9, CELL.powder) == 0.0


def test_moving_segments_last_20_ms_at_most_and_fit_their_fields():
    made = plan()
    moving = made.segments[(made.segments["flags"] & 0x0A) == 0]
    ticks = moving["ticks_lo"].astype(int) + (moving["ticks_hi"].astype(int) << 16)
    assert ticks.max() <= 20_001
    assert ticks.min() >= 1


def test_fine_steps_shorten_the_segments():
    fine = cell_with(('steps = "400 1/mm"', 'steps = "40000 1/mm"'))
    made = plan(cell=fine)
    assert np.abs(made.segments["steps"].astype(int)).max() <= 32767


def test_floor_is_told_at_the_start_and_when_it_changes():
    made = plan()
    assert Decoded(made.segments.tobytes()).params == [(0, round(0.15 * 65535), round(0.7 * 32768))]
    other = recipe_with(("[track.thin_wall]\n", '[track.thin_wall]\npower_floor = "200 W"\n'))
    made = plan(recipe=other)
    decoded = Decoded(made.segments.tobytes())
    assert [p[1] for p in decoded.params] == [round(x * 65535) for x in (0.15, 0.2, 0.15, 0.2)]
    for at, _, _ in decoded.params:
        assert not decoded.at(at + 0.5)[3] & 1  # gate closed
    flags = made.segments["flags"]
    assert (np.flatnonzero(flags & 0x04) == made.tracks["first_segment"]).all()
    for row in made.tracks:
        assert (flags[row["first_segment"] : row["end_segment"]] & 1).all()


def test_end_speed_is_the_share_of_nominal():
    made = plan([track([(140, 145), (150, 145)])])
    row = made.tracks[0]
    inside = made.segments[row["first_segment"] : row["end_segment"]]["end_speed"]
    assert np.abs(inside.astype(int) - 32768).max() <= 1
    assert made.segments["end_speed"][-1] == 0


def test_same_input_gives_the_same_bytes():
    assert plan().segments.tobytes() == plan().segments.tobytes()


point = st.tuples(st.floats(130, 170), st.floats(130, 170))
kinds = st.sampled_from([TrackKind.CONTOUR, TrackKind.HATCH, TrackKind.THIN_WALL])


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.lists(point, min_size=2, max_size=8), kinds), min_size=1, max_size=5))
def test_random_builds_never_open_the_gate_at_standstill(shapes):
    tracks = []
    for points, kind in shapes:
        if max(math.dist(points[0], p) for p in points) < 1e-3:
            points = [points[0], (points[0][0] + 1.0, points[0][1])]
        tracks.append(track(points, 0, kind))
    made = plan(tracks)
    path, profile, gates = float_plan(tracks, made)
    decoded = Decoded(made.segments.tobytes())
    edges = decoded.gate_edges_us()
    assert len(edges) == len(gates.on_s)
    np.testing.assert_allclose(edges, np.column_stack([gates.on_command_s, gates.off_command_s])
                               * 1e6, atol=1.0)  # fmt: skip
    # never still with the gate open: at edges and at every kink between them
    for on, off in edges:
        t = np.concatenate(
            [
                [on * 1e-6, off * 1e-6],
                profile.t_s[(profile.t_s > on * 1e-6) & (profile.t_s < off * 1e-6)],
            ]
        )
        assert profile.state_at(t)[1].min() > 0.0
    assert decoded.end_steps[:3] == tuple(np.rint(path.points_mm[-1] * 400).astype(int))
    assert made.figures["max_power_error_w"] <= 0.5

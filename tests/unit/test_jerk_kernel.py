"""The jerk kernel against a plain-Python twin, and what it refuses."""

import numpy as np
import pytest

from controller import _jerk
from tests.unit.jerk_twin import Twin


def random_path(seed):
    """Lengths, accelerations, cruise and corner speeds of a random path; jerk."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    length = 10 ** rng.uniform(*[(-3, 1), (-2, 0), (-1, -0.9)][seed % 3], n)
    accel = np.full(n, 10 ** rng.uniform(2, 4)) if seed % 2 else 10 ** rng.uniform(2, 4, n)
    cruise = np.full(n, 50.0) if seed % 5 else 10 ** rng.uniform(0, 2, n)
    corner = np.concatenate([[0.0], 10 ** rng.uniform(0, 2, n - 1), [0.0]])
    corner[1:-1] = np.minimum(corner[1:-1], np.minimum(cruise[:-1], cruise[1:]))
    return length, accel, cruise, corner, 10 ** rng.uniform(3, 6)


@pytest.mark.parametrize("block", range(20))
def test_kernel_agrees_with_plain_python_twin(block):
    # duration within 1e-9 of itself; speeds at corners within 1e-7 of the fastest one: at a
    # soft corner a root that differs by rounding moves speeds by its square root
    for seed in range(10 * block, 10 * block + 10):
        length, accel, cruise, corner, jerk = random_path(seed)
        start, end = (0.0, 0.0) if seed % 4 else (30.0, 20.0)
        twin = Twin(length.tolist(), accel.tolist(), cruise.tolist(), corner.tolist(), jerk,
                    start, end)  # fmt: skip
        t, s, v, _, _, _, _ = _jerk.jerk_phases(
            length, accel, cruise, corner, cruise, jerk, 0.0005, start, end
        )
        assert t[-1] == pytest.approx(twin.duration_s, rel=1e-9), f"seed {seed}"
        at = np.cumsum(length)[:-1]
        ours = v[np.searchsorted(s, at, side="right") - 1]
        theirs = [twin.speed_at(x) for x in at.tolist()]
        np.testing.assert_allclose(ours, theirs, atol=1e-7 * cruise.max(), err_msg=f"seed {seed}")
        assert v[0] == pytest.approx(twin.anchors[0][1], rel=1e-9, abs=1e-12), f"seed {seed}"
        assert v[-1] == pytest.approx(twin.anchors[-1][1], rel=1e-9, abs=1e-12), f"seed {seed}"


def one_move(**change):
    """Arguments of a path of one move of 10 mm."""
    row = {
        "length_mm": [10.0], "accel_mm_s2": [2000.0], "cruise_mm_s": [50.0],
        "corner_mm_s": [0.0, 0.0], "nominal_mm_s": [50.0], "jerk_mm_s3": 50_000.0,
    }  # fmt: skip
    return row | change


def test_one_move_is_the_s_curve_computed_by_hand():
    # a^2 / j = 80 > 50 mm/s: jerk alone. Ramp 2 sqrt(50 / 50000) s, 1.5811 mm each; between
    # them (10 - 3.1623) / 50 s
    t, s, v, a, j, move, longest = _jerk.jerk_phases(**one_move())
    ramp = 2.0 * np.sqrt(1e-3)
    assert np.diff(t) == pytest.approx([ramp / 2, ramp / 2, 0.2 - ramp, ramp / 2, ramp / 2])
    assert v == pytest.approx([0, 25, 50, 50, 25, 0], abs=1e-9)
    assert a == pytest.approx([0, 50_000 * ramp / 2, 0, 0, -50_000 * ramp / 2], abs=1e-9)
    assert list(j) == [5e4, -5e4, 0.0, -5e4, 5e4]
    assert s[[0, 2, 3, 5]] == pytest.approx([0, 25 * ramp, 10 - 25 * ramp, 10])
    assert list(move) == [0] * 5
    # a straight ramp over h leaves v0 + j t^2 / 2 by j h^2 / 8, at most 0.0005 x 50 mm/s
    assert longest == pytest.approx([2e-3, 2e-3, np.inf, 2e-3, 2e-3])


def test_acceleration_limit_makes_a_ramp_of_three_pieces():
    # a^2 / j = 0.8 mm/s is less than 50: 4 ms of jerk, then 200 mm/s2 are kept
    t, _, v, a, j, _, _ = _jerk.jerk_phases(**one_move(accel_mm_s2=[200.0], length_mm=[20.0]))
    assert np.diff(t)[:3] == pytest.approx([0.004, 0.25 - 0.004, 0.004])
    assert v[:4] == pytest.approx([0.0, 0.4, 49.6, 50.0])
    assert a[:3] == pytest.approx([0.0, 200.0, 200.0])
    assert list(j[:3]) == [5e4, 0.0, -5e4]


def test_start_speed_that_cannot_be_braked_is_lowered():
    # from v to rest in 0.1 mm: v sqrt(v / j) = 0.1 -> v^3 = 500
    _, _, v, _, _, _, _ = _jerk.jerk_phases(**one_move(length_mm=[0.1]), start_mm_s=40.0)
    assert v[0] == pytest.approx(500 ** (1 / 3))
    assert v[-1] == 0.0


def test_end_speed_out_of_reach_is_lowered():
    _, _, v, _, _, _, _ = _jerk.jerk_phases(**one_move(length_mm=[0.1]), end_mm_s=40.0)
    assert v[0] == 0.0
    assert v[-1] == pytest.approx(500 ** (1 / 3))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"length_mm": [np.nan]}, "length_mm nan at index 0: must be finite and not below 0"),
        ({"length_mm": [-1.0]}, "length_mm -1.0 at index 0"),
        ({"accel_mm_s2": [0.0]}, "accel_mm_s2 0.0 at index 0: must be finite and above 0"),
        ({"cruise_mm_s": [np.inf]}, "cruise_mm_s inf at index 0"),
        ({"corner_mm_s": [0.0, np.nan]}, "corner_mm_s nan at index 1"),
        ({"nominal_mm_s": [0.0]}, "nominal_mm_s 0.0 at index 0"),
        ({"jerk_mm_s3": 0.0}, "jerk_mm_s3 0.0: must be finite and above 0"),
        ({"jerk_mm_s3": np.inf}, "jerk_mm_s3 inf"),
        ({"jerk_mm_s3": np.nan}, "jerk_mm_s3 nan"),
        ({"bend": 0.0}, "bend 0.0"),
        ({"start_mm_s": np.nan}, "end speeds nan, 0.0 mm/s"),
        ({"end_mm_s": -1.0}, "end speeds 0.0, -1.0 mm/s"),
        ({"corner_mm_s": [0.0]}, "corner_mm_s 1: needed n >= 1"),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(change, text):
    with pytest.raises(ValueError, match="^.*" + text.replace(".", r"\.")):
        _jerk.jerk_phases(**one_move(**change))


def test_times_within_phases_match_the_polynomial():
    rng = np.random.default_rng(5)
    n = 2000
    v, last = rng.uniform(0, 50, n), rng.uniform(1e-6, 0.05, n)
    j = rng.choice([-5e4, 5e4], n)
    a = -0.5 * j * last + rng.uniform(-1, 1, n) * v / last * 0.5  # speed stays >= 0
    v += np.abs(j) * last**2 + np.abs(a) * last
    tau = rng.uniform(0, 1, n) * last
    way = tau * (v + tau * (0.5 * a + j * tau / 6.0))
    found = _jerk.times_within(way, v, a, j, last)
    np.testing.assert_allclose(found, tau, rtol=1e-12, atol=1e-15)

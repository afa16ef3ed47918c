"""The time law in the axes: against a plain twin, and against differences of positions."""

import math

import numpy as np
import pytest

from controller._joint_law import joint_law


def random_path(seed, m=60, axes=5):
    """Smooth random cubics: nodes, positions, slopes at both ends of each interval."""
    rng = np.random.default_rng(seed)
    h = rng.uniform(0.02, 0.3, m)
    s = np.concatenate([[0.0], np.cumsum(h)])
    size = 10.0 ** rng.uniform(-1, 1.3, axes)
    wave = rng.uniform(0.2, 2.0, (axes, 3)), rng.uniform(0, 6.3, (axes, 3))
    phase = s[:, None, None] * wave[0] + wave[1]
    q = (np.sin(phase)).sum(-1) * size
    slope = (np.cos(phase) * wave[0]).sum(-1) * size
    speed = rng.uniform(5, 60, m)
    rest = np.zeros(m + 1, bool)
    rest[[0, m]] = True
    rest[rng.integers(1, m, 2)] = True
    v_axis, a_axis = rng.uniform(20, 200, axes), rng.uniform(200, 3000, axes)
    return s, q, slope[:-1], slope[1:], speed, rest, v_axis, a_axis


def twin(s, q, m0, m1, speed, rest, v_axis, a_axis, total, along):
    """The same in plain Python: rules in (w0, w1), backward and forward pass by bisection."""
    m, axes = len(s) - 1, q.shape[1]

    def rules(i):
        h = s[i + 1] - s[i]
        cap, lines, vectors = speed[i] ** 2, [], []
        bernstein = []
        for k in range(axes):
            p0, p2 = m0[i, k], m1[i, k]
            p1 = 3 * (q[i + 1, k] - q[i, k]) / h - p0 - p2
            r0, r1 = 2 * (p1 - p0) / h, 2 * (p2 - p1) / h
            cap = min(cap, (v_axis[k] / max(abs(p0), abs(p1), abs(p2), 1e-300)) ** 2)
            g = 0.5 / h
            rows = [(r0 - p0 * g, p0 * g), (0.5 * r1 - p1 * g, 0.5 * r0 + p1 * g),
                    (-p2 * g, r1 + p2 * g)]  # fmt: skip
            bernstein.append(rows)
            lines += [(a, b, a_axis[k]) for a, b in rows]
        for j in range(3):
            vectors.append([bernstein[k][j] for k in range(3)])
        return cap, lines, vectors, 2 * h * along

    def allowed(rule, w0, w1):
        _, lines, vectors, step = rule
        if abs(w1 - w0) > step * (1 + 1e-12):
            return False
        if any(abs(a * w0 + b * w1) > limit * (1 + 1e-9) for a, b, limit in lines):
            return False
        return all(
            math.sqrt(sum((a * w0 + b * w1) ** 2 for a, b in v)) <= total * (1 + 1e-9)
            for v in vectors
        )

    def span(rule, w0, most):
        """[low, high] of w1 by the rules' own lines."""
        _, lines, vectors, step = rule
        low, high = max(0.0, w0 - step), min(most, w0 + step)
        for a, b, limit in lines:
            if abs(b) < 1e-30:
                if abs(a * w0) > limit:
                    return None
                continue
            x, y = sorted(((limit - a * w0) / b, (-limit - a * w0) / b))
            low, high = max(low, x), min(high, y)
        for v in vectors:
            aa = sum(b * b for _, b in v)
            bb = w0 * sum(a * b for a, b in v)
            cc = w0 * w0 * sum(a * a for a, _ in v) - total * total
            if bb * bb - aa * cc < 0:
                return None
            root = math.sqrt(bb * bb - aa * cc) / aa
            low, high = max(low, -bb / aa - root), min(high, -bb / aa + root)
        return (low, high) if low <= high else None

    all_rules = [rules(i) for i in range(m)]
    most = np.zeros(m + 1)
    for i in range(m - 1, -1, -1):
        cap = all_rules[i][0]
        if rest[i]:
            continue
        good, bad = 0.0, cap
        if span(all_rules[i], cap, min(most[i + 1], cap)) is not None:
            good = cap
        else:
            for _ in range(70):
                w = 0.5 * (good + bad)
                if span(all_rules[i], w, min(most[i + 1], cap)) is None:
                    bad = w
                else:
                    good = w
        most[i] = good
    w = np.zeros(m + 1)
    for i in range(m):
        high = 0.0 if rest[i + 1] else min(most[i + 1], all_rules[i][0])
        found = span(all_rules[i], w[i], high)
        w[i + 1] = min(w[i], high) if found is None else found[1]
        assert allowed(all_rules[i], w[i], w[i + 1]) or found is None
    return np.sqrt(w)


@pytest.mark.parametrize("seed", range(12))
def test_kernel_agrees_with_plain_twin_on_random_paths(seed):
    print("seed", seed)
    path = random_path(seed)
    v = joint_law(*path, 1600.0, 1600.0)
    expected = twin(*path, 1600.0, 1600.0)
    assert v.max() > 1.0
    np.testing.assert_allclose(v, expected, rtol=1e-6, atol=1e-6)


def positions(s, q, m0, m1, v, i, tau):
    """Axes at instants ``tau`` (n,) after the start of interval i."""
    h = s[i + 1] - s[i]
    a = (v[i + 1] ** 2 - v[i] ** 2) / (2 * h)
    x = ((v[i] + 0.5 * a * tau) * tau / h)[:, None]
    b0, b3 = q[i], q[i + 1]
    b1, b2 = b0 + m0[i] * h / 3, b3 - m1[i] * h / 3
    return b0 * (1 - x) ** 3 + 3 * b1 * x * (1 - x) ** 2 + 3 * b2 * x * x * (1 - x) + b3 * x**3


@pytest.mark.parametrize("seed", range(100, 112))
def test_no_axis_leaves_its_limits_between_nodes_either(seed):
    print("seed", seed)
    path = random_path(seed)
    s, q, m0, m1, speed, rest, v_axis, a_axis = path
    total = 1600.0
    v = joint_law(*path, total, total)
    assert (v[rest] == 0.0).all()
    worst = 0.0
    for i in range(len(s) - 1):
        if v[i] + v[i + 1] == 0.0:
            continue
        assert max(v[i], v[i + 1]) <= speed[i] * (1 + 1e-12)
        t = 2 * (s[i + 1] - s[i]) / (v[i] + v[i + 1])
        h = t / 60
        p = positions(s, q, m0, m1, v, i, np.linspace(0, t, 61))
        accel = (p[2:] - 2 * p[1:-1] + p[:-2]) / h**2
        rate = np.abs(p[2:] - p[:-2]) / (2 * h)
        noise = 1e-14 * np.abs(q).max() * 4 / h**2 / a_axis.min()
        worst = max(worst, (np.abs(accel) / a_axis).max() - noise, (rate / v_axis).max())
        worst = max(worst, np.linalg.norm(accel[:, :3], axis=1).max() / total - noise)
    assert 0.9 < worst <= 1.001


def test_straight_path_in_one_axis_is_a_trapezoid():
    s = np.linspace(0.0, 20.0, 2001)
    q = np.zeros((2001, 4))
    q[:, 0] = s
    slope = np.zeros((2000, 4))
    slope[:, 0] = 1.0
    rest = np.zeros(2001, bool)
    rest[[0, -1]] = True
    v = joint_law(
        s, q, slope, slope, np.full(2000, 50.0), rest, [100.0] * 4, [1000.0] * 4, 5e3, 5e3
    )
    expected = np.minimum(50.0, np.sqrt(2000.0 * np.minimum(s, 20.0 - s)))
    np.testing.assert_allclose(v, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"speed": 0.0}, "speed_mm_s 0.0 at index 3"),
        ({"speed": np.nan}, "speed_mm_s nan at index 3"),
        ({"axes": np.inf}, "axes are not finite"),
        ({"s": 0.0}, "does not rise"),
        ({"accel": 0.0}, "axis_accel 0.0 at index 2"),
    ],
)
def test_broken_input_is_refused_by_name(change, named):
    s, q, m0, m1, speed, rest, v_axis, a_axis = (np.array(x) for x in random_path(1))
    if "speed" in change:
        speed[3] = change["speed"]
    if "axes" in change:
        q[4, 1] = change["axes"]
    if "s" in change:
        s[5] = s[4]
    if "accel" in change:
        a_axis[2] = change["accel"]
    with pytest.raises(ValueError, match=named):
        joint_law(s, q, m0, m1, speed, rest, v_axis, a_axis, 1e3, 1e3)

"""The friction-circle planner in plain Python, piece by piece, for the kernel's tests.

Written from the mathematics: angles by atan2, reachable speeds by the quadratic formula, axis
shares from the unit normal of each corner. Only for paths of straight moves without repeats.
"""

import math

INF = math.inf


def _unit(a, b):
    d = [q - p for p, q in zip(a, b, strict=True)]
    n = math.sqrt(sum(x * x for x in d))
    return [x / n for x in d], n


def _cross(a, b):
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def _norm(a):
    return math.sqrt(sum(x * x for x in a))


def round_corners(points, tolerance, enough):
    """Radius (0: sharp, inf: no turn), half arc length, straight rest; lists."""
    n = len(points) - 1
    units, lengths = zip(*(_unit(points[i], points[i + 1]) for i in range(n)), strict=True)
    radius, half, touch = [INF] * (n + 1), [0.0] * (n + 1), [0.0] * (n + 1)
    for i in range(1, n):
        u, w = units[i - 1], units[i]
        turn = math.atan2(_norm(_cross(u, w)), sum(p * q for p, q in zip(u, w, strict=True)))
        e = min(0.5 * lengths[i - 1], 0.5 * lengths[i], enough * math.tan(turn / 2))
        if turn > 0.0:
            e = min(e, tolerance / math.tan(turn / 4))
        r = e / math.tan(turn / 2) if turn > 0.0 else INF
        if r <= 1e-5:
            radius[i] = 0.0
            continue
        radius[i], touch[i] = r, e
        half[i] = r * turn / 2 if turn > 0.0 else e
    return radius, half, [max(lengths[i] - touch[i] - touch[i + 1], 0.0) for i in range(n)]


def _reach(w0, length, radius, accel):
    """Greatest w1 with ((w1 - w0) / 2L)^2 + (w1 / r)^2 <= a^2."""
    if length == 0.0:
        return w0
    k2 = 0.0 if radius == INF else 1.0 / radius**2
    q = 4.0 * length * length
    a, b, c = 1.0 + q * k2, -2.0 * w0, w0 * w0 - q * accel * accel
    return (-b + math.sqrt(max(b * b - 4.0 * a * c, 0.0))) / (2.0 * a)


def plan(points, speed, tolerance, enough, accel, axis_speed, axis_accel, start=0.0, end=0.0):
    """Squared speeds (3 n + 1) and duration, s."""
    n = len(points) - 1
    units = [_unit(points[i], points[i + 1])[0] for i in range(n)]
    radius, half, middle = round_corners(points, tolerance, enough)
    pieces = []  # length, radius, accel, squared speed limit
    cap = [INF] * (3 * n + 1)
    for i in range(n):
        for corner, arc in ((i, True), (None, False), (i + 1, True)):
            if not arc:
                share = [max(abs(x), 1e-30) for x in units[i]]
                length, r = middle[i], INF
            else:
                length, r = half[corner], radius[corner]
                if length == 0.0:
                    pieces.append((0.0, INF, accel, 0.0 if r == 0.0 else INF, INF))
                    continue
                u, w = units[corner - 1], units[corner]
                normal = _cross(u, w)
                sine = _norm(normal)
                bend = [max(abs(a), abs(b)) for a, b in zip(u, w, strict=True)]
                cosine = _norm([a + b for a, b in zip(u, w, strict=True)]) / 2
                bend = [max(x / cosine, 1e-30) for x in bend]
                if sine > 1e-8:
                    plane = [math.sqrt(max(1 - (x / sine) ** 2, 1e-30)) for x in normal]
                else:
                    plane = bend
            if arc:
                a = min([accel, *(x / s for x, s in zip(axis_accel, plane, strict=True))])
                fast = min(x / min(s, t) for x, s, t in zip(axis_speed, plane, bend, strict=True))
                own = min(a * r, fast * fast)
            else:
                a = min([accel, *(x / s for x, s in zip(axis_accel, share, strict=True))])
                own = INF
            pieces.append((length, r, a, own, INF))
        v = min(
            [speed[i], *(x / max(abs(u), 1e-30) for x, u in zip(axis_speed, units[i], strict=True))]
        )
        for k in range(3):
            length, r, a, own, _ = pieces[3 * i + k]
            pieces[3 * i + k] = (length, r, a, min(own, v * v), v * v)
    for k, (_, _, _, own, _) in enumerate(pieces):
        cap[k], cap[k + 1] = min(cap[k], own), min(cap[k + 1], own)
    w = list(cap)
    w[-1] = min(end * end, w[-1])
    for k in range(3 * n - 1, -1, -1):
        w[k] = min(w[k], _reach(w[k + 1], *pieces[k][:3]))
    w[0] = min(start * start, w[0])
    for k in range(3 * n):
        w[k + 1] = min(w[k + 1], _reach(w[k], *pieces[k][:3]))
    total = 0.0
    for k, (length, r, a, _, v2) in enumerate(pieces):
        b, e = math.sqrt(w[k]), math.sqrt(w[k + 1])
        if length == 0.0:
            continue
        if r != INF or k % 3 != 1:
            total += 2.0 * length / (b + e)
            continue
        p = math.sqrt(max(min(v2, 0.5 * (w[k] + w[k + 1]) + a * length), w[k], w[k + 1]))
        rest = length - (2 * p * p - w[k] - w[k + 1]) / (2 * a)
        total += (2 * p - b - e) / a + max(rest, 0.0) / p
    return w, total

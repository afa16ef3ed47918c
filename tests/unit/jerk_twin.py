"""The jerk-limited time law in plain Python: same anchors, roots by halving alone."""

from math import inf, sqrt


def ramp_s(low, high, a, j):
    """Least time from one speed to a higher one, acceleration 0 at both ends."""
    dv = high - low
    if dv <= 0.0:
        return 0.0
    return 2.0 * sqrt(dv / j) if dv * j <= a * a else dv / a + a / j


def ramp_mm(low, high, a, j):
    """Way of the same."""
    return 0.5 * (low + high) * ramp_s(low, high, a, j)


def halve(good, low, high):
    """Greatest x in low..high with good(x), good(low) taken for granted."""
    if good(high):
        return high
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


def speed_on_ramp(low, high, way, a, j):
    """Speed after a way on the ramp from low to high, by walking its three pieces."""
    total = ramp_s(low, high, a, j)
    if way >= ramp_mm(low, high, a, j):
        return high
    bent = min(a / j, 0.5 * total)

    def at(t):
        if t <= bent:
            return low + 0.5 * j * t * t, low * t + j * t**3 / 6.0
        if t >= total - bent:
            u = total - t
            return high - 0.5 * j * u * u, ramp_mm(low, high, a, j) - high * u + j * u**3 / 6.0
        v, s = at(bent)
        u = t - bent
        return v + j * bent * u, s + v * u + 0.5 * j * bent * u * u

    return at(halve(lambda t: at(t)[1] <= way, 0.0, total))[0]


def lowered(low, c, way, target, a, j):
    """Greatest target whose ramp is not above c after ``way``."""
    if c >= target:
        return target
    high = min(target, low + 1.001 * max(2.0 * (c - low), (c - low) + a * a / j))
    if speed_on_ramp(low, high, way, a, j) <= c * (1.0 + 1e-12):
        return target
    return halve(lambda u: speed_on_ramp(low, u, way, a, j) <= c, c, high)


class Twin:
    """Anchors (s, v, corner or -1, first corner beyond) and the stretches between them."""

    def __init__(self, length, accel, cruise, corner, jerk, start=0.0, end=0.0):
        self.accel, self.cruise, self.jerk = accel, cruise, jerk
        self.n = len(length)
        self.s = [0.0]
        for d in length:
            self.s.append(self.s[-1] + d)
        self.corner = list(corner)
        self.corner[-1] = min(end, cruise[-1])
        self.anchors = self.backward(self.forward(min(start, cruise[0])))
        pairs = zip(self.anchors[:-1], self.anchors[1:], strict=True)
        self.ways = [self.between(p, q) for p, q in pairs]
        self.duration_s = sum(way[-1] for way in self.ways)

    def reach(self, v, way, a):
        """Greatest speed reached from v within a way."""
        high = v + a * sqrt(2.0 * way / a) + way * self.jerk + a * a / self.jerk + 1.0
        high = min(high, v + 2.0 * sqrt(2.0 * a * way) + 2.0 * a * way / max(v, 1e-9) + 1e-9)
        return halve(lambda u: ramp_mm(v, u, a, self.jerk) <= way, v, high)

    def forward(self, start):
        """Corners that a rise from the left reaches."""
        j, s, v, u, a = self.jerk, 0.0, start, inf, inf
        found = [(s, v, 0, 1)]
        for k in range(1, self.n + 1):
            c = self.corner[k]
            a = min(a, self.accel[k - 1])
            if v < c and u < c and ramp_mm(v, u, a, j) < self.s[k] - s:
                s, v = s + ramp_mm(v, u, a, j), u
                found.append((s, v, -1, k))
                u, a = inf, self.accel[k - 1]
            if c > v:
                way = self.s[k] - s
                if ramp_mm(v, min(c, u), a, j) <= way:
                    c = min(c, u)
                elif k == self.n:
                    c = min(c, u, self.reach(v, way, a))
                else:
                    u = lowered(v, c, way, u, a, j)
                    continue
            s, v, u, a = self.s[k], c, inf, inf
            found.append((s, v, k, k + 1))
        return found

    def backward(self, found):
        """Of those, the ones from which a fall reaches the next."""
        j = self.jerk
        s, v, corner, after = found[-1]
        kept, u, a = [found[-1]], inf, inf
        for i in range(len(found) - 2, -1, -1):
            last = (corner if corner >= 0 else after) - 1
            p_s, p_v, corner, after = found[i]
            # soft corners from right to left, then the anchor itself
            for m in [*range(last, after - 1, -1), None]:
                at = p_s if m is None else self.s[m]
                own = self.accel[after - 1 if m is None else m]
                a = min(a, own)
                if u < p_v and ramp_mm(v, u, a, j) < s - at:
                    s, v = s - ramp_mm(v, u, a, j), u
                    kept.append((s, v, -1, after if m is None else m + 1))
                    u, a = inf, own
                c = 0.0 if m is None else self.corner[m]
                if c > v and ramp_mm(v, c, a, j) > s - at:
                    u = lowered(v, c, s - at, u, a, j)
            c = p_v
            if p_v > v and (u < p_v or ramp_mm(v, p_v, a, j) > s - p_s):
                if i > 0:
                    if corner >= 0 and self.corner[corner] > v:
                        u = lowered(v, self.corner[corner], s - p_s, u, a, j)
                    continue
                c = min(p_v, u, self.reach(v, s - p_s, a))
            s, v, u, a = p_s, c, inf, inf
            kept.append((s, v, corner, after))
        return kept[::-1]

    def between(self, p, q):
        """Peak, accelerations of rise and fall, lengths of both, time."""
        j, first, total = self.jerk, p[3] - 1, q[0] - p[0]
        last = (q[2] if q[2] >= 0 else q[3]) - 1
        moves = range(first, last + 1)
        a = min(self.accel[m] for m in moves)
        high = max(p[1], q[1])
        rise_a = fall_a = a
        need = ramp_mm(min(p[1], q[1]), high, a, j)
        if need >= total:
            peak = high
            if need > total * (1.0 + 1e-9):
                rise_a = fall_a = self.alone(p, q, moves)
        else:
            most = self.reach(high, total, a)
            peak = halve(
                lambda x: ramp_mm(p[1], x, a, j) + ramp_mm(q[1], x, a, j) <= total, high, most
            )
            x, m = p[0] + ramp_mm(p[1], peak, a, j), first
            if peak > min(self.cruise[m] for m in moves):
                while m < last and self.s[m + 1] < x:
                    m += 1
                peak = max(high, min(peak, self.cruise[m]))
            for m in range(p[3], last + 1):
                c = self.corner[m]
                if c >= peak:
                    continue
                x = self.s[m] - p[0]
                if x < ramp_mm(p[1], peak, a, j):
                    peak = lowered(p[1], c, x, peak, a, j) if c > p[1] else peak
                elif total - x < ramp_mm(q[1], peak, a, j):
                    peak = lowered(q[1], c, total - x, peak, a, j) if c > q[1] else peak
                else:
                    peak = c
                peak = max(peak, high)
        rise, fall = ramp_mm(p[1], peak, rise_a, j), ramp_mm(q[1], peak, fall_a, j)
        time = ramp_s(p[1], peak, rise_a, j) + ramp_s(q[1], peak, fall_a, j)
        rest = total - rise - fall
        if rest > 0.0 and peak > 0.0:
            time += rest / peak
        return peak, rise_a, fall_a, rise, fall, time

    def alone(self, p, q, moves):
        """The least acceleration of the moves that a single ramp runs on."""
        a, up = inf, q[1] > p[1]
        low, high = sorted((p[1], q[1]))
        for m in moves if up else reversed(moves):
            a = min(a, self.accel[m])
            way = self.s[m + 1] - p[0] if up else q[0] - self.s[m]
            if ramp_mm(low, high, a, self.jerk) <= way:
                break
        return a

    def speed_at(self, s):
        """Speed at a length along the path."""
        k = max(i for i, row in enumerate(self.anchors[:-1]) if row[0] <= s)
        p, q = self.anchors[k], self.anchors[k + 1]
        peak, rise_a, fall_a, rise, fall, _ = self.ways[k]
        if s - p[0] < rise:
            return speed_on_ramp(p[1], peak, s - p[0], rise_a, self.jerk)
        if q[0] - s < fall:
            return speed_on_ramp(q[1], peak, q[0] - s, fall_a, self.jerk)
        return peak

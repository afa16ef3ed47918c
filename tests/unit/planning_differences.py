"""Speed and acceleration of a plan by differences of places; shares nothing with the planner."""

import numpy as np


def places_of(profile, t_s):
    """(k, 3) places at instants, from the phases' own numbers, one phase at a time."""
    i = np.clip(np.searchsorted(profile.t_s, t_s, side="right") - 1, 0, len(profile.a_mm_s2) - 1)
    tau = t_s - profile.t_s[i]
    s = profile.s_mm[i] + tau * (profile.v_mm_s[i] + 0.5 * tau * profile.a_mm_s2[i])
    return profile.curve.axes_at(np.maximum.accumulate(np.minimum(s, profile.s_mm[-1])))


def worst(profile, step_s=2e-5, chunk=200_000):
    """Greatest speed and acceleration, total and per axis: v, a, (3,) v, (3,) a."""
    count = int(profile.duration_s / step_s)
    fast, hard = np.zeros(4), np.zeros(4)
    for first in range(0, count, chunk):
        t = np.arange(first, min(first + chunk + 2, count + 1)) * step_s
        x = places_of(profile, t)
        v = np.diff(x, axis=0) / step_s
        a = np.diff(x, n=2, axis=0) / step_s**2
        for into, d in ((fast, v), (hard, a)):
            if len(d):
                into[0] = max(into[0], np.sqrt((d * d).sum(axis=1)).max())
                into[1:] = np.maximum(into[1:], np.abs(d).max(axis=0))
    return fast[0], hard[0], fast[1:], hard[1:]


def distance_to_polyline(places, points, nearby=None):
    """(k,) distance of each place from the nearest of all moves."""
    a, b = points[:-1], points[1:]
    ab = b - a
    length2 = np.maximum((ab * ab).sum(axis=1), 1e-300)
    out = np.empty(len(places))
    for k, p in enumerate(places):
        share = np.clip(((p - a) * ab).sum(axis=1) / length2, 0.0, 1.0)
        out[k] = np.sqrt((((a + share[:, None] * ab) - p) ** 2).sum(axis=1).min())
    return out

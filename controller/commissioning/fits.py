"""From readings to values: pure functions, one a kind, least squares with honest uncertainty.

Each takes the rows that ``kinds`` names for it and returns (values, uncertainty), both by the
names of the table; an uncertainty is one standard deviation, from the scatter about the fit.
Raises CommissioningError when the rows cannot hold the answer.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from controller.errors import CommissioningError

Row = Sequence[Any]
Found = tuple[dict[str, float], dict[str, float]]
_NOTHING = 1e-300


def _numbers(rows: Sequence[Row], columns: int, least: int, what: str) -> np.ndarray:
    """(n, columns) float64. Raises CommissioningError: too few rows, or no finite numbers."""
    try:
        found = np.array([[float(v) for v in row] for row in rows], np.float64)
    except (TypeError, ValueError):
        raise CommissioningError(f"{what}: a reading is no number") from None
    if len(found) < least:
        raise CommissioningError(f"{what}: {len(found)} readings, at least {least} are needed")
    if found.ndim != 2 or found.shape[1] != columns or not np.isfinite(found).all():
        raise CommissioningError(f"{what}: a reading is not {columns} finite numbers")
    return found


def _least_squares(
    a: np.ndarray, b: np.ndarray, what: str, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Solution of a x = b, (k,), and its covariance (k, k) from the residuals."""
    w = np.ones(len(b)) if weights is None else weights
    aw, bw = a * w[:, None], b * w
    if len(b) <= a.shape[1]:
        raise CommissioningError(f"{what}: {len(b)} readings for {a.shape[1]} unknowns")
    size = np.linalg.norm(aw, axis=0)
    if (size < _NOTHING).any():
        raise CommissioningError(f"{what}: the readings do not differ in what they depend on")
    scaled = aw / size
    if np.linalg.cond(scaled) > 1e9:
        raise CommissioningError(f"{what}: the readings do not differ in what they depend on")
    x, *_ = np.linalg.lstsq(scaled, bw, rcond=None)
    residual = bw - scaled @ x
    variance = float(residual @ residual) / (len(b) - a.shape[1])
    covariance = variance * np.linalg.inv(scaled.T @ scaled)
    return x / size, covariance / np.outer(size, size)


def _line(x: np.ndarray, y: np.ndarray, what: str) -> tuple[float, float, float, float]:
    """Slope and offset of y = slope x + offset, with their uncertainties."""
    solved, cov = _least_squares(np.column_stack([x, np.ones_like(x)]), y, what)
    return float(solved[0]), float(solved[1]), math.sqrt(cov[0, 0]), math.sqrt(cov[1, 1])


def _newton(
    residual: Callable[[np.ndarray], np.ndarray], start: Sequence[float], what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Nonlinear least squares by Levenberg-Marquardt, numeric Jacobian; (x, covariance)."""
    x, damping = np.array(start, np.float64), 1e-3
    r = residual(x)
    for _ in range(200):
        h = 1e-6 * np.maximum(np.abs(x), 1e-3)
        jac = np.column_stack(
            [
                (residual(x + e) - residual(x - e)) / (2 * s)
                for e, s in zip(np.diag(h), h, strict=True)
            ]
        )
        normal = jac.T @ jac
        step = np.linalg.lstsq(
            normal + damping * np.diag(np.diag(normal) + _NOTHING), -jac.T @ r, rcond=None
        )[0]
        tried = residual(x + step)
        if np.isfinite(tried).all() and tried @ tried <= r @ r:
            small = bool((np.abs(step) < 1e-10 * (np.abs(x) + 1e-6)).all())
            x, r, damping = x + step, tried, max(damping / 5, 1e-12)
            if small:
                break
        else:
            damping *= 4
            if damping > 1e12:
                break
    if len(r) <= len(x) or np.linalg.matrix_rank(jac) < len(x):
        raise CommissioningError(f"{what}: the readings do not hold {len(x)} unknowns")
    return x, float(r @ r) / (len(r) - len(x)) * np.linalg.inv(jac.T @ jac)


def _pair(names: Sequence[str], x: np.ndarray, cov: np.ndarray) -> Found:
    return (
        {n: float(v) for n, v in zip(names, x, strict=True)},
        {n: math.sqrt(max(0.0, float(v))) for n, v in zip(names, np.diag(cov), strict=True)},
    )


def feeder(rows: Sequence[Row]) -> Found:
    """Weighed runs (rpm, s, g): flow = k rpm (1 + c rpm). Weighted by the time weighed."""
    r = _numbers(rows, 3, 4, "feeder")
    if (r <= 0.0).any():
        raise CommissioningError("feeder: speed, time and mass of a run must be above 0")
    rpm, flow = r[:, 0], r[:, 2] / r[:, 1] * 60.0
    # the balance errs by a mass, so the flow by that over the time
    x, cov = _least_squares(np.column_stack([rpm, rpm**2]), flow, "feeder", weights=r[:, 1])
    k, c = float(x[0]), float(x[1] / x[0])
    to_c = np.array([-c / k, 1.0 / k])
    return {"g_min_per_rpm": k, "curvature_per_rpm": c}, {
        "g_min_per_rpm": math.sqrt(cov[0, 0]),
        "curvature_per_rpm": math.sqrt(float(to_c @ cov @ to_c)),
    }


def delay(rows: Sequence[Row]) -> Found:
    """One step of the feeder at t = 0, weighed under the nozzle (s, g).

    The mass is that of a flow through a delay and a first-order lag:
    m = m0 + q (u - lag (1 - exp(-u / lag))), u = t - delay, after the delay; m0 before.
    """
    r = _numbers(rows, 2, 20, "delay")
    t, mass = r[:, 0], r[:, 1]
    last = t > t[0] + 0.7 * (t[-1] - t[0])
    q, offset, _, _ = _line(t[last], mass[last], "delay")
    if q <= 0.0 or mass[last].mean() - mass[:5].mean() <= 0.0:
        raise CommissioningError("delay: the balance shows no powder arriving")
    m0 = float(mass[:5].mean())
    arrives = (m0 - offset) / q  # delay + lag

    def model(x: np.ndarray) -> np.ndarray:
        u = np.maximum(t - x[0], 0.0)
        lag = max(abs(float(x[1])), 1e-4)
        out: np.ndarray = x[3] + x[2] * (u - lag * (1.0 - np.exp(-u / lag))) - mass
        return out

    x, cov = _newton(model, (0.85 * arrives, 0.15 * arrives, q, m0), "delay")
    if not 0.0 <= x[0] < t[-1]:
        raise CommissioningError(f"delay: {x[0]:.3g} s lies outside of what was recorded")
    x[1] = abs(x[1])
    found, sigma = _pair(("transport_delay_s", "lag_s", "q", "m0"), x, cov)
    # the scatter of a logged balance hangs together from sample to sample: count every fourth
    keep = ("transport_delay_s", "lag_s")
    return {n: found[n] for n in keep}, {n: 2.0 * sigma[n] for n in keep}


def power(rows: Sequence[Row]) -> Found:
    """Set against measured power (W, W): measured = offset + slope set (1 + c set)."""
    r = _numbers(rows, 2, 5, "power")
    p, m = r[:, 0], r[:, 1]
    if (m <= 0.0).any():
        raise CommissioningError("power: no light at one of the set powers")
    # a power meter errs by a share of what it reads
    a = np.column_stack([np.ones_like(p), p, p**2])
    x, cov = _least_squares(a, m, "power", weights=1.0 / m)
    slope, c = float(x[1]), float(x[2] / x[1])
    to_c = np.array([0.0, -c / slope, 1.0 / slope])
    centre = np.array([0.0, 1.0, 2.0 * float(p.mean())])  # slope where the readings are
    return {"slope": slope, "offset_w": float(x[0]), "curvature_per_w": c}, {
        "slope": math.sqrt(float(centre @ cov @ centre)),
        "offset_w": math.sqrt(cov[0, 0]),
        "curvature_per_w": math.sqrt(float(to_c @ cov @ to_c)),
    }


def power_at(values: dict[str, float], set_w: float | np.ndarray) -> float | np.ndarray:
    """Power at the work, W, that a set power gives after the calibration."""
    return values["offset_w"] + values["slope"] * set_w * (1.0 + values["curvature_per_w"] * set_w)


def gate(rows: Sequence[Row]) -> Found:
    """Pairs of edges (``gate`` | ``power``, commanded at, light at; us): median and half width."""
    values: dict[str, float] = {}
    sigma: dict[str, float] = {}
    for signal in ("gate", "power"):
        pairs = [row[1:] for row in rows if row[0] == signal]
        r = _numbers(pairs, 2, 8, f"gate: edges of {signal}")
        late = (r[:, 1] - r[:, 0]) * 1e-6
        if (late < 0.0).any() or (late > 1.0).any():
            raise CommissioningError(f"gate: {signal} answers before its command, or 1 s after it")
        values[f"{signal}_latency_s"] = float(np.median(late))
        values[f"{signal}_jitter_s"] = float(late.max() - late.min()) / 2.0
        sigma[f"{signal}_latency_s"] = 1.2533 * float(late.std(ddof=1)) / math.sqrt(len(late))
        sigma[f"{signal}_jitter_s"] = float(late.std(ddof=1)) / math.sqrt(len(late))
    return values, sigma


def axis(rows: Sequence[Row]) -> Found:
    """Places approached from both sides (axis, commanded mm, +1 | -1, measured mm)."""
    values: dict[str, float] = {}
    sigma: dict[str, float] = {}
    for name in ("x", "y", "z"):
        mine = [row[1:] for row in rows if str(row[0]).lower() == name]
        r = _numbers(mine, 3, 6, f"axis {name}")
        a = np.column_stack([r[:, 0], np.ones(len(r)), np.sign(r[:, 1]) / 2.0])
        x, cov = _least_squares(a, r[:, 2], f"axis {name}")
        # approached from below the slide lags by half the play, from above it leads
        values[f"scale_{name}"], values[f"backlash_{name}_mm"] = float(x[0]), float(-x[2])
        sigma[f"scale_{name}"] = math.sqrt(cov[0, 0])
        sigma[f"backlash_{name}_mm"] = math.sqrt(cov[2, 2])
    return values, sigma


def centring(rows: Sequence[Row]) -> Found:
    """Burn marks and powder spots (spot x y, jet x y; mm): mean offset of the spot."""
    r = _numbers(rows, 4, 3, "centring")
    off = r[:, :2] - r[:, 2:]
    mean, dev = off.mean(0), off.std(0, ddof=1) / math.sqrt(len(off))
    names = ("offset_x_mm", "offset_y_mm")
    return dict(zip(names, map(float, mean), strict=True)), dict(
        zip(names, map(float, dev), strict=True)
    )


def tool_centre(rows: Sequence[Row]) -> Found:
    """Touches on a sphere (x, y, z; mm): its centre."""
    r = _numbers(rows, 3, 6, "tool_centre")
    a = np.column_stack([2.0 * r, np.ones(len(r))])
    x0, _ = _least_squares(a, (r**2).sum(1), "tool_centre")
    start = [*x0[:3], math.sqrt(max(0.0, float(x0[3] + x0[:3] @ x0[:3])))]
    x, cov = _newton(
        lambda v: np.asarray(np.linalg.norm(r - v[:3], axis=1) - v[3]), start, "tool_centre"
    )
    found, sigma = _pair(("tool_x_mm", "tool_y_mm", "tool_z_mm", "radius"), x, cov)
    return {k: found[k] for k in list(found)[:3]}, {k: sigma[k] for k in list(sigma)[:3]}


def rotary(rows: Sequence[Row]) -> Found:
    """One point seen at several angles (deg, u, v; mm): the centre that it turns about."""
    r = _numbers(rows, 3, 4, "rotary")
    angle = np.radians(r[:, 0])
    c, s, o, i = np.cos(angle), np.sin(angle), np.zeros(len(r)), np.ones(len(r))
    a = np.vstack([np.column_stack([i, o, c, -s]), np.column_stack([o, i, s, c])])
    x, cov = _least_squares(a, np.concatenate([r[:, 1], r[:, 2]]), "rotary")
    found, sigma = _pair(("centre_u_mm", "centre_v_mm", "a", "b"), x, cov)
    return {k: found[k] for k in list(found)[:2]}, {k: sigma[k] for k in list(sigma)[:2]}


def standoff(rows: Sequence[Row]) -> Found:
    """Touches on gauge blocks (height, z at touch; mm): z where a block of no height is."""
    r = _numbers(rows, 2, 3, "standoff")
    zero = r[:, 1] - r[:, 0]
    return {"zero_mm": float(zero.mean())}, {
        "zero_mm": float(zero.std(ddof=1)) / math.sqrt(len(zero))
    }


def focus(rows: Sequence[Row]) -> Found:
    """Diameter of the spot over z (mm, mm), as ISO 11146: d^2 = a + b z + c z^2."""
    r = _numbers(rows, 2, 5, "focus")
    z, d = r[:, 0], r[:, 1]
    middle = float(z.mean())
    if (d <= 0.0).any() or np.ptp(z) <= 0.0:
        raise CommissioningError("focus: diameters above 0 at several heights are needed")
    start = [float(d.min()), float(z[d.argmin()]), float(np.ptp(z)) / 2.0]

    def model(x: np.ndarray) -> np.ndarray:
        return np.asarray(x[0] * np.sqrt(1.0 + ((z - middle - x[1]) / x[2]) ** 2) / d - 1.0)

    start[1] -= middle
    x, cov = _newton(model, start, "focus")
    x[1] += middle
    x = np.array([abs(x[0]), x[1], abs(x[2])])
    if not z.min() <= x[1] <= z.max():
        raise CommissioningError(f"focus: the waist at {x[1]:.3g} mm lies outside of the readings")
    return _pair(("waist_diameter_mm", "focus_z_mm", "rayleigh_mm"), x, cov)


def gas(rows: Sequence[Row]) -> Found:
    """Set against measured flow (``carrier`` | ``shield``, L/min, L/min)."""
    values: dict[str, float] = {}
    sigma: dict[str, float] = {}
    for name in ("carrier", "shield"):
        r = _numbers([row[1:] for row in rows if row[0] == name], 2, 4, f"gas {name}")
        slope, offset, s_slope, s_offset = _line(r[:, 0], r[:, 1], f"gas {name}")
        values |= {f"{name}_slope": slope, f"{name}_offset_l_min": offset}
        sigma |= {f"{name}_slope": s_slope, f"{name}_offset_l_min": s_offset}
    return values, sigma


def oxygen(rows: Sequence[Row]) -> Found:
    """Analyser at zero gas and span gas (reference, reading; ppm)."""
    r = _numbers(rows, 2, 4, "oxygen")
    slope, offset, s_slope, s_offset = _line(r[:, 0], r[:, 1], "oxygen")
    return {"slope": slope, "offset_ppm": offset}, {"slope": s_slope, "offset_ppm": s_offset}


def camera(rows: Sequence[Row]) -> Found:
    """Marks of a target (x, y in pixels; x, y in mm): a turn, a scale and a shift."""
    r = _numbers(rows, 4, 3, "camera")
    x, y = r[:, 0], r[:, 1]
    o, i = np.zeros(len(r)), np.ones(len(r))
    a = np.vstack([np.column_stack([x, -y, i, o]), np.column_stack([y, x, o, i])])
    v, cov = _least_squares(a, np.concatenate([r[:, 2], r[:, 3]]), "camera")
    scale = math.hypot(v[0], v[1])
    return {"mm_per_px": scale, "angle_deg": math.degrees(math.atan2(v[1], v[0]))}, {
        "mm_per_px": math.sqrt(cov[0, 0]),
        "angle_deg": math.degrees(math.sqrt(cov[1, 1]) / scale),
    }


def pyrometer(rows: Sequence[Row]) -> Found:
    """Reference against reading (degC, degC), fitted in kelvin above 1000 degC."""
    r = _numbers(rows, 2, 4, "pyrometer")
    slope, offset, s_slope, s_offset = _line(r[:, 0] - 1000.0, r[:, 1] - 1000.0, "pyrometer")
    return {"slope": slope, "offset_k": offset}, {"slope": s_slope, "offset_k": s_offset}


# what the chain must show: step -> (door closed, interlock ok, reset needed)
DOOR_STEPS = {
    "closed": (1, 1, 0),
    "opened": (0, 0, 1),
    "closed again": (1, 0, 1),
    "reset": (1, 1, 0),
}


def door(rows: Sequence[Row]) -> Found:
    """The four steps of the test (step, door closed, interlock ok, reset needed), in order."""
    seen = [(str(r[0]), tuple(int(v) for v in r[1:])) for r in rows]
    if [s for s, _ in seen] != list(DOOR_STEPS):
        raise CommissioningError(f"door: the steps must be {', '.join(DOOR_STEPS)}")
    for step, got in seen:
        if got != DOOR_STEPS[step]:
            raise CommissioningError(
                f"door: FAILED at {step!r}: door closed, interlock ok, reset needed are {got}, "
                f"must be {DOOR_STEPS[step]}: do not use this cell"
            )
    return {"passed": 1.0}, {"passed": 0.0}


FITS: dict[str, Callable[[Sequence[Row]], Found]] = {
    f.__name__: f
    for f in (
        feeder, delay, power, gate, axis, centring, tool_centre, rotary, standoff, focus, gas,
        oxygen, camera, pyrometer, door,
    )
}  # fmt: skip

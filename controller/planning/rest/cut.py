"""A segment cut in two, so that the gate can open inside it: a linear speed ramp stays one."""

import numpy as np

from firmware_bridge.segments import RATIO_ONE, ticks_of

LEAST_PART_US = 500  # of either piece: nearer to an end there is no cut


def cut_tick(row: np.ndarray, at_us: float) -> int:
    """Where a segment may be cut, us into it: at or before ``at_us``; 0: at its start."""
    last = int(ticks_of(row)) - LEAST_PART_US
    at = min(int(at_us), last)
    return at if at >= LEAST_PART_US else 0


def cut(row: np.ndarray, at_us: int, power: float, speed: float) -> np.ndarray:
    """Two SEGMENT rows for one, the first of ``at_us``; steps and ticks add up exactly.

    Parameters
    ----------
    row : SEGMENT, of motion
    at_us : inside it
    power, speed : at its start: end_power and end_speed of the segment of motion before it

    The position at the cut is the one that the machine has there: ``round(d (r x + (1 - r) x^2))``
    (docs/protocol.md section 5.1).
    """
    ticks = int(ticks_of(row))
    assert 0 < at_us < ticks, (at_us, ticks)
    x = at_us / ticks
    ratio = float(row["start_ratio"]) / RATIO_ONE
    way = ratio * x + (1.0 - ratio) * x * x  # share of the segment's way
    at_cut = ratio + 2.0 * (1.0 - ratio) * x  # speed there / the segment's mean
    out = np.repeat(np.asarray(row).reshape(1), 2)
    steps = row["steps"].astype(np.int64)
    first = np.floor(steps * way + 0.5).astype(np.int64)
    out["steps"][0], out["steps"][1] = first, steps - first
    means = way / x, (1.0 - way) / (1.0 - x)
    for k, (begin, mean) in enumerate(zip((ratio, at_cut), means, strict=True)):
        word = round(begin / max(mean, 1e-12) * RATIO_ONE)
        out["start_ratio"][k] = min(max(word, 0), 2 * RATIO_ONE - 1)
    out["end_power"][0] = round(power + (float(row["end_power"]) - power) * x)
    out["end_speed"][0] = round(speed + (float(row["end_speed"]) - speed) * x)
    for k, own in enumerate((at_us, ticks - at_us)):
        out["ticks_lo"][k], out["ticks_hi"][k] = own & 0xFFFF, own >> 16
    return out

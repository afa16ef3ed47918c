"""Calibration of a powder hopper: flow against disc speed, as it was weighed."""

from itertools import pairwise

from firmware_bridge.errors import MapError
from firmware_bridge.register_map import RegisterMap


class FeedCurve:
    """Straight lines between weighed points, from the origin; beyond the last, its line goes on.

    Parameters
    ----------
    speeds_rpm, flows_g_min : equal lengths, above 0 and increasing

    Raises ValueError.
    """

    def __init__(self, speeds_rpm: tuple[float, ...], flows_g_min: tuple[float, ...]) -> None:
        if len(speeds_rpm) != len(flows_g_min) or not speeds_rpm:
            raise ValueError(f"has {len(speeds_rpm)} speeds and {len(flows_g_min)} flows")
        self.speeds_rpm, self.flows_g_min = (0.0, *speeds_rpm), (0.0, *flows_g_min)
        for points in (self.speeds_rpm, self.flows_g_min):
            for low, high in pairwise(points):
                if not low < high:
                    raise ValueError(f"must be above 0 and increase: {high:g} after {low:g}")

    def flow_g_min(self, speed_rpm: float) -> float:
        """Flow at a disc speed."""
        return _along(self.speeds_rpm, self.flows_g_min, speed_rpm)

    def speed_rpm(self, flow_g_min: float) -> float:
        """Disc speed for a flow."""
        return _along(self.flows_g_min, self.speeds_rpm, flow_g_min)


def _along(xs: tuple[float, ...], ys: tuple[float, ...], x: float) -> float:
    at = 1
    while at < len(xs) - 1 and x > xs[at]:
        at += 1
    return ys[at - 1] + (x - xs[at - 1]) * (ys[at] - ys[at - 1]) / (xs[at] - xs[at - 1])


def curves(map: RegisterMap) -> tuple[FeedCurve, ...]:
    """The curve of each hopper of a feeder's map, hopper 1 first.

    ``calibration.g_min_per_rpm`` is one number a hopper; a hopper that is not straight has
    ``hopperN_rpm`` and ``hopperN_g_min`` beside it, which then stand in its place.
    Raises MapError.
    """
    factors = map.calibration.get("g_min_per_rpm", ())
    if not 1 <= len(factors) <= 16 or min(factors) <= 0.0:
        raise MapError(f"{map.origin}: calibration.g_min_per_rpm must be 1 to 16 numbers above 0")
    known = {"g_min_per_rpm"}
    made = []
    for n, factor in enumerate(factors, start=1):
        names = f"hopper{n}_rpm", f"hopper{n}_g_min"
        known |= set(names)
        speeds, flows = (map.calibration.get(name, ()) for name in names)
        try:
            made.append(
                FeedCurve(speeds, flows) if speeds or flows else FeedCurve((1.0,), (factor,))
            )
        except ValueError as exc:
            raise MapError(f"{map.origin}: calibration.hopper{n}_rpm, _g_min: {exc}") from None
    for name in map.calibration:
        if name not in known:
            raise MapError(f"{map.origin}: calibration.{name}: unknown key")
    return tuple(made)

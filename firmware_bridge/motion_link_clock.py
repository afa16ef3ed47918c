"""Device clock to host clock: an offset with a stated bound (docs/protocol.md, section 9)."""

DRIFT_PPM = 100  # of both clocks against each other, at most
RESOLUTION_US = 1


class OffsetBounds:
    """o = host time - device time, from both sides.

    A frame with device time d that came at host time h says o <= h - d. A question sent at h
    whose answer shows d says o >= h - d. Bounds of the present and the last block count, each
    widened by the drift since; ``turn`` begins a new block.
    """

    def __init__(self) -> None:
        # (bound, host time at which it was found): this block's and the last one's
        self._upper: list[tuple[int, int] | None] = [None, None]
        self._lower: list[tuple[int, int] | None] = [None, None]

    def came(self, host_us: int, device_us: int) -> None:
        """A frame with a device time has come."""
        best = self._upper[0]
        if best is None or host_us - device_us <= best[0]:
            self._upper[0] = (host_us - device_us, host_us)

    def answered(self, asked_us: int, device_us: int) -> None:
        """The device answered at ``device_us`` what was asked at ``asked_us``."""
        best = self._lower[0]
        if best is None or asked_us - device_us >= best[0]:
            self._lower[0] = (asked_us - device_us, asked_us)

    def turn(self) -> None:
        """Begin a new block: the last but one is forgotten."""
        self._upper = [None, self._upper[0]]
        self._lower = [None, self._lower[0]]

    def offset(self, now_us: int) -> tuple[int, int] | None:
        """(offset, greatest error), us; None while a side is unknown or both disagree."""
        upper = [b + _drift(now_us - t) for b, t in filter(None, self._upper)]
        lower = [b - _drift(now_us - t) for b, t in filter(None, self._lower)]
        if not upper or not lower or min(upper) < max(lower):
            return None
        low, high = max(lower), min(upper)
        return (low + high) // 2, (high - low + 1) // 2 + RESOLUTION_US


def _drift(age_us: int) -> int:
    return -(-age_us * DRIFT_PPM // 1_000_000)

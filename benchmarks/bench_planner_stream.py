"""The planner as a stream: speed, memory, flatness from 10^5 to 10^7 moves, first segment."""

import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import paths
from benchmarks.measure import interleaved, row
from controller import _motion
from controller.planning.motion.lookahead import LookAhead, Phases
from controller.planning.motion.profile import MotionLimits
from controller.planning.stream import Scale, SegmentStream, Window
from firmware_bridge.segments import SEGMENT

AREA = "planner"
LIMITS = MotionLimits(
    paths.ACCEL_MM_S2, paths.JERK_MM_S3, paths.DEVIATION_MM, 0.01,
    np.array(paths.FREE), np.array(paths.FREE),
)  # fmt: skip
SCALE = Scale(np.array([400.0, 400.0, 400.0]), np.full(3, -1000.0))
MEMORY_GOAL_B, FLAT_GOAL = 64.0, 1.2
FIRST_MS, LAYER_MS = 1.0, 5.0
LENGTHS = (100_000, 1_000_000, 10_000_000)


def _stream_all(points: np.ndarray, speed: np.ndarray) -> float:
    """Plan and drop, as a consumer that sends what it gets; the duration."""
    plan = LookAhead(LIMITS, points[0])
    for _ in plan.stream(points[1:], speed):
        pass
    plan.finish()
    return plan.committed[0]


def _batch(points: np.ndarray, speed: np.ndarray) -> Any:
    return _motion.plan_trapezoid(
        points, speed, paths.ACCEL_MM_S2, paths.DEVIATION_MM, paths.FREE, paths.FREE
    )


def _speed() -> list[dict[str, Any]]:
    rows = []
    for name in ("b", "c"):
        points = paths.PATHS[name]()
        speed = np.full(len(points) - 1, paths.SPEED_MM_S)

        def at_once(points: np.ndarray = points, speed: np.ndarray = speed) -> Any:
            return _motion.trapezoid_phases(*_batch(points, speed)[:4])

        def stream(points: np.ndarray = points, speed: np.ndarray = speed) -> float:
            return _stream_all(points, speed)

        took = interleaved({"stream": stream, "at once": at_once})
        rows.append(
            row(
                AREA, f"look-ahead as a stream, path {name}", len(speed) / took["stream"],
                "moves/s", 20e6, rival="the same at once", ratio=took["at once"] / took["stream"],
                note="phases and corners included; the same bits for any division",
            )
        )  # fmt: skip
    return rows


def _peak_bytes(work: Callable[[], Any]) -> int:
    """Highest memory that a call held above what there was."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak


def _memory(points: np.ndarray, speed: np.ndarray) -> list[dict[str, Any]]:
    """``speed`` is input as well: 8 B a move, counted here as the planner's."""
    n = 1_000_000
    peak = _peak_bytes(lambda: _batch(points[: n + 1], speed[:n])) + 8 * n
    streamed = {
        m: _peak_bytes(lambda m=m: _stream_all(points[: m + 1], speed[:m])) for m in LENGTHS
    }
    return [
        row(
            AREA, "memory of a plan at once, beside 24 B a move of input", peak / n, "B/move",
            MEMORY_GOAL_B, at_most=True, note=f"{n} moves, speed limits and results",
        ),
        row(
            AREA, "memory of the stream, 10^7 moves", streamed[LENGTHS[-1]] / 1e6, "MB", 4.0,
            at_most=True, rival="10^5 moves",
            ratio=streamed[LENGTHS[-1]] / streamed[LENGTHS[0]],
            note="whole path, highest at any time; "
            + ", ".join(f"{b / m:.3g} B/move at {m:.0e}" for m, b in streamed.items()),
        ),
    ]  # fmt: skip


def _flatness(points: np.ndarray, speed: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for figure, work, goal in (
        ("stream", _stream_all, FLAT_GOAL),
        ("at once (memory new from the system each time)", _batch, None),
    ):
        works = {str(n): lambda n=n, work=work: work(points[: n + 1], speed[:n]) for n in LENGTHS}
        took = interleaved(works, rounds=7)
        each = {n: 1e9 * took[str(n)] / n for n in LENGTHS}
        rows.append(
            row(
                AREA, f"ns/move, most / least of 10^5 to 10^7, {figure}",
                max(each.values()) / min(each.values()), "x", goal, at_most=True,
                note=", ".join(f"{ns:.1f} ns at {n:.0e}" for n, ns in each.items()),
            )
        )  # fmt: skip
    return rows


def _window(piece: Phases, speed_mm_s: float) -> Window:
    """Phases for the segment stream: no power, no gate."""
    m = piece.size
    none = np.zeros(0)
    return Window(
        curve=piece.curve, t_s=piece.t_s, s_mm=piece.s_mm, v_mm_s=piece.v_mm_s,
        a_mm_s2=piece.a_mm_s2, j_mm_s3=np.zeros(m), move=piece.move,
        longest_s=np.full(m, np.inf), nominal_mm_s=np.full(m, speed_mm_s), node_s=none,
        node_share=none, edge_s=none, edge_on=np.zeros(0, np.uint8), param_s=none,
        param_rows=np.zeros(0, SEGMENT), known_s=float(piece.t_s[-1]),
    )  # fmt: skip


def _first_segments(points: np.ndarray, speed: np.ndarray) -> tuple[float, int]:
    """From the call to the first segments in hand: seconds, and how many."""
    begin = time.perf_counter()
    plan = LookAhead(LIMITS, points[0])
    piece = next(plan.stream(points[1:], speed))
    made = SegmentStream(SCALE).push(_window(piece, paths.SPEED_MM_S))
    return time.perf_counter() - begin, len(made.segments)


def _latency(points: np.ndarray, speed: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for n, goal, figure in (
        (512, FIRST_MS, "first segments after 512 moves"),
        (1_000_000, LAYER_MS, "first segments of a layer of 10^6 moves handed over at once"),
    ):
        runs = [_first_segments(points[: n + 1], speed[:n]) for _ in range(31)]
        took = [1e3 * t for t, _ in runs]
        if min(k for _, k in runs) < 1:
            raise RuntimeError(f"{figure}: no segment came out")
        rows.append(
            row(
                AREA, figure, statistics.median(took), "ms", goal, at_most=True,
                note=f"from the call: planned, committed, cut to {runs[0][1]} segments; "
                f"worst of {len(took)} {max(took):.2f} ms",
            )
        )  # fmt: skip
    return rows


def run() -> list[dict[str, Any]]:
    """All rows; the path is (b), layer upon layer."""
    points = paths.long_spiral(LENGTHS[-1])
    speed = np.full(LENGTHS[-1], paths.SPEED_MM_S)
    return [
        *_latency(points, speed), *_speed(), *_memory(points, speed), *_flatness(points, speed),
    ]  # fmt: skip

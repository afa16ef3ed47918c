"""Planner, emission: profile to framed segments, and how true the wire is to the plan.

    python -m benchmarks planner_emit

Speed: paths b and c with the trapezoid law, from the profile's phases to whole SEGMENTS frames
with their checksums, power ramped with the speed, window by window, one core. Truth: framed
bytes decoded apart from the planner each 10 us (tests/unit/wire_truth.py).
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import paths
from benchmarks.measure import interleaved, row
from controller import _motion
from controller.planning.motion.laws import MODES
from controller.planning.path.curve import Polyline
from controller.planning.stream import (
    WINDOW_PHASES,
    FrameStream,
    Scale,
    SegmentStream,
    Window,
    frame_segments,
    split,
)
from firmware_bridge.framing import T, encode
from firmware_bridge.segments import SEGMENT
from tests.unit import test_wire_truth as truth
from tests.unit.wire_truth import bead_truth, quantum_mm_s, unframe

SPEED_MM_S, ACCEL_MM_S2, DEVIATION_MM = 50.0, 2000.0, 0.01
STEPS_MM = 400.0
FREE = [1e9, 1e9, 1e9]
GOAL = 10e6
POWER_GOAL = {"trapezoid": 0.05, "friction_circle": 0.05, "jerk": 0.1}  # % of full power
LASER = {"rated_w": 1000.0, "latency_s": 0.003, "steps_per_mm": STEPS_MM}


def window_of(points: np.ndarray) -> Window:
    """A whole path as one window: one bead, power that follows the speed."""
    n = len(points) - 1
    length, v, peak, accel, _ = _motion.plan_trapezoid(
        points, np.full(n, SPEED_MM_S), ACCEL_MM_S2, DEVIATION_MM, FREE, FREE
    )
    t, s, w, a, move = _motion.trapezoid_phases(length, v, peak, accel)
    m = len(a)
    return Window(
        curve=Polyline.of(points, length),
        t_s=t, s_mm=s, v_mm_s=w, a_mm_s2=a, j_mm_s3=np.zeros(m), move=move,
        longest_s=np.full(m, np.inf), nominal_mm_s=np.full(m, SPEED_MM_S),
        node_s=t, node_share=0.15 + 0.45 * w / SPEED_MM_S,
        edge_s=np.array([0.05, t[-1] - 0.05]), edge_on=np.array([1, 0], dtype=np.uint8),
        param_s=np.zeros(0), param_rows=np.zeros(0, dtype=SEGMENT), known_s=float(t[-1]),
    )  # fmt: skip


def emit(window: Window, phases: int = WINDOW_PHASES) -> tuple[int, int, list[np.ndarray]]:
    """Phases to frames; segments, bytes and the pieces of bytes."""
    stream = SegmentStream(Scale(np.full(3, STEPS_MM), np.zeros(3)))
    frames = FrameStream()
    pieces = [
        frames.push(stream.push(w).segments)
        for w in split(window, range(phases, len(window.a_mm_s2), phases))
    ]
    pieces.append(frames.push(stream.finish().segments))
    pieces.append(frames.finish())
    return stream.n_segments, sum(len(p) for p in pieces), pieces


def _speed(name: str, points: np.ndarray) -> list[dict[str, Any]]:
    window = window_of(points)
    count, size, pieces = emit(window)
    rows_of = unframe(b"".join(p.tobytes() for p in pieces), 0, 0)  # every checksum by zlib
    assert len(rows_of) == 22 * count
    segments = np.frombuffer(rows_of, SEGMENT)

    def one_by_one() -> None:
        """As the live link does: payload, header and zlib's CRC for each frame in Python."""
        for k in range(0, len(rows_of) // 22, 20):
            payload = k.to_bytes(4, "little") + rows_of[22 * k : 22 * (k + 20)]
            encode(T.SEGMENTS, k // 20, payload)

    works: dict[str, Callable[[], Any]] = {
        "all": lambda: emit(window),
        "frames": lambda: frame_segments(segments, 0, 0),
        "framing.py": one_by_one,
        "zlib": lambda: zlib.crc32(rows_of),
    }
    t = interleaved(works)
    rate = count / t["all"]
    planned_s = float(window.t_s[-1])
    return [
        row("planner", f"phases to framed segments, path {name}", rate, "seg/s", GOAL,
            note=f"{count} segments, {size / 1e6:.1f} MB of frames; {planned_s / t['all']:.0f} x "
            "real time; cuts, steps, power, CRC"),
        row("planner", f"frames alone, path {name}", count / t["frames"], "seg/s", None,
            rival="framing.py, frame by frame", ratio=t["framing.py"] / t["frames"],
            note=f"zlib.crc32 alone over the same rows: {count / t['zlib']:.3g} seg/s"),
    ]  # fmt: skip


def _truth(mode: str) -> list[dict[str, Any]]:
    power = energy = edge_us = fastest = most = 0.0
    samples = pieces = 0
    quantum = []
    for name in truth.CASES:
        wire, motion, path, profile = truth.made(name, mode)
        on, off = wire.gate_edges_us()
        for i, bead in enumerate(truth.beads_of(path, profile)):
            got = bead_truth(wire, motion, bead, LASER)
            power, energy = max(power, got["power_w"]), max(energy, got["energy"])
            samples, pieces = samples + got["samples"], pieces + got["pieces"]
            most = max(most, got["speed_max"] / bead["speed"])
            solved = motion.when(np.array([bead["s_on"], bead["s_off"]])) * 1e6 - 100.0
            edge_us = max(edge_us, abs(on[i] - solved[0]), abs(off[i] - solved[1]))
        q = quantum_mm_s(
            wire, motion, lambda s, c=profile.curve: c.axes_at(s)[:, :3], STEPS_MM
        )  # fmt: skip
        quantum.append(f"{name} {q['all_rms']:.3f} ({q['exact_rms']:.4f} with exact ends)")
        fastest = max(fastest, q["all_rms"])
    where = f"{samples} samples at 10 us, {len(truth.CASES)} paths"
    return [
        row("planner", f"wire power against the law, {mode}", 100.0 * power / LASER["rated_w"],
            "% of full", POWER_GOAL[mode], at_most=True, note=where),
        row("planner", f"wire energy per 0.1 mm, {mode}", 100.0 * energy, "%", 0.2, at_most=True,
            note=f"{pieces} pieces, worst"),
        row("planner", f"gate edge against the solved instant, {mode}", edge_us, "us", 1.0,
            at_most=True),
        row("planner", f"executed less planned speed, {mode}", fastest, "mm/s rms", None,
            note="step quantum at 400 1/mm: " + "; ".join(quantum)
            + f"; worst instant {100 * most:.1f} % of nominal, in the shortest segments"),
    ]  # fmt: skip


def run() -> list[dict[str, Any]]:
    """Measure."""
    rows: list[dict[str, Any]] = []
    for name, points in (("b", paths.wavy_spiral()), ("c", paths.random_turns())):
        rows += _speed(name, points)
    for mode in MODES:
        rows += _truth(mode)
    return rows

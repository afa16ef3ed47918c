"""Klipper's own classes, run from a checkout of it, for the planner's table.

    LMD_KLIPPER=/path/to/klipper python -m benchmarks.klipper_original b 3

Its ToolHead, Move, look-ahead queue, kinematics check and trapezoid queue (C) run as they are;
only what surrounds them is replaced: printer, reactor and clock, as in its file output mode.
Needs cffi and greenlet; the C helper is compiled into the checkout by Klipper itself.
Prints {"moves_s": .., "duration_s": ..} as JSON.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import paths

VARIABLE = "LMD_KLIPPER"


class _Reactor:
    def monotonic(self) -> float:
        return 0.0

    def assert_no_pause(self) -> Any:
        return contextlib.nullcontext()


class _Quiet:
    """Stands for objects whose calls do not matter here."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: None


def _tool_head(checkout: Path) -> tuple[Any, Any]:
    """A ToolHead with the benchmark's limits, and the function that frees its queue."""
    sys.path.insert(0, str(checkout / "klippy"))
    import chelper  # type: ignore[import-not-found]
    import toolhead  # type: ignore[import-not-found]
    from kinematics import cartesian, extruder  # type: ignore[import-not-found]

    main, lib = chelper.get_ffi()
    head = toolhead.ToolHead.__new__(toolhead.ToolHead)
    head.printer, head.reactor, head.motion_queuing = _Quiet(), _Reactor(), _Quiet()
    head.lookahead = toolhead.LookAheadQueue()
    head.commanded_pos = [0.0, 0.0, 0.0, 0.0]
    head.max_velocity, head.max_accel = paths.SPEED_MM_S, paths.ACCEL_MM_S2
    head.junction_deviation = paths.DEVIATION_MM
    head.mcr_pseudo_accel = paths.ACCEL_MM_S2  # minimum_cruise_ratio 0
    head.special_queuing_state, head.print_time = "", 0.0
    head.need_check_pause = float("inf")
    head.extra_axes = [extruder.DummyExtruder(head.printer)]
    head.trapq = main.gc(lib.trapq_alloc(), lib.trapq_free)
    head.trapq_append = lib.trapq_append
    kin = cartesian.CartKinematics.__new__(cartesian.CartKinematics)
    kin.limits = [(-1e6, 1e6)] * 3
    kin.max_z_velocity = kin.max_z_accel = 1e9
    head.kin = kin
    return head, lambda: lib.trapq_finalize_moves(head.trapq, 1e9, 0.0)


def measure(checkout: Path, name: str, rounds: int) -> dict[str, float]:
    """Moves a second (median) and duration of path ``name``."""
    points = paths.PATHS[name]()
    rows = [[*p, 0.0] for p in points.tolist()]
    took, duration_s = [], 0.0
    for _ in range(rounds):
        head, free = _tool_head(checkout)
        head.commanded_pos[:] = rows[0]
        begin = time.perf_counter()
        for row in rows[1:]:
            head.move(row, paths.SPEED_MM_S)
        head._process_lookahead()
        took.append(time.perf_counter() - begin)
        duration_s = head.print_time
        free()
    return {"moves_s": (len(rows) - 1) / statistics.median(took), "duration_s": duration_s}


def run_apart(name: str, rounds: int = 3) -> tuple[dict[str, float] | None, str]:
    """In a process of its own: its modules have names like ``util``. (result, why not)."""
    checkout = os.environ.get(VARIABLE)
    if not checkout:
        return None, f"set {VARIABLE} to a checkout of Klipper to run it beside ours"
    call = [sys.executable, "-m", "benchmarks.klipper_original", name, str(rounds)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        return None, f"Klipper's checkout did not run: {done.stderr.strip().splitlines()[-1:]}"
    return json.loads(done.stdout.splitlines()[-1]), ""


if __name__ == "__main__":
    print(json.dumps(measure(Path(os.environ[VARIABLE]), sys.argv[1], int(sys.argv[2]))))

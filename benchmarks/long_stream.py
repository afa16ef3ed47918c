"""Streaming for minutes on the motion wire beside two busy processes: underruns, CPU of the link.

python -m benchmarks.long_stream [--seconds 600]

The simulator's firmware is at the other end in real time; the link is a process of its own, as
in the cell server. Segments of 2 ms carry X to and fro at 20 mm/s with ramps.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from controller import launch
from controller.config import find_file, load_cell
from controller.machine.cell import link_settings, ports_of
from firmware_bridge.link_process import LinkProcess
from firmware_bridge.link_types import LinkStats
from firmware_bridge.segments import FLAG_END, RATIO_ONE, SEGMENT

TICKS = 2000  # us a segment
SPEED_MM_S, ACCEL_MM_S2 = 20.0, 400.0
AWAY_S = 4.0  # one way there or back
TICK_S = 0.01


def shuttle(seconds: float, steps_per_mm: float) -> np.ndarray:
    """X there and back again and again, 500 segments a second, (n,) SEGMENT; ends where it began.

    Step deltas are differences of rounded positions, so no step is lost.
    """
    per_way = round(AWAY_S / (TICKS * 1e-6))
    t_s = np.arange(per_way + 1) * TICKS * 1e-6
    ramp_s = SPEED_MM_S / ACCEL_MM_S2
    left_s = np.minimum(t_s, AWAY_S - t_s)
    speed = np.minimum(left_s / ramp_s, 1.0)  # share, at segment ends
    mean = 0.5 * (speed[1:] + speed[:-1])
    way_mm = np.concatenate(([0.0], np.cumsum(mean * SPEED_MM_S * TICKS * 1e-6)))
    steps = np.diff(np.rint(way_mm * steps_per_mm)).astype(np.int64)
    one = np.zeros(per_way, SEGMENT)
    one["steps"][:, 0] = steps
    one["start_ratio"] = np.rint(speed[:-1] / mean * RATIO_ONE)
    one["end_speed"] = np.rint(speed[1:] * RATIO_ONE)
    one["ticks_lo"] = TICKS
    back = one.copy()
    back["steps"][:, 0] *= -1
    n = max(1, round(seconds / (2.0 * AWAY_S)))
    whole = np.tile(np.concatenate([one, back]), n)
    whole["flags"][-1] |= FLAG_END
    return whole


@contextlib.contextmanager
def busy_beside(n: int = 2) -> Iterator[None]:
    """Processes that never rest; ended by their ids."""
    spin = "while True: pass"
    processes = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _stream(link: LinkProcess, segments: np.ndarray) -> tuple[float, float, LinkStats]:
    """Wall time, CPU of the link's process, its statistics."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    async def tokens() -> None:
        while not stopped.is_set() and not link.failure:
            link.token()
            await asyncio.sleep(TICK_S)

    await link.connect()
    supervisor = asyncio.ensure_future(tokens())
    try:
        await asyncio.sleep(0.1)  # until a beat has gone
        await link.home()
        link.load(segments)
        await link.arm()
        before_s, begin_s = cpu_s(link.pid), loop.time()
        link.start()
        while not link.finished and not link.failure:
            await asyncio.sleep(0.05)
        took_s, used_s = loop.time() - begin_s, cpu_s(link.pid) - before_s
        if link.failure:
            raise RuntimeError(link.failure)
        await asyncio.sleep(1.5)  # the last statistics come once a second
        return took_s, used_s, link.stats
    finally:
        stopped.set()
        await supervisor
        link.close()


def run(seconds: float = 600.0) -> dict[str, Any]:
    """Stream; what was measured."""
    cell, _ = load_cell("sim")
    segments = shuttle(seconds, cell.motion.axes[0].steps_per_mm)
    with tempfile.TemporaryDirectory(prefix="lmd-stream-") as name:
        folder = Path(name)
        simulator = launch.Simulator(
            find_file("cells", "sim"),
            time_mode="real",
            run_dir=folder,
            out=folder,
            motion_wire="pty",
        )
        try:
            port = ports_of(cell, simulator.ready["channels"])["motion"]
            link = LinkProcess(port, link_settings(cell))
            with busy_beside():
                took_s, used_s, stats = asyncio.run(_stream(link, segments))
        finally:
            simulator.stop()
    return {
        "segments": len(segments),
        "took_s": took_s,
        "segments_s": len(segments) / took_s,
        "cpu_pct": 100.0 * used_s / took_s,
        "underruns": stats.underruns,
        "resends": stats.resends,
        "frames_lost": stats.frames_lost,
        "rtt_max_us": stats.rtt_max_us,
        "beat_late_max_us": stats.beat_late_max_us,
        "queue_least_us": stats.queue_least_us,
        "scheduling": link.scheduling,
    }


def main() -> int:
    """Print the figures as JSON; 0 when the goals are met."""
    parser = argparse.ArgumentParser(prog="long_stream")
    parser.add_argument("--seconds", type=float, default=600.0)
    told = run(parser.parse_args().seconds)
    print(json.dumps(told, indent=1))
    return 0 if told["underruns"] == 0 and told["cpu_pct"] <= 3.0 else 1


if __name__ == "__main__":
    sys.exit(main())

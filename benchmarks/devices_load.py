"""A cell with a device in every role at its real rate: CPU of the server, gaps of tick and beat.

python -m benchmarks.devices_load [--seconds 1800] [--cell sim_full]

Simulator, cell server, motion link and recorder are processes of their own in real time, over
ptys and TCP, with two busy processes beside them and a console that takes everything the server
streams. The cell stands homed with its polls running, then builds for the second half of the
time. CPU comes from ``/proc/<pid>/stat``; ticks from the machine times of the telemetry rows, one
a tick; beats from the simulator's trace, as its firmware got them.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.long_stream import busy_beside, cpu_s
from benchmarks.measure import row
from controller import launch
from controller.api.client import Client
from controller.api.protocol import Kind
from controller.build import make_ready, running_cell
from controller.config import find_file, load_cell
from controller.machine.cell import fitted
from controller.planning import write_job
from controller.session import prepare_plan
from firmware_bridge.link_types import FaultCode
from tests.hil import oracle
from tests.hil.open_sockets import family
from tests.hil.whole_cell import example

CELL = "sim_full"
SECONDS = 1800.0
CPU_PCT = 60.0  # of one core, simulator apart
BEAT_MS = 100.0  # the firmware shuts the gate then
SAMPLE_S = 0.25
OLD_PCT = 1.0  # of all readings in all views: what a console ever sees late
BUILD_FROM = 0.5  # share of the time after which builds begin
BUILDING = ("EXECUTE", "HOLDING", "HELD", "UNHOLDING", "COMPLETING")
ANSWER_S = 30.0
ANSWERED_MS = 10.0  # a tick: request and answer of a poll take less
PROCESSES = {  # a word of its command line -> what it is
    "firmware_bridge.link_process": "link",
    "controller.record.recorder_process": "recorder",
    "serve": "server",
    "hil_sim": "simulator",
}


def _of(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return next((name for word, name in PROCESSES.items() if word in words), "others")


@dataclass
class Meter:
    """CPU seconds of a cell's processes, by process and by what the cell did."""

    roots: tuple[int, ...]
    used_s: dict[tuple[str, str], float] = field(default_factory=dict)
    took_s: dict[str, float] = field(default_factory=dict)
    _last: dict[int, float] = field(default_factory=dict)
    _at_s: float = -1.0

    def sample(self, phase: str) -> None:
        """Count what was used since the last sample; a new process counts from its start."""
        now_s, first = time.monotonic(), self._at_s < 0.0
        for root in self.roots:
            for pid in family(root):
                try:
                    spent, name = cpu_s(pid), _of(pid)
                except OSError:  # ended meanwhile
                    continue
                if not first:
                    more = spent - self._last.get(pid, 0.0)
                    self.used_s[name, phase] = self.used_s.get((name, phase), 0.0) + more
                self._last[pid] = spent
        if not first:
            self.took_s[phase] = self.took_s.get(phase, 0.0) + now_s - self._at_s
        self._at_s = now_s

    def pct(self, *names: str, phase: str = "") -> float:
        """Of one core, in a phase or over all of the time."""
        took_s = sum(s for p, s in self.took_s.items() if phase in ("", p))
        used = sum(s for (n, p), s in self.used_s.items() if n in names and phase in ("", p))
        return 100.0 * used / took_s if took_s else 0.0


@dataclass
class Console:
    """What a console learns from the stream."""

    state: str
    age_us: dict[str, list[int]]  # by role, of each view: its time less the reading's
    asked_for: str = ""  # a state that is to come
    ticks_us: list[int] = field(default_factory=list)
    moving: list[bool] = field(default_factory=list)  # of each tick: a build is under way
    alarms: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    _at_us: dict[str, int] = field(default_factory=dict)

    def take(self, kind: Kind, value: Any) -> None:
        """One frame."""
        if kind == Kind.TELEMETRY:
            self.ticks_us.append(int.from_bytes(value[:8], "little"))
            self.moving.append(self.state in BUILDING)
        elif kind == Kind.EVENT:
            data = value["data"]
            if value["kind"] == "state":
                self.state = data["new"]
                self.states.append(self.state)
                if self.state == self.asked_for:
                    self.asked_for = ""
            elif value["kind"] == "alarm":
                self.alarms.append(f"{data.get('name')} {data.get('detail') or ''}".strip())
        elif kind in (Kind.SNAPSHOT, Kind.DELTA):
            for role in self.age_us:
                if value.get(role):
                    self._at_us[role] = int(value[role]["at_us"])
                if role in self._at_us:
                    self.age_us[role].append(int(value["time"]["t_us"]) - self._at_us[role])

    def ages_ms(self) -> dict[str, np.ndarray]:
        """By role, how old its reading was in each view, ms. The freshest of all counts as new."""
        zero_us = min(min(ages) for ages in self.age_us.values())  # two clocks, one rate
        return {role: (np.array(ages) - zero_us) / 1e3 for role, ages in self.age_us.items()}


def _watch(
    client: Client, meter: Meter, console: Console, seconds: float, job: Path, folder: Path
) -> None:
    """Read the stream for so long; builds follow each other in the second part of the time."""
    begin_s = time.monotonic()
    sampled_s = begin_s
    meter.sample("idle")
    n = 0
    while (now_s := time.monotonic()) < begin_s + seconds:
        frame = client.receive(timeout_s=SAMPLE_S)
        if frame is not None:
            console.take(*frame)
        if now_s >= sampled_s + SAMPLE_S:
            meter.sample("build" if console.state in BUILDING else "idle")
            sampled_s = now_s
        if now_s < begin_s + BUILD_FROM * seconds or console.asked_for:
            continue
        if console.state in ("COMPLETE", "STOPPED"):
            client.call("reset", timeout_s=ANSWER_S)
            console.asked_for = "IDLE"
        elif console.state == "IDLE":
            n += 1
            client.call("load_job", path=str(job), timeout_s=ANSWER_S)
            record = str(folder / f"record{n}")
            client.call("start", record_dir=record, mode="development", timeout_s=ANSWER_S)
            console.asked_for = "STARTING"
    meter.sample("build" if console.state in BUILDING else "idle")


def _gaps_ms(console: Console) -> tuple[float, float, int]:
    """Longest from tick to tick in a build and at rest, ms; how many ticks there were."""
    t_us = np.array(console.ticks_us, np.int64)
    gap_ms = np.diff(t_us) / 1e3
    moving = np.array(console.moving, bool)[1:]
    if len(gap_ms) == 0:
        raise RuntimeError("no telemetry row came: nothing was measured")
    return (
        float(gap_ms[moving].max(initial=0.0)),
        float(gap_ms[~moving].max(initial=0.0)),
        len(t_us),
    )


def _beats(trace: Path, from_us: int, to_us: int) -> tuple[float, float, list[str]]:
    """Longest from beat to beat while armed and over all, ms; faults that were latched."""
    plant = oracle.read(trace).rows["/trace/plant"]
    plant = plant[(plant["t_us"] >= from_us) & (plant["t_us"] < to_us)]
    at_us, first = np.unique(
        plant["t_us"] - plant["beat_age_us"].astype(np.int64), return_index=True
    )
    gap_ms, armed = np.diff(at_us) / 1e3, plant["armed"][first[1:]] == 1
    fault = plant["fault"]
    latched = fault[1:][(fault[1:] != fault[:-1]) & (fault[1:] != 0)]
    return (
        float(gap_ms[armed].max(initial=0.0)),
        float(gap_ms.max()),
        [FaultCode(int(f)).name for f in latched],
    )


def run(seconds: float = SECONDS, cell_name: str = CELL) -> dict[str, Any]:
    """Run the cell so long; what was measured."""
    cell, _ = load_cell(cell_name)
    plan = prepare_plan(example("blade.stl"), cell=cell_name)
    with tempfile.TemporaryDirectory(prefix="lmd-load-") as name:
        folder = Path(name)
        run_dir = launch.short_run_dir()
        job = folder / "job.lmdjob"
        write_job(plan, job)
        roles = fitted(cell)
        console = Console("IDLE", {role: [] for role in roles})
        with (
            running_cell(
                find_file("cells", cell_name),
                cell,
                run_dir,
                time_mode="real",
                trace_dir=folder,
                seed=7,
            ) as server,
            Client(run_dir, role="engineer", name="load") as client,
        ):
            make_ready(client)
            client.subscribe("snapshot", "event", "telemetry")
            assert server.simulator is not None
            start_us = int(server.simulator.ready["start_us"])
            meter = Meter((server.pid, server.simulator.pid))
            with busy_beside():
                from_us = time.monotonic_ns() // 1000 - start_us
                _watch(client, meter, console, seconds, job, folder)
                to_us = time.monotonic_ns() // 1000 - start_us
            alarms = list(console.alarms)
            late = client.call("status")["time"]["late"]
            if console.state in BUILDING:
                client.call("stop")
                client.call("wait_state", states=["STOPPED"], timeout_s=60.0)
        armed_ms, beat_ms, faults = _beats(folder / "trace.mcap", from_us, to_us)
        wrong = oracle.check(folder / "trace.mcap", expect_emission=False)
    build_ms, rest_ms, n_ticks = _gaps_ms(console)
    old = {
        role: ages > 2e3 / getattr(cell, role).poll_hz + ANSWERED_MS
        for role, ages in console.ages_ms().items()
    }
    n_views = sum(len(ages) for ages in old.values())
    own = ("server", "link", "recorder", "others")
    return {
        "seconds": seconds,
        "devices": len(roles),
        "polls_s": sum(getattr(cell, role).poll_hz for role in roles),
        "old_pct": 100.0 * sum(int(o.sum()) for o in old.values()) / n_views,
        "old_worst": max(old, key=lambda role: float(old[role].mean())),
        "age_median_ms": {r: round(float(np.median(a)), 1) for r, a in console.ages_ms().items()},
        "cpu_pct": meter.pct(*own),
        "cpu_build_pct": meter.pct(*own, phase="build"),
        "cpu_idle_pct": meter.pct(*own, phase="idle"),
        "build_s": meter.took_s.get("build", 0.0),
        "cpu_by_process_pct": {n: meter.pct(n) for n in (*own, "simulator")},
        "ticks": n_ticks,
        "late_ticks": late,
        "tick_gap_build_ms": build_ms,
        "tick_gap_rest_ms": rest_ms,
        "beat_gap_armed_ms": armed_ms,
        "beat_gap_ms": beat_ms,
        "faults": faults,
        "alarms": alarms,
        "judge": [f"{v.kind}: {v.text}" for v in wrong],
        "builds": console.states.count("EXECUTE"),
        "load_average": list(os.getloadavg()),
    }


def campaign(share: float) -> list[dict[str, Any]]:
    """Rows in the form of the benchmarks."""
    return rows(run(max(60.0, SECONDS * share)))


def rows(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of one run."""
    by = told["cpu_by_process_pct"]
    where = (
        f"{told['devices']} devices, {told['seconds']:.0f} s, {told['build_s']:.0f} s of them "
        f"building; load average {told['load_average'][1]:.1f} of 5 min"
    )
    return [
        row(
            "soak", "CPU of server, link and recorder, of one core", told["cpu_pct"], "%",
            CPU_PCT, at_most=True,
            note=f"{where}; server {by['server']:.1f}, link {by['link']:.1f}, recorder "
            f"{by['recorder']:.1f}; building {told['cpu_build_pct']:.1f}, at rest "
            f"{told['cpu_idle_pct']:.1f}; simulator apart {by['simulator']:.1f}",
        ),
        row(
            "soak", "dead-man trips and other faults of the firmware", len(told["faults"]), "1",
            0, at_most=True, note=f"two busy processes beside; {', '.join(told['faults'])}",
        ),
        row(
            "soak", "longest gap of the beat at the firmware, armed", told["beat_gap_armed_ms"],
            "ms", BEAT_MS, at_most=True,
            note=f"a beat each 20 ms; disarmed too: {told['beat_gap_ms']:.1f} ms",
        ),
        row(
            "soak", "longest gap of the supervisor's tick in a build", told["tick_gap_build_ms"],
            "ms", note=f"a tick each 10 ms, {told['ticks']} ticks; at rest, jobs loaded there: "
            f"{told['tick_gap_rest_ms']:.1f} ms",
        ),
        row(
            "soak", "readings older than two polls and a tick", told["old_pct"], "%", OLD_PCT,
            at_most=True, note=f"{told['polls_s']:.0f} polls a second; most of {told['old_worst']}",
        ),
        row(
            "soak", "alarms and breaches with every device polled",
            len(told["alarms"]) + len(told["judge"]), "1", 0, at_most=True,
            note=f"{told['builds']} builds; {'; '.join([*told['alarms'], *told['judge']][:3])}",
        ),
    ]  # fmt: skip


def main() -> int:
    """Print the rows and what they were made of."""
    from benchmarks.__main__ import show

    parser = argparse.ArgumentParser(prog="devices_load")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--cell", default=CELL)
    options = parser.parse_args()
    told = run(options.seconds, options.cell)
    made = rows(told)
    show(made)
    print(json.dumps(told, indent=1))
    return 0 if all(one["met"] is not False for one in made) else 1


if __name__ == "__main__":
    sys.exit(main())

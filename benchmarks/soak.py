"""``make soak``: the long campaigns; writes ``benchmarks/soak.json`` in the form of the benchmarks.

python -m benchmarks.soak [--share 0.1]     a tenth of every campaign
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import long_stream
from benchmarks.__main__ import HERE, show
from controller.record.verify import verify_record
from tests.hil import oracle
from tests.hil.test_dead_man import LIMIT_MS
from tests.hil.whole_cell import build, example, started_build, write_box
from tests.unit import random_plans, test_firmware_protocol, test_framing

KILLS = 100
MOST_TRIES = 10  # builds until one is met with the gate open
FRAMES = 1_000_000
PLANS = 1_000_000
SEEDS = 50
SCENARIOS = ("estop", "door", "chiller_flow", "link_loss", "feeder_stall")


def _row(figure: str, value: float, unit: str, goal: float, met: bool, note: str) -> dict[str, Any]:
    return {
        "area": "soak",
        "figure": figure,
        "value": value,
        "unit": unit,
        "goal": goal,
        "met": met,
        "rival": "",
        "ratio": None,
        "note": note,
    }


BEAT_LIMIT_MS = 101.0  # by the firmware's clock, from its last beat


def _one_kill(
    victim: str, how: signal.Signals, wait_s: float, folder: Path
) -> tuple[float, float] | None:
    """Signal to gate off and last beat to gate off, ms; None: the gate was shut at that moment."""
    with started_build(example("blade.stl"), folder, time_mode="real") as cell:
        end = time.monotonic() + 30.0
        while time.monotonic() < end:
            status = cell["client"].call("status", timeout_s=5.0)
            if status["motion"] and status["motion"]["gate_on"]:
                break
            time.sleep(0.02)
        else:
            # a busy computer may starve a build in real time: it aborts itself, nothing is tried
            alarms = ", ".join(a["name"] for a in status["alarms"])
            print(f"soak: no emission, alarms {alarms}: tried again", file=sys.stderr, flush=True)
            return None
        time.sleep(wait_s)
        pid = cell["told"]["link_pid"] if victim == "link" else cell["server"].pid
        sent_us = time.monotonic_ns() // 1000 - cell["simulator"]["start_us"]
        os.kill(pid, how)
        time.sleep(0.5)
        if how == signal.SIGSTOP:
            os.kill(pid, signal.SIGKILL)
    trace = cell["record"] / "trace.mcap"
    problems = oracle.check(trace, cell["record"] / "job.lmdjob", complete=False)
    if problems:
        raise RuntimeError(f"{victim} {how.name}: {problems[0]}")
    rows = oracle.read(trace).rows
    gate, plant = rows["/trace/gate"], rows["/trace/plant"]
    before, after = gate[gate["t_us"] <= sent_us], gate[gate["t_us"] > sent_us]
    if not len(before) or not before[-1]["on"]:
        return None
    shut_us = int(after[after["on"] == 0]["t_us"][0])
    if after["on"][after["t_us"] > shut_us].any():
        raise RuntimeError(f"{victim} {how.name}: the gate opened again")
    row = plant[plant["t_us"] >= shut_us][0]
    beat_us = int(row["t_us"]) - int(row["beat_age_us"])
    return (shut_us - sent_us) / 1e3, (shut_us - beat_us) / 1e3


def kills(share: float) -> list[dict[str, Any]]:
    """SIGKILL and SIGSTOP of link and server at random moments of a bead, in real time.

    In turns, so that a campaign that is broken off has tried all of them. A kill just before a
    bead's own end says little: one that found the gate shut does not count.
    """
    rng = np.random.default_rng(11)
    n = max(1, round(KILLS * share))
    tries = [(v, h) for v in LIMIT_MS for h in (signal.SIGKILL, signal.SIGSTOP)]
    took: dict[tuple[str, signal.Signals], list[tuple[float, float]]] = {t: [] for t in tries}
    for _ in range(n):
        for victim, how in tries:
            told = None
            for _ in range(MOST_TRIES):
                if told is not None:
                    break
                with tempfile.TemporaryDirectory(prefix="lmd-soak-") as name:
                    told = _one_kill(victim, how, float(rng.uniform(0.0, 1.5)), Path(name))
            if told is None:
                raise RuntimeError(f"{victim} {how.name}: no emission found in {MOST_TRIES} builds")
            took[victim, how].append(told)
            text = f"{told[0]:.1f} ms, {told[1]:.1f} ms after the last beat"
            print(f"soak: {victim} {how.name} {text}", file=sys.stderr, flush=True)
    rows = []
    for (victim, how), all_ms in took.items():
        signal_ms, beat_ms = (np.array(v) for v in zip(*all_ms, strict=True))
        limit = LIMIT_MS[victim]
        worst = float(signal_ms.max())
        rows.append(
            _row(
                f"{how.name} of the {victim}: signal to gate off, worst of {n}",
                worst,
                "ms",
                limit,
                worst <= limit and float(beat_ms.max()) <= BEAT_LIMIT_MS,
                f"median {np.median(signal_ms):.1f}, least {signal_ms.min():.1f}; last beat to "
                f"gate off at most {beat_ms.max():.1f}",
            )
        )
    return rows


def stream(share: float) -> list[dict[str, Any]]:
    """Ten minutes of 500 segments a second over a pty, two busy processes beside."""
    told = long_stream.run(600.0 * share)
    what = f"{told['segments']} segments at {told['segments_s']:.0f}/s, {told['scheduling']}"
    return [
        _row("underruns while streaming", told["underruns"], "1", 0, told["underruns"] == 0, what),
        _row(
            "CPU of the motion link's process",
            told["cpu_pct"],
            "%",
            3.0,
            told["cpu_pct"] <= 3.0,
            f"latest beat {told['beat_late_max_us'] / 1e3:.1f} ms after its instant, queue at "
            f"least {told['queue_least_us'] / 1e3:.0f} ms",
        ),
    ]


def frames(share: float) -> list[dict[str, Any]]:
    """Mutated frames: none may become a segment or a message that was never sent."""
    n = max(1000, round(FRAMES * share))
    wrong = test_firmware_protocol.campaign(n, 3)
    wrong_host = test_framing.campaign(n, 4)
    return [
        _row(f"wrong segments, {n} mutated frames", wrong, "1", 0, wrong == 0, "firmware"),
        _row(f"wrong frames, {n} mutated frames", wrong_host, "1", 0, wrong_host == 0, "host"),
    ]


def faults(share: float) -> list[dict[str, Any]]:
    """Every scenario with many seeds on null wires, judged by the oracle."""
    n = max(1, round(SEEDS * share))
    bad = 0
    with tempfile.TemporaryDirectory(prefix="lmd-soak-") as name:
        folder = Path(name)
        part = write_box(folder / "box.stl", (8.0, 5.0, 2.0))
        for scenario in SCENARIOS:
            for seed in range(n):
                result = build(part, folder, time_mode="null", scenario=scenario, seed=seed)
                record = Path(result["record"])
                found = oracle.check(record / "trace.mcap", record / "job.lmdjob", complete=False)
                ok = not found and verify_record(record).ok and result["state"] != "COMPLETE"
                bad += not ok
                if not ok:
                    print(f"soak: {scenario} seed {seed}: {found[:1]}", file=sys.stderr)
    return [
        _row(
            f"unsafe or unsealed ends, {n} seeds of {len(SCENARIOS)} faults",
            bad,
            "1",
            0,
            bad == 0,
            "oracle on the simulator's trace",
        )
    ]


def plans(share: float) -> list[dict[str, Any]]:
    """Random plans from the time law to framed segments, judged apart from the planner."""
    n = max(1000, round(PLANS * share))
    tally = random_plans.campaign(n, 2026)
    for problem in tally.problems:
        print(f"soak: {problem}", file=sys.stderr)
    what = f"{tally.beads} beads, {tally.segments} segments, {tally.refused} plans refused by name"
    return [
        _row(
            f"wrong random plans, {tally.plans} made",
            len(tally.problems),
            "1",
            0,
            not tally.problems and tally.plans >= n,
            f"gate at standstill, steps, fields, edges; {what}",
        ),
        _row(
            "gate edge against the solved instant, worst",
            tally.edge_us,
            "us",
            1.0,
            tally.edge_us <= 1.0,
            f"least speed with the gate open {tally.slowest_mm_s:.4f} mm/s",
        ),
    ]


CAMPAIGNS = {"frames": frames, "plans": plans, "faults": faults, "stream": stream, "kills": kills}


def main() -> int:
    """Run the campaigns named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("campaign", nargs="*", help=f"of {', '.join(CAMPAIGNS)}; default all")
    parser.add_argument("--share", type=float, default=1.0, help="part of each campaign")
    options = parser.parse_args()
    unknown = [name for name in options.campaign if name not in CAMPAIGNS]
    if unknown or not 0.0 < options.share <= 1.0:
        parser.error(f"unknown campaign {unknown} or share {options.share} not in (0, 1]")
    rows = []
    for name, campaign in CAMPAIGNS.items():
        if not options.campaign or name in options.campaign:
            rows += campaign(options.share)
    show(rows)
    if not options.campaign and options.share == 1.0:
        (HERE / "soak.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""``make soak``: the long campaigns; writes ``benchmarks/soak.json`` in the form of the benchmarks.

python -m benchmarks.soak [--share 0.1]     a tenth of every campaign
python -m benchmarks.soak kills --workers 4 --results kills.jsonl     goes on where it broke off
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import (
    devices_load,
    fault_campaign,
    input_campaign,
    long_stream,
    modbus_campaign,
    mutants,
)
from benchmarks.__main__ import HERE, show
from controller.errors import LmdError
from tests.hil import oracle
from tests.hil.dead_man import emitting, gate_fell_ms, send
from tests.hil.test_dead_man import LIMIT_MS
from tests.unit import random_plans, test_firmware_protocol, test_framing

KILLS = 100
MOST_TRIES = 10  # builds until one is met with the gate open
FRAMES = 1_000_000
PLANS = 1_000_000


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


KILL_TURNS = [(v, h) for v in LIMIT_MS for h in (signal.SIGKILL, signal.SIGSTOP)]
BEAT_LIMIT_MS = 101.0  # by the firmware's clock, from its last beat


def _one_kill(
    victim: str, how: signal.Signals, wait_s: float, folder: Path
) -> tuple[float, float] | None:
    """Signal to gate off and last beat to gate off, ms; None: the gate was shut at that moment."""
    with emitting(folder, "sim") as cell:
        time.sleep(wait_s)
        signal_us = send(cell, victim, how)
    trace = cell["record"] / "trace.mcap"
    problems = oracle.check(trace, cell["record"] / "job.lmdjob", complete=False)
    if problems:
        raise RuntimeError(f"{victim} {how.name}: {problems[0]}")
    took_ms = gate_fell_ms(cell["record"], signal_us)
    if took_ms is None:
        return None
    plant = oracle.read(trace).rows["/trace/plant"]
    shut_us = signal_us + round(took_ms * 1e3)
    row = plant[plant["t_us"] >= shut_us][0]
    beat_us = int(row["t_us"]) - int(row["beat_age_us"])
    return took_ms, (shut_us - beat_us) / 1e3


def _kill(number: int) -> dict[str, Any]:
    """Kill ``number`` of the campaign, in a run folder of its own; its line of the results."""
    victim, how = KILL_TURNS[number % len(KILL_TURNS)]
    rng = np.random.default_rng((11, number))
    for _ in range(MOST_TRIES):
        with tempfile.TemporaryDirectory(prefix="lmd-soak-") as name:
            told = _one_kill(victim, how, float(rng.uniform(0.0, 1.5)), Path(name))
        if told is not None:
            signal_ms, beat_ms = told
            return {
                "number": number,
                "victim": victim,
                "signal": how.name,
                "signal_to_gate_ms": round(signal_ms, 3),
                "beat_to_gate_ms": round(beat_ms, 3),
            }
    raise RuntimeError(f"{victim} {how.name}: no emission found in {MOST_TRIES} builds")


def done_before(results: Path | None) -> dict[int, dict[str, Any]]:
    """Lines of a campaign that was broken off, by number; a torn last line does not count."""
    found: dict[int, dict[str, Any]] = {}
    if results is not None and results.exists():
        for line in results.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            found[int(row["number"])] = row
    return found


def keep(results: Path | None, row: dict[str, Any]) -> None:
    """Add a line to the results; after a torn one it begins anew."""
    if results is None:
        return
    with results.open("a+b") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _tried(number: int) -> dict[str, Any]:
    try:
        return _kill(number)
    except (RuntimeError, AssertionError, LmdError) as exc:
        return {"number": number, "failed": str(exc)}


def _killed(numbers: list[int], workers: int) -> Iterator[dict[str, Any]]:
    """Lines as they come; each worker is a process, for starting a cell minds its signals."""
    if workers == 1:
        yield from map(_tried, numbers)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, maxtasksperchild=20) as pool:
        yield from pool.imap_unordered(_tried, numbers)


def kills(share: float, workers: int = 1, results: Path | None = None) -> list[dict[str, Any]]:
    """SIGKILL and SIGSTOP of link and server at random moments of a bead, in real time.

    In turns, so that a campaign that is broken off has tried all of them. A kill just before a
    bead's own end says little: one that found the gate shut does not count. With ``workers``
    several builds run beside each other; with ``results`` (JSON lines) a campaign goes on where
    it was broken off.
    """
    n = max(1, round(KILLS * share))
    all_rows = done_before(results)
    todo = [k for k in range(n * len(KILL_TURNS)) if k not in all_rows]
    failed = []
    for row in _killed(todo, workers):
        if "failed" in row:
            failed.append(row["failed"])
        else:
            keep(results, row)
            all_rows[row["number"]] = row
        print(f"soak: {json.dumps(row)}", file=sys.stderr, flush=True)
    if failed:
        raise RuntimeError(f"{len(failed)} kills failed: {failed[0]}")
    return [_kill_row(victim, how, all_rows, n) for victim, how in KILL_TURNS]


def _kill_row(
    victim: str, how: signal.Signals, all_rows: dict[int, dict[str, Any]], n: int
) -> dict[str, Any]:
    mine = [r for r in all_rows.values() if (r["victim"], r["signal"]) == (victim, how.name)]
    signal_ms = np.array([r["signal_to_gate_ms"] for r in mine])
    beat_ms = np.array([r["beat_to_gate_ms"] for r in mine])
    limit, worst = LIMIT_MS[victim], float(signal_ms.max())
    return _row(
        f"{how.name} of the {victim}: signal to gate off, worst of {len(mine)}",
        worst,
        "ms",
        limit,
        len(mine) >= n and worst <= limit and float(beat_ms.max()) <= BEAT_LIMIT_MS,
        f"median {np.median(signal_ms):.1f}, least {signal_ms.min():.1f}; last beat to "
        f"gate off at most {beat_ms.max():.1f}",
    )


def stream(share: float) -> list[dict[str, Any]]:
    """Ten minutes of 500 segments a second on the motion wire, two busy processes beside."""
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
    """Every row of the fault table in every build phase, many seeds, judged by the oracle."""
    return fault_campaign.results(share)


def guards(share: float) -> list[dict[str, Any]]:
    """Every guard of the supervisor left out once: the tests must find it."""
    return mutants.results(share)


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


CAMPAIGNS = {
    "frames": frames,
    "plans": plans,
    "faults": faults,
    "guards": guards,
    "stream": stream,
    "kills": kills,
    "modbus": modbus_campaign.campaign,
    "inputs": input_campaign.campaign,
    "devices": devices_load.campaign,
}


def main() -> int:
    """Run the campaigns named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("campaign", nargs="*", help=f"of {', '.join(CAMPAIGNS)}; default all")
    parser.add_argument("--share", type=float, default=1.0, help="part of each campaign")
    parser.add_argument("--workers", type=int, default=1, help="builds beside each other (kills)")
    parser.add_argument("--results", type=Path, help="JSON lines, to go on from (kills)")
    options = parser.parse_args()
    if options.workers < 1:
        parser.error(f"--workers {options.workers}: 1 or more")
    unknown = [name for name in options.campaign if name not in CAMPAIGNS]
    if unknown or not 0.0 < options.share <= 1.0:
        parser.error(f"unknown campaign {unknown} or share {options.share} not in (0, 1]")
    rows = []
    for name, campaign in CAMPAIGNS.items():
        if not options.campaign or name in options.campaign:
            if campaign is kills:
                rows += kills(options.share, options.workers, options.results)
            else:
                rows += campaign(options.share)
    show(rows)
    if not options.campaign and options.share == 1.0:
        (HERE / "soak.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["met"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Faults by the thousand: every row of the fault table x build phase x seed, judged by the oracle.

python -m benchmarks.fault_campaign [--faults 10000] [--out benchmarks/fault_table.json]
python -m benchmarks.fault_campaign --page      measured times into docs/safety.md

Many faults are tried in one run of a cell: part of a build, the fault, the reaction, its end, the
way back by the cell's own commands, on. Every tenth cell is a process of its own on real ptys and
TCP ports, the others are on null wires. Measured is the time from the onset to the shut gate (for
rows that count light: the light since the onset) in the simulator's trace.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.clock import wall_iso
from controller.record.verify import verify_record
from tests.hil import fault_bench, fault_oracle, oracle
from tests.hil.fault_bench import Row, Tried

HERE = Path(__file__).parent
TABLE_JSON = HERE / "fault_table.json"
PAGE = HERE.parent / "docs" / "safety.md"
FROM, TO = "<!-- measured: from -->", "<!-- measured: to -->"
FAULTS = 10_000
A_CELL = 60
WIRES_EVERY = 10


@dataclass
class Tally:
    """What a campaign found; ``rows`` by kind of fault."""

    n: int = 0
    on_wires: int = 0
    records: int = 0
    lit: int = 0
    wall_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, tried: Tried, judged: fault_oracle.Judged, seed: int) -> None:
        row = self.rows.setdefault(
            tried.row.key,
            {
                "fault": judged.need.fault,
                "letter": judged.need.letter,
                "counts": judged.need.counts,
                "alarms": list(tried.row.first),
                "limit_ms": judged.need.limit_s * 1e3,
                "worst_ms": 0.0,
                "n": 0,
                "lit": 0,
                "seeds": [],
                "phases": {},
            },
        )
        self.n += 1
        self.lit += judged.lit
        row["n"] += 1
        row["lit"] += judged.lit
        row["worst_ms"] = max(row["worst_ms"], judged.reaction_us / 1e3)
        row["phases"][tried.phase] = row["phases"].get(tried.phase, 0) + 1
        if seed not in row["seeds"]:
            row["seeds"].append(seed)


Batch = tuple[int, bool, list[tuple[Row, str]]]  # seed, on the cell with every device, faults


def cells(n: int, first_seed: int) -> list[Batch]:
    """Each seed has every row in every phase once, shuffled.

    What only the cell with every device has is tried there, the rest on the plain one, which
    takes a third of the time.
    """
    plain = fault_bench.fitted_rows(fault_bench.quick_job())
    known = {row.key for row in plain}
    more = [r for r in fault_bench.fitted_rows(fault_bench.quick_job(True)) if r.key not in known]
    found: list[Batch] = []
    seed, left = first_seed, n
    while left > 0:
        for full, rows in ((False, plain), (True, more)):
            pairs = [(row, phase) for row in rows for phase in row.phases]
            todo = random.Random(seed).sample(pairs, len(pairs))[:left]
            left -= len(todo)
            found += [(seed, full, todo[k : k + A_CELL]) for k in range(0, len(todo), A_CELL)]
        seed += 1
    return found


def one_cell(folder: Path, batch: Batch, number: int, wires: bool, tally: Tally) -> None:
    """Run one cell and judge it."""
    seed, full, todo = batch
    job = fault_bench.quick_job(full).job
    name = f"seed {seed}, cell {number}" + (" on wires" if wires else "")
    done: list[Tried] = []
    try:
        fault_bench.run_cell(
            folder, todo, seed * 1000 + number, wires=wires, full=full, told=done.append
        )
    except (AssertionError, RuntimeError, OSError) as exc:
        tally.problems.append(f"{name}: {exc}")
    path = folder / "trace.mcap"
    try:
        run = oracle.read(path)
    except Exception as exc:
        tally.problems.append(f"{name}: {exc}")
        return
    judged = {j.onset_us: j for j in fault_oracle.judge(run)}
    for tried in done:
        found = judged.get(tried.onset_us)
        where = f"{name}: {tried.row.key}, {tried.phase}, at {tried.onset_us} us"
        if found is None:
            tally.problems.append(f"{where}: not in the trace")
            continue
        tally.add(tried, found, seed)
        tally.on_wires += wires
        tally.problems += [f"{where}: {text}" for text in (tried.wrong, found.wrong) if text]
        if tried.record is not None and (tried.record / "record.mcap").exists():
            tally.records += 1
            verified = verify_record(tried.record)
            tally.problems += [f"{where}: record: {p}" for p in verified.problems[:1]]
    for v in oracle.check(path, job, complete=False):
        # rests of a build have numbers beyond the plan's; stray light is what the judge is for
        stray = v.kind in ("emission_without_gate", "emission_not_enabled") and any(
            t.row.kind == "stray_light" and t.onset_us <= v.t_us <= t.onset_us + 120_000
            for t in done
        )
        if not stray and not v.text.endswith("not planned"):
            tally.problems.append(f"{name}: {v.kind} at {v.t_us} us: {v.text}")


def campaign(
    n: int, first_seed: int = 1, *, out: Path | None = None, limit_s: float = 1e9,
    wires_every: int = WIRES_EVERY,
) -> Tally:  # fmt: skip
    """``n`` faults; results go to ``out`` after each cell. Ends early after ``limit_s``."""
    tally = Tally()
    begin_s = time.monotonic()
    for number, batch in enumerate(cells(n, first_seed)):
        if time.monotonic() - begin_s > limit_s:
            break
        folder = Path(tempfile.mkdtemp(prefix="lmd-faults-"))
        wires = wires_every > 0 and number % wires_every == wires_every - 1
        before = len(tally.problems)
        one_cell(folder, batch, number, wires, tally)
        for problem in tally.problems[before:]:
            print(f"faults: {problem}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        tally.wall_s = time.monotonic() - begin_s
        if out is not None:
            write(tally, out)
    return tally


def write(tally: Tally, out: Path) -> None:
    """The table as JSON, dated."""
    rows = {}
    for key, row in sorted(tally.rows.items()):
        rows[key] = {**row, "seeds": len(row["seeds"]), "worst_ms": round(row["worst_ms"], 1)}
    told = {
        "date": wall_iso()[:10],
        "faults": tally.n,
        "on_wires": tally.on_wires,
        "records_verified": tally.records,
        "lit_at_onset": tally.lit,
        "wall_s": round(tally.wall_s),
        "problems": tally.problems,
        "rows": rows,
    }
    out.write_text(json.dumps(told, indent=1) + "\n")


def results(share: float = 1.0) -> list[dict[str, Any]]:
    """The rows of ``make soak``."""
    n = max(A_CELL, round(FAULTS * share))
    tally = campaign(n, out=TABLE_JSON if share == 1.0 else None)
    what = (
        f"{len(tally.rows)} kinds, {tally.on_wires} on real wires, {tally.lit} with the gate open, "
        f"{tally.records} records verified, {tally.wall_s:.0f} s"
    )
    row = {"area": "soak", "rival": "", "ratio": None, "goal": 0, "unit": "1", "note": what}
    bad = len(tally.problems)
    return [
        {**row, "figure": f"wrong reactions, {tally.n} faults", "value": bad, "met": bad == 0},
        {**row, "figure": "faults tried", "value": tally.n, "goal": n, "met": tally.n >= n},
    ]


def page_text(told: dict[str, Any]) -> str:
    """The measured times as a table of the page."""
    lines = [
        f"Measured {told['date']}: {told['faults']} faults, {told['on_wires']} of them on real "
        f"ptys and TCP, {told['lit_at_onset']} with the gate open at the onset, "
        f"{len(told['problems'])} wrong.",
        "",
        "| fault | scenario | alarm that is first | longest | limit | tried | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, row in sorted(told["rows"].items(), key=lambda kv: (kv[1]["fault"], kv[0])):
        light = " of light" if row["counts"] == "light" else ""
        limited = f"{row['limit_ms']:g} ms{light}" if row["letter"] else "goes on"
        alarms = ", ".join(f"`{a}`" for a in row["alarms"][:3]) or "none"
        worst = f"{row['worst_ms']:.0f} ms" if row["letter"] else ""
        lines.append(
            f"| {row['fault']} | `{key}` | {alarms} | {worst} | {limited} | {row['n']} | "
            f"{row['seeds']} |"
        )
    return "\n".join(lines)


def write_page() -> None:
    """Put the newest table between the page's markers."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(FROM)
    _, tail = rest.split(TO)
    body = page_text(json.loads(TABLE_JSON.read_text()))
    PAGE.write_text(f"{head}{FROM}\n{body}\n{TO}{tail}", encoding="utf-8")


def main() -> int:
    """Run the campaign, or write the page."""
    parser = argparse.ArgumentParser(prog="fault_campaign")
    parser.add_argument("--faults", type=int, default=FAULTS)
    parser.add_argument("--seed", type=int, default=1, help="the first of the seeds")
    parser.add_argument("--limit-s", type=float, default=1e9, help="no new cell after this time")
    parser.add_argument("--out", type=Path, default=TABLE_JSON)
    parser.add_argument("--page", action="store_true", help="only write docs/safety.md")
    options = parser.parse_args()
    if options.page:
        write_page()
        return 0
    tally = campaign(options.faults, options.seed, out=options.out, limit_s=options.limit_s)
    print(f"{tally.n} faults, {len(tally.problems)} wrong, {tally.wall_s:.0f} s", file=sys.stderr)
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""A signal to one of a cell's processes in the middle of a bead, and when the gate fell."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controller.errors import ApiError
from tests.hil import oracle
from tests.hil.whole_cell import example, started_build

TRIES = 6  # builds until one is met with the gate open
EMISSION_S = 60.0
# What a computer that is too busy for real time does to a build: it ends itself, in order.
STARVED = frozenset(
    {"LINK_LOST", "FIRMWARE_FAULT", "TICK_LATE", "HOMING_FAILED", "START_FAILED", "RESUME_FAILED"}
)
ENDED = ("STOPPING", "STOPPED", "ABORTING", "ABORTED")


def _met(client: Any) -> bool:
    """Until the gate has been open for a moment, well inside a bead; False: starved before."""
    end = time.monotonic() + EMISSION_S
    seen = 0
    while time.monotonic() < end:
        status = client.call("status", timeout_s=10.0)
        seen = seen + 1 if status["motion"] and status["motion"]["gate_on"] else 0
        if seen >= 3:
            return True
        names = {a["name"] for a in status["alarms"]}
        if names and status["machine"]["state"] in ENDED:
            starved = [n for n in names if n in STARVED or n.endswith("_SILENT")]
            assert starved, f"the build ended by {sorted(names)}"
            return False
        time.sleep(0.02)
    raise AssertionError(f"no emission within {EMISSION_S:g} s and no alarm that says why")


@contextlib.contextmanager
def emitting(folder: Path, cell: str) -> Iterator[dict[str, Any]]:
    """A build of the blade in real time, met inside a bead; one that was starved is tried again."""
    for attempt in range(TRIES):
        with contextlib.ExitStack() as stack:
            own = folder / str(attempt)
            try:
                found = stack.enter_context(
                    started_build(example("blade.stl"), own, time_mode="real", cell=cell)
                )
            except ApiError as exc:
                if not any(name in str(exc) for name in STARVED):
                    raise
                continue
            if not _met(found["client"]):
                continue
            yield found
            return
    raise AssertionError(f"{TRIES} builds were starved before their first bead")


def send(cell: dict[str, Any], victim: str, how: signal.Signals) -> int:
    """The signal to ``link`` or ``server``; when, in us of the simulator's trace."""
    pid = cell["told"]["link_pid"] if victim == "link" else cell["server"].pid
    assert pid, f"the {victim} is no process of its own"
    sent_us = time.monotonic_ns() // 1000
    os.kill(pid, how)
    time.sleep(0.6)
    if how == signal.SIGSTOP:
        os.kill(pid, signal.SIGKILL)
    return sent_us - int(cell["simulator"]["start_us"])


def gate_fell_ms(record: Path, signal_us: int) -> float | None:
    """From the signal to the shut gate, which stays shut; None: it was shut at that moment."""
    gate = oracle.read(record / "trace.mcap").rows["/trace/gate"]
    before, after = gate[gate["t_us"] <= signal_us], gate[gate["t_us"] > signal_us]
    assert len(before), "no emission before the signal: proves nothing"
    if not before[-1]["on"]:
        return None
    shut_us = int(after[after["on"] == 0]["t_us"][0])
    assert not after["on"][after["t_us"] > shut_us].any(), "the gate opened again"
    return (shut_us - signal_us) / 1e3


def signalled(cell_name: str, victim: str, how: signal.Signals, folder: Path) -> tuple[Path, float]:
    """The record of a build whose link or server got the signal in a bead, and the time it took.

    The record is sealed: the recorder closes it when its server is gone.
    """
    for attempt in range(TRIES):
        with emitting(folder / f"try{attempt}", cell_name) as cell:
            signal_us = send(cell, victim, how)
        took_ms = gate_fell_ms(cell["record"], signal_us)
        if took_ms is not None:
            _wait_for(cell["record"] / "record.seal")
            print(f"{cell_name} {victim} {how.name}: gate shut {took_ms:.1f} ms after the signal")
            return cell["record"], took_ms
    raise AssertionError("each signal came with the gate shut: proves nothing")


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 10.0
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.02)

"""A million guarded Modbus transactions under wire faults: no wrong value is taken.

python -m benchmarks.modbus_campaign [--transactions 1000000]

Null wires and simulated time. The device and its faults are those of the guard's own tests: it
builds its frames itself, with its own checksum, and its registers hold a count of requests, so
that any value that is not the present one shows. Every fifth answer is wrong in one of the ways
of ``FAULTS``. On TCP a flipped bit of the payload cannot be told (Modbus TCP has no checksum):
there flips are confined to what is not payload, and ``tcp_payload_flips`` says how many of 1,000
flips of payload were taken.
"""

import argparse
import random
import sys
from typing import Any

from firmware_bridge.errors import BridgeError
from firmware_bridge.modbus_guard import BlockRead
from tests.transcripts.wire_script import run
from tests.unit import test_modbus_guard as bench

TRANSACTIONS = 1_000_000
WRONG_SHARE = 0.2
PROOF = 1000  # flips of TCP payload that are tried


async def mixed(rtu: bool, n: int) -> dict[str, int]:
    """``n`` reads with random faults between: how many were taken, wrong, refused, by fault."""
    port = bench.FaultPort(rtu)
    port.dice = random.Random(f"campaign{rtu}")
    guard, block = bench.guard_of(port), BlockRead(bench.BLOCK)
    told = {"taken": 0, "wrong": 0, "refused": 0, "faulty": 0}
    for _ in range(n):
        if not guard.is_open:
            await guard.open()
        faulty = port.dice.random() < WRONG_SHARE
        port.fault = port.dice.choice(bench.FAULTS) if faulty else bench.honest
        told["faulty"] += faulty
        try:
            registers = await guard.read(block)
        except BridgeError:
            told["refused"] += 1
            continue
        told["taken"] += 1
        told["wrong"] += registers != [port.n] * bench.BLOCK.words
    guard.close()
    return told


async def payload_flips(rtu: bool, n: int) -> int:
    """How many answers with one flipped bit of payload are taken."""
    port = bench.FaultPort(rtu)
    port.dice = random.Random("payload")
    first = 3 if rtu else 9

    def flip(port: Any, wire: Any, head: bytes, good: bytes) -> list[tuple[float, bytes]]:
        answer = bytearray(wire.frame(head, good))
        end = len(answer) - (2 if rtu else 0)
        bit = port.dice.randrange(8 * first, 8 * end)
        answer[bit // 8] ^= 1 << bit % 8
        return [(0.002, bytes(answer))]

    guard, block = bench.guard_of(port), BlockRead(bench.BLOCK)
    wrong = 0
    for _ in range(n):
        if not guard.is_open:
            await guard.open()
        port.fault = bench.honest
        try:
            await guard.read(block)
            port.fault = flip
            wrong += await guard.read(block) != [port.n] * bench.BLOCK.words
        except BridgeError:
            continue
    guard.close()
    return wrong


def campaign(share: float) -> list[dict[str, Any]]:
    """Rows in the form of the benchmarks."""
    rows = []
    for rtu in (True, False):
        n = max(1, round(share * TRANSACTIONS / 2))
        told = run(mixed(rtu, n))
        flips = run(payload_flips(rtu, PROOF))
        name = "RTU" if rtu else "TCP"
        said = f"{told['faulty']} answers at fault, {told['refused']} reads refused"
        rows.append(_row(f"Modbus {name}: wrong values taken of {n} transactions", told, said))
        rows.append(
            {
                **_row(f"Modbus {name}: taken of {PROOF} flips of one payload bit", told, ""),
                "value": flips,
                "goal": 0 if rtu else None,
                "met": flips == 0 if rtu else None,
                "note": "a checksum tells" if rtu else "no checksum: bounds and read-back only",
            }
        )
    return rows


def _row(figure: str, told: dict[str, int], note: str) -> dict[str, Any]:
    return {
        "area": "soak",
        "figure": figure,
        "value": told["wrong"],
        "unit": "1",
        "goal": 0,
        "met": told["wrong"] == 0 and told["taken"] > told["refused"],
        "rival": "",
        "ratio": None,
        "note": note,
    }


def main() -> int:
    """Run it and print its rows."""
    from benchmarks.__main__ import show

    parser = argparse.ArgumentParser(prog="modbus_campaign")
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS)
    rows = campaign(parser.parse_args().transactions / TRANSACTIONS)
    show(rows)
    return 0 if all(row["met"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

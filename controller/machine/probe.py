"""One reading of every device, without a supervisor: ``lmd devices probe`` and ``watch``."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from controller.config import Cell
from controller.machine.cell import make_drivers
from firmware_bridge.errors import BridgeError
from firmware_bridge.transport import Port

ROUND_S = 0.2  # between two rounds of reading


async def read_devices(
    cell: Cell,
    ports: Mapping[str, Port],
    seconds: float,
    rounds: int,
    on_round: Callable[[int, list[dict[str, Any]]], None] | None = None,
) -> list[list[dict[str, Any]]]:
    """Connect to all devices and read them ``rounds`` times.

    Returns for each round and role ``{role, driver, port, answers, error, reading}``; a
    device that does not answer within ``seconds`` of machine time is told, not waited for.
    ``on_round`` is told each round when it has been read.
    """
    drivers = make_drivers(cell, ports)
    try:
        found = []
        for n in range(rounds):
            if n:
                await asyncio.sleep(ROUND_S)
            found.append(
                [
                    await _read(role, drivers[role], getattr(cell, role).driver, ports, seconds)
                    for role in drivers
                ]
            )
            if on_round is not None:
                on_round(n, found[-1])
        return found
    finally:
        for driver in drivers.values():
            driver.close()


async def _read(
    role: str, driver: Any, driver_name: str, ports: Mapping[str, Port], seconds: float
) -> dict[str, Any]:
    error = ""
    try:
        async with asyncio.timeout(seconds):
            if driver.reading is None:
                await driver.connect()
            await driver.poll()
    except TimeoutError:
        error = f"no answer in {seconds:g} s"
    except BridgeError as exc:
        error = str(exc)
    return {
        "role": role,
        "driver": driver_name,
        "port": str(ports[role]),
        "answers": not error,
        "error": error,
        "reading": asdict(driver.reading) if driver.reading is not None and not error else None,
    }

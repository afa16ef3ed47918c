"""``lmd serve``, ``lmd sim``, ``lmd devices``: a cell's processes and its devices."""

import asyncio
import importlib
import json as json_lib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.config import find_file, load_cell
from controller.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
CellName = Annotated[str, typer.Option("--cell", help="Cell: name or path.")]
Simulator = Annotated[
    Path | None,
    typer.Option("--simulator", help="The simulator's ready line (lmd sim prints it), as a file."),
]

devices = typer.Typer(
    help="What is configured, what answers, live values.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def default_run_dir(cell_name: str) -> Path:
    """Where a server of this cell keeps its socket and process ids."""
    return Path("run") / cell_name


def read_channels(cell_name: str, simulator: Path | None) -> dict[str, Any] | None:
    """The simulator's ready line: given, or as a running ``lmd sim`` of this cell left it."""
    path = simulator or default_run_dir(cell_name) / "simulator.json"
    if not path.exists():
        if simulator is not None:
            raise ConfigError(f"--simulator {path}: no such file")
        return None
    try:
        ready = json_lib.loads(path.read_text(encoding="utf-8"))
        ready["channels"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigError(f"{path}: is no ready line of a simulator ({exc})") from None
    return dict(ready)


def serve(
    cell: CellName = "sim",
    time: Annotated[
        str | None, typer.Option("--time", help="real, virtual or null; default as simulated.")
    ] = None,
    simulator: Simulator = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="Default run/<cell>.")] = None,
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="Faults (null wires only).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Null wires only.")] = 1,
    trace_dir: Annotated[
        Path | None, typer.Option("--trace-dir", help="Folder of trace.mcap (null wires only).")
    ] = None,
    while_input_open: Annotated[
        bool, typer.Option("--while-input-open", help="End when standard input closes.")
    ] = False,
) -> None:
    """The cell server: supervisor, device loops, motion link, API."""
    from controller.api.serve import ServeSettings
    from controller.api.serve import serve as run_server

    path = find_file("cells", cell)
    config, _ = load_cell(str(path))
    mode = time or ("virtual" if config.simulated else "real")
    where = run_dir or default_run_dir(config.name)
    where.mkdir(parents=True, exist_ok=True)
    ready: dict[str, Any] = {}
    null_cell = None
    if mode == "null":
        chosen = None if scenario is None else find_file("scenarios", scenario)
        null_cell = _null_cell(path, chosen, seed, trace_dir or where)
    elif config.simulated:
        ready = read_channels(config.name, simulator) or {}
        if not ready:
            raise ConfigError(_start_one_first(config.name, cell))
    run_server(
        ServeSettings(
            cell=str(path),
            run_dir=where,
            time_mode=mode,
            channels=ready.get("channels"),
            time_socket=ready.get("time_socket"),
            simulator=null_cell,
            on_ready=lambda said: print(json_lib.dumps({"ready": True, **said}), flush=True),
            while_input_open=while_input_open,
        )
    )


def _null_cell(cell: Path, scenario: Path | None, seed: int, trace_dir: Path) -> Any:
    """The simulator as an object, taken by name: the rooms do not import each other.

    The one place where both meet in a process (docs/decisions).
    """
    simulator = importlib.import_module("hil_sim.null")
    try:
        return simulator.NullCell(cell, scenario, seed, trace_dir)
    except simulator.CellFileError as exc:
        raise ConfigError(str(exc)) from None


def _start_one_first(name: str, cell: str) -> str:
    return (
        f"cell {name!r} is simulated and no simulator runs; start one first: lmd sim --cell {cell}"
    )


def sim(
    cell: CellName = "sim",
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="Faults to inject: name or path.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that varies.")] = 1,
    time: Annotated[str, typer.Option("--time", help="real or virtual.")] = "virtual",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of trace.mcap; default run/<cell>.")
    ] = None,
) -> None:
    """The simulator alone: prints its ports as one JSON line and serves until interrupted."""
    path = find_file("cells", cell)
    config, _ = load_cell(str(path))
    if not config.simulated:
        raise ConfigError(f"{path}: cell {config.name!r} is not simulated")
    run_dir = default_run_dir(config.name)
    run_dir.mkdir(parents=True, exist_ok=True)
    words = ["-m", "hil_sim", "--cell", str(path), "--seed", str(seed), "--time", time]
    words += ["--run-dir", str(run_dir), "--out", str(out or run_dir)]
    if scenario is not None:
        words += ["--scenario", str(find_file("scenarios", scenario))]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *words])


@devices.command("list")
def list_devices(cell: CellName = "sim", json: Json = False) -> None:
    """What the cell file names: role, driver, port, rate."""
    from controller.machine.cell import ROLES
    from controller.terminal import print_json, print_table

    config, _ = load_cell(cell)
    found = [
        {
            "role": role,
            "driver": getattr(config, role).driver,
            "port": getattr(config, role).port,
            "poll_hz": getattr(config, role).poll_hz,
            "max_age_s": getattr(config, role).max_age_s,
        }
        for role in ROLES
    ]
    if json:
        print_json({"cell": config.name, "devices": found})
        return
    rows = [[d["role"], d["driver"], d["port"], d["poll_hz"], d["max_age_s"]] for d in found]
    head = ["role", "driver", "port", "poll, Hz", "oldest, s"]
    print_table(f"cell {config.name}", head, rows)


@devices.command()
def probe(
    cell: CellName = "sim",
    simulator: Simulator = None,
    seconds: Annotated[float, typer.Option("--seconds", help="How long each may take.")] = 3.0,
    json: Json = False,
) -> None:
    """Connect to every device and read it once: what answers, with which values."""
    from controller.terminal import print_json, print_table

    found = _with_devices(cell, simulator, seconds, rounds=1)[0]
    if json:
        print_json({"cell": cell, "devices": found})
    else:
        rows = [[d["role"], d["answers"], d["error"] or _short(d["reading"])] for d in found]
        print_table(f"cell {cell}", ["role", "answers", "values"], rows)
    if not all(d["answers"] for d in found):
        raise typer.Exit(1)


@devices.command()
def watch(
    cell: CellName = "sim",
    simulator: Simulator = None,
    rounds: Annotated[int, typer.Option("--rounds", help="How often to read.")] = 5,
    json: Json = False,
) -> None:
    """Read every device again and again."""
    from controller.terminal import print_json

    if not 1 <= rounds <= 100_000:
        raise ConfigError(f"--rounds {rounds}: must be 1 to 100000")
    found = _with_devices(cell, simulator, 3.0, rounds=rounds)
    if json:
        print_json({"cell": cell, "rounds": found})
        return
    for n, row in enumerate(found):
        for d in row:
            print(f"{n:>4}  {d['role']:<10} {d['error'] or _short(d['reading'])}")


def _short(reading: dict[str, Any] | None) -> str:
    if not reading:
        return "-"
    return ", ".join(f"{k} {v}" for k, v in reading.items() if k != "at_us")


def _with_devices(
    cell: str, simulator: Path | None, seconds: float, rounds: int
) -> list[list[dict[str, Any]]]:
    """Connect to the cell's devices as the server does, read them, let them go."""
    from controller.clock import RealLoop, VirtualLoop, WireTime
    from controller.machine.cell import ports_of
    from controller.machine.probe import read_devices

    config, _ = load_cell(cell)
    ready = read_channels(config.name, simulator) if config.simulated else None
    if config.simulated and ready is None:
        raise ConfigError(_start_one_first(config.name, cell))
    socket = ready.get("time_socket") if ready else None
    loop = VirtualLoop(WireTime(socket)) if socket else RealLoop()
    asyncio.set_event_loop(loop)
    try:
        ports = ports_of(config, ready["channels"] if ready else None)
        return loop.run_until_complete(read_devices(config, ports, seconds, rounds))
    finally:
        loop.finish()
        loop.close()

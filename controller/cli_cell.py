"""``lmd serve``, ``lmd sim``, ``lmd devices``: a cell's processes and its devices.

A simulator leaves its ready line in ``run/<cell>/simulator.json`` as long as it runs; server
and device verbs find it there and take its setting of time.
"""

import asyncio
import importlib
import json as json_lib
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller import words
from controller.errors import ConfigError

if TYPE_CHECKING:  # pydantic takes longer than a wrong word may
    from controller.config import Cell

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
CellName = Annotated[str, typer.Option("--cell", help="Cell: name or path.")]
Hidden = Annotated[
    int | None,
    typer.Option("--hidden", help="Seed: the simulated cell differs from its file."),
]
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


def read_simulator(cell_name: str, given: Path | None) -> dict[str, Any]:
    """The ready line of the running simulator: given, or as ``lmd sim`` of this cell left it.

    Raises ConfigError when none runs.
    """
    path = given or default_run_dir(cell_name) / "simulator.json"
    try:
        ready = json_lib.loads(path.read_text(encoding="utf-8"))
        pid, _ = int(ready["pid"]), ready["channels"]
    except FileNotFoundError:
        if given is not None:
            raise ConfigError(f"--simulator {path}: no such file") from None
        raise ConfigError(_start_one_first(cell_name)) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: is no ready line of a simulator") from None
    if not _runs(pid):
        raise ConfigError(f"{path}: its simulator (process {pid}) is gone; start one: lmd sim")
    return dict(ready)


def _start_one_first(name: str) -> str:
    return f"cell {name!r} is simulated and no simulator runs here; start one first: lmd sim"


def _runs(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _make_folder(path: Path) -> None:
    """Make a folder. Raises ConfigError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"{path}: is a file, a folder is wanted") from None
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be made ({exc.strerror})") from None


def _load_cell(name: str) -> tuple[Path, "Cell"]:
    """A cell's file and what it says."""
    from controller.config import find_file, load_cell

    path = find_file("cells", name)
    return path, load_cell(str(path))[0]


def serve(
    cell: CellName = "sim",
    time: Annotated[
        str | None,
        typer.Option("--time", help="real, virtual or null; default as the simulator runs."),
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
    hidden: Hidden = None,
    while_input_open: Annotated[
        bool, typer.Option("--while-input-open", help="End when standard input closes.")
    ] = False,
    json: Json = False,
) -> None:
    """The cell server: supervisor, device loops, motion link, API."""
    if time is not None:
        words.one_of("--time", time, words.TIME_MODES)
    words.seed(seed)
    if hidden is not None and time != "null":
        raise ConfigError(f"--hidden {hidden}: goes to lmd sim, or with --time null")
    if scenario is not None and time != "null":
        raise ConfigError(f"--scenario {scenario}: goes to lmd sim, or with --time null")
    path, config = _load_cell(cell)
    if not config.simulated and time not in (None, "real"):
        raise ConfigError(f"--time {time}: cell {config.name!r} is not simulated, only real is")

    from controller.api.serve import ServeSettings
    from controller.api.serve import serve as run_server
    from controller.terminal import print_json

    mode = time or "real"
    ready: dict[str, Any] = {}
    null_cell = None
    if mode == "null":
        null_cell = _null_cell(path, scenario, seed, trace_dir, hidden)
    elif config.simulated:
        ready = read_simulator(config.name, simulator)
        runs = "virtual" if ready.get("time_socket") else "real"
        if time not in (None, runs):
            raise ConfigError(f"--time {time}: the simulator runs in {runs} time")
        mode = runs
    where = run_dir or default_run_dir(config.name)
    _refuse_second(where / "server.json", f"a server of cell {config.name!r}")
    _make_folder(where)
    run_server(
        ServeSettings(
            cell=str(path),
            run_dir=where,
            time_mode=mode,
            channels=ready.get("channels"),
            time_socket=ready.get("time_socket"),
            simulator=null_cell,
            on_ready=lambda said: print_json({"ready": True, **said}, one_line=True),
            while_input_open=while_input_open,
        )
    )


def _refuse_second(path: Path, what: str) -> None:
    """Raise ConfigError when the process that wrote this file still runs."""
    try:
        pid = int(json_lib.loads(path.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if pid != os.getpid() and _runs(pid):
        raise ConfigError(f"{what} runs here already (process {pid}, {path})")


def _null_cell(
    cell: Path, scenario: str | None, seed: int, trace_dir: Path | None, hidden: int | None
) -> Any:
    """The simulator as an object, taken by name: the rooms do not import each other.

    The one place where both meet in a process (docs/decisions).
    """
    from controller.config import find_file

    chosen = None if scenario is None else find_file("scenarios", scenario)
    simulator = importlib.import_module("hil_sim.null")
    try:
        return simulator.NullCell(cell, chosen, seed, trace_dir, hidden)
    except (simulator.CellFileError, OSError) as exc:
        raise ConfigError(str(exc)) from None


def sim(
    cell: CellName = "sim",
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="Faults to inject: name or path.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that varies.")] = 1,
    time: Annotated[
        str,
        typer.Option("--time", help="real, or virtual: for one client, ends when that leaves."),
    ] = "real",
    out: Annotated[Path | None, typer.Option("--out", help="Folder that gets trace.mcap.")] = None,
    hidden: Hidden = None,
    json: Json = False,
) -> None:
    """The simulator alone: prints its ports, serves until ended.

    The ports come as one JSON line on standard output.
    """
    words.one_of("--time", time, ("real", "virtual"))
    words.seed(seed)
    path, config = _load_cell(cell)
    if not config.simulated:
        raise ConfigError(f"{path}: cell {config.name!r} is not simulated")
    run_dir = default_run_dir(config.name)
    arguments = ["-m", "hil_sim", "--cell", str(path), "--seed", str(seed), "--time", time]
    arguments += ["--run-dir", str(run_dir)]
    if hidden is not None:
        arguments += ["--hidden", str(words.seed(hidden))]
    if scenario is not None:
        from controller.check import check_scenario
        from controller.config import find_file

        chosen = find_file("scenarios", scenario)
        check_scenario(chosen)
        arguments += ["--scenario", str(chosen)]
    _refuse_second(run_dir / "simulator.json", f"a simulator of cell {config.name!r}")
    if out is not None:
        _make_folder(out)
        arguments += ["--out", str(out)]
    _make_folder(run_dir)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *arguments])


@devices.command("list")
def list_devices(cell: CellName = "sim", json: Json = False) -> None:
    """What the cell file names: role, driver, port, rate."""
    from controller.machine.cell import fitted
    from controller.terminal import print_json, print_table

    _, config = _load_cell(cell)
    found = [
        {
            "role": role,
            "driver": getattr(config, role).driver,
            "port": getattr(config, role).port,
            "poll_hz": getattr(config, role).poll_hz,
            "max_age_s": getattr(config, role).max_age_s,
        }
        for role in fitted(config)
    ]
    if json:
        print_json({"cell": config.name, "devices": found})
        return
    rows = [
        [d["role"], f"{d['poll_hz']:g}", f"{d['max_age_s']:g}", f"{d['driver']} on {d['port']}"]
        for d in found
    ]
    head = ["role", "poll, Hz", "oldest, s", "driver and port"]
    print_table(f"cell {config.name}: {config.title}", head, rows, text_last=True)


@devices.command()
def probe(
    cell: CellName = "sim",
    simulator: Simulator = None,
    seconds: Annotated[float, typer.Option("--seconds", help="How long each may take.")] = 3.0,
    json: Json = False,
) -> None:
    """Connect to every device and read it once: what answers, with which values."""
    from controller.terminal import number, paint, print_json, print_table, reading_line

    if not (math.isfinite(seconds) and 0.0 < seconds <= 3600.0):
        raise ConfigError(f"--seconds {seconds:g}: must be above 0 and at most 3600")
    found = _with_devices(cell, simulator, seconds, rounds=1)[0]
    silent = [d["role"] for d in found if not d["answers"]]
    if json:
        print_json({"cell": cell, "devices": found})
    else:
        rows = [
            [
                d["role"],
                paint(number(d["answers"]), "good" if d["answers"] else "bad"),
                d["error"] or reading_line(d["reading"]),
            ]
            for d in found
        ]
        print_table(f"cell {cell}", ["role", "answers", "reading"], rows, text_last=True)
    if silent:
        raise NoAnswer(f"{', '.join(silent)}: no answer ({len(silent)} of {len(found)} devices)")


class NoAnswer(ConfigError):
    """A device that is configured does not answer."""

    exit_code = 1


@devices.command()
def watch(
    cell: CellName = "sim",
    simulator: Simulator = None,
    rounds: Annotated[int, typer.Option("--rounds", help="How often to read.")] = 5,
    json: Json = False,
) -> None:
    """Read every device again and again, five times a second."""
    from controller.terminal import print_json, reading_line

    if not 1 <= rounds <= 100_000:
        raise ConfigError(f"--rounds {rounds}: must be 1 to 100000")

    def show(n: int, row: list[dict[str, Any]]) -> None:
        for d in row:
            print(f"{n + 1:>4}  {d['role']:<10} {d['error'] or reading_line(d['reading'])}")
        sys.stdout.flush()

    found = _with_devices(cell, simulator, 3.0, rounds, None if json else show)
    if json:
        print_json({"cell": cell, "rounds": found})


@devices.command("test")
def prove(
    cell: CellName = "sim",
    simulator: Simulator = None,
    rounds: Annotated[int, typer.Option("--rounds", help="How often to read.")] = 20,
    json: Json = False,
) -> None:
    """Read every device many times: all must answer, every value be within the cell's limits.

    Sets nothing. What is set and measured belongs to lmd calibrate.
    """
    from controller.device_limits import summary
    from controller.terminal import paint, print_json, print_table

    if not 2 <= rounds <= 1000:
        raise ConfigError(f"--rounds {rounds}: must be 2 to 1000")
    _, config = _load_cell(cell)
    found = summary(config, _with_devices(cell, simulator, 3.0, rounds))
    failed = [d["role"] for d in found if not d["passed"]]
    if json:
        print_json({"cell": config.name, "passed": not failed, "devices": found})
    else:
        rows = []
        for d in found:
            said = "; ".join([*d["errors"], *d["odd"]])
            text = paint("ok", "good") if d["passed"] else paint(said, "bad")
            rows.append([d["role"], f"{d['answered']} of {d['asked']}", text])
        print_table(f"cell {config.name}", ["role", "answered", "result"], rows, text_last=True)
    if failed:
        raise NotPassed(f"{', '.join(failed)}: failed ({len(failed)} of {len(found)} devices)")


class NotPassed(ConfigError):
    """A device failed its test."""

    exit_code = 4


def _with_devices(
    cell: str, simulator: Path | None, seconds: float, rounds: int, on_round: Any = None
) -> list[list[dict[str, Any]]]:
    """Connect to the cell's devices as the server does, read them, let them go."""
    _, config = _load_cell(cell)
    ready = read_simulator(config.name, simulator) if config.simulated else {}

    from controller.clock import RealLoop, VirtualLoop, WireTime
    from controller.machine.cell import ports_of
    from controller.machine.probe import read_devices

    socket = ready.get("time_socket")
    try:
        loop = VirtualLoop(WireTime(socket)) if socket else RealLoop()
    except OSError as exc:
        raise ConfigError(f"{socket}: no time server answers ({exc.strerror})") from None
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        try:
            ports = ports_of(config, ready.get("channels"))
            return runner.run(read_devices(config, ports, seconds, rounds, on_round))
        finally:
            loop.finish()

"""The main job: a CAD file becomes a finished build with its record and report.

``build_part`` plans, starts simulator and cell server as processes, and is a client of the
server like any console: it loads the job, resets, homes, starts, follows and asks for the
result. Nothing here reaches into the machine.
"""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller import launch, words
from controller.api.client import Client
from controller.api.protocol import CallError
from controller.clock import wall_iso, wall_pause
from controller.config import Cell, find_file, load_cell
from controller.errors import ApiError, ConfigError, LmdError, PreflightError, RecordError
from controller.model import BuildPlan
from controller.planning import write_job
from controller.record.keys import key_path, make_key
from controller.record.reader import read_record
from controller.record.report import write_report
from controller.record.summary import summarise
from controller.record.verify import verify_record
from controller.record.writer import check_room
from controller.session import prepare_plan

LOOK_S = 0.25  # wall time between two looks at the progress
ANSWER_S = 30.0  # wall time after which a server that does not answer is given up
Tell = Callable[[float, str], None]  # share done (0 to 1), what is being done


@dataclass(frozen=True)
class Wish:
    """What ``lmd run`` was asked for."""

    part: Path
    recipe: str | None = None
    cell: str = "sim"
    out: Path = Path("records")
    time_mode: str | None = None  # real | virtual | null; None: virtual on a simulated cell
    scenario: str | None = None
    seed: int = 1
    mode: str = "development"
    units: str | None = None
    scale: float = 1.0
    rotate_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Interrupted(LmdError):
    """The user ended a build: it was stopped in order and its record closed."""

    exit_code = 130

    def __init__(self, state: str, record: Path) -> None:
        super().__init__(f"interrupted: the build was stopped ({state}), its record is {record}")
        self.details = {"state": state, "record": str(record)}


class BuildLost(ApiError):
    """Server or simulator were gone in the middle of a build."""

    exit_code = 3

    def __init__(self, what: str, record: Path) -> None:
        super().__init__(f"{what}; what was recorded until then is in {record}")
        self.details = {"state": "INTERRUPTED", "record": str(record)}


def _quiet(share: float, text: str) -> None:
    """Tell nobody."""


def build_part(wish: Wish, tell: Tell = _quiet) -> dict[str, Any]:
    """Do the main job; the object that ``lmd run --json`` prints.

    Raises LmdError for bad input before anything is written or moved. An interrupt during
    the build stops it in an orderly way and is raised again.
    """
    cell_path = find_file("cells", wish.cell)
    cell, _ = load_cell(str(cell_path))
    time_mode = wish.time_mode or ("virtual" if cell.simulated else "real")
    scenario = check_wish(wish, cell, time_mode)
    launch.check_devices(cell, cell_path)
    check_room(wish.out, 0.0)
    plan = prepare_plan(
        wish.part,
        wish.recipe,
        str(cell_path),
        units=wish.units,
        scale=wish.scale,
        rotate=wish.rotate_deg,
        strict=wish.mode == "production",
        progress=lambda share, text: tell(0.2 * share, text),
    )
    header = {"part": plan.part["name"], "seed": wish.seed, "time": time_mode}
    return execute(plan, cell, cell_path, wish, time_mode, scenario, header, tell)


def execute(
    plan: BuildPlan,
    cell: Cell,
    cell_path: Path,
    wish: Wish,
    time_mode: str,
    scenario: Path | None,
    header: dict[str, Any],
    tell: Tell,
) -> dict[str, Any]:
    """Build a plan on a cell that is started for it; ``wish`` says where to and how."""
    check_room(wish.out, float(plan.figures["duration_s"]))
    if not key_path().exists():
        make_key()
    with _record_folder(wish.out, Path(plan.part["source_name"]).stem) as folder:
        run_dir = launch.short_run_dir()
        try:
            job = run_dir / "job.lmdjob"
            write_job(plan, job)
            with running_cell(
                cell_path,
                cell,
                run_dir,
                time_mode=time_mode,
                trace_dir=folder,
                scenario=scenario,
                seed=wish.seed,
            ) as server:
                if scenario is not None:
                    header["scenario"] = scenario.stem
                result = _on_cell(server, run_dir, job, folder, wish.mode, header, tell)
        finally:
            shutil.rmtree(run_dir, ignore_errors=True)
        return _conclude(result, plan, cell, folder, tell)


def check_wish(wish: Wish, cell: Cell, time_mode: str) -> Path | None:
    """Options that do not fit the cell are refused before any work."""
    words.one_of("--time", time_mode, words.TIME_MODES)
    words.one_of("--mode", wish.mode, words.UNIT_MODES)
    words.seed(wish.seed)
    if not cell.simulated and time_mode != "real":
        raise ConfigError(f"--time {time_mode}: cell {cell.name!r} is not simulated, only real is")
    if wish.scenario is None:
        return None
    if not cell.simulated:
        raise ConfigError(f"--scenario {wish.scenario}: cell {cell.name!r} is not simulated")
    return find_file("scenarios", wish.scenario)


@contextlib.contextmanager
def _record_folder(out: Path, stem: str) -> Iterator[Path]:
    """A new record folder; nothing of it stays when no record was begun in it."""
    missing = [p for p in (out, *out.absolute().parents) if not p.exists()]
    folder: Path | None = None
    try:
        folder = new_folder(out, stem)
        yield folder
    except BaseException:
        if folder is None or not (folder / "record.mcap").exists():
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            for made in missing:  # the innermost first
                with contextlib.suppress(OSError):
                    made.rmdir()
        raise


@contextlib.contextmanager
def running_cell(
    cell_path: Path,
    cell: Cell,
    run_dir: Path,
    *,
    time_mode: str,
    trace_dir: Path,
    scenario: Path | None = None,
    seed: int = 1,
) -> Iterator[launch.Server]:
    """Simulator (if the cell has one) and cell server, up while the block runs."""
    with contextlib.ExitStack() as stack:
        ready = simulator = None
        if cell.simulated and time_mode != "null":
            simulator = launch.Simulator(
                cell_path,
                time_mode=time_mode,
                run_dir=run_dir,
                out=trace_dir,
                scenario=scenario,
                seed=seed,
            )
            stack.callback(simulator.stop)
            ready = simulator.ready
        server = launch.Server(
            cell_path,
            time_mode=time_mode,
            run_dir=run_dir,
            simulator=ready,
            scenario=scenario,
            seed=seed,
            trace_dir=trace_dir,
        )
        stack.callback(server.stop)
        server.simulator = simulator
        yield server


def _on_cell(
    server: launch.Server,
    run_dir: Path,
    job: Path,
    folder: Path,
    mode: str,
    header: dict[str, Any],
    tell: Tell,
) -> dict[str, Any]:
    """Build on a running cell; the server's own account of how it ended."""
    tell(0.2, "starting the cell")
    started = False
    try:
        with Client(run_dir, role="engineer", name="lmd run") as client:
            make_ready(client)
            client.call("load_job", path=str(job))
            with launch.noted_interrupts() as interrupted:
                try:
                    client.call("start", record_dir=str(folder), mode=mode, header=header)
                except CallError as exc:
                    if exc.reasons:
                        raise PreflightError(exc.reasons) from None
                    raise
                started = True
                result = follow(
                    client, lambda share: tell(0.2 + 0.7 * share, "building"), interrupted
                )
            client.call("shutdown", timeout_s=ANSWER_S)
    except CallError:
        raise
    except ApiError as exc:
        gone = server.gone()
        if gone and started:
            raise BuildLost(gone, folder) from None
        raise ApiError(gone or str(exc)) from None
    if interrupted():
        state = (result["record"]["result"] or {}).get("state", result["state"])
        raise Interrupted(state, folder)
    return result


def make_ready(client: Client) -> None:
    """Bring a freshly started cell to IDLE, homed."""
    state = client.call("status")["machine"]["state"]
    if state == "ABORTED":
        client.call("clear")
        state = client.call("wait_state", states=["STOPPED"])["state"]
    if state in ("STOPPED", "COMPLETE"):
        client.call("reset")
        state = client.call("wait_state", states=["IDLE"])["state"]
    if state == "IDLE" and client.call("home").get("homed"):
        return
    status = client.call("status")
    alarms = [f"{a['name']} {a.get('detail') or ''}".strip() for a in status["alarms"]]
    raise ApiError(
        f"the cell does not become ready: state {status['machine']['state']} "
        f"({status['machine']['cause']}), alarms: {', '.join(alarms) or 'none'}"
    )


def follow(
    client: Client,
    tell: Callable[[float], None],
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Wait for the end of a build; stop it in order when it is interrupted or holds."""
    asked = False
    while True:
        # a look may come late on a busy computer: the build is worth more than its haste
        status = client.call("status", deadline_s=ANSWER_S, timeout_s=ANSWER_S)
        progress = status["progress"]
        if progress["duration_s"] > 0.0:
            tell(min(1.0, progress["plan_time_s"] / progress["duration_s"]))
        if status["machine"]["at_rest"] and not status["record"]["open"]:
            return dict(client.call("result", deadline_s=ANSWER_S, timeout_s=ANSWER_S))
        # nobody is there to decide: a build that holds ends here, safely
        if not asked and (interrupted() or status["machine"]["state"] == "HELD"):
            with contextlib.suppress(CallError):  # between two states: asked again
                client.call("stop", timeout_s=ANSWER_S)
                asked = True
        wall_pause(LOOK_S)


def _conclude(
    result: dict[str, Any], plan: BuildPlan, cell: Cell, folder: Path, tell: Tell
) -> dict[str, Any]:
    """Verify, sum up, write the report."""
    tell(0.92, "verifying the record")
    verification = verify_record(folder)
    summary = summarise(folder, plan)
    tell(0.95, "writing the report")
    report = write_report(folder, plan=plan, verification=verification)
    closed = result["record"]["result"] or {}
    tell(1.0, "done")
    return {
        "part": plan.part["name"],
        "cell": cell.name,
        "state": closed.get("state", result["state"]),
        "record": str(folder),
        "report": {"pdf": str(report.pdf), "html": str(report.html)},
        "planned": summary["planned"],
        "executed": summary["executed"],
        "truth": summary["truth"],
        "deviations_pct": summary["deviations_pct"],
        "position_error_steps": summary["position_error_steps"],
        "segments_executed": summary["segments_executed"],
        "segments_planned": summary["segments_planned"],
        "path_check": summary["path_check"],
        "time_ratio": result["time_ratio"],
        "content_hash": closed.get("content_hash"),
        "alarms": summary["alarms"],
        "sealed": verification.ok,
        "problems": list(verification.problems),
        "warnings": [*plan.warnings, *_link_warnings(folder)],
    }


def _link_warnings(folder: Path) -> list[str]:
    """What the motion link could not give, as the record says."""
    link = read_record(folder).header.get("link") or {}
    return [f"{name}: {text}" for name, text in (link.get("lacks") or {}).items()]


def new_folder(out: Path, stem: str) -> Path:
    """A new folder ``out/<part>-<date>-<time>``, with a number when that exists."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", stem)[:60] or "part"
    stamp = wall_iso().replace("-", "").replace(":", "").replace("T", "-").rstrip("Z")
    for number in range(1, 1000):
        suffix = f"-{number}" if number > 1 else ""
        folder = out / f"{name}-{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not out.is_dir():
                raise RecordError(f"--out {out}: is not a folder") from None
            continue
        except OSError as exc:
            raise RecordError(f"--out {out}: cannot be made ({exc.strerror})") from None
        return folder
    raise RecordError(f"--out {out}: 999 records of this second exist")

"""``python -m hil_sim``: the virtual cell as a process of its own.

Prints one JSON line when its wires are there, then serves until the party says BYE, standard
input closes, or SIGTERM or SIGINT come; whichever it is, the trace gets its end. Exit codes:
0 as asked, 1 internal error, 2 bad input (one sentence on standard error).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import json
import os
import select
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hil_sim import cellfile, faults
from hil_sim.cell import SimCell
from hil_sim.clock import RealTimeServer, TimeServer

LONGEST_SOCKET_PATH = 107  # bytes, Linux sun_path less its final zero
_MOTION_WIRE = {"virtual": "pty", "real": "tcp"}
GREATEST_SEED = (1 << 63) - 1


def main(arguments: list[str] | None = None) -> int:
    """Run the simulator; the exit code."""
    options = _parser().parse_args(arguments)
    if options.check_scenario is not None:
        try:
            faults.load(options.check_scenario)
        except (cellfile.CellFileError, OSError) as exc:
            return _refuse(exc)
        return 0
    if options.cell is None:
        return _refuse(ValueError("--cell: give the cell file to simulate"))
    try:
        cell_file = cellfile.load(options.cell)
        scenario = faults.load(options.scenario) if options.scenario else faults.NOMINAL
        folder = _RunFolder(options.run_dir)
    except (cellfile.CellFileError, OSError) as exc:
        return _refuse(exc)
    with folder:
        try:
            cell = SimCell(
                cell_file, scenario, options.seed, options.out, hidden=options.hidden,
                tcp_motion=(options.motion_wire or _MOTION_WIRE[options.time]) == "tcp",
            )  # fmt: skip
        except (cellfile.CellFileError, OSError) as exc:
            return _refuse(exc)
        gc.collect()
        gc.freeze()  # what is there stays: nothing to collect but what events leave
        gc.set_threshold(20_000, 20, 100)
        with contextlib.closing(cell):
            _serve(cell, options.time == "virtual", folder)
    return 0


def _serve(cell: SimCell, virtual: bool, folder: _RunFolder) -> None:
    server: TimeServer | RealTimeServer
    socket_path: str | None = None
    control: Path | None = None
    if virtual:
        socket_path = str(folder.path / f"time-{os.getpid()}.sock")
        server = TimeServer(cell.sim, cell.ends, socket_path)
        server.on_end = cell.finish  # type: ignore[method-assign]
        server.on_tell = lambda request: faults.told_json(cell, request)  # type: ignore[method-assign]
    else:
        server = RealTimeServer(cell.sim, cell.ends)
        control = folder.path / f"control-{os.getpid()}.sock"
        server.listen(str(control), lambda asked: faults.told_json(cell, asked))
    try:
        with _ending(server) as wake_fd:
            ready = {
                "ready": True,
                "pid": os.getpid(),
                "time_socket": socket_path,
                "control_socket": None if virtual else str(control),
                "start_us": server.start_us if isinstance(server, RealTimeServer) else None,
                "scheduling": getattr(server, "scheduling", "virtual time"),
                "channels": [cell.ends[number].describe() for number in sorted(cell.ends)],
            }
            line = json.dumps(ready)
            folder.table.write_text(line + "\n")
            print(line, flush=True)
            server.serve(wake_fd)
    finally:
        folder.table.unlink(missing_ok=True)
        if control is not None:
            control.unlink(missing_ok=True)
        if socket_path is not None:
            Path(socket_path).unlink(missing_ok=True)


@contextlib.contextmanager
def _ending(server: Any) -> Iterator[int]:
    """A descriptor that becomes readable when the run shall end.

    SIGTERM, SIGINT and the closing of standard input (where that is a pipe or a socket) end
    the run, also while the server waits for its party: SIGIO tells of the closed pipe.
    """
    read_fd, write_fd = os.pipe()

    def end(number: int, frame: Any) -> None:
        if number == signal.SIGIO and not _input_closed():
            return
        server.stop = True
        with contextlib.suppress(OSError):
            os.write(write_fd, b".")
        if isinstance(server, TimeServer):
            server.interrupt()

    signals = [signal.SIGTERM, signal.SIGINT]
    if stat.S_IFMT(os.fstat(0).st_mode) in (stat.S_IFIFO, stat.S_IFSOCK):
        signals.append(signal.SIGIO)
    before = [signal.signal(number, end) for number in signals]
    flags = fcntl.fcntl(0, fcntl.F_GETFL)
    try:
        if signal.SIGIO in signals:
            fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC)
            if _input_closed():
                end(signal.SIGTERM, None)
        yield read_fd
    finally:
        if signal.SIGIO in signals:
            fcntl.fcntl(0, fcntl.F_SETFL, flags)
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
        os.close(read_fd)
        os.close(write_fd)


def _input_closed() -> bool:
    poller = select.poll()
    poller.register(0, select.POLLRDHUP)
    return any(event & (select.POLLHUP | select.POLLRDHUP) for _, event in poller.poll(0))


class _RunFolder:
    """Where the time socket lies: the given folder, or a private one that goes away again."""

    def __init__(self, given: Path | None) -> None:
        """Raises OSError, and CellFileError when the path is too long for a socket."""
        self.path = given if given is not None else Path(tempfile.mkdtemp(prefix="lmd-sim-"))
        self._own = given is None
        self.table = self.path / "simulator.json"  # the ready line, for servers started later
        self.path.mkdir(parents=True, exist_ok=True)
        length = len(os.fsencode(self.path / f"time-{os.getpid()}.sock"))
        if length > LONGEST_SOCKET_PATH:
            raise cellfile.CellFileError(
                f"--run-dir: {self.path} makes a socket path of {length} bytes, "
                f"at most {LONGEST_SOCKET_PATH} are possible"
            )

    def __enter__(self) -> _RunFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._own:
            shutil.rmtree(self.path, ignore_errors=True)


def _refuse(exc: Exception) -> int:
    print(f"error: {exc}", file=sys.stderr)
    return 2


def _seed(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= GREATEST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^63 - 1")
    return value


class _Parser(argparse.ArgumentParser):
    """Complains in one sentence, without a page of usage."""

    def error(self, message: str) -> Any:
        self.exit(2, f"error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m hil_sim", description="Virtual LMD cell.")
    parser.add_argument("--cell", metavar="FILE", help="cell file")
    parser.add_argument("--check-scenario", metavar="FILE", help="only read a scenario file")
    parser.add_argument("--scenario", metavar="FILE", help="what breaks, and when")
    parser.add_argument("--seed", type=_seed, default=1, help="of everything that varies")
    parser.add_argument("--hidden", type=_seed, help="of truths that differ from the cell file")
    parser.add_argument("--time", choices=("virtual", "real"), default="virtual")
    parser.add_argument(
        "--motion-wire", choices=("pty", "tcp"), help="default: tcp in real time, else pty"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for trace.mcap")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="folder for the time socket")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Starts the processes of a cell and ends them by their process ids.

``Simulator`` is ``python -m hil_sim``, ``Server`` is ``lmd serve``; both live as long as
their standard input stays open, so that none outlives a caller that was killed. Each has a
process group of its own: an interrupt from the keyboard goes to the caller alone, which
stops the build in order.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from controller.api.serve import null_channels
from controller.config import Cell
from controller.errors import ApiError, ConfigError, LmdError
from controller.machine.cell import make_drivers, ports_of
from firmware_bridge.errors import BridgeError

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
END_TIMEOUT_S = 2.0  # a process that has closed its connections is given so long to end


def check_devices(cell: Cell, path: Path) -> None:
    """Ports, drivers and register maps that a cell names must be there. Raises ConfigError."""
    try:
        make_drivers(cell, ports_of(cell, null_channels() if cell.simulated else None))
    except (BridgeError, ConfigError) as exc:
        raise ConfigError(f"{path}: {exc}") from None


def short_run_dir() -> Path:
    """A private folder whose path is short enough for Unix sockets (108 bytes)."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base is None or len(base) > 40 or not os.access(base, os.W_OK):
        base = None
    return Path(tempfile.mkdtemp(prefix="lmd-", dir=base))


@contextlib.contextmanager
def noted_interrupts() -> Iterator[Callable[[], bool]]:
    """An interrupt is noted, to be acted on in order; a second one is not waited for."""
    noted: list[int] = []

    def note(number: int, frame: Any) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError):  # not in the main thread: nobody interrupts here
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Child:
    """One child process that prints a JSON line when it is ready."""

    what = "process"

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._log_path = log
        self._log = log.open("wb")
        # an interrupt between fork and here would leave a process that nobody ends
        with noted_interrupts() as interrupted:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                process_group=0,
            )
        try:
            if interrupted():
                raise KeyboardInterrupt
            self.ready = self._await_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def _await_ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([fd], [], [], READY_TIMEOUT_S)[0]:
                raise ApiError(f"the {self.what} was not ready after {READY_TIMEOUT_S:g} s")
            chunk = os.read(fd, 65536)
            if not chunk:
                code = self.process.wait()
                said = self.last_words()
                kind: type[LmdError] = ConfigError if code == 2 else ApiError
                raise kind(said or f"the {self.what} ended at once with code {code}")
            line += chunk
        ready: dict[str, Any] = json.loads(line)
        return ready

    def gone(self) -> str:
        """How the process ended, as a clause; empty while it runs."""
        try:
            code = self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return ""
        if code < 0:
            return f"the {self.what} was killed ({signal.Signals(-code).name})"
        said = self.last_words()
        return f"the {self.what} has ended (exit code {code}{f': {said}' if said else ''})"

    def last_words(self) -> str:
        """The last line that the process wrote to its log."""
        self._log.flush()
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else ""

    def stop(self) -> int:
        """End the process: close its input, then SIGTERM, then SIGKILL; its exit code."""
        process = self.process
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        for end in (None, process.terminate, process.kill):
            if end is not None:
                end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
                break
        if process.stdout is not None:
            process.stdout.close()
        self._log.close()
        return process.returncode if process.returncode is not None else -1


class Simulator(Child):
    """The virtual cell as a process of its own."""

    what = "simulator"

    def __init__(
        self,
        cell: Path,
        *,
        time_mode: str,
        run_dir: Path,
        out: Path,
        scenario: Path | None = None,
        seed: int = 1,
        motion_wire: str | None = None,
    ) -> None:
        arguments = ["hil_sim", "--cell", str(cell), "--time", time_mode, "--seed", str(seed)]
        arguments += ["--out", str(out), "--run-dir", str(run_dir)]
        if scenario is not None:
            arguments += ["--scenario", str(scenario)]
        if motion_wire is not None:
            arguments += ["--motion-wire", motion_wire]
        super().__init__(arguments, run_dir / "simulator.log")


class Server(Child):
    """The cell server as a process of its own."""

    what = "cell server"
    simulator: Simulator | None = None  # on which it stands, where there is one

    def gone(self) -> str:
        """How the server ended, or the simulator that it cannot live without."""
        own = super().gone()
        code = None if self.simulator is None else self.simulator.process.poll()
        if own and self.simulator is not None and code is not None and code < 0:
            return self.simulator.gone()
        return own

    def __init__(
        self,
        cell: Path,
        *,
        time_mode: str,
        run_dir: Path,
        simulator: dict[str, Any] | None = None,
        scenario: Path | None = None,
        seed: int = 1,
        trace_dir: Path | None = None,
        hidden: int | None = None,
    ) -> None:
        arguments = ["controller", "serve", "--cell", str(cell), "--time", time_mode]
        arguments += ["--run-dir", str(run_dir), "--while-input-open"]
        if simulator is not None:
            table = run_dir / "simulator.json"
            table.write_text(json.dumps(simulator))
            arguments += ["--simulator", str(table)]
        if time_mode == "null":
            arguments += ["--seed", str(seed)]
            if hidden is not None:
                arguments += ["--hidden", str(hidden)]
            if trace_dir is not None:
                arguments += ["--trace-dir", str(trace_dir)]
            if scenario is not None:
                arguments += ["--scenario", str(scenario)]
        super().__init__(arguments, run_dir / "server.log")

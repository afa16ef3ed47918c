"""The command line for tests: run it here, see what it said and what it left behind."""

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.cli import _run
from tests.hil.whole_cell import write_box

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
LMD = [sys.executable, "-m", "controller"]
SMALL_MM = (6.0, 5.0, 0.9)  # 4 layers, half a minute of simulated time
TALL_MM = (30.0, 8.0, 6.0)  # minutes of simulated time: there is time to interrupt it


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output; anything beside it is an error."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def lmd(capsys, *words) -> Done:
    """Run a command in this process."""
    capsys.readouterr()
    code = _run([str(word) for word in words])
    said = capsys.readouterr()
    return Done(code, said.out, said.err)


def files_below(folder: Path) -> set[str]:
    """Everything in a folder, however deep."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refused(capsys, folder: Path, *words, code: int = 2) -> str:
    """The one sentence with which a command is refused, with and without ``--json``.

    Checked: exit code, one line on stderr, nothing on stdout (with --json one object of the
    same sentence), nothing new in ``folder``.
    """
    before = files_below(folder)
    plain = lmd(capsys, *words)
    with_json = lmd(capsys, *words, "--json")
    for done in (plain, with_json):
        assert done.code == code, f"{words}: {done}"
        assert done.err.startswith("error: "), done.err
        assert done.err.count("\n") == 1, done.err
        assert "Traceback" not in done.err
        assert "internal error" not in done.err
    assert plain.out == ""
    assert files_below(folder) == before
    sentence = plain.err.removeprefix("error: ").strip()
    assert with_json.json == {"error": sentence, "exit_code": code}
    return sentence


def part(folder: Path, size_mm: tuple[float, float, float] = SMALL_MM) -> Path:
    """A box as STL."""
    return write_box(folder / "box.stl", size_mm)


def changed(folder: Path, source: str, old: str, new: str) -> Path:
    """A copy of a file of ``configs/`` with one place changed."""
    text = (CONFIGS / source).read_text()
    assert old in text, f"{source} has no {old!r}: the test is out of date"
    path = folder / f"changed_{Path(source).name}"
    path.write_text(text.replace(old, new, 1))
    return path


@functools.cache
def built() -> tuple[Path, Done]:
    """A small part built once for all tests of a process: its folder, and what --json said."""
    folder = _own_folder() / "built"
    folder.mkdir()
    done = call("run", part(folder), "--time", "null", "--out", folder / "records", "--json")
    assert done.code == 0, done
    return folder, done


def call(*words, cwd: Path | None = None) -> Done:
    """Run a command in a process of its own, to its end."""
    done = subprocess.run(
        [*LMD, *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment(),
    )
    return Done(done.returncode, done.stdout, done.stderr)


def spawn(*words, cwd: Path) -> subprocess.Popen:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [*LMD, *map(str, words)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """This process's environment; the package found from any folder, a signing key of its own."""
    key_folder = _own_folder() / "config"
    return {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(key_folder)}


@functools.cache
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="lmd-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def ended(process: subprocess.Popen, number: int | None = None, timeout_s: float = 30.0) -> Done:
    """Signal a process, if wanted, and wait for its end."""
    if number is not None:
        process.send_signal(number)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"still running after {timeout_s} s: {out} {err}") from None
    return Done(process.returncode, out, err)


def descendants(pid: int) -> dict[int, str]:
    """Processes below a process: pid -> command line."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat is not None:
                parents[int(entry.name)] = int(stat[1])
    found: dict[int, str] = {}
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        for child in level:
            words = (Path("/proc") / str(child) / "cmdline").read_bytes()
            found[child] = words.replace(b"\0", b" ").decode()
    return found


def wait_gone(pids, timeout_s: float = 15.0) -> None:
    """Wait until none of the processes runs."""
    until(lambda: not [p for p in pids if _runs(p)], "a process was left over", timeout_s)


def until(met, what: str, timeout_s: float = 30.0) -> None:
    """Wait until a condition is met."""
    end = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    stat = _stat(pid)
    return stat is not None and stat[0] != "Z"


def _stat(pid: int) -> list[str] | None:
    """State, parent and so on of a process; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None

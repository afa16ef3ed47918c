"""Child processes: made ready, told apart, ended by their ids, never outliving their caller."""

import os
import signal
import subprocess
import sys

import pytest

from controller import launch
from controller.config import find_file, load_cell
from controller.errors import ApiError, ConfigError
from tests.unit.cli_bench import changed, wait_gone

pytestmark = pytest.mark.slow

READY = "print('{\"ready\": true}', flush=True)"


@pytest.fixture
def child(tmp_path, monkeypatch):
    """A function that starts a child of some lines of Python; none outlives the test."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = []

    def start(*lines):
        (tmp_path / "lmd_child.py").write_text("\n".join(("import os, signal, sys", *lines)))
        started.append(launch.Child(["lmd_child"], tmp_path / "child.log"))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_a_child_is_ready_when_it_says_so_and_ends_when_its_input_closes(child):
    one = child(READY, "sys.stdin.read()")
    assert one.ready == {"ready": True}
    assert one.gone() == ""
    assert one.stop() == 0
    wait_gone([one.pid])


def test_an_interrupt_from_the_keyboard_does_not_reach_it(child):
    one = child(READY, "sys.stdin.read()")
    assert os.getpgid(one.pid) == one.pid
    assert os.getpgid(one.pid) != os.getpgid(0)


def test_a_child_that_does_not_listen_is_killed(child, monkeypatch):
    monkeypatch.setattr(launch, "STOP_TIMEOUT_S", 0.2)
    one = child(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)", READY, "while True: signal.pause()"
    )
    assert one.stop() == -signal.SIGKILL
    wait_gone([one.pid])


@pytest.mark.parametrize(
    ("lines", "kind", "said"),
    [
        (["sys.exit('error: no such thing')"], ApiError, "no such thing"),
        (["print('error: bad value', file=sys.stderr)", "sys.exit(2)"], ConfigError, "bad value"),
        (["sys.exit(7)"], ApiError, "the process ended at once with code 7"),
    ],
)
def test_a_child_that_refuses_is_quoted(child, lines, kind, said):
    with pytest.raises(kind, match=said) as caught:
        child(*lines)
    assert not str(caught.value).startswith("error:")


def test_a_child_that_says_nothing_is_given_up(child, monkeypatch):
    monkeypatch.setattr(launch, "READY_TIMEOUT_S", 0.2)
    with pytest.raises(ApiError, match=r"was not ready after 0\.2 s"):
        child("sys.stdin.read()")


def test_how_a_child_ended_is_told(child):
    one = child(READY, "sys.stdin.read()")
    os.kill(one.pid, signal.SIGKILL)
    assert one.gone() == "the process was killed (SIGKILL)"
    two = child(READY, "print('error: out of powder', file=sys.stderr)", "sys.exit(3)")
    assert two.gone() == "the process has ended (exit code 3: out of powder)"


def test_nothing_outlives_a_caller_that_was_killed(tmp_path, monkeypatch):
    (tmp_path / "lmd_child.py").write_text(f"import sys\n{READY}\nsys.stdin.read()")
    code = (
        "import sys; from pathlib import Path; from controller.launch import Child; "
        f"c = Child(['lmd_child'], Path({str(tmp_path)!r}) / 'log'); print(c.pid, flush=True); "
        "sys.stdin.read()"
    )
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    ) as caller:
        pid = int(caller.stdout.readline())
        caller.kill()
    wait_gone([pid])


def test_a_run_folder_is_short_enough_for_a_socket(monkeypatch, tmp_path):
    for base in (None, str(tmp_path / ("x" * 90)), "/nowhere"):
        if base is None:
            monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        else:
            monkeypatch.setenv("XDG_RUNTIME_DIR", base)
        folder = launch.short_run_dir()
        try:
            assert len(os.fsencode(folder / "time-4194304.sock")) <= 107
            assert folder.stat().st_mode & 0o777 == 0o700
        finally:
            folder.rmdir()


def test_what_a_cell_names_must_be_there(tmp_path):
    path = find_file("cells", "sim")
    launch.check_devices(load_cell("sim")[0], path)
    for old, new in (('"feeder_map"', '"nosuch"'), ('"feeder_fictitious"', '"nosuch"')):
        wrong = changed(tmp_path, "cells/sim.toml", old, new)
        with pytest.raises(ConfigError, match=r"changed_sim\.toml: .*'nosuch' is not known"):
            launch.check_devices(load_cell(str(wrong))[0], wrong)

"""The main job's own decisions: folders, when a build is stopped, what is refused first."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from controller import build
from controller.api.protocol import CallError
from controller.build import Wish, _record_folder, check_wish, follow, make_ready, new_folder
from controller.config import load_cell
from controller.errors import ApiError, ConfigError, RecordError
from controller.launch import noted_interrupts as noting
from tests.unit.cli_bench import files_below


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(build, "wall_pause", lambda seconds: None)


class _Server:
    """A client that answers from a list of states; what it was asked is kept."""

    def __init__(self, *states, refuse_stop=0):
        self.states = list(states)
        self.calls = []
        self._refuse_stop = refuse_stop

    def call(self, method, **params):
        self.calls.append(method)
        if method == "stop":
            if self._refuse_stop:
                self._refuse_stop -= 1
                raise CallError("NOT_ALLOWED", "not in this state")
            self.states = ["STOPPED"]
        if method == "result":
            return {"state": self.states[0]}
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        ended = state in ("COMPLETE", "STOPPED", "ABORTED")
        return {
            "machine": {"state": state, "at_rest": ended},
            "record": {"open": not ended},
            "progress": {"duration_s": 10.0, "plan_time_s": 2.5},
        }


def test_follow_waits_for_rest_and_for_the_record():
    server, told = _Server("STARTING", "EXECUTE", "EXECUTE", "COMPLETE"), []
    assert follow(server, told.append) == {"state": "COMPLETE"}
    assert told == [0.25] * 4
    assert "stop" not in server.calls


def test_a_build_that_holds_is_stopped_nobody_is_there_to_decide():
    server = _Server("EXECUTE", "HELD")
    assert follow(server, lambda share: None) == {"state": "STOPPED"}
    assert server.calls.count("stop") == 1


def test_an_interrupt_stops_a_build_and_is_asked_again_when_refused():
    server = _Server("EXECUTE", refuse_stop=2)
    assert follow(server, lambda share: None, lambda: True) == {"state": "STOPPED"}
    assert server.calls.count("stop") == 3


def test_a_first_interrupt_is_noted_a_second_one_is_not_waited_for():
    before = signal.getsignal(signal.SIGINT)
    with noting() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert interrupted()
    assert signal.getsignal(signal.SIGINT) is before


def test_what_the_user_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noting() as interrupted:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupted()
    finally:
        signal.signal(signal.SIGHUP, before)


class _Cell:
    """A client on a machine that comes up in a state."""

    def __init__(self, state, homed=True):
        self.state, self.homed, self.calls = state, homed, []

    def call(self, method, **params):
        self.calls.append(method)
        if method == "clear":
            self.state = "STOPPED"
        elif method == "reset":
            self.state = "IDLE"
        elif method == "home":
            return {"homed": self.homed}
        return {
            "machine": {"state": self.state, "cause": "door open"},
            "state": self.state,
            "alarms": [{"name": "NOT_HOMED", "detail": "X"}],
        }


@pytest.mark.parametrize(
    ("state", "calls"),
    [
        ("ABORTED", ["status", "clear", "wait_state", "reset", "wait_state", "home"]),
        ("STOPPED", ["status", "reset", "wait_state", "home"]),
        ("COMPLETE", ["status", "reset", "wait_state", "home"]),
        ("IDLE", ["status", "home"]),
    ],
)
def test_a_machine_is_brought_to_idle_and_homed(state, calls):
    cell = _Cell(state)
    make_ready(cell)
    assert cell.calls == calls


def test_a_machine_that_does_not_home_builds_nothing():
    with pytest.raises(ApiError, match=r"does not become ready: state IDLE .*NOT_HOMED X"):
        make_ready(_Cell("IDLE", homed=False))


# --- folders -------------------------------------------------------------------------------


def test_records_of_one_second_get_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "wall_iso", lambda: "2026-11-24T10:20:30Z")
    names = [new_folder(tmp_path / "a" / "b", "turbine blade/ä").name for _ in range(3)]
    assert names == [f"turbine_blade__-20261124-102030{n}" for n in ("", "-2", "-3")]
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"--out .*file: cannot be made \(Not a directory\)"):
        new_folder(tmp_path / "file", "part")


@pytest.mark.parametrize("error", [ConfigError("refused"), KeyboardInterrupt()])
def test_what_is_refused_leaves_no_folder(tmp_path, error):
    with (
        contextlib.suppress(type(error)),
        _record_folder(tmp_path / "a" / "b", "part") as folder,
    ):
        (folder / "trace.mcap").write_text("begun")
        raise error
    assert files_below(tmp_path) == set()


def test_what_was_there_stays_and_a_begun_record_stays(tmp_path):
    (tmp_path / "a").mkdir()
    with contextlib.suppress(ConfigError), _record_folder(tmp_path / "a", "part"):
        raise ConfigError("refused")
    assert files_below(tmp_path) == {"a"}
    with contextlib.suppress(ConfigError), _record_folder(tmp_path / "b", "part") as folder:
        (folder / "record.mcap").write_text("begun")
        raise ConfigError("lost")
    assert (folder / "record.mcap").exists()


def test_relative_folders_are_cleaned_up_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(ConfigError), _record_folder(Path("records"), "part"):
        raise ConfigError("refused")
    assert files_below(tmp_path) == set()


# --- wishes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"time_mode": "fast"}, "--time fast: must be real, virtual or null"),
        ({"mode": "play"}, "--mode play: must be"),
        ({"seed": -1}, "--seed -1: must be"),
        ({"scenario": "nosuch"}, "scenario 'nosuch' is not known"),
    ],
)
def test_a_wish_is_checked_for_callers_from_python_too(wish, said):
    cell, _ = load_cell("sim")
    full = Wish(part=Path("x.stl"), **wish)
    with pytest.raises(ConfigError, match=said):
        check_wish(full, cell, full.time_mode or "virtual")

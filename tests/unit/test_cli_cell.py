"""``lmd sim``, ``lmd serve`` and ``lmd devices`` in terminals of their own."""

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from tests.unit.cli_bench import call, descendants, ended, lmd, spawn, wait_gone

pytestmark = pytest.mark.slow

ROLES = ["laser", "pyrometer", "chiller", "powder", "gas", "oxygen", "safety"]


@contextlib.contextmanager
def _running(*words, cwd: Path):
    """A server that has printed its ready line; ended with SIGTERM, without a word."""
    process = spawn(*words, cwd=cwd)
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        told = json.loads(line)
        assert told["ready"] is True
        yield process, told
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.poll() is None:
        done = ended(process, signal.SIGTERM)
        assert done.err == ""
        assert done.out == ""
        assert done.code == 0


def _left(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "run" / "sim"))


def test_devices_answer_again_and_again_in_real_time(tmp_path):
    with _running("sim", "--cell", "sim", "--json", cwd=tmp_path) as (_, told):
        assert told["time_socket"] is None
        for _ in range(2):  # the pyrometer's pty is opened with parity each time
            done = call("devices", "probe", "--json", cwd=tmp_path)
            assert done.code == 0, done
            found = done.json["devices"]
            assert [d["role"] for d in found] == ROLES
            assert all(d["answers"] for d in found)
            assert found[2]["reading"]["coolant_deg_c"] == pytest.approx(22.0, abs=2.0)
        people = call("devices", "probe", cwd=tmp_path)
        assert "coolant 22 °C" in people.out
        assert max(len(line) for line in people.out.splitlines()) <= 100
        rounds = call("devices", "watch", "--rounds", "3", "--json", cwd=tmp_path).json["rounds"]
        assert [len(row) for row in rounds] == [7, 7, 7]
        assert rounds[0][0]["reading"]["at_us"] < rounds[2][0]["reading"]["at_us"]
        second = call("sim", cwd=tmp_path)
        assert second.code == 2
        assert "a simulator of cell 'sim' runs here already" in second.err
    assert _left(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watching_shows_what_is_live_and_ends_when_interrupted(tmp_path, number):
    with _running("sim", cwd=tmp_path):
        watch = spawn("devices", "watch", "--rounds", "100000", cwd=tmp_path)
        first = [watch.stdout.readline() for _ in range(14)]
        assert [line.split()[:2] for line in first[7:]] == [["2", role] for role in ROLES]
        done = ended(watch, number)
        assert done.code == 130
        assert done.err == "error: interrupted\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("time", ["real", "virtual"])
def test_a_server_takes_the_simulators_time_and_leaves_nothing(tmp_path, time, number):
    with _running("sim", "--time", time, cwd=tmp_path) as (simulator, _):
        with _running("serve", "--cell", "sim", "--json", cwd=tmp_path) as (server, told):
            assert told["time"] == time
            assert told["pid"] == server.pid
            assert len(told["ports"]) == 9  # the bench of instruments has a wire too
            if time == "real":
                assert told["link_pid"] in descendants(server.pid)
            assert {"api.sock", "server.json", "tokens.json"} <= set(_left(tmp_path))
            second = call("serve", cwd=tmp_path)
            assert second.code == 2
            assert f"runs here already (process {server.pid}" in second.err
            wrong = "virtual" if time == "real" else "real"
            assert f"the simulator runs in {time} time" in (
                call("serve", "--time", wrong, cwd=tmp_path).err
            )
            children = descendants(server.pid)
            done = ended(server, number)
            assert (done.code, done.out, done.err) == (0, "", "")
            wait_gone(children)
        if time == "virtual":  # it serves one party and ends with it
            assert ended(simulator).code == 0
    assert _left(tmp_path) == ["audit.log"]  # the trail of commands is kept


def test_a_server_on_null_wires_needs_no_simulator(tmp_path):
    words = ["serve", "--time", "null", "--seed", "7", "--scenario", "door"]
    with _running(*words, cwd=tmp_path) as (_, told):
        assert told["time"] == "null"
    assert _left(tmp_path) == ["audit.log"]


def test_a_virtual_cell_is_probed_in_its_own_time(tmp_path):
    with _running("sim", "--time", "virtual", "--out", "trace", cwd=tmp_path) as (simulator, told):
        assert told["time_socket"]
        found = call("devices", "probe", "--json", cwd=tmp_path).json["devices"]
        assert all(d["answers"] for d in found)
        assert ended(simulator).code == 0
    assert _left(tmp_path) == []
    assert (tmp_path / "trace" / "trace.mcap").stat().st_size > 0


def test_a_device_that_does_not_answer_is_told_not_waited_for(tmp_path):
    with _running("sim", cwd=tmp_path) as (_, told):
        for channel in told["channels"]:
            if channel["name"] == "oxygen":
                channel["port"] = 9  # discard: nobody listens
        (tmp_path / "ports.json").write_text(json.dumps(told))
        done = call("devices", "probe", "--simulator", "ports.json", "--json", cwd=tmp_path)
    assert done.code == 1
    assert [d["role"] for d in done.json["devices"] if not d["answers"]] == ["oxygen"]
    assert done.err == "error: oxygen: no answer (1 of 7 devices)\n"


def test_list_names_what_the_cell_file_names(capsys):
    found = lmd(capsys, "devices", "list", "--json").json
    assert [d["role"] for d in found["devices"]] == ROLES
    assert found["devices"][0]["driver"] == "laser_ipg"
    people = lmd(capsys, "devices", "list").out
    assert "laser_ipg on simulated" in people

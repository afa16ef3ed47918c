"""A default installation, as it stands: what its processes listen on."""

import os
import socket
import stat

import pytest

from controller import launch
from controller.api.client import Client
from controller.build import make_ready
from controller.planning import write_job
from controller.session import prepare_plan
from tests.hil.open_sockets import family, sockets, strangers
from tests.hil.whole_cell import write_box

pytestmark = [pytest.mark.hil, pytest.mark.slow, pytest.mark.realtime]

CELL = "sim_full"  # a device in every role


@pytest.fixture
def cell(tmp_path, monkeypatch):
    """``lmd sim`` and ``lmd serve`` as processes, with nothing but the cell's name."""
    monkeypatch.chdir(tmp_path)
    simulator = launch.Child(["controller", "sim", "--cell", CELL], tmp_path / "sim.log")
    server = None
    try:
        server = launch.Child(
            ["controller", "serve", "--cell", CELL, "--while-input-open"], tmp_path / "serve.log"
        )
        yield tmp_path / "run" / CELL, server, simulator
    finally:
        if server is not None:
            server.stop()
        simulator.stop()


def test_listens_on_loopback_and_its_own_unix_sockets_only(cell, tmp_path):
    run_dir, server, simulator = cell
    part = write_box(tmp_path / "box.stl", (5.0, 5.0, 0.6))
    job = tmp_path / "box.lmdjob"
    write_job(prepare_plan(part, cell=CELL), job)
    with Client(run_dir, role="operator", name="test") as client:
        make_ready(client)
        client.call("load_job", path=str(job))
        client.call("start", record_dir=str(tmp_path / "record"))
        pids = {"server": server.pid, "simulator": simulator.pid, "link": server.ready["link_pid"]}
        recorder, spare = sorted(set(family(server.pid)) - set(pids.values()))
        pids |= {"recorder": recorder, "next recorder": spare}
        found = {name: sockets(pid) for name, pid in pids.items()}
        assert set(family(simulator.pid)) == {simulator.pid}
        client.call("stop")
    assert strangers([one for all_of in found.values() for one in all_of], run_dir) == []
    # and the scan saw what there is: wires and API by name, a pair to each of the other two
    listening = {(k, one.kind) for k, all_of in found.items() for one in all_of if one.listens}
    assert listening == {("server", "unix"), ("simulator", "tcp"), ("simulator", "unix")}
    assert sum(one.kind == "tcp" for one in found["server"]) >= 10
    assert [one.kind for one in found["recorder"] + found["next recorder"]] == ["unix"] * 2
    assert "unix" in {one.kind for one in found["link"]}
    assert stat.S_IMODE((run_dir / "tokens.json").stat().st_mode) == 0o600


def bound(kind, family_of, address):
    opened = socket.socket(family_of, kind)
    try:
        opened.bind(address)
    except OSError:
        opened.close()
        pytest.skip("this machine has no such address")
    if kind == socket.SOCK_STREAM:
        opened.listen(1)
    return opened


ANYWHERE = ".".join("0000")


@pytest.mark.parametrize(
    ("kind", "family_of", "address", "said"),
    [
        (socket.SOCK_STREAM, socket.AF_INET, ("", 0), f"tcp {ANYWHERE}"),
        (socket.SOCK_STREAM, socket.AF_INET6, ("::", 0), "tcp6 " + 32 * "0"),
        (socket.SOCK_DGRAM, socket.AF_INET, ("", 0), f"udp {ANYWHERE}"),
        (socket.SOCK_STREAM, socket.AF_UNIX, "\0lmd-test", "Unix socket @lmd-test"),
        (socket.SOCK_RAW, socket.AF_NETLINK, (0, 0), "unknown"),
    ],
)
def test_what_is_open_to_others_is_seen(tmp_path, kind, family_of, address, said):
    before = strangers(sockets(os.getpid()), tmp_path)
    with bound(kind, family_of, address):
        found = set(strangers(sockets(os.getpid()), tmp_path)) - set(before)
    assert len(found) == 1
    assert said in found.pop()


@pytest.mark.parametrize(("mode", "own"), [(0o600, True), (0o660, False), (0o777, False)])
def test_a_unix_socket_is_its_owner_s_alone(tmp_path, mode, own):
    path = tmp_path / "api.sock"
    with bound(socket.SOCK_STREAM, socket.AF_UNIX, str(path)):
        path.chmod(mode)
        mine = [one for one in sockets(os.getpid()) if one.address == str(path)]
        assert len(mine) == 1
        assert (strangers(mine, tmp_path) == []) is own
        assert strangers(mine, tmp_path / "elsewhere") != []

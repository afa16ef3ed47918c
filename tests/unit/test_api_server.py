"""The API over a real Unix socket: roles, deadlines, errors that leave the server alive."""

import asyncio
import itertools
import json
import random
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from controller.api import server as server_module
from controller.api.client import Client, read_token, unpack_row
from controller.api.protocol import (
    CallError,
    Kind,
    encode,
    encode_json,
)
from controller.api.serve import ServeSettings, make_loop
from controller.api.server import ApiServer
from controller.errors import ApiError, ConfigError, VerifyError
from tests.unit.api_bench import ABOUT, refused, served
from tests.unit.machine_fakes import run_virtual

# --- a build through the API -------------------------------------------------------------


@served
async def test_build_from_load_to_result(s):
    c = await s.client()
    told = await c.call("load_job", path=s.job())
    assert told["segments"] == 10
    assert (await c.call("preflight", record_dir=str(s.folder / "r"))) == {
        "blockers": [],
        "warnings": [],
    }
    started = await c.call("start", record_dir=str(s.folder / "r"), header={"seed": 4})
    assert started["state"] == "STARTING"
    ended = await c.call("wait_state", states=["COMPLETE"])
    assert ended["reached"] is True
    result = await c.call("result")
    assert result["record"]["result"]["state"] == "COMPLETE"
    assert result["record"]["execute_s"] == pytest.approx(2.0, abs=0.05)
    header = s.bench.records[0].header
    assert (header["seed"], header["recipe"], header["mode"]) == (4, "316l_general", "development")
    assert header["plan_hash"] == told["hash"]
    assert s.bench.records[0].job.name == "bar.lmdjob"


@served
async def test_time_stands_still_between_commands(s):
    c = await s.client()
    t = (await c.call("status"))["time"]["t_us"]
    await c.call("load_job", path=s.job())
    for _ in range(20):
        assert (await c.call("status"))["time"]["t_us"] == t
    assert (await c.call("advance", seconds=1.5))["t_us"] == pytest.approx(t + 1_500_000, abs=1e4)
    t = (await c.call("status"))["time"]["t_us"]
    await c.call("home")
    ended = await c.call("wait_state", states=["IDLE"])
    assert ended["t_us"] > t
    assert (await c.call("status"))["time"]["t_us"] == ended["t_us"]


def test_same_commands_give_the_same_record(tmp_path):
    """However long a client thinks between its calls, and whatever it asks meanwhile."""
    records = []
    for n in range(2):

        @served
        async def build(s, n=n):
            c = await s.client()
            await c.call("load_job", path=s.job())
            for _ in range(17 * n):
                await c.call("status")
            await c.call("start", record_dir=str(s.folder / "r"))
            await c.call("wait_state", states=["COMPLETE"])
            records.append(s.bench.records[0])

        folder = tmp_path / str(n)
        folder.mkdir()
        build(folder)
    assert len(records[0].rows) > 200
    assert records[0].rows == records[1].rows
    assert records[0].events == records[1].events


@served
async def test_wait_state_returns_when_the_machine_rests_elsewhere(s):
    s.bench.drivers["laser"].fails["enable"] = "ERR: key"
    c = await s.client()
    await c.call("load_job", path=s.job())
    await c.call("start")
    ended = await c.call("wait_state", states=["COMPLETE"])
    assert (ended["reached"], ended["state"]) == (False, "STOPPED")
    assert (await c.call("result"))["first_out"]["name"] == "LASER_REFUSED"


@served
async def test_preflight_names_reasons_and_start_refuses_with_them(s):
    c = await s.client()
    told = await c.call("preflight")
    assert [b["name"] for b in told["blockers"]] == ["NO_JOB"]
    error = await refused(c.call("start"), "PREFLIGHT")
    assert error.reasons == ("NO_JOB: no job is loaded",)


@served
async def test_job_that_is_damaged_is_refused_in_a_sentence(s):
    path = Path(s.job())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    c = await s.client()
    error = await refused(c.call("load_job", path=str(path)), VerifyError.__name__)
    assert "damaged" in str(error)
    await refused(c.call("load_job", path="/nowhere/x.lmdjob"), "RecordError")


@served
async def test_stop_is_carried_out_during_a_build(s):
    c = await s.client()
    await c.call("load_job", path=s.job(n_tracks=200))
    await c.call("start")
    await c.call("wait_state", states=["EXECUTE"])
    waiting = asyncio.ensure_future(c.call("wait_state", states=["COMPLETE"]))
    await c.call("stop")  # overtakes the waiting call on the same link
    assert (await waiting)["state"] == "STOPPED"
    stops = [d for _, kind, d in s.bench.events if kind == "command" and d["what"] == "stop"]
    assert stops[0]["who"] == "operator test"


@served
async def test_a_client_s_header_says_nothing_in_the_server_s_place(s):
    c = await s.client()
    await c.call("load_job", path=s.job())
    for key in ("mode", "deviations", "link", "calibrations", "audit", "simulated"):
        error = await refused(c.call("start", header={key: []}), "BAD_PARAMS")
        assert f"{key} is the server's own" in str(error)
    assert s.bench.ex.state.name == "IDLE"


# --- who may what ------------------------------------------------------------------------


@served
async def test_observer_may_stop_but_not_start(s):
    c = await s.client("observer")
    for method in ("start", "unhold", "reset", "home", "load_job", "override", "shutdown"):
        error = await refused(c.call(method), "WRONG_ROLE")
        assert "observer" in str(error)
    told = [d for _, kind, d in s.bench.events if kind == "audit"]
    assert [d["command"] for d in told][:2] == ["start", "unhold"]
    assert told[0]["role"] == "observer"
    assert told[0]["result"].startswith("WRONG_ROLE: start needs role operator")
    await c.call("stop")
    assert s.bench.ex.state.name in ("STOPPING", "STOPPED")


@served
async def test_unknown_token_is_refused_and_closed(s):
    raw = await s.raw(hello=False)
    raw.hello("operator", "f" * 32)
    assert (await raw.receive())["error"]["name"] == "BAD_TOKEN"
    assert await raw.receive() is None


@served
async def test_nothing_is_served_before_hello(s):
    raw = await s.raw(hello=False)
    raw.writer.write(encode_json(Kind.REQUEST, {"id": 1, "method": "stop"}))
    assert (await raw.receive())["error"]["name"] == "NO_HELLO"
    assert s.bench.ex.state.name == "IDLE"


@served
async def test_tokens_and_socket_are_the_owner_s_alone(s):
    for name in ("tokens.json", "api.sock"):
        assert stat.S_IMODE((s.run_dir / name).stat().st_mode) == 0o600
    tokens = json.loads((s.run_dir / "tokens.json").read_text())
    assert list(tokens) == ["observer", "operator", "engineer", "tester", "service"]
    assert len(set(tokens.values())) == 5


@served
async def test_deadline_that_has_passed_is_not_carried_out(s):
    c = await s.client()
    await refused(c.call("stop", deadline_s=-0.001), "DEADLINE_PASSED")
    assert s.bench.ex.state.name == "IDLE"
    await c.call("stop", deadline_s=5.0)
    assert s.bench.ex.state.name != "IDLE"


# --- nonsense ----------------------------------------------------------------------------

BAD_REQUESTS = [
    ({"id": 1, "method": "fire"}, "UNKNOWN_METHOD"),
    ({"id": 1, "method": "__class__"}, "UNKNOWN_METHOD"),
    ({"id": 1}, "BAD_REQUEST"),
    ({"method": "status"}, "BAD_REQUEST"),
    ({"id": [1], "method": "status"}, "BAD_REQUEST"),
    ({"id": 1, "method": "status", "params": [1]}, "BAD_REQUEST"),
    ({"id": 1, "method": "status", "params": {"x": 1}}, "BAD_PARAMS"),
    ({"id": 1, "method": "status", "deadline_s": "soon"}, "BAD_REQUEST"),
    ({"id": 1, "method": "wait_state", "params": {"states": ["FLYING"]}}, "BAD_PARAMS"),
    ({"id": 1, "method": "load_job", "params": {"path": 7}}, "BAD_PARAMS"),
    ({"id": 1, "method": "start", "params": {"mode": "reckless"}}, "BAD_PARAMS"),
    ({"id": 1, "method": "advance", "params": {"seconds": -1}}, "BAD_PARAMS"),
    ({"id": 1, "method": "advance", "params": {"seconds": 1e12}}, "BAD_PARAMS"),
    ({"id": 1, "method": "override", "params": {"scale": "1"}}, "BAD_PARAMS"),
    ({"id": 1, "method": "unhold"}, "STATE"),
    ({"id": 1, "method": "clear"}, "STATE"),
]


@served
async def test_bad_requests_are_named_and_the_connection_survives(s):
    raw = await s.raw()
    assert (await raw.receive())["role"] == "operator"
    for request, name in BAD_REQUESTS:
        raw.writer.write(encode_json(Kind.REQUEST, request))
        answer = await raw.receive()
        assert answer["error"]["name"] == name, (request, answer)
        assert len(answer["error"]["message"]) > 10
    raw.writer.write(encode(Kind.REQUEST, b"{not json"))
    assert (await raw.receive())["error"]["name"] == "BAD_JSON"
    raw.writer.write(encode_json(Kind.REQUEST, {"id": "x", "method": "status"}))
    assert (await raw.receive())["result"]["machine"]["state"] == "IDLE"


@served
async def test_frames_that_cannot_be_read_on_close_only_their_connection(s):
    good = await s.client()
    for data, name in (
        (b"\xff\xff\xff\x7f\x02", "FRAME_TOO_LARGE"),
        (b"\x00\x00\x00\x00\x63", "BAD_FRAME"),
        (encode(Kind.TELEMETRY, b"x"), "BAD_FRAME"),
    ):
        raw = await s.raw()
        await raw.receive()
        raw.writer.write(data)
        assert (await raw.receive())["error"]["name"] == name
        assert await raw.receive() is None
    assert (await good.call("status"))["machine"]["state"] == "IDLE"


@served
async def test_random_bytes_never_end_the_server(s):
    rng = random.Random(20261124)
    for _ in range(60):
        raw = await s.raw(hello=rng.random() < 0.5)
        raw.writer.write(rng.randbytes(rng.randrange(1, 400)))
        raw.writer.close()
    good = await s.client()
    assert (await good.call("status"))["machine"]["state"] == "IDLE"


@served
async def test_an_error_inside_a_method_is_answered(s):
    def broken(path):
        raise ZeroDivisionError("test")

    s.commands._read_job = broken
    c = await s.client()
    error = await refused(c.call("load_job", path="x"), "INTERNAL")
    assert "ZeroDivisionError" in str(error)
    assert (await c.call("status"))["machine"]["state"] == "IDLE"


# --- stream ------------------------------------------------------------------------------


@served
async def test_snapshot_then_deltas_add_up_to_the_status(s):
    c = await s.client()
    stream = c.stream("snapshot")
    kind, view = await anext(stream)
    assert kind is Kind.SNAPSHOT
    await c.call("load_job", path=s.job())
    await c.call("start")
    n_deltas = 0
    while view["machine"]["state"] != "COMPLETE" or not view["machine"]["at_rest"]:
        kind, change = await anext(stream)
        assert kind is Kind.DELTA
        view.update(change)
        n_deltas += 1
    assert n_deltas > 10
    now = await c.call("status")
    assert {k for k in now if now[k] != view[k]} <= {"time"}


@served
async def test_events_and_telemetry_are_streamed(s):
    c = await s.client()
    stream = c.stream("event", "telemetry")
    await c.call("load_job", path=s.job())
    pull = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    while not s.api.streams["telemetry"]:
        await c.call("hello")
    await c.call("start")
    states, rows = [], []
    while "COMPLETE" not in states:
        kind, item = await pull
        pull = asyncio.ensure_future(anext(stream))
        if kind is Kind.EVENT and item["kind"] == "state":
            states.append(item["data"]["new"])
        elif kind is Kind.TELEMETRY:
            rows.append(unpack_row(c.greeting, item))
    pull.cancel()
    assert states == ["STARTING", "EXECUTE", "COMPLETING", "COMPLETE"]
    steps = {round(b["t_us"] - a["t_us"]) for a, b in itertools.pairwise(rows)}
    assert steps == {10_000}
    assert max(r["power_commanded_w"] for r in rows) == 600.0


@served
async def test_stop_does_not_queue_behind_telemetry_and_the_slow_client_is_dropped(s):
    server_module.MAX_BACKLOG, before = 50_000, server_module.MAX_BACKLOG
    try:
        c = await s.client()
        slow = await s.raw(hello=False)
        token = read_token(s.run_dir, "observer")
        topics = ["telemetry", "snapshot", "event"]
        slow.hello("observer", token, link="stream", topics=topics)
        slow.reader._transport.pause_reading()  # never reads again
        while not s.api.streams["telemetry"]:
            await c.call("hello")
        await c.call("load_job", path=s.job(n_tracks=400))
        await c.call("start")
        while not s.api.n_dropped:
            assert s.bench.ex.state.name in ("STARTING", "EXECUTE")
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)  # the loop tells of a closed connection in its next turn
        assert s.api.streams["telemetry"] == []
        # a second one, full but not yet dropped, while STOP is sent
        stream = await s.raw(hello=False)
        stream.hello("observer", token, link="stream", topics=topics)
        stream.reader._transport.pause_reading()
        before_us = s.bench.ex.now_us()
        answer = await c.call("stop")
        assert answer["state"] in ("STOPPING", "STOPPED")
        assert answer["t_us"] - before_us < 1_000_000
        assert s.bench.said("hold now")
    finally:
        server_module.MAX_BACKLOG = before


@served
async def test_rows_are_not_packed_while_nobody_reads_them(s):
    assert s.bench.ex.journal.wants_rows is False


# --- coming and going --------------------------------------------------------------------


@served
async def test_second_server_on_the_same_folder_is_refused(s):
    other = ApiServer(s.run_dir, {}, lambda: ABOUT, dict)
    with pytest.raises(ConfigError, match="runs here already"):
        await other.listen()
    assert (await (await s.client()).call("status"))["machine"]["state"] == "IDLE"


def test_socket_left_over_by_a_killed_server_is_replaced(tmp_path):
    async def main():
        first = ApiServer(tmp_path, {}, lambda: ABOUT, dict)
        await first.listen()
        first._server.close()  # as if killed: the socket stays
        assert (tmp_path / "api.sock").exists()
        second = ApiServer(tmp_path, {}, lambda: ABOUT, dict)
        await second.listen()
        await second.close()
        assert not (tmp_path / "api.sock").exists()

    run_virtual(main)


def test_path_too_long_for_a_socket_is_a_sentence(tmp_path):
    async def main():
        with pytest.raises(ConfigError, match="shorter"):
            await ApiServer(tmp_path / ("x" * 120), {}, lambda: ABOUT, dict).listen()

    run_virtual(main)


def test_client_without_a_server(tmp_path):
    with pytest.raises(ApiError, match="no cell server runs here"):
        Client(tmp_path)


@served
async def test_blocking_client_and_shutdown(s):
    said = {}

    def talk():
        with Client(s.run_dir, role="engineer", name="thread") as c:
            c.subscribe("snapshot")
            said["first"] = c.receive(5.0)[0]
            said["state"] = c.call("status")["machine"]["state"]
            try:
                c.call("fire")
            except CallError as exc:
                said["error"] = exc.name
            c.call("shutdown")

    thread = threading.Thread(target=talk)
    thread.start()
    await s.commands.over.wait()
    while thread.is_alive():
        asyncio.get_running_loop()._selector._real.select(0.01)
        await asyncio.sleep(0)
    thread.join()
    assert said == {"first": Kind.SNAPSHOT, "state": "IDLE", "error": "UNKNOWN_METHOD"}


def test_client_imports_no_machine_code():
    code = (
        "import sys, controller.api.client; "
        "bad = [m for m in sys.modules if m.startswith(('controller.machine', "
        "'controller.planning', 'controller.geometry', 'firmware_bridge', 'numpy'))]; "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time_mode": "virtual"}, "time socket"),
        ({"time_mode": "virtual", "time_socket": "/nowhere/t.sock"}, "no time server"),
        ({"time_mode": "null"}, "simulator"),
        ({"time_mode": "yesterday"}, "none of real, virtual, null"),
    ],
)
def test_time_modes_that_cannot_be(options, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        make_loop(ServeSettings(cell="sim", run_dir=tmp_path, **options))

"""The API against those who mean harm: replays, floods, a thousand connections."""

import asyncio

import pytest

from controller.api import server as server_module
from controller.api.client import read_token
from controller.api.protocol import CallError, Kind, encode_json, proof
from tests.unit.api_bench import served


@served
async def test_replayed_hello_and_a_token_of_another_role_or_link_are_refused(s):
    token = read_token(s.run_dir, "operator")
    first = await s.raw(hello=False)
    said = first.hello("operator", token)
    assert (await first.receive())["role"] == "operator"
    for change in ({}, {"role": "service"}, {"proof": token}, {"proof": 7}, {"role": None}):
        other = await s.raw(hello=False)
        other.writer.write(encode_json(Kind.HELLO, {**said, **change}))
        assert (await other.receive())["error"]["name"] == "BAD_TOKEN", change
        assert await other.receive() is None
    third = await s.raw(hello=False)
    given = proof(token, third.nonce, "stream")
    third.writer.write(
        encode_json(Kind.HELLO, {"link": "command", "role": "operator", "proof": given})
    )
    assert (await third.receive())["error"]["name"] == "BAD_TOKEN"


def test_proof_of_a_token_as_written_in_rfc_4231():
    """Test case 2 of RFC 4231; its message happens to have the form of nonce and link."""
    assert proof("Jefe", "what do ya want for", "nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


@served
async def test_a_thousand_silent_connections_keep_nobody_out(s):
    here = await s.client()
    await here.call("load_job", path=s.job(n_tracks=40))
    await here.call("start")
    silent = []
    for _ in range(1000):
        silent.append(await asyncio.open_unix_connection(str(s.run_dir / "api.sock")))
    assert len(s.api.connections) <= server_module.MAX_CONNECTIONS
    late = await s.client()
    assert (await late.call("status"))["machine"]["state"] in ("STARTING", "EXECUTE")
    done = await here.call("wait_state", states=["COMPLETE"])
    assert done["state"] == "COMPLETE"
    for _, writer in silent:
        writer.close()


@served
async def test_more_clients_than_places_are_refused_by_name(s):
    clients = [await s.client("observer") for _ in range(server_module.MAX_CONNECTIONS)]
    with pytest.raises(CallError) as error:
        await s.client()
    assert error.value.name == "TOO_MANY_CONNECTIONS"
    await clients[0].close()
    while len(s.api.connections) >= server_module.MAX_CONNECTIONS:
        await clients[1].call("hello")
    assert (await (await s.client()).call("stop"))["state"] in ("STOPPING", "STOPPED")
    for client in clients:
        await client.close()


@served
async def test_a_flood_of_requests_delays_neither_ticks_nor_another_client_s_stop(s):
    """Requests are begun in turns, a few in each turn of the loop: counted, not timed."""
    flood = [await s.raw() for _ in range(10)]
    request = encode_json(Kind.REQUEST, {"id": 1, "method": "status"})
    for raw in flood:
        await raw.receive()
    calm = await s.client()
    begun = []
    methods = s.api._methods
    least, status = methods["status"]

    async def counted(caller, params):
        begun.append(s.bench.ex.state.name)
        return await status(caller, params)

    methods["status"] = (least, counted)
    arrived, stopped = [], []
    wait_turn, (stop_role, stop) = s.api.wait_turn, methods["stop"]

    def noted(connection):
        if connection.caller.name == "test":
            arrived.append(len(begun))
        wait_turn(connection)

    async def noted_stop(caller, params):
        stopped.append(len(begun))
        return await stop(caller, params)

    s.api.wait_turn = noted
    methods["stop"] = (stop_role, noted_stop)
    for raw in flood:
        raw.writer.write(request * 400)
    answer = await calm.call("stop")
    assert answer["state"] in ("STOPPING", "STOPPED")
    assert stopped[0] - arrived[0] <= 2 * len(flood)  # a turn each, of 4,000 that were asked for
    for raw in flood:
        raw.writer.close()


@served
async def test_a_client_has_so_many_requests_under_way_and_no_more(s):
    c = await s.client()

    async def for_ever(caller, params):
        await asyncio.Event().wait()

    s.api._methods["status"] = ("observer", for_ever)
    waits = [
        asyncio.ensure_future(c.call("status")) for _ in range(server_module.MAX_UNDER_WAY + 1)
    ]
    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    assert [w.exception().name for w in done] == ["TOO_MANY_REQUESTS"]
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)

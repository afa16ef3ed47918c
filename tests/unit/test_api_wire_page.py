"""docs/reference/api-wire.md says what the server does: bytes, kinds, limits, refusals."""

import hashlib
import hmac
import json
import re
from pathlib import Path

from controller.api import protocol, server
from controller.api.client import _hello, _Who
from controller.api.protocol import Kind, encode_json
from tests.unit.api_bench import served

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "api-wire.md").read_text(encoding="utf-8")
LINE = re.compile(r"^(server|client) ((?:[0-9a-f]{2} ){5})(\{.*\})$", re.M)


def rows(heading):
    """Cells of the first table after a heading, without its head."""
    lines = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    table = [line for line in lines if line.startswith("|")]
    return [[c.strip() for c in line.strip("|").split("|")] for line in table[2:]]


def frames():
    """The page's literal frames as bytes."""
    return [bytes.fromhex(head) + body.encode() for _, head, body in LINE.findall(PAGE)]


def words(cell):
    return re.findall(r"`(\w+)`", cell)


def test_literal_opening_is_what_client_and_server_send():
    token = re.search(r"with token `(\w+)`", PAGE)[1]
    challenge, hello, request = frames()
    nonce = json.loads(challenge[5:])["nonce"]
    assert encode_json(Kind.CHALLENGE, {"nonce": nonce}) == challenge
    assert _hello(_Who("operator", token, "cad"), nonce, "command", ()) == hello
    assert encode_json(Kind.REQUEST, {"id": 7, "method": "stop"}) == request
    # the proof once more by RFC 2104's own words: H(K xor opad, H(K xor ipad, text))
    key = token.encode().ljust(64, b"\0")
    inner = hashlib.sha256(bytes(k ^ 0x36 for k in key) + f"{nonce} command".encode()).digest()
    made = hashlib.sha256(bytes(k ^ 0x5C for k in key) + inner).hexdigest()
    assert json.loads(hello[5:])["proof"] == made
    shown = re.search(r"printf '(.+)' \| openssl dgst -sha256 -hmac (\w+)", PAGE)
    assert hmac.new(shown[2].encode(), shown[1].encode(), "sha256").hexdigest() == made


@served
async def test_literal_opening_is_taken_by_the_server(s):
    """The page's HELLO and request, with this server's nonce and token in their place."""
    raw = await s.raw(hello=False)
    said = json.loads(frames()[1][5:])
    raw.hello(said["role"], protocol_token(s), said["link"], client=said["client"])
    assert (await raw.receive())["role"] == "operator"
    raw.writer.write(frames()[2])
    assert (await raw.receive())["id"] == 7


def protocol_token(s):
    return json.loads((s.run_dir / "tokens.json").read_text())["operator"]


def test_kinds_are_those_of_the_protocol():
    table = rows("Frame")[5:]  # behind the fields and the second table's head
    assert {int(n): words(name)[0] for n, name, *_ in table} == {int(k): k.name for k in Kind}


def test_limits_are_those_of_the_server():
    for name, value, _ in rows("Limits"):
        (limit,) = words(name)
        there = getattr(server, limit, None) or getattr(protocol, limit)
        assert int(value.split()[0]) == there, limit
    assert f"at most {protocol.MAX_FRAME} |" in PAGE


def test_every_refusal_that_the_api_names_is_on_the_page():
    source = "".join(p.read_text() for p in sorted((ROOT / "controller" / "api").glob("*.py")))
    named = set(re.findall(r'CallError\(\s*"([A-Z_]+)"', source))
    told = {word for name, _ in rows("Refusals") for word in words(name)}
    assert len(named) > 12
    assert named == told

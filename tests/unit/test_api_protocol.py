"""Frames: literal bytes, split anywhere; what cannot be read on is named."""

import pytest

from controller.api.protocol import (
    MAX_FRAME,
    CallError,
    Decoder,
    Kind,
    decode_json,
    encode,
    encode_json,
)

STOP = bytes.fromhex("18 00 00 00 02") + b'{"id":7,"method":"stop"}'


def test_request_on_the_wire_is_length_kind_json():
    assert encode_json(Kind.REQUEST, {"id": 7, "method": "stop"}) == STOP


def test_empty_payload():
    assert encode(Kind.TELEMETRY, b"") == bytes.fromhex("00 00 00 00 12")
    assert Decoder().feed(bytes.fromhex("00 00 00 00 12")) == [(18, b"")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_frames_split_anywhere_are_put_together(size):
    data, decoder, got = STOP * 5, Decoder(), []
    for at in range(0, len(data), size):
        got += decoder.feed(data[at : at + size])
    assert got == [(2, STOP[5:])] * 5


def test_frames_before_a_bad_one_are_not_waited_for():
    decoder = Decoder()
    assert decoder.feed(STOP + STOP[:9]) == [(2, STOP[5:])]
    assert decoder.feed(STOP[9:]) == [(2, STOP[5:])]


def test_huge_frame_is_refused_from_its_length_alone():
    head = (MAX_FRAME + 1).to_bytes(4, "little") + b"\x02"
    with pytest.raises(CallError, match="1048577 bytes, at most 1048576") as refused:
        Decoder().feed(head)
    assert refused.value.name == "FRAME_TOO_LARGE"


def test_unknown_kind_is_refused():
    with pytest.raises(CallError, match="kind 99") as refused:
        Decoder().feed(bytes.fromhex("01 00 00 00 63 00"))
    assert refused.value.name == "BAD_FRAME"


@pytest.mark.parametrize("payload", [b"", b"{", b"[1]", b"7", b"\xff\xfe", b"[" * 100_000])
def test_payload_that_is_no_object(payload):
    with pytest.raises(CallError) as refused:
        decode_json(payload)
    assert refused.value.name == "BAD_JSON"


def test_nan_is_never_sent():
    with pytest.raises(ValueError, match="JSON"):
        encode_json(Kind.EVENT, {"value": float("nan")})

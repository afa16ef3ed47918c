"""The host's encoder and decoder against the document's bytes and against rubbish."""

import random
import struct

import pytest

from firmware_bridge.framing import MAX_PAYLOAD, Decoder, T, encode
from tests.unit.protocol_reader import NAMES, Reader
from tests.unit.test_firmware_protocol import EXAMPLES, mutate


@pytest.mark.parametrize("name", sorted(set(NAMES.values())))
def test_decoder_and_encoder_agree_with_the_documents_bytes(name):
    data = EXAMPLES[name]
    ((kind, number, payload),) = Decoder().feed(data)
    assert T(kind).name == name
    assert struct.unpack_from("<I", data, 4)[0] == number
    assert payload == data[8:-4]
    assert encode(kind, number, payload) == data


def test_frames_come_out_however_the_bytes_are_cut():
    stream = b"".join(EXAMPLES[name] for name in sorted(NAMES.values()))
    want = Decoder().feed(stream)
    assert len(want) == len(NAMES)
    for size in (1, 2, 7, 13, 100):
        decoder = Decoder()
        got = []
        for at in range(0, len(stream), size):
            got += decoder.feed(stream[at : at + size])
        assert got == want
        assert decoder.bad_bytes == 0


def test_a_frame_that_begins_inside_a_damaged_one_is_found():
    good = EXAMPLES["ACK"]
    decoder = Decoder()
    assert decoder.feed(EXAMPLES["EVENT"][:20] + good + b"\x00" * 40) == Decoder().feed(good)
    assert decoder.bad_bytes == 60 - 0


def test_payload_above_the_limit_is_refused():
    with pytest.raises(ValueError, match="513 bytes above 512"):
        encode(T.SEGMENTS, 0, b"\0" * (MAX_PAYLOAD + 1))


def test_every_single_bit_error_is_caught():
    data = EXAMPLES["STATUS"]
    for bit in range(len(data) * 8):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << (bit % 8)
        assert Decoder().feed(bytes(bad)) == []


def campaign(n: int, seed: int) -> int:
    """n mutated frames; how many frames the decoder took that were never sent."""
    rng = random.Random(seed)
    sent = [EXAMPLES[name] for name in sorted(NAMES.values())]
    allowed = {(d[1], struct.unpack_from("<I", d, 4)[0], d[8:-4]) for d in sent}
    decoder = Decoder()
    wrong = 0
    for _ in range(n):
        wrong += sum(f not in allowed for f in decoder.feed(mutate(rng, rng.choice(sent), sent)))
    return wrong


@pytest.mark.slow
def test_mutated_frames_are_never_taken_for_others():
    assert campaign(100_000, seed=3) == 0


@pytest.mark.slow
def test_agrees_with_the_plain_reader_on_rubbish():
    rng = random.Random(4)
    sent = [EXAMPLES[name] for name in sorted(NAMES.values())]
    decoder, reader = Decoder(), Reader()
    for _ in range(3000):
        blob = mutate(rng, rng.choice(sent), sent)
        if blob == b"":
            continue
        want = [(f.number, f.payload) for f in reader.feed(blob)]
        assert [(number, payload) for _, number, payload in decoder.feed(blob)] == want
    assert decoder.bad_bytes == reader.dropped

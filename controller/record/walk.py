"""Reads MCAP files whole or torn: the records of a killed recorder have no footer.

Only what is needed of the format (mcap.dev/spec): schemas, channels, messages, chunks. It
never stops at damage without saying where, and never invents a message: a chunk whose
CRC-32 does not hold is left out and told.
"""

import struct
import zlib
from dataclasses import dataclass, field

from controller.errors import RecordError

MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_CHUNK = struct.Struct("<QQQI")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE_OP, _CHUNK_OP, _DATA_END = 2, 3, 4, 5, 6, 15
MAX_CHUNK_BYTES = 256 << 20  # a chunk that claims more unpacked is refused


@dataclass(frozen=True)
class Channel:
    """A topic with how its messages are written."""

    topic: str
    encoding: str
    schema_name: str
    schema_text: str


@dataclass
class Walk:
    """What a walk through a file found."""

    channels: dict[int, Channel] = field(default_factory=dict)
    # (channel id, log time in ns, payload, file offset of the chunk or message)
    messages: list[tuple[int, int, memoryview, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    readable_to: int = 0  # bytes understood from the start
    has_footer: bool = False

    def ids(self, topic: str) -> set[int]:
        """Channel ids of a topic; a set for membership only."""
        return {i for i, c in self.channels.items() if c.topic == topic}

    def of_topic(self, topic: str) -> list[tuple[int, memoryview]]:
        """(log time in ns, payload) of a topic in file order."""
        ids = self.ids(topic)
        return [(t, payload) for i, t, payload, _ in self.messages if i in ids]


def walk_mcap(data: memoryview, origin: str) -> Walk:
    """Go through an MCAP file held in memory. Raises RecordError if it is none at all."""
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise RecordError(f"{origin}: not an MCAP file")
    walk = Walk()
    schemas: dict[int, tuple[str, str]] = {}
    at = walk.readable_to = len(MAGIC)
    end = len(data)
    while at < end:
        if bytes(data[at : at + 8]) == MAGIC and at + 8 == end:
            walk.readable_to = end
            break
        if at + 9 > end:
            walk.problems.append(f"torn after byte {at}")
            break
        op, length = _RECORD.unpack_from(data, at)
        body = at + 9
        if op == 0 or length > end - body:
            walk.problems.append(f"torn after byte {at}")
            break
        try:
            if op == _CHUNK_OP:
                _chunk(walk, schemas, data[body : body + length], at)
            else:
                _plain(walk, schemas, op, data[body : body + length], at)
        except (struct.error, UnicodeDecodeError, ValueError) as exc:
            walk.problems.append(f"bytes {at} to {body + length}: damaged ({exc})")
        if op == _FOOTER:
            walk.has_footer = True
        at = walk.readable_to = body + length
    return walk


def _chunk(walk: Walk, schemas: dict[int, tuple[str, str]], body: memoryview, at: int) -> None:
    _, _, size, crc = _CHUNK.unpack_from(body, 0)
    compression, pos = _text(body, _CHUNK.size)
    (length,) = _U64.unpack_from(body, pos)
    records = body[pos + 8 : pos + 8 + length]
    if len(records) != length or size > MAX_CHUNK_BYTES:
        raise ValueError(f"chunk of {size} bytes")
    if compression:
        records = memoryview(_unpack(compression, records, size))
    if len(records) != size or (crc and zlib.crc32(records) != crc):
        raise ValueError("chunk checksum")
    pos = 0
    messages = walk.messages
    unpack_record, unpack_message = _RECORD.unpack_from, _MESSAGE.unpack_from
    while pos < size:
        op, length = unpack_record(records, pos)
        pos += 9
        if op == _MESSAGE_OP:
            channel, _, t_ns, _ = unpack_message(records, pos)
            messages.append((channel, t_ns, records[pos + 22 : pos + length], at))
        else:
            _plain(walk, schemas, op, records[pos : pos + length], at)
        pos += length


def _plain(
    walk: Walk, schemas: dict[int, tuple[str, str]], op: int, body: memoryview, at: int
) -> None:
    if op == _MESSAGE_OP:
        channel, _, t_ns, _ = _MESSAGE.unpack_from(body, 0)
        walk.messages.append((channel, t_ns, body[22:], at))
    elif op == _SCHEMA:
        (schema_id,) = _U16.unpack_from(body, 0)
        name, pos = _text(body, 2)
        _, pos = _text(body, pos)
        schemas[schema_id] = (name, _text(body, pos)[0])
    elif op == _CHANNEL:
        channel, schema_id = struct.unpack_from("<HH", body, 0)
        topic, pos = _text(body, 4)
        encoding, pos = _text(body, pos)
        name, text = schemas.get(schema_id, ("", ""))
        walk.channels[channel] = Channel(topic, encoding, name, text)


def _text(body: memoryview, at: int) -> tuple[str, int]:
    (length,) = _U32.unpack_from(body, at)
    at += 4
    if length > len(body) - at:
        raise ValueError("text longer than its record")
    return str(body[at : at + length], "utf-8"), at + length


def _unpack(compression: str, records: memoryview, size: int) -> bytes:
    if compression == "zstd":
        import zstandard

        try:
            return zstandard.ZstdDecompressor().decompress(bytes(records), max_output_size=size)
        except zstandard.ZstdError as exc:
            raise ValueError(str(exc)) from None
    raise ValueError(f"unknown compression {compression!r}")

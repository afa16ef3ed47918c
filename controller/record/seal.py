"""Seals: signed statements about the bytes of a record.

Once a simulated second the writer ends its chunk at byte ``length`` and appends a seal
message, itself in the next chunk. The seal states the sha256 of everything before it, and
apart from that the sha256 of the bytes since the last seal, so that damage in one second
does not hide damage in another. A seal's text begins with a fixed mark and is stored
uncompressed: a verifier finds the seals even when a flipped length field has made the
file's structure unreadable.

``record.seal`` closes the chain: it covers the whole file with its footer, the job and the
public key. A record without it was not closed by its recorder.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from controller.errors import RecordError
from controller.record.keys import signature_holds

SEAL_FILE = "record.seal"
RECORD_FILE = "record.mcap"
JOB_FILE = "job.lmdjob"

_DOMAIN = b"lmd record seal 1\n"
_FINAL_DOMAIN = b"lmd record final seal 1\n"
_SEAL = re.compile(
    rb'\{"seal":(\d{1,18}),"t_us":(\d{1,18}),"length":(\d{1,18}),"block_start":(\d{1,18}),'
    rb'"rows":(\d{1,18}),"events":(\d{1,18}),"block_sha256":"([0-9a-f]{64})",'
    rb'"sha256":"([0-9a-f]{64})","content_hash":"([0-9a-f]{64})","signature":"([0-9a-f]{128})"\}'
)


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal inside of record.mcap."""

    seal: int  # running number from 0
    t_us: int  # machine time of the last thing covered
    length: int  # bytes of record.mcap covered: [0, length)
    block_start: int  # where the bytes since the last seal begin (its own ``length``)
    rows: int  # telemetry rows covered
    events: int
    block_sha256: str  # of [block_start, length)
    sha256: str  # of [0, length)
    content_hash: str


@dataclass(frozen=True, slots=True)
class FoundSeal:
    """A seal as found in the bytes of a file."""

    seal: Seal
    start: int  # byte range of its text in the file
    end: int
    genuine: bool  # the signature holds


_SEAL_FIELDS = tuple(f.name for f in fields(Seal))


def encode_seal(seal: Seal, key: Ed25519PrivateKey) -> bytes:
    """The payload of a seal message."""
    body = json.dumps(asdict(seal), separators=(",", ":")).encode()[:-1]
    return body + b',"signature":"' + key.sign(_DOMAIN + body).hex().encode() + b'"}'


def find_seals(data: bytes | memoryview, key: Ed25519PublicKey | None) -> list[FoundSeal]:
    """All seal texts in ``data``, in file order, whatever the structure around them.

    Without a key no seal is genuine.
    """
    found = []
    for match in _SEAL.finditer(data):
        numbers = [int(g) for g in match.groups()[:6]]
        hashes = [g.decode() for g in match.groups()[6:9]]
        signed = match.group(0).rsplit(b',"signature"', 1)[0]
        genuine = key is not None and signature_holds(
            key, bytes.fromhex(match.group(10).decode()), _DOMAIN + signed
        )
        seal = Seal(**dict(zip(_SEAL_FIELDS, [*numbers, *hashes], strict=True)))  # type: ignore[arg-type]
        found.append(FoundSeal(seal, match.start(), match.end(), genuine))
    return found


def encode_final(content: Mapping[str, Any], key: Ed25519PrivateKey) -> bytes:
    """The bytes of record.seal: a line of JSON, a line with the signature in hex."""
    line = json.dumps(content, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    return line + b"\n" + key.sign(_FINAL_DOMAIN + line).hex().encode() + b"\n"


def decode_final(data: bytes, key: Ed25519PublicKey | None) -> tuple[dict[str, Any] | None, bool]:
    """Content of record.seal (None if unreadable) and whether its signature holds.

    Any byte that ``encode_final`` would not have written makes the signature not hold.
    """
    line, _, rest = data.partition(b"\n")
    genuine = False
    if key is not None and re.fullmatch(rb"[0-9a-f]{128}\n", rest):
        genuine = signature_holds(key, bytes.fromhex(rest.decode()), _FINAL_DOMAIN + line)
    try:
        content = json.loads(line)
    except (ValueError, UnicodeDecodeError):
        return None, False
    return (content, genuine) if isinstance(content, dict) else (None, False)


def job_map(path: Path) -> dict[str, Any]:
    """Byte ranges of a job file with their hashes, so that damage is told by member.

    ``{"length", "sha256", "members": [[name, start, end, sha256], ...]}``: the ranges cover
    every byte; the last is named ``(directory)``. Raises RecordError when the file is no zip.
    """
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            starts = sorted((i.header_offset, i.filename) for i in archive.infolist())
            directory = archive.start_dir
    except (OSError, zipfile.BadZipFile, NotImplementedError) as exc:
        raise RecordError(f"{path}: not a readable job file ({exc})") from None
    ends = [start for start, _ in starts[1:]] + [directory]
    ranges = [(name, start, end) for (start, name), end in zip(starts, ends, strict=True)]
    ranges.append(("(directory)", directory, len(data)))
    if ranges[0][1] != 0:
        ranges.insert(0, ("(before the first member)", 0, ranges[0][1]))
    return {
        "length": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "members": [
            [name, start, end, hashlib.sha256(data[start:end]).hexdigest()]
            for name, start, end in ranges
        ],
    }

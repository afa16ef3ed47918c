"""Is a record what was sealed? If not: where is the damage?

Every byte of the folder's four files is covered: ``record.mcap`` second by second through
its seals and as a whole through ``record.seal``, the job by member through the header, the
public key through the header and the seals themselves.
"""

import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from controller.errors import RecordError, VerifyError
from controller.record import schema as s
from controller.record.keys import PUBLIC_KEY_FILE, key_id, parse_public, public_pem, public_raw
from controller.record.reader import content_hash_of, open_mcap
from controller.record.seal import (
    JOB_FILE,
    RECORD_FILE,
    SEAL_FILE,
    FoundSeal,
    decode_final,
    find_seals,
)
from controller.record.walk import Walk, walk_mcap


@dataclass(frozen=True)
class Verification:
    """What verify found.

    ``ok``: nothing that was sealed has been changed. ``complete``: the recorder closed the
    record and its final seal covers every byte. A record whose recorder was killed is ok
    up to ``sealed_until_s`` and not complete; ``notes`` say so.
    """

    ok: bool
    complete: bool
    sealed_until_s: float  # machine time up to which the chain of seals is unbroken
    rows: int  # telemetry rows under the unbroken chain
    seals: int
    state: str  # "COMPLETE"..., "INTERRUPTED" without a final seal
    content_hash: str  # as the last good seal states it; "" when there is none
    key_id: str  # who sealed: compare it with the key you trust
    problems: list[str] = field(default_factory=list)  # each a sentence with its place
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One line for people."""
        if not self.ok:
            return f"DAMAGED: {len(self.problems)} problem(s), the first: {self.problems[0]}"
        if not self.complete:
            return f"sealed until {self.sealed_until_s:g} s, unsealed after (not closed)"
        return f"sealed: {self.rows} rows, {self.sealed_until_s:g} s, key {self.key_id}"

    def require(self) -> None:
        """Raise VerifyError (exit code 4) unless ok."""
        if not self.ok:
            raise VerifyError("; ".join(self.problems))


def verify_record(folder: Path, trusted: Ed25519PublicKey | None = None) -> Verification:
    """Check a record folder against its seals, and against ``trusted`` if given.

    Raises RecordError only when there is no record to check; all else is a problem listed.
    """
    folder = Path(folder)
    path = folder / RECORD_FILE
    if not path.is_file():
        raise RecordError(f"{folder}: no {RECORD_FILE} there, not a record folder")
    data = open_mcap(path)
    problems: list[str] = []
    notes: list[str] = []
    final_bytes = _read(folder / SEAL_FILE)
    key, seals = _choose_key(folder, data, final_bytes, problems)
    if trusted is not None and key is not None and public_raw(trusted) != public_raw(key):
        problems.append(f"sealed with key {key_id(key)}, not with the trusted {key_id(trusted)}")
    chain = _check_blocks(data, [f for f in seals if f.genuine], problems)
    final, genuine = decode_final(final_bytes, key) if final_bytes is not None else (None, False)
    try:
        walk = walk_mcap(data, RECORD_FILE)
    except RecordError:
        walk = Walk()  # its first bytes are damaged: the blocks have told that
    complete = False
    if final_bytes is None:
        _open_end(data, walk, chain, problems, notes)
    elif not genuine or final is None:
        problems.append(f"{SEAL_FILE}, bytes 0 to {len(final_bytes)}: its signature does not hold")
    else:
        complete = _check_final(data, final, chain, problems)
    header = _header(walk)
    job = header.get("job") if chain.good_blocks else None
    if job is None and genuine and final is not None:
        job = final.get("job")
    _check_job(folder, job, bool(chain.good_blocks or genuine), problems, notes)
    if not problems and chain.last is not None:
        stated = chain.last.seal
        if content_hash_of(walk, stated.rows, stated.events) != stated.content_hash:
            problems.append("content hash: differs from what the seal states, all bytes intact")
    return Verification(
        ok=not problems,
        complete=complete and not problems,
        sealed_until_s=chain.until_us * 1e-6,
        rows=chain.rows,
        seals=len(chain.genuine),
        state=str(final.get("state", "")) if genuine and final is not None else "INTERRUPTED",
        content_hash=chain.last.seal.content_hash if chain.last else "",
        key_id=key_id(key) if key is not None else "",
        problems=problems,
        notes=notes,
    )


@dataclass
class _Chain:
    """The genuine seals, and how far from the start they hold."""

    genuine: list[FoundSeal]
    until_us: int = 0
    rows: int = 0
    good_blocks: bool = False  # the first block, with the header, is intact
    damaged: bool = False

    @property
    def last(self) -> FoundSeal | None:
        return self.genuine[-1] if self.genuine else None


def _choose_key(
    folder: Path, data: memoryview, final_bytes: bytes | None, problems: list[str]
) -> tuple[Ed25519PublicKey | None, list[FoundSeal]]:
    """The key under which the seals hold; a key file that differs from it is a problem.

    Only when the file's key fits no seal the key stated in the record itself is tried: that
    tells a damaged key file from a damaged record.
    """
    pem = _read(folder / PUBLIC_KEY_FILE)
    candidates: list[Ed25519PublicKey] = []
    if pem is not None:
        with contextlib.suppress(RecordError):  # told below
            candidates.append(parse_public(pem, PUBLIC_KEY_FILE))
    for text in _stated_keys(data, final_bytes):
        candidates.append(Ed25519PublicKey.from_public_bytes(text))
    for key in candidates:
        seals = find_seals(data, key)
        if any(f.genuine for f in seals):
            break
    else:
        problems.append(f"{RECORD_FILE}: no seal in it holds under the key of {PUBLIC_KEY_FILE}")
        return (candidates[0] if candidates else None), find_seals(data, None)
    wanted = public_pem(key)
    if pem is None:
        problems.append(f"{PUBLIC_KEY_FILE}: missing")
    elif pem != wanted:
        first, last = _differs(pem, wanted)
        problems.append(
            f"{PUBLIC_KEY_FILE}, bytes {first} to {last}: not the key that sealed the record"
        )
    return key, seals


def _stated_keys(data: memoryview, final_bytes: bytes | None) -> list[bytes]:
    """Public keys that the record states about itself, raw, without trust."""
    stated = []
    contents: list[Any] = [decode_final(final_bytes, None)[0] if final_bytes else None]
    with contextlib.suppress(RecordError):
        contents.append(_header(walk_mcap(data, RECORD_FILE)))
    for content in contents:
        try:
            raw = bytes.fromhex(content["public_key"])
        except (TypeError, KeyError, ValueError):
            continue
        if len(raw) == 32:
            stated.append(raw)
    return stated


def _check_blocks(data: memoryview, genuine: list[FoundSeal], problems: list[str]) -> _Chain:
    """Hash each second's bytes against its seal."""
    chain = _Chain(genuine)
    prefix = hashlib.sha256()
    cursor, cursor_us, number = 0, 0, 0
    for found in genuine:
        seal = found.seal
        if seal.length > len(data) or seal.block_start > seal.length or found.start < seal.length:
            problems.append(
                f"{RECORD_FILE}, bytes {found.start} to {found.end}: a seal that is not in its "
                f"place, it covers {seal.length} bytes"
            )
            chain.damaged = True
            continue
        when = f"{cursor_us * 1e-6:g} s to {seal.t_us * 1e-6:g} s"
        if seal.block_start > cursor or seal.seal > number:
            problems.append(
                f"{RECORD_FILE}, bytes {cursor} to {seal.length}: damaged between {when} "
                f"(seal {number} is missing or changed)"
            )
            chain.damaged = True
        else:
            block = data[seal.block_start : seal.length]
            intact = hashlib.sha256(block).hexdigest() == seal.block_sha256
            if intact and not chain.damaged:
                prefix.update(block)
                if seal.seal != number or prefix.hexdigest() != seal.sha256:
                    intact = False
            if not intact:
                problems.append(
                    f"{RECORD_FILE}, bytes {cursor} to {seal.length}: damaged between {when}"
                )
                chain.damaged = True
        if not chain.damaged:
            chain.until_us, chain.rows, chain.good_blocks = seal.t_us, seal.rows, True
        cursor, cursor_us, number = seal.length, seal.t_us, seal.seal + 1
    return chain


def _check_final(
    data: memoryview, final: dict[str, Any], chain: _Chain, problems: list[str]
) -> bool:
    """Compare the whole file with the final seal; True when it holds."""
    last = chain.last
    start, when = (last.seal.length, last.seal.t_us * 1e-6) if last else (0, 0.0)
    length, n = int(final.get("length", 0)), len(data)
    if n < length:
        problems.append(f"{RECORD_FILE}, bytes {n} to {length}: cut off, unsealed after {when:g} s")
        return False
    if n > length:
        problems.append(f"{RECORD_FILE}, bytes {length} to {n}: added after the end of the record")
    if hashlib.sha256(data[:length]).hexdigest() == final.get("sha256"):
        return n == length
    if not chain.damaged:
        problems.append(
            f"{RECORD_FILE}, bytes {start} to {length}: damaged after {when:g} s, in the last "
            "seal or the file's index"
        )
    return False


def _open_end(
    data: memoryview, walk: Walk, chain: _Chain, problems: list[str], notes: list[str]
) -> None:
    """There is no final seal: was the recorder killed, or was the seal taken away?"""
    last = chain.last
    when = last.seal.t_us * 1e-6 if last else 0.0
    closed = walk.has_footer or any(
        b'"kind":"record_end"' in bytes(payload) for _, payload in walk.of_topic(s.TOPIC_EVENT)
    )
    if closed:
        problems.append(f"{SEAL_FILE}: missing, though the record was closed at its end")
    over = len(data) - (last.end if last else 0)
    notes.append(
        f"unsealed after {when:g} s: the recorder did not close the record; "
        f"{over} bytes after the last seal are not covered"
    )


def _check_job(folder: Path, job: Any, known: bool, problems: list[str], notes: list[str]) -> None:
    """Compare the job file with the byte ranges stated under seal."""
    data = _read(folder / JOB_FILE)
    if not isinstance(job, dict):
        if data is not None and known:
            notes.append(f"{JOB_FILE}: not covered by the seals")
        elif data is not None:
            problems.append(f"{JOB_FILE}: cannot be checked, what the record says of it is damaged")
        return
    if data is None:
        problems.append(f"{JOB_FILE}: missing")
        return
    for name, start, end, digest in job["members"]:
        part = data[start:end]
        if len(part) != end - start:
            problems.append(f"{JOB_FILE}, bytes {start} to {end}: member {name} is cut off")
        elif hashlib.sha256(part).hexdigest() != digest:
            problems.append(f"{JOB_FILE}, bytes {start} to {end}: member {name} is damaged")
    if len(data) > job["length"]:
        problems.append(
            f"{JOB_FILE}, bytes {job['length']} to {len(data)}: added after the job's end"
        )


def _header(walk: Walk) -> dict[str, Any]:
    messages = walk.of_topic(s.TOPIC_HEADER)
    try:
        content = json.loads(bytes(messages[0][1]))
    except (IndexError, ValueError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _differs(have: bytes, wanted: bytes) -> tuple[int, int]:
    """Byte range in which two texts differ."""
    n = min(len(have), len(wanted))
    first = next((i for i in range(n) if have[i] != wanted[i]), n)
    if len(have) != len(wanted):
        return first, len(have)
    return first, next(i for i in range(n - 1, -1, -1) if have[i] != wanted[i]) + 1


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise RecordError(f"{path}: cannot be read ({exc.strerror})") from None

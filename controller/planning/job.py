"""The job file ``*.lmdjob``: a whole plan, byte for byte reproducible, and verified on reading.

A stored (uncompressed) zip with members in one fixed order and one fixed date. The reader does
not trust zip fields: it reads the directory, and demands that the whole file equal what the
writer would have made of the members. So any flipped byte is found, wherever it is, and the
message names the member it belongs to.

``hash`` in manifest.json covers the members' sha256, the figures, the part, the warnings and
the meta data; ``members`` there holds the sha256 of each other member.
"""

import hashlib
import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from controller.errors import RecordError, VerifyError
from controller.model import LAYER_ROW, TIMELINE_ROW, TRACK_ROW, BuildPlan
from firmware_bridge.segments import N_AXES, SEGMENT

FORMAT, VERSION = "lmdjob", 1
MANIFEST = "manifest.json"
# name -> dtype and columns (None: one-dimensional)
ARRAYS: dict[str, tuple[np.dtype, int | None]] = {
    "segments.npy": (SEGMENT, None),
    "start_steps.npy": (np.dtype("<i8"), None),
    "tracks.npy": (TRACK_ROW, None),
    "layers.npy": (LAYER_ROW, None),
    "timeline.npy": (TIMELINE_ROW, None),
    "path_mm.npy": (np.dtype("<f8"), 3),
}
TEXTS = ("cell.toml", "recipe.toml", "material.toml")
MEMBERS = (MANIFEST, *ARRAYS, *TEXTS)
MAX_FILE_BYTES = 2**31
MAX_MANIFEST_BYTES = 16_000_000
MAX_TEXT_BYTES = 1_000_000
MAX_DEPTH = 16

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_DOS_DATE = (1 << 5) | 1  # 1980-01-01, the first a zip can hold


def _array_bytes(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return out.getvalue()


def _json_bytes(data: Any) -> bytes:
    text = json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def _body(plan: BuildPlan) -> dict[str, bytes]:
    """All members but the manifest, in file order."""
    arrays = {
        "segments.npy": plan.segments,
        "start_steps.npy": plan.start_steps,
        "tracks.npy": plan.tracks,
        "layers.npy": plan.layers,
        "timeline.npy": plan.timeline,
        "path_mm.npy": plan.path_mm,
    }
    body = {name: _array_bytes(arrays[name].astype(ARRAYS[name][0])) for name in ARRAYS}
    texts = (plan.cell_toml, plan.recipe_toml, plan.material_toml)
    body |= {name: text.encode("utf-8") for name, text in zip(TEXTS, texts, strict=True)}
    return body


def _manifest(plan: BuildPlan, body: dict[str, bytes]) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "members": {name: hashlib.sha256(data).hexdigest() for name, data in body.items()},
        "figures": {k: v for k, v in plan.figures.items() if k != "hash"},
        "part": plan.part,
        "warnings": list(plan.warnings),
        "meta": plan.meta,
    }
    manifest["hash"] = _hash_of(manifest)
    return manifest


def _hash_of(manifest: dict[str, Any]) -> str:
    content = {k: v for k, v in manifest.items() if k != "hash"}
    return hashlib.sha256(_json_bytes(content)).hexdigest()


def job_hash(plan: BuildPlan) -> str:
    """sha256 over everything that the job file holds, as hexadecimal text."""
    return str(_manifest(plan, _body(plan))["hash"])


def _local_header(name: str, crc: int, size: int) -> bytes:
    raw = name.encode("ascii")
    head = _LOCAL.pack(0x04034B50, 20, 0, 0, 0, _DOS_DATE, crc, size, size, len(raw), 0)
    return head + raw


def _central_entry(name: str, crc: int, size: int, offset: int) -> bytes:
    raw = name.encode("ascii")
    return _CENTRAL.pack(
        0x02014B50, (3 << 8) | 20, 20, 0, 0, 0, _DOS_DATE, crc, size, size, len(raw), 0, 0, 0, 0,
        0o100644 << 16, offset,
    ) + raw  # fmt: skip


def job_bytes(plan: BuildPlan) -> bytes:
    """The job file's bytes; the same plan gives the same bytes."""
    body = _body(plan)
    members = {MANIFEST: _json_bytes(_manifest(plan, body)), **body}
    parts, central, offset = [], [], 0
    for name, data in members.items():
        crc = zlib.crc32(data)
        central.append(_central_entry(name, crc, len(data), offset))
        parts += [_local_header(name, crc, len(data)), data]
        offset += len(parts[-2]) + len(data)
    directory = b"".join(central)
    end = _END.pack(0x06054B50, 0, 0, len(central), len(central), len(directory), offset, 0)
    blob = b"".join([*parts, directory, end])
    if len(blob) > MAX_FILE_BYTES:
        raise RecordError(f"the job would have {len(blob)} bytes, at most {MAX_FILE_BYTES}")
    return blob


def write_job(plan: BuildPlan, path: Path | str) -> None:
    """Write the job whole or not at all. Raises RecordError when the file cannot be written."""
    target = Path(path)
    blob = job_bytes(plan)
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as out:
            out.write(blob)
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
    except OSError as exc:
        part.unlink(missing_ok=True)
        raise RecordError(f"{target}: cannot be written ({exc.strerror})") from None


def read_job(path: Path | str) -> BuildPlan:
    """Read and verify a job.

    Raises RecordError when the file cannot be read, VerifyError naming the member when it is
    not byte for byte what ``write_job`` made.
    """
    source = Path(path)
    try:
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise VerifyError(f"{source}: {size} bytes, at most {MAX_FILE_BYTES} are read")
            blob = file.read(size + 1)
    except OSError as exc:
        raise RecordError(f"{source}: cannot be read ({exc.strerror})") from None
    members = _unpack(blob, str(source))
    manifest = _check_manifest(members[MANIFEST], str(source))
    for name in MEMBERS[1:]:
        if hashlib.sha256(members[name]).hexdigest() != manifest["members"][name]:
            raise VerifyError(f"{source}: {name} is damaged: its sha256 is not the manifest's")
    arrays = {name: _array(name, members[name], str(source)) for name in ARRAYS}
    texts = [_text(name, members[name], str(source)) for name in TEXTS]
    plan = BuildPlan(
        segments=arrays["segments.npy"],
        start_steps=arrays["start_steps.npy"],
        tracks=arrays["tracks.npy"],
        layers=arrays["layers.npy"],
        timeline=arrays["timeline.npy"],
        path_mm=arrays["path_mm.npy"],
        figures={**manifest["figures"], "hash": manifest["hash"]},
        cell_toml=texts[0],
        recipe_toml=texts[1],
        material_toml=texts[2],
        part=manifest["part"],
        warnings=tuple(manifest["warnings"]),
        meta=manifest["meta"],
    )
    if len(plan.start_steps) != N_AXES:
        raise VerifyError(
            f"{source}: start_steps.npy has {len(plan.start_steps)} values, needed {N_AXES}"
        )
    return plan


def _unpack(blob: bytes, source: str) -> dict[str, bytes]:
    """Members of a canonical zip; VerifyError names the one that is not canonical.

    Sizes and checksums come from the directory at the end; each is then held against the
    local header, the data and its own place in the chain.
    """
    if len(blob) < _END.size:
        raise VerifyError(f"{source}: not a job file: {len(blob)} bytes")
    end = blob[-_END.size :]
    n = len(MEMBERS)
    signature, _, _, _, _, size, start, _ = _END.unpack(end)
    want_size = sum(_CENTRAL.size + len(name) for name in MEMBERS)
    want_start = len(blob) - _END.size - want_size
    if want_start < 0 or end != _END.pack(0x06054B50, 0, 0, n, n, want_size, want_start, 0):
        if signature == 0x06054B50 and size != want_size and start + size == len(blob) - _END.size:
            raise VerifyError(
                f"{source}: the zip directory does not list exactly the members of a job "
                f"({', '.join(MEMBERS)})"
            )
        raise VerifyError(
            f"{source}: the zip end record is damaged, or the file was cut or added to"
        )
    members: dict[str, bytes] = {}
    at, offset = want_start, 0
    for name in MEMBERS:
        entry = blob[at : at + _CENTRAL.size + len(name)]
        at += len(entry)
        fields = _CENTRAL.unpack(entry[: _CENTRAL.size])
        crc, length = fields[7], fields[9]
        local_size = _LOCAL.size + len(name)
        header = blob[offset : offset + local_size]
        sound_entry = entry == _central_entry(name, crc, length, offset)
        if not sound_entry or offset + local_size + length > want_start:
            found = entry[_CENTRAL.size :].decode("ascii", "replace")
            told = "" if found == name else f" (it says {found!r})"
            raise VerifyError(f"{source}: the zip directory entry of {name} is damaged{told}")
        data = blob[offset + local_size : offset + local_size + length]
        actual = zlib.crc32(data)
        if header != _local_header(name, crc, length):
            if actual == crc:
                raise VerifyError(f"{source}: the zip header of {name} is damaged")
            where = f"zip header or directory entry of {name}"
            if header == _local_header(name, actual, length):
                where = f"zip directory entry of {name}"
            raise VerifyError(f"{source}: the {where} is damaged")
        if actual != crc:
            raise VerifyError(f"{source}: {name} is damaged: its CRC-32 does not fit")
        members[name] = data
        offset += local_size + length
    if offset != want_start:
        raise VerifyError(f"{source}: {want_start - offset} bytes that no member owns")
    return members


def _check_manifest(data: bytes, source: str) -> dict[str, Any]:
    """The manifest as written: its keys, its own hash, its very bytes."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise VerifyError(f"{source}: {MANIFEST} has {len(data)} bytes, at most "
                          f"{MAX_MANIFEST_BYTES} are read")  # fmt: skip
    try:
        manifest = json.loads(data)
        if not isinstance(manifest, dict) or _depth(manifest) > MAX_DEPTH:
            raise ValueError("not an object, or nested too deeply")
        canonical = _json_bytes(manifest)
    except (ValueError, RecursionError) as exc:
        raise VerifyError(f"{source}: {MANIFEST} is damaged: {exc}") from None
    shape = {
        "format": str, "version": int, "members": dict, "figures": dict, "part": dict,
        "warnings": list, "meta": dict, "hash": str,
    }  # fmt: skip
    if {k: type(v) for k, v in manifest.items()} != shape or canonical != data:
        raise VerifyError(f"{source}: {MANIFEST} is damaged: not as a job is written")
    if manifest["format"] != FORMAT or manifest["version"] != VERSION:
        raise VerifyError(
            f"{source}: {MANIFEST} is of format {manifest['format']!r} version "
            f"{manifest['version']}, this program reads {FORMAT!r} version {VERSION}"
        )
    if sorted(manifest["members"]) != sorted(MEMBERS[1:]):
        raise VerifyError(f"{source}: {MANIFEST} does not list exactly the members of a job")
    if manifest["hash"] != _hash_of(manifest):
        raise VerifyError(f"{source}: {MANIFEST} is damaged: its hash does not fit")
    return manifest


def _depth(data: Any) -> int:
    if isinstance(data, dict):
        return 1 + max((_depth(v) for v in data.values()), default=0)
    if isinstance(data, list):
        return 1 + max((_depth(v) for v in data), default=0)
    return 0


def _array(name: str, data: bytes, source: str) -> np.ndarray:
    """An array of the dtype and shape its name demands; memory only as large as the data."""
    dtype, columns = ARRAYS[name]
    header = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(header) != (1, 0):
            raise ValueError("not .npy version 1.0")
        shape, fortran, found = np.lib.format.read_array_header_1_0(header)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as exc:
        raise VerifyError(f"{source}: {name} is damaged: {str(exc)[:120]}") from None
    start = header.tell()
    wanted = 1 if columns is None else 2
    if (
        found != dtype
        or fortran
        or len(shape) != wanted
        or (columns is not None and shape[1] != columns)
        or len(data) - start != int(shape[0]) * (columns or 1) * dtype.itemsize
    ):
        raise VerifyError(f"{source}: {name} has shape {shape} of {str(found)[:80]}, "
                          "not as a job is written")  # fmt: skip
    return np.frombuffer(data, dtype=dtype, offset=start).reshape(shape).copy()


def _text(name: str, data: bytes, source: str) -> str:
    if len(data) > MAX_TEXT_BYTES:
        raise VerifyError(f"{source}: {name} has {len(data)} bytes, at most {MAX_TEXT_BYTES}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise VerifyError(f"{source}: {name} is damaged: not UTF-8 text") from None

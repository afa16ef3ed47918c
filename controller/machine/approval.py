"""The frozen, approved set of a cell: what production mode may run, by hash and signed.

A set names the cell file, the recipes (their limits are in them), the software, the firmware
and the calibrations by sha256. It lies beside the signing key, one file a cell, and is signed
by it: a file changed by hand is no approval. Whatever differs from it is refused in production
and, in any other mode, a reported deviation in the record's header.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.errors import ConfigError
from controller.machine.snapshot import Blocker
from controller.record.keys import key_id, key_path, load_or_make_key, signature_holds

# part of the set -> (blocker, how it is called in a sentence)
SINGLE: dict[str, tuple[str, str]] = {
    "cell": ("CELL_NOT_APPROVED", "the cell file"),
    "software": ("SOFTWARE_NOT_APPROVED", "the software"),
    "firmware": ("FIRMWARE_NOT_APPROVED", "the motion controller's firmware"),
}
MANY: dict[str, tuple[str, str]] = {
    "recipes": ("RECIPE_OUT_OF_SET", "recipe"),
    "calibrations": ("CALIBRATION_OUT_OF_SET", "calibration"),
}


@dataclass(frozen=True, slots=True)
class Present:
    """What would run now. Hashes are sha256 in hex; ``software`` and ``firmware`` are versions."""

    cell: str
    software: str
    firmware: str
    recipes: Mapping[str, str] = field(default_factory=dict)  # name -> hash: those of the job
    calibrations: Mapping[str, str] = field(default_factory=dict)  # kind -> hash


@dataclass(frozen=True, slots=True)
class Approved:
    """A set as somebody approved it."""

    who: str
    when: str  # ISO 8601
    present: Present

    @property
    def payload(self) -> bytes:
        """The bytes that are signed."""
        p = self.present
        value = {
            "who": self.who, "when": self.when, "cell": p.cell, "software": p.software,
            "firmware": p.firmware, "recipes": dict(p.recipes),
            "calibrations": dict(p.calibrations),
        }  # fmt: skip
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def approval_path(cell_name: str) -> Path:
    """Where a cell's set lies: ``approved/<cell>.json`` beside the signing key."""
    return key_path().parent / "approved" / f"{cell_name}.json"


def approve(who: str, when: str, present: Present, path: Path) -> Approved:
    """Freeze what is there; recipes approved before stay. Raises ConfigError, RecordError."""
    if not who.strip():
        raise ConfigError("approve: who approves must be named")
    before = read(path) if path.exists() else None
    recipes = {**(before.present.recipes if before else {}), **present.recipes}
    kept = Present(
        present.cell, present.software, present.firmware, recipes, dict(present.calibrations)
    )
    found = Approved(who, when, kept)
    key = load_or_make_key()
    value = {
        **json.loads(found.payload),
        "key": key_id(key.public_key()),
        "signature": key.sign(found.payload).hex(),
    }
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written ({exc.strerror})") from None
    return found


def read(path: Path) -> Approved:
    """A set that is signed by this workstation's key. Raises ConfigError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        signature = bytes.fromhex(value["signature"])
        recipes, calibrations = (
            {str(n): str(h) for n, h in value[k].items()} for k in ("recipes", "calibrations")
        )
        cell, software, firmware = (str(value[k]) for k in SINGLE)
        present = Present(cell, software, firmware, recipes, calibrations)
        found = Approved(str(value["who"]), str(value["when"]), present)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ConfigError(f"{path}: is no approved set ({type(exc).__name__})") from None
    if not signature_holds(load_or_make_key().public_key(), signature, found.payload):
        raise ConfigError(f"{path}: the signature does not hold: it was changed, or made elsewhere")
    return found


def deviations(approved: Approved | None, now: Present) -> tuple[Blocker, ...]:
    """Everything that differs from the approved set; () when nothing does."""
    if approved is None:
        return (Blocker("NOTHING_APPROVED", "no approved set of this cell: lmd approve makes one"),)
    found: list[Blocker] = []
    for key, (name, title) in SINGLE.items():
        was, is_now = getattr(approved.present, key), getattr(now, key)
        if was != is_now:
            found.append(Blocker(name, f"{title} is {_short(is_now)}, approved is {_short(was)}"))
    for key, (name, title) in MANY.items():
        allowed = getattr(approved.present, key)
        for own, digest in getattr(now, key).items():
            if own not in allowed:
                found.append(Blocker(name, f"{title} {own} is not in the approved set"))
            elif allowed[own] != digest:
                found.append(
                    Blocker(name, f"{title} {own} is {_short(digest)}, approved is "
                                  f"{_short(allowed[own])}")
                )  # fmt: skip
    return tuple(found)


def _short(text: str) -> str:
    return text[:12] or "not known"


def standing(path: Path, now: Present) -> tuple[Blocker, ...]:
    """``deviations`` from the set in a file; a file that does not hold is one by itself."""
    if not path.exists():
        return deviations(None, now)
    try:
        return deviations(read(path), now)
    except ConfigError as exc:
        return (Blocker("APPROVAL_BROKEN", str(exc)),)


def as_header(found: tuple[Blocker, ...]) -> list[str]:
    """The record header's ``deviations``."""
    return [str(b) for b in found]


def describe(approved: Approved) -> dict[str, Any]:
    """What a client is told of a set."""
    return {"who": approved.who, "when": approved.when, **json.loads(approved.payload)}

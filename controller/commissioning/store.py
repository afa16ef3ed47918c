"""Calibration files: one signed TOML file a result, never changed, only followed by a newer one.

The last line is an ed25519 signature over every byte before it, made with the key that signs
records. A file that was edited, or signed by a key that this workstation does not trust,
counts as not there and is named. What maintenance was done is kept the same way, in the same
folder: a result older than maintenance that touches it no longer counts.
"""

import datetime
import hashlib
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from controller.clock import wall_iso
from controller.commissioning.kinds import KINDS, MAINTENANCE, Kind, kind, needed
from controller.config import Cell
from controller.errors import CommissioningError, ConfigError, RecordError
from controller.machine.snapshot import Blocker
from controller.machine.states import UnitMode
from controller.record.keys import (
    key_id,
    key_path,
    load_key,
    load_or_make_key,
    parse_public,
    public_raw,
    signature_holds,
)

DAY_S = 86_400.0
MAX_FILE_BYTES = 200_000
_DOMAIN = b"lmd calibration 1\n"
_SIGNATURE = re.compile(rb'\nsignature = "([0-9a-f]{128})"\n\Z')
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True)
class Calibration:
    """One result. Times are wall clock, seconds since 1970, UTC."""

    kind: str
    cell: str
    item: str
    done_s: float
    due_s: float
    by: str
    values: Mapping[str, float]
    uncertainty: Mapping[str, float]  # one standard deviation, in the unit of the value
    readings: tuple[tuple[float | str, ...], ...] = ()
    notes: str = ""
    simulated: bool = False
    key: str = ""  # short name of the key that signed it
    path: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """What record headers and ``--json`` show of it; without its readings."""
        row = KINDS[self.kind]
        return {
            "kind": self.kind,
            "item": self.item,
            "done_at": iso(self.done_s),
            "due": iso(self.due_s),
            "by": self.by,
            "values": dict(self.values),
            "uncertainty": dict(self.uncertainty),
            "units": {v.name: v.unit for v in row.values},
            "simulated": self.simulated,
            "key": self.key,
            "file": self.path.name if self.path is not None else "",
            "sha256": _sha256(self.path),
        }


@dataclass(frozen=True)
class Maintenance:
    """Something that was done to the cell."""

    what: str
    cell: str
    done_s: float
    by: str
    notes: str = ""
    path: Path | None = None


@dataclass(frozen=True)
class Standing:
    """How a calibration that the cell needs stands. ``problem`` empty: it counts."""

    kind: Kind
    item: str
    last: Calibration | None
    problem: str

    @property
    def name(self) -> str:
        """The name by which START is refused."""
        return f"CALIBRATION_{self.kind.name.upper()}"


def iso(seconds: float) -> str:
    """``2026-11-24T21:05:00Z``."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def now_s() -> float:
    """The calendar's time, seconds since 1970, UTC, to the second."""
    return datetime.datetime.fromisoformat(wall_iso()).timestamp()


def folder_of(cell_name: str) -> Path:
    """``$LMD_CALIBRATIONS/<cell>``, by default in ``~/.local/share/lmd/calibrations``."""
    given = os.environ.get("LMD_CALIBRATIONS")
    if given:
        return Path(given) / cell_name
    base = os.environ.get("XDG_DATA_HOME")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "share"
    return root / "lmd" / "calibrations" / cell_name


class Store:
    """The calibrations of one cell.

    ``trusted``: raw public keys whose signatures count; None: the workstation's own key and
    those in ``trusted/*.pub`` beside it.
    """

    def __init__(self, folder: Path, trusted: tuple[bytes, ...] | None = None) -> None:
        self.folder = folder
        self._trusted = trusted
        self.bad: list[str] = []  # files that do not count, and why
        self._seen: tuple[tuple[str, int, int], ...] | None = None
        self._results: list[Calibration] = []
        self._maintenance: list[Maintenance] = []

    @classmethod
    def of(cls, cell: Cell) -> "Store":
        """The store of a cell in its usual place."""
        return cls(folder_of(cell.name))

    # --- reading -------------------------------------------------------------------------

    def results(self) -> list[Calibration]:
        """Every genuine result, oldest first."""
        self._read()
        return list(self._results)

    def maintenance(self) -> list[Maintenance]:
        """Every genuine note of maintenance, oldest first."""
        self._read()
        return list(self._maintenance)

    def last(self, kind_name: str, item: str) -> Calibration | None:
        """The newest result of a kind, due or not."""
        found = [c for c in self.results() if (c.kind, c.item) == (kind_name, item)]
        return found[-1] if found else None

    def standing(self, cell: Cell, wall_s: float) -> tuple[Standing, ...]:
        """How everything that the cell needs stands at a moment."""
        return tuple(self._standing(row, item, cell, wall_s) for row, item in needed(cell))

    def _standing(self, row: Kind, item: str, cell: Cell, wall_s: float) -> Standing:
        last = self.last(row.name, item)
        where = row.name if item == "cell" else f"{row.name} of {item}"
        how = f"run: lmd calibrate {row.name} --cell {cell.name}"
        how += "" if item == "cell" else f" --item {item}"
        if last is None or last.cell != cell.name:
            return Standing(row, item, None, f"{where} was never done; {how}")
        if last.simulated and not cell.simulated:
            return Standing(row, item, last, f"{where} is from a simulated cell; {how}")
        for note in self.maintenance():
            if note.done_s >= last.done_s and note.what in row.voided_by:
                text = f"{where} of {iso(last.done_s)} is void: {MAINTENANCE[note.what]}"
                return Standing(row, item, last, f"{text} at {iso(note.done_s)}; {how}")
        if wall_s > last.due_s:
            return Standing(row, item, last, f"{where} was due {iso(last.due_s)}; {how}")
        if last.done_s > wall_s + DAY_S:
            return Standing(row, item, last, f"{where} is dated {iso(last.done_s)}, ahead of now")
        return Standing(row, item, last, "")

    def _read(self) -> None:
        try:
            files = sorted(self.folder.glob("*.toml"))
            seen = tuple((f.name, (s := f.stat()).st_size, s.st_mtime_ns) for f in files)
        except OSError as exc:
            raise CommissioningError(f"{self.folder}: cannot be read ({exc.strerror})") from None
        if seen == self._seen:
            return
        trusted = self._trusted if self._trusted is not None else trusted_keys()
        self.bad, self._results, self._maintenance = [], [], []
        for path in files:
            try:
                found = read_file(path, trusted)
            except CommissioningError as exc:
                self.bad.append(str(exc))
                continue
            if isinstance(found, Calibration):
                self._results.append(found)
            else:
                self._maintenance.append(found)
        self._results.sort(key=lambda c: c.done_s)
        self._maintenance.sort(key=lambda m: m.done_s)
        self._seen = seen

    # --- writing -------------------------------------------------------------------------

    def add(self, found: Calibration) -> Path:
        """Sign and write a result. Raises CommissioningError when it is out of tolerance."""
        check(found)
        body: dict[str, Any] = {
            "kind": found.kind,
            "cell": found.cell,
            "item": found.item,
            "done_s": float(found.done_s),
            "done_at": iso(found.done_s),
            "due_s": float(found.due_s),
            "due": iso(found.due_s),
            "by": found.by,
            "simulated": found.simulated,
            "notes": found.notes,
            "voided_by": list(kind(found.kind).voided_by),
        }
        tables: dict[str, dict[str, Any]] = {
            "values": dict(found.values),
            "uncertainty": dict(found.uncertainty),
            "units": {v.name: v.unit for v in kind(found.kind).values},
        }
        stem = f"{found.kind}-{found.item}"
        return self._write(stem, found.done_s, body, tables, found.readings)

    def note(self, what: str, cell: str, wall_s: float, by: str, notes: str = "") -> Path:
        """Keep that maintenance was done. Raises ConfigError for a word that is not known."""
        if what not in MAINTENANCE:
            raise ConfigError(f"maintenance {what!r} is none of {', '.join(MAINTENANCE)}")
        body: dict[str, Any] = {
            "maintenance": what,
            "cell": cell,
            "done_s": float(wall_s),
            "done_at": iso(wall_s),
            "by": by,
            "notes": notes,
        }
        return self._write(f"maintenance-{what}", wall_s, body, {}, ())

    def _write(
        self,
        stem: str,
        wall_s: float,
        body: Mapping[str, Any],
        tables: Mapping[str, Mapping[str, Any]],
        readings: tuple[tuple[float | str, ...], ...],
    ) -> Path:
        if not _NAME.fullmatch(stem):
            raise CommissioningError(f"{stem!r} is no name for a calibration file")
        try:
            key = load_or_make_key()
        except RecordError as exc:
            raise CommissioningError(str(exc)) from None
        lines = ["# Signed: an edited file counts as not there (lmd calibrate list)."]
        lines += [f"{name} = {_toml(value)}" for name, value in body.items()]
        lines.append(f'public_key = "{public_raw(key.public_key()).hex()}"')
        if readings:
            lines.append("readings = [")
            lines += [f"  {_toml(list(row))}," for row in readings]
            lines.append("]")
        for name, table in tables.items():
            # dotted keys: what follows a table header would belong to it
            lines += [f"{name}.{k} = {_toml(v)}" for k, v in table.items()]
        text = "\n".join(lines).encode()
        signature = key.sign(_DOMAIN + text).hex().encode()
        stamp = iso(wall_s).replace("-", "").replace(":", "").replace("T", "-").rstrip("Z")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for number in range(1, 1000):
                path = self.folder / f"{stem}-{stamp}{'' if number == 1 else f'-{number}'}.toml"
                try:
                    with path.open("xb") as file:
                        file.write(text + b'\nsignature = "' + signature + b'"\n')
                        file.flush()
                        os.fsync(file.fileno())
                except FileExistsError:
                    continue
                return path
        except OSError as exc:
            raise CommissioningError(f"{self.folder}: cannot be written ({exc.strerror})") from None
        raise CommissioningError(f"{self.folder}: 999 files of this second exist")


def check(found: Calibration) -> None:
    """Every value there, finite, and certain enough. Raises CommissioningError by name."""
    row = kind(found.kind)
    for value in row.values:
        where = f"calibration {found.kind} of {found.item}: {value.name}"
        if value.name not in found.values or value.name not in found.uncertainty:
            raise CommissioningError(f"{where} is missing")
        got, sigma = found.values[value.name], found.uncertainty[value.name]
        if not (math.isfinite(got) and math.isfinite(sigma) and sigma >= 0.0):
            raise CommissioningError(f"{where} is {got} +- {sigma}, no finite number")
        limit = value.tolerance * abs(got) if value.relative else value.tolerance
        if sigma > limit:
            raise CommissioningError(
                f"{where} {got:.6g} {value.unit} is uncertain by {sigma:.3g}, above the tolerance "
                f"of {limit:.3g} {value.unit}: take more or better readings"
            )
    if not found.done_s < found.due_s:
        raise CommissioningError(f"calibration {found.kind}: due before it was done")


def read_file(path: Path, trusted: tuple[bytes, ...]) -> Calibration | Maintenance:
    """One file whose signature holds. Raises CommissioningError naming the file."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CommissioningError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        data = path.read_bytes()
    except OSError as exc:
        raise CommissioningError(f"{path}: cannot be read ({exc.strerror})") from None
    match = _SIGNATURE.search(data)
    if match is None:
        raise CommissioningError(f"{path}: carries no signature, it does not count")
    try:
        table = tomllib.loads(data.decode("utf-8"))
        raw = bytes.fromhex(table["public_key"])
        public = Ed25519PublicKey.from_public_bytes(raw)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, ValueError, TypeError) as exc:
        raise CommissioningError(f"{path}: no calibration file ({exc})") from None
    if not signature_holds(
        public, bytes.fromhex(match[1].decode()), _DOMAIN + data[: match.start()]
    ):
        raise CommissioningError(f"{path}: was changed after it was signed, it does not count")
    if raw not in trusted:
        raise CommissioningError(
            f"{path}: is signed with key {key_id(public)}, which this workstation does not trust"
        )
    try:
        return _parsed(table, path, key_id(public))
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise CommissioningError(f"{path}: no calibration file ({exc!r})") from None


def _parsed(table: Mapping[str, Any], path: Path, key: str) -> Calibration | Maintenance:
    done_s = float(table["done_s"])
    if "maintenance" in table:
        if table["maintenance"] not in MAINTENANCE:
            raise ValueError(f"maintenance {table['maintenance']!r} is not known")
        return Maintenance(
            table["maintenance"], str(table["cell"]), done_s, str(table["by"]),
            str(table["notes"]), path,
        )  # fmt: skip
    if table["kind"] not in KINDS:
        raise ValueError(f"kind {table['kind']!r} is not known")
    return Calibration(
        kind=table["kind"],
        cell=str(table["cell"]),
        item=str(table["item"]),
        done_s=done_s,
        due_s=float(table["due_s"]),
        by=str(table["by"]),
        values={k: float(v) for k, v in table["values"].items()},
        uncertainty={k: float(v) for k, v in table["uncertainty"].items()},
        readings=tuple(tuple(row) for row in table.get("readings", [])),
        notes=str(table["notes"]),
        simulated=bool(table["simulated"]),
        key=key,
        path=path,
    )


def trusted_keys() -> tuple[bytes, ...]:
    """Raw public keys: this workstation's, and those in ``trusted/*.pub`` beside its key.

    Raises CommissioningError for a file in that folder that is no public key.
    """
    found: list[bytes] = []
    own = key_path()
    try:
        if own.exists():
            found.append(public_raw(load_key(own).public_key()))
        for path in sorted((own.parent / "trusted").glob("*.pub")):
            found.append(public_raw(parse_public(path.read_bytes(), str(path))))
    except (RecordError, OSError) as exc:
        raise CommissioningError(str(exc)) from None
    return tuple(found)


def blockers(
    cell: Cell, store: Store, wall_s: float, mode: UnitMode, purpose: str = ""
) -> tuple[Blocker, ...]:
    """Calibrations that forbid START, by name.

    In production, and on a real cell in every mode, each one that is missing, void or overdue
    is a reason. On a simulated cell in development they are warnings (``warnings``).
    ``purpose`` ``calibration:<kind>``: the job takes readings for that kind; then the cell may
    lack every kind but the door circuit, else nothing could ever be measured with light.
    """
    if mode is not UnitMode.PRODUCTION and cell.simulated:
        return ()
    found = _problems(cell, store, wall_s)
    measures = purpose.partition(":")[0] == "calibration" and mode is not UnitMode.PRODUCTION
    if measures or mode is UnitMode.MAINTENANCE:  # which runs test emissions only
        found = tuple(b for b in found if b.name in ("CALIBRATION_DOOR", "CALIBRATION_STORE"))
    return found


def warnings(cell: Cell, store: Store, wall_s: float, mode: UnitMode) -> tuple[Blocker, ...]:
    """The same where they do not forbid: a simulated cell in development."""
    if mode is UnitMode.DEVELOPMENT and cell.simulated:
        return _problems(cell, store, wall_s)
    return ()


def _problems(cell: Cell, store: Store, wall_s: float) -> tuple[Blocker, ...]:
    try:
        standing = store.standing(cell, wall_s)
    except CommissioningError as exc:
        return (Blocker("CALIBRATION_STORE", str(exc)),)
    return tuple(Blocker(s.name, s.problem) for s in standing if s.problem)


def header_entry(cell: Cell, store: Store, wall_s: float) -> list[dict[str, Any]]:
    """What a record's header says: the newest result of every kind, and whether it counted."""
    try:
        standing = store.standing(cell, wall_s)
    except CommissioningError as exc:
        return [{"problem": str(exc)}]
    return [
        {**(s.last.as_dict() if s.last else {"kind": s.kind.name, "item": s.item}),
         "problem": s.problem}
        for s in standing
    ]  # fmt: skip


def _sha256(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _toml(value: Any) -> str:
    """A value as TOML; text by its escapes, so that no name can end the line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "nan"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    text = str(value)
    safe = [c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04X}" for c in text[:500]]
    return '"' + "".join(s if len(s) == 1 or len(s) == 6 else "?" for s in safe) + '"'

"""The sockets of a process, from /proc: what it listens on and whom it speaks to."""

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
TABLES = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6")
LISTEN = "0A"


@dataclass(frozen=True)
class Open:
    """One socket of one process."""

    pid: int
    kind: str  # a name of TABLES, "unix", or "unknown"
    address: str  # IPv4 or, of IPv6, the table's hex digits; a path; "" of a pair without a name
    listens: bool


def family(pid: int) -> list[int]:
    """A process and all that it started; what ends meanwhile is left out."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def sockets(pid: int) -> list[Open]:
    """Every socket that a process holds; one that is in no table of the kernel is "unknown"."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = os.readlink(fd)
        except FileNotFoundError:  # closed meanwhile
            continue
        if name.startswith("socket:["):
            inodes.add(int(name[8:-1]))
    known = _internet(pid) | _unix(pid)
    return [Open(pid, *known.get(inode, ("unknown", str(inode), True))) for inode in sorted(inodes)]


def _internet(pid: int) -> dict[int, tuple[str, str, bool]]:
    found = {}
    for kind in TABLES:
        path = Path(f"/proc/{pid}/net/{kind}")
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            digits = fields[1].split(":")[0]
            address = digits
            if len(digits) == 8:  # a u32 of this machine: the lowest byte comes last
                address = ".".join(str(b) for b in reversed(bytes.fromhex(digits)))
            # any bound datagram or raw socket takes what comes
            listens = fields[3] == LISTEN or not kind.startswith("tcp")
            found[int(fields[9])] = (kind, address, listens)
    return found


def _unix(pid: int) -> dict[int, tuple[str, str, bool]]:
    found, cwd = {}, os.readlink(f"/proc/{pid}/cwd")
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        listens = bool(int(fields[3], 16) & 0x10000)  # SO_ACCEPTCON
        address = fields[7] if len(fields) > 7 else ""
        if address and address[0] not in "/@":
            address = os.path.normpath(f"{cwd}/{address}")
        found[int(fields[6])] = ("unix", address, listens)
    return found


def strangers(found: list[Open], run_dir: Path) -> list[str]:
    """What is open beyond loopback and the cell's own Unix sockets of its owner; [] is good."""
    said = []
    for one in found:
        if one.kind == "unix":
            said += [] if _own(one, run_dir) else [f"{one.pid}: Unix socket {one.address}"]
        elif (one.kind, one.address) != ("tcp", LOOPBACK):
            said.append(f"{one.pid}: {one.kind} {one.address}")
    return said


def _own(one: Open, run_dir: Path) -> bool:
    """A pair without a name, or a path of the run folder that only its owner may use."""
    if not one.address and not one.listens:
        return True
    path = Path(one.address)  # an abstract name begins with @: anybody may use it
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return (
        path.resolve().parent == run_dir.resolve()
        and stat.S_ISSOCK(mode)
        and stat.S_IMODE(mode) == 0o600
    )

"""What a linked ARM image says of itself: its functions, their frames, who calls whom.

Read from the disassembly of the image, not from the compiler's notes, so that library functions
and inlining are in it; the compiler's stack notes (-fstack-usage) are held against it.
"""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

EXCEPTION_FRAME = 36  # 8 words and one that aligns, ARM DDI 0403E B1.5.7
_HEAD = re.compile(r"^([0-9a-f]+) <([\w.$]+)>:$")
_LINE = re.compile(r"^\s*[0-9a-f]+:\t[0-9a-f ]+\t([a-z0-9.]+)\t?(.*)$")
_TARGET = re.compile(r"^([0-9a-f]+) <([\w.$]+)(\+0x[0-9a-f]+)?>")


@dataclass
class Function:
    """One function of the image."""

    name: str
    address: int
    frame: int = 0  # bytes
    calls: set[int] = field(default_factory=set)  # addresses
    strange: list[str] = field(default_factory=list)  # what could not be followed


def _frame_bytes(operation: str, rest: str) -> int:
    """Bytes by which an instruction lowers the stack pointer."""
    rest = rest.split("@")[0].strip()
    if operation.startswith("push") or (
        operation.startswith(("stmdb", "stmfd")) and rest.startswith("sp!")
    ):
        n = 0
        for part in re.sub(r".*\{|\}.*", "", rest).split(","):
            ends = part.strip().split("-")
            order = ["sb", "sl", "fp", "ip", "sp", "lr", "pc"]
            number = [9 + order.index(e) if e in order else int(e.lstrip("rd")) for e in ends]
            n += number[-1] - number[0] + 1
        return 4 * n
    found = re.search(r"\[sp, #-(\d+)\]!", rest)
    if operation.startswith("str") and found:
        return int(found.group(1))
    found = re.match(r"sp, (?:sp, )?#(\d+)", rest)
    if operation.startswith("sub") and found:
        return int(found.group(1))
    return 0


def read_image(path: Path, prefix: str = "arm-none-eabi-") -> dict[int, Function]:
    """All functions by address. Raises CalledProcessError when objdump fails."""
    listing = subprocess.run(
        [f"{prefix}objdump", "-d", str(path)], check=True, capture_output=True, text=True
    ).stdout
    functions: dict[int, Function] = {}
    now = None
    for line in listing.splitlines():
        head = _HEAD.match(line)
        if head:
            now = Function(head.group(2), int(head.group(1), 16))
            functions[now.address] = now
            continue
        found = _LINE.match(line)
        if not found or now is None:
            continue
        operation, rest = found.groups()
        now.frame += _frame_bytes(operation, rest)
        if operation.startswith("blx") or (operation.startswith("bx") and rest != "lr"):
            now.strange.append(f"{operation} {rest}")
        elif re.match(r"b", operation) and not operation.startswith(("bic", "bfi", "bfc", "bkpt")):
            target = _TARGET.match(rest)
            if target and target.group(3) is None and target.group(2) != now.name:
                now.calls.add(int(target.group(1), 16))  # a call, or a last one by a jump
    return functions


def find(functions: dict[int, Function], name: str) -> Function:
    """A function by its name. Raises KeyError."""
    for f in functions.values():
        if f.name == name:
            return f
    raise KeyError(f"{name} is not in the image")


def worst_path(functions: dict[int, Function], name: str) -> tuple[int, list[str]]:
    """Greatest stack below an entry, bytes, and the way there.

    Raises ValueError on recursion, or on a call that cannot be followed.
    """
    done: dict[int, tuple[int, list[str]]] = {}

    def visit(address: int, path: list[int]) -> tuple[int, list[str]]:
        if address in path:
            names = [functions[a].name for a in [*path[path.index(address) :], address]]
            raise ValueError("recursion: " + " -> ".join(names))
        if address not in done:
            f = functions[address]
            if f.strange:
                raise ValueError(f"{f.name}: cannot follow {f.strange[0]}")
            below, way = 0, []
            for callee in sorted(f.calls):
                if callee in functions:
                    deep, names = visit(callee, [*path, address])
                    if deep > below:
                        below, way = deep, names
            done[address] = (f.frame + below, [f.name, *way])
        return done[address]

    return visit(find(functions, name).address, [])


def compiler_frames(objects: Path) -> dict[str, int]:
    """Frames as the compiler noted them; the greatest where a name stands twice.

    Raises ValueError on a frame whose size is not known when compiling.
    """
    frames: dict[str, int] = {}
    for path in sorted(objects.rglob("*.su")):
        for line in path.read_text(encoding="utf-8").splitlines():
            where, size, kind = line.split("\t")
            if kind != "static":
                raise ValueError(f"{where}: {kind} frame")
            name = where.rsplit(":", 1)[1]
            frames[name] = max(frames.get(name, 0), int(size))
    return frames

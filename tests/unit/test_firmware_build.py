"""The core's discipline, checked by the compiler: no warning, no allocation, no floats."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FIRMWARE = Path(__file__).parents[2] / "firmware_bridge" / "firmware"
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror"]
CORE = sorted((FIRMWARE / "core").glob("*.c"))

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def test_compiles_without_a_warning(tmp_path):
    sources = [*CORE, *sorted((FIRMWARE / "native").glob("*.c"))]
    assert len(sources) >= 8
    subprocess.run(
        ["gcc", *STRICT, "-O2", "-fsyntax-only", f"-I{FIRMWARE / 'core'}", *map(str, sources)],
        check=True,
        cwd=tmp_path,
    )


def test_core_calls_the_board_and_memory_moves_only(tmp_path):
    """Undefined symbols of the linked core: no malloc, no printf, no libm."""
    objects = []
    for source in CORE:
        out = tmp_path / f"{source.stem}.o"
        subprocess.run(
            ["gcc", "-std=c11", "-O2", "-fno-stack-protector", "-fno-pic"]
            + ["-U_FORTIFY_SOURCE", "-c", str(source), "-o", str(out)],
            check=True,
        )
        objects.append(str(out))
    whole = tmp_path / "core.o"
    subprocess.run(["ld", "-r", "-o", str(whole), *objects], check=True)
    listing = subprocess.run(["nm", "-u", str(whole)], check=True, capture_output=True, text=True)
    wanted = set(listing.stdout.split()) - {"U"}
    board = {
        f"board_{name}" for name in ("encoder", "gate", "input", "power", "step", "trace", "tx")
    }
    assert wanted <= board | {"memcpy", "memmove", "memset"}
    assert board <= wanted


def test_core_has_no_floating_point_and_no_recursion(tmp_path):
    calls: dict[str, set[str]] = {}
    for source in CORE:
        text = re.sub(r"/\*.*?\*/", "", source.read_text(encoding="utf-8"), flags=re.S)
        assert not re.search(r"\b(float|double|malloc|calloc|alloca|goto)\b", text), source
        assert not re.search(r"\b\d+\.\d", text), source
        name = None
        for line in text.splitlines():
            found = re.match(r"(?:static )?[a-z]\w*[\w *]*?\b(\w+)\([^;]*$", line)
            if found:
                name = found.group(1)
                calls.setdefault(name, set())
            elif name:
                calls[name] |= set(re.findall(r"\b([a-z]\w+)\(", line))
    assert len(calls) > 60

    def reach(name: str, seen: set[str]) -> set[str]:
        for callee in calls.get(name, set()) & calls.keys():
            if callee not in seen:
                seen.add(callee)
                reach(callee, seen)
        return seen

    assert [name for name in calls if name in reach(name, set())] == []

"""Ports of the firmware, as far as the host's compiler and the sources go."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FIRMWARE = Path(__file__).parents[2] / "firmware_bridge" / "firmware"
CORE = sorted((FIRMWARE / "core").glob("*.c"))
ARM_GCC = "arm-none-eabi-gcc"
PORTS = {"qemu_lm3s6965": "cortex-m3", "nucleo_f446re": "cortex-m4"}
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror"]

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(ARM_GCC) is None, reason=f"needs {ARM_GCC}: make test-arm")
@pytest.mark.parametrize("port", PORTS)
def test_port_compiles_without_a_warning(port):
    folder = FIRMWARE / "ports" / port
    sources = [*sorted(folder.glob("*.c")), FIRMWARE / "ports" / "common" / "startup.c"]
    assert len(sources) >= 4
    subprocess.run(
        [ARM_GCC, *STRICT, "-O2", "-mthumb", f"-mcpu={PORTS[port]}", "-fsyntax-only"]
        + ([] if port == "nucleo_f446re" else ["-DFW_QUEUE=1024u"])
        + [f"-I{FIRMWARE / d}" for d in ("core", "ports/common", f"ports/{port}")]
        + [str(s) for s in sources],
        check=True,
    )


@pytest.mark.parametrize("port", PORTS)
def test_port_offers_every_board_function(port):
    asked = set(re.findall(r"\b(board_\w+)\(", (FIRMWARE / "core" / "board.h").read_text()))
    text = "\n".join(p.read_text() for p in sorted((FIRMWARE / "ports" / port).glob("*.c")))
    offered = set(re.findall(r"^[\w ]+ \*?(board_\w+)\([^;]*?\)\n\{", text, re.M | re.S))
    assert len(asked) >= 6
    assert asked <= offered


def _seeds(tmp_path: Path) -> Path:
    seeds = tmp_path / "seeds"
    subprocess.run(
        [sys.executable, str(FIRMWARE / "fuzz" / "make_corpus.py"), str(seeds)], check=True
    )
    return seeds


def _target(tmp_path: Path, core: list[Path]) -> Path:
    """The fuzz target with gcc, its configuration the bench's."""
    config, target = tmp_path / "config.c", tmp_path / "fuzz"
    tool = FIRMWARE / "tools" / "config_blob.py"
    subprocess.run([sys.executable, str(tool), "--bench", str(config)], check=True)
    subprocess.run(
        ["gcc", "-O1", "-g", "-D_DEFAULT_SOURCE", "-fsanitize=address,undefined"]
        + ["-fno-sanitize-recover=all", f"-I{FIRMWARE / 'core'}"]
        + [f"-I{FIRMWARE / 'ports' / 'common'}", *map(str, core)]
        + [str(FIRMWARE / "fuzz" / n) for n in ("fuzz_core.c", "fuzz_main.c")]
        + [str(config), "-o", str(target)],
        check=True,
    )
    return target


def test_seeds_hold_every_example_of_the_protocol(tmp_path):
    names = {p.name for p in _seeds(tmp_path).iterdir()}
    assert {"example_SEGMENTS", "example_ARM", "example_HELLO", "session_job"} <= names
    assert len(names) >= 40


@needs_gcc
@pytest.mark.slow
def test_seeds_break_nothing_and_a_missing_guard_is_found(tmp_path):
    """The same seeds end the target when a fault leaves the power on."""
    seeds = _seeds(tmp_path)
    good = subprocess.run([str(_target(tmp_path, CORE)), str(seeds)], cwd=tmp_path, timeout=60)
    assert good.returncode == 0
    core = FIRMWARE / "core" / "fw_core.c"
    head, fault = core.read_text().split("void fw_fault(", 1)
    assert "fw_power_set(fw, 0);" in fault
    broken = tmp_path / "fw_core.c"
    broken.write_text(head + "void fw_fault(" + fault.replace("fw_power_set(fw, 0);", "", 1))
    other = _target(tmp_path, [broken, *(p for p in CORE if p != core)])
    bad = subprocess.run([str(other), str(seeds)], cwd=tmp_path, capture_output=True, timeout=60)
    assert bad.returncode != 0

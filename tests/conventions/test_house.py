"""Rules of the house that no linter knows."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("controller", "firmware_bridge", "hil_sim", "gui")


def _tracked(*patterns: str) -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in out.stdout.splitlines() if (ROOT / line).is_file()]


def _kernel_files() -> list[Path]:
    return [p for room in OURS for p in sorted((ROOT / room).rglob("*.p[xy][xd]"))]


@pytest.mark.parametrize("path", _kernel_files(), ids=lambda p: p.name)
def test_kernels_import_nothing_of_ours(path):
    """Import-linter does not read .pyx files, so this does: only kernels beside it are free."""
    text = path.read_text()
    found = re.findall(
        r"^\s*(?:from|c?import)\s+(controller|firmware_bridge|hil_sim|gui)\b", text, re.M
    )
    assert not found, f"{path.name} imports {found}"
    found = re.findall(r"^\s*from\s+\.(?!_\w+ cimport\b).*", text, re.M)
    assert not found, f"{path.name}: {found}"
    assert "# cython:" not in text, "directives live in setup.py"


def test_there_are_kernels_to_check():
    with_source = {str(p.relative_to(ROOT)) for p in _kernel_files() if p.suffix == ".pyx"}
    listed = (ROOT / "setup.py").read_text().split("KERNELS = [")[1].split("]")[0]
    assert with_source == set(re.findall(r'"([\w/]+\.pyx)"', listed))
    assert {"controller/_motion.pyx", "hil_sim/plant/_kernel.pyx"} <= with_source


def test_every_package_is_listed_in_setup():
    text = (ROOT / "setup.py").read_text()
    listed = set(
        re.findall(r'^    "([\w.]+)",$', text.split("PACKAGES = [")[1].split("]")[0], re.M)
    )
    on_disk = {
        str(p.parent.relative_to(ROOT)).replace("/", ".")
        for room in (*OURS, "configs")
        for p in (ROOT / room).rglob("__init__.py")
    }
    assert listed == on_disk


def test_names_of_test_modules_are_unique():
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "pattern",
    [r"/(?:work|root|home|farm)/[a-z]", r"site-packages/", r"\bpypi\.org", r"registry\.npmjs"],
)
def test_no_file_names_a_machine(pattern):
    me = Path(__file__).resolve()
    bad = [
        f"{p.relative_to(ROOT)}:{n}"
        for p in _tracked()
        if p.suffix not in {".png", ".stl", ".3mf", ".step", ".svg"} and p.resolve() != me
        for n, line in enumerate(p.read_text(errors="replace").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not bad


def test_files_are_not_overlong():
    long = [
        f"{p.relative_to(ROOT)} {n}"
        for p in _tracked("*.py", "*.pyx", "*.c", "*.h")
        if (n := len(p.read_text().splitlines())) > 600
    ]
    assert not long, "each is perhaps two rooms"


def test_the_licence_is_stated_everywhere_the_same():
    with (ROOT / "pyproject.toml").open("rb") as f:
        assert tomllib.load(f)["project"]["license"] == "GPL-3.0-or-later"
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text()
    assert "GPL-3.0-or-later" in (ROOT / "README.md").read_text()


def test_listeners_bind_to_loopback_only():
    """No source binds a listening socket to another address than 127.0.0.1."""
    bad = []
    for path in _tracked("*.py"):
        if path.parts[-2] == "conventions":
            continue
        for n, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"\.bind\(\(", line) and "127.0.0.1" not in line:
                bad.append(f"{path.relative_to(ROOT)}:{n}")
            if "0.0.0.0" in line:
                bad.append(f"{path.relative_to(ROOT)}:{n}")
    assert not bad

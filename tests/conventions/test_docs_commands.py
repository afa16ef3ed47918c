"""What the documents tell a reader to type works: every command is run, or its words checked."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli import _run
from tests.unit.cli_bench import ROOT

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(sh|console)\n(.*?)^ *```", re.M | re.S)
LONGEST_S = 80.0  # any single command


def _commands(path: Path, language: str) -> list[str]:
    """The commands in a document's blocks of one language, in order, without comments."""
    found = []
    for _, kind, body in BLOCK.findall(path.read_text(encoding="utf-8")):
        if kind != language:
            continue
        for line in body.replace("\\\n", " ").splitlines():
            line = line.strip()
            if language == "console":
                if not line.startswith("$ "):
                    continue  # what the command says
                line = line[2:]
            line = re.sub(r"(^|\s)#.*", "", line).strip()
            if line:
                found.append(line)
    return found


def _all(language: str, start: str) -> list[tuple[str, Path]]:
    """Each distinct command once, in the order of the documents."""
    first: dict[str, Path] = {}
    for path in DOCS:
        for command in _commands(path, language):
            if command.startswith(start):
                first.setdefault(command, path)
    return list(first.items())


def _expected(words: list[str]) -> int:
    """The exit code that the documents promise: a fault ends a build otherwise than COMPLETE."""
    if "--scenario" in words and words[words.index("--scenario") + 1] != "nominal":
        return 3
    return 0


def test_there_are_commands_to_check():
    assert len(_all("sh", "lmd ")) >= 8
    assert len(_all("sh", "make ")) >= 2


@pytest.mark.parametrize("command", [c for c, _ in _all("sh", "make ")])
def test_make_knows_the_target(command):
    done = subprocess.run(
        ["make", "-n", *shlex.split(command)[1:]],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_every_command_of_a_sh_block_works(tmp_path):
    for name in ("examples", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "LMD_CALIBRATIONS": str(tmp_path / "calibrations"),
    }
    failed = []
    for command, path in _all("sh", "lmd "):
        words = shlex.split(command)[1:]
        done = subprocess.run(
            [sys.executable, "-m", "controller", *words],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=LONGEST_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode != _expected(words) or "Traceback" in done.stderr:
            failed.append(f"{path.name}: {command}: {done.returncode}: {done.stderr.strip()}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("command", [c for c, _ in _all("console", "lmd ")])
def test_words_of_a_console_block_exist(command, capsys):
    """These need files of the reader's own, or do not end: their verbs and options are checked."""
    words = shlex.split(command)[1:]
    verb = words[:2] if words[0] in ("devices", "record", "cell") else words[:1]
    assert _run([*verb, "--help"]) == 0
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out))
    options = [w.partition("=")[0] for w in words if re.match(r"--?[a-z]", w)]
    assert set(options) <= known

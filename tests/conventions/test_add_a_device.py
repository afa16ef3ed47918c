"""The page "Add a device" does what it says: a copy of the program follows it to the letter.

Each block named as a file is written, each "at the end of" is appended, each command is run, and
the probe must find the new device with its reading.
"""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli_bench import ROOT, environment

PAGE = ROOT / "docs" / "how-to" / "add-a-device.md"
# what a block is, by the words before it
FILE = re.compile(r"^The file `([^`]+)`:\n\n(`{3,4})\w*\n(.*?)^\2$", re.M | re.S)
END = re.compile(r"^At the end of `([^`]+)`:\n\n(`{3,4})\w*\n(.*?)^\2$", re.M | re.S)
ROW = re.compile(r"^A row of `(\w+)` in `([^`]+)`.*?\n\n```python\n(.*?)^```$", re.M | re.S)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
LONGEST_S = 60.0


@pytest.fixture
def copy(tmp_path):
    """The program as it is, to be changed."""
    for name in ("controller", "firmware_bridge", "hil_sim", "configs", "tests", "docs/reference"):
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyx", "*.c"),
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def words(command: str) -> list[str]:
    """A command of the page for this interpreter and this copy."""
    first, *rest = shlex.split(command)
    if first == "python":
        return [sys.executable, *rest]
    if first == "lmd":
        return [sys.executable, "-c", "from controller.cli import main; main()", *rest]
    return [first, *rest]


def steps(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """The page's steps in its order: (what, its parts)."""
    found = []
    for what, pattern in (("file", FILE), ("end", END), ("row", ROW), ("console", CONSOLE)):
        for match in pattern.finditer(text):
            found.append((match.start(), what, match.groups()))
    return [(what, parts) for _, what, parts in sorted(found)]


def test_the_page_has_its_steps():
    kinds = [what for what, _ in steps(PAGE.read_text(encoding="utf-8"))]
    assert kinds == ["end", "file", "file", "console", "file", "row", "console", "end", "console"]


@pytest.mark.slow
def test_following_the_page_adds_a_device_that_the_probe_finds(copy):
    env = {**environment(), "PYTHONPATH": str(copy)}
    simulator = None
    ran = []
    try:
        for what, parts in steps(PAGE.read_text(encoding="utf-8")):
            if what == "file":
                target = copy / parts[0]
                assert not target.exists()
                target.write_text(parts[2], encoding="utf-8")
            elif what == "end":
                with (copy / parts[0]).open("a", encoding="utf-8") as f:
                    f.write(parts[2])
            elif what == "row":
                target = copy / parts[1]
                text = target.read_text(encoding="utf-8")
                changed = re.sub(rf"(?m)^({parts[0]}\b.*\{{\n)", rf"\1{parts[2]}", text)
                assert changed != text
                target.write_text(changed, encoding="utf-8")
            else:
                for line in parts[0].splitlines():
                    assert line.startswith("$ "), line
                    command = line[2:]
                    ran.append(command)
                    if command.startswith("lmd sim"):
                        simulator = subprocess.Popen(
                            words(command + " --json"),
                            cwd=copy,
                            env=env,
                            stdout=subprocess.PIPE,
                            stdin=subprocess.DEVNULL,
                            text=True,
                        )
                        assert json.loads(simulator.stdout.readline())["ready"] is True
                        continue
                    if command.startswith("lmd devices probe"):
                        command += " --json"
                    done = subprocess.run(
                        words(command),
                        cwd=copy,
                        env=env,
                        capture_output=True,
                        text=True,
                        timeout=LONGEST_S,
                        check=False,
                    )
                    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
                    if " pytest " in command:
                        assert " passed" in done.stdout
                    last = done.stdout
    finally:
        if simulator is not None:
            simulator.send_signal(signal.SIGTERM)
            simulator.communicate(timeout=LONGEST_S)
    assert any(c.startswith("lmd devices probe") for c in ran)
    meter = next(d for d in json.loads(last)["devices"] if d["driver"] == "meter_acme")
    assert meter["answers"]
    assert meter["reading"]["power_w"] == 0.0
    assert meter["reading"]["valid"] is True
    assert not (Path(ROOT) / "firmware_bridge" / "devices" / "meter_acme.py").exists()

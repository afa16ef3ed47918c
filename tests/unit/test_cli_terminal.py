"""How the command line speaks: tables, JSON, progress, help, completion, and how soon."""

import json
import math
import os
import pty
import resource
import select
import subprocess
import sys

import numpy as np
import pytest

from controller import terminal
from tests.unit.cli_bench import LMD, environment, lmd, part, spawn


def test_json_is_plain_whatever_was_computed():
    value = {
        "a": np.float64(1.5), "b": math.nan, "c": np.arange(2), "d": (1, np.inf),
        "e": np.bool_(True),
    }  # fmt: skip
    assert terminal.plain(value) == {"a": 1.5, "b": None, "c": [0, 1], "d": [1, None], "e": True}


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (math.nan, "-"), (True, "yes"), (False, "no"), (3, "3"), (209500.0, "209500"),
     (22.04, "22.04"), (0.00012, "0.00012"), ("text", "text")],
)  # fmt: skip
def test_numbers_are_for_people(value, said):
    assert terminal.number(value) == said


def test_a_deviation_has_its_sign_and_is_never_minus_zero():
    said = [terminal.percent(v) for v in (None, 0.0, -0.001, 1.236, -12.0)]
    assert said == ["-", "+0.00 %", "+0.00 %", "+1.24 %", "-12.00 %"]


def test_a_table_stands_straight_and_wraps_its_text(capsys):
    rows = [["laser", "yes", "word " * 40], ["x", "no", "short"]]
    terminal.print_table("title", ["role", "answers", "reading"], rows, text_last=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "title"
    assert lines[1] == "role   answers  reading"
    assert max(len(line) for line in lines) <= 100
    assert lines[3].startswith("laser      yes  word word")
    assert lines[4].startswith(" " * 16 + "word")
    assert lines[-1] == "x           no  short"


def test_a_reading_has_the_units_of_its_names():
    reading = {
        "at_us": 5, "coolant_deg_c": 22.0, "flow_set_g_min": (1.0, 2.0), "ok": True,
        "temp_deg_c": math.nan, "power_measured_w": 400.0, "faults": (),
    }  # fmt: skip
    assert terminal.reading_line(reading) == (
        "coolant 22 °C, flow set 1 / 2 g/min, ok yes, temp -, power measured 400 W, faults none"
    )
    assert terminal.reading_line(None) == "-"


def test_figures_without_a_trace_have_no_column_for_it(capsys):
    figures = dict.fromkeys(key for key, *_ in terminal.FIGURES)
    found = {
        "planned": {**figures, "energy_j": 1500.0}, "executed": figures, "truth": None,
        "deviations_pct": {"executed": figures, "truth": None},
    }  # fmt: skip
    terminal.print_figures("x", found)
    out = capsys.readouterr().out
    assert "truth" not in out
    assert "1.500" in out


def test_help_and_version(capsys):
    said = lmd(capsys, "--help")
    assert said.code == 0
    for verb in ("run", "plan", "show", "check", "doctor", "serve", "sim", "devices", "record"):
        assert f"  {verb} " in said.out
    assert "..." not in said.out.partition("Commands:")[2], "a summary is cut off"
    assert lmd(capsys, "--version").out.startswith("lmd ")
    nothing = lmd(capsys)
    assert nothing.code == 2
    assert nothing.err.startswith("Usage: lmd")
    assert nothing.err.count("\n") > 10


def test_doctor_says_what_is_there(capsys):
    found = lmd(capsys, "doctor", "--json")
    names = [c["name"] for c in found.json["checks"]]
    assert {"Python", "planner kernel", "firmware core (native)", "cell sim"} <= set(names)
    assert found.code == 0
    assert "ok   Python" in lmd(capsys, "doctor").out


def test_doctor_says_what_is_missing_and_what_mends_it(capsys, monkeypatch):
    from controller import doctor

    monkeypatch.setattr(doctor, "NEEDED_FREE_MB", 10**9)
    done = lmd(capsys, "doctor", "--json")
    assert done.code == 1
    assert done.json["ok"] is False
    assert done.err == "error: not in order: disk\n"
    (disk,) = [c for c in done.json["checks"] if c["name"] == "disk"]
    assert disk["fix"] == "free 1000000000 MB"


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_the_shell_is_shown(shell, tmp_path):
    env = {**environment(), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    words = [*LMD, "--show-completion", shell]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "_LMD_COMPLETE" in done.stdout


@pytest.mark.slow
def test_words_are_completed():
    env = {
        **environment(), "_LMD_COMPLETE": "complete_bash", "COMP_WORDS": "lmd run --s",
        "COMP_CWORD": "2",
    }  # fmt: skip
    done = subprocess.run(LMD, env=env, capture_output=True, text=True, check=True)
    assert {"--scenario", "--seed", "--scale"} <= set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["--help"], ["run", "missing.stl"], ["run", "--foo"], ["serve", "--time", "x"]]
)
def test_a_word_is_answered_before_anything_heavy_is_loaded(words, tmp_path):
    code = (
        "import sys, json; from controller.cli import _run; c = _run(json.loads(sys.argv[1])); "
        "heavy = {'numpy', 'controller.config', 'rich', 'OCP', 'mcap'}; "
        "print([m for m in sorted(heavy) if m in sys.modules], file=sys.stderr)"
    )
    spent_s = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(words)],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.stderr.splitlines()[-1] == "[]"
    assert min(spent_s) < 0.3


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_only(tmp_path):
    part(tmp_path, (30.0, 8.0, 6.0))
    words = ["plan", "box.stl", "-o", "a.lmdjob"]
    process = spawn(*words, cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == ""
    assert "\x1b" not in out
    told = _on_terminal([*LMD, *words], tmp_path)
    assert "\x1b[?25l" in told  # the cursor is hidden while the bar is drawn
    assert "0 %" in told
    assert "100 %" in told
    assert "box, 30.00 x 8.00 x 6.00 mm" in told


@pytest.mark.slow
def test_a_reader_that_leaves_early_hears_no_complaint(tmp_path):
    words = f"{' '.join(LMD)} devices list | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words}"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 141)  # as any program whose pipe was closed
    assert done.stderr == ""


def _on_terminal(words, folder) -> str:
    """What a command writes to a terminal."""
    mine, its = pty.openpty()
    env = {**environment(), "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(words, cwd=folder, env=env, stdin=its, stdout=its, stderr=its)
    os.close(its)
    said = b""
    while select.select([mine], [], [], 60.0)[0]:
        try:
            data = os.read(mine, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        said += data
    os.close(mine)
    assert process.wait(60) == 0, said
    return said.decode()

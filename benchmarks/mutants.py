"""Guards left out one at a time: the tests must find every one.

python -m benchmarks.mutants [--only TEXT] [--list]

A mutant is one module of the supervisor with one guard gone: an ``if`` that refuses, returns or
raises an alarm is never taken, or a step that must be done is not. The tests run in a process of
their own that imports the mutant in place of the module; no file is changed. Rows of the
interlocks are left out by ``tests/unit/test_safety_search.py``.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "LMD_MUTANT"
LIMIT_S = 300.0
# module -> functions whose guards are safety; () stands for all
TARGETS: dict[str, tuple[str, ...]] = {
    "controller.machine.states": ("require", "to"),
    "controller.machine.preflight": (),
    "controller.machine.executor": (
        "load", "start", "unhold", "clear", "home", "raise_alarm", "_hold", "_stop", "_abort",
        "_advance", "_not_busy", "laser_off", "_source_off",
    ),
    "controller.machine.sequences": (
        "start", "_gas_flows", "_laser_on", "unhold", "home", "stop", "abort", "_switch_off",
        "_laser_off", "clear",
    ),
}  # fmt: skip
TESTS = (
    "test_states.py", "test_preflight.py", "test_executor.py", "test_executor_holds.py",
    "test_outputs.py", "test_cell_links.py", "test_guards.py",
)  # fmt: skip
STEPS = {"must", "attempt", "require", "to", "_to_link", "submit", "_not_busy", "to_waste", "_hold",
         "_source_off", "_gas_flows", "_switch_off", "_abort", "_stop"}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """``number`` counts within the module."""

    module: str
    number: int
    function: str
    line: int
    text: str

    @property
    def name(self) -> str:
        return f"{self.module}:{self.number}"


def _guards(tree: ast.Module, functions: tuple[str, ...]) -> Iterator[tuple[str, ast.stmt]]:
    """(function, statement) of every guard, in the order of the file."""
    for outer in ast.walk(tree):
        if not isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if functions and outer.name not in functions:
            continue
        for node in ast.walk(outer):
            if (isinstance(node, ast.If) and _refuses(node.body)) or (
                isinstance(node, ast.Expr) and _called(node.value) in STEPS
            ):
                yield outer.name, node


def _refuses(body: list[ast.stmt]) -> bool:
    """A body that raises, returns, names a reason or reacts."""
    for node in body:
        if isinstance(node, ast.Raise | ast.Return):
            return True
        if isinstance(node, ast.Expr) and _called(node.value) in STEPS | {"no", "append"}:
            return True
    return False


def _called(node: ast.expr) -> str:
    call = node.value if isinstance(node, ast.Await) else node
    if not isinstance(call, ast.Call):
        return ""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _source(module: str) -> str:
    return (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")


def mutants() -> list[Mutant]:
    """Every mutant of the targets."""
    found = []
    for module, functions in TARGETS.items():
        text = _source(module)
        for number, (function, node) in enumerate(_guards(ast.parse(text), functions)):
            shown = node.test if isinstance(node, ast.If) else node
            line = (ast.get_source_segment(text, shown) or "").split("\n")[0]
            found.append(Mutant(module, number, function, node.lineno, line))
    return found


def mutated(module: str, number: int) -> ast.Module:
    """The module without that guard."""
    tree = ast.parse(_source(module))
    _, node = list(_guards(tree, TARGETS[module]))[number]
    if isinstance(node, ast.If):
        node.test = ast.copy_location(ast.Constant(False), node.test)
    else:
        assert isinstance(node, ast.Expr)
        node.value = ast.copy_location(ast.Constant(None), node.value)
    return ast.fix_missing_locations(tree)


class _Loader(importlib.machinery.SourceFileLoader):
    number = 0

    def get_code(self, fullname: str) -> Any:
        return compile(mutated(fullname, self.number), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, module: str, number: int) -> None:
        self.module, self.number = module, number

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.module:
            return None
        file = ROOT / (fullname.replace(".", "/") + ".py")
        loader = _Loader(fullname, str(file))
        loader.number = self.number
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


def install() -> None:
    """In the process of the tests: import the mutant named by the environment."""
    module, _, number = os.environ[VARIABLE].rpartition(":")
    sys.meta_path.insert(0, _Finder(module, int(number)))


def survives(mutant: Mutant | None, tests: tuple[str, ...] = TESTS) -> bool:
    """True when the tests have nothing against it; ``None``: against the module as it is."""
    files = [str(ROOT / "tests" / "unit" / name) for name in tests]
    command = [sys.executable, "-c",
               "import sys, pytest\n"
               f"import os\nif {VARIABLE!r} in os.environ:\n"
               "    from benchmarks.mutants import install; install()\n"
               "sys.exit(pytest.main(sys.argv[1:]))",
               "-q", "-x", "-p", "no:cacheprovider", *files]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if k != VARIABLE}
    if mutant is not None:
        env[VARIABLE] = mutant.name
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False  # it never ends: found
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutant}: {done.stdout.decode()[-500:]}{done.stderr.decode()[-500:]}")
    return done.returncode == 0


def results(share: float = 1.0) -> list[dict[str, Any]]:
    """The row of ``make soak``."""
    every = max(1, round(1 / share))
    tried = mutants()[::every]
    if not survives(None):
        raise RuntimeError("the tests fail without a mutant")
    alive = [m for m in tried if survives(m)]
    for m in alive:
        print(f"mutants: alive: {m.name} {m.function}, line {m.line}: {m.text}", file=sys.stderr)
    return [
        {
            "area": "soak", "figure": f"guards left out that no test finds, of {len(tried)}",
            "value": len(alive), "unit": "1", "goal": 0, "met": not alive, "rival": "",
            "ratio": None, "note": "; ".join(f"{m.function}: {m.text}" for m in alive)[:400],
        }
    ]  # fmt: skip


def main() -> int:
    """Try all mutants, or those whose name or line has a text."""
    parser = argparse.ArgumentParser(prog="mutants")
    parser.add_argument("--only", default="", help="text in the mutant's name, function or line")
    parser.add_argument("--list", action="store_true", help="only name them")
    options = parser.parse_args()
    alive = 0
    for m in mutants():
        told = f"{m.name} {m.function}, line {m.line}: {m.text}"
        if options.only not in told:
            continue
        if options.list:
            print(told)
            continue
        lives = survives(m)
        alive += lives
        print(f"{'ALIVE ' if lives else 'killed'} {told}", flush=True)
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())

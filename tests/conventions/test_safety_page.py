"""docs/safety.md promises tests: every test it names exists, under the name it gives."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
# `test_file.py::test_name`, or `::test_name` of the file named before it
NAMED = re.compile(r"`(test_\w+\.py)?::(test_\w+)`")


def named_tests():
    """(file, test) in the order of the page."""
    file = ""
    for match in NAMED.finditer(PAGE):
        file = match[1] or file
        yield file, match[2]


def test_every_named_test_exists():
    found = list(named_tests())
    assert len(found) > 40
    missing = []
    for file, name in found:
        sources = [p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob(file)]
        if not any(re.search(rf"def {name}\(", text) for text in sources):
            missing.append(f"{file}::{name}")
    assert missing == []


def test_every_alarm_of_an_interlock_is_on_the_page():
    folder = ROOT / "controller" / "machine" / "interlocks"
    rules = "".join(p.read_text(encoding="utf-8") for p in sorted(folder.glob("rules_*.py")))
    names = re.findall(r'Rule\("(\w+)"', rules)
    assert len(names) > 20
    assert [name for name in names if f"`{name}`" not in PAGE] == []

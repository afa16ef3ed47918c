"""A quick share of the guards left out one at a time: the tests find them."""

import pytest

from benchmarks import mutants

pytestmark = pytest.mark.slow

# function and text of the guard: what refuses a start, what going on, what tells the link
QUICK = (
    ("start", "blockers", ("test_executor.py",)),
    ("_abort", "self._to_link(self.link.abort)", ("test_executor.py",)),
    ("to", "new not in ALLOWED[old]", ("test_states.py",)),
    ("preflight", "not link_ready", ("test_preflight.py",)),
)


@pytest.mark.parametrize(("function", "text", "tests"), QUICK, ids=[q[0] for q in QUICK])
def test_a_guard_left_out_is_found(function, text, tests):
    (mutant,) = [m for m in mutants.mutants() if (m.function, m.text) == (function, text)]
    assert not mutants.survives(mutant, tests)


def test_the_runner_finds_nothing_where_nothing_is_left_out():
    assert mutants.survives(None, ("test_states.py",))


def test_every_target_has_guards():
    found = mutants.mutants()
    assert {m.module for m in found} == set(mutants.TARGETS)
    assert len(found) > 60

"""The cell server's priority: above busy programs, below the link's, not that of its children."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from controller.api import serve
from firmware_bridge.link_process import FIFO_PRIORITY

pytestmark = pytest.mark.slow

LOOK = "import os, json; print(json.dumps([os.sched_getscheduler(0), os.nice(0)]))"


def taken(before=""):
    """What a process says that asked for it, its policy and priority, and its child's."""
    code = f"""
        import json, os, subprocess, sys
        from controller.api import serve
        {before}
        said = serve.take_priority()
        child = subprocess.run([sys.executable, "-c", {LOOK!r}], capture_output=True, check=True)
        policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        print(json.dumps([said, policy, os.sched_getparam(0).sched_priority,
                          json.loads(child.stdout)]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_server_runs_in_real_time_where_granted_and_its_children_do_not():
    said, policy, priority, child = taken()
    if "refused" in said:
        pytest.skip(said)
    assert (said, policy, priority) == ("SCHED_RR 10", os.SCHED_RR, serve.RR_PRIORITY)
    assert child == [os.SCHED_OTHER, 0]


def test_where_it_is_refused_the_server_runs_on_and_says_so():
    refuse = "os.sched_setscheduler = lambda *a: (_ for _ in ()).throw(PermissionError(1, 'no'))"
    said, policy, _, _ = taken(refuse)
    assert "SCHED_RR refused" in said
    assert said.startswith("nice ")
    assert policy == os.SCHED_OTHER


def test_beats_go_before_ticks():
    assert serve.RR_PRIORITY < FIFO_PRIORITY

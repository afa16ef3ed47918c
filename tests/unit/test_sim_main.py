"""``python -m hil_sim`` as a process: ready line, ends, refusals."""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hil.oracle import read

ROOT = Path(__file__).resolve().parents[2]
CELL = ROOT / "configs" / "cells" / "sim.toml"
WAIT, GRANT, BYE = 1, 2, 3


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "hil_sim", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        **options,
    )


def ready(process):
    assert select.select([process.stdout], [], [], 30)[0], "no ready line"
    return json.loads(process.stdout.readline())


def finish(process):
    """Exit code, errors."""
    try:
        process.wait(20)
    finally:
        process.kill()
    errors = process.stderr.read().decode()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    return process.returncode, errors


def party(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(20)
    sock.connect(path)
    return sock


def wait(sock, target_us):
    sock.send(struct.pack("<BxHq", WAIT, 0, target_us))
    kind, _, now_us = struct.unpack_from("<BxHq", sock.recv(4096))
    assert kind == GRANT
    return now_us


@pytest.mark.slow
def test_ready_line_names_all_wires(tmp_path):
    process = start("--cell", CELL, "--run-dir", tmp_path)
    told = ready(process)
    assert told["ready"] is True
    assert told["pid"] == process.pid
    assert Path(told["time_socket"]).is_socket()
    assert Path(told["time_socket"]).parent == tmp_path
    assert [(c["id"], c["name"], c["kind"]) for c in told["channels"]] == [
        (0, "motion", "pty"), (1, "laser", "tcp"), (2, "pyrometer", "pty"),
        (3, "chiller", "pty"), (4, "powder", "tcp"), (5, "gas", "tcp"), (6, "oxygen", "tcp"),
        (7, "safety", "tcp"), (60, "bench", "tcp"),
    ]  # fmt: skip
    assert all(c["host"] == "127.0.0.1" for c in told["channels"] if c["kind"] == "tcp")
    assert all(os.path.exists(c["path"]) for c in told["channels"] if c["kind"] == "pty")
    process.stdin.close()
    assert finish(process) == (0, "")
    assert not Path(told["time_socket"]).exists()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["bye", "gone", "stdin", "term", "int"])
def test_trace_is_whole_however_a_virtual_run_ends(tmp_path, way):
    process = start("--cell", CELL, "--out", tmp_path)
    sock = party(ready(process)["time_socket"])
    assert wait(sock, 1_234_567) == 1_234_567
    if way == "bye":
        sock.send(struct.pack("<BxHq", BYE, 0, 0))
        assert len(sock.recv(4096)) >= 12  # answered when the trace is closed
        assert (tmp_path / "trace.mcap").exists()
    elif way == "gone":
        sock.close()
    elif way == "stdin":
        process.stdin.close()
    else:
        process.send_signal(signal.SIGTERM if way == "term" else signal.SIGINT)
    assert finish(process) == (0, "")
    sock.close()
    run = read(tmp_path / "trace.mcap")
    lives_on_us = 2_000_000 if way == "gone" else 0  # a killed host: the dead-man must show
    assert run.end["t_us"] == 1_234_567 + lives_on_us
    assert len(run.rows["/trace/plant"]) == run.end["t_us"] // 10_000


@pytest.mark.slow
def test_party_that_waits_for_nothing_does_not_keep_the_process(tmp_path):
    process = start("--cell", CELL, "--out", tmp_path)
    sock = party(ready(process)["time_socket"])
    sock.send(struct.pack("<BxHq", WAIT, 0, 1 << 62))  # time runs and never comes back
    process.send_signal(signal.SIGTERM)
    assert finish(process) == (0, "")
    sock.close()
    assert read(tmp_path / "trace.mcap").end is not None


@pytest.mark.slow
@pytest.mark.realtime
@pytest.mark.parametrize("way", ["stdin", "term"])
def test_real_time_run_follows_the_clock_and_ends_whole(tmp_path, way):
    process = start("--cell", CELL, "--time", "real", "--out", tmp_path)
    told = ready(process)
    assert told["time_socket"] is None
    assert told["channels"][0]["name"] == "motion"
    assert told["channels"][0]["kind"] == "tcp"  # a busy computer delays what is in a pty
    (laser,) = (c for c in told["channels"] if c["name"] == "laser")
    with socket.create_connection((laser["host"], laser["port"]), 5) as line:
        line.settimeout(5)
        line.sendall(b"STA\r")
        assert line.recv(100).startswith(b"STA: ")
    if way == "stdin":
        process.stdin.close()
    else:
        process.terminate()
    assert finish(process) == (0, "")
    assert 1_000 < read(tmp_path / "trace.mcap").end["t_us"] < 20_000_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--cell"),
        (["--cell", "none.toml"], "none.toml: no such file"),
        (["--cell", CELL, "--scenario", "none.toml"], "none.toml: no such file"),
        (["--cell", CELL, "--scenario", CELL], "unknown key"),
        (["--cell", CELL, "--seed", "-1"], "'-1' is not a whole number"),
        (["--cell", CELL, "--time", "slow"], "slow"),
        (["--cell", CELL, "--out", "/dev/null/x"], "/dev/null"),
        (["--cell", CELL, "--run-dir", "x" * 120], "108 bytes"),
    ],
)
def test_bad_input_is_refused_with_one_sentence(tmp_path, arguments, told):
    if "--run-dir" in arguments:
        arguments = [*arguments[:-1], tmp_path / arguments[-1]]
        told = "socket path"
    code, errors = finish(start(*arguments))
    assert code == 2
    assert told in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1

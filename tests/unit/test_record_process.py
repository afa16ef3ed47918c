"""The recorder as a process: same record, survives its server, tells when it is gone."""

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from controller.errors import RecordError
from controller.record import recorder_process as rp
from controller.record import schema as s
from controller.record.keys import make_key
from controller.record.reader import read_record
from controller.record.recorder_process import RecorderProcess
from controller.record.verify import verify_record
from tests.unit.record_samples import HEADER, make_plan, telemetry_rows, write_job, write_record

pytestmark = pytest.mark.realtime
ROW = [1.0] * s.N_FIELDS
WAIT_S = 20.0


@pytest.fixture
def key_path(tmp_path: Path) -> Path:
    return make_key(tmp_path / "signing.key")


def put(recorder: RecorderProcess, first: int, n: int) -> None:
    for k in range(first, first + n):
        recorder.telemetry(k * 10_000, s.PACKER.pack(k * 10_000, *ROW))
        recorder.tick(k * 10_000)


def until_sealed(recorder: RecorderProcess, t_us: int) -> None:
    """Wait for the recorder's own word, not for a while."""
    recorder._wait_for(lambda: recorder.sealed_until_us >= t_us, WAIT_S)


def gone(pid: int) -> None:
    """Wait for the end of a process that is not a child of ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], WAIT_S)[0], "the recorder does not end"
    finally:
        os.close(fd)


@pytest.mark.slow
def test_same_content_hash_as_in_process(tmp_path: Path, key_path: Path) -> None:
    plan = make_plan(1)
    job = write_job(tmp_path / "j.lmdjob", plan)
    here = write_record(tmp_path / "here", plan, job=job, n_rows=700)
    recorder = RecorderProcess(tmp_path / "there", key_path, HEADER, job=job)
    from tests.unit.record_samples import events_of

    events = events_of(plan)
    for row in telemetry_rows(plan, 700):
        t_us = int(row["t_us"])
        while events and events[0][0] <= t_us:
            recorder.event(*events.pop(0))
        recorder.telemetry(t_us, row.tobytes())
        recorder.tick(t_us)
    result = recorder.close(6_990_000, "COMPLETE", {"time_ratio": 1.0})
    assert result["content_hash"] == here["content_hash"]
    assert result == recorder.close(0, "ABORTED", {})
    assert verify_record(tmp_path / "there").complete
    assert recorder._process.returncode is None  # the caller did not wait for its end
    assert recorder._process.wait(WAIT_S) == 0
    rp.Spare().close()
    assert recorder._process not in rp._LEFT
    with pytest.raises(RecordError, match="closed"):
        recorder.telemetry(1, b"")


@pytest.mark.slow
def test_killed_recorder_leaves_a_record_that_verifies_to_its_last_seal(
    tmp_path: Path, key_path: Path
) -> None:
    recorder = RecorderProcess(tmp_path / "r", key_path, HEADER)
    put(recorder, 0, 555)
    until_sealed(recorder, 5_000_000)
    os.kill(recorder.pid, signal.SIGKILL)
    recorder._process.wait(WAIT_S)
    with pytest.raises(RecordError, match=r"is gone; the record is sealed until 5 s"):
        put(recorder, 555, 2)
    v = verify_record(tmp_path / "r")
    assert v.ok
    assert not v.complete
    assert v.sealed_until_s == 5.0
    assert v.rows == 501
    rows = read_record(tmp_path / "r").telemetry
    assert (rows["t_us"] == [k * 10_000 for k in range(len(rows))]).all()
    recorder._reap()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_recorder_closes_the_record_when_its_server_dies(
    tmp_path: Path, key_path: Path, number: int
) -> None:
    script = textwrap.dedent(f"""
        import sys, signal
        from pathlib import Path
        from controller.record import schema as s
        from controller.record.recorder_process import RecorderProcess
        r = RecorderProcess(Path({str(tmp_path / "r")!r}), Path({str(key_path)!r}), {{}})
        for k in range(333):
            r.telemetry(k * 10_000, s.PACKER.pack(k * 10_000, *[1.0] * s.N_FIELDS))
            r.tick(k * 10_000)
        print(r.pid, flush=True)
        signal.pause()
    """)
    server = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert server.stdout is not None
    recorder_pid = int(server.stdout.readline())
    os.kill(recorder_pid, signal.SIGINT)  # the terminal's Ctrl-C is not for the recorder
    server.send_signal(number)
    server.wait(WAIT_S)
    server.stdout.close()
    gone(recorder_pid)
    v = verify_record(tmp_path / "r")
    assert v.complete, v.problems
    assert v.state == "INTERRUPTED"
    assert v.rows == 333
    record = read_record(tmp_path / "r")
    assert record.final is not None
    assert record.final["data"] == {"cause": "the server is gone"}


@pytest.mark.slow
def test_errors_of_the_recorder_reach_the_caller(tmp_path: Path, key_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        RecorderProcess(tmp_path / "r", tmp_path / "no.key", HEADER)
    assert not (tmp_path / "r").exists()
    (tmp_path / "f").write_text("")
    with pytest.raises(RecordError, match="f is not a folder"):
        RecorderProcess(tmp_path / "f" / "r", key_path, HEADER)
    with pytest.raises(RecordError, match=r"MB free, \d+ MB needed"):
        RecorderProcess(tmp_path / "r", key_path, HEADER, expected_s=1e12)
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_stopped_recorder_is_an_error_not_a_gap_nor_a_block(
    tmp_path: Path, key_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rp, "MAX_BEHIND_BYTES", 200_000)
    recorder = RecorderProcess(tmp_path / "r", key_path, HEADER)
    put(recorder, 0, 110)
    until_sealed(recorder, 1_000_000)
    os.kill(recorder.pid, signal.SIGSTOP)
    worst = 0.0

    def put_on() -> None:
        nonlocal worst
        for k in range(110, 100_000):
            start = time.monotonic()
            put(recorder, k, 1)
            worst = max(worst, time.monotonic() - start)

    try:
        with pytest.raises(RecordError, match="behind, limit 0 MB; the record is sealed until 1 s"):
            put_on()
        assert worst < 0.2, "the caller was held up"
    finally:
        os.kill(recorder.pid, signal.SIGCONT)
        recorder._reap()
    assert verify_record(tmp_path / "r").ok


def test_a_spare_takes_the_record_and_one_that_is_gone_is_made_up_for(
    tmp_path: Path, key_path: Path
) -> None:
    spare = rp.Spare()
    recorder = RecorderProcess(tmp_path / "r", key_path, HEADER, spare=spare)
    assert recorder.pid == spare.process.pid
    put(recorder, 0, 50)
    assert recorder.close(500_000, "COMPLETE", {})["rows"] == 50
    assert verify_record(tmp_path / "r").ok

    killed = rp.Spare()
    killed.process.kill()
    killed.process.wait()
    other = RecorderProcess(tmp_path / "other", key_path, HEADER, spare=killed)
    assert other.pid != killed.process.pid
    assert other.close(0, "STOPPED", {})["state"] == "STOPPED"


@pytest.mark.parametrize("how", ["closed", "its caller dies"])
def test_a_spare_that_no_record_came_to_ends(how: str) -> None:
    if how == "closed":
        spare = rp.Spare()
        spare.close()
        assert spare.process.returncode == 0
        return
    code = """
        import os, signal
        from controller.record.recorder_process import Spare
        print(Spare().process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    gone(int(done.stdout))

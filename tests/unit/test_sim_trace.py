"""The trace file: what stands in it and when it gets its name."""

import json
import struct

import numpy as np
import pytest
from mcap.reader import make_reader

from hil_sim.trace import PLANT_ROW, ROW_TOPICS, Trace


def messages(path):
    with open(path, "rb") as stream:
        return [
            (channel.topic, channel.message_encoding, message.log_time, message.data)
            for _, channel, message in make_reader(stream, validate_crcs=True).iter_messages()
        ]


def test_header_describes_every_row_topic(tmp_path):
    trace = Trace(tmp_path, {"seed": 3, "cell": "x"})
    trace.close(0, {})
    topic, encoding, _, data = messages(tmp_path / "trace.mcap")[0]
    assert (topic, encoding) == ("/trace/header", "json")
    header = json.loads(data)
    assert header["seed"] == 3
    for name, descr in header["dtypes"].items():
        fields = [(f[0], f[1], tuple(f[2])) if len(f) == 3 else tuple(f) for f in descr]
        assert np.dtype(fields) == ROW_TOPICS[name]
    assert set(header["dtypes"]) == {"/trace/plant", "/trace/segment_ends", "/trace/gate"}


def test_rows_are_packed_little_endian():
    assert PLANT_ROW.itemsize == struct.calcsize("<q10dBBHHiBBB3f") == 113
    assert ROW_TOPICS["/trace/segment_ends"].itemsize == struct.calcsize("<qi6i") == 36
    assert ROW_TOPICS["/trace/gate"].itemsize == struct.calcsize("<qB") == 9


def test_times_are_simulated_nanoseconds_and_messages_keep_their_order(tmp_path):
    trace = Trace(tmp_path, {})
    trace.event(1_234, "armed", on=1)
    trace.rows("/trace/gate", 2_000, struct.pack("<qB", 1_999, 1))
    trace.rows("/trace/gate", 3_000, b"")
    trace.close(4_000, {"energy_j": 1.5})
    got = messages(tmp_path / "trace.mcap")
    assert [(t, at) for t, _, at, _ in got] == [
        ("/trace/header", 0),
        ("/trace/event", 1_234_000),
        ("/trace/gate", 2_000_000),
        ("/trace/end", 4_000_000),
    ]
    assert json.loads(got[1][3]) == {"t_us": 1234, "kind": "armed", "on": 1}
    assert json.loads(got[3][3]) == {"energy_j": 1.5}


def test_file_has_its_name_only_when_it_is_whole(tmp_path):
    trace = Trace(tmp_path / "new", {})
    trace.event(1, "armed", on=1)
    assert not (tmp_path / "new" / "trace.mcap").exists()
    trace.close(2, {})
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["trace.mcap"]


def test_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Trace(tmp_path / "file", {})

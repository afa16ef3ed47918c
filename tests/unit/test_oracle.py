"""The oracle finds every breach that is planted in a hand-made trace, and none in a good one."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
from mcap.writer import CompressionType, Writer

from tests.hil.oracle import check, planned_ends

DTYPES = {
    "/trace/plant": [
        ["t_us", "<i8"], ["x_mm", "<f8"], ["y_mm", "<f8"], ["z_mm", "<f8"],
        ["power_command_w", "<f8"], ["emission_w", "<f8"], ["energy_j", "<f8"],
        ["emission_s", "<f8"], ["fed_g", "<f8"], ["wasted_g", "<f8"], ["deposited_g", "<f8"],
        ["armed", "|u1"], ["gate", "|u1"], ["state", "<u2"], ["fault", "<u2"],
        ["beat_age_us", "<i4"], ["interlock", "|u1"], ["estop_ok", "|u1"],
        ["door_closed", "|u1"], ["oxygen_ppm", "<f4"], ["coolant_deg_c", "<f4"],
        ["pool_temp_deg_c", "<f4"],
    ],
    "/trace/segment_ends": [["t_us", "<i8"], ["segment", "<i4"], ["pos", "<i4", [6]]],
    "/trace/gate": [["t_us", "<i8"], ["on", "|u1"]],
}  # fmt: skip
PLANNED = np.array([[k * 100, 0, 0, 0, 0, 0] for k in range(1, 6)])
IDLE, RUN, HOLDING, HELD, FAULT = 0, 2, 3, 4, 5


class Script:
    """A run of 1 s: armed at 50 ms, RUN at 80 ms, gate open 200..600 ms at 600 W, beats of 20 ms.

    Change the attributes, then write.
    """

    def __init__(self):
        self.end_us = 1_000_000
        self.gate = [(200_000, 1), (600_000, 0)]
        self.light = [(200_100, 600_100)]
        self.watt = 600.0
        self.beats = list(range(10_000, 1_000_000, 20_000))
        self.events = [
            {"t_us": 40_000, "kind": "laser_enabled", "on": 1},
            {"t_us": 50_000, "kind": "armed", "on": 1},
            {"t_us": 80_000, "kind": "state", "state": RUN},
            {"t_us": 700_000, "kind": "state", "state": IDLE},
        ]
        self.ends = [(100_000 * (k + 2), k, row.tolist()) for k, row in enumerate(PLANNED)]
        self.rows = {}  # t_us -> fields that a sample shows instead
        self.skip = set()
        self.closed = True

    def add(self, t_us, kind, **fields):
        self.events.append({"t_us": t_us, "kind": kind, **fields})

    def _at(self, t_us, kind, key, start):
        value = start
        for event in sorted(self.events, key=lambda e: e["t_us"]):
            if event["kind"] == kind and event["t_us"] <= t_us:
                value = event[key]
        return value

    def _row(self, t_us):
        on_us = sum(max(0, min(b, t_us) - a) for a, b in self.light)
        before = sum(max(0, min(b, t_us - 10_000) - a) for a, b in self.light)
        beats = [b for b in self.beats if b <= t_us]
        gate = [on for at, on in self.gate if at <= t_us]
        row = {name[0]: 0 for name in DTYPES["/trace/plant"]}
        row |= {
            "t_us": t_us,
            "emission_w": self.watt * (on_us - before) / 10_000,
            "energy_j": self.watt * on_us * 1e-6,
            "emission_s": on_us * 1e-6,
            "armed": self._at(t_us, "armed", "on", 0),
            "gate": gate[-1] if gate else 0,
            "state": self._at(t_us, "state", "state", 0),
            "beat_age_us": t_us - beats[-1] if beats else 0x7FFFFFFF,
            "interlock": self._at(t_us, "chain", "closed", 1),
            "estop_ok": 1,
            "door_closed": 1,
        }
        row |= self.rows.get(t_us, {})
        return struct.pack("<q10dBBHHiBBB3f", *row.values())

    def write(self, path):
        with open(path, "wb") as file:
            writer = Writer(file, compression=CompressionType.NONE)
            writer.start()
            topics = ("/trace/header", *DTYPES, "/trace/event", "/trace/end")
            ids = {t: writer.register_channel(t, "octet", 0) for t in topics}

            def put(topic, t_us, data):
                data = data if isinstance(data, bytes) else json.dumps(data).encode()
                writer.add_message(ids[topic], t_us * 1000, data, t_us * 1000)

            put("/trace/header", 0, {"seed": 1, "cell": "x", "gate_latency_us": 120,
                                     "dtypes": DTYPES})  # fmt: skip
            for t_us in range(10_000, self.end_us + 1, 10_000):
                if t_us not in self.skip:
                    put("/trace/plant", t_us, self._row(t_us))
            for t_us, on in self.gate:
                put("/trace/gate", t_us, struct.pack("<qB", t_us, on))
            for t_us, segment, pos in self.ends:
                put("/trace/segment_ends", t_us, struct.pack("<qi6i", t_us, segment, *pos))
            for event in self.events:
                put("/trace/event", event["t_us"], event)
            if self.closed:
                put("/trace/end", self.end_us, {"t_us": self.end_us})
            writer.finish()
        return path


def kinds(script, tmp_path, job=PLANNED, **options):
    return {v.kind for v in check(script.write(tmp_path / "trace.mcap"), job, **options)}


def test_good_run_has_no_violation(tmp_path):
    assert check(Script().write(tmp_path / "trace.mcap"), PLANNED) == []


def test_states_that_change_at_the_edges_own_instant_are_no_violation(tmp_path):
    script = Script()
    script.add(600_000, "fault", code=6)
    script.add(600_000, "armed", on=0)
    script.add(600_000, "state", state=FAULT)
    assert kinds(script, tmp_path) == set()


def test_reset_hold_and_rearming_clear_what_they_should(tmp_path):
    script = Script()
    script.add(90_000, "hold", mode=1)
    script.add(90_000, "state", state=HOLDING)
    script.add(95_000, "state", state=HELD)
    script.add(100_000, "fault", code=1)
    script.add(105_000, "fault_reset", code=1)
    script.add(110_000, "state", state=RUN)
    assert kinds(script, tmp_path) == set()


def late_disarm(s):
    s.add(599_999, "armed", on=0)


def late_fault(s):
    s.add(599_999, "fault", code=1)


def fault_state(s):
    s.add(500_000, "state", state=FAULT)
    s.rows = {t: {"state": RUN} for t in range(500_000, 700_000, 10_000)}


def hold_now_ignored(s):
    s.add(599_999, "hold", mode=1)


def hold_by_itself_ignored(s):
    s.add(300_000, "hold", mode=3)


def holding_with_gate(s):
    s.add(599_000, "hold", mode=2)
    s.add(599_000, "state", state=HOLDING)


def idle_with_gate(s):
    s.events[3]["t_us"] = 599_000


def silent_host(s):
    s.beats = [b for b in s.beats if b <= 480_000 or b >= 700_000]
    s.gate[1] = (572_000, 0)  # last beat at 470 ms: 1 ms after the limit


def never_a_beat(s):
    s.beats = []


def chain_open(s):
    s.add(598_000, "chain", closed=0)
    s.light = [(200_100, 598_000)]


def interlock_in_samples_only(s):
    s.rows = {500_000: {"interlock": 0}, 510_000: {"interlock": 0}}


def door_in_samples_only(s):
    s.rows = {500_000: {"door_closed": 0}, 510_000: {"door_closed": 0}}


def disarmed_in_a_sample_only(s):
    s.rows = {500_000: {"armed": 0}}


def fault_in_a_sample_only(s):
    s.rows = {500_000: {"fault": 4}}


def held_in_a_sample_only(s):
    s.rows = {500_000: {"state": HELD}}


def light_outlasts_the_gate(s):
    s.light = [(200_100, 600_400)]


def light_alone(s):
    s.light.append((800_000, 800_050))


def light_in_one_row_only(s):
    s.rows = {850_000: {"emission_w": 5.0}}


def light_with_open_chain(s):
    s.add(400_000, "chain", closed=0)


def light_of_a_disabled_source(s):
    s.events[0]["t_us"] = 210_000


def a_step_off(s):
    s.ends[2][2][1] = 1


def unplanned_segment(s):
    s.ends.append((900_000, 9, [0] * 6))


def lost_segment(s):
    del s.ends[3]


def no_segment_at_all(s):
    s.ends = []


def no_rows(s):
    s.skip = set(range(10_000, 1_000_001, 10_000))


def a_row_missing(s):
    s.skip = {500_000}


def first_row_missing(s):
    s.skip = {10_000}


def last_rows_missing(s):
    s.skip = {990_000, 1_000_000}


def not_closed(s):
    s.closed = False


def gate_never_opened(s):
    s.gate, s.light = [], []


def gate_edges_lost(s):
    s.gate = []
    s.light = []
    s.rows = {500_000: {"gate": 1}}


@pytest.mark.parametrize(
    ("plant_it", "kind"),
    [
        (late_disarm, "gate_while_disarmed"),
        (disarmed_in_a_sample_only, "gate_while_disarmed"),
        (late_fault, "gate_while_faulted"),
        (fault_state, "gate_while_faulted"),
        (fault_in_a_sample_only, "gate_while_faulted"),
        (hold_now_ignored, "gate_while_held"),
        (hold_by_itself_ignored, "gate_while_held"),
        (holding_with_gate, "gate_while_held"),
        (held_in_a_sample_only, "gate_while_held"),
        (idle_with_gate, "gate_while_idle"),
        (silent_host, "gate_without_beat"),
        (never_a_beat, "gate_without_beat"),
        (chain_open, "gate_with_interlock_open"),
        (interlock_in_samples_only, "gate_with_interlock_open"),
        (door_in_samples_only, "gate_with_interlock_open"),
        (light_outlasts_the_gate, "emission_without_gate"),
        (light_alone, "emission_without_gate"),
        (light_in_one_row_only, "emission_without_gate"),
        (light_with_open_chain, "emission_with_chain_open"),
        (light_of_a_disabled_source, "emission_not_enabled"),
        (a_step_off, "position"),
        (unplanned_segment, "position"),
        (lost_segment, "position"),
        (no_segment_at_all, "no_samples"),
        (no_rows, "no_samples"),
        (a_row_missing, "samples_missing"),
        (first_row_missing, "samples_missing"),
        (last_rows_missing, "samples_missing"),
        (gate_edges_lost, "samples_missing"),
        (not_closed, "unfinished"),
        (gate_never_opened, "no_emission"),
    ],
)
def test_planted_breach_is_found(tmp_path, plant_it, kind):
    script = Script()
    plant_it(script)
    assert kind in kinds(script, tmp_path)


def test_breach_names_instant_and_figures(tmp_path):
    script = Script()
    script.add(599_000, "armed", on=0)
    found = check(script.write(tmp_path / "trace.mcap"), PLANNED)
    (first, *_) = [v for v in found if v.kind == "gate_while_disarmed"]
    assert first.t_us == 599_000
    assert "1000 us" in first.text


def test_beat_within_its_time_is_enough(tmp_path):
    script = Script()
    script.beats = [b for b in script.beats if b <= 480_000 or b >= 700_000]
    script.gate[1] = (570_000, 0)
    script.light = [(200_100, 570_100)]
    assert kinds(script, tmp_path) == set()


def test_interlock_has_a_millisecond(tmp_path):
    script = Script()
    script.add(599_500, "chain", closed=0)
    script.light = [(200_100, 599_500)]
    assert kinds(script, tmp_path) == set()


def test_hold_at_the_track_s_end_leaves_the_gate_until_there(tmp_path):
    script = Script()
    script.add(300_000, "hold", mode=2)
    assert kinds(script, tmp_path) == set()


def test_gate_left_open_is_judged_to_the_end(tmp_path):
    script = Script()
    del script.gate[1]
    assert "gate_while_idle" in kinds(script, tmp_path)


def test_interrupted_run_need_not_end_every_segment(tmp_path):
    script = Script()
    del script.ends[4]
    assert kinds(script, tmp_path, complete=False) == set()


def test_torn_file_is_a_violation(tmp_path):
    path = Script().write(tmp_path / "trace.mcap")
    path.write_bytes(path.read_bytes()[:5000])
    assert [v.kind for v in check(path, PLANNED)] == ["unreadable"]


def test_missing_file_is_a_violation(tmp_path):
    assert [v.kind for v in check(tmp_path / "none.mcap")] == ["unreadable"]


def test_plan_is_read_from_a_job_file(tmp_path):
    segment = np.dtype([("steps", "<i2", (6,)), ("flags", "u1")])
    segments = np.zeros(5, segment)
    segments["steps"][:, 0] = 100
    path = tmp_path / "x.lmdjob"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", "{}")
        for name, array in (("segments", segments), ("start_steps", np.zeros(6, np.int64))):
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{name}.npy", stream.getvalue())
    assert np.array_equal(planned_ends(path), PLANNED)
    assert check(Script().write(tmp_path / "trace.mcap"), path) == []

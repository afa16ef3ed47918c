"""The simulated CNC: its program, its motion, and the gate that needs a fresh permit."""

import itertools
import math

import numpy as np
import pytest

from hil_sim.devices.cnc_program import MOVE, Machine, ProgramError, read_program
from tests.unit.cnc_bench import (
    ABORT,
    BEAD_1,
    FAULT,
    FINISHED,
    GO,
    HELD,
    HOLD,
    HOLD_NOW,
    HOLDING,
    NOT_READY,
    PERMIT,
    PROGRAM,
    READY,
    READY_BITS,
    RESET,
    RUNNING,
    WAITING,
    CncBench,
)

AXES = Machine(("X", "Y", "Z"), (120.0, 120.0, 40.0), (1600.0, 1600.0, 400.0), 1600.0)
ZERO = (0.0, 0.0, 0.0)
TIMEOUT_US = 100_000


def moves(text: str):
    return [i for i in read_program(text.encode() + b"\nM2\n", AXES, ZERO) if i.kind == MOVE]


# --- program and look-ahead


def test_moves_keep_feed_axis_speeds_and_accelerations():
    items = moves("G1 X50 F6000\nX50.5 Y0.1\nX51 Y0.4\nX50 Y20\nZ10\nG0 X0 Y0 Z0")
    dt = 1e-4
    for item in items:
        n = int(item.duration_s / dt)
        places = np.array([item.place(k * dt) for k in range(n + 1)])
        speed = np.diff(places, axis=0) / dt
        assert np.linalg.norm(speed, axis=1).max() <= item.feed_mm_s * 1.001
        assert (np.abs(speed).max(axis=0) <= np.array(AXES.speed) * 1.001).all()
        if n > 2:
            accel = np.abs(np.diff(speed, axis=0)) / dt
            assert (accel.max(axis=0) <= np.array(AXES.accel) * 1.001 + 1.0).all()
        assert item.place(item.duration_s) == pytest.approx(item.end, abs=1e-9)
    for a, b in itertools.pairwise(items):
        assert a.v_out == b.v_in
    assert items[0].v_in == 0.0
    assert items[-1].v_out == 0.0
    assert items[0].v_top == pytest.approx(100.0)


def test_a_reversal_is_a_stop_and_a_straight_corner_is_none():
    back, forth = moves("G1 X20 F3000\nX0")
    assert back.v_out == pytest.approx(0.0, abs=1e-6)
    assert forth.v_in == pytest.approx(0.0, abs=1e-6)
    one, two = moves("G1 X20 F3000\nX40")
    assert one.v_out == pytest.approx(50.0)
    assert two.v_in == pytest.approx(50.0)


@pytest.mark.parametrize(("code", "side"), [("G3", 1.0), ("G2", -1.0)])
def test_an_arc_stays_on_its_circle_and_turns_the_right_way(code, side):
    _, arc = moves(f"G1 X10 Y0 F6000\n{code} X-10 Y0 I-10 J0 F600")
    assert arc.length_mm == pytest.approx(10.0 * math.pi)
    middle = arc.at(0.5 * arc.length_mm)
    assert middle[:2] == pytest.approx((0.0, side * 10.0), abs=1e-9)
    for share in np.linspace(0.0, 1.0, 50):
        x, y, _ = arc.at(share * arc.length_mm)
        assert math.hypot(x, y) == pytest.approx(10.0, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("G1 X1", "line 1: no feed"),
        ("X1 F100", "line 1: coordinates without"),
        ("G1 F100 X1\nG92 X0", "line 2: G92 is not known"),
        ("G1 F100 X1\nM101 P2", "line 2: M101 is not known"),
        ("G1 F100 X(", "line 1: 'G1F100X\\(' is not understood"),
        ("G20", "line 1: G20 is not known"),
        ("G3 X5 I1 J1 F100", "line 1: start and end are not on one circle"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(text, says):
    with pytest.raises(ProgramError, match=says):
        moves(text)


def test_a_program_without_an_end_is_refused():
    with pytest.raises(ProgramError, match="no M2"):
        read_program(b"G1 X1 F100\n", AXES, ZERO)


def test_gate_and_power_change_with_the_next_move_and_other_outputs_are_not_wired():
    items = moves("G1 X1 F600\nM67 E0 Q500\nM67 E1 Q7\nM62 P1\nM62 P0\nX2\nX3\nM63 P0\nX4")
    assert [i.gate for i in items] == [False, True, True, False]
    assert [i.power_w for i in items] == [0.0, 500.0, 500.0, 500.0]


# --- the whole control


def test_it_builds_both_beads_and_tells_line_layer_power_and_place():
    bench = CncBench()
    bench.ready()
    bench.release = 2
    bench.power_w = 400.0
    bench.go()
    assert bench.run(5_000, lambda: bench.cnc._gate)
    bench.run(300)
    told = bench.read()
    assert (told["state"], told["line"], told["layer"]) == (RUNNING, BEAD_1, 1)
    assert told["power_w"] == 400.0  # our word limits the program's 500 W
    assert told["bits"] == 1 | 2 | 4 | 8 | 16 | 32
    assert 12.0 < told["x"] < 22.0
    assert (told["y"], told["z"]) == (10.0, 5.0)
    bench.until(FINISHED)
    edges = bench.gates()
    assert [on for _, on in edges] == [1, 0, 1, 0]
    for (on_us, _), (off_us, _) in (edges[:2], edges[2:]):
        assert (off_us - on_us) * 1e-6 == pytest.approx(1.0, abs=2e-3)  # 10 mm at 10 mm/s
    assert bench.read()["layer"] == 2


def test_a_layer_is_begun_only_when_it_is_released():
    bench = CncBench()
    bench.ready()
    bench.go()
    bench.until(WAITING)
    bench.run(500)
    assert bench.cnc.state == WAITING
    assert bench.read()["layer"] == 1
    assert bench.gates() == []
    bench.release = 1
    bench.until(RUNNING, 100)
    bench.until(WAITING)
    assert bench.read()["layer"] == 2
    assert len(bench.gates()) == 2
    bench.bits &= ~64  # powder no longer ready: the release alone does not do
    bench.release = 2
    bench.run(200)
    assert bench.cnc.state == WAITING
    bench.bits |= 64
    bench.until(FINISHED)
    assert len(bench.gates()) == 4


def emitting() -> CncBench:
    bench = CncBench()
    bench.ready()
    bench.release = 2
    bench.go()
    assert bench.run(5_000, lambda: bench.cnc._gate), "no emission: proves nothing"
    bench.run(200)
    return bench


def test_the_gate_shuts_exactly_when_the_heartbeat_has_stood_for_the_time_out():
    bench = emitting()
    last_us = bench.cnc._beat_us
    bench.beats = False
    bench.run(300)
    t_us, on = bench.gates()[-1]
    assert (t_us, on) == (last_us + TIMEOUT_US, 0)
    assert bench.cnc.state == FAULT
    bench.beats = True
    bench.run(100)
    told = bench.read()
    assert told["alarm"] == 1
    assert not told["bits"] & 8, "the permit came back by itself"
    assert len(bench.gates()) == 2


def test_writes_with_a_standing_heartbeat_permit_nothing():
    bench = emitting()
    count = bench.count
    for _ in range(12):
        bench.count = count - 1  # written again and again: alive, but not counting
        bench.write()
        bench.cnc.run(bench.cnc.now_us + 10_000)
    bench.keep()
    assert bench.cnc.state == FAULT
    assert bench.gates()[-1][1] == 0


@pytest.mark.parametrize("bits", [HOLD_NOW, ABORT])
def test_a_stop_shuts_the_gate_before_the_axes_slow_down(bits):
    bench = emitting()
    bench.bits |= bits
    begin_us = bench.cnc.now_us
    bench.write()
    bench.keep()
    assert bench.gates()[-1] == (begin_us, 0)
    bench.run(200)
    path = bench.path()
    path = path[path["t_us"] >= begin_us]
    x_mm = path["pos"][:, 0] / 400.0
    t_s = path["t_us"] * 1e-6
    speed = np.diff(x_mm) / np.maximum(np.diff(t_s), 1e-9)
    assert abs(speed[-1]) < 0.01
    assert 0.05 < x_mm[-1] - x_mm[0] < 1.0, "it did not decelerate, it jumped or ran on"
    assert bench.cnc.state == (HELD if bits == HOLD_NOW else FAULT)


def test_a_hold_waits_for_the_beads_end():
    bench = emitting()
    bench.bits |= HOLD
    bench.run(100)
    assert bench.read()["bits"] & 64
    assert bench.cnc.state == RUNNING
    assert bench.cnc._gate
    bench.until(HELD, 2_000)
    on_us, off_us = (t for t, _ in bench.gates())
    assert (off_us - on_us) * 1e-6 == pytest.approx(1.0, abs=2e-3)
    bench.bits &= ~HOLD
    bench.run(100)
    assert bench.cnc.state == HELD, "taking the hold back alone must not start"
    bench.bits &= ~GO
    bench.run(40)
    bench.go()
    bench.until(FINISHED)
    assert len(bench.gates()) == 4


def test_falling_go_and_falling_permit_hold():
    for bit in (GO, PERMIT):
        bench = emitting()
        bench.bits &= ~bit
        bench.run(20)
        assert not bench.cnc._gate
        bench.until(HELD, 200)


def test_an_open_interlock_shuts_the_gate_at_once_and_latches():
    bench = emitting()
    bench.cnc.set_input(0, False)
    assert not bench.cnc._gate
    bench.bits = READY_BITS | RESET
    bench.run(200)
    assert bench.cnc.state == FAULT, "reset while the chain is open"
    bench.cnc.set_input(0, True)
    bench.bits &= ~RESET
    bench.run(40)
    bench.bits |= RESET
    bench.until(READY, 100)
    assert not bench.cnc._permitted


def test_reset_needs_an_edge_and_starts_nothing():
    bench = emitting()
    bench.bits |= ABORT
    bench.run(100)
    bench.bits = READY_BITS | PERMIT | GO | RESET  # all at once, permit held
    bench.run(200)
    assert bench.cnc.state == FAULT
    bench.bits = READY_BITS | GO
    bench.run(40)
    bench.bits |= RESET
    bench.until(READY, 100)
    bench.run(200)
    assert bench.cnc.state == READY
    assert len(bench.gates()) == 2


def test_another_program_is_not_begun():
    bench = CncBench()
    bench.ready()
    bench.release = 2
    bench.program ^= 1
    bench.go()
    bench.run(300)
    assert bench.cnc.state == READY
    assert bench.gates() == []


def test_a_program_it_does_not_understand_is_an_alarm_and_no_program():
    bench = CncBench()
    bench.run(40)
    bench.store(PROGRAM.replace(b"G94", b"G93"))
    told = bench.read()
    assert (told["program"], told["alarm"], told["state"]) == (0, 20, NOT_READY)
    assert not told["bits"] & 1


def test_no_permit_before_it_is_referenced():
    bench = CncBench()
    bench.store()
    bench.bits = READY_BITS
    bench.run(40)
    bench.bits |= PERMIT
    bench.run(100)
    assert not bench.read()["bits"] & 8


def test_an_override_scales_the_feed_and_a_low_one_holds():
    bench = emitting()
    bench.override = 500
    bench.run(300)
    path = bench.path()[-40:]
    dt_s = (path["t_us"][-1] - path["t_us"][0]) * 1e-6
    assert (path["pos"][-1, 0] - path["pos"][0, 0]) / 400.0 / dt_s == pytest.approx(5.0, rel=0.02)
    assert bench.read()["override"] == 500
    bench.override = 50
    bench.run(200)
    assert bench.cnc.state in (HOLDING, HELD)


def test_words_of_another_version_are_no_commands():
    bench = emitting()
    words = "00 02 00 01 00 c3 00 02 00 00 00 00 00 00 00 00 03 e8 03 e8"
    assert bench.ask(1, bytes.fromhex("10 00 00 00 0a 14" + words))[0] == 16
    assert not bench.cnc._gate


def test_words_that_it_has_not_are_refused():
    bench = CncBench()
    assert bench.ask(1, bytes.fromhex("10 00 09 00 02 04 00 00 00 00")) == b"\x90\x02"
    assert bench.ask(1, bytes.fromhex("03 00 64 00 21")) == b"\x83\x02"
    assert bench.ask(1, bytes.fromhex("04 00 64 00 01")) == b"\x84\x01"

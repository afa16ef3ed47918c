"""Exported programs, read back by other code, against the job they were made of."""

import itertools
import math

import numpy as np
import pytest

from controller.config import Cell, parse_model
from controller.export import DIALECTS
from tests.unit.export_cases import (
    DECIMAL_MM,
    POWER_W,
    READERS,
    STEPPED,
    arc_tracks,
    lit_runs,
    planned,
    random_tracks,
    run,
    wanted,
)

STEP_MM = 0.0025 * math.sqrt(3.0)  # a place known from whole steps
LATE = (('gate_latency = "0.1 ms"', 'gate_latency = "8 ms"'),)  # edges far from corners
OFFSET = (
    ("travel_speed = ", 'work_offset = ["2 mm", "-3 mm", "1 mm"]\n'
                        'tool_offset = ["0 mm", "0.5 mm", "-1 mm"]\ntravel_speed = '),
)  # fmt: skip


def off_line_mm(place, points):
    """Distance of a place from a polyline."""
    a, d = points[:-1], np.diff(points, axis=0)
    share = np.clip(((place - a) * d).sum(1) / (d * d).sum(1), 0.0, 1.0)
    return float(np.linalg.norm(a + share[:, None] * d - place, axis=1).min())


def judge(plan, dialect, ran, *, arcs=False):
    """Every bead: points, order, speed, power, where the gate opens and shuts."""
    unit = DECIMAL_MM.get(dialect, 1e-3)
    near = 0.5 * unit * math.sqrt(3.0) + 1e-9
    assert near < 1e-3
    beads, runs = wanted(plan), lit_runs(ran.moves)
    assert len(runs) == len(beads) > 0
    assert ran.ended
    assert not ran.gate
    for bead, moves in zip(beads, runs, strict=True):
        speed = float(bead.row["speed_mm_s"])
        servo_mm = 1e-3 * speed
        assert {round(m.speed_mm_s, 2) for m in moves} == {round(speed, 2)}
        assert math.dist(moves[0].start, bead.on_mm) <= servo_mm + STEP_MM + near
        assert math.dist(moves[-1].end, bead.off_mm) <= servo_mm + STEP_MM + near
        # the corners inside of the bead, in order
        ends = np.array([moves[0].start, *(m.end for m in moves)])
        at = 0
        for corner in bead.points_mm[1:-1]:
            far = np.linalg.norm(ends[at:] - corner, axis=1)
            hit = int(np.argmax(far <= near))
            assert far[hit] <= near, f"corner {corner} is not there"
            at += hit
        if not arcs:
            line = np.vstack([bead.on_mm, bead.points_mm, bead.off_mm])
            line = line[np.append(True, np.linalg.norm(np.diff(line, axis=0), axis=1) > 1e-9)]
            for place in ends[1:-1]:
                ahead = min(math.dist(place, bead.on_mm), math.dist(place, bead.off_mm))
                rough = STEP_MM if ahead <= 8e-3 * speed else 0.0  # the line to a place in steps
                assert off_line_mm(place, line) <= near + rough
            length = sum(math.dist(m.start, m.end) for m in moves)
            told = float(np.linalg.norm(np.diff(bead.points_mm, axis=0), axis=1).sum())
            assert length == pytest.approx(told, abs=2.0 * servo_mm + len(moves) * near)
        powers = np.array([m.power_w for m in moves])
        set_w, round_w = float(bead.row["power_set_w"]), POWER_W.get(dialect, 0.06)
        if dialect in STEPPED:
            assert powers.max() <= set_w + round_w
            assert powers.min() >= 150.0 - round_w
        else:
            assert np.abs(powers - set_w).max() <= round_w
    cell = parse_model(Cell, plan.cell_toml, "test")
    offset = np.array(cell.motion.work_offset_mm) - np.array(cell.motion.tool_offset_mm)
    for move in ran.moves:
        for axis, value, by in zip(cell.motion.axes, move.end, offset, strict=True):
            assert axis.range_mm[0] - 1e-3 <= value + by <= axis.range_mm[1] + 1e-3


@pytest.fixture(scope="module")
def small():
    return planned()


@pytest.fixture(scope="module")
def arcs():
    return planned(arc_tracks())


def test_every_dialect_has_a_reader():
    assert sorted(READERS) == sorted(DIALECTS)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_small_build_reads_back(dialect, small):
    judge(small, dialect, run(small, dialect)[1])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("seed", range(4))
def test_random_beads_read_back(dialect, seed):
    law = ("trapezoid", "friction_circle", "jerk")[seed % 3]
    plan = planned(random_tracks(seed), mode=law, cell=OFFSET if seed % 2 else LATE)
    judge(plan, dialect, run(plan, dialect)[1])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_gate_opens_ahead_of_the_bead_by_the_way_of_its_latency(dialect):
    plan = planned(cell=LATE)
    _, ran = run(plan, dialect)
    judge(plan, dialect, ran)
    for bead, moves in zip(wanted(plan), lit_runs(ran.moves), strict=True):
        speed = float(bead.row["speed_mm_s"])
        assert math.dist(moves[0].start, bead.points_mm[0]) == pytest.approx(8e-3 * speed, abs=2e-3)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_power_is_there_before_the_gate_opens(dialect, small):
    """With the gate shut the output already has the value of the first lit block."""
    _, ran = run(small, dialect)
    if dialect == "grblhal":
        return  # power and gate are one output
    for before, first in itertools.pairwise(ran.moves):
        if first.gate and not before.gate:
            assert before.power_w == first.power_w > 0.0


def test_ramps_keep_the_energy_of_a_straight_bead():
    """Mean power over the ramps at nominal speed, as the plan's own segments have it."""
    from tests.unit.planning_cases import track

    plan = planned([track([(140, 146), (150, 146)])])
    for dialect in STEPPED:
        _, ran = run(plan, dialect)
        energy = sum(m.power_w * m.length_mm / m.speed_mm_s for m in ran.moves if m.gate)
        assert energy == pytest.approx(float(plan.tracks["energy_j"][0]), rel=2e-3)
        assert len({m.power_w for m in ran.moves if m.gate}) > 8


@pytest.mark.parametrize("dialect", STEPPED)
def test_steps_of_a_ramp_lie_where_the_plan_commands_them(dialect):
    """Along +X: the segments' own power at the middle of each block, source latency included."""
    from tests.unit.planning_cases import track

    plan = planned(
        [track([(140, 146), (150, 146)])],
        cell=(('power_latency = "3 ms"', 'power_latency = "25 ms"'),),
    )
    first, end = int(plan.tracks["first_segment"][0]), int(plan.tracks["end_segment"][0])
    x = np.cumsum(plan.segments["steps"][:, 0].astype(np.int64)) / 400.0
    told_w = plan.segments["end_power"] / 65535.0 * 1000.0
    lit = [m for m in run(plan, dialect)[1].moves if m.gate]
    for m in lit:
        middle = 0.5 * (m.start[0] + m.end[0])
        assert m.power_w == pytest.approx(
            float(np.interp(middle, x[first - 1 : end], told_w[first - 1 : end])), abs=6.0
        )
    assert lit[0].power_w > 150.0 + 0.25 / 0.8 * 450.0  # a ramp of 0.8 mm, sent 0.25 mm ahead


@pytest.mark.parametrize("dialect", DIALECTS)
def test_arcs_stay_arcs(dialect, arcs):
    _, ran = run(arcs, dialect)
    judge(arcs, dialect, ran, arcs=True)
    first, second = lit_runs(ran.moves)
    round_moves = [m for m in (*first, *second) if m.turn or m.via]
    if dialect in ("abb", "kuka"):
        assert {m in second for m in round_moves} == {True, False}
        for m in round_moves:
            centre = (146.0, 150.0) if m.end[0] <= 150.0 and m in first else (154.0, 152.0)
            if m in first:
                assert math.dist(m.via[:2], centre) == pytest.approx(4.0, abs=1.2e-3)
        return
    turns = [m.turn for m in first if m.turn]
    assert turns == sorted(turns, reverse=True)
    assert set(turns) == {1, -1}  # left, then right
    for m in round_moves:
        assert m in first
        centre = (146.0, 150.0) if m.turn > 0 else (154.0, 152.0)
        assert math.dist(m.centre, centre) < 1.5e-3
    length = sum(m.length_mm for m in first)
    assert length == pytest.approx(float(arcs.tracks["length_mm"][0]), abs=0.03)
    # the arc that leaves the plane of G17 is chords, each within half a micrometre of it
    near = [math.dist(m.end, m.start) for m in second]
    assert len(near) > 20
    assert sum(near) == pytest.approx(float(arcs.tracks["length_mm"][1]), abs=0.03)


def test_chords_of_an_arc_in_space_lie_on_its_circle(arcs):
    """Circle through three points, computed here."""
    p, q, r = (np.array(v) for v in ([143, 150, 11.55], [144.4, 150.7, 11.95], [145, 152, 12.05]))
    a, b = q - p, r - p
    n = np.cross(a, b)
    centre = p + np.cross((a @ a) * b - (b @ b) * a, n) / (2 * n @ n)
    radius = np.linalg.norm(p - centre)
    unit = n / np.linalg.norm(n)
    _, ran = run(arcs, "linuxcnc")
    lit = lit_runs(ran.moves)[1]
    ends = [np.array(m.end) for m in lit]
    inside = [e for e in ends if 143.0 < e[0] < 145.0 and 150.0 < e[1] < 152.0]
    assert len(inside) > 15
    for e in inside:
        assert abs((e - centre) @ unit) < 2e-4
        assert np.linalg.norm(e - centre) == pytest.approx(radius, abs=2e-4)
    middles = [0.5 * (u + v) for u, v in itertools.pairwise(inside)]
    assert max(radius - np.linalg.norm(m - centre) for m in middles) < 7e-4


@pytest.mark.parametrize("dialect", [d for d in DIALECTS if d != "grblhal"])
def test_powder_is_commanded_at_the_planned_time(dialect, small):
    """Each command lies where the plan's segments are at its time, in the order of the plan."""
    program, ran = run(small, dialect)
    assert len(ran.outputs) == len(small.timeline)
    names = ("hopper1", "hopper2", "carrier", "shield", "diverter")
    full = (20.0, 20.0, 30.0, 30.0, 1.0) if dialect == "kuka" else (1.0,) * 5
    ticks = small.segments["ticks_lo"].astype(np.int64) + (
        small.segments["ticks_hi"].astype(np.int64) << 16)  # fmt: skip
    begin_s = (np.cumsum(ticks) - ticks) * 1e-6
    for (line, name, value), row in zip(ran.outputs, small.timeline, strict=True):
        assert name == names[row["channel"]]
        assert value * full[row["channel"]] == pytest.approx(float(row["value"]), abs=6e-4)
        segment = int(program.segment_of_line[line])
        if segment < len(begin_s):
            assert begin_s[segment] <= row["t_s"] + 2e-3
            later = program.segment_of_line[line:]
            after = later[later > segment]
            if len(after) and after[0] < len(begin_s):
                assert row["t_s"] <= begin_s[after[0]] + 2e-3
    primed = sum(s for _, s in ran.dwells)
    assert primed == pytest.approx(small.meta["priming_dwell_s"], abs=2e-3)


def test_grblhal_leaves_powder_to_the_cell_and_waits_while_it_is_primed(small):
    program, ran = run(small, "grblhal")
    assert ran.outputs == []
    assert [s for _, s in ran.dwells] == [pytest.approx(small.meta["priming_dwell_s"], abs=1e-3)]
    assert "powder" in [n.name for n in program.notes]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_lines_know_segment_track_and_layer(dialect, small):
    program, ran = run(small, dialect)
    n = len(program.lines)
    for column in (program.segment_of_line, program.track_of_line, program.layer_of_line,
                   program.gate_of_line):  # fmt: skip
        assert column.shape == (n,)
    assert (np.diff(program.segment_of_line) >= 0).all()
    assert program.segment_of_line[0] == 0
    assert program.segment_of_line[-1] == len(small.segments)
    assert {m.line for m in ran.moves if m.gate} == set(np.flatnonzero(program.gate_of_line))
    for k, moves in enumerate(lit_runs(ran.moves)):
        row = small.tracks[k]
        for m in moves:
            assert program.track_of_line[m.line] == k
            assert program.layer_of_line[m.line] == row["layer"]
            assert row["first_segment"] <= program.segment_of_line[m.line] < row["end_segment"]
    told = [text for _, text in ran.remarks if text.startswith("TRACK ")]
    assert [int(t.split()[1]) for t in told] == list(range(len(small.tracks)))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_handshake_is_called_once_a_layer_with_the_gate_shut(dialect, small):
    program, ran = run(small, dialect, handshake=True)
    assert [layer for _, layer in ran.calls] == [0, 1]
    for line, layer in ran.calls:
        later = [m for m in ran.moves if m.line > line and m.gate]
        assert program.layer_of_line[later[0].line] == layer
        earlier = [m for m in ran.moves if m.line < line and m.gate]
        assert not earlier or program.layer_of_line[earlier[-1].line] == layer - 1
    assert run(small, dialect)[1].calls == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_without_comments_the_machine_does_the_same(dialect, small):
    bare, ran = run(small, dialect, comments=False)
    whole = run(small, dialect)[1]
    assert [text for line, text in ran.remarks if line > 1] == []  # the names stay
    assert len(bare.lines) < len(run(small, dialect)[0].lines)
    key = lambda m: (m.start, m.end, m.centre, m.via, m.speed_mm_s, m.gate, m.power_w)
    assert [key(m) for m in ran.moves] == [key(m) for m in whole.moves]


@pytest.mark.parametrize("dialect", ["linuxcnc", "grblhal", "siemens840d", "fanuc"])
def test_units_and_modes_are_stated_before_the_first_move(dialect, small):
    _, ran = run(small, dialect)
    assert {90.0, 17.0, 94.0, 54.0} <= ran.modal
    assert ran.modal & {21.0, 710.0}


def test_travel_over_grblhal_is_rapid_and_dark(small):
    """In G0 laser mode gives no light whatever S says."""
    _, ran = run(small, "grblhal")
    rapid = [m for m in ran.moves if m.speed_mm_s is None]
    assert len(rapid) >= len(small.tracks)
    assert not any(m.gate for m in rapid)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["blade.stl", "ring.stl"])
def test_whole_part_reads_back_in_every_dialect(part):
    from controller.session import prepare_plan
    from tests.unit.cli_bench import ROOT

    plan = prepare_plan(ROOT / "examples" / part)
    for dialect in DIALECTS:
        judge(plan, dialect, run(plan, dialect)[1])

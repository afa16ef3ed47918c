"""Programs as text: numbers, names, same bytes, what is refused and what is warned of."""

import dataclasses
import json
import re

import numpy as np
import pytest

from controller.errors import ConfigError, PlanError, RecordError
from controller.export import DIALECTS, program_of, write_program
from controller.export.program import fixed, legal_name
from controller.planning import read_job, write_job
from tests.unit import planning_cases as cases
from tests.unit.cli_bench import lmd, refused
from tests.unit.export_cases import arc_tracks, planned, run
from tests.unit.rotary_cases import plan as rotary_plan
from tests.unit.rotary_cases import wall

LONGEST = {
    "linuxcnc": 255,
    "grblhal": 80,
    "siemens840d": 242,
    "fanuc": 80,
    "abb": 250,
    "kuka": 140,
}


@pytest.fixture(scope="module")
def small():
    return planned()


@pytest.fixture(scope="module")
def job(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("job") / "small.lmdjob"
    write_job(small, path)
    return path


def test_numbers_have_fixed_decimals_and_no_negative_zero():
    assert fixed(1e-7, 4) == "0.0000"
    assert fixed(-4e-5, 4) == "0.0000"
    assert fixed(-0.0, 1) == "0.0"
    assert fixed(-10.00006, 4) == "-10.0001"
    assert fixed(123456789.0, 3) == "123456789.000"


def test_names_are_legal_whatever_the_part_is_called():
    assert legal_name("bracket-2 v1", 24) == "BRACKET_2_V1"
    assert legal_name("3d", 24) == "LMD_3D"
    assert legal_name("p", 24) == "LMD_P"
    assert legal_name("", 24) == "LMD_"
    assert legal_name("schöne schaufel", 24) == "SCH_NE_SCHAUFEL"
    assert legal_name("x" * 99, 24) == "X" * 24


@pytest.mark.parametrize("dialect", DIALECTS)
def test_text_is_ascii_without_exponents_within_line_length_and_the_same_each_time(dialect, small):
    program = program_of(small, dialect)
    assert program.text == program_of(small, dialect).text
    assert program.text.isascii()
    assert max(map(len, program.lines)) <= LONGEST[dialect]
    assert program.text.endswith(program.line_end)
    assert program.text.split(program.line_end)[:-1] == list(program.lines)
    moves = [
        line for line in program.lines if not line.startswith(("CONST robtarget", "!", ";", "("))
    ]
    assert not [m for m in moves if re.search(r"\d[eE][-+]?\d", m)]
    assert not re.search(r"-0\.0+\b", program.text)
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b|\d\d:\d\d", program.text)  # no date, no time


@pytest.mark.parametrize("dialect", DIALECTS)
def test_header_says_what_it_was_made_of(dialect, small):
    text = "\n".join(program_of(small, dialect).lines[:40]).lower()
    for said in (small.figures["hash"], "part p", "recipe 316l_general", "cell sim"):
        assert said in text
    assert "/" not in text.replace("g/min", "").replace("l/min", "").replace("mm/min", "").replace(
        "mm/s", "").replace("$path=/_n_mpf_dir", "")  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_not_carried_is_in_the_header_by_name(dialect, small):
    program = program_of(small, dialect)
    names = {note.name for note in program.notes}
    assert {"gate_guard", "latency", "ramps"} <= names
    assert ("power_floor" if dialect == "grblhal" else "power_law") in names
    for name in names:
        assert any(f"NOT CARRIED, {name.upper()}:" in line.upper() for line in program.lines[:45])


def test_notes_follow_the_plan():
    plan = planned(recipe=(('ramp_in = "0.8 mm"\nramp_out = "0.8 mm"',
                            'ramp_in = "0 mm"\nramp_out = "0 mm"'),))  # fmt: skip
    program, ran = run(plan, "linuxcnc")
    assert "ramps" not in {n.name for n in program.notes}
    assert {m.power_w for m in ran.moves if m.gate} == {600.0}
    law = planned(recipe=(('power_law = "linear"', 'power_law = "power"\npower_exponent = 2.0'),))
    assert "power_law" in {n.name for n in program_of(law, "grblhal").notes}


def test_left_out_ramps_tell_the_energy_that_they_cost():
    """A bead of 10 mm at 600 W, 10 mm/s is 600 J; two ramps of 0.8 mm from 150 W take 36 J."""
    plan = planned([cases.track([(140, 146), (150, 146)])])
    ramps = next(n for n in program_of(plan, "abb").notes if n.name == "ramps")
    assert "up to 6 % more energy than planned" in ramps.text  # 600 / 564


def test_energy_cap_holds_at_the_nominal_speed():
    plan = planned(recipe=(('power_law = "linear"', 'power_law = "linear"\n'
                            'energy_cap = "30 J/mm"'),))  # fmt: skip
    for dialect in ("linuxcnc", "fanuc"):
        _, ran = run(plan, dialect)
        assert max(m.power_w for m in ran.moves if m.speed_mm_s == 10.0 and m.gate) == 300.0


def test_s_scales_with_the_spindle_range(small):
    words = [float(w) for line in program_of(small, "grblhal", s_max=250.0).lines
             for w in re.findall(r"S(\d+\.\d)$", line)]  # fmt: skip
    assert max(words) == 150.0  # 600 of 1000 W


def test_unknown_dialect_is_refused_with_the_names_of_all(small):
    with pytest.raises(ConfigError, match="dialect 'heidenhain' is not known; there are: linuxcnc, "
                                          "grblhal, siemens840d, fanuc, abb, kuka"):  # fmt: skip
        program_of(small, "heidenhain")
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="s_max"):
            program_of(small, "grblhal", s_max=bad)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_rotary_plan_is_refused_by_axis_name(dialect):
    from controller.config import load_cell

    cell, text = load_cell("sim_ac")
    plan = rotary_plan([wall(n=12, turns=0.1)], cell, text)
    with pytest.raises(PlanError, match=rf"dialect '{dialect}' .* rotary axes A, C of cell"):
        program_of(plan, dialect)


def test_job_whose_path_comes_out_otherwise_is_refused(small):
    tracks = small.tracks.copy()
    tracks["start_s"][3] += 1e-4
    with pytest.raises(PlanError, match=r"track 3 comes out otherwise .* plan the part again"):
        program_of(dataclasses.replace(small, tracks=tracks), "linuxcnc")
    path = small.path_mm.copy()
    path[7, 0] += 0.01
    with pytest.raises(PlanError, match="cannot be made again"):
        program_of(dataclasses.replace(small, path_mm=path), "linuxcnc")
    slower = small.recipe_toml.replace('speed = "10 mm/s"', 'speed = "9 mm/s"')
    with pytest.raises(PlanError, match="cannot be made again"):
        program_of(dataclasses.replace(small, recipe_toml=slower), "linuxcnc")


def test_power_above_the_rated_one_is_refused(small):
    weak = small.cell_toml.replace('rated_power = "1000 W"', 'rated_power = "500 W"')
    with pytest.raises(PlanError, match=r"track 0: 600 W, above 500 W \(laser.rated_power"):
        program_of(dataclasses.replace(small, cell_toml=weak), "grblhal")


def test_arcs_live_in_the_job_file_and_damage_is_told(tmp_path):
    plan = planned(arc_tracks())
    write_job(plan, tmp_path / "a.lmdjob")
    again = read_job(tmp_path / "a.lmdjob")
    assert program_of(again, "linuxcnc").text == program_of(plan, "linuxcnc").text
    broken = dataclasses.replace(plan, meta={**plan.meta, "arcs": "AAAA"})
    with pytest.raises(PlanError, match="the job's arcs cannot be read"):
        program_of(broken, "linuxcnc")
    assert "arcs" not in cases.plan([cases.track([(140, 145), (141, 145)])]).meta


def test_fanuc_line_numbers_have_five_digits_and_start_again(small, monkeypatch):
    monkeypatch.setattr("controller.export.fanuc.MOST_LINES", 60)
    numbers = [int(m[1]) for line in program_of(small, "fanuc").lines
               if (m := re.match(r"N(\d+) ", line))]  # fmt: skip
    assert max(numbers) <= 60
    assert min(numbers) <= 3
    steps = np.diff(numbers) % 60
    assert (steps >= 1).all()


def test_line_numbers_are_the_places_in_the_file(small):
    for dialect in ("siemens840d", "fanuc"):
        for k, line in enumerate(program_of(small, dialect).lines, 1):
            found = re.match(r"N(\d+) ", line)
            assert found is None or int(found[1]) == k


def test_file_is_written_whole_or_not_at_all(small, tmp_path, monkeypatch):
    program = program_of(small, "kuka")
    target = tmp_path / "a.src"
    write_program(program, target)
    assert target.read_bytes() == program.text.encode("ascii")
    assert target.read_bytes().count(b"\r\n") == len(program.lines)
    target.write_bytes(b"old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RecordError, match=r"a.src: cannot be written \(No space left"):
        write_program(program, target)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.src"]


def test_command_writes_the_program_and_says_what_is_missing(job, capsys, tmp_path):
    out = tmp_path / "small.ngc"
    done = lmd(capsys, "export", job, "-o", out, "--dialect", "linuxcnc")
    assert done.code == 0
    assert f"{out}: LMD_P, " in done.out
    assert "warning power_law: " in done.out
    assert out.read_text() == program_of(read_job(job), "linuxcnc").text


def test_command_gives_one_json_object(job, capsys, tmp_path):
    out = tmp_path / "small.nc"
    done = lmd(capsys, "export", job, "-o", out, "--dialect", "grblhal", "--no-comments",
               "--s-max", "255", "--json")  # fmt: skip
    assert done.code == 0
    found = json.loads(done.out)
    assert found["dialect"] == "grblhal"
    assert found["lines"] == len(out.read_text().splitlines())
    assert {"gate_guard", "power_floor", "buffer"} <= {w["name"] for w in found["warnings"]}
    assert "(" not in out.read_text()


def test_command_refuses_in_one_sentence(job, capsys, tmp_path):
    out = tmp_path / "a.ngc"
    says = refused(capsys, tmp_path, "export", job, "-o", out, "--dialect", "klipper")
    assert "--dialect klipper: must be linuxcnc, grblhal, siemens840d, fanuc, abb or kuka" in says
    missing = tmp_path / "none.lmdjob"
    says = refused(capsys, tmp_path, "export", missing, "-o", out, "--dialect", "abb")
    assert "none.lmdjob: no such file" in says
    says = refused(capsys, tmp_path, "export", job, "-o", tmp_path, "--dialect", "abb")
    assert "is a folder" in says
    says = refused(capsys, tmp_path, "export", job, "-o", tmp_path / "no" / "a.mod",
                   "--dialect", "abb")  # fmt: skip
    assert "does not exist" in says
    says = refused(capsys, tmp_path, "export", job, "-o", tmp_path / "a.lmdjob",
                   "--dialect", "abb")  # fmt: skip
    assert "is the name of a job" in says
    says = refused(capsys, tmp_path, "export", job, "-o", out, "--dialect", "grblhal",
                   "--s-max", "0")  # fmt: skip
    assert "--s-max 0: must be above 0" in says
    bad = tmp_path / "bad.lmdjob"
    bad.write_bytes(job.read_bytes()[:-1] + b"x")
    says = refused(capsys, tmp_path, "export", bad, "-o", out, "--dialect", "abb", code=4)
    assert "bad.lmdjob" in says

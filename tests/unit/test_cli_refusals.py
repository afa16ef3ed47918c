"""Bad input: exit code 2, one sentence, no traceback, nothing written."""

import os
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.cli_bench import CONFIGS, ROOT, built, changed, files_below, lmd, part, refused


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with a part in it."""
    monkeypatch.chdir(tmp_path)
    part(tmp_path)
    return tmp_path


def _write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# --- the part ------------------------------------------------------------------------------

PARTS = {
    "missing.stl": (None, "missing.stl: no such file"),
    "empty.stl": (b"", "empty.stl: the file is empty"),
    "no_triangles.stl": (b"x" * 80 + struct.pack("<I", 0), "no triangles"),
    "no_facets.stl": ("solid a\nendsolid a\n", "no triangles"),
    "cut.stl": (b"x" * 80 + struct.pack("<I", 12) + b"\0" * 50, "12 triangles"),
    "part.xyz": ("hello", ".stl, .3mf, .step"),
    "program.gcode": ("G1 X0\n", "G-code is not read yet"),
    "program.NC": ("G1 X0\n", "G-code is not read yet"),
    "part.lmdjob": ("junk", "is a job, give the part"),
    "no_zip.3mf": ("PK not really", "not a 3MF file"),
}


@pytest.mark.parametrize("verb", ["run", "plan"])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_cannot_be_read_is_named(here, capsys, name, verb):
    data, said = PARTS[name]
    if data is not None:
        _write(here / name, data)
    words = [] if verb == "run" else ["-o", "job.lmdjob"]
    sentence = refused(capsys, here, verb, name, *words)
    assert sentence.startswith(f"{name}:")
    assert said in sentence


@pytest.mark.slow
def test_a_step_file_that_cannot_be_read_is_named(here, capsys):
    _write(here / "bad.step", (ROOT / "examples" / "blade.step").read_bytes()[:5000])
    assert "bad.step: not a readable STEP file" in refused(capsys, here, "run", "bad.step")


def test_a_3mf_that_was_cut_off_is_named(here, capsys):
    _write(here / "cut.3mf", (ROOT / "examples" / "blade.3mf").read_bytes()[:5000])
    assert "cut.3mf: not a 3MF file" in refused(capsys, here, "run", "cut.3mf")


def test_a_folder_is_no_part(here, capsys):
    (here / "folder.stl").mkdir()
    assert refused(capsys, here, "run", "folder.stl").startswith("folder.stl: is a folder")


def test_a_part_larger_than_the_cell_names_both_sizes(here, capsys):
    sentence = refused(capsys, here, "run", "box.stl", "--scale", "100")
    assert "600 mm" in sentence
    assert "200 mm" in sentence
    assert "cell 'sim'" in sentence


def test_a_part_smaller_than_a_bead_is_told_of_units(here, capsys):
    sentence = refused(capsys, here, "run", "box.stl", "--scale", "0.001")
    assert "smaller than one bead (1.6 mm)" in sentence
    assert "--units" in sentence


# --- recipe, cell, scenario ----------------------------------------------------------------

RECIPE = "recipes/316l_general.toml"
CELL = "cells/sim.toml"
CHANGES = {
    "another material": (RECIPE, 'material = "316L"', 'material = "Ti-6Al-4V"',
                         ["'Ti-6Al-4V'", "in no hopper of cell 'sim'", "316L, IN625"]),
    "unknown key": (RECIPE, 'material = "316L"', 'material = "316L"\nfoo = 3',
                    [".toml:5: foo: unknown key"]),
    "missing unit": (RECIPE, 'power = "', 'power = 400 #', ["400 has no unit", "W, kW"]),
    "above the laser": (RECIPE, 'power = "', 'power = "5 kW" #',
                        ["power 5000 W above 1000 W", "laser.rated_power"]),
    "no TOML": (RECIPE, 'material = "316L"', "material =", ["not valid TOML", "line 4"]),
    "cell with an unknown key": (CELL, "[laser]", "[laser]\nfoo = 3", ["laser.foo: unknown key"]),
    "cell with an unknown map": (CELL, '"feeder_fictitious"', '"nosuch"',
                                 ["map 'nosuch' is not known", "feeder_fictitious"]),
    "cell with an unknown driver": (CELL, '"feeder_map"', '"nosuch"',
                                    ["driver 'nosuch' is not known"]),
    "cell without ports": (CELL, "simulated = true", "simulated = false",
                           ["motion: port 'simulated'", "tcp://host:port"]),
    "powder of one alloy": (CELL, '{ powder = "316L"', '{ powder = "IN718"',
                            ["material '316L' is in no hopper", "IN718"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_with_a_mistake_is_named_with_the_mistake(here, capsys, name):
    source, old, new, said = CHANGES[name]
    path = changed(here, source, old, new)
    option = "--recipe" if source == RECIPE else "--cell"
    sentence = refused(capsys, here, "run", "box.stl", option, path, "--time", "real")
    for words in said:
        assert words in sentence
    if "powder" not in name:  # there the recipe is named
        assert path.name in sentence


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "nosuch"], "recipe 'nosuch' is not known; there are: 316l_general"),
        (["--recipe", "nosuch.toml"], "nosuch.toml: no such file"),
        (["--cell", "nosuch"], "cell 'nosuch' is not known; there are: sim"),
        (["--scenario", "nosuch"], "scenario 'nosuch' is not known; there are: "),
        (["--scenario", "./nosuch.toml"], "nosuch.toml: no such file"),
    ],
)
def test_what_is_not_known_is_told_with_what_there_is(here, capsys, words, said):
    assert refused(capsys, here, "run", "box.stl", *words).startswith(said)


def test_files_of_a_real_cell_are_not_simulated(here, capsys):
    cell = changed(here, CELL, "simulated = true", "simulated = false")
    for words in (["--time", "null"], ["--time", "virtual"], ["--scenario", "door"]):
        sentence = refused(capsys, here, "run", "box.stl", "--cell", cell, *words)
        assert " ".join(words) in sentence
        assert "is not simulated" in sentence


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["null", "virtual"])
def test_a_scenario_with_a_wrong_key_is_refused_by_the_simulator(here, capsys, mode):
    path = changed(here, "scenarios/door.toml", "[[fault]]", "[[fault]]\nwrong = 3")
    sentence = refused(capsys, here, "run", "box.stl", "--scenario", path, "--time", mode)
    assert path.name in sentence
    assert "wrong: unknown key" in sentence


# --- options -------------------------------------------------------------------------------

OPTIONS = [
    (["--time", "nonsense"], "--time nonsense: must be real, virtual or null"),
    (["--mode", "nonsense"], "--mode nonsense: must be production, development or maintenance"),
    (["--units", "km"], "--units km: must be mm, inch or m"),
    (["--seed", "-1"], "--seed -1: must be a whole number from 0 to 2^63 - 1"),
    (["--seed", str(1 << 63)], "must be a whole number from 0 to 2^63 - 1"),
    (["--seed", "x"], "--seed x: must be a whole number"),
    (["--scale", "0"], "--scale 0: must be above 0 and at most 1000000"),
    (["--scale", "-1"], "--scale -1: must be above 0"),
    (["--scale", "nan"], "--scale nan: must be above 0"),
    (["--scale", "inf"], "--scale inf: must be above 0"),
    (["--scale=abc"], "--scale abc: must be a number"),
    (["--rotate", "nonsense"], "--rotate nonsense: must be three angles in degrees, as 90,0,0"),
    (["--rotate", "1,2"], "--rotate 1,2: must be three angles"),
    (["--rotate", "nan,0,0"], "--rotate nan,0,0: must be three angles"),
    (["--foo"], "No such option: --foo"),
    (["second.stl"], "second.stl"),
]


@pytest.mark.parametrize(("words", "said"), OPTIONS, ids=[" ".join(o[0]) for o in OPTIONS])
def test_a_wrong_option_is_named_with_its_value(here, capsys, words, said):
    assert said in refused(capsys, here, "run", "box.stl", *words)


def test_units_of_a_file_that_has_its_own_are_refused(here, capsys):
    sentence = refused(capsys, here, "run", ROOT / "examples" / "rib.3mf", "--units", "mm")
    assert "carries its own unit" in sentence


def test_an_unknown_verb_is_named(here, capsys):
    assert "nosuch" in refused(capsys, here, "nosuch")
    assert "nosuch" in refused(capsys, here, "record", "nosuch")


# --- where the record goes -----------------------------------------------------------------


def test_out_that_is_a_file_is_refused(here, capsys):
    (here / "file").write_text("")
    for out in ("file", "file/below"):
        assert "file is not a folder" in refused(capsys, here, "run", "box.stl", "--out", out)


def test_no_room_is_told_before_anything_is_made(here, capsys, monkeypatch):
    full = SimpleNamespace(f_bavail=1000, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    sentence = refused(capsys, here, "run", "box.stl", "--out", "new/records")
    assert sentence.startswith("new/records: 4 MB free")
    assert "MB needed" in sentence


def test_no_room_for_the_whole_build_is_told_after_planning(here, capsys, monkeypatch):
    from controller.record.writer import OTHER_BYTES

    just_short = SimpleNamespace(f_bavail=OTHER_BYTES + 1000, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: just_short)
    sentence = refused(capsys, here, "run", "box.stl", "--out", "records")
    assert "needed for a record of 3" in sentence  # some thirty seconds


def test_out_that_may_not_be_written_is_refused(here, capsys):
    (here / "closed").mkdir(mode=0o500)
    if os.access(here / "closed", os.W_OK):  # the superuser may write anywhere but here
        (here / "closed").chmod(0o700)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(here / "closed")],
            capture_output=True,
            check=False,
        )
        if made.returncode != 0:
            pytest.skip("the superuser may write anywhere, and no file system may be mounted")
    try:
        assert "may not be written" in refused(capsys, here, "run", "box.stl", "--out", "closed/a")
    finally:
        subprocess.run(["umount", str(here / "closed")], capture_output=True, check=False)


# --- plan, show, check ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("job", "-o job: the name must end in .lmdjob"),
        ("folder.lmdjob", "-o folder.lmdjob: is a folder"),
        ("nowhere/a.lmdjob", "-o nowhere/a.lmdjob: folder nowhere does not exist"),
    ],
)
def test_a_job_needs_a_place_and_a_name(here, capsys, out, said):
    (here / "folder.lmdjob").mkdir()
    assert refused(capsys, here, "plan", "box.stl", "-o", out).startswith(said)
    assert "'-o'" in refused(capsys, here, "plan", "box.stl")


def test_a_failing_plan_leaves_the_old_job_alone(here, capsys):
    (here / "old.lmdjob").write_text("as it was")
    refused(capsys, here, "plan", "box.stl", "-o", "old.lmdjob", "--scale", "100")
    assert (here / "old.lmdjob").read_text() == "as it was"


@pytest.fixture(scope="module")
def job():
    """The job of a build."""
    _, done = built()
    return f"{done.json['record']}/job.lmdjob"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "a.jpg"], "-o a.jpg: the name must end in .png"),
        (["-o", "nowhere/a.png"], "folder nowhere does not exist"),
        (["-o", "a.png", "--colour", "pink"], "'pink' is not one of power"),
        (["-o", "a.png", "--track", "1"], "--track 1: goes with --quality only"),
        (["-o", "a.png", "--quality", "--layer", "1"], "takes neither --layer nor --colour"),
        (["-o", "a.png", "--quality", "--track", "999"], "track 999 is not in the job"),
        (["-o", "a.png", "--layer", "99"], "layer 99 is not in the job, it has layers 0 to 3"),
    ],
)
def test_a_picture_that_cannot_be_made_is_refused(here, capsys, job, words, said):
    assert said in refused(capsys, here, "show", job, *words)


def test_show_wants_a_job(here, capsys):
    assert "no such file" in refused(capsys, here, "show", "a.lmdjob", "-o", "a.png")
    assert "is no job" in refused(capsys, here, "show", "box.stl", "-o", "a.png")


@pytest.mark.slow
def test_a_damaged_job_fails_verification(here, capsys, job):
    data = bytearray(Path(job).read_bytes())
    data[len(data) // 2] ^= 1
    _write(here / "damaged.lmdjob", bytes(data))
    words = ["show", "damaged.lmdjob", "-o", "a.png"]
    assert "damaged.lmdjob: " in refused(capsys, here, *words, code=4)
    done = lmd(capsys, "check", "damaged.lmdjob", "--json")
    assert done.code == 4
    assert done.json["ok"] is False
    assert not (here / "a.png").exists()


def test_check_tells_every_mistake_of_every_file(here, capsys):
    first = changed(here, RECIPE, 'material = "316L"', 'material = "316L"\nfoo = 3')
    done = lmd(capsys, "check", first, "nosuch.toml", CONFIGS / CELL, "box.stl", here, "--json")
    assert done.code == 2
    found = done.json
    assert [item["ok"] for item in found["files"]] == [False, False, True, False, False]
    assert done.err.count("\n") == 1
    for said in ("foo: unknown key", "nosuch.toml: no such file", "box.stl: neither", "a folder"):
        assert said in done.err


def test_check_looks_for_what_a_cell_names(here, capsys):
    for old, new in (('"feeder_fictitious"', '"nosuch"'), ('"316l_general"', '"nosuch"')):
        path = changed(here, CELL, old, new)
        done = lmd(capsys, "check", path)
        assert done.code == 2
        assert f"{path}: " in done.err
        assert "'nosuch' is not known" in done.err


@pytest.mark.slow
def test_check_finds_every_file_of_the_program_in_order(here, capsys):
    files = sorted(CONFIGS.glob("*/*.toml"))
    files = [f for f in files if f.parent.name != "scenarios"] + [CONFIGS / "scenarios/door.toml"]
    done = lmd(capsys, "check", *files, "--json")
    assert done.code == 0
    assert {item["kind"] for item in done.json["files"]} == {
        "cell", "material", "recipe", "map", "scenario", "camera",
    }  # fmt: skip


# --- records and devices -------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["verify", "info", "report"])
def test_nothing_is_no_record(here, capsys, verb):
    assert refused(capsys, here, "record", verb, "nothing") == "nothing: no such folder"
    assert "holds no record.mcap" in refused(capsys, here, "record", verb, ".")
    assert "is a file" in refused(capsys, here, "record", verb, "box.stl")


@pytest.mark.slow
def test_export_knows_two_formats(here, capsys):
    _, done = built()
    words = ["record", "export", done.json["record"], "-o", "t", "--format", "xls"]
    assert refused(capsys, here, *words) == "--format xls: must be csv or parquet"


@pytest.mark.parametrize("verb", [["devices", "probe"], ["devices", "watch"], ["serve"]])
def test_without_a_simulator_the_command_that_starts_one_is_told(here, capsys, verb):
    sentence = refused(capsys, here, *verb)
    assert sentence.endswith("no simulator runs here; start one first: lmd sim")
    assert "no such file" in refused(capsys, here, *verb, "--simulator", "nosuch")
    assert "is no ready line" in refused(capsys, here, *verb, "--simulator", "box.stl")


def test_a_simulator_that_was_killed_is_told_from_one_that_runs(here, capsys):
    gone = subprocess.Popen(["true"])
    gone.wait()
    (here / "run" / "sim").mkdir(parents=True)
    (here / "run" / "sim" / "simulator.json").write_text(f'{{"pid": {gone.pid}, "channels": []}}')
    assert f"(process {gone.pid}) is gone" in refused(capsys, here, "devices", "probe")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["devices", "watch", "--rounds", "0"], "--rounds 0: must be 1 to 100000"),
        (["devices", "probe", "--seconds", "nan"], "--seconds nan: must be above 0"),
        (["devices", "list", "--cell", "nosuch"], "cell 'nosuch' is not known"),
        (["serve", "--time", "nonsense"], "--time nonsense: must be real, virtual or null"),
        (["serve", "--time", "null", "--seed", "-1"], "--seed -1: must be a whole number"),
        (["serve", "--time", "null", "--scenario", "nosuch"], "scenario 'nosuch' is not known"),
        (["serve", "--scenario", "door"], "--scenario door: goes to lmd sim"),
        (["sim", "--time", "null"], "--time null: must be real or virtual"),
        (["sim", "--seed", "-1"], "--seed -1: must be a whole number"),
        (["sim", "--scenario", "nosuch"], "scenario 'nosuch' is not known"),
        (["sim", "--out", "box.stl"], "box.stl: is a file, a folder is wanted"),
    ],
)
def test_servers_refuse_before_they_make_a_folder(here, capsys, words, said):
    assert said in refused(capsys, here, *words)
    assert files_below(here) == {"box.stl"}


def test_a_real_cell_has_no_simulator(here, capsys):
    cell = changed(here, CELL, "simulated = true", "simulated = false")
    assert "is not simulated" in refused(capsys, here, "sim", "--cell", cell)
    assert "is not simulated" in refused(capsys, here, "serve", "--cell", cell, "--time", "null")


def test_an_unknown_time_law_is_refused(here, capsys):
    said = refused(capsys, here, "plan", "box.stl", "-o", "a.lmdjob", "--law", "sine")
    assert "--law sine: must be trapezoid, friction_circle or jerk" in said

"""The example parts: sound, in mm, the same bytes every time, of the wanted length."""

import ctypes
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from controller.geometry import (
    coverage_notes,
    load_part,
    make_tracks,
    part_figures,
    place_part,
    slice_part,
)
from controller.geometry.polygons import length
from tests.unit.geometry_parts import recipe, sim_cell

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "make_parts.py"
NAMES = ("blade", "ring", "rib")


def script():
    spec = importlib.util.spec_from_file_location("make_parts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """STL and 3MF as they come without the extra ``step``."""
    folder = tmp_path_factory.mktemp("examples")
    module = script()

    def missing(name):
        raise ImportError(name)

    module.step_shape = missing
    files = module.write_parts(folder)
    assert [f.name for f in files] == [f"{n}.{s}" for n in NAMES for s in ("stl", "3mf")]
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_mesh_files_are_closed_in_mm_and_agree(made, name):
    stl = load_part(made / f"{name}.stl")
    packed = load_part(made / f"{name}.3mf")
    assert stl.notes == packed.notes == ()
    assert packed.units == "mm"
    assert packed.solids == (name,)
    assert len(stl.faces) == len(packed.faces)
    assert packed.volume_mm3 == pytest.approx(stl.volume_mm3, rel=1e-6)
    extents = {"blade": (18, 7, 23.75), "ring": (16, 16, 11.65), "rib": (18, 9, 14.85)}[name]
    assert np.ptp(stl.vertices_mm, axis=0) == pytest.approx(extents, abs=0.02)
    # rib: two plates and the web's trapezoid, by hand
    volumes = {"blade": 567.3, "ring": 662.25, "rib": 18 * 9 * 1.65 + 1.65 * 9 * 13.2
               + 0.5 * (13 - 1.65) * (12.1 - 1.65) * 1.6}  # fmt: skip
    assert stl.volume_mm3 == pytest.approx(volumes[name], rel=1e-3)


def test_the_same_call_gives_the_same_bytes(made, tmp_path):
    module = script()
    module.step_shape = lambda name: (_ for _ in ()).throw(ImportError(name))
    for path in module.write_parts(tmp_path):
        assert path.read_bytes() == (made / path.name).read_bytes()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_aerofoil_is_naca_4412_twisted_and_tapered():
    section = script().naca_section(60)
    # NACA report 460: thickness 12 %, camber 4 % at 40 %; ordinates of 4412 at x = 0.4
    upper = section[: len(section) // 2 + 1]
    lower = section[len(section) // 2 :]
    at_upper = np.interp(0.4, upper[::-1, 0], upper[::-1, 1])
    at_lower = np.interp(0.4, lower[:, 0], lower[:, 1])
    assert at_upper == pytest.approx(0.0980, abs=0.0005)
    assert at_lower == pytest.approx(-0.0180, abs=0.0005)
    assert np.ptp(section[:, 0]) == pytest.approx(1.0, abs=0.003)
    root, tip = script().blade_section(0.0), script().blade_section(1.0)
    chord = [np.linalg.norm((s[0] + s[-1]) / 2 - s[len(s) // 2]) for s in (root, tip)]
    assert chord == pytest.approx([16, 12], rel=0.01)
    heading = [np.arctan2(*((s[0] + s[-1]) / 2 - s[len(s) // 2])[::-1]) for s in (root, tip)]
    assert np.degrees(heading[1] - heading[0]) == pytest.approx(30, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parts_take_the_wanted_path_and_get_their_volume(made, name):
    r, cell = recipe(), sim_cell()
    mesh = place_part(load_part(made / f"{name}.stl"), cell, bead_width_mm=1.6)
    layers = slice_part(mesh, r, cell)
    tracks = make_tracks(layers, r)
    figures = part_figures(mesh, layers, tracks, r)
    assert figures["deposit_volume_mm3"] == pytest.approx(figures["target_volume_mm3"], rel=0.005)
    assert coverage_notes(layers, tracks, r) == ()
    path_mm = sum(length(t.points_mm) for t in tracks)
    assert 2300 < path_mm < 3500
    assert path_mm / len(tracks) > 15  # few, long tracks: emission must outweigh the rest
    assert all(len(s.regions) == 1 for s in layers)


@pytest.mark.slow
def test_step_files_are_the_same_parts(tmp_path, monkeypatch, made):
    pytest.importorskip("OCP", reason="the extra 'step' is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = script()
    for folder in ("a", "b"):
        module.write_parts(tmp_path / folder)
    for name in NAMES:
        assert (tmp_path / "a" / f"{name}.step").read_bytes() == (
            tmp_path / "b" / f"{name}.step"
        ).read_bytes()
        exact = load_part(tmp_path / "a" / f"{name}.step")
        mesh = load_part(made / f"{name}.stl")
        assert exact.volume_mm3 == pytest.approx(mesh.volume_mm3, rel=1e-3)
        assert np.ptp(exact.vertices_mm, axis=0) == pytest.approx(
            np.ptp(mesh.vertices_mm, axis=0), abs=0.02
        )
        assert exact.solids == (name,)


def test_native_chatter_stays_inside_and_our_lines_come_out(capfd):
    libc = ctypes.CDLL(None)
    with script().silence():
        os.write(1, b"transfer statistics\n")
        os.write(2, b"warning\n")
        libc.puts(b"late, from a C buffer")
    print("ours", flush=True)
    libc.fflush(None)
    assert capfd.readouterr() == ("ours\n", "")


def test_descriptors_come_back_after_a_failure(capfd):
    with pytest.raises(ValueError, match="told"), script().silence():
        raise ValueError("told")
    os.write(1, b"ours\n")
    assert capfd.readouterr().out == "ours\n"


@pytest.mark.slow
def test_script_prints_its_own_lines_and_no_path_of_the_machine(tmp_path):
    pytest.importorskip("OCP")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(tmp_path)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    files = [f"{n}.{s}" for n in NAMES for s in ("stl", "3mf", "step")]
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert [line.split()[0] for line in lines[:9]] == files
    assert all(re.fullmatch(r"\S+  \d+ bytes", line) for line in lines[:9])
    assert [line.split(":")[0] for line in lines[9:]] == list(NAMES)

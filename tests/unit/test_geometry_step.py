"""STEP through OCP: a process with limits, exact volume, names, a cache."""

import numpy as np
import pytest

from controller.errors import GeometryError
from controller.geometry import load_part, step
from tests.unit.geometry_parts import shared_part

pytest.importorskip("OCP", reason="the extra 'step' is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lmd" / "step"


@pytest.mark.parametrize(
    ("name", "solids", "extents", "volume"),
    [
        ("featuretype.STEP", ("featuretype",), [127, 63.5, 34.925], 190_448),
        ("nist_am_artifact_v3b.step", None, [141.421, 141.421, 17.0], 100_987),
    ],
)
def test_shared_step_files(name, solids, extents, volume):
    part = load_part(shared_part(name))
    assert np.ptp(part.vertices_mm, axis=0) == pytest.approx(extents, abs=0.02)
    assert part.volume_mm3 == pytest.approx(volume, rel=1e-4)
    share = float(part.notes[0].split("differs by ")[1].split(" %")[0])
    assert share <= 0.05
    assert solids is None or part.solids == solids


def test_assembly_keeps_its_solids_and_names_and_the_cache_is_used(own_cache, monkeypatch):
    path = shared_part("as1-oc-214.stp")
    part = load_part(path)
    assert len(part.solids) == 18
    assert part.solids.count("nut") == 8
    assert part.solids.count("bolt") == 6
    assert part.solids.count("l-bracket") == 2
    assert len(list(own_cache.iterdir())) == 1
    monkeypatch.setattr(step, "_run_worker", lambda *_: pytest.fail("the cache was not used"))
    again = load_part(path)
    assert np.array_equal(part.vertices_mm, again.vertices_mm)
    assert np.array_equal(part.faces, again.faces)


def test_damaged_cache_is_read_anew(own_cache, tmp_path, monkeypatch):
    source = tmp_path / "any.step"
    source.write_bytes(b"any")
    calls = []

    def worker(path, target):
        calls.append(path)
        with open(target, "wb") as out:
            np.savez(out, vertices=np.eye(4, 3), faces=np.array([[0, 1, 2]], np.int32),
                     names=np.array(["a"]), volume_mm3=1.0)  # fmt: skip

    monkeypatch.setattr(step, "_run_worker", worker)
    step.read_step(source, "00")
    step.read_step(source, "00")
    assert len(calls) == 1
    (kept,) = own_cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:40])
    assert step.read_step(source, "00")[2] == ("a",)
    assert len(calls) == 2


@pytest.mark.parametrize("text", ["junk\n", "ISO-10303-21;\nHEADER;\nENDSEC;\n"])
def test_unreadable_step_is_refused(tmp_path, text):
    path = tmp_path / "bad.step"
    path.write_text(text)
    with pytest.raises(GeometryError) as caught:
        load_part(path)
    assert "bad.step" in str(caught.value)
    assert "export the part again" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_reading_that_does_not_end_is_ended(tmp_path, monkeypatch):
    path = tmp_path / "slow.step"
    path.write_text("junk")
    monkeypatch.setattr(step, "WALL_S", 0.01)
    with pytest.raises(GeometryError, match=r"slow\.step: reading took longer than 0\.01 s"):
        load_part(path)


def test_units_option_is_refused(tmp_path):
    path = tmp_path / "a.stp"
    path.write_text("junk")
    with pytest.raises(GeometryError, match="carries its own unit"):
        load_part(path, units="m")

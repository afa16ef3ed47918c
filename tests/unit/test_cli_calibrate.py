"""lmd calibrate, maintenance, cell new: words, files and exit codes."""

import json

import pytest

from controller.cli import _run
from controller.config import load_cell
from controller.device_limits import odd, summary


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("LMD_CALIBRATIONS", str(tmp_path / "cal"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def test_readings_of_a_file_are_fitted_signed_and_listed(tmp_path, capsys):
    rows = "\n".join(f"{h},{h + 12.0 + 0.001 * (h % 2)}" for h in (5, 10, 15, 20))
    (tmp_path / "blocks.csv").write_text("block_mm,touch_z_mm\n" + rows)
    words = ["calibrate", "standoff", "--readings", "blocks.csv", "--by", "Ann", "--json"]
    assert _run(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["values"]["zero_mm"] == pytest.approx(12.0, abs=0.01)
    assert said["by"] == "Ann"
    assert said["due"] > said["done_at"] > "2020"
    assert _run(["calibrate", "list", "--json"]) == 0
    listed = {c["kind"]: c for c in json.loads(capsys.readouterr().out)["calibrations"]}
    assert listed["standoff"]["counts"]
    assert not listed["power"]["counts"]
    assert _run(["maintenance", "nozzle"]) == 0
    assert "standoff" in capsys.readouterr().out
    assert _run(["calibrate", "list"]) == 0
    assert "is void: nozzle changed" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["calibrate", "nozzle"], "none of feeder, delay"),
        (["calibrate", "feeder"], "give --item, one of hopper1, hopper2"),
        (["calibrate", "feeder", "--item", "hopper3"], "--item hopper3"),
        (["calibrate", "rotary"], "has nothing to calibrate"),
        (["calibrate", "focus", "--readings", "no.csv"], "no such file"),
        (["calibrate", "focus", "--readings", "bad.csv"], "first line must be z_mm,diameter_mm"),
        (["calibrate", "standoff", "--readings", "wild.csv"], "above the tolerance"),
        (["maintenance", "nozle"], "none of nozzle"),
        (["cell", "new", "-o", "a.txt"], "must end in .toml"),
        (["cell", "new", "-o", "a.toml", "--answers", "no.toml"], "no such file"),
        (["cell", "new", "-o", "a.toml", "--answers", "key.toml"], "laser.colour is none of"),
        (["cell", "new", "-o", "a.toml", "--answers", "unit.toml"], "rated_power"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_sentence_and_write_nothing(tmp_path, capsys, words, said):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "wild.csv").write_text("block_mm,touch_z_mm\n5,17\n10,25\n15,24\n")
    (tmp_path / "key.toml").write_text('laser.colour = "red"\n')
    (tmp_path / "unit.toml").write_text('laser.rated_power = "2"\n')
    assert _run(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("cal/**/*.toml"))
    assert not list(tmp_path.glob("a*"))


def test_wizard_writes_a_cell_that_holds_the_answers(tmp_path, capsys):
    (tmp_path / "answers.toml").write_text(
        'name = "hall2"\n[laser]\nrated_power = "2 kW"\n[powder]\ntransport_delay = "4.1 s"\n'
    )
    assert _run(["cell", "new", "-o", "hall2.toml", "--answers", "answers.toml"]) == 0
    cell, _ = load_cell("hall2.toml")
    assert (cell.name, cell.laser.rated_power_w) == ("hall2", 2000.0)
    assert cell.powder.transport_delay_s == 4.1
    capsys.readouterr()
    assert _run(["cell", "new", "-o", "hall2.toml", "--answers", "answers.toml"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_what_is_out_of_limits_is_named():
    cell = load_cell("sim")[0]
    assert odd(cell, "chiller", {"coolant_deg_c": 22.0, "flow_ok": True}) == []
    assert odd(cell, "chiller", {"coolant_deg_c": 29.0, "flow_ok": False}) == [
        "coolant_deg_c 29.0 is not 19 to 27",
        "flow_ok is false",
    ]
    assert odd(cell, "powder", {"flow_measured_g_min": (1.0, float("nan"))})
    base = {"role": "gas", "driver": "x", "error": "", "answers": True,
            "reading": {"shield_l_min": 1.0}}  # fmt: skip
    silent = {**base, "answers": False, "error": "no answer in 3 s", "reading": None}
    assert summary(cell, [[base], [base]])[0]["passed"]
    assert not summary(cell, [[base], [silent]])[0]["passed"]

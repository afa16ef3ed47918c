"""The simulator's own reader of cell files."""

import zlib
from pathlib import Path

import pytest

from hil_sim.cellfile import CellFileError, config_blob, load, quantity

CELL = Path(__file__).resolve().parents[2] / "configs" / "cells" / "sim.toml"


def changed(folder: Path, old: str, new: str) -> Path:
    text = CELL.read_text()
    assert old in text
    path = folder / "cell.toml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_simulated_cell_is_read_in_the_units_of_the_attributes():
    cell = load(CELL)
    assert [a.name for a in cell.axes] == ["X", "Y", "Z"]
    assert cell.steps_per_mm == [400.0, 400.0, 400.0, 0.0, 0.0, 0.0]
    assert (cell.rated_power_w, cell.threshold_power_w) == (1000.0, 40.0)
    assert (cell.power_latency_us, cell.gate_latency_us, cell.gate_jitter_us) == (3000, 100, 20)
    assert cell.hoppers[0].powder == "316L"
    assert cell.hoppers[0].mass_g == 5000.0
    assert cell.transport_delay_s == 3.2
    assert not cell.inert_chamber


def test_configuration_blob_is_that_of_the_protocol_page():
    # the example of docs/protocol.md, section 10
    expected = bytes.fromhex(
        "020003006400" "6666c0270900204e0000" "80841e00" "00000000"
        "801a060080bb000000350c0000000000c0d40100" "0000000000000000"
        "801a060080bb000000350c0000000000c0d40100" "0000000000000000"
        "801a0600803e0000400d030000000000a0860100" "0000000000000000"
    )  # fmt: skip
    blob = config_blob(load(CELL))
    assert blob == expected
    assert zlib.crc32(blob) == 0xAF1A1C3E


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("600 W", "power_w", 600.0),
        ("0.6 kW", "power_w", 600.0),
        ("1kW", "power_w", 1000.0),
        ("300 K", "temp_deg_c", 26.85),
        ("2 inch", "length_mm", 50.8),
        ("1.2e3 mm/min", "speed_mm_s", 20.0),
        ("-5 degC", "temp_deg_c", -5.0),
    ],
)
def test_quantities_have_a_number_and_a_unit(text, kind, value):
    assert quantity(text, kind) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", [600, 600.0, True, "600", "W", "600 mm", "9**9 W", "nan W", "1e999 W", "1 W W", "--1 W"]
)
def test_anything_else_is_no_power(text):
    with pytest.raises(ValueError, match=r"."):
        quantity(text, "power_w")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('rated_power = "1000 W"', 'rated_power = "1000"', "laser.rated_power"),
        ('rated_power = "1000 W"', "", "laser.rated_power: is missing"),
        ('rated_power = "1000 W"', 'rated_power = "0 W"', "not above 0"),
        ('lag = "0.6 s"', 'lag = "-1 s"', "powder.lag"),
        ('name = "Z"', 'name = "W"', "motion.axes"),
        ('range = ["0 mm", "250 mm"]', 'range = ["9 mm", "1 mm"]', "motion.axes.2.range"),
        ("plan_share = 0.8", "plan_share = 2", "motion.plan_share"),
        ("resolution_bits = 12", "resolution_bits = 99", "laser.resolution_bits"),
        ('heartbeat_timeout = "100 ms"', 'heartbeat_timeout = "100 s"', "firmware's config"),
    ],
)
def test_complaint_is_one_sentence_with_file_and_key(tmp_path, old, new, named):
    path = changed(tmp_path, old, new)
    with pytest.raises(CellFileError) as caught:
        config_blob(load(path))
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_bad_toml_are_named(tmp_path):
    with pytest.raises(CellFileError, match=r"none\.toml: no such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(CellFileError, match=r"bad\.toml: not valid TOML"):
        load(tmp_path / "bad.toml")


def test_alloy_with_an_oxygen_limit_means_a_purged_chamber(tmp_path):
    path = changed(tmp_path, 'powder = "316L"', 'powder = "Ti-6Al-4V"')
    assert load(path).inert_chamber


def test_host_and_simulator_agree_on_switches_encoder_and_inputs(tmp_path):
    """Two builders of the blob, one file: with other bytes no arming would be possible."""
    from controller.config import load_cell
    from controller.machine.cell import link_settings

    text = CELL.read_text()
    for old, new in (
        ('kinematics = "xyz"', 'kinematics = "xyz"\nlimit_switches = ["X-", "Z+"]\n'
         "probe_input = true\nfollowing_error_input = true"),
        ('name = "Y"', 'name = "Y"\nencoder = "200 1/mm"\nlost_steps = 20'),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "wired.toml"
    path.write_text(text)
    blob = config_blob(load(path))
    assert link_settings(load_cell(str(path))[0]).config_blob() == blob
    assert blob != config_blob(load(CELL))
    assert blob[3] == 3  # following error and probe
    # bit k: low end of axis k in use, bit 8 + k: high end
    assert int.from_bytes(blob[20:22], "little") == 1 | 1 << 10

"""Registers as declarations, and the map files read from TOML."""

import math
import random
from importlib import resources
from pathlib import Path

import pytest

from firmware_bridge.errors import BridgeError, DeviceError, MapError
from firmware_bridge.register_map import load_map, parse_map
from firmware_bridge.registers import KEEP, Block, Reading, Setting, declarations, place

MAPS = Path(str(resources.files("configs"))) / "maps"
FEEDER = (MAPS / "feeder_fictitious.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "words", "value"),
    [
        ("u16", [0xFFFE], 65534),
        ("i16", [0xFFFE], -2),
        ("u32", [0x0001, 0x0002], 65538),
        ("i32", [0xFFFF, 0xFFFE], -2),
        ("f32", [0x41A4, 0x7AE1], 20.56),  # the OXY5500 manual's example
        ("u32_low", [0x0002, 0x0001], 65538),
        ("i32_low", [0xFFFE, 0xFFFF], -2),
        ("f32_low", [0x7AE1, 0x41A4], 20.56),
    ],
)
def test_kinds_decode_and_encode(kind, words, value):
    padded = [7, *words, 9]
    assert Reading(0, kind).decoder(1)(padded) == pytest.approx(value, rel=1e-7)
    setting = Setting(0, kind, limits=(-1e6, 1e6), safe=KEEP)
    assert setting.encode(value) == words


def test_scale_gives_the_decimal_number_meant():
    assert Reading(0, scale=0.1).decoder(0)([267]) == 26.7
    assert Reading(0, scale=0.01, offset=-50.0).decoder(0)([5025]) == 0.25
    assert Reading(0, scale=2.5).decoder(0)([4]) == 10.0


def test_bits_are_flags():
    assert Reading(0, bit=15).decoder(0)([0x8000]) is True
    assert Reading(0, bit=14).decoder(0)([0x8000]) is False


def test_held_bit_refuses_the_other_state():
    reading = Reading(0, bit=3, must=False)
    reading.name = "is_psi"
    assert reading.decoder(0)([0xFFF7]) is False
    with pytest.raises(DeviceError, match="is_psi is True"):
        reading.decoder(0)([8])


@pytest.mark.parametrize("words", [[0x7FC0, 0], [0x7F80, 0], [0xFF80, 0], [0x42CA, 0]])
def test_bounds_refuse_nan_infinity_and_what_lies_outside(words):
    with pytest.raises(DeviceError, match="is outside 0 to 100"):
        Reading(0, "f32", bounds=(0.0, 100.0)).decoder(0)(words)


@pytest.mark.parametrize("value", [-0.1, 40.1, math.nan, math.inf, -math.inf])
def test_setting_refuses_what_is_outside_its_limits(value):
    with pytest.raises(DeviceError, match="outside 0 to 40"):
        Setting(0, scale=0.1, limits=(0.0, 40.0), safe=KEEP).encode(value)


def test_setting_rounds_to_the_nearest_step():
    assert Setting(0, scale=0.01, limits=(0.0, 10.0), safe=0).encode(2.996) == [300]


def test_setting_that_does_not_fit_its_code_is_refused():
    with pytest.raises(DeviceError, match="does not fit u16"):
        Setting(0, limits=(0.0, 1e6), safe=0).encode(70_000)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reading(-1),
        lambda: Reading(65536),
        lambda: Reading(65535, "f32"),
        lambda: Reading(0, "f64"),
        lambda: Reading(0, bit=16),
        lambda: Reading(0, "u32", bit=3),
        lambda: Reading(0, scale=0.0),
        lambda: Reading(0, scale=math.nan),
        lambda: Reading(0, must=True),
        lambda: Setting(0, limits=(1, 1), safe=1),
        lambda: Setting(0, limits=(0, 5), safe=6),
        lambda: Block(0, 0),
        lambda: Block(0, 4, before=1),
        lambda: Block(65530, 6),
        lambda: Block(0, 125),
        lambda: Block(0, 4, function=16),
    ],
)
def test_wrong_declaration_is_refused(make):
    with pytest.raises(ValueError, match=r"."):
        make()


def test_declarations_come_in_written_order_bases_first():
    class Base:
        b = Reading(1)
        a = Reading(2)

    class Derived(Base):
        c = Setting(3, limits=(0, 1), safe=0)

    assert list(declarations(Derived)) == ["b", "a", "c"]
    assert Derived.c.name == "c"


def test_reading_outside_every_block_is_named():
    with pytest.raises(ValueError, match="far at 9 lies in no block"):
        place((Block(0, 9),), {"far": Reading(9)})
    with pytest.raises(ValueError, match="half at 8"):  # half of it would be missing
        place((Block(0, 9),), {"half": Reading(8, "f32")})
    with pytest.raises(ValueError, match="other at 0"):
        place((Block(0, 9),), {"other": Reading(0, unit=2)})


# Map files


def feeder(old: str, new: str):
    assert FEEDER.count(old) >= 1
    return parse_map(FEEDER.replace(old, new, 1), "m.toml", "powder_feeder")


def test_maps_that_come_with_the_program_are_read_and_say_they_are_fictitious():
    roles = {
        "feeder_fictitious": "powder_feeder",
        "handshake_generic": "handshake",
        "safety_pilz_sim": "safety_plc",
        "laser_ldf_fictitious": "laser_source",
    }
    names = {p.stem for p in MAPS.glob("*.toml")}
    assert names >= set(roles)
    for name in names:
        got = load_map(name, roles.get(name))
        assert got.fictitious
        assert "FICTITIOUS" in (MAPS / f"{name}.toml").read_text(encoding="utf-8")


def test_feeder_map_keeps_order_limits_and_calibration():
    got = load_map("feeder_fictitious", "powder_feeder")
    settings = [n for n, r in got.readings.items() if isinstance(r, Setting)]
    assert settings[:2] == ["diverter_to_nozzle", "run_bits"]  # make_safe diverts, then stops
    assert got.calibration["g_min_per_rpm"] == (2.0, 1.8)
    assert got.readings["hopper1_speed_set_rpm"].limits == (0.0, 10.0)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("unit = 1", 'unit = "1"', "unit must be a whole number"),
        ("unit = 1", "unit = true", "unit must be a whole number"),
        ("unit = 1", "unit = 300", "unit 300 is outside 0 to 247"),
        ("unit = 1", "unit = 1\nbaud = 9600", "baud: unknown key"),
        ("words = 21", "words = 0", r"blocks\[0\].words 0 is outside 1 to 125"),
        ("words = 21", "words = 125", r"blocks\[0\]: block at 0 of 125 words"),
        ("words = 21", "word = 21", r"blocks\[0\].word: unknown key"),
        ("words = 21", "words = 19", "hopper2_mass_g at 20 lies in no block|hopper1_mass_g"),
        ("[[blocks]]", "[[block]]", "block: unknown key"),
        ("safe = 0", "", "settings.diverter_to_nozzle.safe is missing"),
        ("safe = 0", "safe = 2", "settings.diverter_to_nozzle: safe value 2"),
        ("safe = 0", 'safe = "off"', "settings.diverter_to_nozzle.safe must be a number"),
        ("limits = [0, 3]", "limits = [3, 0]", r"run_bits.limits must be \[low, high\]"),
        ("limits = [0, 3]", "limits = [0, 1, 2]", r"run_bits.limits must be \[low, high\]"),
        ("limits = [0, 3]", "limits = [0, 70000]", "run_bits.*does not fit u16"),
        ("limits = [0, 3]", "limits = [0, inf]", r"run_bits.limits\[1\] inf is not a usable"),
        ("address = 2\n", "address = 3\n", "share register 3"),
        ("address = 2\n", "address = 70000\n", "run_bits.address 70000 is outside 0 to 65535"),
        ("scale = 0.01", "scale = 0", "hopper1_speed_set_rpm.scale 0 is outside"),
        ("scale = 0.01", 'kind = "u8"', "hopper1_speed_set_rpm.kind 'u8' is not one of"),
        (", bounds = [0, 12]", "", "hopper1_speed_rpm.bounds is missing"),
        ("bit = 0 }", "bit = 16 }", "hopper1_stalled.bit 16 is outside 0 to 15"),
        ("ready = {", "run_bits = {", "readings.run_bits: there is a setting of that name"),
        ('role = "powder_feeder"', 'role = "chiller"', "role is 'chiller'"),
        ("fictitious = true", "", "fictitious must be true or false"),
        ('framing = "port"', 'framing = "ascii"', "framing 'ascii' is not rtu, tcp or port"),
        ("g_min_per_rpm = [2.00, 1.80]", "g_min_per_rpm = []", "must be a list of 1 to 100"),
        ("title =", "title", "not valid TOML"),
    ],
)
def test_mistake_in_a_map_is_named_with_file_and_key(old, new, says):
    with pytest.raises(MapError, match=says) as caught:
        feeder(old, new)
    assert str(caught.value).startswith("m.toml: ")
    assert "\n" not in str(caught.value).split("not valid TOML")[0]


def test_unknown_map_says_what_there_is():
    with pytest.raises(
        MapError, match=r"there are: .*feeder_fictitious, handshake_generic, .*safety_pilz_sim"
    ):
        load_map("gtv", "powder_feeder")


def test_missing_and_oversized_files_are_named(tmp_path):
    with pytest.raises(MapError, match=r"none\.toml: cannot be read"):
        load_map(tmp_path / "none.toml", "powder_feeder")
    big = tmp_path / "big.toml"
    big.write_text("#" * 300_000)
    with pytest.raises(MapError, match="larger than"):
        load_map(big, "powder_feeder")


@pytest.mark.slow
def test_mutated_maps_are_read_or_refused_and_nothing_else():
    """2,000 maps with a few characters changed: only MapError, never out of limits."""
    dice = random.Random(20261124)
    read = 0
    for _ in range(2_000):
        text = list(FEEDER)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(text))
            text[at] = dice.choice(
                ['"', "=", "[", "]", "0", "9", "-", "e", ".", "\n", "", " ", "x"]
            )
        try:
            got = parse_map("".join(text), "m.toml", "powder_feeder")
        except MapError:
            continue
        read += 1
        for entry in got.readings.values():
            assert 0 <= entry.address <= 65535
            if isinstance(entry, Setting) and entry.safe is not KEEP:
                assert entry.limits[0] <= entry.safe <= entry.limits[1]
    assert read > 100  # most mutations hit comments or names


def test_errors_of_maps_are_device_errors():
    assert issubclass(MapError, DeviceError)
    assert issubclass(DeviceError, BridgeError)

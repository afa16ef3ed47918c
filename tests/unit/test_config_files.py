"""Cell, material and recipe files: what is read, and what is refused with which words."""

import pytest

from controller.config import Cell, load_cell, load_material, parse_model
from controller.errors import ConfigError, RecipeError
from controller.model import TrackKind
from controller.recipes import check_recipe, load_recipe, parse_recipe
from controller.units import parse_quantity


@pytest.fixture(scope="module")
def cell_text():
    return load_cell("sim")[1]


@pytest.fixture(scope="module")
def recipe_text():
    return load_recipe("316l_general")[1]


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("600 W", "power", 600.0),
        ("0.6 kW", "power", 600.0),
        ("10 mm/s", "speed", 10.0),
        ("600 mm/min", "speed", 10.0),
        ("1684 K", "temperature", 1410.85),
        ("0.1 ms", "time", 1e-4),
        ("20 ppm", "fraction", 20.0),
        ("1 kg/h", "mass_rate", 1000 / 60),
    ],
)
def test_quantities_are_read_in_base_units(text, dimension, value):
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [600, 600.0, True, None, "600", "600 mW", "600 mm", "nan W", "inf W", "1e400 W", "9**9**9 W",
     "600 W 3", "W", "", "6,5 W", "1" * 80 + " W", "1e999 W", "1e300 W", "-1e13 W", ["600 W"]],
)  # fmt: skip
def test_anything_but_a_finite_number_with_a_known_unit_is_refused(text):
    with pytest.raises(ValueError, match=r"unit|finite|one of|characters|beyond"):
        parse_quantity(text, "power")


def test_every_mistake_of_a_file_is_named_with_line_and_key(cell_text):
    text = cell_text.replace('"40 W"', "40").replace('lag = "0.6 s"', 'lagg = "0.6 s"')
    with pytest.raises(ConfigError) as caught:
        parse_model(Cell, text, "cell.toml")
    message = str(caught.value)
    lines = text.splitlines()
    threshold = next(n for n, s in enumerate(lines, 1) if s.startswith("threshold_power"))
    lagg = next(n for n, s in enumerate(lines, 1) if s.startswith("lagg"))
    assert f"cell.toml:{threshold}: laser.threshold_power: 40 has no unit" in message
    assert f"cell.toml:{lagg}: powder.lagg: unknown key" in message
    assert "powder.lag: is missing" in message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"1000 W"', '"30 W"', "threshold_power 40 W is not below rated_power 30 W"),
        ('name = "Z"', 'name = "W"', "the first three must be X, Y, Z"),
        ('range = ["0 mm", "250 mm"]', 'range = ["9 mm", "2 mm"]', "axis Z: range"),
        ("plan_share = 0.8", "plan_share = 1.8", "plan_share"),
        ('heartbeat_timeout = "100 ms"', 'heartbeat_timeout = "1 s"', "heartbeat_timeout"),
        ("[laser]", "[laser", "not valid TOML"),
        ('"lmd_segment"', '"supervised"', "link 'supervised' needs map"),
        ('"lmd_segment"', '"lmd_segment"\ngate_watchdog = true', "only to 'grblhal'"),
        (
            '"lmd_segment"',
            '"grblhal"\ndialect = "fanuc"',
            "dialect means nothing to link 'grblhal'",
        ),
        ('"lmd_segment"', '"grblhal"\ns_max = 0.0', "greater than 0"),
        ('kinematics = "xyz"', 'kinematics = "xyz_ac_table"', "needs motion.rotary axes A, C"),
        (
            'kinematics = "xyz"',
            'kinematics = "xyz"\nlimit_switches = ["W-"]',
            "'W-' is no end of an axis",
        ),
        (
            'steps = "400 1/mm"',
            'steps = "400 1/mm"\nencoder = "200 1/mm"',
            "encoder and lost_steps belong together",
        ),
    ],
)
def test_cells_that_make_no_sense_are_refused(cell_text, old, new, words):
    assert old in cell_text
    with pytest.raises(ConfigError, match=r"cell\.toml") as caught:
        parse_model(Cell, cell_text.replace(old, new), "cell.toml")
    assert words in str(caught.value)


def test_unknown_names_say_what_there_is():
    with pytest.raises(ConfigError, match=r"cell 'nope' is not known; there are: .*sim"):
        load_cell("nope")
    with pytest.raises(RecipeError, match="316l_general"):
        load_recipe("nope")
    with pytest.raises(ConfigError, match="no such file"):
        load_cell("nowhere/cell.toml")


def test_materials_are_found_by_their_trade_name():
    material, _ = load_material("316L")
    assert material.name == "316L"
    assert material.density_g_mm3 == pytest.approx(7.91e-3)
    assert material.solidus.value_deg_c == pytest.approx(1410.85)


def test_a_track_takes_its_kind_then_the_default():
    recipe, _ = load_recipe("316l_general")
    assert recipe.settings_for(TrackKind.HATCH, 3).speed_mm_s == 10
    wall = recipe.settings_for(TrackKind.THIN_WALL, 3)
    assert (wall.speed_mm_s, wall.power_w) == (6, 600)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('power = "600 W"', 'power = "1200 W"', "power 1200 W above 1000 W (laser.rated_power"),
        ('material = "316L"', 'material = "Ti-6Al-4V"', "is in no hopper of cell 'sim'"),
        ('power_floor = "150 W"', 'power_floor = "20 W"', "below 40 W (laser.threshold_power"),
        ('power_floor = "150 W"', 'power_floor = "700 W"', "above power 600 W"),
        (
            'speed = "10 mm/s"',
            'speed = "500 mm/s"',
            "above 107.331 mm/s (motion.axes speed x sqrt(plan_share) of cell 'sim')",
        ),
        ('powder = "6.3 g/min"', 'powder = "60 g/min"', "above 20 g/min"),
        ("enabled = false", "enabled = true", "no melt-pool loop"),
    ],
)
def test_recipes_beyond_the_cell_are_refused(recipe_text, old, new, words):
    assert old in recipe_text
    recipe = parse_recipe(recipe_text.replace(old, new, 1), "r.toml")
    with pytest.raises(RecipeError) as caught:
        check_recipe(recipe, load_cell("sim")[0], "r.toml", strict=False)
    assert words in str(caught.value)
    assert "r.toml" in str(caught.value)


def test_outside_the_window_is_refused_in_production_and_warned_in_development(recipe_text):
    recipe = parse_recipe(recipe_text.replace('speed = "10 mm/s"', 'speed = "20 mm/s"'), "r.toml")
    cell, _ = load_cell("sim")
    with pytest.raises(RecipeError, match="outside the window 6 to 16 mm/s"):
        check_recipe(recipe, cell, "r.toml", strict=True)
    warnings = check_recipe(recipe, cell, "r.toml", strict=False)
    assert any("outside the window 6 to 16 mm/s" in w for w in warnings)


def test_a_recipe_whose_default_lacks_a_key_is_refused(recipe_text):
    text = "\n".join(s for s in recipe_text.splitlines() if not s.startswith("ramp_in"))
    with pytest.raises(RecipeError, match=r"\[track.default\] lacks ramp_in"):
        parse_recipe(text, "r.toml")


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ("[-inf, 1.2]", "finite"),
        ("[-0.5, 1.2]", "not above 0"),
        ("[1.1, 1.2]", "does not hold 1"),
    ],
)
def test_an_override_window_that_is_none_is_refused(recipe_text, window, said):
    assert "override = [0.7, 1.2]" in recipe_text
    with pytest.raises(RecipeError, match=said):
        parse_recipe(recipe_text.replace("[0.7, 1.2]", window), "recipe.toml")

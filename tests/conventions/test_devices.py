"""Every driver, also those of tomorrow: what a device file must look like."""

import ast
import dataclasses
import inspect
import io
import re
import tokenize
from pathlib import Path

import pytest

from firmware_bridge import registry, roles
from firmware_bridge.ascii_device import AsciiDevice
from firmware_bridge.device import KEEP, Device
from firmware_bridge.devices.modbus_map import ModbusMap
from firmware_bridge.modbus_device import ModbusDevice
from firmware_bridge.register_map import load_map
from firmware_bridge.registers import Setting
from firmware_bridge.transport import Port

UNITS = (
    *(
        "_w",
        "_deg_c",
        "_mpa",
        "_mbar",
        "_ppm",
        "_rpm",
        "_g_min",
        "_g",
        "_l_min",
        "_mm",
        "_mm2",
        "_mm_s",
    ),
    *("_pa", "_kpa", "_s", "_us", "_v", "_a", "_hz", "_pct", "_bits"),
)
# Names that are a word of the field, a state or a text, not a quantity.
BARE = {"run", "text", "diverter_to_nozzle", "laser_on", "purge", "frame"}
LINES = {ModbusDevice: 40, AsciiDevice: 80}
SOURCE = Path(__file__).parents[2] / "firmware_bridge" / "devices"


class NoPort(Port):
    """Nothing may be opened while a device is made."""

    def __init__(self) -> None:
        super().__init__("none")

    def __str__(self) -> str:
        return "none"

    async def open(self):
        raise AssertionError("a constructor opened its port")


# A driver of any role is visited once with each map that no driver of its own reads.
BY_MAP = "modbus_map"
OWN = {"handshake", "powder_feeder", "safety_plc"}
CASES = {name: registry.driver_class(name) for name in registry.names() if name != BY_MAP}
MAPS = {}
for _path in sorted((SOURCE.parents[1] / "configs" / "maps").glob("*.toml")):
    _role = load_map(_path, None).role
    if _role not in OWN:
        CASES[f"{BY_MAP} {_path.stem}"] = _cls = type(
            "Case", (ModbusMap.of_role(_role),), {"__module__": ModbusMap.__module__}
        )
        MAPS[_cls] = _path
each = pytest.mark.parametrize("cls", CASES.values(), ids=CASES)


def made(cls):
    """A device of a driver; nothing is opened."""
    if cls in MAPS:
        return registry.make(BY_MAP, NoPort(), map=MAPS[cls])
    return cls(NoPort())


def test_there_are_drivers():
    assert len(registry.names()) >= 7


@each
def test_constructor_does_no_io_and_needs_no_loop(cls):
    device = made(cls)
    assert device.reading is None
    assert device.connected is False


@each
def test_docstrings_name_the_source(cls):
    module = inspect.getmodule(cls)
    assert re.search(r"^Source: \S", module.__doc__, re.MULTILINE)
    assert "docs/reference/device-protocols.md" in module.__doc__
    doc = inspect.getdoc(cls)
    assert doc
    assert doc != Device.__doc__


@each
def test_protocol_page_has_a_section_for_it(cls):
    page = (SOURCE.parents[1] / "docs/reference/device-protocols.md").read_text(encoding="utf-8")
    section = re.search(rf"^## \d+ `{cls.driver}`(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section
    assert re.search(r"^> ", section[1], re.MULTILINE)  # a literal exchange


@each
def test_names_carry_units(cls):
    device = made(cls)
    declared = device._readings if isinstance(device, ModbusDevice) else None
    if declared is None:
        entries = {q.name: q.bounds is not None for q in device.queries}
    else:
        entries = {n: r.bit is None for n, r in declared.items()}
    for name, is_number in entries.items():
        if is_number and name not in BARE:
            plain = re.sub(r"_\d+$", "", name)  # one of several, in a map
            assert plain.endswith(UNITS), f"{name} does not say its unit"
    for field in dataclasses.fields(cls.role.reading_type):
        if field.type in (float, "float"):
            assert field.name.endswith(UNITS), f"{field.name} does not say its unit"


@each
def test_every_output_states_its_safe_value(cls):
    device = made(cls)
    if isinstance(device, ModbusDevice):
        for name, setting in device.settings.items():
            low, high = setting.limits
            assert setting.safe is KEEP or low <= setting.safe <= high, name
    else:
        for name, action in device.actions.items():
            assert isinstance(action.safe, bool), name


def test_safe_is_what_the_process_needs():
    """Coolant outlives the beam, gas stays, powder goes to waste and stops, light ends."""

    def safe(name):
        return {n: s.safe for n, s in registry.make(name, NoPort()).settings.items()}

    assert safe("chiller_smc") == {"setpoint_deg_c": KEEP, "run": 1}
    assert set(safe("gas_alicat").values()) == {KEEP}
    assert next(iter(safe("feeder_map"))) == "diverter_to_nozzle"
    assert set(safe("feeder_map").values()) == {0}
    assert set(safe("safety_pilz").values()) == {KEEP}
    laser = registry.make("laser_ipg", NoPort())
    assert [a.command for a in laser.actions.values() if a.safe] == [b"EMOFF\r"]


@each
def test_every_number_is_bounded(cls):
    device = made(cls)
    if isinstance(device, ModbusDevice):
        for name, entry in device._readings.items():
            if entry.bit is None and not name.endswith("_bits"):
                assert entry.bounds is not None, name
                assert entry.bounds[0] < entry.bounds[1], name
    else:
        for query in device.queries:
            assert query.bounds is not None or query.convert is not float, query.name
            for command, _ in query.forms:
                assert command.endswith(b"\r")


@each
def test_driver_fills_the_whole_reading_and_every_method_of_its_role(cls):
    device = made(cls)
    declared = set(getattr(device, "_readings", ())) | set(getattr(device, "_where", ()))
    for field in dataclasses.fields(cls.role.reading_type)[1:]:
        assert hasattr(cls, field.name) or field.name in declared, field.name
    for name, method in vars(cls.role).items():
        if inspect.iscoroutinefunction(method):
            code = inspect.getsource(getattr(cls, name))
            assert "NotImplementedError" not in code, f"{cls.__name__}.{name} is not written"


@each
def test_role_settings_are_declared(cls):
    """A role method that puts a setting finds it."""
    device = made(cls)
    for method in vars(cls.role).values():
        if inspect.iscoroutinefunction(method):
            source = inspect.getsource(getattr(cls, method.__name__))
            for name in re.findall(r'self\.put\("(\w+)"', source):
                assert isinstance(device._readings.get(name), Setting), name


def code_lines(path: Path) -> int:
    """Lines that are neither blank, comment nor docstring."""
    text = path.read_text(encoding="utf-8")
    skip: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                skip |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in blank and token.string:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - skip)


@each
def test_driver_is_a_declaration_not_a_program(cls):
    limit = next((n for base, n in LINES.items() if issubclass(cls, base)), 80)
    n = code_lines(SOURCE / f"{cls.driver}.py")
    if cls.driver == "feeder_map":
        limit = 50  # as many hoppers as the map has; one driver for every maker's feeder
    assert n < limit, f"{cls.driver} has {n} lines of code"


@each
def test_drivers_do_not_import_each_other_nor_pymodbus(cls):
    text = (SOURCE / f"{cls.driver}.py").read_text(encoding="utf-8")
    assert "firmware_bridge.devices" not in text
    assert "pymodbus" not in text
    assert "import time" not in text


@each
def test_has_a_transcript(cls):
    folder = SOURCE.parents[1] / "tests" / "transcripts"
    assert (folder / f"test_{cls.driver}.py").is_file()


def test_roles_are_all_known():
    """Those that every cell has have drivers of their own; the others may come by a map."""
    fitted = {registry.driver_class(n).role for n in registry.names()}
    known = {*roles.ROLES, roles.Role}  # a driver of any role by map file declares no one role
    assert set(roles.ROLES[:7]) <= fitted <= known

"""The first-run wizard: a cell file from another one and a few answers, checked before it stays."""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controller.config import find_file, load_cell
from controller.errors import ConfigError, LmdError

# key in the file -> what is asked
QUESTIONS: dict[str, str] = {
    "name": "Name of the cell (short, no blanks)",
    "title": "Title",
    "simulated": "Is the cell simulated (true or false)",
    "default_recipe": "Recipe used when none is given",
    "motion.link": "Motion controller: lmd_segment, grblhal or supervised",
    "motion.port": "Port of the motion controller, e.g. serial:///dev/ttyACM0?baud=921600",
    "motion.travel_speed": "Speed of travel moves",
    "laser.driver": "Driver of the laser source",
    "laser.port": "Port of the laser source, e.g. tcp://192.168.3.230:10001",
    "laser.rated_power": "Rated power of the laser",
    "laser.threshold_power": "Power at which it begins to emit",
    "laser.spot_diameter": "Spot diameter at the work",
    "powder.port": "Port of the powder feeder",
    "powder.greatest_flow": "Greatest powder flow",
    "powder.transport_delay": "Transport delay, as far as known (lmd calibrate delay measures it)",
    "chiller.driver": "Driver of the chiller",
    "chiller.port": "Port of the chiller",
    "gas.driver": "Driver of the gas controllers",
    "gas.port": "Port of the gas controllers",
    "oxygen.port": "Port of the oxygen analyser",
    "pyrometer.driver": "Driver of the pyrometer",
    "pyrometer.port": "Port of the pyrometer",
    "safety.port": "Port of the safety PLC",
    "substrate.material": "Material of the substrate",
    "substrate.top": "Height of the substrate's top, machine coordinates",
}
MAX_ANSWER_BYTES = 100_000


def base(like: str) -> tuple[str, dict[str, Any]]:
    """Text of the cell to begin with, and its present answers by key."""
    text = find_file("cells", like).read_text(encoding="utf-8")
    load_cell(like)
    table = tomllib.loads(text)
    found = {}
    for key in QUESTIONS:
        value: Any = table
        for word in key.split("."):
            value = value.get(word) if isinstance(value, dict) else None
        if value is not None:
            found[key] = value
    return text, found


def ask(before: Mapping[str, Any], prompt: Callable[[str, str], str]) -> dict[str, Any]:
    """Every question with its present value as the default; what was changed."""
    changed: dict[str, Any] = {}
    for key, value in before.items():
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        answer = prompt(QUESTIONS[key], shown).strip()
        if answer != shown:
            if isinstance(value, bool):
                if answer not in ("true", "false"):
                    raise ConfigError(f"{key}: {answer!r} is neither true nor false")
                changed[key] = answer == "true"
            else:
                changed[key] = answer
    return changed


def read_answers(path: Path) -> dict[str, Any]:
    """Answers from a TOML file, ``laser.rated_power = "2 kW"`` or by tables. Raises ConfigError."""
    try:
        if path.stat().st_size > MAX_ANSWER_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_ANSWER_BYTES} bytes")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--answers {path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(f"--answers {path}: cannot be read ({exc})") from None
    found: dict[str, Any] = {}
    for key, value in table.items():
        pairs = value.items() if isinstance(value, dict) else [(None, value)]
        for name, one in pairs:
            full = key if name is None else f"{key}.{name}"
            if full not in QUESTIONS:
                raise ConfigError(f"{path}: {full} is none of {', '.join(QUESTIONS)}")
            if not isinstance(one, str | bool):
                raise ConfigError(f"{path}: {full} = {one!r} must be text, true or false")
            found[full] = one
    return found


def write(text: str, answers: Mapping[str, Any], out: Path) -> None:
    """Put the answers into the text, check the whole file, then give it its name.

    Raises ConfigError with what is wrong; then no file stays.
    """
    for key, value in answers.items():
        text = _put(text, key, value)
    part = out.with_name(out.name + ".part.toml")
    try:
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise ConfigError(f"--out {out}: cannot be written ({exc.strerror})") from None
    try:
        cell, _ = load_cell(str(part))
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", cell.name):
            raise ConfigError(
                f"{part}: name {cell.name!r} must be letters, digits, _ . -, up to 40"
            )
        from controller.launch import check_devices

        check_devices(cell, part)
        part.rename(out)
    except LmdError as exc:
        raise ConfigError(str(exc).replace(str(part), str(out))) from None
    finally:
        part.unlink(missing_ok=True)


def _put(text: str, key: str, value: Any) -> str:
    """Replace one value in a TOML text, its comment dropped. Raises ConfigError if not there."""
    section, _, name = key.rpartition(".")
    here, lines, done = "", text.splitlines(), False
    for n, line in enumerate(lines):
        header = re.match(r"\s*\[+([^\]]+)\]+", line)
        if header:
            here = header[1].strip()
        elif here == section and re.match(rf"\s*{re.escape(name)}\s*=", line) and not done:
            lines[n] = f"{name} = {json.dumps(value, ensure_ascii=False)}"
            done = True
    if not done:
        raise ConfigError(f"{key}: the cell to begin with has no such key")
    return "\n".join(lines) + "\n"

"""What words of a command line may be, told before anything heavy is imported.

Each function returns what the word means or raises an LmdError of one sentence that names
the option, the value and what is allowed.
"""

import math
from pathlib import Path

from controller.errors import ConfigError, GeometryError

TIME_MODES = ("real", "virtual", "null")
UNIT_MODES = ("production", "development", "maintenance")
TIME_LAWS = ("trapezoid", "friction_circle", "jerk")
UNITS = ("mm", "inch", "m")
GREATEST_SEED = (1 << 63) - 1
GREATEST_SCALE = 1e6
_GCODE = {".gcode", ".nc", ".ngc", ".tap", ".cnc", ".g"}


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """``value``, if it is one of ``allowed``. Raises ConfigError."""
    if value not in allowed:
        listed = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
        raise ConfigError(f"{option} {value}: must be {listed}")
    return value


def seed(value: int) -> int:
    """A seed: a whole number from 0 to 2^63 - 1. Raises ConfigError."""
    if not 0 <= value <= GREATEST_SEED:
        raise ConfigError(f"--seed {value}: must be a whole number from 0 to 2^63 - 1")
    return value


def scale(value: float) -> float:
    """A scale factor above 0. Raises ConfigError."""
    if not (math.isfinite(value) and 0.0 < value <= GREATEST_SCALE):
        raise ConfigError(f"--scale {value:g}: must be above 0 and at most {GREATEST_SCALE:.0f}")
    return value


def rotation(text: str | None) -> tuple[float, float, float]:
    """Angles about X, Y, Z in degrees. Raises ConfigError."""
    if text is None:
        return (0.0, 0.0, 0.0)
    try:
        x, y, z = (float(word) for word in text.split(","))
    except ValueError:
        x = y = z = math.nan
    if not all(math.isfinite(angle) for angle in (x, y, z)):
        raise ConfigError(f"--rotate {text}: must be three angles in degrees, as 90,0,0")
    return (x, y, z)


def part_file(path: Path) -> Path:
    """A part file that is there and is no G-code and no job. Raises GeometryError."""
    refuse_gcode(path)
    if not path.exists():
        raise GeometryError(f"{path}: no such file")
    if path.is_dir():
        raise GeometryError(f"{path}: is a folder, give a part file (STL, 3MF or STEP)")
    if path.suffix.lower() == ".lmdjob":
        raise GeometryError(f"{path}: is a job, give the part that it was planned from")
    return path


def refuse_gcode(path: Path) -> None:
    """Raise GeometryError for G-code, which has no interpreter yet."""
    if path.suffix.lower() in _GCODE:
        raise GeometryError(f"{path}: G-code is not read yet, give an STL, 3MF or STEP file")


def job_file(path: Path) -> Path:
    """A job file that is there. Raises ConfigError."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file")
    if path.is_dir() or path.suffix != ".lmdjob":
        raise ConfigError(f"{path}: is no job, give a file *.lmdjob that lmd plan wrote")
    return path


def new_file(option: str, path: Path, suffix: str) -> Path:
    """A file to write: its name ends rightly and its folder exists. Raises ConfigError."""
    if path.suffix.lower() != suffix:
        raise ConfigError(f"{option} {path}: the name must end in {suffix}")
    if path.is_dir():
        raise ConfigError(f"{option} {path}: is a folder, give the name of a file")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{option} {path}: folder {path.parent} does not exist")
    return path

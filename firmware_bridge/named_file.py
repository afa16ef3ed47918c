"""TOML files of the bridge, by the name of one that comes with it or by path."""

from importlib import resources
from pathlib import Path

from firmware_bridge.errors import MapError


def read_named(what: str, folder: str, name_or_path: str | Path, max_bytes: int) -> tuple[str, str]:
    """Text and path of ``configs/<folder>/<name>.toml``, or of a path. Raises MapError."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        here = Path(str(resources.files("configs"))) / folder
        path = here / f"{name_or_path}.toml"
        if not path.is_file():
            have = ", ".join(sorted(p.stem for p in here.glob("*.toml")))
            raise MapError(f"{what} {str(name_or_path)!r} is not known; there are: {have}")
    try:
        if path.stat().st_size > max_bytes:
            raise MapError(f"{path}: larger than {max_bytes} bytes")
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as exc:
        raise MapError(f"{path}: cannot be read: {exc}") from None

"""The motion links by the name that a cell file gives them."""

from collections.abc import Callable, Mapping
from typing import Any

from firmware_bridge.errors import DeviceError
from firmware_bridge.link_types import Link, LinkSettings
from firmware_bridge.transport import Port

Options = Mapping[str, Any]  # plain values only: they go to another process as JSON


def _segment(port: Port, settings: LinkSettings, options: Options) -> Link:
    from firmware_bridge.motion_link import MotionLink

    return MotionLink(port, settings, **options)


def _grblhal(port: Port, settings: LinkSettings, options: Options) -> Link:
    from firmware_bridge.grbl_link import GrblLink
    from firmware_bridge.grbl_settings import GrblSettings

    x, y, z = options.get("origin_mm", (0.0, 0.0, 0.0))
    return GrblLink(port, settings, GrblSettings(**{**options, "origin_mm": (x, y, z)}))


def _supervised(port: Port, settings: LinkSettings, options: Options) -> Link:
    from firmware_bridge.supervised_link import SupervisedLink

    return SupervisedLink(port, settings, **options)


# imported when wanted: a link's process has only what it needs
_KINDS: dict[str, Callable[[Port, LinkSettings, Options], Link]] = {
    "lmd_segment": _segment,
    "grblhal": _grblhal,
    "supervised": _supervised,
}


def make(kind: str, port: Port, settings: LinkSettings, options: Options) -> Link:
    """A link; no I/O. ``options`` are those of its class.

    Raises DeviceError for an unknown kind, MapError for a handshake map that cannot be read.
    """
    if kind not in _KINDS:
        raise DeviceError(f"motion.link {kind!r} is none of {', '.join(_KINDS)}")
    return _KINDS[kind](port, settings, options)
